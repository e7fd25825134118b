"""What running out of memory looks like, and how memory is given back.

torch does not always say by the type of its error that memory ran out.
"""

from __future__ import annotations

import gc

import torch

_SIGNS = (
    "can't allocate memory",  # the CPU
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class NetworkTooLarge(MemoryError):
    """A network does not fit into memory by itself, however small its batches are."""


def shortage(error: BaseException) -> str | None:
    """What an error says of memory that ran out, in a line; None for any other error."""
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return first or "out of memory"
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS):
        return first
    return None


def release(device: torch.device) -> None:
    """Free what cycles of references hold on a GPU, and what torch keeps there for later."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
