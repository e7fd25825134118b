"""What luck can do: seeds, the size of dev, and who leads by it."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from scipy.stats import norm

from reports.answer import answer_data
from reports.noise import noise_checks, seed_spread
from tests.reports.checked import check_of, even
from tests.reports.simulated import ANCHORS, draw, record_of, shape_with, simulated_trial

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_the_spread_between_seeds_is_the_answers() -> None:
    rng, trials = random.Random(0), []
    for layers, wers in ((1, (0.30, 0.32)), (2, (0.20, 0.20, 0.26)), (3, (0.9,))):
        trials += [simulated_trial(shape_with(encoder_layers=layers), rng, wer=wer) for wer in wers]
    spread = seed_spread(record := record_of(trials))
    assert spread is not None
    assert spread.deviation == pytest.approx((0.0026 / 3) ** 0.5)
    assert spread.deviation == answer_data(record).seed_spread
    assert (spread.freedom, spread.configurations) == (3, 2)
    assert spread.low < spread.deviation < spread.high


def test_one_seed_twice_is_no_second_seed() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(shape_with(), rng, wer=wer, seed=7) for wer in (0.2, 0.3)]
    assert seed_spread(record_of(trials)) is None


def test_the_reading_that_chose_a_finalist_is_none_of_its_seeds() -> None:
    """Of an anchor, which nothing chose, the reading of the search is one."""
    rng = random.Random(0)

    def trained(layers: int, wers: tuple[float, ...], **more: Any) -> list[FrozenTrial]:
        values = shape_with(encoder_layers=layers)
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
        trials += [simulated_trial(shape_with(), rng, wer=rng.gauss(0.2, 0.01)) for _ in range(12)]
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
        values = shape_with(encoder_layers=3 if anchor else 2)
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
            shape_with(encoder_layers=i + 1),
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
    trials.append(simulated_trial(shape_with(encoder_layers=1), rng, outcome="crashed", **more))
    record = record_of(trials)
    assert [(item.seeds, item.failed) for item in record.finals] == [(3, 1), (3, 0)]
    check = check_of(record, "winner")
    assert check.status == "look" and "1 more seed of it failed" in check.text
    assert "mean of 3 seeds, 1 more failed" in answer_data(record).sentence
    again = simulated_trial(
        shape_with(encoder_layers=1), rng, wer=0.205, retry_of=len(trials) - 1, **more
    )
    record = record_of([*trials, again])
    assert [(item.seeds, item.failed) for item in record.finals] == [(4, 0), (3, 0)]
