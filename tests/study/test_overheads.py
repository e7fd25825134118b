"""What the harness costs beside the training, in counts, which no clock disturbs."""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from study import importing
from study.databases import Database
from tests.reports.planted_study import Formula, conduct, planted_config
from tests.reports.test_answers import SURFACE
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
    heavy = "mlflow sqlalchemy scipy.stats pandas matplotlib sklearn seaborn torch._dynamo sympy"
    assert _imported(arguments, f"torch {heavy}") == ["torch"]


def test_an_import_that_fails_leaves_the_collector_at_work() -> None:
    with pytest.raises(ModuleNotFoundError), importing.for_good():
        assert not gc.isenabled()
        importlib.import_module("there_is_no_such_module")
    assert gc.isenabled()


def test_the_collector_looks_at_what_is_made_after_an_import_alone() -> None:
    try:
        with importing.for_good():
            imported: list[object] = []
        made: list[object] = []
        looked_at = [id(held) for held in gc.get_objects()]
    finally:
        gc.unfreeze()
    assert id(made) in looked_at
    assert id(imported) not in looked_at


def test_what_a_trial_asks_of_its_storage_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change is a transaction, and each look at a trial that runs a query."""
    config = planted_config(
        tmp_path, seed=0, explore={"trials": 4}, refine={"trials": 3, "survivors": 1.0},
        finalists={"top": 0, "anchors": False}, storage="sqlite",
    )  # fmt: skip
    counts: Counter[str] = Counter()
    for name in ("_set_trial_param", "set_trial_state_values", "set_trial_intermediate_value",
                 "set_trial_user_attr", "set_trial_system_attr", "record", "_get_trials",
                 "get_trial"):  # fmt: skip
        original = getattr(Database, name)

        def counted(
            *arguments: Any, _name: str = name, _original: Any = original, **named: Any
        ) -> Any:
            counts["reads" if "get" in _name else "writes"] += 1
            return _original(*arguments, **named)

        monkeypatch.setattr(Database, name, counted)
    conduct(config, Formula(SURFACE, 0.004))
    trials = 8
    # 7 parameters, 4 evaluations, 3 changes of state and constraint, and 3 collections of facts.
    assert trials < counts["writes"] <= 17 * trials
    assert trials < counts["reads"] <= 7 * trials
