"""A reply's parts, when its answer is right, and what that is worth.

Read parse for the form, equal for the answer, then rewards_of, which scores and reinforcement are made of."""

import re
from dataclasses import dataclass
from decimal import Decimal

from terminal import UsageError

TAG = re.compile("</?(?:reasoning|answer)>")
LOOSE = re.compile(r"<reasoning>(.*?)</reasoning>.*?<answer>(.*?)</answer>", re.S)
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")


# ------------------------------------------------------------------------------------------------ form
@dataclass
class Parsed:
    reasoning: str = ""
    answer: str = ""
    loose: bool = False  # both pairs of tags are somewhere
    strict: bool = False  # each tag once, in order, nothing outside, nothing empty


def parse(text):
    """The parts of a reply."""
    match = LOOSE.search(text)
    if not match:
        return Parsed()
    reasoning, answer = match[1].strip(), match[2].strip()
    parts = TAG.split(text)
    alone = len(parts) == 5 and not "".join(parts[::2]).strip()
    return Parsed(reasoning, answer, True, bool(alone and reasoning and answer))


def parse_growing(text):
    """(thoughts, answer) as far as an unfinished reply has them; the beginning of a tag is held back."""
    head, mark, tail = text.rpartition("<")
    text = head if mark and ">" not in tail else text
    thoughts, _, rest = text.removeprefix("<reasoning>").partition("</reasoning>")
    return thoughts, rest.partition("<answer>")[2].partition("</answer>")[0]


def write_reply(reasoning, answer):
    return f"<reasoning>{reasoning}</reasoning>\n<answer>{answer}</answer>"


# ------------------------------------------------------------------------------------------------ answers
def read_number(text):
    """The number in a text that has exactly one, as a Decimal; else None. Currency, units, per cent signs and
    a full stop may stand around it: "$1,200." is 1200."""
    if len(text) > 200:
        return None
    matches = NUMBER.findall(text.replace("\u2212", "-"))
    values = {Decimal(match.replace(",", "")) for match in matches}
    return values.pop() if len(values) == 1 else None


def normalise(text):
    """Text without case, marks of emphasis and a full stop at its end, single spaces between words."""
    return " ".join(text.casefold().strip().rstrip(".!").replace("*", "").replace("`", "").split())


def list_items(text):
    parts = re.split(r",|;|\band\b|\s", text)
    return [item for part in parts if (item := normalise(part))]


def equal(answer, truth, kind):
    """Whether an answer is the true one: as a number, as a list in order, or as text."""
    read = {"number": read_number, "list": list_items}.get(kind, normalise)
    given = read(answer)
    return given not in (None, [], "") and given == read(truth)


# ------------------------------------------------------------------------------------------------ rewards
REWARDS = "format", "exact", "tests"


def rewards_of(kind, good, right):
    """{name: 0..1} of the rewards that a row of this kind has. good: the reply is strict and was closed by
    the model itself; right: how far its answer is, as the share of its unit tests where it is code.
    """
    rewards = {"format": float(good)}  # the form alone
    if kind != "open":
        rewards["tests" if kind == "code" else "exact"] = float(right) if good else 0.0
    return rewards


def read_weights(text):
    """{name: weight} of --rewards."""
    weights = {}
    for part in text.split(","):
        match = re.fullmatch(rf"({'|'.join(REWARDS)}):(\d*\.?\d+)", part)
        if not match:
            raise UsageError(f"--rewards {part}: must be NAME:WEIGHT (known: {', '.join(REWARDS)})")
        weights[match[1]] = float(match[2])
    return weights


def weigh(weights, rewards):
    """(score, parts): the weighted mean of those rewards that have a weight, and these by name."""
    parts = {name: rewards[name] for name in weights if name in rewards}
    total = sum(weights[name] for name in parts)
    score = sum(weights[name] * value for name, value in parts.items()) / total if total else 0.0
    return score, parts
