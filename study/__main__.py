"""The command line: `python -m study --help`, or `conformer-study --help` where it is installed.

Heavy libraries are imported by the commands that need them, so that help and faults come at once.
"""

from __future__ import annotations

import errno
import sys
from typing import NoReturn

import typer

from study.commands import answers, corpora, examples, machines, networks, studies, watching, winner
from study.errors import InputError, Unavailable
from study.invocation import SCRIPT, program

NOT_OURS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
"""What a machine refuses: disks that are full or read-only, folders of somebody else."""

DONE, UNFINISHED, REFUSED, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = (
    f"**Exit codes** {DONE} done · {UNFINISHED} the study could not finish · "
    f"{REFUSED} something to mend in what was given · {INTERRUPTED} interrupted, goes on when run "
    "again"
)

app = typer.Typer(
    help="Find, with evidence, what shape a Conformer speech recogniser should have for a corpus.",
    epilog=EXIT_CODES,
    add_completion=program() == SCRIPT,  # shells complete commands, not modules of Python
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for commands in (studies, watching, machines, answers, winner, corpora, networks):
    examples.attach(commands.app)
    app.add_typer(commands.app)


def main() -> NoReturn:
    """Run the command line; what is wrong with the input is printed as sentences."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name=program(), standalone_mode=False)
    except InputError as error:
        _refuse(error.faults)
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(UNFINISHED)
    except OSError as error:
        if error.errno not in NOT_OURS or error.filename is None:
            raise
        _refuse([f"{error.filename}: {error.strerror}: make room, allow it, or name another place"])
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:  # typer's own complaints have no public base class
        complaint = getattr(error, "format_message", None)
        if complaint is None:
            raise
        sentence = complaint()
        context = getattr(error, "ctx", None)
        path = context.command_path if context else program()
        end = "" if sentence.endswith((".", "?")) else "."
        _refuse([f"{sentence[:1].lower()}{sentence[1:]}{end} Help: {path} --help"])
    sys.exit(code if isinstance(code, int) else DONE)


def _refuse(faults: list[str]) -> NoReturn:
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
