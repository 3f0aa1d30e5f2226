"""Grids of ARC: written as text and read back, seen in other frames and brought back, voted on and scored.

A grid is a list of rows of integers 0..9, from 1 to 30 a side; numpy arrays of integers serve as well."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

SIDE = 30
VIEWS = 8  # of a square: with or without a flip, then 0 to 3 quarter turns


def legal(grid):
    """Whether a plain value is a grid: rows of equal length, integers (no booleans) from 0 to 9."""
    if type(grid) is not list or not 1 <= len(grid) <= SIDE or any(type(row) is not list for row in grid):
        return False
    width = len(grid[0])
    return 1 <= width <= SIDE and all(
        len(row) == width and all(type(cell) is int and 0 <= cell <= 9 for cell in row) for row in grid
    )


# ------------------------------------------------------------------------------------------------ as text
@dataclass(frozen=True)
class Writing:
    """How a grid stands in a prompt: a line a row, between fences or not, with row numbers from 1 and the
    shape (height x width) in the fence's line or not. symbols: what stands for the ten colours."""

    fence: bool = False
    shape: bool = False
    numbers: bool = False
    gap: str = ""  # between two cells
    symbols: str = "0123456789"

    @property
    def opening(self):
        return "```grid" if self.fence else ""

    @property
    def closing(self):
        return "```" if self.fence else ""

    def write(self, grid):
        lines = [self.gap.join(self.symbols[cell] for cell in row) for row in grid]
        if self.numbers:
            lines = [f"{i} {line}" for i, line in enumerate(lines, 1)]
        if self.fence:
            shape = f" shape: {len(grid)}x{len(grid[0])}" if self.shape else ""
            lines = [self.opening + shape, *lines, self.closing]
        return "\n".join(lines)

    def read(self, text):
        """The grid in a reply that begins with it, or None: a wrong number, shape or symbol is no grid."""
        head, _, rest = text.strip().partition("\n") if self.fence else ("", "", text.strip())
        lines, grid = rest.partition("```")[0].strip("\n").split("\n"), []
        for i, line in enumerate(lines, 1):
            number, _, cells = line.partition(" ") if self.numbers else ("", "", line)
            cells = cells.split(self.gap) if self.gap else list(cells)
            if (self.numbers and number != str(i)) or any(
                len(cell) != 1 or cell not in self.symbols for cell in cells
            ):
                return None
            grid.append([self.symbols.index(cell) for cell in cells])
        if not legal(grid):
            return None
        return grid if not self.fence or head == self.write(grid).partition("\n")[0] else None


GRIDS = {
    "digits": Writing(),
    "spaced": Writing(gap=" "),  # for tokenizers that join digits: a cell is a token of its own
    "fenced": Writing(fence=True),
    "numbers": Writing(fence=True, numbers=True),
    "shape": Writing(fence=True, shape=True),
    "full": Writing(fence=True, shape=True, numbers=True),  # what the seed settled on
    "letters": Writing(fence=True, shape=True, numbers=True, symbols="ABCDEFGHIJ"),
}


# ------------------------------------------------------------------------------------------------ frames
# A map of all inputs or of all outputs of a task: (apply, undo), whose parameters follow the array.
def _pad(grid, n, colour):
    return np.pad(grid, n, constant_values=colour)


def _unpad(grid, n, colour):
    return grid[n:-n, n:-n]


def _enlarge(grid, k):
    return grid.repeat(k, 0).repeat(k, 1)


def _reduce(grid, k):
    return grid[::k, ::k]


def _mirror(grid, axis):
    return np.concatenate([grid, np.flip(grid, axis)], axis)


def _half(grid, axis):
    return np.split(grid, 2, axis)[0] if grid.shape[axis] % 2 == 0 else grid[:0]


def _turn(grid, flip, turns):
    return np.rot90(grid[:, ::-1] if flip else grid, turns)


def _turn_back(grid, flip, turns):
    grid = np.rot90(grid, -turns)
    return grid[:, ::-1] if flip else grid


MAPS = {  # name -> (apply, undo, weight, parameters drawn)
    "turn": (_turn, _turn_back, 1, lambda rng: divmod(int(rng.integers(1, VIEWS)), 4)),
    "pad": (_pad, _unpad, 2, lambda rng: (int(rng.integers(1, 6)), int(rng.integers(10)))),
    "enlarge": (_enlarge, _reduce, 4, lambda rng: (int(rng.integers(2, 5)),)),
    "mirror": (_mirror, _half, 4, lambda rng: (int(rng.integers(2)),)),
}


@dataclass
class Frame:
    """One way to look at a task: a flip and quarter turns, a permutation of the ten colours, an order of the
    shown pairs, and a map of all inputs or all outputs. The task is the same, and every answer can be brought
    back exactly."""

    flip: bool = False
    turns: int = 0
    colours: list = field(default_factory=lambda: list(range(10)))
    order: list | None = None
    side: str = ""  # what the map is of: input or output
    map: tuple = ()  # (name, *parameters)

    def grid(self, grid, side="input"):
        """The grid, which is an input or an output, as it is seen in this frame."""
        grid = _turn(np.array(self.colours)[np.array(grid)], self.flip, self.turns)
        if self.map and side == self.side:
            grid = MAPS[self.map[0]][0](grid, *self.map[1:])
        return grid.tolist()

    def back(self, grid, side="output"):
        """The grid as it was before; ValueError where no grid looks like this in the frame."""
        seen = np.array(grid)
        if self.map and side == self.side:
            seen = MAPS[self.map[0]][1](seen, *self.map[1:])
        found = np.argsort(self.colours)[_turn_back(seen, self.flip, self.turns)].tolist()
        if not legal(found) or self.grid(found, side) != grid:
            raise ValueError("no grid looks like this in the frame")
        return found

    def task(self, task):
        """The task in this frame: train and test, whose outputs may be missing."""
        order = range(len(task["train"])) if self.order is None else self.order
        pair = lambda one: {side: self.grid(grid, side) for side, grid in one.items()}
        return {"train": [pair(task["train"][i]) for i in order], "test": [pair(one) for one in task["test"]]}

    @classmethod
    def draw(cls, task, rng, view=None, maps=0.0):
        """A random frame for a task, view being one of the eight, by default any. The background 0 keeps its
        colour in nine of ten frames. maps: the share of frames with a map, where no grid outgrows 30."""
        view = int(rng.integers(VIEWS)) if view is None else view
        fixed = rng.random() >= 0.1
        colours = [0, *(rng.permutation(9) + 1).tolist()] if fixed else rng.permutation(10).tolist()
        frame = cls(view >= 4, view % 4, colours, rng.permutation(len(task["train"])).tolist())
        if rng.random() < maps:
            weights = np.array([weight for _, _, weight, _ in MAPS.values()])
            name = list(MAPS)[rng.choice(len(MAPS), p=weights / weights.sum())]
            frame.map, frame.side = (name, *MAPS[name][3](rng)), ("input", "output")[rng.integers(2)]
            grids = [
                g for pair in frame.task(task)["train"] + frame.task(task)["test"] for g in pair.values()
            ]
            if max(max(len(grid), len(grid[0])) for grid in grids) > SIDE:
                frame.map, frame.side = (), ""
        return frame


# ------------------------------------------------------------------------------------------------ answers
def vote(attempts, m, logps=None, weighted=False, order=()):
    """At most m different grids out of attempts, in which None or [] is no answer: the most frequent first,
    of equally frequent ones that which stands first in `order`, then that with the higher mean
    log-probability per token, then the first.

    logps: (log-probability, tokens) of each attempt. weighted: count an attempt by the probability of its
    average token instead of as one."""
    counts, means, grids = defaultdict(float), defaultdict(list), {}
    for i, grid in enumerate(attempts):
        if grid:
            key = str(grid)
            grids.setdefault(key, grid)
            mean = logps[i][0] / max(1, logps[i][1]) if logps else 0.0
            counts[key] += math.exp(mean) if weighted else 1
            means[key].append(mean)
    place = {str(grid): i for i, grid in enumerate(order)}
    ranked = sorted(grids, key=lambda key: (-counts[key], place.get(key, 0), -np.mean(means[key])))
    return [grids[key] for key in ranked[:m]]


def scores(attempts, truth):
    """The metrics of one test grid over its K attempts, those without an answer counted as such.

    accuracy: share that is right; pass_n: whether one is; unanswered: share without an answer; correct_size:
    share of the right shape; correct_pixels: mean share of equal cells, 0 where the shape is wrong;
    any_correct_size, max_correct_pixels: the best of the attempts."""
    right, size, pixels = [], [], []
    for grid in attempts:
        fits = bool(grid) and len(grid) == len(truth) and len(grid[0]) == len(truth[0])
        size.append(float(fits))
        pixels.append(float((np.array(grid) == np.array(truth)).mean()) if fits else 0.0)
        right.append(float(fits and grid == truth))
    return {
        "accuracy": float(np.mean(right)),
        "pass_n": max(right),
        "unanswered": sum(not grid for grid in attempts) / len(attempts),
        "correct_size": float(np.mean(size)),
        "correct_pixels": float(np.mean(pixels)),
        "any_correct_size": max(size),
        "max_correct_pixels": max(pixels),
    }
