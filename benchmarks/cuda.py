"""All checks and measurements that need a CUDA device, in one command of under ten minutes.

    python benchmarks/cuda.py                       # on a GPU
    python benchmarks/cuda.py --device cpu --quick  # does the script itself run? measures nothing

The checks need torch, torchaudio, numpy, annotated-types, jiwer, rapidfuzz and soundfile (with
cffi), and no corpus: speech is random features. What follows them needs the whole project, and
ESPnet to be compared with; where a library is missing it is left out, and said to be.

1. **same losses**: with dropout 0, 50 steps as graphs and compiled give the losses that the plain
   steps give, within what bfloat16 makes of two plain runs that differ by one rounding.
2. **resume**: a deterministic trial that is interrupted and goes on ends as the one that was not,
   bit for bit, in each way to compute.
3. **waiting**: with CUDA's own check for synchronisation, a step without CTC waits for the device
   nowhere. (torch's CTC copies lengths to it, and waits for that.)
4. **speed**: seconds of audio per second of the 12 × 256 hybrid in one process, in each way, beside
   the floor of its arithmetic; the goal on an H100 is 15,000.
5. `trial.py`: the same network on a corpus of noise, against ESPnet's loop; the goal is 3 times.
6. `study.py`: packed workers with successive halving against one trial after the other, trained to
   the end; the goal is 10 times.
7. `encoder_step.py`: against the other encoders, operation by operation and compiled.

1 to 4 are `gpu_checks.py`. Writes benchmarks/results/<name>-<hardware>.json, that of the checks
after each kind of them. What there is no time left for is left out, or cut off. Exits with 1 where
a check fails or something breaks; a goal that is missed is only said.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from benchmarks import gpu_checks, measuring, noise_corpus

MINUTES = 9.5
"""For everything."""
HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Further:
    """Another benchmark, which runs as a process of its own."""

    name: str
    needs: tuple[str, ...]
    """Modules without which it is left out."""
    command: list[str]
    prepare: Callable[[], object] = lambda: None
    """What is to be done before."""
    goal: tuple[str, float] | None = None
    """How many times faster than what it should be."""

    def run(self, device: str, end: float) -> bool:
        """Run it until `end` of `time.monotonic()` at most; returns whether nothing broke."""
        print(f"\n{self.name}", flush=True)
        before = measuring.results_of(self.name, device)
        code, fate = self._fate(end)
        if fate:
            print(f"FAILED  {self.name}: {fate}" if code else fate)
        if self.goal:
            other, least = self.goal
            found = measuring.results_of(self.name, device)  # of what was cut off, too
            times = None if found == before else _faster(found, other)
            met = "not measured"
            if times is not None:
                met = f"{'met' if times >= least else 'missed'}, {times:.3g} times"
            print(f"goal of {least:g} times as fast as {other}: {met}")
        return code == 0

    def _fate(self, end: float) -> tuple[int, str]:
        """Run it; its exit code, 0 where it had no chance, and what became of it, if not all."""
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if missing:
            return 0, f"left out: {', '.join(missing)} cannot be imported"
        self.prepare()
        if time.monotonic() >= end:
            return 0, "left out: no time is left"
        command = [sys.executable, *self.command]
        process = subprocess.Popen(command, cwd=HERE.parent, start_new_session=True)
        try:
            code = process.wait(end - time.monotonic())
            return code, f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            return 0, "cut off: no time is left"
        finally:
            if process.poll() is None:  # also where this program is interrupted
                os.killpg(process.pid, signal.SIGKILL)  # with the workers that it started
                process.wait()


def _faster(results: Any, other: str) -> float | None:
    """How many times faster the results of `trial` or `study` are than another way, if it ran."""
    if isinstance(results, dict):
        ways = results.get("real", {}).get("ways", {})
        return ways.get("packed, halving", {}).get("speed")
    return {row["loop"]: row["ratio"]["median"] for row in results}.get(other)


def further(device: str, folder: Path, *, quick: bool) -> list[Further]:
    """What follows the checks, the most telling first."""
    project = ("optuna", "pydantic", "sentencepiece", "typer")
    noise = folder / "noise"
    options = [f"corpus.folder={noise}", f"runs={folder}"]
    if quick:
        options += ["network.encoder_layers=1", "network.encoder_dim=32", "tokens.size=60"]
        options += ["network.decoder_layers=1", "network.decoder_dim=32"]
        options += ["training.batch_seconds=10"]
    trial = ["--rounds", "2", "--steps", "2"] if quick else ["--rounds", "9", "--steps", "8"]
    study = ["3", "--workers", "2"] if quick else ["18", "--workers", "4"]
    encoder = ["--rounds", "2", "--sizes", "small"] if quick else ["--rounds", "20"]
    step = [str(HERE / "encoder_step.py"), "--device", device, *encoder]
    return [
        Further(
            name="trial",
            needs=project,
            command=[
                *(str(HERE / "trial.py"), str(HERE / "gpu.yaml"), "--device", device, *trial),
                *(word for option in options for word in ("-o", option)),
            ],
            prepare=lambda: noise_corpus.write(
                noise, utterances=40 if quick else 700, mean=1.5 if quick else 12.0
            ),
            goal=("ESPnet, from audio", 3.0),
        ),
        Further(
            name="study",
            needs=(*project, "espeakng_loader", "sqlalchemy"),
            command=[
                *("-m", "benchmarks.study", "--only", "real", "--device", device),
                *("--real-trials", *study),
            ],
            goal=("sequential", 10.0),
        ),
        Further(name="encoder_step", needs=(), command=step),
        Further(
            name="encoder_step, compiled",
            needs=(),
            command=[*step, "--compile", *(["--backend", "eager"] if quick else [])],
        ),
    ]


def main() -> int:
    """Run everything; 1 where a check fails, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does the script run?")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here; --device cpu --quick tries the script itself")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends what it started, too
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            os.environ[measuring.FOLDER] = f"{folder}/results"
        try:
            well = gpu_checks.hold(torch.device(arguments.device), quick=arguments.quick, end=end)
        except Exception:
            traceback.print_exc()
            well = False
        gc.collect()
        if arguments.device == "cuda":
            torch.cuda.empty_cache()  # others need the memory
        for each in further(arguments.device, Path(folder), quick=arguments.quick):
            well &= each.run(arguments.device, end)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
