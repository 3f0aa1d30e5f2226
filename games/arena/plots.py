"""Pictures of the arena: `draw` takes what infer.py eval wrote, `draw_battles` any files of battles."""

from collections import Counter

import numpy as np

from games.arena.files import SWAP, read_battles
from games.arena.stats import CENTRE, distributions, length_differences, ratings, win_rates
from games.stats import wilson
from pictures import draw_rows, finish, pyplot

NAMES = ("A wins", "B wins", "tie")
COLOURS = ("C0", "C1", "C7")
MAX_MODELS = 25  # the best-rated ones in the table of win rates, the most frequent ones of an evaluation


# ------------------------------------------------------------------------------------------------ battles
def draw_battles(paths, out):
    """Draw files of battles: who wins by the length of the answers, and where models have names their
    ratings, which are printed too, and how often each beats each.

    These are the questions that people bring to such a file: who is best and how surely, which battles that
    rests on, and whether votes are only for length. More panels (shares of winners, models used, punctuation,
    prompt lengths) were tried and changed no decision."""
    dropped = Counter()
    battles = []
    for path in paths:
        battles += read_battles(str(path), "", dropped)
    reasons = [f"{n:,} {reason}" for reason, n in dropped.items()]
    print(f"{len(battles):,} battles; dropped: {', '.join(reasons) or 'none'}")

    groups = ratings(battles)
    print_ratings(groups)
    models = []
    for group in groups:
        models += [row["model"] for row in group]

    # Files without names of models get the first panel only.
    columns = 3 if models else 1
    size = 6 * columns, max(5, 0.3 * len(models) + 2)
    figure, axes = pyplot().subplots(1, columns, figsize=size, squeeze=False)
    draw_lengths(axes[0, 0], battles)
    if models:
        draw_ratings(axes[0, 1], groups)
        draw_win_rates(axes[0, 2], battles, models[:MAX_MODELS])
    return [finish(figure, out)]


def print_ratings(groups):
    """Print a table for each group of models that battles connect."""
    cell = "{:.0f} [{:.0f}, {:.0f}]"
    for group in groups:
        print(f"{'':28}{'battles':>8}{'Davidson':>24}{'Bradley-Terry':>24}   95 % intervals")
        for row in group:
            davidson = cell.format(*row["davidson"])
            bradley_terry = cell.format(*row["bradley_terry"])
            print(f"{row['model']:28}{row['n']:8,}{davidson:>24}{bradley_terry:>24}")


def draw_lengths(axis, battles):
    """Draw the shares of the winners, a bar for each tenth of the battles by how much longer A is."""
    winners = distributions([battle["target"] for battle in battles])  # (N, 3)
    order = np.argsort(length_differences(battles), kind="stable")
    tenths = np.array_split(order, min(10, len(battles)))
    shares = np.array([winners[tenth].mean(0) for tenth in tenths])  # (10, 3)

    # The three shares of a tenth are stacked into one bar of height 1.
    places = np.arange(1, len(tenths) + 1)
    below = np.zeros(len(tenths))
    for name, colour, heights in zip(NAMES, COLOURS, shares.T):
        axis.bar(places, heights, 0.9, below, color=colour, label=name)
        below += heights
    axis.set(
        title="who wins, by length",
        ylabel="share of battles",
        xticks=places,
        ylim=(0, 1.12),  # the legend is above the bars
    )
    axis.set_xlabel("tenths of the battles: B much longer ... A much longer")
    axis.legend(fontsize=8, ncols=3, loc="upper center", framealpha=0.9)


def draw_ratings(axis, groups):
    """Draw Davidson's ratings with 95 % intervals, a colour for each group of models that battles connect."""
    tables = []
    sizes = {}
    for group in groups:
        table = {}
        for row in group:
            rating, *interval = row["davidson"]
            table[row["model"]] = rating, interval
            sizes[row["model"]] = row["n"]
        tables.append(table)
    draw_rows(axis, tables, sizes)
    axis.axvline(CENTRE, color="black", linewidth=0.6)

    title = "ratings (battles)"
    if len(groups) > 1:  # no battle connects two groups: each has its own mean of CENTRE
        title += "; only models of one colour compare"
    axis.set(title=title, xlabel="Davidson rating, 95 % intervals; 400 points: odds of ten to one")


def draw_win_rates(axis, battles, models):
    """Draw how often the model of a row beats that of a column, and in how many battles."""
    rates, fought = win_rates(battles, models)
    axis.imshow(rates, cmap="RdYlGn", vmin=0, vmax=1)
    for i, j in np.argwhere(fought):  # the other cells stay empty
        text = f"{rates[i, j]:.2f}\n({fought[i, j]:.0f})"
        axis.text(j, i, text, ha="center", va="center", fontsize=6)

    labels = [name[:24] for name in models]
    places = range(len(models))
    axis.set_xticks(places, labels, rotation=60, ha="right", fontsize=7, rotation_mode="anchor")
    axis.set_yticks(places, labels, fontsize=7)
    axis.set_title("share of wins of the row over the column,\nties as half a win (battles)", fontsize=10)


# ------------------------------------------------------------------------------------------------ evaluations
def draw(reports, out):
    """Draw how far to trust a model, a report a line: reliability, and its bias for places, lengths and
    models."""
    size = 20, 4.6 * len(reports)
    figure, axes = pyplot().subplots(len(reports), 4, figsize=size, squeeze=False)
    for line, (name, report) in zip(axes, reports.items()):
        bias = report["bias"]
        draw_reliability(line[0], report["reliability"], name)
        draw_orders(line[1], report["records"])
        draw_verbosity(line[2], bias["verbosity"]["parts"])
        draw_models(line[3], bias["families"])
        for axis in line[:2]:  # on this line a prediction is exact, and the order changes nothing
            middle = np.mean(axis.get_xlim())
            axis.axline((middle, middle), slope=1, color="black", linewidth=0.6)
    return [finish(figure, out)]


def draw_reliability(axis, tables, title):
    """Draw the observed share against the predicted probability, a dot for each bin of predictions. Small
    dots are bins of few battles and say little. Those of the likeliest class have 95 % intervals."""
    labels = dict(zip(("top", "a", "b", "tie"), ("likeliest class", *NAMES)))
    for (name, bins), colour in zip(tables.items(), ("black", *COLOURS)):
        columns = [[part["predicted"], part["observed"], part["n"]] for part in bins]
        x, y, n = np.array(columns).T
        axis.plot(x, y, color=colour, linewidth=1, label=labels[name])
        areas = 5 + 200 * n / n.sum()
        axis.scatter(x, y, s=areas, color=colour, alpha=0.5)
        if name == "top":
            draw_intervals(axis, x, y, n, colour)
    axis.set(title=f"{title}: reliability", xlabel="predicted probability (area of a dot: battles)")
    axis.set_ylabel("observed share")
    axis.legend(fontsize=8)


def draw_intervals(axis, x, shares, n, colour):
    """Draw the 95 % intervals of shares that were each counted over n battles."""
    lows, highs = zip(*map(wilson, shares * n, n))
    axis.vlines(x, lows, highs, color=colour, linewidth=1)


def draw_orders(axis, records):
    """Draw the prediction for each battle in both orders of the answers."""
    fair = [record for record in records if record["fair"]]
    probs = np.array([record["probs"] for record in fair])
    swapped = np.array([record["swapped"] for record in fair])
    back = swapped[:, SWAP]  # of the same answers as probs, though they were shown in the other order
    axis.plot(probs[:, 0], back[:, 0], ".", markersize=3, alpha=0.5)
    flips = (probs.argmax(1) != back.argmax(1)).mean()
    gap = (probs[:, 0] - probs[:, 1]).mean()
    title = f"{flips:.0%} of verdicts flip; mean P(A) - P(B) {gap:+.3f}"
    axis.set(title=title, xlabel="P(A better), A shown first", ylabel="P(A better), A shown second")


def draw_verbosity(axis, parts):
    """Draw how often the longer answer wins, is predicted to win, and how often the verdict is right."""
    lines = (
        ("longer_wins", "longer answer wins", "black", "o-"),
        ("longer_predicted", "longer answer predicted to win", "C0", "o--"),
        ("accuracy", "verdict is right", "C2", "s:"),
    )
    places = np.arange(1, len(parts) + 1)
    n = np.array([part["n"] for part in parts])
    x = places - 0.05  # lines stand side by side, or their intervals would overlap
    for key, label, colour, style in lines:
        shares = np.array([part[key] for part in parts], float)  # None (no battle) becomes NaN
        axis.plot(x, shares, style, color=colour, markersize=4, label=label)
        if key != "longer_predicted":  # a mean of probabilities, no count
            draw_intervals(axis, x, shares, n, colour)
        x = x + 0.05
    axis.set(
        title="bias for length, 95 % intervals",
        ylabel="share of battles",
        ylim=(0, 1),
        xticks=places,
    )
    axis.set_xlabel("fifths of the battles: B longer ... A longer")
    axis.legend(fontsize=8)


def draw_models(axis, rows):
    """Draw how much more often each model is predicted to win than it does, the most frequent models."""
    rows = sorted(rows, key=lambda row: -row["n"])[:MAX_MODELS]
    table = {}
    sizes = {}
    for row in rows:
        table[row["model"]] = row["residual"], row["interval"]
        sizes[row["model"]] = row["n"]
    draw_rows(axis, [table], sizes)
    axis.axvline(0, color="black", linewidth=0.6)  # right of it, a model is overrated
    axis.set_title("bias for models (battles)")
    axis.set_xlabel("predicted less observed share of wins, 95 % intervals")
