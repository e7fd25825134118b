"""Where MLflow is: what is refused, what a path means, and that passwords stay secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.errors import InputError
from study.tracking.address import redact, tracking_uri
from study.tracking.store import Experiment


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "ftp://x", ""])
def test_a_store_that_mlflow_refuses_is_refused_early(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sqlite:"):
        tracking_uri(tmp_path, uri)


def test_addresses_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(Path("runs"), None) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert tracking_uri(Path("runs"), "sqlite:///a.db?timeout=3") == (
        f"sqlite:///{tmp_path}/a.db?timeout=3"
    )
    assert tracking_uri(Path("runs"), "http://host:5000") == "http://host:5000"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:geheim@host/db", "postgresql://***@host/db"),
        ("mysql+pymysql://me:ge@heim@host:3306/db", "mysql+pymysql://***@host:3306/db"),
        ("failed: (http://token@host) 'x'", "failed: (http://***@host) 'x'"),
        (
            "postgresql://h/db?user=me&password=geheim&x=1",
            "postgresql://h/db?user=me&password=***&x=1",
        ),
        ("http://host:5000/a", "http://host:5000/a"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_passwords_are_removed_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_the_password_is_in_no_repr_and_in_no_attribute() -> None:
    uri = "postgresql://me:geheim@host/db"
    experiment = Experiment(tracking_uri=uri, experiment_id="1", run_id="2")
    assert "geheim" not in repr(experiment)
    attribute = experiment.as_attribute()
    assert "geheim" not in json.dumps(attribute)
    assert Experiment.from_attribute(attribute, uri) == experiment
    assert Experiment.from_attribute(None, uri) is None
