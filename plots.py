"""Pictures: python plots.py RUN [RUN ...] [--out FILE.png], or of games: python plots.py EVAL.json

Of runs one panel each for loss, learning rate, gradient norm, throughput, what else the loss reports (reward,
kl, accuracy ...) and every metric that was evaluated during training, a line a run. Of what infer.py eval
wrote: ARC's scaling curve, lengths and tasks; Eedi's labels, similarities (before.json after.json) and
subjects; the arena's biases and calibration, and of any file of battles who wins and why (battles.csv);
the ratings of a tournament of 20 Questions, its win rates, and of recorded games (games.jsonl) the belief.
Needs matplotlib: pip install matplotlib."""

import argparse
import json
import sys
from pathlib import Path

from games.arc.plots import draw_arc, draw_eedi, finish, pyplot
from games.arena.plots import draw_arena, draw_battles
from games.rows import read_rows
from games.twentyq.plots import draw_beliefs, draw_twentyq

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


def draw(folders, out, only=()):
    """Draw runs to a PNG file: all that they report, or only panels of these names."""
    plt = pyplot()
    runs = {Path(folder).resolve().name: read_run(folder) for folder in folders}
    reported, metrics = dict(PANELS), {}
    for steps, evaluations in runs.values():
        reported |= {name: name for row in steps[:1] for name in row if name not in UNDRAWN | PANELS.keys()}
        metrics |= {name: name for row in evaluations for name, v in row["eval"].items() if v is not None}
    names = [*reported, *(name for name in metrics if name not in reported)]
    if unknown := [name for name in only if name not in names]:
        raise ValueError(f"--only {unknown[0]}: no such panel; there are {', '.join(names)}")
    names = list(only) or names
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
    return [finish(figure, out)]


DRAWERS = {"20q": draw_twentyq, "arc": draw_arc, "eedi": draw_eedi, "arena": draw_arena}  # by a report's task


def draw_files(paths, out):
    """Draw what files hold: reports of one game, or battles."""
    out = Path(out or paths[0].with_suffix(".png"))
    reports = {}
    for path in paths:
        if path.suffix != ".json":
            rows = [row for _, row in read_rows(str(path))] if path.suffix == ".jsonl" else [{}]
            played = all(isinstance(row.get("rounds"), list) and "keyword" in row for row in rows)
            return [draw_beliefs(rows, out)] if played else draw_battles(paths, out)
        name = str(path) if path.stem in reports else path.stem
        reports[name] = report = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(report, dict) and report.get("task") in DRAWERS and report.get("records")):
            raise ValueError(f"{path}: not a run, nor an evaluation that can be drawn ({', '.join(DRAWERS)})")
        if report["task"] != reports[paths[0].stem]["task"]:
            raise ValueError(f"{path}: cannot be in one picture with {paths[0]}")
    return DRAWERS[report["task"]](reports, out)


def main(argv=None):
    """Exit codes: 0 done, 1 failed, 2 wrong call."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, evaluations, or files of battles"
    )
    parser.add_argument("--out", default="", help="file to write [runs.png, or EVAL.png]")
    parser.add_argument("--only", default="", help="of runs: names of panels, divided by commas")
    cfg = parser.parse_args(argv)
    paths = [Path(name) for name in cfg.runs]
    try:
        if paths[0].is_file():
            written = draw_files(paths, cfg.out)
        else:
            written = draw(cfg.runs, cfg.out or "runs.png", [*filter(None, cfg.only.split(","))])
    except (ImportError, OSError, ValueError) as error:
        print(f"plots.py: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
