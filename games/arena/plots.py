"""Pictures of the arena: what infer.py eval wrote (draw), and any file of battles (draw_battles)."""

from collections import Counter

import numpy as np

from games.arena.files import SWAP, read_battles
from games.arena.stats import CENTRE, distributions, length_differences, ratings, win_rates
from pictures import finish, pyplot

NAMES = ("A", "B", "tie")
COLOURS = ("C0", "C1", "C7")
MOST = 25  # models in the table of win rates, the best-rated ones


# ------------------------------------------------------------------------------------------------ battles
def draw_battles(paths, out):
    """Draw files of battles: the winners by the length of the answers, and where models have names their
    ratings, which are printed too, and how often each beats each.

    These are the questions that people bring to such a file: who is best and how surely, whom does that rest
    on, and are votes only for length. Shares of winners, models used, punctuation and prompt lengths stood
    beside them once and changed nothing that anyone did next."""
    dropped = Counter()
    battles = [battle for path in paths for battle in read_battles(str(path), "", dropped)]
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "none"
    print(f"{len(battles):,} battles; dropped: {reasons}")
    groups = ratings(battles)
    print_ratings(groups)
    models = [row["model"] for group in groups for row in group]
    size = (18, max(5, 0.3 * len(models) + 2))
    figure, (lengths, rated, table) = pyplot().subplots(1, 3, figsize=size)
    draw_lengths(lengths, battles)
    if models:
        draw_ratings(rated, groups)
        draw_win_rates(table, battles, models[:MOST])
    else:
        rated.remove()
        table.remove()
    return [finish(figure, out)]


def print_ratings(groups):
    for group in groups:
        print(f"{'':28}{'battles':>8}{'Davidson':>24}{'Bradley-Terry':>24}   95 % intervals")
        for row in group:
            cells = ["{:.0f} [{:.0f}, {:.0f}]".format(*row[name]) for name in ("davidson", "bradley_terry")]
            print(f"{row['model']:28}{row['n']:8,}{cells[0]:>24}{cells[1]:>24}")


def draw_lengths(axis, battles):
    """Shares of the winners, by tenths of the battles in the order of how much longer A is."""
    winners = distributions([battle["target"] for battle in battles])  # (N, 3)
    order = np.argsort(length_differences(battles), kind="stable")
    tenths = np.array_split(order, min(10, len(battles)))
    shares = np.array([winners[tenth].mean(0) for tenth in tenths])  # (10, 3)
    axis.stackplot(range(1, len(tenths) + 1), shares.T, labels=NAMES, colors=COLOURS)
    axis.set(title="shares of the winners by length", xlabel="B much longer ... A much longer (tenths)")
    axis.legend(fontsize=7)


def draw_ratings(axis, groups):
    """Davidson's ratings with 95 % intervals, a colour for each group of models that battles connect."""
    labels = []
    for number, group in enumerate(groups):
        rows = np.arange(len(labels), len(labels) + len(group))
        value, low, high = np.array([row["davidson"] for row in group]).T
        axis.hlines(rows, low, high, color=f"C{number % 10}")
        axis.plot(value, rows, "o", color=f"C{number % 10}", markersize=4)
        labels += [f"{row['model'][:34]} ({row['n']:,})" for row in group]
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.axvline(CENTRE, color="black", linewidth=0.6)
    axis.invert_yaxis()
    axis.grid(alpha=0.3)
    axis.set(title="ratings (battles); compare within a colour only", xlabel="400 points: odds of ten to one")


def draw_win_rates(axis, battles, models):
    """How often the model of a row beats that of a column, and in how many battles."""
    rates, fought = win_rates(battles, models)
    axis.imshow(rates, cmap="RdYlGn", vmin=0, vmax=1)
    for i, j in np.argwhere(fought):
        text = f"{rates[i, j]:.2f}\n{fought[i, j]:.0f}"
        axis.text(j, i, text, ha="center", va="center", fontsize=6)
    labels = [name[:24] for name in models]
    axis.set_xticks(range(len(models)), labels, rotation=60, ha="right", fontsize=7)
    axis.set_yticks(range(len(models)), labels, fontsize=7)
    axis.set_title("wins of the row over the column, ties half; battles")


# ------------------------------------------------------------------------------------------------ evaluations
def draw(reports, out):
    """Draw how far to trust a model, a report a row: reliability, and its liking for places, lengths and
    models."""
    figure, axes = pyplot().subplots(len(reports), 4, figsize=(18, 4.4 * len(reports)), squeeze=False)
    for row, (name, report) in zip(axes, reports.items()):
        records = [record for record in report["records"] if record["fair"]]
        probs = np.array([record["probs"] for record in records])
        back = np.array([record["swapped"] for record in records])[:, SWAP]
        draw_reliability(row[0], report["reliability"], name)
        draw_orders(row[1], probs, back)
        draw_verbosity(row[2], report["bias"]["verbosity"]["parts"])
        draw_models(row[3], report["bias"]["families"])
        for axis in row[[0, 1, 3]]:  # the line on which what is said is so
            axis.axline((0, 0), slope=1, color="black", linewidth=0.6)
    return [finish(figure, out)]


def draw_reliability(axis, tables, title):
    for (name, bins), colour in zip(tables.items(), ("black", *COLOURS)):
        x, y, n = (np.array([part[key] for part in bins]) for key in ("predicted", "observed", "n"))
        axis.plot(x, y, color=colour, label="the likeliest" if name == "top" else name)
        axis.scatter(x, y, s=5 + 200 * n / n.sum(), color=colour, alpha=0.5)
    axis.set(title=title, xlabel="said", ylabel="observed share (reliability)")
    axis.legend(fontsize=7)


def draw_orders(axis, probs, back):
    axis.plot(probs[:, 0], back[:, 0], ".", markersize=2, alpha=0.5)
    flips = (probs.argmax(1) != back.argmax(1)).mean()
    gap = (probs[:, 0] - probs[:, 1]).mean()
    title = f"{flips:.0%} of verdicts flip, gap A - B {gap:+.3f}"
    axis.set(title=title, xlabel="P(A better), A first", ylabel="P(A better), A second")


def draw_verbosity(axis, parts):
    lines = (
        ("longer_wins", "longer wins, label", "ko-"),
        ("longer_predicted", "said", "o--"),
        ("accuracy", "accuracy", "s:"),
    )
    for key, label, style in lines:
        shares = np.array([part[key] for part in parts], float)  # None, of no battle, is NaN
        axis.plot(range(1, len(parts) + 1), shares, style, markersize=4, label=label)
    axis.set(title="by how much longer A is", xlabel="B longer ... A longer (fifths)", ylim=(0, 1))
    axis.legend(fontsize=7)


def draw_models(axis, rows):
    for row in rows:
        x, y = row["observed"], row["predicted"]
        low, high = row["interval"] or (y - x, y - x)
        axis.vlines(x, x + low, x + high, color="C7", linewidth=1)
        axis.plot(x, y, "o", color="C0", markersize=4)
        axis.annotate(row["model"][:20], (x, y), fontsize=6)
    axis.set(title="share of wins by model", xlabel="label", ylabel="said")
