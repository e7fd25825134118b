"""The WER of every shape that a study could have tried, with its uncertainty.

    landscape = read_landscape(record)
    effect = landscape.effect("encoder_layers")     # draws of WER per value, (S, K)

The effect of a value is the WER with the other five averaged over the search space, every shape at
its best learning rate (or whatever else is tuned as a nuisance): the question is about the shape,
and a shape should not be blamed for a learning rate that does not suit it.

What it is read from: every trial that was trained to its end and lies in the search space, as an
anchor may not, or an even selection of `reports.surrogate.MOST` of them where there are more. The
even sample of the explore phase carries the picture; refine trials and finalists, which crowd where
WERs are low, sharpen it there. A surface that is fitted to all of them is not misled by the
crowding, as a mean over trials would be, nor much by the luck with which a refine trial passed the
pruner: `benchmarks/results/calibration.md` has the marks with and without them. Pruned trials have
no final WER and stay out.

A space of up to `MOST_SHAPES` shapes is read whole. A larger one has an even sample of them, which
will not do for averages: the few of it that share a value, or a pair of values, differ from the
next few in the other questions, too, and by the same luck in every draw, so that what the others do
would look like an effect of the value, and like a sure one. Averages have samples of their own
there: each value, or pair of values, is put into the same places of the other questions.
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

_BESIDE_A_VALUE = 64
_BESIDE_A_PAIR = 16
"""Places of the other questions at which a value, or a pair of values, is read in a space that is
not read whole. With more the differences between values move by less than a tenth of their standard
deviation, and the size of an interaction by less than that."""

WIDENING = 1.1
"""Draws are spread about their mean by this factor: the fit alone knows a little too well how
smooth the surface is, as `benchmarks/calibration.py` shows."""

_STEPS = 13  # places along the range of the one nuisance hyperparameter
_NUISANCE_SAMPLE = 32  # places in the space of several
_OF_A_RANGE = 9  # values at which a continuous question, or a long list, is read
_PAIRED = 9  # values of a question that are paired with others', in a space not read whole


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
        return self.searched.listed or tuple(
            self.value(place) for place in np.linspace(0, 1, _OF_A_RANGE)
        )

    def value(self, place: float) -> float:
        """Return the value at a place: of a list, the nearest of its own."""
        if choices := self.searched.choices:
            return choices[round(place * (len(choices) - 1))]
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
        return self._effects[name]

    @cached_property
    def _effects(self) -> dict[str, tuple[tuple[float, ...], Array]]:
        return {
            axis.name: (
                axis.values,
                np.stack(self._averages({axis.name: axis.values}, _BESIDE_A_VALUE), axis=1),
            )
            for axis in self.questions
        }

    def pair(self, one: str, two: str) -> tuple[tuple[float, ...], tuple[float, ...], Array]:
        """Return values of two questions and `(S, K, L)` draws of the WER with each pair of them.

        The values are all that there are, or some of many in a space that is not read whole.
        """
        values = {axis.name: axis.values for axis in self.questions}
        ones, twos = (values[n] if self._whole else _some(values[n], _PAIRED) for n in (one, two))
        table = np.array(self._averages({one: ones, two: twos}, _BESIDE_A_PAIR))
        return ones, twos, np.moveaxis(table.reshape(len(ones), len(twos), -1), -1, 0)

    @property
    def _whole(self) -> bool:
        """Whether `shapes` are all that there are."""
        return len(self.shapes) == math.prod(len(axis.values) for axis in self.questions)

    def _averages(self, values: dict[str, tuple[float, ...]], beside: int) -> list[Array]:
        """Return `(S,)` draws of the WER with each combination of values, the others averaged.

        Over all shapes that have it, or over an even sample of `beside` places of the others.
        """
        names = [axis.name for axis in self.questions]
        own = [names.index(name) for name in values]
        cells = list(product(*values.values()))
        if self._whole:
            chosen = (np.isclose(self.shapes[:, own], cell).all(axis=1) for cell in cells)
            return [self.draws[:, shapes].mean(axis=1) for shapes in chosen]
        rest = [column for column in range(len(names)) if column not in own]
        others = _shapes([self.questions[column] for column in rest], beside, self.surrogate.seed)
        places = np.empty((len(cells), len(others), len(names)))
        places[:, :, rest] = others
        for column, found in zip(own, zip(*cells, strict=True), strict=True):
            axis = self.questions[column]
            places[:, :, column] = np.array([[axis.place(value)] for value in found])
        _, draws = _read(self.surrogate, places.reshape(-1, len(names)), len(self.axes))
        return list(draws.reshape(len(draws), *places.shape[:2]).mean(axis=2).T)

    def best(self) -> dict[str, float]:
        """Return the shape, and its nuisances, with the lowest expected WER."""
        row = int(np.argmin(self.expected))
        values = [*self.shapes[row], *self.nuisances[row]]
        return {axis.name: float(v) for axis, v in zip(self.axes, values, strict=True)}


def basis(record: StudyRecord) -> pd.DataFrame:
    """Return the trials that effects may be read from: results of the space that was searched.

    An anchor has all six values of its own. Where one that the study holds fixed is another, what
    that does would be taken for an effect of the values that are searched.
    """
    results = record.results[np.isfinite(record.results["wer"].astype(float))]
    fixed = record.fixed_values
    own = results[list(fixed)].to_numpy(dtype=float, na_value=np.nan)
    agrees = (own == list(fixed.values())).all(axis=1)
    return results[np.array(results["anchor"].isna() | agrees, dtype=bool)]


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
    places = _shapes(questions, MOST_SHAPES, seed)
    nuisance, draws = _read(surrogate, places, len(axes))
    told = surrogate.left_out()
    kept = surrogate.warp.inverse(surrogate.targets)
    return Landscape(
        axes=tuple(axes),
        surrogate=surrogate,
        shapes=_values(questions, places),
        nuisances=_values(axes[len(questions) :], nuisance),
        draws=draws,
        trials=len(surrogate.targets),
        known=len(wers),
        repeats=len(surrogate.units) - len(np.unique(surrogate.units, axis=0)),
        rank_correlation=float(spearmanr(told, kept).statistic) if np.ptp(told) else 0.0,
        explained=float(1 - ((told - kept) ** 2).sum() / ((kept - kept.mean()) ** 2).sum()),
    )


def _read(surrogate: Surrogate, shapes: Array, dimensions: int) -> tuple[Array, Array]:
    """Return for shapes `(M, Q)` the places of their nuisances `(M, D − Q)` and draws `(S, M)`."""
    nuisance = _tuned(surrogate, shapes, dimensions - shapes.shape[1])
    return nuisance, _widened(surrogate.paths(np.hstack([shapes, nuisance])).astype(float))


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


def _shapes(questions: Sequence[Axis], most: int, seed: int) -> Array:
    """Return the places of all shapes, or of an even sample of `most` of them."""
    sides = [np.array([axis.place(value) for value in axis.values]) for axis in questions]
    if math.prod(len(side) for side in sides) <= most:
        return np.array(list(product(*sides)))
    points = qmc.Sobol(len(sides), rng=seed).random(most)
    return np.stack(
        [
            side[(point * len(side)).astype(int)]
            for side, point in zip(sides, points.T, strict=True)
        ],
        axis=1,
    )


def _some(values: tuple[float, ...], most: int) -> tuple[float, ...]:
    """Return values from the first to the last, evenly spread where there are more than `most`."""
    chosen = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return tuple(values[place] for place in chosen)


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
