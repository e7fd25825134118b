"""How figures look, and how they are put on the page and into files.

A figure is a list of panels. The page shows each panel as an SVG of its own, so that they flow
into as many columns as there is room for; the files beside it hold all panels of a figure.

    panel = Panel(name="cost", title="…", alt="…", paint=lambda axes: plot_cost(axes, data))
    html = inline_svg(panel)
    svg, png = figure_files([panel], columns=1)

On the page, colours are CSS variables (the style sheet has a light and a dark set), text uses
the page's font, and ids carry the panel's name, so that two figures cannot share one.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

INK, MUTED, GRID, PAPER = "#1f2328", "#667079", "#dde1e6", "#fffffe"
_PALETTE = sns.color_palette("colorblind").as_hex()
EXPLORE, REFINE, ANCHOR = _PALETTE[0], _PALETTE[1], _PALETTE[4]
LINES = (_PALETTE[0], _PALETTE[3], _PALETTE[2])  # the highlighted curves

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--card",
    EXPLORE: "--explore",
    REFINE: "--refine",
    ANCHOR: "--anchor",
    LINES[1]: "--line-2",
    LINES[2]: "--line-3",
}
_FONT = re.compile(r"font-family: [^;\"]*")
_IDS = re.compile(r"(\bid=\"|xlink:href=\"#|url\(#)")


DOTS = 1000
"""About how many trials of a kind a panel shows: more are one grey patch, and megabytes."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes of a figure."""

    name: str
    """Unique on the page; prefixes the ids in its SVG."""

    title: str
    """What it shows, in a few words."""

    alt: str
    """What a person sees in it, in words and numbers."""

    paint: Callable[[Axes], None]
    """Draws it."""

    width: int = 380
    """Width in CSS pixels at which its text has its natural size."""

    height: int = 270
    """Height in CSS pixels."""

    left: int = 52
    """Room in pixels for the labels of the vertical axis."""

    right: int = 14
    """Room in pixels for what is written beyond the right end of the axes."""


def fewer_dots(points: pd.DataFrame) -> pd.DataFrame:
    """Return at most `DOTS` rows, evenly chosen, and the lowest `wer` among them."""
    chosen = points.iloc[:: max(1, -(-len(points) // DOTS))]
    if len(chosen) == len(points):
        return points
    return pd.concat([chosen, points.nsmallest(1, "wer")]).drop_duplicates("number")


def slug(text: str) -> str:
    """Return text as a name that may stand in an id, an address or a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def inline_svg(panel: Panel) -> str:
    """Return a panel as an `<svg>` element to be put into a page."""
    with _theme(panel.name):
        figure = Figure(figsize=(panel.width / 72, panel.height / 72), dpi=72)
        _paint(figure, panel, 0, 0, titled=False)
        text = _svg(figure)
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = _FONT.sub("font-family: var(--font)", text)
    text = _IDS.sub(lambda match: f"{match[1]}{panel.name}-", text)
    opening = (
        f'<svg role="img" aria-label="{escape(panel.alt)}" '
        f'viewBox="0 0 {panel.width} {panel.height}" preserveAspectRatio="xMidYMid meet" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return opening + text[text.index(">") + 1 :].strip()


def figure_files(panels: Sequence[Panel], columns: int) -> tuple[bytes, bytes]:
    """Return a figure of titled panels in a grid, as the content of an SVG and of a PNG file."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = max(panel.width for panel in panels)
    height = max(panel.height for panel in panels) + _TITLE
    with _theme("-".join(panel.name for panel in panels)):
        figure = Figure(figsize=(columns * width / 72, rows * height / 72), dpi=72)
        for place, panel in enumerate(panels):
            row, column = divmod(place, columns)
            _paint(figure, panel, column * width, (rows - 1 - row) * height, titled=True)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
        return _svg(figure).encode(), png.getvalue()


def log_ticks(low: float, high: float) -> list[float]:
    """Return readable ticks for a logarithmic axis, also where it spans less than a decade."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in (
        (1,),
        (1, 3),
        (1, 2, 5),
        (1, 1.5, 2, 3, 5, 7),
        (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    ):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            return ticks
    return ticks if len(ticks) > 1 else [low, high]


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    obstacles: Sequence[tuple[float, float]],
    below: bool = False,
) -> None:
    """Write names beside points, each where it covers the fewest points and no other name.

    Args:
        axes: Axes whose limits are final.
        labels: Position of the named point, in data coordinates, and its name.
        obstacles: Everything not to be covered, as points in data coordinates.
        below: Try the lower left first.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    dots = axes.transData.transform(np.array(obstacles, dtype=float).reshape(-1, 2))
    frame = axes.get_window_extent(renderer)
    taken: list[Bbox] = []
    for x, y, text in labels:
        best: tuple[float, Any, Bbox] | None = None
        for dx, dy, ha, va in _SPOTS[::-1] if below else _SPOTS:
            note = axes.annotate(
                text,
                (x, y),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=10.5,
                color=INK,
                zorder=6,
            )
            box = note.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0
            clutter = 10.0 * sum(box.overlaps(other) for other in taken)
            reach = box.padded(3)
            clutter += int((((dots > reach.min) & (dots < reach.max)).all(axis=1)).sum())
            clutter += 0 if inside and box.y1 <= frame.y1 else 1000
            if best is None or clutter < best[0]:
                if best is not None:
                    best[1].remove()
                best = (clutter, note, box)
            else:
                note.remove()
        assert best is not None
        taken.append(best[2])


_TITLE = 34  # pixels above a panel in the files
_BOTTOM, _TOP = 46, 12  # pixels around the axes
_SPOTS = (  # near ones first; below-left last, where `below` starts
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (6, 6, "left", "bottom"),
    (-6, 6, "right", "bottom"),
    (-14, 16, "right", "bottom"),
    (0, 18, "center", "bottom"),
    (6, -5, "left", "top"),
    (-6, -5, "right", "top"),
)


def _paint(figure: Figure, panel: Panel, x: float, y: float, *, titled: bool) -> None:
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (
            (x + panel.left) / width,
            (y + _BOTTOM) / height,
            (panel.width - panel.left - panel.right) / width,
            (panel.height - _BOTTOM - _TOP) / height,
        )
    )
    panel.paint(axes)
    if titled:
        axes.set_title(panel.title, loc="left", pad=14, fontweight="bold", fontsize=12)


def _svg(figure: Figure) -> str:
    target = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(target, format="svg", metadata=nothing)
    return target.getvalue()


@contextmanager
def _theme(salt: str) -> Iterator[None]:
    """Apply seaborn's theme in our colours, for this figure only."""
    look = {
        **mpl.rcParamsDefault,
        **sns.axes_style("whitegrid"),
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,  # a `$` in a name is a `$`
        "font.sans-serif": ["DejaVu Sans", "sans-serif"],
        "font.size": 12,
        "axes.labelsize": 12,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.edgecolor": GRID,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "axes.linewidth": 0.8,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
    }
    look.pop("backend", None)
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)
        mpl.rcParams.update(look)
        yield
