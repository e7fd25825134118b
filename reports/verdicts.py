"""The answer to each question: a value, what it buys, and how sure that is, by one fixed rule.

From draws of the effect of each value (`reports.landscape`), where e(v) is the WER with value v:

- the *recommended* value v* has the lowest expected e;
- a value is *as good* unless it is worse than v* by more than a margin that nobody would notice
  (1 % of the WER) with a probability of 97.5 % or more;
- the *gain* is e(worst) − e(v*), the worst being the value with the highest expected e, with the
  95 % interval of that difference.

The verdict is the first of these that holds:

    no effect seen  the 95 % interval of the gain reaches down to the margin, and all values lie
                    within x points of one another (95 %), x being at most 5 % of the WER or the
                    spread between seeds
    undecided       that interval reaches down to the margin
    at the edge     v* is an end of its range that could be moved, and more likely the best than not
    decided         v* is better than every other value by more than the margin (97 %)
    leaning         some values are worse, but more than one is left

How often this is right is measured on studies whose truth is known: `benchmarks/calibration.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t

from reports.questions import QUESTIONS, SIX, Question
from reports.surrogate import MOST

if TYPE_CHECKING:
    from reports.landscape import Landscape
    from reports.record import Searched, StudyRecord
    from reports.surrogate import Array

MARGIN = 0.01
"""A difference of this share of the WER is none."""
NO_EFFECT = 0.05
"""Values that lie within this share of the WER of one another have no effect worth tuning."""
SURE = 0.97
"""Probability with which a decided value is the best."""
EXCLUDED = 0.975
"""Probability with which a value that is not as good is worse."""

VERDICTS = ("decided", "leaning", "undecided", "at the edge", "no effect seen", "not asked")

AT_HAND, TOO_SMALL, TOO_FAR, FULL = "at hand", "too small", "too far", "full"
"""Why no number of trials is told that would decide a question: hardly more than there are would
do, the differences are at most twice the margin, more than twenty times the trials would be needed,
or more than a surface is fitted to."""

_COSTS_MORE = 0.995  # quantile of Student's t, beyond which a value is told to cost more

LOWEST = {"encoder_layers": 1, "attention_heads": 1, "decoder_layers": 1, "conv_kernel_size": 3}
"""Ends below which there is nothing to try."""


@dataclass(frozen=True, kw_only=True)
class ValueEffect:
    """What one value of a question does."""

    value: float
    """The value."""
    wer: float
    """Expected WER with it, the others averaged (a fraction)."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    best_probability: float
    """Probability that it is the best of its range."""
    as_good: bool
    """Whether it cannot be told from the recommended value."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer to one question."""

    question: Question
    """The question."""
    verdict: str
    """One of `VERDICTS`."""
    reason: str
    """Why there is no estimate; empty where there is one."""
    recommended: float | None = None
    """The value with the lowest expected WER."""
    effects: tuple[ValueEffect, ...] = ()
    """Per value of the range, ascending."""
    gain: float | None = None
    """Expected WER of the worst value above that of the recommended one (a fraction)."""
    gain_low: float | None = None
    """Lower end of the 95 % interval of the gain."""
    gain_high: float | None = None
    """Upper end of the 95 % interval of the gain."""
    spread_bound: float | None = None
    """With 95 % probability all values lie within this of one another (a fraction)."""
    worst: float | None = None
    """The value with the highest expected WER."""
    cheapest_parameters: float | None = None
    """Of the values that are as good, the one with the fewest weights where all else is alike; None
    where the results do not tell."""
    cheapest_seconds: float | None = None
    """Likewise the one that trains in the least time."""
    needed: int | None = None
    """About how many finished trials would decide it, to two digits; None where it is settled or
    `outlook` says why there is no such number."""
    outlook: str = ""
    """Why `needed` is not told of a question that is not settled: `AT_HAND`, `TOO_SMALL`,
    `TOO_FAR` or `FULL`; else empty."""
    trials: int = 0
    """Finished trials that it was read from."""

    @property
    def as_good(self) -> tuple[float, ...]:
        """The values that cannot be told from the recommended one, itself among them."""
        return tuple(effect.value for effect in self.effects if effect.as_good)


def verdicts(record: StudyRecord, landscape: Landscape | str) -> tuple[Verdict, ...]:
    """Return the answer to each of the six questions, in their order."""
    found = []
    for question in QUESTIONS:
        searched = record.searched.get(question.name)
        if searched is None or searched.high == searched.low:
            reason = "The study holds it at one value."
            found.append(Verdict(question=question, verdict="not asked", reason=reason))
        elif isinstance(landscape, str):
            found.append(Verdict(question=question, verdict="undecided", reason=landscape))
        else:
            found.append(_answer(record, landscape, question, searched))
    return tuple(found)


def _answer(
    record: StudyRecord, landscape: Landscape, question: Question, searched: Searched
) -> Verdict:
    values, draws = landscape.effect(question.name)
    expected = draws.mean(axis=0)
    best, worst = int(expected.argmin()), int(expected.argmax())
    margin = MARGIN * float(expected[best])
    behind = draws - draws[:, [best]]
    as_good = (behind <= margin).mean(axis=0) > 1 - EXCLUDED
    as_good[best] = True
    others = np.arange(len(values)) != best
    sure = float((behind[:, others] > margin).all(axis=1).mean())
    probabilities = np.bincount(draws.argmin(axis=1), minlength=len(values)) / len(draws)
    gain_low, gain_high = (float(q) for q in np.quantile(behind[:, worst], (0.025, 0.975)))
    bound = float(np.quantile(np.ptp(draws, axis=1), 0.95))
    noise = _seed_noise(landscape, float(expected[best]))
    clear = gain_low > margin
    if not clear and bound <= max(NO_EFFECT * float(expected[best]), noise):
        verdict = "no effect seen"
    elif not clear:
        verdict = "undecided"
    elif _movable_end(question.name, searched, values[best]) and probabilities[best] > 0.5:
        verdict = "at the edge"
    else:
        verdict = "decided" if sure >= SURE else "leaning"
    lows, highs = np.quantile(draws, (0.025, 0.975), axis=0)
    good = [value for value, fine in zip(values, as_good, strict=True) if fine]
    rivals = np.arange(len(values)) == worst if not clear else others
    needed, outlook = _needed(landscape, behind[:, rivals], margin, verdict)
    return Verdict(
        question=question,
        verdict=verdict,
        reason="",
        recommended=values[best],
        effects=tuple(
            ValueEffect(
                value=value,
                wer=float(expected[k]),
                low=float(lows[k]),
                high=float(highs[k]),
                best_probability=float(probabilities[k]),
                as_good=bool(as_good[k]),
            )
            for k, value in enumerate(values)
        ),
        gain=float(expected[worst] - expected[best]),
        gain_low=gain_low,
        gain_high=gain_high,
        spread_bound=bound,
        worst=values[worst],
        cheapest_parameters=_cheapest(record, question.name, good, "parameters"),
        cheapest_seconds=_cheapest(record, question.name, good, "train_seconds"),
        needed=needed,
        outlook=outlook,
        trials=landscape.trials,
    )


def _seed_noise(landscape: Landscape, wer: float) -> float:
    """Return the standard deviation between seeds near a WER, as the surrogate estimates it."""
    warp = landscape.surrogate.warp
    scale = float(np.median(landscape.surrogate.noise)) * warp.spread
    return scale * (wer + warp.floor) if warp.log else scale


def _movable_end(name: str, searched: Searched, value: float) -> bool:
    """Whether a value is an end of its range beyond which there is more to try."""
    if value == searched.high:
        return True
    return value == searched.low and value > LOWEST.get(name, 0)


def _cheapest(record: StudyRecord, name: str, values: list[float], column: str) -> float | None:
    """Return the value that costs least when all else is alike; None where that is not told.

    A power law in all six at once is fitted to the results. A mean over the few trials with each
    value would say as much about the other five: it can call a wide decoder the smallest network.
    """
    table = record.results[[*SIX, column]].astype(float).to_numpy(dtype=float, na_value=np.nan)
    table = table[(np.isfinite(table) & (table > 0)).all(axis=1)]
    if len(table) == 0:
        return None
    logs = np.log(table)
    varied = [k for k in range(len(SIX)) if np.ptp(logs[:, k]) > 0]
    freedom = len(logs) - len(varied) - 1
    if SIX.index(name) not in varied or freedom < 1:
        return None
    design = np.column_stack([np.ones(len(logs)), logs[:, varied]])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None  # some vary only together
    inverse = np.linalg.inv(design.T @ design)
    powers = inverse @ design.T @ logs[:, -1]
    variance = float(((logs[:, -1] - design @ powers) ** 2).sum()) / freedom
    place = 1 + varied.index(SIX.index(name))
    power, error = float(powers[place]), math.sqrt(variance * float(inverse[place, place]))
    if abs(power) <= float(t.ppf(_COSTS_MORE, freedom)) * error + 1e-9:
        return None
    return min(values) if power > 0 else max(values)


def _needed(
    landscape: Landscape, behind: Array, margin: float, verdict: str
) -> tuple[int | None, str]:
    """Estimate the trials with which the closest of the rivals would be told apart.

    `behind` holds draws of what each rival is worse by. Where even the worst value is not shown to
    be worse, it is the rival, so that the question would have an answer at all.

    The standard deviation of a difference falls about with the square root of the trials; twice of
    it should fit between the difference and the margin. Rivals closer than the margin do not count:
    there, nothing is left to decide. Where there is no number to tell, the reason stands beside.
    """
    if verdict not in ("undecided", "leaning"):
        return None, ""
    gaps, deviations = behind.mean(axis=0), behind.std(axis=0)
    real = gaps > 2 * margin
    if not real.any():
        return None, TOO_SMALL
    ratios = 2 * deviations[real] / (gaps[real] - margin)
    factor = float(ratios.max()) ** 2
    if factor <= 1:
        return None, AT_HAND
    if factor > 20:
        return None, TOO_FAR
    needed = landscape.trials * factor
    if landscape.known > landscape.trials or needed > MOST:
        return None, FULL
    step = int(10 ** max(0, math.floor(math.log10(needed)) - 1))
    return math.ceil(needed / step) * step, ""
