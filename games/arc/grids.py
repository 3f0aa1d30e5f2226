"""Grids of ARC: written as text and read back, changed to other frames and brought back, voted on and scored.

A grid is a list of rows of integers 0..9, with sides from 1 to 30. Numpy arrays of integers serve as well."""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

SIDE = 30
VIEWS = 8  # views of a grid: flipped or not, then 0 to 3 quarter turns


def legal(grid):
    """Whether a plain value is a grid: rows of equal length, integers (no booleans) from 0 to 9."""
    if type(grid) is not list or not 1 <= len(grid) <= SIDE:
        return False
    for row in grid:
        if type(row) is not list or not 1 <= len(row) <= SIDE or len(row) != len(grid[0]):
            return False
        if not all(type(cell) is int and 0 <= cell <= 9 for cell in row):
            return False
    return True


def integers(grid):
    """The grid of a file with 1 in place of 1.0. Raises ValueError that names a cell such as 1.5. Any other
    fault stays, for `legal` to find."""
    rows = []
    for i, row in enumerate(grid, 1) if type(grid) is list else ():
        if type(row) is list and float in map(type, row):
            for j, cell in enumerate(row, 1):
                if type(cell) is float and not cell.is_integer():
                    raise ValueError(f"row {i}, column {j} is {cell}, expected an integer from 0 to 9")
            row = [int(cell) if type(cell) is float else cell for cell in row]
        rows.append(row)
    return rows or grid


# ------------------------------------------------------------------------------------------------ as text
@dataclass(frozen=True)
class Writing:
    """A text format of grids: one line a row."""

    fence: bool = False  # a line ```grid before the rows and a line ``` after them
    shape: bool = False  # "shape: HEIGHTxWIDTH" in the opening line of the fence
    numbers: bool = False  # before each row its number, from 1
    gap: str = ""  # between two cells
    symbols: str = "0123456789"  # one for each of the ten colours

    @property
    def opening(self):
        return "```grid" if self.fence else ""

    def write(self, grid):
        lines = []
        for i, row in enumerate(grid, 1):
            line = self.gap.join(self.symbols[cell] for cell in row)
            lines.append(f"{i} {line}" if self.numbers else line)
        if self.fence:
            shape = f" shape: {len(grid)}x{len(grid[0])}" if self.shape else ""
            lines = [self.opening + shape, *lines, "```"]
        return "\n".join(lines)

    def read(self, text):
        """The grid at the start of a reply, or None where a row number, the shape or a symbol is wrong."""
        head = ""
        body = text.strip()
        if self.fence:
            head, _, body = body.partition("\n")
        body = body.partition("```")[0].strip("\n")

        grid = []
        for line in body.split("\n"):
            if self.numbers:
                line = line.partition(" ")[2]
            cells = line.split(self.gap) if self.gap else line
            try:
                grid.append([self.symbols.index(cell) for cell in cells])
            except ValueError:
                return None

        # Writing the grid again finds whatever else is wrong: an index also finds "" and "12" among the
        # symbols, and the row numbers and the shape were not looked at.
        written = f"{head}\n{body}\n```" if self.fence else body
        return grid if legal(grid) and self.write(grid) == written else None


GRIDS = {
    "digits": Writing(),
    "spaced": Writing(gap=" "),  # for tokenizers that join digits: here each cell is a token of its own
    "fenced": Writing(fence=True),
    "numbers": Writing(fence=True, numbers=True),
    "shape": Writing(fence=True, shape=True),
    "full": Writing(fence=True, shape=True, numbers=True),  # the published system's final choice
    "letters": Writing(fence=True, shape=True, numbers=True, symbols="ABCDEFGHIJ"),
}


# ------------------------------------------------------------------------------------------------ frames
@dataclass
class Frame:
    """One way to look at a task: a flip, then quarter turns, a permutation of the ten colours, and an order
    of the shown pairs. The task stays the same, and every grid can be brought back exactly."""

    flip: bool = False  # left to right
    turns: int = 0  # anticlockwise
    colours: list = field(default_factory=lambda: list(range(10)))  # colour -> colour in this frame
    order: list | None = None  # of the shown pairs, None for their own

    def grid(self, grid):
        """The grid as this frame shows it."""
        recoloured = np.array(self.colours)[np.array(grid)]
        if self.flip:
            recoloured = recoloured[:, ::-1]
        return np.rot90(recoloured, self.turns).tolist()

    def back(self, grid):
        """The original of a grid in this frame: the inverse of `grid`."""
        turned = np.rot90(np.array(grid), -self.turns)
        if self.flip:
            turned = turned[:, ::-1]
        return np.argsort(self.colours)[turned].tolist()  # the inverse permutation

    def pair(self, pair):
        return {side: self.grid(grid) for side, grid in pair.items()}

    def task(self, task):
        """The task in this frame: its train and test pairs, whose outputs may be missing."""
        order = range(len(task["train"])) if self.order is None else self.order
        return {
            "train": [self.pair(task["train"][i]) for i in order],
            "test": [self.pair(pair) for pair in task["test"]],
        }

    @classmethod
    def draw(cls, task, rng, view=None):
        """A random frame for a task, of any view or of the given one of VIEWS. In nine of ten frames the
        background 0 keeps its colour."""
        if view is None:
            view = int(rng.integers(VIEWS))
        if rng.random() >= 0.1:
            colours = [0, *(rng.permutation(9) + 1).tolist()]
        else:
            colours = rng.permutation(10).tolist()
        order = rng.permutation(len(task["train"])).tolist()
        rng.random()  # unused, but earlier versions drew once more here: the random stream stays the same
        return cls(view >= 4, view % 4, colours, order)


# ------------------------------------------------------------------------------------------------ answers
def vote(attempts, logps=None, order=()):
    """The different grids among attempts, the most frequent first; None and [] are no answers.

    Of equally frequent grids the one that `order` names first comes first, then the one with the higher mean
    of `logps` (the log-probability per token of each attempt), then the earlier one."""
    grids = {}
    votes = defaultdict(list)  # text of a grid -> the log-probabilities of its attempts
    for grid, logp in zip(attempts, logps or itertools.repeat(0.0)):
        if grid:
            grids[str(grid)] = grid
            votes[str(grid)].append(logp)
    place = {str(grid): i for i, grid in enumerate(order)}
    rank = lambda key: (-len(votes[key]), place.get(key, 0), -np.mean(votes[key]))
    return [grids[key] for key in sorted(grids, key=rank)]


def scores(attempts, truth):
    """The metrics of one test grid over its K attempts; an attempt without an answer counts as one of K.

    accuracy: share of right attempts; pass_n: whether any is right; unanswered: share without an answer;
    correct_size: share with the right shape; correct_pixels: mean share of equal cells, 0 for a wrong shape;
    any_correct_size, max_correct_pixels: the best of the attempts."""
    size = []
    pixels = []
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
