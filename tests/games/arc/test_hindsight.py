"""Learning from own ARC programs: rows in hindsight and what they teach, test-time training."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

import ttt
from agents import Model
from checkpoint import from_scratch
from games.arc.hindsight import choose, items, lesson
from games.arc.prompts import PROMPTS
from games.arc.task import Arc, Options
from games.sandbox.sandbox import level
from games.task import Players
from recipes import Infer, Train
from terminal import UsageError
from tests.games.arc.help_arc import FLIP, TASK, Says, attempt, record, runs_programs

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
    task = Arc()
    return task, task.collected(attempt(task, EXAMPLE, Says(*BODIES), len(BODIES)))


def items_of(rows, version, n=40):
    """The Chats of the first of these rows for a version of the prompt, drawn n times."""
    task = Arc(Options(prompt_version=version))
    row = choose(task, rows)[0]
    return [items(task, row, np.random.default_rng(i)) for i in range(n)]


# ------------------------------------------------------------------------------------------------ collecting
def test_a_program_is_the_answer_of_the_task_that_it_computes(collected):
    """Each row's outputs are those of its program, on every view of the inputs; nothing is counted twice."""
    task, rows = collected
    assert [row["source"].split("return ")[1].strip() for row in rows] == ["grid[:, ::-1]", "grid[::-1]"]
    assert [(row["verdict"], row["right"]) for row in rows] == [("accepted", 2), ("wrong", 0)]
    for row, made in zip(rows, (np.fliplr, np.flipud)):
        assert len(row["views"]) == 4
        assert [pair["input"] for pair in row["views"][0]] == [pair["input"] for pair in TASK["train"]]
        pairs = [pair for pairs in row["views"] for pair in pairs or ()]
        assert all(pair["output"] == made(pair["input"]).tolist() for pair in pairs)
    assert task.dropped == {
        "programs written twice": 1,
        "programs: error": 1,
        "programs: memorised": 1,
        "programs without an effect, with one output for all inputs, or unstable": 2,
        "programs that compute the same as another": 1,
    }


@runs_programs
def test_rows_hold_what_a_program_gives_alone(monkeypatch):
    """A program that poisons the child it shares, however it came into it, changes no other program's row."""
    import trusting_child  # needs Unix

    monkeypatch.setattr("games.sandbox.sandbox.CHILD", trusting_child.__file__)
    poison = """import copy, json
own = json.JSONEncoder.encode
lie = lambda self, x: own(self, [[[5, n] for n in range(2)] for _ in x] if type(x[0]) is list else x)
reduce = lambda self, n: (lambda: json.JSONEncoder, (), (None, {"encode": lie}))
copy.copy(type("K", (), {"__reduce_ex__": reduce})())
return grid"""
    bodies = [poison, "return grid[:, ::-1]", "return grid[::-1]", "return np.rot90(grid, 2)"]
    task = Arc()
    found = attempt(task, EXAMPLE, Says(*bodies), len(bodies))
    assert {reply["verdict"] for reply in found["replies"]} == {"wrong"}  # all are deceived in the first tier
    rows = {row["source"].split("return ")[1].strip(): row for row in task.collected(found)}
    for body, made in zip(bodies[1:], (np.fliplr, np.flipud, lambda grid: np.rot90(grid, 2))):
        for pairs in rows[body.removeprefix("return ")]["views"]:
            assert [pair["output"] for pair in pairs or ()] == [
                made(pair["input"]).tolist() for pair in pairs or ()
            ]


@runs_programs
def test_a_program_may_fail_on_some_views(collected):
    """It keeps what it gives for the others; an unstable program makes no row."""
    task = Arc()
    some = "return grid[:, ::-1][:2] if grid[0, 0] in (0, 1) else grid[9]"
    shaky = "import random\nreturn np.full((1, 2), random.SystemRandom().randrange(1 << 20) % 10)[:, :2]"
    found = attempt(task, EXAMPLE, Says(some, shaky), 2)
    for reply in found["replies"]:
        reply["verdict"] = "wrong"
    rows = task.collected(found)
    assert [row["source"].count("random") for row in rows] == [0]
    kept = [pairs for pairs in rows[0]["views"] if pairs]
    assert 0 < len(kept) < 4


def test_rows_know_nothing_of_the_tests(collected):
    """The same rows come from a task whose test has another output, or none."""
    task, rows = collected
    for test in ([{"input": [[1, 0, 0, 9]]}], [{"input": [[1, 0, 0, 9]], "output": [[5]]}]):
        found = attempt(task, {**EXAMPLE, "test": test}, Says(*BODIES), len(BODIES))
        assert task.collected(found) == rows


def test_files_of_rows(collected, tmp_path):
    """Rows are chosen over all files, by task; the task counts as shown, not as known."""
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
    kept = Counter(row["right"] for row in choose(task, rows + rows))
    assert kept == {i: 1 if i in (4, 5) else 6 for i in range(10)}  # 25 and 25
    assert task.dropped == {"programs between the best and the worst of their task": 10}
    assert len(choose(task, rows[:40])) == 40


# ------------------------------------------------------------------------------------------------ teaching
@runs_programs
def test_what_a_row_teaches(collected):
    """A program from its own outputs, a sibling to refine, its output for a test, right and wrong answers."""
    _, rows = collected
    for chats in items_of(rows, "code"):
        assert chats[0].messages[-1]["content"] == "return grid[:, ::-1]"
        assert [chat.messages[0]["content"].count(">") for chat in chats] == [2, 1]
    for chats in items_of(rows, "refine"):
        question = chats[0].messages[0]["content"]
        assert question.endswith(";\nreturn grid[::-1]") and question.count("<") == 2
        assert chats[0].messages[-1]["content"] == "return grid[:, ::-1]"
    flipped = lambda text: [line[::-1] for line in text.split()]
    for (chat,) in items_of(rows, "output"):
        assert chat.messages[0]["content"].count(">") == 2  # of one pair, and behind the other's input
        given = chat.messages[0]["content"].removesuffix("\n>\n").rpartition(";\n")[2]
        assert chat.messages[-1]["content"].split("\n") == flipped(given)
    right_of = {"verify": {"yes": [True], "no": [False]}, "select": {"1": [True, False], "2": [False, True]}}
    for version, said in right_of.items():
        replies = set()
        for (chat,) in items_of(rows, version):
            given, answers = chat.messages[0]["content"].rpartition(";\n")[2].split(">\n")
            replies.add(chat.messages[-1]["content"])
            right = [flipped(given) == answer.split() for answer in answers.split("|\n")]
            assert right == said[chat.messages[-1]["content"]]
        assert replies == said.keys()


def test_a_row_alone_teaches_no_refinement():
    row = {"id": "a", "source": FLIP, "views": [TASK["train"]], "right": 2}
    (only,) = choose(Arc(), [row])
    assert lesson(only, PROMPTS["refine"], np.random.default_rng(0)) is None
    with pytest.raises(UsageError, match="no version learns from a row of a"):
        items_of([row], "refine", 1)
    assert len(items_of([row], "refine,code", 1)[0]) == 2  # as from all pairs and from one


def test_wrong_grids_are_learned_from_where_the_test_is_known():
    """And their task is one that a model may not be evaluated on afterwards."""
    task = Arc(Options(prompt_version="output"))
    found = record([[[5]]], [TASK["test"][0]["output"]], [[[5]]], [[[6, 6]]], truth=TASK["test"])
    found |= {"train": TASK["train"], "id": "a"}
    (row,) = task.collected(found)
    assert row["wrong"] == [[[5]], [[6, 6]]] and choose(task, [row])[0]["knows"] == "a"
    chats = [chat for (chat,) in items_of([row], "verify", 20)]
    assert {chat.messages[-1]["content"] for chat in chats} == {"yes", "no"}
    with pytest.raises(UsageError, match="^--collect-from: wrong grids need"):
        Arc(Options(prompt_version="output", collect_from="test")).collected(found)


# ------------------------------------------------------------------------------------------------ test time
def tiny(task, **options):
    """An untrained model as an agent, and the settings of a call that learns at test time."""
    cfg = Infer(task="arc", ttt_steps=2, ttt_batch=2, max_new=8, **options)
    cfg.options = task.options
    sizes = Train(task="arc", dim=32, layers=1, heads=2, mlp_dim=32)
    point = from_scratch(sizes, task.texts()[:300], task.pre_tokens)
    return cfg, Model(point.model.eval(), point.tokenizer, 8, 1.0)


def weights_of(agent):
    return {key: weight.clone() for key, weight in agent.model.state_dict().items()}


@runs_programs
def test_each_group_of_tasks_is_learned_from_anew(monkeypatch):
    """There are as many replies as without it, a later round has other weights, and at the end all weights
    are as before."""
    task = Arc(Options(tests=4))
    cfg, agent = tiny(task, ttt_rounds=2)
    seen, before, original = [], weights_of(agent), task.attempt
    rows = [{"id": "a", "source": FLIP, "views": [TASK["train"]], "right": 0}]
    monkeypatch.setattr(task, "collected", lambda record: rows)

    def watched(examples, players, records):
        seen.append((players.n, weights_of(agent)))
        return original(examples, players, records)

    monkeypatch.setattr(task, "attempt", watched)
    examples, players = task.examples("test")[:2], Players(agent, n=5)
    found = [record for _, record in ttt.attempt(cfg, task, players, examples)]
    assert [len(record["replies"]) for record in found] == [5, 5] and [n for n, _ in seen] == [2, 2, 1]
    assert [record["blind"] for record in found] == [task.count_blind(example, 5) for example in examples]
    assert all(torch.equal(before[key], weight) for key, weight in weights_of(agent).items())
    same = [all(torch.equal(before[key], weight) for key, weight in made.items()) for _, made in seen]
    assert same == [True, False, False]
    agent.calls = 0
    again = [record for _, record in ttt.attempt(cfg, task, players, examples)]
    assert [r["replies"] for r in again] == [r["replies"] for r in found]


def test_grid_prompts_learn_before_they_answer():
    """They learn from the shown pairs, one left out; the test's output makes no difference."""
    task = Arc(Options(prompt_version="output", tests=2))
    cfg, agent = tiny(task)
    hidden = {**EXAMPLE, "test": [{"input": TASK["test"][0]["input"]}]}
    lessons = task.lessons([EXAMPLE], [])
    assert lessons == task.lessons([hidden], []) and "output" not in str(lessons[0]["test"])
    asked = [task.items(lessons[0], np.random.default_rng(i))[0].messages[0]["content"] for i in range(20)]
    assert len(set(asked)) > 15 and all(text.count(";") == 1 for text in asked)
    for example in (EXAMPLE, hidden):
        ((_, record),) = ttt.attempt(cfg, task, Players(agent, n=2), [example])
        assert len(record["replies"]) == 2
