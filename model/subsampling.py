"""The front block: two strided convolutions that turn 10 ms frames into 40 ms ones.

ESPnet's `Conv2dSubsampling` (`input_layer: conv2d`). There is no padding, so a frame of the output
reads seven frames of the input and those of an utterance never read beyond its end.

Shapes: `B` batch, `T` input frames, `F` mels, `C` channels, `D` encoder_dim.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Length = TypeVar("Length", int, Tensor)

SHORTEST = 7
"""Input frames (and mels) that give one frame of output."""


def subsampled_length(length: Length) -> Length:
    """Frames after the front block: a quarter, less what the kernels take at the ends."""
    return ((length - 1) // 2 - 1) // 2


class Conv2dSubsampling(nn.Module):
    """Two 3×3 convolutions of stride 2 with ReLU, then a linear layer to the encoder's width."""

    def __init__(self, mels: int, channels: int, dim: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2),
            nn.ReLU(),
        )
        # On the CPU the backward pass takes a third of the time this way.
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.linear = nn.Linear(channels * subsampled_length(mels), dim)

    def forward(self, features: Tensor) -> Tensor:
        """Features `(B, T, F)` -> `(B, ((T - 1) // 2 - 1) // 2, D)`."""
        x = features.unsqueeze(1).contiguous(memory_format=torch.channels_last)  # (B, 1, T, F)
        x = self.convolutions(x)  # (B, C, T', F')
        return self.linear(x.transpose(1, 2).flatten(2))
