"""Which trials of phase 2 are stopped, and when.

Successive halving without waiting (Li et al. 2018, arXiv 1810.05934): a trial that comes to a rung
goes on if it is among the best of all that came there before it. Trials of phase 1 are compared
with, never stopped; so are a few of phase 2, drawn at random, which show what pruning costs.
"""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.trial import FrozenTrial

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


class SuccessiveHalving(optuna.pruners.BasePruner):
    """Keeps one in `factor` of the trials that come to a rung."""

    def __init__(self, rungs: list[int], factor: int) -> None:
        self._rungs = rungs
        self._factor = factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that was just evaluated should stop."""
        attributes = trial.user_attrs
        evaluations = attributes.get("evaluations", [])
        rung = len(evaluations)
        if attributes.get("phase") != "refine" or attributes.get("survivor"):
            return False
        if rung not in self._rungs:
            return False
        own = standing(evaluations[-1])
        others = [
            standing(other.user_attrs["evaluations"][rung - 1])
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
            and other.user_attrs.get("phase") != "finalist"
            and len(other.user_attrs.get("evaluations", [])) >= rung
        ]
        kept = max(1, math.floor((len(others) + 1) / self._factor))
        return sum(other < own for other in others) >= kept
