"""The answers on studies whose truth is known: real study code over planted surfaces."""

from __future__ import annotations

import json
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from optuna.storages import BaseStorage
from pydantic import TypeAdapter, ValidationError

import reports
from reports.answers import Answers, as_json, schema
from reports.card import card_data, headline, listed, summary, unlike
from reports.landscape import Landscape, read_landscape
from reports.questions import QUESTIONS, SIX
from reports.record import Searched, StudyRecord, read_study
from reports.verdicts import (
    AT_HAND,
    FULL,
    TOO_FAR,
    TOO_SMALL,
    VERDICTS,
    ValueEffect,
    Verdict,
    _needed,
    verdicts,
)
from tests.reports.planted import SPACE, Surface
from tests.reports.planted_study import Formula, conduct, planted_config

pytestmark = pytest.mark.usefixtures("few_resamples")

DOCS = Path(__file__).parents[2] / "docs"

# Depth and the decoder's width matter, the kernel has its best inside, heads have no effect.
SURFACE = Surface(
    level=0.1,
    sizes={
        "encoder_layers": 0.08, "encoder_dim": 0.01, "attention_heads": 0.0,
        "conv_kernel_size": 0.06, "decoder_layers": 0.0, "decoder_dim": 0.04,
    },
    forms={
        "encoder_layers": ("linear", 0.5), "encoder_dim": ("saturating", 0.5),
        "attention_heads": ("linear", 0.5), "conv_kernel_size": ("bowl", 0.67),
        "decoder_layers": ("linear", 0.5), "decoder_dim": ("linear", 0.1),
    },
    pairs=(), best_rate=0.5, rate_shifts={}, rate_size=0.2, null="attention_heads",
    multiplicative=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def storage(folder: Path) -> BaseStorage:
    config = planted_config(folder, seed=0, explore={"trials": 64}, refine={"trials": 8})
    return conduct(config, Formula(SURFACE, 0.004))


@pytest.fixture(scope="module")
def record(storage: BaseStorage) -> StudyRecord:
    return read_study(storage, "planted")


@pytest.fixture(scope="module")
def landscape(record: StudyRecord) -> Landscape:
    found = read_landscape(record)
    assert isinstance(found, Landscape)
    return found


@pytest.fixture(scope="module")
def answered(record: StudyRecord, landscape: Landscape) -> dict[str, Verdict]:
    return {verdict.question.name: verdict for verdict in verdicts(record, landscape)}


def test_a_study_without_trials_answers_nothing_and_says_why(record: StudyRecord) -> None:
    empty = replace(record, trials=record.trials.iloc[:0])
    found = verdicts(empty, read_landscape(empty))
    assert [verdict.verdict for verdict in found] == ["undecided"] * 6
    assert "there are 0" in found[0].reason
    assert {line.value for line in card_data(found)} == {"–"}


def test_equal_wers_have_no_effect_to_estimate(record: StudyRecord) -> None:
    equal = replace(record, trials=record.trials.assign(wer=0.5))
    assert read_landscape(equal) == (
        "All finished trials have the same WER, so there is no effect to estimate."
    )


def test_infinite_wers_are_left_out(record: StudyRecord) -> None:
    trials = record.trials.copy()
    trials.loc[trials.index[3], "wer"] = np.inf
    found = read_landscape(replace(record, trials=trials))
    assert isinstance(found, Landscape)
    assert np.isfinite(found.draws).all()


def test_a_question_with_one_value_is_not_asked(record: StudyRecord) -> None:
    searched = {name: item for name, item in record.searched.items() if name != "decoder_layers"}
    fewer = replace(record, searched=searched)
    found = {v.question.name: v for v in verdicts(fewer, read_landscape(fewer))}
    assert found["decoder_layers"].verdict == "not asked"
    assert found["encoder_layers"].recommended == 4


def test_pruned_trials_do_not_move_the_effects(record: StudyRecord) -> None:
    last = record.trials.index[-1]
    pruned = record.trials.copy()
    for column, value in (("outcome", "pruned"), ("result", False), ("wer", 0.01)):
        pruned[column] = pruned[column].where(pruned.index != last, value)
    with_it = read_landscape(replace(record, trials=pruned))
    without = read_landscape(replace(record, trials=record.trials.drop(index=last)))
    assert isinstance(with_it, Landscape)
    assert isinstance(without, Landscape)
    np.testing.assert_array_equal(with_it.draws, without.draws)


def test_planted_effects_are_found(answered: dict[str, Verdict]) -> None:
    assert answered["encoder_layers"].verdict == "at the edge"
    assert answered["encoder_layers"].recommended == 4
    assert answered["conv_kernel_size"].recommended == 15
    assert answered["conv_kernel_size"].verdict in ("decided", "leaning")
    assert answered["attention_heads"].verdict == "no effect seen"
    assert answered["decoder_dim"].recommended == 32  # one layer, nothing below: but 32 could be 16
    assert answered["decoder_dim"].verdict == "at the edge"


def test_the_lowest_possible_value_is_no_edge(record: StudyRecord, landscape: Landscape) -> None:
    fewer_layers = landscape.shapes.copy()
    fewer_layers[:, 0] = 5 - fewer_layers[:, 0]  # now one layer is the best
    turned = replace(landscape, shapes=fewer_layers)
    found = next(iter(verdicts(record, turned)))
    assert found.recommended == 1
    assert found.verdict == "decided"


def test_intervals_cover_the_truth(answered: dict[str, Verdict]) -> None:
    inside = [
        effect.low <= truth <= effect.high
        for name in SPACE
        for effect, truth in zip(answered[name].effects, SURFACE.effect(name), strict=True)
    ]
    assert np.mean(inside) >= 0.85


def test_the_best_shape_is_near_the_true_best(landscape: Landscape) -> None:
    assert SURFACE.shape_wer(landscape.best()) - SURFACE.best_wer < 0.004


def test_every_verdict_reads_as_a_sentence(answered: dict[str, Verdict]) -> None:
    for verdict, line in zip(answered.values(), card_data(list(answered.values())), strict=True):
        assert line.sentence.endswith(".")
        assert verdict.verdict in VERDICTS
        assert verdict.verdict in headline(verdict)
    layers = card_data([answered["encoder_layers"]])[0]
    assert layers.sentence.startswith("4 is better than every other value. With 1, WER is ")
    assert " points higher than with 4 (95 %: +" in layers.sentence
    assert layers.advice == "Try values above 4, in a study of another name."


def test_the_sentence_is_that_of_the_verdict(answered: dict[str, Verdict]) -> None:
    """A value may be told from each other one and not from all together, or the other way round."""
    kernel = answered["conv_kernel_size"]
    alone = tuple(replace(e, as_good=e.value == kernel.recommended) for e in kernel.effects)
    everything = tuple(replace(e, as_good=True) for e in kernel.effects)

    def said(verdict: str, effects: tuple[ValueEffect, ...]) -> str:
        (line,) = card_data([replace(kernel, verdict=verdict, effects=effects)])
        return f"{line.sentence} {line.advice}"

    assert said("decided", everything).startswith("15 is better than every other value.")
    assert "do as well" not in said("decided", everything)
    assert "not all of them for sure" in said("leaning", alone)
    assert "cannot be told from it" in said("leaning", everything)


@pytest.mark.parametrize(
    ("gap", "deviation", "known", "outlook", "said"),
    [
        (0.05, 0.015, 72, AT_HAND, "nearly decided"),
        (0.0019, 0.001, 72, TOO_SMALL, "hardly larger than what nobody would notice"),
        (0.004, 0.01, 72, TOO_FAR, "twenty times the trials"),
        (0.01, 0.015, 72, FULL, "at most 400 are read together"),
        (0.01, 0.006, 500, FULL, "at most 400 are read together"),
        (0.01, 0.006, 72, "", "about 140 finished trials"),
    ],
)
def test_what_more_trials_would_do(
    answered: dict[str, Verdict],
    landscape: Landscape,
    gap: float,
    deviation: float,
    known: int,
    outlook: str,
    said: str,
) -> None:
    behind = gap + deviation * np.array([[-1.0], [1.0]])
    needed, found = _needed(replace(landscape, known=known), behind, 0.001, "undecided")
    assert found == outlook and (needed is None) == bool(outlook)
    verdict = replace(
        answered["encoder_dim"], verdict="undecided", needed=needed, outlook=found, trials=72
    )
    assert said in card_data([verdict])[0].advice


def test_beyond_what_is_fitted_the_fitted_number_is_told(
    record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.surrogate.MOST", 30)
    found = read_landscape(record)
    assert isinstance(found, Landscape)
    assert (found.trials, found.known > 60) == (30, True)
    answers = verdicts(record, found)
    assert {verdict.trials for verdict in answers} == {30}
    assert {verdict.needed for verdict in answers} == {None}


def test_the_card_says_where_the_best_network_has_another_value(
    answered: dict[str, Verdict],
) -> None:
    best = {"encoder_layers": 4, "attention_heads": 9, "decoder_dim": None}
    told = {line.question.name: line.best for line in card_data(list(answered.values()), best)}
    assert told.pop("attention_heads") == "The network above has 9."
    assert set(told.values()) == {""}


def test_the_verdicts_are_summed_up(answered: dict[str, Verdict]) -> None:
    found = [
        replace(verdict, verdict=name)
        for verdict, name in zip(
            answered.values(),
            ("leaning", "decided", "undecided", "decided", "not asked", "at the edge"),
            strict=True,
        )
    ]
    assert summary(found) == (
        "Of the 5 questions: 2 decided, 1 leaning, 1 undecided, 1 at the edge."
    )
    found[4] = replace(found[4], recommended=None)
    assert summary([found[4]]) == ""
    unknown = replace(found[2], recommended=None, reason="It takes 7 trials, there is 1.")
    assert summary([found[4], unknown]) == (
        "No question can be answered yet. It takes 7 trials, there is 1."
    )
    assert summary([found[2]]).startswith("So far the question is undecided: ")
    assert summary([found[2]] * 6).startswith("So far all 6 questions are undecided: ")


def test_values_are_listed_as_people_do() -> None:
    assert listed([2]) == "2"
    assert listed([1, 2, 4]) == "1, 2 and 4"


@pytest.fixture(scope="module")
def files(storage: BaseStorage, tmp_path_factory: pytest.TempPathFactory) -> reports.ReportFiles:
    return reports.write(storage, "planted", tmp_path_factory.mktemp("report"))


def test_answers_json_holds_what_the_page_says(files: reports.ReportFiles) -> None:
    answers = json.loads(files.answers_json.read_text())
    page = files.html.read_text()
    assert [question["name"] for question in answers["questions"]] == list(SIX)
    for question in answers["questions"]:
        assert question["verdict"] in VERDICTS
        assert question["recommended"] in question["as_good"]
        assert question["sentence"].split(".")[0] in page
        assert f"({question['verdict']}" in question["headline"]
        won = answers["best"]["values"][question["name"]]
        unlike = f"; the best trial has {won:g})"
        assert question["headline"].endswith(unlike) == (won != question["recommended"])
    assert [check["id"] for check in answers["checks"]] == [c.id for c in files.checks.checks]
    for check in answers["checks"]:
        assert check["title"] in page
        assert check["text"] in unescape(page)


def test_answers_json_is_as_its_schema_says(files: reports.ReportFiles) -> None:
    """The schema asks for every key, of the right type, and the file has no other."""
    text = files.answers_json.read_text()
    read = TypeAdapter(Answers).validate_json(text, strict=True)
    assert json.loads(as_json(read)) == json.loads(text)
    described = json.loads(schema())
    assert set(json.loads(text)) == set(described["properties"])
    with pytest.raises(ValidationError, match="verdict"):
        TypeAdapter(Answers).validate_json(text.replace('"verdict"', '"judgement"'))


def test_a_network_is_set_against_the_answers(
    record: StudyRecord, answered: dict[str, Verdict]
) -> None:
    found = list(answered.values())
    values = {name: verdict.recommended for name, verdict in answered.items()}
    assert unlike(values, found, record.searched) == []
    assert unlike({}, found, record.searched) == []
    values |= {"encoder_layers": 1, "attention_heads": 9, "decoder_dim": None}
    assert unlike(values, found, record.searched) == [
        "1 encoder layer, which is worse on average, though not for sure with this shape",
        "9 attention heads, which the search did not try",
    ]
    heads = [v for v in (1, 2, 4) if v != answered["attention_heads"].recommended]
    (said,) = unlike({"attention_heads": heads[0]}, found, record.searched)
    assert said.endswith("which these trials cannot tell from the answer")


def test_a_value_between_those_that_were_read_was_tried() -> None:
    grid = range(32, 513, 60)
    effects = tuple(
        ValueEffect(value=v, wer=0.2, low=0.1, high=0.3, best_probability=0.1, as_good=v > 300)
        for v in grid
    )
    verdict = Verdict(
        question=QUESTIONS[1], verdict="leaning", reason="", recommended=512.0, effects=effects
    )
    widths = Searched(
        name="encoder_dim", role="scientific", low=32, high=512, log=False,
        choices=tuple(range(32, 513, 4)),
    )  # fmt: skip
    (said,) = unlike({"encoder_dim": 396.0}, [verdict], {"encoder_dim": widths})
    assert said == "encoder width 396, which these trials cannot tell from the answer"


def test_the_schema_in_the_documentation_is_the_current_one() -> None:
    assert (DOCS / "answers.schema.json").read_text() == schema()
