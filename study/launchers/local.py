"""Processes on this machine, each with a log of its own; GPUs are dealt out to them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from study import provenance
from study.config import StudyConfig
from study.launchers.worker import command, environment, log_file


def local(config: StudyConfig, numbers: Sequence[int]) -> list[Process]:
    """Start processes on this machine.

    They stand in a session of their own, so that Ctrl-C in the terminal reaches the study alone,
    which stops them in order; and they stop by themselves when the study is gone.
    """
    gpus = [] if config.device == "cpu" else visible_gpus()
    return [Process(config, number, gpus) for number in numbers]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = provenance.named_gpus()
    if named is not None:
        return named
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


class Process:
    """A worker in a process of this machine."""

    def __init__(self, config: StudyConfig, number: int, gpus: list[str]) -> None:
        variables = environment()
        if gpus:
            variables["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        with log_file(config, number).open("ab") as log:
            self.process = subprocess.Popen(
                [*command(config), "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=variables,
                start_new_session=True,
            )

    def code(self) -> int | None:
        """The exit code; None while it runs, negative where a signal ended it."""
        return self.process.poll()

    def stop(self) -> None:
        """Ask it to end."""
        self.process.terminate()

    def kill(self) -> None:
        """End it, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
