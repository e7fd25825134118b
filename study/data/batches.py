"""Batches of about the same amount of speech, from utterances of about the same length.

Utterances are sorted by length into a few buckets; a batch comes from one bucket and holds as many
utterances as fit the wanted seconds of audio. The bounds of the buckets are those with which an
epoch needs the fewest batches, which keeps padding small. The order of an epoch follows from the
seed and the epoch's number alone, so that an interrupted trial continues in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from study.data.config import AugmentationConfig
from study.data.dataset import Split

BUCKETS = 8
"""Groups of similar length, in a corpus that is large enough for as many."""
EVEN_ENDS = 64
"""Places where a bucket may end."""
IGNORED = -1
"""Padding of tokens."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some utterances, padded to the longest."""

    features: Tensor
    """`(B, T, F)`, float32, zero in the padding."""
    lengths: Tensor
    """Frames of each utterance `(B,)`."""
    tokens: Tensor
    """`(B, U)`, -1 in the padding."""
    token_lengths: Tensor
    """`(B,)`."""
    host_lengths: Tensor
    """`lengths` once more, on the host: reading them from a GPU would wait for it."""
    host_token_lengths: Tensor
    """`token_lengths` once more, on the host."""
    members: list[int]
    """Which utterances of the split these are."""

    @property
    def ragged(self) -> bool:
        """Whether any frame is padding."""
        return bool((self.host_lengths < self.features.shape[1]).any())

    @property
    def written(self) -> int:
        """Tokens of all utterances together."""
        return int(self.host_token_lengths.sum())

    def pinned(self) -> Batch:
        """The same in memory from which a GPU copies while it computes."""
        return self._with(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, start: int, end: int) -> Batch:
        """Some of its utterances, with all of its padding."""
        rows = slice(start, end)
        return replace(
            self._with(lambda tensor: tensor[rows]),
            host_lengths=self.host_lengths[rows],
            host_token_lengths=self.host_token_lengths[rows],
            members=self.members[rows],
        )

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Another batch of what is made of each tensor on the device."""
        return replace(
            self,
            features=change(self.features),
            lengths=change(self.lengths),
            tokens=change(self.tokens),
            token_lengths=change(self.token_lengths),
        )


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Utterances of similar length, of which batches are made."""

    members: npt.NDArray[np.int64]
    """Their numbers in the split, from the shortest to the longest."""
    frames: int
    """Of the longest."""
    size: int
    """Utterances in a batch."""


class Batches:
    """Cuts a split into batches of at most `seconds` of audio, padding included.

    An utterance that is longer than that makes a batch of its own. What does not fill a batch of
    its bucket goes to the next one, of longer utterances, so that one batch at most is not full.
    """

    def __init__(self, split: Split, seconds: float) -> None:
        self.split = split
        self.lengths = split.lengths
        self.buckets = _buckets(np.array(self.lengths), int(seconds / split.hop))
        written = np.maximum.accumulate(
            [max(len(split.tokens[member]) for member in bucket.members) for bucket in self.buckets]
        )  # what a bucket leaves over goes to the next one
        self._most_tokens: list[int] = written.tolist()

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.in_order())

    def in_order(self) -> list[list[int]]:
        """The members of each batch, from the shortest to the longest utterances."""
        return self._cut([bucket.members for bucket in self.buckets])

    def shuffled(self, seed: int, epoch: int) -> list[list[int]]:
        """The members of each batch of an epoch, in an order that these two numbers decide."""
        generator = np.random.default_rng([seed, epoch])
        batches = self._cut([generator.permutation(bucket.members) for bucket in self.buckets])
        return [batches[i] for i in generator.permutation(len(batches))]

    def _cut(self, pools: list[npt.NDArray[np.int64]]) -> list[list[int]]:
        batches: list[list[int]] = []
        left: list[int] = []
        for bucket, pool in zip(self.buckets, pools, strict=True):
            members = left + pool.tolist()
            last = bucket is self.buckets[-1]
            whole = len(members) if last else len(members) // bucket.size * bucket.size
            batches += [members[start : start + bucket.size]
                        for start in range(0, whole, bucket.size)]  # fmt: skip
            left = members[whole:]
        return batches

    def padded_share(self) -> float:
        """Frames of an epoch's batches, padding included, in units of those of its speech."""
        frames = sum(
            len(members) * max(self.lengths[member] for member in members)
            for members in self.shuffled(0, 0)
        )
        return frames / sum(self.lengths)

    def shape(self, members: list[int]) -> tuple[int, int] | None:
        """Frames and tokens to which the batches of a bucket are padded alike; None if not full."""
        longest = max(self.lengths[member] for member in members)
        for bucket, tokens in zip(self.buckets, self._most_tokens, strict=True):
            if longest <= bucket.frames and len(members) == bucket.size:
                return bucket.frames, tokens
        return None

    def gather(
        self, members: list[int], *, frames: int | None = None, tokens: int | None = None
    ) -> Batch:
        """The features and tokens of these utterances, padded to so many frames and tokens.

        Without them, to as many as the longest has.
        """
        split = self.split
        features = [split.store.of(split.numbers[member]) for member in members]
        written = [split.tokens[member] for member in members]
        lengths = torch.tensor([len(part) for part in features])
        token_lengths = torch.tensor([len(part) for part in written])
        frames, tokens = frames or int(lengths.max()), tokens or int(token_lengths.max())
        padded = np.zeros((len(members), frames, features[0].shape[1]), dtype=features[0].dtype)
        targets = np.full((len(members), tokens), IGNORED, dtype=np.int64)
        for row, (part, target) in enumerate(zip(features, written, strict=True)):
            padded[row, : len(part)] = part
            targets[row, : len(target)] = target
        return Batch(
            features=torch.from_numpy(padded).float(),
            lengths=lengths,
            tokens=torch.from_numpy(targets),
            token_lengths=token_lengths,
            host_lengths=lengths,
            host_token_lengths=token_lengths,
            members=members,
        )


def _buckets(lengths: npt.NDArray[np.int64], frames: int) -> list[Bucket]:
    """Buckets whose batches of at most `frames`, padding included, are the fewest in an epoch.

    By dynamic programming over some places in the sorted utterances where a bucket may end: even
    ones, and those at which one utterance less fits into a batch.
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    fitting = frames // np.arange(1, EVEN_ENDS + 1)  # the longest of which 1, 2, … fit
    even = len(order) * np.arange(1, EVEN_ENDS + 1) // EVEN_ENDS
    ends = np.unique(np.concatenate((even, np.searchsorted(ordered, fitting, side="right"))))
    ends = ends[ends > 0]
    starts = np.concatenate(([0], ends[:-1]))
    sizes = np.maximum(1, frames // ordered[ends - 1])
    # needed[e, s]: batches of a bucket from start s to end e
    needed = (ends[:, None] - starts[None, :]) / sizes[:, None]
    needed[starts[None, :] >= ends[:, None]] = np.inf
    most = max(1, min(BUCKETS, int(lengths.sum() // frames)))  # a bucket should fill a batch
    totals, choices = [needed[:, 0]], []  # of one bucket, two, …, by their end
    for _ in range(1, most):
        before = np.concatenate(([np.inf], totals[-1][:-1]))  # by the start of the last bucket
        choices.append((needed + before).argmin(axis=1))
        totals.append((needed + before).min(axis=1))
    buckets = []
    end = len(ends) - 1
    for choice in reversed(choices[: int(np.argmin([total[-1] for total in totals]))]):
        start = int(choice[end])
        buckets.append((int(starts[start]), end))
        end = start - 1
    buckets.append((0, end))
    return [
        Bucket(
            members=order[start : ends[end]],
            frames=int(ordered[ends[end] - 1]),
            size=int(sizes[end]),
        )
        for start, end in reversed(buckets)
    ]


def spec_augment(features: Tensor, config: AugmentationConfig) -> Tensor:
    """Mask random bands and stretches of each utterance: `(B, T, F)` -> `(B, T, F)`.

    Masked cells are zero on the logarithmic scale, before normalisation, as in ESPnet.
    """
    from torchaudio.functional import (
        mask_along_axis_iid as mask,
    )  # what is only looked at needs none

    x = features.unsqueeze(1)  # (B, 1, T, F)
    for _ in range(config.frequency_masks):
        x = mask(x, config.frequency_mask_width, 0.0, axis=3)
    for _ in range(config.time_masks):
        x = mask(x, x.shape[2], 0.0, axis=2, p=config.time_mask_share)
    return x.squeeze(1)
