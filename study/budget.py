"""What trials have cost, and whether the refine phase has had its hours."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial

LEFT_OUT = "left_out"
"""The outcome of trials that were not begun, since the hours of their phase were spent."""


def seconds_of(trial: FrozenTrial) -> float:
    """Seconds of training and evaluation that a trial has had, interruptions apart."""
    evaluations = trial.user_attrs.get("evaluations", [])
    if not evaluations:
        return 0.0
    return float(evaluations[-1]["train_seconds"] + sum(e["evaluate_seconds"] for e in evaluations))


def can_be_left_out(trial: FrozenTrial) -> bool:
    """Whether a trial is one of refine of which no worker has built the network yet."""
    return trial.user_attrs.get("phase") == "refine" and "config" not in trial.user_attrs


def refine_is_spent(trials: Iterable[FrozenTrial], hours: float | None) -> bool:
    """Whether the trials of refine have had so many hours together (`refine.hours`)."""
    if hours is None:
        return False
    refine = (trial for trial in trials if trial.user_attrs.get("phase") == "refine")
    return sum(map(seconds_of, refine)) >= hours * 3600
