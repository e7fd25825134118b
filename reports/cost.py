"""What a low WER costs: in weights, in computation, in training time and in decoding time.

The frontier holds the configurations that no other beats in both: everything else is dominated.
Most were trained with one seed, so a neighbour of the frontier may belong on it.

Of a pruned trial the final WER is not known: training on would most likely have lowered the last
one that was seen. It is drawn there, open and pointing down, against the costs that it has in
common with finished trials (its weights and its computation, not its time), and no frontier is made
of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FuncFormatter, NullLocator

from reports.effects import KINDS, kind_of
from reports.questions import SIX
from reports.style import INK, MUTED, PAPER, Panel, fewer_dots, log_ticks, place_labels, slug
from reports.trials import column_of
from reports.wording import count, counted, duration, number, percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from reports.record import StudyRecord


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One axis of cost."""

    column: str
    """The column of the trials' table."""

    label: str
    """Its name on the axis."""

    title: str
    """The panel's title."""

    read: Callable[[float], str]
    """How a value reads."""

    ticks: tuple[float, ...] = ()
    """Round values of the unit; decimal ones where empty."""

    of_shape: bool = False
    """Whether it is the shape's alone, so that a trial that was stopped has it too."""


def brief_seconds(seconds: float) -> str:
    """Return seconds that may be thousandths: 12 ms, 1.5 s."""
    return f"{number(1000 * seconds)} ms" if seconds < 1 else f"{number(seconds)} s"


_HOURS = tuple(3600 * hours for hours in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))

COSTS = (
    Cost(
        column="parameters",
        label="parameters",
        title="WER against parameters",
        read=count,
        of_shape=True,
    ),
    Cost(
        column="flops_per_second",
        label="FLOPs per second of audio",
        title="WER against computation",
        read=count,
        of_shape=True,
    ),
    Cost(
        column="train_seconds",
        label="training time",
        title="WER against training time",
        read=duration,
        ticks=(1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1200, 1800, *_HOURS),
    ),
    Cost(
        column="real_time_factor",
        label="decoding time per second of audio",
        title="WER against decoding time",
        read=brief_seconds,
    ),
)


def cost_data(record: StudyRecord, column: str) -> pd.DataFrame:
    """Return the configurations with a known cost, cheapest first.

    Seeds of one configuration are one row: its mean WER, its median cost, and the number of its
    best trial. Apart, they would follow one another on the frontier, by nothing but their luck.

    Columns: number, cost, wer, kind, anchor, and `frontier`: True where no other is at least as
    good in both and better in one.
    """
    results = record.results[record.results[column].notna()]
    names = [*SIX, *(column_of(name) for name in record.searched if name not in SIX)]
    shapes = results[names].astype(float).fillna(-1.0)
    data = pd.DataFrame(
        {
            "number": results["number"].astype(int),
            "cost": results[column].astype(float),
            "wer": results["wer"].astype(float),
            "kind": kind_of(results),
            "anchor": results["anchor"],
            "shape": shapes.groupby(names, sort=False).ngroup() if len(shapes) else 0,
        }
    )
    data = data[np.isfinite(data["cost"]) & (data["cost"] > 0)].sort_values(["wer", "number"])
    grouped = data.groupby("shape", sort=False)
    data = grouped.first().assign(cost=grouped["cost"].median(), wer=grouped["wer"].mean())
    data = data.sort_values(["cost", "wer", "number"]).reset_index(drop=True)
    lowest = data.groupby("cost")["wer"].min()
    lowest_of_cheaper = lowest.cummin().shift(fill_value=np.inf)
    data["frontier"] = (data["wer"] == data["cost"].map(lowest)) & (
        data["wer"] < data["cost"].map(lowest_of_cheaper)
    )
    return pd.DataFrame(data)


def stopped_data(record: StudyRecord, cost: Cost) -> pd.DataFrame:
    """Return the pruned trials with a known cost: number, cost, and the last WER that was seen."""
    pruned = record.trials["outcome"] == "pruned"
    trials = record.trials[pruned] if cost.of_shape else record.trials.iloc[:0]
    data = pd.DataFrame(
        {
            "number": trials["number"].astype(int),
            "cost": trials[cost.column].astype(float),
            "wer": trials["wer"].astype(float),
        }
    )
    known = np.isfinite(data.to_numpy(dtype=float)).all(axis=1) & (data["cost"] > 0).to_numpy()
    return pd.DataFrame(data[known])


def wer_ceiling(wers: pd.Series[float]) -> float:
    """Return the WER, in percent, above which a few outliers would squeeze the rest together."""
    lower, upper = (100 * float(wers.quantile(q)) for q in (0.25, 0.75))
    return float((100 * wers)[100 * wers <= upper + 3 * (upper - lower)].max())


def plot_cost(axes: Axes, data: pd.DataFrame, stopped: pd.DataFrame, cost: Cost) -> None:
    """Draw results as dots, pruned trials open, and the frontier as steps with trial numbers.

    What lies far above the bulk of the results is drawn at the upper edge, as a triangle.
    """
    names = [f"#{number}" for number in data["number"]]
    shown = data.assign(percent=100 * data["wer"], name=names)
    ceiling = wer_ceiling(data["wer"])
    floor = 100 * float(data["wer"].min())
    pad = 0.1 * (ceiling - floor) or max(0.1 * ceiling, 1.0)
    top = ceiling + pad
    axes.set_ylim(floor - 1.6 * pad, top)
    shown["beyond"] = shown["percent"] > top
    shown["percent"] = shown["percent"].clip(upper=top)
    costs = [*shown["cost"], *stopped["cost"]]
    low, high = min(costs), max(costs)
    room = (high / low) ** 0.1 if high > low else 1.5
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room)
    frontier = shown[shown["frontier"]]
    axes.step(
        [*frontier["cost"], shown["cost"].max()],
        [*frontier["percent"], frontier["percent"].iloc[-1]],
        where="post",
        color=INK,
        linewidth=1.3,
        zorder=2,
    )
    _stopped(axes, fewer_dots(stopped), top)
    for kind, (colour, marker) in KINDS.items():
        rows = shown[shown["kind"] == kind]
        if rows.empty:
            continue
        rows = pd.concat([fewer_dots(rows), rows[rows["frontier"]]]).drop_duplicates("number")
        for beyond, drawn in rows.groupby("beyond"):
            sns.scatterplot(
                drawn,
                x="cost",
                y="percent",
                ax=axes,
                color=colour,
                marker="^" if beyond else marker,
                s=50,
                alpha=0.9,
                edgecolor=PAPER,
                linewidth=0.8,
                clip_on=False,
                zorder=3,
            )
    axes.set_xlabel(f"{cost.label} (logarithmic)")
    axes.set_ylabel("dev WER, %")
    axes.grid(visible=False, axis="x")
    _ticks(axes, cost)
    anchors = shown[shown["kind"] == "anchor"].sort_values("wer").drop_duplicates("anchor")
    front = shown[shown["frontier"] & ~shown.index.isin(anchors.index)]
    named = list(
        zip(
            [*front["cost"], *anchors["cost"]],
            [*front["percent"], *anchors["percent"]],
            [*front["name"], *anchors["anchor"]],
            strict=True,
        )
    )
    dots = list(zip(shown["cost"], shown["percent"], strict=True))
    place_labels(axes, named, dots + _along(frontier, shown["cost"].max()), below=True)


def _stopped(axes: Axes, stopped: pd.DataFrame, top: float) -> None:
    """Draw pruned trials open and pointing down, and those above the upper edge pointing up."""
    wers = 100 * stopped["wer"]
    for marker, drawn in (("v", wers <= top), ("^", wers > top)):
        axes.scatter(
            stopped["cost"][drawn],
            wers[drawn].clip(upper=top),
            s=36,
            marker=marker,
            facecolors="none",
            edgecolors=MUTED,
            alpha=0.6,
            clip_on=False,
            zorder=2,
        )


def _ticks(axes: Axes, cost: Cost) -> None:
    """Put round values of the unit on the logarithmic axis."""
    low, high = axes.get_xlim()
    ticks = [tick for tick in cost.ticks if low <= tick <= high]
    ticks = ticks[:: -(-len(ticks) // 6)] if len(ticks) > 2 else log_ticks(low, high)
    axes.set_xticks(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost.read(value)))


def _along(frontier: pd.DataFrame, end: float) -> list[tuple[float, float]]:
    """Return points along the steps of the frontier, close enough that no name fits between."""
    points = []
    corners = [*frontier["cost"], end]
    for i, wer in enumerate(frontier["percent"]):
        points += [(x, wer) for x in np.geomspace(corners[i], corners[i + 1], 20)]
        if i + 1 < len(frontier):
            fall = np.linspace(wer, frontier["percent"].iloc[i + 1], 20)
            points += [(corners[i + 1], y) for y in fall]
    return points


def cost_panels(record: StudyRecord) -> list[Panel]:
    """Return one panel per axis of cost that the results have."""
    known = [(cost, cost_data(record, cost.column)) for cost in COSTS]
    return [_panel(cost, data, stopped_data(record, cost)) for cost, data in known if len(data)]


def _panel(cost: Cost, data: pd.DataFrame, stopped: pd.DataFrame) -> Panel:
    steps = "; ".join(
        f"trial {row['number']}: {cost.read(row['cost'])}, {percent(row['wer'])}"
        for _, row in data[data["frontier"]].iterrows()
    )
    return Panel(
        name=slug(f"cost {cost.column}"),
        title=cost.title,
        alt=f"Scatter of dev WER against {cost.label} of {counted(len(data), 'configuration')}"
        f"{' and ' + counted(len(stopped), 'pruned trial') if len(stopped) else ''}. "
        f"On the frontier, cheapest first: {steps}.",
        paint=lambda axes: plot_cost(axes, data, stopped, cost),
        width=460,
        height=310,
    )
