"""The storage: the budget is never overshot, and an interrupted trial keeps its number."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import reports
from study.config import StudyConfig
from study.errors import InputError
from study.leases import claim
from study.storage import create_study, open_study
from tests.study.storages import ATTRIBUTES, KINDS, storage_of, tiny, together

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    return tiny(tmp_path)


@pytest.fixture
def study(config: StudyConfig) -> optuna.Study:
    return create_study(config, ATTRIBUTES)


def _phases(study: optuna.Study) -> list[str]:
    return [trial.user_attrs["phase"] for trial in study.trials]


def test_a_study_begun_with_other_settings_is_refused(tmp_path: Path) -> None:
    create_study(tiny(tmp_path), ATTRIBUTES)
    changed = tiny(tmp_path, "training.learning_rate=5e-3", "features.mels=24")
    with pytest.raises(InputError) as error:
        create_study(changed, ATTRIBUTES)
    assert "training.learning_rate was 0.004 and is now 0.005" in str(error.value)
    assert "features.mels was 20 and is now 24" in str(error.value)
    assert "give the study another name" in str(error.value)


def test_a_corpus_that_changed_is_refused(tmp_path: Path) -> None:
    create_study(tiny(tmp_path), ATTRIBUTES)
    with pytest.raises(InputError, match="other audio or transcripts"):
        create_study(tiny(tmp_path), {"corpus": {"fingerprint": "xyz"}})


def test_a_corpus_that_changed_can_be_accepted_and_is_recorded(tmp_path: Path) -> None:
    study = create_study(tiny(tmp_path), ATTRIBUTES)
    study.tell(study.ask(), 0.5)
    changed = {"corpus": {"fingerprint": "xyz"}}
    for _ in range(2):  # once accepted, it is the corpus of the study
        create_study(tiny(tmp_path), changed, accept_changed_corpus=True)
    create_study(tiny(tmp_path), changed)
    (sentence,) = study.user_attrs["changes"]
    assert "After 1 trials the speech or transcripts of the corpus changed" in sentence
    assert "(fingerprint abc, then xyz)" in sentence
    reports.write(study._storage, "tiny", tmp_path / "report")
    for page in ("index.html", "report.md"):
        text = (tmp_path / "report" / page).read_text(encoding="utf-8")
        assert "Changed meanwhile" in text
        assert "then xyz" in text


def test_code_that_changed_is_recorded(tmp_path: Path) -> None:
    study = create_study(tiny(tmp_path), {**ATTRIBUTES, "code": "one"})
    create_study(tiny(tmp_path), {**ATTRIBUTES, "code": "other"})
    (sentence,) = study.user_attrs["changes"]
    assert "the code of network, data or training changed" in sentence


def test_settings_without_influence_may_change(tmp_path: Path) -> None:
    create_study(tiny(tmp_path), ATTRIBUTES)
    create_study(tiny(tmp_path, "launcher.workers=3", "tracking.enabled=false"), ATTRIBUTES)


def test_a_study_of_a_version_with_fewer_keys_goes_on(config: StudyConfig) -> None:
    study = create_study(config, ATTRIBUTES)
    older = config.model_dump(mode="json")
    del older["network"]["macaron"], older["refine"]["survivors"]
    study.set_user_attr("config", older)
    create_study(config, ATTRIBUTES)
    study.set_user_attr("config", {**older, "seed": 5, "removed": True})
    with pytest.raises(InputError, match=r"does not know \(removed\): use that version"):
        create_study(config, ATTRIBUTES)
    study.set_user_attr("config", {**older, "seed": 5})
    with pytest.raises(InputError, match="seed was 5 and is now 0"):
        create_study(config, ATTRIBUTES)


def test_what_is_searched_is_stored_for_those_who_read_the_study(tmp_path: Path) -> None:
    """Whether whole numbers between two ends are meant, the configuration does not say."""
    searched = "search.gradient_clip={low: 1, high: 10, role: nuisance}"
    space = create_study(tiny(tmp_path, searched), ATTRIBUTES).user_attrs["space"]
    assert list(space) == [*tiny(tmp_path).search, "gradient_clip"]
    assert space["encoder_layers"] == {"role": "scientific", "choices": [1, 2]}
    assert space["encoder_dim"] == {"role": "scientific", "choices": [8, 16]}
    clip = {"role": "nuisance", "low": 1.0, "high": 10.0, "log": False}
    assert space["gradient_clip"] == clip


def test_a_study_that_was_begun_without_its_space_goes_on_and_has_it_then(tmp_path: Path) -> None:
    study = create_study(tiny(tmp_path), ATTRIBUTES)
    space = study.user_attrs["space"]
    study.set_user_attr("space", None)
    create_study(tiny(tmp_path, "explore.trials=5"), ATTRIBUTES)
    assert len(study.trials) == 9
    assert study.user_attrs["space"] == space


def test_the_whole_budget_waits_in_the_order_of_the_phases(study: optuna.Study) -> None:
    assert {trial.state for trial in study.trials} == {TrialState.WAITING}
    assert _phases(study) == ["explore"] * 4 + ["refine"] * 3
    assert study.trials[0].user_attrs["anchor"] == "small"
    fixed = study.trials[0].system_attrs["fixed_params"]
    assert fixed["encoder_dim"] == 8
    assert fixed["learning_rate"] == 4e-3  # the baseline: an anchor has no opinion on it


def test_a_study_is_extended_and_never_begun_twice(tmp_path: Path) -> None:
    first = create_study(tiny(tmp_path), ATTRIBUTES)
    sample = [t.system_attrs["fixed_params"] for t in first.trials[1:4]]
    create_study(tiny(tmp_path), ATTRIBUTES)
    assert len(first.trials) == 7
    create_study(tiny(tmp_path, "explore.trials=5", "refine.trials=4"), ATTRIBUTES)
    assert _phases(first) == ["explore"] * 4 + ["refine"] * 3 + ["explore"] * 2 + ["refine"]
    added = [t.system_attrs["fixed_params"] for t in first.trials[7:9]]
    assert not [point for point in added if point in sample]


def test_claims_give_each_trial_once_and_then_nothing(
    config: StudyConfig, study: optuna.Study
) -> None:
    numbers = []
    while (trial := claim(study)) is not None:
        numbers.append(trial.number)
    assert numbers == list(range(7))
    assert len(study.trials) == 7


def _start(folder: Path, settings: list[str]) -> int:
    return len(create_study(tiny(folder, *settings), ATTRIBUTES).trials)


@pytest.mark.parametrize("kind", KINDS)
def test_people_who_start_a_study_at_once_begin_it_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with storage_of(kind, tmp_path, request) as storage:
        settings = [f"storage={storage}", f"name={tmp_path.name}"]
        assert together(4, _start, tmp_path, settings) == [7] * 4
        study = open_study(tiny(tmp_path, *settings))
        assert _phases(study) == ["explore"] * 4 + ["refine"] * 3
        assert optuna.get_all_study_names(study._storage) == [tmp_path.name]


def test_random_survivors_follow_from_the_seed(tmp_path: Path) -> None:
    def spared(folder: str, *overrides: str) -> list[int]:
        config = tiny(tmp_path / folder, "refine.trials=60", *overrides)
        trials = create_study(config, ATTRIBUTES).trials
        return [trial.number for trial in trials if trial.user_attrs.get("survivor")]

    assert 3 <= len(spared("a")) <= 18  # 15 % of 60
    assert spared("a") == spared("b")
    assert spared("c", "refine.survivors=0") == []


def test_trials_that_crashed_are_trained_anew_where_that_is_asked(tmp_path: Path) -> None:
    study = create_study(tiny(tmp_path), ATTRIBUTES)
    whole = create_study(tiny(tmp_path / "whole", "explore.trials=4"), ATTRIBUTES)
    for number in range(4):  # the anchor and the sample
        trial = claim(study)
        assert trial is not None
        if number in (0, 2):
            trial.set_user_attr("outcome", "crashed")
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, 0.5)
    before = study.trials

    assert len(create_study(tiny(tmp_path), ATTRIBUTES).trials) == len(before)
    for _ in range(2):  # once is enough
        again = create_study(tiny(tmp_path), ATTRIBUTES, retry_crashed=True).trials
    anchor, sampled = again[len(before) :]
    for retry, crashed in ((anchor, before[0]), (sampled, before[2])):
        assert retry.state == TrialState.WAITING
        assert retry.system_attrs["fixed_params"] == crashed.system_attrs["fixed_params"]
        assert retry.user_attrs["retry_of"] == crashed.number
        assert retry.user_attrs["phase"] == "explore"
    assert anchor.user_attrs["anchor"] == before[0].user_attrs["anchor"]

    more = create_study(tiny(tmp_path, "explore.trials=4"), ATTRIBUTES).trials
    assert len(more) == len(again) + 1
    assert more[-1].system_attrs["fixed_params"] == whole.trials[4].system_attrs["fixed_params"]


def test_the_file_of_a_study_is_whole_when_its_last_process_ended(tmp_path: Path) -> None:
    """SQLite brings its log into the file when it is closed: a copy of that alone has all."""
    program = (
        "import sys, pathlib; from study import __main__; from study.storage import create_study; "
        "from tests.study.storages import ATTRIBUTES, tiny; "
        "create_study(tiny(pathlib.Path(sys.argv[1]), 'storage=sqlite'), ATTRIBUTES)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=ROOT)
    copy = tmp_path / "copy.db"
    copy.write_bytes((tmp_path / "tiny" / "study.db").read_bytes())
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (7,)
