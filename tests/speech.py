"""Small corpora of real audio files, made by the tests that need them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from study.data.config import FeatureConfig, TokenConfig
from study.data.dataset import Dataset, prepare
from study.data.manifest import ManifestCorpus

SPLITS = ("train", "dev", "test")


def write_tone(file: Path, seconds: float, *, rate: int = 16000, channels: int = 1) -> None:
    """A tone in noise, which differs from file to file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(file.name.encode()))
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * generator.uniform(200, 2000) * time)
    signal = tone + 0.01 * generator.standard_normal(len(time))
    soundfile.write(file, np.repeat(signal[:, None], channels, axis=1), rate)


def write_corpus(
    folder: Path, *, texts: dict[str, list[str]] | None = None, seconds: float = 1.0
) -> Path:
    """A corpus of four, two and two utterances, or of the given texts; returns its folder."""
    texts = texts or {
        "train": ["red light on", "blue light off", "green", "red off"],
        "dev": ["blue on", "green light"],
        "test": ["red", "light on"],
    }
    for split in SPLITS:
        entries: list[dict[str, Any]] = []
        for number, text in enumerate(texts[split]):
            audio = f"audio/{split}-{number}.wav"
            write_tone(folder / audio, seconds)
            entries.append(
                {"id": f"{split}-{number}", "audio": audio, "text": text, "speaker": f"s{number}"}
            )
        write_manifest(folder / f"{split}.jsonl", entries)
    return folder


def write_manifest(file: Path, entries: list[dict[str, Any]]) -> None:
    """JSON lines."""
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def read_manifest(file: Path) -> list[dict[str, Any]]:
    """The entries of JSON lines."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def open_corpus(folder: Path, *, bad: float = 0.01, mels: int = 20, **tokens: Any) -> Dataset:
    """A corpus folder made ready for training, with its cache beside it."""
    return prepare(
        ManifestCorpus(folder=folder, max_bad_utterances=bad),
        FeatureConfig(mels=mels),
        TokenConfig(**tokens),
        ctc=True,
        cache=folder / "cache",
    )
