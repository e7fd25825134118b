"""How many workers a GPU has room for: `launcher.workers_per_gpu: auto`.

    workers = fitting(measure(config), cores=16)

A trial of the study's largest network makes a step on its longest batches, in a process of its own
that then gives the GPU back, and what it took says how often that fits. More workers than cores are
not started: each keeps one busy.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch

from model.config import NetworkConfig
from model.recogniser import Recogniser
from study.config import StudyConfig
from study.data.batches import Batches
from study.data.dataset import Dataset
from study.data.resident import Feed
from study.training.arrangement import Arrangement
from study.training.config import TrainingConfig
from study.training.loop import cost_on
from study.training.memory import shortage
from study.training.optimiser import Optimiser
from study.worker import open_dataset, prepare_device

CONTEXT = 0.6 * 2**30
"""Bytes that CUDA and its libraries take for each process, which torch does not count."""
SPARED = 0.1
"""Of a GPU's memory, what is left free: evaluations, and pieces that are too small for anything."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a GPU has, and what a worker takes of it, in bytes."""

    total: float
    """Of the GPU."""
    free: float
    """Before the worker began."""
    worker: float
    """Of a worker at its most; infinite where not even one fits."""

    def in_words(self) -> str:
        """What was measured, in half a sentence."""
        if self.worker == float("inf"):
            return "the largest network of the study runs out of memory by itself"
        taken, total = (f"{size / 2**30:.1f}" for size in (self.worker, self.total))
        return f"the largest network of the study takes {taken} of {total} GiB"


def fitting(footprint: Footprint, *, cores: int) -> int:
    """Workers that share a GPU and as many cores: one at least, which can halve its batches."""
    room = footprint.free - SPARED * footprint.total
    return max(1, min(cores, int(room / footprint.worker)))


def measure(config: StudyConfig) -> Footprint:
    """Try the largest network of a study out on this machine's first GPU.

    The speech has to be prepared. It is tried in another process, since what CUDA takes of a GPU
    stays taken for as long as a process lives.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        try:
            return other.submit(_measured_here, config).result()
        except BrokenProcessPool:  # the system killed it
            free, total = torch.cuda.mem_get_info()
            return Footprint(total=total, free=free, worker=float("inf"))


def _measured_here(config: StudyConfig) -> Footprint:
    device = torch.device("cuda")
    prepare_device(device, config)
    dataset = open_dataset(config)
    free, total = torch.cuda.mem_get_info(device)
    try:
        try_out(*largest(config, dataset), dataset, device)
        taken = free - torch.cuda.mem_get_info(device)[0] + CONTEXT
    except (RuntimeError, MemoryError) as error:
        if shortage(error) is None:
            raise
        taken = float("inf")
    return Footprint(total=total, free=free + CONTEXT, worker=taken)


def try_out(
    network: NetworkConfig, training: TrainingConfig, dataset: Dataset, device: torch.device
) -> None:
    """Make a step as a trial does, on a full batch of the longest utterances."""
    mels, vocabulary = dataset.normalisation[0].numel(), dataset.tokenizer.vocabulary
    recogniser = Recogniser(network, mels=mels, vocabulary=vocabulary).to(device)
    optimiser = Optimiser(recogniser, training)
    batches = Batches(dataset.splits["train"], training.batch_seconds)
    feed = Feed(batches, device)
    arrangement = Arrangement(recogniser, optimiser, training, batches, feed, device)
    stepper = arrangement.stepper(arrangement.choice(1).execution, 1)
    longest = batches.buckets[-1]
    for batch in feed([longest.members[-longest.size :].tolist()], fixed=True):
        stepper.step(batch, 0)
    stepper.losses()


def largest(config: StudyConfig, dataset: Dataset) -> tuple[NetworkConfig, TrainingConfig]:
    """The network that takes most, and its training: at the ends of all ranges, or an anchor."""
    anchors = (config.with_parameters(anchor.shape) for anchor in config.anchor_shapes)
    return max(
        (config.at_end(1), *anchors), key=lambda pair: cost_on(pair[0], dataset).flops_per_second
    )
