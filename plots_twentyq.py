"""Pictures of what infer.py eval wrote of 20 Questions: the ratings of a tournament (--against)."""

from games.twentyq_tournament import MEAN
from plots_games import finish, pyplot

COLOURS = {
    "table": "C2",
    "alpha": "C0",
    "half": "C9",
    "false": "C3",
    "random": "C7",
    "model": "C1",
}  # by kind


def draw_twentyq(reports, out):
    played = {name: report for name, report in reports.items() if report.get("tournament")}
    if not played:
        raise ValueError(f"{', '.join(reports)}: no tournament (infer.py eval --against A B C --out FILE)")
    return [draw_ratings(played, out)]


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
