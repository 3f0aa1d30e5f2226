"""Shared by the benchmarks that compare several sides: how a call ends, and the table of bench/embed.py and
bench/classify.py."""

import statistics
from pathlib import Path


class Given:
    """A task whose examples already are the items to learn from."""

    def items(self, example, rng):
        return example


def step_of(objective, learner, items):
    """The Step that an objective makes from items, a list for each example."""
    return objective.step(learner, Given(), [(own, None) for own in items], None)


MEASURED = ["seconds", "cpu", "peak", "growth"]  # in one round of a side; the last two in MiB


def table(what, args, lengths, matmul, flops, found, apart):
    """The table in Markdown: lines, with medians over the rounds. what: the work in words; lengths: tokens of
    each text; matmul: FLOP/s of this machine; flops: FLOPs of the work; found: {side: its rounds, dicts of
    MEASURED}; apart: {side: largest difference between its result and ours}."""
    lines = [
        f"{what}; {len(lengths):,} texts of {min(lengths)} to {max(lengths)} tokens, median "
        f"{statistics.median(lengths):g}, {sum(lengths):,} in all; {args.rounds} rounds, {args.threads} "
        f"threads; matmul {matmul / 1e9:.0f} GFLOP/s",
        "",
        "| | texts/s | tokens/s | % of matmul | speed | CPU | peak MiB | memory | growth MiB | differs by |",
        "|---" * 10 + "|",
    ]
    for name, rounds in found.items():
        seconds, _, peak, growth = (statistics.median(one[key] for one in rounds) for key in MEASURED)
        pairs = list(zip(found["ours"], rounds))
        wall, cpu, less, _ = (statistics.median(a[key] / b[key] for a, b in pairs) for key in MEASURED)
        cells = [name, f"{len(lengths) / seconds:.2f}", f"{sum(lengths) / seconds:,.0f}"]
        cells += [f"{100 * flops / seconds / matmul:.0f}", f"{1 / wall:.2f}", f"{1 / cpu:.2f}"]
        cells += [f"{peak:,.0f}", f"{less:.2f}", f"{growth:,.0f}", f"{apart[name]:.1e}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def peak():
    """The largest resident size of this process so far, in MiB. ru_maxrss would begin with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def carry_out(args, side, compare):
    """With --side, measure that side in this process. Without it, compare all sides, print the table, and
    write it to --out."""
    if args.side:
        return side(args)
    lines = compare(args)
    print("\n".join(lines))
    if args.out:
        Path(args.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
