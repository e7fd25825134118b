"""Pairs of questions whose answers depend on each other, and a map of the strongest.

The interaction of two questions is what is left of the WER with each pair of their values after
their two single effects are taken off; its size is the root mean square over the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from scipy.stats import norm

from reports.questions import label_of
from reports.style import Panel, slug
from reports.wording import number, percent, points, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.landscape import Landscape
    from reports.surrogate import Array

SHOWN = 3
"""Pairs that are listed."""


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """How much the answers to two questions depend on each other."""

    one: str
    """The first question's hyperparameter."""
    two: str
    """The second question's."""
    values: tuple[tuple[float, ...], tuple[float, ...]]
    """Values of each: all, or some of many (`Landscape.pair`)."""
    wers: Array
    """`(K, L)`: expected WER with each pair of values, the other four averaged."""
    size: float
    """Root mean square of the interaction (a fraction)."""
    low: float
    """Lower end of the 95 % interval, for all pairs at once, of the size of its expected part along
    the draws."""
    high: float
    """Upper end of it."""

    @property
    def shown(self) -> bool:
        """Whether it can be told from none."""
        return self.low > 0

    @property
    def sentence(self) -> str:
        """Say how strong it is."""
        labels = f"{label_of(self.one)} and {label_of(self.two).lower()}"
        told = f"{signed(self.low, 2)} to {signed(self.high, 2)}"
        if not self.shown:
            return f"{labels}: no dependence shown."
        row, column = (int(i) for i in np.unravel_index(self.wers.argmin(), self.wers.shape))
        best = f"{number(self.values[0][row])} with {number(self.values[1][column])}"
        return f"{labels}: {points(self.size)} (95 %: {told}); lowest WER at {best}."


def interactions_data(landscape: Landscape | str) -> tuple[Interaction, ...]:
    """Return the strongest pairs, strongest first; none without a landscape."""
    if isinstance(landscape, str):
        return ()
    names = [axis.name for axis in landscape.questions]
    pairs = list(combinations(names, 2))
    found = [_interaction(landscape, one, two, len(pairs)) for one, two in pairs]
    return tuple(sorted(found, key=lambda item: -item.size)[:SHOWN])


def _interaction(landscape: Landscape, one: str, two: str, among: int) -> Interaction:
    ones, twos, draws = landscape.pair(one, two)
    rest = (
        draws
        - draws.mean(axis=2, keepdims=True)
        - draws.mean(axis=1, keepdims=True)
        + draws.mean(axis=(1, 2), keepdims=True)
    )
    expected = rest.mean(axis=0)
    size = float(np.sqrt((expected**2).mean()))
    # The size of a draw is never 0; its part along the expected interaction can be, and below.
    along = (rest * expected).mean(axis=(1, 2)) / max(size, 1e-12)
    # Of many pairs the strongest are listed, so that the interval is to hold for all at once; the
    # draws are too few for quantiles so far out.
    reach = float(norm.ppf(1 - 0.025 / among) * along.std())
    low, high = float(along.mean()) - reach, float(along.mean()) + reach
    return Interaction(
        one=one,
        two=two,
        values=(ones, twos),
        wers=draws.mean(axis=0),
        size=size,
        low=low,
        high=high,
    )


def plot_interaction(axes: Axes, item: Interaction) -> None:
    """Draw the WER of each pair of values as a map, lighter where it is lower."""
    sns.heatmap(
        100 * item.wers,
        ax=axes,
        annot=True,
        fmt=".1f",
        cbar=False,
        cmap=sns.color_palette("mako_r", as_cmap=True),
        linewidths=1,
        xticklabels=[number(value) for value in item.values[1]],
        yticklabels=[number(value) for value in item.values[0]],
        annot_kws={"fontsize": 10},
    )
    axes.tick_params(length=0)
    axes.set_xlabel(label_of(item.two))
    axes.set_ylabel(label_of(item.one))


def interaction_panels(items: tuple[Interaction, ...]) -> list[Panel]:
    """Return a map of the strongest pair, where one can be told from none."""
    shown = [item for item in items if item.shown][:1]

    def panel(item: Interaction) -> Panel:
        return Panel(
            name=slug(f"interaction {item.one} {item.two}"),
            title=f"WER by {label_of(item.one).lower()} and {label_of(item.two).lower()}, %",
            alt=_describe(item),
            paint=lambda axes: plot_interaction(axes, item),
            width=460,
            height=310,
        )

    return [panel(item) for item in shown]


def _describe(item: Interaction) -> str:
    rows = "; ".join(
        f"{label_of(item.one)} {number(value)}: "
        + ", ".join(
            f"{number(other)} {percent(wer, 1)}"
            for other, wer in zip(item.values[1], row, strict=True)
        )
        for value, row in zip(item.values[0], item.wers, strict=True)
    )
    return f"Expected WER by {label_of(item.one).lower()} and {label_of(item.two).lower()}. {rows}."
