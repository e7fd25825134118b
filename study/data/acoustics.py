"""Rooms and noises: what lies between a mouth and a microphone.

Pure functions on waveforms (float arrays, full scale ±1) that draw from a generator which
the caller has seeded. `study.data.synthetic` applies them in nature's order: reverberation,
noise, level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float64]

COLOURS = {"white": 0.0, "pink": 0.5, "brown": 1.0}
"""The amplitude of a noise falls as frequency to the minus this power."""

NOISES = (*COLOURS, "babble")
"""What `noise` can make."""

LEVEL = -26.0
"""Decibels below full scale: the RMS level that recordings are brought to."""

_LOUDEST = 0.95  # of full scale: no sample of a recording goes beyond
_LOWEST = 40.0  # Hz; noise below is inaudible, and brown noise would be little else
_DELAY = 0.002  # seconds from the direct sound to the first echo


def rms(waveform: NDArray[np.floating]) -> float:
    """The root of the mean square of the samples."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def reverberate(
    speech: NDArray[np.floating],
    *,
    decay: float,
    direct: float,
    sample_rate: int,
    rng: np.random.Generator,
) -> Waveform:
    """`speech` as it sounds in a room, equally long.

    The room is the direct sound and a tail of random echoes that dies away by 60 dB in
    `decay` seconds. `direct` is the energy of the direct sound over that of the tail, in dB.
    """
    from scipy import signal

    times = np.arange(int(decay * sample_rate)) / sample_rate
    tail = rng.standard_normal(times.size) * 10.0 ** (-3.0 * times / decay)
    tail[times < _DELAY] = 0.0
    tail *= 10.0 ** (-direct / 20.0) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    wet: Waveform = signal.fftconvolve(np.asarray(speech, dtype=np.float64), tail)
    return wet[: speech.size]


def babble(voices: Sequence[Sequence[NDArray[np.floating]]]) -> Waveform:
    """Several people who talk at once, each an endless row of sentences, equally loud.

    It is as long as the shortest row.
    """
    rows = [np.concatenate(sentences).astype(np.float64) for sentences in voices]
    length = min(row.size for row in rows)
    crowd: Waveform = np.sum([row[:length] / rms(row[:length]) for row in rows], axis=0)
    return crowd


def noise(
    kind: str, samples: int, *, sample_rate: int, crowd: Waveform, rng: np.random.Generator
) -> Waveform:
    """`samples` of noise of a kind from `NOISES`, at any level.

    Babble is a stretch from anywhere in `crowd`, which begins again at its end.
    """
    if kind == "babble":
        begin = int(rng.integers(crowd.size))
        return np.take(crowd, np.arange(begin, begin + samples), mode="wrap")
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1.0 / sample_rate)
    spectrum *= np.maximum(frequencies, _LOWEST) ** -COLOURS[kind]
    spectrum[0] = 0.0
    return np.fft.irfft(spectrum, samples)


def mix(speech: NDArray[np.floating], noise: NDArray[np.floating], snr: float) -> Waveform:
    """`speech` with `noise` scaled so that their energies are `snr` dB apart."""
    gain = rms(speech) / rms(noise) * 10.0 ** (-snr / 20.0)
    mixed: Waveform = np.add(speech, gain * noise, dtype=np.float64)
    return mixed


def level(waveform: NDArray[np.floating]) -> Waveform:
    """`waveform` at the RMS level `LEVEL`, or lower if its peaks would clip."""
    gain = 10.0 ** (LEVEL / 20.0) / rms(waveform)
    gain = min(gain, _LOUDEST / float(np.max(np.abs(waveform))))
    levelled: Waveform = np.multiply(waveform, gain, dtype=np.float64)
    return levelled
