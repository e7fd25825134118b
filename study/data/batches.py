"""Batches of about the same amount of speech, from utterances of about the same length.

Utterances are sorted by length into a few buckets; a batch comes from one bucket and holds as many
utterances as fit the wanted seconds of audio. The order of an epoch follows from the seed and the
epoch's number alone, so that an interrupted trial continues in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from torch import Tensor

from study.data.config import AugmentationConfig
from study.data.dataset import Split

BUCKETS = 8
"""Groups of similar length, in a corpus that is large enough for as many."""
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
    ragged: bool
    """Whether any frame is padding."""
    members: list[int]
    """Which utterances of the split these are."""
    written: int
    """Tokens of all of them together."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            features=self.features.to(device, non_blocking=True),
            lengths=self.lengths.to(device, non_blocking=True),
            tokens=self.tokens.to(device, non_blocking=True),
            token_lengths=self.token_lengths.to(device, non_blocking=True),
            ragged=self.ragged,
            members=self.members,
            written=self.written,
        )


class Batches:
    """Cuts a split into batches of at most `seconds` of audio, padding included.

    An utterance that is longer than that makes a batch of its own.
    """

    def __init__(self, split: Split, seconds: float) -> None:
        self.split = split
        lengths = np.array(split.lengths)
        order = np.argsort(lengths, kind="stable")
        full = int(lengths.sum() * split.hop / seconds)  # a bucket should fill a batch at least
        self._buckets = np.array_split(order, max(1, min(BUCKETS, full)))
        self._sizes = [
            max(1, int(seconds / split.hop // lengths[bucket[-1]])) for bucket in self._buckets
        ]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return sum(
            -(-len(bucket) // size) for bucket, size in zip(self._buckets, self._sizes, strict=True)
        )

    def in_order(self) -> list[list[int]]:
        """The members of each batch, from the shortest to the longest utterances."""
        return [
            bucket[start : start + size].tolist()
            for bucket, size in zip(self._buckets, self._sizes, strict=True)
            for start in range(0, len(bucket), size)
        ]

    def shuffled(self, seed: int, epoch: int) -> list[list[int]]:
        """The members of each batch of an epoch, in an order that these two numbers decide."""
        generator = np.random.default_rng([seed, epoch])
        batches = []
        for bucket, size in zip(self._buckets, self._sizes, strict=True):
            order = generator.permutation(bucket)
            batches += [
                order[start : start + size].tolist() for start in range(0, len(order), size)
            ]
        return [batches[i] for i in generator.permutation(len(batches))]

    def gather(self, members: list[int]) -> Batch:
        """The features and tokens of these utterances of the split."""
        split = self.split
        features = [split.store.of(split.numbers[member]) for member in members]
        tokens = [split.tokens[member] for member in members]
        longest = max(len(f) for f in features)
        padded = np.zeros((len(members), longest, features[0].shape[1]), dtype=np.float32)
        targets = np.full((len(members), max(len(t) for t in tokens)), IGNORED, dtype=np.int64)
        for row, (frames, target) in enumerate(zip(features, tokens, strict=True)):
            padded[row, : len(frames)] = frames
            targets[row, : len(target)] = target
        return Batch(
            features=torch.from_numpy(padded),
            lengths=torch.tensor([len(f) for f in features]),
            tokens=torch.from_numpy(targets),
            token_lengths=torch.tensor([len(t) for t in tokens]),
            ragged=any(len(f) < longest for f in features),
            members=members,
            written=sum(map(len, tokens)),
        )


def spec_augment(features: Tensor, config: AugmentationConfig) -> Tensor:
    """Mask random bands and stretches of each utterance: `(B, T, F)` -> `(B, T, F)`.

    Masked cells are zero on the logarithmic scale, before normalisation, as in ESPnet.
    """
    x = features.unsqueeze(1)  # (B, 1, T, F)
    mask = torchaudio.functional.mask_along_axis_iid
    for _ in range(config.frequency_masks):
        x = mask(x, config.frequency_mask_width, 0.0, axis=3)
    for _ in range(config.time_masks):
        x = mask(x, x.shape[2], 0.0, axis=2, p=config.time_mask_share)
    return x.squeeze(1)
