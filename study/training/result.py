"""What a trial's training is found to be worth, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a trial stands after a share of its budget. Rates are fractions, losses are per token."""

    evaluation: int
    """1, 2, … `training.evaluations`."""
    step: int
    """Updates of the weights so far."""
    epoch: float
    """Passes over the training speech so far."""
    train_loss: float
    """Mean over the steps since the last evaluation."""
    dev_loss: float
    wer: float
    """Word error rate of the decoder, greedy, on the utterances of dev that were recognised."""
    ctc_wer: float | None
    """The same by CTC alone."""
    cer: float
    """Character error rate of the decoder."""
    learning_rate: float
    """Of the last step."""
    real_time_factor: float
    """Of greedy decoding."""
    train_seconds: float
    """Of training, from the start of the trial."""
    evaluate_seconds: float
    """Of this evaluation."""
    utterances: int = 0
    """Of dev, that were recognised; 0 where it was not recorded, and all were."""


def deciding(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The evaluation that a trial is judged by, None where there is none yet.

    Of those that recognised most of dev it is the one with the lowest WER; of equals the earliest.
    """
    most = max((e.get("utterances", 0) for e in evaluations), default=0)
    fullest = [e for e in evaluations if e.get("utterances", 0) == most]
    return min(fullest, key=lambda e: e["wer"], default=None)
