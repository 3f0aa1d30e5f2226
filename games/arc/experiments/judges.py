"""ARC: answers put in order by a model (--ties): by elimination with confidence bounds (is this right, yes or
no), or by halving with strengths (which is, this one or that). Programs left it nothing to choose."""

from collections import Counter

import numpy as np

from games.arc.files import answers, distinct, tests_of
from games.arc.grids import Frame
from games.arc.prompts import PROMPTS, WORDS
from games.stats import newton

CHECKS, MOST = 4, 32  # checks of an open answer in a round, and in all
MATCHES = 8  # of an answer in a round of halving
RIDGE = 1e-2  # on strengths: what never lost has a finite one


def prefer(task, records, judge):
    """Give each record an "order": of each test the answers, the preferred first, by --ties."""
    for record in records:
        record["order"] = []
        for test in tests_of(record):
            grids = distinct(answers(record, test))
            record["order"].append(ranked_by(judge, task, record, test, grids) if len(grids) > 1 else grids)


def ranked_by(judge, task, record, test, grids):
    """The answers to a test, the best first, by what a model says of them in random frames."""
    version, rng = PROMPTS[task.options.ties], task.rng_of(record, 13, test)
    alone = version.asks == "verdict"

    def ask(wanted):
        prompts, swaps = [], []
        for numbers in wanted:
            swap = not alone and rng.random() < 0.5
            frame = Frame.draw(record, rng)
            shown = [frame.grid(grids[i]) for i in (numbers[::-1] if swap else numbers)]
            seen = task.fitted(frame.task(record))
            prompts.append(version.question(seen, task.writing, test, answers=shown))
            swaps.append(swap)
        scores = judge.choose(prompts, WORDS[version.asks])
        return [(first > second) != swap for swap, (first, second) in zip(swaps, scores)]

    order = eliminate(len(grids), ask) if alone else halve(len(grids), rng, ask)
    return [grids[i] for i in order]


def eliminate(n, ask):
    """Put n answers in order by checks, the best first: the seed's verifier. ask([(i,), ...])
    returns of each answer, as often as it is named, whether it was found right.

    An open answer gets CHECKS checks a round, up to MOST in all, and is open while its share of yes, p, is
    not z standard errors away from that of one of the two best; p of 0 or 1 counts as 1 of one check more."""
    yes, count, waiting = np.zeros(n), np.zeros(n), list(range(n))
    while waiting:
        checks = [(i,) for i in waiting for _ in range(CHECKS)]
        for (i,), right in zip(checks, ask(checks)):
            yes[i] += right
            count[i] += 1
        share, pure = yes / count, (yes == 0) | (yes == count)
        p = np.where(pure, 1 / (count + 1), share)
        error = np.sqrt(p * (1 - p) / (count + pure))
        gap = abs(share[:, None] - share) - 1.96 * np.hypot(error[:, None], error)  # (n, n)
        top = np.argsort(-share, kind="stable")[:2]
        waiting = [i for i in range(n) if count[i] < MOST and (gap[i, top[top != i]] < 0).any()]
    return np.argsort(-share, kind="stable").tolist()


def halve(n, rng, ask):
    """Put n answers in order by matches, the best first: the seed's selector, successive halving.
    ask([(i, j), ...]) returns of each pair whether the first won.

    In a round each answer left meets MATCHES others of a shuffled ring, at growing distance; the upper half
    by strength, from all matches so far, stays until one is left."""
    left, out, wins = list(range(n)), [], Counter()
    while len(left) > 1:
        ring, size = rng.permutation(left).tolist(), len(left)
        shifts = [1 + r % (size - 1) for r in range(MATCHES // 2)]
        pairs = [(ring[i], ring[(i + shift) % size]) for shift in shifts for i in range(size)]
        won = ask(pairs)
        wins.update((a, b) if first else (b, a) for (a, b), first in zip(pairs, won))
        worth = strengths(n, wins)
        left.sort(key=lambda i: -worth[i])
        left, out = left[: size // 2], left[size // 2 :] + out
    return left + out


def strengths(n, wins):
    """Strengths (n,) by Bradley and Terry, P(a beats b) = 1 / (1 + exp(s_b - s_a)), of {(a, b): how often a
    beat b}. The seed's iteration finds the same maximum; the ridge gives who never lost a finite one."""
    pairs, one = np.array(list(wins)), np.eye(n)
    design = (one[pairs[:, 0]] - one[pairs[:, 1]])[:, None] * np.array([[0.5], [-0.5]])  # (N, 2, n)
    counts = np.array([[count, 0] for count in wins.values()], float)
    return newton(design, counts, RIDGE)
