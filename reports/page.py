"""Assembles the report: page, Markdown, table and figures, from one record of the study.

The order of the page is the order of a reader's questions: what is the answer, what is it made
of, what does it cost, is it to be trusted, and how was it made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from reports import ComparisonFiles, ReportFiles, comparing, wording
from reports.answer import Answer, answer_data, configuration_sentence
from reports.answers import Answers, answers_data, as_json
from reports.card import MARKS, MEANINGS, card_data, summary, unlike
from reports.checks import checks_data
from reports.comparison import comparison_data, comparison_panels
from reports.cost import cost_panels
from reports.curves import curve_panels, notes
from reports.effects import dots_note, effect_panels
from reports.equal_size import equal_size_data, equal_size_panels
from reports.importance import FEWEST, RELIABLE, RESAMPLES, importance_data, importance_panels
from reports.interactions import interaction_panels, interactions_data
from reports.isolation import isolation_data, isolation_panels
from reports.landscape import read_landscape
from reports.mistakes import mistakes_panels
from reports.questions import QUESTIONS, SIX, edge_note, label_of, question_data
from reports.recognition import recognition_data
from reports.record import StudyRecord, read_study
from reports.rendering import environment, replace, safe_svg, style
from reports.style import Panel, figure_files
from reports.trials import COST_COLUMNS, TRIAL_COLUMNS, as_csv, column_of
from reports.verdicts import VERDICTS, verdicts

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FIGURES = (
    "effects",
    "isolation",
    "interactions",
    "finalists",
    "importance",
    "cost",
    "equal-size",
    "curves",
    "checks",
    "recognition",
)
"""Every figure's name, in the order of the page; each is a file `figures/<name>.svg` and `.png`."""

GROUPS = {
    "finished": "Finished",
    "pruned": "Pruned: stopped early, so the WER is the last one seen and not comparable",
    "paused": "Paused at a rung: they may yet go on, so the WER is the last one seen",
    "diverged": "Diverged: no WER was measured",
    "out_of_memory": "Out of memory: no WER was measured",
    "infeasible": "A constraint is violated: not a result",
    "left_out": "Left out: the hours of the refine phase were spent",
    "crashed": "Crashed",
    "stopped": "Stopped from outside",
    "running": "Running",
}
"""The groups of the table of trials, in their order; waiting trials have a list of their own."""


@dataclass(frozen=True, kw_only=True)
class _Figure:
    panels: list[Panel]
    columns: int


def write_report(
    storage: str | BaseStorage, study_name: str, folder: Path, trials_folder: Path | None
) -> ReportFiles:
    """Read the study, draw, and write every file; see `reports.write`."""
    record = read_study(storage, study_name)
    comparison = comparison_data(record.finals, trials_folder)
    answer = answer_data(record, comparison.verdict)
    landscape = read_landscape(record)
    answered = verdicts(record, landscape)
    interactions = interactions_data(landscape)
    importance = importance_data(record)
    checks = checks_data(record)
    equal_size = equal_size_data(record)
    recognition = recognition_data(record, trials_folder)
    figures = {
        "effects": _Figure(panels=effect_panels(record, answered), columns=3),
        "isolation": _Figure(panels=isolation_panels(isolation_data(record)), columns=3),
        "interactions": _Figure(panels=interaction_panels(interactions), columns=1),
        "finalists": _Figure(panels=comparison_panels(comparison), columns=2),
        "importance": _Figure(panels=importance_panels(importance), columns=2),
        "cost": _Figure(panels=cost_panels(record), columns=2),
        "equal-size": _Figure(panels=equal_size_panels(equal_size), columns=3),
        "curves": _Figure(panels=curve_panels(record), columns=2),
        "checks": _Figure(panels=list(checks.panels), columns=2),
        "recognition": _Figure(
            panels=mistakes_panels(
                recognition.mistakes, [network.name for network in recognition.networks]
            ),
            columns=2,
        ),
    }
    content = {
        **_headline(record, answer),
        **_questions(record, answer),
        "unlike": unlike(answer.best.values if answer.best else {}, answered, record.searched),
        "card": card_data(answered, answer.best.values if answer.best else None),
        "summary": summary(answered),
        "meanings": {name: (MARKS[name], MEANINGS[name]) for name in VERDICTS},
        "landscape": None if isinstance(landscape, str) else landscape,
        "no_landscape": landscape if isinstance(landscape, str) else "",
        "interactions": interactions,
        "importance": importance,
        "fewest": FEWEST,
        "reliable": RELIABLE,
        "resamples": RESAMPLES,
        "curve_notes": notes(record),
        "dots_note": dots_note(record),
        "figures": figures,
        "devices": sorted(set(record.results["device"].dropna())),
        **_trials(record),
        "checks": checks,
        "equal_size": equal_size,
        "equal_size_panels": figures["equal-size"].panels,
        "comparison": comparison,
        "recognition": recognition,
        **_provenance(record),
    }
    answers = answers_data(record, answer, answered, landscape, comparison, checks.checks)
    return _write(folder, record, answers, answer, content)


def write_comparison(records: list[StudyRecord], folder: Path) -> ComparisonFiles:
    """Write the page of several studies side by side; see `reports.compare`."""
    studies = comparing.compared(records)
    questions = comparing.questions_data(studies)
    agree, differ, undecided = (
        sum(item.agreement == word for item in questions)
        for word in (comparing.AGREE, comparing.DIFFER, comparing.OPEN)
    )
    sentence = (
        f"Of the six questions, the studies agree on {agree}, differ on {differ}, and leave "
        f"{undecided} undecided."
    )
    folder.mkdir(parents=True, exist_ok=True)
    page = (
        environment()
        .get_template("comparing.html.jinja")
        .render(
            studies=studies,
            questions=questions,
            summary=sentence,
            ranks=comparing.ranks_data(studies),
            differences=comparing.differences_data(studies),
            panels=comparing.effect_panels(studies),
            style=style(),
            inline_svg=safe_svg,
        )
    )
    replace(folder / "index.html", page.encode())
    return ComparisonFiles(html=folder / "index.html", sentence=sentence)


def _headline(record: StudyRecord, answer: Answer) -> dict[str, Any]:
    counts = answer.counts
    unfinished = [
        f"{counts[outcome]} {outcome}"
        for outcome in ("running", "paused", "waiting")
        if outcome in counts
    ]
    words = _split(record, "dev").get("words")
    return {
        "study": record.name,
        "answer": answer,
        "total": len(record.trials),
        "unfinished": " and ".join(unfinished),
        "corpus": _corpus_sentence(record),
        "one_word": 1 / words if isinstance(words, int) and words > 0 else None,
        "six_words": configuration_sentence(answer.best.values) if answer.best else "",
        "has_phases": bool(record.trials["phase"].notna().any()),
    }


def _questions(record: StudyRecord, answer: Answer) -> dict[str, Any]:
    best = record.best
    tuned = []
    for name, searched in record.searched.items():
        if name in SIX:
            continue
        value = None if best is None else best[column_of(name)]
        value = None if wording.number(value) == wording.MISSING else float(value)  # type: ignore[arg-type]
        tuned.append(
            {
                "label": label_of(name),
                "value": value,
                "searched": searched,
                "edge": edge_note(searched, value),
            }
        )
    return {"questions": question_data(record), "tuned": tuned, "even": int(_even(record))}


def _even(record: StudyRecord) -> int:
    return int(record.results["even"].sum())


def _split(record: StudyRecord, name: str) -> dict[str, Any]:
    splits = record.corpus.get("splits")
    split = splits.get(name) if isinstance(splits, dict) else None
    return split if isinstance(split, dict) else {}


def _corpus_sentence(record: StudyRecord) -> str:
    """Return the corpus in a sentence: what it is, and how large the splits are that were used."""
    parts = []
    used = [("train", "Trained on"), ("dev", "scored on")]
    if record.finals:
        used.append(("test", "finalists on"))
    for name, verb in used:
        split = _split(record, name)
        sizes = [wording.hours(split["hours"])] if "hours" in split else []
        for key, noun in (("utterances", "utterance"), ("speakers", "speaker")):
            if isinstance(split.get(key), int):
                sizes.append(wording.counted(split[key], noun))
        if sizes:
            parts.append(f"{verb} {sizes[0]} of {name}" + _brackets(sizes[1:]))
    kind = record.corpus.get("kind")
    corpus = f" Corpus: {kind}." if kind else ""
    if not parts:
        return f"The study stored no description of its corpus.{corpus}"
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}.{corpus}"


def _brackets(sizes: list[str]) -> str:
    return f" ({', '.join(sizes)})" if sizes else ""


def _trials(record: StudyRecord) -> dict[str, Any]:
    """Return the table of trials: in groups by outcome, best first."""
    others = [column_of(name) for name in record.searched if name not in SIX]
    trials = record.trials.sort_values(["wer", "number"], na_position="last")
    known = [*GROUPS, *sorted(set(trials["outcome"]) - set(GROUPS) - {"waiting"})]
    groups = [
        {
            "outcome": outcome,
            "title": GROUPS.get(outcome, outcome.replace("_", " ").capitalize()),
            "measured": outcome in ("finished", "pruned", "paused"),
            "rows": _rows(trials[trials["outcome"] == outcome]),
        }
        for outcome in known
    ]
    waiting = trials[trials["outcome"] == "waiting"].sort_values("number")
    return {
        "six": [{"name": question.name, "label": question.label} for question in QUESTIONS],
        "others": [{"name": name, "label": label_of(name)} for name in others],
        "groups": [group for group in groups if group["rows"]],
        "waiting": _rows(waiting),
        "columns": {
            **TRIAL_COLUMNS,
            **dict.fromkeys(others, "another searched hyperparameter"),
            **COST_COLUMNS,
        },
    }


def _rows(trials: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in trials.to_dict("records"):
        error = row["error"] if isinstance(row["error"], str) else ""
        sentence, _, traceback = error.strip().partition("\n")
        plain = {str(key): None if pd.isna(value) else value for key, value in row.items()}
        rows.append({**plain, "error": sentence.strip(), "traceback": traceback.strip("\n")})
    return rows


def _provenance(record: StudyRecord) -> dict[str, Any]:
    trials = record.trials
    spent = trials.groupby("outcome").agg(
        trials=("number", "size"),
        train_seconds=("train_seconds", "sum"),
        evaluate_seconds=("evaluate_seconds", "sum"),
    )
    warnings = record.corpus.get("warnings")
    return {
        "config_yaml": yaml.safe_dump(
            record.config, sort_keys=False, allow_unicode=True, default_flow_style=None
        )
        if record.config
        else "",
        "versions": record.versions,
        "git_commit": record.git_commit,
        "hardware": record.hardware,
        "changes": record.changes,
        "fingerprint": record.corpus.get("fingerprint"),
        "corpus_warnings": [str(item) for item in warnings] if isinstance(warnings, list) else [],
        "spent": spent.reset_index().to_dict("records"),
        "train_seconds": record.seconds("train_seconds"),
        "evaluate_seconds": record.seconds("evaluate_seconds"),
    }


def _write(
    folder: Path, record: StudyRecord, answers: Answers, answer: Answer, content: dict[str, Any]
) -> ReportFiles:
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    written = []
    for name in FIGURES:
        figure: _Figure = content["figures"][name]
        files = (pictures / f"{name}.svg", pictures / f"{name}.png")
        if not figure.panels:
            for path in files:  # of an earlier report, when the study held something else
                path.unlink(missing_ok=True)
            continue
        for path, data in zip(files, figure_files(figure.panels, figure.columns), strict=True):
            replace(path, data)
            written.append(path)
    templates = environment()
    table, told, markdown, html = (
        folder / name for name in ("trials.csv", "answers.json", "report.md", "index.html")
    )
    replace(told, as_json(answers).encode())
    replace(table, as_csv(record.trials).encode())
    replace(markdown, templates.get_template("report.md.jinja").render(content).encode())
    page = templates.get_template("page.html.jinja").render(
        content,
        style=style(),
        inline_svg=safe_svg,
    )
    replace(html, page.encode())
    return ReportFiles(
        html=html,
        markdown=markdown,
        trials_csv=table,
        answers_json=told,
        figures=tuple(written),
        answer=answer,
        answers=answers,
        checks=content["checks"],
    )
