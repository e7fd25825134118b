"""Launchers: processes, GPUs, Ray and SLURM, with a stand-in for the worker that they start."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from study import crew as crew_module
from study import packing, provenance
from study import worker as worker_module
from study.config import StudyConfig
from study.crew import Crew
from study.crew import size as crew_size
from study.errors import InputError, Unavailable
from study.launchers import LAUNCHERS, Worker, environment
from study.stopping import DEADLINE, LONGEST, STOPPED
from tests.study.storages import tiny

STAND_IN = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, lambda *_: sys.exit(130))
print("begun", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
deadline = time.monotonic() + 60
while time.monotonic() < deadline and not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
"""


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    return tiny(tmp_path, "launcher.workers=2", "device=cpu")


def _instead(monkeypatch: pytest.MonkeyPatch, launcher: str, end: Path) -> None:
    """Have a launcher start a script that runs until a file is there."""
    module = sys.modules[f"study.launchers.{launcher}"]
    command = [sys.executable, "-c", STAND_IN, str(end)]
    monkeypatch.setattr(module, "command", lambda config: command)


def _wait(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def _log(config: StudyConfig, number: int) -> str:
    file = config.folder / "logs" / f"worker-{number}.log"
    return file.read_text() if file.is_file() else ""


# ── On this machine ──────────────────────────────────────────────────────────────────────


def test_processes_end_by_themselves_by_request_and_by_force(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instead(monkeypatch, "local", tmp_path / "end")
    workers = LAUNCHERS["local"](config, range(3))
    _wait(lambda: all("begun" in _log(config, number) for number in range(3)))
    assert [worker.code() for worker in workers] == [None] * 3
    workers[0].stop()
    workers[1].kill()
    _wait(lambda: workers[0].code() is not None)
    assert [workers[0].code(), workers[1].code()] == [130, -signal.SIGKILL]
    (tmp_path / "end").touch()
    _wait(lambda: workers[2].code() == 0)


@pytest.mark.parametrize(
    ("visible", "device", "dealt"),
    [
        ("0,1", "auto", ["0", "1", "0"]),
        ("GPU-abc, 3", "cuda", ["GPU-abc", "3", "GPU-abc"]),
        ("0,1", "cpu", ["0,1"] * 3),
        ("", "auto", [""] * 3),
    ],
)
def test_gpus_are_dealt_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, device: str, dealt: list[str]
) -> None:
    config = tiny(tmp_path, f"device={device}")
    given: list[str] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(
        subprocess, "Popen", lambda *_, env, **__: given.append(env["CUDA_VISIBLE_DEVICES"])
    )
    LAUNCHERS["local"](config, range(3))
    assert given == dealt


def test_how_many_workers_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(provenance, "cores", lambda: 6)
    assert crew_size(tiny(tmp_path), "cpu") == 6
    assert crew_size(tiny(tmp_path), "cuda") == 2
    monkeypatch.setattr(provenance, "cores", lambda: 96)
    assert crew_size(tiny(tmp_path), "cpu") == 64  # as many as a file bears
    assert crew_size(tiny(tmp_path, "storage=postgresql://host/name"), "cpu") == 96
    assert crew_size(tiny(tmp_path, "launcher.workers_per_gpu=3"), "cuda") == 6
    assert crew_size(tiny(tmp_path, "launcher.workers=5"), "cuda") == 5
    assert crew_size(tiny(tmp_path, "launcher.kind=inline"), "cpu") == 1


def test_workers_of_a_gpu_are_as_many_as_its_memory_and_the_cores_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(packing, "measure", lambda config: packing.Footprint(
        total=80 * 2**30, free=78 * 2**30, worker=20 * 2**30
    ))  # fmt: skip
    auto, said = tiny(tmp_path, "launcher.workers_per_gpu=auto"), list[str]()
    monkeypatch.setattr(provenance, "cores", lambda: 16)
    assert crew_size(auto, "cuda", said.append) == 2 * 3
    assert said == [
        "3 workers share a GPU: the largest network of the study takes 20.0 of 80.0 GiB."
    ]
    monkeypatch.setattr(provenance, "cores", lambda: 4)
    assert crew_size(auto, "cuda") == 2 * 2
    assert crew_size(tiny(tmp_path, "launcher={workers_per_gpu: auto, workers: 5}"), "cuda") == 5


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("launcher={kind: ray, workers: 2, workers_per_gpu: auto}", "give ray a number"),
        ("launcher.workers_per_gpu=0", "launcher.workers_per_gpu"),
        ("launcher={kind: inline, workers: 2}", "one process runs one worker"),
        ("launcher.kind=ray", "say how many workers ray should start"),
        ("launcher.kind=slurm", "say how many workers slurm should start"),
        ("launcher.kind=kubernetes", "is not one of"),
        ("launcher={kind: slurm, workers: 2, slurm: {minutes: 0}}", "launcher.slurm.minutes"),
    ],
)
def test_what_cannot_be_launched(tmp_path: Path, setting: str, sentence: str) -> None:
    with pytest.raises(InputError) as error:
        tiny(tmp_path, setting)
    assert sentence in str(error.value)


def test_inline_runs_in_this_process(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(config: StudyConfig, stop: threading.Event) -> int:
        return STOPPED if stop.wait(60) else 0

    monkeypatch.setattr(worker_module, "work", work)
    (worker,) = LAUNCHERS["inline"](config, [0])
    assert worker.code() is None
    worker.stop()
    _wait(lambda: worker.code() == STOPPED)


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        (None, ""),
        (InputError(["the corpus is gone", "and the disk"]), " ERROR study.logs: and the disk"),
        (Unavailable("the storage is away"), " ERROR study.logs: the storage is away"),
        (RuntimeError("a bug"), "RuntimeError: a bug"),
    ],
    ids=["done", "input", "away", "bug"],
)
def test_inline_writes_the_log_that_a_process_would(
    config: StudyConfig, monkeypatch: pytest.MonkeyPatch, ending: Exception | None, line: str
) -> None:
    log = logging.getLogger("study.trial")

    def work(config: StudyConfig, stop: threading.Event) -> int:
        logging.getLogger("study").setLevel(config.log_level.upper())
        log.info("Trial 7 begins")
        if ending is not None:
            raise ending
        return 0

    monkeypatch.setattr(worker_module, "work", work)
    (worker,) = LAUNCHERS["inline"](config, [0])
    _wait(lambda: worker.code() is not None)
    assert worker.code() == (0 if ending is None else worker_module.FAILED)
    log.error("of somebody else")
    assert " INFO study.trial: Trial 7 begins" in _log(config, 0)
    assert line in _log(config, 0)
    assert "of somebody else" not in _log(config, 0)


# ── A crew ───────────────────────────────────────────────────────────────────────────────


class Fake:
    """A worker whose end is told."""

    def __init__(self) -> None:
        self.ended: int | None = None
        self.asked: list[str] = []

    def code(self) -> int | None:
        return self.ended

    def stop(self) -> None:
        self.asked.append("stop")

    def kill(self) -> None:
        self.asked.append("kill")
        self.ended = -9


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Fake]]:
    made: list[tuple[int, Fake]] = []

    def launch(config: StudyConfig, numbers: Sequence[int]) -> list[Worker]:
        made.extend((number, Fake()) for number in numbers)
        return [fake for _, fake in made[-len(numbers) :]]

    monkeypatch.setitem(LAUNCHERS, "local", launch)
    return made


def test_a_worker_that_is_killed_is_replaced_under_its_number(
    config: StudyConfig, started: list[tuple[int, Fake]]
) -> None:
    crew = Crew(config, 2)
    assert crew.look(0)
    started[1][1].ended = -signal.SIGKILL
    assert crew.look(0)
    assert [number for number, _ in started] == [0, 1, 1]
    started[0][1].ended = started[2][1].ended = 0
    assert not crew.look(3)
    assert not crew.gave_up


def test_workers_that_are_killed_again_and_again_are_not(
    config: StudyConfig, started: list[tuple[int, Fake]]
) -> None:
    """As by the kernel, for want of memory: the study stops, and says so."""
    crew = Crew(config, 2)
    looks = 0
    while crew.look(0):
        looks += 1
        for _, fake in started:
            fake.ended = -signal.SIGKILL
    assert len(started) == 2 + 2 * crew_module.LOSSES
    assert looks < 20


def test_workers_that_gave_up_are_not_replaced(
    config: StudyConfig, started: list[tuple[int, Fake]]
) -> None:
    crew = Crew(config, 1)
    started[0][1].ended = worker_module.FAILED
    assert not crew.look(0)
    assert crew.gave_up
    assert len(started) == 1


def test_workers_that_do_not_stop_are_killed(
    config: StudyConfig, started: list[tuple[int, Fake]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "PATIENCE", 0.2)
    Crew(config, 1).stop()
    assert started[0][1].asked == ["stop", "kill"]


def test_whoever_asks_workers_to_stop_waits_for_longer_than_they_may_save() -> None:
    slurm = sys.modules["study.launchers.slurm"]
    assert DEADLINE < LONGEST < min(crew_module.PATIENCE, slurm.PATIENCE)
    assert slurm.PATIENCE < slurm.WARNING - 15  # in which the job is queued again


# ── SLURM ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands named as SLURM's, which keep the script that they get; returns its place."""
    pytest.importorskip("submitit")
    script = tmp_path / "submitted.sh"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "sbatch": f'cp "$1" {script}; echo "Submitted batch job 4711"',
        "srun": "",
        "sacct": "",
        "scancel": f'echo "$@" > {tmp_path / "cancelled"}',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return script


def test_slurm_gets_one_array_that_is_requeued(slurm: Path, tmp_path: Path) -> None:
    settings = "{partition: gpu, minutes: 90, gpus: 1, cpus: 6, memory: 24, account: speech, "
    settings += "qos: low, constraint: a100, setup: [module load cuda]}"
    config = tiny(tmp_path, f"launcher={{kind: slurm, workers: 3, slurm: {settings}}}")
    workers = LAUNCHERS["slurm"](config, range(3))
    lines = slurm.read_text().splitlines()
    for line in (
        "#SBATCH --array=0-2%3",
        "#SBATCH --requeue",
        "#SBATCH --job-name=study-tiny",
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --cpus-per-task=6",
        "#SBATCH --mem=24GB",
        "#SBATCH --account=speech",
        "#SBATCH --qos=low",
        "#SBATCH --constraint=a100",
        "#SBATCH --signal=USR2@90",
        "module load cuda",
    ):
        assert line in lines
    assert [worker.code() for worker in workers] == [None] * 3
    workers[1].stop()
    assert "4711_1" in (tmp_path / "cancelled").read_text()


def test_without_slurm_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    config = tiny(tmp_path, "launcher={kind: slurm, workers: 1}")
    with pytest.raises(InputError, match="there is no SLURM here"):
        LAUNCHERS["slurm"](config, [0])


def _processes(parent: int) -> list[int]:
    """All processes that one has started, and those that they have."""
    psutil = pytest.importorskip("psutil")
    try:
        return [process.pid for process in psutil.Process(parent).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def test_jobs_run_and_are_requeued_when_pre_empted(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By submitit's local executor, which stands for SLURM, whose signals reach all of a job."""
    pytest.importorskip("submitit")
    _instead(monkeypatch, "slurm", tmp_path / "end")
    from study.launchers.slurm import slurm as launch

    (worker,) = launch(config, [0], cluster="local")
    controller = worker.job._process

    def begun() -> int:
        logs = (config.folder / "logs" / "slurm").glob("*log.out")
        return sum(file.read_text().count("begun") for file in logs)

    def send(number: signal.Signals) -> None:
        for process in _processes(controller.pid):
            os.kill(process, number)

    try:
        _wait(lambda: begun() == 1)
        send(signal.SIGUSR2)
        _wait(lambda: begun() == 2)
        assert worker.code() is None
        send(signal.SIGTERM)  # some clusters send it first; the worker ends, and the job waits
        _wait(lambda: len(_processes(controller.pid)) == 1)
        time.sleep(0.5)
        assert worker.code() is None
        send(signal.SIGUSR2)
        _wait(lambda: begun() == 3)
        (tmp_path / "end").touch()
        _wait(lambda: worker.code() is not None)
        assert worker.code() == 0
    finally:
        controller.terminate()
        for process in _processes(controller.pid):
            os.kill(process, signal.SIGKILL)


# ── Ray ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_places_workers_and_starts_lost_ones_again(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster of this machine alone."""
    engine = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    _instead(monkeypatch, "ray", tmp_path / "end")
    from study.launchers.ray import ray as launch

    try:
        one, other = launch(config, range(2))
        _wait(lambda: "begun" in _log(config, 0) and "begun" in _log(config, 1), 240)
        assert (one.code(), other.code()) == (None, None)
        os.kill(engine.get(one.actor.process.remote()), signal.SIGKILL)
        _wait(lambda: one.code() is None and _log(config, 0).count("begun") == 2)
        other.stop()
        _wait(lambda: other.code() == 130)
        (tmp_path / "end").touch()
        _wait(lambda: one.code() == 0)
    finally:
        engine.shutdown()


def test_a_worker_imports_this_program_and_no_file_of_the_working_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.py").write_text("raise SystemExit('the user’s')")
    command = [sys.executable, "-m", "study", "keys", "seed"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
