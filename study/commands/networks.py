"""Commands about networks: what a shape costs."""

from __future__ import annotations

from typing import Annotated

import typer

from study.commands.corpora import PANEL
from study.commands.options import console

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
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
    """Count the parameters and the arithmetic of networks."""
    from study.count import count as count_shapes
    from study.count import show

    show(count_shapes(shapes, mels=mels, vocabulary=vocabulary), console())
