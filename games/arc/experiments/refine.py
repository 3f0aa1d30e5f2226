"""ARC: replies spent on the most promising programs (--refine). With a small model it gained nothing."""

import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np

from games.arc.grids import Frame
from games.arc.judging import Question
from games.arc.prompts import PROMPTS

WAVE = 4  # refinements of a task between two looks at what became of them
TRUST = 20.0  # how far a program's promise outweighs failures to refine it


@dataclass
class Try:
    """A program, the frame and the task as it saw them, what it got for the shown pairs, and how near that
    is."""

    source: str
    frame: Frame
    task: dict
    got: list
    promise: float


def refine(task, records, player, n):
    """Spend n replies on each task, WAVE at a time, on its most promising programs; where there is
    nothing to refine, or no need to, the first prompt is asked again."""
    version = PROMPTS[task.options.refine_prompt]
    times = [Counter() for _ in records]  # how often outputs were refined
    for wave in range(0, n, WAVE):
        size = min(WAVE, n - wave)
        refined, plain = [], []
        for record, counts in zip(records, times):
            rng = task.rng_of(record, 7, len(record["replies"]))
            tries = tries_of(task, record)
            if not tries or any(reply["verdict"] == "accepted" for reply in record["replies"]):
                plain += [Question(record, Frame(), None, task.prompt(record))] * size
                continue
            for _ in range(size):
                best = choose(tries, counts, rng)
                counts[best] += 1
                refined.append(question_of(task, version, record, tries[best]))
        for prompt, questions in ((version, refined), (task.versions[0], plain)):
            if questions:
                task.add_replies(prompt, questions, player)


def tries_of(task, record):
    """{outputs in their frame: the first Try of a record that got them}."""
    tries = {}
    for reply in record["replies"]:
        frame = Frame(**reply["frame"])
        got = task.runner.got.get((record["id"], str(frame), reply["source"]))
        key = str((frame, got))
        if got and reply["verdict"] != "memorised" and key not in tries:
            seen = frame.task(record)
            tries[key] = Try(reply["source"], frame, seen, got, promise(got, seen["train"]))
    return tries


def choose(tries, times, rng):
    """The key of a try by Thompson sampling of Beta(1 + C h, 1 + C (1 - h) + times refined), h its promise
    and C TRUST, as REx does (arXiv 2405.17503)."""
    draws = {}
    for key, one in tries.items():
        hope = TRUST * one.promise
        draws[key] = rng.beta(1 + hope, 1 + TRUST - hope + times[key])
    return max(draws, key=draws.get)


def question_of(task, version, record, chosen):
    """A prompt that refines sees the program and what it got, and its reply takes the program's place; any
    other is asked what makes the wanted outputs of the outputs it got, and its reply goes behind the
    program."""
    seen, got, whole = chosen.task, chosen.got, None
    if not version.refines:
        rest = [{"input": grid, "output": pair["output"]} for grid, pair in zip(got, seen["train"])]
        seen, got, whole = {**seen, "train": rest}, (), partial(chained, chosen.source)
    messages = version.question(task.fitted(seen), task.writing, program=chosen.source, got=got)
    return Question(record, chosen.frame, None, messages, whole)


def promise(got, pairs):
    """How near outputs are to those of the shown pairs, 0..1: the better of two means over the pairs, of the
    share of equal cells (0 for another shape) and of the overlap of the shares of colours, which is 1 where
    only places are wrong."""
    cells, colours = [], []
    for grid, pair in zip(got, pairs):
        mine, wanted = np.array(grid), np.array(pair["output"])
        cells.append((mine == wanted).mean() if mine.shape == wanted.shape else 0.0)
        shares = [np.bincount(x.ravel(), minlength=10) / x.size for x in (mine, wanted)]
        colours.append(np.minimum(*shares).sum())
    return float(max(np.mean(cells), np.mean(colours)))


def chained(first, second):
    """The program that gives what a second makes of what a first gives: in one body where both are a function
    that ends in its only return, else with both inside."""
    simple = r"def task\(grid\):\n(    (?!.*\breturn\b).*\n)*    return .*\n"
    if all(re.fullmatch(simple, source) for source in (first, second)):
        bodies = [source.partition("\n")[2] for source in (first, second)]
        return "def task(grid):\n" + "    grid = ".join(bodies[0].rsplit("    return ", 1)) + bodies[1]
    parts = [re.sub(r"^def task\b", f"def step_{i}", x, flags=re.M) for i, x in enumerate((first, second), 1)]
    body = textwrap.indent("".join(parts), "    ")
    return f"def task(grid):\n{body}    return step_2(np.array(step_1(grid)))\n"
