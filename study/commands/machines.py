"""Commands for studies on many machines: worker and serve."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from study.commands.options import DEFAULT, File, Overrides, load_study

app = typer.Typer()
PANEL = "Many workers, many machines"


@app.command(rich_help_panel=PANEL)
def worker(
    file: File = DEFAULT,
    override: Overrides = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run trials of a study that has begun, until none waits."""
    from study.worker import work

    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    raise typer.Exit(work(load_study(file, override), parent=parent))


@app.command(rich_help_panel=PANEL)
def serve(
    file: File = DEFAULT,
    override: Overrides = None,
    port: Annotated[int, typer.Option(help="The port.")] = 13000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Stand in front of a study's database, for many workers.

    They reach it with `storage: grpc://HOST:PORT`. Whoever reaches the port can read and change the
    study: it asks for no password. So it listens on this machine alone unless told otherwise.
    """
    from study.connection import serve as serve_storage

    serve_storage(load_study(file, override), host, port)
