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
from study.training.config import TrainingConfig
from study.training.loop import cost_on, total_steps
from study.worker import open_dataset

EVALUATION_SHARE = 0.1
"""Seconds of evaluation and start-up per second of training, roughly."""


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """The smallest or the largest network of a study."""

    values: dict[str, int]
    cost: Cost
    trial_seconds: float
    """What a trial of it should take."""


def check(config: StudyConfig, console: Console) -> None:
    """Print the search space, the networks' sizes, the speech and the time that all should take.

    Raises `InputError` on whatever `run` would refuse. Nothing is trained: the time comes from a
    timed step of the smallest and of the largest network on random numbers.
    """
    device = preflight(config)
    with console.status("Preparing speech and features …"):
        dataset = open_dataset(config)
    console.print(f"[bold]{config.name}[/]: {config.corpus.kind} corpus", highlight=False)
    for line in describe_dataset(dataset):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(_space_table(config))
    console.print()
    smallest, largest = (_extreme(config, dataset, device, end) for end in (0, 1))
    for name, extreme in (("smallest", smallest), ("largest", largest)):
        console.print(
            f"{name:9} {shape_in_words(extreme.values):28} {extreme.cost.parameters:>12,} "
            f"parameters, {extreme.cost.flops_per_second / 1e9:.3g} GFLOPs per second of speech",
            highlight=False,
            soft_wrap=True,
        )
    here = provenance.hardware(device.type)
    workers = crew_size(config, device.type, lambda sentence: console.print(sentence, style="dim"))
    total = config.trials + config.finalist_trials
    seconds = total * (smallest.trial_seconds + largest.trial_seconds) / 2 / workers
    hours = "" if config.refine.hours is None else f" in {config.refine.hours:g} h at most"
    phases = (
        f"{len(config.anchors)} anchor{'s' * (len(config.anchors) != 1)}",
        f"{config.explore.trials} explore",
        f"{config.refine.trials} refine{hours}",
        f"{config.finalist_trials} of finalists",
    )
    console.print(
        f"{total} trials ({', '.join(phases)}) of {duration_in_words(smallest.trial_seconds)} to "
        f"{duration_in_words(largest.trial_seconds)}: about {duration_in_words(seconds)} with "
        f"{workers} worker{'s' * (workers > 1)} on "
        f"{f'machines like this one ({here})' if config.launcher.elsewhere else here}, "
        "less what pruning saves",
        highlight=False,
        soft_wrap=True,
    )


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


def _extreme(config: StudyConfig, dataset: Dataset, device: torch.device, end: int) -> Extreme:
    """The network with the smallest (0) or largest (1) value of everything that is searched."""
    network, training = config.at_end(end)
    size = cost_on(network, dataset)
    return Extreme(
        values={name: getattr(network, name) for name in SHAPE},
        cost=size,
        trial_seconds=_trial_seconds(network, training, dataset, device),
    )


def _trial_seconds(
    network: NetworkConfig, training: TrainingConfig, dataset: Dataset, device: torch.device
) -> float:
    """Steps of a trial times the seconds of a forward and backward pass on a typical batch."""
    batches = Batches(dataset.splits["train"], training.batch_seconds)
    order = batches.in_order()
    batch = batches.gather(order[len(order) // 2]).to(device)
    seconds = step_seconds(network, batch, dataset.tokenizer.vocabulary, device)
    steps = total_steps(network, training, dataset, batches)
    return steps * seconds * (1 + EVALUATION_SHARE)


def step_seconds(
    network: NetworkConfig, batch: Batch, vocabulary: int, device: torch.device
) -> float:
    """Seconds of a forward and backward pass on a batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else threads)  # as a worker does
    recogniser = Recogniser(network, mels=batch.features.shape[2], vocabulary=vocabulary).to(device)
    seconds = 0.0
    for _ in range(2):  # the first pass sets things up
        started = time.perf_counter()
        losses = recogniser(batch.features, batch.lengths, batch.tokens, batch.token_lengths)
        losses.total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    torch.set_num_threads(threads)
    return seconds
