"""ARC in the terminal: a task's grids in colour, the model's programs, each verdict and the voted answer."""

import itertools

from games.arc.files import attempts
from games.arc.grids import vote

COLOURS = [16, 27, 160, 34, 226, 245, 201, 208, 51, 88]  # of a terminal's 256, near those of the ARC site
HELP = "enter: the next task; a number or an id: that task; quit"
SHOWN = 8  # different programs


def painted(grids):
    """Lines that show grids side by side, two spaces on the colour of each cell; None is shown as ?."""
    cell = "\x1b[48;5;{}m  \x1b[0m".format
    blocks = [[[cell(COLOURS[c]) for c in row] for row in grid] if grid else [["? "]] for grid in grids]
    lines = itertools.zip_longest(*blocks)
    filled = [[row or ["  "] * len(block[0]) for row, block in zip(line, blocks)] for line in lines]
    return ["    ".join("".join(row) for row in line) for line in filled]


def show_tasks(task, agent, read, show, seed):
    """Go through the test tasks as a person asks for them; one task where nobody is there (read is None)."""
    examples = task.examples("test")
    ids, at = [example["id"] for example in examples], seed % len(examples)
    if read:
        show(HELP)
    while True:
        show_task(task, agent, examples[at], show)
        typed = None
        while typed is None:
            typed = read() if read else None
            if typed is None or typed.strip().lower() in ("quit", "q"):
                return
            word = typed.strip()
            if not word:
                at = (at + 1) % len(examples)
            elif word in ids or (word.isdigit() and int(word) < len(ids)):
                at = ids.index(word) if word in ids else int(word)
            else:
                show(f"no task {word}, there are {len(ids)}, from {ids[0]} on. {HELP}")
                typed = None


def show_task(task, agent, example, show):
    """A task, what the model wrote for it, and the answer that the programs voted for."""
    show(f"\ntask {example['id']}")
    for name in ("train", "test"):
        for pair in example[name]:
            show(f"{name}:")
            for line in painted([pair["input"], pair.get("output")]):
                show(line, painted=True)
    ((_, record),) = task.attempt([example], agent)
    for line in task.programs(record)[:SHOWN]:
        show(line)
    for test, pair in enumerate(record["test"]):
        grids, logps = zip(*attempts(record, test))
        best = (vote(grids, 1, logps) or [None])[0]
        verdict = "" if "output" not in pair else ", right" if best == pair["output"] else ", wrong"
        share = f"{sum(grid == best for grid in grids)} of {len(grids)} replies"
        show(f"answer{verdict} ({share}):" if best else "no answer: no program gives every shown output")
        for line in painted([best]) if best else ():
            show(line, painted=True)
