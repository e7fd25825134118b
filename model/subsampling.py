"""The front block: two strided convolutions that turn 10 ms frames into 40 ms ones.

ESPnet's `Conv2dSubsampling` (`input_layer: conv2d`). There is no padding, so a frame of the output
reads seven frames of the input and those of an utterance never read beyond its end.

Shapes: `B` batch, `T` input frames, `F` mels, `C` channels, `D` encoder_dim.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

aten = torch.ops.aten

Length = TypeVar("Length", int, Tensor)

SHORTEST = 7
"""Input frames (and mels) that give one frame of output."""


def subsampled_length(length: Length) -> Length:
    """Frames after the front block: a quarter, less what the kernels take at the ends."""
    return ((length - 1) // 2 - 1) // 2


class ConvolutionsOnCpu(torch.autograd.Function):
    """Both convolutions with their ReLUs, as the CPU does them fastest.

    The first has one input channel, so it is one matrix product, and another for each utterance is
    the second's weight gradient: oneDNN takes five times and one and a half times as long (256
    channels). ReLUs and their gradients overwrite what nobody needs any more, as fresh memory costs
    a page fault each 4 KiB. `convolutions` says the same plainly; a test compares them.
    """

    @staticmethod
    def forward(
        context: FunctionCtx,
        features: Tensor,
        first_weight: Tensor,
        first_bias: Tensor,
        second_weight: Tensor,
        second_bias: Tensor,
    ) -> Tensor:
        """Features `(B, T, F)`, weights `(C, 1, 3, 3)` and `(C, C, 3, 3)` -> `(B, C, T', F')`."""
        windows = features.unfold(1, 3, 2).unfold(2, 3, 2)  # (B, T / 2, F / 2, 3, 3)
        patches = windows.permute(3, 4, 0, 1, 2).reshape(9, -1)  # whole rows are copied
        x = torch.addmm(first_bias, patches.t(), first_weight.flatten(1).t()).relu_()
        x = x.unflatten(0, windows.shape[:3]).permute(0, 3, 1, 2)
        y = functional.conv2d(x, second_weight, second_bias, stride=2).relu_()
        context.save_for_backward(patches, x, y, second_weight)
        return y

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, Tensor, Tensor]:
        """The gradients of all weights and biases; features have none."""
        patches, x, y, weight = context.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        gradient = aten.threshold_backward(gradient, y, 0)  # of ReLU
        inner, _, _ = aten.convolution_backward(
            gradient, x, weight, None, (2, 2), (0, 0), (1, 1), False, (0, 0), 1,
            (True, False, False),
        )  # fmt: skip
        aten.threshold_backward.grad_input(inner, x, 0, grad_input=inner)
        inner = inner.permute(0, 2, 3, 1).flatten(0, 2)  # (B T / 2 F / 2, C)
        first = (patches @ inner).t().reshape(-1, 1, 3, 3)  # a third of the time of its mirror
        second = _weight_gradient(gradient.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1))
        return None, first, inner.sum(0), second, gradient.sum((0, 2, 3))


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Of a 3×3 convolution of stride 2: `(B, T', F', C)` and `(B, T, F, C)` -> `(C, C, 3, 3)`.

    In memory the three columns that a position reads of a row lie side by side. What an utterance
    reads is laid out where the last one's was: that much stays in the cache.
    """
    batch, frames, bands, channels = gradient.shape
    across, down = channels, x.shape[2] * channels
    reads = x.as_strided(
        (batch, frames, bands, 3, 3 * channels),
        (x.stride(0), 2 * down, 2 * across, down, 1),
        x.storage_offset(),
    )
    read = x.new_empty(reads.shape[1:])
    total = x.new_zeros(channels, 9 * channels)
    for utterance in range(batch):
        read.copy_(reads[utterance])
        total.addmm_(gradient[utterance].flatten(0, 1).t(), read.view(-1, 9 * channels))
    return total.view(channels, 3, 3, channels).permute(0, 3, 1, 2)


def _suits_cpu(features: Tensor) -> bool:
    plain = not (torch.is_autocast_enabled("cpu") or features.requires_grad)
    return features.device.type == "cpu" and plain


class Conv2dSubsampling(nn.Module):
    """Two 3×3 convolutions of stride 2 with ReLU, then a linear layer to the encoder's width.

    What is between the layers lies in memory with its channels last, for which convolutions are
    fastest; the linear layer's weight, in ESPnet's order of channels first, is turned instead.
    """

    def __init__(self, mels: int, channels: int, dim: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2),
            nn.ReLU(),
        )
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.linear = nn.Linear(channels * subsampled_length(mels), dim)

    def forward(self, features: Tensor) -> Tensor:
        """Features `(B, T, F)` -> `(B, ((T - 1) // 2 - 1) // 2, D)`."""
        if _suits_cpu(features):
            x = ConvolutionsOnCpu.apply(features, *self.convolutions.parameters())  # type: ignore[no-untyped-call]
        else:
            x = features.unsqueeze(1).contiguous(memory_format=torch.channels_last)  # (B, 1, T, F)
            x = self.convolutions(x)
        x = x.permute(0, 2, 3, 1)  # (B, T', F', C)
        weight = self.linear.weight.unflatten(1, (x.shape[-1], -1))  # (D, C, F')
        return functional.linear(x.flatten(2), weight.transpose(1, 2).flatten(1), self.linear.bias)
