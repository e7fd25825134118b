"""The Conformer encoder (Gulati et al. 2020, arXiv 2005.08100).

Semantics are those of ESPnet's `ConformerEncoder` with `input_layer: conv2d`,
`pos_enc_layer_type: rel_pos`, `selfattention_layer_type: rel_selfattn`, `rel_pos_type: latest`,
swish and pre-normalisation, and with padding that does not leak (release 202610 on). `POSITIONS`
has the other ways to tell where a frame is; `model/espnet.py` maps checkpoints to and from ESPnet.

Shapes: `B` batch, `T` input frames, `T'` encoder frames, `F` mels, `D` encoder_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.attention import SelfAttention, hidden
from model.config import NetworkConfig
from model.convolution import ConvolutionModule
from model.dropout import Dropout
from model.positions import AbsolutePositions, LegacyRelativePositions, RelativePositions
from model.relative_attention import (
    ClippedAttention,
    LegacyRelativeAttention,
    RelativeAttention,
)
from model.subsampling import Conv2dSubsampling, subsampled_length

LAYER_NORM_EPS = 1e-12  # ESPnet's, in every LayerNorm of encoder and decoder


@dataclass(frozen=True, kw_only=True)
class Position:
    """How frames know where they are: by what is added to them, or through their attention."""

    attention: Callable[[NetworkConfig], nn.Module]
    """The self-attention of a block."""
    added: type[AbsolutePositions] | None = None
    """Encodings `(T', D)` that are added to the frames."""
    attended: type[RelativePositions | LegacyRelativePositions] | None = None
    """Encodings that the attention of each block is given."""


def _sizes(config: NetworkConfig) -> tuple[int, int, float]:
    return config.encoder_dim, config.attention_heads, config.attention_dropout


POSITIONS = {
    "rel_pos": Position(
        attention=lambda config: RelativeAttention(*_sizes(config)),
        attended=RelativePositions,
    ),
    "legacy_rel_pos": Position(
        attention=lambda config: LegacyRelativeAttention(*_sizes(config)),
        attended=LegacyRelativePositions,
    ),
    "clipped": Position(
        attention=lambda config: ClippedAttention(*_sizes(config), clip=config.position_clip),
    ),
    "absolute": Position(
        attention=lambda config: SelfAttention(*_sizes(config)),
        added=AbsolutePositions,
    ),
}


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """True where a frame belongs to its utterance: lengths `(B,)` -> `(B, frames)`."""
    return torch.arange(frames, device=lengths.device) < lengths.unsqueeze(1)


class FeedForward(nn.Sequential):
    """Linear, activation, dropout, linear."""

    def __init__(self, dim: int, hidden: int, activation: nn.Module, dropout: float) -> None:
        super().__init__(
            nn.Linear(dim, hidden), activation, Dropout(dropout), nn.Linear(hidden, dim)
        )


class ConformerBlock(nn.Module):
    """Half a feed-forward step, attention, convolution, the other half, a norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.encoder_dim
        hidden = config.encoder_feed_forward_ratio * dim
        self.macaron = config.macaron
        if config.macaron:
            self.norm_macaron = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
            self.macaron_feed_forward = FeedForward(dim, hidden, nn.SiLU(), config.dropout)
        self.norm_attention = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = POSITIONS[config.position].attention(config)
        self.norm_convolution = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.convolution = ConvolutionModule(
            dim, config.conv_kernel_size, count_padding=config.batch_norm == "espnet"
        )
        self.norm_feed_forward = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(dim, hidden, nn.SiLU(), config.dropout)
        self.norm_final = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.dropout)
        self.stochastic_depth = config.stochastic_depth

    def forward(
        self, x: Tensor, positions: Tensor | None, keys: Tensor | None, frames: Tensor | None
    ) -> Tensor:
        """x `(B, T', D)` and what its attention takes as positions -> `(B, T', D)`.

        Where there is padding, keys `(B, 1, 1, T')` hides it from attention, and frames
        `(B, T', 1)` is 1 for valid frames and 0 for it.
        """
        add, drop = torch.add, self.dropout  # with `alpha` a product less, forward and backward
        scale = 1 / (1 - self.stochastic_depth) if self.training else 1.0
        step = scale * (0.5 if self.macaron else 1.0)
        if self.macaron:
            x = add(x, drop(self.macaron_feed_forward(self.norm_macaron(x))), alpha=step)
        x = add(x, drop(self.attention(self.norm_attention(x), positions, keys)), alpha=scale)
        x = add(x, drop(self.convolution(self.norm_convolution(x), frames)), alpha=scale)
        x = add(x, drop(self.feed_forward(self.norm_feed_forward(x))), alpha=step)
        return self.norm_final(x)


class ConformerEncoder(nn.Module):
    """Front block, positions, `encoder_layers` Conformer blocks, a last norm."""

    def __init__(self, config: NetworkConfig, mels: int) -> None:
        super().__init__()
        dim = config.encoder_dim
        self.scale = math.sqrt(dim)
        self.subsampling = Conv2dSubsampling(mels, config.subsampling_channels or dim, dim)
        position = POSITIONS[config.position]
        self.added = position.added(dim) if position.added else None
        self.attended = position.attended(dim) if position.attended else None
        self.dropout = Dropout(config.positional_dropout)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.stochastic_depth = config.stochastic_depth

    def forward(
        self, features: Tensor, lengths: Tensor, *, ragged: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Features `(B, T, F)` and their lengths `(B,)` -> `(B, T', D)` and `(B,)`.

        `ragged=False` promises that all lengths equal T; masking is skipped then.
        """
        x = self.subsampling(features)  # (B, T', D)
        low = x.dtype
        # Under autocast, norms make float32 of it: the first block gets that too, as the others do,
        # so that one compiled graph serves all.
        x = x.to(torch.promote_types(low, torch.float32)) * self.scale
        if self.added is not None:
            x = x + self.added(x.shape[1]).to(x.dtype)
        x = self.dropout(x)
        positions = None
        if self.attended is not None:
            positions = self.dropout(self.attended(x.shape[1]).to(low))
        lengths = subsampled_length(lengths)
        keys = frames = None
        if ragged:
            valid = valid_frames(lengths, x.shape[1])  # (B, T')
            keys, frames = hidden(valid)[:, None, None, :], valid.unsqueeze(-1).to(low)
        for block in self.blocks:
            if not self._skips():
                x = block(x, positions, keys, frames)
        return self.norm(x), lengths

    def _skips(self) -> bool:
        """Whether this training step skips a block; drawn on the host: no device is waited for."""
        return bool(
            self.training and self.stochastic_depth and torch.rand(()) < self.stochastic_depth
        )
