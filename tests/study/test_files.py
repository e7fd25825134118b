"""What is written is whole or not there, on a full disk too."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from study import stopping, weights
from study.files import Unwritable, clear_unfinished, replacing, write_atomically

CPU = torch.device("cpu")


@pytest.fixture
def full() -> Iterator[None]:
    """No file of this process can grow beyond 64 KiB: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_atomically(file, "old")
    with pytest.raises(KeyError), replacing(file) as temporary:
        temporary.write_text("half of the n")
        raise KeyError
    assert file.read_text() == "old"
    assert _names(tmp_path) == {"a"}


@pytest.mark.usefixtures("full")
def test_without_room_the_old_file_stays_and_a_sentence_says_why(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_atomically(file, "old")
    with pytest.raises(Unwritable, match=r"a cannot be written \(File too large\): make room"):
        write_atomically(file, "x" * 100_000)
    assert file.read_text() == "old"
    assert _names(tmp_path) == {"a"}


@pytest.mark.usefixtures("full")
def test_without_room_the_last_good_weights_stay(tmp_path: Path) -> None:
    file, before = tmp_path / "a.pt", tmp_path / "a.previous.pt"
    for value in (1, 2):
        weights.write(file, {"x": torch.full((10,), value)}, keep=before)
    with pytest.raises(Unwritable):
        weights.write(file, {"x": torch.zeros(100_000)}, keep=before)
    assert weights.read(file, CPU)["x"][0] == 2
    assert weights.read(before, CPU)["x"][0] == 1
    assert _names(tmp_path) == {"a.pt", "a.previous.pt"}


def test_while_weights_are_written_their_process_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a worker which is asked to stop is not taken to hang (`study.stopping`)."""
    seen: list[bool] = []
    monkeypatch.setattr(torch, "save", lambda *_: seen.append(stopping._saves.is_set()))
    weights.write(tmp_path / "a.pt", {})
    assert seen == [True]
    assert not stopping._saves.is_set()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable, match=r"Not a directory|File exists"):
        write_atomically(tmp_path / "file" / "a", "x")


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_bit_that_a_disk_lost_is_noticed(tmp_path: Path, place: float) -> None:
    file = tmp_path / "a.pt"
    weights.write(file, {"x": torch.randn(300, 300), "y": [1.5, "text"]})
    content = bytearray(file.read_bytes())
    content[round(place * len(content)) - 1] ^= 4
    file.write_bytes(content)
    with pytest.raises(weights.Damaged, match=r"a\.pt is damaged"):
        weights.read(file, CPU)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"text" * 100])
def test_what_holds_no_weights_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(weights.Damaged, match=r"a\.pt is damaged, or holds no weights"):
        weights.read(tmp_path / "a.pt", CPU)
    torch.save([1], tmp_path / "a.pt")
    with pytest.raises(weights.Damaged, match="holds no weights but a list"):
        weights.read(tmp_path / "a.pt", CPU)


class Bomb:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_weights_from_elsewhere_cannot_run_code(tmp_path: Path) -> None:
    file, made = tmp_path / "a.pt", tmp_path / "made"
    torch.save({"x": Bomb(made)}, file)
    with pytest.raises(weights.Damaged):
        weights.read(file, CPU)
    assert not made.exists()
    torch.load(file, weights_only=False)  # it would have
    assert made.exists()


def test_a_file_is_whole_even_where_its_writer_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from study.files import replacing\n"
        "file = Path(sys.argv[1])\n"
        "with replacing(file) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    file = tmp_path / "a"
    file.write_text("old")
    killed = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert killed.returncode == -9
    assert file.read_text() == "old"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".best.pt.half").touch()
    clear_unfinished(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".ipynb_checkpoints"]
