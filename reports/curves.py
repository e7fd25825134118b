"""Learning curves: how WER and dev loss fell while each trial trained.

The best few are named; curves that still fall at their end say that the budget, not the shape,
may have decided. How fast they still fall is told per doubling of the training:

    falls = falls_data(record)          # one row per explore result: number, fall, parameters
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from reports.style import LINES, MUTED, Panel, log_ticks, slug
from reports.trials import number_or_none
from reports.wording import counted, number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.record import StudyRecord

NAMED = len(LINES)
"""How many of the best results are highlighted."""

DRAWN = 500
"""How many curves of a kind are drawn at most, the best few aside: more are one grey patch."""

_MEASURES = {"wer": ("dev WER, %", "WER"), "dev_loss": ("dev loss per token", "Dev loss")}


@dataclass(frozen=True, kw_only=True)
class CurveData:
    """The curves of one measure."""

    measure: str
    """`wer` (here in percent) or `dev_loss`."""

    x_label: str
    """Epochs where every trial has them, otherwise evaluations."""

    curves: pd.DataFrame
    """One row per point: number, x, y, role (`1`, `2`, `3` for the best; else `other`, `pruned`,
    `failed`)."""

    log: bool
    """Whether the range is so wide that a logarithmic axis shows more."""


def curves_data(record: StudyRecord, measure: str) -> CurveData:
    """Return every trial's finite values of a measure over training."""
    curves = record.curves[record.curves[measure].notna()]
    curves = curves[np.isfinite(curves[measure].astype(float))]
    by_epoch = bool(len(curves)) and bool(curves["epoch"].notna().all())
    scale = 100.0 if measure == "wer" else 1.0
    data = pd.DataFrame(
        {
            "number": curves["number"].astype(int),
            "x": curves["epoch" if by_epoch else "evaluation"].astype(float),
            "y": scale * curves[measure].astype(float),
        }
    ).reset_index(drop=True)
    ranked = record.results.sort_values(["wer", "number"])["number"].head(NAMED)
    roles = {int(trial): str(place + 1) for place, trial in enumerate(ranked)}
    for trial, outcome in zip(record.trials["number"], record.trials["outcome"], strict=True):
        roles.setdefault(int(trial), _role_of(str(outcome)))
    data["role"] = data["number"].map(roles)
    values = data["y"]
    return CurveData(
        measure=measure,
        x_label="epoch" if by_epoch else "evaluation",
        curves=data,
        log=bool(len(values)) and bool(values.min() > 0) and bool(values.max() > 4 * values.min()),
    )


def _role_of(outcome: str) -> str:
    if outcome in ("pruned", "paused"):
        return "pruned"
    return "other" if outcome in ("finished", "running") else "failed"


def notes(record: StudyRecord) -> str:
    """Say what the curves leave out: utterances of early evaluations, curves of many trials."""
    said = []
    counts = record.curves["utterances"].dropna()
    if counts.nunique() > 1:
        said.append(
            f"Evaluations before the last recognised {int(counts.min())} of the "
            f"{int(counts.max())} utterances of dev."
        )
    if record.trials["outcome"].map(_role_of).value_counts().max() > DRAWN:
        said.append(f"Of each kind of trials at most {DRAWN} are drawn, evenly chosen.")
    return " ".join(said)


def falls_data(record: StudyRecord, evaluations: int) -> pd.DataFrame:
    """Return how fast WER still falls, per result of the explore phase: number, fall, parameters.

    `fall` is the share of its WER that a network loses per doubling of the training, by a power
    law through two evaluations: the last one before the learning rate decays, and the last one at
    or before two thirds of that. The decay lowers WER by itself whether the budget is long or
    short, and where the rate is near zero a curve is flat whether it has converged or not, so both
    are left out. Where no two evaluations lie on the plateau, it is read from the last of all.
    The result has no rows where there are fewer than two evaluations.
    """
    training = record.config.get("training")
    decay = number_or_none(training.get("decay")) if isinstance(training, dict) else None
    last = int((1 - (decay or 0.0)) * evaluations + 1e-9)
    last = last if last >= 2 else evaluations
    first = max(1, int(last / 1.5))
    even = record.results[record.results["even"]]
    wers = record.curves[record.curves["number"].isin(even["number"])]
    wers = wers[np.isfinite(wers["wer"]) & (wers["wer"] > 0)]
    table = wers.pivot_table(index="number", columns="evaluation", values="wer", aggfunc="last")
    columns = ["number", "fall", "parameters"]
    if first >= last or not {first, last} <= set(table.columns):
        return pd.DataFrame(columns=columns, dtype=float)
    exponent = np.log(table[first] / table[last]) / math.log(last / first)
    sizes = even.set_index("number")["parameters"]
    found = pd.DataFrame({"fall": 1 - 2.0**-exponent}).dropna().reset_index()
    known = sizes.reindex(found["number"]).to_numpy(dtype=float, na_value=np.nan)
    return found.assign(parameters=known)[columns]


def plot_curves(axes: Axes, data: CurveData) -> None:
    """Draw the curves: the best few coloured and named at their ends, pruned ones dashed."""
    looks = {
        "failed": (MUTED, ":", 1.0, 0.5),
        "pruned": (MUTED, (0, (4, 2.5)), 1.0, 0.55),
        "other": (MUTED, "-", 1.0, 0.6),
        **{str(i + 1): (colour, "-", 2.4, 1.0) for i, colour in enumerate(LINES)},
    }
    for zorder, (role, (colour, dashes, width, alpha)) in enumerate(looks.items(), start=2):
        rows = data.curves[data.curves["role"] == role]
        if rows.empty:
            continue
        # The points of a trial stand together: cut where another begins.
        ends = np.flatnonzero(np.diff(rows["number"])) + 1
        lines = np.split(rows[["x", "y"]].to_numpy(), ends)
        lines = lines[:: -(-len(lines) // DRAWN)]
        style = {"color": colour, "alpha": alpha, "zorder": zorder}
        axes.add_collection(LineCollection(lines, linestyles=[dashes], linewidths=width, **style))
        single = np.array([line[0] for line in lines if len(line) == 1]).reshape(-1, 2)
        axes.plot(single[:, 0], single[:, 1], "o", markersize=4, **style)
    axes.autoscale()
    if data.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_ylim())))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.yaxis.set_minor_locator(NullLocator())
    elif data.measure == "wer":
        axes.set_ylim(bottom=min(0.0, float(data.curves["y"].min())))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(data.x_label)
    axes.set_ylabel(_MEASURES[data.measure][0])
    axes.grid(visible=False, axis="x")
    _name_ends(axes, data)


def _name_ends(axes: Axes, data: CurveData) -> None:
    """Write each highlighted trial's number at the end of its curve, apart where they meet."""
    axes.autoscale_view()
    ends = []
    for place in range(NAMED):
        rows = data.curves[data.curves["role"] == str(place + 1)]
        if len(rows):
            end = rows.iloc[-1]
            height = axes.transData.transform((end["x"], end["y"]))[1]
            ends.append((height, float(end["x"]), float(end["y"]), int(end["number"]), place))
    last = -np.inf
    for height, x, y, trial, place in sorted(ends):
        last = max(last + 14, height)
        axes.annotate(
            f"#{trial}",
            (x, y),
            xytext=(7, last - height),
            textcoords="offset points",
            va="center",
            fontsize=11,
            fontweight="bold",
            color=LINES[place],
            annotation_clip=False,
        )


def curve_panels(record: StudyRecord) -> list[Panel]:
    """Return one panel per measure that was recorded."""
    known = [curves_data(record, measure) for measure in _MEASURES]
    return [_panel(data) for data in known if len(data.curves)]


def _panel(data: CurveData) -> Panel:
    title = _MEASURES[data.measure][1]
    return Panel(
        name=slug(f"curves {data.measure}"),
        title=f"{title} over training",
        alt=_describe(data, title),
        paint=lambda axes: plot_curves(axes, data),
        width=460,
        height=310,
        right=44,
    )


def _describe(data: CurveData, title: str) -> str:
    trials = counted(data.curves["number"].nunique(), "trial")
    text = f"{title} per {data.x_label} of {trials}."
    ends = []
    for place in range(NAMED):
        rows = data.curves[data.curves["role"] == str(place + 1)]
        if len(rows):
            first, last = (
                percent(y / 100) if data.measure == "wer" else number(y)
                for y in (rows["y"].iloc[0], rows["y"].iloc[-1])
            )
            ends.append(f"trial {int(rows['number'].iloc[0])} from {first} to {last}")
    return f"{text} The best: {'; '.join(ends)}." if ends else text
