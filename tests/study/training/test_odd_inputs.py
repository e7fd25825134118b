"""The oddest speech that is not refused, through training, evaluation and the final decoding.

Utterances of seven frames, which the front block makes one of; transcripts of one token; a kernel
that is longer than they are; batches of one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import Decoding, NetworkConfig
from model.recogniser import Recogniser
from study.data.batches import Batches
from study.data.dataset import Dataset
from study.training.config import Budget, TrainingConfig
from study.training.evaluation import recognise
from study.training.loop import train
from tests.speech import open_corpus, write_corpus

CPU = torch.device("cpu")
SEVEN_FRAMES = 0.06
"""Seconds: a frame each 10 ms, the first at the beginning."""
NETWORK = NetworkConfig(
    encoder_layers=1,
    encoder_dim=16,
    attention_heads=2,
    conv_kernel_size=31,
    decoder_layers=1,
    decoder_dim=16,
    decoder_heads=2,
    joint_dim=16,
    subsampling_channels=2,
)
NETWORKS: dict[str, dict[str, Any]] = {
    "attention": {},
    "attention without CTC": {"ctc_weight": 0.0},
    "ESPnet's BatchNorm": {"batch_norm": "espnet"},
    "legacy positions": {"position": "legacy_rel_pos"},
    "clipped positions": {"position": "clipped"},
    "transducer": {"decoder": "transducer"},
    "transducer without CTC": {"decoder": "transducer", "ctc_weight": 0.0},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("odd") / "corpus"
    texts = {"train": ["a", "b", "a"], "dev": ["a", "b"], "test": ["b"]}
    return open_corpus(write_corpus(folder, texts=texts, seconds=SEVEN_FRAMES))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch_seconds", [0.01, 10.0], ids=["batches of one", "all together"])
def test_the_oddest_speech_is_trained_and_recognised(
    dataset: Dataset, tmp_path: Path, name: str, batch_seconds: float
) -> None:
    assert {split.lengths[0] for split in dataset.splits.values()} == {7}
    batches = Batches(dataset.splits["train"], batch_seconds)
    assert len(batches) == (3 if batch_seconds < 1 else 1)
    network = replace(NETWORK, **NETWORKS[name])
    training = TrainingConfig(budget=Budget(epochs=2), evaluations=2, batch_seconds=batch_seconds)
    evaluations = list(
        train(network, training, dataset, seed=1, device=CPU, folder=tmp_path, identity="odd")
    )
    assert len(evaluations) == 2
    for evaluation in evaluations:
        assert math.isfinite(evaluation.train_loss)
        assert math.isfinite(evaluation.dev_loss)
    recogniser = Recogniser(network, mels=20, vocabulary=dataset.tokenizer.vocabulary)
    recogniser.load_state_dict(torch.load(tmp_path / "best.pt", weights_only=True))
    test = Batches(dataset.splits["test"], batch_seconds)
    recognition = recognise(
        recogniser, test, dataset.tokenizer, CPU, decoding=Decoding(beam_size=4)
    )
    assert [hypothesis.reference for hypothesis in recognition.hypotheses] == ["b"]
    assert recognition.word_errors.length == 1
