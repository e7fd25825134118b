"""A study in Optuna's storage: how it is begun, what waits in it, and what may change later.

The whole budget is enqueued when the study is created: a trial is first WAITING, with its phase
and, in phase 1, its parameters. Workers claim waiting trials until there are none, so however many
there are, they never start more than asked for. A trial that is interrupted goes back to WAITING
under its number, and whoever claims it next goes on from its checkpoint (`study.leases`).
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from pydantic import ValidationError

from study.budget import LEFT_OUT, refine_is_spent
from study.config import SEARCHABLE, StudyConfig
from study.connection import open_storage
from study.errors import InputError, not_begun
from study.keys import known_paths
from study.leases import alone
from study.pruner import SuccessiveHalving, rungs
from study.sampler import OrderedSampler, derived_seed, even_sample

GROWING = (
    "explore.trials",
    "refine.trials",
    "refine.hours",
    "finalists.top",
    "finalists.seeds",
    "finalists.anchors",
)
"""Keys by which a begun study may ask for more trials."""
PRACTICAL = ("name", "runs", "device", "storage", "launcher", "tracking", "log_level")
"""Keys that do not change what a study finds out."""
PLACES = ("corpus.folder",)
"""Keys that say where a thing is, and may differ between machines: its fingerprint says what."""

FINALIST = "finalist"
"""The phase of the trials that follow the search."""
CHOSEN = "finalists_chosen"
"""The study's attribute that says after what search they were chosen: `grounds_of_choice`."""

warnings.filterwarnings("ignore", message="Fixed parameter .* is out of range")  # anchors may be


def open_study(config: StudyConfig, storage: BaseStorage | None = None) -> optuna.Study:
    """Open a study that exists, with the sampler and the pruner of its configuration.

    Raises `InputError` where there is none of that name, or one that is not of this program.
    """
    refine = config.refine
    pruner = (
        optuna.pruners.NopPruner()
        if refine.pruner == "none"
        else SuccessiveHalving(
            rungs(config.training.evaluations, refine.first_rung, refine.reduction_factor),
            refine.reduction_factor,
        )
    )
    try:
        study = optuna.load_study(
            study_name=config.name,
            storage=storage or open_storage(config),
            sampler=OrderedSampler(config.space, seed=config.seed, kind=refine.sampler),
            pruner=pruner,
        )
    except KeyError:
        raise not_begun(config.name, f"{config.storage_url} holds none of that name") from None
    if "config" not in study.user_attrs and study.get_trials(deepcopy=False):
        raise InputError(
            f"{config.storage_url} holds trials of a study '{config.name}' without its settings, "
            "as another program's would be: give this study another name (-o name=…)"
        )
    return study


def create_study(
    config: StudyConfig,
    attributes: dict[str, Any],
    *,
    accept_changed_corpus: bool = False,
    retry_crashed: bool = False,
) -> optuna.Study:
    """Create a study with all its trials waiting, or open it and add the trials that it lacks.

    `attributes` describe the study to its readers, beside its configuration and what it searches;
    `corpus.fingerprint` among them must be that with which the study began, unless
    `accept_changed_corpus`. That, and other code than before, is kept for its readers under
    `changes`. With `retry_crashed`, each trial that crashed is put into the queue once more. Raises
    `InputError` where the study was begun with other settings.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    storage = open_storage(config)
    with alone(storage, config.name):  # two people may start the same study at once
        with contextlib.suppress(DuplicatedStudyError):
            storage.create_new_study([StudyDirection.MINIMIZE], config.name)
        study = open_study(config, storage)
        begun = study.user_attrs
        plain = config.model_dump(mode="json")
        if "config" in begun:
            _refuse_changes(config, begun, attributes, accept_changed_corpus)
            if said := _changes(study, attributes):
                attributes = {**attributes, "changes": [*begun.get("changes", []), *said]}
        created = begun.get("created", datetime.now(UTC).isoformat())
        space = {name: dimension.as_attribute() for name, dimension in config.space.items()}
        own = {"created": created, "config": plain, "space": space}
        for name, value in {**attributes, **own}.items():
            study.set_user_attr(name, value)
        _enqueue(study, config)
        if retry_crashed:
            _retry(study)
    return study


def refuse_changes(config: StudyConfig, fingerprint: str) -> None:
    """Raise `InputError` where `run` would: the study has begun, with other settings or speech.

    `fingerprint` is that of the corpus. Nothing is created.
    """
    if not config.begun:
        return
    storage = open_storage(config)
    try:
        begun = storage.get_study_user_attrs(storage.get_study_id_from_name(config.name))
    except KeyError:
        return
    if "config" in begun:
        _refuse_changes(config, begun, {"corpus": {"fingerprint": fingerprint}}, False)


def _changes(study: optuna.Study, attributes: dict[str, Any]) -> list[str]:
    """What else is not as it was when the study went on last, in sentences for its readers."""
    begun = study.user_attrs
    finished = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    sentences = []
    for what, before, now in (
        (
            "speech or transcripts of the corpus",
            begun.get("corpus", {}).get("fingerprint"),
            attributes["corpus"]["fingerprint"],
        ),
        ("code of network, data or training", begun.get("code"), attributes.get("code")),
    ):
        if None not in (before, now) and before != now:
            sentences.append(
                f"After {finished} trials the {what} changed (fingerprint {before}, then {now}): "
                "trials before and after that may not be comparable."
            )
    return sentences


def _refuse_changes(
    config: StudyConfig,
    begun: dict[str, Any],
    attributes: dict[str, Any],
    accept_changed_corpus: bool,
) -> None:
    found = list(changes(begun, config))
    before = begun.get("corpus", {}).get("fingerprint")
    if before is not None and before != attributes["corpus"]["fingerprint"]:
        if not accept_changed_corpus and not found:
            raise InputError(
                f"the corpus of the study '{config.name}' has other audio or transcripts than when "
                "the study began: put it back, give the study another name (-o name=…), or go on "
                "and have the report say so (run --accept-changed-corpus)"
            )
        if not accept_changed_corpus:
            found.append("the corpus has other audio or transcripts than it had")
    if found:
        raise InputError(
            [
                f"the study '{config.name}' in {config.folder} was begun with other settings, and "
                "its trials could not be compared: set them back, or give the study another name "
                f"(-o name=…): {'; '.join(found)}"
            ]
        )


def _refuse_unknown_keys(config: StudyConfig, begun: dict[str, Any], plain: dict[str, Any]) -> None:
    """Raise `InputError` where a study has settings that this version does not know."""
    unknown = [
        path
        for path, _, now in _differences(begun["config"], plain)
        if now is None and path not in known_paths()
    ]
    if unknown:
        version = begun.get("versions", {}).get("conformer-study")
        named = f" ({version})" if version else ""
        raise InputError(
            f"the study '{config.name}' was begun by another version of this program{named}, with "
            f"settings that this one does not know ({', '.join(unknown)}): use that version, or "
            "give the study another name (-o name=…)"
        )


def changes(begun: dict[str, Any], config: StudyConfig) -> Iterator[str]:
    """What differs, and matters, between a configuration and that of a begun study's attributes.

    Raises `InputError` where that has settings which this version does not know.
    """
    plain = config.model_dump(mode="json")
    try:  # keys that this version has and that one had not are at their defaults
        known = StudyConfig.model_validate(begun["config"]).model_dump(mode="json")
    except ValidationError:
        known = begun["config"]
        _refuse_unknown_keys(config, begun, plain)
    for path, before, now in _differences(known, plain):
        yield f"{path} was {json.dumps(before)} and is now {json.dumps(now)}"


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            if path or key not in PRACTICAL:
                inner = f"{path}.{key}".lstrip(".")
                if inner not in GROWING and inner not in PLACES:
                    yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield path, before, now


def _enqueue(study: optuna.Study, config: StudyConfig) -> None:
    """Put the trials that the study lacks into its queue, in the order of the phases."""
    trials = study.get_trials(deepcopy=False)
    spent = refine_is_spent(trials, config.refine.hours)
    again = retried(trials)
    there = Counter(
        (trial.user_attrs.get("phase"), trial.user_attrs.get("anchor"))
        for trial in trials
        if trial.number not in again
        if spent or trial.user_attrs.get("outcome") != LEFT_OUT  # more hours bring those back
    )
    for anchor in config.anchor_shapes:
        if not there["explore", anchor.name]:
            values = {
                name: anchor.shape.get(name, getattr(getattr(config, SEARCHABLE[name][0]), name))
                for name in config.space
            }
            study.enqueue_trial(
                values,
                user_attrs={"phase": "explore", "anchor": anchor.name},
            )
    sample = even_sample(config.space, config.explore.trials, config.seed)
    for parameters in sample[there["explore", None] :]:
        study.enqueue_trial(parameters, user_attrs={"phase": "explore"})
    for place in range(there["refine", None], config.refine.trials):
        draw = np.random.default_rng(derived_seed(config.seed, 1, place)).random()
        spared = {"survivor": True} if draw < config.refine.survivors else {}
        study.enqueue_trial({}, user_attrs={"phase": "refine", **spared})


def crashed(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that crashed and were not put into the queue once more."""
    trials = list(trials)
    again = retried(trials)
    return [t for t in trials if t.user_attrs.get("outcome") == "crashed" and t.number not in again]


def retried(trials: Iterable[FrozenTrial]) -> set[int]:
    """The numbers of crashed trials in whose place others stand, which `retry_of` names."""
    return {t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs}


def _retry(study: optuna.Study) -> None:
    """Put each crashed trial into the queue once more: a new one with what it was to be."""
    for trial in crashed(study.get_trials(deepcopy=False)):
        known = trial.user_attrs
        part = ("phase", "anchor", "finalist", "survivor")
        kept = {name: known[name] for name in part if name in known}
        study.enqueue_trial(
            {**trial.system_attrs.get("fixed_params", {}), **trial.params},
            user_attrs={**kept, "retry_of": trial.number},
        )


def search_is_over(trials: Iterable[FrozenTrial]) -> bool:
    """Whether every trial of explore and refine has an outcome."""
    return all(t.state.is_finished() for t in trials if t.user_attrs.get("phase") != FINALIST)


def grounds_of_choice(
    attributes: Mapping[str, Any], trials: Iterable[FrozenTrial]
) -> dict[str, Any]:
    """What the choice of finalists follows from: the trials of the search, and what is asked for.

    `attributes` are the study's. Either grows when it is asked for more, and then finalists are to
    be chosen anew.
    """
    searched = sum(trial.user_attrs.get("phase") != FINALIST for trial in trials)
    return {"trials": searched, "asked": attributes.get("config", {}).get("finalists")}


def finalists_are_chosen(attributes: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> bool:
    """Whether all finalists that the search as it is by now will have are among the trials.

    The study's attributes are to be read before its trials: they say so once all were added.
    """
    if attributes.get(CHOSEN) is not None:
        return all_were_added(attributes, trials)
    # A study of a version that did not say so: they are, where the search did not go on since.
    return bool(trials) and trials[-1].user_attrs.get("phase") == FINALIST


def all_were_added(attributes: Mapping[str, Any], trials: Iterable[FrozenTrial]) -> bool:
    """Whether the study itself says so: to go without adding any, what is likely is not enough."""
    return bool(attributes.get(CHOSEN) == grounds_of_choice(attributes, trials))
