"""Workers that share a GPU, as processes that only hold the places at it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from study import gpu_sharing
from study.data import resident
from study.files import Unwritable
from study.gpu_sharing import SharedGpu
from study.training.loop import Interrupted

PROGRAM = """
import sys
from pathlib import Path
from study.gpu_sharing import SharedGpu
with SharedGpu(Path(sys.argv[1])).shared(lambda: False):
    print("in", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sharing, "LOOK", 0.01)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "gpus" / "this-one"


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
    together = threading.Barrier(2)
    order: list[str] = []

    def train(name: str) -> None:
        gpu = SharedGpu(files)
        with gpu.shared(_never):
            together.wait(10)
            gpu.alone(_within(10))
            order.append(f"{name} begins")
            time.sleep(0.1)
            order.append(f"{name} ends")

    workers = [threading.Thread(target=train, args=(name,)) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    first, second = order[0].split()[0], order[2].split()[0]
    assert order == [f"{first} begins", f"{first} ends", f"{second} begins", f"{second} ends"]


def test_who_went_out_to_have_it_alone_had_memory_until_then(files: Path) -> None:
    """Both ran out of memory at once, beside each other: neither is too large by that."""
    gpu = SharedGpu(files)
    with gpu.shared(_never), Path(f"{files}.door").open("a") as door:
        fcntl.flock(door, fcntl.LOCK_EX)  # as the other does before it goes out
        assert gpu.alone(_never)
        assert not gpu.alone(_never)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "gpus").write_text("a file")
    with pytest.raises(Unwritable, match="gpus"), SharedGpu(tmp_path / "gpus" / "x").shared(_never):
        raise AssertionError("it has no place")
