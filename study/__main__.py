"""The command line: `python -m study --help`.

Exit codes: 0 done, 1 the study could not finish, 2 something to mend in what was given, 130
interrupted. Heavy libraries are imported by the commands that need them, so that help and faults
come at once.
"""

from __future__ import annotations

import sys

import typer

from study.commands import answers, corpora, networks, studies, watching, winner
from study.errors import InputError

app = typer.Typer(
    help="Find, with evidence, what shape a Conformer speech recogniser should have for a corpus.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for commands in (studies, watching, answers, winner, corpora, networks):
    app.add_typer(commands.app)


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
