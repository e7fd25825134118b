"""The winner against every other finalist on the test split, with intervals and tests.

    comparison = comparison_data(record.finals, trials_folder)
    comparison.verdict            # trial 12 is better than conformer-s on test; no difference to …
    comparison_panels(comparison)

Each finalist has the `test.jsonl` of its trials, one per seed. The difference of two finalists is
that of their mean WERs over their seeds, compared utterance by utterance. MAPSSWE knows of one
network on each side: it compares the seeds that did best on dev, which test had no part in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from reports.finals import FinalistResult
from reports.significance import (
    Interval,
    MatchedPairs,
    error_rate_interval,
    holm,
    mapsswe,
    paired_difference,
    segments,
)
from reports.style import ANCHOR, EXPLORE, INK, LINES, MUTED, PAPER, Panel
from reports.transcripts import FEWEST_SPEAKERS, alignments, read_transcripts, resampled
from reports.wording import counted, listed, percent, points, signed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from reports.significance import Array
    from reports.transcripts import Utterance

FEWEST_UTTERANCES = FEWEST_SPEAKERS
"""With fewer than this, a spread over utterances says too little to be told."""
LEVEL = 0.05
"""Corrected p value below which a difference is shown."""


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """A finalist on test, against the winner."""

    finalist: FinalistResult
    """Who it is."""
    wer: Interval
    """Its test WER over speakers and seeds."""
    seed_wers: tuple[float, ...]
    """Test WER of each seed that left transcripts."""
    difference: Interval | None
    """Its WER minus the winner's; None for the winner itself."""
    p: float | None
    """Of that difference, corrected by Holm over all opponents."""
    smallest: float | None
    """How large a difference must come out to be shown, whatever the other comparisons. One that is
    truly so large comes out smaller half of the time."""
    mapsswe: MatchedPairs | None
    """NIST's matched-pairs test between the best seeds of both on dev, not corrected."""
    mapsswe_p: float | None
    """Its p value, corrected by Holm over all opponents."""
    conclusion: str
    """In words."""


@dataclass(frozen=True, kw_only=True)
class ComparisonData:
    """All finalists on test, or why they cannot be compared."""

    opponents: tuple[Opponent, ...]
    """The winner first."""
    verdict: str
    """What the comparisons say together, in a sentence."""
    covers: str
    """What the intervals allow for, in a sentence."""
    resampled: str
    """`speakers` or `utterances`: what the intervals are over."""
    groups: int
    """How many of those there are."""
    utterances: int
    """Utterances that all finalists decoded."""
    left_out: int
    """Utterances that some of them did not, or with another reference."""
    missing: tuple[str, ...]
    """Finalists that left no transcripts of test, so they are not compared."""
    refusal: str
    """Why there is nothing; empty if there is."""


@dataclass(frozen=True, kw_only=True)
class _Tested:
    """A finalist on the utterances that all share."""

    finalist: FinalistResult
    errors: Array
    """`(K, U)`."""
    best: list[Utterance]
    """`U` utterances of the seed that did best on dev."""


Heard = list[dict[str, "Utterance"]]
"""Per seed: utterances by id."""


def comparison_data(finals: Sequence[FinalistResult], trials_folder: Path | None) -> ComparisonData:
    """Compare the finalists of a study on what they heard in the test split."""
    if not finals:
        return _none("No finalists were trained, so the test split was not used.")
    if trials_folder is None:
        return _none("The trials' folder was not given, so test transcripts cannot be compared.")
    heard = {finalist.label: _heard(finalist, trials_folder) for finalist in finals}
    known = [finalist for finalist in finals if heard[finalist.label]]
    if finals[0] not in known:
        return _none(f"The winner, {finals[0].label}, left no transcripts of test (test.jsonl).")
    everything = {name for each in heard.values() for seed in each for name in seed}
    shared = _shared([seed for each in heard.values() for seed in each])
    if len(shared) < FEWEST_UTTERANCES:
        few = counted(len(shared), "utterance") if shared else "no utterance"
        return _none(f"The finalists share {few} of test: too few to tell one from another.")
    tested = [_tested(finalist, heard[finalist.label], shared) for finalist in known]
    words = np.array([item.words for item in tested[0].best], dtype=float)
    if words.sum() == 0:
        return _none("The references of test hold no words.")
    groups, over = resampled(tested[0].best)
    opponents = _opponents(tested, words, groups)
    return ComparisonData(
        opponents=opponents,
        verdict=_verdict(opponents, f"{len(set(groups))} test {over}"),
        covers=_covers(opponents, over),
        resampled=over,
        groups=len(set(groups)),
        utterances=len(shared),
        left_out=len(everything) - len(shared),
        missing=tuple(finalist.label for finalist in finals if finalist not in known),
        refusal="",
    )


def told(interval: Interval | None) -> str:
    """Return a difference with its interval: +1.2 (+0.3 to +2.1)."""
    if interval is None:
        return "–"
    return f"{signed(interval.value)} ({signed(interval.low)} to {signed(interval.high)})"


def _heard(finalist: FinalistResult, folder: Path) -> Heard:
    files = [read_transcripts(folder / str(number) / "test.jsonl") for number in finalist.trials]
    return [{item.id: item for item in file.utterances} for file in files if file.utterances]


def _shared(seeds: Heard) -> list[str]:
    """Return the utterances that all have, with the same reference."""
    first, *others = seeds
    return sorted(
        name
        for name, item in first.items()
        if all(name in other and other[name].reference == item.reference for other in others)
    )


def _tested(finalist: FinalistResult, heard: Heard, shared: list[str]) -> _Tested:
    errors = [[seed[name].errors for name in shared] for seed in heard]
    return _Tested(
        finalist=finalist,
        errors=np.array(errors, dtype=float),
        best=[heard[0][name] for name in shared],
    )


def _opponents(tested: list[_Tested], words: Array, groups: list[str]) -> tuple[Opponent, ...]:
    winner, *others = tested
    pairs = [paired_difference(other.errors, winner.errors, words, groups) for other in others]
    # Surely shown is what passes Holm's strictest step, which is Bonferroni's.
    strict = 1 - LEVEL / max(1, len(others))
    wide = [paired_difference(o.errors, winner.errors, words, groups, strict)[0] for o in others]
    tests = _matched_pairs(others, winner)
    corrected, corrected_tests = holm([p for _, p in pairs]), holm([test.p for test in tests])
    found = [_opponent(winner, words, groups, conclusion="the winner")]
    for place, other in enumerate(others):
        difference, p = pairs[place][0], corrected[place]
        smallest = (wide[place].high - wide[place].low) / 2
        found.append(
            _opponent(
                other,
                words,
                groups,
                conclusion=_conclusion(difference, p, smallest, single=_single(other, winner)),
                difference=difference,
                p=p,
                smallest=smallest,
                test=tests[place],
                test_p=corrected_tests[place],
            )
        )
    return tuple(found)


def _opponent(
    tested: _Tested,
    words: Array,
    groups: list[str],
    *,
    conclusion: str,
    difference: Interval | None = None,
    p: float | None = None,
    smallest: float | None = None,
    test: MatchedPairs | None = None,
    test_p: float | None = None,
) -> Opponent:
    return Opponent(
        finalist=tested.finalist,
        wer=error_rate_interval(tested.errors, words, groups),
        seed_wers=tuple(float(rate) for rate in tested.errors.sum(axis=1) / words.sum()),
        difference=difference,
        p=p,
        smallest=smallest,
        mapsswe=test,
        mapsswe_p=test_p,
        conclusion=conclusion,
    )


def _matched_pairs(others: list[_Tested], winner: _Tested) -> list[MatchedPairs]:
    """Return MAPSSWE of each; utterances that both got right hold no segment."""
    reference = _aligned(winner.best) if others else []
    found = []
    for other in others:
        pairs = [
            pair
            for one, two in zip(_aligned(other.best), reference, strict=True)
            for pair in segments(one, two)
        ]
        found.append(mapsswe(pairs))
    return found


def _aligned(utterances: list[Utterance]) -> list[list[tuple[str, str]]]:
    found = alignments((item.reference, item.hypothesis) for item in utterances)
    return [[(word.reference, word.hypothesis) for word in words] for words in found]


def _single(*tested: _Tested) -> bool:
    """Return whether one network stands for a whole configuration."""
    return any(len(each.errors) == 1 for each in tested)


def _conclusion(difference: Interval, p: float, smallest: float, *, single: bool) -> str:
    if p < LEVEL:
        found = "worse than the winner" if difference.value > 0 else "better than the winner"
        return f"{found} as trained; another seed may change that" if single else found
    if smallest == 0:
        return "no difference shown; the two err alike throughout"
    return f"no difference shown: luck alone can make {points(smallest, 1)}"


def _verdict(opponents: tuple[Opponent, ...], drawn: str) -> str:
    winner, *others = opponents
    if not others:
        return (
            "There is one finalist with transcripts of test, so there is none to compare it with."
        )
    name = winner.finalist.label
    seeds = counted(min(len(o.seed_wers) for o in opponents), "seed")
    parts = []
    chance = f"{drawn} and {seeds} leave room for chance"
    for start, conjunction, words in (
        ("worse", "and", f"{name} is better than {{}} on test"),
        ("better", "and", f"{{}} did better on test than {name}, which won on dev"),
        ("no difference", "or", f"that {name} is better than {{}} is not shown: {chance}"),
    ):
        labels = [o.finalist.label for o in others if o.conclusion.startswith(start)]
        if labels:
            parts.append(words.format(listed(labels, conjunction)))
    if any("another seed" in o.conclusion for o in others):
        parts.append("where one seed was scored, that is said of a network and not of its shape")
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def _covers(opponents: tuple[Opponent, ...], over: str) -> str:
    single = [o.finalist.label for o in opponents if len(o.seed_wers) == 1]
    if not single:
        return f"They allow for other {over} and for another training with another seed."
    who = listed(single) if len(single) < len(opponents) else "each finalist"
    return (
        f"They allow for other {over}. Of {who} only one seed was scored, so what another seed "
        "would change there is not in them."
    )


def _none(refusal: str) -> ComparisonData:
    return ComparisonData(
        opponents=(),
        verdict="",
        covers="",
        resampled="",
        groups=0,
        utterances=0,
        left_out=0,
        missing=(),
        refusal=refusal,
    )


def plot_wers(axes: Axes, data: ComparisonData) -> None:
    """Draw the test WER of each finalist with its interval, and its seeds as open rings."""
    for place, item in enumerate(data.opponents):
        _bar(axes, place, item.wer, item)
        wers = [100 * wer for wer in item.seed_wers]
        axes.plot(wers, [place + 0.24] * len(wers), "o", mfc="none", mec=MUTED, ms=4.5, zorder=3)
    axes.set_xlabel("test WER, %")
    _rows(axes, data.opponents)


def plot_differences(axes: Axes, data: ComparisonData) -> None:
    """Draw each finalist's difference to the winner with its interval."""
    others = [item for item in data.opponents if item.difference is not None]
    axes.axvline(0, color=INK, linewidth=1.2, zorder=2)
    for place, item in enumerate(others):
        assert item.difference is not None
        _bar(axes, place, item.difference, item)
    axes.set_xlabel("test WER minus the winner’s, points")
    _rows(axes, others)


def _bar(axes: Axes, place: int, interval: Interval, item: Opponent) -> None:
    colour = EXPLORE if item.difference is None else ANCHOR if item.finalist.anchor else LINES[2]
    axes.plot(
        [100 * interval.low, 100 * interval.high], [place, place], color=colour, lw=2.4, zorder=3
    )
    axes.plot([100 * interval.value], [place], "o", color=colour, mec=PAPER, ms=9, zorder=4)


def _rows(axes: Axes, opponents: Sequence[Opponent]) -> None:
    names = [item.finalist.label for item in opponents]
    axes.set_yticks(range(len(names)), [f"{n[:20]}…" if len(n) > 21 else n for n in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(visible=False, axis="y")


def comparison_panels(data: ComparisonData) -> list[Panel]:
    """Return the WERs of the finalists on test, and their differences to the winner."""
    others = [item for item in data.opponents if item.difference is not None]
    if not others:
        return []
    wers = "; ".join(
        f"{o.finalist.label} {percent(o.wer.value)} ({percent(o.wer.low)} to {percent(o.wer.high)})"
        for o in data.opponents
    )
    differences = "; ".join(f"{o.finalist.label} {told(o.difference)}" for o in others)
    size = {"width": 460, "left": 158}
    return [
        Panel(
            name="comparison-wers",
            title="Test WER of the finalists",
            alt=f"Test WER with 95 % intervals, the winner first: {wers}.",
            paint=lambda axes: plot_wers(axes, data),
            height=90 + 40 * len(data.opponents),
            **size,
        ),
        Panel(
            name="comparison-differences",
            title="Against the winner",
            alt=f"Test WER minus the winner's, in points, with 95 % intervals: {differences}.",
            paint=lambda axes: plot_differences(axes, data),
            height=90 + 40 * len(data.opponents),
            **size,
        ),
    ]
