"""Addresses of MLflow's store, and texts without the passwords in them."""

from __future__ import annotations

import re
from pathlib import Path

from study.errors import InputError
from study.passwords import expand


def tracking_uri(runs: Path, configured: str | None) -> str:
    """The address of MLflow's store: the configured one, or one database for all of `runs`.

    A variable that stands for a password stays one, until somebody connects.

    Raises:
        InputError: for a kind of address that MLflow cannot log to, such as a plain folder, and
            where the environment lacks a variable of it.

    """
    if configured is None:
        return f"sqlite:///{runs.resolve() / 'mlflow.db'}"
    scheme = re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:|https?://", configured)
    if scheme is None:
        raise InputError(
            f"tracking: MLflow cannot log to {redact(configured)!r}; give the address of a "
            "server (http://host:5000) or of a database (sqlite:////folder/mlflow.db, "
            "postgresql://…)."
        )
    expanded = expand(configured, "tracking.uri")
    database = sqlite_file(expanded)
    if database is None:
        return configured
    options = expanded.partition("?")
    return f"sqlite:///{database}{options[1]}{options[2]}"


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of the database file, or None where the address is no SQLite file."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(match[1]).resolve() if match else None


def is_server(uri: str) -> bool:
    """Whether the address is an MLflow server's, and not a database."""
    return uri.startswith(("http://", "https://"))


def redact(text: str) -> str:
    """The text without the passwords of the addresses in it.

    A part between ``://`` and ``@`` goes whole, as does the value of a query argument named like
    a secret. It rather removes too much than too little.
    """
    text = re.sub(r"://(?:[^\s'\"/@]*:[^\s'\"]*|[^\s'\"/@]*)@", "://***@", text)
    return re.sub(
        r"(?i)([?&][^=&\s]*(?:password|passwd|pwd|secret|token)[^=&\s]*=)[^&\s'\"]+", r"\1***", text
    )
