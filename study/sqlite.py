"""SQLite files that processes of one machine write to at once: the study's, and MLflow's."""

from __future__ import annotations

from typing import Any

import sqlalchemy.event
from sqlalchemy import Engine


def skip_flush(engine: Engine) -> None:
    """Do not wait for the disk at each change, where SQLite's log (WAL) makes that safe.

    What a process has written stays when it is killed. A power failure can take the last changes
    back, never half of one: a trial goes on from its checkpoint then, and `sync` delivers to MLflow
    again what that has lost. Asked for twice it is done once.
    """
    if not sqlalchemy.event.contains(engine, "connect", _without_flush):
        sqlalchemy.event.listen(engine, "connect", _without_flush)
        engine.dispose()  # what is connected already would go on flushing


def _without_flush(connection: Any, record: object) -> None:
    del record
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        connection.execute("PRAGMA synchronous=NORMAL")
