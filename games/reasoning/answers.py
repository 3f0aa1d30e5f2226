"""The parts of a reply, whether its answer is right, and its rewards.

Read `parse` for the form, `equal` for the answer, then `rewards_of`: the metrics and the reinforcement both
use its rewards."""

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
    loose: bool = False  # both pairs of tags occur somewhere
    strict: bool = False  # each tag once, in order, nothing outside, nothing empty


def parse(text):
    """The parts of a reply."""
    match = LOOSE.search(text)
    if not match:
        return Parsed()
    reasoning = match[1].strip()
    answer = match[2].strip()
    # four tags cut a strict reply into five pieces; the first, third and last lie outside the pairs
    pieces = TAG.split(text)
    nothing_outside = len(pieces) == 5 and not "".join(pieces[::2]).strip()
    return Parsed(reasoning, answer, True, bool(nothing_outside and reasoning and answer))


def parse_growing(text):
    """(thoughts, answer) in an unfinished reply so far. What may be the beginning of a tag is held back."""
    head, mark, tail = text.rpartition("<")
    if mark and ">" not in tail:
        text = head
    thoughts, _, rest = text.removeprefix("<reasoning>").partition("</reasoning>")
    answer = rest.partition("<answer>")[2].partition("</answer>")[0]
    return thoughts, answer


def write_reply(reasoning, answer):
    return f"<reasoning>{reasoning}</reasoning>\n<answer>{answer}</answer>"


# ------------------------------------------------------------------------------------------------ answers
def read_number(text):
    """The number in a text that contains exactly one, as a Decimal; else None. A currency, a unit, a per cent
    sign or a full stop may surround it: "$1,200." is 1200."""
    # an answer is short: no number is looked for in a long text
    if len(text) > 200:
        return None
    matches = NUMBER.findall(text.replace("\u2212", "-"))
    # the same number twice counts once: "18, that is 18.0"
    values = {Decimal(match.replace(",", "")) for match in matches}
    return values.pop() if len(values) == 1 else None


def normalise(text):
    """The text in lower case, without marks of emphasis and a full stop at its end, with single spaces."""
    text = text.casefold().strip().rstrip(".!")
    return " ".join(text.replace("*", "").replace("`", "").split())


def list_items(text):
    parts = map(normalise, re.split(r",|;|\band\b|\s", text))
    return [*filter(None, parts)]


def equal(answer, truth, kind):
    """Whether an answer equals the true one: as a number, as a list in order, or as text."""
    convert = {"number": read_number, "list": list_items}.get(kind, normalise)
    value = convert(answer)
    # an empty answer is never right, even if the truth is empty too
    return value not in (None, [], "") and value == convert(truth)


# ------------------------------------------------------------------------------------------------ rewards
REWARDS = "format", "exact", "tests"


def rewards_of(kind, good, right):
    """{name: 0..1}: the rewards that apply to a row of this kind. good: the reply is strict and the model
    ended it itself. right: how right its answer is, for code the share of the unit tests that it passes."""
    # the form is paid even if the answer is wrong; a right answer in a bad form is not paid
    rewards = {"format": float(good)}
    if kind != "open":
        rewards["tests" if kind == "code" else "exact"] = float(right) if good else 0.0
    return rewards


def read_weights(text):
    """{name: weight} from --rewards."""
    weights = {}
    for part in text.split(","):
        match = re.fullmatch(rf"({'|'.join(REWARDS)}):(\d*\.?\d+)", part)
        if not match:
            raise UsageError(f"--rewards {part}: must be NAME:WEIGHT (known: {', '.join(REWARDS)})")
        weights[match[1]] = float(match[2])
    return weights


def weigh(weights, rewards):
    """(score, parts): the weighted mean of the rewards that have a weight, and these rewards by name."""
    parts = {name: rewards[name] for name in weights if name in rewards}
    total = sum(weights[name] for name in parts)
    score = sum(weights[name] * value for name, value in parts.items()) / total if total else 0.0
    return score, parts
