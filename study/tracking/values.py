"""Parameters, metrics and tags as MLflow takes them."""

from __future__ import annotations

import getpass
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from reports.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunTag

_VALUE_LIMIT = 5_000  # MLflow cuts parameters at 6000 characters and tags at 5000 or 8000


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
    at: datetime | None = None,
    tags: Mapping[str, object] | None = None,
) -> None:
    """Log numbers, and then tags; what is no number, or infinite, is left out.

    `at` is when they were measured; MLflow keeps what is logged twice with the same time once, so
    that a call whose answer was lost can be repeated.
    """
    from mlflow.entities import Metric

    moment = milliseconds(at or datetime.now())
    batch = [
        Metric(key, float(value), moment, step)
        for key, value in metrics.items()
        # MLflow would store infinity as 1.8e308 and scale every chart to it; NaN it can show.
        if isinstance(value, int | float) and not math.isinf(value)
    ]
    client.log_batch(run_id, metrics=batch, tags=run_tags(tags or {}))


def unlike(metrics: Mapping[str, object], known: Mapping[str, float]) -> dict[str, object]:
    """The metrics without those that a run has with this very value: it would keep both."""
    return {name: value for name, value in metrics.items() if known.get(name) != value}


def milliseconds(moment: datetime) -> int:
    """MLflow's time: milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def one_line(error: BaseException) -> str:
    """The first line of an error, without passwords."""
    text = redact(str(error)).strip() or type(error).__name__
    return text.splitlines()[0][:300]
