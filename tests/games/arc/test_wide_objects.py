"""Wide families about objects, parts and counts: each draws tasks that hold the rules of the world, and
examples by hand."""

import numpy as np
import pytest

from games.arc import dsl
from games.arc.prompts import source
from games.arc.wide_crops import FAMILIES as CROPS
from games.arc.wide_objects import FAMILIES as OBJECTS
from games.arc.wide_objects import program
from games.arc.world import Rejected, World, open_world, parts_of, permuted

FAMILIES = {**OBJECTS, **CROPS}
WIDE = open_world("wide")
TRIES = 150


def tasks_of(name, n, world):
    """n tasks of a family, task i a function of i, or fewer where TRIES draws of one are all rejected."""
    tasks = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        for _ in range(TRIES):
            try:
                tasks.append(world.make((name,), rng))
                break
            except Rejected:
                continue
    return tasks


def reproduces(task):
    """Whether the program of a task gives all its outputs, twice, and leaves its inputs alone."""
    scope = {"np": np, "dsl": dsl}
    exec(source(task["program"]), scope)
    for x, y in parts_of(task)[1] * 2:
        before = x.copy()
        out = scope["task"](x)
        if not np.array_equal(out, y) or out.dtype.kind != "i" or not np.array_equal(x, before):
            return False
    return True


def test_names_are_new():
    assert not {*OBJECTS} & {*CROPS}
    assert len(FAMILIES) == len(OBJECTS) + len(CROPS) > 60


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_draws_tasks_that_no_family_of_its_kind_makes_ambiguous(name):
    assert len(tasks_of(name, 3, WIDE)) == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_draws_tasks_that_its_program_solves_under_any_colours(name):
    """Also where the background moves: it is a parameter like the others."""
    body = FAMILIES[name].body
    assert body.count("return ") == 1 and body.split("\n")[-1].startswith("return ")
    # with all rivals of its kind a draw takes ten times as long
    alone = World({name: FAMILIES[name]}, (), WIDE.prompt, WIDE.larger)
    tasks = tasks_of(name, 3, alone)
    assert len(tasks) == 3
    for seed, task in enumerate(tasks):
        assert task["family"] == name and reproduces(task), task
        steps, pairs = parts_of(task)
        permutation = np.random.default_rng(seed).permutation(10)
        changed = [(permutation[x], permutation[y]) for x, y in pairs]
        assert alone.fits(permuted(steps, permutation), changed), task


def grid_of(picture):
    return np.array([[int(cell) for cell in row.replace(".", "0")] for row in picture.split()])


EXAMPLES = [  # a family, its parameters, an input and the output by hand
    ("crop_by_area", dict(n=1, m=1, k=-1), "11... 11.2. ....2", "11 11"),
    ("erase_by_area", dict(n=1, m=1, k=0), "11..3 11.2. .....", "11... 11... ....."),  # both are smallest
    ("paint_closed", dict(n=0, m=1, k=1, c=8), "333.3 3.3.3 333.3", "888.3 8.8.3 888.3"),
    ("fall", dict(n=1, m=1, k=0), "1.2 1.. .22 ...", "... ... 1.2 122"),
    ("slide_to", dict(n=1, a=3, b=4), "3..4 .... .3..", "..34 ..3. ...."),
    ("step_to", dict(n=1, a=3, b=4, k=1), "3..4 .... 3...", ".3.4 .3.. ...."),
    ("box_gaps", dict(n=1, m=1, c=5), "1.. .1. ...", "15. 51. ..."),
    ("colour_of_form", dict(n=1, m=1, a=8), "8..8 88.8 .... 3.44 33.4", "3..8 33.8 .... 3.44 33.4"),
    ("sum_of_parts", dict(n=1, k=1, c=7), "1.532 .15.3", ".7 .."),
    ("overlay_parts", dict(n=0, k=1), "1.32 .14.", "12 41"),
    ("part_by_copies", dict(n=1, k=0), "1.51.52. .15.15..", "2. .."),
    ("role_column", dict(k=1), "1112 ..2. ....", "1 2"),
    ("role_bars", dict(k=1), "1112 ..2. ....", "12 12 1."),
    ("diagonal_of_objects", dict(n=1, c=4), "1.2 ... 3..", "4.. .4. ..4"),
    ("join", dict(n=1), "1..1. .2..2", "1111. .2222"),
    ("squeeze", {}, "1122 1122 3344", "12 34"),
]


@pytest.mark.parametrize("name, p, picture, expected", EXAMPLES)
def test_examples_by_hand(name, p, picture, expected):
    solve = program(FAMILIES[name].body, {"z": 0, **p})
    assert solve(grid_of(picture)).tolist() == grid_of(expected).tolist()


def test_a_crop_of_different_objects_in_a_tie_is_refused():
    solve = program(FAMILIES["crop_by_area"].body, dict(n=1, m=1, k=-1, z=0))
    with pytest.raises(ValueError, match="not all equal"):
        solve(grid_of("11.2 ...2"))
