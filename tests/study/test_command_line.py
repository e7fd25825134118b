"""The command line itself: help, examples, errors, completion, and the two ways to call it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from study import __main__
from study.commands.examples import EXAMPLES
from tests.command_line import CommandLine

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "optuna", "mlflow", "pandas", "scipy", "sqlalchemy", "pydantic", "numpy")

_GROUP: Any = get_command(__main__.app)
COMMANDS: dict[str, Any] = _GROUP.commands
LEAVES: dict[str, Any] = {
    f"{name} {inner}".strip(): leaf
    for name, command in COMMANDS.items()
    for inner, leaf in getattr(command, "commands", {"": command}).items()
}
"""Commands, and those of groups, by what is typed."""
VISIBLE = [name for name, command in LEAVES.items() if not command.hidden]


def _script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the installed console script does."""
    program = (
        "import sys; sys.argv[0] = '/usr/bin/conformer-study'; from study.__main__ import main;"
        "import sys; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", VISIBLE)
def test_every_command_has_examples_and_each_parses(name: str) -> None:
    examples = EXAMPLES[name]
    assert examples
    for example in examples:
        assert f"{example} ".startswith(f"{name} ")
        arguments = shlex.split(example.removeprefix(name))
        LEAVES[name].make_context(name, arguments)  # raises on what it does not understand


def test_there_are_no_examples_of_commands_that_are_gone() -> None:
    assert set(EXAMPLES) <= set(LEAVES)


@pytest.mark.parametrize("name", VISIBLE)
def test_the_help_of_every_command_fits_80_columns_and_ends_with_its_examples(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = command_line(*name.split(), "--help")
    assert said.code == 0
    assert max(map(len, said.output.splitlines())) <= 80
    words = " ".join(said.output.partition("Examples")[2].split())
    for example in EXAMPLES[name]:
        assert f"python -m study {example}" in words


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_help_names_every_command_in_one_line_and_the_exit_codes(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = command_line(*arguments)
    assert said.code == 0
    rows = [line.strip("│ ").split(" ")[0] for line in said.output.splitlines() if line[:1] == "│"]
    assert rows == [
        "--help",
        *(n for n, command in COMMANDS.items() if not command.hidden),
    ]  # a row that is continued would begin with something else
    assert "0 done · 1 the study could not finish · 2 something to mend" in said.output


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from study.__main__ import main\n"
        "try: main()\n"
        f"finally: print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stderr.split() == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "--nope"], "no such option: --nope. Help: python -m study run --help"),
        (["--nope"], "no such option: --nope. Help: python -m study --help"),
        (["runn"], "no such command 'runn'. Did you mean 'run'? Help: python -m study --help"),
        (["run", "--workers", "x"], "invalid value for '--workers'"),
        (["run", "--workers", "0"], "invalid value for '--workers'"),
        (["run", "--workers"], "'--workers' requires an argument"),
        (["run", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["run", "none.yaml"], "there is no study file none.yaml"),
        (["count"], "missing argument 'SHAPE...'"),
        (["ui", "--port", "x"], "invalid value for '--port'"),
        (["status", "--watch=1"], "--watch"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    command_line: CommandLine, arguments: list[str], complaint: str
) -> None:
    said = command_line(*arguments)
    assert said.code == 2
    assert said.output == ""
    assert said.errors.startswith("error: ")
    assert complaint in said.errors
    assert said.errors.count("\n") == 1


def test_an_interruption_and_an_exit_code_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    import study.check

    for raised, code in ((KeyboardInterrupt(), 130), (typer.Exit(1), 1)):

        def check(*_: object, raised: BaseException = raised) -> None:
            raise raised

        monkeypatch.setattr(study.check, "check", check)
        assert command_line("check", ROOT / "tests" / "tiny_study.yaml").code == code


def test_the_console_script_is_the_same_and_speaks_of_itself() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"conformer-study": "study.__main__:main"}
    help_ = _script("run", "--help").stdout
    assert "Usage: conformer-study run" in help_
    assert "conformer-study run studies/so762.yaml" in help_
    assert "python -m" not in help_
    result = _script("status", "tests/tiny_study.yaml", "-o", "runs=none")
    assert result.returncode == 2
    assert "conformer-study run FILE begins it" in result.stderr


def test_shells_complete_the_console_script() -> None:
    result = _script(
        _CONFORMER_STUDY_COMPLETE="complete_bash",
        COMP_WORDS="conformer-study st",
        COMP_CWORD="1",
    )
    assert result.stdout.split() == ["status"]
    shown = _script(
        _CONFORMER_STUDY_COMPLETE="source_bash",
    ).stdout
    assert "complete " in shown
    assert "conformer-study" in shown


def test_a_module_of_python_offers_no_completion(command_line: CommandLine) -> None:
    assert "completion" not in command_line("--help").output
    assert "--install-completion" in _script("--help").stdout
