"""Draw pictures: python plots.py RUN [RUN ...] [--out FILE.png], or of games: python plots.py EVAL.json

Runs, a colour for each: loss (with the validation loss), learning rate, gradient norm, tokens per second,
the metrics before and after training, the main one over training if it was evaluated on the way, and what
else the steps report (reward, kl ...). A file that infer.py eval wrote: the pictures of its game
(games/*/plots.py). Files of battles (battles.csv): who wins and why. Recorded games of 20 Questions
(games.jsonl): how the belief moved. Needs matplotlib: pip install matplotlib."""

import argparse
import math
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from files import optional_json, read_json
from games import GAMES, task_class
from games.rows import read_rows
from pictures import draw_rows, finish, pyplot
from terminal import check_choice, exit_code

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


def read_run(folder: str | Path) -> Run:
    """Read metrics.jsonl and the evaluations before and after training."""
    folder = Path(folder).resolve()  # `latest` shows the name of the run it points to
    rows = [row for _, row in read_rows(folder / "metrics.jsonl")]
    steps = [row for row in rows if "loss" in row]
    evaluations = [{"step": row["step"], **row["eval"]} for row in rows if "eval" in row]
    before = optional_json(folder / "before.json") or {}
    after = optional_json(folder / "eval.json") or {}
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
    reported = {}  # ordered sets of names
    extra = {}  # those of the reported ones that were ever other than 0
    measured = {}
    main = {}  # the first metric of each task, where it was evaluated during training
    for run in runs:
        for row in run.steps:
            reported |= row
            extra |= {name: None for name, value in row.items() if value}
        for row in run.evaluations:
            measured |= row
        if len(run.evaluations) > 2:
            main |= dict.fromkeys([*run.evaluations[0]][1:2])  # after the step
    for name in only:
        check_choice("only", name, [*dict.fromkeys([*PANELS, ENDS, *reported, *measured])])
    if only:
        return only

    extra = sorted(extra, key=lambda name: name.endswith("_std"))  # spreads after means
    panels = dict.fromkeys([*PANELS, *[ENDS] * bool(measured), *main, *extra])
    panels = [name for name in panels if name not in NOT_DRAWN]
    if left_out := panels[MAX_PANELS:]:
        print(f"not drawn: {', '.join(left_out)}; --only draws the panels that it names")
    return panels[:MAX_PANELS]


def draw(folders: list[str], out: str | Path, only: list[str] = ()) -> list[Path]:
    """Draw runs to a PNG file, a colour for each run, and return the file. only: names of panels."""
    folders = dict.fromkeys(Path(folder).resolve() for folder in folders)  # each once
    runs = [read_run(folder) for folder in folders]
    names = choose_panels(runs, only)
    columns = min(3 if len(names) <= 9 else 4, len(names))
    lines = math.ceil(len(names) / columns)
    heights = [3.2] * lines
    if ENDS in names:  # a dot needs its height whatever the number of rows
        dots = sum(len(rows_of(run.after or run.before)) for run in runs)
        heights[names.index(ENDS) // columns] = max(3.2, 1 + 0.28 * dots)
    size = 4.8 * columns, sum(heights)
    figure, axes = pyplot().subplots(lines, columns, figsize=size, height_ratios=heights, squeeze=False)
    for name, axis in zip(names, axes.flat):
        if name == ENDS:
            draw_ends(axis, runs)
        else:
            draw_panel(axis, runs, name)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=8)
    figure.supxlabel(
        f"thin: every step; thick: mean over the last {100 * SMOOTHING:g} % of the steps", fontsize=8
    )
    return [finish(figure, out)]


def draw_panel(axis, runs: list[Run], name: str):
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
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("step", fontsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True)
    low, high = axis.dataLim.intervaly
    if name in ("loss", "grad") and high > LOG_FROM * low > 0:
        axis.set_yscale("log", subs=[2, 5])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")  # few decades: 2 and 5 are labelled too
    axis.grid(alpha=0.3)
    axis.tick_params(which="both", labelsize=8)


def draw_steps(axis, run: Run, name: str, colour: str):
    """Draw a noisy line and its mean; the learning rate is not noisy."""
    rows = [row for row in run.steps if row.get(name) is not None]
    x = [row["step"] for row in rows]
    y = [row[name] for row in rows]
    if name != "lr":
        axis.plot(x, y, alpha=0.25, linewidth=0.6, color=colour)
        y = smooth(y, max(1, round(SMOOTHING * len(y))))
    axis.plot(x, y, color=colour, label=run.name)


def draw_evaluations(axis, run: Run, name: str, colour: str, label: str | None = None, line: str = "-"):
    """Draw a dot for each evaluation, with its interval at both ends of training. Two dots get no line: it
    would show a way from one to the other that nobody measured."""
    rows = [row for row in run.evaluations if row.get(name) is not None]
    x = [row["step"] for row in rows]
    y = [row[name] for row in rows]
    axis.plot(x, y, "o" + line * (len(rows) > 2), markersize=4, color=colour, label=label)
    for step, report in zip((0, x[-1] if x else 0), (run.before, run.after)):
        interval = report.get("intervals", {}).get(name)
        if interval:
            axis.vlines(step, *interval, color=colour, linewidth=1.2)


def rows_of(report: dict) -> dict:
    """{label: (value, interval)} of the main metric, of others with an interval, and of larger groups."""
    rows = {}
    metrics = report.get("metrics", {})
    main = next(iter(metrics), "")
    for name, value in metrics.items():
        interval = report.get("intervals", {}).get(name)
        if value is not None and (interval or name == main):
            rows[name] = value, interval
    for name, groups in report.get("groups", {}).items():
        for part, group in groups.items():
            value = group.get(main.partition("@")[0])  # groups are games at the first share of noise
            if value is not None and group["n"] >= MIN_GROUP:
                rows[f"{main}, {name} {part}"] = value, group["interval"]
    return rows


def draw_ends(axis, runs: list[Run]):
    """Draw the evaluations before and after training beside each other, a row for each metric or group."""
    tables = []
    looks = []
    for i, run in enumerate(runs):
        tables += [rows_of(run.before), rows_of(run.after)]
        looks += [(f"C{i}", True), (f"C{i}", False)]
        axis.plot([], [], "o-", color=f"C{i}", label=run.name)  # its line in a legend
    draw_rows(axis, tables, looks=looks, fontsize=8)
    axis.set_title("before (hollow) and after training", fontsize=10)
    axis.set_xlabel("value with 95 % interval", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)


# ------------------------------------------------------------------------------------------------ games
def plots_of(task: str):
    """The module that draws a game. Raises ValueError if it has none."""
    name = task_class(task).__module__.rpartition(".")[0] + ".plots"
    if find_spec(name) is None:
        raise ValueError(f"--task {task}: there are no pictures of its evaluations")
    return import_module(name)


def draw_recorded(paths: list[Path], out: Path) -> list[Path]:
    """Draw recorded games of 20 Questions, or battles; return the files written."""
    if paths[0].suffix == ".jsonl":
        rows = [row for _, row in read_rows(paths[0])]
        if rows and all(isinstance(row.get("rounds"), list) and "keyword" in row for row in rows):
            return [plots_of("20q").draw_beliefs(rows, out)]
    return plots_of("arena").draw_battles(paths, out)


def draw_files(paths: list[Path], out: str) -> list[Path]:
    """Draw reports of one game, or rows, and return the files written."""
    out = Path(out or paths[0].with_suffix(".png"))
    reports = {}
    for path in paths:
        if path.suffix != ".json":
            return draw_recorded(paths, out)
        report = read_json(path)
        if not (isinstance(report, dict) and report.get("task") in GAMES and report.get("records")):
            raise ValueError(f"{path}: not a run, nor an evaluation that infer.py eval --out wrote")
        if any(other["task"] != report["task"] for other in reports.values()):
            raise ValueError(f"{path}: cannot be in one picture with {paths[0]}, another game")
        reports[str(path) if path.stem in reports else path.stem] = report
    return plots_of(report["task"]).draw(reports, out)


def run_call(argv: list[str] | None):
    """Parse a call and draw what it names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, evaluations, or files of battles"
    )
    parser.add_argument("--out", default="", help="file to write [runs.png, or EVAL.png]")
    parser.add_argument("--only", default="", help="panels of runs, separated by commas")
    cfg = parser.parse_args(argv)
    paths = [Path(name) for name in cfg.runs]
    if paths[0].is_file():
        written = draw_files(paths, cfg.out)
    else:
        written = draw(cfg.runs, cfg.out or "runs.png", [*filter(None, cfg.only.split(","))])
    for path in written:
        print(f"written: {path}")


def main(argv: list[str] | None = None) -> int:
    """Return the exit code, as terminal.exit_code gives it."""
    return exit_code("plots.py", lambda: run_call(argv))


if __name__ == "__main__":
    sys.exit(main())
