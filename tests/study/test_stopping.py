"""How a worker is asked to stop: signals in every moment, and parents that are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from study.stopping import SIGNALS, STOPPED

LISTEN = """
import hashlib, os, signal, sys, time
from study import stopping
stopping.DEADLINE, stopping.LONGEST = {deadline}, {longest}
stop = stopping.StopRequest({parent})
"""
READY = "print('ready', flush=True)\n"
SLEEPS = "try:\n print('ready', flush=True)\n time.sleep(60)\n"
LOADED = LISTEN + "stop.loaded()\n"
HOLDS = LOADED + "stop.hold()\n" + READY
SAVES = """
with stopping.saving():
    time.sleep({seconds})
print('saved', flush=True)
"""


def _start(
    script: str, *, parent: int | None = None, deadline: float = 60, longest: float = 60
) -> subprocess.Popen[str]:
    script = script.format(parent=parent, deadline=deadline, longest=longest)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    began = time.monotonic()
    said, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    return process.returncode, said


@pytest.mark.parametrize("number", SIGNALS)
def test_before_it_has_a_trial_it_cleans_up_and_ends(number: signal.Signals) -> None:
    process = _start(
        LOADED + SLEEPS + "except KeyboardInterrupt:\n print('cleans up'); sys.exit(130)"
    )
    process.send_signal(number)
    assert _ends(process) == (STOPPED, "cleans up\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_while_it_loads_libraries_nothing_holds_it_up(number: signal.Signals) -> None:
    """Not even what catches all exceptions, as they do around what need not be there."""
    process = _start(LISTEN + SLEEPS + "except BaseException: pass\ntime.sleep(60)")
    process.send_signal(number)
    assert _ends(process) == (STOPPED, "")


@pytest.mark.parametrize("number", SIGNALS)
def test_what_holds_a_trial_is_not_interrupted_but_told(number: signal.Signals) -> None:
    process = _start(HOLDS + "stop.wait(60); print(stop.is_set()); sys.exit(7)")
    process.send_signal(number)
    assert _ends(process) == (7, "True\n")


def test_one_that_hangs_in_a_library_ends_after_the_deadline() -> None:
    """Code that never comes back to Python, in which no handler could run."""
    hangs = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
    process = _start(HOLDS + hangs, deadline=0.5)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert _ends(process) == (STOPPED, "")


@pytest.mark.parametrize(
    ("seconds", "longest", "then", "end"),
    [
        (1.5, 60, "sys.exit(7)", (7, "saved\n")),
        (0.2, 60, "time.sleep(60)", (STOPPED, "saved\n")),
        (60, 1, "", (STOPPED, "")),
    ],
    ids=["saves", "saved and hangs", "saves for too long"],
)
def test_one_that_saves_is_waited_for_within_reason(
    seconds: float, longest: float, then: str, end: tuple[int, str]
) -> None:
    """A large checkpoint takes longer to write than what hangs is given."""
    saves = SAVES.replace("{seconds}", str(seconds))
    process = _start(HOLDS + saves + then, deadline=0.5, longest=longest)
    process.send_signal(signal.SIGTERM)
    assert _ends(process) == end


def test_a_second_signal_does_not_interrupt_what_cleans_up() -> None:
    cleans = "finally:\n print('cleans', flush=True); time.sleep(0.3); print('up')"
    process = _start(LOADED + SLEEPS + cleans)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleans\n"
    process.send_signal(signal.SIGUSR2)
    assert _ends(process)[1] == "up\n"


def test_without_its_parent_it_stops() -> None:
    process = _start(HOLDS + "stop.wait(60); sys.exit(7)", parent=os.getpid() + 1)
    assert _ends(process) == (7, "")
    process = _start(HOLDS + "stop.wait(1.2); print(stop.is_set())", parent=os.getpid())
    assert _ends(process) == (0, "False\n")


def test_a_signal_to_a_process_that_it_forked_is_not_its_own() -> None:
    forks = """
child = os.fork()
if not child:
    time.sleep(60)
time.sleep(0.2)
os.kill(child, signal.SIGTERM)
os.waitpid(child, 0)
time.sleep(0.2)
print(stop.is_set())
"""
    assert _ends(_start(LOADED + READY + forks)) == (0, "False\n")


def test_a_worker_listens_before_it_loads_what_takes_seconds() -> None:
    script = """
import sys
from study import __main__, stopping
def listen(parent):
    print(sorted({"torch", "optuna", "mlflow", "numpy"} & set(sys.modules)))
    sys.exit(0)
stopping.StopRequest = listen
sys.argv = ["study", "worker", "study.yaml"]
__main__.main()
"""
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout == "[]\n"
