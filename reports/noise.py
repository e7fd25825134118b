"""Whether what a study claims is larger than its noise: seeds, the size of dev, the winner's curse.

    spread = seed_spread(record)        # pooled standard deviation between seeds, with its interval
    checks = noise_checks(record)

A trained network's WER is a reading with two errors: another seed gives another network, and
another dev set gives another WER. Both are told in the units of the differences that matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, norm, t

from reports.finals import PHASE
from reports.questions import SIX
from reports.trials import column_of
from reports.trust import BAD, GOOD, LOOK, NOT_KNOWN, Check, Topic, graded
from reports.wording import counted, percent, points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from reports.finals import FinalistResult
    from reports.record import StudyRecord

SURE = 0.975
"""Quantile of Student's t that a difference, in units of its standard error, must exceed."""

DEV_LOOK = 1 / 3
"""The standard error of a WER over the spread of the trials above which dev is rather small."""

DEV_BAD = 1.0
"""The same, above which dev is too small to tell trials apart."""

_FEWEST = 4  # trials whose spread is worth a number


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """How far apart the seeds of one configuration lie."""

    deviation: float
    """Standard deviation of WER (a fraction), pooled over the configurations with several seeds."""
    freedom: int
    """Degrees of freedom: trainings less configurations."""
    low: float
    """Lower end of its 95 % interval, if WERs are normal."""
    high: float
    """Upper end."""
    configurations: int
    """Configurations that were trained with more than one seed."""

    def margin(self, one: int, other: int) -> tuple[float, float]:
        """Return the standard error of a difference of two means, and the difference that is sure.

        `one` and `other` are the seeds behind either mean.
        """
        error = self.deviation * math.sqrt(1 / one + 1 / other)
        return error, float(t.ppf(SURE, self.freedom)) * error

    def luck(self, readings: int) -> float:
        """Return how far the lowest of so many equal readings is to be expected below their mean.

        Readings are normal (Blom 1958); of one it is 0.
        """
        return -self.deviation * float(norm.ppf((1 - 0.375) / (readings + 0.25)))


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """That the best is better than something else."""

    rival: str
    """What it is compared with, in words."""
    lead: float
    """How far the best lies below it (a fraction)."""
    seeds: int
    """Seeds behind the best."""
    rival_seeds: int
    """Seeds behind what it is compared with."""
    among: int = 1
    """Readings of which the best was chosen as the lowest by this very lead; 1 where fresh seeds
    read it again."""

    def luck(self, spread: SeedSpread) -> tuple[float, float]:
        """Return the lead that luck with seeds often makes, and the one that it hardly makes."""
        error, sure = spread.margin(self.seeds, self.rival_seeds)
        chosen = spread.luck(self.among)
        return max(error, chosen), sure + chosen


_SEEDS = Topic("seeds", "Differences against the spread between seeds")
_DEV_SIZE = Topic("dev_size", "Size of dev")
_WINNER = Topic("winner", "Winner confirmed by fresh seeds")


def seed_spread(record: StudyRecord) -> SeedSpread | None:
    """Pool the variance between seeds; None where no configuration was trained with two.

    The reading for which a finalist was chosen from the search is none of its seeds: it is lower
    than they are since it was chosen so. Anchors were not chosen, and keep theirs.
    """
    results = record.results[np.isfinite(record.results["wer"].astype(float))]
    columns = [name if name in SIX else column_of(name) for name in record.searched]
    columns = list(dict.fromkeys([*SIX, *(name for name in columns if name in results)]))
    table = pd.DataFrame({name: results[name].astype(float) for name in columns})
    # Rows that agree in every column belong together; missing agrees with missing.
    group = table.groupby(columns, dropna=False).ngroup().to_numpy()
    fair = ~_chose(results, group)
    results, group = results[fair], group[fair]
    wers = results["wer"].astype(float)
    seeds = pd.Series([str(seed) for seed in results["seed"]], index=results.index)
    several = seeds.groupby(group).transform("nunique") > 1
    wers, group = wers[several], group[several.to_numpy()]
    configurations = len(set(group))
    freedom = len(wers) - configurations
    if freedom < 1:
        return None
    squares = float(((wers - wers.groupby(group).transform("mean")) ** 2).sum())
    return SeedSpread(
        deviation=math.sqrt(squares / freedom),
        freedom=freedom,
        low=math.sqrt(squares / float(chi2.ppf(SURE, freedom))),
        high=math.sqrt(squares / float(chi2.ppf(1 - SURE, freedom))),
        configurations=configurations,
    )


def _chose(results: pd.DataFrame, group: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Return which results are readings for which a finalist was chosen.

    `group` tells which results are of one configuration.
    """
    finalist = (results["phase"] == PHASE).to_numpy()
    chosen = set(group[finalist & results["anchor"].isna().to_numpy()])
    return np.isin(group, list(chosen)) & ~finalist


def noise_checks(record: StudyRecord) -> list[Check]:
    """Return the checks of seeds, of the size of dev, and of the winner."""
    spread = seed_spread(record)
    return [_seeds(record, spread), _dev(record), _winner(record, spread)]


def _search(record: StudyRecord) -> pd.DataFrame:
    results = record.results[record.results["phase"] != PHASE]
    return pd.DataFrame(results[np.isfinite(results["wer"].astype(float))])


def _seeds(record: StudyRecord, spread: SeedSpread | None) -> Check:
    """Compare the lead of the best with what another seed would have changed."""
    repeat = "Repeat the best and the anchors with several seeds (“finalists: {seeds: 3}” or more)."
    if spread is None:
        text = "No configuration was trained with two seeds, so what a seed changes is not known."
        return _SEEDS.found(NOT_KNOWN, text, repeat)
    claim = _claim(record)
    told = (
        f"Between seeds of one configuration WER varies by {points(spread.deviation)} (standard "
        f"deviation; 95 % interval {100 * spread.low:.2f} to {points(spread.high)}, from "
        f"{counted(spread.configurations, 'configuration')})."
    )
    if claim is None:
        return _SEEDS.found(
            NOT_KNOWN, f"{told} There is nothing to compare the best trial with.", repeat
        )
    lead, (usual, sure) = claim.lead, claim.luck(spread)
    status = GOOD if lead > sure else LOOK if lead > usual else BAD
    search = _search(record)["wer"].to_numpy(dtype=float)
    alike = int((search <= search.min() + spread.margin(1, 1)[1]).sum()) if len(search) else 0
    compared = "more than" if lead > sure else "not more than"
    best = f", the lowest of {claim.among:,} readings," if claim.among > 1 else ""
    text = (
        f"{told} The best{best} is {points(lead)} better than {claim.rival}, {compared} the "
        f"{points(sure)} that luck with seeds alone can make. {_alike(alike, len(search))}"
    )
    return _SEEDS.found(status, text, "" if status == GOOD else repeat)


def _alike(alike: int, trials: int) -> str:
    if alike < 2:
        return "No other trial of the search lies within that noise of the lowest."
    return f"{alike:,} of {trials:,} trials of the search are within that noise of the lowest."


def _claim(record: StudyRecord) -> _Claim | None:
    """Return what the best is compared with, and by how much it leads."""
    search = _search(record)
    if record.finals:
        return _claim_of_winner(record.finals, search)
    if len(search) < 2 or record.best is None:
        return None
    best, anchors = record.best, search[search["anchor"].notna()]
    if len(anchors) and not isinstance(best["anchor"], str):
        medians = anchors.groupby("anchor")["wer"].median().astype(float)
        name = str(medians.idxmin())
        rival, wer = f"the anchor {name}", float(medians.min())
        seeds = int((anchors["anchor"] == name).sum())
    else:
        rival, wer, seeds = "the median of the search", float(search["wer"].median()), len(search)
    return _Claim(
        rival=rival,
        lead=wer - float(best["wer"]),
        seeds=1,
        rival_seeds=seeds,
        among=len(search),
    )


def _claim_of_winner(finals: Sequence[FinalistResult], search: pd.DataFrame) -> _Claim | None:
    winner, *others = finals
    rivals = [item for item in others if item.anchor]
    if rivals and not winner.anchor:
        rival, wer, seeds = f"the anchor {rivals[0].anchor}", rivals[0].dev_wer, rivals[0].seeds
    elif len(search):
        rival, wer, seeds = "the median of the search", float(search["wer"].median()), len(search)
    else:
        return None
    return _Claim(rival=rival, lead=wer - winner.dev_wer, seeds=winner.seeds, rival_seeds=seeds)


def _dev(record: StudyRecord) -> Check:
    """Compare the standard error of a WER with the spread of the trials.

    Errors are counted as if they were independent, so a WER w of n words has the standard error
    √(w / n): nearly the binomial one where w is small, and defined where w is above 100 %.
    Errors come in clusters, so it is rather larger; trials share their dev set, so between
    them it is rather smaller.
    """
    splits = record.corpus.get("splits")
    dev = splits.get("dev") if isinstance(splits, dict) else None
    words = dev.get("words") if isinstance(dev, dict) else None
    if isinstance(words, bool) or not isinstance(words, int) or words < 1:
        return _DEV_SIZE.found(NOT_KNOWN, "The study did not store how many words dev has.")
    one = f"Dev has {words:,} words, so one word moves a WER by {points(1 / words, 3)}."
    rows = record.results[record.results["even"]]
    wers = rows["wer"].to_numpy(dtype=float)
    if len(wers) < _FEWEST:
        text = (
            f"{one} There are too few finished explore trials ({len(wers)}) to compare that with."
        )
        return _DEV_SIZE.found(NOT_KNOWN, text)
    # Of the middle half: a few trials that hardly learned would make any dev look large enough.
    spread = float(np.subtract(*np.quantile(wers, [0.75, 0.25]))) / (2 * float(norm.ppf(0.75)))
    error = math.sqrt(max(float(np.median(wers)), 1 / words) / words)
    told = (
        f"{one} The WER of a typical trial has a standard error of about {points(error)} from that "
        f"alone; trials differ by {points(spread)} (standard deviation of the middle half)."
    )
    if spread == 0:
        return _DEV_SIZE.found(BAD, told, "Score on more speech, or search where trials differ.")
    status = graded(error / spread, look=DEV_LOOK, bad=DEV_BAD)
    wanted = math.ceil(words * (error / spread / DEV_LOOK) ** 2 / 100) * 100
    remedy = f"Score on more speech: about {wanted:,} words would do." if status != GOOD else ""
    return _DEV_SIZE.found(status, told, remedy)


def _winner(record: StudyRecord, spread: SeedSpread | None) -> Check:
    """Tell whether the lowest of many noisy readings was read again."""
    search, finals = _search(record), record.finals
    if not finals:
        return _unconfirmed(search, spread)
    winner, others = finals[0], finals[1:]
    story, fell = _regression(finals, search)
    text = (
        f"The winner, {winner.label}, reaches {percent(winner.dev_wer)} on dev as the mean of "
        f"{counted(winner.seeds, 'fresh seed')}.{story}"
    )
    status, remedy = GOOD, ""
    if winner.seeds < 2:
        status, remedy = LOOK, "Give the finalists more seeds: one is again a single reading."
    if others and spread is not None and winner.seeds > 1:
        sure = spread.margin(winner.seeds, others[0].seeds)[1]
        lead = others[0].dev_wer - winner.dev_wer
        clear = lead > sure
        text += (
            f" It leads the next, {others[0].label}, by {points(lead)}, "
            f"{'more' if clear else 'less'} than the {points(sure)} that would be sure."
        )
        if not clear:
            status = LOOK
            remedy = "Take the cheaper of the two, or give the finalists more seeds."
    if winner.failed:
        text += (
            f" {counted(winner.failed, 'more seed')} of it failed, so that mean is of those that "
            "went well."
        )
        status = LOOK
        remedy = f"{remedy} See why the seeds of the winner failed, and train them again.".strip()
    if fell == winner.label:
        status, remedy = BAD, "Do not take the lowest trial of the search; search on from here."
    elif fell:
        status, remedy = LOOK, f"{remedy} Do not take the lowest trial of the search.".strip()
    return _WINNER.found(status, text, remedy)


def _unconfirmed(search: pd.DataFrame, spread: SeedSpread | None) -> Check:
    """Say how lucky the lowest of the search may be, where nothing was trained again."""
    if len(search) < 2:
        return _WINNER.found(NOT_KNOWN, f"There {_are(len(search))} to choose among.")
    text = f"The best is the lowest of {len(search):,} single readings and was not trained again."
    if spread is not None:
        luck = spread.luck(len(search))
        text += (
            f" If all of them were equally good, the lowest would still lie {points(luck)} "
            "below their mean by luck."
        )
    return _WINNER.found(
        LOOK, text, "Add finalists: the best configurations again, with fresh seeds."
    )


def _are(trials: int) -> str:
    return "is one finished trial, so nothing" if trials == 1 else "are no finished trials"


def _regression(finals: Sequence[FinalistResult], search: pd.DataFrame) -> tuple[str, str]:
    """Say how the lowest trial of the search fared with fresh seeds.

    Besides, return its label where it is no better with them than half of the search; else an empty
    text.
    """
    if search.empty:
        return "", ""
    lowest = search.sort_values(["wer", "number"]).iloc[0]
    again = [item for item in finals if item.label == f"trial {lowest['number']}"]
    if not again:
        return "", ""
    before, after = float(lowest["wer"]), again[0].dev_wer
    text = (
        f" The lowest of the search, trial {lowest['number']}, had {percent(before)} there and has "
        f"{percent(after)} with fresh seeds."
    )
    held = len(search) < _FEWEST or after < float(search["wer"].median())
    return text, "" if held else again[0].label
