"""One trial: how it can end, and what is recorded of each end."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from model.recogniser import Recogniser
from study import trial as trial_module
from study import worker
from study.config import StudyConfig
from study.config_file import load
from study.gpu_sharing import SharedGpu
from study.leases import Lease, claim
from study.storage import create_study, open_study, search_is_over
from study.tracking.runs import Tracker
from study.training.loop import Interrupted
from study.training.result import Evaluation
from study.training.step import Diverged
from study.trial import Laboratory, _begin, run_trial, settle
from study.worker import open_dataset
from tests.speech import write_corpus
from tests.study.test_gpu_sharing import another_worker

TINY = Path(__file__).parent.parent / "tiny_study.yaml"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    folder = tmp_path_factory.mktemp("trial")
    corpus = write_corpus(folder / "corpus")
    return load(
        TINY,
        [
            f"runs={folder / 'runs'}",
            f"corpus={{kind: manifest, folder: {corpus}}}",
            "training.evaluations=4",
            "refine.survivors=0",
            "tracking.enabled=false",
        ],
    )


@pytest.fixture
def laboratory(config: StudyConfig, tmp_path: Path) -> Laboratory:
    own = config.model_copy(update={"runs": tmp_path})
    dataset = open_dataset(config)
    study = create_study(own, {"corpus": {"fingerprint": dataset.fingerprint}})
    return Laboratory(
        config=own,
        dataset=dataset,
        study=study,
        tracker=Tracker(None),
        device=torch.device("cpu"),
        code="code",
        interrupted=lambda: False,
    )


def _evaluation(number: int, wer: float) -> Evaluation:
    return Evaluation(
        evaluation=number, step=number, epoch=number, train_loss=1.0, dev_loss=wer, wer=wer,
        ctc_wer=wer, cer=wer, learning_rate=1e-3, real_time_factor=0.1,
        train_seconds=2.0 * number, evaluate_seconds=0.5,
    )  # fmt: skip


Script = list[float | BaseException]


@pytest.fixture
def perform(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Script], tuple[str, FrozenTrial]]:
    """Run the next waiting trial on a training that follows a script."""

    def act(script: Script) -> tuple[str, FrozenTrial]:
        def scripted(*arguments: Any, **options: Any) -> Iterator[Evaluation]:
            for number, event in enumerate(script, start=1):
                if isinstance(event, BaseException):
                    raise event
                yield _evaluation(number, event)

        monkeypatch.setattr(trial_module, "train", scripted)
        claimed = claim(laboratory.study)
        assert claimed is not None
        outcome = run_trial(laboratory, claimed)
        return outcome, laboratory.study.trials[claimed.number]

    return act


Perform = Callable[[Script], tuple[str, FrozenTrial]]


@pytest.mark.parametrize(
    ("script", "outcome", "state", "value"),
    [
        ([0.9, 0.3, 0.4], "finished", TrialState.COMPLETE, 0.3),
        ([0.9, 0.5, Diverged("loss nan")], "diverged", TrialState.COMPLETE, 1.0),
        ([1.3, Diverged("loss nan")], "diverged", TrialState.COMPLETE, 1.3),
        ([torch.OutOfMemoryError("40 GiB")], "out_of_memory", TrialState.COMPLETE, 1.0),
        ([MemoryError()], "out_of_memory", TrialState.COMPLETE, 1.0),
        ([0.9, RuntimeError("broken")], "crashed", TrialState.FAIL, None),
        ([0.9, OSError("disk full")], "crashed", TrialState.FAIL, None),
        ([0.9, Interrupted()], "stopped", TrialState.WAITING, None),
    ],
)
def test_each_end_has_its_state_and_value(
    perform: Perform, script: Script, outcome: str, state: TrialState, value: float | None
) -> None:
    found, trial = perform(script)
    assert found == outcome
    assert trial.state == state
    assert trial.value == value
    if state.is_finished():
        assert trial.user_attrs["outcome"] == outcome
        violated = trial.constraints["could_not_be_trained"] > 0
        assert violated == (outcome in ("diverged", "out_of_memory"))


@pytest.mark.parametrize("end", [RuntimeError("its files were another's"), Interrupted()])
def test_how_a_trial_ends_that_another_has_by_now_is_not_for_us_to_say(
    perform: Perform, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    begin = trial_module._begin

    def taken(laboratory: Laboratory, trial: optuna.Trial, lease: Lease) -> Any:
        begun = begin(laboratory, trial, lease)
        trial.set_user_attr("lease", {**trial.user_attrs.get("lease", {}), "machine": "elsewhere"})
        return begun

    monkeypatch.setattr(trial_module, "_begin", taken)
    outcome, trial = perform([0.9, end])
    assert outcome == "lost"
    assert trial.state == TrialState.RUNNING
    assert trial.user_attrs["lease"]["machine"] == "elsewhere"


def test_what_could_not_be_trained_is_never_best(perform: Perform, laboratory: Laboratory) -> None:
    perform([Diverged("loss nan")])
    with pytest.raises(ValueError, match="feasible"):
        _ = laboratory.study.best_trial
    perform([1.7])  # a model that inserts more than there is
    assert laboratory.study.best_trial.number == 1


def test_a_crash_leaves_its_reason(perform: Perform) -> None:
    _, trial = perform([RuntimeError("the tokenizer fell over")])
    assert "the tokenizer fell over" in trial.user_attrs["error"]
    assert "Traceback" in trial.user_attrs["error"]


def test_a_trial_is_paused_at_its_rung_and_pruned_if_nothing_promotes_it(
    perform: Perform, laboratory: Laboratory
) -> None:
    for _ in range(4):  # the anchor and the sample
        assert perform([0.9, 0.2, 0.1, 0.1])[0] == "finished"
    outcome, trial = perform([0.1, 0.8, 0.1, 0.1])
    assert outcome == "paused"
    assert trial.state == TrialState.WAITING
    assert trial.intermediate_values == {1: 0.1, 2: 0.8}
    assert trial.user_attrs["paused"] == 2
    assert trial.user_attrs["train_seconds"] == 4
    laboratory.study._storage.set_trial_user_attr(trial._trial_id, "worker", "another:1")
    settle(laboratory)  # two trials still wait, and could promote it
    assert laboratory.study.trials[trial.number].state == TrialState.WAITING
    for _ in range(2):
        assert perform([0.9, 0.1, 0.1, 0.1])[0] == "finished"
    assert claim(laboratory.study) is None
    assert not search_is_over(laboratory.study.trials)
    settle(laboratory)
    settle(laboratory)
    trial = laboratory.study.trials[trial.number]
    assert trial.state == TrialState.PRUNED
    assert trial.value == 0.8
    assert trial.user_attrs["outcome"] == "pruned"
    assert trial.user_attrs["worker"] == "another:1"  # who trained it, not who ended it
    assert len(trial.user_attrs["evaluations"]) == 2
    assert search_is_over(laboratory.study.trials)


def test_a_paused_trial_that_turns_out_promising_goes_on_from_its_checkpoint(
    perform: Perform, laboratory: Laboratory
) -> None:
    for wer in (0.1, 0.2, 0.5, 0.6):
        perform([0.9, wer, wer, wer])
    outcome, paused = perform([0.9, 0.3, 0.1, 0.1])
    assert outcome == "paused"
    assert perform([0.9, 0.7])[0] == "paused"  # now it is the third of six
    outcome, promoted = perform([0.9, 0.3, 0.25, 0.24])
    assert promoted.number == paused.number
    assert outcome == "finished"
    assert promoted.value == 0.24
    assert promoted.user_attrs["seed"] == paused.user_attrs["seed"]
    assert (promoted.user_attrs["promoted"], promoted.user_attrs["paused"]) == (2, None)
    assert list(promoted.intermediate_values.values()) == [0.9, 0.3, 0.25, 0.24]


def test_a_paused_trial_is_not_settled_while_another_runs(
    perform: Perform, laboratory: Laboratory
) -> None:
    for _ in range(4):
        perform([0.9, 0.2, 0.1, 0.1])
    perform([0.1, 0.8])
    for _ in range(2):
        assert claim(laboratory.study) is not None
    settle(laboratory)
    assert laboratory.study.trials[4].state == TrialState.WAITING


def test_the_sampler_learns_from_a_paused_trial_as_from_one_that_was_pruned(
    perform: Perform, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[FrozenTrial]] = []
    sample = optuna.samplers.TPESampler.sample_relative

    def spy(self: Any, study: optuna.Study, *rest: Any) -> dict[str, Any]:
        seen.append(study.trials)
        return sample(self, study, *rest)

    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_relative", spy)
    for _ in range(4):
        perform([0.9, 0.2, 0.1, 0.1])
    perform([0.1, 0.8])
    perform([0.1, 0.1])
    known = [trial.state for trial in seen[-1]]
    assert known == [TrialState.COMPLETE] * 4 + [TrialState.PRUNED, TrialState.RUNNING]
    assert seen[-1][4].constraints == {"could_not_be_trained": 0.0}


def test_a_configuration_drawn_again_is_another_seed_of_it(laboratory: Laboratory) -> None:
    study = laboratory.study
    study.enqueue_trial(
        study.trials[1].system_attrs["fixed_params"], user_attrs={"phase": "refine"}
    )
    known = []
    while (claimed := claim(study)) is not None:
        _begin(laboratory, claimed, Lease(study, claimed._trial_id))
        known.append(study.trials[claimed.number])
    assert known[1].params == known[-1].params
    assert known[1].user_attrs["config"] == known[-1].user_attrs["config"]
    assert known[1].user_attrs["seed"] != known[-1].user_attrs["seed"]
    assert len({trial.user_attrs["identity"] for trial in known}) == 8  # none is trained twice


def test_an_interrupted_trial_goes_on_under_its_number(
    perform: Perform, laboratory: Laboratory
) -> None:
    first, trial = perform([0.9, 0.8, Interrupted()])
    parameters, seed = trial.params, trial.user_attrs["seed"]
    outcome, again = perform([0.9, 0.8, 0.7, 0.6])  # a resumed training brings its past along
    assert (first, outcome) == ("stopped", "finished")
    assert again.number == trial.number
    assert (again.params, again.user_attrs["seed"]) == (parameters, seed)
    assert list(again.intermediate_values.values()) == [0.9, 0.8, 0.7, 0.6]
    assert again.user_attrs["train_seconds"] == 8
    assert len(laboratory.study.trials) == 7


def test_a_trial_that_was_interrupted_after_it_passed_a_rung_goes_on(
    perform: Perform, laboratory: Laboratory
) -> None:
    """Whatever came to the rung while it waited: undisturbed, it would not have been asked."""
    for wer in (0.2, 0.3, 0.4, 0.5):
        perform([0.9, wer, wer, wer])
    assert perform([0.9, 0.25, Interrupted()])[0] == "stopped"
    for _ in range(4):
        better = asdict(_evaluation(2, 0.1))
        laboratory.study.add_trial(
            optuna.trial.create_trial(
                value=0.1, user_attrs={"phase": "refine", "evaluations": [better, better]}
            )
        )
    outcome, trial = perform([0.9, 0.25, 0.25, 0.25])
    assert (outcome, trial.number) == ("finished", 4)


def test_what_a_trial_is_is_recorded(perform: Perform, laboratory: Laboratory) -> None:
    _, trial = perform([0.5])
    attributes = trial.user_attrs
    assert attributes["config"]["encoder_dim"] == trial.params["encoder_dim"]
    assert attributes["config"]["learning_rate"] == trial.params["learning_rate"]
    assert attributes["config"]["decoder_heads"] == 2
    assert attributes["parameters"] > 1000
    assert attributes["flops_per_second"] > 1e5
    assert attributes["anchor"] == "small"
    assert (laboratory.config.folder / "trials" / "0" / "config.json").is_file()
    _, other = perform([0.5])
    assert other.user_attrs["seed"] != attributes["seed"]
    assert other.user_attrs["identity"] != attributes["identity"]


def test_the_network_that_is_trained_is_the_one_that_was_proposed(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, Any]] = []

    def spy(network: Any, training: Any, *rest: Any, **options: Any) -> Iterator[Evaluation]:
        seen.append((network, training))
        yield _evaluation(1, 0.5)

    monkeypatch.setattr(trial_module, "train", spy)
    while (claimed := claim(laboratory.study)) is not None:
        run_trial(laboratory, claimed)
    trials = laboratory.study.trials
    assert len(seen) == len(trials) == 7
    for (network, training), trial in zip(seen, trials, strict=True):
        for name, value in trial.params.items():
            assert getattr(training if name == "learning_rate" else network, name) == value


def test_a_trial_trains_for_real(laboratory: Laboratory) -> None:
    claimed = claim(laboratory.study)
    assert claimed is not None
    assert run_trial(laboratory, claimed) == "finished"
    trial = open_study(laboratory.config).trials[0]
    assert trial.value is not None
    assert [e["evaluation"] for e in trial.user_attrs["evaluations"]] == [1, 2, 3, 4]
    folder = laboratory.config.folder / "trials" / "0"
    assert {"checkpoint.pt", "best.pt", "hypotheses.jsonl"} <= {f.name for f in folder.iterdir()}


class _Gpu(SharedGpu):
    """One at which another worker trains, until a trial waits for its end."""

    other: subprocess.Popen[str]

    def alone(
        self, interrupted: Callable[[], bool], waiting: Callable[[], None] = lambda: None
    ) -> bool:
        def ends() -> None:
            waiting()
            self.other.kill()

        return super().alone(interrupted, waiting=ends)

    def limited(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, for which there is no memory as long as the other trains."""

        def limited(*arguments: Any, **options: Any) -> Any:
            if self.other.poll() is None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return function(*arguments, **options)

        return limited


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[_Gpu]:
    made = _Gpu(tmp_path / "gpu")
    with another_worker(tmp_path / "gpu") as made.other, made.shared(lambda: False):
        yield made


def test_a_trial_that_is_too_large_beside_others_waits_for_the_gpu(
    laboratory: Laboratory, gpu: _Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = claim(laboratory.study)
    assert claimed is not None
    monkeypatch.setattr(Recogniser, "forward", gpu.limited(Recogniser.forward))
    assert run_trial(replace(laboratory, gpu=gpu), claimed) == "finished"
    attributes = open_study(laboratory.config).trials[0].user_attrs
    assert attributes["micro_batches"] == 1
    waited, went_on = attributes["remarks"][-2:]
    assert "beside other trials" in waited
    assert went_on.endswith("it is tried by itself")


def test_a_trial_that_is_too_large_by_itself_is_infeasible_after_it_waited(
    laboratory: Laboratory, gpu: _Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Recogniser, "forward", never)
    claimed = claim(laboratory.study)
    assert claimed is not None
    assert run_trial(replace(laboratory, gpu=gpu), claimed) == "out_of_memory"
    remarks = open_study(laboratory.config).trials[0].user_attrs["remarks"]
    assert sum(remark.endswith("it is tried by itself") for remark in remarks) == 1


def test_test_is_decoded_alone_where_there_is_no_memory_beside_others(
    laboratory: Laboratory, gpu: _Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(laboratory, gpu=gpu)
    claimed = claim(own.study)
    assert claimed is not None
    monkeypatch.setattr("study.finalists.score", gpu.limited(lambda *a, **named: {"test_wer": 0.5}))
    with Lease(own.study, claimed._trial_id) as lease:
        trial_module._score(own, claimed, lease)
    assert own.study.trials[0].user_attrs["test_wer"] == 0.5


def test_who_has_nothing_to_train_does_not_wait_for_a_gpu(
    laboratory: Laboratory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "queue", lambda study: [])
    with Path(f"{tmp_path / 'gpu'}.door").open("a") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        own = replace(laboratory, gpu=SharedGpu(tmp_path / "gpu"), interrupted=lambda: True)
        assert worker._next_trial(own) is None
        monkeypatch.undo()
        with pytest.raises(Interrupted):
            worker._next_trial(own)


def test_a_worker_stops_when_trial_after_trial_crashes(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from study import worker

    def broken(*arguments: Any, **options: Any) -> Iterator[Evaluation]:
        raise RuntimeError("no luck")
        yield

    monkeypatch.setattr(trial_module, "train", broken)
    monkeypatch.setattr(worker, "open_dataset", lambda config: laboratory.dataset)
    monkeypatch.setattr("signal.signal", lambda *a: None)
    assert worker.work(laboratory.config, threading.Event()) == worker.FAILED
    states = [trial.state for trial in laboratory.study.trials]
    assert states.count(TrialState.FAIL) == worker.CRASHES
    assert states.count(TrialState.WAITING) == 7 - worker.CRASHES


def test_optuna_is_quiet() -> None:
    assert optuna.logging.get_verbosity() >= optuna.logging.WARNING


@pytest.mark.parametrize(
    ("level", "evaluations", "settings"),
    [("debug", True, True), ("info", True, False), ("warning", False, False)],
)
def test_the_log_has_what_its_level_asks_for(
    perform: Perform, config: StudyConfig, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, level: str, evaluations: bool, settings: bool,
) -> None:  # fmt: skip
    caplog.set_level("DEBUG", logger="study")  # and set back afterwards
    monkeypatch.setattr(worker, "choose_device", lambda _: sys.exit())  # before anything is done
    with pytest.raises(SystemExit):
        worker.work(config.model_copy(update={"log_level": level}), threading.Event())
    perform([0.9, 0.3])
    line = "Trial 0: evaluation 2, step 2, epoch 2.0: loss 1.000, dev loss 0.300, WER 30.0%"
    assert (line in caplog.text) == evaluations
    assert ('"encoder_layers": 1' in caplog.text) == settings
