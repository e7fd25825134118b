"""MLflow's store: its address, its database, and the experiment and parent run of a study.

Used through `study.tracking`, which logs into what this file prepares. Everything goes through
`MlflowClient` with explicit ids. `mlflow` takes two seconds to import, so it is imported late.
"""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run, RunTag

_logger = logging.getLogger("study.tracking")

VIEW = "study"
"""The name of the saved view of the runs table (its columns), as links to it carry it."""

_VALUE_LIMIT = 5_000  # MLflow cuts parameters at 6000 characters and tags at 5000 or 8000

_READING = """
**How to read this experiment.** The run named after the study is the parent: its page holds the
description, the child runs and, under *Artifacts*, the report. Each child is one trial. `wer`,
`ctc_wer` and `cer` are fractions of the development split (0.12 is 12 %); the x-axis of every
curve is the number of the evaluation. The tags `outcome` and `state` say how a trial ended: a
*diverged* or *out_of_memory* trial is not a result, and a *pruned* one was stopped early.
Filter with, for example, `tags.outcome = 'finished' and tags.phase = 'explore'`.
"""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Where a study is logged."""

    tracking_uri: str = field(repr=False)
    """A database or server address, possibly with a password: never print it, see `redact`."""
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


# ── Addresses ────────────────────────────────────────────────────────────────────────────


def tracking_uri(runs: Path, configured: str | None) -> str:
    """The address of MLflow's store: the configured one, or one database for all of `runs`.

    Raises:
        InputError: for a kind of address that MLflow cannot log to, such as a plain folder.

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
    database = sqlite_file(configured)
    if database is None:
        return configured
    options = configured.partition("?")
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


# ── Values as MLflow takes them ──────────────────────────────────────────────────────────


def as_text(value: object) -> str:
    """A parameter or tag as text: JSON for what is not plain, no password, not over the limit."""
    if isinstance(value, float) and not value.is_integer():
        plain = repr(value)
    elif isinstance(value, str):
        plain = value
    else:
        plain = json.dumps(value, default=str, ensure_ascii=False)
    plain = redact(plain)
    return plain if len(plain) <= _VALUE_LIMIT else f"{plain[: _VALUE_LIMIT - 12]} … (cut off)"


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def run_tags(tags: Mapping[str, object]) -> list[RunTag]:
    """Tags as MLflow takes them; None is left out."""
    from mlflow.entities import RunTag

    return [RunTag(key, as_text(value)) for key, value in tags.items() if value is not None]


def with_source(tags: Mapping[str, object]) -> dict[str, object]:
    """The tags, with `git_commit` also where MLflow looks for a run's source version."""
    commit = tags.get("git_commit")
    return {**tags, **({"mlflow.source.git.commit": commit} if commit else {})}


def origin() -> dict[str, str]:
    """The tags behind MLflow's own columns Source and User."""
    origin = {"mlflow.source.name": "python -m study", "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):  # no such user, as in many containers
        origin["mlflow.user"] = getpass.getuser()
    return origin


def log_params(
    client: MlflowClient,
    run_id: str,
    params: Mapping[str, object],
    known: Mapping[str, str] | None = None,
) -> None:
    """Log parameters, 100 at a time (a server's limit). MLflow forbids to change one."""
    from mlflow.entities import Param

    new = [Param(key, as_text(value)) for key, value in _flat(params) if key not in (known or {})]
    for first in range(0, len(new), 100):
        client.log_batch(run_id, params=new[first : first + 100])


def log_metrics(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, object],
    *,
    step: int,
    tags: Mapping[str, object] | None = None,
) -> None:
    """Log numbers and tags in one transaction; what is no number, or infinite, is left out."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    batch = [
        Metric(key, float(value), now, step)
        for key, value in metrics.items()
        # MLflow would store infinity as 1.8e308 and scale every chart to it; NaN it can show.
        if isinstance(value, int | float) and not math.isinf(value)
    ]
    client.log_batch(run_id, metrics=batch, tags=run_tags(tags or {}))


def milliseconds(moment: datetime | None) -> int | None:
    """MLflow's time: milliseconds since 1970."""
    return None if moment is None else int(moment.timestamp() * 1000)


def one_line(error: BaseException) -> str:
    """The first line of an error, without passwords."""
    text = redact(str(error)).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def unreachable(uri: str, error: BaseException) -> str:
    """The one warning when MLflow cannot be used."""
    return (
        f"MLflow at {redact(uri)} cannot be used ({one_line(error)}). The study goes on without "
        "it and loses nothing: results are in Optuna's storage, and the next `run`, or "
        "`python -m study sync`, delivers them."
    )


# ── The store ────────────────────────────────────────────────────────────────────────────


def prepare(
    uri: str,
    artifacts: Path,
    study_name: str,
    *,
    description: str,
    tags: Mapping[str, str],
    params: Mapping[str, object],
    identity: str | None = None,
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
        warn: say so when MLflow cannot be reached.

    Returns:
        Where to log; None when MLflow cannot be reached, after one warning.

    Raises:
        InputError: when the experiment was deleted and cannot be restored.

    """
    try:
        with _one_process(uri):
            _migrate(uri)
            client = connect(uri)
            experiment_id = _experiment(client, uri, artifacts, study_name)
            run_id = _parent_run(client, experiment_id, study_name, identity, description)
            log_params(client, run_id, params, known=client.get_run(run_id).data.params)
        _describe(client, experiment_id, description)
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

    return MlflowClient(tracking_uri=uri)


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


def _migrate(uri: str) -> None:
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
        else:
            try:
                utils._verify_schema(engine)  # type: ignore[no-untyped-call]
            except MlflowException:
                utils._upgrade_db(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


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


def _describe(client: MlflowClient, experiment_id: str, description: str) -> None:
    tags = {
        "mlflow.note.content": redact(f"{description.strip()}\n{_READING}"),
        "mlflow.experimentKind": "custom_model_development",  # else the interface asks
        f"mlflow.sharedViewState.{VIEW}": json.dumps(_view()),
    }
    for key, value in tags.items():
        client.set_experiment_tag(experiment_id, key, value)


def _view() -> dict[str, object]:
    """The runs table that answers the study's questions: its columns, and the best trial first.

    Sorted by a metric, MLflow lists trials beside their study; sorted by date it folds them away.
    """
    params = "encoder_layers encoder_dim attention_heads conv_kernel_size decoder_layers"
    columns = ["attributes.`Created`", "metrics.`wer`", "metrics.`parameters`", "tags.`outcome`"]
    columns += [f"params.`{name}`" for name in [*params.split(), "decoder_dim", "learning_rate"]]
    return {"selectedColumns": columns, "orderByKey": "metrics.`wer`", "orderByAsc": True}


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
