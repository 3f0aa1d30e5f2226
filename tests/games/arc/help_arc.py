"""Shared by the tests of ARC: a task that flips, agents with scripted replies, records of replies."""

import numpy as np
import pytest

from games.arc.world import Rejected, open_world
from games.sandbox.sandbox import level
from games.task import Players, Reply

runs_programs = pytest.mark.skipif(level()[0] not in ("full", "seccomp"), reason=f"sandbox: {level()}")
TASK = {
    "train": [
        {"input": [[1, 2, 3], [4, 5, 6]], "output": [[3, 2, 1], [6, 5, 4]]},
        {"input": [[0, 7], [0, 0], [5, 0]], "output": [[7, 0], [0, 0], [0, 5]]},
    ],
    "test": [{"input": [[1, 0, 0, 9]], "output": [[9, 0, 0, 1]]}],
}
TWO = TASK | {"test": [*TASK["test"], {"input": [[3], [4]], "output": [[3], [4]]}]}
SMALL = open_world("small")
FLIP = "def task(grid):\n    return grid[:, ::-1]\n"


class Says:
    """An agent that gives the same texts, in order, to the prompts of every call."""

    def __init__(self, *texts):
        self.texts, self.seen, self.calls = texts, [], 0

    def reply(self, conversations, n=1, begin="", until=()):
        self.seen += conversations
        texts = [self.texts[i % len(self.texts)] for i in range(len(conversations))]
        return [[Reply(text, [1, 2], [-0.5, -0.5 - i / 100])] for i, text in enumerate(texts)]


def attempt(task, example, agent, n, **named):
    """The record of n replies of an agent to one example."""
    ((_, record),) = task.attempt([example], Players(agent, named, n))
    return record


def summarise(task, records, n=1):
    return task.summary(records, Players(None, n=n))


def record(*answers, truth=TWO["test"], test=None):
    """The record of replies with these answers: None, or a grid or None for each test."""
    about = {"test": test, "logp": -1.0, "tokens": 2, "message": "", "right": 0, "source": "", "frame": {}}
    replies = [{**about, "answers": a, "verdict": "accepted" if a else "wrong"} for a in answers]
    return {"id": "x", "split": "", "train": [], "test": truth, "replies": replies}


def draw_tasks(seed, n, names=(), held_out=False, compositions=0.0, world=SMALL):
    """n tasks of a world, task i a function of (seed, i). names: one family, or two in a row."""
    tasks = []
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        while names and len(tasks) == i:
            try:
                tasks.append(world.make(names, rng, held_out))
            except Rejected:
                continue
        if not names:
            tasks.append(world.draw(rng, held_out, compositions))
    return tasks
