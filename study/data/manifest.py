"""A corpus described by files of JSON lines: one or more for each split.

Each line is an object with `id`, `audio` (a path, relative to the file's folder) and `text`, and
optionally `speaker` and `duration` in seconds; other keys are ignored:

    {"id": "s1_001", "audio": "audio/s1_001.flac", "text": "turn the light on", "speaker": "s1"}

A path is relative to the folder of the file that it stands in, so that corpora which lie side by
side can be trained on together:

    corpus: {kind: manifest, folder: so762, train: [train.jsonl, ../arctic/train.jsonl]}

Audio is anything that soundfile reads: wav, flac, ogg (vorbis or opus), mp3. Transcripts are kept
as they are, but for the space between words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen
from pydantic import BeforeValidator

from study.data.corpus import Utterance
from study.data.listing import FolderCorpus, Listing, json_object, one_line


def _several(given: object) -> object:
    return [given] if isinstance(given, str | Path) else given


Manifests = Annotated[tuple[Path, ...], BeforeValidator(_several), MinLen(1)]
"""One file or more; a single one needs no list."""


@dataclass(frozen=True, kw_only=True)
class ManifestCorpus(FolderCorpus):
    """Where the files lie."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    kind: Literal["manifest"] = "manifest"
    """Names this kind of corpus."""
    train: Manifests = (Path("train.jsonl"),)
    """Relative to `folder`: one, or a list of several."""
    dev: Manifests = (Path("dev.jsonl"),)
    """Relative to `folder`: one, or a list of several."""
    test: Manifests = (Path("test.jsonl"),)
    """Relative to `folder`: one, or a list of several."""

    def read_split(self, split: str, listing: Listing) -> Iterator[Utterance]:
        """One utterance a line."""
        for manifest in getattr(self, split):
            yield from self._read_file(self.folder / manifest, split, listing)

    def _read_file(self, file: Path, split: str, listing: Listing) -> Iterator[Utterance]:
        for place, line in listing.lines(file, split):
            entry = json_object(line)
            fault = entry if isinstance(entry, str) else _fault(entry)
            if fault is not None or isinstance(entry, str):
                listing.fault(place, f"{fault}")
                continue
            audio = listing.audio(entry["audio"], file.parent, place)
            if audio is not None:
                yield from listing.accept(
                    Utterance(
                        id=entry["id"],
                        audio=audio,
                        text=one_line(entry["text"]),
                        speaker=entry.get("speaker"),
                        duration=entry.get("duration"),
                        source=place,
                    )
                )


def _fault(entry: dict[str, Any]) -> str | None:
    """What is wrong with a line's object, in words; None if nothing."""
    absent = [key for key in ("id", "audio", "text") if key not in entry]
    if absent:
        return f"the key {' and '.join(absent)} is missing"
    for key in ("id", "audio", "text", "speaker"):
        if not isinstance(entry.get(key, ""), str | (type(None) if key == "speaker" else str)):
            return f"{key} is {entry[key]!r}, not a string"
    duration = entry.get("duration")
    number = isinstance(duration, int | float) and not isinstance(duration, bool)
    if duration is not None and not (number and 0 < duration < math.inf):
        return f"duration is {duration!r}, not a positive number of seconds"
    return None
