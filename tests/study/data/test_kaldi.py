"""Data directories: stretches of long recordings, and who speaks in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from study.data.audio import read_audio
from study.data.config import FeatureConfig
from study.data.corpus import Utterance
from study.data.features import LogMel
from tests.study.data import layouts
from tests.study.data.layouts import BUILD, corpus_of, open_corpus, replace_in

LONG = "data/train"


def test_kaldi_speakers_are_known_unless_they_are_utterances(tmp_path: Path) -> None:
    splits = corpus_of("kaldi", layouts.write_kaldi(tmp_path)).read(tmp_path)
    assert [u.speaker for u in (*splits["train"], *splits["dev"], *splits["test"])] == [
        "a", "a", None, "carl",
    ]  # fmt: skip


def test_a_segment_may_end_a_little_after_its_recording(tmp_path: Path) -> None:
    folder = layouts.write_kaldi(tmp_path / "corpus")
    replace_in(folder, f"{LONG}/segments", "long 2.0 -1", "long 2.0 4.4")
    split = open_corpus(corpus_of("kaldi", folder), tmp_path / "cache").splits["train"]
    assert split.lengths[1] == 201


def test_the_features_follow_the_stretches(tmp_path: Path) -> None:
    folder = layouts.write_kaldi(tmp_path / "corpus")
    first = open_corpus(corpus_of("kaldi", folder), tmp_path / "cache")
    replace_in(folder, f"{LONG}/segments", "long 0.5 1.5", "long 0.6 1.6")
    second = open_corpus(corpus_of("kaldi", folder), tmp_path / "cache")
    assert first.fingerprint != second.fingerprint
    assert not np.array_equal(first.splits["train"].store.of(0), second.splits["train"].store.of(0))


def _same_speech(split_frames: NDArray[np.float64], file: Path, start: float, end: float) -> None:
    """Compare features with those of the stretch alone, cut by slicing and written to a file."""
    samples, rate = soundfile.read(file)
    part = file.with_name(f"part-{start}.wav")
    soundfile.write(part, samples[round(start * rate) : round(end * rate)], rate, subtype="FLOAT")
    heard = read_audio(Utterance(id="x", audio=part, text=""))
    assert not isinstance(heard, str)
    expected = LogMel(FeatureConfig(mels=20))(torch.from_numpy(heard[0]), heard[1])
    np.testing.assert_allclose(split_frames, expected.numpy(), atol=0.02)


@pytest.mark.parametrize("kind", ["kaldi", "lhotse"])
def test_stretches_of_a_recording_are_heard_alone(tmp_path: Path, kind: str) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    split = open_corpus(corpus_of(kind, folder), tmp_path / "cache").splits["train"]
    assert [u.text for u in split.utterances] == ["red light", "green light"]
    for number, (start, end) in enumerate([(0.5, 1.5), (2.0, 4.0)]):
        _same_speech(split.store.of(number).astype(float), folder / "audio/long.wav", start, end)
