"""ARC's experiments: answers judged; and that nothing else needs them."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from games.arc.experiments.judges import CHECKS, MOST, eliminate, halve, strengths
from games.arc.prompts import source
from games.arc.task import Arc, Options
from games.arc.world import parts_of
from tests.games.arc.help_arc import SMALL, TASK, Says, attempt, draw_tasks, summarise

EXAMPLE = {"id": "a", "split": "", **TASK}


def test_the_game_is_imported_without_its_experiments():
    code = "import sys, games.arc.task; print([name for name in sys.modules if 'experiments' in name])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------ refining
def test_the_world_gives_programs_to_refine():
    """They run and are wrong on the test; often they are one of two steps alone."""
    alone = 0
    for i, task in enumerate(draw_tasks(5, 40, compositions=1.0)):
        rival = SMALL.mistaken(task, np.random.default_rng(i))
        assert rival["outputs"][-1] != task["test"][0]["output"] and len(rival["outputs"]) == 4
        scope = {"np": np}
        exec(rival["source"], scope)
        pairs = task["train"] + task["test"]
        assert [scope["task"](np.array(p["input"])).tolist() for p in pairs] == rival["outputs"]
        steps, _ = parts_of(task)
        alone += rival["source"] in [source(SMALL.render([step])) for step in steps]
    assert 8 < alone < 30


# ------------------------------------------------------------------------------------------------ judging
def count_asked(order, answer, *more):
    """The ranking that `order` (eliminate or halve) makes, and the number of questions that it asked."""
    asked = []

    def ask(wanted):
        asked.extend(wanted)
        return [answer(*one) for one in wanted]

    return order(*more, ask), len(asked)


def test_elimination_finds_the_best_and_spends_checks_where_it_is_close():
    rng, chances = np.random.default_rng(0), [0.1, 0.9, 0.05, 0.4, 0.1, 0.1]
    first, spent = [], []
    for _ in range(100):
        order, asked = count_asked(eliminate, lambda i: rng.random() < chances[i], 6)
        assert sorted(order) == list(range(6))
        first.append(order[0])
        spent.append(asked)
    assert first.count(1) > 90 and np.mean(spent) < 0.7 * 6 * MOST
    order, asked = count_asked(eliminate, lambda i: i == 1, 2)  # clear at once
    assert order == [1, 0] and asked <= 4 * CHECKS
    assert count_asked(eliminate, lambda i: True, 2)[1] == 2 * MOST  # never clear


def test_halving_finds_the_best():
    rng, worth, first = np.random.default_rng(0), np.array([0.0, 3.0, 1.0, 0.5, -1.0, 0.2, 0.1]), []
    for i in range(60):
        beats = lambda a, b: rng.random() < 1 / (1 + math.exp(worth[b] - worth[a]))
        order, asked = count_asked(halve, beats, 7, np.random.default_rng(i))
        assert sorted(order) == list(range(7)) and asked < 7 * 6 / 2 * 8
        first.append(order[0])
    assert first.count(1) > 45
    assert count_asked(halve, lambda a, b: a == 0, 2, rng)[0] == [0, 1]


def test_strengths_are_bradley_and_terrys():
    """Two answers by hand, with odds of 3 to 1; an answer that never lost has a finite strength."""
    worth = strengths(2, {(0, 1): 300, (1, 0): 100})
    assert worth[0] - worth[1] == pytest.approx(math.log(3), abs=1e-3)
    worth = strengths(3, {(0, 1): 5, (1, 2): 5})
    assert np.isfinite(worth).all() and worth[0] > worth[1] > worth[2]


class Judges(Says):
    """Prefers answers of two columns."""

    def choose(self, conversations, choices):
        self.seen += conversations
        last = [talk[0]["content"].rpartition(">\n")[2].split("|\n") for talk in conversations]
        good = [[len(a.split()[0]) == 2 for a in answers] for answers in last]
        yes = [g[0] if len(g) == 1 else g[0] > g[1] for g in good]
        return [[-0.1, -2.0] if one else [-2.0, -0.1] for one in yes]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", ["verify", "select"])
def test_ties_of_the_vote_are_broken(name, named):
    """Here by a judge that knows the shape of the right answer; the likelihood would choose the other."""
    example = {**EXAMPLE, "test": [{"input": [[1, 2], [3, 4]], "output": [[2, 1], [4, 3]]}]}
    task, texts = Arc(Options(prompt_version="output", ties=name)), ("555", "21\n43", "no grid")
    judge = {"judge": Judges()} if named else {}
    for key in "bcdefa":  # answers change places at random
        found = attempt(task, {**example, "id": key}, (Says if named else Judges)(*texts), 3, **judge)
        assert found["order"] == [[[[2, 1], [4, 3]], [[5, 5, 5]]]]
    metrics = summarise(task, [found])["metrics"]
    assert (metrics["vote_1"], metrics["untied_1"], metrics["judge_1"]) == (0.0, 1.0, 1.0)
    assert task.files([found])["_submission.json"]["a"][0]["attempt_1"] == [[2, 1], [4, 3]]
