"""How a study reaches Optuna's storage: from `storage` in study.yaml to one that bears a failure.

    sqlite      a database file in the study's folder: the workers of one machine
    journal     a file in the study's folder: machines that share only a folder, NFS included
    postgresql+psycopg://user:${STUDY_DB_PASSWORD}@host/name    machines that reach one database
    grpc://host:port    Optuna's proxy in front of such a database (`python -m study serve`)

All of them give a trial to one worker alone (`study.databases`, `study.journal`), and all wait for
a storage that went away: an operation that finds it gone is tried again for a while, then raises
`Unavailable` (`study.patience`).
"""

from __future__ import annotations

import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.trial import TrialState

from study.config import StudyConfig
from study.errors import InputError
from study.journal import open_journal
from study.passwords import expand
from study.patience import LONGEST_PAUSE, is_away, patient, reason_of
from study.stopping import asked

_PROXY_ANSWERS = 10.0
"""Seconds within which a proxy has to answer when a connection is opened."""


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
            return patient(_connect(url))
        except Exception as error:
            if isinstance(error, RuntimeError) and "table schema" in str(error):
                raise InputError(
                    f"storage: {url} was made by another version of Optuna than "
                    f"{optuna.__version__}, and cannot be read: install the version with which "
                    "the study was begun"
                ) from None
            if not is_away(error):
                raise
            if time.monotonic() >= deadline or asked.is_set():
                raise InputError(f"storage: {url} cannot be opened ({reason_of(error)})") from None
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
        slashes = {"sqlite": "sqlite:///", "journal": "journal://"}
        if not expanded.startswith(slashes.get(scheme, "")):
            raise ValueError(url)
        if scheme == "postgresql":
            _check_driver(expanded)
        elif scheme == "grpc":
            import grpc  # noqa: F401 - whether it is there

            _host_and_port(expanded)
    except ValueError:
        raise InputError(
            f"storage: {url} cannot be read as the URL of a storage: write it like "
            "postgresql+psycopg://user@host/name or grpc://host:port"
        ) from None
    except ImportError:
        extra = "grpc" if scheme == "grpc" else "postgresql"
        raise InputError(
            f"storage: its driver is missing: pip install 'conformer-study[{extra}]'"
        ) from None


def _check_driver(url: str) -> None:
    """Raise `ImportError` where a database's driver is missing, `ValueError` at no such URL."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        make_url(url).get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ValueError(url) from error


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


def release(
    storage: BaseStorage,
    trial_id: int,
    is_held: Callable[[Any], bool],
    state: TrialState,
    attributes: Mapping[str, Any],
) -> bool:
    """Change the state of a running trial, and attributes, if its lease is the one that is meant.

    `is_held` is asked of the lease as the storage has it. Databases and journals ask and change as
    one step; a proxy does one after the other. Returns whether it was changed.
    """
    at_once = getattr(storage, "release", None)
    if at_once is not None:
        return bool(at_once(trial_id, is_held, state, attributes))
    trial = storage.get_trial(trial_id)
    if trial.state != TrialState.RUNNING or not is_held(trial.user_attrs.get("lease")):
        return False
    record(storage, trial_id, attributes)
    return storage.set_trial_state_values(trial_id, state)


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


def _database(url: str) -> BaseStorage:
    from study.databases import open_database  # a second that only who opens one should wait

    return open_database(url)


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
    "journal": open_journal,
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

        from study.tracking.ui import free_port

        open_storage(config)  # a sentence for whatever is wrong with it
        # Not a patient one: its clients do the waiting, and can be interrupted.
        server = make_server(_connect(config.storage_url), host, port)
    except ImportError:
        raise InputError("serve: grpcio is missing: pip install 'conformer-study[grpc]'") from None
    except RuntimeError:
        free_port(host, port)  # says it where something else is wrong
        raise InputError(f"serve: port {port} of {host} is in use: name another one") from None
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    server.start()
    print(f"Serving the study '{config.name}' at grpc://{host}:{port}; Ctrl-C ends it.", flush=True)
    stopped.wait()
    server.stop(grace=2).wait()


optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it warns of is said here
