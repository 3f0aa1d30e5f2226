"""ARC's search: what it finds, in which order, within its budget; and what an evaluation makes of it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from games.arc import dsl
from games.arc.files import ranked, searched, submission
from games.arc.search import Search, distance_of, same
from games.arc.task import Arc, Options
from games.arc.terminal import show_steps, side_by_side
from games.arc.world import World, open_world, permuted
from games.task import Players
from terminal import UsageError
from tests.games.arc.help_arc import FLIP, SMALL, TASK, Says, attempt, draw_tasks, runs_programs, summarise

MANY = 50_000


def search(task, programs=MANY, seconds=60.0):
    made = Search(SMALL, task, programs, seconds)
    made.run()
    return made


def reproduces(found, pairs):
    """Whether the source of a program, run as the rest of the project runs it, gives these outputs."""
    scope = {"np": np, "dsl": dsl}
    exec(found["source"], scope)
    return all(scope["task"](np.array(pair["input"])).tolist() == pair["output"] for pair in pairs)


# ------------------------------------------------------------------------------------------------ finding
def test_a_program_of_one_step_is_always_found_and_all_that_is_found_fits():
    solved = 0
    for task in draw_tasks(21, 30):
        found = search(task, 5000).found
        assert found and all(reproduces(program, task["train"]) for program in found)
        solved += any(program["answers"] == [pair["output"] for pair in task["test"]] for program in found)
    assert solved == 30


def test_a_composition_is_found_and_its_output_is_never_looked_at():
    for names in (("crop", "flip_left_right"), ("replace", "transpose"), ("crop", "replace")):
        pairs = []
        for x in ([[0, 0, 0], [0, 1, 2], [0, 3, 1]], [[1, 2, 0], [3, 0, 0], [0, 0, 0]], [[0, 2, 1, 0, 0]]):
            grid = np.array(x)
            for name in names:
                grid = SMALL.apply([(name, PARAMETERS[name])], grid)
            pairs.append({"input": x, "output": grid.tolist()})
        hidden = {"train": pairs[:2], "test": [{"input": pairs[2]["input"]}]}
        found = search(hidden).found
        assert pairs[2]["output"] in [program["answers"][0] for program in found], names
        assert all(reproduces(program, pairs[:2]) for program in found)
        shown = {**hidden, "test": [{**hidden["test"][0], "output": [[9]]}]}
        assert search(shown).found == found


PARAMETERS = {
    "crop": {"z": 0},
    "flip_left_right": {},
    "transpose": {},
    "replace": {"a": 1, "c": 7},
}


def test_no_answer_depends_on_the_order_of_colours():
    """The rarest colour of the test is a tie, which argmin breaks by the order of colours."""
    inputs = [[1, 1, 2]], [[3, 3, 4]], [[5, 6]]
    task = {"train": [], "test": [{"input": inputs[2]}]}
    for x in inputs[:2]:
        task["train"].append({"input": x, "output": SMALL.apply([("all_most", {})], np.array(x)).tolist()})
    steps = [("all_most", {})]
    one = Search(SMALL, task, 10, 60)
    one.accept(steps)
    assert one.fits(steps) and one.found == []


def test_every_step_changes_the_test():
    task = {"train": [], "test": [{"input": [[1, 2, 2], [2, 2, 2]]}]}
    for x in ([[1, 2, 3], [3, 3, 2]], [[3, 0, 1], [1, 1, 2]]):
        task["train"].append({"input": x, "output": (np.where(np.array(x) == 3, 7, x)[::-1]).tolist()})
    made = Search(SMALL, task, 10, 60)
    steps = [("flip_up_down", {}), ("replace", {"a": 3, "c": 7})]
    made.accept(steps)
    assert made.fits(steps) and made.found == []
    made.accept(steps[:1])
    assert len(made.found) == 1


# ------------------------------------------------------------------------------------------------ tables
WIDE = open_world("wide")
FEW = World({"flip_left_right": SMALL.families["flip_left_right"], **WIDE.features}, (), 420)


def coloured(rule, n=4):
    """A task of n random grids whose outputs a rule makes from them; the last is the test."""
    pairs = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        grid = rng.integers(1, 4, (6, 7)) * (rng.random((6, 7)) < 0.5)
        pairs.append({"input": grid.tolist(), "output": rule(grid).tolist()})
    return {"train": pairs[:-1], "test": pairs[-1:]}


def test_a_table_makes_a_program_of_two_steps():
    """Cells of even rows are recoloured, each colour in its way; the others mirrored left to right."""

    def rule(grid):
        even = (np.indices(grid.shape)[0] % 2 == 0) & (grid > 0)
        return np.where(even, np.array([0, 5, 6, 5])[grid], grid[:, ::-1])

    task = coloured(rule, 9)
    made = Search(FEW, task, MANY, 60)
    made.run()
    (found, *_) = made.found
    assert "table" in found and len(found["steps"]) == 3 and found["answers"] == [task["test"][0]["output"]]
    assert all(reproduces(program, task["train"] + task["test"]) for program in made.found[:5])


def test_play_shows_the_grids_that_a_table_reads():
    table = {
        "steps": [("transpose", {}), ("flip_up_down", {})],
        "table": True,
        "answers": [[[7]]],
        "tried": 5,
    }
    record = {"replies": [], "test": [{"input": [[1, 2], [3, 4]]}], "search": {"found": [table]}}
    lines = []
    show_steps(SimpleNamespace(world=WIDE), record, 0, [[7]], lines.append)
    shown = "\n".join(lines)
    assert "\n".join(side_by_side([[[1, 3], [2, 4]]])) in shown
    assert "\n".join(side_by_side([[[3, 4], [1, 2]]])) in shown  # made of the input, not of its transpose


def test_a_table_without_an_entry_for_the_test_gives_no_answer():
    task = coloured(lambda grid: np.array([0, 3, 1, 2])[grid])
    assert [found["answers"] for found in search(task, 200).found] == []  # no single step does it
    made = Search(WIDE, task, MANY, 60)
    steps = [("input", {})]
    assert made.tabulate(steps) and made.found[0]["answers"] == [task["test"][0]["output"]]
    task["test"][0]["input"][0][0] = 9
    made = Search(WIDE, task, MANY, 60)
    assert not made.tabulate(steps) and made.found == []


@pytest.mark.parametrize("name", WIDE.features)
def test_a_feature_is_of_the_colours_or_of_numbers(name):
    """It gives a grid of the input's shape, for any order of colours the same numbers or the same colours."""
    family = WIDE.features[name]
    shown = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        grid = rng.integers(1, 4, (7, 7)) * (rng.random((7, 7)) < 0.4)
        made = Search(WIDE, {"train": [], "test": []}, 0, 0)
        order = rng.permutation(10)
        for p in family.fillings([1, 2, 3], [4], [0]):
            out = made.step(name, p, grid)
            ((_, q),) = permuted([(name, p)], order)
            other = made.step(name, q, order[grid])
            if out is not None and other is not None:
                assert out.shape == grid.shape
                shown += same(other, out) or same(other, order[out])
    assert shown


# ------------------------------------------------------------------------------------------------ order
def test_the_budget_holds():
    (task,) = draw_tasks(22, 1)
    task = {**task, "train": [{**pair, "output": [[7, 0, 7]]} for pair in task["train"]]}
    for programs in (0, 1, 37, 2000):
        made = search(task, programs)
        assert made.tried == programs and not made.found
    assert search(task, seconds=0.0).tried == 0


def test_search_repeats_itself():
    for task in draw_tasks(23, 5):
        one, two = search(task, 400), search(task, 400)
        assert (one.found, one.tried) == (two.found, two.tried)


def test_distance():
    grid = np.array([[1, 2], [3, 4]])
    assert distance_of(grid, grid) == 0
    assert distance_of(grid, np.array([[1, 2], [3, 5]])) == 0.25
    assert distance_of(grid, grid[::-1]) == 0.1  # all cells moved
    assert distance_of(grid, np.array([[1, 2]])) > 1 == distance_of(grid, np.full((2, 2), 7))


# ------------------------------------------------------------------------------------------------ evaluation
def options(**more):
    return Options(search=2000, tests=4, seconds=0.5, **more)


@runs_programs
def test_search_answers_where_no_reply_does():
    task = Arc(options())
    example = {"id": "a", "split": "", **TASK}
    record = attempt(task, example, Says("return gird"), 2)
    truth = TASK["test"][0]["output"]
    assert [reply["answers"] for reply in record["replies"]] == [None, None]
    assert searched(record, 0)[0] == truth and submission([record])["a"][0]["attempt_1"] == truth
    assert record["search"]["tried"] >= 2
    report = summarise(task, [json.loads(json.dumps(record))], 2)
    metrics = report["metrics"]
    assert metrics["top_1"] == metrics["top_2"] == metrics["top_precision"] == 1.0
    assert metrics["solved@2"] == 0
    first = record["search"]["found"][0]["tried"]
    assert searched(record, 0, first)[0] == truth and searched(record, 0, first - 1) == []


@runs_programs
def test_answers_of_search_come_before_those_of_replies():
    task = Arc(options())
    record = attempt(task, {"id": "a", "split": "", **TASK}, Says(FLIP.split("\n    ")[1]), 2)
    other = {"steps": [("transpose", {})] * 2, "answers": [[[5]]], "tried": 1, "source": ""}
    record["search"]["found"].insert(0, other)
    assert ranked(record, 0) == [TASK["test"][0]["output"], [[5]]]
    record["search"]["found"][:] = [other]
    assert ranked(record, 0) == [[[5]], TASK["test"][0]["output"]]


@runs_programs
def test_a_task_that_is_too_long_is_searched_without_the_model():
    task = Arc(Options(search=500, cells=8, seconds=0.5))
    agent = Says("return grid")
    record = attempt(task, {"id": "a", "split": "", **TASK}, agent, 2)
    assert record["replies"] == [] == agent.seen and record["search"]["found"]
    report = summarise(task, [record], 2)
    assert report["metrics"]["top_1"] == 1.0 and report["curve"] == {}
    assert "1 tasks do not fit" in report["notes"][0]


@runs_programs
def test_without_search_a_task_that_is_too_long_is_asked_with_one_pair():
    agent = Says("return grid")
    record = attempt(Arc(Options(cells=8, seconds=0.5)), {"id": "a", "split": "", **TASK}, agent, 2)
    assert len(record["replies"]) == 2 and agent.seen


def test_flags_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match="only families"):
        Arc(Options(only="families"))
    Arc(Options(search=10, prompt_version="output"))


@runs_programs
def test_play_shows_the_steps():
    task = Arc(options())
    lines = []
    task.interact(Players(Says("return gird"), n=1), None, lines.append, "", 0)
    record = attempt(task, task.examples("test")[0], Says("return gird"), 1)
    (name, _), *_ = record["search"]["found"][0]["steps"]
    assert any("of the search, 1 steps" in line for line in lines)
    assert any(line.startswith(name) for line in lines)
