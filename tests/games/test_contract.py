"""The contract of games.task for every game, and the marks of flags that recipes.py and infer.py rely on."""

import dataclasses
from typing import get_args

import numpy as np
import pytest

from games import GAMES, task_class
from games.task import Task
from objectives import OBJECTIVES
from recipes import Infer, parse

SMALL = {  # flags for a small world
    "arc": dict(tests=8),
    "arena": dict(battles=60, tests=20),
    "chat": dict(problems=60, tests=20),
    "eedi": dict(questions=60, tests=20),
    "reasoning": dict(problems=60, tests=20),
}
LOSSES = [
    *((name, "") for name in GAMES),
    ("arena", "davidson"),
    ("arena", "bradley-terry"),
]  # "": the game's own
GOLD = {  # for games with one prompt and one reply: the same example with another answer
    "arc": lambda task: task | {"program": "return 1", "test": [task["test"][0] | {"output": [[7]]}]},
    "arena": lambda battle: battle | {"target": 2, "probs": None},
    "chat": lambda row: row | {"messages": [*row["messages"][:-1], {"role": "assistant", "content": "x"}]},
    "reasoning": lambda row: row | {"answer": "x", "trace": "y", "reasoning": "z"},
}


def make(name, loss=""):
    """Make a game as train.py does for a loss."""
    game = task_class(name)
    options = game.Options(**SMALL.get(name, {}))
    return game(options, 3, OBJECTIVES[loss or game.loss].item)


@pytest.fixture(scope="module", params=GAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def task(name):
    return make(name)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_examples_are_the_same_every_time(name, task, split):
    examples = task.examples(split)
    assert examples and all(type(example) is dict for example in examples)
    assert task.examples(split) == examples
    assert make(name).examples(split) == examples


@pytest.mark.parametrize("name, loss", LOSSES)
def test_items_are_of_the_kind_that_the_loss_learns_from(name, loss):
    task = make(name, loss)
    kinds = set()
    for i, example in enumerate(task.examples("train")[:20]):
        items = [task.items(example, np.random.default_rng([i, repeat])) for repeat in range(2)]
        again = task.items(example, np.random.default_rng([i, 0]))
        assert items[0] == again
        kinds |= {type(item) for item in items[0] + items[1]}
    assert kinds == {task.kind}


def test_no_prompt_depends_on_the_gold_answer(name, task):
    assert (type(task).prompt is not Task.prompt) == (name in GOLD)
    for example in task.examples("test")[:20] if name in GOLD else []:
        assert task.prompt(GOLD[name](example)) == task.prompt(example)


# ------------------------------------------------------------------------------------------------ flags
WITH_AGENT = {"words", "max_new", "endpoint", "plays", "instruct"}  # marks of a flag that names an agent
MARKS = {"agent", "as_trained", "code", "cosmetic", "least", "share"} | WITH_AGENT


def test_marks_of_flags_are_those_that_are_read(name):
    fields = {field.name: field for field in dataclasses.fields(task_class(name).Options)}
    for field in fields.values():
        marks = field.metadata
        assert marks.keys() <= MARKS, field.name
        assert "agent" in marks or not marks.keys() & WITH_AGENT, field.name
        assert marks.get("agent", "reply") in ("reply", "classify"), field.name
        assert {*marks.get("plays", "eval").split()} <= {"play", "eval", "collect", "submit"}, field.name
        endpoint = marks.get("endpoint", {})
        assert endpoint.keys() <= {"model", "workers", "price"}, field.name
        assert set(endpoint.values()) <= fields.keys(), field.name
        if marks.get("share"):
            assert field.type is float and 0 <= field.default <= 1, field.name


def test_every_choice_of_a_flag_can_be_given(name):
    for field in dataclasses.fields(task_class(name).Options):
        choices = get_args(field.type)
        assert not choices or field.default in choices, field.name
        for choice in choices:
            flag = f"--{field.name.replace('_', '-')}={choice}"
            settings = parse(Infer, ["eval", "--task", name, flag])
            assert getattr(settings.options, field.name) == choice
