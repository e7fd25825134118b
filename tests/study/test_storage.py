"""The storage: the budget is never overshot, and an interrupted trial keeps its number."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from study.config import StudyConfig
from study.config_file import load
from study.errors import InputError
from study.storage import claim, create_study, hand_back, open_study, reclaim

TINY = Path(__file__).parent.parent / "tiny_study.yaml"
ATTRIBUTES = {"corpus": {"fingerprint": "abc"}}


def _config(folder: Path, *overrides: str) -> StudyConfig:
    return load(TINY, [f"runs={folder}", *overrides])


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    return _config(tmp_path)


@pytest.fixture
def study(config: StudyConfig) -> optuna.Study:
    return create_study(config, ATTRIBUTES)


def _phases(study: optuna.Study) -> list[str]:
    return [trial.user_attrs["phase"] for trial in study.trials]


def test_a_study_begun_with_other_settings_is_refused(tmp_path: Path) -> None:
    create_study(_config(tmp_path), ATTRIBUTES)
    changed = _config(tmp_path, "training.learning_rate=5e-3", "features.mels=24")
    with pytest.raises(InputError) as error:
        create_study(changed, ATTRIBUTES)
    assert "training.learning_rate was 0.004 and is now 0.005" in str(error.value)
    assert "features.mels was 20 and is now 24" in str(error.value)
    assert "give the study another name" in str(error.value)


def test_a_corpus_that_changed_is_refused(tmp_path: Path) -> None:
    create_study(_config(tmp_path), ATTRIBUTES)
    with pytest.raises(InputError, match="other audio or transcripts"):
        create_study(_config(tmp_path), {"corpus": {"fingerprint": "xyz"}})


def test_settings_without_influence_may_change(tmp_path: Path) -> None:
    create_study(_config(tmp_path), ATTRIBUTES)
    create_study(_config(tmp_path, "launcher.workers=3", "tracking.enabled=false"), ATTRIBUTES)


def test_a_study_of_a_version_with_fewer_keys_goes_on(config: StudyConfig) -> None:
    study = create_study(config, ATTRIBUTES)
    older = config.model_dump(mode="json")
    del older["network"]["macaron"], older["refine"]["survivors"]
    study.set_user_attr("config", older)
    create_study(config, ATTRIBUTES)
    study.set_user_attr("config", {**older, "seed": 5, "removed": True})
    with pytest.raises(InputError, match="seed was 5 and is now 0"):
        create_study(config, ATTRIBUTES)


def test_the_whole_budget_waits_in_the_order_of_the_phases(study: optuna.Study) -> None:
    assert {trial.state for trial in study.trials} == {TrialState.WAITING}
    assert _phases(study) == ["explore"] * 4 + ["refine"] * 3
    assert study.trials[0].user_attrs["anchor"] == "small"
    fixed = study.trials[0].system_attrs["fixed_params"]
    assert fixed["encoder_dim"] == 8
    assert fixed["learning_rate"] == 4e-3  # the baseline: an anchor has no opinion on it


def test_a_study_is_extended_and_never_begun_twice(tmp_path: Path) -> None:
    first = create_study(_config(tmp_path), ATTRIBUTES)
    sample = [t.system_attrs["fixed_params"] for t in first.trials[1:4]]
    create_study(_config(tmp_path), ATTRIBUTES)
    assert len(first.trials) == 7
    create_study(_config(tmp_path, "explore.trials=5", "refine.trials=4"), ATTRIBUTES)
    assert _phases(first) == ["explore"] * 4 + ["refine"] * 3 + ["explore"] * 2 + ["refine"]
    added = [t.system_attrs["fixed_params"] for t in first.trials[7:9]]
    assert not [point for point in added if point in sample]


def test_claims_give_each_trial_once_and_then_nothing(
    config: StudyConfig, study: optuna.Study
) -> None:
    numbers = []
    while (trial := claim(config, study)) is not None:
        numbers.append(trial.number)
    assert numbers == list(range(7))
    assert len(study.trials) == 7


def test_workers_together_never_start_more_than_the_budget(tmp_path: Path) -> None:
    create_study(_config(tmp_path, "explore.trials=20", "refine.trials=20"), ATTRIBUTES)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from study.config_file import load\n"
        "from study.storage import claim, open_study\n"
        "config = load(Path(sys.argv[1]), [f'runs={sys.argv[2]}'])\n"
        "study = open_study(config)\n"
        "while (trial := claim(config, study)) is not None:\n"
        "    print(trial.number)\n"
        "    study.tell(trial, 1.0)\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(TINY), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    claimed = [int(line) for worker in workers for line in worker.communicate()[0].split()]
    assert all(worker.returncode == 0 for worker in workers)
    assert Counter(claimed) == Counter(range(41))


def test_a_trial_that_is_handed_back_keeps_number_parameters_and_past(
    config: StudyConfig, study: optuna.Study
) -> None:
    for _ in range(4):
        claim(config, study)
    trial = claim(
        config, study
    )  # the first of phase 2: its parameters are drawn when it is claimed
    assert trial is not None
    values = {name: dimension.suggest(trial) for name, dimension in config.space.items()}
    trial.report(0.5, 1)
    hand_back(study, trial._trial_id)
    again = claim(config, open_study(config))
    assert again is not None
    assert again.number == trial.number
    assert {name: d.suggest(again) for name, d in config.space.items()} == values
    assert study.trials[trial.number].intermediate_values == {1: 0.5}


def test_trials_of_dead_workers_are_handed_back_and_those_of_living_ones_not(
    config: StudyConfig, study: optuna.Study
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    workers: list[Any] = [
        f"{socket.gethostname()}:{ended.pid}",
        f"{socket.gethostname()}:{os.getpid()}",
        "elsewhere:1",
    ]
    for worker in workers:
        trial = claim(config, study)
        assert trial is not None
        trial.set_user_attr("worker", worker)
    assert [trial.number for trial in reclaim(study)] == [0]
    states = [trial.state for trial in study.trials[:3]]
    assert states == [TrialState.WAITING, TrialState.RUNNING, TrialState.RUNNING]


def test_a_worker_elsewhere_without_a_sign_of_life_is_dead(
    config: StudyConfig, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = claim(config, study)
    assert trial is not None
    trial.set_user_attr("worker", "elsewhere:1")
    assert reclaim(study) == []
    monkeypatch.setattr(RDBStorage, "_get_stale_trial_ids", lambda *a: [trial._trial_id])
    assert [lost.number for lost in reclaim(study)] == [trial.number]


def test_random_survivors_follow_from_the_seed(tmp_path: Path) -> None:
    def spared(folder: str, *overrides: str) -> list[int]:
        config = _config(tmp_path / folder, "refine.trials=60", *overrides)
        trials = create_study(config, ATTRIBUTES).trials
        return [trial.number for trial in trials if trial.user_attrs.get("survivor")]

    assert 3 <= len(spared("a")) <= 18  # 15 % of 60
    assert spared("a") == spared("b")
    assert spared("c", "refine.survivors=0") == []
