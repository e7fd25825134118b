"""The search: an even sample, an ordered sampler, a pruner that compares like with like."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.sampler import BEST, REMEMBERED, OrderedSampler, derived_seed, even_sample, remembered
from study.space import Dimension

SPACE = {
    "encoder_dim": Dimension(name="encoder_dim", role="scientific", values=(32, 48, 64, 96)),
    "conv_kernel_size": Dimension(
        name="conv_kernel_size", role="scientific", values=(3, 7, 15, 31)
    ),
    "learning_rate": Dimension(
        name="learning_rate", role="nuisance", low=1e-3, high=1e-1, log=True
    ),
}


def test_an_even_sample_meets_every_value_equally_often() -> None:
    sample = even_sample(SPACE, 64, seed=0)
    assert set(Counter(point["encoder_dim"] for point in sample).values()) == {16}
    pairs = Counter((point["encoder_dim"], point["conv_kernel_size"]) for point in sample)
    assert set(pairs.values()) == {4}
    below = sum(point["learning_rate"] < 1e-2 for point in sample)
    assert below == 32  # even on the logarithmic scale


def test_a_longer_sample_begins_with_the_shorter_one_and_seeds_differ() -> None:
    assert even_sample(SPACE, 20, seed=1)[:7] == even_sample(SPACE, 7, seed=1)
    assert even_sample(SPACE, 7, seed=1) != even_sample(SPACE, 7, seed=2)
    assert even_sample(SPACE, 0, seed=1) == []
    assert even_sample({}, 2, seed=1) == [{}, {}]


def test_derived_seeds_differ_with_every_part() -> None:
    seeds = {derived_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)


def _study(kind: str = "tpe", seed: int = 0, pruner: Any = None) -> optuna.Study:
    return optuna.create_study(
        sampler=OrderedSampler(SPACE, seed=seed, kind=kind),
        pruner=pruner or optuna.pruners.NopPruner(),
    )


def _ask(study: optuna.Study) -> tuple[optuna.Trial, dict[str, Any]]:
    trial = study.ask()
    return trial, {name: dimension.suggest(trial) for name, dimension in SPACE.items()}


def _quality(values: dict[str, Any]) -> float:
    return float(abs(values["encoder_dim"] - 64) / 64 + abs(values["conv_kernel_size"] - 7) / 32)


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_proposals_are_values_of_the_space_and_recorded_as_numbers(kind: str) -> None:
    study = _study(kind)
    for _ in range(20):
        trial, values = _ask(study)
        assert all(values[name] in dimension for name, dimension in SPACE.items())
        study.tell(trial, _quality(values))
    last = study.trials[-1]
    assert last.params == values
    assert isinstance(last.distributions["encoder_dim"], optuna.distributions.IntDistribution)


def test_the_sampler_concentrates_where_it_is_good() -> None:
    late: dict[str, list[float]] = {"tpe": [], "random": []}
    for kind, found in late.items():
        for seed in range(4):
            study = _study(kind, seed)
            for number in range(40):
                trial, values = _ask(study)
                study.tell(trial, _quality(values))
                if number >= 20:
                    found.append(_quality(values))
    assert statistics.mean(late["tpe"]) < 0.6 * statistics.mean(late["random"])


def test_a_proposal_follows_from_seed_number_and_history_alone() -> None:
    def values_of(study: optuna.Study) -> list[dict[str, Any]]:
        found = []
        for _ in range(12):
            trial, values = _ask(study)
            study.tell(trial, _quality(values))
            found.append(values)
        return found

    whole = values_of(_study(seed=3))
    assert values_of(_study(seed=3)) == whole
    assert values_of(_study(seed=4)) != whole
    resumed = _study(seed=3)
    for _ in range(12):
        resumed.sampler = OrderedSampler(SPACE, seed=3)  # as a new process has it
        trial, values = _ask(resumed)
        resumed.tell(trial, _quality(values))
    assert [trial.params for trial in resumed.trials] == whole


def test_trials_outside_the_space_and_failures_are_not_learnt_from() -> None:
    study = _study()
    outside = {"encoder_dim": 144, "conv_kernel_size": 31, "learning_rate": 1e-2}
    ranges = {
        "encoder_dim": optuna.distributions.IntDistribution(1, 999),
        "conv_kernel_size": optuna.distributions.IntDistribution(1, 999),
        "learning_rate": optuna.distributions.FloatDistribution(1e-9, 1),
    }
    for state, value in ((TrialState.COMPLETE, 0.0), (TrialState.FAIL, None)):
        study.add_trial(
            create_trial(state=state, value=value, params=outside, distributions=ranges)
        )
    for _ in range(10):
        trial, values = _ask(study)
        study.tell(trial, _quality(values))
        assert values["encoder_dim"] in SPACE["encoder_dim"].values


def test_dimensions_read_themselves_to_people() -> None:
    assert SPACE["encoder_dim"].describe() == "32, 48, 64, 96"
    assert SPACE["learning_rate"].describe() == "0.001 to 0.1, logarithmic"
    long = Dimension(name="encoder_layers", role="scientific", values=tuple(range(1, 13)))
    assert long.describe() == "1, 2 … 12"


def _finished(number: int, value: float, **changes: Any) -> FrozenTrial:
    trial = create_trial(value=value, **changes)
    trial.number = number
    return trial


def test_a_long_study_is_remembered_by_its_best_and_an_even_choice_of_the_rest() -> None:
    values = np.random.default_rng(0).permutation(2000)
    trials = [_finished(number, float(value)) for number, value in enumerate(values)]
    trials[7] = _finished(7, -1.0, constraints={"could_not_be_trained": 1.0})
    trials[8] = _finished(8, -1.0, state=TrialState.PRUNED)
    running = create_trial(state=TrialState.RUNNING)
    running.number = 2000
    kept = remembered([*trials, running])
    assert len(kept) == REMEMBERED + 1
    assert kept[-1] is running
    numbers = [trial.number for trial in kept]
    assert numbers == sorted(numbers)
    feasible = sorted((t for t in trials if t.number not in (7, 8)), key=lambda t: t.value or 0)
    assert {trial.number for trial in feasible[:BEST]} <= set(numbers)
    halves = sum(number < 1000 for number in numbers)
    assert abs(halves - REMEMBERED / 2) < 20
    assert remembered(trials[:REMEMBERED]) == trials[:REMEMBERED]


def test_a_proposal_of_a_long_study_is_as_quick_as_one_of_a_shorter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learnt: list[int] = []
    sample = optuna.samplers.TPESampler.sample_relative

    def spy(self: Any, study: optuna.Study, *rest: Any) -> dict[str, Any]:
        learnt.append(len(study.trials))
        return sample(self, study, *rest)

    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_relative", spy)
    study = _study()
    trial, _ = _ask(study)
    study.tell(trial, 0.5)
    study.add_trials(study.trials * 700)
    _ask(study)
    assert learnt[-1] == REMEMBERED + 1  # and the one that asks
