"""What a launcher gives back, and the command that it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

from study.config import StudyConfig
from study.provenance import importable


class Worker(Protocol):
    """A worker that was started somewhere."""

    def code(self) -> int | None:
        """Its exit code; None while it runs, negative where a signal ended it."""

    def stop(self) -> None:
        """Ask it to hand its trial back and to end; returns at once."""

    def kill(self) -> None:
        """End it now."""


def command(config: StudyConfig) -> list[str]:
    """The command of one worker; the study's file is where `run` wrote it."""
    return [sys.executable, "-m", "study", "worker", str(study_file(config).absolute())]


MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=67108864" + "".join(
    f":glibc.malloc.{name}_threshold={size}"
    for name, size in (("mmap", 1 << 30), ("trim", 1 << 32))
)
"""How glibc gives memory to a worker: in huge pages, and kept once it has them.

Each training step frees and allocates the same tensors; handed back to the system in between, they
are page faults again, a tenth of a step on the CPU. Other C libraries ignore this."""


def environment() -> dict[str, str]:
    """The environment of a worker; what the user has set wins."""
    return importable({"GLIBC_TUNABLES": MEMORY, **os.environ})


def study_file(config: StudyConfig) -> Path:
    """The whole configuration, for the workers to read."""
    return config.folder / "study.yaml"


def log_file(config: StudyConfig, number: int) -> Path:
    """Where a worker writes what it does."""
    folder = config.folder / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"worker-{number}.log"
