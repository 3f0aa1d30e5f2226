"""Intervals of measured values, and the fits behind ratings; numpy only.

Every model fitted here is a softmax over logits that are linear in its parameters, so one function, `newton`,
fits them all."""

import math

import numpy as np

SCALE = 400 / np.log(10)  # rating points of one logit, so that 400 points are odds of ten to one


# ------------------------------------------------------------------------------------------------ intervals
def wilson(wins: int, n: int) -> tuple:
    """The 95 % Wilson score interval of a rate wins / n: (low, high)."""
    if n == 0:
        return 0.0, 1.0
    z = 1.96
    rate = wins / n
    centre = rate + z * z / (2 * n)
    spread = z * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    # At 0 or n wins an end is 0 or 1 in exact arithmetic; rounding may push it a hair outside.
    low = max((centre - spread) / scale, 0.0)
    high = min((centre + spread) / scale, 1.0)
    return low, high


def mean_interval(values) -> tuple | None:
    """The 95 % interval of the mean of independent values, by the normal approximation: (low, high), or None
    for a single value."""
    if len(values) < 2:
        return None
    centre = np.mean(values)
    spread = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
    return float(centre - spread), float(centre + spread)


def pass_at(n: int, c: int, k: int) -> float:
    """The chance that at least one of k attempts is right, if the k are drawn without replacement from n
    attempts of which c are right: the unbiased estimator 1 - C(n - c, k) / C(n, k) of arXiv 2107.03374."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


# ------------------------------------------------------------------------------------------------ fits
def log_softmax(logits):
    """The log-softmax over the last axis."""
    logits = logits - logits.max(-1, keepdims=True)  # exp must not overflow
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def davidson_logits(first, second):
    """Logits (N, 3) of "the first is better", "the second is better" and "neither", by Davidson's model of
    comparisons with ties (doi 10.1080/01621459.1970.10481082): (d / 2, -d / 2, c). first and second, (N, 2)
    each, hold a worth and a share of c: d is the difference of the worths, c the sum of the shares."""
    half = (first[:, 0] - second[:, 0]) / 2
    tie = first[:, 1] + second[:, 1]
    return np.stack([half, -half, tie], 1)


def newton(design, counts, ridge: float, x=None):
    """The parameters x (P,) that minimise ridge / 2 |x|^2 - sum(counts log softmax(design @ x)), by Newton's
    method. The loss is convex. design: (N, K, P); counts: (N, K), how often each of the K outcomes was seen;
    x: where to start, by default at 0."""
    width = design.shape[-1]
    flat = design.reshape(-1, width)  # (N K, P)
    total = counts.sum(1, keepdims=True)  # (N, 1)
    loss = lambda x: ridge / 2 * x @ x - (counts * log_softmax(design @ x)).sum()
    x = np.zeros(width) if x is None else x
    best = loss(x)

    for _ in range(100):
        expected = total * np.exp(log_softmax(design @ x))  # (N, K)
        gradient = flat.T @ (expected - counts).ravel() + ridge * x  # (P,)
        # The Hessian of the softmax part is E[f f'] - E[f] E[f]' for features f, summed over N.
        mean = np.einsum("nk,nkp->np", expected, design)  # total * E[f], (N, P)
        second_moment = flat.T @ (expected.reshape(-1, 1) * flat)  # (P, P)
        hessian = second_moment - mean.T @ (mean / np.maximum(total, 1e-9))
        step = np.linalg.solve(hessian + ridge * np.eye(width), gradient)

        # Where the loss is far from a parabola, the full step may overshoot: halve it until it helps.
        while np.abs(step).max() > 1e-7 and loss(x - step) > best:
            step = step / 2
        if np.abs(step).max() <= 1e-7:
            break
        x = x - step
        best = loss(x)
    return x
