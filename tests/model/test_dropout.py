"""Dropout drops at its rate, keeps the mean, and repeats itself from the same seed."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest

from model.dropout import Dropout, draw_mask


@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.1, 0.5, 0.999999, 1.0])
def test_values_are_dropped_at_the_rate_and_the_others_scaled(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 101)  # not a multiple of the elements that share a random number
    y = Dropout(rate)(x)
    dropped = int((y == 0).sum())
    assert binomtest(dropped, x.numel(), rate).pvalue > 1e-3
    assert len(y[y != 0].unique()) <= 1
    if dropped < x.numel():
        assert abs(float(y.mean()) - 1) < 5 * (rate / (1 - rate) / x.numel()) ** 0.5 + 1e-4


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (draw_mask(torch.empty(400_000), 0.3) == 0).float() - 0.3
    for distance in (1, 2, 3, 4, 5, 8):
        covariance = (dropped[distance:] * dropped[:-distance]).mean() / (0.3 * 0.7)
        assert abs(float(covariance)) < 5 / 400_000**0.5


def test_the_gradient_is_that_of_what_was_kept() -> None:
    torch.manual_seed(0)
    x = torch.ones(50, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach(), atol=0, rtol=0)


def test_the_same_seed_drops_the_same_and_evaluation_drops_nothing() -> None:
    dropout, x = Dropout(0.3), torch.randn(7, 5)
    torch.manual_seed(4)
    first = dropout(x)
    torch.manual_seed(4)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(dropout(x), first)
    assert torch.equal(dropout.eval()(x), x)


def test_nothing_is_dropped_of_nothing() -> None:
    assert Dropout(0.5)(torch.empty(0, 3)).shape == (0, 3)
