"""Commands about speech: what a corpus holds."""

from __future__ import annotations

import typer

from study.commands.options import DEFAULT, File, Overrides, console, load_study

app = typer.Typer()
PANEL = "Look at speech and networks"


@app.command(rich_help_panel=PANEL)
def corpus(file: File = DEFAULT, override: Overrides = None) -> None:
    """Show how much speech a corpus has, and what is wrong with it.

    Hours, speakers, vocabulary and lengths, what cannot be used, and what its splits share.
    """
    from study.corpus_summary import show, summarise

    config = load_study(file, override)
    splits = config.corpus.read(config.cache)
    show(config.corpus, summarise(splits, shortest=config.features.window), console())
