"""A tournament of 20 Questions: seats, play in lock step, ratings, the report, its picture."""

import copy
import json

import numpy as np
import pytest

import infer
import plots
from games.stats import SCALE
from games.task import Players, Reply
from games.twentyq.contest.rules import HANDSHAKE, PRECEDES
from games.twentyq.contest.tournament import MEAN, draw, figures, fit, interval, play, teams_of, tournament
from games.twentyq.prompts import read_prompt
from games.twentyq.task import Options, TwentyQuestions


class Says:
    """An agent with a list of guesses, the same in every game, and one answer."""

    def __init__(self, *guesses, question="Is it {}?", answer="no"):
        self.guesses, self.question, self.answer = [*guesses, "?"], question, answer

    def reply(self, conversations, n=1):
        return [[Reply(self.text(*read_prompt(conversation)))] for conversation in conversations]

    def text(self, seat, content):
        if seat == "answerer":
            return self.answer
        return self.question.format(len(content)) if seat == "asker" else self.guesses[len(content) - 1]


def met(first, second, keyword="eagle"):
    """A game to play between two teams of (guesser, answerer)."""
    pairs = [dict(zip(("guesser", "answerer"), pair)) for pair in (first, second)]
    return {"keyword": keyword, "teams": pairs}


def rewards(game):
    return [team["reward"] for team in game["teams"]]


@pytest.fixture(scope="module")
def world():
    """The task on its own world."""
    return TwentyQuestions(Options(noise="0.2"))


@pytest.fixture(scope="module")
def agents(world):
    return {name: world.agent_named(name, None) for name in ("table", "alpha", "half", "false", "random")}


# ------------------------------------------------------------------------------------------------ play
def test_the_earlier_round_wins_and_ends_the_game(task):
    agents = {"quick": Says("x", "eagle"), "slow": Says("x", "x", "eagle"), "never": Says(*["x"] * 30)}
    games = [met(("quick", "never"), ("slow", "never")), met(("never", "slow"), ("slow", "quick"))]
    games += [met(("quick", "slow"), ("quick", "quick")), met(("never", "slow"), ("never", "quick"))]
    play(task, games, agents, 0.0)
    assert [rewards(game) for game in games] == [[19, 0], [0, 18], [19, 19], [-1, -1]]
    assert [len(team["rounds"]) for game in games for team in game["teams"]] == [2, 2, 3, 3, 2, 2, 20, 20]
    assert games[0]["teams"][1]["rounds"] == [["Is it 0?", "no", "x"], ["Is it 1?", "no", "x"]]


def test_seats_and_partners_follow_from_seed_and_game():
    names, keywords = list("abcde"), [{"keyword": str(i)} for i in range(400)]
    games = draw(names, keywords, 3)
    assert games == draw(names, keywords, 3) and games[:50] == draw(names, keywords[:50], 3)
    assert games != draw(names, keywords, 4)
    seats = [team[seat] for game in games for team in game["teams"] for seat in ("guesser", "answerer")]
    assert all(260 < seats.count(name) < 380 for name in names)  # 1,600 seats, 320 each


def test_lock_step_is_the_same_as_one_game_after_the_other(world, agents):
    games = draw(list(agents), world.examples("test")[:20], 0)
    alone = copy.deepcopy(games)
    play(world, games, agents, 0.0)
    for game in alone:
        play(world, [game], agents, 0.0)
    won = {team["reward"] > 0 for game in games for team in game["teams"]}
    assert games == alone and won == {True, False}


def test_what_a_rule_decides_is_not_flipped_and_all_else_is(task):
    for question, answer in (("Can it fly?", "no"), (PRECEDES.format("zebra"), "yes")):
        asker = Says(*["x"] * 20, question=question, answer="yes")
        games = [met(("a", "a"), ("a", "a"))]
        play(task, games, {"a": asker}, 1.0)
        assert {said for team in games[0]["teams"] for _, said, _ in team["rounds"]} == {answer}


def test_about_the_share_of_noise_is_flipped_and_teams_differ(task):
    games = [met(("a", "a"), ("a", "a")) for _ in range(50)]
    play(task, games, {"a": Says(*["x"] * 20)}, 0.2)
    said = np.array([[[r[1] == "yes" for r in team["rounds"]] for team in game["teams"]] for game in games])
    assert 0.17 < said.mean() < 0.23 and (said[:, 0] != said[:, 1]).any()


# ------------------------------------------------------------------------------------------------ ratings
def rate(names, games, bootstraps):
    """[rating, low, high] of each name."""
    return interval(fit(names, games, bootstraps=bootstraps)).T


def simulated(skills, n, seed):
    """Games whose results follow the model, a fifth of them drawn by both or by nobody."""
    rng, names = np.random.default_rng(seed), list(skills)
    games = draw(names, [{"keyword": ""}] * n, seed)
    for game in games:
        first, other = [skills[team["guesser"]] + skills[team["answerer"]] for team in game["teams"]]
        won = rng.random() < 1 / (1 + np.exp(other - first))
        for team, reward in zip(game["teams"], (9, 0) if won else (0, 9)):
            team["reward"] = reward
        if rng.random() < 0.2:
            game["teams"][0]["reward"] = game["teams"][1]["reward"] = int(rng.choice([-1, 9]))
    return games


def test_ratings_recover_known_strengths():
    skills = dict(a=1.2, b=0.6, c=0.0, d=-0.6, e=-1.2)
    games = simulated(skills, 6000, 0)
    found = rate(list(skills), games, bootstraps=1)[:, 0]
    expected = MEAN + SCALE * 0.8 * np.array(list(skills.values()))  # draws pull them together
    np.testing.assert_allclose(found, expected, atol=30)
    assert found.mean() == pytest.approx(MEAN)


def test_intervals_cover_what_many_games_would_show():
    skills = dict(a=0.8, b=0.3, c=-0.2, d=-0.9)
    truth = rate(list(skills), simulated(skills, 4000, 100), bootstraps=1)[:, 0]
    found = np.array([rate(list(skills), simulated(skills, 200, seed), bootstraps=60) for seed in range(16)])
    inside = (found[..., 1] <= truth) & (truth <= found[..., 2])
    assert 0.86 <= inside.mean() <= 1.0 and (found[..., 2] - found[..., 1]).mean() < 200


def test_who_never_wins_has_a_finite_rating():
    games = [met(("a", "a"), ("b", "b")) for _ in range(50)]
    for game in games:
        game["teams"][0]["reward"], game["teams"][1]["reward"] = 9, 0
    (best, *_), (worst, *_) = rate(["a", "b"], games, bootstraps=2)
    assert best > MEAN > worst > MEAN - 600 and best + worst == pytest.approx(2 * MEAN)


# ------------------------------------------------------------------------------------------------ the report
def test_handshakes_and_false_alphas_are_counted():
    games = [met(("a", "a"), ("a", "a"), "melon") for _ in range(2)]
    order = PRECEDES.format("nut")
    rounds = [
        [[HANDSHAKE, "yes", "x"], ["Is it red?", "yes", "x"], [order, "yes", "melon"]],
        [[HANDSHAKE, "yes", "x"], [order, "no", "x"]],  # melon does precede nut
        [[HANDSHAKE, "no", "x"]],
        [["Is it red?", "yes", "x"]],
    ]
    for team, own, reward in zip(teams_of(games), rounds, (18, 0, -1, -1)):
        team |= {"rounds": own, "reward": reward}
    metrics, intervals = figures(games)
    assert metrics.pop("rounds_to_win") == 3.0
    assert metrics == dict(found=1 / 2, handshakes=3 / 4, handshakes_accepted=2 / 3, false_alphas=1 / 2)
    assert all(low < metrics[name] < high for name, (low, high) in intervals.items())


def test_the_rows_of_the_report_add_up(world, agents):
    result = world.evaluate(world.examples("test")[:40], Players(named={"against": agents}))
    assert result == tournament(world, world.examples("test")[:40], agents)
    assert result["records"][:10] == tournament(world, world.examples("test")[:10], agents)["records"]
    rows = {row["agent"]: row for row in result["tournament"]}
    assert {*rows} == {*agents} and sum(row["n"] for row in rows.values()) == 4 * 40 == 4 * result["n"]
    teams = [team for game in result["records"] for team in game["teams"]]
    for seat in ("guesser", "answerer"):
        own = [team["reward"] for team in teams if team[seat] == "alpha"]
        value, low, high = rows["alpha"][seat]
        assert value == pytest.approx(np.mean([reward > 0 for reward in own])) and low < value < high
    assert all(low <= value <= high for value, low, high in (row["rating"] for row in rows.values()))
    assert result["tournament"][-1]["agent"] == "random"
    listed = [line.split()[0] for line in result["notes"][2:-1]]
    assert listed == [row["agent"] for row in result["tournament"]]
    json.dumps(result)


def test_an_agent_that_was_never_drawn_has_the_mean_rating_and_no_reward(task):
    agents = {name: Says("eagle") for name in "abcdefgh"}
    rows = tournament(task, [{"keyword": "eagle"}], agents)["tournament"]
    last = next(row for row in rows if not row["n"])
    assert last["rating"] == [MEAN] * 3 and last["reward"] is None and last["guesser"] == [0, 0, 1]


# ------------------------------------------------------------------------------------------------ the command
def test_eval_against_plays_prints_writes_and_draws(world_file, tmp_path, capsys):
    out = tmp_path / "eval.json"
    argv = ["eval", "--task", "20q", "--world", str(world_file), "--against", "table", "alpha", "half+table"]
    assert infer.main([*argv, "--limit", "6", "--out", str(out), "--runs", str(tmp_path)]) == 0
    report = json.loads(out.read_text())
    names = {row["agent"] for row in report["tournament"]}
    assert report["n"] == 6 and names == {"table", "alpha", "half+table"}
    shown = capsys.readouterr().out
    assert "found as guesser" in shown and "half+table" in shown and "n = 6" in shown
    pytest.importorskip("matplotlib")
    assert plots.main([str(out)]) == 0 and out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
