"""What every corpus in a folder has in common: its paths, its lines, its audio."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from study.data.audio import measure, read_audio
from tests.speech import write_corpus, write_tone
from tests.study.data import layouts
from tests.study.data.layouts import BUILD, corpus_of, open_corpus, refusal_of, replace_in


def test_audio_outside_is_read_where_it_is_allowed(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    write_tone(tmp_path / "elsewhere" / "a.wav", 1.0)
    replace_in(folder, "train.jsonl", "audio/train-0.wav", "../elsewhere/a.wav")
    replace_in(folder, "dev.jsonl", "audio/dev-0.wav", str(tmp_path / "elsewhere" / "a.wav"))
    corpus = corpus_of("manifest", folder, allow_outside=True)
    assert not any("cannot be used" in said for said in open_corpus(corpus, tmp_path).warnings)


def test_an_absolute_path_into_the_corpus_and_a_link_out_of_it_are_inside(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    replace_in(folder, "train.jsonl", "audio/train-0.wav", str(folder / "audio/train-0.wav"))
    shutil.move(folder / "audio" / "dev-0.wav", tmp_path / "a.wav")
    (folder / "audio" / "dev-0.wav").symlink_to(tmp_path / "a.wav")
    dataset = open_corpus(corpus_of("manifest", folder), tmp_path / "cache")
    assert not any("cannot be used" in said for said in dataset.warnings)


def test_a_path_back_out_of_a_link_stays_inside(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    write_tone(tmp_path / "elsewhere" / "secret.wav", 3.0)
    (tmp_path / "elsewhere" / "inner").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    replace_in(folder, "train.jsonl", "audio/train-0.wav", "link/../secret.wav")
    refusal = refusal_of(corpus_of("manifest", folder), tmp_path / "cache")
    assert f"there is no audio file {folder}/secret.wav" in refusal


def test_windows_line_ends_byte_order_marks_and_separators_in_text_are_read(tmp_path: Path) -> None:
    folder = layouts.write_common_voice(tmp_path / "corpus")
    content = (folder / "dev.tsv").read_text().replace("Green light.", "Green\u2028light.")
    (folder / "dev.tsv").write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    (utterance,) = corpus_of("commonvoice", folder).read(tmp_path)["dev"]
    assert utterance.text == "green light"


@pytest.mark.parametrize("kind", BUILD)
def test_headers_tell_how_long_utterances_are(tmp_path: Path, kind: str) -> None:
    splits = corpus_of(kind, BUILD[kind](tmp_path)).read(tmp_path)
    for utterance in (u for utterances in splits.values() for u in utterances):
        heard, seconds = read_audio(utterance), measure(utterance)
        assert not isinstance(heard, str)
        assert seconds == len(heard[0]) / heard[1]


@pytest.mark.parametrize("kind", BUILD)
def test_every_kind_is_ready_for_training(tmp_path: Path, kind: str) -> None:
    dataset = open_corpus(corpus_of(kind, BUILD[kind](tmp_path / "corpus")), tmp_path / "cache")
    assert all(len(split) for split in dataset.splits.values())
