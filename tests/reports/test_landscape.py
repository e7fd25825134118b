"""Where values lie in their ranges, and the surfaces that are read from a study."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports.landscape import WIDENING, Axis, _widened
from reports.questions import edge_note
from reports.record import Searched

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


def test_draws_are_spread_about_their_mean_but_not_below_zero() -> None:
    draws = np.array([[0.10, 0.000], [0.12, 0.002]])
    found = _widened(draws)
    assert np.ptp(found[:, 0]) == pytest.approx(WIDENING * 0.02)
    assert found.min() == 0
