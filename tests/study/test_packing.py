"""How many workers a GPU has room for. No GPU is needed: its memory is a few numbers here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from study.data.batches import Batch
from study.packing import Footprint, fitting, largest, try_out
from study.training.step import Stepper
from study.worker import open_dataset
from tests.study.small_study import small_config

GIB = 2.0**30


@pytest.mark.parametrize(
    ("free", "worker", "cores", "workers"),
    [
        (78, 20, 16, 3),  # a tenth of the whole is spared: (78 - 8) / 20
        (78, 70, 16, 1),
        (78, 70.1, 16, 1),  # too much, and one there must be
        (78, math.inf, 16, 1),
        (4, 1, 16, 1),  # others have the GPU
        (78, 0.9, 16, 16),
    ],
)
def test_as_many_workers_as_fit(free: float, worker: float, cores: int, workers: int) -> None:
    footprint = Footprint(total=80 * GIB, free=free * GIB, worker=worker * GIB)
    assert fitting(footprint, cores=cores) == workers


def test_what_is_said_where_not_even_one_fits() -> None:
    said = Footprint(total=80 * GIB, free=78 * GIB, worker=math.inf).in_words()
    assert said == "the largest network of the study runs out of memory by itself"


def test_what_is_tried_out_is_the_largest_network_on_the_longest_speech(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path)
    dataset = open_dataset(config)
    network, training = largest(config, dataset)
    assert (network.encoder_layers, network.encoder_dim, network.attention_heads) == (2, 16, 2)
    assert (network.conv_kernel_size, network.decoder_layers, network.decoder_dim) == (7, 2, 16)

    steps: list[Batch] = []
    step = Stepper.step

    def noted(stepper: Stepper, batch: Batch, number: int) -> None:
        steps.append(batch)
        step(stepper, batch, number)

    monkeypatch.setattr(Stepper, "step", noted)
    try_out(network, training, dataset, torch.device("cpu"))
    (batch,) = steps
    assert batch.features.shape[1] == max(dataset.splits["train"].lengths)


def test_an_anchor_may_be_the_largest_network(tmp_path: Path) -> None:
    wide = "{name: wide, encoder_dim: 64, attention_heads: 4}"
    config = small_config(tmp_path, f"anchors=[{wide}]")
    network, _ = largest(config, open_dataset(config))
    assert (network.encoder_dim, network.attention_heads) == (64, 4)
