"""Training of this checkout against that of an earlier commit: seconds and word error rate.

    python benchmarks/since.py 74ab356              # the first version that worked end to end
    python benchmarks/since.py 74ab356 --explore    # on all networks of the explore phase
    python benchmarks/since.py 74ab356 --here training.batch_seconds=14     # in this checkout alone

The default study of that commit says what is trained by both: its speech, its training and its
first anchor with several seeds, or its explore sample. Each has a process of its own with one
thread and the environment that its workers have, and they train in turns of one evaluation. Seconds
are those of the process; `total` is their sum over that of the earlier version. `higher` is by how
much the error rate of this version is, with its 95 % interval (Student's t, over the pairs). The
speech of an earlier commit has to be made as it was then, and its study to be understood. Results
of other settings or seeds have a file of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student_t

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from benchmarks import measuring
from study.config_file import load
from study.launchers import environment
from study.sampler import even_sample

ROOT = Path(__file__).resolve().parent.parent
TRAIN = """
import json, sys, tempfile, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from study.config_file import load
from study.training.loop import train
from study.worker import open_dataset
study, overrides, shape, seed = sys.argv[1], *map(json.loads, sys.argv[2:])
config = load(Path(study), overrides)
network, training = config.with_parameters(shape)
evaluations = train(network, training, open_dataset(config), seed=seed, device=torch.device("cpu"),
                    folder=Path(tempfile.mkdtemp()))
print(flush=True)
for _ in sys.stdin:
    began = time.process_time()
    evaluation = next(evaluations)
    print(json.dumps({"seconds": time.process_time() - began, "wer": evaluation.wer,
                      "step": evaluation.step}), flush=True)
"""
"""What either version is asked to do; it speaks of nothing that one of them does not know."""


def begin(root: Path, arguments: list[str], *, tuned: bool) -> subprocess.Popen[str]:
    """A process that trains with the code in `root`, an evaluation for each line it is sent."""
    base = environment() if tuned else dict(os.environ)
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN, *arguments],
        cwd=root,
        env={**base, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    _answer(process)
    return process


def ask(process: subprocess.Popen[str]) -> dict[str, Any]:
    """One more evaluation."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(_answer(process))
    return found


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a training ended early: see above")
    return line


Training = tuple[dict[str, Any], int]
"""The parameters of a network and of its training, and a seed."""


def compare(
    earlier: Path, study: Path, overrides: list[str], here: list[str], trainings: list[Training]
) -> list[dict[str, Any]]:
    """Train with both versions, one training after the other; the rows of the table."""
    evaluations = load(study, overrides).training.evaluations
    ours: list[list[dict[str, Any]]] = []
    theirs: list[list[dict[str, Any]]] = []
    for parameters, seed in trainings:
        now, then = (
            begin(root, [str(study), *map(json.dumps, (asked, parameters, seed))], tuned=tuned)
            for root, asked, tuned in (
                (ROOT, [*overrides, *here], True),
                (earlier, overrides, False),
            )
        )
        turns = [(ask(now), ask(then)) for _ in range(evaluations)]
        for process in (now, then):
            process.kill()
            process.wait()
        ours.append([turn for turn, _ in turns])
        theirs.append([turn for _, turn in turns])
        wers = " and ".join(f"{version[-1][-1]['wer']:.3f}" for version in (ours, theirs))
        print(f"{parameters}, seed {seed}: WER {wers}", file=sys.stderr)
    rows = []
    for name, version in (("this", ours), (earlier.name, theirs)):
        seconds = [[turn["seconds"] for turn in training] for training in version]
        compared = [[turn["seconds"] for turn in training] for training in theirs]
        rows.append(
            {
                "version": name,
                "seconds": measuring.spread(list(map(sum, seconds))),
                "ratio": measuring.ratios(list(chain(*seconds)), list(chain(*compared))),
                "total": sum(map(sum, seconds)) / sum(map(sum, compared)),
                "steps": version[0][-1]["step"],
                "wer": measuring.spread([each[-1]["wer"] for each in version]),
                "wers": [each[-1]["wer"] for each in version],
            }
        )
    rows[0]["higher"] = higher(rows[0]["wers"], rows[1]["wers"])
    return rows


def higher(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """The mean difference of pairs, and its 95 % interval."""
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / len(differences) ** 0.5
    reach = error * float(student_t.ppf(0.975, len(differences) - 1))
    return {"mean": mean, "interval": [mean - reach, mean + reach]}


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("commit")
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--here", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--explore", action="store_true", help="each network of it, not an anchor")
    parser.add_argument(
        "--seeds",
        type=int,
        help="trainings of each network: 3 (or more than 1), or 1 with --explore",
    )
    parser.add_argument("--first-seed", type=int, default=1, help="1; another for new trainings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    first = arguments.first_seed
    overrides = [f"runs={(ROOT / 'runs').absolute()}", *arguments.overrides]
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder) / arguments.commit
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(earlier), arguments.commit], check=True)
        try:
            study = earlier / "study.yaml"
            config = load(study, overrides)
            networks: list[dict[str, Any]] = [dict(config.anchor_shapes[0].shape)]
            if arguments.explore:
                networks = even_sample(config.space, config.explore.trials, config.seed)
            seeds = arguments.seeds or (1 if arguments.explore else 3)
            trainings = [(network, first + i) for i in range(seeds) for network in networks]
            rows = compare(earlier, study, overrides, arguments.here, trainings)
        finally:
            subprocess.run([*git, "remove", "--force", str(earlier)], check=True)
    columns = {name: name for name in ("version", "seconds", "ratio", "total", "steps", "wer")}
    print(measuring.table(rows, columns))
    given = [*arguments.overrides, *arguments.here, *([f"first-seed={first}"] if first > 1 else [])]
    name = "-".join(["since_explore" if arguments.explore else "since", *given])
    found = rows[0]["higher"]
    low, high = found["interval"]
    print(f"WER is {found['mean']:+.2%} higher, 95 % {low:+.2%} to {high:+.2%}")
    measuring.write_results(name, "cpu", rows, commit=arguments.commit, trainings=trainings,
                            overrides=arguments.overrides, here=arguments.here)  # fmt: skip


if __name__ == "__main__":
    main()
