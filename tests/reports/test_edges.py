"""Best values and learning rates at the ends of their ranges."""

from __future__ import annotations

import math
import random

import pytest
from optuna.trial import FrozenTrial

from tests.reports.checked import check_of, even
from tests.reports.simulated import ANCHORS, config, draw, record_of, shape_with, simulated_trial

pytestmark = pytest.mark.usefixtures("no_warnings")


def quadratic(centre: float, rng: random.Random) -> list[FrozenTrial]:
    """Trials of which those do best whose learning rate is at a place of its range."""
    trials = []
    for _ in range(48):
        values = draw(rng)
        place = math.log(values["learning_rate"] / 5e-4) / math.log(10)
        wer = 0.1 + 0.3 * abs(place - centre) + rng.gauss(0, 0.005)
        trials.append(simulated_trial(values, rng, wer=wer))
    return trials


@pytest.mark.parametrize(("centre", "status"), [(0.5, "good"), (0.0, "bad"), (1.0, "bad")])
def test_the_learning_rate_at_its_edge(centre: float, status: str) -> None:
    check = check_of(record_of(quadratic(centre, random.Random(1))), "learning_rate")
    assert check.status == status
    if status == "bad":
        assert ("upper" if centre else "lower") in check.remedy


def test_the_learning_rate_of_the_largest_networks() -> None:
    """Small networks do best in the middle, large ones at the lower end."""
    rng, trials = random.Random(2), []
    for i in range(60):
        large = i % 3 == 0
        values = shape_with(encoder_layers=4 if large else 1, encoder_dim=96 if large else 32)
        values["learning_rate"] = 5e-4 * 10 ** ((i + 0.5) / 60)
        place = math.log10(values["learning_rate"] / 5e-4)
        wer = (0.2 if large else 0.1) + 0.3 * abs(place - (0 if large else 0.5))
        trials.append(simulated_trial(values, rng, wer=wer + rng.gauss(0, 0.002)))
    check = check_of(record_of(trials), "learning_rate")
    assert check.status in {"look", "bad"} and "lower" in check.remedy
    assert "Of the best quarter of the trials, 0 of 15 lie in the lowest" in check.text


def test_a_learning_rate_that_is_not_searched() -> None:
    search = {k: v for k, v in config()["search"].items() if k != "learning_rate"}
    check = check_of(record_of(even(20, random.Random(0)), search=search), "learning_rate")
    assert check.status == "not known" and "not searched" in check.text


INSIDE = {
    "encoder_layers": 2,
    "encoder_dim": 64,
    "attention_heads": 2,
    "conv_kernel_size": 7,
    "decoder_layers": 1,
    "decoder_dim": 64,
    "learning_rate": 1e-3,
}


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, "good", "Nothing lies beyond 1 decoder layer"),
        ({"encoder_layers": 1, "attention_heads": 1}, "good", "Nothing lies beyond"),
        ({"conv_kernel_size": 3}, "good", "convolution kernel 3"),
        ({"encoder_dim": 96}, "look", "encoder width 96"),
        ({"encoder_dim": 32}, "look", "encoder width 32"),
        ({"encoder_layers": 4}, "bad", "4 encoder layers"),
    ],
)
def test_best_values_at_an_end(changes: dict[str, float], status: str, said: str) -> None:
    """In the formula WER falls clearly with layers; widths here are level."""
    rng = random.Random(0)
    trials = [
        simulated_trial(values, rng, wer=0.4 - 0.05 * values["encoder_layers"])
        for values in (draw(rng) for _ in range(48))
    ]
    trials.append(simulated_trial({**INSIDE, **changes}, rng, wer=0.05, phase="refine"))
    check = check_of(record_of(trials), "boundary")
    assert check.status == status and said in check.text


def test_an_anchor_that_is_best_outside_of_a_range_is_named() -> None:
    rng = random.Random(0)
    best = {**ANCHORS["conformer-s"], "encoder_layers": 16}
    trials = [simulated_trial(best, rng, anchor="conformer-s", wer=0.05)]
    trials += [simulated_trial(draw(rng), rng) for _ in range(16)]
    check = check_of(record_of(trials), "boundary")
    assert "Outside of the range in the best trial, 0, where only an anchor is: 16 encoder" in (
        check.text
    )
    assert check.remedy == "Widen these ranges in a study of another name."
