"""What the machine does while trials train: use of processor, memory and GPUs.

    machine = SystemMetrics()                       # one per worker; samples from a thread
    machine.since_last_time()                       # {"system/cpu_utilization_percentage": 97.1, …}

The measurements are MLflow's own (`system/…`, which its interface shows on a tab of its own), by
psutil and NVIDIA's library. But where MLflow would log from a thread of its own every ten seconds,
here each evaluation takes along the means since the one before: no further calls, short trials have
them too, and a server that is away cannot make a thread hang.
"""

from __future__ import annotations

import importlib.util
import threading
from contextlib import suppress
from typing import Any

INTERVAL = 5.0
"""Seconds between samples. One takes well under a millisecond, and with a GPU a few."""


def missing() -> str | None:
    """What to install for these metrics, in a sentence; None where it is there."""
    if importlib.util.find_spec("psutil") is not None:
        return None
    return (
        "MLflow will not show what the machine does (processor, memory, GPU): for that, "
        "pip install psutil nvidia-ml-py"
    )


class SystemMetrics:
    """Samples the machine from a thread until the process ends. Needs psutil."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._monitors = _monitors()
        self._lock = threading.Lock()
        self._interval = interval
        self._stopped = threading.Event()
        self._sample()
        threading.Thread(target=self._run, daemon=True, name="system metrics").start()

    def since_last_time(self) -> dict[str, float]:
        """The means of all samples since this was last asked."""
        self._sample()
        with self._lock:
            means = {
                f"system/{name}": float(value)
                for monitor in self._monitors
                for name, value in monitor.aggregate_metrics().items()
            }
            for monitor in self._monitors:
                monitor.clear_metrics()
        return means

    def stop(self) -> None:
        """Take no more samples."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            for monitor in self._monitors:
                monitor.collect_metrics()


def _monitors() -> list[Any]:
    """MLflow's monitors, which have no types."""
    from mlflow.system_metrics.metrics import cpu_monitor, gpu_monitor

    cpu: Any = cpu_monitor.CPUMonitor
    gpu: Any = gpu_monitor.GPUMonitor
    monitors = [cpu()]
    with suppress(ImportError, RuntimeError):  # no library, or no GPU: the processor's are there
        monitors.append(gpu())
    return monitors
