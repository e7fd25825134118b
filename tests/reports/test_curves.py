"""Whether trials were trained for long enough."""

from __future__ import annotations

import random

import pytest

from reports.curves import falls_data
from tests.reports.checked import check_of, even, with_curve
from tests.reports.simulated import EVALUATIONS, record_of

pytestmark = pytest.mark.usefixtures("no_warnings")


def power_law(exponent: float, wer: float = 0.1) -> list[float]:
    return [wer * (i / EVALUATIONS) ** -exponent for i in range(1, EVALUATIONS + 1)]


def test_falls_are_per_doubling() -> None:
    rng = random.Random(0)
    trials = [with_curve(t, power_law(0.5)) for t in even(6, rng, wer=0.1)]
    falls = falls_data(record_of(trials), EVALUATIONS)
    assert falls["fall"].to_numpy() == pytest.approx(1 - 2**-0.5)
    assert list(falls["number"]) == list(range(6))


def test_what_the_decay_gains_is_no_fall() -> None:
    """Flat until the learning rate decays over the last quarter, then half the WER."""
    rng = random.Random(0)
    wers = [0.2] * 6 + [0.15, 0.1]
    trials = [with_curve(t, wers) for t in even(6, rng, wer=0.1)]
    record = record_of(trials)
    assert falls_data(record, EVALUATIONS)["fall"].to_numpy() == pytest.approx(0)
    assert check_of(record, "budget").status == "good"
    no_decay = {"evaluations": EVALUATIONS, "decay": 0.0}
    assert check_of(record_of(trials, training=no_decay), "budget").status == "look"


def test_larger_networks_that_fall_faster() -> None:
    rng, trials = random.Random(0), []
    for i in range(20):
        exponent = 0.4 + 0.05 * i
        (trial,) = even(1, rng, wer=0.1, parameters=1000 * (i + 1))
        trials.append(with_curve(trial, power_law(exponent)))
    check = check_of(record_of(trials), "budget")
    assert check.status == "bad" and "faster" in check.text
