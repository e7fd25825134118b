"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests import postgres
from tests.command_line import command_line
from tests.espnet import espnet

__all__ = ["command_line", "espnet"]

torch.set_num_threads(1)  # the tests' networks are tiny: a second thread only waits


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Server]:
    """A PostgreSQL server for all tests, which leave it running."""
    with postgres.server() as server:
        yield server
