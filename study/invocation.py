"""What a person types to reach this program, for messages that tell them what to type next."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPT = "conformer-study"
"""The console script that an installation brings along."""


def program() -> str:
    """The form in which the program was called: `python -m study`, or the console script."""
    return SCRIPT if Path(sys.argv[0]).stem == SCRIPT else "python -m study"


def command(name: str, *arguments: str) -> str:
    """A command of this program as a person would type it; empty arguments are left out."""
    return " ".join([program(), name, *(a for a in map(str.strip, arguments) if a)])
