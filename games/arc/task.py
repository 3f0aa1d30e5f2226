"""ARC by programs: a model sees a task's example pairs and writes a Python function for them. Programs that
give every shown output in the sandbox answer the test and vote; where none does there is no answer.

Read examples and items for what is learned, attempt for what is asked. Around it: prompts (the words), grids
(text, frames, votes, scores), judging (what counts), figures, files (tasks in, submissions out), hindsight
(learning from own programs), world (tasks without end, each with its program), experiments (refining
programs, judging answers)."""

import itertools
import sys
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from games.arc import figures, files, hindsight, terminal, world
from games.arc.grids import GRIDS, VIEWS, Frame
from games.arc.judging import Question, Runner, grid_verdict
from games.arc.prompts import JUDGES_ANSWERS, PROMPTS, WRITES_PROGRAMS
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

SHOTS = 3  # lessons a program gives: from all pairs of its task, all but one, all but two
TASKS = 100_000  # of the world, to train on in an epoch
KINDS = {  # of the world's test tasks: of seen families, and two kinds that training never shows
    "": {},
    "/parameters": {"held_out": True},
    "/compositions": {"held_out": True, "compositions": 1.0},
}
CYCLE = "", "/parameters", "", "/compositions"  # so any beginning of the test tasks has a share of each


@dataclass
class Options:
    # tasks | train eval collect play submit
    data: str = ""  # real tasks: a challenges file, FILE:SET, a folder; or A.jsonl,B.jsonl that collect wrote
    side: int = 30  # real tasks: leave out those with a longer side of a grid
    compositions: float = flag(0.2, share=True)  # world: share of training tasks of two families
    tests: int = 400  # world: test tasks, half of seen families, the rest of unseen parameters and pairs
    only: Literal["", "parameters", "compositions"] = ""  # world: test tasks of this kind alone
    # prompts | train eval collect play
    prompt_version: str = flag("code", as_trained=True)  # names in prompts.py; an item has any of them
    grid: Literal[tuple(GRIDS)] = flag("digits", as_trained=True)  # how grids are written
    cells: int = 0  # leave out a prompt's last pairs until it has at most so many cells; 0 keeps all
    # replies | train eval collect play
    frames: int = 1  # views of a task, a prompt each, over which --n replies are spread; 0: as many as --n
    refine: int = 0  # of the --n replies, so many improve on the most promising programs
    refine_prompt: Literal[WRITES_PROGRAMS] = "code"  # code writes what is missing, refine the program anew
    ties: Literal[("", *JUDGES_ANSWERS)] = ""  # ties of the vote go to the answer that this version prefers
    judge: str = flag("", agent="reply")  # the run or model asked about --ties, by default the one at hand
    # programs | train eval collect play
    seconds: float = 1.0  # time of a program
    workers: int = flag(1, cosmetic=True)  # programs at a time
    unsafe_exec: bool = flag(False, cosmetic=True)  # run programs on a machine that cannot lock them in
    # showing | eval
    verbose: bool = flag(False, cosmetic=True)  # show prompts, programs and verdicts
    # collecting | collect
    collect_from: Literal["train", "test"] = "train"  # of test, what is shown, never a test's output
    # a submission | submit
    ensemble: str = flag("", cosmetic=True)  # predictions A,B ... for what ours leaves open, in this order


class Arc(LearnsAtTestTime, Collects, TracksTraining, Interactive, SubmitsPredictions, Task):
    Options = Options
    collected, lessons, interact = hindsight.collected, hindsight.lessons, terminal.interact
    pre_tokens = r"\n *|[A-Za-z_]+ ?|[0-9]|(?://|==|!=|[^\sA-Za-z_0-9]) ?|\s"  # a cell is a token
    evaluation = Evaluation(n=32, temperature=1.0, max_new=512)

    def __init__(self, options=None, seed=0, kind=Chat):
        super().__init__(options, seed, kind)
        names = self.options.prompt_version.split(",")
        for name in names:
            check_choice("prompt-version", name, PROMPTS)
        if "://" in self.options.judge:
            raise UsageError("--judge: must be a run or a model, whose probabilities are compared")
        self.versions, self.writing = [PROMPTS[name] for name in names], GRIDS[self.options.grid]
        self.collect_split = self.options.collect_from
        self.runner = Runner(self.options)
        self.splits = {}

    def rng_of(self, example, *numbers):
        return np.random.default_rng([self.seed, *numbers, key_of(example)])

    # -------------------------------------------------------------------------------------------- training
    def examples(self, split):
        """Real tasks, the sets train and eval; tasks of the world, those to train on as numbers; or, to train
        on, what collect wrote."""
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
        """The tasks of --data without those that --side leaves out, which are counted."""
        examples, side = [], self.options.side
        for key, task in files.read_tasks(self.options.data, split).items():
            grids = [grid for pair in task["train"] + task["test"] for grid in pair.values()]
            if max(max(len(grid), len(grid[0])) for grid in grids) > side:
                self.dropped[f"with a side longer than {side}"] += 1
            else:
                examples.append({"id": key, "split": "", **task})
        return examples

    def world_tasks(self, split):
        """Numbers of tasks to train on; or tasks that are for evaluation only, task i by (seed, split, i)."""
        if split == "train":
            return [{"id": f"train-{i}", "number": i} for i in range(TASKS)]
        valid, examples = split == "valid", []
        for i in range(64 if valid else self.options.tests):
            kind = "" if valid else CYCLE[i % len(CYCLE)]
            if valid or self.options.only in ("", kind[1:]):
                rng = np.random.default_rng([self.seed, 1 + valid, i])
                task = self.drawn(rng) if valid else world.draw(rng, **KINDS[kind])
                examples.append({"id": f"{split}-{i}", "split": kind, **task})
        return examples

    def trained_on(self):
        """Names of the tasks that training sees: a result on one of them is no result; where only what a task
        shows was learned from, with "shown:" before the name, and a result says so."""
        if not self.options.data:
            return []
        return sorted({example.get("knows", example["id"]) for example in self.examples("train")})

    def task_of(self, example):
        """The task of an example: its own, or the world's of this number."""
        if "train" in example:
            return example
        return {**example, **self.drawn(np.random.default_rng([self.seed, 9, example["number"]]))}

    def drawn(self, rng):
        return world.draw(rng, compositions=self.options.compositions)

    def items(self, example, rng):
        """Chats for one version of the prompt: of a row that collect wrote, of a world task drawn anew, or of
        a frame of a real one."""
        if "knows" in example:
            return hindsight.items(self, example, rng)
        version = self.versions[rng.integers(len(self.versions))]
        task = example if "train" in example else self.drawn(rng)
        if "program" in task:
            rival = world.mistaken(task, rng) if version.needs_rival else None
            return self.taught(version, task, rival, rng)
        if version.asks == "code" or version.needs_rival:
            raise UsageError("--prompt-version: these tasks have no programs, take output-from-examples-v1")
        pairs = [pair for pair in task["train"] + task["test"] if "output" in pair]
        shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
        shown = min(len(task["train"]), len(pairs) - 1)
        task = {"train": shuffled[:shown], "test": shuffled[shown : shown + 1]}
        return self.taught(version, Frame.draw(task, rng).task(task), None, rng)

    def taught(self, version, task, rival, rng):
        """The Chats for a version of the prompt. A program is taught from fewer pairs as well: they share
        their beginning, so that costs little, and what fewer pairs leave open is what samples should spread
        over."""
        pairs = task["train"]
        shots = min(SHOTS, len(pairs)) if version.asks == "code" else 1
        cuts = [{**task, "train": pairs[: len(pairs) - i]} for i in range(shots)]
        return [version.chat(cut, self.writing, rival, rng) for cut in cuts]

    def texts(self):
        """What a tokenizer for the training items should know."""
        rng = np.random.default_rng([self.seed, 4])
        items = [item for example in self.examples("train")[:2000] for item in self.items(example, rng)]
        return [message["content"] for item in items for message in item.messages]

    # -------------------------------------------------------------------------------------------- asking
    def prompt(self, example):
        return self.versions[0].question(self.fitted(self.task_of(example)), self.writing)

    def fitted(self, task):
        """The task without the last pairs that --cells has no room for; at least one stays."""
        size = lambda pair: sum(len(grid) * len(grid[0]) for grid in pair.values())
        pairs = list(task["train"])
        while self.options.cells and len(pairs) > 1 and sum(map(size, pairs)) > self.options.cells:
            pairs.pop()
        return {**task, "train": pairs}

    def frames(self, example, count):
        """The frames of an example's prompts: the first as it stands, the others by (seed, example, number),
        each of another view than the seven before it."""
        frames = [Frame()]
        for j in range(1, count):
            rng = np.random.default_rng([self.seed, key_of(example), j])
            frames.append(Frame.draw(example, rng, j % VIEWS))
        return frames

    def attempt(self, examples, players, records=None):
        """players.n replies to each example (to each of its tests, where the prompt shows it) and what became
        of them: (place, record) of each example. With records there are, so many more into these."""
        version = self.versions[0]
        refined = self.options.refine * players.n // (players.total or players.n)
        plain = version.asks in ("code", "output") and not version.refines
        if not plain or version is PROMPTS["output-from-code-v0"]:
            raise UsageError("--prompt-version: the first must ask for programs or for the test's output")
        if refined and (version.asks != "code" or refined >= players.n):
            raise UsageError(f"--refine {refined}: needs programs, and a larger --n than {players.n}")
        examples = [self.task_of(example) for example in examples]
        if not records:
            records = [self.record(example) for example in examples]
            self.runner.got.clear()
        self.add_replies(version, self.questions(records, players.n - refined), players.player)
        if refined:
            from games.arc.experiments.refine import refine

            refine(self, records, players.player, refined)
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
            "question": self.prompt(example)[-1]["content"] if self.options.verbose else "",
            "train": example["train"],
            "test": example["test"],
            "replies": [],
        }

    def count_blind(self, example, n):
        """How many of n programs are right that are drawn without a look at the task."""
        rng = self.rng_of(example, 5)
        _, pairs = world.parts_of(example)
        return sum(world.fits(world.blind(rng), pairs) for _ in range(n))

    def questions(self, records, n):
        """n Questions about each task, or about each of its tests, spread over its frames."""
        version, questions = self.versions[0], []
        for record in records:
            frames = self.frames(record, min(n, self.options.frames or n))
            tasks = [self.fitted(frame.task(record)) for frame in frames]
            for test in files.tests_of(record) if version.test else (None,):
                prompts = [version.question(task, self.writing, test) for task in tasks]
                views = itertools.cycle(zip(frames, prompts))
                for frame, prompt in itertools.islice(views, n):
                    questions.append(Question(record, frame, test, prompt))
        return questions

    def add_replies(self, version, questions, player):
        """Add one reply to each Question, and what became of it, to its record."""
        for question, (reply, verdict) in zip(questions, self.ask(version, questions, player)):
            made = {"test": question.test, "logp": reply.logp, "tokens": len(reply.ids)}
            question.record["replies"].append({**made, "frame": vars(question.frame), **verdict})

    def ask(self, version, questions, player):
        """(Reply, verdict) of one reply to each Question, which are in this version of the prompt."""
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
        """One program for each example, all of them judged together: 1 for one that gives every shown and
        every hidden output."""
        examples = [self.task_of(example) for example in examples]
        questions = [Question(example, Frame(), 0, self.prompt(example)) for example in examples]
        episodes = []
        for example, (reply, verdict) in zip(examples, self.ask(self.versions[0], questions, player)):
            score = float(verdict["answers"] == [pair.get("output") for pair in example["test"]])
            shown = verdict["right"] / len(example["train"])
            parts = {"right": score, "shown": shown, "memorised": float(verdict["verdict"] == "memorised")}
            turn = {"reply": reply.text, "score": score, "partial": shown, **verdict}
            episodes.append(Episode(example, [turn], [reply], score, parts))
        self.runner.got.clear()  # of games by the thousand
        return episodes

    def evaluate(self, examples, players):
        """The figures of players.n replies to each example; none where programs cannot be run."""
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
        """What eval writes beside its report: predictions, what became of each reply, a submission."""
        return {
            "_predictions.json": files.predictions(records),
            "_task_results.json": files.task_results(records),
            "_submission.json": files.submission(records),
        }

    def submit(self, path):
        """The submission of predictions or of another submission, checked against --data. The attempts of
        several files A,B ... vote together, as those of one run; --ensemble fills what they leave open."""
        if not self.options.data:
            raise UsageError("--data: a submission is checked against its challenges, name their file")
        tasks = files.read_tasks(self.options.data, "test")
        read = lambda name: files.read_predictions(name, tasks)
        groups = [[read(name) for name in path.split(",")]]
        if self.options.ensemble:
            groups += [[read(name)] for name in self.options.ensemble.split(",")]
        return files.combine(groups, tasks)

    # -------------------------------------------------------------------------------------------- looking
    def lines(self, record):
        """With --verbose a record's prompt, programs and verdicts."""
        asked = [f"task {record['id']}:\n{record['question']}"]
        return asked + self.programs(record) if self.options.verbose else []

    def programs(self, record):
        """The programs of a record and their verdicts as texts, equal ones once, the most frequent first."""
        counts = Counter((r["source"], r["verdict"], r["message"], r["right"]) for r in record["replies"])
        return [
            f"{count} times {verdict}, {right} shown pairs right {message}\n{source}"
            for (source, verdict, message, right), count in counts.most_common()
        ]


def key_of(example):
    return zlib.crc32(example["id"].encode())
