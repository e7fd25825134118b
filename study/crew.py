"""The workers of one `run`: how many, started, replaced when killed, and stopped in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from study import packing, provenance
from study.config import FILES, JOURNAL_WORKERS, StudyConfig
from study.launchers import LAUNCHERS, Worker
from study.launchers.local import visible_gpus
from study.stopping import LONGEST
from study.worker import FAILED

PATIENCE = LONGEST + 7
"""Seconds that workers have to hand back their trials before they are killed: they end by
themselves, most of them at once, and those that write large checkpoints within `LONGEST`."""
LOSSES = 5
"""Workers, for each that there should be, that may be killed without a trial ending in between."""


def size(
    config: StudyConfig, device: str, say: Callable[[str], object] = lambda sentence: None
) -> int:
    """Workers: what is asked for, else one a core on the CPU, or the share of each GPU.

    Nobody having asked, a storage that is a file gets no more than it bears. Where the share of a
    GPU is to be found out, `say` is told what was found.
    """
    launcher = config.launcher
    if launcher.kind == "inline":
        return 1
    if launcher.workers is not None:
        return launcher.workers
    if device == "cpu":
        most = JOURNAL_WORKERS if config.storage in ("auto", *FILES) else provenance.cores()
        return min(provenance.cores(), most)
    gpus = max(1, len(visible_gpus()))
    if launcher.workers_per_gpu != "auto":
        return gpus * launcher.workers_per_gpu
    footprint = packing.measure(config)
    share = packing.fitting(footprint, cores=max(1, provenance.cores() // gpus))
    workers = f"{share} workers share a GPU" if share > 1 else "one worker has a GPU to itself"
    say(f"{workers}: {footprint.in_words()}.")
    return gpus * share


class Crew:
    """Workers that were started, by their numbers."""

    def __init__(self, config: StudyConfig, workers: int) -> None:
        self._launch = LAUNCHERS[config.launcher.kind]
        self._config = config
        self._workers: list[Worker] = list(self._launch(config, range(workers)))
        self._losses = 0
        self._finished = 0
        self.gave_up = False
        """Whether a worker ended by itself because something is wrong for all of them."""

    def look(self, finished: int) -> bool:
        """Whether any works; one that was killed is replaced, but not again and again.

        `finished` is how many trials have an outcome by now.
        """
        if finished != self._finished:
            self._finished, self._losses = finished, 0
        codes = [worker.code() for worker in self._workers]
        self.gave_up = self.gave_up or FAILED in codes
        killed = [number for number, code in enumerate(codes) if code is not None and code < 0]
        for number in killed:
            if not self.gave_up and self._losses < LOSSES * len(codes):
                self._losses += 1
                (self._workers[number],) = self._launch(self._config, [number])
                codes[number] = None
        return None in codes

    def stop(self) -> None:
        """Ask all to stop, and kill those that do not."""
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # they are stopping already
        try:
            for worker in self._workers:
                if worker.code() is None:
                    worker.stop()
            deadline = time.monotonic() + PATIENCE
            while any(worker.code() is None for worker in self._workers):
                if time.monotonic() > deadline:
                    for worker in self._workers:
                        worker.kill()
                    return
                time.sleep(0.05)
        finally:
            signal.signal(signal.SIGINT, previous)
