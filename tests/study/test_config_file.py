"""study.yaml: everything that can be wrong with one, each said with its place and its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.config import NetworkConfig
from study.config import StudyConfig
from study.config_file import dump, from_text, load
from study.data.listing import FolderCorpus
from study.errors import InputError

ROOT = Path(__file__).parent.parent.parent
GOOD = """\
corpus: {kind: synthetic}
network: {decoder_heads: 2, encoder_layers: 2, attention_heads: 4, conv_kernel_size: 7}
training: {learning_rate: 4e-3}
search:
  encoder_dim: {choices: [64, 32]}
  decoder_layers: {low: 1, high: 2}
  learning_rate: {low: 1e-3, high: 1.0e-2, log: true, role: nuisance}
anchors:
  - {name: small, encoder_dim: 32, decoder_layers: 1, decoder_dim: 32}
explore: {trials: 4}
"""


def _load(folder: Path, text: str, *overrides: str) -> StudyConfig:
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, overrides)


def _faults(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as error:
        _load(folder, text, *overrides)
    return [fault.replace(str(folder) + "/", "") for fault in error.value.faults]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("network:", "netwerk:", "study.yaml:2: netwerk: there is no such key; did you mean 'network'?"),
        ("decoder_heads", "decoder_head", "study.yaml:2: network.decoder_head: there is no such key; "
         "did you mean 'network.decoder_heads'?"),
        ("{learning_rate", "{dropout: 0.1, learning_rate", "study.yaml:3: training.dropout: there is "
         "no such key; it is called 'network.dropout'"),
        ("encoder_dim: {", "encoder_dims: {", "study.yaml:5: search.encoder_dims: is not a numeric key "
         "of network or training; did you mean 'encoder_dim'?"),
        ("role: nuisance", "role: nusiance", "study.yaml:7: search.learning_rate.role: 'nusiance' is "
         "not one of 'scientific' or 'nuisance'"),
        ("kind: synthetic", "kind: synthetik", "study.yaml:1: corpus: 'synthetik' is not one of "
         "'synthetic', 'manifest'"),
        ("corpus: {kind: synthetic}\n", "", "study.yaml: corpus: is missing"),
        ("encoder_layers: 2", "encoder_layers: two", "study.yaml:2: network.encoder_layers: 'two' is "
         "not possible: input should be a valid integer"),
        ("encoder_layers: 2", "encoder_layers: 0", "study.yaml:2: network.encoder_layers: 0 is not "
         "possible: input should be greater than or equal to 1"),
        ("[64, 32]", "[64, 30]", "study.yaml:5: search.encoder_dim: encoder_dim 30 is not divisible by "
         "attention_heads 4: use 28 or 32"),
        ("  encoder_dim: {", "  attention_heads: {choices: [3, 4]}\n  encoder_dim: {", "study.yaml:5: "
         "search.attention_heads: attention_heads 3 fits none of encoder_dim 32, 64: use 2 or 4"),
        ("[64, 32]", "[]", "study.yaml:5: search.encoder_dim: choices are empty"),
        ("[64, 32]", "[64, 32, 64]", "study.yaml:5: search.encoder_dim: a value stands twice"),
        ("[64, 32]", "[64, 0]", "study.yaml:5: search.encoder_dim: 0 is not possible"),
        ("[64, 32]", "[64, 32], low: 3", "study.yaml:5: search.encoder_dim: choices stand alone"),
        ("low: 1, high: 2", "low: 3, high: 2", "study.yaml:6: search.decoder_layers: low 3 is above "
         "high 2"),
        ("low: 1, high: 2", "low: 1", "study.yaml:6: search.decoder_layers: give choices, or low and "
         "high"),
        ("low: 1, high: 2", "low: 1.5, high: 2", "study.yaml:6: search.decoder_layers: low and high "
         "are whole numbers"),
        ("low: 1, high: 2", "low: 1, high: 2, log: true", "study.yaml:6: search.decoder_layers: log is "
         "for continuous ranges"),
        ("low: 1e-3", "low: 0", "study.yaml:7: search.learning_rate: a logarithmic range begins above"),
        ("low: 1e-3", "step: 2, low: 1e-3", "study.yaml:7: search.learning_rate: step is for whole"),
        ("conv_kernel_size: 7", "conv_kernel_size: 8", "study.yaml:2: network.conv_kernel_size: "
         "conv_kernel_size 8 is even, and a symmetric convolution needs an odd one: use 7 or 9"),
        ("encoder_layers: 2", "encoder_dim: 48", "study.yaml:2: network.encoder_dim: 48 is not in "
         "search.encoder_dim (32, 64)"),
        ("learning_rate: 4e-3", "learning_rate: 4e-2", "study.yaml:3: training.learning_rate: 0.04 is "
         "not in search.learning_rate (0.001 to 0.01, logarithmic)"),
        ("training: {learning_rate: 4e-3}", "training: {warmup: 0.8, decay: 0.5}", "study.yaml:3: "
         "training: warmup 0.8 and decay 0.5 are shares of one budget"),
        ("  learning_rate: {", "  warmup: {low: 0.1, high: 0.6}\n  decay: {low: 0.2, high: 0.6}\n"
         "  learning_rate: {", "study.yaml:7: search.warmup: the largest do not fit: warmup 0.6 and "
         "decay 0.6 are shares of one budget"),
        ("  learning_rate: {", "  decay: {choices: [0.3, 0.95]}\n  learning_rate: {", "study.yaml:7: "
         "search.decay: the largest do not fit: warmup 0.1 and decay 0.95 are shares of one budget"),
        ("  learning_rate: {", "  warmup: {low: 0.1, high: 1.5}\n  learning_rate: {", "study.yaml:7: "
         "search.warmup: 1.5 is not possible: Input should be less than or equal to 1"),
        ("  learning_rate: {", "  subsampling_channels: {choices: [8, 16]}\n  learning_rate: {",
         "study.yaml:2: network.subsampling_channels: null (its default, with which the anchors train) "
         "is not in search.subsampling_channels (8, 16)"),
        ("training: {learning_rate: 4e-3}", "training: {budget: {}}", "study.yaml:3: training.budget: "
         "give exactly one of epochs, steps and flops (none given)"),
        ("- {name: small, ", "- conformer-xs\n  - {name: small, ", "study.yaml:9: anchors.0: there is no "
         "known shape 'conformer-xs'; did you mean 'conformer-s'?"),
        ("{name: small, ", "{name: small, heads: 3, ", "study.yaml:9: anchors.0.heads: is not one of "
         "the six"),
        ("encoder_dim: 32, d", "encoder_dim: 30, d", "study.yaml:9: anchors.0: small: encoder_dim 30 "
         "is not divisible"),
        ("decoder_layers: 1,", "decoder_layers: -1,", "study.yaml:9: anchors.0.decoder_layers: -1 is "
         "not a positive whole number"),
        ("explore: {trials: 4}", "explore: {trials: -4}", "study.yaml:10: explore.trials: -4 is not "
         "possible"),
        ("corpus:", "tokens: {kind: bpe}\ncorpus:", "study.yaml:1: tokens.size: is missing"),
        ("corpus:", "name: a/b\ncorpus:", "study.yaml:1: name: 'a/b' is not possible"),
        ("explore:", "seed: 1\nseed: 2\nexplore:", "study.yaml:11: seed: stands twice, see "
         "study.yaml:10"),
        ("explore: {", "explore: [", "study.yaml:10: not YAML"),
        ("explore: {trials: 4}", "explore: !!python/object/apply:os.getcwd []", "study.yaml:10: not "
         "YAML"),
    ],
)  # fmt: skip
def test_a_fault_is_said_with_its_place(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in GOOD
    (found,) = _faults(tmp_path, GOOD.replace(old, new, 1))
    assert found.startswith(fault)


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("decoder_heads", "decoder_head").replace("trials: 4", "trials: x")
    assert len(_faults(tmp_path, text.replace("synthetic", "synthetic, sed: 3"))) == 3


def test_a_study_without_trials_is_refused(tmp_path: Path) -> None:
    text = GOOD.partition("anchors:")[0]
    (fault,) = _faults(tmp_path, text, "explore.trials=0", "refine.trials=0")
    assert fault == "-o explore.trials=0: explore.trials: the study has no trials: " + (
        "give explore, refine or anchors some"
    )


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert _faults(tmp_path, text)[0].startswith("study.yaml")


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(
        InputError, match=r"no study file .*/min\.yaml; did you mean '.*/mine\.yaml'\?"
    ):
        load(tmp_path / "min.yaml")
    with pytest.raises(InputError, match="there is no study file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        load(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    "override", ["explore.trials", "=4", "explore..trials=4", "seed.x=[", "a=b: c: d"]
)
def test_overrides_that_are_none_are_refused(tmp_path: Path, override: str) -> None:
    (fault,) = _faults(tmp_path, GOOD, override)
    assert fault.startswith(f"-o {override}")


def test_overrides_win_and_their_faults_name_them(tmp_path: Path) -> None:
    config = _load(tmp_path, GOOD, "explore.trials=9", "training.budget.epochs=3")
    assert config.explore.trials == 9
    (fault,) = _faults(tmp_path, GOOD, "search.encoder_dim.choices=[30]")
    assert fault.startswith(
        "-o search.encoder_dim.choices=[30]: search.encoder_dim: encoder_dim 30"
    )
    assert "encoder_dim" not in _load(tmp_path, GOOD, "search.encoder_dim=null").space


def test_numbers_with_exponents_are_numbers(tmp_path: Path) -> None:
    config = _load(tmp_path, GOOD)
    assert config.training.learning_rate == 4e-3
    assert config.space["learning_rate"].low == 1e-3


def test_a_file_mirrors_the_typed_values(tmp_path: Path) -> None:
    config = _load(tmp_path, GOOD)
    assert config.name == "study"
    assert config.space["encoder_dim"].values == (32, 64)  # numbers in order
    assert config.anchor_shapes[0].shape["attention_heads"] == 4  # from the baseline
    assert config.trials == 1 + 4 + 32


def test_an_anchor_may_lie_outside_the_ranges(tmp_path: Path) -> None:
    text = GOOD.replace("- {name: small", "- conformer-s\n  - {name: small")
    assert _load(tmp_path, text).anchor_shapes[0].shape["encoder_layers"] == 16


def test_what_is_dumped_loads_to_the_same(tmp_path: Path) -> None:
    config = _load(tmp_path, GOOD)
    again = _load(tmp_path, dump(config))
    assert from_text(Path("x"), dump(config.model_copy(update={"name": "1e5"}))).name == "1e5"
    assert again.space == config.space
    assert again.training == config.training
    assert again.anchor_shapes == config.anchor_shapes


def test_a_key_that_may_be_null_is_searched(tmp_path: Path) -> None:
    channels = "search.subsampling_channels={choices: [8, 16]}"
    for more in (["anchors=[]"], ["network.subsampling_channels=16"]):
        config = _load(tmp_path, GOOD, channels, *more)
        again = _load(tmp_path, dump(config))
        assert again.space == config.space
        assert again.network == config.network
        assert again.with_parameters({"subsampling_channels": 8})[0].subsampling_channels == 8


def test_shares_of_the_budget_that_fit_together_are_searched(tmp_path: Path) -> None:
    """Also where one of them would not fit the default of the other, which no trial has."""
    shares = ["search.warmup={low: 0, high: 0.8}", "search.decay={low: 0.05, high: 0.2}"]
    assert _load(tmp_path, GOOD, *shares, "anchors=[]").space["warmup"].high == 0.8


@pytest.mark.parametrize(
    "file", ["study.yaml", "tests/tiny_study.yaml", "studies/fsdd.yaml", "studies/so762.yaml"]
)
def test_every_study_in_the_repository_is_valid(file: str) -> None:
    config = load(ROOT / file)
    for anchor in config.anchor_shapes:
        assert isinstance(config.with_parameters(anchor.shape)[0], NetworkConfig)


def test_a_home_folder_is_meant_as_a_shell_means_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "runs: ~/runs\ncorpus: {kind: manifest, folder: ~/mine}\n"
    config = from_text(Path("s.yaml"), text)
    assert config.runs == tmp_path / "runs"
    assert isinstance(config.corpus, FolderCorpus) and config.corpus.folder == tmp_path / "mine"
    with pytest.raises(InputError, match="write the whole path"):
        from_text(Path("s.yaml"), "runs: ~nobody-here/x\ncorpus: {kind: synthetic}\n")


@pytest.mark.parametrize("odd", ["a?b", "a%2Fb", "${HOME}"])
def test_a_folder_that_an_address_would_take_for_another_is_refused(
    tmp_path: Path, odd: str
) -> None:
    with pytest.raises(InputError, match="means something else in the address"):
        from_text(Path("s.yaml"), f"runs: '{tmp_path / odd}'\ncorpus: {{kind: synthetic}}\n")
    elsewhere = "storage: postgresql://host/db\ntracking: {uri: 'http://host:5000'}\n"
    text = f"runs: '{tmp_path / odd}'\ncorpus: {{kind: synthetic}}\n{elsewhere}"
    assert from_text(Path("s.yaml"), text).folder.parent.name == odd
