"""The transducer: loss against Graves' recursion, decoding against walking one step at a time."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model import transducer
from model.config import READERS, NetworkConfig, conflicts, unread
from model.counting import cost
from model.ctc import BLANK
from model.recogniser import Recogniser
from model.transducer import SYMBOLS_PER_FRAME, Transducer
from tests.model.test_encoder import SMALL

VOCABULARY = 7
CONFIG = dataclasses.replace(SMALL, decoder="transducer", decoder_dim=12, joint_dim=10)
LENGTHS = torch.tensor([5, 8, 1, 8])
TOKENS = torch.tensor([[3, 3, 4, 2], [5, -1, -1, -1], [1, 2, 6, -1], [-1, -1, -1, -1]])
TOKEN_LENGTHS = torch.tensor([4, 1, 3, 0])


def _transducer(
    *, lively: bool = False, vocabulary: int = VOCABULARY, **changes: Any
) -> Transducer:
    """A random one; `lively`: with weights so large that each token changes what is likely next."""
    torch.manual_seed(1)
    decoder = Transducer(dataclasses.replace(CONFIG, **changes), vocabulary).eval()
    if lively:
        for parameter in decoder.prediction.lstm.parameters():
            torch.nn.init.normal_(parameter)
        torch.nn.init.normal_(decoder.joint.target.weight)
        torch.nn.init.normal_(decoder.joint.output.weight)
        decoder.joint.output.bias.data[BLANK] += 2  # as the blank is what is mostly right
    return decoder


def _memory(seed: int = 0) -> Tensor:
    return torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(seed))


def _log_likelihood(decoder: Transducer, memory: Tensor, tokens: list[int]) -> Tensor:
    """Graves 2012, equations 15 to 18: alpha(t, u), by plain loops; memory `(T, E)`."""
    given = torch.tensor([[BLANK, *tokens]])
    logits: Tensor = decoder(memory[None], torch.tensor([len(memory)]), given)[0]
    scores = logits.double().log_softmax(dim=-1)  # (T, U+1, V)
    frames, positions, _ = scores.shape
    alpha: dict[tuple[int, int], Tensor] = {(0, 0): torch.zeros((), dtype=torch.float64)}
    for t, u in itertools.product(range(frames), range(positions)):
        ways = []
        if t > 0:
            ways.append(alpha[t - 1, u] + scores[t - 1, u, BLANK])
        if u > 0:
            ways.append(alpha[t, u - 1] + scores[t, u - 1, tokens[u - 1]])
        if ways:
            alpha[t, u] = torch.stack(ways).logsumexp(dim=0)
    return alpha[frames - 1, positions - 1] + scores[-1, -1, BLANK]


def _greedy(decoder: Transducer, memory: Tensor) -> list[int]:
    """One utterance, one step at a time, the prediction network anew for each; memory `(T, E)`."""
    tokens: list[int] = []
    for frame in memory:
        for _ in range(SYMBOLS_PER_FRAME):
            given = torch.tensor([[BLANK, *tokens]])
            logits = decoder(frame[None, None], torch.tensor([1]), given)[0, 0, -1]
            best = int(logits.argmax())
            if best == BLANK:
                break
            tokens.append(best)
    return tokens


def _gradients(decoder: Transducer, memory: Tensor, loss: Tensor) -> list[Tensor]:
    wanted = [p for name, p in decoder.named_parameters() if "lstm.bias_hh" not in name]
    return list(torch.autograd.grad(loss, [memory, *wanted]))


@pytest.mark.parametrize("layers", [1, 2])
def test_loss_is_graves_recursion_and_so_are_its_gradients(layers: int) -> None:
    decoder = _transducer(decoder_layers=layers)
    memory = _memory().requires_grad_()
    loss = decoder.loss(memory, LENGTHS, TOKENS, TOKEN_LENGTHS)
    rows = zip(memory, LENGTHS.tolist(), TOKENS.tolist(), TOKEN_LENGTHS.tolist(), strict=True)
    expected = -torch.stack(
        [
            _log_likelihood(decoder, row[:frames], given[:count])
            for row, frames, given, count in rows
        ]
    )
    torch.testing.assert_close(loss.double(), expected.sum() / 4, rtol=1e-6, atol=1e-6)
    found, wanted = (_gradients(decoder, memory, value) for value in (loss, expected.sum() / 4))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_stands_in_the_padding_changes_no_loss_and_gets_no_gradient() -> None:
    decoder = _transducer()
    memory = _memory()
    loss = decoder.loss(memory, LENGTHS, TOKENS, TOKEN_LENGTHS)
    other = torch.nn.functional.pad(memory, (0, 0, 0, 3)).requires_grad_()  # longer than any
    hidden = torch.arange(11) >= LENGTHS[:, None]
    with torch.no_grad():
        other[hidden] = 100.0
    tokens = torch.nn.functional.pad(TOKENS, (0, 2), value=-1)
    padded = decoder.loss(other, LENGTHS, tokens, TOKEN_LENGTHS)
    torch.testing.assert_close(padded, loss)
    (gradient,) = torch.autograd.grad(padded, other)
    assert gradient[hidden].abs().max() == 0


@pytest.mark.parametrize("values", [1, 8 * 5 * 10 * 2])
def test_slices_bound_the_joint_network_and_change_neither_loss_nor_gradients(
    values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = _transducer()
    memory = _memory().requires_grad_()
    whole = decoder.loss(memory, LENGTHS, TOKENS, TOKEN_LENGTHS)
    expected = _gradients(decoder, memory, whole)
    shapes: list[torch.Size] = []
    decoder.joint.output.register_forward_hook(lambda m, given, out: shapes.append(given[0].shape))
    monkeypatch.setattr(transducer, "SLICE_VALUES", values)
    sliced = decoder.loss(memory, LENGTHS, TOKENS, TOKEN_LENGTHS)
    assert len(shapes) == (4 if values == 1 else 2)
    assert all(shape[0] == 1 or math.prod(shape) <= values for shape in shapes)
    torch.testing.assert_close(sliced, whole)
    for one, other in zip(_gradients(decoder, memory, sliced), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_low_precision_products_still_give_a_loss_in_float32() -> None:
    decoder, memory = _transducer().train(), _memory().requires_grad_()
    whole = decoder.loss(memory, LENGTHS, TOKENS, TOKEN_LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        low = decoder.loss(memory, LENGTHS, TOKENS, TOKEN_LENGTHS)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, whole, rtol=0.02, atol=0.02)
    assert torch.autograd.grad(low, memory)[0].isfinite().all()


@pytest.mark.parametrize("layers", [1, 2])
def test_greedy_decoding_of_a_batch_is_walking_step_by_step(layers: int) -> None:
    decoder = _transducer(lively=True, decoder_layers=layers)
    lengths: set[int] = set()
    for seed in range(6):
        memory = _memory(seed)
        with torch.no_grad():
            together = decoder.decode(memory, LENGTHS)
            for row, hypothesis in enumerate(together):
                alone = memory[row, : LENGTHS[row]]
                assert hypothesis == _greedy(decoder, alone)
                assert [hypothesis] == decoder.decode(alone[None], LENGTHS[row : row + 1])
                lengths.add(len(hypothesis))
    assert len(lengths) > 4


def test_greedy_decoding_leaves_a_frame_on_which_it_would_write_for_ever() -> None:
    decoder = _transducer()
    torch.nn.init.zeros_(decoder.joint.output.weight)
    decoder.joint.output.bias.data = torch.eye(VOCABULARY)[3]
    written = decoder.decode(_memory(), LENGTHS)
    assert written == [[3] * SYMBOLS_PER_FRAME * n for n in LENGTHS.tolist()]
    decoder.joint.output.bias.data = torch.eye(VOCABULARY)[BLANK]
    assert decoder.decode(_memory(), LENGTHS) == [[], [], [], []]


def test_a_beam_of_one_is_greedy_decoding() -> None:
    compared = 0
    decoder = _transducer(lively=True)
    for seed in range(6):
        memory = _memory(seed)
        found = decoder.beam_search(memory, LENGTHS, beam=1)
        for hypothesis, greedy in zip(found, decoder.decode(memory, LENGTHS), strict=True):
            if len(greedy) < SYMBOLS_PER_FRAME:  # else only greedy decoding leaves the frame
                assert hypothesis.tokens == greedy
                compared += bool(greedy)
    assert compared > 12


def test_a_wide_beam_finds_the_most_likely_of_all_transcripts_with_all_its_walks() -> None:
    decoder = _transducer(lively=True, vocabulary=4)
    decoder.joint.output.bias.data[BLANK] -= 1.5
    differs = 0
    for seed in (2, 4, 5, 6, 8):
        memory = _memory(seed)[:1, :3]
        with torch.no_grad():
            likelihood = {
                tokens: float(_log_likelihood(decoder, memory[0], list(tokens)))
                for length in range(5)
                for tokens in itertools.product(range(1, 4), repeat=length)
            }
        best = max(likelihood, key=likelihood.__getitem__)
        (found,) = decoder.beam_search(memory, torch.tensor([3]), beam=500)
        (greedy,) = decoder.decode(memory, torch.tensor([3]))
        assert tuple(found.tokens) == best
        assert found.log_probability == pytest.approx(likelihood[best], abs=1e-4)
        with torch.no_grad():
            assert likelihood[best] >= float(_log_likelihood(decoder, memory[0], greedy))
        differs += tuple(greedy) != best
    assert differs  # else greedy decoding would do


def test_a_wider_beam_counts_more_walks_and_never_more_than_there_are() -> None:
    decoder = _transducer(lively=True)
    memory = _memory()
    missed: dict[int, float] = {}
    for beam in (1, 4, 64):
        for row, found in enumerate(decoder.beam_search(memory, LENGTHS, beam)):
            with torch.no_grad():
                exact = _log_likelihood(decoder, memory[row, : LENGTHS[row]], found.tokens)
            assert found.log_probability <= float(exact) + 1e-4
            missed[beam] = missed.get(beam, 0.0) + float(exact) - found.log_probability
    assert missed[1] > missed[4] > 10 * missed[64] >= -1e-3


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_the_recogniser_trains_and_transcribes_with_it(ctc_weight: float) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, ctc_weight=ctc_weight)
    recogniser = Recogniser(config, mels=20, vocabulary=VOCABULARY)
    tokens, counts = TOKENS[:2, :3].contiguous(), torch.tensor([3, 1])
    losses = recogniser(torch.randn(2, 60, 20), torch.tensor([60, 40]), tokens, counts)
    if ctc_weight:
        assert losses.ctc is not None
        torch.testing.assert_close(losses.total, 0.3 * losses.ctc + 0.7 * losses.decoder)
    else:
        assert losses.ctc is None
        assert losses.total is losses.decoder
    losses.total.backward()
    missing = [n for n, p in recogniser.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in missing if name.startswith("decoder")] == []
    transcripts = recogniser.eval().transcribe(
        *recogniser.encode(torch.randn(2, 60, 20), torch.tensor([60, 40]))
    )
    assert len(transcripts.decoder) == 2


OF_THE_DECODER = [name for name, (chooser, _) in READERS.items() if chooser == "decoder"]


@pytest.mark.parametrize("name", [*OF_THE_DECODER, "decoder_layers", "decoder_dim", "dropout"])
def test_a_field_acts_on_the_transducer_or_is_said_to_make_no_difference(name: str) -> None:
    other: Any = {"embedding_init": "scaled", "label_smoothing": 0.5, "dropout": 0.5}.get(name, 3)

    def outcome(**changes: Any) -> tuple[list[torch.Size], float]:
        decoder = _transducer(**changes).train()
        torch.manual_seed(2)
        loss = decoder.loss(_memory(), LENGTHS, TOKENS, TOKEN_LENGTHS).item()
        return [p.shape for p in decoder.parameters()], loss

    changed = outcome(**{name: other}) != outcome()
    assert changed == (unread(CONFIG, name) is None)


def test_a_field_of_the_other_decoder_is_named_with_the_remedy() -> None:
    assert unread(CONFIG, "label_smoothing") == (
        "makes no difference with network.decoder 'transducer', only with 'attention': "
        "take it out, or choose 'attention'"
    )
    assert "only with 'transducer'" in (unread(SMALL, "joint_dim") or "")
    assert unread(SMALL, "label_smoothing") is None


def test_any_decoder_width_is_possible() -> None:
    odd = dataclasses.replace(CONFIG, decoder_dim=321)
    assert not list(conflicts(odd))
    assert list(conflicts(dataclasses.replace(odd, decoder="attention")))


@pytest.mark.parametrize(
    ("layers", "dim", "heads", "decoder_dim", "encoder", "total"),
    [
        (16, 144, 4, 320, 8_690_400, 10_793_824),  # published: 10.3 M
        (16, 256, 4, 640, 27_262_464, 32_430_208),  # 30.7 M
        (17, 512, 8, 640, 114_850_304, 120_181_888),  # 118.8 M
    ],
)
def test_the_papers_networks_have_the_documented_sizes(
    layers: int, dim: int, heads: int, decoder_dim: int, encoder: int, total: int
) -> None:
    config = NetworkConfig(
        encoder_layers=layers,
        encoder_dim=dim,
        attention_heads=heads,
        decoder_layers=1,
        decoder_dim=decoder_dim,
        decoder="transducer",
        ctc_weight=0.0,
    )
    lstm = 4 * (2 * decoder_dim * decoder_dim + 2 * decoder_dim)
    joint = 640 * (dim + 1) + 640 * decoder_dim + 1024 * (640 + 1)
    assert encoder + 1024 * decoder_dim + lstm + joint == total
    assert cost(config, mels=80, vocabulary=1024, seconds=1.0).parameters == total
    assert f"{total / 1e6:.2f}" in (transducer.__doc__ or "")


def test_flops_count_the_lstm_and_the_joint_network() -> None:
    vocabulary, frames, tokens, layers = 11, 7, 5, 2
    e, d, j = CONFIG.encoder_dim, CONFIG.decoder_dim, CONFIG.joint_dim
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder = Transducer(dataclasses.replace(CONFIG, decoder_layers=layers), vocabulary)
        decoder(torch.empty(1, frames, e), torch.full((1,), frames), torch.zeros(1, tokens).long())
    lstm = layers * tokens * 2 * 4 * d * (d + d)
    joint = 2 * frames * e * j + 2 * tokens * d * j + 2 * frames * tokens * j * vocabulary
    assert counter.get_total_flops() == lstm + joint
    config = dataclasses.replace(CONFIG, ctc_weight=0.0)
    one, two = (
        cost(
            dataclasses.replace(config, decoder_layers=n),
            mels=20,
            vocabulary=vocabulary,
            seconds=2.0,
        )
        for n in (1, 2)
    )
    extra = 20 * 2 * 4 * d * (d + d)  # 10 tokens a second
    assert (two.flops_per_second - one.flops_per_second) * 2.0 == pytest.approx(extra)
