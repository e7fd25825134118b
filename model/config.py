"""Everything that can be chosen about the network, and about decoding with it.

The first six fields are the questions of a study: the columns of Table 1 in the
Conformer paper (Gulati et al. 2020, arXiv 2005.08100). The others stay fixed unless a
study searches them too: any numeric field may stand under `search:` in study.yaml.

This file imports no torch, so that a configuration is read and refused quickly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Lt

SHAPE = (
    "encoder_layers",
    "encoder_dim",
    "attention_heads",
    "conv_kernel_size",
    "decoder_layers",
    "decoder_dim",
)
"""The six fields that a study asks about."""

Count = Annotated[int, Ge(1)]
Probability = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of a Conformer recogniser. Defaults are ESPnet's LibriSpeech-100 recipe."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    encoder_layers: Count = 12
    """Conformer blocks."""
    encoder_dim: Annotated[int, Ge(2)] = 256
    """Width of the encoder; even, and divisible by `attention_heads`."""
    attention_heads: Count = 4
    """Heads of the encoder's self-attention."""
    conv_kernel_size: Count = 31
    """Frames that a depthwise convolution sees (each 40 ms apart); odd."""
    decoder_layers: Count = 6
    """Layers of the decoder: of a Transformer, or of the transducer's LSTM."""
    decoder_dim: Annotated[int, Ge(2)] = 256
    """Width of the decoder; for `attention` even, and divisible by `decoder_heads`."""

    decoder: Literal["attention", "transducer"] = "attention"
    """`attention`: a Transformer decoder, as in ESPnet's recipes. `transducer`: an LSTM and a joint
    network, as in the Conformer paper. CTC is trained along with either, see `ctc_weight`."""
    decoder_heads: Count = 4
    """Heads of the decoder's self-attention and source attention; `attention` only."""
    encoder_feed_forward_ratio: Count = 4
    """Hidden width of the encoder's feed-forward modules, in units of `encoder_dim`."""
    decoder_feed_forward_ratio: Count = 8
    """Hidden width of the decoder's feed-forward modules, in units of `decoder_dim`; `attention`
    only."""
    joint_dim: Count = 640
    """Width of the network that joins encoder and LSTM; `transducer` only."""
    subsampling_channels: Count | None = None
    """Channels of the two convolutions that reduce the frame rate; null: `encoder_dim`."""
    position: Literal["rel_pos", "legacy_rel_pos", "clipped", "absolute"] = "rel_pos"
    """How the encoder knows where a frame is. `rel_pos`: sinusoids of distances in each attention,
    as in the paper. `legacy_rel_pos`: what ESPnet's recipes train that do not set `rel_pos_type`,
    wrong to the right of a frame and dependent on padding; for comparing with those recipes.
    `clipped`: a learned vector per distance up to `position_clip`. `absolute`: sinusoids added to
    the frames."""
    position_clip: Count = 16
    """Frames beyond which `clipped` positions tell distances no longer apart."""
    macaron: bool = True
    """A half-step feed-forward module before and after attention and convolution."""
    batch_norm: Literal["valid", "espnet"] = "valid"
    """Frames whose mean and variance BatchNorm takes in training. `valid`: those of utterances, so
    that padding changes nothing. `espnet`: padding too, as in ESPnet; for comparing with it."""
    dropout: Probability = 0.1
    """Dropout inside and after each module of encoder and decoder."""
    attention_dropout: Probability = 0.1
    """Dropout of attention probabilities."""
    positional_dropout: Probability = 0.1
    """Dropout after the positional encoding."""
    stochastic_depth: Probability = 0.0
    """Probability that a training step skips a block (Huang et al. 2016, arXiv 1603.09382)."""
    embedding_init: Literal["normal", "scaled"] = "normal"
    """Token embeddings: `normal` is N(0, 1) as in ESPnet, `scaled` has standard deviation
    decoder_dim ** -0.5, which small decoders need; `attention` only (the LSTM reads N(0, 1))."""
    ctc_weight: Probability = 0.3
    """Share of CTC in the loss; the decoder has the rest. 0 builds no CTC branch."""
    label_smoothing: Probability = 0.1
    """Probability mass that the attention loss takes from the label and spreads over the rest;
    `attention` only."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How beam search looks for a transcript: the keys of ESPnet's decode configs.

    The transducer takes `beam_size` alone. `decoding_conflicts` says what does not fit a network.

    Raises:
        ValueError: with one sentence, where a value is out of range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    beam_size: int = 10
    """Hypotheses that are kept at each step; at least 1."""
    ctc_weight: float | None = None
    """Share of CTC in the score, from 0 to 1; the attention decoder has the rest. null: 0.3, or 0
    where the network has no CTC branch."""
    penalty: float = 0.0
    """Added to the score for each token, the end of the sentence included: above 0, longer
    transcripts win."""
    maxlenratio: float = 0.0
    """Most tokens. Above 0: per encoder frame; -1 or less: that many; 0: one per frame, and the
    search ends where longer hypotheses have become hopeless."""
    minlenratio: float = 0.0
    """Fewest tokens. Above 0: per encoder frame; -1 or less: that many. An utterance of which no
    hypothesis is that long is searched again with 0.1 less, down to 0."""

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ValueError(f"beam_size {self.beam_size} is below 1")
        if self.ctc_weight is not None and not 0 <= self.ctc_weight <= 1:
            raise ValueError(f"ctc_weight {self.ctc_weight:g} is not between 0 and 1")
        if not math.isfinite(self.penalty):
            raise ValueError(f"penalty {self.penalty:g} is not finite")
        for name in ("maxlenratio", "minlenratio"):
            value = getattr(self, name)
            if not math.isfinite(value) or -1 < value < 0:
                raise ValueError(
                    f"{name} {value:g} is neither a ratio (0 or above) nor a number of tokens "
                    "(-1 or below)"
                )


READERS = {
    "decoder_heads": ("decoder", "attention"),
    "decoder_feed_forward_ratio": ("decoder", "attention"),
    "embedding_init": ("decoder", "attention"),
    "label_smoothing": ("decoder", "attention"),
    "joint_dim": ("decoder", "transducer"),
    "position_clip": ("position", "clipped"),
}
"""Fields that only one kind of network reads: name -> the field that chooses it, and its value."""


def unread(network: NetworkConfig, name: str) -> str | None:
    """Why a field makes no difference to this network, with the remedy; None if it does."""
    if name not in READERS:
        return None
    chooser, value = READERS[name]
    chosen = getattr(network, chooser)
    if chosen == value:
        return None
    return (
        f"makes no difference with network.{chooser} '{chosen}', only with '{value}': "
        f"take it out, or choose '{value}'"
    )


def conflicts(network: NetworkConfig) -> Iterator[tuple[str, str]]:
    """What makes this combination of values impossible to build.

    Yields pairs of a field's name and a sentence that states the remedy.
    """
    yield from _width_conflict("encoder_dim", network.encoder_dim,
                               "attention_heads", network.attention_heads)  # fmt: skip
    if network.decoder == "attention":
        yield from _width_conflict("decoder_dim", network.decoder_dim,
                                   "decoder_heads", network.decoder_heads)  # fmt: skip
    kernel = network.conv_kernel_size
    if kernel % 2 == 0:
        yield (
            "conv_kernel_size",
            f"conv_kernel_size {kernel} is even, and a symmetric convolution needs an odd one: "
            f"use {kernel - 1} or {kernel + 1}",
        )


def decoding_conflicts(network: NetworkConfig, decoding: Decoding) -> Iterator[tuple[str, str]]:
    """What this network cannot decode with.

    Yields pairs of a field's name and a sentence that states the remedy.
    """
    if network.decoder == "transducer":
        for name in ("ctc_weight", "penalty", "maxlenratio", "minlenratio"):
            if getattr(decoding, name):
                yield name, "the beam search of a transducer has beam_size alone: take it out"
    elif network.ctc_weight == 0 and decoding.ctc_weight:
        yield (
            "ctc_weight",
            f"{decoding.ctc_weight:g} of the score is CTC's, and with network.ctc_weight 0 there "
            "is no CTC branch: take it out",
        )


def _width_conflict(
    width_name: str, width: int, heads_name: str, heads: int
) -> Iterator[tuple[str, str]]:
    step = width_step(heads)
    if width % step:
        reason = f"divisible by {heads_name} {heads}" if width % heads else "even"
        below, above = width // step * step, (width // step + 1) * step
        widths = f"{below} or {above}" if below else f"{above}"
        fewer = max((n for n in range(1, heads) if width % width_step(n) == 0), default=None)
        or_heads = "" if fewer is None else f", or {heads_name} {fewer}"
        yield width_name, f"{width_name} {width} is not {reason}: use {widths}{or_heads}"


def width_step(heads: int) -> int:
    """What a width must be a multiple of: the heads, and 2, which sinusoidal positions need."""
    return heads if heads % 2 == 0 else 2 * heads
