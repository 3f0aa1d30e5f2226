"""ARC's own programs: rows in hindsight and what they teach, refinement, judging, test-time training."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch

import ttt
from agents import Model
from games.arc import world
from games.arc.hindsight import (
    CHECKS,
    MOST,
    chained,
    chosen,
    eliminate,
    halve,
    items,
    lesson,
    promise,
    strengths,
)
from games.arc.prompts import PROMPTS
from games.arc.task import Arc, Options
from games.sandbox.sandbox import level
from recipes import Infer, Train
from tests.games.arc.test_task import FLIP, TASK, Says, record
from train import scratch

runs_programs = pytest.mark.skipif(level()[0] not in ("full", "seccomp"), reason=f"sandbox: {level()}")
EXAMPLE = {"id": "a", "split": "", **TASK}
BODIES = (
    "return grid[:, ::-1]",
    "return grid[:, ::-1]",  # again
    "return np.flip(grid, 1)",  # another text, the same outputs
    "return grid[::-1]",
    "return grid",  # changes nothing
    "return np.full((1, 1), 3)",  # all outputs equal
    "return grid[7]",
    "return [[3, 2, 1], [6, 5, 4]] if grid.shape[1] == 3 else grid[:, ::-1]",  # holds its output
)


@pytest.fixture(scope="module")
def collected():
    """(task, the rows that a model's eight programs for one task make)."""
    if level()[0] not in ("full", "seccomp"):
        pytest.skip(f"sandbox: {level()}")
    task = Arc(Options(frames=1))
    task.n = len(BODIES)
    ((_, found),) = task.attempt([EXAMPLE], Says(*BODIES))
    rows = task.collected(found)
    yield task, rows
    task.box.close()


# ------------------------------------------------------------------------------------------------ collecting
def test_a_program_is_the_answer_of_the_task_that_it_computes(collected):
    """Each row's outputs are those of its program, on every view of the inputs; nothing is counted twice."""
    task, rows = collected
    assert [row["source"].split("return ")[1].strip() for row in rows] == ["grid[:, ::-1]", "grid[::-1]"]
    assert [(row["verdict"], row["right"]) for row in rows] == [("accepted", 2), ("wrong", 0)]
    for row, made in zip(rows, (np.fliplr, np.flipud)):
        assert len(row["views"]) == task.options.views
        assert [pair["input"] for pair in row["views"][0]] == [pair["input"] for pair in TASK["train"]]
        for pairs in row["views"]:
            for pair in pairs or ():
                assert pair["output"] == made(pair["input"]).tolist()
    assert task.dropped == {
        "programs written twice": 1,
        "programs: error": 1,
        "programs: memorised": 1,
        "programs that change nothing, or all into one": 2,
        "programs that compute what another does": 1,
    }


def test_rows_know_nothing_of_the_tests(collected):
    """The same rows come of a task whose test has another output, or none."""
    task, rows = collected
    for test in ([{"input": [[1, 0, 0, 9]]}], [{"input": [[1, 0, 0, 9]], "output": [[5]]}]):
        ((_, found),) = task.attempt([{**EXAMPLE, "test": test}], Says(*BODIES))
        assert task.collected(found) == rows
    assert "[9, 0, 0, 1]" not in json.dumps(rows)


def test_files_of_rows(collected, tmp_path):
    """Chosen over files and by task; the task is one that was shown, not one that is known."""
    _, rows = collected
    path = tmp_path / "programs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + rows[:1]))
    task = Arc(Options(data=f"{path},{path}", tests=1))
    examples = task.examples("train")
    assert [row["source"] for row in examples] == [row["source"] for row in rows]
    assert all(row["siblings"] == rows for row in examples) and task.trained_on() == ["shown:a"]
    assert task.examples("test")[0]["id"] == "test-0"  # evaluated on the world
    for wrong in ('{"id": "a"}', '{"id": "a", "source": "x", "views": [[{"input": [[10]]}]]}', "[1]"):
        path.write_text(wrong + "\n")
        with pytest.raises(ValueError, match="programs.jsonl.*line 1"):
            Arc(Options(data=str(path))).examples("train")


def test_the_best_and_the_worst_are_learned_from():
    rows = [{"id": "a", "source": str(i), "right": i % 10, "views": []} for i in range(60)]
    task = Arc()
    kept = chosen(task, rows, 25, 25)
    assert Counter(row["right"] for row in kept) == {i: 6 for i in range(10) if i not in (4, 5)} | {
        4: 1,
        5: 1,
    }
    assert len(kept) == 50 and task.dropped == {"programs between the best and the worst of their task": 10}
    assert len(chosen(task, rows + rows, 100, 0)) == 60


# ------------------------------------------------------------------------------------------------ teaching
@runs_programs
def test_what_a_row_teaches(collected):
    """A program from its own outputs, a sibling to refine, its output for a test, right and wrong answers."""
    task, rows = collected
    rows = chosen(task, rows, 25, 25)
    said = {}
    for name in ("code", "refine", "output", "verify", "select"):
        task.versions = [PROMPTS[name]]
        said[name] = [items(task, rows[0], np.random.default_rng(i)) for i in range(40)]
    task.versions = [PROMPTS["code"]]
    for chats in said["code"]:
        assert chats[0].messages[-1]["content"] == "return grid[:, ::-1]"
        assert [chat.messages[0]["content"].count(">") for chat in chats] == [2, 1]
    for chats in said["refine"]:
        question = chats[0].messages[0]["content"]
        assert question.endswith(";\nreturn grid[::-1]") and question.count("<") == 2
        assert chats[0].messages[-1]["content"] == "return grid[:, ::-1]"
    for (chat,) in said["output"]:
        given = chat.messages[0]["content"].removesuffix("\n>\n").rpartition(";\n")[2].split("\n")
        assert chat.messages[-1]["content"].split("\n") == [line[::-1] for line in given]
    for name, words in (("verify", ("yes", "no")), ("select", ("1", "2"))):
        assert {chat.messages[-1]["content"] for (chat,) in said[name]} == set(words)
    for (chat,) in said["verify"]:
        given, answer = chat.messages[0]["content"].rpartition(";\n")[2].split(">\n")
        right = [line[::-1] for line in given.split()] == answer.split()
        assert chat.messages[-1]["content"] == ("yes" if right else "no")
    for (chat,) in said["select"]:
        given, answers = chat.messages[0]["content"].rpartition(";\n")[2].split(">\n")
        right = [[line[::-1] for line in given.split()] == answer.split() for answer in answers.split("|\n")]
        assert right[int(chat.messages[-1]["content"]) - 1] and sum(right) == 1


def test_a_row_alone_teaches_no_refinement():
    row = {"id": "a", "source": FLIP, "views": [TASK["train"]], "right": 2}
    (only,) = chosen(Arc(), [row], 25, 25)
    assert lesson(only, PROMPTS["refine"], np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="no version learns from a row of a"):
        items(Arc(Options(prompt_version="refine")), only, np.random.default_rng(0))
    both = Arc(Options(prompt_version="refine,code"))
    assert len(items(both, only, np.random.default_rng(0))) == 2  # as from all pairs and from one


def test_wrong_grids_are_learned_from_where_the_test_is_known():
    """And their task is one that a model may not be evaluated on afterwards."""
    task = Arc(Options(prompt_version="output"))
    found = record([[[5]]], [TASK["test"][0]["output"]], [[[5]]], [[[6, 6]]], truth=TASK["test"])
    found |= {"train": TASK["train"], "id": "a"}
    (row,) = task.collected(found)
    assert row["wrong"] == [[[5]], [[6, 6]]] and chosen(task, [row], 1, 1)[0]["knows"] == "a"
    task.versions = [PROMPTS["verify"]]
    chats = [items(task, chosen(task, [row], 1, 1)[0], np.random.default_rng(i))[0] for i in range(20)]
    assert {chat.messages[-1]["content"] for chat in chats} == {"yes", "no"}
    with pytest.raises(ValueError, match="^--collect-from: wrong grids need"):
        Arc(Options(prompt_version="output", collect_from="test")).collected(found)


def test_the_world_gives_programs_to_refine():
    """They run, and are wrong on the test; of two steps often one is there."""
    alone = 0
    for i in range(40):
        task = world.draw(np.random.default_rng(i), compositions=1.0)
        rival = world.mistaken(task, np.random.default_rng(i))
        assert rival["outputs"][-1] != task["test"][0]["output"] and len(rival["outputs"]) == 4
        scope = {"np": np}
        exec(rival["source"], scope)
        pairs = task["train"] + task["test"]
        assert [scope["task"](np.array(p["input"])).tolist() for p in pairs] == rival["outputs"]
        names = task["family"].split("+")
        parts = [world.source(world.render([(n, task["parameters"][n])])) for n in names]
        alone += rival["source"] in parts
    assert 8 < alone < 30


def test_what_is_left_of_two_steps():
    """The second program makes the outputs of what the first gave, and is what --rest teaches."""
    for i in range(20):
        task = world.draw(np.random.default_rng(i), compositions=1.0)
        left = world.rest(task)
        first, second = task["family"].split("+")
        for pair, one in zip(task["train"] + task["test"], left["train"] + left["test"]):
            step = world.apply([(first, task["parameters"][first])], np.array(pair["input"]))
            assert one == {"input": step.tolist(), "output": pair["output"]}
        assert left["family"] == second and task["program"].endswith(left["program"])
    both = [
        Arc(Options(compositions=1.0, rest=share)).items({"number": 0}, np.random.default_rng(3))
        for share in (0, 1)
    ]
    texts = [chats[0].messages[-1]["content"] for chats in both]
    assert texts[0].endswith(texts[1]) and texts[0] != texts[1]


# ------------------------------------------------------------------------------------------------ refining
def test_promise():
    """The better of equal cells and equal shares of colours: either step of two may be the missing one."""
    pairs = [{"output": [[1, 2], [2, 0]]}, {"output": [[3, 0]]}]
    assert promise([pair["output"] for pair in pairs], pairs) == 1.0
    assert promise([[[1, 2], [2, 5]], [[3, 5]]], pairs) == (0.75 + 0.5) / 2
    assert promise([[[0, 2], [1, 2]], [[0], [3]]], pairs) == 1.0  # only places are wrong
    assert promise([[[5]], [[5]]], pairs) == 0.0


def test_chained_programs():
    """In one body, as the world writes two steps, where both are that simple; else one calls the other."""
    turn, paint = "return grid.T", "out = grid.copy()\nout[0] = 5\nreturn out"
    cases = [
        (world.source(turn), world.source(paint), [[5, 5], [2, 4]]),
        (world.source(paint), world.source(turn), [[5, 3], [5, 4]]),
        ("def task(g):\n    return g.T\n", world.source(paint), [[5, 5], [2, 4]]),
        (
            "def task(grid):\n    if 1: return grid.T\n    return grid\n",
            world.source(paint),
            [[5, 5], [2, 4]],
        ),
    ]
    for first, second, want in cases:
        scope = {"np": np}
        exec(chained(first, second), scope)
        assert scope["task"](np.array([[1, 2], [3, 4]])).tolist() == want
    assert chained(*cases[0][:2]) == world.source("grid = grid.T\n" + paint)


class Refines(Says):
    """Gives a wrong program at first, and what improves on it where it is shown what that got."""

    def reply(self, conversations, n=1, begin="", until=()):
        self.texts = []
        for (message,) in conversations:
            text = message["content"]
            whole = "<" in text and "return grid[:, ::-1]"
            rest = not text.startswith("123") and "return grid[::-1, ::-1]"  # of rows that are turned around
            self.texts.append(whole or rest or "return grid[::-1]")
        return super().reply(conversations, n, begin, until)


@runs_programs
@pytest.mark.parametrize("refined, name", [(0, "code"), (6, "code"), (6, "refine")])
def test_refinement_spends_what_it_is_given(refined, name):
    """n replies, however they are shared; what was found is not refined any more."""
    task, agent = Arc(Options(frames=1, refine=refined, refine_prompt=name)), Refines()
    task.n = 10
    ((_, found),) = task.attempt([EXAMPLE], agent)
    assert len(found["replies"]) == len(agent.seen) == 10
    verdicts = [reply["verdict"] for reply in found["replies"]]
    assert verdicts == ["wrong"] * (10 - refined) + (["accepted"] * 4 + ["wrong"] * 2 if refined else [])
    if refined:
        source = "def task(grid):\n    grid = grid[::-1]\n    return grid[::-1, ::-1]\n"
        assert found["replies"][4]["source"] == (FLIP if name == "refine" else source)
        assert found["replies"][4]["answers"] == [TASK["test"][0]["output"]]
    with pytest.raises(ValueError, match="^--refine 32"):
        Arc(Options(refine=32)).attempt([EXAMPLE], agent)
    task.box.close()


# ------------------------------------------------------------------------------------------------ judging
def played(game, answer):
    """The order that a generator of questions comes to, and how many it asked."""
    asked, wanted = 0, next(game)
    while True:
        asked += len(wanted)
        try:
            wanted = game.send([answer(one) for one in wanted])
        except StopIteration as end:
            return end.value, asked


def test_elimination_finds_the_best_and_spends_checks_where_it_is_close():
    rng, chances = np.random.default_rng(0), [0.1, 0.9, 0.05, 0.4, 0.1, 0.1]
    first, spent = [], []
    for _ in range(100):
        order, asked = played(eliminate(6), lambda i: rng.random() < chances[i])
        assert sorted(order) == list(range(6))
        first.append(order[0])
        spent.append(asked)
    assert first.count(1) > 90 and np.mean(spent) < 0.7 * 6 * MOST
    order, asked = played(eliminate(2), lambda i: i == 1)  # clear at once
    assert order == [1, 0] and asked <= 4 * CHECKS
    assert played(eliminate(2), lambda i: True)[1] == 2 * MOST  # never clear


def test_halving_finds_the_best():
    rng, worth, first = np.random.default_rng(0), np.array([0.0, 3.0, 1.0, 0.5, -1.0, 0.2, 0.1]), []
    for i in range(60):
        beats = lambda pair: rng.random() < 1 / (1 + math.exp(worth[pair[1]] - worth[pair[0]]))
        order, asked = played(halve(7, np.random.default_rng(i)), beats)
        assert sorted(order) == list(range(7)) and asked < 7 * 6 / 2 * 8
        first.append(order[0])
    assert first.count(1) > 45
    assert played(halve(2, rng), lambda pair: pair[0] == 0)[0] == [0, 1]


def test_strengths_are_bradley_and_terrys():
    """Of two, by hand: odds of 3 to 1; who never lost has a finite strength."""
    worth = strengths(2, {(0, 1): 300, (1, 0): 100})
    assert worth[0] - worth[1] == pytest.approx(math.log(3), abs=1e-3)
    worth = strengths(3, {(0, 1): 5, (1, 2): 5})
    assert np.isfinite(worth).all() and worth[0] > worth[1] > worth[2]


class Judges(Says):
    """Prefers answers that have the digit 3."""

    def choose(self, conversations, choices):
        self.seen += conversations
        last = [talk[0]["content"].rpartition(">\n")[2].split("|\n") for talk in conversations]
        good = [[len(a.split()[0]) == 2 for a in answers] for answers in last]
        yes = [g[0] if len(g) == 1 else g[0] > g[1] for g in good]
        return [[-0.1, -2.0] if one else [-2.0, -0.1] for one in yes]


@pytest.mark.parametrize("name", ["verify", "select"])
def test_ties_of_the_vote_are_broken(name):
    """Here by a judge that knows the shape of the right answer; the likelihood would choose the other."""
    example = {**EXAMPLE, "test": [{"input": [[1, 2], [3, 4]], "output": [[2, 1], [4, 3]]}]}
    task = Arc(Options(prompt_version="output", ties=name, frames=1))
    task.n = 3
    agent = Judges("555", "21\n43", "no grid")
    found = [record for _, record in task.attempt([example], agent)]
    assert found[0]["order"] == [[[[2, 1], [4, 3]], [[5, 5, 5]]]]
    metrics = task.summary(found)["metrics"]
    assert (metrics["vote_1"], metrics["untied_1"], metrics["judge_1"]) == (0.0, 1.0, 1.0)
    assert task.files(found)["_submission.json"]["a"][0]["attempt_1"] == [[2, 1], [4, 3]]


# ------------------------------------------------------------------------------------------------ test time
FAST = dict(dim=32, layers=1, heads=2, kv_heads=2, mlp_dim=32)


def tiny(task, **options):
    """An untrained model as an agent, and the settings of a call that learns at test time."""
    cfg = Infer(task="arc", ttt_steps=2, ttt_batch=2, max_new=8, **options)
    cfg.options = task.options
    model, tokenizer = scratch(Train(task="arc", **FAST), task)
    return cfg, Model(model.eval(), tokenizer, 8, 1.0)


def weights_of(agent):
    return {key: weight.clone() for key, weight in agent.model.state_dict().items()}


@runs_programs
def test_each_group_of_tasks_is_learned_from_anew(monkeypatch):
    """Replies are as many as without, a later round is of other weights, and afterwards all is as before."""
    task = Arc(Options(tests=4, tasks=10, frames=1))
    cfg, agent = tiny(task, ttt_rounds=2)
    task.n, seen, before = 5, [], weights_of(agent)
    attempt = task.attempt
    rows = [{"id": "a", "source": FLIP, "views": [TASK["train"]], "right": 0}]
    monkeypatch.setattr(task, "collected", lambda record: rows)

    def watched(examples, agent, records, n):
        seen.append((n, weights_of(agent)))
        return attempt(examples, agent, records, n)

    monkeypatch.setattr(task, "attempt", watched)
    examples = task.examples("test")[:2]
    found = [record for _, record in ttt.attempt(cfg, task, agent, examples)]
    assert [len(record["replies"]) for record in found] == [5, 5] and [n for n, _ in seen] == [2, 2, 1]
    assert all(torch.equal(before[key], weight) for key, weight in weights_of(agent).items())
    same = [all(torch.equal(before[key], weight) for key, weight in made.items()) for _, made in seen]
    assert same == [True, False, False]
    agent.calls = 0
    again = [record for _, record in ttt.attempt(cfg, task, agent, examples)]
    assert [r["replies"] for r in again] == [r["replies"] for r in found]
    task.box.close()


def test_grid_prompts_learn_before_they_answer():
    """From the shown pairs, one left out; what the test's output is makes no difference."""
    task = Arc(Options(prompt_version="output", tests=2, tasks=10))
    cfg, agent = tiny(task)
    task.n, example = 2, {"id": "a", "split": "", **TASK}
    hidden = {**example, "test": [{"input": TASK["test"][0]["input"]}]}
    lessons = task.lessons([example], [])
    assert lessons == task.lessons([hidden], []) and "output" not in lessons[0]["test"][0]
    asked = [task.items(lessons[0], np.random.default_rng(i))[0].messages[0]["content"] for i in range(20)]
    assert len(set(asked)) > 15 and all(text.count(";") == 1 for text in asked)
    first, second = (next(ttt.attempt(cfg, task, agent, [one]))[1] for one in (example, hidden))
    agent.calls = 0
    texts = lambda record: [reply["source"] for reply in record["replies"]]
    assert len(texts(first)) == 2 and len(texts(second)) == 2
