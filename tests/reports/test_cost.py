"""What a low WER costs."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from reports.cost import COSTS, brief_seconds, cost_data, cost_panels, plot_cost, stopped_data
from tests.reports.simulated import ANCHORS, draw, record_of, simulated_trial

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_the_frontier_of_every_cost() -> None:
    rng = random.Random(0)
    readings = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.45), (4.0, 0.1)]
    for cost in COSTS:
        trials = []
        for amount, wer in readings:
            known: dict[str, Any] = {cost.column: amount}
            trials.append(simulated_trial(draw(rng), rng, wer=wer, **known))
        data = cost_data(record_of(trials), cost.column)
        assert list(data[data["frontier"]]["number"]) == [0, 1, 3]
    assert [cost.column for cost in COSTS] == [
        "parameters", "flops_per_second", "train_seconds", "real_time_factor",
    ]  # fmt: skip


def test_what_lies_above_the_upper_edge_is_a_triangle() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, wer=0.2 + 0.01 * i) for i in range(8)]
    trials += [simulated_trial(draw(rng), rng, wer=1.0)]
    trials += [simulated_trial(draw(rng), rng, wer=1.1, outcome="pruned")]
    record = record_of(trials)
    axes = Figure().add_subplot()
    plot_cost(axes, cost_data(record, "parameters"), stopped_data(record, COSTS[0]), COSTS[0])
    look = MarkerStyle("^")
    triangle = look.get_path().transformed(look.get_transform()).vertices
    upward = [
        collection
        for collection in axes.collections
        if np.array_equal(collection.get_paths()[0].vertices, triangle)
    ]
    drawn = np.concatenate([np.asarray(collection.get_offsets()) for collection in upward])
    assert drawn[:, 1] == pytest.approx([axes.get_ylim()[1]] * 2)


def test_only_costs_that_are_known_are_drawn() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, flops_per_second=None) for _ in range(4)]
    assert [panel.name for panel in cost_panels(record_of(trials))] == [
        "cost-parameters",
        "cost-train-seconds",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.012, "12 ms"), (0.0004, "0.4 ms"), (1.5, "1.5 s"), (30, "30 s")]
)
def test_brief_seconds(seconds: float, said: str) -> None:
    assert brief_seconds(seconds) == said


def test_seeds_of_one_network_are_no_steps_of_the_frontier() -> None:
    rng = random.Random(0)
    shape = ANCHORS["conformer-s"]
    trials = [
        simulated_trial(shape, rng, phase="finalist", finalist="trial 0", wer=wer, train_seconds=s)
        for wer, s in ((0.30, 100.0), (0.28, 101.0), (0.26, 102.0))
    ]
    data = cost_data(record_of(trials), "train_seconds")
    assert int(data["frontier"].sum()) == 1
    assert data["wer"].tolist() == [pytest.approx(0.28)]
    assert data["cost"].tolist() == [101.0]
