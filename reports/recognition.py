"""What the best trial heard: dev utterances beside their references, differences marked.

The transcripts are the `hypotheses.jsonl` of a trial: one JSON object per line with `id`,
`reference`, `hypothesis`, `errors` and `words`.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORST, RANDOM = 10, 5


@dataclass(frozen=True, kw_only=True)
class Word:
    """One step of the alignment of a reference with a hypothesis."""

    kind: str
    """`same`, `substituted`, `deleted` (missed) or `inserted` (not spoken)."""

    reference: str
    """The word that was spoken; empty if inserted."""

    hypothesis: str
    """The word that was recognised; empty if deleted."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One utterance."""

    id: str
    """The utterance's name in the corpus."""

    words: tuple[Word, ...]
    """The alignment with the fewest errors."""

    errors: int
    """Errors in it."""

    spoken: int
    """Words in the reference."""


@dataclass(frozen=True, kw_only=True)
class RecognitionData:
    """Examples of recognition, or why there are none."""

    worst: tuple[Example, ...]
    """The utterances with the most errors, worst first."""

    drawn: tuple[Example, ...]
    """A few others, drawn at random (the same ones each time)."""

    utterances: int
    """How many there are to choose from."""

    unreadable: int
    """Lines of the file that are no utterance."""

    refusal: str
    """Why there are none; empty if there are."""


def recognition_data(trials_folder: Path | None, number: int | None) -> RecognitionData:
    """Read the transcripts of a trial and choose the worst and a few random utterances."""
    if number is None:
        return _none("There is no finished trial whose transcripts could be shown.")
    if trials_folder is None:
        return _none("The trials' folder was not given, so there are no transcripts to show.")
    path = trials_folder / str(number) / "hypotheses.jsonl"
    if not path.is_file():
        return _none(f"Trial {number} left no transcripts (hypotheses.jsonl).")
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = [_parse(line) for line in lines if line.strip()]
    found = [row for row in rows if row is not None]
    if not found:
        return _none(f"The transcripts of trial {number} hold no utterance that can be read.")
    ranked = sorted(found, key=lambda row: (-_errors(row), row["id"]))
    worst, rest = ranked[:WORST], ranked[WORST:]
    drawn = random.Random(number).sample(rest, min(RANDOM, len(rest)))
    return RecognitionData(
        worst=tuple(_example(row) for row in worst if _errors(row) > 0),
        drawn=tuple(_example(row) for row in drawn),
        utterances=len(found),
        unreadable=len(rows) - len(found),
        refusal="",
    )


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[Word, ...]:
    """Align two sequences of words with the fewest substitutions, deletions and insertions."""
    rows, columns = len(reference) + 1, len(hypothesis) + 1
    cost = [[i + j if i == 0 or j == 0 else 0 for j in range(columns)] for i in range(rows)]
    for i in range(1, rows):
        for j in range(1, columns):
            change = int(reference[i - 1] != hypothesis[j - 1])
            cost[i][j] = min(cost[i - 1][j - 1] + change, cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    steps: list[Word] = []
    i, j = rows - 1, columns - 1
    while i or j:
        change = int(i > 0 and j > 0 and reference[i - 1] != hypothesis[j - 1])
        if i and j and cost[i][j] == cost[i - 1][j - 1] + change:
            i, j = i - 1, j - 1
            kind = "substituted" if change else "same"
            steps.append(Word(kind=kind, reference=reference[i], hypothesis=hypothesis[j]))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            steps.append(Word(kind="deleted", reference=reference[i], hypothesis=""))
        else:
            j -= 1
            steps.append(Word(kind="inserted", reference="", hypothesis=hypothesis[j]))
    return tuple(reversed(steps))


def _none(refusal: str) -> RecognitionData:
    return RecognitionData(worst=(), drawn=(), utterances=0, unreadable=0, refusal=refusal)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    texts = ("id", "reference", "hypothesis")
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in texts):
        return None
    return row


def _errors(row: dict[str, Any]) -> int:
    """Return the errors that the study counted; count them where it did not."""
    told = row.get("errors")
    return told if isinstance(told, int) else _example(row).errors


def _example(row: dict[str, Any]) -> Example:
    reference = _printable(row["reference"]).split()
    words = align(reference, _printable(row["hypothesis"]).split())
    return Example(
        id=_printable(row["id"]),
        words=words,
        errors=sum(word.kind != "same" for word in words),
        spoken=len(reference),
    )


def _printable(text: str) -> str:
    """Make control characters visible: some are not allowed in a page at all."""
    return "".join("\ufffd" if ord(c) < 32 and not c.isspace() else c for c in text)
