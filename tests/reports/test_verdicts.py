"""Verdicts: what they say besides the value to take."""

from __future__ import annotations

import random

import pytest

from reports.questions import SIX
from reports.verdicts import _cheapest
from tests.reports.simulated import choices_of, draw, record_of, simulated_trial
from tests.reports.sized import planted

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_the_cheapest_value_is_that_of_networks_alike_in_all_else() -> None:
    for seed in range(4):
        record = planted(lambda values, size: 0.2, count=32, seed=seed, noise=0.01)
        cheapest = {
            name: _cheapest(record, name, [float(v) for v in choices_of(name)], "parameters")
            for name in SIX
        }
        assert cheapest["encoder_dim"] == 32
        assert cheapest["decoder_dim"] in (32, None)
        # these have no say in the number of weights that `size_of` counts
        assert cheapest["attention_heads"] is None
        assert cheapest["conv_kernel_size"] is None


def test_of_two_that_vary_only_together_neither_is_told_to_cost_more() -> None:
    rng = random.Random(0)
    trials = [
        simulated_trial(draw(rng) | {"encoder_dim": width, "decoder_dim": width}, rng)
        for width in (32, 64, 96) * 8
    ]
    record = record_of(trials)
    for name in ("encoder_dim", "decoder_dim"):
        assert _cheapest(record, name, [32.0, 64.0, 96.0], "parameters") is None
