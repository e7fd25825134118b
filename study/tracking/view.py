"""What MLflow's interface shows of a study before anyone clicks: description, columns, order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from model.config import SHAPE
from reports.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW = "study"
"""The name of the saved view of the runs table (its columns), as links to it carry it."""

_READING = """
**How to read this experiment.** The run named after the study is the parent: its page holds the
description, the child runs and, under *Artifacts*, the report. Each child is one trial. `wer`,
`ctc_wer` and `cer` are fractions of the development split (0.12 is 12 %); the x-axis of every
curve is the number of the evaluation. The tags `outcome` and `state` say how a trial ended: a
*diverged* or *out_of_memory* trial is not a result, and a *pruned* one was stopped early.
Filter with, for example, `tags.outcome = 'finished' and tags.phase = 'explore'`.
"""


def describe(client: MlflowClient, experiment_id: str, description: str) -> None:
    """Say what an experiment is, and save the view of its runs that links to it open."""
    tags = {
        "mlflow.note.content": redact(f"{description.strip()}\n{_READING}"),
        "mlflow.experimentKind": "custom_model_development",  # else the interface asks
        f"mlflow.sharedViewState.{VIEW}": json.dumps(_view()),
    }
    for key, value in tags.items():
        client.set_experiment_tag(experiment_id, key, value)


def _view() -> dict[str, object]:
    """The runs table that answers the study's questions, and the charts beside it.

    Its columns, and the best trial first: sorted by a metric, MLflow lists trials beside their
    study; sorted by date it folds them away.
    """
    columns = ["attributes.`Created`", "metrics.`wer`", "metrics.`parameters`", "tags.`outcome`"]
    columns += [f"params.`{name}`" for name in (*SHAPE, "learning_rate")]
    return {
        "selectedColumns": columns,
        "orderByKey": "metrics.`wer`",
        "orderByAsc": True,
        "compareRunSections": [{"uuid": VIEW, "name": "The study", "display": True, "columns": 2}],
        "compareRunCharts": list(_charts()),
    }


def _charts() -> Iterator[dict[str, object]]:
    """WER over training, WER against each of the six, and all of them in parallel coordinates."""

    def chart(name: str, kind: str, **more: object) -> dict[str, object]:
        place = {"uuid": name, "metricSectionId": VIEW, "deleted": False, "isGenerated": False}
        return {**place, "type": kind, "runsCountToCompare": 100, **more}

    for metric in ("wer", "dev_loss"):
        yield chart(
            f"{metric}-curve",
            "LINE",
            metricKey=metric,
            selectedMetricKeys=[metric],
            xAxisKey="step",
            lineSmoothness=0,
        )
    yield chart(
        "parallel", "PARALLEL", selectedParams=[*SHAPE, "learning_rate"], selectedMetrics=["wer"]
    )
    for name in SHAPE:
        yield chart(
            f"wer-{name}",
            "SCATTER",
            xaxis={"key": name, "type": "PARAM"},
            yaxis={"key": "wer", "type": "METRIC"},
        )
