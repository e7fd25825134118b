"""What is printed when a study is over."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

import reports
from study.connection import open_storage
from study.findings import show
from tests.reports.planted_study import Formula, conduct, planted_config
from tests.reports.test_answers import SURFACE


def test_a_check_that_is_bad_stands_in_a_paragraph_of_its_own(tmp_path: Path) -> None:
    config = planted_config(
        tmp_path, seed=0, explore={"trials": 12}, refine={"trials": 0}, finalists={"top": 0}
    )
    conduct(config, Formula(SURFACE, 0.2))
    files = reports.write(open_storage(config), config.name, tmp_path / "report", None)
    printed = io.StringIO()
    show(files, Console(file=printed, width=60))
    lines = printed.getvalue().splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("  ✗ Enough explore trials"))
    assert lines[begin + 1].startswith("    for 7 searched hyperparameters")
    assert max(map(len, lines[: lines.index("")])) <= 60
