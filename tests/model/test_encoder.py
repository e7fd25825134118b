"""The encoder: padding must not leak, and what it computes agrees with plain restatements."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from model.attention import hidden
from model.config import NetworkConfig
from model.convolution import LONG, ConvolutionModule, MaskedBatchNorm
from model.encoder import ConformerEncoder
from model.positions import RelativePositions, sinusoids
from model.relative_attention import RelativeAttention, relative_shift
from model.subsampling import SHORTEST, Conv2dSubsampling, subsampled_length

SMALL = NetworkConfig(
    encoder_layers=2,
    encoder_dim=16,
    attention_heads=2,
    conv_kernel_size=5,
    decoder_layers=1,
    decoder_dim=16,
    decoder_heads=2,
    dropout=0.0,
    attention_dropout=0.0,
    positional_dropout=0.0,
)


def test_shortest_input_gives_one_frame_and_a_shorter_one_none() -> None:
    assert subsampled_length(SHORTEST) == 1
    assert subsampled_length(SHORTEST - 1) == 0
    front = Conv2dSubsampling(mels=20, channels=4, dim=8)
    assert front(torch.randn(2, SHORTEST, 20)).shape == (2, 1, 8)


@pytest.mark.parametrize("frames", [7, 8, 50, 67, 400])
def test_front_block_makes_as_many_frames_as_the_formula_says(frames: int) -> None:
    front = Conv2dSubsampling(mels=20, channels=4, dim=8)
    assert front(torch.randn(1, frames, 20)).shape[1] == subsampled_length(frames)


@pytest.mark.parametrize("frames", [7, 8, 21, 40])
def test_the_front_block_of_the_cpu_is_two_convolutions_and_so_are_its_gradients(
    frames: int,
) -> None:
    torch.manual_seed(0)
    front = Conv2dSubsampling(mels=15, channels=5, dim=8).double()
    features = torch.randn(3, frames, 15).double()
    x = front.convolutions(features.unsqueeze(1))  # (B, C, T', F')
    expected = front.linear(x.transpose(1, 2).flatten(2))
    output = front(features)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)
    weights = torch.randn_like(expected)
    gradients = torch.autograd.grad((output * weights).sum(), list(front.parameters()))
    wanted = torch.autograd.grad((expected * weights).sum(), list(front.parameters()))
    for gradient, parameter in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, parameter, atol=1e-11, rtol=0)


def test_features_that_need_a_gradient_get_one() -> None:
    features = torch.randn(1, 30, 15, requires_grad=True)
    Conv2dSubsampling(mels=15, channels=5, dim=8)(features).sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("kernel", [3, 5, 31])
@pytest.mark.parametrize("macaron", [True, False])
def test_an_utterance_alone_and_in_a_batch_gives_the_same(kernel: int, macaron: bool) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, conv_kernel_size=kernel, macaron=macaron)
    encoder = ConformerEncoder(config, mels=20).eval()
    lengths = torch.tensor([7, 90, 33])  # the kernel is longer than the first
    features = torch.randn(3, 90, 20)
    together, frames = encoder(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, _ = encoder(features[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, : frames[row]], alone[0], atol=3e-6, rtol=0)


def test_what_stands_in_the_padding_changes_nothing_even_in_training() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([40, 25])
    features = torch.randn(2, 40, 20)
    other = features.clone()
    other[1, 25:] = 1000.0
    outputs = []
    for given in (features, other, torch.cat((features, torch.randn(2, 30, 20)), dim=1)):
        torch.manual_seed(1)
        encoder = ConformerEncoder(SMALL, mels=20).train()
        output, frames = encoder(given, lengths)
        statistics = encoder.state_dict()["blocks.0.convolution.norm.running_var"]
        outputs.append((output[1, : frames[1]], statistics))
    for output, statistics in outputs[1:]:
        torch.testing.assert_close(output, outputs[0][0], atol=5e-6, rtol=0)
        torch.testing.assert_close(statistics, outputs[0][1], atol=1e-6, rtol=0)


def test_masking_is_skipped_for_equal_lengths_without_changing_the_result() -> None:
    torch.manual_seed(0)
    encoder = ConformerEncoder(SMALL, mels=20).train()
    features, lengths = torch.randn(3, 50, 20), torch.full((3,), 50)
    ragged, _ = encoder(features, lengths, ragged=True)
    even, _ = encoder(features, lengths, ragged=False)
    torch.testing.assert_close(ragged, even, atol=5e-6, rtol=0)


def test_batch_norm_agrees_with_torch_on_the_valid_frames() -> None:
    torch.manual_seed(0)
    x, lengths = torch.randn(3, 11, 6), torch.tensor([11, 4, 8])
    valid = (torch.arange(11) < lengths.unsqueeze(1)).unsqueeze(-1).float()
    ours, reference = MaskedBatchNorm(6), torch.nn.BatchNorm1d(6)
    for module in (ours, reference):
        torch.nn.init.uniform_(module.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.uniform_(module.bias, generator=torch.Generator().manual_seed(2))
    rows = valid.squeeze(-1) > 0
    torch.testing.assert_close(ours(x, valid)[rows], reference(x[rows]), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.running_mean, reference.running_mean)
    torch.testing.assert_close(ours.running_var, reference.running_var)
    torch.testing.assert_close(ours.eval()(x), reference.eval()(x.mT).mT, atol=1e-6, rtol=0)


def test_frames_are_counted_exactly_where_bfloat16_says_which_are_valid() -> None:
    """It knows no 10,049; statistics divided by 10,048 would be those of another batch."""
    torch.manual_seed(0)
    norm, x = MaskedBatchNorm(3), 5 + torch.randn(1, 10_050, 3)
    valid = torch.ones(1, 10_050, 1)
    valid[:, -1] = 0
    torch.testing.assert_close(norm(x, valid.bfloat16()), norm(x, valid), rtol=0, atol=1e-6)


def test_under_autocast_all_blocks_are_given_the_same_type() -> None:
    """One graph is compiled for all of them."""
    encoder = ConformerEncoder(NetworkConfig(encoder_layers=2, encoder_dim=8, attention_heads=2,
                                             conv_kernel_size=3), mels=20)  # fmt: skip
    seen = []
    for block in encoder.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        encoder(torch.randn(2, 40, 20), torch.tensor([40, 30]))
    assert seen == [torch.float32] * 2


@pytest.mark.parametrize("kernel", [LONG - 2, LONG, 31])
@pytest.mark.parametrize("lengths", [[2], [40], [4, 4, 4], [3, 4, 1], [61, 7, 30, 61, 18]])
@pytest.mark.parametrize("count_padding", [False, True])
def test_the_convolution_module_of_the_cpu_learns_as_torchs_layers_do(
    kernel: int, lengths: list[int], count_padding: bool
) -> None:
    """Also where utterances are shorter than the kernel, and where the input is no whole tensor."""
    torch.manual_seed(0)
    batch, frames = len(lengths), max(lengths)
    module = ConvolutionModule(6, kernel, count_padding=count_padding).double()
    for parameter in module.norm.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5)
    valid = (torch.arange(frames) < torch.tensor(lengths).unsqueeze(1)).double().unsqueeze(-1)
    gates = torch.randn(batch, 12, frames, dtype=torch.float64).mT.requires_grad_()
    layers = (*module.depthwise.parameters(), *module.norm.parameters())
    weighting = torch.randn(6, batch, frames, dtype=torch.float64).permute(1, 2, 0) * valid
    mask = None if valid.all() else valid
    counted = None if count_padding else mask
    mean, variance = module.norm.running_mean, module.norm.running_var

    def learnt(output: torch.Tensor) -> list[torch.Tensor]:
        gradients = torch.autograd.grad((output * weighting).sum(), (gates, *layers))
        statistics = [mean.clone(), variance.clone()]
        mean.zero_()
        variance.fill_(1)
        return [output * valid, *gradients, *statistics]

    gated = functional.glu(gates) * valid
    convolved = functional.conv1d(
        gated.mT, module.depthwise.weight, module.depthwise.bias, padding=kernel // 2, groups=6
    ).mT
    rows = torch.ones_like(valid).bool() if counted is None else valid.bool()
    scale, shift = module.norm.weight, module.norm.bias
    normalised = functional.batch_norm(
        convolved[rows.squeeze(-1)], mean, variance, scale, shift, training=True
    )
    swished = functional.silu(torch.zeros_like(convolved).masked_scatter(rows, normalised))
    expected = learnt(swished)

    assert module._suits_cpu(gates)
    for activations, tolerance in (
        (module._activations_on_cpu, 1e-9),
        (module._activations, 1e-4),  # whose BatchNorm counts in float32
    ):
        for found, wanted in zip(learnt(activations(gates, mask, counted)), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def test_convolution_module_agrees_with_torch_layers() -> None:
    torch.manual_seed(0)
    module = ConvolutionModule(8, 5).eval()
    x = torch.randn(2, 13, 8)
    gated = functional.glu(module.pointwise_in(x), dim=-1)
    convolved = functional.conv1d(
        gated.mT, module.depthwise.weight, module.depthwise.bias, padding=2, groups=8
    ).mT
    normalised = convolved / (1 + module.norm.eps) ** 0.5  # running statistics are 0 and 1
    expected = module.pointwise_out(normalised * torch.sigmoid(normalised))
    torch.testing.assert_close(module(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 17])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_attention_of_the_cpu_learns_as_it_does_plainly(
    frames: int, masked: bool, rate: float
) -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(8, 2, rate).double()
    x = torch.randn(3, frames, 8, dtype=torch.float64, requires_grad=True)
    positions = torch.randn(2 * frames - 1, 8, dtype=torch.float64)
    mask = None
    if masked:
        valid = torch.arange(frames) < torch.tensor([[frames], [frames // 2 + 1], [1]])
        mask = hidden(valid)[:, None, None, :].double()
    weighting = torch.randn(3, frames, 8, dtype=torch.float64)
    found = []
    for plainly in (False, True):
        torch.manual_seed(1)  # of dropout
        with pytest.MonkeyPatch.context() as patch:
            if plainly:
                patch.setattr(attention, "_suits_cpu", lambda three: False)
            else:
                patch.delattr(RelativeAttention, "_attend")
            output = attention(x, positions, mask)
        over = (x, *attention.parameters())
        found.append([output, *torch.autograd.grad((output * weighting).sum(), over)])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
def test_relative_shift_picks_the_score_of_each_distance(frames: int) -> None:
    scores = torch.randn(2, 3, frames, 2 * frames - 1)
    shifted = relative_shift(scores)
    for i in range(frames):
        for j in range(frames):
            assert torch.equal(shifted[:, :, i, j], scores[:, :, i, frames - 1 - (i - j)])


def test_attention_scores_are_those_of_the_paper_term_by_term() -> None:
    torch.manual_seed(0)
    frames, dim, heads = 6, 8, 2
    attention = RelativeAttention(dim, heads, 0.0)
    x = torch.randn(1, frames, dim)
    output = attention(x, RelativePositions(dim)(frames))

    query, key, value = (
        part.view(frames, heads, -1) for part in attention.query_key_value(x)[0].chunk(3, dim=-1)
    )
    attended = torch.empty(frames, heads, dim // heads)
    for h in range(heads):
        scores = torch.empty(frames, frames)
        for i in range(frames):
            for j in range(frames):
                distance = attention.position(sinusoids(torch.tensor([i - j]), dim))
                distance = distance.view(heads, -1)[h]
                content = (query[i, h] + attention.content_bias[h]) @ key[j, h]
                position = (query[i, h] + attention.position_bias[h]) @ distance
                scores[i, j] = (content + position) / (dim // heads) ** 0.5
        attended[:, h] = scores.softmax(dim=-1) @ value[:, h]
    expected = attention.output(attended.flatten(1))
    torch.testing.assert_close(output[0], expected, atol=1e-6, rtol=0)


def test_stochastic_depth_skips_blocks_in_training_alone_and_keeps_their_mean() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, encoder_layers=1, stochastic_depth=0.25)
    encoder = ConformerEncoder(config, mels=20).eval()
    features, lengths = torch.randn(1, 40, 20), torch.tensor([40])
    whole, _ = encoder(features, lengths)
    assert torch.equal(encoder(features, lengths)[0], whole)
    encoder.train()
    with torch.no_grad():
        outputs = [encoder(features, lengths)[0] for _ in range(400)]
        encoder.blocks = torch.nn.ModuleList()
        without, _ = encoder(features, lengths)
    skipped = sum(torch.equal(output, without) for output in outputs)
    assert 70 <= skipped <= 130  # 100 ± 3.5 standard deviations
    kept = next(output for output in outputs if not torch.equal(output, without))
    assert not torch.allclose(kept, whole)  # what is kept counts 1 / (1 - 0.25) times


def test_position_table_that_grew_equals_a_fresh_one() -> None:
    grown, fresh = RelativePositions(8), RelativePositions(8)
    grown(3)
    grown(10)
    torch.testing.assert_close(grown(7), fresh(7), atol=0, rtol=0)
