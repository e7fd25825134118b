"""The transcripts of a trial: what was spoken, what was recognised, and how the two align.

    heard = read_transcripts(trials / "12" / "test.jsonl")
    texts = [(item.reference, item.hypothesis) for item in heard.utterances]
    for utterance, words in zip(heard.utterances, alignments(texts)): ...

A transcript is one JSON object per line, with `id`, `reference` and `hypothesis`; `speaker` and
`errors` may be missing. Alignments have the fewest errors, each kind at a cost of one, as jiwer
counts them. NIST's sclite weighs a substitution 4 and the others 3, so where several alignments
have equally few errors it may choose another.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jiwer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FEWEST_SPEAKERS = 8
"""With fewer speakers than this, intervals are over utterances instead."""

# Control characters and halves of surrogate pairs: some may not stand in a page at all.
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_KINDS = {"equal": "same", "substitute": "substituted", "delete": "deleted", "insert": "inserted"}


class Word(NamedTuple):
    """One step of the alignment of a reference with a hypothesis."""

    kind: str
    """`same`, `substituted`, `deleted` (missed) or `inserted` (not spoken)."""

    reference: str
    """The word that was spoken; empty if inserted."""

    hypothesis: str
    """The word that was recognised; empty if deleted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One line of a transcript."""

    id: str
    """Its name in the corpus."""

    speaker: str | None
    """Who spoke; None where unknown."""

    reference: str
    """What was spoken."""

    hypothesis: str
    """What was recognised."""

    errors: int
    """Words substituted, deleted and inserted: as the study counted them, or else counted here."""

    words: int
    """Words of the reference."""


@dataclass(frozen=True, kw_only=True)
class Transcripts:
    """All utterances of a file."""

    utterances: tuple[Utterance, ...]
    """In the order of the file."""

    unreadable: int
    """Lines that are no utterance, as at the end of a file that was cut off."""


def read_transcripts(path: Path) -> Transcripts:
    """Read a file of transcripts as far as it goes; without the file there are no utterances."""
    if not path.is_file():
        return Transcripts(utterances=(), unreadable=0)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    parsed = [_parse(line) for line in lines if line.strip()]
    rows = [row for row in parsed if row is not None]
    uncounted = [row for row in rows if not _is_count(row.get("errors"))]
    texts = [(str(row["reference"]), str(row["hypothesis"])) for row in uncounted]
    for row, words in zip(uncounted, alignments(texts), strict=True):
        row["errors"] = sum(word.kind != "same" for word in words)
    return Transcripts(
        utterances=tuple(_utterance(row) for row in rows), unreadable=len(parsed) - len(rows)
    )


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    texts = ("id", "reference", "hypothesis")
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in texts):
        return None
    return row | {key: _printable(row[key]) for key in texts}


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _utterance(row: dict[str, Any]) -> Utterance:
    speaker = row.get("speaker")
    known = isinstance(speaker, int) or (isinstance(speaker, str) and bool(speaker))
    return Utterance(
        id=row["id"],
        speaker=_printable(str(speaker)) if known else None,
        reference=row["reference"],
        hypothesis=row["hypothesis"],
        errors=row["errors"],
        words=len(row["reference"].split()),
    )


def resampled(utterances: Sequence[Utterance]) -> tuple[list[str], str]:
    """Return what an interval over utterances is to resample, and its name in the plural.

    That is each utterance's speaker, where all are known and there are enough of them: utterances
    of one speaker stand or fall together. Otherwise it is the utterance itself.
    """
    speakers = [item.speaker for item in utterances if item.speaker is not None]
    if len(speakers) == len(utterances) and len(set(speakers)) >= FEWEST_SPEAKERS:
        return speakers, "speakers"
    return [item.id for item in utterances], "utterances"


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[Word, ...]:
    """Align two sequences of words with the fewest substitutions, deletions and insertions."""
    return alignments([(" ".join(reference), " ".join(hypothesis))])[0]


def alignments(texts: Iterable[tuple[str, str]]) -> list[tuple[Word, ...]]:
    """Align each reference with its hypothesis; words are what blanks of any kind part."""
    pairs = [(reference.split(), hypothesis.split()) for reference, hypothesis in texts]
    unequal = [pair for pair in pairs if pair[0] != pair[1]]
    found = iter(_chunks(unequal) if unequal else [])
    return [
        tuple(Word("same", word, word) for word in reference)
        if reference == hypothesis
        else _steps(reference, hypothesis, next(found))
        for reference, hypothesis in pairs
    ]


def _chunks(pairs: list[tuple[list[str], list[str]]]) -> list[list[jiwer.AlignmentChunk]]:
    found = jiwer.process_words(
        [" ".join(reference) for reference, _ in pairs],
        [" ".join(hypothesis) for _, hypothesis in pairs],
    )
    return list(found.alignments)


def _steps(
    reference: list[str], hypothesis: list[str], chunks: Iterable[jiwer.AlignmentChunk]
) -> tuple[Word, ...]:
    steps: list[Word] = []
    for chunk in chunks:
        kind = _KINDS[chunk.type]
        spoken = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if kind == "deleted":
            steps += [Word(kind, word, "") for word in spoken]
        elif kind == "inserted":
            steps += [Word(kind, "", word) for word in heard]
        else:
            steps += [Word(kind, *pair) for pair in zip(spoken, heard, strict=True)]
    return tuple(steps)
