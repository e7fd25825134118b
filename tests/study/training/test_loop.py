"""Training: resumes bit for bit, diverges visibly, and does what each setting says."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import NetworkConfig
from study.data.batches import Batches
from study.data.config import AugmentationConfig
from study.data.dataset import Dataset
from study.training.config import Budget, TrainingConfig
from study.training.loop import Interrupted, total_steps, train
from study.training.result import Evaluation, deciding
from study.training.schedule import rate_scale
from study.training.step import Diverged, Stepper
from tests.speech import open_corpus, write_corpus

NETWORK = NetworkConfig(
    encoder_layers=1,
    encoder_dim=8,
    attention_heads=2,
    conv_kernel_size=3,
    decoder_layers=1,
    decoder_dim=8,
    decoder_heads=2,
    subsampling_channels=2,
    dropout=0.1,
)
TRAINING = TrainingConfig(
    budget=Budget(epochs=6),
    evaluations=3,
    batch_seconds=2.5,
    augmentation=AugmentationConfig(frequency_mask_width=4),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="module")
def baseline(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Evaluation]:
    return _train(dataset, tmp_path_factory.mktemp("baseline"))


def _train(
    dataset: Dataset,
    folder: Path,
    *,
    network: NetworkConfig = NETWORK,
    training: TrainingConfig = TRAINING,
    seed: int = 1,
    identity: str = "one",
    **more: Any,
) -> list[Evaluation]:
    return list(
        train(
            network,
            training,
            dataset,
            seed=seed,
            device=torch.device("cpu"),
            folder=folder,
            identity=identity,
            **more,
        )
    )


def _timeless(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    clocks = ("train_seconds", "evaluate_seconds", "real_time_factor")
    return [{k: v for k, v in asdict(e).items() if k not in clocks} for e in evaluations]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {**state["network"], "random": state["random"]}


def _vector(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    weights: list[torch.Tensor] = []
    original = Stepper.step

    def poisoned(self: Any, batch: Any, step: int) -> None:
        steps.append(step)
        if step == 2:
            batch.features.fill_(float("nan"))
        before = _vector(self._recogniser)
        original(self, batch, step)
        weights.extend((before, _vector(self._recogniser)))

    monkeypatch.setattr(Stepper, "step", poisoned)
    with pytest.raises(Diverged, match=r"loss nan.* at step 3"):
        _train(dataset, tmp_path)
    assert steps == [0, 1, 2]
    assert not torch.equal(weights[2], weights[3])
    assert torch.equal(weights[4], weights[5])


def test_interrupted_anywhere_it_goes_on_bit_for_bit(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked in a step or in an evaluation, it saves, and goes on with the very next step."""
    made: list[int] = []
    step = Stepper.step

    def counted(self: Stepper, batch: Any, number: int) -> None:
        made.append(number)
        step(self, batch, number)

    monkeypatch.setattr(Stepper, "step", counted)
    asked = count()
    whole = _train(dataset, tmp_path / "whole", interrupted=lambda: next(asked) < 0)
    assert len(whole) == 3
    moments, steps = next(asked), list(made)
    assert moments > len(steps)  # it is asked in evaluations, too
    for stop in range(0, moments, 2):
        folder = tmp_path / str(stop)
        made.clear()
        asked = count()
        with pytest.raises(Interrupted):
            _train(dataset, folder, interrupted=lambda: next(asked) == stop)  # noqa: B023
        torch.rand(7)  # whatever else the process draws
        resumed = _train(dataset, folder)
        assert made == steps  # none twice
        assert _timeless(resumed) == _timeless(whole)
        expected, found = _weights(tmp_path / "whole"), _weights(folder)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_finished_trial_returns_its_evaluations_without_training(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _train(dataset, tmp_path)
    monkeypatch.setattr(Stepper, "step", lambda *a: pytest.fail("a step was made"))
    assert _train(dataset, tmp_path) == first


def test_a_checkpoint_of_another_trial_is_not_continued(dataset: Dataset, tmp_path: Path) -> None:
    first = _train(dataset, tmp_path, identity="one", seed=1)
    said: list[str] = []
    second = _train(dataset, tmp_path, identity="two", seed=2, remark=said.append)
    assert said == ["its checkpoint is of other code, settings or speech, so it starts over"]
    assert _timeless(first) != _timeless(second)
    assert [e.step for e in second] == [e.step for e in first]


@pytest.mark.parametrize(
    ("damaged", "remarks", "goes_on"),
    [
        ([], [], 3),
        (
            ["checkpoint.pt"],
            ["its last checkpoint is damaged, so it goes on from the one before (evaluation 2)"],
            2,
        ),
        (["checkpoint.previous.pt"], [], 3),
        (
            ["checkpoint.pt", "checkpoint.previous.pt"],
            ["checkpoint.pt and checkpoint.previous.pt cannot be read, so it starts over"],
            0,
        ),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_said(
    dataset: Dataset, tmp_path: Path, damaged: list[str], remarks: list[str], goes_on: int
) -> None:
    whole = _train(dataset, tmp_path)
    expected = _weights(tmp_path)
    for name in damaged:
        content = bytearray((tmp_path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / name).write_bytes(content)
    said: list[str] = []
    again = _train(dataset, tmp_path, remark=said.append)
    assert said == remarks
    assert _timeless(again) == _timeless(whole)
    assert sum(e == w for e, w in zip(again, whole, strict=True)) == goes_on  # clocks and all
    assert all(torch.equal(_weights(tmp_path)[name], expected[name]) for name in expected)


def test_a_seed_decides_everything(dataset: Dataset, tmp_path: Path) -> None:
    one, same, other = (
        _timeless(_train(dataset, tmp_path / name, seed=seed))
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert one == same
    assert one != other


def test_the_best_hypotheses_are_kept_with_their_errors(dataset: Dataset, tmp_path: Path) -> None:
    evaluations = _train(dataset, tmp_path)
    lines = (tmp_path / "hypotheses.jsonl").read_text().splitlines()
    hypotheses = [json.loads(line) for line in lines]
    assert [h["id"] for h in hypotheses] == ["dev-0", "dev-1"]
    rate = sum(h["errors"] for h in hypotheses) / sum(h["words"] for h in hypotheses)
    assert rate == min(e.wer for e in evaluations)
    assert set(torch.load(tmp_path / "best.pt", weights_only=True)) >= {"feature_mean"}


def test_a_network_learns_a_few_utterances_by_heart(tmp_path: Path) -> None:
    texts = {"train": ["on", "off"], "dev": ["on", "off"], "test": ["on"]}
    folder = write_corpus(tmp_path / "corpus", texts=texts)
    for number in range(2):  # dev is what it is trained on
        audio = (folder / f"audio/train-{number}.wav").read_bytes()
        (folder / f"audio/dev-{number}.wav").write_bytes(audio)
    network = replace(NETWORK, encoder_dim=16, decoder_dim=16, dropout=0.0, embedding_init="scaled")
    training = replace(
        TRAINING,
        budget=Budget(steps=120),
        learning_rate=1e-2,
        augmentation=AugmentationConfig(frequency_masks=0, time_masks=0),
    )
    evaluations = _train(open_corpus(folder), tmp_path / "run", network=network, training=training)
    assert evaluations[-1].wer == 0
    assert evaluations[-1].dev_loss < evaluations[0].dev_loss


@pytest.mark.parametrize(
    ("budget", "steps"),
    [(Budget(epochs=6), 12), (Budget(epochs=0.5), 3), (Budget(steps=7), 7)],
)
def test_the_budget_decides_the_steps(dataset: Dataset, budget: Budget, steps: int) -> None:
    training = replace(TRAINING, budget=budget)
    batches = Batches(dataset.splits["train"], training.batch_seconds)
    assert total_steps(NETWORK, training, dataset, batches) == steps


def test_equal_compute_gives_larger_networks_fewer_steps(dataset: Dataset) -> None:
    training = replace(TRAINING, budget=Budget(flops=1e10))
    batches = Batches(dataset.splits["train"], training.batch_seconds)
    small = total_steps(NETWORK, training, dataset, batches)
    large = total_steps(replace(NETWORK, encoder_layers=4), training, dataset, batches)
    assert small > 1.5 * large


@pytest.mark.parametrize("budget", [{}, {"epochs": 1, "steps": 2}])
def test_a_budget_has_one_measure(budget: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one of epochs, steps and flops"):
        Budget(**budget)


def test_evaluations_are_spread_over_the_budget(dataset: Dataset, tmp_path: Path) -> None:
    evaluations = _train(dataset, tmp_path)
    assert [e.evaluation for e in evaluations] == [1, 2, 3]
    assert [e.step for e in evaluations] == [4, 8, 12]
    assert [e.epoch for e in evaluations] == [2, 4, 6]
    assert evaluations[-1].learning_rate < evaluations[1].learning_rate


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [rate_scale(step, 100, warmup=0.1, decay=0.2) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[-1] == pytest.approx(0.05)
    assert rates == sorted(rates[:10]) + rates[10:80] + sorted(rates[80:], reverse=True)
    assert {rate_scale(step, 10, warmup=0, decay=0) for step in range(10)} == {1.0}


KNOBS: dict[str, Any] = {
    # field -> another value
    "budget.epochs": 8,
    "budget.steps": 5,
    "budget.flops": 1e9,
    "evaluations": 2,
    "batch_seconds": 1.2,
    "learning_rate": 2e-3,
    "decoder_learning_rate_scale": 0.1,
    "weight_decay": 0.5,
    "warmup": 0.5,
    "decay": 0.7,
    "gradient_clip": 0.01,
    "precision": "bfloat16",
    "augmentation.frequency_masks": 1,
    "augmentation.frequency_mask_width": 5,
    "augmentation.time_masks": 1,
    "augmentation.time_mask_share": 0.5,
}


@pytest.mark.parametrize("name", KNOBS)
def test_every_training_setting_acts(
    dataset: Dataset, tmp_path: Path, baseline: list[Evaluation], name: str
) -> None:
    section, _, inner = name.partition(".")
    change: Any = KNOBS[name]
    if section == "budget":
        change = Budget(**{inner: change})
    elif section == "augmentation":
        change = replace(TRAINING.augmentation, **{inner: change})
    changed = _train(dataset, tmp_path, training=replace(TRAINING, **{section: change}))
    assert changed[-1].train_loss != baseline[-1].train_loss


def test_early_evaluations_may_recognise_a_part_of_dev_and_the_last_decides(
    dataset: Dataset, tmp_path: Path, baseline: list[Evaluation]
) -> None:
    half = replace(TRAINING, dev_share=0.5)
    first = _train(dataset, tmp_path / "half", training=half)
    assert [evaluation.utterances for evaluation in first] == [1, 1, 2]
    assert [evaluation.utterances for evaluation in baseline] == [2, 2, 2]
    assert _timeless(first)[-1] == _timeless(baseline)[-1]  # the training itself is the same
    assert first[0].dev_loss != baseline[0].dev_loss
    assert len((tmp_path / "half" / "hypotheses.jsonl").read_text().splitlines()) == 2
    last = torch.load(tmp_path / "half" / "best.pt", weights_only=True)
    state = torch.load(tmp_path / "half" / "checkpoint.pt", weights_only=True)["network"]
    assert all(torch.equal(last[name], state[name]) for name in state)


def test_an_evaluation_of_more_of_dev_decides_whatever_its_wer() -> None:
    assert deciding([]) is None
    old = [{"wer": 0.5}, {"wer": 0.3}, {"wer": 0.3}]
    assert deciding(old) is old[1]
    heard = [{"wer": 0.1, "utterances": 10}, {"wer": 0.2, "utterances": 10}]
    assert deciding(heard) is heard[0]
    heard.append({"wer": 0.3, "utterances": 30})
    assert deciding(heard) is heard[2]


def test_a_part_of_dev_is_drawn_evenly_and_the_same_each_time(dataset: Dataset) -> None:
    train = dataset.splits["train"]
    half = train.sample(0.5)
    assert [u.id for u in half.utterances] == [u.id for u in train.sample(0.5).utterances]
    places = [train.utterances.index(utterance) for utterance in half.utterances]
    assert len(set(places)) == len(places) == len(train) / 2
    assert half.tokens == [train.tokens[place] for place in places]
    assert half.lengths == [train.lengths[place] for place in places]
    assert len(train.sample(1e-9)) == 1
    assert train.sample(1.0) == train
