"""Where values lie in their ranges, and the surfaces that are read from a study."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy.stats import qmc

from reports.interactions import interactions_data
from reports.landscape import WIDENING, Axis, Landscape, _widened, basis, read_landscape
from reports.questions import QUESTIONS, edge_note
from reports.record import Searched, StudyRecord, read_study
from tests.reports.planted import SPACE
from tests.reports.simulated import (
    ANCHORS,
    SimulatedStudy,
    draw,
    search_depth_alone,
    simulated_trial,
)

Places = dict[str, np.ndarray]
"""Where trials lie, of each question: in [0, 1]."""

Pair = tuple[float, float]

LARGE: dict[str, Sequence[int]] = {
    "encoder_layers": range(1, 17),
    "encoder_dim": range(64, 513, 8),
    "conv_kernel_size": range(3, 33, 2),
    "decoder_layers": range(1, 7),
}
"""82,080 shapes: a pair has up to 912 cells."""

RANGES = ((2e-4, 2e-3), (5e-4, 5e-3), (1e-4, 1e-2), (3e-4, 6e-3))


def _axis(low: float, high: float, *, log: bool = True) -> Axis:
    searched = Searched(name="x", role="nuisance", low=low, high=high, log=log, choices=())
    return Axis(name="x", column="x", searched=searched)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_the_ends_of_a_range_are_its_values(low: float, high: float) -> None:
    axis = _axis(low, high)
    assert (axis.values[0], axis.values[-1]) == (low, high)
    assert all(axis.searched.allows(value) for value in axis.values)
    assert (axis.place(low), axis.place(high)) == (0, 1)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_a_value_that_rounding_took_out_of_its_range_lies_at_the_end(
    low: float, high: float
) -> None:
    axis = _axis(low, high)
    above, below = high * (1 + 1e-12), low * (1 - 1e-12)
    assert (axis.place(below), axis.place(above)) == (0, 1)
    assert edge_note(axis.searched, above) == "at the edge of the range"
    assert math.isnan(axis.place(high * 1.001))
    assert edge_note(axis.searched, high * 1.001) == "outside the searched range"


def test_a_long_list_is_read_at_some_of_its_own_values() -> None:
    kernels = tuple(float(value) for value in range(3, 152, 2))
    searched = Searched(name="x", role="scientific", low=3, high=151, log=False, choices=kernels)
    axis = Axis(name="x", column="x", searched=searched)
    assert set(axis.values) < set(kernels)
    assert (axis.values[0], axis.values[-1]) == (3, 151)
    assert [axis.value(axis.place(kernel)) for kernel in kernels] == list(kernels)
    assert math.isnan(axis.place(58))


def test_draws_are_spread_about_their_mean_but_not_below_zero() -> None:
    draws = np.array([[0.10, 0.000], [0.12, 0.002]])
    found = _widened(draws)
    assert np.ptp(found[:, 0]) == pytest.approx(WIDENING * 0.02)
    assert found.min() == 0


def _landscape(
    space: Mapping[str, Sequence[int]], wer: Callable[[Places], np.ndarray], *, trials: int = 32
) -> Landscape:
    """What is read from an even sample of a space whose WERs have hardly any noise."""
    points = qmc.Sobol(len(space), rng=0).random(trials)
    places, values = {}, {}
    for (name, side), column in zip(space.items(), points.T, strict=True):
        row = (column * len(side)).astype(int)
        places[name], values[name] = row / (len(side) - 1), np.array(side, dtype=float)[row]
    noise = 0.001 * np.random.default_rng(0).standard_normal(trials)
    record = StudyRecord(
        name="large", config={}, corpus={}, versions={}, git_commit=None, hardware=None,
        changes=[], trials=pd.DataFrame(
            {**values, "wer": wer(places) + noise, "result": True, "anchor": None}
        ),
        searched={
            name: Searched(
                name=name, role="scientific", low=side[0], high=side[-1], log=False,
                choices=tuple(map(float, side)),
            )
            for name, side in space.items()
        },
        curves=pd.DataFrame(),
    )  # fmt: skip
    found = read_landscape(record)
    assert isinstance(found, Landscape)
    return found


def _additive(places: Places) -> np.ndarray:
    """Depth and width matter, each by itself; the kernel and the decoder do not."""
    slopes = 0.08 * (1 - places["encoder_layers"]) + 0.06 * (1 - places["encoder_dim"])
    return np.asarray(0.1 + slopes)


def _crossed(places: Places) -> np.ndarray:
    """Depth and width depend on each other."""
    return np.asarray((places["encoder_layers"] - 0.5) * (places["encoder_dim"] - 0.5))


def test_every_shape_of_a_small_space_counts_once() -> None:
    landscape = _landscape(SPACE, _additive)
    names = [axis.name for axis in landscape.questions]
    assert len(landscape.shapes) == math.prod(map(len, SPACE.values()))
    for name, column in zip(names, landscape.shapes.T, strict=True):
        values, draws = landscape.effect(name)
        assert values == tuple(map(float, SPACE[name]))
        for value, found in zip(values, draws.T, strict=True):
            np.testing.assert_array_equal(found, landscape.draws[:, column == value].mean(axis=1))
    for one, two in combinations(names, 2):
        ones, twos, draws = landscape.pair(one, two)
        assert (ones, twos) == (tuple(map(float, SPACE[one])), tuple(map(float, SPACE[two])))
        first, second = (landscape.shapes[:, names.index(name)] for name in (one, two))
        for (i, a), (j, b) in product(enumerate(ones), enumerate(twos)):
            both = (first == a) & (second == b)
            np.testing.assert_array_equal(draws[:, i, j], landscape.draws[:, both].mean(axis=1))


def test_a_large_space_has_no_interactions_that_are_those_of_its_sample() -> None:
    for item in interactions_data(_landscape(LARGE, _additive)):
        assert item.size < 0.001, item.sentence


def test_an_interaction_of_a_large_space_is_found() -> None:
    landscape = _landscape(LARGE, lambda places: _additive(places) + 0.1 * _crossed(places))
    strongest = interactions_data(landscape)[0]
    assert (strongest.one, strongest.two) == ("encoder_layers", "encoder_dim")
    assert strongest.shown
    ones, twos = strongest.values
    assert (ones[0], ones[-1], len(ones)) == (1, 16, 9)
    assert (twos[0], twos[-1], len(twos)) == (64, 512, 9)
    assert set(ones) < set(LARGE["encoder_layers"]) and set(twos) < set(LARGE["encoder_dim"])


def test_a_space_is_read_alike_whole_and_from_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def wer(places: Places) -> np.ndarray:
        return np.asarray(_additive(places) + 0.1 * _crossed(places))

    whole = _landscape(SPACE, wer)
    monkeypatch.setattr("reports.landscape.MOST_SHAPES", 256)
    sampled = _landscape(SPACE, wer)
    assert (len(whole.shapes), len(sampled.shapes)) == (1152, 256)
    for name in SPACE:
        values, expected = whole.effect(name)
        assert sampled.effect(name)[0] == values
        away = sampled.effect(name)[1] - expected
        assert np.abs(away.mean(axis=0)).max() < 0.002
        assert np.abs(away - away.mean(axis=1, keepdims=True)).mean() < 0.0005
    known, found = interactions_data(whole)[0], interactions_data(sampled)[0]
    assert (found.one, found.two, found.values) == (known.one, known.two, known.values)
    assert found.size == pytest.approx(known.size, rel=0.05)
    assert found.low == pytest.approx(known.low, rel=0.05)


@pytest.mark.parametrize("also", [{}, {"encoder_dim": {"choices": [64]}}])
def test_an_anchor_that_differs_in_what_is_held_fixed_is_no_trial_of_the_space(
    also: dict[str, Any], empty_study: SimulatedStudy
) -> None:
    """Its width would be taken for an effect of its depth, which is all that is searched."""
    search_depth_alone(empty_study.study, **also)
    rng = random.Random(0)
    own = ANCHORS["conformer-s"]
    wide = {**own, "encoder_layers": 1, "encoder_dim": 96}
    trials = [simulated_trial(wide, rng, anchor="wide", wer=0.01)]
    trials += [simulated_trial(own, rng, anchor="own")]
    for _ in range(12):
        drawn = draw(rng)
        searched = {name: drawn[name] for name in ("encoder_layers", "learning_rate")}
        trials.append(simulated_trial({**own, **searched}, rng))
    trials += [simulated_trial(wide, rng, anchor="wide", finalist="wide", phase="finalist")]
    trials += [simulated_trial(own, rng, anchor="own", finalist="own", phase="finalist")]
    empty_study.study.add_trials(trials)
    record = read_study(empty_study.storage, empty_study.name)
    assert list(basis(record)["number"]) == [*range(1, 14), 15]
    found = read_landscape(record)
    assert isinstance(found, Landscape)
    assert found.best()["encoder_layers"] == 4


def test_a_dependence_is_shown_in_view_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    checker = np.array([[1.0, -1.0], [-1.0, 1.0]])
    strength = 0.01 + 0.0045 * rng.standard_normal(512)  # 2.2 standard deviations from none

    class Stub:
        questions = tuple(SimpleNamespace(name=question.name) for question in QUESTIONS)

        def pair(self, one: str, two: str) -> tuple[Pair, Pair, np.ndarray]:
            lucky = (one, two) == ("encoder_layers", "encoder_dim")
            size = strength if lucky else 0.1 * (strength - 0.01)
            return (1.0, 2.0), (1.0, 2.0), 0.3 + size[:, None, None] * checker

    strongest, *_ = interactions_data(cast("Landscape", Stub()))
    assert not strongest.shown
