"""How often the report's answers are right, on simulated studies whose truth is known.

    python -m benchmarks.calibration --studies 50 --processes 2

Each study has a surface of its own (`tests/reports/planted.py`): main effects of several forms,
interactions, a best learning rate that depends on the shape, one question without any effect. The
product's own study code searches it (`tests/reports/planted_study.py`): even sample, TPE, pruning,
diverged trials, a SQLite file. Then its own report code answers, and the answers are marked. The
same surfaces are used at three levels of noise. The table goes to
`benchmarks/results/calibration.md`, every mark to `calibration.json`; `--tabulate` makes the first
from the second again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.landscape import Landscape, read_landscape
from reports.record import StudyRecord, read_study
from reports.verdicts import VERDICTS, verdicts
from study import provenance
from tests.reports.planted import SPACE, Surface
from tests.reports.planted_study import Formula, conduct, planted_config

NOISES = (0.003, 0.01, 0.03)
"""Standard deviations of WER between seeds, as fractions."""
RESULTS = Path(__file__).parent / "results"
BASES = {
    "all": "all finished trials (as the report does)",
    "explore": "explore trials and the anchor alone",
}


def mark_study(seed: int, noise: float, explore: int, refine: int) -> list[dict[str, Any]]:
    """Run and mark one study; returns a row per basis."""
    surface = Surface.draw(np.random.default_rng(seed))
    with tempfile.TemporaryDirectory() as folder:
        config = planted_config(
            Path(folder),
            seed=seed,
            explore={"trials": explore},
            refine={"trials": refine},
            finalists={"top": 0, "anchors": False},
        )
        record = read_study(conduct(config, Formula(surface, noise)), config.name)
    results = record.results
    bases = {"all": results, "explore": results[results["phase"] == "explore"]}
    rows = []
    for basis, trials in bases.items():
        landscape = read_landscape(record, trials=pd.DataFrame(trials))
        assert isinstance(landscape, Landscape), landscape
        lowest = record.results.sort_values("wer").iloc[0]
        rows.append(
            {
                "seed": seed,
                "noise": noise,
                "basis": basis,
                "questions": list(_mark(surface, record, landscape)),
                "regret": surface.shape_wer(landscape.best()) - surface.best_wer,
                "regret_of_lowest": surface.wer(dict(lowest)) - surface.best_wer,
                "explained": landscape.explained,
            }
        )
    return rows


def _mark(surface: Surface, record: StudyRecord, landscape: Landscape) -> Iterator[dict[str, Any]]:
    for verdict in verdicts(record, landscape):
        name = verdict.question.name
        truth, values = surface.effect(name), list(SPACE[name])
        assert verdict.recommended is not None
        assert verdict.worst is not None
        best, worst = values.index(int(verdict.recommended)), values.index(int(verdict.worst))
        gain = float(truth[worst] - truth[best])
        yield {
            "name": name,
            "null": name == surface.null,
            "verdict": verdict.verdict,
            "alone": len(verdict.as_good) == 1,
            "right": bool(truth[best] <= truth.min() + 1e-12),
            "best_as_good": values[int(truth.argmin())] in verdict.as_good,
            "covered": [
                bool(e.low <= t <= e.high) for e, t in zip(verdict.effects, truth, strict=True)
            ],
            "gain_covered": bool((verdict.gain_low or 0) <= gain <= (verdict.gain_high or 0)),
            "bound_holds": bool(np.ptp(truth) <= (verdict.spread_bound or 0) + 1e-12),
        }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the marks as a Markdown table, a row per basis and noise."""
    lines = [
        "| read from | seed noise, WER points | studies | 95 % intervals of effects cover | "
        "of gains cover | decided | decided and right | single best value named (edge or decided) "
        "and right | question without effect decided | no effect: bound holds | "
        "recommended shape within one noise SD of the best | lowest trial within one |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for basis, said in BASES.items():
        for noise in NOISES:
            chosen = [row for row in rows if row["basis"] == basis and row["noise"] == noise]
            if not chosen:
                continue
            questions = [question for row in chosen for question in row["questions"]]
            decided = [q for q in questions if q["verdict"] == "decided"]
            named = [
                q for q in questions if q["alone"] and q["verdict"] in ("decided", "at the edge")
            ]
            flat = [q for q in questions if q["verdict"] == "no effect seen"]
            cells = [
                said,
                f"{100 * noise:.1f}",
                str(len(chosen)),
                _share([c for q in questions for c in q["covered"]]),
                _share([q["gain_covered"] for q in questions]),
                _share([q["verdict"] == "decided" for q in questions]),
                f"{_share([q['right'] for q in decided])} of {len(decided)}",
                f"{_share([q['right'] for q in named])} of {len(named)}",
                _share([q["verdict"] == "decided" for q in questions if q["null"]]),
                f"{_share([q['bound_holds'] for q in flat])} of {len(flat)}",
                _share([row["regret"] <= noise for row in chosen]),
                _share([row["regret_of_lowest"] <= noise for row in chosen]),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict_table(rows: list[dict[str, Any]]) -> str:
    """Return how often each verdict was given, as a Markdown table, a row per noise."""
    names = [name for name in VERDICTS if name != "not asked"]
    lines = [
        f"| seed noise, WER points | {' | '.join(names)} | "
        "single best value named (edge or decided) |",
        "|---:|" + "---:|" * (len(names) + 1),
    ]
    for noise in NOISES:
        chosen = [r for r in rows if r["basis"] == "all" and r["noise"] == noise]
        questions = [question for row in chosen for question in row["questions"]]
        if not questions:
            continue
        named = [q["alone"] and q["verdict"] in ("decided", "at the edge") for q in questions]
        shares = [_share([q["verdict"] == name for q in questions]) for name in names]
        lines.append("| " + " | ".join([f"{100 * noise:.1f}", *shares, _share(named)]) + " |")
    return "\n".join(lines)


def _share(marks: list[bool]) -> str:
    return f"{100 * float(np.mean(marks)):.1f} %" if marks else "–"


def write(made: dict[str, Any]) -> None:
    """Write the tables of marks, and the marks themselves."""
    rows = made["rows"]
    text = f"""# How often the answers are right

Made by `python -m benchmarks.calibration {made["arguments"]}` in {made["minutes"]} min on \
{made["hardware"]}.

{made["studies"]} surfaces with a known truth, each searched at {len(NOISES)} levels of noise by \
the study's own code: {made["explore"]} explore trials and one anchor, {made["refine"]} refine \
trials with TPE and successive halving. Wanted: intervals cover the truth in 90 to 99 %; *decided* \
is right in at least 95 %; a question without effect is decided in at most 5 %; the recommended \
shape is within one standard deviation of the noise of the truly best one in at least 90 %.

{table(rows)}

The upper rows show that trials which a sampler concentrated and a pruner let through do no harm \
to the intervals and help the recommendation. Finalists, which the report uses as well, were not \
part of these studies. The last column is what taking the trial with the lowest WER would have done.

## Which verdicts were given

{verdict_table(rows)}

Few questions are *decided* because most of these surfaces slope one way: the best value is then \
the end of its range, and the verdict *at the edge*, which asks for a wider range. One question in \
six has no effect by construction, and others have less than the noise.
"""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "calibration.md").write_text(text, encoding="utf-8")
    (RESULTS / "calibration.json").write_text(json.dumps(made) + "\n", encoding="utf-8")
    print(f"\n{table(rows)}\n\n{verdict_table(rows)}")


def main() -> None:
    """Run the studies, print the tables and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=50, help="surfaces, each at every noise")
    parser.add_argument("--explore", type=int, default=96)
    parser.add_argument("--refine", type=int, default=60)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tabulate", action="store_true", help="the tables again, from the marks")
    options = parser.parse_args()
    if options.tabulate:
        write(json.loads((RESULTS / "calibration.json").read_text(encoding="utf-8")))
        return
    began = time.perf_counter()
    seeds = range(options.first_seed, options.first_seed + options.studies)
    jobs = [(seed, noise) for seed in seeds for noise in NOISES]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.processes) as pool:
        tasks = [pool.submit(mark_study, *job, options.explore, options.refine) for job in jobs]
        for place, task in enumerate(tasks, start=1):
            rows += task.result()
            print(f"\r{place} of {len(jobs)} studies", end="", flush=True)
    write(
        {
            "arguments": f"--studies {options.studies} --explore {options.explore} "
            f"--refine {options.refine} --first-seed {options.first_seed}",
            "minutes": round((time.perf_counter() - began) / 60),
            "hardware": provenance.hardware("cpu"),
            "studies": options.studies,
            "explore": options.explore,
            "refine": options.refine,
            "rows": rows,
        }
    )


if __name__ == "__main__":
    main()
