"""A GPU that several workers share, and that one of their trials may need alone.

    gpu = SharedGpu.of(device)
    with gpu.shared(interrupted):       # while a trial trains
        ...
        if gpu.alone(interrupted):      # memory ran out: the others end their trials first,
            ...                         # and it may try again

Three files for each GPU say who is there, by locks that the system takes from whoever ends. Those
who train hold the *room* together. Who needs it alone holds the *door*, at which others wait before
they begin a trial, and so gets the room once it is empty. Several who need it alone have it one
after the other; until then they sit on the *bench*, so that the first knows of those who went out.
The files are in the folder for temporary files: workers know of each other on one machine, whatever
their studies, if they are one user's.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import torch

from study.data import resident
from study.training.loop import Interrupted
from study.training.memory import release

log = logging.getLogger(__name__)

LOOK = 0.5
"""Seconds between two looks whether a lock is free."""


class SharedGpu:
    """A worker's place at a GPU; without a GPU there is nothing to wait for."""

    def __init__(self, files: Path | None = None, device: torch.device | None = None) -> None:
        """`files` is how the names of its files begin; None where nothing is shared."""
        self._files, self._device = files, device or torch.device("cpu")
        self._door: IO[str] | None = None
        self._room: IO[str] | None = None
        self._bench: IO[str] | None = None
        self._alone = False
        self._used = False

    @classmethod
    def of(cls, device: torch.device) -> SharedGpu:
        """The place at a device of this machine."""
        if device.type != "cuda":
            return cls()
        uuid = torch.cuda.get_device_properties(device).uuid
        folder = Path(tempfile.gettempdir()) / f"conformer-study-{os.getuid()}"
        try:
            return cls(_own(folder) / f"{uuid}", device)
        except OSError as error:
            log.warning("%s: trials that share a GPU will not wait for each other", error)
            return cls()

    @contextmanager
    def shared(self, interrupted: Callable[[], bool]) -> Iterator[None]:
        """A block in which a trial may train, beside others or, after `alone`, by itself.

        Waits while another trial needs the GPU alone. Raises `Interrupted` once `interrupted()` is
        true.
        """
        if self._files is None:
            yield
            return
        with ExitStack() as files:
            self._door, self._room, self._bench = (
                files.enter_context(Path(f"{self._files}.{name}").open("a+"))
                for name in ("door", "room", "bench")
            )
            self._alone = False
            if not _locked(self._door, fcntl.LOCK_EX):
                self.leave()
                log.info("Waiting: another trial needs the GPU alone")
                _wait(self._door, fcntl.LOCK_EX, interrupted)
            _wait(self._room, fcntl.LOCK_SH, interrupted)
            fcntl.flock(self._door, fcntl.LOCK_UN)
            self._used = True
            try:
                yield
            finally:  # the files, and with them the locks, are let go after it
                if _locked(self._door, fcntl.LOCK_EX):
                    release(self._device)
                else:
                    self.leave()

    def alone(
        self, interrupted: Callable[[], bool], waiting: Callable[[], None] = lambda: None
    ) -> bool:
        """Wait until no other trial is at the GPU, and keep others out until the block ends.

        False where none was there, so that there is no more memory to be had. What this trial holds
        has to be given back before. `waiting` is called before it waits. Raises `Interrupted` once
        `interrupted()` is true.
        """
        if self._files is None or self._alone:
            return False
        assert self._door is not None and self._room is not None and self._bench is not None
        fcntl.flock(self._bench, fcntl.LOCK_SH)
        first = _locked(self._door, fcntl.LOCK_EX)
        if first and all(_locked(file, fcntl.LOCK_EX) for file in (self._room, self._bench)):
            fcntl.flock(self._room, fcntl.LOCK_SH)
            for file in (self._bench, self._door):
                fcntl.flock(file, fcntl.LOCK_UN)
            return False
        fcntl.flock(self._room, fcntl.LOCK_UN)  # another may be waiting for us to go out
        self.leave()
        waiting()
        if not first:
            _wait(self._door, fcntl.LOCK_EX, interrupted)
        _wait(self._room, fcntl.LOCK_EX, interrupted)
        fcntl.flock(self._bench, fcntl.LOCK_UN)
        self._alone = self._used = True
        return True

    def leave(self) -> None:
        """Keep nothing on the GPU for later, since another's trial may need all of it."""
        if self._used:
            resident.forget()
            release(self._device)
            self._used = False


def _own(folder: Path) -> Path:
    """The same folder, made if need be; raises `OSError` where it is somebody else's."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


def _wait(file: IO[str], kind: int, interrupted: Callable[[], bool]) -> None:
    while not _locked(file, kind):
        if interrupted():
            raise Interrupted
        time.sleep(LOOK)


def _locked(file: IO[str], kind: int) -> bool:
    """Whether a lock could be had."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
