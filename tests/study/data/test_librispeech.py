"""LibriSpeech: its parts, and how they are fetched."""

from __future__ import annotations

import shutil
import tarfile
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from study.errors import InputError
from tests.study.data import layouts
from tests.study.data.layouts import corpus_of, texts_of


def test_librispeech_says_how_much_is_missing_and_where_it_is_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        corpus_of("librispeech", tmp_path).read(tmp_path)
    train, dev, test = error.value.faults
    assert "LibriSpeech/train-clean-100 (6.3 GB); get it from openslr.org/12" in train
    assert "dev-clean (0.34 GB)" in dev
    assert "or set corpus.download: true" in test


def test_an_unknown_part_of_librispeech_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Input should be 'train-clean-100'"):
        corpus_of("librispeech", tmp_path, train=["train-clean-10"])


def test_a_fetched_archive_is_unpacked_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = layouts.write_librispeech(tmp_path / "corpus")
    unfinished = folder / ".dev-clean"
    unfinished.mkdir()
    with tarfile.open(unfinished / "dev-clean.tar.gz", "w:gz") as archive:
        archive.add(folder / "LibriSpeech" / "dev-clean", "LibriSpeech/dev-clean")
    shutil.rmtree(folder / "LibriSpeech" / "dev-clean")
    (unfinished / "LibriSpeech" / "dev-clean").mkdir(parents=True)  # an interruption left this
    corpus = corpus_of("librispeech", folder, download=True)
    assert [u.id for u in corpus.read(tmp_path)["dev"]] == ["84-121123-0000"]
    assert not unfinished.exists()
    assert (
        f"Downloading dev-clean of LibriSpeech, 0.34 GB and as much again unpacked, from openslr.org/12 into {folder}"
        in caplog.text
    )

    class Wrong(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"not the archive: " + self.path.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Wrong)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # that of earlier tests knows no proxy
    shutil.rmtree(folder / "LibriSpeech" / "dev-clean")
    with pytest.raises(InputError, match=r"dev-clean cannot be fetched .*\(invalid hash value"):
        corpus.read(tmp_path)
    server.shutdown()
    server.server_close()
    assert not (folder / "LibriSpeech" / "dev-clean").exists()


def test_librispeech_is_read_by_speaker_and_chapter(tmp_path: Path) -> None:
    folder = layouts.write_librispeech(tmp_path)
    train = corpus_of("librispeech", folder).read(tmp_path)["train"]
    assert [(u.id, u.speaker, u.text) for u in train] == [
        ("103-1240-0000", "103", "chapter one"),
        ("103-1240-0001", "103", "missus rachel lynde's"),
        ("200-5-0000", "200", "red light"),
    ]
    assert texts_of("librispeech", folder, lowercase=False)["test"] == [
        "HE BEGAN A CONFUSED COMPLAINT"
    ]
    both = texts_of(
        "librispeech", folder, dev=["dev-clean", "test-clean"], test=["train-clean-100"]
    )
    assert len(both["dev"]) == 2
    assert len(both["test"]) == 3
