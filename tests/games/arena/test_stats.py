"""The arena's statistics: scores, fits against closed forms and planted truth, biases planted and found."""

import json

import numpy as np
import pytest

from games.arena.files import battle, swapped
from games.arena.stats import (
    FEATURES,
    SWAP,
    accuracy,
    bias,
    calibration,
    connected,
    davidson,
    distributions,
    families,
    features,
    fit_features,
    log_loss,
    log_softmax,
    losses,
    mean_interval,
    newton,
    position,
    predict,
    ratings,
    verbosity,
    win_rates,
)
from games.arena.world import battles


def draw(rng, probs):
    """A class of each row, (N,)."""
    return (rng.random((len(probs), 1)) > np.cumsum(probs, 1)[:, :2]).sum(1)


def some(rng, n, spread=1.0):
    return np.exp(log_softmax(rng.normal(0, spread, (n, 3))))


def example(a, b, models=None, target=None, prompt="p"):
    return {"turns": [[prompt, a, b]], "models": models, "target": target}


# ------------------------------------------------------------------------------------------------ scores
def test_log_loss_of_what_is_known():
    uniform = np.full((4, 3), 1 / 3)
    targets = [0, 1, 2, [0.5, 0.25, 0.25]]
    assert log_loss(uniform, targets) == pytest.approx(np.log(3))
    np.testing.assert_allclose(losses([[0.5, 0.25, 0.25]] * 2, [0, [0, 0.5, 0.5]]), -np.log([0.5, 0.25]))
    assert log_loss([[0.0, 1.0, 0.0]], [0]) == pytest.approx(15 * np.log(10))  # clipped, not infinite
    assert log_loss([[0.0, 1.0, 0.0]], [1]) == 0


def test_the_true_chances_are_the_best():
    rng = np.random.default_rng(0)
    probs = some(rng, 4000)
    targets = draw(rng, probs)
    for other in (some(rng, 4000), probs**1.5 / (probs**1.5).sum(1, keepdims=True), 0.8 * probs + 0.2 / 3):
        assert log_loss(probs, targets) < log_loss(other, targets)


def test_accuracy_takes_the_likeliest_class_of_both():
    probs = [[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]]
    assert accuracy(probs, [0, 2, 1]) == 1
    assert accuracy(probs, [1, [0.2, 0.2, 0.6], 0]) == pytest.approx(1 / 3)


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


def test_an_interval_holds_the_mean_95_times_in_100():
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.exponential(2.0, 200)) for _ in range(500)]
    assert 0.91 < np.mean([low < 2 < high for low, high in found]) < 0.98
    assert mean_interval([1.0]) is None


# ------------------------------------------------------------------------------------------------ fits
def test_newton_finds_the_minimum():
    rng = np.random.default_rng(0)
    design, counts = rng.normal(size=(50, 3, 4)), rng.integers(0, 5, (50, 3)).astype(float)
    value = lambda x: 0.5 * x @ x - (counts * log_softmax(design @ x)).sum()
    best = newton(design, counts, 1.0)
    for k in range(4):
        step = 1e-5 * np.eye(4)[k]
        assert abs(value(best + step) - value(best - step)) / 2e-5 < 1e-4
    np.testing.assert_allclose(newton(design, counts, 1.0, 30 * rng.normal(size=4)), best, atol=1e-6)


def test_davidson_with_two_models_is_its_closed_form():
    """Shares a, b, t of the outcomes give d = ln(a / b) and nu = t / sqrt(a b)."""
    counts = np.array([[50.0, 20.0, 30.0]])
    d, c = newton(davidson(np.ones((1, 1))), counts, 1e-9)
    assert d == pytest.approx(np.log(50 / 20)) and np.exp(c) == pytest.approx(30 / 1000**0.5)


def test_davidson_without_ties_is_bradley_and_terry():
    design = davidson(np.ones((1, 1)))
    for d in (-2.0, 0.3, 5.0):
        probs = np.exp(log_softmax(design @ np.array([d, -50.0])))[0]
        np.testing.assert_allclose(probs, [1 / (1 + np.exp(-d)), 1 / (1 + np.exp(d)), 0], atol=1e-12)


# ------------------------------------------------------------------------------------------------ features
def test_features_say_what_their_names_say():
    text = "# Title\n- One, two:\n* **three**\n  2. four!\n```x```"
    found = dict(zip(FEATURES, features(example(text, "", prompt="One or three?"))))
    counts = {"length": len(text), "lines": 4, "bullets": 3, "punctuation": 4, "code and bold": 4}
    assert {name: round(np.expm1(found[name])) for name in counts} == counts
    assert found["overlap"] == pytest.approx(2 / 3)


def test_swapping_turns_the_sign_of_features_and_exchanges_predictions():
    examples = [battle(row) for row in battles(0, 300)]
    X = np.array([features(x) for x in examples])
    np.testing.assert_allclose([features(swapped(x)) for x in examples], -X)
    model = fit_features(X, [x["target"] for x in examples])
    np.testing.assert_allclose(predict(model, -X), predict(model, X)[:, SWAP], atol=1e-12)
    np.testing.assert_allclose(predict(model, X).sum(1), 1)


def test_a_planted_liking_for_length_is_found():
    """Length counts as with people, the rest does not, and unlike answers are tied less often."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 6)) * [2, 1, 1, 1, 1, 0.1]
    d, c = 0.8 * X[:, 0], 0.5 - 0.6 * np.minimum(np.abs(X[:, 0] / 2), 1)
    truth = np.exp(log_softmax(np.stack([d / 2, -d / 2, c], 1)))
    targets = draw(rng, truth)
    scale, parameters = model = fit_features(X[:3000], targets[:3000])
    weights = parameters[:6] / scale
    assert weights[0] == pytest.approx(0.8, abs=0.1) and np.abs(parameters[1:6]).max() < 0.2
    bayes, prior = log_loss(truth[3000:], targets[3000:]), distributions(targets).mean(0)
    found = log_loss(predict(model, X[3000:]), targets[3000:])
    assert bayes - 0.01 < found < bayes + 0.02 < log_loss(np.tile(prior, (1000, 1)), targets[3000:])


def test_features_see_only_the_lesser_part_of_the_world():
    """They count, but what belongs to a topic they cannot know: that is left to a model."""
    rows = battles(0, 1500, bias=0)
    examples, probs = [battle(row) for row in rows], np.array([row["probs"] for row in rows])
    X, targets = np.array([features(x) for x in examples]), [x["target"] for x in examples]
    found = log_loss(predict(fit_features(X[:1000], targets[:1000]), X[1000:]), targets[1000:])
    assert log_loss(probs[1000:], targets[1000:]) + 0.1 < found < np.log(3)


# ------------------------------------------------------------------------------------------------ biases
def test_a_reader_without_a_sense_of_place_has_no_position_bias():
    probs = some(np.random.default_rng(0), 200)
    found = position(probs, probs[:, SWAP], draw(np.random.default_rng(1), probs))
    assert found["flips"] == found["asymmetry"] == found["both_first"] == found["both_second"] == 0


def test_a_reader_who_likes_the_first_is_seen_as_one():
    fair = some(np.random.default_rng(0), 1000)
    tilted = lambda probs: probs * [4, 1, 1] / (probs * [4, 1, 1]).sum(1, keepdims=True)
    found = position(tilted(fair), tilted(fair[:, SWAP]), [0, 1] * 500)
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
    examples, targets = [example("a", "b", pair) for pair in names], rng.integers(0, 3, 900)
    probs = np.array([[0.3 + 0.3 * (pair[0] == "x"), 0.3 + 0.3 * (pair[1] == "x"), 0.1] for pair in names])
    found = {row["model"]: row for row in families(probs, examples, targets)}
    assert [*found] == ["x", "y", "z"] and sum(row["n"] for row in found.values()) == 1800
    assert found["x"]["predicted"] == pytest.approx(0.6)
    assert found["x"]["interval"][0] > 0.2 and found["y"]["interval"][0] < 0 < found["y"]["interval"][1]
    assert families(probs, [example("a", "b")] * 900, targets) == []


def test_all_biases_go_into_a_report():
    rows = [battle(row) for row in battles(0, 60)]
    probs = some(np.random.default_rng(0), 60)
    found = bias(probs, probs, rows, [row["target"] for row in rows])
    assert [*found] == ["position", "verbosity", "families"] and json.dumps(found)


# ------------------------------------------------------------------------------------------------ ratings
def planted(seed, n, ties, models=8):
    """({model: rating}, battles) of Davidson's law."""
    rng = np.random.default_rng(seed)
    strengths = rng.normal(0, 0.8, models)
    pairs = np.array([rng.permutation(models)[:2] for _ in range(n)])
    d = strengths[pairs[:, 0]] - strengths[pairs[:, 1]]
    targets = draw(rng, np.exp(log_softmax(np.stack([d / 2, -d / 2, np.full(n, np.log(ties))], 1))))
    found = [example("", "", [f"m{a}", f"m{b}"], int(y)) for (a, b), y in zip(pairs, targets)]
    points = 1000 + 400 / np.log(10) * (strengths - strengths.mean())
    return {f"m{k}": point for k, point in enumerate(points)}, found


@pytest.mark.parametrize("ties, kinds", [(1.8, ["davidson"]), (1e-9, ["davidson", "bradley_terry"])])
def test_ratings_hold_the_planted_strengths_in_their_intervals(ties, kinds):
    """19 of 20 of them, over several worlds. With ties Bradley and Terry's have a scale of their own."""
    inside = []
    for seed in range(5):
        truth, found = planted(seed, 1500, ties)
        (part,) = ratings(found, 60, seed)
        assert part["ties"] == pytest.approx(ties, abs=0.3)
        for kind in kinds:
            assert np.mean([row[kind][0] for row in part["models"]]) == pytest.approx(1000)
            for row in part["models"]:
                point, low, high = row[kind]
                assert low < point < high and high - low < 150
                inside.append(low < truth[row["model"]] < high)
    assert np.mean(inside) >= 0.85


def test_ratings_of_two_models_are_their_closed_forms():
    """A tie is half a win to Bradley and Terry and an outcome of its own to Davidson."""
    targets = [0] * 500 + [1] * 200 + [2] * 300
    first, second = ratings([example("", "", ["a", "b"], target) for target in targets], 5)[0]["models"]
    for kind, odds in (("bradley_terry", 650 / 350), ("davidson", 500 / 200)):
        assert first[kind][0] - second[kind][0] == pytest.approx(400 * np.log10(odds), abs=0.1)


def test_ratings_come_best_first_and_are_a_function_of_the_seed():
    truth, found = planted(0, 3000, 1.0)
    part = ratings(found, 20)[0]
    order = [row["model"] for row in part["models"]]
    assert np.corrcoef([truth[name] for name in order], range(8))[0, 1] < -0.9
    assert sum(row["n"] for row in part["models"]) == 6000
    assert ratings(found, 20) == [part] and ratings(found, 20, seed=1) != [part]
    order = [[row["model"] for row in p["models"]] for p in (part, ratings([*map(swapped, found)], 20)[0])]
    assert order[0] == order[1]


def test_groups_that_never_met_are_rated_apart():
    """Their ratings have no common scale, however good they look side by side."""
    found = [example("", "", pair, 0) for pair in (["a", "b"], ["b", "c"], ["x", "y"], ["c", "d"])]
    parts = ratings(found, 10)
    assert [{row["model"] for row in part["models"]} for part in parts] == [{*"abcd"}, {*"xy"}]
    assert [np.mean([row["davidson"][0] for row in part["models"]]) for part in parts] == [
        pytest.approx(1000)
    ] * 2
    assert connected([("a", "b"), ("c", "d"), ("b", "d"), ("e", "f")]) == [[*"abcd"], [*"ef"]]


def test_a_model_that_never_lost_has_a_rating_that_is_finite():
    (part,) = ratings([example("", "", ["a", "b"], 0)] * 50, 10)
    assert [row["model"] for row in part["models"]] == ["a", "b"]
    assert 1000 < part["models"][0]["davidson"][0] < 3000


def test_battles_without_names_winner_or_a_second_model_are_no_battles():
    found = [example("", "", None, 0), example("", "", ["a", "b"]), example("", "", ["a", "a"], 0)]
    assert ratings(found) == [] and win_rates(found)[0] == []


def test_win_rates_count_ties_half_and_know_who_never_met():
    fought = (
        (["a", "b"], 0),
        (["b", "a"], 0),
        (["b", "a"], 2),
        (["a", "b"], [0.5, 0.25, 0.25]),
        (["b", "c"], 1),
    )
    names, rate, n = win_rates([example("", "", models, target) for models, target in fought])
    assert names == ["a", "b", "c"]
    assert n.tolist() == [[0, 4, 0], [4, 0, 1], [0, 1, 0]]
    assert rate[0, 1] == pytest.approx((1 + 0.5 + 0.5 + 0.125) / 4) and rate[1, 2] == 0 and rate[2, 1] == 1
    assert np.isnan(rate[[0, 2, 0, 1, 2], [0, 2, 2, 1, 0]]).all()
    np.testing.assert_allclose((rate + rate.T)[n > 0], 1)
