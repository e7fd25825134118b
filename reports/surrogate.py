"""A Gaussian process over the search space: what WER any configuration would have, and how surely.

    surrogate = Surrogate.fit(units, wers, seed=0)      # units: (N, D) places in [0, 1]
    paths = surrogate.paths(elsewhere)                  # (S, M) draws of the WER at M other places

Each row of `paths` is one whole surface that agrees with the trials, so whatever is computed from
a surface (a mean over the other hyperparameters, a minimum over the learning rate, the best value)
is computed per row, and the spread over the rows is its uncertainty. It covers three things: the
noise of training with another seed, the places where no trial was, and not knowing how smooth the
surface is.

The kernel is a Matérn 5/2 with a length scale per hyperparameter (Rasmussen and Williams 2006,
section 4.2.1) plus white noise. Its parameters are not fixed at their best fit, which would be
overconfident with a few dozen trials: they are drawn from their posterior, by importance sampling
around its mode (Laplace's approximation with the weights of Ionides 2008 as a correction). Surfaces
are drawn by conditioning random Fourier features on the trials (Wilson et al. 2020, arXiv
2002.09309), whose cost grows with the number of places only linearly.

    N trials, D hyperparameters, M places, S draws
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FEWEST = 4
"""Trials without which no surface is fitted."""
MOST = 400
"""Trials beyond which the fit takes too long; an even selection of them is used."""
KERNELS = 32
"""Draws of the kernel's parameters."""
PATHS = 16
"""Surfaces drawn with each."""

_PROPOSALS = 256
_FEATURES = 512
_FREEDOM = 5.0  # of the t distribution that a Matérn 5/2 has for its spectrum
_CONSTANT = 4.0  # variance of the unknown mean level, in units of the variance of the trials
_SQRT5 = math.sqrt(5.0)

# Priors, normal in the logarithm, in units of the cube's edge and of the standard deviation of WER.
_LENGTH = (math.log(1.5), 1.0)
_SCALE = (math.log(1.0), 0.7)
_NOISE = (math.log(0.3), 1.2)


@dataclass(frozen=True, kw_only=True)
class Warp:
    """A monotone change of scale: on the logarithm, noise grows with the WER itself."""

    log: bool
    floor: float
    centre: float
    spread: float

    @classmethod
    def of(cls, wers: Array, *, log: bool, floor: float) -> Warp:
        """Return the scale on which these WERs have mean 0 and standard deviation 1."""
        raw = np.log(wers + floor) if log else wers
        return cls(log=log, floor=floor, centre=float(raw.mean()), spread=float(raw.std()) or 1.0)

    def forward(self, wers: Array) -> Array:
        """Map WERs to the scale."""
        raw = np.log(wers + self.floor) if self.log else wers
        return (raw - self.centre) / self.spread

    def inverse(self, values: Array) -> Array:
        """Map places on the scale back to WERs; none is below 0."""
        raw = values * self.spread + self.centre
        return np.maximum(np.exp(np.minimum(raw, 5.0)) - self.floor if self.log else raw, 0.0)

    def log_jacobian(self, wers: Array) -> float:
        """Return what makes likelihoods on different scales comparable."""
        slope = -np.log(wers + self.floor) if self.log else np.zeros_like(wers)
        return float(np.sum(slope)) - len(wers) * math.log(self.spread)


def _matern(squares: Array) -> Array:
    """Return the correlation at squared scaled distances."""
    distance = np.sqrt(5.0 * squares)
    correlation: Array = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
    return correlation


class _Posterior:
    """The density of the kernel's parameters θ = log (ℓ_1 … ℓ_D, s, σ) given the trials."""

    def __init__(self, units: Array, targets: Array) -> None:
        self.targets = targets
        self.squares = (units.T[:, :, None] - units.T[:, None, :]) ** 2  # (D, N, N)
        dimensions = units.shape[1]
        self.centre = np.array([_LENGTH[0]] * dimensions + [_SCALE[0], _NOISE[0]])
        self.spread = np.array([_LENGTH[1]] * dimensions + [_SCALE[1], _NOISE[1]])

    def value(self, theta: Array) -> float:
        """Return the logarithm of the density, up to a constant."""
        return self._evaluate(theta, gradient=False)[0]

    def negative(self, theta: Array) -> tuple[float, Array]:
        """Return the negative logarithm of the density and its gradient."""
        value, gradient = self._evaluate(theta, gradient=True)
        return -value, -gradient

    def _evaluate(self, theta: Array, *, gradient: bool) -> tuple[float, Array]:
        n, lengths = len(self.targets), np.exp(theta[:-2])
        scale, noise = np.exp(2 * theta[-2]), np.exp(2 * theta[-1])
        scaled = np.tensordot(lengths**-2, self.squares, axes=1)
        correlation = _matern(scaled)
        total = scale * correlation + _CONSTANT
        total[np.diag_indices(n)] += noise + 1e-8
        away = (theta - self.centre) / self.spread
        try:
            factor = cho_factor(total, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            return -1e10, np.zeros_like(theta)
        weights = cho_solve(factor, self.targets, check_finite=False)
        value = (
            -0.5 * self.targets @ weights
            - np.log(np.diag(factor[0])).sum()
            - 0.5 * float(away @ away)
        )
        if not gradient:
            return float(value), np.empty(0)
        inverse = cho_solve(factor, np.eye(n), check_finite=False)
        pull = np.outer(weights, weights) - inverse
        slope = (
            pull * (scale * 5.0 / 3.0) * (1 + np.sqrt(5 * scaled)) * np.exp(-np.sqrt(5 * scaled))
        )
        by_length = 0.5 * np.tensordot(self.squares, slope, axes=2) / lengths**2
        by_scale = float((pull * correlation).sum()) * scale
        by_noise = float(np.trace(pull)) * noise
        return float(value), np.array([*by_length, by_scale, by_noise]) - away / self.spread

    def draws(self, count: int, rng: np.random.Generator) -> tuple[Array, float]:
        """Return `count` draws of θ and the logarithm of the evidence (up to a constant)."""
        start = self.centre.copy()
        found = minimize(self.negative, start, jac=True, method="L-BFGS-B", options={"maxiter": 80})
        mode, size = found.x, len(start)
        step = 1e-3
        hessian = np.array(
            [
                (self.negative(mode + step * e)[1] - self.negative(mode - step * e)[1]) / (2 * step)
                for e in np.eye(size)
            ]
        )
        curvature, axes = np.linalg.eigh((hessian + hessian.T) / 2)
        # Never wider than the prior, whose curvature the posterior has at least.
        widths = 1 / np.sqrt(np.maximum(curvature, 0.5 / self.spread.max() ** 2))
        normal = rng.standard_normal((_PROPOSALS, size))
        tails = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, _PROPOSALS))
        proposals = mode + (normal * tails[:, None] * widths) @ axes.T
        distance = (normal**2).sum(axis=1) * tails**2
        log_proposal = -0.5 * (_FREEDOM + size) * np.log1p(distance / _FREEDOM)
        log_weights = np.array([self.value(theta) for theta in proposals]) - log_proposal
        log_weights -= log_weights.max()
        weights = np.exp(log_weights)
        weights = np.minimum(weights, weights.mean() * math.sqrt(_PROPOSALS))  # Ionides 2008
        evidence = -float(found.fun) + float(np.log(widths).sum())
        chosen = rng.choice(_PROPOSALS, size=count, p=weights / weights.sum())
        return proposals[chosen], evidence


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A posterior over surfaces."""

    units: Array
    """`(N, D)`: where the trials are."""
    targets: Array
    """`(N,)`: their WERs on the scale of `warp`."""
    warp: Warp
    thetas: Array
    """`(KERNELS, D + 2)`: draws of the logarithms of length scales, scale and noise."""
    seed: int

    @classmethod
    def fit(cls, units: Array, wers: Array, *, floor: float = 1e-3, seed: int = 0) -> Surrogate:
        """Fit trials at `units` `(N, D)` with `wers` `(N,)`, fractions.

        `floor` is added before the logarithm is taken: about half a word of dev. Whether the noise
        is better told on the logarithm or as it is, the trials decide (by the evidence).
        """
        if len(wers) < FEWEST:
            raise ValueError(f"a surface needs at least {FEWEST} trials, not {len(wers)}")
        if len(wers) > MOST:
            chosen = np.linspace(0, len(wers) - 1, MOST).round().astype(int)
            units, wers = units[chosen], wers[chosen]
        candidates = []
        for log in (True, False):
            warp = Warp.of(wers, log=log, floor=floor)
            targets = warp.forward(wers)
            thetas, evidence = _Posterior(units, targets).draws(
                KERNELS, np.random.default_rng([seed, int(log)])
            )
            evidence += warp.log_jacobian(wers)
            surrogate = cls(units=units, targets=targets, warp=warp, thetas=thetas, seed=seed)
            candidates.append((evidence, surrogate))
        return max(candidates, key=lambda pair: pair[0])[1]

    @property
    def noise(self) -> Array:
        """`(KERNELS,)`: standard deviations of the noise, on the scale of `warp`."""
        return np.exp(self.thetas[:, -1])

    def mean(self, places: Array) -> Array:
        """Return the expected WER at `places` `(M, D)`, on average over some of the kernels."""
        total = np.zeros(len(places))
        thetas = self.thetas[:: max(1, len(self.thetas) // 8)]
        for theta in thetas:
            weights = cho_solve(self._factor(theta), self.targets)
            for rows in _blocks(len(places)):
                total[rows] += self._covariance(theta, places[rows]) @ weights
        return self.warp.inverse(total / len(thetas))

    def left_out(self) -> Array:
        """Predict each trial from all others (Rasmussen and Williams 2006, equation 5.12): WERs."""
        total = np.zeros(len(self.targets))
        for theta in self.thetas:
            inverse = cho_solve(self._factor(theta), np.eye(len(self.targets)))
            total += self.targets - (inverse @ self.targets) / np.diag(inverse)
        return self.warp.inverse(total / len(self.thetas))

    def paths(self, places: Array, per_kernel: int = PATHS) -> NDArray[np.float32]:
        """Draw surfaces at `places` `(M, D)`; returns WERs `(KERNELS · per_kernel, M)`.

        The same surrogate gives the same surfaces each time: values at different places that were
        asked for in different calls belong together.
        """
        found = np.empty((len(self.thetas) * per_kernel, len(places)), dtype=np.float32)
        for k, theta in enumerate(self.thetas):
            rng = np.random.default_rng([self.seed, 2, k])
            rows = slice(k * per_kernel, (k + 1) * per_kernel)
            found[rows] = self.warp.inverse(self._paths(theta, places, per_kernel, rng).T)
        return found

    def _paths(self, theta: Array, places: Array, count: int, rng: np.random.Generator) -> Array:
        """Draw surfaces of one kernel: a prior surface, and the correction that the trials ask."""
        n, dimensions = self.units.shape
        lengths, scale, noise = np.exp(theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
        normal = rng.standard_normal((dimensions, _FEATURES))
        normal /= np.sqrt(rng.chisquare(_FREEDOM, _FEATURES) / _FREEDOM)
        frequencies = normal / lengths[:, None]
        phases = rng.uniform(0, 2 * np.pi, _FEATURES)
        weights = rng.standard_normal((_FEATURES, count)) * scale * math.sqrt(2 / _FEATURES)
        level = rng.standard_normal(count) * math.sqrt(_CONSTANT)
        disturbance = rng.standard_normal((n, count)) * noise

        def prior(x: Array) -> Array:
            surface: Array = np.cos(x @ frequencies + phases) @ weights + level
            return surface

        correction = cho_solve(
            self._factor(theta), self.targets[:, None] - prior(self.units) - disturbance
        )
        found = np.empty((len(places), count))
        for rows in _blocks(len(places)):
            block = places[rows]
            found[rows] = prior(block) + self._covariance(theta, block) @ correction
        return found

    def _covariance(self, theta: Array, places: Array) -> Array:
        """Return the covariance between the surface at `places` and at the trials, `(M, N)`."""
        lengths, scale = np.exp(theta[:-2]), np.exp(2 * theta[-2])
        squares = _squared_distances(places / lengths, self.units / lengths)
        return np.asarray(scale * _matern(squares) + _CONSTANT)

    def _factor(self, theta: Array) -> tuple[Array, bool]:
        """Return the Cholesky factor of the covariance of the trials."""
        total = self._covariance(theta, self.units)
        total[np.diag_indices(len(total))] += np.exp(2 * theta[-1]) + 1e-8
        lower, is_lower = cho_factor(total, lower=True)
        return lower, bool(is_lower)


def _blocks(count: int) -> Iterator[slice]:
    """Cut a range into pieces that keep memory small."""
    return (slice(first, first + 8192) for first in range(0, count, 8192))


def _squared_distances(left: Array, right: Array) -> Array:
    """Return squared distances between rows, `(M, D)` and `(N, D)` -> `(M, N)`."""
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
    return np.asarray(np.maximum(squares, 0.0))
