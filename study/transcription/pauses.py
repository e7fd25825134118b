"""Long recordings in pieces that a network can take, cut at pauses.

A network hears best what is as long as the utterances that it was trained on, and the memory that
attention needs grows with the square of the length. So a piece is at most `longest` seconds; where
the recording goes on, the piece ends at the quietest place in its second half: where the energy of
the `PAUSE` seconds around is lowest, which lies in a pause where there is one.

The pieces tile the recording: no sample is lost and none is heard twice. The last two share what is
left, so that no piece is shorter than a quarter of `longest`. Only about one and a half pieces are
held in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

PAUSE = 0.2
"""Seconds whose energy says how quiet a place is: longer than the closure of a stop consonant."""
STEP = 0.01
"""Seconds from one place that is looked at to the next."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a recording."""

    start: float
    """Seconds into the recording."""
    end: float
    samples: Samples
    """Of one channel `(N,)`."""
    sample_rate: int
    """Hz."""


def cut(blocks: Iterable[Samples], sample_rate: int, longest: float) -> Iterator[Piece]:
    """The pieces of a recording that comes in blocks of any size; nothing where it is empty."""
    most = max(4, int(longest * sample_rate))
    half, quarter = most // 2, most // 4
    begin = 0
    held: Samples = np.zeros(0, dtype=np.float32)

    def piece(end: int) -> Piece:
        nonlocal begin, held
        samples, held = held[:end], held[end:]
        begin += end
        return Piece(
            start=(begin - end) / sample_rate,
            end=begin / sample_rate,
            samples=samples,
            sample_rate=sample_rate,
        )

    for block in blocks:
        held = np.concatenate((held, block))
        while len(held) > most + half:
            yield piece(quietest(held, half, most, sample_rate))
    if len(held) > most:
        first, last = max(quarter, len(held) - most), min(most, len(held) - quarter)
        yield piece(quietest(held, first, last, sample_rate))
    if len(held):
        yield piece(len(held))


def quietest(samples: Samples, first: int, last: int, sample_rate: int) -> int:
    """The sample from `first` to `last` around which it is quietest; of equals the last."""
    places = np.arange(first, last + 1, max(1, round(STEP * sample_rate)))
    half = max(1, round(PAUSE / 2 * sample_rate))
    begins = np.maximum(places - half, 0)
    ends = np.minimum(places + half, len(samples))
    exact = samples[: ends[-1]].astype(np.float64)
    energy = np.concatenate(([0.0], np.cumsum((exact - exact.mean()) ** 2)))
    power = (energy[ends] - energy[begins]) / (ends - begins)
    return int(places[len(places) - 1 - np.argmin(power[::-1])])
