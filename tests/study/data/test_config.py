"""No dead knobs: each setting of features and of the manifest changes what a trial hears."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from study.config_file import load
from study.data.config import FeatureConfig, TokenConfig
from study.data.features import LogMel
from study.data.manifest import ManifestCorpus
from study.data.tokens import learn_tokenizer
from study.errors import InputError
from tests.speech import write_corpus
from tests.study.data.layouts import replace_in

FEATURES = {"mels": 40, "sample_rate": 8000, "window": 0.04, "hop": 0.02}


@pytest.mark.parametrize(("name", "value"), FEATURES.items())
def test_every_feature_setting_acts(name: str, value: Any) -> None:
    signal = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    base = LogMel(FeatureConfig())(signal, 16000)
    changed = LogMel(FeatureConfig(**{name: value}))(signal, 16000)
    assert base.shape != changed.shape or not torch.equal(base, changed)


def test_the_kind_and_the_number_of_tokens_act(tmp_path: Path) -> None:
    texts = ["red light on", "blue light off", "green red blue"]
    vocabularies = {
        learn_tokenizer(config, texts, tmp_path).vocabulary
        for config in (
            TokenConfig(),
            TokenConfig(kind="bpe", size=20),
            TokenConfig(kind="bpe", size=24),
        )
    }
    assert len(vocabularies) == 3


def test_the_files_of_a_manifest_may_have_other_names(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    for split in ("train", "dev", "test"):
        shutil.copy(folder / f"{split}.jsonl", folder / f"my-{split}.jsonl")
        (folder / f"{split}.jsonl").unlink()
    corpus = ManifestCorpus(
        folder=folder,
        train=(Path("my-train.jsonl"),),
        dev=(Path("my-dev.jsonl"),),
        test=(Path("my-test.jsonl"),),
    )
    assert [len(utterances) for utterances in corpus.read(tmp_path).values()] == [4, 2, 2]


def test_corpora_side_by_side_are_trained_on_together(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    write_corpus(tmp_path / "more", texts={"train": ["on"], "dev": [], "test": []})
    replace_in(tmp_path / "more", "train.jsonl", '"train-0"', '"more-0"')
    file = tmp_path / "study.yaml"
    file.write_text(
        f"corpus: {{kind: manifest, folder: {folder}, train: [train.jsonl, ../more/train.jsonl]}}\n"
    )
    train = load(file).corpus.read(tmp_path)["train"]
    assert [utterance.id for utterance in train] == [f"train-{n}" for n in range(4)] + ["more-0"]
    assert train[-1].audio == tmp_path / "more/audio/train-0.wav"
    with pytest.raises(InputError, match=r"corpus.train: \[\] is not possible"):
        load(file, ["corpus.train=[]"])
    alone = load(file, ["corpus.train=train.jsonl"]).corpus.read(tmp_path)["train"]
    assert [utterance.id for utterance in alone] == [f"train-{n}" for n in range(4)]
