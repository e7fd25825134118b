"""The winner in ESPnet: its own classes load the folder and compute what the study's network does.

Comparisons need ESPnet and what its frontend needs (pyproject.toml says how); they are skipped
without.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

from model.config import Decoding
from model.decoder import AttentionDecoder
from model.espnet import from_espnet
from study.__main__ import app
from study.config import StudyConfig
from study.data.features import LogMel
from study.errors import InputError
from study.export import export_espnet, expressible
from study.storage import create_study, open_study
from study.winner import Ready, Trained, load, trained, winner
from tests.model.beside_espnet import espnet_of
from tests.study.small_study import small_config, train

pytestmark = pytest.mark.filterwarnings("ignore:.*autocast.*:FutureWarning")  # ESPnet's
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    config = small_config(tmp_path_factory.mktemp("export"), "finalists.seeds=1")
    train(config)
    return config


@pytest.fixture(scope="module")
def with_pieces(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """Pieces, other features, and a trial that is as good as the anchor and cannot be exported."""
    config = small_config(
        tmp_path_factory.mktemp("pieces"),
        "finalists.top=0",
        "tokens={kind: bpe, size: 20}",
        "features={mels: 30, sample_rate: 8000, window: 0.032, hop: 0.008}",
        "network.subsampling_channels=null",
        "network.position=absolute",
        "finalists.decoding={beam_size: 3, ctc_weight: 0.4, penalty: 0.1}",
        "anchors=[{name: equal, encoder_dim: 16, decoder_dim: 16, encoder_layers: 1, "
        "attention_heads: 2, conv_kernel_size: 3, decoder_layers: 1},"
        "{name: wider, encoder_dim: 8, decoder_dim: 16, encoder_layers: 1, attention_heads: 2, "
        "conv_kernel_size: 3, decoder_layers: 1}]",
    )
    train(config)
    return config


def _chosen(config: StudyConfig) -> Trained:
    return winner(config, open_study(config))


@pytest.mark.parametrize(
    ("network", "fault"),
    [
        ({"decoder": "transducer"}, "only networks with decoder 'attention' can be exported"),
        ({"position": "clipped"}, "position 'clipped' does not exist in ESPnet"),
        ({"subsampling_channels": 9}, "subsampling_channels 9 is above encoder_dim 8"),
    ],
)
def test_what_espnet_cannot_express_is_told(
    config: StudyConfig, network: dict[str, Any], fault: str
) -> None:
    chosen = _chosen(config)
    other = replace(chosen, network=replace(chosen.network, **network))
    with pytest.raises(InputError, match=f"small\\) cannot be exported to ESPnet: {fault}"):
        expressible(config, open_study(config), other)


def test_the_best_trial_that_espnet_can_express_is_named(with_pieces: StudyConfig) -> None:
    study = open_study(with_pieces)
    with pytest.raises(InputError) as error:
        expressible(with_pieces, study, trained(with_pieces, study, 1))
    assert error.value.faults[0] == (
        "trial 1 (the anchor wider) cannot be exported to ESPnet: decoder_dim 16 differs from "
        "encoder_dim 8, and ESPnet's decoder is as wide as its encoder"
    )
    assert "the best that can be is trial 0, " in error.value.faults[1]
    assert error.value.faults[1].endswith("--trial 0")


def test_a_folder_that_is_there_is_left_alone(config: StudyConfig, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="mine: is there already; give another place with --to"):
        export_espnet(_chosen(config), tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())


def test_nothing_is_left_of_an_export_that_fails(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space left"):
        export_espnet(_chosen(config), tmp_path / "espnet")
    assert not list(tmp_path.iterdir())


def test_a_study_without_a_winner_has_nothing_to_export(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    create_study(config, {"corpus": {"fingerprint": "none"}})
    result = _command(config, tmp_path)
    assert isinstance(result.exception, InputError)
    assert "has finished, so there is no winner" in str(result.exception)


def test_the_command_says_what_it_wrote_and_where(config: StudyConfig, tmp_path: Path) -> None:
    result = _command(config, tmp_path, "--to", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "(a training of small) of the study 'tiny': " in result.output
    assert f"ESPnet   {tmp_path / 'out'}" in result.output
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "config.yaml", "decode.yaml", "feats_stats.npz", "model.pth", "tokens.txt", "README.md",
    }  # fmt: skip
    readme = (tmp_path / "out/README.md").read_text()
    assert "one channel at 16000 Hz" in readme
    assert "4 channels in the study and 8 here" in readme
    result = _command(config, tmp_path, "--trial", "0")
    assert result.exit_code == 0, result.output
    assert (config.folder / "espnet/trial-0/model.pth").is_file()


def _command(config: StudyConfig, folder: Path, *options: str) -> Any:
    from study.config_file import dump

    file = folder / "study.yaml"
    file.write_text(dump(config), encoding="utf-8")
    return CliRunner().invoke(app, ["export", "espnet", str(file), *options])


def test_what_is_written_comes_back(with_pieces: StudyConfig, tmp_path: Path) -> None:
    chosen = trained(with_pieces, open_study(with_pieces), 0)
    export_espnet(chosen, tmp_path / "out")
    config = yaml.safe_load((tmp_path / "out/config.yaml").read_text(encoding="utf-8"))
    state = torch.load(tmp_path / "out/model.pth", weights_only=True)
    found = from_espnet(config, state)
    assert found.network == replace(chosen.network, embedding_init="normal")
    ours = torch.load(chosen.checkpoint, weights_only=True)
    assert all(torch.equal(found.state[name], tensor) for name, tensor in ours.items()
               if name in found.state)  # fmt: skip
    assert config["token_type"] == "bpe"  # noqa: S105
    assert config["bpemodel"] == "bpe.model"
    assert (tmp_path / "out/bpe.model").is_file()
    assert yaml.safe_load((tmp_path / "out/decode.yaml").read_text()) == {
        "beam_size": 3, "ctc_weight": 0.4, "lm_weight": 0.0, "penalty": 0.1, "maxlenratio": 0.0,
        "minlenratio": 0.0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def espnet() -> SimpleNamespace:
    """ESPnet's own parts, the frontend among them."""
    for name in ("espnet2", "typeguard", "librosa", "humanfriendly", "torch_complex"):
        pytest.importorskip(name)
    with contextlib.redirect_stdout(sys.stderr):
        from espnet2.asr.ctc import CTC
        from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
        from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
        from espnet2.asr.espnet_model import ESPnetASRModel
        from espnet2.asr.frontend.default import DefaultFrontend
        from espnet2.layers.global_mvn import GlobalMVN
        from espnet2.text.char_tokenizer import CharTokenizer
        from espnet2.text.sentencepiece_tokenizer import SentencepiecesTokenizer
    return SimpleNamespace(
        CTC=CTC,
        CharTokenizer=CharTokenizer,
        ConformerEncoder=ConformerEncoder,
        DefaultFrontend=DefaultFrontend,
        ESPnetASRModel=ESPnetASRModel,
        GlobalMVN=GlobalMVN,
        SentencepiecesTokenizer=SentencepiecesTokenizer,
        TransformerDecoder=TransformerDecoder,
    )


def _build(espnet: SimpleNamespace, folder: Path) -> Any:
    """What `ASRTask.build_model_from_file` builds of a folder, and loads."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    frontend = espnet.DefaultFrontend(**config["frontend_conf"])
    model = espnet_of(espnet, config, folder, frontend)
    bands = frontend.logmel.melmat.clone()
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True), strict=True)
    torch.testing.assert_close(frontend.logmel.melmat, bands, rtol=0, atol=1e-6)
    return model.eval()


def _log_probabilities(ready: Ready, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Of CTC, and of the decoder given the tokens before."""
    recogniser, decoder = ready.recogniser, ready.recogniser.decoder
    assert isinstance(decoder, AttentionDecoder)
    assert recogniser.ctc is not None
    by_ctc = recogniser.ctc.log_probabilities(memory)
    logits = decoder(memory, torch.tensor([memory.shape[1]]), tokens)
    return by_ctc, logits.log_softmax(dim=-1)


@pytest.mark.parametrize("study", ["config", "with_pieces"], ids=["character", "bpe"])
def test_espnet_hears_in_raw_audio_what_the_study_hears(
    espnet: SimpleNamespace, study: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    config: StudyConfig = request.getfixturevalue(study)
    chosen = trained(config, open_study(config), 0)
    export_espnet(chosen, tmp_path / "out")
    ready, model = load(chosen, CPU), _build(espnet, tmp_path / "out")
    log_mel = LogMel(chosen.features)
    samples, _ = soundfile.read(_audio(config), dtype="float32")
    for begin, end in ((0, len(samples)), (100, 5300)):
        speech = torch.from_numpy(samples[begin:end].copy())
        with torch.no_grad():
            features = log_mel(speech, chosen.features.sample_rate)[None]
            lengths = torch.tensor([features.shape[1]])
            memory, _ = ready.recogniser.encode(features, lengths)
            theirs, theirs_lengths = model.frontend(speech[None], torch.tensor([len(speech)]))
            assert theirs_lengths.tolist() == lengths.tolist()
            torch.testing.assert_close(theirs, features, rtol=0, atol=1e-4)
            heard, heard_lengths = model.encode(speech[None], torch.tensor([len(speech)]))
            torch.testing.assert_close(heard, memory, rtol=0, atol=1e-4)
            boundary = ready.tokenizer.vocabulary - 1
            tokens = torch.tensor([[boundary, *ready.tokenizer.encode("red light on")]])
            by_ctc, by_decoder = _log_probabilities(ready, memory, tokens)
            torch.testing.assert_close(model.ctc.log_softmax(heard), by_ctc, rtol=0, atol=1e-4)
            logits, _ = model.decoder(heard, heard_lengths, tokens, torch.tensor([tokens.shape[1]]))
            torch.testing.assert_close(
                nn.functional.log_softmax(logits, dim=-1), by_decoder, rtol=0, atol=1e-4
            )


@pytest.mark.parametrize("study", ["config", "with_pieces"], ids=["character", "bpe"])
def test_espnet_reads_the_same_tokens(
    espnet: SimpleNamespace, study: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    config: StudyConfig = request.getfixturevalue(study)
    chosen = trained(config, open_study(config), 0)
    export_espnet(chosen, tmp_path / "out")
    settings = yaml.safe_load((tmp_path / "out/config.yaml").read_text(encoding="utf-8"))
    ours, names = load(chosen, CPU).tokenizer, settings["token_list"]
    if settings["bpemodel"]:
        theirs = espnet.SentencepiecesTokenizer(tmp_path / "out" / settings["bpemodel"])
    else:
        theirs = espnet.CharTokenizer()
    for text in ("red light on", "blue light off", "green"):
        assert [names.index(token) for token in theirs.text2tokens(text)] == ours.encode(text)
        assert theirs.tokens2text([names[number] for number in ours.encode(text)]) == text
    assert (tmp_path / "out/tokens.txt").read_text(encoding="utf-8").split("\n")[:-1] == names


def _audio(config: StudyConfig) -> Path:
    """A recording at the sample rate of the study."""
    folder = config.runs.parent / "corpus" / "audio"
    file = folder / "test-0.wav"
    if config.features.sample_rate == 16000:
        return file
    samples, rate = soundfile.read(file)
    half = folder.parent / "half.wav"
    soundfile.write(half, samples[::2], rate // 2)
    return half


def test_decoding_that_is_left_open_is_written_out(config: StudyConfig, tmp_path: Path) -> None:
    chosen = _chosen(config)
    without = replace(chosen, decoding=Decoding(), network=replace(chosen.network, ctc_weight=0.0))
    from study.export import _decoding

    assert _decoding(replace(chosen, decoding=Decoding()))["ctc_weight"] == 0.3
    assert _decoding(without)["ctc_weight"] == 0.0
