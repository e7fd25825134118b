"""Error counts against their definition, and word error rates against NIST's sclite."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from study.training.scoring import ErrorCounts, character_errors, word_errors


def _edit_distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def _pairs(count: int) -> list[tuple[str, str]]:
    """References of some words, and hypotheses with random errors; some of them empty."""
    generator = random.Random(0)
    words = ["turn", "the", "red", "lamp", "on", "off", "at", "nine", "ten", "monday"]
    pairs = []
    for _ in range(count):
        reference = [generator.choice(words) for _ in range(generator.randint(1, 9))]
        hypothesis = []
        for word in reference:
            draw = generator.random()
            if draw < 0.12:
                hypothesis.append(generator.choice(words))
            elif draw > 0.1 + 0.12:
                hypothesis.append(word)
            if generator.random() < 0.08:
                hypothesis.append(generator.choice(words))
        pairs.append((" ".join(reference), " ".join(hypothesis)))
    return pairs


def test_an_empty_hypothesis_loses_every_word() -> None:
    (counts,) = word_errors(["turn it on"], [""])
    assert counts == ErrorCounts(deletions=3, length=3)
    assert counts.rate == 1


def test_more_errors_than_words_give_a_rate_above_one() -> None:
    (counts,) = word_errors(["on"], ["off off off"])
    assert (counts.substitutions, counts.insertions, counts.rate) == (1, 2, 3.0)


def test_case_and_unknown_words_count() -> None:
    (counts,) = word_errors(["Turn on"], ["turn <unk>"])
    assert counts.substitutions == 2


def test_characters_include_spaces() -> None:
    (counts,) = character_errors(["ab c"], ["abc"])
    assert counts == ErrorCounts(deletions=1, length=4)


def test_counts_are_added_and_divided_last() -> None:
    counts = word_errors(["a", "a b c"], ["b", "a b c"])
    assert sum(counts, ErrorCounts()).rate == 0.25  # not the mean of 1 and 0


def test_errors_are_the_fewest_possible() -> None:
    pairs = _pairs(300)
    counts = word_errors([r for r, _ in pairs], [h for _, h in pairs])
    for (reference, hypothesis), count in zip(pairs, counts, strict=True):
        assert count.errors == _edit_distance(reference.split(), hypothesis.split())
        words = len(reference.split())
        assert count.length == words
        assert words - count.deletions + count.insertions == len(hypothesis.split())


SCLITE = ["sclite"] if shutil.which("sclite") else ["sctk", "sclite"]
"""NIST's program, or Debian's way to call it."""


def sclite(folder: Path, pairs: list[tuple[str, str]]) -> tuple[int, int]:
    """Errors and words by sclite."""
    for place, name in enumerate(("ref", "hyp")):
        lines = [f"{pair[place]} (s-{number:05})\n" for number, pair in enumerate(pairs)]
        (folder / f"{name}.trn").write_text("".join(lines), encoding="utf-8")
    command = [*SCLITE, "-s", "-e", "utf-8", "-i", "rm", "-o", "rsum", "stdout"]
    output = subprocess.run(
        [*command, "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    row = re.search(r"\|\s*Sum\s*\|\s*(\d+)\s+(\d+)\s*\|(.*?)\|", output)
    assert row, output
    errors = int(row[3].split()[4])
    return errors, int(row[2])


needs_sclite = pytest.mark.skipif(
    shutil.which(SCLITE[0]) is None, reason="sclite is not installed (Debian: sctk)"
)


@needs_sclite
def test_word_errors_agree_with_sclite(tmp_path: Path) -> None:
    pairs = _pairs(400)
    counts = sum(word_errors([r for r, _ in pairs], [h for _, h in pairs]), ErrorCounts())
    errors, words = sclite(tmp_path, pairs)
    assert words == counts.length
    # sclite weighs a substitution 4 and an insertion or a deletion 3, so that now and then
    # its alignment has an error more than the fewest possible.
    assert counts.errors <= errors <= counts.errors * 1.005
