"""What training costs as networks and corpora grow, and that the harness's own cost does not grow.

    python -m benchmarks.scaling                      # both tables
    python -m benchmarks.scaling --only harness --finished 10 100 1000 10000
    python -m benchmarks.scaling --only training --device cuda

*Training*: seconds of a training step (forward, loss, backward, update) on 32 seconds of speech
against the encoder's layers, its width and the length of utterances, the others being held; beside
each the floor, the FLOPs of the step over the device's measured matrix rate, and what an epoch of
100 hours takes at that pace.

*Harness*: what a trial costs beside its training, with so many finished trials in storage. These
trials are the product's own (`study.trial`) on the default SQLite file and with MLflow, but their
training is a formula. The finished ones are copies of a few that ran, put there by SQL.
"""

from __future__ import annotations

import argparse
import io
import json
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import optuna
import torch
from rich.console import Console

from benchmarks.measuring import device_rates, results_of, spread, table, take_turns, write_results
from model.config import NetworkConfig
from model.counting import forward_flops
from model.recogniser import Recogniser
from study.config import StudyConfig
from study.data.batches import Batch
from study.data.config import AugmentationConfig
from study.data.dataset import Dataset
from study.leases import claim
from study.progress import Watch, step
from study.storage import create_study, open_study
from study.tracking.address import tracking_uri
from study.tracking.runs import Tracker
from study.tracking.store import prepare
from study.training.config import Budget, TrainingConfig
from study.training.optimiser import Optimiser
from study.training.result import Evaluation
from study.training.step import Stepper
from study.trial import Laboratory, run_trial
from tests.reports.planted import Surface
from tests.reports.planted_study import Formula, planted_config

MELS, VOCABULARY, TOKENS_PER_SECOND = 80, 500, 4
BATCH_SECONDS = 32
BASE = {"encoder_layers": 4, "encoder_dim": 144}
VARIED: dict[str, tuple[int, ...]] = {
    "encoder_layers": (1, 2, 4, 8, 16),
    "encoder_dim": (96, 144, 256, 384),
    "seconds": (2, 4, 8, 16, 32),
}


# ── The harness ──────────────────────────────────────────────────────────────────────────


class Stopwatch:
    """Adds up the seconds, the processor seconds and the calls of methods that it watches."""

    def __init__(self) -> None:
        self.totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
        self._inside: set[str] = set()

    def watch(self, thing: Any, method: str, label: str) -> None:
        """Count what this method of an object takes under a label; calls within count once."""
        original: Callable[..., Any] = getattr(thing, method)

        def watched(*arguments: Any, **named: Any) -> Any:
            if label in self._inside:
                return original(*arguments, **named)
            self._inside.add(label)
            began, used = time.perf_counter(), time.process_time()
            try:
                return original(*arguments, **named)
            finally:
                self._inside.discard(label)
                total = self.totals[label]
                total[0] += time.perf_counter() - began
                total[1] += time.process_time() - used
                total[2] += 1

        setattr(thing, method, watched)


def multiply(database: Path, wanted: int) -> None:
    """Copy the finished trials of the only study of a SQLite database until there are `wanted`."""
    with sqlite3.connect(database) as connection:
        done = [r[0] for r in connection.execute(
            "SELECT trial_id FROM trials WHERE state IN ('COMPLETE', 'PRUNED') ORDER BY number"
        )]  # fmt: skip
        ((last, number),) = connection.execute("SELECT MAX(trial_id), MAX(number) FROM trials")
        pairs = [
            (done[place % len(done)], last + 1 + place, number + 1 + place)
            for place in range(wanted - len(done))
        ]
        connection.execute(
            "CREATE TEMP TABLE copies (source INTEGER, target INTEGER, number INTEGER)"
        )
        connection.executemany("INSERT INTO copies VALUES (?, ?, ?)", pairs)
        for name in ("trials", "trial_params", "trial_user_attributes", "trial_system_attributes",
                     "trial_values", "trial_intermediate_values"):  # fmt: skip
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            own = columns[0]  # each row's own id, which SQLite gives
            kept = [c for c in columns if c != own or name == "trials"]
            new = {"trial_id": "copies.target", "number": "copies.number"}
            values = ", ".join(new.get(column, f"{name}.{column}") for column in kept)
            connection.execute(
                f"INSERT INTO {name} ({', '.join(kept)}) SELECT {values} FROM {name} "  # noqa: S608
                f"JOIN copies ON copies.source = {name}.trial_id"
            )
    connection.close()


def measure_harness(finished: int, trials: int, folder: Path) -> dict[str, Any]:
    """Run `trials` refine trials with `finished` trials in storage; medians per trial."""
    config = _config(folder, refine=20)
    study = create_study(config, {"corpus": {"fingerprint": "0"}})
    formula = Formula(Surface.draw(np.random.default_rng(0)), 0.004)
    with mock.patch.multiple("study.trial", train=_training(formula), cost_on=formula.cost):
        _work(config, study, Tracker(None), count=9)  # every explore trial
        multiply(config.folder / "study.db", finished)
        began = time.perf_counter()
        study = open_study(config)
        study.get_trials(deepcopy=False)
        opened = time.perf_counter() - began
        experiment = prepare(
            tracking_uri(config.runs, None), config.runs / "mlartifacts", config.name,
            description="A benchmark.", tags={}, params={}, one_machine=True,
        )  # fmt: skip
        tracker = Tracker(experiment)
        watch = Stopwatch()
        for method in dir(study._storage):
            if not method.startswith("_") and callable(getattr(study._storage, method)):
                watch.watch(study._storage, method, "storage")
        watch.watch(study.sampler, "sample_relative", "sampler")
        watch.watch(study.pruner, "prune", "pruner")
        watch.watch(tracker, "_attempt", "MLflow")
        rows = _work(config, study, tracker, count=trials, stopwatch=watch)
    display = Watch(study, config, Console(file=io.StringIO()))
    looks = []
    for _ in range(5):
        began = time.perf_counter()
        step(display)
        looks.append(time.perf_counter() - began)
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {
        "finished": finished,
        **medians,
        "quartiles": statistics.quantiles([row["seconds"] for row in rows], n=4)[::2],
        "display": statistics.median(looks),
        "open": opened,
    }


def _config(folder: Path, refine: int) -> StudyConfig:
    return planted_config(
        folder, seed=0, explore={"trials": 8}, refine={"trials": refine, "survivors": 0.0},
        finalists={"top": 0, "anchors": False}, tracking={"enabled": True},
        storage="sqlite",
    )  # fmt: skip


def _training(formula: Formula) -> Callable[..., Iterator[Evaluation]]:
    """The formula, and the files that a training leaves: 300 hypotheses, as the default study."""
    line = json.dumps({
        "id": "dev-0", "speaker": "s", "reference": "turn the light on", "hypothesis": "turn light",
        "ctc_hypothesis": "turn", "errors": 2, "substitutions": 0, "deletions": 2, "insertions": 0,
        "words": 4,
    })  # fmt: skip

    def train(*arguments: Any, folder: Path, **named: Any) -> Iterator[Evaluation]:
        yield from formula.train(*arguments, **named)
        (folder / "hypotheses.jsonl").write_text(f"{line}\n" * 300)

    return train


def _work(
    config: StudyConfig,
    study: optuna.Study,
    tracker: Tracker,
    count: int,
    stopwatch: Stopwatch | None = None,
) -> list[dict[str, float]]:
    """Run waiting trials as a worker does; what each took, in all and by part."""
    laboratory = Laboratory(
        config=config, dataset=cast("Dataset", SimpleNamespace(fingerprint="0")), study=study,
        tracker=tracker, device=torch.device("cpu"), code="benchmark", interrupted=lambda: False,
    )  # fmt: skip
    rows = []
    totals = stopwatch.totals if stopwatch else {}
    for _ in range(count):
        before = {label: list(values) for label, values in totals.items()}
        began, used = time.perf_counter(), time.process_time()
        trial = claim(study)
        assert trial is not None
        run_trial(laboratory, trial)
        row = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}
        for label, values in totals.items():
            past = before.get(label, [0.0, 0.0, 0])
            row |= {label: values[0] - past[0], f"{label} calls": values[2] - past[2]}
        rows.append(row)
    return [{label: row.get(label, 0.0) for label in rows[-1]} for row in rows]


def harness_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `measure_harness` in milliseconds."""
    shown = [
        {k: f"{1000 * v:.0f}" if isinstance(v, float) and "calls" not in k else v
         for k, v in row.items()}
        for row in rows
    ]  # fmt: skip
    return table(
        shown,
        {
            "finished": "finished trials",
            "seconds": "ms a trial",
            "cpu": "of the CPU",
            "storage": "Optuna",
            "storage calls": "calls",
            "sampler": "sampler",
            "pruner": "pruner",
            "MLflow": "MLflow",
            "MLflow calls": "calls",
            "display": "a look",
            "open": "open once",
        },
    )


# ── Training ─────────────────────────────────────────────────────────────────────────────


def measure_training(device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """A row for each value of what is varied."""
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    rates = device_rates(device, precision)
    rows = []
    for name, values in VARIED.items():
        steps, flops = {}, {}
        for value in values:
            shape = {**BASE, **({name: value} if name in BASE else {})}
            seconds = value if name == "seconds" else 8
            config = NetworkConfig(**shape, attention_heads=4)  # type: ignore[arg-type]
            steps[str(value)] = _step(config, seconds, device)
            flops[str(value)] = 3 * (BATCH_SECONDS // seconds) * forward_flops(
                config, mels=MELS, vocabulary=VOCABULARY, frames=100 * seconds,
                tokens=TOKENS_PER_SECOND * seconds,
            )  # fmt: skip
        for step_once in steps.values():
            step_once()
        taken = take_turns(steps, rounds, device)
        for label, seconds_taken in taken.items():
            median = statistics.median(seconds_taken)
            floor = flops[label] / rates.flops_per_second
            rows.append({
                "varied": f"{name} {label}", "seconds": spread(seconds_taken),
                "flops": flops[label], "times_floor": median / floor,
                "epoch_minutes": median / BATCH_SECONDS * 100 * 3600 / 60,
            })  # fmt: skip
    return rows


def _step(config: NetworkConfig, seconds: int, device: torch.device) -> Callable[[], None]:
    """A training step on a batch of utterances of so many seconds."""
    torch.manual_seed(0)
    recogniser = Recogniser(config, mels=MELS, vocabulary=VOCABULARY).to(device)
    training = TrainingConfig(
        budget=Budget(steps=1000),
        augmentation=AugmentationConfig(frequency_masks=0, time_masks=0),
    )
    stepper = Stepper(recogniser, Optimiser(recogniser, training), training, 1000, device)
    count, frames, tokens = BATCH_SECONDS // seconds, 100 * seconds, TOKENS_PER_SECOND * seconds
    lengths, token_lengths = torch.full((count,), frames), torch.full((count,), tokens)
    batch = Batch(
        features=torch.randn(count, frames, MELS), lengths=lengths, host_lengths=lengths,
        tokens=torch.randint(3, VOCABULARY - 1, (count, tokens)), token_lengths=token_lengths,
        host_token_lengths=token_lengths, members=list(range(count)),
    ).to(device)  # fmt: skip

    def step_once() -> None:
        stepper.step(batch, 500)
        stepper.losses()

    return step_once


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("harness", "training"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--finished", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--trials", type=int, default=8, help="trials that are timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = results_of("scaling", options.device)
    if options.only != "training":
        rows = []
        for finished in options.finished:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure_harness(finished, options.trials, Path(folder)))
        print(f"Harness, milliseconds, medians of {options.trials} trials\n{harness_table(rows)}\n")
        results["harness"] = rows
    if options.only != "harness":
        rows = measure_training(torch.device(options.device), options.rounds)
        columns = {
            "varied": f"on {BASE}", "seconds": "seconds a step", "times_floor": "times the floor",
            "epoch_minutes": "minutes for 100 h",
        }  # fmt: skip
        print(f"Training, {BATCH_SECONDS} s of speech a step\n{table(rows, columns)}\n")
        results["training"] = rows
    write_results("scaling", options.device, results)


if __name__ == "__main__":
    main()
