"""ARC in the terminal: a task's grids in colour, the model's programs, each verdict and the voted answer."""

import itertools

import numpy as np

from games.arc.files import answers, best_answer, tests_of
from terminal import ask, paint, shows_colours

COLOURS = [16, 27, 160, 34, 226, 245, 201, 208, 51, 88]  # of a terminal's 256, near the ARC site's
HELP = "enter: the next task; a number or an id: that task; quit"
SHOWN = 8  # most different programs to show


def side_by_side(grids):
    """Lines that show grids side by side. A cell is two spaces on its colour, or its digit where the output
    shows no colours; a grid of None is a question mark."""
    cells = [f"{digit} " for digit in range(10)]
    if shows_colours():
        cells = [paint("  ", f"48;5;{colour}") for colour in COLOURS]
    blocks = []
    blanks = []  # below a grid with fewer rows than others
    for grid in grids:
        rows = []
        for row in grid or ():
            rows.append("".join(cells[c] for c in row))
        blocks.append(rows or ["? "])
        blanks.append("  " * len(grid[0]) if grid else "  ")
    lines = []
    for rows in itertools.zip_longest(*blocks):  # row i of every grid, None below its last row
        lines.append("    ".join(row or blank for row, blank in zip(rows, blanks)))
    return lines


def interact(task, players, read, show, seat, seed):
    """Show the test tasks that a person asks for, with the model's programs and the voted answer; a single
    task if nobody is there (read is None)."""
    examples = task.examples("test")
    ids = [example["id"] for example in examples]
    at = seed % len(examples)
    while at is not None:
        show_task(task, players, examples[at], show)
        at = choose(ids, at, read, show)


def choose(ids, at, read, show):
    """The index of the task that a person wants to see after the one at index `at`, or None for no more."""
    while read and (typed := ask(read, show, HELP)) is not None:
        word = typed.strip()
        if not word:
            return (at + 1) % len(ids)
        if word in ids:
            return ids.index(word)
        if word.isdigit() and int(word) < len(ids):
            return int(word)
        show(f"no task {word}: type a number below {len(ids)}, or an id such as {ids[0]}")
    return None


def show_task(task, players, example, show):
    """Show a task, the model's programs for it, and the answer that they voted for."""
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
        verdict = ""
        if truth:
            verdict = ", right" if best == truth else ", wrong"
        grids = answers(record, test)
        show(f"answer{verdict} ({grids.count(best)} of {len(grids)} replies):")
        show_grids([best], show)
        show_steps(task, record, test, best, show)


def show_steps(task, record, test, best, show):
    """Show how the first program of search that gives this answer makes it from the test, step by step."""
    for found in record.get("search", {}).get("found", ()):
        if found["answers"][test] == best:
            show(f"program {found['tried']} of the search, {len(found['steps'])} steps:")
            start = grid = np.array(record["test"][test]["input"])
            for step in found["steps"]:  # a table has them side by side
                grid = task.world.apply([step], start if "table" in found else grid)
                show(step_text(step))
                show_grids([grid.tolist()], show)
            return


def step_text(step):
    """A step in words, such as "replace a 3 c 5"."""
    name, p = step
    return " ".join([name, *(f"{x} {value}" for x, value in p.items())])


def show_grids(grids, show):
    for line in side_by_side(grids):
        show(line)
