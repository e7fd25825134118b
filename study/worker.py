"""A worker: a process that runs trials until none waits and none is under way elsewhere.

While others train the last trials it stays, since theirs may yet come back to the queue. When the
search is over, the first to notice puts the finalists into the queue.

Asked to stop (`study.stopping`), it saves and hands its trial back, and ends; the trial goes on
from there when the study is run again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

import optuna
import torch

from study import joining
from study.config import StudyConfig
from study.connection import open_storage
from study.data.dataset import Dataset, prepare
from study.errors import InputError
from study.files import Unwritable
from study.gpu_sharing import SharedGpu
from study.leases import Watcher, claim, hand_back
from study.patience import PATIENCE
from study.provenance import code_fingerprint
from study.pruner import queue
from study.stopping import STOPPED, StopRequest
from study.storage import all_were_added, open_study
from study.tracking.address import tracking_uri
from study.tracking.runs import Tracker
from study.tracking.store import Experiment
from study.tracking.system import SystemMetrics, missing
from study.training import determinism
from study.training.execution import graphs_obstacle
from study.training.loop import Interrupted
from study.trial import Laboratory, run_trial, settle

log = logging.getLogger(__name__)

CRASHES = 3
"""Trials that crash one after the other before a worker gives up: the fault is not theirs."""
FAILED = 1
"""Exit code of a worker that gave up."""
IDLE = 1.0
"""Seconds between looks for a trial where none waits."""


def work(
    config: StudyConfig,
    stop: StopRequest | threading.Event,
    hold: Callable[[], None] = lambda: None,
) -> int:
    """Run trials of a study that has begun until none waits; returns an exit code.

    `hold` is called before the first trial is claimed, from when on the worker looks at `stop`.
    Raises `InputError` where code, settings or corpus are not those of the study.
    """
    logging.getLogger("study").setLevel(config.log_level.upper())
    stopped = stop.is_set
    device = choose_device(config.device)
    refuse_graphs(config, device.type)
    prepare_device(device, config)
    dataset = open_dataset(config)
    study = open_study(config, open_storage(config, patience=PATIENCE))
    joining.verify(config, study, dataset.fingerprint)
    tracker = Tracker(
        _experiment(config, study),
        corpus=study.user_attrs["corpus"],
        machine=_machine(config),
    )
    laboratory = Laboratory(
        config=config,
        dataset=dataset,
        study=study,
        tracker=tracker,
        device=device,
        code=code_fingerprint(),
        interrupted=stopped,
        gpu=SharedGpu.of(device),
    )
    watcher = Watcher(study)
    crashes = 0
    hold()
    while not stopped():
        try:
            outcome = _next_trial(laboratory)
        except Interrupted:
            break
        except Unwritable as fault:
            log.error("%s", fault)
            return FAILED
        if outcome is None:
            laboratory.gpu.leave()
            settle(laboratory)
            if not more_may_come(config, study, watcher):
                return 0
            stop.wait(IDLE)
            continue
        crashes = crashes + 1 if outcome == "crashed" else 0
        if crashes == CRASHES:
            log.error("%d trials in a row crashed: this worker stops, to spare the others", crashes)
            return FAILED
    return STOPPED


def _next_trial(laboratory: Laboratory) -> str | None:
    """Run the first trial of the queue; returns its outcome, None where none waits."""
    config, study, tracker = laboratory.config, laboratory.study, laboratory.tracker
    if not queue(study):  # who has nothing to train does not wait for a GPU either
        return None
    with laboratory.gpu.shared(laboratory.interrupted):
        trial = claim(study)
        if trial is None:
            return None
        if laboratory.interrupted():
            hand_back(study, trial._trial_id)
            raise Interrupted
        if tracker.experiment is None:  # MLflow was away when the study began
            tracker.experiment = _experiment(config, study)
        log.info("Trial %d begins", trial.number)
        outcome = run_trial(laboratory, trial)
        log.info("Trial %d: %s", trial.number, outcome)
        return outcome


def more_may_come(config: StudyConfig, study: optuna.Study, watcher: Watcher) -> bool:
    """Whether a trial may yet wait, where none does: others' may come back, and finalists come."""
    watcher.reclaim()
    if _unfinished(study):
        return True
    if not all_were_added(study.user_attrs, study.get_trials(deepcopy=False)):
        from study import finalists  # brings the libraries of the reports along

        finalists.enqueue(config, study)
    return _unfinished(study)  # another worker may have been the one to add them


def _unfinished(study: optuna.Study) -> bool:
    return not all(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _machine(config: StudyConfig) -> SystemMetrics | None:
    """What is measured of this machine, where it is wanted and psutil is there."""
    tracking = config.tracking
    wanted = tracking.enabled and tracking.system_metrics and missing() is None
    return SystemMetrics() if wanted else None


def _experiment(config: StudyConfig, study: optuna.Study) -> Experiment | None:
    """Where this study is logged, or None where it is not."""
    attribute = study.user_attrs.get("mlflow")
    if not (config.tracking.enabled and attribute):
        return None
    return Experiment.from_attribute(attribute, tracking_uri(config.runs, config.tracking.uri))


def choose_device(wanted: str) -> torch.device:
    """The device of a configuration; `InputError` where a GPU is asked for and there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device: there is no CUDA GPU here; leave --device auto, or use cpu")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def device_here(config: StudyConfig) -> torch.device:
    """The device of what is computed on this machine, which may be one that starts workers only.

    Raises `InputError` where trials should train here on a GPU, and there is none.
    """
    gpus_elsewhere = config.launcher.elsewhere and config.device == "cuda"
    return choose_device("auto" if gpus_elsewhere else config.device)


def refuse_graphs(config: StudyConfig, device: str) -> None:
    """Raise `InputError` where `training.execution` asks for graphs that trials cannot have."""
    if config.training.execution != "graphs":
        return
    depth = config.space.get("stochastic_depth")
    most = {} if depth is None else {"stochastic_depth": depth.extremes[1]}
    obstacle = graphs_obstacle(config.with_parameters(most)[0], device)
    if obstacle:
        raise InputError(
            f"training.execution: graphs is not possible here: {obstacle}; set it to auto, which "
            "takes them where they are possible and pay"
        )


def device_of_workers(config: StudyConfig, here: torch.device) -> str:
    """The kind of device on which trials train, as far as this machine can tell."""
    elsewhere = config.launcher.elsewhere and config.device != "cpu"
    return "cuda" if elsewhere else here.type  # each worker looks again where it is


def prepare_device(device: torch.device, config: StudyConfig) -> None:
    """Set the process up for training on a device."""
    if device.type == "cpu":
        torch.set_num_threads(1)  # a second thread buys a small network nothing
    else:
        if config.training.deterministic:
            determinism.prepare()
        # Its attention gives wrong gradients with some masks (pytorch/pytorch#196678).
        torch.backends.cuda.enable_cudnn_sdp(False)
    for variable, name in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
        os.environ.setdefault(variable, str((config.cache / name).absolute()))


def open_dataset(config: StudyConfig) -> Dataset:
    """The corpus of a study, made ready for training."""
    return prepare(
        config.corpus,
        config.features,
        config.tokens,
        ctc=config.network.ctc_weight > 0 or "ctc_weight" in config.search,
        cache=config.cache,
    )
