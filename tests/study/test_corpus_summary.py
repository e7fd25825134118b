"""What `python -m study corpus` says of a corpus."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from study.corpus_summary import histogram, shared, show, summarise
from study.data.manifest import ManifestCorpus
from tests.speech import read_manifest, write_corpus, write_manifest, write_tone


def _printed(folder: Path, *, bad: float = 0.01) -> str:
    corpus = ManifestCorpus(folder=folder, max_bad_utterances=bad)
    console = Console(width=80, record=True, file=io.StringIO())
    show(corpus, summarise(corpus.read(folder), shortest=0.025), console)
    return console.export_text()


def _totals(text: str, split: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(split))


def test_bad_utterances_are_named_with_their_reasons(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path)
    entries = read_manifest(folder / "train.jsonl")
    entries[0]["text"] = " "
    entries += [{**entries[1], "id": f"more-{n}", "audio": f"none-{n}.wav"} for n in range(12)]
    write_manifest(folder / "train.jsonl", entries)
    (folder / "audio" / "train-2.wav").write_bytes(b"[red]nothing[/red]")
    soundfile.write(folder / "audio" / "dev-0.wav", np.zeros(0), 16000)
    text = _printed(folder)
    assert "15 of 20 utterances cannot be used, more than corpus.max_bad_utterances" in text
    assert "train.jsonl:1: 'train-0': the transcript is empty" in text
    assert "train.jsonl:3: 'train-2': the audio file" in text
    assert "'more-0': there is no audio file" in text
    assert "and 5 more" in text
    assert _totals(text, "train")[2:4] == ["2", "14"]
    allowed = " ".join(_printed(folder, bad=15).split())
    assert "cannot be used, and corpus.max_bad_utterances (15) allows that:" in allowed


def test_a_corpus_without_anything_usable_is_shown(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path)
    for file in folder.glob("audio/*"):
        file.unlink()
    text = _printed(folder)
    assert "no usable utterances: train, dev, test" in text
    assert _totals(text, "dev") == ["dev", "0.00", "0", "2", "?", "0", "0"]


def test_what_splits_share_is_counted(tmp_path: Path) -> None:
    folder = write_corpus(
        tmp_path,
        texts={"train": ["red", "red", "blue"], "dev": ["red", "red", "green"], "test": ["pink"]},
    )
    entries = read_manifest(folder / "test.jsonl")
    entries[0] |= {"audio": "audio/train-0.wav", "speaker": "new"}
    write_manifest(folder / "test.jsonl", entries)
    found = shared(summarise(ManifestCorpus(folder=folder).read(folder), shortest=0.025))
    assert found == [
        "train and dev share 1 text: 2 utterances of dev (66.7 %)",
        "train and dev share 3 speakers: 3 utterances of dev (100 %)",
        "train and test share 1 recording: test is not new to a model that has heard train",
    ]


def test_splits_that_are_apart_are_called_so(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path)
    for split in ("train", "dev", "test"):
        entries = [{**e, "speaker": f"{split}"} for e in read_manifest(folder / f"{split}.jsonl")]
        write_manifest(folder / f"{split}.jsonl", entries)
    text = _printed(folder)
    assert "All utterances can be used, and splits share no text and no speaker." in text
    assert _totals(text, "train") == ["train", "0.00", "4", "0", "1", "9", "6", "1.00"]


def test_the_histogram_counts_every_usable_utterance_once(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path)
    for number, seconds in enumerate([0.1, 0.6, 2.0, 4.9]):
        write_tone(folder / "audio" / f"train-{number}.wav", seconds)
    rows = histogram(summarise(ManifestCorpus(folder=folder).read(folder), shortest=0.025))
    counts = {round(begin, 3): split for begin, _, split in rows}
    assert rows[0][1] - rows[0][0] == pytest.approx(0.5)
    assert counts[0.0] == [1, 0, 0]
    assert counts[0.5] == [1, 0, 0]
    assert counts[1.0] == [0, 2, 2]
    assert counts[2.0] == [1, 0, 0]
    assert counts[4.5] == [1, 0, 0]
    assert sum(map(sum, counts.values())) == 8


def test_the_command_fits_80_columns_and_needs_no_torch(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    study = tmp_path / "study.yaml"
    study.write_text(f"corpus: {{kind: manifest, folder: {folder}}}\n")
    script = (
        "import sys; from study.__main__ import app\n"
        f"app(['corpus', {str(study)!r}], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, torch = done.stdout.splitlines()
    assert lines[0] == "manifest corpus"
    assert torch == "False"
    assert max(map(len, lines)) <= 80
