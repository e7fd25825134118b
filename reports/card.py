"""The answer card: one line per question, in words that need no statistics course.

for line in card_data(verdicts):
    print(line.question.text, line.value, line.verdict, line.sentence)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import wording
from reports.surrogate import MOST
from reports.verdicts import AT_HAND, FULL, TOO_FAR, TOO_SMALL
from reports.wording import counted, number, points, signed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reports.questions import Question
    from reports.record import Searched
    from reports.verdicts import Verdict

MARKS = {
    "decided": "●",
    "leaning": "◐",
    "undecided": "○",
    "at the edge": "▶",
    "no effect seen": "≈",
    "not asked": "–",
}
"""A mark for each verdict, so that none is told by its colour alone."""

MEANINGS = {
    "decided": "one value is better than every other",
    "leaning": "some values are clearly worse, but more than one is left",
    "undecided": "these trials cannot tell the values apart",
    "at the edge": "the best value is the last one tried: it may go on beyond",
    "no effect seen": "no value is shown to be worse, and what may lie between them is small",
    "not asked": "the study did not vary it",
}
"""What each verdict says, for the legend."""


_OUTLOOKS = {
    AT_HAND: "It is nearly decided: a few more trials may do.",
    TOO_SMALL: "The differences seen are hardly larger than what nobody would notice.",
    TOO_FAR: "The differences seen are too small to be told by twenty times the trials.",
    FULL: f"More trials would not tell: at most {MOST} are read together.",
}


@dataclass(frozen=True, kw_only=True)
class CardLine:
    """One question and its answer in words."""

    question: Question
    """The question."""
    verdict: str
    """One of `reports.verdicts.VERDICTS`."""
    mark: str
    """Its mark."""
    value: str
    """What to take: a value, `any`, or a dash."""
    sentence: str
    """The answer with its evidence."""
    advice: str
    """What is cheapest, or what would settle it; may be empty."""
    best: str
    """What the best network has, where that is another value; else empty."""


def card_data(
    verdicts: Sequence[Verdict], best: Mapping[str, float | None] | None = None
) -> tuple[CardLine, ...]:
    """Return the lines of the card, in the order of the questions.

    `best` holds the values of the best network, by the names of the questions.
    """
    return tuple(
        CardLine(
            question=verdict.question,
            verdict=verdict.verdict,
            mark=MARKS[verdict.verdict],
            value=_value(verdict),
            sentence=_sentence(verdict),
            advice=_advice(verdict),
            best=_best(verdict, best or {}),
        )
        for verdict in verdicts
    )


def listed(values: Sequence[float]) -> str:
    """Return values as a person lists them: 2, 3 and 4."""
    return wording.listed([number(value) for value in values])


def _value(verdict: Verdict) -> str:
    if verdict.verdict == "no effect seen":
        return "any"
    return number(verdict.recommended)


def _sentence(verdict: Verdict) -> str:
    if verdict.recommended is None:
        return verdict.reason
    best, gain = number(verdict.recommended), _gain(verdict)
    if verdict.verdict == "no effect seen":
        within = points(verdict.spread_bound or 0.0)
        return f"All values lie within {within} of WER of one another (95 % sure)."
    if verdict.verdict == "undecided":
        if len(verdict.as_good) == len(verdict.effects):
            start = f"{best} looks best, but no other value is shown to be worse."
        else:
            worse = _worse(verdict)
            verb = "is" if len(worse) == 1 else "are"
            start = f"{best} looks best; only {listed(worse)} {verb} worse for sure."
        return f"{start} {gain}"
    if verdict.verdict == "decided" or (verdict.verdict != "leaning" and not _rest(verdict)):
        start = f"{best} is better than every other value."
    elif not _rest(verdict):
        start = f"{best} looks best; each other value is worse, but not all of them for sure."
    else:
        start = f"{best} looks best; {listed(_rest(verdict))} cannot be told from it."
    return f"{start} {gain}"


def _rest(verdict: Verdict) -> list[float]:
    return [value for value in verdict.as_good if value != verdict.recommended]


def _worse(verdict: Verdict) -> list[float]:
    return [effect.value for effect in verdict.effects if not effect.as_good]


def _gain(verdict: Verdict) -> str:
    gain, low, high = verdict.gain, verdict.gain_low, verdict.gain_high
    if gain is None or low is None or high is None:
        return ""
    worst = number(verdict.worst)
    digits = 1 if min(abs(low), abs(high), gain) >= 0.001 else 2
    told = f"{signed(low, digits)} to {signed(high, digits)}"
    verb = "seems" if verdict.verdict == "undecided" else "is"
    best = number(verdict.recommended)
    return (
        f"With {worst}, WER {verb} {points(gain, digits)} higher than with {best} (95 %: {told})."
    )


def _advice(verdict: Verdict) -> str:
    if verdict.recommended is None:
        return ""
    if verdict.verdict == "at the edge":
        end = "above" if verdict.recommended == verdict.effects[-1].value else "below"
        return f"Try values {end} {number(verdict.recommended)}, in a study of another name."
    said = []
    cheapest = verdict.cheapest_parameters
    several = verdict.verdict not in ("undecided", "decided")
    if (
        several
        and len(verdict.as_good) > 1
        and cheapest is not None
        and cheapest != verdict.recommended
    ):
        fewest = f"{number(cheapest)} has the fewest weights"
        if verdict.cheapest_seconds == cheapest:
            fewest += " and trains fastest"
        said.append(f"Of those that do as well, {fewest}.")
    if verdict.verdict in ("undecided", "leaning"):
        if verdict.needed is not None:
            outcome = "show whether it matters" if verdict.verdict == "undecided" else "decide it"
            said.append(
                f"It would take about {counted(verdict.needed, 'finished trial')} like these in "
                f"all to {outcome}; there are {verdict.trials:,}."
            )
        elif verdict.verdict == "undecided" or verdict.outlook == AT_HAND:
            said += [text for key, text in _OUTLOOKS.items() if key == verdict.outlook]
    return " ".join(said)


def _best(verdict: Verdict, values: Mapping[str, float | None]) -> str:
    value = _another(verdict, values)
    return "" if value is None else f"The network above has {number(value)}."


def _another(verdict: Verdict, values: Mapping[str, float | None]) -> float | None:
    """Return the value that a network has where it is not the recommended one; else None."""
    value = values.get(verdict.question.name)
    return None if verdict.recommended in (None, value) else value


def summary(verdicts: Sequence[Verdict]) -> str:
    """Say in a sentence how many questions have which verdict; empty where none was asked."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    asked = len(verdicts) - counts["not asked"]
    if asked == 0:
        return ""
    if all(verdict.recommended is None for verdict in verdicts):
        reason = next(v.reason for v in verdicts if v.verdict != "not asked")
        return f"No question can be answered yet. {reason}"
    if counts["undecided"] == asked:
        which = "the question is" if asked == 1 else f"all {asked} questions are"
        return f"So far {which} undecided: the values below are a best guess, not a finding."
    told = [f"{counts[name]} {name}" for name in MEANINGS if counts[name] and name != "not asked"]
    return f"Of the {counted(asked, 'question')}: {', '.join(told)}."


def headline(verdict: Verdict, best: Mapping[str, float | None] | None = None) -> str:
    """Return an answer in a few words, for a tag or a terminal: 4 (leaning; the best trial has 6).

    `best` holds the values of the best trial, by the names of the questions.
    """
    value = _another(verdict, best or {})
    other = "" if value is None else f"; the best trial has {number(value)}"
    return f"{_value(verdict)} ({verdict.verdict}{other})"


def unlike(
    values: Mapping[str, float | None],
    answered: Sequence[Verdict],
    searched: Mapping[str, Searched],
) -> list[str]:
    """Say where a network has other values than the answers, and what is known of those.

    Of a range with many values, what is known of one is what was read at the nearest to it.
    """
    known: dict[str, list[str]] = {
        "which these trials cannot tell from the {answer}": [],
        "which {are} worse on average, though not for sure with this shape": [],
        "which the search did not try": [],
    }
    equal, worse, untried = known.values()
    for verdict in answered:
        value = _another(verdict, values)
        if value is None:
            continue
        tried = searched[verdict.question.name].allows(value)
        nearest = min(verdict.effects, key=lambda effect: abs(effect.value - value))
        fine = verdict.verdict == "no effect seen" or nearest.as_good
        (untried if not tried else equal if fine else worse).append(verdict.question.said(value))
    return [
        f"{wording.listed(said)}, "
        + what.format(
            answer="answers" if len(said) > 1 else "answer", are="are" if len(said) > 1 else "is"
        )
        for what, said in known.items()
        if said
    ]
