"""Several studies side by side: do two corpora, budgets, decoders or seeds give the same answers?

    files = reports.compare([(storage_a, "a"), (storage_b, "b")], Path("comparison"))

For each question: every study's verdict and effect, and what the recommendation of one would
cost in another, with its interval. Where configurations were trained in both, their ranks are
compared too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.stats import spearmanr

from reports.answer import Answer, answer_data
from reports.card import CardLine, card_data
from reports.landscape import Landscape, read_landscape
from reports.questions import QUESTIONS, SIX, Question
from reports.style import LINES, Panel, slug
from reports.verdicts import Verdict, verdicts
from reports.wording import MISSING, counted, number, points, signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from reports.record import StudyRecord
    from reports.surrogate import Array

RESAMPLES = 1000
"""Bootstrap resamples behind the interval of a rank correlation."""
FEWEST_SHARED = 5
"""Shared configurations without which their ranks say nothing."""
_ELSEWHERE = {"runs", "storage", "launcher", "tracking", "device"}  # keys without a say in a WER
AGREE, DIFFER, OPEN = "agree", "differ", "not decided"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One study with its answers."""

    title: str
    """Its name, with a number where two have the same one."""
    record: StudyRecord
    answer: Answer
    landscape: Landscape | str
    verdicts: tuple[Verdict, ...]

    @property
    def card(self) -> tuple[CardLine, ...]:
        """Its answers in words."""
        return card_data(self.verdicts)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What taking one study's recommendation costs in another."""

    source: str
    """The study that recommends."""
    target: str
    """The study in which it is tried."""
    value: float
    """The recommended value."""
    cost: float
    """Expected WER above that of the target's own recommendation (a fraction)."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of it."""

    @property
    def sentence(self) -> str:
        """Say what it costs."""
        told = f"95 %: {signed(self.low)} to {signed(self.high)}"
        return (
            f"{number(self.value)}, as {self.source} recommends, costs {points(self.cost, 1)} in "
            f"{self.target} ({told})."
        )


@dataclass(frozen=True, kw_only=True)
class ComparedQuestion:
    """One question in all studies."""

    question: Question
    lines: tuple[CardLine, ...]
    """The answer in each study."""
    agreement: str
    """`agree`: every study shows some value to be worse, and some is as good as the best in all.
    `differ`: in two of them, the recommendation of one is shown to be worse in the other.
    `not decided`: neither is shown."""
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, kw_only=True)
class SharedRanks:
    """Whether two studies rank the configurations that both trained alike."""

    one: str
    two: str
    configurations: int
    """How many both trained."""
    correlation: float | None
    """Spearman's rank correlation; None with too few."""
    low: float | None
    high: float | None

    @property
    def sentence(self) -> str:
        """Say how alike they rank."""
        pair = f"{self.one} and {self.two}"
        if self.correlation is None or self.low is None or self.high is None:
            return (
                f"{pair} share {counted(self.configurations, 'trained shape')}: too few to "
                f"compare their ranks (at least {FEWEST_SHARED})."
            )
        return (
            f"{pair} share {self.configurations} trained shapes; their WERs rank with a "
            f"correlation of {self.correlation:.2f} (95 %: {self.low:.2f} to {self.high:.2f})."
        )


def compared(records: Sequence[StudyRecord]) -> tuple[Compared, ...]:
    """Return studies with their answers, under names that tell them apart."""
    names = [record.name for record in records]
    found = []
    for place, record in enumerate(records):
        title = record.name if names.count(record.name) == 1 else f"{record.name} ({place + 1})"
        landscape = read_landscape(record)
        found.append(
            Compared(
                title=title,
                record=record,
                answer=answer_data(record),
                landscape=landscape,
                verdicts=verdicts(record, landscape),
            )
        )
    return tuple(found)


def questions_data(studies: Sequence[Compared]) -> tuple[ComparedQuestion, ...]:
    """Return the six questions in all studies."""
    found = []
    for place, question in enumerate(QUESTIONS):
        transfers = tuple(
            transfer
            for one in studies
            for two in studies
            if one is not two and (transfer := _transfer(one, two, place)) is not None
        )
        found.append(
            ComparedQuestion(
                question=question,
                lines=tuple(study.card[place] for study in studies),
                agreement=_agreement([study.verdicts[place] for study in studies], transfers),
                transfers=transfers,
            )
        )
    return tuple(found)


def differences_data(studies: Sequence[Compared]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the keys of study.yaml in which the studies differ, with each one's value."""
    flat = [_flat(study.record.config) for study in studies]
    keys = [key for key in dict.fromkeys(key for each in flat for key in each) if key != "name"]
    keys = [key for key in keys if key.split(".")[0] not in _ELSEWHERE]
    rows = ((key, tuple(each.get(key, MISSING) for each in flat)) for key in keys)
    return tuple((key, values) for key, values in rows if len(set(values)) > 1)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Return nested mappings as dotted keys, with their values as they stand in YAML."""
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, item in value.items():
            found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: json.dumps(value, ensure_ascii=False)} if prefix else {}


def _transfer(source: Compared, target: Compared, place: int) -> Transfer | None:
    ours, theirs = source.verdicts[place], target.verdicts[place]
    if ours.recommended is None or isinstance(target.landscape, str):
        return None
    if theirs.recommended is None or ours.recommended == theirs.recommended:
        return None
    values, draws = target.landscape.effect(theirs.question.name)
    if ours.recommended not in values:
        return None
    column = list(values).index(ours.recommended)
    cost = draws[:, column] - draws[:, list(values).index(theirs.recommended)]
    low, high = (float(q) for q in np.quantile(cost, (0.025, 0.975)))
    return Transfer(
        source=source.title,
        target=target.title,
        value=ours.recommended,
        cost=float(cost.mean()),
        low=low,
        high=high,
    )


def _agreement(answers: Sequence[Verdict], transfers: Sequence[Transfer]) -> str:
    if any(answer.recommended is None for answer in answers):
        return OPEN
    worse = {(transfer.source, transfer.target) for transfer in transfers if transfer.low > 0}
    if any((two, one) in worse for one, two in worse):
        return DIFFER
    common = set.intersection(*(set(answer.as_good) for answer in answers))
    # A study to which all values are as good would agree with any other.
    told = all(len(answer.as_good) < len(answer.effects) for answer in answers)
    return AGREE if common and told else OPEN


def ranks_data(studies: Sequence[Compared]) -> tuple[SharedRanks, ...]:
    """Return for each pair of studies how alike they rank the shapes that both trained."""
    return tuple(_ranks(one, two) for one, two in combinations(studies, 2))


def _ranks(one: Compared, two: Compared) -> SharedRanks:
    left, right = (
        study.record.results.groupby(list(SIX), dropna=False)["wer"].mean() for study in (one, two)
    )
    shared = left.index.intersection(right.index)
    known: dict[str, float | None] = {"correlation": None, "low": None, "high": None}
    if len(shared) >= FEWEST_SHARED:
        pairs = np.stack([left[shared].to_numpy(float), right[shared].to_numpy(float)], axis=1)
        rng = np.random.default_rng(0)
        draws = [pairs[rng.integers(len(pairs), size=len(pairs))] for _ in range(RESAMPLES)]
        usable = [draw for draw in draws if np.ptp(draw, axis=0).all()]
        if np.ptp(pairs, axis=0).all() and usable:
            resampled = [float(spearmanr(*draw.T).statistic) for draw in usable]
            low, high = (float(q) for q in np.quantile(resampled, (0.025, 0.975)))
            known = {
                "correlation": float(spearmanr(*pairs.T).statistic),
                "low": low,
                "high": high,
            }
    return SharedRanks(one=one.title, two=two.title, configurations=len(shared), **known)


def _centred(study: Compared, place: int) -> tuple[tuple[float, ...], Array, Array, Array]:
    """Return the values of a question, and their effects less the mean of all, with intervals."""
    assert not isinstance(study.landscape, str)
    values, draws = study.landscape.effect(study.verdicts[place].question.name)
    centred = draws - draws.mean(axis=1, keepdims=True)
    low, high = np.quantile(centred, (0.025, 0.975), axis=0)
    return values, centred.mean(axis=0), low, high


def plot_effects(axes: Axes, studies: Sequence[Compared], place: int) -> None:
    """Draw every study's effect of one question, as a difference from its own mean."""
    ticks: set[float] = set()
    for order, study in enumerate(studies):
        effects = study.verdicts[place].effects
        if isinstance(study.landscape, str) or not effects:
            continue
        values, middle, low, high = _centred(study, place)
        colour = LINES[order % len(LINES)]
        axes.fill_between(values, 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
        sns.lineplot(
            x=list(values), y=100 * middle, ax=axes, color=colour, marker="osD^v"[order % 5]
        )
        ticks |= set(values)
    if len(ticks) > 2 and min(ticks) > 0 and max(ticks) / min(ticks) > 4:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)[:: max(1, -(-len(ticks) // 8))]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.axhline(0, linewidth=0.8, color="0.6")
    axes.set_ylabel("points from the study’s mean")
    axes.set_xlabel(QUESTIONS[place].label)
    axes.grid(visible=False, axis="x")


def effect_panels(studies: Sequence[Compared]) -> list[Panel]:
    """Return one panel per question that at least one study has an effect of."""

    def panel(place: int) -> Panel:
        question = QUESTIONS[place]
        told = []
        for study in studies:
            if isinstance(study.landscape, str) or not study.verdicts[place].effects:
                continue
            effects = ", ".join(
                f"{number(value)} {signed(middle)} ({signed(low)} to {signed(high)})"
                for value, middle, low, high in zip(*_centred(study, place), strict=True)
            )
            told.append(f"{study.title}: {effects}")
        return Panel(
            name=slug(f"compared {question.name}"),
            title=question.text,
            alt=f"WER by {question.label.lower()}, in points from each study’s mean, with 95 % "
            f"intervals. {'; '.join(told)}.",
            paint=lambda axes: plot_effects(axes, studies, place),
        )

    return [
        panel(place)
        for place in range(len(QUESTIONS))
        if any(study.verdicts[place].effects for study in studies)
    ]
