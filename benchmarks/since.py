"""Training of this checkout against that of an earlier commit: seconds and word error rate.

    python benchmarks/since.py 74ab356              # the first version that worked end to end

The same corpus, shape and seed are trained by both, each in a process of its own with one thread
and the environment that its workers have, in turns of one evaluation. Seconds are those of the
process. The speech of an earlier commit has to be made in the same way still.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from benchmarks import measuring
from study.config_file import load
from study.launchers import environment

ROOT = Path(__file__).resolve().parent.parent
TRAIN = """
import json, sys, tempfile, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from study.config_file import load
from study.training.loop import train
from study.worker import open_dataset
study, overrides, shape = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
config = load(Path(study), overrides)
network, training = config.with_parameters(shape)
evaluations = train(network, training, open_dataset(config), seed=1, device=torch.device("cpu"),
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


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("commit")
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = ROOT / "study.yaml"
    runs = (ROOT / "runs").absolute()
    overrides = [f"runs={runs}", *arguments.overrides]
    config = load(study, overrides)
    anchor = config.anchor_shapes[0]
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder) / "earlier"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(earlier), arguments.commit], check=True)
        (earlier / "since.yaml").write_text(study.read_text().partition("finalists:")[0])
        try:
            asked = [json.dumps(overrides), json.dumps(anchor.shape)]
            now = begin(ROOT, [str(study), *asked], tuned=True)
            then = begin(earlier, ["since.yaml", *asked], tuned=False)
            turns = [(ask(now), ask(then)) for _ in range(config.training.evaluations)]
        finally:
            subprocess.run([*git, "remove", "--force", str(earlier)], check=True)
    ours, theirs = zip(*turns, strict=True)
    rows = [
        {
            "version": name,
            "seconds": sum(turn["seconds"] for turn in version),
            "steps": version[-1]["step"],
            "wer": version[-1]["wer"],
            "ratio": measuring.ratios(
                [turn["seconds"] for turn in version], [turn["seconds"] for turn in theirs]
            ),
        }
        for name, version in (("this", ours), (arguments.commit, theirs))
    ]
    columns = {name: name for name in ("version", "seconds", "steps", "wer", "ratio")}
    print(measuring.table(rows, columns))
    measuring.write_results("since", "cpu", rows, commit=arguments.commit, shape=anchor.shape,
                            overrides=arguments.overrides)  # fmt: skip


if __name__ == "__main__":
    main()
