"""What a corpus is: utterances in three splits.

A corpus kind is a frozen dataclass with its settings and one method, `read`, that
returns the utterances of each split. To add one, write it in a file of its own and
add a line to `study/data/registry.py`; one that is described by files derives from
`study.data.listing.FolderCorpus`, which reads them line by line and collects what is wrong.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One recording and what was said in it."""

    id: str
    """Unique within its corpus."""
    audio: Path
    """A file that soundfile reads: wav, flac, ogg (vorbis or opus), mp3; or see `headerless`."""
    text: str
    """The reference transcript: words separated by single spaces."""
    speaker: str | None = None
    """Who speaks, where known."""
    duration: float | None = None
    """Seconds, where the corpus states it; measured when the features are computed."""
    source: str = ""
    """Where the corpus mentions it (`train.jsonl:17`), for messages."""
    start: float = 0.0
    """Seconds into the file at which the utterance begins."""
    end: float | None = None
    """Seconds into the file at which it ends; None: where the file ends."""
    channel: int | None = None
    """Which channel of the file, from 0; None: the mean of all."""
    headerless: int | None = None
    """Hz, of a file that holds nothing but 16-bit little-endian samples of one channel."""


@dataclass(frozen=True, kw_only=True)
class Corpus(ABC):
    """The settings that every corpus kind has, and what it does."""

    kind: str
    """The name of the kind, as in study.yaml."""

    max_bad_utterances: Annotated[float, Ge(0)] = 0.01
    """How many utterances may be unusable (audio missing or unreadable, no transcript, too short,
    too much text for CTC) before the corpus is refused: a count, or a share of the corpus when
    below 1. Up to that, they are left out with a warning."""

    @abstractmethod
    def read(self, cache: Path) -> dict[str, list[Utterance]]:
        """The utterances of `train`, `dev` and `test`, in a fixed order.

        `cache` is a folder in which the corpus may keep what it makes (speech that it synthesises,
        archives that it unpacks). Raises `InputError` on a corpus that cannot be read.
        """
