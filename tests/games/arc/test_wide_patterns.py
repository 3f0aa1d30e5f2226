"""The wide families of lines and patterns: each draws tasks that keep the rules; examples by hand."""

import numpy as np
import pytest

from games.arc import dsl, wide_lines, wide_patterns
from games.arc.prompts import source
from games.arc.world import Rejected, open_world, parts_of

FAMILIES = {**wide_lines.FAMILIES, **wide_patterns.FAMILIES}
WIDE = open_world("wide")


def test_the_two_registries_share_no_name():
    assert len(FAMILIES) == len(wide_lines.FAMILIES) + len(wide_patterns.FAMILIES) >= 60
    assert FAMILIES.items() <= WIDE.families.items()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_draws_tasks_that_keep_the_rules(name):
    body = FAMILIES[name].body
    assert body.count("return ") == 1 and body.split("\n")[-1].startswith("return ")
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(300):
        if len(tasks) < 3:
            try:
                tasks.append(WIDE.make((name,), rng))
            except Rejected:
                continue
    assert len(tasks) == 3
    for task in tasks:
        _, pairs = parts_of(task)
        scope = {"np": np, "dsl": dsl}
        exec(source(task["program"]), scope)
        for x, y in pairs:
            before = x.copy()
            out = scope["task"](x)
            assert np.array_equal(out, y) and out.dtype.kind == "i" and np.array_equal(x, before)


def draw(text):
    return np.array([[int(cell) for cell in row.replace(".", "0")] for row in text.split()])


EXAMPLES = [
    ("lines_of_stop", {"a": 1, "n": 9, "z": 0}, ".1..2 2..1.", "11112 21111"),
    ("connect_paint", {"a": 1, "n": 10, "c": 8, "z": 0}, "1..1 .... 1..2", "1881 8... 1..2"),
    ("fill_enclosed", {"z": 0, "n": 0, "c": 4}, "111. 1.1. 1111 1..1", "111. 141. 1111 1..1"),
    ("corner_lines", {"z": 0, "n": 4}, ".... .... ..11 ..11", "1... .1.. ..11 ..11"),
    ("mend_tile", {"a": 9}, "1212 3994 1292 3434", "1212 3434 1212 3434"),
    ("fill_mirrors", {"z": 0}, "1221 35.. 3553 1221", "1221 3553 3553 1221"),
    ("extend", {"n": 0, "k": -1, "z": 0}, ".. .. 12 34 12", "12 34 12 34 12"),
    ("parts_count", {"z": 0, "k": 1, "c": 7}, "2.5.. ..53. 55555 445.. 445..", "77 .."),
]


@pytest.mark.parametrize("name, p, x, y", EXAMPLES)
def test_examples(name, p, x, y):
    assert p.keys() == {*FAMILIES[name].fields}
    assert FAMILIES[name].program(p)(draw(x)).tolist() == draw(y).tolist()
