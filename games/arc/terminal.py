"""ARC in the terminal: a task's grids in colour, the model's programs, each verdict and the voted answer."""

import itertools

from games.arc.files import answers, best_answer, tests_of
from terminal import ask

COLOURS = [16, 27, 160, 34, 226, 245, 201, 208, 51, 88]  # of a terminal's 256, near those of the ARC site
HELP = "enter: the next task; a number or an id: that task; quit"
SHOWN = 8  # different programs


def side_by_side(grids):
    """Lines that show grids side by side, two spaces on the colour of each cell; None is shown as ?."""
    cell = "\x1b[48;5;{}m  \x1b[0m".format
    blocks = [[[cell(COLOURS[c]) for c in row] for row in grid] if grid else [["? "]] for grid in grids]
    lines = []
    for rows in itertools.zip_longest(*blocks):
        filled = [row or ["  "] * len(block[0]) for row, block in zip(rows, blocks)]
        lines.append("    ".join("".join(row) for row in filled))
    return lines


def interact(task, players, read, show, seat, seed):
    """Go through the test tasks as a person asks for them, with the model's programs and the voted answer;
    one task where nobody is there (read is None)."""
    examples = task.examples("test")
    ids, at = [example["id"] for example in examples], seed % len(examples)
    while at is not None:
        show_task(task, players, examples[at], show)
        at = choose(ids, at, read, show)


def choose(ids, at, read, show):
    """The number of the task that a person wants to see after number `at`, or None for no more."""
    while read and (typed := ask(read, show, HELP)) is not None:
        word = typed.strip()
        if not word:
            return (at + 1) % len(ids)
        if word in ids:
            return ids.index(word)
        if word.isdigit() and int(word) < len(ids):
            return int(word)
        show(f"no task {word}, there are {len(ids)}, from {ids[0]} on")
    return None


def show_task(task, players, example, show):
    """A task, what the model wrote for it, and the answer that the programs voted for."""
    show(f"\ntask {example['id']}")
    for part in ("train", "test"):
        for pair in example[part]:
            show(f"{part}:")
            show_grids([pair["input"], pair.get("output")], show)
    ((_, record),) = task.attempt([example], players)
    for line in task.programs(record)[:SHOWN]:
        show(line)
    for test in tests_of(record):
        best = best_answer(record, test)
        if not best:
            show("no answer: no program gives every shown output")
            continue
        truth = record["test"][test].get("output")
        verdict = "" if not truth else ", right" if best == truth else ", wrong"
        grids = answers(record, test)
        show(f"answer{verdict} ({grids.count(best)} of {len(grids)} replies):")
        show_grids([best], show)


def show_grids(grids, show):
    for line in side_by_side(grids):
        show(line, painted=True)
