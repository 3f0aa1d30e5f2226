"""Pictures: python plots.py RUN [RUN ...] [--out FILE.png], or of ARC: python plots.py EVAL.json

Of runs one panel each for loss, learning rate, gradient norm, throughput, what else the loss reports (reward,
kl, accuracy ...) and every metric that was evaluated during training, a line a run. Of what infer.py eval
wrote for ARC: how much is solved with more replies, how long programs are beside grids, and in FILE_tasks.png
the first tasks with true and voted answers. Needs matplotlib: pip install matplotlib."""

import argparse
import json
import sys
from pathlib import Path

from games.arc_files import attempts
from games.arc_grids import vote

WINDOW = 0.05  # share of a run's steps over which its noisy lines are averaged
UNDRAWN = {"step", "tokens", "learned", "dropped", "skipped"}  # of what a step reports
PANELS = {"loss": "loss", "lr": "learning rate", "grad": "gradient norm", "tok/s": "tokens per second"}


def read_run(folder):
    """(steps, evaluations) of a run's metrics.jsonl: lists of dicts."""
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{folder}: no metrics.jsonl, so this is not a run")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from error
    steps, evaluations = [row for row in rows if "loss" in row], [row for row in rows if "eval" in row]
    for name in ("before", "eval"):  # those at the ends of training
        if (path.parent / f"{name}.json").exists():
            metrics = json.loads((path.parent / f"{name}.json").read_text(encoding="utf-8"))["metrics"]
            step = 0 if name == "before" else steps[-1]["step"] if steps else 0
            evaluations.append({"step": step, "eval": metrics})
    return steps, sorted(evaluations, key=lambda row: row["step"])


def smooth(values, window):
    """The mean of each value and up to window - 1 before it."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [(sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window) for i in range(len(values))]


def pyplot():
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw(folders, out):
    """Draw runs to a PNG file."""
    plt = pyplot()
    runs = {Path(folder).resolve().name: read_run(folder) for folder in folders}
    reported, metrics = dict(PANELS), {}
    for steps, evaluations in runs.values():
        reported |= {name: name for row in steps[:1] for name in row if name not in UNDRAWN | PANELS.keys()}
        metrics |= {name: name for row in evaluations for name, v in row["eval"].items() if v is not None}
    names = [*reported, *(name for name in metrics if name not in reported)]
    last = max([row["step"] for steps, _ in runs.values() for row in steps], default=1)
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 3 * lines), squeeze=False)
    for name, axis in zip(names, axes.flat):
        axis.set_title(reported.get(name, name), fontsize=10)
        for number, (run, (steps, evaluations)) in enumerate(runs.items()):
            colour = f"C{number % 10}"
            if name in reported:
                found = [row for row in steps if row.get(name) is not None]
                x, y = [row["step"] for row in found], [row[name] for row in found]
                window = 1 if name == "lr" else max(1, round(WINDOW * len(y)))
                axis.plot(x, y, color=colour, alpha=0.25, linewidth=0.6)
                axis.plot(x, smooth(y, window), color=colour, label=run)
            else:
                found = [row for row in evaluations if row["eval"].get(name) is not None]
                x, y = [row["step"] for row in found], [row["eval"][name] for row in found]
                axis.plot(x, y, "o-", color=colour, markersize=3, label=run)
        if name == "grad":
            axis.set_yscale("log")
        axis.set_xlim(-0.03 * last, 1.03 * last)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=8)
    figure.supxlabel("step", fontsize=10)
    figure.tight_layout()
    figure.savefig(out, dpi=120)
    plt.close(figure)


# ------------------------------------------------------------------------------------------------ ARC
COLOURS = (
    "#000000 #0074d9 #ff4136 #2ecc40 #ffdc00 #aaaaaa #f012be #ff851b #7fdbff #870c25".split()
)  # its site's


def draw_curve(report, out):
    """Draw the scaling curve of an evaluation on ARC, and the lengths of programs and of grids."""
    plt = pyplot()
    figure, (curve, lengths) = plt.subplots(1, 2, figsize=(10, 3.6))
    x, y = list(map(int, report["curve"])), list(report["curve"].values())
    curve.plot(x, y, "o-")
    curve.set(
        xscale="log",
        xlabel="replies a task",
        ylabel="share of tasks solved",
        ylim=(0, max(1.05 * max(y), 0.05)),
    )
    curve.set_xticks(x, x)
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
    figure.tight_layout()
    figure.savefig(out, dpi=120)
    plt.close(figure)


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
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    plt.close(figure)


def main(argv=None):
    """Exit codes: 0 done, 1 failed, 2 wrong call."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or one evaluation of ARC")
    parser.add_argument("--out", default="", help="file to write [runs.png, or EVAL.png]")
    cfg = parser.parse_args(argv)
    first, written = Path(cfg.runs[0]), [cfg.out or "runs.png"]
    try:
        if first.is_file():
            report = json.loads(first.read_text(encoding="utf-8"))
            if len(cfg.runs) > 1 or "curve" not in report or not report.get("records"):
                raise ValueError(f"{first}: not a run, nor one evaluation of ARC that holds its records")
            out = Path(cfg.out or first.with_suffix(".png"))
            written = [out, out.with_name(f"{out.stem}_tasks.png")]
            draw_curve(report, written[0])
            draw_tasks(report["records"], written[1])
        else:
            draw(cfg.runs, *written)
    except (ImportError, OSError, ValueError) as error:
        print(f"plots.py: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
