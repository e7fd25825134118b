"""The speech of a study as MLflow's dataset inputs: what a run was trained and evaluated on.

MLflow shows them with each run, and finds runs by them: `dataset.digest = '…'`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXTS = {"train": "training", "dev": "validation", "test": "testing"}
"""Split -> what it is used for, as MLflow calls it."""


def datasets(corpus: Mapping[str, Any], *splits: str) -> list[DatasetInput]:
    """The splits of a corpus, as a study's attribute `corpus` describes it.

    Their digest is the fingerprint of the whole corpus, which changes when any audio or text does.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = []
    for split in splits:
        profile = corpus.get("splits", {}).get(split)
        if profile is None:
            continue
        dataset = Dataset(
            name=f"{corpus['kind']} {split}",
            digest=str(corpus["fingerprint"])[:36],  # no longer, for MLflow
            source_type="corpus",
            source=json.dumps({"kind": corpus["kind"], "split": split}),
            profile=json.dumps(profile),
        )
        tag = InputTag("mlflow.data.context", CONTEXTS[split])
        found.append(DatasetInput(dataset=dataset, tags=[tag]))
    return found
