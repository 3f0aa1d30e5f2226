"""Search for programs made of a world's own steps that give every shown output of a task.

A step is a family with parameters that fit the task (`steps_for`). Each is tried alone, then each behind a
first one: first steps that bring an input nearest to its output are taken first.

Where no single step is a program, a table may make one of several steps (`learn`): it says which colour a
cell of the output has, given the cells at its place in what each step makes of the input.

These programs are our own code, so they run in this process without the sandbox, thousands a second. What a
model writes freely goes through judging.py."""

import itertools
import time

import numpy as np

from games.arc.prompts import source
from games.arc.world import REVERSAL, is_grid, key_of, permuted

BREADTH = 1000  # steps tried after a first one: there are up to 20,000, and many first steps wait
COMBINED = 80  # steps that tables combine in twos: those which leave fewest cells wrong


class Search:
    """The search for one task: {"train", "test"}, of which no output of a test is looked at.

    programs, seconds: the budget. `tried` counts programs, `found` holds those that give every shown output:
    {"steps", "source", "answers": for each test a grid or None, "tried": programs tried until then}, and
    "table" where a table reads what the steps make."""

    def __init__(self, world, task, programs, seconds):
        self.world = world
        # the smallest pair first: most steps are tried on no other
        pairs = sorted(task["train"], key=lambda pair: np.size(pair["input"]) + np.size(pair["output"]))
        self.inputs = [read_only(np.array(pair["input"])) for pair in pairs]
        self.outputs = [np.array(pair["output"]) for pair in pairs]
        self.tests = [read_only(np.array(pair["input"])) for pair in task["test"]]
        self.programs = programs
        self.end = time.monotonic() + seconds
        self.tried = 0
        self.found = []
        self.columns = {}  # of single steps: (step, what it makes of the first input), in its output's shape

    @np.errstate(all="ignore")  # such as a division by zero
    def run(self):
        """Search until the budget is used up; once a program is found, only for as many programs again. All
        single steps are tried, even if there is a program among them."""
        nodes = self.single_steps()
        if self.world.features and not self.found:
            self.learn()
        seen = {tuple(map(key_of, self.inputs))}
        for _, _, first in sorted(nodes):
            # Only now is the step done on all inputs: of most the first is all that is looked at.
            grids = [self.step(*first, grid) for grid in self.inputs]
            if any(grid is None for grid in grids) or (key := tuple(map(key_of, grids))) in seen:
                continue
            seen.add(key)
            steps = steps_for(self.world.families, grids, self.outputs)
            for second in itertools.islice(steps, BREADTH):
                if self.is_over():
                    return
                self.attempt([first, second], grids[0])

    def is_spent(self):
        return self.tried >= self.programs or time.monotonic() > self.end

    def is_over(self):
        return self.is_spent() or bool(self.found) and self.tried >= 2 * self.found[0]["tried"]

    def single_steps(self):
        """Try each step alone. Returns those that may go on: (distance of what the step makes of the first
        input from its output, number, which decides between equal distances, step)."""
        output = self.outputs[0]
        nodes = []
        pairs = self.inputs, self.outputs
        steps = steps_for(self.world.families, *pairs), steps_for(self.world.features, *pairs)
        for step in itertools.chain(*steps):
            if self.is_spent():
                return []
            grid = self.attempt([step], self.inputs[0])
            if grid is None:
                continue
            if grid.shape == output.shape:
                self.columns.setdefault(key_of(grid), (step, grid))
            if step[0] in self.world.families and not same(grid, output):
                nodes.append((distance_of(grid, output), self.tried, step))
        return nodes

    def attempt(self, steps, grid):
        """Try a program on what all its steps but the last make of the first input. Returns what it gives."""
        self.tried += 1
        out = self.step(*steps[-1], grid)
        if out is not None and same(out, self.outputs[0]) and self.fits(steps):
            self.accept(steps)
        return out

    def learn(self):
        """Try tables over what single steps and features make of the input: over one of them, then over two,
        each with the input beside them or without it."""
        output = self.outputs[0]
        given = [(("input", {}), self.inputs[0])] * (self.inputs[0].shape == output.shape)
        columns = list(self.columns.values())
        for size in (1, 2):
            scored = []
            for group in itertools.combinations(columns, size):
                if self.is_over():
                    return
                self.tried += 1
                steps, grids = zip(*group, *given)
                _, wrong = table_of([code_of(grids)], [output], 10 ** len(grids))
                if not wrong:
                    self.tabulate(steps[:size]) or self.tabulate(steps)
                scored.append((wrong, len(scored), group[0]))
            if self.found:
                return
            columns = [column for wrong, _, column in sorted(scored)[:COMBINED] if wrong]

    def tabulate(self, steps):
        """Keep a program of a table over the results of some steps, if all pairs agree on one and it covers
        the tests. Returns whether it does."""
        codes = [self.code(steps, grid) for grid in self.inputs + self.tests]
        shapes = [np.shape(code) for code in codes]  # () for None
        if () in shapes or shapes[: len(self.inputs)] != [output.shape for output in self.outputs]:
            return False
        table, wrong = table_of(codes, self.outputs)
        answers = [table[code] for code in codes[len(self.inputs) :]]
        changed = [(answer >= 0).all() and not same(answer, x) for answer, x in zip(answers, self.tests)]
        if wrong or not all(changed):
            return False
        answers = [answer.tolist() for answer in answers]
        self.keep(list(steps), tabular(self.world, steps, table), answers, table=True)
        return True

    def code(self, steps, grid):
        """For each cell the number whose digits are what the steps make of it, or None where a step fails.
        With all colours reversed a step must give the reversed colours, or the same numbers."""
        grids = []
        for step, other in zip(steps, permuted(steps, REVERSAL)):
            out = self.step(*step, grid)
            reverse = self.step(*other, read_only(REVERSAL[grid]))
            if out is None or reverse is None or grids and out.shape != grids[0].shape:
                return None
            if not same(reverse, REVERSAL[out]) and not same(reverse, out):
                return None
            grids.append(out)
        return code_of(grids)

    def step(self, name, p, grid):
        """The output of a step, or None where it fails or gives no grid."""
        try:
            out = self.world.every[name].program(p)(grid)
        except Exception:  # on grids that are not its own a family may raise anything
            return None
        fine = is_grid(out) and out.dtype.kind == "i" and 0 <= out.min() and out.max() <= 9
        return read_only(out) if fine else None

    def fits(self, steps):
        """Whether a program gives every shown output."""
        for grid, output in zip(self.inputs, self.outputs):
            for name, p in steps:
                grid = self.step(name, p, grid)
                if grid is None:
                    return False
            if not same(grid, output):
                return False
        return True

    def accept(self, steps):
        """Keep a program that answers a test."""
        answers = [self.answer(steps, grid) for grid in self.tests]
        if any(answers):
            self.keep(steps, source(self.world.render(steps)), answers)

    def keep(self, steps, text, answers, **more):
        found = {"steps": steps, "source": text, "answers": answers, "tried": self.tried}
        self.found.append(found | more)

    def answer(self, steps, grid):
        """The output for a test input, or None. With all colours reversed it must be the reversed output: no
        answer may depend on the order of colours. And every step must change the test: one that does not was
        chosen for the shown pairs alone."""
        reverse = read_only(REVERSAL[grid])
        for (name, p), (_, q) in zip(steps, permuted(steps, REVERSAL)):
            before = grid
            grid = self.step(name, p, grid)
            reverse = self.step(name, q, reverse)
            if grid is None or reverse is None or same(grid, before):
                return None
            if not same(REVERSAL[grid], reverse):
                return None
        return grid.tolist()


def read_only(grid):
    grid = grid.view()
    grid.flags.writeable = False
    return grid


def same(grid, other):
    return grid.shape == other.shape and bool((grid == other).all())


# ------------------------------------------------------------------------------------------------ steps
def steps_for(families, grids, outputs):
    """Every step of families whose parameters fit the grids and the outputs, in the order of the families.

    As in the families' own tasks, a and b are colours that every grid contains. A program that names a colour
    for each pair fits many tasks and solves none."""
    counts = np.sum([count(grid) for grid in grids], axis=0)
    common = int(counts.argmax())
    backgrounds = [common] + [0] * bool(common and counts[0])
    inside = [c for c in range(10) if c != common and all(c in grid for grid in grids)]
    painted = [c for c in range(10) if c != common and all(c in grid for grid in outputs)]
    painted = [c for c in painted if c not in inside] or painted  # a new colour was painted
    grows = outputs[0].size > grids[0].size
    for name, family in families.items():
        if family.kind == "enlarge" and not grows:
            continue  # a grid of many objects would become as many times larger
        for p in family.fillings(inside, painted, backgrounds):
            yield name, p


def code_of(grids):
    """For each cell the number whose digits are its values in up to three grids."""
    code = 0
    for grid in grids:
        code = 10 * code + grid
    return code


def table_of(codes, outputs, n=1000):
    """(the usual colour of outputs for each of n codes, -1 where there is none; number of cells that it gets
    wrong)."""
    cells = [(10 * code + output).ravel() for code, output in zip(codes, outputs)]
    counts = np.bincount(np.concatenate(cells), minlength=10 * n).reshape(n, 10)
    most = counts.max(1)
    return np.where(most, counts.argmax(1), -1), counts.sum() - most.sum()


def count(grid):
    """How often each of the ten colours occurs."""
    return np.bincount(grid.ravel(), minlength=10)


def distance_of(grid, output):
    """How far a grid is from an output: the share of differing cells, or if it is lower 0.1 more than the
    share of cells that have too much of a colour, since cells may only have moved. For another shape 1, and
    more for other colours and sizes."""
    ours = count(grid)
    wanted = count(output)
    if grid.shape == output.shape:
        surplus = np.maximum(ours - wanted, 0).sum() / grid.size
        return min((grid != output).mean(), 0.1 + surplus)
    colours = ((ours > 0) != (wanted > 0)).mean()
    sizes = np.abs(np.log(np.divide(grid.shape, output.shape))).sum()
    return 1 + colours + 0.2 * min(sizes, 5.0)


def tabular(world, steps, table):
    """The source of a program that looks cells up in a table: their codes are numbers as in code_of."""
    parts = []
    terms = []
    for i, step in enumerate(steps):
        parts.append(source(world.render([step])).replace("def task", f"def part_{i}"))
        terms.append(f"{10 ** (len(steps) - 1 - i)} * part_{i}(grid)")
    codes = np.flatnonzero(table >= 0)
    parts += [f"codes = {codes.tolist()}", f"colours = np.array({table[codes].tolist()})"]
    return source("\n".join([*parts, f"return colours[np.searchsorted(codes, {' + '.join(terms)})]"]))
