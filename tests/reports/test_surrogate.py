"""The surrogate against an independent Gaussian process and against what it must not do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from reports.surrogate import Surrogate, Warp, _Posterior


def _trials(n: int = 40, noise: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    units = rng.uniform(size=(n, 3))
    wers = 0.1 + 0.2 * (units[:, 0] - 0.4) ** 2 + 0.1 * units[:, 1] + noise * rng.normal(size=n)
    return units, wers


def test_too_few_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 trials, not 3"):
        Surrogate.fit(np.zeros((3, 2)), np.array([0.1, 0.2, 0.3]))


def test_equal_wers_give_that_wer() -> None:
    surrogate = Surrogate.fit(np.random.default_rng(0).uniform(size=(8, 2)), np.full(8, 0.25))
    assert surrogate.mean(np.full((1, 2), 0.5)) == pytest.approx(0.25, rel=0.05)


def test_a_wer_of_zero_and_one_above_100_percent_are_finite() -> None:
    units, wers = _trials()
    wers[0], wers[1] = 0.0, 1.7
    paths = Surrogate.fit(units, wers).paths(units)
    assert np.isfinite(paths).all()
    assert (paths >= 0).all()


def test_the_density_is_that_of_an_independent_implementation() -> None:
    units, wers = _trials()
    targets = Warp.of(wers, log=False, floor=0.0).forward(wers)
    posterior = _Posterior(units, targets)
    theta = np.log([0.7, 1.3, 2.0, 1.1, 0.2])
    lengths, scale, noise = np.exp(theta[:3]), np.exp(2 * theta[3]), np.exp(2 * theta[4])
    kernel = scale * Matern(lengths, nu=2.5) + ConstantKernel(4.0) + WhiteKernel(noise)
    reference = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None).fit(units, targets)
    away = (theta - posterior.centre) / posterior.spread
    expected = reference.log_marginal_likelihood_value_ + 0.5 * len(wers) * np.log(2 * np.pi)
    assert posterior.value(theta) == pytest.approx(expected - 0.5 * away @ away, abs=1e-6)


def test_the_gradient_is_that_of_finite_differences() -> None:
    units, wers = _trials()
    posterior = _Posterior(units, Warp.of(wers, log=True, floor=1e-3).forward(wers))
    theta = np.log([0.7, 1.3, 2.0, 1.1, 0.2])
    _, gradient = posterior.negative(theta)
    for place, step in enumerate(1e-5 * np.eye(5)):
        slope = (posterior.value(theta - step) - posterior.value(theta + step)) / 2e-5
        assert gradient[place] == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_drawn_surfaces_have_the_mean_and_spread_of_the_exact_posterior() -> None:
    units, wers = _trials()
    surrogate = Surrogate.fit(units, wers)
    theta = surrogate.thetas[0]
    one = Surrogate(
        units=units, targets=surrogate.targets, warp=surrogate.warp, thetas=theta[None], seed=1
    )
    lengths, scale, noise = np.exp(theta[:3]), np.exp(2 * theta[3]), np.exp(2 * theta[4])
    kernel = scale * Matern(lengths, nu=2.5) + ConstantKernel(4.0) + WhiteKernel(noise)
    exact = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None)
    places = np.random.default_rng(1).uniform(size=(20, 3))
    mean, deviation = exact.fit(units, surrogate.targets).predict(places, return_std=True)
    deviation = np.sqrt(np.maximum(deviation**2 - noise, 0))  # of the surface, without the noise
    drawn = surrogate.warp.forward(one.paths(places, 4000).astype(float))
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.05)
    assert drawn.std(axis=0) == pytest.approx(deviation, rel=0.25, abs=0.01)


def test_surfaces_asked_for_in_two_calls_belong_together() -> None:
    units, wers = _trials()
    surrogate = Surrogate.fit(units, wers)
    together = surrogate.paths(units)
    apart = np.hstack([surrogate.paths(units[:7]), surrogate.paths(units[7:])])
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-6)


def test_trials_left_out_are_predicted_where_there_is_something_to_predict() -> None:
    units, wers = _trials(noise=0.002)
    told = Surrogate.fit(units, wers).left_out()
    assert np.corrcoef(told, wers)[0, 1] > 0.9
    shuffled = np.random.default_rng(3).permutation(wers)
    told = Surrogate.fit(units, shuffled).left_out()
    assert np.corrcoef(told, shuffled)[0, 1] < 0.4


def test_many_trials_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.surrogate.MOST", 21)
    units, wers = _trials(n=61)
    thinned = Surrogate.fit(units, wers)
    every_third = Surrogate.fit(units[::3], wers[::3])
    np.testing.assert_array_equal(thinned.mean(units), every_third.mean(units))
    assert len(thinned.targets) == 21
