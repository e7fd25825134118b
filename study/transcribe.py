"""`python -m study transcribe`: audio files in, a line of text for each out.

Transcripts go to stdout, what a person should know (averaged channels, resampling, the time it
took) to stderr, so that the output can be piped into a file.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from study.errors import InputError
from study.transcription.recordings import BadRecording, Recording
from study.transcription.transcriber import Transcriber, Transcript

Say = Callable[[str], None]


def look(files: Iterable[Path], *, shortest: float) -> list[Recording]:
    """Open each file once. Raises `InputError` with all that is wrong with any of them."""
    recordings: list[Recording] = []
    faults: list[str] = []
    for file in files:
        try:
            recordings.append(Recording.look(file, shortest=shortest))
        except BadRecording as error:
            faults.append(f"{file}: {error}")
    if faults:
        raise InputError(faults)
    return recordings


def notes(recordings: list[Recording], sample_rate: int) -> Iterator[str]:
    """What is done to recordings that are not as the network hears them: a line for each kind."""
    for channels, count in sorted(Counter(r.channels for r in recordings).items()):
        if channels > 1:
            yield f"{_files(count)} {channels} channels, which are averaged"
    for rate, count in sorted(Counter(r.sample_rate for r in recordings).items()):
        if rate != sample_rate:
            yield f"{_files(count)} {rate} Hz, resampled to the {sample_rate} Hz of the network" + (
                f": nothing above {rate // 2} Hz is there to be heard" if rate < sample_rate else ""
            )


def transcribe(
    recordings: list[Recording],
    transcriber: Transcriber,
    *,
    greedy: bool = False,
    segments: bool = False,
    as_json: bool = False,
    write: Say,
    say: Say,
) -> None:
    """Write the transcript of each recording as soon as it is known, then say how long it took.

    Raises `InputError`, after all others are written, with the recordings that break off.
    """
    faults = []
    started = time.perf_counter()
    for transcript in transcriber.transcribe(recordings, greedy=greedy):
        for line in [_json(transcript, segments)] if as_json else _lines(transcript, segments):
            write(line)
        if transcript.fault:
            faults.append(f"{transcript.recording.source!s}: {transcript.fault}")
    seconds = time.perf_counter() - started
    audio = sum(recording.seconds for recording in recordings)
    say(
        f"{audio:.1f} s of audio in {seconds:.1f} s: real-time factor {seconds / audio:.3f}, "
        + ("greedy" if greedy else f"beam {transcriber.decoding.beam_size}")
    )
    if faults:
        raise InputError(faults)


def _files(count: int) -> str:
    return "1 file has" if count == 1 else f"{count} files have"


def _lines(transcript: Transcript, segments: bool) -> Iterator[str]:
    """Columns apart by tabs: the path, with `segments` its begin and end in seconds, the text."""
    path = str(transcript.recording.source)
    if not segments:
        yield f"{path}\t{transcript.text}"
        return
    for segment in transcript.segments:
        yield f"{path}\t{segment.start:.2f}\t{segment.end:.2f}\t{segment.text}"


def _json(transcript: Transcript, segments: bool) -> str:
    fields: dict[str, object] = {
        "path": str(transcript.recording.source),
        "seconds": round(transcript.recording.seconds, 6),
        "text": transcript.text,
    }
    if segments:
        fields["segments"] = [
            {"start": round(s.start, 6), "end": round(s.end, 6), "text": s.text}
            for s in transcript.segments
        ]
    if transcript.fault:
        fields["fault"] = transcript.fault
    return json.dumps(fields, ensure_ascii=False)
