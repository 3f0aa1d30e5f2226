"""Families of lines, stamps, frames, filled areas and noise, wider than the world that models are trained on.

A family is written as in games/arc/families.py, but its program may also call games/arc/dsl.py: {n} is often
an index into dsl.DIRECTIONS. In the names, `of` says that only colour a draws, `paint` that it draws in c,
`over` that it draws over other pixels, and `stop` that it ends before them; else it goes on behind them."""

from functools import partial

import numpy as np

from games.arc.families import Family, mixed, palette, scattered, sow, sparse

FAMILIES = {}


def add(name, inputs, body, kind="", **values):
    assert name not in FAMILIES, name
    FAMILIES[name] = Family(name, inputs, body, kind, values)


# ------------------------------------------------------------------------------------------------ inputs
def pixels(rng, p):
    """Few pixels of two colours, at least two of colour a."""
    grid = mixed(rng, {"palette": p["palette"]}, 5, 7, n=1, share=0.08)
    grid.flat[rng.permutation(grid.size)[:2]] = p["a"]
    return sow(rng, grid, p)


def aligned(rng, p):
    """Two or three pairs of equal pixels in one row, column or diagonal."""
    grid = np.zeros(rng.integers(5, 8, 2), int)
    for _ in range(rng.integers(2, 4)):
        span = rng.integers(2, min(grid.shape))
        down, right = [(0, span), (span, 0), (span, span), (span, span)][rng.integers(4)]
        i = rng.integers(grid.shape[0] - down)
        j = rng.integers(grid.shape[1] - right)
        cells = ([i, i + down], [j, j + right])
        if rng.random() < 0.3:  # the other diagonal
            cells = ([i, i + down], [j + right, j])
        grid[cells] = rng.choice(palette(rng, p, 2))
    return grid


def drawing(rng, p):
    """Two to four rectangles, solid, hollow or broken, and a few pixels."""
    grid = mixed(rng, {"palette": p["palette"]}, 5, 7, n=1, share=0.06)
    for _ in range(rng.integers(2, 5)):
        height, width = rng.integers(2, 6, 2)
        i = rng.integers(grid.shape[0] - 1)
        j = rng.integers(grid.shape[1] - 1)
        part = grid[i : i + height, j : j + width]
        hollow = rng.random() < 0.7
        inside = part[1:-1, 1:-1].copy()
        part[:] = rng.choice(palette(rng, p, 2))
        if hollow:
            part[1:-1, 1:-1] = inside
        if rng.random() < 0.3:
            part[rng.integers(len(part)), rng.integers(part.shape[1])] = 0
    return sow(rng, grid, p)


def rooms(rng, p):
    """One to three frames, the last of them closed, with pixels around and in them."""
    colours = palette(rng, p, 3)
    grid = np.zeros(rng.integers(5, 8, 2), int)
    for _ in range(rng.integers(1, 4)):
        height, width = rng.integers(3, 6, 2)
        i = rng.integers(grid.shape[0] - height + 1)
        j = rng.integers(grid.shape[1] - width + 1)
        inside = grid[i + 1 : i + height - 1, j + 1 : j + width - 1].copy()
        grid[i : i + height, j : j + width] = rng.choice(colours[:2])
        grid[i + 1 : i + height - 1, j + 1 : j + width - 1] = inside
    pixels = (grid == 0) & (rng.random(grid.shape) < 0.1)
    return np.where(pixels, colours[-1], grid)


def walls(rng, p):
    """Regions of background between walls of colour a; at most three pixels in them."""
    grid = np.zeros(rng.integers(5, 8, 2), int)
    i = rng.integers(1, grid.shape[0] - 1)
    j = rng.integers(1, grid.shape[1] - 1)
    grid[i, : rng.integers(j + 1, grid.shape[1] + 1)] = p["a"]
    grid[:, j] = p["a"]
    free = rng.permutation(np.argwhere(grid == 0))
    for cell in free[: rng.integers(1, 4)]:
        grid[tuple(cell)] = rng.choice(p["palette"])
    return grid


def strokes(rng, p):
    """One or two straight or diagonal strokes of two or three cells, and a pixel."""
    grid = np.zeros(rng.integers(6, 8, 2), int)
    for _ in range(rng.integers(1, 3)):
        i, j = rng.integers(1, np.array(grid.shape) - 3)
        step = np.array([(0, 1), (1, 0), (1, 1)][rng.integers(3)])
        for n in range(rng.integers(2, 4)):
            grid[tuple(n * step + (i, j))] = palette(rng, p, 1)[0] if n == 0 else grid[i, j]
    grid[rng.integers(len(grid)), rng.integers(grid.shape[1])] = palette(rng, p, 1)[0]
    return grid


def cornered(rng, p):
    """The corners of a rectangle in colour a, and a few other pixels."""
    grid = mixed(rng, {"palette": p["palette"]}, 5, 7, n=1, share=0.06)
    i, j = rng.integers(0, 3, 2)
    height, width = rng.integers(2, 4, 2)
    grid[i : i + height + 1 : height, j : j + width + 1 : width] = p["a"]
    grid[rng.integers(len(grid)), rng.integers(grid.shape[1])] = p["a"]
    return grid


def ends(rng, p):
    """One pixel of colour a and one of colour b, neither in the row nor in the column of the other."""
    return scattered(rng, {**p, "palette": []}, 2, 2)


def blocks(rng, p):
    """Solid blocks, and noise around and in them."""
    grid = mixed(rng, p, 6, 7, n=2, share=0.12)
    for _ in range(2):
        height, width = rng.integers(2, 5, 2)
        i, j = rng.integers(0, 4, 2)
        grid[i : i + height, j : j + width] = palette(rng, p, 1)
    return sow(rng, grid, p)


def crossed(rng, p):
    """A horizontal and a vertical line of two colours from border to border, one in front of the other."""
    grid = np.zeros(rng.integers(4, 8, 2), int)
    across, down = palette(rng, p, 2)
    i = rng.integers(grid.shape[0] - 1)
    j = rng.integers(grid.shape[1] - 1)
    row = slice(i, i + rng.integers(1, 3))
    column = slice(j, j + rng.integers(1, 3))
    grid[row] = across
    if rng.random() < 0.5:
        grid[:, column] = down
    grid[:, column] = np.where(grid[:, column] == 0, down, grid[:, column])
    return grid


def nested(rng, p):
    """Square rings of different colours, one inside the other."""
    i = np.arange(rng.integers(4, 8))
    depth = np.minimum(i, i[::-1])
    return palette(rng, p, 4)[np.minimum.outer(depth, depth)]


def start(rng, p):
    """A row of even length that begins with a run of one colour."""
    grid = np.zeros((1, 2 * rng.integers(3, 6)), int)
    grid[0, : rng.integers(1, grid.size // 2)] = palette(rng, p, 1)
    return grid


def square_blank(rng, p):
    """A square with few pixels."""
    size = rng.integers(5, 8)
    return mixed(rng, p, size, size, n=2, share=0.08)


blank = partial(mixed, low=5, high=7, n=2, share=0.08)
blobs = partial(mixed, low=5, high=7, n=1, share=0.6)
islands = partial(mixed, low=6, high=7, n=2, share=0.3)
patches = partial(mixed, low=5, high=7, n=2, share=0.5)
one = partial(scattered, few=1, many=1)
two = partial(scattered, few=2, many=2)

# ------------------------------------------------------------------------------------------------ lines
ALL = tuple(range(19)), ()
SLANTED = tuple(range(4, 19)), ()  # one straight line from each pixel is a family of games/arc/families.py
BOTH_WAYS = tuple(range(8, 15)), ()
SIDES = (10, 14), ()  # neighbours by sides alone, or by corners too
FLAG = (0, 1), ()
ARM = (1,), (2,)
STEPS = "dsl.DIRECTIONS[{n}]"
NOT, OF = "grid != {z}", "grid == {a}"
RAYS = "dsl.rays(grid, %s, " + STEPS + "%s)"
OUT = "out = " + RAYS
BEHIND = "\nreturn np.where(grid == {z}, out, grid)"
OVER = "return " + RAYS
COPY = "out = grid.copy()\n"
DONE = "\nreturn out"

add("lines", sparse, OUT % (NOT, "") + BEHIND, n=SLANTED)
add("lines_paint", sparse, OUT % (NOT, ", {c}") + BEHIND, n=ALL)
add("lines_stop", sparse, OVER % (NOT, ", stop={z}"), n=ALL)
add("lines_of", pixels, OUT % (OF, "") + BEHIND, n=ALL)
add("lines_of_over", pixels, OVER % (OF, ""), n=ALL)
add("lines_of_stop", pixels, OVER % (OF, ", stop={z}"), n=ALL)
add("lines_of_paint", pixels, OUT % (OF, ", {c}") + BEHIND, n=ALL)
add("lines_of_paint_over", pixels, OVER % (OF, ", {c}"), n=ALL)
add("lines_of_paint_stop", pixels, OVER % (OF, ", {c}, stop={z}"), n=ALL)
# Only those that end at colour a.
add("lines_to", drawing, OVER % (NOT, ", stop={z}, goal={a}"), n=ALL)
add("lines_to_paint", drawing, OVER % (NOT, ", {c}, stop={z}, goal={a}"), n=ALL)
add("connect", aligned, OVER % (OF, ", stop={z}, goal={a}"), n=BOTH_WAYS)
add("connect_paint", aligned, OVER % (OF, ", {c}, stop={z}, goal={a}"), n=BOTH_WAYS)
EACH = COPY + "for colour in np.unique(grid[grid != {z}]):\n    "
JOIN = "out = dsl.rays(out, grid == colour, " + STEPS + "%s, stop={z}, goal=colour)"
add("connect_all", aligned, EACH + JOIN % "" + DONE, n=BOTH_WAYS)
add("connect_all_paint", aligned, EACH + JOIN % ", {c}" + DONE, n=BOTH_WAYS)
# A mask of 0 and 1 in place of the grid: any two pixels with k background cells between them, or fewer.
SHOWN = "shown = (grid != {z}).astype(int)\n"
BRIDGE = (
    "out = dsl.rays(shown, shown == 1, "
    + STEPS
    + ", 2, {k}, stop=0, goal=1)\nreturn np.where(out == 2, {c}, grid)"
)
add("bridge", aligned, SHOWN + BRIDGE, n=BOTH_WAYS, k=((1, 30), (2,)))
# A stamp around each pixel.
add("stamp", sparse, OUT % (NOT, ", length={k}") + BEHIND, n=ALL, k=ARM)
add("stamp_paint", sparse, OUT % (NOT, ", {c}, {k}") + BEHIND, n=ALL, k=ARM)
add("stamp_of", pixels, OUT % (OF, ", length={k}") + BEHIND, n=ALL, k=ARM)
add("stamp_of_paint", pixels, OUT % (OF, ", {c}, {k}") + BEHIND, n=ALL, k=ARM)
add("stamp_of_over", pixels, OVER % (OF, ", {c}, {k}"), n=ALL, k=ARM)
# Outwards from the cells with nothing before them and at their sides: of a rectangle, from its corners.
BARE = "dsl.neighbours(shown, [step, (step[0], 0), (0, step[1])], True) == 0"
OUTWARDS = COPY + "shown = grid != {z}\nfor step in " + STEPS + ":\n    start = shown & (" + BARE + ")\n    "
CORNERS = (4, 5, 6, 7, 11, 12, 13, 15, 16, 17, 18), ()
add("corner_lines", drawing, OUTWARDS + "out = dsl.rays(out, start, [step])" + BEHIND, n=CORNERS)
add("corner_lines_paint", drawing, OUTWARDS + "out = dsl.rays(out, start, [step], {c})" + BEHIND, n=CORNERS)
# Straight or diagonal strokes of at least two cells become longer at both ends.
STROKES = COPY + "for thing in dsl.objects(grid, background={z}):\n    if thing.is_line:\n"
ALONG = "        step = np.sign(thing.cells[-1] - thing.cells[0])\n"
ALONG += "        out = dsl.rays(out, thing.mask(), [step, -step]%s)"
add("prolong", strokes, STROKES + ALONG % "" + BEHIND)
add("prolong_stop", strokes, STROKES + ALONG % ", stop={z}" + DONE)
add("prolong_paint", strokes, STROKES + ALONG % ", {c}" + BEHIND)
# Lines in both directions from every pixel, c where two colours meet.
ROWS = "rows = dsl.rays(grid, grid != {z}, dsl.DIRECTIONS[9])\n"
COLUMNS = "out = dsl.rays(grid, grid != {z}, dsl.DIRECTIONS[8])\n"
MEET = "both = (rows != {z}) & (out != {z}) & (rows != out)\nout = np.where(out == {z}, rows, out)\n"
add("crosses", two, ROWS + COLUMNS + MEET + "return np.where(both, {c}, out)")
# i and j are the rows and columns without background.
FULL = "i = (grid != {z}).all(1, keepdims=True)\nj = (grid != {z}).all(0, keepdims=True)\n"
add("crossing", crossed, FULL + "return np.where(i & j, {c}, grid)")
NEAR = "near = dsl.neighbours(i & j, dsl.STEPS, True) > 0\n"
add("crossing_ring", crossed, FULL + NEAR + "return np.where(near & ~(i & j), {c}, grid)")
BARS = "row = grid[:, [j.argmin()]]\ncolumn = grid[[i.argmin()]]\n"
SWAP = "return np.where(i & j, np.where(grid == row, column, row), grid)"
add("change_front", crossed, FULL + BARS + SWAP)
PLACE = "i, j = np.indices(grid.shape)\n"
EVERY = {"k": ((2, 3), (4,)), "n": FLAG}
add("slope_stripes", blank, PLACE + "return np.where((i + j) % {k} == {n}, {c}, grid)", **EVERY)
add("slope_stripes_back", blank, PLACE + "return np.where((i - j) % {k} == {n}, {c}, grid)", **EVERY)
MIDDLE = "out[(len(grid) - 1) // 2:len(grid) // 2 + 1] = {c}\n"
ACROSS = "n = grid.shape[1]\nout[:, (n - 1) // 2:n // 2 + 1] = {c}"
add("middle_cross", blank, COPY + MIDDLE + ACROSS + DONE)
add("corners", blank, COPY + "out[::len(grid) - 1, ::grid.shape[1] - 1] = {c}" + DONE)
STAIRS = "n = (grid != {z}).sum()\ni, j = np.indices((grid.shape[1] // 2, grid.shape[1]))\n"
add("stairs", start, STAIRS + "return np.where(j < n + i, grid[0, 0], {z})")
# A diagonal through the pixel that the left and the right border throw back.
BOUNCE = "y, x = np.argwhere(grid != {z})[0]\ni = np.arange(len(grid))\nend = grid.shape[1] - 1\n"
THROWN = "j = end - abs(end - (x + {n} * (i - y)) % (2 * end))\n"
add("bounce", one, BOUNCE + THROWN + COPY + "out[i, j] = grid[y, x]" + DONE, n=((1, -1), ()))
# Every k-th row from the pixel on, or column for axis n = 1; m = 1: before it too.
FROM_PIXEL = "grid = np.swapaxes(grid, 0, {n})\ny, x = np.argwhere(grid != {z})[0]\nout = grid.copy()\n"
EVERY_K = "out[y * (1 - {m}) + y % {k} * {m}::{k}] = grid[y, x]\nreturn np.swapaxes(out, 0, {n})"
add("stripes_from", one, FROM_PIXEL + EVERY_K, n=FLAG, k=((2, 3), (4,)), m=FLAG)
# Below every pixel a triangle that grows by a cell to each side, in one of four directions.
CONE = "grid = np.rot90(grid, {n})\nout = grid.copy()\ni, j = np.indices(grid.shape)\n"
FOR_PIXELS = "for y, x in np.argwhere(grid %s):\n    out[abs(j - x) <= i - y] = grid[y, x]\n"
CONES = CONE + FOR_PIXELS + "return np.rot90(np.where(grid == {z}, out, grid), -{n})"
add("cones", one, CONES % "!= {z}", n=((0, 1, 2, 3), ()))
add("cones_of", pixels, CONES % "== {a}", n=((0, 1, 2, 3), ()))

# ------------------------------------------------------------------------------------------------ frames
BOX = "i, j = np.nonzero(grid == {a})\n" + COPY + "part = out[i.min():i.max() + 1, j.min():j.max() + 1]\n"
add("box_fill", pixels, BOX + "part[part == {z}] = {c}" + DONE)
add("box_outline", pixels, BOX + "part[[0, -1]] = {c}\npart[:, [0, -1]] = {c}" + BEHIND)
SPANS = "i, j = np.nonzero(grid == colour)\n    part = out[i.min():i.max() + 1, j.min():j.max() + 1]\n    "
add("box_fill_all", aligned, EACH + SPANS + "part[part == {z}] = colour" + DONE)
# Inside each rectangle whose four corners have colour a.
PAIRS = COPY + "cells = np.argwhere(grid == {a}).tolist()\nfor i, j in cells:\n    for y, x in cells:\n"
SQUARE = "        if grid[i, x] == {a} and grid[y, j] == {a}:\n            out[i + 1:y, j + 1:x] = {c}"
add("corner_box", cornered, PAIRS + SQUARE + DONE)
# From the first cell of colour a up or down (k = 1: to the side), then on to the first cell of colour b.
ENDS = "start = np.argwhere(grid == {a})[0]\nend = np.argwhere(grid == {b})[0]\n"
TURN = "turn = [(end[0], start[1]), (start[0], end[1])][{k}]\nout = dsl.draw_line(grid, start, turn, {c})\n"
add("path", ends, ENDS + TURN + "out = dsl.draw_line(out, turn, end, {c})" + BEHIND, k=FLAG)
THINGS = COPY + "for thing in dsl.objects(grid, one_colour={n}, background={z}):\n    "
FIRST = "(thing.top - {k}, thing.left - {k})"
LAST = "(thing.top + thing.height - 1 + {k}, thing.left + thing.width - 1 + {k})"
DRAW = f"out = dsl.draw_rectangle(out, {FIRST}, {LAST}, %s)"
add("object_frames", drawing, THINGS + DRAW % "{c}" + BEHIND, n=FLAG, k=ARM)
add("object_frames_own", drawing, THINGS + DRAW % "thing.colour" + BEHIND, n=FLAG, k=ARM)
add("object_boxes", drawing, THINGS + DRAW % "{c}, True" + BEHIND, n=FLAG, k=FLAG)
PART = THINGS + "part = out[thing.top:thing.top + thing.height, thing.left:thing.left + thing.width]\n    "
add("punch", drawing, PART + "part[1::2, 1::2] = {z}" + DONE, n=FLAG)
add("inlay", drawing, PART + "part[1:-1, 1:-1] = {c}" + DONE, n=FLAG)
add("object_rings", drawing, PART + "part[dsl.layers(part.shape) % 2 == {k}] = {c}" + DONE, n=FLAG, k=FLAG)
CHESS = "i, j = np.indices(part.shape)\n    part[(i + j) % 2 == {k}] = {c}"
add("object_checker", drawing, PART + CHESS + DONE, n=FLAG, k=FLAG)
add("object_stripes", drawing, PART + "np.swapaxes(part, 0, {k})[1::2] = {c}" + DONE, n=FLAG, k=FLAG)
add("object_boxes_own", drawing, PART + "part[part == {z}] = thing.colour" + DONE, n=FLAG)
CENTRE = "i = thing.height - 1\n    j = thing.width - 1\n    "
CENTRE += "part[i // 2:i // 2 + i % 2 + 1, j // 2:j // 2 + j % 2 + 1] = {c}"
add("object_centres", drawing, PART + CENTRE + DONE, n=FLAG)
EDGE = "edge = [part[0], part[-1], part[:, 0], part[:, -1]][{k}]\n    edge[edge != {z}] = {c}"
add("object_edges", drawing, PART + EDGE + DONE, n=FLAG, k=((0, 1, 2, 3), ()))
CORNER = "part[::max(thing.height - 1, 1), ::max(thing.width - 1, 1)] = {c}"
add("object_corners", drawing, PART + CORNER + DONE, n=FLAG)
RINGS = "ring = dsl.layers(grid.shape)\n"
add("ring", blank, RINGS + "return np.where(ring == {k}, {c}, grid)", k=ARM)
add("rings", blank, RINGS + "return np.where(ring % 2 == {k}, {c}, grid)", k=FLAG)
add("rings_behind", blank, RINGS + "return np.where((ring % 2 == {k}) & (grid == {z}), {c}, grid)", k=FLAG)
INWARDS = "n = ring.max() + 1\ncolours = grid[np.arange(n), np.arange(n)]\n"
add("rings_reversed", nested, RINGS + INWARDS + "return colours[::-1][ring]")
add("rings_roll", nested, RINGS + INWARDS + "return np.roll(colours, {k})[ring]", k=((1, -1), (2,)))
TARGET = "y, x = np.argwhere(grid != {z})[0]\n" + PLACE + "ring = np.maximum(abs(i - y), abs(j - x))\n"
add("target", one, TARGET + "return np.where(ring % 2 == 0, grid[y, x], {z})")
add("target_paint", one, TARGET + "return np.where((ring % 2 == {k}) & (grid == {z}), {c}, grid)", k=FLAG)
# Every other ring, cut open and joined to the next.
SPIRAL = RINGS + "out = np.where(ring % 2 == 0, {c}, grid)\nfor i in range(0, ring.max(), 2):\n    "
add("spiral", square_blank, SPIRAL + "out[i + 1, i] = {z}\n    out[i + 2, i + 1] = {c}" + DONE)

# ------------------------------------------------------------------------------------------------ areas
ENCLOSED = "dsl.enclosed(grid, {z}, {n})"
add("fill_enclosed", rooms, f"return np.where({ENCLOSED}, {{c}}, grid)", n=FLAG)
add("fill_outside", rooms, f"return np.where((grid == {{z}}) & ~{ENCLOSED}, {{c}}, grid)", n=FLAG)
CHESS = f"return np.where({ENCLOSED} & ((i + j) % 2 == {{k}}), {{c}}, grid)"
add("fill_checker", rooms, PLACE + CHESS, n=FLAG, k=FLAG)
add("enclosed_of", patches, "return np.where(dsl.enclosed(grid, {a}, {n}), {c}, grid)", n=FLAG)
AT_BORDER = "(grid == {a}) & ~dsl.enclosed(grid, {a}, {n})"
add("at_border_of", patches, f"return np.where({AT_BORDER}, {{c}}, grid)", n=FLAG)
HOLES = "dsl.enclosed(thing.image({z}), {z})"
add("fill_own", rooms, PART + "part[" + HOLES + " & (part == {z})] = thing.colour" + DONE, n=FLAG)
PAINT = "        out = dsl.recolour(out, thing, {c})"
# A closed outline takes the one colour that it holds, or its inside does.
INNER = PART + "inside = " + HOLES + "\n    colours = np.unique(part[inside & (part != {z})])\n"
INNER += "    if len(colours) == 1:\n        "
add("fill_from_inside", rooms, INNER + "part[inside] = colours[0]" + DONE, n=FLAG)
add("paint_from_inside", rooms, INNER + "out = dsl.recolour(out, thing, colours[0])" + DONE, n=FLAG)
add("closed", rooms, THINGS + "if " + HOLES + ".any():\n" + PAINT + DONE, n=FLAG)
add("open", rooms, THINGS + "if not " + HOLES + ".any():\n" + PAINT + DONE, n=FLAG)
AREAS = COPY + "things = dsl.objects((%s).astype(int), False)\n"
INSIDE = AREAS % "dsl.enclosed(grid, {z})" + "for thing in things:\n    "
add("fill_size", rooms, INSIDE + "if thing.area == {k}:\n" + PAINT + DONE, k=((1, 2, 4), (9,)))
add("fill_parity", rooms, INSIDE + "if thing.area % 2 == {k}:\n" + PAINT + DONE, k=FLAG)
add("fill_square", rooms, INSIDE + "if thing.is_square:\n" + PAINT + DONE)
BACK = AREAS % "grid == {z}" + "size = %s(thing.area for thing in things)\nfor thing in things:\n    "
add("fill_largest", rooms, BACK % "max" + "if thing.area == size:\n" + PAINT + DONE)
add("fill_smallest", rooms, BACK % "min" + "if thing.area == size:\n" + PAINT + DONE)
# A region between walls of colour a takes the one colour that it holds.
SEEDS = AREAS % "grid != {a}" + "for thing in things:\n    inside = thing.mask()\n"
SEEDS += "    colours = np.unique(grid[inside & (grid != {z})])\n"
SEEDS += "    if len(colours) == 1:\n        out[inside] = colours[0]"
add("seeds", walls, SEEDS + DONE)
FLOOD = "dsl.spread(grid == {a}, grid == {z}, " + STEPS + ")"
add("flood", drawing, f"return np.where({FLOOD}, {{a}}, grid)", n=SIDES)
add("flood_paint", drawing, f"return np.where({FLOOD}, {{c}}, grid)", n=SIDES)
TOUCHED = "dsl.spread(grid == {b}, grid == {a}, " + STEPS + ")"
add("infect", patches, f"return np.where({TOUCHED}, {{b}}, grid)", n=SIDES)
add("infect_paint", patches, f"return np.where({TOUCHED}, {{c}}, grid)", n=SIDES)
add("untouched", patches, f"return np.where((grid == {{a}}) & ~{TOUCHED}, {{c}}, grid)", n=SIDES)
add("untouched_delete", patches, f"return np.where((grid == {{a}}) & ~{TOUCHED}, {{z}}, grid)", n=SIDES)
BESIDE = "beside = dsl.neighbours(grid, " + STEPS + ", {b}) > 0\n"
add("beside", patches, BESIDE + "return np.where((grid == {a}) & beside, {c}, grid)", n=ALL)
AROUND = "count = dsl.neighbours(grid != {z}, " + STEPS + ", True)\n"
ROUND = "count == len(" + STEPS + ")"
add("edge", blobs, AROUND + f"return np.where((grid != {{z}}) & ~({ROUND}), {{c}}, grid)", n=SIDES)
add("middle", blobs, AROUND + f"return np.where((grid != {{z}}) & ({ROUND}), {{c}}, grid)", n=SIDES)
add("middle_delete", blobs, AROUND + f"return np.where({ROUND}, {{z}}, grid)", n=SIDES)
COUNT = {"n": ((10, 13, 14), ()), "k": ((0, 1, 2, 3, 4, 5, 8), (6, 7))}
OWN = "count = dsl.neighbours(grid, " + STEPS + ")\n"
add("by_neighbours", blobs, OWN + "return np.where((grid == {a}) & (count == {k}), {c}, grid)", **COUNT)
add("pits", blobs, AROUND + "return np.where((grid == {z}) & (count == {k}), {c}, grid)", **COUNT)
add("deep_pits", blobs, AROUND + "return np.where((grid == {z}) & (count >= {k}), {c}, grid)", **COUNT)
add("grouped_back", patches, OWN + "return np.where((grid == {z}) & (count > 0), {c}, grid)", n=SIDES)
add("grouped_of", patches, OWN + "return np.where((grid == {a}) & (count > 0), {c}, grid)", n=SIDES)
# What is joined to the border.
REACHED = "edge = dsl.layers(grid.shape) == 0\nreached = dsl.spread(edge, grid != {z}, " + STEPS + ")\n"
add("border_delete", islands, REACHED + "return np.where(reached, {z}, grid)", n=SIDES)
add("border_keep", islands, REACHED + "return np.where(reached, grid, {z})", n=SIDES)
add("border_paint", islands, REACHED + "return np.where(reached, {c}, grid)", n=SIDES)
# The fourth cell of each square of 2 x 2 that has three pixels.
THREE = SHOWN + "square = sum(dsl.shift(shown, i, j) for i in (0, -1) for j in (0, -1)) == 3\n"
ELBOW = "square = sum(dsl.shift(square, i, j) for i in (0, 1) for j in (0, 1)) > 0\n"
add("elbows", blobs, THREE + ELBOW + "return np.where(square & (grid == {z}), {c}, grid)")

# ------------------------------------------------------------------------------------------------ noise
add("lone_delete", blocks, OWN + "return np.where(count == 0, {z}, grid)", n=SIDES)
add("lone_paint", blocks, OWN + "return np.where((count == 0) & (grid != {z}), {c}, grid)", n=SIDES)
add("lone_of", blocks, OWN + "return np.where((count == 0) & (grid == {a}), {c}, grid)", n=SIDES)
# Windows of k rows and n columns without another colour: the mask `cover` holds their cells.
WINDOW = "steps = [(i, j) for i in range({k}) for j in range({n})]\nshown = grid %s\n"
CORE = "core = np.all([dsl.shift(shown, -i, -j, False) for i, j in steps], 0)\n"
COVER = WINDOW + CORE + "cover = np.any([dsl.shift(core, i, j, False) for i, j in steps], 0)\n"
SIZE = {"k": ((1, 2, 3), ()), "n": ((1, 2, 3), ())}
add("blocks_keep", blocks, COVER % "!= {z}" + "return np.where(cover, grid, {z})", **SIZE)
add("blocks_paint", blocks, COVER % "== {a}" + "return np.where(cover, {c}, grid)", **SIZE)
add("blocks_back", sparse, COVER % "== {z}" + "return np.where(cover, {c}, grid)", **SIZE)
# The commonest colour around a cell.
VOTES = "votes = np.array([dsl.neighbours(grid, dsl.DIRECTIONS[{n}], colour) for colour in colours])\n"
VOTE = "colours = np.unique(grid[grid != {a}])\n" + VOTES + "clear = (votes == votes.max(0)).sum(0) == 1\n"
WON = "return np.where((grid == {a}) & clear, colours[votes.argmax(0)], grid)"
add("mend_noise", blocks, VOTE + WON, n=SIDES)
