"""Manifests, audio, databases and weights that are not what they should be, on real commands."""

from __future__ import annotations

import pickle
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import soundfile
import torch

from study.config import StudyConfig
from tests.faults.refusal import Refuse, refuse
from tests.speech import write_corpus, write_tone
from tests.study.small_study import small_config, train

__all__ = ["refuse"]

TINY = Path(__file__).parent.parent / "tiny_study.yaml"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def _options(tmp_path: Path) -> list[str]:
    return ["-o", "corpus={kind: manifest, folder: corpus}", "-o", f"runs={tmp_path / 'runs'}"]


# ── Manifests ────────────────────────────────────────────────────────────────────────────

LINES = [
    *("{", "}", "[]", "[1]", "1", '"text"', "null", "true", "{}", "NaN", "{'id': 1}", "text"),
    *('{"id": "x"}', '{"id": "x", "audio": "audio/dev-0.wav"}', '{"audio": "a.wav", "text": "x"}'),
    '{"id": 1, "audio": "audio/dev-0.wav", "text": "red"}',
    '{"id": "x", "audio": 1, "text": "red"}',
    '{"id": "x", "audio": ["audio/dev-0.wav"], "text": "red"}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": 1}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": null}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": "red", "speaker": {}}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": "red", "duration": 0}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": "red", "duration": []}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": "red"} {"id": "y"}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": "red"',
    '{"id": "x", "audio": "/etc/passwd", "text": "red"}',
    '{"id": "x", "audio": "../../etc/passwd", "text": "red"}',
    '{"id": "x", "audio": "file:///etc/passwd/../../../../..", "text": "red"}',
    '{"id": "x", "audio": "audio/../../x.wav", "text": "red"}',
    '{"id": "x", "audio": "a\\u0000.wav", "text": "red"}',
    '{"id": "", "audio": "audio/dev-0.wav", "text": "red"}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": "\\ud800"}',
    '{"id": "train-0", "audio": "audio/dev-0.wav", "text": "red"}',
    '{"id": "x", "audio": "audio/dev-0.wav", "text": ' + "[" * 9999,
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_utterance_is_said_with_its_place(
    tmp_path: Path, corpus: Path, refuse: Refuse, line: str
) -> None:
    with (corpus / "dev.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert "dev.jsonl:3: " in refuse("corpus", TINY, *_options(tmp_path))


@pytest.mark.parametrize("seed", range(10))
def test_a_manifest_with_broken_bytes_is_refused_with_its_place(
    tmp_path: Path, corpus: Path, refuse: Refuse, seed: int
) -> None:
    draw = random.Random(seed)
    file = corpus / draw.choice(["train.jsonl", "dev.jsonl", "test.jsonl"])
    content = bytearray(file.read_bytes())
    for _ in range(20):
        content[draw.randrange(len(content))] = draw.randrange(256)
    file.write_bytes(content)
    assert f"{file.name}:" in refuse("corpus", TINY, *_options(tmp_path))


# ── Audio ────────────────────────────────────────────────────────────────────────────────


def _header(place: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + value + content[place + len(value) :]


AUDIO: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: b"R",
    "four bytes": lambda content: content[:4],
    "half a header": lambda content: content[:20],
    "a header alone": lambda content: content[:44],
    "almost no samples": lambda content: content[:60],
    "text": lambda content: b"this is no audio\n" * 100,
    "JSON": lambda content: b'{"audio": 1}',
    "a page": lambda content: b"<!doctype html><html><body>404</body></html>",
    "zeros": lambda content: bytes(len(content)),
    "noise": lambda content: random.Random(1).randbytes(5000),
    "another magic": _header(0, b"RIFX"),
    "no WAVE": _header(8, b"EVAW"),
    "no fmt": _header(12, b"tmf "),
    "an unknown codec": _header(20, b"\x99\x99"),
    "no channels": _header(22, b"\0\0"),
    "no rate": _header(24, b"\0\0\0\0"),
    "no bits": _header(34, b"\0\0"),
    "no data": _header(36, b"atad"),
    "reversed": lambda content: content[::-1],
}


@pytest.mark.parametrize("damage", AUDIO)
@pytest.mark.parametrize("command", ["run", "transcribe"])
def test_a_file_that_is_no_audio_is_said_with_its_place(
    tmp_path: Path, corpus: Path, refuse: Refuse, damage: str, command: str, trained: StudyConfig
) -> None:
    file = corpus / "audio" / "train-1.wav"
    file.write_bytes(AUDIO[damage](file.read_bytes()))
    if command == "run":
        errors = _refuse_run(refuse, tmp_path)
        assert "train.jsonl:2: 'train-1': " in errors
    else:
        errors = refuse("transcribe", file, "--study", _file(tmp_path, trained))
    assert "train-1.wav" in errors or "long" in errors


def _refuse_run(refuse: Refuse, tmp_path: Path) -> str:
    """`run` keeps the features that it could compute: the cache lies elsewhere here."""
    elsewhere = tmp_path.parent / f"{tmp_path.name}-runs"
    return refuse("run", TINY, *_options(tmp_path), "-o", f"runs={elsewhere}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_said(
    tmp_path: Path, corpus: Path, refuse: Refuse, value: float
) -> None:
    samples = np.full(16000, value, dtype=np.float32)
    soundfile.write(corpus / "audio" / "train-1.wav", samples, 16000, subtype="FLOAT")
    assert "not finite numbers" in _refuse_run(refuse, tmp_path)


# ── Databases ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    config = small_config(tmp_path_factory.mktemp("trained"), "storage=sqlite")
    train(config)
    _sql("PRAGMA wal_checkpoint(TRUNCATE)")(config.folder / "study.db")  # one whole file
    return config


@pytest.fixture
def trained(trained_once: StudyConfig, tmp_path: Path) -> StudyConfig:
    """A finished study of our own to damage."""
    shutil.copytree(trained_once.folder, tmp_path / "own" / "tiny")
    return trained_once.model_copy(update={"runs": tmp_path / "own"})


def _file(tmp_path: Path, config: StudyConfig) -> Path:
    from study.config_file import dump

    file = tmp_path / "study.yaml"
    file.write_text(dump(config), encoding="utf-8")
    return file


def _sql(*statements: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        connection = sqlite3.connect(file)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return damage


def _fresh(*statements: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        file.unlink()
        _sql(*statements)(file)

    return damage


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        file.write_bytes(change(file.read_bytes()))

    return damage


def _other_study(file: Path) -> None:
    file.unlink()
    optuna.create_study(study_name="other", storage=f"sqlite:///{file}")


def _empty_study(file: Path) -> None:
    file.unlink()
    optuna.create_study(study_name="tiny", storage=f"sqlite:///{file}")


def _folder(file: Path) -> None:
    file.unlink()
    (file / "x").mkdir(parents=True)


NO_DATABASE = "study.db is damaged, or no database ("
DATABASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (_bytes(lambda content: b""), "has not begun: {file} is empty; "),
    "missing": (Path.unlink, "has not begun: there is no {file}; "),
    "text": (_bytes(lambda content: b"this is no database\n" * 100), NO_DATABASE),
    "cut off": (_bytes(lambda content: content[: len(content) // 2]), NO_DATABASE),
    "a header alone": (_bytes(lambda content: content[:100]), NO_DATABASE),
    "zeros": (_bytes(lambda content: bytes(4096)), NO_DATABASE),
    "broken pages": (
        _bytes(lambda content: content[:4096] + b"\xff" * (len(content) - 4096)),
        NO_DATABASE,
    ),
    "a folder": (_folder, NO_DATABASE),
    "another program's": (
        _fresh("CREATE TABLE notes (text TEXT)"),
        "{file} is no database of studies",
    ),
    "a newer schema": (
        _sql("UPDATE alembic_version SET version_num = 'v9.9.9.a'"),
        "was made by another version of Optuna",
    ),
    "without trials": (_sql("DROP TABLE trials"), "{file} is damaged: it has no table 'trials'"),
    "without attributes": (
        _sql("DELETE FROM study_user_attributes"),
        "{file} holds trials of a study 'tiny' without its settings",
    ),
    "another study's": (_other_study, "has not begun: sqlite:///{file} holds none of that name; "),
    "an empty study's": (
        _empty_study,
        "has not begun: sqlite:///{file} holds nothing but its name; ",
    ),
}
READERS = ["report", "sync", "transcribe"]


@pytest.mark.parametrize("damage", DATABASES)
@pytest.mark.parametrize("command", READERS)
def test_a_database_that_is_no_study_is_said(
    tmp_path: Path, refuse: Refuse, trained: StudyConfig, damage: str, command: str
) -> None:
    study = _file(tmp_path, trained)
    file = trained.folder / "study.db"
    spoil, sentence = DATABASES[damage]
    spoil(file)
    given = (
        ["transcribe", "a.wav", "--study", study] if command == "transcribe" else [command, study]
    )
    errors = refuse(*given, "-o", "tracking.enabled=true")
    assert sentence.format(file=file) in errors


# ── Weights and tokens ───────────────────────────────────────────────────────────────────

WEIGHTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "text": lambda content: b"no weights\n" * 100,
    "cut off": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "a lost bit": lambda content: content[:9000] + bytes([content[9000] ^ 1]) + content[9001:],
    "a pickle": lambda content: pickle.dumps({"encoder": [1.0]}),
    "another archive": lambda content: (TINY.parent / "nowhere.zip").name.encode(),
}


@pytest.mark.parametrize("damage", WEIGHTS)
def test_weights_that_are_damaged_are_said(
    tmp_path: Path, refuse: Refuse, trained: StudyConfig, damage: str
) -> None:
    for file in trained.folder.rglob("best.pt"):
        file.write_bytes(WEIGHTS[damage](file.read_bytes()))
    write_tone(tmp_path / "a.wav", 1.0)
    errors = refuse("transcribe", tmp_path / "a.wav", "--study", _file(tmp_path, trained))
    assert "best.pt is damaged" in errors


def test_weights_of_another_network_are_said(
    tmp_path: Path, refuse: Refuse, trained: StudyConfig
) -> None:
    for file in trained.folder.rglob("best.pt"):
        torch.save({"encoder": torch.zeros(3)}, file)
    write_tone(tmp_path / "a.wav", 1.0)
    errors = refuse("transcribe", tmp_path / "a.wav", "--study", _file(tmp_path, trained))
    assert "best.pt: is not of the network" in errors


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b"{}", b"a"])
def test_tokens_that_are_damaged_are_said(
    tmp_path: Path, refuse: Refuse, trained: StudyConfig, content: bytes
) -> None:
    for file in (trained.folder / "tokens").iterdir():
        file.write_bytes(content)
    write_tone(tmp_path / "a.wav", 1.0)
    errors = refuse("transcribe", tmp_path / "a.wav", "--study", _file(tmp_path, trained))
    assert "tokens" in errors or "best.pt" in errors
