"""The run that stands for a whole study: its report, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from study.tracking.store import Experiment, connect, unreachable
from study.tracking.values import log_metrics, unlike

_logger = logging.getLogger("study.tracking")


def log_report(
    experiment: Experiment | None,
    report: Path,
    extra: Iterable[Path] = (),
    *,
    metrics: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    status: str = "FINISHED",
) -> bool:
    """Put the report under the study's run (folder `report`) and end that run.

    Args:
        experiment: from `prepare`; None logs nothing.
        report: one self-contained page. MLflow shows it in a frame that cannot reach other files.
        extra: more files from the page's folder, or from folders in it, where they stay.
        metrics: the answer in numbers, such as best_wer.
        tags: the answer in words, such as best_trial and answer.encoder_layers.
        status: FINISHED, or KILLED for a study that was interrupted.

    Returns:
        Whether it was logged. When it was not there is one warning.

    """
    if experiment is None:
        return False
    try:
        client = connect(experiment.tracking_uri)
        for file in [report, *extra]:
            place = Path("report") / file.parent.relative_to(report.parent)
            client.log_artifact(experiment.run_id, str(file), artifact_path=place.as_posix())
        known = client.get_run(experiment.run_id).data.metrics  # reports are written again
        log_metrics(client, experiment.run_id, unlike(metrics or {}, known), step=0, tags=tags)
        client.set_terminated(experiment.run_id, status=status)
    except Exception as error:
        _logger.warning(unreachable(experiment.tracking_uri, error))
        return False
    return True


def end_study(experiment: Experiment | None, status: str = "KILLED") -> None:
    """End the study's run without a report: KILLED for one that was interrupted, or FAILED."""
    if experiment is None:
        return
    try:
        connect(experiment.tracking_uri).set_terminated(experiment.run_id, status=status)
    except Exception as error:
        _logger.warning(unreachable(experiment.tracking_uri, error))
