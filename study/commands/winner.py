"""Commands that use what a study trained: transcribe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from study.commands.options import DEFAULT, Device, Overrides, begun, load_study

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
    from study import transcribe as transcribing
    from study import winner
    from study.storage import open_study
    from study.transcription.transcriber import Transcriber, shortest
    from study.worker import choose_device

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    config = begun(load_study(study, override, device=device))
    opened = open_study(config)
    chosen = (
        winner.winner(config, opened) if trial is None else winner.trained(config, opened, trial)
    )
    recordings = transcribing.look(audio, shortest=shortest(chosen.features))
    say(f"{chosen.label} of the study '{config.name}', {chosen.wer:.1%} WER on dev")
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
