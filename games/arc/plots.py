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
    written = [draw_curves(reports, out)]
    if len(reports) == 1:
        (report,) = reports.values()
        written.append(draw_tasks(report["records"], further_file(out, "tasks")))
    return written


def draw_curves(reports, out):
    """Draw the scaling curves of evaluations."""
    figure, axis = pyplot().subplots(figsize=(7, 4))
    sizes = set()
    for i, (name, report) in enumerate(reports.items()):
        sizes.update(map(int, report["curve"]))
        draw_curve(axis, name, report, f"C{i}", 1.02**i)
    sizes = sorted(sizes)
    axis.set(xscale="log", xlabel="programs a task", ylim=(0, None))
    axis.set_ylabel("share of tasks solved, 95 % intervals")
    axis.set_xticks(sizes, sizes)
    axis.minorticks_off()  # they would be powers of ten between the sizes
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return finish(figure, out)


def draw_curve(axis, name, report, colour, shift):
    """Draw the share of tasks solved with each number of replies. shift: a factor of x that sets curves side
    by side, or their intervals would overlap."""
    n = report.get("n", len(report["records"]))  # tasks with a known output
    x = [int(size) * shift for size in report["curve"]]
    shares = [*report["curve"].values()]
    lows, highs = zip(*[wilson(share * n, n) for share in shares])
    axis.plot(x, shares, "o-", markersize=4, color=colour, label=f"{name} ({n} tasks)")
    axis.vlines(x, lows, highs, color=colour, linewidth=1, alpha=0.6)


def draw_tasks(records, out):
    """Draw the first tasks of an evaluation, one a line: its pairs, its test, the voted answer."""
    plt = pyplot()
    colours = plt.matplotlib.colors.ListedColormap(COLOURS)
    records = records[:MAX_TASKS]
    lines = [*map(cells_of, records)]
    columns = max(map(len, lines))
    size = 1.4 * columns, 1.9 * len(lines)
    figure, axes = plt.subplots(len(lines), columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()

    # A cell without a grid (an unknown truth, no answer) keeps its title.
    for record, cells, line in zip(records, lines, axes):
        for axis, (title, grid) in zip(line, cells):
            if axis is line[0]:
                title = f"task {record['id']}\n{title}"
            if grid:
                title += f"\n{len(grid)}x{len(grid[0])}"
                axis.pcolormesh(grid, cmap=colours, vmin=0, vmax=9, edgecolors="#555555", linewidth=0.3)
                axis.set_aspect("equal")
                axis.invert_yaxis()  # row 0 on top
            axis.set_title(title, fontsize=8, y=1)  # without y matplotlib measures each axis to find it
    return finish(figure, out, 100)


def cells_of(record):
    """[(title, grid or None)] of a task: its pairs, then for each test input, truth and answer."""
    cells = []
    for pair in record["train"]:
        cells += [("input", pair["input"]), ("output", pair["output"])]
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
