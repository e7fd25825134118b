"""What a network costs: its parameters, and its arithmetic per second of speech.

Networks are built on torch's `meta` device, which allocates nothing, so that counting the largest
network of a study takes no memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model.config import NetworkConfig
from model.recogniser import Recogniser


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The size of a network and its forward arithmetic."""

    parameters: int
    """Trainable weights."""
    parts: dict[str, int]
    """The same, for each part of the network."""
    flops_per_second: float
    """Floating-point operations (a multiply-add is two) of a forward pass with teacher forcing, per
    second of audio."""


def cost(
    config: NetworkConfig,
    *,
    mels: int,
    vocabulary: int,
    frames_per_second: float = 100.0,
    tokens_per_second: float = 10.0,
    seconds: float = 10.0,
) -> Cost:
    """Count a network on an utterance of the given length.

    FLOPs are those of matrix products and convolutions, as `torch.utils.flop_counter` counts them.
    """
    with torch.device("meta"):
        recogniser = Recogniser(config, mels=mels, vocabulary=vocabulary)
        features = torch.empty(1, round(seconds * frames_per_second), mels)
        tokens = torch.zeros(1, max(1, round(seconds * tokens_per_second)), dtype=torch.long)
        frames = torch.full((1,), features.shape[1])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            memory, lengths = recogniser.encode(features, frames, ragged=False)
            recogniser.decoder(memory, lengths, tokens)
            if recogniser.ctc is not None:
                recogniser.ctc.log_probabilities(memory)
    encoder = recogniser.encoder
    parts = {
        "front block": _weights(encoder.subsampling),
        "encoder": _weights(encoder) - _weights(encoder.subsampling),
        "decoder": _weights(recogniser.decoder),
        "CTC": 0 if recogniser.ctc is None else _weights(recogniser.ctc),
    }
    return Cost(
        parameters=_weights(recogniser),
        parts=parts,
        flops_per_second=counter.get_total_flops() / seconds,
    )


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
