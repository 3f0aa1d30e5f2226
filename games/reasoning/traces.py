"""Reasoning traces from the user's data: all known forms as rows {"question", "reasoning", "answer", "kind"}.

Forms, told apart by their columns (JSON lines, CSV, Parquet, a folder or a Hub data set: games/rows.py):

    {"prompt", "response"}      a trace between <think> or <reasoning> tags, then the answer (Glaive's)
    {"question", "answer"}      GSM8K: steps, then "#### 18"
    {"text", "code", "test_list"}            MBPP: the reply is Python, judged by its tests
    {"question", "reasoning", "answer"}      our own; also "kind": number, text, list or open
    {"question", "chosen", "rejected"}       replies to prefer, for --loss dpo
    {"question", "reply", "good"}            a reply and whether it is good, for --loss kto"""

import ast
import re

from games.rows import read_rows

PAIR = re.compile(r"<(think|reasoning)>(.*?)</\1>", re.S | re.I)
ANY_TAG = re.compile(r"</?(?:think|reasoning|answer)>", re.I)
FORMS = {  # the columns of each form, the most telling first
    "preference": ("question", "chosen", "rejected"),
    "judged": ("question", "reply", "good"),
    "own": ("question", "reasoning", "answer"),
    "mbpp": ("text", "code", "test_list"),
    "think": ("prompt", "response"),
    "gsm8k": ("question", "answer"),
}
CALLS = 3  # tests that a prompt shows: without one the name of the function cannot be known


class Bad(ValueError):
    """A row that teaches the wrong thing: why, in words that are counted."""


def read_traces(source, rows, drop, salvage=False, split="train"):
    """Yield the rows of a source that are good; drop(reason) counts the others. salvage=True makes what can
    be made of bad ones, as the published system did: text without tags is its own trace, a trace without an
    answer ends in one."""
    for where, row in read_rows(source, rows, (), split):
        form = next((f for f, columns in FORMS.items() if {*columns} <= {*row}), None)
        if not form:
            forms = "; ".join(", ".join(columns) for columns in FORMS.values())
            raise ValueError(f"{where}: columns {', '.join(row)} are none of: {forms}")
        for name in FORMS[form]:
            kind = {"good": bool, "test_list": list}.get(name, str)
            if not isinstance(row.get(name), kind):
                raise ValueError(f"{where}: {name!r} is missing or not a {kind.__name__}")
        try:
            yield READERS[form](row, salvage) | {"where": where}
        except Bad as error:
            drop(str(error))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def own(row, salvage):
    if not row["question"].strip():
        raise Bad("no question")
    if not row["answer"].strip() and row.get("kind") != "open":
        raise Bad("no answer")
    kept = {name: row[name].strip() for name in ("question", "reasoning", "answer")}
    if ANY_TAG.search(kept["reasoning"] + kept["answer"]):
        raise Bad("tags inside the trace or the answer")
    kind = row.get("kind", "text")
    if kind not in ("number", "text", "list", "open"):
        raise ValueError(f"kind {kind!r} must be number, text, list or open")
    return kept | {"kind": kind}


def think(row, salvage):
    """One pair of tags; the answer is what stands outside it."""
    response, found = row["response"], PAIR.search(row["response"])
    reasoning = found[2].strip() if found else ""
    answer = (response[: found.start()] + response[found.end() :]).strip() if found else response.strip()
    if not found and not salvage:
        raise Bad("no pair of think tags")
    if ANY_TAG.search(reasoning + answer):
        raise Bad("more tags than one pair")
    if not found:
        reasoning = answer[:500]
    if not reasoning:
        raise Bad("an empty trace")
    if not answer:
        if not salvage:
            raise Bad("no answer after the trace")
        answer = re.split(r"(?<=[.!?])\s+", reasoning)[-1]
    if not row["prompt"].strip():
        raise Bad("no question")
    return {"question": row["prompt"].strip(), "reasoning": reasoning, "answer": answer, "kind": "open"}


def gsm8k(row, salvage):
    """The calculator marks <<48/2=24>> go; the answer is what follows ####."""
    steps, mark, answer = row["answer"].rpartition("####")
    if not mark:
        raise Bad("no #### before the answer")
    reasoning = re.sub(r"<<.*?>>", "", steps).strip()
    answer = answer.strip().replace(",", "")
    if not reasoning or not answer:
        raise Bad("no steps" if answer else "no answer")
    return {"question": row["question"].strip(), "reasoning": reasoning, "answer": answer, "kind": "number"}


def mbpp(row, salvage):
    """A task whose tests are calls with literals; the answer is Python."""
    tests = [test_of(line) for line in row["test_list"]]
    if not tests or None in tests or (row.get("test_setup_code") or "").strip():
        raise Bad("tests that are not calls of a function with plain values")
    shown = "\n".join(row["test_list"][:CALLS])
    question = f"{row['text'].strip()}\nThe code must pass these tests:\n{shown}"
    code = row["code"].replace("\r\n", "\n").strip()
    return {"question": question, "reasoning": "", "answer": code, "kind": "code", "tests": tests}


def test_of(line):
    """(function, [arguments], expected) of `assert f(1, [2]) == 3`, or None: values are read, never run."""
    try:
        (statement,) = ast.parse(line.strip()).body
        call, (expected,) = statement.test.left, statement.test.comparators
        if (
            not (isinstance(statement, ast.Assert) and isinstance(statement.test.ops[0], ast.Eq))
            or call.keywords
        ):
            return None
        return call.func.id, [ast.literal_eval(part) for part in call.args], ast.literal_eval(expected)
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        return None


def preference(row, salvage):
    if row["chosen"] == row["rejected"]:
        raise Bad("chosen and rejected are the same")
    return {name: row[name] for name in FORMS["preference"]} | {"kind": "open"}


def judged(row, salvage):
    return {name: row[name] for name in FORMS["judged"]} | {"kind": "open"}


READERS = {
    "preference": preference,
    "judged": judged,
    "own": own,
    "mbpp": mbpp,
    "think": think,
    "gsm8k": gsm8k,
}
