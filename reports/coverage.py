"""Whether the explore sample covers the space: how many trials, of which values, how evenly.

    checks = coverage_checks(record)

How many trials are enough has a rule of thumb for computer experiments, ten for each dimension
(Loeppky, Sacks and Welch 2009, Technometrics 51). How evenly they lie is told by the centred L2
discrepancy (Hickernell 1998), against random samples of the same size over the same values.
Failed trials leave holes; that is what these checks are to find.
"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import qmc

from reports.landscape import axes_of, places_of
from reports.questions import label_of
from reports.trust import BAD, GOOD, LOOK, NOT_KNOWN, Check, Topic, gravest
from reports.wording import counted, number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reports.landscape import Axis
    from reports.record import StudyRecord
    from reports.surrogate import Array

PER_DIMENSION = 10
"""Trials for each thing that is searched that make a sample large enough (Loeppky et al. 2009)."""

FEW_PER_DIMENSION = 3
"""Fewer than this for each, and hardly anything can be told apart."""

PER_VALUE = 3
"""Trials that each value of each question should have."""

_STRATA = 4  # parts of a continuous range that count as its values
_MOST = 500  # trials whose discrepancy is computed: its cost grows with their square
_RANDOM = 60  # random samples to compare with

_EXPLORE_SIZE = Topic("explore_size", "Enough explore trials")
_COVERAGE = Topic("coverage", "Even cover of the space")


def coverage_checks(record: StudyRecord) -> list[Check]:
    """Return the check of the number of explore trials, and that of how they cover the space."""
    axes = axes_of(record)
    rows = record.results[record.results["even"]]
    places = places_of(axes, rows)
    places = places[np.isfinite(places).all(axis=1)]
    return [_size(len(places), len(axes)), _spread(axes, places)]


def _size(trials: int, dimensions: int) -> Check:
    if not dimensions:
        return _EXPLORE_SIZE.found(NOT_KNOWN, "Nothing was searched over more than one value.")
    wanted = PER_DIMENSION * dimensions
    said = "explore trial has" if trials == 1 else "explore trials have"
    text = (
        f"{trials or 'No'} {said} finished, for {counted(dimensions, 'searched hyperparameter')}; "
        f"the rule of thumb asks for {PER_DIMENSION} for each, {wanted}."
    )
    if not trials:
        return _EXPLORE_SIZE.found(
            NOT_KNOWN, text, f"Set “explore: {{trials: {wanted}}}” and run the study on."
        )
    status = GOOD if trials >= wanted else LOOK if trials >= FEW_PER_DIMENSION * dimensions else BAD
    remedy = f"Set “explore: {{trials: {wanted}}}” and run the study on." if status != GOOD else ""
    return _EXPLORE_SIZE.found(status, text, remedy)


def _spread(axes: list[Axis], places: Array) -> Check:
    """Count trials per value and per pair of values, and compare the evenness with chance."""
    if not axes or not len(places):
        return _COVERAGE.found(NOT_KNOWN, "No finished explore trial lies in the search space.")
    sizes = [len(axis.searched.listed) or _STRATA for axis in axes]
    levels = np.stack(
        [_levels(axis, column) for axis, column in zip(axes, places.T, strict=True)], axis=1
    )
    statuses, told = [], []
    rare = _rare(axes, levels)
    if rare:
        name, label, least = min(rare, key=lambda item: item[2])
        status = BAD if least == 0 else LOOK
        told.append(
            f"{counted(len(rare), 'value')} {'has' if len(rare) == 1 else 'have'} fewer than "
            f"{PER_VALUE} trials, the rarest {label_of(name).lower()} {label} with {least}."
        )
        statuses.append(status)
    else:
        told.append(f"Every value has at least {PER_VALUE} trials.")
        statuses.append(GOOD)
    if len(axes) > 1:
        seen, possible = _pairs(levels, sizes)
        # One trial shows one pair of values of each two; no sample of n shows more than n of them.
        statuses.append(GOOD if seen >= 0.9 * possible else LOOK)
        told.append(f"Of {possible:,} pairs of values of two hyperparameters, {seen:,} were tried.")
    if len(places) >= 2:
        less = _less_even(axes, places)
        statuses.append(LOOK if less < 0.05 * _RANDOM else GOOD)
        told.append(
            f"The sample is no less even (centred L2 discrepancy) than {less} of {_RANDOM} random "
            "samples of its size."
        )
    status = gravest(*statuses)
    remedy = (
        "" if status == GOOD else "Run more explore trials; see whether failed ones left holes."
    )
    return _COVERAGE.found(status, " ".join(told), remedy)


def _levels(axis: Axis, places: Array) -> NDArray[np.int_]:
    """Return which value, or which part of a continuous range, each trial has: 0, 1, 2."""
    if listed := axis.searched.listed:
        return np.rint(places * (len(listed) - 1)).astype(int)
    return np.asarray(np.minimum((places * _STRATA).astype(int), _STRATA - 1))


def _rare(axes: list[Axis], levels: NDArray[np.int_]) -> list[tuple[str, str, int]]:
    """Return the values with too few trials: hyperparameter, value in words, how many."""
    found = []
    for axis, column in zip(axes, levels.T, strict=True):
        names = [number(choice) for choice in axis.searched.listed] or [
            f"{number(axis.value(i / _STRATA))} to {number(axis.value((i + 1) / _STRATA))}"
            for i in range(_STRATA)
        ]
        counts = np.bincount(column, minlength=len(names))
        found += [
            (axis.name, label, int(n))
            for label, n in zip(names, counts, strict=True)
            if n < PER_VALUE
        ]
    return found


def _pairs(levels: NDArray[np.int_], sizes: list[int]) -> tuple[int, int]:
    """Return how many pairs of values were tried, and how many there are."""
    seen = possible = 0
    for one, other in combinations(range(len(sizes)), 2):
        seen += len(np.unique(levels[:, one] * sizes[other] + levels[:, other]))
        possible += sizes[one] * sizes[other]
    return seen, possible


def _less_even(axes: list[Axis], places: Array) -> int:
    """Return how many random samples are as even as this one or less."""
    sizes = [len(axis.searched.choices) for axis in axes]
    cells = np.array([max(size, 1) for size in sizes])
    continuous = np.array(sizes) == 0

    def centred(units: Array) -> Array:
        """Put each value into the middle of its share of the side."""
        middle = (np.rint(units * (cells - 1)) + 0.5) / cells
        return np.where(continuous, units, middle)

    places = places[:_MOST]
    rng = np.random.default_rng(0)
    draws = rng.uniform(size=(_RANDOM, *places.shape))
    on_grid = np.floor(draws * cells) / np.maximum(cells - 1, 1)
    samples = np.where(continuous, draws, on_grid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        own = qmc.discrepancy(centred(places))
        others = [qmc.discrepancy(centred(sample)) for sample in samples]
    return sum(other >= own for other in others)
