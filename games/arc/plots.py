"""Pictures of what infer.py eval wrote, game by game; plots.py is the command.

Each drawer takes the reports of a call and the name of the picture, a Path, and gives the Paths that it
wrote. A report of several is called by its file. The arena's pictures are in games/arena/plots.py."""

import numpy as np

from games.arc.files import attempts
from games.arc.grids import vote


def pyplot():
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def beside(out, name):
    """The Path of a further picture."""
    return out.with_name(f"{out.stem}_{name}.png")


def finish(figure, out, dpi=120):
    """Write a figure, and forget it."""
    figure.tight_layout()
    figure.savefig(out, dpi=dpi)
    pyplot().close(figure)
    return out


# ------------------------------------------------------------------------------------------------ ARC
COLOURS = (
    "#000000 #0074d9 #ff4136 #2ecc40 #ffdc00 #aaaaaa #f012be #ff851b #7fdbff #870c25".split()
)  # its site's


def draw_curve(reports, out):
    """Draw the scaling curves of evaluations on ARC, and the lengths of programs and of grids of the last."""
    plt = pyplot()
    figure, (curve, lengths) = plt.subplots(1, 2, figsize=(10, 3.6))
    most, sizes = 0.05, set()
    for name, report in reports.items():
        x, y = list(map(int, report["curve"])), list(report["curve"].values())
        curve.plot(x, y, "o-", label=name)
        most, sizes = max(most, 1.05 * max(y)), sizes | set(x)
    curve.set(xscale="log", xlabel="replies a task", ylabel="share of tasks solved", ylim=(0, most))
    curve.set_xticks(sorted(sizes), sorted(sizes))
    curve.legend(fontsize=8)
    programs = [reply["tokens"] for record in report["records"] for reply in record["replies"]]
    grids = [
        len(pair["output"]) * (len(pair["output"][0]) + 1)
        for record in report["records"]
        for pair in record["test"]
        if "output" in pair
    ]
    sizes = {"replies, tokens": programs, "answers as grids, cells and row ends": grids}
    bins = [max(programs + grids) * i / 40 for i in range(41)]
    for name, values in sizes.items():
        lengths.hist(values, bins, weights=[1 / len(values)] * len(values), alpha=0.6, label=name)
    lengths.set(xlabel="length", ylabel="share")
    lengths.legend(fontsize=8)
    for axis in (curve, lengths):
        axis.grid(alpha=0.3)
    return finish(figure, out)


def draw_tasks(records, out, shown=10):
    """Draw the first tasks of an evaluation on ARC, one a line: its pairs, its test, the voted answer."""
    plt = pyplot()
    colours, lines = plt.matplotlib.colors.ListedColormap(COLOURS), []
    for record in records[:shown]:
        cells = [(side, pair[side]) for pair in record["train"] for side in ("input", "output")]
        for test, pair in enumerate(record["test"]):
            best = (vote([grid for grid, _ in attempts(record, test)], 1) or [None])[0]
            verdict = (
                "no answer" if not best else "answer" + (", right" if best == pair.get("output") else "")
            )
            cells += [("test", pair["input"]), ("true", pair.get("output")), (verdict, best)]
        lines.append((record["id"], cells))
    columns = max(len(cells) for _, cells in lines)
    figure, axes = plt.subplots(len(lines), columns, figsize=(1.4 * columns, 1.6 * len(lines)), squeeze=False)
    for row, (name, cells) in zip(axes, lines):
        for axis in row:
            axis.set_axis_off()
        for axis, (title, grid) in zip(row, cells):
            shape = f" {len(grid)}x{len(grid[0])}" if grid else ""
            axis.set_title((f"{name}\n" if axis is row[0] else "") + title + shape, fontsize=8)
            if grid:
                axis.pcolormesh(grid, cmap=colours, vmin=0, vmax=9, edgecolors="#555555", linewidth=0.3)
                axis.set_aspect("equal")
                axis.invert_yaxis()
    return finish(figure, out, 100)


def draw_arc(reports, out):
    """Draw evaluations on ARC: their curves, and the tasks of one that is alone."""
    written = [draw_curve(reports, out)]
    for report in reports.values() if len(reports) == 1 else ():
        written.append(draw_tasks(report["records"], beside(out, "tasks")))
    return written


# ------------------------------------------------------------------------------------------------ Eedi
def draw_eedi(reports, out):
    """How many labels questions have and how often each label comes; how similar right labels and the hardest
    wrong ones are to their queries, before and after where two reports are given; MAP@25 by subject."""
    plt, last = pyplot(), [*reports.values()][-1]["records"]
    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    questions, labels = {}, {}
    for record in last:
        questions.setdefault(record["text"] or record["query"], set()).add(record["id"])
        labels[record["label"]] = labels.get(record["label"], 0) + 1
    each = [len(found) for found in questions.values()]
    axes[0, 0].bar(range(1, max(each) + 1), np.bincount(each)[1:])
    axes[0, 0].set(xlabel="labelled wrong answers", ylabel="questions", xticks=range(1, max(each) + 1))
    often = sorted(labels.values(), reverse=True)
    axes[0, 1].bar(range(1, len(often) + 1), often, width=1.0)
    axes[0, 1].set(xlabel=f"labels, the most frequent first ({len(often)})", ylabel="wrong answers")
    bins = np.linspace(-1, 1, 81)
    for number, (name, report) in enumerate(reports.items()):
        for kind, style in (("similarity", "-"), ("hardest", ":")):
            values = [record[kind] for record in report["records"]]
            what = "right label" if kind == "similarity" else "hardest wrong one"
            axes[1, 0].hist(
                values, bins, histtype="step", linestyle=style, color=f"C{number}", label=f"{name}, {what}"
            )
    axes[1, 0].set(xlabel="similarity to the query", ylabel="queries")
    axes[1, 0].legend(fontsize=7, loc="upper left")
    subjects = sorted({record["subject"] for record in last})
    means = {}
    for name, report in reports.items():
        for record in report["records"]:
            score = 1 / record["rank"] if record["rank"] <= 25 else 0.0
            means.setdefault((record["subject"], name), []).append(score)
    final = [*reports][-1]
    subjects.sort(key=lambda subject: np.mean(means[subject, final]))
    shown = subjects[:20] + subjects[max(20, len(subjects) - 15) :]  # the worst, and the best
    for number, name in enumerate(reports):
        values = [np.mean(means.get((subject, name), [0.0])) for subject in shown]
        axes[1, 1].plot(values, range(len(shown)), "o", color=f"C{number}", markersize=4, label=name)
    counts = [len(means[subject, final]) for subject in shown]
    names = [f"{subject[:38]} ({n})" for subject, n in zip(shown, counts)]
    axes[1, 1].set_yticks(range(len(shown)), names, fontsize=6)
    axes[1, 1].set(xlabel="MAP@25 by subject (number of queries)", xlim=(-0.02, 1.02))
    axes[1, 1].legend(fontsize=7)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return [finish(figure, out)]
