"""Pictures of 20 Questions: `draw` takes what infer.py eval wrote, win rates or the ratings of a tournament
(--against), and `draw_beliefs` recorded games, for how a belief moved. plots.py is the command."""

import numpy as np

from games.twentyq.figures import groups_shown
from games.twentyq.prompts import ROUNDS
from games.twentyq.world import Belief, World
from pictures import finish, pyplot

GAMES, SHOWN = 6, 5  # games of a file that are drawn, and keywords of a belief


def draw(reports, out):
    """Draw some reports, of tournaments or other evaluations: list of the files written."""
    tournaments = [name for name, report in reports.items() if "tournament" in report]
    if tournaments and len(tournaments) < len(reports):
        raise ValueError(f"{', '.join(tournaments)}: tournaments make a picture of their own")
    return [draw_ratings(reports, out) if tournaments else draw_win_rates(reports, out)]


def draw_interval(axis, y, found, colour):
    """Draw [value, low, high] as one row of a panel."""
    value, *interval = found
    axis.plot(interval, [y, y], color=colour)
    axis.plot(value, y, "o", color=colour, markersize=5)


def name_rows(axis, labels):
    """Write beside the rows 0, -1, ... of a panel what they are."""
    axis.set_yticks(range(0, -len(labels), -1), labels, fontsize=7)
    axis.set_ylim(-len(labels), 1)
    axis.grid(alpha=0.3)


# ------------------------------------------------------------------------------------------------ win rates
def draw_win_rates(reports, out):
    """Draw how many games were won by share of flipped answers and by group of keywords, evaluations beside
    each other, and how many by each round."""
    figure, (rates, rounds) = pyplot().subplots(1, 2, figsize=(12, 6))
    for number, (name, report) in enumerate(reports.items()):
        rows = rows_of(report)
        for y, row in enumerate(rows.values()):
            draw_interval(rates, -y - 0.2 * number, [row["win_rate"], *row["interval"]], f"C{number}")
        name_rows(rates, [f"{label} ({row['n']})" for label, row in rows.items()])
        for noise in dict.fromkeys(game["noise"] for game in report["records"]):
            games = [game for game in report["records"] if game["noise"] == noise]
            ends = [len(game["rounds"]) for game in games if game["won"]]
            won = np.bincount(ends, minlength=ROUNDS + 1).cumsum() / len(games)
            label = f"{name}, {noise:g} flipped"
            rounds.plot(won, color=f"C{number}", alpha=1 / (1 + 4 * noise), label=label)
    rates.set(xlabel="share of games won (games)", xlim=(-0.02, 1.02))
    rounds.set(xlabel="round", ylabel="share of games won by then", xticks=range(0, ROUNDS + 1, 4))
    rounds.grid(alpha=0.3)
    rounds.legend(fontsize=7)
    return finish(figure, out)


def rows_of(report):
    """{label: {"n", "win_rate", "interval"}} by share of flipped answers, and of the first share by group."""
    rows = {}
    for name, interval in report["intervals"].items():
        noise = name.removeprefix("win_rate@")
        if noise != name:
            rate = report["metrics"][name]
            rows[f"{noise} flipped"] = {"n": report["n"], "win_rate": rate, "interval": interval}
    return rows | {part: group for _, part, group in groups_shown(report["groups"])}


# ------------------------------------------------------------------------------------------------ beliefs
def draw_beliefs(rows, out):
    """Draw how a belief over our world moved in the first recorded games {"keyword", "rounds"}, a panel each:
    the chances of the likeliest keywords and of the true one after each answer."""
    rows, belief = rows[:GAMES], Belief(World())
    names = belief.world.keywords
    figure, panels = pyplot().subplots(len(rows), figsize=(10, 3.4 * len(rows)), squeeze=False)
    for row, axis in zip(rows, panels.flat):
        keyword, turns = row["keyword"], [turn[:2] for turn in row["rounds"]]
        states = [belief.after(turns[:n]).probabilities() for n in range(len(turns) + 1)]
        moved = dict(zip(names, np.array(states).T))  # keyword -> (answers + 1,)
        likeliest = sorted(names, key=lambda name: (name != keyword, -moved[name].max()))
        for name in likeliest[: SHOWN + 1]:
            axis.plot(moved[name], label=name, linewidth=3 if name == keyword else 1.2)
        axis.set_title(keyword or "an unknown keyword", fontsize=10)
        axis.set_xticks(range(len(states)), ["", *map(" ".join, turns)], fontsize=6, rotation=20, ha="right")
        axis.set(ylabel="chance", ylim=(-0.02, 1.02))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="upper left")
    return finish(figure, out)


# ------------------------------------------------------------------------------------------------ tournaments
def draw_ratings(reports, out):
    """Draw tournaments, a line each: ratings, and how often a keyword was found from either seat."""
    height = sum(0.36 * len(report["tournament"]) + 1.3 for report in reports.values())
    figure, lines = pyplot().subplots(len(reports), 2, figsize=(12, height), squeeze=False, sharex="col")
    for (name, report), (ratings, seats) in zip(reports.items(), lines):
        rows = report["tournament"]
        for y, row in enumerate(rows):
            draw_interval(ratings, -y, row["rating"], "C0")
            draw_interval(seats, 0.14 - y, row["guesser"], "C0")
            draw_interval(seats, -0.14 - y, row["answerer"], "C1")
        name_rows(ratings, [f"{row['agent']} ({row['n']})" for row in rows])
        name_rows(seats, [""] * len(rows))
        ratings.set_title(f"{name}: {report['n']:,} games, ratings (seats taken)", fontsize=10)
        seats.set_title("games in which its team won: as guesser, as answerer (orange)", fontsize=10)
        seats.set_xlim(-0.02, 1.02)
    figure.supxlabel("95 % intervals; 400 points more in one seat are odds of ten to one", fontsize=9)
    return finish(figure, out)
