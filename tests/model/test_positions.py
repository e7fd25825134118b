"""Each kind of positions: against its formula term by term, and what padding does to it."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from model.attention import SelfAttention
from model.config import NetworkConfig
from model.counting import cost
from model.encoder import POSITIONS, ConformerEncoder
from model.positions import LegacyRelativePositions, sinusoids
from model.relative_attention import (
    ClippedAttention,
    LegacyRelativeAttention,
    legacy_shift,
    relative_shift,
    relative_unshift,
)
from tests.model.test_encoder import SMALL

DIM, HEADS = 8, 2
K = DIM // HEADS


def _encoder(**changes: Any) -> ConformerEncoder:
    torch.manual_seed(0)
    return ConformerEncoder(dataclasses.replace(SMALL, **changes), mels=20)


def _split(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (part.view(-1, HEADS, K) for part in x.chunk(3, dim=-1))
    return query, key, value


def test_all_kinds_that_can_be_configured_are_there() -> None:
    assert tuple(POSITIONS) == get_args(get_type_hints(NetworkConfig)["position"])


@pytest.mark.parametrize("frames", [1, 2, 3, 9])
@pytest.mark.parametrize("clip", [1, 2, 16])
def test_clipped_attention_is_that_of_the_paper_term_by_term(frames: int, clip: int) -> None:
    """Equations 3 and 4 of Shaw et al. 2018."""
    torch.manual_seed(0)
    attention = ClippedAttention(DIM, HEADS, 0.0, clip=clip)
    x = torch.randn(1, frames, DIM)
    query, key, value = _split(attention.query_key_value(x)[0])
    attended = torch.zeros(frames, HEADS, K)
    for h in range(HEADS):
        for i in range(frames):
            edges = [max(-clip, min(clip, j - i)) + clip for j in range(frames)]
            scores = torch.stack([
                query[i, h] @ (key[j, h] + attention.key_distance[edges[j]]) / K**0.5
                for j in range(frames)
            ])  # fmt: skip
            for j, weight in enumerate(scores.softmax(dim=0)):
                attended[i, h] += weight * (value[j, h] + attention.value_distance[edges[j]])
    expected = attention.output(attended.flatten(1))
    torch.testing.assert_close(attention(x)[0], expected, atol=1e-6, rtol=0)


def test_clipped_attention_does_not_tell_far_distances_apart() -> None:
    torch.manual_seed(0)
    attention = ClippedAttention(DIM, HEADS, 0.0, clip=2)
    x = torch.randn(1, 12, DIM)
    swapped = x.clone()
    swapped[:, [8, 11]] = x[:, [11, 8]]
    torch.testing.assert_close(attention(x)[0, :6], attention(swapped)[0, :6], atol=1e-6, rtol=0)
    assert (attention(x)[0, 9] - attention(swapped)[0, 9]).abs().max() > 1e-3


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
def test_unshift_puts_each_key_at_its_distance_and_shift_takes_it_back(frames: int) -> None:
    weights = torch.randn(2, 3, frames, frames)
    by_distance = relative_unshift(weights)
    assert torch.equal(relative_shift(by_distance), weights)
    assert by_distance.count_nonzero() == weights.count_nonzero()  # and nothing elsewhere


@pytest.mark.parametrize("frames", [1, 2, 3, 9])
def test_legacy_attention_is_its_formula_term_by_term(frames: int) -> None:
    torch.manual_seed(0)
    attention = LegacyRelativeAttention(DIM, HEADS, 0.0)
    x = torch.randn(1, frames, DIM)
    query, key, value = _split(attention.query_key_value(x)[0])

    def by_position(row: int, head: int, position: int) -> Tensor:
        encoding = attention.position(sinusoids(torch.tensor([position]), DIM)).view(HEADS, K)
        score: Tensor = (query[row, head] + attention.position_bias[head]) @ encoding[head]
        return score

    attended = torch.empty(frames, HEADS, K)
    for h in range(HEADS):
        scores = torch.empty(frames, frames)
        for i in range(frames):
            for j in range(frames):
                position = torch.zeros(())
                if j <= i:
                    position = by_position(i, h, 5000 - frames + i - j)
                elif j > i + 1:
                    position = by_position(i + 1, h, 5001 - (j - i))
                content = (query[i, h] + attention.content_bias[h]) @ key[j, h]
                scores[i, j] = (content + position) / K**0.5
        attended[:, h] = scores.softmax(dim=-1) @ value[:, h]
    expected = attention.output(attended.flatten(1))
    output = attention(x, LegacyRelativePositions(DIM)(frames))
    torch.testing.assert_close(output[0], expected, atol=2e-6, rtol=0)


def test_legacy_shift_of_one_row_leaks_the_next_query() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert legacy_shift(x)[0, 0].tolist() == [[2, 0, 3], [4, 5, 0], [6, 7, 8]]


def test_legacy_positions_count_from_five_thousand_or_the_longest() -> None:
    positions = LegacyRelativePositions(4)
    for length, last in ((3, 4999), (5003, 5002), (4000, 4999), (10, 4999)):
        expected = sinusoids(torch.arange(last, last - length, -1), 4)
        torch.testing.assert_close(positions(length), expected, atol=0, rtol=0)


def test_absolute_positions_are_added_to_the_scaled_frames_before_the_blocks() -> None:
    encoder = _encoder(position="absolute").eval()
    features = torch.randn(2, 40, 20)
    x = encoder.subsampling(features) * 16**0.5
    x = x + sinusoids(torch.arange(x.shape[1]), 16)
    for block in encoder.blocks:
        x = block(x, None, None, None)
    output, _ = encoder(features, torch.full((2,), 40), ragged=False)
    torch.testing.assert_close(output, encoder.norm(x), atol=1e-6, rtol=0)


def test_self_attention_agrees_with_torch() -> None:
    torch.manual_seed(0)
    attention, reference = SelfAttention(DIM, HEADS, 0.0), torch.nn.MultiheadAttention(DIM, HEADS)
    reference.load_state_dict({
        "in_proj_weight": attention.query_key_value.weight,
        "in_proj_bias": attention.query_key_value.bias,
        "out_proj.weight": attention.output.weight,
        "out_proj.bias": attention.output.bias,
    })  # fmt: skip
    x = torch.randn(7, 1, DIM)
    expected, _ = reference(x, x, x)
    torch.testing.assert_close(attention(x.transpose(0, 1))[0], expected[:, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "position", ["clipped", "absolute"]
)  # tests/model/test_encoder.py: rel_pos
def test_an_utterance_alone_and_in_a_batch_gives_the_same(position: str) -> None:
    encoder = _encoder(position=position, position_clip=3).eval()
    lengths = torch.tensor([7, 90, 33])
    features = torch.randn(3, 90, 20)
    together, frames = encoder(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, _ = encoder(features[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, : frames[row]], alone[0], atol=3e-6, rtol=0)


def test_legacy_positions_give_something_else_in_a_batch() -> None:
    """The reason why they are not the default; and that equal lengths do not suffer from it."""
    encoder = _encoder(position="legacy_rel_pos").eval()
    lengths = torch.tensor([90, 33])
    features = torch.randn(2, 90, 20)
    together, frames = encoder(features, lengths)
    longest, _ = encoder(features[:1], lengths[:1])
    shorter, _ = encoder(features[1:, :33], lengths[1:])
    torch.testing.assert_close(together[:1], longest, atol=3e-6, rtol=0)
    assert (together[1, : frames[1]] - shorter[0]).abs().max() > 0.01


@pytest.mark.parametrize("position", POSITIONS)
def test_every_weight_learns(position: str) -> None:
    encoder = _encoder(position=position, position_clip=4).eval()
    output, _ = encoder(torch.randn(2, 60, 20), torch.tensor([60, 41]))
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_the_clip_is_a_choice_of_clipped_positions() -> None:
    def parameters(clip: int, position: Any = "clipped") -> int:
        network = dataclasses.replace(SMALL, position=position, position_clip=clip)
        return cost(network, mels=20, vocabulary=10).parameters

    layers, width = SMALL.encoder_layers, SMALL.encoder_dim // SMALL.attention_heads
    assert parameters(7) - parameters(4) == layers * 2 * 6 * width
    assert parameters(7, "absolute") == parameters(4, "absolute")
