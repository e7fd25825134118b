"""Finalists on test: what is compared, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from reports.comparison import comparison_data
from reports.finals import FinalistResult
from reports.questions import SIX
from reports.wording import p_value


def _finalist(label: str, *trials: int, dev: float = 0.1) -> FinalistResult:
    return FinalistResult(
        label=label, anchor=None, values=dict.fromkeys(SIX, 1.0), seeds=len(trials), dev_wer=dev,
        dev_spread=None, test_wer=None, test_low=None, test_high=None, trials=trials,
    )  # fmt: skip


def _write(folder: Path, trial: int, rate: float, speakers: int | None = 12) -> None:
    rng, choices = random.Random(trial), random.Random(99)
    rows: list[dict[str, Any]] = []
    for number in range(240):
        reference = [choices.choice("abcdefgh") for _ in range(8)]
        hypothesis = ["x" if rng.random() < rate else word for word in reference]
        rows.append(
            {
                "id": f"u{number}",
                "speaker": None if speakers is None else f"s{number % speakers}",
                "reference": " ".join(reference),
                "hypothesis": " ".join(hypothesis),
                "errors": hypothesis.count("x"),
                "words": 8,
            }
        )
    place = folder / str(trial)
    place.mkdir(parents=True)
    (place / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")


def test_no_finalists_and_no_files_are_said(tmp_path: Path) -> None:
    assert "was not used" in comparison_data([], tmp_path).refusal
    assert "folder was not given" in comparison_data([_finalist("a", 1)], None).refusal
    assert "a, left no transcripts" in comparison_data([_finalist("a", 1)], tmp_path).refusal


def test_a_broken_file_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "test.jsonl").write_text('{"id": 3}\nnot json\n[]\n')
    assert "left no transcripts" in comparison_data([_finalist("a", 1)], tmp_path).refusal


def test_a_single_finalist_has_no_opponent(tmp_path: Path) -> None:
    _write(tmp_path, 1, 0.1)
    found = comparison_data([_finalist("a", 1)], tmp_path)
    assert [item.conclusion for item in found.opponents] == ["the winner"]
    assert found.opponents[0].wer.low < found.opponents[0].wer.value


@pytest.mark.parametrize(
    ("speakers", "resampled"), [(12, "speakers"), (3, "utterances"), (None, "utterances")]
)
def test_speakers_are_resampled_where_there_are_enough(
    tmp_path: Path, speakers: int | None, resampled: str
) -> None:
    _write(tmp_path, 1, 0.1, speakers)
    found = comparison_data([_finalist("a", 1)], tmp_path)
    assert found.resampled == resampled
    assert found.groups == (12 if resampled == "speakers" else 240)


def test_a_clear_difference_is_shown_and_none_where_there_is_none(tmp_path: Path) -> None:
    rates = {1: 0.1, 2: 0.1, 3: 0.1, 4: 0.1, 5: 0.3, 6: 0.3}
    for trial, rate in rates.items():
        _write(tmp_path, trial, rate)
    finals = [_finalist("a", 1, 2), _finalist("b", 3, 4), _finalist("c", 5, 6)]
    found = comparison_data(finals, tmp_path)
    assert found.verdict == (
        "A is better than c on test; that a is better than b is not shown: "
        "12 test speakers and 2 seeds leave room for chance."
    )
    winner, alike, worse = found.opponents
    assert winner.wer.value == pytest.approx(0.1, abs=0.02)
    assert "no difference shown" in alike.conclusion
    assert worse.conclusion == "worse than the winner"
    assert worse.difference is not None
    assert worse.difference.low < 0.2 < worse.difference.high
    assert worse.mapsswe_p is not None
    assert worse.mapsswe_p < 0.001
    assert alike.mapsswe_p is not None
    assert alike.mapsswe_p > 0.05


def test_one_seed_shows_nothing_of_a_configuration(tmp_path: Path) -> None:
    _write(tmp_path, 1, 0.1)
    _write(tmp_path, 2, 0.3)
    found = comparison_data([_finalist("a", 1), _finalist("b", 2)], tmp_path)
    assert found.opponents[1].conclusion == (
        "worse than the winner as trained; another seed may change that"
    )
    assert found.verdict == (
        "A is better than b on test; "
        "where one seed was scored, that is said of a network and not of its shape."
    )


@pytest.mark.parametrize(
    ("p", "words"),
    [(None, "–"), (0.0, "< 0.001"), (0.00099, "< 0.001"), (0.001, "0.001"), (1, "1.000")],
)
def test_no_p_value_is_zero(p: float | None, words: str) -> None:
    assert p_value(p) == words
