"""What the machine does is logged with each evaluation, at next to no cost."""

from __future__ import annotations

import importlib.util
import time

import pytest

from study.tracking.system import SystemMetrics, missing

NAMES = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
}


def test_without_psutil_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install psutil nvidia-ml-py" in str(missing())


def test_the_means_since_the_last_time_are_given_however_short_that_was() -> None:
    psutil = pytest.importorskip("psutil")
    machine = SystemMetrics(interval=0.02)
    try:
        for _ in range(3):
            time.sleep(0.05)
            means = machine.since_last_time()
            assert means.keys() >= NAMES
            assert 0 <= means["system/cpu_utilization_percentage"] <= 100
            expected = psutil.virtual_memory().percent
            assert means["system/system_memory_usage_percentage"] == pytest.approx(expected, abs=15)
        assert machine.since_last_time().keys() >= NAMES  # at once, too
    finally:
        machine.stop()


def test_a_sample_costs_far_less_than_a_hundredth_of_the_interval() -> None:
    pytest.importorskip("psutil")
    machine = SystemMetrics(interval=3600)
    began = time.thread_time()
    for _ in range(200):
        machine._sample()
    seconds = (time.thread_time() - began) / 200
    machine.stop()
    assert seconds < 0.005 * 5.0 / 10  # a tenth of half a per cent of the interval
