"""What a low WER costs: in weights, in computation, in training time and in decoding time.

The frontier holds the results that no other beats in both: everything else is dominated. It is
made of one-seed results, so a neighbour of the frontier may belong on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FuncFormatter, NullLocator

from reports.effects import KINDS, kind_of
from reports.style import INK, PAPER, Panel, log_ticks, place_labels, slug
from reports.wording import count, duration, number, percent

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


def brief_seconds(seconds: float) -> str:
    """Return seconds that may be thousandths: 12 ms, 1.5 s."""
    return f"{number(1000 * seconds)} ms" if seconds < 1 else f"{number(seconds)} s"


_HOURS = tuple(3600 * hours for hours in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))

COSTS = (
    Cost(column="parameters", label="parameters", title="WER against parameters", read=count),
    Cost(
        column="flops_per_second",
        label="FLOPs per second of audio",
        title="WER against computation",
        read=count,
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
    """Return the results with a known cost, cheapest first.

    Columns: number, cost, wer, kind, anchor, and `frontier`: True where no result is at least as
    good in both and better in one.
    """
    results = record.results[record.results[column].notna()]
    data = pd.DataFrame(
        {
            "number": results["number"].astype(int),
            "cost": results[column].astype(float),
            "wer": results["wer"].astype(float),
            "kind": kind_of(results),
            "anchor": results["anchor"],
        }
    )
    data = data[np.isfinite(data["cost"]) & (data["cost"] > 0)]
    data = data.sort_values(["cost", "wer", "number"]).reset_index(drop=True)
    lowest = data.groupby("cost")["wer"].min()
    lowest_of_cheaper = lowest.cummin().shift(fill_value=np.inf)
    data["frontier"] = (data["wer"] == data["cost"].map(lowest)) & (
        data["wer"] < data["cost"].map(lowest_of_cheaper)
    )
    return pd.DataFrame(data)


def plot_cost(axes: Axes, data: pd.DataFrame, cost: Cost) -> None:
    """Draw results as dots, and the frontier as steps with trial numbers."""
    names = [f"#{number}" for number in data["number"]]
    shown = data.assign(percent=100 * data["wer"], name=names)
    low, high = shown["cost"].min(), shown["cost"].max()
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
    for kind, (colour, marker) in KINDS.items():
        rows = shown[shown["kind"] == kind]
        if rows.empty:
            continue
        sns.scatterplot(
            rows,
            x="cost",
            y="percent",
            ax=axes,
            color=colour,
            marker=marker,
            s=50,
            alpha=0.9,
            edgecolor=PAPER,
            linewidth=0.8,
            zorder=3,
        )
    axes.margins(y=0.09)
    axes.set_xlabel(f"{cost.label} (logarithmic)")
    axes.set_ylabel("dev WER, %")
    axes.grid(visible=False, axis="x")
    _ticks(axes, cost)
    named = [
        (row["cost"], row["percent"], row["anchor" if row["kind"] == "anchor" else "name"])
        for _, row in shown[shown["frontier"] | (shown["kind"] == "anchor")].iterrows()
    ]
    dots = list(zip(shown["cost"], shown["percent"], strict=True))
    place_labels(axes, named, dots + _along(frontier, shown["cost"].max()), below=True)


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
    return [_panel(cost, data) for cost, data in known if len(data)]


def _panel(cost: Cost, data: pd.DataFrame) -> Panel:
    steps = "; ".join(
        f"trial {row['number']}: {cost.read(row['cost'])}, {percent(row['wer'])}"
        for _, row in data[data["frontier"]].iterrows()
    )
    return Panel(
        name=slug(f"cost {cost.column}"),
        title=cost.title,
        alt=f"Scatter of dev WER against {cost.label} of {len(data)} results. "
        f"On the frontier, cheapest first: {steps}.",
        paint=lambda axes: plot_cost(axes, data, cost),
        width=460,
        height=310,
    )
