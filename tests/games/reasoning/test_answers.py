"""Reasoning: what counts as an answer, and rewards that cannot be farmed."""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from games.reasoning.answers import (
    Parsed,
    equal,
    parse,
    parse_growing,
    read_code,
    read_math,
    value_of,
    write_reply,
)
from games.reasoning.task import Options, Reasoning
from games.reasoning.traces import read_test, read_traces
from games.sandbox.sandbox import level

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


# kind: the truth | answers that equal it | answers that do not
ANSWERS = r"""
number: 18 | 18; 18.; 18.0; +18; (18) | 118
number: 18 | 36/2; 54 / 3; The answer is 18; Answer: 18; x = 18; 18, that is 18.0 | 1,8
number: 18 | $18$; \boxed{18}; \(18\); 18\text{ cm}; 18 cm^2; 18 m²; 18 km/h; $18/hour; 18 times a week | -18
number: 18 | 18 | --18
number: 18 | **18**; **Answer:** 18; 18 marbles; 18 dollars. It is 18; US$18; Rs. 18; #### 18 | -$18; - 18
number: 18 | 18 | - $18; $-18
number: 18 | 018; 18 %; 18? | –18; —18; −18; minus 18; negative 18; (-18); **-18**; Total - 18; x - 18
number: 18 | 18 | x - 18.0; 18 - x
number: 18 | 18kg | 18-; 18+; n + 18; 2*18; 18x; 18 x 1; 18 * 1; 18 ÷ 1; 18!; 18/0; 18^1; 18**1; 18e0; 18(1)
number: 18 | 18 | (18)(18)
number: 18 | 18th | 18 million; 18M; 18k; 18 dozen; 18 and a half; more than 18; > 18; ±18; 18 squared
number: 18 | 18 | twice 18; log 18
number: 18 | is 18 | f(18); sqrt(18); √18; 18\pi; 18i; 18 18; [18, 18]; 18:18; 18:00; 18 pm; 18/1/2020; May 18
number: 18 | 18 | 18 March
number: 18 | 18 | 18.18.18; 18-18; 18 to 18; 18 and 18; 18 or 19; x18; COVID-18; No.18; nan
number: 18 | 18 | \boxed{18} \boxed{17}; 18, 18
number: 18 | 18 | 9 + 9; eighteen; None; one 18 of 19; 17 \boxed{18; 1_8; 1'8; 18 - 0; 18 -0; 18 plus 0
number: 18 | 18 | half of 18; 18 < 19
number: -18 | -18; -$18; - 18; –18; − $18; $-18; -€18; is - 18; is -18; -36/2; minus 18; -\frac{36}{2} | 18
number: -18 | -18 | --18; x-18
number: 1/2 | 0.5; .5; 2/4; \frac{1}{2}; \dfrac12; 1 / 2; 1/2 cup | 1; 2; -1/2; 1:2; 1/2/2; 50%; 1.25/2.5
number: 1/2 | 1/2 | ½ of ½; 1/-2
number: 2.5 | 2 1/2; 5/2; 2\frac{1}{2}; 10/4; 2.50 | 21/2; 2 1; 1/2; 2/1/2; 2,5; 2.5.0
number: 2 | 2; 6/3 | 2+2; 2 + 2; 2-2; 2*2; 2×2; 2^2; √2; 2²; 2 plus 2; 2 x 2; 2 - 2; 2 by 2; 2 out of 2
number: 2 | 2 | 2\cdot 2
number: 6 | 6; 36 / 6 | 6/6; 6 - 6; 6 ÷ 6; 6 minus 6; 6:6; 6 am; 6 a.m.; 6 + x
number: 1 | 6/6; 1.00 | 1:1; 1 to 1; 1-1; 1!
number: 12 | 12; twelve 12 | 12:12; 12:12 pm; 12/12; 12.12.2012; 12-12; 12-12-12; 12h:12; 2012-12-12; 12/12/12
number: 1,200 | $1,200; 1200 dollars; 1{,}200; $1,200.00 | 1,2,00; 1 200; 1,200,00; 1.200; 1,20,0; 1,2000
number: 1,200 | 1,200 | $1,200 or $1,300
number: 3.5 | € 3.50; 3.5 %; 3.5; $3.50 each; 7/2 | 35; 3,5; 3.5.0; 3-5
number: -5 | -5; −5 | 5; 5-
text: sunday | Sunday; Sunday.; **sunday**! | Monday or Sunday; not sunday
text: yes | **Yes.**; Yes!; "Yes"; __yes__; \boxed{Yes}; “yes”; *yes*.; \text{Yes} | yes or no; not yes; no; y
text: no | **No.**; NO; `no`; No, | yes; none
text: -5 | -5; −5. | 5; (5)
text: .5 | .5 | 5
list: 1, 2, 3 | [1, 2, 3]; (1,2,3); **1, 2, 3**; 1.0, 2, and 3.; {1, 2, 3}; 1 2 3; $1, 2, 3$ | [1, -2, 3]; 123
list: 1, 2, 3 | 1, 2, 3 | 3, 2, 1
list: -1, 2 | [-1, 2]; −1, 2 | 1, 2; - 1, 2
list: a, b | ['a', 'b']; A and B; **A**, **B** | [b, a]; ab; a, b, c
list: 47, 68, 90 | 47, 68, 90; 47 68 and 90 | 68, 47, 90; 47, 68
"""
CASES = [line.split(" | ") for line in ANSWERS.strip().splitlines()]


@pytest.mark.parametrize("gold, right, wrong", CASES)
def test_answers(gold, right, wrong):
    kind, truth = gold.split(": ")
    assert [answer for answer in right.split("; ") if not equal(answer, truth, kind)] == []
    assert [answer for answer in wrong.split("; ") if equal(answer, truth, kind)] == []


@pytest.mark.parametrize("kind", ["number", "text", "list", "math", "code"])
def test_an_empty_answer_is_never_right(kind):
    empty = "", " ", "**", "[]", "```\n```"
    assert not any(equal(answer, truth, kind) for answer in empty[:2] for truth in (*empty, "1"))
    assert kind == "code" or not any(equal(answer, answer, kind) for answer in empty)
    assert equal("47;68;90", "47, 68, 90", "list") and not equal("9" * 5000, "9" * 5000, "number")


# two answers of MATH's kind a line, with a | between them
SAME = r"""
\frac{3}{2}|1.5
3\sqrt{13}|3 \sqrt{13}
(6,31,-1)|(6, 31, -1)
\text{Evelyn}|Evelyn
[-2,7]|[-2, 7]
1 \pm \sqrt{19}|1+\sqrt{19}, 1-\sqrt{19}
1 \pm \sqrt{19}|1 - \sqrt{19} \text{ or } 1 + \sqrt{19}
x^3+3x-6|x^{3} + 3x - 6
x^3+3x-6|3x - 6 + x^3
10\%|10
\$18.90|18.9
\frac{\sqrt{3}}{2}|\sqrt{3}/2
\frac{\sqrt{3}}{2}|sqrt(3)/2
\dfrac{\sqrt3}{2}|\frac{\sqrt{3}}{2}
\frac12|0.5
-\frac{1}{2}|\frac{-1}{2}
-\frac{\sqrt{3}}{2}|\frac{-\sqrt{3}}{2}
\{1,2\}|\{2, 1\}
1,-2|-2, 1
1,-2|x=1 or x=-2
1,-2|x=1,x=-2
x = 1 \pm \sqrt{2}|1+\sqrt{2}, 1-\sqrt{2}
\frac{-1 \pm \sqrt{5}}{2}|\frac{-1+\sqrt5}{2}, \frac{-1-\sqrt{5}}{2}
\{1\pm\sqrt{5},-2\}|\{-2, 1-\sqrt{5}, 1+\sqrt{5}\}
3\sqrt{13} \text{ units}|3\sqrt{13}
12\pi \text{ square inches}|12\pi
4\sqrt3\text{ cm}^2|4\sqrt{3}
15\mbox{ cm}^2|15
5.4 \text{ cents}|5.4
\frac{270}7\text{ degrees}|\frac{270}{7}
8 \text{ square units}|8
\$32,348|32348
1{,}008|1008
\textbf{(C)}|C
6r^2-4r-24|-24 + 6r^2 - 4r
52_8|52_{8}
x=1, y=2|x = 1 \text{ and } y = 2
x=5|5
5|x = 5
90^\circ|90
90^\circ|90 degrees
5\text{ cm}|5
5\text{ cm}^2|5
(-\infty,1)\cup(2,\infty)|(2,\infty) \cup (-\infty, 1)
\left(\frac{1}{2},\infty\right)|(1/2, \infty)
\boxed{\frac{1}{2}}|\frac{1}{2}
\boxed{\frac{\sqrt{3}}{2}}|\frac{\sqrt{3}}{2}
$x = \boxed{5}$|5
The answer is \boxed{(1,2)}|(1,2)
\text{(A)}|A
(A)|A
1,200|1{,}200
2\pi|2 \pi
2\pi|2π
\frac{2\pi}{3}|2\pi/3
\frac{x+1}{2}|(x+1)/2
2^{10}|2^10
\sqrt{2}+1|1+\sqrt{2}
1011_2|1011_{2}
\begin{pmatrix} 1 \\ 2 \end{pmatrix}|\begin{pmatrix}1\\2\end{pmatrix}
\frac{3}{2x}|3/(2x)
2\cdot x|2x
x \in [1,2]|[1,2]
\text{even}|even
y = 2x+3|2x+3
\frac{1}{n+1}|1/(n+1)
\sqrt[3]{2}|\sqrt[3]{2}
\tfrac{7}{3}|\frac73
11\sqrt2|11\sqrt{2}
\left[-2,7\right]|[-2,7]
(3,\frac{\pi}{2})|(3, \pi/2)
\left( 3, \frac{\pi}{2} \right)|(3,\frac{\pi}{2})
6 - 5i|6-5i
$\frac{1}{2}$|\frac{1}{2}
-5|−5
2\frac{1}{2}|\frac{5}{2}
50\%|50
.5|0.5
\text{Monday}|monday
p - q|p-q
10|10 \text{ inches}
10|10\mbox{ inches}
2x^2|2*x^2
2x^2|2x**2
\frac{1}{x}|1/x
\{0\}|\{0\}
42.|42
\emptyset|\emptyset
\frac{14}{3}|\frac{28}{6}
x+2y|2y+x
"""
DIFFERENT = r"""
1|2
(1,2)|(2,1)
(1,2)|[1,2]
(1,2)|1,2
[1,2)|[1,2]
\sqrt{8}|2\sqrt{2}
2+2|4
\sqrt{16}|4
3^2|9
\{1,2\}|\{1,3\}
\{1,2\}|\{1,2,3\}
x+1|x-1
x-1|1-x
\frac{1}{2}|\frac{2}{1}
\frac{3}{2x}|\frac{3}{2}x
\frac{3}{2x}|3/2x
2^{10}|210
x^{12}|x^12x
\sqrt{3}/2|\frac{2}{\sqrt{3}}
5|-5
\text{Evelyn}|Eve
1 \pm \sqrt{19}|1 + \sqrt{19}
5x|5
5m|5
m^2|m
5|5 or 6
(5)(6)|56
2(5)|25
1011_2|1011
1:2|\frac{1}{2}
(-1)^2|-1^2
\sqrt{5}|5
\frac{\sqrt{5}}{1}|\sqrt{5}1
\begin{pmatrix} 1 \\ 2 \end{pmatrix}|\begin{pmatrix} 2 \\ 1 \end{pmatrix}
x < 5|x > 5
x \le 5|x < 5
\infty|-\infty
(2,\infty)|(2,-\infty)
x=1|x\neq 1
1\frac{1}{2}|\frac{11}{2}
\pi|3.14
2\pi|2
f(x)|x
3x+2|3x-2
a-b|b-a
a-b|a+b
-a-b|a-b
x-(y+z)|x-y+z
100,200|100, 200
\frac{x}{2}+1|\frac{x}{2+1}
x=1, y=2|x=2, y=1
x=1, y=2|1, 2
5m^2|5
1 \pm \sqrt{5}|1 \pm \sqrt{6}
x \text{ units}|y \text{ units}
2x^2-3|2x^2+3
52_8|52_7
e^{x+1}|e^x+1
3!|3
"""


def pairs(table):
    return [line.split("|") for line in table.strip().splitlines()]


@pytest.mark.parametrize("one, other", pairs(SAME))
def test_answers_of_math_that_are_equal(one, other):
    assert equal(one, other, "math") and equal(other, one, "math"), (read_math(one), read_math(other))
    assert hash(value_of(one, "math")) == hash(value_of(other, "math"))


@pytest.mark.parametrize("one, other", pairs(DIFFERENT))
def test_answers_of_math_that_are_not_equal(one, other):
    assert not equal(one, other, "math") and not equal(other, one, "math"), read_math(one)


@pytest.mark.parametrize("kind", ["number", "text", "list", "math", "code"])
def test_odd_answers_end_in_time(kind):
    """Nothing that a model writes raises an error or takes long."""
    pieces = ["*", "(", "{", "[(", "\\frac", "\\sqrt{", "\\frac{1}{", "\\boxed{", "1,", "1/", "_"]
    for piece in [*pieces, "- ", "$", "\0", "\u00b1", "\u222a"]:
        for size in 190, 4000:
            text = (piece * size)[:size]
            start = time.perf_counter()
            equal(f"{text}1{text[::-1]}", f"1{text}2", kind)
            assert time.perf_counter() - start < 5, (piece, size)


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
        "def f(x): return [x + 1]",
        "def f(x): return float('nan')",
        "class f(int):\n    def __ne__(self, other): return False\n    def __eq__(self, other): return True",
        "class A:\n    def __eq__(self, other): return True\nf = lambda x: A()",
        "def f(x):\n    x = []\n    x.append(x)\n    return x",
        "class f(int):\n    def __eq__(self, other): return True",
        "import os\nos._exit(0)",
        "def f(x): return True",
        "def f(x)",
    ]
    assert [hole for hole in holes if score(hole)["tests"]] == []
    assert task.score(CODE, write_reply("I write.", CODE["answer"]))["right"] is True
    task.sandbox.close()


FENCES = [
    "```python\n{}\n```",
    "```py\n{}\n```",
    "```Python\n{}\n```",
    "```python3\n{}\n```",
    "```\n{}\n```",
    "``` python\n{}\n```",
    "```python\r\n{}\r\n```",
    "```python\n{}",
    "Here it is:\n```python\n{}\n```\nIt adds one.",
    "{}",
]


@pytest.mark.parametrize("fence", FENCES)
def test_code_in_fences(fence):
    code = "import sys, math\ndef f(x):\n    return x + 1"
    assert read_code(fence.format(code)).strip() == code
    assert value_of(fence.format(" "), "code") is None or fence == "{}"


# line of MBPP's kind, what the function gives, whether Python's == finds them equal
VERDICTS = [
    ("assert f() == 4", "4.0", True),
    ("assert f() == 4.0", "4", True),
    ("assert f() == True", "1", True),
    ("assert f() == 4", "5", False),
    ("assert f() == {'a': 1, 'b': 2}", "dict(b=2, a=1)", True),
    ("assert f() == {'a': 2, 'b': 1}", "collections.Counter('aab')", True),
    ("assert f() == {'a': 2, 'b': 1}", "collections.Counter('aabb')", False),
    ("assert f() == {1: [2]}", "collections.defaultdict(list, {1: [2]})", True),
    ("assert f() == {1: 2, 3: 4}", "collections.OrderedDict([(3, 4), (1, 2)])", True),
    ("assert f() == {1, 2, 3}", "{3, 2, 1}", True),
    ("assert f() == {1, 2, 3}", "frozenset([1, 2, 3])", True),
    ("assert f() == {1, 2, 3}", "[1, 2, 3]", False),
    ("assert f() == {(1, 2): {3}}", "{(1, 2): {3.0}}", True),
    ("assert f() == (1+2j)", "complex(1, 2)", True),
    ("assert f() == (1+2j)", "complex(1, -2)", False),
    ("assert f() == [1, 2]", "(1, 2)", False),
    ("assert f() == [1, 2]", "collections.deque([1, 2])", False),
    ("assert f() == '1'", "1", False),
    ("assert f() == sys", "sys", None),
    ("assert f() == 9223372036854775807", "sys.maxsize", True),
    ("assert f() == set('abcdefgh')", "set('abcdefgh')", None),
    ("assert f() == {'a', 'b', 'c', 'd', 'e'}", "set('abcde')", True),
    ("assert f() == {'a': 1, 'b': 1, 'c': 1}", "{x: 1 for x in set('abc')}", True),
    ("assert f() == None", "None", True),
    ("assert f() == 0", "None", False),
]


@runs_programs
def test_results_are_compared_as_mbpp_compares_them():
    task = Reasoning()
    for test, value, right in VERDICTS:
        if right is None:
            assert read_test(test) is None
        else:
            code = f"import collections, sys\ndef f(): return {value}"
            assert task.pass_rate([test], code) == right, (test, value)
    task.sandbox.close()


@runs_programs
@pytest.mark.slow
def test_references_of_mbpp_pass():
    """At least 960 of the 967 reference programs that the reader keeps. PARLOR_DATA: a folder with
    reasoning/mbpp.jsonl, the 974 rows as they were published."""
    path = Path(os.environ.get("PARLOR_DATA", "nowhere"), "reasoning", "mbpp.jsonl")
    if not path.exists():
        pytest.skip(f"no {path}")
    dropped = Counter()
    rows = list(read_traces(str(path), "", dropped))
    assert len(rows) == 967 and dropped.total() == 7
    task = Reasoning()
    failed = [row["where"] for row in rows if task.pass_rate(row["tests"], row["answer"]) < 1]
    task.sandbox.close()
    assert len(failed) <= 7, failed


def test_every_answer_of_the_world_equals_itself():
    for row in Reasoning(Options(tests=400, level=0)).examples("test"):
        assert row["kind"] == "open" or equal(row["answer"], row["answer"], row["kind"]), row


def test_rewards_follow_the_kind_of_the_row():
    task = Reasoning()
    assert set(task.score(SUM, GOOD)["parts"]) == {"format", "exact"}
    open_question = {"question": "What is good about snow?", "answer": "x", "kind": "open"}
    result = task.score(open_question, GOOD)
    assert (result["parts"], result["score"], result["right"]) == ({"format": 1.0}, 1.0, None)
