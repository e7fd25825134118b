"""Workers as jobs of a SLURM cluster, by submitit: one array, requeued when pre-empted.

A job that is about to be pre-empted, or whose time is up, gets SIGUSR2, saves and hands its trial
back, and is put into SLURM's queue again. SLURM sends its signals to all processes of a job, so the
worker gets them too. Where it gets SIGTERM first or alone, it ends, and the job waits for what
SLURM does with it: one that ended by itself would not be queued again.

The study's folder must be on a file system that all machines share. submitit's files and logs are
in `logs/slurm` of it.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.config import StudyConfig
from study.errors import InputError
from study.launchers.worker import command, environment
from study.stopping import LONGEST, STOPPED

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

WARNING = 90
"""Seconds between SLURM's signal and the end of a job."""
PATIENCE = LONGEST + 7
"""Seconds of these that a worker has to hand its trial back; then the job is queued again."""
TAKEN_BACK = 600
"""Seconds in which SLURM ends a job that it has sent SIGTERM; beyond, somebody else has sent it."""


def slurm(config: StudyConfig, numbers: Sequence[int], cluster: str = "slurm") -> list[Job]:
    """Submit workers as one array of jobs; `cluster` may be submitit's `local`, to try it out."""
    try:
        import submitit
    except ImportError:
        raise InputError(
            "launcher.kind: submitit is missing: pip install 'conformer-study[slurm]'"
        ) from None
    options = config.launcher.slurm
    folder = (config.folder / "logs" / "slurm").absolute()
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=10_000)
    except RuntimeError:
        raise InputError(
            "launcher.kind: there is no SLURM here (srun is not found); start the study on a "
            "machine from which jobs are submitted"
        ) from None
    wanted = {
        "name": f"study-{config.name}",
        "timeout_min": options.minutes,
        "cpus_per_task": options.cpus,
        "gpus_per_node": options.gpus or None,
        "mem_gb": options.memory,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_qos": options.qos,
        "slurm_constraint": options.constraint,
        "slurm_setup": list(options.setup) or None,
        "slurm_signal_delay_s": WARNING,
        "slurm_additional_parameters": {"requeue": True},
    }
    executor.update_parameters(**{name: v for name, v in wanted.items() if v is not None})
    work = Work(command(config), str(Path.cwd()))
    with executor.batch():
        jobs = [executor.submit(work) for _ in numbers]
    return [Job(job) for job in jobs]


class Work:
    """What a job does; submitit calls `checkpoint` when SLURM wants the machine back."""

    def __init__(self, command: list[str], folder: str) -> None:
        self._command, self._folder = command, folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run a worker; returns its exit code."""
        self._process = subprocess.Popen(self._command, cwd=self._folder, env=environment())
        while (code := self._process.poll()) is None:
            time.sleep(0.2)  # not `wait`, in which a signal's handler could not wait again
        if code == STOPPED:
            time.sleep(TAKEN_BACK)
        return code

    def checkpoint(self) -> DelayedSubmission:
        """Have the worker hand its trial back, and say how the job goes on."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return DelayedSubmission(Work(self._command, self._folder))


class Job:
    """A worker that is, or will be, a job."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def code(self) -> int | None:
        """The exit code; None while it waits or runs, -9 where the job was lost."""
        if not self.job.done():
            return None
        try:
            return int(self.job.result())
        except Exception:  # cancelled, or lost with its machine
            return -signal.SIGKILL

    def stop(self) -> None:
        """Cancel it: SLURM sends SIGTERM, and waits before it kills."""
        self.job.cancel(check=False)

    def kill(self) -> None:
        """Cancel it, which is all that can be done from here."""
        self.job.cancel(check=False)
