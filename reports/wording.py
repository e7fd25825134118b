"""How numbers read on the page: one way for each unit, and a dash for what is missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING = "–"


def _absent(value: Any) -> bool:
    # pandas.NA is neither a float nor comparable
    return not isinstance(value, (int, float)) and not hasattr(value, "__float__")


def percent(fraction: Any, digits: int = 2) -> str:
    """Return a fraction as a percentage: 0.1234 reads 12.34 %."""
    if _absent(fraction) or not math.isfinite(float(fraction)):
        return MISSING
    return f"{100 * float(fraction):.{digits}f} %"


def points(fraction: float, digits: int = 2) -> str:
    """Return a difference of two WERs in percentage points, without its sign."""
    value = f"{abs(100 * fraction):.{digits}f}"
    return f"{value} points"


def signed(fraction: float, digits: int = 1) -> str:
    """Return a difference of two WERs in percentage points with its sign: +1.2, −0.4."""
    return f"{100 * fraction:+.{digits}f}".replace("-", "−")


def number(value: Any) -> str:
    """Return a number as briefly as three significant digits allow; whole numbers whole."""
    if _absent(value) or not math.isfinite(float(value)):
        return MISSING
    value = float(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    text = f"{value:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def count(value: Any) -> str:
    """Return a large count with a unit: 1234567 reads 1.23 M."""
    if _absent(value) or not math.isfinite(float(value)):
        return MISSING
    value = float(value)
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def duration(seconds: Any) -> str:
    """Return seconds as a person says them: 42 s, 3.5 min, 2.13 h."""
    if _absent(seconds) or not math.isfinite(float(seconds)):
        return MISSING
    seconds = float(seconds)
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.4g} h"


def hours(value: Any) -> str:
    """Return hours of audio: minutes where they are less than one."""
    if _absent(value) or not math.isfinite(float(value)):
        return MISSING
    value = float(value)
    return f"{value:,.1f} h" if value >= 1 else f"{60 * value:.1f} min"


def p_value(p: Any) -> str:
    """Return a p value with three decimals; below the last of them as such, never as zero."""
    if _absent(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def listed(words: Sequence[str], conjunction: str = "and") -> str:
    """Return words as a person lists them: a, b and c."""
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: 1 trial, 2 trials."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
