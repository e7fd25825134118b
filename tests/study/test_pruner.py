"""Asynchronous successive halving: who is paused at a rung, and who is promoted."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.pruner import (
    SuccessiveHalving,
    is_paused,
    leaders,
    leads,
    promotable,
    queue,
    rungs,
    standing,
)


def _trial(
    number: int, wers: list[float], state: Any = "RUNNING", **attributes: Any
) -> FrozenTrial:
    evaluations = [{"wer": wer, "dev_loss": wer} for wer in wers]
    trial = create_trial(
        state=TrialState[state],
        value=wers[-1] if state == "COMPLETE" else None,
        user_attrs={"phase": "refine", "evaluations": evaluations, **attributes},
    )
    trial.number = number
    return trial


def _paused(number: int, wers: list[float]) -> FrozenTrial:
    return _trial(number, wers, "WAITING", paused=len(wers))


def _numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_rungs_are_shares_of_the_budget_before_its_end() -> None:
    assert rungs(4, 0.5, 2) == [2]
    assert rungs(16, 0.125, 2) == [2, 4, 8]
    assert rungs(9, 1 / 9, 3) == [1, 3]
    assert rungs(1, 0.5, 2) == []
    assert rungs(4, 1.0, 2) == []


def test_loss_ranks_until_word_error_rates_inform() -> None:
    blank = {"wer": 1.0, "dev_loss": 2.0}
    worse_blank = {"wer": 0.95, "dev_loss": 3.0}
    informed = {"wer": 0.79, "dev_loss": 9.0}
    better = {"wer": 0.2, "dev_loss": 9.0}
    order = sorted([worse_blank, informed, blank, better], key=standing)
    assert order == [better, informed, blank, worse_blank]


def test_one_in_a_few_leads_and_one_at_least() -> None:
    explored = [_trial(n, [0.9, w, w, w], "COMPLETE", phase="explore") for n, w in
                enumerate((0.3, 0.1, 0.2))]  # fmt: skip
    trials = [*explored, _trial(3, [0.9, 0.15]), _trial(4, [0.1]), _trial(5, [])]
    assert _numbers(leaders(trials, 2, 2)) == [1, 3]
    assert _numbers(leaders(trials, 2, 4)) == [1]
    assert _numbers(leaders(trials, 2, 9)) == [1]
    assert _numbers(leaders(trials, 1, 2)) == [4, 0]  # of equals the earlier
    assert leaders([], 1, 2) == []


@pytest.mark.parametrize("factor", [2, 3, 9])
def test_who_leads_is_one_of_the_leaders(factor: int) -> None:
    rng = random.Random(factor)
    for _ in range(50):
        trials = [_trial(n, [rng.choice((0.1, 0.2, 0.3))] * rng.randint(0, 2),
                         phase=rng.choice(("refine", "explore", "finalist")))
                  for n in range(rng.randint(0, 12))]  # fmt: skip
        own = _trial(len(trials), [0.2])
        expected = own in leaders([*trials, own], 1, factor)
        assert leads(own, trials, 1, factor) == expected


def test_finalists_are_not_compared_with() -> None:
    trials = [_trial(0, [0.1, 0.1], phase="finalist"), _trial(1, [0.5])]
    assert _numbers(leaders(trials, 1, 2)) == [1]


def test_a_paused_trial_is_promoted_when_others_come_in_behind_it() -> None:
    first, second = _trial(0, [0.1, 0.1], "COMPLETE"), _paused(1, [0.2])
    assert promotable([first, second], [1], 2) == []
    worse = [_paused(2, [0.3]), _paused(3, [0.4])]
    assert _numbers(promotable([first, second, *worse], [1], 2)) == [1]
    better = [_trial(4, [0.05]), _trial(5, [0.06])]  # the third of six is then another
    assert promotable([first, second, *worse, *better], [1], 2) == []


def test_the_highest_rung_is_promoted_from_first_and_the_best_of_it() -> None:
    trials = [
        _paused(0, [0.3, 0.3]), _paused(1, [0.2, 0.2]),
        _trial(2, [0.4, 0.4], "PRUNED"), _trial(3, [0.5, 0.5], "PRUNED"),
        _paused(4, [0.1]), *(_trial(n, [0.9], "PRUNED") for n in range(5, 12)),
    ]  # fmt: skip
    assert _numbers(promotable(trials, [1, 2], 2)) == [1, 0, 4]


# ── The paper's algorithm ────────────────────────────────────────────────────────────────


class Asha:
    """Algorithm 2 of Li et al. 2018 (arXiv 1810.05934), written from the paper.

    `rungs[k]` holds the losses of the configurations that completed rung k.
    """

    def __init__(self, factor: int, highest: int) -> None:
        self.factor = factor
        self.rungs: list[dict[int, float]] = [{} for _ in range(highest + 1)]
        self.promoted: list[set[int]] = [set() for _ in range(highest + 1)]
        self.begun = 0

    def promotable(self) -> list[tuple[int, int]]:
        """All that lines 12 to 16 could return: pairs of a configuration and its next rung."""
        found = []
        for k in range(len(self.rungs) - 2, -1, -1):
            rung = self.rungs[k]
            ranked = sorted(rung, key=lambda one: (rung[one], one))
            candidates = ranked[: math.floor(len(rung) / self.factor)]
            found += [(one, k + 1) for one in candidates if one not in self.promoted[k]]
        return found

    def get_job(self) -> tuple[int, int]:
        if found := self.promotable():
            configuration, k = found[0]
            self.promoted[k - 1].add(configuration)
            return configuration, k
        self.begun += 1
        return self.begun - 1, 0


@pytest.mark.parametrize(
    ("factor", "workers", "seed"), [(2, 1, 0), (2, 4, 1), (3, 4, 2), (4, 9, 3)]
)
def test_promotions_are_those_of_the_paper(factor: int, workers: int, seed: int) -> None:
    """Workers complete jobs in a random order; the rule is asked before each of them."""
    rng, highest = random.Random(seed), 3
    asha = Asha(factor, highest)
    curves = [[rng.random() for _ in range(highest + 1)] for _ in range(200)]
    under_way: list[tuple[int, int]] = []
    promotions = 0
    for _ in range(150):
        while len(under_way) < workers:
            trials = _as_trials(asha, curves, under_way)
            found = [
                (trial.number, trial.user_attrs["paused"])
                for trial in promotable(trials, range(1, highest + 1), factor)
                # One leads at least, so that a study of few trials trains one to the end.
                if len(asha.rungs[trial.user_attrs["paused"] - 1]) >= factor
            ]
            assert found == asha.promotable()
            promotions += bool(found)
            under_way.append(asha.get_job())
        configuration, k = under_way.pop(rng.randrange(len(under_way)))
        asha.rungs[k][configuration] = curves[configuration][k]
    assert promotions > 20
    assert asha.rungs[highest]


def _as_trials(
    asha: Asha, curves: list[list[float]], under_way: list[tuple[int, int]]
) -> list[FrozenTrial]:
    """The state of the paper's algorithm as trials in a storage: rung k is evaluation k + 1."""
    trials = []
    for number in range(asha.begun):
        done = sum(number in rung for rung in asha.rungs)
        wers = curves[number][:done]
        if number in {configuration for configuration, _ in under_way}:
            trials.append(_trial(number, wers))
        elif done == len(asha.rungs):
            trials.append(_trial(number, wers, "COMPLETE"))
        else:
            trials.append(_paused(number, wers))
    return trials


# ── In a study ───────────────────────────────────────────────────────────────────────────


def _study(rungs: list[int], factor: int) -> optuna.Study:
    return optuna.create_study(pruner=SuccessiveHalving(rungs, factor))


def _evaluated(study: optuna.Study, wers: list[float], **attributes: Any) -> optuna.Trial:
    trial = study.ask()
    for name, value in {"phase": "refine", **attributes}.items():
        trial.set_user_attr(name, value)
    trial.set_user_attr("evaluations", [{"wer": wer, "dev_loss": wer} for wer in wers])
    for step, wer in enumerate(wers, start=1):
        trial.report(wer, step)
    return trial


def test_the_worse_half_is_paused_at_a_rung() -> None:
    study = _study([2], 2)
    for wer in (0.1, 0.2, 0.3):  # phase 1 is compared with
        _evaluated(study, [0.9, wer, wer, wer], phase="explore")
    assert _evaluated(study, [0.1, 0.25]).should_prune()
    assert not _evaluated(study, [0.9, 0.15]).should_prune()


def test_only_rungs_pause_and_only_phase_2_and_not_those_spared_or_promoted() -> None:
    study = _study([2], 2)
    for wer in (0.1, 0.2, 0.3):
        _evaluated(study, [wer, wer, wer, wer], phase="explore")
    assert not _evaluated(study, [0.5]).should_prune()
    assert not _evaluated(study, [0.5, 0.5, 0.5]).should_prune()
    assert not _evaluated(study, [0.5, 0.5], phase="explore").should_prune()
    assert not _evaluated(study, [0.5, 0.5], survivor=True).should_prune()
    assert not _evaluated(study, [0.5, 0.5], promoted=2).should_prune()
    assert _evaluated(study, [0.5, 0.5]).should_prune()


def test_the_first_at_a_rung_goes_on() -> None:
    assert not _evaluated(_study([1], 2), [0.9]).should_prune()


def test_a_trial_that_passed_a_rung_is_not_compared_there_again() -> None:
    """It was interrupted before its next evaluation; better ones have come there meanwhile."""
    study = _study([1, 2], 2)
    trial = _evaluated(study, [0.5])
    assert not trial.should_prune()
    for _ in range(3):
        _evaluated(study, [0.1, 0.1], phase="explore")
    again = optuna.Trial(study, trial._trial_id)
    assert not again.should_prune()
    again.set_user_attr("evaluations", [{"wer": 0.5, "dev_loss": 0.5}] * 2)
    assert again.should_prune()


def test_the_queue_has_promoted_trials_first_and_paused_ones_not_at_all() -> None:
    study = _study([1], 2)
    for _ in range(2):
        study.enqueue_trial({}, user_attrs={"phase": "refine"})
    for wer in (0.4, 0.3, 0.2, 0.1):
        paused = {"paused": 1} if wer in (0.2, 0.4) else {}
        study.add_trial(
            create_trial(
                state=TrialState.WAITING if paused else TrialState.PRUNED,
                user_attrs={
                    "phase": "refine",
                    "evaluations": [{"wer": wer, "dev_loss": 1}],
                    **paused,
                },
            )
        )
    assert [t.number for t in study.trials if is_paused(t)] == [2, 4]
    assert _numbers(queue(study)) == [4, 0, 1]
    study.pruner = optuna.pruners.NopPruner()
    assert _numbers(queue(study)) == [0, 1]
