"""The WER of every shape that a study could have tried, with its uncertainty.

    landscape = read_landscape(record)
    effect = landscape.effect("encoder_layers")     # draws of WER per value, (S, K)

The effect of a value is the WER with the other five averaged over the search space, every shape at
its best learning rate (or whatever else is tuned as a nuisance): the question is about the shape,
and a shape should not be blamed for a learning rate that does not suit it.

What it is read from: every trial that was trained to its end and lies in the search space, or an
even selection of `reports.surrogate.MOST` of them where there are more. The even
sample of the explore phase carries the picture; refine trials and finalists, which crowd where WERs
are low, sharpen it there. A surface that is fitted to all of them is not misled by the crowding, as
a mean over trials would be, nor much by the luck with which a refine trial passed the pruner:
`benchmarks/results/calibration.md` has the marks with and without them. Pruned trials have no final
WER and stay out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import qmc, spearmanr

from reports.questions import SIX
from reports.surrogate import FEWEST, Surrogate
from reports.trials import column_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from reports.record import Searched, StudyRecord
    from reports.surrogate import Array

MOST_SHAPES = 4096
"""With more shapes in the space than this, an even sample of as many stands for all."""

WIDENING = 1.1
"""Draws are spread about their mean by this factor: the fit alone knows a little too well how
smooth the surface is, as `benchmarks/calibration.py` shows."""

_STEPS = 13  # places along the range of the one nuisance hyperparameter
_NUISANCE_SAMPLE = 32  # places in the space of several
_CONTINUOUS = 9  # values at which a continuous question is read


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One searched hyperparameter as a side of the unit cube; ordered values are evenly spaced."""

    name: str
    column: str
    """Its column in the table of trials."""
    searched: Searched

    @property
    def values(self) -> tuple[float, ...]:
        """The values at which it is read."""
        return self.searched.choices or tuple(
            self.value(place) for place in np.linspace(0, 1, _CONTINUOUS)
        )

    def value(self, place: float) -> float:
        """Return the value at a place of a continuous range."""
        low, high = self.searched.low, self.searched.high
        if place in (0, 1):  # as they stand in the study: exp(log(high)) may lie beyond
            return high if place else low
        if self.searched.log:
            return math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
        return low + place * (high - low)

    def place(self, value: float) -> float:
        """Return where a value lies in [0, 1]; NaN for one that the search could not draw."""
        searched = self.searched
        if math.isnan(value) or not searched.allows(value):
            return math.nan
        if searched.choices:
            return searched.choices.index(value) / (len(searched.choices) - 1)
        value = min(max(value, searched.low), searched.high)
        if searched.log:
            return math.log(value / searched.low) / math.log(searched.high / searched.low)
        return (value - searched.low) / (searched.high - searched.low)


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """Draws of the WER of shapes."""

    axes: tuple[Axis, ...]
    """What varies, in the order of the questions, nuisances last."""
    surrogate: Surrogate
    shapes: Array
    """`(M, Q)`: the values of the questions among the axes."""
    draws: Array
    """`(S, M)`: their WERs, each row one surface that agrees with the trials."""
    nuisances: Array
    """`(M, D − Q)`: the values of the nuisances with which each shape does best."""
    trials: int
    """Trials that it is read from."""
    known: int
    """Trials that it could be read from: more than those where they are too many to be fitted."""
    repeats: int
    """How many of them repeat a configuration with another seed."""
    rank_correlation: float
    """Spearman's, between trials' WERs and what all other trials predict for them."""
    explained: float
    """Share of the variance of WER that this prediction explains; below 0, worse than the mean."""

    @property
    def questions(self) -> tuple[Axis, ...]:
        """The questions that vary."""
        return tuple(axis for axis in self.axes if axis.name in SIX)

    @cached_property
    def expected(self) -> Array:
        """`(M,)`: the expected WER of each shape."""
        return np.asarray(self.draws.mean(axis=0))

    def effect(self, name: str) -> tuple[tuple[float, ...], Array]:
        """Return the values of a question and `(S, K)` draws of the WER with each."""
        column = [axis.name for axis in self.questions].index(name)
        values = self.questions[column].values
        groups = [np.isclose(self.shapes[:, column], value) for value in values]
        return values, np.stack([self.draws[:, group].mean(axis=1) for group in groups], axis=1)

    def pair(self, one: str, two: str) -> Array:
        """Return `(S, K, L)` draws of the WER with each pair of values of two questions."""
        names = [axis.name for axis in self.questions]
        i, j = names.index(one), names.index(two)
        table = [
            [
                self.draws[
                    :, np.isclose(self.shapes[:, i], a) & np.isclose(self.shapes[:, j], b)
                ].mean(axis=1)
                for b in self.questions[j].values
            ]
            for a in self.questions[i].values
        ]
        return np.moveaxis(np.array(table), -1, 0)

    def best(self) -> dict[str, float]:
        """Return the shape, and its nuisances, with the lowest expected WER."""
        row = int(np.argmin(self.expected))
        values = [*self.shapes[row], *self.nuisances[row]]
        return {axis.name: float(v) for axis, v in zip(self.axes, values, strict=True)}


def basis(record: StudyRecord) -> pd.DataFrame:
    """Return the trials that effects may be read from."""
    results = record.results
    return results[np.isfinite(results["wer"].astype(float))]


def read_landscape(
    record: StudyRecord, *, trials: pd.DataFrame | None = None, seed: int = 0
) -> Landscape | str:
    """Fit the trials of a study; or return why that is not possible, in a sentence.

    `trials` are those to fit where they are not those of `basis`.
    """
    axes = axes_of(record)
    questions = [axis for axis in axes if axis.name in SIX]
    if not questions:
        return "None of the six questions was searched over more than one value."
    trials = basis(record) if trials is None else trials
    units = places_of(axes, trials)
    inside = np.isfinite(units).all(axis=1)
    units, wers = units[inside], trials["wer"].to_numpy(dtype=float)[inside]
    least = max(FEWEST, len(axes))
    if len(wers) < least:
        return (
            f"Effects are estimated from {least} finished trials or more, one for each "
            f"thing that is searched; there {'is' if len(wers) == 1 else 'are'} {len(wers)}."
        )
    if np.ptp(wers) == 0:
        return "All finished trials have the same WER, so there is no effect to estimate."
    surrogate = Surrogate.fit(units, wers, floor=_half_a_word(record), seed=seed)
    places = _shapes(questions, seed)
    nuisance = _tuned(surrogate, places, len(axes) - len(questions))
    draws = surrogate.paths(np.hstack([places, nuisance])).astype(float)
    told = surrogate.left_out()
    kept = surrogate.warp.inverse(surrogate.targets)
    return Landscape(
        axes=tuple(axes),
        surrogate=surrogate,
        shapes=_values(questions, places),
        nuisances=_values(axes[len(questions) :], nuisance),
        draws=_widened(draws),
        trials=len(surrogate.targets),
        known=len(wers),
        repeats=len(surrogate.units) - len(np.unique(surrogate.units, axis=0)),
        rank_correlation=float(spearmanr(told, kept).statistic) if np.ptp(told) else 0.0,
        explained=float(1 - ((told - kept) ** 2).sum() / ((kept - kept.mean()) ** 2).sum()),
    )


def _widened(draws: Array) -> Array:
    """Return draws spread further about their mean; none is below 0."""
    middle = draws.mean(axis=0)
    floored: Array = np.maximum(middle + WIDENING * (draws - middle), 0.0)
    return floored


def axes_of(record: StudyRecord, *, every: bool = False) -> list[Axis]:
    """Return what varies, the questions first; with `every`, what could but has one value, too."""
    found = []
    for name, searched in record.searched.items():
        column = name if name in SIX else column_of(name)
        if (every or searched.high > searched.low) and column in record.trials:
            found.append(Axis(name=name, column=column, searched=searched))
    return sorted(found, key=lambda axis: axis.name not in SIX)


def places_of(axes: Sequence[Axis], trials: pd.DataFrame) -> Array:
    """Return where trials lie in the unit cube, `(N, D)`; NaN where the search could not go."""
    columns = [[axis.place(value) for value in trials[axis.column].astype(float)] for axis in axes]
    return np.array(columns, dtype=float).T.reshape(len(trials), len(axes))


def _half_a_word(record: StudyRecord) -> float:
    splits: Any = record.corpus.get("splits")
    dev = splits.get("dev") if isinstance(splits, dict) else None
    words = dev.get("words") if isinstance(dev, dict) else None
    return 0.5 / words if isinstance(words, int) and words > 0 else 1e-3


def _shapes(questions: list[Axis], seed: int) -> Array:
    """Return the places of all shapes, or of an even sample of them."""
    sides = [np.array([axis.place(value) for value in axis.values]) for axis in questions]
    if math.prod(len(side) for side in sides) <= MOST_SHAPES:
        return np.array(list(product(*sides)))
    points = qmc.Sobol(len(sides), rng=seed).random(MOST_SHAPES)
    return np.stack(
        [
            side[(point * len(side)).astype(int)]
            for side, point in zip(sides, points.T, strict=True)
        ],
        axis=1,
    )


def _tuned(surrogate: Surrogate, shapes: Array, dimensions: int) -> Array:
    """Return for each shape the place of the nuisances at which its expected WER is lowest.

    The lowest of each surface's own values would be too low: among uncertain values, some
    look good by chance.
    """
    if not dimensions:
        return np.empty((len(shapes), 0))
    if dimensions == 1:
        tried = np.linspace(0, 1, _STEPS)[:, None]
    else:
        tried = qmc.Sobol(dimensions, rng=0).random(_NUISANCE_SAMPLE)
    wers = np.stack(
        [
            surrogate.mean(np.hstack([shapes, np.broadcast_to(place, (len(shapes), dimensions))]))
            for place in tried
        ]
    )
    return np.asarray(tried[wers.argmin(axis=0)])


def _values(axes: list[Axis], places: Array) -> Array:
    """Return the values at places of the unit cube."""
    columns = []
    for axis, place in zip(axes, places.T, strict=True):
        if axis.searched.choices:
            choices = np.array(axis.searched.choices)
            columns.append(choices[np.rint(place * (len(choices) - 1)).astype(int)])
        else:
            columns.append(np.array([axis.value(p) for p in place]))
    return np.array(columns).T.reshape(len(places), len(axes))
