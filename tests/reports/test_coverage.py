"""How much of the space was tried."""

from __future__ import annotations

import random

import numpy as np
import pytest
from optuna.trial import FrozenTrial

from tests.reports.checked import check_of, even
from tests.reports.simulated import SEARCH, record_of, simulated_trial

pytestmark = pytest.mark.usefixtures("no_warnings")


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
        names = [name for name in SEARCH if name != "learning_rate"]
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
