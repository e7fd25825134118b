"""Ways to start workers. A launcher is one function and one line in `LAUNCHERS`.

All that it does is start `python -m study worker` on the study's file, once for each of some
numbers, and give back a handle on each; what workers do is in `study.worker`. A number stays a
worker's when it is started again: it names its log, and picks its GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from study.config import StudyConfig
from study.launchers.inline import inline
from study.launchers.local import local
from study.launchers.ray import ray
from study.launchers.slurm import slurm
from study.launchers.worker import Worker, environment

__all__ = ["LAUNCHERS", "Worker", "environment"]

LAUNCHERS: dict[str, Callable[[StudyConfig, Sequence[int]], Sequence[Worker]]] = {
    "inline": inline,
    "local": local,
    "ray": ray,
    "slurm": slurm,
}
