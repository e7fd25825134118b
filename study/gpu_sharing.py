"""A GPU that several workers share, and that one of their trials may need alone.

    gpu = SharedGpu.of(device, config.cache)
    with gpu.shared(interrupted):       # while a trial trains
        ...
        if gpu.alone(interrupted):      # memory ran out: the others end their trials first,
            ...                         # and it may try again

Two files for each GPU say who is there, by locks that the system takes from whoever ends. Those who
train hold the *room* together. Who needs it alone goes out, holds the *door*, at which the others
wait before they begin another trial, and so gets the room once it is empty. Workers that know of
each other are those of one machine with one folder of caches.
"""

from __future__ import annotations

import fcntl
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import torch

from study.data import resident
from study.files import Unwritable
from study.training.loop import Interrupted
from study.training.memory import release

LOOK = 0.5
"""Seconds between two looks whether a lock is free."""


class SharedGpu:
    """A worker's place at a GPU; without a GPU there is nothing to wait for."""

    def __init__(self, files: Path | None = None, device: torch.device | None = None) -> None:
        """`files` is how the names of its two files begin; None where nothing is shared."""
        self._files, self._device = files, device or torch.device("cpu")
        self._door: IO[str] | None = None
        self._room: IO[str] | None = None
        self._alone = False

    @classmethod
    def of(cls, device: torch.device, cache: Path) -> SharedGpu:
        """The place at a device of this machine."""
        if device.type != "cuda":
            return cls()
        name = f"{socket.gethostname()}-{torch.cuda.get_device_properties(device).uuid}"
        return cls(cache / "gpus" / name, device)

    @contextmanager
    def shared(self, interrupted: Callable[[], bool]) -> Iterator[None]:
        """A block in which a trial may train, beside others or, after `alone`, by itself.

        Waits while another trial has the GPU alone. Raises `Interrupted` once `interrupted()` is
        true, and `Unwritable` where the files cannot be made or locked.
        """
        if self._files is None:
            yield
            return
        with ExitStack() as files:
            self._door, self._room = (self._open(name, files) for name in ("door", "room"))
            self._alone = False
            if not _locked(self._door, fcntl.LOCK_EX):
                resident.forget()  # whoever needs the GPU alone needs this memory, too
                release(self._device)
                self._wait(self._door, fcntl.LOCK_EX, interrupted)
            self._wait(self._room, fcntl.LOCK_SH, interrupted)
            fcntl.flock(self._door, fcntl.LOCK_UN)
            try:
                yield
            finally:
                release(self._device)  # the files, and with them the locks, are let go after it

    def alone(self, interrupted: Callable[[], bool]) -> bool:
        """Wait until no other trial is at the GPU, and keep others out until the block ends.

        False where none was there, so that there is no more memory to be had. What this trial holds
        has to be given back before. Raises `Interrupted` once `interrupted()` is true.
        """
        if self._files is None or self._alone:
            return False
        assert self._door is not None and self._room is not None
        if not _locked(self._room, fcntl.LOCK_EX):
            at_door = _locked(self._door, fcntl.LOCK_EX)
            fcntl.flock(self._room, fcntl.LOCK_UN)  # who has the door waits for us to go out
            if not at_door:
                self._wait(self._door, fcntl.LOCK_EX, interrupted)
            self._wait(self._room, fcntl.LOCK_EX, interrupted)
        elif _locked(self._door, fcntl.LOCK_EX):
            fcntl.flock(self._door, fcntl.LOCK_UN)
            fcntl.flock(self._room, fcntl.LOCK_SH)
            return False
        # Else somebody who was here a moment ago waits outside, and we have what memory they had.
        self._alone = True
        return True

    def _open(self, name: str, files: ExitStack) -> IO[str]:
        file = Path(f"{self._files}.{name}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return files.enter_context(file.open("a"))
        except OSError as error:
            raise Unwritable(file, error) from None

    def _wait(self, file: IO[str], kind: int, interrupted: Callable[[], bool]) -> None:
        while not _locked(file, kind):
            if interrupted():
                raise Interrupted
            time.sleep(LOOK)


def _locked(file: IO[str], kind: int) -> bool:
    """Whether a lock could be had; raises `Unwritable` where files have none."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Unwritable(file.name, error) from None
    return True
