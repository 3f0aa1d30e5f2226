"""ARC's grids as text, frames and their inverses, votes and metrics by hand."""

import numpy as np
import pytest

from games.arc.figures import solved_at
from games.arc.grids import GRIDS, VIEWS, Frame, legal, scores, vote
from games.arc.task import Arc
from tests.games.arc.help_arc import TASK, TWO, record, summarise

RNG = np.random.default_rng(0)


def grids(n, low=1, high=7):
    return [RNG.integers(0, 10, RNG.integers(low, high + 1, 2)).tolist() for _ in range(n)]


# ------------------------------------------------------------------------------------------------ text
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_comes_back_from_its_text(name):
    for grid in grids(50):
        assert GRIDS[name].read(GRIDS[name].write(grid)) == grid
        assert GRIDS[name].read(GRIDS[name].write(grid) + "\nmore words") in (grid, None)


def test_how_grids_are_written():
    grid = [[1, 0], [2, 3]]
    assert GRIDS["digits"].write(grid) == "10\n23" and GRIDS["spaced"].write(grid) == "1 0\n2 3"
    assert GRIDS["letters"].write(grid) == "```grid shape: 2x2\n1 BA\n2 CD\n```"


@pytest.mark.parametrize(
    "name, text",
    [
        ("digits", "12\n3"),
        ("digits", ""),
        ("digits", "1a"),
        ("digits", "\n".join(["1"] * 31)),
        ("full", "```grid shape: 1x2\n1 12\n2 34\n```"),
        ("full", "```grid shape: 2x2\n1 12\n3 34\n```"),
        ("letters", "```grid shape: 1x2\n1 BK\n```"),
        ("spaced", "1  2"),
        ("spaced", "12 3"),
        ("fenced", "12"),
    ],
)
def test_what_is_no_grid_is_none(name, text):
    assert GRIDS[name].read(text) is None


def test_legal_grids():
    """256 once became 0 by a cast, and a grid had no upper limit: both count as no answer here."""
    assert legal([[0, 9]]) and legal([[1]] * 30)
    wrong = [[], [[]], [[1], [1, 2]], [[10]], [[256]], [[-1]], [[True]], [[1.0]], ((1,),), "1", None]
    wrong += [[[1]] * 31, [[1] * 31], [(1,)]]
    assert [grid for grid in wrong if legal(grid)] == []


# ------------------------------------------------------------------------------------------------ frames
def test_every_frame_is_undone_exactly():
    """On grids that are not square, with every view."""
    for turn in range(400):
        pairs = [dict(zip(("input", "output"), grids(2))) for _ in range(3)]
        task = {"train": pairs[:2], "test": pairs[2:]}
        frame = Frame.draw(task, np.random.default_rng(turn), turn % VIEWS)
        seen = frame.task(task)
        for pair, i in zip(seen["train"], frame.order):
            for side, grid in pair.items():
                assert legal(grid) and frame.back(grid) == pairs[i][side]
        assert frame.back(seen["test"][0]["output"]) == pairs[2]["output"]


def test_frames_are_random_in_all_they_may_be():
    grid = [[1, 2, 3], [4, 5, 6]]
    assert Frame(flip=True).grid(grid) == [[3, 2, 1], [6, 5, 4]]
    assert Frame(turns=1).grid(grid) == np.rot90(grid).tolist()
    frames = [Frame.draw(TASK, np.random.default_rng(i)) for i in range(300)]
    assert len({str(Frame(frame.flip, frame.turns).grid(grid)) for frame in frames}) == VIEWS
    assert len({str(frame.colours) for frame in frames}) > 290
    kept = sum(frame.colours[0] == 0 for frame in frames) / 300
    assert 0.85 < kept < 0.97  # nine in ten, and a tenth of the rest
    assert {frame.order[0] for frame in frames} == {0, 1}


# ------------------------------------------------------------------------------------------------ scores
def test_metrics_of_one_grid_by_hand():
    truth = [[1, 2], [3, 4]]
    assert scores([truth, [[1, 2], [0, 0]], [[1], [3]], []], truth) == {
        "accuracy": 0.25,
        "pass_n": 1.0,
        "unanswered": 0.25,
        "correct_size": 0.5,
        "correct_pixels": (1 + 0.5) / 4,
        "any_correct_size": 1.0,
        "max_correct_pixels": 1.0,
    }
    empty = scores([[], None], truth)
    assert empty["unanswered"] == 1.0 and sum(empty.values()) == 1.0


def test_votes():
    a, b, c = [[1]], [[2]], [[3]]
    assert vote([a, b, b, [], None, c]) == [b, a, c]
    assert vote([a, b], [-2.0, -0.5]) == [b, a]  # a tie goes to the likelier
    assert vote([a, b], [-2.0, -0.5], order=[a, b]) == [a, b]  # or by an order
    assert vote([a, a, b], [-9.0, -9.0, -0.1]) == [a, b]
    assert vote([[], None]) == []


def test_figures_of_a_task_with_two_tests_one_right():
    """A task with one of two tests right counts half for pass_n, and is not solved."""
    one, other = (pair["output"] for pair in TWO["test"])
    report = summarise(Arc(), [record([one, [[5]]], [one, None], None, None)])
    metrics = report["metrics"]
    assert metrics["pass_n"] == 0.5 and metrics["solved@1"] == 0.0 and metrics["accuracy"] == 0.25
    assert metrics["unanswered"] == (2 / 4 + 3 / 4) / 2 and metrics["precision"] == 0.0
    assert [grid["pass_n"] for grid in report["records"][0]["grids"]] == [1.0, 0.0]
    both = summarise(Arc(), [record([one, other], None, None, None), record(None, None, None, None)])
    assert both["metrics"]["solved@1"] == 0.125 and both["curve"] == {1: 0.125, 2: 0.25, 4: 0.5}
    assert both["metrics"]["precision"] == 1.0 and both["metrics"]["vote_1"] == 0.5
    assert both["metrics"]["verdict_accepted"] == 0.125
    metrics = summarise(Arc(), [record([one, other], [other, other], None)])["metrics"]
    wrong = 1 / 3 / 2  # one wrong answer in the first test
    assert metrics["accuracy"] + metrics["unanswered"] + wrong == pytest.approx(1.0)


def test_a_task_is_solved_by_a_right_grid_for_each_test():
    """Where replies are to one test each, the chances multiply."""
    one, other = (pair["output"] for pair in TWO["test"])
    first, second = record([one, None], None, test=0), record([None, other], [None, one], test=1)
    both = {**first, "replies": first["replies"] + second["replies"]}
    assert solved_at(both, 1) == 0.25 and solved_at(both, 2) == 1.0
