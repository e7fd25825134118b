"""Studies side by side, on planted surfaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from optuna.storages import BaseStorage

import reports
from reports.comparing import (
    AGREE,
    DIFFER,
    OPEN,
    Compared,
    compared,
    differences_data,
    questions_data,
    ranks_data,
)
from reports.questions import SIX
from reports.record import StudyRecord, read_study
from tests.reports.planted_study import Formula, conduct, planted_config
from tests.reports.test_answers import SURFACE

pytestmark = pytest.mark.usefixtures("few_resamples")

TURNED = replace(  # shallow is better here, and the rest is the same
    SURFACE, forms=SURFACE.forms | {"encoder_layers": ("linear", 0.1)}
)


@pytest.fixture(scope="module")
def storages(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[BaseStorage, str]]:
    found = []
    for name, surface, seed in (("one", SURFACE, 0), ("again", SURFACE, 1), ("turned", TURNED, 0)):
        config = planted_config(
            tmp_path_factory.mktemp(name), seed=seed, name=name,
            explore={"trials": 48}, refine={"trials": 0},
        )  # fmt: skip
        found.append((conduct(config, Formula(surface, 0.004)), name))
    return found


@pytest.fixture(scope="module")
def records(storages: list[tuple[BaseStorage, str]]) -> list[StudyRecord]:
    return [read_study(*pair) for pair in storages]


@pytest.fixture(scope="module")
def studies(records: list[StudyRecord]) -> tuple[Compared, ...]:
    return compared(records)


def test_a_study_that_is_not_there_is_named(
    storages: list[tuple[BaseStorage, str]], tmp_path: Path
) -> None:
    with pytest.raises(reports.StudyUnreadable, match='"nowhere"'):
        reports.compare([storages[0], (storages[0][0], "nowhere")], tmp_path)


def test_a_study_without_trials_leaves_everything_open(records: list[StudyRecord]) -> None:
    empty = replace(records[1], trials=records[1].trials.iloc[:0])
    pair = compared([records[0], empty])
    assert {item.agreement for item in questions_data(pair)} == {OPEN}
    assert ranks_data(pair)[0].correlation is None
    assert "too few" in ranks_data(pair)[0].sentence


def test_what_differs_in_the_configurations_is_named(studies: tuple[Compared, ...]) -> None:
    one, again = studies[:2]
    config = again.record.config
    other = config | {"refine": config["refine"] | {"trials": 7}, "launcher": "far"}
    pair = [one, replace(again, record=replace(again.record, config=other))]
    assert differences_data(pair) == (("refine.trials", ("0", "7")), ("seed", ("0", "1")))
    pair = [one, replace(again, record=replace(again.record, config={}))]
    assert dict(differences_data(pair))["seed"] == ("0", "–")


def test_two_studies_of_one_name_are_told_apart(records: list[StudyRecord]) -> None:
    assert [study.title for study in compared([records[0], records[0]])] == ["one (1)", "one (2)"]


def test_the_same_surface_with_another_seed_agrees(studies: tuple[Compared, ...]) -> None:
    found = {item.question.name: item.agreement for item in questions_data(studies[:2])}
    assert found["encoder_layers"] == AGREE
    assert DIFFER not in found.values()


def test_a_study_that_tells_no_value_from_another_agrees_with_none(
    studies: tuple[Compared, ...],
) -> None:
    one, again = studies[:2]
    place = list(SIX).index("encoder_layers")
    verdict = again.verdicts[place]
    effects = tuple(replace(effect, as_good=True) for effect in verdict.effects)
    ignorant = list(again.verdicts)
    ignorant[place] = replace(verdict, verdict="undecided", effects=effects)
    found = questions_data((one, replace(again, verdicts=tuple(ignorant))))
    assert found[place].agreement == OPEN


def test_another_surface_differs_where_it_does(studies: tuple[Compared, ...]) -> None:
    items = {item.question.name: item for item in questions_data((studies[0], studies[2]))}
    assert items["encoder_layers"].agreement == DIFFER
    assert [transfer.value for transfer in items["encoder_layers"].transfers] == [4, 1]
    assert all(transfer.low > 0 for transfer in items["encoder_layers"].transfers)
    assert items["decoder_dim"].agreement != DIFFER


def test_shared_shapes_are_ranked_with_an_interval(records: list[StudyRecord]) -> None:
    copy = replace(
        records[0],
        name="copy",
        trials=records[0].trials.assign(wer=records[0].trials["wer"].astype(float) * 2),
    )
    pair = ranks_data(compared([records[0], copy]))[0]
    assert pair.configurations > 20
    assert pair.correlation == pytest.approx(1.0)
    assert pair.low == pytest.approx(1.0)
    equal = replace(copy, trials=copy.trials.assign(wer=np.float64(0.5)))
    assert ranks_data(compared([records[0], equal]))[0].correlation is None


def test_the_page_stands_alone(storages: list[tuple[BaseStorage, str]], tmp_path: Path) -> None:
    page = reports.compare(storages, tmp_path).html.read_text()
    assert "the studies agree on" in page
    assert page.count("winner, mean of") == 3
    assert page.count("<svg") == 6
    assert page.count("in points from each study’s mean, with 95 % intervals") == 6
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
