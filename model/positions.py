"""Sinusoidal positions (Vaswani et al. 2017, arXiv 1706.03762, section 3.5).

Sine and cosine columns are interleaved, as in ESPnet. Tables are kept for the longest
length seen and cut to what a batch needs; they are not part of a checkpoint.

Shapes: `T` frames or tokens, `D` width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """The encoding of each position: `(T,)` -> `(T, D)`, float32."""
    rates = torch.exp(
        torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device)
        * -(math.log(10000.0) / dim)
    )
    angles = positions.float().unsqueeze(1) * rates  # (T, D/2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)  # (T, D)


class _PositionTable(nn.Module, ABC):
    """A table of sinusoids that grows to the longest length seen."""

    table: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.longest = 0
        self.register_buffer("table", torch.empty(0, dim), persistent=False)

    @abstractmethod
    def _positions(self, length: int) -> Tensor:
        """The positions of a table for `length` frames or tokens."""

    def _ensure(self, length: int) -> None:
        if length > self.longest:
            self.longest = max(length, 2 * self.longest)
            positions = self._positions(self.longest).to(self.table.device)
            self.table = sinusoids(positions, self.dim)


class AbsolutePositions(_PositionTable):
    """Positions `start ... start + T - 1` of tokens or frames."""

    def _positions(self, length: int) -> Tensor:
        return torch.arange(length)

    def forward(self, length: int, start: int = 0) -> Tensor:
        """The encodings of `length` positions from `start`: `(T, D)`."""
        self._ensure(start + length)
        return self.table[start : start + length]


class RelativePositions(_PositionTable):
    """Distances between frames, from `T - 1` (the key is to the left) to `-(T - 1)`."""

    def _positions(self, length: int) -> Tensor:
        return torch.arange(length - 1, -length, -1)

    def forward(self, length: int) -> Tensor:
        """The encodings of all distances within `length` frames: `(2T - 1, D)`."""
        self._ensure(length)
        return self.table[self.longest - length : self.longest + length - 1]


LEGACY_TABLE = 5000
"""Rows of ESPnet's table of legacy positions, where no utterance is longer."""


class LegacyRelativePositions(_PositionTable):
    """What ESPnet gives to its attention with `rel_pos_type: legacy`.

    It is the head of a table that runs backwards from its last position, N - 1, where distances
    were meant, so that what is learned belongs to the constant 5000. (After an utterance longer
    than that, ESPnet's table stays as long as it then was; here it does not.)
    """

    def _positions(self, length: int) -> Tensor:
        return torch.arange(max(LEGACY_TABLE, length) - 1, -1, -1)

    def forward(self, length: int) -> Tensor:
        """The encodings of N - 1, N - 2, ..., N - T where N is `max(5000, T)`: `(T, D)`."""
        self._ensure(length)
        start = len(self.table) - max(LEGACY_TABLE, length)
        return self.table[start : start + length]
