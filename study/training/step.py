"""One update of a network's weights.

    stepper = Stepper(recogniser, optimiser, training, steps=1000, device=device)
    stepper.step(batch, 0)
    losses = stepper.losses()

A step reads no result back from the device, so that the host can prepare the next ones while a GPU
computes. (torch's CTC copies lengths to a GPU, and waits until they are there.) Losses stay there
until they are asked for. A loss that is not finite stops all updates from that step on, on the
device, and is found when the losses are read.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from model.recogniser import Recogniser
from study.data.batches import Batch, spec_augment
from study.training.compute import Autocast, Compute, Plain
from study.training.config import TrainingConfig
from study.training.optimiser import Optimiser
from study.training.schedule import rate_scale


class Diverged(Exception):
    """The loss or its gradient is no longer a finite number."""


def precision(training: TrainingConfig, device: torch.device) -> torch.dtype:
    """In what precision matrix products are made."""
    if training.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if training.precision == "bfloat16" else torch.float32


def autocast(training: TrainingConfig, device: torch.device) -> Autocast:
    """That precision, as a context that can be entered many times."""
    low = precision(training, device) == torch.bfloat16
    return functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=low)


class Stepper:
    """Makes updates of the weights."""

    def __init__(
        self,
        recogniser: Recogniser,
        optimiser: Optimiser,
        training: TrainingConfig,
        steps: int,
        device: torch.device,
        compute: Compute | None = None,
        micro_batches: int = 1,
    ) -> None:
        """`compute` is `Plain` if not given; a batch is computed in so many parts."""
        self._recogniser, self._optimiser = recogniser, optimiser
        self._training, self._steps = training, steps
        self._compute = compute or Plain(recogniser, autocast(training, device))
        self._micro_batches = micro_batches
        self._records: list[tuple[int, Tensor]] = []
        self._diverged = torch.zeros((), device=device)

    def learning_rate(self, number: int) -> float:
        """The learning rate of update `number` (from 0)."""
        training = self._training
        scale = rate_scale(number, self._steps, warmup=training.warmup, decay=training.decay)
        return training.learning_rate * scale

    def step(self, batch: Batch, number: int) -> None:
        """Make update `number` (from 0) on a batch."""
        training, optimiser = self._training, self._optimiser
        optimiser.clear()
        loss = self.gradients(batch)
        norm = optimiser.clip(training.gradient_clip)
        found = torch.stack((loss * (len(batch.members) / batch.written), norm))
        self._records.append((number, found))
        self._diverged = torch.maximum(self._diverged, (~found.isfinite().all()).float())
        optimiser.step(self.learning_rate(number), skip=self._diverged)

    def gradients(self, batch: Batch) -> Tensor:
        """Add the gradients of a batch's loss, in parts where memory is short; returns the loss.

        What is minimised is the same with any number of parts, save that BatchNorm takes its mean
        and variance from each part.
        """
        features = spec_augment(batch.features, self._training.augmentation)
        total = len(batch.members)
        if self._micro_batches == 1:
            return self._compute(features, batch, 1.0)
        size = -(-total // self._micro_batches)
        losses = []
        for start in range(0, total, size):
            part = batch.part(start, start + size)
            share = len(part.members) / total
            losses.append(self._compute(features[start : start + size], part, share))
        return torch.stack(losses).sum()

    def losses(self) -> list[float]:
        """The losses per token of the steps since the last call; raises `Diverged`."""
        if not self._records:
            return []
        numbers = [number for number, _ in self._records]
        found = torch.stack([record for _, record in self._records]).tolist()
        self._records.clear()
        for number, (loss, norm) in zip(numbers, found, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise Diverged(f"loss {loss}, gradient norm {norm} at step {number + 1}")
        return [loss for loss, _ in found]
