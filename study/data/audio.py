"""Audio files, read in one way for every corpus.

    samples, rate = read_audio(utterance)      # or a phrase that says what is wrong
    seconds = measure(utterance)               # likewise, from the header alone

Files may have any sample rate and any number of channels: whoever wants another rate resamples, and
channels are averaged unless the utterance names one of them. This file imports no torch.
"""

from __future__ import annotations

import numpy as np
import soundfile
from numpy.typing import NDArray

from study.data.corpus import Utterance

OVERSHOOT = 0.5
"""Seconds by which an utterance may end after its file, and is cut there: as in Kaldi's
`extract-segments`, since times are often rounded."""

UNREADABLE = "cannot be read"
"""What is said of a file that is there, and may be readable once a disk or a library is better."""
_ERRORS = (soundfile.LibsndfileError, OSError, RuntimeError, ValueError)


def read_audio(utterance: Utterance) -> tuple[NDArray[np.float32], int] | str:
    """The samples `(N,)` of an utterance, and their rate in Hz.

    Returns a phrase that says what is wrong where there are none to read.
    """
    fault = _unopenable(utterance)
    if fault:
        return fault
    try:
        with _open(utterance) as file:
            span = _span(utterance, file)
            if isinstance(span, str):
                return span
            first, last = span
            if first:
                file.seek(first)
            whole = utterance.end is None
            samples = file.read(-1 if whole else last - first, dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except _ERRORS as error:
        return f"the audio file {utterance.audio} {UNREADABLE} ({error})"
    channel = utterance.channel
    mono = samples.mean(axis=1) if channel is None else samples[:, channel]
    return np.ascontiguousarray(mono, dtype=np.float32), rate


def measure(utterance: Utterance) -> float | str:
    """The seconds that an utterance lasts, by the header of its file.

    Returns a phrase that says what is wrong where the header does not tell.
    """
    fault = _unopenable(utterance)
    if fault:
        return fault
    try:
        with _open(utterance) as file:
            span = _span(utterance, file)
            return span if isinstance(span, str) else (span[1] - span[0]) / file.samplerate
    except _ERRORS as error:
        return f"the audio file {utterance.audio} {UNREADABLE} ({error})"


def _unopenable(utterance: Utterance) -> str | None:
    file = utterance.audio
    if not file.is_file():
        return f"there is no audio file {file}"
    if utterance.headerless is not None and file.stat().st_size % 2:
        return (
            f"the audio file {file} has an odd number of bytes, and 16-bit samples an even one: "
            "it is cut off, or not what it should be"
        )
    return None


def _open(utterance: Utterance) -> soundfile.SoundFile:
    if utterance.headerless is None:
        return soundfile.SoundFile(utterance.audio)
    return soundfile.SoundFile(
        utterance.audio,
        samplerate=utterance.headerless,
        channels=1,
        format="RAW",
        subtype="PCM_16",
        endian="LITTLE",
    )


def _span(utterance: Utterance, file: soundfile.SoundFile) -> tuple[int, int] | str:
    """The first sample of an utterance in its open file, and the one after its last."""
    rate, length = file.samplerate, file.frames
    if utterance.channel is not None and utterance.channel >= file.channels:
        return (
            f"the audio file {utterance.audio} has no channel {utterance.channel}, only "
            f"{file.channels}, counted from 0"
        )
    first = round(utterance.start * rate)
    last = length if utterance.end is None else round(utterance.end * rate)
    seconds = f"{length / rate:.3f} s long"
    if first and first >= length:
        return f"begins at {utterance.start:g} s, and {utterance.audio} is {seconds}"
    if last > length + OVERSHOOT * rate:
        return f"ends at {utterance.end:g} s, and {utterance.audio} is {seconds}"
    return first, min(last, length)
