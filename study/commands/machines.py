"""Commands for studies on many machines: worker and serve."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from study import importing
from study.commands.options import DEFAULT, File, Overrides, load_study
from study.errors import InputError, Unavailable
from study.logs import FORMAT

app = typer.Typer()
PANEL = "Many workers, many machines"


@app.command(rich_help_panel=PANEL)
def worker(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The study, as YAML.")
    ] = None,
    override: Overrides = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Instead of FILE: the storage of the study …")
    ] = None,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="… and its name there.")] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Join a study that has begun, from any machine.

    It runs trials until none is left. The machine must see the study's storage and its corpus;
    however many workers there are, together they run the trials that were asked for and no more.
    One whose code, settings or corpus differ says so and does not start. Ctrl-C or SIGTERM saves
    and hands the trial back; so does SLURM's warning, SIGUSR2.
    """
    from study.stopping import STOPPED, StopRequest

    stop = StopRequest(parent)
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    if (storage is None) != (study is None) or (storage and file):
        raise InputError("worker: give a FILE, or both --storage URL and --study NAME")
    try:
        with importing.for_good():
            from study import joining
            from study.worker import work

        stop.loaded()
        if storage and study:
            config = joining.configuration(storage, study, override or [])
        else:
            config = load_study(file or DEFAULT, override)
        code = work(config, stop, stop.hold)
    except KeyboardInterrupt:
        code = STOPPED
    except Unavailable:
        if not stop.is_set():
            raise
        code = STOPPED  # it could not hand its trial back, which others will notice
    if code == STOPPED or stop.is_set():
        os._exit(code)  # what libraries do at the end of a process may take longer than there is
    raise typer.Exit(code)


@app.command(rich_help_panel=PANEL)
def serve(
    file: File = DEFAULT,
    override: Overrides = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 13000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Stand in front of a study's database, for many workers.

    They reach it with `storage: grpc://HOST:PORT`. Whoever reaches the port can read and change the
    study: it asks for no password. So it listens on this machine alone unless told otherwise.
    """
    from study.connection import serve as serve_storage

    serve_storage(load_study(file, override), host, port)
