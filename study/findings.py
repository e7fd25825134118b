"""What a study found, on a terminal: the answers, and what speaks against them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from study.errors import InputError

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from reports import ReportFiles
    from study.config import StudyConfig


def write(config: StudyConfig, study: optuna.Study) -> ReportFiles:
    """Write the report of a study into its folder. Raises `InputError` where it holds no study."""
    import reports

    try:
        return reports.write(
            study._storage, config.name, config.folder / "report", config.folder / "trials"
        )
    except reports.StudyUnreadable as error:
        raise InputError(str(error)) from None


def show(files: ReportFiles, console: Console) -> None:
    """Print the winner, the six answers, the checks that are bad, and where the report lies."""

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, markup=False)  # names may hold brackets

    say(files.answer.sentence, style="bold")
    if files.answer.best is not None:
        say("The answers, read from the trials together:")
        for question in files.answers.questions:
            say(f"  {question.name:17} {question.headline}")
        say(f"Can they be believed? {files.checks.sentence}")
        for check in files.checks.checks:
            if check.status == "bad":
                text = Text(f"{check.title}: {check.text}")
                first, *others = text.wrap(console, max(20, console.width - 4))
                say(f"  {check.mark} {first.plain.rstrip()}")
                for line in others:
                    say(f"    {line.plain.rstrip()}")
    say("")
    console.print(f"report   {short(files.html)}", highlight=False, markup=False, soft_wrap=True)


def short(file: Path) -> Path:
    """A path as seen from the working directory, where it lies below it."""
    absolute = file.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
