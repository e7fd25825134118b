"""What the benchmarks share: taking turns, medians of ratios, floors, a table, a file of results.

Machines are noisy and shared. So whatever is compared runs in one process in turns, a ratio is
between the times of one turn, and medians are given with their quartiles. On the CPU times are
those of the process, not of the clock.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from study import provenance

FOLDER = "BENCHMARK_RESULTS"
"""Variable of the environment: a folder for results that are not to stay in `results/` here."""


def take_turns(
    steps: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """The seconds of each step in each round; who begins changes from round to round."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            synchronise(device)
            started = clock()
            steps[name]()
            synchronise(device)
            seconds[name].append(clock() - started)
    return seconds


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and number of values (two at least)."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "quartiles": [low, high], "rounds": len(values)}


def ratios(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """`spread` of one ÷ other, turn by turn."""
    return spread([a / b for a, b in zip(one, other, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a device was measured to do at best."""

    flops_per_second: float
    """Of a product of two matrices of 8192 × 8192 (1024 × 1024 on the CPU)."""
    bytes_per_second: float
    """Read and written while 256 MiB (64 MiB on the CPU) are copied."""

    def floor(self, *, flops: float, traffic: float) -> float:
        """The least seconds for so many floating-point operations and bytes moved."""
        return max(flops / self.flops_per_second, traffic / self.bytes_per_second)


def device_rates(device: torch.device, precision: torch.dtype) -> Rates:
    """Measure a device, with as many threads as the benchmark uses."""
    size = 1024 if device.type == "cpu" else 8192  # where a start takes no time beside it
    a, b = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))
    source = torch.zeros((64 if device.type == "cpu" else 256) * 2**20, dtype=torch.uint8,
                         device=device)  # fmt: skip
    target = torch.empty_like(source)
    steps = {"product": lambda: a @ b, "copy": lambda: target.copy_(source)}
    for step in steps.values():
        step()
    seconds = take_turns(steps, 15, device)
    return Rates(
        flops_per_second=2 * size**3 / min(seconds["product"]),
        bytes_per_second=2 * source.numel() / min(seconds["copy"]),
    )


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as text in columns: `columns` maps a key of the rows to its heading."""
    cells = [list(columns.values())]
    cells += [[_cell(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):  # a spread
        return f"{value['median']:.3g} ({value['quartiles'][0]:.3g}-{value['quartiles'][1]:.3g})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _results_folder() -> Path:
    return Path(os.environ.get(FOLDER) or Path(__file__).parent / "results")


def results_of(name: str, device: str) -> Any:
    """The results that this machine's file of a benchmark holds; empty where there is none."""
    for file in _results_folder().glob(f"{name}-*.json"):
        content: dict[str, Any] = json.loads(file.read_text())
        if content["hardware"] == provenance.hardware(device):
            return content["results"]
    return {}


def write_results(
    name: str, device: str, results: Any, *, packages: Sequence[str] = (), **facts: Any
) -> Path:
    """Write `benchmarks/results/<name>-<hardware>.json`, and say where.

    `packages` are those whose versions matter besides the project's own.
    """
    versions = provenance.versions()
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    hardware = provenance.hardware(device)
    slug = re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")
    file = _results_folder() / f"{name}-{slug}.json"
    file.parent.mkdir(exist_ok=True, parents=True)
    content = {
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),  # processes that wanted a core, this one included
        "versions": versions,
        **facts,
        "results": results,
    }
    file.write_text(json.dumps(content, indent=2) + "\n")
    print(f"written to {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")
    return file
