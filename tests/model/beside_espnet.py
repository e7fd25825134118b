"""A network and ESPnet's with the same weights: what comparisons of the two share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from model.espnet import EspnetCheckpoint, to_espnet
from model.recogniser import Losses, Recogniser
from tests.model.test_encoder import SMALL

MELS, VOCABULARY = 20, 13
NAMES = ["<blank>", "<unk>", *"abcdefghij", "<sos/eos>"]
LENGTHS = torch.tensor([75, 31, 52])
TOKENS = torch.tensor([[3, 3, 7, 2], [5, -1, -1, -1], [11, 2, 9, -1]])
TOKEN_LENGTHS = torch.tensor([4, 1, 3])

SHAPES: dict[str, dict[str, Any]] = {
    "small": {},
    "one of each": {"encoder_layers": 1, "attention_heads": 1, "conv_kernel_size": 3},
    "plain feed-forward": {"macaron": False, "conv_kernel_size": 7},
    "many heads, wide kernel": {"attention_heads": 8, "decoder_heads": 4, "conv_kernel_size": 31},
    "other widths": {"encoder_dim": 24, "decoder_dim": 24, "attention_heads": 3,
                     "decoder_heads": 6, "encoder_feed_forward_ratio": 3,
                     "decoder_feed_forward_ratio": 5, "decoder_layers": 2},
    "deep": {"encoder_layers": 5, "decoder_layers": 3, "conv_kernel_size": 15},
    "decoder alone": {"ctc_weight": 0.0, "label_smoothing": 0.0},
    "absolute": {"position": "absolute"},
    "absolute, one head": {"position": "absolute", "attention_heads": 1, "macaron": False},
    "legacy": {"position": "legacy_rel_pos"},
    "legacy, many heads": {"position": "legacy_rel_pos", "attention_heads": 4,
                           "conv_kernel_size": 9},
}  # fmt: skip
INVARIANT = [name for name in SHAPES if not name.startswith("legacy")]


def recogniser_of(**changes: Any) -> Recogniser:
    """A network none of whose weights is what it is at the beginning of training."""
    torch.manual_seed(0)
    network = dataclasses.replace(SMALL, **changes)
    recogniser = Recogniser(network, mels=MELS, vocabulary=VOCABULARY)
    for parameter in recogniser.parameters():
        if parameter.dim() == 1:  # norms and biases
            nn.init.normal_(parameter, mean=float(parameter.detach().mean().round()), std=0.2)
    for name, buffer in recogniser.named_buffers():
        if name.endswith(("running_mean", "feature_mean")):
            nn.init.normal_(buffer, std=0.3)
        elif name.endswith(("running_var", "feature_std")):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return recogniser


def exported(recogniser: Recogniser) -> EspnetCheckpoint:
    """The network as ESPnet's checkpoint."""
    return to_espnet(recogniser.config, recogniser.state_dict(), tokens=NAMES)


def espnet_of(
    espnet: SimpleNamespace, config: dict[str, Any], folder: Path, frontend: Any = None
) -> Any:
    """What ESPnet's `asr` task builds from a config.yaml; `folder` has the statistics."""
    vocabulary = len(config["token_list"])
    mels = frontend.output_size() if frontend else config["frontend_conf"]["n_mels"]
    encoder = espnet.ConformerEncoder(input_size=mels, **config["encoder_conf"])
    width = encoder.output_size()
    return espnet.ESPnetASRModel(
        vocab_size=vocabulary,
        token_list=config["token_list"],
        frontend=frontend,
        specaug=None,
        normalize=espnet.GlobalMVN(folder / config["normalize_conf"]["stats_file"]),
        preencoder=None,
        encoder=encoder,
        postencoder=None,
        decoder=espnet.TransformerDecoder(
            vocab_size=vocabulary, encoder_output_size=width, **config["decoder_conf"]
        ),
        ctc=espnet.CTC(odim=vocabulary, encoder_output_size=width, **config["ctc_conf"]),
        joint_network=None,
        report_cer=False,
        report_wer=False,
        **config["model_conf"],
    )


def espnet_model(espnet: SimpleNamespace, made: EspnetCheckpoint, folder: Path) -> Any:
    """ESPnet's model of a checkpoint, with its state loaded if there is one."""
    config = yaml.safe_load(yaml.safe_dump(made.config))
    np.savez(folder / config["normalize_conf"]["stats_file"], **made.statistics)
    model = espnet_of(espnet, config, folder)
    if made.state:
        for name in ("mean", "std"):  # as ESPnet has them from feats_stats.npz
            statistic = getattr(model.normalize, name).float()
            torch.testing.assert_close(statistic, made.state[f"normalize.{name}"])
        model.load_state_dict(made.state, strict=True)
    return model


def features_of(frames: int = int(LENGTHS.max())) -> Tensor:
    """A batch of so many frames each."""
    torch.manual_seed(1)
    return torch.randn(len(LENGTHS), frames, MELS)


def espnet_losses(model: Any, features: Tensor, lengths: Tensor, rows: slice) -> dict[str, Any]:
    """What ESPnet loses on some of the utterances, by the names of `Losses`."""
    longest = int(TOKEN_LENGTHS[rows].max())
    total, parts, _ = model(
        features[rows, : int(lengths[rows].max())].clone(),  # ESPnet writes into what it is given
        lengths[rows],
        TOKENS[rows, :longest].clone(),
        TOKEN_LENGTHS[rows],
    )
    losses = {"total": total, "ctc": parts.get("loss_ctc"), "decoder": parts["loss_att"]}
    return {name: None if loss is None else loss.squeeze() for name, loss in losses.items()}


def assert_same_losses(ours: Losses, theirs: dict[str, Any]) -> None:
    """Each loss is the same, or neither has it."""
    for name, expected in theirs.items():
        loss = getattr(ours, name)
        if expected is None:
            assert loss is None
        else:
            torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-5, atol=0)


def assert_same_gradients(recogniser: Recogniser, model: Any) -> None:
    """Ours are put where ESPnet has its own by exporting them like weights."""
    gradients = {n: p.grad for n, p in recogniser.named_parameters() if p.grad is not None}
    state = {**recogniser.state_dict(), **gradients}
    ours = to_espnet(recogniser.config, state, tokens=NAMES).state
    theirs = {name.replace("embed.out.0.", "embed.out."): p for name, p in model.named_parameters()}
    ours = {name.replace("embed.out.0.", "embed.out."): tensor for name, tensor in ours.items()}
    assert len(gradients) == len(list(recogniser.parameters()))
    assert {name for name in ours if name in theirs} == set(theirs)
    for name, parameter in theirs.items():
        torch.testing.assert_close(ours[name], parameter.grad, atol=2e-4, rtol=0)
