"""What pausing and packing buy: trials per minute, and the time until the same best are found.

    python -m benchmarks.study                        # simulated, then real, on the CPU
    python -m benchmarks.study --only simulated --surfaces 20
    python -m benchmarks.study --only real --device cuda --workers 4

The same configurations (a sampler that draws at random draws the same for the same trial numbers)
are searched in four ways: one after the other, each trained to the end; the same with successive
halving; several workers at a time; and both. The three that training all to the end ranks first are
the *best*; counted is how many of them each way trains to the end, and how long it takes until it
has. A minute is one of the whole device, however many workers share it.

*Simulated*: the product's own queue, pruner and sampler on surfaces with a planted truth; learning
curves that cross; a clock that runs by the size of the networks. Workers that share a device are
taken to be together as fast as `--gain` says. *Real*: the product itself, on synthetic speech.
"""

from __future__ import annotations

import argparse
import heapq
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.measuring import results_of, spread, table, write_results
from study.config import StudyConfig
from study.config_file import load
from study.leases import claim, hand_back
from study.pruner import SuccessiveHalving, rungs, standing
from study.sampler import OrderedSampler, derived_seed
from study.storage import _enqueue, open_study
from tests.reports.planted import Surface
from tests.reports.planted_study import planted_config

BEST = 3
WAYS = {
    # name -> (whether successive halving is used, whether workers share the device)
    "sequential": (False, False),
    "packed, halving": (True, True),
    "sequential, halving": (True, False),
    "packed": (False, True),
}
PACES = (4.5, 5.5)
"""How fast learning curves fall, from the slowest to the fastest trial: so unlike that the order at
the first rung and the final one have a rank correlation of about 0.8."""
REAL = Path(__file__).parent / "study.yaml"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one way of searching did."""

    minutes: float
    """Of the device, until nothing was left to train."""
    ended: dict[int, float]
    """Trials that were trained to the end, and the minute in which they were."""
    standings: dict[int, tuple[int, float]]
    """Their final standing; less is better."""


def compare(ways: dict[str, Found], trials: int) -> dict[str, dict[str, float | None]]:
    """The marks of each way, against the first, which trained all to the end.

    The time until the best were found is None where not all of them were.
    """
    whole = next(iter(ways.values()))
    best = sorted(whole.standings, key=lambda number: whole.standings[number])[:BEST]
    needed = max(whole.ended[number] for number in best)
    rows: dict[str, dict[str, float | None]] = {}
    for name, found in ways.items():
        reached = [found.ended[number] for number in best if number in found.ended]
        minutes = max(reached) if len(reached) == BEST else None
        rows[name] = {
            "minutes": found.minutes,
            "trials_per_minute": trials / found.minutes,
            "speed": whole.minutes / found.minutes,
            "best_found": len(reached) / BEST,
            "minutes_to_best": minutes,
            "sooner": None if minutes is None else needed / minutes,
        }
    return rows


# ── Simulated ────────────────────────────────────────────────────────────────────────────


def simulate(
    config: StudyConfig, surface: Surface, noise: float, workers: int, gain: float
) -> Found:
    """Search a surface with so many workers, which together are `gain` times as fast as one."""
    refine, evaluations = config.refine, config.training.evaluations
    halving = SuccessiveHalving(
        rungs(evaluations, refine.first_rung, refine.reduction_factor), refine.reduction_factor
    )
    study = optuna.create_study(
        sampler=OrderedSampler(config.space, seed=config.seed, kind=refine.sampler),
        pruner=halving if refine.pruner == "successive_halving" else optuna.pruners.NopPruner(),
    )
    _enqueue(study, config)
    now = 0.0
    events: list[tuple[float, int, optuna.Trial, dict[str, Any]]] = []  # a heap, by what is next
    curves: dict[int, list[dict[str, float]]] = {}
    ended: dict[int, float] = {}
    standings: dict[int, tuple[int, float]] = {}
    while True:
        while len(events) < workers and (trial := claim(study)) is not None:
            values = {name: d.suggest(trial) for name, d in config.space.items()}
            done = now + _seconds(values) * workers / gain
            heapq.heappush(events, (done, trial.number, trial, values))
        if not events:
            return Found(minutes=now / 60, ended=ended, standings=standings)
        now, number, trial, values = heapq.heappop(events)
        seen = curves.setdefault(number, [])
        seed = derived_seed(config.seed, number)
        wer = _wer(surface, values, noise, seed, len(seen) + 1, evaluations)
        seen.append({"wer": wer, "dev_loss": wer})
        trial.set_user_attr("evaluations", list(seen))
        if len(seen) == evaluations:
            study.tell(trial, wer)
            ended[number], standings[number] = now / 60, standing(seen[-1])
        elif trial.should_prune():
            trial.set_user_attr("paused", len(seen))
            hand_back(study, trial._trial_id)
        else:
            done = now + _seconds(values) * workers / gain
            heapq.heappush(events, (done, number, trial, values))


def _seconds(values: dict[str, Any]) -> float:
    """Of training until the next evaluation: by the size of the network, and a little for all."""
    return float(5 + values["encoder_layers"] * values["encoder_dim"] ** 2 / 2000)


def _wer(
    surface: Surface, values: dict[str, Any], noise: float, seed: int, done: int, evaluations: int
) -> float:
    """A point of a learning curve; each trial has a pace of its own, so that curves cross."""
    rng = np.random.default_rng(seed)
    final = max(surface.wer(values) + noise * rng.standard_normal(), 0.0)
    pace, wobble = rng.uniform(*PACES), 0.3 * noise * rng.standard_normal(evaluations)
    left = 0.0 if done == evaluations else math.exp(-pace * done / evaluations)
    return max(final + (0.9 - final) * left + (wobble[done - 1] if left else 0.0), 0.0)


def simulated(surfaces: int, trials: int, workers: int, gain: float) -> dict[str, Any]:
    """Each way on each surface; spreads over the surfaces."""
    rows: dict[str, list[dict[str, float | None]]] = {name: [] for name in WAYS}
    for seed in range(surfaces):
        surface = Surface.draw(np.random.default_rng(seed))
        ways = {
            name: simulate(
                _simulated_config(seed, trials, halving), surface, 0.004,
                workers if packed else 1, gain if packed else 1.0,
            )
            for name, (halving, packed) in WAYS.items()
        }  # fmt: skip
        for name, row in compare(ways, trials).items():
            rows[name].append(row)
    return {
        name: {
            "found_all": f"{sum(row['sooner'] is not None for row in found)} of {surfaces}",
            **{key: _spread([row[key] for row in found]) for key in found[0]},
            "best_found": float(np.mean([row["best_found"] for row in found])),
        }
        for name, found in rows.items()
    }


def _spread(values: list[float | None]) -> dict[str, Any] | None:
    """The spread of those that are known, if there are enough."""
    known = [value for value in values if value is not None]
    return spread(known) if len(known) > 1 else None


def _simulated_config(seed: int, trials: int, halving: bool) -> StudyConfig:
    pruner = "successive_halving" if halving else "none"
    return planted_config(
        Path("unused"), seed=seed, anchors=[], explore={"trials": 0},
        training={"evaluations": 9, "learning_rate": 2e-3},
        refine={"trials": trials, "sampler": "random", "pruner": pruner, "survivors": 0.0,
                "first_rung": 1 / 9, "reduction_factor": 3},
    )  # fmt: skip


# ── Real ─────────────────────────────────────────────────────────────────────────────────


def real(trials: int, workers: int, device: str, runs: Path) -> Iterator[dict[str, Any]]:
    """Each way once, with the product itself; what is known after each of them."""
    ways = {}
    for name, (halving, packed) in WAYS.items():
        slug = name.replace(", ", "-")
        options = [
            f"runs={runs}", f"name={slug}", f"refine.trials={trials}", f"device={device}",
            f"refine.pruner={'successive_halving' if halving else 'none'}",
            f"launcher.workers={workers if packed else 1}",
        ]  # fmt: skip
        words = [word for option in options for word in ("-o", option)]
        subprocess.run(
            [sys.executable, "-m", "study", "run", str(REAL), *words],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        ways[name] = _read(load(REAL, options))
        print(f"{name}: {ways[name].minutes:.1f} min", flush=True)
        yield dict(compare(ways, trials))


def _read(config: StudyConfig) -> Found:
    """What a finished study did, by the clock of its storage."""
    trials = open_study(config).get_trials(deepcopy=False)
    began = min(t.datetime_start for t in trials if t.datetime_start)

    def minute(trial: FrozenTrial) -> float:
        assert trial.datetime_complete is not None
        return (trial.datetime_complete - began).total_seconds() / 60

    whole = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return Found(
        minutes=max(map(minute, trials)),
        ended={trial.number: minute(trial) for trial in whole},
        standings={t.number: standing(t.user_attrs["evaluations"][-1]) for t in whole},
    )


def study_table(rows: dict[str, Any]) -> str:
    """A row for each way."""
    return table(
        [{"way": name, **row} for name, row in rows.items()],
        {
            "way": "way",
            "minutes": "minutes",
            "trials_per_minute": "trials a minute",
            "speed": "times sequential",
            "best_found": f"of the best {BEST}, found",
            "found_all": "all of them",
            "minutes_to_best": "minutes until then",
            "sooner": "times sooner",
        },
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("simulated", "real"))
    parser.add_argument("--surfaces", type=int, default=20)
    parser.add_argument("--trials", type=int, default=81, help="simulated configurations")
    parser.add_argument("--gain", type=float, help="of packing; by default as many as workers")
    parser.add_argument("--real-trials", type=int, default=27)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    results = results_of("study", options.device)
    if options.only != "real":
        gain = options.gain or float(options.workers)
        found = simulated(options.surfaces, options.trials, options.workers, gain)
        print(f"Simulated: {options.trials} configurations on {options.surfaces} surfaces; "
              f"{options.workers} workers together {gain:g} times as fast as one; "
              f"medians and quartiles\n{study_table(found)}\n")  # fmt: skip
        results["simulated"] = {"trials": options.trials, "gain": gain, "ways": found}
        write_results("study", options.device, results, workers=options.workers)
    if options.only != "simulated":
        with tempfile.TemporaryDirectory() as folder:
            for found in real(options.real_trials, options.workers, options.device, Path(folder)):
                results["real"] = {"trials": options.real_trials, "ways": found}
                write_results("study", options.device, results, workers=options.workers)
        print(f"Real: {options.real_trials} configurations, {options.workers} workers\n"
              f"{study_table(found)}\n")  # fmt: skip


if __name__ == "__main__":
    main()
