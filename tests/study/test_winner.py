"""The network that a study recommends: which it is, and that it is ready to be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState

from study.config import StudyConfig
from study.data.batches import Batches
from study.errors import InputError
from study.leases import claim
from study.storage import create_study, open_study
from study.training.evaluation import recognise
from study.winner import TOKENS, load, trained, winner
from study.worker import open_dataset
from tests.study.small_study import small_config, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    config = small_config(tmp_path_factory.mktemp("winner"))
    train(config)
    return config


@pytest.fixture(scope="module")
def without_finalists(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    config = small_config(
        tmp_path_factory.mktemp("pieces"),
        "explore.trials=1",
        "finalists.top=0",
        "tokens={kind: bpe, size: 20}",
    )
    train(config)
    return config


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    config = small_config(tmp_path_factory.mktemp("unfinished"), "explore.trials=2")
    study = create_study(config, {"corpus": {"fingerprint": "none"}})
    trial = claim(study)
    assert trial is not None
    trial.set_user_attr("outcome", "crashed")
    study.tell(trial, state=TrialState.FAIL)
    return config


def test_without_a_finished_trial_there_is_none(unfinished: StudyConfig) -> None:
    with pytest.raises(InputError, match="no trial of the study 'tiny' has finished"):
        winner(unfinished, open_study(unfinished))


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (-1, "has no trial -1: its trials are 0 to 2"),
        (3, "has no trial 3: its trials are 0 to 2"),
        (0, "trial 0 of the study 'tiny' has no network: crashed"),
        (1, "trial 1 of the study 'tiny' has no network: waiting"),
    ],
)
def test_a_trial_without_a_network_is_refused(
    unfinished: StudyConfig, number: int, fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        trained(unfinished, open_study(unfinished), number)


@pytest.mark.parametrize(
    ("gone", "fault"),
    [
        ("trials/0/best.pt", "the weights of trial 0 are gone: there is no .*/trials/0/best.pt"),
        (TOKENS, "/tokens: the study's tokenizer is not there; `python -m study run` writes it"),
        (f"{TOKENS}/tokens.txt", "/tokens: there is no tokens.txt of a tokenizer"),
    ],
)
def test_files_that_are_gone_are_told(config: StudyConfig, gone: str, fault: str) -> None:
    file = config.folder / gone
    away = file.rename(file.with_name("away"))
    try:
        with pytest.raises(InputError, match=fault):
            load(trained(config, open_study(config), 0), CPU)
    finally:
        away.rename(file)


def test_weights_of_another_network_are_told(config: StudyConfig) -> None:
    chosen = trained(config, open_study(config), 0)
    other = replace(chosen, network=replace(chosen.network, macaron=False))
    with pytest.raises(InputError, match=r"best.pt: is not of the network and the tokens of trial"):
        load(other, CPU)


def test_before_finalists_it_is_the_trial_with_the_lowest_wer(
    without_finalists: StudyConfig,
) -> None:
    study = open_study(without_finalists)
    lowest = min(study.trials, key=lambda trial: (trial.value, trial.number))
    found = winner(without_finalists, study)
    assert (found.trial, found.wer) == (lowest.number, lowest.value)
    anchor = lowest.user_attrs.get("anchor")
    assert found.label == f"trial {lowest.number}" + (f" (the anchor {anchor})" if anchor else "")
    assert found.introduction == (
        f"{found.label} of the study 'tiny': {lowest.value:.1%} WER on dev"
    )
    assert found.test_wer is None


def test_among_finalists_it_is_the_best_seed(config: StudyConfig) -> None:
    study = open_study(config)
    finalists = study.trials[1:]
    assert [trial.user_attrs["finalist"] for trial in finalists] == ["small", "small"]
    best = min(finalists, key=lambda trial: (trial.value, trial.number))
    found = winner(config, study)
    assert (found.trial, found.wer) == (best.number, best.value)
    assert found.label == f"trial {best.number} (a training of small)"
    assert found.introduction.endswith(f" on dev, {best.user_attrs['test_wer']:.1%} on test")
    assert found.test_wer == best.user_attrs["test_wer"]


@pytest.mark.parametrize("study", ["config", "without_finalists"], ids=["character", "bpe"])
def test_it_recognises_what_it_recognised_in_the_study(
    study: str, request: pytest.FixtureRequest
) -> None:
    config: StudyConfig = request.getfixturevalue(study)
    chosen = winner(config, open_study(config))
    ready, dataset = load(chosen, CPU), open_dataset(config)
    assert ready.tokenizer.names == dataset.tokenizer.names
    assert not ready.recogniser.training
    dev = Batches(dataset.splits["dev"], 60)
    recognition = recognise(ready.recogniser, dev, ready.tokenizer, CPU)
    kept = (config.folder / f"trials/{chosen.trial}/hypotheses.jsonl").read_text().splitlines()
    assert [h.hypothesis for h in recognition.hypotheses] == [
        json.loads(line)["hypothesis"] for line in kept
    ]


def test_its_wer_is_that_of_all_of_dev(tmp_path: Path) -> None:
    config = small_config(tmp_path, "training.dev_share=0.5", "finalists.top=0")
    train(config)
    study = open_study(config)
    (trial,) = study.trials
    heard = [evaluation["utterances"] for evaluation in trial.user_attrs["evaluations"]]
    assert heard[0] < heard[-1]
    assert winner(config, study).wer == trial.value == trial.intermediate_values[len(heard)]
