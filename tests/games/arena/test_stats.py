"""The arena's statistics: scores, fits against closed forms and planted truth, biases planted and found."""

import json

import numpy as np
import pytest

from games.arena.files import SWAP, swap_answers
from games.arena.stats import (
    calibration,
    connected_groups,
    distributions,
    families,
    fit_tie,
    hits,
    losses,
    mix,
    position,
    ratings,
    verbosity,
    win_rates,
)
from games.stats import log_softmax, wilson
from tests.games.arena.help_arena import draw, example


def log_loss(probs, targets):
    return losses(probs, targets).mean()


def some(rng, n):
    return np.exp(log_softmax(rng.normal(0, 1, (n, 3))))


# ------------------------------------------------------------------------------------------------ scores
def test_log_loss_and_accuracy_of_what_is_known():
    targets = distributions([0, 1, 2, [0.5, 0.25, 0.25]])
    assert log_loss(np.full((4, 3), 1 / 3), targets) == pytest.approx(np.log(3))
    assert losses(targets, targets)[3] == pytest.approx(1.5 * np.log(2))
    assert log_loss(np.eye(3)[[1, 0]], np.eye(3)[[0, 0]]) == pytest.approx(
        7.5 * np.log(10)
    )  # clipped at 1e-15
    probs = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    assert hits(probs, distributions([0, [0.2, 0.2, 0.6], 0])).tolist() == [True, True, False]


def test_calibration_tells_chances_from_boasts():
    rng = np.random.default_rng(0)
    probs = some(rng, 20_000)
    targets = draw(rng, probs)
    found = calibration(probs, targets)
    assert found["ece"] < 0.02
    assert found["brier"] == pytest.approx((probs * (1 - probs)).sum(1).mean(), abs=0.02)
    for table in found["reliability"].values():
        assert sum(row["n"] for row in table) == 20_000 and len(table) <= 15
        assert max(abs(row["predicted"] - row["observed"]) for row in table if row["n"] > 1000) < 0.05
    sharp = probs**3 / (probs**3).sum(1, keepdims=True)
    worse = calibration(sharp, targets)
    assert worse["ece"] > 0.1 and worse["brier"] > found["brier"]
    json.dumps(worse)


# ------------------------------------------------------------------------------------------------ mixtures
def test_a_mixture_follows_the_prediction_that_knows_and_what_the_first_place_is_worth():
    rng = np.random.default_rng(0)
    knows = some(rng, 4000)
    truth = knows * [2, 1, 1] / (knows * [2, 1, 1]).sum(1, keepdims=True)
    predicted = [knows, some(rng, 4000)]  # the second knows nothing
    targets = draw(rng, truth)
    tests = targets[2000:]
    mixed = mix([p[:2000] for p in predicted], targets[:2000], [p[2000:] for p in predicted])
    bayes = log_loss(truth[2000:], tests)
    assert bayes - 0.01 < log_loss(mixed, tests) < bayes + 0.01 < log_loss(knows[2000:], tests) - 0.02
    np.testing.assert_allclose(mixed.sum(1), 1)


# ------------------------------------------------------------------------------------------------ biases
def test_a_reader_who_likes_the_first_is_seen_as_one_and_a_fair_one_is_not():
    probs = some(np.random.default_rng(0), 1000)
    fair = position(probs, probs, np.eye(3)[[0, 1] * 500])
    assert fair["flips"] == fair["asymmetry"] == fair["both_first"] == fair["both_second"] == 0
    tilted = lambda probs: probs * [4, 1, 1] / (probs * [4, 1, 1]).sum(1, keepdims=True)
    found = position(tilted(probs), tilted(probs[:, SWAP])[:, SWAP], np.eye(3)[[0, 1] * 500])
    assert found["gap"] > 0.3 and found["gap_of_labels"] == 0
    assert found["flips"] > 0.3 and found["asymmetry"] > 0.2
    assert found["both_first"] > 300 > found["both_second"] == 0


def test_verbosity_compares_what_longer_answers_get_with_what_they_deserve():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 200, (1000, 2))
    sizes[:100, 1] = sizes[:100, 0]  # of equal length: nobody is longer
    examples = [example("x" * a, "x" * b) for a, b in sizes]
    longer = np.where(sizes[:, :1] > sizes[:, 1:], [[0.7, 0.1, 0.2]], [[0.1, 0.7, 0.2]])
    targets = draw(rng, np.full((1000, 3), 1 / 3))
    found = verbosity(longer, examples, targets)
    row = found["all"]
    assert row["longer_predicted"] == pytest.approx(0.7) and row["longer_verdicts"] == 1
    assert row["longer_wins"] == pytest.approx(1 / 3, abs=0.05)
    assert [part["n"] for part in found["parts"]] == [200] * 5
    differences = [part["difference"] for part in found["parts"]]
    assert differences == sorted(differences) and differences[0] < 0 < differences[-1]
    assert np.mean([part["log_loss"] for part in found["parts"]]) == pytest.approx(row["log_loss"])
    assert verbosity(longer[:100], examples[:100], targets[:100])["all"]["longer_wins"] is None


def test_families_name_the_model_that_predictions_favour():
    rng = np.random.default_rng(0)
    names = [[*rng.permutation(["x", "y", "z"])[:2]] for _ in range(900)]
    examples, targets = [example("a", "b", pair) for pair in names], np.eye(3)[rng.integers(0, 3, 900)]
    probs = np.array([[0.3 + 0.3 * (pair[0] == "x"), 0.3 + 0.3 * (pair[1] == "x"), 0.1] for pair in names])
    found = {row["model"]: row for row in families(probs, examples, targets)}
    assert [*found] == ["x", "y", "z"] and sum(row["n"] for row in found.values()) == 1800
    assert found["x"]["predicted"] == pytest.approx(0.6)
    assert found["x"]["interval"][0] > 0.2 and found["y"]["interval"][0] < 0 < found["y"]["interval"][1]
    assert families(probs, [example("a", "b")] * 900, targets) == []


# ------------------------------------------------------------------------------------------------ ratings
def planted(seed, n, ties, models=8):
    """({model: rating}, battles) drawn from Davidson's model."""
    rng = np.random.default_rng(seed)
    strengths = rng.normal(0, 0.8, models)
    pairs = np.array([rng.permutation(models)[:2] for _ in range(n)])
    d = strengths[pairs[:, 0]] - strengths[pairs[:, 1]]
    targets = draw(rng, np.exp(log_softmax(np.stack([d / 2, -d / 2, np.full(n, np.log(ties))], 1))))
    found = [example("", "", [f"m{a}", f"m{b}"], [*y]) for (a, b), y in zip(pairs, targets)]
    points = 1000 + 400 / np.log(10) * (strengths - strengths.mean())
    return {f"m{k}": point for k, point in enumerate(points)}, found


@pytest.mark.parametrize("ties, kinds", [(1.8, ["davidson"]), (1e-9, ["davidson", "bradley_terry"])])
def test_ratings_hold_the_planted_strengths_in_their_intervals(ties, kinds):
    """About 19 of 20, over several worlds. With ties Bradley and Terry's ratings have their own scale."""
    inside = []
    for seed in range(5):
        truth, found = planted(seed, 1500, ties)
        (group,) = ratings(found, 60, seed)
        for kind in kinds:
            assert np.mean([row[kind][0] for row in group]) == pytest.approx(1000)
            for row in group:
                point, low, high = row[kind]
                assert low < point < high and high - low < 150
                inside.append(low < truth[row["model"]] < high)
    assert np.mean(inside) >= 0.85


def test_ratings_of_two_models_are_their_closed_forms():
    """A tie is half a win to Bradley and Terry and an outcome of its own to Davidson."""
    targets = [0] * 500 + [1] * 200 + [2] * 300
    ((first, second),) = ratings([example("", "", ["a", "b"], target) for target in targets], 5)
    for kind, odds in (("bradley_terry", 650 / 350), ("davidson", 500 / 200)):
        assert first[kind][0] - second[kind][0] == pytest.approx(400 * np.log10(odds), abs=0.1)


def test_ratings_come_best_first_and_are_a_function_of_the_seed():
    truth, found = planted(0, 3000, 1.0)
    (group,) = ratings(found, 20)
    order = [row["model"] for row in group]
    assert np.corrcoef([truth[name] for name in order], range(8))[0, 1] < -0.9
    assert sum(row["n"] for row in group) == 6000
    assert ratings(found, 20) == [group] and ratings(found, 20, seed=1) != [group]
    assert [row["model"] for row in ratings([*map(swap_answers, found)], 20)[0]] == order


def test_groups_that_never_met_are_rated_apart():
    """Their ratings have no common scale, however good they look side by side."""
    found = [example("", "", pair, 0) for pair in (["a", "b"], ["b", "c"], ["x", "y"], ["c", "d"])]
    groups = ratings(found, 10)
    assert [{row["model"] for row in group} for group in groups] == [{*"abcd"}, {*"xy"}]
    for group in groups:
        assert np.mean([row["davidson"][0] for row in group]) == pytest.approx(1000)
        assert group[0]["davidson"][0] < 3000  # finite, though it never lost
    assert connected_groups([("a", "b"), ("c", "d"), ("b", "d"), ("e", "f")]) == [[*"abcd"], [*"ef"]]


@pytest.mark.parametrize("wins, losses", [(1, 0), (20, 0), (3, 1)])
def test_a_model_that_always_won_and_a_single_battle_have_an_interval(wins, losses):
    """Between two models it is Jeffreys' interval: the quantiles of Beta(wins + 1/2, losses + 1/2)."""
    found = [example("", "", ["a", "b"], int(i < losses)) for i in range(wins + losses)]
    ((first, second),) = ratings(found, 400)
    share = np.random.default_rng(1).beta(wins + 0.5, losses + 0.5, 40_000)
    low, high = np.quantile(np.log(share) - np.log1p(-share), (0.025, 0.975)) * 400 / np.log(10)
    for kind in ("bradley_terry", "davidson"):
        point, *interval = first[kind]
        assert interval[0] < point <= interval[1] and second[kind][1] <= second[kind][0] < second[kind][2]
        assert 2 * (interval[0] - 1000) == pytest.approx(low, abs=100)
        if losses:  # otherwise the upper end is where the ridge lets it be
            assert 2 * (interval[1] - 1000) == pytest.approx(high, abs=100)


def test_a_model_that_always_won_has_an_interval_of_its_wins():
    """However sure the predictions are; the interval is Wilson's."""
    one = families(np.array([[1.0, 0, 0]]), [example("", "", ["a", "b"], 0)], np.array([[1.0, 0, 0]]))
    many = families(np.eye(3)[[0] * 9], [example("", "", ["a", "b"], 0)] * 9, np.eye(3)[[0] * 9])
    for rows, n in ((one, 1), (many, 9)):
        low, high = wilson(n, n)
        assert rows[0]["interval"] == (1 - high, 1 - low) and low < 0.8
        assert rows[1]["interval"] == pytest.approx((low - 1, 0))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_pull_of_ties_makes_as_many_ties_as_there_are(share):
    gaps = np.random.default_rng(0).normal(0, 3, 400)
    ties = np.arange(400) < 400 * share
    targets = np.where(ties[:, None], [0, 0, 1], [1, 0, 0])
    tie = fit_tie(gaps, targets)
    chance = 1 / (1 + (np.exp(gaps / 2) + np.exp(-gaps / 2)) / np.exp(tie))
    assert chance.mean() == pytest.approx(max(share, 0.5 / 400))
    equal = fit_tie(np.zeros(10), np.eye(3)[[2] * 5 + [0] * 5])
    assert equal == pytest.approx(np.log(2))  # P(tie) = e^c / (e^c + 2)


def test_win_rates_count_ties_half_and_know_who_never_met():
    fought = [(["a", "b"], 0), (["b", "a"], 0), (["b", "a"], 2), (["b", "c"], 1), (["c", "d"], 0)]
    fought.append((["a", "b"], [0.5, 0.25, 0.25]))
    nothing = [(None, 0), (["a", "b"], None), (["a", "a"], 0)]  # no names, no winner, no second model
    found = [example("", "", models, target) for models, target in fought + nothing]
    rate, n = win_rates(found, ["c", "b", "a"])
    assert n.tolist() == [[0, 1, 0], [1, 0, 4], [0, 4, 0]]
    assert rate[2, 1] == pytest.approx((1 + 0.5 + 0.5 + 0.125) / 4) and rate[1, 0] == 0 and rate[0, 1] == 1
    assert np.isnan(rate[n == 0]).all()
    np.testing.assert_allclose((rate + rate.T)[n > 0], 1)
    assert ratings(found[-3:]) == []
