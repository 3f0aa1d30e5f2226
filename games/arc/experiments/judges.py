"""Ranking ARC's answers by asking a model (--ties): by elimination with confidence bounds (is this answer
right, yes or no?), or by halving with strengths (which of two is right?). Programs left nothing to choose."""

from collections import Counter

import numpy as np

from games.arc.files import answers, distinct, tests_of
from games.arc.grids import Frame
from games.arc.prompts import PROMPTS, WORDS
from games.stats import newton

CHECKS = 4  # checks of an open answer in a round
MOST = 32  # checks of an answer in all rounds
MATCHES = 8  # matches of an answer in a round of halving
RIDGE = 1e-2  # on strengths, so that an answer that never lost has a finite one


def prefer(task, records, judge):
    """Give each record an "order": for each test its answers as --ties ranks them, the best first."""
    for record in records:
        record["order"] = []
        for test in tests_of(record):
            grids = distinct(answers(record, test))
            if len(grids) > 1:
                grids = rank(judge, task, record, test, grids)
            record["order"].append(grids)


def rank(judge, task, record, test, grids):
    """The answers to a test, the best first, by a model's judgement in random frames."""
    version = PROMPTS[task.options.ties]
    rng = task.rng_of(record, 13, test)
    alone = version.asks == "verdict"  # one answer in a prompt, not two

    def ask(candidates):
        prompts = []
        swaps = []
        for indices in candidates:
            swap = not alone and rng.random() < 0.5  # a model may prefer the first of two, whatever it is
            frame = Frame.draw(record, rng)
            if swap:
                indices = indices[::-1]
            views = [frame.grid(grids[i]) for i in indices]
            view = task.fit(frame.task(record))
            prompts.append(version.question(view, task.writing, test, answers=views))
            swaps.append(swap)
        scores = judge.choose(prompts, WORDS[version.asks])
        return [(first > second) != swap for swap, (first, second) in zip(swaps, scores)]

    order = eliminate(len(grids), ask) if alone else halve(len(grids), rng, ask)
    return [grids[i] for i in order]


def eliminate(n, ask):
    """Rank n answers by checks, the best first: the published system's verifier. ask([(i,), ...]) returns for
    each entry whether answer i was judged right; an answer may be named several times.

    An open answer gets CHECKS checks a round, up to MOST in all. It is open while its share of yes, p, is
    less than 1.96 standard errors away from that of one of the two best. For the standard error, p = 0 or 1
    counts as one in count + 1 checks."""
    yes = np.zeros(n)
    count = np.zeros(n)
    waiting = list(range(n))
    while waiting:
        checks = [(i,) for i in waiting for _ in range(CHECKS)]
        for (i,), right in zip(checks, ask(checks)):
            yes[i] += right
            count[i] += 1
        share = yes / count
        pure = (yes == 0) | (yes == count)
        p = np.where(pure, 1 / (count + 1), share)
        error = np.sqrt(p * (1 - p) / (count + pure))
        gap = abs(share[:, None] - share) - 1.96 * np.hypot(error[:, None], error)  # (n, n)
        order = np.argsort(-share, kind="stable")
        best = order[:2]
        waiting = [i for i in range(n) if count[i] < MOST and (gap[i, best[best != i]] < 0).any()]
    return order.tolist()


def halve(n, rng, ask):
    """Rank n answers by matches, the best first: the published system's selector, successive halving.
    ask([(i, j), ...]) returns for each pair whether the first won.

    In a round every remaining answer has MATCHES matches, with others at growing distances in a shuffled
    ring. The upper half by strength, from all matches so far, goes on, until one answer is left."""
    remaining = list(range(n))
    beaten = []
    wins = Counter()  # (winner, loser) -> matches
    while len(remaining) > 1:
        ring = rng.permutation(remaining).tolist()
        size = len(ring)
        pairs = []
        for r in range(MATCHES // 2):  # each pair is a match for both of its answers
            shift = 1 + r % (size - 1)
            pairs += [(ring[i], ring[(i + shift) % size]) for i in range(size)]
        for (a, b), first_won in zip(pairs, ask(pairs)):
            wins[(a, b) if first_won else (b, a)] += 1
        worth = strengths(n, wins)
        remaining.sort(key=lambda i: -worth[i])
        beaten = remaining[size // 2 :] + beaten
        remaining = remaining[: size // 2]
    return remaining + beaten


def strengths(n, wins):
    """Strengths s (n,) from {(a, b): how often a beat b} by the model of Bradley and Terry, P(a beats b) =
    1 / (1 + exp(s_b - s_a)). The published system's iteration finds the same maximum; here the ridge keeps
    the strength of an answer that never lost finite."""
    pairs = np.array(list(wins))  # (N, 2)
    unit = np.eye(n)
    difference = unit[pairs[:, 0]] - unit[pairs[:, 1]]  # (N, n)
    design = difference[:, None] * np.array([[0.5], [-0.5]])  # (N, 2, n)
    counts = np.array([[count, 0] for count in wins.values()], float)
    return newton(design, counts, RIDGE)
