"""The hash of a corpus' speech: it is read once, and again as soon as a file may be another."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from study.data import fingerprint
from study.data.corpus import Utterance
from study.data.fingerprint import audio_fingerprint


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    found = []
    for number in range(3):
        file = tmp_path / f"{number}.wav"
        file.write_bytes(bytes([number]) * 100)
        found.append(Utterance(id=f"{number}", audio=file, text="red"))
    return found


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED", -5.0)


def _reads(utterances: list[Utterance], cache: Path) -> tuple[str, int]:
    """The fingerprint, and how many files were read for it."""
    with mock.patch.object(fingerprint, "_content_hash", wraps=fingerprint._content_hash) as read:
        return audio_fingerprint(utterances, cache), read.call_count


def _replaced(file: Path) -> None:
    """Another content, with the size and the time of change of what was there."""
    before = file.stat()
    file.write_bytes(b"x" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        Path.unlink,
        lambda file: file.write_bytes(b"longer" * 100),
        _replaced,
        lambda file: file.rename(file.with_suffix(".lost")),
    ],
    ids=["deleted", "longer", "replaced", "renamed"],
)
def test_a_file_that_changes_is_noticed(
    utterances: list[Utterance],
    tmp_path: Path,
    change: object,
) -> None:
    assert callable(change)
    before, _ = _reads(utterances, tmp_path / "cache")
    change(utterances[1].audio)
    after, read = _reads(utterances, tmp_path / "cache")
    assert after != before
    assert read == 3


@pytest.mark.parametrize("damage", [b"", b"00", b"\xff" * 32, b"f" * 33])
def test_a_damaged_note_is_made_again(
    utterances: list[Utterance], tmp_path: Path, damage: bytes
) -> None:
    before = _reads(utterances, tmp_path / "cache")
    (note,) = (tmp_path / "cache" / "audio").iterdir()
    note.write_bytes(damage)
    assert _reads(utterances, tmp_path / "cache") == before
    assert note.read_text() == before[0]


def test_what_was_written_a_moment_ago_is_read_again(
    utterances: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change once more within what the clock of a file system can tell apart."""
    monkeypatch.setattr(fingerprint, "SETTLED", 5.0)
    assert _reads(utterances, tmp_path / "cache") == _reads(utterances, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_speech_is_read_once(utterances: list[Utterance], tmp_path: Path) -> None:
    known, read = _reads(utterances, tmp_path / "cache")
    assert read == 3
    assert _reads(utterances, tmp_path / "cache") == (known, 0)
    assert _reads(utterances[::-1], tmp_path / "cache")[0] != known
    part = [*utterances[:2], replace(utterances[2], start=1.0)]
    assert _reads(part, tmp_path / "cache")[0] != known
    assert _reads(utterances, tmp_path / "cache") == (known, 0)


def test_a_corpus_that_is_moved_or_touched_is_the_same(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    known, _ = _reads(utterances, tmp_path / "cache")
    os.utime(utterances[0].audio)
    assert _reads(utterances, tmp_path / "cache") == (known, 3)
    (tmp_path / "moved").mkdir()
    moved = []
    for utterance in utterances:
        file = utterance.audio.rename(tmp_path / "moved" / utterance.audio.name)
        moved.append(replace(utterance, audio=file))
    assert _reads(moved, tmp_path / "cache") == (known, 3)


def test_what_could_not_be_read_is_read_again(
    utterances: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that answers again, or a right that was given, changes nothing of the file."""
    right, _ = _reads(utterances, tmp_path / "other")
    read = Path.read_bytes

    def denied(file: Path) -> bytes:
        if file.suffix == ".wav":
            raise PermissionError(1, "Operation not permitted")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert audio_fingerprint(utterances, tmp_path / "cache") != right
    monkeypatch.setattr(Path, "read_bytes", read)
    assert audio_fingerprint(utterances, tmp_path / "cache") == right
