"""The convolution module of a Conformer block, blind to padding.

Gulati et al. 2020, section 2.2; ESPnet's `ConvolutionModule` from release 202610 on, which sets
padded frames to zero before the depthwise convolution. Here BatchNorm does not see them either, so
that its statistics do not depend on how utterances were put together into a batch; ESPnet's does,
and `batch_norm: espnet` repeats that.

Shapes: `B` batch, `T` frames, `D` encoder_dim.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cpu import learns_plainly

aten = torch.ops.aten

LONG = 7
"""Frames of a kernel from which on its gradient is faster as a convolution than with oneDNN."""


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
            count = valid.sum(dtype=x.dtype)  # bfloat16 cannot count to thousands
            mean = (x * valid).sum((0, 1)) / count
            centred = (x - mean) * valid
            variance = centred.square().sum((0, 1)) / count
            self.update(mean, variance, count)
            return centred * (self.weight * torch.rsqrt(variance + self.eps)) + self.bias

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Let the running statistics follow those `(D,)` of a batch with so many frames."""
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


class ActivationsOnCpu(torch.autograd.Function):
    """Gate, depthwise convolution, BatchNorm and swish, as the CPU trains them fastest.

    One backward pass for the four overwrites what nobody needs any more, and knows that centred
    values have no mean. `ConvolutionModule._activations` says the same plainly; a test compares
    them.
    """

    @staticmethod
    def forward(
        context: Any,
        gates: Tensor,
        valid: Tensor,
        counted: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gates `(B, T, 2D)` -> `(B, T, D)`, and mean, variance `(D,)` and count of its BatchNorm.

        valid `(B, T, 1)` is 1 for the frames that are convolved, counted for those that BatchNorm
        sees, and 0 for others; weight is `(D, 1, K)`, scale and shift are BatchNorm's, `(D,)`.
        """
        x = functional.glu(gates).mul_(valid).contiguous()
        y = _depthwise(x, weight, bias)
        count = counted.sum()
        mean = _sum_of(y, counted) / count
        centred = y.sub_(mean).mul_(counted)
        variance = centred.square().sum((0, 1)) / count
        rate = torch.rsqrt(variance + eps)
        normalised = torch.addcmul(shift, centred, scale * rate)
        context.save_for_backward(
            gates, valid, x, weight, centred, counted, count, rate, scale, normalised
        )
        context.mark_non_differentiable(mean, variance, count)
        return functional.silu(normalised), mean, variance, count

    @staticmethod
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of gates, weight, bias, scale and shift."""
        gates, valid, x, weight, centred, counted, count, rate, scale, normalised = (
            context.saved_tensors
        )
        gradient = aten.silu_backward(gradient, normalised)
        shift = gradient.sum((0, 1))
        along = (gradient * centred).sum((0, 1))
        gradient = gradient.sub_(_sum_of(gradient, counted) / count)
        gradient = gradient.addcmul_(centred, along * rate.square() / count, value=-1)
        gradient = gradient.mul_(scale * rate).mul_(counted).contiguous()
        inner, kernels = _depthwise_gradients(gradient, x, weight)
        gates = aten.glu_backward(inner * valid, gates, -1)
        bias = torch.zeros_like(shift)  # BatchNorm takes away what is added to all frames
        return gates, None, None, kernels, bias, along * rate, shift, None


def _sum_of(x: Tensor, counted: Tensor) -> Tensor:
    """Over the frames of `(B, T, D)` that `(B, T, 1)` counts -> `(D,)`."""
    return counted.flatten() @ x.flatten(0, 1)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Each channel of `(B, T, D)` with its own kernel, over time.

    As a convolution of an image of height 1 it takes `(B, T, D)` as it lies in memory, channels
    last, where `nn.Conv1d` would copy it to channels first and back.
    """
    image, kernels = x.transpose(1, 2).unsqueeze(2), weight.unsqueeze(2)  # (B, D, 1, T)
    padding = (0, weight.shape[2] // 2)
    image = functional.conv2d(image, kernels, bias, padding=padding, groups=x.shape[-1])
    return image.squeeze(2).transpose(1, 2)


def _depthwise_gradients(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of x and weight: gradient and x `(B, T, D)`, both contiguous, weight `(D, 1, K)`.

    Both are depthwise convolutions. That of the kernels has the gradient of the output for kernels,
    and the whole batch for one image, with utterances for rows: what oneDNN has for it takes
    several times as long where kernels are long.
    """
    batch, frames, dim = x.shape
    geometry = ((1, 1), (0, weight.shape[2] // 2), (1, 1), False, (0, 0), dim)
    if weight.shape[2] < LONG:
        inner, found, _ = aten.convolution_backward(
            gradient.transpose(1, 2).unsqueeze(2), x.transpose(1, 2).unsqueeze(2),
            weight.unsqueeze(2), None, *geometry, (True, True, False),
        )  # fmt: skip
        return inner.squeeze(2).transpose(1, 2), found.view_as(weight)
    # The stride of the one image says that channels come last, without which it is slow.
    image = x.as_strided((1, dim, batch, frames), (x.numel(), 1, frames * dim, dim))
    kernels = gradient.permute(2, 0, 1).unsqueeze(1)  # (D, 1, B, T)
    found = aten.convolution(image, kernels, None, *geometry)  # (1, D, 1, K)
    return _depthwise(gradient, weight.flip(2), None), found.view_as(weight)


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
        gates = self.pointwise_in(x)
        counted = None if self.count_padding else valid
        activations = self._activations_on_cpu if self._suits_cpu(gates) else self._activations
        return self.pointwise_out(activations(gates, valid, counted))

    def _activations(self, gates: Tensor, valid: Tensor | None, counted: Tensor | None) -> Tensor:
        """Gates `(B, T, 2D)` -> `(B, T, D)`; BatchNorm sees the frames that are counted."""
        x = functional.glu(gates)
        if valid is not None:
            x = x * valid
        x = _depthwise(x, self.depthwise.weight, self.depthwise.bias)
        return functional.silu(self.norm(x, counted))

    def _activations_on_cpu(
        self, gates: Tensor, valid: Tensor | None, counted: Tensor | None
    ) -> Tensor:
        every = gates.new_ones(*gates.shape[:2], 1)
        x, *statistics = ActivationsOnCpu.apply(  # type: ignore[no-untyped-call]
            gates,
            every if valid is None else valid,
            every if counted is None else counted,
            *self.depthwise.parameters(),
            *self.norm.parameters(),
            self.norm.eps,
        )
        self.norm.update(*statistics)
        return cast(Tensor, x)

    def _suits_cpu(self, gates: Tensor) -> bool:
        several = gates.shape[0] * gates.shape[1] > 1  # a single frame has no variance
        return learns_plainly(gates) and self.norm.training and several
