"""A tournament of 20 Questions between agents, as Kaggle's competition was played and rated.

A game has two teams, each of a guesser and an answerer, and one keyword for both. Who finds it in the earlier
round wins; in the same round, or where nobody does, it is a draw. An agent stands for a kind of player, so it
may sit beside itself. Read `tournament` first: seats are drawn, all games are played in lock step (play), and
skills are fitted (fitted)."""

import numpy as np

from games.arena.stats import SCALE, newton
from games.task import wilson
from games.twentyq.contest.rules import HANDSHAKE, answer_by_rule
from games.twentyq.prompts import (
    MAX_GUESS,
    MAX_QUESTION,
    ROUNDS,
    answer_prompt,
    ask_prompt,
    correct,
    guess_prompt,
    reward,
    yes_or_no,
)

SEATS = ("guesser", "answerer")
MEAN = 600  # of all ratings, as in the competition; SCALE: 400 points more in one seat are odds of ten to one
SPREAD = 2.0  # standard deviation of skills before any game, in logits (347 points): no rating is infinite


def tournament(task, examples):
    """A game about each example between agents drawn from task.rivals (name -> agent): what `evaluate` gives,
    and "tournament", a row for each agent, best first. A row has "agent", "n" (seats taken), "rating",
    "guesser", "answerer" and "reward"; of a seat the share of games in which its team found the keyword,
    first or at the same time. All but n and the mean reward are [value, low, high]."""
    names = list(task.rivals)
    games = draw(names, examples, task.seed)
    play(task, games, task.noises[0])
    rows = []
    for name, rating in zip(names, spread(fitted(names, games, task.seed)).T.tolist()):
        rewards = [[team["reward"] for team in teams_of(games) if team[seat] == name] for seat in SEATS]
        both = sum(rewards, [])
        row = {"agent": name, "n": len(both), "rating": rating}
        row |= {seat: share([value > 0 for value in own]) for seat, own in zip(SEATS, rewards)}
        rows.append(row | {"reward": float(np.mean(both)) if both else None})
    rows.sort(key=lambda row: -row["rating"][0])
    metrics, intervals = figures(games)
    found = {"n": len(games), "metrics": metrics, "intervals": intervals, "baselines": {}}
    return found | {"notes": table(rows), "tournament": rows, "records": games}


def teams_of(games):
    return [team for game in games for team in game["teams"]]


def share(hits):
    """[rate, low, high] of a list of bool, the interval Wilson's."""
    return [float(np.mean(hits)) if hits else 0.0, *wilson(sum(hits), len(hits))]


# ------------------------------------------------------------------------------------------------ play
def draw(names, examples, seed):
    """Games to play: each example with its "teams", [{"guesser", "answerer", "rounds", "reward"}] * 2, whose
    seats and partners are drawn by (seed, game)."""
    games = []
    for i, example in enumerate(examples):
        seats = np.random.default_rng([seed, 22, i]).integers(len(names), size=(2, 2))
        teams = [{seat: names[k] for seat, k in zip(SEATS, pair)} for pair in seats]
        games.append(example | {"teams": [team | {"rounds": [], "reward": -1} for team in teams]})
    return games


def play(task, games, noise):
    """Play all games in lock step: rounds [question, answer, guess] and rewards of each team are filled in.

    An agent gets all its prompts of a phase in one call. `noise` is the share of answers flipped, drawn by
    (seed, game, team, round): errors of judgement, so what a rule decides is not flipped."""
    chances = [np.random.default_rng([task.seed, 23, i]).random((2, ROUNDS)) for i in range(len(games))]
    for number in range(ROUNDS):
        running = [i for i, game in enumerate(games) if all(team["reward"] < 0 for team in game["teams"])]
        places = [(i, k) for i in running for k in (0, 1)]  # game, team
        teams = [games[i]["teams"][k] for i, k in places]
        if not teams:
            break
        turns = [[(question, answer) for question, answer, _ in team["rounds"]] for team in teams]
        made = [[question for question, _ in history] for history in turns]
        asked = replies(task, teams, "guesser", map(ask_prompt, turns), made, MAX_QUESTION)
        prompts = [answer_prompt(games[i]["keyword"], question) for (i, _), question in zip(places, asked)]
        answers = replies(task, teams, "answerer", prompts)
        for (i, k), history, question, answer in zip(places, turns, asked, answers):
            answer = yes_or_no(answer) or "no"
            if chances[i][k, number] < noise and not answer_by_rule(games[i]["keyword"], question):
                answer = {"yes": "no", "no": "yes"}[answer]
            history.append((question, answer))
        made = [[guess for *_, guess in team["rounds"]] for team in teams]
        guesses = replies(task, teams, "guesser", map(guess_prompt, turns), made, MAX_GUESS)
        for (i, _), team, history, guess in zip(places, teams, turns, guesses):
            team["rounds"].append([*history[-1], guess])
            keyword, others = games[i]["keyword"], games[i].get("alternates")
            if correct(guess, keyword, others or task.world.alternates.get(keyword, ())):
                team["reward"] = reward(number + 1)
    for game in games:
        if max(team["reward"] for team in game["teams"]) > 0:
            for team in game["teams"]:
                team["reward"] = max(team["reward"], 0)  # who comes too late has lost nothing, nor won


def replies(task, teams, seat, prompts, made=None, limit=0):
    """What the agent in a seat of each team replies to its prompt: list of str. Of a guesser, `made` is what
    it said before and says again only where it has no other idea (TwentyQuestions.say)."""
    prompts, said = list(prompts), {}
    for name in dict.fromkeys(team[seat] for team in teams):
        agent, own = task.rivals[name], [i for i, team in enumerate(teams) if team[seat] == name]
        asked = [prompts[i] for i in own]
        if made is None:
            found = [best for best, *_ in agent.reply(asked)]
        else:
            found = [best for best, _ in task.say(agent, asked, [made[i] for i in own], False, limit)]
        said |= {i: reply.text for i, reply in zip(own, found)}
    return [said[i] for i in range(len(teams))]


# ------------------------------------------------------------------------------------------------ figures
def fitted(names, games, seed=0, bootstraps=200):
    """Ratings of the names, (1 + bootstraps, P): those of the games, and of as many games drawn from them.

    Bradley and Terry's model of teams: the logit of the chance that the first wins is the sum of its two
    skills less that of the other's; a draw is half a win for either; skills have a Gaussian prior."""
    teams = [[[team[seat] for seat in SEATS] for team in game["teams"]] for game in games]
    taken = np.array([[[team.count(name) for name in names] for team in pair] for pair in teams])  # (N, 2, P)
    first, other = np.array([[team["reward"] for team in game["teams"]] for game in games]).T
    won, n = (1 + np.sign(first - other)) / 2, len(games)  # (N,)
    counts, ridge = np.stack([won, 1 - won], 1), 1 / SPREAD**2
    best = newton(taken, counts, ridge)
    drawn = np.random.default_rng([seed, 24]).multinomial(n, np.full(n, 1 / n), bootstraps)
    fits = [best, *(newton(taken, counts * often[:, None], ridge, best) for often in drawn)]
    return MEAN + SCALE * np.array(fits)


def spread(values):
    """[the first, low, high] along the first axis, the 95 % interval that of the others."""
    return np.vstack([values[:1], np.quantile(values[1:], (0.025, 0.975), axis=0)])


def figures(games):
    """(metrics, intervals) of all games: how often a keyword was found, and in which round; how often a
    guesser asked the handshake, was told yes, and was then told what no Alpha says."""
    teams = [(game["keyword"], team["rounds"]) for game in games for team in game["teams"]]
    wins = [ROUNDS + 1 - team["reward"] for team in teams_of(games) if team["reward"] > 0]
    asked = [(keyword, rounds) for keyword, rounds in teams if rounds[0][0] == HANDSHAKE]
    accepted = [(keyword, rounds) for keyword, rounds in asked if rounds[0][1] == "yes"]
    wrong = [
        any(answer_by_rule(keyword, question) not in (None, answer) for question, answer, _ in rounds)
        for keyword, rounds in accepted
    ]
    rates = {
        "found": share([any(team["reward"] > 0 for team in game["teams"]) for game in games]),
        "handshakes": share([rounds[0][0] == HANDSHAKE for _, rounds in teams]),
        "handshakes_accepted": share([rounds[0][1] == "yes" for _, rounds in asked]) if asked else None,
        "false_alphas": share(wrong) if wrong else None,
    }
    metrics = {name: rate and rate[0] for name, rate in rates.items()}
    metrics |= {"rounds_to_win": float(np.mean(wins)) if wins else None}
    return metrics, {name: rate[1:] for name, rate in rates.items() if rate}


def table(rows):
    """The rows as lines."""
    width = max([20, *(len(row["agent"]) + 1 for row in rows)])
    lines = [
        "",
        f"{'':{width}}{'seats':>7}{'rating':>22}{'found as guesser':>24}{'as answerer':>24}{'reward':>8}",
    ]
    for row in rows:
        cells = ["{:.0f} [{:.0f}, {:.0f}]".format(*row["rating"])]
        cells += ["{:.3f} [{:.3f}, {:.3f}]".format(*row[seat]) for seat in SEATS]
        line = f"{row['agent']:{width}}{row['n']:>7}{cells[0]:>22}{cells[1]:>24}{cells[2]:>24}"
        lines.append(line + ("" if row["reward"] is None else f"{row['reward']:>8.2f}"))
    return [*lines, ""]
