"""The runs of trials: begun, filled and ended while the trials train.

Nothing here raises, and nothing here holds up a trial: see `Tracker`.
"""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.passwords import expand
from study.tracking.datasets import datasets
from study.tracking.hypotheses import hypotheses_page
from study.tracking.store import Experiment, connect, unreachable
from study.tracking.system import SystemMetrics
from study.tracking.trials import EVALUATION_METRICS, STATUSES, only
from study.tracking.values import (
    log_metrics,
    log_params,
    milliseconds,
    one_line,
    origin,
    run_tags,
    unlike,
    with_source,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_logger = logging.getLogger("study.tracking")

_RETRY_SECONDS = 60.0


class Tracker:
    """Starts the runs of one worker's trials, and knows whether MLflow answers.

    After a failure it leaves MLflow alone for a minute, so that a server that hangs does not hold
    up training; what the trials want to log waits. `Tracker(None)` logs nothing.

    Args:
        experiment: from `prepare`.
        corpus: the study's attribute of that name: the speech that every trial is trained on.
        machine: what it does meanwhile, to be logged with each evaluation.
        retry_seconds: for how long MLflow is left alone after a failure.

    """

    def __init__(
        self,
        experiment: Experiment | None,
        *,
        corpus: Mapping[str, Any] | None = None,
        machine: SystemMetrics | None = None,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self.experiment = experiment
        self.corpus = corpus
        self.machine = machine
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
        if self.machine is not None:
            self.machine.since_last_time()  # what it did before is not this trial's
        given, known = dict(params), dict(tags or {})
        label = known.get("finalist") or known.get("anchor")
        kind = "finalist" if known.get("finalist") else "trial"
        name = f"{kind} {number}" + (f" · {label}" if label else "")
        began = started or datetime.now()
        run._submit(lambda client: run._create(client, name, given, known, began))
        return run

    def resumed(
        self,
        number: int,
        run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> TrialRun:
        """Go on with the run of a trial that was interrupted, by a worker that may be another.

        What the run has already is not logged twice; `tags` are as for `start`.
        """
        run = TrialRun(self, number, run_id=run_id)
        given, known = dict(params or {}), dict(tags or {})
        run._submit(lambda client: run._reopen(client, given, known))
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
        self.noted = run_id
        """The id that the trial's storage knows."""
        self._tracker = tracker
        self._waiting: list[Callable[[MlflowClient], None]] = []
        self._given_up = False
        self._name = f"trial {number}"
        self._last_evaluation = 0
        self._files = ""
        """Where MLflow keeps the run's files."""
        self._known: Mapping[str, float] = {}
        """What the run held when it was opened again, as of a worker that was killed at the end."""

    @property
    def delivered(self) -> bool:
        """Whether MLflow has all that was logged so far."""
        return not self._waiting and not self._given_up

    def log_evaluation(self, evaluation: Mapping[str, object]) -> None:
        """Log one evaluation's metrics; its number is the step. None and infinity are left out."""
        machine = self._tracker.machine
        metrics = {**evaluation, **(machine.since_last_time() if machine is not None else {})}
        now = datetime.now()
        self._submit(lambda client: self._log_evaluation(client, metrics, now))

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
        files, end_time = list(artifacts), ended or datetime.now()
        self._submit(lambda client: self._log_files(client, files))
        # Last of all: a run that has ended is one that is whole.
        self._submit(lambda client: self._end(client, end, metrics or {}, more, end_time))
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
        started: datetime,
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
            created = client.create_run(
                experiment.experiment_id,
                start_time=milliseconds(started),
                tags={tag.key: tag.value for tag in run_tags(all_tags)},
                run_name=name,
            ).info
            self.run_id, self._files = str(created.run_id), str(created.artifact_uri)
        log_params(client, self.run_id, params)
        self._log_inputs(client)

    def _log_inputs(self, client: MlflowClient) -> None:
        if self._tracker.corpus is not None:  # again changes nothing
            client.log_inputs(self._id, datasets(self._tracker.corpus, "train", "dev"))

    def _reopen(
        self, client: MlflowClient, params: Mapping[str, object], tags: Mapping[str, object]
    ) -> None:
        run = client.get_run(self._id)
        log_params(client, self._id, params, known=run.data.params)
        self._log_inputs(client)
        self._known, self._files = run.data.metrics, str(run.info.artifact_uri)
        self._name = run.info.run_name or self._name
        history = client.get_metric_history(self._id, "wer")
        self._last_evaluation = max((metric.step for metric in history), default=0)
        client.update_run(self._id, status="RUNNING")
        client.log_batch(self._id, tags=run_tags({"state": "RUNNING", **with_source(tags)}))

    def _log_evaluation(
        self, client: MlflowClient, evaluation: Mapping[str, object], at: datetime
    ) -> None:
        number = int(str(evaluation["evaluation"]))
        if number <= self._last_evaluation:
            return
        names = [*EVALUATION_METRICS, *(name for name in evaluation if name.startswith("system/"))]
        log_metrics(client, self._id, only(evaluation, names), step=number, at=at)
        self._last_evaluation = number

    def _end(
        self,
        client: MlflowClient,
        end: Mapping[str, str],
        metrics: Mapping[str, object],
        tags: Mapping[str, object],
        ended: datetime,
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
        log_metrics(
            client,
            self._id,
            unlike(named, self._known),
            step=self._last_evaluation,
            at=ended,
            tags=everything,
        )
        plain = re.sub(r" \([a-z ]+\)$", "", self._name)
        suffix = "" if end["outcome"] == "finished" else f" ({end['outcome'].replace('_', ' ')})"
        if plain + suffix != self._name:  # which is a matter of several queries
            client.update_run(self._id, name=plain + suffix)
            self._name = plain + suffix
        client.set_terminated(self._id, status=end["status"], end_time=milliseconds(ended))

    def _log_files(self, client: MlflowClient, files: Iterable[Path]) -> None:
        del client  # it would ask for the run again, to find out where its files are
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        experiment = self._tracker.experiment
        assert experiment is not None
        address = expand(experiment.tracking_uri)
        store: Any = get_artifact_repository(self._files, tracking_uri=address)
        for file in files:
            if not file.is_file():
                continue
            store.log_artifact(str(file))
            if file.name == "hypotheses.jsonl":
                try:
                    page = hypotheses_page(file)
                except (KeyError, TypeError, ValueError) as error:
                    _logger.warning("%s is damaged: %s", file, one_line(error))
                else:
                    with tempfile.TemporaryDirectory() as folder:
                        place = Path(folder) / "hypotheses.html"
                        place.write_text(page, encoding="utf-8")
                        store.log_artifact(str(place))

    @property
    def _id(self) -> str:
        assert self.run_id is not None  # operations run in order, and the first one sets it
        return self.run_id
