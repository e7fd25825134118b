"""Fixtures of simulated studies; what they hold is made in `simulated.py`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import optuna
import pytest

from tests.reports.simulated import SimulatedStudy, create_empty, fill


@pytest.fixture
def empty_study(tmp_path: Path) -> SimulatedStudy:
    """A study that holds its attributes and no trial."""
    return create_empty(tmp_path)


@pytest.fixture
def simulate(empty_study: SimulatedStudy) -> Callable[..., SimulatedStudy]:
    """A function that fills a study once: `simulate(explore=12, refine=8, mishaps=True)`."""
    return partial(fill, empty_study)


@pytest.fixture
def no_warnings() -> Iterator[None]:
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", ResourceWarning)  # what other tests left to be collected
        yield


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Importances from few resamples, a quarter of a report's time, where they are not the point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.importance.RESAMPLES", 5)
        yield
