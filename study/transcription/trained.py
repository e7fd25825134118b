"""A trained network and what it takes to use it, in a study's folder or in a bundle of its own.

    chosen = winner(config, study)                          # study.winner
    save_bundle(chosen, Path("bundle"))
    ready = load(open_bundle(Path("bundle")), torch.device("cpu"))

A bundle is a folder that needs nothing besides:

    config.json     network, features, and where they come from
    weights.pt      state dict of `Recogniser`, the normalisation of features included
    tokens/         the tokenizer
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from model.config import Decoding, NetworkConfig
from model.recogniser import Recogniser
from study import weights
from study.data.config import FeatureConfig
from study.data.tokens import Tokenizer, open_tokenizer
from study.errors import InputError

CONFIG, WEIGHTS, TOKENS = "config.json", "weights.pt", "tokens"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network that a study trained: what it is, and where its files are."""

    study: str
    """The name of the study."""
    trial: int
    """The number of the trial that trained it."""
    label: str
    """`trial 12`; where it repeats a configuration, that as well."""
    wer: float
    """Its word error rate on dev, greedy; a fraction."""
    test_wer: float | None
    """That on test; None of a trial that is no finalist."""
    network: NetworkConfig
    features: FeatureConfig
    """How the features that it hears are made."""
    decoding: Decoding
    """The beam search that the study scores its finalists with."""
    longest: float
    """Seconds of the longest utterance of its corpus: longer recordings are cut for it."""
    checkpoint: Path
    """Its weights, the normalisation of features included: a state dict of `Recogniser`."""
    tokens: Path
    """The folder of its tokenizer."""

    @property
    def introduction(self) -> str:
        """Which network it is and how good, in a line."""
        test = "" if self.test_wer is None else f", {self.test_wer:.1%} on test"
        return f"{self.label} of the study '{self.study}': {self.wer:.1%} WER on dev{test}"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A trained network with all that it takes to transcribe speech."""

    recogniser: Recogniser
    """In eval mode."""
    tokenizer: Tokenizer
    features: FeatureConfig
    """For `study.data.features.LogMel`."""


def load(chosen: Trained, device: torch.device) -> Ready:
    """Read the files of a network. Raises `InputError` where they do not fit together."""
    tokenizer = open_tokenizer(chosen.tokens)
    recogniser = Recogniser(
        chosen.network, mels=chosen.features.mels, vocabulary=tokenizer.vocabulary
    )
    try:
        state = weights.read(chosen.checkpoint, torch.device("cpu"))
    except weights.Damaged as damage:
        raise InputError(f"{damage}") from None
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


def save_bundle(chosen: Trained, folder: Path) -> None:
    """Copy a network's files into a folder that is new or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    values = asdict(chosen)
    for name in ("checkpoint", "tokens"):
        del values[name]
    (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(chosen.checkpoint, folder / WEIGHTS)
    shutil.copytree(chosen.tokens, folder / TOKENS, dirs_exist_ok=True)


def open_bundle(folder: Path) -> Trained:
    """What `save_bundle` wrote. Raises `InputError` where the folder holds something else."""
    file = folder / CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return TypeAdapter(Trained).validate_python(
            {**values, "checkpoint": folder / WEIGHTS, "tokens": folder / TOKENS}
        )
    except (OSError, ValueError, TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: does not describe a trained network ({reason})") from None
