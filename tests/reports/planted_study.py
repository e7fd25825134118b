"""Whole studies on a planted surface: the real study code, with a formula in place of training.

    config = planted_config(tmp_path, seed=0)
    storage = conduct(config, Formula(Surface.draw(rng), noise=0.01))
    record = read_study(storage, "planted")

Everything else is the product's own: the enqueued budget, the sampler, the pruner, how a trial
ends and what is stored of it, on a real storage.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from optuna.storages import BaseStorage

from model.config import SHAPE, NetworkConfig
from study.config import StudyConfig
from study.data.dataset import Dataset
from study.finalists import enqueue
from study.leases import claim
from study.storage import create_study
from study.tracking.runs import Tracker
from study.training.config import TrainingConfig
from study.training.result import Evaluation
from study.training.step import Diverged
from study.trial import Laboratory, run_trial, settle
from tests.reports.planted import LEARNING_RATES, SPACE, Surface, rate_unit

EVALUATIONS = 4
MIDDLE = {"encoder_layers": 2, "encoder_dim": 64, "attention_heads": 2, "conv_kernel_size": 15,
          "decoder_layers": 1, "decoder_dim": 64}  # fmt: skip
SEARCH: dict[str, Any] = {
    **{name: {"choices": list(values)} for name, values in SPACE.items()},
    "learning_rate": {
        "low": LEARNING_RATES[0], "high": LEARNING_RATES[1], "log": True, "role": "nuisance"
    },
}  # fmt: skip
"""The planted space, as it stands in study.yaml."""


def planted_config(folder: Path, *, seed: int, **sections: Any) -> StudyConfig:
    """A study over the planted space."""
    return StudyConfig.model_validate(
        {
            "name": "planted",
            "runs": folder,
            "corpus": {"kind": "synthetic"},
            "training": {"evaluations": EVALUATIONS, "learning_rate": 2e-3},
            "search": SEARCH,
            "anchors": [{"name": "middle", **MIDDLE}],
            "finalists": {"top": 2, "seeds": 2},
            "seed": seed,
            "storage": "journal",
            "tracking": {"enabled": False},
            **sections,
        }
    )


@dataclass(frozen=True)
class Formula:
    """Stands in for training: a noisy reading of the surface, at the end of a learning curve."""

    surface: Surface
    noise: float

    def train(
        self, network: NetworkConfig, training: TrainingConfig, *_: Any, seed: int, **__: Any
    ) -> Iterator[Evaluation]:
        rng = np.random.default_rng(seed)
        values = {name: getattr(network, name) for name in SHAPE}
        rate = training.learning_rate
        if rate_unit(rate) > 0.9 and rng.uniform() < 0.3:
            raise Diverged("the loss became infinite")
        truth = self.surface.wer({**values, "learning_rate": rate})
        final = max(truth + self.noise * rng.standard_normal(), 0.0)
        wobble = 0.3 * self.noise
        for number in range(1, EVALUATIONS + 1):
            last = number == EVALUATIONS
            behind = 0.0 if last else 0.5 * math.exp(-1.2 * number) + wobble * rng.standard_normal()
            wer = max(final + behind, 0.0)
            yield Evaluation(
                evaluation=number, step=100 * number, epoch=number, train_loss=wer, dev_loss=wer,
                wer=wer, ctc_wer=wer, cer=wer / 2, learning_rate=rate, real_time_factor=0.1,
                train_seconds=1.0 * number, evaluate_seconds=0.1,
            )  # fmt: skip

    def score(
        self,
        network: NetworkConfig,
        config: StudyConfig,
        dataset: Dataset,
        device: torch.device,
        folder: Path,
        before: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """A test WER that is the truth but for the noise of 2000 words."""
        del config, dataset, device, before
        config_file = json.loads((folder / "config.json").read_text())
        values = {name: getattr(network, name) for name in SHAPE}
        truth = self.surface.wer({**values, "learning_rate": config_file["learning_rate"]})
        errors = np.random.default_rng(config_file["seed"]).binomial(2000, min(truth, 1.0))
        return {
            "test_wer": errors / 2000, "test_greedy_wer": (errors + 20) / 2000,
            "test_errors": int(errors), "test_greedy_errors": int(errors) + 20, "test_words": 2000,
        }  # fmt: skip

    def cost(self, network: NetworkConfig, dataset: object) -> SimpleNamespace:
        del dataset
        size = network.encoder_layers * network.encoder_dim**2
        return SimpleNamespace(parameters=22 * size, flops_per_second=1e3 * size)


def conduct(config: StudyConfig, formula: Formula) -> BaseStorage:
    """Run every trial of a study; returns its storage."""
    fingerprint = f"{zlib.crc32(repr(formula.surface).encode()):08x}"
    dataset = cast("Dataset", SimpleNamespace(fingerprint=fingerprint))
    splits = {name: {"words": 3000} for name in ("train", "dev", "test")}
    corpus = {"kind": "planted", "fingerprint": fingerprint, "splits": splits}
    study = create_study(config, {"corpus": corpus})
    laboratory = Laboratory(
        config=config, dataset=dataset, study=study, tracker=Tracker(None),
        device=torch.device("cpu"), code="planted", interrupted=lambda: False,
    )  # fmt: skip
    with (
        mock.patch.multiple("study.trial", train=formula.train, cost_on=formula.cost),
        mock.patch("study.finalists.score", formula.score),
    ):
        for _ in range(2):  # the search, then the finalists
            while (trial := claim(study)) is not None:
                run_trial(laboratory, trial)
            settle(laboratory)
            enqueue(config, study)
    return study._storage
