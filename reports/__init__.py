"""The answers: reads a study from Optuna's storage and writes a report that anyone can read.

    import reports
    files = reports.write("sqlite:////data/runs/laptop/study.db", "laptop", Path("report"))
    print(files.answer.sentence)

Optuna's storage is all that is read (and, where given, the transcripts of the best trial). The
package knows neither torch nor the training. Each section of the page is one file here: a
`..._data` function that computes what is shown, and a `plot_...` function that draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reports.answer import AnchorResult, Answer, BestTrial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.storages import BaseStorage

    from reports.answers import Answers
    from reports.checks import ChecksData
    from reports.ranking import Candidate

__all__ = [
    "AnchorResult",
    "Answer",
    "BestTrial",
    "ComparisonFiles",
    "ReportFiles",
    "StudyUnreadable",
    "best_trial",
    "candidates",
    "compare",
    "write",
]


class StudyUnreadable(Exception):
    """The study cannot be reported on: it is not there, or it is not a search for a low WER."""


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """What `write` left on disk, and the answer in short."""

    html: Path
    """The page: one self-contained file, without scripts and without references to outside."""

    markdown: Path
    """The same report as Markdown, with the figures beside it."""

    trials_csv: Path
    """One row per trial; the columns are described at the end of the Markdown report."""

    answers_json: Path
    """The answers for programs; `reports.answers` describes it."""

    figures: tuple[Path, ...]
    """Every figure, as SVG and as PNG."""

    answers: Answers
    """What answers.json holds."""

    checks: ChecksData
    """Whether the study can be believed."""

    answer: Answer
    """Best trial, its WER and its six values, the anchors, and the trials counted by outcome."""


def write(
    storage: str | BaseStorage,
    study_name: str,
    folder: Path,
    trials_folder: Path | None = None,
) -> ReportFiles:
    """Write the report of a study, finished or not, into a folder and return what was written.

    Each file is replaced in one step, `index.html` last, so a reader never sees half a page.

    Args:
        storage: An Optuna storage URL, or a storage that is already open.
        study_name: The study's name in that storage.
        folder: Where `index.html`, `report.md`, `trials.csv`, `answers.json` and `figures/` go.
        trials_folder: The folder that holds `<number>/hypotheses.jsonl` of the trials; without
            it the page shows no examples of recognition.

    Raises:
        StudyUnreadable: There is no such study, or it does not minimise one value.
    """
    from reports.page import write_report

    return write_report(storage, study_name, folder, trials_folder)


@dataclass(frozen=True, kw_only=True)
class ComparisonFiles:
    """What `compare` left on disk, and what it found in short."""

    html: Path
    """The page, like that of a report."""

    sentence: str
    """On how many questions the studies agree and differ."""


def compare(studies: Sequence[tuple[str | BaseStorage, str]], folder: Path) -> ComparisonFiles:
    """Write one page that compares the answers of several studies, and return what was written.

    Args:
        studies: Pairs of a storage (or its URL) and the name of a study in it.
        folder: Where `index.html` goes.

    Raises:
        StudyUnreadable: One of them is not there, or does not minimise one value.
    """
    from reports.page import write_comparison
    from reports.record import read_study

    return write_comparison([read_study(storage, name) for storage, name in studies], folder)


def candidates(storage: str | BaseStorage, study_name: str) -> list[Candidate]:
    """Return the configurations of a study that are worth training again, best first.

    Raises:
        StudyUnreadable: There is no such study, or it does not minimise one value.
    """
    from reports.ranking import candidates_of
    from reports.record import read_study

    return candidates_of(read_study(storage, study_name))


def best_trial(storage: str | BaseStorage, study_name: str) -> BestTrial | None:
    """Return the trial of a study whose network is the one to use, None before any has finished.

    It is the best trial of the winner among the finalists; before any, that with the lowest WER.

    Raises:
        StudyUnreadable: There is no such study, or it does not minimise one value.
    """
    from reports.answer import best_of
    from reports.record import read_study

    return best_of(read_study(storage, study_name))
