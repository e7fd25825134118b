"""Bad input to the commands that read a corpus: one sentence for each fault, and exit code 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command_line import CommandLine
from tests.speech import read_manifest, write_corpus, write_manifest

TINY = Path(__file__).parent.parent / "tiny_study.yaml"


@pytest.mark.parametrize(
    ("damage", "options", "sentence"),
    [
        (None, ["-o", "netwok.dropout=0"], "there is no such key; did you mean 'network"),
        (
            None,
            ["-o", "search.attention_heads.choices=[3]"],
            "attention_heads 3 fits none of encoder_dim 8, 16: use 2 or 4",
        ),
        ("no audio", [], "there is no audio file"),
        ("noise", [], "cannot be read"),
        ("no text", [], "the transcript is empty"),
        ("short", [], "too short"),
        ("long text", [], "too long for CTC"),
        ("no dev", [], "the split 'dev' has no utterances"),
        (None, ["-o", "corpus.folder=nowhere"], "set corpus.folder"),
        (None, ["--device", "gpu"], "'gpu' is not one of"),
        (None, ["-o", "storage=nosuch://"], "storage: "),
        (None, ["-o", "tracking.uri=file:///tmp/x"], "give the address of a server"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_bad_input_gets_a_sentence_and_exit_code_2(
    tmp_path: Path,
    command_line: CommandLine,
    command: str,
    damage: str | None,
    options: list[str],
    sentence: str,
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    entries = read_manifest(corpus / "train.jsonl")
    audio = corpus / entries[1]["audio"]
    match damage:
        case "no audio":
            audio.unlink()
        case "noise":
            audio.write_bytes(os.urandom(1000))
        case "short":
            audio.write_bytes(audio.read_bytes()[: 44 + 2 * 900])
        case "no text" | "long text":
            entries[1]["text"] = "" if damage == "no text" else "red " * 50
            write_manifest(corpus / "train.jsonl", entries)
        case "no dev":
            (corpus / "dev.jsonl").write_text("")
    code, _, errors = command_line(
        *(command, TINY, "-o", f"runs={tmp_path / 'runs'}"),
        *("-o", f"corpus={{kind: manifest, folder: {corpus}}}", *options),
    )
    assert code == 2
    assert sentence in errors
    assert "Traceback" not in errors
    assert all(line.startswith(("error: ", "  ")) for line in errors.splitlines())


def test_a_study_that_has_not_begun_has_no_report(
    tmp_path: Path, command_line: CommandLine
) -> None:
    code, _, errors = command_line("report", TINY, "-o", f"runs={tmp_path}")
    assert code == 2
    assert "has not begun" in errors
