"""What ARC programs may call: inverses, each function by its plain definition, objects by brute force."""

import itertools
from collections import Counter

import numpy as np
import pytest

from games.arc import dsl

RNG = np.random.default_rng(0)
SHAPES = [(1, 1), (1, 6), (5, 1), (3, 7), (7, 4), (6, 5)]
GRIDS = [RNG.integers(0, colours, shape) for shape in SHAPES for colours in (3, 10)]
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.shape}-{grid.max()}")


def draw(text):
    """Rows of digits as a grid; a point is background."""
    return np.array([[int(cell) for cell in row.replace(".", "0")] for row in text.split()])


def built(shape, colour):
    """The grid whose cell (i, j) is colour(i, j), as lists: definitions are written with it."""
    return [[colour(i, j) for j in range(shape[1])] for i in range(shape[0])]


def cells_of(obj):
    return [tuple(cell) for cell in obj.cells.tolist()]


# ------------------------------------------------------------------------------------- every function at once
GRID = draw("1120 .110 2.03")
OBJECT = dsl.objects(GRID)[0]
CALLS = {  # name -> arguments behind the grid, among them those that change nothing and could give it back
    "mode": [()],
    "least": [()],
    "map_colours": [({0: 1, 1: 0},), ({},)],
    "crop": [(0, 0, 3, 4), (1, 1, 2, 1)],
    "trim": [(), (11,)],
    "upscale": [(1,), (2,)],
    "shift": [(0, 0), (1, -1), (9, 0)],
    "rays": [(GRID == 2, dsl.STEPS), (GRID == 2, dsl.STEPS, 7, 1, 0, 1), (GRID > 9, dsl.STEPS)],
    "symmetric": [(1, 0), (0, 1)],
    "unit": [()],
    "neighbours": [(dsl.STEPS,), (dsl.STEPS, 1)],
    "spread": [(np.ones((3, 4), bool), dsl.STEPS)],
    "enclosed": [(0,), (0, True)],
    "draw_cells": [([(0, 0), (9, 9)], 5)],
    "draw_line": [((0, 0), (2, 2), 5)],
    "draw_rectangle": [((0, 0), (2, 2), 5)],
    "paste": [(GRID, 1, 1), (GRID, 9, 9)],
    "move": [(OBJECT, 1, 0)],
    "recolour": [(OBJECT, 5)],
    "components": [(True,)],
    "objects": [(), (True, False)],
    "paint": [([], 5), ([OBJECT], 5)],
    "near": [(True,), (False,)],
    "between": [(0,), (1,)],
    "holes": [()],
    "is_mirrored": [()],
    "slide": [(OBJECT, 1, 0)],
    "panels": [(False,)],
}
ON_OTHERS = {"ranked", "only", "form", "towards", "panel_rows"}  # the first argument or the result is no grid
ON_OTHERS |= {"retile", "lattice", "gaps", "each_part", "paint_parts"}  # or not every grid will do
NUMBERS = ("mode", "least", "components", "holes", "is_mirrored", "neighbours", "spread", "enclosed")


@pytest.mark.parametrize("name", CALLS)
def test_arguments_are_left_alone_results_are_new_and_keep_their_type(name):
    others = {"Object", "dataclass", "layers", *ON_OTHERS}
    assert {name for name, value in vars(dsl).items() if callable(value)} == {*CALLS, *others}
    for arguments in CALLS[name]:
        given = [GRID.astype(np.int8), OBJECT.cells, OBJECT.colours]
        before = [array.copy() for array in given]
        out = getattr(dsl, name)(given[0], *arguments)
        for array in out if isinstance(out, list) else [out]:
            if isinstance(array, dsl.Object):
                parts = [array.cells, array.colours, array.mask(), array.image()]
                assert array.image().dtype == np.int8
            else:
                parts = [array]
                assert name in NUMBERS or array.dtype == np.int8
            assert not any(np.shares_memory(part, other) for part in parts for other in [*given, GRID])
        assert all((new == old).all() for new, old in zip(given, before))


# ------------------------------------------------------------------------------------------------- colour
@each_grid
def test_mode_and_least_by_counting(grid):
    counts = Counter(grid.ravel().tolist())
    assert dsl.mode(grid) == min(c for c in counts if counts[c] == max(counts.values()))
    assert dsl.least(grid) == min(c for c in counts if counts[c] == min(counts.values()))
    assert type(dsl.mode(grid)) is int and type(dsl.least(grid)) is int
    assert (dsl.mode(draw("55 22")), dsl.least(draw("..55 95.5"))) == (2, 9)  # a tie; a colour that is absent


# ---------------------------------------------------------------------------------- colour, size, turn, draw
EXAMPLES = [  # a call, and the picture of what it gives
    (lambda: dsl.map_colours(draw("012 110"), {0: 1, 1: 2, 2: 0}), "120 221"),  # all at once
    (lambda: dsl.crop(draw("123 456 789"), 1, 0, 2, 1), "4 7"),
    (lambda: dsl.crop(draw("123 456 789"), 0, 1, 1, 2), "23"),
    (lambda: dsl.trim(draw("..... ..1.. .2... .....")), ".1 2."),
    (lambda: dsl.trim(draw("333 3.3 333 333"), background=3), "."),
    (lambda: dsl.upscale(draw("12 .3"), 2), "1122 1122 ..33 ..33"),
    (lambda: dsl.draw_cells(draw("... ..."), [(0, 0), (-1, 0), (1, 2), (2, 0)], [1, 2, 3, 4]), "1.. ..3"),
    (lambda: dsl.draw_line(draw("... ... ..."), (0, 0), (2, 2), 8), "8.. .8. ..8"),
    (lambda: dsl.draw_line(draw("... ... ..."), (2, 0), (0, 2), 8), "..8 .8. 8.."),
    (lambda: dsl.draw_line(draw("... ... ..."), (1, 2), (1, 1), 8), "... .88 ..."),
    (lambda: dsl.draw_line(draw("... ... ..."), (0, 1), (2, 1), 8), ".8. .8. .8."),
    (lambda: dsl.draw_line(draw("... ... ..."), (1, 1), (1, 1), 8), "... .8. ..."),
    (lambda: dsl.draw_rectangle(draw(".... .... .... ...."), (3, 0), (1, 2), 8), ".... 888. 8.8. 888."),
    (lambda: dsl.draw_rectangle(draw(".... .... .... ...."), (1, 2), (3, 0), 8, True), ".... 888. 888. 888."),
    (lambda: dsl.paste(draw("1111 1111"), PART, 1, 1), "1111 1.67"),  # a part covers with all its cells
    (lambda: dsl.paste(draw("1111 1111"), PART, -1, 2, transparent=0), "1171 1111"),
    (lambda: dsl.paste(draw("1111 1111"), PART, 0, -1, transparent=7), "6111 .611"),
]
PART = draw(".67 7.6")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples(number):
    call, picture = EXAMPLES[number]
    assert call().tolist() == draw(picture).tolist()


def rays(picture, *arguments, **named):
    """Rays from the cells of colour 1."""
    grid = draw(picture)
    return dsl.rays(grid, grid == 1, *arguments, **named)


PATTERNS = [  # a call, and the picture of what it gives; a mask is drawn with 1
    (lambda: dsl.shift(draw("123 456"), 1, -1), "... 23."),
    (lambda: dsl.shift(draw("123 456"), -1, 1, 9), "945 999"),
    (lambda: dsl.shift(draw("123 456"), 0, 3, 9), "999 999"),
    (lambda: dsl.neighbours(draw("1.1 .12"), dsl.STEPS), "111 12."),
    (lambda: dsl.neighbours(draw("1.1 .12"), dsl.STEPS[:4], 1), ".3. 2.2"),
    (lambda: dsl.neighbours(draw("1.1 .12") == 1, [(1, 0)], True), ".1. ..."),  # is the next cell down 1?
    (lambda: rays("1... .... 2..2", dsl.DIRECTIONS[1]), "1... 1... 1..2"),
    (lambda: rays("1... .... ..22", dsl.DIRECTIONS[5]), "1... .1.. ..12"),
    (lambda: rays("...1 .... .2..", dsl.DIRECTIONS[12], 5), "...1 ..5. .5.."),
    (lambda: rays(".1.2 ....", dsl.DIRECTIONS[9], stop=0), "1112 ...."),
    (lambda: rays(".1.2 ....", dsl.DIRECTIONS[10], stop=0, goal=2), ".112 ...."),
    (lambda: rays("..1.. .....", dsl.DIRECTIONS[14], 7, 1), ".717. .777."),
    (lambda: dsl.spread(draw("..2. ....") == 2, draw("1..1 1111") == 1, dsl.STEPS[:4]), "1..1 1111"),
    (lambda: dsl.spread(draw("2... ....") == 2, draw(".1.1 1..1") == 1, dsl.STEPS[:4]), ".1.. 1..."),
    (lambda: dsl.spread(draw("2... ....") == 2, draw(".... 1111") == 1, dsl.STEPS), ".... 1111"),
    (lambda: dsl.enclosed(draw("111. 1.1. 1111"), 0), ".... .1.. ...."),
    (lambda: dsl.enclosed(draw(".11. 1..1 .11."), 0), ".... .11. ...."),
    (lambda: dsl.enclosed(draw(".11. 1..1 .11."), 0, True), ".... .... ...."),  # out past a corner
    (lambda: dsl.symmetric(draw("1299 3499 1221"), 9, 1), "1221 3443 1221"),
    (lambda: dsl.symmetric(draw("5121. 5343."), 0, 1), "51215 53435"),
    (lambda: dsl.symmetric(draw("12 99 34 12"), 9, 0), "12 34 34 12"),
    (lambda: dsl.retile(draw("12129 34943 12121"), 9), "12121 34343 12121"),
    (lambda: dsl.retile(draw("1231 2912 3123"), 9, 1), "1231 2312 3123"),
    (lambda: dsl.unit(draw("12121 34343 12121")), "12 34"),
    (lambda: dsl.unit(draw("123 124")), "123 124"),
    (lambda: dsl.layers((3, 5)), "..... .111. ....."),
    (lambda: dsl.each_part(draw("125.. 345.. 55555 ..577"), dsl.mode), "1. .7"),
    (lambda: dsl.each_part(draw("12... 34... ..... 88.77"), len, line=0), "22 11"),
    (lambda: dsl.paint_parts(draw("125.. 345.. 55555 ..577"), draw("89 67")), "88599 88599 55555 66577"),
]


@pytest.mark.parametrize("number", range(len(PATTERNS)))
def test_examples_of_patterns(number):
    call, picture = PATTERNS[number]
    assert call().tolist() == draw(picture).tolist()


@each_grid
def test_directions_are_reached_by_rays_of_any_length(grid):
    """All eight steps together are the eight one after the other, and none leaves the grid."""
    starts = grid == 1
    together = dsl.rays(grid, starts, dsl.DIRECTIONS[14], 11)
    apart = grid
    for directions in dsl.DIRECTIONS[:8]:
        apart = np.where(dsl.rays(grid, starts, directions, 11) == 11, 11, apart)
    assert together.tolist() == apart.tolist()


@each_grid
def test_enclosed_areas_do_not_reach_the_border(grid):
    inside = np.zeros(grid.shape, bool)
    for part in dsl.components(grid == 0, diagonal=False):
        inside[tuple(part.T)] = (dsl.layers(grid.shape)[tuple(part.T)] > 0).all()
    assert dsl.enclosed(grid, 0).tolist() == inside.tolist()


def test_tiles_and_lattices_leave_their_grid_alone_and_keep_its_type():
    for picture, call in [
        ("12129 34943 12121", lambda grid: dsl.retile(grid, 9)),
        ("125.. 345.. 55555 ..577", lambda grid: dsl.paint_parts(grid, np.ones((2, 2), int))),
    ]:
        grid = draw(picture).astype(np.int8)
        out = call(grid)
        assert out.dtype == np.int8 and not np.shares_memory(out, grid)
        assert grid.tolist() == draw(picture).tolist()


def test_the_lines_of_a_lattice():
    rows, columns = dsl.lattice(draw("55555 5..5. 5..5. 55555"))
    assert (rows, columns) == ([slice(1, 3)], [slice(1, 3), slice(4, 5)])


OUTSIDE = [(-1, 0, 2, 2), (0, -1, 2, 2), (-2, 0, 1, 1), (3, 0, 2, 2), (0, 2, 2, 2), (0, 0, 0, 1)]
REFUSED = [("crop", window, "no window") for window in OUTSIDE]
REFUSED += [("symmetric", (0, 0), "no mirror"), ("lattice", (), "no one colour"), ("lattice", (5,), "no one")]
REFUSED += [("draw_line", ((0, 0), end, 1), "not horizontal") for end in [(1, 2), (-1, 3), (3, -2)]]


@pytest.mark.parametrize("name, arguments, message", [*REFUSED, ("trim", (), ".")])
def test_what_cannot_be_done_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(dsl, name)(np.zeros((4, 3), int), *arguments)


DRAWINGS = [  # drawn on a grid with a frame of f cells; a, b, c, d say where
    lambda on, f, a, b, c, d: dsl.draw_line(on, (a + f, b + f), (a + c + f, b + c * np.sign(d) + f), 8),
    lambda on, f, a, b, c, d: dsl.draw_rectangle(on, (a + f, b + f), (c + f, d + f), 8),
    lambda on, f, a, b, c, d: dsl.draw_rectangle(on, (a + f, b + f), (c + f, d + f), 8, fill=True),
]


@each_grid
def test_what_leaves_the_grid_is_cut_off(grid):
    """As if it were drawn on a grid with a frame so wide that nothing leaves it, and the frame taken off."""
    wide = np.pad(grid, 16, constant_values=11)
    places = np.random.default_rng(2).integers(-6, 9, (8, 4)).tolist()
    for drawing, place in itertools.product(DRAWINGS, places):
        expected = dsl.crop(drawing(wide, 16, *place), 16, 16, *grid.shape)
        assert drawing(grid, 0, *place).tolist() == expected.tolist()


# ------------------------------------------------------------------------------------------------ objects
def closure(grid, diagonal, one_colour, background):
    """The objects as a set of frozensets of cells, from powers of the matrix of neighbours."""
    cells = [cell for cell in np.ndindex(grid.shape) if grid[cell] != background]
    reach = np.eye(len(cells), dtype=int)
    for a, (i, j) in enumerate(cells):
        for b, (k, l) in enumerate(cells):
            touch = max(abs(i - k), abs(j - l)) == 1 if diagonal else abs(i - k) + abs(j - l) == 1
            reach[a, b] |= touch and (not one_colour or grid[i, j] == grid[k, l])
    for _ in range(6):  # paths of up to 64 steps: no grid here has more cells
        reach = np.minimum(reach @ reach, 1)
    return {frozenset(cell for cell, at in zip(cells, row) if at) for row in reach}


@each_grid
def test_objects_by_brute_force(grid):
    for diagonal, one_colour, background in itertools.product((True, False), (True, False), (0, 2, None)):
        found = dsl.objects(grid, diagonal, one_colour, background)
        assert {frozenset(cells_of(obj)) for obj in found} == closure(grid, diagonal, one_colour, background)


@each_grid
def test_objects_make_up_their_grid_in_reading_order(grid):
    for one_colour in (True, False):
        found = dsl.objects(grid, one_colour=one_colour)
        assert [cells_of(obj)[0] for obj in found] == sorted(cells_of(obj)[0] for obj in found)
        masks, images = np.zeros(grid.shape, int), np.zeros(grid.shape, int)
        for obj in found:
            assert cells_of(obj) == sorted(cells_of(obj)) and obj.area == obj.mask().sum()
            assert obj.mask().dtype == bool and obj.image().shape == (obj.height, obj.width)
            assert (obj.colours == grid[obj.mask()]).all() and obj.colour == dsl.mode(grid[obj.mask()])
            masks += obj.mask()
            images = dsl.paste(images, obj.image(), obj.top, obj.left, transparent=0)
        assert masks.tolist() == (grid > 0).tolist() and images.tolist() == grid.tolist()


def test_objects_connect_corners_and_one_colour_unless_told():
    grid = draw("12.. 2.3. ...3")
    assert [cells_of(obj) for obj in dsl.objects(grid)] == [[(0, 0)], [(0, 1), (1, 0)], [(1, 2), (2, 3)]]
    assert dsl.objects(np.zeros((2, 3), int)) == []


SHOWN = {  # picture -> area, colour, top, left, height, width, centre, is_line, is_rectangle, is_square
    "... .4. ...": (1, 4, 1, 1, 1, 1, (1, 1), False, True, True),
    "..... .111.": (3, 1, 1, 1, 1, 3, (1, 2), True, True, False),
    "2.. 2.. 2.. 2..": (4, 2, 0, 0, 4, 1, (1, 0), True, True, False),
    "..... .3... ..3.. ...3.": (3, 3, 1, 1, 3, 3, (2, 2), True, False, False),
    "....3 ...3.": (2, 3, 0, 3, 2, 2, (0, 3), True, False, False),
    ".55. .55.": (4, 5, 0, 1, 2, 2, (0, 1), False, True, True),
    ".66 .66 .66": (6, 6, 0, 1, 3, 2, (1, 1), False, True, False),
    "777 7.7 777": (8, 7, 0, 0, 3, 3, (1, 1), False, False, False),
    "8.. 8.. 88.": (4, 8, 0, 0, 3, 2, (1, 0), False, False, False),
    "9.9 .9.": (3, 9, 0, 0, 2, 3, (0, 1), False, False, False),
    "..1 221": (4, 1, 0, 0, 2, 3, (0, 1), False, False, False),
}


@pytest.mark.parametrize("picture", SHOWN)
def test_an_object_knows_its_shape(picture):
    (obj,) = dsl.objects(draw(picture), one_colour=False)
    where = (obj.area, obj.colour, obj.top, obj.left, obj.height, obj.width, obj.centre)
    assert (*where, obj.is_line, obj.is_rectangle, obj.is_square) == SHOWN[picture]


def test_an_object_is_cut_out_alone_and_outlives_its_grid():
    grid = draw("222. 2.22 2232")
    found = dsl.objects(grid)
    grid[:] = 9
    inner, outer = sorted(found, key=lambda obj: obj.area)
    assert inner.image().tolist() == [[3]]
    assert outer.image().tolist() == draw("222. 2.22 22.2").tolist()
    assert outer.image(background=7).tolist() == draw("2227 2722 2272").tolist()
    assert found.index(outer) == 0


@each_grid
def test_move_and_recolour_by_definition(grid):
    for obj in dsl.objects(grid, one_colour=False):
        own = dict(zip(cells_of(obj), obj.colours.tolist()))
        rest = built(grid.shape, lambda i, j, own=own: 11 if (i, j) in own else grid[i, j])
        assert dsl.recolour(grid, obj, 11).tolist() == rest
        for di, dj in [(0, 0), (1, 0), (0, -1), (-1, 1), (2, 3), (20, 0)]:
            at = {(i + di, j + dj): colour for (i, j), colour in own.items()}
            expected = built(grid.shape, lambda i, j, at=at, rest=rest: at.get((i, j), rest[i][j]))
            assert dsl.move(grid, obj, di, dj, background=11).tolist() == expected
    grid = draw("11.. 11.5 ....")
    moved = dsl.move(grid, dsl.objects(grid)[0], 1, 2)  # leaves black behind unless told otherwise
    assert moved.tolist() == draw(".... ..11 ..11").tolist()


# --------------------------------------------------------------------------------------- objects, counting
def test_ranked_takes_all_of_one_place():
    assert dsl.ranked("abcd", [3, 1, 3, 2], -1) == ["a", "c"]
    assert dsl.ranked("abcd", [3, 1, 3, 2], 0) == ["b"]
    assert dsl.ranked("abcd", [3, 1, 3, 2], 1) == dsl.ranked("abcd", [3, 1, 3, 2], -2) == ["d"]
    with pytest.raises(IndexError):
        dsl.ranked("ab", [1, 1], 1)


def test_only_needs_equal_grids():
    assert dsl.only([draw("12"), draw("12")]).tolist() == draw("12").tolist()
    for grids in ([], [draw("12"), draw("13")], [draw("12"), draw("12 12")]):
        with pytest.raises(ValueError, match="not all equal"):
            dsl.only(grids)


@each_grid
def test_near_and_between_by_definition(grid):
    mask = grid == grid[0, 0]
    on = lambda i, j: 0 <= i < grid.shape[0] and 0 <= j < grid.shape[1] and bool(mask[i, j])
    for diagonal in (False, True):
        steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if diagonal or not i or not j]
        beside = lambda i, j, steps=steps: not mask[i, j] and any(on(i + di, j + dj) for di, dj in steps)
        assert dsl.near(mask, diagonal).tolist() == built(grid.shape, beside)
    above = built(grid.shape, lambda i, j: not mask[i, j] and mask[:i, j].any() and mask[i:, j].any())
    assert dsl.between(mask, 0).tolist() == above
    assert dsl.between(mask.T, 1).T.tolist() == above


HOLES = {"...": 0, "111 1.1 111": 1, ".1. 1.1 .1.": 1, "11111 1.1.1 11111": 2, "111 1.1 1.1": 0, "1": 0}


@pytest.mark.parametrize("picture", HOLES)
def test_holes_are_closed(picture):
    grid = draw(picture)
    assert dsl.holes(grid) == dsl.holes(dsl.map_colours(grid, {0: 7}), 7) == HOLES[picture]


def test_form_is_the_same_for_turns_mirror_images_and_colours_only():
    grid = draw("12. .3. .33")
    for view in (grid, grid.T):
        for turns in range(4):
            assert dsl.form(np.rot90(view, turns)) == dsl.form(draw("55. .5. .55"))
    assert dsl.form(grid) != dsl.form(draw("12. .3. 33."))
    assert dsl.form(grid) == dsl.form(dsl.map_colours(grid, {0: 7}), 7)


def test_mirrored_is_upside_down_or_left_to_right():
    pictures = {"12 12": True, "11 22": True, "121": True, "12 21": False, "11 12": False}
    assert {picture: dsl.is_mirrored(draw(picture)) for picture in pictures} == pictures


def test_slide_stops_at_the_border_and_at_other_cells():
    grid = draw("11.. .1.. .... 2...")
    obj = dsl.objects(grid)[0]
    assert dsl.slide(grid, obj, 1, 0).tolist() == draw(".... .... 11.. 21..").tolist()
    assert dsl.slide(grid, obj, 0, 1).tolist() == draw("..11 ...1 .... 2...").tolist()
    assert dsl.slide(grid, obj, 1, 1).tolist() == draw(".... .... ..11 2..1").tolist()
    assert dsl.slide(grid, obj, -1, 0).tolist() == grid.tolist()
    with pytest.raises(ValueError, match="slide"):
        dsl.slide(grid, obj, 0, 0)


def test_towards_is_straight_where_rows_or_columns_are_shared():
    first, second, third = dsl.objects(draw("11.2 1... ...3"))
    assert (dsl.towards(first, second), dsl.towards(second, first)) == ((0, 1), (0, -1))
    assert (dsl.towards(third, second), dsl.towards(first, third)) == ((-1, 0), (1, 1))


PANELS = [  # a grid, lines or not, the rows of its parts
    ("1.512 2.5..", True, [["1. 2.", "12 .."]]),
    ("1.512 55555 2.53.", True, [["1.", "12"], ["2.", "3."]]),
    ("51 55 52", True, [["1"], ["2"]]),  # lines along the border cut nothing
    ("11.22 ..... 3.3.3", True, [["11.22"], ["3.3.3"]]),  # the background where no other colour has lines
    ("12 34 56 78", False, [["12 34"], ["56 78"]]),
    ("123456 654321", False, [["12 65", "34 43", "56 21"]]),
    ("1234 5678 8765", False, [["12 56 87", "34 78 65"]]),  # no squares: two halves
]


@pytest.mark.parametrize("picture, lines, expected", PANELS)
def test_panels(picture, lines, expected):
    rows = dsl.panel_rows(draw(picture), lines)
    assert [[part.tolist() for part in row] for row in rows] == [
        [draw(part).tolist() for part in row] for row in expected
    ]
    flat = itertools.chain(*rows)
    assert [part.tolist() for part in dsl.panels(draw(picture), lines)] == [part.tolist() for part in flat]


@pytest.mark.parametrize("picture, lines", [("12 34", True), ("123 456 789", False)])
def test_a_grid_that_cannot_be_cut_is_refused(picture, lines):
    with pytest.raises(ValueError):
        dsl.panels(draw(picture), lines)
