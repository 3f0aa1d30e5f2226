"""Pictures of 20 Questions: of what infer.py eval wrote the ratings of a tournament (--against), or win rates
by noise, difficulty and category; of recorded games how a belief moved."""

import numpy as np

from games.arc.plots import beside, finish, pyplot
from games.twentyq.contest.tournament import MEAN
from games.twentyq.figures import LEAST, bits
from games.twentyq.world import WORLD, Belief, world_of

GAMES, SHOWN = 6, 5  # games of a file that are drawn, and keywords of a belief

COLOURS = {
    "table": "C2",
    "alpha": "C0",
    "half": "C9",
    "false": "C3",
    "random": "C7",
    "model": "C1",
}  # by kind


def draw_twentyq(reports, out):
    """Draw the tournaments among the reports, and the evaluations."""
    played = {name: report for name, report in reports.items() if report.get("tournament")}
    others = {name: report for name, report in reports.items() if name not in played}
    written = [draw_ratings(played, out)] if played else []
    return written + ([draw_win_rates(others, beside(out, "wins") if played else out)] if others else [])


def draw_win_rates(reports, out):
    """Draw the win rates of evaluations by noise, beside the table player's, by group of keywords, and how
    many games were won by each round."""
    plt = pyplot()
    figure, (noise, parts, rounds) = plt.subplots(1, 3, figsize=(15, 5))
    for number, (name, report) in enumerate(reports.items()):
        colour, rates = f"C{number}", {}
        for source, style in ((report["metrics"], "o-"), (report["baselines"], "--")):
            found = {float(key[9:]): value for key, value in source.items() if key.startswith("win_rate@")}
            if style == "o-":
                rates = found
                ends = [report["intervals"][f"win_rate@{x:g}"] for x in rates]
                noise.fill_between(list(rates), *zip(*ends), color=colour, alpha=0.15)
            label = name if style == "o-" else "the table player, its answerer" if not number else None
            noise.plot(list(found), list(found.values()), style, color=colour, label=label)
        groups = [
            (part, x)
            for kind, group in report["groups"].items()
            for part, x in group.items()
            if kind != "category" or x["n"] >= LEAST
        ][::-1]
        for y, (_, x) in enumerate(groups):
            parts.plot(x["interval"], [y, y], color=colour, linewidth=1.2)
            parts.plot(x["win_rate"], y, "o", color=colour, markersize=4)
        parts.set_yticks(range(len(groups)), [f"{part} ({x['n']})" for part, x in groups], fontsize=7)
        for x, style in zip(sorted(rates), ("-", "--", "-.", ":")):
            games = [record for record in report["records"] if record["noise"] == x]
            won = [len(record["rounds"]) for record in games if record["won"]]
            share = [sum(r <= n for r in won) / len(games) for n in range(1, 21)]
            rounds.plot(range(1, 21), share, style, color=colour, label=f"{name}, {x:g} flipped")
    noise.set(xlabel="share of answers flipped", ylabel="games won", ylim=(0, 1.02))
    parts.set(xlabel="games won, the first share of flips (games)", xlim=(-0.02, 1.02))
    rounds.set(xlabel="round", ylabel="games won by then", ylim=(0, 1.02), xticks=range(1, 21, 3))
    for axis in (noise, parts, rounds):
        axis.grid(alpha=0.3)
    noise.legend(fontsize=8)
    rounds.legend(fontsize=7)
    return finish(figure, out)


def draw_beliefs(rows, out, world=WORLD):
    """Draw how a belief over a world moved in the first recorded games {"keyword", "rounds"}, a line each:
    the chances of the likeliest keywords and of the true one, and the bits that each question was expected to
    tell."""
    plt, belief, rows = pyplot(), Belief(world_of(world)), rows[:GAMES]
    names = belief.world.keywords
    figure, lines = plt.subplots(len(rows), 2, figsize=(13, 3.4 * len(rows)), squeeze=False)
    for row, (chances, told) in zip(rows, lines):
        turns = [dict(zip(("question", "answer", "guess"), turn)) for turn in row["rounds"]]
        pairs = [(turn["question"], turn["answer"]) for turn in turns]
        moved = np.array([belief.after(pairs[:i]).probabilities() for i in range(len(turns) + 1)])
        best = sorted(np.argsort(-moved.max(0))[:SHOWN], key=lambda k: -moved[-1, k])
        shown = [*best, *(k for k, name in enumerate(names) if name == row["keyword"] and k not in best)]
        for k in shown:
            true = names[k] == row["keyword"]
            chances.plot(
                moved[:, k], linewidth=2.5 if true else 1.2, color="black" if true else None, label=names[k]
            )
        won = {True: ", found", False: ", not found"}.get(row.get("won"), "")
        chances.set_title(f"{row['keyword'] or 'an unknown keyword'}{won}", fontsize=10)
        chances.set(xlabel="answers", ylabel="chance", ylim=(-0.02, 1.02), xlim=(0, len(turns)))
        chances.set_xticks(range(0, len(turns) + 1, 2))
        chances.legend(fontsize=7, loc="upper left")
        gains = [gain or 0.0 for gain in bits(belief, turns)][::-1]
        told.barh(range(len(turns)), gains, color=["C0" if a == "yes" else "C3" for _, a in pairs[::-1]])
        labels = [f"{question[:46]} {answer}" for question, answer in pairs[::-1]]
        told.set_yticks(range(len(turns)), labels, fontsize=6)
        told.set_xlabel("bits that the question was expected to tell (blue: yes)")
        for axis in (chances, told):
            axis.grid(alpha=0.3)
    return finish(figure, out)


def draw_ratings(reports, out):
    """Draw tournaments, a line each: ratings, and how often a keyword was found from either seat."""
    plt, height = pyplot(), sum(0.36 * len(report["tournament"]) + 1.3 for report in reports.values())
    figure, lines = plt.subplots(len(reports), 2, figsize=(11, height), squeeze=False, sharex="col")
    for (name, report), (ratings, seats) in zip(reports.items(), lines):
        rows = report["tournament"][::-1]  # the best on top
        for y, row in enumerate(rows):
            kind = row["agent"].partition("+")[0]
            colour = COLOURS.get(kind, COLOURS["model"])
            for axis, key, shift, face in (
                (ratings, "rating", 0.0, colour),
                (seats, "guesser", 0.14, colour),
                (seats, "answerer", -0.14, "white"),
            ):
                value, low, high = row[key]
                axis.plot([low, high], [y + shift] * 2, color=colour, linewidth=1.6)
                axis.plot(value, y + shift, "o", color=colour, markerfacecolor=face, markersize=6)
            ratings.annotate(f"{row['rating'][0]:.0f}", (row["rating"][0], y + 0.16), ha="center", fontsize=7)
        ratings.set_yticks(range(len(rows)), [f"{row['agent']} ({row['n']})" for row in rows], fontsize=9)
        seats.set_yticks(range(len(rows)), [])
        ratings.axvline(MEAN, color="black", linewidth=0.6)
        ratings.set_title(f"{name}: {report['n']:,} games, ratings (seats taken)", fontsize=10)
        seats.set_title("share of games in which its team found the keyword", fontsize=10)
        seats.set_xlim(-0.02, 1.02)
        for face, label in (("black", "as guesser"), ("white", "as answerer")):
            seats.plot([], [], "o", color="black", markerfacecolor=face, label=label)
        for axis in (ratings, seats):
            axis.set_ylim(-0.6, len(rows) - 0.4)
            axis.grid(alpha=0.3)
    lines[0, 1].legend(fontsize=8, loc="lower left")
    figure.supxlabel("95 % intervals; 400 points more in one seat are odds of ten to one", fontsize=9)
    return finish(figure, out)
