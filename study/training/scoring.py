"""Word and character errors: counts are kept, and divided last.

counts = count_errors(references, hypotheses)
sum(counts, ErrorCounts()).rate
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorCounts:
    """The errors of some hypotheses against their references."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0
    """Words (or characters) of the references."""

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors ÷ length: the error rate, above 1 where there are more errors than words."""
        return self.errors / self.length

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            substitutions=self.substitutions + other.substitutions,
            deletions=self.deletions + other.deletions,
            insertions=self.insertions + other.insertions,
            length=self.length + other.length,
        )


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[ErrorCounts]:
    """The word errors of each hypothesis, by an alignment with the fewest errors.

    References hold one word at least; hypotheses may be empty.
    """
    return _count(jiwer.process_words(list(references), list(hypotheses)))


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[ErrorCounts]:
    """The character errors of each hypothesis; spaces are characters."""
    return _count(jiwer.process_characters(list(references), list(hypotheses)))


def _count(output: jiwer.WordOutput | jiwer.CharacterOutput) -> list[ErrorCounts]:
    counts = []
    for reference, alignment in zip(output.references, output.alignments, strict=True):
        lengths = {"substitute": 0, "delete": 0, "insert": 0, "equal": 0}
        for chunk in alignment:
            lengths[chunk.type] += max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
        counts.append(
            ErrorCounts(
                substitutions=lengths["substitute"],
                deletions=lengths["delete"],
                insertions=lengths["insert"],
                length=len(reference),
            )
        )
    return counts
