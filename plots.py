"""Pictures of runs: python plots.py RUN [RUN ...] [--out FILE.png]

One panel each for loss, learning rate, gradient norm, throughput, what else the loss reports (reward, kl,
accuracy ...) and every metric that was evaluated during training, a line a run. Needs matplotlib: pip install
matplotlib."""

import argparse
import json
import sys
from pathlib import Path

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


def draw(folders, out):
    """Draw runs to a PNG file."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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


def main(argv=None):
    """Exit codes: 0 done, 1 failed, 2 wrong call."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--out", default="runs.png", help="file to write [runs.png]")
    cfg = parser.parse_args(argv)
    try:
        draw(cfg.runs, cfg.out)
    except (ImportError, OSError, ValueError) as error:
        print(f"plots.py: {error}", file=sys.stderr)
        return 1
    print(f"written: {cfg.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
