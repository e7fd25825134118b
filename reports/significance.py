"""Are two recognisers different, or was it the test set? Intervals and tests on error counts.

    interval = error_rate_interval(errors, words, groups)
    difference = paired_difference(errors_a, errors_b, words, groups)
    test = mapsswe(segments_a, segments_b)

Utterances of one speaker stand or fall together, and so do those that one network decoded. The
intervals here hold the variance of resampling whole speakers (Bisani and Ney 2004, with speakers
for utterances) and the variance between seeds, so they say where the WER would lie with other
speakers and another training. The first is the bootstrap's in closed form: that of a ratio of two
sums (Cochran 1977, section 6.3). Resampling a handful of seeds would understate the second.
MAPSSWE is NIST's matched-pairs test on sentence segments (Gillick and Cox 1989), as in
`sc_stats`. Several comparisons are corrected by Holm's procedure (1979).

    K seeds, U utterances
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_ROUNDING = 1e-24  # squared, of a rate's own size


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its interval, as fractions; without end where nothing is known of it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class MatchedPairs:
    """The result of MAPSSWE."""

    segments: int
    """Segments in which at least one system errs, or which lie between such."""
    mean: float
    """Mean difference of errors per segment, the first system's minus the second's."""
    z: float
    """The statistic: normal under the hypothesis of no difference; infinite without variance."""
    p: float
    """Two-sided."""


def error_rate_interval(
    errors: Array, words: Array, groups: Sequence[str], level: float = 0.95
) -> Interval:
    """Return errors ÷ words with an interval over speakers and seeds.

    Where no seed errs, nothing varies. The interval then ends where as many words would all be
    right in one of 20 cases (at 95 %), if each were an error by itself: at 3 ÷ words (the rule of
    three, Hanley and Lippman-Hand 1983).

    Args:
        errors: `(K, U)`: word errors of each seed's network in each utterance.
        words: `(U,)`: words of the references.
        groups: `(U,)`: what is resampled: speakers, or the utterances themselves.
        level: How often such an interval holds the truth.
    """
    totals, sizes = _by_group(errors, words, groups)
    return _interval(totals, sizes, level)


def paired_difference(
    first: Array, second: Array, words: Array, groups: Sequence[str], level: float = 0.95
) -> tuple[Interval, float]:
    """Return the difference of two error rates, first minus second, and a two-sided p value.

    `first` `(K, U)` and `second` `(L, U)` are errors in the same utterances; the seeds of the two
    have nothing to do with each other.
    """
    one, sizes = _by_group(first, words, groups)
    two, _ = _by_group(second, words, groups)
    difference = one.mean(axis=0) - two.mean(axis=0)
    value = float(difference.sum() / sizes.sum())
    parts = [_of_groups(difference, sizes)]
    parts += [_of_seeds(totals, sizes) for totals in (one, two) if len(totals) > 1]
    spread, combined = _combine(parts)
    if spread == 0:
        # Signs that chance gave to the groups would agree this often; a t test would say never.
        return Interval(value=value, low=value, high=value), (
            1.0 if value == 0 else 2.0 ** (1 - len(sizes))
        )
    reach = float(stats.t.ppf((1 + level) / 2, combined)) * spread
    p = 2 * float(stats.t.sf(abs(value) / spread, combined))
    return Interval(value=value, low=value - reach, high=value + reach), p


def _interval(totals: Array, sizes: Array, level: float) -> Interval:
    value = float(totals.mean(axis=0).sum() / sizes.sum())
    if value == 0:
        return Interval(value=0.0, low=0.0, high=-math.log(1 - level) / float(sizes.sum()))
    parts = [_of_groups(totals.mean(axis=0), sizes)]
    if len(totals) > 1:
        parts.append(_of_seeds(totals, sizes))
    spread, freedom = _combine(parts)
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * spread if spread > 0 else 0.0
    return Interval(value=value, low=max(0.0, value - reach), high=value + reach)


def _of_seeds(totals: Array, sizes: Array) -> tuple[float, float]:
    """Return the variance of a mean over seeds that the seeds show, and its freedom.

    What a seed gets right in one group and wrong in another is in it as well as in the spread over
    the groups. It is not taken off: of a few seeds, what is left would often be near zero by
    chance, and the sum would then be taken for as sure as the many groups make it.
    """
    rates = totals.sum(axis=1) / sizes.sum()
    return float(rates.var(ddof=1)) / len(totals), len(totals) - 1.0


def _of_groups(totals: Array, sizes: Array) -> tuple[float, float]:
    """Return the variance of errors ÷ words that is due to the groups, and its freedom.

    Of a single group it is not known, so it has no bound.
    """
    groups = len(sizes)
    if groups < 2:
        return math.inf, 1.0
    rate = totals.sum() / sizes.sum()
    residuals = totals - rate * sizes
    variance = groups / (groups - 1) * float(residuals @ residuals) / float(sizes.sum()) ** 2
    # What rounding leaves of residuals that are all zero is no variance.
    return (variance if variance > _ROUNDING * (rate**2) else 0.0), groups - 1.0


def _combine(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard deviation of a sum, and its degrees of freedom.

    They are Welch's and Satterthwaite's (1946): a variance from three seeds is itself uncertain.
    """
    total = sum(variance for variance, _ in parts)
    if total <= 0 or math.isinf(total):
        return max(total, 0.0), 1.0
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    return math.sqrt(total), max(1.0, freedom)


def _by_group(errors: Array, words: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    """Return errors `(K, G)` and words `(G,)` summed over each group."""
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(index.max()) + 1 if len(index) else 0
    sizes = np.bincount(index, weights=words, minlength=count).astype(float)
    totals = np.stack(
        [np.bincount(index, weights=row, minlength=count).astype(float) for row in errors]
    )
    return totals, sizes


Alignment = Sequence[tuple[str, str]]
"""Reference and hypothesis word of each step; an empty text stands for none."""


def segments(first: Alignment, second: Alignment) -> list[tuple[int, int]]:
    """Return the errors of two systems in each segment of one utterance.

    A segment is a stretch that begins and ends where both systems recognised two words or more in a
    row correctly, or at an end of the utterance (Gillick and Cox 1989; `sc_stats` does the same).
    """
    found: list[tuple[int, int]] = []
    open_errors = [0, 0]
    good = 0
    for place, (a, b) in enumerate(zip(_errors(first), _errors(second), strict=True)):
        if a or b:
            good = 0
            open_errors = [open_errors[0] + a, open_errors[1] + b]
        elif place % 2:  # a word that both recognised
            good += 1
            if good == 2 and any(open_errors):
                found.append((open_errors[0], open_errors[1]))
                open_errors = [0, 0]
    if any(open_errors):
        found.append((open_errors[0], open_errors[1]))
    return found


def _errors(alignment: Alignment) -> list[int]:
    """Return the errors before the first word, at it, after it, at the second word, and so on."""
    slots = [0]
    for reference, hypothesis in alignment:
        if reference:
            slots += [int(reference != hypothesis), 0]
        else:
            slots[-1] += 1
    return slots


def mapsswe(pairs: Sequence[tuple[int, int]]) -> MatchedPairs:
    """Return NIST's matched-pairs test of the errors of two systems in segments.

    Where the difference is the same in every segment, its variance is not known. Then p is that of
    the sign test: how often chance would give all segments to one system.
    """
    differences = np.array([a - b for a, b in pairs], dtype=float)
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    deviation = float(differences.std(ddof=1)) if count > 1 else 0.0
    if mean == 0:
        return MatchedPairs(segments=count, mean=mean, z=0.0, p=1.0)
    if deviation == 0:
        z = math.copysign(math.inf, mean)
        return MatchedPairs(segments=count, mean=mean, z=z, p=2.0 ** (1 - count))
    z = mean / (deviation / math.sqrt(count))
    return MatchedPairs(segments=count, mean=mean, z=z, p=2 * float(stats.norm.sf(abs(z))))


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's procedure (1979)."""
    order = np.argsort(values)
    corrected = np.empty(len(values))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return [float(value) for value in corrected]
