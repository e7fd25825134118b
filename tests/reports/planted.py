"""Surfaces with a planted truth: the WER of every configuration is known, so answers can be marked.

surface = Surface.draw(np.random.default_rng(3))
surface.wer({"encoder_layers": 2, ..., "learning_rate": 3e-3})
surface.effect("encoder_layers")      # the true answer: WER per value, others marginalised
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SPACE: dict[str, tuple[int, ...]] = {
    "encoder_layers": (1, 2, 3, 4),
    "encoder_dim": (32, 48, 64, 96),
    "attention_heads": (1, 2, 4),
    "conv_kernel_size": (3, 7, 15, 31),
    "decoder_layers": (1, 2),
    "decoder_dim": (32, 64, 96),
}
LEARNING_RATES = (5e-4, 1e-2)
FORMS = ("saturating", "linear", "bowl", "plateau")


def _form(kind: str, unit: Array, turn: float) -> Array:
    """A curve over [0, 1] that spans about 1."""
    if kind == "saturating":
        return (1 - unit) ** (1.5 + 2 * turn)
    if kind == "linear":
        return 1 - unit if turn > 0.2 else unit
    if kind == "bowl":
        width = max(turn, 1 - turn)
        return ((unit - turn) / width) ** 2
    return np.minimum(np.maximum((0.4 + 0.3 * turn - unit) / 0.5, 0), 1)  # a slope, then flat


@dataclass(frozen=True, kw_only=True)
class Surface:
    """WER = level + main effects + interactions + a penalty for a learning rate that is off."""

    level: float
    sizes: dict[str, float]
    """What lies between the best and the worst value of each, about, as a fraction."""
    forms: dict[str, tuple[str, float]]
    pairs: tuple[tuple[str, str, float], ...]
    best_rate: float
    """The best learning rate of a middling network, as a place in its range."""
    rate_shifts: dict[str, float]
    rate_size: float
    null: str
    """The question whose parameter has no effect at all."""
    multiplicative: bool
    """Whether effects multiply."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Surface:
        names = list(SPACE)
        null = str(rng.choice(names))
        sizes = {
            name: 0.0 if name == null else float(0.10 * math.exp(rng.normal(-1.6, 1.0)))
            for name in names
        }
        forms = {name: (str(rng.choice(FORMS)), float(rng.uniform())) for name in names}
        others = [name for name in names if name != null]
        pairs = []
        for _ in range(3):
            one, two = (str(name) for name in rng.choice(others, 2, replace=False))
            strength = float(rng.normal()) * math.sqrt(sizes[one] * sizes[two])
            pairs.append((one, two, strength))
        shifts = {name: float(rng.normal(0, 0.12)) for name in others}
        return cls(
            level=float(rng.uniform(0.06, 0.2)),
            sizes=sizes,
            forms=forms,
            pairs=tuple(pairs),
            best_rate=float(rng.uniform(0.3, 0.7)),
            rate_shifts=shifts,
            rate_size=float(rng.uniform(0.1, 0.5)),
            null=null,
            multiplicative=bool(rng.uniform() < 0.5),
        )

    def wers(self, units: dict[str, Array], rate: Array) -> Array:
        """WER at places in [0, 1] of each of the six and of the learning rate."""
        total = np.zeros(np.broadcast_shapes(*(u.shape for u in units.values()), rate.shape))
        for name, size in self.sizes.items():
            total = total + size * _form(self.forms[name][0], units[name], self.forms[name][1])
        for one, two, strength in self.pairs:
            total = total + strength * (units[one] - 0.5) * (units[two] - 0.5)
        best = self.best_rate + sum(
            shift * (units[name] - 0.5) for name, shift in self.rate_shifts.items()
        )
        total = total + self.rate_size * (rate - np.clip(best, 0.1, 0.9)) ** 2
        if self.multiplicative:
            total = self.level * (np.exp(total / self.level / 1.5) - 1)
        return np.asarray(np.maximum(self.level + total, 0.003))

    def wer(self, params: dict[str, Any]) -> float:
        units = {name: np.array(unit_of(name, params[name])) for name in SPACE}
        return float(self.wers(units, np.array(rate_unit(params["learning_rate"]))))

    @cached_property
    def best_per_shape(self) -> Array:
        """WER of each of the shapes at its best learning rate: one axis per question."""
        grid = np.meshgrid(*(np.linspace(0, 1, len(v)) for v in SPACE.values()), indexing="ij")
        units = {name: g[..., None] for name, g in zip(SPACE, grid, strict=True)}
        return np.asarray(self.wers(units, np.linspace(0, 1, 101)).min(axis=-1))

    def effect(self, name: str) -> Array:
        """True WER per value: mean over the other questions, learning rate at its best."""
        axis = list(SPACE).index(name)
        others = tuple(i for i in range(len(SPACE)) if i != axis)
        return np.asarray(self.best_per_shape.mean(axis=others))

    @property
    def best_wer(self) -> float:
        return float(self.best_per_shape.min())

    def shape_wer(self, shape: dict[str, Any]) -> float:
        """True WER of six values at their best learning rate."""
        return float(
            self.best_per_shape[tuple(v.index(int(shape[name])) for name, v in SPACE.items())]
        )


def unit_of(name: str, value: float) -> float:
    return SPACE[name].index(int(value)) / (len(SPACE[name]) - 1)


def rate_unit(rate: float) -> float:
    low, high = (math.log(bound) for bound in LEARNING_RATES)
    return (math.log(rate) - low) / (high - low)


def all_shapes() -> list[dict[str, int]]:
    return [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
