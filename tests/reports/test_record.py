"""What a report knows of the space that a study searched."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from reports.landscape import Landscape, read_landscape
from reports.record import Searched, read_study
from tests.reports.planted_study import Formula, conduct, planted_config
from tests.reports.simulated import SEARCH, SimulatedStudy, draw, simulated_trial
from tests.reports.test_answers import SURFACE

CLIP = {"low": 1, "high": 10, "role": "nuisance"}
RATE = {"low": 5e-4, "high": 1e-2, "log": True, "role": "nuisance"}


def _search(study: SimulatedStudy, name: str, entry: dict[str, Any]) -> None:
    """Have the configuration search something, as that of an older study would say it."""
    config = study.study.user_attrs["config"]
    study.study.set_user_attr("config", {**config, "search": {**SEARCH, name: entry}})


def _read(study: SimulatedStudy, name: str) -> Searched:
    return read_study(study.storage, study.name).searched[name]


def test_fractions_between_whole_ends_are_trials_of_the_space(tmp_path: Path) -> None:
    """In YAML the ends of a continuous range may be whole numbers."""
    search = {
        "encoder_layers": {"choices": [1, 2, 3, 4]},
        "gradient_clip": CLIP,
        "learning_rate": RATE,
    }
    middle = {"encoder_dim": 64, "attention_heads": 2, "conv_kernel_size": 15}
    config = planted_config(
        tmp_path,
        seed=0,
        search=search,
        network={**middle, "decoder_layers": 1, "decoder_dim": 64},
        explore={"trials": 8},
        refine={"trials": 0},
        finalists={"top": 0},
    )
    record = read_study(conduct(config, Formula(SURFACE, 0.004)), "planted")
    assert record.searched["gradient_clip"] == Searched(
        name="gradient_clip", role="nuisance", low=1, high=10, log=False, choices=()
    )
    assert record.searched["encoder_layers"].choices == (1, 2, 3, 4)
    assert record.searched["learning_rate"].log
    found = read_landscape(record)
    assert isinstance(found, Landscape)
    assert found.known == len(record.results)


def test_what_the_study_says_it_searched_goes_before_its_configuration(
    empty_study: SimulatedStudy,
) -> None:
    _search(empty_study, "gradient_clip", CLIP)
    assert len(_read(empty_study, "gradient_clip").choices) == 10  # as far as it can be guessed
    space = {"gradient_clip": {"role": "nuisance", "low": 1.0, "high": 10.0, "log": False}}
    empty_study.study.set_user_attr("space", space)
    assert _read(empty_study, "gradient_clip").choices == ()


@pytest.mark.parametrize(
    ("name", "entry", "distribution", "choices"),
    [
        ("gradient_clip", CLIP, FloatDistribution(1, 10), ()),
        ("ffn_ratio", {"low": 1.0, "high": 3.0}, IntDistribution(1, 3), (1, 2, 3)),
        ("ffn_ratio", {"low": 1, "high": 8, "step": 3}, IntDistribution(1, 7), (1, 4, 7)),
    ],
)
def test_trials_tell_whether_an_older_study_searched_whole_numbers(
    empty_study: SimulatedStudy,
    name: str,
    entry: dict[str, Any],
    distribution: FloatDistribution | IntDistribution,
    choices: tuple[float, ...],
) -> None:
    _search(empty_study, name, entry)
    rng = random.Random(0)
    trial = simulated_trial(draw(rng), rng)
    trial.params[name] = distribution.low
    trial.distributions[name] = distribution
    empty_study.study.add_trial(trial)
    searched = _read(empty_study, name)
    assert searched.choices == choices
    assert searched.high == (choices or (distribution.high,))[-1]


def test_a_long_list_keeps_every_value(empty_study: SimulatedStudy) -> None:
    _search(empty_study, "conv_kernel_size", {"low": 3, "high": 151, "step": 2})
    kernels = _read(empty_study, "conv_kernel_size")
    assert kernels.choices == tuple(range(3, 152, 2))
    assert not kernels.allows(58)
    assert kernels.listed == ()  # too many to be told one by one
    heads = _read(empty_study, "attention_heads")
    assert heads.listed == heads.choices
