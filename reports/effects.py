"""WER against each hyperparameter: what every trial reached, and the effect of each value.

The line is the effect (`reports.landscape`) with its 95 % band: the WER to expect with a value
when the other questions are averaged over the search space. Where too few trials finished for
that, it joins the medians of the even sample (results of the explore phase that are no anchors).
Trials of the refine phase crowd where the sampler expected a low WER, and anchors were
chosen by hand: a median over those would say as much about the choosing as about the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.questions import QUESTIONS, label_of, values_of
from reports.style import (
    ANCHOR,
    DOTS,
    EXPLORE,
    INK,
    LINES,
    MUTED,
    PAPER,
    REFINE,
    Panel,
    fewer_dots,
    log_ticks,
    place_labels,
    slug,
)
from reports.trials import column_of
from reports.wording import number, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from reports.record import StudyRecord
    from reports.verdicts import ValueEffect, Verdict

KINDS = {
    "explore": (EXPLORE, "o"),
    "refine": (REFINE, "s"),
    "finalist": (LINES[2], "P"),
    "anchor": (ANCHOR, "D"),
}
"""Colour and marker of each kind of result, on every figure that shows trials as dots."""


@dataclass(frozen=True, kw_only=True)
class EffectData:
    """WER against one hyperparameter."""

    name: str
    """The hyperparameter."""

    label: str
    """Its name on the axis."""

    points: pd.DataFrame
    """One row per trial with a measured WER: number, value, wer, kind (explore, refine, anchor,
    or pruned), anchor."""

    medians: pd.DataFrame
    """Per value: value, wer (median of the even sample), n. Empty for a continuous range."""

    effect: tuple[ValueEffect, ...]
    """Per value: expected WER with its interval; empty where it was not estimated."""

    ticks: tuple[float, ...]
    """The values on the axis; empty for a continuous range, where the axis chooses."""

    low: float
    """Smallest value searched or seen."""

    high: float
    """Largest value searched or seen."""

    log: bool
    """Whether the axis is logarithmic."""


def kind_of(trials: pd.DataFrame) -> pd.Series[str]:
    """Return how each trial is drawn: explore, refine, anchor or pruned."""
    kind = pd.Series("explore", index=trials.index)
    kind[trials["phase"] == "refine"] = "refine"
    kind[trials["phase"] == "finalist"] = "finalist"
    kind[trials["anchor"].notna()] = "anchor"
    kind[trials["outcome"] == "pruned"] = "pruned"
    return kind


def dots_note(record: StudyRecord) -> str:
    """Say that not every trial is drawn as a dot; empty where every one is."""
    if kind_of(record.trials).value_counts().max() > DOTS:
        return f"Of each kind of trials about {DOTS:,} are drawn, evenly chosen."
    return ""


def effects_data(record: StudyRecord, verdicts: Sequence[Verdict] = ()) -> tuple[EffectData, ...]:
    """Return the data of one panel per question, then per other searched hyperparameter."""
    asked = [question.name for question in QUESTIONS]
    others = [name for name in record.searched if name not in asked]
    effects = {verdict.question.name: verdict.effects for verdict in verdicts}
    return tuple(_effect(record, name, effects.get(name, ())) for name in [*asked, *others])


def _effect(record: StudyRecord, name: str, effect: tuple[ValueEffect, ...]) -> EffectData:
    column = name if name in record.trials else column_of(name)
    trials = record.trials[record.trials["result"] | (record.trials["outcome"] == "pruned")]
    trials = trials[trials[column].notna() & np.isfinite(trials["wer"].astype(float))]
    points = pd.DataFrame(
        {
            "number": trials["number"].astype(int),
            "value": trials[column].astype(float),
            "wer": trials["wer"].astype(float),
            "kind": kind_of(trials),
            "anchor": trials["anchor"],
        }
    ).reset_index(drop=True)
    searched = record.searched.get(name)
    continuous = searched is not None and not searched.listed
    even = trials[trials["even"]]
    medians = pd.DataFrame({"value": even[column].astype(float), "wer": even["wer"].astype(float)})
    medians = medians.groupby("value")["wer"].agg(wer="median", n="size").reset_index()
    ticks = () if continuous or name not in record.trials else tuple(values_of(record, name))
    log = searched.log if continuous and searched else _geometric(ticks)
    span = [*points["value"], *ticks, *((searched.low, searched.high) if searched else ())]
    return EffectData(
        name=name,
        label=label_of(name),
        points=points,
        medians=medians.iloc[:0] if continuous else medians,
        effect=effect,
        ticks=ticks,
        low=min(span, default=0.0),
        high=max(span, default=1.0),
        log=log and min(span, default=0.0) > 0,
    )


def _geometric(values: tuple[float, ...]) -> bool:
    """Return whether values are spaced more evenly in their logarithm than as they are."""
    if len(values) < 3 or values[0] <= 0:
        return False
    steps, ratios = np.diff(values), np.diff(np.log(values))
    return bool(np.std(ratios) / np.mean(ratios) < np.std(steps) / np.mean(steps))


def wer_limits(data: tuple[EffectData, ...]) -> tuple[float, float]:
    """Return the one range of WER, in percent, that all panels share.

    It is set by the bulk of the results. Pruned trials were stopped early, when their WER was high,
    and a few others may have hardly learned; they would squeeze the rest into a corner, so what
    lies above (three interquartile ranges over the upper quartile) is drawn at the upper edge.
    Effects, with their intervals, are always inside.
    """
    wers = pd.concat([effect.points for effect in data]) if data else pd.DataFrame()
    if wers.empty:
        return 0.0, 100.0
    results = wers[wers["kind"] != "pruned"]["wer"]
    shown = 100 * (results if len(results) else wers["wer"])
    lower, upper = shown.quantile(0.25), shown.quantile(0.75)
    ends = [100 * end for effect in data for e in effect.effect for end in (e.low, e.wer, e.high)]
    highest = max([float(shown[shown <= upper + 3 * (upper - lower)].max()), *ends])
    lowest = min([float(shown.min()), *ends])
    pad = 0.12 * (highest - lowest) or max(0.1 * highest, 1.0)
    return max(0.0, lowest - pad) - (0.02 * pad), highest + pad


def plot_effect(axes: Axes, effect: EffectData, limits: tuple[float, float]) -> None:
    """Draw one panel: dots per trial, the effect and its band, anchors by name."""
    kinds = [fewer_dots(rows) for _, rows in effect.points.groupby("kind", sort=False)]
    points = pd.concat(kinds) if kinds else effect.points
    points = points.assign(percent=100 * points["wer"])
    _axis(axes, effect)
    pruned = points[points["kind"] == "pruned"]
    above = pruned["percent"] > limits[1]
    axes.scatter(
        pruned["value"][~above],
        pruned["percent"][~above],
        s=30,
        facecolors="none",
        edgecolors=MUTED,
        alpha=0.55,
    )
    axes.scatter(
        pruned["value"][above],
        np.full(int(above.sum()), limits[1]),
        s=34,
        marker="^",
        facecolors="none",
        edgecolors=MUTED,
        alpha=0.55,
        clip_on=False,
    )
    if effect.effect:
        values, *wers = np.array([(e.value, e.wer, e.low, e.high) for e in effect.effect]).T
        middle, low, high = (100 * wer for wer in wers)
        axes.fill_between(values, low, high, color=INK, alpha=0.13, linewidth=0, zorder=1)
        axes.plot(values, middle, color=INK, linewidth=1.6, zorder=2)
    elif len(effect.medians) > 1:
        medians = effect.medians.assign(percent=100 * effect.medians["wer"])
        sns.lineplot(medians, x="value", y="percent", ax=axes, color=INK, linewidth=1.4, zorder=2)
    for kind, (colour, marker) in KINDS.items():
        rows = points[points["kind"] == kind]
        if rows.empty:
            continue
        beyond = rows["percent"] > limits[1]
        axes.scatter(
            rows["value"][beyond],
            np.full(int(beyond.sum()), limits[1]),
            s=34,
            marker="^",
            color=colour,
            clip_on=False,
            zorder=5,
        )
        rows = rows[~beyond]
        sns.scatterplot(
            rows,
            x="value",
            y="percent",
            ax=axes,
            color=colour,
            marker=marker,
            s=46 if kind != "anchor" else 52,
            alpha=0.85,
            edgecolor=PAPER,
            linewidth=0.8,
            zorder=4 if kind == "anchor" else 3,
        )
    axes.set_ylim(*limits)
    axes.set_xlabel(effect.label)
    axes.set_ylabel("dev WER, %")
    anchors = points[points["kind"] == "anchor"].sort_values("wer")
    named = anchors.drop_duplicates("anchor")
    place_labels(
        axes,
        list(
            zip(
                named["value"], named["percent"].clip(upper=limits[1]), named["anchor"], strict=True
            )
        ),
        list(zip(points["value"], points["percent"].clip(upper=limits[1]), strict=True)),
    )


def _axis(axes: Axes, effect: EffectData) -> None:
    """Span the range, with ticks on the values themselves; on some where they are many."""
    low, high = effect.low, effect.high
    if effect.log:
        axes.set_xscale("log")
        room = (high / low) ** 0.1 if high > low else 1.5
        axes.set_xlim(low / room, high * room)
    else:
        room = 0.1 * (high - low) or 0.5
        axes.set_xlim(low - room, high + room)
    if effect.ticks:
        axes.xaxis.set_major_locator(FixedLocator(effect.ticks[:: -(-len(effect.ticks) // 8)]))
    elif effect.log:
        axes.xaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_xlim())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.grid(visible=False, axis="x")


def effect_panels(record: StudyRecord, verdicts: Sequence[Verdict] = ()) -> list[Panel]:
    """Return one panel per hyperparameter that has at least one measured WER."""
    data = tuple(effect for effect in effects_data(record, verdicts) if len(effect.points))
    limits = wer_limits(data)

    def panel(effect: EffectData) -> Panel:
        return Panel(
            name=slug(f"effect {effect.name}"),
            title=f"WER against {effect.label.lower()}",
            alt=_describe(effect),
            paint=lambda axes: plot_effect(axes, effect, limits),
        )

    return [panel(effect) for effect in data]


def _describe(effect: EffectData) -> str:
    kinds = effect.points["kind"].value_counts()
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in (*KINDS, "pruned") if kind in kinds)
    medians = "; ".join(
        f"{number(row.value)}: {percent(row.wer)} (n = {row.n})"
        for row in effect.medians.itertuples()
    )
    text = f"Scatter of dev WER against {effect.label.lower()} ({counts} trials)."
    if effect.effect:
        told = "; ".join(
            f"{number(e.value)}: {percent(e.wer)} ({percent(e.low)} to {percent(e.high)})"
            for e in effect.effect
        )
        return f"{text} Expected WER by value, with 95 % intervals: {told}."
    return f"{text} Median by value: {medians}." if medians else text
