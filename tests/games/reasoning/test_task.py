"""Reasoning: what counts as an answer, rewards that cannot be farmed, rows of every form, the task."""

import json
from decimal import Decimal

import numpy as np
import pytest

from games.reasoning import traces as reasoning_rows
from games.reasoning.task import SYSTEM, Options, Reasoning, equal, number, parse, said, written
from games.sandbox.sandbox import level
from games.task import Chat, Judged, Pair, Reply

runs_programs = pytest.mark.skipif(level()[0] not in ("full", "seccomp"), reason=f"sandbox: {level()}")
SUM = {"question": "What is 9 plus 9?", "reasoning": "9 + 9 = 18.", "answer": "18", "kind": "number"}
GOOD = written("9 + 9 = 18.", "18")


class Says:
    """An agent that says the same texts in turn."""

    def __init__(self, *texts, finished=True):
        self.texts, self.finished, self.said = texts, finished, 0

    def reply(self, conversations, n=1):
        found = []
        for _ in conversations:
            found.append(
                [Reply(self.texts[self.said % len(self.texts)], [1, 2], [-1.0, -1.0], finished=self.finished)]
            )
            self.said += 1
        return found


# ------------------------------------------------------------------------------------------------ form
def test_parsing_a_good_reply():
    found = parse(GOOD)
    assert (found.reasoning, found.answer, found.loose, found.strict) == ("9 + 9 = 18.", "18", True, True)
    assert parse(f"\n {GOOD}\n").strict


@pytest.mark.parametrize(
    "text, loose",
    [
        ("", False),
        ("18", False),
        ("<reasoning>a</reasoning>18", False),
        ("<answer>18</answer>", False),
        ("<reasoning>a</reasoning><answer>18", False),
        ("<answer>18</answer><reasoning>a</reasoning>", False),
        (f"Well: {GOOD}", True),
        (f"{GOOD} I hope this helps!", True),
        ("<reasoning>a</reasoning> so <answer>18</answer>", True),
        ("<reasoning></reasoning><answer>18</answer>", True),
        ("<reasoning>a</reasoning><answer> \n</answer>", True),
        (GOOD + GOOD, True),
        ("<reasoning>a<answer>18</answer></reasoning><answer>18</answer>", True),
        ("<reasoning><reasoning>a</reasoning></reasoning><answer>18</answer>", True),
        ("<reasoning>a</reasoning><answer><answer>18</answer></answer>", True),
    ],
)
def test_what_is_not_strict(text, loose):
    assert not parse(text).strict and parse(text).loose == loose


@pytest.mark.parametrize(
    "answer, truth, kind, right",
    [
        ("18", "18", "number", True),
        ("18.", "18", "number", True),
        ("18.0", "18", "number", True),
        ("$1,200", "1200", "number", True),
        ("1200 dollars", "1,200", "number", True),
        ("€ 3.50", "3.5", "number", True),
        ("50 %", "50", "number", True),
        ("-5", "-5", "number", True),
        ("\u22125", "-5", "number", True),
        ("The answer is 18", "18", "number", True),
        ("18 or 19", "18", "number", False),
        ("9 + 9", "18", "number", False),
        ("118", "18", "number", False),
        ("1,8", "18", "number", False),
        ("eighteen", "18", "number", False),
        ("", "18", "number", False),
        ("9" * 5000, "18", "number", False),
        ("nan", "18", "number", False),
        ("Sunday", "sunday", "text", True),
        ("Sunday.", "Sunday", "text", True),
        ("Monday or Sunday", "Sunday", "text", False),
        ("", "", "text", False),
        ("47, 68, 90", "47, 68, 90", "list", True),
        ("47 68 and 90", "47, 68, 90", "list", True),
        ("68, 47, 90", "47, 68, 90", "list", False),
        ("47, 68", "47, 68, 90", "list", False),
        ("", "", "list", False),
    ],
)
def test_answers(answer, truth, kind, right):
    assert equal(answer, truth, kind) is right


def test_one_number_said_twice_is_one():
    assert number("18, that is 18.0") == Decimal(18) and number("18 and 19") is None


# ------------------------------------------------------------------------------------------------ rewards
def test_rewards_of_a_good_a_wrong_and_a_cut_reply():
    task = Reasoning(Options(rewards="format:0.2,exact:1"))
    assert task.score(SUM, GOOD)["score"] == 1.0
    assert task.score(SUM, written("a", "17"))["score"] == pytest.approx(0.2 / 1.2)
    assert task.score(SUM, "18")["score"] == 0.0
    assert task.judged(SUM, GOOD, finished=False)["score"] == 0.0
    assert task.score(SUM, f"{GOOD} Bye.") | {"parts": 0} == {
        "score": 0.0,
        "parts": 0,
        "loose": True,
        "strict": False,
        "closed": True,
        "right": True,
        "answer": "18",
    }


@pytest.mark.parametrize(
    "text",
    [
        written("I think.", ""),  # once: an empty answer was part of the truth
        written("", "18"),
        written("18", "") + "18",
        "<reasoning></reasoning>" * 9 + "<answer></answer>" * 9,  # stuffed with tags
        written("9 + 9 = 18", "8"),  # once: part of the truth
        written("9 + 9 = 18", "1"),
        written("9 + 9 = 18", "17 18 19"),  # all there is to say
        written("9 + 9 = 18", "number 18 or 19"),
    ],
)
def test_holes_pay_nothing(text):
    task = Reasoning()
    assert task.score(SUM, text)["parts"]["exact"] == 0.0


CODE = {
    "question": "Add one.",
    "reasoning": "",
    "answer": "def f(x): return x + 1",
    "kind": "code",
    "tests": [("f", [1], 2), ("f", [5], 6)],
}


@runs_programs
def test_code_is_judged_by_its_tests():
    task = Reasoning()
    score = lambda answer: task.score(CODE, written("I write.", answer))["parts"]
    assert score("def f(x): return x + 1") == {"format": 1.0, "tests": 1.0}
    assert score("```python\ndef f(x):\n    return 1 + x\n```")["tests"] == 1.0
    assert score("def f(x): return 2")["tests"] == 0.5
    for hole in (
        "2",
        "",
        "pass",
        "def f(x): return x + 1.0",
        "class f(int):\n    def __eq__(self, other): return True",
        "import os\nos._exit(0)",
        "def f(x): return True",
        "def f(x)",
    ):
        assert score(hole)["tests"] == 0.0, hole
    assert task.judged(CODE, written("I write.", CODE["answer"]))["right"] is True
    task.box.close()


def test_rewards_follow_the_kind_of_the_row():
    task = Reasoning()
    assert set(task.score(SUM, GOOD)["parts"]) == {"format", "exact"}
    assert (
        task.score({"question": "What is good about snow?", "answer": "x", "kind": "open"}, GOOD)["score"]
        == 1.0
    )
    for wrong in ("format", "style:1", "format:x", ""):
        with pytest.raises(ValueError, match="^--rewards"):
            Reasoning(Options(rewards=wrong))


# ------------------------------------------------------------------------------------------------ rows
def rows_of(tmp_path, rows, name="rows.jsonl", **how):
    path, dropped = tmp_path / name, []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(reasoning_rows.read_traces(str(path), "", dropped.append, **how))
    for row in found:
        row.pop("where")
    return found, dropped


def test_traces_with_think_tags(tmp_path):
    rows = [
        {"prompt": "Why?", "response": "<think>\nBecause a.\n</think>\n\nIt is a."},
        {"prompt": "Why?", "response": "<THINK>b</THINK>B"},
        {"prompt": "Why?", "response": "No tags at all."},
        {"prompt": "Why?", "response": "<think>First. Then last.</think>"},
        {"prompt": "Why?", "response": "<think></think>It is."},
        {"prompt": "Why?", "response": "<think>a</think>b<think>c</think>"},
        {"prompt": " ", "response": "<think>a</think>b"},
    ]
    found, dropped = rows_of(tmp_path, rows)
    assert found[0] == {"question": "Why?", "reasoning": "Because a.", "answer": "It is a.", "kind": "open"}
    assert len(found) == 2 and found[1]["answer"] == "B"
    assert dropped == [
        "no pair of think tags",
        "no answer after the trace",
        "an empty trace",
        "more tags than one pair",
        "no question",
    ]
    found, dropped = rows_of(tmp_path, rows, salvage=True)
    assert [row["answer"] for row in found[2:]] == ["No tags at all.", "Then last."] and len(dropped) == 3


def test_gsm8k_rows(tmp_path):
    rows = [
        {"question": "How many?", "answer": "She has 16-3=<<16-3=13>>13.\nSo 1300.\n#### 1,300"},
        {"question": "How many?", "answer": "no mark"},
    ]
    found, dropped = rows_of(tmp_path, rows)
    assert found == [
        {
            "question": "How many?",
            "reasoning": "She has 16-3=13.\nSo 1300.",
            "answer": "1300",
            "kind": "number",
        }
    ]
    assert dropped == ["no #### before the answer"]


def test_mbpp_rows(tmp_path):
    row = {
        "text": "Add one.",
        "code": "def f(x):\r\n  return x+1",
        "test_list": ["assert f(1) == 2", "assert f([2]) == {'a': (1,)}"],
    }
    odd = row | {"test_list": ["assert f(g(1)) == 2"]}
    found, dropped = rows_of(tmp_path, [row, odd])
    assert found[0]["tests"] == [("f", [1], 2), ("f", [[2]], {"a": (1,)})] and "\r" not in found[0]["answer"]
    assert "assert f(1) == 2" in found[0]["question"] and found[0]["kind"] == "code" and len(dropped) == 1


def test_code_is_left_out_where_it_cannot_be_run(tmp_path, monkeypatch):
    row = {"text": "Add one.", "code": "def f(x): return x + 1", "test_list": ["assert f(1) == 2"]}
    assert len(task_of(tmp_path, [row | {"text": str(i)} for i in range(30)]).examples("train")) > 20
    monkeypatch.setattr("games.reasoning.task.level", lambda: ("limits", ["no filter"]))
    task = task_of(tmp_path, [row])
    assert task.examples("train") == [] and sum(task.dropped.values()) == 1
    task = task_of(tmp_path, [row], test_data=str(tmp_path / "data.jsonl"))
    assert task.examples("test") == [] and sum(task.dropped.values()) == 2


@pytest.mark.parametrize(
    "line",
    [
        "assert f(1) != 2",
        "assert f(1)",
        "f(1) == 2",
        "assert f(x) == 2",
        "assert f(1) == __import__('os')",
        "(",
        "assert f(a=1) == 2",
        "assert f(1) == 2 == 3",
        "",
    ],
)
def test_tests_that_are_not_plain_are_none(line):
    assert reasoning_rows.test_of(line) is None


def test_own_and_preference_rows(tmp_path):
    own = {"question": "q", "reasoning": "r", "answer": "a"}
    found, dropped = rows_of(
        tmp_path, [own, own | {"answer": " "}, own | {"reasoning": "<answer>x"}, own | {"kind": "number"}]
    )
    assert [row["kind"] for row in found] == ["text", "number"]
    assert dropped == ["no answer", "tags inside the trace or the answer"]
    found, dropped = rows_of(
        tmp_path,
        [
            {"question": "q", "chosen": "a", "rejected": "b"},
            {"question": "q", "chosen": "a", "rejected": "a"},
        ],
        "p.jsonl",
    )
    assert len(found) == 1 and dropped == ["chosen and rejected are the same"]
    with pytest.raises(ValueError, match="rows.jsonl, line 1: columns x are none of: question, chosen"):
        rows_of(tmp_path, [{"x": 1}])
    with pytest.raises(
        ValueError, match="rows.jsonl, line 2: kind 'code' must be number, text, list or open"
    ):
        rows_of(tmp_path, [own, own | {"kind": "code"}])
    with pytest.raises(ValueError, match="rows.jsonl, line 2: columns question, reasoning are none"):
        rows_of(tmp_path, [own, {"question": "q", "reasoning": "r"}])


# ------------------------------------------------------------------------------------------------ the task
def task_of(tmp_path, rows, **options):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Reasoning(Options(data=str(path), **options))


def test_train_and_test_questions_differ(tmp_path):
    rows = [{"question": f"q{i}", "reasoning": "r", "answer": "a"} for i in range(400)]
    task = task_of(tmp_path, rows)
    train, test = ({row["question"] for row in task.examples(split)} for split in ("train", "test"))
    assert len(train) + len(test) == 400 and not train & test and 8 < len(test) < 40
    other = tmp_path / "test.jsonl"
    other.write_text(json.dumps(rows[0]) + "\n")
    task = task_of(tmp_path, rows, test_data=str(other))
    assert len(task.examples("train")) == 399 and task.dropped == {"questions of the test rows": 1}


def test_items_of_rows(tmp_path):
    rng = np.random.default_rng(0)
    (chat,) = task_of(tmp_path, [SUM], system="tags").items(SUM, rng)
    assert chat == Chat(
        [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": SUM["question"]},
            {"role": "assistant", "content": GOOD},
        ],
        "last",
    )
    task = Reasoning()
    assert isinstance(task.items({"question": "q", "chosen": "a", "rejected": "b"}, rng)[0], Pair)
    assert isinstance(task.items({"question": "q", "reply": "a", "good": True}, rng)[0], Judged)


@pytest.mark.parametrize("how, words", [("drop", 40), ("trim-reasoning", 20), ("truncate", 21)])
def test_overlong_rows(tmp_path, how, words):
    """Trimmed rows keep whole sentences and the answer; dropping is left to the trainer."""
    row = SUM | {"reasoning": " ".join(f"Step {i} is here." for i in range(9))}
    task = task_of(tmp_path, [row], overlong=how)
    task.length, task.max_tokens = lambda chat: len(chat.messages[-1]["content"].split()), 20
    text = task.items(row, np.random.default_rng(0))[0].messages[-1]["content"]
    assert len(text.split()) <= words
    if how == "trim-reasoning":
        assert parse(text).strict and parse(text).reasoning.endswith("here.") and parse(text).answer == "18"
    if how == "truncate":
        assert text.startswith("<reasoning>Step 0 is here.") and "</answer>" not in text


def test_no_prompt_knows_the_answer():
    task = Reasoning(Options(tests=8, system="tags"))
    for example in task.examples("test"):
        assert task.prompt(example | {"answer": "x", "trace": "y", "reasoning": "z"}) == task.prompt(example)


def test_figures_by_hand():
    rows = [SUM, SUM | {"question": "b"}, {"question": "c", "answer": "", "kind": "open"}]
    task = Reasoning()
    agent = Says(GOOD, "18", written("a", "it is nice"))
    metrics = task.evaluate(rows, agent)["metrics"]
    assert metrics["right"] == 0.5 and metrics["strict"] == metrics["strict_closed"] == pytest.approx(2 / 3)
    assert metrics["loose"] == pytest.approx(2 / 3) and metrics["closed"] == 1.0 and metrics["tokens"] == 2.0
    assert task.evaluate(rows, Says(GOOD, finished=False))["metrics"]["strict_closed"] == 0.0
    task.n = 4
    wrong = written("a", "17")
    metrics = task.evaluate([SUM], Says(GOOD, wrong, GOOD, "18"))["metrics"]
    assert metrics["right"] == 0.5 and metrics["vote"] == 1.0 and metrics["pass@2"] == pytest.approx(5 / 6)


def test_the_world_is_split_by_question():
    task = Reasoning(Options(tests=40, problems=200))
    test = task.examples("test")
    assert [example["unseen"] for example in test[:8]] == [False, False, False, True] * 2
    train = {task.problem(example)["question"] for example in task.examples("train")}
    assert len(train) > 190 and not train & {example["question"] for example in test}
    assert task.items({"number": 0}, np.random.default_rng(1)) == task.items(
        {"number": 0}, np.random.default_rng(1)
    )
    assert len({example["question"] for example in test}) == 40


def test_share_of_hasty_traces():
    task, count = Reasoning(Options(hasty=0.6)), 0
    for i in range(300):
        text = task.items({"number": 0}, np.random.default_rng(i))[0].messages[-1]["content"]
        assert parse(text).strict
        count += parse(text).reasoning.startswith("Quickly")
    assert 0.5 < count / 300 < 0.7


def test_rollouts_carry_their_parts():
    task = Reasoning(Options(rewards="format:0.2,exact:1"))
    episodes = task.rollout([SUM, SUM], Says(GOOD, "no"))
    assert [episode.reward for episode in episodes] == [1.0, 0.0]
    assert episodes[0].scores == {"format": 1.0, "exact": 1.0} and episodes[1].turns[0]["reply"] == "no"


def test_said_of_code_without_a_trace_is_still_strict():
    assert parse(said([], "", "def f(): pass").messages[-1]["content"]).strict
