"""Families of ARC transformations about parts, counts and roles: cut a grid at its lines and combine or
choose the parts, count and compare, act on colours by how frequent they are, fill between cells.

`dsl.panels(grid, {n}, {z})` gives the parts: n = 1 cuts at lines, n = 0 into squares or halves."""

from collections import Counter
from functools import partial

import numpy as np

from games.arc import dsl
from games.arc.families import Family, counted, mixed, palette, sparse
from games.arc.wide_objects import BOTH, ENDS, PLACE, meant_for, roomy, scene

FAMILIES = {}


# ------------------------------------------------------------------------------------------------ inputs
def board(rng, p, lines=None, low=2, high=3, plain=False):
    """Two to six parts of equal shape, some of them equal. p["n"] says whether there are lines between them,
    if `lines` does not. plain: a part has one colour."""
    lines = p.get("n", 1) if lines is None else lines
    colours = palette(rng, {**p, "palette": p["palette"][1:]}, 2)
    height, width = rng.integers(low, high + 1, 2) if lines else rng.integers(low, high + 1, 1).repeat(2)
    rows = rng.integers(1, 3) if lines else 1
    columns = rng.integers(2, 4)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), p["palette"][0])
    part = np.zeros((height, width), int)
    for i in range(rows):
        for j in range(columns):
            if not part.any() or rng.random() < 0.6:
                part = rng.choice(colours, 1 if plain else part.shape)
                part = part * (rng.random((height, width)) < rng.choice([0.3, 0.6]))
            grid[i * (height + 1) :, j * (width + 1) :][:height, :width] = part
    if not lines:
        grid = np.delete(grid, np.arange(width, grid.shape[1], width + 1), axis=1)
    return grid if rng.random() < 0.5 else grid.T.copy()


def uneven(rng, p):
    """A scene in which no two colours have equally many objects."""
    while True:
        grid = roomy(rng, p)
        counts = Counter(obj.colour for obj in dsl.objects(grid))
        if 1 < len(counts) == len({*counts.values()}):
            return grid


def doubled(rng, p):
    """Rows and columns that stand one to three times in a row."""
    grid = mixed(rng, p, 2, 3)
    for axis in range(2):
        grid = grid.repeat(rng.integers(1, 4, grid.shape[axis]), axis)
    return grid


def striped(rng, p):
    """Stripes, upright or lying, with other cells here and there."""
    colours = palette(rng, p, 4)
    shape = rng.integers(5, 8, 2)
    grid = np.broadcast_to(colours[rng.integers(4, size=shape[1])], shape).copy()
    noisy = rng.random(shape) < 0.12
    grid = np.where(noisy, colours[rng.integers(4, size=shape)], grid)
    return grid if rng.random() < 0.5 else grid.T.copy()


def nested(rng, p):
    """Rings inside each other, two or three, of any width."""
    colours = p["palette"][: rng.integers(2, 4)]
    grid = np.full(rng.integers(1, 4, 2), colours[0])
    for colour in colours[1:]:
        grid = np.pad(grid, rng.integers(1, 3), constant_values=colour)
    return grid


def enlarged(rng, p):
    """Each cell as a block of cells."""
    height, width = rng.integers(2, 4, 2)
    return mixed(rng, p, 2, 3).repeat(height, 0).repeat(width, 1)


def with_legend(rng, p):
    """Objects of two colours, and on top for each colour a pair of it and another one."""
    first, second, third, fourth = p["palette"][:4]
    grid = np.zeros((rng.integers(5, 8), 6), int)
    pairs = [[first, third], [second, fourth]]
    for j, pair in zip((0, 3), pairs):
        grid[0, j : j + 2] = pair[:: p["k"]]
    for j in (0, 3):
        mask = rng.random((len(grid) - 2, 3)) < 0.6
        grid[2:, j : j + 3] = mask * rng.choice([first, second])
    return grid


def marked(rng, p):
    """Marks along one row and one column at the border."""
    grid = np.zeros(rng.integers(5, 8, 2), int)
    colour = p["palette"][0]
    grid[p["k"]] = colour * (rng.random(grid.shape[1]) < 0.4)
    grid[:, p["m"]] = colour * (rng.random(len(grid)) < 0.4)
    return grid


def gridded(rng, p):
    """Parts between lines of colour a."""
    return board(rng, {"palette": [p["a"], *p["palette"]]}, 1)


lined = partial(board, lines=1)
plain = partial(board, lines=1, plain=True)
thin = partial(mixed, low=5, high=7, n=3, share=0.2)
twofold = partial(mixed, low=3, high=6, n=2)
few = partial(mixed, low=3, high=4, n=2, share=0.25)


# ------------------------------------------------------------------------------------------------ families
def add(name, scene, body, kind="", **values):
    assert name not in FAMILIES, name
    FAMILIES[name] = Family(name, meant_for(body, scene), body, kind, values)


PANELS = "parts = dsl.panels(grid, {n}, {z})\n"
MASKS = PANELS + "masks = np.array([part != {z} for part in parts])\n"
SUM = ((0, 1, 2), (3, 4))
add("sum_of_parts", board, MASKS + "return np.where(masks.sum(0) == {k}, {c}, {z})", "logic", n=BOTH, k=SUM)
add("any_part", board, MASKS + "return np.where(masks.any(0), {c}, {z})", "logic", n=BOTH)
add("all_parts", board, MASKS + "return np.where(masks.all(0), {c}, {z})", "logic", n=BOTH)
add("not_all_parts", board, MASKS + "return np.where(masks.all(0), {z}, {c})", "logic", n=BOTH)
ALIKE = "return np.where(masks.all(0) | ~masks.any(0), {c}, {z})"
add("parts_alike", board, MASKS + ALIKE, "logic", n=BOTH)
WITHOUT = "return np.where(masks[{k}] & ~masks[~{k}], {c}, {z})"
add("one_without", board, MASKS + WITHOUT, "logic", n=BOTH, k=BOTH)
OVERLAY = "out = np.full_like(parts[0], {z})\nfor part in parts[::{k}]:\n"
OVERLAY += "    out = np.where(out == {z}, part, out)\n"
add("overlay_parts", board, PANELS + OVERLAY + "return out", "logic", n=BOTH, k=((1, -1), ()))
SAME = "return np.where(parts[0] == parts[-1], parts[0], {z})"
add("same_in_parts", board, PANELS + SAME, "logic", n=BOTH)
MASKED = "return np.where(parts[{k}] == {z}, {z}, parts[~{k}])"
add("masked_part", board, PANELS + MASKED, "logic", n=BOTH, k=BOTH)
KRON = "return np.kron(parts[{k}] != {z}, parts[~{k}] - {z}) + {z}"
add("part_of_parts", partial(board, low=2, high=2), PANELS + KRON, "kron", n=BOTH, k=BOTH)
add("part_at", board, PANELS + "return parts[{k}]", "part", n=BOTH, k=((0, 1, -1), (2, -2)))
# What parts can be put in order by, largest last.
PART_KEYS = {
    "cells": "(part != {z}).sum()",
    "size": "part.size",
    "a": "(part == {a}).sum()",
    "colours": "len(np.unique(part))",
    "pieces": "len(dsl.objects(part, 1, 1, {z}))",
    "copies": "sum(np.array_equal(part, other) for other in parts)",
    "shape": "sum(np.array_equal(part != {z}, other != {z}) for other in parts)",
    "mirrored": "dsl.is_mirrored(part)",
}
RANKED = "return dsl.only(dsl.ranked(parts, [%s for part in parts], {k}))"
for name, text in PART_KEYS.items():
    add(f"part_by_{name}", board, PANELS + RANKED % text, "part", n=BOTH, k=PLACE)
# One cell for each part.
ROWS = "parts = np.array(dsl.panel_rows(grid, 1, {z}))\ncounts = (parts != {z}).sum((2, 3))\n"
COUNT = ((0, 1, 2, 3), (4, 5, 6))
add("count_in_parts", lined, ROWS + "return np.where(counts == {k}, {c}, {z})", "map", k=COUNT)
add("fullest_parts", lined, ROWS + "return np.where(counts == counts.max(), {c}, {z})", "map")
add("emptiest_parts", lined, ROWS + "return np.where(counts == counts.min(), {c}, {z})", "map")
add("parts_with_a", lined, ROWS + "return np.where((parts == {a}).any((2, 3)), {c}, {z})", "map")
MODES = "modes = [dsl.mode(part) for part in dsl.panels(grid, 1, {z})]\n"
MODES += "rows = len(dsl.panel_rows(grid, 1, {z}))\n"
add("mode_of_parts", plain, MODES + "return np.array(modes).reshape(rows, -1)", "map")
SHOWN = MODES.replace("dsl.mode(part)", "dsl.mode(part[part != {z}]) if (part != {z}).any() else {z}")
add("colour_of_parts", plain, SHOWN + "return np.array(modes).reshape(rows, -1)", "map")
# The lines of colour a stay. Cell (i, j) of the grid lies in part (rows[i], columns[j]).
IN_PLACE = ROWS + "rows = (grid == {a}).all(1).cumsum()[:, None]\ncolumns = (grid == {a}).all(0).cumsum()\n"
CHOSEN = "chosen = counts == np.unique(counts)[{k}]\n"
STAY = "return np.where((grid == {a}) | chosen[rows, columns], grid, {z})"
OWN = "colour = grid[(grid != {z}) & (grid != {a})][0]\nout = np.where(chosen[rows, columns], colour, {z})\n"
OVER = "return np.where(grid == {a}, grid, out)"
add("keep_parts", gridded, IN_PLACE + CHOSEN + STAY, "in place", k=PLACE)
add("fill_parts", gridded, IN_PLACE + CHOSEN + OWN + OVER, "in place", k=PLACE)
MAGNIFIED = "out = dsl.only(list(parts[counts == np.unique(counts)[{k}]]))[rows, columns]\n"
add("magnify_part", gridded, IN_PLACE + MAGNIFIED + OVER, "in place", k=PLACE)

# What can be counted.
COUNTS = {
    "objects": ("len(dsl.objects(grid, {n}, 1, {z}))", dict(n=BOTH)),
    "colours": ("len(np.unique(grid)) - 1", {}),
    "cells": ("(grid != {z}).sum()", {}),
    "a_objects": ("len([obj for obj in dsl.objects(grid, {n}, 1, {z}) if obj.colour == {a}])", dict(n=BOTH)),
    "a_cells": ("(grid == {a}).sum()", {}),
}
BAR = "out = np.full((1, {k}), {z})\nout[0, :{m} * count:{m}] = {c}\nreturn out"
BLOCK = "out = np.full(({k}, {k}), {z})\nout.flat[:{m} * count:{m}] = {c}\nreturn out"
EVERY = (1, 2), ()
DRAWINGS = {
    "row": ("return np.full((1, count), {c})", {}),
    "square": ("return np.full((count, count), {c})", {}),
    "diagonal": ("return np.where(np.eye(count, dtype=bool), {c}, {z})", {}),
    "bar": (BAR, dict(k=((3, 4, 5), (6,)), m=EVERY)),
    "block": (BLOCK, dict(k=((2, 3), (4,)), m=EVERY)),
}
for name, (text, choice) in COUNTS.items():
    inputs = scene if "objects" in name else few
    for drawing, (end, size) in DRAWINGS.items():
        body = f"count = {text}\n{end}"
        add(f"{drawing}_of_{name}", inputs, body, "count", **choice, **size)
        if "{a}" in text:  # drawn in the counted colour
            add(f"{drawing}_in_{name}", inputs, body.replace("{c}", "{a}"), "count", **choice, **size)
add("enlarge_by_colours", few, "return dsl.upscale(grid, len(np.unique(grid)) - 1)", "enlarge")
add("enlarge_by_all_colours", few, "return dsl.upscale(grid, len(np.unique(grid)))", "enlarge")
BY_OBJECTS = "return dsl.upscale(grid, len(dsl.objects(grid, {n}, 1, {z})))"
add("enlarge_by_objects", few, BY_OBJECTS, "enlarge", n=BOTH)

# Colours by how frequent they are: order[0] is the rarest, order[-1] the commonest.
NUMBERED = "colours, counts = np.unique(grid, return_counts=True)\n"
ORDER = NUMBERED + "order = colours[counts.argsort()]\n"
ROLE = (0, 1, -1, -2), (2, -3)
SWAP = "one = grid == order[{k}]\ntwo = grid == order[{n}]\n"
SWAP += "return np.where(one, order[{n}], np.where(two, order[{k}], grid))"
IJ = ORDER + "i, j = np.nonzero(grid == order[{k}])\n"
REPLACE = "return np.where(grid == order[{k}], order[{n}], grid)"
add("role_replace", counted, ORDER + REPLACE, "role", k=ROLE, n=ROLE)
add("role_swap", counted, ORDER + SWAP, "role", k=ROLE, n=ROLE)
TAKE = "return np.where(grid == order[{k}], order[{n}], {z})"
add("role_take", counted, ORDER + TAKE, "role", k=ROLE, n=ROLE)
add("role_erase", counted, ORDER + "return np.where(grid == order[{k}], {z}, grid)", "role", k=ROLE)
add("role_keep", counted, ORDER + "return np.where(grid == order[{k}], grid, {z})", "role", k=ROLE)
add("role_paint", counted, ORDER + "return np.where(grid == order[{k}], {c}, grid)", "role", k=ROLE)
add("role_spare", counted, ORDER + "return np.where(grid == order[{k}], grid, {c})", "role", k=ROLE)
add("role_mask", counted, ORDER + "return np.where(grid == order[{k}], {c}, {z})", "role", k=ROLE)
add("role_cell", counted, ORDER + "return np.full((1, 1), order[{k}])", "role cell", k=ROLE)
add("role_crop", thin, IJ + "return grid[i.min():i.max() + 1, j.min():j.max() + 1]", "role crop", k=ROLE)
add("role_inside", thin, IJ + "return grid[i.min() + 1:i.max(), j.min() + 1:j.max()]", "role crop", k=ROLE)
RINGS = "ring = list(dict.fromkeys(grid.diagonal()[:(len(grid) + 1) // 2].tolist()))\n"
RINGS += "return dsl.map_colours(grid, dict(zip(ring, ring[::-1])))"
add("turn_inside_out", nested, RINGS, "sequence")
# Pairs of two colours say which colour becomes which: k is their order, and m = 0 removes the pairs.
LEGEND = "objects = dsl.objects(grid, 0, 0, {z})\n"
LEGEND += "pairs = [obj for obj in objects if obj.area == len(np.unique(obj.colours)) == 2]\n"
LEGEND += "table = dict(obj.colours[::{k}].tolist() for obj in pairs)\n"
LEGEND += "out = dsl.map_colours(dsl.paint(grid, pairs, {z}), table)\n"
LEGEND += "for obj in pairs * {m}:\n    out = dsl.draw_cells(out, obj.cells, obj.colours)\nreturn out"
add("legend", with_legend, LEGEND, k=((1, -1), ()), m=((0, 1), ()))
add("trim_usual", thin, "return dsl.trim(grid, dsl.mode(grid))")
OTHER = "other = grid[(grid != {a}) & (grid != {z})][0]\nreturn np.where(grid == {a}, other, {z})"
add("other_colour", twofold, OTHER)
SWAP_TWO = "one, two = np.unique(grid[grid != {z}])\n"
SWAP_TWO += "return np.where(grid == one, two, np.where(grid == two, one, grid))"
add("swap_two", twofold, SWAP_TWO)
SKIP = (1, 2), (0, 3)
add("role_column", counted, ORDER + "return order[::-1][{k}:, None]", "role list", k=SKIP)
add("role_row", counted, ORDER + "return order[::-1][None, {k}:]", "role list", k=SKIP)
BARS = "heights = np.sort(counts)[::-1][{k}:]\nfull = np.arange(heights.max())[:, None] < heights\n"
add("role_bars", counted, ORDER + BARS + "return np.where(full, order[::-1][{k}:], {z})", k=((0, 1), (2,)))
# The colours of objects, in order.
LIST = "objects = dsl.objects(grid, {n}, 1, {z})\nobjects.sort(key=lambda obj: %s)\n"
LIST += "return np.array([[obj.colour for obj in objects]])"
for name, key in {"area": "-obj.area", "left": "obj.left", "top": "obj.top"}.items():
    add(f"colours_by_{name}", roomy, LIST % key, "list", n=BOTH)
# Which colour has the most objects, or the fewest.
OF_OBJECTS = "found = [obj.colour for obj in dsl.objects(grid, {n}, 1, {z})]\n"
OF_OBJECTS += "colours, counts = np.unique(found, return_counts=True)\norder = colours[counts.argsort()]\n"
add("kin_cell", uneven, OF_OBJECTS + "return np.full((1, 1), order[{k}])", "kin", n=BOTH, k=PLACE)
add("kin_column", uneven, OF_OBJECTS + "return order[::-1, None]", "kin", n=BOTH)
KIN_BARS = "counts = np.sort(counts)[::-1]\nfull = np.arange(counts.max())[:, None] < counts\n"
add("kin_bars", uneven, OF_OBJECTS + KIN_BARS + "return np.where(full, order[::-1], {z})", "kin", n=BOTH)

# Lines and cells in sequence.
CHANGES = "i = np.r_[True, np.diff(grid, axis=0).any(1)]\nj = np.r_[True, np.diff(grid, axis=1).any(0)]\n"
add("squeeze", doubled, CHANGES + "return grid[i][:, j]", "sequence")
SHORT = "grid = grid[(grid != {z}).any(1)][:, (grid != {z}).any(0)]\n" + CHANGES
add("collapse", sparse, SHORT + "return grid[i][:, j]", "sequence")
CUTS = "i = np.flatnonzero(np.r_[True, np.diff(grid, axis=0).any(1), True])\n"
CUTS += "j = np.flatnonzero(np.r_[True, np.diff(grid, axis=1).any(0), True])\n"
UNIT = "return grid[::np.gcd.reduce(np.diff(i)), ::np.gcd.reduce(np.diff(j))]"
add("unscale", enlarged, CUTS + UNIT, "sequence")
add("drop_lines", gridded, "return grid[~(grid == {a}).all(1)][:, ~(grid == {a}).all(0)]", "sequence")
add("drop_blank", sparse, "return grid[(grid != {z}).any(1)][:, (grid != {z}).any(0)]", "sequence")
add("cells_in_a_row", few, "return grid[grid != {z}][None]", "sequence")
MODE_OF = "out = grid.copy()\nfor line in %s:\n    line[:] = dsl.mode(line)\n"
add("row_modes", striped, MODE_OF % "out" + "return out", "modes")
add("column_modes", striped, MODE_OF % "out.T" + "return out", "modes")
STRIPES = MODE_OF % "out" + "other = grid.copy()\nfor line in other.T:\n    line[:] = dsl.mode(line)\n"
CLOSER = "return out if (out == grid).sum() > (other == grid).sum() else other"
add("stripes", striped, STRIPES + CLOSER, "modes")

# Filled between two cells of a row or column.
FILL = "return np.where((grid == {z}) & %s, {c}, grid)"
EITHER = "(dsl.between(%s, 0) | dsl.between(%s, 1))"
add("between", thin, FILL % "dsl.between(grid != {z}, {n})", "between", n=BOTH)
add("between_a", thin, FILL % "dsl.between(grid == {a}, {n})", "between", n=BOTH)
add("between_a_both", thin, FILL % (EITHER % ("grid == {a}", "grid == {a}")), "between")
BOTH_WAYS = "dsl.between(grid != {z}, 0) & dsl.between(grid != {z}, 1)"
add("between_all", thin, FILL % BOTH_WAYS, "between")
OWN_COLOUR = "out = grid.copy()\nfor colour in np.unique(grid[grid != {z}]):\n    same = grid == colour\n"
OWN_COLOUR += "    out[%s] = colour\nreturn out"
add("join", thin, OWN_COLOUR % "(grid == {z}) & dsl.between(same, {n})", "between", n=BOTH)
add("join_over", thin, OWN_COLOUR % "dsl.between(same, {n})", "between", n=BOTH)
add("join_both", thin, OWN_COLOUR % (EITHER % ("same", "same")), "between")
CROSS = "mask = (grid[[{k}]] != {z}) & (grid[:, [{m}]] != {z})\n" + FILL % "mask"
add("crossings", marked, CROSS, "crossings", k=ENDS, m=ENDS)
# Cells that lie in a block of k x k cells with no background stay.
BLOCKS = "from_here = np.lib.stride_tricks.sliding_window_view(grid != {z}, ({k}, {k})).all((2, 3))\n"
BLOCKS += "out = np.full_like(grid, {z})\nfor i, j in np.argwhere(from_here):\n"
BLOCKS += "    out[i:i + {k}, j:j + {k}] = grid[i:i + {k}, j:j + {k}]\nreturn out"
add("blocks", scene, BLOCKS, k=((2,), (3,)))
