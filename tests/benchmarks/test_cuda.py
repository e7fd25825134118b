"""The script of checks and measurements for a GPU, tried without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import measuring
from benchmarks.cuda import Further

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def test_a_benchmark_that_breaks_is_said_to(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Further(name="this one", needs=("json",), command=["-c", "raise SystemExit(3)"])
    assert not broken.run("cpu", time.monotonic() + 60)
    assert "FAILED  this one: exit code 3" in capsys.readouterr().out


def test_a_benchmark_without_its_libraries_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def prepare() -> None:
        raise AssertionError("there is nothing to prepare for")

    needing = Further(name="this one", needs=("nowhere_to_be_found",), command=[], prepare=prepare)
    assert needing.run("cpu", time.monotonic() + 60)
    assert "left out: nowhere_to_be_found cannot be imported" in capsys.readouterr().out


def test_a_benchmark_is_cut_off_with_what_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pid"
    program = (
        "import subprocess, sys; from pathlib import Path; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"Path({str(file)!r}).write_text(str(child.pid)); child.wait()"
    )
    endless = Further(name="this one", needs=(), command=["-c", program], goal=("another", 2))
    assert endless.run("cpu", time.monotonic() + 3)
    found = capsys.readouterr().out
    assert "cut off" in found
    assert "goal of 2 times as fast as another: not measured" in found
    child = int(file.read_text())
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.1)
    raise AssertionError("its child is still there")


def test_a_goal_is_judged_by_what_was_measured_before_the_time_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(measuring.FOLDER, str(tmp_path))
    file = measuring.write_results("study", "cpu", {})
    for ways, said in (
        ({"sequential": {"speed": 1.0}}, "not measured"),
        ({"sequential": {"speed": 1.0}, "packed, halving": {"speed": 12.0}}, "met, 12 times"),
    ):
        results = {**json.loads(file.read_text()), "results": {"real": {"ways": ways}}}
        program = (
            "import time; from pathlib import Path; "
            f"Path({str(file)!r}).write_text({json.dumps(results)!r}); time.sleep(600)"
        )
        study = Further(name="study", needs=(), command=["-c", program], goal=("sequential", 10))
        assert study.run("cpu", time.monotonic() + 2)
        assert f"goal of 10 times as fast as sequential: {said}" in capsys.readouterr().out
    assert Further(name="study", needs=("nowhere",), command=[], goal=("sequential", 10)).run(
        "cpu", 0
    )
    assert "not measured" in capsys.readouterr().out  # though results of before are there


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(process, 0)
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_runs_through_in_tiny_sizes() -> None:
    before = {file: file.stat().st_mtime_ns for file in RESULTS.iterdir()}
    run = subprocess.run(
        [sys.executable, "benchmarks/cuda.py", "--device", "cpu", "--quick", "--minutes", "14"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert not [word for word in ("FAILED", "left out", "cut off") if word in run.stdout]
    for check in ("losses of graphs", "losses of compile", "resume of eager"):
        assert f"ok      {check}" in run.stdout
    assert "times as fast as sequential" in run.stdout
    assert {file: file.stat().st_mtime_ns for file in RESULTS.iterdir()} == before
