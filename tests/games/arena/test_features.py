"""The judge by features finds planted likings for style, words and the first place."""

import numpy as np
import pytest

from games.arena.features import Features, features
from games.arena.files import SWAP, parse_battle, swap_answers
from games.arena.stats import losses, targets_of
from games.arena.world import battles
from games.stats import log_softmax
from tests.games.arena.help_arena import draw, example


def test_features_count_what_a_person_sees_at_a_glance():
    text = "# Title\n- One, two:\n* **three**\n  2. four!\n```x```"
    *counts, overlap = features(example(text, "", prompt="One or three?"))
    assert np.expm1(counts).round().tolist() == [len(text), 4, 3, 4, 4]  # lines, bullets, punctuation, marks
    assert overlap == pytest.approx(2 / 3)


def test_swapping_turns_the_sign_of_features():
    examples = [parse_battle(row) for row in battles(0, 300)]
    X = np.array([features(x) for x in examples])
    np.testing.assert_allclose([features(swap_answers(x)) for x in examples], -X)


def planted(rng, n, first=0.0):
    """Battles in which length and the word "good" count, "bad" counts against, other words do not, and unlike
    answers tie less often; and their chances (n, 3)."""
    vocab = np.array(["good", "bad", *"abcdefghij"])
    examples = []
    logits = []
    for _ in range(n):
        texts = [" ".join(rng.choice(vocab, rng.integers(3, 30))) for _ in range(2)]
        examples.append(example(*texts))
        longer, *_ = features(examples[-1])
        good, bad = (np.subtract(*[np.log1p(text.split().count(w)) for text in texts]) for w in vocab[:2])
        d = 0.8 * longer + 1.5 * good - 1.5 * bad + first
        logits.append([d / 2, -d / 2, 0.5 - 0.6 * min(abs(longer), 1)])
    truth = np.exp(log_softmax(np.array(logits)))
    return [x | {"target": t.tolist()} for x, t in zip(examples, draw(rng, truth))], truth


def test_planted_likings_are_found():
    rng = np.random.default_rng(0)
    train, _ = planted(rng, 6000, first=1.0)
    tests, truth = planted(rng, 2000, first=1.0)
    judge = Features(train)
    targets = targets_of(tests)
    predicted = judge.chances(tests)
    np.testing.assert_allclose(predicted.sum(1), 1)
    log_loss = lambda probs: losses(probs, targets).mean()
    assert (
        log_loss(truth) - 0.01
        < log_loss(predicted)
        < log_loss(truth) + 0.02
        < log_loss(targets.mean(0)) - 0.1
    )
    same = example("a b", "a b")
    odds = np.log(judge.chances([same])[0])
    assert odds[0] - odds[1] == pytest.approx(1.0, abs=0.15)  # what the first place is worth
    weights = dict(zip(judge.words, judge.weights[6:]))
    assert weights["good"] > 5 > 1 > -5 > weights["bad"] and max(abs(weights[w]) for w in "abcdefghij") < 3


def test_without_a_first_place_both_orders_are_the_same_battle():
    train, _ = planted(np.random.default_rng(1), 300)
    both = [x for battle in train for x in (battle, swap_answers(battle))]
    judge = Features(both)
    swapped = judge.chances([swap_answers(x) for x in train])[:, SWAP]
    np.testing.assert_allclose(judge.chances(train), swapped, atol=1e-4)


def test_battles_without_a_word_that_counts_are_judged_by_style():
    few = [example("x" * n, "y", target=0) for n in (1, 3, 9)]
    assert Features(few).chances(few[:1]).shape == (1, 3)
