"""How the steps of one trial are computed: chosen before the first one, and then kept.

On a GPU a step of the longest batches is tried out first, which leaves no trace in the network: it
says how long steps take, and it runs out of memory now rather than in the middle of the trial.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

from model.config import NetworkConfig
from model.recogniser import Recogniser
from study.data.batches import Batch, Batches
from study.data.resident import Feed
from study.errors import InputError
from study.training.compute import Compiled, Compute, Graphs, Plain
from study.training.config import TrainingConfig
from study.training.execution import Choice, Expected, choose, graphs_obstacle
from study.training.optimiser import Optimiser
from study.training.snapshot import unchanged
from study.training.step import Stepper, autocast

TRIES = 3
"""Steps that are timed, after one that is not."""


class Arrangement:
    """The ways in which a trial could compute its steps."""

    def __init__(
        self,
        recogniser: Recogniser,
        optimiser: Optimiser,
        training: TrainingConfig,
        batches: Batches,
        feed: Feed,
        device: torch.device,
        micro_batches: int = 1,
    ) -> None:
        self._recogniser, self._training, self._device = recogniser, training, device
        self._network, self._optimiser = recogniser.config, optimiser
        self._batches, self._feed = batches, feed
        self._micro_batches = micro_batches
        self._shapes = {
            (-(-bucket.size // micro_batches), bucket.frames) for bucket in batches.buckets
        }
        self._computes: dict[str, Compute] = {}

    def choice(self, steps: int) -> Choice:
        """What `training.execution` asks for, or for `auto` what takes least time."""
        wanted = self._training.execution
        obstacle = graphs_obstacle(self._network, self._device.type)
        if wanted == "graphs" and obstacle:
            raise InputError(f"training.execution: graphs is not possible here: {obstacle}")
        if wanted == "auto" and self._training.deterministic:
            return Choice(
                execution="eager", reason="training.deterministic: no choice by the clock"
            )
        if wanted != "auto":
            self._try_out(wanted)
            return Choice(execution=wanted, reason="training.execution says so")
        plain = self._try_out("eager")
        if plain is None:
            return Choice(execution="eager", reason="there is no GPU")
        choice = choose(
            Expected(
                steps=steps,
                plain=plain,
                graphs=None if obstacle else self._try_out("graphs"),
                buckets=len(self._shapes),
                cached=_marker(self._network, self._training).is_file(),
            )
        )
        # Graphs that were only tried out would hold as much memory as a step does.
        self._computes = {
            execution: compute
            for execution, compute in self._computes.items()
            if execution == choice.execution
        }
        return choice

    def compute(self, execution: str) -> Compute:
        """The chosen way."""
        if execution not in self._computes:
            cast = autocast(self._training, self._device)
            if execution == "graphs":
                gradients = self._optimiser.gradients
                made: Compute = Graphs(self._recogniser, cast, self._shapes, gradients)
            elif execution == "compile":
                made = Compiled(self._recogniser, cast, self._shapes)
                marker = _marker(self._network, self._training)
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()
            else:
                made = Plain(self._recogniser, cast)
            self._computes[execution] = made
        return self._computes[execution]

    def stepper(self, execution: str, steps: int) -> Stepper:
        """What takes so many steps in the chosen way."""
        return Stepper(
            self._recogniser,
            self._optimiser,
            self._training,
            steps,
            self._device,
            self.compute(execution),
            self._micro_batches,
        )

    def _try_out(self, execution: str) -> float | None:
        """Seconds of a step with the longest full batch; None where there is no GPU."""
        if self._device.type != "cuda" or execution == "compile":
            return None
        compute, batch = self.compute(execution), self._longest()
        with unchanged(self._recogniser, self._optimiser.gradients):
            compute(batch.features, batch, 1.0)
            torch.cuda.synchronize(self._device)
            started = time.perf_counter()
            for _ in range(TRIES):
                compute(batch.features, batch, 1.0)
            torch.cuda.synchronize(self._device)
            return (time.perf_counter() - started) / TRIES

    def _longest(self) -> Batch:
        bucket = self._batches.buckets[-1]
        members = bucket.members[-bucket.size :].tolist()
        batch = next(self._feed([members], fixed=True))
        return batch.part(0, -(-bucket.size // self._micro_batches))


def _marker(network: NetworkConfig, training: TrainingConfig) -> Path:
    """A file beside inductor's cache that says that such blocks are in it."""
    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor"))  # noqa: S108
    key = "-".join(
        str(part)
        for part in (
            torch.__version__,
            torch.cuda.get_device_name().replace(" ", "_") if torch.cuda.is_available() else "cpu",
            network.encoder_dim,
            network.attention_heads,
            network.conv_kernel_size,
            network.encoder_feed_forward_ratio,
            network.position,
            network.dropout > 0,
            network.attention_dropout > 0,
            training.precision,
        )
    )
    return folder / "conformer-blocks" / key
