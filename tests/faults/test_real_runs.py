"""Faults done to real runs of `python -m study run`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from study.config import StudyConfig
from study.config_file import dump
from study.storage import open_study
from tests.speech import write_corpus
from tests.study.small_study import small_config
from tests.study.storages import tiny

ROOT = Path(__file__).parent.parent.parent
ONE = ["explore.trials=0", "refine.trials=0", "finalists={top: 0, anchors: false}"]
CLOCKS = ("train_seconds", "evaluate_seconds", "real_time_factor")


class Study:
    """A study of spoken seconds in a folder, on one worker, which is begun, killed and gone on with."""

    def __init__(self, runs: Path, *settings: str) -> None:
        corpus = runs.parent / "corpus"
        if not corpus.is_dir():
            write_corpus(corpus)
        self.settings = [
            f"runs={runs}",
            f"corpus={{kind: manifest, folder: {corpus}}}",
            *("tracking.enabled=false", "launcher.workers=1", *settings),
        ]
        self.config: StudyConfig = tiny(runs, *self.settings)

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """`python -m study run`."""
        given = [word for setting in self.settings for word in ("-o", setting)]
        return subprocess.Popen(
            [sys.executable, "-m", "study", "run", "tests/tiny_study.yaml", *given],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "200", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **variables: str) -> tuple[int, str]:
        """The same to its end: exit code and output, in which there is no traceback."""
        process = self.start(**variables)
        output, _ = process.communicate(timeout=280)
        assert "Traceback" not in output
        return process.returncode, " ".join(output.split())

    @property
    def trials(self) -> list[FrozenTrial]:
        with contextlib.suppress(Exception):  # it is being made
            return open_study(self.config).get_trials(deepcopy=False)
        return []

    def folder(self, trial: int = 0) -> Path:
        return self.config.folder / "trials" / str(trial)

    def wait(self, process: subprocess.Popen[str], condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 200
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.02)

    def worker(self) -> int:
        """The process that has the running trial."""
        (running,) = (t for t in self.trials if t.state == TrialState.RUNNING)
        return int(running.user_attrs["lease"]["process"])

    def evaluations(self, trial: int = 0) -> list[dict[str, Any]]:
        """What was found in a trial, clocks apart."""
        found = self.trials[trial].user_attrs["evaluations"]
        return [{k: v for k, v in e.items() if k not in CLOCKS} for e in found]


def _ended(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def _same(one: object, other: object) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(
            _same(one[key], other[key]) for key in one
        )  # fmt: skip
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(
            map(_same, one, other)
        )  # fmt: skip
    return one == other


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_the_middle_a_trial_is_bit_for_bit_the_undisturbed_one(tmp_path: Path) -> None:
    """Once worker and `run` die together; once `run` alone, whose worker then saves and ends."""
    settings = [
        *ONE,
        "training={budget: {steps: 400}, evaluations: 4, batch_seconds: 2.5, learning_rate: 4e-3}",
        "network.dropout=0.1",
        "search={learning_rate: {low: 2e-3, high: 1e-2, log: true, role: nuisance}}",
    ]
    whole, killed = (Study(tmp_path / name, *settings) for name in ("whole", "killed"))
    assert whole.run()[0] == 0
    steps = []
    for evaluations, both in ((1, True), (2, False)):
        process = killed.start()
        killed.wait(process, lambda: killed.trials and "lease" in killed.trials[0].user_attrs)
        killed.wait(
            process,
            lambda: len(killed.trials[0].user_attrs.get("evaluations", ())) >= evaluations,  # noqa: B023
        )
        time.sleep(0.3)  # some steps further
        worker = killed.worker()
        if both:
            os.kill(worker, signal.SIGKILL)
        process.kill()
        process.communicate()
        killed_at = time.monotonic()
        while not _ended(worker):
            assert time.monotonic() < killed_at + 30
            time.sleep(0.1)
        assert not killed.trials[0].state.is_finished()
        steps.append(_checkpoint(killed)["step"])
    assert steps[0] in (100, 200, 300)  # at an evaluation
    assert steps[1] % 100 > 0  # and in the middle
    assert killed.run()[0] == 0
    assert killed.evaluations() == whole.evaluations()
    assert len(killed.evaluations()) == 4
    expected, found = _checkpoint(whole), _checkpoint(killed)
    for state in (expected, found):
        del state["train_seconds"]
        for evaluation in state["evaluations"]:
            for clock in CLOCKS:
                del evaluation[clock]
    assert _same(found, expected)  # weights, optimiser, random states
    best = [torch.load(s.folder() / "best.pt", weights_only=True) for s in (whole, killed)]
    assert _same(*best)
    heard = [(s.folder() / "hypotheses.jsonl").read_text() for s in (whole, killed)]
    assert heard[0] == heard[1]


def _checkpoint(study: Study) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(study.folder() / "checkpoint.pt", weights_only=True)
    return state


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here: that takes root")
    yield place
    subprocess.run([str(shutil.which("umount")), "-l", str(place)], check=True)


def _fill(file: Path, leave: int) -> None:
    """Fill the disk, but for so many bytes."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 12))
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - leave)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_is_full_stops_a_study_in_a_sentence_and_it_goes_on(disk: Path) -> None:
    study = Study(
        disk / "runs",
        *ONE,
        "training={budget: {steps: 400}, evaluations: 4, batch_seconds: 2.5, learning_rate: 4e-3}",
        "search={learning_rate: {low: 2e-3, high: 1e-2, log: true, role: nuisance}}",
        "anchors=[{name: wide, encoder_dim: 64, decoder_dim: 64}]",
        "network={subsampling_channels: 4, decoder_heads: 2, ctc_weight: 0.5, encoder_layers: 1, "
        "decoder_layers: 1, attention_heads: 2, conv_kernel_size: 3}",
    )
    process = study.start()
    study.wait(process, lambda: study.trials and study.trials[0].intermediate_values)
    _fill(disk / "other", leave=1 << 18)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    told = " ".join(output.split())
    assert "cannot be written (No space left on device): make room" in told
    assert "Run the same command again to go on" in told
    assert "Traceback" not in output
    (trial,) = study.trials
    assert (trial.state, trial.user_attrs["lease"]) == (TrialState.WAITING, None)
    before = trial.user_attrs["evaluations"]
    assert 1 <= len(before) < 4
    assert _checkpoint(study)["evaluations"][: len(before)] == before
    assert not list(study.folder().glob(".*"))  # no half of a file

    (disk / "other").unlink()
    code, _ = study.run()
    assert code == 0
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    after = trial.user_attrs["evaluations"]
    assert after[: len(before)] == before  # clocks and all: none was made again
    assert len(after) == 4


LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (48 << 30, 48 << 30))
"""
"""What every process does first that finds it as `sitecustomize`: no more than 48 GiB of addresses,
so that the allocator refuses at once what the kernel might first promise."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_cannot_be_trained_does_not_stop_the_others(tmp_path: Path) -> None:
    """A network of 160 GB, and learning rates at which the loss is no number."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(LIMIT)
    paths = os.pathsep.join([str(tmp_path / "first"), os.environ.get("PYTHONPATH", "")])
    study = Study(
        tmp_path / "runs",
        "search={learning_rate: {choices: [4e-3, 1e30], role: nuisance}}",
        "network={encoder_layers: 1, encoder_dim: 8, attention_heads: 1, conv_kernel_size: 3, "
        "decoder_layers: 1, decoder_dim: 8, decoder_heads: 2, subsampling_channels: 4, "
        "ctc_weight: 0.5}",
        "anchors=[{name: small}, {name: giant, decoder_dim: 200000}]",
        *("explore.trials=4", "refine.trials=0", "finalists={top: 1, seeds: 1, anchors: false}"),
    )
    code, told = study.run(PYTHONPATH=paths)
    assert code == 0, told
    trials = study.trials
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    outcomes = {t.number: t.user_attrs["outcome"] for t in trials}
    giant = next(t for t in trials if t.user_attrs.get("anchor") == "giant")
    assert outcomes[giant.number] == "out_of_memory"
    assert "the network itself does not fit into memory" in giant.user_attrs["error"]
    assert "160000000000 bytes" in giant.user_attrs["error"]
    assert "remarks" not in giant.user_attrs  # smaller batches would not help, and none are tried
    for trial in trials:
        rate = trial.user_attrs["config"]["learning_rate"]
        if trial.number != giant.number:
            assert outcomes[trial.number] == ("diverged" if rate > 1 else "finished")
        violated = trial.constraints["could_not_be_trained"] > 0
        assert violated == (outcomes[trial.number] != "finished")
    diverged = [t for t in trials if outcomes[t.number] == "diverged"]
    assert diverged
    assert all("at step" in t.user_attrs["error"] for t in diverged)
    assert f"trial {giant.number} out of memory" in told
    assert "The winner is" in told
    code, told = study.run()
    assert (code, "nothing is trained" in told) == (0, True)
    assert [t.user_attrs["outcome"] for t in study.trials] == list(outcomes.values())


def test_a_folder_that_is_read_only_is_said(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    place = tmp_path / "readonly"
    place.mkdir()
    file = tmp_path / "readonly.yaml"
    file.write_text(dump(config.model_copy(update={"runs": place})), encoding="utf-8")
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not there: nothing can be mounted")
    script = f'mount -t tmpfs -o ro tmpfs {place} || exit 77; exec "$@"'
    result = subprocess.run(
        [unshare, "-m", "/bin/sh", "-c", script, "sh", sys.executable, "-m", "study", "run", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode not in (0, 1, 2):
        pytest.skip(f"nothing can be mounted here: {result.stderr}")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Read-only file system" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr
