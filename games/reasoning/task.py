"""Reasoning: a model thinks aloud and then answers, <reasoning>...</reasoning> and <answer>...</answer>.

Read parse and equal for what counts, REWARDS for what reinforcement learns from, then the task. Rows of the
user's data are read by games/reasoning/traces.py, the embedded problems are worlds/reasoning.py."""

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from games.reasoning import traces as reasoning_rows
from games.reasoning import world
from games.sandbox.sandbox import SAFE, Job, Sandbox, level
from games.task import Chat, Episode, Judged, Pair, Task, pass_at, wilson

TAGS = "<reasoning>", "</reasoning>", "<answer>", "</answer>"
STRICT = re.compile(r"\s*<reasoning>(.*)</reasoning>\s*<answer>(.*)</answer>\s*", re.S)
LOOSE = re.compile(r"<reasoning>(.*?)</reasoning>.*?<answer>(.*?)</answer>", re.S)
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
SYSTEM = """Think before you answer. Write your thoughts between <reasoning> and </reasoning>, then the \
final answer alone between <answer> and </answer>."""
RUBRIC = """You grade an answer that somebody gave to a question. Read the question, the thoughts and the \
answer. Give up to 4 points if the answer is right and to the point, up to 3 if the thoughts lead to it step \
by step without mistakes, up to 2 if everything that was asked for is there, and 1 if it is short and clear. \
Reply with the sum, a number from 0 to 10, and nothing else."""


# ------------------------------------------------------------------------------------------------ what counts
@dataclass
class Parsed:
    reasoning: str = ""
    answer: str = ""
    loose: bool = False  # both pairs of tags are somewhere
    strict: bool = False  # each tag once, in order, nothing outside, nothing empty
    passed: float = 0.0  # of an answer that is code: the share of its unit tests, set by Reasoning.judged


def parse(text):
    """The parts of a reply."""
    found = STRICT.fullmatch(text)
    if found and all(text.count(tag) == 1 for tag in TAGS):
        reasoning, answer = found[1].strip(), found[2].strip()
        return Parsed(reasoning, answer, True, bool(reasoning and answer))
    found = LOOSE.search(text)
    return Parsed(found[1].strip(), found[2].strip(), True) if found else Parsed()


def written(reasoning, answer):
    return f"<reasoning>{reasoning}</reasoning>\n<answer>{answer}</answer>"


def said(messages, reasoning, answer):
    """The Chat that teaches a trace and its answer; code comes without a trace."""
    reply = written(reasoning or "I write the code that the tests ask for.", answer)
    return Chat([*messages, {"role": "assistant", "content": reply}], learn="last")


def number(text):
    """The number in a text that has exactly one, as a Decimal; else None. Currency, units, per cent signs and
    a full stop may stand around it: "$1,200." is 1200."""
    found = {Decimal(one.replace(",", "")) for one in NUMBER.findall(text[:200].replace("\u2212", "-"))}
    return found.pop() if len(found) == 1 and len(text) <= 200 else None


def plain(text):
    return " ".join(text.casefold().strip().rstrip(".!").replace("*", "").replace("`", "").split())


def equal(answer, truth, kind):
    """Whether an answer is the true one: as a number, as a list in order, or as text."""
    if kind == "number":
        return number(answer) is not None and number(answer) == number(truth)
    if kind == "list":
        parts = [
            [plain(part) for part in re.split(r",|;|\band\b|\s", text) if plain(part)]
            for text in (answer, truth)
        ]
        return bool(parts[0]) and parts[0] == parts[1]
    return bool(plain(answer)) and plain(answer) == plain(truth)


# ------------------------------------------------------------------------------------------------ rewards
# (example, Parsed, finished) -> 0..1, or None where the row is of another type
def format_reward(example, found, finished):
    """The form alone: strict, and closed by the model itself."""
    return float(found.strict and finished)


def exact_reward(example, found, finished):
    """The right answer in the right form; of code and open questions nothing."""
    if example["kind"] in ("code", "open"):
        return None
    return float(found.strict and finished and equal(found.answer, example["answer"], example["kind"]))


def tests_reward(example, found, finished):
    """The share of the unit tests that the code in a strict reply passes."""
    if example["kind"] != "code":
        return None
    return found.passed if found.strict and finished else 0.0


REWARDS = {"format": format_reward, "exact": exact_reward, "tests": tests_reward}


# ------------------------------------------------------------------------------------------------ the task
@dataclass
class Options:
    data: str = ""  # rows of traces, GSM8K, MBPP or your own (games/reasoning/traces.py); else the world's
    rows: str = ""  # of --data: a slice such as 0:180000
    test_data: str = ""  # rows to evaluate on; else the twentieth of --data that is not trained on
    on_bad_row: str = "drop"  # rows without tags or answer: drop, or salvage as the published system did
    overlong: str = "drop"  # rows over --max-tokens: drop, trim-reasoning (at a sentence) or truncate
    system: str = ""  # system prompt: "tags" asks for the form, all else is the prompt itself
    level: int = 1  # world: difficulty from 1 to 3; 0 is all
    hasty: float = 0.65  # world: share of the traces that state an answer without working, mostly wrong
    problems: int = 20_000  # world: training problems in an epoch
    tests: int = 400  # world: test problems, a quarter in sentences that training never shows
    rewards: str = "format:0.2,exact:1,tests:1"  # parts of the score and their weights
    judge: str = ""  # eval: grade replies by a model (folder or Hub name) or an endpoint (https://.../v1)
    judge_model: str = ""  # its name at the endpoint; the key is in the environment, PARLOR_KEY
    seconds: float = 2.0  # time of the code in an answer
    unsafe_exec: bool = False  # run code on a machine that can not lock it in


class Reasoning(Task):
    Options = Options
    pieces = r"</?(?:reasoning|answer)>|[0-9]| ?[A-Za-z]+|\s|[^\sA-Za-z0-9]"  # a digit is a token, a tag too
    n, temperature, max_new = 1, 0.0, 512
    idle = ("unsafe_exec",)

    def __init__(self, options=None, seed=0):
        super().__init__(options, seed)
        o = self.options
        for name, value, known in (
            ("on-bad-row", o.on_bad_row, ("drop", "salvage")),
            ("overlong", o.overlong, ("drop", "trim-reasoning", "truncate")),
        ):
            if value not in known:
                raise ValueError(f"--{name} {value}: must be one of {', '.join(known)}")
        self.weights, self.box = {}, None
        for part in o.rewards.split(","):
            name, _, weight = part.partition(":")
            if name not in REWARDS or not re.fullmatch(r"\d*\.?\d+", weight):
                raise ValueError(f"--rewards {part}: must be NAME:WEIGHT (known: {', '.join(REWARDS)})")
            self.weights[name] = float(weight)
        self.splits = self.read_data() if o.data else {}

    # -------------------------------------------------------------------------------------------- rows
    def read_data(self):
        """{split: rows}: those of --test-data, or a twentieth of --data by its question, are for testing."""
        o, splits = self.options, {"train": [], "valid": [], "test": []}
        for row in self.read(o.data, o.rows, "train"):
            held = zlib.crc32(row["question"].encode()) % 20 == 0
            splits["test" if held and not o.test_data else "train"].append(row)
        if o.test_data:
            splits["test"] = list(self.read(o.test_data, "", "test"))
            known = {row["question"] for row in splits["test"]}
            rows = [row for row in splits["train"] if row["question"] not in known]
            for _ in range(len(splits["train"]) - len(rows)):
                self.drop("questions of the test rows")
            splits["train"] = rows
        splits["valid"] = splits["test"]
        return splits

    def read(self, source, rows, split):
        """Yield the good rows of a source, without code where that cannot be run; the others are counted."""
        o = self.options
        for row in reasoning_rows.read_traces(source, rows, self.drop, o.on_bad_row == "salvage", split):
            if row["kind"] == "code" and not (o.unsafe_exec or level()[0] in SAFE):
                self.drop("code, which this machine cannot run locked in (--unsafe-exec)")
            else:
                yield row

    def examples(self, split):
        """Rows of the user's data; or problems of the world, those to train on as numbers."""
        if split not in self.splits:
            self.splits[split] = self.world_problems(split)
        return self.splits[split]

    def world_problems(self, split):
        """Numbers of problems to train on; or those for evaluation, problem i by (seed, split, i)."""
        if split == "train":
            return [{"number": i} for i in range(self.options.problems)]
        stream = 1 + (split == "valid")
        return [
            self.drawn(np.random.default_rng([self.seed, stream, i]), "test", split == "test" and i % 4 == 3)
            for i in range(self.options.tests)
        ]

    def drawn(self, rng, split, unseen=False):
        """A problem of the world whose question belongs to a split."""
        while True:
            problem = world.make(rng, None, self.options.level or None, unseen)
            if world.held_out(problem["question"]) == (split == "test"):
                return {**problem, "unseen": unseen}

    def problem(self, example, rng=None):
        """The example, or the world's problem of its number; another one each time where rng is given."""
        if "question" in example:
            return example
        rng = np.random.default_rng([self.seed, 3, example["number"]]) if rng is None else rng
        return {**example, **self.drawn(rng, "train")}

    # -------------------------------------------------------------------------------------------- training
    def items(self, example, rng):
        """What a row teaches: a Pair (with --loss kto both its replies, judged) or a Judged reply where it
        has them, else its trace and answer."""
        row = self.problem(example, rng)
        messages = self.prompt(row)
        if "chosen" in row and self.item is Judged:
            return [Judged(messages, row["chosen"], True), Judged(messages, row["rejected"], False)]
        if "chosen" in row:
            return [Pair(messages, row["chosen"], row["rejected"])]
        if "reply" in row:
            return [Judged(messages, row["reply"], row["good"])]
        reasoning, answer = row.get("reasoning") or row.get("trace", ""), row["answer"]
        if "family" in row and rng.random() < self.options.hasty:
            reasoning, answer = world.hasty(row, rng)
        chat = said(messages, reasoning, answer)
        if self.length and self.length(chat) > self.max_tokens:
            chat = self.shortened(messages, reasoning, answer)
        return [chat]

    def shortened(self, messages, reasoning, answer):
        """The Chat of a row that is too long, as --overlong says: as it is, which the trainer drops; with as
        many of its first sentences as leave room for the answer; or cut off where the room ends."""
        if self.options.overlong == "drop":
            return said(messages, reasoning, answer)
        sentences, whole = re.split(r"(?<=[.!?])\s+", reasoning), written(reasoning, answer)
        cut, most = lambda k: said(messages, " ".join(sentences[: k + 1]), answer), len(sentences) - 1
        if self.options.overlong == "truncate":
            cut, most = (
                lambda k: Chat([*messages, {"role": "assistant", "content": whole[:k]}], "last"),
                len(whole),
            )
        low, high = 0, most + 1  # the first fits, or nothing does
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if self.length(cut(middle)) <= self.max_tokens else (low, middle)
        return cut(low)

    def prompt(self, example):
        system = {"tags": SYSTEM}.get(self.options.system, self.options.system)
        question = {"role": "user", "content": self.problem(example)["question"]}
        return [{"role": "system", "content": system}, question] if system else [question]

    def texts(self):
        """What a tokenizer for the training items should know."""
        rng = np.random.default_rng([self.seed, 4])
        items = [item for example in self.examples("train")[:5000] for item in self.items(example, rng)]
        return [message["content"] for item in items for message in item.messages]

    # -------------------------------------------------------------------------------------------- play
    def attempt(self, examples, agent):
        """n replies to each example and how they count: (place, record) of each."""
        examples = [self.problem(example) for example in examples]
        prompts = [self.prompt(example) for example in examples]
        groups = agent.reply([prompt for prompt in prompts for _ in range(self.n)])
        records = []
        for i, example in enumerate(examples):
            replies = [reply for reply, *_ in groups[i * self.n : (i + 1) * self.n]]
            found = [
                {
                    "text": reply.text,
                    "tokens": len(reply.ids),
                    **self.judged(example, reply.text, reply.finished),
                }
                for reply in replies
            ]
            records.append({**example, "replies": found})
        if self.grader:
            self.grade([(record["question"], reply) for record in records for reply in record["replies"]])
        return enumerate(records)

    def grade(self, asked):
        """Put the judge's "grade", 0 to 10, into the replies of (question, reply) pairs; None where it gave
        no number."""
        told = [f"Question: {question}\n\nReply: {reply['text']}" for question, reply in asked]
        system = {"role": "system", "content": RUBRIC}
        grades = self.grader.reply([[system, {"role": "user", "content": text}] for text in told])
        for (_, reply), (grade, *_) in zip(asked, grades):
            found = number(grade.text)
            reply["grade"] = float(found) if found is not None and 0 <= found <= 10 else None

    def judged(self, example, text, finished=True):
        """How a reply counts: the form at three levels, whether it is right, and the score."""
        found, row = parse(text), self.problem(example)
        if row["kind"] == "code" and found.answer:
            found.passed = self.passed(row, found.answer)
        parts = {name: REWARDS[name](row, found, finished) for name in self.weights}
        parts = {name: value for name, value in parts.items() if value is not None}
        whole = sum(self.weights[name] for name in parts)
        score = sum(self.weights[name] * value for name, value in parts.items()) / whole if whole else 0.0
        right = self.right(row, found)
        return {
            "score": score,
            "parts": parts,
            "loose": found.loose,
            "strict": found.strict,
            "closed": finished,
            "right": right,
            "answer": found.answer,
        }

    def right(self, row, found):
        """Whether the answer is right, in whatever form it was found; None for open questions."""
        if row["kind"] == "open":
            return None
        if row["kind"] == "code":
            return found.passed == 1.0
        return equal(found.answer, row["answer"], row["kind"])

    def collected(self, record):
        """The best and the worst of the replies as a pair to prefer, where their scores differ."""
        ranked = sorted(record["replies"], key=lambda reply: reply["score"])
        if ranked[-1]["score"] - ranked[0]["score"] < 1e-6:
            return []
        best, worst = ranked[-1]["text"], ranked[0]["text"]
        return [{"question": record["question"], "chosen": best, "rejected": worst}]

    def score(self, example, reply):
        return self.judged(example, reply)

    def rollout(self, examples, agent):
        """One sampled reply each."""
        rows = [self.problem(example) for example in examples]
        replies = [reply for reply, *_ in agent.reply([self.prompt(row) for row in rows])]
        episodes = []
        for row, reply in zip(rows, replies):
            found = self.judged(row, reply.text, reply.finished)
            scores = {name: found["parts"].get(name) for name in self.weights}
            turns = [{"reply": reply.text, "score": found["score"], **found["parts"]}]
            episodes.append(Episode(row, turns, [reply], found["score"], scores))
        return episodes

    def passed(self, row, answer):
        """The share of a row's unit tests that Python code passes in the sandbox; the values are compared
        here."""
        code = re.search(r"```(?:python)?\n(.*?)```", answer, re.S)
        calls = [(name, arguments) for name, arguments, _ in row["tests"]]
        if self.box is None:
            self.box = Sandbox(self.options.seconds, unsafe=self.options.unsafe_exec)
        results = self.box.confirm([Job(code[1] if code else answer, [call]) for call in calls])
        wins = sum(
            r.kind == "ok" and repr(r.values) == repr([test[2]]) for r, test in zip(results, row["tests"])
        )
        return wins / len(calls)

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, agent):
        return self.summary([record for _, record in self.attempt(examples, agent)])

    def summary(self, records):
        """Right answers (of the first reply, of any, by vote), the form at three levels, lengths; of families
        and of unseen sentences apart. pass@k is unbiased."""
        metrics, intervals = {}, {}
        replies = [reply for record in records for reply in record["replies"]]
        checked = [record for record in records if record["kind"] != "open"]

        def rate(name, values):
            values = list(values)
            if values:
                metrics[name], intervals[name] = float(np.mean(values)), wilson(sum(values), len(values))

        rate("right", (reply["right"] for record in checked for reply in record["replies"]))
        for name in ("strict", "loose", "closed"):
            rate(name, (reply[name] for reply in replies))
        rate("strict_closed", (reply["strict"] and reply["closed"] for reply in replies))
        n = min((len(record["replies"]) for record in records), default=0)
        if n > 1:
            for k in sorted({2, 4, 8, n} & {*range(n + 1)}):
                rate(
                    f"pass@{k}",
                    [pass_at(n, sum(r["right"] for r in record["replies"]), k) for record in checked],
                )
            rate("vote", (self.voted(record) for record in checked))
        for family in sorted({record["family"] for record in checked if "family" in record}):
            part = [record for record in checked if record["family"] == family]
            rate(f"right/{family}", (reply["right"] for record in part for reply in record["replies"]))
        part = [record for record in checked if record.get("unseen")]
        rate("right/unseen sentences", (reply["right"] for record in part for reply in record["replies"]))
        metrics["tokens"] = float(np.mean([reply["tokens"] for reply in replies])) if replies else 0.0
        grades = [reply["grade"] for reply in replies if reply.get("grade") is not None]
        if grades:  # 95 % by the normal approximation
            mean, error = float(np.mean(grades)), 1.96 * float(np.std(grades)) / len(grades) ** 0.5
            metrics["grade"], intervals["grade"] = mean, (mean - error, mean + error)
            metrics["graded"] = len(grades) / len(replies)
        return {
            "n": len(records),
            "metrics": metrics,
            "intervals": intervals,
            "baselines": {},
            "records": records,
        }

    def voted(self, record):
        """Whether the most frequent answer is right: self-consistency, arXiv 2203.11171."""
        counts = Counter(plain(reply["answer"]) for reply in record["replies"] if reply["answer"])
        best = counts.most_common(1)
        return bool(best) and any(r["right"] for r in record["replies"] if plain(r["answer"]) == best[0][0])

    def interact(self, agent, read, show, seat, seed):
        """Answer what a person asks; one question of the tests where nobody is there (read is None)."""
        asked = read() if read else self.examples("test")[0]["question"]
        while asked is not None and asked.strip().lower() not in ("quit", "q"):
            if not read:
                show(asked)
            self.answer(agent, asked, show)
            asked = read() if read else None

    def answer(self, agent, question, show):
        """The thoughts dimmed as they come, then the answer; of several replies (--n) how often each answer
        came."""
        shown = ["", ""]  # of the thoughts and the answer

        def watch(_, text):
            for i, part in enumerate(streamed(text)):
                if self.n == 1 and len(part) > len(shown[i]):
                    between = "\n" if i and not shown[i] else ""
                    show(between + part[len(shown[i]) :], dim=not i, end="")
                    shown[i] = part

        replies = agent.reply([self.prompt({"question": question})] * self.n, watch=watch)
        counts = Counter(parse(reply.text).answer for reply, *_ in replies).most_common()
        show("" if self.n == 1 else "\n".join(f"{count} of {self.n}: {text}" for text, count in counts))


def streamed(text):
    """(thoughts, answer) as far as a growing reply has them; the beginning of a tag is held back."""
    head, mark, tail = text.rpartition("<")
    text = head if mark and ">" not in tail else text
    thoughts, _, rest = text.removeprefix("<reasoning>").partition("</reasoning>")
    return thoughts, rest.partition("<answer>")[2].partition("</answer>")[0]
