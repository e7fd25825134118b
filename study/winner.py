"""The network that a study recommends, and any other that it trained, ready to be used.

    chosen = winner(config, open_study(config))
    ready = load(chosen, torch.device("cpu"))
    memory, lengths = ready.recogniser.encode(features, lengths)
    ready.tokenizer.decode(ready.recogniser.transcribe(memory, lengths).decoder[0])

Nothing here reads the corpus: what a network needs besides its weights lies in the study's folder.
"""

from __future__ import annotations

from dataclasses import fields

import optuna
from optuna.trial import FrozenTrial
from pydantic import TypeAdapter

import reports
from model.config import NetworkConfig
from study.config import StudyConfig
from study.data.config import FeatureConfig
from study.errors import InputError
from study.progress import trial_in_words
from study.training.result import deciding
from study.transcription.trained import Ready, Trained, load

__all__ = ["TOKENS", "Ready", "Trained", "load", "trained", "winner"]

TOKENS = "tokens"
"""The folder in a study's folder that holds its tokenizer."""
LONGEST = 20.0
"""Seconds; of the utterances of studies that do not tell how long theirs are."""


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
        study=config.name,
        trial=number,
        label=trial_in_words(trial),
        wer=_wer(trial),
        test_wer=trial.user_attrs.get("test_wer"),
        network=_network(trial),
        features=TypeAdapter(FeatureConfig).validate_python(study.user_attrs["config"]["features"]),
        decoding=config.finalists.decoding,
        longest=_longest(study),
        checkpoint=checkpoint,
        tokens=tokens,
    )


def _wer(trial: FrozenTrial) -> float:
    """That of the evaluation whose weights were kept."""
    decided = deciding(trial.user_attrs.get("evaluations", []))
    return decided["wer"] if decided else min(trial.intermediate_values.values())


def _longest(study: optuna.Study) -> float:
    splits = study.user_attrs.get("corpus", {}).get("splits", {})
    return max((split.get("longest", LONGEST) for split in splits.values()), default=LONGEST)


def _network(trial: FrozenTrial) -> NetworkConfig:
    """What was trained; keys that an older version had not are at their defaults."""
    values = trial.user_attrs["config"]
    known = {field.name for field in fields(NetworkConfig)}
    return TypeAdapter(NetworkConfig).validate_python(
        {name: value for name, value in values.items() if name in known}
    )
