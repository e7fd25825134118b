"""The best trial with each value of each question: what was reached, not what to expect.

Google's Tuning Playbook calls these isolation plots. The lowest of many readings lies lower than
the lowest of few, so a value that the search liked looks better than it is: the filled dots are of
the even sample alone, in which values have about as many trials each, and every value says how
many. The open rings are the lowest of all phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.questions import QUESTIONS, Question
from reports.style import EXPLORE, MUTED, PAPER, Panel, slug
from reports.wording import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.record import StudyRecord


@dataclass(frozen=True, kw_only=True)
class IsolationData:
    """The best trials per value of one question."""

    question: Question
    best: pd.DataFrame
    """One row per value, ascending: value, wer and number of the best trial of the even sample
    (missing where it has none), n of those, and lowest, the lowest WER of any phase."""


def isolation_data(record: StudyRecord) -> tuple[IsolationData, ...]:
    """Return the questions of which at least two values have a result."""
    results = record.results[np.isfinite(record.results["wer"].astype(float))]
    found = []
    for question in QUESTIONS:
        searched = record.searched.get(question.name)
        if searched is None or not searched.listed:
            continue
        values = results[question.name].astype(float)
        rows = results[np.array([searched.allows(v) for v in values], dtype=bool)]
        best = _best(rows, question.name)
        if len(best) > 1:
            found.append(IsolationData(question=question, best=best))
    return tuple(found)


def _best(results: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = []
    for value, group in results.groupby(results[name].astype(float)):
        even = group[group["even"]].sort_values(["wer", "number"])
        rows.append(
            {
                "value": value,
                "wer": float(even["wer"].iloc[0]) if len(even) else np.nan,
                "number": int(even["number"].iloc[0]) if len(even) else None,
                "n": len(even),
                "lowest": float(group["wer"].min()),
            }
        )
    return pd.DataFrame(rows, columns=["value", "wer", "number", "n", "lowest"])


def plot_isolation(axes: Axes, data: IsolationData, limits: tuple[float, float]) -> None:
    """Draw the best trial per value, and below each value how many there were to choose from."""
    best = data.best
    places = np.arange(len(best))
    axes.plot(places, 100 * best["lowest"], "o", mfc="none", mec=MUTED, markersize=9, zorder=2)
    axes.plot(
        places, 100 * best["wer"], "o-", color=EXPLORE, mec=PAPER, markersize=8, lw=1.2, zorder=3
    )
    axes.set_xticks(
        places,
        [f"{number(v)}\nof {n}" for v, n in zip(best["value"], best["n"], strict=True)],
    )
    axes.set_xlim(-0.5, len(best) - 0.5)
    axes.set_ylim(*limits)
    axes.set_ylabel("lowest dev WER, %")
    axes.grid(visible=False, axis="x")


def isolation_panels(items: tuple[IsolationData, ...]) -> list[Panel]:
    """Return a panel per question, all over one range of WER."""
    if not items:
        return []
    shown = np.concatenate([item.best[["wer", "lowest"]].to_numpy(dtype=float) for item in items])
    low, high = (100 * float(end) for end in (np.nanmin(shown), np.nanmax(shown)))
    pad = 0.12 * (high - low) or max(0.1 * high, 0.5)
    limits = (low - pad, high + pad)

    def panel(item: IsolationData) -> Panel:
        told = ". ".join(
            f"{number(row['value'])}: {percent(row['wer'])}, the lowest of {row['n']} explore "
            f"trials; in all phases {percent(row['lowest'])}"
            for row in item.best.to_dict("records")
        )
        return Panel(
            name=slug(f"isolation {item.question.name}"),
            title=item.question.label,
            alt=f"Lowest dev WER with each value of {item.question.label.lower()}. {told}.",
            paint=lambda axes: plot_isolation(axes, item, limits),
            height=250,
        )

    return [panel(item) for item in items]
