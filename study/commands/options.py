"""What several commands take: a study's file and what is set on top of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.errors import not_begun

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from study.config import StudyConfig

DEFAULT = Path("study.yaml")

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study, as YAML.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="PATH=VALUE", help="Set any key: -o explore.trials=4"),
]
Device = Annotated[
    str | None, typer.Option(metavar="auto|cuda|cpu", help="Where to compute.", show_default=False)
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that run trials.")]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="The port; by default a free one.")
]


def load_study(
    file: Path,
    overrides: list[str] | None,
    *,
    workers: int | None = None,
    device: str | None = None,
) -> StudyConfig:
    """The study of a file, with what the command line says on top."""
    from study.config_file import load

    options = list(overrides or [])
    if workers is not None:
        options.append(f"launcher.workers={workers}")
    if device is not None:
        options.append(f"device={device}")
    return load(file, options)


def begun(config: StudyConfig) -> StudyConfig:
    """The same study; raises `InputError` where it has not begun."""
    if not config.begun:
        file = config.storage_file
        there = file is not None and file.exists()
        raise not_begun(config.name, f"{file} is empty" if there else f"there is no {file}")
    return config


def open_begun(config: StudyConfig) -> optuna.Study:
    """The study in its storage; raises `InputError` where it has not begun."""
    from study.storage import open_study

    study = open_study(begun(config))
    if "config" not in study.user_attrs:
        raise not_begun(config.name, f"{config.storage_url} holds nothing but its name")
    return study


def as_given(file: Path, overrides: list[str] | None) -> str:
    """The arguments with which other commands find the same study."""
    given = [str(file)] if file != DEFAULT else []
    for option in overrides or []:
        given += ["-o", option]
    return shlex.join(given)


def console() -> Console:
    """Where commands print to."""
    from rich.console import Console

    return Console()
