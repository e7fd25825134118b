"""Every key that a study.yaml may have: where it stands, what it takes, its default, what it does.

    for section in sections():
        for key in section.keys:
            print(key.path, key.default, key.meaning)

All of it is read from the classes that the file becomes (`study.config`): types say what a key
takes, and the docstrings under the fields what it does. `python -m study keys` looks one up, and
docs/study-yaml.md lists them all.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from rich.padding import Padding
from rich.text import Text

from model.config import SHAPE
from study.anchors import ANCHORS
from study.config import SEARCHABLE, StudyConfig
from study.data.registry import CORPORA
from study.space import SearchRange

if typing.TYPE_CHECKING:
    from rich.console import Console

NAME = "NAME"
"""Stands in a path for the name of what is searched."""
_BOUNDS = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path",
          dict: "mapping", type(None): "null"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of study.yaml that holds a value."""

    path: str
    """With dots: `training.learning_rate`. What is searched is called `search.NAME`."""
    takes: str
    """The values it takes, in words."""
    default: str
    """Its default, as in the file; empty where it has to be given."""
    meaning: str
    """What it does, in Markdown."""

    @property
    def name(self) -> str:
        """Its name in its section."""
        return self.path.rpartition(".")[2]

    @property
    def searchable(self) -> bool:
        """Whether its name may stand under `search`."""
        section, name = SEARCHABLE.get(self.name, ("", False))[0], self.name
        return self.path == f"{section}.{name}"


@dataclass(frozen=True, kw_only=True)
class Section:
    """Keys that stand together."""

    path: str
    """With dots; empty of the file itself."""
    kind: str
    """The kind of corpus whose keys these are; empty of other sections."""
    meaning: str
    """What it is about, in Markdown."""
    keys: tuple[Key, ...]
    """In the order of the file."""


@functools.cache
def sections() -> tuple[Section, ...]:
    """All sections, in the order of the file."""
    return tuple(_sections(StudyConfig, "", "What a study is called, and where it runs."))


def known_paths() -> list[str]:
    """The paths of all keys and sections, with every name that can be searched."""
    found = ["search"]
    for section in sections():
        for path in (section.path, *(key.path for key in section.keys)):
            names = SEARCHABLE if NAME in path else (NAME,)
            found += [path.replace(NAME, name) for name in names]
    return [path for path in dict.fromkeys(found) if path]


def matching(words: Iterable[str]) -> list[tuple[Section, list[Key]]]:
    """The keys that hold every one of some words, in their path or in what they do."""
    wanted = [word.casefold() for word in words]

    def holds(section: Section, key: Key) -> bool:
        text = f"{key.path} {section.kind} {key.meaning}".casefold()
        return all(word in text for word in wanted)

    found = [(part, [key for key in part.keys if holds(part, key)]) for part in sections()]
    return [(section, some) for section, some in found if some]


def as_markdown() -> str:
    """The text of docs/study-yaml.md."""
    lines = [
        "# The keys of study.yaml",
        "",
        "All of them, as `python -m study keys --markdown` writes them; with words in place of",
        "`--markdown` it looks some up. Only `corpus` has to be given. On the command line any key",
        "is set by its path: `-o training.learning_rate=2e-3`. Those with a ↔ may stand under",
        "`search`.",
        "",
    ]
    for section in sections():
        kind = f", with `kind: {section.kind}`" if section.kind else ""
        title = f"`{section.path}`{kind}" if section.path else "At the top"
        lines += [f"## {title}", "", section.meaning, ""]
        lines += ["| key | takes | default | what it does |", "|---|---|---|---|"]
        for key in section.keys:
            default = f"`{key.default}`" if key.default else "–"
            name = f"`{key.name}`{' ↔' * key.searchable}"
            cells = (name, key.takes, default, key.meaning)
            lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
        lines.append("")
    lines += ["## Anchors that have a name", ""]
    lines += [f"| name | {' | '.join(SHAPE)} |", "|---|" + "---:|" * len(SHAPE)]
    for name, shape in ANCHORS.items():
        lines.append(f"| `{name}` | {' | '.join(str(shape[six]) for six in SHAPE)} |")
    return "\n".join(lines) + "\n"


def show(found: Iterable[tuple[Section, list[Key]]], console: Console) -> None:
    """Print keys, each with its default and what it takes, and below that what it does."""
    for section, keys in found:
        for key in keys:
            line = Text(f"{key.path}: {key.default}".rstrip(), style="bold")
            kind = f"kind {section.kind}; " if section.kind else ""
            searchable = "; can be searched" if key.searchable else ""
            line.append(f"  ({kind}{key.takes}{searchable})".replace("`", ""), style="not bold dim")
            console.print(line)
            console.print(Padding(Text(key.meaning), (0, 0, 0, 4)))


def _sections(
    kind: type, path: str, meaning: str, *, corpus: str = "", defaults: Any = None
) -> Iterator[Section]:
    """A class of `study.config` as a section, and then those that stand in it.

    `defaults` is what stands there by default, where that is not what the class says.
    """
    told = _docstrings(kind)
    own: list[Key] = []
    inner: list[Section] = []
    for name, hint in _hints(kind).items():
        where = f"{path}.{name}" if path else name
        said = " ".join(told.get(name, "").split())
        default = _default(kind, name) if defaults is None else getattr(defaults, name)
        if where == "corpus":
            for called, found in CORPORA.items():
                inner += _sections(found, where, _summary(found), corpus=called)
        elif where == "search":
            inner += _sections(SearchRange, f"search.{NAME}", said)
        elif _is_section(hint):
            inner += _sections(hint, where, said or _summary(hint), defaults=default)
        else:
            needed = default is MISSING or where == "corpus.kind"
            text = "" if needed else _as_yaml(default)
            own.append(Key(path=where, takes=_takes(hint), default=text, meaning=said))
    yield Section(path=path, kind=corpus, meaning=meaning, keys=tuple(own))
    yield from inner


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and (issubclass(hint, BaseModel) or is_dataclass(hint))


def _hints(kind: Any) -> dict[str, Any]:
    """The fields of a class and their types, with bounds."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = kind.model_fields if issubclass(kind, BaseModel) else [f.name for f in fields(kind)]
    return {name: hints[name] for name in names}


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")


def _docstrings(kind: type) -> dict[str, str]:
    """What stands under the fields of a class, and of those that it derives from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.partition(".")[0] not in ("model", "study"):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[ast.unparse(field.target)] = inspect.cleandoc(ast.literal_eval(text.value))
    return found


def _default(kind: Any, name: str) -> Any:
    """A field's default, or `MISSING`."""
    if issubclass(kind, BaseModel):
        field = kind.model_fields[name]
        return MISSING if field.is_required() else field.get_default(call_default_factory=True)
    (given,) = (field for field in fields(kind) if field.name == name)
    return given.default if given.default_factory is MISSING else given.default_factory()


def _as_yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, Path):
        value = str(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def _takes(hint: Any) -> str:
    """A type in words: whole number, at least 1; or null."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return ", ".join([_takes(arguments[0]), *_bounds(arguments[1:])])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        parts = [
            _takes(argument)
            for argument in arguments
            if argument is not int or float not in arguments
        ]
        return (", or " if "," in parts[0] else " or ").join(parts)
    if origin is tuple:
        return f"list of: {_takes(arguments[0])}"
    return _WORDS[origin or hint]


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for bound in metadata:
        for kind, attribute, word in _BOUNDS:
            if isinstance(bound, kind):
                yield f"{word} {getattr(bound, attribute):g}"
