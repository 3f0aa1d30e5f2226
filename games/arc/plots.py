"""Pictures of ARC: `draw` takes what infer.py eval wrote; plots.py is the command."""

from games.arc.files import best_answer, tests_of
from games.stats import wilson
from pictures import finish, further_file, pyplot

# the colours of the ARC site
COLOURS = "#000000 #0074d9 #ff4136 #2ecc40 #ffdc00 #aaaaaa #f012be #ff851b #7fdbff #870c25".split()
MAX_TASKS = 10  # tasks of an evaluation that are drawn


def draw(reports, out):
    """Draw evaluations {name: report} to the picture `out`, a Path: their curves, and for a single one its
    tasks in a second picture. Returns the Paths written."""
    written = [draw_curve(reports, out)]
    if len(reports) == 1:
        (report,) = reports.values()
        written.append(draw_tasks(report["records"], further_file(out, "tasks")))
    return written


def draw_curve(reports, out):
    """Draw the scaling curves of evaluations, and the lengths of replies and of grids of the last one."""
    figure, (curve, lengths) = pyplot().subplots(1, 2, figsize=(11, 4))
    sizes = set()
    for i, (name, report) in enumerate(reports.items()):
        n = report.get("n", len(report["records"]))  # tasks with a known output
        shares = list(report["curve"].values())
        x = [int(size) for size in report["curve"]]
        sizes |= set(x)
        x = [size * 1.02**i for size in x]  # beside each other, or intervals would overlap
        ends = [wilson(share * n, n) for share in shares]
        curve.plot(x, shares, "o-", markersize=4, color=f"C{i}", label=f"{name} ({n} tasks)")
        curve.vlines(x, *zip(*ends), color=f"C{i}", linewidth=1, alpha=0.6)
    curve.set(xscale="log", xlabel="replies a task", ylim=(0, None))
    curve.set_ylabel("share of tasks solved, 95 % intervals")
    curve.set_xticks(sorted(sizes), sorted(sizes))
    curve.minorticks_off()  # they would be powers of ten between the sizes
    programs = []
    grids = []
    last = name
    for record in reports[last]["records"]:
        programs += [reply["tokens"] for reply in record["replies"]]
        outputs = [pair["output"] for pair in record["test"] if "output" in pair]
        grids += [len(grid) * (len(grid[0]) + 1) for grid in outputs]  # a row end costs as much as a cell
    longest = max(programs + grids)
    bins = [longest * i / 40 for i in range(41)]
    for name, values in (("replies", programs), ("true answers as grids", grids)):
        lengths.hist(values, bins, weights=[1 / len(values)] * len(values), alpha=0.6, label=name)
    lengths.set(xlabel="tokens (of grids: cells and row ends)", ylabel="share of replies, of answers")
    lengths.set_title(f"lengths in {last}", fontsize=10)
    for axis in (curve, lengths):
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return finish(figure, out)


def draw_tasks(records, out):
    """Draw the first tasks of an evaluation, one a line: its pairs, its test, the voted answer."""
    plt = pyplot()
    colours = plt.matplotlib.colors.ListedColormap(COLOURS)
    lines = [(record["id"], cells_of(record)) for record in records[:MAX_TASKS]]
    columns = max(len(cells) for _, cells in lines)
    size = 1.4 * columns, 1.9 * len(lines)
    figure, axes = plt.subplots(len(lines), columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (name, cells) in zip(axes, lines):
        for axis, (title, grid) in zip(row, cells):
            shape = f"\n{len(grid)}x{len(grid[0])}" if grid else ""
            first = f"task {name}\n" if axis is row[0] else ""
            axis.set_title(first + title + shape, fontsize=8)
            if grid:
                axis.pcolormesh(grid, cmap=colours, vmin=0, vmax=9, edgecolors="#555555", linewidth=0.3)
                axis.set_aspect("equal")
                axis.invert_yaxis()
    return finish(figure, out, 100)


def cells_of(record):
    """[(title, grid or None)] of a task: its pairs, then for each test input, truth and answer."""
    cells = [(side, pair[side]) for pair in record["train"] for side in ("input", "output")]
    for test in tests_of(record):
        pair = record["test"][test]
        best = best_answer(record, test)
        truth = pair.get("output")
        if not best:
            verdict = "no answer"
        elif truth is None:
            verdict = "answer"
        else:
            verdict = "answer, right" if best == truth else "answer, wrong"
        cells += [("test", pair["input"]), ("truth", truth), (verdict, best)]
    return cells
