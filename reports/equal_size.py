"""The effect of each question at equal size, so that "wider" is not "bigger" in disguise.

    data = equal_size_data(record)
    for question in data.questions:
        print(question.sentence)        # At equal size, 4 encoder layers are 3.1 points better ...

A deeper or wider encoder has more parameters, and more parameters lower WER by themselves. Whoever
has a budget of parameters wants to know how to spend it: of two networks of the same size, is the
deep and narrow one better than the flat and wide one? That is read from the even sample by an
analysis of covariance, for one question at a time (Cohen et al. 2003, chapter 8):

    WER = s(log parameters) + effect of the value + effect of the learning rate + noise

s is a polynomial of degree one to three, as the number of trials allows; the third comes close to
a power law of size with a floor (Kaplan et al. 2020, arXiv 2001.08361), which is exponential in the
logarithm. Nuisances enter by a parabola. Effects are deviations from their mean. Intervals are from
resamples of the trials, widened for the degrees of freedom that the fit uses up; those of pairs of
values hold for all pairs of a question at once.

What a question leaves of the variance of size bounds what can be told: where its value all but
decides the parameter count, the two cannot be separated, and no effect is given.

    N trials, P columns of the fit, K values, R resamples
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.stats import norm, t

from reports.landscape import axes_of
from reports.questions import QUESTIONS, SIX
from reports.style import EXPLORE, INK, MUTED, Panel, slug
from reports.wording import counted, number, percent, points, signed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from reports.landscape import Axis
    from reports.questions import Question
    from reports.record import StudyRecord
    from reports.surrogate import Array

    Counts = NDArray[np.int_]

SEPARABLE = 0.10
"""A question that leaves less of the variance of log parameters cannot be told from size."""

RESAMPLES = 1000
"""Bootstrap resamples of the trials behind each interval."""

SPARE = 6
"""Trials that there must be beyond the columns of the fit."""

PER_VALUE = 3
"""Trials with a value without which it is left out."""

LITTLE_LEFT = 0.5
"""Share of the variance of size, left among trials with one value, below which a page warns."""

_MOST_VALUES = 8  # a question with more is read in quarters of its trials
_MOST = 2000  # trials that enter; the first of an even sample are one themselves
_NUISANCES_FROM = 24  # trials from which nuisances enter the fit


@dataclass(frozen=True, kw_only=True)
class EqualValue:
    """One value of a question."""

    value: float
    """The value; of a question with many values, the median of a quarter of its trials."""
    label: str
    """The value in words; of a quarter of the trials its ends: 16 to 20."""
    plain: float
    """Its mean WER less the mean of all values, whatever their sizes (a fraction)."""
    effect: float
    """The same at equal size."""
    low: float
    """Lower end of the 95 % interval of `effect`."""
    high: float
    """Upper end."""
    trials: int
    """Trials that have it."""


@dataclass(frozen=True, kw_only=True)
class EqualQuestion:
    """One question at equal size."""

    question: Question
    """The question."""
    values: tuple[EqualValue, ...]
    """Per value, ascending; empty where nothing can be said."""
    left: float | None
    """Share of the variance of log parameters that trials with the same value still have."""
    clear: bool
    """Whether two values differ beyond doubt."""
    sentence: str
    """The above for a person."""


@dataclass(frozen=True, kw_only=True)
class EqualSizeData:
    """All questions that vary."""

    questions: tuple[EqualQuestion, ...]
    """In their order."""
    trials: int
    """Trials that they are read from."""
    refusal: str
    """Why nothing is computed; empty if something is."""

    @property
    def shown(self) -> tuple[EqualQuestion, ...]:
        """The questions that have values to draw."""
        return tuple(item for item in self.questions if item.values)


def equal_size_data(record: StudyRecord) -> EqualSizeData:
    """Estimate the effect of each question's values among networks of the same size."""
    rows = record.results[record.results["even"]]
    sizes = rows["parameters"].to_numpy(dtype=float, na_value=np.nan)
    wers = rows["wer"].to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(sizes) & (sizes > 0) & np.isfinite(wers)
    rows, sizes, wers = rows[known][:_MOST], sizes[known][:_MOST], wers[known][:_MOST]
    axes = {axis.name: axis for axis in axes_of(record)}
    questions = [question for question in QUESTIONS if question.name in axes]
    refusal = ""
    if not questions:
        refusal = "None of the six questions was searched over more than one value."
    elif len(rows) < SPARE + 3:
        refusal = (
            f"It takes {SPARE + 3} finished explore trials or more with known parameters; there "
            f"{'is' if len(rows) == 1 else 'are'} {len(rows)}."
        )
    elif np.ptp(wers) == 0:
        refusal = "All finished explore trials have the same WER, so there is nothing to explain."
    elif np.ptp(sizes) == 0:
        refusal = "All networks have the same number of parameters, so effects are at equal size."
    if refusal:
        return EqualSizeData(questions=(), trials=len(rows), refusal=refusal)
    logs = np.log(sizes)
    weights = np.random.default_rng(0).multinomial(
        len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES
    )
    common = np.hstack([_curve(logs), _nuisances(rows, axes)])
    found = [
        _question(question, rows[axes[question.name].column], logs, wers, common, weights)
        for question in questions
    ]
    return EqualSizeData(questions=tuple(found), trials=len(rows), refusal="")


def _curve(logs: Array) -> Array:
    """Return a polynomial of log parameters `(N, 1 to 3)`, without the constant."""
    degree = 1 if len(logs) < 16 else 2 if len(logs) < 32 else 3
    unit = (logs - logs.mean()) / logs.std()
    degree = min(degree, len(np.unique(unit)) - 1)
    return np.stack([unit**k for k in range(1, degree + 1)], axis=1)


def _nuisances(rows: pd.DataFrame, axes: dict[str, Axis]) -> Array:
    """Return a parabola for each nuisance, `(N, 2 each)`; the unknown stand in the middle."""
    columns = []
    if len(rows) >= _NUISANCES_FROM:
        for name, axis in axes.items():
            if name not in SIX:
                values = rows[axis.column].to_numpy(dtype=float, na_value=np.nan)
                place = np.nan_to_num(np.array([axis.place(v) for v in values]), nan=0.5) - 0.5
                columns += [place, place**2] if len(np.unique(place)) > 2 else [place]
    return np.stack(columns, axis=1) if columns else np.empty((len(rows), 0))


def _labels(values: Array, place: Counts, count: int) -> list[str]:
    """Return in words which values each group holds."""
    ends = [(values[place == k].min(), values[place == k].max()) for k in range(count)]
    return [number(a) if a == b else f"{number(a)} to {number(b)}" for a, b in ends]


def _groups(values: Array) -> tuple[Array, Counts]:
    """Return the values of a question and which of them each trial has, −1 for none of them."""
    distinct = np.unique(values[np.isfinite(values)])
    if len(distinct) > _MOST_VALUES:
        edges = np.quantile(values[np.isfinite(values)], [0.25, 0.5, 0.75])
        place = np.where(np.isfinite(values), np.searchsorted(edges, values), -1)
        distinct = np.array([np.median(values[place == k]) for k in range(4) if (place == k).any()])
        place = np.where(place >= 0, np.searchsorted(np.unique(place[place >= 0]), place), -1)
    else:
        place = np.where(np.isfinite(values), np.searchsorted(distinct, values), -1)
    enough = np.bincount(place[place >= 0], minlength=len(distinct)) >= PER_VALUE
    renamed = np.append(np.where(enough, np.cumsum(enough) - 1, -1), -1)
    return distinct[enough], renamed[place]


def _question(
    question: Question,
    column: pd.Series[float],
    logs: Array,
    wers: Array,
    common: Array,
    weights: Counts,
) -> EqualQuestion:
    given: Array = np.array(column.to_numpy(dtype=float, na_value=np.nan))
    values, place = _groups(given)
    labels = _labels(given, place, len(values))

    def silent(sentence: str, left: float | None = None) -> EqualQuestion:
        return EqualQuestion(
            question=question, values=(), left=left, clear=False, sentence=sentence
        )

    used = place >= 0
    columns = len(values) + common.shape[1]
    if len(values) < 2:
        return silent(f"{question.label}: fewer than two values have {PER_VALUE} trials.")
    if used.sum() < columns + SPARE:
        return silent(
            f"{question.label}: {counted(int(used.sum()), 'trial')} are too few; it takes "
            f"{columns + SPARE}."
        )
    indicator = (place[used, None] == np.arange(len(values))).astype(float)
    logs, wers, weights = logs[used], wers[used], weights[:, used]
    means = (indicator.T @ logs) / indicator.sum(axis=0)
    total = float(((logs - logs.mean()) ** 2).sum())
    left = float(((logs - indicator @ means) ** 2).sum()) / total if total > 0 else 0.0
    if left < SEPARABLE:
        return silent(
            f"{question.label}: its value all but decides the number of parameters (trials with "
            f"the same value keep {percent(left, 0)} of the variance of size), so the two cannot "
            "be separated.",
            left,
        )
    design = np.hstack([indicator, common[used]])
    found = _fit(design, wers, np.ones((1, len(wers))))[0, : len(values)]
    draws = _fit(design, wers, weights)[:, : len(values)]
    draws = draws[((weights @ indicator) > 0).all(axis=1)]
    # Resampled residuals are too small by the degrees of freedom that the fit has used up, and
    # their tails are a normal's, not those of the t distribution that a small sample has.
    freedom = len(wers) - columns
    tails = float(t.ppf(0.975, freedom)) / float(norm.ppf(0.975))
    draws = found + (draws - found) * math.sqrt(len(wers) / freedom) * tails
    plain = (indicator.T @ wers) / indicator.sum(axis=0)
    effects, spread = found - found.mean(), draws - draws.mean(axis=1, keepdims=True)
    low, high = np.quantile(spread, [0.025, 0.975], axis=0)
    told = tuple(
        EqualValue(
            value=float(value),
            label=labels[k],
            plain=float(plain[k] - plain.mean()),
            effect=float(effects[k]),
            low=float(low[k]),
            high=float(high[k]),
            trials=int(indicator[:, k].sum()),
        )
        for k, value in enumerate(values)
    )
    clear, sentence = _compare(question, told, draws)
    if left < LITTLE_LEFT:
        sentence += (
            f" Trials with one value are much of a size ({percent(left, 0)} of its variance is "
            "left among them), so the two are hard to tell apart."
        )
    return EqualQuestion(question=question, values=told, left=left, clear=clear, sentence=sentence)


def _fit(design: Array, wers: Array, weights: Counts | Array) -> Array:
    """Return the coefficients `(R, P)` of weighted least squares, one row per row of weights."""
    n, size = design.shape
    products = (design[:, :, None] * design[:, None, :]).reshape(n, size * size)
    normal = (weights @ products).reshape(-1, size, size)
    moments = weights @ (design * wers[:, None])
    inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)
    return np.asarray(np.einsum("rij,rj->ri", inverse, moments))


def _compare(question: Question, values: tuple[EqualValue, ...], draws: Array) -> tuple[bool, str]:
    """Say which two values differ most surely, by intervals that hold for all pairs at once.

    Simultaneous intervals by the largest deviation, in standard errors, over all pairs of a
    resample.
    """
    pairs = list(combinations(range(len(values)), 2))
    estimates = np.array([values[b].effect - values[a].effect for a, b in pairs])
    drawn = np.stack([draws[:, b] - draws[:, a] for a, b in pairs], axis=1)
    errors = np.maximum(drawn.std(axis=0, ddof=1), 1e-12)
    critical = float(np.quantile((np.abs(drawn - estimates) / errors).max(axis=1), 0.95))
    chosen = int(np.argmax(np.abs(estimates) / errors))
    a, b = pairs[chosen] if estimates[chosen] < 0 else pairs[chosen][::-1]
    lead, reach = abs(float(estimates[chosen])), critical * float(errors[chosen])
    interval = f"(95 %: {signed(lead - reach, 2)} to {signed(lead + reach, 2)})"
    better, worse = question.phrase.format(values[b].label), values[a].label
    if values[b].label == number(values[b].value):
        better = question.said(values[b].value)
    verb = "are" if better.endswith("s") else "is"
    if lead > reach:
        plain = values[a].plain - values[b].plain
        raw = f"better by {points(plain)}" if plain >= 0 else f"worse by {points(plain)}"
        return True, (
            f"At equal size, {better} {verb} {points(lead)} better than {worse} {interval}; "
            f"whatever the size, {raw}."
        )
    return False, (
        f"{question.label}: no difference is shown at equal size. The clearest one: {better} "
        f"{verb} {points(lead)} better than {worse} {interval}."
    )


def plot_equal_size(axes: Axes, item: EqualQuestion, limit: float) -> None:
    """Draw the effects at equal size with their intervals, and the plain ones as open rings."""
    places = np.arange(len(item.values))
    plain, effect, low, high = (
        100 * np.array([getattr(value, key) for value in item.values])
        for key in ("plain", "effect", "low", "high")
    )
    axes.axhline(0, color=MUTED, lw=0.9, zorder=1)
    axes.plot(places, plain, color=MUTED, lw=1.1, ls=(0, (3, 2)), zorder=2)
    axes.scatter(places, plain, s=34, facecolors="none", edgecolors=MUTED, linewidth=1.3, zorder=3)
    axes.vlines(places, low, high, color=EXPLORE, lw=1.8, zorder=4)
    axes.plot(places, effect, "o-", color=EXPLORE, lw=1.5, markersize=6, zorder=5)
    axes.set_xlim(-0.4, len(places) - 0.6)
    axes.set_ylim(-limit, limit)
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    names = [value.label for value in item.values]
    axes.xaxis.set_major_formatter(FuncFormatter(lambda _, place: names[place or 0]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(item.question.label)
    axes.set_ylabel("WER, points", color=INK)
    axes.grid(visible=False, axis="x")


def equal_size_panels(data: EqualSizeData) -> list[Panel]:
    """Return one panel per question whose effect at equal size could be estimated."""
    shown = data.shown
    ends = [
        abs(end)
        for item in shown
        for v in item.values
        for end in (v.plain, v.effect, v.low, v.high)
    ]
    limit = 108 * max(ends, default=0.01)

    def panel(item: EqualQuestion) -> Panel:
        return Panel(
            name=slug(f"equal size {item.question.name}"),
            title=f"{item.question.label} at equal size",
            alt=_describe(item),
            paint=lambda axes: plot_equal_size(axes, item, limit),
            left=60,
        )

    return [panel(item) for item in shown]


def _describe(item: EqualQuestion) -> str:
    told = "; ".join(
        f"{v.label}: {signed(v.effect, 2)} ({signed(v.low, 2)} to {signed(v.high, 2)}), "
        f"whatever the size {signed(v.plain, 2)} (n = {v.trials})"
        for v in item.values
    )
    return (
        f"WER by {item.question.label.lower()} among networks of the same size, in points from the "
        f"mean, with 95 % intervals. {told}."
    )
