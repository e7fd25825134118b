"""How much each hyperparameter mattered, by two of Optuna's evaluators, with their uncertainty.

They answer different questions. fANOVA: what share of the variance of WER over the whole space
does this hyperparameter explain alone? PED-ANOVA (Optuna's default): how much does the best
tenth differ from the rest in it? Both are read from the even sample only: in a sample that a
sampler steered or a pruner thinned, they describe the search and not the corpus.

Ordered choices are given to them by rank, so that 32, 48, 64, 96 are four equal steps, as they
were sampled.

No order is told where intervals overlap, and how well the forest behind fANOVA predicts trials that
it has not seen stands beside it: of a surface that is not known, shares of variance mean nothing.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pandas as pd
import seaborn as sns
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)

from reports.questions import SIX, label_of, values_of
from reports.style import EXPLORE, INK, Panel, slug
from reports.trials import column_of
from reports.wording import counted, listed, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.record import StudyRecord

FEWEST = 4
"""Fewer results than this say nothing at all."""

RELIABLE = 50
"""With fewer results than this, the order of the bars is not to be relied on."""

RESAMPLES = 40
"""Bootstrap resamples of the trials behind each interval."""

_MOST_FOR_FANOVA = 400  # its cost grows faster than the number of trials; Sobol prefixes are even
_MOST_RESAMPLED = 100  # of more trials so many are drawn each time, which makes intervals wider
_FOLDS = 5

EVALUATORS = {"fanova": "fANOVA", "ped_anova": "PED-ANOVA"}
SCALES = {"fanova": "share of the variance of WER", "ped_anova": "importance (sums to 1)"}


@dataclass(frozen=True, kw_only=True)
class ImportanceData:
    """Importances, or why there are none."""

    table: pd.DataFrame
    """One row per hyperparameter: name, label, and per evaluator its importance and the ends of
    its 95 % interval over resamples of the trials (`fanova_low`, ...). fANOVA's are shares of the
    variance, which sum to less than 1 by what several explain only together; PED-ANOVA's have no
    unit and sum to 1."""

    trials: int
    """Results of the even sample that it is computed from."""

    explained: float
    """Share of the variance of WER that the forest explains in trials it was not fitted to
    (cross-validated); below 0 it predicts worse than the mean does."""

    refusal: str
    """Why nothing is computed; empty if it is."""

    def order(self, evaluator: str) -> str:
        """Return in words which hyperparameters are shown to matter more than which others."""
        table = self.table.sort_values(evaluator, ascending=False)
        names = dict(zip(table["name"], table["label"], strict=True))
        if len(names) < 2:
            return "There is nothing to compare it with."
        said, told = [], 0
        for _, row in table.iterrows():
            below = table[table[f"{evaluator}_high"] < row[f"{evaluator}_low"]]["name"]
            told += len(below)
            if len(below) == len(names) - 1:
                said.append(f"{row['label']} above all others")
            elif len(below):
                said.append(f"{row['label']} above {listed([names[n].lower() for n in below])}")
        if not said:
            return "Their intervals overlap, so no order is shown."
        rest = (
            "" if told == math.comb(len(names), 2) else " Between the rest the intervals overlap."
        )
        return f"Shown is: {'; '.join(said)}.{rest}"


def importance_data(record: StudyRecord) -> ImportanceData:
    """Compute importances of everything searched, over the even sample."""
    trials = record.results[record.results["even"]]
    columns = {name: name if name in SIX else column_of(name) for name in record.searched}
    trials = trials.dropna(subset=list(columns.values()))
    varied = {name: column for name, column in columns.items() if trials[column].nunique() > 1}
    refusal = ""
    if len(trials) < FEWEST:
        refusal = (
            f"Importances need at least {FEWEST} finished explore trials that are no anchors; "
            f"there {'is' if len(trials) == 1 else 'are'} {len(trials)}."
        )
    elif trials["wer"].nunique() < 2:
        refusal = "All finished explore trials have the same WER, so there is nothing to explain."
    elif not varied:
        refusal = "No searched hyperparameter varies among the finished explore trials."
    if refusal:
        return ImportanceData(
            table=pd.DataFrame(), trials=len(trials), explained=math.nan, refusal=refusal
        )
    space, points = _space(record, trials, varied)
    wers = trials["wer"].to_numpy(dtype=float)
    table = _evaluate(space, points, wers)
    table.insert(0, "label", [label_of(name) for name in table.index])
    return ImportanceData(
        table=table.rename_axis("name").reset_index(),
        trials=len(trials),
        explained=_explained(space, points, wers),
        refusal="",
    )


def _explained(space: dict[str, BaseDistribution], points: pd.DataFrame, wers: np.ndarray) -> float:
    """Return the cross-validated fit of a forest like fANOVA's."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    logs = [
        name for name, item in space.items() if isinstance(item, FloatDistribution) and item.log
    ]
    scaled = points.assign(**{name: np.log(points[name].astype(float)) for name in logs})
    chosen = slice(0, _MOST_FOR_FANOVA)
    places, values = scaled.to_numpy(dtype=float)[chosen], wers[chosen]
    told = cross_val_predict(
        RandomForestRegressor(n_estimators=64, random_state=0),
        places,
        values,
        cv=KFold(min(_FOLDS, len(values)), shuffle=True, random_state=0),
    )
    return float(1 - ((told - values) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def _space(
    record: StudyRecord, trials: pd.DataFrame, varied: dict[str, str]
) -> tuple[dict[str, BaseDistribution], pd.DataFrame]:
    """Return the search space with choices by rank, and the trials as points in it."""
    space: dict[str, BaseDistribution] = {}
    points = pd.DataFrame(index=trials.index)
    for name, column in varied.items():
        values, searched = trials[column].astype(float), record.searched[name]
        if searched.listed and name in SIX:
            ranks = {value: rank for rank, value in enumerate(values_of(record, name))}
            space[name] = IntDistribution(0, len(ranks) - 1)
            points[name] = values.map(ranks).astype(int)
        else:
            low, high = min(searched.low, values.min()), max(searched.high, values.max())
            space[name] = FloatDistribution(low, high, log=searched.log and low > 0)
            points[name] = values
    return space, points


def _evaluate(
    space: dict[str, BaseDistribution], points: pd.DataFrame, wers: np.ndarray
) -> pd.DataFrame:
    """Return both importances with the quantiles of their resamples, a row per hyperparameter."""
    table = pd.DataFrame(index=list(space))
    rows = [dict(zip(space, row, strict=True)) for row in points.itertuples(index=False)]
    for key in EVALUATORS:
        first = np.arange(min(len(rows), _MOST_FOR_FANOVA) if key == "fanova" else len(rows))
        found = _importances(key, space, rows, wers, first, trees=64)
        table[key] = [found[name] for name in space]
        size = min(len(rows), _MOST_RESAMPLED)
        draws = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, size))
        resamples = pd.DataFrame(
            [
                _importances(key, space, rows, wers, draw, trees=8)
                for draw in draws
                if len(set(wers[draw])) > 1
            ]
        )
        table[f"{key}_low"] = resamples.quantile(0.025)
        table[f"{key}_high"] = resamples.quantile(0.975)
    return table


def _importances(
    key: str,
    space: dict[str, BaseDistribution],
    rows: list[dict[str, float]],
    wers: np.ndarray,
    chosen: np.ndarray,
    trees: int,
) -> dict[str, float]:
    if key == "fanova" and len(chosen) > 100:
        trees = min(trees, 16)
    evaluator: BaseImportanceEvaluator = (
        FanovaImportanceEvaluator(seed=0, n_trees=trees)
        if key == "fanova"
        else PedAnovaImportanceEvaluator()
    )
    study = _quiet_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(rows[i]), distributions=space, value=float(wers[i])
            )
            for i in chosen
        ]
    )
    with warnings.catch_warnings():
        # Experimental evaluators, and small samples: the page says both in its own words.
        warnings.simplefilter("ignore")
        found = get_param_importances(
            study, evaluator=evaluator, params=list(space), normalize=key != "fanova"
        )
    return {name: float(value) for name, value in found.items()}


def _quiet_study() -> optuna.Study:
    """Return a study in memory without the line that Optuna logs for each."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(before)


def plot_importance(axes: Axes, data: ImportanceData, evaluator: str) -> None:
    """Draw one evaluator's bars, in the order of the questions, with their intervals."""
    table = data.table
    places = np.arange(len(table))
    sns.barplot(
        x=table[evaluator],
        y=table["label"],
        ax=axes,
        color=EXPLORE,
        saturation=1,
        linewidth=0,
        width=0.62,
        orient="h",
    )
    axes.hlines(places, table[f"{evaluator}_low"], table[f"{evaluator}_high"], color=INK, lw=1.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel(SCALES[evaluator])
    axes.set_ylabel("")


def importance_panels(data: ImportanceData) -> list[Panel]:
    """Return the two evaluators side by side, or nothing where importances were refused."""
    if data.refusal:
        return []

    def panel(evaluator: str) -> Panel:
        name = EVALUATORS[evaluator]
        trials = counted(data.trials, "trial")
        return Panel(
            name=slug(f"importance {evaluator}"),
            title=name,
            alt=f"{name} importances from {trials}: {_describe(data.table, evaluator)}.",
            paint=lambda axes: plot_importance(axes, data, evaluator),
            width=460,
            height=60 + 30 * len(data.table),
            left=150,
        )

    return [panel(evaluator) for evaluator in EVALUATORS]


def _describe(table: pd.DataFrame, evaluator: str) -> str:
    said = []
    for _, row in table.iterrows():
        low, high = row[f"{evaluator}_low"], row[f"{evaluator}_high"]
        interval = f" ({percent(low, 0)} to {percent(high, 0)})" if pd.notna(low) else ""
        said.append(f"{row['label']} {percent(row[evaluator], 0)}{interval}")
    return "; ".join(said)
