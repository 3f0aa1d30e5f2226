"""Families of ARC transformations about objects: choose some by a property and crop, keep, remove or paint
them; draw on, around and inside them; move them.

A program finds its objects by `dsl.objects(grid, {n}, {m}, {z})`: n says whether corners connect, m whether
different colours stay apart. So a search over n and m tries each way to see objects. Many families are
products of a way to choose objects and of what becomes of them. Programs may call the functions of dsl.py.
Inputs are drawn until the program changes something in them; parameters are as in families.py, with m as a
third number."""

from functools import partial

import numpy as np

from games.arc import dsl
from games.arc.families import Family, Rejected, mixed, palette
from games.arc.prompts import source

FAMILIES = {}
SCENES = 60  # scenes drawn for one input before its parameters are given up
BOTH = (0, 1), ()
TURNS = (0, 1, 2, 3), ()
ENDS = (0, -1), ()
PLACE = (0, -1), (1, -2)


# ------------------------------------------------------------------------------------------------ inputs
def program(body, p):
    """The function with this body and these parameters; only for bodies of our own."""
    scope = {"np": np, "dsl": dsl}
    exec(source(body.format(**p)), scope)
    return scope["task"]


def meant_for(body, scene, partly=False):
    """The function that draws inputs by `scene` until one holds the needed colours and suits the body, which
    must change it. partly: some cells that are not background must stay as they are."""

    def inputs(rng, p):
        solve = program(body, p)
        needed = {p[x] for x in "ab" if x in p}
        for _ in range(SCENES):
            grid = scene(rng, p)
            try:
                out = solve(grid)
            except (IndexError, ValueError):  # for example two objects in a tie, or none
                continue
            if not out.size or np.array_equal(out, grid) or not needed <= {*grid.flat}:
                continue
            if not partly or out.shape != grid.shape or (out == grid)[grid != 0].any():
                return grid
        raise Rejected("no scene that suits the program")

    return inputs


def blob(rng):
    """The mask of a small shape: a rectangle, a ring or random cells."""
    mask = np.full(rng.integers(1, 4, 2), True)
    chance = rng.random()
    if chance < 0.25:
        mask = np.full((3, rng.integers(3, 5)), True)
        mask[1, 1:-1] = False
    elif chance < 0.7:
        mask &= rng.random(mask.shape) < 0.75
        mask.flat[rng.integers(mask.size)] = True
    return mask


def scene(rng, p, low=6, high=7, most=4):
    """Up to `most` objects that do not touch, in three colours; of two colours each, where m is 0. Some have
    the shape of another one."""
    colours = palette(rng, p, 3)
    grid = np.zeros(rng.integers(low, high + 1, 2), int)
    masks = []
    for _ in range(rng.integers(most - 1, most + 1)):
        mask = blob(rng)
        if masks and rng.random() < 0.4:
            mask = masks[rng.integers(len(masks))]
        part = mask * rng.choice(colours)
        if p.get("m") == 0:
            speckled = rng.random(mask.shape) < 0.3 * rng.integers(2)
            part = np.where(speckled, mask * rng.choice(colours), part)
        i, j = [rng.integers(room + 1) for room in np.subtract(grid.shape, mask.shape)]
        height, width = mask.shape
        if not grid[max(i - 1, 0) : i + height + 1, max(j - 1, 0) : j + width + 1].any():
            grid[i : i + height, j : j + width] = part
            masks.append(mask)
    return grid


def roomy(rng, p):
    """A larger scene, for programs whose outputs are small."""
    return scene(rng, p, 7, 9, 5)


def rings(rng, p):
    """Two rings, with cells of other colours inside."""
    grid = np.zeros((rng.integers(6, 8), 11), int)
    colours = palette(rng, p, 4)
    for j in (0, 6):
        height = rng.integers(4, len(grid) + 1)
        part = colours[rng.integers(2, 4, (height, rng.integers(4, 6)))] * (rng.random() < 0.7)
        part[[0, -1]] = part[:, [0, -1]] = rng.choice(colours[:2])
        i = rng.integers(len(grid) - height + 1)
        grid[i : i + height, j : j + part.shape[1]] = part
    return grid


def beside(rng, p):
    """A scene with one or two cells of colour a, each beside an object."""
    others = {x: p[x] for x in p if x != "a"}
    grid = scene(rng, others)
    for _ in range(rng.integers(1, 3)):
        free = np.argwhere(dsl.near(grid != 0, 0))
        if len(free):
            grid[tuple(rng.choice(free))] = p["a"]
    return grid


def walls(rng, p):
    """One colour on half of the cells: areas of background of all sizes between them."""
    return mixed(rng, p, 5, 7, n=1)


def thin_walls(rng, p):
    """Walls, and cells of colour a in some of the areas."""
    grid = mixed(rng, {"palette": p["palette"]}, 5, 7, n=1, share=0.55)
    grid.flat[rng.integers(grid.size, size=2)] = p["a"]
    return grid


def airy(rng, p):
    """One or two objects with much space around them."""
    return scene(rng, {**p, "m": 0}, 7, 7, 2)


def keyed(rng, p):
    """Colour a on a part of the cells, and other colours along all borders."""
    grid = mixed(rng, {"palette": [p["a"]]}, 4, 6, n=1)
    for side in (grid[0], grid[-1], grid[:, 0], grid[:, -1]):
        side[:] = rng.choice(p["palette"][:3], len(side))
    return grid


def keyed_all(rng, p):
    """The same with any first colour."""
    return keyed(rng, {**p, "a": p["palette"][3]})


def regions(rng, p):
    """Rectangles laid on each other, in three colours and without background."""
    colours = palette(rng, p, 3)
    grid = np.full(rng.integers(5, 7, 2), colours[0])
    for _ in range(3):
        i, j = rng.integers(0, 5, 2)
        height, width = rng.integers(1, 4, 2)
        grid[i : i + height, j : j + width] = rng.choice(colours)
    return grid


def spotted(rng, p):
    """Regions with single cells of other colours."""
    grid = regions(rng, p)
    grid.flat[rng.integers(grid.size, size=2)] = p["palette"][3]
    return grid


def solid(rng, p):
    """One large object, not quite a rectangle."""
    grid = np.zeros(rng.integers(6, 8, 2), int)
    i, j = rng.integers(0, 2, 2)
    height, width = rng.integers(3, 6, 2)
    grid[i : i + height, j : j + width] = p["palette"][0]
    grid[i + rng.integers(height) :, j + rng.integers(1, width) :] = 0
    return grid


# ------------------------------------------------------------------------------------------------ families
def add(name, scene, body, kind="", **values):
    assert name not in FAMILIES, name
    partly = kind.startswith("object")
    FAMILIES[name] = Family(name, meant_for(body, scene, partly), body, kind, values)


OBJECTS = "objects = dsl.objects(grid, {n}, {m}, {z})\n"
CHOICE = dict(n=BOTH, m=BOTH)
APART = dict(n=BOTH, m=((1,), ()))  # for objects of one colour only
MIXED = dict(n=BOTH, m=((0,), ()))  # for objects of several colours only
IMAGE = "obj.image({z})"
FORM = "dsl.form(obj.image({z}), {z})"
FORMS = f"forms = [{FORM} for obj in objects]\n"
COLOURS = "colours = [obj.colour for obj in objects]\n"
# What objects can be put in order by; place k of that order is found, with all that share it.
KEYS = {
    "area": "obj.area",
    "height": "obj.height",
    "width": "obj.width",
    "top": "obj.top",
    "left": "obj.left",
    "gaps": "obj.height * obj.width - obj.area",
    "holes": f"dsl.holes({IMAGE}, {{z}})",
    "colours": "len(np.unique(obj.colours))",
    "speckles": "(obj.colours != obj.colour).sum()",
    "alike": f"forms.count({FORM})",
    "kin": "colours.count(obj.colour)",
    "share": "(obj.colours == {a}).sum()",
    "touch": "(grid[dsl.near(obj.mask(), 1)] == {a}).sum()",
}
# What an object can be (k = 1) or not be (k = 0).
PROPERTIES = {
    "square": "obj.is_square",
    "rectangle": "obj.is_rectangle",
    "line": "obj.is_line",
    "upright": "(obj.height > obj.width)",
    "at_border": "(obj.area > obj.mask()[1:-1, 1:-1].sum())",
    "closed": f"(dsl.holes({IMAGE}, {{z}}) > 0)",
    "mirrored": f"dsl.is_mirrored({IMAGE})",
    "repeated": f"(forms.count({FORM}) > 1)",
    "with_a": "({a} in obj.colours)",
    "next_to_a": "({a} in grid[dsl.near(obj.mask(), 1)])",
}
# Properties with a number: the expression, and the values of k.
NUMBERS = {
    "area": ("obj.area == {k}", ((1, 2, 3, 4), (5, 6))),
    "small": ("obj.area < {k}", ((2, 3, 4, 5), (6, 8, 10))),
    "big": ("obj.area >= {k}", ((2, 3, 4, 5), (6, 8, 10))),
    "holes": (f"dsl.holes({IMAGE}, {{z}}) == {{k}}", ((0, 1, 2), (3, 4))),
    "colours": ("len(np.unique(obj.colours)) == {k}", ((1, 2), (3,))),
}
PAINT = "return dsl.paint(grid, found, {c})"
ERASE = "return dsl.paint(grid, found, {z})"
KEEP = "return dsl.paint(grid, [obj for obj in objects if obj not in found], {z})"
WINDOW = "dsl.crop(grid, obj.top, obj.left, obj.height, obj.width)"
# Several objects found must all give the same crop.
ONLY = "return dsl.only([%s for obj in found])"
CROP = ONLY % IMAGE
SAME_SHAPE = {"paint": PAINT, "erase": ERASE, "keep": KEEP}
SMALLER = {
    "crop": CROP,
    "window": ONLY % WINDOW,
    "colour": ONLY % "np.full((1, 1), obj.colour)",
}


def listed(text):
    """The lines that make the lists which an expression over `obj` reads."""
    lines = OBJECTS
    if "forms" in text:
        lines += FORMS
    if "colours.count" in text:
        lines += COLOURS
    return lines


def by_key(name, key, scene, end):
    """Add the family that finds objects by a key; `end` says what becomes of them."""
    text = KEYS[key]
    choice = CHOICE
    if key == "touch":
        scene = beside
        choice = APART
    found = f"found = dsl.ranked(objects, [{text} for obj in objects], {{k}})\n"
    add(f"{name}_by_{key}", scene, listed(text) + found + end, f"object {name}", **choice, k=PLACE)


for key in KEYS:
    for name, end in SAME_SHAPE.items():
        by_key(name, key, scene, end)
    for name, end in SMALLER.items():
        by_key(name, key, roomy, end)
# The object in one colour; all others in its colour; its box without the outermost cells.
for key in ("area", "colours", "share"):
    by_key("silhouette", key, roomy, ONLY % "np.where(obj.image({z}) == {z}, {z}, obj.colour)")
    by_key("spread", key, scene, "return dsl.paint(grid, objects, found[0].colour)")
    by_key("inner", key, rings, ONLY % f"{WINDOW}[1:-1, 1:-1]")

for name, text in PROPERTIES.items():
    found = listed(text) + f"found = [obj for obj in objects if {text} == {{k}}]\n"
    inputs = beside if "near" in text else scene
    add(f"paint_{name}", inputs, found + PAINT, "object paint", **CHOICE, k=BOTH)
    add(f"erase_{name}", inputs, found + ERASE, "object erase", **CHOICE, k=BOTH)
    add(f"crop_{name}", roomy, found + CROP, "object crop", **CHOICE, k=BOTH)
    if "{a}" in text:
        body = found.replace("{k}", "1") + "return dsl.paint(grid, found, {a})"
        choice = APART if "near" in text else MIXED
        add(f"catch_{name}", inputs, body, "object paint", **choice)
for name, (text, values) in NUMBERS.items():
    found = OBJECTS + f"found = [obj for obj in objects if {text}]\n"
    add(f"paint_of_{name}", scene, found + PAINT, "object paint", **CHOICE, k=values)
    add(f"erase_of_{name}", scene, found + ERASE, "object erase", **CHOICE, k=values)
    add(f"crop_of_{name}", roomy, found + CROP, "object crop", **CHOICE, k=values)

# Areas of background are objects too.
AREAS = "areas = [obj for obj in dsl.objects(grid, {n}, 1, None) if obj.colour == {z}]\n"
AREAS_IF = AREAS + "found = [obj for obj in areas if %s]\n" + PAINT
OPEN = PROPERTIES["at_border"] + " == {k}"
add("area_at_border", walls, AREAS_IF % OPEN, "area", n=BOTH, k=BOTH)
add("area_square", walls, AREAS_IF % "obj.is_square == {k}", "area", n=BOTH, k=BOTH)
add("area_rectangle", walls, AREAS_IF % "obj.is_rectangle == {k}", "area", n=BOTH, k=BOTH)
for name in ("area", "small", "big"):
    text, values = NUMBERS[name]
    add(f"area_of_{name}", walls, AREAS_IF % text, "area", n=BOTH, k=values)
TOUCHED = PROPERTIES["next_to_a"] + " == {k}"
add("area_next_to_a", thin_walls, AREAS_IF % TOUCHED, "area", n=BOTH, k=BOTH)
add("area_flooded", thin_walls, (AREAS_IF % TOUCHED).replace("{c}", "{a}"), "area", n=BOTH, k=((1,), ()))
RANKED_AREAS = AREAS + "found = dsl.ranked(areas, [obj.area for obj in areas], {k})\n" + PAINT
add("area_by_size", walls, RANKED_AREAS, "area", n=BOTH, k=PLACE)

# Drawn on each object.
EACH = OBJECTS + "out = grid.copy()\nfor obj in objects:\n    "
BOX = "box = out[obj.top:obj.top + obj.height, obj.left:obj.left + obj.width]\n    "
DONE = "\nreturn out"
FAR_CORNER = "(obj.top + obj.height - 1, obj.left + obj.width - 1)"
AROUND_BOX = "(obj.top - 1, obj.left - 1), (obj.top + obj.height, obj.left + obj.width)"
RING = f"out = dsl.draw_rectangle(out, {AROUND_BOX}, {{c}})"
add("box_gaps", scene, EACH + BOX + "box[box == {z}] = {c}" + DONE, "box", **CHOICE)
add("box_full", scene, EACH + BOX + "box[box == {z}] = obj.colour" + DONE, "box", **CHOICE)
add("box_ring", scene, EACH + RING + DONE, "box", **CHOICE)
add("box_centre", scene, EACH + "out[obj.centre] = {c}" + DONE, "box", **CHOICE)
CORNERS = "box[::max(obj.height - 1, 1), ::max(obj.width - 1, 1)] = {c}"
add("box_corners", scene, EACH + BOX + CORNERS + DONE, "box", **CHOICE)
add("box_flip", scene, EACH + BOX + "box[:] = np.flip(box, {k}).copy()" + DONE, "box", **CHOICE, k=BOTH)
add("box_half_turn", scene, EACH + BOX + "box[:] = box[::-1, ::-1].copy()" + DONE, "box", **CHOICE)
ONE_COLOUR = EACH + "out = dsl.recolour(out, obj, dsl.%s(obj.colours))" + DONE
add("rare_colour", scene, ONE_COLOUR % "least", "box", **MIXED)
add("usual_colour", scene, ONE_COLOUR % "mode", "box", **MIXED)
SOLID = f"out = dsl.draw_rectangle(out, (obj.top, obj.left), {FAR_CORNER}, obj.colour, True)"
add("box_solid", scene, EACH + SOLID + DONE, "box", **MIXED)
# A copy of each box, its mirror image or the box itself, k heights lower and m widths to the right.
SOURCE = EACH.replace("{m}", "0") + f"part = {WINDOW}\n    "
THERE = "out = dsl.paste(out, part, obj.top + {k} * obj.height, obj.left + {m} * obj.width, {z})"
REFLECT = "part = part[::1 - 2 * abs({k}), ::1 - 2 * abs({m})]\n    "
LEAVE = "out = dsl.recolour(out, obj, {z})\n    "
ASIDE = dict(n=BOTH, k=((-1, 0, 1), ()), m=((-1, 0, 1), ()))
for name, change in {"copy": "", "reflect": REFLECT, "leap": LEAVE}.items():
    add(f"{name}_each", airy, SOURCE + change + THERE + DONE, "aside", **ASIDE)
add("box_ring_own", scene, EACH + RING.replace("{c}", "obj.colour") + DONE, "box", **CHOICE)
TWO = "first, last = np.unique(obj.colours)\n    "
SWAP = "out[obj.mask()] = np.where(obj.colours == first, last, first)"
add("swap_in_each", scene, EACH + TWO + SWAP + DONE, "box", **MIXED)
GROW = EACH + "out[dsl.near(obj.mask(), {k}) & (grid == {z})] = obj.colour" + DONE
add("grow", scene, GROW, "box", **APART, k=BOTH)

# Objects of colour a take the colour of another one: of the same shape or area, or of the nearest.
OTHERS = "others = [obj for obj in objects if obj.colour != {a}]\n"
OF_A = OBJECTS + OTHERS + "out = grid.copy()\nfor obj in objects:\n    if obj.colour == {a}:\n        "
TAKE = "out = dsl.recolour(out, obj, other.colour)" + DONE
FIRST = "other = next((other for other in others if %s), obj)\n        " + TAKE
NEAREST = "other = min(others, key=lambda other: abs(np.subtract(other.centre, obj.centre)).sum())\n        "
SAME_FORM = f"{FORM} == {FORM.replace('obj', 'other')}"
add("colour_of_form", scene, OF_A + FIRST % SAME_FORM, "take", **APART)
add("colour_of_area", scene, OF_A + FIRST % "other.area == obj.area", "take", **APART)
add("colour_of_nearest", scene, OF_A + NEAREST + TAKE, "take", **APART)

# One-coloured regions of a grid, those of the background as well.
REGIONS = "objects = dsl.objects(grid, {n}, 1, None)\n"
for key in ("area", "gaps", "height", "width"):
    found = REGIONS + f"found = dsl.ranked(objects, [{KEYS[key]} for obj in objects], {{k}})\n"
    for name, end in {"paint": PAINT, "window": ONLY % WINDOW, "colour": SMALLER["colour"]}.items():
        add(f"region_{name}_by_{key}", regions, found + end, f"region {name}", n=BOTH, k=PLACE)
AROUND = "dsl.mode(grid[dsl.near(obj.mask(), 0)])"
SMALL = REGIONS + "out = grid.copy()\nfor obj in objects:\n    if obj.area < {k}:\n        "
SMALL += f"out = dsl.recolour(out, obj, {AROUND})" + DONE
add("clean", spotted, SMALL, "clean", n=BOTH, k=((2, 3), (4, 5)))
CLOSED = AREAS + "out = grid.copy()\nfor obj in areas:\n"
CLOSED += "    if obj.area == obj.mask()[1:-1, 1:-1].sum():\n        "
add("fill_closed_own", scene, CLOSED + f"out = dsl.recolour(out, obj, {AROUND})" + DONE, "clean", n=BOTH)
IMAGES = "images = [obj.image({z}) for obj in sorted(objects, key=lambda obj: obj.%s)]\n"
add("images_in_a_row", roomy, OBJECTS + IMAGES % "left" + "return np.hstack(images)", "images", **CHOICE)
add("images_in_a_column", roomy, OBJECTS + IMAGES % "top" + "return np.vstack(images)", "images", **CHOICE)
OVER = "out = images[0]\nfor image in images:\n    out = np.where(out == {z}, image, out)\nreturn out"
add("images_on_each_other", roomy, OBJECTS + IMAGES % "area" + OVER, "images", **CHOICE)

# Cells by their neighbours.
NEAR = "return np.where(%s, {c}, grid)"
FRAMED = "full = np.pad(grid, 1, constant_values={z})\n"
EDGE = "(dsl.near(full == {z}, {n}) & (full != {z}))[1:-1, 1:-1]"
INSIDE = "(~dsl.near(full == {z}, {n}) & (full != {z}))[1:-1, 1:-1]"
add("near", scene, NEAR % "(grid == {z}) & dsl.near(grid != {z}, {n})", "cells", n=BOTH)
add("near_a", scene, NEAR % "(grid == {z}) & dsl.near(grid == {a}, {n})", "cells", n=BOTH)
add("near_b", partial(mixed, low=5), NEAR % "(grid == {b}) & dsl.near(grid == {a}, {n})", "cells", n=BOTH)
add("edge_near", walls, FRAMED + NEAR % EDGE, "cells", n=BOTH)
add("core", walls, FRAMED + NEAR % INSIDE, "cells", n=BOTH)
add("hollow", solid, FRAMED + NEAR.replace("{c}", "{z}") % INSIDE, "cells", n=BOTH)
add("peel", solid, FRAMED + NEAR.replace("{c}", "{z}") % EDGE, "cells", n=BOTH)

# Moves. After quarter turns every fall is one downwards; the lowest objects fall first.
FALL = "grid = np.rot90(grid, {k})\nobjects = dsl.objects(grid, {n}, {m}, {z})\n"
FALL += "for obj in sorted(objects, key=lambda obj: -obj.top - obj.height):\n    "
FALL_ALL = FALL + "grid = dsl.slide(grid, obj, 1, 0, {z})\n"
FALL_A = FALL + "if obj.colour == {a}:\n        grid = dsl.slide(grid, obj, 1, 0, {z})\n"
BACK = "return np.rot90(grid, -{k})"
add("fall", scene, FALL_ALL + BACK, "move", **CHOICE, k=TURNS)
add("fall_a", scene, FALL_A + BACK, "move", n=BOTH, m=((1,), ()), k=TURNS)
# Each object of colour a goes to the nearest of colour b.
TO_B = "objects = dsl.objects(grid, {n}, 1, {z})\ngoals = [obj for obj in objects if obj.colour == {b}]\n"
TO_B += "for obj in [obj for obj in objects if obj.colour == {a}]:\n"
TO_B += "    goal = min(goals, key=lambda goal: abs(np.subtract(goal.centre, obj.centre)).sum())\n"
TO_B += "    i, j = dsl.towards(obj, goal)\n    "
add("slide_to", scene, TO_B + "grid = dsl.slide(grid, obj, i, j, {z})\nreturn grid", "move", n=BOTH)
STEP = TO_B + "grid = dsl.move(grid, obj, {k} * i, {k} * j, {z})\nreturn grid"
add("step_to", scene, STEP, "move", n=BOTH, k=((1, 2, -1), ()))
SHIFT = "cells = np.argwhere(grid == {a})\nout = np.where(grid == {a}, {z}, grid)\n"
SHIFT += "return dsl.draw_cells(out, cells + ({k}, {m}), {a})"
OFFSET = (-1, 0, 1), (-2, 2)
add("shift_a", scene, SHIFT, "move", k=OFFSET, m=OFFSET)

# Cells of colour a take the colour at the end of their row or column.
add("row_key", keyed, "return np.where(grid == {a}, grid[:, [{k}]], grid)", "key", k=ENDS)
add("row_key_all", keyed_all, "return np.where(grid == {z}, {z}, grid[:, [{k}]])", "key", k=ENDS)
add("column_key_all", keyed_all, "return np.where(grid == {z}, {z}, grid[[{k}]])", "key", k=ENDS)
add("column_key", keyed, "return np.where(grid == {a}, grid[[{k}]], grid)", "key", k=ENDS)
