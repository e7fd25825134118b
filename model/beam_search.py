"""Beam search with the attention decoder and CTC together.

    found = beam_search(decoder, ctc, memory, lengths, Decoding(beam_size=10, ctc_weight=0.3))
    found[0][0].tokens  # of the first utterance, the best

A hypothesis h, the tokens written so far, scores

    (1 - ctc_weight) · log p_attention(h) + ctc_weight · log p_ctc(h ...) + penalty · length

where p_ctc(h ...) is the probability that a transcript begins with h, or is h once h has ended
(Watanabe et al. 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition",
algorithm 2; Hori et al. 2017, arXiv 1706.02737). What is searched, and where the search ends, is as
in ESPnet's `BeamSearch` with `CTCPrefixScorer`; here all hypotheses of all utterances of a batch
grow together, and the recursion over frames is a cumulative sum.

Shapes: `B` utterances, `K` hypotheses of each, `S` tokens that are tried after each, `T` encoder
frames, `U` tokens, `V` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from model.attention import KeyValue
from model.config import Decoding
from model.ctc import BLANK, CTC
from model.decoder import AttentionDecoder
from model.encoder import valid_frames

PRE_BEAM_RATIO = 1.5
"""CTC scores the tokens that the attention decoder likes best: this many times the beam size."""
CTC_WEIGHT = 0.3
"""Share of CTC in the score where none is chosen; ESPnet's recipes have it."""
BEAM_VALUES = 2**28
"""Most values of all hypotheses together, about: 1 GiB of float32. A batch that would need more is
searched in parts."""
IMPOSSIBLE = -1e10
"""Logarithm of a probability of zero, finite so that differences of two are defined; ESPnet's."""
HOPELESS = 10.0
"""By how much the ends of a length fall short of the best end where longer ones are hopeless."""
HOPELESS_LENGTHS = 3
"""Lengths in a row that must be hopeless before the search ends."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A transcript that beam search found."""

    tokens: list[int]
    """Without the boundary at its beginning and its end."""
    score: float
    """Weighted logarithms of probabilities; the end of the sentence counts, if it was chosen."""


class CTCPrefixScorer:
    """The probability by CTC that a transcript begins with a hypothesis.

    It keeps, for each hypothesis and each number of frames, the probability that these frames
    write it, apart by whether the last of them writes a token or a blank. In float64, since
    a cumulative sum over all frames is taken from another.
    """

    def __init__(
        self, log_probabilities: Tensor, lengths: Tensor, *, beam_size: int, boundary: int
    ) -> None:
        """Begin with empty hypotheses; log_probabilities `(B, T, V)`, lengths `(B,)`."""
        batch, frames, _ = log_probabilities.shape
        padding = ~valid_frames(lengths, frames)
        # Padding writes blanks for certain, so that what the last frame says stays as it is.
        scores = log_probabilities.masked_fill(padding.unsqueeze(2), IMPOSSIBLE)
        scores[:, :, BLANK] = scores[:, :, BLANK].masked_fill(padding, 0.0)
        self.scores = scores.transpose(1, 2).contiguous()  # (B, V, T)
        self.boundary = boundary
        blanks = functional.pad(self.scores[:, BLANK].double().cumsum(dim=-1), (1, 0))
        self.blank = blanks.unsqueeze(1).expand(-1, beam_size, -1)  # (B, K, T+1)
        self.token = torch.full_like(self.blank, IMPOSSIBLE)  # (B, K, T+1)
        self.last = lengths.new_full((batch, beam_size), boundary)

    def score(self, candidates: Tensor) -> Tensor:
        """Log probabilities `(B, K, S)` of each hypothesis with one of `(B, K, S)` tokens after it.

        With the boundary after it, the hypothesis is the whole transcript.
        """
        either = torch.logaddexp(self.token, self.blank)
        written = self._emissions(candidates)  # (B, K, S, T)
        begun = (either[:, :, None, :-1] + written).logsumexp(dim=-1)
        # Between two equal tokens CTC needs a blank.
        repeated = (self.blank[..., :-1] + self._emissions(self.last)).logsumexp(dim=-1)
        begun = torch.where(candidates == self.last.unsqueeze(2), repeated.unsqueeze(2), begun)
        begun = begun.masked_fill(candidates == BLANK, IMPOSSIBLE)
        return torch.where(candidates == self.boundary, either[..., -1:], begun)

    def advance(self, parents: Tensor, tokens: Tensor) -> None:
        """Replace the hypotheses by their parents `(B, K)` with a token `(B, K)` after each."""
        frames = parents.unsqueeze(2).expand(-1, -1, self.blank.shape[2])
        token, blank = self.token.gather(1, frames), self.blank.gather(1, frames)
        repeats = tokens == self.last.gather(1, parents)
        before = torch.where(repeats.unsqueeze(2), blank, torch.logaddexp(token, blank))
        before = before.masked_fill((tokens == BLANK).unsqueeze(2), IMPOSSIBLE)
        self.token = _stay_or_come(before, self._emissions(tokens))
        self.blank = _stay_or_come(self.token, self.scores[:, None, BLANK].double())
        self.last = tokens

    def select(self, rows: Tensor) -> None:
        """Keep only these utterances of the batch."""
        self.scores, self.last = self.scores[rows], self.last[rows]
        self.token, self.blank = self.token[rows], self.blank[rows]

    def _emissions(self, tokens: Tensor) -> Tensor:
        """Log probability of tokens `(B, ...)` at each frame: `(B, ..., T)`."""
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.scores[rows.view(-1, *[1] * (tokens.dim() - 1)), tokens].double()


def _stay_or_come(before: Tensor, emissions: Tensor) -> Tensor:
    """The recursion over frames of CTC's forward probabilities, in closed form.

    after[t] = log(exp after[t-1] + exp before[t-1]) + emissions[t], and after[0] is impossible:
    before `(B, K, T+1)`, emissions `(B, K or 1, T)` of frames 1 to T -> `(B, K, T+1)`.
    """
    sums = functional.pad(emissions.cumsum(dim=-1), (1, 0))
    after = (before - sums)[..., :-1].logcumsumexp(dim=-1) + sums[..., 1:]
    return functional.pad(after, (1, 0), value=IMPOSSIBLE)


class _Beam:
    """The hypotheses of a batch while they grow; one that has ended scores minus infinity."""

    def __init__(
        self,
        decoder: AttentionDecoder,
        ctc: CTC | None,
        memory: Tensor,
        lengths: Tensor,
        decoding: Decoding,
    ) -> None:
        size, vocabulary = decoding.beam_size, decoder.boundary + 1
        self.decoder = decoder
        self.decoding = decoding
        self.sources, self.source_mask = decoder.sources(memory, lengths)
        self.pasts = [KeyValue() for _ in decoder.layers]
        self.prefixes = lengths.new_full((len(lengths), size, 1), decoder.boundary)  # (B, K, U)
        # By all but CTC. At first there is one hypothesis, the empty one.
        self.scores = memory.new_full((len(lengths), size), -math.inf, dtype=torch.float64)
        self.scores[:, 0] = 0.0
        self.ctc = None
        self.ctc_weight = _ctc_weight(ctc, decoding)
        self.tried = min(size, vocabulary)
        if ctc is not None and self.ctc_weight > 0:
            self.ctc = CTCPrefixScorer(
                ctc.log_probabilities(memory), lengths, beam_size=size, boundary=decoder.boundary
            )
            whole = self.ctc_weight == 1  # the attention decoder likes none best
            self.tried = vocabulary if whole else min(int(PRE_BEAM_RATIO * size), vocabulary)

    def grow(self, step: int) -> Tensor:
        """Replace the hypotheses by the best with one more token; returns their scores `(B, K)`."""
        size, weight = self.decoding.beam_size, self.ctc_weight
        logits = self.decoder.step(
            self.prefixes[:, :, -1:].flatten(0, 1),  # (B K, 1)
            self.pasts,
            None,
            self.sources,
            self.source_mask,
            start=step,
        )
        gains = logits[:, -1].float().log_softmax(dim=-1).unflatten(0, (-1, size))  # (B, K, V)
        gains = (1 - weight) * gains + self.decoding.penalty
        candidates = gains.topk(self.tried, dim=-1).indices  # (B, K, S)
        scores = self.scores.unsqueeze(2) + gains.gather(2, candidates)
        totals = scores
        if self.ctc is not None:
            totals = scores + weight * self.ctc.score(candidates)
        best, places = totals.flatten(1).topk(size, dim=-1)  # (B, K) of K S
        parents = places // self.tried
        tokens = candidates.flatten(1).gather(1, places)
        self.scores = scores.flatten(1).gather(1, places)
        self._follow(parents, tokens)
        return best

    def select(self, rows: Tensor) -> None:
        """Keep only these utterances of the batch."""
        size = self.decoding.beam_size
        slots = torch.arange(size, device=rows.device)
        for past in self.pasts:
            past.select((rows.unsqueeze(1) * size + slots).flatten())
        for source in self.sources:
            source.select(rows)
        self.source_mask, self.prefixes = self.source_mask[rows], self.prefixes[rows]
        self.scores = self.scores[rows]
        if self.ctc is not None:
            self.ctc.select(rows)

    def _follow(self, parents: Tensor, tokens: Tensor) -> None:
        """What is remembered of hypotheses: that of their parents, and of one more token."""
        batch, size = parents.shape
        first = torch.arange(0, batch * size, size, device=parents.device)
        for past in self.pasts:
            past.select((first.unsqueeze(1) + parents).flatten())
        rows = parents.unsqueeze(2).expand(-1, -1, self.prefixes.shape[2])
        self.prefixes = torch.cat((self.prefixes.gather(1, rows), tokens.unsqueeze(2)), dim=2)
        if self.ctc is not None:
            self.ctc.advance(parents, tokens)


class _Ends:
    """When the search of an utterance has nothing more to find (equation 50 of Watanabe et al.)."""

    def __init__(self, batch: int, device: torch.device) -> None:
        lengths = HOPELESS_LENGTHS + 2  # ESPnet waits for two more tokens
        self.recent = torch.full(
            (batch, lengths), -math.inf, dtype=torch.float64, device=device
        )  # the best end of each length, the latest first
        self.best = self.recent[:, 0]

    def add(self, scores: Tensor) -> Tensor:
        """Whether longer hypotheses are hopeless `(B,)`, given what just ended `(B, K)`."""
        latest = scores.amax(dim=1, keepdim=True)
        self.recent = torch.cat((latest, self.recent[:, :-1]), dim=1)
        self.best = self.best.maximum(latest.squeeze(1))
        older = self.recent[:, -HOPELESS_LENGTHS:]
        return (older.isfinite() & (older - self.best.unsqueeze(1) < -HOPELESS)).all(dim=1)

    def select(self, rows: Tensor) -> None:
        """Keep only these utterances of the batch."""
        self.recent, self.best = self.recent[rows], self.best[rows]


@torch.no_grad()
def beam_search(
    decoder: AttentionDecoder,
    ctc: CTC | None,
    memory: Tensor,
    lengths: Tensor,
    decoding: Decoding,
) -> list[list[Hypothesis]]:
    """The transcripts that ended, of each utterance, the best first; at least one of each.

    memory `(B, T, E)` with lengths `(B,)`; what stands in the padding has no part in it.

    Raises:
        ValueError: if CTC should have a weight and there is none.
    """
    if ctc is None and decoding.ctc_weight:
        raise ValueError(
            f"ctc_weight is {decoding.ctc_weight:g}, and the network has no CTC branch: set it to 0"
        )
    found: list[list[Hypothesis]] = [[] for _ in lengths]
    together = _together(decoder, ctc, memory, decoding)
    for start in range(0, len(found), together):
        some = slice(start, start + together)
        for utterance, hypothesis in _search(decoder, ctc, memory[some], lengths[some], decoding):
            found[start + utterance].append(hypothesis)
    short = [utterance for utterance, hypotheses in enumerate(found) if not hypotheses]
    if short:
        rows = torch.tensor(short, device=memory.device)
        lower = replace(decoding, minlenratio=max(0.0, decoding.minlenratio - 0.1))
        again = beam_search(decoder, ctc, memory[rows], lengths[rows], lower)
        for utterance, hypotheses in zip(short, again, strict=True):
            found[utterance] = hypotheses
    return [sorted(hypotheses, key=lambda h: h.score, reverse=True) for hypotheses in found]


def _search(
    decoder: AttentionDecoder,
    ctc: CTC | None,
    memory: Tensor,
    lengths: Tensor,
    decoding: Decoding,
) -> Iterator[tuple[int, Hypothesis]]:
    """Each hypothesis as it ends, and the utterance that it is of."""
    frames = lengths.tolist()
    most = torch.tensor([_most_tokens(count, decoding) for count in frames], device=memory.device)
    fewest = torch.tensor([_fewest_tokens(count, decoding) for count in frames]).to(most)
    utterances = torch.arange(len(frames), device=memory.device)
    beam = _Beam(decoder, ctc, memory, lengths, decoding)
    ends = _Ends(len(frames), memory.device)
    for step in range(int(most.max())):
        totals = beam.grow(step)
        last = most == step + 1  # what has not ended here ends without a score for it
        ended = (beam.prefixes[:, :, -1] == decoder.boundary) | last.unsqueeze(1)
        kept = ended & totals.isfinite() & (fewest <= step).unsqueeze(1)
        yield from _ended(utterances, beam.prefixes, totals, kept)
        beam.scores = beam.scores.masked_fill(ended, -math.inf)
        hopeless = ends.add(totals.masked_fill(~kept, -math.inf))
        running = beam.scores.isfinite().any(dim=1)
        if decoding.maxlenratio == 0:
            running &= ~hopeless
        rows = running.nonzero().squeeze(1)
        if len(rows) == 0:
            break
        if len(rows) < len(utterances):
            beam.select(rows)
            ends.select(rows)
            utterances, most, fewest = utterances[rows], most[rows], fewest[rows]


def _ended(
    utterances: Tensor, prefixes: Tensor, totals: Tensor, kept: Tensor
) -> Iterator[tuple[int, Hypothesis]]:
    """The hypotheses that a mask `(B, K)` tells."""
    rows = kept.nonzero(as_tuple=True)
    boundary = int(prefixes[0, 0, 0])
    numbers = utterances[rows[0]].tolist()
    for utterance, written, score in zip(
        numbers, prefixes[rows].tolist(), totals[rows].tolist(), strict=True
    ):
        end = -1 if written[-1] == boundary else None
        yield utterance, Hypothesis(tokens=written[1:end], score=score)


def _ctc_weight(ctc: CTC | None, decoding: Decoding) -> float:
    """The share of CTC in the score."""
    if decoding.ctc_weight is None:
        return 0.0 if ctc is None else CTC_WEIGHT
    return decoding.ctc_weight


def _together(
    decoder: AttentionDecoder, ctc: CTC | None, memory: Tensor, decoding: Decoding
) -> int:
    """How many utterances are searched at once: as many as `BEAM_VALUES` allow, one at least.

    Counted are the keys and values of hypotheses as long as there are frames, and what CTC scores.
    """
    size, frames, vocabulary = decoding.beam_size, memory.shape[1], decoder.boundary + 1
    remembered = 2 * len(decoder.layers) * decoder.embedding.embedding_dim
    weight = _ctc_weight(ctc, decoding)
    scored = 0 if weight == 0 else vocabulary if weight == 1 else int(PRE_BEAM_RATIO * size)
    return max(1, BEAM_VALUES // (size * (frames * (remembered + 2 * scored) + vocabulary)))


def _most_tokens(frames: int, decoding: Decoding) -> int:
    ratio = decoding.maxlenratio
    if ratio < 0:
        return -int(ratio)
    return max(1, int(ratio * frames)) if ratio > 0 else frames


def _fewest_tokens(frames: int, decoding: Decoding) -> int:
    ratio = decoding.minlenratio
    return -int(ratio) if ratio < 0 else int(ratio * frames)
