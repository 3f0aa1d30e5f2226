"""A tournament of 20 Questions between agents, played and rated like Kaggle's competition.

A game has two teams, each with a guesser and an answerer, and one keyword for both. The team that finds it in
the earlier round wins; if both find it in the same round, or neither does, the game is a draw. An agent
stands for a kind of player, so it may take several seats of a game. Read `tournament` first: it draws the
seats, plays all games in lock step (play), and fits the skills (fit)."""

import numpy as np

from games.stats import SCALE, newton, wilson
from games.task import Episode
from games.twentyq.contest.rules import HANDSHAKE, answer_by_rule
from games.twentyq.figures import rounds_of
from games.twentyq.match import match, play_matches
from games.twentyq.prompts import ROUNDS

SEATS = ("guesser", "answerer")
# mean of all ratings, as in the competition; 400 points more in one seat (SCALE) are odds of 10 to 1
MEAN = 600
# standard deviation of the prior of a skill, in logits (347 points); it keeps ratings finite
SPREAD = 2.0


def tournament(task, examples, agents):
    """Play a game about each example between agents drawn from {name: agent}. Returns the result of
    `evaluate`, and under "tournament" a row for each agent, best first.

    A row has "agent", "n" (seats taken), "rating", "guesser", "answerer" and "reward". "guesser" and
    "answerer" are the shares of games in that seat in which the agent's team found the keyword, first or in
    the same round. All but n and the mean reward are [value, low, high]."""
    names = list(agents)
    games = draw(names, examples, task.seed)
    play(task, games, agents, task.noises[0])
    teams = teams_of(games)
    ratings = interval(fit(names, games, task.seed))  # (3, agents)
    rows = []
    for name, rating in zip(names, ratings.T.tolist()):
        row = {"agent": name, "n": 0, "rating": rating}
        rewards = []
        for seat in SEATS:
            seat_rewards = [team["reward"] for team in teams if team[seat] == name]
            row[seat] = rate([reward > 0 for reward in seat_rewards])
            rewards += seat_rewards
        row["n"] = len(rewards)
        row["reward"] = float(np.mean(rewards)) if rewards else None
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
    """The teams of all games, two in a row for each game."""
    teams = []
    for game in games:
        teams += game["teams"]
    return teams


def rate(hits):
    """[share, low, high] of a list of bool, with Wilson's interval."""
    return [float(np.mean(hits)) if hits else 0.0, *wilson(sum(hits), len(hits))]


# ------------------------------------------------------------------------------------------------ play
def draw(names, examples, seed):
    """The games to play: each example with its two "teams" {"guesser", "answerer"}. The agents of the seats
    are drawn by (seed, game)."""
    games = []
    for i, example in enumerate(examples):
        rng = np.random.default_rng([seed, 22, i])
        teams = []
        for guesser, answerer in rng.integers(len(names), size=(2, 2)):
            teams.append({"guesser": names[guesser], "answerer": names[answerer]})
        games.append(example | {"teams": teams})
    return games


def play(task, games, agents, noise):
    """Play all games in lock step, and fill in the rounds [question, answer, guess] and the reward of each
    team.

    noise: the share of answers to flip, drawn by (seed, game, team, round). Flips stand for errors of
    judgement, so an answer by rule is never flipped. A team that is beaten to the keyword has reward 0: it
    did not win, and it lost nothing."""
    episodes = []
    matches = []
    seats = []
    for i, game in enumerate(games):
        flips = np.random.default_rng([task.seed, 23, i]).random((2, ROUNDS)) < noise
        for team, flipped in zip(game["teams"], flips):
            episode = Episode(game, [])
            episodes.append(episode)
            matches.append(match(episode, task.words(game), flipped, rule=answer_by_rule))
            guesser = agents[team["guesser"]]
            seats.append(
                {
                    "asker": guesser,  # the team's guesser also asks its questions
                    "guesser": guesser,
                    "answerer": agents[team["answerer"]],
                }
            )
    # together: when one team finds the keyword, the other one stops too
    play_matches(matches, seats, task.options.tries, together=2)

    for episode, team in zip(episodes, teams_of(games)):
        team["rounds"] = rounds_of(episode.turns)
        team["reward"] = episode.reward
    for game in games:
        if any(team["reward"] > 0 for team in game["teams"]):
            for team in game["teams"]:
                team["reward"] = max(team["reward"], 0)


# ------------------------------------------------------------------------------------------------ figures
def fit(names, games, seed=0, bootstraps=200):
    """Ratings of P names, (1 + bootstraps, P): the first row from the games, the others from bootstrap
    samples of them.

    The model is Bradley and Terry's for teams: the logit of the first team's chance to win is the sum of its
    two skills minus the sum of the other team's. A draw counts as half a win for either, and skills have a
    Gaussian prior."""
    n = len(games)
    teams = teams_of(games)
    seats = np.array([[team["guesser"], team["answerer"]] for team in teams])  # (2 N, 2)
    matches = seats[..., None] == np.array(names)  # (2 N, 2, P)
    taken = matches.sum(1).reshape(n, 2, -1)  # (N, 2, P): seats by team
    rewards = np.array([team["reward"] for team in teams])  # (2 N,)
    first, other = rewards.reshape(n, 2).T  # (N,) each
    won = (1 + np.sign(first - other)) / 2  # (N,): 1, 1/2 or 0
    counts = np.stack([won, 1 - won], 1)  # (N, 2)

    ridge = 1 / SPREAD**2
    best = newton(taken, counts, ridge)
    fits = [best]
    rng = np.random.default_rng([seed, 24])
    samples = rng.multinomial(n, np.full(n, 1 / n), bootstraps)  # (bootstraps, N): how often each game counts
    for times in samples:
        # from the best fit on, a few steps are enough
        fits.append(newton(taken, counts * times[:, None], ridge, best))
    return MEAN + SCALE * np.array(fits)


def interval(values):
    """[first value, low, high] along the first axis. The other values give the 95 % interval."""
    return np.vstack([values[:1], np.quantile(values[1:], (0.025, 0.975), axis=0)])


def figures(games):
    """(metrics, intervals) of all games: the share of games in which the keyword was found, and the mean
    round; the share of guessers that asked the handshake, of handshakes that got a yes, and of these partners
    that later broke a rule of the protocol."""
    won = []
    hits = {name: [] for name in ("found", "handshakes", "handshakes_accepted", "false_alphas")}
    for game in games:
        hits["found"].append(any(team["reward"] > 0 for team in game["teams"]))
        for team in game["teams"]:
            if team["reward"] > 0:
                won.append(len(team["rounds"]))
            question, answer, _ = team["rounds"][0]  # Alpha shakes hands in the first round only
            shaken = question == HANDSHAKE
            hits["handshakes"].append(shaken)
            if shaken:
                accepted = answer == "yes"
                hits["handshakes_accepted"].append(accepted)
                if accepted:
                    hits["false_alphas"].append(breaks_a_rule(game["keyword"], team["rounds"]))

    # None where nothing was counted, such as handshakes without an Alpha
    metrics = dict.fromkeys(hits)
    intervals = {}
    for name, values in hits.items():
        if values:
            metrics[name], *intervals[name] = rate(values)
    metrics["rounds_to_win"] = float(np.mean(won)) if won else None
    return metrics, intervals


def breaks_a_rule(keyword, rounds):
    """Whether any answer contradicts a rule."""
    for question, answer, _ in rounds:
        if answer_by_rule(keyword, question) not in (None, answer):
            return True
    return False


def table(rows):
    """The rows as lines of text."""
    # wide enough for the longest name
    width = max([20, *(len(row["agent"]) + 1 for row in rows)])
    lines = [
        "",
        f"{'':{width}}{'seats':>7}{'rating':>22}{'found as guesser':>24}{'as answerer':>24}{'reward':>8}",
    ]
    for row in rows:
        rating = "{:.0f} [{:.0f}, {:.0f}]".format(*row["rating"])
        guesser, answerer = ["{:.3f} [{:.3f}, {:.3f}]".format(*row[seat]) for seat in SEATS]
        line = f"{row['agent']:{width}}{row['n']:>7}{rating:>22}{guesser:>24}{answerer:>24}"
        if row["reward"] is not None:
            line += f"{row['reward']:>8.2f}"
        lines.append(line)
    return [*lines, ""]
