"""What went wrong in recognition: the winner's errors beside those of an anchor.

    data = recognition_data(record, trials_folder)
    data.networks               # the winner, and an anchor that heard the same
    data.worst[0].heard         # the utterance with the most errors, as each of them heard it

Where there are finalists it is read from the test split, otherwise from dev: `test.jsonl` and
`hypotheses.jsonl` of a trial (`reports.transcripts`). A configuration that was trained with several
seeds is shown by the one that did best on dev.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.mistakes import mistakes_data
from reports.transcripts import Transcripts, read_transcripts

if TYPE_CHECKING:
    from pathlib import Path

    from reports.mistakes import Kinds, MistakesData
    from reports.record import StudyRecord
    from reports.transcripts import Utterance, Word

WORST, RANDOM = 10, 5
"""Utterances that are shown."""
FILES = {"test": "test.jsonl", "dev": "hypotheses.jsonl"}
"""The transcripts of a trial, by split."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network whose errors are shown."""

    name: str
    """In words: the winner, trial 12; the anchor conformer-s."""
    trial: int
    """Its trial."""
    kinds: Kinds
    """Its errors by kind."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What one network heard in one utterance."""

    words: tuple[Word, ...]
    """The alignment with the fewest errors."""
    errors: int


@dataclass(frozen=True, kw_only=True)
class Example:
    """One utterance."""

    id: str
    """Its name in the corpus."""
    spoken: int
    """Words of the reference."""
    heard: tuple[Heard, ...]
    """By each network, the winner first."""

    @property
    def errors(self) -> int:
        """The winner's errors."""
        return self.heard[0].errors


@dataclass(frozen=True, kw_only=True)
class RecognitionData:
    """What was recognised, or why there is nothing to show."""

    split: str
    """`test` or `dev`."""
    networks: tuple[Network, ...]
    """The winner, and an anchor (or another finalist, where the winner is the anchor) if any."""
    mistakes: MistakesData | None
    """Their errors."""
    worst: tuple[Example, ...]
    """The utterances with the winner's most errors, worst first."""
    drawn: tuple[Example, ...]
    """A few others, drawn at random (the same ones each time)."""
    unreadable: int
    """Lines of the winner's file that are no utterance."""
    refusal: str
    """Why there is nothing; empty if there is."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    name: str
    trial: int
    transcripts: Transcripts


def recognition_data(record: StudyRecord, trials_folder: Path | None) -> RecognitionData:
    """Read what the winner and an anchor heard, and count and choose from it."""
    if record.best is None:
        return _none("There is no finished trial whose transcripts could be shown.")
    if trials_folder is None:
        return _none("The trials' folder was not given, so there are no transcripts to show.")
    split, sources = "test", _on_test(record, trials_folder)
    if not sources:
        split, sources = "dev", _on_dev(record, trials_folder)
    if not sources:
        number = int(record.best["number"])
        if (trials_folder / str(number) / FILES["dev"]).is_file():
            return _none(f"The transcripts of trial {number} hold no utterance that can be read.")
        return _none(f"Trial {number} left no transcripts ({FILES['dev']}).")
    sources, heard = _shared(sources)
    mistakes, aligned = mistakes_data(heard)
    examples = [
        Example(
            id=item.id,
            spoken=item.words,
            heard=tuple(
                Heard(
                    words=network[place],
                    errors=sum(word.kind != "same" for word in network[place]),
                )
                for network in aligned
            ),
        )
        for place, item in enumerate(heard[0])
    ]
    ranked = sorted(examples, key=lambda example: (-example.errors, example.id))
    worst, rest = ranked[:WORST], ranked[WORST:]
    return RecognitionData(
        split=split,
        networks=tuple(
            Network(name=source.name, trial=source.trial, kinds=kinds)
            for source, kinds in zip(sources, mistakes.kinds, strict=True)
        ),
        mistakes=mistakes,
        worst=tuple(example for example in worst if example.errors),
        drawn=tuple(random.Random(sources[0].trial).sample(rest, min(RANDOM, len(rest)))),
        unreadable=sources[0].transcripts.unreadable,
        refusal="",
    )


def _on_test(record: StudyRecord, folder: Path) -> list[_Source]:
    """Return the winner and the best other anchor, or else finalist, that left a test.jsonl."""
    known = [
        (finalist, _Source(name=name, trial=finalist.trials[0], transcripts=transcripts))
        for finalist in record.finals
        if (transcripts := _read(folder, finalist.trials[0], "test")).utterances
        for name in [f"the anchor {finalist.anchor}" if finalist.anchor else finalist.label]
    ]
    if not known or known[0][0] is not record.finals[0]:
        return []
    (_, winner), *others = known
    others.sort(key=lambda pair: pair[0].anchor is None)
    return [winner, *(source for _, source in others[:1])]


def _on_dev(record: StudyRecord, folder: Path) -> list[_Source]:
    """Return the best trial and the best trial of an anchor that left a hypotheses.jsonl."""
    assert record.best is not None
    number = int(record.best["number"])
    anchors = record.results[record.results["anchor"].notna()].sort_values(["wer", "number"])
    names = {number: f"trial {number}"}
    for trial, anchor in zip(anchors["number"], anchors["anchor"], strict=True):
        names[int(trial)] = f"the anchor {anchor}"
    found = [
        _Source(name=name, trial=trial, transcripts=transcripts)
        for trial, name in names.items()
        if (transcripts := _read(folder, trial, "dev")).utterances
    ]
    return found[:2] if found and found[0].trial == number else []


def _read(folder: Path, trial: int, split: str) -> Transcripts:
    return read_transcripts(folder / str(trial) / FILES[split])


def _shared(sources: list[_Source]) -> tuple[list[_Source], list[list[Utterance]]]:
    """Return the networks, and the utterances that all of them heard; the first alone if none."""
    known = [{item.id: item for item in source.transcripts.utterances} for source in sources]
    names = [
        name
        for name, item in known[0].items()
        if all(name in other and other[name].reference == item.reference for other in known[1:])
    ]
    if not names:
        return sources[:1], [list(known[0].values())]
    return sources, [[each[name] for name in names] for each in known]


def _none(refusal: str) -> RecognitionData:
    return RecognitionData(
        split="",
        networks=(),
        mistakes=None,
        worst=(),
        drawn=(),
        unreadable=0,
        refusal=refusal,
    )
