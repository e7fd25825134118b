"""The network that a study recommends, and any other that it trained, ready to be used.

    chosen = winner(config, open_study(config))
    ready = load(chosen, torch.device("cpu"))
    memory, lengths = ready.recogniser.encode(features, lengths)
    ready.tokenizer.decode(ready.recogniser.transcribe(memory, lengths).decoder[0])

Nothing here reads the corpus: what a network needs besides its weights lies in the study's folder.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial
from pydantic import TypeAdapter

import reports
from model.config import NetworkConfig
from study.config import StudyConfig
from study.data.config import FeatureConfig
from study.errors import InputError

if TYPE_CHECKING:
    import torch

    from model.recogniser import Recogniser
    from study.data.tokens import Tokenizer

TOKENS = "tokens"
"""The folder in a study's folder that holds its tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network that a study trained: what it is, and where its files are."""

    trial: int
    """The number of the trial that trained it."""
    label: str
    """`trial 12`, `predicted best`, or the anchor's name."""
    wer: float
    """Its word error rate on dev, greedy; a fraction."""
    test_wer: float | None
    """That on test; None of a trial that is no finalist."""
    network: NetworkConfig
    features: FeatureConfig
    """How the features that it hears are made."""
    checkpoint: Path
    """Its weights, the normalisation of features included: a state dict of `Recogniser`."""
    tokens: Path
    """The folder of its tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A trained network with all that it takes to transcribe speech."""

    recogniser: Recogniser
    """In eval mode."""
    tokenizer: Tokenizer
    features: FeatureConfig
    """For `study.data.features.LogMel`."""


def winner(config: StudyConfig, study: optuna.Study) -> Trained:
    """The network to use: of the finalists' winner the best seed; before finalists, the best trial.

    It is the one that the report names. Raises `InputError` where no trial has finished, or where
    the files of this one are gone.
    """
    best = reports.best_trial(study._storage, config.name)
    if best is None:
        raise InputError(
            f"no trial of the study '{config.name}' has finished, so there is no winner: "
            "run the study first"
        )
    return trained(config, study, best.number)


def trained(config: StudyConfig, study: optuna.Study, number: int) -> Trained:
    """The network of a trial; one that was pruned has one too, of its last evaluations.

    Raises `InputError` where there is no such trial, or it has no network.
    """
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise InputError(
            f"the study '{config.name}' has no trial {number}: "
            + (f"its trials are 0 to {len(trials) - 1}" if trials else "it has none yet")
        )
    trial = trials[number]
    checkpoint = config.folder / "trials" / str(number) / "best.pt"
    tokens = config.folder / TOKENS
    if not (trial.state.is_finished() and trial.intermediate_values):
        outcome = trial.user_attrs.get("outcome", trial.state.name.lower())
        raise InputError(f"trial {number} of the study '{config.name}' has no network: {outcome}")
    if not checkpoint.is_file():
        raise InputError(f"the weights of trial {number} are gone: there is no {checkpoint}")
    if not tokens.is_dir():
        raise InputError(
            f"{tokens}: the study's tokenizer is not there; `python -m study run` writes it, and "
            "trains nothing where nothing is left to train"
        )
    return Trained(
        trial=number,
        label=_label(trial),
        wer=min(trial.intermediate_values.values()),
        test_wer=trial.user_attrs.get("test_wer"),
        network=_network(trial),
        features=TypeAdapter(FeatureConfig).validate_python(study.user_attrs["config"]["features"]),
        checkpoint=checkpoint,
        tokens=tokens,
    )


def load(chosen: Trained, device: torch.device) -> Ready:
    """Read the files of a network. Raises `InputError` where they do not fit together."""
    import torch

    from model.recogniser import Recogniser
    from study.data.tokens import open_tokenizer

    tokenizer = open_tokenizer(chosen.tokens)
    recogniser = Recogniser(
        chosen.network, mels=chosen.features.mels, vocabulary=tokenizer.vocabulary
    )
    state = torch.load(chosen.checkpoint, map_location="cpu", weights_only=True)
    try:
        recogniser.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"{chosen.checkpoint}: is not of the network and the tokens of trial {chosen.trial} "
            f"({str(error).splitlines()[-1].strip()})"
        ) from None
    return Ready(
        recogniser=recogniser.to(device).eval(), tokenizer=tokenizer, features=chosen.features
    )


def _label(trial: FrozenTrial) -> str:
    attributes = trial.user_attrs
    label = attributes.get("finalist") or attributes.get("anchor") or f"trial {trial.number}"
    return str(label)


def _network(trial: FrozenTrial) -> NetworkConfig:
    """What was trained; keys that an older version had not are at their defaults."""
    values = trial.user_attrs["config"]
    known = {field.name for field in fields(NetworkConfig)}
    return TypeAdapter(NetworkConfig).validate_python(
        {name: value for name, value in values.items() if name in known}
    )
