"""Finalists: whom they are chosen from, when, how often, and what they are told of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import pytest
from optuna.trial import TrialState

from reports.ranking import Candidate
from reports.record import read_study
from study import finalists
from study.config import StudyConfig
from study.connection import open_storage
from study.errors import InputError, Unavailable
from study.finalists import enqueue, select
from study.leases import Watcher, claim
from study.sampler import OrderedSampler
from study.storage import (
    CHOSEN,
    FINALIST,
    create_study,
    finalists_are_chosen,
    open_study,
    search_is_over,
)
from study.worker import more_may_come
from tests.reports.planted_study import MIDDLE, Formula, conduct, planted_config
from tests.reports.test_answers import SURFACE

ATTRIBUTES = {"corpus": {"fingerprint": "planted"}}


def _config(folder: Path, *, explore: int = 8, **finalists: Any) -> StudyConfig:
    return planted_config(
        folder, seed=0, explore={"trials": explore}, refine={"trials": 2}, finalists=finalists
    )


def _finalists(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.trials if trial.user_attrs.get("phase") == FINALIST]


@pytest.fixture(scope="module")
def conducted(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyConfig, optuna.Study]:
    config = _config(tmp_path_factory.mktemp("finalists"), top=2, seeds=3)
    conduct(config, Formula(SURFACE, 0.004))
    return config, open_study(config)


def test_none_are_chosen_before_the_search_is_over(tmp_path: Path) -> None:
    config = _config(tmp_path, top=2, seeds=3)
    study = create_study(config, ATTRIBUTES)
    assert not search_is_over(study.trials)
    assert enqueue(config, study) == 0
    assert _finalists(study) == []


def test_a_search_without_results_has_none(tmp_path: Path) -> None:
    config = _config(tmp_path, top=2, seeds=3)
    study = create_study(config, ATTRIBUTES)
    while (trial := claim(study)) is not None:
        study.tell(trial, state=TrialState.FAIL)
    assert search_is_over(study.trials)
    assert enqueue(config, study) == 0


@pytest.mark.parametrize("anchors", [False, True])
def test_top_zero_means_none(tmp_path: Path, anchors: bool) -> None:
    """Anchors by themselves would name one of them the winner of a search that found better."""
    config = _config(tmp_path, top=0, anchors=anchors)
    conduct(config, Formula(SURFACE, 0.004))
    assert _finalists(open_study(config)) == []
    assert config.finalist_trials == 0


def test_each_is_trained_with_every_seed_and_no_seed_twice(
    conducted: tuple[StudyConfig, optuna.Study],
) -> None:
    config, study = conducted
    found = _finalists(study)
    labels = [trial.user_attrs["finalist"] for trial in found]
    assert len(found) == config.finalist_trials == 9
    assert sorted(labels.count(label) for label in set(labels)) == [3, 3, 3]
    assert "middle" in labels
    assert len({trial.user_attrs["seed"] for trial in study.trials}) == len(study.trials)
    for label in set(labels):
        same = [trial.params for trial in found if trial.user_attrs["finalist"] == label]
        assert same[0] == same[1] == same[2]


def test_they_have_the_values_of_what_they_repeat(
    conducted: tuple[StudyConfig, optuna.Study],
) -> None:
    _, study = conducted
    for trial in _finalists(study):
        label = trial.user_attrs["finalist"]
        if label.startswith("trial "):
            assert trial.params == study.trials[int(label.removeprefix("trial "))].params
        elif label == "middle":
            assert trial.params == study.trials[0].params


def test_they_alone_have_a_test_wer(conducted: tuple[StudyConfig, optuna.Study]) -> None:
    _, study = conducted
    tested = [trial.number for trial in study.trials if "test_wer" in trial.user_attrs]
    assert tested == [trial.number for trial in _finalists(study)]


def test_asking_again_adds_nothing_and_chooses_the_same(
    conducted: tuple[StudyConfig, optuna.Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, study = conducted
    labels = {trial.user_attrs["finalist"] for trial in _finalists(study)}
    assert {finalist.label for finalist in select(config, study)} == labels
    monkeypatch.setattr("reports.candidates", pytest.fail)  # it reads the whole search
    assert enqueue(config, study) == 0


def test_more_seeds_are_added_to_a_study_that_ended(tmp_path: Path) -> None:
    conduct(_config(tmp_path, top=1, seeds=1), Formula(SURFACE, 0.004))
    more = _config(tmp_path, top=1, seeds=3)
    conduct(more, Formula(SURFACE, 0.004))
    finalists = _finalists(open_study(more))
    assert len(finalists) == 6
    assert {trial.state for trial in finalists} == {TrialState.COMPLETE}


def test_a_worker_with_another_file_does_not_ask_for_more(tmp_path: Path) -> None:
    conduct(_config(tmp_path, top=0), Formula(SURFACE, 0.004))
    other = _config(tmp_path, top=2, seeds=3)
    assert enqueue(other, open_study(other)) == 0
    assert not more_may_come(other, open_study(other), Watcher(open_study(other)))


def test_what_is_predicted_best_later_is_another_finalist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that went on predicts another best: it is trained, not averaged with the first."""
    for explore, layers in ((8, 2), (9, 4), (10, 2)):
        values = {**MIDDLE, "encoder_layers": layers, "learning_rate": 1e-3}
        best = Candidate(trial=None, values=values, expected=0.1)
        monkeypatch.setattr("reports.candidates", lambda *_, best=best: [best])
        config = _config(tmp_path, explore=explore, top=1, seeds=2, anchors=False)
        conduct(config, Formula(SURFACE, 0.004))
    found = [
        (trial.user_attrs["finalist"], trial.params["encoder_layers"])
        for trial in _finalists(open_study(config))
    ]
    assert found == 2 * [("predicted best", 2)] + 2 * [("predicted best (2)", 4)]


def test_what_was_predicted_best_and_is_drawn_later_is_not_trained_under_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report would compare the two as if they were different networks."""
    config = _config(tmp_path, top=1, seeds=2, anchors=False)
    best = Candidate(trial=None, values={**MIDDLE, "learning_rate": 1e-3}, expected=0.1)
    monkeypatch.setattr("reports.candidates", lambda *_: [best])
    conduct(config, Formula(SURFACE, 0.004))
    monkeypatch.setattr("reports.candidates", lambda *_: [replace(best, trial=7)])
    for explore, seeds in ((9, 2), (9, 3)):
        more = _config(tmp_path, explore=explore, top=1, seeds=seeds, anchors=False)
        conduct(more, Formula(SURFACE, 0.004))
        labels = [trial.user_attrs["finalist"] for trial in _finalists(open_study(more))]
        assert labels == ["predicted best"] * seeds


def test_an_anchor_that_was_trained_again_as_a_trial_is_not_once_more_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path, top=1, seeds=2, anchors=False)
    values = {**MIDDLE, "learning_rate": config.training.learning_rate}
    known = Candidate(trial=0, values=values, expected=0.1)
    monkeypatch.setattr("reports.candidates", lambda *_: [known])
    conduct(config, Formula(SURFACE, 0.004))
    more = _config(tmp_path, top=1, seeds=3, anchors=True)
    conduct(more, Formula(SURFACE, 0.004))
    labels = [trial.user_attrs["finalist"] for trial in _finalists(open_study(more))]
    assert labels == ["trial 0"] * 3


def test_what_the_search_could_not_draw_is_no_finalist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel of even length cannot even be built."""
    config = _config(tmp_path, top=1, anchors=False)
    study = create_study(config, ATTRIBUTES)
    fine = {**MIDDLE, "learning_rate": 1e-3}
    wrong: list[dict[str, float]] = [
        {**fine, "conv_kernel_size": 8},
        {**fine, "conv_kernel_size": 7.5},
        {**fine, "learning_rate": 0.5},
    ]
    found = [Candidate(trial=None, values=values, expected=0.1) for values in [*wrong, fine]]
    monkeypatch.setattr("reports.candidates", lambda *_: found)
    assert [finalist.parameters for finalist in select(config, study)] == [fine]


def _narrow(folder: Path, anchors: bool, *searched: str) -> StudyConfig:
    """A study that holds all but a few things fixed, and an anchor that is wider than all of it."""
    wide = {"name": "wide", **MIDDLE, "encoder_dim": 96, "encoder_layers": 4}
    search = planted_config(folder, seed=0).search
    return planted_config(
        folder,
        seed=0,
        search={name: search[name] for name in searched},
        network=MIDDLE,
        anchors=[wide],
        explore={"trials": 8},
        refine={"trials": 0},
        finalists={"top": 2, "seeds": 1, "anchors": anchors},
    )


def _configurations(study: optuna.Study) -> dict[str, dict[str, Any]]:
    """What the finalists are trained as, by their labels."""
    return {t.user_attrs["finalist"]: t.user_attrs["config"] for t in _finalists(study)}


def test_what_is_trained_again_is_the_network_that_its_name_says(tmp_path: Path) -> None:
    """An anchor of another width is no trial of the search: it cannot be repeated as one."""
    config = _narrow(tmp_path, False, "encoder_layers", "learning_rate")
    conduct(config, Formula(SURFACE, 0.004))
    study = open_study(config)
    found = _configurations(study)
    assert len(found) == 2
    for label, values in found.items():
        if label.startswith("trial "):
            repeated = study.trials[int(label.removeprefix("trial "))]
            assert values == repeated.user_attrs["config"]
            assert "anchor" not in repeated.user_attrs


def test_a_network_with_the_searched_values_of_an_anchor_is_not_the_anchor(tmp_path: Path) -> None:
    config = _narrow(tmp_path, True, "encoder_layers")
    conduct(config, Formula(SURFACE, 0.004))
    found = _configurations(open_study(config))
    shapes = {(values["encoder_layers"], values["encoder_dim"]) for values in found.values()}
    assert len(found) == len(shapes) == 3
    assert {(4, 96), (4, 64)} < shapes


def test_the_search_may_not_change_under_its_finalists(tmp_path: Path) -> None:
    conduct(_config(tmp_path, top=1, seeds=1), Formula(SURFACE, 0.004))
    other = planted_config(
        tmp_path, seed=1, explore={"trials": 8}, refine={"trials": 2}, finalists={"top": 1}
    )
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        create_study(other, ATTRIBUTES)


def test_neither_sampler_nor_effects_learn_from_finalists(
    conducted: tuple[StudyConfig, optuna.Study],
) -> None:
    config, study = conducted
    sampler = OrderedSampler(config.space, seed=0)
    assert not any(sampler._is_usable(trial) for trial in _finalists(study))
    record = read_study(open_storage(config), config.name)
    assert not record.trials.loc[record.trials["phase"] == FINALIST, "even"].any()


def test_the_winner_has_the_lowest_mean_dev_wer(
    conducted: tuple[StudyConfig, optuna.Study],
) -> None:
    config, study = conducted
    record = read_study(open_storage(config), config.name)
    means: dict[str, list[float]] = {}
    for trial in _finalists(study):
        assert trial.value is not None
        means.setdefault(trial.user_attrs["finalist"], []).append(trial.value)
    lowest = min(means, key=lambda label: sum(means[label]))
    assert record.finals[0].label == lowest
    assert record.best is not None
    assert record.best["finalist"] == lowest
    errors = sum(
        trial.user_attrs["test_errors"]
        for trial in _finalists(study)
        if trial.user_attrs["finalist"] == lowest
    )
    assert record.finals[0].test_wer == pytest.approx(errors / 6000)
    assert record.finals[0].test_greedy_wer == pytest.approx((errors + 60) / 6000)


def test_a_worker_stays_where_another_was_the_first_to_add_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path, top=2, seeds=3)
    study = create_study(config, ATTRIBUTES)
    while (trial := claim(study)) is not None:
        study.tell(trial, 0.5)

    def meanwhile(config: StudyConfig, study: optuna.Study) -> list[finalists.Finalist]:
        monkeypatch.undo()
        assert enqueue(config, open_study(config)) > 0
        return select(config, study)

    monkeypatch.setattr(finalists, "select", meanwhile)
    assert more_may_come(config, study, Watcher(study))


def test_when_a_search_that_went_on_ends_its_finalists_are_chosen_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its workers: `run` may be gone by then."""

    def searched(trials: int, layers: int) -> tuple[StudyConfig, optuna.Study]:
        values = {**MIDDLE, "encoder_layers": layers, "learning_rate": 1e-3}
        best = Candidate(trial=None, values=values, expected=0.1)
        monkeypatch.setattr("reports.candidates", lambda *_: [best])
        finalists = {"top": 1, "seeds": 1, "anchors": False}
        config = planted_config(
            tmp_path, seed=0, explore={"trials": 2}, refine={"trials": trials}, finalists=finalists
        )
        study = create_study(config, ATTRIBUTES)
        while (trial := claim(study)) is not None:
            study.tell(trial, 0.5)
        return config, study

    config, study = searched(trials=0, layers=2)
    assert more_may_come(config, study, Watcher(study))
    config, study = searched(trials=1, layers=4)  # which trains the finalist as well
    assert len(_finalists(study)) == 1
    assert more_may_come(config, study, Watcher(study))
    assert len(_finalists(study)) == 2
    config, study = searched(trials=2, layers=4)
    assert not more_may_come(config, study, Watcher(study))


def test_of_a_version_that_did_not_say_so_the_last_trials_tell_whether_they_are_chosen() -> None:
    searched, finalist = (
        optuna.trial.create_trial(value=0.5, user_attrs={"phase": phase})
        for phase in ("explore", FINALIST)
    )
    assert finalists_are_chosen({}, [searched, finalist])
    assert not finalists_are_chosen({}, [searched])
    assert not finalists_are_chosen({}, [searched, finalist, searched])


def test_whoever_is_interrupted_while_it_adds_them_leaves_the_rest_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path, top=2, seeds=3)
    with mock.patch("tests.reports.planted_study.enqueue"):
        conduct(config, Formula(SURFACE, 0.004))
    real, calls = optuna.Study.enqueue_trial, list[None]()

    def away(self: optuna.Study, *arguments: Any, **named: Any) -> None:
        calls.append(None)
        if len(calls) == 3:
            raise Unavailable("the storage is away")
        real(self, *arguments, **named)

    monkeypatch.setattr(optuna.Study, "enqueue_trial", away)
    with pytest.raises(Unavailable):
        enqueue(config, open_study(config))
    monkeypatch.undo()
    assert len(_finalists(open_study(config))) == 2
    enqueue(config, open_study(config))
    assert len(_finalists(open_study(config))) == config.finalist_trials == 9


def test_more_seeds_are_added_to_a_study_of_a_version_that_did_not_say_who_was_chosen(
    tmp_path: Path,
) -> None:
    conduct(_config(tmp_path, top=1, seeds=1), Formula(SURFACE, 0.004))
    more = _config(tmp_path, top=1, seeds=2)
    study = open_study(more)
    study.set_user_attr(CHOSEN, None)
    create_study(more, {"corpus": study.user_attrs["corpus"]})
    assert enqueue(more, open_study(more)) == 2
