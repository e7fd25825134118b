"""Batches: every utterance once an epoch, bounded padding, an order that the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from study.data.batches import IGNORED, Batches, spec_augment
from study.data.config import AugmentationConfig
from study.data.dataset import Split
from tests.speech import open_corpus, write_corpus, write_tone


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("corpus")
    texts = {
        "train": [f"red {'on ' * (n % 4)}off" for n in range(40)],
        "dev": ["on"],
        "test": ["on"],
    }
    write_corpus(folder, texts=texts, seconds=1.0)
    for number in range(40):
        write_tone(folder / "audio" / f"train-{number}.wav", 0.8 + 0.05 * number)
    return open_corpus(folder).splits["train"]


def test_every_utterance_is_in_one_batch_of_an_epoch(split: Split) -> None:
    batches = Batches(split, seconds=8)
    for plan in (batches.in_order(), batches.shuffled(seed=1, epoch=0)):
        assert sorted(member for members in plan for member in members) == list(range(40))
        assert len(plan) == len(batches)


def test_no_batch_holds_more_speech_than_asked_for(split: Split) -> None:
    for members in Batches(split, seconds=8).shuffled(seed=1, epoch=0):
        batch = Batches(split, seconds=8).gather(members)
        assert batch.features.shape[0] * batch.features.shape[1] * 0.01 <= 8


def test_an_utterance_longer_than_a_batch_has_one_of_its_own(split: Split) -> None:
    assert all(len(members) == 1 for members in Batches(split, seconds=0.5).in_order())


def test_padding_is_small(split: Split) -> None:
    batches = Batches(split, seconds=8)
    padded = sum(
        batch.features.shape[0] * batch.features.shape[1]
        for batch in map(batches.gather, batches.in_order())
    )
    assert padded / sum(split.lengths) < 1.1


def test_the_order_follows_from_seed_and_epoch(split: Split) -> None:
    batches = Batches(split, seconds=8)
    assert batches.shuffled(3, 5) == Batches(split, seconds=8).shuffled(3, 5)
    assert batches.shuffled(3, 5) != batches.shuffled(3, 6)
    assert batches.shuffled(3, 5) != batches.shuffled(4, 5)


def test_a_batch_holds_the_features_and_tokens_of_its_members(split: Split) -> None:
    batch = Batches(split, seconds=8).gather([30, 2])
    assert batch.ragged
    assert batch.lengths.tolist() == [split.lengths[30], split.lengths[2]]
    for row, member in enumerate((30, 2)):
        length, tokens = split.lengths[member], split.tokens[member]
        np.testing.assert_array_equal(batch.features[row, :length], split.store.of(member))
        assert not batch.features[row, length:].any()
        assert batch.tokens[row, : len(tokens)].tolist() == tokens
        assert (batch.tokens[row, len(tokens) :] == IGNORED).all()
        assert batch.token_lengths[row] == len(tokens)
    assert not Batches(split, seconds=8).gather([7]).ragged


def test_masks_are_as_many_and_as_wide_as_configured() -> None:
    torch.manual_seed(0)
    config = AugmentationConfig(
        frequency_masks=1, frequency_mask_width=5, time_masks=0, time_mask_share=0.1
    )
    masked = spec_augment(torch.ones(200, 50, 20), config) == 0
    widths = masked.all(dim=1).sum(dim=1)
    assert masked.any(dim=1).sum(dim=1).tolist() == widths.tolist()  # whole bands
    assert set(widths.tolist()) == {0, 1, 2, 3, 4}

    config = AugmentationConfig(frequency_masks=0, time_masks=1, time_mask_share=0.1)
    masked = spec_augment(torch.ones(200, 50, 20), config) == 0
    lengths = masked.all(dim=2).sum(dim=1)
    assert lengths.max() == 4
    assert len({tuple(row) for row in masked.all(dim=2).tolist()}) > 20  # each its own


def test_without_masks_nothing_changes() -> None:
    features = torch.randn(2, 30, 20)
    none = AugmentationConfig(frequency_masks=0, time_masks=0)
    assert torch.equal(spec_augment(features, none), features)
