"""Every command in the documents: run for real where that is cheap, and parsed where it is not.

All commands that are run share one folder and one tiny study, and are run in the order of the documents, as a
reader would. `PARSED` says which are only parsed, and why.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from study import __main__
from study.config_file import from_text
from tests.command_line import CommandLine
from tests.speech import write_corpus, write_tone
from tests.study.data import layouts

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    "README.md",
    "docs/first-study.md",
    "docs/your-corpus.md",
    "docs/study-yaml.md",
    "docs/reading-a-report.md",
    "docs/on-a-gpu.md",
    "docs/answers.md",
    "docs/many-machines.md",
    "README.ko.md",
]
PARSED = {
    # the beginning of a command -> why a test does not run it
    "run mine.yaml": "trains 34 trials; tests/study/test_init.py runs such a study with fewer",
    "status --watch": "waits until a study is finished; tests/study/test_status.py follows one",
    "status mine.yaml --watch": "the same",
    "transcribe a.wav --study mine.yaml": "that study is not run",
    "export espnet mine.yaml": "that study is not run",
    "compare mine.yaml other.yaml": "that study is not run",
    "ui": "serves until it is stopped; tests/study/tracking/test_ui.py runs it",
    "dashboard": "serves until it is stopped; tests/study/test_dashboard.py runs it",
    "serve": "serves until it is stopped; tests/study/test_connection.py runs it",
    "worker": "tests/study/test_run.py starts workers",
    "check gpu.yaml": "needs a GPU",
    "run gpu.yaml": "needs a GPU",
    "run -o explore.trials=16": "a study is extended in tests/study/test_run.py",
    "finalists -o finalists.seeds=5": "the same",
    "run other.yaml": "the fixture does, in another way: it is run like the first",
    "compare study.yaml other.yaml": "needs that second study; tests/study/test_run.py compares two",
    "register": "tests/study/tracking/test_model.py registers and serves a model",
    "corpus studies/ksponspeech.yaml": "needs KsponSpeech",
    "check studies/ksponspeech.yaml": "needs KsponSpeech",
    "run studies/ksponspeech.yaml": "needs KsponSpeech and a GPU",
}
OTHERS = ("make", "source", "python -m benchmarks", "conformer-study --install-completion",
          "pip install", "export", "cp", "git", "psql", "createdb", "ssh", "sbatch", "ray",
          "mlflow", "STUDY_", "curl")  # fmt: skip
"""What else commands in the documents may begin with."""

_GROUP: Any = get_command(__main__.app)


def _commands(document: str) -> list[str]:
    """The lines of the shell blocks of a document, without comments."""
    text = (ROOT / document).read_text(encoding="utf-8") if (ROOT / document).is_file() else ""
    lines = []
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            command = shlex.join(shlex.split(line, comments=True))
            if command:
                lines.append(command)
    return lines


ALL = [(document, command) for document in DOCUMENTS for command in _commands(document)]
OURS = [
    (document, command.split(" -m study " if " -m study " in command else "conformer-study ", 1)[1])
    for document, command in ALL
    if re.match(r"(python -m study|conformer-study) ", command) and "--install-" not in command
]
SETTINGS = [
    (document, block)
    for document in DOCUMENTS
    for block in re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S
    )
]


def _why_not(command: str) -> str | None:
    """Why a command is only parsed: by the longest beginning that is known."""
    known = [begin for begin in PARSED if command == begin or command.startswith(f"{begin} ")]
    return PARSED[max(known, key=len)] if known else None


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: the default study (a tiny one here), a corpus, a recording."""
    folder = tmp_path_factory.mktemp("desk")
    study = yaml.safe_load((ROOT / "tests" / "tiny_study.yaml").read_text())
    study |= {"name": "laptop", "explore": {"trials": 1}, "refine": {"trials": 0}}
    study["finalists"] = {"top": 1, "seeds": 1, "anchors": False}
    study["anchors"] = []
    study["corpus"] = {"kind": "manifest", "folder": "corpora/mine", "max_bad_utterances": 1}
    study["launcher"] = {"workers": 1}
    study["tracking"] = {"enabled": False}  # its database takes longer to make than all the rest
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    write_corpus(folder / "corpora" / "mine")
    layouts.write_kaldi_elsewhere(folder / "corpora" / "kaldi")
    write_tone(folder / "recording.wav", 1.0)
    shutil.copytree(ROOT / "studies", folder / "studies")
    return folder


@pytest.mark.parametrize(("document", "command"), OURS)
def test_every_command_of_the_documents_is_understood(document: str, command: str) -> None:
    group: Any = _GROUP
    name, *arguments = shlex.split(command)
    while name != "--help":  # which no context survives
        group = group.commands[name]
        if not hasattr(group, "commands"):
            group.make_context(name, arguments)
            break
        name, *arguments = arguments


def test_the_commands_of_the_documents_do_what_they_say(
    desk: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the workers that run starts
    done: set[str] = set()
    for document, command in [("README.md", "run"), *OURS]:
        if command in done or _why_not(command):
            continue
        done.add(command)
        if command.startswith("init"):  # which overwrites nothing
            for file in desk.glob("mine.yaml"):
                file.unlink()
        said = command_line(*shlex.split(command))
        assert said.code == 0, f"{document}: {command}\n{said.output}\n{said.errors}"
    assert {"run", "status", "report", "check mine.yaml", "corpus mine.yaml"} <= done
    assert (desk / "runs" / "laptop" / "report" / "index.html").is_file()


def test_every_reason_not_to_run_a_command_is_of_a_command_that_is_there() -> None:
    used = {_why_not(command) for _, command in OURS}
    assert [begin for begin in PARSED if not any(c.startswith(begin) for _, c in OURS)] == []
    assert None in used
    named = re.findall(r"tests/\S+\.py", " ".join(PARSED.values()))
    assert named and [file for file in named if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize(("document", "command"), ALL)
def test_whatever_else_the_documents_tell_to_type_is_there(document: str, command: str) -> None:
    if re.match(r"(python -m study|conformer-study) ", command):
        return
    assert command.startswith(OTHERS), document
    words = command.split()
    if words[0] == "make":
        assert f"\n{words[1]}: " in (ROOT / "Makefile").read_text()
    if command.startswith("python -m benchmarks"):
        assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()


@pytest.mark.parametrize(("document", "settings"), SETTINGS)
def test_a_study_takes_the_settings_of_the_documents(document: str, settings: str) -> None:
    study = yaml.safe_load((ROOT / "tests" / "tiny_study.yaml").read_text())
    from_text(Path(document), yaml.safe_dump(study | yaml.safe_load(settings)))


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if (ROOT / d).is_file()])
def test_links_lead_to_files_and_extras_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / document).parent / link).exists(), link
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"conformer-study\[([a-z]+)\]", text):
        assert extra in project["optional-dependencies"]
    for command in re.findall(r"`python -m study ([a-z]+)", text):
        assert command in _GROUP.commands


def test_the_table_of_init_is_that_of_the_rules() -> None:
    from study.scales import SCALES

    text = (ROOT / "docs" / "your-corpus.md").read_text()
    rows = re.findall(r"^\| (?:below|above)? ?([\d–]+) \|(.*)\|$", text, re.M)
    assert len(rows) == len(SCALES)
    for (_, row), scale in zip(rows, SCALES, strict=True):
        cells = [cell.strip() for cell in row.split("|")]
        layers = yaml.safe_load(scale.search["encoder_layers"])
        widths = yaml.safe_load(scale.search["encoder_dim"])["choices"]
        ends = [layers["low"], layers["high"]] if "low" in layers else layers["choices"]
        assert cells[0] == f"{ends[0]}–{ends[-1]} layers of {widths[0]}–{widths[-1]}"
        assert cells[2] == f"{scale.batch_seconds:g} s"
        assert cells[3] == f"{scale.epochs:g}"
        assert cells[4] == f"{scale.explore} + {scale.refine}"
