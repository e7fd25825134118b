"""How a study reaches Optuna's storage: from `storage` in study.yaml to one that bears a failure.

    sqlite      a database file in the study's folder: the workers of one machine
    journal     a file in the study's folder: machines that share only a folder, NFS included
    postgresql+psycopg://user:${STUDY_DB_PASSWORD}@host/name    machines that reach one database
    grpc://host:port    Optuna's proxy in front of such a database (`python -m study serve`)

All of them give a trial to one worker alone, and all wait for a storage that went away: an
operation that finds it gone is tried again for `PATIENCE` seconds, then raises `Unavailable`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy.event
import sqlalchemy.exc
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from study.config import VARIABLE, StudyConfig
from study.errors import InputError, Unavailable
from study.stopping import asked

log = logging.getLogger(__name__)

PATIENCE = 300.0
"""Seconds that a storage may be away before a worker gives up."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries, at most: a worker that is asked to stop is not kept longer."""

_SQLITE_LOCKED = 5
"""Seconds that SQLite itself waits for another's lock, before we try again."""
_JOURNAL_LOCKED = 15
"""Seconds after which a lock on a journal counts as left behind by a worker that was killed."""
_PROXY_ANSWERS = 10.0
"""Seconds within which a proxy has to answer when a connection is opened."""
_CREATE_TRIES = 10
"""Tries to create the tables of a database while other processes do the same."""


def open_storage(config: StudyConfig, *, patience: float = 0.0) -> BaseStorage:
    """Connect to the storage of a study; see `connect`."""
    return connect(config.storage_url, patience=patience)


def connect(url: str, *, patience: float = 0.0) -> BaseStorage:
    """Connect to a storage; files and tables are created where there are none.

    `patience` is how many seconds to wait for a storage that does not answer at first. Raises
    `InputError` where it cannot be opened.
    """
    check_url(url)
    deadline = time.monotonic() + patience
    while True:
        try:
            return _patient(_connect(url))
        except Exception as error:
            if isinstance(error, RuntimeError) and "table schema" in str(error):
                raise InputError(
                    f"storage: {url} was made by another version of Optuna than "
                    f"{optuna.__version__}, and cannot be read: install the version with which "
                    "the study was begun"
                ) from None
            if not _is_away(error):
                raise
            if time.monotonic() >= deadline or asked.is_set():
                raise InputError(f"storage: {url} cannot be opened ({_reason(error)})") from None
            asked.wait(LONGEST_PAUSE)


def check_url(url: str) -> None:
    """Raise `InputError` where a URL is none that can be used here."""
    kind = url.partition(":")[0]
    scheme = kind.partition("+")[0]
    if scheme not in KINDS:
        raise InputError(
            f"storage: '{kind}' is not a kind of storage; leave it out for a file in the study's "
            "folder, or write journal:///folder/file, postgresql+psycopg://user@host/name or "
            "grpc://host:port"
        )
    expanded = expand(url)
    try:
        if scheme in ("sqlite", "postgresql"):
            make_url(expanded).get_dialect().import_dbapi()
        elif scheme == "grpc":
            import grpc  # noqa: F401 - whether it is there

            _host_and_port(expanded)
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError):
        raise InputError(
            f"storage: {url} cannot be read as the URL of a storage: write it like "
            "postgresql+psycopg://user@host/name or grpc://host:port"
        ) from None
    except ImportError:
        extra = "grpc" if scheme == "grpc" else "postgresql"
        raise InputError(
            f"storage: its driver is missing: pip install 'conformer-study[{extra}]'"
        ) from None


def expand(url: str) -> str:
    """The URL with `${NAME}` replaced from the environment: secret, and for connecting alone."""
    missing = [name for name in VARIABLE.findall(url) if name not in os.environ]
    if missing:
        raise InputError(
            f"storage: the environment has no variable {missing[0]}, which {url} needs: "
            f"export {missing[0]}=… before you start"
        )

    def value(match: re.Match[str]) -> str:
        return os.environ[match[1]]

    user, at, place = url.rpartition("@")
    user = VARIABLE.sub(lambda match: quote(value(match), safe=""), user)
    return user + at + VARIABLE.sub(value, place)


# ── The kinds ────────────────────────────────────────────────────────────────────────────


class _Database(RDBStorage):
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
        options["connect_args"] = {"timeout": _SQLITE_LOCKED}
        with self._alone():
            new = _is_to_be_made(Path(self._file))
            super().__init__(url, engine_kwargs=options)
            if new:
                with self.engine.connect() as connection:  # half the time for a change, as measured
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        self.engine.dispose()  # what is connected already would go on flushing
        sqlalchemy.event.listen(self.engine, "connect", _without_flush)

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
        dialect = sqlite if self.engine.name == "sqlite" else postgresql
        rows = models.TrialUserAttributeModel.__table__
        insert: Any = dialect.insert(rows)
        statement = insert.on_conflict_do_update(
            index_elements=["trial_id", "key"], set_={"value_json": insert.excluded.value_json}
        )
        with _create_scoped_session(self.scoped_session, True) as session:
            trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session)
            self.check_trial_is_updatable(trial_id, trial.state)
            new = [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                for key, value in attributes.items()
            ]
            if new:
                session.execute(statement, new)
            for step, value in values.items():
                self._set_trial_intermediate_value_without_commit(session, trial_id, step, value)


class _Cached(_CachedStorage):
    """A database of whose finished trials a process keeps what it has read."""

    _backend: _Database

    def record(
        self, trial_id: int, attributes: Mapping[str, Any], values: Mapping[int, float]
    ) -> None:
        """Set user attributes and intermediate values of a trial, in one transaction."""
        self._backend.record(trial_id, attributes, values)


def record(
    storage: BaseStorage,
    trial_id: int,
    attributes: Mapping[str, Any],
    values: Mapping[int, float] | None = None,
) -> None:
    """Set user attributes and intermediate values (by step) of a trial.

    A database gets all of them or none, at the price of one change; the other kinds get them one
    after the other, the values last.
    """
    at_once = getattr(storage, "record", None)
    if at_once is not None:
        at_once(trial_id, attributes, values or {})
        return
    for name, attribute in attributes.items():
        storage.set_trial_user_attr(trial_id, name, attribute)
    for step, value in (values or {}).items():
        storage.set_trial_intermediate_value(trial_id, step, value)


def _is_to_be_made(file: Path) -> bool:
    """Whether a SQLite database is not there yet; `InputError` where it is damaged, or no study's.

    To find that out it is read whole, which takes a moment, and spares days on a broken disk.
    """
    if not file.exists() or (file.is_file() and file.stat().st_size == 0):
        return True
    expected = set(models.BaseModel.metadata.tables)
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=_SQLITE_LOCKED)
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


def _without_flush(connection: Any, record: Any) -> None:
    """Do not wait for the disk at each change.

    What a process has written is safe when it is killed. A power failure can take the last changes
    back, never half of one: a trial then goes on from its checkpoint.
    """
    del record
    connection.execute("PRAGMA synchronous=NORMAL")


def _database(url: str) -> BaseStorage:
    """A database with Optuna's tables, which several processes may be creating at once."""
    for attempt in range(_CREATE_TRIES):
        try:
            return _Cached(_Database(url))
        except (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError):
            time.sleep(0.1 * (attempt + 1))  # they exist by now
    return _Cached(_Database(url))


class _JournalFile(JournalFileBackend):
    """A journal file that bears a record which was cut off: whoever wrote it was killed."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, each whole; what follows the last whole one is taken away first."""
        self._lock.acquire()
        try:
            with Path(self._file_path).open(
                "r+b"
            ) as file:  # never a new file in an old one's place
                end = file.seek(0, os.SEEK_END)
                whole = _end_of_last_line(file, end)
                if whole < end:
                    log.warning("The journal ended in a record that was cut off; it is left out.")
                    file.truncate(whole)
                file.seek(whole)
                file.write(
                    b"".join(json.dumps(r, separators=(",", ":")).encode() + b"\n" for r in logs)
                )
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()


def _end_of_last_line(file: Any, end: int) -> int:
    """The offset after the last newline of a file that is `end` bytes long."""
    block = 4096
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return int(start + place + 1)
        end = start
    return 0


class _Journal(JournalStorage):
    """Optuna's journal, in which of several processes that claim a trial one alone gets it."""

    def __init__(self, file: Path) -> None:
        lock = JournalFileOpenLock(str(file), grace_period=_JOURNAL_LOCKED)
        self._claims = JournalFileOpenLock(f"{file}.claims", grace_period=_JOURNAL_LOCKED)
        super().__init__(_JournalFile(str(file), lock))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change a trial's state; of several processes that claim it, one gets True.

        Optuna answers from the trial that this process owned last, which may be one that it handed
        back. Under a lock the state that it reads first is still that which it changes.
        """
        self._claims.acquire()
        try:
            return super().set_trial_state_values(trial_id, state, values)
        finally:
            self._claims.release()


def _journal(url: str) -> BaseStorage:
    file = Path(url.removeprefix("journal://"))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _Journal(file)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"storage: {file} is damaged: a record in its middle cannot be read ({error}); put a "
            "copy of it in its place, or begin the study anew"
        ) from None


class _Proxy(GrpcStorageProxy):
    """Optuna's gRPC proxy, with connections that notice when the other side is gone."""

    def _setup(self) -> None:
        import grpc
        from optuna.storages._grpc import client
        from optuna.storages._grpc.auto_generated import api_pb2_grpc

        self._channel = grpc.insecure_channel(
            f"{self._host}:{self._port}",
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.max_reconnect_backoff_ms", 5_000),
            ],
        )
        self._stub = api_pb2_grpc.StorageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._cache = client.GrpcClientCache(self._stub)


def _proxy(url: str) -> BaseStorage:
    host, port = _host_and_port(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = _Proxy(host=host, port=port)
    storage.wait_server_ready(timeout=_PROXY_ANSWERS)
    return storage


def _host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("grpc://").rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(url)
    return host, int(port)


KINDS: dict[str, Callable[[str], BaseStorage]] = {
    "sqlite": _database,
    "postgresql": _database,
    "journal": _journal,
    "grpc": _proxy,
}
"""Kinds of storage by the scheme of their URL."""


def _connect(url: str) -> BaseStorage:
    expanded = expand(url)
    return KINDS[re.split(r"[+:]", url, maxsplit=1)[0]](expanded)


def serve(config: StudyConfig, host: str, port: int) -> None:
    """Stand between a study's database and many workers, until the process is asked to stop.

    Raises `InputError` where the storage is no database, or the port is in use.
    """
    if config.storage_url.startswith(("journal", "grpc")):
        kind = config.storage_url.partition(":")[0]
        raise InputError(f"serve: a proxy stands in front of a database, not of a {kind} storage")
    try:
        from optuna.storages._grpc.server import make_server

        open_storage(config)  # a sentence for whatever is wrong with it
        # Not a patient one: its clients do the waiting, and can be interrupted.
        server = make_server(_connect(config.storage_url), host, port)
    except ImportError:
        raise InputError("serve: grpcio is missing: pip install 'conformer-study[grpc]'") from None
    except RuntimeError:
        raise InputError(f"serve: port {port} of {host} is in use: name another one") from None
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    server.start()
    print(f"Serving the study '{config.name}' at grpc://{host}:{port}; Ctrl-C ends it.", flush=True)
    stopped.wait()
    server.stop(grace=2).wait()


# ── Patience ─────────────────────────────────────────────────────────────────────────────

_OPERATIONS = (
    "delete_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "set_trial_param",
    "get_trial_id_from_study_id_trial_number",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "record",
    "get_trial",
    "get_all_trials",
)
"""What may be done again when it is not known whether it was done."""
_ONCE = ("create_new_study", "create_new_trial")
"""What may not: a second try could make a second one."""

_thread = threading.local()


@contextmanager
def without_waiting() -> Iterator[None]:
    """Within the block, this thread does not wait for a storage that is away."""
    _thread.impatient = getattr(_thread, "impatient", 0) + 1
    try:
        yield
    finally:
        _thread.impatient -= 1


def _patient(storage: BaseStorage) -> BaseStorage:
    """The same storage, whose operations wait for it when it does not answer."""
    for name in (*_OPERATIONS, *_ONCE):
        if hasattr(storage, name):
            setattr(storage, name, _patiently(name, getattr(storage, name)))
    return storage


def _patiently(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    def attempt(*arguments: Any, **named: Any) -> Any:
        began, pause, again = time.monotonic(), 0.2, False
        while True:
            try:
                result = operation(*arguments, **named)
                if again:
                    log.info("The storage answers again.")
                return result
            except UpdateFinishedTrialError:
                if again and name == "set_trial_state_values":
                    return True  # the first try did it, and its answer was lost
                raise
            except Exception as error:
                if not _is_away(error):
                    raise
                waited = time.monotonic() - began
                no_time = getattr(_thread, "impatient", 0) or asked.is_set() or name in _ONCE
                if no_time or waited > PATIENCE:
                    raise Unavailable(
                        f"The storage of the study does not answer ({_reason(error)})."
                    ) from None
                if not again:
                    log.warning(
                        "The storage does not answer (%s); waiting for up to %.0f minutes.",
                        _reason(error),
                        PATIENCE / 60,
                    )
            again = True
            asked.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return attempt


def _is_away(error: BaseException) -> bool:
    """Whether an operation failed because the storage cannot be reached, and may work later."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return _is_away(error.__cause__)
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or isinstance(
            error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError
        )
    # A transaction is invalid after the connection broke in the middle of it.
    invalid = sqlalchemy.exc.PendingRollbackError | sqlalchemy.exc.ResourceClosedError
    if isinstance(error, invalid | sqlalchemy.exc.TimeoutError | OSError):
        return True
    code = getattr(error, "code", None)  # grpc's, which need not be installed
    if type(error).__module__.startswith("grpc") and callable(code):
        behind = ("OperationalError", "StorageInternalError", "InterfaceError")
        return code().name == "UNAVAILABLE" or any(name in str(error) for name in behind)
    return False


def _reason(error: BaseException) -> str:
    """What a storage's failure says of itself, in one line without its address."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
        error = error.orig
    details = getattr(error, "details", None)
    text = str(details()) if callable(details) else str(error)
    return text.strip().partition("\n")[0] or type(error).__name__


optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it warns of is said here
