"""`check`: the steps that it times are made as in a trial, and a lack of memory is said.

No GPU is needed: it is the forward pass that runs out of memory here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from model.recogniser import Losses, Recogniser
from study.check import check, step_time
from study.data.batches import Batch, Batches
from study.errors import InputError
from study.init import init
from study.worker import open_dataset
from tests.speech import write_corpus
from tests.study.small_study import small_config, train

CPU = torch.device("cpu")
Forward = Callable[..., Losses]


def _checked(folder: Path) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    check(small_config(folder, "device=cpu"), console)
    return console.export_text()


def _written(folder: Path) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    texts = {"train": ["red", "blue"] * 50, "dev": ["red"], "test": ["blue"]}
    corpus = write_corpus(folder / "corpus", texts=texts, seconds=0.5)  # five to a batch
    init(corpus, folder / "mine.yaml", "cpu", console)
    return console.export_text()


def _short_of_memory(
    monkeypatch: pytest.MonkeyPatch, fits: Callable[[Recogniser, int], bool]
) -> None:
    """Networks and utterances at once that do not fit run out of memory as on a GPU."""
    forward = Recogniser.forward

    def tried(recogniser: Recogniser, features: torch.Tensor, *rest: Any, **named: Any) -> Losses:
        if not fits(recogniser, len(features)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(recogniser, features, *rest, **named)

    monkeypatch.setattr(Recogniser, "forward", tried)


def _a_batch(folder: Path) -> Batch:
    batches = Batches(open_dataset(small_config(folder)).splits["train"], 1000)
    return batches.gather(batches.in_order()[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_is_timed_in_the_precision_of_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    low: list[bool] = []

    def noted(*_: object) -> bool:
        low.append(torch.is_autocast_enabled("cpu"))
        return True

    _short_of_memory(monkeypatch, noted)
    config = small_config(tmp_path, f"training.precision={precision}")
    step_time(*config.at_end(1), _a_batch(tmp_path), 20, CPU)
    assert set(low) == {precision == "bfloat16"}


def test_what_does_not_fit_is_timed_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, sizes = _a_batch(tmp_path), []

    def noted(_: Recogniser, size: int) -> bool:
        sizes.append(size)
        return size < 3

    _short_of_memory(monkeypatch, noted)
    found = step_time(*small_config(tmp_path).at_end(1), batch, 20, CPU)
    assert sizes == [4, 2, 2, 2, 2]  # the first of two steps sets things up
    assert found.parts == 2
    assert found.seconds is not None


def test_an_error_of_another_kind_is_not_taken_for_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise RuntimeError("shapes do not match")

    threads = torch.get_num_threads()
    _short_of_memory(monkeypatch, refuse)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        step_time(*small_config(tmp_path).at_end(1), _a_batch(tmp_path), 20, CPU)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("told", [_checked, _written])
def test_batches_that_do_not_fit_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[Path], str]
) -> None:
    assert "memory" not in told(tmp_path / "before")
    _short_of_memory(monkeypatch, lambda _, size: size < 4)
    output = told(tmp_path / "after")
    assert "a batch does not fit into memory: trials will compute it in 2 parts" in output
    assert "about" in output  # how long it all takes


@pytest.mark.parametrize("told", [_checked, _written])
def test_a_network_that_does_not_fit_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[Path], str]
) -> None:
    _short_of_memory(monkeypatch, lambda recogniser, _: recogniser.config.encoder_layers == 1)
    output = told(tmp_path)
    assert "does not fit into memory: trials of such networks end as out of memory" in output
    assert "about" not in output


def test_what_run_would_refuse_of_a_study_that_has_begun_is_refused(tmp_path: Path) -> None:
    train(small_config(tmp_path))
    console = Console(width=80, file=io.StringIO())
    with pytest.raises(InputError, match="seed was 0 and is now 7"):
        check(small_config(tmp_path, "seed=7"), console)
    check(small_config(tmp_path), console)
