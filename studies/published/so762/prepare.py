"""The speech of this study, from the two corpora as they are distributed.

    python studies/published/so762/prepare.py SPEECHOCEAN762 KATHLEEN CMUARCTIC.DATA corpora

The first is speechocean762 as unpacked (openslr.org/101, free for any use; Zhang et al. 2021,
arXiv 2104.01378), the second the recordings of "Kathleen" (rhasspy/dataset-voice-kathleen, CC0),
the third the CMU Arctic prompts that she read (festvox.org/cmu_arctic). `splits.tsv` says which
utterance is in which split. Written are `corpora/so762` and `corpora/arctic`: lists, and links to
the recordings.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

SPLITS = Path(__file__).with_name("splits.tsv")
Lines = dict[str, dict[str, str]]
"""By id: what stands in a line of the list."""


def speechocean762(folder: Path) -> Lines:
    """The utterances of both parts of the corpus, in lower case."""
    found: Lines = {}
    for part in ("train", "test"):
        texts, audio = (_table(folder / part / name) for name in ("text", "wav.scp"))
        for name, text in texts.items():
            path = Path(audio[name])  # WAVE/SPEAKER0003/000030012.WAV
            found[name] = {
                "audio": f"audio/{Path(*path.parts[1:])}",
                "text": " ".join(text.lower().split()),
                "speaker": f"so{path.parent.name.removeprefix('SPEAKER')}",
            }
    return found


def kathleen(folder: Path, prompts: Path) -> Lines:
    """Her recordings, each named after its prompt (arctic_a0001_…), without punctuation."""
    pattern = re.compile(r'\( (\S+) "(.*)" \)')
    matches = map(pattern.match, prompts.read_text(encoding="utf-8").splitlines())
    said = {match[1]: _words(match[2]) for match in matches if match}
    return {
        path.stem: {
            "audio": f"audio/{path.relative_to(folder)}",
            "text": said[path.stem.rpartition("_")[0]],
            "speaker": "kathleen",
        }
        for path in sorted(folder.rglob("arctic_*_*.*"))
        if path.suffix in (".wav", ".flac", ".opus")
    }


def prepare(
    speechocean: Path, recordings: Path, prompts: Path, to: Path, splits: Path = SPLITS
) -> None:
    """Write the lists; raises `LookupError` where recordings are missing."""
    members = _table(splits)
    links = {"so762": speechocean / "WAVE", "arctic": recordings}
    lines = {"so762": speechocean762(speechocean), "arctic": kathleen(recordings, prompts)}
    known = lines["so762"].keys() | lines["arctic"].keys()
    if missing := sorted(members.keys() - known):
        raise LookupError(f"{len(missing)} recordings are missing, the first is {missing[0]}")
    for corpus, link in links.items():
        folder = to / corpus
        folder.mkdir(parents=True)
        (folder / "audio").symlink_to(link.resolve(), target_is_directory=True)
        for split in ("train", "dev", "test"):
            own = {name: line for name, line in lines[corpus].items() if members.get(name) == split}
            text = "".join(f"{json.dumps({'id': name, **own[name]})}\n" for name in sorted(own))
            if text:
                (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def _table(file: Path) -> dict[str, str]:
    """A file of Kaldi's: a name and what it is, a line each."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {
        name: rest for name, _, rest in (re.split(r"(\s+)", line, maxsplit=1) for line in lines)
    }


def _words(sentence: str) -> str:
    letters = re.sub(r"[^a-z' ]", " ", sentence.lower())
    return " ".join(word for word in (part.strip("'") for part in letters.split()) if word)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for argument in ("speechocean762", "kathleen", "prompts", "to"):
        parser.add_argument(argument, type=Path)
    given = parser.parse_args()
    try:
        prepare(given.speechocean762, given.kathleen, given.prompts, given.to)
    except LookupError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
