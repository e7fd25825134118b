"""The whole network: losses against plain restatements, decoding against step-by-step decoding."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from model.config import NetworkConfig, conflicts
from model.counting import cost
from model.ctc import CTC, shortest_alignment
from model.decoder import AttentionDecoder
from model.recogniser import Recogniser
from model.subsampling import SHORTEST
from tests.model.test_encoder import SMALL

VOCABULARY = 11
TOKENS = torch.tensor([[3, 3, 4], [5, -1, -1]])
TOKEN_LENGTHS = torch.tensor([3, 1])


def _recogniser(**changes: Any) -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(dataclasses.replace(SMALL, **changes), mels=20, vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    ("changes", "field", "remedy"),
    [
        (
            {"encoder_dim": 30, "attention_heads": 4},
            "encoder_dim",
            "use 28 or 32, or attention_heads 3",
        ),
        ({"encoder_dim": 9, "attention_heads": 3}, "encoder_dim", "use 6 or 12"),
        ({"encoder_dim": 2, "attention_heads": 4}, "encoder_dim", "use 4, or attention_heads 2"),
        (
            {"decoder_dim": 18, "decoder_heads": 4},
            "decoder_dim",
            "use 16 or 20, or decoder_heads 3",
        ),
        ({"conv_kernel_size": 32}, "conv_kernel_size", "use 31 or 33"),
    ],
)
def test_impossible_shapes_are_named_with_their_remedy(
    changes: dict[str, int], field: str, remedy: str
) -> None:
    found = dict(conflicts(dataclasses.replace(SMALL, **changes)))  # type: ignore[arg-type]
    assert list(found) == [field]
    assert found[field].endswith(remedy)


def test_possible_shapes_have_no_conflicts() -> None:
    assert not list(conflicts(SMALL))
    assert not list(conflicts(NetworkConfig()))


def test_equal_tokens_need_a_blank_between_them() -> None:
    assert shortest_alignment([]) == 0
    assert shortest_alignment([4, 5, 5, 5, 4]) == 7


def test_ctc_decoding_collapses_repeats_and_stops_at_each_length() -> None:
    ctc = CTC(4, 4)
    torch.nn.init.eye_(ctc.output.weight)
    torch.nn.init.zeros_(ctc.output.bias)
    paths = torch.tensor([[0, 1, 1, 0, 1, 2], [3, 3, 0, 3, 2, 2]])
    memory = functional.one_hot(paths, 4).float()
    assert ctc.decode(memory, torch.tensor([6, 4])) == [[1, 1, 2], [3, 3]]
    assert ctc.decode(memory, torch.tensor([1, 3])) == [[], [3]]


def test_ctc_loss_is_a_sum_over_alignments() -> None:
    torch.manual_seed(0)
    ctc, memory = CTC(4, 3), torch.randn(1, 3, 4)
    probabilities = ctc.log_probabilities(memory)[0].exp()
    total = torch.zeros(())
    for path in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
        collapsed = [t for i, t in enumerate(path) if t and (i == 0 or path[i - 1] != t)]
        if collapsed == [1, 2]:
            total = total + torch.stack([probabilities[i, t] for i, t in enumerate(path)]).prod()
    loss = ctc.loss(memory, torch.tensor([3]), torch.tensor([[1, 2]]), torch.tensor([2]))
    torch.testing.assert_close(loss, -total.log())


def test_transcripts_that_cannot_be_aligned_count_as_zero() -> None:
    ctc = CTC(4, 3)
    loss = ctc.loss(
        torch.randn(1, 2, 4), torch.tensor([2]), torch.tensor([[1, 1]]), torch.tensor([2])
    )
    assert loss.item() == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_attention_loss_is_the_divergence_from_the_smoothed_target(smoothing: float) -> None:
    recogniser = _recogniser(label_smoothing=smoothing).eval()
    decoder = recogniser.decoder
    memory, lengths = torch.randn(2, 9, 16), torch.tensor([9, 6])
    boundary = VOCABULARY - 1
    expected = torch.zeros(())
    for row, tokens in enumerate([[3, 3, 4], [5]]):
        logits = decoder(
            memory[row : row + 1, : lengths[row]],
            lengths[row : row + 1],
            torch.tensor([[boundary, *tokens]]),
        )
        target = torch.full((len(tokens) + 1, VOCABULARY), smoothing / (VOCABULARY - 1))
        target[range(len(tokens) + 1), [*tokens, boundary]] = 1 - smoothing
        expected = expected + functional.kl_div(
            logits[0].log_softmax(dim=-1), target, reduction="sum"
        )
    loss = decoder.loss(memory, lengths, TOKENS, TOKEN_LENGTHS)
    torch.testing.assert_close(loss, expected / 2, rtol=1e-5, atol=1e-5)


def test_total_loss_weighs_its_two_parts() -> None:
    recogniser = _recogniser(ctc_weight=0.3).eval()
    losses = recogniser(torch.randn(2, 60, 20), torch.tensor([60, 40]), TOKENS, TOKEN_LENGTHS)
    assert losses.ctc is not None
    torch.testing.assert_close(losses.total, 0.3 * losses.ctc + 0.7 * losses.decoder)


def test_without_ctc_there_is_no_branch() -> None:
    recogniser = _recogniser(ctc_weight=0.0).eval()
    losses = recogniser(torch.randn(2, 60, 20), torch.tensor([60, 40]), TOKENS, TOKEN_LENGTHS)
    memory, lengths = recogniser.encode(torch.randn(1, 30, 20), torch.tensor([30]))
    assert losses.ctc is None
    assert losses.total is losses.decoder
    assert recogniser.transcribe(memory, lengths).ctc is None


def test_losses_of_a_batch_are_the_mean_of_those_alone() -> None:
    recogniser = _recogniser().eval()
    features, lengths = torch.randn(2, 60, 20), torch.tensor([60, 33])
    together = recogniser(features, lengths, TOKENS, TOKEN_LENGTHS).total
    alone = [
        recogniser(
            features[row : row + 1, : lengths[row]],
            lengths[row : row + 1],
            TOKENS[row : row + 1, : TOKEN_LENGTHS[row]],
            TOKEN_LENGTHS[row : row + 1],
        ).total
        for row in range(2)
    ]
    torch.testing.assert_close(together, sum(alone) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decoder_dim", [16, 24])
def test_greedy_decoding_with_a_cache_equals_decoding_anew_at_each_step(decoder_dim: int) -> None:
    recogniser = _recogniser(decoder_dim=decoder_dim, decoder_layers=2).eval()
    decoder = recogniser.decoder
    assert isinstance(decoder, AttentionDecoder)
    torch.nn.init.normal_(decoder.output.weight, std=2.0)  # so that hypotheses differ
    lengths = torch.tensor([12, 5, 9])
    memory = torch.randn(3, 12, 16)
    for row, hypothesis in enumerate(decoder.decode(memory, lengths)):
        tokens = [decoder.boundary]
        while len(tokens) <= lengths[row]:
            alone = memory[row : row + 1, : lengths[row]]
            logits = decoder(alone, lengths[row : row + 1], torch.tensor([tokens]))
            best = int(logits[0, -1].argmax())
            if best == decoder.boundary:
                break
            tokens.append(best)
        assert hypothesis == tokens[1:]
        assert len(hypothesis) <= lengths[row]


def test_a_projection_joins_widths_that_differ_and_only_those() -> None:
    same, different = _recogniser(decoder_dim=16), _recogniser(decoder_dim=24)
    assert not [n for n, _ in same.named_parameters() if "projection" in n]
    assert [n for n, _ in different.named_parameters() if "projection" in n]


def test_normalisation_is_part_of_the_checkpoint() -> None:
    recogniser = _recogniser()
    recogniser.set_normalisation(torch.full((20,), 3.0), torch.full((20,), 2.0))
    other = _recogniser().eval()
    other.load_state_dict(recogniser.state_dict())
    plain = _recogniser().eval()
    x, lengths = torch.randn(1, 30, 20), torch.tensor([30])
    torch.testing.assert_close(other.encode(x * 2 + 3, lengths)[0], plain.encode(x, lengths)[0])


@pytest.mark.parametrize(
    ("changes", "vocabulary", "parameters"),
    [
        # The totals of ESPnet's READMEs: librispeech_100 34.23 M, ksponspeech 112.01 M,
        # librispeech 116.15 M.
        ({}, 5000, 34_229_520),
        ({"encoder_dim": 512, "attention_heads": 8}, 2309, 112_008_202),
        ({"encoder_dim": 512, "attention_heads": 8}, 5000, 116_146_960),
    ],
)
def test_published_recipes_have_their_published_size(
    changes: dict[str, int], vocabulary: int, parameters: int
) -> None:
    large = "encoder_dim" in changes
    wide = (
        {"decoder_dim": 512, "decoder_heads": 8, "decoder_feed_forward_ratio": 4} if large else {}
    )
    network = NetworkConfig(**changes, **wide)  # type: ignore[arg-type]
    assert cost(network, mels=80, vocabulary=vocabulary).parameters == parameters


def test_flops_follow_the_closed_form_of_the_front_and_the_blocks() -> None:
    few = cost(NetworkConfig(encoder_layers=1), mels=80, vocabulary=50, seconds=4.03)
    more = cost(NetworkConfig(encoder_layers=3), mels=80, vocabulary=50, seconds=4.03)
    d, ff, k, frames = 256, 1024, 31, subsampled(403)
    block = frames * (8 * d * ff + 14 * d * d + 2 * d * k) + 2 * (2 * frames - 1) * d * d
    attention = 2 * d * frames * (2 * frames - 1) + 4 * d * frames * frames
    expected = 2 * (block + attention)
    assert math.isclose(
        (more.flops_per_second - few.flops_per_second) * 4.03, expected, rel_tol=1e-6
    )


def subsampled(frames: int) -> int:
    return ((frames - 1) // 2 - 1) // 2


def test_scaled_embeddings_have_unit_variance_after_scaling() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, embedding_init="scaled")
    decoder = AttentionDecoder(config, vocabulary=5000)
    assert math.isclose((decoder.embedding.weight * decoder.scale).std().item(), 1.0, rel_tol=0.02)


@pytest.mark.parametrize("decoder", ["attention", "transducer"])
@pytest.mark.parametrize("position", ["rel_pos", "legacy_rel_pos", "clipped", "absolute"])
@pytest.mark.parametrize("frames", [SHORTEST, 2 * SHORTEST])
def test_one_short_utterance_of_one_token_is_trained_and_transcribed(
    decoder: Any, position: Any, frames: int
) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(
        SMALL, decoder=decoder, position=position, conv_kernel_size=31, dropout=0.1, joint_dim=8
    )
    recogniser = Recogniser(config, mels=20, vocabulary=9)
    features, lengths = torch.randn(1, frames, 20), torch.tensor([frames])
    token, one = torch.tensor([[4]]), torch.tensor([1])
    optimiser = torch.optim.AdamW(recogniser.parameters(), lr=3e-2)
    for ragged in (True, False, *[True] * 40):
        losses = recogniser.train()(features, lengths, token, one, ragged=ragged)
        optimiser.zero_grad()
        losses.total.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in recogniser.parameters())
        optimiser.step()
    recogniser.eval()
    memory, lengths = recogniser.encode(features, lengths)
    assert recogniser.transcribe(memory, lengths).decoder == [[4]]
