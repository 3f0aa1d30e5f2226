"""Intervals and fits, compared with closed forms, counting and simulation."""

import math
from itertools import combinations

import numpy as np
import pytest

from games.stats import davidson_logits, log_softmax, mean_interval, newton, pass_at, wilson


def test_wilsons_interval_is_the_one_worked_by_hand_and_stays_between_0_and_1():
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    assert wilson(1, 100) == pytest.approx((0.00177, 0.05449), abs=1e-5)
    for n in range(1, 60):
        for wins in range(n + 1):
            low, high = wilson(wins, n)
            assert 0 <= low <= high <= 1 and low - 1e-12 <= wins / n <= high + 1e-12
    assert wilson(0, 0) == (0.0, 1.0)


def test_an_interval_holds_the_mean_95_times_in_100():
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.exponential(2.0, 200)) for _ in range(500)]
    assert 0.91 < np.mean([low < 2 < high for low, high in intervals]) < 0.98
    assert mean_interval([1.0]) is None


def test_pass_at_is_unbiased():
    """Compared with all ways to draw k of n."""
    for n, c in ((5, 0), (5, 2), (6, 6), (4, 1)):
        for k in range(1, n + 1):
            draws = list(combinations(range(n), k))
            assert math.isclose(pass_at(n, c, k), sum(min(draw) < c for draw in draws) / len(draws))


def test_newton_finds_the_minimum():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(50, 3, 4))
    counts = rng.integers(0, 5, (50, 3)).astype(float)
    value = lambda x: 0.5 * x @ x - (counts * log_softmax(design @ x)).sum()
    best = newton(design, counts, 1.0)
    for k in range(4):
        step = 1e-5 * np.eye(4)[k]
        assert abs(value(best + step) - value(best - step)) / 2e-5 < 1e-4
    np.testing.assert_allclose(newton(design, counts, 1.0, 30 * rng.normal(size=4)), best, atol=1e-6)


def test_newton_fits_the_share_of_each_outcome():
    """With logits (d / 2, -d / 2, c) the shares a, b, t give d = ln(a / b) and e^c = t / sqrt(a b)."""
    design = np.array([[[0.5, 0.0], [-0.5, 0.0], [0.0, 1.0]]])
    d, c = newton(design, np.array([[50.0, 20.0, 30.0]]), 1e-9)
    assert d == pytest.approx(np.log(50 / 20)) and np.exp(c) == pytest.approx(30 / 1000**0.5)


def test_davidsons_chances_follow_the_difference_and_the_ties_of_both():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 9, 2))
    chances = np.exp(log_softmax(davidson_logits(first, second)))
    np.testing.assert_allclose(chances.sum(1), 1)
    np.testing.assert_allclose(chances[:, 0] / chances[:, 1], np.exp(first[:, 0] - second[:, 0]))
    tie = chances[:, 2] / np.sqrt(chances[:, 0] * chances[:, 1])
    np.testing.assert_allclose(tie, np.exp(first[:, 1] + second[:, 1]))


def test_log_softmax_of_logits_of_any_size():
    found = log_softmax(np.array([1000.0, 1000.0, -1000.0]))
    np.testing.assert_allclose(found, [-np.log(2), -np.log(2), -2000 - np.log(2)])
