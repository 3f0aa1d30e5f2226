"""Draw pictures: python plots.py RUN [RUN ...] [--out FILE.png], or of games: python plots.py EVAL.json

Runs, a colour for each: loss (with the validation loss), learning rate, gradient norm, tokens per second,
the metrics before and after training, the main one over training if it was evaluated on the way, and what
else the steps report (reward, kl ...). A file that infer.py eval wrote: the pictures of its game
(games/*/plots.py). Files of battles (battles.csv): who wins and why. Needs matplotlib:
pip install matplotlib."""

import argparse
import math
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from files import COUNT, NUMBER, check_fields, map_of, regular
from games import GAMES, task_class
from games.rows import read_rows
from games.task import read_report
from pictures import draw_rows, finish, pyplot
from terminal import UsageError, check_choice, exit_code

SMOOTHING = 0.02  # share of a run's steps over which its noisy lines are averaged
MAX_PANELS = 12  # --only may ask for more
LOG_FROM = 5  # log axis for loss and gradient norm whose largest value is this many times the smallest
MIN_GROUP = 20  # examples: the interval of a smaller group says nothing
NOT_DRAWN = {"step", "tokens", "learned", "dropped", "skipped"}  # fields of a step without a panel
PANELS = {"loss": "loss", "lr": "learning rate", "grad": "gradient norm", "tok/s": "tokens per second"}
ENDS = "ends"  # the panel of the evaluations before and after training


# ------------------------------------------------------------------------------------------------ runs
@dataclass
class Run:
    """What a picture shows of a run."""

    name: str
    steps: list  # {"step", "loss", "lr", ...}
    evaluations: list  # {"step", metric: value}, with those before and after training
    before: dict  # the report of the evaluation before training, or {}
    after: dict


def read_run(folder: Path) -> Run:
    """Read metrics.jsonl and the evaluations before and after training."""
    rows = []
    for where, row in read_rows(folder / "metrics.jsonl"):
        kinds = {**dict.fromkeys(row, NUMBER), "step": COUNT, "eval": map_of(NUMBER)}
        rows.append(check_fields(where, row, kinds, ["step"]))
    steps = [row for row in rows if "loss" in row]
    evaluations = [{"step": row["step"], **row["eval"]} for row in rows if "eval" in row]
    before = read_report(folder / "before.json")
    after = read_report(folder / "eval.json")
    if before:
        evaluations.insert(0, {"step": 0, **before["metrics"]})
    if after:
        evaluations.append({"step": steps[-1]["step"] if steps else 0, **after["metrics"]})
    return Run(folder.name, steps, evaluations, before, after)


def smooth(values: list[float], window: int) -> list[float]:
    """The mean of each value and up to window - 1 before it."""
    sums = [0.0, *accumulate(values)]
    return [(sums[i] - sums[max(0, i - window)]) / min(i, window) for i in range(1, len(sums))]


def choose_panels(runs: list[Run], only: list[str]) -> list[str]:
    """The names of the panels to draw: `only`, or what a run shows without it."""
    # Dicts serve as ordered sets of names: only their keys matter.
    known = dict.fromkeys([*PANELS, ENDS])
    main = {}  # the main metric of each task, if it was evaluated during training
    nonzero = {}  # a name whose value is 0 at every step gets no panel
    for run in runs:
        for row in run.steps:
            known |= row
            nonzero |= dict.fromkeys(filter(row.get, row))
        for row in run.evaluations:
            known |= row
        if len(run.evaluations) > 2:
            main |= dict.fromkeys([*run.evaluations[0]][1:2])  # the name after "step"

    for name in only:
        check_choice("only", name, [*known])
    if only:
        return only

    names = [*PANELS]
    if any(run.evaluations for run in runs):
        names.append(ENDS)
    names += main
    names += sorted(nonzero, key=lambda name: name.endswith("_std"))  # spreads after means
    panels = [name for name in dict.fromkeys(names) if name not in NOT_DRAWN]
    if left_out := panels[MAX_PANELS:]:
        print(f"not drawn: {', '.join(left_out)}; --only draws the panels that it names")
    return panels[:MAX_PANELS]


def draw(folders: list[Path], out: str, only: list[str]) -> list[Path]:
    """Draw runs to a PNG file, a colour for each run, and return the file. only: names of panels, or []."""
    # A run is drawn once. `latest` becomes the name of the run it points to.
    folders = dict.fromkeys(map(Path.resolve, folders))
    runs = [*map(read_run, folders)]
    names = choose_panels(runs, only)

    # A line of panels is 3.2 inches high; the one with the evaluations grows with its number of dots.
    columns = min(3 if len(names) <= 9 else 4, len(names))
    lines = math.ceil(len(names) / columns)
    heights = [3.2] * lines
    if ENDS in names:
        dots = sum(len(rows_of(run.after or run.before)) for run in runs)
        heights[names.index(ENDS) // columns] = max(3.2, 1 + 0.28 * dots)
    size = 4.8 * columns, sum(heights)
    figure, axes = pyplot().subplots(lines, columns, figsize=size, height_ratios=heights, squeeze=False)

    for name, axis in zip(names, axes.flat):
        if name == ENDS:
            draw_ends(axis, runs)
        else:
            draw_panel(axis, runs, name)
        axis.title.set_fontsize(10)
        axis.xaxis.label.set_fontsize(8)
        axis.tick_params(which="both", labelsize=8)
    for axis in axes.flat[len(names) :]:  # the rest of the last line stays empty
        axis.set_axis_off()

    axes.flat[0].legend(fontsize=8)  # colours mean the same in all panels
    note = f"thin: every step; thick: mean over the last {100 * SMOOTHING:g} % of the steps"
    figure.supxlabel(note, fontsize=8)
    return [finish(figure, Path(out))]


def draw_panel(axis, runs, name):
    """Draw what steps report or evaluations measured under a name, over the steps of each run."""
    title = f"{name}, evaluated"
    for i, run in enumerate(runs):
        colour = f"C{i}"
        if any(name in row for row in run.steps):
            draw_steps(axis, run, name, colour)
            title = PANELS.get(name, f"{name}, in training")
        else:
            draw_evaluations(axis, run, name, colour, run.name)
        if name == "loss" and any("valid_loss" in row for row in run.evaluations):
            draw_evaluations(axis, run, "valid_loss", colour, line="")
            title = "loss (dots: validation)"

    axis.set(title=title, xlabel="step")
    axis.xaxis.get_major_locator().set_params(integer=True)

    # On a linear axis, a few large values at the start would flatten the rest of the run.
    low, high = axis.dataLim.intervaly
    if name in ("loss", "grad") and high > LOG_FROM * low > 0:
        axis.set_yscale("log", subs=[2, 5])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")  # few decades: 2 and 5 are labelled too
    axis.grid(alpha=0.3)


def points_of(rows, name):
    """The steps and the values of the rows that have a value under a name."""
    x = []
    y = []
    for row in rows:
        if row.get(name) is not None:
            x.append(row["step"])
            y.append(row[name])
    return x, y


def draw_steps(axis, run, name, colour):
    """Draw a noisy line and its mean; the learning rate is not noisy."""
    x, y = points_of(run.steps, name)
    if name != "lr":
        axis.plot(x, y, alpha=0.25, linewidth=0.6, color=colour)
        y = smooth(y, max(1, round(SMOOTHING * len(y))))
    axis.plot(x, y, color=colour, label=run.name)


def draw_evaluations(axis, run, name, colour, label=None, line="-"):
    """Draw a dot for each evaluation, with its interval at both ends of training. Two dots get no line: it
    would show a way from one to the other that nobody measured."""
    x, y = points_of(run.evaluations, name)
    style = "o" + line if len(x) > 2 else "o"
    axis.plot(x, y, style, markersize=4, color=colour, label=label)
    last = x[-1] if x else 0
    for step, report in ((0, run.before), (last, run.after)):
        interval = report.get("intervals", {}).get(name)
        if interval:
            axis.vlines(step, *interval, color=colour, linewidth=1.2)


def rows_of(report: dict) -> dict:
    """{label: (value, interval)} of the main metric, of others with an interval, and of larger groups."""
    rows = {}
    metrics = report.get("metrics", {})
    intervals = report.get("intervals", {})
    main = next(iter(metrics), "")
    for name, value in metrics.items():
        interval = intervals.get(name)
        if value is not None and (interval or name == main):
            rows[name] = value, interval

    measure = main.partition("@")[0]  # without the share of noise: all games of groups have the first one
    for name, groups in report.get("groups", {}).items():
        for part, group in groups.items():
            value = group.get(measure)
            if value is not None and group["n"] >= MIN_GROUP:
                rows[f"{main}, {name} {part}"] = value, group["interval"]
    return rows


def draw_ends(axis, runs):
    """Draw the evaluations before and after training beside each other, a row for each metric or group."""
    tables = []
    looks = []
    for i, run in enumerate(runs):
        colour = f"C{i}"
        tables += [rows_of(run.before), rows_of(run.after)]
        looks += [(colour, True), (colour, False)]
        axis.plot([], [], "o-", color=colour, label=run.name)  # its line in a legend
    draw_rows(axis, tables, looks=looks)
    axis.set(title="before (hollow) and after training", xlabel="value with 95 % interval")


# ------------------------------------------------------------------------------------------------ games
def plots_of(task: str):
    """The module that draws a game. Raises ValueError if it has none."""
    if task in GAMES:  # a game in a file of the user's has none
        name = task_class(task).__module__.rpartition(".")[0] + ".plots"
        if find_spec(name):
            return import_module(name)
    raise ValueError(f"--task {task}: there are no pictures of its evaluations")


def draw_files(paths: list[Path], out: str | None) -> list[Path]:
    """Draw reports of one game, or battles, and return the files written."""
    out = Path(out or paths[0].with_suffix(".png"))
    reports = {}
    for path in paths:
        if path.suffix != ".json":
            regular(path)
            return plots_of("arena").draw_battles(paths, out)
        report = read_report(path, "task", "records")
        if any(other["task"] != report["task"] for other in reports.values()):
            raise ValueError(f"{path}: cannot be in one picture with {paths[0]}, another game")
        name = str(path) if path.stem in reports else path.stem  # two folders may hold an eval.json each
        reports[name] = report
    return plots_of(report["task"]).draw(reports, out)


def run_call(argv: list[str] | None):
    """Parse a call and draw what it names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    kinds = "run folders, evaluations, or files of battles"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=kinds)
    parser.add_argument("--out", help="file to write [runs.png, or EVAL.png]")
    parser.add_argument("--only", default="", help="panels of runs, separated by commas")
    cfg = parser.parse_args(argv)
    paths = [Path(name) for name in cfg.runs]
    try:
        if paths[0].is_dir():
            only = [*filter(None, cfg.only.split(","))]
            written = draw(paths, cfg.out or "runs.png", only)
        else:
            written = draw_files(paths, cfg.out)
    except UsageError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if type(error) is ValueError and cfg.runs[0] in str(error):
            raise
        # Drawing fails on a value of a wrong kind, and knows no file.
        raise ValueError(
            f"{', '.join(cfg.runs)}: cannot be drawn ({error!r}); is it what train.py or infer.py wrote?"
        ) from error
    for path in written:
        print(f"written: {path}")


def main(argv: list[str] | None = None) -> int:
    """Return the exit code, as terminal.exit_code gives it."""
    return exit_code("plots.py", lambda: run_call(argv))


if __name__ == "__main__":
    sys.exit(main())
