"""Commands that write and run a study: init, check, run, finalists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from study import importing
from study.commands.options import (
    DEFAULT,
    Device,
    File,
    Overrides,
    Workers,
    as_given,
    console,
    load_study,
    open_begun,
)
from study.errors import InputError, nearest

app = typer.Typer()
PANEL = "Run a study"


@app.command("init", rich_help_panel=PANEL)
def write_study(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of a corpus.")],
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write; by default the folder's name.yaml."),
    ] = None,
    device: Device = None,
    allow_outside: Annotated[
        bool,
        typer.Option("--allow-outside", help="Let its lists name audio outside of the folder."),
    ] = False,
) -> None:
    """Write a commented study for a corpus of yours.

    It recognises LibriSpeech, KsponSpeech, Common Voice, Kaldi, Lhotse and JSON lines by their
    files, looks at hours, texts and lengths, and chooses ranges, budget and batch for them and for
    the device. Nothing is overwritten, and nothing is trained.
    """
    from study.init import init

    init(folder, to, device or "auto", console(), allow_outside=allow_outside)


@app.command(rich_help_panel=PANEL)
def keys(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORD]...", help="What to look for.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="All of them, as docs/study-yaml.md has them.")
    ] = False,
) -> None:
    """Look up what may stand in study.yaml.

    For each key: its default, what it takes, and what it does. With words, those keys whose name or
    description holds all of them.
    """
    from study import keys as known

    if markdown:
        print(known.as_markdown(), end="")
        return
    found = known.matching(words or [])
    if not found:
        asked = " ".join(words or [])
        paths = [key.path for section in known.sections() for key in section.keys]
        raise InputError(f"no key of study.yaml speaks of '{asked}'{nearest(asked, paths)}")
    known.show(found, console())


@app.command(rich_help_panel=PANEL)
def run(
    file: File = DEFAULT,
    override: Overrides = None,
    workers: Workers = None,
    device: Device = None,
    accept_changed_corpus: Annotated[
        bool,
        typer.Option(
            "--accept-changed-corpus",
            help="Go on although the corpus is not what it was; the report says so.",
        ),
    ] = False,
    retry_crashed: Annotated[
        bool,
        typer.Option(
            "--retry-crashed", help="Train trials that crashed anew, each as another trial."
        ),
    ] = False,
) -> None:
    """Run a study, or go on with it where it stopped.

    It searches and trains, logs to MLflow, trains the finalists, and writes the report.
    """
    with importing.for_good():
        from study.runner import run as run_study

    config = load_study(file, override, workers=workers, device=device)
    code = run_study(
        config,
        console(),
        as_given(file, override),
        accept_changed_corpus=accept_changed_corpus,
        retry_crashed=retry_crashed,
    )
    raise typer.Exit(code)


@app.command(rich_help_panel=PANEL)
def check(
    file: File = DEFAULT,
    override: Overrides = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Say what a study will do, and how long; train nothing.

    It reads the study and its corpus and refuses whatever `run` would refuse.
    """
    with importing.for_good():
        from study.check import check as check_study

    check_study(load_study(file, override, workers=workers, device=device), console())


@app.command("finalists", rich_help_panel=PANEL)
def train_finalists(
    file: File = DEFAULT,
    override: Overrides = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Train the finalists of a search that is over.

    `run` does so by itself; this asks for more of them: `-o finalists.seeds=5`.
    """
    with importing.for_good():
        from study.runner import run as run_study
        from study.storage import search_is_over

    config = load_study(file, override, workers=workers, device=device)
    if not config.finalists.top:
        raise InputError("finalists.top is 0, so there are none: ask for some, -o finalists.top=2")
    if not search_is_over(open_begun(config).get_trials(deepcopy=False)):
        raise InputError(
            f"the search of the study '{config.name}' is not over: run it to its end first"
        )
    raise typer.Exit(run_study(config, console(), as_given(file, override)))


@app.command(rich_help_panel=PANEL)
def sync(file: File = DEFAULT, override: Overrides = None) -> None:
    """Deliver to MLflow what it lacks of a study.

    Such as after its server was down.
    """
    from study.tracking.sync import deliver, open_experiment

    config = load_study(file, override)
    if not config.tracking.enabled:
        raise InputError("tracking.enabled is false: this study is not logged to MLflow")
    study = open_begun(config)
    experiment = open_experiment(config, study)
    if experiment is None:  # which was said
        raise typer.Exit(1)
    delivered = deliver(config, study, experiment)
    console().print(delivered.in_words(), highlight=False)
    raise typer.Exit(int(delivered.missing > 0))
