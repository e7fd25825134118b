"""Which trials of phase 2 are paused at a rung, and which of them go on.

Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934): a trial that comes to a rung
goes on if it is among the best of all that came there. If it is not, it is *paused*: its checkpoint
stays, it waits, and its worker takes another trial. As more trials come to the rung, one in
`factor` of them may go on, so that a paused trial can turn out to be among the best after all; it
is *promoted* then, and goes on from its checkpoint. Those that never are have been pruned, which is
said when the search is over and nothing can promote them any more (`study.trial.settle`).

Trials of phase 1 are compared with, never paused; so are a few of phase 2, drawn at random, which
show what pruning costs. What a trial's place in this is stands in three of its user attributes:
`paused`, the rung at which it waits, `promoted`, the last rung from which it was let on, and
`passed`, the last one at which it was not paused. At none of them is it compared again, should it
be interrupted: who is pruned does not depend on that.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from study.budget import can_be_left_out, refine_is_spent
from study.connection import record

INFORMATIVE = 0.8
"""A word error rate above this says little (a model that writes nothing has 1); the loss does."""


def rungs(evaluations: int, first: float, factor: int) -> list[int]:
    """The evaluations at which trials are compared: first, first · factor, … of the budget."""
    found = []
    share = first
    while share < 1:
        rung = max(1, round(share * evaluations))
        if rung < evaluations and rung not in found:
            found.append(rung)
        share *= factor
    return found


def standing(evaluation: dict[str, Any]) -> tuple[int, float]:
    """What trials are ordered by at a rung, less is better: WER, or dev loss until it informs."""
    if evaluation["wer"] < INFORMATIVE:
        return 0, evaluation["wer"]
    return 1, evaluation["dev_loss"]


def is_paused(trial: FrozenTrial) -> bool:
    """Whether a trial waits at a rung."""
    return trial.state == TrialState.WAITING and trial.user_attrs.get("paused") is not None


def leaders(trials: Sequence[FrozenTrial], rung: int, factor: int) -> list[FrozenTrial]:
    """The best of the trials that came to a rung, best first: one in `factor`, and one at least.

    Of equals the earlier one is better. Finalists are not compared with.
    """
    there = [trial for trial in trials if _came(trial, rung)]
    return heapq.nsmallest(
        max(1, len(there) // factor), there, key=lambda trial: _place(trial, rung)
    )


def leads(trial: FrozenTrial, others: Sequence[FrozenTrial], rung: int, factor: int) -> bool:
    """Whether a trial is one of the `leaders` among others that came to a rung, and itself."""
    own = _place(trial, rung)
    places = [_place(other, rung) for other in others if _came(other, rung)]
    return sum(place < own for place in places) < max(1, (len(places) + 1) // factor)


def _came(trial: FrozenTrial, rung: int) -> bool:
    attributes = trial.user_attrs
    return len(attributes.get("evaluations", ())) >= rung and attributes.get("phase") != "finalist"


def _place(trial: FrozenTrial, rung: int) -> tuple[tuple[int, float], int]:
    return standing(trial.user_attrs["evaluations"][rung - 1]), trial.number


def promotable(
    trials: Sequence[FrozenTrial], rungs: Sequence[int], factor: int
) -> list[FrozenTrial]:
    """The paused trials that may go on: those of the highest rung first, and the best first.

    The paper's `get_job` takes the first of them; where there is none, it begins a new trial.
    """
    if not any(map(is_paused, trials)):
        return []
    return [
        trial
        for rung in sorted(rungs, reverse=True)
        for trial in leaders(trials, rung, factor)
        if is_paused(trial) and trial.user_attrs["paused"] == rung
    ]


class SuccessiveHalving(optuna.pruners.BasePruner):
    """Lets one in `factor` of the trials that come to a rung go on, and pauses the others."""

    def __init__(self, rungs: list[int], factor: int) -> None:
        self.rungs = rungs
        self._factor = factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that was just evaluated should be paused; records that it passed."""
        attributes = trial.user_attrs
        rung = len(attributes.get("evaluations", ()))
        if attributes.get("phase") != "refine" or attributes.get("survivor"):
            return False
        behind = max(attributes.get("promoted", 0), attributes.get("passed", 0))
        if rung not in self.rungs or rung <= behind:
            return False
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        if not leads(trial, others, rung, self._factor):
            return True
        record(study._storage, trial._trial_id, {"passed": rung})
        return False

    def promotable(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The paused trials that may go on by now, in the order in which they should."""
        return promotable(trials, self.rungs, self._factor)


def is_rung(study: optuna.Study, evaluation: int) -> bool:
    """Whether trials are compared at an evaluation: there is no need to ask at the others."""
    return isinstance(study.pruner, SuccessiveHalving) and evaluation in study.pruner.rungs


def queue(study: optuna.Study) -> list[FrozenTrial]:
    """The waiting trials that may be claimed, in the order in which they should be.

    First those that are promoted, then those that nobody has begun or that were handed back. Those
    that are paused are none of them. Once refine has had its hours, what was begun is all there is.
    """
    trials = study.get_trials(deepcopy=False)
    waiting = [t for t in trials if t.state == TrialState.WAITING and not is_paused(t)]
    if refine_is_spent(trials, refine_hours(study)):
        return [trial for trial in waiting if not can_be_left_out(trial)]
    promoted = (
        study.pruner.promotable(trials) if isinstance(study.pruner, SuccessiveHalving) else []
    )
    return promoted + waiting


def refine_hours(study: optuna.Study) -> float | None:
    """`refine.hours`, as the study has it by now: a worker may have been started with others."""
    refine = study.user_attrs.get("config", {}).get("refine", {})
    return refine.get("hours")  # type: ignore[no-any-return]
