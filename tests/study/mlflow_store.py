"""All that an MLflow store holds of a study, to be compared with another store."""

from __future__ import annotations

from typing import Any

from mlflow import MlflowClient


def everything(uri: str, study: str = "tiny") -> dict[str, Any]:
    """Runs, curves, files and models of a study, but for MLflow's own ids and clocks.

    What the machine did meanwhile is of the moment, and nowhere else.
    """
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id]):
        tags = {k: v for k, v in run.data.tags.items() if k not in ("mlflow.parentRunId",)}
        curves = {
            name: sorted(
                (m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)
            )
            for name in run.data.metrics
            if not name.startswith("system/")
        }
        files = [f.path for f in client.list_artifacts(run.info.run_id)]
        files += [f.path for f in client.list_artifacts(run.info.run_id, "report")]
        speech = sorted(i.dataset.name for i in run.inputs.dataset_inputs) if run.inputs else []
        name = run.data.tags.get("trial", "study")
        assert name not in found  # one run each
        found[name] = (
            *(run.info.run_name, run.info.status, run.data.params, tags, curves, sorted(files)),
            speech,
        )
    models = [
        (model.name, str(model.status), model.tags, model.params)
        for model in client.search_logged_models([experiment.experiment_id])
    ]
    return {"experiment": experiment.tags, "models": models, **found}
