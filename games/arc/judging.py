"""Judging replies: programs are run in the sandbox, grids are read, and each reply gets a verdict.

A program that gives every shown output is accepted; only then does its output for a test count."""

import ast
import itertools
import re
import sys
from dataclasses import dataclass
from operator import eq

import numpy as np

from games.arc import dsl
from games.arc.grids import Frame, legal
from games.sandbox.sandbox import Job, Sandbox

MEMORY = 512 << 20  # most bytes of memory for a program


@dataclass
class Question:
    """A request for one reply."""

    record: dict  # the task: {"id", "train", "test", ...}
    frame: Frame  # in which the prompt shows the task
    test: int | None  # index of the test that the prompt shows
    messages: list


class Runner:
    """Runs programs in the sandbox, which starts when it is first needed."""

    def __init__(self, options):
        self.options = options
        self.box = None

    @property
    def level(self):
        return self.box.level if self.box else ""

    def sandbox(self):
        """The sandbox. Raises PermissionError where the machine is too weak."""
        if self.box is None:
            o = self.options
            names = {"np": np, "dsl": dsl}  # what programs may use without an import
            self.box = Sandbox(o.seconds, MEMORY, o.workers, o.unsafe_exec, names)
            print(f"sandbox: level {self.box.level}", file=sys.stderr)
        return self.box

    def judge(self, questions, programs):
        """The verdicts on programs that answer Questions.

        A verdict is a dict with "verdict" (accepted, wrong, memorised, unstable, none, or a kind of
        sandbox.Result), "message", "right" (number of right shown pairs), "source" and "answers": None, or a
        grid or None for each test of the task, brought back from the frame."""
        tasks = {}  # (id, frame) -> the task as the frame shows it
        jobs = {}  # equal programs for the same task and frame are run once
        keys = []
        for question, source in zip(questions, programs):
            view = question.record["id"], str(question.frame)
            if view not in tasks:
                tasks[view] = question.frame.task(question.record)
            key = (*view, source)
            jobs[key] = source, question.frame, tasks[view]
            keys.append(key)
        verdicts = self.verify(jobs)
        return [verdicts[key] for key in keys]

    def verify(self, programs):
        """{key: verdict, as in judge} for {key: (source, frame, task as the frame shows it)}.

        All programs are run beside others first. Those that give every shown output are then run twice, each
        time in a process of their own, and only what they give there counts."""
        results = self.outputs([(source, task["train"]) for source, _, task in programs.values()])
        verdicts = {}
        jobs = {}
        for key, (kind, message, got) in zip(programs, results):
            source, _, task = programs[key]
            wanted = shown_outputs(task)
            right = sum(map(eq, got or [], wanted))
            if kind == "ok":
                kind = "wrong"
                if right == len(wanted):
                    kind = "memorised" if memorised(source, task["train"]) else "accepted"
            if kind == "accepted":
                jobs[key] = Job(source, calls(task["train"] + task["test"]), arrays=True)
            verdicts[key] = {
                "verdict": kind,
                "message": message,
                "right": right,
                "source": source,
                "answers": None,
            }

        for key, result in zip(jobs, self.sandbox().confirm(jobs.values())):
            _, frame, task = programs[key]
            wanted = shown_outputs(task)
            values = list(map(as_lists, result.values or []))
            if result.kind != "ok":
                verdicts[key] |= {"verdict": result.kind, "message": result.message}
            elif all(legal(value) and value == grid for value, grid in zip(values, wanted)):
                tests = values[len(wanted) :]
                answers = [frame.back(grid) if legal(grid) else None for grid in tests]
                verdicts[key]["answers"] = answers if any(answers) else None
            else:
                message = "right beside other programs, wrong alone"
                verdicts[key] |= {"verdict": "unstable", "message": message}
        return verdicts

    def outputs(self, programs, tier="run"):
        """Run programs, (source, pairs), on the inputs of the pairs, in a tier of the Sandbox: "run" or
        "confirm". Returns for each (kind of sandbox.Result, message, the outputs if they are grids, else
        None)."""
        shared = {}  # jobs with the same pairs share one list of calls, which the sandbox then packs once
        for _, pairs in programs:
            shared.setdefault(id(pairs), calls(pairs))
        jobs = [Job(source, shared[id(pairs)], arrays=True) for source, pairs in programs]

        results = []
        for result in getattr(self.sandbox(), tier)(jobs):
            kind = result.kind
            grids = list(map(as_lists, result.values or []))
            if kind == "ok" and not all(map(legal, grids)):  # before any ==, because True == 1 == 1.0
                kind = "output"
            results.append((kind, result.message, grids if kind == "ok" else None))
        return results


def grid_verdict(question, text, grid):
    """The verdict, as in Runner.judge, on a reply that gives a grid, or None, instead of a program."""
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


def as_lists(value):
    """A value with lists in place of its tuples, for itself and for its rows; anything else unchanged."""
    if type(value) not in (list, tuple):
        return value
    return [list(row) if type(row) is tuple else row for row in value]


def memorised(source, pairs):
    """Whether a program holds an output of the pairs instead of computing it.

    It does if a list or a text in it holds the cells of an output of four cells or more, or if it has at
    least 20 tokens and more than two fifths of them are numbers."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    large = []
    for pair in pairs:
        output = "".join(map(str, itertools.chain(*pair["output"])))
        if len(output) > 3:  # fewer digits occur by chance
            large.append(output)
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple, ast.Constant)):
            try:
                value = ast.literal_eval(node)
            except (ValueError, TypeError, MemoryError, RecursionError):
                continue
            # Without brackets, commas and spaces a list of rows reads like the output.
            digits = re.sub(r"[^0-9]", "", str(value))
            if any(output in digits for output in large):
                return True
    # An output can also be spread over many short literals.
    words = re.findall(r"[0-9]+|[^\W0-9]+|[^\s\w]", source)
    return len(words) >= 20 and sum(word.isdigit() for word in words) > 0.4 * len(words)
