"""Pictures of ARC: `draw` takes what infer.py eval wrote; plots.py is the command."""

from games.arc.files import best_answer, tests_of
from pictures import beside, finish, pyplot

# the colours of the ARC site
COLOURS = "#000000 #0074d9 #ff4136 #2ecc40 #ffdc00 #aaaaaa #f012be #ff851b #7fdbff #870c25".split()


def draw(reports, out):
    """Draw evaluations {name: report} to the picture `out`, a Path: their curves, and, of one alone, beside
    it the tasks. Returns the Paths written."""
    written = [draw_curve(reports, out)]
    if len(reports) == 1:
        (report,) = reports.values()
        written.append(draw_tasks(report["records"], beside(out, "tasks")))
    return written


def draw_curve(reports, out):
    """Draw the scaling curves of evaluations, and the lengths of programs and of grids of the last."""
    figure, (curve, lengths) = pyplot().subplots(1, 2, figsize=(10, 3.6))
    sizes = set()
    for name, report in reports.items():
        x = list(map(int, report["curve"]))
        curve.plot(x, list(report["curve"].values()), "o-", label=name)
        sizes |= set(x)
    curve.set(xscale="log", xlabel="replies a task", ylabel="share of tasks solved", ylim=(0, None))
    curve.set_xticks(sorted(sizes), sorted(sizes))
    programs, grids = [], []
    for record in report["records"]:
        programs += [reply["tokens"] for reply in record["replies"]]
        outputs = [pair["output"] for pair in record["test"] if "output" in pair]
        grids += [len(grid) * (len(grid[0]) + 1) for grid in outputs]
    bins = [max(programs + grids) * i / 40 for i in range(41)]
    for name, values in (("replies, tokens", programs), ("answers as grids, cells and row ends", grids)):
        lengths.hist(values, bins, weights=[1 / len(values)] * len(values), alpha=0.6, label=name)
    lengths.set(xlabel="length", ylabel="share")
    for axis in (curve, lengths):
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return finish(figure, out)


def draw_tasks(records, out, shown=10):
    """Draw the first tasks of an evaluation, one a line: its pairs, its test, the voted answer."""
    plt = pyplot()
    colours = plt.matplotlib.colors.ListedColormap(COLOURS)
    lines = [(record["id"], cells_of(record)) for record in records[:shown]]
    columns = max(len(cells) for _, cells in lines)
    figure, axes = plt.subplots(len(lines), columns, figsize=(1.4 * columns, 1.6 * len(lines)), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (name, cells) in zip(axes, lines):
        for axis, (title, grid) in zip(row, cells):
            shape = f" {len(grid)}x{len(grid[0])}" if grid else ""
            axis.set_title((f"{name}\n" if axis is row[0] else "") + title + shape, fontsize=8)
            if grid:
                axis.pcolormesh(grid, cmap=colours, vmin=0, vmax=9, edgecolors="#555555", linewidth=0.3)
                axis.set_aspect("equal")
                axis.invert_yaxis()
    return finish(figure, out, 100)


def cells_of(record):
    """[(title, grid or None)] of a task: its pairs, then of each test the input, the truth and the answer."""
    cells = [(side, pair[side]) for pair in record["train"] for side in ("input", "output")]
    for test in tests_of(record):
        pair = record["test"][test]
        best = best_answer(record, test)
        right = best == pair.get("output")
        verdict = "no answer" if not best else "answer, right" if right else "answer"
        cells += [("test", pair["input"]), ("true", pair.get("output")), (verdict, best)]
    return cells
