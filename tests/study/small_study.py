"""A small study whose every trial really trains, in this process: two seconds for three trials."""

from __future__ import annotations

from pathlib import Path

import torch

from study.config import StudyConfig
from study.config_file import load
from study.finalists import enqueue
from study.leases import claim
from study.storage import create_study
from study.tracking.runs import Tracker
from study.trial import Laboratory, run_trial
from study.winner import TOKENS
from study.worker import open_dataset
from tests.speech import write_corpus

TINY = Path(__file__).parent.parent / "tiny_study.yaml"


def small_config(folder: Path, *options: str) -> StudyConfig:
    """One anchor, and two more trainings of it as a finalist, on utterances of a second."""
    corpus = folder / "corpus"
    if not corpus.is_dir():
        write_corpus(corpus)
    return load(
        TINY,
        [
            f"runs={folder / 'runs'}",
            f"corpus={{kind: manifest, folder: {corpus}}}",
            "explore.trials=0",
            "refine.trials=0",
            "finalists.top=1",
            "tracking.enabled=false",
            *options,
        ],
    )


def train(config: StudyConfig) -> None:
    """Run all its trials."""
    dataset = open_dataset(config)
    splits = {name: split.summary() for name, split in dataset.splits.items()}
    corpus = {"fingerprint": dataset.fingerprint, "splits": splits}
    study = create_study(config, {"corpus": corpus})
    dataset.tokenizer.save(config.folder / TOKENS)
    laboratory = Laboratory(
        config=config,
        dataset=dataset,
        study=study,
        tracker=Tracker(None),
        device=torch.device("cpu"),
        code="code",
        interrupted=lambda: False,
    )
    for _ in range(2):  # the search, then the finalists
        while (trial := claim(study)) is not None:
            assert run_trial(laboratory, trial) == "finished"
        enqueue(config, study)
