"""Data directories of Kaldi and ESPnet (kaldi-asr.org/doc/data_prep.html).

Each split is a directory of four files, whose lines begin with an id:

    wav.scp     <recording> <path of an audio file, relative to `folder`>
    text        <utterance> <words>
    utt2spk     <utterance> <speaker>
    segments    <utterance> <recording> <begin> <end>      optional; seconds, -1 is the end

Without `segments` each recording is an utterance. Transcripts are kept as they are, but for the
space between words. A `wav.scp` may hold commands, and archives of several recordings: no command
is ever run and no archive opened; both are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from study.data.corpus import Utterance
from study.data.listing import FolderCorpus, Listing, one_line

_ARCHIVE = re.compile(r"\.ark(:\d+)?(\[.*\])?$|:\d+$")


@dataclass(frozen=True, kw_only=True)
class KaldiCorpus(FolderCorpus):
    """Where the data directories lie."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}
    _remedy: ClassVar[str] = (
        "set corpus.folder to the folder in which the recipe runs, and corpus.train, dev and test "
        "to its data directories"
    )

    kind: Literal["kaldi"] = "kaldi"
    """Names this kind of corpus."""
    train: Path = Path("data/train")
    """Relative to `folder`."""
    dev: Path = Path("data/dev")
    """Relative to `folder`."""
    test: Path = Path("data/test")
    """Relative to `folder`."""

    def read_split(self, split: str, listing: Listing) -> Iterator[Utterance]:
        """The utterances of a data directory, in the order of its segments or recordings."""
        home = self.folder / getattr(self, split)
        recordings = _table(home / "wav.scp", split, listing)
        texts = _table(home / "text", split, listing)
        speakers = _table(home / "utt2spk", split, listing)
        audio = {name: self._audio(path, at, listing) for name, (at, path) in recordings.items()}
        if (home / "segments").exists():
            segments = _table(home / "segments", split, listing)
            spans = {
                name: (at, _segment(row, at, set(recordings), listing))
                for name, (at, row) in segments.items()
            }
        else:
            spans = {name: (at, (name, 0.0, None)) for name, (at, _) in recordings.items()}
        _compare(texts, spans, listing, "text")
        _compare(speakers, spans, listing, "utt2spk")
        for name, (place, span) in spans.items():
            file = audio.get(span[0]) if span else None
            if span is None or file is None or name not in texts or name not in speakers:
                continue  # said already
            speaker = speakers[name][1]
            yield from listing.accept(
                Utterance(
                    id=name,
                    audio=file,
                    text=one_line(texts[name][1]),
                    speaker=speaker if speaker not in ("", name) else None,  # unknown, in Kaldi
                    source=place,
                    start=span[1],
                    end=span[2],
                )
            )

    def _audio(self, path: str, place: str, listing: Listing) -> Path | None:
        """The file of a line of `wav.scp`; None, and a fault, if it is none."""
        if path.endswith("|") or path.startswith("|"):
            listing.fault(
                place,
                "is a command, and commands are not run: write its output to a file, and the "
                "file's path here",
            )
            return None
        if _ARCHIVE.search(path):
            listing.fault(
                place,
                "is in a Kaldi archive, and archives are not read: write wav or flac files "
                "(ESPnet's format_wav_scp.sh does) and their paths here",
            )
            return None
        return listing.audio(path, self.folder, place)


def _table(file: Path, key: str, listing: Listing) -> dict[str, tuple[str, str]]:
    """The lines of a file by their first word: the place, and what follows the word."""
    rows: dict[str, tuple[str, str]] = {}
    for place, line in listing.lines(file, key):
        name, _, rest = one_line(line).partition(" ")
        if name in rows:
            listing.fault(place, f"id '{name}' stands already at {rows[name][0]}")
            continue
        rows[name] = (place, rest)
    return rows


def _segment(
    row: str, place: str, recordings: set[str], listing: Listing
) -> tuple[str, float, float | None] | None:
    """The recording, the begin and the end of a segment; None, and a fault, if it is none."""
    try:
        recording, begin, end = row.split(" ")
        start, stop = float(begin), float(end)
    except ValueError:
        listing.fault(place, "is not '<utterance> <recording> <begin> <end>' with times in seconds")
        return None
    if recording not in recordings:
        listing.fault(place, f"the recording '{recording}' has no line in wav.scp")
        return None
    last = math.inf if stop == -1 else stop
    if not (0 <= start < last) or math.isinf(stop) or math.isnan(stop):
        listing.fault(place, f"from {begin} s to {end} s is not a stretch of time")
        return None
    return recording, start, None if stop == -1 else stop


def _compare(
    table: dict[str, tuple[str, str]],
    utterances: dict[str, tuple[str, tuple[str, float, float | None] | None]],
    listing: Listing,
    name: str,
) -> None:
    """Fault utterances without a line in a table, and lines without an utterance."""
    if not table:
        return  # missing or empty, and said so
    for utterance in utterances.keys() - table.keys():
        listing.fault(utterances[utterance][0], f"'{utterance}' has no line in {name}")
    for utterance in table.keys() - utterances.keys():
        listing.fault(table[utterance][0], f"'{utterance}' has no recording and no segment")
