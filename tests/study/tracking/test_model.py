"""The winner as an MLflow model: logged once, loaded anywhere, registered, and served."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mlflow import MlflowClient

from study.config import StudyConfig
from study.config_file import dump
from study.errors import InputError
from study.storage import open_study
from study.tracking.address import tracking_uri
from study.tracking.model import log_model, register, requirements, serving
from study.tracking.store import Experiment, prepare
from study.winner import Trained, winner
from tests.command_line import CommandLine
from tests.study.spoken_study import TEXTS, commands

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def chosen(spoken_study: StudyConfig) -> Trained:
    return winner(spoken_study, open_study(spoken_study))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    runs = tmp_path_factory.mktemp("runs")
    uri = tracking_uri(runs, None)
    found = prepare(uri, runs / "mlartifacts", "spoken", description="", tags={}, params={})
    assert found is not None
    return found


@pytest.fixture(scope="module")
def model_id(experiment: Experiment, chosen: Trained) -> str:
    found, new = log_model(experiment, chosen)
    assert new
    return found


@pytest.fixture(scope="module")
def folder(experiment: Experiment, model_id: str) -> Path:
    """The files of the model."""
    model = MlflowClient(experiment.tracking_uri).get_logged_model(model_id)
    return Path(model.artifact_location.removeprefix("file://"))


def test_it_belongs_to_the_study_and_is_logged_once(
    experiment: Experiment, chosen: Trained, model_id: str
) -> None:
    client = MlflowClient(experiment.tracking_uri)
    model = client.get_logged_model(model_id)
    assert (model.name, model.source_run_id) == ("winner", experiment.run_id)
    assert model.tags["trial"] == str(chosen.trial) and model.params["encoder_dim"] == "32"
    assert {m.key: m.value for m in model.metrics or []} == {"dev_wer": 0.0}
    outputs = client.get_run(experiment.run_id).outputs
    assert outputs is not None
    assert [output.model_id for output in outputs.model_outputs] == [model_id]
    assert log_model(experiment, chosen) == (model_id, False)
    assert len(client.search_logged_models([experiment.experiment_id])) == 1


def test_the_command_registers_the_winner_and_says_how_to_serve_it(
    experiment: Experiment,
    model_id: str,
    spoken_study: StudyConfig,
    command_line: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(dump(spoken_study))
    refused = command_line("register", file)
    assert refused.code == 2
    assert "tracking.enabled is false" in refused.errors
    arguments = ("register", file, "-o", "tracking.enabled=true")
    monkeypatch.setattr("study.tracking.sync.open_experiment", lambda *_: None)
    assert command_line(*arguments).code == 1
    monkeypatch.setattr("study.tracking.sync.open_experiment", lambda *_: experiment)
    said = command_line(*arguments, "--name", "spoken", "--alias", "best")
    assert said.code == 0
    assert "is version 1, models:/spoken@best. To serve it" in said.output
    assert "mlflow models serve" in said.output
    version = MlflowClient(experiment.tracking_uri).get_model_version_by_alias("spoken", "best")
    assert f"/{model_id}/" in str(version.source)


def test_a_model_that_could_not_be_logged_to_its_end_is_not_taken_for_one(
    experiment: Experiment,
    chosen: Trained,
    model_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(chosen.checkpoint.read_bytes() + b"\0")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_model_artifacts", full)
        with pytest.raises(OSError, match="No space left"):
            log_model(experiment, replace(chosen, checkpoint=other))
        # Where MLflow is gone by then, what is left is removed by the next attempt.
        with monkeypatch.context() as gone:
            gone.setattr(MlflowClient, "delete_logged_model", full)
            with pytest.raises(OSError, match="No space left"):
                log_model(experiment, replace(chosen, checkpoint=other))
    client = MlflowClient(experiment.tracking_uri)
    assert len(client.search_logged_models([experiment.experiment_id])) == 2
    again, _ = log_model(experiment, replace(chosen, checkpoint=other))
    found = client.search_logged_models([experiment.experiment_id])
    assert {model.model_id for model in found} == {model_id, again}
    client.delete_logged_model(again)


def test_nothing_is_pickled_but_tensors_and_nothing_of_the_study_but_the_network_travels(
    folder: Path, chosen: Trained
) -> None:
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert {"MLmodel", "requirements.txt", "input_example.json", "recogniser_model.py"} <= files
    assert {f for f in files if f.startswith("artifacts/")} == {
        f"artifacts/bundle/{name}" for name in ("config.json", "weights.pt", "tokens/tokens.txt")
    }
    assert not any(file.endswith((".pkl", ".pyc")) for file in files)
    assert "corpus" not in (folder / "artifacts/bundle/config.json").read_text()
    assert chosen.checkpoint.read_bytes() == (folder / "artifacts/bundle/weights.pt").read_bytes()


LOAD = """
import json, sys
import mlflow.pyfunc, numpy, pandas, soundfile
model = mlflow.pyfunc.load_model(sys.argv[1])
samples, rate = soundfile.read(sys.argv[2])
audio = open(sys.argv[2], "rb").read()
print(json.dumps([
    model.predict({"path": sys.argv[2]}),
    model.predict({"path": [sys.argv[2], sys.argv[3]]}),
    model.predict(pandas.DataFrame({"audio": [audio]})),
    model.predict(pandas.DataFrame({"samples": [samples], "sample_rate": [rate]})),
    model.predict([{"path": sys.argv[2]}, {"path": sys.argv[3]}], params={"greedy": True}),
]))
import study, model as ours
print(json.dumps([study.__file__, ours.__file__, sorted(sys.modules)]))
"""


def test_it_works_in_a_process_that_knows_nothing_of_this_project(
    folder: Path, spoken_study: StudyConfig, tmp_path: Path
) -> None:
    first, second = map(str, commands(spoken_study)[:2])
    copied = tmp_path / "elsewhere"
    shutil.copytree(folder, copied)
    result = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(copied), first, second],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert result.returncode == 0, result.stderr
    said, modules = map(json.loads, result.stdout.splitlines())
    assert said == [[TEXTS[0]], TEXTS[:2], [TEXTS[0]], [TEXTS[0]], TEXTS[:2]]
    assert all(file.startswith(str(copied)) for file in modules[:2])
    assert not {"optuna", "study.config", "study.training", "reports"} & set(modules[2])
    stated = {line.partition("==")[0] for line in requirements()}
    assert {"mlflow", "torch", "torchaudio", "soundfile", "sentencepiece", "numpy"} <= stated
    assert (copied / "requirements.txt").read_text().split() == requirements()
    assert all("+" not in line for line in requirements())


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"path": "/no/such.wav"}], "row 0: there is no such file"),
        ([{"audio": b"no audio"}], "row 0: is not audio that can be read"),
        ([{"audio": b""}], "row 0: is empty"),
        ([{"samples": [0.0] * 9000}], "row 0: samples come with their sample_rate"),
        ([{"samples": [0.1], "sample_rate": 16000}], "row 0: holds 0.000 s of audio"),
        ([{"sample_rate": 16000}], "row 0: give one of audio, path, and samples"),
        ([{"path": "a", "audio": b"b"}], "audio and path given"),
        ([{"words": "none"}], "there are no rows with audio, path or samples"),
    ],
)
def test_what_is_no_recording_is_refused_in_a_sentence(
    rows: list[dict[str, object]], fault: str, folder: Path
) -> None:
    import mlflow.pyfunc
    import pandas
    from mlflow.exceptions import MlflowException

    model = mlflow.pyfunc.load_model(str(folder))
    with pytest.raises(MlflowException, match=fault):
        model.predict(pandas.DataFrame(rows))


def test_it_is_registered_once_and_the_alias_points_at_it(
    experiment: Experiment, model_id: str
) -> None:
    client = MlflowClient(experiment.tracking_uri)
    assert register(experiment, model_id, "speech") == "1"
    assert register(experiment, model_id, "speech", "best") == "1"
    version = client.get_model_version_by_alias("speech", "champion")
    assert version.description == client.get_logged_model(model_id).tags["introduction"]
    assert "of the study 'tiny'" in version.description and "WER on dev" in version.description
    assert version.tags.keys() == {"study", "trial"}
    assert int(version.version) == 1 and f"/{model_id}/" in str(version.source)
    for name, alias in (("a/b", "champion"), ("speech", "latest"), ("speech", "v1")):
        with pytest.raises(InputError, match="MLflow refuses to register"):
            register(experiment, model_id, name, alias)


@pytest.fixture
def endpoint(experiment: Experiment, model_id: str) -> Iterator[str]:
    """The address at which `mlflow models serve` serves the model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{model_id}"]
    process = subprocess.Popen(
        [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": experiment.tracking_uri,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"{base}/ping", timeout=5):  # noqa: S310
                    break
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        yield base
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_served_by_mlflow_it_answers_a_curl_request_with_a_transcript(
    endpoint: str, experiment: Experiment, model_id: str, spoken_study: StudyConfig, tmp_path: Path
) -> None:
    shutil.copyfile(commands(spoken_study)[2], tmp_path / "a.wav")
    asked = "\n".join(serving(experiment, f"models:/{model_id}")[2:])  # as people are told to
    asked = asked.replace("http://127.0.0.1:5001", endpoint)
    curl = ["bash", "-c", f"{asked} --silent --noproxy '*'"]
    answer = subprocess.run(curl, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == {"predictions": [TEXTS[2]]}

    def ask(body: dict[str, object]) -> tuple[int, dict[str, object]]:
        request = urllib.request.Request(  # noqa: S310
            f"{endpoint}/invocations",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    samples, rate = soundfile.read(commands(spoken_study)[1])
    row = {"samples": np.round(samples, 6).tolist(), "sample_rate": rate}
    assert ask({"dataframe_records": [row]}) == (200, {"predictions": [TEXTS[1]]})
    encoded = base64.b64encode(commands(spoken_study)[0].read_bytes()).decode()
    greedy = {"inputs": {"audio": encoded}, "params": {"greedy": True}}
    assert ask(greedy) == (200, {"predictions": [TEXTS[0]]})
    status, refusal = ask({"dataframe_records": [{"audio": "bm90IGF1ZGlv"}]})
    assert status == 400 and "is not audio that can be read" in str(refusal)
