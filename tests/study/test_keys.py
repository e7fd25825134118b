"""The reference of study.yaml's keys: complete, current, and true of what the file takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.config import SEARCHABLE
from study.config_file import from_text
from study.errors import InputError
from study.keys import NAME, Key, as_markdown, known_paths, matching, sections
from tests.command_line import CommandLine

DOCS = Path(__file__).parents[2] / "docs"
KEYS = {(section.kind, key.path): key for section in sections() for key in section.keys}


def key(path: str, kind: str = "") -> Key:
    return KEYS[kind, path]


def test_a_word_that_no_key_speaks_of_is_refused(command_line: CommandLine) -> None:
    done = command_line("keys", "lerning_rate")
    assert done.code == 2
    assert "no key of study.yaml speaks of 'lerning_rate'" in done.errors
    assert "did you mean 'training.learning_rate'?" in done.errors


def test_a_key_is_shown_with_its_default(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = command_line("keys", "decoder_learning_rate_scale")
    assert done.code == 0
    first, second = done.output.splitlines()
    assert first == (
        "training.decoder_learning_rate_scale: 1.0  (number, above 0; can be searched)"
    )
    assert second.strip() == "The decoder's learning rate in units of `learning_rate`."


def test_the_reference_in_the_documentation_is_the_current_one() -> None:
    assert (DOCS / "study-yaml.md").read_text(encoding="utf-8") == as_markdown()


def test_every_key_says_what_it_does() -> None:
    assert [path for path, found in KEYS.items() if not (found.meaning and found.takes)] == []
    assert [section.path for section in sections() if not section.meaning] == []


@pytest.mark.parametrize("kind", sorted({section.kind for section in sections()} - {""}))
def test_the_defaults_are_those_of_the_file(kind: str) -> None:
    """A study that sets every key to the default that is told is the one that sets none."""
    text = f"corpus: {{kind: {kind}}}\nname: mine\n"
    silent = from_text(Path("mine.yaml"), text)
    told = [
        f"{found.path}={found.default}"
        for (corpus, _), found in KEYS.items()
        if corpus in ("", kind)
        and found.default
        and NAME not in found.path
        and found.path != "name"
    ]
    assert len(told) > 70
    assert from_text(Path("mine.yaml"), text, told) == silent


@pytest.mark.parametrize(
    ("path", "takes", "refused"),
    [
        ("training.learning_rate", "number, above 0", "0"),
        ("training.dev_share", "number, above 0, at most 1", "1.5"),
        ("network.dropout", "number, at least 0, below 1", "1"),
        ("network.encoder_layers", "whole number, at least 1", "0"),
        ("network.encoder_layers", "whole number, at least 1", "1.5"),
        ("network.decoder", "`attention` or `transducer`", "rnn"),
        ("launcher.workers", "whole number, at least 1, or null", "0"),
        ("finalists.anchors", "true or false", "2"),
        ("launcher.slurm.setup", "list of: text", "1"),
    ],
)
def test_what_a_key_is_said_to_take_is_what_it_takes(path: str, takes: str, refused: str) -> None:
    assert key(path).takes == takes
    with pytest.raises(InputError, match=path):
        from_text(Path("mine.yaml"), "corpus: {kind: synthetic}\n", [f"{path}={refused}"])


def test_what_can_be_searched_is_marked() -> None:
    assert {found.name for found in KEYS.values() if found.searchable} == set(SEARCHABLE)
    assert not key("refine.trials").searchable
    assert not key("corpus.seed", "synthetic").searchable


def test_words_are_looked_for_in_names_and_descriptions() -> None:
    assert [k.path for _, keys in matching(["SpecAugment"]) for k in keys] == []
    found = {k.path for _, keys in matching(["gpu", "share"]) for k in keys}
    assert "launcher.workers_per_gpu" in found
    assert {section.kind for section, _ in matching(["kaldi"])} == {"kaldi"}


def test_paths_name_sections_and_whatever_is_searched() -> None:
    paths = known_paths()
    assert len(paths) == len(set(paths))
    assert {"search", "search.ctc_weight", "search.ctc_weight.low", "launcher.slurm"} <= set(paths)
    assert not any(NAME in path for path in paths)
