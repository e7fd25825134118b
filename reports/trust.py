"""One check of whether a study can be believed: a finding with a status, and what to do about it.

    size = Topic("dev_size", "Size of dev")
    size.found(LOOK, "One word of dev …", "Score on more speech.")

The statuses are a traffic light that is never told by its colour alone: each has a word and a mark.
"""

from __future__ import annotations

from dataclasses import dataclass

GOOD, LOOK, BAD, NOT_KNOWN = "good", "look", "bad", "not known"

MARKS = {BAD: "✗", LOOK: "!", NOT_KNOWN: "?", GOOD: "✓"}
"""A mark for each status, the gravest first."""

MEANINGS = {
    BAD: "the study's answers may be wrong for this reason",
    LOOK: "they may be right, but this should be looked at",
    NOT_KNOWN: "the study does not hold what would be needed to tell",
    GOOD: "nothing stands against them here",
}
"""What each status says, for the legend."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A finding."""

    id: str
    """A short name, unique among the checks."""

    title: str
    """What is checked, in a few words."""

    status: str
    """`good`, `look`, `bad` or `not known`."""

    text: str
    """What was found, with its figures; of `not known`, why it is not."""

    remedy: str
    """What to do about it; empty where there is nothing to do."""

    @property
    def mark(self) -> str:
        """Return the status as one character."""
        return MARKS[self.status]


@dataclass(frozen=True)
class Topic:
    """What one check is about."""

    id: str
    """A short name, unique among the checks."""

    title: str
    """What is checked, in a few words."""

    def found(self, status: str, text: str, remedy: str = "") -> Check:
        """Return the check, with what was found."""
        return Check(id=self.id, title=self.title, status=status, text=text, remedy=remedy)


def gravest(*statuses: str) -> str:
    """Return the worst of statuses that were found; `not known` counts only where it is alone."""
    found = [status for status in (BAD, LOOK, GOOD) if status in statuses]
    return found[0] if found else NOT_KNOWN


def graded(value: float, *, look: float, bad: float) -> str:
    """Return the status of a value of which less is better: `look` and `bad` lie above."""
    return BAD if value > bad else LOOK if value > look else GOOD
