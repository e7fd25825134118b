"""`python -m study count`: what networks cost, without a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from model.config import NetworkConfig, conflicts
from model.counting import Cost, cost
from study.anchors import ANCHORS, RECIPES, VOCABULARIES
from study.config_file import read_value
from study.errors import InputError, nearest

VOCABULARY = 500
"""Of a shape that is no published recipe."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A network and what it costs."""

    name: str
    vocabulary: int
    cost: Cost


def count(words: list[str], *, mels: int, vocabulary: int | None) -> list[Counted]:
    """Count the networks that words describe.

    A word without `=` names a published recipe; `key=value` sets a key of `network`, of the recipe
    before it or of the defaults. Raises `InputError` on words that mean nothing, and on networks
    that cannot be built.
    """
    counted = []
    for name, changes in _shapes(words):
        values = {**ANCHORS.get(name, {}), **RECIPES.get(name, {}), **changes}
        try:
            network = TypeAdapter(NetworkConfig).validate_python(values)
        except ValidationError as error:
            raise InputError(
                [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            ) from None
        faults = [fault for _, fault in conflicts(network)]
        if faults:
            raise InputError(faults)
        size = vocabulary or VOCABULARIES.get(name, VOCABULARY)
        shown = " ".join([*([name] if name else []), *(f"{k}={v}" for k, v in changes.items())])
        counted.append(
            Counted(name=shown, vocabulary=size, cost=cost(network, mels=mels, vocabulary=size))
        )
    return counted


def _shapes(words: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Recipes' names, each with the changes that follow it."""
    shapes: list[tuple[str, dict[str, Any]]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            if key not in NetworkConfig.__dataclass_fields__:
                names = NetworkConfig.__dataclass_fields__
                raise InputError(f"{word}: network has no key '{key}'{nearest(key, names)}")
            if not shapes:
                shapes.append(("", {}))
            shapes[-1][1][key] = read_value(word, value)
        elif word in ANCHORS:
            shapes.append((word, {}))
        else:
            known = ", ".join(ANCHORS)
            raise InputError(f"there is no recipe '{word}'{nearest(word, ANCHORS) or ': ' + known}")
    return shapes


def show(counted: list[Counted], console: Console) -> None:
    """Print a row for each part of each network."""
    for network in counted:
        table = Table(
            title=f"{network.name}, vocabulary {network.vocabulary}",
            title_justify="left",
            box=None,
            show_header=False,
            padding=(0, 2),
        )
        table.add_column()
        table.add_column(justify="right")
        for part, parameters in network.cost.parts.items():
            if parameters:
                table.add_row(part, f"{parameters:,} parameters")
        table.add_row("[bold]together[/]", f"[bold]{network.cost.parameters:,} parameters[/]")
        gigaflops = network.cost.flops_per_second / 1e9
        table.add_row("forward, per second of speech", f"{gigaflops:.3g} GFLOPs")
        console.print(table)
