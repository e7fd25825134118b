"""The whole network: log-mel features in, losses and transcripts out.

    recogniser = Recogniser(NetworkConfig(...), mels=80, vocabulary=500)
    losses = recogniser(features, lengths, tokens, token_lengths)
    losses.total.backward()

The loss is ESPnet's hybrid (Watanabe et al. 2017): ctc_weight · CTC + (1 - ctc_weight) · decoder.

Shapes: `B` batch, `T` frames, `F` mels, `T'` encoder frames, `D` encoder_dim, `U` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.beam_search import beam_search
from model.config import Decoding, NetworkConfig, decoding_conflicts
from model.ctc import CTC
from model.decoder import AttentionDecoder
from model.encoder import ConformerEncoder
from model.subsampling import subsampled_length
from model.transducer import Transducer

DECODERS: dict[str, type[AttentionDecoder | Transducer]] = {
    "attention": AttentionDecoder,
    "transducer": Transducer,
}


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of a batch, each divided by the number of utterances."""

    total: Tensor
    ctc: Tensor | None
    """None where the network has no CTC branch."""
    decoder: Tensor


@dataclass(frozen=True, kw_only=True)
class Transcripts:
    """Transcripts of a batch, as tokens."""

    decoder: list[list[int]]
    """By the decoder: greedy, or the best of a beam search, to which CTC may contribute."""
    ctc: list[list[int]] | None
    """By CTC alone, greedy; None where the network has no CTC branch."""


class Recogniser(nn.Module):
    """Normalisation, Conformer encoder, CTC and a decoder."""

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: NetworkConfig, *, mels: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = ConformerEncoder(config, mels)
        self.decoder = DECODERS[config.decoder](config, vocabulary)
        self.ctc = CTC(config.encoder_dim, vocabulary) if config.ctc_weight > 0 else None
        self.register_buffer("feature_mean", torch.zeros(mels))
        self.register_buffer("feature_std", torch.ones(mels))

    def set_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Normalise features by the mean and the standard deviation `(F,)` of the training split.

        They are part of the network (and of its checkpoints), so that whoever has the network needs
        nothing else to feed it.
        """
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)

    def encode(
        self, features: Tensor, lengths: Tensor, *, ragged: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Log-mel features `(B, T, F)`, lengths `(B,)` -> `(B, T', D)` and lengths `(B,)`."""
        normalised = (features - self.feature_mean) / self.feature_std
        return self.encoder(normalised, lengths, ragged=ragged)

    def losses(
        self,
        memory: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        on_host: tuple[Tensor, Tensor] | None = None,
    ) -> Losses:
        """The losses of encoded utterances; tokens `(B, U)` padded with -1.

        `on_host` is both lengths again, on the host, where CTC's kernel reads them: it would wait
        for a GPU to get them from there.
        """
        decoder = self.decoder.loss(memory, lengths, tokens, token_lengths)
        if self.ctc is None:
            return Losses(total=decoder, ctc=None, decoder=decoder)
        frames, counts = on_host or (lengths, token_lengths)
        ctc = self.ctc.loss(memory, frames, tokens, counts)
        weight = self.config.ctc_weight
        return Losses(total=weight * ctc + (1 - weight) * decoder, ctc=ctc, decoder=decoder)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        *,
        ragged: bool = True,
        on_host: tuple[Tensor, Tensor] | None = None,
    ) -> Losses:
        """The losses of a batch: features `(B, T, F)`, tokens `(B, U)` padded with -1.

        `on_host` is both lengths again, see `losses`.
        """
        memory, lengths = self.encode(features, lengths, ragged=ragged)
        if on_host is not None:
            on_host = subsampled_length(on_host[0]), on_host[1]
        return self.losses(memory, lengths, tokens, token_lengths, on_host)

    @torch.no_grad()
    def transcribe(
        self, memory: Tensor, lengths: Tensor, decoding: Decoding | None = None
    ) -> Transcripts:
        """Transcripts of encoded utterances, by the decoder and by CTC alone.

        The decoder is greedy, or with `decoding` a beam search.

        Raises:
            ValueError: where the network cannot decode so.
        """
        return Transcripts(
            decoder=(
                self.decoder.decode(memory, lengths)
                if decoding is None
                else self._search(memory, lengths, decoding)
            ),
            ctc=None if self.ctc is None else self.ctc.decode(memory, lengths),
        )

    def _search(self, memory: Tensor, lengths: Tensor, decoding: Decoding) -> list[list[int]]:
        for name, fault in decoding_conflicts(self.config, decoding):
            raise ValueError(f"{name}: {fault}")
        if isinstance(self.decoder, AttentionDecoder):
            found = beam_search(self.decoder, self.ctc, memory, lengths, decoding)
            return [hypotheses[0].tokens for hypotheses in found]
        searched = self.decoder.beam_search(memory, lengths, decoding.beam_size)
        return [hypothesis.tokens for hypothesis in searched]
