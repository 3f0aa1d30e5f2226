"""Agents and files that several tests of 20 Questions share."""

import json

from games.task import Reply
from games.twentyq.prompts import read_prompt
from games.twentyq.world import TablePlayer

SMALL = (
    "--dim 32 --layers 1 --heads 2 --mlp-dim 32 --vocab 400 --eval-n 4 --eval-few 2 --batch 2 --cells 2 "
    "--explore 0 --noise 0 --no-greedy --tries 2 --answers 40 --max-new 4 --threads 1 --dtype float32 "
    "--device cpu"
).split()  # flags of a training that takes seconds


class Ranked:
    """An agent that always has the same ideas, best first, and remembers what it was asked."""

    def __init__(self, *ideas):
        self.ideas, self.heard = ideas, []

    def reply(self, conversations, n=1):
        self.heard += conversations
        return [[Reply(idea) for idea in self.ideas[:n]] for _ in conversations]


class Knowing(TablePlayer):
    """The table player with its answers as probabilities."""

    def choose(self, conversations, choices):
        right = ["yes" if self.world.answer(*read_prompt(talk)[1]) else "no" for talk in conversations]
        return [[-0.1 if choice == answer else -2.3 for choice in choices] for answer in right]


def write_rows(path, rows):
    """Write JSON lines; a text is a line as it stands."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
