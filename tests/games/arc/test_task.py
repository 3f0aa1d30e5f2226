"""ARC: prompts, items, replies, verdicts, and tasks in the terminal."""

from dataclasses import replace

import numpy as np
import pytest

import data
from games.arc import task as arc_task
from games.arc.grids import GRIDS
from games.arc.judging import memorised
from games.arc.prompts import PROMPTS, WORDS
from games.arc.task import Arc, Options
from games.arc.terminal import side_by_side
from games.task import Players
from terminal import UsageError
from tests.games.arc.help_arc import FLIP, TASK, TWO, Says, attempt, runs_programs, summarise

TRUTH = [pair["output"] for pair in TWO["test"]]
EXAMPLE = {"id": "a", "split": "", **TASK}


@pytest.fixture
def task():
    task = Arc(Options(tests=8, seconds=0.5))
    return task


# ------------------------------------------------------------------------------------------------ prompts
@pytest.mark.parametrize("name", PROMPTS)
def test_what_is_taught_is_what_is_read_and_no_prompt_knows_the_answer(name):
    version, writing = PROMPTS[name], GRIDS["full"]
    task = {**TASK, "program": "out = grid.copy()\nreturn out[:, ::-1]"}
    other = {**TASK, "program": "return 1", "test": [{**TASK["test"][0], "output": [[7]]}]}
    assert version.question(other, writing) == version.question(task, writing)
    rival = {"source": "def task(grid):\n    return grid\n", "outputs": [[[7, 7, 7, 7, 7]]] * 3}
    chat = version.chat(task, writing, rival, np.random.default_rng(0))
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
    for cells, left in ((12, 1), (24, 2), (1, 1), (0, 2)):
        assert Arc(Options(cells=cells)).fit(TASK)["train"] == TASK["train"][:left]


def test_wrong_flags_are_named():
    for wrong in (dict(prompt_version="code,cod"), dict(judge="http://x")):
        with pytest.raises(UsageError, match=f"^--{next(iter(wrong)).replace('_', '-')}"):
            Arc(Options(**wrong))
    for version in ("verify", "refine", "input-from-inputs-v0", "output-from-code-v0"):
        with pytest.raises(UsageError, match="^--prompt-version"):
            attempt(Arc(Options(prompt_version=version)), EXAMPLE, Says("x"), 1)


# ------------------------------------------------------------------------------------------------ items
def test_items_of_real_tasks_are_frames_of_their_pairs():
    """Pairs and tests are pooled, and the pair to predict changes from draw to draw."""
    task = Arc(Options(prompt_version="output-from-examples-v1,input-from-inputs-v0"))
    chats = [task.items({"id": "a", **TASK}, np.random.default_rng(i))[0] for i in range(60)]
    asked = [chat.messages[-2]["content"] for chat in chats]
    assert len(set(asked)) > 55 and {"new one" in text for text in asked} == {True, False}
    with pytest.raises(UsageError, match="^--prompt-version: .*no programs"):
        Arc().items({"id": "a", **TASK}, np.random.default_rng(0))


def test_a_program_is_taught_from_fewer_pairs_as_well():
    chats = Arc().items({"number": 0}, np.random.default_rng(0))
    asked = [chat.messages[0]["content"] for chat in chats]
    assert [text.count(">") for text in asked] == [3, 2, 1]
    assert all(asked[0].startswith(text) for text in asked)
    assert len({chat.messages[1]["content"] for chat in chats}) == 1


def test_the_world_is_split():
    task = Arc(Options(tests=8))
    assert [len(task.examples(split)) for split in ("train", "valid", "test")] == [arc_task.TASKS, 64, 8]
    names = [example["split"] for example in task.examples("test")]
    assert names == ["", "/parameters", "", "/compositions"] * 2
    assert Arc(Options(tests=5)).examples("test") == task.examples("test")[:5]
    assert Arc(Options(tests=8, only="parameters")).examples("test") == task.examples("test")[1::4]
    one, other = (task.items(task.examples("train")[0], np.random.default_rng(i)) for i in (1, 2))
    assert one != other


def test_a_cell_is_a_token():
    tokenizer = data.train_tokenizer(Arc().texts()[:300], 2000, Arc.pre_tokens)
    ids = tokenizer.encode("10305\n22222\n>\n00\n")
    assert len(ids) == 17 and len({*ids}) == 7  # 1 0 3 5 2, the row's end and the mark
    assert len(tokenizer.encode("return np.where(grid == 3, 5, grid)")) <= 14


# ------------------------------------------------------------------------------------------------ asking
@runs_programs
@pytest.mark.parametrize("n, prompts", [(1, 8), (7, 8), (7, 0), (32, 3), (5, 1)])
def test_n_replies_are_asked_for_exactly_and_judged_in_their_frames(task, n, prompts):
    """Fewer predictions than views once made no prompt at all."""
    task.options.frames, agent = prompts, Says("return grid[:, ::-1]")
    found = attempt(task, EXAMPLE, agent, n)
    assert len(agent.seen) == len(found["replies"]) == n
    different = {message["content"] for conversation in agent.seen for message in conversation}
    assert len(different) == min(n, prompts or n)
    for reply in found["replies"]:  # in every frame: a flip along the frame's other axis where it is turned
        turned = reply["frame"]["turns"] % 2
        assert (reply["answers"] == TRUTH[:1]) == (not turned), reply


@runs_programs
def test_blind_programs_are_counted_over_all_replies(task):
    """However many calls of attempt these are spread over, as test-time training does."""
    example, agent = task.examples("test")[0], Says("return grid")
    for n in (5, 200):
        together = attempt(task, example, agent, n)["blind"]
        counts = [task.count_blind(example, i) for i in range(n + 1)]
        assert together == counts[n] and counts == sorted(counts) and counts[0] == 0
    assert counts[-1] > 0


@runs_programs
def test_only_what_a_program_gives_by_itself_counts(task, monkeypatch):
    """What is right beside other programs may be their work."""
    confirm = task.runner.sandbox().confirm

    def alone(jobs):
        return [replace(result, values=[[[9]]] * len(result.values)) for result in confirm(jobs)]

    monkeypatch.setattr(task.runner.box, "confirm", alone)
    (reply,) = attempt(task, EXAMPLE, Says("return grid[:, ::-1]"), 1)["replies"]
    assert reply["verdict"] == "unstable" and reply["answers"] is None


@runs_programs
def test_verdicts_and_rewards(task):
    """One task, a program of every kind; only those right on all shown pairs answer."""
    table = "A = [[3, 2, 1], [6, 5, 4]], [[7, 0], [0, 0], [0, 5]]\ndef task(g): return A[len(g) - 2]"
    programs = {
        FLIP: ("accepted", 2),
        "def task(grid): return grid[:, ::-1].astype(np.uint8)": ("accepted", 2),
        "def task(grid): return dsl.map_colours(grid[:, ::-1], {}).tolist()": ("accepted", 2),
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
        table: ("memorised", 2),
        "def task(grid):\n    grid[:] = grid[:, ::-1].copy()\n    return grid": ("accepted", 2),
    }
    example = {"id": "a", **TWO}
    version = task.versions[0] = PROMPTS["code-from-examples-v0"]
    agent = Says(*(f"{version.opening(task.writing)}{source}```" for source in programs))
    found = attempt(task, example, agent, len(programs))["replies"]
    episodes = task.play([example] * len(programs), agent)
    for (source, (verdict, right)), reply, episode in zip(programs.items(), found, episodes):
        assert (reply["verdict"], reply["right"]) == (verdict, right), (source, reply)
        assert (reply["answers"] == TRUTH) == (verdict == "accepted") and reply["source"] == source
        assert episode.reward == float(verdict == "accepted") and episode.scores["shown"] == right / 2
        assert episode.scores["memorised"] == float(verdict == "memorised")


def test_grids_as_replies():
    """A version that asks for a grid: the grid is read and brought back; another text is no answer."""
    task = Arc(Options(prompt_version="output-from-examples-v1", grid="full", frames=2))
    lead, right = task.versions[0].lead, GRIDS["full"].write(TRUTH[0])
    agent = Says(lead + right, lead + "```grid shape: 2x2\n1 00\n```")
    found = attempt(task, {"id": "a", **TWO}, agent, 2)
    assert [reply["test"] for reply in found["replies"]] == [0, 0, 1, 1]
    assert [reply["verdict"] for reply in found["replies"]] == ["accepted", "none"] * 2
    assert found["replies"][0]["answers"] == [TRUTH[0], None]
    metrics = summarise(task, [found])["metrics"]
    assert metrics["pass_n"] == 0.5 and metrics["solved@1"] == 0.0 and metrics["unanswered"] == 0.5


@pytest.mark.parametrize(
    "source, digits",
    [
        ("def task(g): return [[1, 2], [3, 4]]", True),
        ("def task(g): return np.array([1, 2, 3, 4]).reshape(2, 2)", True),
        ("def task(g): return [[int(c) for c in r] for r in '12 34'.split()]", True),
        ("A = {2: ((1, 2), (3, 4))}", True),
        ("x = [" + ", ".join("7" * 12) + "]", True),
        (FLIP, False),
        ("def task(g): return np.where(g == 1, 2, np.where(g == 3, 4, g))", False),
        ("def task(g): return [[5]]", False),  # a cell or two prove nothing
        ("def task(:", False),
    ],
)
def test_memorised_programs(source, digits):
    assert memorised(source, [{"output": [[1, 2], [3, 4]]}, {"output": [[5]]}]) == digits


# ------------------------------------------------------------------------------------------------ looks
@runs_programs
def test_looking_at_tasks(task, monkeypatch):
    for module in ("terminal", "games.arc.terminal"):  # as if the output were a terminal
        monkeypatch.setattr(f"{module}.shows_colours", lambda: True)
    shown = side_by_side([[[1, 2]], [[3], [4]], None])
    assert [line.count("\x1b[48;5;") for line in shown] == [3, 1] and "?" in shown[0]
    lines, typed = [], iter(["", "5", "test-1", "what", "quit"])
    agent = Says("return grid[::-1]", "return gird")

    def show(line):
        lines.append(line.strip())

    task.interact(Players(agent, n=2), lambda: next(typed), show, "", 3)
    shown = [line for line in lines if line.startswith("task ")]
    assert shown == [f"task test-{i}" for i in (3, 4, 5, 1)]
    assert any("NameError" in line for line in lines) and any("no task what" in line for line in lines)
    assert len(agent.seen) == 2 * 4
    task.interact(Players(agent, n=2), None, show, "", 0)
