"""The world of the arena: its law computed again from the texts, draws, shares, biases, words."""

import json
import re

import numpy as np
import pytest

from games.arena.world import HEDGES, REFUSAL, TOPICS, VERBS, battles

COLUMNS = "id model_a model_b prompt response_a response_b winner_model_a winner_model_b winner_tie".split()


@pytest.fixture(scope="module")
def drawn():
    return battles(0, 2000)


def texts(row):
    return [json.loads(row[name]) for name in ("prompt", "response_a", "response_b")]


def winners(rows):
    return np.array([[row[name] for name in COLUMNS[-3:]] for row in rows])


def column(rows, name):
    return np.array([row[name] for row in rows])


def entropy(probs):
    return -(probs * np.log(probs)).sum(-1).mean()


def merit(prompt, text):
    """What the judge sees in an answer, from the texts alone."""
    if text == REFUSAL:
        return -1.5
    nouns = TOPICS[re.search(r"(\w+)[.?]$", prompt)[1]]
    sentences = re.findall(r"(\w+) \w+ (\w+)\.", text)
    on_topic = np.mean([first in nouns and second in nouns for first, second in sentences])
    length = 0.5 * np.log(len(sentences)) * (-1 if "in short" in prompt else 1)
    return 3 * on_topic + length + 0.3 * text.startswith("- ")


# ------------------------------------------------------------------------------------------------ the law
def test_the_chances_follow_from_the_texts_alone(drawn):
    for row in drawn[:500]:
        prompts, a, b = texts(row)
        d = np.mean([merit(p, x) - merit(p, y) for p, x, y in zip(prompts, a, b)]) * 1.3
        for name, bias in (("fair", 0), ("probs", 1.2)):
            weights = np.exp([(d + bias) / 2, -(d + bias) / 2, np.log(1.8)])
            np.testing.assert_allclose(row[name], weights / weights.sum(), atol=1e-12)


def test_winners_are_drawn_with_their_chances(drawn):
    """Over all battles, and over those where A is likely or unlikely to win."""
    probs, won = column(drawn, "probs"), winners(drawn)
    assert (won.sum(1) == 1).all()
    for chosen in (np.arange(len(drawn)), probs[:, 0] > 0.5, probs[:, 0] < 0.2):
        spread = np.sqrt((probs[chosen] * (1 - probs[chosen])).sum(0))
        assert (np.abs((won[chosen] - probs[chosen]).sum(0)) < 4 * spread).all()
    loss = -np.log(probs[won == 1])
    assert (
        abs(loss.mean() - entropy(probs)) < 4 * loss.std() / len(loss) ** 0.5
    )  # the true chances reach the lowest loss


def test_the_bias_favours_a_and_leaves_the_texts_alone(drawn):
    fair = battles(0, 2000, bias=0)
    for name in ("id", "model_a", "model_b", "prompt", "response_a", "response_b", "fair"):
        assert [row[name] for row in fair] == [row[name] for row in drawn]
    assert [row["probs"] for row in fair] == [row["fair"] for row in fair]
    gap = lambda rows: np.subtract(*winners(rows).mean(0)[:2])
    assert abs(gap(fair)) < 0.05 and gap(drawn) > 0.15


def test_it_is_as_hard_as_an_arena(drawn):
    """Votes are noisy: the true chances have a log loss of 0.85, the shares of the classes one of 1.1."""
    fair = column(drawn, "fair")
    assert 0.32 < fair.mean(0)[2] < 0.38
    assert 0.83 < entropy(fair) < 0.88 and entropy(fair.mean(0)) > 1.09


# ------------------------------------------------------------------------------------------------ rows
def test_a_battle_is_a_function_of_seed_stream_and_number(drawn):
    assert battles(0, 20) == drawn[:20]
    others = battles(0, 20, stream=1), battles(1, 20)
    assert len({tuple(row["response_a"] for row in rows) for rows in (drawn[:20], *others)}) == 3
    assert len({row["id"] for rows in (drawn, *others) for row in rows}) == len(drawn) + 40


def test_rows_have_the_columns_of_the_competition_and_some_two_turns(drawn):
    for row in drawn:
        assert [*row] == [*COLUMNS, "probs", "fair"]
        assert row["model_a"] != row["model_b"]
        assert len({*map(len, texts(row))}) == 1
    prompts, answers, _ = zip(*map(texts, drawn))
    assert 0.12 < np.mean([len(turns) == 2 for turns in prompts]) < 0.18
    assert all(len({re.search(r"(\w+)[.?]$", turn)[1] for turn in turns}) == len(turns) for turns in prompts)
    assert {answer.count(".") for turns in answers for answer in turns} == {*range(1, 9)}


def test_the_nouns_of_a_topic_are_its_own():
    nouns = [noun for nouns in (*TOPICS.values(), HEDGES) for noun in nouns]
    assert len(nouns) == len({*nouns}) and not {*nouns} & {*VERBS, *TOPICS}
