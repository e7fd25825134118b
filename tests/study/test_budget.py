"""The hours of refine: when they are spent, nothing more of it is begun, and nothing is lost."""

from __future__ import annotations

import io
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

import reports
from study.budget import LEFT_OUT, refine_is_spent, seconds_of
from study.config import StudyConfig
from study.connection import open_storage
from study.progress import Watch
from study.status import show
from study.storage import open_study
from tests.reports.planted_study import Formula, conduct, planted_config
from tests.reports.test_answers import SURFACE

FORMULA = Formula(SURFACE, 0.004)
FULL = 4.4
"""Seconds that a trial of the formula says it took."""


def _config(folder: Path, hours: float | None) -> StudyConfig:
    refine = {"trials": 12, "hours": hours, "pruner": "none"}
    return planted_config(folder, seed=0, explore={"trials": 4}, refine=refine)


def _refine(study: optuna.Study) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Those that were begun, and those that were left out."""
    trials = [trial for trial in study.trials if trial.user_attrs["phase"] == "refine"]
    left_out = [trial for trial in trials if trial.user_attrs["outcome"] == LEFT_OUT]
    return [trial for trial in trials if trial not in left_out], left_out


def _spend(folder: Path) -> StudyConfig:
    """A study whose refine phase may take three and a half trials."""
    config = _config(folder, 3.5 * FULL / 3600)
    conduct(config, FORMULA)
    return config


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """One to look at."""
    return _spend(tmp_path_factory.mktemp("spent"))


def test_no_trial_is_begun_once_the_hours_are_spent(spent: StudyConfig) -> None:
    """The trial that exceeds them is trained to its end."""
    study = open_study(spent)
    begun, left_out = _refine(study)
    assert len(begun) == 4 and all(trial.state == TrialState.COMPLETE for trial in begun)
    assert len(left_out) == 8 and all(trial.state == TrialState.FAIL for trial in left_out)
    assert sum(map(seconds_of, begun)) == pytest.approx(4 * FULL)
    assert not any(trial.value or trial.params for trial in left_out)


def test_the_finalists_follow_all_the_same(spent: StudyConfig) -> None:
    finalists = [t for t in open_study(spent).trials if t.user_attrs["phase"] == "finalist"]
    assert len(finalists) == spent.finalist_trials
    assert all(trial.state == TrialState.COMPLETE for trial in finalists)


def test_more_hours_bring_back_what_was_left_out(tmp_path: Path) -> None:
    _spend(tmp_path)
    again = _config(tmp_path, 5.5 * FULL / 3600)
    conduct(again, FORMULA)
    begun, left_out = _refine(open_study(again))
    assert 5.5 * FULL <= sum(map(seconds_of, begun)) < 6.5 * FULL
    assert len(begun) + len(left_out) == 8 + 12  # the eight that were left out before stay so
    conduct(again, FORMULA)  # and the same hours bring nothing
    assert [len(trials) for trials in _refine(open_study(again))] == [len(begun), len(left_out)]
    conduct(_config(tmp_path, None), FORMULA)
    assert [len(trials) for trials in _refine(open_study(again))] == [12, len(left_out)]


def test_nothing_goes_on_from_a_rung_once_the_hours_are_spent(tmp_path: Path) -> None:
    refine = {"trials": 12, "hours": 3.5 * FULL / 3600, "survivors": 0.0}
    config = planted_config(tmp_path, seed=0, explore={"trials": 4}, refine=refine)
    conduct(config, FORMULA)
    begun, left_out = _refine(open_study(config))
    assert {trial.user_attrs["outcome"] for trial in begun} <= {"finished", "pruned"}
    assert 3.5 * FULL <= sum(map(seconds_of, begun)) < 4.5 * FULL
    assert len(begun) + len(left_out) == 12


def test_people_are_told(spent: StudyConfig, tmp_path: Path) -> None:
    study = open_study(spent)
    console = Console(width=80, record=True, file=io.StringIO())
    show(study, spent, console, "study.yaml")
    text = console.export_text()
    assert "left out, as the hours of refine are spent: 8" in text
    assert "left out  " not in text  # nor is there a row for each
    watch = Watch(study, spent, console)
    watch._told.clear()
    (said,) = [line for line in watch.lines() if "hours" in line]
    assert said == "The hours of refine are spent: 8 of its trials are left out."
    files = reports.write(open_storage(spent), spent.name, tmp_path / "report")
    assert "Left out: the hours of the refine phase were spent" in files.html.read_text()
    assert files.answers.trials[LEFT_OUT] == 8


def test_without_hours_trials_alone_count() -> None:
    assert not refine_is_spent([], None)
    assert not refine_is_spent([], 1e-9)
