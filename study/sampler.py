"""What is tried next.

Phase 1 is a scrambled Sobol sequence (Owen 1998), known before the study begins. Phase 2 is
Optuna's tree-structured Parzen estimator, which sees ordered choices as places in their list, so
that 32, 48, 64, 96 are evenly spaced and keep their order.

No state outlives a call: what is proposed for a trial follows from the study's seed, the trial's
number and the trials before it, so that several workers never repeat each other and a resumed study
goes on as it would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from study.space import Dimension, Number

STARTUP = 5
"""Finished trials that the Parzen estimator waits for; it draws at random until then."""


def derived_seed(*parts: int) -> int:
    """A seed of 31 bits that differs with every part."""
    return int(
        np.random.SeedSequence([part & 0xFFFFFFFF for part in parts]).generate_state(1)[0] >> 1
    )


def even_sample(space: Mapping[str, Dimension], count: int, seed: int) -> list[dict[str, Number]]:
    """The first `count` configurations of a scrambled Sobol sequence over the space.

    A longer sample begins with the shorter one, so that a study can be extended.
    """
    if not space or not count:
        return [{} for _ in range(count)]
    from scipy.stats import qmc  # takes a second, and only the start of a study needs it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # balance at powers of two: any count will do
        points = qmc.Sobol(len(space), scramble=True, rng=seed).random(count)
    return [
        {
            name: dimension.at(unit)
            for (name, dimension), unit in zip(space.items(), point, strict=True)
        }
        for point in points
    ]


class OrderedSampler(optuna.samplers.BaseSampler):
    """Proposes the parameters of phase 2."""

    def __init__(self, space: Mapping[str, Dimension], *, seed: int, kind: str = "tpe") -> None:
        self._space = space
        self._seed = seed
        self._kind = kind
        self._finished: dict[int, FrozenTrial | None] = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All searched parameters, since they are sampled together."""
        del study, trial
        return {
            name: _distribution(*dimension.extremes, dimension, places=False)
            for name, dimension in self._space.items()
        }

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The parameters of a trial."""
        seed = derived_seed(self._seed, trial.number)
        if self._kind == "random":
            sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        shadow = optuna.create_study(sampler=sampler)
        shadow.add_trials(
            [
                image
                for other in study.get_trials(deepcopy=False)
                if other.number != trial.number and (image := self._image(other)) is not None
            ]
        )
        places = {
            name: _distribution(*dimension.extremes, dimension, places=True)
            for name, dimension in self._space.items()
        }
        asked = shadow.ask(places).params
        return {
            name: dimension.values[asked[name]] if dimension.values else asked[name]
            for name, dimension in self._space.items()
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Refuse: every searched parameter is in the relative space."""
        raise KeyError(f"{param_name} is not a searched parameter")

    def _image(self, trial: FrozenTrial) -> FrozenTrial | None:
        """A trial with places for values; None where it lies outside the space or has not begun."""
        if trial.number in self._finished:
            return self._finished[trial.number]
        image = None
        # Finalists were chosen for their WER, and many of one configuration would weigh too much.
        if (
            trial.state not in (TrialState.WAITING, TrialState.FAIL)
            and trial.user_attrs.get("phase") != "finalist"
        ) and all(
            name in trial.params and trial.params[name] in dimension
            for name, dimension in self._space.items()
        ):
            image = optuna.trial.create_trial(
                state=trial.state,
                params={
                    name: dimension.values.index(trial.params[name])
                    if dimension.values
                    else trial.params[name]
                    for name, dimension in self._space.items()
                },
                distributions={
                    name: _distribution(*dimension.extremes, dimension, places=True)
                    for name, dimension in self._space.items()
                },
                value=trial.value,
                intermediate_values=trial.intermediate_values,
                constraints=trial.constraints,
            )
        if trial.state.is_finished():
            self._finished[trial.number] = image
        return image


def _distribution(
    low: Number, high: Number, dimension: Dimension, *, places: bool
) -> BaseDistribution:
    """Optuna's distribution of a dimension: over its values, or over places in their list."""
    if dimension.values and places:
        return IntDistribution(0, len(dimension.values) - 1)
    if dimension.values and all(isinstance(value, int) for value in dimension.values):
        return IntDistribution(int(low), int(high))
    return FloatDistribution(float(low), float(high), log=dimension.log)
