"""Optuna's storage: where a study is created, and how its trials are claimed and handed back.

The whole budget is enqueued when the study is created: a trial is first WAITING, with its phase
and, in phase 1, its parameters. Workers claim waiting trials until there are none, so however many
there are, they never start more than asked for. A trial that is interrupted goes back to WAITING
under its number, and whoever claims it next goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy.exc
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError
from sqlalchemy.engine import make_url

from study.config import SEARCHABLE, StudyConfig
from study.errors import InputError
from study.pruner import SuccessiveHalving, rungs
from study.sampler import OrderedSampler, derived_seed, even_sample

HEARTBEAT = 10
"""Seconds between a worker's signs of life."""
GRACE = 60
"""Seconds without one after which a worker counts as dead."""

GROWING = (
    "explore.trials",
    "refine.trials",
    "finalists.top",
    "finalists.seeds",
    "finalists.anchors",
)
"""Keys by which a begun study may ask for more trials."""
PRACTICAL = ("name", "runs", "device", "storage", "launcher", "tracking", "log_level")
"""Keys that do not change what a study finds out."""

FINALIST = "finalist"
"""The phase of the trials that follow the search."""

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=ExperimentalWarning, module="optuna")
warnings.filterwarnings("ignore", message="Fixed parameter .* is out of range")  # anchors may be


def open_storage(config: StudyConfig) -> RDBStorage:
    """Connect to the storage of a study; a SQLite database is created where there is none."""
    url = config.storage_url
    check_url(url)
    options: dict[str, Any] = {}
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": 60}}  # seconds to wait for another worker's lock
    try:
        return RDBStorage(
            url, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=GRACE
        )
    except sqlalchemy.exc.OperationalError as error:
        raise InputError(f"storage: {make_url(url)!r} cannot be opened ({error.orig})") from None


def check_url(url: str) -> None:
    """Raise `InputError` where a URL is not that of a database that can be used here."""
    try:
        make_url(url).get_dialect().import_dbapi()
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError):
        raise InputError(
            "storage: is not the URL of a database; leave it out for SQLite in the study's folder, "
            "or write one such as postgresql+psycopg://user@host/name"
        ) from None
    except ImportError as error:
        raise InputError(f"storage: its driver is missing: pip install {error.name}") from None


def open_study(config: StudyConfig, storage: RDBStorage | None = None) -> optuna.Study:
    """Open a study that exists, with the sampler and the pruner of its configuration.

    Raises `KeyError` where there is none of that name.
    """
    refine = config.refine
    pruner = (
        optuna.pruners.NopPruner()
        if refine.pruner == "none"
        else SuccessiveHalving(
            rungs(config.training.evaluations, refine.first_rung, refine.reduction_factor),
            refine.reduction_factor,
        )
    )
    return optuna.load_study(
        study_name=config.name,
        storage=storage or open_storage(config),
        sampler=OrderedSampler(config.space, seed=config.seed, kind=refine.sampler),
        pruner=pruner,
    )


def create_study(config: StudyConfig, attributes: dict[str, Any]) -> optuna.Study:
    """Create a study with all its trials waiting, or open it and add the trials that it lacks.

    `attributes` describe the study to its readers; `corpus.fingerprint` among them must be that
    with which the study began. Raises `InputError` where the study was begun with other settings.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    with alone(config):  # two people may start the same study at once
        storage = open_storage(config)
        optuna.create_study(
            study_name=config.name, storage=storage, direction="minimize", load_if_exists=True
        )
        study = open_study(config, storage)
        plain = config.model_dump(mode="json")
        if "config" in study.user_attrs:
            _refuse_changes(config, study.user_attrs, plain, attributes)
        for name, value in {**attributes, "config": plain}.items():
            study.set_user_attr(name, value)
        _enqueue(study, config)
    return study


def _refuse_changes(
    config: StudyConfig, begun: dict[str, Any], plain: dict[str, Any], attributes: dict[str, Any]
) -> None:
    try:  # keys that this version has and that one had not are at their defaults
        known = StudyConfig.model_validate(begun["config"]).model_dump(mode="json")
    except ValidationError:
        known = begun["config"]
    changes = [
        f"{path} was {json.dumps(before)} and is now {json.dumps(now)}"
        for path, before, now in _differences(known, plain)
    ]
    before = begun.get("corpus", {}).get("fingerprint")
    if before is not None and before != attributes["corpus"]["fingerprint"]:
        changes.append("the corpus has other audio or transcripts than it had")
    if changes:
        raise InputError(
            [
                f"the study '{config.name}' in {config.folder} was begun with other settings, and "
                "its trials could not be compared: set them back, or give the study another name "
                f"(-o name=…): {'; '.join(changes)}"
            ]
        )


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            if path or key not in PRACTICAL:
                inner = f"{path}.{key}".lstrip(".")
                if inner not in GROWING:
                    yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield path, before, now


def _enqueue(study: optuna.Study, config: StudyConfig) -> None:
    """Put the trials that the study lacks into its queue, in the order of the phases."""
    there = Counter(
        (trial.user_attrs.get("phase"), trial.user_attrs.get("anchor"))
        for trial in study.get_trials(deepcopy=False)
    )
    for anchor in config.anchor_shapes:
        if not there["explore", anchor.name]:
            values = {
                name: anchor.shape.get(name, getattr(getattr(config, SEARCHABLE[name][0]), name))
                for name in config.space
            }
            study.enqueue_trial(
                values,
                user_attrs={"phase": "explore", "anchor": anchor.name},
            )
    sample = even_sample(config.space, config.explore.trials, config.seed)
    for parameters in sample[there["explore", None] :]:
        study.enqueue_trial(parameters, user_attrs={"phase": "explore"})
    for place in range(there["refine", None], config.refine.trials):
        draw = np.random.default_rng(derived_seed(config.seed, 1, place)).random()
        spared = {"survivor": True} if draw < config.refine.survivors else {}
        study.enqueue_trial({}, user_attrs={"phase": "refine", **spared})


def search_is_over(trials: Iterable[FrozenTrial]) -> bool:
    """Whether every trial of explore and refine has an outcome."""
    return all(t.state.is_finished() for t in trials if t.user_attrs.get("phase") != FINALIST)


@contextlib.contextmanager
def alone(config: StudyConfig) -> Iterator[None]:
    """Keep the other processes of this machine out while the block runs.

    SQLite has no row locks: two workers that read the same waiting trial would both take it.
    """
    url = make_url(config.storage_url)
    if url.get_backend_name() != "sqlite":
        yield
        return
    with FileLock(f"{url.database}.lock"):
        yield


def claim(config: StudyConfig, study: optuna.Study) -> optuna.Trial | None:
    """Take the first waiting trial, or None where there is none left."""
    storage = study._storage
    assert isinstance(storage, BaseHeartbeat)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        with contextlib.suppress(UpdateFinishedTrialError):
            storage.record_heartbeat(trial._trial_id)  # first, so that nobody thinks us dead
            with alone(config):
                ours = storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            if ours:
                claimed = optuna.Trial(study, trial._trial_id)
                claimed.set_user_attr("worker", worker_name())
                return claimed
    return None


def hand_back(study: optuna.Study, trial_id: int) -> None:
    """Let another worker go on with a running trial."""
    with contextlib.suppress(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial_id, TrialState.WAITING)


def lost(study: optuna.Study) -> list[FrozenTrial]:
    """Running trials whose worker died: its process is gone, or its heartbeat."""
    storage = study._storage
    assert isinstance(storage, BaseHeartbeat)
    stale = set(storage._get_stale_trial_ids(study._study_id))
    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if trial._trial_id in stale or _is_dead(trial.user_attrs.get("worker", ""))
    ]


def reclaim(study: optuna.Study) -> list[FrozenTrial]:
    """Hand back the trials of workers that died."""
    found = lost(study)
    for trial in found:
        hand_back(study, trial._trial_id)
    return found


def worker_name() -> str:
    """What this process is called in the storage."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_dead(worker: str) -> bool:
    """Whether a worker of this machine no longer exists; those of others are not known."""
    host, _, process = worker.rpartition(":")
    if host != socket.gethostname() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextlib.contextmanager
def heartbeat(study: optuna.Study, trial_id: int) -> Iterator[None]:
    """Give signs of life for a trial, from a thread, as long as the block runs."""
    storage = study._storage
    assert isinstance(storage, BaseHeartbeat)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            with contextlib.suppress(Exception):  # a database that is away will be back
                storage.record_heartbeat(trial_id)

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
