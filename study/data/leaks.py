"""What splits share that should be apart, so that error rates look better than they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from study.data.corpus import Utterance


def leaks(splits: Mapping[str, Sequence[Utterance]]) -> list[str]:
    """What splits share, a sentence for each pair of splits and kind: recordings, texts, speakers.

    A recording in two splits is the same part of the same audio, whatever its transcript says.
    """
    found = []
    for (one, heard), (other, new) in combinations(splits.items(), 2):
        recordings = _recordings(heard) & _recordings(new)
        if recordings:
            found.append(
                f"{one} and {other} share {_counted(len(recordings), 'recording')}: "
                f"{other} is not new to a model that has heard {one}"
            )
        for kind in ("text", "speaker"):
            shared = _known(kind, heard) & _known(kind, new)
            if shared:
                count = sum(getattr(utterance, kind) in shared for utterance in new)
                found.append(
                    f"{one} and {other} share {_counted(len(shared), kind)}: "
                    f"{_counted(count, 'utterance')} of {other} ({100 * count / len(new):.3g} %)"
                )
    return found


def _recordings(split: Sequence[Utterance]) -> set[tuple[object, ...]]:
    return {(u.audio, u.start, u.end, u.channel) for u in split}


def _known(kind: str, split: Sequence[Utterance]) -> set[str]:
    return {value for utterance in split if (value := getattr(utterance, kind)) is not None}


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
