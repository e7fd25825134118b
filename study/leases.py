"""Who has which trial: claims, signs of life, and trials whose worker is gone.

A worker that claims a trial writes a lease into it, the user attribute `lease`: who it is, and a
counter that it raises every `BEAT` seconds for as long as it has the trial. Whoever sees a counter
stand still for `GRACE` seconds *while it watches* hands the trial back, and another worker goes on
from its checkpoint. No clock of another machine is read, so none can be wrong; and the time in
which the storage was away, or the watcher asleep, does not count. A worker whose process has ended
on the watcher's own machine is known to be gone at once.

This works alike on every storage: it needs attributes, and a change from WAITING to RUNNING that
one process alone can make (`study.databases`, `study.journal`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from study.connection import record, release
from study.errors import InputError, Unavailable
from study.pruner import is_paused, queue

log = logging.getLogger(__name__)

BEAT = 10.0
"""Seconds between a worker's signs of life."""
GRACE = 60.0
"""Seconds without one, while somebody watches, after which a worker counts as gone."""
LOSSES = 8
"""Workers in a row that a trial may lose without an evaluation in between."""
GAP = 2.5 * BEAT
"""Seconds between two looks after which what was seen before does not count: nobody watched."""


def claim(study: optuna.Study) -> optuna.Trial | None:
    """Take the first trial of the queue to train it, or None where there is none left."""
    for trial in queue(study):
        attributes: dict[str, Any] = {"worker": worker_name()}
        if is_paused(trial):
            attributes |= {"promoted": trial.user_attrs["paused"], "paused": None}
        if (claimed := take(study, trial, attributes)) is not None:
            return claimed
    return None


def take(
    study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any] | None = None
) -> optuna.Trial | None:
    """Take this waiting trial and give it these attributes; None if another worker was faster."""
    storage = study._storage
    lease = {"lease": {**_holder(), "beat": 0}}
    with contextlib.suppress(UpdateFinishedTrialError):
        if storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            record(storage, trial._trial_id, {**lease, **(attributes or {})})
            return optuna.Trial(study, trial._trial_id)
    return None


def hand_back(study: optuna.Study, trial_id: int) -> bool:
    """Let another worker go on with a trial that this one has; False if it is another's by now."""
    mine = _holder()
    return release(
        study._storage,
        trial_id,
        lambda lease: _is_of(lease, mine),
        TrialState.WAITING,
        {"lease": None},
    )


def worker_name() -> str:
    """What this process is called in the storage."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Lease:
    """A worker's hold on a trial that it claimed: gives signs of life as long as the block runs.

    with Lease(study, trial_id) as lease:
        ...  # train, and stop when lease.lost
    """

    def __init__(self, study: optuna.Study, trial_id: int) -> None:
        self._storage = study._storage
        self._trial_id = trial_id
        self._holder = _holder()
        self._watcher = Watcher(study)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self.lost = False
        """Whether the trial is another's by now: this worker was thought to be gone."""

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join(timeout=1)  # it may be waiting for the storage; it is a daemon

    def holds(self) -> bool:
        """Whether the trial is still this worker's, as the storage has it."""
        trial = self._storage.get_trial(self._trial_id)
        return trial.state == TrialState.RUNNING and self._is_ours(trial)

    def _is_ours(self, trial: FrozenTrial) -> bool:
        return _is_of(trial.user_attrs.get("lease"), self._holder)

    def _keep(self) -> None:
        while not self._done.wait(BEAT) and not self.lost:
            with contextlib.suppress(Unavailable):  # it has been waited for, and may come back
                self._beat()
                self._watcher.reclaim()

    def _beat(self) -> None:
        trial = self._storage.get_trial(self._trial_id)
        if self._done.is_set():
            return
        if trial.state != TrialState.RUNNING or not self._is_ours(trial):
            log.warning("Trial %d has gone to another worker", trial.number)
            self.lost = True
            return
        lease = trial.user_attrs["lease"]
        with contextlib.suppress(UpdateFinishedTrialError):
            lease = {**lease, "beat": lease.get("beat", 0) + 1}
            self._storage.set_trial_user_attr(self._trial_id, "lease", lease)


class Watcher:
    """Finds the trials of workers that are gone. It has to look every few seconds (`GAP`).

    A trial whose worker was killed `LOSSES` times without an evaluation in between is given up: it
    is likely to be what its workers die of, as where the system runs out of memory.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._seen: dict[int, tuple[Any, float]] = {}
        self._looked = float("-inf")

    def reclaim(self) -> list[FrozenTrial]:
        """Take trials from workers that are gone, and return those that others will go on with."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        now = time.monotonic()
        if now - self._looked > GAP:
            self._seen.clear()
        self._looked = now
        seen, self._seen = self._seen, {}
        lost = []
        for trial in running:
            lease = trial.user_attrs.get("lease")
            before, since = seen.get(trial._trial_id, (lease, now))
            if before != lease:
                since = now
            if now - since > GRACE or _has_ended(lease or {}):
                if self._take_away(trial):
                    lost.append(trial)
            else:
                self._seen[trial._trial_id] = lease, since
        return lost

    def _take_away(self, trial: FrozenTrial) -> bool:
        """End a worker's hold on a trial, unless its lease is another than was seen.

        Returns whether another worker will go on with it.
        """
        known = trial.user_attrs
        evaluations = len(known.get("evaluations", []))
        then, count = known.get("losses", (evaluations, 0))
        count = count + 1 if then == evaluations else 1
        attributes: dict[str, Any] = {"lease": None, "losses": [evaluations, count]}
        state = TrialState.WAITING
        if count == LOSSES:
            state = TrialState.FAIL
            attributes |= {
                "outcome": "crashed",
                "error": f"Its workers were killed {count} times before the trial came to its next "
                "evaluation: the system may have run out of memory.",
            }
            log.warning("Trial %d is given up: its workers were killed", trial.number)
        seen = known.get("lease")
        taken = release(
            self._study._storage, trial._trial_id, lambda lease: lease == seen, state, attributes
        )
        return taken and state == TrialState.WAITING


def lost(study: optuna.Study) -> list[FrozenTrial]:
    """Running trials whose worker is gone for sure: it was a process of this machine."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if _has_ended(trial.user_attrs.get("lease") or {})]


# ── Processes ────────────────────────────────────────────────────────────────────────────


def _holder() -> dict[str, Any]:
    """What tells this process from all others, on any machine."""
    return {"machine": _machine(), "process": os.getpid(), "since": _started(os.getpid())}


def _is_of(lease: Mapping[str, Any] | None, holder: Mapping[str, Any]) -> bool:
    return holder.items() <= (lease or {}).items()


@cache
def _machine() -> str:
    """This machine, since it was started: process numbers mean the same as long as it is equal."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
    with contextlib.suppress(OSError):  # containers of one machine count their processes apart
        parts.append(str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]"))
    return "/".join(parts)


def _started(process: int) -> int | None:
    """When a process started, in the kernel's ticks; None where that is not known or it ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])  # a zombie has ended


def _has_ended(lease: dict[str, Any]) -> bool:
    """Whether the holder of a lease is a process of this machine that no longer exists."""
    if lease.get("machine") != _machine():
        return False
    process = int(lease["process"])
    if lease["since"] is not None:  # numbers are used again
        return bool(_started(process) != lease["since"])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


# ── One at a time ────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def alone(storage: BaseStorage, study: str) -> Iterator[None]:
    """Keep all other processes, on any machine, out of such blocks for the same study.

    Creating a study is what every storage lets one process alone do; so the lock is a study that
    exists as long as the block runs. One whose holder is gone is removed after `GRACE` seconds.
    """
    name = f"{study}.lock"
    seen: tuple[Any, float] = (None, time.monotonic())
    pause = 0.01
    while True:
        try:
            lock = storage.create_new_study([StudyDirection.MINIMIZE], name)
            break
        except DuplicatedStudyError:
            seen = _watch_lock(storage, name, seen)
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
    done = threading.Event()
    holder = {**_holder(), "at": time.monotonic()}
    beats = threading.Thread(
        target=_keep, args=(storage, lock, holder, done), daemon=True, name="lock"
    )
    beats.start()
    try:
        storage.set_study_user_attr(lock, "holder", holder)
        yield
    finally:
        done.set()
        beats.join(timeout=1)
        with contextlib.suppress(KeyError):
            storage.delete_study(lock)


def _keep(storage: BaseStorage, lock: int, holder: dict[str, Any], done: threading.Event) -> None:
    """Give signs of life of who holds a lock: a thousand trials are not added in a minute."""
    beat = 0
    while not done.wait(min(BEAT, GRACE / 3)):
        beat += 1
        with contextlib.suppress(Unavailable, KeyError):
            storage.set_study_user_attr(lock, "holder", {**holder, "beat": beat})


def _watch_lock(storage: BaseStorage, name: str, seen: tuple[Any, float]) -> tuple[Any, float]:
    """Remove a lock that its holder left behind; returns what was seen of it, and since when."""
    now = time.monotonic()
    try:
        lock = storage.get_study_id_from_name(name)
        known = storage.get_study_user_attrs(lock)
        if "config" in known:
            raise InputError(f"the storage holds a study '{name}', which a lock is to be called")
        holder = known.get("holder")
        if seen[0] != (lock, holder):
            return (lock, holder), now
        if now - seen[1] > GRACE or _has_ended(holder or {}):
            storage.delete_study(lock)
    except KeyError:
        return None, now  # it was released this moment
    return seen
