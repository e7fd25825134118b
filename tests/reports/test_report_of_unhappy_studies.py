"""Studies in which something is missing, wrong or hostile still get a right, readable report."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

import reports
from tests.reports.page_outline import outline
from tests.reports.simulated import ANCHORS, SimulatedStudy, config, corpus, draw, simulated_trial

Simulate = Callable[..., SimulatedStudy]


pytestmark = pytest.mark.usefixtures("few_resamples")


def write(simulated: SimulatedStudy) -> reports.ReportFiles:
    folder = simulated.trials_folder.parent / "report"
    return reports.write(simulated.storage, simulated.name, folder, simulated.trials_folder)


def test_a_study_without_trials(empty_study: SimulatedStudy) -> None:
    files = write(empty_study)
    page = outline(files)
    assert "the study holds no trials" in page.text
    assert "How many encoder layers?" in page.text and "searched 1, 2, 3, 4" in page.text
    assert files.answer.best is None and files.answer.counts == {}
    assert files.figures == ()
    assert list(pd.read_csv(files.trials_csv)["number"]) == []


def test_a_study_of_waiting_trials_only(empty_study: SimulatedStudy) -> None:
    for name, params in ANCHORS.items():
        attributes = {"phase": "explore", "anchor": name}
        empty_study.study.enqueue_trial(params, user_attrs=attributes)
    files = write(empty_study)
    page = outline(files)
    assert "2 waiting of 2 trials" in page.text
    assert [(a.name, a.wer, a.outcomes) for a in files.answer.anchors] == [
        ("conformer-s", None, ("waiting",)),
        ("espnet-ksponspeech", None, ("waiting",)),
    ]
    table = pd.read_csv(files.trials_csv)
    assert list(table["state"]) == ["WAITING", "WAITING"]
    assert list(table["encoder_dim"]) == [64, 96]  # what is planned
    assert table["wer"].isna().all()


def test_one_trial(simulate: Simulate) -> None:
    simulated = simulate(explore=1, refine=0)
    files = write(simulated)
    page = outline(files)
    assert files.answer.best is not None and files.answer.best.anchor == "conformer-s"
    assert "the anchor conformer-s" in page.text
    assert "Importances need at least 4 finished explore trials" in page.text
    assert {path.stem for path in files.figures} == {"effects", "cost", "curves", "recognition"}


@pytest.mark.parametrize("outcome", ["pruned", "crashed", "diverged", "out_of_memory"])
def test_no_trial_finished(empty_study: SimulatedStudy, outcome: str) -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, outcome=outcome, error="E: <b>") for _ in range(3)]
    empty_study.study.add_trials(trials)
    files = write(empty_study)
    page = outline(files)
    assert files.answer.best is None and files.answer.results == 0
    assert files.answer.counts == {outcome: 3}
    assert f"3 {outcome.replace('_', ' ')}" in page.text
    assert "E: <b>" in page.text
    table = pd.read_csv(files.trials_csv)
    assert set(table["outcome"]) == {outcome}
    assert not table["result"].any()
    assert table["wer"].notna().all() == (outcome != "crashed")


def test_a_diverged_trial_is_never_the_best(empty_study: SimulatedStudy) -> None:
    """Its penalty may be lower than an honest WER above 100 %."""
    rng = random.Random(0)
    trials = [
        simulated_trial(draw(rng), rng, outcome="diverged"),
        simulated_trial(draw(rng), rng, wer=1.37),
        simulated_trial(draw(rng), rng, wer=1.52),
    ]
    empty_study.study.add_trials(trials)
    files = write(empty_study)
    page = outline(files)
    assert files.answer.best is not None
    assert (files.answer.best.number, files.answer.best.wer) == (1, 1.37)
    assert "137.00 %" in page.text and "100.00 %" not in page.text


def test_values_that_are_not_finite(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    wrong = simulated_trial(draw(rng), rng, wer=math.inf)
    pruned = simulated_trial(draw(rng), rng, outcome="pruned", wer=math.nan)
    strange = simulated_trial(
        draw(rng), rng, wer=0.5, train_seconds=math.nan, parameters=0, flops_per_second=math.inf
    )
    empty_study.study.add_trials([wrong, pruned, strange])
    files = write(empty_study)
    outline(files)
    assert files.answer.best is not None and files.answer.best.number == 2
    assert files.answer.counts == {"diverged": 1, "finished": 1, "pruned": 1}
    assert list(pd.read_csv(files.trials_csv)["result"]) == [False, False, True]


def test_a_perfect_trial(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, wer=wer) for wer in (0.0, 0.0, 0.1, 0.2, 0.3)]
    empty_study.study.add_trials(trials)
    files = write(empty_study)
    assert "0.00 %" in outline(files).text
    assert files.answer.best is not None and files.answer.best.number == 0  # of equals, the first


def test_a_value_seen_once_is_no_answer(empty_study: SimulatedStudy) -> None:
    """Not even where its one trial is by far the best."""
    rng = random.Random(0)
    trials = [simulated_trial({**draw(rng), "decoder_dim": 32 + 32 * (i % 2)}, rng, wer=0.3)
              for i in range(12)]  # fmt: skip
    for trial in trials:
        trial.value = 0.3 + rng.gauss(0, 0.02)
    trials.append(simulated_trial({**draw(rng), "decoder_dim": 96}, rng, wer=0.1))
    empty_study.study.add_trials(trials)
    files = write(empty_study)
    page = outline(files)
    assert "the lowest of 1 explore trials" in files.html.read_text(encoding="utf-8")
    assert "How wide is the decoder?" in page.text
    (decoder,) = (q for q in files.answers.questions if q.name == "decoder_dim")
    assert decoder.verdict in ("undecided", "no effect seen")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_trials_take_less_than_a_minute(tmp_path: Path) -> None:
    """On two cores that have nothing else to do."""
    rng = random.Random(0)
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), study_name="many")
    study.set_user_attr("config", config())
    study.set_user_attr("corpus", corpus())
    outcomes = ["finished"] * 17 + ["pruned"] * 5 + ["diverged", "crashed"]
    study.add_trials(
        [
            simulated_trial(
                draw(rng), rng, phase="refine" if i % 2 else "explore", outcome=rng.choice(outcomes)
            )
            for i in range(10_000)
        ]
    )
    started = time.perf_counter()
    files = reports.write(study._storage, "many", tmp_path)
    took = time.perf_counter() - started
    assert len(pd.read_csv(files.trials_csv)) == 10_000
    assert took < 60, took
    assert files.html.stat().st_size < 10e6
    assert "about 1,000 are drawn" in files.html.read_text(encoding="utf-8")


def test_all_trials_alike(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    params = draw(rng)
    trials = [simulated_trial(params, rng, wer=0.25) for _ in range(6)]
    empty_study.study.add_trials(trials)
    files = write(empty_study)
    assert "have the same WER, so there is nothing to explain" in outline(files).text
    assert files.answer.seed_spread == 0.0


def test_hostile_text_is_shown_and_not_obeyed(simulate: Simulate) -> None:
    simulated = simulate(explore=3, refine=0)
    evil = '<script>alert("x")</script>|`$\\frac{1}{0}$</svg></style>'
    rng = random.Random(1)
    trial = simulated_trial(draw(rng), rng, anchor=evil, wer=0.001, device=evil)
    simulated.study.add_trial(trial)
    simulated.study.add_trial(simulated_trial(draw(rng), rng, outcome="crashed", error=evil))
    folder = simulated.trials_folder / "3"
    folder.mkdir()
    lines = [
        {"id": evil, "reference": f"{evil} مرحبا بالعالم", "hypothesis": "مرحبا \u202eabc \x07"},
        {"id": "b", "reference": "", "hypothesis": ""},
        {"id": "c", "reference": "안녕 하세요", "hypothesis": "안녕", "errors": 1},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "hypotheses.jsonl").write_text(text + '\n{"id": "torn', encoding="utf-8")
    files = write(simulated)
    page = outline(files)
    assert page.text.count('<script>alert("x")</script>') >= 5
    assert "مرحبا" in page.text and "안녕" in page.text
    assert "1 line of its transcripts could not be read" in page.text
    html = files.html.read_text(encoding="utf-8")
    assert "<bdi>" in html and 'dir="auto"' in html and "\x07" not in html
    assert "<script" not in html
    markdown = files.markdown.read_text(encoding="utf-8")
    assert "<script" not in markdown and "<svg" not in markdown


def test_passwords_never_reach_the_report(simulate: Simulate) -> None:
    simulated = simulate(explore=2, refine=0)
    rng = random.Random(1)
    error = "OperationalError: postgresql://tuner:hunter2@db/x?password=hunter2 went away"
    simulated.study.add_trial(simulated_trial(draw(rng), rng, outcome="crashed", error=error))
    files = write(simulated)
    for path in (files.html, files.markdown, files.trials_csv):
        assert "hunter2" not in path.read_text(encoding="utf-8")
        assert "://***@" in path.read_text(encoding="utf-8")


def test_a_study_from_elsewhere(tmp_path: Path) -> None:
    """No attributes at all, names that collide with ours, a categorical one, running trials."""
    storage = f"sqlite:///{tmp_path}/foreign.db"
    study = optuna.create_study(storage=storage, study_name="foreign", direction="minimize")
    for i in range(6):
        study.add_trial(
            create_trial(
                params={"seed": float(i), "optimizer": "adam", "encoder_dim": 64.5 + i},
                distributions={
                    "seed": FloatDistribution(0, 10),
                    "optimizer": CategoricalDistribution(["adam", "sgd"]),
                    "encoder_dim": FloatDistribution(64, 80),
                },
                value=0.3 + 0.01 * i,
                intermediate_values={1: 0.5, 4: 0.3},
            )
        )
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"evaluations": "?"}))
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0, constraints={"c": 1.0}))
    study.ask()
    files = reports.write(storage, "foreign", tmp_path / "report")
    page = outline(files)
    assert "stored no description of its corpus" in page.text
    assert "The study stored no configuration" in page.text
    assert "name no phase" in page.text
    assert files.answer.counts == {"crashed": 1, "finished": 6, "infeasible": 1, "running": 1}
    assert files.answer.best is not None and files.answer.best.values["encoder_dim"] == 64.5
    table = pd.read_csv(files.trials_csv)
    assert list(table["param_seed"][:6]) == [0, 1, 2, 3, 4, 5]
    assert table["seed"].isna().all()


def test_old_attributes_of_the_wrong_kind(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    study = empty_study.study
    trial = simulated_trial(
        draw(rng), rng, evaluations=[3, {"wer": "low"}], config="?", seed="7", parameters="many"
    )
    study.add_trial(trial)
    for key in ("corpus", "versions", "config"):
        study.set_user_attr(key, ["not", "a", "mapping"])
    files = write(empty_study)
    outline(files)
    assert files.answer.best is not None and files.answer.best.values["encoder_layers"] is not None


def test_a_study_that_is_not_there(empty_study: SimulatedStudy, tmp_path: Path) -> None:
    with pytest.raises(reports.StudyUnreadable, match="it holds: laptop"):
        reports.write(empty_study.storage, "desktop", tmp_path / "report")
    missing = tmp_path / "missing.db"
    with pytest.raises(reports.StudyUnreadable, match="no study database"):
        reports.write(f"sqlite:///{missing}", "laptop", tmp_path / "report")
    assert not missing.exists()  # asking must not create it
    assert not (tmp_path / "report").exists()


def test_a_study_that_maximises(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/accuracy.db"
    optuna.create_study(storage=storage, study_name="accuracy", direction="maximize")
    with pytest.raises(reports.StudyUnreadable, match="does not minimise"):
        reports.write(storage, "accuracy", tmp_path / "report")


def test_a_finalist_without_transcripts_is_named_on_both_pages(empty_study: SimulatedStudy) -> None:
    rng = random.Random(0)
    trials = [simulated_trial(draw(rng), rng, phase="finalist", finalist=label, wer=wer)
              for label, wer in (("trial 7", 0.2), ("trial 8", 0.3))]  # fmt: skip
    empty_study.study.add_trials(trials)
    lines = [
        {"id": f"u{i}", "speaker": "s", "reference": "one two", "hypothesis": "one", "errors": 1,
         "words": 2}
        for i in range(30)
    ]  # fmt: skip
    place = empty_study.trials_folder / "0"
    place.mkdir(parents=True)
    (place / "test.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    files = write(empty_study)
    missing = "trial 8 left no transcripts of test and is not compared."
    assert missing in outline(files).text
    markdown = files.markdown.read_text()
    assert missing in markdown
    assert "P values are corrected by Holm" in markdown
