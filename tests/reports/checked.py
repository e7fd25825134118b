"""What the tests of checks share: the check that a study gets, and the trials to get it with."""

from __future__ import annotations

import random
from typing import Any

from optuna.trial import FrozenTrial

from reports.checks import checks_data
from reports.record import StudyRecord
from reports.trust import Check
from tests.reports.simulated import draw, simulated_trial


def check_of(record: StudyRecord, name: str) -> Check:
    found = {check.id: check for check in checks_data(record).checks}
    assert len(found) == 12
    return found[name]


def even(count: int, rng: random.Random, **more: Any) -> list[FrozenTrial]:
    return [simulated_trial(draw(rng), rng, **more) for _ in range(count)]


def with_curve(trial: FrozenTrial, wers: list[float]) -> FrozenTrial:
    """The trial with other WERs on the way; its dev losses follow them."""
    history = trial.user_attrs["evaluations"]
    for item, wer in zip(history, wers, strict=True):
        item |= {"wer": wer, "dev_loss": 1 + wer}
    trial.set_user_attr("evaluations", history)
    return trial
