"""A worker in this process: for a debugger, and where processes cannot be started."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from study.config import StudyConfig
from study.launchers.worker import log_file
from study.logs import logged


def inline(config: StudyConfig, numbers: Sequence[int]) -> list[Inline]:
    """Run one worker in a thread of this process."""
    return [Inline(config, number) for number in numbers]


class Inline:
    """A worker in a thread."""

    def __init__(self, config: StudyConfig, number: int) -> None:
        self._stop = threading.Event()
        self._code: int | None = None
        self._thread = threading.Thread(target=self._work, args=(config, number), name="worker")
        self._thread.daemon = True
        self._thread.start()

    def _work(self, config: StudyConfig, number: int) -> None:
        from study import worker

        code = worker.FAILED  # where it ends in an error
        try:
            with logged(log_file(config, number)):
                code = worker.work(config, self._stop)
        finally:
            self._code = code

    def code(self) -> int | None:
        """The exit code that a process would have."""
        return self._code

    def stop(self) -> None:
        """Ask it to end."""
        self._stop.set()

    def kill(self) -> None:
        """A thread cannot be killed; it ends with the process."""
        self._stop.set()
