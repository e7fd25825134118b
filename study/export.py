"""A trained network as a folder that ESPnet takes: to recognise with it, or to train it further.

    export_espnet(chosen, Path("runs/laptop/espnet"))       # chosen: from study.winner

    config.yaml       builds ESPnet's `ESPnetASRModel`, its frontend included
    model.pth         the state dict of that model, which loads strictly
    feats_stats.npz   what ESPnet builds the normalisation of features from
    tokens.txt        the tokens; with pieces, bpe.model is SentencePiece's model
    decode.yaml       the study's beam search, for `asr_inference --config`
    README.md         how to use all that, and what differs from the study

Features: `LogMel` and ESPnet's `DefaultFrontend` are one definition (power spectrum of a periodic
Hann window, centred, reflected at the ends; Slaney mel bands from 0 Hz to half the sample rate;
natural logarithm of at least 1e-10; samples from -1 to 1; neither dither nor pre-emphasis), so all
of it is expressed. From the audio of one utterance, log-mel features, the encoder's output and the
log probabilities of tokens are the same to 1e-4 (on the default study's test speech to 4e-6).
What differs is said in `README.md` of the folder.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import yaml

from model.beam_search import CTC_WEIGHT
from model.espnet import to_espnet
from model.espnet_config import inexpressible
from study.config import StudyConfig
from study.data.features import LogMel
from study.data.tokens import MODEL
from study.errors import InputError
from study.transcription.trained import Trained, load
from study.winner import trained

_README = """\
# {label} of the study '{study}' for ESPnet

Trial {trial}, {wer:.1%} WER on dev (greedy){test}. Tried with ESPnet 202511 and 202611.

Run ESPnet in this folder, since the paths in `config.yaml` are relative to it:

    import yaml
    from espnet2.bin.asr_inference import Speech2Text
    recognise = Speech2Text("config.yaml", "model.pth", **yaml.safe_load(open("decode.yaml")))
    recognise(samples)[0][0]    # of one channel at {sample_rate} Hz, from -1 to 1

or train the network further: `asr_train --config config.yaml --init_param model.pth` and your data.

What is not the same as in the study:

- The study averages channels and resamples to {sample_rate} Hz. ESPnet does neither: do it before.
- The study keeps features in float16. ESPnet's are float32, which moves log-mel values by up to
  0.01. Features of the same precision agree to 0.0001.
- In a batch, ESPnet pads the audio before it computes features, so that the last frames of shorter
  utterances hear zeros where the study hears the end of the utterance reflected. One utterance at a
  time is the same. Releases before 202610 also give a padded batch another encoder output.
- To train further: SpecAugment and the optimiser are not in `config.yaml`, and ESPnet's BatchNorm
  counts the padding of a batch, which the study's does only with `network.batch_norm: espnet`.
{channels}"""
_CHANNELS = """\
- The front block has {channels} channels in the study and {dim} here, since ESPnet's has as many as
  the encoder is wide. The others are zero, and stay zero in training.
"""


def expressible(config: StudyConfig, study: optuna.Study, chosen: Trained) -> Trained:
    """The same network; raises `InputError` with all that ESPnet cannot express of it.

    The message names the best other trial whose network ESPnet can express.
    """
    faults = list(inexpressible(chosen.network))
    if not faults:
        return chosen
    remedy = "none of the study's trials can be"
    for other in _by_wer(config, study):
        if not list(inexpressible(other.network)):
            remedy = f"the best that can be is trial {other.trial}, {other.wer:.1%} WER on dev: "
            remedy += f"--trial {other.trial}"
            break
    raise InputError(
        [f"{chosen.label} cannot be exported to ESPnet: {fault}" for fault in faults] + [remedy]
    )


def export_espnet(chosen: Trained, folder: Path) -> None:
    """Write the folder, which must not be there; all of it or nothing.

    Raises `InputError` where it is there, or where ESPnet cannot express the network.
    """
    if folder.exists():
        raise InputError(f"{folder}: is there already; give another place with --to, or remove it")
    ready = load(chosen, torch.device("cpu"))
    try:
        made = to_espnet(
            chosen.network, ready.recogniser.state_dict(), tokens=ready.tokenizer.names
        )
    except ValueError as error:
        raise InputError(f"{chosen.label} cannot be exported to ESPnet: {error}") from None
    log_mel = LogMel(chosen.features)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        place = Path(temporary) / "export"
        shutil.copytree(chosen.tokens, place)
        config = {**made.config, **_of_speech_and_tokens(chosen, log_mel, place)}
        _write_yaml(place / "config.yaml", config)
        _write_yaml(place / "decode.yaml", _decoding(chosen))
        np.savez(place / "feats_stats.npz", **made.statistics)
        # ESPnet keeps the mel bands of its frontend among the weights.
        torch.save({**made.state, "frontend.logmel.melmat": log_mel.filters}, place / "model.pth")
        (place / "README.md").write_text(_readme(chosen), encoding="utf-8")
        place.rename(folder)


def _of_speech_and_tokens(chosen: Trained, log_mel: LogMel, place: Path) -> dict[str, Any]:
    """The keys of config.yaml that say how audio becomes features and text becomes tokens."""
    pieces = (place / MODEL).is_file()
    return {
        "frontend": "default",
        "frontend_conf": {
            "fs": chosen.features.sample_rate,
            "n_fft": log_mel.points,
            "win_length": log_mel.window,
            "hop_length": log_mel.hop,
            "n_mels": chosen.features.mels,
            "fmin": 0,
            "fmax": chosen.features.sample_rate // 2,
        },
        "token_type": "bpe" if pieces else "char",
        "bpemodel": MODEL if pieces else None,
        "non_linguistic_symbols": None,
        "cleaner": None,
        "g2p": None,
        "use_preprocessor": True,
    }


def _decoding(chosen: Trained) -> dict[str, Any]:
    """The keys of ESPnet's decode configs."""
    decoding = chosen.decoding
    weight = decoding.ctc_weight
    if weight is None:
        weight = CTC_WEIGHT if chosen.network.ctc_weight > 0 else 0.0
    return {
        "beam_size": decoding.beam_size,
        "ctc_weight": weight,
        "lm_weight": 0.0,
        "penalty": decoding.penalty,
        "maxlenratio": decoding.maxlenratio,
        "minlenratio": decoding.minlenratio,
    }


def _readme(chosen: Trained) -> str:
    test = "" if chosen.test_wer is None else f", {chosen.test_wer:.1%} on test (beam search)"
    channels, dim = chosen.network.subsampling_channels, chosen.network.encoder_dim
    fewer = channels is not None and channels < dim
    return _README.format(
        label=chosen.label,
        study=chosen.study,
        trial=chosen.trial,
        wer=chosen.wer,
        test=test,
        sample_rate=chosen.features.sample_rate,
        channels=_CHANNELS.format(channels=channels, dim=dim) if fewer else "",
    )


def _write_yaml(file: Path, values: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _by_wer(config: StudyConfig, study: optuna.Study) -> list[Trained]:
    """The networks of all trials whose files are there, the lowest WER on dev first."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        try:
            found.append(trained(config, study, trial.number))
        except InputError:
            continue
    return sorted(found, key=lambda each: (each.wer, each.trial))
