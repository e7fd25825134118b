"""Trying something out on a network without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def unchanged(network: nn.Module, gradients: list[Tensor]) -> Iterator[None]:
    """After the block, buffers (BatchNorm's), gradients and random states are as before it."""
    kept = [*network.buffers(), *gradients]
    copies = [tensor.clone() for tensor in kept]
    devices = sorted({tensor.device.index for tensor in kept if tensor.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        with torch.enable_grad():
            yield
        for tensor, copy in zip(kept, copies, strict=True):
            if tensor.shape == copy.shape:  # tables of positions may have grown
                tensor.copy_(copy)
