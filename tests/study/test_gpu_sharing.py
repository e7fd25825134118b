"""Workers that share a GPU, as processes that only hold the places at it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from study import gpu_sharing
from study.data import resident
from study.gpu_sharing import SharedGpu
from study.training.loop import Interrupted

PROGRAM = """
import fcntl, sys
with open(f"{sys.argv[1]}.room", "a+") as room:
    fcntl.flock(room, fcntl.LOCK_SH)
    print("in", flush=True)
    sys.stdin.readline()
"""
"""What another worker holds while it trains, in a process that starts at once."""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sharing, "LOOK", 0.01)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "this-one"


def _never() -> bool:
    return False


def _within(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


@contextmanager
def another_worker(files: Path) -> Iterator[subprocess.Popen[str]]:
    """Another worker, which trains until it is sent a line."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def test_several_train_at_once(files: Path) -> None:
    with another_worker(files), SharedGpu(files).shared(_never):
        pass


def test_who_is_alone_already_has_nobody_to_wait_for(files: Path) -> None:
    gpu = SharedGpu(files)
    with gpu.shared(_never):
        assert not gpu.alone(_never)
        with another_worker(files):  # who is let in all the same
            pass


def test_without_a_gpu_nobody_waits() -> None:
    gpu = SharedGpu()
    with gpu.shared(_never):
        assert not gpu.alone(_never)


def test_a_trial_that_needs_it_alone_waits_for_the_others(files: Path) -> None:
    gpu = SharedGpu(files)
    with another_worker(files), gpu.shared(_never), pytest.raises(Interrupted):
        gpu.alone(_within(0.2))
    with another_worker(files) as other, gpu.shared(_never):
        threading.Timer(0.2, other.kill).start()  # whoever is killed leaves, too
        assert gpu.alone(_within(10))
        assert not gpu.alone(_never)  # and now it is


def test_nobody_comes_in_while_a_trial_has_it_alone_or_waits_to(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, late = SharedGpu(files), SharedGpu(files)
    came = threading.Event()
    monkeypatch.setattr(resident, "_copies", {(1, torch.device("cuda")): torch.zeros(1)})

    def train() -> None:
        with late.shared(_never):
            came.set()

    with another_worker(files) as other, gpu.shared(_never):
        waiting = threading.Thread(target=lambda: gpu.alone(_never))
        waiting.start()
        time.sleep(0.2)
        comer = threading.Thread(target=train)
        comer.start()
        assert not came.wait(0.3)  # though another trains, and nobody is alone yet
        assert not resident._copies  # who waits at the door keeps no speech on the GPU
        other.kill()
        waiting.join(10)
        assert not waiting.is_alive()
        assert not came.wait(0.3)
    assert came.wait(10)
    comer.join(10)


def test_two_that_need_it_alone_have_it_one_after_the_other(files: Path) -> None:
    """Both ran out of memory beside each other: neither is too large by that."""
    for _ in range(20):
        together = threading.Barrier(2)
        order: list[str] = []
        waited: list[bool] = []

        def train(name: str, together: threading.Barrier, order: list[str]) -> None:
            gpu = SharedGpu(files)
            with gpu.shared(_never):
                together.wait(10)
                waited.append(gpu.alone(_within(10)))  # noqa: B023
                order.append(name)
                time.sleep(0.01)
                order.append(name)

        arguments = [(name, together, order) for name in ("one", "two")]
        workers = [threading.Thread(target=train, args=each) for each in arguments]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(20)
        assert waited == [True, True]
        assert order[0] == order[1] != order[2] == order[3]


def test_who_leaves_for_another_that_needs_all_keeps_nothing(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = {(1, torch.device("cuda")): torch.zeros(1)}
    monkeypatch.setattr(resident, "_copies", dict(speech))
    gpu = SharedGpu(files)
    with gpu.shared(_never):
        pass
    assert resident._copies  # for the next trial
    gpu.leave()
    assert not resident._copies
    resident._copies.update(speech)
    with Path(f"{files}.door").open("a") as door:
        with gpu.shared(_never):
            fcntl.flock(door, fcntl.LOCK_EX)  # as another does that waits for this one's end
        assert not resident._copies


def test_a_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"conformer-study-{os.getuid()}").symlink_to(elsewhere)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc")
    )
    gpu = SharedGpu.of(torch.device("cuda"))
    assert "belongs to somebody else" in caplog.text
    with gpu.shared(_never):
        assert not gpu.alone(_never)
    assert list(elsewhere.iterdir()) == []


def test_workers_know_of_each_other_by_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc")
    )
    one, two = (SharedGpu.of(torch.device("cuda")) for _ in range(2))
    with one.shared(_never), two.shared(_never), pytest.raises(Interrupted):
        one.alone(_within(0.1))
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
