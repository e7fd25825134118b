"""The attention decoder (Vaswani et al. 2017), ESPnet's `TransformerDecoder`.

A decoder has `loss` and `decode`. To add one, write it in a file of its own and add a line to
`DECODERS` in `model/recogniser.py`.

Shapes: `B` batch, `T` encoder frames, `E` encoder_dim, `D` decoder_dim, `U` tokens, `V` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from model.attention import KeyValue, MultiHeadAttention, hidden
from model.config import NetworkConfig
from model.dropout import Dropout
from model.encoder import LAYER_NORM_EPS, FeedForward, valid_frames
from model.positions import AbsolutePositions

IGNORED = -1
"""Padding of target tokens."""


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's output, feed-forward; normalised before each."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim, heads = config.decoder_dim, config.decoder_heads
        hidden = config.decoder_feed_forward_ratio * dim
        self.norm_self = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.self_attention = MultiHeadAttention(dim, heads, config.attention_dropout)
        self.norm_source = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.source_attention = MultiHeadAttention(dim, heads, config.attention_dropout)
        self.norm_feed_forward = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(dim, hidden, nn.ReLU(), config.dropout)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        past: KeyValue,
        causal: Tensor | None,
        source: KeyValue,
        source_mask: Tensor | None,
    ) -> Tensor:
        """x `(B, U, D)` -> `(B, U, D)`; `past` is extended by the keys and values of x.

        With a token of K hypotheses for each utterance, x is `(B K, 1, D)` and source has B rows.
        """
        y = self.norm_self(x)
        keys, values = past.extend(*self.self_attention.project_memory(y))
        x = x + self.dropout(self.self_attention(y, keys, values, causal))
        y = self.norm_source(x)
        # The hypotheses of an utterance ask the same frames: its queries are put side by side.
        y = y.reshape(cast(Tensor, source.keys).shape[0], -1, x.shape[2])
        y = self.source_attention(y, source.keys, source.values, source_mask).reshape_as(x)
        x = x + self.dropout(y)
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


class AttentionDecoder(nn.Module):
    """Reads the encoder's output while it writes tokens, one after the other.

    The last token of the vocabulary both begins and ends a sentence, as in ESPnet.
    """

    def __init__(self, config: NetworkConfig, vocabulary: int) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.boundary = vocabulary - 1  # <sos/eos>
        self.label_smoothing = config.label_smoothing
        self.scale = math.sqrt(dim)
        self.projection = (
            nn.Identity() if config.encoder_dim == dim else nn.Linear(config.encoder_dim, dim)
        )
        self.embedding = nn.Embedding(vocabulary, dim)
        if config.embedding_init == "scaled":
            nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.positions = AbsolutePositions(dim)
        self.dropout = Dropout(config.positional_dropout)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.output = nn.Linear(dim, vocabulary)

    def forward(self, memory: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        """Teacher-forced logits.

        memory `(B, T, E)` with lengths `(B,)`, tokens `(B, U)` that begin with the boundary ->
        `(B, U, V)`. A position sees only the tokens up to itself, so padding may have any value.
        """
        sources, source_mask = self.sources(memory, lengths)
        length = tokens.shape[1]
        causal = hidden(torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril())
        pasts = [KeyValue() for _ in self.layers]
        return self.step(tokens, pasts, causal, sources, source_mask)

    def loss(
        self, memory: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> Tensor:
        """Label-smoothed Kullback-Leibler divergence, summed over tokens and divided by B.

        memory `(B, T, E)`, tokens `(B, U)` padded with `IGNORED`. ESPnet's `LabelSmoothingLoss`:
        the target has 1 - s on the label and s / (V - 1) on each other entry of the vocabulary.
        """
        del token_lengths  # the padding says it
        inputs, targets = self._shift(tokens)
        log_probabilities = self(memory, lengths, inputs).float().log_softmax(dim=-1)  # (B, U+1, V)
        real = targets != IGNORED
        label = log_probabilities.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        smoothing, others = self.label_smoothing, log_probabilities.shape[-1] - 1
        if smoothing == 0:
            divergence = -label
        else:
            spread = smoothing / others
            entropy = (1 - smoothing) * math.log(1 - smoothing) + smoothing * math.log(spread)
            rest = log_probabilities.sum(dim=-1) - label
            divergence = entropy - (1 - smoothing) * label - spread * rest
        return divergence.masked_fill(~real, 0.0).sum() / memory.shape[0]

    @torch.no_grad()
    def decode(self, memory: Tensor, lengths: Tensor) -> list[list[int]]:
        """Greedy decoding of a batch: the most likely token at each step, until the boundary.

        memory `(B, T, E)` -> B lists of tokens, none longer than its utterance has frames.
        """
        sources, source_mask = self.sources(memory, lengths)
        pasts = [KeyValue() for _ in self.layers]
        hypotheses: list[list[int]] = [[] for _ in range(memory.shape[0])]
        running = list(range(memory.shape[0]))  # rows of the batch that still grow
        limits = lengths.tolist()
        tokens = memory.new_full((len(running), 1), self.boundary, dtype=torch.long)
        for step in range(max(limits)):
            logits = self.step(tokens, pasts, None, sources, source_mask, start=step)
            best = logits[:, -1].argmax(dim=-1)  # (rows,)
            keep = []
            for position, token in enumerate(best.tolist()):
                row = running[position]
                if token != self.boundary:
                    hypotheses[row].append(token)
                    if len(hypotheses[row]) < limits[row]:
                        keep.append(position)
            if not keep:
                break
            if len(keep) < len(running):
                rows = torch.tensor(keep, device=memory.device)
                for state in (*pasts, *sources):
                    state.select(rows)
                best, source_mask = best[rows], source_mask[rows]
                running = [running[position] for position in keep]
            tokens = best.unsqueeze(1)
        return hypotheses

    def sources(self, memory: Tensor, lengths: Tensor) -> tuple[list[KeyValue], Tensor]:
        """Each layer's keys and values of the encoder's output, and the mask `(B, 1, 1, T)`."""
        memory = self.projection(memory)
        sources = []
        for layer in cast(Iterable[DecoderLayer], self.layers):
            source = KeyValue()
            source.extend(*layer.source_attention.project_memory(memory))
            sources.append(source)
        return sources, hidden(valid_frames(lengths, memory.shape[1]))[:, None, None, :]

    def step(
        self,
        tokens: Tensor,
        pasts: list[KeyValue],
        causal: Tensor | None,
        sources: list[KeyValue],
        source_mask: Tensor,
        start: int = 0,
    ) -> Tensor:
        """Logits `(B, U, V)` of tokens `(B, U)`, the first at position `start`; extends `pasts`.

        While decoding, U is 1 and nothing is to be hidden (`causal` is None). Tokens `(B K, 1)`
        beside sources of B utterances are those of K hypotheses each, utterance by utterance.
        """
        x = self.embedding(tokens) * self.scale + self.positions(tokens.shape[1], start)
        x = self.dropout(x)  # (B, U, D)
        for layer, past, source in zip(self.layers, pasts, sources, strict=True):
            x = layer(x, past, causal, source, source_mask)
        return self.output(self.norm(x))

    def _shift(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder reads (boundary first) and what it should write (boundary last)."""
        edge = tokens.new_full((tokens.shape[0], 1), self.boundary)
        padding = tokens == IGNORED
        inputs = torch.cat((edge, tokens.masked_fill(padding, self.boundary)), dim=1)
        targets = torch.cat((tokens, tokens.new_full(edge.shape, IGNORED)), dim=1)
        ends = (~padding).sum(dim=1, keepdim=True)
        return inputs, targets.scatter(1, ends, edge)
