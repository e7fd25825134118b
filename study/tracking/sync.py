"""What MLflow should hold of a study, delivered from Optuna's storage and the run folder.

    experiment = open_experiment(config, study)        # None: MLflow does not answer
    delivered = deliver(config, study, experiment)     # what it lacked

MLflow may be down when a study begins, while it runs, or when it ends; a worker may be killed with
something still to log. Nothing is lost by that: `run` delivers at its end what is missing, and
`python -m study sync` does so at any time, without the corpus. Both may be repeated.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from study.budget import LEFT_OUT
from study.config import StudyConfig
from study.errors import InputError
from study.tracking import parent
from study.tracking.address import tracking_uri
from study.tracking.model import log_model, register
from study.tracking.runs import Tracker, TrialRun
from study.tracking.store import Experiment, connect, prepare, runs_where, unreachable
from study.tracking.trials import trial_artifacts, trial_params, trial_tags, trial_totals
from study.tracking.values import one_line
from study.winner import winner

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Delivered:
    """What MLflow was given that it lacked."""

    trials: list[int] = field(default_factory=list)
    """Numbers of the trials that were written, or written to their end."""
    discarded: int = 0
    """Runs that killed workers had left beside those of their trials."""
    report: bool = False
    """Whether the report was."""
    model: bool = False
    """Whether the winner's network was."""
    missing: int = 0
    """Trials, report and model, as far as they could not be written."""

    def in_words(self) -> str:
        """What was delivered, in a sentence or two."""
        parts = []
        if self.trials:
            numbers = ", ".join(map(str, sorted(self.trials)))
            parts.append(f"trial{'s' * (len(self.trials) > 1)} {numbers}")
        if self.report:
            parts.append("the report")
        if self.model:
            parts.append("the winner as a model")
        said = f"Delivered to MLflow: {' and '.join(parts)}." if parts else ""
        if self.discarded:
            said += f" Removed {self.discarded} runs that killed workers had left."
        if self.missing:
            said += f" {self.missing} could not be delivered: run this again later."
        return said.strip() or "MLflow has all of this study: there was nothing to deliver."


def open_experiment(
    config: StudyConfig, study: optuna.Study, *, warn: bool = True
) -> Experiment | None:
    """MLflow's experiment and parent run of a study, made where they are not there yet.

    None where MLflow cannot be reached, with a warning unless it was given before, and where the
    study is not to be logged.
    """
    if not config.tracking.enabled:
        return None
    known = study.user_attrs
    if "created" not in known:
        study.set_user_attr("created", datetime.now(UTC).isoformat())
    corpus = known["corpus"]
    hours = corpus["splits"]["train"]["hours"]
    experiment = prepare(
        tracking_uri(config.runs, config.tracking.uri),
        (config.runs / "mlartifacts").absolute(),
        config.name,
        description=(
            f"Which shape should a Conformer have for this corpus ({corpus['kind']}, "
            f"{hours:.2f} hours of training speech)? {config.trials} trials search "
            f"{', '.join(config.space) or 'nothing'} for the lowest word error rate on dev."
        ),
        tags={
            "corpus_fingerprint": corpus["fingerprint"],
            "git_commit": known.get("git_commit") or "",
            "hardware": known["hardware"],
        },
        params=config.model_dump(mode="json"),
        identity=study.user_attrs["created"],
        corpus=corpus,
        one_machine=config.storage_url.startswith("sqlite"),  # as the study's own file wants it
        warn=warn,
    )
    if experiment is not None and known.get("mlflow") != experiment.as_attribute():
        study.set_user_attr("mlflow", experiment.as_attribute())
    return experiment


def deliver(config: StudyConfig, study: optuna.Study, experiment: Experiment | None) -> Delivered:
    """Write to MLflow all that it lacks of a study: trials, the report, and how the study ended.

    The parent run of a study that has workers is left running.
    """
    delivered = Delivered()
    if experiment is None:
        return delivered
    trials = study.get_trials(deepcopy=False)
    try:
        client = connect(experiment.tracking_uri)
        _deliver_trials(client, experiment, trials, study.user_attrs, config.folder, delivered)
        if not any(trial.state == TrialState.RUNNING for trial in trials):
            _deliver_end(client, experiment, config.folder / "report", trials, delivered)
        if config.tracking.model and all(trial.state.is_finished() for trial in trials):
            _deliver_model(config, study, experiment, delivered)
    except Exception as error:
        _logger.warning(unreachable(experiment.tracking_uri, error))
        delivered.missing += 1
    return delivered


# ── Trials ───────────────────────────────────────────────────────────────────────────────


def _deliver_trials(
    client: MlflowClient,
    experiment: Experiment,
    trials: Iterable[FrozenTrial],
    study: Mapping[str, Any],
    folder: Path,
    delivered: Delivered,
) -> None:
    logged: dict[int, list[Run]] = {}
    condition = f"tags.`mlflow.parentRunId` = '{experiment.run_id}'"
    for found in runs_where(client, experiment.experiment_id, condition):
        logged.setdefault(int(found.data.tags["trial"]), []).append(found)
    tracker = Tracker(experiment, corpus=study.get("corpus"))
    for trial in trials:
        if not trial.state.is_finished() or trial.user_attrs.get("outcome") == LEFT_OUT:
            continue
        runs = logged.get(trial.number, [])
        run = _chosen(runs, trial)
        for other in runs:
            if other is not run:  # its worker was killed before it could note the run
                client.delete_run(other.info.run_id)
                delivered.discarded += 1
        if run is None or not _is_whole(run, trial):
            written = _write(
                tracker, trial, study, None if run is None else run.info.run_id, folder
            )
            if written.delivered:
                delivered.trials.append(trial.number)
            else:
                delivered.missing += 1


def _chosen(runs: list[Run], trial: FrozenTrial) -> Run | None:
    """The run of a trial among those that bear its number.

    The noted one; where none is (MLflow was away until the trial's end), one that is whole, else
    the newest.
    """
    noted = trial.user_attrs.get("mlflow_run_id")
    return next(
        (run for run in runs if run.info.run_id == noted),
        next((run for run in runs if _is_whole(run, trial)), runs[0] if runs else None),
    )


def _is_whole(run: Run, trial: FrozenTrial) -> bool:
    """Whether a run was written to its end: its status, which is written last, is no other."""
    ended = run.info.status in ("FINISHED", "FAILED", "KILLED")
    return run.data.tags.get("state") == trial.state.name and ended


def _write(
    tracker: Tracker, trial: FrozenTrial, study: Mapping[str, Any], run_id: str | None, folder: Path
) -> TrialRun:
    """Log a finished trial from its user attributes, into the run that it has or a new one."""
    known = trial.user_attrs
    params = trial_params(known) or trial.params
    if run_id is None:
        run = tracker.start(
            trial.number,
            params=params,
            tags=trial_tags(known, study),
            started=trial.datetime_start,
        )
    else:
        run = tracker.resumed(trial.number, run_id, params=params, tags=trial_tags(known, study))
    for evaluation in known.get("evaluations", []):
        run.log_evaluation(evaluation)
    usual = {"COMPLETE": "finished", "PRUNED": "pruned"}.get(trial.state.name, "crashed")
    run.finish(
        known.get("outcome", usual),
        state=trial.state.name,
        metrics=trial_totals(known),
        artifacts=trial_artifacts(folder / "trials" / str(trial.number)),
        error=known.get("error"),
        ended=trial.datetime_complete,
    )
    return run


# ── The study as a whole ─────────────────────────────────────────────────────────────────


def _deliver_end(
    client: MlflowClient,
    experiment: Experiment,
    report: Path,
    trials: Iterable[FrozenTrial],
    delivered: Delivered,
) -> None:
    """The report as it lies on disk, and the status of the parent run."""
    over = all(trial.state.is_finished() for trial in trials)
    status = "FINISHED" if over else "KILLED"
    page = report / "index.html"
    logged = client.get_run(experiment.run_id)
    if page.is_file() and logged.data.tags.get("report_digest") != digest(page):
        delivered.report = log_report(experiment, report, status=status)
        delivered.missing += not delivered.report
    elif logged.info.status != status:
        client.set_terminated(experiment.run_id, status=status)


def _deliver_model(
    config: StudyConfig, study: optuna.Study, experiment: Experiment, delivered: Delivered
) -> None:
    """The winner's network, where there is one, and its name in the registry."""
    try:
        chosen = winner(config, study)
    except InputError as error:
        _logger.info("There is no model to log: %s", error)
        return
    try:
        model_id, delivered.model = log_model(experiment, chosen)
        if config.tracking.register_as is not None:
            register(experiment, model_id, config.tracking.register_as)
    except Exception as error:
        _logger.warning("The winner cannot be logged as an MLflow model: %s", one_line(error))
        delivered.missing += 1


def log_report(experiment: Experiment | None, folder: Path, *, status: str = "FINISHED") -> bool:
    """Log all files of the report that lies in a folder, and its answers as tags."""
    file = folder / "answers.json"
    answers = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    best = answers.get("best")
    page = folder / "index.html"
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file() and path != page)
    return parent.log_report(
        experiment,
        page,
        files,
        metrics={} if best is None else {"best_wer": best["wer"]},
        tags={
            "report_digest": digest(page),
            **({} if best is None else {"best_trial": str(best["number"])}),
            **{f"answer.{q['name']}": q["headline"] for q in answers.get("questions", [])},
        },
        status=status,
    )


def digest(file: Path) -> str:
    """A short hash of a file's content, by which a report that was delivered is known."""
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
