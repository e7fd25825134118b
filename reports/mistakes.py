"""What a recogniser gets wrong: which words, in utterances of which length, of which speakers.

    found = mistakes_data([winner, anchor])      # the same utterances, heard by two networks
    found.confusions[0]                          # "a" was heard as "the" 17 times of 203

Everything is counted from the alignments of `reports.transcripts`, and divided last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from reports.significance import error_rate_interval
from reports.style import ANCHOR, EXPLORE, INK, MUTED, PAPER, Panel
from reports.transcripts import alignments
from reports.wording import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from reports.significance import Array, Interval
    from reports.transcripts import Utterance, Word

LISTED = 10
"""Confused words that are listed; of missed and added words half as many."""
SPEAKERS = 20
"""Speakers that are drawn: with more, those who are understood worst."""

_FEWEST = 10  # utterances of a length whose WER is worth a dot
_LENGTHS = 8  # at most so many groups of lengths


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Errors by kind, of one network."""

    utterances: int
    words: int
    """Words that were spoken."""
    substituted: int
    deleted: int
    inserted: int
    wrong: int
    """Utterances with at least one error."""

    @property
    def wer(self) -> float | None:
        """Errors over words; None where no word was spoken."""
        return (
            (self.substituted + self.deleted + self.inserted) / self.words if self.words else None
        )


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A word that was heard as another, missed (`heard` is empty), or added (`spoken` is)."""

    spoken: str
    heard: str
    times: int
    """How often, by the first network."""
    others: tuple[int, ...]
    """How often by each of the others."""
    of: int
    """How often `spoken` was spoken; of an added word, how often `heard` was."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Utterances of one length or of one speaker."""

    label: str
    utterances: int
    words: int
    wers: tuple[Interval, ...]
    """WER of each network, with its 95 % interval over the utterances."""


@dataclass(frozen=True, kw_only=True)
class MistakesData:
    """The errors of one or more networks in the same utterances."""

    kinds: tuple[Kinds, ...]
    """Per network."""
    confusions: tuple[Confusion, ...]
    """Words that the first network confused most often."""
    missed: tuple[Confusion, ...]
    """Words that it missed most often."""
    added: tuple[Confusion, ...]
    """Words that it added most often."""
    lengths: tuple[Group, ...]
    """Ascending; empty where too few utterances differ in length."""
    speakers: tuple[Group, ...]
    """The one understood worst first; empty where speakers are unknown or there is one."""


def mistakes_data(
    heard: Sequence[Sequence[Utterance]],
) -> tuple[MistakesData, list[list[tuple[Word, ...]]]]:
    """Count what networks got wrong; also returns the alignments, per network and utterance.

    `heard` holds per network the same utterances in the same order.
    """
    aligned = [
        alignments((item.reference, item.hypothesis) for item in utterances) for utterances in heard
    ]
    spoken = Counter(word for item in heard[0] for word in item.reference.split())
    pairs = [_pairs(network) for network in aligned]
    errors = np.array(
        [[sum(word.kind != "same" for word in words) for words in network] for network in aligned],
        dtype=float,
    ).reshape(len(heard), len(heard[0]))
    data = MistakesData(
        kinds=tuple(_kinds(network) for network in aligned),
        confusions=_frequent(pairs, spoken, LISTED, all),
        missed=_frequent(pairs, spoken, LISTED // 2, lambda pair: not pair[1]),
        added=_frequent(pairs, spoken, LISTED // 2, lambda pair: not pair[0]),
        lengths=_by_length(heard[0], errors),
        speakers=_by_speaker(heard[0], errors),
    )
    return data, aligned


def _kinds(aligned: Sequence[tuple[Word, ...]]) -> Kinds:
    counts = Counter(word.kind for words in aligned for word in words)
    return Kinds(
        utterances=len(aligned),
        words=counts["same"] + counts["substituted"] + counts["deleted"],
        substituted=counts["substituted"],
        deleted=counts["deleted"],
        inserted=counts["inserted"],
        wrong=sum(any(word.kind != "same" for word in words) for words in aligned),
    )


def _pairs(aligned: Sequence[tuple[Word, ...]]) -> Counter[tuple[str, str]]:
    return Counter(
        (word.reference, word.hypothesis)
        for words in aligned
        for word in words
        if word.kind != "same"
    )


def _frequent(
    pairs: Sequence[Counter[tuple[str, str]]],
    spoken: Counter[str],
    count: int,
    wanted: Callable[[tuple[str, str]], object],
) -> tuple[Confusion, ...]:
    """Return the most frequent pairs of a kind; of equals, in the order of the alphabet."""
    first, *others = pairs
    chosen = sorted((pair for pair in first if wanted(pair)), key=lambda pair: (-first[pair], pair))
    return tuple(
        Confusion(
            spoken=pair[0],
            heard=pair[1],
            times=first[pair],
            others=tuple(other[pair] for other in others),
            of=spoken[pair[0] or pair[1]],
        )
        for pair in chosen[:count]
    )


def _by_length(utterances: Sequence[Utterance], errors: Array) -> tuple[Group, ...]:
    """Group utterances by the number of their words, so that each group has enough of them."""
    sizes = np.array([item.words for item in utterances])
    least = max(_FEWEST, len(sizes) / _LENGTHS)
    bounds: list[list[int]] = []
    open_group = 0
    for size in sorted({int(size) for size in sizes} - {0}):
        if not open_group:
            bounds.append([size, size])
        bounds[-1][1] = size
        open_group += int((sizes == size).sum())
        open_group = 0 if open_group >= least else open_group
    if open_group and len(bounds) > 1:  # the longest are too few for a group of their own
        last = bounds.pop()
        bounds[-1][1] = last[1]
    if len(bounds) < 2:
        return ()
    return tuple(
        _group(
            str(low) if low == high else f"{low}–{high}",
            (sizes >= low) & (sizes <= high),
            utterances,
            errors,
        )
        for low, high in bounds
    )


def _by_speaker(utterances: Sequence[Utterance], errors: Array) -> tuple[Group, ...]:
    speakers = [item.speaker for item in utterances]
    names = {speaker for speaker in speakers if speaker is not None}
    if None in speakers or len(names) < 2:
        return ()
    column = np.array(speakers, dtype=str)
    groups = [_group(name, column == name, utterances, errors) for name in sorted(names)]
    known = [group for group in groups if group.words]
    return tuple(sorted(known, key=lambda group: (-group.wers[0].value, group.label)))


def _group(
    label: str, members: NDArray[np.bool_], utterances: Sequence[Utterance], errors: Array
) -> Group:
    chosen = [item for item, member in zip(utterances, members, strict=True) if member]
    words = np.array([item.words for item in chosen], dtype=float)
    names = [str(place) for place in range(len(chosen))]
    known = bool(words.sum())
    return Group(
        label=label,
        utterances=len(chosen),
        words=int(words.sum()),
        wers=tuple(error_rate_interval(row[None, members], words, names) for row in errors)
        if known
        else (),
    )


_LOOKS = ((EXPLORE, "o"), (ANCHOR, "D"))


def plot_lengths(axes: Axes, data: MistakesData, labels: Sequence[str]) -> None:
    """Draw WER against the length of utterances, with 95 % intervals."""
    places = np.arange(len(data.lengths), dtype=float)
    for order, (label, (colour, marker)) in enumerate(zip(labels, _LOOKS, strict=False)):
        wers = [group.wers[order] for group in data.lengths]
        x = places + 0.1 * (2 * order - len(labels) + 1)
        low, high = (100 * np.array([getattr(w, end) for w in wers]) for end in ("low", "high"))
        axes.vlines(x, low, high, color=colour, linewidth=1.6)
        axes.plot(
            x,
            [100 * wer.value for wer in wers],
            f"{marker}-",
            color=colour,
            mec=PAPER,
            markersize=7,
            linewidth=1.0,
            label=label,
        )
    axes.set_xticks(places, [group.label for group in data.lengths])
    axes.set_xlabel("words in the utterance")
    axes.set_ylabel("WER, %")
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")


def plot_speakers(axes: Axes, data: MistakesData, labels: Sequence[str]) -> None:
    """Draw each speaker's WER, the one understood worst on top; a thin line joins the networks."""
    shown = data.speakers[:SPEAKERS]
    for place, group in enumerate(shown):
        wers = [100 * wer.value for wer in group.wers[: len(_LOOKS)]]
        axes.plot([min(wers), max(wers)], [place, place], color=MUTED, lw=1.0, zorder=2)
        for wer, (colour, marker) in reversed(list(zip(wers, _LOOKS, strict=False))):
            axes.plot([wer], [place], marker, color=colour, mec=PAPER, markersize=8, zorder=3)
    names = [group.label for group in shown]
    axes.set_yticks(range(len(names)), [f"{n[:14]}…" if len(n) > 15 else n for n in names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("WER, %")
    axes.grid(visible=False, axis="y")


def mistakes_panels(data: MistakesData | None, labels: Sequence[str]) -> list[Panel]:
    """Return WER by length and by speaker, as far as they are known; `labels` name the networks."""
    if data is None:
        return []
    found = []
    if data.lengths:
        found.append(
            Panel(
                name="recognition-lengths",
                title="WER by length of the utterance",
                alt=_describe("words in the utterance", data.lengths, labels),
                paint=lambda axes: plot_lengths(axes, data, labels),
                width=460,
                height=300,
            )
        )
    if data.speakers:
        shown = data.speakers[:SPEAKERS]
        more = len(shown) < len(data.speakers)
        found.append(
            Panel(
                name="recognition-speakers",
                title=f"WER by speaker{f', the {len(shown)} understood worst' if more else ''}",
                alt=_describe("speaker", shown, labels),
                paint=lambda axes: plot_speakers(axes, data, labels),
                width=460,
                height=max(160, 80 + 22 * len(shown)),
                left=118,
            )
        )
    return found


def _describe(what: str, groups: Sequence[Group], labels: Sequence[str]) -> str:
    told = "; ".join(
        f"{group.label}: {', '.join(percent(wer.value, 1) for wer in group.wers)}"
        for group in groups
    )
    return f"WER by {what}, of {' and of '.join(labels)}. {told}."
