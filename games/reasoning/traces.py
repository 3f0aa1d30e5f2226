"""Reasoning traces from the user's data: all known forms as rows {"question", "reasoning", "answer", "kind"}.

Forms, told apart by their columns (JSON lines, CSV, Parquet, a folder or a Hub data set: games/rows.py):

    {"prompt", "response"}      a trace between <think> or <reasoning> tags, then the answer (Glaive's)
    {"question", "answer"}      GSM8K: steps, then "#### 18"
    {"text", "code", "test_list"}            MBPP: the reply is Python, judged by its tests
    {"question", "reasoning", "answer"}      our own; also "kind": number, text, list or open
    {"question", "chosen", "rejected"}       replies to prefer, for --loss dpo
    {"question", "reply", "good"}            a reply and whether it is good, for --loss kto

Read read_traces first, then a reader for each form; the table of them is at the end."""

import ast
import re

from games.rows import read_rows

PAIR = re.compile(r"<(think|reasoning)>(.*?)</\1>", re.S | re.I)
ANY_TAG = re.compile(r"</?(?:think|reasoning|answer)>", re.I)
SHOWN_TESTS = 3  # in a prompt: without one the name of the function cannot be known


class Bad(ValueError):
    """A row that teaches the wrong thing: why, in words that are counted."""


def read_traces(source, rows, dropped, salvage=False, split="train"):
    """Yield the good rows of a source; dropped, a Counter, counts the others by reason. salvage=True makes
    what can be made of bad ones, as the published system did: text without tags is its own trace, a trace
    without an answer ends in one."""
    for where, row in read_rows(source, rows, (), split):
        columns = next((columns for columns in READERS if {*columns} <= {*row}), None)
        if not columns:
            forms = "; ".join(", ".join(columns) for columns in READERS)
            raise ValueError(f"{where}: columns {', '.join(row)} are none of: {forms}")
        for name in columns:
            kind = {"good": bool, "test_list": list}.get(name, str)
            if not isinstance(row[name], kind):
                raise ValueError(f"{where}: {name!r} is missing or not a {kind.__name__}")
        try:
            yield READERS[columns](row, salvage) | {"where": where}
        except Bad as error:
            dropped[str(error)] += 1
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def read_own(row, salvage):
    kept = {name: row[name].strip() for name in ("question", "reasoning", "answer")}
    kind = row.get("kind", "text")
    if not kept["question"]:
        raise Bad("no question")
    if not kept["answer"] and kind != "open":
        raise Bad("no answer")
    if ANY_TAG.search(kept["reasoning"] + kept["answer"]):
        raise Bad("tags inside the trace or the answer")
    if kind not in ("number", "text", "list", "open"):
        raise ValueError(f"kind {kind!r} must be number, text, list or open")
    return kept | {"kind": kind}


def read_think(row, salvage):
    """One pair of tags; the answer is what stands outside it."""
    response = row["response"]
    pair = PAIR.search(response)
    reasoning = pair[2].strip() if pair else ""
    answer = PAIR.sub("", response, count=1).strip()
    if not pair and not salvage:
        raise Bad("no pair of think tags")
    if ANY_TAG.search(reasoning + answer):
        raise Bad("more tags than one pair")
    if not pair:
        reasoning = answer[:500]
    if not reasoning:
        raise Bad("an empty trace")
    if not answer and not salvage:
        raise Bad("no answer after the trace")
    if not row["prompt"].strip():
        raise Bad("no question")
    answer = answer or re.split(r"(?<=[.!?])\s+", reasoning)[-1]
    return {"question": row["prompt"].strip(), "reasoning": reasoning, "answer": answer, "kind": "open"}


def read_gsm8k(row, salvage):
    """The calculator marks <<48/2=24>> go; the answer is what follows ####."""
    steps, mark, answer = row["answer"].rpartition("####")
    if not mark:
        raise Bad("no #### before the answer")
    reasoning = re.sub(r"<<.*?>>", "", steps).strip()
    answer = answer.strip().replace(",", "")
    if not reasoning or not answer:
        raise Bad("no steps" if answer else "no answer")
    return {"question": row["question"].strip(), "reasoning": reasoning, "answer": answer, "kind": "number"}


def read_mbpp(row, salvage):
    """A task whose tests are calls with literals; the answer is Python."""
    tests = [read_test(line) for line in row["test_list"]]
    if not tests or None in tests or (row.get("test_setup_code") or "").strip():
        raise Bad("tests that are not calls of a function with plain values")
    shown = "\n".join(row["test_list"][:SHOWN_TESTS])
    question = f"{row['text'].strip()}\nThe code must pass these tests:\n{shown}"
    code = row["code"].replace("\r\n", "\n").strip()
    return {"question": question, "reasoning": "", "answer": code, "kind": "code", "tests": tests}


def read_test(line):
    """(function, [arguments], expected) of `assert f(1, [2]) == 3`, or None: values are read, never run."""
    try:
        (statement,) = ast.parse(line.strip()).body
        comparison = statement.test
        call, (expected,) = comparison.left, comparison.comparators
        equality = isinstance(statement, ast.Assert) and isinstance(comparison.ops[0], ast.Eq)
        if not equality or call.keywords:
            return None
        return call.func.id, [ast.literal_eval(part) for part in call.args], ast.literal_eval(expected)
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        return None


def read_preference(row, salvage):
    if row["chosen"] == row["rejected"]:
        raise Bad("chosen and rejected are the same")
    return {name: row[name] for name in ("question", "chosen", "rejected")} | {"kind": "open"}


def read_judged(row, salvage):
    return {name: row[name] for name in ("question", "reply", "good")} | {"kind": "open"}


READERS = {  # columns of each form -> its reader (row, salvage); the most telling columns first
    ("question", "chosen", "rejected"): read_preference,
    ("question", "reply", "good"): read_judged,
    ("question", "reasoning", "answer"): read_own,
    ("text", "code", "test_list"): read_mbpp,
    ("prompt", "response"): read_think,
    ("question", "answer"): read_gsm8k,
}
