"""Whether a study can be believed: each check on studies whose fault is planted."""

from __future__ import annotations

import json
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial
from scipy.stats import norm, spearmanr

from reports.answer import answer_data
from reports.checks import checks_data
from reports.curves import falls_data
from reports.noise import noise_checks, seed_spread
from reports.record import StudyRecord, read_study
from reports.rendering import environment, safe_svg
from reports.rungs import evaluations_of, rungs_data
from reports.style import inline_svg
from reports.trust import MARKS, Check
from study.pruner import leaders, rungs, standing
from tests.reports.simulated import (
    ANCHORS,
    EVALUATIONS,
    SimulatedStudy,
    config,
    corpus,
    draw,
    simulated_trial,
)

Simulate = Callable[..., SimulatedStudy]
REFINE = {"trials": 8, "pruner": "successive_halving", "first_rung": 0.25, "reduction_factor": 2}


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", ResourceWarning)  # what other tests left to be collected
        yield


def record_of(
    trials: list[FrozenTrial], settings: dict[str, Any] | None = None, words: int = 655
) -> StudyRecord:
    """A study in memory."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="laptop", direction="minimize")
    about = corpus()
    about["splits"]["dev"]["words"] = words
    study.set_user_attr("corpus", about)
    told = {**config(), "training": {"evaluations": EVALUATIONS, "decay": 0.25}, "refine": REFINE}
    study.set_user_attr("config", {**told, **(settings or {})})
    study.add_trials(trials)
    return read_study(storage, "laptop")


def check_of(record: StudyRecord, name: str) -> Check:
    found = {check.id: check for check in checks_data(record).checks}
    assert len(found) == 12
    return found[name]


def even(count: int, rng: random.Random, **more: Any) -> list[FrozenTrial]:
    return [simulated_trial(draw(rng), rng, **more) for _ in range(count)]


def params(**changes: float) -> dict[str, float]:
    return {**ANCHORS["conformer-s"], **changes}


def with_curve(trial: FrozenTrial, wers: list[float]) -> FrozenTrial:
    """The trial with other WERs on the way; its dev losses follow them."""
    history = trial.user_attrs["evaluations"]
    for item, wer in zip(history, wers, strict=True):
        item |= {"wer": wer, "dev_loss": 1 + wer}
    trial.set_user_attr("evaluations", history)
    return trial


# Unhappy studies


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_hardly_any_trials(count: int) -> None:
    record = record_of(even(count, random.Random(0)))
    statuses = {check.id: check.status for check in checks_data(record).checks}
    usual = {"seeds", "dev_size", "learning_rate", "budget", "rungs", "pruning"}
    assert {name for name in usual if statuses[name] != "not known"} == set()
    if count == 0:
        assert set(statuses.values()) == {"not known"}
        assert checks_data(record).sentence == "Of 12 checks: 12 not known."


@pytest.mark.parametrize("outcome", ["pruned", "crashed", "diverged", "out_of_memory", "stopped"])
def test_no_trial_finished(outcome: str) -> None:
    record = record_of(even(9, random.Random(0), outcome=outcome))
    found = {check.id: check.status for check in checks_data(record).checks}
    assert found.pop("failures") in {"good", "bad", "not known"}
    assert set(found.values()) <= {"not known"}


@pytest.mark.parametrize("wer", [math.nan, math.inf, 0.0, 1.6])
def test_strange_wers(wer: float) -> None:
    rng = random.Random(0)
    outcome = "pruned" if math.isnan(wer) else "finished"  # Optuna refuses NaN as a result
    strange = even(12, rng, wer=wer, outcome=outcome)
    for trials in (strange, even(8, rng) + strange):
        for check in checks_data(record_of(trials)).checks:
            assert check.text and check.status in MARKS
            assert "nan" not in check.text.lower().split() and "inf " not in check.text


@pytest.mark.parametrize(
    ("wer", "status"), [(0.12, "good"), (0.5, "good"), (0.7, "look"), (0.97, "bad"), (1.3, "bad")]
)
def test_networks_that_recognise_nothing_are_ranked_by_how_they_fail(
    wer: float, status: str
) -> None:
    """The lowest WER decides: trials that fail beside one that learns are what a search is for."""
    rng = random.Random(0)
    deaf = even(8, rng, wer=max(wer, 0.95))
    check = check_of(record_of([*deaf, *even(1, rng, wer=wer)]), "recognition")
    assert check.status == status
    assert ("ranked by how they fail" in check.text) == (status == "bad")
    assert bool(check.remedy) == (status != "good")


def test_a_study_from_elsewhere() -> None:
    """Neither curves, phases, costs, corpus nor configuration."""
    study = optuna.create_study(storage=(storage := optuna.storages.InMemoryStorage()))
    rng = random.Random(0)
    for _ in range(20):
        trial = simulated_trial(draw(rng), rng)
        trial.user_attrs.clear()
        trial.intermediate_values.clear()
        study.add_trial(trial)
    found = {c.id: c for c in checks_data(read_study(storage, study.study_name)).checks}
    for name in ("dev_size", "budget", "rungs", "pruning", "seeds"):
        assert found[name].status == "not known"
    assert "did not store" in found["dev_size"].text


def test_attributes_of_the_wrong_kind() -> None:
    rng = random.Random(0)
    trials = even(10, rng, parameters="many", evaluations=[3, {"wer": "low"}], survivor="yes")
    wrong = {"refine": {"first_rung": "half", "reduction_factor": None}, "training": [1]}
    checks_data(record_of(trials, wrong))


def test_ten_thousand_trials_take_seconds() -> None:
    rng = random.Random(0)
    record = record_of(even(9000, rng) + even(1000, rng, phase="refine", survivor=True))
    started = time.process_time()  # others may keep the machine busy
    checks_data(record)
    assert time.process_time() - started < 4


# Edges


def quadratic(centre: float, rng: random.Random) -> list[FrozenTrial]:
    """Trials of which those do best whose learning rate is at a place of its range."""
    trials = []
    for _ in range(48):
        values = draw(rng)
        place = math.log(values["learning_rate"] / 5e-4) / math.log(10)
        wer = 0.1 + 0.3 * abs(place - centre) + rng.gauss(0, 0.005)
        trials.append(simulated_trial(values, rng, wer=wer))
    return trials


@pytest.mark.parametrize(("centre", "status"), [(0.5, "good"), (0.0, "bad"), (1.0, "bad")])
def test_the_learning_rate_at_its_edge(centre: float, status: str) -> None:
    check = check_of(record_of(quadratic(centre, random.Random(1))), "learning_rate")
    assert check.status == status
    if status == "bad":
        assert ("upper" if centre else "lower") in check.remedy


def test_the_learning_rate_of_the_largest_networks() -> None:
    """Small networks do best in the middle, large ones at the lower end."""
    rng, trials = random.Random(2), []
    for i in range(60):
        large = i % 3 == 0
        values = params(encoder_layers=4 if large else 1, encoder_dim=96 if large else 32)
        values["learning_rate"] = 5e-4 * 10 ** ((i + 0.5) / 60)
        place = math.log10(values["learning_rate"] / 5e-4)
        wer = (0.2 if large else 0.1) + 0.3 * abs(place - (0 if large else 0.5))
        trials.append(simulated_trial(values, rng, wer=wer + rng.gauss(0, 0.002)))
    check = check_of(record_of(trials), "learning_rate")
    assert check.status in {"look", "bad"} and "lower" in check.remedy
    assert "Of the best quarter of the trials, 0 of 15 lie in the lowest" in check.text


def test_a_learning_rate_that_is_not_searched() -> None:
    search = {k: v for k, v in config()["search"].items() if k != "learning_rate"}
    check = check_of(record_of(even(20, random.Random(0)), {"search": search}), "learning_rate")
    assert check.status == "not known" and "not searched" in check.text


INSIDE = {
    "encoder_layers": 2,
    "encoder_dim": 64,
    "attention_heads": 2,
    "conv_kernel_size": 7,
    "decoder_layers": 1,
    "decoder_dim": 64,
    "learning_rate": 1e-3,
}


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, "good", "Nothing lies beyond 1 decoder layer"),
        ({"encoder_layers": 1, "attention_heads": 1}, "good", "Nothing lies beyond"),
        ({"conv_kernel_size": 3}, "good", "convolution kernel 3"),
        ({"encoder_dim": 96}, "look", "encoder width 96"),
        ({"encoder_dim": 32}, "look", "encoder width 32"),
        ({"encoder_layers": 4}, "bad", "4 encoder layers"),
    ],
)
def test_best_values_at_an_end(changes: dict[str, float], status: str, said: str) -> None:
    """In the formula WER falls clearly with layers; widths here are level."""
    rng = random.Random(0)
    trials = [
        simulated_trial(values, rng, wer=0.4 - 0.05 * values["encoder_layers"])
        for values in (draw(rng) for _ in range(48))
    ]
    trials.append(simulated_trial({**INSIDE, **changes}, rng, wer=0.05, phase="refine"))
    check = check_of(record_of(trials), "boundary")
    assert check.status == status and said in check.text


# Noise


def test_the_spread_between_seeds_is_the_answers() -> None:
    rng, trials = random.Random(0), []
    for layers, wers in ((1, (0.30, 0.32)), (2, (0.20, 0.20, 0.26)), (3, (0.9,))):
        trials += [simulated_trial(params(encoder_layers=layers), rng, wer=wer) for wer in wers]
    spread = seed_spread(record := record_of(trials))
    assert spread is not None
    assert spread.deviation == pytest.approx((0.0026 / 3) ** 0.5)
    assert spread.deviation == answer_data(record).seed_spread
    assert (spread.freedom, spread.configurations) == (3, 2)
    assert spread.low < spread.deviation < spread.high


def test_one_seed_twice_is_no_second_seed() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(params(), rng, wer=wer, seed=7) for wer in (0.2, 0.3)]
    assert seed_spread(record_of(trials)) is None


def test_the_reading_that_chose_a_finalist_is_none_of_its_seeds() -> None:
    """Of an anchor, which nothing chose, the reading of the search is one."""
    rng = random.Random(0)

    def trained(layers: int, wers: tuple[float, ...], **more: Any) -> list[FrozenTrial]:
        values = params(encoder_layers=layers)
        return [simulated_trial(values, rng, wer=wer, **more) for wer in wers]

    chosen = [*trained(1, (0.10,)), *trained(1, (0.20, 0.22), phase="finalist", finalist="trial 0")]
    assert seed_spread(record_of(chosen[:2])) is None
    found = seed_spread(record := record_of(chosen))
    assert found is not None and found.freedom == 1
    assert found.deviation == pytest.approx(0.02 / 2**0.5)
    assert answer_data(record).seed_spread == found.deviation
    name = "conformer-s"
    again = trained(2, (0.32,), phase="finalist", finalist=name, anchor=name)
    known = seed_spread(record_of([*trained(2, (0.30,), anchor=name), *again]))
    assert known is not None and known.deviation == pytest.approx(0.02 / 2**0.5)


def test_the_lowest_of_many_equal_trials_leads_by_luck() -> None:
    verdicts = []
    for seed in range(12):
        rng = random.Random(seed)
        trials = [simulated_trial(draw(rng), rng, wer=rng.gauss(0.2, 0.01)) for _ in range(75)]
        trials += [simulated_trial(params(), rng, wer=rng.gauss(0.2, 0.01)) for _ in range(12)]
        seeds = noise_checks(record_of(trials))[0]
        assert "the lowest of 87 readings" in seeds.text
        verdicts.append(seeds.status)
    assert verdicts.count("good") <= 1 and "bad" in verdicts


@pytest.mark.parametrize(("gap", "status"), [(0.0005, "bad"), (0.012, "look"), (0.05, "good")])
def test_seeds_against_the_lead_over_the_anchor(gap: float, status: str) -> None:
    rng = random.Random(0)
    trials = even(12, rng, wer=0.4)
    for label, wer in (("trial 0", 0.2), ("conformer-s", 0.2 + gap)):
        anchor = label if label in ANCHORS else None
        values = params(encoder_layers=3 if anchor else 2)
        for step in (-0.01, 0, 0.01):
            more: dict[str, Any] = {"phase": "finalist", "finalist": label, "anchor": anchor}
            trials.append(simulated_trial(values, rng, wer=wer + step, **more))
    check = check_of(record_of(trials), "seeds")
    assert check.status == status
    assert "the anchor conformer-s" in check.text and "varies by 1.00 points" in check.text


@pytest.mark.parametrize(("words", "status"), [(20_000, "good"), (700, "look"), (50, "bad")])
def test_the_size_of_dev(words: int, status: str) -> None:
    rng = random.Random(0)
    wers = [0.2 + 0.03 * float(norm.ppf((i + 0.5) / 40)) for i in range(40)]
    trials = [simulated_trial(draw(rng), rng, wer=wer) for wer in wers]
    check = check_of(record_of(trials, words=words), "dev_size")
    assert check.status == status
    error = 100 * math.sqrt(0.2 / words)  # points, if errors are independent
    assert f"standard error of about {error:.2f} points" in check.text


def finalists(rng: random.Random, **means: float) -> list[FrozenTrial]:
    return [
        simulated_trial(
            params(encoder_layers=i + 1),
            rng,
            wer=mean + step,
            phase="finalist",
            finalist=label.replace("_", " "),
        )
        for i, (label, mean) in enumerate(means.items())
        for step in (-0.002, 0, 0.002)
    ]


def test_the_winner() -> None:
    rng = random.Random(0)
    search = [simulated_trial(draw(rng), rng, wer=0.2 + 0.01 * i) for i in range(12)]
    alone = check_of(record_of(search), "winner")
    assert alone.status == "look" and "lowest of 12 single readings" in alone.text
    held = check_of(record_of(search + finalists(rng, trial_0=0.205, trial_1=0.23)), "winner")
    assert held.status == "good"
    assert "trial 0, had 20.00 % there and has 20.50 % with fresh seeds" in held.text
    near = check_of(record_of(search + finalists(rng, trial_0=0.205, trial_1=0.2055)), "winner")
    assert near.status == "look"
    lucky = check_of(record_of(search + finalists(rng, trial_0=0.35, trial_1=0.36)), "winner")
    assert lucky.status == "bad" and "35.00 % with fresh seeds" in lucky.text
    other = check_of(record_of(search + finalists(rng, trial_0=0.35, trial_1=0.21)), "winner")
    assert other.status == "look" and "35.00 % with fresh seeds" in other.text


def test_a_winner_that_lost_a_seed_is_looked_at() -> None:
    rng = random.Random(0)
    search = [simulated_trial(draw(rng), rng, wer=0.2 + 0.01 * i) for i in range(12)]
    trials = search + finalists(rng, trial_0=0.205, trial_1=0.23)
    more: dict[str, Any] = {"phase": "finalist", "finalist": "trial 0"}
    trials.append(simulated_trial(params(encoder_layers=1), rng, outcome="crashed", **more))
    record = record_of(trials)
    assert [(item.seeds, item.failed) for item in record.finals] == [(3, 1), (3, 0)]
    check = check_of(record, "winner")
    assert check.status == "look" and "1 more seed of it failed" in check.text
    assert "mean of 3 seeds, 1 more failed" in answer_data(record).sentence
    again = simulated_trial(
        params(encoder_layers=1), rng, wer=0.205, retry_of=len(trials) - 1, **more
    )
    record = record_of([*trials, again])
    assert [(item.seeds, item.failed) for item in record.finals] == [(4, 0), (3, 0)]


# Failures


def test_failures_by_their_share() -> None:
    rng = random.Random(0)
    for failed, status in ((0, "good"), (1, "good"), (3, "look"), (8, "bad")):
        trials = even(30, rng) + even(failed, rng, outcome="crashed")
        check = check_of(record_of(trials), "failures")
        assert check.status == status and "cluster" not in check.text


def test_failures_that_cluster() -> None:
    rng, trials = random.Random(0), []
    for i in range(120):
        values = draw(rng)
        lost = values["encoder_dim"] == 96 and i % 5 == 0
        trials.append(simulated_trial(values, rng, outcome="out_of_memory" if lost else "finished"))
    record = record_of(trials)
    check = check_of(record, "failures")
    assert check.status == "look" and "encoder width 96 (" in check.text
    failed = int((record.trials["outcome"] == "out_of_memory").sum())
    assert failed / 120 < 0.05 or f"{failed} ran out of memory" in check.text


# Coverage


@pytest.mark.parametrize(("count", "status"), [(70, "good"), (69, "look"), (20, "bad")])
def test_the_number_of_explore_trials(count: int, status: str) -> None:
    assert check_of(record_of(even(count, random.Random(0))), "explore_size").status == status


def test_cover_of_the_space() -> None:
    """A Sobol sample is even; one in a corner is not, and lacks values."""
    from scipy.stats import qmc

    points = qmc.Sobol(7, rng=0).random(64)
    lists: list[list[int]] = [[1, 2, 3, 4], [32, 48, 64, 96], [1, 2, 4], [3, 7, 15, 31], [1, 2]]
    lists.append([32, 64, 96])
    rng = random.Random(0)

    def sample(units: np.ndarray) -> list[FrozenTrial]:
        names = [name for name in INSIDE if name != "learning_rate"]
        return [
            simulated_trial(
                {n: float(v[int(u * len(v))]) for n, v, u in zip(names, lists, row, strict=False)}
                | {"learning_rate": 5e-4 * 10 ** row[6]},
                rng,
            )
            for row in units
        ]

    even_one = check_of(record_of(sample(points)), "coverage")
    assert even_one.status == "good" and "Every value has at least 3" in even_one.text
    corner = check_of(record_of(sample(points * 0.6)), "coverage")
    assert corner.status == "bad" and "with 0" in corner.text
    assert "than 0 of 60 random" in corner.text


# Curves


def power_law(exponent: float, wer: float = 0.1) -> list[float]:
    return [wer * (i / EVALUATIONS) ** -exponent for i in range(1, EVALUATIONS + 1)]


def test_falls_are_per_doubling() -> None:
    rng = random.Random(0)
    trials = [with_curve(t, power_law(0.5)) for t in even(6, rng, wer=0.1)]
    falls = falls_data(record_of(trials), EVALUATIONS)
    assert falls["fall"].to_numpy() == pytest.approx(1 - 2**-0.5)
    assert list(falls["number"]) == list(range(6))


def test_what_the_decay_gains_is_no_fall() -> None:
    """Flat until the learning rate decays over the last quarter, then half the WER."""
    rng = random.Random(0)
    wers = [0.2] * 6 + [0.15, 0.1]
    trials = [with_curve(t, wers) for t in even(6, rng, wer=0.1)]
    record = record_of(trials)
    assert falls_data(record, EVALUATIONS)["fall"].to_numpy() == pytest.approx(0)
    assert check_of(record, "budget").status == "good"
    no_decay = {"training": {"evaluations": EVALUATIONS, "decay": 0.0}}
    assert check_of(record_of(trials, no_decay), "budget").status == "look"


def test_larger_networks_that_fall_faster() -> None:
    rng, trials = random.Random(0), []
    for i in range(20):
        exponent = 0.4 + 0.05 * i
        (trial,) = even(1, rng, wer=0.1, parameters=1000 * (i + 1))
        trials.append(with_curve(trial, power_law(exponent)))
    check = check_of(record_of(trials), "budget")
    assert check.status == "bad" and "faster" in check.text


# Rungs


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
    data = rungs_data(record := record_of(trials, {"refine": {}, "training": {}}))
    assert (data.rungs, evaluations_of(record)) == ((3,), EVALUATIONS)


def test_a_study_that_does_not_prune() -> None:
    record = record_of(even(10, random.Random(0)), {"refine": {"trials": 0, "pruner": "none"}})
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


# The partials


def test_partials(simulate: Simulate) -> None:
    simulated = simulate(explore=30, refine=12, mishaps=True)
    data = checks_data(read_study(simulated.storage, simulated.name))
    content = {"checks": data, "inline_svg": safe_svg}
    html = environment().get_template("checks.html.jinja").render(content)
    markdown = environment().get_template("checks.md.jinja").render(content)
    order = list(MARKS)
    statuses = [check.status for check in data.checks]
    assert statuses == sorted(statuses, key=order.index)
    assert len({check.id for check in data.checks}) == 12
    for check in data.checks:
        assert check.title in html and f"</span> {check.status}</p>" in html
        assert f"{check.status} |" in markdown
    (panel,) = data.panels
    assert "rank correlation" in panel.alt.lower() and inline_svg(panel) in html
    assert all(check.remedy == "" for check in data.checks if check.status == "good")
    assert json.dumps(data.sentence)


def test_an_anchor_that_is_best_outside_of_a_range_is_named() -> None:
    rng = random.Random(0)
    best = {**ANCHORS["conformer-s"], "encoder_layers": 16}
    trials = [simulated_trial(best, rng, anchor="conformer-s", wer=0.05)]
    trials += [simulated_trial(draw(rng), rng) for _ in range(16)]
    check = check_of(record_of(trials), "boundary")
    assert "Outside of the range in the best trial, 0, where only an anchor is: 16 encoder" in (
        check.text
    )
    assert check.remedy == "Widen these ranges in a study of another name."


def test_what_chance_would_let_through_is_that_of_the_spared() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, wer=0.3 + 0.001 * i) for i in range(30)]
    for i in range(10):  # a search that concentrates: all of these are among the best quarter
        trial = simulated_trial(draw(rng), rng, phase="refine", survivor=True, wer=0.2 + 0.001 * i)
        trials.append(with_curve(trial, [0.7 - 0.01 * (i % 3)] * 7 + [0.2 + 0.001 * i]))
    assert "100 % of all that were spared did" in check_of(record_of(trials), "pruning").text
