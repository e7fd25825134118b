"""What MLflow lacks of a study is delivered, once, and whole."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState, create_trial

from study.config import StudyConfig
from study.config_file import load
from study.storage import create_study
from study.tracking.runs import Tracker
from study.tracking.store import Experiment
from study.tracking.sync import Delivered, deliver, open_experiment

TINY = Path(__file__).parent.parent.parent / "tiny_study.yaml"
ATTRIBUTES = {
    "corpus": {"kind": "manifest", "fingerprint": "abc", "splits": {"train": {"hours": 1.5}}},
    "hardware": "a machine",
    "git_commit": "0123abcd",
}
SHAPE = {"encoder_layers": 2, "encoder_dim": 64, "epochs": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def config(runs: Path, request: pytest.FixtureRequest) -> StudyConfig:
    """A study of its own for each test, in a database that is made once."""
    nothing = ["explore.trials=0", "refine.trials=1", "anchors=[]"]
    return load(TINY, [f"runs={runs}", f"name={request.node.name}", *nothing])


@pytest.fixture
def study(config: StudyConfig) -> optuna.Study:
    """Trial 0 waits."""
    return create_study(config, ATTRIBUTES)


def _evaluation(number: int, wer: float) -> dict[str, object]:
    return {"evaluation": number, "wer": wer, "dev_loss": 2.0 / number, "epoch": float(number)}


def _add(study: optuna.Study, state: TrialState, outcome: str, **more: object) -> int:
    """A trial that ended; returns its number."""
    attributes = {
        "config": SHAPE,
        "seed": 5,
        "outcome": outcome,
        "evaluations": [_evaluation(1, 0.5), _evaluation(2, 0.4)],
        "phase": "refine",
        "corpus_fingerprint": "abc",
        "parameters": 61_000,
        "train_seconds": 4.5,
        "test_wer": 0.3,
        "test_words": 90,
        **more,
    }
    value = 0.4 if state == TrialState.COMPLETE else None
    study.add_trial(create_trial(state=state, value=value, user_attrs=attributes))
    return len(study.trials) - 1


def _client(experiment: Experiment) -> MlflowClient:
    return MlflowClient(tracking_uri=experiment.tracking_uri)


def _logged(experiment: Experiment) -> dict[str, Run]:
    found = _client(experiment).search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{experiment.run_id}'"
    )
    assert len({run.data.tags["trial"] for run in found}) == len(found)
    return {run.data.tags["trial"]: run for run in found}


def test_what_is_missing_is_delivered_once(config: StudyConfig, study: optuna.Study) -> None:
    experiment = open_experiment(config, study)
    assert experiment is not None
    study.tell(study.ask(), 0.4)
    for state, outcome in [
        (TrialState.PRUNED, "pruned"),
        (TrialState.FAIL, "crashed"),
        (TrialState.COMPLETE, "finished"),
    ]:
        _add(study, state, outcome)
    tracker = Tracker(experiment)
    tracker.start(0, params=SHAPE).finish("finished")
    tracker.start(2, params={}).log_evaluation(_evaluation(1, 0.5))  # its worker was killed
    folder = config.folder / "trials" / "3"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")

    assert deliver(config, study, experiment).trials == [1, 2, 3]
    assert deliver(config, study, experiment) == Delivered()
    found = _logged(experiment)
    statuses = {number: run.info.status for number, run in found.items()}
    assert statuses == {"0": "FINISHED", "1": "KILLED", "2": "FAILED", "3": "FINISHED"}
    for number in "123":
        run = found[number]
        history = _client(experiment).get_metric_history(run.info.run_id, "wer")
        assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.4)]
        assert run.data.params == {**{k: str(v) for k, v in SHAPE.items()}, "seed": "5"}
        totals = {"parameters": 61_000, "total_train_seconds": 4.5, "test_wer": 0.3}
        assert totals.items() <= run.data.metrics.items()
        assert run.data.metrics["test_words"] == 90
    tags = {"phase": "refine", "corpus_fingerprint": "abc", "git_commit": "0123abcd"}
    assert tags.items() <= found["1"].data.tags.items()
    files = _client(experiment).list_artifacts(found["3"].info.run_id)
    assert [file.path for file in files] == ["config.json"]
    assert _client(experiment).get_run(experiment.run_id).info.status == "FINISHED"


def test_a_run_that_a_killed_worker_left_is_removed(
    config: StudyConfig, study: optuna.Study
) -> None:
    experiment = open_experiment(config, study)
    left, noted = (Tracker(experiment).start(1, params=SHAPE) for _ in range(2))
    number = _add(study, TrialState.COMPLETE, "finished", mlflow_run_id=noted.run_id)
    assert number == 1
    delivered = deliver(config, study, experiment)
    assert (delivered.trials, delivered.discarded) == ([1], 1)
    assert experiment is not None
    assert _logged(experiment)["1"].info.run_id == noted.run_id
    assert left.run_id != noted.run_id


def test_a_study_with_workers_is_left_running(config: StudyConfig, study: optuna.Study) -> None:
    experiment = open_experiment(config, study)
    assert experiment is not None
    study.ask()
    deliver(config, study, experiment)
    assert _client(experiment).get_run(experiment.run_id).info.status == "RUNNING"
    study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.WAITING)
    deliver(config, study, experiment)  # nobody goes on with it
    assert _client(experiment).get_run(experiment.run_id).info.status == "KILLED"


def test_the_report_is_delivered_when_it_changed(config: StudyConfig, study: optuna.Study) -> None:
    experiment = open_experiment(config, study)
    assert experiment is not None
    report = config.folder / "report"
    report.mkdir()
    for name in ("index.html", "report.md", "trials.csv"):
        (report / name).write_text("one")
    (report / "figures").mkdir()
    (report / "figures" / "cost.svg").write_text("one")
    question = {"name": "encoder_layers", "headline": "3 (decided)"}
    answers = {"best": {"number": 3, "wer": 0.2}, "questions": [question]}
    (report / "answers.json").write_text(json.dumps(answers))
    assert deliver(config, study, experiment).report
    assert not deliver(config, study, experiment).report
    (report / "index.html").write_text("two")
    assert deliver(config, study, experiment).report
    run = _client(experiment).get_run(experiment.run_id)
    assert run.data.metrics["best_wer"] == 0.2
    assert run.data.tags["best_trial"] == "3"
    assert run.data.tags["answer.encoder_layers"] == "3 (decided)"
    files = _client(experiment).list_artifacts(experiment.run_id, "report")
    assert {file.path for file in files} == {f"report/{f.name}" for f in report.iterdir()}
    figures = _client(experiment).list_artifacts(experiment.run_id, "report/figures")
    assert [file.path for file in figures] == ["report/figures/cost.svg"]


def test_what_could_not_be_delivered_is_counted(
    config: StudyConfig, study: optuna.Study, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Experiment(tracking_uri="http://127.0.0.1:9", experiment_id="1", run_id="0" * 32)
    _add(study, TrialState.COMPLETE, "finished")
    delivered = deliver(config, study, gone)
    assert delivered == Delivered(missing=1)
    assert "run this again later" in delivered.in_words()
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
    assert deliver(config, study, None) == Delivered()


def test_a_study_that_is_not_logged_has_no_experiment(
    config: StudyConfig, study: optuna.Study
) -> None:
    tracking = config.tracking.model_copy(update={"enabled": False})
    assert open_experiment(config.model_copy(update={"tracking": tracking}), study) is None
