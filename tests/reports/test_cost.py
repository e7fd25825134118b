"""What a low WER costs, and effects at equal size on surfaces whose truth is planted."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from reports.cost import COSTS, brief_seconds, cost_data, cost_panels, plot_cost, stopped_data
from reports.equal_size import EqualQuestion, EqualSizeData, equal_size_data, equal_size_panels
from reports.record import StudyRecord, read_study
from reports.rendering import environment, safe_svg
from reports.style import inline_svg
from reports.verdicts import _cheapest
from tests.reports.simulated import (
    ANCHORS,
    SEARCH,
    choices_of,
    config,
    draw,
    simulated_trial,
)

SIX = ("encoder_layers", "encoder_dim", "attention_heads", "conv_kernel_size", "decoder_layers",
       "decoder_dim")  # fmt: skip
Formula = Callable[[dict[str, float], int], float]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", ResourceWarning)  # what other tests left to be collected
        yield


def record_of(trials: list[FrozenTrial], **settings: Any) -> StudyRecord:
    storage = optuna.storages.InMemoryStorage()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=storage, study_name="laptop", direction="minimize")
    study.set_user_attr("config", {**config(), **settings})
    study.add_trials(trials)
    return read_study(storage, "laptop")


def size_of(values: dict[str, float]) -> int:
    encoder = 22 * values["encoder_layers"] * values["encoder_dim"] ** 2
    return int(encoder + 16 * values["decoder_layers"] * values["decoder_dim"] ** 2)


def planted(wer: Formula, count: int = 64, seed: int = 0, noise: float = 0.005) -> StudyRecord:
    """An even sample of a surface: WER by the six values and the number of parameters."""
    rng, luck = random.Random(seed), np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # balance at powers of two
        points = qmc.Sobol(7, rng=seed).random(count)
    trials = []
    for point in points:
        lists = {name: choices_of(name) for name in SIX}
        pairs = zip(SIX, point, strict=False)
        values: dict[str, float] = {n: lists[n][int(u * len(lists[n]))] for n, u in pairs}
        values["learning_rate"] = 5e-4 * 10 ** point[6]
        size = size_of(values)
        reading = wer(values, size) + noise * luck.standard_normal()
        trials.append(simulated_trial(values, rng, wer=reading, parameters=size))
    return record_of(trials)


def only_size(values: dict[str, float], size: int) -> float:
    return float(0.1 + 3 * size**-0.3 + 0.05 * math.log(values["learning_rate"] / 1.5e-3) ** 2)


def depth_beyond_size(values: dict[str, float], size: int) -> float:
    return only_size(values, size) - 0.03 * values["encoder_layers"]


def by_name(data: EqualSizeData) -> dict[str, EqualQuestion]:
    return {item.question.name: item for item in data.questions}


# Unhappy studies


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_too_few_trials(count: int) -> None:
    rng = random.Random(0)
    record = record_of([simulated_trial(draw(rng), rng) for _ in range(count)])
    data = equal_size_data(record)
    assert f"there {'is' if count == 1 else 'are'} {count}" in data.refusal
    assert equal_size_panels(data) == [] and data.shown == ()


@pytest.mark.parametrize("outcome", ["pruned", "crashed", "diverged", "out_of_memory"])
def test_no_trial_finished(outcome: str) -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, outcome=outcome) for _ in range(20)]
    record = record_of(trials)
    assert equal_size_data(record).refusal and cost_panels(record) == []


@pytest.mark.parametrize(
    ("parameters", "refusal"),
    [(None, "known parameters"), (0, "known parameters"), (math.inf, "known parameters"),
     (math.nan, "known parameters"), (1000, "same number of parameters")],
)  # fmt: skip
def test_sizes_that_say_nothing(parameters: float | None, refusal: str) -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, parameters=parameters) for _ in range(20)]
    assert refusal in equal_size_data(record_of(trials)).refusal


def test_all_wers_alike() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, wer=0.2) for _ in range(20)]
    assert "same WER" in equal_size_data(record_of(trials)).refusal


def test_wers_above_one_and_a_value_tried_once() -> None:
    rng = random.Random(0)
    trials = [
        simulated_trial({**draw(rng), "encoder_layers": 4 if i == 0 else 1 + i % 3}, rng)
        for i in range(40)
    ]
    trials += [simulated_trial(draw(rng) | {"encoder_layers": 1}, rng, wer=1.4) for _ in range(3)]
    layers = by_name(equal_size_data(record_of(trials)))["encoder_layers"]
    assert [item.value for item in layers.values] == [1, 2, 3]


def test_a_study_without_questions() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng) for _ in range(20)]
    rates = {"learning_rate": config()["search"]["learning_rate"]}
    assert "None of the six" in equal_size_data(record_of(trials, search=rates)).refusal


def test_many_trials_take_a_moment() -> None:
    rng = random.Random(0)
    record = record_of([simulated_trial(draw(rng), rng) for _ in range(4000)])
    started = time.process_time()
    equal_size_data(record)
    assert time.process_time() - started < 5


# Planted truths


def test_where_only_size_matters_width_has_no_effect() -> None:
    found = by_name(equal_size_data(planted(only_size)))
    width = found["encoder_dim"]
    assert not width.clear and "no difference is shown" in width.sentence
    assert all(item.low < 0 < item.high for item in width.values)
    # whatever the size, wider looks far better
    assert width.values[0].plain - width.values[-1].plain > 0.02
    assert not any(item.clear for item in found.values())


def test_false_alarms_are_as_rare_as_they_claim() -> None:
    alarms = [
        item.clear
        for seed in range(25)
        for item in equal_size_data(planted(only_size, count=40, seed=seed)).questions
    ]
    assert len(alarms) == 150
    assert sum(alarms) <= 15  # 7.5 expected at 5 %; more than 15 has a chance below 1 %


def test_depth_that_matters_beyond_size_shows() -> None:
    layers = by_name(equal_size_data(planted(depth_beyond_size)))["encoder_layers"]
    assert layers.clear
    assert layers.sentence.startswith("At equal size, 4 encoder layers are ")
    assert "better than 1 (95 %: +" in layers.sentence
    truth = np.array([0.045, 0.015, -0.015, -0.045])
    assert [v.effect for v in layers.values] == pytest.approx(truth, abs=0.005)


def test_intervals_hold_the_truth() -> None:
    held = [
        value.low <= 0.03 * (2.5 - value.value) <= value.high
        for seed in range(25)
        for value in by_name(
            equal_size_data(planted(depth_beyond_size, count=40, seed=seed, noise=0.01))
        )["encoder_layers"].values
    ]
    assert 0.85 <= np.mean(held) <= 1


def test_a_question_that_decides_the_size_is_not_separated() -> None:
    rng, trials = random.Random(0), []
    for _ in range(60):
        values = draw(rng)
        size = int(values["encoder_dim"] ** 4 * rng.uniform(0.9, 1.1))
        trials.append(simulated_trial(values, rng, parameters=size))
    found = by_name(equal_size_data(record_of(trials)))
    width = found["encoder_dim"]
    assert width.values == () and "cannot be separated" in width.sentence
    assert width.left is not None and width.left < 0.05
    assert found["encoder_layers"].values and found["encoder_layers"].left == pytest.approx(
        1, abs=0.15
    )


def test_anchors_refine_trials_and_finalists_stay_out() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng) for _ in range(30)]
    before = equal_size_data(record_of(trials))
    more = [simulated_trial(draw(rng), rng, phase="refine", wer=0.01) for _ in range(5)]
    more += [simulated_trial(draw(rng), rng, anchor="a", wer=0.9) for _ in range(5)]
    more += [simulated_trial(draw(rng), rng, phase="finalist", finalist="a") for _ in range(3)]
    assert equal_size_data(record_of(trials + more)) == before


def test_panels_and_partials() -> None:
    data = equal_size_data(planted(depth_beyond_size))
    panels = equal_size_panels(data)
    assert len(panels) == 6 == len({panel.name for panel in panels})
    assert "; 4: −4." in panels[0].alt and "whatever the size" in panels[0].alt
    content = {"equal_size": data, "equal_size_panels": panels, "inline_svg": safe_svg}
    html = environment().get_template("equal_size.html.jinja").render(content)
    markdown = environment().get_template("equal_size.md.jinja").render(content)
    assert html.count("<svg role=") == 6 and "4 encoder layers are" in html
    assert inline_svg(panels[0]) in html
    assert "4 encoder layers are" in markdown and "figures/equal-size.svg" in markdown
    nothing = {"equal_size": equal_size_data(record_of([])), "equal_size_panels": []}
    assert "It takes 9" in environment().get_template("equal_size.html.jinja").render(nothing)


# Frontiers


def test_the_frontier_of_every_cost() -> None:
    rng = random.Random(0)
    readings = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.45), (4.0, 0.1)]
    for cost in COSTS:
        trials = []
        for amount, wer in readings:
            known: dict[str, Any] = {cost.column: amount}
            trials.append(simulated_trial(draw(rng), rng, wer=wer, **known))
        data = cost_data(record_of(trials), cost.column)
        assert list(data[data["frontier"]]["number"]) == [0, 1, 3]
    assert [cost.column for cost in COSTS] == [
        "parameters", "flops_per_second", "train_seconds", "real_time_factor",
    ]  # fmt: skip


def test_what_lies_above_the_upper_edge_is_a_triangle() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, wer=0.2 + 0.01 * i) for i in range(8)]
    trials += [simulated_trial(draw(rng), rng, wer=1.0)]
    trials += [simulated_trial(draw(rng), rng, wer=1.1, outcome="pruned")]
    record = record_of(trials)
    axes = Figure().add_subplot()
    plot_cost(axes, cost_data(record, "parameters"), stopped_data(record, COSTS[0]), COSTS[0])
    look = MarkerStyle("^")
    triangle = look.get_path().transformed(look.get_transform()).vertices
    upward = [
        collection
        for collection in axes.collections
        if np.array_equal(collection.get_paths()[0].vertices, triangle)
    ]
    drawn = np.concatenate([np.asarray(collection.get_offsets()) for collection in upward])
    assert drawn[:, 1] == pytest.approx([axes.get_ylim()[1]] * 2)


def test_only_costs_that_are_known_are_drawn() -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, flops_per_second=None) for _ in range(4)]
    assert [panel.name for panel in cost_panels(record_of(trials))] == [
        "cost-parameters",
        "cost-train-seconds",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.012, "12 ms"), (0.0004, "0.4 ms"), (1.5, "1.5 s"), (30, "30 s")]
)
def test_brief_seconds(seconds: float, said: str) -> None:
    assert brief_seconds(seconds) == said


def test_seeds_of_one_network_are_no_steps_of_the_frontier() -> None:
    rng = random.Random(0)
    shape = ANCHORS["conformer-s"]
    trials = [
        simulated_trial(shape, rng, phase="finalist", finalist="trial 0", wer=wer, train_seconds=s)
        for wer, s in ((0.30, 100.0), (0.28, 101.0), (0.26, 102.0))
    ]
    data = cost_data(record_of(trials), "train_seconds")
    assert int(data["frontier"].sum()) == 1
    assert data["wer"].tolist() == [pytest.approx(0.28)]
    assert data["cost"].tolist() == [101.0]


def test_quarters_of_a_range_are_called_by_their_ends() -> None:
    rng = random.Random(0)
    trials = []
    for _ in range(60):
        values = draw(rng) | {"encoder_layers": rng.randint(1, 20)}
        trials.append(simulated_trial(values, rng, wer=0.4 - 0.01 * values["encoder_layers"]))
    search = {**SEARCH, "encoder_layers": {"low": 1, "high": 20, "role": "scientific"}}
    layers = equal_size_data(record_of(trials, search=search)).questions[0]
    assert layers.values[0].label.startswith("1 to ")
    assert layers.values[-1].label.endswith(" to 20")
    assert layers.values[-1].label in layers.sentence


def test_intervals_at_equal_size_hold_the_truth_in_small_samples_too() -> None:
    def kernel(values: dict[str, float], size: int) -> float:
        return 0.2 - 0.03 * math.log(size) + 0.01 * math.log2(values["conv_kernel_size"] / 15) ** 2

    held = []
    for seed in range(30):
        for item in equal_size_data(planted(kernel, count=14, seed=seed, noise=0.01)).questions:
            found = np.array([value.value for value in item.values])
            truth = np.zeros(len(found))
            if item.question.name == "conv_kernel_size":
                truth = 0.01 * np.log2(found / 15) ** 2
            truth = truth - truth.mean() if len(truth) else truth
            held += [v.low <= t <= v.high for v, t in zip(item.values, truth, strict=True)]
    assert np.mean(held) >= 0.94, np.mean(held)


def test_the_cheapest_value_is_that_of_networks_alike_in_all_else() -> None:
    for seed in range(4):
        record = planted(lambda values, size: 0.2, count=32, seed=seed, noise=0.01)
        cheapest = {
            name: _cheapest(record, name, [float(v) for v in choices_of(name)], "parameters")
            for name in SIX
        }
        assert cheapest["encoder_dim"] == 32
        assert cheapest["decoder_dim"] in (32, None)
        # these have no say in the number of weights that `size_of` counts
        assert cheapest["attention_heads"] is None
        assert cheapest["conv_kernel_size"] is None
