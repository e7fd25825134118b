"""Whether rungs foresee the end, and what pruning cost."""

from __future__ import annotations

import random

import numpy as np
import pytest
from optuna.trial import FrozenTrial
from scipy.stats import spearmanr

from reports.rungs import evaluations_of, rungs_data
from study.pruner import leaders, rungs, standing
from tests.reports.checked import check_of, even, with_curve
from tests.reports.simulated import EVALUATIONS, draw, record_of, simulated_trial

pytestmark = pytest.mark.usefixtures("no_warnings")


def noisy_curves(trials: list[FrozenTrial], noise: float, level: float = 0.05) -> list[FrozenTrial]:
    """Curves that see the final WER through noise that shrinks with the budget."""
    rng = np.random.default_rng(0)
    for trial in trials:
        assert trial.value is not None
        ways = [
            trial.value + level * (EVALUATIONS - i) + noise * (1 - i / EVALUATIONS) * rng.normal()
            for i in range(1, EVALUATIONS + 1)
        ]
        with_curve(trial, ways)
    return trials


def test_rank_correlation_is_scipys() -> None:
    trials = noisy_curves(even(30, random.Random(0)), 0.1)
    record = record_of(trials)
    data = rungs_data(record)
    assert data.rungs == (2, 4) == tuple(rungs(EVALUATIONS, 0.25, 2))
    assert [item.evaluation for item in data.foresight] == list(range(1, EVALUATIONS))
    for item in data.foresight:
        at = [standing(t.user_attrs["evaluations"][item.evaluation - 1]) for t in trials]
        order = {value: place for place, value in enumerate(sorted(at))}
        expected = spearmanr([order[value] for value in at], [t.value for t in trials]).statistic
        assert item.correlation == pytest.approx(expected)
        assert item.low <= item.correlation <= item.high


def test_dev_loss_ranks_until_wer_informs() -> None:
    """At WERs of 100 % the loss alone knows the order."""
    rng = random.Random(0)
    trials = even(12, rng)
    for trial in trials:
        history = trial.user_attrs["evaluations"]
        for item in history[:-1]:
            item |= {"wer": 1.0, "dev_loss": 1 + trial.value}  # type: ignore[operator]
        trial.set_user_attr("evaluations", history)
    assert rungs_data(record_of(trials)).foresight[0].correlation == pytest.approx(1)


@pytest.mark.parametrize(("noise", "status"), [(0.0, "good"), (5.0, "bad")])
def test_rungs_that_know_and_that_do_not(noise: float, status: str) -> None:
    trials = noisy_curves(even(60, random.Random(0)), noise)
    assert check_of(record_of(trials), "rungs").status == status


def test_finished_trials_that_the_pruner_let_through_are_left_out() -> None:
    rng = random.Random(0)
    trials = even(10, rng) + even(20, rng, phase="refine") + even(3, rng, phase="finalist")
    trials += even(4, rng, phase="refine", survivor=True)
    assert {item.trials for item in rungs_data(record_of(trials)).foresight} == {14}


def test_the_rungs_of_a_study_that_did_not_store_them() -> None:
    rng = random.Random(0)
    trials = even(10, rng) + even(2, rng, phase="refine", outcome="pruned")
    data = rungs_data(record := record_of(trials, refine={}, training={}))
    assert (data.rungs, evaluations_of(record)) == ((3,), EVALUATIONS)


def test_a_study_that_does_not_prune() -> None:
    record = record_of(even(10, random.Random(0)), refine={"trials": 0, "pruner": "none"})
    assert check_of(record, "rungs").status == check_of(record, "pruning").status == "good"


def test_spared_trials_are_judged_as_the_pruner_would() -> None:
    """One after another, so that numbers are the order of arrival: the real rule agrees."""
    rng = random.Random(0)
    trials = noisy_curves(even(12, rng) + even(20, rng, phase="refine", survivor=True), 0.4)
    record = record_of(trials)
    for number, trial in enumerate(trials):
        trial.number = number
    stopped = set()
    for rung in rungs(EVALUATIONS, 0.25, 2):
        let_on: set[int] = set()
        for number in range(len(trials)):  # a paused one may be promoted by whoever comes next
            let_on |= {leader.number for leader in leaders(trials[: number + 1], rung, 2)}
        stopped |= set(range(12, len(trials))) - let_on
    spared = rungs_data(record).spared
    assert (spared.survivors, spared.stopped) == (20, len(stopped)) and 0 < len(stopped) < 20
    best = record.results["wer"].quantile(0.25)
    assert spared.among_best == sum(float(trials[n].value or 0) <= best for n in stopped)


def test_what_pruning_cost() -> None:
    """Rungs that turn the order upside down would stop the best."""
    rng = random.Random(0)
    trials = even(12, rng) + even(20, rng, phase="refine", survivor=True)
    for trial in trials:
        assert trial.value is not None
        with_curve(trial, [0.7 - trial.value] * (EVALUATIONS - 1) + [trial.value])
    assert check_of(record_of(trials), "pruning").status == "bad"
    assert check_of(record_of(noisy_curves(trials, 0.0)), "pruning").status == "good"


def test_what_chance_would_let_through_is_that_of_the_spared() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, wer=0.3 + 0.001 * i) for i in range(30)]
    for i in range(10):  # a search that concentrates: all of these are among the best quarter
        trial = simulated_trial(draw(rng), rng, phase="refine", survivor=True, wer=0.2 + 0.001 * i)
        trials.append(with_curve(trial, [0.7 - 0.01 * (i % 3)] * 7 + [0.2 + 0.001 * i]))
    assert "100 % of all that were spared did" in check_of(record_of(trials), "pruning").text
