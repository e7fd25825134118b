"""Recordings that somebody wants transcribed: any file that soundfile reads, or its content.

Faults are phrases, as in `study.data.audio`; what they are of is said by whoever asks.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from study.transcription.pauses import Samples

LACKING = 0.5
"""Seconds that a file may end before the end that its header promises."""

_ERRORS = (soundfile.LibsndfileError, OSError, RuntimeError, ValueError)


class BadRecording(Exception):
    """A recording cannot be read to its end; the message is a phrase that says why."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A file, or the content of one, that was opened once and looks sound."""

    source: Path | bytes
    sample_rate: int
    """Hz."""
    channels: int
    seconds: float
    """By its header."""

    @classmethod
    def look(cls, source: Path | bytes, *, shortest: float) -> Recording:
        """Read the header. Raises `BadRecording` where there is nothing to transcribe.

        `shortest` is in seconds: what is shorter cannot be heard by the network.
        """
        if isinstance(source, Path):
            if source.is_dir():
                raise BadRecording("is a folder, and not an audio file")
            if not source.exists():
                raise BadRecording("there is no such file")
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise BadRecording("is empty")
        try:
            with _open(source) as file:
                found = cls(
                    source=source,
                    sample_rate=file.samplerate,
                    channels=file.channels,
                    seconds=file.frames / file.samplerate,
                )
        except _ERRORS as error:
            raise BadRecording(f"is not audio that can be read ({_reason(error)})") from None
        if found.seconds == 0:
            raise BadRecording("holds 0 s of audio")
        if found.seconds < shortest:
            raise BadRecording(
                f"holds {found.seconds:.3f} s of audio, and the network needs {shortest:.2f} s"
            )
        return found

    def blocks(self, seconds: float = 10.0) -> Iterator[Samples]:
        """The samples of all channels averaged, block by block.

        Raises `BadRecording` where the file breaks off or holds what is no number.
        """
        read = 0
        try:
            with _open(self.source) as file:
                size = max(1, round(seconds * self.sample_rate))
                while len(block := file.read(size, dtype="float32", always_2d=True)):
                    read += len(block)
                    if not np.isfinite(block).all():
                        raise BadRecording("has samples that are not finite numbers")
                    yield np.ascontiguousarray(block.mean(axis=1), dtype=np.float32)
        except _ERRORS as error:
            raise BadRecording(
                f"cannot be read beyond {read / self.sample_rate:.2f} s ({_reason(error)})"
            ) from None
        if read / self.sample_rate < self.seconds - LACKING:
            raise BadRecording(
                f"is cut off: its header promises {self.seconds:.2f} s, and there are "
                f"{read / self.sample_rate:.2f} s"
            )


def _open(source: Path | bytes) -> soundfile.SoundFile:
    return soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)


def _reason(error: BaseException) -> str:
    """libsndfile's own words, without the address that soundfile puts before them."""
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".")
