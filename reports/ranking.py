"""Which configurations of a search are worth training again, the most promising first.

    for candidate in reports.candidates(storage, "laptop"):
        print(candidate.values, candidate.trial, candidate.expected)

The trial with the lowest WER is often a lucky one, and with many trials nearly always: taking it
costs more than asking the surrogate (`benchmarks/results/calibration.md` has both). So candidates
are ordered by what all finished trials together make one expect of them: first the best shape of
the whole space, trained or not, then the trained configurations. Finalists
of an earlier choice do not count, so that asking again gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.landscape import Landscape, axes_of, basis, places_of, read_landscape
from reports.questions import SIX

if TYPE_CHECKING:
    from reports.record import StudyRecord


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration."""

    values: dict[str, float]
    """Its value of everything that was searched."""
    trial: int | None
    """A trial that had it; None where none did."""
    expected: float
    """The WER to expect of it (a fraction)."""


def candidates_of(record: StudyRecord) -> list[Candidate]:
    """Return the candidates of a study, best first; none where no trial finished."""
    names = {axis.name: axis.column for axis in axes_of(record, every=True)}
    search = basis(record)
    search = search[search["phase"] != "finalist"]
    trained = pd.DataFrame(search.dropna(subset=list(names.values())))
    landscape = read_landscape(record, trials=trained)
    if isinstance(landscape, str):
        return _trained(trained, names, trained["wer"].astype(float).to_numpy())
    inside = np.isfinite(places_of(landscape.axes, trained)).all(axis=1)
    trained = pd.DataFrame(trained[inside])
    expected = landscape.surrogate.mean(places_of(landscape.axes, trained))
    found = _trained(trained, names, expected)
    shape = {**landscape.best(), **_constant(record, trained, names)}
    same = [c for c in found if all(c.values[name] == shape[name] for name in names if name in SIX)]
    first = same[0] if same else _untrained(shape, landscape)
    return [first, *(candidate for candidate in found if candidate is not first)]


def _trained(trials: pd.DataFrame, names: dict[str, str], expected: np.ndarray) -> list[Candidate]:
    """Return the distinct configurations, each by its first trial, in the order of expected WER."""
    table = trials.assign(expected=expected)
    groups = table.groupby(list(names.values()), sort=False) if names else [((), table)]
    found = [
        Candidate(
            values={name: float(group[column].iloc[0]) for name, column in names.items()},
            trial=int(group["number"].iloc[0]),
            expected=float(group["expected"].mean()),
        )
        for _, group in groups
        if len(group)
    ]
    return sorted(found, key=lambda candidate: (candidate.expected, candidate.trial))


def _untrained(values: dict[str, float], landscape: Landscape) -> Candidate:
    return Candidate(values=values, trial=None, expected=float(landscape.expected.min()))


def _constant(record: StudyRecord, trials: pd.DataFrame, names: dict[str, str]) -> dict[str, float]:
    """Return the values of what is searched over one value only."""
    return {
        name: float(trials[column].iloc[0])
        for name, column in names.items()
        if record.searched[name].high == record.searched[name].low
    }
