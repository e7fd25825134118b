"""The encoder's self-attention that knows how far apart two frames are, in three kinds.

They are called alike, with `(x, positions, mask)`, as `SelfAttention` is; `POSITIONS` in
`model/encoder.py` says what positions each is given. Scores are computed plainly, the same code for
every number of heads; in training on the CPU those of `RelativeAttention` have a backward pass of
their own.

Shapes: `B` batch, `T` frames, `H` heads, `K` width of a head, `D` = H · K.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention import probabilities
from model.cpu import learns_plainly
from model.dropout import Dropout, draw_mask

aten = torch.ops.aten


class RelativeAttention(nn.Module):
    """Self-attention that knows how far apart two frames are.

    Dai et al. 2019 (arXiv 1901.02860), section 3.3, as in ESPnet's
    `RelPositionMultiHeadedAttention` with `rel_pos_type: latest`.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(heads, dim // heads))  # u in the paper
        self.position_bias = nn.Parameter(torch.empty(heads, dim // heads))  # v in the paper
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.position_bias)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
        """x `(B, T, D)`, positions `(2T - 1, D)`, mask `(B, 1, 1, T)` -> `(B, T, D)`.

        Heads come first, so that the positions, which utterances share, are read where they lie.
        """
        batch, frames, dim = x.shape
        width = dim // self.heads
        three = self.query_key_value(x).view(batch, frames, 3, self.heads, width)
        three = three.permute(2, 3, 0, 1, 4).contiguous()  # (3, H, B, T, K)
        distances = self.position(positions).view(-1, self.heads, width).permute(1, 2, 0)
        if mask is not None:
            mask = mask.transpose(0, 1)
        attend = self._attend_on_cpu if self._suits_cpu(three) else self._attend
        attended = attend(three, distances, mask).permute(1, 2, 0, 3)
        return self.output(attended.flatten(2))  # (B, T, D)

    def _attend(self, three: Tensor, distances: Tensor, mask: Tensor | None) -> Tensor:
        """Queries, keys and values `(3, H, B, T, K)`, distances `(H, K, 2T - 1)` -> `(H, B, T, K)`.

        mask `(1, B, 1, T)`.
        """
        heads, batch, frames, width = three.shape[1:]
        query, keys, values = three
        by_content = query + self.content_bias[:, None, None]
        by_position = (query + self.position_bias[:, None, None]).flatten(1, 2)  # (H, B T, K)
        scores = self._shift((by_position @ distances).unflatten(1, (batch, frames)))
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        scale = 1 / math.sqrt(width)
        scores = torch.baddbmm(
            scores.flatten(0, 1),
            by_content.flatten(0, 1),
            keys.flatten(0, 1).mT,
            beta=scale,
            alpha=scale,
        )  # (H B, T, T)
        attended = self.dropout(scores.softmax(dim=-1)) @ values.flatten(0, 1)
        return attended.unflatten(0, (heads, batch))

    def _attend_on_cpu(self, three: Tensor, distances: Tensor, mask: Tensor | None) -> Tensor:
        rate = self.dropout.p if self.dropout.training else 0.0
        attended: Tensor = AttendOnCpu.apply(  # type: ignore[no-untyped-call]
            three, self.content_bias, self.position_bias, distances, mask, rate
        )
        return attended

    def _suits_cpu(self, three: Tensor) -> bool:
        return learns_plainly(three)

    @staticmethod
    def _shift(scores: Tensor) -> Tensor:
        return relative_shift(scores)


class AttendOnCpu(torch.autograd.Function):
    """`RelativeAttention._attend` as the CPU trains it fastest, with one backward pass for all.

    The scores are made where they stay, and no step between them is kept. A test compares the two.
    """

    @staticmethod
    def forward(
        context: Any,
        three: Tensor,
        content_bias: Tensor,
        position_bias: Tensor,
        distances: Tensor,
        mask: Tensor | None,
        rate: float,
    ) -> Tensor:
        """As `_attend`; the biases are `(H, K)`, `rate` is that of dropout."""
        _, heads, batch, frames, width = three.shape
        query, keys, values = three
        by_content = (query + content_bias[:, None, None]).flatten(0, 1)
        by_position = (query + position_bias[:, None, None]).flatten(1, 2)
        scores = relative_shift((by_position @ distances).unflatten(1, (batch, frames)))
        scores = scores.contiguous() if mask is None else scores + mask
        scale = 1 / math.sqrt(width)
        weights = (
            scores.flatten(0, 1)
            .baddbmm_(by_content, keys.flatten(0, 1).mT, beta=scale, alpha=scale)
            .softmax(dim=-1)
        )  # (H B, T, T)
        kept = draw_mask(weights, rate) if rate else None
        context.save_for_backward(three, by_content, by_position, distances, weights, kept)
        weights = weights if kept is None else weights * kept
        return (weights @ values.flatten(0, 1)).unflatten(0, (heads, batch))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of three, both biases and distances."""
        three, by_content, by_position, distances, weights, kept = context.saved_tensors
        _, heads, batch, frames, width = three.shape
        _, keys, values = three.flatten(1, 2)
        gradient = gradient.contiguous().flatten(0, 1)  # (H B, T, K)
        inner = gradient @ values.mT
        used = weights
        if kept is not None:
            inner, used = inner.mul_(kept), weights * kept
        scores = aten._softmax_backward_data(inner, weights, -1, weights.dtype)
        scores = scores.mul_(1 / math.sqrt(width))
        by_distance = scores.new_zeros(heads, batch, frames, 2 * frames - 1)
        relative_shift(by_distance).copy_(scores.unflatten(0, (heads, batch)))
        by_distance = by_distance.flatten(1, 2)  # (H, B T, 2T - 1)

        learnt = torch.empty_like(three)
        of_query, of_keys, of_values = learnt.flatten(1, 2)
        of_content = scores @ keys
        of_position = by_distance @ distances.mT  # (H, B T, K)
        torch.add(of_content, of_position.view_as(of_content), out=of_query)
        torch.bmm(scores.mT, by_content, out=of_keys)
        torch.bmm(used.mT, gradient, out=of_values)
        biases = of_content.view_as(of_position).sum(1), of_position.sum(1)
        return learnt, *biases, by_position.mT @ by_distance, None, None


class LegacyRelativeAttention(RelativeAttention):
    """ESPnet's attention with `rel_pos_type: legacy`, which is its default.

    Kept to load and to repeat what was trained with it. Only keys to the left of a query get the
    score of their distance; those to the right get one of the next frame's query. As positions
    count from the end of the longest utterance of a batch, what an utterance gives depends on what
    it is batched with: this is never invariant to padding.
    """

    def _suits_cpu(self, three: Tensor) -> bool:
        return False  # its shift has another gradient

    @staticmethod
    def _shift(scores: Tensor) -> Tensor:
        return legacy_shift(scores)


class ClippedAttention(nn.Module):
    """Self-attention with a learned vector for each distance, all far ones being alike.

    Shaw et al. 2018 (arXiv 1803.02155), section 3: keys and values have vectors of their own, in
    each layer, shared by its heads.
    """

    def __init__(self, dim: int, heads: int, dropout: float, *, clip: int) -> None:
        super().__init__()
        self.heads, self.clip = heads, clip
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.key_distance = nn.Parameter(torch.empty(2 * clip + 1, dim // heads))  # a^K, by j - i
        self.value_distance = nn.Parameter(torch.empty(2 * clip + 1, dim // heads))  # a^V
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.key_distance)
        nn.init.xavier_uniform_(self.value_distance)

    def forward(self, x: Tensor, positions: None = None, mask: Tensor | None = None) -> Tensor:
        """x `(B, T, D)`, mask `(B, 1, 1, T)` -> `(B, T, D)`."""
        del positions
        query, keys, values = (
            self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, H, T, K) each
        query = query / math.sqrt(query.shape[-1])
        reach = x.shape[1] - 1
        distances = torch.arange(-reach, reach + 1, device=x.device)  # j - i
        rows = distances.clamp(-self.clip, self.clip) + self.clip  # (2T - 1,)
        # Looked up as an embedding, whose gradient is the same at each run on CUDA too.
        key_distances = functional.embedding(rows, self.key_distance)  # (2T - 1, K)
        value_distances = functional.embedding(rows, self.value_distance)

        scores = query @ keys.transpose(-2, -1) + relative_shift(query @ key_distances.mT)
        weights = probabilities(scores, mask, self.dropout)  # (B, H, T, T)
        attended = weights @ values + relative_unshift(weights) @ value_distances
        return self.output(attended.transpose(1, 2).flatten(2))


def relative_shift(x: Tensor) -> Tensor:
    """From scores by distance to scores by key: `(B, H, T, 2T - 1)` -> `(B, H, T, T)`.

    Column m of row i holds the score of distance T - 1 - m; entry (i, j) of the result is that of
    distance i - j. In memory it lies at i (2T - 2) + j + (T - 1), so this is a view, not a copy.
    """
    frames = x.shape[-2]
    if frames == 1:
        return x
    start, row = frames - 1, 2 * frames - 2
    flat = x.flatten(-2)[..., start : start + frames * row]
    return flat.unflatten(-1, (frames, row))[..., :frames]


def relative_unshift(x: Tensor) -> Tensor:
    """From weights by key to weights by distance: `(B, H, T, T)` -> `(B, H, T, 2T - 1)`.

    The inverse of `relative_shift`: distances without a key weigh nothing.
    """
    frames = x.shape[-1]
    if frames == 1:
        return x
    flat = functional.pad(x, (0, frames - 2)).flatten(-2)
    return functional.pad(flat, (frames - 1, 1)).unflatten(-1, (frames, 2 * frames - 1))


def legacy_shift(x: Tensor) -> Tensor:
    """What ESPnet's legacy attention makes of scores by position: `(B, H, T, T)` -> the same shape.

    Entry (i, j) is x[i, T - 1 - i + j] for j <= i, 0 for j = i + 1, and x[i + 1, j - i - 2], of the
    next query, beyond.
    """
    frames = x.shape[-1]
    flat = functional.pad(x, (1, 0)).flatten(-2)  # rows of T + 1
    return flat[..., frames:].unflatten(-1, (frames, frames))
