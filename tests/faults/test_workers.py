"""Real studies whose workers are killed, stopped, and started from two checkouts at once."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from study import weights
from study.config import StudyConfig
from study.storage import open_study
from tests.speech import write_corpus
from tests.study.storages import storage_of, tiny

ROOT = Path(__file__).parent.parent.parent


def _training(steps: int) -> str:
    """A training of so many steps, of which each takes a hundredth of a second or so."""
    budget = f"budget: {{steps: {steps}}}, evaluations: 4"
    return f"training={{{budget}, batch_seconds: 15, learning_rate: 4e-3}}"


def _settings(folder: Path, *more: str) -> list[str]:
    if not (folder / "corpus").is_dir():
        write_corpus(folder / "corpus")
    corpus = f"corpus={{kind: manifest, folder: {folder / 'corpus'}}}"
    settings = [f"runs={folder / 'runs'}", corpus, "tokens={kind: character}", *more]
    return [word for setting in settings for word in ("-o", setting)]


def _start(root: Path, command: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "study", command, "tests/tiny_study.yaml", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _config(settings: list[str]) -> StudyConfig:
    return tiny(Path("unused"), *settings[1::2])


def _trials(config: StudyConfig) -> list[FrozenTrial]:
    return open_study(config).get_trials(deepcopy=False)


def _wait(condition: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Exception):  # nothing is there yet
            if condition():
                return
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)


def _worker(folder: Path) -> int | None:
    """The process of a worker on a study in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"worker" in words and any(str(folder).encode() in word for word in words):
                return int(process.name)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_asked_to_stop_saves_and_ends(
    tmp_path: Path, number: signal.Signals
) -> None:
    settings = _settings(tmp_path, _training(4000), "explore.trials=0", "refine.trials=0",
                         "finalists={top: 0, anchors: false}", "tracking.enabled=false")  # fmt: skip
    config = _config(settings)
    run = _start(ROOT, "run", *settings, "--workers", "1")
    _wait(lambda: _trials(config)[0].intermediate_values)
    time.sleep(1)  # in the middle of its training, long before its second evaluation
    process = _worker(tmp_path / "runs")
    assert process is not None
    os.kill(process, number)
    began = time.monotonic()
    _wait(lambda: not Path(f"/proc/{process}").exists(), 30)
    assert time.monotonic() - began < 10
    run.communicate(timeout=240)
    (trial,) = _trials(config)
    assert (trial.state, trial.user_attrs["lease"]) == (TrialState.WAITING, None)
    state = weights.read(config.folder / "trials" / "0" / "checkpoint.pt", torch.device("cpu"))
    assert 1000 < state["step"] < 2000
    assert [e["step"] for e in state["evaluations"]] == [1000]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_five_times_a_study_ends_with_exactly_its_trials(tmp_path: Path) -> None:
    """SIGKILL at random moments, to `run` and to a worker in turn."""
    settings = _settings(tmp_path, _training(200))
    config = _config(settings)
    draw = random.Random(3)
    for turn in range(5):
        run = _start(ROOT, "run", *settings, "--workers", "2")
        _wait(lambda: any(t.state == TrialState.RUNNING for t in _trials(config)))
        time.sleep(draw.uniform(0, 6))
        victim = _worker(tmp_path / "runs") if turn % 2 else None
        if victim is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            time.sleep(draw.uniform(0, 2))
        run.kill()
        run.communicate()
        _wait(lambda: _worker(tmp_path / "runs") is None, 60)
    run = _start(ROOT, "run", *settings, "--workers", "2")
    output, _ = run.communicate(timeout=600)
    assert run.returncode == 0, output
    trials = _trials(config)
    assert [trial.number for trial in trials] == list(range(11))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.user_attrs["identity"] for trial in trials}) == 11
    for trial in trials:
        steps = [e["evaluation"] for e in trial.user_attrs["evaluations"]]
        assert steps == sorted(trial.intermediate_values) == list(range(1, len(steps) + 1))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_workers_in_two_checkouts_give_one_result(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Over PostgreSQL, with nothing else in common: other folders, other caches."""
    clones = [tmp_path / name for name in ("one", "other")]
    for clone in clones:
        shutil.copytree(
            ROOT, clone,
            ignore=shutil.ignore_patterns(".git", ".venv", "runs", "*cache*", "results"),
        )  # fmt: skip
    with storage_of("postgresql", tmp_path, request) as url:
        here, there = (
            _settings(clone, f"storage={url}", f"name={tmp_path.name}", _training(400))
            for clone in clones
        )
        config = _config(here)
        run = _start(clones[0], "run", *here, "--workers", "1")
        _wait(lambda: any(t.state == TrialState.RUNNING for t in _trials(config)))
        worker = _start(clones[1], "worker", *there)
        output, _ = run.communicate(timeout=900)
        log, _ = worker.communicate(timeout=60)
        assert (run.returncode, worker.returncode) == (0, 0), output + log
        trials = _trials(config)
        assert [trial.number for trial in trials] == list(range(11))
        assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
        assert len({trial.user_attrs["worker"] for trial in trials}) == 2
        assert "The winner is" in output


@pytest.mark.slow
def test_a_worker_with_other_code_does_not_start(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "*cache*", "results")
    )
    settings = _settings(tmp_path, _training(4000), "tracking.enabled=false")
    config = _config(settings)
    run = _start(ROOT, "run", *settings, "--workers", "1")
    try:
        _wait(lambda: any(t.state == TrialState.RUNNING for t in _trials(config)))
        with (clone / "model" / "config.py").open("a") as file:
            file.write("# changed\n")
        worker = _start(clone, "worker", *settings)
        output, _ = worker.communicate(timeout=240)
        assert worker.returncode == 2
        assert "error: this worker would not do what the study 'tiny' does: the code" in output
        assert "Traceback" not in output
    finally:
        run.kill()
        run.communicate()
