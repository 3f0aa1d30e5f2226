"""Features of cells, for search alone: steps whose results say something of each cell, a number or a colour.

No task is drawn from them. Search.learn finds tables that give an output, cell by cell, from such results and
those of other families. Numbers go from 0 to 9, and larger ones become 9."""

from games.arc.families import Family

FAMILIES = {}
BOTH = 0, 1
NUMBER = "return np.minimum(out, 9).astype(int)"


def add(name, body, **values):
    assert name not in FAMILIES, name
    values = {x: (choices, ()) for x, choices in values.items()}
    FAMILIES[name] = Family(name, None, body, "", values)


add("input", "return grid")

# ------------------------------------------------------------------------------------------------ place
add("cell_parity", "i, j = np.indices(grid.shape)\nreturn [i, j, i + j][{n}] % {k}", n=(0, 1, 2), k=(2, 3, 4))
add("cell_falling", "i, j = np.indices(grid.shape)\nreturn (i - j) % {k}", k=(3, 4))
add("cell_layer", "out = dsl.layers(grid.shape)\n" + NUMBER)
add("cell_back", "i = np.indices(grid.shape)[{n}]\nreturn (grid.shape[{n}] - 1 - i) % {k}", n=BOTH, k=(2, 3))
HALF = "i, j = np.indices(grid.shape)\nh, w = grid.shape\n"
add("cell_half", HALF + "return np.sign([2 * i - h + 1, 2 * j - w + 1][{n}]) + 1", n=BOTH)
add("cell_diagonal", HALF + "return np.sign([i - j, i + j - w + 1][{n}]) + 1", n=BOTH)

# ------------------------------------------------------------------------------------------------ lines
LINE = "shown = (grid != {z}).sum({n}, keepdims=True)\n"
SPREAD = "return np.broadcast_to(out, grid.shape).copy()"
add("line_count", LINE + "out = np.minimum(shown, 9)\n" + SPREAD, n=BOTH)
add("line_most", LINE + "out = (shown == shown.max()) * 1\n" + SPREAD, n=BOTH)
OF_A = "out = (grid == {a}).%s({n}, keepdims=True)\n"
add("line_with_a", OF_A % "any" + "out = out * 1\n" + SPREAD, n=BOTH)
add("line_of_a", OF_A % "sum" + "out = np.minimum(out, 9)\n" + SPREAD, n=BOTH)
USUAL = "out = np.apply_along_axis(lambda x: dsl.mode(x[x != {z}]) if (x != {z}).any() else {z}, {n}, grid)\n"
add("line_colour", USUAL + "out = np.expand_dims(out, {n})\n" + SPREAD, n=BOTH)
add("line_edge", "out = np.take(grid, [{k}], {n})\n" + SPREAD, n=BOTH, k=(0, -1))
# The first colour that is seen from a cell, looking up, down, left or right; background if there is none.
SEEN = "view = np.rot90(grid, {k})\nout = np.full_like(view, {z})\nfor i in range(1, len(view)):\n"
SEEN += "    out[i] = np.where(view[i - 1] == {z}, out[i - 1], view[i - 1])\nreturn np.rot90(out, -{k})"
add("seen", SEEN, k=(0, 1, 2, 3))
HIDDEN = "view = np.rot90(grid, {k})\nout = (view == {a}).cumsum(0)\nout = np.rot90(out, -{k})\n"
add("passed", HIDDEN + "return (out > 0) * 1", k=(0, 1, 2, 3))
add("passed_count", HIDDEN + "return out % 2", k=(0, 1, 2, 3))
RUN = "view = grid.T if {n} else grid\nout = np.zeros_like(view)\nfor i, row in enumerate(view):\n"
RUN += "    edges = np.flatnonzero(np.r_[True, row[1:] != row[:-1], True])\n"
RUN += "    out[i] = np.repeat(np.diff(edges), np.diff(edges))\nout = out.T if {n} else out\n"
add("run_length", RUN + NUMBER, n=BOTH)

# ------------------------------------------------------------------------------------------------ neighbours
WAYS = "steps = [dsl.STEPS[:4], dsl.STEPS[4:], dsl.STEPS][{n}]\n"
ALL = 0, 1, 2
add("alike_cells", WAYS + "return dsl.neighbours(grid, steps)", n=ALL)
add("beside_any", WAYS + "return dsl.neighbours(grid != {z}, steps, True)", n=ALL)
add("beside_a", WAYS + "return dsl.neighbours(grid, steps, {a})", n=ALL)
add("beside_side", "return dsl.shift(grid, *dsl.STEPS[{n}], {z})", n=tuple(range(8)))
add("far_side", "di, dj = dsl.STEPS[{n}]\nreturn dsl.shift(grid, 2 * di, 2 * dj, {z})", n=(0, 1, 2, 3))
add("enclosed_cell", "return dsl.enclosed(grid, {z}, bool({n})) * 1", n=BOTH)
add("enclosed_by_a", "return dsl.enclosed((grid == {a}) * 1, 0, bool({n})) * 1", n=BOTH)
add("boxed", "return dsl.between(grid != {z}, 0) + 2 * dsl.between(grid != {z}, 1)")
add("boxed_by_a", "return dsl.between(grid == {a}, 0) + 2 * dsl.between(grid == {a}, 1)")
REACHED = "out = dsl.spread(dsl.near(grid == {a}, {n}), grid == {z}, dsl.STEPS[:4])\nreturn out * 1"
add("reached_by_a", REACHED, n=BOTH)
OUTER = "return ((grid == {z}) & ~dsl.enclosed(grid, {z})) * 1"
add("border_area", OUTER)

# ------------------------------------------------------------------------------------------------ objects
# A number for each object, or for each area of background, on its cells; elsewhere 0.
OBJECTS = "objects = dsl.objects(grid, {n}, {k}, {z})\n"
AREAS = "objects = dsl.objects((grid == {z}) * 1, 0, 1, 0)\n"
MARK = "out = np.zeros(grid.shape, int)\nfor obj, value in zip(objects, values):\n"
MARK += "    out[tuple(obj.cells.T)] = max(min(value, 9), 0)\nreturn out"
IMAGE = "obj.image({z})"
NUMBERS = {
    "area": "obj.area",
    "width": "obj.width",
    "height": "obj.height",
    "colours": "len(np.unique(obj.colours))",
    "holes": f"dsl.holes({IMAGE}, {{z}}) + 1",
    "square": "1 + obj.is_rectangle + obj.is_square",
    "upright": "2 + int(np.sign(obj.height - obj.width))",
    "at_border": "1 + (obj.area > obj.mask()[1:-1, 1:-1].sum())",
    "mirrored": f"1 + dsl.is_mirrored({IMAGE})",
}
for name, key in NUMBERS.items():
    values = f"values = [int({key}) for obj in objects]\n"
    add(f"object_{name}", OBJECTS + values + MARK, n=BOTH, k=BOTH)
    if name not in ("colours", "holes", "mirrored"):
        add(f"gap_{name}", AREAS + values + MARK)
RANKS = "keys = [{key} for obj in objects]\norder = sorted(set(keys))\n"
RANKS += "values = [order.index(key) + 1 for key in keys]\n"
BACK = RANKS.replace("order.index(key) + 1", "len(order) - order.index(key)")
ORDERS = {
    "area": "obj.area",
    "left": "obj.left",
    "top": "obj.top",
    "width": "obj.width",
    "height": "obj.height",
}
for name, key in ORDERS.items():
    add(f"rank_{name}", OBJECTS + RANKS.replace("{key}", key) + MARK, n=BOTH, k=BOTH)
    add(f"back_rank_{name}", OBJECTS + BACK.replace("{key}", key) + MARK, n=BOTH, k=BOTH)
add("area_rank", AREAS + RANKS.replace("{key}", "obj.area") + MARK)
add("area_back_rank", AREAS + BACK.replace("{key}", "obj.area") + MARK)
FORMS = "forms = [dsl.form(obj.image({z}), {z}) for obj in objects]\n"
FORMS += "values = [forms.count(form) for form in forms]\n"
add("object_copies", OBJECTS + FORMS + MARK, n=BOTH, k=BOTH)
KIN = "found = [obj.colour for obj in objects]\nvalues = [found.count(obj.colour) for obj in objects]\n"
add("object_kin", OBJECTS + KIN + MARK, n=BOTH, k=BOTH)
TOUCHED = "values = [1 + ({a} in grid[dsl.near(obj.mask(), {m})]) for obj in objects]\n"
add("object_by_a", OBJECTS + TOUCHED + MARK, n=BOTH, k=BOTH, m=BOTH)
add("area_by_a", AREAS + TOUCHED + MARK, m=BOTH)
WITH = "values = [1 + ({a} in obj.colours) for obj in objects]\n"
add("object_with_a", OBJECTS + WITH + MARK, n=BOTH, k=(0,))
# The colour that an object has least, or most of, on all of its box.
BOXES = "out = np.full_like(grid, {z})\nfor obj in objects:\n"
BOXES += "    box = np.s_[obj.top:obj.top + obj.height, obj.left:obj.left + obj.width]\n"
add("box_colour", OBJECTS + BOXES + "    out[box] = obj.colour\nreturn out", n=BOTH, k=BOTH)
add("box_least", OBJECTS + BOXES + "    out[box] = dsl.least(obj.colours)\nreturn out", n=BOTH, k=(0,))
NUMBERED = OBJECTS + BOXES.replace("np.full_like(grid, {z})", "np.zeros(grid.shape, int)")
LAYER = "    out[box] = 1 + dsl.layers((obj.height, obj.width))\nreturn np.minimum(out, 9)"
add("box_layer", NUMBERED + LAYER, n=BOTH, k=BOTH)
ODD = "    i, j = np.indices((obj.height, obj.width))\n    out[box] = 1 + [i, j, i + j][{m}] % 2\nreturn out"
add("box_parity", NUMBERED + ODD, n=(1,), k=BOTH, m=ALL)
MIRROR = "    out[box] = np.flip(grid[box], {m})\nreturn out"
add("box_mirror", OBJECTS + BOXES + MIRROR, n=(1,), k=BOTH, m=BOTH)
# The colour beside an area or an object that it has most of.
AROUND = "out = np.full_like(grid, {z})\nfor obj in objects:\n"
PUT = "    rim = grid[dsl.near(obj.mask(), 0)]\n    rim = rim[rim != obj.colour]\n"
PUT += "    out[tuple(obj.cells.T)] = dsl.mode(rim) if len(rim) else {z}\nreturn out"
add("object_rim", OBJECTS.replace("{k}", "1") + AROUND + PUT, n=BOTH)
EMPTY = "objects = [obj for obj in dsl.objects(grid, 0, 1, None) if obj.colour == {z}]\n"
add("area_rim", EMPTY + AROUND + PUT)

# ------------------------------------------------------------------------------------------------ roles
COUNTS = "colours, counts = np.unique(grid, return_counts=True)\n"
RANK = "rank = (counts[:, None] %s counts).sum(1)\n"
OF_COLOUR = "return np.minimum(rank, 9)[np.searchsorted(colours, grid)]"
add("commoner", COUNTS + RANK % "<" + OF_COLOUR)
add("rarer", COUNTS + RANK % ">" + OF_COLOUR)
add("colour_at", "return np.full_like(grid, grid[{k}, {n}])", k=(0, -1), n=(0, -1))
CHOSEN = OBJECTS.replace("{k}", "1") + "objects.sort(key=lambda obj: obj.area)\n"
CHOSEN += "return np.full_like(grid, objects[{m}].colour)"
add("colour_of_object", CHOSEN, n=(1,), m=(0, -1))
ROLE = COUNTS + "order = colours[counts.argsort()]\nreturn np.full_like(grid, order[{k}])"
add("colour_of_rank", ROLE, k=(0, 1, -1, -2, -3))
add("turned_grid", "return np.rot90(grid, {k})", k=(1, 2, 3))
