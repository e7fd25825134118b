"""The numbers behind each section, without a renderer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import jiwer
import numpy as np
import pandas as pd
import pytest

from reports.answer import answer_data
from reports.cost import COSTS, cost_data, cost_panels, stopped_data
from reports.curves import curves_data, notes
from reports.effects import effects_data, wer_limits
from reports.importance import importance_data
from reports.isolation import isolation_data, isolation_panels
from reports.questions import edge_note, question_data
from reports.record import Searched, StudyRecord, read_study
from reports.style import DOTS, fewer_dots, inline_svg
from reports.transcripts import align
from reports.trials import as_csv
from reports.verdicts import ValueEffect
from reports.wording import count
from tests.reports.simulated import SimulatedStudy, draw, shape_with, simulated_trial

Simulate = Callable[..., SimulatedStudy]


def read(simulated: SimulatedStudy) -> StudyRecord:
    return read_study(simulated.storage, simulated.name)


def test_evidence_per_value(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    empty_study.study.add_trials(
        [
            simulated_trial(shape_with(encoder_layers=2), rng, wer=0.30),
            simulated_trial(shape_with(encoder_layers=2), rng, wer=0.20),
            simulated_trial(shape_with(encoder_layers=2), rng, wer=0.10, phase="refine"),
            simulated_trial(shape_with(encoder_layers=2), rng, wer=0.01, outcome="pruned"),
            simulated_trial(shape_with(encoder_layers=3), rng, wer=0.15, anchor="known"),
            simulated_trial(shape_with(encoder_layers=9), rng, wer=0.05, anchor="deep"),
            simulated_trial(shape_with(encoder_layers=1), rng, outcome="diverged"),
        ]
    )
    layers = question_data(read(empty_study))[0]
    found = {
        item.value: (item.best_wer, item.best_number, item.results, item.median_wer, item.even)
        for item in layers.evidence
    }
    assert found == {
        1: (None, None, 0, None, 0),  # diverged is no result
        2: (0.10, 2, 3, pytest.approx(0.25), 2),  # refine counts for the best, not the median
        3: (0.15, 4, 1, None, 0),  # an anchor neither
        4: (None, None, 0, None, 0),  # a choice that nobody tried
        9: (0.05, 5, 1, None, 0),
    }
    assert layers.best_value == 9 and layers.edge == "outside the searched range"
    assert [item.in_range for item in layers.evidence] == [True, True, True, True, False]


def test_values_that_are_not_searched_come_from_the_config(empty_study: SimulatedStudy) -> None:
    study = empty_study.study
    config = dict(study.user_attrs["config"])
    search = dict(config["search"])
    del search["decoder_layers"]
    study.set_user_attr("config", {**config, "search": search, "network": {"decoder_layers": 2}})
    trial = simulated_trial(shape_with(), random.Random(0), wer=0.2)
    del trial.params["decoder_layers"], trial.distributions["decoder_layers"]
    study.add_trial(trial)
    data = {item.question.name: item for item in question_data(read(empty_study))}
    assert data["decoder_layers"].searched is None
    assert data["decoder_layers"].fixed_value == 2
    assert data["decoder_layers"].best_value == 1  # this trial's own


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (1e-4, "at the edge of the range"),
        (1.05e-4, "at the edge of the range"),
        (1e-3, ""),
        (9.8e-3, "at the edge of the range"),
        (2e-2, "outside the searched range"),
        (None, ""),
    ],
)
def test_the_edge_of_a_continuous_range(value: float | None, note: str) -> None:
    searched = Searched(name="x", role="nuisance", low=1e-4, high=1e-2, log=True, choices=())
    assert edge_note(searched, value) == note


def test_a_list_too_long_to_be_told_one_by_one_is_shown_as_a_range(
    empty_study: SimulatedStudy,
) -> None:
    study, rng = empty_study.study, random.Random(0)
    config = dict(study.user_attrs["config"])
    search = {**config["search"], "conv_kernel_size": {"low": 3, "high": 151, "step": 2}}
    study.set_user_attr("config", {**config, "search": search})
    study.add_trials(
        [simulated_trial(shape_with(conv_kernel_size=kernel), rng) for kernel in (5, 31, 31, 149)]
    )
    record = read(empty_study)
    kernel = question_data(record)[3]
    assert [item.value for item in kernel.evidence] == [5, 31, 149]  # those that were tried
    assert edge_note(kernel.searched, 149) == "at the edge of the range"
    assert edge_note(kernel.searched, 31) == ""
    effect = {item.name: item for item in effects_data(record)}["conv_kernel_size"]
    assert (effect.ticks, effect.low, effect.high) == ((), 3, 151)
    assert "conv_kernel_size" not in {item.question.name for item in isolation_data(record)}


def test_effects(simulate: Simulate) -> None:
    record = read(simulate(explore=12, refine=8, mishaps=True))
    data = {effect.name: effect for effect in effects_data(record)}
    assert list(data)[-1] == "learning_rate" and len(data) == 7
    kinds = data["encoder_dim"].points["kind"].value_counts()
    assert kinds.to_dict() == {"explore": 10, "refine": 5, "pruned": 3, "anchor": 2}
    assert data["encoder_dim"].ticks == (32, 48, 64, 96) and data["encoder_dim"].log
    assert data["conv_kernel_size"].log and not data["encoder_layers"].log
    assert data["encoder_dim"].medians["n"].sum() == 10
    assert data["learning_rate"].log and data["learning_rate"].medians.empty
    low, high = wer_limits(tuple(data.values()))
    results = 100 * record.results["wer"]
    assert low < results.min() and results.max() < high < 60  # pruned ones do not stretch it


def test_effects_are_drawn_whole(simulate: Simulate) -> None:
    """One that lies above all trials shows where none was: it must not be cut off."""
    width, *others = effects_data(read(simulate(explore=12, refine=0)))
    effect = ValueEffect(value=2, wer=0.8, low=0.5, high=0.9, best_probability=1, as_good=True)
    low, high = wer_limits((replace(width, effect=(effect,)), *others))
    assert high > 90 and low < 100 * width.points["wer"].min()


def test_the_seed_spread_is_pooled_over_configurations(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    for layers, wers in ((1, (0.30, 0.32)), (2, (0.20, 0.20, 0.26)), (3, (0.9,))):
        empty_study.study.add_trials(
            [simulated_trial(shape_with(encoder_layers=layers), rng, wer=wer) for wer in wers]
        )
    # sums of squares 0.0002 and 0.0024 over 1 + 2 degrees of freedom
    assert answer_data(read(empty_study)).seed_spread == pytest.approx((0.0026 / 3) ** 0.5)


def test_the_frontier(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    costs = [(100, 0.5), (200, 0.4), (200, 0.4), (200, 0.6), (300, 0.4), (400, 0.1), (0, 0.0)]
    empty_study.study.add_trials(
        [simulated_trial(draw(rng), rng, wer=wer, parameters=cost) for cost, wer in costs]
    )
    data = cost_data(read(empty_study), "parameters")
    assert list(data[data["frontier"]]["number"]) == [0, 1, 2, 5]
    assert 6 not in set(data["number"])  # no weights: not a cost on a logarithmic axis


def test_pruned_trials_are_drawn_and_make_no_frontier(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    empty_study.study.add_trials(
        [
            simulated_trial(draw(rng), rng, wer=0.3, parameters=100),
            simulated_trial(draw(rng), rng, wer=0.1, parameters=50, outcome="pruned"),
            simulated_trial(draw(rng), rng, wer=0.1, parameters=0, outcome="pruned"),
        ]
    )
    record = read(empty_study)
    parameters, _, seconds, _ = COSTS
    stopped = stopped_data(record, parameters)
    (last,) = record.trials[record.trials["number"] == 1]["wer"]
    assert list(stopped.itertuples(index=False, name=None)) == [(1, 50.0, last)]
    assert stopped_data(record, seconds).empty  # they were not trained for as long
    assert list(cost_data(record, "parameters")["number"]) == [0]
    assert "1 configuration and 1 pruned trial." in cost_panels(record)[0].alt


def test_the_best_trial_per_value(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    kinds = [(1, 0.3, "explore"), (1, 0.4, "explore"), (1, 0.2, "refine"), (2, 0.5, "refine")]
    empty_study.study.add_trials(
        [
            simulated_trial(shape_with(encoder_layers=layers), rng, wer=wer, phase=phase)
            for layers, wer, phase in kinds
        ]
    )
    (layers,) = isolation_data(read(empty_study))  # of the others there is one value
    assert layers.question.name == "encoder_layers"
    rows = layers.best.to_dict("records")
    assert (rows[0]["wer"], rows[0]["number"], rows[0]["n"], rows[0]["lowest"]) == (0.3, 0, 2, 0.2)
    assert math.isnan(rows[1]["wer"]) and (rows[1]["n"], rows[1]["lowest"]) == (0, 0.5)
    (panel,) = isolation_panels((layers,))
    assert "1: 30.00 %, the lowest of 2 explore trials; in all phases 20.00 %" in panel.alt
    assert "of 2" in inline_svg(panel)


def test_importance_finds_what_matters_and_orders_only_where_intervals_part(
    simulate: Simulate,
) -> None:
    data = importance_data(read(simulate(explore=42, refine=0)))
    assert data.trials == 40 and not data.refusal
    assert data.explained > 0.3
    table = data.table.set_index("name")
    assert table["fanova"].idxmax() == "encoder_layers"
    assert 0.5 < table["fanova"].sum() < 0.99  # the rest is explained by several together
    assert table["ped_anova"].sum() == pytest.approx(1)
    assert (table["fanova_low"] <= table["fanova_high"]).all()
    assert table["fanova_high"].notna().all()
    overlapping = data.table.assign(fanova_low=0.0, fanova_high=1.0)
    assert "no order is shown" in replace(data, table=overlapping).order("fanova")
    apart = table["fanova_low"]["encoder_layers"] > table["fanova_high"]["decoder_dim"]
    assert ("Encoder layers above" in data.order("fanova")) == bool(apart)


def test_a_single_hyperparameter_is_above_no_other(simulate: Simulate) -> None:
    record = read(simulate(explore=12, refine=0))
    alone = {"encoder_layers": record.searched["encoder_layers"]}
    data = importance_data(replace(record, searched=alone))
    assert data.order("fanova") == "There is nothing to compare it with."


def test_importance_refuses_what_it_cannot_say(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    empty_study.study.add_trials(
        [simulated_trial(draw(rng), rng, phase="refine") for _ in range(20)]
    )
    assert "there are 0" in importance_data(read(empty_study)).refusal
    empty_study.study.add_trials([simulated_trial(shape_with(), rng) for _ in range(5)])
    assert "varies" in importance_data(read(empty_study)).refusal


def test_curves(simulate: Simulate) -> None:
    record = read(simulate(explore=12, refine=8, mishaps=True))
    data = curves_data(record, "wer")
    roles = data.curves.groupby("number")["role"].first().value_counts()
    assert roles.to_dict() == {"other": 14, "pruned": 3, "failed": 2, "1": 1, "2": 1, "3": 1}
    first = data.curves[data.curves["role"] == "1"]
    assert record.best is not None
    assert first["y"].iloc[-1] == pytest.approx(100 * record.best["wer"])
    assert data.x_label == "epoch" and list(first["x"]) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_evaluations_of_a_part_of_dev_are_said_to_be(simulate: Simulate) -> None:
    record = read(simulate(explore=4))
    assert notes(record) == ""
    last = record.curves["evaluation"] == 8
    curves = record.curves.assign(utterances=np.where(last, 300.0, 99.0))
    assert notes(replace(record, curves=curves)) == (
        "Evaluations before the last recognised 99 of the 300 utterances of dev."
    )
    many = replace(record, trials=pd.concat([record.trials] * 200))
    assert notes(many) == "Of each kind of trials at most 500 are drawn, evenly chosen."


@pytest.mark.parametrize(
    ("reference", "hypothesis", "kinds"),
    [
        ("a b c", "a b c", "same same same"),
        ("a b c", "a x c", "same substituted same"),
        ("a b c", "a c", "same deleted same"),
        ("a c", "a b c", "same inserted same"),
        ("", "a", "inserted"),
        ("a", "", "deleted"),
        ("", "", ""),
    ],
)
def test_alignment(reference: str, hypothesis: str, kinds: str) -> None:
    words = align(reference.split(), hypothesis.split())
    assert [word.kind for word in words] == kinds.split()


def test_alignment_counts_as_few_errors_as_jiwer() -> None:
    rng = random.Random(3)
    for _ in range(200):
        reference = rng.choices("abcd", k=rng.randint(1, 9))
        hypothesis = rng.choices("abcd", k=rng.randint(0, 9))
        words = align(reference, hypothesis)
        errors = sum(word.kind != "same" for word in words)
        assert errors == round(
            jiwer.wer(" ".join(reference), " ".join(hypothesis)) * len(reference)
        )
        assert [word.reference for word in words if word.reference] == reference
        assert [word.hypothesis for word in words if word.hypothesis] == hypothesis


def test_seeds_keep_every_digit(empty_study: SimulatedStudy) -> None:
    """Also beside trials that have none yet, where a column of numbers would be one of floats."""
    rng = random.Random(0)
    seeds = [2**63 - 25, 2**70 + 1, 7]
    empty_study.study.add_trials([simulated_trial(draw(rng), rng, seed=seed) for seed in seeds])
    empty_study.study.enqueue_trial(shape_with(), user_attrs={"phase": "explore"})
    trials = read(empty_study).trials
    assert list(trials["seed"]) == [*seeds, None]
    place = list(trials.columns).index("seed")
    assert [line.split(",")[place] for line in as_csv(trials).splitlines()[1:]] == [
        *map(str, seeds),
        "",
    ]


@pytest.mark.parametrize("count", [0, 1, DOTS, DOTS + 1, 7 * DOTS])
def test_of_many_dots_some_are_drawn_and_the_best_among_them(count: int) -> None:
    wers = np.random.default_rng(0).permutation(count).astype(float)
    points = pd.DataFrame({"number": np.arange(count), "wer": wers})
    drawn = fewer_dots(points)
    assert min(count, DOTS // 2) <= len(drawn) <= DOTS + 1
    assert drawn["number"].is_unique
    if count:
        assert drawn["wer"].min() == 0


@pytest.mark.parametrize(("value", "said"), [(999_700, "1 M"), (999_400, "999 k"), (1_000, "1 k")])
def test_a_count_is_never_a_thousand_thousands(value: int, said: str) -> None:
    assert count(value) == said
