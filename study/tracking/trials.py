"""What is logged of a trial, from what Optuna's storage holds of it.

How an outcome becomes a status (`STATUSES`): MLflow knows three ways to end, so the tags `state`
(Optuna's) and `outcome` (ours) are always there to filter by. A crashed trial is FAILED; a pruned
or stopped one is KILLED; finished, diverged and out_of_memory are COMPLETE in Optuna and FINISHED
in MLflow, the last two with the outcome in the run's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
    "paused": ("SCHEDULED", "WAITING"),
    "pruned": ("KILLED", "PRUNED"),
    "stopped": ("KILLED", "FAIL"),
    "crashed": ("FAILED", "FAIL"),
}
"""Outcome of a trial -> (MLflow's status, Optuna's state)."""


def trial_params(known: Mapping[str, Any]) -> dict[str, object]:
    """Every field of a trial's configuration, and its seed, from its user attributes."""
    return {**known.get("config", {}), **only(known, ("seed",))}


def trial_tags(known: Mapping[str, Any], study: Mapping[str, Any]) -> dict[str, object]:
    """What a run can be found by, from the user attributes of a trial and of its study."""
    names = ("phase", "anchor", "finalist", "survivor", "worker", "device", "corpus_fingerprint")
    return {**only(study, ("git_commit",)), **only(known, (*names, "git_commit"))}


def trial_totals(known: Mapping[str, Any]) -> dict[str, object]:
    """The metrics of a whole trial, from its user attributes."""
    names = ("parameters", "flops_per_second", "train_seconds", "evaluate_seconds")
    tested = [name for name in known if name.startswith("test_")]
    return only(known, [*names, "real_time_factor", "peak_memory_bytes", *tested])


def trial_artifacts(folder: Path) -> list[Path]:
    """The files of a trial's folder that are logged, where they exist."""
    return [folder / name for name in ("config.json", "hypotheses.jsonl", "test.jsonl")]


def only(values: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """Some of the values, where they are there."""
    return {name: values[name] for name in names if name in values}
