"""Reasoning: a model thinks aloud and then answers, <reasoning>...</reasoning> and <answer>...</answer>.

answers.py says what counts as an answer and what it is worth, traces.py reads rows of the user's data,
world.py makes the embedded problems. Here: where examples come from, what they teach, how replies are
evaluated."""

import re
import zlib
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np

from games.reasoning import world
from games.reasoning.answers import (
    equal,
    normalise,
    parse,
    parse_growing,
    read_number,
    read_weights,
    rewards_of,
    weigh,
    write_reply,
)
from games.reasoning.traces import read_traces
from games.sandbox.sandbox import SAFE, Job, Sandbox, level
from games.stats import pass_at, wilson
from games.task import (
    Chat,
    Collects,
    Episode,
    EvaluatesRecords,
    Evaluation,
    Interactive,
    Judged,
    Pair,
    Task,
    flag,
)

HASTY = 0.65  # share of the world's traces that state an answer without working, mostly a wrong one
SYSTEM = """Think before you answer. Write your thoughts between <reasoning> and </reasoning>, then the \
final answer alone between <answer> and </answer>."""
RUBRIC = """You grade an answer that somebody gave to a question. Read the question, the thoughts and the \
answer. Give up to 4 points if the answer is right and to the point, up to 3 if the thoughts lead to it step \
by step without mistakes, up to 2 if everything that was asked for is there, and 1 if it is short and clear. \
Reply with the sum, a number from 0 to 10, and nothing else."""


@dataclass
class Options:
    # your own rows | train eval play collect rows
    data: str = ""  # rows of traces, GSM8K, MBPP or your own (games/reasoning/traces.py); else the world's
    rows: str = ""  # slice of --data, such as 0:180000
    test_data: str = ""  # rows to evaluate on; else a twentieth of --data, kept from training
    on_bad_row: Literal["drop", "salvage"] = "drop"  # rows without tags or answer; salvage repairs them
    overlong: Literal["drop", "trim-reasoning", "truncate"] = "drop"  # what to do with rows over --max-tokens
    system: str = ""  # system prompt; "tags" asks for the two pairs of tags
    # embedded problems | train eval play collect
    level: Literal[0, 1, 2, 3] = 1  # difficulty; 0 mixes them
    problems: int = 20_000  # training problems in an epoch
    tests: int = 400  # test problems, a quarter in sentences that training never shows
    # scores | train eval collect rows
    rewards: str = "format:0.2,exact:1,tests:1"  # parts of the score and their weights
    seconds: float = 2.0  # time limit for the code in an answer
    unsafe_exec: bool = flag(False, cosmetic=True)  # run code on a machine that cannot lock it in
    # a judge | eval
    judge: str = flag("", agent="reply", max_new=16, endpoint={"model": "judge_model"})  # model that grades
    judge_model: str = ""  # its name at an endpoint (https://.../v1), whose key is in PARLOR_KEY


class Reasoning(EvaluatesRecords, Collects, Interactive, Task):
    Options = Options
    pre_tokens = (
        r"</?(?:reasoning|answer)>|[0-9]| ?[A-Za-z]+|\s|[^\sA-Za-z0-9]"  # a tag is a token, a digit too
    )
    evaluation = Evaluation(max_new=512)

    def __init__(self, options=None, seed=0, kind=Chat):
        super().__init__(options, seed, kind)
        self.weights = read_weights(self.options.rewards)
        self.splits = self.read_data() if self.options.data else {}

    # -------------------------------------------------------------------------------------------- examples
    def read_data(self):
        """{split: rows}: those of --test-data, or a twentieth of --data by its question, are for testing."""
        rows = list(self.read_rows(self.options.data, self.options.rows, "train"))
        if self.options.test_data:
            test = list(self.read_rows(self.options.test_data, "", "test"))
        else:
            test = [row for row in rows if zlib.crc32(row["question"].encode()) % 20 == 0]
        questions = {row["question"] for row in test}
        train = [row for row in rows if row["question"] not in questions]
        if self.options.test_data and len(train) < len(rows):
            self.dropped["questions of the test rows"] = len(rows) - len(train)
        return {"train": train, "valid": test, "test": test}

    def read_rows(self, source, rows, split):
        """Yield the good rows of a source, without code where that cannot be run; the others are counted."""
        salvage = self.options.on_bad_row == "salvage"
        for row in read_traces(source, rows, self.dropped, salvage, split):
            if row["kind"] == "code" and not (self.options.unsafe_exec or level()[0] in SAFE):
                self.dropped["code, which this machine cannot run locked in (--unsafe-exec)"] += 1
            else:
                yield row

    def examples(self, split):
        """Rows of the user's data; or problems of the world, those to train on as numbers."""
        if split not in self.splits:
            self.splits[split] = self.world_examples(split)
        return self.splits[split]

    def world_examples(self, split):
        """Numbers of problems to train on; or those for evaluation, problem i by (seed, split, i)."""
        if split == "train":
            return [{"number": i} for i in range(self.options.problems)]
        problems = []
        for i in range(self.options.tests):
            rng = np.random.default_rng([self.seed, 1 if split == "test" else 2, i])
            problems.append(self.draw(rng, True, unseen=split == "test" and i % 4 == 3))
        return problems

    def draw(self, rng, held_out, unseen=False):
        """A problem of the world whose question is held out from training, or not."""
        while True:
            problem = world.make(rng, None, self.options.level or None, unseen)
            if world.held_out(problem["question"]) == held_out:
                return {**problem, "unseen": unseen}

    def problem(self, example, rng=None):
        """The example, or the world's problem of its number; another one each time where rng is given."""
        if "question" in example:
            return example
        rng = np.random.default_rng([self.seed, 3, example["number"]]) if rng is None else rng
        return {**example, **self.draw(rng, False)}

    def prompt(self, example):
        question = {"role": "user", "content": self.problem(example)["question"]}
        system = SYSTEM if self.options.system == "tags" else self.options.system
        return [{"role": "system", "content": system}, question] if system else [question]

    # -------------------------------------------------------------------------------------------- training
    def items(self, example, rng):
        """What a row teaches: a Pair (for a loss of Judged replies both of them, judged) or a Judged reply
        where it has them, else its trace and answer."""
        row = self.problem(example, rng)
        messages = self.prompt(row)
        if "chosen" in row and self.kind is Judged:
            return [Judged(messages, row["chosen"], True), Judged(messages, row["rejected"], False)]
        if "chosen" in row:
            return [Pair(messages, row["chosen"], row["rejected"])]
        if "reply" in row:
            return [Judged(messages, row["reply"], row["good"])]
        reasoning, answer = row.get("reasoning") or row.get("trace", ""), row["answer"]
        if "family" in row and rng.random() < HASTY:
            reasoning, answer = world.hasty(row, rng)
        chat = trace_chat(messages, reasoning, answer)
        if self.options.overlong != "drop":
            chat.shorten = lambda fits: shorten(messages, reasoning, answer, self.options.overlong, fits)
        return [chat]

    def texts(self):
        rng = np.random.default_rng([self.seed, 4])
        items = [item for example in self.examples("train")[:5000] for item in self.items(example, rng)]
        return [message["content"] for item in items for message in item.messages]

    # -------------------------------------------------------------------------------------------- play
    def score(self, example, text, finished=True):
        """How a reply counts: the form at three levels, whether it is right, and the score."""
        parsed = parse(text)
        row = self.problem(example)
        kind = row["kind"]
        right = None
        if kind == "code":
            right = self.pass_rate(row["tests"], parsed.answer) if parsed.answer else 0.0
        elif kind != "open":
            right = equal(parsed.answer, row["answer"], kind)
        score, parts = weigh(self.weights, rewards_of(kind, parsed.strict and finished, right))
        return {
            "score": score,
            "parts": parts,
            "loose": parsed.loose,
            "strict": parsed.strict,
            "closed": finished,
            "right": None if right is None else right == 1,
            "answer": parsed.answer,
        }

    @cached_property
    def box(self):
        """The sandbox, from the first answer that is code."""
        return Sandbox(self.options.seconds, unsafe=self.options.unsafe_exec)

    def pass_rate(self, tests, answer):
        """The share of unit tests that Python code passes in the sandbox; the values are compared here."""
        fence = re.search(r"```(?:python)?\n(.*?)```", answer, re.S)
        code = fence[1] if fence else answer
        results = self.box.confirm([Job(code, [(name, arguments)]) for name, arguments, _ in tests])
        passed = [repr(result.values) == repr([expected]) for result, (*_, expected) in zip(results, tests)]
        return sum(passed) / len(tests)

    def ask(self, examples, player, n=1):
        """Yield (row, [(reply, how it counts), ...]) of each example, with n replies."""
        rows = [self.problem(example) for example in examples]
        prompts = [self.prompt(row) for row in rows for _ in range(n)]
        replies = iter(player.reply(prompts))
        for row in rows:
            own = [reply for reply, *_ in islice(replies, n)]
            yield row, [(reply, self.score(row, reply.text, reply.finished)) for reply in own]

    def play(self, examples, player):
        """One sampled reply each."""
        episodes = []
        for row, [(reply, result)] in self.ask(examples, player):
            parts = result["parts"]
            scores = {name: parts.get(name) for name in self.weights}
            turns = [{"reply": reply.text, "score": result["score"], **parts}]
            episodes.append(Episode(row, turns, [reply], result["score"], scores))
        return episodes

    def attempt(self, examples, players):
        """(place, record) of each example: its n replies and how they count."""
        records = []
        for row, answers in self.ask(examples, players.player, players.n):
            replies = [{"text": reply.text, "tokens": len(reply.ids), **result} for reply, result in answers]
            records.append({**row, "replies": replies})
        if "judge" in players.named:
            grade(players.named["judge"], records)
        return enumerate(records)

    def collected(self, record):
        """The best and the worst of the replies as a pair to prefer, where their scores differ."""
        ranked = sorted(record["replies"], key=lambda reply: reply["score"])
        worst, best = ranked[0], ranked[-1]
        if best["score"] - worst["score"] < 1e-6:
            return []
        return [{"question": record["question"], "chosen": best["text"], "rejected": worst["text"]}]

    # -------------------------------------------------------------------------------------------- evaluation
    def summary(self, records, players):
        """Right answers (of every reply, of any of k, by vote), the form at three levels, lengths; families
        and unseen sentences apart. pass@k is unbiased."""
        metrics, intervals = {}, {}

        def rate(name, values):
            if values:
                metrics[name] = float(np.mean(values))
                intervals[name] = wilson(sum(values), len(values))

        def rate_right(name, records):
            rate(name, [reply["right"] for reply in replies_of(records)])

        replies = replies_of(records)
        checked = [record for record in records if record["kind"] != "open"]
        rate_right("right", checked)
        for name in ("strict", "loose", "closed"):
            rate(name, [reply[name] for reply in replies])
        rate("strict_closed", [reply["strict"] and reply["closed"] for reply in replies])
        n = players.n
        if n > 1:
            right = [sum(reply["right"] for reply in record["replies"]) for record in checked]
            for k in sorted({2, 4, 8, n} & {*range(n + 1)}):
                rate(f"pass@{k}", [pass_at(n, count, k) for count in right])
            rate("vote", [vote_is_right(record["replies"]) for record in checked])
        for family in sorted({record["family"] for record in checked if "family" in record}):
            rate_right(f"right/{family}", [record for record in checked if record.get("family") == family])
        rate_right("right/unseen sentences", [record for record in checked if record.get("unseen")])
        metrics["tokens"] = float(np.mean([reply["tokens"] for reply in replies])) if replies else 0.0
        grades = [reply["grade"] for reply in replies if reply.get("grade") is not None]
        if grades:  # 95 % by the normal approximation
            mean = float(np.mean(grades))
            error = 1.96 * float(np.std(grades)) / len(grades) ** 0.5
            metrics["grade"] = mean
            intervals["grade"] = (mean - error, mean + error)
            metrics["graded"] = len(grades) / len(replies)
        return {
            "n": len(records),
            "metrics": metrics,
            "intervals": intervals,
            "baselines": {},
            "records": records,
        }

    # -------------------------------------------------------------------------------------------- terminal
    def interact(self, players, read, show, seat, seed):
        """Answer what a person asks; one question of the tests where nobody is there (read is None)."""
        if not read:
            question = self.examples("test")[0]["question"]
            show(question)
            return self.answer(players, question, show)
        for question in iter(read, None):
            if question.strip().lower() in ("quit", "q"):
                return
            self.answer(players, question, show)

    def answer(self, players, question, show):
        """Show the thoughts dimmed as they come, then the answer; for several replies how often each came."""
        n = players.n
        shown = ["", ""]  # thoughts and answer so far

        def watch(_, text):
            for i, part in enumerate(parse_growing(text)):
                if n == 1 and len(part) > len(shown[i]):
                    between = "\n" if i and not shown[i] else ""
                    show(between + part[len(shown[i]) :], dim=not i, end="")
                    shown[i] = part

        replies = players.player.reply([self.prompt({"question": question})] * n, watch=watch)
        counts = Counter(parse(reply.text).answer for reply, *_ in replies).most_common()
        show("" if n == 1 else "\n".join(f"{count} of {n}: {text}" for text, count in counts))


# ------------------------------------------------------------------------------------------------ chats
def trace_chat(messages, reasoning, answer):
    """The Chat that teaches a trace and its answer; code comes without a trace."""
    reply = write_reply(reasoning or "I write the code that the tests ask for.", answer)
    return reply_chat(messages, reply)


def reply_chat(messages, reply):
    return Chat([*messages, {"role": "assistant", "content": reply}], learn="last")


def shorten(messages, reasoning, answer, overlong, fits):
    """The longest Chat that fits: with as many first sentences as leave room for the answer, or (truncate)
    cut off anywhere."""
    reply = write_reply(reasoning, answer)
    sentences = re.split(r"(?<=[.!?])\s+", reasoning)

    def cut(size):
        if overlong == "truncate":
            return reply_chat(messages, reply[:size])
        return trace_chat(messages, " ".join(sentences[: size + 1]), answer)

    longest = len(reply) if overlong == "truncate" else len(sentences) - 1
    sizes = range(longest, 0, -1)  # by bisection the first that fits; where none does, size 0
    return cut(longest - bisect_left(sizes, True, key=lambda size: fits(cut(size))))


# ------------------------------------------------------------------------------------------------ records
def replies_of(records):
    return [reply for record in records for reply in record["replies"]]


def vote_is_right(replies):
    """Whether the most frequent answer is right: self-consistency, arXiv 2203.11171."""
    votes = Counter(normalise(reply["answer"]) for reply in replies if reply["answer"])
    best = max(votes, key=votes.get, default=None)
    return any(reply["right"] and normalise(reply["answer"]) == best for reply in replies)


def grade(judge, records):
    """Put the judge's "grade", 0 to 10, into every reply; None where it gave no number."""
    system = {"role": "system", "content": RUBRIC}
    prompts = []
    for record in records:
        for reply in record["replies"]:
            text = f"Question: {record['question']}\n\nReply: {reply['text']}"
            prompts.append([system, {"role": "user", "content": text}])
    for reply, (words, *_) in zip(replies_of(records), judge.reply(prompts)):
        points = read_number(words.text)
        reply["grade"] = float(points) if points is not None and 0 <= points <= 10 else None
