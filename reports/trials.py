"""Turns Optuna's trials into two tables: one row per trial, one row per evaluation of a trial.

`outcome` tells apart what Optuna's states mix: a trial that diverged or ran out of memory is
COMPLETE there, with a penalty for a value, so that the sampler stays away from it. It is no
result, and its value is no WER.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pandas as pd
from optuna.trial import TrialState

from reports.questions import SIX
from reports.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from optuna.trial import FrozenTrial

TRIAL_COLUMNS = {
    "number": "the trial's number in Optuna",
    "state": "Optuna's state: COMPLETE, PRUNED, FAIL, RUNNING or WAITING",
    "outcome": "what became of it: finished, pruned, diverged, out_of_memory, infeasible (another "
    "constraint is violated), crashed, stopped, running, paused (at a rung; it may yet go on) or "
    "waiting",
    "phase": "explore (an even sample, not pruned), refine (TPE with pruning) or finalist (one of "
    "the best, or an anchor, trained again with another seed)",
    "finalist": "what a finalist repeats: trial <number>, predicted best, or an anchor's name",
    "retry_of": "the number of the trial that crashed and in whose place it stands",
    "anchor": "the name of the known configuration, if it is one",
    "survivor": "True for a refine trial that the pruner was told to spare, at random",
    "wer": "dev WER as a fraction; of a pruned or paused trial the last one seen; of a "
    "diverged or out_of_memory trial the penalty that the sampler was told, not a measurement",
    "seed": "the seed of weights, data order and augmentation",
    **dict.fromkeys(SIX, "one of the six questions"),
}
"""The first columns of trials.csv. Other searched hyperparameters follow, then COST_COLUMNS."""

COST_COLUMNS = {
    "parameters": "number of weights",
    "flops_per_second": "forward FLOPs per second of audio",
    "train_seconds": "seconds spent training",
    "evaluate_seconds": "seconds spent decoding dev",
    "test_wer": "WER on the test split as a fraction, by beam search; of finalists only",
    "test_errors": "word errors on the test split, by beam search",
    "test_greedy_errors": "the same by greedy decoding",
    "test_words": "words of the test split",
    "real_time_factor": "seconds of greedy decoding per second of dev audio",
    "peak_memory_bytes": "most device memory in use at once",
    "ctc_wer": "dev WER of the CTC branch alone, at the evaluation that gave wer",
    "cer": "dev character error rate, at the evaluation that gave wer",
    "dev_loss": "dev loss per token, at the evaluation that gave wer",
    "evaluations": "evaluations done",
    "epochs": "epochs done at the last evaluation",
    "duration_seconds": "seconds from start to end by Optuna's clock",
    "device": "what it was trained on",
    "result": "True where the trial was trained to the end, was not pruned, and its WER was "
    "measured: only these enter a comparison",
    "even": "True for a result of the explore phase that is no anchor: only these enter medians "
    "and importances",
    "error": "why it failed",
}
"""The last columns of trials.csv."""

CURVE_COLUMNS = (
    "number",
    "evaluation",
    "step",
    "epoch",
    "train_loss",
    "dev_loss",
    "wer",
    "ctc_wer",
    "cer",
    "learning_rate",
    "train_seconds",
    "evaluate_seconds",
    "utterances",
)

_TEXT = ("state", "outcome", "phase", "finalist", "anchor", "device", "error")
_FLAGS = ("survivor", "result", "even")
_OPEN = {TrialState.WAITING: "waiting", TrialState.RUNNING: "running"}
_USUAL = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "crashed"}


def number_or_none(value: Any) -> float | None:
    """Return a number as a float, and None for anything else: text, booleans, None and NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(value)


def trials_frame(trials: Sequence[FrozenTrial], others: Iterable[str]) -> pd.DataFrame:
    """Return one row per trial.

    Args:
        trials: The trials, in the order of their numbers.
        others: Searched hyperparameters besides the six; one that is called like another column
            gets the column `param_<name>`.
    """
    other_columns = {name: column_of(name) for name in others}
    columns = [*TRIAL_COLUMNS, *other_columns.values(), *COST_COLUMNS]
    rows = [_row(trial, other_columns) for trial in trials]
    # Objects first: guessing types would turn seeds into floats where one is missing.
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    for column in columns:
        if column in _FLAGS:
            frame[column] = frame[column].astype(bool)
        elif column in _TEXT or column == "seed":
            continue
        else:
            frame[column] = _numeric(
                frame[column],
                whole=column not in ("wer", "cer", "ctc_wer", "test_wer", "real_time_factor"),
            )
    return frame


def column_of(name: str) -> str:
    """Return the column in which a searched hyperparameter besides the six is kept."""
    taken = name in (set(TRIAL_COLUMNS) - set(SIX)) | set(COST_COLUMNS)
    return f"param_{name}" if taken else name


def curves_frame(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """Return one row per evaluation, in the order of trials and then of evaluations."""
    rows = [
        {
            "number": trial.number,
            **{key: number_or_none(item.get(key)) for key in CURVE_COLUMNS[1:]},
        }
        for trial in trials
        for item in _evaluations(trial)
    ]
    frame = pd.DataFrame(rows, columns=list(CURVE_COLUMNS))
    return frame.astype({"number": int} | dict.fromkeys(CURVE_COLUMNS[1:], float))


def _row(trial: FrozenTrial, others: dict[str, str]) -> dict[str, Any]:
    attributes = trial.user_attrs
    outcome = _outcome(trial)
    wer = _wer(trial)
    result = outcome == "finished" and wer is not None and math.isfinite(wer)
    phase, anchor = attributes.get("phase"), attributes.get("anchor")
    history = _evaluations(trial)
    last = history[-1] if history else {}
    at_wer = next((item for item in reversed(history) if item.get("wer") == wer), last)
    duration = trial.duration.total_seconds() if trial.duration else None
    row: dict[str, Any] = {
        "number": trial.number,
        "state": trial.state.name,
        "outcome": outcome,
        "phase": str(phase) if phase else None,
        "anchor": str(anchor) if anchor else None,
        "finalist": str(attributes["finalist"]) if attributes.get("finalist") else None,
        "retry_of": number_or_none(attributes.get("retry_of")),
        "survivor": bool(attributes.get("survivor")),
        "wer": wer,
        "seed": attributes.get("seed"),
        "evaluations": len(history),
        "epochs": last.get("epoch"),
        "duration_seconds": duration,
        "device": attributes.get("device"),
        "result": result,
        # A study without phases, from elsewhere, is taken as one sample: the page says so.
        "even": result and phase not in ("refine", "finalist") and not anchor,
        "error": redact(str(attributes["error"])) if attributes.get("error") else None,
    }
    values = _values(trial)
    row |= {name: values.get(name) for name in SIX}
    row |= {column: values.get(name) for name, column in others.items()}
    row |= {key: at_wer.get(key) for key in ("ctc_wer", "cer", "dev_loss")}
    costs = ("parameters", "flops_per_second", "train_seconds", "evaluate_seconds")
    tested = ("test_wer", "test_errors", "test_greedy_errors", "test_words", "real_time_factor")
    row |= {key: attributes.get(key) for key in (*costs, *tested, "peak_memory_bytes")}
    return row


def _outcome(trial: FrozenTrial) -> str:
    if trial.state is TrialState.WAITING and trial.user_attrs.get("paused") is not None:
        return "paused"
    if trial.state in _OPEN:
        return _OPEN[trial.state]
    told = trial.user_attrs.get("outcome")
    outcome = told if isinstance(told, str) and told else _USUAL[trial.state]
    if trial.state is not TrialState.COMPLETE and outcome == "finished":
        return _USUAL[trial.state]
    if outcome == "finished" and any(value > 0 for value in trial.constraints.values()):
        return "infeasible"
    if outcome == "finished" and not math.isfinite(trial.value or 0.0):
        return "diverged"
    return outcome


def _wer(trial: FrozenTrial) -> float | None:
    if trial.state is TrialState.COMPLETE:
        return number_or_none(trial.value)
    stopped = trial.state is TrialState.PRUNED or _outcome(trial) == "paused"
    if stopped and trial.intermediate_values:
        last = max(trial.intermediate_values)
        return number_or_none(trial.intermediate_values[last])
    return None


def _values(trial: FrozenTrial) -> dict[str, Any]:
    """Return all fields of the trial's configuration, or else what was (or will be) drawn."""
    config = trial.user_attrs.get("config")
    planned = trial.system_attrs.get("fixed_params")  # of an enqueued trial that has not begun
    merged: dict[str, Any] = {}
    for source in (planned, trial.params, config):
        if isinstance(source, dict):
            merged |= {key: value for key, value in source.items() if value is not None}
    return merged


def _evaluations(trial: FrozenTrial) -> list[dict[str, Any]]:
    told = trial.user_attrs.get("evaluations")
    if isinstance(told, list) and told:
        return [item for item in told if isinstance(item, dict)]
    steps = sorted(trial.intermediate_values.items())
    return [{"evaluation": step, "wer": value} for step, value in steps]


def _numeric(column: pd.Series[Any], *, whole: bool) -> pd.Series[Any]:
    """Return numbers (others become missing), as integers where every one of them is whole."""
    numbers = pd.Series([number_or_none(value) for value in column], dtype="float64")
    present = numbers.dropna()
    if whole and (present.abs() < 2**53).all() and (present % 1 == 0).all():
        return numbers.astype("Int64")
    return numbers


def as_csv(frame: pd.DataFrame) -> str:
    """Return the text of trials.csv: full precision, and missing values empty."""
    shown = frame.copy()
    shown["seed"] = [seed if seed is None else json.dumps(seed) for seed in shown["seed"]]
    return shown.to_csv(index=False, lineterminator="\n")
