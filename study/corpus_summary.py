"""`python -m study corpus`: what a corpus holds, before anything is trained on it.

It reads transcripts and the headers of audio files, so that a thousand hours take minutes; whether
all audio can be decoded, and whether transcripts are short enough for CTC, `python -m study check`
says when it computes the features.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from study.data.audio import measure
from study.data.corpus import SPLITS, Corpus, Utterance
from study.data.leaks import leaks

NAMED = 10
"""Unusable utterances that are named; the others are counted."""
BARS = 12
"""Rows of the histogram, at most."""
BAR = 14
"""Characters of the longest bar."""


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """What a split holds."""

    name: str
    usable: list[Utterance]
    seconds: list[float]
    """How long each of them lasts."""
    bad: list[str]
    """Those that cannot be used, a sentence each."""

    @property
    def speakers(self) -> set[str]:
        """Everyone who is known to speak."""
        return {u.speaker for u in self.usable if u.speaker is not None}

    @property
    def texts(self) -> set[str]:
        """The different transcripts."""
        return {u.text for u in self.usable}

    @property
    def words(self) -> int:
        """Words, however often they occur."""
        return sum(len(u.text.split()) for u in self.usable)

    @property
    def vocabulary(self) -> set[str]:
        """The different words."""
        return {word for text in self.texts for word in text.split()}


def summarise(splits: dict[str, list[Utterance]], *, shortest: float) -> list[SplitSummary]:
    """A summary of each split.

    Utterances are bad whose audio is missing, unreadable or shorter than `shortest` seconds, or
    that have no transcript.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as executor:
        return [
            _summarise(name, splits[name], list(executor.map(measure, splits[name])), shortest)
            for name in SPLITS
        ]


def _summarise(
    name: str, utterances: list[Utterance], measured: list[float | str], shortest: float
) -> SplitSummary:
    summary = SplitSummary(name=name, usable=[], seconds=[], bad=[])
    for utterance, seconds in zip(utterances, measured, strict=True):
        fault = None
        if isinstance(seconds, str):
            fault = seconds
        elif seconds < shortest:
            fault = f"the audio is {seconds:.3f} s long, shorter than a window"
        elif not utterance.text:
            fault = "the transcript is empty"
        if fault is not None or isinstance(seconds, str):
            summary.bad.append(f"{utterance.source or name}: '{utterance.id}': {fault}")
        else:
            summary.usable.append(utterance)
            summary.seconds.append(seconds)
    return summary


def shared(summaries: list[SplitSummary]) -> list[str]:
    """What the usable utterances of splits share that should be apart (`study.data.leaks`)."""
    return leaks({summary.name: summary.usable for summary in summaries})


def histogram(summaries: list[SplitSummary]) -> list[tuple[float, float, list[int]]]:
    """How many utterances of each split last how long: rows of begin, end (seconds) and counts.

    A row reaches from its begin up to, and without, its end.
    """
    everything = [seconds for summary in summaries for seconds in summary.seconds]
    if not everything:
        return []
    width = _round_width(max(everything) / BARS)

    def row_of(seconds: float) -> int:
        return math.floor(seconds / width + 1e-9)

    rows = range(row_of(min(everything)), row_of(max(everything)) + 1)
    counts = {row: [0] * len(summaries) for row in rows}
    for number, summary in enumerate(summaries):
        for seconds in summary.seconds:
            counts[row_of(seconds)][number] += 1
    return [(row * width, (row + 1) * width, counts[row]) for row in rows]


def _round_width(width: float) -> float:
    """The smallest of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is larger."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power > width)


def show(corpus: Corpus, summaries: list[SplitSummary], console: Console) -> None:
    """Print everything, in 80 columns."""
    console.print(f"{corpus.kind} corpus", style="bold", highlight=False)
    console.print(_totals(summaries))
    console.print()
    if rows := histogram(summaries):
        console.print(_bars(summaries, rows))
        console.print()
    utterances = sum(len(s.usable) + len(s.bad) for s in summaries)
    bad = [sentence for summary in summaries for sentence in summary.bad]
    if bad:
        allowed = corpus.max_bad_utterances
        refused = len(bad) > (allowed if allowed >= 1 else allowed * utterances)
        verdict = "more than" if refused else "and"
        _say(
            console,
            f"{len(bad)} of {utterances} utterances cannot be used, {verdict} "
            f"corpus.max_bad_utterances ({allowed:g}) allows{'' if refused else ' that'}:",
            [*bad[:NAMED], *([f"and {len(bad) - NAMED} more"] if len(bad) > NAMED else [])],
        )
    empty = [s.name for s in summaries if not s.usable]
    if empty:
        _say(console, f"no usable utterances: {', '.join(empty)}", [])
    found = shared(summaries)
    if found:
        _say(
            console,
            "warning: splits overlap, so that error rates look better than they are:",
            found,
        )
    if not (bad or empty or found):
        console.print("All utterances can be used, and splits share no text and no speaker.")


def _totals(summaries: list[SplitSummary]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("split")
    for column in ("hours", "utterances", "bad", "speakers", "words", "vocabulary", "mean s"):
        table.add_column(column, justify="right")
    for s in summaries:
        total = sum(s.seconds)
        table.add_row(
            s.name,
            f"{total / 3600:.2f}",
            f"{len(s.usable):,}",
            f"{len(s.bad):,}",
            f"{len(s.speakers):,}" if s.speakers else "?",
            f"{s.words:,}",
            f"{len(s.vocabulary):,}",
            f"{total / len(s.usable):.2f}" if s.usable else "",
        )
    return table


def _bars(summaries: list[SplitSummary], rows: Iterable[tuple[float, float, list[int]]]) -> Table:
    """Bars in units of each split's own longest, so that splits can be compared."""
    rows = list(rows)
    longest = [max(counts) for counts in zip(*(row[2] for row in rows), strict=True)]
    places = max(0, -math.floor(math.log10(rows[0][1] - rows[0][0]) + 1e-9))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("seconds", justify="right", no_wrap=True)
    for summary in summaries:
        table.add_column("", justify="right", no_wrap=True)
        table.add_column(summary.name, width=BAR, no_wrap=True)
    for begin, end, counts in rows:
        cells = []
        for count, most in zip(counts, longest, strict=True):
            full = round(BAR * count / most) if most else 0
            cells += [f"{count:,}" if count else "", "█" * full or "▏" * (count > 0)]
        table.add_row(f"{begin:.{places}f}–{end:.{places}f}", *cells)
    return table


def _say(console: Console, sentence: str, items: Iterable[str]) -> None:
    """A sentence and a list, as they are: paths and ids may hold what looks like markup."""
    console.print(sentence, markup=False, highlight=False)
    for item in items:
        console.print(f"  {item}", markup=False, highlight=False, soft_wrap=True)
