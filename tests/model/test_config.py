"""No dead knobs: each field of the network's configuration changes the network."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from model.config import NetworkConfig
from model.recogniser import Recogniser

BASE = NetworkConfig(
    encoder_layers=2,
    encoder_dim=16,
    attention_heads=2,
    conv_kernel_size=5,
    decoder_layers=1,
    decoder_dim=16,
    decoder_heads=2,
    encoder_feed_forward_ratio=2,
    decoder_feed_forward_ratio=2,
)

KNOBS: dict[str, list[tuple[dict[str, Any], Any]]] = {
    # field -> what must be so for it to act, and another value
    "encoder_layers": [({}, 3)],
    "encoder_dim": [({}, 20)],
    "attention_heads": [({}, 4), ({"position": "absolute"}, 4), ({"position": "clipped"}, 4)],
    "conv_kernel_size": [({}, 7)],
    "decoder_layers": [({}, 2), ({"decoder": "transducer"}, 2)],
    "decoder_dim": [({}, 20), ({"decoder": "transducer"}, 20)],
    "decoder": [({}, "transducer")],
    "decoder_heads": [({}, 4)],
    "encoder_feed_forward_ratio": [({}, 3)],
    "decoder_feed_forward_ratio": [({}, 3)],
    "joint_dim": [({"decoder": "transducer"}, 8)],
    "subsampling_channels": [({}, 4)],
    "position": [({}, kind) for kind in ("legacy_rel_pos", "clipped", "absolute")],
    "position_clip": [({"position": "clipped"}, 3)],
    "macaron": [({}, False)],
    "batch_norm": [({}, "espnet")],
    "dropout": [({}, 0.3), ({"decoder": "transducer"}, 0.3)],
    "attention_dropout": [({}, 0.3), ({"position": "clipped"}, 0.3)],
    "positional_dropout": [({}, 0.3), ({"position": "absolute"}, 0.3)],
    "stochastic_depth": [({}, 0.9)],
    "embedding_init": [({}, "scaled")],
    "ctc_weight": [({}, 0.5), ({}, 0.0), ({"decoder": "transducer"}, 0.5)],
    "label_smoothing": [({}, 0.2)],
}
CASES = [(name, needed, value) for name, cases in KNOBS.items() for needed, value in cases]


def _result(config: NetworkConfig) -> float:
    """The loss of a training step, which any difference of the network shows in."""
    torch.manual_seed(0)
    recogniser = Recogniser(config, mels=20, vocabulary=12).train()
    torch.manual_seed(1)
    features, lengths = torch.randn(2, 60, 20), torch.tensor([60, 45])
    tokens = torch.tensor([[3, 4, 5], [6, 6, -1]])
    losses = recogniser(features, lengths, tokens, torch.tensor([3, 2]))
    return float(losses.total.detach())


@pytest.mark.parametrize(("name", "needed", "value"), CASES)
def test_every_field_changes_the_network(name: str, needed: dict[str, Any], value: Any) -> None:
    base = replace(BASE, **needed)
    assert getattr(base, name) != value
    assert _result(replace(base, **{name: value})) != _result(base)


def test_every_field_is_tried() -> None:
    assert set(KNOBS) == {field.name for field in fields(NetworkConfig)}


def test_the_same_configuration_gives_the_same_network() -> None:
    assert _result(BASE) == _result(replace(BASE))
