"""A tournament of 20 Questions between agents, as Kaggle's competition was played and rated.

A game has two teams, each of a guesser and an answerer, and one keyword for both. Who finds it in the earlier
round wins; in the same round, or where nobody does, it is a draw. An agent stands for a kind of player, so it
may sit beside itself. Read `tournament` first: seats are drawn, all games are played in lock step (play), and
skills are fitted (fit)."""

import numpy as np

from games.stats import SCALE, newton, wilson
from games.task import Episode
from games.twentyq.contest.rules import HANDSHAKE, answer_by_rule
from games.twentyq.figures import rounds_of
from games.twentyq.match import match, play_matches
from games.twentyq.prompts import ROUNDS

SEATS = ("guesser", "answerer")
MEAN = 600  # of all ratings, as in the competition; SCALE: 400 points more in one seat are odds of ten to one
SPREAD = 2.0  # standard deviation of skills before any game, in logits (347 points): no rating is infinite


def tournament(task, examples, agents):
    """A game about each example between agents drawn from {name: agent}: what `evaluate` gives, and
    "tournament", a row for each agent, best first. A row has "agent", "n" (seats taken), "rating", "guesser",
    "answerer" and "reward"; of a seat the share of games in which its team found the keyword, first or at the
    same time. All but n and the mean reward are [value, low, high]."""
    names = list(agents)
    games = draw(names, examples, task.seed)
    play(task, games, agents, task.noises[0])
    teams = teams_of(games)
    rows = []
    for name, rating in zip(names, interval(fit(names, games, task.seed)).T.tolist()):
        rewards = {seat: [team["reward"] for team in teams if team[seat] == name] for seat in SEATS}
        both = rewards["guesser"] + rewards["answerer"]
        row = {"agent": name, "n": len(both), "rating": rating}
        row |= {seat: share([reward > 0 for reward in rewards[seat]]) for seat in SEATS}
        row["reward"] = float(np.mean(both)) if both else None
        rows.append(row)
    rows.sort(key=lambda row: -row["rating"][0])
    metrics, intervals = figures(games)
    return {
        "n": len(games),
        "metrics": metrics,
        "intervals": intervals,
        "baselines": {},
        "notes": table(rows),
        "tournament": rows,
        "records": games,
    }


def teams_of(games):
    return [team for game in games for team in game["teams"]]


def share(hits):
    """[rate, low, high] of a list of bool, the interval Wilson's."""
    return [float(np.mean(hits)) if hits else 0.0, *wilson(sum(hits), len(hits))]


# ------------------------------------------------------------------------------------------------ play
def draw(names, examples, seed):
    """Games to play: each example with its "teams", [{"guesser", "answerer"}] * 2, whose seats and partners
    are drawn by (seed, game)."""
    games = []
    for i, example in enumerate(examples):
        places = np.random.default_rng([seed, 22, i]).integers(len(names), size=(2, 2))
        teams = [dict(zip(SEATS, (names[place] for place in pair))) for pair in places]
        games.append(example | {"teams": teams})
    return games


def play(task, games, agents, noise):
    """Play all games in lock step: rounds [question, answer, guess] and rewards of each team are filled in.

    `noise` is the share of answers flipped, drawn by (seed, game, team, round): errors of judgement, so what
    a rule decides is not flipped. Who comes too late has lost nothing, nor won: reward 0."""
    episodes, matches, seats = [], [], []
    for i, game in enumerate(games):
        flips = np.random.default_rng([task.seed, 23, i]).random((2, ROUNDS)) < noise
        for team, flipped in zip(game["teams"], flips):
            episodes.append(Episode(game, []))
            matches.append(match(episodes[-1], task.words(game), flipped, decided=answer_by_rule))
            guesser, answerer = agents[team["guesser"]], agents[team["answerer"]]
            seats.append({"asker": guesser, "guesser": guesser, "answerer": answerer})
    play_matches(matches, seats, task.options.tries, together=2)
    for episode, team in zip(episodes, teams_of(games)):
        team["rounds"], team["reward"] = rounds_of(episode.turns), episode.reward
    for game in games:
        first, second = game["teams"]
        if max(first["reward"], second["reward"]) > 0:
            for team in game["teams"]:
                team["reward"] = max(team["reward"], 0)


# ------------------------------------------------------------------------------------------------ figures
def fit(names, games, seed=0, bootstraps=200):
    """Ratings of the names, (1 + bootstraps, P): those of the games, and of as many games drawn from them.

    Bradley and Terry's model of teams: the logit of the chance that the first wins is the sum of its two
    skills less that of the other's; a draw is half a win for either; skills have a Gaussian prior."""
    n, teams = len(games), teams_of(games)
    seats = np.array([[team[seat] for seat in SEATS] for team in teams])
    taken = (seats[..., None] == np.array(names)).sum(1).reshape(n, 2, -1)  # (N, 2, P)
    first, other = np.array([team["reward"] for team in teams]).reshape(n, 2).T
    won = (1 + np.sign(first - other)) / 2  # (N,)
    counts, ridge = np.stack([won, 1 - won], 1), 1 / SPREAD**2
    best = newton(taken, counts, ridge)
    drawn = np.random.default_rng([seed, 24]).multinomial(n, np.full(n, 1 / n), bootstraps)
    fits = [best, *(newton(taken, counts * times[:, None], ridge, best) for times in drawn)]
    return MEAN + SCALE * np.array(fits)


def interval(values):
    """[the first, low, high] along the first axis, the 95 % interval that of the others."""
    return np.vstack([values[:1], np.quantile(values[1:], (0.025, 0.975), axis=0)])


def figures(games):
    """(metrics, intervals) of all games: how often a keyword was found, and in which round; how often a
    guesser asked the handshake, was told yes, and was then told what no Alpha says."""
    won = [len(team["rounds"]) for team in teams_of(games) if team["reward"] > 0]
    hits = {name: [] for name in ("found", "handshakes", "handshakes_accepted", "false_alphas")}
    for game in games:
        hits["found"].append(any(team["reward"] > 0 for team in game["teams"]))
        for team in game["teams"]:
            question, answer, _ = team["rounds"][0]
            shaken = question == HANDSHAKE
            hits["handshakes"].append(shaken)
            if shaken:
                hits["handshakes_accepted"].append(answer == "yes")
            if shaken and answer == "yes":
                hits["false_alphas"].append(breaks_a_rule(game["keyword"], team["rounds"]))
    rates = {name: share(values) for name, values in hits.items() if values}
    metrics = {name: rates[name][0] if name in rates else None for name in hits}
    metrics["rounds_to_win"] = float(np.mean(won)) if won else None
    return metrics, {name: rate[1:] for name, rate in rates.items()}


def breaks_a_rule(keyword, rounds):
    """Whether an answer is not what a rule says."""
    return any(answer_by_rule(keyword, question) not in (None, answer) for question, answer, _ in rounds)


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
