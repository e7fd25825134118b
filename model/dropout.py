"""Dropout (Srivastava et al. 2014) that does not wait for random numbers on the CPU.

There `torch.nn.Dropout` spends several times longer on drawing its mask than on applying it: a
tenth of a training step of the network. Here four elements share one random number of 64 bits.

    dropout = Dropout(0.1)
    dropout(x)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 2**16
"""On the CPU rates are rounded to a multiple of 1 / LEVELS."""


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, with a mask from `draw_mask` on the CPU; elsewhere torch's own kernel."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape: in training each element is either 0 or 1 / (1 - p) times what it was."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling() or self.p == 1:
            return super().forward(x)
        return x * draw_mask(x, self.p)


def draw_mask(x: Tensor, rate: float) -> Tensor:
    """0 with probability `rate` and 1 / (1 - rate) otherwise, of the shape and type of x.

    It depends on the state of torch's generator alone. `rate` is in [0, 1), and rounded to a
    multiple of 1 / `LEVELS`, which keeps the mean of the mask at 1.
    """
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)  # uniform in -2^15 ... 2^15 - 1
    dropped = min(round(rate * LEVELS), LEVELS - 1)
    return (draws >= dropped - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
