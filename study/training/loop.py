"""One trial's training: a generator that yields at each evaluation.

    for evaluation in train(network, training, dataset, seed=1, device=device, folder=folder, ...):
        print(evaluation.wer)

Whoever drives it decides what to do with an evaluation: report it, prune the trial, or log it. So
this file knows neither Optuna nor MLflow. After each evaluation the folder holds

    checkpoint.pt       from which the same call goes on, bit for bit on the same machine (on a GPU
                        with `training.deterministic`); written when it is interrupted, too
    checkpoint.previous.pt      the one before, should that one be damaged
    best.pt             the weights of the evaluation that decides (`study.training.result`)
    hypotheses.jsonl    what those weights recognise on dev
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from model.config import NetworkConfig
from model.counting import Cost, cost
from model.recogniser import Recogniser
from study import weights
from study.data.batches import Batches
from study.data.dataset import Dataset
from study.data.resident import Feed
from study.training import checkpoint
from study.training.arrangement import Arrangement
from study.training.compute import plainly
from study.training.config import TrainingConfig
from study.training.determinism import deterministic
from study.training.evaluation import Recognition, recognise, write_hypotheses
from study.training.memory import NetworkTooLarge, release, shortage
from study.training.optimiser import Optimiser
from study.training.result import Evaluation, deciding
from study.training.step import Stepper

READ_EVERY = 50
"""Steps after which a GPU is asked for its losses, so that a diverged trial ends soon."""
EVALUATION_BATCH = 4
"""Seconds of audio in an evaluation batch, in units of a training batch: there are no gradients."""
EVALUATION_SECONDS = 300.0
"""And at least so many: greedy decoding takes as long for one utterance as for a hundred."""


class Interrupted(Exception):
    """Somebody asked the training to stop; it goes on from where it was."""


def train(
    network: NetworkConfig,
    training: TrainingConfig,
    dataset: Dataset,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    identity: str = "",
    interrupted: Callable[[], bool] = lambda: False,
    remark: Callable[[str], None] = checkpoint.log.warning,
    chosen: Callable[[dict[str, object]], None] = lambda facts: None,
    alone: Callable[[], bool] = lambda: False,
) -> Iterator[Evaluation]:
    """Train a network and yield its evaluations, those of an interrupted run before it included.

    `identity` names all that the result depends on: a checkpoint with another one is ignored.
    `remark` takes what people should know of how the trial went on, `chosen` by name what was
    decided before the first step: `execution`, `execution_reason` and `micro_batches`.

    Where the device runs out of memory, batches are computed in twice as many parts from the last
    checkpoint on. Where one utterance at a time is too much, or the network itself, `alone` is to
    wait until nobody else has memory of the device, and it is tried again; it returns whether there
    was anybody. Raises `NetworkTooLarge`, or what torch does (`shortage` knows it), where that does
    not help, `Diverged`, and `Interrupted` once `interrupted()` is true.
    """
    micro_batches, shown = 1, 0

    def choice_made(facts: dict[str, object]) -> None:
        nonlocal micro_batches
        micro_batches = cast(int, facts["micro_batches"])  # of its checkpoint, perhaps
        chosen(facts)

    while True:
        release(device)  # of what was before, since other workers may share the GPU
        try:
            attempt = _attempt(
                network, training, dataset, seed=seed, device=device, folder=folder,
                identity=identity, interrupted=interrupted, remark=remark, chosen=choice_made,
                micro_batches=micro_batches,
            )  # fmt: skip
            while (evaluation := _next(attempt, training)) is not None:
                if evaluation.evaluation > shown:
                    shown = evaluation.evaluation
                    yield evaluation
            return
        except (RuntimeError, MemoryError) as error:
            needed = shortage(error)
            if needed is None:
                raise
            batches = Batches(dataset.splits["train"], training.batch_seconds)
            largest = max(bucket.size for bucket in batches.buckets)
            smallest = isinstance(error, NetworkTooLarge) or micro_batches >= largest
            if smallest:
                traceback.clear_frames(error.__traceback__)  # which hold tensors, while it waits
                release(device)
                if not alone():
                    raise
        # Outside of the handler, whose traceback holds the tensors of the attempt.
        micro_batches = 1 if smallest else 2 * micro_batches
        parts = f"batches are computed in {micro_batches} parts"
        remark(f"out of memory ({needed}): {'it is tried by itself' if smallest else parts}")


def _next(attempt: Iterator[Evaluation], training: TrainingConfig) -> Evaluation | None:
    """Train until the next evaluation; None at the end."""
    with deterministic(training.deterministic):  # and what is done with it meanwhile is not
        return next(attempt, None)


def _attempt(
    network: NetworkConfig,
    training: TrainingConfig,
    dataset: Dataset,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    identity: str,
    interrupted: Callable[[], bool],
    remark: Callable[[str], None],
    chosen: Callable[[dict[str, object]], None],
    micro_batches: int,
) -> Iterator[Evaluation]:
    """`train` with batches in so many parts, or in as many as its checkpoint says."""
    torch.manual_seed(seed)
    recogniser, optimiser = _made(network, training, dataset, device)
    file = folder / "checkpoint.pt"
    progress = checkpoint.restore(file, identity, recogniser, optimiser, remark)
    for finished in progress.evaluations:
        yield Evaluation(**finished)
    if len(progress.evaluations) == training.evaluations:
        return

    batches = Batches(dataset.splits["train"], training.batch_seconds)
    dev = dataset.splits["dev"]
    early, whole = (
        Batches(split, evaluation_seconds(training))
        for split in (dev.sample(training.dev_share), dev)
    )
    steps = total_steps(network, training, dataset, batches)
    if micro_batches > progress.micro_batches:
        progress.micro_batches, progress.execution = micro_batches, None
    feed = Feed(batches, device)
    arrangement = Arrangement(
        recogniser, optimiser, training, batches, feed, device, progress.micro_batches
    )
    stepper = _stepper(arrangement, progress, steps, chosen)
    fixed = progress.execution != "eager"

    def stop_if_asked() -> None:
        if interrupted():
            progress.losses += stepper.losses()
            checkpoint.save(file, identity, progress, recogniser, optimiser)
            raise Interrupted

    for number in range(len(progress.evaluations) + 1, training.evaluations + 1):
        end = round(steps * number / training.evaluations)
        started, before = time.perf_counter(), progress.train_seconds
        for batch in feed(_stream(batches, seed, progress.step, end), fixed=fixed):
            stop_if_asked()
            stepper.step(batch, progress.step)
            progress.step += 1
            progress.train_seconds = before + time.perf_counter() - started
            if device.type == "cpu" or progress.step % READ_EVERY == 0:
                progress.losses += stepper.losses()
        progress.losses += stepper.losses()
        progress.train_seconds = before + time.perf_counter() - started

        started = time.perf_counter()
        heard = whole if number == training.evaluations else early
        with plainly():
            recognition = recognise(
                recogniser, heard, dataset.tokenizer, device, before=stop_if_asked
            )
        evaluation = _evaluation(
            number,
            progress,
            recognition,
            epoch=progress.step / len(batches),
            learning_rate=stepper.learning_rate(progress.step - 1),
            seconds=time.perf_counter() - started,
        )
        progress.evaluations.append(asdict(evaluation))
        progress.losses.clear()
        if deciding(progress.evaluations) is progress.evaluations[-1]:
            write_hypotheses(folder / "hypotheses.jsonl", recognition.hypotheses)
            weights.write(folder / "best.pt", recogniser.state_dict())
        checkpoint.save(file, identity, progress, recogniser, optimiser)
        yield evaluation


def _stepper(
    arrangement: Arrangement,
    progress: checkpoint.Progress,
    steps: int,
    chosen: Callable[[dict[str, object]], None],
) -> Stepper:
    """What takes the steps of a trial, in the way in which it began, or in one chosen now."""
    facts: dict[str, object] = {"micro_batches": progress.micro_batches}
    if progress.execution is None:
        choice = arrangement.choice(steps - progress.step)
        progress.execution = choice.execution
        facts["execution_reason"] = choice.reason
    chosen({**facts, "execution": progress.execution})
    return arrangement.stepper(progress.execution, steps)


def _evaluation(
    number: int,
    progress: checkpoint.Progress,
    recognition: Recognition,
    *,
    epoch: float,
    learning_rate: float,
    seconds: float,
) -> Evaluation:
    """What was recognised, and where the training stands."""
    ctc = recognition.ctc_word_errors
    return Evaluation(
        evaluation=number,
        step=progress.step,
        epoch=epoch,
        train_loss=sum(progress.losses) / len(progress.losses),
        dev_loss=recognition.loss,
        wer=recognition.word_errors.rate,
        ctc_wer=None if ctc is None else ctc.rate,
        cer=recognition.character_errors.rate,
        learning_rate=learning_rate,
        real_time_factor=recognition.real_time_factor,
        train_seconds=progress.train_seconds,
        evaluate_seconds=seconds,
        utterances=len(recognition.hypotheses),
    )


def _made(
    network: NetworkConfig, training: TrainingConfig, dataset: Dataset, device: torch.device
) -> tuple[Recogniser, Optimiser]:
    """A network with fresh weights on a device, and its optimiser, or `NetworkTooLarge`."""
    mels = dataset.normalisation[0].numel()
    try:
        recogniser = Recogniser(network, mels=mels, vocabulary=dataset.tokenizer.vocabulary)
        recogniser.set_normalisation(*dataset.normalisation)
        recogniser.to(device)
        return recogniser, Optimiser(recogniser, training)
    except (RuntimeError, MemoryError) as error:
        needed = shortage(error)
        if needed is None:
            raise
    raise NetworkTooLarge(f"the network itself does not fit into memory: {needed}")


def evaluation_seconds(training: TrainingConfig) -> float:
    """Seconds of audio in a batch that is recognised."""
    return max(EVALUATION_BATCH * training.batch_seconds, EVALUATION_SECONDS)


def total_steps(
    network: NetworkConfig, training: TrainingConfig, dataset: Dataset, batches: Batches
) -> int:
    """The updates that the budget pays for, and one for each evaluation at least."""
    budget = training.budget
    if budget.steps is not None:
        steps = float(budget.steps)
    elif budget.epochs is not None:
        steps = budget.epochs * len(batches)
    else:
        assert budget.flops is not None
        seconds = sum(batches.split.lengths) * batches.split.hop
        forward = cost_on(network, dataset).flops_per_second * seconds / len(batches)
        steps = budget.flops / (3 * forward)
    return max(training.evaluations, round(steps))


def cost_on(network: NetworkConfig, dataset: Dataset) -> Cost:
    """What a network costs on the speech of a corpus: its features, tokens and speaking rate."""
    split = dataset.splits["train"]
    return cost(
        network,
        mels=dataset.normalisation[0].numel(),
        vocabulary=dataset.tokenizer.vocabulary,
        frames_per_second=1 / split.hop,
        tokens_per_second=sum(map(len, split.tokens)) / (sum(split.lengths) * split.hop),
    )


def _stream(batches: Batches, seed: int, start: int, end: int) -> Iterator[list[int]]:
    """The members of the batches from step `start` up to `end`, over as many epochs as it takes."""
    step = start
    while step < end:
        epoch, offset = divmod(step, len(batches))
        for members in batches.shuffled(seed, epoch)[offset : offset + end - step]:
            yield members
            step += 1
