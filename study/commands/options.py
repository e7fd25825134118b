"""What several commands take: a study's file and what is set on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.errors import InputError

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from study.config import StudyConfig

DEFAULT = Path("study.yaml")

File = Annotated[Path, typer.Argument(metavar="[FILE]", help="The study, as YAML.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="PATH=VALUE", help="Set any key: -o explore.trials=4"),
]
Device = Annotated[
    str | None, typer.Option(metavar="auto|cuda|cpu", help="Where to train.", show_default=False)
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that run trials.")]


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
    if config.storage is None and not (config.folder / "study.db").is_file():
        raise InputError(f"the study '{config.name}' has not begun: there is no {config.folder}")
    return config


def open_begun(config: StudyConfig) -> optuna.Study:
    """The study in its storage; raises `InputError` where it has not begun."""
    from study.storage import open_study

    try:
        study = open_study(begun(config))
    except KeyError:
        study = None
    if study is None or "config" not in study.user_attrs:
        raise InputError(f"the study '{config.name}' has not begun: run it first")
    return study


def console() -> Console:
    """Where commands print to."""
    from rich.console import Console

    return Console()
