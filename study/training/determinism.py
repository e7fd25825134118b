"""The same bits each time on a GPU, as far as torch can promise them.

    prepare()                       # before CUDA starts
    with deterministic(True):
        ...                         # train

Within the block torch takes kernels that add up in one order, and refuses in a sentence an
operation that has none. CTC's loss has none on CUDA for its backward pass, and of torchaudio's for
the transducer it is not known; so both are computed on the processor then (`CTC.loss_of`,
`Transducer`), for which each step waits. That two runs on one GPU agree has not been shown:
the tests run on a processor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn


def prepare() -> None:
    """Make cuBLAS's workspace one of those that are deterministic; what the user has set wins."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within the block, if it is wanted, torch computes deterministically; then it is as it was."""
    if not wanted:
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]
