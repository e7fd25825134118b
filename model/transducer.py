"""The transducer (Graves 2012, arXiv 1211.3711), the decoder of the Conformer paper.

An LSTM, the prediction network, reads the tokens written so far; a joint network adds what it says
to what the encoder says about a frame, and decides: write a token and stay on the frame, or write
nothing (the blank) and go to the next one. The probability of a transcript is the sum over all such
walks through frames and tokens.

What the paper's sizes come to without CTC and with a vocabulary of 1024, in millions of weights:

    config     encoder        decoder_dim   here      published
    small      16 x 144       320           10.79     10.3
    medium     16 x 256       640           32.43     30.7
    large      17 x 512       640           120.18    118.8

The paper leaves open how wide the token embeddings and the joint network are, and whether its
vocabulary of 1024 has the blank. Here embeddings are as wide as the LSTM and the joint network is
640 wide; a kernel of 31 stands for the paper's even 32.

Shapes: `B` batch, `T` encoder frames, `E` encoder_dim, `D` decoder_dim, `J` joint_dim, `U` tokens,
`V` vocabulary, `K` hypotheses of a beam.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model.config import NetworkConfig
from model.ctc import BLANK
from model.dropout import Dropout

SLICE_VALUES = 2**26
"""Most values in any one tensor of the joint network while it trains: 256 MiB of float32.

The joint network works on each pair of a frame and a token, so that its tensors `(B, T, U+1, J)`
and `(B, T, U+1, V)` are the largest of all. A batch that would need more is cut into slices of
whole utterances, and backpropagation computes each slice anew, so that one slice's tensors are
alive at a time: one J wide and up to three V wide. An utterance is never cut: one that is larger by
itself takes what it needs.
"""
SYMBOLS_PER_FRAME = 10
"""Most tokens that greedy decoding writes on one frame before it goes on."""

State = tuple[Tensor, Tensor]
"""What an LSTM remembers: two tensors `(layers, B, D)`."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A transcript that a beam search found."""

    tokens: list[int]
    log_probability: float
    """Natural logarithm of the sum over the walks that the beam kept, so a lower bound."""


class PredictionNetwork(nn.Module):
    """An LSTM over the tokens written so far. The blank stands for the beginning: a zero vector."""

    def __init__(self, config: NetworkConfig, vocabulary: int) -> None:
        super().__init__()
        dim, layers = config.decoder_dim, config.decoder_layers
        self.embedding = nn.Embedding(vocabulary, dim, padding_idx=BLANK)
        between = config.dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(dim, dim, layers, batch_first=True, dropout=between)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens `(B, U)` -> `(B, U, D)`, and the state after them."""
        embedded = self.dropout(self.embedding(tokens))
        # Processors without AVX-512 have no LSTM of low precision in oneDNN; CUDA is not meant.
        with torch.autocast("cpu", enabled=False):
            x, state = self.lstm(embedded, state)
        return self.dropout(x), state


class JointNetwork(nn.Module):
    """logits = W tanh(source + target), of the projected encoder and prediction outputs."""

    def __init__(self, config: NetworkConfig, vocabulary: int) -> None:
        super().__init__()
        self.source = nn.Linear(config.encoder_dim, config.joint_dim)
        self.target = nn.Linear(config.decoder_dim, config.joint_dim, bias=False)  # source has one
        self.output = nn.Linear(config.joint_dim, vocabulary)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Two tensors `(..., J)` that broadcast -> logits `(..., V)`."""
        return self.output((source + target).tanh_())  # in place: it is the largest tensor


class Transducer(nn.Module):
    """Prediction and joint network, their loss, and greedy and beam search."""

    def __init__(self, config: NetworkConfig, vocabulary: int) -> None:
        super().__init__()
        self.prediction = PredictionNetwork(config, vocabulary)
        self.joint = JointNetwork(config, vocabulary)
        self.widest = max(config.joint_dim, vocabulary)

    def forward(self, memory: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        """Teacher-forced logits of each frame after each prefix.

        memory `(B, T, E)`, tokens `(B, U+1)` that begin with the blank -> `(B, T, U+1, V)`.
        """
        del lengths  # each frame is seen by itself, so padding may have any value
        source, target = self._project(memory, tokens)
        return self.joint(source[:, :, None], target[:, None])

    def loss(
        self, memory: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> Tensor:
        """Negative log likelihood of the tokens, summed over the batch and divided by B.

        memory `(B, T, E)`, tokens `(B, U)` with any negative value in the padding. The lengths are
        read on the host, as torchaudio's loss does too: it wants tensors without spare padding.
        """
        tokens = tokens.clamp(min=BLANK)
        source, target = self._project(memory, functional.pad(tokens, (1, 0), value=BLANK))
        slices = list(self._slices(lengths.tolist(), token_lengths.tolist()))
        total = memory.new_zeros((), dtype=torch.float32)
        for rows, frames, length in slices:
            part = (
                source[rows, :frames],
                target[rows, : length + 1],
                tokens[rows, :length],
                lengths[rows],
                token_lengths[rows],
            )
            if len(slices) == 1:
                total = total + self._walks(*part)
            else:
                total = total + checkpoint(
                    self._walks, *part, use_reentrant=False, preserve_rng_state=False
                )
        return total / memory.shape[0]

    @torch.no_grad()
    def decode(self, memory: Tensor, lengths: Tensor) -> list[list[int]]:
        """Greedy decoding of a batch: the most likely step of each walk, until the last frame.

        memory `(B, T, E)` -> B lists of tokens. Label looping (Xu et al. 2024, arXiv 2406.06220):
        all utterances skip their blanks first and then write one token each, so that the prediction
        network runs once per token and not once per step.
        """
        source = self.joint.source(memory)  # (B, T, J)
        rows = torch.arange(len(source), device=source.device)
        time, here = torch.zeros_like(lengths), torch.zeros_like(lengths)  # tokens on this frame
        best = torch.full_like(lengths, BLANK)
        target, state = self._predict(best)
        written, running = [], []
        while True:
            skipping = time < lengths
            while skipping.any():
                frame = source[rows, time.clamp(max=source.shape[1] - 1)]
                best = self.joint(frame, target).argmax(dim=-1)
                skipping = (best == BLANK) & (time < lengths)
                time = time + skipping
                here = here.masked_fill(skipping, 0)
            found = time < lengths
            if not found.any():
                break
            written.append(best)
            running.append(found)
            here = here + 1
            full = here == SYMBOLS_PER_FRAME
            time, here = time + full, here.masked_fill(full, 0)
            target, state = self._predict(best, state)
        if not written:
            return [[] for _ in rows]
        table, counts = torch.stack(written, dim=1), torch.stack(running).sum(dim=0)
        return [row[:count] for row, count in zip(table.tolist(), counts.tolist(), strict=True)]

    @torch.no_grad()
    def beam_search(self, memory: Tensor, lengths: Tensor, beam: int) -> list[Hypothesis]:
        """The most likely transcript of each utterance among those that a beam of walks reaches.

        memory `(B, T, E)`. With a beam of one it is greedy decoding, save that greedy decoding
        leaves a frame after `SYMBOLS_PER_FRAME` tokens, and this only bounds the whole transcript,
        by as many tokens for each frame.
        """
        source = self.joint.source(memory)  # (B, T, J)
        return [
            self._search(frames[:length], beam)
            for frames, length in zip(source, lengths.tolist(), strict=True)
        ]

    def _project(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What encoder and prediction network say to the joint one: `(B, T, J)`, `(B, U+1, J)`."""
        return self.joint.source(memory), self.joint.target(self.prediction(tokens)[0])

    def _slices(self, frames: list[int], lengths: list[int]) -> Iterator[tuple[slice, int, int]]:
        """Cut a batch so that no tensor of the joint network exceeds `SLICE_VALUES`.

        Yields the utterances of a slice, its most frames and its most tokens.
        """
        start, most_frames, most_tokens = 0, frames[0], lengths[0]
        for row in range(1, len(frames)):
            longer, more = max(most_frames, frames[row]), max(most_tokens, lengths[row])
            if (row + 1 - start) * longer * (more + 1) * self.widest > SLICE_VALUES:
                yield slice(start, row), most_frames, most_tokens
                start, longer, more = row, frames[row], lengths[row]
            most_frames, most_tokens = longer, more
        yield slice(start, len(frames)), most_frames, most_tokens

    def _walks(
        self, source: Tensor, target: Tensor, tokens: Tensor, lengths: Tensor, counts: Tensor
    ) -> Tensor:
        """Negative log of the sum over all walks, summed over utterances.

        source `(B, T, J)`, target `(B, U+1, J)`, tokens `(B, U)` with as many as the longest has.
        """
        from torchaudio.functional import rnnt_loss  # a library that no other decoder needs

        logits = self.joint(source[:, :, None], target[:, None])  # (B, T, U+1, V)
        scores = logits.float().log_softmax(dim=-1)
        following = functional.pad(tokens, (0, 1), value=BLANK)[:, None, :, None]  # the last: any
        label = scores.gather(-1, following.expand(-1, scores.shape[1], -1, -1))
        # A walk only ever takes the blank or the next token. As a vocabulary of these two, the
        # problem is a third of the work on the CPU, and the kernel's limit of 2**31 values is far.
        steps = torch.cat((scores[..., BLANK : BLANK + 1], label), dim=-1)  # (B, T, U+1, 2)
        given: tuple[Tensor, ...] = (
            steps,
            torch.ones_like(tokens, dtype=torch.int32),
            lengths.int(),
            counts.int(),
        )
        if torch.are_deterministic_algorithms_enabled():
            given = tuple(tensor.cpu() for tensor in given)  # of CUDA's kernel it is not known
        loss = rnnt_loss(*given, blank=0, reduction="sum", fused_log_softmax=False)
        return loss.to(source.device)

    def _predict(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One token for each row `(B,)` -> `(B, J)`, and the state after it."""
        output, state = self.prediction(tokens.unsqueeze(1), state)
        return self.joint.target(output.squeeze(1)), state

    def _search(self, source: Tensor, beam: int) -> Hypothesis:
        """The best transcript of one utterance, source `(T, J)`.

        The search is synchronous in the length of the walk (Saon et al. 2020): a hypothesis that
        has read t frames and written u tokens took t + u steps, so that after each step equal
        prefixes stand on the same frame, and their probabilities are added.
        """
        frames = source.shape[0]
        finished: dict[tuple[int, ...], float] = {}
        live: dict[tuple[int, ...], float] = {(): 0.0}
        target, state = self._predict(source.new_full((1,), BLANK, dtype=torch.long))
        step = 0
        # What is still live can never have more probability than it has together now.
        while live and _log_sum(live.values()) > max(finished.values(), default=-math.inf):
            times = [step - len(prefix) for prefix in live]
            scores = self.joint(source[times], target).float().log_softmax(dim=-1)  # (K, V)
            blanks = scores[:, BLANK].tolist()
            scores[:, BLANK] = -math.inf
            best = scores.topk(min(beam, scores.shape[1] - 1), dim=-1)
            grown: dict[tuple[int, ...], list[float]] = {}
            origin: dict[tuple[int, ...], tuple[int, int]] = {}  # hypothesis, token
            for row, (prefix, score) in enumerate(live.items()):
                steps = [(BLANK, blanks[row])]
                if len(prefix) < SYMBOLS_PER_FRAME * frames:
                    steps += zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)
                for token, gain in steps:
                    reached = prefix if token == BLANK else (*prefix, token)
                    grown.setdefault(reached, []).append(score + gain)
                    origin[reached] = row, token
            merged = {prefix: _log_sum(parts) for prefix, parts in grown.items()}
            kept = sorted(merged, key=merged.__getitem__, reverse=True)[:beam]
            step += 1
            ended = {prefix: merged[prefix] for prefix in kept if step - len(prefix) == frames}
            finished.update(ended)
            live = {prefix: merged[prefix] for prefix in kept if prefix not in ended}
            if live:
                target, state = self._follow([origin[p] for p in live], target, state)
        winner = max(finished, key=finished.__getitem__)
        return Hypothesis(tokens=list(winner), log_probability=finished[winner])

    def _follow(
        self, steps: list[tuple[int, int]], target: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """The prediction network after steps, each of a hypothesis (its row) and a token."""
        rows, tokens = torch.tensor(steps, device=target.device).unbind(dim=1)
        target, before = target[rows], (state[0][:, rows], state[1][:, rows])
        ahead, after = self._predict(tokens, before)
        wrote = (tokens != BLANK).unsqueeze(1)
        hidden, cell = (torch.where(wrote, a, b) for a, b in zip(after, before, strict=True))
        return torch.where(wrote, ahead, target), (hidden, cell)


def _log_sum(scores: Iterable[float]) -> float:
    """log Σ exp."""
    values = list(scores)
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))
