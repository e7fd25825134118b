"""Whether the search looked far enough: a best value at the end of its range may not be the best.

    checks = edge_checks(record)

A range has two ends that mean different things. Beyond one layer or one head there is nothing, so
a best value there is an answer. Beyond the largest width that was tried there may be a better one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import binom, mannwhitneyu

from reports.finals import PHASE
from reports.landscape import axes_of
from reports.questions import QUESTIONS, edge_note, label_of
from reports.trust import BAD, GOOD, LOOK, NOT_KNOWN, Check, Topic, gravest
from reports.verdicts import LOWEST
from reports.wording import number

if TYPE_CHECKING:
    from reports.landscape import Axis
    from reports.record import StudyRecord

RATE = "learning_rate"

OUTER = 0.2
"""Share of the learning rate's (logarithmic) range, at either side, that counts as its end."""

_FEWEST_ALIKE = 3  # trials with a value before it is compared with its neighbour
_FALLING = 0.1  # one-sided p value, over all ends together, below which WER falls towards one
_FEWEST_BEST = 3

_BOUNDARY = Topic("boundary", "Best values inside their ranges")
_LEARNING_RATE = Topic("learning_rate", "Learning rate inside its range")


def edge_checks(record: StudyRecord) -> list[Check]:
    """Return the check of the ranges of the questions, and that of the learning rate."""
    return [_boundary(record), _rate(record)]


def _boundary(record: StudyRecord) -> Check:
    """Find best values at an end; it is bad where WER also falls towards that end.

    That it falls is told from the even sample, by a one-sided rank test of the trials at the end
    against those with the value beside it: a best trial alone may lie there by chance. The level
    is shared by all ends at which it lies, since with several one looks like it by chance.
    """
    axes = [axis for axis in axes_of(record) if axis.name != RATE]
    if record.best is None or len(record.results) < _FEWEST_BEST:
        text = f"There are too few finished trials ({len(record.results)}) to call one the best."
        return _BOUNDARY.found(NOT_KNOWN, text)
    if not axes:
        return _BOUNDARY.found(
            NOT_KNOWN, "Nothing but the learning rate was searched over several values."
        )
    outside, axes = _outside(record.best, axes)
    floor, open_ends, falling = _ends(record, record.best, axes)
    where = f"in the best trial, {record.best['number']}"
    told = []
    if outside:
        told.append(f"Outside of the range {where}, where only an anchor is: {', '.join(outside)}.")
    if falling:
        told.append(
            f"At the end of the range {where}, with WER still falling towards it: "
            f"{', '.join(falling)}."
        )
    if open_ends:
        told.append(
            f"At the end of the range{'' if falling else ' ' + where}, though the other trials do "
            f"not show that WER falls towards it: {', '.join(open_ends)}."
        )
    if not told:
        told.append(f"All {len(axes)} values {where}, lie inside their ranges.")
        if floor:
            told = [f"No value {where}, lies at an end that could be moved."]
    if floor:
        told.append(f"Nothing lies beyond {' and '.join(floor)}, so that is no fault.")
    status = BAD if falling else LOOK if open_ends or outside else GOOD
    remedy = "" if status == GOOD else "Widen these ranges in a study of another name."
    return _BOUNDARY.found(status, " ".join(told), remedy)


def _outside(best: pd.Series[Any], axes: list[Axis]) -> tuple[list[str], list[Axis]]:
    """Return the values of the best trial that lie outside of their ranges, and the other axes."""
    values = [(axis, best[axis.column]) for axis in axes]
    beyond = [a for a, v in values if not pd.isna(v) and not a.searched.spans(float(v))]
    return [_said(a.name, float(best[a.column])) for a in beyond], [
        axis for axis in axes if axis not in beyond
    ]


def _ends(
    record: StudyRecord, best: pd.Series[Any], axes: list[Axis]
) -> tuple[list[str], list[str], list[str]]:
    """Return the values of the best trial that lie at an end of their ranges, in words.

    First those beyond which there is nothing, then those beyond which there may be something, then
    those of them towards which WER falls.
    """
    values = [(axis, best[axis.column]) for axis in axes]
    ends = [(a, float(v)) for a, v in values if not pd.isna(v) and edge_note(a.searched, float(v))]
    movable = [
        axis
        for axis, value in ends
        if value > LOWEST.get(axis.name, 0) or value >= axis.searched.high
    ]
    floor, open_ends, falling = [], [], []
    for axis, value in ends:
        said = _said(axis.name, value)
        if axis not in movable:
            floor.append(said)
        elif _falls(record, axis, value, _FALLING / len(movable)):
            falling.append(said)
        else:
            open_ends.append(said)
    return floor, open_ends, falling


def _said(name: str, value: float) -> str:
    for question in QUESTIONS:
        if question.name == name:
            return question.said(value)
    return f"{label_of(name).lower()} {number(value)}"


def _falls(record: StudyRecord, axis: Axis, value: float, level: float) -> bool:
    """Return whether trials at this end of a range do better than those beside it."""
    rows = record.results[record.results["even"]]
    values, wers = (
        rows[name].to_numpy(dtype=float, na_value=np.nan) for name in (axis.column, "wer")
    )
    if axis.searched.listed:
        inner = sorted(axis.searched.listed, key=lambda choice: abs(choice - value))[:2]
        here, beside = (wers[np.isclose(values, choice)] for choice in inner)
    else:
        places = np.array([axis.place(v) for v in values])
        at_high = axis.place(value) > 0.5
        places = 1 - places if at_high else places
        here, beside = wers[places <= 0.25], wers[(places > 0.25) & (places <= 0.5)]
    if min(len(here), len(beside)) < _FEWEST_ALIKE:
        return False
    return bool(mannwhitneyu(here, beside, alternative="less").pvalue < level)


def _rate(record: StudyRecord) -> Check:
    """Tell whether the trials that do best crowd at an end of the learning rate's range.

    Looked at are the best quarter of all results of the search, and the best quarter of the
    largest third of the networks, which want a rate of their own. Of an even sample a fifth lies
    in the outer fifth at either side; if the best rate of all is the end itself, four fifths of
    the best quarter do. Half of them is `look` and two thirds `bad`, if chance is unlikely to
    do that (binomial, one-sided: below 5 % and 1 %).
    """
    axis = next((axis for axis in axes_of(record) if axis.name == RATE), None)
    if axis is None:
        text = (
            "The learning rate was not searched, so a shape may look worse only because the one "
            "rate of all trials does not suit it."
        )
        return _LEARNING_RATE.found(
            NOT_KNOWN, text, "Search it as a nuisance, so that the comparison is fair."
        )
    results = record.results[record.results["phase"] != PHASE]
    columns = {"place": axis.column, "wer": "wer", "parameters": "parameters"}
    table = pd.DataFrame(
        {key: results[name].to_numpy(dtype=float, na_value=np.nan) for key, name in columns.items()}
    )
    table["place"] = [axis.place(value) for value in table["place"]]
    table = table[np.isfinite(table["place"]) & np.isfinite(table["wer"])]
    if len(table) < 2 * _FEWEST_BEST:
        text = f"There are too few finished trials ({len(table)}) to see which rates do best."
        return _LEARNING_RATE.found(NOT_KNOWN, text)
    groups = {"the best quarter of the trials": table}
    sized = table[np.isfinite(table["parameters"])].sort_values("parameters", ascending=False)
    largest = sized.head(len(sized) // 3)
    if len(largest) >= 2 * _FEWEST_BEST and largest["parameters"].min() > sized["parameters"].min():
        groups["the best of the largest third of the networks"] = largest
    statuses, told, ends = [], [], set()
    for name, rows in groups.items():
        status, end, text = _crowding(rows, axis, name)
        statuses.append(status)
        told.append(text)
        if status != GOOD:
            ends.add(end)
    if record.best is not None and (
        note := edge_note(axis.searched, float(record.best[axis.column]))
    ):
        statuses.append(LOOK)
        told.append(f"The best trial’s own, {number(record.best[axis.column])}, is {note}.")
    searched = f"Searched {number(axis.searched.low)} to {number(axis.searched.high)}."
    status = gravest(*statuses)
    remedy = (
        f"Widen its range at the {' and the '.join(sorted(ends))} end, in a study of another name."
        if ends
        else ""
    )
    if status != GOOD and not remedy:
        remedy = "Look at the panel of WER against the learning rate."
    return _LEARNING_RATE.found(status, f"{searched} {' '.join(told)}", remedy)


def _crowding(rows: pd.DataFrame, axis: Axis, name: str) -> tuple[str, str, str]:
    """Return the status of a group of trials, the end at which its best crowd, and a sentence."""
    best = rows.sort_values("wer").head(max(_FEWEST_BEST, math.ceil(len(rows) / 4)))
    if axis.searched.listed:
        chance = 1 / len(axis.searched.listed)
        at = {"lower": int((best["place"] == 0).sum()), "upper": int((best["place"] == 1).sum())}
    else:
        chance = OUTER
        at = {
            "lower": int((best["place"] <= OUTER).sum()),
            "upper": int((best["place"] >= 1 - OUTER).sum()),
        }
    end = max(at, key=lambda key: at[key])
    share, luck = at[end] / len(best), float(binom.sf(at[end] - 1, len(best), chance))
    status = GOOD
    if share >= 1 / 2 and luck < 0.05:
        status = BAD if share >= 2 / 3 and luck < 0.01 else LOOK
    if axis.searched.listed:
        where = f"{at['lower']} of {len(best)} have the lowest and {at['upper']} the highest"
    else:
        middle = number(axis.value(float(best["place"].median())))
        where = (
            f"{at['lower']} of {len(best)} lie in the lowest and {at['upper']} in the highest "
            f"fifth of the range (median {middle})"
        )
    return status, end, f"Of {name}, {where}."
