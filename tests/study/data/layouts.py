"""Miniatures of corpora, each in the layout in which it is distributed, and how tests open them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from pydantic import TypeAdapter

from study.data.config import FeatureConfig, TokenConfig
from study.data.dataset import Dataset, prepare
from study.data.listing import FolderCorpus
from study.data.registry import CORPORA
from study.errors import InputError
from tests.speech import write_corpus, write_tone

LIBRISPEECH = {
    "train-clean-100": {"103-1240-0000": "CHAPTER ONE", "103-1240-0001": "MISSUS RACHEL LYNDE'S",
                        "200-5-0000": "RED LIGHT"},
    "dev-clean": {"84-121123-0000": "GO DO YOU HEAR"},
    "test-clean": {"61-70968-0000": "HE BEGAN A CONFUSED COMPLAINT"},
}  # fmt: skip

KSPONSPEECH = {
    "train": [
        ("KsponSpeech_01/KsponSpeech_0001/KsponSpeech_000001", "아/ 몬 소리야, 그건 또. b/"),
        ("KsponSpeech_01/KsponSpeech_0001/KsponSpeech_000002", "(70%)/(칠십 퍼센트)* 그+ 그래."),
    ],
    "dev": [("KsponSpeech_05/KsponSpeech_0624/KsponSpeech_623001", "o/ 근데 u/ 했어? n/")],
    "eval_clean": [("KsponSpeech_eval/eval_clean/KsponSpeech_E00001", "네 l/")],
    "eval_other": [("KsponSpeech_eval/eval_other/KsponSpeech_E03001", "아니요")],
}

COMMON_VOICE = {
    "train": [("c1", "common_voice_en_1.mp3", "“Don’t stop,” he said — well-known!"),
              ("c2", "common_voice_en_2.mp3", "Red light")],
    "dev": [("c3", "common_voice_en_3.mp3", "Green light.")],
    "test": [("c4", "common_voice_en_4.mp3", "Über 9 Äpfel?")],
}  # fmt: skip


def write_librispeech(folder: Path) -> Path:
    """LibriSpeech's folders, flac and chapters' transcripts."""
    for subset, texts in LIBRISPEECH.items():
        for name, text in texts.items():
            speaker, chapter, _ = name.split("-")
            home = folder / "LibriSpeech" / subset / speaker / chapter
            write_tone(home / f"{name}.flac", 1.0)
            with (home / f"{speaker}-{chapter}.trans.txt").open("a") as file:
                file.write(f"{name} {text}\n")
    return folder


def write_pcm(file: Path, seconds: float) -> None:
    """Samples without a header."""
    file.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * 16000)) / 16000
    (8000 * np.sin(2 * np.pi * 440 * time)).astype("<i2").tofile(file)


def write_ksponspeech(folder: Path) -> Path:
    """KsponSpeech's folders, pcm with texts beside, and scripts."""
    (folder / "scripts").mkdir(parents=True)
    for script, rows in KSPONSPEECH.items():
        lines = [f"{path}.pcm :: {text}\n" for path, text in rows]
        (folder / "scripts" / f"{script}.trn").write_text("".join(lines), encoding="utf-8")
        for path, text in rows:
            write_pcm(folder / f"{path}.pcm", 1.5)
            (folder / f"{path}.txt").write_text(text + "\n", encoding="cp949")
    return folder


def write_common_voice(folder: Path) -> Path:
    """Common Voice's tables and mp3."""
    columns = ["client_id", "path", "sentence", "up_votes", "down_votes", "age", "locale"]
    for split, rows in COMMON_VOICE.items():
        lines = ["\t".join(columns)]
        for client, path, sentence in rows:
            lines.append("\t".join([client, path, sentence, "2", "0", "", "en"]))
            write_tone(folder / "clips" / path, 2.0, rate=48000)
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_kaldi(folder: Path) -> Path:
    """A recipe's folder with data directories: train in segments of one long recording."""
    write_tone(folder / "audio" / "long.wav", 4.0)
    for split in ("dev", "test"):
        write_tone(folder / "audio" / f"{split}.wav", 1.0)
    for split, files in {
        "train": {
            "wav.scp": "long audio/long.wav\n",
            "segments": "a-1 long 0.5 1.5\na-2 long 2.0 -1\n",
            "text": "a-1 red light\na-2 green  light\n",
            "utt2spk": "a-1 a\na-2 a\n",
        },
        "dev": {"wav.scp": "d audio/dev.wav\n", "text": "d blue\n", "utt2spk": "d d\n"},
        "test": {"wav.scp": "t audio/test.wav\n", "text": "t red\n", "utt2spk": "t carl\n"},
    }.items():
        (folder / "data" / split).mkdir(parents=True)
        for name, content in files.items():
            (folder / "data" / split / name).write_text(content)
    return folder


def write_kaldi_elsewhere(folder: Path) -> Path:
    """The same as recipes leave them: absolute paths, to audio that lies beside the folder."""
    audio = write_kaldi(folder).absolute().with_name(f"{folder.name}-audio")
    (folder / "audio").rename(audio)
    for table in folder.glob("data/*/wav.scp"):
        table.write_text(table.read_text().replace("audio/", f"{audio}/"))
    return folder


def recording(name: str, path: str, seconds: float = 4.0, channels: int = 1) -> dict[str, Any]:
    """Lhotse's description of a recording."""
    return {
        "id": name,
        "sources": [{"type": "file", "channels": list(range(channels)), "source": path}],
        "sampling_rate": 16000,
        "num_samples": round(seconds * 16000),
        "duration": seconds,
        "channel_ids": list(range(channels)),
    }


def supervision(name: str, source: str, start: float, duration: float, text: str) -> dict[str, Any]:
    """Lhotse's description of a transcript."""
    return {
        "id": name,
        "recording_id": source,
        "start": start,
        "duration": duration,
        "channel": 0,
        "text": text,
        "speaker": f"speaker of {name}",
    }


def cut(name: str, source: dict[str, Any], start: float, seconds: float, text: str) -> Any:
    """Lhotse's description of a cut with one transcript."""
    return {
        "id": name,
        "type": "MonoCut",
        "start": start,
        "duration": seconds,
        "channel": 0,
        "supervisions": [supervision(name, source["id"], 0.0, seconds, text)],
        "recording": source,
    }


def write_json_lines(file: Path, entries: list[Any]) -> None:
    """JSON lines, gzipped where the file's name says so."""
    content = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def write_lhotse(folder: Path) -> Path:
    """Recordings and supervisions for train, cuts for dev and test."""
    write_tone(folder / "audio" / "long.wav", 4.0)
    write_json_lines(folder / "recordings.jsonl.gz", [recording("long", "audio/long.wav")])
    write_json_lines(
        folder / "supervisions.jsonl.gz",
        [
            supervision("a", "long", 0.5, 1.0, "red light"),
            supervision("b", "long", 2.0, 2.0, "green  light"),
        ],
    )
    for number, split in enumerate(("dev", "test")):
        write_tone(folder / "audio" / f"{split}.wav", 1.0)
        whole = recording(split, f"audio/{split}.wav", 1.0)
        write_json_lines(
            folder / f"cuts_{split}.jsonl.gz",
            [cut(f"{split}-0", whole, 0.0, 1.0, f"text {number}")],
        )
    return folder


def write_stereo(file: Path, seconds: float = 1.0) -> None:
    """A tone of 440 Hz on the left, one of 1760 Hz on the right."""
    time = np.arange(round(seconds * 16000)) / 16000
    tones = [0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (440, 1760)]
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.stack(tones, axis=1), 16000)


BUILD: dict[str, Callable[[Path], Path]] = {
    "manifest": write_corpus,
    "librispeech": write_librispeech,
    "ksponspeech": write_ksponspeech,
    "commonvoice": write_common_voice,
    "kaldi": write_kaldi,
    "lhotse": write_lhotse,
}
SETTINGS = {"lhotse": {"train": ["recordings.jsonl.gz", "supervisions.jsonl.gz"]}}


def corpus_of(kind: str, folder: Path, **settings: object) -> FolderCorpus:
    """A corpus as study.yaml would give it."""
    if kind == "lhotse":
        pytest.importorskip("lhotse")
    given = {"folder": str(folder), **SETTINGS.get(kind, {}), **settings}
    adapter: TypeAdapter[FolderCorpus] = TypeAdapter(cast(Any, CORPORA[kind]))
    return adapter.validate_python(given)


def open_corpus(corpus: FolderCorpus, cache: Path) -> Dataset:
    """A corpus made ready for training."""
    return prepare(corpus, FeatureConfig(mels=20), TokenConfig(), ctc=True, cache=cache)


def refusal_of(corpus: FolderCorpus, cache: Path) -> str:
    """What is said of a corpus that cannot be used."""
    with pytest.raises(InputError) as error:
        open_corpus(corpus, cache)
    return str(error.value)


def replace_in(folder: Path, file: str, old: str, new: str) -> None:
    """Change the first place in a list where `old` stands, which it must."""
    content = (folder / file).read_text(encoding="utf-8")
    assert old in content
    (folder / file).write_text(content.replace(old, new, 1), encoding="utf-8")


def texts_of(kind: str, folder: Path, **settings: object) -> dict[str, list[str]]:
    """The transcripts of each split."""
    splits = corpus_of(kind, folder, **settings).read(folder / "cache")
    return {split: [u.text for u in utterances] for split, utterances in splits.items()}
