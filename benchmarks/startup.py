"""How soon the command line answers: `--help`, and `check` on a study whose features are there.

    python -m benchmarks.startup
    python -m benchmarks.startup mine.yaml

Beside them a program that only imports torch, without which no study can be checked. Each is a
process of its own, which takes its turn; its seconds are those of the CPU, from its start to the
last that it does when it ends, and those of the clock.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import measuring

COLUMNS = {"what": "what", "cpu": "seconds of the CPU", "clock": "seconds of the clock"}


def seconds(command: list[str]) -> tuple[float, float]:
    """What a process takes of the CPU and of the clock. Raises where it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("study", nargs="?", type=Path, default=Path("study.yaml"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    commands = {
        "--help": ["-m", "study", "--help"],
        "import torch": ["-c", "import torch"],
        "check": ["-m", "study", "check", str(arguments.study)],
    }
    seconds([sys.executable, *commands["check"]])  # which prepares the speech where it never was
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            taken[name].append(seconds([sys.executable, *command]))
    rows = []
    for name, both in taken.items():
        cpu, clock = zip(*both, strict=True)
        rows.append({"what": name, "cpu": measuring.spread(cpu), "clock": measuring.spread(clock)})
    print(measuring.table(rows, COLUMNS))
    measuring.write_results("startup", "cpu", rows)


if __name__ == "__main__":
    main()
