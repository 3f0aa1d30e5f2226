"""The world of ARC: families of small grid transformations, each with the program that solves it.

    task = draw(np.random.default_rng(0))
    task["train"], task["test"], task["program"]

A family draws its inputs and holds its program as a template over `grid`. The names in braces are its
parameters: a and b are colours that every input contains, c is a colour that the program paints, z is the
background, and k and n are small numbers with values of their own, some of them held out. Drawn tasks have
background 0; because it is a parameter, a task can be recoloured under any permutation of the ten colours.
For the same reason no program depends on the order of colours (`check` rejects ties that it would break).

To add a family, call `add` below with a name, the function that draws its inputs, and the body of its
program, which ends in its only `return`. Keep to the idioms of the other families: a very small model can
learn the programs because the same idea is written in the same words everywhere."""

import itertools
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from string import Formatter

import numpy as np

from games.arc.grids import SIDE
from games.arc.prompts import source

PAIRS = 4  # pairs of a task; the last one is its test
PROMPT = 420  # most cells and row ends in the shown pairs: with program and markers under 512 tokens
TRIES = 1000  # rejected draws in a row after which a family counts as broken
REVERSAL = np.arange(10)[::-1]  # a permutation of colours that reverses every order of them
COLOURS = "abcz"  # the parameters that are colours


class Rejected(ValueError):
    """The drawn task breaks a rule: draw another."""


@dataclass
class Family:
    name: str
    inputs: object  # (rng, parameters) -> grid
    body: str
    kind: str  # families of one kind can be mistaken for each other; "geometry" and "colour" compose
    values: dict  # k, n -> (values to train on, held-out values; where there are none, the first serve both)

    def __post_init__(self):
        names = [name for _, name, _, _ in Formatter().parse(self.body) if name]
        self.fields = list(dict.fromkeys(names))  # each once, in order of first use
        self.has_held_out = any(held_out for _, held_out in self.values.values())

    def draw(self, rng, held_out=False):
        """Random parameters: different colours, none of them the background, and values of k and n."""
        colours = iter((rng.permutation(9) + 1).tolist())
        p = {}
        for x in self.fields:
            if x in COLOURS:
                p[x] = 0 if x == "z" else next(colours)
            else:
                usual, unseen = self.values[x]
                p[x] = int(rng.choice(unseen if held_out and unseen else usual))
        return p

    def near(self, p, inside, painted):
        """Yield the parameters of this family that differ from p in at most one value.

        A parameter that p lacks is free. a and b take the colours `inside` the inputs, c those `painted` in
        an output."""
        choices = {"a": inside, "b": inside, "c": painted, "z": [0]}
        for x, (usual, held_out) in self.values.items():
            choices[x] = [*usual, *held_out]
        for values in itertools.product(*(choices[x] for x in self.fields)):
            other = dict(zip(self.fields, values))
            changed = [x for x in other if p.get(x, other[x]) != other[x]]
            colours = [other[x] for x in other if x in COLOURS]
            if len(changed) < 2 and len(set(colours)) == len(colours):
                yield other


# ------------------------------------------------------------------------------------------------ inputs
# Each takes (rng, p) and returns a grid, with sides from low to high. p holds the parameters of the family,
# and p["palette"] further colours of the task.
def palette(rng, p, n, background=False):
    """n colours of the task, first those that every input needs."""
    needed = [p[x] for x in "ab" if x in p]
    others = p["palette"] + [0] * background
    return np.array((needed + rng.permutation(others).tolist())[:n])


def sow(rng, grid, p):
    """The grid with each colour that every input needs on a random cell."""
    needed = [p[x] for x in "ab" if x in p]
    cells = rng.permutation(grid.size)
    grid.flat[cells[: len(needed)]] = needed
    return grid


def dense(rng, p, low=3, high=5):
    """Three to five colours, maybe with the background, in equal parts."""
    colours = palette(rng, p, rng.integers(3, 6), background=True)
    shape = rng.integers(low, high + 1, 2)
    grid = colours[rng.integers(len(colours), size=shape)]
    return sow(rng, grid, p)


def mixed(rng, p, low=3, high=6, n=3, share=0.5):
    """n colours on a share of the cells, background elsewhere."""
    colours = palette(rng, p, n)
    shape = rng.integers(low, high + 1, 2)
    grid = colours[rng.integers(n, size=shape)]
    grid = grid * (rng.random(shape) < share)
    return sow(rng, grid, p)


def counted(rng, p):
    """At least three colours, no two of them equally often: the counts decide without a tie."""
    while True:
        grid = dense(rng, p)
        counts = np.unique(grid, return_counts=True)[1].tolist()
        if len(counts) > 2 and len(set(counts)) == len(counts):
            return grid


def scattered(rng, p, few=2, many=3):
    """Between `few` and `many` pixels, each alone in its row and its column."""
    grid = np.zeros(rng.integers(4, 7, 2), int)
    n = rng.integers(few, many + 1)
    rows = rng.permutation(grid.shape[0])[:n]
    columns = rng.permutation(grid.shape[1])[:n]
    grid[rows, columns] = palette(rng, p, n)
    return grid


def place(rng, part):
    """`part` somewhere on a larger background."""
    return np.pad(part, rng.integers(0, 3, (2, 2)).tolist())


def patch(rng, p):
    part = mixed(rng, p, 2, 4, share=0.7)
    # Every side has a pixel, so that the bounding box is the whole part.
    part[rng.integers(len(part)), [0, -1]] = palette(rng, p, 1)
    part[[0, -1], rng.integers(part.shape[1])] = palette(rng, p, 1)
    return place(rng, part)


def rectangle(rng, p, inside=True):
    part = np.full(rng.integers(3, 6, 2), palette(rng, p, 1))
    if not inside:
        part[1:-1, 1:-1] = 0
    return place(rng, part)


def framed(rng, p):
    """A closed frame of colour a, with other colours inside and around it."""
    grid = mixed(rng, {"palette": p["palette"]}, 5, 7)
    top, left = rng.integers(0, 2, 2)
    height, width = rng.integers(4, np.array(grid.shape) + 1)
    part = grid[top : top + height, left : left + width]
    part[[0, -1]] = p["a"]
    part[:, [0, -1]] = p["a"]
    return grid


def halves(rng, p):
    """Two parts of equal shape, left and right of a line; half of their cells are background."""
    line, *colours = p["palette"][:3]
    colours = np.array([0, 0, *colours])
    height = rng.integers(3, 6)
    middle = rng.integers(2, 4)
    grid = colours[rng.integers(4, size=(height, 2 * middle + 1))]
    grid[:, middle] = line
    return grid


def lined(rng, p, axis=0):
    """Two parts of any shape on both sides of a line of colour a, which is upright for axis 0."""
    grid = mixed(rng, {"palette": p["palette"]}, 4, 6)
    upright = grid.T if axis else grid  # a view: the line lands in grid
    upright[:, rng.integers(1, upright.shape[1] - 1)] = p["a"]
    return grid


def in_parts(rng, p):
    """k parts of equal shape along axis n."""
    shape = rng.integers(2, 4, 2)
    shape[p["n"]] *= p["k"]
    colours = palette(rng, p, 4, background=True)
    return colours[rng.integers(4, size=shape)]


square = lambda rng, p: mixed(rng, p, p["k"], p["k"], share=0.6)
enlarged = lambda rng, p: tiny(rng, p).repeat(p["k"], 0).repeat(p["k"], 1)
bordered = lambda rng, p: dense(rng, p, 2 * p["k"] + 1, 2 * p["k"] + 3)
tiny = partial(dense, low=2, high=3)
small = partial(dense, low=2, high=4)
wide = partial(dense, low=4, high=6)
single = partial(mixed, n=1)
sparse = partial(mixed, low=4, high=6, n=2, share=0.15)
hollow = partial(rectangle, inside=False)
lying = partial(lined, axis=1)

# ------------------------------------------------------------------------------------------------ families
# Frequent values of k and n: (values to train on, held-out values)
AXIS = (0, 1), ()
INDEX = (0, 1, 2), (3,)
FROM_1 = (1, 2), (3,)
FROM_2 = (2, 3), (4,)

FAMILIES = {}


def add(name, inputs, body, kind="", **values):
    assert name not in FAMILIES, name
    FAMILIES[name] = Family(name, inputs, body, kind, values)


# Geometry moves cells and takes any grid, whatever its colours.
geometry = partial(add, kind="geometry")
geometry("flip_up_down", dense, "return grid[::-1]")
geometry("flip_left_right", dense, "return grid[:, ::-1]")
geometry("half_turn", dense, "return grid[::-1, ::-1]")
geometry("transpose", dense, "return grid.T")
geometry("transpose_back", dense, "return grid[::-1, ::-1].T")
geometry("turn", dense, "return np.rot90(grid, {k})", k=((1, 3), ()))
geometry("roll", wide, "return np.roll(grid, {k}, {n})", k=FROM_1, n=AXIS)
geometry("pad", small, "return np.pad(grid, {k}, constant_values={c})", k=FROM_1)
geometry("stretch", small, "return grid.repeat({k}, {n})", k=FROM_2, n=AXIS)
geometry("enlarge", tiny, "return grid.repeat({k}, 0).repeat({k}, 1)", k=FROM_2)
geometry("tile", small, "return np.tile(grid, ({k}, {n}))", k=((1, 2, 3), ()), n=FROM_1)
geometry("mirror_right", small, "return np.hstack([grid, grid[:, ::-1]])")
geometry("mirror_left", small, "return np.hstack([grid[:, ::-1], grid])")
geometry("mirror_down", small, "return np.vstack([grid, grid[::-1]])")
geometry("mirror_up", small, "return np.vstack([grid[::-1], grid])")
geometry("four_way", small, "grid = np.hstack([grid, grid[:, ::-1]])\nreturn np.vstack([grid, grid[::-1]])")

# Mostly parts cut out of the grid.
crop = partial(add, kind="crop")
crop("shrink", enlarged, "return grid[::{k}, ::{k}]", k=FROM_2)
crop("inner", bordered, "return grid[{k}:-{k}, {k}:-{k}]", k=((1,), (2,)))
crop("part", in_parts, "return np.split(grid, {k}, {n})[0]", k=((2,), (3,)), n=AXIS)
crop("last_part", in_parts, "return np.split(grid, {k}, {n})[-1]", k=((2,), (3,)), n=AXIS)
crop("cut_top", wide, "return grid[{k}:]", k=FROM_1)
crop("cut_left", wide, "return grid[:, {k}:]", k=FROM_1)
crop("corner", wide, "return grid[:{k}, :{k}]", k=FROM_1)
crop("row", wide, "return grid[[{k}]]", k=INDEX)
crop("column", wide, "return grid[:, [{k}]]", k=INDEX)
# Each cell becomes a copy of the whole grid, or stays background.
LARGE = "out = grid.repeat({k}, 0).repeat({k}, 1)\n"
add("fractal", square, LARGE + "return np.where(out == {z}, {z}, np.tile(grid, ({k}, {k})))", k=((3,), (2,)))

# Colours change and cells stay where they are.
colour = partial(add, kind="colour")
colour("replace", dense, "return np.where(grid == {a}, {c}, grid)")
colour("swap", dense, "return np.where(grid == {a}, {b}, np.where(grid == {b}, {a}, grid))")
colour("chain", dense, "return np.where(grid == {a}, {b}, np.where(grid == {b}, {c}, grid))")
colour("merge", dense, "return np.where((grid == {a}) | (grid == {b}), {c}, grid)")
colour("keep", mixed, "return np.where(grid == {a}, {a}, {z})")
colour("delete", mixed, "return np.where(grid == {a}, {z}, grid)")
colour("paint", mixed, "return np.where(grid == {z}, {z}, {c})")
colour("background", mixed, "return np.where(grid == {z}, {c}, grid)")
colour("negative", single, "return np.where(grid == {z}, {a}, {z})")
# No two counts are equal (see counted), so argmax and argsort have no tie to break.
COUNTS = "colours, counts = np.unique(grid, return_counts=True)\n"
colour("most", counted, COUNTS + "return np.where(grid == colours[counts.argmax()], {c}, grid)")
colour("least", counted, COUNTS + "return np.where(grid == colours[counts.argmin()], {c}, grid)")
add("all_most", counted, COUNTS + "return np.full_like(grid, colours[counts.argmax()])")
crop("solid", counted, COUNTS + "return np.full(({k}, {k}), colours[counts.argmax()])", k=FROM_1)
add("ranking", counted, COUNTS + "return colours[counts.argsort()][None]")  # a row, the rarest first
add(
    "ranking_back", counted, COUNTS + "return colours[counts.argsort()][::-1, None]"
)  # a column, the commonest first

# The bounding box of all that is not background, or of colour a.
BOX = "i, j = np.nonzero(grid {equal} {colour})\n"
CROP = "return grid[i.min():i.max() + 1, j.min():j.max() + 1]"
SHAPE = BOX.format(equal="!=", colour="{z}")
OF_A = BOX.format(equal="==", colour="{a}")
crop("crop", patch, SHAPE + CROP)
crop("crop_colour", partial(mixed, low=4, high=6), OF_A + CROP)
crop("inside", framed, OF_A + "return grid[i.min() + 1:i.max(), j.min() + 1:j.max()]")
# The first column (%d = 0) or row (%d = 1) of nothing but colour a.
LINE = "j = (grid == {a}).all(%d).argmax()\n"
crop("left", lined, LINE % 0 + "return grid[:, :j]")
crop("right", lined, LINE % 0 + "return grid[:, j + 1:]")
crop("above", lying, LINE % 1 + "return grid[:j]")
crop("below", lying, LINE % 1 + "return grid[j + 1:]")
# Two halves laid on each other, cell by cell.
HALVES = "j = grid.shape[1] // 2\nleft = grid[:, :j]\nright = grid[:, j + 1:]\n"
add("both", halves, HALVES + "return np.where((left != {z}) & (right != {z}), {c}, {z})")
add("either", halves, HALVES + "return np.where((left != {z}) | (right != {z}), {c}, {z})")
add("one_only", halves, HALVES + "return np.where((left != {z}) ^ (right != {z}), {c}, {z})")
add("neither", halves, HALVES + "return np.where((left == {z}) & (right == {z}), {c}, {z})")
add("left_only", halves, HALVES + "return np.where((left != {z}) & (right == {z}), {c}, {z})")
add("overlay", halves, HALVES + "return np.where(left == {z}, right, left)")

# A stable sort of each column or row by "is it background?" keeps the order of the pixels.
FALL = 'return np.take_along_axis(grid, (grid {equal} {{z}}).argsort({axis}, kind="stable"), {axis})'
add("fall_down", mixed, FALL.format(equal="!=", axis=0))
add("fall_up", mixed, FALL.format(equal="==", axis=0))
add("fall_right", mixed, FALL.format(equal="!=", axis=1))
add("fall_left", mixed, FALL.format(equal="==", axis=1))
COPY = "out = grid.copy()\n"
DONE = "\nreturn out"
# Drawn for each pixel, which is alone in its row and column (see scattered): the order makes no difference.
EACH = COPY + "for i, j in np.argwhere(grid != {z}):\n    "
add("rows", scattered, EACH + "out[i] = grid[i, j]" + DONE)
add("columns", scattered, EACH + "out[:, j] = grid[i, j]" + DONE)
add("ray_down", scattered, EACH + "out[i:, j] = grid[i, j]" + DONE)
add("ray_up", scattered, EACH + "out[:i, j] = grid[i, j]" + DONE)
add("ray_right", scattered, EACH + "out[i, j:] = grid[i, j]" + DONE)
add("ray_left", scattered, EACH + "out[i, :j] = grid[i, j]" + DONE)
# One pixel: the crosses of two would overlap.
add("cross", partial(scattered, few=1, many=1), EACH + "out[i] = out[:, j] = grid[i, j]" + DONE)
RING = "out[max(i - {k}, 0):i + {k} + 1, max(j - {k}, 0):j + {k} + 1] = {c}\n"
add("halo", sparse, EACH + RING + "return np.where(grid == {z}, out, grid)", k=((1,), (2,)))
add("paint_rows", sparse, "return np.where((grid != {z}).any(1, keepdims=True), {c}, {z})")
add("paint_columns", sparse, "return np.where((grid != {z}).any(0, keepdims=True), {c}, {z})")
add("frame", dense, COPY + "out[0] = out[-1] = {c}\nout[:, 0] = out[:, -1] = {c}" + DONE)
add("diagonal", wide, COPY + "np.fill_diagonal(out, {c})" + DONE)
add("diagonal_back", wide, COPY + "np.fill_diagonal(out[:, ::-1], {c})" + DONE)
add("row_stripes", wide, COPY + "out[::{k}] = {c}" + DONE, k=FROM_2)
add("column_stripes", wide, COPY + "out[:, ::{k}] = {c}" + DONE, k=FROM_2)
add("checkerboard", dense, COPY + "out[::2, ::2] = out[1::2, 1::2] = {c}" + DONE)
add("hollow_out", rectangle, SHAPE + COPY + "out[i.min() + 1:i.max(), j.min() + 1:j.max()] = {z}" + DONE)
add("fill", hollow, SHAPE + COPY + "out[i.min() + 1:i.max(), j.min() + 1:j.max()] = {c}" + DONE)
add("span", scattered, SHAPE + COPY + "out[i.min():i.max() + 1, j.min():j.max() + 1] = {c}" + DONE)
add("complete", mixed, "return np.where(grid == {z}, grid[:, ::-1], grid)")
add("complete_down", mixed, "return np.where(grid == {z}, grid[::-1], grid)")

add("count_row", dense, "return np.full((1, (grid == {a}).sum()), {a})")
add("count_column", dense, "return np.full(((grid == {a}).sum(), 1), {a})")
add("sort_rows", mixed, 'return grid[(grid != {z}).sum(1).argsort(kind="stable")]')
add("sort_columns", mixed, 'return grid[:, (grid != {z}).sum(0).argsort(kind="stable")]')
crop("drop_rows", sparse, "return grid[(grid != {z}).any(1)]")
crop("drop_columns", sparse, "return grid[:, (grid != {z}).any(0)]")
crop("fullest_row", mixed, "return grid[[(grid != {z}).sum(1).argmax()]]")


# ------------------------------------------------------------------------------------------------ programs
# A task is a list of steps, (family name, parameters): one step, or two for a composition.
@lru_cache(100_000)  # the search for rivals runs the same members again and again
def member(name, *values):
    """The compiled program of a family with these values of its parameters, in the order of its fields.

    Only code of this file runs here without a sandbox; what a model writes goes to games/sandbox."""
    family = FAMILIES[name]
    p = dict(zip(family.fields, values))
    scope = {"np": np}
    exec(source(family.body.format(**p)), scope)
    return scope["task"]


def render(steps):
    """The program of the steps in one body: what the first would return becomes the grid of the second."""
    *first, last = [FAMILIES[name].body.format(**p) for name, p in steps]
    return "\n".join([body.replace("return ", "grid = ") for body in first] + [last])


def apply(steps, grid):
    """The output of the steps, the same as that of the program rendered from them."""
    for name, p in steps:
        grid = member(name, *p.values())(grid)
    return grid


def fits(steps, pairs):
    """Whether the steps give the output of every pair; False where they cannot take an input."""
    try:
        return all(key_of(apply(steps, x)) == key_of(y) for x, y in pairs)
    except (IndexError, ValueError):
        return False


def key_of(grid):
    return grid.shape, grid.tobytes()  # faster to compare than arrays


# ------------------------------------------------------------------------------------------------ tasks
def draw(rng, held_out=False, compositions=0.0):
    """A random task: of one family, or of two in a row with the chance `compositions`. A rejected draw is
    followed by another of the same families.

    held_out: only families with held-out values, which then take these; for compositions, only the pairs of
    HELD_OUT_COUPLES, with usual values: what is new is the pair."""
    couple = rng.random() < compositions
    choices = drawn_from(couple, held_out)
    names = choices[rng.integers(len(choices))]
    for _ in range(TRIES):
        try:
            return make(names, rng, held_out and not couple)
        except Rejected as error:
            reason = error
    raise RuntimeError(f"{names}: {TRIES} draws in a row rejected, the last for {reason}")


def make(names, rng, held_out=False):
    """A task of one family, or of two in the order given. Raises Rejected where the draw breaks a rule."""
    steps = [(name, FAMILIES[name].draw(rng, held_out)) for name in names]
    # The colour step draws the inputs, because geometry takes any grid.
    of_colour = [step for step in steps if FAMILIES[step[0]].kind == "colour"]
    name, p = (of_colour or steps)[0]
    others = [c for c in (rng.permutation(9) + 1).tolist() if c not in (p.get("a"), p.get("b"))]
    parameters = {**p, "palette": others[:4]}
    pairs = []
    for _ in range(PAIRS):
        x = FAMILIES[name].inputs(rng, parameters)
        pairs.append((x, apply(steps, x)))
    check(steps, pairs)
    return task_of(steps, pairs)


def task_of(steps, pairs):
    """The task as plain dicts and lists. The parameters of a composition stand under the families' names."""
    lists = [{"input": x.tolist(), "output": y.tolist()} for x, y in pairs]
    return {
        "train": lists[:-1],
        "test": lists[-1:],
        "program": render(steps),
        "family": "+".join(name for name, _ in steps),
        "parameters": dict(steps) if len(steps) > 1 else steps[0][1],
    }


def parts_of(task):
    """(steps, pairs of arrays) of a task: the inverse of task_of."""
    p = task["parameters"]
    names = task["family"].split("+")
    steps = [(name, p[name] if len(names) > 1 else p) for name in names]
    pairs = []
    for pair in task["train"] + task["test"]:
        pairs.append((np.array(pair["input"]), np.array(pair["output"])))
    return steps, pairs


def check(steps, pairs):
    """Raise Rejected where a task is degenerate or ambiguous; the last of its pairs is the test."""
    *shown, test = pairs
    inputs, outputs = zip(*pairs)
    if any(x.min() == x.max() for x in inputs):
        raise Rejected("an input of one colour")
    if len(set(map(key_of, inputs))) < len(inputs):
        raise Rejected("two equal inputs")
    if any(not y.size or max(y.shape) > SIDE for y in outputs):
        raise Rejected("an output without cells, or with too long a side")
    if len(set(map(key_of, outputs[:-1]))) == 1:
        raise Rejected("all outputs equal")
    # Each row of a grid ends in a character of its own.
    if sum(x.size + len(x) + y.size + len(y) for x, y in shown) > PROMPT:
        raise Rejected("a long prompt")

    # With all colours reversed the program must give the reversed outputs. It does not where, for example,
    # argmax takes the smaller of two equally frequent colours.
    reversed_pairs = [(REVERSAL[x], REVERSAL[y]) for x, y in pairs]
    if not fits(permuted(steps, REVERSAL), reversed_pairs):
        raise Rejected("the order of colours decides a tie")
    for i in range(len(steps)):  # a task of one step is compared with no step at all, the identity
        if fits(steps[:i] + steps[i + 1 :], shown):
            raise Rejected("a step that changes nothing")
    for rival in rivals(steps, pairs):  # one that fits the shown pairs must give the same answer to the test
        if fits(rival, shown) and not fits(rival, [test]):
            raise Rejected("ambiguous")


def permuted(steps, permutation):
    """The steps with permutation[c] for each colour c among their parameters."""
    changed = []
    for name, p in steps:
        colours = {x: int(permutation[p[x]]) for x in p if x in COLOURS}
        changed.append((name, {**p, **colours}))
    return changed


@cache
def siblings(name):
    """The families whose tasks look alike: of the same kind, or without a kind and of the same inputs."""
    family = FAMILIES[name]
    alike = lambda other: other.kind == family.kind and (family.kind or other.inputs is family.inputs)
    return list(filter(alike, FAMILIES.values()))


def rivals(steps, pairs):
    """Yield steps that could be mistaken for the true ones: one step with another parameter, or a sibling."""
    inside = set()
    for x, _ in pairs:
        inside.update(x.ravel().tolist())
    _, output = pairs[0]
    painted = set(output.ravel().tolist())
    choices = sorted(inside - {0}), sorted(painted - {0})
    for i, (name, p) in enumerate(steps):
        for family in siblings(name):
            for other in family.near(p, *choices):
                yield [*steps[:i], (family.name, other), *steps[i + 1 :]]


COUPLES = [
    (first.name, second.name)
    for first, second in itertools.permutations(FAMILIES.values(), 2)
    if {first.kind, second.kind} == {"geometry", "colour"}
]
# Compositions kept for evaluation, about a fifth. The hash is of the two sorted names, because most
# compositions do the same in both orders.
HELD_OUT_COUPLES = frozenset(p for p in COUPLES if zlib.crc32(" ".join(sorted(p)).encode()) % 5 == 0)


@cache
def drawn_from(couple, held_out):
    """The families that `draw` chooses from, as tuples of one name or two."""
    if couple:
        return [names for names in COUPLES if (names in HELD_OUT_COUPLES) == held_out]
    return [(name,) for name, family in FAMILIES.items() if family.has_held_out or not held_out]


def blind(rng):
    """The step of a random family with random parameters: a guess without a look at the task."""
    name = list(FAMILIES)[rng.integers(len(FAMILIES))]
    return [(name, FAMILIES[name].draw(rng))]


def mistaken(task, rng):
    """A wrong program for a task: {"source", "outputs": grids for all its pairs, the test's wrong}.

    In one of four cases it is any program. Otherwise it is one of two steps alone, as often as not, or a
    rival."""
    steps, pairs = parts_of(task)
    near = list(rivals(steps, pairs))
    for _ in range(TRIES):
        other = [steps[rng.integers(len(steps))]]
        if rng.random() < 0.25 or not near:
            other = blind(rng)
        elif len(steps) == 1 or rng.random() < 0.5:
            other = near[rng.integers(len(near))]
        try:
            outputs = [apply(other, x) for x, _ in pairs]
        except (IndexError, ValueError):  # it does not run on these inputs
            continue
        fine = all(y.ndim == 2 and y.size and max(y.shape) <= SIDE for y in outputs)
        if fine and not np.array_equal(outputs[-1], pairs[-1][1]):
            return {"source": source(render(other)), "outputs": [y.tolist() for y in outputs]}
    raise RuntimeError(f"{task['family']}: {TRIES} other programs in a row did not run or gave the same")
