"""Grids of ARC: written as text and read back, seen in other frames and brought back, voted on and scored.

A grid is a list of rows of integers 0..9, from 1 to 30 a side; numpy arrays of integers serve as well."""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

SIDE = 30
VIEWS = 8  # of a square: with or without a flip, then 0 to 3 quarter turns


def legal(grid):
    """Whether a plain value is a grid: rows of equal length, integers (no booleans) from 0 to 9."""
    if type(grid) is not list or not 1 <= len(grid) <= SIDE or any(type(row) is not list for row in grid):
        return False
    widths = {len(row) for row in grid}
    fits = len(widths) == 1 and 1 <= max(widths) <= SIDE
    return fits and all(type(cell) is int and 0 <= cell <= 9 for row in grid for cell in row)


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

    def write(self, grid):
        lines = [self.gap.join(self.symbols[cell] for cell in row) for row in grid]
        if self.numbers:
            lines = [f"{i} {line}" for i, line in enumerate(lines, 1)]
        if self.fence:
            shape = f" shape: {len(grid)}x{len(grid[0])}" if self.shape else ""
            lines = [self.opening + shape, *lines, "```"]
        return "\n".join(lines)

    def read(self, text):
        """The grid in a reply that begins with it, or None: a wrong number, shape or symbol is no grid."""
        head, _, rest = text.strip().partition("\n") if self.fence else ("", "", text.strip())
        body = rest.partition("```")[0].strip("\n")
        rows = body.split("\n")
        if self.numbers:
            rows = [row.partition(" ")[2] for row in rows]
        try:
            cells = [row.split(self.gap) if self.gap else row for row in rows]
            grid = [[self.symbols.index(cell) for cell in row] for row in cells]
        except ValueError:
            return None
        written = f"{head}\n{body}\n```" if self.fence else body
        return grid if legal(grid) and self.write(grid) == written else None


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
@dataclass
class Frame:
    """One way to look at a task: a flip and quarter turns, a permutation of the ten colours, and an order of
    the shown pairs. The task is the same, and every grid can be brought back exactly."""

    flip: bool = False
    turns: int = 0
    colours: list = field(default_factory=lambda: list(range(10)))
    order: list | None = None

    def grid(self, grid):
        """The grid as it is seen in this frame."""
        seen = np.array(self.colours)[np.array(grid)]
        return np.rot90(seen[:, ::-1] if self.flip else seen, self.turns).tolist()

    def back(self, grid):
        """The grid as it was before."""
        turned = np.rot90(np.array(grid), -self.turns)
        return np.argsort(self.colours)[turned[:, ::-1] if self.flip else turned].tolist()

    def task(self, task):
        """The task in this frame: train and test, whose outputs may be missing."""
        order = range(len(task["train"])) if self.order is None else self.order
        seen = lambda pair: {side: self.grid(grid) for side, grid in pair.items()}
        train = [seen(task["train"][i]) for i in order]
        return {"train": train, "test": [seen(pair) for pair in task["test"]]}

    @classmethod
    def draw(cls, task, rng, view=None):
        """A random frame for a task, view being one of the eight, by default any. The background 0 keeps its
        colour in nine of ten frames."""
        view = int(rng.integers(VIEWS)) if view is None else view
        fixed = rng.random() >= 0.1
        colours = [0, *(rng.permutation(9) + 1).tolist()] if fixed else rng.permutation(10).tolist()
        order = rng.permutation(len(task["train"])).tolist()
        rng.random()  # unused: the random stream is that of earlier versions, which drew once more here
        return cls(view >= 4, view % 4, colours, order)


# ------------------------------------------------------------------------------------------------ answers
def vote(attempts, logps=None, order=()):
    """The different grids of attempts, in which None or [] is no answer: the most frequent first, of equally
    frequent ones that which stands first in `order`, then that with the higher mean of `logps` (the
    log-probability per token of each attempt), then the first."""
    votes, grids = defaultdict(list), {}
    for grid, logp in zip(attempts, logps or itertools.repeat(0.0)):
        if grid:
            grids[str(grid)] = grid
            votes[str(grid)].append(logp)
    place = {str(grid): i for i, grid in enumerate(order)}
    ranked = sorted(grids, key=lambda key: (-len(votes[key]), place.get(key, 0), -np.mean(votes[key])))
    return [grids[key] for key in ranked]


def scores(attempts, truth):
    """The metrics of one test grid over its K attempts, those without an answer counted as such.

    accuracy: share that is right; pass_n: whether one is; unanswered: share without an answer; correct_size:
    share of the right shape; correct_pixels: mean share of equal cells, 0 where the shape is wrong;
    any_correct_size, max_correct_pixels: the best of the attempts."""
    size, pixels = [], []
    for grid in attempts:
        fits = np.shape(grid) == np.shape(truth)
        size.append(float(fits))
        pixels.append(float(np.equal(grid, truth).mean()) if fits else 0.0)
    return {
        "accuracy": pixels.count(1.0) / len(attempts),
        "pass_n": float(1.0 in pixels),
        "unanswered": sum(not grid for grid in attempts) / len(attempts),
        "correct_size": float(np.mean(size)),
        "correct_pixels": float(np.mean(pixels)),
        "any_correct_size": max(size),
        "max_correct_pixels": max(pixels),
    }
