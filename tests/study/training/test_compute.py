"""Every way to compute a step gives the same, and none waits for the device."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from model.convolution import MaskedBatchNorm
from model.recogniser import Recogniser
from study.data import resident
from study.data.batches import Batch, Batches
from study.data.config import AugmentationConfig
from study.data.dataset import Dataset
from study.data.resident import Feed, Resident
from study.errors import InputError
from study.training import arrangement
from study.training import compute as compute_module
from study.training.arrangement import Arrangement
from study.training.compute import Compiled, Compute, Graphs, Plain, call_again
from study.training.config import Budget
from study.training.execution import Expected, choose, graphs_obstacle
from study.training.loop import Interrupted, train
from study.training.optimiser import Optimiser
from study.training.result import Evaluation
from study.training.step import Stepper, autocast
from tests.speech import open_corpus, write_corpus, write_tone
from tests.study.training.test_loop import NETWORK, TRAINING

CPU = torch.device("cpu")
STILL = replace(NETWORK, encoder_layers=3, dropout=0.0, attention_dropout=0.0,
                positional_dropout=0.0)  # fmt: skip
SECONDS = 3.5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("corpus")
    texts = {"train": ["red on", "blue off", "green", "red off", "on", "off"] * 2,
             "dev": ["blue on", "green light"], "test": ["red"]}  # fmt: skip
    write_corpus(folder, texts=texts)
    for number in range(12):
        write_tone(folder / "audio" / f"train-{number}.wav", 0.9 + 0.05 * number)
    return open_corpus(folder)


@pytest.fixture(scope="module")
def batches(dataset: Dataset) -> Batches:
    return Batches(dataset.splits["train"], SECONDS)


def _network(dataset: Dataset, **changes: Any) -> tuple[Recogniser, Optimiser]:
    torch.manual_seed(0)
    network = replace(STILL, **changes)
    recogniser = Recogniser(network, mels=20, vocabulary=dataset.tokenizer.vocabulary)
    return recogniser, Optimiser(recogniser, TRAINING)


def _shapes(batches: Batches) -> set[tuple[int, int]]:
    return {(bucket.size, bucket.frames) for bucket in batches.buckets}


def _graphs(recogniser: Recogniser, optimiser: Optimiser, batches: Batches) -> Compute:
    cast = autocast(TRAINING, CPU)
    return Graphs(recogniser, cast, _shapes(batches), optimiser.gradients, record=call_again)


def _compiled(recogniser: Recogniser, optimiser: Optimiser, batches: Batches) -> Compute:
    torch._dynamo.reset()
    return Compiled(recogniser, autocast(TRAINING, CPU), _shapes(batches), backend="eager")


@pytest.mark.parametrize(("fast", "ctc_weight"), [(_graphs, 0.3), (_graphs, 0.0), (_compiled, 0.3)])
def test_the_ways_to_compute_give_the_same(
    dataset: Dataset,
    batches: Batches,
    fast: Callable[[Recogniser, Optimiser, Batches], Compute],
    ctc_weight: float,
) -> None:
    recogniser, optimiser = _network(dataset, ctc_weight=ctc_weight)
    other, others = _network(dataset, ctc_weight=ctc_weight)
    plain = Stepper(recogniser, optimiser, TRAINING, 20, CPU)
    quick = Stepper(other, others, TRAINING, 20, CPU, fast(other, others, batches))
    still = replace(TRAINING.augmentation, frequency_masks=0, time_masks=0)
    for stepper in (plain, quick):
        stepper._training = replace(TRAINING, augmentation=still)
    plan = [members for epoch in range(2) for members in batches.shuffled(0, epoch)]
    assert any(batches.shape(members) for members in plan)
    for number, batch in enumerate(Feed(batches, CPU)(plan)):
        plain.step(batch, number)
    for number, batch in enumerate(Feed(batches, CPU)(plan, fixed=True)):
        quick.step(batch, number)
    torch.testing.assert_close(quick.losses(), plain.losses(), rtol=1e-4, atol=1e-4)
    # Weights are not compared: the gradient of a bias before BatchNorm is noise, which Adam scales.
    found, expected = (dict(network.named_buffers()) for network in (other, recogniser))
    for name in ("running_mean", "running_var"):
        key = f"encoder.blocks.2.convolution.norm.{name}"
        torch.testing.assert_close(found[key], expected[key], rtol=1e-2, atol=1e-2)


def test_one_graph_serves_all_layers(dataset: Dataset, batches: Batches) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    recogniser, optimiser = _network(dataset, dropout=0.1, attention_dropout=0.1)
    compute = Compiled(recogniser, autocast(TRAINING, CPU), _shapes(batches), backend=counter)
    stepper = Stepper(recogniser, optimiser, TRAINING, 20, CPU, compute)
    plan = [members for epoch in range(2) for members in batches.shuffled(0, epoch)]
    for number, batch in enumerate(Feed(batches, CPU)(plan, fixed=True)):
        stepper.step(batch, number)
    full = {batches.shape(members) for members in plan} - {None}
    assert counter.frame_count == len({shape[0] for shape in full if shape})


def test_a_process_may_compile_as_many_trials_as_it_likes(
    dataset: Dataset, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dynamo counts for all networks together, and refuses once there are too many."""
    torch._dynamo.reset()
    monkeypatch.setattr(compute_module, "RECOMPILATIONS", len(batches.buckets))
    plan = [bucket.members[: bucket.size].tolist() for bucket in batches.buckets]
    for width in (8, 12, 16):
        recogniser, _ = _network(dataset, encoder_dim=width, attention_heads=1)
        compute = Compiled(recogniser, autocast(TRAINING, CPU), _shapes(batches), backend="eager")
        for batch in Feed(batches, CPU)(plan, fixed=True):
            compute(batch.features, batch, 1.0)


def test_what_is_recorded_keeps_no_history(dataset: Dataset, batches: Batches) -> None:
    """Its nodes would keep the stream on which libraries warmed up."""
    recogniser, optimiser = _network(dataset)
    compute = _graphs(recogniser, optimiser, batches)
    assert isinstance(compute, Graphs)
    bucket = batches.buckets[0]
    batch = next(Feed(batches, CPU)([bucket.members[: bucket.size].tolist()], fixed=True))
    compute(batch.features, batch, 1.0)
    (part,) = compute._recorded.values()
    assert part.loss is not None and part.scores is not None
    assert part.loss.grad_fn is None and part.scores.grad_fn is None


def test_ways_that_were_only_tried_out_are_let_go(
    dataset: Dataset, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs would hold the memory of a step for the whole trial."""
    recogniser, optimiser = _network(dataset)
    training = replace(TRAINING, execution="auto")
    made = Arrangement(recogniser, optimiser, training, batches, Feed(batches, CPU), CPU)
    monkeypatch.setattr(arrangement, "graphs_obstacle", lambda *_: None)
    monkeypatch.setattr(arrangement, "Graphs", functools.partial(Graphs, record=call_again))

    def try_out(execution: str) -> float:
        made.compute(execution)
        return {"eager": 1.0, "graphs": 2.0}[execution]

    monkeypatch.setattr(made, "_try_out", try_out)
    assert made.choice(1).execution == "eager"
    assert list(made._computes) == ["eager"]


def test_recording_leaves_no_trace(dataset: Dataset, batches: Batches) -> None:
    recogniser, optimiser = _network(dataset, dropout=0.1)
    bucket = batches.buckets[0]
    batch = next(Feed(batches, CPU)([bucket.members[: bucket.size].tolist()], fixed=True))

    def often(functions: list[Callable[[], None]]) -> list[Callable[[], None]]:
        for _ in range(3):
            for function in functions:
                function()
        return functions

    compute = Graphs(
        recogniser, autocast(TRAINING, CPU), _shapes(batches), optimiser.gradients, record=often
    )
    torch.manual_seed(3)
    found = compute(batch.features, batch, 1.0), [g.clone() for g in optimiser.gradients]
    other, others = _network(dataset, dropout=0.1)
    torch.manual_seed(3)
    expected = Plain(other, autocast(TRAINING, CPU))(batch.features, batch, 1.0)
    torch.testing.assert_close(found, (expected, others.gradients))
    torch.testing.assert_close(list(recogniser.buffers()), list(other.buffers()))


def test_parts_of_a_batch_add_up_to_it(dataset: Dataset, batches: Batches) -> None:
    bucket = batches.buckets[0]
    batch = batches.gather(bucket.members[: bucket.size].tolist())
    assert len(batch.members) > 2
    found = []
    for parts in (1, 2, len(batch.members)):
        recogniser, optimiser = _network(dataset)
        for module in recogniser.modules():
            if isinstance(module, MaskedBatchNorm):
                module.eval()  # else its statistics are of the parts
        still = replace(TRAINING, augmentation=replace(TRAINING.augmentation, frequency_masks=0,
                                                       time_masks=0))  # fmt: skip
        stepper = Stepper(recogniser, optimiser, still, 20, CPU, micro_batches=parts)
        found.append((stepper.gradients(batch), optimiser.gradients))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)


class _Forbidden(TorchDispatchMode):
    """Fails where a value is read from the device, or a shape depends on one."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in self.names), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_never_waits_for_the_device(
    dataset: Dataset, batches: Batches, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser, optimiser = _network(dataset, dropout=0.1)
    stepper = Stepper(recogniser, optimiser, TRAINING, 20, CPU, micro_batches=parts)
    batch = Resident(batches, CPU).gather(batches.in_order()[0])
    stepper.step(batch, 0)
    stepper.losses()
    # These two are read from tensors on the host.
    monkeypatch.setattr(Batch, "ragged", True)
    monkeypatch.setattr(Batch, "written", 7)
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: pytest.fail("tolist reads the device"))
    with _Forbidden():  # type: ignore[no-untyped-call]
        stepper.step(batch, 1)
    with pytest.raises(AssertionError, match="waits for"), _Forbidden():  # type: ignore[no-untyped-call]
        batch.lengths.max().item()


def test_a_resident_split_gives_the_same_batches(batches: Batches) -> None:
    there = Resident(batches, CPU)
    for members in batches.shuffled(0, 0):
        shape = batches.shape(members)
        for frames, tokens in {(None, None), shape or (None, None)}:
            one = batches.gather(members, frames=frames, tokens=tokens)
            other = there.gather(members, frames=frames, tokens=tokens)
            torch.testing.assert_close(asdict(other), asdict(one))
            assert one.ragged == other.ragged


def test_speech_that_is_on_a_gpu_stays_and_other_comes_where_there_is_room(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, split = torch.device("cuda"), batches.split
    monkeypatch.setattr(resident, "_copies", {})
    room = split.store.frames.nbytes / resident.RESIDENT_SHARE
    for free in (room + 1, room - 1):  # of a larger GPU, which others use
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_, free=free: (free, 9 * room))
        assert resident._fits(split, gpu) == (free > room)
    resident._copies[id(split.store.frames), gpu] = torch.zeros(1)
    assert resident._fits(split, gpu)
    resident.forget()
    assert not resident._fits(split, gpu)


def _train(
    dataset: Dataset, folder: Path, *, execution: str = "eager", **options: Any
) -> list[Evaluation]:
    training = replace(
        TRAINING,
        batch_seconds=SECONDS,
        budget=Budget(steps=6),
        evaluations=2,
        execution=execution,  # type: ignore[arg-type]
        augmentation=AugmentationConfig(frequency_masks=0, time_masks=0),
    )
    return list(train(STILL, training, dataset, seed=1, device=CPU, folder=folder, **options))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError("Unable to allocate 9 bytes"),
    ],
    ids=["cuda", "cpu", "numpy"],
)
def test_out_of_memory_a_batch_is_computed_in_parts(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    original = Recogniser.forward

    def limited(self: Recogniser, features: Tensor, *args: Any, **options: Any) -> Any:
        if len(features) > 1:
            raise error
        return original(self, features, *args, **options)

    whole = _train(dataset, tmp_path / "whole")
    monkeypatch.setattr(Recogniser, "forward", limited)
    remarks: list[str] = []
    chosen: dict[str, object] = {}
    found = _train(dataset, tmp_path / "parts", remark=remarks.append, chosen=chosen.update)
    assert [e.step for e in found] == [e.step for e in whole]
    assert chosen["micro_batches"] == 4
    assert remarks[-1] == f"out of memory ({error}): batches are computed in 4 parts"


def test_a_trial_that_goes_on_is_computed_in_more_parts_than_before(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Recogniser.forward
    most = 2

    def limited(self: Recogniser, features: Tensor, *args: Any, **options: Any) -> Any:
        if len(features) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(self, features, *args, **options)

    monkeypatch.setattr(Recogniser, "forward", limited)
    remarks: list[str] = []
    asked = iter([False] * 3 + [True] * 9)
    with pytest.raises(Interrupted):
        _train(dataset, tmp_path, remark=remarks.append, interrupted=lambda: next(asked))
    most = 1
    _train(dataset, tmp_path, remark=remarks.append)
    parts = [re.findall(r"in (\d) parts", remark) for remark in remarks]
    assert parts == [["2"], ["4"]]


def test_where_one_utterance_is_too_much_the_trial_cannot_be_trained(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Recogniser, "forward", never)
    with pytest.raises(torch.OutOfMemoryError, match="2 GiB"):
        _train(dataset, tmp_path, remark=lambda sentence: None)


def test_what_is_too_much_beside_others_is_tried_alone_from_the_last_checkpoint(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, others, steps = Recogniser.forward, [True], [0]

    def limited(self: Recogniser, *args: Any, **options: Any) -> Any:
        steps[0] += 1
        if others[0] and steps[0] > 4:  # the first evaluation comes after three
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(self, *args, **options)

    def alone() -> bool:
        others[0] = False
        return True

    whole = _train(dataset, tmp_path / "whole")
    monkeypatch.setattr(Recogniser, "forward", limited)
    remarks: list[str] = []
    found = _train(dataset, tmp_path / "again", remark=remarks.append, alone=alone)
    assert [(e.wer, e.train_loss) for e in found] == [(e.wer, e.train_loss) for e in whole]
    assert remarks[-1].endswith("it is tried by itself")


@pytest.mark.parametrize("execution", ["compile", "graphs"])
def test_a_trial_in_a_fast_way_is_the_same_trial_and_resumes(
    execution: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(arrangement, "Compiled", functools.partial(Compiled, backend="eager"))
    monkeypatch.setattr(arrangement, "Graphs", functools.partial(Graphs, record=call_again))
    monkeypatch.setattr(arrangement, "graphs_obstacle", lambda *_: None)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    chosen: dict[str, object] = {}
    plain = _train(dataset, tmp_path / "plain")
    quick = _train(dataset, tmp_path / "quick", execution=execution, chosen=chosen.update)
    assert chosen["execution"] == execution
    assert [e.train_loss for e in quick] == pytest.approx([e.train_loss for e in plain], rel=1e-3)

    left = [4]

    def interrupted() -> bool:
        left[0] -= 1
        return left[0] < 0

    with pytest.raises(Interrupted):
        _train(dataset, tmp_path / "again", execution=execution, interrupted=interrupted)
    again = _train(dataset, tmp_path / "again", execution=execution)
    assert [e.train_loss for e in again] == [e.train_loss for e in quick]


def test_graphs_are_refused_where_they_cannot_be(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.execution: graphs .* need a CUDA device"):
        _train(dataset, tmp_path, execution="graphs")
    assert graphs_obstacle(STILL, "cuda") is None
    assert "transducer" in str(graphs_obstacle(replace(STILL, decoder="transducer"), "cuda"))
    assert "blocks" in str(graphs_obstacle(replace(STILL, stochastic_depth=0.1), "cuda"))


@pytest.mark.parametrize(
    ("steps", "plain", "graphs", "cached", "best"),
    [
        (100, 0.02, None, False, "eager"),  # two seconds: nothing pays
        (100, 0.02, 0.005, False, "eager"),
        (5_000, 0.02, 0.005, False, "graphs"),  # bound by launches
        (100_000, 0.03, 0.029, False, "compile"),  # long, and bound by memory
        (2_000, 0.2, 0.2, True, "compile"),  # shorter, but compiled before
        (1_000, 0.2, 0.2, False, "eager"),
        (100_000, 0.03, None, False, "compile"),
    ],
)
def test_the_rule_takes_what_is_fastest_for_the_trial(
    steps: int, plain: float, graphs: float | None, cached: bool, best: str
) -> None:
    choice = choose(Expected(steps=steps, plain=plain, graphs=graphs, buckets=8, cached=cached))
    assert choice.execution == best
    assert choice.reason.startswith("expected for the trial: eager ")
