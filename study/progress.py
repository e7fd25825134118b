"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere.

It reads Optuna's storage alone, so it shows any worker, wherever it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from model.config import SHAPE
from study.budget import LEFT_OUT, seconds_of
from study.config import StudyConfig
from study.pruner import is_paused
from study.storage import FINALIST, finalists_are_chosen, search_is_over

ENOUGH = 0.5
"""Trials, or parts of them, that an estimate of the time left needs."""
SHARES = 24
"""Characters of the bar."""


def shape_in_words(values: dict[str, Any]) -> str:
    """The six in one short phrase: encoder layers×dim, heads, kernel, decoder layers×dim."""
    layers, dim, heads, kernel, decoder_layers, decoder_dim = (values[name] for name in SHAPE)
    return f"{layers}×{dim} h{heads} k{kernel} + {decoder_layers}×{decoder_dim}"


def duration_in_words(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def outcome_in_words(trial: FrozenTrial) -> str:
    """How a trial ended, or what it is doing."""
    if is_paused(trial):
        return "paused"
    return str(trial.user_attrs.get("outcome", trial.state.name.lower())).replace("_", " ")


def trial_in_words(trial: FrozenTrial) -> str:
    """A trial and what it stands for: the best seed of a finalist is not the trial it repeats."""
    finalist, anchor = (trial.user_attrs.get(name) for name in ("finalist", "anchor"))
    if finalist:
        return f"trial {trial.number} (a training of {finalist})"
    return f"trial {trial.number} (the anchor {anchor})" if anchor else f"trial {trial.number}"


@dataclass
class Watch:
    """The state of a study's trials, refreshed from its storage."""

    study: optuna.Study
    config: StudyConfig
    console: Console
    began: float = field(default_factory=time.monotonic)
    trials: list[FrozenTrial] = field(default_factory=list)
    chosen: bool = False
    """Whether the finalists are among the trials."""
    _told: set[int] = field(default_factory=set)
    _remarked: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refresh()
        self._told = {trial.number for trial in self.finished}
        self._remarked = {t.number: len(t.user_attrs.get("remarks", [])) for t in self.trials}

    @property
    def total(self) -> int:
        """Trials that there are, or that there may be: finalists are chosen when the search ends.

        Where it went on after that, they are chosen anew: the anchors among them stay. Where
        nothing could be trained, there will be none.
        """
        if self.chosen or (search_is_over(self.trials) and self.best is None):
            return len(self.trials)
        again = [trial for trial in self.trials if trial.user_attrs.get("phase") == FINALIST]
        anchors = sum("anchor" in trial.user_attrs for trial in again)
        return len(self.trials) + max(0, self.config.finalist_trials - anchors)

    @property
    def evaluations(self) -> int:
        """Evaluations of a trial that is trained to the end."""
        return self.config.training.evaluations

    def refresh(self) -> None:
        """Read the storage."""
        attributes = self.study.user_attrs  # before the trials that they speak of
        self.trials = self.study.get_trials(deepcopy=False)
        self.chosen = finalists_are_chosen(attributes, self.trials)

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials with an outcome."""
        return [trial for trial in self.trials if trial.state.is_finished()]

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials that a worker has."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @property
    def waiting(self) -> int:
        """Trials that nobody has begun, or that were handed back."""
        return sum(trial.state == TrialState.WAITING for trial in self.trials)

    @property
    def unfinished(self) -> int:
        """Trials without an outcome."""
        return len(self.trials) - len(self.finished)

    @property
    def best(self) -> FrozenTrial | None:
        """The trained trial with the lowest WER so far."""
        results = [
            t
            for t in self.finished
            if t.user_attrs.get("outcome") == "finished" and t.value is not None
        ]
        return min(results, key=lambda t: t.value if t.value is not None else 0.0, default=None)

    def seconds_left(self, workers: int) -> float | None:
        """An estimate from the seconds that trials took so far, with this many at a time.

        None as long as that is too little to tell. Trials that were stopped early count as they
        are: those that are still to come are stopped as often. Those left out do not count.
        """
        under_way = sum(map(self.share, self.running))
        left_out = len([t for t in self.finished if t.user_attrs.get("outcome") == LEFT_OUT])
        done = len(self.finished) - left_out + under_way
        seconds = sum(seconds_of(trial) for trial in (*self.finished, *self.running))
        if done < ENOUGH or not seconds or not workers:
            return None
        return seconds / done * (self.total - left_out - done) / workers

    def share(self, trial: FrozenTrial) -> float:
        """How much of its full budget a trial has had."""
        return min(1.0, len(trial.user_attrs.get("evaluations", [])) / self.evaluations)

    def lines(self) -> Iterator[str]:
        """A line for each trial that finished since the last call."""
        left_out = 0
        for trial in self.trials:
            remarks = trial.user_attrs.get("remarks", [])
            for remark in remarks[self._remarked.get(trial.number, 0) :]:
                yield f"trial {trial.number:<3} {remark}"
            self._remarked[trial.number] = len(remarks)
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                if trial.user_attrs.get("outcome") == LEFT_OUT:
                    left_out += 1
                else:
                    yield self._line(trial)
        if left_out:
            yield f"The hours of refine are spent: {left_out} of its trials are left out."

    def _line(self, trial: FrozenTrial) -> str:
        attributes = trial.user_attrs
        wer = "" if trial.value is None else f"WER {trial.value:6.1%}  "
        shape = shape_in_words(attributes["config"]) if "config" in attributes else ""
        name = f" {attributes['anchor']}" if "anchor" in attributes else ""
        outcome = outcome_in_words(trial)
        done = f"{len(self.finished)}/{self.total}"
        return f"trial {trial.number:<3} {outcome:9} {wer}{shape}{name}  ({done})"

    def head(self, seconds: float, workers: int) -> Table:
        """How much is done after some seconds, and how long the rest should take."""
        done, total = len(self.finished), self.total
        left = self.seconds_left(workers)
        line = Table.grid(padding=(0, 2))
        under_way = sum(map(self.share, self.running))
        line.add_row(
            Text(f"{done} of {total} trials", style="bold"),
            ProgressBar(total=max(total, 1), completed=done + under_way, width=SHARES),
            Text(
                duration_in_words(seconds)
                + (f", about {duration_in_words(left)} left" if left is not None else "")
            ),
        )
        return line

    def foot(self) -> Text:
        """The best trial so far."""
        best = self.best
        if best is None:
            return Text("no trial has finished yet", style="dim")
        return Text(
            f"lowest WER so far: {best.value:.1%} on dev, trial {best.number}: "
            f"{shape_in_words(best.user_attrs['config'])}",
            style="green",
        )

    def render(self) -> RenderableType:
        """The live display, within 80 columns."""
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for column in ("trial", "training", "eval", "epoch", "loss", "WER", "for"):
            table.add_column(column, justify="left" if column == "training" else "right")
        for trial in self.running:
            table.add_row(*map(escape, self._row(trial)))
        head = self.head(time.monotonic() - self.began, len(self.running))
        return Group(head, table, self.foot())

    def _row(self, trial: FrozenTrial) -> Iterator[str]:
        attributes = trial.user_attrs
        evaluations = attributes.get("evaluations", [])
        yield str(trial.number)
        shape = shape_in_words(attributes["config"]) if "config" in attributes else "starting"
        yield f"{shape} {attributes.get('anchor', '')}".strip()
        yield f"{len(evaluations)}/{self.evaluations}"
        if evaluations:
            last = evaluations[-1]
            yield from (f"{last['epoch']:.1f}", f"{last['train_loss']:.2f}", f"{last['wer']:.1%}")
        else:
            yield from ("", "", "")
        began = trial.datetime_start
        yield duration_in_words(max(0.0, (datetime.now() - began).total_seconds())) if began else ""


@contextmanager
def shown(watch: Watch) -> Iterator[None]:
    """Show a watch while the block runs; it is refreshed by `step`."""
    if not watch.console.is_terminal:
        yield
        return
    with Live(
        watch.render(), console=watch.console, refresh_per_second=4, get_renderable=watch.render
    ):
        yield


def step(watch: Watch) -> None:
    """Read the storage and tell what is new."""
    searching = not search_is_over(watch.trials)
    watch.refresh()
    for line in watch.lines():
        watch.console.print(line, highlight=False, markup=False, soft_wrap=True)
    if searching and search_is_over(watch.trials) and watch.config.finalist_trials:
        watch.console.print(
            "The search is done. Its finalists are trained again, with fresh seeds.",
            highlight=False,
        )
