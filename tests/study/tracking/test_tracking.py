from __future__ import annotations

import contextlib
import json
import logging
import math
import multiprocessing
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from study.tracking.address import tracking_uri
from study.tracking.hypotheses import hypotheses_page
from study.tracking.parent import end_study, log_report
from study.tracking.runs import Tracker
from study.tracking.store import Experiment, connect, prepare
from study.tracking.system import SystemMetrics
from study.tracking.trials import EVALUATION_METRICS, STATUSES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CONFIG = {
    "encoder_layers": 2,
    "encoder_dim": 64,
    "attention_heads": 4,
    "conv_kernel_size": 15,
    "decoder_layers": 1,
    "decoder_dim": 64,
    "learning_rate": 0.006,
    "dropout": 0.0,
    "epochs": 4,
}


def ready(runs: Path, name: str = "laptop", **more: str) -> Experiment | None:
    return prepare(
        tracking_uri(runs, None),
        runs / "mlartifacts",
        name,
        description="# What shape?",
        tags={"git_commit": "0123abcd"},
        params={"name": name, "explore": {"trials": 12}},
        identity=more.get("identity"),
    )


def evaluation(number: int, wer: float = 0.5) -> dict[str, object]:
    return {
        "evaluation": number,
        "step": 10 * number,
        "epoch": float(number),
        "train_loss": 3.0 / number,
        "dev_loss": 2.0 / number,
        "wer": wer,
        "ctc_wer": None,
        "cer": wer / 2,
        "learning_rate": 0.006,
        "train_seconds": 1.5 * number,
        "evaluate_seconds": 0.5,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database is made once for the module: that takes seconds."""
    folder = tmp_path_factory.mktemp("runs")
    assert ready(folder) is not None
    return folder


@pytest.fixture
def experiment(runs: Path, request: pytest.FixtureRequest) -> Experiment:
    """A study of its own for each test, in the shared database."""
    experiment = ready(runs, request.node.name)
    assert experiment is not None
    return experiment


def client(experiment: Experiment) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=experiment.tracking_uri)


def trials(experiment: Experiment) -> dict[str, Run]:
    """The experiment's trials by number."""
    found = client(experiment).search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{experiment.run_id}'"
    )
    assert len({run.data.tags["trial"] for run in found}) == len(found)
    return {run.data.tags["trial"]: run for run in found}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# ── SQLite's log ─────────────────────────────────────────────────────────────────────────


def test_a_database_of_one_machine_has_a_log_and_is_not_flushed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def begin(name: str, *, one_machine: bool) -> Experiment | None:
        return prepare(
            tracking_uri(tmp_path, None), tmp_path / "files", name, description="", tags={},
            params={}, one_machine=one_machine,
        )  # fmt: skip

    def journal() -> str:
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            return str(connection.execute("PRAGMA journal_mode").fetchone()[0])

    found = begin("near", one_machine=True)
    assert found is not None
    assert journal() == "wal"
    engine = connect(found.tracking_uri)._tracking_client.store.engine
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").fetchone()[0] == 1
        # Machines could not share it now, and it cannot be changed while it is in use.
        assert begin("far", one_machine=False) is None
        assert "once no program of this machine" in warnings(caplog)[0]
    engine.dispose()
    assert journal() == "wal"
    assert begin("far", one_machine=False) is not None
    assert journal() == "delete"
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").fetchone()[0] == 2
    assert begin("near", one_machine=True) is not None
    assert journal() == "delete"  # the other study's machines may have it open


# ── Where MLflow cannot be reached ───────────────────────────────────────────────────────


def test_a_folder_that_cannot_be_written_gives_one_warning_and_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert ready(tmp_path / "runs") is None
    assert len(warnings(caplog)) == 1
    assert "mlflow.db" in warnings(caplog)[0] and "goes on without" in warnings(caplog)[0]


@pytest.mark.parametrize(
    "uri", ["http://me:geheim@127.0.0.1:9", "postgresql://me:geheim@127.0.0.1:9/mlflow"]
)
def test_a_server_that_is_down_gives_one_warning_soon_and_never_the_password(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = time.monotonic()
    assert prepare(uri, tmp_path, "s", description="", tags={}, params={}) is None
    assert time.monotonic() - begun < 20
    assert len(warnings(caplog)) == 1
    assert "***@127.0.0.1:9" in warnings(caplog)[0]
    assert "geheim" not in caplog.text


def test_a_trial_goes_on_without_mlflow_and_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Experiment(tracking_uri=tracking_uri(tmp_path, None), experiment_id="1", run_id="0" * 32)
    tracker = Tracker(gone)
    for number in range(2):
        run = tracker.start(number, params=CONFIG)
        run.log_evaluation(evaluation(1))
        run.finish("finished", artifacts=[tmp_path / "config.json"])
        assert run.run_id is None
    tracker.resumed(2, "1" * 32).finish("stopped")
    assert not log_report(None, tmp_path / "index.html")
    end_study(None)
    assert len(warnings(caplog)) == 1
    assert not (tmp_path / "mlflow.db").exists()  # a worker never makes a database


def test_without_an_experiment_nothing_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Tracker(None).start(0, params=CONFIG)
    run.log_evaluation(evaluation(1))
    run.finish("crashed", error="boom")
    assert run.run_id is None and not caplog.records


def test_what_waited_is_logged_when_mlflow_is_back(experiment: Experiment, runs: Path) -> None:
    tracker = Tracker(experiment, retry_seconds=0)
    database, away = runs / "mlflow.db", runs / "away.db"
    database.rename(away)
    try:
        run = tracker.start(0, params=CONFIG)
        run.log_evaluation(evaluation(1))
        assert run.run_id is None
    finally:
        away.rename(database)
    run.log_evaluation(evaluation(2))
    assert run.run_id is not None
    history = client(experiment).get_metric_history(run.run_id, "wer")
    assert [metric.step for metric in history] == [1, 2]
    assert trials(experiment)["0"].data.params["encoder_dim"] == "64"


def test_what_was_logged_though_the_answer_was_lost_is_there_once(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    log_batch = MlflowClient.log_batch
    seen = set()

    def answer_lost(self: MlflowClient, *given: Any, **more: Any) -> None:
        log_batch(self, *given, **more)
        what = str([[(m.key, m.step) for m in more.get("metrics", ())], more.get("params")])
        if what not in seen:  # the first time
            seen.add(what)
            raise ConnectionError("the server was killed when it had written this")

    monkeypatch.setattr(MlflowClient, "log_batch", answer_lost)
    run = Tracker(experiment, retry_seconds=0).start(0, params=CONFIG)
    for number in (1, 2, 3):
        run.log_evaluation(evaluation(number))
        time.sleep(0.01)  # the clock goes on until it is tried again
        run._flush(now=True)
    with monkeypatch.context() as gone:
        gone.setattr(MlflowClient, "set_terminated", mock.Mock(side_effect=ConnectionError))
        run.finish("finished", metrics={"parameters": 61_000, "train_seconds": 4.5})
    assert not run.delivered  # its numbers are there, its end is not
    later = Tracker(experiment).resumed(0, str(run.run_id))
    while not later.delivered:
        later._flush(now=True)
    later.finish("finished", metrics={"parameters": 61_000, "train_seconds": 4.5})
    while not later.delivered:
        later._flush(now=True)
    assert trials(experiment)["0"].info.status == "FINISHED"
    for name in ("wer", "train_seconds"):
        history = client(experiment).get_metric_history(str(run.run_id), name)
        assert [metric.step for metric in history] == [1, 2, 3]
    for name in ("parameters", "total_train_seconds"):
        history = client(experiment).get_metric_history(str(run.run_id), name)
        assert [metric.step for metric in history] == [3]


def test_a_run_that_someone_deleted_is_given_up_with_one_warning(
    experiment: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(experiment)
    run = tracker.start(0, params=CONFIG)
    assert run.run_id is not None
    client(experiment).delete_run(run.run_id)
    for number in (1, 2):
        run.log_evaluation(evaluation(number))
    run.finish("finished")
    assert len(warnings(caplog)) == 1
    tracker.start(1, params=CONFIG)  # and the next trial is logged
    assert set(trials(experiment)) == {"1"}


def test_a_damaged_file_costs_no_trial_and_not_the_next_one_either(
    experiment: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hypotheses.jsonl").write_text('{"id": "u1", "errors"')  # the disk was full
    tracker = Tracker(experiment)
    tracker.start(0, params=CONFIG).finish("finished", artifacts=[tmp_path / "hypotheses.jsonl"])
    tracker.start(1, params=CONFIG).finish("finished")
    assert len(warnings(caplog)) == 1
    statuses = {number: run.info.status for number, run in trials(experiment).items()}
    assert statuses == {"0": "FINISHED", "1": "FINISHED"}


# ── Preparing ────────────────────────────────────────────────────────────────────────────


def test_preparing_again_finds_the_same_study(runs: Path, experiment: Experiment) -> None:
    name = client(experiment).get_experiment(experiment.experiment_id).name
    end_study(experiment)
    assert client(experiment).get_run(experiment.run_id).info.status == "KILLED"
    assert ready(runs, name) == experiment
    assert client(experiment).get_run(experiment.run_id).info.status == "RUNNING"
    again = ready(runs, name, identity="begun again")
    assert again is not None
    assert again.experiment_id == experiment.experiment_id and again.run_id != experiment.run_id


def test_a_deleted_experiment_is_restored(runs: Path, experiment: Experiment) -> None:
    name = client(experiment).get_experiment(experiment.experiment_id).name
    client(experiment).delete_experiment(experiment.experiment_id)
    assert ready(runs, name) == experiment
    assert client(experiment).get_experiment(experiment.experiment_id).lifecycle_stage == "active"


def test_a_parent_says_what_it_is_without_a_password(runs: Path) -> None:
    experiment = prepare(
        tracking_uri(runs, None),
        runs / "mlartifacts",
        "described",
        description="On postgresql://me:geheim@host/db",
        tags={"git_commit": "0123abcd"},
        params={"storage": {"url": "postgresql://me:geheim@host/db"}, "big": "x" * 9000},
    )
    assert experiment is not None
    run = client(experiment).get_run(experiment.run_id)
    assert run.info.run_name == "described"
    assert run.data.tags["mlflow.source.git.commit"] == "0123abcd"
    assert run.data.params["storage.url"] == "postgresql://***@host/db"
    assert run.data.params["big"].endswith("(cut off)") and len(run.data.params["big"]) <= 5000
    shown = client(experiment).get_experiment(experiment.experiment_id)
    assert "How to read" in shown.tags["mlflow.note.content"]
    assert "geheim" not in str(run.to_dictionary()) + str(dict(shown.tags))
    assert shown.artifact_location == (runs / "mlartifacts" / "described").as_uri()


def _work(runs: Path, worker: int) -> tuple[Experiment | None, list[str | None]]:
    experiment = ready(runs)
    tracker = Tracker(experiment)
    ids = []
    for number in (2 * worker, 2 * worker + 1):
        run = tracker.start(number, params=CONFIG, tags={"worker": worker})
        for n in range(1, 6):
            run.log_evaluation(evaluation(n))
        run.finish("finished")
        ids.append(run.run_id)
    return experiment, ids


def test_four_processes_begin_on_an_empty_folder_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")  # imports once, and forks no threads
    context.set_forkserver_preload(
        ["mlflow.store.tracking.sqlalchemy_store", "study.tracking.runs"]
    )
    with context.Pool(4) as pool:
        answers = pool.starmap(_work, [(tmp_path, worker) for worker in range(4)])
    experiment = answers[0][0]
    assert experiment is not None
    assert all(found == experiment for found, _ in answers)
    logged = trials(experiment)
    assert set(logged) == {str(number) for number in range(8)}
    for run in logged.values():
        history = client(experiment).get_metric_history(run.info.run_id, "dev_loss")
        assert run.info.status == "FINISHED" and len(history) == 5


# ── Trials ───────────────────────────────────────────────────────────────────────────────


def test_a_trial_is_logged_as_it_was(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    heard = {"id": "u1", "reference": "<b>", "hypothesis": "b", "errors": 1, "words": 1}
    (tmp_path / "hypotheses.jsonl").write_text(json.dumps(heard) + "\n")
    tags = {"phase": "explore", "anchor": "conformer-s", "device": "cpu", "survivor": None}
    run = Tracker(experiment).start(7, params={**CONFIG, "macaron": True}, tags=tags)
    for number, wer in enumerate((0.9, 0.5, 0.25), start=1):
        run.log_evaluation(evaluation(number, wer))
    run.finish(
        "finished",
        metrics={"parameters": 61_000, "train_seconds": 4.5, "peak_memory_bytes": None},
        artifacts=[tmp_path / n for n in ("config.json", "hypotheses.jsonl", "none.txt")],
    )

    logged = trials(experiment)["7"]
    assert logged.info.run_id == run.run_id
    assert logged.info.run_name == "trial 7 · conformer-s"
    assert logged.info.status == "FINISHED"
    assert logged.info.experiment_id == experiment.experiment_id
    expected = {key: str(value) for key, value in CONFIG.items()}
    assert logged.data.params == {**expected, "macaron": "true"}
    assert "survivor" not in logged.data.tags
    wanted = {"phase": "explore", "device": "cpu", "state": "COMPLETE", "outcome": "finished"}
    assert wanted.items() <= logged.data.tags.items()
    metrics = logged.data.metrics
    assert set(metrics) == {*EVALUATION_METRICS, "parameters", "total_train_seconds"} - {"ctc_wer"}
    assert metrics["wer"] == 0.25 and metrics["train_seconds"] == 4.5
    assert metrics["parameters"] == 61_000
    history = client(experiment).get_metric_history(logged.info.run_id, "wer")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.9), (2, 0.5), (3, 0.25)]
    files = {file.path for file in client(experiment).list_artifacts(logged.info.run_id)}
    assert files == {"config.json", "hypotheses.jsonl", "hypotheses.html"}


def test_infinity_is_left_out_and_nan_is_kept(experiment: Experiment) -> None:
    run = Tracker(experiment).start(0, params={})
    run.log_evaluation(
        {"evaluation": 1, "wer": math.nan, "dev_loss": math.inf, "train_loss": -math.inf}
    )
    run.finish("diverged", error="the loss is not finite")
    metrics = trials(experiment)["0"].data.metrics
    assert set(metrics) == {"wer"} and math.isnan(metrics["wer"])


@pytest.mark.parametrize("outcome", STATUSES)
def test_the_status_matches_the_outcome(
    outcome: str, experiment: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    Tracker(experiment).start(3, params=CONFIG).finish(outcome, error="why\nwhere")
    run = trials(experiment)["3"]
    expected = {"crashed": "FAILED", "pruned": "KILLED", "stopped": "KILLED",
                "paused": "SCHEDULED"}  # fmt: skip
    assert run.info.status == expected.get(outcome, "FINISHED")
    assert run.data.tags["outcome"] == outcome
    assert run.data.tags["state"] == STATUSES[outcome][1]
    assert run.data.tags["error"] == "why\nwhere"
    shown = "trial 3" if outcome == "finished" else f"trial 3 ({outcome.replace('_', ' ')})"
    assert run.info.run_name == shown
    assert not warnings(caplog)


def test_a_resumed_trial_goes_on_without_repeating_itself(experiment: Experiment) -> None:
    first = Tracker(experiment).start(0, params=CONFIG)
    for number in (1, 2):
        first.log_evaluation(evaluation(number))
    first.finish("stopped")
    assert first.run_id is not None
    second = Tracker(experiment).resumed(0, first.run_id)
    assert trials(experiment)["0"].info.status == "RUNNING"
    for number in (2, 3):
        second.log_evaluation(evaluation(number))
    second.finish("finished")
    run = trials(experiment)["0"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "trial 0")
    history = client(experiment).get_metric_history(first.run_id, "wer")
    assert [metric.step for metric in history] == [1, 2, 3]


CORPUS = {
    "kind": "manifest",
    "fingerprint": "0123456789abcdef0123456789abcdef",
    "splits": {split: {"utterances": 4, "hours": 0.1} for split in ("train", "dev", "test")},
}


def test_the_speech_is_a_dataset_of_the_study_and_of_every_trial(runs: Path) -> None:
    for _ in range(2):  # a study that goes on
        experiment = prepare(
            tracking_uri(runs, None),
            runs / "mlartifacts",
            "with-speech",
            description="",
            tags={},
            params={},
            corpus=CORPUS,
        )
    assert experiment is not None
    Tracker(experiment, corpus=CORPUS).start(0, params={})

    def inputs(run: Run) -> dict[str, tuple[str, str]]:
        assert run.inputs is not None
        return {
            given.tags[0].value: (given.dataset.name, given.dataset.digest)
            for given in run.inputs.dataset_inputs
        }

    digest = CORPUS["fingerprint"]
    assert inputs(trials(experiment)["0"]) == {
        "training": ("manifest train", digest),
        "validation": ("manifest dev", digest),
    }
    parent = client(experiment).get_run(experiment.run_id)
    assert inputs(parent)["testing"] == ("manifest test", digest)
    assert parent.inputs is not None and len(parent.inputs.dataset_inputs) == 3
    profile = parent.inputs.dataset_inputs[0].dataset.profile
    assert profile is not None and json.loads(profile) == {"utterances": 4, "hours": 0.1}
    found = client(experiment).search_runs(
        [experiment.experiment_id], f"dataset.digest = '{digest}' and tags.kind = 'trial'"
    )
    assert [run.data.tags["trial"] for run in found] == ["0"]


class Machine(SystemMetrics):
    """One that is busier at each look."""

    def __init__(self) -> None:
        self.looks = 0.0

    def since_last_time(self) -> dict[str, float]:
        self.looks += 1
        return {"system/cpu_utilization_percentage": self.looks}


def test_what_the_machine_does_goes_with_each_evaluation(experiment: Experiment) -> None:
    run = Tracker(experiment, machine=Machine()).start(0, params={})
    for number in (1, 2):
        run.log_evaluation(evaluation(number))
    assert run.run_id is not None
    history = client(experiment).get_metric_history(run.run_id, "system/cpu_utilization_percentage")
    assert [(m.step, m.value) for m in history] == [(1, 2), (2, 3)]  # the first look is thrown away


# ── The report ───────────────────────────────────────────────────────────────────────────


def test_the_report_ends_the_study(experiment: Experiment, tmp_path: Path) -> None:
    page, table = tmp_path / "index.html", tmp_path / "trials.csv"
    page.write_text("<h1>An answer</h1>")
    table.write_text("a,b\n")
    tags = {"best_trial": 7}
    for wer in (0.3, 0.2, 0.2):  # a report is often written again
        assert log_report(experiment, page, [table], metrics={"best_wer": wer}, tags=tags)
    run = client(experiment).get_run(experiment.run_id)
    assert run.info.status == "FINISHED"
    history = client(experiment).get_metric_history(experiment.run_id, "best_wer")
    assert [metric.value for metric in history] == [0.3, 0.2]
    assert run.data.metrics == {"best_wer": 0.2} and run.data.tags["best_trial"] == "7"
    files = client(experiment).list_artifacts(experiment.run_id, "report")
    assert {file.path for file in files} == {"report/index.html", "report/trials.csv"}


def test_the_page_of_hypotheses_escapes_what_was_said_and_begins_with_the_worst(
    tmp_path: Path,
) -> None:
    file = tmp_path / "hypotheses.jsonl"
    lines = [
        {"id": f"u{n}", "reference": "<script>x", "hypothesis": "&", "errors": n, "words": 9}
        for n in range(250)
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    page = hypotheses_page(file)
    assert "<script>" not in page and "&lt;script&gt;x" in page
    assert page.count("<tr>") == 201 and page.index("u249") < page.index("u248")
    assert "31125 word errors in 2250 words of 250 utterances" in page
