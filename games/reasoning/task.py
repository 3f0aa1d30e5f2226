"""Reasoning: a model thinks aloud and then answers: <reasoning>...</reasoning>, <answer>...</answer>.

answers.py decides when an answer is right and computes its rewards, traces.py reads rows of the user's data,
world.py makes the embedded problems. This file says where examples come from, what a model learns from them
and how its replies are evaluated."""

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np

from files import read_text
from games.reasoning import world
from games.reasoning.answers import (
    equal,
    parse,
    parse_growing,
    read_code,
    read_number,
    rewards_of,
    value_of,
    write_reply,
)
from games.reasoning.traces import read_test, read_traces
from games.rewards import read_rewards, win_shares
from games.rows import hold_out
from games.sandbox.sandbox import SAFE, Job, Sandbox, level
from games.stats import pass_at, wilson
from games.task import (
    Chat,
    Collects,
    Episode,
    EvaluatesRecords,
    Evaluation,
    HasJudge,
    Interactive,
    Judged,
    Pair,
    Task,
    flag,
)
from terminal import UsageError

HASTY_SHARE = 0.65  # share of the world's traces that state an answer without working, mostly a wrong one
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
    test_data: str = ""  # rows to evaluate on; else a twentieth of --data, kept out of training
    on_bad_row: Literal["drop", "salvage"] = "drop"  # rows without tags or an answer; salvage repairs them
    overlong: Literal["drop", "trim-reasoning", "truncate"] = "drop"  # what to do with rows over --max-tokens
    system: str = ""  # system prompt; "tags" asks for the two pairs of tags
    # embedded problems | train eval play collect
    level: Literal[0, 1, 2, 3] = 1  # difficulty; 0 mixes all levels
    problems: int = 20_000  # training problems in an epoch
    tests: int = 400  # test problems; a quarter have sentences that training never shows
    # scores | train eval collect rows
    rewards: str = flag("format:0.2,exact:1,tests:1", code=True)  # NAME:WEIGHT or FILE.py:FUNCTION:WEIGHT
    seconds: float = 2.0  # time limit for the code in an answer
    unsafe_exec: bool = flag(False, cosmetic=True)  # run code even if this machine cannot lock it in
    # a judge | train eval
    judge: str = flag("", agent="reply", max_new=16, endpoint={"model": "judge_model"})  # model that grades
    rubric: str = ""  # text file that tells the judge how to grade, from 0 to 10; default: our own rubric
    judge_model: str = ""  # its name at an endpoint (https://.../v1), whose key is in PARLOR_KEY


class Reasoning(HasJudge, EvaluatesRecords, Collects, Interactive, Task):
    Options = Options
    # each tag and each digit is a token of its own
    pre_tokens = r"</?(?:reasoning|answer)>|[0-9]| ?[A-Za-z]+|\s|[^\sA-Za-z0-9]"
    evaluation = Evaluation(max_new=512)

    def __init__(self, options=None, seed=0, kind=Chat):
        super().__init__(options, seed, kind)
        self.rewards = read_rewards(self.options.rewards, ("format", "exact", "tests", "judge"))
        self.rubric = read_text(self.options.rubric) if self.options.rubric else RUBRIC
        self.grades = {}  # (question, reply) -> what the judge said of it, from 0 to 10, or None
        self.splits = self.read_data() if self.options.data else {}

    # -------------------------------------------------------------------------------------------- examples
    def read_data(self):
        """{split: rows} of the user's data."""
        options = self.options
        rows = list(self.read_rows(options.data, options.rows, "train"))
        tests = list(self.read_rows(options.test_data, "", "test")) if options.test_data else None
        return hold_out(rows, tests, lambda row: row["question"], self.dropped)

    def read_rows(self, source, rows, split):
        """Yield the good rows of a source; the others are counted. Rows with code count as bad on a machine
        that cannot run it safely."""
        salvage = self.options.on_bad_row == "salvage"
        for row in read_traces(source, rows, self.dropped, salvage, split):
            if row["kind"] == "code" and not (self.options.unsafe_exec or level()[0] in SAFE):
                self.dropped["code, which this machine cannot run locked in (--unsafe-exec)"] += 1
            else:
                yield row

    def examples(self, split):
        """Rows of the user's data, or problems of the world; see world_examples."""
        if split not in self.splits:
            self.splits[split] = self.world_examples(split)
        return self.splits[split]

    def world_examples(self, split):
        """For training only the numbers of problems, which are drawn anew each time; for evaluation the
        problems themselves, where problem i depends on (seed, split, i) alone."""
        if split == "train":
            return [{"number": i} for i in range(self.options.problems)]
        problems = []
        for i in range(self.options.tests):
            rng = np.random.default_rng([self.seed, 1 if split == "test" else 2, i])
            problems.append(self.draw(rng, True, unseen=split == "test" and i % 4 == 3))
        return problems

    def draw(self, rng, held_out, unseen=False):
        """A problem of the world whose question is held out from training, or one whose question is not."""
        while True:
            problem = world.make(rng, None, self.options.level or None, unseen)
            if world.is_held_out(problem["question"]) == held_out:
                return problem | {"unseen": unseen}

    def problem(self, example, rng=None):
        """The example itself, or a problem of the world for its number: with `rng` another one each time,
        without it always the same."""
        if "question" in example:
            return example
        if rng is None:
            rng = np.random.default_rng([self.seed, 3, example["number"]])
        return example | self.draw(rng, False)

    def prompt(self, example):
        question = {"role": "user", "content": self.problem(example)["question"]}
        system = SYSTEM if self.options.system == "tags" else self.options.system
        return [{"role": "system", "content": system}, question] if system else [question]

    # -------------------------------------------------------------------------------------------- training
    def items(self, example, rng):
        """What a row teaches. A row with "chosen" and "rejected" gives a Pair, or two Judged replies if the
        loss learns from these; a row with "reply" gives a Judged reply; any other a Chat with its trace and
        answer."""
        row = self.problem(example, rng)
        messages = self.prompt(row)
        if "chosen" in row:
            if self.kind is Judged:
                return [Judged(messages, row["chosen"], True), Judged(messages, row["rejected"], False)]
            return [Pair(messages, row["chosen"], row["rejected"])]
        if "reply" in row:
            return [Judged(messages, row["reply"], row["good"])]
        # the user's rows have "reasoning", the world's problems "trace"
        reasoning = row.get("reasoning") or row.get("trace", "")
        answer = row["answer"]
        # imitation learns from careful and from hasty traces; reinforcement has to tell them apart
        if "family" in row and rng.random() < HASTY_SHARE:
            reasoning, answer = world.hasty_answer(row, rng)
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
        """The score of a reply and its parts, how well it keeps the form, and whether it is right, which is
        None for an open question."""
        parsed = parse(text)
        row = self.problem(example)
        kind = row["kind"]
        right = None
        if kind == "code":
            right = self.pass_rate(row["tests"], parsed.answer) if parsed.answer else 0.0
        elif kind != "open":
            right = equal(parsed.answer, row["answer"], kind)
        rewards = rewards_of(kind, parsed.strict and finished, right) | self.rewards.own(row, text)
        score, parts = self.rewards.weigh(rewards)
        return {
            "score": score,
            "parts": parts,
            "loose": parsed.loose,
            "strict": parsed.strict,
            "closed": finished,
            # code is right if it passes all of its tests
            "right": None if right is None else right == 1,
            "answer": parsed.answer,
        }

    @cached_property
    def sandbox(self):
        """The sandbox; it starts when the first answer with code is scored."""
        return Sandbox(self.options.seconds, unsafe=self.options.unsafe_exec)

    def pass_rate(self, tests, answer):
        """The share of the unit tests that Python code passes. It runs in the sandbox, but the values are
        compared here, where it cannot forge them."""
        code = read_code(answer)
        tests = [*map(read_test, tests)]
        jobs = [Job(code, [(name, arguments)]) for name, arguments, _ in tests]
        passed = 0
        for result, (_, _, expected) in zip(self.sandbox.confirm(jobs), tests):
            # as MBPP's own asserts compare: 4.0 == 4, True == 1, dicts and sets in any order
            passed += result.values == [expected]
        return passed / len(tests)

    def ask(self, examples, player, n=1):
        """Yield (row, [(reply, its result by `score`), ...]) for each example, with n replies."""
        rows = [self.problem(example) for example in examples]
        prompts = []
        for row in rows:
            prompts += [self.prompt(row)] * n
        replies = iter(player.reply(prompts))
        for row in rows:
            answers = []
            # one prompt, one reply: the n prompts of a row follow each other
            for reply, *_ in islice(replies, n):
                answers.append((reply, self.score(row, reply.text, reply.finished)))
            yield row, answers

    def play(self, examples, player):
        """One sampled reply to each example."""
        episodes = []
        for row, [(reply, result)] in self.ask(examples, player):
            parts = result["parts"]
            scores = {name: parts.get(name) for name in self.rewards.weights}
            turns = [{"reply": reply.text, "score": result["score"], **parts}]
            episodes.append(Episode(row, turns, [reply], result["score"], scores))
        return episodes

    def judge_flag(self):
        needed = "judge" in self.rewards.weights
        if needed != bool(self.options.judge):
            raise UsageError(
                "a judge that rewards needs both --rewards judge:1 and --judge, the model that grades"
            )
        return "judge" if needed else ""

    def grade(self, episodes, judge):
        """Ask the judge about the replies that it has not seen. Where it gives no grade, the reward is
        unknown. A reward model's grades are compared among the replies to each question."""
        pairs = [(game.example["question"], game.turns[0]["reply"]) for game in episodes]
        unseen = [pair for pair in dict.fromkeys(pairs) if pair not in self.grades]
        self.grades |= zip(unseen, ask_judge(judge, self.rubric, unseen))
        grades = [self.grades[pair] for pair in pairs]
        if hasattr(judge, "scores"):
            opinions = win_shares(grades, [question for question, _ in pairs])
        else:
            opinions = [None if points is None else points / 10 for points in grades]
        for game, opinion in zip(episodes, opinions):
            rewards = {name: value for name, value in game.scores.items() if value is not None}
            rewards["judge"] = opinion
            game.reward, parts = self.rewards.weigh(rewards)
            game.scores |= parts
            game.turns[0] |= {"score": game.reward, **parts}

    def attempt(self, examples, players):
        """(place, record) for each example: the row with its n replies and their results."""
        records = []
        for row, answers in self.ask(examples, players.player, players.n):
            replies = [{"text": reply.text, "tokens": len(reply.ids), **result} for reply, result in answers]
            records.append(row | {"replies": replies})
        if "judge" in players.named:
            pairs = [(record["question"], reply["text"]) for record in records for reply in record["replies"]]
            points = ask_judge(players.named["judge"], self.rubric, pairs)
            for reply, grade in zip(replies_of(records), points):
                reply["grade"] = grade
        return enumerate(records)

    def collected(self, record):
        """The best and the worst reply as a pair for --loss dpo; nothing if all scores are equal."""
        ranked = sorted(record["replies"], key=lambda reply: reply["score"])
        worst = ranked[0]
        best = ranked[-1]
        if best["score"] - worst["score"] < 1e-6:
            return []
        return [{"question": record["question"], "chosen": best["text"], "rejected": worst["text"]}]

    # -------------------------------------------------------------------------------------------- evaluation
    def summary(self, records, players):
        """The shares of right answers (of single replies, of any among k, by vote), the form at three levels,
        the lengths, and the right answers for each family and for unseen sentences. pass@k is unbiased."""
        metrics = {}
        intervals = {}

        def add_rate(name, values):
            if values:
                metrics[name] = float(np.mean(values))
                intervals[name] = wilson(sum(values), len(values))

        def add_right(name, records):
            add_rate(name, [reply["right"] for reply in replies_of(records)])

        replies = replies_of(records)
        checked = [record for record in records if record["kind"] != "open"]
        add_right("right", checked)
        for name in ("strict", "loose", "closed"):
            add_rate(name, [reply[name] for reply in replies])
        add_rate("strict_closed", [reply["strict"] and reply["closed"] for reply in replies])

        n = players.n
        if n > 1:
            right_counts = []
            for record in checked:
                right_counts.append(sum(reply["right"] for reply in record["replies"]))
            for k in sorted({2, 4, 8, n} & {*range(n + 1)}):
                add_rate(f"pass@{k}", [pass_at(n, count, k) for count in right_counts])
            add_rate("vote", [vote_is_right(record) for record in checked])

        # the user's rows have no family and no unseen sentences: then these rates are left out
        for family in sorted(world.FAMILIES):
            add_right(f"right/{family}", [record for record in checked if record.get("family") == family])
        add_right("right/unseen sentences", [record for record in checked if record.get("unseen")])

        metrics["tokens"] = float(np.mean([reply["tokens"] for reply in replies])) if replies else 0.0
        grades = [reply["grade"] for reply in replies if reply.get("grade") is not None]
        if grades:
            # 95 % by the normal approximation
            mean = float(np.mean(grades))
            error = 1.96 * float(np.std(grades)) / len(grades) ** 0.5
            metrics["grade"] = mean
            intervals["grade"] = (mean - error, mean + error)
            # a judge may give no number
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
        """Answer a person's questions; with nobody there (read is None) answer one test question."""
        if not read:
            question = self.examples("test")[0]["question"]
            show(question)
            return self.answer(players, question, show)
        for question in iter(read, None):
            if question.strip().lower() in ("quit", "q"):
                return
            self.answer(players, question, show)

    def answer(self, players, question, show):
        """Show the thoughts dimmed as they come, then the answer; with several replies only how often each
        answer came."""
        n = players.n
        shown = ["", ""]  # thoughts and answer so far

        def watch(_, text):
            for i, part in enumerate(parse_growing(text)):
                if n == 1 and len(part) > len(shown[i]):
                    # the answer begins on a new line
                    between = "\n" if i and not shown[i] else ""
                    show(between + part[len(shown[i]) :], dim=not i, end="")
                    shown[i] = part

        replies = players.player.reply([self.prompt({"question": question})] * n, watch=watch)
        answers = [parse(reply.text).answer for reply, *_ in replies]
        # the question has no kind: "18 dollars" may count as 18, a sentence with a number counts as text
        short = all(len(answer.split()) < 3 for answer in answers)
        groups = vote_groups(answers, "number" if short else "text")
        show("" if n == 1 else "\n".join(f"{len(group)} of {n}: {group[0]}" for group in groups))


# ------------------------------------------------------------------------------------------------ chats
def trace_chat(messages, reasoning, answer):
    """The Chat that teaches a trace and its answer. A fixed sentence stands for a trace that is missing, as
    that of code is."""
    reply = write_reply(reasoning or "I answer without working.", answer)
    return reply_chat(messages, reply)


def reply_chat(messages, reply):
    return Chat([*messages, {"role": "assistant", "content": reply}], learn="last")


def shorten(messages, reasoning, answer, overlong, fits):
    """The longest Chat that fits: the first sentences of the trace and the whole answer, or, with "truncate",
    the reply cut off anywhere. If nothing fits, the shortest."""
    reply = write_reply(reasoning, answer)
    sentences = re.split(r"(?<=[.!?])\s+", reasoning)

    def cut(size):
        if overlong == "truncate":
            return reply_chat(messages, reply[:size])
        return trace_chat(messages, " ".join(sentences[: size + 1]), answer)

    longest = len(reply) if overlong == "truncate" else len(sentences) - 1
    # sizes fall, so fits(cut(size)) goes from False to True: bisection finds the first True
    sizes = range(longest, 0, -1)
    return cut(longest - bisect_left(sizes, True, key=lambda size: fits(cut(size))))


# ------------------------------------------------------------------------------------------------ records
def replies_of(records):
    return [reply for record in records for reply in record["replies"]]


def vote_groups(answers, kind):
    """The answers in lists of equal ones, the longest list first: 18 and $18.00 are one answer. An answer
    without a value of its kind counts as text."""
    groups = {}
    for answer in filter(None, answers):
        value = value_of(answer, kind)
        if value is None:
            value = value_of(answer, "text")
        groups.setdefault(value, []).append(answer)
    return sorted(groups.values(), key=len, reverse=True)


def vote_is_right(record):
    """Whether the most frequent answer is right: self-consistency, arXiv 2203.11171."""
    replies = record["replies"]
    groups = vote_groups([reply["answer"] for reply in replies], record["kind"])
    return any(reply["right"] and reply["answer"] in groups[0] for reply in replies)


def ask_judge(judge, rubric, pairs):
    """The judge's grade of each (question, reply), 0 to 10; None if the judge gave no such number. A reward
    model reads them as a chat, without the rubric, and its grades are its scores."""
    if hasattr(judge, "scores"):
        chats = []
        for question, text in pairs:
            chats.append([{"role": "user", "content": question}, {"role": "assistant", "content": text}])
        return judge.scores(chats)[:, 0].tolist()
    system = {"role": "system", "content": rubric}
    prompts = []
    for question, text in pairs:
        prompts.append([system, {"role": "user", "content": f"Question: {question}\n\nReply: {text}"}])
    grades = []
    for verdict, *_ in judge.reply(prompts):
        points = read_number(verdict.text.replace("/10", ""))
        grades.append(float(points) if points is not None and 0 <= points <= 10 else None)
    return grades
