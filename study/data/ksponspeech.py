"""KsponSpeech: 969 hours of spontaneous Korean by 2000 speakers (Bang et al. 2020).

The layout is that of AI-Hub (aihub.or.kr), the paper doi:10.3390/app10196936:

    folder/KsponSpeech_01/KsponSpeech_0001/KsponSpeech_000001.pcm    no header: 16 kHz, 16 bit
                                           KsponSpeech_000001.txt    CP949
           KsponSpeech_eval/eval_clean/KsponSpeech_E00001.pcm
           scripts/train.trn   dev.trn   eval_clean.trn   eval_other.trn

A line of a `.trn` file, in UTF-8, is `path :: transcript`:

    KsponSpeech_01/KsponSpeech_0001/KsponSpeech_000001.pcm :: b/ 아/ (70%)/(칠십 퍼센트)* 그+ 그럼

Transcripts are normalised as in ESPnet's recipe (egs2/ksponspeech/asr1, `get_transcriptions.py`
with `--type df`, then `lowercase.perl` and `remove_punctuation.pl`), which keeps disfluencies:

- `*` (unclear speech) and the tags `b/ l/ o/ n/` (breath, laughter, overlap, noise) go;
  `u/` becomes the word `[unk]`;
- `아/` (a filler) and `그+` (a repetition) keep the word and lose the mark; a transcript with a `+`
  elsewhere is an error of the corpus, and is left empty, which the recipe drops;
- of `(spelling)/(pronunciation)` one remains, the spelling in the recipe: `70%` becomes `70`;
- letters become lower-case, and punctuation goes, but for the apostrophe.

Korean spacing is free, so the recipe also gives a WER over hypotheses whose spaces follow the
reference: score `space_normalised(reference, hypothesis)` in the place of the hypothesis.
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

SAMPLE_RATE = 16_000
"""Hz of all its recordings."""
UNKNOWN_WORD = "[unk]"
"""Stands for a word that nobody understood."""

_EVENTS = ("*", "o/", "l/", "b/", "n/")
_PAIR = re.compile(r"\(([^)]+)\)/\(([^)]+)\)")
_TORN_PAIR = re.compile(r"\)\s*/\s*\(")
_REPEATED_PAIR = re.compile(r"(\([^)]+\)/\([^)]+\)[^ +]*)\+")
_REPETITION = re.compile(r"(?<=[^ +])\+(?=[\s,.?!]|$)")
_ASCII_SYMBOLS = "$+<=>^`|~"  # punctuation in POSIX, symbols in Unicode

Notation = Literal["spelling", "pronunciation"]


@dataclass(frozen=True, kw_only=True)
class KsponSpeechCorpus(FolderCorpus):
    """Where KsponSpeech lies, and how to write it."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}
    _remedy: ClassVar[str] = (
        "get KsponSpeech from aihub.or.kr and set corpus.folder to the folder with KsponSpeech_01 "
        "and scripts"
    )

    kind: Literal["ksponspeech"] = "ksponspeech"
    """Names this kind of corpus."""
    train: tuple[Path, ...] = (Path("scripts/train.trn"),)
    """`.trn` files, or folders of recordings with a `.txt` beside each; relative to `folder`."""
    dev: tuple[Path, ...] = (Path("scripts/dev.trn"),)
    """As `train`."""
    test: tuple[Path, ...] = (Path("scripts/eval_clean.trn"),)
    """As `train`; the other set is `scripts/eval_other.trn`."""
    notation: Notation = "spelling"
    """What remains of `(spelling)/(pronunciation)`."""

    def read_split(self, split: str, listing: Listing) -> Iterator[Utterance]:
        """The utterances of the split's lists and folders; the corpus does not tell speakers."""
        for part in getattr(self, split):
            source = self.folder / part
            rows = _recordings if source.is_dir() else _script
            for place, path, transcript in rows(source, split, listing):
                audio = listing.audio(path, self.folder, place)
                if audio is None:
                    continue
                yield from listing.accept(
                    Utterance(
                        id=audio.stem,
                        audio=audio,
                        text=normalise(transcript, self.notation),
                        source=place,
                        headerless=SAMPLE_RATE,
                    )
                )


def _script(file: Path, key: str, listing: Listing) -> Iterator[tuple[str, str, str]]:
    """The place, the path and the transcript of each line of a `.trn` file."""
    for place, line in listing.lines(file, key):
        path, separator, transcript = line.partition(" :: ")
        if not separator:
            listing.fault(place, "is not 'path :: transcript', as a line of a .trn file is")
        elif not path.strip().endswith(".pcm"):
            listing.fault(place, f"'{path.strip()}' is not a .pcm file")
        else:
            yield place, path.strip(), transcript


def _recordings(folder: Path, key: str, listing: Listing) -> Iterator[tuple[str, str, str]]:
    """The same of the recordings in a folder and the folders in it, by their `.txt` files."""
    found = sorted(folder.rglob("*.pcm"))
    if not found:
        listing.missing(key, f".pcm file in {folder}")
    for file in found:
        text = file.with_suffix(".txt")
        lines = [line for _, line in listing.lines(text, key, "cp949")]
        yield f"{text}:1", str(file.relative_to(listing.root)), " ".join(lines)


def normalise(transcript: str, notation: Notation = "spelling") -> str:
    """A transcript as the recipe writes it; empty where the recipe drops it."""
    text = transcript
    for event in _EVENTS:
        text = text.replace(event, "")
    text = one_line(text.replace("u/", UNKNOWN_WORD)).replace(" +", "+ ")
    text = _REPETITION.sub("", _REPEATED_PAIR.sub(r"\1", text))
    if "+" in text:
        return ""
    text = _TORN_PAIR.sub(")/(", text)
    text = _PAIR.sub(r"\1" if notation == "spelling" else r"\2", text).lower()
    words = (UNKNOWN_WORD.join(map(_letters, t.split(UNKNOWN_WORD))) for t in text.split())
    return one_line(" ".join(words))


def _letters(text: str) -> str:
    """A text without punctuation other than the apostrophe."""
    return "".join(c for c in text if c == "'" or not _is_punctuation(c))


def _is_punctuation(character: str) -> bool:
    return character in _ASCII_SYMBOLS or unicodedata.category(character).startswith("P")


def space_normalised(reference: str, hypothesis: str) -> str:
    """The hypothesis with the spaces of the reference wherever their characters agree.

    The two are aligned by character, spaces apart; a character that agrees begins a word where the
    reference's does, and the others where they did. The word error rate of the result is the
    recipe's sWER (`get_space_normalized_hyps.py`, the alignment of Kaldi's `align-text`).
    """
    wanted, heard = _beginnings(reference), _beginnings(hypothesis)
    for number, agreeing in _agreements([c for c, _ in wanted], [c for c, _ in heard]):
        heard[number] = wanted[agreeing]
    return "".join(f" {c}" if begins else c for c, begins in heard).strip()


def _beginnings(text: str) -> list[tuple[str, bool]]:
    """The characters of all words, and whether a word begins there."""
    return [(c, number == 0) for word in text.split() for number, c in enumerate(word)]


def _agreements(wanted: list[str], heard: list[str]) -> Iterator[tuple[int, int]]:
    """Where both agree in the alignment with the fewest errors: pairs of places, heard and wanted.

    Of several such alignments it is the recipe's, since spaces depend on it: read from the end, a
    substitution goes before a deletion, and a deletion before an insertion.
    """
    distances = [list(range(len(wanted) + 1))]  # of the first h heard and the first w wanted
    for h, character in enumerate(heard, start=1):
        above, row = distances[-1], [h]
        for w, other in enumerate(wanted, start=1):
            row.append(min(above[w - 1] + (character != other), above[w] + 1, row[w - 1] + 1))
        distances.append(row)
    h, w = len(heard), len(wanted)
    while h and w:
        agrees = heard[h - 1] == wanted[w - 1]
        paired = distances[h - 1][w - 1] + (not agrees)
        inserted, deleted = distances[h - 1][w] + 1, distances[h][w - 1] + 1
        if paired <= min(inserted, deleted):
            h, w = h - 1, w - 1
            if agrees:
                yield h, w
        elif inserted < deleted:
            h -= 1
        else:
            w -= 1
