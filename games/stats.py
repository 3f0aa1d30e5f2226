"""Figures with intervals, and the fits behind ratings; numpy only.

Every model fitted here is a softmax over logits that are linear in its parameters, so one function, `newton`,
fits them all."""

import math

import numpy as np

SCALE = 400 / np.log(10)  # rating points of one logit: 400 points are odds of ten to one


# ------------------------------------------------------------------------------------------------ intervals
def wilson(wins, n):
    """The 95 % Wilson score interval of a rate wins / n: (low, high)."""
    if n == 0:
        return 0.0, 1.0
    z = 1.96
    rate = wins / n
    centre = rate + z * z / (2 * n)
    spread = z * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    # rounding leaves the ends a hair outside
    return max((centre - spread) / scale, 0.0), min((centre + spread) / scale, 1.0)


def mean_interval(values):
    """The 95 % interval of the mean of independent values by the normal approximation: (low, high), or None
    for a single value."""
    if len(values) < 2:
        return None
    centre = np.mean(values)
    spread = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
    return float(centre - spread), float(centre + spread)


def pass_at(n, c, k):
    """The chance that k of n attempts, drawn without replacement, hold one of the c right ones: the unbiased
    estimator 1 - C(n - c, k) / C(n, k) of arXiv 2107.03374."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


# ------------------------------------------------------------------------------------------------ fits
def log_softmax(logits):
    """Over the last axis."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def davidson_logits(first, second):
    """Logits (N, 3) that the first, the second and neither of two is better: (d / 2, -d / 2, c), Davidson's
    model of comparisons with ties (doi 10.1080/01621459.1970.10481082). first, second (N, 2): the worth of
    each, of which d is the difference, and what each adds to c."""
    half = (first[:, 0] - second[:, 0]) / 2
    tie = first[:, 1] + second[:, 1]
    return np.stack([half, -half, tie], 1)


def newton(design, counts, ridge, x=None):
    """The parameters x (P,) that minimise ridge / 2 |x|^2 - sum(counts log softmax(design @ x)), which is
    convex. design: (N, K, P); counts: (N, K), how often each of K outcomes was seen; x: where to start."""
    width = design.shape[-1]
    flat = design.reshape(-1, width)
    total = counts.sum(1, keepdims=True)
    value = lambda x: ridge / 2 * x @ x - (counts * log_softmax(design @ x)).sum()
    x = np.zeros(width) if x is None else x
    best = value(x)
    for _ in range(100):
        expected = total * np.exp(log_softmax(design @ x))  # (N, K)
        mean = np.einsum("nk,nkp->np", expected, design)  # times total
        gradient = flat.T @ (expected - counts).ravel() + ridge * x
        hessian = flat.T @ (expected.reshape(-1, 1) * flat) - mean.T @ (mean / np.maximum(total, 1e-9))
        step = np.linalg.solve(hessian + ridge * np.eye(width), gradient)
        while np.abs(step).max() > 1e-7 and value(x - step) > best:
            step = step / 2  # Newton's step is too long where the sum is far from a parabola
        if np.abs(step).max() <= 1e-7:
            break
        x = x - step
        best = value(x)
    return x
