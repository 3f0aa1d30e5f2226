"""Reasoning: rows of every form, and bad ones counted by reason."""

import json
from collections import Counter

import pytest

from games.reasoning.traces import read_test, read_traces


@pytest.fixture
def read(tmp_path):
    """Read rows that are given as dicts: (good rows without their place, Counter of the others)."""

    def read(rows, **how):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        dropped = Counter()
        traces = list(read_traces(str(path), "", dropped, **how))
        for i, row in enumerate(traces):
            assert row.pop("where").startswith(f"{path}, line "), i
        return traces, dropped

    return read


def test_traces_with_think_tags(read):
    rows = [
        {"prompt": "Why?", "response": "<think>\nBecause a.\n</think>\n\nIt is a."},
        {"prompt": "Why?", "response": "<THINK>b</THINK>B"},
        {"prompt": "Why?", "response": "No tags at all."},
        {"prompt": "Why?", "response": "<think>First. Then last.</think>"},
        {"prompt": "Why?", "response": "<think></think>It is."},
        {"prompt": "Why?", "response": "<think>a</think>b<think>c</think>"},
        {"prompt": " ", "response": "<think>a</think>b"},
    ]
    traces, dropped = read(rows)
    assert traces[0] == {"question": "Why?", "reasoning": "Because a.", "answer": "It is a.", "kind": "open"}
    assert len(traces) == 2 and traces[1]["answer"] == "B"
    reasons = ["an empty trace", "more tags than one pair", "no question"]
    assert dropped == Counter(["no pair of think tags", "no answer after the trace", *reasons])
    traces, dropped = read(rows, salvage=True)
    assert [row["answer"] for row in traces[2:]] == ["No tags at all.", "Then last."]
    assert dropped == Counter(reasons)


def test_gsm8k_rows(read):
    steps = "She has 16-3=<<16-3=13>>13.\nSo 1300."
    answers = [f"{steps}\n#### 1,300", "no mark", f"{steps}\n####", "#### 1"]
    traces, dropped = read([{"question": "How many?", "answer": answer} for answer in answers])
    reasoning = "She has 16-3=13.\nSo 1300."
    assert traces == [{"question": "How many?", "reasoning": reasoning, "answer": "1300", "kind": "number"}]
    assert dropped == Counter(["no #### before the answer", "no answer", "no steps"])


def test_mbpp_rows(read):
    tests = ["assert f(1) == 2", "assert f([2]) == {'a': (1,)}"]
    row = {"text": "Add one.", "code": "def f(x):\r\n  return x+1", "test_list": tests}
    odd = row | {"test_list": ["assert f(g(1)) == 2"]}
    traces, dropped = read([row, odd])
    (trace,) = traces
    assert trace["tests"] == tests and "\r" not in trace["answer"]
    assert [*map(read_test, tests)] == [("f", [1], 2), ("f", [[2]], {"a": (1,)})]
    assert "assert f(1) == 2" in trace["question"] and trace["kind"] == "code"
    assert dropped.total() == 1


def test_mbpp_rows_with_sets_and_sanitized_ones(read):
    """As MBPP has them: sets, complex numbers, dicts whose keys are tuples; the sanitized rows' columns."""
    odd = {"assert f({1}) == {(1, 2): 3}": ({1}, {(1, 2): 3}), "assert f(2j) == -1+0j": (2j, -1 + 0j)}
    odd |= {"assert f({}) == set()": ({}, set()), "assert f(-1) == 1.5": (-1, 1.5)}
    row = {
        "text": "Give a set.",
        "code": "def f(x):\n    return {x}",
        "test_setup_code": "",
        "test_list": [*odd],
    }
    assert {line: (read_test(line)[1][0], read_test(line)[2]) for line in odd} == odd
    sanitized = {
        "prompt": "Give a set.",
        "code": row["code"],
        "test_imports": ["import math"],
        "source_file": "a",
    }
    traces, dropped = read([row, sanitized | {"test_list": [*odd], "task_id": 3}])
    assert traces[0] == traces[1] and traces[0]["tests"] == [*odd] and not dropped
    assert traces[0]["question"].startswith("Give a set.\nThe code must")


def test_math_rows(read):
    row = {"problem": "Find $x$.", "solution": "It is $\\boxed{\\frac{3}{2}}.$", "answer": "\\frac{3}{2}"}
    traces, dropped = read(
        [row | {"subject": "Algebra", "level": 2}, row | {"answer": "$ $"}, row | {"answer": 3}]
    )
    reasoning = row["solution"]
    want = {"question": "Find $x$.", "reasoning": reasoning, "answer": row["answer"], "kind": "math"}
    assert traces == [want, want | {"answer": "3"}]
    assert dropped == Counter(["an answer that is no math, which no reply can equal"])


def test_numeric_answers(read):
    rows = [{"question": "q", "answer": 18}, {"question": "q", "answer": 2.5, "reasoning": "r"}]
    rows += [
        {"question": "q", "answer": 18, "reasoning": "r", "kind": "text"},
        {"question": "q", "answer": -0.0},
    ]
    traces, dropped = read(rows)
    assert [row["kind"] for row in traces] == ["number", "number", "text", "number"] and not dropped
    assert [row["answer"] for row in traces] == ["18", "2.5", "18", "-0.0"]


def test_golds_that_no_reply_can_equal_are_dropped_and_counted(read):
    own = {"question": "q", "reasoning": "r", "kind": "number"}
    kept = [own | {"answer": answer} for answer in ("1/2", "-3", "$1,200", "18 dollars", "1.5")]
    lost = [own | {"answer": answer} for answer in ("None", "n/a", "12:30", "1/0", "3 or 4", "2+2")]
    lost += [own | {"kind": "list", "answer": "[]"}, own | {"kind": "text", "answer": "**"}]
    lost += [{"question": "q", "answer": f"steps\n#### {answer}"} for answer in ("None", "1, 2", "3:4")]
    traces, dropped = read(kept + lost + [{"question": " ", "answer": "steps\n#### 1"}])
    assert [row["answer"] for row in traces] == ["1/2", "-3", "$1,200", "18 dollars", "1.5"]
    reason = "an answer that is no {}, which no reply can equal"
    want = {reason.format("number"): 9, reason.format("list"): 1, reason.format("text"): 1, "no question": 1}
    assert dropped == want


def test_tests_that_are_not_plain_are_none():
    odd = ["assert f(1) != 2", "assert f(1)", "f(1) == 2", "assert f(x) == 2", "assert f(a=1) == 2", "(", ""]
    odd += ["assert f(1) == __import__('os')", "assert f(1) == 2 == 3"]
    # values that cannot enter or leave the sandbox
    odd += ["assert f(1) == b'2'", "assert f(...) == 1", f"assert f(1) == {set(range(2000))}"]
    assert [line for line in odd if read_test(line) is not None] == []


def test_own_and_preference_rows(read):
    own = {"question": "q", "reasoning": "r", "answer": "a"}
    bad = [own | {"answer": " "}, own | {"reasoning": "<answer>x"}, own | {"question": ""}]
    traces, dropped = read(
        [own, *bad, own | {"kind": "number", "answer": "5"}, own | {"answer": "", "kind": "open"}]
    )
    assert [row["kind"] for row in traces] == ["text", "number", "open"]
    assert dropped == Counter(["no answer", "tags inside the trace or the answer", "no question"])
    pair = {"question": "q", "chosen": "a", "rejected": "b"}
    traces, dropped = read([pair, pair | {"rejected": "a"}, {"question": "q", "reply": "a", "good": True}])
    own = [sorted(row.keys() - {"question", "kind"}) for row in traces]
    assert own == [["chosen", "rejected"], ["good", "reply"]]
    assert dropped == Counter(["chosen and rejected are the same"])


@pytest.mark.parametrize(
    "row, what",
    [
        ({"x": 1}, "the columns x match none of: question, chosen"),
        ({"question": "q", "reasoning": "r"}, "the columns question, reasoning match none"),
        ({"question": "q", "reasoning": "r", "answer": "a", "kind": "code"}, "kind 'code' must be number"),
        ({"question": "q", "reply": "r", "good": 1}, "'good' is missing or not a bool"),
        ({"question": "q", "answer": None}, "'answer' is missing or not a str"),
    ],
)
def test_a_row_of_no_form_is_an_error_that_names_its_line(read, row, what):
    with pytest.raises(ValueError, match=f"rows.jsonl, line 2: {what}"):
        read([{"question": "q", "reasoning": "r", "answer": "a"}, row])
