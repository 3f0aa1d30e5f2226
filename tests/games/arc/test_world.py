"""The world of ARC: programs, rejection rules, ambiguity, what is held out, recolouring."""

import itertools

import numpy as np
import pytest

from games.arc.world import (
    COLOURS,
    FAMILIES,
    HELD_OUT_PAIRS,
    PAIRS,
    Rejected,
    check,
    compose,
    fits,
    make,
    member,
    recolour,
    source,
    statistics_of,
    tasks,
)

WITH_HELD_OUT = [name for name in FAMILIES if FAMILIES[name].has_held_out]


@pytest.fixture(scope="module")
def thousand():
    return tasks(1, 1000)


@pytest.fixture(scope="module")
def compositions():
    return tasks(2, 60, compositions=1.0)


@pytest.fixture(scope="module")
def unseen_compositions():
    return tasks(2, 60, compositions=1.0, held_out=True)


def arrays(task):
    return [(np.array(pair["input"]), np.array(pair["output"])) for pair in task["train"] + task["test"]]


def run(program, grid):
    """The output of the program as the rest of the project runs it: a function `task` with np in scope."""
    scope = {"np": np}
    exec(source(program), scope)
    return scope["task"](grid)


def reproduces(task):
    for x, y in arrays(task):
        before = x.copy()
        out = run(task["program"], x)
        if not np.array_equal(out, y) or out.dtype.kind != "i" or not np.array_equal(x, before):
            return False
    return True


# ------------------------------------------------------------------------------------------------ programs
@pytest.mark.parametrize("name", FAMILIES)
def test_programs_reproduce_their_tasks(name):
    for held_out in (False, True) if FAMILIES[name].has_held_out else (False,):
        for task in tasks(3, 12, [name], held_out):
            assert task["family"] == name and reproduces(task), task


def test_programs_of_compositions_reproduce_their_tasks(compositions, unseen_compositions):
    for task in compositions + unseen_compositions:
        assert reproduces(task), task
        assert task["program"].count("return ") == 1


def test_a_body_ends_in_its_only_return():
    """compose turns the first body's return into an assignment."""
    for family in FAMILIES.values():
        assert family.body.count("return ") == 1, family.name
        assert family.body.split("\n")[-1].startswith("return "), family.name


def test_no_two_families_are_the_same_function():
    rng, grids, seen = np.random.default_rng(0), [], {}
    for family in FAMILIES.values():
        for a, b, k, n in ((1, 2, 2, 0), (2, 1, 3, 1)):
            p = {"a": a, "b": b, "k": k, "n": n, "palette": [3, 4, 5, 6]}
            grids.append(family.inputs(rng, {x: p[x] for x in [*family.fields, "palette"] if x in p}))
    for name, family in FAMILIES.items():
        for p in family.near({}, [1, 2], [3]):
            answers = []
            for grid in grids:
                try:
                    out = member(name, *p.values())(grid)
                    answers.append((out.shape, out.tobytes()))
                except (IndexError, ValueError):
                    answers.append(None)
            assert len(set(answers)) > 1, (name, p)
            assert seen.setdefault(tuple(answers), name) == name, (name, p)


def test_programs_are_short_and_of_few_words(thousand, compositions):
    found = statistics_of(thousand)
    assert len(FAMILIES) >= 45
    assert found["distinct tokens"] <= 100
    assert found["program tokens"][0] <= 35 and found["prompt cells"][0] <= 160
    assert max(statistics_of(x)["prompt cells"][2] for x in (thousand, compositions)) <= 420
    assert max(statistics_of(x)["program tokens"][1] for x in (thousand, compositions)) <= 84


# ------------------------------------------------------------------------------------------------ draws
def test_a_task_is_a_function_of_seed_and_number():
    options = ({}, {"held_out": True}, {"compositions": 0.5}, {"names": ["swap", "turn"]})
    for option in options:
        first = tasks(5, 12, **option)
        assert tasks(5, 6, **option) == first[:6]
        assert tasks(6, 6, **option) != first[:6]


def test_the_rules_hold(thousand, compositions, unseen_compositions):
    for task in thousand + compositions + unseen_compositions + tasks(4, 200, held_out=True):
        assert len(task["train"]) == 3 and len(task["test"]) == 1
        pairs = arrays(task)
        for grid in itertools.chain(*pairs):
            assert grid.ndim == 2 and 1 <= min(grid.shape) and max(grid.shape) <= 30
            assert grid.min() >= 0 and grid.max() <= 9
        assert all(x.any() for x, _ in pairs)
        assert len({str(x.tolist()) for x, _ in pairs}) == 4
        assert any(not np.array_equal(x, y) for x, y in pairs)
        assert len({str(y.tolist()) for _, y in pairs}) > 1


ONE, TWO, THREE, FOUR = [[1, 0], [0, 0]], [[0, 2], [0, 0]], [[0, 0], [3, 0]], [[0, 0], [4, 4]]
FLIP, MOST = "flip_up_down", "all_most"


@pytest.mark.parametrize(
    "steps, inputs, reason",
    [
        ([(FLIP, {})], [ONE, TWO, THREE, [[0, 0], [0, 0]]], "one colour"),
        ([(FLIP, {})], [ONE, TWO, THREE, ONE], "equal inputs"),
        ([("drop_rows", {"z": 0})], [ONE, [[1, 0]], [[1, 0], [0, 0], [0, 0]], FOUR], "all outputs equal"),
        ([("tile", {"k": 16, "n": 1})], [ONE, TWO, THREE, FOUR], "too long"),
        ([("enlarge", {"k": 8})], [ONE, TWO, THREE, FOUR], "long prompt"),
        ([(MOST, {})], [[[1, 2]], TWO, THREE, ONE], "tie"),
        ([(FLIP, {})], [[[1, 2]], [[2, 3]], [[3, 4]], FOUR], "changes nothing"),
        ([(FLIP, {}), ("swap", {"a": 8, "b": 9})], [ONE, TWO, THREE, FOUR], "changes nothing"),
        ([(FLIP, {})], [[[1], [2]], [[2], [3]], [[3], [4]], [[0, 1], [2, 3]]], "ambiguous"),  # or half_turn
        ([("cut_top", {"k": 1})], [ONE, TWO, FOUR, [[1], [2], [3]]], "ambiguous"),  # or the row 1
    ],
)
def test_what_is_rejected(steps, inputs, reason):
    pairs = []
    for x in map(np.array, inputs):
        y = x
        for name, p in steps:
            y = member(name, *p.values())(y)
        pairs.append((x, y))
    with pytest.raises(Rejected, match=reason):
        check(steps, pairs)


def test_few_tasks_are_ambiguous():
    """Any member of any family, whatever its parameters, that fits what is shown must give the same test."""
    bad, sample = [], tasks(7, 150)
    for task in sample:
        pairs = arrays(task)
        inside = sorted({*np.concatenate([x.ravel() for x, _ in pairs]).tolist()} - {0})
        painted = sorted({*np.concatenate([y.ravel() for _, y in pairs]).tolist()} - {0})
        members = [(f.name, p) for f in FAMILIES.values() for p in f.near({}, inside, painted)]
        others = [one for one in members if fits([one], pairs[:-1]) and not fits([one], pairs[-1:])]
        bad += [(task["family"], others)] if others else []
    assert len(bad) < 0.02 * len(sample), bad


# ------------------------------------------------------------------------------------------------ held out
def test_held_out_parameters_are_never_in_the_usual_draw(thousand, compositions):
    def drawn(tasks):
        for task in tasks:
            composed = "+" in task["family"]
            for name, p in task["parameters"].items() if composed else [(task["family"], task["parameters"])]:
                yield from ((name, x, v, FAMILIES[name].values[x]) for x, v in p.items() if x not in COLOURS)

    for name in WITH_HELD_OUT:
        assert all(not {*usual} & {*held} for usual, held in FAMILIES[name].values.values())
    assert [found for found in drawn(thousand + compositions) if found[2] in found[3][1]] == []
    unseen = tasks(8, 200, held_out=True)
    assert {task["family"] for task in unseen} <= {*WITH_HELD_OUT} and len(WITH_HELD_OUT) >= 10
    assert [found for found in drawn(unseen) if found[3][1] and found[2] not in found[3][1]] == []


def test_held_out_compositions_are_never_in_the_usual_draw(compositions, unseen_compositions):
    assert {(second, first) for first, second in HELD_OUT_PAIRS} == HELD_OUT_PAIRS < {*PAIRS}
    assert 0.1 < len(HELD_OUT_PAIRS) / len(PAIRS) < 0.3
    assert {*itertools.chain(*HELD_OUT_PAIRS)} <= {*itertools.chain(*({*PAIRS} - HELD_OUT_PAIRS))}
    assert not {tuple(task["family"].split("+")) for task in compositions} & HELD_OUT_PAIRS
    assert {tuple(task["family"].split("+")) for task in unseen_compositions} <= HELD_OUT_PAIRS
    assert not any("+" in task["family"] for task in tasks(9, 50))


def test_calls_that_make_no_sense_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="one family of geometry and one of colour"):
        compose("turn", "transpose", rng)
    with pytest.raises(ValueError, match="compositions need"):
        tasks(0, 1, ["turn", "crop"], compositions=0.5)
    with pytest.raises(ValueError, match="no family 'transposed'; there are flip_up_down"):
        tasks(0, 1, ["transposed"])
    assert len(make("turn", rng, pairs=6)["train"]) == 5


# ------------------------------------------------------------------------------------------------ recolouring
def test_recolouring_commutes_with_the_program(compositions):
    """Under all permutations, also those that move the background: it is a parameter like the others."""
    rng = np.random.default_rng(0)
    for task in compositions + [task for name in FAMILIES for task in tasks(11, 4, [name])]:
        for permutation in (rng.permutation(10), np.r_[0, rng.permutation(9) + 1], np.roll(np.arange(10), 1)):
            new = recolour(task, permutation)
            for (x, y), (new_x, new_y) in zip(arrays(task), arrays(new)):
                assert np.array_equal(permutation[x], new_x) and np.array_equal(permutation[y], new_y)
            assert reproduces(new), (task["program"], new["program"])
            assert recolour(new, np.argsort(permutation)) == task


def test_recolouring_changes_constants_only_where_they_are_colours():
    task = tasks(0, 1, ["row_stripes"])[0]
    k, c = task["parameters"]["k"], task["parameters"]["c"]
    assert f"out[::{k}] = {c}" in task["program"]
    assert f"out[::{k}] = {9 - c}" in recolour(task, range(9, -1, -1))["program"]
