"""Reasoning traces from the user's data: rows of all known forms become {"question", "reasoning", "answer",
"kind"}.

The columns of a row show its form (JSON lines, CSV, Parquet, a folder or a Hub data set: games/rows.py):

    {"prompt", "response"}      a trace between <think> or <reasoning> tags, then the answer (Glaive's)
    {"question", "answer"}      GSM8K: steps, then "#### 18"
    {"problem", "solution", "answer"}        MATH: the answer is LaTeX
    {"text", "code", "test_list"}            MBPP: the reply is Python, judged by its tests
    {"prompt", "code", "test_list"}          MBPP, sanitized
    {"question", "reasoning", "answer"}      our own; also "kind": number, text, list, math or open
    {"question", "answer"}                   our own without a trace, where the answer is a number: 18
    {"question", "chosen", "rejected"}       a preferred reply and a worse one, for --loss dpo
    {"question", "reply", "good"}            a reply and whether it is good, for --loss kto

Start with read_traces, then see the reader of each form; the table of readers is at the end."""

import ast
import re

from games.reasoning.answers import value_of
from games.rows import read_rows
from games.sandbox.plain import pack

PAIR = re.compile(r"<(think|reasoning)>(.*?)</\1>", re.S | re.I)
ANY_TAG = re.compile(r"</?(?:think|reasoning|answer)>", re.I)
SHOWN_TESTS = 3  # tests in a prompt; without any the model could not know the function's name


class BadRow(ValueError):
    """A row that teaches the wrong thing. Its message is the reason by which such rows are counted."""


def read_traces(source, rows, dropped, salvage=False, split="train"):
    """Yield the good rows of a source; `dropped`, a Counter, counts the others by reason. With salvage=True
    some bad rows are repaired, as the published system did: a text without tags becomes its own trace, and
    the last sentence of a trace without an answer becomes the answer."""
    for where, row in read_rows(source, rows, (), split):
        if type(row.get("answer")) in (int, float):
            row = {"reasoning": "", "kind": "number"} | row | {"answer": str(row["answer"])}
        form = next((columns for columns in READERS if {*columns} <= {*row}), None)
        if not form:
            forms = "; ".join(map(", ".join, READERS))
            raise ValueError(f"{where}: the columns {', '.join(row)} match none of: {forms}")
        for name in form:
            kind = {"good": bool, "test_list": list}.get(name, str)
            if not isinstance(row[name], kind):
                raise ValueError(f"{where}: {name!r} is missing or not a {kind.__name__}")
        try:
            trace = READERS[form](row, salvage)
            kind = trace["kind"]
            if kind != "open" and value_of(trace["answer"], kind) is None:
                raise BadRow(f"an answer that is no {kind}, which no reply can equal")
            yield trace | {"where": where}
        # a bad row is counted, any other error ends the reading
        except BadRow as error:
            dropped[str(error)] += 1
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def read_plain(row, salvage):
    """Our own form. An open question needs no answer, as nothing is compared with it."""
    trace = {name: row[name].strip() for name in ("question", "reasoning", "answer")}
    kind = row.get("kind", "text")
    if not trace["question"]:
        raise BadRow("no question")
    if not trace["answer"] and kind != "open":
        raise BadRow("no answer")
    # the reply puts its own tags around both: more of them would break its form
    if ANY_TAG.search(trace["reasoning"] + trace["answer"]):
        raise BadRow("tags inside the trace or the answer")
    if kind not in ("number", "text", "list", "math", "open"):
        raise ValueError(f"kind {kind!r} must be number, text, list, math or open")
    return trace | {"kind": kind}


def read_think(row, salvage):
    """One pair of tags; the text outside it is the answer."""
    response = row["response"]
    pair = PAIR.search(response)
    reasoning = pair[2].strip() if pair else ""
    answer = PAIR.sub("", response, count=1).strip()
    if not pair and not salvage:
        raise BadRow("no pair of think tags")
    if ANY_TAG.search(reasoning + answer):
        raise BadRow("more tags than one pair")
    if not pair:
        # salvaged: the text is the answer, its beginning the trace
        reasoning = answer[:500]
    if not reasoning:
        raise BadRow("an empty trace")
    if not answer and not salvage:
        raise BadRow("no answer after the trace")
    question = row["prompt"].strip()
    if not question:
        raise BadRow("no question")
    # salvaged: the last sentence of the trace
    answer = answer or re.split(r"(?<=[.!?])\s+", reasoning)[-1]
    return {"question": question, "reasoning": reasoning, "answer": answer, "kind": "open"}


def read_gsm8k(row, salvage):
    """Calculator marks such as <<48/2=24>> are removed; the answer follows ####."""
    steps, mark, answer = row["answer"].rpartition("####")
    if not mark:
        raise BadRow("no #### before the answer")
    reasoning = re.sub(r"<<.*?>>", "", steps).strip()
    # 1,300 is learned as 1300
    answer = answer.strip().replace(",", "")
    if not reasoning or not answer:
        raise BadRow("no steps" if answer else "no answer")
    return read_plain(row | {"reasoning": reasoning, "answer": answer, "kind": "number"}, salvage)


def read_math_row(row, salvage):
    question = {"question": row["problem"], "reasoning": row["solution"]}
    return read_plain(question | {"answer": row["answer"], "kind": "math"}, salvage)


def read_mbpp(row, salvage):
    """A task whose tests call a function with literals; the answer is Python code. Imports for the tests are
    not needed, as such tests name no module."""
    tests = row["test_list"]
    # set-up code is never run, so a task that needs it cannot be judged
    if not tests or None in map(read_test, tests) or str(row.get("test_setup_code") or "").strip():
        raise BadRow("tests that are not calls of a function with plain values")
    shown = "\n".join(tests[:SHOWN_TESTS])
    text = row["text"] if "text" in row else row["prompt"]
    question = f"{text.strip()}\nThe code must pass these tests:\n{shown}"
    code = row["code"].replace("\r\n", "\n").strip()
    return {"question": question, "reasoning": "", "answer": code, "kind": "code", "tests": tests}


def read_test(line):
    """(function, [arguments], expected value) of `assert f(1, [2]) == 3`, or None for any other line. The
    values are parsed, never run."""
    try:
        # exactly one statement with exactly one comparison
        (statement,) = ast.parse(line.strip()).body
        comparison = statement.test
        call = comparison.left
        (expected,) = comparison.comparators
        equality = isinstance(statement, ast.Assert) and isinstance(comparison.ops[0], ast.Eq)
        if not equality or call.keywords:
            return None
        arguments = [*map(ast.literal_eval, call.args)]
        test = call.func.id, arguments, ast.literal_eval(expected)
        pack(test)  # what the sandbox cannot take, such as bytes, raises ValueError
        return test
    # a line of another shape lacks these attributes; nesting can exhaust the parser
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        return None


def read_preference(row, salvage):
    if row["chosen"] == row["rejected"]:
        raise BadRow("chosen and rejected are the same")
    return {name: row[name] for name in ("question", "chosen", "rejected")} | {"kind": "open"}


def read_judged(row, salvage):
    return {name: row[name] for name in ("question", "reply", "good")} | {"kind": "open"}


# columns of each form -> its reader (row, salvage); forms with more telling columns come first, as a row may
# have the columns of several
READERS = {
    ("question", "chosen", "rejected"): read_preference,
    ("question", "reply", "good"): read_judged,
    ("question", "reasoning", "answer"): read_plain,
    ("problem", "solution", "answer"): read_math_row,
    ("text", "code", "test_list"): read_mbpp,
    ("prompt", "code", "test_list"): read_mbpp,
    ("prompt", "response"): read_think,
    ("question", "answer"): read_gsm8k,
}
