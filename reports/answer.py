"""The answer in short: the best trial against the anchors, in data and in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.questions import QUESTIONS, SIX
from reports.wording import MISSING, counted, number, percent, points

if TYPE_CHECKING:
    from reports.finals import FinalistResult
    from reports.record import StudyRecord


@dataclass(frozen=True, kw_only=True)
class BestTrial:
    """The winner's seed with the lowest dev WER; before any finalist, the lowest of all results."""

    number: int
    """The trial's number."""

    wer: float
    """Its dev WER, a fraction."""

    seed: int | None
    """Its seed."""

    anchor: str | None
    """The anchor's name, if the best trial is one."""

    values: dict[str, float | None]
    """Its value of each of the six."""


@dataclass(frozen=True, kw_only=True)
class AnchorResult:
    """What one anchor reached."""

    name: str
    """Its name."""

    wer: float | None
    """Dev WER, a fraction: the median where several trials have it, None if none finished."""

    trials: int
    """How many of its trials finished."""

    outcomes: tuple[str, ...]
    """What became of each of its trials."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the command line prints, and the headline of the page."""

    study: str
    """The study's name."""

    counts: dict[str, int]
    """Trials by outcome: finished, pruned, diverged, out_of_memory, crashed, running, ..."""

    results: int
    """Trials that were trained to the end and whose WER was measured."""

    best: BestTrial | None
    """The winner's best seed, or before any finalist the best of them, None if there are none."""

    finalists: tuple[FinalistResult, ...]
    """Configurations that were trained again and scored on test, the winner first."""

    anchors: tuple[AnchorResult, ...]
    """The study's reference points, in the order of their trials."""

    seed_spread: float | None
    """Standard deviation of WER (a fraction) between seeds of one configuration, pooled over the
    configurations that were trained more than once; None if none was."""

    sentence: str
    """The above for a person."""


def answer_data(record: StudyRecord, tested: str = "") -> Answer:
    """Return the best trial, the anchors, the counts, and a sentence that says them.

    `tested` says which differences between the finalists are shown (`reports.comparison`).
    """
    from reports.noise import seed_spread

    best = best_of(record)
    anchors = _anchors(record)
    spread = seed_spread(record)
    counts = record.trials["outcome"].value_counts()
    return Answer(
        study=record.name,
        counts={str(outcome): int(n) for outcome, n in sorted(counts.items())},
        results=len(record.results),
        best=best,
        finalists=record.finals,
        anchors=anchors,
        seed_spread=None if spread is None else spread.deviation,
        sentence=" ".join(filter(None, [_sentence(record, best, anchors), tested])),
    )


def configuration_sentence(values: dict[str, float | None]) -> str:
    """Return the six in words: 4 encoder layers, encoder width 144, ..."""
    return ", ".join(
        question.said(value)
        for question in QUESTIONS
        if (value := values.get(question.name)) is not None
    )


def compared(best: float, other: float) -> str:
    """Say how far another WER lies from the best one."""
    if best == other:
        return "the same"
    return f"{points(other - best)} {'above' if other > best else 'below'} it"


def best_of(record: StudyRecord) -> BestTrial | None:
    """Return the best trial of the winner among the finalists; before any, the lowest WER."""
    row = record.best
    if row is None:
        return None
    seed = row["seed"]
    return BestTrial(
        number=int(row["number"]),
        wer=float(row["wer"]),
        seed=seed if isinstance(seed, int) else None,
        anchor=row["anchor"] if isinstance(row["anchor"], str) else None,
        values={name: _value(row[name]) for name in SIX},
    )


def _value(value: Any) -> float | None:
    if number(value) == MISSING:
        return None
    real = float(value)
    return int(real) if real.is_integer() else real


def _anchors(record: StudyRecord) -> tuple[AnchorResult, ...]:
    anchored = record.trials[record.trials["anchor"].notna()]
    found = []
    for name in dict.fromkeys(anchored["anchor"]):
        trials = anchored[anchored["anchor"] == name]
        results = trials[trials["result"]]
        found.append(
            AnchorResult(
                name=name,
                wer=float(results["wer"].median()) if len(results) else None,
                trials=len(results),
                outcomes=tuple(trials["outcome"]),
            )
        )
    return tuple(found)


def _sentence(
    record: StudyRecord, best: BestTrial | None, anchors: tuple[AnchorResult, ...]
) -> str:
    if record.finals:
        return _winner_sentence(record.finals)
    if best is None:
        return f"No trial has finished with a word error rate yet{_why_none(record)}."
    shape = configuration_sentence(best.values)
    who = f"trial {best.number}" + (f", the anchor {best.anchor}" if best.anchor else "")
    results = counted(len(record.results), "finished trial")
    text = f"The lowest dev WER of {results} is {percent(best.wer)}, by {who}"
    text += f": {shape}." if shape else "."
    told = [
        f"{anchor.name} at {percent(anchor.wer)}, {compared(best.wer, anchor.wer)}"
        for anchor in anchors
        if anchor.wer is not None and anchor.name != best.anchor
    ]
    pending = [anchor.name for anchor in anchors if anchor.wer is None]
    if told:
        text += f" For comparison: {'; '.join(told)}."
    if pending:
        text += f" Without a result: {', '.join(pending)}."
    return text


def _winner_sentence(finals: tuple[FinalistResult, ...]) -> str:
    winner, *others = finals
    shape = configuration_sentence(winner.values)
    who = f"the anchor {winner.anchor}" if winner.anchor else f"“{winner.label}”"
    seeds = f"mean of {counted(winner.seeds, 'seed')}" if winner.seeds > 1 else "one seed"
    seeds += f", {winner.failed} more failed" if winner.failed else ""
    if winner.test_wer is None:
        text = f"The winner on dev is {who} at {percent(winner.dev_wer)} ({seeds}): {shape}."
    else:
        greedy = winner.test_greedy_wer
        by = "" if greedy is None else f"by beam search, {percent(greedy)} by greedy decoding; "
        text = (
            f"The winner is {who}: {shape}. It reaches {percent(winner.test_wer)} WER on test "
            f"({by}{seeds}; {percent(winner.dev_wer)} on dev{', greedy' if by else ''})."
        )
    told = [
        f"{other.anchor} at {percent(other.test_wer)}, {compared(winner.test_wer, other.test_wer)}"
        for other in others
        if other.anchor and other.test_wer is not None and winner.test_wer is not None
    ]
    return f"{text} For comparison: {'; '.join(told)}." if told else text


def _why_none(record: StudyRecord) -> str:
    counts = record.trials["outcome"].value_counts()
    if counts.empty:
        return ": the study holds no trials"
    return ": " + ", ".join(f"{n} {str(key).replace('_', ' ')}" for key, n in counts.items())
