"""Commands that watch a study from outside, while it runs or later: status and dashboard."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from study.commands.options import (
    DEFAULT,
    File,
    Overrides,
    Port,
    as_given,
    console,
    load_study,
    open_begun,
)

app = typer.Typer()
PANEL = "Watch a study"


@app.command(rich_help_panel=PANEL)
def status(
    file: File = DEFAULT,
    override: Overrides = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh until the study is finished.")
    ] = False,
) -> None:
    """Show a study's trials, workers, best and time left.

    It reads Optuna's storage alone, so that it works on any machine that sees that, whether the
    study runs or not. What is not a terminal gets plain lines.
    """
    from study.status import follow, show

    config = load_study(file, override)
    study = open_begun(config)
    with contextlib.suppress(KeyboardInterrupt):  # the way to stop watching; the study goes on
        (follow if watch else show)(study, config, console(), as_given(file, override))


@app.command(rich_help_panel=PANEL)
def dashboard(
    file: File = DEFAULT,
    override: Overrides = None,
    port: Port = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Open Optuna Dashboard on a study.

    On this machine alone, unless told otherwise.
    """
    from study.dashboard import serve

    serve(open_begun(load_study(file, override)), host=host, port=port)
