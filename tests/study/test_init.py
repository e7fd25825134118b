"""`init`: corpora are recognised by their files, and the study that is written can be run."""

from __future__ import annotations

import io
import re
import shlex
import shutil
from collections.abc import Sequence
from itertools import cycle, islice, product
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from study.check import check
from study.config_file import load
from study.corpus_summary import SplitSummary
from study.data.corpus import Utterance
from study.data.layouts import LAYOUTS, SIGNS, Found, recognise
from study.data.registry import CORPORA
from study.data.tokens import PieceTokenizer
from study.errors import InputError
from study.init import Corpus, init, study_name, text, tokens
from study.scales import SCALES, SMALL, scale_of
from study.storage import open_study
from tests.command_line import CommandLine
from tests.speech import write_corpus
from tests.study.data import layouts
from tests.study.data.layouts import BUILD
from tests.study.small_study import train

SYLLABLES = ["".join(letters) for letters in product("abcdefgh", repeat=3)]
"""512 different words."""


def _corpus(hours: float, texts: Sequence[str] = SYLLABLES, longest: float = 10.0) -> Corpus:
    """So many hours of ten-second utterances, as `inspect` would find them."""
    count = max(1, round(hours * 360))

    def split(name: str, utterances: int) -> SplitSummary:
        return SplitSummary(
            name=name,
            usable=[
                Utterance(id=f"{name}", audio=Path("a"), text=spoken)
                for spoken in islice(cycle(texts), utterances)
            ],
            seconds=[longest] * utterances,
            bad=[],
        )

    return Corpus(
        found=Found(kind="manifest", folder=Path("somewhere")),
        splits=[split("train", count), split("dev", 1), split("test", 1)],
        unusable=0.0,
    )


def _write(folder: Path, to: Path, device: str = "cpu", *, allow_outside: bool = False) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    init(folder, to, device, console, allow_outside=allow_outside)
    return console.export_text()


@pytest.mark.parametrize("kind", ["manifest", "librispeech", "ksponspeech", "commonvoice", "kaldi"])
def test_a_corpus_of_each_kind_becomes_a_study_that_loads_and_reads_it(
    tmp_path: Path, kind: str
) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    file = tmp_path / "mine.yaml"
    output = _write(folder, file)
    assert f"{kind} corpus in {folder}" in output
    config = load(file)
    assert config.corpus.kind == kind
    assert config.name == "mine"
    assert set(config.corpus.read(tmp_path)) == {"train", "dev", "test"}
    assert f"python -m study run {file}" in " ".join(output.split())
    assert max(map(len, file.read_text().splitlines())) <= 100 + len(str(folder))


def test_lhotse_manifests_are_recognised_by_the_splits_in_their_names(tmp_path: Path) -> None:
    for name in ("x_cuts_train.jsonl.gz", "x_recordings_dev.jsonl.gz",
                 "x_supervisions_dev.jsonl.gz", "x_cuts_test.jsonl"):  # fmt: skip
        (tmp_path / name).touch()
    found = recognise(tmp_path)
    assert found.kind == "lhotse"
    assert found.settings == {
        "train": ["x_cuts_train.jsonl.gz"],
        "dev": ["x_recordings_dev.jsonl.gz", "x_supervisions_dev.jsonl.gz"],
        "test": ["x_cuts_test.jsonl"],
    }


def test_every_kind_of_corpus_in_files_can_be_recognised() -> None:
    assert set(LAYOUTS) == set(SIGNS) == set(CORPORA) - {"synthetic"}


def test_check_accepts_what_init_wrote(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    _write(folder, tmp_path / "mine.yaml")
    console = Console(width=100, record=True, file=io.StringIO())
    check(load(tmp_path / "mine.yaml", [f"runs={tmp_path / 'runs'}", "device=cpu"]), console)
    assert "34 trials (1 anchor, 16 explore, 8 refine, 9 of finalists)" in console.export_text()


def test_a_study_of_init_is_run(tmp_path: Path) -> None:
    """Its smallest: an anchor, and its finalist."""
    _write(write_corpus(tmp_path / "corpus"), tmp_path / "mine.yaml")
    few = ["explore.trials=0", "refine.trials=0", "finalists.top=1", "finalists.seeds=1"]
    short = ["training.budget={steps: 2}", "training.evaluations=1", "device=cpu"]
    config = load(tmp_path / "mine.yaml", [*few, *short, "tracking.enabled=false"])
    train(config)
    anchor, finalist = open_study(config).trials
    assert anchor.user_attrs["outcome"] == finalist.user_attrs["outcome"] == "finished"
    assert finalist.user_attrs["test_wer"] > 0


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    with pytest.raises(InputError, match=r"mine.yaml is there already, and is kept.*--to"):
        _write(folder, file)
    assert file.read_text() == "mine"


def test_a_folder_without_a_corpus_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        recognise(tmp_path)
    for sign in SIGNS.values():
        assert sign in str(error.value)
    assert "docs/your-corpus.md" in str(error.value)
    with pytest.raises(InputError, match=r"there is no folder .*none"):
        recognise(tmp_path / "none")


@pytest.mark.parametrize(
    ("kind", "lost", "complaint"),
    [
        ("manifest", "dev.jsonl", "a manifest corpus without a split for dev .*dev.jsonl or valid"),
        ("librispeech", "LibriSpeech/test-clean", "without a split for test .*test-clean"),
        ("ksponspeech", "scripts/dev.trn", "without a split for dev .*scripts/dev.trn"),
        ("commonvoice", "test.tsv", "without a split for test .*test.tsv"),
        ("kaldi", "data/dev", "without a split for dev .*data/dev/wav.scp"),
    ],
)
def test_a_missing_split_is_named(tmp_path: Path, kind: str, lost: str, complaint: str) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    target = folder / lost
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(InputError, match=complaint):
        recognise(folder)


@pytest.mark.parametrize(
    ("kind", "old", "new", "key"),
    [
        ("manifest", "dev.jsonl", "valid.jsonl", "dev"),
        ("kaldi", "data/dev", "data/train_dev", "dev"),
        ("kaldi", "data/train", "data/train_nodup", "train"),
        ("kaldi", "data/test", "data/eval", "test"),
    ],
)
def test_splits_may_be_called_otherwise(
    tmp_path: Path, kind: str, old: str, new: str, key: str
) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    (folder / old).rename(folder / new)
    assert recognise(folder).settings == {key: new}
    _write(folder, tmp_path / "mine.yaml")
    read = getattr(load(tmp_path / "mine.yaml").corpus, key)
    assert read in (Path(new), (Path(new),))  # a manifest may have several


def test_the_folder_may_be_the_one_above_or_librispeech_itself(tmp_path: Path) -> None:
    folder = layouts.write_librispeech(tmp_path / "corpus")
    assert recognise(folder / "LibriSpeech") == recognise(folder)
    voices = layouts.write_common_voice(tmp_path / "cv" / "en")
    assert recognise(tmp_path / "cv").folder == voices


def test_faults_of_the_lists_are_those_that_run_would_tell(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    (folder / "dev.jsonl").write_text("{\n")
    with pytest.raises(InputError, match=r"dev.jsonl:1: not JSON"):
        _write(folder, tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def test_audio_outside_of_the_folder_is_refused_by_the_name_of_the_option(tmp_path: Path) -> None:
    folder = layouts.write_kaldi_elsewhere(tmp_path / "corpus")
    with pytest.raises(InputError, match=r"wav.scp:1: .* outside of .*init: --allow-outside"):
        _write(folder, tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def test_audio_outside_of_the_folder_is_read_where_that_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    _write(layouts.write_kaldi_elsewhere(tmp_path / "corpus"), file, allow_outside=True)
    (line,) = (line for line in file.read_text().splitlines() if "allow_outside" in line)
    assert re.fullmatch(r"  allow_outside: true +# .*audio outside.*", line)
    console = Console(width=100, record=True, file=io.StringIO())
    check(load(file, [f"runs={tmp_path / 'runs'}", "device=cpu"]), console)
    assert "34 trials" in console.export_text()


def test_a_corpus_in_its_folder_is_not_allowed_more(tmp_path: Path) -> None:
    _write(write_corpus(tmp_path / "corpus"), tmp_path / "mine.yaml")
    assert "allow_outside" not in (tmp_path / "mine.yaml").read_text()


def test_the_command_lets_lists_name_audio_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    folder = layouts.write_kaldi_elsewhere(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    refused = command_line("init", folder)
    assert refused.code == 2
    assert "init: --allow-outside" in refused.errors
    assert command_line("init", folder, "--allow-outside").code == 0
    assert load(Path("corpus.yaml")).model_dump()["corpus"]["allow_outside"] is True


def test_a_corpus_that_is_mostly_unusable_is_refused(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    for audio in (folder / "audio").glob("train-*"):
        audio.write_bytes(b"")
    with pytest.raises(InputError, match="no usable utterances in train"):
        _write(folder, tmp_path / "mine.yaml")


def test_a_few_unusable_utterances_are_allowed_for_and_said(tmp_path: Path) -> None:
    content = text(
        Corpus(found=Found(kind="manifest", folder=tmp_path), splits=_corpus(1).splits,
               unusable=0.031),
        "mine", "cpu",
    )  # fmt: skip
    assert yaml.safe_load(content)["corpus"]["max_bad_utterances"] == 0.05
    assert "3.1% are too short" in content


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("hours", [0.01, 0.5, 1, 4, 20, 99, 300, 5000])
def test_every_size_of_corpus_has_a_study_without_faults(
    tmp_path: Path, hours: float, device: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text(_corpus(min(hours, 40)), "mine", device))  # lists of 5000 hours are long
    config = load(file)
    assert len(config.space) == 7
    assert scale_of(hours, device).hours <= hours


def test_more_speech_searches_larger_networks_and_a_processor_small_ones() -> None:
    widest = [max(yaml.safe_load(scale.search["encoder_dim"])["choices"]) for scale in SCALES]
    assert widest == sorted(set(widest))
    assert [scale_of(hours, "cuda") for hours in (0.5, 5, 100, 960)] == list(SCALES)
    assert scale_of(960, "cpu") is SMALL


def test_a_processor_hears_no_more_than_it_can() -> None:
    epochs = [
        yaml.safe_load(text(_corpus(hours), "x", "cpu"))["training"]["budget"]["epochs"]
        for hours in (0.1, 1, 6, 40)
    ]
    assert epochs == [30, 30, 8, 2]


def test_the_batch_holds_the_longest_utterance_and_is_a_small_part_of_the_corpus() -> None:
    def batch(corpus: Corpus) -> float:
        return float(yaml.safe_load(text(corpus, "x", "cuda"))["training"]["batch_seconds"])

    assert batch(_corpus(1)) == 120
    assert batch(_corpus(0.05, longest=35.0)) == 35
    assert batch(_corpus(0.1, longest=1.0)) == 1.8  # a twentieth of 36 seconds


def test_tokens_suit_the_text() -> None:
    assert tokens(_corpus(1))[0] == "{kind: character}"
    assert tokens(_corpus(12))[0] == "{kind: bpe, size: 500}"
    hangul = "".join(map(chr, range(0xAC00, 0xAC00 + 800)))
    assert tokens(_corpus(12, [hangul]))[0] == "{kind: character}"


def test_pieces_that_cannot_be_learnt_are_not_asked_for(tmp_path: Path) -> None:
    commands = ["light on", "light off", "stop"]
    with pytest.raises(InputError, match="500 pieces cannot be learnt"):  # as run would say
        PieceTokenizer.learn(commands, 500, tmp_path)
    assert tokens(_corpus(18, commands)) == (
        "{kind: character}",
        "The texts have 11 characters, and too few different words (4) for 500 pieces (bpe).",
    )


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        *(("arctic", "arctic"), ("My corpus", "My-corpus"), ("말뭉치", "study")),
        *((".hidden", "hidden"), ("2024", "2024"), ("on", "on"), ("1e5", "1e5")),
    ],
)
def test_a_study_is_called_like_its_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command_line: CommandLine,
    folder: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert study_name(folder) == name
    assert command_line("init", write_corpus(tmp_path / folder)).code == 0
    assert load(Path(f"{name}.yaml")).name == name


@pytest.mark.parametrize(
    "name",
    [
        "it's: a #corpus {1}",
        "2024",
        "null",
        "on",
        "1.5",
        "1e5",
        "2024-13-45",
        "[a]",
        "two\nlines",
        "-",
    ],
)
def test_a_path_with_anything_in_it_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(Path(name))
    _write(Path(name), tmp_path / "mine.yaml")
    assert load(tmp_path / "mine.yaml").model_dump()["corpus"]["folder"] == Path(name)


def test_the_file_may_be_called_anything(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    for file, name in (("my study.yaml", "my-study"), ("2024.yaml", "2024")):
        output = _write(folder, tmp_path / file)
        assert load(tmp_path / file).name == name
        assert f"run {shlex.quote(str(tmp_path / file))}" in " ".join(output.split())


def test_nothing_is_left_of_a_study_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.init.text", lambda *_: "name: '?'\n")
    with pytest.raises(InputError, match="name"):
        _write(write_corpus(tmp_path / "corpus"), tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def test_a_study_for_a_gpu_can_be_written_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = write_corpus(tmp_path / "corpus")
    assert "told by check, where the GPU is" in " ".join(
        _write(folder, tmp_path / "mine.yaml", "cuda").split()
    )


def test_the_command_writes_beside_the_user_and_refuses_in_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    write_corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    assert command_line("init", "corpus").code == 0
    again = command_line("init", "corpus")
    assert again.code == 2
    assert again.errors.startswith("error: corpus.yaml is there already")
    assert load(Path("corpus.yaml")).name == "corpus"


def test_what_is_held_out_of_train_is_not_trained_on_and_a_choice_is_told(tmp_path: Path) -> None:
    """`train_dev` is a part of ESPnet's `train`, and `train_nodev` the rest of it."""
    for name in ("train", "train_nodev", "train_dev", "test_clean", "test_other"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "wav.scp").touch()
    found = recognise(tmp_path)
    assert found.settings["train"] == "data/train_nodev"
    assert found.others == {"test": ["data/test_other"]}
