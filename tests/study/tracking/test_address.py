"""Where MLflow is: what is refused, what a path means, and that passwords stay secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.config_file import dump, load
from study.errors import InputError
from study.tracking.address import tracking_uri
from study.tracking.store import Experiment, connect
from study.tracking.ui import serve
from tests.study.storages import TINY


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


def test_the_password_is_in_no_repr_and_in_no_attribute() -> None:
    uri = "postgresql://me:geheim@host/db"
    experiment = Experiment(tracking_uri=uri, experiment_id="1", run_id="2")
    assert "geheim" not in repr(experiment)
    attribute = experiment.as_attribute()
    assert "geheim" not in json.dumps(attribute)
    assert Experiment.from_attribute(attribute, uri) == experiment
    assert Experiment.from_attribute(None, uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:hunter2@host/db",
        "mysql+pymysql://host/db?user=me&password=hunter2",
        "https://me:hunter2@mlflow.example",
        "https://hunter2@mlflow.example",
        "http://host:5000/?access_token=hunter2",
    ],
)
def test_a_password_in_a_study_is_refused_and_not_repeated(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"{TINY.read_text()}\ntracking: {{uri: '{uri}'}}\n")
    for overrides in ([], [f"tracking.uri={uri}"]):
        with pytest.raises(InputError, match=r"tracking\.uri: holds a password") as error:
            load(file, overrides)
        assert "hunter2" not in str(error.value)
        assert "${MLFLOW_PASSWORD}" in str(error.value)


def test_a_variable_in_its_place_is_expanded_for_connecting_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "http://me:${MLFLOW_PASSWORD}@${MLFLOW_HOST}:5000"
    config = load(TINY, [f"runs={tmp_path}", f"tracking.uri={uri}"])
    with pytest.raises(InputError, match=r"^tracking\.uri: .* no variable MLFLOW_PASSWORD"):
        tracking_uri(config.runs, uri)
    monkeypatch.setenv("MLFLOW_PASSWORD", "p@ss/word")
    monkeypatch.setenv("MLFLOW_HOST", "host.example")
    assert tracking_uri(config.runs, uri) == uri
    assert connect(uri)._tracking_client.tracking_uri == "http://me:p%40ss%2Fword@host.example:5000"
    said: list[str] = []
    serve(uri, "1", "2", say=said.append)
    assert any("http://host.example:5000/#/experiments/1/runs" in line for line in said)
    experiment = Experiment(tracking_uri=uri, experiment_id="1", run_id="2")
    shown = [dump(config), repr(experiment), json.dumps(experiment.as_attribute()), *said]
    assert "p@ss" not in str(shown)
    assert "p%40ss" not in str(shown)
