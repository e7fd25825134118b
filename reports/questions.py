"""The six questions of a study, and what its trials say about each.

`question_data` is read from one-seed results on dev, so it holds evidence and no verdict: per
value the best WER, the median WER of the even sample, and how many trials stand behind each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.wording import number

if TYPE_CHECKING:
    import pandas as pd

    from reports.record import Searched, StudyRecord


@dataclass(frozen=True, kw_only=True)
class Question:
    """One of the six questions."""

    name: str
    """The hyperparameter, under the one name it has everywhere."""

    text: str
    """The question as a person asks it."""

    label: str
    """A short name for axes and table heads."""

    phrase: str
    """How a value reads in a sentence, with `{}` for the value."""

    def said(self, value: float) -> str:
        """Return a value in words: 4 encoder layers, 1 encoder layer, encoder width 144."""
        text = self.phrase.format(number(value))
        return text.removesuffix("s") if value == 1 and self.phrase.startswith("{}") else text


QUESTIONS = (
    Question(
        name="encoder_layers",
        text="How many encoder layers?",
        label="Encoder layers",
        phrase="{} encoder layers",
    ),
    Question(
        name="encoder_dim",
        text="How wide is the encoder?",
        label="Encoder width",
        phrase="encoder width {}",
    ),
    Question(
        name="attention_heads",
        text="How many attention heads?",
        label="Attention heads",
        phrase="{} attention heads",
    ),
    Question(
        name="conv_kernel_size",
        text="How long is the convolution kernel?",
        label="Convolution kernel",
        phrase="convolution kernel {}",
    ),
    Question(
        name="decoder_layers",
        text="How many decoder layers?",
        label="Decoder layers",
        phrase="{} decoder layers",
    ),
    Question(
        name="decoder_dim",
        text="How wide is the decoder?",
        label="Decoder width",
        phrase="decoder width {}",
    ),
)
SIX = tuple(question.name for question in QUESTIONS)


def label_of(name: str) -> str:
    """Return the short label of a hyperparameter, one of the six or any other."""
    for question in QUESTIONS:
        if question.name == name:
            return question.label
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True, kw_only=True)
class ValueEvidence:
    """What the trials with one value of one hyperparameter reached."""

    value: float
    """The value."""

    best_wer: float | None
    """Lowest WER among the results with it, any phase, anchors included (a fraction)."""

    best_number: int | None
    """The trial that reached it."""

    results: int
    """How many results there are with it."""

    median_wer: float | None
    """Median WER of those results that belong to the even sample (a fraction)."""

    even: int
    """How many results of the even sample there are with it."""

    in_range: bool
    """Whether the search could draw the value; only anchors lie outside."""


@dataclass(frozen=True, kw_only=True)
class QuestionData:
    """One question and everything the study has seen about it."""

    question: Question
    """The question."""

    searched: Searched | None
    """The range, or None where the study holds the value fixed."""

    best_value: float | None
    """The value in the best trial."""

    fixed_value: float | None
    """The one value that all trials have, where the study does not search it."""

    edge: str
    """A note where the best trial's value lies at the end of the range or outside; else empty."""

    evidence: tuple[ValueEvidence, ...]
    """Per value, in ascending order."""


def question_data(record: StudyRecord) -> tuple[QuestionData, ...]:
    """Return the evidence on each of the six questions, in their order."""
    return tuple(_one(record, question) for question in QUESTIONS)


def edge_note(searched: Searched | None, value: float | None) -> str:
    """Say whether a value is at the end of its searched range or outside of it; else say nothing.

    For a continuous range or a long list the outer 2 % on either side (of the logarithm, on a log
    scale) count as its end: no sampler lands exactly on it.
    """
    if searched is None or value is None or searched.low == searched.high:
        return ""
    if not searched.spans(value):
        return "outside the searched range"
    if searched.listed:
        at_edge = value in (searched.low, searched.high)
    else:
        scale = math.log if searched.log and searched.low > 0 else float
        low, high, here = scale(searched.low), scale(searched.high), scale(value)
        at_edge = min(here - low, high - here) <= 0.02 * (high - low)
    return "at the edge of the range" if at_edge else ""


def values_of(record: StudyRecord, name: str) -> list[float]:
    """Return every value of a hyperparameter that matters: what is listed and what results have."""
    searched = record.searched.get(name)
    seen = record.results[name].dropna()
    return sorted({float(v) for v in seen} | set(searched.listed if searched else ()))


def _one(record: StudyRecord, question: Question) -> QuestionData:
    name = question.name
    searched = record.searched.get(name)
    best = record.best
    best_value = None if best is None or _missing(best[name]) else float(best[name])
    distinct = {float(v) for v in record.trials[name].dropna()}
    fixed = record.fixed_values.get(name)
    if fixed is None and len(distinct) == 1:
        fixed = next(iter(distinct))
    return QuestionData(
        question=question,
        searched=searched,
        best_value=best_value,
        fixed_value=None if searched else fixed,
        edge=edge_note(searched, best_value),
        evidence=tuple(
            _evidence(record.results, name, value, searched) for value in values_of(record, name)
        ),
    )


def _evidence(
    results: pd.DataFrame, name: str, value: float, searched: Searched | None
) -> ValueEvidence:
    rows = results[(results[name] == value).fillna(False).astype(bool)]
    even = rows[rows["even"]]
    best = rows.sort_values(["wer", "number"]).iloc[0] if len(rows) else None
    return ValueEvidence(
        value=value,
        best_wer=None if best is None else float(best["wer"]),
        best_number=None if best is None else int(best["number"]),
        results=len(rows),
        median_wer=float(even["wer"].median()) if len(even) else None,
        even=len(even),
        in_range=searched is None or searched.allows(value),
    )


def _missing(value: object) -> bool:
    import pandas as pd

    return value is None or bool(pd.isna(value))  # type: ignore[call-overload]
