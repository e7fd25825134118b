"""Every way to compute a step gives the losses and gradients of ESPnet.

Skipped where ESPnet is not installed, as `tests/model/test_espnet.py` is, which compares more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from model.recogniser import Recogniser
from study.data.batches import Batch
from study.training.compute import Compiled, Compute, Graphs, Plain, call_again
from study.training.config import TrainingConfig
from study.training.optimiser import Optimiser
from study.training.step import autocast
from tests.model.beside_espnet import (
    LENGTHS,
    SHAPES,
    TOKEN_LENGTHS,
    TOKENS,
    assert_same_gradients,
    espnet_losses,
    espnet_model,
    exported,
    features_of,
    recogniser_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*autocast.*:FutureWarning")  # ESPnet's

AUTOCAST = autocast(TrainingConfig(), torch.device("cpu"))
FRAMES = 80
"""To which batches are padded, more than their longest utterance has."""


def _plain(recogniser: Recogniser) -> Compute:
    return Plain(recogniser, AUTOCAST)


def _compiled(recogniser: Recogniser) -> Compute:
    return Compiled(recogniser, AUTOCAST, {(3, 64), (3, FRAMES)}, backend="eager")


def _graphs(recogniser: Recogniser) -> Compute:
    gradients = Optimiser(recogniser, TrainingConfig()).gradients
    return Graphs(recogniser, AUTOCAST, {(3, 64), (3, FRAMES)}, gradients, record=call_again)


WAYS = {"plain": _plain, "compiled": _compiled, "graphs": _graphs}


def _batch(features: Tensor, lengths: Tensor) -> Batch:
    return Batch(
        features=features,
        lengths=lengths,
        tokens=TOKENS,
        token_lengths=TOKEN_LENGTHS,
        host_lengths=lengths,
        host_token_lengths=TOKEN_LENGTHS,
        members=[0, 1, 2],
    )


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Recogniser], Compute]:
    """One of the ways to compute."""
    return WAYS[request.param]


@pytest.mark.parametrize("shape", ["small", "deep", "decoder alone", "absolute", "legacy"])
def test_equal_lengths(
    espnet: SimpleNamespace, tmp_path: Path, way: Callable[[Recogniser], Compute], shape: str
) -> None:
    recogniser = recogniser_of(**SHAPES[shape]).train()
    model = espnet_model(espnet, exported(recogniser), tmp_path).train()
    features, lengths = features_of(64), torch.full((3,), 64)
    loss = way(recogniser)(features, _batch(features, lengths), 1.0)
    expected = espnet_losses(model, features, lengths, slice(None))["total"]
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=0)
    expected.backward()
    assert_same_gradients(recogniser, model)


@pytest.mark.parametrize("shape", ["small", "decoder alone", "absolute"])
def test_whatever_the_padding(
    espnet: SimpleNamespace, tmp_path: Path, way: Callable[[Recogniser], Compute], shape: str
) -> None:
    """ESPnet gets the utterances one at a time, since its batches may depend on their padding."""
    recogniser = recogniser_of(**SHAPES[shape]).eval()
    model = espnet_model(espnet, exported(recogniser), tmp_path).eval()
    features = features_of(FRAMES)
    loss = way(recogniser)(features, _batch(features, LENGTHS), 1.0)
    expected = torch.zeros(())
    for row in range(len(LENGTHS)):
        alone = espnet_losses(model, features, LENGTHS, slice(row, row + 1))["total"] / len(LENGTHS)
        alone.backward()
        expected += alone.detach()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert_same_gradients(recogniser, model)
