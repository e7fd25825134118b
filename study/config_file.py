"""From study.yaml to a `StudyConfig`, or to sentences that say what is wrong in which line.

config = load(Path("study.yaml"), ["explore.trials=4"])
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from reports.redaction import redact
from study.config import SEARCHABLE, StudyConfig
from study.config_faults import faults
from study.errors import InputError, nearest
from study.keys import known_paths


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number, as in YAML 1.2, and no key stands twice."""


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back: strings that look like its numbers in quotes."""


for kind in (_Loader, _Dumper):
    kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$|^[-+]?\.\d+[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


def load(file: Path, overrides: Iterable[str] = ()) -> StudyConfig:
    """Read and check a study.

    `overrides` are `dotted.path=value`, with values as in YAML; they win over the file. Raises
    `InputError` with all faults at once, each with its place.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = [*file.parent.glob("*.yaml"), *Path("studies").glob("*.yaml")]
        meant = nearest(str(file), map(str, there)) or "; name one, or run in its folder"
        raise InputError(f"there is no study file {file}{meant}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text ({error})") from None
    return from_text(file, text, overrides)


def from_text(file: Path, text: str, overrides: Iterable[str] = ()) -> StudyConfig:
    """Check a study whose text is known, as `load` does; the file names it and need not be there.

    Raises `InputError` with all faults at once.
    """
    given, places = _parse(file, text)
    given.setdefault("name", file.stem)
    return _build(file, given, places, overrides)


def amend(config: StudyConfig, overrides: Iterable[str]) -> StudyConfig:
    """Another configuration, with values set as by `load`."""
    given, _ = _parse(Path(config.name), dump(config))
    return _build(Path(config.name), given, {}, overrides)


def _build(
    file: Path, given: dict[str, Any], places: Places, overrides: Iterable[str]
) -> StudyConfig:
    for override in overrides:
        _override(given, places, override)
    if isinstance(given.get("search"), dict):  # null takes a parameter out of the search
        given["search"] = {name: r for name, r in given["search"].items() if r is not None}
    try:
        config = StudyConfig.model_validate(given)
    except ValidationError as error:
        raise InputError(_sentences(error, given, places, file)) from None
    found = [_at(places, path.split("."), file, fault) for path, fault in faults(config, given)]
    if found:
        raise InputError(found)
    return config


def dump(config: StudyConfig) -> str:
    """The whole configuration as YAML, defaults included, so that `load` gives it back.

    Baselines outside the range of their search are left out: nothing uses them.
    """
    plain = config.model_dump(mode="json")
    for name, dimension in config.space.items():
        section = plain[SEARCHABLE[name][0]]
        if section[name] is None or section[name] not in dimension:
            del section[name]
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def as_scalar(text: str) -> str:
    """A string as YAML, in or outside of a list, which is read back as that string."""
    if not text.isprintable():
        return json.dumps(text)
    words = text.replace("/", "").replace("_", "").replace("-", "").replace(".", "")
    if words.isalnum():  # else something in it may have a meaning, as 2024 and null have as a whole
        node = yaml.compose(text, Loader=_Loader)
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return text
    return "'" + text.replace("'", "''") + "'"


Places = dict[tuple[str, ...], str]
"""Where each key stands: a file and line, or an override."""


def _parse(file: Path, text: str) -> tuple[dict[str, Any], Places]:
    places: Places = {}
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(
            f"{file}:{line}: not YAML: the character #x{error.character:04x} cannot stand in it"
        ) from None
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, places
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{file}:1: a study is a mapping of keys to values")
        _locate(node, (), file, places)
        return loader.construct_document(node), places
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{file}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not YAML: {error}") from None
    finally:
        loader.dispose()


MOST_KEYS = 10_000
"""Keys and items that a study may have, aliases spelt out: far more than any needs."""


def _locate(node: yaml.Node, path: tuple[str, ...], file: Path, places: Places) -> None:
    if len(path) > 20 or len(places) > MOST_KEYS:  # an alias of itself, or of aliases
        line = node.start_mark.line + 1
        raise InputError(f"{file}:{line}: an alias (*) makes this file endless: write it out")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            place = f"{file}:{key.start_mark.line + 1}"
            if inner in places:
                raise InputError(f"{place}: {'.'.join(inner)}: stands twice, see {places[inner]}")
            places[inner] = place
            _locate(value, inner, file, places)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            places[*path, str(number)] = f"{file}:{item.start_mark.line + 1}"
            _locate(item, (*path, str(number)), file, places)


def _override(given: dict[str, Any], places: Places, override: str) -> None:
    """Put `dotted.path=value` into what the file gave."""
    path, equals, text = override.partition("=")
    keys = tuple(path.split("."))
    if not equals or not all(keys):
        raise InputError(f"-o {override}: write it as dotted.path=value, such as explore.trials=4")
    value = read_value(f"-o {override}", text)
    target = given
    for depth, key in enumerate(keys[:-1], start=1):
        inner = target.get(key)
        if inner is None:
            inner = target[key] = {}
        if not isinstance(inner, dict):
            raise InputError(f"-o {override}: {'.'.join(keys[:depth])} is not a section")
        target = inner
    target[keys[-1]] = value
    for place in [place for place in places if place[: len(keys)] == keys]:
        del places[place]
    places[keys] = f"-o {redact(override)}"


def read_value(place: str, text: str) -> Any:
    """A value as YAML; `InputError` where it is none, with the place that is given."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InputError(f"{place}: the value is not YAML") from None


def _at(places: Places, path: list[str], file: Path, sentence: str) -> str:
    """A sentence with its place: an override of the path, or the line of its longest known part."""
    for keys, place in places.items():
        if place.startswith("-o ") and list(keys[: len(path)]) == path:
            return f"{place}: {'.'.join(path)}: {sentence}"
    for length in range(len(path), 0, -1):
        if tuple(path[:length]) in places:
            return f"{places[tuple(path[:length])]}: {'.'.join(path)}: {sentence}"
    return f"{file}: {'.'.join(path)}: {sentence}"


def _sentences(
    error: ValidationError, given: dict[str, Any], places: Places, file: Path
) -> list[str]:
    """pydantic's complaints in our words, each with its place."""
    sentences = []
    for item in error.errors():
        path = _real_path(item["loc"], given)
        value = item.get("input")
        match item["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                sentence = f"there is no such key{_intended('.'.join(path))}"
            case "missing":
                sentence = "is missing"
            case "union_tag_not_found":
                sentence = "has no kind: give one, such as {kind: manifest, folder: …}"
            case "literal_error" | "union_tag_invalid":
                context = item.get("ctx") or {}
                options = context.get("expected") or context.get("expected_tags")
                value = context.get("tag", value)
                sentence = f"{value!r} is not one of {options}"
            case "value_error":
                sentence = item["msg"].removeprefix("Value error, ")
            case _:
                message = item["msg"][0].lower() + item["msg"][1:]
                sentence = f"{value!r} is not possible: {message}"
        sentences.append(_at(places, path, file, sentence))
    return list(dict.fromkeys(sentences))


def _intended(path: str) -> str:
    """The known key that an unknown one may mean: the same name elsewhere, or a similar one."""
    keys = known_paths()
    if path in keys:
        return ", only another kind has it"
    name = path.rpartition(".")[2]
    elsewhere = [key for key in keys if key.rpartition(".")[2] == name and key != path]
    if elsewhere and not elsewhere[0].startswith("search."):
        return f"; it is called '{elsewhere[0]}'"
    return nearest(path, keys)


def _real_path(location: tuple[int | str, ...], given: dict[str, Any]) -> list[str]:
    """A pydantic location without the names of union members that it weaves in."""
    path: list[str] = []
    value: Any = given
    for place, step in enumerate(location):
        last = place == len(location) - 1
        if isinstance(value, dict) and (step in value or last):
            path.append(str(step))
            value = value.get(step)
        elif isinstance(value, list | tuple) and isinstance(step, int):
            path.append(str(step))
            value = value[step] if step < len(value) else None
    return path or [str(step) for step in location]
