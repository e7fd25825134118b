"""Who has which trial, on every kind of storage: claims, signs of life, and workers that are gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from study import leases
from study.config import StudyConfig
from study.connection import connect
from study.errors import InputError
from study.leases import Lease, Watcher, alone, claim, hand_back
from study.storage import create_study, open_study
from tests.study.storages import ATTRIBUTES, KINDS, storage_of, tiny, together


@pytest.fixture(scope="module", params=KINDS)
def storage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    kind: str = request.param
    with storage_of(kind, tmp_path_factory.mktemp(f"leases-{kind}"), request) as written:
        yield written


@pytest.fixture
def config(storage: str, tmp_path: Path) -> StudyConfig:
    return tiny(tmp_path, f"storage={storage}", f"name={tmp_path.name}")


@pytest.fixture
def study(config: StudyConfig) -> optuna.Study:
    return create_study(config, ATTRIBUTES)


def _claim(study: optuna.Study, **holder: Any) -> optuna.Trial:
    """A claimed trial, as if by another process where its holder says so."""
    trial = claim(study)
    assert trial is not None
    if holder:
        lease = study.get_trials(deepcopy=False)[trial.number].user_attrs["lease"]
        trial.set_user_attr("lease", {**lease, **holder})
    return trial


def _states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def _claim_all(folder: Path, settings: list[str]) -> list[int]:
    study = open_study(tiny(folder, *settings))
    claimed = []
    while (trial := claim(study)) is not None:
        claimed.append(trial.number)
        study.tell(trial, 1.0)
    return claimed


def test_workers_together_claim_each_trial_once(storage: str, tmp_path: Path) -> None:
    settings = [f"storage={storage}", f"name={tmp_path.name}", "explore.trials=6"]
    study = create_study(tiny(tmp_path, *settings), ATTRIBUTES)
    claimed = together(4, _claim_all, tmp_path, settings)
    assert Counter(number for numbers in claimed for number in numbers) == Counter(range(10))
    assert set(_states(study)) == {"COMPLETE"}


def test_threads_that_race_for_one_trial(config: StudyConfig, study: optuna.Study) -> None:
    """A worker that handed a trial back competes with others for it like anyone else."""
    for _ in range(2):
        first = _claim(study)
        hand_back(study, first._trial_id)
        barrier = threading.Barrier(3)
        won = []

        def race() -> None:
            own = open_study(config)
            trial_id = first._trial_id  # noqa: B023
            barrier.wait()  # noqa: B023
            if own._storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                won.append(trial_id)  # noqa: B023

        threads = [threading.Thread(target=race) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [first._trial_id]
        study.tell(first.number, 1.0)


def test_a_trial_that_is_handed_back_keeps_number_parameters_and_past(
    config: StudyConfig, study: optuna.Study
) -> None:
    for _ in range(4):
        claim(study)
    trial = _claim(study)  # the first of phase 2: its parameters are drawn when it is claimed
    values = {name: dimension.suggest(trial) for name, dimension in config.space.items()}
    trial.report(0.5, 1)
    hand_back(study, trial._trial_id)
    again = claim(open_study(config))
    assert again is not None
    assert again.number == trial.number
    assert {name: d.suggest(again) for name, d in config.space.items()} == values
    assert study.trials[trial.number].intermediate_values == {1: 0.5}


def test_a_worker_whose_process_ended_here_is_gone_at_once(study: optuna.Study) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    _claim(study, process=ended.pid)
    _claim(study)
    _claim(study, since=1)  # our number, but of another process that had it before
    _claim(study, machine="elsewhere", process=ended.pid)
    assert [trial.number for trial in Watcher(study).reclaim()] == [0, 2]
    assert _states(study)[:4] == ["WAITING", "RUNNING", "WAITING", "RUNNING"]


def test_a_child_that_ended_and_was_not_waited_for_is_gone(study: optuna.Study) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    since = leases._started(child.pid)
    _claim(study, process=child.pid, since=since)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert [trial.number for trial in Watcher(study).reclaim()] == [0]
    child.wait()


def test_who_looked_a_while_ago_does_not_take_a_trial_from_its_new_worker(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    _claim(study, since=1)
    before = study.get_trials()
    assert [trial.number for trial in Watcher(study).reclaim()] == [0]
    _claim(study, machine="elsewhere")
    with monkeypatch.context() as late:
        late.setattr(study, "get_trials", lambda **_: before[:1])
        assert Watcher(study).reclaim() == []
    trial = study.get_trials(deepcopy=False)[0]
    assert trial.state == TrialState.RUNNING
    assert trial.user_attrs["lease"]["machine"] == "elsewhere"
    assert not hand_back(study, trial._trial_id)
    assert study.get_trials(deepcopy=False)[0].state == TrialState.RUNNING


def test_a_trial_that_its_workers_die_of_is_given_up(study: optuna.Study) -> None:
    def lose() -> list[int]:
        assert _claim(study, since=1).number == 0
        return [trial.number for trial in Watcher(study).reclaim()]

    for _ in range(leases.LOSSES - 1):
        assert lose() == [0]
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, "evaluations", [{"wer": 0.5}])
    for _ in range(leases.LOSSES - 1):  # it has got on since
        assert lose() == [0]
    assert lose() == []
    given_up, following = study.get_trials(deepcopy=False)[:2]
    assert given_up.state == TrialState.FAIL
    assert given_up.user_attrs["outcome"] == "crashed"
    assert f"killed {leases.LOSSES} times" in given_up.user_attrs["error"]
    assert _claim(study).number == following.number


class Clock:
    """time.monotonic for the module under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def _watch(watcher: Watcher, clock: Clock, seconds: float) -> list[int]:
    lost = []
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 5
        lost += [trial.number for trial in watcher.reclaim()]
    return lost


def test_a_worker_elsewhere_is_gone_when_its_counter_stood_still(
    study: optuna.Study, clock: Clock
) -> None:
    silent = _claim(study, machine="elsewhere")
    living = _claim(study, machine="elsewhere")
    watcher = Watcher(study)
    assert _watch(watcher, clock, leases.GRACE) == []
    lease = study.get_trials(deepcopy=False)[living.number].user_attrs["lease"]
    living.set_user_attr("lease", {**lease, "beat": 9})
    assert _watch(watcher, clock, 10) == [silent.number]
    assert _watch(watcher, clock, 40) == []
    assert _watch(watcher, clock, 30) == [living.number]


def test_a_trial_whose_worker_died_between_claim_and_lease_is_found(
    study: optuna.Study, clock: Clock
) -> None:
    trial = study.get_trials(deepcopy=False)[0]
    study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    assert _watch(Watcher(study), clock, leases.GRACE + 15) == [0]


def test_time_in_which_nobody_watched_does_not_count(study: optuna.Study, clock: Clock) -> None:
    """The storage was away, or this machine asleep: all workers were silent, and none is dead."""
    _claim(study, machine="elsewhere")
    watcher = Watcher(study)
    _watch(watcher, clock, 50)
    clock.now += 3600
    assert _watch(watcher, clock, 50) == []
    assert _watch(watcher, clock, 20) == [0]


def test_clocks_that_jump_change_nothing(
    study: optuna.Study, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _claim(study, machine="elsewhere")
    watcher = Watcher(study)
    _watch(watcher, clock, 20)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert _watch(watcher, clock, 30) == []


def test_a_lease_is_kept_and_its_loss_is_noticed(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    trial = _claim(study)

    def beats() -> int:
        found = study.get_trials(deepcopy=False)[trial.number].user_attrs["lease"]["beat"]
        assert isinstance(found, int)
        return found

    def wait_for(condition: Any) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    with Lease(study, trial._trial_id) as lease:
        wait_for(lambda: beats() >= 2)
        assert not lease.lost
        hand_back(study, trial._trial_id)  # by a watcher who thought us gone
        monkeypatch.setattr(leases, "_machine", lambda: "elsewhere")
        again = _claim(study)
        assert again.number == trial.number
        wait_for(lambda: lease.lost)
    kept = study.get_trials(deepcopy=False)[trial.number]
    assert kept.state == TrialState.RUNNING
    assert kept.user_attrs["lease"]["machine"] == "elsewhere"


def test_one_process_at_a_time(config: StudyConfig, study: optuna.Study) -> None:
    inside, most = [], []

    def enter() -> None:
        own = open_study(config)
        for _ in range(3):
            with alone(own._storage, config.name):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.01)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 9
    assert f"{config.name}.lock" not in optuna.get_all_study_names(study._storage)


def test_a_lock_whose_holder_was_killed_is_removed(
    config: StudyConfig, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = study._storage
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.MonkeyPatch.context() as other:
        other.setattr(os, "getpid", lambda: ended.pid)
        holder = leases._holder()
    lock = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], f"{config.name}.lock")
    storage.set_study_user_attr(lock, "holder", holder)
    with alone(storage, config.name):
        pass
    # One that died before it wrote who it was, or elsewhere, is given its time.
    storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], f"{config.name}.lock")
    monkeypatch.setattr(leases, "GRACE", 0.5)
    began = time.monotonic()
    with alone(storage, config.name):
        assert time.monotonic() - began > 0.5


@pytest.mark.parametrize("kind", ["sqlite:///{}", "journal://{}"])
def test_a_lock_whose_holder_lives_and_works_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(leases, "GRACE", 1.0)
    inside, most = list[None](), list[int]()

    def work(seconds: float) -> None:
        with alone(connect(kind.format(tmp_path / "s")), "laptop"):
            inside.append(None)
            most.append(len(inside))
            time.sleep(seconds)
            inside.pop()

    first = threading.Thread(target=work, args=(4.0,))
    first.start()
    time.sleep(1.0)
    work(0.1)
    first.join()
    assert most == [1, 1]


def test_a_study_that_is_called_like_a_lock_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "GRACE", 0.5)
    storage = connect(f"journal://{tmp_path / 's'}")
    study = storage.create_new_study([StudyDirection.MINIMIZE], "laptop.lock")
    storage.set_study_user_attr(study, "config", {})
    with pytest.raises(InputError, match="which a lock is to be called"), alone(storage, "laptop"):
        pass
    assert [found.study_name for found in storage.get_all_studies()] == ["laptop.lock"]
