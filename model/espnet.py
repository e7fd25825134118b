"""Checkpoints from ESPnet, and to it.

    found = from_espnet(yaml.safe_load(config_file), torch.load("valid.acc.ave_10best.pth"))
    recogniser = Recogniser(found.network, mels=found.mels, vocabulary=found.vocabulary)
    recogniser.load_state_dict(found.state)

    made = to_espnet(network, recogniser.state_dict(), tokens=tokens)
    yaml.safe_dump(made.config, config_file)
    torch.save(made.state, "model.pth")
    np.savez("feats_stats.npz", **made.statistics)

Nothing of ESPnet is imported. Weights move without arithmetic, so outputs stay the same; the
features must be made the same way too (`frontend_conf`), which is not the network's business. What
one side has and the other has not is refused by a `ValueError` with one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.config import NetworkConfig
from model.espnet_config import (
    BOUNDARY,
    config_of,
    inexpressible,
    mels_of,
    network_of,
    vocabulary_of,
)
from model.espnet_weights import pairs
from model.recogniser import Recogniser


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained network, as `Recogniser` takes it."""

    network: NetworkConfig
    mels: int
    vocabulary: int
    state: dict[str, Tensor]
    """For `Recogniser.load_state_dict`, the normalisation of features included."""


@dataclass(frozen=True, kw_only=True)
class EspnetCheckpoint:
    """A trained network, as ESPnet's `asr` task takes it."""

    config: dict[str, Any]
    """The keys of config.yaml that build the model. Of the frontend it has the number of mels
    alone, and of the tokens no more than their list: add what the features and the tokens were made
    with."""
    state: dict[str, Tensor]
    """For `ESPnetASRModel.load_state_dict`."""
    statistics: dict[str, Any]
    """`count`, `sum` and `sum_square` of the features: the arrays of `feats_stats.npz`, from which
    ESPnet builds the normalisation before it loads the state."""


def from_espnet(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Checkpoint:
    """What ESPnet's config.yaml and a state dict of its `ESPnetASRModel` are here.

    Keys of releases before and after 202609 are both read. A config that does not set
    `rel_pos_type` has trained legacy positions, as that is ESPnet's default.

    Raises:
        ValueError: with one sentence, where this network does not have what the config asks for,
            or where the state dict is not of this config.
    """
    state = {_older(key): tensor for key, tensor in state.items()}
    network, mels = network_of(config), mels_of(config)
    vocabulary = vocabulary_of(config) or len(state.get("decoder.output_layer.bias", ()))
    with torch.device("meta"):
        expected = Recogniser(network, mels=mels, vocabulary=vocabulary).state_dict()
    found: dict[str, Tensor] = {}
    if config.get("normalize", "utterance_mvn") is None:
        found = {"feature_mean": torch.zeros(mels), "feature_std": torch.ones(mels)}

    wanted = [pair for pair in pairs(network) if pair.ours not in found]
    missing = [key for pair in wanted for key in pair.theirs if key not in state]
    if missing:
        raise ValueError(f"the state dict lacks {_some(missing)}")
    read = {key for pair in wanted for key in pair.theirs}
    surplus = [key for key in state if key not in read and not _is_bookkeeping(key)]
    if surplus:
        raise ValueError(f"the state dict has {_some(surplus)}, which this network has not")

    for pair in wanted:
        found[pair.ours] = pair.join([state[key] for key in pair.theirs])
        shape, right = tuple(found[pair.ours].shape), tuple(expected[pair.ours].shape)
        if shape != right:
            raise ValueError(
                f"{' + '.join(pair.theirs)} makes {shape} where the config asks for {right}"
            )
    for key in ("feature_mean", "feature_std"):
        found[key] = found[key].float()  # ESPnet keeps the type of feats_stats.npz
    return Checkpoint(network=network, mels=mels, vocabulary=vocabulary, state=found)


def to_espnet(
    network: NetworkConfig, state: Mapping[str, Tensor], *, tokens: Sequence[str]
) -> EspnetCheckpoint:
    """What a network is in ESPnet: state of `Recogniser.state_dict`, tokens in order of their ids.

    ESPnet's front block has as many channels as the encoder is wide. Those that a network with
    fewer lacks are zero, and so is what they say: outputs stay the same. Of BatchNorm,
    `num_batches_tracked` is 0: nothing reads it.

    Raises:
        ValueError: with one sentence, where ESPnet cannot express the network.
    """
    for sentence in inexpressible(network):
        raise ValueError(sentence)
    vocabulary = len(state["decoder.output.bias"])
    if len(tokens) != vocabulary:
        raise ValueError(f"{len(tokens)} tokens are given, and the network has {vocabulary}")
    if BOUNDARY in tokens[:-1]:
        raise ValueError(f"ESPnet needs {BOUNDARY} as the last token, not among the others")
    made: dict[str, Tensor] = {}
    for pair in pairs(network):
        made |= pair.split(state[pair.ours])
    if network.subsampling_channels is not None:
        made |= _with_all_channels(made, network.subsampling_channels, network.encoder_dim)
    for layer in range(network.encoder_layers):
        key = f"encoder.encoders.{layer}.conv_module.norm.num_batches_tracked"
        made[key] = torch.tensor(0)
    mean, std = (state[key].double().cpu().numpy() for key in ("feature_mean", "feature_std"))
    return EspnetCheckpoint(
        config=config_of(network, mels=len(mean), tokens=tokens),
        state=made,
        statistics={"count": np.array(1), "sum": mean, "sum_square": mean**2 + std**2},
    )


def _with_all_channels(state: Mapping[str, Tensor], channels: int, dim: int) -> dict[str, Tensor]:
    """The front block with zeros for the channels that it has not: `dim` of them instead."""
    lacking = dim - channels
    first, second = (f"encoder.embed.conv.{place}" for place in (0, 2))
    linear = "encoder.embed.out.0.weight"  # (D, C F'), one channel after the other
    bands = state[linear].shape[1] // channels
    pads = {  # of each dimension, the last one first
        f"{first}.weight": (0, 0, 0, 0, 0, 0, 0, lacking),
        f"{first}.bias": (0, lacking),
        f"{second}.weight": (0, 0, 0, 0, 0, lacking, 0, lacking),
        f"{second}.bias": (0, lacking),
        linear: (0, lacking * bands),
    }
    return {name: functional.pad(state[name], pad) for name, pad in pads.items()}


def _older(key: str) -> str:
    """The name of a tensor before release 202609."""
    return re.sub(r"^(encoder\.embed\.out)\.(weight|bias)$", r"\1.0.\2", key)


def _is_bookkeeping(key: str) -> bool:
    return key.startswith("frontend.") or key.endswith(".num_batches_tracked")


def _some(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
