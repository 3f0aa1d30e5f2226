"""ARC: grids as text, frames and their inverses, votes and metrics by hand, prompts, verdicts, files."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import data
from games.arc import files as arc_files
from games.arc.grids import GRIDS, MAPS, VIEWS, Frame, legal, scores, vote
from games.arc.hindsight import memorised
from games.arc.prompts import PROMPTS, WORDS, said
from games.arc.task import Arc, Options
from games.arc.terminal import painted, show_tasks
from games.sandbox.sandbox import level
from games.task import Reply, pass_at

runs_programs = pytest.mark.skipif(level()[0] not in ("full", "seccomp"), reason=f"sandbox: {level()}")
rng = np.random.default_rng(0)
TASK = {
    "train": [
        {"input": [[1, 2, 3], [4, 5, 6]], "output": [[3, 2, 1], [6, 5, 4]]},
        {"input": [[0, 7], [0, 0], [5, 0]], "output": [[7, 0], [0, 0], [0, 5]]},
    ],
    "test": [{"input": [[1, 0, 0, 9]], "output": [[9, 0, 0, 1]]}],
}
TWO = TASK | {"test": [*TASK["test"], {"input": [[3], [4]], "output": [[3], [4]]}]}
FLIP = "def task(grid):\n    return grid[:, ::-1]\n"


def grids(n, low=1, high=7):
    return [rng.integers(0, 10, rng.integers(low, high + 1, 2)).tolist() for _ in range(n)]


class Says:
    """An agent that says the same texts, in order, to every call's prompts."""

    def __init__(self, *texts):
        self.texts, self.seen, self.calls = texts, [], 0

    def reply(self, conversations, n=1, begin="", until=()):
        self.seen += conversations
        texts = [self.texts[i % len(self.texts)] for i in range(len(conversations))]
        return [[Reply(text, [1, 2], [-0.5, -0.5 - i / 100])] for i, text in enumerate(texts)]


# ------------------------------------------------------------------------------------------------ text
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_comes_back_from_its_text(name):
    for grid in grids(50):
        assert GRIDS[name].read(GRIDS[name].write(grid)) == grid
        assert GRIDS[name].read(GRIDS[name].write(grid) + "\nmore words") in (grid, None)


def test_how_grids_are_written():
    grid = [[1, 0], [2, 3], [4, 5]]
    assert GRIDS["digits"].write(grid) == "10\n23\n45"
    assert GRIDS["spaced"].write(grid) == "1 0\n2 3\n4 5"
    assert GRIDS["full"].write(grid) == "```grid shape: 3x2\n1 10\n2 23\n3 45\n```"
    assert GRIDS["letters"].write(grid) == "```grid shape: 3x2\n1 BA\n2 CD\n3 EF\n```"


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
        ("fenced", "12"),
    ],
)
def test_what_is_no_grid_is_none(name, text):
    assert GRIDS[name].read(text) is None


def test_legal_grids():
    """256 once became 0 by a cast, and a grid had no upper limit: both count as no answer here."""
    assert legal([[0, 9]]) and legal([[1]] * 30)
    for wrong in (
        [],
        [[]],
        [[1], [1, 2]],
        [[10]],
        [[256]],
        [[-1]],
        [[True]],
        [[1.0]],
        [[1]] * 31,
        ((1,),),
        "1",
        None,
    ):
        assert not legal(wrong), wrong


# ------------------------------------------------------------------------------------------------ frames
def test_every_frame_is_undone_exactly():
    """On grids that are not square, with every view and every map on either side."""
    for turn in range(400):
        pairs = [dict(zip(("input", "output"), grids(2))) for _ in range(3)]
        task = {"train": pairs[:2], "test": pairs[2:]}
        frame = Frame.draw(task, np.random.default_rng(turn), turn % VIEWS, maps=0.8)
        seen = frame.task(task)
        for pair, i in zip(seen["train"], frame.order):
            for side, grid in pair.items():
                assert frame.back(grid, side) == pairs[i][side]
        assert frame.back(seen["test"][0]["output"]) == pairs[2]["output"]


def test_the_eight_views_differ():
    grid = [[1, 2, 3], [4, 5, 6]]
    seen = {str(Frame(view >= 4, view % 4).grid(grid)) for view in range(VIEWS)}
    assert len(seen) == VIEWS
    assert Frame(flip=True).grid(grid) == [[3, 2, 1], [6, 5, 4]]
    assert Frame(turns=1).grid(grid) == np.rot90(grid).tolist()


@pytest.mark.parametrize("name", MAPS)
def test_a_grid_that_no_map_makes_is_refused(name):
    frame = Frame(
        side="output",
        map={
            "turn": ("turn", 0, 1),
            "pad": ("pad", 1, 3),
            "enlarge": ("enlarge", 2),
            "mirror": ("mirror", 0),
        }[name],
    )
    assert frame.back(frame.grid([[1, 2]], "output")) == [[1, 2]]
    if name != "turn":  # every grid is one that was turned
        with pytest.raises(ValueError, match="no grid looks like this"):
            frame.back([[1, 2], [3, 4]])


def test_frames_are_random_in_all_they_may_be():
    frames = [Frame.draw(TASK, np.random.default_rng(i), maps=0.5) for i in range(300)]
    assert len({str(frame.colours) for frame in frames}) > 290
    kept = sum(frame.colours[0] == 0 for frame in frames) / 300
    assert 0.85 < kept < 0.97  # nine in ten, and a tenth of the rest
    assert {frame.order[0] for frame in frames} == {0, 1}
    assert {frame.map[0] for frame in frames if frame.map} == {*MAPS}
    assert {frame.side for frame in frames} == {"", "input", "output"}


def test_a_map_that_outgrows_thirty_cells_is_left_out():
    task = {"train": [{"input": [[1] * 30], "output": [[1] * 30]}] * 2, "test": [{"input": [[1] * 30]}]}
    for i in range(60):
        seen = Frame.draw(task, np.random.default_rng(i), maps=1.0).task(task)
        assert all(legal(grid) for pair in seen["train"] for grid in pair.values())


# ------------------------------------------------------------------------------------------------ scores
def test_metrics_of_one_grid_by_hand():
    truth = [[1, 2], [3, 4]]
    found = scores([truth, [[1, 2], [0, 0]], [[1, 2]], []], truth)
    assert found == {
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


def test_pass_at_is_unbiased():
    """Against all ways to draw k of n."""
    from itertools import combinations

    for n, c in ((5, 0), (5, 2), (6, 6), (4, 1)):
        for k in range(1, n + 1):
            draws = list(combinations(range(n), k))
            assert math.isclose(pass_at(n, c, k), sum(min(draw) < c for draw in draws) / len(draws))
    with pytest.raises(ValueError, match="k <= n"):
        pass_at(4, 1, 5)


def test_votes():
    a, b, c = [[1]], [[2]], [[3]]
    assert vote([a, b, b, [], None, c], 2) == [b, a]
    assert vote([a, b], 2, [(-4.0, 2), (-1.0, 2)]) == [b, a]  # a tie goes to the likelier
    assert vote([a, a, b], 1, [(-9.0, 1), (-9.0, 1), (-0.1, 1)]) == [a]
    assert vote([a, a, b], 1, [(-9.0, 1), (-9.0, 1), (-0.1, 1)], weighted=True) == [b]
    assert vote([[], None], 2) == []


def record(*answers, truth=TWO["test"], test=None):
    replies = [
        {
            "test": test,
            "answers": a,
            "logp": -1.0,
            "tokens": 2,
            "verdict": "accepted" if a else "wrong",
            "message": "",
            "right": 0,
            "source": "",
            "frame": {},
        }
        for a in answers
    ]
    return {"id": "x", "split": "", "train": [], "test": truth, "replies": replies}


def test_figures_of_a_task_with_two_tests_one_right():
    """A task with one of two tests right counts half for pass_n, and is not solved."""
    one, other = (pair["output"] for pair in TWO["test"])
    found = Arc().summary([record([one, [[5]]], [one, None], None, None)])
    metrics = found["metrics"]
    assert metrics["pass_n"] == 0.5 and metrics["solved@1"] == 0.0 and metrics["accuracy"] == 0.25
    assert metrics["unanswered"] == (2 / 4 + 3 / 4) / 2 and metrics["precision"] == 0.0
    assert [grid["pass_n"] for grid in found["records"][0]["grids"]] == [1.0, 0.0]
    both = Arc().summary([record([one, other], None, None, None), record(None, None, None, None)])
    assert both["metrics"]["solved@1"] == 0.125 and both["curve"] == {1: 0.125, 2: 0.25, 4: 0.5}
    assert both["metrics"]["precision"] == 1.0 and both["metrics"]["vote_1"] == 0.5
    assert both["metrics"]["verdict_accepted"] == 0.125


def test_accuracy_wrong_and_unanswered_are_all():
    one, other = (pair["output"] for pair in TWO["test"])
    metrics = Arc().summary([record([one, other], [other, other], None)])["metrics"]
    wrong = 1 / 3 / 2  # one wrong answer in the first test
    assert math.isclose(metrics["accuracy"] + metrics["unanswered"] + wrong, 1.0)


# ------------------------------------------------------------------------------------------------ prompts
def test_no_prompt_knows_the_answer():
    task = Arc(Options(tests=8))
    for example in [*task.examples("test")[:8], {"id": "r", "split": "", **TASK}]:
        for version in PROMPTS.values():
            told = version.question(example, GRIDS["full"])
            other = {**example, "program": "return 1", "test": [{**example["test"][0], "output": [[7]]}]}
            assert version.question(other, GRIDS["full"]) == told


@pytest.mark.parametrize("name", PROMPTS)
def test_a_reply_begins_as_the_prompt_opens_it(name):
    """And what was taught is what is read from it."""
    version, writing = PROMPTS[name], GRIDS["full"]
    task = {**TASK, "program": "out = grid.copy()\nreturn out[:, ::-1]"}
    rival = {"source": "def task(grid):\n    return grid\n", "outputs": [[[7, 7, 7, 7, 7]]] * 3}
    chat = said(version, task, writing, rival, np.random.default_rng(0))
    reply = chat.messages[-1]["content"]
    assert reply.startswith(version.opening(writing))
    if version.asks == "code":
        scope = {}
        exec(version.program(reply), scope)
        assert scope["task"](np.array([[1, 2]])).tolist() == [[2, 1]]
        assert ("img" in reply) == (version.name == "img")
    elif version.asks == "output":
        assert writing.read(reply.removeprefix(version.lead)) == task["test"][0]["output"]
    elif version.asks in WORDS:
        assert reply in WORDS[version.asks]
    else:
        assert writing.read(reply.removeprefix(version.lead)) == task["train"][-1]["input"]
        assert "Output" not in chat.messages[-2]["content"]
    question = "".join(message["content"] for message in chat.messages[:-1])
    assert (writing.write(task["test"][0]["input"]) in question) == version.test
    assert ("77777" in question) == version.needs_rival or version.asks == "verdict"
    if name == "output-from-code-v0":
        assert "out[:, ::-1]" in question


def test_last_pairs_are_left_out_of_long_prompts():
    task = Arc(Options(cells=12))
    assert len(task.fitted(TASK)["train"]) == 1
    assert len(Arc(Options(cells=24)).fitted(TASK)["train"]) == 2
    assert len(Arc(Options(cells=1)).fitted(TASK)["train"]) == 1
    assert Arc().fitted(TASK)["train"] == TASK["train"]


@pytest.mark.parametrize(
    "wrong", [dict(prompt_version="cod"), dict(grid="x"), dict(vote="x"), dict(only="x"), dict(ties="code")]
)
def test_unknown_names_are_refused(wrong):
    with pytest.raises(ValueError, match="^--.*known"):
        Arc(Options(**wrong))


# ------------------------------------------------------------------------------------------------ asking
@runs_programs
@pytest.mark.parametrize("n, prompts", [(1, 8), (7, 8), (7, 0), (32, 3), (5, 1)])
def test_n_replies_are_asked_for_exactly(n, prompts):
    """Fewer predictions than views once made no prompt at all."""
    task, agent = Arc(Options(frames=prompts)), Says("return grid[:, ::-1]")
    task.n = n
    ((_, found),) = task.attempt([{"id": "a", **TASK}], agent)
    assert len(agent.seen) == len(found["replies"]) == n
    different = {message["content"] for conversation in agent.seen for message in conversation}
    assert len(different) == min(n, prompts or n)
    for reply in found["replies"]:  # in every frame: a flip along the frame's other axis where it is turned
        turned = reply["frame"]["turns"] % 2
        assert (reply["answers"] == [TASK["test"][0]["output"]]) == (not turned), reply
    task.box.close()


@runs_programs
def test_verdicts():
    """One task, a program of every kind; only those right on all shown pairs answer."""
    programs = {
        FLIP: ("accepted", 2),
        "def task(grid): return grid[:, ::-1].astype(np.uint8)": ("accepted", 2),
        "def task(grid): return dsl.flip(grid, 1).tolist()": ("accepted", 2),
        "def task(grid): return tuple(map(tuple, grid[:, ::-1].tolist()))": ("accepted", 2),
        "def task(grid): return [row for row in grid[:, ::-1]]": ("accepted", 2),
        "def task(grid): return grid": ("wrong", 0),
        "def task(grid): return grid[:, ::-1] if len(grid) < 3 else grid": ("wrong", 1),
        "def task(grid): return grid[:, ::-1] > 1": ("output", 0),
        "def task(grid): return (grid[:, ::-1] + 256).tolist()": ("output", 0),
        "def task(grid): return grid[:, ::-1] * 1.0": ("output", 0),
        "def task(grid): return 5": ("output", 0),
        "def task(grid: return 5": ("syntax", 0),
        "def tusk(grid): return 5": ("error", 0),
        "def task(grid): return grid[9]": ("error", 0),
        "import os\ndef task(grid): return grid": ("import", 0),
        "def task(grid):\n    while True: pass": ("timeout", 0),
        "A = [[3, 2, 1], [6, 5, 4]], [[7, 0], [0, 0], [0, 5]]\ndef task(g): return A[len(g) - 2]": (
            "memorised",
            2,
        ),
        "def task(grid):\n    grid[:] = grid[:, ::-1].copy()\n    return grid": ("accepted", 2),
    }
    task = Arc(Options(seconds=0.5))
    example = {"id": "a", **TWO}
    version = task.versions[0] = replace(PROMPTS["code-from-examples-v0"])
    tries = [(example, Frame(), f"{version.opening(task.writing)}{source}```", None) for source in programs]
    for found, (source, (verdict, right)) in zip(task.judge(tries), programs.items()):
        assert (found["verdict"], found["right"]) == (verdict, right), (source, found)
        assert (found["answers"] == [pair["output"] for pair in TWO["test"]]) == (verdict == "accepted")
        assert found["source"] == source
    assert task.score(example, tries[0][2])["score"] == 1.0
    assert task.score(example, tries[6][2]) | {"source": ""} == {
        "score": 0.0,
        "partial": 0.5,
        "verdict": "wrong",
        "message": "",
        "right": 1,
        "source": "",
        "answers": None,
    }
    task.box.close()


@runs_programs
def test_a_program_is_right_in_the_frame_it_was_written_for():
    frame = Frame(turns=1, colours=[0, 2, 1, 3, 4, 5, 6, 7, 8, 9], order=[1, 0])
    task, example = Arc(), {"id": "a", **TWO}
    (found,) = task.judge([(example, frame, "return grid[::-1]", None)])
    assert found["answers"] == [pair["output"] for pair in TWO["test"]]
    task.box.close()


def test_grids_as_replies():
    """A version that asks for the grid: read, brought back, and none where the text is no grid."""
    task = Arc(Options(prompt_version="output-from-examples-v1", grid="full", frames=2))
    task.n = 2
    lead, right = task.versions[0].lead, GRIDS["full"].write([[9, 0, 0, 1]])
    agent = Says(lead + right, lead + "```grid shape: 2x2\n1 00\n```")
    ((_, found),) = task.attempt([{"id": "a", **TWO}], agent)
    assert [reply["test"] for reply in found["replies"]] == [0, 0, 1, 1]
    assert [reply["verdict"] for reply in found["replies"]] == ["accepted", "none"] * 2
    assert found["replies"][0]["answers"] == [[[9, 0, 0, 1]], None]
    metrics = task.summary([found])["metrics"]
    assert metrics["pass_n"] == 0.5 and metrics["solved@1"] == 0.0 and metrics["unanswered"] == 0.5


def test_memorised_programs():
    out = [[[1, 2], [3, 4]]]
    assert memorised("def task(g): return [[1, 2], [3, 4]]", out)
    assert memorised("def task(g): return np.array([1, 2, 3, 4]).reshape(2, 2)", out)
    assert memorised("def task(g): return [[int(c) for c in r] for r in '12 34'.split()]", out)
    assert memorised("A = {2: ((1, 2), (3, 4))}", out)
    assert memorised("x = [" + ", ".join("7" * 12) + "]", [])
    assert not memorised(FLIP, out)
    assert not memorised("def task(g): return np.where(g == 1, 2, np.where(g == 3, 4, g))", out)
    assert not memorised("def task(g): return [[5]]", [[[5]]])  # of a cell or two says nothing
    assert not memorised("def task(:", out)


def test_items_of_real_tasks_are_frames_of_their_pairs():
    """Pairs and tests are pooled, and which one is asked for changes from time to time."""
    task = Arc(Options(prompt_version="output-from-examples-v1,input-from-inputs-v0", maps=0.5))
    chats = [task.items({"id": "a", **TASK}, np.random.default_rng(i))[0] for i in range(60)]
    asked = [chat.messages[-2]["content"] for chat in chats]
    assert len(set(asked)) > 55 and {"new one" in text for text in asked} == {True, False}
    with pytest.raises(ValueError, match="no programs"):
        Arc().items({"id": "a", **TASK}, np.random.default_rng(0))


def test_a_program_is_taught_from_fewer_pairs_as_well():
    chats = Arc().items({"number": 0}, np.random.default_rng(0))
    asked = [chat.messages[0]["content"] for chat in chats]
    assert [text.count(">") for text in asked] == [3, 2, 1]
    assert all(asked[0].startswith(text) for text in asked)
    assert len({chat.messages[1]["content"] for chat in chats}) == 1
    assert len(Arc(Options(shots=1)).items({"number": 0}, np.random.default_rng(0))) == 1
    assert len(Arc(Options(shots=9)).items({"number": 0}, np.random.default_rng(0))) == 3


def test_the_world_is_split():
    task = Arc(Options(tasks=10, tests=8))
    assert [len(task.examples(split)) for split in ("train", "valid", "test")] == [10, 64, 8]
    names = [example["split"] for example in task.examples("test")[:8]]
    assert names == ["", "/parameters", "", "/compositions"] * 2
    assert Arc(Options(tests=5)).examples("test") == task.examples("test")[:5]
    one, again, other = (task.items(task.examples("train")[0], np.random.default_rng(i)) for i in (1, 1, 2))
    assert one == again != other
    assert task.prompt(task.examples("train")[0]) == task.prompt(task.examples("train")[0])


def test_a_cell_is_a_token():
    task = Arc(Options(tasks=100))
    tokenizer = data.train_tokenizer(task.texts(), 2000, Arc.pieces)
    ids = tokenizer.encode("10305\n22222\n>\n00\n")
    assert len(ids) == 17 and len({*ids}) == 7  # 1 0 3 5 2, the row's end and the mark
    assert len(tokenizer.encode("return np.where(grid == 3, 5, grid)")) <= 14


# ------------------------------------------------------------------------------------------------ files
def write(path, thing):
    path.write_text(json.dumps(thing))
    return str(path)


def no_truth(task):
    return {**task, "test": [{"input": pair["input"]} for pair in task["test"]]}


def test_tasks_are_read_in_every_layout(tmp_path):
    want = {"0a": TASK, "1b": TWO}
    sets = write(tmp_path / "sets.json", {"train": {"0a": TASK}, "eval": {"1b": TWO}})
    assert arc_files.read_tasks(sets, "train") == {"0a": TASK}
    assert arc_files.read_tasks(sets, "test") == arc_files.read_tasks(f"{sets}:eval", "train") == {"1b": TWO}
    name = write(tmp_path / "arc-agi_evaluation_challenges.json", {k: no_truth(v) for k, v in want.items()})
    assert arc_files.read_tasks(name, "test") == {k: no_truth(v) for k, v in want.items()}
    truth = {k: [pair["output"] for pair in v["test"]] for k, v in want.items()}
    write(tmp_path / "arc-agi_evaluation_solutions.json", truth)
    assert arc_files.read_tasks(name, "test") == want
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for key, task in want.items():
        write(folder / f"{key}.json", task)
    assert arc_files.read_tasks(folder, "test") == arc_files.read_tasks(tmp_path, "test") == want


@pytest.mark.parametrize(
    "thing, message",
    [
        ({"a": {"train": [], "test": TASK["test"]}}, "task a: 'train' must be a list"),
        ({"a": {**TASK, "test": [{"input": [[1], [1, 2]]}]}}, "task a, test pair 0: 'input'"),
        ({"a": {**TASK, "train": [*TASK["train"], {"input": [[1]]}]}}, "train pair 2: 'output'"),
        ({"a": {**TASK, "train": [{"input": [[1]], "output": [[10]]}]}}, "'output' must be rows"),
        ([1], "expected an object"),
        ({"train": 5}, "task train: 'train' must be a list"),
        ({"train": {"a": TASK}}, "no set 'test'"),
    ],
)
def test_faults_of_files_are_named(tmp_path, thing, message):
    name = write(tmp_path / "tasks.json", thing)
    with pytest.raises(ValueError, match=f"tasks.json.*{message}"):
        arc_files.read_tasks(name, "test")


def test_files_that_are_not_there(tmp_path):
    for name in ("nothing.json", "nothing.json:eval"):
        with pytest.raises(FileNotFoundError, match="nothing.json"):
            arc_files.read_tasks(str(tmp_path / name), "test")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="x.json: not JSON"):
        arc_files.read_tasks(str(tmp_path / "x.json"), "test")


def test_tasks_with_long_sides_are_counted(tmp_path):
    name = write(tmp_path / "tasks.json", {"train": {"a": TASK}, "eval": {"b": TASK, "c": TWO}})
    task = Arc(Options(data=name, side=3))
    for _ in range(2):  # counted once, however often they are asked for
        assert task.examples("test") == [] and task.dropped == {"with a side longer than 3": 2}
    assert [example["id"] for example in Arc(Options(data=name)).examples("test")] == ["b", "c"]
    assert Arc(Options(data=name)).trained_on() == ["a"] and Arc().trained_on() == []


def test_submissions(tmp_path):
    """Of predictions: the two most frequent, [] where nothing is answered; checked and combined."""
    tasks = {"a": TASK, "b": TWO}
    name = write(tmp_path / "tasks.json", tasks)
    right = [[9, 0, 0, 1]]
    mine = {
        "a": [{"attempt_1": [], "attempt_2": right, "attempt_3": right, "attempt_4": [[1]]}],
        "b": [{"attempt_1": [], "attempt_2": []}, {"attempt_1": [[3], [4]], "attempt_2": []}],
    }
    theirs = {
        "a": [{"attempt_1": [[2]], "attempt_2": [[3]]}],
        "b": [{"attempt_1": [[5]], "attempt_2": []}, {"attempt_1": [[3], [4]], "attempt_2": [[6]]}],
    }
    predictions = write(tmp_path / "p.json", mine)
    alone = Arc(Options(data=name)).submit(predictions)
    assert alone["a"] == [{"attempt_1": right, "attempt_2": [[1]]}]
    assert alone["b"] == [{"attempt_1": [], "attempt_2": []}, {"attempt_1": [[3], [4]], "attempt_2": []}]
    assert Arc(Options(data=name)).submit(write(tmp_path / "s.json", alone)) == alone
    both = Arc(Options(data=name, ensemble=write(tmp_path / "t.json", theirs))).submit(predictions)
    assert both["a"] == alone["a"]  # ours answers twice
    assert both["b"] == [{"attempt_1": [[5]], "attempt_2": []}, {"attempt_1": [[3], [4]], "attempt_2": [[6]]}]


def test_predictions_of_several_runs_vote_together(tmp_path):
    """Two runs that answer alike beat one that is alone twice; programs come before grids (--ensemble)."""
    name, a, b = write(tmp_path / "tasks.json", {"a": TASK}), [[1]], [[2]]
    runs = [
        write(tmp_path / f"{i}.json", {"a": [{"attempt_1": first, "attempt_2": second}]})
        for i, (first, second) in enumerate([(a, b), (b, []), ([], [])])
    ]
    assert Arc(Options(data=name)).submit(",".join(runs))["a"] == [{"attempt_1": b, "attempt_2": a}]
    ordered = Arc(Options(data=name, ensemble=",".join(runs[:2]))).submit(runs[2])
    assert ordered["a"] == [{"attempt_1": a, "attempt_2": b}]
    with pytest.raises(ValueError, match="1.json: 1 tasks are missing"):
        write(tmp_path / "1.json", {})
        Arc(Options(data=name)).submit(",".join(runs))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("b"), "1 tasks are missing, b among"),
        (lambda s: s.update(c=s["a"]), "not in the data, c among"),
        (lambda s: s["b"].pop(), "task b: must be a list of 2 tests"),
        (lambda s: s["a"][0].pop("attempt_2"), "task a, test 0: must have attempt_1 and attempt_2"),
        (lambda s: s["a"][0].update(attempt_2=[[11]]), "task a, test 0: attempt_2 is neither"),
    ],
)
def test_a_wrong_submission_is_refused(change, message):
    empty = {"attempt_1": [], "attempt_2": []}
    found = {"a": [dict(empty)], "b": [dict(empty), dict(empty)]}
    tasks = {"a": TASK, "b": TWO}
    assert arc_files.check_submission(found, tasks, "s.json") == found
    change(found)
    with pytest.raises(ValueError, match=f"s.json.*{message}"):
        arc_files.check_submission(found, tasks, "s.json")


def test_no_answers_make_a_whole_submission():
    """Missing answers once shared one dict, so that a later change showed up in all of them."""
    found = arc_files.submission([record(None, None), record(None)])
    tests = found["x"]
    assert tests == [{"attempt_1": [], "attempt_2": []}] * 2 and tests[0] is not tests[1]
    tests[0]["attempt_1"].append(1)
    assert tests[0]["attempt_2"] == tests[1]["attempt_1"] == []
    assert arc_files.predictions([record([[[1]], None], None)])["x"] == [
        {"attempt_1": [[1]], "attempt_2": []},
        {"attempt_1": [], "attempt_2": []},
    ]
    assert len(arc_files.task_results([record([[[1]], None], None)])) == 4


# ------------------------------------------------------------------------------------------------ looks
def test_painted_grids_stand_side_by_side():
    lines = painted([[[1, 2]], [[3], [4]], None])
    assert len(lines) == 2 and lines[0].count("\x1b[48;5;") == 3 and lines[1].count("\x1b[48;5;") == 1
    assert "?" in lines[0]


@runs_programs
def test_looking_at_tasks():
    task, said_lines = Arc(Options(tests=8)), []
    task.n = 2
    typed = iter(["", "5", "test-1", "what", "quit"])
    agent = Says("return grid[::-1]", "return gird")

    def show(line, painted=False):
        assert painted or "\x1b" not in line
        said_lines.append(line)

    show_tasks(task, agent, lambda: next(typed), show, 3)
    shown = [line.strip() for line in said_lines if line.strip().startswith("task ")]
    ids = [example["id"] for example in task.examples("test")]
    assert shown == [f"task {ids[i]}" for i in (3, 4, 5)] + ["task test-1"]
    assert any("NameError" in line for line in said_lines) and any(
        "no task what" in line for line in said_lines
    )
    show_tasks(task, agent, None, show, 0)
    task.box.close()
