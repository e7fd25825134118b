"""What `status` says of studies that run, were interrupted, are finished, or never began."""

from __future__ import annotations

import io
import re
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from study.budget import LEFT_OUT
from study.config import StudyConfig
from study.config_file import load
from study.finalists import enqueue
from study.leases import claim, hand_back
from study.status import Status, follow, show
from study.storage import create_study
from tests.command_line import CommandLine

TINY = Path(__file__).parent.parent / "tiny_study.yaml"
SHAPE = {
    "encoder_layers": 12,
    "encoder_dim": 512,
    "attention_heads": 8,
    "conv_kernel_size": 31,
    "decoder_layers": 6,
    "decoder_dim": 2048,
}


def _config(tmp_path: Path, *overrides: str) -> StudyConfig:
    return load(TINY, [f"runs={tmp_path}", *overrides])


def _begin(config: StudyConfig) -> optuna.Study:
    return create_study(config, {"corpus": {"fingerprint": "abc"}})


def _train(
    study: optuna.Study, config: StudyConfig, evaluations: int, *, drawn: bool = False
) -> optuna.Trial:
    """A worker takes a trial, and evaluates it so often: a large one, or the one that was drawn."""
    trial = claim(study)
    assert trial is not None
    shape = {name: d.suggest(trial) for name, d in config.space.items()} if drawn else SHAPE
    trial.set_user_attr("config", shape)
    entries: list[dict[str, Any]] = [
        {"epoch": n, "train_loss": 1.0, "wer": 0.5 / n, "train_seconds": 30.0 * n,
         "evaluate_seconds": 10.0}
        for n in range(1, evaluations + 1)
    ]  # fmt: skip
    trial.set_user_attr("evaluations", entries)
    return trial


def _end(study: optuna.Study, trial: optuna.Trial, outcome: str, state: TrialState) -> None:
    trial.set_user_attr("outcome", outcome)
    study.tell(trial, 0.25 if state == TrialState.COMPLETE else None, state=state)


def _text(study: optuna.Study, config: StudyConfig, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    show(study, config, console, "tests/tiny_study.yaml")
    return console.export_text()


@pytest.fixture
def running(tmp_path: Path) -> tuple[optuna.Study, StudyConfig]:
    """One finished, one pruned, one out of memory, one half-way; two more wait."""
    config = _config(tmp_path)
    study = _begin(config)
    _end(study, _train(study, config, 2), "finished", TrialState.COMPLETE)
    _end(study, _train(study, config, 1), "pruned", TrialState.PRUNED)
    _end(study, _train(study, config, 0), "out_of_memory", TrialState.COMPLETE)
    _train(study, config, 1)
    return study, config


def test_a_running_study_is_a_table_of_80_columns(
    running: tuple[optuna.Study, StudyConfig],
) -> None:
    text = _text(*running)
    assert max(map(len, text.splitlines())) <= 80
    assert "tiny · running · 1 worker alive" in text
    assert "3 of 11 trials" in text
    assert "lowest WER so far: 25.0% on dev, trial 0: 12×512 h8 k31 + 6×2048" in text
    rows = [line.split() for line in text.splitlines() if re.match(r" +\d+ (explore|refine)", line)]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0][1:3] == ["explore", "finished"]
    assert rows[0][-6:] == ["2/2", "1", "min", "20", "s", "small"]
    assert rows[1][2] == "pruned"
    assert rows[2][2:5] == ["out", "of", "memory"]
    assert rows[3][2] == "running"
    assert "50.0%" in rows[3]
    assert "waiting: 3 refine" in text
    assert "left" in text


def test_the_anchors_name_has_room_on_a_wide_terminal(
    running: tuple[optuna.Study, StudyConfig],
) -> None:
    assert " small" in _text(*running, width=120)


def test_the_time_left_is_that_of_the_trials_so_far(tmp_path: Path) -> None:
    config = _config(tmp_path)
    study = _begin(config)
    _end(study, _train(study, config, 2), "finished", TrialState.COMPLETE)  # 80 seconds
    assert "left" not in _text(study, config)  # nobody works on it
    for worker in ("one:1", "other:1"):
        _train(study, config, 0).set_user_attr("worker", worker)
    assert "about 6 min 40 s left" in _text(study, config)  # 10 trials, two at a time


def test_trials_that_were_left_out_took_no_time_and_take_none(tmp_path: Path) -> None:
    """What is still to come takes as long as what was trained."""
    config = _config(tmp_path, "refine.trials=9")
    study = _begin(config)
    for _ in range(4):
        _end(study, _train(study, config, 2), "finished", TrialState.COMPLETE)  # 80 seconds each
    for _ in range(8):
        _end(study, _train(study, config, 0), LEFT_OUT, TrialState.FAIL)
    _train(study, config, 0)
    assert "about 6 min 40 s left" in _text(study, config)  # this one and four finalists


def test_a_worker_that_is_gone_is_not_alive(running: tuple[optuna.Study, StudyConfig]) -> None:
    study, config = running
    lost = study.trials[3]
    lease = lost.user_attrs["lease"]
    study._storage.set_trial_user_attr(lost._trial_id, "lease", {**lease, "machine": "elsewhere"})
    assert "1 worker alive" in _text(study, config)  # for all that one look can tell
    study._storage.set_trial_user_attr(lost._trial_id, "lease", {**lease, "process": 2**22 + 1})
    text = _text(study, config)
    assert "tiny · interrupted" in text
    assert "alive" not in text
    assert re.search(r"3 explore +lost", text)
    assert "to go on: python -m study run tests/tiny_study.yaml" in text


def test_an_interrupted_study_says_how_to_go_on(running: tuple[optuna.Study, StudyConfig]) -> None:
    study, config = running
    hand_back(study, study.trials[3]._trial_id)
    text = _text(study, config)
    assert "tiny · interrupted" in text
    assert "waiting: 1 explore, 3 refine" in text


def test_a_trial_that_is_paused_at_a_rung_is_in_the_table(tmp_path: Path) -> None:
    config = _config(tmp_path)
    study = _begin(config)
    trial = _train(study, config, 1)
    trial.set_user_attr("paused", 1)
    hand_back(study, trial._trial_id)
    text = _text(study, config)
    assert re.search(r"0 explore +paused", text)
    assert "waiting: 3 explore, 3 refine" in text


def test_a_finished_study_says_so_and_names_its_report(tmp_path: Path) -> None:
    config = _config(
        tmp_path, "explore.trials=1", "refine.trials=0", "anchors=[]", "finalists.top=0"
    )
    study = _begin(config)
    _end(study, _train(study, config, 2), "finished", TrialState.COMPLETE)
    text = _text(study, config)
    assert "tiny · finished" in text
    assert "1 of 1 trials" in text
    assert "python -m study report tests/tiny_study.yaml" in text
    page = config.folder / "report" / "index.html"
    page.parent.mkdir()
    page.touch()
    assert "report: " in _text(study, config)


def test_once_all_is_done_the_winner_is_that_of_the_finalists(tmp_path: Path) -> None:
    """Whatever the lowest WER of the search was: it is partly luck."""
    config = _config(tmp_path, "explore.trials=1", "refine.trials=0", "anchors=[]")
    study = _begin(config)
    _end(study, _train(study, config, 2, drawn=True), "finished", TrialState.COMPLETE)
    assert enqueue(config, study) == 2
    for _ in range(2):
        trial = _train(study, config, 1, drawn=True)
        trial.set_user_attr("test_wer", 0.375)
        _end(study, trial, "finished", TrialState.COMPLETE)
    text = _text(study, config)
    assert "winner: trial 1 (a training of trial 0): 25.0% WER on dev, 37.5% on test" in text
    assert "lowest" not in text


def test_a_search_without_its_finalists_is_not_finished(tmp_path: Path) -> None:
    config = _config(tmp_path, "explore.trials=1", "refine.trials=0", "anchors=[]")
    study = _begin(config)
    _end(study, _train(study, config, 2), "finished", TrialState.COMPLETE)
    text = _text(study, config)
    assert "tiny · interrupted" in text
    assert "1 of 3 trials" in text


def test_a_search_that_went_on_is_not_finished_before_its_finalists_are_chosen_anew(
    tmp_path: Path,
) -> None:
    options = ["refine.trials=0", "anchors=[]"]
    config = _config(tmp_path, "explore.trials=1", *options)
    study = _begin(config)
    _end(study, _train(study, config, 2, drawn=True), "finished", TrialState.COMPLETE)
    assert enqueue(config, study) == 2
    for _ in range(2):
        _end(study, _train(study, config, 2, drawn=True), "finished", TrialState.COMPLETE)
    assert "tiny · finished" in _text(study, config)
    more = _config(tmp_path, "explore.trials=2", *options)
    study = _begin(more)
    assert "3 of 6 trials" in _text(study, more)
    _end(study, _train(study, more, 2, drawn=True), "finished", TrialState.COMPLETE)
    assert "tiny · interrupted" in _text(study, more)
    for _ in range(enqueue(more, study)):
        _end(study, _train(study, more, 2, drawn=True), "finished", TrialState.COMPLETE)
    assert "tiny · finished" in _text(study, more)


def test_what_a_study_was_begun_with_counts_and_not_its_file_of_today(tmp_path: Path) -> None:
    study = _begin(_config(tmp_path, "finalists.top=0", "finalists.anchors=false"))
    assert "0 of 7 trials" in _text(study, _config(tmp_path, "refine.trials=90"))


def test_a_low_terminal_shows_what_is_under_way_and_the_latest(
    running: tuple[optuna.Study, StudyConfig],
) -> None:
    study, config = running
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(Status.of(study, config, console, "").render(rows=2))
    text = console.export_text()
    assert "… 2 earlier trials" in text
    assert re.findall(r"^ +(\d) ", text, re.M) == ["2", "3"]


def test_what_is_not_a_terminal_is_told_in_lines(tmp_path: Path) -> None:
    config = _config(
        tmp_path, "explore.trials=2", "refine.trials=0", "anchors=[]", "finalists.top=0"
    )
    study = _begin(config)
    first = _train(study, config, 2)
    output = io.StringIO()
    thread = threading.Thread(
        target=follow,
        args=(study, config, Console(file=output, width=80), "tiny.yaml"),
        daemon=True,
    )
    thread.start()
    _wait_for("tiny is running: 0 of 2 trials, 1 worker alive", output)
    _end(study, first, "finished", TrialState.COMPLETE)
    _wait_for("trial 0   finished  WER  25.0%", output)
    _wait_for("tiny is interrupted: 1 of 2 trials", output)
    _end(study, _train(study, config, 2), "finished", TrialState.COMPLETE)
    thread.join(20)
    assert not thread.is_alive()
    assert "tiny is finished: 2 of 2 trials, winner: trial 0: 25.0% WER on dev" in output.getvalue()
    assert "\x1b" not in output.getvalue()


def _wait_for(text: str, output: io.StringIO) -> None:
    deadline = time.monotonic() + 20
    while text not in output.getvalue():
        assert time.monotonic() < deadline, output.getvalue()
        time.sleep(0.05)


@pytest.mark.parametrize("command", ["status", "dashboard"])
@pytest.mark.parametrize("storage", [None, "sqlite:///{}/other.db"])
def test_a_study_that_never_began_is_one_sentence(
    tmp_path: Path, command_line: CommandLine, command: str, storage: str | None
) -> None:
    options = ["-o", f"storage={storage.format(tmp_path)}"] if storage else []
    said = command_line(command, TINY, "-o", f"runs={tmp_path}", *options)
    assert said.code == 2
    assert said.output == ""
    assert said.errors.startswith("error: the study 'tiny' has not begun")
    assert said.errors.count("\n") == 1


def test_names_that_hold_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    name = "a [b] [/c]"
    config = _config(tmp_path, f"anchors=[{{name: '{name}'}}]")
    study = _begin(config)
    trial = _train(study, config, 1)
    console = Console(width=120, record=True, file=io.StringIO())
    show(study, config, console, "")
    assert name in console.export_text()
    assert hand_back(study, trial._trial_id)
    show(study, config, console, "-o 'search.x=[b]'")
    assert "run -o 'search.x=[b]'" in console.export_text()
