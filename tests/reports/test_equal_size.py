"""Effects at equal size, on surfaces whose truth is planted."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest

from reports.cost import cost_panels
from reports.equal_size import EqualQuestion, EqualSizeData, equal_size_data, equal_size_panels
from reports.rendering import environment, safe_svg
from reports.style import inline_svg
from tests.reports.simulated import SEARCH, config, draw, record_of, simulated_trial
from tests.reports.sized import planted

pytestmark = pytest.mark.usefixtures("no_warnings")


def only_size(values: dict[str, float], size: int) -> float:
    return float(0.1 + 3 * size**-0.3 + 0.05 * math.log(values["learning_rate"] / 1.5e-3) ** 2)


def depth_beyond_size(values: dict[str, float], size: int) -> float:
    return only_size(values, size) - 0.03 * values["encoder_layers"]


def by_name(data: EqualSizeData) -> dict[str, EqualQuestion]:
    return {item.question.name: item for item in data.questions}


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
