"""What `run` does around its workers, with workers that are told what to do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from rich.console import Console

from study import check, runner
from study.config import StudyConfig
from study.errors import InputError
from study.leases import claim
from study.progress import Watch
from study.storage import create_study
from tests.study.small_study import small_config
from tests.study.storages import ATTRIBUTES, tiny


def _console() -> Console:
    return Console(width=200, record=True, file=io.StringIO())


def test_the_last_trials_of_the_search_bring_workers_for_the_finalists_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    class Ended:
        gave_up = True

        def __init__(self, config: StudyConfig, workers: int) -> None:
            sizes.append(workers)

        def look(self, finished: int) -> bool:
            return False

    config = tiny(tmp_path)
    study = create_study(config, ATTRIBUTES)
    for _ in range(config.trials - 1):
        trial = claim(study)
        assert trial is not None
        trial.set_user_attr("outcome", "finished")
        study.tell(trial, 0.5)
    monkeypatch.setattr(runner, "Crew", Ended)
    for most in (3, 8):
        watch = Watch(study, config, _console())
        assert watch.unfinished == 1
        runner._train(config, study, watch, most)
    assert sizes == [3, 1 + config.finalist_trials]


def test_workers_that_give_up_leave_their_reasons_and_the_command_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path)
    log = config.folder / "logs" / "worker-0.log"
    log.parent.mkdir(parents=True)
    log.write_text("2026-01-01 ERROR study.worker: that was in an earlier run\n")

    class Full:
        """Workers that end because the disk is full."""

        gave_up = True

        def __init__(self, *_: Any) -> None:
            with log.open("a") as file:
                file.write("2026-01-02 ERROR study.worker: [/] has no space left\n")

        def look(self, finished: int) -> bool:
            return False

    monkeypatch.setattr(runner, "Crew", Full)
    console = _console()
    assert runner.run(config, console) == runner.FAILED
    said = " ".join(console.export_text().split())
    assert "A worker stopped: [/] has no space left The workers stopped with" in said
    assert "Run the same command again to go on." in said
    assert "earlier run" not in said


@pytest.mark.parametrize("kind", ["slurm", "ray"])
def test_a_machine_that_only_starts_workers_needs_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="there is no CUDA GPU here"):
        runner.preflight(tiny(tmp_path, "device=cuda"))
    graphs = ["device=cuda", "training.execution=graphs"]
    config = tiny(tmp_path, f"launcher={{kind: {kind}, workers: 2}}", *graphs)
    assert runner.preflight(config).type == "cpu"
    assert runner._hardware(config, "cpu") == f"machines that {kind} chose"
    assert "cores" in runner._hardware(tiny(tmp_path), "cpu")


@pytest.mark.parametrize("command", ["run", "check"])
def test_files_whose_names_hold_brackets_are_named_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    module, console = (runner if command == "run" else check), _console()
    line = "warning: Video title [dQw4w9WgXcQ].wav and [/x].wav are bad"
    monkeypatch.setattr(module, "open_dataset", lambda config: mock.Mock(fingerprint="abc"))
    monkeypatch.setattr(module, "describe_dataset", lambda dataset: [line])
    config = tiny(tmp_path, "anchors=[{name: 'a [b] [/c]'}]")
    if command == "run":
        runner._open_dataset(config, console)
    else:
        monkeypatch.setattr(check, "_extreme", mock.Mock(side_effect=InputError("enough")))
        with pytest.raises(InputError, match="enough"):
            check.check(config, console)
        assert "a [b] [/c]" in console.export_text(clear=False)
    assert line in console.export_text()
