"""What is tried next.

Phase 1 is a scrambled Sobol sequence (Owen 1998), known before the study begins. Phase 2 is
Optuna's tree-structured Parzen estimator, which sees ordered choices as places in their list, so
that 32, 48, 64, 96 are evenly spaced and keep their order.

No state outlives a call: what is proposed for a trial follows from the study's seed, the trial's
number and the trials before it, so that several workers never repeat each other and a resumed study
goes on as it would have.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from study.space import Dimension, Number

STARTUP = 5
"""Finished trials that the Parzen estimator waits for; it draws at random until then."""
CONSTRAINT = "could_not_be_trained"
"""Violated by trials that diverged or ran out of memory; all others have it at zero, since the
estimator takes a trial without it for infeasible."""
REMEMBERED = 300
"""Finished trials that the Parzen estimator learns from, so that a proposal takes the same time
however long a study gets."""
BEST = 50
"""The best that are always among them: twice as many as it takes for good."""


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
        self._usable: dict[int, bool] = {}
        self._goodness: dict[int, Goodness] = {}

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
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        usable = [other for other in others if self._is_usable(other)]
        shadow.add_trials([self._image(o) for o in remembered(usable, self._goodness)])
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

    def _is_usable(self, trial: FrozenTrial) -> bool:
        """Whether something can be learnt from a trial: it was begun, inside the space."""
        known = self._usable.get(trial.number)
        if known is None:
            # Finalists were chosen for their WER, and many of one configuration would weigh too
            # much.
            known = (
                trial.state != TrialState.FAIL
                and (trial.state != TrialState.WAITING or bool(trial.intermediate_values))
                and trial.user_attrs.get("phase") != "finalist"
                and all(
                    name in trial.params and trial.params[name] in dimension
                    for name, dimension in self._space.items()
                )
            )
            if trial.state.is_finished():
                self._usable[trial.number] = known
        return known

    def _image(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial with places for values; one that waits half-way counts as pruned there."""
        waits = trial.state == TrialState.WAITING
        return optuna.trial.create_trial(
            state=TrialState.PRUNED if waits else trial.state,
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
            constraints={CONSTRAINT: 0.0} if waits else trial.constraints,
        )


Goodness = tuple[bool, bool, float]


def remembered(
    trials: Sequence[FrozenTrial], known: dict[int, Goodness] | None = None
) -> list[FrozenTrial]:
    """All trials that run, and of the finished ones the best and an even choice of the others.

    `known` keeps how good finished trials are, by their numbers: that does not change any more.
    """
    finished = [trial for trial in trials if trial.state.is_finished()]
    if len(finished) <= REMEMBERED:
        return list(trials)
    known = {} if known is None else known
    for trial in finished:
        if trial.number not in known:
            known[trial.number] = _goodness(trial)
    best = heapq.nsmallest(BEST, finished, key=lambda trial: known[trial.number])
    numbers = {trial.number for trial in best}
    others = [trial for trial in finished if trial.number not in numbers]
    places = np.linspace(0, len(others) - 1, REMEMBERED - BEST).round().astype(int)
    numbers |= {others[place].number for place in places}
    return [t for t in trials if t.number in numbers or not t.state.is_finished()]


def _goodness(trial: FrozenTrial) -> Goodness:
    """The estimator's order: what could be trained, what was trained to the end, the value."""
    infeasible = any(violation > 0 for violation in trial.constraints.values())
    value = math.inf if trial.value is None else trial.value
    return infeasible, trial.state != TrialState.COMPLETE, value


def _distribution(
    low: Number, high: Number, dimension: Dimension, *, places: bool
) -> BaseDistribution:
    """Optuna's distribution of a dimension: over its values, or over places in their list."""
    if dimension.values and places:
        return IntDistribution(0, len(dimension.values) - 1)
    if dimension.values and all(isinstance(value, int) for value in dimension.values):
        return IntDistribution(int(low), int(high))
    return FloatDistribution(float(low), float(high), log=dimension.log)
