"""Where functions with gradients of our own are used: in training on the CPU.

There memory and the starting of operations cost as much as what is computed, so that several
operations with one backward pass are faster than autograd's. Elsewhere, and where another precision
or a compiler is to see each operation, the same is said plainly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def learns_plainly(x: Tensor) -> bool:
    """Whether x is on the CPU, in its own precision, and its gradient will be asked for."""
    seen = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    return x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled() and not seen
