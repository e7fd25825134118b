"""Common Voice: tables, mp3, and sentences as people write them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.study.data import layouts
from tests.study.data.layouts import corpus_of, open_corpus, texts_of


def test_common_voice_is_read_with_and_without_punctuation(tmp_path: Path) -> None:
    folder = layouts.write_common_voice(tmp_path)
    assert texts_of("commonvoice", folder) == {
        "train": ["don't stop he said well-known", "red light"],
        "dev": ["green light"],
        "test": ["über 9 äpfel"],
    }
    assert texts_of("commonvoice", folder, lowercase=False)["dev"] == ["Green light"]
    kept = texts_of("commonvoice", folder, punctuation=True)["train"]
    assert kept == ["“don’t stop,” he said — well-known!", "red light"]
    assert [u.speaker for u in corpus_of("commonvoice", folder).read(tmp_path)["train"]] == [
        "c1",
        "c2",
    ]
    shutil.move(folder / "clips", folder / "mp3")
    moved = corpus_of("commonvoice", folder, clips="mp3")
    split = open_corpus(moved, tmp_path / "cache").splits["train"]
    assert abs(split.lengths[0] - 201) <= 12  # mp3 pads


def test_a_table_of_three_columns_and_windows_line_ends_is_read(tmp_path: Path) -> None:
    folder = layouts.write_common_voice(tmp_path)
    row = "c3\tcommon_voice_en_3.mp3\tGreen light.\r\n"
    (folder / "dev.tsv").write_bytes(("client_id\tpath\tsentence\r\n" + row).encode())
    assert texts_of("commonvoice", folder)["dev"] == ["green light"]
