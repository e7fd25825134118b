"""Faults done to real runs of `python -m study run`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.config_file import dump
from tests.study.small_study import small_config

ROOT = Path(__file__).parent.parent.parent


def test_a_folder_that_is_read_only_is_said(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    place = tmp_path / "readonly"
    place.mkdir()
    file = tmp_path / "readonly.yaml"
    file.write_text(dump(config.model_copy(update={"runs": place})), encoding="utf-8")
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not there: nothing can be mounted")
    script = f'mount -t tmpfs -o ro tmpfs {place} || exit 77; exec "$@"'
    result = subprocess.run(
        [unshare, "-m", "/bin/sh", "-c", script, "sh", sys.executable, "-m", "study", "run", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode not in (0, 1, 2):
        pytest.skip(f"nothing can be mounted here: {result.stderr}")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Read-only file system" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr
