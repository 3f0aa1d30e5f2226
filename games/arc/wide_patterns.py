"""Families of symmetry, tiling, scaling, recolouring and lattices, wider than the world that models are
trained on.

A family is written as in games/arc/families.py, but its program may also call games/arc/dsl.py. What `mend_`
repairs is hidden by colour a, what `fill_` repairs by the background."""

from functools import partial

import numpy as np

from games.arc.families import Family, dense, mixed, palette, small, sparse, tiny, wide

FAMILIES = {}


def add(name, inputs, body, kind="", **values):
    assert name not in FAMILIES, name
    FAMILIES[name] = Family(name, inputs, body, kind, values)


geometry = partial(add, kind="geometry")
crop = partial(add, kind="crop")
colour = partial(add, kind="colour")


# ------------------------------------------------------------------------------------------------ inputs
def others(rng, p, shape, n=3):
    """A grid of n colours of the palette, none of them a."""
    colours = [colour for colour in p["palette"] if colour != p.get("a")]
    return rng.choice(colours[:n], shape)


def hide(rng, p, grid):
    """The grid with a rectangle of colour a on it, or of background where there is no a."""
    height, width = rng.integers(1, 4, 2)
    i = rng.integers(grid.shape[0] - height + 1)
    j = rng.integers(grid.shape[1] - width + 1)
    grid[i : i + height, j : j + width] = p.get("a", 0)
    return grid


def tiled(rng, p):
    """A tile of two or three cells a side that repeats, with a part hidden."""
    tile = others(rng, p, rng.integers(2, 4, 2))
    height, width = rng.integers(6, 8, 2)
    return hide(rng, p, np.tile(tile, (4, 4))[:height, :width])


def striped(rng, p):
    """Diagonal stripes of slope k, with a part hidden."""
    colours = others(rng, p, rng.integers(2, 5))
    i, j = np.indices(rng.integers(5, 8, 2))
    return hide(rng, p, colours[(j + i * p["k"]) % len(colours)])


def mirrored(rng, p):
    """A grid with two axes of symmetry, not quite in the middle, with a part hidden."""
    part = others(rng, p, (4, 4))
    grid = np.vstack([part, part[::-1]])
    grid = np.hstack([grid, grid[:, ::-1]])
    top, left = rng.integers(0, 3, 2)
    return hide(rng, p, grid[top : top + 7, left : left + 7].copy())


def mosaic(rng, p):
    """A square with two axes of symmetry that is its own transpose, with a part hidden."""
    part = others(rng, p, (4, 4))
    part = np.where(np.tri(4, dtype=bool), part, part.T)
    grid = np.hstack([part[:, ::-1], part])
    grid = np.vstack([grid[::-1], grid])
    start = rng.integers(0, 3)
    return hide(rng, p, grid[start : start + 7, start : start + 7].copy())


def folded(rng, p):
    """A square grid that is its own transpose, with a part hidden."""
    size = rng.integers(4, 8)
    grid = others(rng, p, (size, size))
    return hide(rng, p, np.where(np.tri(size, dtype=bool), grid, grid.T))


def rosette(rng, p):
    """A cross of colour a, and some pixels around it."""
    grid = np.zeros((7, 7), int)
    i, j = rng.integers(2, 5, 2)
    near = grid[i - 2 : i + 3, j - 2 : j + 3]
    near.flat[rng.permutation(25)[:4]] = others(rng, p, 4)
    near[2, 1:4] = p["a"]
    near[1:4, 2] = p["a"]
    return grid


def begun(rng, p):
    """A pattern along axis n that repeats from the border, first or last (k = 1, -1), and ends half way."""
    period = rng.integers(2, 4)
    length = rng.integers(7, 9)
    width = rng.integers(2, 5)
    part = mixed(rng, p, period, period, n=2, share=0.7)
    part = part[:, rng.integers(period, size=width)]
    part[-1, 0] = palette(rng, p, 1)[0]
    grid = np.zeros((length, width), int)
    seen = rng.integers(period + 1, length - 1)
    grid[:seen] = np.tile(part, (length, 1))[:seen]
    return np.swapaxes(grid[:: p.get("k", 1)], 0, p["n"])


def banded(rng, p):
    """A few rows, or columns for axis n = 1, in the middle of an empty grid."""
    height, width = rng.integers(2, 4, 2)
    part = dense(rng, p, 2, 3)
    top, bottom = rng.integers(1, 4, 2)
    return np.swapaxes(np.pad(part, ((top, bottom), (0, 0))), 0, p["n"])


def cycle(rng, p):
    """Rows that repeat, at least once and a half, along axis n."""
    period = 2 * rng.integers(1, 3)
    part = dense(rng, p, 2, 3)
    part = part[rng.integers(len(part), size=period)]
    rows = np.tile(part, (2, 1))[: period * 3 // 2 + period % 4 // 2]
    return np.swapaxes(rows[: len(rows) // 2 * 2], 0, p["n"])


def repeated(rng, p):
    """A part that repeats in both directions."""
    return np.tile(dense(rng, p, 2, 3), (2, 3))[:, : rng.integers(5, 7)]


def runs(rng, p):
    """Rows and columns that are repeated one to three times."""
    grid = dense(rng, p, 2, 3)
    return grid.repeat(rng.integers(1, 4, grid.shape[0]), 0).repeat(rng.integers(1, 4, grid.shape[1]), 1)


def dotted(rng, p):
    """Three or four pixels of two colours."""
    grid = np.zeros(rng.integers(5, 8, 2), int)
    n = rng.integers(3, 5)
    grid.flat[rng.permutation(grid.size)[:n]] = rng.permutation(palette(rng, p, 2).repeat(2))[:n]
    return grid


def marked(rng, p):
    """Markers on each side of the grid, and pixels of one colour, a if there is one, inside."""
    grid = np.zeros(rng.integers(5, 8, 2), int)
    colour = p.get("a", p["palette"][0])
    inside = grid[1:-1, 1:-1]
    inside[:] = colour * (rng.random(inside.shape) < 0.4)
    for edge in (grid[0], grid[-1], grid[:, 0], grid[:, -1]):
        edge[1:-1] = others(rng, p, len(edge) - 2) * (rng.random(len(edge) - 2) < 0.7)
    inside[rng.integers(len(inside)), rng.integers(inside.shape[1])] = colour
    return grid


def halved(rng, p):
    """Two squares side by side or one above the other, one of them of colour a."""
    colours = others(rng, p, 4, 4).tolist()
    halves = [mixed(rng, {"palette": [p["a"]]}, 2, 2, n=1), mixed(rng, {"palette": colours}, 2, 2, share=0.7)]
    halves[0][tuple(rng.integers(2, size=2))] = p["a"]
    return np.concatenate(halves[:: rng.choice([1, -1])], rng.integers(2))


def beside_line(rng, p):
    """A line of colour a across axis n, and pixels on one side of it."""
    grid = mixed(rng, {"palette": others(rng, p, 4, 4).tolist()}, 4, 7, n=2, share=0.4)
    line = rng.integers(2, len(grid) - 1)
    grid[line] = p["a"]
    if rng.random() < 0.5:
        grid[line + 1 :] = 0
    else:
        grid[:line] = 0
    return np.swapaxes(grid, 0, p["n"])


def noisy_stripes(rng, p):
    """Rows of one colour each (for n = 0 columns, without n either), with a few cells of another."""
    grid = palette(rng, p, 4)[rng.integers(4, size=rng.integers(4, 8))][:, None].repeat(rng.integers(5, 8), 1)
    noise = rng.random(grid.shape) < 0.12
    grid = np.where(noise, palette(rng, p, 4)[0], grid)
    return grid if p.get("n", rng.integers(2)) else grid.T


def lopsided(rng, p):
    """A square figure with two axes of symmetry that are alike, one quarter of it hidden, on background."""
    part = others(rng, p, (2, 2)) * (rng.random((2, 2)) < 0.7)
    part[1, 0] = part[0, 1] = p["palette"][0]
    part = np.hstack([part[:, ::-1], part])
    part = np.vstack([part[::-1], part])
    part[:2, :2] = 0
    grid = np.zeros((7, 7), int)
    i, j = rng.integers(0, 4, 2)
    grid[i : i + 4, j : j + 4] = np.rot90(part, rng.integers(4))
    return grid


def keyed(rng, p):
    """Pixels of colour a, and three of two other colours."""
    grid = mixed(rng, {"palette": [p["a"]]}, 5, 7, n=1, share=0.3)
    cells = rng.permutation(grid.size)
    grid.flat[cells[:3]] = others(rng, p, 3, 2)
    grid.flat[cells[3]] = p["a"]
    return grid


def two_colours(rng, p):
    """Colour a and one other."""
    other = rng.choice([colour for colour in p["palette"] if colour != p.get("a")])
    first = p.get("a") or rng.choice([colour for colour in p["palette"] if colour != other])
    return np.where(rng.random(rng.integers(3, 7, 2)) < 0.5, first, other)


def latticed(rng, p, side=2, parts=2, most=3):
    """Lines of one colour between parts of `side` cells; pixels of other colours in some of them."""
    line, *colours = p["palette"]
    shape = (side + 1) * rng.integers(parts, most + 1, 2) - 1
    grid = np.zeros(shape, int)
    for i in range(0, shape[0], side + 1):
        for j in range(0, shape[1], side + 1):
            share = rng.choice([0, 0.3, 0.7, 1])
            grid[i : i + side, j : j + side] = rng.choice(colours[:2]) * (rng.random((side, side)) < share)
    grid[side :: side + 1] = line
    grid[:, side :: side + 1] = line
    return grid


def counted(rng, p):
    """A small square with a colour that is the commonest, and one that is the rarest, without a tie."""
    colours = np.repeat(palette(rng, p, 3, background=True), [1, 3, 5])
    return rng.permutation(colours).reshape(3, 3)


def maybe_mirrored(rng, p):
    """A small grid, as often as not with its second half mirrored along axis n."""
    grid = mixed(rng, p, 3, 4)
    if rng.random() < 0.5:
        grid = np.where(np.indices(grid.shape)[p["n"]] < grid.shape[p["n"]] / 2, grid, np.flip(grid, p["n"]))
    return grid


square = lambda rng, p: mixed(rng, p, 3, 3, share=0.5)
sided = lambda rng, p: mixed(rng, p, *[rng.integers(4, 8)] * 2, share=0.3)
few = partial(mixed, low=2, high=3, n=3, share=0.5)
pixels = partial(mixed, low=4, high=7, n=2, share=0.3)
mixture = partial(mixed, low=4, high=7, n=2, share=0.6)

# ------------------------------------------------------------------------------------------------ symmetry
AXIS = (0, 1), ()
BACK = (1, -1), ()
SLOPE = (1, -1), (2, -2)
SIDES = (10, 14), ()
SMALL = (1, 2), (3,)
CUT = "i, j = np.nonzero(grid == {a})\nreturn out[i.min():i.max() + 1, j.min():j.max() + 1]"
BOTH = "out = dsl.symmetric(dsl.symmetric(grid, %s, 0), %s, 1)\n"
add("mend_tile", tiled, "return dsl.retile(grid, {a})")
add("mend_tile_crop", tiled, "out = dsl.retile(grid, {a})\n" + CUT)
add("fill_tile", tiled, "return dsl.retile(grid, {z})")
add("mend_stripes", striped, "return dsl.retile(grid, {a}, {k})", k=SLOPE)
add("fill_stripes", striped, "return dsl.retile(grid, {z}, {k})", k=SLOPE)
add("mend_mirror", mirrored, "return dsl.symmetric(grid, {a}, {n})", n=AXIS)
add("mend_mirror_crop", mirrored, "out = dsl.symmetric(grid, {a}, {n})\n" + CUT, n=AXIS)
add("mend_mirrors", mirrored, BOTH % ("{a}", "{a}") + "return out")
add("mend_mirrors_crop", mirrored, BOTH % ("{a}", "{a}") + CUT)
# A pattern that is its own transpose too.
TRANSPOSED = "out = np.where(out == {a}, out.T, out)\n"
add("mend_square", mosaic, BOTH % ("{a}", "{a}") + TRANSPOSED + "return out")
add("mend_square_crop", mosaic, BOTH % ("{a}", "{a}") + TRANSPOSED + CUT)
add("fill_mirror", mirrored, "return dsl.symmetric(grid, {z}, {n})", n=AXIS)
add("fill_mirrors", mirrored, BOTH % ("{z}", "{z}") + "return out")
add("mend_transpose", folded, "return np.where(grid == {a}, grid.T, grid)")
add("fill_transpose", folded, "return np.where(grid == {z}, grid.T, grid)")
# Around the middle of colour a: (y / 2, x / 2).
CENTRE = "i, j = np.nonzero(grid == {a})\ny = i.min() + i.max()\nx = j.min() + j.max()\nout = grid.copy()\n"
CELLS = CENTRE + "cells = np.argwhere(grid != {z})\ncolours = grid[grid != {z}]\n"
TURN = "    cells = np.stack([cells[:, 1] + (y - x) // 2, (y + x) // 2 - cells[:, 0]], 1)\n"
DRAWN = "    out = dsl.draw_cells(out, %s, colours)\nreturn np.where(grid == {z}, out, grid)"
add("turns_around", rosette, CELLS + "for _ in range(3):\n" + TURN + DRAWN % "cells")
FLIPS = "for side in [(-1, 1), (1, -1), (-1, -1)]:\n    side = np.array(side)\n"
add("mirrors_around", rosette, CELLS + FLIPS + DRAWN % "cells * side + (1 - side) // 2 * [y, x]")
# The mirrors find the middle, and one quarter turn around it does the rest.
MIDDLE = "i, j = np.nonzero(out != {z})\ny = i.min() + i.max()\nx = j.min() + j.max()\n"
TURNED = "cells = np.argwhere(out != {z})\ncolours = out[out != {z}]\n" + TURN.strip() + "\n"
LAID = "turned = dsl.draw_cells(out, cells, colours)\nreturn np.where(out == {z}, turned, out)"
add("fill_turns", lopsided, BOTH % ("{z}", "{z}") + MIDDLE + TURNED + LAID)
WHIRL = "out = grid\nfor k in (1, 2, 3):\n    out = np.where(out == {z}, np.rot90(grid, k), out)\n"
add("whirl", sided, WHIRL + "return out")
SAME = "same = np.array_equal(grid, np.flip(grid, {n}))\nreturn np.where(same, {c}, {z})[None, None]"
add("is_symmetric", maybe_mirrored, SAME, n=AXIS)

# ------------------------------------------------------------------------------------------------ repetition
MODE = "np.apply_along_axis(lambda x: np.full_like(x, dsl.mode(x)), %s, grid)"
add("mode_lines", noisy_stripes, "return " + MODE % "{n}", n=AXIS)
STRIPES = "rows = " + MODE % 1 + "\ncolumns = " + MODE % 0 + "\n"
BETTER = "return rows if (rows == grid).sum() > (columns == grid).sum() else columns"
add("mode_stripes", noisy_stripes, STRIPES + BETTER)

# Axis {n} becomes the rows, and the rows axis {n} again.
TO, FROM = "grid = np.swapaxes(grid, 0, {n})%s\n", "\nreturn np.swapaxes(out%s, 0, {n})"
# What is beside a line of colour a is mirrored in it.
AXLE = "i = np.arange(len(grid))\nk = 2 * (grid == {a}).all(1).argmax() - i\n"
FOLD = "i = i[(k >= 0) & (k < len(grid))]\nout = grid.copy()\n"
FOLD += "out[i] = np.where(grid[i] == {z}, grid[k[i]], grid[i])"
add("reflect", beside_line, TO % "" + AXLE + FOLD + FROM % "", n=AXIS)
# k is the period of the pattern.
END = "i = np.flatnonzero((grid != {z}).any(1))\n"
PERIOD = "k = len(dsl.unit(grid[:i.max() + 1]))\nout = grid[np.arange(len(grid)) % k]"
add("extend", begun, TO % "[::{k}]" + END + PERIOD + FROM % "[::{k}]", n=AXIS, k=BACK)
BAND = "part = grid[i.min():i.max() + 1]\nk = len([dsl.unit(part), part][{k}])\n"
BAND += "out = part[(np.arange(len(grid)) - i.min()) % k]"
add("extend_band", banded, TO % "" + END + BAND + FROM % "", n=AXIS, k=AXIS)
LENGTH = "k = len(dsl.unit(grid))\nout = grid[np.arange(len(grid) * {k} // 2) % k]"
add("lengthen", cycle, TO % "" + LENGTH + FROM % "", n=AXIS, k=((3, 4), (6,)))
crop("unit", repeated, "return dsl.unit(grid)")
DEDUPE = "i = np.r_[True, (grid[1:] != grid[:-1]).any(1)]\n"
DEDUPE += "j = np.r_[True, (grid[:, 1:] != grid[:, :-1]).any(0)]\n"
crop("dedupe", runs, DEDUPE + "return grid[i][:, j]")
SHAPE = "h, w = grid.shape\n"
GROWN = "((0, h * {k} - h), (0, w * {n} - w))"
geometry("canvas", small, SHAPE + f"return np.pad(grid, {GROWN}, constant_values={{z}})", k=SMALL, n=SMALL)
geometry(
    "tile_mirror", small, SHAPE + f'return np.pad(grid, {GROWN}, "symmetric")', k=((1, 2, 3), ()), n=SMALL
)
REFLECT = '((0, h * {k} - h - {k} + 1), (0, w * {n} - w - {n} + 1)), "reflect")'
geometry("tile_reflect", small, SHAPE + "return np.pad(grid, " + REFLECT, k=((1, 2, 3), ()), n=SMALL)
geometry("pad_back", small, "return np.pad(grid, {k}, constant_values={z})", k=SMALL)
MODES = '("edge", "reflect", "symmetric", "wrap")'
geometry(
    "pad_copy", small, f"return np.pad(grid, {{k}}, {MODES}[{{n}}])", k=((1,), (2,)), n=((0, 1, 2, 3), ())
)
# The middle one of three rows (or columns) of copies is flipped.
WEAVE = TO % "" + "h = len(grid)\nout = np.tile(grid, (3, {k}))\nout[h:2 * h] = np.flip(out[h:2 * h], {m})"
geometry("tile_weave", tiny, WEAVE + FROM % "", n=AXIS, m=AXIS, k=SMALL)
PINWHEEL = "np.hstack([grid, np.rot90(grid, {k})]), np.hstack([np.rot90(grid, {n}), np.rot90(grid, {m})])"
QUARTER = (0, 1, 2, 3), ()
add("pinwheel", square, f"return np.vstack([{PINWHEEL}])", k=QUARTER, n=QUARTER, m=QUARTER)
geometry("join_turned", small, "return np.concatenate([grid, grid[::-1, ::-1]], {n})", n=AXIS)
geometry("triple", tiny, "return np.concatenate([grid, np.flip(grid, {k}), grid], {n})", k=AXIS, n=AXIS)
# A copy of the grid, or background, for each cell.
KRON = SHAPE + "out = (grid %s).repeat(h, 0).repeat(w, 1)\n"
KRON += "return np.where(out, np.tile(grid, grid.shape), {z})"
add("fractal_of", square, KRON % "== {a}")
add("fractal_pixels", few, KRON % "!= {z}")
add("fractal_holes", few, KRON % "== {z}")
add("fractal_most", counted, KRON % "== dsl.mode(grid)")
add("fractal_least", counted, KRON % "== dsl.least(grid)")
DIAGONAL = SHAPE + "out = np.eye({k}, dtype=bool).repeat(h, 0).repeat(w, 1)\n"
geometry(
    "tile_diagonal", tiny, DIAGONAL + "return np.where(out, np.tile(grid, ({k}, {k})), {z})", k=((2,), (3,))
)
# Of two halves the one with colour a is laid where the other has pixels, in their colours.
HALVES = "halves = np.split(grid, 2, int(grid.shape[1] > len(grid)))\n"
HALVES += "halves.sort(key=lambda half: (half == {a}).any())\n"
STAMPED = "cells = halves[0].repeat(h, 0).repeat(w, 1)\nreturn np.where(stamp == {z}, {z}, cells)"
TILED = "h, w = halves[1].shape\nstamp = np.tile(halves[1], (h, w))\n"
add("fractal_halves", halved, HALVES + TILED + STAMPED)
COLOURS = "k = len(np.unique(grid[grid != {z}]))\n"
add("enlarge_colours", few, COLOURS + "return grid.repeat(k, 0).repeat(k, 1)")
add("tile_colours", few, COLOURS + "return np.tile(grid, (k, k))")
add("enlarge_pixels", few, "k = min((grid != {z}).sum(), 9)\nreturn grid.repeat(k, 0).repeat(k, 1)")
add("tile_pixels", few, "k = min((grid != {z}).sum(), 9)\nreturn np.tile(grid, (k, k))")
geometry("tile_self", few, "return np.tile(grid, grid.shape)")
SPACED = SHAPE + "out = np.full(({k} * h - {k} + 1, {k} * w - {k} + 1), %s)\n"
SPACED += "out[::{k}, ::{k}] = grid\nreturn out"
geometry("spaced", tiny, SPACED % "{z}", k=((2,), (3,)))
geometry("spaced_paint", tiny, SPACED % "{c}", k=((2,), (3,)))

# ------------------------------------------------------------------------------------------------ moves
STEP = "di, dj = dsl.STEPS[{n}]\n"
EIGHT = tuple(range(8)), ()
geometry("shift", mixture, STEP + "return dsl.shift(grid, {k} * di, {k} * dj, {z})", n=EIGHT, k=SMALL)
MOVED = "moved = dsl.shift(grid == {a}, {k} * di, {k} * dj, False)\n"
LAID = "return np.where(moved, {a}, np.where(grid == {a}, {z}, grid))"
add("shift_of", mixture, STEP + MOVED + LAID, n=EIGHT, k=SMALL)
ECHO = "moved = dsl.shift(grid, {k} * di, {k} * dj, {z})\n"
add("echo", pixels, STEP + ECHO + "return np.where(grid == {z}, moved, grid)", n=EIGHT, k=((1, 2), (3,)))
SHEAR = "out = np.array([np.roll(row, {k} * i) for i, row in enumerate(grid)])"
geometry("shear", wide, TO % "" + SHEAR + FROM % "", n=AXIS, k=BACK)
ODD = "out = grid.copy()\nout[1::2] = np.roll(grid[1::2], {k}, 1)"
geometry("roll_odd", wide, TO % "" + ODD + FROM % "", n=AXIS, k=BACK)
SKEW = SHAPE + "out = np.full((h, w + h - 1), {z})\nfor i in range(h):\n    out[i, i:i + w] = grid[i]"
geometry("skew", small, TO % "" + SKEW + FROM % "", n=AXIS)
FLIPPED = "out = grid.copy()\nout[:, 1::2] = grid[::-1, 1::2]"
geometry("flip_odd", wide, TO % "" + FLIPPED + FROM % "", n=AXIS)

# ------------------------------------------------------------------------------------------------ colours
EDGE = "edge = [grid[:, [0]], grid[:, [-1]], grid[[0]], grid[[-1]]][{n}]\n"
FOUR = (0, 1, 2, 3), ()
add("by_marker", marked, EDGE + "return np.where(grid == {a}, edge, grid)", n=FOUR)
add("by_any_marker", marked, EDGE + "return np.where((grid != {z}) & (edge != {z}), edge, grid)", n=FOUR)
add("marker_rows", marked, EDGE + "return np.where(grid == {z}, edge, grid)", n=FOUR)
CROSSED = "i = grid[:, [{k}]] != {z}\nj = grid[[{n}]] != {z}\n"
LAST = (0, -1), ()
add("meet", marked, CROSSED + "return np.where(i & j & (grid == {z}), {c}, grid)", k=LAST, n=LAST)
LINES = "i = (grid == {a}).any(1, keepdims=True)\nj = (grid == {a}).any(0, keepdims=True)\n"
add("meet_of", pixels, LINES + "return np.where(i & j & (grid == {z}), {c}, grid)")
add("empty_lines", sparse, "return np.where((grid == {z}).all({n}, keepdims=True), {c}, grid)", n=AXIS)
EMPTY = "i = (grid == {z}).all(1, keepdims=True)\nj = (grid == {z}).all(0, keepdims=True)\n"
add("empty_cross", sparse, EMPTY + "return np.where(i | j, {c}, grid)")
PLACE = "i, j = np.indices(grid.shape)\nplace = [i, j, i + j][{n}] % {k} == {m}\n"
EVERY = {"n": ((0, 1, 2), ()), "k": ((2, 3), (4,)), "m": ((0, 1), (2,))}
colour("parity_of", mixture, PLACE + "return np.where(place & (grid == {a}), {c}, grid)", **EVERY)
colour("parity_back", mixture, PLACE + "return np.where(place & (grid == {z}), {c}, grid)", **EVERY)
colour("parity_pixels", mixture, PLACE + "return np.where(place & (grid != {z}), {c}, grid)", **EVERY)
colour("paint_others", dense, "return np.where(grid == dsl.mode(grid), grid, {c})")
colour("delete_others", dense, "return np.where(grid == dsl.mode(grid), grid, {z})")
BRAND = "shown = grid[grid != {z}]\nreturn np.where(grid == dsl.mode(shown), dsl.least(shown), {z})"
colour("brand", mixture, BRAND)
OTHER = "other = dsl.mode(grid[(grid != {a}) & (grid != {z})])\n"
colour("as_other", mixture, OTHER + "return np.where(grid == {a}, other, grid)")
add("other_alone", two_colours, OTHER + "return np.where(grid == {a}, other, {z})")
# The colour of the nearest pixel, by straight steps (n = 0) or by slanted ones too; background in a tie.
CELLS = "cells = np.argwhere(%s)\ncolours = grid[%s]\n"
APART = "away = abs(np.argwhere(grid >= 0)[:, None] - cells)\naway = [away.sum(2), away.max(2)][{n}]\n"
CLOSEST = "near = away == away.min(1, keepdims=True)\nout = np.where(near, colours, -1).max(1)\n"
CLEAR = "clear = ((colours == out[:, None]) | ~near).all(1)\n"
CLEAR += "out = np.where(clear, out, {z}).reshape(grid.shape)\n"
NEAREST = CELLS + APART + CLOSEST + CLEAR
ANY, REST = "grid != {z}", "(grid != {z}) & (grid != {a})"
add("nearest", dotted, NEAREST % (ANY, ANY) + "return np.where(grid == {z}, out, grid)", n=AXIS)
add("nearest_of", keyed, NEAREST % (REST, REST) + "return np.where(grid == {a}, out, grid)", n=AXIS)
PAIR = "first, second = np.unique(grid[grid != {z}])\n"
EXCHANGE = "return np.where(grid == first, second, np.where(grid == second, first, grid))"
KEPT = "return np.where(i == grid.shape[{n}] // 2, grid, {z})"
add("middle_keep", pixels, "i = np.indices(grid.shape)[{n}]\n" + KEPT, n=AXIS)
add("exchange", dotted, PAIR + EXCHANGE)

# ------------------------------------------------------------------------------------------------ lattices
# Parts between lines of one colour, whatever it is. The commonest colour of a part beside the background:
SHOWN = "lambda part: dsl.mode(part[part != {z}]) if (part != {z}).any() else {z}"
PARTS = f"parts = dsl.each_part(grid, {SHOWN})\n"
PIXELS = "counts = dsl.each_part(grid, lambda part: (part != {z}).sum())\n"
PAINT = "return dsl.paint_parts(grid, out)"
add("parts", latticed, PARTS + "return parts")
add("parts_paint", latticed, PARTS + "return dsl.paint_parts(grid, parts)")
add("parts_blank", latticed, PIXELS + "return np.full_like(counts, {z})")
add("parts_count", latticed, PIXELS + "return np.where(counts == {k}, {c}, {z})", k=((0, 1, 2, 4), (3,)))
add("parts_full", latticed, PARTS + PIXELS + "return np.where(counts == counts.max(), parts, {z})")
add("parts_least", latticed, PARTS + PIXELS + "return np.where(counts == counts.min(), parts, {z})")
FULLEST = PARTS + PIXELS + "out = np.where(counts == counts.max(), parts, {z})\n"
add("parts_full_paint", latticed, FULLEST + PAINT)
EACH = "out = parts\nfor colour in np.unique(parts[parts != {z}]):\n"
JOIN = "    out = dsl.rays(out, parts == colour, dsl.DIRECTIONS[{n}], stop={z}, goal=colour)\n"
LAID = "return np.where(grid == {z}, dsl.paint_parts(grid, out), grid)"
ways = partial(latticed, side=1, parts=3, most=4)
add("parts_connect", ways, PARTS + EACH + JOIN + LAID, n=((8, 9, 10), ()))
SPLIT = "rows, columns = dsl.lattice(grid)\n"
WHICH = "i, j = np.argwhere(counts == counts.%s())[0]\nout = grid[rows[i], columns[j]]\n"
maps = partial(latticed, side=2, parts=2, most=2)
add("parts_map_least", maps, PIXELS + SPLIT + WHICH % "min" + PAINT)
add("parts_map_most", maps, PIXELS + SPLIT + WHICH % "max" + PAINT)
UNION = "union = np.any([grid[i, j] != {z} for i in rows for j in columns], 0)\nout = grid.copy()\n"
MISSING = "        part = out[i, j]\n        part[union & (part == {z})] = %s\nreturn out"
LOOP = "for i in rows:\n    for j in columns:\n"
add("parts_union", latticed, SPLIT + UNION + LOOP + MISSING % "{c}")
add("parts_union_line", latticed, SPLIT + UNION + LOOP + MISSING % "grid[rows[0].stop, columns[0].stop]")
CHECKER = "i, j = np.indices(counts.shape)\nout = np.where((i + j) % 2 == {n}, {c}, {z})\n"
add("parts_checker", latticed, PIXELS + CHECKER + PAINT, n=AXIS)
