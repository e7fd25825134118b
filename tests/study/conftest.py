"""What tests of several modules share."""

from __future__ import annotations

import pytest

from study.config import StudyConfig
from tests.study.small_study import train
from tests.study.spoken_study import spoken_config


@pytest.fixture(scope="session")
def spoken_study(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A study that was trained on spoken commands; nobody changes it."""
    config = spoken_config(tmp_path_factory.mktemp("spoken"))
    train(config)
    return config
