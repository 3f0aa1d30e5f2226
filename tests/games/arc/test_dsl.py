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
CALLS = {  # name -> calls, among them those that change nothing and could pass on what they were given
    "mode": [lambda grid, obj: dsl.mode(grid)],
    "least": [lambda grid, obj: dsl.least(grid)],
    "replace": [lambda grid, obj: dsl.replace(grid, 1, 2), lambda grid, obj: dsl.replace(grid, 11, 2)],
    "map_colours": [
        lambda grid, obj: dsl.map_colours(grid, {0: 1, 1: 0}),
        lambda grid, obj: dsl.map_colours(grid, {}),
    ],
    "crop": [
        lambda grid, obj: dsl.crop(grid, 0, 0, *grid.shape),
        lambda grid, obj: dsl.crop(grid, 1, 1, 2, 1),
    ],
    "trim": [lambda grid, obj: dsl.trim(grid), lambda grid, obj: dsl.trim(grid, 11)],
    "pad": [lambda grid, obj: dsl.pad(grid, 0), lambda grid, obj: dsl.pad(grid, 2, 3)],
    "upscale": [lambda grid, obj: dsl.upscale(grid, 1), lambda grid, obj: dsl.upscale(grid, 2)],
    "downscale": [lambda grid, obj: dsl.downscale(grid, 1), lambda grid, obj: dsl.downscale(grid, 2)],
    "tile": [lambda grid, obj: dsl.tile(grid, 1, 1), lambda grid, obj: dsl.tile(grid, 2, 3)],
    "rotate": [lambda grid, obj: dsl.rotate(grid), lambda grid, obj: dsl.rotate(grid, 4)],
    "flip": [lambda grid, obj: dsl.flip(grid, 0), lambda grid, obj: dsl.flip(grid, 1)],
    "transpose": [lambda grid, obj: dsl.transpose(grid)],
    "draw_cells": [lambda grid, obj: dsl.draw_cells(grid, [(0, 0), (9, 9)], 5)],
    "draw_line": [lambda grid, obj: dsl.draw_line(grid, (0, 0), (2, 2), 5)],
    "draw_rectangle": [lambda grid, obj: dsl.draw_rectangle(grid, (0, 0), (2, 2), 5)],
    "paste": [lambda grid, obj: dsl.paste(grid, grid, 1, 1), lambda grid, obj: dsl.paste(grid, grid, 9, 9)],
    "flood_fill": [lambda grid, obj: dsl.flood_fill(grid, 1, 1, 5)],
    "components": [lambda grid, obj: dsl.components(grid, True)],
    "objects": [lambda grid, obj: dsl.objects(grid), lambda grid, obj: dsl.objects(grid, one_colour=False)],
    "Object": [lambda grid, obj: [obj.mask(), obj.image()]],
    "move": [lambda grid, obj: dsl.move(grid, obj, 1, 0)],
    "recolour": [lambda grid, obj: dsl.recolour(grid, obj, 5)],
}


def test_the_table_of_calls_is_complete():
    own = {name for name, value in vars(dsl).items() if getattr(value, "__module__", "") == dsl.__name__}
    assert own == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_arguments_are_left_alone_and_results_are_new(name):
    for call in CALLS[name]:
        grid = draw("1120 .110 2.03")
        obj = dsl.objects(grid)[0]
        given = [grid, obj.cells, obj.colours]
        before = [array.copy() for array in given]
        out = call(grid, obj)
        for array in out if isinstance(out, list) else [out]:
            for part in [array.cells, array.colours] if isinstance(array, dsl.Object) else [array]:
                assert not any(np.shares_memory(part, other) for other in given)
        assert all((new == old).all() for new, old in zip(given, before))


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"mode", "least", "components", "objects", "Object"}))
def test_grids_keep_their_type(name):
    grid = draw("1120 .110 2.03").astype(np.int8)
    for call in CALLS[name]:
        assert call(grid, dsl.objects(grid)[0]).dtype == dsl.objects(grid)[0].image().dtype == np.int8


# ------------------------------------------------------------------------------------------------- colour
@each_grid
def test_mode_and_least_by_counting(grid):
    counts = Counter(grid.ravel().tolist())
    assert dsl.mode(grid) == min(c for c in counts if counts[c] == max(counts.values()))
    assert dsl.least(grid) == min(c for c in counts if counts[c] == min(counts.values()))


def test_mode_and_least_of_a_tie_and_of_a_colour_that_is_absent():
    assert (dsl.mode(draw("55 22")), dsl.least(draw("55 22"))) == (2, 2)
    assert (dsl.mode(draw("..55 95.5")), dsl.least(draw("..55 95.5"))) == (5, 9)
    assert type(dsl.mode(draw("12"))) is int and type(dsl.least(draw("12"))) is int


def test_colours_change_all_at_once():
    grid = draw("012 110")
    assert dsl.replace(grid, 1, 5).tolist() == draw("052 550").tolist()
    assert dsl.map_colours(grid, {0: 1, 1: 2, 2: 0}).tolist() == draw("120 221").tolist()
    assert dsl.map_colours(grid, {2: 1, 1: 2}).tolist() == draw("021 220").tolist()


@each_grid
def test_a_permutation_of_colours_is_undone_by_its_inverse(grid):
    to = dict(enumerate(np.random.default_rng(1).permutation(10).tolist()))
    out = dsl.map_colours(grid, to)
    assert out.tolist() == built(grid.shape, lambda i, j: to[grid[i, j]])
    assert dsl.map_colours(out, {new: old for old, new in to.items()}).tolist() == grid.tolist()


# --------------------------------------------------------------------------------------------------- size
def test_crop_gives_every_window():
    grid = np.arange(12).reshape(4, 3)
    for i, j in np.ndindex(4, 3):
        for height, width in np.ndindex(4 - i, 3 - j):
            out = dsl.crop(grid, i, j, height + 1, width + 1)
            assert out.tolist() == built((height + 1, width + 1), lambda a, b, i=i, j=j: grid[i + a, j + b])


@pytest.mark.parametrize(
    "window",
    [(-1, 0, 2, 2), (0, -1, 2, 2), (-2, 0, 1, 1), (3, 0, 2, 2), (0, 2, 2, 2), (0, 0, 0, 1), (0, 0, 1, 0)],
)
def test_crop_refuses_a_window_that_leaves_the_grid(window):
    with pytest.raises(ValueError, match="no window"):
        dsl.crop(np.zeros((4, 3), int), *window)


def test_trim_cuts_to_what_is_not_background():
    assert dsl.trim(draw("..... ..1.. .2... .....")).tolist() == draw(".1 2.").tolist()
    assert dsl.trim(draw("333 3.3 333 333"), background=3).tolist() == [[0]]
    for background in (0, 4):
        with pytest.raises(ValueError):
            dsl.trim(np.full((3, 2), background), background)


@each_grid
def test_pad_is_undone_by_crop_and_by_trim(grid):
    height, width = grid.shape
    for n in (0, 1, 3):
        shape, at = (
            (height + 2 * n, width + 2 * n),
            {(i + n, j + n): grid[i, j] for i, j in np.ndindex(grid.shape)},
        )
        out = dsl.pad(grid, n, 11)
        assert out.tolist() == built(shape, lambda i, j, at=at: at.get((i, j), 11))
        assert (
            dsl.crop(out, n, n, height, width).tolist()
            == dsl.trim(out, background=11).tolist()
            == grid.tolist()
        )


def test_a_frame_is_black_unless_told_and_not_negative():
    assert dsl.pad(draw("1"), 1).tolist() == draw("... .1. ...").tolist()
    with pytest.raises(ValueError):
        dsl.pad(draw("111 111 111"), -1)


@each_grid
def test_scales(grid):
    height, width = grid.shape
    for k in (1, 2, 3):
        large, small = dsl.upscale(grid, k), dsl.downscale(grid, k)
        assert large.tolist() == built((k * height, k * width), lambda i, j, k=k: grid[i // k, j // k])
        assert small.tolist() == built(
            (-(-height // k), -(-width // k)), lambda i, j, k=k: grid[k * i, k * j]
        )
        assert dsl.downscale(large, k).tolist() == grid.tolist()


@each_grid
def test_tile(grid):
    height, width = grid.shape
    for rows, columns in [(1, 1), (2, 3), (3, 1)]:
        expected = built((rows * height, columns * width), lambda i, j: grid[i % height, j % width])
        assert dsl.tile(grid, rows, columns).tolist() == expected


# --------------------------------------------------------------------------------------------------- turn
@each_grid
def test_turns_by_definition(grid):
    height, width = grid.shape
    assert dsl.rotate(grid).tolist() == built((width, height), lambda i, j: grid[height - 1 - j, i])
    assert dsl.flip(grid, 0).tolist() == built(grid.shape, lambda i, j: grid[height - 1 - i, j])
    assert dsl.flip(grid, 1).tolist() == built(grid.shape, lambda i, j: grid[i, width - 1 - j])
    assert dsl.transpose(grid).tolist() == built((width, height), lambda i, j: grid[j, i])


@each_grid
def test_turns_are_undone(grid):
    out = grid
    for turns in range(5):
        assert dsl.rotate(grid, turns).tolist() == out.tolist()
        assert dsl.rotate(dsl.rotate(grid, turns), -turns).tolist() == grid.tolist()
        out = dsl.rotate(out)
    assert dsl.rotate(grid, 4).tolist() == grid.tolist()
    assert dsl.flip(dsl.flip(grid, 0), 0).tolist() == dsl.flip(dsl.flip(grid, 1), 1).tolist() == grid.tolist()
    assert dsl.transpose(dsl.transpose(grid)).tolist() == grid.tolist()


def test_a_quarter_turn_is_clockwise():
    assert dsl.rotate(draw("123 456")).tolist() == draw("41 52 63").tolist()


# --------------------------------------------------------------------------------------------------- draw
def test_cells_take_one_colour_or_each_its_own():
    cells = [(0, 0), (-1, 0), (1, 2), (2, 0), (0, 3)]
    assert dsl.draw_cells(draw("... ..."), cells, 4).tolist() == draw("4.. ..4").tolist()
    assert dsl.draw_cells(draw("... ..."), cells, [1, 2, 3, 4, 5]).tolist() == draw("1.. ..3").tolist()


@pytest.mark.parametrize("di, dj", [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)])
def test_lines_in_all_directions_have_both_ends_and_nothing_else(di, dj):
    grid = RNG.integers(0, 5, (7, 9))
    line = {(3 + n * di, 4 + n * dj) for n in range(4)}
    expected = built(grid.shape, lambda i, j: 8 if (i, j) in line else grid[i, j])
    end = (3 + 3 * di, 4 + 3 * dj)
    assert dsl.draw_line(grid, (3, 4), end, 8).tolist() == expected
    assert dsl.draw_line(grid, end, (3, 4), 8).tolist() == expected


@pytest.mark.parametrize("end", [(1, 2), (2, 1), (-1, 3), (3, -2)])
def test_other_lines_are_refused(end):
    with pytest.raises(ValueError, match="not horizontal, vertical or diagonal"):
        dsl.draw_line(np.zeros((5, 5), int), (0, 0), end, 1)


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize(
    "corner, opposite", [((1, 1), (4, 3)), ((2, 5), (2, 0)), ((3, 3), (3, 3)), ((5, 1), (0, 4))]
)
def test_rectangles_hold_their_corners_in_any_order(corner, opposite, fill):
    grid = RNG.integers(0, 5, (6, 7))
    (top, bottom), (left, right) = [sorted(ends) for ends in zip(corner, opposite)]
    within = lambda i, j: top <= i <= bottom and left <= j <= right
    hollow = lambda i, j: top < i < bottom and left < j < right and not fill
    expected = built(grid.shape, lambda i, j: 8 if within(i, j) and not hollow(i, j) else grid[i, j])
    for first, last in [(corner, opposite), (opposite, corner), ((top, right), (bottom, left))]:
        assert dsl.draw_rectangle(grid, first, last, 8, fill).tolist() == expected


def test_a_rectangle_is_an_outline_unless_told():
    assert dsl.draw_rectangle(draw("... ... ..."), (0, 0), (2, 2), 1).tolist() == draw("111 1.1 111").tolist()


PART = draw(".67 7.6")
DRAWINGS = [  # drawn on a grid with a frame of f cells; a, b, c, d say where
    lambda on, f, a, b, c, d: dsl.draw_line(on, (a + f, b + f), (a + c + f, b + c * np.sign(d) + f), 8),
    lambda on, f, a, b, c, d: dsl.draw_rectangle(on, (a + f, b + f), (c + f, d + f), 8),
    lambda on, f, a, b, c, d: dsl.draw_rectangle(on, (a + f, b + f), (c + f, d + f), 8, fill=True),
    lambda on, f, a, b, c, d: dsl.paste(on, PART, a + f, b + f, transparent=0),
    lambda on, f, a, b, c, d: dsl.move(on, dsl.objects(on, background=11)[-1], a, b, background=10),
]


@each_grid
def test_what_leaves_the_grid_is_cut_off(grid):
    """As if it were drawn on a grid with a frame so wide that nothing leaves it, and the frame taken off."""
    wide = dsl.pad(grid, 16, 11)
    for drawing, place in itertools.product(
        DRAWINGS, np.random.default_rng(2).integers(-6, 9, (8, 4)).tolist()
    ):
        expected = dsl.crop(drawing(wide, 16, *place), 16, 16, *grid.shape)
        assert drawing(grid, 0, *place).tolist() == expected.tolist()


@each_grid
def test_paste_by_definition(grid):
    for i, j, transparent in itertools.product((-2, -1, 0, 2, 4), (-2, -1, 0, 3), (None, 0, 7)):
        on = {(i + a, j + b): PART[a, b] for a, b in np.ndindex(PART.shape) if PART[a, b] != transparent}
        expected = built(grid.shape, lambda a, b, on=on: on.get((a, b), grid[a, b]))
        assert dsl.paste(grid, PART, i, j, transparent).tolist() == expected


def test_a_part_covers_with_all_its_cells_unless_told():
    assert dsl.paste(draw("111 111"), PART, 0, 1).tolist() == draw("1.6 17.").tolist()
    assert dsl.paste(draw("111 111"), PART, 0, 1, transparent=0).tolist() == draw("116 171").tolist()


@each_grid
def test_flood_fill_recolours_the_object_of_its_cell(grid):
    parts = dsl.objects(grid, diagonal=False, background=None)
    for cell in np.ndindex(grid.shape):
        (around,) = [obj for obj in parts if cell in cells_of(obj)]
        assert dsl.flood_fill(grid, *cell, 11).tolist() == dsl.recolour(grid, around, 11).tolist()


def test_flood_fill_does_not_pass_corners_nor_the_border():
    assert dsl.flood_fill(draw("..1. .1.. 1..."), 0, 0, 2).tolist() == draw("221. 21.. 1...").tolist()
    for cell in [(-1, 0), (0, -1), (3, 0), (0, 4)]:
        with pytest.raises(ValueError, match="no window"):
            dsl.flood_fill(draw("..1. .1.. 1..."), *cell, 2)


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


def test_the_grids_tell_the_kinds_of_connection_apart():
    kinds = itertools.product((True, False), (True, False))
    assert len({sum(len(dsl.objects(grid, *kind)) for grid in GRIDS) for kind in kinds}) == 4


@each_grid
def test_objects_partition_what_is_not_background_in_reading_order(grid):
    for one_colour in (True, False):
        found = dsl.objects(grid, one_colour=one_colour)
        cells = [cell for obj in found for cell in cells_of(obj)]
        assert sorted(cells) == [cell for cell in np.ndindex(grid.shape) if grid[cell]]
        assert all(cells_of(obj) == sorted(cells_of(obj)) for obj in found)
        assert [cells_of(obj)[0] for obj in found] == sorted(cells_of(obj)[0] for obj in found)


@each_grid
def test_objects_make_up_their_grid(grid):
    for one_colour in (True, False):
        masks, images = np.zeros(grid.shape, int), np.zeros(grid.shape, int)
        for obj in dsl.objects(grid, one_colour=one_colour):
            assert obj.mask().dtype == bool and obj.image().shape == (obj.height, obj.width)
            assert (obj.colours == grid[obj.mask()]).all() and obj.area == obj.mask().sum()
            assert obj.colour == dsl.mode(grid[obj.mask()])
            masks += obj.mask()
            images = dsl.paste(images, obj.image(), obj.top, obj.left, transparent=0)
        assert masks.tolist() == (grid > 0).tolist() and images.tolist() == grid.tolist()


def test_objects_connect_corners_and_one_colour_unless_told():
    grid = draw("12.. 2.3. ...3")
    assert [cells_of(obj) for obj in dsl.objects(grid)] == [[(0, 0)], [(0, 1), (1, 0)], [(1, 2), (2, 3)]]
    assert [obj.colour for obj in dsl.objects(grid, diagonal=False)] == [1, 2, 2, 3, 3]
    assert [obj.area for obj in dsl.objects(grid, one_colour=False)] == [5]
    assert [obj.area for obj in dsl.objects(grid, False, False)] == [3, 1, 1]
    assert [obj.colour for obj in dsl.objects(grid, background=2)] == [1, 0, 3]
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


@each_grid
def test_a_line_is_what_draw_line_draws(grid):
    for one_colour in (True, False):
        for obj in dsl.objects(grid, one_colour=one_colour):
            try:
                drawn = dsl.draw_line(np.zeros(grid.shape, int), obj.cells[0], obj.cells[-1], 1)
            except ValueError:
                drawn = np.zeros(grid.shape, int)
            assert obj.is_line is (obj.area > 1 and drawn.tolist() == obj.mask().astype(int).tolist())


def test_an_object_is_cut_out_alone():
    inner, outer = sorted(dsl.objects(draw("222. 2.22 2232")), key=lambda obj: obj.area)
    assert inner.image().tolist() == [[3]]
    assert outer.image().tolist() == draw("222. 2.22 22.2").tolist()
    assert outer.image(background=7).tolist() == draw("2227 2722 2272").tolist()


def test_an_object_outlives_its_grid_and_can_be_looked_up():
    grid = draw("12. .22")
    found = dsl.objects(grid)
    grid[:] = 9
    assert [obj.image().tolist() for obj in found] == [[[1]], draw("2. 22").tolist()]
    assert found.index(found[1]) == 1


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


def test_a_moved_object_leaves_background_covers_others_and_is_clipped():
    grid = draw("11.. 11.5 ....")
    square, five = dsl.objects(grid)
    assert dsl.move(grid, square, 1, 2).tolist() == draw(".... ..11 ..11").tolist()
    assert dsl.move(grid, square, -1, -1).tolist() == draw("1... ...5 ....").tolist()
    assert dsl.move(grid, five, 0, 1).tolist() == draw("11.. 11.. ....").tolist()
