"""Passwords of addresses stand in the environment, and `${NAME}` stands in their place.

A study's file, its storage, MLflow and all messages hold an address as it was written; what
`expand` returns is for connecting alone. Nothing here imports torch, Optuna or MLflow.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from study.errors import InputError

VARIABLE = re.compile(r"\$\{(\w+)\}")
"""A variable of the environment, as an address may hold it."""
_PASSWORD = re.compile(
    r"://[^/?#]*:(?!\$\{\w+\}@)[^@]+@"
    r"|^https?://(?!\$\{\w+\}@)[^/?#@:]+@"  # a token: a server asks for no name alone
    r"|[?&][^=&]*(?:password|passwd|pwd|secret|token)[^=&]*=(?!\$\{\w+\}(?:&|$))",
    re.IGNORECASE,
)


def holds_password(url: str) -> bool:
    """Whether an address holds a password itself, and not a variable in its place."""
    return _PASSWORD.search(url) is not None


def refusal(variable: str) -> str:
    """What is wrong with an address that holds a password, and a variable that would do."""
    return (
        f"holds a password, which all could read: write ${{{variable}}} in its place, and set "
        "that variable in the environment"
    )


def expand(url: str, key: str = "storage") -> str:
    """The address with `${NAME}` replaced from the environment: secret, and for connecting alone.

    Raises `InputError` where the environment lacks a variable; `key` says whose address it is.
    """
    missing = [name for name in VARIABLE.findall(url) if name not in os.environ]
    if missing:
        raise InputError(
            f"{key}: the environment has no variable {missing[0]}, which {url} needs: "
            f"export {missing[0]}=… before you start"
        )

    def value(match: re.Match[str]) -> str:
        return os.environ[match[1]]

    user, at, place = url.rpartition("@")
    user = VARIABLE.sub(lambda match: quote(value(match), safe=""), user)
    return user + at + VARIABLE.sub(value, place)
