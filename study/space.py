"""The search space: which values each searched parameter may take.

A dimension is either an ordered list of values (depths, widths, kernels: numbers, not labels) or a
continuous range, linear or logarithmic. Samplers work on its unit interval or, for an ordered list,
on places in the list; Optuna, MLflow and the reports see the value itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    import optuna

Number = int | float

MOST_VALUES = 10_000
"""Values that an ordered list may have."""


class SearchRange(BaseModel):
    """What stands under a parameter's name in the `search` section of study.yaml."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    choices: tuple[Number, ...] | None = None
    """The values to search, in any order; they are compared as numbers."""
    low: Number | None = None
    """Smallest value."""
    high: Number | None = None
    """Largest value."""
    step: Annotated[int, Ge(1)] | None = None
    """Distance between values of a whole-number range (default 1)."""
    log: bool = False
    """Search a continuous range by its logarithm."""
    role: Literal["scientific", "nuisance"] = "scientific"
    """`scientific`: a question to answer; `nuisance`: tuned so that the comparison is fair."""

    @model_validator(mode="after")
    def _whole(self) -> SearchRange:
        if self.choices is not None:
            given = [n for n in ("low", "high", "step") if getattr(self, n) is not None]
            if given or self.log:
                raise ValueError(f"choices stand alone, without {', '.join([*given, 'log'][:1])}")
            if not self.choices:
                raise ValueError("choices are empty: name one value at least")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError("a value stands twice in choices")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give choices, or low and high")
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: swap them")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, not at {self.low}")
        return self


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One searched parameter."""

    name: str
    role: str
    values: tuple[Number, ...] = ()
    """The values of an ordered list, ascending; empty for a continuous range."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @classmethod
    def of(cls, name: str, searched: SearchRange, *, whole: bool) -> Dimension:
        """The dimension that a range describes; `whole` says that the parameter is a whole number.

        Raises `ValueError` where the range does not suit a whole number.
        """
        if searched.choices is not None:
            return cls(name=name, role=searched.role, values=tuple(sorted(searched.choices)))
        assert searched.low is not None
        assert searched.high is not None
        if not whole:
            if searched.step is not None:
                raise ValueError("step is for whole numbers: leave it out, or give choices")
            return cls(
                name=name,
                role=searched.role,
                low=float(searched.low),
                high=float(searched.high),
                log=searched.log,
            )
        if searched.log:
            raise ValueError("log is for continuous ranges: give choices, such as [8, 16, 32]")
        if searched.low != int(searched.low) or searched.high != int(searched.high):
            raise ValueError("low and high are whole numbers here")
        low, high, step = int(searched.low), int(searched.high), searched.step or 1
        if (high - low) // step >= MOST_VALUES:
            raise ValueError(f"{low} to {high} are more than {MOST_VALUES} values: give a step")
        return cls(name=name, role=searched.role, values=tuple(range(low, high + 1, step)))

    @property
    def extremes(self) -> tuple[Number, Number]:
        """The smallest and the largest value."""
        return (self.values[0], self.values[-1]) if self.values else (self.low, self.high)

    def __contains__(self, value: Number) -> bool:
        return value in self.values if self.values else self.low <= value <= self.high

    def at(self, unit: float) -> Number:
        """The value at a place of the unit interval [0, 1); equal shares for equal choices."""
        if self.values:
            return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]
        if self.log:
            return math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        return self.low + unit * (self.high - self.low)

    def suggest(self, trial: optuna.Trial) -> Number:
        """The value of this parameter in a trial, recorded under its name."""
        low, high = self.extremes
        if self.values and all(isinstance(value, int) for value in self.values):
            return trial.suggest_int(self.name, int(low), int(high))
        return trial.suggest_float(self.name, low, high, log=self.log)

    def as_attribute(self) -> dict[str, Any]:
        """What a study's storage keeps of it for readers: as under `search`, but in no doubt.

        An ordered list names every value; the ends of a continuous range are floats.
        """
        if self.values:
            return {"role": self.role, "choices": list(self.values)}
        return {"role": self.role, "low": self.low, "high": self.high, "log": self.log}

    def describe(self) -> str:
        """The values in words, for people."""
        if not self.values:
            return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"
        steps = {b - a for a, b in zip(self.values, self.values[1:], strict=False)}
        if len(self.values) > 6 and len(steps) == 1:
            return f"{self.values[0]:g}, {self.values[1]:g} … {self.values[-1]:g}"
        return ", ".join(f"{value:g}" for value in self.values)
