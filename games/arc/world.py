"""The world of ARC: families of small grid transformations, each with the program that solves it.

    task = draw(np.random.default_rng(0))
    task["train"], task["test"], task["program"]

A family says how its inputs are drawn and holds its program as a template over `grid`. Its parameters are
the names in braces: a and b are colours that every input contains, c is a colour that the program paints, z
is the background, and k and n are small numbers with values of their own, some of which are held out. Drawn
tasks have background 0; as a parameter it lets a task be recoloured under all permutations of the ten
colours. For the same reason no program depends on the order of colours (make rejects ties that would).

A new family is one call of `add` below: a name, the drawing of its inputs, the body of its program. The body
ends in its only `return`. Keep to the idioms of the others: the same words for the same idea, on every line,
are what makes the programs learnable for a very small model."""

import itertools
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from string import Formatter

import numpy as np

from games.arc.grids import SIDE
from games.arc.prompts import source

PAIRS = 4  # of a task, the last its test
PROMPT = 420  # cells and row ends of the shown pairs: with program and markers below 512 tokens
TRIES = 1000  # draws until a family counts as broken
REVERSAL = np.arange(10)[::-1]  # a permutation of colours that turns every order of them around
COLOURS = "abcz"  # parameters that are colours


class Rejected(ValueError):
    """The drawn task breaks a rule: draw another."""


@dataclass
class Family:
    name: str
    inputs: object  # (rng, parameters) -> grid
    body: str
    kind: str  # families that may be taken for each other; those of geometry and colour compose
    values: dict  # k, n -> (values to train on, values held out; where there are none the first serve both)

    def __post_init__(self):
        self.fields = list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.body) if name))
        self.has_held_out = any(held for _, held in self.values.values())

    def draw(self, rng, held_out=False):
        """Parameters: other colours than the background, all different, and values of k and n."""
        colours = iter((rng.permutation(9) + 1).tolist())
        choose = lambda usual, held: int(rng.choice(held if held_out and held else usual))
        colour = lambda x: 0 if x == "z" else next(colours)
        return {x: colour(x) if x in COLOURS else choose(*self.values[x]) for x in self.fields}

    def near(self, p, inside, painted):
        """Parameters of the family that differ from p in at most one, those that p lacks being free: a and b
        from the colours `inside`, c from `painted`."""
        choices = {"a": inside, "b": inside, "c": painted, "z": [0]}
        choices |= {x: [*usual, *held] for x, (usual, held) in self.values.items()}
        for values in itertools.product(*(choices[x] for x in self.fields)):
            found = dict(zip(self.fields, values))
            colours = [v for x, v in found.items() if x in COLOURS]
            if sum(p.get(x, v) != v for x, v in found.items()) < 2 and len(set(colours)) == len(colours):
                yield found


# ------------------------------------------------------------------------------------------------ inputs
# (rng, p) -> grid, for parameters p, with p["palette"]: other colours of the task; sides from low to high
def palette(rng, p, n, background=False):
    """n colours of the task, those that every input needs first."""
    needed = [p[x] for x in "ab" if x in p]
    others = p["palette"] + [0] * background
    return np.array((needed + rng.permutation(others).tolist())[:n])


def sow(rng, grid, p):
    """The colours that every input needs, each on a cell of its own."""
    needed = [p[x] for x in "ab" if x in p]
    grid.flat[rng.permutation(grid.size)[: len(needed)]] = needed
    return grid


def dense(rng, p, low=3, high=5):
    colours = palette(rng, p, rng.integers(3, 6), background=True)
    return sow(rng, colours[rng.integers(len(colours), size=rng.integers(low, high + 1, 2))], p)


def mixed(rng, p, low=3, high=6, n=3, share=0.5):
    """n colours on a share of the cells, background elsewhere."""
    colours = palette(rng, p, n)
    shape = rng.integers(low, high + 1, 2)
    grid = colours[rng.integers(n, size=shape)] * (rng.random(shape) < share)
    return sow(rng, grid, p)


def counted(rng, p):
    """Three or four colours, no two of them equally often."""
    while True:
        grid = dense(rng, p)
        counts = np.unique(grid, return_counts=True)[1].tolist()
        if len(counts) > 2 and len(set(counts)) == len(counts):
            return grid


def scattered(rng, p, few=2, many=3):
    """Two or three pixels, each alone in its row and its column."""
    grid, n = np.zeros(rng.integers(4, 7, 2), int), rng.integers(few, many + 1)
    rows, columns = rng.permutation(grid.shape[0])[:n], rng.permutation(grid.shape[1])[:n]
    grid[rows, columns] = palette(rng, p, n)
    return grid


def place(rng, part):
    """`part` somewhere on a larger background."""
    return np.pad(part, rng.integers(0, 3, (2, 2)).tolist())


def patch(rng, p):
    part = mixed(rng, p, 2, 4, share=0.7)
    part[rng.integers(len(part)), [0, -1]] = palette(rng, p, 1)
    part[[0, -1], rng.integers(part.shape[1])] = palette(rng, p, 1)
    return place(rng, part)


def rectangle(rng, p, inside=True):
    part = np.full(rng.integers(3, 6, 2), palette(rng, p, 1))
    if not inside:
        part[1:-1, 1:-1] = 0
    return place(rng, part)


def framed(rng, p):
    """A closed frame of colour a, other colours inside and around it."""
    grid = mixed(rng, {"palette": p["palette"]}, 5, 7)
    (top, left), (height, width) = rng.integers(0, 2, 2), rng.integers(4, np.array(grid.shape) + 1)
    part = grid[top : top + height, left : left + width]
    part[[0, -1]] = part[:, [0, -1]] = p["a"]
    return grid


def halves(rng, p):
    """Two parts of equal shape, left and right of a line."""
    line, *colours = p["palette"][:3]
    grid = np.array([0, 0, *colours])[rng.integers(4, size=(rng.integers(3, 6), 2 * rng.integers(2, 4) + 1))]
    grid[:, grid.shape[1] // 2] = line
    return grid


def lined(rng, p, axis=0):
    """Two parts of any shape on both sides of a line of colour a, upright for axis 0."""
    grid = mixed(rng, {"palette": p["palette"]}, 4, 6)
    (grid.T if axis else grid)[:, rng.integers(1, grid.shape[1 - axis] - 1)] = p["a"]
    return grid


def in_parts(rng, p):
    shape = rng.integers(2, 4, 2)
    shape[p["n"]] *= p["k"]
    return palette(rng, p, 4, background=True)[rng.integers(4, size=shape)]


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
FAMILIES = {}


def add(name, inputs, body, kind="", **values):
    assert name not in FAMILIES, name
    FAMILIES[name] = Family(name, inputs, body, kind, values)


geometry = partial(add, kind="geometry")
geometry("flip_up_down", dense, "return grid[::-1]")
geometry("flip_left_right", dense, "return grid[:, ::-1]")
geometry("half_turn", dense, "return grid[::-1, ::-1]")
geometry("transpose", dense, "return grid.T")
geometry("transpose_back", dense, "return grid[::-1, ::-1].T")
geometry("turn", dense, "return np.rot90(grid, {k})", k=((1, 3), ()))
geometry("roll", wide, "return np.roll(grid, {k}, {n})", k=((1, 2), (3,)), n=((0, 1), ()))
geometry("pad", small, "return np.pad(grid, {k}, constant_values={c})", k=((1, 2), (3,)))
geometry("stretch", small, "return grid.repeat({k}, {n})", k=((2, 3), (4,)), n=((0, 1), ()))
geometry("enlarge", tiny, "return grid.repeat({k}, 0).repeat({k}, 1)", k=((2, 3), (4,)))
geometry("tile", small, "return np.tile(grid, ({k}, {n}))", k=((1, 2, 3), ()), n=((1, 2), (3,)))
geometry("mirror_right", small, "return np.hstack([grid, grid[:, ::-1]])")
geometry("mirror_left", small, "return np.hstack([grid[:, ::-1], grid])")
geometry("mirror_down", small, "return np.vstack([grid, grid[::-1]])")
geometry("mirror_up", small, "return np.vstack([grid[::-1], grid])")
geometry("four_way", small, "grid = np.hstack([grid, grid[:, ::-1]])\nreturn np.vstack([grid, grid[::-1]])")

crop = partial(add, kind="crop")
crop("shrink", enlarged, "return grid[::{k}, ::{k}]", k=((2, 3), (4,)))
crop("inner", bordered, "return grid[{k}:-{k}, {k}:-{k}]", k=((1,), (2,)))
crop("part", in_parts, "return np.split(grid, {k}, {n})[0]", k=((2,), (3,)), n=((0, 1), ()))
crop("last_part", in_parts, "return np.split(grid, {k}, {n})[-1]", k=((2,), (3,)), n=((0, 1), ()))
crop("cut_top", wide, "return grid[{k}:]", k=((1, 2), (3,)))
crop("cut_left", wide, "return grid[:, {k}:]", k=((1, 2), (3,)))
crop("corner", wide, "return grid[:{k}, :{k}]", k=((1, 2), (3,)))
crop("row", wide, "return grid[[{k}]]", k=((0, 1, 2), (3,)))
crop("column", wide, "return grid[:, [{k}]]", k=((0, 1, 2), (3,)))
LARGE = "out = grid.repeat({k}, 0).repeat({k}, 1)\n"
add("fractal", square, LARGE + "return np.where(out == {z}, {z}, np.tile(grid, ({k}, {k})))", k=((3,), (2,)))

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
COUNTS = "colours, counts = np.unique(grid, return_counts=True)\n"
colour("most", counted, COUNTS + "return np.where(grid == colours[counts.argmax()], {c}, grid)")
colour("least", counted, COUNTS + "return np.where(grid == colours[counts.argmin()], {c}, grid)")
add("all_most", counted, COUNTS + "return np.full_like(grid, colours[counts.argmax()])")
crop("solid", counted, COUNTS + "return np.full(({k}, {k}), colours[counts.argmax()])", k=((1, 2), (3,)))
add("ranking", counted, COUNTS + "return colours[counts.argsort()][None]")  # rarest first, a row
add("ranking_back", counted, COUNTS + "return colours[counts.argsort()][::-1, None]")  # a column

BOX = "i, j = np.nonzero(grid {equal} {colour})\n"
CROP = "return grid[i.min():i.max() + 1, j.min():j.max() + 1]"
SHAPE, OF_A = BOX.format(equal="!=", colour="{z}"), BOX.format(equal="==", colour="{a}")
crop("crop", patch, SHAPE + CROP)
crop("crop_colour", partial(mixed, low=4, high=6), OF_A + CROP)
crop("inside", framed, OF_A + "return grid[i.min() + 1:i.max(), j.min() + 1:j.max()]")
LINE = "j = (grid == {a}).all(%d).argmax()\n"
crop("left", lined, LINE % 0 + "return grid[:, :j]")
crop("right", lined, LINE % 0 + "return grid[:, j + 1:]")
crop("above", lying, LINE % 1 + "return grid[:j]")
crop("below", lying, LINE % 1 + "return grid[j + 1:]")
HALVES = "j = grid.shape[1] // 2\nleft = grid[:, :j]\nright = grid[:, j + 1:]\n"
add("both", halves, HALVES + "return np.where((left != {z}) & (right != {z}), {c}, {z})")
add("either", halves, HALVES + "return np.where((left != {z}) | (right != {z}), {c}, {z})")
add("one_only", halves, HALVES + "return np.where((left != {z}) ^ (right != {z}), {c}, {z})")
add("neither", halves, HALVES + "return np.where((left == {z}) & (right == {z}), {c}, {z})")
add("left_only", halves, HALVES + "return np.where((left != {z}) & (right == {z}), {c}, {z})")
add("overlay", halves, HALVES + "return np.where(left == {z}, right, left)")

FALL = 'return np.take_along_axis(grid, (grid {equal} {{z}}).argsort({axis}, kind="stable"), {axis})'
add("fall_down", mixed, FALL.format(equal="!=", axis=0))  # the stable sort keeps the order of pixels
add("fall_up", mixed, FALL.format(equal="==", axis=0))
add("fall_right", mixed, FALL.format(equal="!=", axis=1))
add("fall_left", mixed, FALL.format(equal="==", axis=1))
COPY, DONE = "out = grid.copy()\n", "\nreturn out"
EACH = COPY + "for i, j in np.argwhere(grid != {z}):\n    "
add("rows", scattered, EACH + "out[i] = grid[i, j]" + DONE)
add("columns", scattered, EACH + "out[:, j] = grid[i, j]" + DONE)
add("ray_down", scattered, EACH + "out[i:, j] = grid[i, j]" + DONE)
add("ray_up", scattered, EACH + "out[:i, j] = grid[i, j]" + DONE)
add("ray_right", scattered, EACH + "out[i, j:] = grid[i, j]" + DONE)
add("ray_left", scattered, EACH + "out[i, :j] = grid[i, j]" + DONE)
add("cross", partial(scattered, few=1, many=1), EACH + "out[i] = out[:, j] = grid[i, j]" + DONE)
RING = "out[max(i - {k}, 0):i + {k} + 1, max(j - {k}, 0):j + {k} + 1] = {c}\n"
add("halo", sparse, EACH + RING + "return np.where(grid == {z}, out, grid)", k=((1,), (2,)))
add("paint_rows", sparse, "return np.where((grid != {z}).any(1, keepdims=True), {c}, {z})")
add("paint_columns", sparse, "return np.where((grid != {z}).any(0, keepdims=True), {c}, {z})")
add("frame", dense, COPY + "out[0] = out[-1] = {c}\nout[:, 0] = out[:, -1] = {c}" + DONE)
add("diagonal", wide, COPY + "np.fill_diagonal(out, {c})" + DONE)
add("diagonal_back", wide, COPY + "np.fill_diagonal(out[:, ::-1], {c})" + DONE)
add("row_stripes", wide, COPY + "out[::{k}] = {c}" + DONE, k=((2, 3), (4,)))
add("column_stripes", wide, COPY + "out[:, ::{k}] = {c}" + DONE, k=((2, 3), (4,)))
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
@lru_cache(100_000)
def member(name, *values):
    """The function of a family for values of its parameters, in the order of its fields. Only what stands in
    this file is run so: what a model writes goes to the sandbox."""
    family, scope = FAMILIES[name], {"np": np}
    exec(source(family.body.format(**dict(zip(family.fields, values)))), scope)
    return scope["task"]


def render(steps):
    """The program of the steps in one body: what the first would return is the grid of the second."""
    bodies = [FAMILIES[name].body.format(**p) for name, p in steps]
    return "\n".join([*(body.replace("return ", "grid = ") for body in bodies[:-1]), bodies[-1]])


def apply(steps, grid):
    """The output of the steps, the same as that of the program rendered from them."""
    for name, p in steps:
        grid = member(name, *p.values())(grid)
    return grid


def fits(steps, pairs):
    """Do the steps give the output of every pair? Steps that cannot take an input do not."""
    try:
        return all(key_of(apply(steps, x)) == key_of(y) for x, y in pairs)
    except (IndexError, ValueError):
        return False


def key_of(grid):
    return grid.shape, grid.tobytes()  # faster to compare than arrays


# ------------------------------------------------------------------------------------------------ tasks
def draw(rng, held_out=False, compositions=0.0):
    """A task of one family or, for the share `compositions`, of two in a row; where a draw is rejected,
    another one of the same.

    held_out: families with held-out values of their parameters, and compositions of HELD_OUT_COUPLES with
    usual values: what is new is the couple."""
    couple = rng.random() < compositions
    known = drawn_from(couple, held_out)
    names = known[rng.integers(len(known))]
    for _ in range(TRIES):
        try:
            return make(names, rng, held_out and not couple)
        except Rejected as error:
            reason = error
    raise RuntimeError(f"{names}: {TRIES} draws in a row rejected, the last for {reason}")


def make(names, rng, held_out=False):
    """A task of one family, or of two in the order given; Rejected where the draw breaks a rule."""
    steps = [(name, FAMILIES[name].draw(rng, held_out)) for name in names]
    of_colour = [step for step in steps if FAMILIES[step[0]].kind == "colour"]
    name, p = (of_colour or steps)[0]  # the inputs suit the step of colour: geometry takes any
    free = [c for c in (rng.permutation(9) + 1).tolist() if c not in (p.get("a"), p.get("b"))]
    inputs = [FAMILIES[name].inputs(rng, {**p, "palette": free[:4]}) for _ in range(PAIRS)]
    pairs = [(x, apply(steps, x)) for x in inputs]
    check(steps, pairs)
    return task_of(steps, pairs)


def task_of(steps, pairs):
    """The task as plain dicts and lists; the parameters of a composition stand under the families' names."""
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
    names, p = task["family"].split("+"), task["parameters"]
    steps = [(name, p[name] if len(names) > 1 else p) for name in names]
    pairs = [(np.array(pair["input"]), np.array(pair["output"])) for pair in task["train"] + task["test"]]
    return steps, pairs


def check(steps, pairs):
    """Raise Rejected where a task of these pairs, the last of them its test, is degenerate or ambiguous."""
    inputs, outputs = zip(*pairs)
    if any(x.min() == x.max() for x in inputs):
        raise Rejected("an input of one colour")
    if len(set(map(key_of, inputs))) < len(inputs):
        raise Rejected("two equal inputs")
    if any(not y.size or max(y.shape) > SIDE for y in outputs):
        raise Rejected("an output of no cells, or a side too long")
    if len(set(map(key_of, outputs[:-1]))) == 1:
        raise Rejected("all outputs equal")
    if sum(x.size + len(x) + y.size + len(y) for x, y in pairs[:-1]) > PROMPT:
        raise Rejected("a long prompt")
    if not fits(permuted(steps, REVERSAL), [(REVERSAL[x], REVERSAL[y]) for x, y in pairs]):
        raise Rejected("the order of colours decides a tie")
    for i in range(len(steps)):  # without its only step a task is the identity
        if fits(steps[:i] + steps[i + 1 :], pairs[:-1]):
            raise Rejected("a step that changes nothing")
    if any(fits(rival, pairs[:-1]) and not fits(rival, pairs[-1:]) for rival in rivals(steps, pairs)):
        raise Rejected("ambiguous")


def permuted(steps, permutation):
    """The steps with permutation[c] for each colour c among their parameters."""
    change = lambda p: {x: int(permutation[v]) if x in COLOURS else v for x, v in p.items()}
    return [(name, change(p)) for name, p in steps]


@cache
def siblings(name):
    """The families whose tasks look alike: of the same kind, or without a kind and of the same inputs."""
    one = FAMILIES[name]
    return [x for x in FAMILIES.values() if x.kind == one.kind and (x.kind or x.inputs is one.inputs)]


def rivals(steps, pairs):
    """Steps that could be taken for the true ones: one of them with another parameter, or a sibling of it."""
    inside = sorted(set().union(*(x.ravel().tolist() for x, _ in pairs)) - {0})
    painted = sorted(set(pairs[0][1].ravel().tolist()) - {0})
    for i, (name, p) in enumerate(steps):
        for family in siblings(name):
            for other in family.near(p, inside, painted):
                yield [*steps[:i], (family.name, other), *steps[i + 1 :]]


COUPLES = [
    (first.name, second.name)
    for first, second in itertools.permutations(FAMILIES.values(), 2)
    if {first.kind, second.kind} == {"geometry", "colour"}
]
# Compositions kept for evaluation, about a fifth. The rule looks at the two names and not at their order, as
# most compositions do the same in both.
HELD_OUT_COUPLES = frozenset(p for p in COUPLES if zlib.crc32(" ".join(sorted(p)).encode()) % 5 == 0)


@cache
def drawn_from(couple, held_out):
    """Names of families, one or two together, that draw chooses from."""
    if couple:
        return [names for names in COUPLES if (names in HELD_OUT_COUPLES) == held_out]
    return [(name,) for name, family in FAMILIES.items() if family.has_held_out or not held_out]


def blind(rng):
    """The steps of some family with some parameters: what one who sees no task can say."""
    name = list(FAMILIES)[rng.integers(len(FAMILIES))]
    return [(name, FAMILIES[name].draw(rng))]


def mistaken(task, rng):
    """A program that is not the task's, {"source", "outputs" for its pairs, the test's last}: of two steps
    often one alone, else a rival; of one step a rival; in one of four cases any program. Its outputs are
    grids, the last one wrong."""
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
        except (IndexError, ValueError):
            continue
        fine = all(y.ndim == 2 and y.size and max(y.shape) <= SIDE for y in outputs)
        if fine and not np.array_equal(outputs[-1], pairs[-1][1]):
            return {"source": source(render(other)), "outputs": [y.tolist() for y in outputs]}
    raise RuntimeError(f"{task['family']}: {TRIES} other programs in a row did not run or gave the same")
