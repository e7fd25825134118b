"""Which configurations are proposed for training again."""

from __future__ import annotations

import random

import pytest

from reports.landscape import Landscape, read_landscape
from reports.ranking import candidates_of
from reports.record import read_study
from tests.reports.simulated import (
    ANCHORS,
    SEARCH,
    SimulatedStudy,
    draw,
    search_depth_alone,
    simulated_trial,
)


def test_what_is_expected_to_be_best_of_a_long_list_is_one_of_its_values(
    empty_study: SimulatedStudy,
) -> None:
    """The steps of the list matter: a kernel of even length cannot be built."""
    config = empty_study.study.user_attrs["config"]
    search = {**SEARCH, "conv_kernel_size": {"low": 3, "high": 151, "step": 2}}
    empty_study.study.set_user_attr("config", {**config, "search": search})
    rng = random.Random(0)
    drawn = [{**draw(rng), "conv_kernel_size": rng.randrange(3, 152, 2)} for _ in range(40)]
    empty_study.study.add_trials([simulated_trial(params, rng) for params in drawn])
    record = read_study(empty_study.storage, empty_study.name)
    assert {candidate.values["conv_kernel_size"] % 2 for candidate in candidates_of(record)} == {1}
    found = read_landscape(record)
    assert isinstance(found, Landscape)
    assert found.known == 40
    assert set(found.effect("conv_kernel_size")[0]) <= set(range(3, 152, 2))


@pytest.mark.parametrize("count", [2, 12])  # too few for a surface, and enough
def test_an_anchor_that_differs_in_what_is_held_fixed_is_no_candidate(
    count: int, empty_study: SimulatedStudy
) -> None:
    """What it was trained as is not what its searched values by themselves would be trained as."""
    search_depth_alone(empty_study.study)
    rng = random.Random(0)
    own = ANCHORS["conformer-s"]
    trials = [simulated_trial({**own, "encoder_dim": 96}, rng, anchor="wide", wer=0.01)]
    rates = [rng.uniform(1e-3, 4e-3) for _ in range(count)]
    trials += [simulated_trial({**own, "learning_rate": rate}, rng) for rate in rates]
    empty_study.study.add_trials(trials)
    record = read_study(empty_study.storage, empty_study.name)
    found = {candidate.trial for candidate in candidates_of(record)}
    assert found - {None} == set(range(1, count + 1))
