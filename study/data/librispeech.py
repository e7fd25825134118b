"""LibriSpeech (Panayotov et al. 2015), read through `torchaudio.datasets.LIBRISPEECH`.

    folder/LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac
                                                103-1240.trans.txt

Its transcripts are upper-case words without punctuation. They are lower-cased unless told
otherwise: error rates stay the same, and results read like those of other corpora.
The archives are at openslr.org/12 (CC BY 4.0); nothing is downloaded unless `download` is true.
"""

from __future__ import annotations

import logging
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from filelock import FileLock

from study.data.corpus import Utterance
from study.data.listing import FolderCorpus, Listing, one_line
from study.errors import InputError

if TYPE_CHECKING:
    from torchaudio.datasets import LIBRISPEECH

log = logging.getLogger(__name__)

Subset = Literal[
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
]

GIGABYTES = {
    "train-clean-100": 6.3,
    "train-clean-360": 23.0,
    "train-other-500": 30.0,
    "dev-clean": 0.34,
    "dev-other": 0.31,
    "test-clean": 0.35,
    "test-other": 0.33,
}
"""What each archive weighs, and again as much when it is unpacked."""

_HOME = "LibriSpeech"


@dataclass(frozen=True, kw_only=True)
class LibriSpeechCorpus(FolderCorpus):
    """Which parts of LibriSpeech to use, and where they lie."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}
    _remedy: ClassVar[str] = (
        "get it from openslr.org/12, set corpus.folder to the folder that holds LibriSpeech, or "
        "set corpus.download: true to have it fetched there"
    )

    kind: Literal["librispeech"] = "librispeech"
    """Names this kind of corpus."""
    train: tuple[Subset, ...] = ("train-clean-100",)
    """100 hours; `train-clean-360` and `train-other-500` make it 960."""
    dev: tuple[Subset, ...] = ("dev-clean",)
    """`dev-other` is the harder half."""
    test: tuple[Subset, ...] = ("test-clean",)
    """`test-other` is the harder half."""
    download: bool = False
    """Fetch what is missing from openslr.org into `folder`."""
    lowercase: bool = True
    """Write transcripts in lower case; the corpus has upper case."""

    def read_split(self, split: str, listing: Listing) -> Iterator[Utterance]:
        """The utterances of the split's parts, in the order of their names."""
        for subset in getattr(self, split):
            folder = self.folder / _HOME / subset
            if self.download:
                _fetch(subset, self.folder)
            if not folder.is_dir():
                listing.missing(split, f"folder {folder} ({GIGABYTES[subset]:g} GB)")
                continue
            yield from self._read_subset(subset, split, listing)

    def _read_subset(self, subset: str, split: str, listing: Listing) -> Iterator[Utterance]:
        from torchaudio.datasets import LIBRISPEECH

        folder = self.folder / _HOME / subset
        faults = len(listing.faults)
        places = _places(folder, split, listing)
        if len(listing.faults) > faults:
            return  # torchaudio would stumble over the same lines, and say less
        recorded = set()
        for path, text, speaker in _metadata(LIBRISPEECH(self.folder, subset), listing):
            audio = self.folder / _HOME / path
            recorded.add(audio.stem)
            yield from self._utterance(audio, text, speaker, places[audio.stem], listing)
        for name in sorted(places.keys() - recorded):  # dataset.prepare says that they are missing
            speaker, chapter, _ = name.split("-")
            audio = folder / speaker / chapter / f"{name}.flac"
            yield from self._utterance(audio, "", speaker, places[name], listing)

    def _utterance(
        self, audio: Path, text: str, speaker: str, place: str, listing: Listing
    ) -> Iterator[Utterance]:
        text = one_line(text.lower() if self.lowercase else text)
        yield from listing.accept(
            Utterance(id=audio.stem, audio=audio, text=text, speaker=speaker, source=place)
        )


def _places(folder: Path, split: str, listing: Listing) -> dict[str, str]:
    """Where the transcript of each utterance stands."""
    places: dict[str, str] = {}
    for file in sorted(folder.glob("*/*/*.trans.txt")):
        chapter = f"{file.parent.parent.name}-{file.parent.name}-"
        for number, (place, line) in enumerate(listing.lines(file, split), start=1):
            name, _, text = line.strip().partition(" ")
            if int(place.rpartition(":")[2]) != number:
                listing.fault(place, "stands after a blank line: take that line out")
                break
            if not (name.startswith(chapter) and name.removeprefix(chapter).isdecimal()):
                listing.fault(place, f"'{name}' is not an utterance of {chapter}0000 and so on")
            elif not text:
                listing.fault(place, f"'{name}' has no transcript")
            elif name in places:
                listing.fault(place, f"id '{name}' stands already at {places[name]}")
            else:
                places[name] = place
    return places


def _metadata(dataset: LIBRISPEECH, listing: Listing) -> Iterator[tuple[Path, str, str]]:
    """The path, transcript and speaker of each recording."""
    for number in range(len(dataset)):
        try:
            path, _, text, speaker, *_ = dataset.get_metadata(number)
        except (OSError, ValueError) as error:
            listing.fault(f"{dataset._path}", f"a recording cannot be used: {error}")
            continue
        yield Path(path), text, str(speaker)


def _fetch(subset: str, folder: Path) -> None:
    """Download and unpack a part of the corpus unless it is there, whole or not at all."""
    if (folder / _HOME / subset).is_dir():
        return
    from torchaudio.datasets import LIBRISPEECH

    unfinished = folder / f".{subset}"
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with FileLock(unfinished / "lock"):
            if (folder / _HOME / subset).is_dir():
                return  # another process was faster
            # A warning, since it takes long and fills the disk, whatever the level of the log.
            log.warning(
                "Downloading %s of LibriSpeech, %g GB and as much again unpacked, from "
                "openslr.org/12 into %s",
                subset,
                GIGABYTES[subset],
                folder.absolute(),
            )
            # An interruption may have left half of it, which torchaudio would take for all.
            shutil.rmtree(unfinished / _HOME, ignore_errors=True)
            LIBRISPEECH(unfinished, subset, download=True)
            (folder / _HOME).mkdir(exist_ok=True)
            (unfinished / _HOME / subset).rename(folder / _HOME / subset)
        shutil.rmtree(unfinished, ignore_errors=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        raise InputError(
            f"corpus.download: {subset} cannot be fetched from openslr.org/12 into "
            f"{folder.absolute()} ({error}): run again to try again, or unpack "
            f"{subset}.tar.gz there"
        ) from error
