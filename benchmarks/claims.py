"""No-op trials: claimed and ended at once by several processes, for `benchmarks.soak`.

What a claim takes where nothing else is done, and whether each trial is claimed once.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from study.config import StudyConfig
from study.config_file import load
from study.leases import claim
from study.storage import create_study, open_study


def _claim_all(file: str, variables: dict[str, str], started: Any, results: Any) -> None:
    os.environ.update(variables)
    study = open_study(load(Path(file)))
    started.wait()
    claimed: dict[int, float] = {}
    began = time.perf_counter()
    while (trial := claim(study)) is not None:
        claimed[trial.number] = time.perf_counter() - began
        study.tell(trial, 1.0)
        began = time.perf_counter()
    results.put(claimed)


def no_op(config: StudyConfig, file: Path, workers: int) -> dict[str, Any]:
    """Claim and finish all trials of a study from several processes; returns what was measured."""
    began = time.perf_counter()
    study = create_study(config, {"corpus": {"fingerprint": "none"}})
    created = time.perf_counter() - began
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "study.runner", "psycopg"])  # once, not by each
    started, results = context.Barrier(workers + 1), context.SimpleQueue()
    processes = [
        context.Process(target=_claim_all, args=(str(file), dict(os.environ), started, results))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    started.wait()
    began = time.perf_counter()
    claims = [claim for _ in processes for claim in results.get().items()]
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    numbers = {number for number, _ in claims}
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    waits = sorted(1000 * took for _, took in claims)
    return {
        "storage": config.storage_url.partition(":")[0],
        "workers": workers,
        "trials": config.trials,
        "lost": config.trials - len(numbers & {trial.number for trial in complete}),
        "claimed_twice": len(claims) - len(numbers),
        "seconds_to_create": round(created, 1),
        "trials_per_second": round(len(claims) / seconds, 1),
        "ms_per_trial": round(1000 * seconds / len(claims), 1),
        "ms_to_claim_median": round(statistics.median(waits), 1),
        "ms_to_claim_99_of_100": round(waits[len(waits) * 99 // 100], 1),
    }
