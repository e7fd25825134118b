"""Ways to start workers. A launcher is one function and one line in `LAUNCHERS`.

All that it does is start `python -m study worker FILE`; what workers do is in `study.worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def local(file: Path, workers: int, logs: Path) -> list[subprocess.Popen[bytes]]:
    """Start processes on this machine, each with a log file of its own.

    They stand in a session of their own, so that Ctrl-C in the terminal reaches the study alone,
    which stops them in order; and they stop by themselves when the study is gone.
    """
    logs.mkdir(parents=True, exist_ok=True)
    parent = ["--parent", str(os.getpid())]
    processes = []
    for number in range(workers):
        with (logs / f"worker-{number}.log").open("ab") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "study", "worker", str(file), *parent],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
    return processes


LAUNCHERS: dict[str, Callable[[Path, int, Path], list[subprocess.Popen[bytes]]]] = {
    "local": local,
}
