"""How finalists are scored on test: by a beam search, with what greedy decoding makes beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import Decoding, NetworkConfig
from model.recogniser import Recogniser
from study.config import StudyConfig
from study.config_file import load
from study.data.batches import Batches
from study.data.dataset import Dataset
from study.errors import InputError
from study.finalists import score
from study.training.evaluation import recognise
from study.training.memory import NetworkTooLarge
from study.training.scoring import word_errors
from study.worker import open_dataset
from tests.speech import read_manifest
from tests.study.small_study import small_config

CPU = torch.device("cpu")
NETWORK = NetworkConfig(
    encoder_layers=1,
    encoder_dim=16,
    attention_heads=2,
    conv_kernel_size=3,
    decoder_layers=1,
    decoder_dim=16,
    decoder_heads=2,
    joint_dim=16,
    subsampling_channels=2,
)
BASE: dict[str, Any] = {"beam_size": 4, "ctc_weight": 0.3, "minlenratio": 0.2}
KNOBS: dict[str, Any] = {
    "beam_size": 1,
    "ctc_weight": 0.9,
    "penalty": 5.0,
    "maxlenratio": -2,
    "minlenratio": -20,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    return small_config(tmp_path_factory.mktemp("decoding"))


@pytest.fixture(scope="module")
def dataset(config: StudyConfig) -> Dataset:
    return open_dataset(config)


def _recogniser(dataset: Dataset, **changes: Any) -> Recogniser:
    torch.manual_seed(4)
    recogniser = Recogniser(
        replace(NETWORK, **changes), mels=20, vocabulary=dataset.tokenizer.vocabulary
    )
    with torch.no_grad():
        for name, weights in recogniser.named_parameters():
            if name.endswith("output.weight"):
                weights.mul_(5)  # untrained, and yet sure of something
    return recogniser


def _score(
    folder: Path,
    config: StudyConfig,
    dataset: Dataset,
    decoding: Decoding | None = None,
    **network: Any,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is recorded of an untrained finalist, and its test.jsonl."""
    torch.save(_recogniser(dataset, **network).state_dict(), folder / "best.pt")
    if decoding is not None:
        finalists = config.finalists.model_copy(update={"decoding": decoding})
        config = config.model_copy(update={"finalists": finalists})
    found = score(replace(NETWORK, **network), config, dataset, CPU, folder)
    return found, read_manifest(folder / "test.jsonl")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["finalists.decoding.beam_size=0"], "finalists.decoding: beam_size 0 is below 1"),
        (["finalists.decoding.ctc_weight=2"], "ctc_weight 2 is not between 0 and 1"),
        (["finalists.decoding.beam=4"], "finalists.decoding.beam: there is no such key"),
        (
            ["finalists.decoding.ctc_weight=0.3", "network.ctc_weight=0"],
            "finalists.decoding.ctc_weight: 0.3 of the score is CTC's, and with network.ctc_weight "
            "0 there is no CTC branch: take it out",
        ),
        (
            ["finalists.decoding.ctc_weight=0.3", "search.ctc_weight={low: 0, high: 0.5}"],
            "finalists.decoding.ctc_weight: 0.3 of the score is CTC's",
        ),
        (
            ["network.decoder=transducer", "finalists.decoding.ctc_weight=0.3"],
            "finalists.decoding.ctc_weight: the beam search of a transducer has beam_size alone",
        ),
        (
            ["network.decoder=transducer", "finalists.decoding.penalty=1"],
            "finalists.decoding.penalty: the beam search of a transducer has beam_size alone",
        ),
    ],
)
def test_a_decoding_that_cannot_be_is_refused_with_the_file(
    tmp_path: Path, options: list[str], fault: str
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("corpus: {kind: synthetic}\nexplore: {trials: 1}\n")
    with pytest.raises(InputError) as error:
        load(file, options)
    assert len(error.value.faults) == 1
    assert fault in error.value.faults[0]


@pytest.mark.parametrize(
    "network",
    [{}, {"ctc_weight": 0.0}, {"decoder": "transducer"}],
    ids=["attention", "without CTC", "transducer"],
)
def test_the_defaults_fit_every_network(
    tmp_path: Path, config: StudyConfig, dataset: Dataset, network: dict[str, Any]
) -> None:
    found, lines = _score(tmp_path, config, dataset, **network)
    references = [line["reference"] for line in lines]
    assert references == [utterance.text for utterance in dataset.splits["test"].utterances]
    for text, wer, errors in (
        ("hypothesis", "test_wer", "test_errors"),
        ("greedy_hypothesis", "test_greedy_wer", "test_greedy_errors"),
    ):
        counts = word_errors(references, [line[text] for line in lines])
        assert found[errors] == sum(count.errors for count in counts)
        assert found[wer] == found[errors] / found["test_words"]
    assert found["test_errors"] == sum(line["errors"] for line in lines)
    assert found["test_real_time_factor"] > 0


def test_beside_the_beam_stands_what_greedy_decoding_makes(
    tmp_path: Path, config: StudyConfig, dataset: Dataset
) -> None:
    _, lines = _score(tmp_path, config, dataset)
    greedy = recognise(
        _recogniser(dataset), Batches(dataset.splits["test"], 60), dataset.tokenizer, CPU
    )
    assert [line["greedy_hypothesis"] for line in lines] == [
        line.hypothesis for line in greedy.hypotheses
    ]
    assert [line["hypothesis"] for line in lines] != [line["greedy_hypothesis"] for line in lines]
    assert all(line.greedy_hypothesis is None for line in greedy.hypotheses)
    assert greedy.greedy_word_errors == greedy.word_errors


def test_a_beam_of_one_without_ctc_is_greedy_decoding(
    tmp_path: Path, config: StudyConfig, dataset: Dataset
) -> None:
    found, lines = _score(tmp_path, config, dataset, Decoding(beam_size=1, ctc_weight=0.0))
    assert found["test_wer"] == found["test_greedy_wer"]
    assert [line["hypothesis"] for line in lines] == [line["greedy_hypothesis"] for line in lines]


@pytest.mark.parametrize("name", KNOBS)
def test_every_setting_of_the_decoding_acts(
    tmp_path: Path, config: StudyConfig, dataset: Dataset, name: str
) -> None:
    _, before = _score(tmp_path, config, dataset, Decoding(**BASE))
    _, after = _score(tmp_path, config, dataset, Decoding(**{**BASE, name: KNOBS[name]}))
    assert before != after


@pytest.mark.parametrize("decoding", [None, Decoding(beam_size=2)], ids=["greedy", "beam"])
def test_a_batch_for_which_memory_is_short_is_halved(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, decoding: Decoding | None
) -> None:
    recogniser, train = _recogniser(dataset), Batches(dataset.splits["train"], 60)
    whole = recognise(recogniser, train, dataset.tokenizer, CPU, decoding=decoding)
    encode, sizes = Recogniser.encode, list[int]()

    def bounded(self: Recogniser, features: Tensor, *arguments: Any, **named: Any) -> Any:
        sizes.append(len(features))
        if len(features) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return encode(self, features, *arguments, **named)

    monkeypatch.setattr(Recogniser, "encode", bounded)
    parts = recognise(recogniser, train, dataset.tokenizer, CPU, decoding=decoding)
    assert max(sizes) > 2
    assert parts.hypotheses == whole.hypotheses
    assert parts.word_errors == whole.word_errors
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


def test_an_utterance_that_does_not_fit_into_memory_ends_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_fits(self: Recogniser, *arguments: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Recogniser, "encode", none_fits)
    train = Batches(dataset.splits["train"], 60)
    with pytest.raises(NetworkTooLarge, match=r"an utterance .* does not fit into memory: CUDA"):
        recognise(_recogniser(dataset), train, dataset.tokenizer, CPU)
