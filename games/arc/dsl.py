"""What ARC programs may call, as `dsl`: small functions on grids, in plain numpy.

    dsl.move(grid, max(dsl.objects(grid), key=lambda obj: obj.area), 1, 0)  # the largest falls by one

A grid is a 2-D integer array (H, W) of colours 0..9; a cell is (i, j), row from the top, column from left.
Every function gives a new array and leaves its arguments alone; what is drawn beyond the border is cut off.
Read in any order: colour, size, turn, draw (all on draw_cells), objects (on components and Object)."""

from dataclasses import dataclass

import numpy as np


def mode(grid):
    """The most common colour, an int; the smallest of several."""
    colours, counts = np.unique(grid, return_counts=True)
    return int(colours[counts.argmax()])


def least(grid):
    """The least common of the colours that occur, an int; the smallest of several."""
    colours, counts = np.unique(grid, return_counts=True)
    return int(colours[counts.argmin()])


def replace(grid, old, new):
    """The grid with colour new wherever it has old."""
    return map_colours(grid, {old: new})


def map_colours(grid, colours):
    """The grid with each colour changed by {old: new}, all at once: {1: 2, 2: 1} swaps."""
    out = grid.copy()
    for old, new in colours.items():
        out[grid == old] = new
    return out


def crop(grid, i, j, height, width):
    """The window (height, width) whose first cell is (i, j); ValueError if empty or partly outside."""
    if min(i, j) < 0 or min(height, width) < 1 or i + height > grid.shape[0] or j + width > grid.shape[1]:
        raise ValueError(f"no window of {height} x {width} cells at {i}, {j} in a grid of shape {grid.shape}")
    return grid[i : i + height, j : j + width].copy()


def trim(grid, background=0):
    """The bounding box of all that is not background; ValueError if nothing is."""
    rows, columns = np.nonzero(grid != background)
    return grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].copy()


def pad(grid, n, colour=0):
    """A frame of n cells around the grid: (H + 2n, W + 2n); ValueError if n < 0."""
    return np.pad(grid, n, constant_values=colour)


def upscale(grid, k):
    """Each cell as a block of k x k, k >= 1: (kH, kW)."""
    return grid.repeat(k, axis=0).repeat(k, axis=1)


def downscale(grid, k):
    """Every k-th row and column from the first on, k >= 1: (ceil(H / k), ceil(W / k)). Undoes upscale."""
    return grid[::k, ::k].copy()


def tile(grid, rows, columns):
    """The grid rows times downwards and columns times to the right: (rows H, columns W)."""
    return np.tile(grid, (rows, columns))


def rotate(grid, turns=1):
    """The grid after that many quarter turns clockwise; negative ones go the other way."""
    return np.rot90(grid, -turns).copy()


def flip(grid, axis):
    """The mirror image: upside down for axis 0, left to right for axis 1."""
    return np.flip(grid, axis).copy()


def transpose(grid):
    """Row i as column i: (W, H)."""
    return grid.T.copy()


def draw_cells(grid, cells, colours):
    """The grid with cells (n, 2) in one colour, or each in its own, (n,)."""
    cells, out = np.asarray(cells), grid.copy()
    inside = ((cells >= 0) & (cells < grid.shape)).all(axis=1)
    out[tuple(cells[inside].T)] = np.asarray(colours)[inside] if np.ndim(colours) else colours
    return out


def draw_line(grid, start, end, colour):
    """A line from cell start to cell end, both in it; ValueError unless horizontal, vertical or diagonal."""
    steps = np.subtract(end, start)
    length = abs(steps).max()
    if not np.isin(abs(steps), (0, length)).all():
        raise ValueError(f"the line from {start} to {end} is not horizontal, vertical or diagonal")
    return draw_cells(grid, start + np.sign(steps) * np.arange(length + 1)[:, None], colour)


def draw_rectangle(grid, corner, opposite, colour, fill=False):
    """The outline, or with fill all, of the rectangle between two opposite corner cells, both in it."""
    first, last = np.minimum(corner, opposite), np.maximum(corner, opposite)
    cells = np.argwhere(np.ones(last - first + 1)) + first
    edge = ((cells == first) | (cells == last)).any(axis=1)
    return draw_cells(grid, cells[edge | fill], colour)


def paste(grid, part, i, j, transparent=None):
    """The grid with another one laid on it, first cell at (i, j), without its cells of colour transparent."""
    shown = part != transparent  # also with None cell by cell: all are shown
    return draw_cells(grid, np.argwhere(shown) + (i, j), part[shown])


def flood_fill(grid, i, j, colour):
    """The grid with the area of one colour around cell (i, j), which corners do not connect, in another;
    ValueError if the cell is outside."""
    same = grid == crop(grid, i, j, 1, 1)  # as grid[i, j], but negative numbers do not count from the end
    area = next(part for part in components(same, diagonal=False) if [i, j] in part.tolist())
    return draw_cells(grid, area, colour)


def components(mask, diagonal):
    """The connected parts of a mask (H, W), in any order: of each its cells, (n, 2) in reading order."""
    steps = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1) if diagonal or not di * dj]
    free, parts = set(map(tuple, np.argwhere(mask).tolist())), []
    while free:
        part = [free.pop()]
        for i, j in part:  # which grows meanwhile
            near = free.intersection((i + di, j + dj) for di, dj in steps)
            free -= near
            part += near
        parts.append(np.array(sorted(part)))
    return parts


@dataclass(eq=False)  # no fieldwise ==, as that of two arrays is no bool
class Object:
    """Connected cells (n, 2) in reading order, their colours (n,), and the shape (H, W) of their grid.

    colour is the most common; top, left, height, width and centre (a cell; of even sides the one before the
    middle) are of the bounding box. A line has two cells or more, maybe diagonal; a rectangle is filled."""

    cells: np.ndarray
    colours: np.ndarray
    shape: tuple

    def __post_init__(self):
        self.area, self.colour = len(self.cells), mode(self.colours)
        (self.top, self.left), (bottom, right) = self.cells.min(0).tolist(), self.cells.max(0).tolist()
        self.height, self.width = bottom - self.top + 1, right - self.left + 1
        self.centre = (self.top + bottom) // 2, (self.left + right) // 2
        sides = {self.height, self.width}  # of n connected cells: 1 and n, or n twice for a diagonal
        self.is_line = self.area > 1 and sides <= {1, self.area}
        self.is_rectangle = self.area == self.height * self.width
        self.is_square = self.is_rectangle and len(sides) == 1

    def mask(self):
        """True at its cells: (H, W) bool."""
        return draw_cells(np.zeros(self.shape, bool), self.cells, True)

    def image(self, background=0):
        """The object alone: (height, width)."""
        empty = np.full((self.height, self.width), background, self.colours.dtype)
        return draw_cells(empty, self.cells - (self.top, self.left), self.colours)


def objects(grid, diagonal=True, one_colour=True, background=0):
    """The list of connected Objects in reading order of their first cells. diagonal: corners connect too;
    one_colour: different colours do not; background: the colour to leave out, None for none."""
    shown = grid != background
    masks = [shown & (grid == colour) for colour in np.unique(grid)] if one_colour else [shown]
    parts = [part for mask in masks for part in components(mask, diagonal)]
    parts.sort(key=lambda part: tuple(part[0]))
    return [Object(part, grid[tuple(part.T)], grid.shape) for part in parts]


def move(grid, obj, di, dj, background=0):
    """The grid with the object di rows down and dj columns to the right, over what is there."""
    return draw_cells(recolour(grid, obj, background), obj.cells + (di, dj), obj.colours)


def recolour(grid, obj, colour):
    """The grid with the object's cells in another colour."""
    return draw_cells(grid, obj.cells, colour)
