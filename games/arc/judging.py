"""What became of replies: programs run in the sandbox, grids read, and a verdict on each.

A program that gives every shown output is accepted; only then does its output for a test count."""

import ast
import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from operator import eq

import numpy as np

from games.arc import dsl
from games.arc.grids import Frame, legal
from games.sandbox.sandbox import Job, Sandbox

MEMORY = 512 << 20  # bytes that a program may take


@dataclass
class Question:
    """What one reply is asked for."""

    record: dict  # of the task: {"id", "train", "test", ...}
    frame: Frame
    test: int | None  # that the prompt shows
    messages: list
    whole: Callable | None = None  # (program of the reply) -> the program that it is a part of


class Runner:
    """Runs programs in the sandbox, which is started when it is first needed."""

    def __init__(self, options):
        self.options, self.box = options, None
        self.got = {}  # (id of an example, frame, program) -> outputs for the shown pairs, None if not grids

    @property
    def level(self):
        return self.box.level if self.box else ""

    def sandbox(self):
        """The sandbox. Raises PermissionError where the machine is too weak."""
        if self.box is None:
            o = self.options
            names = {"np": np, "dsl": dsl}
            self.box = Sandbox(o.seconds, MEMORY, o.workers, o.unsafe_exec, names)
            print(f"sandbox: level {self.box.level}", file=sys.stderr)
        return self.box

    def judge(self, questions, programs):
        """The verdicts on programs that answer Questions.

        They are dicts with "verdict" (accepted, wrong, memorised, unstable, none, or a kind of
        sandbox.Result), "message", "right" (shown pairs that the program gives), "source" and "answers":
        None, or a grid or None for each test of the task, brought back from the frame. What a program got for
        the shown pairs is kept in self.got."""
        seen, jobs, keys = {}, {}, []
        for question, source in zip(questions, programs):
            if question.whole:
                source = question.whole(source)
            about = question.record["id"], str(question.frame)
            if about not in seen:
                seen[about] = question.frame.task(question.record)
            jobs[*about, source] = source, question.frame, seen[about]  # equal ones are run once
            keys.append((*about, source))
        verdicts = self.verify(jobs)
        return [verdicts[key] for key in keys]

    def verify(self, programs):
        """{key: verdict, as in judge} of programs, {key: (source, frame, task seen in it)}. They are run
        beside others first and, those that give every shown output, twice in processes of their own: only
        what they give there counts."""
        results = self.outputs([(source, task["train"]) for source, _, task in programs.values()])
        verdicts, jobs = {}, {}
        for (key, (source, _, task)), (kind, message, got) in zip(programs.items(), results):
            wanted = shown_outputs(task)
            right = sum(map(eq, got or [], wanted))
            if kind == "ok":
                kind = "wrong"
                if right == len(wanted):
                    kind = "memorised" if memorised(source, task["train"]) else "accepted"
            if kind == "accepted":
                jobs[key] = Job(source, calls(task["train"] + task["test"]), arrays=True)
            about = {"message": message, "right": right, "source": source, "answers": None}
            verdicts[key] = {"verdict": kind, **about}
            self.got[key] = got
        for key, result in zip(jobs, self.sandbox().confirm(jobs.values())):
            _, frame, task = programs[key]
            wanted, values = shown_outputs(task), list(map(listed, result.values or []))
            if result.kind != "ok":
                verdicts[key] |= {"verdict": result.kind, "message": result.message}
            elif all(legal(value) and value == grid for value, grid in zip(values, wanted)):
                answers = [frame.back(grid) if legal(grid) else None for grid in values[len(wanted) :]]
                verdicts[key]["answers"] = answers if any(answers) else None
            else:
                message = "right beside other programs, wrong alone"
                verdicts[key] |= {"verdict": "unstable", "message": message}
        return verdicts

    def outputs(self, programs):
        """What programs, (source, pairs), do with the inputs of the pairs, run beside others: a list of (kind
        of sandbox.Result, message, the outputs if they are grids)."""
        asked = {}
        for _, pairs in programs:  # what jobs share is written for the sandbox once
            asked.setdefault(id(pairs), calls(pairs))
        jobs = [Job(source, asked[id(pairs)], arrays=True) for source, pairs in programs]
        results = []
        for result in self.sandbox().run(jobs):
            kind, grids = result.kind, list(map(listed, result.values or []))
            if kind == "ok" and not all(map(legal, grids)):  # legal first: True == 1 == 1.0
                kind = "output"
            results.append((kind, result.message, grids if kind == "ok" else None))
        return results


def grid_verdict(question, text, grid):
    """The verdict, as in Runner.judge, on a reply that gives a grid itself, or none."""
    answers = None
    if grid:
        answers = [None] * len(question.record["test"])
        answers[question.test] = question.frame.back(grid)
    kind = "accepted" if grid else "none"
    return {"verdict": kind, "message": "", "right": 0, "source": text, "answers": answers}


def shown_outputs(task):
    return [pair["output"] for pair in task["train"]]


def calls(pairs):
    return [("task", [pair["input"]]) for pair in pairs]


def listed(value):
    """A grid whose rows, or which itself, are tuples as lists; all else as it is."""
    if type(value) not in (list, tuple):
        return value
    return [list(row) if type(row) is tuple else row for row in value]


def memorised(source, pairs):
    """Whether a program holds an output of the pairs, of four cells or more: as a list, as text, or because
    more than two fifths of its 20 or more tokens are digits."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    outputs = ["".join(map(str, itertools.chain(*pair["output"]))) for pair in pairs]
    large = [digits for digits in outputs if len(digits) > 3]
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple, ast.Constant)):
            try:
                value = ast.literal_eval(node)
            except (ValueError, TypeError, MemoryError, RecursionError):
                continue
            digits = re.sub(r"[^0-9]", "", str(value))
            if any(text in digits for text in large):
                return True
    words = re.findall(r"[0-9]+|[^\W0-9]+|[^\s\w]", source)
    return len(words) >= 20 and sum(word.isdigit() for word in words) > 0.4 * len(words)
