"""The command line in the process of a test, where it starts in no time and can be patched."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from study import __main__


class Said(NamedTuple):
    """How a command ended."""

    code: int
    output: str
    errors: str


CommandLine = Callable[..., Said]
"""Runs `python -m study` with these arguments; `name` is what the program is called."""


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    """What a user sees of a command."""

    def run(*arguments: object, name: str = "study") -> Said:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            __main__.main()
        output, errors = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Said(end.value.code, output, errors)

    return run
