"""Errors that are meant for people: what is wrong, where, and what to do.

An `InputError` is the user's to mend: the command line prints its sentences and
exits with code 2, without a traceback. Everything else is ours to mend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from study.invocation import program


class InputError(Exception):
    """One or more faults in what the user gave us, one sentence each.

    Faults that can be found together are raised together, so that a user mends a
    file once and not once per fault.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class Unavailable(Exception):
    """Something that a study needs from outside did not answer for longer than can be waited.

    The command line prints its sentence and exits with code 1; running the study again goes on.
    """


def not_begun(study: str, why: str) -> InputError:
    """The refusal of what needs a study that has begun."""
    return InputError(f"the study '{study}' has not begun: {why}; {program()} run FILE begins it")


def nearest(name: str, names: Iterable[str]) -> str:
    """'; did you mean …?' with the most similar of some names, or nothing where none is similar."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
