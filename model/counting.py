"""What a network costs: its parameters, and its arithmetic per second of speech.

Parameters are those of the network itself, built on torch's `meta` device, which allocates nothing.
FLOPs are written out, since torch's own counter has to run the network, which takes longer than all
the rest of a trial's beginning; the tests compare the two for every field of the configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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
    with torch.device("meta"), _Unfilled():
        recogniser = Recogniser(config, mels=mels, vocabulary=vocabulary)
    encoder = recogniser.encoder
    parts = {
        "front block": _weights(encoder.subsampling),
        "encoder": _weights(encoder) - _weights(encoder.subsampling),
        "decoder": _weights(recogniser.decoder),
        "CTC": 0 if recogniser.ctc is None else _weights(recogniser.ctc),
    }
    flops = forward_flops(
        config,
        mels=mels,
        vocabulary=vocabulary,
        frames=round(seconds * frames_per_second),
        tokens=max(1, round(seconds * tokens_per_second)),
    )
    return Cost(parameters=_weights(recogniser), parts=parts, flops_per_second=flops / seconds)


def forward_flops(
    config: NetworkConfig, *, mels: int, vocabulary: int, frames: int, tokens: int
) -> int:
    """FLOPs of the forward pass of one utterance of so many feature frames and tokens."""
    dim, channels = config.encoder_dim, config.subsampling_channels or config.encoder_dim
    front = 0
    height, width, fan_in = frames, mels, 1
    for _ in range(2):  # 3 × 3 convolutions of stride 2
        height, width = (height - 1) // 2, (width - 1) // 2
        front += height * width * channels * fan_in * 9
        fan_in = channels
    front += height * width * channels * dim
    blocks = config.encoder_layers * _block_products(config, height)
    decoder = _DECODERS[config.decoder](config, vocabulary, height, tokens)
    ctc = height * dim * vocabulary if config.ctc_weight > 0 else 0
    return 2 * (front + blocks + decoder + ctc)


def _block_products(config: NetworkConfig, frames: int) -> int:
    """Multiplications of a Conformer block."""
    dim, distances = config.encoder_dim, 2 * frames - 1
    feed_forward = 2 * frames * dim * config.encoder_feed_forward_ratio * dim
    convolution = frames * dim * (3 * dim + config.conv_kernel_size)
    attention = (
        frames * dim * (4 * dim + 2 * frames)
        + {
            "rel_pos": distances * dim * (dim + frames),
            "legacy_rel_pos": frames * dim * (dim + frames),
            "clipped": 2 * distances * dim * frames,
            "absolute": 0,
        }[config.position]
    )
    return (2 if config.macaron else 1) * feed_forward + attention + convolution


def _attention_products(config: NetworkConfig, vocabulary: int, frames: int, tokens: int) -> int:
    """Multiplications of the attention decoder."""
    dim = config.decoder_dim
    projection = frames * config.encoder_dim * dim if config.encoder_dim != dim else 0
    on_itself = tokens * dim * (4 * dim + 2 * tokens)
    on_source = 2 * frames * dim * dim + tokens * dim * (2 * dim + 2 * frames)
    feed_forward = 2 * tokens * dim * config.decoder_feed_forward_ratio * dim
    layers = config.decoder_layers * (on_itself + on_source + feed_forward)
    return projection + layers + tokens * dim * vocabulary


def _transducer_products(config: NetworkConfig, vocabulary: int, frames: int, tokens: int) -> int:
    """Multiplications of the transducer: prediction network and joint network."""
    dim, joint = config.decoder_dim, config.joint_dim
    lstm = config.decoder_layers * tokens * 4 * dim * (dim + dim)
    projections = frames * config.encoder_dim * joint + tokens * dim * joint
    return lstm + projections + frames * tokens * joint * vocabulary


_DECODERS: dict[str, Callable[[NetworkConfig, int, int, int], int]] = {
    "attention": _attention_products,
    "transducer": _transducer_products,
}


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class _Unfilled(TorchFunctionMode):
    """Leaves weights unfilled: on `meta` there is nothing to fill, yet it takes seconds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the tensor that should have been filled."""
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))
