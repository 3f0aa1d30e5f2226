"""Pictures of the arena: of any file of battles (draw_battles), of what infer.py eval wrote (draw_arena)."""

import re

import numpy as np

from games.arc.plots import beside, finish, pyplot
from games.arena.files import read_battles
from games.arena.stats import CENTRE, distributions, ratings, texts_of, win_rates

NAMES, COLOURS = ("A", "B", "tie"), ("C0", "C1", "C7")
LIMITS = (512, 1024, 2048, 4096, 8192)  # of tokens, which models read
MOST = 25  # models of a matrix or a bar chart, those with the most battles

tokens_of = lambda text: len(
    re.findall(r"\w+|[^\w\s]", text)
)  # words and signs; real tokens are 1 to 2 of them


def draw_battles(paths, out):
    """Who wins, by model and by what answers look like (OUT), ratings and the win rates of pairs
    (OUT_models), which are printed too."""
    dropped = {}
    drop = lambda reason: dropped.update({reason: dropped.get(reason, 0) + 1})
    battles = [battle for path in paths for battle in read_battles(str(path), "", drop)]
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "none"
    print(f"{len(battles):,} battles; dropped: {reasons}")
    written = [overview(battles, out)]
    parts = ratings(battles)
    if not parts:
        return written
    for part in parts:
        print(f"{'':28}{'battles':>8}{'Davidson':>24}{'Bradley-Terry':>24}   95 % intervals")
        for row in part["models"]:
            cells = (f"{row[name][0]:.0f} [{row[name][1]:.0f}, {row[name][2]:.0f}]" for name in RATINGS)
            print(f"{row['model']:28}{row['n']:8,}" + "".join(f"{cell:>24}" for cell in cells))
    return [*written, leaderboard(battles, parts, beside(out, "models"))]


RATINGS = ("davidson", "bradley_terry")


def overview(battles, out):
    plt = pyplot()
    figure, axes = plt.subplots(3, 3, figsize=(15, 12))
    truth = distributions([battle["target"] for battle in battles])  # (N, 3)
    prompts, a, b = (list(texts) for texts in zip(*map(texts_of, battles)))

    counts = truth.sum(0)
    shares, n = counts / counts.sum(), len(battles)
    error = 1.96 * np.sqrt(shares * (1 - shares) / n)
    axes[0, 0].bar(NAMES, shares, yerr=error, color=COLOURS)
    axes[0, 0].set(title=f"winner, {n:,} battles", ylabel="share")
    for i, count in enumerate(counts):
        axes[0, 0].text(i, 0.01, f"{count:,.0f}", ha="center", color="white")

    models = [name for battle in battles for name in battle["models"] or ()]
    wins = [float(row[side]) for battle, row in zip(battles, truth) if battle["models"] for side in (0, 1)]
    used, index = np.unique(models, return_inverse=True) if models else ([], [])
    fought, won = np.bincount(index, minlength=len(used)), np.bincount(index, wins, len(used))
    order = np.argsort(-fought, kind="stable")[:MOST][::-1]
    names = [used[i] for i in order]
    axes[0, 1].barh(names, fought[order], color="C7", label="battles")
    axes[0, 1].barh(names, won[order], color="C0", label="won")
    axes[0, 1].set(title=f"models used ({len(used)})")
    axes[0, 1].legend(fontsize=8)
    rate = won[order] / np.maximum(fought[order], 1)
    axes[0, 2].barh(names, rate, xerr=1.96 * np.sqrt(rate * (1 - rate) / np.maximum(fought[order], 1)))
    axes[0, 2].set(title="share of battles won, ties not counted as wins", xlim=(0, 1))
    for axis in axes[0, 1:]:
        axis.tick_params(axis="y", labelsize=7)

    decided = np.flatnonzero(truth[:, :2].max(1) > 0.5)
    first = truth[decided, 0] > 0.5
    measures = {
        "characters": len,
        "punctuation marks": lambda text: len(re.findall(r"[.?!,:;]", text)),
        "line ends": lambda text: text.count("\n"),
    }
    gaps = {}
    for axis, (name, measure) in zip(axes[1], measures.items()):
        sizes = np.array([[measure(a[i]), measure(b[i])] for i in decided]).reshape(-1, 2)
        gap = gaps[name] = np.where(first, sizes[:, 0] - sizes[:, 1], sizes[:, 1] - sizes[:, 0])
        low, high = np.percentile(gap, (1, 99)) if len(gap) else (0, 1)
        axis.hist(np.clip(gap, low, high), 60, color="C7")
        axis.axvline(0, color="black", linewidth=0.8)
        if len(gap):
            axis.axvline(np.median(gap), color="C0", label=f"median {np.median(gap):+.0f}")
            axis.axvline(np.mean(gap), color="C3", linestyle="--", label=f"mean {np.mean(gap):+.1f}")
            axis.legend(fontsize=8)
        axis.set(title=f"{name}: winner minus loser (1 to 99 %)", ylabel="battles")

    lengths = np.array([len(prompts[i]) for i in decided])
    axes[2, 0].plot(lengths + 1, gaps["characters"], ".", markersize=2, alpha=0.4)
    axes[2, 0].axhline(0, color="black", linewidth=0.8)
    axes[2, 0].set(
        title="characters, winner minus loser, by prompt", xlabel="prompt, characters", xscale="log"
    )
    if len(decided):
        most = np.percentile(np.abs(gaps["characters"]), 99) + 1
        axes[2, 0].set_ylim(-most, most)

    difference = np.log1p([len(text) for text in a]) - np.log1p([len(text) for text in b])
    tenths = np.array_split(np.argsort(difference, kind="stable"), 10)
    tenths = [part for part in tenths if len(part)]
    bottom = np.zeros(len(tenths))
    for name, colour, k in zip(NAMES, COLOURS, (0, 1, 2)):
        part = np.array([truth[rows, k].mean() for rows in tenths])
        axes[2, 1].bar(range(1, len(tenths) + 1), part, bottom=bottom, color=colour, label=name, width=0.9)
        bottom += part
    axes[2, 1].set(title="winner by tenths of how much longer A is", xlabel="B much longer ... A much longer")
    axes[2, 1].legend(fontsize=8, loc="lower right")

    sizes = np.array([tokens_of(p) + tokens_of(x) + tokens_of(y) for p, x, y in zip(prompts, a, b)])
    axes[2, 2].hist(np.log10(np.maximum(sizes, 1)), 60, color="C7")
    ticks = [t for t in (10, 100, 1000, 10_000, 100_000) if t <= sizes.max() * 10]
    axes[2, 2].set_xticks(np.log10(ticks), [f"{t:,}" for t in ticks])
    for limit in [limit for limit in LIMITS if limit < 2 * sizes.max()]:
        over = (sizes > limit).mean()
        axes[2, 2].axvline(np.log10(limit), color="C3", linewidth=0.8)
        axes[2, 2].text(
            np.log10(limit),
            axes[2, 2].get_ylim()[1] * (0.98 - 0.14 * LIMITS.index(limit)),
            f" {limit:,}: {over:.1%} longer",
            fontsize=7,
            va="top",
        )
    axes[2, 2].set(title="words and signs of a battle, prompt and both answers")
    return finish(figure, out)


def leaderboard(battles, parts, out):
    """Ratings with intervals, a panel for each group of models that battles connect, and the win rates."""
    plt = pyplot()
    names, rate, n = win_rates(battles)
    sizes = [len(part["models"]) for part in parts]
    figure = plt.figure(figsize=(15, max(5, 0.3 * max(len(names), sum(sizes)) + 2)))
    grid = figure.add_gridspec(len(parts), 2, height_ratios=[size + 1.5 for size in sizes])
    for place, part in enumerate(parts):
        axis = figure.add_subplot(grid[place, 0])
        for shift, key in ((0.12, "davidson"), (-0.12, "bradley_terry")):
            for y, row in enumerate(reversed(part["models"])):
                value, low, high = row[key]
                colour = "C0" if key == "davidson" else "C7"
                axis.plot([low, high], [y + shift] * 2, color=colour)
                axis.plot(value, y + shift, "o", color=colour, markersize=4, label=key if not y else None)
        rows = [f"{row['model'][:34]} ({row['n']:,})" for row in reversed(part["models"])]
        axis.set_yticks(range(len(rows)), rows, fontsize=7)
        axis.axvline(CENTRE, color="black", linewidth=0.6)
        axis.set_title("ratings, 95 % intervals" + (f", group {place + 1}" if len(parts) > 1 else ""))
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    most = np.argsort(-n.sum(1), kind="stable")[:MOST]
    order = {row["model"]: i for i, row in enumerate(row for part in parts for row in part["models"])}
    most = sorted(most, key=lambda i: order[names[i]])
    axis = figure.add_subplot(grid[:, 1])
    table = rate[np.ix_(most, most)]
    axis.imshow(table, cmap="RdYlGn", vmin=0, vmax=1)
    for i, j in np.argwhere(~np.isnan(table)):
        axis.text(j, i, f"{table[i, j]:.2f}\n{n[most[i], most[j]]:.0f}", ha="center", va="center", fontsize=6)
    shown = [names[i][:24] for i in most]
    axis.set_xticks(range(len(most)), shown, rotation=60, ha="right", fontsize=7)
    axis.set_yticks(range(len(most)), shown, fontsize=7)
    axis.set_title("how often the model of the row beats that of the column, ties half; battles")
    return finish(figure, out)


# ------------------------------------------------------------------------------------------------ predictions
def draw_arena(reports, out):
    """What a model says: confusion, reliability, the two orders, the lengths, the models; a report a line of
    pictures."""
    plt = pyplot()
    figure, axes = plt.subplots(len(reports), 5, figsize=(22, 4.4 * len(reports)), squeeze=False)
    for row, (name, report) in zip(axes, reports.items()):
        records = [record for record in report["records"] if record["fair"]]
        probs = np.array([record["probs"] for record in records])
        back = np.array([record["swapped"] for record in records])[:, [1, 0, 2]]
        truth, mean = np.array([record["target"] for record in records]).argmax(1), (probs + back) / 2
        confusion(row[0], truth, mean.argmax(1))
        row[0].set_ylabel(f"{name}\n" + row[0].get_ylabel())
        reliability(row[1], report["reliability"])
        position(row[2], probs, back)
        verbosity(row[3], report["bias"]["verbosity"]["parts"])
        models(row[4], report["bias"]["families"])
    return [finish(figure, out)]


def confusion(axis, truth, said):
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (truth, said), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(3, 3):
        colour = "white" if shares[i, j] > 0.6 else "black"
        axis.text(j, i, f"{counts[i, j]:,}\n{shares[i, j]:.0%}", ha="center", va="center", color=colour)
    axis.set_xticks(range(3), NAMES)
    axis.set_yticks(range(3), NAMES)
    axis.set(title="confusion, both orders", xlabel="said", ylabel="label")


def reliability(axis, tables):
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.6)
    for (name, bins), colour in zip(tables.items(), ("black", *COLOURS)):
        x, y, n = (np.array([part[key] for part in bins]) for key in ("predicted", "observed", "n"))
        axis.plot(x, y, "o-", color=colour, markersize=3, label="the likeliest" if name == "top" else name)
        axis.scatter(x, y, s=200 * n / n.sum(), color=colour, alpha=0.2)
    axis.set(title="reliability", xlabel="said", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
    axis.legend(fontsize=7)


def position(axis, probs, back):
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.6)
    axis.plot(probs[:, 0], back[:, 0], ".", markersize=2, alpha=0.5)
    flips = (probs.argmax(1) != back.argmax(1)).mean()
    gap = (probs[:, 0] - probs[:, 1]).mean()
    axis.set(
        title=f"{flips:.0%} of verdicts flip, gap A - B {gap:+.3f}",
        xlabel="P(A better) as it stands",
        ylabel="P(A better) when A stands second",
        xlim=(0, 1),
        ylim=(0, 1),
    )


def verbosity(axis, parts):
    x = range(1, len(parts) + 1)
    lines = ("longer_wins", "longer wins, label", "ko-"), ("longer_predicted", "said", "o--")
    for key, label, style in (*lines, ("accuracy", "accuracy", "s:")):
        axis.plot(
            x,
            [np.nan if part[key] is None else part[key] for part in parts],
            style,
            markersize=4,
            label=label,
        )
    axis.set(title="by how much longer A is", xlabel="B longer ... A longer (fifths)", ylim=(0, 1))
    axis.legend(fontsize=7)


def models(axis, rows):
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.6)
    for row in rows:
        low, high = row["interval"] or (row["residual"],) * 2
        axis.plot(
            [row["observed"]] * 2, [row["observed"] + low, row["observed"] + high], color="C7", linewidth=1
        )
        axis.plot(row["observed"], row["predicted"], "o", color="C0", markersize=4)
        axis.annotate(row["model"][:20], (row["observed"], row["predicted"]), fontsize=6)
    most = max([0.5, *(max(row["observed"], row["predicted"]) for row in rows)]) + 0.1
    axis.set(title="share of wins by model", xlabel="label", ylabel="said", xlim=(0, most), ylim=(0, most))
