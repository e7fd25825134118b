"""One trial: this harness against a plain loop of ESPnet's classes, seconds of audio per second.

    python benchmarks/trial.py                       # the median shape of study.yaml, one thread
    python benchmarks/trial.py studies/so762.yaml -o corpus.folder=PATH --device cuda

Corpus, network (to the number of weights), batch size, loss and augmentation are the same. The
harness draws its batches from features on disk or on the GPU and computes its steps as a trial of
the study would (`training.execution`), and the loop reads once audio files, as ESPnet's recipes do,
and once the same stored features (`benchmarks/plain_loop.py`). All train in one process, in turns
of some steps each.

Also says how much of the harness's time goes into waiting for input, into padding and into
evaluation, and how far a step is from the device's floor: its floating-point operations at the rate
of a large matrix product.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from benchmarks import measuring
from model.config import NetworkConfig
from model.recogniser import Recogniser
from study.config import StudyConfig
from study.config_file import load
from study.data.batches import Batches
from study.data.dataset import Dataset
from study.data.resident import Feed
from study.launchers import environment
from study.training.arrangement import Arrangement
from study.training.config import TrainingConfig
from study.training.evaluation import recognise
from study.training.loop import cost_on, evaluation_seconds, total_steps
from study.training.optimiser import Optimiser
from study.training.step import precision
from study.worker import choose_device, open_dataset

COLUMNS = {
    "loop": "loop",
    "audio_seconds_per_second": "audio s/s",
    "ratio": "harness is faster by",
    "audio_seconds_per_step": "audio s/step",
}


class Harness:
    """A trial's training as `study.training.train` does it."""

    def __init__(
        self,
        network: NetworkConfig,
        training: TrainingConfig,
        dataset: Dataset,
        device: torch.device,
    ) -> None:
        self.dataset, self.training, self.device = dataset, training, device
        self.batches = Batches(dataset.splits["train"], training.batch_seconds)
        mels, vocabulary = dataset.normalisation[0].numel(), dataset.tokenizer.vocabulary
        self.recogniser = Recogniser(network, mels=mels, vocabulary=vocabulary)
        self.recogniser.set_normalisation(*dataset.normalisation)
        self.recogniser.to(device)
        self.steps = total_steps(network, training, dataset, self.batches)
        optimiser = Optimiser(self.recogniser, training)
        self._feed = Feed(self.batches, device)
        arrangement = Arrangement(
            self.recogniser, optimiser, training, self.batches, self._feed, device
        )
        self.execution = arrangement.choice(self.steps).execution
        self._stepper = arrangement.stepper(self.execution, self.steps)
        self._plan = self._endless()
        self._made = 0
        self.clock = time.process_time if device.type == "cpu" else time.perf_counter
        self.waited = self.spent = 0.0

    @property
    def parameters(self) -> int:
        """Trainable weights."""
        return sum(parameter.numel() for parameter in self.recogniser.parameters())

    def warm(self) -> None:
        """A step with a full batch of each bucket, for which a GPU may compile or record first."""
        self._make([bucket.members[: bucket.size].tolist() for bucket in self.batches.buckets])

    def run(self, steps: int) -> float:
        """Make so many steps; returns the seconds of speech in them, padding not counted."""
        plan = list(islice(self._plan, steps))
        self._make(plan)
        frames = sum(self.batches.lengths[member] for members in plan for member in members)
        return frames * self.batches.split.hop

    def _make(self, plan: list[list[int]]) -> None:
        begin = self.clock()
        batches = self._feed(plan, fixed=self.execution != "eager")
        for _ in plan:
            started = self.clock()
            batch = next(batches)
            self.waited += self.clock() - started
            self._stepper.step(batch, min(self._made, self.steps - 1))
            self._made += 1
        self._stepper.losses()
        self.spent += self.clock() - begin

    def _endless(self) -> Iterator[list[int]]:
        for epoch in count():
            yield from self.batches.shuffled(0, epoch)

    def evaluation_seconds(self) -> float:
        """The seconds of one evaluation on all of dev."""
        dev = Batches(self.dataset.splits["dev"], evaluation_seconds(self.training))
        started = self.clock()
        recognise(self.recogniser, dev, self.dataset.tokenizer, self.device)
        return self.clock() - started


def median_shape(config: StudyConfig) -> tuple[NetworkConfig, TrainingConfig]:
    """The configuration in the middle of each range of a study."""
    return config.with_parameters({name: d.at(0.5) for name, d in config.space.items()})


def compare(
    config: StudyConfig, device: torch.device, *, rounds: int, steps: int
) -> dict[str, Any]:
    """Measure the harness and the loops in turns; the rows of the table and the facts beside it."""
    network, training = median_shape(config)
    dataset = open_dataset(config)
    harness = Harness(network, training, dataset, device)
    harness.warm()
    loops: dict[str, Any] = {"harness": harness}
    try:
        from benchmarks.plain_loop import PlainLoop

        for name, stored in (("ESPnet, from audio", False), ("ESPnet, stored features", True)):
            loops[name] = PlainLoop(
                network, training, config.features, dataset, device, stored=stored
            )
            assert loops[name].parameters == harness.parameters, "the networks differ"
    except ImportError as error:
        print(f"ESPnet is left out: {error}", file=sys.stderr)
    heard: dict[str, list[float]] = {name: [] for name in loops}

    def turn(name: str) -> Callable[[], None]:
        return lambda: heard[name].append(loops[name].run(steps))

    turns = {name: turn(name) for name in loops}
    for make in turns.values():
        make()  # warm
    for values in heard.values():
        values.clear()
    harness.waited = harness.spent = 0.0
    seconds = measuring.take_turns(turns, rounds, device)
    rates = {
        name: [a / s for a, s in zip(heard[name], seconds[name], strict=True)] for name in loops
    }
    rows = [
        {
            "loop": name,
            "audio_seconds_per_second": measuring.spread(rates[name]),
            "ratio": measuring.ratios(rates["harness"], rates[name]),
            "audio_seconds_per_step": sum(heard[name]) / (rounds * steps),
        }
        for name in loops
    ]
    return {"rows": rows, "facts": _facts(harness, network, rows[0])}


def _facts(harness: Harness, network: NetworkConfig, row: dict[str, Any]) -> dict[str, Any]:
    """Where the harness's time goes."""
    rate = row["audio_seconds_per_second"]["median"]
    seconds = sum(harness.batches.lengths) * harness.batches.split.hop
    epochs = harness.steps / len(harness.batches)
    train = epochs * seconds / rate
    training = harness.training
    early = (training.evaluations - 1) * training.dev_share  # before the last, on a part of dev
    evaluate = (early + 1) * harness.evaluation_seconds()
    device = measuring.device_rates(harness.device, precision(training, harness.device))
    cost = cost_on(network, harness.dataset)
    floor = device.floor(flops=3 * cost.flops_per_second, traffic=0.0)  # for a second of audio
    return {
        "network": {name: getattr(network, name) for name in ("encoder_layers", "encoder_dim",
                    "attention_heads", "conv_kernel_size", "decoder_layers", "decoder_dim")},
        "parameters": harness.parameters,
        "execution": harness.execution,
        "input_share": harness.waited / harness.spent,
        "padded_per_real": harness.batches.padded_share(),
        "evaluation_share": evaluate / (evaluate + train),
        "matrix_flops_per_second": device.flops_per_second,
        "times_floor": 1 / (rate * floor),
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("study", nargs="?", type=Path, default=Path("study.yaml"))
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    arguments = parser.parse_args()
    if "GLIBC_TUNABLES" not in os.environ:  # both loops get the memory that a worker gets
        os.execve(sys.executable, sys.orig_argv, environment())  # noqa: S606
    torch.set_num_threads(1)  # as many as a worker uses
    config = load(arguments.study, arguments.overrides)
    device = choose_device(arguments.device)
    found = compare(config, device, rounds=arguments.rounds, steps=arguments.steps)
    print(measuring.table(found["rows"], COLUMNS))
    for name, value in found["facts"].items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    measuring.write_results(
        "trial", arguments.device, found["rows"], packages=["espnet"], study=config.name,
        **found["facts"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
