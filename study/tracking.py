"""What a study tells MLflow: one experiment per study, one run per trial, the report on top.

Optuna's storage is the truth and MLflow is for people to browse. So nothing here may cost a
trial: when MLflow cannot be reached there is one warning, the trial goes on, what was to be
logged waits in memory for MLflow to come back, and `study.sync` delivers whatever is still
missing, from Optuna's trials and the run folder.

    experiment = prepare(uri, runs / "mlartifacts", "laptop", description=..., tags=..., params=...)
    tracker = Tracker(experiment)                          # one per worker
    run = tracker.start(7, params=config, tags={"phase": "explore"})
    run.log_evaluation({"evaluation": 1, "wer": 0.8, "dev_loss": 2.1})
    run.finish("finished", metrics={"parameters": 61_000}, artifacts=[folder / "config.json"])
    log_report(experiment, Path("report/index.html"), metrics={"best_wer": 0.12})

How an outcome becomes a status (`STATUSES`): MLflow knows three ways to end, so the tags `state`
(Optuna's) and `outcome` (ours) are always there to filter by. A crashed trial is FAILED; a pruned
or stopped one is KILLED; finished, diverged and out_of_memory are COMPLETE in Optuna and FINISHED
here, the last two with the outcome in the run's name.

Everything goes through `MlflowClient` with explicit ids: MLflow's fluent interface keeps a global
stack of runs, and puts a nested run into the active experiment rather than its parent's.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.mlflow_store import (
    Experiment,
    connect,
    log_metrics,
    log_params,
    milliseconds,
    one_line,
    origin,
    prepare,
    redact,
    run_tags,
    tracking_uri,
    unreachable,
    with_source,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "EVALUATION_METRICS",
    "STATUSES",
    "Experiment",
    "Tracker",
    "TrialRun",
    "end_study",
    "hypotheses_page",
    "log_report",
    "prepare",
    "redact",
    "tracking_uri",
    "trial_artifacts",
    "trial_params",
    "trial_tags",
    "trial_totals",
]

_logger = logging.getLogger(__name__)

EVALUATION_METRICS = (
    "wer",
    "ctc_wer",
    "cer",
    "train_loss",
    "dev_loss",
    "learning_rate",
    "train_seconds",
    "evaluate_seconds",
    "epoch",
)
"""The metrics of one evaluation, each a curve over the evaluation's number."""

STATUSES = {
    "finished": ("FINISHED", "COMPLETE"),
    "diverged": ("FINISHED", "COMPLETE"),
    "out_of_memory": ("FINISHED", "COMPLETE"),
    "pruned": ("KILLED", "PRUNED"),
    "stopped": ("KILLED", "FAIL"),
    "crashed": ("FAILED", "FAIL"),
}
"""Outcome of a trial -> (MLflow's status, Optuna's state)."""

_RETRY_SECONDS = 60.0
_WORST_HYPOTHESES = 200


# ── What is logged of a trial, from what Optuna's storage holds of it ───────────────────────


def trial_params(known: Mapping[str, Any]) -> dict[str, object]:
    """Every field of a trial's configuration, and its seed, from its user attributes."""
    return {**known.get("config", {}), **_only(known, ("seed",))}


def trial_tags(known: Mapping[str, Any], study: Mapping[str, Any]) -> dict[str, object]:
    """What a run can be found by, from the user attributes of a trial and of its study."""
    names = ("phase", "anchor", "finalist", "survivor", "worker", "device", "corpus_fingerprint")
    return {**_only(known, names), **_only(study, ("git_commit",))}


def trial_totals(known: Mapping[str, Any]) -> dict[str, object]:
    """The metrics of a whole trial, from its user attributes."""
    names = ("parameters", "flops_per_second", "train_seconds", "evaluate_seconds")
    tested = [name for name in known if name.startswith("test_")]
    return _only(known, [*names, "real_time_factor", "peak_memory_bytes", *tested])


def trial_artifacts(folder: Path) -> list[Path]:
    """The files of a trial's folder that are logged, where they exist."""
    return [folder / name for name in ("config.json", "hypotheses.jsonl", "test.jsonl")]


# ── Trials ───────────────────────────────────────────────────────────────────────────────


class Tracker:
    """Starts the runs of one worker's trials, and knows whether MLflow answers.

    After a failure it leaves MLflow alone for a minute, so that a server that hangs does not hold
    up training; what the trials want to log waits. `Tracker(None)` logs nothing.
    """

    def __init__(
        self, experiment: Experiment | None, *, retry_seconds: float = _RETRY_SECONDS
    ) -> None:
        self.experiment = experiment
        self._retry_seconds = retry_seconds
        self._client: MlflowClient | None = None
        self._failed_at: float | None = None

    def start(
        self,
        number: int,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, object] | None = None,
        started: datetime | None = None,
    ) -> TrialRun:
        """Begin the run of a trial, nested under the study's.

        Args:
            number: the trial's number in Optuna.
            params: every field of its configuration, flat.
            tags: what else is known: phase, anchor, git_commit, corpus, worker, device, …; None
                is left out.
            started: when the trial began, where that is not now.

        """
        run = TrialRun(self, number, run_id=None)
        given, known = dict(params), dict(tags or {})
        label = known.get("finalist") or known.get("anchor")
        kind = "finalist" if known.get("finalist") else "trial"
        name = f"{kind} {number}" + (f" · {label}" if label else "")
        run._submit(lambda client: run._create(client, name, given, known, started))
        return run

    def resumed(
        self, number: int, run_id: str, *, params: Mapping[str, object] | None = None
    ) -> TrialRun:
        """Go on with the run of a trial that was interrupted.

        Evaluations and parameters that the run has already are not logged twice.
        """
        run = TrialRun(self, number, run_id=run_id)
        run._submit(lambda client: run._reopen(client, dict(params or {})))
        return run

    def _attempt(self, operation: Callable[[MlflowClient], None], *, now: bool) -> str:
        """Do it: "done", "later" (MLflow does not answer) or "refused" (and never will do it)."""
        if self.experiment is None:
            return "refused"
        waiting = self._failed_at is not None and (
            time.monotonic() - self._failed_at < self._retry_seconds
        )
        if waiting and not now:
            return "later"
        from mlflow.exceptions import MlflowException

        try:
            if self._client is None:
                self._client = connect(self.experiment.tracking_uri)
            operation(self._client)
        except Exception as error:
            refused = isinstance(error, MlflowException) and error.error_code in _REFUSALS
            if refused or isinstance(error, KeyError | TypeError | ValueError):
                _logger.warning("A trial cannot be logged to MLflow: %r", one_line(error))
                return "refused"
            if self._failed_at is None:
                _logger.warning(unreachable(self.experiment.tracking_uri, error))
            self._failed_at = time.monotonic()
            self._client = None
            return "later"
        if self._failed_at is not None:
            _logger.info("MLflow answers again.")
            self._failed_at = None
        return "done"


_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE"}


class TrialRun:
    """The run of one trial. Its methods never raise; see `Tracker`."""

    def __init__(self, tracker: Tracker, number: int, *, run_id: str | None) -> None:
        self.number = number
        self.run_id = run_id
        """MLflow's run id; None while MLflow has not been reached."""
        self._tracker = tracker
        self._waiting: list[Callable[[MlflowClient], None]] = []
        self._given_up = False
        self._name = f"trial {number}"
        self._last_evaluation = 0

    @property
    def delivered(self) -> bool:
        """Whether MLflow has all that was logged so far."""
        return not self._waiting and not self._given_up

    def log_evaluation(self, evaluation: Mapping[str, object]) -> None:
        """Log one evaluation's metrics; its number is the step. None and infinity are left out."""
        self._submit(lambda client: self._log_evaluation(client, dict(evaluation)))

    def finish(
        self,
        outcome: str,
        *,
        state: str | None = None,
        metrics: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        artifacts: Iterable[Path] = (),
        error: str | None = None,
        ended: datetime | None = None,
    ) -> None:
        """End the run with the status that `STATUSES` gives for the outcome.

        Args:
            outcome: one of `STATUSES`.
            state: Optuna's state, where it is not the outcome's usual one.
            metrics: of the whole trial: parameters, flops_per_second, … Those that share a name
                with an evaluation's curve (train_seconds) are logged as `total_…`.
            tags: more tags.
            artifacts: files of the trial's folder; those that do not exist are left out. A
                `hypotheses.jsonl` is also logged as a page, most errors first.
            error: what went wrong; a tag, and the run's description.
            ended: when the trial ended, where that is not now.

        """
        end = {
            "status": STATUSES[outcome][0],
            "outcome": outcome,
            "state": state or STATUSES[outcome][1],
        }
        more = {**(tags or {}), "error": error}
        files = list(artifacts)
        self._submit(lambda client: self._log_files(client, files))
        # Last of all: a run that has ended is one that is whole.
        self._submit(lambda client: self._end(client, end, metrics or {}, more, ended))
        self._flush(now=True)
        if self._waiting:
            _logger.info("Trial %d is not in MLflow yet; `sync` delivers it.", self.number)

    def _submit(self, operation: Callable[[MlflowClient], None]) -> None:
        self._waiting.append(operation)
        self._flush(now=False)

    def _flush(self, *, now: bool) -> None:
        """Do what waits, in order, until MLflow fails; `now` also when it failed a moment ago."""
        while self._waiting and not self._given_up:
            result = self._tracker._attempt(self._waiting[0], now=now)
            if result == "later":
                return
            self._waiting.pop(0)
            self._given_up = result == "refused"  # one warning for a run that was deleted
        if self._given_up:
            self._waiting.clear()

    def _create(
        self,
        client: MlflowClient,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, object],
        started: datetime | None,
    ) -> None:
        experiment = self._tracker.experiment
        assert experiment is not None
        all_tags = {
            "kind": "trial",
            "trial": self.number,
            "state": "RUNNING",
            "mlflow.parentRunId": experiment.run_id,
            **origin(),
            **with_source(tags),
        }
        self._name = name
        if self.run_id is None:  # else only the parameters failed the last time
            self.run_id = str(
                client.create_run(
                    experiment.experiment_id,
                    start_time=milliseconds(started),
                    tags={tag.key: tag.value for tag in run_tags(all_tags)},
                    run_name=name,
                ).info.run_id
            )
        log_params(client, self.run_id, params)

    def _reopen(self, client: MlflowClient, params: Mapping[str, object]) -> None:
        run = client.get_run(self._id)
        log_params(client, self._id, params, known=run.data.params)
        self._name = run.info.run_name or self._name
        history = client.get_metric_history(self._id, "wer")
        self._last_evaluation = max((metric.step for metric in history), default=0)
        client.update_run(self._id, status="RUNNING")
        client.log_batch(self._id, tags=run_tags({"state": "RUNNING"}))

    def _log_evaluation(self, client: MlflowClient, evaluation: Mapping[str, object]) -> None:
        number = int(str(evaluation["evaluation"]))
        if number <= self._last_evaluation:
            return
        log_metrics(client, self._id, _only(evaluation, EVALUATION_METRICS), step=number)
        self._last_evaluation = number

    def _end(
        self,
        client: MlflowClient,
        end: Mapping[str, str],
        metrics: Mapping[str, object],
        tags: Mapping[str, object],
        ended: datetime | None,
    ) -> None:
        named = {(f"total_{k}" if k in EVALUATION_METRICS else k): v for k, v in metrics.items()}
        note = None
        if tags.get("error"):
            note = f"**{end['outcome']}**\n\n```\n{tags['error']}\n```"
        everything = {
            **with_source(tags),
            "outcome": end["outcome"],
            "state": end["state"],
            "mlflow.note.content": note,
        }
        log_metrics(client, self._id, named, step=self._last_evaluation, tags=everything)
        plain = re.sub(r" \([a-z ]+\)$", "", self._name)
        suffix = "" if end["outcome"] == "finished" else f" ({end['outcome'].replace('_', ' ')})"
        client.update_run(self._id, name=plain + suffix)
        client.set_terminated(self._id, status=end["status"], end_time=milliseconds(ended))

    def _log_files(self, client: MlflowClient, files: Iterable[Path]) -> None:
        for file in files:
            if not file.is_file():
                continue
            client.log_artifact(self._id, str(file))
            if file.name == "hypotheses.jsonl":
                try:
                    page = hypotheses_page(file)
                except (KeyError, TypeError, ValueError) as error:
                    _logger.warning("%s is damaged: %s", file, one_line(error))
                else:
                    client.log_text(self._id, page, "hypotheses.html")

    @property
    def _id(self) -> str:
        assert self.run_id is not None  # operations run in order, and the first one sets it
        return self.run_id


# ── The study as a whole ─────────────────────────────────────────────────────────────────


def log_report(
    experiment: Experiment | None,
    report: Path,
    extra: Iterable[Path] = (),
    *,
    metrics: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    status: str = "FINISHED",
) -> bool:
    """Put the report under the study's run (folder `report`) and end that run.

    Args:
        experiment: from `prepare`; None logs nothing.
        report: one self-contained page. MLflow shows it in a frame that cannot reach other files.
        extra: more files from the page's folder, or from folders in it, where they stay.
        metrics: the answer in numbers, such as best_wer.
        tags: the answer in words, such as best_trial and answer.encoder_layers.
        status: FINISHED, or KILLED for a study that was interrupted.

    Returns:
        Whether it was logged. When it was not there is one warning.

    """
    if experiment is None:
        return False
    try:
        client = connect(experiment.tracking_uri)
        for file in [report, *extra]:
            place = Path("report") / file.parent.relative_to(report.parent)
            client.log_artifact(experiment.run_id, str(file), artifact_path=place.as_posix())
        log_metrics(client, experiment.run_id, metrics or {}, step=0, tags=tags or {})
        client.set_terminated(experiment.run_id, status=status)
    except Exception as error:
        _logger.warning(unreachable(experiment.tracking_uri, error))
        return False
    return True


def end_study(experiment: Experiment | None, status: str = "KILLED") -> None:
    """End the study's run without a report: KILLED for one that was interrupted, or FAILED."""
    if experiment is None:
        return
    try:
        connect(experiment.tracking_uri).set_terminated(experiment.run_id, status=status)
    except Exception as error:
        _logger.warning(unreachable(experiment.tracking_uri, error))


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def hypotheses_page(file: Path) -> str:
    """What a model heard, as a page: the utterances with most errors first, at most 200.

    Transcripts are escaped: they come from outside.
    """
    import html

    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    lines.sort(key=lambda line: (-int(line["errors"]), str(line["id"])))
    keys = ("errors", "words", "id", "reference", "hypothesis", "ctc_hypothesis")
    rows = [
        "<tr>" + "".join(f"<td>{html.escape(_shown(line.get(key)))}</td>" for key in keys)
        for line in lines[:_WORST_HYPOTHESES]
    ]
    heads = "".join(f"<th>{key.replace('_', ' ')}</th>" for key in keys)
    errors = sum(int(line["errors"]) for line in lines)
    words = sum(int(line["words"]) for line in lines)
    return (
        "<!doctype html><meta charset='utf-8'><title>Hypotheses</title><style>"
        "body{font:14px system-ui,sans-serif;margin:1rem}table{border-collapse:collapse}"
        "th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}"
        "td:nth-child(-n+2){text-align:right}</style>"
        f"<p>{errors} word errors in {words} words of {len(lines)} utterances; "
        f"{'all' if len(rows) == len(lines) else f'the worst {len(rows)}'} are shown, "
        f"most errors first.</p><table><tr>{heads}</tr>{''.join(rows)}</table>"
    )


def _only(values: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    return {name: values[name] for name in names if name in values}
