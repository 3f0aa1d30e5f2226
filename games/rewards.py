"""The parts of a reward and their weights, --rewards format:0.2,exact:1, some of them written by a user:
--rewards exact:1,closeness.py:close:0.5.

The function `close` of closeness.py is called as close(example, text), with the example as a dict and the
text of the reply, and returns a number. Its file runs with all rights of the program. So it is named on the
command line only: a run that is resumed does not take it from its run.json, but asks for it again."""

import json
import math
import re
from dataclasses import dataclass, field
from numbers import Real

from games.own import load_code
from terminal import UsageError

PART = r"(?:(.+\.py):)?([A-Za-z_]\w*):(\d*\.?\d+)"


@dataclass
class Rewards:
    """The parts of a reward by name."""

    weights: dict = field(default_factory=dict)  # name -> weight
    functions: dict = field(default_factory=dict)  # name -> the user's function (example, text) -> float

    def own(self, example: dict, text: str) -> dict:
        """{name: value} of the user's functions for a reply. Raises ValueError, with the example, for one
        that fails."""
        values = {}
        for name, function in self.functions.items():
            try:
                value = function(dict(example), text)
            except Exception as error:
                raise failure(name, f"{type(error).__name__}: {error}", example) from error
            if not isinstance(value, Real) or not math.isfinite(value):
                raise failure(name, f"must return a finite number, not {value!r}", example)
            values[name] = float(value)
        return values

    def weigh(self, rewards: dict) -> tuple:
        """(score, parts): the weighted mean of the rewards that have a weight, and these rewards by name. A
        reward of None is unknown, and then the score is too."""
        parts = {name: rewards[name] for name in self.weights if name in rewards}
        if None in parts.values():
            return None, parts
        total = sum(self.weights[name] for name in parts)
        score = sum(self.weights[name] * value for name, value in parts.items())
        return score / total if total else 0.0, parts


def win_shares(scores: list, questions: list) -> list:
    """The share of the replies to its question that each reply is expected to beat, by a reward model's
    scores: the mean of sigmoid(score - other), with itself as one of the others (1/2).

    Such scores have no scale and no zero of their own: training compares only replies to one prompt."""
    others = {}
    for score, question in zip(scores, questions):
        others.setdefault(question, []).append(score)
    shares = []
    for score, question in zip(scores, questions):
        gaps = [score - other for other in others[question]]
        shares.append(sum(0.5 + 0.5 * math.tanh(gap / 2) for gap in gaps) / len(gaps))
    return shares


def failure(name, what, example):
    row = json.dumps(example, ensure_ascii=False, default=repr)
    return ValueError(f"--rewards {name}: {what}, for the row {row[:300]}")


def read_rewards(text: str, known) -> Rewards:
    """The Rewards of --rewards, for a game whose own parts are `known`."""
    rewards = Rewards()
    for part in text.split(","):
        match = re.fullmatch(PART, part)
        path, name, weight = match.groups() if match else (None, None, None)
        if not match or not (path or name in known):
            names = ", ".join(known)
            raise UsageError(
                f"--rewards {part}: must be NAME:WEIGHT (known: {names}) or FILE.py:FUNCTION:WEIGHT"
            )
        if name in rewards.weights or (path and name in known):
            raise UsageError(f"--rewards {part}: there is another part of the name {name}")
        rewards.weights[name] = float(weight)
        if path:
            rewards.functions[name] = load_code("rewards", path, "function", name)
    return rewards
