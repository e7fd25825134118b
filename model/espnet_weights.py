"""Which tensors of ESPnet's state dict are which of ours.

Here query, key and value are one linear layer (key and value in the decoder), and convolutions over
one frame are linear layers. ESPnet's names are those of releases before 202609, which later ones
read too; its parts are prefixed as in `ESPnetASRModel`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import NetworkConfig


@dataclass(frozen=True)
class Pair:
    """A tensor here and those of ESPnet that it consists of, one below the other."""

    ours: str
    theirs: tuple[str, ...]
    pointwise: bool = False
    """Theirs is the weight of a convolution, with a third dimension of size 1."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Theirs -> ours, a copy."""
        parts = [part.detach().squeeze(-1) if self.pointwise else part.detach() for part in parts]
        return torch.cat(parts)

    def split(self, whole: Tensor) -> dict[str, Tensor]:
        """Ours -> theirs by name, copies."""
        whole = whole.detach().unsqueeze(-1) if self.pointwise else whole.detach()
        parts = whole.chunk(len(self.theirs))
        return {name: part.clone() for name, part in zip(self.theirs, parts, strict=True)}


def pairs(network: NetworkConfig) -> Iterator[Pair]:
    """All tensors of `Recogniser.state_dict`, the normalisation of features included."""
    yield Pair("feature_mean", ("normalize.mean",))
    yield Pair("feature_std", ("normalize.std",))
    for place in (0, 2):
        yield from _layer(
            f"encoder.subsampling.convolutions.{place}", f"encoder.embed.conv.{place}"
        )
    yield from _layer("encoder.subsampling.linear", "encoder.embed.out.0")
    for place in range(network.encoder_layers):
        yield from _encoder_block(network, f"encoder.blocks.{place}", f"encoder.encoders.{place}")
    yield from _layer("encoder.norm", "encoder.after_norm")
    yield Pair("decoder.embedding.weight", ("decoder.embed.0.weight",))
    for place in range(network.decoder_layers):
        yield from _decoder_layer(f"decoder.layers.{place}", f"decoder.decoders.{place}")
    yield from _layer("decoder.norm", "decoder.after_norm")
    yield from _layer("decoder.output", "decoder.output_layer")
    if network.ctc_weight > 0:
        yield from _layer("ctc.output", "ctc.ctc_lo")


def _encoder_block(network: NetworkConfig, ours: str, theirs: str) -> Iterator[Pair]:
    attention = f"{theirs}.self_attn"
    yield from _layer(
        f"{ours}.attention.query_key_value",
        *(f"{attention}.linear_{name}" for name in ("q", "k", "v")),
    )
    yield from _layer(f"{ours}.attention.output", f"{attention}.linear_out")
    if network.position != "absolute":
        yield Pair(f"{ours}.attention.position.weight", (f"{attention}.linear_pos.weight",))
        yield Pair(f"{ours}.attention.content_bias", (f"{attention}.pos_bias_u",))
        yield Pair(f"{ours}.attention.position_bias", (f"{attention}.pos_bias_v",))

    convolution = f"{theirs}.conv_module"
    yield from _layer(
        f"{ours}.convolution.pointwise_in", f"{convolution}.pointwise_conv1", pointwise=True
    )
    yield from _layer(f"{ours}.convolution.depthwise", f"{convolution}.depthwise_conv")
    yield from _layer(f"{ours}.convolution.norm", f"{convolution}.norm")
    for name in ("running_mean", "running_var"):
        yield Pair(f"{ours}.convolution.norm.{name}", (f"{convolution}.norm.{name}",))
    yield from _layer(
        f"{ours}.convolution.pointwise_out", f"{convolution}.pointwise_conv2", pointwise=True
    )

    yield from _feed_forward(f"{ours}.feed_forward", f"{theirs}.feed_forward")
    yield from _layer(f"{ours}.norm_attention", f"{theirs}.norm_mha")
    yield from _layer(f"{ours}.norm_convolution", f"{theirs}.norm_conv")
    yield from _layer(f"{ours}.norm_feed_forward", f"{theirs}.norm_ff")
    yield from _layer(f"{ours}.norm_final", f"{theirs}.norm_final")
    if network.macaron:
        yield from _feed_forward(f"{ours}.macaron_feed_forward", f"{theirs}.feed_forward_macaron")
        yield from _layer(f"{ours}.norm_macaron", f"{theirs}.norm_ff_macaron")


def _decoder_layer(ours: str, theirs: str) -> Iterator[Pair]:
    for here, there in (("self_attention", "self_attn"), ("source_attention", "src_attn")):
        attention = f"{theirs}.{there}"
        yield from _layer(f"{ours}.{here}.query", f"{attention}.linear_q")
        yield from _layer(
            f"{ours}.{here}.key_value", f"{attention}.linear_k", f"{attention}.linear_v"
        )
        yield from _layer(f"{ours}.{here}.output", f"{attention}.linear_out")
    yield from _feed_forward(f"{ours}.feed_forward", f"{theirs}.feed_forward")
    yield from _layer(f"{ours}.norm_self", f"{theirs}.norm1")
    yield from _layer(f"{ours}.norm_source", f"{theirs}.norm2")
    yield from _layer(f"{ours}.norm_feed_forward", f"{theirs}.norm3")


def _feed_forward(ours: str, theirs: str) -> Iterator[Pair]:
    yield from _layer(f"{ours}.0", f"{theirs}.w_1")
    yield from _layer(f"{ours}.3", f"{theirs}.w_2")


def _layer(ours: str, *theirs: str, pointwise: bool = False) -> Iterator[Pair]:
    yield Pair(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), pointwise)
    yield Pair(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs))
