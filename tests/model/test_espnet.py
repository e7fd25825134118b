"""The network is ESPnet's: outputs, losses, gradients and checkpoints, compared with the original.

These comparisons are skipped where ESPnet is not installed (pyproject.toml says how). What they
expect is computed by ESPnet as they run. Equal lengths are compared in one batch; ragged batches
with ESPnet on one utterance at a time, since its batches depend on their padding before 202610, and
with its batches from that release on.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from model.decoder import AttentionDecoder
from model.espnet import from_espnet, to_espnet
from model.recogniser import Recogniser
from tests.model.beside_espnet import (
    INVARIANT,
    LENGTHS,
    MELS,
    NAMES,
    SHAPES,
    TOKEN_LENGTHS,
    TOKENS,
    VOCABULARY,
    assert_same_gradients,
    assert_same_losses,
    espnet_losses,
    espnet_model,
    exported,
    features_of,
    recogniser_of,
)
from tests.model.test_encoder import SMALL

pytestmark = pytest.mark.filterwarnings("ignore:.*autocast.*:FutureWarning")  # ESPnet's


@pytest.mark.parametrize(
    ("frames", "training"), [(7, False), (64, False), (64, True)], ids=["one", "eval", "train"]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_encoder_on_equal_lengths(
    espnet: SimpleNamespace, tmp_path: Path, shape: str, frames: int, training: bool
) -> None:
    recogniser = recogniser_of(**SHAPES[shape]).train(training)
    model = espnet_model(espnet, exported(recogniser), tmp_path).train(training)
    features, lengths = features_of(frames), torch.full((3,), frames)
    memory, memory_lengths = recogniser.encode(features, lengths, ragged=False)
    expected, expected_lengths = model.encode(features.clone(), lengths)
    torch.testing.assert_close(memory, expected, atol=3e-6, rtol=2e-6)
    assert torch.equal(memory_lengths, expected_lengths)
    # What BatchNorm remembers of the batch, which is all that this can have changed.
    theirs = from_espnet(exported(recogniser).config, model.state_dict()).state
    for name, tensor in recogniser.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_decoder_with_the_transcript_given(
    espnet: SimpleNamespace, tmp_path: Path, shape: str
) -> None:
    recogniser = recogniser_of(**SHAPES[shape]).eval()
    model = espnet_model(espnet, exported(recogniser), tmp_path).eval()
    torch.manual_seed(2)
    memory, lengths = torch.randn(3, 17, recogniser.config.encoder_dim), torch.tensor([17, 6, 12])
    edge = torch.full((3, 1), VOCABULARY - 1)
    given = torch.cat((edge, TOKENS.where(TOKENS >= 0, edge)), dim=1)
    decoder = recogniser.decoder
    assert isinstance(decoder, AttentionDecoder)
    logits = decoder(memory, lengths, given)
    expected, _ = model.decoder(memory, lengths, given, TOKEN_LENGTHS + 1)
    for row, length in enumerate(TOKEN_LENGTHS.tolist()):
        torch.testing.assert_close(
            logits[row, : length + 1], expected[row, : length + 1], atol=3e-6, rtol=2e-6
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_in_double_precision_the_difference_is_gone(
    espnet: SimpleNamespace, tmp_path: Path, shape: str
) -> None:
    """What is left in single precision is rounding, not another formula."""
    recogniser = recogniser_of(**SHAPES[shape])
    model = espnet_model(espnet, exported(recogniser), tmp_path).double().train()
    recogniser.double().train()
    features, lengths = features_of(64).double(), torch.full((3,), 64)
    memory, frames = recogniser.encode(features, lengths, ragged=False)
    normalised = (features - recogniser.feature_mean) / recogniser.feature_std
    expected, *_ = model.encoder(normalised, lengths)
    torch.testing.assert_close(memory, expected, atol=1e-13, rtol=0)
    tokens = torch.randint(VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(4))
    logits = recogniser.decoder(memory, frames, tokens)
    expected, _ = model.decoder(expected, frames, tokens, torch.full((3,), 5))
    torch.testing.assert_close(logits, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradients_on_equal_lengths(
    espnet: SimpleNamespace, tmp_path: Path, shape: str, training: bool
) -> None:
    recogniser = recogniser_of(**SHAPES[shape]).train(training)
    model = espnet_model(espnet, exported(recogniser), tmp_path).train(training)
    features, lengths = features_of(64), torch.full((3,), 64)
    losses = recogniser(features, lengths, TOKENS, TOKEN_LENGTHS, ragged=False)
    expected = espnet_losses(model, features, lengths, slice(None))
    assert_same_losses(losses, expected)
    losses.total.backward()
    expected["total"].backward()
    assert_same_gradients(recogniser, model)


@pytest.mark.parametrize("shape", INVARIANT)
def test_a_ragged_batch_is_its_utterances_one_at_a_time(
    espnet: SimpleNamespace, tmp_path: Path, shape: str
) -> None:
    recogniser = recogniser_of(**SHAPES[shape]).eval()
    model = espnet_model(espnet, exported(recogniser), tmp_path).eval()
    features = features_of()
    memory, memory_lengths = recogniser.encode(features, LENGTHS)
    losses = recogniser.losses(memory, memory_lengths, TOKENS, TOKEN_LENGTHS)
    losses.total.backward()
    expected = []
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = model.encode(features[row : row + 1, :length].clone(), LENGTHS[row : row + 1])
        torch.testing.assert_close(
            memory[row, : memory_lengths[row]], alone[0], atol=3e-6, rtol=2e-6
        )
        expected.append(espnet_losses(model, features, LENGTHS, slice(row, row + 1)))
        (expected[-1]["total"] / len(LENGTHS)).backward()
    assert_same_losses(
        losses,
        {
            name: None if loss is None else sum(e[name] for e in expected) / len(expected)
            for name, loss in expected[0].items()
        },
    )
    assert_same_gradients(recogniser, model)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shape", INVARIANT)
def test_losses_and_gradients_of_a_ragged_batch_that_does_not_leak(
    espnet: SimpleNamespace, tmp_path: Path, shape: str, training: bool
) -> None:
    if not espnet.invariant:
        pytest.skip("in ESPnet before 202610 padding leaks into the frames beside it")
    recogniser = recogniser_of(**SHAPES[shape], batch_norm="espnet").train(training)
    model = espnet_model(espnet, exported(recogniser), tmp_path).train(training)
    features = features_of()
    losses = recogniser(features, LENGTHS, TOKENS, TOKEN_LENGTHS)
    expected = espnet_losses(model, features, LENGTHS, slice(None))
    assert_same_losses(losses, expected)
    losses.total.backward()
    expected["total"].backward()
    assert_same_gradients(recogniser, model)
    theirs = from_espnet(exported(recogniser).config, model.state_dict()).state
    for name, tensor in recogniser.state_dict().items():  # what BatchNorm remembers
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=0)


def test_channels_that_espnet_has_more_say_nothing_and_learn_nothing(
    espnet: SimpleNamespace, tmp_path: Path
) -> None:
    recogniser = recogniser_of(subsampling_channels=3).train()
    model = espnet_model(espnet, exported(recogniser), tmp_path).train()
    assert model.encoder.embed.conv[2].weight.shape[:2] == (16, 16)
    features, lengths = features_of(64), torch.full((3,), 64)
    ours = recogniser(features, lengths, TOKENS, TOKEN_LENGTHS, ragged=False)
    theirs = espnet_losses(model, features, lengths, slice(None))
    assert_same_losses(ours, theirs)
    ours.total.backward()
    theirs["total"].backward()
    assert_same_gradients(recogniser, model)


def test_legacy_positions_are_not_the_latest_ones() -> None:
    """They have the same weights, so that one loads as the other without a word."""
    latest, legacy = recogniser_of().eval(), recogniser_of(position="legacy_rel_pos").eval()
    legacy.load_state_dict(latest.state_dict())
    features, lengths = features_of(64), torch.full((3,), 64)
    difference = latest.encode(features, lengths)[0] - legacy.encode(features, lengths)[0]
    assert difference.abs().max() > 0.01


@pytest.mark.parametrize("newer", [False, True], ids=["to 202511", "from 202609"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_checkpoint_that_travels_comes_back_the_same(shape: str, newer: bool) -> None:
    recogniser = recogniser_of(**SHAPES[shape])
    made = exported(recogniser)
    state = dict(made.state)
    if newer:
        for name in ("weight", "bias"):
            state[f"encoder.embed.out.{name}"] = state.pop(f"encoder.embed.out.0.{name}")
    found = from_espnet(yaml.safe_load(yaml.safe_dump(made.config)), state)
    assert (found.network, found.mels, found.vocabulary) == (recogniser.config, MELS, VOCABULARY)
    ours = recogniser.state_dict()
    assert set(found.state) == set(ours)
    assert all(torch.equal(found.state[name], ours[name]) for name in ours)
    again = to_espnet(found.network, found.state, tokens=NAMES)
    assert again.config == made.config
    assert list(again.state) == list(made.state)
    assert all(torch.equal(again.state[name], made.state[name]) for name in made.state)


def test_a_checkpoint_owns_its_memory() -> None:
    recogniser = recogniser_of()
    made = exported(recogniser)
    found = from_espnet(made.config, made.state)
    with torch.no_grad():
        for parameter in recogniser.parameters():
            parameter.zero_()
    assert made.state["encoder.after_norm.weight"].any()
    made.state["encoder.after_norm.weight"].zero_()
    assert found.state["encoder.norm.weight"].any()


@pytest.mark.parametrize("rel_pos_type", ["latest", "legacy", None])
def test_what_espnet_began_is_the_same_here(
    espnet: SimpleNamespace, tmp_path: Path, rel_pos_type: str | None
) -> None:
    """From a config.yaml as ESPnet writes it, with much left to its defaults."""
    made = exported(recogniser_of())
    encoder: dict[str, Any] = {"output_size": 16, "attention_heads": 2, "linear_units": 48, "num_blocks": 2,
               "attention_dropout_rate": 0.1, "macaron_style": True, "cnn_module_kernel": 5,
               "layer_drop_rate": 0.0}  # fmt: skip
    if rel_pos_type is not None:
        encoder["rel_pos_type"] = rel_pos_type
    config = {
        **made.config,
        "encoder_conf": encoder,
        "decoder_conf": {"attention_heads": 2, "linear_units": 32, "num_blocks": 1,
                         "self_attention_dropout_rate": 0.1, "src_attention_dropout_rate": 0.1},
        "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1, "length_normalized_loss": False},
        "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True,
                     "ignore_nan_grad": None, "zero_infinity": True},
        "max_epoch": 70,
    }  # fmt: skip
    torch.manual_seed(3)
    with torch.random.fork_rng():
        fresh = dataclasses.replace(made, config=config, state={})
        model = espnet_model(espnet, fresh, tmp_path).eval()
    state = model.state_dict()
    state["frontend.logmel.melmat"] = torch.randn(257, MELS)

    found = from_espnet(config, state)
    assert found.network.position == ("rel_pos" if rel_pos_type == "latest" else "legacy_rel_pos")
    assert found.network.dropout == 0.1
    assert found.network.encoder_feed_forward_ratio == 3
    recogniser = Recogniser(found.network, mels=found.mels, vocabulary=found.vocabulary).eval()
    recogniser.load_state_dict(found.state)
    features, lengths = features_of(64), torch.full((3,), 64)
    losses = recogniser(features, lengths, TOKENS, TOKEN_LENGTHS)
    assert_same_losses(losses, espnet_losses(model, features, lengths, slice(None)))
    expected, _ = model.encode(features.clone(), lengths)
    torch.testing.assert_close(
        recogniser.encode(features, lengths)[0], expected, atol=3e-6, rtol=2e-6
    )


def test_features_that_espnet_does_not_normalise_are_not_normalised() -> None:
    made = exported(recogniser_of())
    state = {key: tensor for key, tensor in made.state.items() if "normalize" not in key}
    found = from_espnet({**made.config, "normalize": None}, state)
    assert not found.state["feature_mean"].any()
    assert (found.state["feature_std"] == 1).all()


def test_precomputed_features_and_a_list_of_tokens_elsewhere() -> None:
    made = exported(recogniser_of())
    config = {**made.config, "input_size": MELS, "frontend": None, "token_list": "data/tokens.txt"}
    found = from_espnet(config, made.state)
    assert (found.mels, found.vocabulary) == (MELS, VOCABULARY)


@pytest.mark.parametrize(
    ("section", "changes", "sentence"),
    [
        (None, {"encoder": "e_branchformer"}, "encoder is 'e_branchformer' in ESPnet"),
        (None, {"decoder": "transducer"}, "decoder is 'transducer' in ESPnet"),
        (None, {"decoder": None}, "decoder is None in ESPnet"),
        (None, {"preencoder": "linear"}, "preencoder is 'linear'"),
        (None, {"frontend": "s3prl"}, "frontend is 's3prl'"),
        (None, {"normalize": "utterance_mvn"}, "normalize is 'utterance_mvn'"),
        (None, {"token_list": ["<sos/eos>", *NAMES[:-1]]}, "token_list has <sos/eos> before"),
        (None, {"token_list": [*NAMES[:-1], "k", "<sos/eos>"]}, "makes (13, 16) where the config"),
        ("frontend_conf", {"n_mels": 40}, "makes (20,) where the config asks for (40,)"),
        ("normalize_conf", {"norm_vars": False}, "normalize_conf.norm_vars is False"),
        ("encoder_conf", {"input_layer": "conv2d6"}, "input_layer is 'conv2d6'"),
        ("encoder_conf", {"num_blocks": 3}, "the state dict lacks encoder.encoders.2"),
        ("encoder_conf", {"num_blocks": 1}, "the state dict has encoder.encoders.1"),
        ("encoder_conf", {"cnn_module_kernel": 7}, "depthwise_conv.weight makes (16, 1, 5)"),
        ("encoder_conf", {"cnn_module_kernel": 4}, "conv_kernel_size 4 is even"),
        ("encoder_conf", {"linear_units": 40}, "only multiples of the width 16"),
        ("encoder_conf", {"use_cnn_module": False}, "use_cnn_module is False"),
        ("encoder_conf", {"stochastic_depth_rate": [0.0, 0.1]}, "stochastic_depth_rate differs"),
        ("encoder_conf", {"interctc_layer_idx": [1]}, "interctc_layer_idx is [1]"),
        ("encoder_conf", {"macaron_stile": True}, "encoder_conf.macaron_stile is not known here"),
        ("encoder_conf", {"pos_enc_layer_type": "scaled_abs_pos"}, "positions 'scaled_abs_pos'"),
        ("encoder_conf", {"selfattention_layer_type": "fast_selfattn"}, "'fast_selfattn'"),
        ("encoder_conf", {"rel_pos_type": "legacy", "max_pos_emb_len": 9000}, "only 5000 here"),
        ("encoder_conf", {"dropout_rate": 0.2}, "one rate for encoder_conf.dropout_rate 0.2, deco"),
        ("decoder_conf", {"src_attention_dropout_rate": 0.3}, "src_attention_dropout_rate 0.3"),
        ("decoder_conf", {"normalize_before": False}, "decoder_conf.normalize_before is False"),
        ("model_conf", {"ctc_weight": 1.0}, "always has a decoder"),
        ("model_conf", {"length_normalized_loss": True}, "length_normalized_loss is True"),
        ("ctc_conf", {"ctc_type": "brctc"}, "ctc_conf.ctc_type is 'brctc'"),
    ],
)
def test_what_this_network_has_not_is_refused(
    section: str | None, changes: dict[str, Any], sentence: str
) -> None:
    made = exported(recogniser_of())
    config = {**made.config, **(changes if section is None else {})}
    if section is not None:
        config[section] = {**config[section], **changes}
    with pytest.raises(ValueError) as refusal:
        from_espnet(config, made.state)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"decoder_dim": 24}, "decoder_dim 24 differs from encoder_dim 16"),
        ({"subsampling_channels": 20}, "subsampling_channels 20 is above encoder_dim 16"),
        ({"position": "clipped"}, "position 'clipped' does not exist in ESPnet"),
        ({"decoder": "transducer"}, "only networks with decoder 'attention'"),
    ],
)
def test_what_espnet_has_not_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        exported(recogniser_of(**changes))


def test_channels_that_are_the_width_and_the_beginning_of_embeddings_travel() -> None:
    made = exported(recogniser_of(subsampling_channels=16, embedding_init="scaled"))
    assert from_espnet(made.config, made.state).network == SMALL


@pytest.mark.parametrize(
    ("names", "sentence"),
    [(NAMES[:-1], "12 tokens are given"), (NAMES[::-1], "as the last token")],
)
def test_tokens_that_are_not_the_networks_are_refused(names: list[str], sentence: str) -> None:
    recogniser = recogniser_of()
    with pytest.raises(ValueError, match=sentence):
        to_espnet(recogniser.config, recogniser.state_dict(), tokens=names)


def test_stochastic_depth_skips_and_scales_as_espnets(
    espnet: SimpleNamespace, tmp_path: Path
) -> None:
    recogniser = recogniser_of(encoder_layers=4, stochastic_depth=0.5).train()
    model = espnet_model(espnet, exported(recogniser), tmp_path).train()
    features, lengths = torch.randn(2, 50, MELS), torch.full((2,), 50)
    for seed in range(6):  # the only draws, as there is no dropout
        torch.manual_seed(seed)
        ours, _ = recogniser.encoder(features, lengths)
        torch.manual_seed(seed)
        theirs = model.encoder(features, lengths)[0]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
