"""What tells one corpus from another: a hash of its speech, and one of all that is said of it.

The speech is a hash of the files' content, so that a corpus may be moved or copied. To read all
of it takes minutes where there are many hours, and every worker asks: the answer is kept in the
cache under what the file system says of the files, and is found there as long as that is the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import suppress
from pathlib import Path

from study.data.corpus import SPLITS, Utterance
from study.files import Unwritable, write_atomically

SETTLED = 5.0
"""Seconds. A file that changed less long ago could change again without another time of change."""

MISSING = hashlib.blake2b(b"missing", digest_size=16).digest()
"""Stands for the content of a file that cannot be read."""


def audio_fingerprint(utterances: list[Utterance], cache: Path) -> str:
    """A hash of all speech, in order: the content of the files, and which part of them it is.

    A missing file counts as such.
    """
    states = {file: _state(file) for file in dict.fromkeys(u.audio for u in utterances)}
    parts = [(str(u.audio), u.start, u.end, u.channel, u.headerless) for u in utterances]
    key = _hash(json.dumps([parts, list(states.values())]).encode())
    kept = cache / "audio" / key
    if kept.is_file() and re.fullmatch(r"[0-9a-f]{32}", found := kept.read_text(errors="replace")):
        return found
    contents = {file: _content_hash(file) for file in states}
    fingerprint = _combined(utterances, contents)
    last = max((max(state[1:]) for state in states.values() if state), default=0)
    readable = all(contents[file] != MISSING for file, state in states.items() if state)
    # What could not be read, the next one may read, and no time of change will tell of that.
    if readable and last < time.time_ns() - SETTLED * 1e9:
        with suppress(Unwritable):  # somebody else's cache serves all the same
            write_atomically(kept, fingerprint)
    return fingerprint


def corpus_fingerprint(splits: dict[str, list[Utterance]], audio: str) -> str:
    """A hash of a corpus; `audio` is the `audio_fingerprint` of its utterances."""
    texts = [[split, u.id, u.text, u.speaker] for split in SPLITS for u in splits[split]]
    return _hash(json.dumps([audio, texts]).encode())


def _state(file: Path) -> tuple[int, ...]:
    """What changes when a file does: its size, and when its content and when anything of it did.

    A copy can be given the first two of another file, and not the last. Empty where there is none.
    """
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _combined(utterances: list[Utterance], contents: dict[Path, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for utterance in utterances:
        digest.update(contents[utterance.audio])
        part = (utterance.start, utterance.end, utterance.channel, utterance.headerless)
        if part != (0.0, None, None, None):
            digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def _content_hash(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError:
        return MISSING
    return hashlib.blake2b(content, digest_size=16).digest()


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
