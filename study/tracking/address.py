"""Addresses of MLflow's store."""

from __future__ import annotations

import re
from pathlib import Path

from reports.redaction import redact
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
