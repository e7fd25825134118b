"""`python -m study run`: prepares a study, starts its workers, watches them, writes the report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape

from study import finalists, findings, provenance
from study.config import StudyConfig
from study.config_file import dump
from study.connection import check_url
from study.crew import Crew
from study.crew import size as crew_size
from study.data.corpus import SPLITS
from study.data.dataset import Dataset
from study.errors import Unavailable
from study.files import write_atomically
from study.invocation import command
from study.launchers.worker import study_file
from study.leases import Watcher
from study.patience import without_waiting
from study.progress import Watch, duration_in_words, shown, step
from study.storage import crashed, create_study
from study.tracking import parent, sync
from study.tracking.address import tracking_uri
from study.tracking.system import missing
from study.winner import TOKENS
from study.worker import device_here, device_of_workers, open_dataset, refuse_graphs

POLL = 0.5
"""Seconds between looks at the storage."""

INTERRUPTED = 130
FAILED = 1


def run(
    config: StudyConfig,
    console: Console,
    arguments: str = "",
    *,
    accept_changed_corpus: bool = False,
    retry_crashed: bool = False,
) -> int:
    """Run a study to its end, or go on with it; returns an exit code.

    `arguments` are those with which other commands find the same study. With
    `accept_changed_corpus` it goes on although its corpus is not what it was, which is recorded;
    with `retry_crashed` trials that crashed are trained anew.
    """
    here = preflight(config)
    study = _begin(
        config,
        here.type,
        console,
        accept_changed_corpus=accept_changed_corpus,
        retry_crashed=retry_crashed,
    )
    experiment = sync.open_experiment(config, study)
    if experiment is not None and config.tracking.system_metrics and (lacking := missing()):
        console.print(lacking, highlight=False)
    lost = Watcher(study).reclaim()
    if not _waiting(study):
        finalists.enqueue(config, study)
    watch = Watch(study, config, console)
    reasons = _Reasons(config.folder / "logs")
    _greet(watch, lost)
    if watch.unfinished:
        workers = crew_size(config, here.type, lambda said: console.print(said, highlight=False))
        code = _train(config, study, watch, workers)
        if code == INTERRUPTED:
            parent.end_study(experiment)
            console.print(
                f"Interrupted with {len(watch.finished)} of {watch.total} trials done. "
                "Run the same command again to go on.",
                highlight=False,
            )
            return code
    _report(config, study, console, arguments, warned=experiment is None)
    if watch.unfinished:
        for reason in reasons:
            console.print(f"[red]A worker stopped:[/] {escape(reason)}", soft_wrap=True)
        console.print(
            f"[red]The workers stopped with {watch.unfinished} trials unfinished;[/] "
            f"{escape(str(config.folder / 'logs'))} says why. Run the same command again to go on.",
            highlight=False,
        )
        return FAILED
    return 0 if watch.best is not None else FAILED


def preflight(config: StudyConfig) -> torch.device:
    """Refuse what can be refused before the speech is prepared, which can take hours.

    Returns the device on which this machine computes. Raises `InputError`.
    """
    device = device_here(config)
    refuse_graphs(config, device_of_workers(config, device))
    check_url(config.storage_url)
    if config.tracking.enabled:
        tracking_uri(config.runs, config.tracking.uri)
    return device


def _begin(config: StudyConfig, device: str, console: Console, **going_on: bool) -> optuna.Study:
    """Prepare the speech, and create the study or open it and add what it lacks."""
    dataset = _open_dataset(config, console)
    study = create_study(config, _attributes(config, dataset, device), **going_on)
    for change in study.user_attrs.get("changes", []):
        console.print(f"warning: {change}", highlight=False, markup=False, soft_wrap=True)
    dataset.tokenizer.save(config.folder / TOKENS)  # with it, trained networks need no corpus
    return study


def _greet(watch: Watch, lost: list[FrozenTrial]) -> None:
    """Say what is there already of a study that was begun before."""
    say, name = watch.console.print, watch.config.name
    if lost:
        numbers = ", ".join(str(trial.number) for trial in lost)
        say(f"Trials {numbers} had lost their worker; they go on from their checkpoints.")
    if failed := crashed(watch.trials):
        numbers = ", ".join(str(trial.number) for trial in failed)
        say(f"Crashed: trials {numbers}. To train them anew: --retry-crashed", highlight=False)
    if not watch.unfinished:
        say(
            f"The study '{name}' is finished: all its {len(watch.trials)} trials have an "
            "outcome, so nothing is trained. To extend it, ask for more: -o explore.trials=…, "
            f"-o refine.{'trials' if watch.config.refine.hours is None else 'hours'}=…, "
            "-o finalists.seeds=…; to begin anew: -o name=…",
            highlight=False,
        )
    elif watch.finished:
        done = f"{len(watch.finished)} of {watch.total} trials have an outcome"
        say(f"Going on with the study '{name}': {done}.", highlight=False)


def _waiting(study: optuna.Study) -> bool:
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _open_dataset(config: StudyConfig, console: Console) -> Dataset:
    with console.status("Preparing speech and features …"):
        dataset = open_dataset(config)
    for line in describe_dataset(dataset):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return dataset


def describe_dataset(dataset: Dataset) -> list[str]:
    """How much speech there is, and what was found amiss, in lines."""
    lines = []
    for name in SPLITS:
        summary = dataset.splits[name].summary()
        count = summary["speakers"]
        speakers = f", {count} speaker{'s' * (count != 1)}" if count else ""
        amount = duration_in_words(summary["hours"] * 3600)
        lines.append(
            f"{name:5}  {summary['utterances']:>6} utterances, {amount} of speech, "
            f"{summary['words']} words{speakers}"
        )
    return [*lines, *(f"warning: {warning}" for warning in dataset.warnings)]


def _attributes(config: StudyConfig, dataset: Dataset, device: str) -> dict[str, Any]:
    """What the study's readers should know about it."""
    return {
        "corpus": {
            "kind": config.corpus.kind,
            "fingerprint": dataset.fingerprint,
            "splits": {name: split.summary() for name, split in dataset.splits.items()},
            "warnings": dataset.warnings,
        },
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "code": provenance.code_fingerprint(),
        "hardware": _hardware(config, device),
    }


def _hardware(config: StudyConfig, device: str) -> str:
    """The machine on which trials train, as far as it is known before they do."""
    if config.launcher.elsewhere:
        return f"machines that {config.launcher.kind} chose"
    return provenance.hardware(device)


def _train(config: StudyConfig, study: optuna.Study, watch: Watch, most: int) -> int:
    """Run workers, at most so many, until every trial has an outcome, or until nothing moves."""
    write_atomically(study_file(config), dump(config))
    watcher = Watcher(study)
    with shown(watch):
        while watch.unfinished:
            before = len(watch.finished)
            crew = Crew(config, min(most, watch.total - before))  # finalists will come
            try:
                while crew.look(len(watch.finished)):
                    time.sleep(POLL)
                    watcher.reclaim()  # trials of workers that died go to the others
                    step(watch)
            except KeyboardInterrupt:
                crew.stop()
                with without_waiting(), contextlib.suppress(Unavailable):
                    watcher.reclaim()
                    step(watch)
                return INTERRUPTED
            except Unavailable:
                crew.stop()
                raise
            watcher.reclaim()
            finalists.enqueue(config, study)  # where no worker lived to do it
            step(watch)
            if crew.gave_up or len(watch.finished) == before:
                return FAILED
    return 0


class _Reasons:
    """Why workers stopped: the errors that they logged from now on, the last of each."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._sizes = {log: log.stat().st_size for log in logs.glob("*.log")}

    def __iter__(self) -> Iterator[str]:
        said = []
        for log in sorted(self._logs.glob("*.log")):
            with log.open("rb") as file:
                file.seek(self._sizes.get(log, 0))
                lines = file.read().decode(errors="replace").splitlines()
            errors = [line.partition(": ")[2] for line in lines if " ERROR " in line]
            said += errors[-1:]
        return iter(dict.fromkeys(said))


def _report(
    config: StudyConfig, study: optuna.Study, console: Console, arguments: str, *, warned: bool
) -> None:
    """Write the report, log it with all that MLflow lacks, and say what it found.

    `warned` is whether people were told already that MLflow does not answer.
    """
    with console.status("Writing the report …"):
        files = findings.write(config, study)
    experiment = sync.open_experiment(config, study, warn=not warned)  # it may have come or gone
    missing = sync.deliver(config, study, experiment).missing
    console.print()
    findings.show(files, console)
    if experiment is not None and not missing:
        where = command("ui", arguments)
    elif config.tracking.enabled:
        where = f"lacks some of this; once it answers: {command('sync', arguments)}"
    else:
        return
    console.print(f"MLflow   {where}", highlight=False, markup=False, soft_wrap=True)
