"""The published studies: what their pages say is what the product's own answers say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from pydantic import TypeAdapter

import reports
from reports.answers import Answers
from reports.record import read_study
from reports.trials import as_csv
from reports.wording import duration, number, p_value, percent, points, signed
from study.config import StudyConfig
from study.config_file import load
from study.connection import open_storage
from study.data.manifest import ManifestCorpus
from tests.speech import write_tone

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "studies" / "published"
STUDIES = sorted(file.parents[1].name for file in PUBLISHED.glob("*/report/answers.json"))
BEFORE = "## How the ranges and the budget were chosen"
"""The section of a page that tells of trainings before the study: its figures are not the study's."""
MEASURED = re.compile(r"[\d,]*\d(?:\.\d+)? (?:%|points?\b|h\b|min\b)")
MOST_BYTES = 2_000_000


def published(name: str) -> tuple[str, dict[str, Any]]:
    """The page of a study, and its answers."""
    folder = PUBLISHED / name
    answers = json.loads((folder / "report" / "answers.json").read_text())
    return (folder / "README.md").read_text(), answers


def leaves(value: Any) -> Iterator[Any]:
    """Everything in a JSON value that is neither a list nor an object."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def sayable(answers: dict[str, Any]) -> set[str]:
    """Every measure that may be said of a study: its numbers as a person says them."""
    said: set[str] = set()
    for leaf in leaves(answers):
        if isinstance(leaf, str):
            said |= set(MEASURED.findall(leaf))
        elif isinstance(leaf, (int, float)):
            said |= {percent(leaf, digits) for digits in (0, 1, 2)}
            said |= {points(leaf, digits) for digits in (0, 1, 2)}
            said.add(duration(leaf))
    return said


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables, by what their first cell says."""
    cells = [
        [cell.strip(" *`") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {first: others for first, *others in cells}


def config_of(name: str) -> StudyConfig:
    return load(PUBLISHED / f"{name}.yaml", [f"runs={PUBLISHED}"])


def test_there_is_a_published_study() -> None:
    assert "so762" in STUDIES


@pytest.mark.parametrize("name", STUDIES)
def test_every_measure_on_the_page_is_one_of_the_answers(name: str) -> None:
    page, answers = published(name)
    before, narrated, after = page.partition(BEFORE)
    assert narrated
    checked = before + after[after.index("\n## ") :]
    measures = MEASURED.findall(checked)
    assert len(measures) > 10
    known = sayable(answers)
    for other in set(re.findall(r"\]\(\.\./([\w-]+)/README\.md\)", page)):
        known |= sayable(published(other)[1])  # a page may set its study beside another
    assert [measure for measure in measures if measure not in known] == []


@pytest.mark.parametrize("name", STUDIES)
def test_the_tables_of_the_page_are_the_answers(name: str) -> None:
    page, answers = published(name)
    table = rows(page)
    for question in answers["questions"]:
        value, verdict, *_ = table[question["name"]]
        assert (value, verdict) == (number(question["recommended"]), question["verdict"])
    against = {item["label"]: item for item in answers["comparisons"]}
    for finalist in answers["finalists"]:
        test, dev, difference, p = table[finalist["label"]]
        assert (test, dev) == (percent(finalist["test_wer"]), percent(finalist["dev_wer"]))
        if item := against.get(finalist["label"]):
            low, high = signed(item["low"]), signed(item["high"])
            assert difference == f"{signed(item['difference'])} ({low} to {high})"
            assert p == p_value(item["p"])
    for check in answers["checks"]:
        assert table[check["title"]][0] == check["status"]


def test_the_readme_shows_the_answers_of_the_published_study() -> None:
    _, answers = published("so762")
    table = rows((ROOT / "README.md").read_text())
    for question in answers["questions"]:
        value, verdict, *_ = table[question["text"]]
        assert value == number(question["recommended"])
        said, _, evidence = verdict.partition(":")
        assert said.split(maxsplit=1)[1] == question["verdict"]
        assert set(MEASURED.findall(evidence)) <= sayable(answers)


@pytest.mark.parametrize("name", STUDIES)
def test_what_is_published_is_whole(name: str) -> None:
    folder = PUBLISHED / name / "report"
    TypeAdapter(Answers).validate_json((folder / "answers.json").read_text(), strict=True)
    report = (folder / "report.md").read_text()
    figures = re.findall(r"\]\((figures/[^)]+)\)", report)
    assert figures
    assert sum((folder / figure).stat().st_size for figure in figures) < MOST_BYTES
    page, _ = published(name)
    for link in re.findall(r"\]\(([^)#]+)\)", page):
        assert "://" in link or (PUBLISHED / name / link).exists(), link


def test_the_speech_can_be_had_as_it_is_distributed(tmp_path: Path) -> None:
    """Both corpora in miniature; the product reads what becomes of them."""
    prepare = run_path(str(PUBLISHED / "so762" / "prepare.py"))["prepare"]
    ocean, kathleen, to = (tmp_path / name for name in ("speechocean762", "kathleen", "corpora"))
    for part, name, text in (
        ("train", "000010011", "WE CALL IT BEAR"),
        ("test", "000030175", "YUMMY"),
    ):
        audio = ocean / "WAVE" / f"SPEAKER{name[1:5]}" / f"{name}.WAV"
        write_tone(audio, seconds=0.5)
        (ocean / part).mkdir()
        (ocean / part / "text").write_text(f"{name}\t{text}\n")
        (ocean / part / "wav.scp").write_text(f"{name}\t{audio.relative_to(ocean)}\n")
    write_tone(kathleen / "wavs" / "arctic_a0004_1592748574.wav", seconds=0.5)
    prompts = tmp_path / "cmuarctic.data"
    prompts.write_text("( arctic_a0004 \"Lord, but I'm glad to see 'em again, Phil.\" )\n")
    splits = tmp_path / "splits.tsv"
    splits.write_text("000010011\tdev\n000030175\ttest\narctic_a0004_1592748574\ttrain\n")
    with pytest.raises(LookupError, match="recordings are missing, the first is 000010035"):
        prepare(ocean, kathleen, prompts, to)
    prepare(ocean, kathleen, prompts, to, splits)
    train = (Path("../arctic/train.jsonl"),)
    found = ManifestCorpus(folder=to / "so762", train=train).read(tmp_path)
    assert {split: [(u.id, u.text, u.speaker) for u in some] for split, some in found.items()} == {
        "train": [
            ("arctic_a0004_1592748574", "lord but i'm glad to see em again phil", "kathleen")
        ],
        "dev": [("000010011", "we call it bear", "so0001")],
        "test": [("000030175", "yummy", "so0003")],
    }
    assert all(u.audio.is_file() for some in found.values() for u in some)


@pytest.mark.parametrize("name", STUDIES)
def test_the_table_of_trials_is_that_of_the_storage(name: str) -> None:
    """And so the storage that is published is the one that the report was made from."""
    config = config_of(name)
    record = read_study(open_storage(config), config.name)
    assert (PUBLISHED / name / "report" / "trials.csv").read_text() == as_csv(record.trials)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_report_can_be_made_again_from_the_storage(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    storage = open_storage(config)
    files = reports.write(storage, config.name, tmp_path, config.folder / "trials")
    _, answers = published(name)
    assert json.loads(files.answers_json.read_text()) == answers
