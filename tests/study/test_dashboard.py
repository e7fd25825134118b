"""Optuna Dashboard: the real server, on a real study."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from study.config_file import load
from study.storage import create_study
from tests.command_line import CommandLine

ROOT = Path(__file__).parent.parent.parent
TINY = "tests/tiny_study.yaml"


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    create_study(load(ROOT / TINY, [f"runs={tmp_path}"]), {"corpus": {"fingerprint": "abc"}})
    return tmp_path


def test_the_dashboard_shows_the_study_on_loopback_until_it_is_stopped(begun: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    process = subprocess.Popen(
        [sys.executable, "-m", "study", "dashboard", TINY, "-o", f"runs={begun}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while not (match := re.search(r"http://127\.0\.0\.1:(\d+)/dashboard/studies/(\d+)", said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        port = int(match[1])
        assert b"Optuna Dashboard" in _get(port, f"/dashboard/studies/{match[2]}")
        study = json.loads(_get(port, f"/api/studies/{match[2]}"))
        assert study["name"] == "tiny"
        assert len(study["trials"]) == 7
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"sqlite" not in arguments
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    return connection.getresponse().read()


def test_without_it_one_sentence_says_how_to_get_it(
    begun: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    said = command_line("dashboard", ROOT / TINY, "-o", f"runs={begun}")
    assert said.code == 2
    assert "pip install optuna-dashboard" in said.errors
