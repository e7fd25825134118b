"""`python -m study status`: what a study is doing, or has done, from Optuna's storage alone.

It works from any machine that sees the storage, whether the study runs, was interrupted or is
finished, and changes nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import reports
from study.budget import LEFT_OUT, seconds_of
from study.config import StudyConfig
from study.invocation import command
from study.leases import lost
from study.progress import (
    Watch,
    duration_in_words,
    outcome_in_words,
    shape_in_words,
    trial_in_words,
)
from study.pruner import is_paused
from study.training.result import deciding

POLL = 1.0
"""Seconds between looks at the storage."""
OTHER_LINES = 7
"""Lines of the display that are no trials."""
LEAST_ROWS = 3
"""Trials that are shown on however low a terminal."""
COLUMNS = ("trial", "phase", "state", "shape", "WER", "eval", "for", "")
"""Of the table; the last is the name of an anchor or a finalist, which is cut to what is left."""
LEAST_NAME = 4
"""Characters of that, on however narrow a terminal."""

STYLES = {
    "finished": "green",
    "running": "cyan",
    "lost": "red",
    "crashed": "red",
    "paused": "dim",
    "pruned": "dim",
}


@dataclass(frozen=True, kw_only=True)
class Status:
    """A study at one moment."""

    watch: Watch
    lost: frozenset[int]
    """Numbers of the running trials whose worker is gone."""
    file: str
    """The arguments by which commands find the study."""
    winner: FrozenTrial | None = None
    """The trial whose network is the one to use, once every trial has an outcome."""

    @classmethod
    def of(cls, study: optuna.Study, config: StudyConfig, console: Console, file: str) -> Status:
        """The present state of a study."""
        watch = Watch(study, _begun(study, config), console)
        return cls(
            watch=watch,
            lost=frozenset(trial.number for trial in lost(study)),
            file=file,
            winner=_winner(watch),
        )

    @property
    def workers(self) -> set[str]:
        """Workers that live and have a trial."""
        return {
            trial.user_attrs.get("worker", "?")
            for trial in self.watch.running
            if trial.number not in self.lost
        }

    @property
    def state(self) -> str:
        """`running`, `finished` or `interrupted`."""
        if self.workers:
            return "running"
        return "finished" if len(self.watch.finished) == self.watch.total else "interrupted"

    @property
    def seconds(self) -> float:
        """From the first trial's start to the last one's end, or to now."""
        began = [t.datetime_start for t in self.watch.trials if t.datetime_start]
        if not began:
            return 0.0
        ended = [t.datetime_complete for t in self.watch.finished if t.datetime_complete]
        last = datetime.now() if self.workers else max(ended, default=min(began))
        return (last - min(began)).total_seconds()

    def outcome(self, trial: FrozenTrial) -> str:
        """What a trial is doing, or how it ended."""
        return "lost" if trial.number in self.lost else outcome_in_words(trial)

    def render(self, rows: int | None = None) -> RenderableType:
        """Everything; of the trials at most so many, those under way and the latest."""
        watch = self.watch
        title = Text.assemble((watch.config.name, "bold"), f" · {self.state}")
        if self.workers:
            title.append(f" · {self._alive()}")
        begun = [
            t
            for t in watch.trials
            if (t.state != TrialState.WAITING or is_paused(t))
            and t.user_attrs.get("outcome") != LEFT_OUT
        ]
        shown = begun if rows is None else _latest(begun, rows)
        parts: list[RenderableType] = [
            title,
            watch.head(self.seconds, len(self.workers)),
            Text(self._won(), style="green") if self.winner else watch.foot(),
            Text(),
            self._table(shown),
        ]
        if len(shown) < len(begun):
            hidden = len(begun) - len(shown)
            parts.insert(-1, Text(f"  … {hidden} earlier trials", style="dim"))
        if self._waiting():
            parts.append(Text(f"  {self._waiting()}", style="dim"))
        return Group(*parts)

    def _table(self, trials: list[FrozenTrial]) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
        outcomes = [self.outcome(trial) for trial in trials]
        rows = [COLUMNS, *(tuple(map(self._row, trials, outcomes)))]
        widths = [max(map(len, cells)) + 1 for cells in list(zip(*rows, strict=True))[:-1]]
        for name in COLUMNS[:-1]:
            left = name in ("phase", "state", "shape")
            table.add_column(name, justify="left" if left else "right", no_wrap=True)
        room = max(LEAST_NAME, self.watch.console.width - sum(widths))
        table.add_column(COLUMNS[-1], no_wrap=True, overflow="ellipsis", max_width=room)
        for row, outcome in zip(rows[1:], outcomes, strict=True):
            table.add_row(*map(escape, row), style=STYLES.get(outcome, ""))
        return table

    def _row(self, trial: FrozenTrial, outcome: str) -> tuple[str, ...]:
        attributes = trial.user_attrs
        evaluations = attributes.get("evaluations", [])
        best = deciding(evaluations)
        return (
            str(trial.number),
            attributes.get("phase", ""),
            outcome,
            shape_in_words(attributes["config"]) if "config" in attributes else "",
            "" if best is None else f"{best['wer']:.1%}",
            f"{len(evaluations)}/{self.watch.evaluations}",
            duration_in_words(seconds_of(trial)),
            attributes.get("anchor") or attributes.get("finalist", ""),
        )

    def _won(self) -> str:
        """The winner, as `transcribe` names it."""
        assert self.winner is not None
        test = self.winner.user_attrs.get("test_wer")
        on_test = "" if test is None else f", {test:.1%} on test"
        return f"winner: {trial_in_words(self.winner)}: {self.winner.value:.1%} WER on dev{on_test}"

    def _alive(self) -> str:
        return f"{len(self.workers)} worker{'s' * (len(self.workers) != 1)} alive"

    def _waiting(self) -> str:
        """How many trials of which phase wait that nobody has begun, and how many never will be."""
        counts = Counter(
            trial.user_attrs.get("phase", "?")
            for trial in self.watch.trials
            if trial.state == TrialState.WAITING and not is_paused(trial)
        )
        listed = ", ".join(f"{count} {phase}" for phase, count in counts.items())
        left_out = sum(t.user_attrs.get("outcome") == LEFT_OUT for t in self.watch.trials)
        told = [
            f"waiting: {listed}" if listed else "",
            f"left out, as the hours of refine are spent: {left_out}" if left_out else "",
        ]
        return "; ".join(filter(None, told))

    def advice(self) -> str:
        """What to do next; empty while it runs."""
        if self.state == "interrupted":
            return f"No worker has a trial; to go on: {command('run', self.file)}"
        if self.state == "finished":
            page = self.watch.config.folder / "report" / "index.html"
            write = f"to write the report: {command('report', self.file)}"
            written = f"report: {page}" if page.is_file() else write
            return f"Every trial has an outcome; {written}"
        return ""

    def line(self) -> str:
        """The state in one line, for logs."""
        watch = self.watch
        words = [
            f"{watch.config.name} is {self.state}: {len(watch.finished)} of {watch.total} trials"
        ]
        if self.workers:
            words.append(self._alive())
        if self.winner is not None:
            words.append(self._won())
        elif (best := watch.best) is not None:
            words.append(f"lowest WER on dev {best.value:.1%} (trial {best.number})")
        if (left := watch.seconds_left(len(self.workers))) is not None and left > 0:
            words.append(f"about {duration_in_words(left)} left")
        return ", ".join(words)


def _winner(watch: Watch) -> FrozenTrial | None:
    """What `reports` names the best trial; None as long as trials are still to come."""
    if len(watch.finished) < watch.total or watch.best is None:
        return None
    best = reports.best_trial(watch.study._storage, watch.study.study_name)
    return None if best is None else watch.trials[best.number]


def _begun(study: optuna.Study, config: StudyConfig) -> StudyConfig:
    """The settings with which a study was begun, whatever stands in its file by now."""
    try:
        begun = StudyConfig.model_validate(study.user_attrs["config"])
    except (KeyError, ValidationError):  # a study of another version
        return config
    return begun.model_copy(update={"runs": config.runs, "storage": config.storage})


def _latest(trials: list[FrozenTrial], rows: int) -> list[FrozenTrial]:
    """At most so many trials: those under way first, then the latest that ended, by number."""
    under_way = [trial for trial in trials if not trial.state.is_finished()]
    ended = [trial for trial in trials if trial.state.is_finished()]
    kept = under_way[:rows]
    kept += ended[len(ended) - min(len(ended), rows - len(kept)) :]
    return sorted(kept, key=lambda trial: trial.number)


def show(study: optuna.Study, config: StudyConfig, console: Console, file: str) -> None:
    """Print the state of a study."""
    status = Status.of(study, config, console, file)
    console.print(status.render())
    if advice := status.advice():  # in which a command breaks nowhere
        console.print(advice, highlight=False, markup=False, soft_wrap=True)


def follow(study: optuna.Study, config: StudyConfig, console: Console, file: str) -> None:
    """Show the state of a study until it is finished; in lines where it is no terminal."""
    if not console.is_terminal:
        _follow_in_lines(study, config, console, file)
        return
    status = Status.of(study, config, console, file)
    with Live(_fitting(status), console=console, auto_refresh=False) as live:
        while status.state != "finished":
            time.sleep(POLL)
            status = Status.of(study, config, console, file)
            live.update(_fitting(status), refresh=True)
    console.print(status.advice(), highlight=False, markup=False, soft_wrap=True)


def _fitting(status: Status) -> RenderableType:
    return status.render(max(LEAST_ROWS, status.watch.console.height - OTHER_LINES))


def _follow_in_lines(study: optuna.Study, config: StudyConfig, console: Console, file: str) -> None:
    """A line for each trial that ends, and one whenever the state of the study changes."""
    status = Status.of(study, config, console, file)
    watch, state = status.watch, ""
    while True:
        for line in watch.lines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if status.state != state:
            state = status.state
            console.print(status.line(), highlight=False, markup=False, soft_wrap=True)
        if state == "finished":
            return
        time.sleep(POLL)
        watch.refresh()
        status = Status(
            watch=watch,
            lost=frozenset(t.number for t in lost(study)),
            file=file,
            winner=_winner(watch),
        )
