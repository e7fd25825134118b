"""Commands that use what a study trained: transcribe, register, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from study import importing
from study.commands.options import (
    DEFAULT,
    Device,
    File,
    Overrides,
    console,
    load_study,
    open_begun,
)
from study.errors import InputError

app = typer.Typer()
PANEL = "Use the winner"

Study = Annotated[Path, typer.Option("--study", metavar="FILE", help="The study, as YAML.")]
Trial = Annotated[
    int | None, typer.Option(min=0, help="The network of this trial; by default the winner's.")
]


@app.command(rich_help_panel=PANEL)
def transcribe(
    audio: Annotated[
        list[Path], typer.Argument(metavar="AUDIO...", help="Anything that soundfile reads.")
    ],
    study: Study = DEFAULT,
    override: Overrides = None,
    trial: Trial = None,
    device: Device = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="No beam search: faster.")] = False,
    segments: Annotated[
        bool, typer.Option("--segments", help="A line for each piece, with its times.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
) -> None:
    """Transcribe audio files with the winner of a study.

    A line for each file goes to stdout, its path and its text; the rest goes to stderr.
    """
    with importing.for_good():
        from study import transcribe as transcribing
        from study import winner
        from study.transcription.transcriber import Transcriber, shortest
        from study.worker import choose_device

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    config = load_study(study, override, device=device)
    opened = open_begun(config)
    chosen = (
        winner.winner(config, opened) if trial is None else winner.trained(config, opened, trial)
    )
    recordings = transcribing.look(audio, shortest=shortest(chosen.features))
    say(chosen.introduction)
    for note in transcribing.notes(recordings, chosen.features.sample_rate):
        say(note)
    transcribing.transcribe(
        recordings,
        Transcriber(chosen, choose_device(config.device)),
        greedy=greedy,
        segments=segments,
        as_json=as_json,
        write=lambda line: print(line, flush=True),
        say=say,
    )


@app.command(rich_help_panel=PANEL)
def register(
    file: File = DEFAULT,
    override: Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="In the registry; by default the study's name.")
    ] = None,
    alias: Annotated[str, typer.Option(help="For the version, as in NAME@champion.")] = "champion",
    trial: Trial = None,
) -> None:
    """Register the winner's network in MLflow, ready to be served.

    `run` does so by itself where `tracking.register_as` gives a name.
    """
    from study import winner
    from study.tracking import model
    from study.tracking.sync import open_experiment

    config = load_study(file, override)
    if not config.tracking.enabled:
        raise InputError("tracking.enabled is false: this study is not logged to MLflow")
    study = open_begun(config)
    chosen = winner.winner(config, study) if trial is None else winner.trained(config, study, trial)
    experiment = open_experiment(config, study)
    if experiment is None:  # which was said
        raise typer.Exit(1)
    model_id, _ = model.log_model(experiment, chosen)
    version = model.register(experiment, model_id, name or config.name, alias)
    uri = f"models:/{name or config.name}@{alias}"
    shown = console()
    said = f"{chosen.label} is version {version}, {uri}. To serve it and to ask it:"
    shown.print(said, markup=False)
    shown.print()
    for line in model.serving(experiment, uri):
        shown.print(f"    {line}", highlight=False, soft_wrap=True, markup=False)


export = typer.Typer(help="Take a trained network elsewhere.", no_args_is_help=True)
app.add_typer(export, name="export", rich_help_panel=PANEL)


@export.command("espnet")
def export_to_espnet(
    file: File = DEFAULT,
    override: Overrides = None,
    trial: Trial = None,
    to: Annotated[
        Path | None, typer.Option(help="The folder to write; by default in the study's folder.")
    ] = None,
) -> None:
    """Write the network that a study recommends as ESPnet's config and checkpoint."""
    from study import winner
    from study.export import export_espnet, expressible

    config = load_study(file, override)
    study = open_begun(config)
    chosen = winner.winner(config, study) if trial is None else winner.trained(config, study, trial)
    folder = to or config.folder / "espnet" / f"trial-{chosen.trial}"
    export_espnet(expressible(config, study, chosen), folder)
    for line in (chosen.introduction, f"ESPnet   {folder}"):
        console().print(line, highlight=False, markup=False, soft_wrap=True)
