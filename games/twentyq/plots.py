"""Pictures of 20 Questions: `draw` takes what infer.py eval wrote, win rates or the ratings of a tournament
(--against). plots.py is the command."""

from collections import defaultdict
from itertools import cycle

import numpy as np

from games.twentyq.figures import groups_shown
from games.twentyq.prompts import ROUNDS
from pictures import draw_rows, finish, pyplot

STYLES = ["-", "--", "-.", ":"]  # of the curves by share of flipped answers


def draw(reports, out):
    """Draw reports {name: report}, all of tournaments or none: list of the files written."""
    tournaments = [name for name, report in reports.items() if "tournament" in report]
    if tournaments and len(tournaments) < len(reports):
        raise ValueError(f"{', '.join(tournaments)}: tournaments make a picture of their own")
    draw_game = draw_ratings if tournaments else draw_win_rates
    return [draw_game(reports, out)]


# ------------------------------------------------------------------------------------------------ win rates
def draw_win_rates(reports, out):
    """Draw the share of games won, by share of flipped answers and by group of keywords, and the share won by
    each round. Evaluations are set beside each other, a colour for each."""
    tables = []
    sizes = {}  # from the last report that has the row
    for report in reports.values():
        table = {}
        for label, row in rows_of(report).items():
            table[label] = row["win_rate"], row["interval"]
            sizes[label] = row["n"]
        tables.append(table)

    # Left: a row for each share of flipped answers and each group of keywords.
    height = max(5, 0.2 * len(sizes) + 1.5)
    figure, (rates, rounds) = pyplot().subplots(1, 2, figsize=(13, height))
    draw_rows(rates, tables, sizes)
    rates.set_xlabel("share of games won, 95 % intervals (games); groups are games of the first row")
    rates.set_xlim(-0.02, 1.02)

    # Right: a steep curve wins early, and the height of its end is the win rate.
    for i, (name, report) in enumerate(reports.items()):
        draw_rounds(rounds, report, name, f"C{i}")
    rounds.set(
        xlabel="round",
        ylabel="share of games won by then",
        xticks=range(0, ROUNDS + 1, 4),
        ylim=(-0.02, 1.02),
    )
    rounds.grid(alpha=0.3)
    rounds.legend(fontsize=8)
    return finish(figure, out)


def draw_rounds(axis, report, name, colour):
    """Draw the share of games won by each round, a line style for each share of flipped answers."""
    games = defaultdict(list)  # share of flipped answers -> its games
    for game in report["records"]:
        games[game["noise"]].append(game)

    for (noise, played), style in zip(games.items(), cycle(STYLES)):
        last_rounds = [len(game["rounds"]) for game in played if game["won"]]
        won = np.bincount(last_rounds, minlength=ROUNDS + 1).cumsum() / len(played)
        label = f"{name}, {100 * noise:g} % of answers flipped"
        axis.plot(won, style, color=colour, label=label)


def rows_of(report):
    """{label: {"n", "win_rate", "interval"}} by share of flipped answers, then by group at the first of these
    shares."""
    rows = {}
    for name, interval in report["intervals"].items():
        noise = name.removeprefix("win_rate@")
        if noise != name:
            rate = report["metrics"][name]
            rows[f"{noise} flipped"] = {"n": report["n"], "win_rate": rate, "interval": interval}
    for _, part, group in groups_shown(report["groups"]):
        rows[part] = group
    return rows


# ------------------------------------------------------------------------------------------------ tournaments
def draw_ratings(reports, out):
    """Draw tournaments, a line each: ratings, and how often a keyword was found from either seat."""
    height = 0
    for report in reports.values():
        height += 0.36 * len(report["tournament"]) + 1.3
    figure, lines = pyplot().subplots(len(reports), 2, figsize=(12, height), squeeze=False, sharex="col")
    for (name, report), (ratings, seats) in zip(reports.items(), lines):
        columns = defaultdict(dict)  # column -> agent -> (value, interval)
        sizes = {}
        for row in report["tournament"]:
            agent = row["agent"]
            sizes[agent] = row["n"]
            for column in ("rating", "guesser", "answerer"):
                value, *interval = row[column]
                columns[column][agent] = value, interval

        draw_rows(ratings, [columns["rating"]], sizes)
        ratings.set_title(f"{name}: {report['n']:,} games, ratings (seats taken)", fontsize=10)

        # The same agents in the same rows, so that their names stand only on the left.
        looks = [("C0", False), ("C0", True)]
        draw_rows(seats, [columns["guesser"], columns["answerer"]], looks=looks)
        seats.tick_params(labelleft=False)
        seats.set_title("share of games its team won, as guesser and as answerer (hollow)", fontsize=10)
        seats.set_xlim(-0.02, 1.02)
    figure.supxlabel("95 % intervals; 400 points more in one seat are odds of ten to one", fontsize=9)
    return finish(figure, out)
