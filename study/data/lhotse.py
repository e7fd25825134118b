"""Manifests of Lhotse (Żelasko et al. 2021, arXiv 2110.12561), as JSON lines, gzipped or not.

A split is one manifest of cuts, or one of recordings and one of supervisions (several of each where
a corpus is in parts):

    corpus: {kind: lhotse, train: [cuts_train.jsonl.gz], dev: [...], test: [...]}
    corpus: {kind: lhotse, train: [recordings_train.jsonl.gz, supervisions_train.jsonl.gz], ...}

Each cut with one supervision is an utterance, or each supervision of a recording. Audio must lie in
files: commands are never run, and URLs never opened. Transcripts are kept as they are, but for the
space between words. Lhotse is an optional part: `pip install "conformer-study[lhotse]"`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from study.data.corpus import Utterance
from study.data.listing import FolderCorpus, Listing, json_object, one_line
from study.errors import InputError

if TYPE_CHECKING:
    from lhotse import Recording, SupervisionSegment
    from lhotse.cut import Cut

_OPTIONAL = 'reading Lhotse manifests needs Lhotse: run pip install "conformer-study[lhotse]"'


@dataclass(frozen=True, kw_only=True)
class LhotseCorpus(FolderCorpus):
    """Where the manifests lie."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    kind: Literal["lhotse"] = "lhotse"
    """Names this kind of corpus."""
    train: tuple[Path, ...] = (Path("cuts_train.jsonl.gz"),)
    """Manifests, relative to `folder`; audio paths in them are relative to `folder` as well."""
    dev: tuple[Path, ...] = (Path("cuts_dev.jsonl.gz"),)
    """As `train`."""
    test: tuple[Path, ...] = (Path("cuts_test.jsonl.gz"),)
    """As `train`."""

    def read_split(self, split: str, listing: Listing) -> Iterator[Utterance]:
        """The utterances of the split's cuts, then those of its supervisions."""
        entries = _Entries()
        for manifest in getattr(self, split):
            entries.read(self.folder / manifest, split, listing)
        for place, cut in entries.cuts:
            span = _cut_span(cut)
            if isinstance(span, str):
                listing.fault(place, span)
                continue
            supervision, recording = cut.supervisions[0], cut.recording
            yield from self._utterance(cut.id, place, supervision, recording, span, listing)
        for place, supervision in entries.supervisions:
            if supervision.recording_id not in entries.recordings:
                listing.fault(
                    place,
                    f"the recording '{supervision.recording_id}' is in none of corpus.{split}",
                )
                continue
            recording = entries.recordings[supervision.recording_id]
            span = (supervision.start, supervision.duration, supervision.channel)
            yield from self._utterance(supervision.id, place, supervision, recording, span, listing)

    def _utterance(
        self,
        name: str,
        place: str,
        supervision: SupervisionSegment,
        recording: Recording,
        span: tuple[float, float, int | list[int]],
        listing: Listing,
    ) -> Iterator[Utterance]:
        start, duration, channel = span
        fault = _recording_fault(recording)
        fault = fault or _supervision_fault(name, supervision)
        if fault is None and not (start >= 0 and 0 < duration < math.inf):
            fault = f"begins at {start!r} s and lasts {duration!r} s: not a stretch of time"
        if fault is not None:
            listing.fault(place, fault)
            return
        source = recording.sources[0]
        audio = listing.audio(str(source.source), self.folder, place)
        chosen = _channel(channel, list(source.channels))
        if isinstance(chosen, str):
            listing.fault(place, chosen)
        elif audio is not None:
            whole = start == 0 and abs(duration - recording.duration) < 1e-3
            yield from listing.accept(
                Utterance(
                    id=name,
                    audio=audio,
                    text=one_line(supervision.text or ""),
                    speaker=supervision.speaker,
                    duration=duration,
                    source=place,
                    start=start,
                    end=None if whole else start + duration,
                    channel=chosen,
                )
            )


@dataclass
class _Entries:
    """What the manifests of a split hold, each with its place."""

    recordings: dict[str, Recording] = field(default_factory=dict)
    supervisions: list[tuple[str, SupervisionSegment]] = field(default_factory=list)
    cuts: list[tuple[str, Cut]] = field(default_factory=list)

    def read(self, file: Path, key: str, listing: Listing) -> None:
        """Add the entries of a manifest. Raises `InputError` where there is no Lhotse."""
        try:
            from lhotse import Recording, SupervisionSegment
            from lhotse.cut import Cut
            from lhotse.qa import validate
            from lhotse.serialization import deserialize_item
        except ImportError as error:
            raise InputError(f"corpus.kind: {_OPTIONAL} ({error})") from None

        for place, line in listing.lines(file, key):
            entry = json_object(line)
            if isinstance(entry, str):
                listing.fault(place, entry)
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about versions that wrote the manifest
                    item: Any = deserialize_item(entry)
                    validate(item)
            except Exception as error:  # it checks little, so that anything may be raised
                listing.fault(
                    place, f"is no entry of a Lhotse manifest ({type(error).__name__}: {error})"
                )
                continue
            if isinstance(item, Recording):
                self.recordings[item.id] = item
            elif isinstance(item, SupervisionSegment):
                self.supervisions.append((place, item))
            elif isinstance(item, Cut):
                self.cuts.append((place, item))
            else:
                listing.fault(
                    place, f"is of the type {type(item).__name__}: give recordings and "
                    "supervisions, or cuts"
                )  # fmt: skip


def _cut_span(cut: Cut) -> tuple[float, float, int | list[int]] | str:
    """The begin, the duration and the channels of a cut in its recording, or what is wrong."""
    from lhotse import MonoCut, MultiCut

    if not isinstance(cut, MonoCut | MultiCut):
        return f"is a {type(cut).__name__}: only cuts of one recording can be read"
    if cut.recording is None:
        return "has no recording: features alone cannot be read"
    if len(cut.supervisions) != 1:
        return (
            f"has {len(cut.supervisions)} supervisions, and an utterance one: run "
            "CutSet.trim_to_supervisions over the manifest"
        )
    return cut.start, cut.duration, cut.channel


def _recording_fault(recording: Recording) -> str | None:
    """Why a recording cannot be read; None if it can."""
    if recording.transforms:
        return "is a recording with transforms (speed, volume and so on): save its audio to a file"
    if len(recording.sources) != 1:
        return f"has {len(recording.sources)} audio sources: only one file can be read"
    source = recording.sources[0]
    if source.type != "file":
        return f"has audio of the type '{source.type}', and only files are read: save it to one"
    return None


def _supervision_fault(name: object, supervision: SupervisionSegment) -> str | None:
    """What of a supervision, or of its utterance's id, has another type than it should."""
    words = {"id": name, "text": supervision.text or "", "speaker": supervision.speaker or ""}
    for key, value in words.items():
        if not isinstance(value, str):
            return f"{key} is {value!r}, not a string"
    start = supervision.start
    return None if isinstance(start, int | float) else f"start is {start!r}, not a number"


def _channel(wanted: int | list[int], channels: list[int]) -> int | str | None:
    """Which channel of a file to read, None for the mean of all, or what is wrong."""
    asked = [wanted] if isinstance(wanted, int) else list(wanted)
    if sorted(asked) == sorted(channels):
        return None
    if len(asked) == 1 and asked[0] in channels:
        return channels.index(asked[0])
    return f"asks for the channels {asked} of a recording with {channels}: give one, or all"
