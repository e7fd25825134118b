"""How a worker is asked to stop: by a signal, or by the end of the process that started it.

Nothing heavy is imported here. A worker listens before it loads the libraries, which takes seconds,
and more on a busy machine.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 130
"""Exit code of a worker that was asked to stop."""
DEADLINE = 8.0
"""Seconds after which a worker that was asked to stop, and saves nothing meanwhile, ends."""
LONGEST = 60.0
"""Seconds after which it ends, whatever it does. Those who ask a worker to stop wait for longer."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""What asks it: Ctrl-C, machines that end, and SLURM, whose warning reaches all of a job."""
LOOK = 0.5
"""Seconds between looks at whether the parent still lives."""

TICK = 0.1
"""Seconds between looks at whether it saves, once it has been asked to stop."""

asked = threading.Event()
"""Set once this process has been asked to stop: from then on nothing in it waits."""
_saves = threading.Event()


@contextmanager
def saving() -> Iterator[None]:
    """Within the block this process saves: a large checkpoint takes longer than `DEADLINE`."""
    _saves.set()
    try:
        yield
    finally:
        _saves.clear()


class StopRequest:
    """Listens for signals, and for the end of the process `parent`, where one is given.

    Until `loaded` is called, while it imports libraries, it ends at once. Until `hold` is called it
    is ended by a `KeyboardInterrupt`, so that what it has begun to write is cleaned up. From then
    on it has a trial to hand back, and has to look whether to stop. Whatever still hangs after
    `DEADLINE` seconds, such as a server that does not answer, is left behind: the process ends. The
    time in which it writes a checkpoint does not count, up to `LONGEST` seconds in all.
    """

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._loaded = False
        self._holds = False
        self._raised = False
        # A handler in Python runs in the main thread, when that comes back from whatever library it
        # is in; and were it to set the event while that thread waits for it, both could hang. So a
        # thread reads from a pipe which signals came: into it they are written at once.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        for number in SIGNALS:
            signal.signal(number, self._interrupt)
        threading.Thread(target=self._listen, args=(reading,), daemon=True, name="stop").start()

    def loaded(self) -> None:
        """From now on there is something to clean up."""
        self._loaded = True

    def hold(self) -> None:
        """From now on there is something to hand back, and whoever does it looks at this."""
        self._holds = True

    def is_set(self) -> bool:
        """Whether to stop."""
        return asked.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, unless the process is asked to stop."""
        asked.wait(seconds)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._loaded:
            os._exit(STOPPED)  # an exception could be lost: libraries try imports, and go on
        if not (self._holds or self._raised):
            self._raised = True  # once: what cleans up is not interrupted
            raise KeyboardInterrupt

    def _listen(self, pipe: int) -> None:
        while not asked.is_set():
            if select.select([pipe], [], [], LOOK)[0] and set(os.read(pipe, 64)) & {*SIGNALS}:
                asked.set()
            elif self._parent is not None and os.getppid() != self._parent:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if self._loaded:
            _wait_until_it_hangs()
        os._exit(STOPPED)


def _wait_until_it_hangs() -> None:
    """Return once nothing has been saved for `DEADLINE` seconds, or `LONGEST` are over."""
    now = time.monotonic()
    hangs, last = now + DEADLINE, now + LONGEST
    while now < min(hangs, last):
        if _saves.is_set():
            hangs = now + DEADLINE
        time.sleep(TICK)
        now = time.monotonic()
