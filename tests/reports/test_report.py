"""The report of an ordinary study: complete, self-contained, right in its numbers, repeatable."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

import reports
from reports.questions import QUESTIONS, SIX
from tests.reports.page_outline import outline
from tests.reports.simulated import SEARCH, SimulatedStudy, create_empty, fill


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SimulatedStudy:
    """A study of 12 explore and 8 refine trials, and one of each mishap."""
    return fill(create_empty(tmp_path_factory.mktemp("study")), mishaps=True)


@pytest.fixture(scope="module")
def files(
    simulated: SimulatedStudy, tmp_path_factory: pytest.TempPathFactory
) -> reports.ReportFiles:
    """Its report."""
    folder = tmp_path_factory.mktemp("report")
    return reports.write(simulated.storage, simulated.name, folder, simulated.trials_folder)


def test_the_page_is_complete_and_needs_nothing_outside(
    simulated: SimulatedStudy, files: reports.ReportFiles
) -> None:
    page = outline(files)
    html = files.html.read_text(encoding="utf-8")
    for question in QUESTIONS:
        assert question.text in page.text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:|//|file:)", html)
    assert not re.search(r"url\((?![\"']?#)", html)
    assert "@import" not in html
    sections = ("answer", "effects", "importance", "cost", "curves", "trials", "recognition")
    assert set(sections) <= set(page.ids)
    assert html.count('<svg role="img" aria-label="') == 25
    assert "3 utterances are shorter than 0.3 s" in page.text
    assert "4be1c0ffee" in page.text and "learning_rate:" in page.text
    assert "37.2 min of train (960 utterances, 24 speakers)" in page.text


def test_the_table_of_trials_is_right(
    simulated: SimulatedStudy, files: reports.ReportFiles
) -> None:
    table = pd.read_csv(files.trials_csv)
    trials = simulated.study.trials
    assert list(table["number"]) == [trial.number for trial in trials]
    assert list(table["state"]) == [trial.state.name for trial in trials]
    assert list(table["seed"]) == [trial.user_attrs["seed"] for trial in trials]
    for name in SEARCH:
        assert list(table[name]) == pytest.approx([trial.params[name] for trial in trials])
    for trial, wer in zip(trials, table["wer"], strict=True):
        if trial.state is TrialState.COMPLETE:
            assert wer == trial.value
        elif trial.state is TrialState.PRUNED:
            assert wer == trial.intermediate_values[3]
        else:
            assert pd.isna(wer)
    told = [trial.user_attrs["outcome"] for trial in trials]
    assert list(table["outcome"]) == told
    assert list(table["result"]) == [outcome == "finished" for outcome in told]
    assert table["even"].sum() == 10  # of 12 explore trials two are anchors
    assert table["parameters"].dtype == "int64"
    markdown = files.markdown.read_text(encoding="utf-8")
    for column in table.columns:
        assert f"| `{column}` |" in markdown


def test_the_answer_is_right(simulated: SimulatedStudy, files: reports.ReportFiles) -> None:
    results = [
        trial
        for trial in simulated.study.trials
        if trial.state is TrialState.COMPLETE and not trial.constraints
    ]
    best = min(results, key=lambda trial: trial.value or 0.0)
    answer = files.answer
    assert answer.best is not None
    assert (answer.best.number, answer.best.wer) == (best.number, best.value)
    assert answer.best.values == {name: best.params[name] for name in SIX}
    assert answer.best.seed == best.user_attrs["seed"]
    assert answer.results == len(results) == 17
    assert answer.counts == {
        "crashed": 1,
        "diverged": 1,
        "finished": 17,
        "out_of_memory": 1,
        "pruned": 3,
    }
    assert [(anchor.name, anchor.wer) for anchor in answer.anchors] == [
        ("conformer-s", simulated.study.trials[0].value),
        ("espnet-ksponspeech", simulated.study.trials[1].value),
    ]
    assert answer.sentence in outline(files).text
    assert f"{100 * answer.best.wer:.2f} %" in answer.sentence


def test_writing_again_gives_the_same_and_leaves_no_trace(
    simulated: SimulatedStudy, files: reports.ReportFiles
) -> None:
    written = (
        files.html, files.markdown, files.trials_csv, files.answers_json, *files.figures
    )  # fmt: skip
    before = {path: path.read_bytes() for path in written}
    style = dict(mpl.rcParams)
    again = reports.write(
        simulated.storage, simulated.name, files.html.parent, simulated.trials_folder
    )
    assert again == files
    assert {path: path.read_bytes() for path in written} == before
    left = {path for path in files.html.parent.rglob("*") if path.is_file()}
    assert left == set(written)  # no temporary file stays
    assert dict(mpl.rcParams) == style  # nor our theme


def test_figures_of_an_earlier_report_do_not_stay(
    files: reports.ReportFiles, tmp_path: Path
) -> None:
    assert {path.name for path in files.figures} == {
        f"{name}.{kind}"
        for name in (
            "effects",
            "isolation",
            "importance",
            "cost",
            "curves",
            "equal-size",
            "checks",
            "recognition",
        )
        for kind in ("svg", "png")
    }
    folder = shutil.copytree(files.html.parent, tmp_path / "report")
    (folder / "figures" / "mine.txt").write_text("not ours to delete")
    storage = f"sqlite:///{tmp_path}/other.db"
    optuna.create_study(storage=storage, study_name="empty", direction="minimize")
    assert reports.write(storage, "empty", folder).figures == ()
    assert [path.name for path in (folder / "figures").iterdir()] == ["mine.txt"]


def test_importing_is_light() -> None:
    """A command line that only starts workers does not wait for a plotting library."""
    heavy = "{'torch', 'mlflow', 'matplotlib', 'seaborn', 'pandas', 'optuna'}"
    code = f"import sys, reports; print({heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert ran.stdout.decode().strip() == "set()"
