"""Programs run in a second on one core: python bench/sandbox.py [--programs N]

Sides, with the same programs (at most 30 lines, on four grids of 10 x 10, one in eight faulty):
  run          games.sandbox.sandbox, first tier
  confirm      second tier: two fresh children for each program
  interpreter  a fresh `python -I` for each of --fresh programs, which imports numpy, without lock-down

Rates count processor seconds of the parent and all its children, so other processes on the machine matter
little. Starting the sandbox is not counted. The rate by the wall clock is printed next to it."""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from games.sandbox.sandbox import Job, Sandbox, level  # noqa: E402

PROGRAMS = [
    "def solve(g):\n    return [row[::-1] for row in g]",
    "def solve(g):\n    return np.rot90(np.array(g), {n} % 4)",
    """from collections import Counter
def solve(g):
    count = Counter(v for row in g for v in row)
    common = count.most_common({n} % 9 + 1)[-1][0]
    return [[v if v == common else 0 for v in row] for row in g]""",
    """def solve(g):
    h, w = len(g), len(g[0])
    out = [row[:] for row in g]
    for i in range(h):
        for j in range(w):
            if out[i][j] == {n} % 10:
                stack = [(i, j)]
                while stack:
                    a, b = stack.pop()
                    if 0 <= a < h and 0 <= b < w and out[a][b] == {n} % 10:
                        out[a][b] = -1
                        stack += [(a + 1, b), (a - 1, b), (a, b + 1), (a, b - 1)]
    return out""",
    """import numpy as np
def solve(g):
    a = np.array(g)
    rows, columns = np.where(a != {n} % 10)
    if len(rows) == 0:
        return a
    return a[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]""",
    "def solve(g):\n    return np.kron(np.array(g)[:3, :3], np.ones((2, 2), int))",
    "def solve(g):\n    return sorted(g, key=lambda row: (row.count({n} % 10), row))",
    "def solve(g):\n    return g[{n} % 3][99]",
]


def spent():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=4000)
    parser.add_argument("--confirmed", type=int, default=200)
    parser.add_argument("--fresh", type=int, default=20)
    args = parser.parse_args()
    draw = random.Random(0)
    grids = [[[draw.randrange(10) for _ in range(10)] for _ in range(10)] for _ in range(4)]
    calls = [("solve", [grid]) for grid in grids]
    jobs = [Job(PROGRAMS[n % 8].replace("{n}", str(n)), calls) for n in range(args.programs)]

    def idle(tier):
        with Sandbox(names={"np": numpy}) as sandbox:
            getattr(sandbox, tier)(jobs[:1])

    def tier(name, count):
        with Sandbox(names={"np": numpy}) as sandbox:
            getattr(sandbox, name)(jobs[:1])
            return [result.kind for result in getattr(sandbox, name)(jobs[:count])]

    def interpreter(job):
        end = f"\nimport json\nprint(json.dumps([np.array(solve(g)).tolist() for g in {json.dumps(grids)}]))"
        command = [sys.executable, "-I", "-c", "import numpy as np\n" + job.source + end]
        return "error" if subprocess.run(command, capture_output=True).returncode else "ok"

    sides = {
        "run": (args.programs, lambda: tier("run", args.programs), lambda: idle("run")),
        "confirm": (args.confirmed, lambda: tier("confirm", args.confirmed), lambda: idle("confirm")),
        "interpreter": (args.fresh, lambda: [interpreter(job) for job in jobs[: args.fresh]], lambda: None),
    }
    rates = {}
    print(f"level {level()[0]}; programs a second")
    for side, (count, work, start) in sides.items():
        begun = spent()
        start()
        start_cpu, begun, clock = spent() - begun, spent(), time.perf_counter()
        kinds = work()
        cpu, clock = spent() - begun - start_cpu, time.perf_counter() - clock
        rates[side] = count / cpu
        fine = kinds.count("ok")
        print(f"{side:12} {count / cpu:8.1f} a core, {count / clock:8.1f} by the clock; {fine} of {count} ok")
    for side in "run", "confirm":
        print(f"{side} is {rates[side] / rates['interpreter']:.0f} times the interpreter")


if __name__ == "__main__":
    main()
