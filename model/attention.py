"""Multi-head attention: the decoder's, and the encoder's where frames carry their positions.

Scores are computed plainly (two matrix products and a softmax), the same code for every number of
heads, so that a study that compares them does not compare attention kernels. What knows how far
apart frames are is in `model/relative_attention.py`.

Shapes: `B` batch, `T` queries, `S` keys, `H` heads, `K` width of a head, `D` = H · K.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.dropout import Dropout


def hidden(may_look: Tensor) -> Tensor:
    """A mask to add to scores: 0 where a query may look at a key, minus infinity elsewhere."""
    return torch.zeros(may_look.shape, device=may_look.device).masked_fill(~may_look, -math.inf)


def probabilities(scores: Tensor, mask: Tensor | None, dropout: nn.Module) -> Tensor:
    """Softmax over the keys of scores `(B, H, T, S)`.

    mask comes from `hidden` and is broadcastable to the scores. Each query may look at one key at
    least.
    """
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    return dropout(scores.softmax(dim=-1))


def attend(scores: Tensor, values: Tensor, mask: Tensor | None, dropout: nn.Module) -> Tensor:
    """The values `(B, H, S, K)`, weighted by the probabilities of the keys -> `(B, T, D)`."""
    return (probabilities(scores, mask, dropout) @ values).transpose(1, 2).flatten(2)


class KeyValue:
    """The keys and values of one attention module, kept between decoding steps.

    Self-attention extends them by a token at each step; source attention fills them once.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append `(B, H, S, K)` to what is kept, and return all of it."""
        if self.keys is not None and self.values is not None:
            keys = torch.cat((self.keys, keys), dim=2)
            values = torch.cat((self.values, values), dim=2)
        self.keys, self.values = keys, values
        return keys, values

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads (ESPnet's `MultiHeadedAttention`)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of what is attended to: `(B, S, D)` -> twice `(B, H, S, K)`.

        Whole in memory, for all the tokens that will ask them one by one.
        """
        both = self.key_value(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        keys, values = both.contiguous()
        return keys, values

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Queries from x `(B, T, D)`, keys and values `(B, H, S, K)` -> `(B, T, D)`."""
        query = self._split(self.query(x)) / math.sqrt(keys.shape[-1])  # (B, H, T, K)
        scores = query @ keys.transpose(-2, -1)  # (B, H, T, S)
        return self.output(attend(scores, values, mask, self.dropout))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, S, K)


class SelfAttention(nn.Module):
    """Scaled dot-product attention of frames that carry their positions themselves."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, positions: None = None, mask: Tensor | None = None) -> Tensor:
        """x `(B, T, D)`, mask `(B, 1, 1, T)` -> `(B, T, D)`."""
        del positions
        query, keys, values = (
            self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, H, T, K) each
        scores = query / math.sqrt(query.shape[-1]) @ keys.transpose(-2, -1)  # (B, H, T, T)
        return self.output(attend(scores, values, mask, self.dropout))
