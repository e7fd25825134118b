"""What a GPU must do right, and how fast: checks on random features, for `cuda.py`.

The ways to compute a step must give the same losses, go on from a checkpoint as if nothing had
been, and wait for the device nowhere.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from benchmarks import measuring
from model.config import NetworkConfig
from model.counting import cost
from model.recogniser import Recogniser
from study.data.batches import Batches
from study.data.config import AugmentationConfig
from study.data.dataset import Dataset, Split
from study.data.resident import Feed
from study.training import determinism
from study.training.compute import Compiled, Compute, Graphs, Plain, call_again
from study.training.config import Budget, TrainingConfig
from study.training.loop import Interrupted, train
from study.training.optimiser import Optimiser
from study.training.step import Stepper, autocast

MELS, VOCABULARY, HOP = 80, 500, 0.01
BASE = NetworkConfig(encoder_layers=12, encoder_dim=256, attention_heads=4)
SMALL = NetworkConfig(
    encoder_layers=2, encoder_dim=64, attention_heads=2, conv_kernel_size=15, decoder_layers=1,
    decoder_dim=64, subsampling_channels=16,
)  # fmt: skip
STILL: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "positional_dropout": 0.0}
WAYS = ("eager", "graphs", "compile")
TOLERANCE = 0.02
"""Relative difference of losses: what bfloat16 makes of another order of sums after 50 steps."""
GOAL = 15_000.0
"""Seconds of audio per second of the 12 × 256 hybrid on an H100."""


class _Words:
    vocabulary = VOCABULARY

    def decode(self, tokens: list[int]) -> str:
        return " ".join(map(str, tokens))


def random_speech(utterances: int, *, mean: float, seed: int = 0) -> Dataset:
    """A corpus of random features, log-normal lengths and three tokens a second."""
    generator = np.random.default_rng(seed)
    seconds = np.clip(generator.lognormal(np.log(mean), 0.4, utterances), 1.0, 4 * mean)
    lengths = (seconds / HOP).astype(np.int64)
    frames = generator.standard_normal((int(lengths.sum()), MELS), dtype=np.float32)
    store = SimpleNamespace(
        frames=frames.astype(np.float16),
        lengths=lengths,
        offsets=np.concatenate(([0], np.cumsum(lengths)[:-1])),
    )
    store.of = lambda number: store.frames[store.offsets[number] :][: store.lengths[number]]
    tokens = [generator.integers(3, VOCABULARY - 1, max(1, int(3 * s))).tolist() for s in seconds]
    utterance = SimpleNamespace(id="u", speaker=None, text="one two")

    def split(name: str, numbers: list[int]) -> Split:
        return Split(
            name=name,
            utterances=cast(Any, [utterance] * len(numbers)),
            numbers=numbers,
            tokens=[tokens[number] for number in numbers],
            store=cast(Any, store),
            hop=HOP,
        )

    held = max(2, utterances // 20)
    everything = list(range(utterances))
    return Dataset(
        splits={"train": split("train", everything[held:]), "dev": split("dev", everything[:held])},
        tokenizer=cast(Any, _Words()),
        normalisation=(torch.zeros(MELS), torch.ones(MELS)),
        fingerprint="random",
        warnings=[],
    )


class Bench:
    """What all checks share."""

    def __init__(self, device: torch.device, *, quick: bool) -> None:
        self.device, self.quick = device, quick
        self.network = replace(SMALL if quick else BASE, **STILL)
        self.training = TrainingConfig(
            batch_seconds=10.0 if quick else 400.0,
            budget=Budget(steps=4 if quick else 50),
            evaluations=2,
            learning_rate=5e-4,
            augmentation=AugmentationConfig(frequency_masks=0, time_masks=0),
        )
        self.dataset = random_speech(24 if quick else 1200, mean=1.5 if quick else 12.0)
        self.batches = Batches(self.dataset.splits["train"], self.training.batch_seconds)
        self.feed = Feed(self.batches, device)

    def stepper(
        self, way: str, network: NetworkConfig | None = None, *, augmented: bool = False
    ) -> Stepper:
        """A new network, the same each time, and the way in which it computes its steps."""
        torch.manual_seed(0)
        network = network or self.network
        training = self.training
        if augmented:
            training = replace(training, augmentation=AugmentationConfig())
        recogniser = Recogniser(network, mels=MELS, vocabulary=VOCABULARY).to(self.device)
        optimiser = Optimiser(recogniser, training)
        cast_ = autocast(training, self.device)
        shapes = {(bucket.size, bucket.frames) for bucket in self.batches.buckets}
        compute: Compute = Plain(recogniser, cast_)
        if way == "graphs" and self.device.type == "cuda":
            compute = Graphs(recogniser, cast_, shapes, optimiser.gradients)
        elif way == "graphs":
            compute = Graphs(recogniser, cast_, shapes, optimiser.gradients, record=call_again)
        elif way == "compile":
            torch._dynamo.reset()
            backend = "inductor" if self.device.type == "cuda" else "eager"
            compute = Compiled(recogniser, cast_, shapes, backend=backend)
        return Stepper(recogniser, optimiser, training, 1000, self.device, compute)

    def plan(self, steps: int) -> list[list[int]]:
        """The members of the first batches."""
        epochs = range(1 + steps // len(self.batches))
        return [m for epoch in epochs for m in self.batches.shuffled(0, epoch)][:steps]


def same_losses(bench: Bench) -> Iterator[dict[str, Any]]:
    """Losses of each way beside the plain ones."""
    steps = 4 if bench.quick else 50
    traces: dict[str, list[float]] = {}
    for way in WAYS:
        stepper = bench.stepper(way)
        for number, batch in enumerate(bench.feed(bench.plan(steps), fixed=True)):
            stepper.step(batch, number)
        traces[way] = stepper.losses()
        furthest = max(abs(a / b - 1) for a, b in zip(traces[way], traces["eager"], strict=True))
        yield {
            "check": f"losses of {way}",
            "holds": furthest <= TOLERANCE,
            "found": f"differ by {furthest:.2g} at most over {steps} steps",
            "trace": traces[way],
        }


def resume(bench: Bench) -> Iterator[dict[str, Any]]:
    """A trial that was interrupted ends as the one that was not."""
    for way in WAYS if bench.device.type == "cuda" else ("eager",):
        with tempfile.TemporaryDirectory() as folder:
            whole = _last_losses(bench, way, Path(folder) / "whole", stop=None)
            _last_losses(bench, way, Path(folder) / "parts", stop=3)
            parts = _last_losses(bench, way, Path(folder) / "parts", stop=None)
        yield {
            "check": f"resume of {way}",
            "holds": whole == parts,
            "found": f"losses {whole} and {parts}",
        }


def _last_losses(bench: Bench, way: str, folder: Path, *, stop: int | None) -> list[float]:
    """Train a small network, or a part of it; returns the losses of its last evaluation."""
    training = replace(
        bench.training,
        budget=Budget(steps=4 if bench.quick else 20),
        execution=cast(Any, way),
        deterministic=True,
    )
    made = iter(range(1_000_000))
    evaluations = train(
        replace(SMALL, **STILL), training, bench.dataset, seed=1, device=bench.device,
        folder=folder, identity="one", interrupted=lambda: next(made) == stop,
    )  # fmt: skip
    found: list[float] = []
    with contextlib.suppress(Interrupted):
        for evaluation in evaluations:
            found = [evaluation.train_loss, evaluation.dev_loss]
    return found


def waiting(bench: Bench) -> Iterator[dict[str, Any]]:
    """CUDA's own check: an error where something waits for the device."""
    if bench.device.type != "cuda":
        return
    for way in WAYS:
        network = replace(bench.network, ctc_weight=0.0)
        stepper = bench.stepper(way, network, augmented=True)
        plan = bench.plan(4) * 2
        for number, batch in enumerate(bench.feed(plan[:4], fixed=True)):
            stepper.step(batch, number)
        torch.cuda.synchronize()
        try:
            torch.cuda.set_sync_debug_mode("error")
            for number, batch in enumerate(bench.feed(plan[4:], fixed=True)):
                stepper.step(batch, number)
            found = "nowhere"
        except RuntimeError as error:
            found = str(error).partition("\n")[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        yield {"check": f"a step of {way} waits", "holds": found == "nowhere", "found": found}


def speed(bench: Bench) -> list[dict[str, Any]]:
    """Seconds of audio per second in each way, in turns; dropout 0.1 as in recipes."""
    network = SMALL if bench.quick else BASE
    steps, rounds = (2, 3) if bench.quick else (8, 9)
    steppers = {way: bench.stepper(way, network) for way in WAYS}
    plan = bench.plan(steps)
    heard = sum(bench.batches.lengths[member] for members in plan for member in members) * HOP
    prepared: dict[str, float] = {}

    def turn(way: str) -> Callable[[], None]:
        def run() -> None:
            for number, batch in enumerate(bench.feed(plan, fixed=way != "eager")):
                steppers[way].step(batch, number)
            steppers[way].losses()

        return run

    turns: dict[str, Callable[[], None]] = {}
    for way in WAYS:
        started = time.perf_counter()
        try:
            turn(way)()
            measuring.synchronise(bench.device)
            prepared[way] = time.perf_counter() - started
            turn(way)()
        except Exception:  # such as where there is no compiler: the others are measured
            traceback.print_exc()
            continue
        turns[way] = turn(way)
    seconds = measuring.take_turns(turns, rounds, bench.device)
    precision = torch.bfloat16 if bench.device.type == "cuda" else torch.float32
    rates = measuring.device_rates(bench.device, precision)
    flops = 3 * cost(network, mels=MELS, vocabulary=VOCABULARY, tokens_per_second=3.0,
                     seconds=12.0).flops_per_second  # fmt: skip
    return [
        {
            "way": way,
            "audio_seconds_per_second": measuring.spread([heard / s for s in seconds[way]]),
            "faster_than_eager": measuring.ratios(seconds["eager"], seconds[way]),
            "first_seconds": prepared[way],
            "times_floor": measuring.spread(
                [s / rates.floor(flops=flops * heard, traffic=0.0) for s in seconds[way]]
            ),
        }
        for way in turns
    ]


def rows_of(
    check: Callable[[Bench], Iterator[dict[str, Any]]], bench: Bench
) -> Iterator[dict[str, Any]]:
    """What a check finds; where it breaks off, that is a finding, and the others still run."""
    try:
        yield from check(bench)
    except Exception as error:
        traceback.print_exc()
        found = f"broke off: {error!r}".partition("\n")[0]
        yield {"check": _name(check), "holds": False, "found": found}


def _name(check: Callable[[Bench], Iterator[dict[str, Any]]]) -> str:
    return check.__name__.replace("_", " ")


def hold(device: torch.device, *, quick: bool, end: float = math.inf) -> bool:
    """Run the checks, measure the speed, print and write both; returns whether all checks hold.

    What `time.monotonic()` leaves no time for until `end` is left out.
    """
    determinism.prepare()  # before CUDA starts
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    bench = Bench(device, quick=quick)
    checks = []
    for check in (same_losses, resume, waiting):
        if time.monotonic() > end:
            print(f"left out: {_name(check)}, no time is left")
            continue
        for row in rows_of(check, bench):
            checks.append(row)
            print(f"{'ok    ' if row['holds'] else 'FAILED'}  {row['check']}: {row['found']}",
                  flush=True)  # fmt: skip
        measuring.write_results("cuda", device.type, {"checks": checks}, goal=GOAL)
    if time.monotonic() > end:
        print("left out: speed, no time is left")
        return all(check["holds"] for check in checks)
    rows = speed(bench)
    print(measuring.table(rows, {
        "way": "way", "audio_seconds_per_second": "audio s/s", "faster_than_eager": "× eager",
        "first_seconds": "first s", "times_floor": "× floor",
    }))  # fmt: skip
    best = max(row["audio_seconds_per_second"]["median"] for row in rows)
    print(f"goal of {GOAL:.0f} audio seconds a second: {'met' if best >= GOAL else 'missed'}")
    measuring.write_results("cuda", device.type, {"checks": checks, "speed": rows}, goal=GOAL)
    if missing := set(WAYS) - {row["way"] for row in rows}:
        print(f"FAILED  speed of {' and '.join(sorted(missing))}: see above")
    return all(check["holds"] for check in checks) and not missing
