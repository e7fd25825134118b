"""Whether a rung knows who will win, and what pruning cost.

    data = rungs_data(record)
    data.foresight      # per evaluation: Spearman's correlation with the final order
    data.spared         # trials that the pruner was told to spare, and would have stopped

Read from trials that nobody stopped: those of the explore phase, anchors included, and the refine
trials that were spared at random. The finished rest of the refine phase was let through for
its standing at the rungs, which would flatter them. Trials stand at an evaluation as the pruner
sees them: by WER where it is below 80 %, and after all of those by dev loss where it is not.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter
from scipy.stats import rankdata

from reports.finals import PHASE
from reports.style import EXPLORE, INK, MUTED, Panel
from reports.trials import number_or_none
from reports.trust import BAD, GOOD, LOOK, NOT_KNOWN, Check, Topic
from reports.wording import counted, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.record import StudyRecord

INFORMATIVE = 0.8
"""The WER from which on the dev loss is compared, as the pruner does."""

FEWEST = 6
"""Trials without which no correlation is computed."""

RESAMPLES = 400
"""Bootstrap resamples of the trials behind each interval."""

_MOST = 400  # trials that enter; the first of an even sample are one themselves
_FEWEST_SPARED = 5  # would-be-stopped trials from which a share is worth a verdict


@dataclass(frozen=True, kw_only=True)
class Spared:
    """What became of trials that were spared at random although the pruner would stop them."""

    survivors: int
    """Refine trials that were spared and finished."""
    stopped: int
    """Those of them that stood too low at a rung."""
    among_best: int
    """Those of these that ended in the best quarter of all results of the search."""
    usual: float
    """The share of all spared trials that did: what to expect if rungs told nothing."""
    pruned: int
    """Trials that were really stopped."""


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What one evaluation knows of the final order."""

    evaluation: int
    """Its number, from 1."""
    share: float
    """The share of the budget at which it lies."""
    correlation: float
    """Spearman's, between the trials' standing there and their final WERs."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    trials: int
    """Trials that it is computed from."""
    rung: bool
    """Whether the pruner compares trials there."""


@dataclass(frozen=True, kw_only=True)
class RungsData:
    """How early the final order shows."""

    foresight: tuple[Foresight, ...]
    """Per evaluation before the last; empty where nothing is known."""
    rungs: tuple[int, ...]
    """Evaluations at which trials are compared."""
    spared: Spared
    """What pruning cost."""
    refusal: str
    """Why nothing is known of the foresight; empty if something is."""


_RUNGS = Topic("rungs", "Rungs foresee the final order")
_PRUNING = Topic("pruning", "What pruning cost")


def rungs_data(record: StudyRecord) -> RungsData:
    """Correlate the standing of unpruned trials at each evaluation with their final WER."""
    total = evaluations_of(record)
    rungs = _rungs(record, total)
    spared = _spared(record, rungs)
    results = record.results
    chosen = results[
        ~results["phase"].isin(["refine", PHASE])
        | (results["survivor"] & (results["phase"] != PHASE))
    ]
    chosen = chosen[np.isfinite(chosen["wer"].astype(float))].head(_MOST)
    final = chosen.set_index("number")["wer"].astype(float)
    rows, most = [], 0
    for evaluation in range(1, total):
        standing = _standing(record.curves, evaluation)
        both = [n for n in final.index if n in standing]
        most = max(most, len(both))
        if len(both) < FEWEST:
            continue
        found = _correlation(_places([standing[n] for n in both]), final[both].to_numpy())
        if found is not None:
            rows.append(
                Foresight(
                    evaluation=evaluation,
                    share=evaluation / total,
                    correlation=found[0],
                    low=found[1],
                    high=found[2],
                    trials=len(both),
                    rung=evaluation in rungs,
                )
            )
    refusal = ""
    if not rows:
        refusal = (
            f"It takes {FEWEST} unpruned trials that were evaluated on the way; there "
            f"{'is' if most == 1 else 'are'} {most}."
        )
    return RungsData(foresight=tuple(rows), rungs=rungs, spared=spared, refusal=refusal)


def evaluations_of(record: StudyRecord) -> int:
    """Return how many evaluations a training has, by the configuration or else by the trials."""
    training = record.config.get("training")
    told = number_or_none(training.get("evaluations")) if isinstance(training, dict) else None
    if told is not None and told >= 1 and told.is_integer():
        return int(told)
    seen = record.curves[record.curves["number"].isin(record.results["number"])]["evaluation"]
    return int(seen.max()) if seen.notna().any() else 0


def _rungs(record: StudyRecord, total: int) -> tuple[int, ...]:
    """Return the rungs by the configuration or else those at which trials were stopped."""
    refine = record.config.get("refine")
    refine = refine if isinstance(refine, dict) else {}
    share, factor = (number_or_none(refine.get(key)) for key in ("first_rung", "reduction_factor"))
    if refine.get("pruner") == "none":
        return ()
    if share is None or factor is None or share <= 0 or factor < 2:
        seen = record.trials[record.trials["outcome"] == "pruned"]["evaluations"].dropna()
        return tuple(sorted({int(n) for n in seen if 0 < n < total}))
    found = []
    while share < 1:
        rung = max(1, round(share * total))
        if rung < total and rung not in found:
            found.append(rung)
        share *= factor
    return tuple(found)


def _standing(curves: pd.DataFrame, evaluation: int) -> dict[int, tuple[int, float]]:
    """Return how trials stand at an evaluation, less is better."""
    rows = curves[curves["evaluation"] == evaluation]
    found = {}
    for trial, wer, loss in zip(rows["number"], rows["wer"], rows["dev_loss"], strict=True):
        if wer < INFORMATIVE:
            found[int(trial)] = (0, float(wer))
        elif math.isfinite(loss):
            found[int(trial)] = (1, float(loss))
    return found


def _places(standing: list[tuple[int, float]]) -> np.ndarray:
    order = {value: place for place, value in enumerate(sorted(set(standing)))}
    return np.array([order[value] for value in standing], dtype=float)


def _correlation(early: np.ndarray, final: np.ndarray) -> tuple[float, float, float] | None:
    """Return Spearman's rank correlation and its 95 % interval over resamples of the trials."""
    if np.ptp(early) == 0 or np.ptp(final) == 0:
        return None
    draws = np.random.default_rng(0).integers(len(final), size=(RESAMPLES, len(final)))
    draws = np.vstack([np.arange(len(final)), draws])
    one, other = (rankdata(values[draws], axis=1) for values in (early, final))
    one, other = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (one, other))
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    known = scale > 0  # a resample may hold one trial only
    found = (one * other).sum(axis=1)[known] / scale[known]
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return float(found[0]), float(low), float(high)


def _spared(record: StudyRecord, rungs: tuple[int, ...]) -> Spared:
    """Ask of each spared trial whether the pruner would have stopped it for good.

    The pruner lets one in `reduction_factor` of the trials that came to a rung go on, and pauses
    the others until, with more trials there, they are among those after all. In which order they
    came is not stored; it is taken to be that of their numbers, which is exact for one worker and
    near for a few. Where the study did not store the factor, it is taken to be two.
    """
    search = record.results[record.results["phase"] != PHASE]
    wers = search["wer"].astype(float)
    spared = set(search[search["survivor"] & (search["phase"] == "refine")]["number"])
    refine = record.config.get("refine")
    factor = number_or_none(refine.get("reduction_factor")) if isinstance(refine, dict) else None
    finals = set(record.trials[record.trials["phase"] == PHASE]["number"])
    stopped: set[int] = set()
    for rung in rungs:
        there: list[tuple[tuple[int, float], int]] = []
        paused: list[tuple[tuple[int, float], int]] = []  # a heap: the best goes on first
        for trial, own in sorted(_standing(record.curves, rung).items()):
            if trial in finals:
                continue
            insort(there, (own, trial))
            if trial in spared:
                heappush(paused, (own, trial))
            kept = max(1, math.floor(len(there) / (factor or 2)))
            while paused and paused[0] <= there[kept - 1]:
                heappop(paused)
        stopped |= {trial for _, trial in paused}
    best = set(search[wers <= wers.quantile(0.25)]["number"]) if len(search) else set()
    return Spared(
        survivors=len(spared),
        stopped=len(stopped),
        among_best=len(stopped & best),
        usual=len(spared & best) / len(spared) if spared else 0.0,
        pruned=int((record.trials["outcome"] == "pruned").sum()),
    )


def rung_checks(record: StudyRecord, data: RungsData) -> list[Check]:
    """Return the check of the rungs' foresight, and that of what pruning cost."""
    return [_foresight(record, data), _cost(record, data)]


def _foresight(record: StudyRecord, data: RungsData) -> Check:
    """Judge the first rung, where most trials are stopped.

    `good` is a correlation of at least 0.7 whose interval begins at 0.5 or above, `bad` one below
    0.5 whose interval ends below 0.8, and `look` all between.
    """
    if not data.rungs:
        if _unpruned(record):
            return _RUNGS.found(
                GOOD, "Nothing is compared before its end: the study does not prune."
            )
        return _RUNGS.found(
            NOT_KNOWN, "The study stored no rungs, and no trial was stopped at one."
        )
    if data.refusal:
        return _RUNGS.found(NOT_KNOWN, data.refusal)
    rows = [item for item in data.foresight if item.rung]
    if not rows:
        return _RUNGS.found(NOT_KNOWN, "No unpruned trials have evaluations at a rung.")
    told = "; ".join(
        f"at evaluation {row.evaluation} ({percent(row.share, 0)} of the budget) "
        f"{row.correlation:.2f} ({row.low:.2f} to {row.high:.2f}, {counted(row.trials, 'trial')})"
        for row in rows
    )
    first = rows[0]
    sure = first.correlation >= 0.7 and first.low >= 0.5
    wrong = first.correlation < 0.5 and first.high < 0.8
    status = GOOD if sure else BAD if wrong else LOOK
    text = f"Rank correlation of the standing at a rung with the final WER (95 % interval): {told}."
    remedy = "" if sure else "Compare later (a larger “refine: {first_rung: …}”), or prune less."
    return _RUNGS.found(status, text, remedy)


def _unpruned(record: StudyRecord) -> bool:
    refine: Any = record.config.get("refine")
    if not isinstance(refine, dict):
        return False
    return refine.get("pruner") == "none" or refine.get("trials") == 0


def _cost(record: StudyRecord, data: RungsData) -> Check:
    """Judge the share of would-be-stopped trials that ended well; chance alone gives a quarter.

    `bad` is a quarter or more of at least five, `look` any other that is not none, `good` none of
    at least five.
    """
    spared = data.spared
    if not spared.pruned and _unpruned(record):
        return _PRUNING.found(GOOD, "Nothing was stopped early: the study does not prune.")
    more = "Spare more trials (“refine: {survivors: 0.3}”), if pruning is to be measured."
    if not spared.survivors:
        text = (
            f"{counted(spared.pruned, 'trial')} stopped early, and none of the finished was spared."
        )
        return _PRUNING.found(NOT_KNOWN, text, more)
    fate = (
        f"{spared.stopped}, of which {spared.among_best} ended in the best quarter of the search "
        f"({percent(spared.usual, 0)} of all that were spared did, and so would these if rungs "
        "told nothing)"
        if spared.stopped
        else "none"
    )
    text = (
        f"Of {counted(spared.survivors, 'trial')} spared at random, the pruner would have stopped "
        f"{fate}. {counted(spared.pruned, 'trial')} {'was' if spared.pruned == 1 else 'were'} "
        "really stopped."
    )
    if spared.stopped < _FEWEST_SPARED and not spared.among_best:
        return _PRUNING.found(NOT_KNOWN, f"{text} That is too few to tell.", more)
    share = spared.among_best / spared.stopped
    enough = spared.stopped >= _FEWEST_SPARED
    status = BAD if share >= 0.25 and enough else LOOK if spared.among_best else GOOD
    remedy = "" if status == GOOD else "Compare later (a larger “refine: {first_rung: …}”)."
    return _PRUNING.found(status, text, remedy)


def plot_rungs(axes: Axes, data: RungsData) -> None:
    """Draw the correlation over the budget with its interval, and mark the rungs."""
    found = data.foresight
    share = [item.share for item in found]
    low, high = [item.low for item in found], [item.high for item in found]
    axes.fill_between(share, low, high, color=EXPLORE, alpha=0.18, linewidth=0)
    correlations = [item.correlation for item in found]
    axes.plot(share, correlations, "o-", color=EXPLORE, lw=1.8, markersize=5)
    for row in (item for item in found if item.rung):
        axes.axvline(row.share, color=INK, lw=1.1, ls=(0, (4, 2.5)), zorder=1)
        near = row.share > 0.8
        axes.annotate(
            "rung",
            (row.share, 0),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if near else 5, 6),
            textcoords="offset points",
            ha="right" if near else "left",
            fontsize=10.5,
            color=INK,
        )
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(min(0.0, 1.05 * min(low)), 1.02)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 0)))
    axes.set_xlabel("share of the budget")
    axes.set_ylabel("rank correlation with the final WER")
    axes.grid(visible=False, axis="x")


def rung_panels(data: RungsData) -> list[Panel]:
    """Return the panel of the correlation over the budget, or nothing where it is not known."""
    if not data.foresight:
        return []
    told = "; ".join(
        f"{percent(row.share, 0)} of the budget: {row.correlation:.2f} ({row.low:.2f} to "
        f"{row.high:.2f}){', a rung' if row.rung else ''}"
        for row in data.foresight
    )
    return [
        Panel(
            name="rungs",
            title="How early the final order shows",
            alt="Spearman’s rank correlation of the standing at each evaluation with the final "
            f"WER, with 95 % intervals. {told}.",
            paint=lambda axes: plot_rungs(axes, data),
            width=460,
            height=290,
            right=26,
        )
    ]
