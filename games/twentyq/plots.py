"""Pictures of 20 Questions: `draw` takes what infer.py eval wrote, win rates or the ratings of a tournament
(--against); `draw_beliefs` takes recorded games and shows how a belief moved. plots.py is the command."""

import numpy as np

from games.twentyq.figures import groups_shown
from games.twentyq.prompts import ROUNDS
from games.twentyq.world import Belief, World
from pictures import draw_rows, finish, pyplot

MAX_GAMES = 6  # games of a file that are drawn
MAX_KEYWORDS = 5  # keywords of a belief that are drawn, beside the true one
STYLES = ["-", "--", "-.", ":"]  # of the curves by share of flipped answers


def draw(reports, out):
    """Draw reports {name: report}, all of tournaments or none: list of the files written."""
    tournaments = [name for name, report in reports.items() if "tournament" in report]
    if tournaments and len(tournaments) < len(reports):
        raise ValueError(f"{', '.join(tournaments)}: tournaments make a picture of their own")
    return [draw_ratings(reports, out) if tournaments else draw_win_rates(reports, out)]


# ------------------------------------------------------------------------------------------------ win rates
def draw_win_rates(reports, out):
    """Draw the share of games won, by share of flipped answers and by group of keywords, and the share won by
    each round. Evaluations are set beside each other, a colour for each."""
    tables = []
    sizes = {}  # of the last report that has the row
    for report in reports.values():
        rows = rows_of(report)
        tables.append({label: (row["win_rate"], row["interval"]) for label, row in rows.items()})
        sizes |= {label: row["n"] for label, row in rows.items()}
    size = 13, max(5, 0.2 * len(sizes) + 1.5)
    figure, (rates, rounds) = pyplot().subplots(1, 2, figsize=size)
    draw_rows(rates, tables, sizes)
    for i, (name, report) in enumerate(reports.items()):
        draw_rounds(rounds, report, name, f"C{i}")
    rates.set(
        xlabel="share of games won, 95 % intervals (games); groups are games of the first row",
        xlim=(-0.02, 1.02),
    )
    rounds.set(xlabel="round", ylabel="share of games won by then", ylim=(-0.02, 1.02))
    rounds.set_xticks(range(0, ROUNDS + 1, 4))
    rounds.grid(alpha=0.3)
    rounds.legend(fontsize=8)
    return finish(figure, out)


def draw_rounds(axis, report, name, colour):
    """Draw the share of games won by each round, a line style for each share of flipped answers."""
    noises = dict.fromkeys(game["noise"] for game in report["records"])
    for i, noise in enumerate(noises):
        games = [game for game in report["records"] if game["noise"] == noise]
        ends = [len(game["rounds"]) for game in games if game["won"]]
        won = np.bincount(ends, minlength=ROUNDS + 1).cumsum() / len(games)
        style = STYLES[i % len(STYLES)]
        axis.plot(won, style, color=colour, label=f"{name}, {100 * noise:g} % of answers flipped")


def rows_of(report):
    """{label: {"n", "win_rate", "interval"}} by share of flipped answers, then by group at the first of these
    shares."""
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
    rows = rows[:MAX_GAMES]
    belief = Belief(World())
    names = belief.world.keywords
    figure, panels = pyplot().subplots(len(rows), figsize=(11, 3.6 * len(rows)), squeeze=False)
    for row, axis in zip(rows, panels.flat):
        keyword = row["keyword"]
        turns = [turn[:2] for turn in row["rounds"]]
        states = [belief.after(turns[:n]).probabilities() for n in range(len(turns) + 1)]
        moved = dict(zip(names, np.array(states).T))  # keyword -> (answers + 1,)
        likeliest = sorted(names, key=lambda name: (name != keyword, -moved[name].max()))
        for name in likeliest[: MAX_KEYWORDS + 1]:
            true = name == keyword
            label = f"{name} (the keyword)" if true else name
            axis.plot(
                moved[name], "-" if true else "o-", markersize=3, label=label, linewidth=3 if true else 1
            )
        end = {True: f", won in round {len(turns)}", False: ", not won"}.get(row.get("won"), "")
        axis.set_title((keyword or "an unknown keyword") + end, fontsize=10)
        questions = [f"{question} {answer}" for question, answer in turns]
        axis.set_xticks(range(len(states)), ["start", *questions], fontsize=7, rotation=25, ha="right")
        axis.set(ylabel="chance", yscale="log", ylim=(1e-3, 1.3))  # all start at 1 / keywords
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(figure, out)


# ------------------------------------------------------------------------------------------------ tournaments
def draw_ratings(reports, out):
    """Draw tournaments, a line each: ratings, and how often a keyword was found from either seat."""
    height = sum(0.36 * len(report["tournament"]) + 1.3 for report in reports.values())
    figure, lines = pyplot().subplots(len(reports), 2, figsize=(12, height), squeeze=False, sharex="col")
    for (name, report), (ratings, seats) in zip(reports.items(), lines):
        rows = report["tournament"]
        columns = []
        for column in ("rating", "guesser", "answerer"):
            columns.append({row["agent"]: (row[column][0], row[column][1:]) for row in rows})
        draw_rows(ratings, columns[:1], {row["agent"]: row["n"] for row in rows})
        draw_rows(seats, columns[1:], looks=[("C0", False), ("C0", True)])
        seats.tick_params(labelleft=False)
        ratings.set_title(f"{name}: {report['n']:,} games, ratings (seats taken)", fontsize=10)
        seats.set_title("share of games its team won, as guesser and as answerer (hollow)", fontsize=10)
        seats.set_xlim(-0.02, 1.02)
    figure.supxlabel("95 % intervals; 400 points more in one seat are odds of ten to one", fontsize=9)
    return finish(figure, out)
