"""MLflow's store: its database, and the experiment and parent run of a study.

Everything else here logs into what `prepare` makes. `mlflow` takes two seconds to import, so it is
imported late.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.redaction import redact
from study.errors import InputError
from study.passwords import expand
from study.tracking.address import is_server, sqlite_file
from study.tracking.datasets import CONTEXTS, datasets
from study.tracking.values import log_params, one_line, origin, run_tags, with_source
from study.tracking.view import describe

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_logger = logging.getLogger("study.tracking")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Where a study is logged."""

    tracking_uri: str = field(repr=False)
    """A database or server address, as it was configured: with `${NAME}` in a password's place."""
    experiment_id: str
    """MLflow's experiment, named after the study."""
    run_id: str
    """The parent run, which stands for the whole study."""

    def as_attribute(self) -> dict[str, str]:
        """What the study's user attribute `mlflow` holds: readable by all, so no password."""
        return {
            "tracking_uri": redact(self.tracking_uri),
            "experiment_id": self.experiment_id,
            "run_id": self.run_id,
        }

    @classmethod
    def from_attribute(
        cls, attribute: Mapping[str, str] | None, tracking_uri: str
    ) -> Experiment | None:
        """Read back what `as_attribute` gave; the address comes from the configuration again."""
        if attribute is None:
            return None
        return cls(
            tracking_uri=tracking_uri,
            experiment_id=attribute["experiment_id"],
            run_id=attribute["run_id"],
        )


def unreachable(uri: str, error: BaseException) -> str:
    """The one warning when MLflow cannot be used."""
    return (
        f"MLflow at {redact(uri)} cannot be used ({one_line(error)}). The study goes on without "
        "it and loses nothing: results are in Optuna's storage, and the next `run`, or "
        "`python -m study sync`, delivers them."
    )


def prepare(
    uri: str,
    artifacts: Path,
    study_name: str,
    *,
    description: str,
    tags: Mapping[str, str],
    params: Mapping[str, object],
    identity: str | None = None,
    corpus: Mapping[str, Any] | None = None,
    one_machine: bool = False,
    warn: bool = True,
) -> Experiment | None:
    """Make MLflow ready for a study: database, experiment and parent run. Call it before workers.

    Processes that meet an empty database together would all migrate it, and break it for ever;
    so it is made here, once, under a lock. Called again it finds the same experiment and parent
    run (an experiment that was deleted in between is restored) and sets the run going again.

    Args:
        uri: from `tracking_uri`.
        artifacts: the folder for files; an MLflow server keeps its own, and ignores it.
        study_name: the experiment's name.
        description: Markdown, shown on top of the experiment and of the parent run.
        tags: of the parent run. `git_commit` is also shown as MLflow's source version.
        params: the study's configuration; nested keys are joined by dots.
        identity: what tells this study from another of the same name (a study that was deleted
            and begun again); the parent run is only reused where it is the same.
        corpus: the speech, as the study's attribute of that name describes it.
        one_machine: whether all who log are processes of this machine, which an SQLite database
            may be told, and is then faster.
        warn: say so when MLflow cannot be reached.

    Returns:
        Where to log; None when MLflow cannot be reached, after one warning.

    Raises:
        InputError: when the experiment was deleted and cannot be restored.

    """
    try:
        with _one_process(uri):
            _migrate(uri, one_machine)
            client = connect(uri)
            experiment_id = _experiment(client, uri, artifacts, study_name)
            run_id = _parent_run(client, experiment_id, study_name, identity, description)
            log_params(client, run_id, params, known=client.get_run(run_id).data.params)
        if corpus is not None:
            client.log_inputs(run_id, datasets(corpus, *CONTEXTS))
        describe(client, experiment_id, description)
        client.log_batch(run_id, tags=run_tags(with_source(tags)))
        return Experiment(tracking_uri=uri, experiment_id=experiment_id, run_id=run_id)
    except InputError:
        raise
    except Exception as error:
        if warn:
            _logger.warning(unreachable(uri, error))
        return None


def _quieten() -> None:
    """Settings that MLflow reads when it is imported or first used; the user's own win."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # A server that is down must not hold up a trial: by default one call takes minutes.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow.store.db.utils

    mlflow.store.db.utils.MAX_RETRY_COUNT = 1  # ten tries take 100 s, with a warning each
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def connect(uri: str) -> MlflowClient:
    """A client of a store that exists. Only `prepare` makes one."""
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        raise FileNotFoundError(f"there is no database {database}")
    _quieten()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=expand(uri))
    if database is not None:
        from study.sqlite import skip_flush

        skip_flush(client._tracking_client.store.engine)
    return client


@contextmanager
def _one_process(uri: str) -> Iterator[None]:
    """Let one process of this machine at a time make or migrate an SQLite database."""
    database = sqlite_file(uri)
    if database is None:
        yield
        return
    import fcntl

    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _migrate(uri: str, one_machine: bool) -> None:
    """Create an SQLite database, or bring it to this MLflow's schema. Servers do it themselves."""
    database = sqlite_file(uri)
    if database is None:
        return
    _quieten()
    import sqlalchemy
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils

    # A fresh one is built beside its place: killed half-way it leaves nothing behind that
    # every later start would stumble over.
    target = database if database.exists() else database.with_name(f".{database.name}.new")
    if target != database:
        target.unlink(missing_ok=True)
    engine = sqlalchemy.create_engine(f"sqlite:///{target}", poolclass=sqlalchemy.NullPool)
    try:
        if target != database:
            utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
            target.rename(database)
            if one_machine:
                _set_journal(database, "wal")
        else:
            if not one_machine:
                _set_journal(database, "delete")
            try:
                utils._verify_schema(engine)  # type: ignore[no-untyped-call]
            except MlflowException:
                utils._upgrade_db(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


def _set_journal(database: Path, mode: str) -> None:
    """How SQLite makes changes whole: in a log beside the database (wal), or in place (delete).

    With the log a change takes a hundredth of the time, as it need not wait for the disk; but all
    who have the database open must be on one machine, since they share memory.
    """
    with contextlib.closing(sqlite3.connect(database)) as connection:
        try:
            connection.execute(f"PRAGMA journal_mode={mode}")
        except sqlite3.OperationalError as error:
            raise OSError(
                f"{error}: other machines can log to it once no program of this machine, such as "
                "`ui`, has it open"
            ) from None


def _experiment(client: MlflowClient, uri: str, artifacts: Path, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if is_server(uri) else (artifacts.resolve() / name).as_uri()
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        try:
            client.restore_experiment(found.experiment_id)
        except MlflowException as error:
            raise InputError(
                f"The MLflow experiment {name!r} was deleted and cannot be restored "
                f"({one_line(error)}): restore it in MLflow, or give the study another name."
            ) from error
    return str(found.experiment_id)


def _parent_run(
    client: MlflowClient, experiment_id: str, name: str, identity: str | None, description: str
) -> str:
    wanted = identity or name
    for run in runs_where(client, experiment_id, "tags.kind = 'study'"):
        if run.data.tags.get("identity") == wanted:
            run_id = str(run.info.run_id)
            client.update_run(run_id, status="RUNNING")
            break
    else:
        tags = {"kind": "study", "identity": wanted, **origin()}
        run_id = str(client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
    client.set_tag(run_id, "mlflow.note.content", redact(description))
    return run_id


def runs_where(client: MlflowClient, experiment_id: str, condition: str) -> Iterator[Run]:
    """All runs of an experiment that fulfil a condition in MLflow's filter language."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], filter_string=condition, max_results=1000, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
