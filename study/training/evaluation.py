"""How well a network recognises a split: loss, word and character errors, hypotheses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from model.config import Decoding
from model.recogniser import Recogniser
from study.data.batches import Batches
from study.data.dataset import Split
from study.data.tokens import Tokenizer
from study.files import write_atomically
from study.training.scoring import ErrorCounts, character_errors, word_errors


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """What was recognised in one utterance."""

    id: str
    speaker: str | None
    reference: str
    hypothesis: str
    """By the decoder, which the study is about: greedy, or by beam search."""
    greedy_hypothesis: str | None
    """By the decoder, greedy, where `hypothesis` is by beam search; else None."""
    ctc_hypothesis: str | None
    """By CTC alone, greedy; None where there is no CTC branch."""
    errors: int
    """Substituted, deleted and inserted words of `hypothesis`."""
    substitutions: int
    deletions: int
    insertions: int
    words: int
    """Words of the reference."""


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """The result of recognising a split."""

    loss: float
    """The training loss without augmentation and dropout, per token."""
    word_errors: ErrorCounts
    """Of the decoder: greedy, or by beam search."""
    greedy_word_errors: ErrorCounts
    """Of the decoder, greedy."""
    character_errors: ErrorCounts
    """Of the decoder: greedy, or by beam search."""
    ctc_word_errors: ErrorCounts | None
    """Of CTC alone, greedy."""
    real_time_factor: float
    """Seconds of encoding and decoding (greedy, or the beam search) per second of audio."""
    hypotheses: list[Hypothesis]


class _Heard:
    """What is recognised, batch by batch: the text of each utterance by its place in the split."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def add(self, members: list[int], transcripts: list[list[int]] | None) -> None:
        """The transcripts of some utterances; None where nobody writes any."""
        if transcripts is not None:
            self._texts.update(zip(members, map(self._tokenizer.decode, transcripts), strict=True))

    def texts(self) -> list[str] | None:
        """All texts in the order of the split; None where there are none."""
        return [self._texts[member] for member in sorted(self._texts)] or None


@torch.no_grad()
def recognise(
    recogniser: Recogniser,
    batches: Batches,
    tokenizer: Tokenizer,
    device: torch.device,
    *,
    decoding: Decoding | None = None,
    before: Callable[[], None] = lambda: None,
) -> Recognition:
    """Recognise all utterances of a split in batches; restores the training mode.

    The decoder is greedy; with `decoding`, a beam search is what counts. `before` is called before
    each batch, and may raise to end it.
    """
    greedy, beam, by_ctc = (_Heard(tokenizer) for _ in range(3))
    loss, seconds = 0.0, 0.0
    training = recogniser.training
    recogniser.eval()
    for members in batches.in_order():
        before()
        batch = batches.gather(members).to(device)
        started = time.perf_counter()
        memory, lengths = recogniser.encode(batch.features, batch.lengths, ragged=batch.ragged)
        encoded = time.perf_counter()
        transcripts = recogniser.transcribe(memory, lengths)
        seconds += encoded - started
        if decoding is not None:
            encoded = time.perf_counter()
            beam.add(members, recogniser.transcribe(memory, lengths, decoding).decoder)
        seconds += time.perf_counter() - encoded
        losses = recogniser.losses(memory, lengths, batch.tokens, batch.token_lengths)
        loss += losses.total.item() * len(members)
        greedy.add(members, transcripts.decoder)
        by_ctc.add(members, transcripts.ctc)
    recogniser.train(training)
    return _scored(
        batches.split,
        greedy=greedy.texts() or [],
        beam=beam.texts(),
        ctc=by_ctc.texts(),
        loss=loss,
        seconds=seconds,
    )


def _scored(
    split: Split,
    *,
    greedy: list[str],
    beam: list[str] | None,
    ctc: list[str] | None,
    loss: float,
    seconds: float,
) -> Recognition:
    """The errors of all texts; the loss is the sum over utterances."""
    references = [utterance.text for utterance in split.utterances]
    texts = greedy if beam is None else beam
    counts = word_errors(references, texts)
    total = sum(counts, ErrorCounts())
    hypotheses = [
        Hypothesis(
            id=utterance.id,
            speaker=utterance.speaker,
            reference=utterance.text,
            hypothesis=texts[member],
            greedy_hypothesis=None if beam is None else greedy[member],
            ctc_hypothesis=None if ctc is None else ctc[member],
            errors=counts[member].errors,
            substitutions=counts[member].substitutions,
            deletions=counts[member].deletions,
            insertions=counts[member].insertions,
            words=counts[member].length,
        )
        for member, utterance in enumerate(split.utterances)
    ]
    return Recognition(
        loss=loss / sum(map(len, split.tokens)),
        word_errors=total,
        greedy_word_errors=total if beam is None else _sum_of_errors(references, greedy),
        character_errors=sum(character_errors(references, texts), ErrorCounts()),
        ctc_word_errors=None if ctc is None else _sum_of_errors(references, ctc),
        real_time_factor=seconds / (sum(split.lengths) * split.hop),
        hypotheses=hypotheses,
    )


def _sum_of_errors(references: list[str], texts: list[str]) -> ErrorCounts:
    return sum(word_errors(references, texts), ErrorCounts())


def write_hypotheses(file: Path, hypotheses: list[Hypothesis]) -> None:
    """Write hypotheses as JSON lines."""
    lines = [json.dumps(asdict(hypothesis), ensure_ascii=False) for hypothesis in hypotheses]
    write_atomically(file, "\n".join(lines) + "\n")
