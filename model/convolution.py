"""The convolution module of a Conformer block, blind to padding.

Gulati et al. 2020, section 2.2; ESPnet's `ConvolutionModule` from release 202610 on, which sets
padded frames to zero before the depthwise convolution. Here BatchNorm does not see them either, so
that its statistics do not depend on how utterances were put together into a batch; ESPnet's does,
and `batch_norm: espnet` repeats that.

Shapes: `B` batch, `T` frames, `D` encoder_dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

aten = torch.ops.aten

LONG = 9
"""Frames of a kernel from which on `DepthwiseOnCpu` is faster than what torch does."""


class MaskedBatchNorm(nn.Module):
    """Batch normalisation (arXiv 1502.03167) over the valid frames of a batch."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x `(B, T, D)`, valid `(B, T, 1)` of 1 and 0, or None where all frames are -> `(B, T, D)`.

        In training, statistics come from the valid frames, and what is returned for the others is
        finite but meaningless. A single frame has no variance: it is normalised as in evaluation.
        """
        if not self.training or x.shape[0] * x.shape[1] == 1:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            return x * scale + (self.bias - self.running_mean * scale)
        if valid is None:
            return functional.batch_norm(
                x.flatten(0, 1),  # (B T, D)
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                True,
                self.momentum,
                self.eps,
            ).view_as(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()  # sums over thousands of frames lose too much in bfloat16
            count = valid.sum()
            mean = (x * valid).sum((0, 1)) / count
            centred = (x - mean) * valid
            variance = centred.square().sum((0, 1)) / count
            self._update(mean, variance, count)
            return centred * (self.weight * torch.rsqrt(variance + self.eps)) + self.bias

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


class DepthwiseOnCpu(torch.autograd.Function):
    """A depthwise convolution whose long kernels learn as fast as they are used.

    The gradient of a kernel is what a depthwise convolution of the input gives, whose kernel is the
    gradient of the output: the whole batch is one image then, with utterances for rows. What oneDNN
    has for that gradient takes ten times as long. `_depthwise` says the same plainly; a test
    compares them.
    """

    @staticmethod
    def forward(context: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x `(B, T, D)`, weight `(D, 1, K)` -> `(B, T, D)`."""
        x = x.contiguous()
        context.save_for_backward(x, weight)
        return _depthwise(x, weight, bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x, weight and bias."""
        x, weight = context.saved_tensors
        gradient = gradient.contiguous()
        batch, frames, dim = x.shape
        geometry = ((1, 1), (0, weight.shape[2] // 2), (1, 1), False, (0, 0), dim)
        inner, _, _ = aten.convolution_backward(
            gradient.transpose(1, 2).unsqueeze(2), x.transpose(1, 2).unsqueeze(2),
            weight.unsqueeze(2), None, *geometry, (True, False, False),
        )  # fmt: skip
        # The stride of the one image says that channels come last, without which it is slow.
        image = x.as_strided((1, dim, batch, frames), (x.numel(), 1, frames * dim, dim))
        kernels = gradient.permute(2, 0, 1).unsqueeze(1)  # (D, 1, B, T)
        found = aten.convolution(image, kernels, None, *geometry)  # (1, D, 1, K)
        return inner.squeeze(2).transpose(1, 2), found.view_as(weight), gradient.sum((0, 1))


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    image, kernels = x.transpose(1, 2).unsqueeze(2), weight.unsqueeze(2)  # (B, D, 1, T)
    padding = (0, weight.shape[2] // 2)
    image = functional.conv2d(image, kernels, bias, padding=padding, groups=x.shape[-1])
    return image.squeeze(2).transpose(1, 2)


def _suits_cpu(x: Tensor, weight: Tensor) -> bool:
    plain = not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
    learns = torch.is_grad_enabled() and weight.requires_grad
    return x.device.type == "cpu" and plain and learns and weight.shape[2] >= LONG


class ConvolutionModule(nn.Module):
    """Pointwise, gate, depthwise, BatchNorm, swish, pointwise."""

    def __init__(self, dim: int, kernel_size: int, *, count_padding: bool = False) -> None:
        super().__init__()
        self.count_padding = count_padding
        self.pointwise_in = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(
            dim, dim, kernel_size, padding=(kernel_size - 1) // 2, groups=dim
        )
        self.norm = MaskedBatchNorm(dim)
        self.pointwise_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x `(B, T, D)`, valid `(B, T, 1)` of 1 and 0, or None if all are -> `(B, T, D)`."""
        x = functional.glu(self.pointwise_in(x))
        if valid is not None:
            x = x * valid
        x = self._depthwise(x)
        x = functional.silu(self.norm(x, None if self.count_padding else valid))
        return self.pointwise_out(x)

    def _depthwise(self, x: Tensor) -> Tensor:
        """Each channel of `(B, T, D)` with its own kernel, over time.

        As a convolution of an image of height 1 it takes `(B, T, D)` as it lies in memory, channels
        last, where `nn.Conv1d` would copy it to channels first and back.
        """
        weight, bias = self.depthwise.weight, self.depthwise.bias
        if _suits_cpu(x, weight):
            found: Tensor = DepthwiseOnCpu.apply(x, weight, bias)  # type: ignore[no-untyped-call]
            return found
        return _depthwise(x, weight, bias)
