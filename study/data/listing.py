"""Corpora that lie in a folder, and the lists in it that say what they hold.

A kind derives from `FolderCorpus` and writes `read_split`, which goes through the lines of its
lists with a `Listing`. The listing collects what is wrong, each fault with its file and line, so
that all are told at once; it keeps audio inside the folder and ids unique.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from study.data.corpus import SPLITS, Corpus, Utterance
from study.errors import InputError
from study.files import Folder

NAMED = 50
"""Faults that a message names; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class FolderCorpus(Corpus):
    """A corpus in a folder."""

    _remedy: ClassVar[str] = "set corpus.folder to the folder of the corpus"
    """What to do where its files are missing."""

    folder: Folder = Path()
    """The corpus's folder, relative to the working directory."""
    allow_outside: bool = False
    """Whether lists may name audio outside of the folder, by an absolute path or by `..`. Links
    that lie in the folder are followed in any case."""

    def read(self, cache: Path) -> dict[str, list[Utterance]]:
        """The utterances of each split, in the order of the lists.

        Raises `InputError` naming every missing file, and every line that is not as it should be.
        """
        del cache
        listing = Listing(self.folder, allow_outside=self.allow_outside, remedy=self._remedy)
        splits = {split: list(self.read_split(split, listing)) for split in SPLITS}
        faults = listing.faults
        if len(faults) > NAMED:
            faults = [*faults[:NAMED], f"and {len(faults) - NAMED} more faults of this corpus"]
        if faults:
            raise InputError(faults)
        return splits

    @abstractmethod
    def read_split(self, split: str, listing: Listing) -> Iterator[Utterance]:
        """The utterances of a split; what is wrong goes to the listing."""


class Listing:
    """Reads the lists of a corpus."""

    def __init__(self, root: Path, *, allow_outside: bool, remedy: str) -> None:
        self.root = root
        self.faults: list[str] = []
        self._allow_outside = allow_outside
        self._remedy = remedy
        self._ids: dict[str, str] = {}

    def missing(self, key: str, what: str) -> None:
        """Note that something which `corpus.<key>` names is not there."""
        self.faults.append(f"corpus.{key}: there is no {what}; {self._remedy}")

    def fault(self, place: str, sentence: str) -> None:
        """Note what is wrong at a place."""
        self.faults.append(f"{place}: {sentence}")

    def lines(self, file: Path, key: str, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
        """The lines of a text file, gzipped or not, that are not blank, each with its place.

        `key` is the setting that names the file, as in `corpus.<key>`.
        """
        try:
            content = file.read_bytes()
            if file.suffix == ".gz":
                content = gzip.decompress(content)
        except FileNotFoundError:
            self.missing(key, f"file {file}")
            return
        except (OSError, EOFError, zlib.error) as error:
            self.fault(str(file), f"cannot be read ({error})")
            return
        content = content.removeprefix(b"\xef\xbb\xbf")  # some editors mark UTF-8 so
        for number, line in enumerate(content.split(b"\n"), start=1):
            place = f"{file}:{number}"
            try:
                text = line.decode(encoding).removesuffix("\r")
            except UnicodeDecodeError as error:
                self.fault(
                    place,
                    f"cannot be read as {encoding.upper()} text ({error.reason} at byte "
                    f"{error.start + 1}): save the file in that encoding",
                )
                return
            if text.strip():
                yield place, text

    def audio(self, written: str, base: Path, place: str) -> Path | None:
        """The audio file that a list names relative to `base`; None, and a fault, if it may not."""
        if not written.strip() or "\0" in written:
            self.fault(place, "the path of the audio is empty or has a null character")
            return None
        # As it is written, without asking where links lead: `link/../a` is `a`.
        path = os.path.normpath(base / written)
        within = _is_within(path, self.root) or _is_within(path, base)
        if not within and not self._allow_outside:
            self.fault(
                place,
                f"the audio {written} lies outside of {self.root}: put it inside, or allow this "
                "with corpus.allow_outside: true (init: --allow-outside)",
            )
            return None
        return Path(path)

    def accept(self, utterance: Utterance) -> Iterator[Utterance]:
        """The utterance; none, and a fault, if its id is empty or taken, or its text no Unicode.

        The same line may serve two splits, as where a corpus has no test: `python -m study corpus`
        says what splits share.
        """
        place = utterance.source
        first = self._ids.setdefault(utterance.id, place)
        if not utterance.id:
            self.fault(place, "the id is empty")
        elif first != place:
            self.fault(place, f"id '{utterance.id}' stands already at {first}")
        elif not all(map(_is_unicode, (utterance.id, utterance.text, utterance.speaker or ""))):
            self.fault(place, "holds half of a surrogate pair, which no text file can hold")
        else:
            yield utterance


def json_object(line: str) -> dict[str, Any] | str:
    """The JSON object on a line, or what is wrong with it in words."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"not JSON that can be read: {error}"
    return entry if isinstance(entry, dict) else "not a JSON object"


def one_line(text: str) -> str:
    """Words separated by single spaces."""
    return " ".join(text.split())


def _is_within(path: str, folder: Path) -> bool:
    """Whether a normal path leads into a folder. Of strings, since corpora have a million paths."""
    whole, home = os.path.abspath(path), os.path.abspath(folder)  # noqa: PTH100
    return os.path.commonpath((whole, home)) == home


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
