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
from study.data.batches import Batch, Batches
from study.data.dataset import Split
from study.data.tokens import Tokenizer
from study.files import write_atomically
from study.training.memory import NetworkTooLarge, shortage
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


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """What is recognised of a few utterances."""

    greedy: list[str]
    beam: list[str] | None
    ctc: list[str] | None
    loss: float
    """Summed over the utterances."""
    seconds: float
    """Of encoding and of the decoding that counts."""


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
    each batch, and may raise to end it. A batch for which memory is short is halved, and halved
    again; raises `NetworkTooLarge` where it is short for one utterance.
    """
    training = recogniser.training
    recogniser.eval()
    heard: list[tuple[list[int], _Heard]] = []
    waiting = batches.in_order()[::-1]
    while waiting:
        before()
        members = waiting.pop()
        try:
            heard.append(
                (
                    members,
                    _hear(recogniser, batches.gather(members).to(device), tokenizer, decoding),
                )
            )
            continue
        except (RuntimeError, MemoryError) as error:
            needed = shortage(error)
            if needed is None:
                raise
        # Outside of the handler, whose traceback holds the tensors of the batch.
        if len(members) == 1:
            raise NetworkTooLarge(f"an utterance of dev or test does not fit into memory: {needed}")
        if device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(members) // 2
        waiting += [members[half:], members[:half]]
    recogniser.train(training)
    return _scored(batches.split, heard)


def _hear(
    recogniser: Recogniser, batch: Batch, tokenizer: Tokenizer, decoding: Decoding | None
) -> _Heard:
    """What a network recognises of a batch."""
    started = time.perf_counter()
    memory, lengths = recogniser.encode(batch.features, batch.lengths, ragged=batch.ragged)
    if memory.is_cuda:  # a GPU has only been told to, and the clock would not see it
        torch.cuda.synchronize(memory.device)
    encoded = time.perf_counter()
    plain = recogniser.transcribe(memory, lengths)
    decoded = time.perf_counter()
    beam = None
    if decoding is not None:
        beam = recogniser.transcribe(memory, lengths, decoding).decoder
    seconds = encoded - started
    seconds += decoded - encoded if beam is None else time.perf_counter() - decoded
    losses = recogniser.losses(memory, lengths, batch.tokens, batch.token_lengths)

    def texts(transcripts: list[list[int]] | None) -> list[str] | None:
        return None if transcripts is None else list(map(tokenizer.decode, transcripts))

    return _Heard(
        greedy=texts(plain.decoder) or [],
        beam=texts(beam),
        ctc=texts(plain.ctc),
        loss=losses.total.item() * len(batch.members),
        seconds=seconds,
    )


def _scored(split: Split, heard: list[tuple[list[int], _Heard]]) -> Recognition:
    """The errors of all utterances, whose places in the split stand beside what was heard."""

    def in_order(texts: Callable[[_Heard], list[str] | None]) -> list[str] | None:
        pairs: list[tuple[int, str]] = []
        for members, part in heard:
            if (found := texts(part)) is None:
                return None
            pairs += zip(members, found, strict=True)
        return [text for _, text in sorted(pairs)]

    greedy = in_order(lambda part: part.greedy) or []
    beam, ctc = in_order(lambda part: part.beam), in_order(lambda part: part.ctc)
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
        loss=sum(part.loss for _, part in heard) / sum(map(len, split.tokens)),
        word_errors=total,
        greedy_word_errors=total if beam is None else _sum_of_errors(references, greedy),
        character_errors=sum(character_errors(references, texts), ErrorCounts()),
        ctc_word_errors=None if ctc is None else _sum_of_errors(references, ctc),
        real_time_factor=sum(part.seconds for _, part in heard) / (sum(split.lengths) * split.hop),
        hypotheses=hypotheses,
    )


def _sum_of_errors(references: list[str], texts: list[str]) -> ErrorCounts:
    return sum(word_errors(references, texts), ErrorCounts())


def write_hypotheses(file: Path, hypotheses: list[Hypothesis]) -> None:
    """Write hypotheses as JSON lines."""
    lines = [json.dumps(asdict(hypothesis), ensure_ascii=False) for hypothesis in hypotheses]
    write_atomically(file, "\n".join(lines) + "\n")
