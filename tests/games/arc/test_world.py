"""The world of ARC: programs, rejection rules, ambiguity, what is held out, recolouring."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from games.arc import dsl
from games.arc.families import COLOURS, DSL, FAMILIES, SLOW
from games.arc.prompts import source
from games.arc.world import Rejected, World, open_world, parts_of, permuted
from tests.games.arc.help_arc import SMALL, draw_tasks

WITH_HELD_OUT = [name for name in FAMILIES if FAMILIES[name].has_held_out]


@pytest.fixture(scope="module")
def usual():
    return draw_tasks(1, 500)


@pytest.fixture(scope="module")
def compositions():
    return draw_tasks(2, 60, compositions=1.0)


@pytest.fixture(scope="module")
def unseen_compositions():
    return draw_tasks(2, 60, compositions=1.0, held_out=True)


def reproduces(task):
    """Whether the program of a task, run as the rest of the project runs it, gives all its outputs."""
    scope = {"np": np, "dsl": dsl}
    exec(source(task["program"]), scope)
    for x, y in parts_of(task)[1]:
        before = x.copy()
        out = scope["task"](x)
        if not np.array_equal(out, y) or out.dtype.kind != "i" or not np.array_equal(x, before):
            return False
    return True


def colours_of(grids):
    return sorted({*np.concatenate([grid.ravel() for grid in grids]).tolist()} - {0})


# ------------------------------------------------------------------------------------------------ programs
@pytest.mark.parametrize("name", FAMILIES)
def test_programs_reproduce_their_tasks_and_end_in_their_only_return(name):
    body = FAMILIES[name].body
    assert body.count("return ") == 1 and body.split("\n")[-1].startswith("return ")
    for held_out in (False, True) if FAMILIES[name].has_held_out else (False,):
        for task in draw_tasks(3, 6, [name], held_out):
            assert task["family"] == name and reproduces(task), task


def test_programs_of_compositions_reproduce_their_tasks(compositions, unseen_compositions):
    for task in compositions + unseen_compositions:
        assert reproduces(task), task
        assert task["program"].count("return ") == 1


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
                    out = FAMILIES[name].program(p)(grid)
                    answers.append((out.shape, out.tobytes()))
                except (IndexError, ValueError):
                    answers.append(None)
            assert len(set(answers)) > 1, (name, p)
            assert seen.setdefault(tuple(answers), name) == name, (name, p)


def test_programs_are_short_and_of_few_words(usual, compositions):
    words = re.compile(r"\n *|[A-Za-z_]+|\d|//|==|!=|\S")
    programs = [words.findall(task["program"]) for task in usual + compositions]
    assert len(FAMILIES) >= 45 and len(set().union(*programs)) <= 100
    assert np.median([len(program) for program in programs[:500]]) <= 35
    assert max(len(program) for program in programs) <= 84


# ------------------------------------------------------------------------------------------------ draws
def test_the_rules_hold(usual, compositions, unseen_compositions):
    for task in usual + compositions + unseen_compositions + draw_tasks(4, 200, held_out=True):
        assert len(task["train"]) == 3 and len(task["test"]) == 1
        pairs = parts_of(task)[1]
        for grid in itertools.chain(*pairs):
            assert grid.ndim == 2 and 1 <= min(grid.shape) and max(grid.shape) <= 30
            assert grid.min() >= 0 and grid.max() <= 9
        assert sum(x.size + len(x) + y.size + len(y) for x, y in pairs[:-1]) <= 420


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
            y = FAMILIES[name].program(p)(y)
        pairs.append((x, y))
    with pytest.raises(Rejected, match=reason):
        SMALL.check(steps, pairs)


def test_a_family_that_cannot_take_its_own_input_is_drawn_again():
    """Once in 16,000 draws a wide family finds nothing to count."""
    flip = FAMILIES["flip_left_right"]
    body = "if grid.shape[0] % 2: raise ValueError\n" + flip.body
    world = World({"picky": replace(flip, name="picky", body=body)}, (), 420)
    for seed in range(20):
        task = world.draw(np.random.default_rng(seed))
        assert all(len(pair["input"]) % 2 == 0 for pair in task["train"] + task["test"])
    never = World({"never": replace(flip, name="never", body="raise IndexError\n" + flip.body)}, (), 420)
    with pytest.raises(RuntimeError, match="never.*a step fails"):
        never.draw(np.random.default_rng(0))


def test_few_tasks_are_ambiguous():
    """Any member of any family, whatever its parameters, that fits the shown pairs must give the same
    output for the test."""
    bad, sample = [], draw_tasks(7, 150)
    for task in sample:
        pairs = parts_of(task)[1]
        inside, painted = (colours_of(grids) for grids in zip(*pairs))
        members = [(f.name, p) for f in FAMILIES.values() for p in f.near({}, inside, painted)]
        others = [
            one for one in members if SMALL.fits([one], pairs[:-1]) and not SMALL.fits([one], pairs[-1:])
        ]
        bad += [(task["family"], others)] if others else []
    assert len(bad) < 0.02 * len(sample), bad


# ------------------------------------------------------------------------------------------------ held out
def test_held_out_parameters_are_never_in_the_usual_draw(usual, compositions):
    def drawn(tasks):
        for task in tasks:
            for name, p in parts_of(task)[0]:
                yield from ((name, x, v, FAMILIES[name].values[x]) for x, v in p.items() if x not in COLOURS)

    for name in WITH_HELD_OUT:
        assert all(not {*usual} & {*held} for usual, held in FAMILIES[name].values.values())
    assert [found for found in drawn(usual + compositions) if found[2] in found[3][1]] == []
    unseen = draw_tasks(8, 200, held_out=True)
    assert {task["family"] for task in unseen} <= {*WITH_HELD_OUT} and len(WITH_HELD_OUT) >= 10
    assert [found for found in drawn(unseen) if found[3][1] and found[2] not in found[3][1]] == []


def test_held_out_compositions_are_never_in_the_usual_draw(compositions, unseen_compositions):
    held_out = SMALL.held_out_couples
    assert {(second, first) for first, second in held_out} == held_out < {*SMALL.couples}
    assert 0.1 < len(held_out) / len(SMALL.couples) < 0.3
    usual = {*SMALL.couples} - held_out
    assert {*itertools.chain(*held_out)} <= {*itertools.chain(*usual)}
    assert not {tuple(task["family"].split("+")) for task in compositions} & held_out
    assert {tuple(task["family"].split("+")) for task in unseen_compositions} <= held_out
    assert not any("+" in task["family"] for task in draw_tasks(9, 50))


# ------------------------------------------------------------------------------------------------ recolouring
def test_recolouring_commutes_with_the_program(compositions):
    """Under all permutations, also those that move the background: it is a parameter like the others."""
    rng = np.random.default_rng(0)
    for task in compositions + [task for name in FAMILIES for task in draw_tasks(11, 2, [name])]:
        steps, pairs = parts_of(task)
        for permutation in (rng.permutation(10), np.r_[0, rng.permutation(9) + 1], np.roll(np.arange(10), 1)):
            changed = permuted(steps, permutation)
            new = SMALL.task_of(changed, [(permutation[x], permutation[y]) for x, y in pairs])
            assert reproduces(new), (task["program"], new["program"])
            assert permuted(changed, np.argsort(permutation)) == steps


# ------------------------------------------------------------------------------------------------ wide
def test_the_wide_world_is_wider_and_keeps_its_rules():
    wide = open_world("wide")
    assert FAMILIES.items() <= wide.families.items() and {*SMALL.couples} < {*wide.couples}
    assert not wide.unseen & {name for names in wide.couples for name in names}
    largest = 0
    for task in draw_tasks(12, 60, compositions=0.5, world=wide):
        steps, pairs = parts_of(task)
        assert not wide.unseen & {name for name, _ in steps}
        assert wide.fits(steps, pairs) and reproduces(task)
        sizes = [max(grid.shape) for grid in itertools.chain(*pairs)]
        assert max(sizes) <= 30 and sum(grid.size for grid in itertools.chain(*pairs[:-1])) <= wide.prompt
        largest = max(largest, *sizes)
    assert largest > 15


def test_what_is_cut_out_first_may_be_changed_next():
    wide = open_world("wide")
    for names in (("crop", "flip_up_down"), ("crop", "replace"), ("inside", "negative")):
        assert names in wide.couples and names[::-1] not in wide.couples
        assert names not in SMALL.couples
        for task in draw_tasks(13, 3, names, world=wide):
            assert task["family"] == "+".join(names) and reproduces(task)


def test_objects_are_found_once_and_a_program_may_change_the_list():
    grid = np.array([[1, 0, 2], [0, 0, 2]])
    for choice, named in (((), {}), ((True, False), {}), ((), {"background": 2})):
        expected = [obj.cells.tolist() for obj in dsl.objects(grid, *choice, **named)]
        for _ in range(2):
            found = DSL.objects(grid, *choice, **named)
            assert [obj.cells.tolist() for obj in found] == expected
            found.clear()
    first, again, other = grid, grid.copy(), grid.astype(np.int8)
    assert DSL.objects(first)[0] is DSL.objects(again)[0] is not DSL.objects(other)[0]


@pytest.mark.parametrize("name", sorted({*SLOW} - {"objects"}))
def test_what_is_computed_once_is_the_same_and_may_be_changed(name):
    arguments = {"form": (0,), "holes": (0,), "symmetric": (9, 1), "retile": (9,), "enclosed": (0,)}[name]
    for rows in ([[1, 0, 1], [9, 0, 1]], [[1, 9, 1], [1, 0, 1], [1, 1, 1]]):
        grid = np.array(rows)
        for _ in range(2):
            try:
                expected = getattr(dsl, name)(grid, *arguments)
            except ValueError:
                with pytest.raises(ValueError):
                    getattr(DSL, name)(grid, *arguments)
                continue
            found = getattr(DSL, name)(grid, *arguments)
            assert np.array_equal(found, expected) if isinstance(found, np.ndarray) else found == expected
            if isinstance(found, np.ndarray):
                found[:] = 7
