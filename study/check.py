"""`python -m study check`: everything about a study that can be known without training."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.config import SHAPE, NetworkConfig
from model.counting import Cost
from model.recogniser import Recogniser
from study import provenance
from study.config import StudyConfig
from study.crew import size as crew_size
from study.data.batches import Batch, Batches
from study.data.dataset import Dataset
from study.progress import duration_in_words, shape_in_words
from study.runner import describe_dataset, preflight
from study.storage import refuse_changes
from study.training.compute import Plain
from study.training.config import TrainingConfig
from study.training.loop import cost_on, total_steps
from study.training.memory import shortage
from study.training.step import autocast
from study.worker import open_dataset

EVALUATION_SHARE = 0.1
"""Seconds of evaluation and start-up per second of training, roughly."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """How long the gradients of a batch take."""

    seconds: float | None
    """None where one utterance at a time is too much for the memory."""
    parts: int
    """In which the batch was computed, for each to fit."""

    @property
    def remark(self) -> str:
        """What a network needs of memory that there is not; empty where there is enough."""
        if self.seconds is None:
            return "does not fit into memory: trials of such networks end as out of memory"
        if self.parts == 1:
            return ""
        parts = f"{self.parts} parts or more"
        return f"a batch does not fit into memory: trials will compute it in {parts}"


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """The smallest or the largest network of a study."""

    values: dict[str, int]
    cost: Cost
    step: StepTime
    steps: int
    """Updates of its weights in a trial."""

    @property
    def trial_seconds(self) -> float | None:
        """What a trial of it should take; None where it does not fit into memory."""
        if self.step.seconds is None:
            return None
        return self.steps * self.step.seconds * (1 + EVALUATION_SHARE)


def check(config: StudyConfig, console: Console) -> None:
    """Print the search space, the networks' sizes, the speech and the time that all should take.

    Raises `InputError` on whatever `run` would refuse. Nothing is trained: the time comes from a
    timed step of the smallest and of the largest network, whose weights are then thrown away.
    """
    device = preflight(config)
    with console.status("Preparing speech and features …"):
        dataset = open_dataset(config)
    refuse_changes(config, dataset.fingerprint)
    console.print(f"[bold]{config.name}[/]: {config.corpus.kind} corpus", highlight=False)
    for line in describe_dataset(dataset):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(_space_table(config))
    console.print()
    smallest, largest = (_extreme(config, dataset, device, end) for end in (0, 1))
    extremes = {"smallest": smallest, "largest": largest}
    console.print(_networks_table(extremes))
    for name, extreme in extremes.items():
        if extreme.step.remark:
            _say(console, f"{name:9} {extreme.step.remark}")
    console.print()
    here = provenance.hardware(device.type)
    workers = crew_size(config, device.type, lambda sentence: console.print(sentence, style="dim"))
    total = config.trials + config.finalist_trials
    hours = "" if config.refine.hours is None else f" in {config.refine.hours:g} h at most"
    phases = (
        f"{len(config.anchors)} anchor{'s' * (len(config.anchors) != 1)}",
        f"{config.explore.trials} explore",
        f"{config.refine.trials} refine{hours}",
        f"{config.finalist_trials} of finalists",
    )
    trials = f"{total} trials ({', '.join(phases)})"
    least, most = smallest.trial_seconds, largest.trial_seconds
    if least is None or most is None:
        _say(console, f"{trials}: how long they take is not known")
        return
    _say(
        console,
        f"{trials} of {duration_in_words(least)} to {duration_in_words(most)}: about "
        f"{duration_in_words(total * (least + most) / 2 / workers)} with "
        f"{workers} worker{'s' * (workers > 1)} on "
        f"{f'machines like this one ({here})' if config.launcher.elsewhere else here}, "
        "less what pruning saves",
    )


def _say(console: Console, sentence: str) -> None:
    """Print a sentence, in one line where a program may read it."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _space_table(config: StudyConfig) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in (
        "parameter",
        "role",
        "searched",
        *(escape(a.name) for a in config.anchor_shapes),
    ):
        table.add_column(column, overflow="fold")
    for name in (*SHAPE, *(name for name in config.space if name not in SHAPE)):
        dimension = config.space.get(name)
        fixed = getattr(config.network if name in SHAPE else config.training, name, "")
        table.add_row(
            name,
            dimension.role if dimension else "fixed",
            dimension.describe() if dimension else f"{fixed}",
            *(f"{anchor.shape[name]}" if name in SHAPE else "" for anchor in config.anchor_shapes),
        )
    return table


def _networks_table(extremes: dict[str, Extreme]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("network")
    table.add_column("shape")
    table.add_column("parameters", justify="right")
    table.add_column("GFLOPs per second of speech", justify="right")
    for name, extreme in extremes.items():
        table.add_row(
            name,
            shape_in_words(extreme.values),
            f"{extreme.cost.parameters:,}",
            f"{extreme.cost.flops_per_second / 1e9:.3g}",
        )
    return table


def _extreme(config: StudyConfig, dataset: Dataset, device: torch.device, end: int) -> Extreme:
    """The network with the smallest (0) or largest (1) value of everything that is searched.

    Its step is timed on a typical batch.
    """
    network, training = config.at_end(end)
    batches = Batches(dataset.splits["train"], training.batch_seconds)
    order = batches.in_order()
    batch = batches.gather(order[len(order) // 2]).to(device)
    return Extreme(
        values={name: getattr(network, name) for name in SHAPE},
        cost=cost_on(network, dataset),
        step=step_time(network, training, batch, dataset.tokenizer.vocabulary, device),
        steps=total_steps(network, training, dataset, batches),
    )


def step_time(
    network: NetworkConfig,
    training: TrainingConfig,
    batch: Batch,
    vocabulary: int,
    device: torch.device,
) -> StepTime:
    """Time the gradients of a batch, which are nearly all of a step.

    They are computed as in a trial: in its precision, and where memory runs out in twice as many
    parts (`study.training.loop`); but operation by operation, whatever `training.execution` says.
    """
    parts = 1
    while True:
        seconds: float | None = None
        try:
            seconds = _step_seconds(network, training, batch, vocabulary, device, parts)
        except (RuntimeError, MemoryError) as error:
            if shortage(error) is None:
                raise
        if device.type == "cuda":  # outside of the handler, whose traceback holds the tensors
            torch.cuda.empty_cache()
        if seconds is not None or parts >= len(batch.members):
            return StepTime(seconds=seconds, parts=parts)
        parts *= 2


def _step_seconds(
    network: NetworkConfig,
    training: TrainingConfig,
    batch: Batch,
    vocabulary: int,
    device: torch.device,
    parts: int,
) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else threads)  # as a worker does
    try:
        mels, total = batch.features.shape[2], len(batch.members)
        recogniser = Recogniser(network, mels=mels, vocabulary=vocabulary).to(device)
        compute = Plain(recogniser, autocast(training, device))
        size = -(-total // parts)
        seconds = 0.0
        for _ in range(2):  # the first pass sets things up
            started = time.perf_counter()
            for start in range(0, total, size):
                part = batch.part(start, start + size)
                compute(part.features, part, len(part.members) / total)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        return seconds
    finally:
        torch.set_num_threads(threads)
