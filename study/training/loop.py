"""One trial's training: a generator that yields at each evaluation.

    for evaluation in train(network, training, dataset, seed=1, device=device, folder=folder, ...):
        print(evaluation.wer)

Whoever drives it decides what to do with an evaluation: report it, prune the trial, or log it. So
this file knows neither Optuna nor MLflow. After each evaluation the folder holds

    checkpoint.pt       from which the same call goes on, bit for bit on the same machine
    best.pt             the weights of the evaluation with the lowest word error rate
    hypotheses.jsonl    what those weights recognise on dev
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from model.config import NetworkConfig
from model.counting import Cost, cost
from model.recogniser import Recogniser
from study.data.batches import Batch, Batches, spec_augment
from study.data.dataset import Dataset
from study.files import replacing
from study.training import checkpoint
from study.training.config import TrainingConfig
from study.training.evaluation import recognise, write_hypotheses
from study.training.schedule import rate_scale

EVALUATION_BATCH = 4
"""Seconds of audio in an evaluation batch, in units of a training batch: there are no gradients."""


class Diverged(Exception):
    """The loss or its gradient is no longer a finite number."""


class Interrupted(Exception):
    """Somebody asked the training to stop; it can go on from its last checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a trial stands after a share of its budget. Rates are fractions, losses are per token."""

    evaluation: int
    """1, 2, … `training.evaluations`."""
    step: int
    """Updates of the weights so far."""
    epoch: float
    """Passes over the training speech so far."""
    train_loss: float
    """Mean over the steps since the last evaluation."""
    dev_loss: float
    wer: float
    """Word error rate of the decoder, greedy, on all of dev."""
    ctc_wer: float | None
    """The same by CTC alone."""
    cer: float
    """Character error rate of the decoder."""
    learning_rate: float
    """Of the last step."""
    real_time_factor: float
    """Of greedy decoding."""
    train_seconds: float
    """Of training, from the start of the trial."""
    evaluate_seconds: float
    """Of this evaluation."""


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
) -> Iterator[Evaluation]:
    """Train a network and yield its evaluations, those of an interrupted run before it included.

    `identity` names all that the result depends on: a checkpoint with another one is ignored.
    Raises `Diverged`, and `Interrupted` once `interrupted()` is true.
    """
    torch.manual_seed(seed)
    mels = dataset.normalisation[0].numel()
    recogniser = Recogniser(network, mels=mels, vocabulary=dataset.tokenizer.vocabulary)
    recogniser.set_normalisation(*dataset.normalisation)
    recogniser.to(device)
    optimiser = _optimiser(recogniser, training)
    progress = checkpoint.restore(folder / "checkpoint.pt", identity, recogniser, optimiser)
    for finished in progress.evaluations:
        yield Evaluation(**finished)

    batches = Batches(dataset.splits["train"], training.batch_seconds)
    dev = Batches(dataset.splits["dev"], EVALUATION_BATCH * training.batch_seconds)
    steps = total_steps(network, training, dataset, batches)
    stepper = _Stepper(recogniser, optimiser, training, steps, device)
    best = min((e["wer"] for e in progress.evaluations), default=math.inf)
    for number in range(len(progress.evaluations) + 1, training.evaluations + 1):
        started = time.perf_counter()
        losses: list[float] = []
        end = round(steps * number / training.evaluations)
        for members in _stream(batches, seed, progress.step, end):
            if interrupted():
                raise Interrupted
            losses.append(stepper.step(batches.gather(members).to(device), progress.step))
            progress.step += 1
        progress.train_seconds += time.perf_counter() - started

        started = time.perf_counter()
        recognition = recognise(recogniser, dev, dataset.tokenizer, device)
        ctc = recognition.ctc_word_errors
        evaluation = Evaluation(
            evaluation=number,
            step=progress.step,
            epoch=progress.step / len(batches),
            train_loss=sum(losses) / len(losses),
            dev_loss=recognition.loss,
            wer=recognition.word_errors.rate,
            ctc_wer=None if ctc is None else ctc.rate,
            cer=recognition.character_errors.rate,
            learning_rate=stepper.learning_rate,
            real_time_factor=recognition.real_time_factor,
            train_seconds=progress.train_seconds,
            evaluate_seconds=time.perf_counter() - started,
        )
        progress.evaluations.append(asdict(evaluation))
        if evaluation.wer < best:
            best = evaluation.wer
            write_hypotheses(folder / "hypotheses.jsonl", recognition.hypotheses)
            with replacing(folder / "best.pt") as file:
                torch.save(recogniser.state_dict(), file)
        checkpoint.save(folder / "checkpoint.pt", identity, progress, recogniser, optimiser)
        yield evaluation


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


class _Stepper:
    """Makes updates of the weights."""

    def __init__(
        self,
        recogniser: Recogniser,
        optimiser: torch.optim.Optimizer,
        training: TrainingConfig,
        steps: int,
        device: torch.device,
    ) -> None:
        self._recogniser, self._optimiser = recogniser, optimiser
        self._training, self._steps, self._device = training, steps, device
        low = training.precision == "bfloat16" or (
            training.precision == "auto" and device.type == "cuda"
        )
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=low)
        self.learning_rate = 0.0

    def step(self, batch: Batch, step: int) -> float:
        """Make update number `step` on a batch, and return its loss per token."""
        training = self._training
        scale = rate_scale(step, self._steps, warmup=training.warmup, decay=training.decay)
        self.learning_rate = training.learning_rate * scale
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate * group["scale"]
        features = spec_augment(batch.features, training.augmentation)
        with self._autocast:
            losses = self._recogniser(
                features, batch.lengths, batch.tokens, batch.token_lengths, ragged=batch.ragged
            )
        self._optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self._recogniser.parameters(), training.gradient_clip)
        loss = losses.total.item()
        if not (math.isfinite(loss) and math.isfinite(norm.item())):
            raise Diverged(f"loss {loss}, gradient norm {norm.item()} at step {step + 1}")
        self._optimiser.step()
        return loss * len(batch.members) / int(batch.token_lengths.sum())


def _optimiser(recogniser: Recogniser, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone and a learning rate of its own for the decoder."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in recogniser.named_parameters():
        scale = training.decoder_learning_rate_scale if name.startswith("decoder.") else 1.0
        decay = training.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "scale": scale, "weight_decay": decay}
            for (scale, decay), parameters in groups.items()
        ],
        lr=training.learning_rate,
        fused=True,
    )


def _stream(batches: Batches, seed: int, start: int, end: int) -> Iterator[list[int]]:
    """The members of the batches from step `start` up to `end`, over as many epochs as it takes."""
    step = start
    while step < end:
        epoch, offset = divmod(step, len(batches))
        for members in batches.shuffled(seed, epoch)[offset : offset + end - step]:
            yield members
            step += 1
