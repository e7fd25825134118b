"""The command line: `python -m study --help`.

Exit codes: 0 done, 1 the study could not finish, 2 something to mend in what was given, 130
interrupted. Heavy libraries are imported by the commands that need them, so that help and faults
come at once.
"""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from study.config import StudyConfig

app = typer.Typer(
    help="Find, with evidence, what shape a Conformer speech recogniser should have for a corpus.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(metavar="[FILE]", help="The study, as YAML.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="PATH=VALUE", help="Set any key: -o explore.trials=4"),
]
Device = Annotated[
    str | None, typer.Option(metavar="auto|cuda|cpu", help="Where to train.", show_default=False)
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that run trials.")]

DEFAULT = Path("study.yaml")


@app.command()
def run(
    file: File = DEFAULT,
    override: Overrides = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Run a study, or go on with it: search, train, log to MLflow, write the report."""
    from study.runner import run as run_study

    config = _load(file, override, workers=workers, device=device)
    given = [str(file)] if file != DEFAULT else []
    for option in override or []:
        given += ["-o", option]
    raise typer.Exit(run_study(config, _console(), "".join(f" {shlex.quote(g)}" for g in given)))


@app.command()
def check(
    file: File = DEFAULT,
    override: Overrides = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Read and check a study, its corpus included, and say what it will do; train nothing."""
    from study.check import check as check_study

    check_study(_load(file, override, workers=workers, device=device), _console())


@app.command()
def corpus(file: File = DEFAULT, override: Overrides = None) -> None:
    """Show a study's corpus: how much speech, what cannot be used, what its splits share."""
    from study.corpus_summary import show, summarise

    config = _load(file, override)
    splits = config.corpus.read(config.cache)
    show(config.corpus, summarise(splits, shortest=config.features.window), _console())


@app.command()
def count(
    shapes: Annotated[
        list[str],
        typer.Argument(metavar="SHAPE...", help="A recipe's name, or key=value of `network`."),
    ],
    vocabulary: Annotated[
        int | None, typer.Option(min=4, help="Tokens, the three special ones included.")
    ] = None,
    mels: Annotated[int, typer.Option(min=7, help="Mel bands.")] = 80,
) -> None:
    """Count the parameters and the arithmetic of networks: count espnet-ksponspeech."""
    from study.count import count as count_shapes
    from study.count import show

    show(count_shapes(shapes, mels=mels, vocabulary=vocabulary), _console())


@app.command()
def report(file: File = DEFAULT, override: Overrides = None) -> None:
    """Write the report of a study again, finished or not."""
    import reports

    config = _begun(_load(file, override))
    try:
        files = reports.write(
            config.storage_url, config.name, config.folder / "report", config.folder / "trials"
        )
    except reports.StudyUnreadable as error:
        raise InputError(str(error)) from None
    console = _console()
    console.print(files.answer.sentence, highlight=False)
    console.print(f"report   {files.html}", highlight=False, soft_wrap=True)


@app.command("finalists")
def train_finalists(
    file: File = DEFAULT,
    override: Overrides = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Train the finalists of a finished search: more of them with -o finalists.seeds=5."""
    from study.finalists import search_is_over
    from study.runner import run as run_study
    from study.storage import open_study

    config = _begun(_load(file, override, workers=workers, device=device))
    if not search_is_over(open_study(config)):
        raise InputError(
            f"the search of the study '{config.name}' is not over: run it to its end first"
        )
    raise typer.Exit(run_study(config, _console()))


@app.command()
def compare(
    files: Annotated[list[Path], typer.Argument(metavar="FILE FILE...", help="Studies, as YAML.")],
    to: Annotated[
        Path | None, typer.Option(help="The folder for the page; by default among the runs.")
    ] = None,
) -> None:
    """Compare the answers of studies on one page: compare laptop.yaml other-seed.yaml."""
    import reports

    if len(files) < 2:
        raise InputError("compare: give two studies or more")
    configs = [_begun(_load(file, None)) for file in files]
    folder = to or configs[0].runs / "compared" / "-".join(config.name for config in configs)
    try:
        page = reports.compare([(c.storage_url, c.name) for c in configs], folder)
    except reports.StudyUnreadable as error:
        raise InputError(str(error)) from None
    _console().print(f"comparison   {page}", highlight=False, soft_wrap=True)


@app.command()
def ui(
    file: File = DEFAULT,
    override: Overrides = None,
    port: Annotated[int | None, typer.Option(help="The port; by default a free one.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Open MLflow's UI on the study's runs, on this machine alone unless told otherwise."""
    from study.mlflow_ui import serve
    from study.tracking import tracking_uri

    config = _load(file, override)
    experiment, parent = _logged(config)
    serve(
        tracking_uri(config.runs, config.tracking.uri),
        experiment,
        parent,
        artifacts=config.runs / "mlartifacts",
        host=host,
        port=port,
    )


@app.command(hidden=True)
def worker(file: File, parent: Annotated[int | None, typer.Option()] = None) -> None:
    """Run trials of a study that has begun, until none waits."""
    from study.worker import work

    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    raise typer.Exit(work(_load(file, None), parent=parent))


def _begun(config: StudyConfig) -> StudyConfig:
    if config.storage is None and not (config.folder / "study.db").is_file():
        raise InputError(f"the study '{config.name}' has not begun: there is no {config.folder}")
    return config


def _load(
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


def _logged(config: StudyConfig) -> tuple[str | None, str | None]:
    """MLflow's experiment and parent run of a study, where it has begun."""
    if config.storage is None and not (config.folder / "study.db").is_file():
        return None, None
    from study.storage import open_study

    try:
        attribute = open_study(config).user_attrs.get("mlflow") or {}
    except KeyError:
        return None, None
    return attribute.get("experiment_id"), attribute.get("run_id")


def _console() -> Console:
    from rich.console import Console

    return Console()


def main() -> None:
    """Run the command line; faults of the input are printed as sentences."""
    try:
        app()
    except InputError as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
