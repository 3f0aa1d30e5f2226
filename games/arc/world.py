"""The worlds of ARC: endless tasks drawn from families of small grid transformations, each with its program.

    task = open_world("small").draw(np.random.default_rng(0))
    task["train"], task["test"], task["program"]

A task is a list of steps, (family name, parameters): one step, or two for a composition. The small world has
the families of families.py on small grids. The wide world joins those of every wide_*.py in this folder to
them, draws some of the grids two or three times as large, and composes more kinds of families."""

import itertools
import zlib
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from games.arc.families import COLOURS, FAMILIES, Rejected
from games.arc.grids import SIDE
from games.arc.prompts import source

PAIRS = 4  # pairs of a task; the last one is its test
ROUNDS = 9  # families, or couples, to try in a draw: a few couples have no tasks
REVERSAL = np.arange(10)[::-1]  # a permutation of colours that reverses every order of them
SMALL_COUPLES = {("geometry", "colour"), ("colour", "geometry")}  # kinds of the two steps of a composition
FLAT = {"solid", "row", "column", "fullest_row"}  # what these cut out is too plain for a second step
FAILS = IndexError, ValueError  # what a program raises where it cannot take a grid


class World:
    """Families by name, and the tasks drawn from them. Features, which have no inputs, are for search.

    couples: kinds of families that compose, in order; prompt: most cells and row ends in the shown pairs;
    larger: share of tasks with sides two or three times as long; unseen: families that are never drawn for
    training; tries: rejected draws in a row after which other families are drawn."""

    def __init__(self, families, couples, prompt, larger=0.0, unseen=frozenset(), tries=1000):
        self.every = families
        self.features = {name: family for name, family in families.items() if not family.inputs}
        self.families = families = {name: family for name, family in families.items() if family.inputs}
        self.prompt = prompt
        self.larger = larger
        self.unseen = unseen
        self.tries = tries
        self.couples = []
        for first, second in itertools.permutations(families.values(), 2):
            names = first.name, second.name
            if (first.kind, second.kind) in couples and not {*names} & self.unseen and names[0] not in FLAT:
                self.couples.append(names)
        # Compositions kept for evaluation, about a fifth. The hash is of the two sorted names, because most
        # compositions do the same in both orders.
        held_out = lambda names: zlib.crc32(" ".join(sorted(names)).encode()) % 5 == 0
        self.held_out_couples = frozenset(filter(held_out, self.couples))
        self.siblings = {name: self.siblings_of(family) for name, family in families.items()}

    def siblings_of(self, family):
        """The families whose tasks look alike: of the same kind, or without a kind and of the same inputs."""
        alike = lambda other: other.kind == family.kind and (family.kind or other.inputs is family.inputs)
        return list(filter(alike, self.families.values()))

    # ------------------------------------------------------------------------------------------ programs
    def render(self, steps):
        """The program of the steps in one body: what one would return becomes the grid of the next."""
        *first, last = [self.every[name].body.format(**p) for name, p in steps]
        return "\n".join([body.replace("return ", "grid = ") for body in first] + [last])

    def apply(self, steps, grid):
        """The output of the steps, the same as that of the program rendered from them."""
        for name, p in steps:
            grid = self.every[name].program(p)(grid)
        return grid

    def fits(self, steps, pairs):
        """Whether the steps give the output of every pair; False where they cannot take an input."""
        try:
            return all(key_of(self.apply(steps, x)) == key_of(y) for x, y in pairs)
        except FAILS:
            return False

    # ------------------------------------------------------------------------------------------ tasks
    def draw(self, rng, held_out=False, compositions=0.0, withheld=False):
        """A random task: of one family, or of two in a row with the chance `compositions`. A rejected draw is
        followed by another of the same families, up to `tries` times.

        held_out: only families with held-out values, which then take these; for compositions, only the
        couples held out, with usual values: what is new is the couple. withheld: only the families that are
        never drawn for training."""
        couple = rng.random() < compositions
        choices = self.drawn_from(couple, held_out, withheld)
        for _ in range(ROUNDS):
            names = choices[rng.integers(len(choices))]
            for _ in range(self.tries):
                try:
                    return self.make(names, rng, held_out and not couple)
                except Rejected as error:
                    reason = error
        raise RuntimeError(f"{names}: {self.tries} draws in a row rejected, the last for {reason}")

    def drawn_from(self, couple, held_out, withheld):
        """The families that `draw` chooses from, as tuples of one name or two."""
        if couple:
            return [names for names in self.couples if (names in self.held_out_couples) == held_out]
        names = []
        for name, family in self.families.items():
            if (name in self.unseen) == withheld and (family.has_held_out or not held_out):
                names.append((name,))
        return names

    def make(self, names, rng, held_out=False):
        """A task of one family, or of two in order. Raises Rejected where the draw breaks a rule."""
        steps = [(name, self.families[name].draw(rng, held_out)) for name in names]
        # The colour step draws the inputs, because geometry takes any grid; what is cut out comes first.
        of_colour = [step for step in steps if self.families[step[0]].kind == "colour"]
        first_cuts = self.families[names[0]].kind == "crop"
        name, p = steps[0] if first_cuts else (of_colour or steps)[0]
        others = [c for c in (rng.permutation(9) + 1).tolist() if c not in (p.get("a"), p.get("b"))]
        if first_cuts:  # a crop may leave the colours that the second step needs
            needed = [q[x] for _, q in steps[1:] for x in "ab" if x in q]
            others.sort(key=lambda colour: colour not in needed)
        parameters = {**p, "palette": others[:4]}
        if self.larger and rng.random() < self.larger:
            parameters["scale"] = int(rng.integers(2, 4))
        pairs = []
        for _ in range(PAIRS):
            x = self.families[name].inputs(rng, parameters)
            pairs.append((x, self.output_of(steps, x)))
        self.check(steps, pairs)
        return self.task_of(steps, pairs)

    def output_of(self, steps, grid):
        """The output of the steps. Raises Rejected where one fails: a second step on what the first leaves,
        or a family, once in some 10,000 draws, on an input that is not as it should be."""
        try:
            return self.apply(steps, grid)
        except FAILS as error:
            raise Rejected(f"a step fails: {error}") from error

    def task_of(self, steps, pairs):
        """The task as plain dicts and lists. Parameters of a composition stand under the families' names."""
        lists = [{"input": x.tolist(), "output": y.tolist()} for x, y in pairs]
        return {
            "train": lists[:-1],
            "test": lists[-1:],
            "program": self.render(steps),
            "family": "+".join(name for name, _ in steps),
            "parameters": dict(steps) if len(steps) > 1 else steps[0][1],
        }

    def check(self, steps, pairs):
        """Raise Rejected where a task is degenerate or ambiguous; the last of its pairs is the test."""
        *shown, test = pairs
        inputs, outputs = zip(*pairs)
        if any(x.min() == x.max() for x in inputs):
            raise Rejected("an input of one colour")
        if len(set(map(key_of, inputs))) < len(inputs):
            raise Rejected("two equal inputs")
        if any(not is_grid(y) for y in outputs) or any(not is_grid(x) for x in inputs):
            raise Rejected("a grid without cells, or with too long a side")
        if len(set(map(key_of, outputs[:-1]))) == 1:
            raise Rejected("all outputs equal")
        # Each row of a grid ends in a character of its own.
        if sum(x.size + len(x) + y.size + len(y) for x, y in shown) > self.prompt:
            raise Rejected("a long prompt")

        # With all colours reversed the program must give the reversed outputs. It does not where, for
        # example, argmax takes the smaller of two equally frequent colours.
        reversed_pairs = [(REVERSAL[x], REVERSAL[y]) for x, y in pairs]
        if not self.fits(permuted(steps, REVERSAL), reversed_pairs):
            raise Rejected("the order of colours decides a tie")
        for i in range(len(steps)):  # a task of one step is compared with no step at all, the identity
            if self.fits(steps[:i] + steps[i + 1 :], shown):
                raise Rejected("a step that changes nothing")
        for rival in self.rivals(steps, pairs):  # if it fits the shown pairs, it must solve the test as well
            if self.fits(rival, shown) and not self.fits(rival, [test]):
                raise Rejected("ambiguous")

    def rivals(self, steps, pairs):
        """Yield steps that could be mistaken for the true ones: one with another parameter, or a sibling."""
        inside = set()
        for x, _ in pairs:
            inside.update(x.ravel().tolist())
        _, output = pairs[0]
        painted = set(output.ravel().tolist())
        choices = sorted(inside - {0}), sorted(painted - {0})
        for i, (name, p) in enumerate(steps):
            for family in self.siblings[name]:
                for other in family.near(p, *choices):
                    yield [*steps[:i], (family.name, other), *steps[i + 1 :]]

    def blind(self, rng):
        """The step of a random family with random parameters: a guess without a look at the task."""
        name = list(self.families)[rng.integers(len(self.families))]
        return [(name, self.families[name].draw(rng))]

    def mistaken(self, task, rng):
        """A wrong program for a task: {"source", "outputs": grids for all its pairs, the test's wrong}.

        In one of four cases it is any program. Otherwise it is one of two steps alone, as often as not, or a
        rival."""
        steps, pairs = parts_of(task)
        near = list(self.rivals(steps, pairs))
        for _ in range(self.tries):
            other = [steps[rng.integers(len(steps))]]
            if rng.random() < 0.25 or not near:
                other = self.blind(rng)
            elif len(steps) == 1 or rng.random() < 0.5:
                other = near[rng.integers(len(near))]
            try:
                outputs = [self.apply(other, x) for x, _ in pairs]
            except FAILS:  # it does not run on these inputs
                continue
            if all(map(is_grid, outputs)) and not np.array_equal(outputs[-1], pairs[-1][1]):
                return {"source": source(self.render(other)), "outputs": [y.tolist() for y in outputs]}
        raise RuntimeError(f"{task['family']}: {self.tries} other programs did not run or gave the same")


def parts_of(task):
    """(steps, pairs of arrays) of a task: the inverse of task_of."""
    p = task["parameters"]
    names = task["family"].split("+")
    steps = [(name, p[name] if len(names) > 1 else p) for name in names]
    pairs = []
    for pair in task["train"] + task["test"]:
        pairs.append((np.array(pair["input"]), np.array(pair["output"])))
    return steps, pairs


def permuted(steps, permutation):
    """The steps with permutation[c] for each colour c among their parameters."""
    changed = []
    for name, p in steps:
        colours = {x: int(permutation[p[x]]) for x in p if x in COLOURS}
        changed.append((name, {**p, **colours}))
    return changed


def is_grid(grid):
    return grid.ndim == 2 and grid.size > 0 and max(grid.shape) <= SIDE


def key_of(grid):
    return grid.shape, grid.tobytes()  # faster to compare than arrays


# ------------------------------------------------------------------------------------------------ worlds
@cache
def open_world(name):
    """The world of this name, small or wide."""
    if name == "small":
        return World(FAMILIES, SMALL_COUPLES, prompt=420)  # with program and markers under 512 tokens
    families = dict(FAMILIES)
    for path in sorted(Path(__file__).parent.glob("wide_*.py")):
        further = import_module(f"games.arc.{path.stem}").FAMILIES
        if twice := families.keys() & further.keys():
            raise ValueError(f"{path}: has families of names that are taken: {', '.join(sorted(twice))}")
        families |= further
    couples = {*SMALL_COUPLES, ("crop", "geometry"), ("crop", "colour")}
    new = families.keys() - FAMILIES.keys()
    unseen = frozenset(name for name in new if zlib.crc32(name.encode()) % 16 == 0)
    return World(families, couples, prompt=1800, larger=0.125, unseen=unseen, tries=100)
