"""Joining a study from elsewhere: its settings from the storage, and what must be the same."""

from __future__ import annotations

import logging
from pathlib import Path

import optuna
import pytest

from study.config import StudyConfig
from study.errors import InputError
from study.joining import configuration, verify
from study.provenance import code_fingerprint
from study.storage import create_study
from tests.study.storages import ATTRIBUTES, tiny

Begun = tuple[StudyConfig, optuna.Study]


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    config = tiny(tmp_path, "explore.trials=1", "training.learning_rate=3e-3")
    attributes = {
        **ATTRIBUTES,
        "code": code_fingerprint(),
        "git_commit": "c0ffee",
        "versions": {"torch": "1.0"},
    }
    return config, create_study(config, attributes)


def test_the_settings_come_from_the_storage(begun: Begun, tmp_path: Path) -> None:
    config, study = begun
    url = config.storage_url
    joined = configuration(url, "tiny", [f"runs={tmp_path / 'elsewhere'}", "device=cpu"])
    assert joined.training == config.training
    assert joined.explore.trials == 1
    assert joined.runs == tmp_path / "elsewhere"
    assert joined.storage_url == url
    verify(joined, study, "abc")


@pytest.mark.parametrize(
    ("url", "name", "sentence"),
    [
        (None, "nosuch", "the storage has no study 'nosuch'; it holds tiny"),
        ("postgresql://me:hunter2@host/name", "tiny", "--storage: holds a password"),
        ("nosuch://", "tiny", "is not a kind of storage"),
    ],
)
def test_what_cannot_be_joined(begun: Begun, url: str | None, name: str, sentence: str) -> None:
    with pytest.raises(InputError) as error:
        configuration(url or begun[0].storage_url, name, [])
    assert sentence in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_worker_that_would_do_something_else_says_all_that_differs(
    begun: Begun, tmp_path: Path
) -> None:
    _, study = begun
    study.set_user_attr("code", "an-older-one")
    other = tiny(tmp_path, "explore.trials=1", "training.learning_rate=5e-3", "seed=4")
    with pytest.raises(InputError) as error:
        verify(other, study, "xyz")
    (sentence,) = error.value.faults
    assert sentence.startswith("this worker would not do what the study 'tiny' does: ")
    assert "training.learning_rate was 0.003 and is now 0.005" in sentence
    assert "seed was 0 and is now 4" in sentence
    assert "an-older-one in the study, whose commit is c0ffee" in sentence
    assert "the corpus has other audio or transcripts (its fingerprint is xyz here" in sentence


def test_places_may_differ_between_machines(
    begun: Begun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, study = begun
    corpus = {"kind": "manifest", "folder": "/here"}
    study.set_user_attr("config", {**config.model_dump(mode="json"), "corpus": corpus})
    study.set_user_attr("name", "x")
    settings = ["explore.trials=1", "training.learning_rate=3e-3"]
    elsewhere = tiny(tmp_path / "b", *settings, "corpus={kind: manifest, folder: /there}")
    with caplog.at_level(logging.WARNING):
        verify(elsewhere, study, "abc")
    assert "torch is" in caplog.text and "1.0 in the study" in caplog.text
