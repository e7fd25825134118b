"""The finalists: configurations that were trained again with fresh seeds and scored on test.

The winner is the one with the lowest mean dev WER over those seeds. Test has no part in the choice,
so its WER on test is not too good to be true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reports.questions import SIX
from reports.trials import number_or_none

if TYPE_CHECKING:
    import pandas as pd

PHASE = "finalist"
_FAILED = ("crashed", "diverged", "out_of_memory", "infeasible")


@dataclass(frozen=True, kw_only=True)
class FinalistResult:
    """One configuration over its seeds."""

    label: str
    """`trial <number>`, `predicted best`, or the anchor's name."""
    anchor: str | None
    """The anchor's name, if it is one."""
    values: dict[str, float | None]
    """Its value of each of the six."""
    seeds: int
    """Seeds that finished."""
    failed: int = 0
    """Seeds that ended without a WER, and were not tried again: the means are of the others."""
    dev_wer: float
    """Mean dev WER over the seeds (a fraction)."""
    dev_spread: float | None
    """Standard deviation of dev WER between seeds; None with one."""
    test_wer: float | None
    """Errors over words on test, all seeds together (a fraction); None where not decoded."""
    test_low: float | None
    """Lowest test WER of a seed."""
    test_high: float | None
    """Highest test WER of a seed."""
    test_greedy_wer: float | None = None
    """What `test_wer` would be with greedy decoding; None where that is not known."""
    trials: tuple[int, ...]
    """The trials, the one with the lowest dev WER first."""


def finals_data(trials: pd.DataFrame) -> tuple[FinalistResult, ...]:
    """Return the finalists among the trials of a study that have a result, the winner first."""
    rows = trials[(trials["phase"] == PHASE) & trials["finalist"].notna()]
    failed = rows[rows["outcome"].isin(_FAILED) & ~rows["number"].isin(trials["retry_of"])]
    lost = failed["finalist"].value_counts()
    rows = rows[rows["result"] & np.isfinite(rows["wer"].astype(float))]
    found = [
        _one(str(label), group, int(lost.get(label, 0)))
        for label, group in rows.groupby("finalist", sort=False)
    ]
    return tuple(sorted(found, key=lambda item: (item.dev_wer, item.label)))


def _one(label: str, trials: pd.DataFrame, failed: int) -> FinalistResult:
    trials = trials.sort_values(["wer", "number"])
    dev = trials["wer"].to_numpy(dtype=float)
    first = trials.iloc[0]
    tests = [wer for wer in map(number_or_none, trials["test_wer"].tolist()) if wer is not None]
    pooled = _pooled(trials, "test_errors")
    return FinalistResult(
        label=label,
        anchor=first["anchor"] if isinstance(first["anchor"], str) else None,
        values={name: number_or_none(trials[name].astype(float).iloc[0]) for name in SIX},
        seeds=len(trials),
        failed=failed,
        dev_wer=float(dev.mean()),
        dev_spread=float(dev.std(ddof=1)) if len(dev) > 1 else None,
        test_wer=pooled if pooled is not None else float(np.mean(tests)) if tests else None,
        test_low=min(tests, default=None),
        test_high=max(tests, default=None),
        test_greedy_wer=_pooled(trials, "test_greedy_errors"),
        trials=tuple(int(number) for number in trials["number"]),
    )


def _pooled(trials: pd.DataFrame, errors: str) -> float | None:
    """Return errors over words of all seeds that have both."""
    told = trials[[errors, "test_words"]].astype(float).dropna()
    words = float(told["test_words"].sum())
    return float(told[errors].sum()) / words if words > 0 else None
