"""Workers on a Ray cluster: an existing one by its address, or one on this machine.

Ray places them (a worker takes a share of a GPU, or a core), and starts those again, on another
machine where need be, whose machine or process is lost. The study's folder must be where they can
see it, and the variables of the storage's URL in the environment in which Ray was started there.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.config import StudyConfig
from study.errors import InputError
from study.launchers.worker import command, environment, log_file

RESTARTS = 10
"""Times that a worker which is killed is started again."""


def ray(config: StudyConfig, numbers: Sequence[int]) -> list[Placed]:
    """Start workers on a Ray cluster."""
    try:
        import ray as engine
    except ImportError:
        raise InputError(
            "launcher.kind: ray is missing: pip install 'conformer-study[ray]'"
        ) from None
    address = config.launcher.address
    if not engine.is_initialized():
        try:
            engine.init(
                address=address,
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except ConnectionError as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"launcher.address: no Ray cluster at {address} ({reason})") from None
    assert config.launcher.workers_per_gpu != "auto"  # refused where a study is read
    share = 1 / config.launcher.workers_per_gpu
    gpus = share if config.device != "cpu" and _has_gpus() else 0
    kind = engine.remote(
        num_cpus=1, num_gpus=gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS
    )(Actor)
    started = [
        kind.remote(command(config), str(Path.cwd()), str(log_file(config, number).absolute()))
        for number in numbers
    ]
    return [Placed(actor) for actor in started]


def _has_gpus() -> bool:
    import ray as engine

    resources: dict[str, float] = engine.cluster_resources()
    return resources.get("GPU", 0) > 0


class Actor:
    """What Ray runs: it starts a worker where Ray places it, and again when Ray restarts it."""

    def __init__(self, command: list[str], folder: str, log: str) -> None:
        self._command, self._folder, self._log = command, folder, log
        self._restarts = 0
        self._start()

    def _start(self) -> None:
        with Path(self._log).open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "--parent", str(os.getpid())],
                cwd=self._folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def code(self) -> int | None:
        """The worker's exit code; one that was killed is started again."""
        code = self._process.poll()
        if code is not None and code < 0 and self._restarts < RESTARTS:
            self._restarts += 1
            self._start()
            return None
        return code

    def process(self) -> int:
        """The number of the worker's process."""
        return self._process.pid

    def send(self, number: int) -> None:
        """Send the worker a signal."""
        self._restarts = RESTARTS
        self._process.send_signal(number)


class Placed:
    """A worker that Ray placed."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self._asked: Any = None
        self._code: int | None = None

    def code(self) -> int | None:
        """The exit code; None while it runs, waits for its place, or is started again."""
        import ray as engine

        if self._code is None:
            self._asked = self._asked or self.actor.code.remote()
            ready, _ = engine.wait([self._asked], timeout=0)
            if ready:
                self._asked = None
                try:
                    self._code = engine.get(ready[0])
                except engine.exceptions.RayActorError:
                    self._code = -signal.SIGKILL  # lost too often
        return self._code

    def stop(self) -> None:
        """Ask it to end."""
        self.actor.send.remote(int(signal.SIGTERM))

    def kill(self) -> None:
        """End it; the worker notices that its parent is gone."""
        import ray as engine

        engine.kill(self.actor)
