"""Optuna's storage in a database: SQLite and PostgreSQL.

    storage = open_database("sqlite:///runs/study/study.db")

Of several processes that claim a trial one gets it, and what is known of a trial at one moment is
one change.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from filelock import FileLock
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from study.errors import InputError
from study.sqlite import skip_flush

# The pool logs an interruption in the middle of a query with its traceback; what fails is raised.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

LOCKED = 5
"""Seconds that SQLite itself waits for another's lock, before we try again."""
_CREATE_TRIES = 10
"""Tries to create the tables of a database while other processes do the same."""


def open_database(url: str) -> BaseStorage:
    """A database with Optuna's tables, which several processes may be creating at once."""
    for attempt in range(_CREATE_TRIES):
        try:
            return _Cached(Database(url))
        except (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError):
            time.sleep(0.1 * (attempt + 1))  # they exist by now
    return _Cached(Database(url))


class Database(RDBStorage):
    """SQLite and PostgreSQL. SQLite has no row locks, so that a file stands in for them."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._file = parsed.database if parsed.get_backend_name() == "sqlite" else None
        options: dict[str, Any] = {"pool_pre_ping": True}  # after a restart, connections are new
        if self._file is None:
            options["connect_args"] = {"connect_timeout": 10, "tcp_user_timeout": 30_000}
            super().__init__(url, engine_kwargs=options)
            return
        Path(self._file).parent.mkdir(parents=True, exist_ok=True)
        options["connect_args"] = {"timeout": LOCKED}
        with self._alone():
            new = _is_to_be_made(Path(self._file))
            super().__init__(url, engine_kwargs=options)
            if new:
                with self.engine.connect() as connection:  # half the time for a change, as measured
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        skip_flush(self.engine)

    def _alone(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._file is None else FileLock(f"{self._file}.lock")

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change a trial's state; of several processes that claim it, one gets True."""
        with self._alone():
            return super().set_trial_state_values(trial_id, state, values)

    def record(
        self, trial_id: int, attributes: Mapping[str, Any], values: Mapping[int, float]
    ) -> None:
        """Set user attributes and intermediate values of a trial, in one transaction."""
        with _create_scoped_session(self.scoped_session, True) as session:
            trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session)
            self.check_trial_is_updatable(trial_id, trial.state)
            self._set_attributes(session, trial_id, attributes)
            for step, value in values.items():
                self._set_trial_intermediate_value_without_commit(session, trial_id, step, value)

    def release(
        self,
        trial_id: int,
        is_held: Callable[[Any], bool],
        state: TrialState,
        attributes: Mapping[str, Any],
    ) -> bool:
        """Change a running trial's state and attributes if its lease is the one that is meant."""
        with self._alone(), _create_scoped_session(self.scoped_session, True) as session:
            trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            lease: Any = models.TrialUserAttributeModel.find_by_trial_and_key(
                trial, "lease", session
            )
            held = None if lease is None else json.loads(lease.value_json)
            if trial.state != TrialState.RUNNING or not is_held(held):
                return False
            self._set_attributes(session, trial_id, attributes)
            trial.state = state
            if state.is_finished():
                trial.datetime_complete = datetime.now()
            return True

    def _set_attributes(self, session: Any, trial_id: int, attributes: Mapping[str, Any]) -> None:
        insert: Any = import_module(f"sqlalchemy.dialects.{self.engine.name}").insert(
            models.TrialUserAttributeModel.__table__
        )
        statement = insert.on_conflict_do_update(
            index_elements=["trial_id", "key"], set_={"value_json": insert.excluded.value_json}
        )
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in attributes.items()
        ]
        if rows:
            session.execute(statement, rows)


class _Cached(_CachedStorage):
    """A database of whose finished trials a process keeps what it has read."""

    _backend: Database

    def record(
        self, trial_id: int, attributes: Mapping[str, Any], values: Mapping[int, float]
    ) -> None:
        """Set user attributes and intermediate values of a trial, in one transaction."""
        self._backend.record(trial_id, attributes, values)

    def release(
        self,
        trial_id: int,
        is_held: Callable[[Any], bool],
        state: TrialState,
        attributes: Mapping[str, Any],
    ) -> bool:
        """Change a running trial's state and attributes if its lease is the one that is meant."""
        return self._backend.release(trial_id, is_held, state, attributes)


def _is_to_be_made(file: Path) -> bool:
    """Whether a SQLite database is not there yet; `InputError` where it is damaged, or no study's.

    To find that out it is read whole, which takes a moment, and spares days on a broken disk.
    """
    if not file.exists() or (file.is_file() and file.stat().st_size == 0):
        return True
    expected = set(models.BaseModel.metadata.tables)
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=LOCKED)
        ) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            whole = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            return False  # by a worker that writes: it is no stranger's
        fault = f"is damaged, or no database ({error})"
    else:
        if whole != ["ok"]:
            fault = f"is damaged ({whole[0].splitlines()[-1]})"
        elif not tables & expected:
            fault = "is no database of studies" if tables else ""
        else:
            missing = sorted(expected - tables)
            fault = f"is damaged: it has no table '{missing[0]}'" if missing else ""
    if fault:
        raise InputError(
            f"storage: {file} {fault}; put a copy of the study's in its place, or begin anew"
        )
    return not tables
