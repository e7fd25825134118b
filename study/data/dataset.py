"""A corpus made ready for training: utterances, features, tokens, and what was found amiss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from model.ctc import shortest_alignment
from model.subsampling import SHORTEST, subsampled_length
from study.data.config import FeatureConfig, TokenConfig
from study.data.corpus import SPLITS, Corpus, Utterance
from study.data.features import FeatureStore, open_features
from study.data.fingerprint import audio_fingerprint, corpus_fingerprint
from study.data.leaks import leaks
from study.data.tokens import UNKNOWN, Tokenizer, learn_tokenizer
from study.errors import InputError

NAMED = 10
"""Unusable utterances that a message names; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The usable utterances of a split."""

    name: str
    utterances: list[Utterance]
    numbers: list[int]
    """Where each utterance stands in the feature store."""
    tokens: list[list[int]]
    store: FeatureStore
    hop: float
    """Seconds from one frame to the next."""

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def lengths(self) -> list[int]:
        """Frames of each utterance."""
        return [int(length) for length in self.store.lengths[self.numbers]]

    def sample(self, share: float) -> Split:
        """So large a share of the utterances, drawn at random but always the same ones."""
        count = max(1, round(share * len(self)))
        chosen = sorted(np.random.default_rng(0).permutation(len(self))[:count].tolist())
        return replace(
            self,
            utterances=[self.utterances[place] for place in chosen],
            numbers=[self.numbers[place] for place in chosen],
            tokens=[self.tokens[place] for place in chosen],
        )

    def summary(self) -> dict[str, int | float]:
        """How much there is: utterances, hours, speakers (0 where unknown), words.

        `longest` is in seconds, of one utterance.
        """
        lengths = self.lengths
        return {
            "utterances": len(self),
            "hours": sum(lengths) * self.hop / 3600,
            "longest": max(lengths) * self.hop,
            "speakers": len({u.speaker for u in self.utterances if u.speaker is not None}),
            "words": sum(len(u.text.split()) for u in self.utterances),
        }


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Everything that a trial needs to know of a corpus."""

    splits: dict[str, Split]
    tokenizer: Tokenizer
    normalisation: tuple[Tensor, Tensor]
    """Mean and standard deviation of the training features `(F,)`."""
    fingerprint: str
    """Changes when any audio, transcript, speaker or order of the corpus does."""
    warnings: list[str]
    """What a reader of the results should know about the corpus, one sentence each."""


def prepare(
    corpus: Corpus, features: FeatureConfig, tokens: TokenConfig, *, ctc: bool, cache: Path
) -> Dataset:
    """Read a corpus, compute its features and tokens (or find them in `cache`), and check it all.

    `ctc` says whether transcripts of train must be short enough for CTC to align; those of dev and
    test are scored all the same, since a decoder may recognise them. Raises `InputError` where a
    split has no utterances, or more are unusable than `corpus.max_bad_utterances` allows.
    """
    read = corpus.read(cache)
    empty = [
        f"corpus: the split '{split}' has no utterances" for split in SPLITS if not read[split]
    ]
    if empty:
        raise InputError(empty)
    everything = [utterance for split in SPLITS for utterance in read[split]]
    audio = audio_fingerprint(everything, cache)
    store = open_features(everything, audio, features, cache)
    tokenizer = learn_tokenizer(tokens, [u.text for u in read["train"] if u.text], cache / "tokens")
    splits: dict[str, Split] = {}
    faults: list[str] = []
    first = 0
    for split in SPLITS:
        chosen = Split(
            name=split, utterances=[], numbers=[], tokens=[], store=store, hop=features.hop
        )
        for number, utterance in enumerate(read[split], start=first):
            encoded = tokenizer.encode(utterance.text)
            fault = store.faults.get(number) or _fault(
                utterance, int(store.lengths[number]), encoded, ctc=ctc and split == "train"
            )
            if fault:
                faults.append(f"{utterance.source or split}: '{utterance.id}': {fault}")
                continue
            chosen.utterances.append(utterance)
            chosen.numbers.append(number)
            chosen.tokens.append(encoded)
        first += len(read[split])
        splits[split] = chosen
    warnings = _judge(faults, len(everything), corpus.max_bad_utterances)
    _refuse_emptied(splits, faults)
    return Dataset(
        splits=splits,
        tokenizer=tokenizer,
        normalisation=store.normalisation(splits["train"].numbers),
        fingerprint=corpus_fingerprint(read, audio),
        warnings=[*warnings, *_unknown_units(splits), *_leaks(splits)],
    )


def _fault(utterance: Utterance, frames: int, tokens: list[int], *, ctc: bool) -> str | None:
    """Why an utterance cannot be used for training or scoring; None if it can."""
    if not utterance.text:
        return "the transcript is empty"
    if frames < SHORTEST:
        return f"too short: {frames} frames, and the front block needs {SHORTEST}"
    available, needed = subsampled_length(frames), shortest_alignment(tokens)
    if ctc and needed > available:
        return (
            f"the transcript is too long for CTC: it needs {needed} frames after subsampling, "
            f"and {frames} frames of audio give {available}"
        )
    return None


def _judge(faults: list[str], utterances: int, allowed: float) -> list[str]:
    """Unusable utterances as one warning, or as an error where there are too many."""
    if not faults:
        return []
    limit = allowed if allowed >= 1 else allowed * utterances
    summary = f"{len(faults)} of {utterances} utterances cannot be used"
    named = [f"  {fault}" for fault in faults[:NAMED]]
    if len(faults) > NAMED:
        named.append(f"  and {len(faults) - NAMED} more")
    if len(faults) > limit:
        remedy = f"more than corpus.max_bad_utterances ({allowed:g}) allows: mend or raise it"
        raise InputError("\n".join([f"corpus: {summary}, {remedy}:", *named]))
    return ["\n".join([f"{summary} and are left out:", *named])]


def _refuse_emptied(splits: dict[str, Split], faults: list[str]) -> None:
    emptied = [split for split in SPLITS if not splits[split].utterances]
    if emptied:
        raise InputError(
            [f"corpus: the split '{split}' has no usable utterances" for split in emptied]
            + faults[:NAMED]
        )


def _unknown_units(splits: dict[str, Split]) -> Iterator[str]:
    """Warnings about what dev and test hold and the tokenizer never saw."""
    for name in ("dev", "test"):
        split = splits[name]
        unknown = [
            utterance.text
            for utterance, tokens in zip(split.utterances, split.tokens, strict=True)
            if UNKNOWN in tokens
        ]
        if unknown:
            characters = set().union(*unknown) - set().union(
                *(utterance.text for utterance in splits["train"].utterances)
            )
            listed = " ".join(repr(character) for character in sorted(characters)[:20])
            yield (
                f"{len(unknown)} transcripts of {name} have characters that train does not have"
                f" ({listed}); no model can write them, and they count as errors"
            )


def _leaks(splits: dict[str, Split]) -> Iterator[str]:
    """A warning about what the splits share."""
    found = leaks({name: split.utterances for name, split in splits.items()})
    if found:
        lead = "splits overlap, so that error rates look better than they are:"
        yield "\n".join([lead, *(f"  {leak}" for leak in found)])
