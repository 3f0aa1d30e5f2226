"""ARC by programs: a model sees a task's example pairs and writes a Python function for them. The programs
that give every shown output in the sandbox answer the test by a vote. If there are none, there is no answer.

Read `examples` and `items` for training, `attempt` for evaluation. The other files: prompts (the words),
grids (text, frames, votes, scores), judging (verdicts), search (programs made of the world's steps), figures,
files (tasks in, submissions out), hindsight (learning from the model's own programs), world and families
(endless tasks, each with its program), experiments (judging answers)."""

import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from games.arc import figures, files, hindsight, terminal
from games.arc.grids import GRIDS, VIEWS, Frame
from games.arc.judging import Question, Runner, grid_verdict
from games.arc.prompts import JUDGES_ANSWERS, PROMPTS
from games.arc.search import Search
from games.arc.world import open_world, parts_of
from games.rewards import read_rewards
from games.task import (
    Chat,
    Collects,
    Episode,
    Evaluation,
    Interactive,
    LearnsAtTestTime,
    SubmitsPredictions,
    Task,
    TracksTraining,
    flag,
)
from terminal import UsageError, check_choice

SHOTS = 3  # lessons from a program: with all pairs of its task, all but one, all but two
TASKS = 100_000  # tasks of the world in an epoch of training
KINDS = {  # test tasks of the world: new tasks of seen families, and kinds that training never shows
    "": {},
    "/parameters": {"held_out": True},
    "/compositions": {"held_out": True, "compositions": 1.0},
    "/families": {"withheld": True},
}
CYCLES = {  # test tasks of a world take turns: the first n hold a share of each kind
    "small": ("", "/parameters", "", "/compositions"),
    "wide": ("", "/parameters", "", "/compositions", "", "/families"),
}


@dataclass
class Options:
    # tasks | train eval collect play submit
    data: str = ""  # real tasks: a challenges file, FILE:SET or a folder; or A.jsonl,B.jsonl from collect
    side: int = 30  # real tasks: leave out tasks with a longer side of a grid
    world: Literal["small", "wide"] = flag("small", as_trained=True)  # families of tasks, and sizes of grids
    compositions: float = flag(0.2, share=True)  # world: share of two-family training tasks
    tests: int = 400  # world: test tasks, half of seen families, half with unseen parameters or combinations
    only: Literal["", "parameters", "compositions", "families"] = ""  # world: only test tasks of this kind
    # prompts | train eval collect play
    prompt_version: str = flag("code", as_trained=True)  # names from prompts.py; an item takes one
    grid: Literal[tuple(GRIDS)] = flag("digits", as_trained=True)  # text format of grids
    cells: int = flag(0, as_trained=True)  # most cells in a prompt's pairs, the last are left out; 0: all
    # search for programs of the world's own steps | eval play
    search: int = 0  # programs to try for a task, beside the model's own; 0: no search
    search_seconds: float = 15.0  # ... at most so long
    # replies | train eval collect play
    frames: int = 1  # frames of a task, one prompt each, that share the --n replies; 0: as many as --n
    ties: Literal[("", *JUDGES_ANSWERS)] = ""  # version of the prompt that breaks ties of the vote
    judge: str = flag("", agent="reply")  # run or model that breaks ties, by default the one that answers
    # programs | train eval collect play
    seconds: float = 1.0  # time limit of a program
    workers: int = flag(1, cosmetic=True)  # programs that run at the same time
    unsafe_exec: bool = flag(False, cosmetic=True)  # run programs even where the sandbox cannot contain them
    # reinforcement | train
    rewards: str = flag("right:1", code=True)  # parts right, shown, memorised, FILE.py:FUNCTION with weights
    # collecting | collect
    collect_from: Literal["train", "test"] = "train"  # test: from its shown pairs, never a test's output
    # a submission | submit
    ensemble: str = flag("", cosmetic=True)  # predictions A,B ... that fill missing answers, in this order


class Arc(LearnsAtTestTime, Collects, TracksTraining, Interactive, SubmitsPredictions, Task):
    Options = Options
    collected = hindsight.collected
    lessons = hindsight.lessons
    interact = terminal.interact
    pre_tokens = r"\n *|[A-Za-z_]+ ?|[0-9]|(?://|==|!=|[^\sA-Za-z_0-9]) ?|\s"  # a cell is a token
    evaluation = Evaluation(n=32, temperature=1.0, max_new=512)

    def __init__(self, options=None, seed=0, kind=Chat):
        super().__init__(options, seed, kind)
        names = self.options.prompt_version.split(",")
        for name in names:
            check_choice("prompt-version", name, PROMPTS)
        if "://" in self.options.judge:
            raise UsageError("--judge: must be a run or a model, because an endpoint gives no probabilities")
        self.versions = [PROMPTS[name] for name in names]
        self.writing = GRIDS[self.options.grid]
        self.collect_split = self.options.collect_from
        self.world = open_world(self.options.world)
        if self.options.only == "families" and not self.world.unseen:
            raise UsageError("--only families: --world wide alone has families that are never trained on")
        self.runner = Runner(self.options)
        self.rewards = read_rewards(self.options.rewards, ("right", "shown", "memorised"))
        self.splits = {}

    def rng_of(self, example, *numbers):
        return np.random.default_rng([self.seed, *numbers, key_of(example)])

    # -------------------------------------------------------------------------------------------- training
    def examples(self, split):
        """Real tasks; or tasks of the world, where a training task is only a number; or, for training, rows
        that collect wrote."""
        if split not in self.splits:
            data = self.options.data
            if data.endswith(".jsonl") and split == "train":
                self.splits[split] = hindsight.read(self, data.split(","))
            elif data and not data.endswith(".jsonl"):
                self.splits[split] = [] if split == "valid" else self.real_tasks(split)
            else:
                self.splits[split] = self.world_tasks(split)
        return self.splits[split]

    def real_tasks(self, split):
        """The tasks of --data. Those with a side longer than --side are left out and counted."""
        examples = []
        limit = self.options.side
        for key, task in files.read_tasks(self.options.data, split).items():
            longest = 0
            for pair in task["train"] + task["test"]:
                for grid in pair.values():
                    longest = max(longest, len(grid), len(grid[0]))
            if longest > limit:
                self.dropped[f"with a side longer than {limit}"] += 1
            else:
                examples.append({"id": key, "split": "", **task})
        return examples

    def world_tasks(self, split):
        """Training tasks as numbers only; or validation or test tasks, task i seeded by (seed, split, i)."""
        if split == "train":
            return [{"id": f"train-{i}", "number": i} for i in range(TASKS)]
        valid = split == "valid"
        cycle = CYCLES[self.options.world]
        examples = []
        for i in range(64 if valid else self.options.tests):
            kind = "" if valid else cycle[i % len(cycle)]
            if valid or self.options.only in ("", kind[1:]):
                rng = np.random.default_rng([self.seed, 1 + valid, i])
                task = self.draw(rng) if valid else self.world.draw(rng, **KINDS[kind])
                examples.append({"id": f"{split}-{i}", "split": kind, **task})
        return examples

    def trained_on(self):
        """Names of the tasks that training sees. A model is not evaluated on them, unless it learned only
        from what a task shows: its name then starts with "shown:", and the result says so."""
        if not self.options.data:
            return []
        names = {example.get("knows", example["id"]) for example in self.examples("train")}
        return sorted(names)

    def task_of(self, example):
        """The task of an example: itself, or the world's task of its number."""
        if "train" in example:
            return example
        rng = np.random.default_rng([self.seed, 9, example["number"]])
        return {**example, **self.draw(rng)}

    def draw(self, rng):
        return self.world.draw(rng, compositions=self.options.compositions)

    def items(self, example, rng):
        """Chats for one version of the prompt, from a row that collect wrote, a new task of the world, or a
        random frame of a real task."""
        if "knows" in example:
            return hindsight.items(self, example, rng)
        version = self.versions[rng.integers(len(self.versions))]
        task = example if "train" in example else self.draw(rng)
        if "program" in task:
            rival = self.world.mistaken(task, rng) if version.needs_rival else None
            return self.chats(version, task, rival, rng)
        if version.asks == "code" or version.needs_rival:
            raise UsageError("--prompt-version: these tasks have no programs, use output-from-examples-v1")

        # Any pair of a real task with a known output can be the test of the others.
        pairs = [pair for pair in task["train"] + task["test"] if "output" in pair]
        shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
        shown = min(len(task["train"]), len(pairs) - 1)
        task = {"train": shuffled[:shown], "test": shuffled[shown : shown + 1]}
        task = Frame.draw(task, rng).task(task)
        return self.chats(version, task, None, rng)

    def chats(self, version, task, rival, rng):
        """The Chats that teach a version of the prompt with a task.

        A program is also taught from fewer pairs. The prompts share their beginning, so this costs little;
        and where fewer pairs leave several programs possible, samples should spread over them."""
        pairs = task["train"]
        shots = min(SHOTS, len(pairs)) if version.asks == "code" else 1
        chats = []
        for i in range(shots):
            shorter = {**task, "train": pairs[: len(pairs) - i]}
            chats.append(version.chat(shorter, self.writing, rival, rng))
        return chats

    def texts(self):
        """The texts that a new tokenizer is trained on, from the first 2,000 training examples."""
        rng = np.random.default_rng([self.seed, 4])
        texts = []
        for example in self.examples("train")[:2000]:
            for item in self.items(example, rng):
                texts += [message["content"] for message in item.messages]
        return texts

    # -------------------------------------------------------------------------------------------- replies
    def prompt(self, example):
        task = self.fit(self.task_of(example))
        return self.versions[0].question(task, self.writing)

    def fit(self, task):
        """The task without the last pairs that exceed --cells; at least one pair stays."""
        pairs = list(task["train"])
        limit = self.options.cells
        while limit and len(pairs) > 1 and sum(map(cells_of, pairs)) > limit:
            pairs.pop()
        return {**task, "train": pairs}

    def is_short(self, task):
        """Whether the model is asked about a task: with --search not if a pair alone exceeds --cells."""
        limit = self.options.cells
        return not (self.options.search and limit) or max(map(cells_of, task["train"])) <= limit

    def frames(self, example, count):
        """The frames of an example's prompts. The first shows it as it is; frame j is seeded by (seed,
        example, j). Any eight in a row have different views."""
        frames = [Frame()]
        for j in range(1, count):
            rng = np.random.default_rng([self.seed, key_of(example), j])
            frames.append(Frame.draw(example, rng, j % VIEWS))
        return frames

    def attempt(self, examples, players, records=None):
        """players.n replies to each example, or to each of its tests if the prompt shows a test, with their
        verdicts: (place, record) of each example. Given records, so many more replies are added to them."""
        version = self.versions[0]
        plain = version.asks in ("code", "output") and not version.refines
        if not plain or version is PROMPTS["output-from-code-v0"]:
            raise UsageError("--prompt-version: the first must ask for programs or for the test's output")
        examples = [self.task_of(example) for example in examples]
        if not records:
            records = [self.record(example) for example in examples]
        short = [record for record in records if self.is_short(record)]
        self.add_replies(version, self.questions(short, players.n), players.player)
        for record in records:
            if self.options.search and "search" not in record:
                record["search"] = self.search(record)
        if self.options.ties:
            from games.arc.experiments.judges import prefer

            prefer(self, records, players.named.get("judge", players.player))
        for example, record in zip(examples, records):
            if "program" in example:
                record["blind"] = self.count_blind(example, len(files.answers(record, 0)))
        return enumerate(records)

    def record(self, example):
        return {
            "id": example["id"],
            "split": example.get("split", ""),
            "train": example["train"],
            "test": example["test"],
            "replies": [],
        }

    def search(self, record):
        """What a search for a record finds: {"tried", "seconds", "found": as in Search}."""
        o = self.options
        began = time.monotonic()
        search = Search(self.world, record, o.search, o.search_seconds)
        search.run()
        seconds = round(time.monotonic() - began, 3)
        return {"tried": search.tried, "seconds": seconds, "found": search.found}

    def count_blind(self, example, n):
        """How many of n programs drawn without a look at the task are right: the baseline of chance."""
        rng = self.rng_of(example, 5)
        _, pairs = parts_of(example)
        return sum(self.world.fits(self.world.blind(rng), pairs) for _ in range(n))

    def questions(self, records, n):
        """n Questions about each task, or about each of its tests, spread over its frames."""
        version = self.versions[0]
        questions = []
        for record in records:
            frames = self.frames(record, min(n, self.options.frames or n))
            tasks = [self.fit(frame.task(record)) for frame in frames]
            for test in files.tests_of(record) if version.test else (None,):
                prompts = [version.question(task, self.writing, test) for task in tasks]
                for j in range(n):
                    place = j % len(frames)
                    questions.append(Question(record, frames[place], test, prompts[place]))
        return questions

    def add_replies(self, version, questions, player):
        """Add one reply to each Question, with its verdict, to the Question's record."""
        for question, (reply, verdict) in zip(questions, self.ask(version, questions, player)):
            question.record["replies"].append(
                {
                    "test": question.test,
                    "logp": reply.logp,
                    "tokens": len(reply.ids),
                    "frame": vars(question.frame),
                    **verdict,
                }
            )

    def ask(self, version, questions, player):
        """(Reply, verdict) for each Question; all of them are in this version of the prompt."""
        opening = version.opening(self.writing)
        until = ("```",) if opening else ()
        replies = player.reply([question.messages for question in questions], begin=opening, until=until)
        replies = [reply for reply, *_ in replies]
        texts = [reply.text for reply in replies]
        if version.asks == "code":
            verdicts = self.runner.judge(questions, [version.program(text) for text in texts])
        else:
            grids = [self.writing.read(text.removeprefix(version.lead)) for text in texts]
            verdicts = map(grid_verdict, questions, texts, grids)
        return list(zip(replies, verdicts))

    # -------------------------------------------------------------------------------------------- scoring
    def play(self, examples, player):
        """One program for each example, all judged together. The score is --rewards, by default 1 for a
        program that gives every shown output and every hidden one, else 0."""
        examples = [self.task_of(example) for example in examples]
        questions = [Question(example, Frame(), 0, self.prompt(example)) for example in examples]
        episodes = []
        for example, (reply, verdict) in zip(examples, self.ask(self.versions[0], questions, player)):
            truth = [pair.get("output") for pair in example["test"]]
            right = float(verdict["answers"] == truth)
            shown = verdict["right"] / len(example["train"])
            memorised = float(verdict["verdict"] == "memorised")
            parts = {"right": right, "shown": shown, "memorised": memorised}
            parts |= self.rewards.own(example, reply.text)
            score, _ = self.rewards.weigh(parts)
            turn = {"reply": reply.text, "score": score, "partial": shown, **verdict}
            episodes.append(Episode(example, [turn], [reply], score, parts))
        return episodes

    def evaluate(self, examples, players):
        """The figures of players.n replies to each example; empty figures where programs cannot be run."""
        try:
            return super().evaluate(examples, players)
        except PermissionError as error:
            print(f"arc: not evaluated: {error}", file=sys.stderr)
            return self.summary([], players)

    def summary(self, records, players):
        report = figures.summary(records, players.trained_on)
        return {**report, "sandbox": self.runner.level, "records": records}

    # -------------------------------------------------------------------------------------------- files
    def files(self, records):
        """The files that eval writes beside its report: predictions, a row for each reply, a submission."""
        return {
            "_predictions.json": files.predictions(records),
            "_task_results.json": files.task_results(records),
            "_submission.json": files.submission(records),
        }

    def submit(self, path):
        """The submission from files of predictions or submissions, checked against --data. The attempts in
        several files A,B ... vote together, as if one run had made them; --ensemble fills missing answers."""
        if not self.options.data:
            raise UsageError("--data: name the challenges file that the submission is checked against")
        tasks = files.read_tasks(self.options.data, "test")
        groups = [path.split(",")]
        if self.options.ensemble:
            groups += [[name] for name in self.options.ensemble.split(",")]
        predictions = []
        for names in groups:
            predictions.append([files.read_predictions(name, tasks) for name in names])
        return files.combine(predictions, tasks)

    # -------------------------------------------------------------------------------------------- display
    def lines(self, record):
        """A record's prompt, and its programs with their verdicts, for --verbose."""
        return [f"task {record['id']}:\n{self.prompt(record)[-1]['content']}", *self.programs(record)]

    def programs(self, record):
        """The different programs of a record with their verdicts, as texts, the most frequent first."""
        counts = Counter()
        for reply in record["replies"]:
            counts[reply["source"], reply["verdict"], reply["message"], reply["right"]] += 1
        texts = []
        for (source, verdict, message, right), count in counts.most_common():
            texts.append(f"{count} times {verdict}, {right} shown pairs right {message}\n{source}")
        for found in record.get("search", {}).get("found", ()):
            joint = ", beside " if "table" in found else ", then "
            steps = joint.join(map(terminal.step_text, found["steps"]))
            texts.append(f"program {found['tried']} of the search: {steps}\n{found['source']}")
        return texts


def cells_of(pair):
    return sum(len(grid) * len(grid[0]) for grid in pair.values())


def key_of(example):
    return zlib.crc32(example["id"].encode())
