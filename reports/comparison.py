"""The winner against every other finalist on the test split, with intervals and tests.

Each finalist has the `test.jsonl` of its trials, one per seed: `id`, `speaker`, `reference`,
`hypothesis`, `errors` and `words` of each utterance. Errors are compared utterance by utterance.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.finals import FinalistResult
from reports.recognition import align
from reports.significance import (
    Interval,
    error_rate_interval,
    holm,
    mapsswe,
    paired_difference,
    segments,
)
from reports.wording import points, signed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reports.significance import Array

FEWEST_SPEAKERS = 8
"""With fewer speakers than this, utterances are resampled instead, and the page says so."""
LEVEL = 0.05
"""Corrected p value below which a difference is shown."""


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """A finalist on test, against the winner."""

    finalist: FinalistResult
    """Who it is."""
    wer: Interval
    """Its test WER over speakers and seeds."""
    difference: Interval | None
    """Its WER minus the winner's; None for the winner itself."""
    p: float | None
    """Of that difference, corrected by Holm over all opponents."""
    mapsswe_p: float | None
    """Of NIST's matched-pairs test between the best seeds of both on dev, corrected likewise."""
    conclusion: str
    """In words."""


@dataclass(frozen=True, kw_only=True)
class ComparisonData:
    """All finalists on test, or why they cannot be compared."""

    opponents: tuple[Opponent, ...]
    """The winner first."""
    resampled: str
    """`speakers` or `utterances`: what the intervals are over."""
    groups: int
    """How many of those there are."""
    utterances: int
    """Utterances that all finalists decoded."""
    refusal: str
    """Why there is nothing; empty if there is."""


def comparison_data(finals: Sequence[FinalistResult], trials_folder: Path | None) -> ComparisonData:
    """Compare the finalists of a study on what they heard in the test split."""
    if not finals:
        return _none("No finalists were trained, so the test split was not used.")
    if trials_folder is None:
        return _none("The trials' folder was not given, so test transcripts cannot be compared.")
    heard = {finalist.label: _heard(finalist, trials_folder) for finalist in finals}
    known = [finalist for finalist in finals if heard[finalist.label]]
    if finals[0] not in known:
        return _none(f"The winner, {finals[0].label}, left no transcripts of test (test.jsonl).")
    shared = sorted(set.intersection(*(set(u) for f in known for u in heard[f.label])))
    if not shared:
        return _none("The finalists share no utterance of test.")
    first = heard[finals[0].label][0]
    words = np.array([first[name]["words"] for name in shared], dtype=float)
    if words.sum() == 0:
        return _none("The references of test hold no words.")
    speakers = [first[name].get("speaker") for name in shared]
    by_speaker = None not in speakers and len(set(speakers)) >= FEWEST_SPEAKERS
    groups = [str(speaker) for speaker in speakers] if by_speaker else shared
    errors = {f.label: _errors(heard[f.label], shared) for f in known}
    return ComparisonData(
        opponents=_opponents(known, heard, errors, words, groups, shared),
        resampled="speakers" if by_speaker else "utterances",
        groups=len(set(groups)),
        utterances=len(shared),
        refusal="",
    )


Heard = list[dict[str, dict[str, Any]]]
"""Per seed: utterances by id."""


def _opponents(
    finals: list[FinalistResult],
    heard: dict[str, Heard],
    errors: dict[str, Array],
    words: Array,
    groups: list[str],
    shared: list[str],
) -> tuple[Opponent, ...]:
    winner, *others = finals
    pairs = [
        paired_difference(errors[o.label], errors[winner.label], words, groups) for o in others
    ]
    tests = [
        mapsswe(
            [
                pair
                for name in shared
                for pair in segments(
                    _alignment(heard[o.label][0][name]), _alignment(heard[winner.label][0][name])
                )
            ]
        ).p
        for o in others
    ]
    found = [
        Opponent(
            finalist=winner,
            wer=error_rate_interval(errors[winner.label], words, groups),
            difference=None,
            p=None,
            mapsswe_p=None,
            conclusion="the winner",
        )
    ]
    corrected, corrected_tests = holm([p for _, p in pairs]), holm(tests)
    for other, (difference, _), p, test in zip(
        others, pairs, corrected, corrected_tests, strict=True
    ):
        found.append(
            Opponent(
                finalist=other,
                wer=error_rate_interval(errors[other.label], words, groups),
                difference=difference,
                p=p,
                mapsswe_p=test,
                conclusion=_conclusion(difference, p),
            )
        )
    return tuple(found)


def _conclusion(difference: Interval, p: float) -> str:
    if p < LEVEL:
        return "worse than the winner" if difference.value > 0 else "better than the winner"
    reach = (difference.high - difference.low) / 2
    return f"no difference shown; one of {points(reach, 1)} would have been"


def _heard(finalist: FinalistResult, folder: Path) -> Heard:
    found = []
    for number in finalist.trials:
        path = folder / str(number) / "test.jsonl"
        if path.is_file():
            rows = _rows(path)
            if rows:
                found.append(rows)
    return found


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    """Return the utterances of a file by id; lines that are none are left out."""
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        counts = ("errors", "words")
        if isinstance(row, dict) and all(isinstance(row.get(key), int) for key in counts):
            found[str(row.get("id"))] = row
    return found


def _errors(heard: Heard, shared: list[str]) -> Array:
    return np.array([[seed[name]["errors"] for name in shared] for seed in heard], dtype=float)


def _alignment(row: dict[str, Any]) -> list[tuple[str, str]]:
    words = align(str(row["reference"]).split(), str(row["hypothesis"]).split())
    return [(word.reference, word.hypothesis) for word in words]


def _none(refusal: str) -> ComparisonData:
    return ComparisonData(opponents=(), resampled="", groups=0, utterances=0, refusal=refusal)


def told(interval: Interval | None) -> str:
    """Return a difference with its interval: +1.2 (+0.3 to +2.1)."""
    if interval is None:
        return "–"
    return f"{signed(interval.value)} ({signed(interval.low)} to {signed(interval.high)})"
