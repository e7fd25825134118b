"""A real MLflow server that is killed while a real study logs to it: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

from study.storage import open_study
from study.tracking.store import _migrate
from study.tracking.sync import Delivered, deliver, open_experiment
from study.tracking.ui import server
from tests.speech import write_corpus
from tests.study.mlflow_store import everything
from tests.study.storages import tiny

ROOT = Path(__file__).parent.parent.parent


class Place:
    """A study in a folder, with an MLflow server of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = f"sqlite:///{folder / 'server' / 'mlflow.db'}"
        self.files = folder / "server" / "files"
        self.files.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        corpus = write_corpus(folder / "corpus")
        self.settings = [
            f"runs={folder / 'runs'}",
            f"corpus={{kind: manifest, folder: {corpus}}}",
            *("explore.trials=1", "refine.trials=3", "refine.survivors=0"),
            "training={budget: {steps: 120}, evaluations: 4, batch_seconds: 15, learning_rate: 4e-3}",
            *("finalists={top: 0, anchors: false}", "launcher.workers=1"),
        ]
        self.config = tiny(folder / "runs", *self.settings)

    def server(self) -> AbstractContextManager[tuple[str, subprocess.Popen[bytes]]]:
        _migrate(self.database, one_machine=True)
        return server(self.database, artifacts=self.files, port=self.port)

    def command(self, name: str) -> subprocess.Popen[str]:
        settings = [*self.settings, f"tracking.uri={self.address}"]
        given = [word for setting in settings for word in ("-o", setting)]
        return subprocess.Popen(
            [sys.executable, "-m", "study", name, "tests/tiny_study.yaml", *given],
            cwd=ROOT,
            env={**os.environ, "NO_PROXY": "127.0.0.1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def deliver(self, uri: str) -> Delivered:
        config = tiny(self.folder / "runs", *self.settings, f"tracking.uri={uri}")
        study = open_study(config)
        return deliver(config, study, open_experiment(config, study))

    def trials(self) -> list[FrozenTrial]:
        with contextlib.suppress(Exception):  # it is being made
            return open_study(self.config).get_trials(deepcopy=False)
        return []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path)


def _told(place: Place) -> bool:
    """The study has its experiment, and no trial."""
    with contextlib.suppress(Exception):
        return "mlflow" in open_study(place.config).user_attrs
    return False


MOMENTS: dict[str, Callable[[Place], bool]] = {
    "start": _told,
    "middle": lambda place: any(
        trial.number == 2 and trial.intermediate_values for trial in place.trials()
    ),
    "last trial": lambda place: (
        sum(not trial.state.is_finished() for trial in place.trials()) == 1
        and place.trials()[-1].intermediate_values != {}
    ),
    "model": lambda place: any(place.files.rglob("MLmodel")),
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("moment", "delivered_by"),
    [
        (None, "run"),
        ("start", "sync"),
        ("middle", "run"),
        ("last trial", "sync"),
        ("model", "sync"),
    ],
)
def test_what_a_killed_server_missed_is_delivered(
    place: Place, moment: str | None, delivered_by: str
) -> None:
    """Killed at a moment, or never there at first, and started again when the study is over."""
    if moment is None:
        output, _ = place.command("run").communicate(timeout=400)
    else:
        with place.server() as (_, process):
            run = place.command("run")
            deadline = time.monotonic() + 200
            while not MOMENTS[moment](place):
                assert run.poll() is None, run.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = run.communicate(timeout=400)
    trials = place.trials()
    assert [trial.state.is_finished() for trial in trials] == [True] * 5, output
    assert "Traceback" not in output
    assert "The lowest dev WER of" in output
    told = " ".join(output.split())
    assert "lacks some of this; once it answers: python -m study sync" in told
    assert len(re.findall("cannot be (used|logged)", told)) == 1, output
    logs = "".join(file.read_text() for file in (place.config.folder / "logs").glob("*.log"))
    assert logs.count("cannot be used") <= 1  # of the one worker
    assert "Traceback" not in logs

    with place.server():
        again, _ = place.command(delivered_by).communicate(timeout=400)
        assert "cannot be" not in again and "lacks" not in again, again
        assert place.deliver(place.address) == Delivered()  # nothing more
        delivered = everything(place.address)
    fresh = f"sqlite:///{place.folder / 'fresh.db'}"
    assert place.deliver(fresh) == Delivered(trials=[0, 1, 2, 3, 4], report=True, model=True)
    rebuilt = everything(fresh)
    for found in (delivered, rebuilt):
        assert found["study"][2].pop("tracking.uri") in (place.address, fresh)
    assert delivered == rebuilt
