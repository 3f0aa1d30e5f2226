"""Pictures: python plots.py RUN [RUN ...] [--out FILE.png], or of games: python plots.py EVAL.json

Runs: a panel each for loss, learning rate, gradient norm, throughput, what else the loss reports (reward, kl,
accuracy ...) and every metric that was evaluated during training, a line a run. What infer.py eval wrote:
the pictures of its game (games/*/plots.py). Files of battles (battles.csv): who wins and why. Recorded games
of 20 Questions (games.jsonl): how the belief moved. Needs matplotlib: pip install matplotlib."""

import argparse
import math
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from files import optional_json, read_json
from games import GAMES, task_class
from games.rows import read_rows
from pictures import finish, pyplot
from terminal import check_choice, exit_code

SMOOTHING = 0.05  # share of a run's steps over which its noisy lines are averaged
UNDRAWN = {"step", "tokens", "learned", "dropped", "skipped"}  # what a step reports and no panel shows
PANELS = {"loss": "loss", "lr": "learning rate", "grad": "gradient norm", "tok/s": "tokens per second"}


# ------------------------------------------------------------------------------------------------ runs
def read_run(folder):
    """(steps, evaluations) of a run's metrics.jsonl: lists of dicts of a step and what was measured then."""
    rows = [row for _, row in read_rows(Path(folder, "metrics.jsonl"))]
    steps = [row for row in rows if "loss" in row]
    evaluations = [{"step": row["step"], **row["eval"]} for row in rows if "eval" in row]
    last = steps[-1]["step"] if steps else 0
    for name, step in (("before", 0), ("eval", last)):  # those at the ends of training
        report = optional_json(Path(folder, f"{name}.json"))
        if report:
            evaluations.append({"step": step, **report["metrics"]})
    return steps, sorted(evaluations, key=lambda row: row["step"])


def smooth(values, window):
    """The mean of each value and up to window - 1 before it."""
    sums = [0.0, *accumulate(values)]
    return [(sums[i] - sums[max(0, i - window)]) / min(i, window) for i in range(1, len(sums))]


def choose_panels(runs, only):
    """(names that steps report, names of the panels to draw): all, or those of `only`."""
    reported, measured = dict(PANELS), {}
    for steps, evaluations in runs:
        for row in steps[:1]:
            reported |= {name: name for name in row if name not in UNDRAWN | PANELS.keys()}
        for row in evaluations:
            measured |= {name: name for name in row if row[name] is not None}
    names = [name for name in reported | measured if name != "step"]
    for name in only:
        check_choice("only", name, names)
    return reported, only or names


def draw_line(axis, rows, name, noisy, **style):
    """Draw what rows hold under a name over the steps: dots, or where it is noisy a line and its mean."""
    rows = [row for row in rows if row.get(name) is not None]
    x = [row["step"] for row in rows]
    y = [row[name] for row in rows]
    if noisy:
        window = 1 if name == "lr" else max(1, round(SMOOTHING * len(y)))
        axis.plot(x, y, alpha=0.25, linewidth=0.6, color=style["color"])
        axis.plot(x, smooth(y, window), **style)
    else:
        axis.plot(x, y, "o-", markersize=3, **style)


def draw(folders, out, only=()):
    """Draw runs to a PNG file: all that they report, or only panels of these names."""
    runs = {Path(folder).resolve().name: read_run(folder) for folder in folders}
    reported, names = choose_panels(runs.values(), only)
    columns = min(4, len(names))
    lines = math.ceil(len(names) / columns)
    size = 4.2 * columns, 3 * lines
    figure, axes = pyplot().subplots(lines, columns, figsize=size, sharex=True, squeeze=False)
    for name, axis in zip(names, axes.flat):
        axis.set_title(reported.get(name, name), fontsize=10)
        for number, (run, (steps, evaluations)) in enumerate(runs.items()):
            noisy = name in reported
            rows = steps if noisy else evaluations
            draw_line(axis, rows, name, noisy, color=f"C{number % 10}", label=run)
        if name == "grad":
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8, labelbottom=True)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=8)
    figure.supxlabel("step", fontsize=10)
    return [finish(figure, out)]


# ------------------------------------------------------------------------------------------------ games
def plots_of(task):
    """The module that draws a game."""
    name = task_class(task).__module__.rpartition(".")[0] + ".plots"
    if find_spec(name) is None:
        raise ValueError(f"--task {task}: its evaluations have no pictures")
    return import_module(name)


def draw_rows(paths, out):
    """Draw recorded games of 20 Questions, or battles."""
    if paths[0].suffix == ".jsonl":
        rows = [row for _, row in read_rows(paths[0])]
        if rows and all(isinstance(row.get("rounds"), list) and "keyword" in row for row in rows):
            return [plots_of("20q").draw_beliefs(rows, out)]
    return plots_of("arena").draw_battles(paths, out)


def draw_files(paths, out):
    """Draw what files hold: reports of one game, or rows."""
    out = Path(out or paths[0].with_suffix(".png"))
    reports, task = {}, None
    for path in paths:
        if path.suffix != ".json":
            return draw_rows(paths, out)
        report = read_json(path)
        if not (isinstance(report, dict) and report.get("task") in GAMES and report.get("records")):
            raise ValueError(f"{path}: not a run, nor an evaluation of a game with its records")
        task = task or report["task"]
        if report["task"] != task:
            raise ValueError(f"{path}: cannot be in one picture with {paths[0]}")
        reports[str(path) if path.stem in reports else path.stem] = report
    return plots_of(task).draw(reports, out)


def run_call(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, evaluations, or files of battles"
    )
    parser.add_argument("--out", default="", help="file to write [runs.png, or EVAL.png]")
    parser.add_argument("--only", default="", help="names of panels of runs, separated by commas")
    cfg = parser.parse_args(argv)
    paths = [Path(name) for name in cfg.runs]
    if paths[0].is_file():
        written = draw_files(paths, cfg.out)
    else:
        written = draw(cfg.runs, cfg.out or "runs.png", [*filter(None, cfg.only.split(","))])
    for path in written:
        print(f"written: {path}")


def main(argv=None):
    return exit_code("plots.py", lambda: run_call(argv))


if __name__ == "__main__":
    sys.exit(main())
