"""Whether a study can be believed: the checks of unhappy studies, and how they are told."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable

import optuna
import pytest

from reports.checks import checks_data
from reports.record import read_study
from reports.rendering import environment, safe_svg
from reports.style import inline_svg
from reports.trust import MARKS
from tests.reports.checked import check_of, even
from tests.reports.simulated import SimulatedStudy, draw, record_of, simulated_trial

pytestmark = pytest.mark.usefixtures("no_warnings")


Simulate = Callable[..., SimulatedStudy]


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
    refine = {"first_rung": "half", "reduction_factor": None}
    checks_data(record_of(trials, refine=refine, training=[1]))


def test_ten_thousand_trials_take_seconds() -> None:
    rng = random.Random(0)
    record = record_of(even(9000, rng) + even(1000, rng, phase="refine", survivor=True))
    started = time.process_time()  # others may keep the machine busy
    checks_data(record)
    assert time.process_time() - started < 4


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
