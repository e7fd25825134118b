"""Where a trial stands, on disk: enough to go on as if it had never stopped.

A checkpoint holds weights, optimiser, random states, the step, the evaluations so far and the
losses since the last one. The learning rate and the order of the data follow from the step and the
seed.

The one before is kept beside it, for the day on which the last one cannot be read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from study import weights
from study.training.optimiser import Optimiser

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Progress:
    """How far a trial has come."""

    step: int = 0
    """Updates of the weights made."""
    train_seconds: float = 0.0
    """Seconds spent on them."""
    evaluations: list[dict[str, Any]]
    """The evaluations so far, as plain values."""
    execution: str | None = None
    """How its steps are computed, once that is chosen."""
    micro_batches: int = 1
    """In how many parts a batch is computed, which grows where memory is short."""
    losses: list[float] = field(default_factory=list)
    """The losses per token of the updates since the last evaluation."""


def save(
    file: Path,
    identity: str,
    progress: Progress,
    network: nn.Module,
    optimiser: Optimiser,
) -> None:
    """Write a checkpoint; the previous one stays until this one is whole."""
    state = {
        "identity": identity,
        "step": progress.step,
        "train_seconds": progress.train_seconds,
        "evaluations": progress.evaluations,
        "execution": progress.execution,
        "micro_batches": progress.micro_batches,
        "losses": progress.losses,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    weights.write(file, state, keep=previous(file))


def previous(file: Path) -> Path:
    """Where the checkpoint before the last one lies."""
    return file.with_suffix(f".previous{file.suffix}")


def restore(
    file: Path,
    identity: str,
    network: nn.Module,
    optimiser: Optimiser,
    remark: Callable[[str], None] = log.warning,
) -> Progress:
    """Continue from the last checkpoint of the same trial that can be read, or start anew.

    `identity` tells trials apart: a checkpoint of another configuration, seed, corpus or version of
    the code is not continued. `remark` takes a sentence about a checkpoint that is passed over.
    Sets the random states, too.
    """
    device = next(network.parameters()).device
    damaged: list[str] = []
    for candidate in (file, previous(file)):
        if not candidate.is_file():
            continue
        try:
            state = weights.read(candidate, device)
        except weights.Damaged as damage:
            log.warning("%s", damage)
            damaged.append(candidate.name)
            continue
        if state.get("identity") != identity:
            remark("its checkpoint is of other code, settings or speech, so it starts over")
            return Progress(evaluations=[])
        if damaged:
            remark(
                "its last checkpoint is damaged, so it goes on from the one before "
                f"(evaluation {len(state['evaluations'])})"
            )
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"].cpu())
        if state["cuda_random"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda_random"].cpu())
        return Progress(
            step=state["step"],
            train_seconds=state["train_seconds"],
            evaluations=state["evaluations"],
            execution=state["execution"],
            micro_batches=state["micro_batches"],
            losses=state.get("losses", []),
        )
    if damaged:
        remark(f"{' and '.join(damaged)} cannot be read, so it starts over")
    return Progress(evaluations=[])
