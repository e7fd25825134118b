"""The command line, end to end: a whole small study, run again, interrupted, and refused."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from model.config import SHAPE
from study.config_file import dump, load
from study.storage import create_study
from tests.browser import browser, needs_browser, see
from tests.command_line import CommandLine
from tests.speech import read_manifest
from tests.study.mlflow_store import everything
from tests.study.small_study import small_config, train
from tests.study.training.test_scoring import needs_sclite, sclite

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

__all__ = ["browser"]

ROOT = Path(__file__).parent.parent.parent
TINY = "tests/tiny_study.yaml"


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")


def _command(runs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "study", "run", TINY, "-o", f"runs={runs}", *arguments]


def _run(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(runs, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def _trials(runs: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{runs}/tiny/study.db", skip_table_creation=True, skip_compatibility_check=True
    )  # to look, and never to make what the study makes
    return optuna.load_study(study_name="tiny", storage=storage).trials


@dataclass
class Finished:
    """A study that was run once."""

    runs: Path
    output: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    runs = tmp_path_factory.mktemp("runs")
    result = _run(runs, "--workers", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    return Finished(runs, result.stdout)


def test_a_study_ends_with_its_answer_and_where_to_read_more(finished: Finished) -> None:
    output = finished.output
    assert "The winner is" in output
    for name in SHAPE:
        assert name in output
    assert "tiny/report/index.html" in output
    assert f"python -m study ui {TINY} -o runs={finished.runs}" in output
    assert all(len(line) <= 80 for line in output.splitlines() if str(finished.runs) not in line)


def test_every_trial_has_an_outcome_and_none_failed(finished: Finished) -> None:
    trials = _trials(finished.runs)
    assert len(trials) == 11
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert (finished.runs / "tiny" / "tokens" / "tokens.txt").is_file()
    workers = {trial.user_attrs["worker"] for trial in trials[:7]}
    assert len(workers) == 2
    assert len({trial.user_attrs["seed"] for trial in trials}) == 11
    tested = [trial.number for trial in trials if "test_wer" in trial.user_attrs]
    assert tested == [7, 8, 9, 10]


def test_the_table_of_trials_agrees_with_the_storage(finished: Finished) -> None:
    with (finished.runs / "tiny" / "report" / "trials.csv").open() as file:
        rows = {int(row["number"]): row for row in csv.DictReader(file)}
    for trial in _trials(finished.runs):
        row = rows[trial.number]
        assert row["state"] == trial.state.name
        assert float(row["wer"]) == pytest.approx(trial.value)
        assert int(float(row["seed"])) == trial.user_attrs["seed"]
        for name in SHAPE:
            assert float(row[name]) == trial.user_attrs["config"][name]


def test_mlflow_agrees_with_the_storage(finished: Finished) -> None:
    client = MlflowClient(f"sqlite:///{finished.runs}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (parent,) = parents
    assert parent.info.status == "FINISHED"
    artifacts = {f.path for f in client.list_artifacts(parent.info.run_id, "report")}
    report = finished.runs / "tiny" / "report"
    assert artifacts == {f"report/{path.name}" for path in report.iterdir()}
    figures = {f.path for f in client.list_artifacts(parent.info.run_id, "report/figures")}
    assert figures == {f"report/figures/{path.name}" for path in (report / "figures").iterdir()}
    answers = json.loads((report / "answers.json").read_text())
    for question in answers["questions"]:
        assert parent.data.tags[f"answer.{question['name']}"] == question["headline"]


def test_the_answers_for_programs_agree_with_the_storage(finished: Finished) -> None:
    answers = json.loads((finished.runs / "tiny" / "report" / "answers.json").read_text())
    winner, *others = answers["finalists"]
    assert [finalist["label"] for finalist in others]
    assert [item["label"] for item in answers["comparisons"]] == [f["label"] for f in others]
    for item, finalist in zip(answers["comparisons"], others, strict=True):
        gap = finalist["test_wer"] - winner["test_wer"]
        assert item["difference"] == pytest.approx(gap)
        assert item["low"] <= gap <= item["high"]
    trials = _trials(finished.runs)
    for key in ("train_seconds", "evaluate_seconds"):
        assert answers[key] == pytest.approx(sum(trial.user_attrs[key] for trial in trials))


@needs_browser
def test_a_browser_finds_the_six_answers(finished: Finished, browser: Chrome) -> None:
    report = finished.runs / "tiny" / "report"
    browser.get((report / "index.html").as_uri())
    lines = browser.find_elements("css selector", "#answer .card li")
    assert len(lines) == len(SHAPE)
    answers = json.loads((report / "answers.json").read_text())
    for line, question in zip(lines, answers["questions"], strict=True):
        assert line.is_displayed()
        for text in (question["text"], question["name"], question["verdict"], question["sentence"]):
            assert text in line.text
    assert answers["sentence"] in see(browser, "The winner is")
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert log == []  # nothing was missing or refused


def test_mlflow_holds_every_trial(finished: Finished) -> None:
    client = MlflowClient(f"sqlite:///{finished.runs}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested: dict[int, Any] = {int(r.data.tags["trial"]): r for r in runs if r is not parent}
    for trial in _trials(finished.runs):
        run = nested[trial.number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["state"] == trial.state.name
        expected = "FINISHED" if trial.state == TrialState.COMPLETE else "KILLED"
        assert run.info.status == expected
        for name, value in trial.params.items():
            assert float(run.data.params[name]) == value
        history = client.get_metric_history(run.info.run_id, "wer")
        assert {m.step: m.value for m in history} == trial.intermediate_values
        files = {f.path for f in client.list_artifacts(run.info.run_id)}
        assert {"config.json", "hypotheses.jsonl"} <= files


def test_mlflow_can_be_rebuilt_from_the_storage_and_the_run_folder(
    finished: Finished, command_line: CommandLine, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copytree(finished.runs / "tiny", runs / "tiny")
    arguments = ("sync", TINY, "-o", f"runs={runs}")
    code, output, _ = command_line(*arguments)
    assert code == 0
    assert "Delivered to MLflow: trials 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and the report" in output
    rebuilt = everything(f"sqlite:///{runs}/mlflow.db")
    original = everything(f"sqlite:///{finished.runs}/mlflow.db")
    params = original["study"][2], rebuilt["study"][2]
    assert (params[0].pop("runs"), params[1].pop("runs")) == (str(finished.runs), str(runs))
    assert (params[0].pop("launcher.workers"), params[1].pop("launcher.workers")) == ("2", "null")
    assert "KILLED" in {run[1] for run in original.values() if isinstance(run, tuple)}
    assert rebuilt == original
    code, output, _ = command_line(*arguments)
    assert "there was nothing to deliver" in output


@needs_sclite
def test_the_word_error_rates_of_a_study_are_those_of_sclite(
    finished: Finished, tmp_path: Path
) -> None:
    for trial in _trials(finished.runs):
        file = finished.runs / "tiny" / "trials" / str(trial.number) / "hypotheses.jsonl"
        entries = read_manifest(file)
        errors, words = sclite(tmp_path, [(e["reference"], e["hypothesis"]) for e in entries])
        best = min(trial.intermediate_values.values())
        assert errors / words == pytest.approx(best)


def test_run_again_trains_nothing_and_says_so(
    finished: Finished, command_line: CommandLine
) -> None:
    before = _trials(finished.runs)
    page = finished.runs / "tiny" / "report" / "index.html"
    page.unlink()
    code, output, _ = command_line("run", TINY, "-o", f"runs={finished.runs}")
    assert code == 0
    assert "nothing is trained" in " ".join(output.split())
    assert page.is_file()
    assert [t.datetime_complete for t in _trials(finished.runs)] == [
        t.datetime_complete for t in before
    ]


def test_a_finished_study_is_extended(finished: Finished, tmp_path: Path) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(finished.runs, copy)
    result = _run(copy, "--workers", "1", "-o", "refine.trials=4", "-o", "tracking.enabled=false")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "11 of 14 trials have an outcome" in result.stdout  # the best may be another now
    search = [t for t in _trials(copy) if t.user_attrs["phase"] != "finalist"]
    assert len(search) == 8


def test_the_report_is_written_again(finished: Finished, command_line: CommandLine) -> None:
    page = finished.runs / "tiny" / "report" / "index.html"
    page.unlink()
    code, output, _ = command_line("report", TINY, "-o", f"runs={finished.runs}")
    assert code == 0
    assert page.is_file()
    assert "The winner is" in output
    assert re.search(r"^  encoder_dim +\S+ \(", output, re.M)
    assert "Can they be believed? Of 12 checks: " in output


def test_studies_are_compared_on_one_page(
    finished: Finished, command_line: CommandLine, tmp_path: Path
) -> None:
    copy = tmp_path / "tiny.yaml"
    copy.write_text((ROOT / TINY).read_text() + f"\nruns: {finished.runs}\n")
    code, output, _ = command_line("compare", f"{copy}", f"{copy}", "--to", f"{tmp_path}/page")
    assert code == 0
    assert "Of the six questions, the studies agree on" in output
    assert "index.html" in output
    assert "Do the answers agree?" in (tmp_path / "page" / "index.html").read_text()
    code, _, errors = command_line("compare", f"{copy}")
    assert code == 2
    assert "two studies or more" in errors


def test_finalists_wait_for_the_end_of_the_search(
    command_line: CommandLine, tmp_path: Path
) -> None:
    config = load(ROOT / TINY, [f"runs={tmp_path}"])
    create_study(config, {"corpus": {"fingerprint": "none"}})
    code, _, errors = command_line("finalists", TINY, "-o", f"runs={tmp_path}")
    assert code == 2
    assert "the search of the study 'tiny' is not over" in errors


def test_more_finalists_are_trained_of_a_search_that_is_over(
    command_line: CommandLine, tmp_path: Path
) -> None:
    config = small_config(tmp_path, "finalists.seeds=1")
    train(config)
    file = tmp_path / "small.yaml"
    file.write_text(dump(config))
    said = command_line("finalists", file, "-o", "finalists.seeds=2", "-o", "launcher.kind=inline")
    assert said.code == 0, said.errors
    assert "(3/3)" in said.output and "mean of 2 seeds" in " ".join(said.output.split())


def test_finalists_that_nobody_asked_for_are_none(command_line: CommandLine) -> None:
    code, _, errors = command_line("finalists", TINY, "-o", "finalists.top=0")
    assert code == 2
    assert "ask for some, -o finalists.top=2" in errors


def test_check_says_what_a_study_will_do_and_trains_nothing(
    finished: Finished, command_line: CommandLine
) -> None:
    runs = f"runs={finished.runs}"
    code, output, _ = command_line("check", TINY, "-o", runs, "-o", "name=other")
    assert code == 0
    assert "64 utterances" in output
    assert "8, 16" in output
    assert "smallest  1×8 h1 k3 + 1×8" in output
    assert "largest   2×16 h2 k7 + 2×16" in output
    assert "11 trials (1 anchor, 3 explore, 3 refine, 4 of finalists)" in output
    assert not (finished.runs / "other").exists()


LONGER = [
    *("--workers", "2", "-o", "explore.trials=1", "-o", "refine.trials=0"),
    *("-o", "training.budget.epochs=16", "-o", "training.evaluations=16"),
    *("-o", "finalists={top: 0, anchors: false}"),
]


@dataclass
class Stopped:
    """A study that was stopped by Ctrl-C, killed outright when it went on, and then ran to its end."""

    code: int
    """The exit code after Ctrl-C."""
    output: str
    seconds: float
    """From Ctrl-C to the end."""
    interrupted: list[optuna.trial.FrozenTrial]
    """The trials after Ctrl-C."""
    killed: list[optuna.trial.FrozenTrial]
    """The trials after it was killed and its workers had ended."""
    left: list[str]
    """Processes that were there after either."""
    finished: list[optuna.trial.FrozenTrial]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, finished: Finished) -> Stopped:
    runs = tmp_path_factory.mktemp("stopped")
    (runs / "cache").symlink_to(finished.runs / "cache")  # the speech and features that are made
    process = _begin(runs, evaluations=2)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    output, errors = process.communicate(timeout=60)
    seconds, code = time.monotonic() - began, process.returncode
    interrupted, left = _trials(runs), _processes_with(str(runs))

    process = _begin(runs, evaluations=5)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while _processes_with(str(runs)) and time.monotonic() < deadline:
        time.sleep(0.2)
    left += _processes_with(str(runs))
    killed = _trials(runs)

    result = _run(runs, *LONGER)
    assert result.returncode == 0, result.stdout + result.stderr
    return Stopped(
        code=code,
        output=output + errors,
        seconds=seconds,
        interrupted=interrupted,
        killed=killed,
        left=left,
        finished=_trials(runs),
    )


def _begin(runs: Path, *, evaluations: int) -> subprocess.Popen[str]:
    """Run the study until a trial has so many evaluations, and is in the middle of its training."""
    process = subprocess.Popen(
        _command(runs, *LONGER), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait_for(
        lambda: any(
            len(trial.intermediate_values) > evaluations and trial.state == TrialState.RUNNING
            for trial in _trials(runs)
        ),
        process,
    )
    return process


def _goes_on_from(before: list[optuna.trial.FrozenTrial], stopped: Stopped) -> None:
    """What was known before still stands."""
    assert len(stopped.finished) == 2
    assert {trial.state for trial in stopped.finished} == {TrialState.COMPLETE}
    begun = [trial for trial in before if trial.intermediate_values]
    assert begun
    for trial in begun:
        after = stopped.finished[trial.number]
        assert trial.intermediate_values.items() <= after.intermediate_values.items()
        known = trial.user_attrs["evaluations"]  # clocks and all: none was made again
        assert after.user_attrs["evaluations"][: len(known)] == known
        assert after.params == trial.params


def test_killed_outright_it_leaves_no_process_and_goes_on(stopped: Stopped) -> None:
    assert not stopped.left
    _goes_on_from(stopped.killed, stopped)


def test_interrupted_by_ctrl_c_it_goes_on(stopped: Stopped) -> None:
    assert stopped.code == 130, stopped.output
    assert stopped.seconds < 20
    assert "Run the same command again to go on" in stopped.output
    assert "Traceback" not in stopped.output
    assert not [trial for trial in stopped.interrupted if trial.state == TrialState.RUNNING]
    assert not stopped.left
    _goes_on_from(stopped.interrupted, stopped)


def _wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(Exception):  # the database is not there yet
            if condition():
                return
        time.sleep(0.2)
    pytest.fail("the study did not get going")


def _processes_with(text: str) -> list[str]:
    """The command lines of other processes that hold a text."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found += [command] if text in command else []
    return found
