"""The families of ARC's small world: grid transformations, each with the program that solves it.

A family draws its inputs and holds its program as a template over `grid`. The names in braces are its
parameters: a and b are colours that every input contains, c is a colour that the program paints, z is the
background, and k and n are small numbers with values of their own, some of them held out. Drawn tasks have
background 0; because it is a parameter, a task can be recoloured under any permutation of the ten colours.
For the same reason no program depends on the order of colours (World.check rejects ties that it would break).

To add a family, call `add` below with a name, the function that draws its inputs, and the body of its
program, which ends in its only `return`. Keep to the idioms of the other families: a very small model can
learn the programs because the same idea is written in the same words everywhere."""

import itertools
from copy import copy
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from string import Formatter
from types import SimpleNamespace

import numpy as np

from games.arc import dsl
from games.arc.prompts import source

COLOURS = "abcz"  # the parameters that are colours


class Rejected(ValueError):
    """The drawn task breaks a rule: draw another."""


def remembering(function):
    """The function, of a grid and plain values, computed once for each of them: programs ask for the same."""

    @lru_cache(4096)
    def computed(shape, dtype, cells, *values, **named):
        return function(np.frombuffer(cells, dtype).reshape(shape), *values, **named)

    # a copy, because programs may change what they get, but never an Object
    return lambda grid, *values, **named: copy(
        computed(grid.shape, grid.dtype, grid.tobytes(), *values, **named)
    )


SLOW = "objects", "form", "holes", "symmetric", "retile", "enclosed"
DSL = SimpleNamespace(**{**vars(dsl), **{name: remembering(getattr(dsl, name)) for name in SLOW}})


@dataclass
class Family:
    name: str
    inputs: object  # (rng, parameters) -> grid
    body: str
    kind: str  # families of one kind can be mistaken for each other; some kinds compose (World.couples)
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

    def fillings(self, inside, painted, background=(0,)):
        """Yield all parameters with different colours: a and b of those `inside` the inputs, c of those
        `painted` in an output, z of the backgrounds; k and n of their usual and held-out values."""
        choices = {"a": inside, "b": inside, "c": painted, "z": background}
        for x, (usual, held_out) in self.values.items():
            choices[x] = [*usual, *held_out]
        for values in itertools.product(*(choices[x] for x in self.fields)):
            p = dict(zip(self.fields, values))
            colours = [p[x] for x in p if x in COLOURS]
            if len(set(colours)) == len(colours):
                yield p

    def near(self, p, inside, painted):
        """Yield the fillings that differ from p in at most one value. A parameter that p lacks is free."""
        for other in self.fillings(inside, painted):
            if sum(p.get(x, other[x]) != other[x] for x in other) < 2:
                yield other

    @cached_property
    def function(self):
        """The body as a function of a grid and the parameters, compiled once for all their values.

        Only code of this folder runs here without a sandbox; what a model writes goes to games/sandbox."""
        names = {x: f"{x}_" for x in self.fields}
        scope = {"np": np, "dsl": DSL}
        exec(source(self.body.format(**names), ", ".join(["grid", *names.values()])), scope)
        return scope["task"]

    def program(self, p):
        """The function of a grid that the body is with these parameters."""
        values = [p[x] for x in self.fields]
        return lambda grid: self.function(grid, *values)


# ------------------------------------------------------------------------------------------------ inputs
# Each takes (rng, p) and returns a grid, with sides from low to high. p holds the parameters of the family,
# p["palette"] further colours of the task, and maybe p["scale"], a factor of the sides.
def sides(rng, p, low, high, n=2):
    """n random sides."""
    scale = p.get("scale", 1)
    return rng.integers(low * scale, high * scale + 1, n)


def free(p):
    """What an input without the family's own colours depends on."""
    return {x: p[x] for x in ("palette", "scale") if x in p}


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
    shape = sides(rng, p, low, high)
    grid = colours[rng.integers(len(colours), size=shape)]
    return sow(rng, grid, p)


def mixed(rng, p, low=3, high=6, n=3, share=0.5):
    """n colours on a share of the cells, background elsewhere."""
    colours = palette(rng, p, n)
    shape = sides(rng, p, low, high)
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
    grid = np.zeros(sides(rng, p, 4, 6), int)
    n = rng.integers(few, many + 1)
    rows = rng.permutation(grid.shape[0])[:n]
    columns = rng.permutation(grid.shape[1])[:n]
    grid[rows, columns] = palette(rng, p, n)
    return grid


def place(rng, p, part):
    """`part` somewhere on a larger background."""
    return np.pad(part, sides(rng, p, 0, 2, (2, 2)).tolist())


def patch(rng, p):
    part = mixed(rng, p, 2, 4, share=0.7)
    # Every side has a pixel, so that the bounding box is the whole part.
    part[rng.integers(len(part)), [0, -1]] = palette(rng, p, 1)
    part[[0, -1], rng.integers(part.shape[1])] = palette(rng, p, 1)
    return place(rng, p, part)


def rectangle(rng, p, inside=True):
    part = np.full(sides(rng, p, 3, 5), palette(rng, p, 1))
    if not inside:
        part[1:-1, 1:-1] = 0
    return place(rng, p, part)


def framed(rng, p):
    """A closed frame of colour a, with other colours inside and around it."""
    grid = mixed(rng, free(p), 5, 7)
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
    height = sides(rng, p, 3, 5, None)
    middle = sides(rng, p, 2, 3, None)
    grid = colours[rng.integers(4, size=(height, 2 * middle + 1))]
    grid[:, middle] = line
    return grid


def lined(rng, p, axis=0):
    """Two parts of any shape on both sides of a line of colour a, which is upright for axis 0."""
    grid = mixed(rng, free(p), 4, 6)
    upright = grid.T if axis else grid  # a view: the line lands in grid
    upright[:, rng.integers(1, upright.shape[1] - 1)] = p["a"]
    return grid


def in_parts(rng, p):
    """k parts of equal shape along axis n."""
    shape = sides(rng, p, 2, 3)
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
