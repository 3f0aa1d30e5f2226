"""Functions on grids that ARC programs may call as `dsl`, in plain numpy.

    dsl.move(grid, max(dsl.objects(grid), key=lambda obj: obj.area), 1, 0)  # the largest falls by one

A grid is a 2-D integer array (H, W) of colours 0..9. A cell is (i, j): row from the top, column from the
left. Every function returns a new array and leaves its arguments unchanged. Drawing beyond the border is cut
off. What numpy does in a call, such as turning, padding or tiling, has no function here."""

from dataclasses import dataclass

import numpy as np


def mode(grid):
    """The most common colour, an int; the smallest of them in a tie."""
    colours, counts = np.unique(
        grid, return_counts=True
    )  # colours in order: the first of a tie is the smallest
    return int(colours[counts.argmax()])


def least(grid):
    """The least common of the colours that occur, an int; the smallest of them in a tie."""
    colours, counts = np.unique(grid, return_counts=True)
    return int(colours[counts.argmin()])


def map_colours(grid, colours):
    """The grid with its colours changed by {old: new}, all at once: {1: 2, 2: 1} swaps the two."""
    out = grid.copy()
    for old, new in colours.items():
        out[grid == old] = new  # by the old grid: a colour changes once
    return out


def crop(grid, i, j, height, width):
    """The window (height, width) whose first cell is (i, j); ValueError if it is empty or partly outside."""
    # A slice of numpy would be cut short at the border, and -1 would be the last row.
    inside = min(i, j) >= 0 and i + height <= grid.shape[0] and j + width <= grid.shape[1]
    if not inside or min(height, width) < 1:
        raise ValueError(f"no window of {height} x {width} cells at {i}, {j} in a grid of shape {grid.shape}")
    return grid[i : i + height, j : j + width].copy()


def trim(grid, background=0):
    """The bounding box of all cells that are not background; ValueError if there are none."""
    rows, columns = np.nonzero(grid != background)  # none: min raises the ValueError
    return grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].copy()


def upscale(grid, k):
    """The grid with each cell as a block of k x k cells, k >= 1: (kH, kW)."""
    return grid.repeat(k, axis=0).repeat(k, axis=1)


# -- patterns, lines
# A step is (rows down, columns to the right). DIRECTIONS are sets of steps: 0 to 7 each of STEPS alone, 8
# vertical, 9 horizontal, 10 both, 11 the falling diagonal, 12 the rising one, 13 both, 14 all eight; 15 to 18
# the two slanted steps up, down, to the left and to the right.
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1), (1, -1), (-1, 1))
DIRECTIONS = (*zip(STEPS), STEPS[:2], STEPS[2:4], STEPS[:4], STEPS[4:6], STEPS[6:], STEPS[4:], STEPS)
DIRECTIONS += (STEPS[4::3], STEPS[5:7], STEPS[4:7:2], STEPS[5::2])


def shift(grid, di, dj, fill=0):
    """The grid moved di rows down and dj columns to the right; what leaves it is lost, `fill` comes in."""
    out = np.full_like(grid, fill)
    height, width = grid.shape
    if abs(di) < height and abs(dj) < width:
        part = grid[max(-di, 0) : height - max(di, 0), max(-dj, 0) : width - max(dj, 0)]
        out[max(di, 0) : height + min(di, 0), max(dj, 0) : width + min(dj, 0)] = part
    return out


def neighbours(grid, steps, colour=None):
    """For each cell, how many of the cells at `steps` from it have this colour, without one its own: (H, W).

    Works on a mask too, with the colour True. Cells beyond the border do not count."""
    wanted = grid if colour is None else colour
    count = np.zeros(grid.shape, int)
    for di, dj in steps:
        other = shift(grid.astype(int), -di, -dj, -1)  # no cell has the colour -1
        count += other == wanted
    return count


def rays(grid, starts, steps, colour=None, length=30, stop=None, goal=None):
    """The grid with a line from each cell of the mask starts (H, W) in each of the steps.

    A line has the colour of its cell or `colour`, and ends after `length` cells or at the border; with
    `stop`, a background, before the first cell of another colour; with `goal` too it is drawn only if that
    cell has the colour goal. Lines start in reading order, and a later one is drawn over an earlier one."""
    cells = grid.tolist()  # cell by cell, lists are faster than arrays
    out = grid.tolist()
    height, width = grid.shape
    for i, j in np.argwhere(starts).tolist():
        for di, dj in steps:
            y, x = i + di, j + dj
            path = []
            while 0 <= y < height and 0 <= x < width and len(path) < length:
                if stop is not None and cells[y][x] != stop:
                    break
                path.append((y, x))
                y, x = y + di, x + dj
            ends = 0 <= y < height and 0 <= x < width and cells[y][x] == goal
            if goal is None or ends:
                for y, x in path:
                    out[y][x] = cells[i][j] if colour is None else colour
    return np.array(out, grid.dtype)


def spread(starts, free, steps):
    """The cells of the mask `free` that can be reached from the mask `starts` by steps on free cells: (H, W)
    bool. The starts themselves count only where they are free."""
    reached = starts & free
    ahead = reached | (free & (neighbours(starts, steps, True) > 0))
    while (ahead != reached).any():
        reached = ahead
        ahead = reached | (free & (neighbours(reached, steps, True) > 0))
    return reached


def enclosed(grid, background, diagonal=False):
    """The background cells that no path of background joins to the border: (H, W) bool. With diagonal, the
    path may pass between two cells that touch at a corner."""
    free = np.pad(grid == background, 1, constant_values=True)
    corner = np.zeros_like(free)
    corner[0, 0] = True
    steps = STEPS if diagonal else STEPS[:4]
    return (free & ~spread(corner, free, steps))[1:-1, 1:-1]


def symmetric(grid, hidden, axis):
    """The grid with its cells of colour hidden filled in by a mirror: upside down for axis 0, left to right
    for axis 1. The mirror is the one under which most cells agree; ValueError if every one contradicts."""
    upright = grid if axis else grid.T
    width = upright.shape[1]
    best, found = 0, None
    for middle in range(1, 2 * width - 2):  # twice the column of the mirror
        j = np.arange(width)
        j = j[(middle - j >= 0) & (middle - j < width) & (middle != 2 * j)]
        here, there = upright[:, j], upright[:, middle - j]
        known = (here != hidden) & (there != hidden)
        agree = (here == there)[known]
        if agree.all() and agree.sum() > best:
            filled = upright.copy()
            filled[:, j] = np.where(here == hidden, there, here)
            best, found = agree.sum(), filled
    if found is None:
        raise ValueError(f"no mirror of axis {axis} fits the grid")
    return found.copy() if axis else found.T.copy()


def retile(grid, hidden, slope=None):
    """The grid with its cells of colour hidden filled in as the smallest tile that the rest repeats.

    With slope s, cells repeat where j + s * i is the same, up to a period: stripes. Cells of the tile that
    are hidden wherever it lies stay hidden; ValueError if nothing smaller than the grid repeats."""
    i, j = np.indices(grid.shape)
    height, width = grid.shape
    sizes = [(1, q) for q in range(1, width)]
    if slope is None:
        sizes = [size for size in np.ndindex(height + 1, width + 1) if 0 < size[0] * size[1] < grid.size]
        sizes.sort(key=lambda size: (size[0] * size[1], size))
    known = grid != hidden
    for p, q in sizes:
        place = (i % p) * q + (j + i * (slope or 0)) % q
        tile = np.full(p * q, hidden, grid.dtype)
        tile[place[known]] = grid[known]
        if (tile[place] == grid)[known].all():
            return tile[place]
    raise ValueError("no tile smaller than the grid fits it")


def unit(grid):
    """The smallest part from the first cell on that the grid repeats, the last time maybe cut off."""
    height, width = grid.shape
    p = next(p for p in range(1, height + 1) if (grid[p:] == grid[: height - p]).all())
    q = next(q for q in range(1, width + 1) if (grid[:, q:] == grid[:, : width - q]).all())
    return grid[:p, :q].copy()


def layers(shape):
    """For each cell its distance from the border, 0 on the border: (H, W)."""
    i, j = np.indices(shape)
    return np.minimum(np.minimum(i, shape[0] - 1 - i), np.minimum(j, shape[1] - 1 - j))


def lattice(grid, line=None):
    """(row slices, column slices) between the rows and columns that are all of the colour line.

    Without a colour it is the one that makes the most parts; ValueError where that is a tie, or no colour
    makes two parts."""
    counts = {}
    for colour in np.unique(grid) if line is None else [line]:
        lines = grid == colour
        parts = [gaps(lines.all(1)), gaps(lines.all(0))]
        counts.setdefault(len(parts[0]) * len(parts[1]), []).append(parts)
    most = max(counts)
    if most < 2 or len(counts[most]) > 1:
        raise ValueError("no one colour of lines parts the grid")
    return counts[most][0]


def gaps(full):
    """The slices of the runs of False in a mask (n,)."""
    edges = np.flatnonzero(np.diff(np.r_[True, full, True].astype(int))).tolist()
    return [slice(start, end) for start, end in zip(edges[::2], edges[1::2])]


def each_part(grid, function, line=None):
    """A grid with one cell for each part of the lattice: the colour or number that function gives for it."""
    rows, columns = lattice(grid, line)
    return np.array([[function(grid[row, column]) for column in columns] for row in rows])


def paint_parts(grid, colours, line=None):
    """The grid with each part of its lattice all of one colour, from a grid with one cell for each part."""
    out = grid.copy()
    rows, columns = lattice(grid, line)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            out[row, column] = colours[i, j]
    return out


def draw_cells(grid, cells, colours):
    """The grid with cells (n, 2) in one colour, or each in a colour of its own, (n,)."""
    cells = np.asarray(cells)
    inside = ((cells >= 0) & (cells < grid.shape)).all(axis=1)  # (n,)
    if np.ndim(colours):
        colours = np.asarray(colours)[inside]
    out = grid.copy()
    out[tuple(cells[inside].T)] = colours
    return out


def draw_line(grid, start, end, colour):
    """The grid with a line from cell start to cell end, both included; ValueError unless the line is
    horizontal, vertical or diagonal."""
    steps = np.subtract(end, start)
    length = abs(steps).max()
    if not np.isin(abs(steps), (0, length)).all():  # a diagonal goes as far down as it goes to the side
        raise ValueError(f"the line from {start} to {end} is not horizontal, vertical or diagonal")
    cells = start + np.sign(steps) * np.arange(length + 1)[:, None]  # (length + 1, 2)
    return draw_cells(grid, cells, colour)


def draw_rectangle(grid, corner, opposite, colour, fill=False):
    """The grid with the outline of the rectangle between two opposite corner cells, with fill all of it."""
    first = np.minimum(corner, opposite)
    last = np.maximum(corner, opposite)
    cells = np.argwhere(np.ones(last - first + 1)) + first  # (n, 2), all of the rectangle
    edge = ((cells == first) | (cells == last)).any(axis=1)  # (n,)
    return draw_cells(grid, cells[edge | fill], colour)


def paste(grid, part, i, j, transparent=None):
    """The grid with another grid laid on it, its first cell at (i, j). Cells of colour transparent are left
    out."""
    shown = (
        part != transparent
    )  # (H, W) bool, with None too: numpy compares it cell by cell, so all are shown
    return draw_cells(grid, np.argwhere(shown) + (i, j), part[shown])


def components(mask, diagonal):
    """The connected parts of a mask (H, W), in any order. A part is its cells, (n, 2), in reading order."""
    steps = [(-1, 0), (0, -1), (0, 1), (1, 0)]
    if diagonal:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    free = set(map(tuple, np.argwhere(mask).tolist()))
    parts = []
    while free:
        part = [free.pop()]
        for i, j in part:  # the list grows while it is read, until no cell has a free neighbour
            neighbours = free.intersection((i + di, j + dj) for di, dj in steps)
            free -= neighbours
            part += neighbours
        parts.append(np.array(sorted(part)))
    return parts


@dataclass(eq=False)  # the default == compares fields, and == of two arrays is no bool
class Object:
    """Connected cells (n, 2) in reading order, their colours (n,), and the shape (H, W) of their grid.

    colour is the most common one. top, left, height, width and centre describe the bounding box; the centre
    is a cell, for an even side the one before the middle. A line has at least two cells and may be diagonal;
    a rectangle is filled."""

    cells: np.ndarray
    colours: np.ndarray
    shape: tuple

    def __post_init__(self):
        self.area = len(self.cells)
        self.colour = mode(self.colours)
        self.top, self.left = self.cells.min(0).tolist()
        bottom, right = self.cells.max(0).tolist()
        self.height = bottom - self.top + 1
        self.width = right - self.left + 1
        self.centre = (self.top + bottom) // 2, (self.left + right) // 2

        # A line of n cells has sides 1 and n, or n and n on a diagonal.
        sides = {self.height, self.width}
        self.is_line = self.area > 1 and sides <= {1, self.area}
        self.is_rectangle = self.area == self.height * self.width
        self.is_square = self.is_rectangle and len(sides) == 1

    def mask(self):
        """A mask of the whole grid, True at the object's cells: (H, W) bool."""
        mask = np.zeros(self.shape, bool)
        mask[tuple(self.cells.T)] = True
        return mask

    def image(self, background=0):
        """The object alone, in its bounding box: (height, width)."""
        image = np.full((self.height, self.width), background, self.colours.dtype)
        image[self.cells[:, 0] - self.top, self.cells[:, 1] - self.left] = self.colours
        return image


def objects(grid, diagonal=True, one_colour=True, background=0):
    """The list of connected Objects, in the reading order of their first cells.

    diagonal: corners connect too; one_colour: different colours do not connect; background: the colour to
    leave out, None for none."""
    shown = grid != background
    masks = [shown]
    if one_colour:  # a mask for each colour, so that two colours never touch
        masks = [shown & (grid == colour) for colour in np.unique(grid)]
    parts = []
    for mask in masks:
        parts += components(mask, diagonal)
    parts.sort(key=lambda part: tuple(part[0]))
    return [Object(part, grid[tuple(part.T)], grid.shape) for part in parts]


def move(grid, obj, di, dj, background=0):
    """The grid with the object moved di rows down and dj columns to the right, over whatever is there."""
    without = recolour(grid, obj, background)
    return draw_cells(without, obj.cells + (di, dj), obj.colours)


def recolour(grid, obj, colour):
    """The grid with the object's cells in another colour."""
    return draw_cells(grid, obj.cells, colour)


# -- objects, counting
def ranked(items, values, k):
    """The items of one place in the order of their values, a list: the smallest for k = 0, the largest for
    -1; equal values share a place. IndexError if there are too few."""
    place = sorted({*values})[k]
    return [item for item, value in zip(items, values) if value == place]


def only(grids):
    """The first of some grids, which must all be equal; ValueError if they are not, or if there are none."""
    if not grids or not all(np.array_equal(grid, grids[0]) for grid in grids):
        raise ValueError(f"the {len(grids)} grids are not all equal")
    return grids[0].copy()


def paint(grid, found, colour):
    """The grid with all cells of several objects in one colour."""
    out = grid.copy()
    for obj in found:
        out[tuple(obj.cells.T)] = colour
    return out


def near(mask, diagonal):
    """The cells beside the True cells of a mask (H, W), as a mask without these; diagonal: corners count."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    wide = np.zeros_like(mask)
    for i in range(3):
        for j in range(3):
            if diagonal or 1 in (i, j):
                wide |= padded[i : i + height, j : j + width]
    return wide & ~mask


def between(mask, axis):
    """The cells that have True cells of a mask (H, W) on both sides, as a mask without these: above and below
    for axis 0, left and right for axis 1."""
    before = np.maximum.accumulate(mask, axis)
    after = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis), axis)
    return before & after & ~mask


def holes(grid, background=0):
    """The number of areas of background that do not reach the border; corners do not connect."""
    framed = np.pad(grid, 1, constant_values=background)
    return len(components(framed == background, diagonal=False)) - 1  # all that reach the frame are one


def form(grid, background=0):
    """The shape of what is not background, as a tuple that is the same for all turns and mirror images."""
    mask = grid != background
    views = [np.rot90(view, turns) for view in (mask, mask.T) for turns in range(4)]
    return min((view.shape, view.tobytes()) for view in views)


def is_mirrored(grid):
    """Whether the grid is its own mirror image, upside down or left to right."""
    return bool((grid == grid[::-1]).all() or (grid == grid[:, ::-1]).all())


def slide(grid, obj, di, dj, background=0):
    """The grid with the object moved by (di, dj) again and again, until it would leave the grid or meet a
    cell that is not background; ValueError for (0, 0), which never would."""
    if (di, dj) == (0, 0):
        raise ValueError("an object does not slide by (0, 0)")
    free = recolour(grid, obj, background) == background
    cells = obj.cells + (di, dj)
    steps = 0
    while ((cells >= 0) & (cells < grid.shape)).all() and free[tuple(cells.T)].all():
        cells = cells + (di, dj)
        steps += 1
    return move(grid, obj, di * steps, dj * steps, background)


def towards(obj, other):
    """The step (di, dj), each -1, 0 or 1, from one object to another: 0 where they share rows or columns."""
    step = []
    for axis in range(2):
        own = obj.cells[:, axis]
        others = other.cells[:, axis]
        step.append(int(others.min() > own.max()) - int(others.max() < own.min()))
    return tuple(step)


def panel_rows(grid, lines=True, background=0):
    """The parts of a grid as a list of rows of parts; ValueError where there is only one.

    lines: cut at the lines through the whole grid, of the colour that has most of them, the background if no
    other has any. Without lines, a grid is cut into squares or, where its shape does not allow that, into two
    halves, across the longer side."""
    height, width = grid.shape
    if not lines:
        n = max(max(height, width) // min(height, width), 2)
        rows, columns = (n, 1) if height > width else (1, n)
        return [np.split(row, columns, axis=1) for row in np.split(grid.copy(), rows)]

    line = background
    most = 0
    for colour in np.unique(grid[grid != background]):
        full = (grid == colour).all(0).sum() + (grid == colour).all(1).sum()
        if full > most:
            line = colour
            most = full
    cuts = []
    for axis in (1, 0):
        inside = np.flatnonzero(~(grid == line).all(axis))
        cuts.append(np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1))
    rows, columns = cuts
    if len(rows) * len(columns) == 1:
        raise ValueError(f"no line cuts the grid of shape {grid.shape}")
    return [[grid[np.ix_(i, j)] for j in columns] for i in rows]


def panels(grid, lines=True, background=0):
    """The parts that panel_rows gives, in one list in reading order."""
    return [part for row in panel_rows(grid, lines, background) for part in row]
