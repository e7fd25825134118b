"""A worker: a process that runs trials until none waits.

Asked to stop by SIGTERM or Ctrl-C, it hands its trial back and ends; the trial goes on from its
last checkpoint when the study is run again.
"""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType

import optuna
import torch

from study.config import StudyConfig
from study.data.dataset import Dataset, prepare
from study.errors import InputError
from study.files import Unwritable
from study.provenance import code_fingerprint
from study.storage import claim, open_study
from study.tracking.address import tracking_uri
from study.tracking.runs import Tracker
from study.tracking.store import Experiment
from study.trial import Laboratory, run_trial

log = logging.getLogger(__name__)

CRASHES = 3
"""Trials that crash one after the other before a worker gives up: the fault is not theirs."""
FAILED = 1
"""Exit code of a worker that gave up."""
STOPPED = 130
"""Exit code of a worker that was asked to stop."""


def work(config: StudyConfig, *, parent: int | None = None) -> int:
    """Run trials of a study that exists until none waits; returns an exit code.

    `parent` is a process without which the worker should not go on.
    """
    logging.getLogger("study").setLevel(config.log_level.upper())
    stop = _StopRequest(parent)
    device = choose_device(config.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # a second thread buys a small network nothing
    dataset = open_dataset(config)
    study = open_study(config)
    tracker = Tracker(_experiment(config, study))
    laboratory = Laboratory(
        config=config,
        dataset=dataset,
        study=study,
        tracker=tracker,
        device=device,
        code=code_fingerprint(),
        interrupted=stop,
    )
    crashes = 0
    while not stop():
        trial = claim(config, study)
        if trial is None:
            return 0
        if tracker.experiment is None:  # MLflow was away when the study began
            tracker.experiment = _experiment(config, study)
        log.info("Trial %d begins", trial.number)
        try:
            outcome = run_trial(laboratory, trial)
        except Unwritable as fault:
            log.error("%s", fault)
            return FAILED
        log.info("Trial %d: %s", trial.number, outcome)
        crashes = crashes + 1 if outcome == "crashed" else 0
        if crashes == CRASHES:
            log.error("%d trials in a row crashed: this worker stops, to spare the others", crashes)
            return FAILED
    return STOPPED


def _experiment(config: StudyConfig, study: optuna.Study) -> Experiment | None:
    """Where this study is logged, or None where it is not."""
    attribute = study.user_attrs.get("mlflow")
    if not (config.tracking.enabled and attribute):
        return None
    return Experiment.from_attribute(attribute, tracking_uri(config.runs, config.tracking.uri))


class _StopRequest:
    """True once the process was asked to stop, or its parent is gone."""

    def __init__(self, parent: int | None) -> None:
        self._asked = False
        self._parent = parent
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True

    def __call__(self) -> bool:
        return self._asked or (self._parent is not None and os.getppid() != self._parent)


def choose_device(wanted: str) -> torch.device:
    """The device of a configuration; `InputError` where a GPU is asked for and there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device: there is no CUDA GPU here; leave --device auto, or use cpu")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def open_dataset(config: StudyConfig) -> Dataset:
    """The corpus of a study, made ready for training."""
    return prepare(
        config.corpus,
        config.features,
        config.tokens,
        ctc=config.network.ctc_weight > 0 or "ctc_weight" in config.search,
        cache=config.cache,
    )
