"""A corpus described by three files of JSON lines.

Each line is an object with `id`, `audio` (a path, relative to the file's folder) and `text`, and
optionally `speaker` and `duration` in seconds; other keys are ignored:

    {"id": "s1_001", "audio": "audio/s1_001.flac", "text": "turn the light on", "speaker": "s1"}

Audio is anything that soundfile reads: wav, flac, ogg (vorbis or opus), mp3.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from study.data.corpus import SPLITS, Corpus, Utterance
from study.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ManifestCorpus(Corpus):
    """Where the three files lie."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["manifest"] = "manifest"
    folder: Path = Path()
    """The corpus's folder, relative to the working directory."""
    train: Path = Path("train.jsonl")
    """Relative to `folder`."""
    dev: Path = Path("dev.jsonl")
    """Relative to `folder`."""
    test: Path = Path("test.jsonl")
    """Relative to `folder`."""

    def read(self, cache: Path) -> dict[str, list[Utterance]]:
        """The utterances of each split, in the order of the files.

        Raises `InputError` naming every missing file, and every line that is not as described.
        """
        del cache
        files = {split: self.folder / getattr(self, split) for split in SPLITS}
        missing = [
            f"corpus.{split}: there is no file {file}; "
            "set corpus.folder to the folder of the corpus"
            for split, file in files.items()
            if not file.is_file()
        ]
        if missing:
            raise InputError(missing)
        faults: list[str] = []
        splits = {split: _read(file, faults) for split, file in files.items()}
        if faults:
            raise InputError(faults)
        return splits


def _read(file: Path, faults: list[str]) -> list[Utterance]:
    """The utterances of one file; what is wrong is appended to `faults`."""
    utterances: list[Utterance] = []
    places: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{file}: cannot be read as UTF-8 text ({error})")
        return []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        fault = _fault(line)
        if fault:
            faults.append(f"{place}: {fault}")
            continue
        entry = json.loads(line)
        if entry["id"] in places:
            faults.append(f"{place}: id '{entry['id']}' stands already at {places[entry['id']]}")
            continue
        places[entry["id"]] = place
        utterances.append(
            Utterance(
                id=entry["id"],
                audio=file.parent / entry["audio"],
                text=" ".join(entry["text"].split()),
                speaker=entry.get("speaker"),
                duration=entry.get("duration"),
                source=place,
            )
        )
    return utterances


def _fault(line: str) -> str | None:
    """What is wrong with a line, in words; None if nothing."""
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    if not isinstance(entry, dict):
        return "not a JSON object with the keys id, audio and text"
    absent = [key for key in ("id", "audio", "text") if key not in entry]
    if absent:
        return f"the key {' and '.join(absent)} is missing"
    for key in ("id", "audio", "text", "speaker"):
        if not isinstance(entry.get(key, ""), str | (type(None) if key == "speaker" else str)):
            return f"{key} is {entry[key]!r}, not a string"
    duration = entry.get("duration")
    number = isinstance(duration, int | float) and not isinstance(duration, bool)
    if duration is not None and not (number and duration > 0):
        return f"duration is {duration!r}, not a positive number of seconds"
    return None
