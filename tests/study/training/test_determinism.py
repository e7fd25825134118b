"""`training.deterministic`: what of it a machine without a GPU can show."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.backends import cudnn

from model.ctc import CTC
from study.config_file import load
from study.data.dataset import Dataset
from study.training.config import TrainingConfig
from study.training.determinism import deterministic
from study.training.loop import train
from study.training.step import Stepper
from study.worker import prepare_device
from tests.speech import open_corpus, write_corpus
from tests.study.small_study import TINY
from tests.study.training.test_loop import NETWORK, TRAINING, _timeless

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def _flags() -> tuple[bool, bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )


@pytest.mark.parametrize("decoder", ["attention", "transducer"])
def test_it_holds_in_training_and_not_between_and_changes_nothing_on_a_cpu(
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoder: Literal["attention", "transducer"],
) -> None:
    step = Stepper.step
    within: list[tuple[bool, ...]] = []

    def watched(self: Stepper, batch: Any, number: int) -> None:
        within.append(_flags())
        step(self, batch, number)

    monkeypatch.setattr(Stepper, "step", watched)
    before = _flags()
    found: list[Any] = []
    chosen: dict[str, object] = {}
    for wanted in (False, True):
        training: TrainingConfig = replace(TRAINING, deterministic=wanted)
        network = replace(NETWORK, decoder=decoder, joint_dim=8)
        evaluations = []
        for evaluation in train(
            network, training, dataset, seed=1, device=CPU, folder=tmp_path / f"{wanted}",
            chosen=chosen.update,
        ):  # fmt: skip
            assert _flags() == before
            evaluations.append(evaluation)
        found.append(_timeless(evaluations))
    half = len(within) // 2
    assert set(within[:half]) == {before}
    assert set(within[half:]) == {(True, False, True, False)}
    assert found[0] == found[1]
    assert chosen["execution"] == "eager"
    assert "training.deterministic" in str(chosen["execution_reason"])


def test_what_was_set_before_is_set_after_an_error() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = _flags()
        with pytest.raises(KeyError), deterministic(True):
            assert _flags() == (True, False, True, False)
            raise KeyError
        assert _flags() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_within_it_an_operation_without_a_deterministic_kernel_is_refused() -> None:
    with deterministic(True), pytest.raises(RuntimeError, match="deterministic"):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))  # whose order is open


def test_a_worker_on_a_gpu_sets_the_workspace_before_cuda_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", lambda wanted: None)
    for wanted, expected in (("false", None), ("true", ":4096:8")):
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        config = load(TINY, [f"runs={tmp_path}", f"training.deterministic={wanted}"])
        prepare_device(torch.device("cuda"), config)
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == expected
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the other one that is deterministic
    prepare_device(torch.device("cuda"), config)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_the_loss_of_ctc_has_the_same_gradient() -> None:
    torch.manual_seed(0)
    ctc = CTC(8, 5)
    memory, tokens = torch.randn(2, 9, 8), torch.tensor([[1, 2, 2], [3, 4, -1]])
    lengths, token_lengths = torch.tensor([9, 6]), torch.tensor([3, 2])
    found = []
    for wanted in (False, True):
        ctc.zero_grad()
        with deterministic(wanted):
            ctc.loss(memory, lengths, tokens, token_lengths).backward()
        assert ctc.output.weight.grad is not None
        found.append(ctc.output.weight.grad.clone())
    assert torch.equal(*found)
