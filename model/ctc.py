"""Connectionist temporal classification (Graves et al. 2006), ESPnet's `CTC`.

Shapes: `B` batch, `T` encoder frames, `D` encoder_dim, `U` tokens, `V` vocabulary.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

BLANK = 0


def shortest_alignment(tokens: list[int]) -> int:
    """Frames that CTC needs to emit these tokens: one each, and a blank between equal ones."""
    repeats = sum(a == b for a, b in pairwise(tokens))
    return len(tokens) + repeats


class CTC(nn.Module):
    """A linear layer on the encoder's output, its loss and its greedy decoding."""

    def __init__(self, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.output = nn.Linear(dim, vocabulary)

    def log_probabilities(self, memory: Tensor) -> Tensor:
        """memory `(B, T, D)` -> `(B, T, V)`, float32."""
        return self.output(memory).float().log_softmax(dim=-1)

    def loss(
        self, memory: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> Tensor:
        """Negative log likelihood of the tokens, summed over the batch and divided by B.

        memory `(B, T, D)`, tokens `(B, U)` with any value in the padding. An utterance that cannot
        be aligned counts as zero. Lengths may be on the host, where the kernel reads them.
        """
        return self.loss_of(self.log_probabilities(memory), lengths, tokens, token_lengths)

    @staticmethod
    def loss_of(
        log_probabilities: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> Tensor:
        """The same of what `log_probabilities` gave, `(B, T, V)`.

        Where torch is told to be deterministic it is computed on the host: CUDA's kernel is not.
        """
        device = log_probabilities.device
        if torch.are_deterministic_algorithms_enabled():
            log_probabilities, tokens = log_probabilities.cpu(), tokens.cpu()
            lengths, token_lengths = lengths.cpu(), token_lengths.cpu()
        loss = functional.ctc_loss(
            log_probabilities.transpose(0, 1),  # (T, B, V)
            tokens.clamp(min=BLANK),
            lengths,
            token_lengths,
            blank=BLANK,
            reduction="sum",
            zero_infinity=True,
        )
        return loss.to(device) / log_probabilities.shape[0]

    @torch.no_grad()
    def decode(self, memory: Tensor, lengths: Tensor) -> list[list[int]]:
        """The best path of each utterance, repeats collapsed and blanks removed."""
        best = self.output(memory).argmax(dim=-1)  # (B, T)
        change = torch.ones_like(best, dtype=torch.bool)
        change[:, 1:] = best[:, 1:] != best[:, :-1]
        within = torch.arange(best.shape[1], device=best.device) < lengths.unsqueeze(1)
        keep = change & within & (best != BLANK)
        return [row[kept].tolist() for row, kept in zip(best.cpu(), keep.cpu(), strict=True)]
