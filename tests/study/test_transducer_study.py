"""A study of the transducer: its search is checked, and its network learns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.config import NetworkConfig
from model.recogniser import Recogniser
from model.transducer import Transducer
from study.config import StudyConfig
from study.config_file import load
from study.data.batches import Batches
from study.data.config import AugmentationConfig
from study.errors import InputError
from study.storage import open_study
from study.training.config import Budget, TrainingConfig
from study.training.loop import train
from tests.speech import open_corpus, write_corpus

ROOT = Path(__file__).parent.parent.parent
GOOD = """\
corpus: {kind: synthetic}
network: {decoder: transducer}
search:
  decoder_dim: {choices: [30, 321]}
  joint_dim: {choices: [64, 128], role: nuisance}
explore: {trials: 4}
"""


def _load(folder: Path, text: str, *overrides: str) -> StudyConfig:
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, overrides)


@pytest.mark.parametrize(
    "name", ["decoder_heads: {choices: [2, 4]}", "label_smoothing: {low: 0, high: 0.1}"]
)
def test_what_the_transducer_does_not_read_is_not_searched(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as error:
        _load(tmp_path, GOOD.replace("search:\n", f"search:\n  {name}\n"))
    (fault,) = error.value.faults
    field = name.partition(":")[0]
    assert fault == (
        f"{tmp_path}/study.yaml:4: search.{field}: makes no difference with network.decoder "
        "'transducer', only with 'attention': take it out, or choose 'attention'"
    )


def test_what_only_the_transducer_reads_is_not_searched_for_attention(tmp_path: Path) -> None:
    text = GOOD.replace("[30, 321]", "[32, 64]")
    with pytest.raises(InputError, match=r"study.yaml:5: search.joint_dim: makes no difference"):
        _load(tmp_path, text, "network.decoder=attention")


def test_a_transducer_may_have_any_width(tmp_path: Path) -> None:
    config = _load(tmp_path, GOOD)
    assert config.network.decoder == "transducer"
    assert config.space["decoder_dim"].values == (30, 321)
    with pytest.raises(
        InputError, match=r"decoder_dim 321 is not divisible by decoder_heads 4: use 320 or 324"
    ):
        _load(tmp_path, GOOD, "network.decoder=attention", "search.joint_dim=null")


def test_a_decoder_that_is_none_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'rnnt' is not one of 'attention' or 'transducer'"):
        _load(tmp_path, GOOD, "network.decoder=rnnt")


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_a_transducer_learns_a_few_utterances_by_heart(tmp_path: Path, ctc_weight: float) -> None:
    texts = {"train": ["on", "off"], "dev": ["on", "off"], "test": ["on"]}
    folder = write_corpus(tmp_path / "corpus", texts=texts)
    for number in range(2):  # dev is what it is trained on
        audio = (folder / f"audio/train-{number}.wav").read_bytes()
        (folder / f"audio/dev-{number}.wav").write_bytes(audio)
    network = NetworkConfig(
        encoder_layers=1,
        encoder_dim=16,
        attention_heads=2,
        conv_kernel_size=3,
        decoder="transducer",
        decoder_layers=1,
        decoder_dim=16,
        joint_dim=32,
        subsampling_channels=2,
        ctc_weight=ctc_weight,
        dropout=0.0,
        attention_dropout=0.0,
        positional_dropout=0.0,
    )
    training = TrainingConfig(
        budget=Budget(steps=120),
        evaluations=3,
        batch_seconds=2.5,
        learning_rate=1e-2,
        augmentation=AugmentationConfig(frequency_masks=0, time_masks=0),
    )
    dataset = open_corpus(folder)
    evaluations = list(
        train(
            network,
            training,
            dataset,
            seed=1,
            device=torch.device("cpu"),
            folder=tmp_path / "run",
        )
    )
    assert evaluations[-1].dev_loss < 0.1 < evaluations[0].dev_loss
    assert (evaluations[-1].ctc_wer is None) == (ctc_weight == 0)
    # Nothing in a steady tone says when a token should come, so its probability may be spread over
    # all frames. Greedy decoding sees one frame at a time; a beam adds them up.
    recogniser = Recogniser(network, mels=20, vocabulary=dataset.tokenizer.vocabulary).eval()
    state = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["network"]
    recogniser.load_state_dict(state)
    batch = Batches(dataset.splits["dev"], 100).gather([0, 1])
    memory, lengths = recogniser.encode(batch.features, batch.lengths)
    decoder = recogniser.decoder
    assert isinstance(decoder, Transducer)
    found = decoder.beam_search(memory, lengths, beam=8)
    assert [dataset.tokenizer.decode(hypothesis.tokens) for hypothesis in found] == ["on", "off"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_the_synthetic_corpus_it_is_in_the_range_of_the_attention_decoder(
    tmp_path: Path,
) -> None:
    """The anchors of the default study and of its sibling, on the same speech, without a search."""
    wers = {}
    for file in ("study.yaml", "studies/laptop-transducer.yaml"):
        options = [f"runs={tmp_path}", "explore.trials=0", "refine.trials=0",
                   "finalists={top: 0, anchors: false}", "tracking.enabled=false",
                   "launcher.kind=inline"]  # fmt: skip
        run = subprocess.run(
            [sys.executable, "-m", "study", "run", file]
            + [word for option in options for word in ("-o", option)],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        (trial,) = open_study(load(ROOT / file, options)).trials
        assert trial.value is not None
        wers[trial.user_attrs["config"]["decoder"]] = trial.value
    assert wers["attention"] < 0.2
    assert wers["transducer"] < wers["attention"] + 0.03
