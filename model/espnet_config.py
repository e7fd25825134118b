"""What ESPnet's config.yaml and a `NetworkConfig` have in common, and what only one of them has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from model.config import NetworkConfig, conflicts, unread
from model.positions import LEGACY_TABLE

BOUNDARY = "<sos/eos>"

# What a config.yaml leaves out has the default of ESPnet's constructors. A section has choices that
# this network has too, fixed ones of which it has a single option (ESPnet's default each time), and
# some without effect on what is computed.
_CHOICES: dict[str, dict[str, Any]] = {
    "encoder_conf": {
        "output_size": 256,
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 6,
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "attention_dropout_rate": 0.0,
        "stochastic_depth_rate": 0.0,
        "macaron_style": False,
        "cnn_module_kernel": 31,
        "rel_pos_type": "legacy",
        "pos_enc_layer_type": "rel_pos",
        "selfattention_layer_type": "rel_selfattn",
        "max_pos_emb_len": LEGACY_TABLE,
    },
    "decoder_conf": {
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 6,
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "self_attention_dropout_rate": 0.0,
        "src_attention_dropout_rate": 0.0,
    },
    "model_conf": {"ctc_weight": 0.5, "lsm_weight": 0.0, "sym_sos": BOUNDARY, "sym_eos": BOUNDARY},
    "ctc_conf": {},
    "normalize_conf": {},
}
_FIXED: dict[str, dict[str, Any]] = {
    "encoder_conf": {
        "input_layer": "conv2d",
        "normalize_before": True,
        "concat_after": False,
        "positionwise_layer_type": "linear",
        "activation_type": "swish",
        "use_cnn_module": True,
        "zero_triu": False,
        "interctc_layer_idx": [],
        "interctc_use_conditioning": False,
        "qk_norm": False,
    },
    "decoder_conf": {
        "input_layer": "embed",
        "use_output_layer": True,
        "normalize_before": True,
        "concat_after": False,
        "qk_norm": False,
    },
    "model_conf": {
        "length_normalized_loss": False,
        "interctc_weight": 0.0,
        "ignore_id": -1,
        "lang_token_id": -1,
    },
    "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "zero_infinity": True},
    "normalize_conf": {"norm_means": True, "norm_vars": True},
}
_WITHOUT_EFFECT: dict[str, set[str]] = {
    "encoder_conf": {
        "positionwise_conv_kernel_size", "padding_idx", "layer_drop_rate", "ctc_trim",
        "use_flash_attn", "gradient_checkpoint_layers",
    },
    "decoder_conf": {"layer_drop_rate", "use_flash_attn", "gradient_checkpoint_layers"},
    "model_conf": {
        "report_cer", "report_wer", "sym_space", "sym_blank", "autocast_frontend",
        "extract_feats_in_collect_stats", "transducer_multi_blank_durations",
        "transducer_multi_blank_sigma", "aux_ctc",
    },
    "ctc_conf": {
        "ignore_nan_grad", "brctc_risk_strategy", "brctc_group_strategy", "brctc_risk_factor",
    },
    "normalize_conf": {"stats_file", "eps"},
}  # fmt: skip
_PARTS = {"encoder": "conformer", "decoder": "transformer", "model": "espnet",
          "preencoder": None, "postencoder": None}  # fmt: skip
_PARTS_LEFT_OUT = {"encoder": "rnn", "model": "espnet"}  # ESPnet's defaults, others are None

_POSITIONS = {  # pos_enc_layer_type and selfattention_layer_type
    "rel_pos": ("rel_pos", "rel_selfattn"),
    "legacy_rel_pos": ("legacy_rel_pos", "legacy_rel_selfattn"),
    "absolute": ("abs_pos", "selfattn"),
}
_NO_MATTER = {"embedding_init"}  # it is how training begins, and no part of what is trained


def network_of(config: Mapping[str, Any]) -> NetworkConfig:
    """The network that a config.yaml builds.

    Raises:
        ValueError: with one sentence, where there is no such network here.
    """
    for key, wanted in _PARTS.items():
        value = config.get(key, _PARTS_LEFT_OUT.get(key))
        if value != wanted:
            raise ValueError(f"{key} is {value!r} in ESPnet, and this network has only {wanted!r}")
    encoder, decoder = _section(config, "encoder_conf"), _section(config, "decoder_conf")
    model = _section(config, "model_conf")
    _section(config, "ctc_conf")
    if model["ctc_weight"] == 1:
        raise ValueError("model_conf.ctc_weight is 1, and this network always has a decoder")
    dim = encoder["output_size"]
    depth = encoder["stochastic_depth_rate"]
    if isinstance(depth, list):  # one for each block
        raise ValueError(
            "encoder_conf.stochastic_depth_rate differs from block to block in ESPnet, and "
            "this network has one"
        )
    network = NetworkConfig(
        encoder_layers=encoder["num_blocks"],
        encoder_dim=dim,
        attention_heads=encoder["attention_heads"],
        conv_kernel_size=encoder["cnn_module_kernel"],
        decoder_layers=decoder["num_blocks"],
        decoder_dim=dim,
        decoder_heads=decoder["attention_heads"],
        encoder_feed_forward_ratio=_ratio("encoder_conf", encoder["linear_units"], dim),
        decoder_feed_forward_ratio=_ratio("decoder_conf", decoder["linear_units"], dim),
        position=_position(encoder),  # type: ignore[arg-type]
        macaron=encoder["macaron_style"],
        dropout=_agreed({
            "encoder_conf.dropout_rate": encoder["dropout_rate"],
            "decoder_conf.dropout_rate": decoder["dropout_rate"],
        }),
        attention_dropout=_agreed({
            "encoder_conf.attention_dropout_rate": encoder["attention_dropout_rate"],
            "decoder_conf.self_attention_dropout_rate": decoder["self_attention_dropout_rate"],
            "decoder_conf.src_attention_dropout_rate": decoder["src_attention_dropout_rate"],
        }),
        positional_dropout=_agreed({
            "encoder_conf.positional_dropout_rate": encoder["positional_dropout_rate"],
            "decoder_conf.positional_dropout_rate": decoder["positional_dropout_rate"],
        }),
        stochastic_depth=depth,
        ctc_weight=model["ctc_weight"],
        label_smoothing=model["lsm_weight"],
    )  # fmt: skip
    for _, sentence in conflicts(network):
        raise ValueError(sentence)
    return network


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A section with ESPnet's defaults for what it leaves out, if this network can do the rest."""
    given: Mapping[str, Any] = config.get(name) or {}
    choices, fixed = _CHOICES[name], _FIXED[name]
    for key, value in given.items():
        if key in fixed and value != fixed[key]:
            raise ValueError(
                f"{name}.{key} is {value!r} in ESPnet, and this network has only {fixed[key]!r}"
            )
        if key not in choices and key not in fixed and key not in _WITHOUT_EFFECT[name]:
            raise ValueError(f"{name}.{key} is not known here, so it cannot be said what it does")
    return {**choices, **given}


def _ratio(section: str, units: int, dim: int) -> int:
    if units % dim:
        raise ValueError(
            f"{section}.linear_units is {units}, and this network has only multiples of the width "
            f"{dim}"
        )
    return units // dim


def _agreed(rates: Mapping[str, float]) -> float:
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        raise ValueError(f"this network has one rate for {listed}")
    return next(iter(rates.values()))


def _position(encoder: Mapping[str, Any]) -> str:
    kinds = (encoder["pos_enc_layer_type"], encoder["selfattention_layer_type"])
    if encoder["rel_pos_type"] == "legacy" and kinds == _POSITIONS["rel_pos"]:
        kinds = _POSITIONS["legacy_rel_pos"]
    if kinds not in _POSITIONS.values():
        raise ValueError(
            f"this network has no attention {kinds[1]!r} with positions {kinds[0]!r} of ESPnet"
        )
    position = next(name for name, theirs in _POSITIONS.items() if theirs == kinds)
    if position == "legacy_rel_pos" and encoder["max_pos_emb_len"] != LEGACY_TABLE:
        raise ValueError(
            f"encoder_conf.max_pos_emb_len is {encoder['max_pos_emb_len']} in ESPnet, and legacy "
            f"positions have only {LEGACY_TABLE} here"
        )
    return position


def mels_of(config: Mapping[str, Any]) -> int:
    """The number of mels of the features, if they are made and normalised as they are here."""
    normalize = config.get("normalize", "utterance_mvn")
    if normalize not in {"global_mvn", None}:
        raise ValueError(
            f"normalize is {normalize!r} in ESPnet, and this network has only 'global_mvn'"
        )
    _section(config, "normalize_conf")
    if config.get("input_size") is not None:
        return int(config["input_size"])
    frontend = config.get("frontend", "default")
    if frontend != "default":
        raise ValueError(
            f"frontend is {frontend!r} in ESPnet, and this network has only log-mel features"
        )
    return int((config.get("frontend_conf") or {}).get("n_mels", 80))


def vocabulary_of(config: Mapping[str, Any]) -> int | None:
    """The number of tokens; None where the config has but the path of their list."""
    tokens = config.get("token_list")
    if not isinstance(tokens, (list, tuple)):
        return None
    model = _section(config, "model_conf")
    for key in ("sym_sos", "sym_eos"):
        if model[key] in tokens[:-1]:
            raise ValueError(
                f"token_list has {model[key]} before its end, and here it is the last token"
            )
    return len(tokens)


def inexpressible(network: NetworkConfig) -> Iterator[str]:
    """What ESPnet cannot express of a network."""
    if network.decoder != "attention":
        yield f"only networks with decoder 'attention' can be exported, not {network.decoder!r}"
    if network.decoder_dim != network.encoder_dim:
        yield (
            f"decoder_dim {network.decoder_dim} differs from encoder_dim {network.encoder_dim}, "
            "and ESPnet's decoder is as wide as its encoder"
        )
    if (network.subsampling_channels or 0) > network.encoder_dim:
        yield (
            f"subsampling_channels {network.subsampling_channels} is above encoder_dim "
            f"{network.encoder_dim}, and ESPnet has as many channels as its encoder is wide"
        )
    if network.position not in _POSITIONS:
        yield f"position {network.position!r} does not exist in ESPnet"
    mapped = {
        "encoder_layers", "encoder_dim", "attention_heads", "conv_kernel_size", "decoder_layers",
        "decoder_dim", "decoder", "decoder_heads", "encoder_feed_forward_ratio",
        "decoder_feed_forward_ratio", "subsampling_channels", "position", "macaron", "dropout",
        "attention_dropout", "positional_dropout", "stochastic_depth", "ctc_weight",
        "label_smoothing", "batch_norm",
    }  # fmt: skip
    for field in fields(network):
        value = getattr(network, field.name)
        read = field.name not in _NO_MATTER and unread(network, field.name) is None
        if read and field.name not in mapped and value != field.default:
            yield f"{field.name} {value!r} cannot be exported to ESPnet"


def config_of(network: NetworkConfig, *, mels: int, tokens: Sequence[str]) -> dict[str, Any]:
    """The keys of config.yaml that build a network's model."""
    positions, attention = _POSITIONS[network.position]
    legacy = network.position == "legacy_rel_pos"
    return {
        "token_list": list(tokens),
        "init": None,
        "input_size": None,
        "frontend": "default",
        "frontend_conf": {"n_mels": mels},
        "specaug": None,
        "specaug_conf": {},
        "normalize": "global_mvn",
        "normalize_conf": {"stats_file": "feats_stats.npz"},
        "model": "espnet",
        "model_conf": {
            "ctc_weight": network.ctc_weight,
            "lsm_weight": network.label_smoothing,
            "length_normalized_loss": False,
        },
        "preencoder": None,
        "preencoder_conf": {},
        "encoder": "conformer",
        "encoder_conf": {
            "output_size": network.encoder_dim,
            "attention_heads": network.attention_heads,
            "linear_units": network.encoder_feed_forward_ratio * network.encoder_dim,
            "num_blocks": network.encoder_layers,
            "dropout_rate": network.dropout,
            "positional_dropout_rate": network.positional_dropout,
            "stochastic_depth_rate": network.stochastic_depth,
            "attention_dropout_rate": network.attention_dropout,
            "input_layer": "conv2d",
            "normalize_before": True,
            "macaron_style": network.macaron,
            "rel_pos_type": "legacy" if legacy else "latest",
            "pos_enc_layer_type": positions,
            "selfattention_layer_type": attention,
            "activation_type": "swish",
            "use_cnn_module": True,
            "cnn_module_kernel": network.conv_kernel_size,
        },
        "postencoder": None,
        "postencoder_conf": {},
        "decoder": "transformer",
        "decoder_conf": {
            "attention_heads": network.decoder_heads,
            "linear_units": network.decoder_feed_forward_ratio * network.decoder_dim,
            "num_blocks": network.decoder_layers,
            "dropout_rate": network.dropout,
            "positional_dropout_rate": network.positional_dropout,
            "self_attention_dropout_rate": network.attention_dropout,
            "src_attention_dropout_rate": network.attention_dropout,
            "input_layer": "embed",
        },
        "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True},
    }
