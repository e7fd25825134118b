"""Reads a study from Optuna's storage into plain tables. Nothing else here touches Optuna's API.

    record = read_study("sqlite:////data/runs/laptop/study.db", "laptop")
    record.results.sort_values("wer").head()

A study that another program wrote, or an older version of this one, is read as far as it goes:
what is missing is missing in the tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection

from reports import StudyUnreadable
from reports.finals import FinalistResult, finals_data
from reports.questions import SIX
from reports.redaction import redact
from reports.trials import curves_frame, number_or_none, trials_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_ROUNDING = 1e-9  # of a value, when it was computed from a place in its range
_LONGEST = 10_000  # values of a list; what has more, in a study from elsewhere, is continuous
_MOST_LISTED = 64


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A hyperparameter that the study varies, and over what."""

    name: str
    """Its name."""

    role: str
    """`scientific` (a question to answer) or `nuisance` (tuned so that comparisons are fair)."""

    low: float
    """Smallest value."""

    high: float
    """Largest value."""

    log: bool
    """Whether it is sampled evenly in its logarithm."""

    choices: tuple[float, ...]
    """Every value it can take, ascending, however many; empty when it is continuous."""

    @property
    def listed(self) -> tuple[float, ...]:
        """Its choices, where they are few enough to be told one by one.

        Of more there are hardly two trials with the same one: they are shown as a range.
        """
        return self.choices if len(self.choices) <= _MOST_LISTED else ()

    def allows(self, value: float) -> bool:
        """Return whether the search could draw this value."""
        return value in self.choices if self.choices else self.spans(value)

    def spans(self, value: float) -> bool:
        """Return whether a value lies between the ends, save for rounding."""
        ends = (self.low, self.high)
        return self.low <= value <= self.high or any(
            math.isclose(value, end, rel_tol=_ROUNDING) for end in ends
        )


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """Everything that a report says comes from here."""

    name: str
    """The study's name."""

    config: dict[str, Any]
    """The whole study configuration, passwords taken out; empty if it was not stored."""

    corpus: dict[str, Any]
    """Kind, fingerprint, sizes per split and warnings; empty if they were not stored."""

    versions: dict[str, str]
    """Versions of Python and of the libraries that ran the study."""

    git_commit: str | None
    """The commit of the code that ran it."""

    hardware: str | None
    """The machine, in words."""

    changes: list[str]
    """What changed while the study ran, such as its corpus, in sentences."""

    searched: dict[str, Searched]
    """What was varied: the six first, then the nuisance hyperparameters."""

    trials: pd.DataFrame
    """One row per trial in the order of their numbers; see `reports.trials.TRIAL_COLUMNS`."""

    curves: pd.DataFrame
    """One row per evaluation of a trial; see `reports.trials.CURVE_COLUMNS`."""

    @cached_property
    def results(self) -> pd.DataFrame:
        """The trials that count: trained to the end, not pruned, with a WER that was measured."""
        return self.trials[self.trials["result"]]

    @cached_property
    def finals(self) -> tuple[FinalistResult, ...]:
        """The finalists, the winner first; empty before any has finished."""
        return finals_data(self.trials)

    @cached_property
    def best(self) -> pd.Series[Any] | None:
        """The best trial of the winner among the finalists; before any, the lowest WER.

        Of equals, it is the earliest trial.
        """
        if self.results.empty:
            return None
        if self.finals:
            return self.results[self.results["number"] == self.finals[0].trials[0]].iloc[0]
        return self.results.sort_values(["wer", "number"]).iloc[0]

    def seconds(self, column: str) -> float:
        """Return what all trials spent together: `train_seconds` or `evaluate_seconds`."""
        return float(self.trials[column].astype(float).sum())

    @cached_property
    def fixed_values(self) -> dict[str, float]:
        """Those of the six that have one value: the configuration's, or the only one searched."""
        network = _dict(self.config.get("network"))
        found = {name: number_or_none(network.get(name)) for name in SIX}
        for name, searched in self.searched.items():
            if name in SIX:
                found[name] = searched.low if searched.low == searched.high else None
        return {name: value for name, value in found.items() if value is not None}


def read_study(storage: str | BaseStorage, study_name: str) -> StudyRecord:
    """Read a study.

    Raises:
        StudyUnreadable: There is no such study, or it does not minimise one value.
    """
    study = _load(storage, study_name)
    if list(study.directions) != [StudyDirection.MINIMIZE]:
        raise StudyUnreadable(
            f'The study "{study_name}" does not minimise one value, so its values cannot be word '
            "error rates."
        )
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    attributes = redact(study.user_attrs)
    config = _dict(attributes.get("config"))
    searched = _searched(_dict(attributes.get("space")) or _dict(config.get("search")), trials)
    return StudyRecord(
        name=study_name,
        config=config,
        corpus=_dict(attributes.get("corpus")),
        versions={key: str(value) for key, value in _dict(attributes.get("versions")).items()},
        git_commit=_text(attributes.get("git_commit")),
        hardware=_text(attributes.get("hardware")),
        changes=[str(change) for change in attributes.get("changes") or []],
        searched=searched,
        trials=trials_frame(trials, [name for name in searched if name not in SIX]),
        curves=curves_frame(trials),
    )


def _load(storage: str | BaseStorage, study_name: str) -> optuna.Study:
    if isinstance(storage, str) and storage.startswith("sqlite"):
        # Optuna would create the file, and an empty database in it.
        path = storage.partition("///")[2].partition("?")[0]
        if path and not Path(path).is_file():
            raise StudyUnreadable(f"There is no study database at {path}.")
    try:
        return optuna.load_study(study_name=study_name, storage=storage)
    except KeyError:
        names = ", ".join(sorted(optuna.get_all_study_names(storage)))
        held = f"it holds: {names}." if names else "it holds none."
        raise StudyUnreadable(
            f'There is no study named "{study_name}" in the storage; {held}'
        ) from None


def _searched(search: dict[str, Any], trials: Iterable[FrozenTrial]) -> dict[str, Searched]:
    """Return what is varied, as the study says it or else from the trials' distributions."""
    distributions: dict[str, BaseDistribution] = {}
    for trial in trials:
        distributions.update(trial.distributions)
    found = {name: _from_entry(name, e, distributions.get(name)) for name, e in search.items()}
    if not search:
        found = {name: _from_distribution(name, item) for name, item in distributions.items()}
    order = {name: place for place, name in enumerate(SIX)}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    return {name: item for name in names if (item := found[name]) is not None}


def _from_entry(
    name: str, entry: Any, distribution: BaseDistribution | None = None
) -> Searched | None:
    """Return what an entry of the study's space, or of an older one's configuration, describes."""
    entry = _dict(entry)
    role = str(entry.get("role", _usual_role(name)))
    choices = [number_or_none(choice) for choice in entry.get("choices") or []]
    if choices:
        numbers = tuple(sorted({choice for choice in choices if choice is not None}))
        if None in choices:
            return None  # names, not numbers: there is no axis to draw them on
        return Searched(
            name=name, role=role, low=numbers[0], high=numbers[-1], log=False, choices=numbers
        )
    low, high = number_or_none(entry.get("low")), number_or_none(entry.get("high"))
    if low is None or high is None:
        return None
    log = bool(entry.get("log", False))
    whole = not log and _is_whole(entry, distribution)
    steps = _steps(low, high, number_or_none(entry.get("step")) or (1.0 if whole else None))
    high = steps[-1] if steps else high  # the last step may fall short of it
    return Searched(name=name, role=role, low=low, high=high, log=log, choices=steps)


def _is_whole(entry: dict[str, Any], distribution: BaseDistribution | None) -> bool:
    """Return whether a range is one of whole numbers, as trials drew from it.

    What has whole ends may be continuous all the same: where no trial tells, that is a guess.
    """
    if isinstance(distribution, (IntDistribution, FloatDistribution)):
        return isinstance(distribution, IntDistribution)
    return isinstance(entry["low"], int) and isinstance(entry["high"], int)


def _from_distribution(name: str, distribution: BaseDistribution) -> Searched | None:
    role = _usual_role(name)
    if isinstance(distribution, CategoricalDistribution):
        return _from_entry(name, {"choices": list(distribution.choices), "role": role})
    if not isinstance(distribution, (IntDistribution, FloatDistribution)):
        return None
    low, high = float(distribution.low), float(distribution.high)
    step = None if distribution.step is None or distribution.log else float(distribution.step)
    return Searched(
        name=name,
        role=role,
        low=low,
        high=high,
        log=distribution.log,
        choices=_steps(low, high, step),
    )


def _steps(low: float, high: float, step: float | None) -> tuple[float, ...]:
    if step is None or step <= 0 or (high - low) / step >= _LONGEST:
        return ()
    return tuple(low + i * step for i in range(math.floor((high - low) / step + 1e-9) + 1))


def _usual_role(name: str) -> str:
    return "scientific" if name in SIX else "nuisance"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
