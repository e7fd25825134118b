"""Long recordings are cut at pauses, and nothing is lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from study.transcription.pauses import Samples, cut, quietest

RATE = 1000


def recording(seed: int, seconds: float) -> Samples:
    """Noise that is loud and quiet in turns."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    loudness = np.repeat(rng.uniform(0, 1, count // 100 + 1), 100)[:count]
    return (loudness * rng.standard_normal(count)).astype(np.float32)


def blocks(samples: Samples, size: int) -> list[Samples]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def test_nothing_gives_nothing() -> None:
    assert list(cut([], RATE, 2.0)) == []
    assert list(cut([np.zeros(0, dtype=np.float32)], RATE, 2.0)) == []


@pytest.mark.parametrize("seconds", [0.001, 1.0, 1.999, 2.0])
def test_what_is_short_enough_stays_whole(seconds: float) -> None:
    samples = recording(1, seconds)
    (piece,) = cut(blocks(samples, 300), RATE, 2.0)
    assert (piece.start, piece.end) == (0.0, len(samples) / RATE)
    np.testing.assert_array_equal(piece.samples, samples)


@pytest.mark.parametrize(
    ("seed", "size"), list(itertools.product(range(12), [1, 137, 2000, 100_000]))
)
def test_pieces_tile_the_recording_and_none_is_too_long_or_too_short(seed: int, size: int) -> None:
    seconds = np.random.default_rng(seed).uniform(2.0, 9.0)
    samples = recording(seed, float(seconds))
    if size == 1:
        samples = samples[:2600]
    pieces = list(cut(blocks(samples, size), RATE, 2.0))
    np.testing.assert_array_equal(np.concatenate([p.samples for p in pieces]), samples)
    assert pieces[0].start == 0 and pieces[-1].end == len(samples) / RATE
    for before, after in itertools.pairwise(pieces):
        assert before.end == after.start
    for piece in pieces:
        assert piece.end - piece.start == pytest.approx(len(piece.samples) / RATE)
        assert 0.5 <= piece.end - piece.start <= 2.0
    assert all(piece.end - piece.start >= 1.0 for piece in pieces[:-2])
    # However the blocks come, the pieces are the same.
    assert [p.end for p in cut([samples], RATE, 2.0)] == [p.end for p in pieces]


def test_a_cut_lies_in_the_pause_and_not_in_a_word() -> None:
    rng = np.random.default_rng(0)
    words = [rng.standard_normal(1200).astype(np.float32) for _ in range(6)]
    pause = (0.01 * rng.standard_normal(400)).astype(np.float32)
    samples = np.concatenate([part for word in words for part in (word, pause)])
    pieces = list(cut(blocks(samples, 512), RATE, 2.0))
    assert len(pieces) == 6
    for piece in pieces[:-1]:
        assert 1.2 < piece.end % 1.6 < 1.6


def test_the_last_of_equally_quiet_places_is_taken_and_an_offset_is_no_sound() -> None:
    samples = np.full(2000, 0.5, dtype=np.float32)
    samples[:1000] += np.tile([0.1, -0.1], 500).astype(np.float32)
    assert quietest(samples, 500, 1900, RATE) == 1900
    samples[1300:] += np.tile([0.1, -0.1], 350).astype(np.float32)
    assert 1100 <= quietest(samples, 500, 1900, RATE) <= 1200
