"""What the harness costs beside the training, in counts, which no clock disturbs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.speech import write_corpus

ROOT = Path(__file__).parent.parent.parent
TINY = "tests/tiny_study.yaml"

LOOK = """
import contextlib, io, json, sys
from study.__main__ import app
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    app(json.loads(sys.argv[1]))
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


def _imported(arguments: list[str], heavy: str) -> list[str]:
    """Which of these modules a command has imported when it ends."""
    run = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(arguments), json.dumps(heavy.split())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("command", [[], ["run"], ["ui"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    heavy = "torch optuna mlflow sqlalchemy scipy pandas matplotlib numpy study.config"
    assert _imported([*command, "--help"], heavy) == []


def test_check_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    options = [f"runs={tmp_path}", f"corpus={{kind: manifest, folder: {corpus}}}"]
    arguments = ["check", TINY, *(word for option in options for word in ("-o", option))]
    # Each of these takes from half a second to three.
    heavy = "mlflow scipy.stats pandas matplotlib sklearn seaborn torch._dynamo sympy"
    assert _imported(arguments, f"torch {heavy}") == ["torch"]
