"""How well a network recognises a split: loss, word and character errors, hypotheses."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from model.recogniser import Recogniser
from study.data.batches import Batches
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
    """By the decoder, which the study is about."""
    ctc_hypothesis: str | None
    """By CTC alone; None where there is no CTC branch."""
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
    character_errors: ErrorCounts
    ctc_word_errors: ErrorCounts | None
    real_time_factor: float
    """Seconds of encoding and greedy decoding per second of audio."""
    hypotheses: list[Hypothesis]


@torch.no_grad()
def recognise(
    recogniser: Recogniser, batches: Batches, tokenizer: Tokenizer, device: torch.device
) -> Recognition:
    """Recognise all utterances of a split, greedily and in batches; restores the training mode."""
    split = batches.split
    decoded: dict[int, str] = {}
    by_ctc: dict[int, str] = {}
    loss, decoding = 0.0, 0.0
    training = recogniser.training
    recogniser.eval()
    for members in batches.in_order():
        batch = batches.gather(members).to(device)
        started = time.perf_counter()
        memory, lengths = recogniser.encode(batch.features, batch.lengths, ragged=batch.ragged)
        transcripts = recogniser.transcribe(memory, lengths)
        decoding += time.perf_counter() - started
        losses = recogniser.losses(memory, lengths, batch.tokens, batch.token_lengths)
        loss += losses.total.item() * len(members)
        decoded.update(zip(members, map(tokenizer.decode, transcripts.decoder), strict=True))
        if transcripts.ctc is not None:
            by_ctc.update(zip(members, map(tokenizer.decode, transcripts.ctc), strict=True))
    recogniser.train(training)
    references = [utterance.text for utterance in split.utterances]
    texts = [decoded[member] for member in range(len(split))]
    ctc_texts = [by_ctc[member] for member in range(len(split))] if by_ctc else None
    counts = word_errors(references, texts)
    hypotheses = [
        Hypothesis(
            id=utterance.id,
            speaker=utterance.speaker,
            reference=utterance.text,
            hypothesis=texts[member],
            ctc_hypothesis=None if ctc_texts is None else ctc_texts[member],
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
        word_errors=sum(counts, ErrorCounts()),
        character_errors=sum(character_errors(references, texts), ErrorCounts()),
        ctc_word_errors=(
            None if ctc_texts is None else sum(word_errors(references, ctc_texts), ErrorCounts())
        ),
        real_time_factor=decoding / (sum(split.lengths) * split.hop),
        hypotheses=hypotheses,
    )


def write_hypotheses(file: Path, hypotheses: list[Hypothesis]) -> None:
    """Write hypotheses as JSON lines."""
    lines = [json.dumps(asdict(hypothesis), ensure_ascii=False) for hypothesis in hypotheses]
    write_atomically(file, "\n".join(lines) + "\n")
