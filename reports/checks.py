"""Can this study be believed? A list of checks, each with a status, its figures and a remedy.

    checks = checks_data(record)
    checks.sentence                     # Of 12 checks: 2 bad, 3 to be looked at, ...
    [check.id for check in checks.checks if check.status == "bad"]

Every check follows one fixed rule, which is told in the docstring of what computes it: the edges
of the ranges in `reports.edges`, the cover of the space in `reports.coverage`, seeds, dev and
winner in `reports.noise`, the rungs in `reports.rungs`; failures and learning curves here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact, spearmanr

from reports.coverage import coverage_checks
from reports.curves import falls_data
from reports.edges import edge_checks
from reports.landscape import axes_of
from reports.noise import noise_checks
from reports.questions import label_of
from reports.rungs import evaluations_of, rung_checks, rung_panels, rungs_data
from reports.trust import BAD, GOOD, LOOK, MARKS, MEANINGS, NOT_KNOWN, Check, Topic, graded, gravest
from reports.wording import counted, number, percent

if TYPE_CHECKING:
    from reports.record import StudyRecord
    from reports.style import Panel

FAILED_LOOK, FAILED_BAD = 0.05, 0.20
"""Shares of failed trials above which they should be looked at, and above which it is bad."""

DEAF_LOOK, DEAF_BAD = 0.5, 0.9
"""Lowest WERs above which networks hardly recognise speech, and above which they do not at all."""

FALLING = 0.15
"""A WER that falls by more than this share per doubling of the training is still falling."""

FALLING_LOOK, FALLING_BAD = 0.25, 0.75
"""Shares of networks that are still falling, likewise."""

FAILURES = {"crashed": "crashed", "diverged": "diverged", "out_of_memory": "ran out of memory"}
"""Outcomes that are failures, in words."""

_FEWEST_CURVES = 4
_FEWEST_FAILURES = 3
_STRATA = 4  # parts of a continuous range in which failures are counted


@dataclass(frozen=True, kw_only=True)
class ChecksData:
    """All checks of a study."""

    checks: tuple[Check, ...]
    """The gravest first."""

    sentence: str
    """How many have which status."""

    legend: tuple[tuple[str, str, str], ...]
    """Per status: its mark, its word and what it says."""

    panels: tuple[Panel, ...] = field(compare=False)  # they hold functions, which are never equal
    """The figure: how early the final order shows; empty where that is not known."""


_RECOGNITION = Topic("recognition", "The networks recognise speech")
_FAILED = Topic("failures", "Few trials failed")
_BUDGET = Topic("budget", "Budget long enough")


def checks_data(record: StudyRecord) -> ChecksData:
    """Return every check of a study, finished or not."""
    rungs = rungs_data(record)
    found = [
        *noise_checks(record),
        *edge_checks(record),
        *coverage_checks(record),
        _recognises(record),
        _failures(record),
        _falling(record),
        *rung_checks(record, rungs),
    ]
    order = list(MARKS)
    return ChecksData(
        checks=tuple(sorted(found, key=lambda check: order.index(check.status))),
        sentence=_sentence(found),
        legend=tuple((mark, status, MEANINGS[status]) for status, mark in MARKS.items()),
        panels=tuple(rung_panels(rungs)),
    )


def _sentence(checks: list[Check]) -> str:
    counts = {status: sum(check.status == status for check in checks) for status in MARKS}
    words = {
        BAD: "bad",
        LOOK: "to be looked at",
        NOT_KNOWN: "not known",
        GOOD: "good",
    }
    told = ", ".join(f"{counts[status]} {words[status]}" for status in MARKS if counts[status])
    return f"Of {len(checks)} checks: {told}."


def _recognises(record: StudyRecord) -> Check:
    """Tell whether any network learned to recognise speech, from the lowest WER of the results.

    A network that says nothing has a WER of 100 %. Above 90 % it is `bad`: shapes are then ranked
    by how they fail. Above 50 % it is `look`.
    """
    wers = record.results["wer"].astype(float)
    if wers.empty:
        return _RECOGNITION.found(NOT_KNOWN, "No trial has finished.")
    lowest = float(wers.min())
    status = graded(lowest, look=DEAF_LOOK, bad=DEAF_BAD)
    text = f"The lowest WER on dev is {percent(lowest)}."
    if status == GOOD:
        return _RECOGNITION.found(status, text)
    text += " A network that says nothing has 100 %."
    if status == BAD:
        text += " So the shapes are ranked by how they fail, which says nothing of how they learn."
    return _RECOGNITION.found(
        status,
        text,
        "Give the trials more steps (training.budget, smaller training.batch_seconds), more speech "
        "or another learning rate, until a network recognises some of it.",
    )


def _failures(record: StudyRecord) -> Check:
    """Count failed trials, and look whether they share a value.

    Above 5 % of the trials that ended is `look`, above 20 % `bad`. They cluster where one value of
    a hyperparameter (a quarter of a continuous range) has more of them than chance explains:
    Fisher's exact test, one-sided, p < 0.05 after Bonferroni's correction over all values. What
    is then known of that value is known from the trials that survived it: at least `look`.
    """
    ended = record.trials[record.trials["outcome"].isin(["finished", "pruned", *FAILURES])]
    if ended.empty:
        return _FAILED.found(NOT_KNOWN, "No trial has ended yet.")
    failed = ended["outcome"].isin(list(FAILURES)).to_numpy()
    if not failed.any():
        return _FAILED.found(GOOD, f"None of {counted(len(ended), 'trial')} failed.")
    counts = ended[failed]["outcome"].value_counts()
    kinds = ", ".join(f"{counts[key]} {said}" for key, said in FAILURES.items() if key in counts)
    share = float(failed.mean())
    text = f"{percent(share, 1)} of {counted(len(ended), 'trial')} failed: {kinds}."
    status = graded(share, look=FAILED_LOOK, bad=FAILED_BAD)
    cluster = _cluster(record, ended, failed)
    if cluster:
        text += (
            f" They cluster at {cluster}, so what is known of it comes from those that survived."
        )
        status = gravest(status, LOOK)
    remedies = {
        "crashed": "read their errors in the table of trials, mend the cause, run --retry-crashed",
        "diverged": "lower the upper end of the learning rate",
        "out_of_memory": "use smaller batches or leave out the largest values",
    }
    told = "; ".join(remedies[key] for key in FAILURES if key in counts)
    return _FAILED.found(status, text, "" if status == GOOD else f"{told[0].upper()}{told[1:]}.")


def _cluster(record: StudyRecord, ended: pd.DataFrame, failed: np.ndarray) -> str:
    """Return the value at which failures cluster most, in words with its counts; empty if none."""
    if failed.sum() < _FEWEST_FAILURES or failed.all():
        return ""
    found = []
    for axis in axes_of(record):
        values = ended[axis.column].to_numpy(dtype=float, na_value=np.nan)
        if listed := axis.searched.listed:
            groups = {number(v): np.isclose(values, v) for v in listed}
        else:
            edges = [axis.value(i / _STRATA) for i in range(_STRATA + 1)]
            groups = {
                f"{number(low)} to {number(high)}": (values >= low) & (values <= high)
                for low, high in pairwise(edges)
            }
        for label, here in groups.items():
            known = np.isfinite(values)
            table = [
                [int((here & failed).sum()), int((here & ~failed).sum())],
                [int((known & ~here & failed).sum()), int((known & ~here & ~failed).sum())],
            ]
            chance = float(fisher_exact(table, alternative="greater").pvalue)
            said = (
                f"{label_of(axis.name).lower()} {label} ({table[0][0]} of {sum(table[0])} failed)"
            )
            found.append((chance, said))
    if not found:
        return ""
    chance, said = min(found)
    return said if chance * len(found) < 0.05 else ""


def _falling(record: StudyRecord) -> Check:
    """Tell whether the budget was long enough, from `reports.curves.falls_data`.

    Where at most a quarter of the explore results still fall by 15 % per doubling it is `good`.
    Where more than three quarters do, it is `bad` if large networks fall faster or slower than
    small ones (Spearman, p < 0.05), since a longer budget would then change the order; otherwise
    it is `look`.
    """
    falls = falls_data(record, evaluations_of(record))
    if len(falls) < _FEWEST_CURVES:
        text = (
            f"It takes {_FEWEST_CURVES} explore results that were evaluated on the way; there "
            f"{'is' if len(falls) == 1 else 'are'} {len(falls)}."
        )
        return _BUDGET.found(NOT_KNOWN, text)
    falling = float((falls["fall"] > FALLING).mean())
    typical = float(falls["fall"].median())
    trend = (
        f"falls by {percent(typical, 0)}" if typical >= 0 else f"rises by {percent(-typical, 0)}"
    )
    text = (
        f"{percent(falling, 0)} of {counted(len(falls), 'explore result')} were "
        f"still losing more than {percent(FALLING, 0)} of their WER per doubling of the training "
        f"when the learning rate began to decay; the median {trend}."
    )
    status = graded(falling, look=FALLING_LOOK, bad=FALLING_BAD)
    faster = _by_size(falls)
    if status == BAD and not faster:
        status = LOOK
    if faster and status != GOOD:
        text += (
            f" The larger the network, the {faster} it falls, so a longer budget may change the "
            "order."
        )
    return _BUDGET.found(
        status, text, "" if status == GOOD else "Train longer, and see whether answers stay."
    )


def _by_size(falls: pd.DataFrame) -> str:
    """Return whether large networks fall `faster` or `slower` than small ones; empty if neither."""
    known = falls[np.isfinite(falls["parameters"])]
    if len(known) < 2 * _FEWEST_CURVES or known["parameters"].nunique() < 2:
        return ""
    if known["fall"].nunique() < 2:
        return ""
    found = spearmanr(known["parameters"], known["fall"])
    if found.pvalue >= 0.05:
        return ""
    return "faster" if found.statistic > 0 else "slower"
