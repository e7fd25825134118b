"""Phase 3: the best configurations and the anchors, trained again and scored on the test split.

The lowest WER of a search is partly luck. So its best few configurations are trained once more with
fresh seeds, the anchors beside them; the winner is chosen among them on dev, and only then does
the test split say how good it is. Finalists are trials like any other: they wait in the same queue,
are resumed from checkpoints, and are logged. Nothing before this phase reads the test split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

import reports
from model.config import NetworkConfig
from model.recogniser import Recogniser
from study import weights
from study.config import SEARCHABLE, FinalistsConfig, StudyConfig
from study.data.batches import Batches
from study.data.dataset import Dataset
from study.leases import alone
from study.space import Number
from study.storage import (
    CHOSEN,
    FINALIST,
    all_were_added,
    grounds_of_choice,
    retried,
    search_is_over,
)
from study.training.config import TrainingConfig
from study.training.evaluation import recognise, write_hypotheses
from study.training.loop import EVALUATION_BATCH


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A configuration that is trained again."""

    label: str
    """`trial 12`, `predicted best`, or the anchor's name."""
    parameters: dict[str, Number]
    """Its value of everything that is searched."""
    anchor: str | None = None
    """The anchor's name, if it is one: what is not searched is as that has it, too."""

    def configuration(self, config: StudyConfig) -> tuple[NetworkConfig, TrainingConfig]:
        """The network and the training that it stands for."""
        return config.with_parameters({**config.anchor_shape(self.anchor), **self.parameters})


def select(config: StudyConfig, study: optuna.Study) -> list[Finalist]:
    """The configurations to train again, from what the search found; the best first.

    Candidates come in the order of `reports.candidates`. An anchor is repeated where it finished,
    with the learning rate that it had; a candidate that is the same network as an anchor, also in
    what is not searched, is not trained twice. Earlier finalists do not count, so that asking again
    gives the same answer. With `finalists.top` 0 there are none.
    """
    finalists = config.finalists
    if not finalists.top:  # the anchors by themselves would crown one of them
        return []
    anchors = [
        Finalist(
            label=trial.user_attrs["anchor"],
            parameters={name: trial.params[name] for name in config.space},
            anchor=trial.user_attrs["anchor"],
        )
        for trial in study.get_trials(deepcopy=False)
        if finalists.anchors and "anchor" in trial.user_attrs and _is_result(trial)
    ]
    taken = [anchor.configuration(config) for anchor in anchors]
    best: list[Finalist] = []
    for candidate in reports.candidates(study._storage, config.name):
        if len(best) == finalists.top:
            break
        if any(candidate.values[name] not in d for name, d in config.space.items()):
            continue  # an anchor's: the search could not draw it
        parameters = {
            name: int(candidate.values[name]) if SEARCHABLE[name][1] else candidate.values[name]
            for name in config.space
        }
        label = "predicted best" if candidate.trial is None else f"trial {candidate.trial}"
        finalist = Finalist(label=label, parameters=parameters)
        if (configuration := finalist.configuration(config)) not in taken:
            taken.append(configuration)
            best.append(finalist)
    return [*best, *anchors]


def enqueue(config: StudyConfig, study: optuna.Study) -> int:
    """Put the repetitions that are lacking into the queue; returns how many were added.

    Nothing is added before every trial of the search has an outcome, nor where all were added: to
    choose takes seconds. How many there are is what the study has it by now: a worker may have been
    started with a file that asks for others.
    """
    attributes = study.user_attrs
    trials = study.get_trials(deepcopy=False)
    if not search_is_over(trials) or all_were_added(attributes, trials):
        return 0
    grounds = grounds_of_choice(attributes, trials)
    asked = FinalistsConfig.model_validate(grounds["asked"])
    config = config.model_copy(update={"finalists": asked})
    chosen = select(config, study)
    with alone(study._storage, config.name):
        if study.user_attrs.get(CHOSEN) == grounds:
            return 0  # another worker was faster
        study.set_user_attr(CHOSEN, {})  # no longer true, or not yet: whoever is killed here …
        added = _enqueue(config, study, chosen)  # … leaves the rest for who comes next
        study.set_user_attr(CHOSEN, grounds)
    return added


def _enqueue(config: StudyConfig, study: optuna.Study, chosen: list[Finalist]) -> int:
    trials = study.get_trials(deepcopy=False)
    again = retried(trials)
    there = [
        Finalist(
            label=trial.user_attrs["finalist"],
            parameters=trial.system_attrs.get("fixed_params", trial.params),
            anchor=trial.user_attrs.get("anchor"),
        )
        for trial in trials
        if trial.user_attrs.get("phase") == FINALIST and trial.number not in again
    ]
    added = 0
    for finalist in (_named(one, there, config) for one in chosen):
        attributes = {"phase": FINALIST, "finalist": finalist.label}
        if finalist.anchor is not None:
            attributes["anchor"] = finalist.anchor
        trained = sum(other.label == finalist.label for other in there)
        for _ in range(trained, config.finalists.seeds):
            study.enqueue_trial(finalist.parameters, user_attrs=attributes)
            added += 1
    return added


def _named(finalist: Finalist, there: Sequence[Finalist], config: StudyConfig) -> Finalist:
    """A finalist as it is trained again already, or else by a name that none of those has.

    When a search goes on, it may draw what was predicted best: that stays `predicted best`, and is
    not trained once more as `trial 40`. And something else may be predicted best: it becomes
    `predicted best (2)`, and its error rates are not averaged with those of another network.
    """
    own = finalist.configuration(config)
    same = [other for other in there if other.configuration(config) == own]
    if same:
        return next((other for other in same if other.label == finalist.label), same[0])
    names = {other.label for other in there}
    labels = chain([finalist.label], (f"{finalist.label} ({number})" for number in count(2)))
    return replace(finalist, label=next(label for label in labels if label not in names))


def score(
    network: NetworkConfig,
    config: StudyConfig,
    dataset: Dataset,
    device: torch.device,
    folder: Path,
    before: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Decode the test split with the weights that a trial's WER is of; returns what to record.

    The WER is that of a beam search, as `finalists.decoding` sets it; what it is greedy is recorded
    too. Writes `test.jsonl` into the trial's folder. `before` is called before each batch.
    """
    mels = dataset.normalisation[0].numel()
    recogniser = Recogniser(network, mels=mels, vocabulary=dataset.tokenizer.vocabulary).to(device)
    recogniser.load_state_dict(weights.read(folder / "best.pt", device))
    batches = Batches(dataset.splits["test"], EVALUATION_BATCH * config.training.batch_seconds)
    started = time.perf_counter()
    recognition = recognise(
        recogniser,
        batches,
        dataset.tokenizer,
        device,
        decoding=config.finalists.decoding,
        before=before,
    )
    write_hypotheses(folder / "test.jsonl", recognition.hypotheses)
    counts = recognition.word_errors
    return {
        "test_wer": counts.rate,
        "test_greedy_wer": recognition.greedy_word_errors.rate,
        "test_errors": counts.errors,
        "test_greedy_errors": recognition.greedy_word_errors.errors,
        "test_words": counts.length,
        "test_decode_seconds": time.perf_counter() - started,
        "test_real_time_factor": recognition.real_time_factor,
    }


def _is_result(trial: FrozenTrial) -> bool:
    return (
        trial.state == TrialState.COMPLETE
        and trial.user_attrs.get("outcome") == "finished"
        and trial.user_attrs.get("phase") != FINALIST
    )
