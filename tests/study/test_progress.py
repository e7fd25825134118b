"""What is shown while a study runs, from trials as a storage has them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from study.config_file import load
from study.leases import claim
from study.progress import Watch, duration_in_words, shape_in_words, step
from study.storage import create_study

TINY = Path(__file__).parent.parent / "tiny_study.yaml"
SHAPE = {
    "encoder_layers": 12,
    "encoder_dim": 512,
    "attention_heads": 8,
    "conv_kernel_size": 31,
    "decoder_layers": 6,
    "decoder_dim": 2048,
}


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    config = load(TINY, [f"runs={tmp_path}", "training.evaluations=4"])
    study = create_study(config, {"corpus": {"fingerprint": "abc"}})
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    watch = Watch(study, config, console)
    for evaluations in (4, 1, 0):
        trial = claim(study)
        assert trial is not None
        trial.set_user_attr("config", SHAPE)
        trial.set_user_attr(
            "evaluations",
            [
                {
                    "epoch": 12.5,
                    "train_loss": 1.25,
                    "wer": 1.581,
                    "train_seconds": 16.0 * number,
                    "evaluate_seconds": 4.0,
                }
                for number in range(1, evaluations + 1)
            ],
        )
        if evaluations == 4:
            trial.set_user_attr("outcome", "finished")
            study.tell(trial, 0.125)
    watch.began -= 100
    return watch


def _shown(watch: Watch) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    watch.refresh()
    console.print(watch.render())
    return console.export_text()


def test_the_display_says_everything_within_80_columns(watch: Watch) -> None:
    text = _shown(watch)
    assert "1 of 11 trials" in text
    assert "12×512 h8 k31 + 6×2048" in text
    assert "1/4" in text
    assert "12.5" in text
    assert "1.25" in text
    assert "158.1%" in text
    assert "lowest WER so far: 12.5% on dev, trial 0" in text
    assert re.search(r"1 min 4\d s, about 6 min 30 s left", text)  # 80 s a trial, two at a time
    assert max(map(len, text.splitlines())) <= 80


def test_before_anything_is_known_nothing_is_estimated(tmp_path: Path) -> None:
    config = load(TINY, [f"runs={tmp_path}"])
    study = create_study(config, {"corpus": {"fingerprint": "abc"}})
    watch = Watch(study, config, Console(file=io.StringIO()))
    text = _shown(watch)
    assert "0 of 11 trials" in text
    assert "left" not in text
    assert "no trial has finished yet" in text


def test_a_trial_is_told_once(watch: Watch) -> None:
    watch.refresh()
    (line,) = watch.lines()
    assert line.startswith("trial 0   finished  WER  12.5%")
    assert "small  (1/11)" in line
    assert list(watch.lines()) == []


def test_a_trial_that_crashed_before_it_began_is_told_too(watch: Watch, tmp_path: Path) -> None:
    trial = claim(watch.study)
    assert trial is not None
    watch.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    watch.refresh()
    assert any("trial 3" in line and "fail" in line for line in watch.lines())


def test_names_that_hold_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    name = "a [b] [/c]"
    config = load(TINY, [f"runs={tmp_path}", f"anchors=[{{name: '{name}'}}]"])
    study = create_study(config, {"corpus": {"fingerprint": "abc"}})
    console = Console(width=200, record=True, file=io.StringIO())
    watch = Watch(study, config, console)
    trial = claim(study)
    assert trial is not None
    assert name in _shown(watch)
    trial.set_user_attr("remarks", [f"{name} is remarkable"])
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    step(watch)
    said = console.export_text()
    assert f"{name} is remarkable" in said
    assert f"fail       {name}  (1/11)" in said


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_a_shape_fits_a_column() -> None:
    assert len(shape_in_words(SHAPE)) <= 24
