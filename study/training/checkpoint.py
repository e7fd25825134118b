"""Where a trial stands, on disk: enough to go on as if it had never stopped.

A checkpoint holds weights, optimiser, random states, the step and the evaluations so far. The
learning rate and the order of the data follow from the step and the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from study.files import replacing
from study.training.optimiser import Optimiser


@dataclass(kw_only=True)
class Progress:
    """How far a trial has come."""

    step: int = 0
    """Updates of the weights made."""
    train_seconds: float = 0.0
    """Seconds spent on them."""
    evaluations: list[dict[str, Any]]
    """The evaluations so far, as plain values."""


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
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    with replacing(file) as temporary:
        torch.save(state, temporary)


def restore(file: Path, identity: str, network: nn.Module, optimiser: Optimiser) -> Progress:
    """Continue from a checkpoint of the same trial, or start where there is none.

    `identity` tells trials apart: a checkpoint of another configuration, seed, corpus or version of
    the code is not continued. Sets the random states, too.
    """
    if not file.is_file():
        return Progress(evaluations=[])
    device = next(network.parameters()).device
    state = torch.load(file, map_location=device, weights_only=True)
    if state["identity"] != identity:
        return Progress(evaluations=[])
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["random"].cpu())
    if state["cuda_random"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_random"].cpu())
    return Progress(
        step=state["step"],
        train_seconds=state["train_seconds"],
        evaluations=state["evaluations"],
    )
