"""Ways to start workers. A launcher is one function and one line in `LAUNCHERS`.

All that it does is start `python -m study worker FILE`; what workers do is in `study.worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=67108864" + "".join(
    f":glibc.malloc.{name}_threshold={size}"
    for name, size in (("mmap", 1 << 30), ("trim", 1 << 32))
)
"""How glibc gives memory to a worker: in huge pages, and kept once it has them.

Each training step frees and allocates the same tensors; handed back to the system in between, they
are page faults again, a tenth of a step on the CPU. Other C libraries ignore this."""


def environment() -> dict[str, str]:
    """The environment of a worker; what the user has set wins."""
    return {"GLIBC_TUNABLES": MEMORY, **os.environ}


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
                    env=environment(),
                )
            )
    return processes


LAUNCHERS: dict[str, Callable[[Path, int, Path], list[subprocess.Popen[bytes]]]] = {
    "local": local,
}
