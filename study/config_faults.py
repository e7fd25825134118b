"""What is wrong between the parts of a study.yaml whose every value is right by itself.

    for path, sentence in faults(config, given):
        print(f"{path}: {sentence}")

`study.config_file` adds the line of the file. Nothing here imports torch, Optuna or MLflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import cache
from itertools import product
from typing import Any

from pydantic import TypeAdapter, ValidationError

from model.config import SHAPE, NetworkConfig, conflicts, decoding_conflicts, unread, width_step
from study.anchors import ANCHORS
from study.config import FILES, JOURNAL_WORKERS, SEARCHABLE, StudyConfig
from study.errors import nearest
from study.passwords import holds_password, refusal
from study.space import Dimension, Number, SearchRange
from study.training.config import TrainingConfig


def faults(config: StudyConfig, given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong between the parts of a study: pairs of a dotted path and a sentence.

    `given` is what stands in the file, to tell what was chosen from what was left at its default.
    """
    if holds_password(config.storage):
        yield "storage", refusal("STUDY_DB_PASSWORD")
    if holds_password(config.tracking.uri or ""):
        yield "tracking.uri", refusal("MLFLOW_PASSWORD")
    yield from _folder_faults(config)
    if config.storage == "auto" and (config.launcher.workers or 1) > JOURNAL_WORKERS:
        yield (
            "storage",
            f"{config.launcher.workers} workers are more than a file bears ({JOURNAL_WORKERS}): "
            "give the URL of a database, such as postgresql+psycopg://user@host/name",
        )
    launcher = config.launcher
    if launcher.kind == "inline" and (launcher.workers or 1) > 1:
        yield "launcher.workers", "one process runs one worker: set it to 1, or launcher.kind=local"
    if launcher.elsewhere and launcher.workers is None:
        yield "launcher.workers", f"is missing: say how many workers {launcher.kind} should start"
    if launcher.kind == "ray" and launcher.workers_per_gpu == "auto":
        yield "launcher.workers_per_gpu", "auto is for launcher.kind local: give ray a number"
    broken = False
    for name, searched in config.search.items():
        for fault in _range_faults(name, searched, config):
            broken = True
            yield f"search.{name}", fault
    for place, fault in _anchor_faults(config):
        broken = True
        yield place, fault
    if broken:
        return
    yield from _combination_faults(config)
    yield from _schedule_faults(config)
    yield from _baseline_faults(config, given)
    yield from _decoding_faults(config)
    if config.trials == 0:
        yield "explore.trials", "the study has no trials: give explore, refine or anchors some"
    if config.tokens.kind == "bpe" and config.tokens.size is None:
        yield "tokens.size", "is missing: give the number of pieces that bpe should learn"


def _folder_faults(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """A folder that the address of a database in it would not mean."""
    folder, tracking = str(config.folder.absolute()), config.tracking
    kind = config.storage_url.partition(":")[0]
    if kind not in FILES and not (tracking.enabled and tracking.uri is None):
        return
    if odd := [mark for mark in ("?", "%", "${") if mark in folder]:
        yield (
            "runs",
            f"{folder} has '{odd[0]}' in it, which means something else in the address of a "
            "database: set runs to a folder without it",
        )


def _range_faults(name: str, searched: SearchRange, config: StudyConfig) -> Iterator[str]:
    if name not in SEARCHABLE:
        yield f"is not a numeric key of network or training{nearest(name, SEARCHABLE)}"
        return
    section, whole = SEARCHABLE[name]
    try:
        dimension = Dimension.of(name, searched, whole=whole)
    except ValueError as error:
        yield str(error)
        return
    kind = _checked(NetworkConfig if section == "network" else TrainingConfig)
    baseline = getattr(config, section)
    for value in dimension.values or dimension.extremes:
        plain = {field.name: getattr(baseline, field.name) for field in fields(baseline)}
        try:
            kind.validate_python({**plain, name: value})
        except ValidationError as error:
            own = [item["msg"] for item in error.errors() if item["loc"]]  # not of several keys
            yield from (f"{value!r} is not possible: {message}" for message in own)
    fault = unread(config.network, name)
    if fault:
        yield fault


@cache
def _checked(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _anchor_faults(config: StudyConfig) -> Iterator[tuple[str, str]]:
    names: set[str] = set()
    for place, anchor in enumerate(config.anchors):
        path = f"anchors.{place}"
        if isinstance(anchor, str):
            if anchor not in ANCHORS:
                yield path, f"there is no known shape '{anchor}'{nearest(anchor, ANCHORS)}"
            name = anchor
        else:
            for key, value in anchor.items():
                if key == "name":
                    if not isinstance(value, str) or not value.strip():
                        yield f"{path}.name", f"{value!r} is not a name"
                elif key not in SHAPE:
                    yield (
                        f"{path}.{key}",
                        f"is not one of the six{nearest(key, (*SHAPE, 'name'))}",
                    )
                elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                    yield f"{path}.{key}", f"{value!r} is not a positive whole number"
            name = str(anchor.get("name", f"anchor-{place + 1}"))
        if name in names:
            yield path, f"a second anchor is called '{name}': give each a name of its own"
        names.add(name)


def _combination_faults(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Combinations of the searched values, and anchors, that cannot be built."""
    seen: set[str] = set()
    for width, heads in (("encoder_dim", "attention_heads"), ("decoder_dim", "decoder_heads")):
        yield from _heads_faults(config, width, heads, seen)
    names = ("encoder_dim", "attention_heads", "decoder_dim", "decoder_heads", "conv_kernel_size")
    for group in (names[:2], names[2:4], names[4:]):
        for values in product(*(_values(config, name) for name in group)):
            network, _ = config.with_parameters(dict(zip(group, values, strict=True)))
            for name, fault in conflicts(network):
                if name in group and fault not in seen:
                    seen.add(fault)
                    section = "search" if name in config.space else "network"
                    yield f"{section}.{name}", fault
    for place, anchor in enumerate(config.anchor_shapes):
        network, _ = config.with_parameters(anchor.shape)
        for _, fault in conflicts(network):
            if fault not in seen:
                yield f"anchors.{place}", f"{anchor.name}: {fault}"


def _schedule_faults(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Searched shares of the budget of which the largest do not fit in it together."""
    shares: list[str] = [name for name in ("warmup", "decay") if name in config.space]
    largest = {name: config.space[name].extremes[1] for name in shares}
    try:
        config.with_parameters(largest)
    except ValueError as error:
        yield f"search.{shares[0]}", f"the largest do not fit: {error}"


def _heads_faults(
    config: StudyConfig, width: str, heads: str, seen: set[str]
) -> Iterator[tuple[str, str]]:
    """Numbers of heads that no searched width fits; what is said so goes into `seen`.

    Where some widths fit them, the widths are at fault.
    """
    widths, counts = _values(config, width), _values(config, heads)
    if len(widths) < 2:
        return
    fitting = [n for n in range(1, max(map(int, widths)) + 1)
               if all(value % width_step(n) == 0 for value in widths)]  # fmt: skip
    for count in counts:
        impossible = [
            fault
            for value in widths
            for name, fault in conflicts(config.with_parameters({width: value, heads: count})[0])
            if name == width
        ]
        if len(impossible) == len(widths) and fitting:
            seen.update(impossible)
            near = [*[n for n in fitting if n < count][-1:], *[n for n in fitting if n > count][:1]]
            section = "search" if heads in config.space else "network"
            yield (
                f"{section}.{heads}",
                f"{heads} {count} fits none of {width} {', '.join(f'{v:g}' for v in widths)}: "
                f"use {' or '.join(map(str, near))}",
            )


def _values(config: StudyConfig, name: str) -> Sequence[Number]:
    """What a key of the network may be: its choices, or its one value."""
    return config.space[name].values if name in config.space else (getattr(config.network, name),)


def _baseline_faults(config: StudyConfig, given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Values beside a search that lie outside its range: one of the two is a mistake."""
    for name, dimension in config.space.items():
        section = SEARCHABLE[name][0]
        value = getattr(getattr(config, section), name)
        chosen = name in (given.get(section) or {})
        needed = bool(config.anchors) and name not in SHAPE
        if value is None and not needed:
            continue
        if (chosen or needed) and (value is None or value not in dimension):
            why = "" if chosen else " (its default, with which the anchors train)"
            yield (
                f"{section}.{name}",
                f"{'null' if value is None else f'{value:g}'}{why} is not in search.{name} "
                f"({dimension.describe()})",
            )


def _decoding_faults(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Decoding that does not fit a network that the study may train."""
    searched = config.space.get("ctc_weight")
    weights = searched.extremes if searched else (config.network.ctc_weight,)
    found = [
        fault
        for weight in weights
        for fault in decoding_conflicts(
            replace(config.network, ctc_weight=weight), config.finalists.decoding
        )
    ]
    for name, fault in dict.fromkeys(found):
        yield f"finalists.decoding.{name}", fault
