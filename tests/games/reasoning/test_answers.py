"""Reasoning: what counts as an answer, and rewards that cannot be farmed."""

import pytest

from games.reasoning.answers import Parsed, equal, parse, parse_growing, read_weights, write_reply
from games.reasoning.task import Options, Reasoning
from games.sandbox.sandbox import level
from terminal import UsageError

runs_programs = pytest.mark.skipif(level()[0] not in ("full", "seccomp"), reason=f"sandbox: {level()}")
SUM = {"question": "What is 9 plus 9?", "reasoning": "9 + 9 = 18.", "answer": "18", "kind": "number"}
GOOD = write_reply("9 + 9 = 18.", "18")


# ------------------------------------------------------------------------------------------------ form
def test_the_parts_of_a_good_reply():
    assert parse(f"\n {GOOD}\n") == Parsed("9 + 9 = 18.", "18", loose=True, strict=True)


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


def test_a_growing_reply_shows_only_its_own_text():
    """No part of a tag is ever shown, and what was shown stays."""
    before = ("", "")
    for size in range(len(GOOD) + 1):
        now = parse_growing(GOOD[:size])
        assert all(new.startswith(old) and "<" not in new for old, new in zip(before, now))
        before = now
    assert before == ("9 + 9 = 18.", "18")


@pytest.mark.parametrize(
    "kind, truth, right, wrong",
    [
        (
            "number",
            "18",
            ["18", "18.", "18.0", "The answer is 18", "\u200918", "18, that is 18.0"],
            ["18 or 19", "9 + 9", "118", "1,8", "eighteen", "", "9" * 5000, "nan", "18 and 19", "-18"],
        ),
        ("number", "1,200", ["$1,200", "1200 dollars", "1200"], ["1,2,00", "1 200"]),
        ("number", "3.5", ["€ 3.50", "3.5 %"], ["35"]),
        ("number", "-5", ["-5", "\u22125"], ["5"]),
        ("text", "sunday", ["Sunday", "Sunday.", "**sunday**!"], ["Monday or Sunday", ""]),
        ("text", "", [], [""]),
        ("list", "47, 68, 90", ["47, 68, 90", "47 68 and 90", "47;68;90"], ["68, 47, 90", "47, 68", ""]),
        ("list", "", [], [""]),
    ],
)
def test_answers(kind, truth, right, wrong):
    assert [answer for answer in right if not equal(answer, truth, kind)] == []
    assert [answer for answer in wrong if equal(answer, truth, kind)] == []


# ------------------------------------------------------------------------------------------------ rewards
def test_rewards_of_a_good_a_wrong_and_a_cut_reply():
    task = Reasoning(Options(rewards="format:0.2,exact:1"))
    assert task.score(SUM, GOOD)["score"] == 1.0
    assert task.score(SUM, write_reply("a", "17"))["score"] == pytest.approx(0.2 / 1.2)
    assert task.score(SUM, "18")["score"] == 0.0
    assert task.score(SUM, GOOD, finished=False)["score"] == 0.0
    assert task.score(SUM, f"{GOOD} Bye.") == {
        "score": 0.0,
        "parts": {"format": 0.0, "exact": 0.0},
        "loose": True,
        "strict": False,
        "closed": True,
        "right": True,
        "answer": "18",
    }


@pytest.mark.parametrize(
    "text",
    [
        write_reply("I think.", ""),  # once paid, as an empty answer is a part of any truth
        write_reply("", "18"),
        write_reply("18", "") + "18",
        "<reasoning></reasoning>" * 9 + "<answer></answer>" * 9,  # stuffed with tags
        write_reply("9 + 9 = 18", "8"),  # once paid: a part of the truth
        write_reply("9 + 9 = 18", "1"),
        write_reply("9 + 9 = 18", "17 18 19"),  # every answer that might be right
        write_reply("9 + 9 = 18", "number 18 or 19"),
    ],
)
def test_holes_pay_nothing(text):
    assert Reasoning().score(SUM, text)["parts"]["exact"] == 0.0


CODE = {
    "question": "Add one.",
    "reasoning": "",
    "answer": "def f(x): return x + 1",
    "kind": "code",
    "tests": ["assert f(1) == 2", "assert f(5) == 6"],
}


@runs_programs
def test_code_is_judged_by_its_tests():
    task = Reasoning()
    score = lambda answer: task.score(CODE, write_reply("I write.", answer))["parts"]
    assert score("def f(x): return x + 1") == {"format": 1.0, "tests": 1.0}
    assert score("```python\ndef f(x):\n    return 1 + x\n```")["tests"] == 1.0
    assert score("def f(x): return 2")["tests"] == 0.5
    holes = [
        "2",
        "",
        "pass",
        "def f(x): return x + 1.0",
        "class f(int):\n    def __eq__(self, other): return True",
        "import os\nos._exit(0)",
        "def f(x): return True",
        "def f(x)",
    ]
    assert [hole for hole in holes if score(hole)["tests"]] == []
    assert task.score(CODE, write_reply("I write.", CODE["answer"]))["right"] is True
    task.sandbox.close()


def test_rewards_follow_the_kind_of_the_row():
    task = Reasoning()
    assert set(task.score(SUM, GOOD)["parts"]) == {"format", "exact"}
    open_question = {"question": "What is good about snow?", "answer": "x", "kind": "open"}
    result = task.score(open_question, GOOD)
    assert (result["parts"], result["score"], result["right"]) == ({"format": 1.0}, 1.0, None)


@pytest.mark.parametrize("text", ["format", "style:1", "format:x", ""])
def test_rewards_that_are_none_are_a_wrong_call(text):
    with pytest.raises(UsageError, match="^--rewards"):
        read_weights(text)
