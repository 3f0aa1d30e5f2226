"""Spending replies on refining the best ARC programs (--refine). With a small model it gained nothing."""

import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np

from games.arc.grids import Frame
from games.arc.judging import Question
from games.arc.prompts import PROMPTS

WAVE = 4  # refinements of a task between two looks at their verdicts
TRUST = 20.0  # weight of a program's promise against failures to refine it


@dataclass
class Try:
    """A program that can be refined."""

    source: str
    frame: Frame
    task: dict  # as the frame shows it
    got: list  # outputs for the shown pairs
    promise: float  # how near these are to the right ones


def refine(task, records, player, n):
    """Spend n replies on each task, WAVE at a time, on its most promising programs. Where there is nothing to
    refine, or a program is accepted already, the first prompt is asked again."""
    version = PROMPTS[task.options.refine_prompt]
    refinements = [Counter() for _ in records]  # for each task {key of a Try: how often it was refined}
    for wave in range(0, n, WAVE):
        size = min(WAVE, n - wave)
        refining = []
        plain = []
        for record, times in zip(records, refinements):
            rng = task.rng_of(record, 7, len(record["replies"]))  # another stream in each wave
            tries = tries_of(task, record)
            if not tries or any(reply["verdict"] == "accepted" for reply in record["replies"]):
                plain += [Question(record, Frame(), None, task.prompt(record))] * size
                continue
            for _ in range(size):
                best = choose(tries, times, rng)
                times[best] += 1
                refining.append(question_of(task, version, record, tries[best]))
        if refining:
            task.add_replies(version, refining, player)
        if plain:
            task.add_replies(task.versions[0], plain, player)


def tries_of(task, record):
    """{frame and outputs as text: the first Try of a record that got these outputs in this frame}."""
    tries = {}
    for reply in record["replies"]:
        frame = Frame(**reply["frame"])
        got = task.runner.got.get((record["id"], str(frame), reply["source"]))
        key = str((frame, got))
        if got and reply["verdict"] != "memorised" and key not in tries:
            view = frame.task(record)
            tries[key] = Try(reply["source"], frame, view, got, promise(got, view["train"]))
    return tries


def choose(tries, times, rng):
    """The key of a Try, by Thompson sampling from Beta(1 + C h, 1 + C (1 - h) + times refined), where h is
    its promise and C is TRUST, as in REx (arXiv 2405.17503)."""
    draws = {}  # key -> a random guess of how likely the next refinement succeeds
    for key, attempt in tries.items():
        hope = TRUST * attempt.promise
        draws[key] = rng.beta(1 + hope, 1 + TRUST - hope + times[key])
    return max(draws, key=draws.get)


def question_of(task, version, record, chosen):
    """The Question that refines a Try.

    A version that refines shows the program and the outputs that it got, and the reply replaces the program.
    Any other version shows these outputs as inputs, and the reply is chained behind the program."""
    view = chosen.task
    got = chosen.got
    complete = None
    if not version.refines:
        pairs = [{"input": grid, "output": pair["output"]} for grid, pair in zip(got, view["train"])]
        view = {**view, "train": pairs}
        got = ()
        complete = partial(chain, chosen.source)
    messages = version.question(task.fit(view), task.writing, program=chosen.source, got=got)
    return Question(record, chosen.frame, None, messages, complete)


def promise(got, pairs):
    """How near outputs are to those of the shown pairs, 0..1.

    It is the better of two means over the pairs: of the share of equal cells (0 for another shape), and of
    the overlap of the shares of colours, which is 1 if only the places are wrong."""
    cells = []
    colours = []
    for grid, pair in zip(got, pairs):
        grid = np.array(grid)
        right = np.array(pair["output"])
        cells.append((grid == right).mean() if grid.shape == right.shape else 0.0)
        colours.append(np.minimum(colour_shares(grid), colour_shares(right)).sum())
    return float(max(np.mean(cells), np.mean(colours)))


def colour_shares(grid):
    """The share of each of the ten colours, (10,)."""
    return np.bincount(grid.ravel(), minlength=10) / grid.size


def chain(first, second):
    """The program that applies a second program to the output of a first: in one body if each is a function
    that ends in its only return, else with both functions inside."""
    # One return, at the end: the text of the first program can then be continued by the second.
    simple = r"def task\(grid\):\n(    (?!.*\breturn\b).*\n)*    return .*\n"
    if re.fullmatch(simple, first) and re.fullmatch(simple, second):
        start = "    grid = ".join(first.rsplit("    return ", 1))
        return start + second.partition("\n")[2]
    steps = ""
    for i, source in enumerate((first, second), 1):
        steps += re.sub(r"^def task\b", f"def step_{i}", source, flags=re.M)
    body = textwrap.indent(steps, "    ")  # below, np.array: a program may return lists
    return f"def task(grid):\n{body}    return step_2(np.array(step_1(grid)))\n"
