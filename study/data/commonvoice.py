"""Mozilla Common Voice (Ardila et al. 2020, arXiv 1912.06670), one language of a release.

    folder/train.tsv   dev.tsv   test.tsv     columns client_id, path, sentence and others
           clips/common_voice_en_1.mp3

Sentences are as their writers wrote them. By default punctuation goes and letters become
lower-case; apostrophes and hyphens inside words stay, since they spell them (`don't`, `self-made`),
and curly apostrophes become straight.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from study.data.corpus import Utterance
from study.data.listing import FolderCorpus, Listing, one_line

_COLUMNS = ("client_id", "path", "sentence")
_INSIDE_WORD = re.compile(r"(?<=\w)['-](?=\w)")
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-"})


@dataclass(frozen=True, kw_only=True)
class CommonVoiceCorpus(FolderCorpus):
    """Where the tables lie, and how to write their sentences."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}
    _remedy: ClassVar[str] = (
        "get a release from commonvoice.mozilla.org and set corpus.folder to the folder of its "
        "language, which holds train.tsv and clips"
    )

    kind: Literal["commonvoice"] = "commonvoice"
    """Names this kind of corpus."""
    train: Path = Path("train.tsv")
    """Relative to `folder`."""
    dev: Path = Path("dev.tsv")
    """Relative to `folder`."""
    test: Path = Path("test.tsv")
    """Relative to `folder`."""
    clips: Path = Path("clips")
    """Where the recordings lie, relative to `folder`."""
    lowercase: bool = True
    """Write letters in lower case."""
    punctuation: bool = False
    """Keep punctuation and symbols."""

    def read_split(self, split: str, listing: Listing) -> Iterator[Utterance]:
        """One utterance a row."""
        file = self.folder / getattr(self, split)
        for place, row in _rows(file, split, listing):
            audio = listing.audio(row["path"], self.folder / self.clips, place)
            if audio is None:
                continue
            yield from listing.accept(
                Utterance(
                    id=audio.stem,
                    audio=audio,
                    text=normalise(
                        row["sentence"], lowercase=self.lowercase, punctuation=self.punctuation
                    ),
                    speaker=row["client_id"] or None,
                    source=place,
                )
            )


def _rows(file: Path, key: str, listing: Listing) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table by the names of its columns. Quotation marks are letters like others."""
    columns: list[str] = []
    for place, line in listing.lines(file, key):
        values = line.split("\t")
        if not columns:
            columns = values
            absent = [column for column in _COLUMNS if column not in columns]
            if absent:
                listing.fault(
                    place,
                    f"the column {' and '.join(absent)} is missing: the first line of a table "
                    f"names its columns, {', '.join(_COLUMNS)} among them",
                )
                return
        elif len(values) != len(columns):
            listing.fault(place, f"has {len(values)} columns, and the first line {len(columns)}")
        else:
            yield place, dict(zip(columns, values, strict=True))


def normalise(sentence: str, *, lowercase: bool = True, punctuation: bool = False) -> str:
    """A sentence as it is to be recognised."""
    text = unicodedata.normalize("NFC", sentence)
    if not punctuation:
        text = text.translate(_APOSTROPHES)
        kept = {match.start() for match in _INSIDE_WORD.finditer(text)}
        text = "".join(
            character if place in kept or unicodedata.category(character)[0] not in "PS" else " "
            for place, character in enumerate(text)
        )
    return one_line(text.lower() if lowercase else text)
