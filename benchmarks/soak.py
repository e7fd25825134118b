"""A soak: workers are killed every few seconds and the storage is restarted, and nothing is lost.

    python -m benchmarks.soak          # 20 minutes on PostgreSQL, and then no-op trials
    python -m benchmarks.soak --minutes 3 --storage journal --noop 0
    python -m benchmarks.soak --minutes 0 --noop-storages journal postgresql --noop-workers 8

Four workers train tiny trials. Every few seconds one of them, drawn at random, gets SIGKILL or
SIGTERM and another is started in its place, as on machines that are pre-empted; twice the database
goes away, once for a minute; and the study is asked for more trials whenever few of them wait. When
the time is up, `python -m study run` ends the study. Then Optuna's storage, MLflow, the folder of
the study and the processes are looked through for anything that is missing, there twice, or left
behind.

No-op trials are claimed and finished at once, by ever more workers on each kind of storage: what a
claim takes where nothing else is done, and whether each trial is claimed once. Results go to
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from benchmarks.claims import no_op
from study import provenance
from study.config import StudyConfig
from study.config_file import amend, dump, load
from study.files import write_atomically
from study.runner import _attributes
from study.storage import create_study, open_study
from study.tracking.sync import open_experiment
from study.worker import open_dataset
from tests import postgres

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "tiny_study.yaml"
STORAGES = ("sqlite", "journal", "postgresql")
WORKERS = 4
STOPPED_WITHIN = 10.0
"""Seconds within which a worker that got SIGTERM has to end."""
LOOK = 2.0
"""Seconds between two looks at how many trials wait."""
AWAY = (5.0, 60.0)
"""Seconds that the database is away, the first and the second time."""


class Soak:
    """Workers that are killed and replaced for some minutes."""

    def __init__(
        self,
        config: StudyConfig,
        file: Path,
        attributes: dict[str, Any],
        server: postgres.Server | None,
        every: float,
    ) -> None:
        self._every = every
        self.config = config
        """With the trials that it was asked for by now."""
        self._attributes = attributes
        self._file, self._server = file, server
        self._draw = random.Random(0)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._stopping: list[threading.Thread] = []
        self.signals: Counter[str] = Counter()
        self.codes: Counter[int] = Counter()
        self.took: list[float] = []
        """Seconds that each worker took to end after SIGTERM."""
        self.restarts = 0

    def run(self, minutes: float) -> None:
        """Kill, replace and ask for more trials for so long."""
        began = time.monotonic()
        ends = began + 60 * minutes
        restarts = [began + 20 * minutes, began + 40 * minutes] if self._server else []
        next_kill = began + 4 * self._every
        next_look = began
        while time.monotonic() < ends:
            if time.monotonic() > next_look:
                self._ask_for_more()
                next_look = time.monotonic() + LOOK
            self._replace()
            if restarts and time.monotonic() > restarts[0]:
                del restarts[0]
                self._restart_storage()
            if time.monotonic() > next_kill:
                self._kill_one()
                next_kill = time.monotonic() + self._every * self._draw.uniform(0.4, 1.6)
            time.sleep(0.2)
        for worker in self._workers:
            self._stop(worker)
        for thread in self._stopping:
            thread.join()

    def _ask_for_more(self) -> None:
        waiting = open_study(self.config).get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if len(waiting) < 3 * WORKERS:
            more = self.config.explore.trials + 5 * WORKERS
            self.config = amend(self.config, [f"explore.trials={more}"])
            create_study(self.config, self._attributes)
            write_atomically(self._file, dump(self.config))

    def _replace(self) -> None:
        ended = [worker for worker in self._workers if worker.poll() is not None]
        for worker in ended:
            self.codes[worker.returncode] += 1
            self._workers.remove(worker)
        while len(self._workers) < WORKERS:
            log = self.config.folder / "soak.log"
            with log.open("ab") as output:
                self._workers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "study", "worker", str(self._file)],
                        cwd=ROOT,
                        stdout=output,
                        stderr=output,
                    )
                )

    def _kill_one(self) -> None:
        number = self._draw.choice((signal.SIGKILL, signal.SIGTERM))
        worker = self._draw.choice(self._workers)
        if worker.poll() is None:
            self.signals[number.name] += 1
            if number == signal.SIGTERM:
                self._workers.remove(worker)
                self._stop(worker)
            else:
                worker.kill()

    def _stop(self, worker: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM; a thread waits for the end, since the storage's restart takes this one."""
        began = time.monotonic()
        worker.terminate()

        def wait() -> None:
            try:
                worker.wait(6 * STOPPED_WITHIN)
            except subprocess.TimeoutExpired:
                worker.kill()
            self.took.append(time.monotonic() - began)
            self.codes[worker.wait()] += 1

        self._stopping.append(threading.Thread(target=wait))
        self._stopping[-1].start()

    def _restart_storage(self) -> None:
        assert self._server is not None
        self._server.stop("immediate")
        time.sleep(AWAY[self.restarts])
        self._server.start()
        self.restarts += 1


# ── What must hold afterwards ────────────────────────────────────────────────────────────


def faults(config: StudyConfig, trials: list[FrozenTrial]) -> Iterator[str]:
    """What is missing, there twice, or left behind."""
    asked = config.trials
    if sorted(trial.number for trial in trials) != list(range(asked)):
        yield f"there are {len(trials)} trials, and {asked} were asked for"
    for trial in trials:
        if not trial.state.is_finished() or trial.state == TrialState.FAIL:
            yield f"trial {trial.number} is {trial.state.name}: {trial.user_attrs.get('error')}"
        known = trial.user_attrs.get("evaluations", [])
        if [e["evaluation"] for e in known] != sorted(trial.intermediate_values):
            yield f"trial {trial.number} has other evaluations than it reported"
    identities = Counter(trial.user_attrs.get("identity") for trial in trials)
    yield from (f"{n} trials are {identity}" for identity, n in identities.items() if n > 1)
    yield from _mlflow_faults(config, trials)
    for file in config.folder.rglob("*"):
        if file.name.startswith(".") or file.suffix in (".lock", ".claims"):
            yield f"the file {file} was left behind"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(config.runs) in command and int(process.name) != os.getpid():
                yield f"a process was left behind: {command}"


def _mlflow_faults(config: StudyConfig, trials: list[FrozenTrial]) -> Iterator[str]:
    client = MlflowClient(f"sqlite:///{config.runs}/mlflow.db")
    experiment = client.get_experiment_by_name(config.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=10_000)
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    if len(runs) - len(nested) != 1:
        yield f"MLflow has {len(runs) - len(nested)} parent runs"
    by_trial = {int(run.data.tags["trial"]): run for run in nested}
    if len(nested) != len(trials) or set(by_trial) != {trial.number for trial in trials}:
        yield f"MLflow has {len(nested)} runs of {len(by_trial)} trials, Optuna {len(trials)}"
    for trial in trials:
        run = by_trial.get(trial.number)
        if run is None:
            continue
        status = "FINISHED" if trial.state == TrialState.COMPLETE else "KILLED"
        if (run.info.status, run.data.tags["state"]) != (status, trial.state.name):
            yield f"MLflow's trial {trial.number} is {run.info.status}, Optuna's {trial.state.name}"
        for name, value in trial.params.items():
            if float(run.data.params[name]) != value:
                yield f"MLflow's trial {trial.number} has another {name}"
        history = client.get_metric_history(run.info.run_id, "wer")
        if sorted((m.step, m.value) for m in history) != sorted(trial.intermediate_values.items()):
            yield f"MLflow's trial {trial.number} has another curve of WER"


# ── The whole ────────────────────────────────────────────────────────────────────────────


def _study(folder: Path, name: str, storage: str, trials: int) -> tuple[StudyConfig, Path]:
    settings = [f"name={name}", f"runs={folder}", f"storage={storage}", f"explore.trials={trials}"]
    settings += ["refine.trials=0", "anchors=[]", "finalists={top: 0, anchors: false}"]
    config = load(TINY, settings)
    config.folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    file.write_text(dump(config))
    return config, file


def soak(
    folder: Path, storage: str, minutes: float, server: postgres.Server | None, every: float
) -> dict[str, Any]:
    """Run a soak; returns what happened, and the faults that were found."""
    config, file = _study(folder, "soak", storage, 5 * WORKERS)
    attributes = _attributes(config, open_dataset(config), "cpu")
    study = create_study(config, attributes)
    open_experiment(config, study)
    began = time.monotonic()
    killing = Soak(config, file, attributes, server, every)
    killing.run(minutes)
    config = killing.config
    killed_for = time.monotonic() - began
    finished = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
    command = [sys.executable, "-m", "study", "run", str(file), "--workers", str(WORKERS)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    trials_there = study.get_trials(deepcopy=False)
    found = list(faults(config, trials_there))
    if ended.returncode:
        found.append(
            f"run ended with {ended.returncode}: {ended.stdout[-500:]}{ended.stderr[-500:]}"
        )
    slow = sorted(took for took in killing.took if took > STOPPED_WITHIN)
    found += [f"a worker took {took:.1f} s to end after SIGTERM" for took in slow]
    return {
        "storage": config.storage_url.partition(":")[0],
        "workers": WORKERS,
        "minutes": round(killed_for / 60, 1),
        "seconds_between_signals": every,
        "signals": dict(killing.signals),
        "exit_codes": {str(code): n for code, n in sorted(killing.codes.items())},
        "seconds_to_end_after_sigterm": {
            "median": round(statistics.median(killing.took), 1),
            "longest": round(max(killing.took), 1),
        },
        "storage_restarts": killing.restarts,
        "seconds_away": AWAY[: killing.restarts],
        "trials_asked": config.trials,
        "trials_finished": sum(t.state.is_finished() for t in trials_there),
        "trials_finished_while_killing": finished,
        "faults": found,
    }


def write(results: dict[str, Any], name: str, folder: Path) -> str:
    """Write what was measured as JSON and as a table; returns the table."""
    (folder / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    lines = [f"`{results['command']}`", "", f"{results['hardware']}; load {results['load']}.", ""]
    if isinstance(results["measured"], dict):
        lines += ["| | |", "|---|---|"]
        for key, value in results["measured"].items():
            shown = value
            if isinstance(value, list | tuple):
                shown = "; ".join(map(str, value)) or "none"
            elif isinstance(value, dict):
                shown = ", ".join(f"{name}: {n}" for name, n in value.items())
            lines.append(f"| {key.replace('_', ' ')} | {shown} |")
    else:
        keys = list(results["measured"][0])
        lines.append(f"| {' | '.join(key.replace('_', ' ') for key in keys)} |")
        lines.append("|---" * len(keys) + "|")
        lines += [f"| {' | '.join(str(row[k]) for k in keys)} |" for row in results["measured"]]
    text = "\n".join(lines) + "\n"
    (folder / f"{name}.md").write_text(text)
    return text


def main() -> int:
    """Run what was asked for; returns 1 where anything was found amiss."""
    parser = argparse.ArgumentParser(description="Kill workers and restart the storage.")
    parser.add_argument("--minutes", type=float, default=20, help="0 for no soak")
    parser.add_argument("--every", type=float, default=5, help="seconds between two signals")
    parser.add_argument("--storage", choices=STORAGES, default="postgresql")
    parser.add_argument("--noop", type=int, default=1000, help="no-op trials; 0 for none")
    parser.add_argument("--noop-workers", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--noop-storages", nargs="+", choices=STORAGES, default=STORAGES)
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args()
    about = {
        "command": f"python -m benchmarks.soak {' '.join(sys.argv[1:])}".strip(),
        "hardware": provenance.hardware("cpu"),
        "load": round(os.getloadavg()[2], 1),  # of the machine, before this began
    }
    amiss = False
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        server = stack.enter_context(postgres.server())
        os.environ["STUDY_DB_PASSWORD"] = postgres.PASSWORD
        rows = []
        runs = product(given.noop_storages, given.noop_workers)
        for kind, workers in runs if given.noop else ():
            name = f"noop-{kind}-{workers}"
            place = server.create(name) if kind == "postgresql" else kind
            config, file = _study(folder, name, place, given.noop)
            rows.append(no_op(config, file, workers))
            amiss |= rows[-1]["lost"] > 0 or rows[-1]["claimed_twice"] > 0
            text = write({**about, "measured": rows}, f"soak-no-op-{given.noop}", given.to)
        if rows:
            print(text)
        if given.minutes:
            real = given.storage == "postgresql"
            storage = server.create("soak") if real else given.storage
            found = soak(folder, storage, given.minutes, server if real else None, given.every)
            amiss |= bool(found["faults"])
            print(write({**about, "measured": found}, f"soak-{given.storage}", given.to))
    return int(amiss)


if __name__ == "__main__":
    sys.exit(main())
