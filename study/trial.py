"""One trial: from a claimed number to a recorded outcome.

`OUTCOMES` is the one place that maps how a trial ended to a state in Optuna:

    finished        trained to the end of its budget
    paused          not among the best at a rung: waits under its number, and may be promoted
    pruned          paused, and never promoted
    diverged        the loss was no longer finite    } a value and a violated constraint, since a
    out_of_memory   the network does not fit         } sampler does not learn from failures
    left_out        not begun, since the hours of its phase were spent
    crashed         an error of ours, or of the machine
    stopped         interrupted from outside: waits again under its number

A trial that is *lost* has gone to another worker, because this one gave no sign of life for too
long; nothing is recorded then, since it is the other's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from study import finalists
from study.budget import LEFT_OUT, can_be_left_out, refine_is_spent
from study.config import StudyConfig
from study.connection import record
from study.data.dataset import Dataset
from study.errors import Unavailable
from study.files import Unwritable, clear_unfinished, write_atomically
from study.gpu_sharing import SharedGpu
from study.leases import Lease, hand_back, take
from study.patience import without_waiting
from study.pruner import is_paused, is_rung, queue, refine_hours
from study.sampler import CONSTRAINT, derived_seed
from study.space import Number
from study.storage import FINALIST
from study.tracking.runs import Tracker, TrialRun
from study.tracking.trials import trial_artifacts, trial_params, trial_tags, trial_totals
from study.training.loop import Interrupted, cost_on, train
from study.training.memory import release, shortage
from study.training.result import Evaluation, deciding
from study.training.step import Diverged

log = logging.getLogger(__name__)

OUTCOMES = {
    "finished": TrialState.COMPLETE,
    "paused": TrialState.WAITING,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.COMPLETE,
    "out_of_memory": TrialState.COMPLETE,
    LEFT_OUT: TrialState.FAIL,
    "crashed": TrialState.FAIL,
    "stopped": TrialState.WAITING,
}
INFEASIBLE = ("diverged", "out_of_memory")
"""Outcomes with a violated constraint."""
LOST = "lost"
WORST = 1.0
"""The word error rate of a trial that could not be trained: that of writing nothing."""


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """What all trials of a worker share."""

    config: StudyConfig
    dataset: Dataset
    study: optuna.Study
    tracker: Tracker
    device: torch.device
    code: str
    """The fingerprint of the code."""
    interrupted: Callable[[], bool]
    """Whether somebody asked this worker to stop."""
    gpu: SharedGpu = field(default_factory=SharedGpu)
    """Where its trials train, perhaps beside those of other workers."""


def run_trial(laboratory: Laboratory, trial: optuna.Trial) -> str:
    """Train a claimed trial and record its outcome, which is returned.

    Raises `Unwritable`, with the trial handed back, where its files cannot be written: the next one
    would fare no better. To be called within `laboratory.gpu.shared`.
    """
    try:
        return _run(laboratory, trial, Lease(laboratory.study, trial._trial_id))
    except UpdateFinishedTrialError:
        return LOST  # the other worker has finished it by now


def _run(laboratory: Laboratory, trial: optuna.Trial, lease: Lease) -> str:
    error: str | None = None
    unwritable: Unwritable | None = None
    run: TrialRun | None = None
    try:
        with lease:
            run, evaluations = _begin(laboratory, trial, lease)
            outcome = _follow(laboratory.study, trial, run, evaluations)
            if outcome == "finished" and trial.user_attrs.get("phase") == FINALIST:
                _score(laboratory, trial, lease)
    except (Unavailable, UpdateFinishedTrialError):
        raise  # whoever misses our signs of life hands the trial back
    except Interrupted:
        outcome = "stopped"
    except Unwritable as fault:
        outcome, unwritable = "stopped", fault
    except Diverged as divergence:
        outcome, error = "diverged", str(divergence)
    except Exception as crash:
        if (needed := shortage(crash)) is not None:
            outcome, error = "out_of_memory", needed
        else:
            outcome, error = "crashed", f"{crash!r}\n{traceback.format_exc(limit=-6)}"
            log.exception("Trial %d crashed", trial.number)
    if outcome != "finished" and not lease.holds():
        return LOST  # this worker was thought to be gone; what became of it is another's to say
    _conclude(laboratory, trial, run, outcome, error)
    if unwritable is not None:
        raise unwritable
    return outcome


def settle(laboratory: Laboratory) -> None:
    """Record what becomes of the trials that wait and that nobody will claim any more.

    Those that are paused were pruned, once nothing can promote them: when no trial of the search
    runs and none waits that could be claimed. The others were left out when refine had its hours.
    """
    study = laboratory.study
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.user_attrs.get("phase") != FINALIST
    ]
    waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
    if not waiting or queue(study) or any(t.state == TrialState.RUNNING for t in trials):
        return
    spent = refine_is_spent(trials, refine_hours(study))
    for trial in waiting:
        if not is_paused(trial) and not (spent and can_be_left_out(trial)):
            continue  # handed back this moment: somebody will claim it
        claimed = take(study, trial)
        if claimed is not None:
            noted = trial.user_attrs.get("mlflow_run_id")
            run = _resumed(laboratory, claimed, noted) if noted else None
            outcome = "pruned" if is_paused(trial) else LEFT_OUT
            _conclude(laboratory, claimed, run, outcome, None)


def parameters(config: StudyConfig, trial: optuna.Trial) -> dict[str, Number]:
    """The values in which a trial differs from the baseline: its anchor's, and what is searched."""
    shape = config.anchor_shape(trial.user_attrs.get("anchor"))
    return {**shape, **{name: d.suggest(trial) for name, d in config.space.items()}}


def _begin(laboratory: Laboratory, trial: optuna.Trial, lease: Lease) -> tuple[TrialRun, Any]:
    """Record what a trial is, and start its training."""
    config, dataset = laboratory.config, laboratory.dataset
    network, training = config.with_parameters(parameters(config, trial))
    seed = derived_seed(config.seed, trial.number)
    values = {**asdict(network), **asdict(training)}
    identity = hashlib.blake2b(
        json.dumps([values, seed, dataset.fingerprint, laboratory.code], sort_keys=True).encode(),
        digest_size=16,
    ).hexdigest()
    log.debug("Trial %d: seed %d, %s", trial.number, seed, json.dumps(values))
    size = cost_on(network, dataset)
    attributes: dict[str, Any] = {
        "config": values,
        "seed": seed,
        "identity": identity,
        "device": _device_name(laboratory.device),
        "parameters": size.parameters,
        "flops_per_second": size.flops_per_second,
        "corpus_fingerprint": dataset.fingerprint,
        "git_commit": laboratory.study.user_attrs.get("git_commit"),  # the study's may change
    }
    if trial.user_attrs.get("identity") not in (None, identity):
        attributes["mlflow_run_id"] = None  # it starts over, and so do its curves
    _set(trial, attributes)
    folder, interrupted = _folder(laboratory, trial), _interrupted(laboratory, lease)
    clear_unfinished(folder)
    write_atomically(folder / "config.json", json.dumps({**values, "seed": seed}, indent=2))
    if laboratory.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return _start_run(laboratory, trial), train(
        network,
        training,
        dataset,
        seed=seed,
        device=laboratory.device,
        folder=folder,
        identity=identity,
        interrupted=interrupted,
        remark=lambda sentence: _remark(trial, sentence),
        chosen=lambda facts: _set(trial, facts),
        alone=lambda: _alone(laboratory, trial, interrupted),
    )


def _interrupted(laboratory: Laboratory, lease: Lease) -> Callable[[], bool]:
    """Whether a trial is to stop: it has gone to another worker, or this one was asked to."""
    return lambda: lease.lost or laboratory.interrupted()


def _alone(laboratory: Laboratory, trial: optuna.Trial, interrupted: Callable[[], bool]) -> bool:
    """Wait until a trial has the GPU to itself; whether there was another."""
    sentence = "out of memory beside other trials of its GPU: it waits until they have ended"
    return laboratory.gpu.alone(interrupted, waiting=lambda: _remark(trial, sentence))


def _set(
    trial: optuna.Trial, attributes: Mapping[str, Any], values: Mapping[int, float] | None = None
) -> None:
    """Set user attributes and intermediate values of a trial, as one change where that can be.

    Not `trial.report`, which keeps the first value: a trial may have had to start over.
    """
    record(trial.storage, trial._trial_id, attributes, values)
    trial._cached_frozen_trial.user_attrs.update(attributes)  # as `trial.set_user_attr` does


def _start_run(laboratory: Laboratory, trial: optuna.Trial) -> TrialRun:
    """The MLflow run of a trial: a new one, or that of its part before an interruption."""
    known = trial.user_attrs.get("mlflow_run_id")
    if known:
        return _resumed(laboratory, trial, known)
    attributes = trial.user_attrs
    run = laboratory.tracker.start(
        trial.number,
        params=trial_params(attributes),
        tags=trial_tags(attributes, {}),  # what it has of the study's, `_begin` gave it
    )
    _note(run, trial)
    return run


def _resumed(laboratory: Laboratory, trial: optuna.Trial, run_id: str) -> TrialRun:
    tags = trial_tags(trial.user_attrs, laboratory.study.user_attrs)
    return laboratory.tracker.resumed(trial.number, run_id, tags=tags)


def _note(run: TrialRun, trial: optuna.Trial) -> None:
    """Keep the id of a trial's run, once MLflow has given one, for whoever goes on with it."""
    if run.run_id and run.noted != run.run_id:
        trial.set_user_attr("mlflow_run_id", run.run_id)
        run.noted = run.run_id


def _remark(trial: optuna.Trial, sentence: str) -> None:
    """Keep what people should know of how a trial went on; `run` shows it."""
    log.warning("Trial %d: %s", trial.number, sentence)
    trial.set_user_attr("remarks", [*trial.user_attrs.get("remarks", []), sentence])


def _follow(study: optuna.Study, trial: optuna.Trial, run: TrialRun, evaluations: Any) -> str:
    """Report each evaluation as it comes, and pause at a rung where the pruner says so.

    Training does not wait for a storage that is away: what it missed it is told later, and a rung
    at which the pruner could not be asked is passed.
    """
    seen: list[dict[str, Any]] = []
    reported = dict(trial._cached_frozen_trial.intermediate_values)
    recorded = trial.user_attrs.get("evaluations", [])
    for evaluation in evaluations:
        assert isinstance(evaluation, Evaluation)
        seen.append(asdict(evaluation))
        run.log_evaluation(seen[-1])
        if reported.get(evaluation.evaluation) != evaluation.wer:
            log.info("Trial %d: %s", trial.number, _in_words(evaluation))
        try:
            with without_waiting():
                _note(run, trial)
                recorded = _report(trial, seen, recorded, reported)
                if is_rung(study, len(seen)) and trial.should_prune():
                    evaluations.close()
                    return "paused"
        except Unavailable as error:
            log.warning("%s Training goes on meanwhile.", error)
    _report(trial, seen, recorded, reported)
    return "finished"


def _report(
    trial: optuna.Trial,
    seen: list[dict[str, Any]],
    recorded: list[dict[str, Any]],
    reported: dict[int, float],
) -> list[dict[str, Any]]:
    """Tell the storage what it does not know of the evaluations; returns what it knows then."""
    new = recorded[: len(seen)] != seen  # an interrupted trial brings its past along
    rates = {e["evaluation"]: e["wer"] for e in seen if reported.get(e["evaluation"]) != e["wer"]}
    if new or rates:
        _set(trial, {"evaluations": list(seen)} if new else {}, rates)
        reported.update(rates)
    return list(seen) if new else recorded


def _in_words(evaluation: Evaluation) -> str:
    """An evaluation as a line of a log."""
    return (
        f"evaluation {evaluation.evaluation}, step {evaluation.step}, "
        f"epoch {evaluation.epoch:.1f}: loss {evaluation.train_loss:.3f}, "
        f"dev loss {evaluation.dev_loss:.3f}, WER {evaluation.wer:.1%} "
        f"after {evaluation.train_seconds:.0f} s of training"
    )


def _score(laboratory: Laboratory, trial: optuna.Trial, lease: Lease) -> None:
    """Decode the test split with a finalist."""
    interrupted = _interrupted(laboratory, lease)

    def stop_if_asked() -> None:
        if interrupted():
            raise Interrupted

    def found() -> dict[str, Any]:
        network, _ = laboratory.config.with_parameters(parameters(laboratory.config, trial))
        return finalists.score(
            network,
            laboratory.config,
            laboratory.dataset,
            laboratory.device,
            _folder(laboratory, trial),
            before=stop_if_asked,
        )

    try:
        _set(trial, found())
    except (RuntimeError, MemoryError) as error:
        if shortage(error) is None:
            raise
        traceback.clear_frames(error.__traceback__)  # which hold tensors, while it waits
        release(laboratory.device)
        if not _alone(laboratory, trial, interrupted):
            raise
        _set(trial, found())


def _conclude(
    laboratory: Laboratory,
    trial: optuna.Trial,
    run: TrialRun | None,
    outcome: str,
    error: str | None,
) -> None:
    """Record an outcome in Optuna, then in MLflow."""
    state = OUTCOMES[outcome]
    evaluations = trial.user_attrs.get("evaluations", [])
    facts: dict[str, Any] = {}
    if evaluations:
        facts = {
            "train_seconds": evaluations[-1]["train_seconds"],
            "evaluate_seconds": sum(e["evaluate_seconds"] for e in evaluations),
            "real_time_factor": evaluations[-1]["real_time_factor"],
        }
    if laboratory.device.type == "cuda" and outcome != "pruned":
        facts["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    ended = {"outcome": outcome, "error": error}
    told = {} if outcome == "stopped" else {**facts, "paused": len(evaluations)}
    if state.is_finished():
        told = {**facts, **ended}
    _set(trial, {name: value for name, value in told.items() if value is not None})
    if state == TrialState.WAITING:
        hand_back(laboratory.study, trial._trial_id)
    else:
        trial.set_constraint(CONSTRAINT, float(outcome in INFEASIBLE))
        decided = deciding(evaluations)
        wer = WORST if decided is None else decided["wer"]
        value = max(wer, WORST) if outcome in INFEASIBLE else wer
        laboratory.study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    if run is not None:
        run.finish(
            outcome,
            state=state.name,
            # Whoever goes on with it has other totals, and MLflow would keep both.
            metrics=trial_totals(trial.user_attrs) if state.is_finished() else None,
            artifacts=trial_artifacts(_folder(laboratory, trial)),
            error=error,
        )


def _folder(laboratory: Laboratory, trial: optuna.Trial) -> Path:
    return laboratory.config.folder / "trials" / str(trial.number)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
