"""What a user sees of input that cannot be used, and that nothing is left of the attempt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import CommandLine

Refuse = Callable[..., str]
"""Runs a command in this process, and returns the sentences with which it refuses."""


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, with a hash of what it holds, but for SQLite's working files."""
    return {
        str(file.relative_to(folder)): hashlib.blake2b(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.endswith((".lock", "-wal", "-shm", "-journal"))
    }


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine) -> Refuse:
    """A command that must refuse: in sentences, without a traceback, and with no file changed."""

    def run(*arguments: str | Path) -> str:
        before = contents(tmp_path)
        monkeypatch.chdir(tmp_path)
        said = command_line(*arguments)
        errors = said.errors
        assert said.code == 2, said
        assert "Traceback" not in said.output + errors
        lines = errors[errors.index("error: ") :].splitlines()  # after what was said before
        assert all(line.startswith(("error: ", "  ")) for line in lines), errors
        assert all(len(line) > len("error: ") + 15 for line in lines), errors
        after = contents(tmp_path)
        assert after == before, set(after.items()) ^ set(before.items())
        return errors

    return run
