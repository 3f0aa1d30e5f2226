"""ARC by programs: a model sees a task's example pairs and writes a Python function for them. Programs that
give every shown output in the sandbox answer the test and vote; where none does there is no answer.

Read examples and items for what is learned, attempt for what is asked, judge for what counts, summary for the
figures. Around it: arc_prompts (the words), arc_grids (text, frames, votes, scores), arc_files (tasks in,
submissions out), sandbox (runs programs), worlds/arc (tasks without end, each with its program)."""

import ast
import re
import sys
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from games import arc_dsl, arc_files
from games.arc_grids import GRIDS, VIEWS, Frame, legal, scores, vote
from games.arc_prompts import PROMPTS
from games.sandbox import Job, Sandbox
from games.task import Chat, Episode, Task, pass_at, wilson
from games.worlds import arc as world

TESTS = {  # of the world: tasks of seen families, and two kinds that training never shows
    "": {},
    "/parameters": {"held_out": True},
    "/compositions": {"held_out": True, "compositions": 1.0},
}
CYCLE = "", "/parameters", "", "/compositions"  # so any beginning of the test tasks has a share of each


@dataclass
class Options:
    data: str = ""  # real tasks: a challenges file, FILE:SET, a folder; without it those of the world
    prompt_version: str = "code"  # names in games/arc_prompts.py; of several, an item has any
    grid: str = "digits"  # how grids are written: digits, spaced, fenced, numbers, shape, full, letters
    frames: int = 1  # evaluation: views of a task, a prompt each, over which --n replies are spread; 0: --n
    maps: float = 0.0  # training on real tasks: share of frames that pad, enlarge or mirror one side
    side: int = 30  # real tasks: leave out those with a longer side of a grid
    cells: int = 0  # leave out a prompt's last pairs until it has at most so many cells; 0 keeps all
    shots: int = 3  # programs: lessons a task gives, from all its pairs, all but one, all but two ...
    compositions: float = 0.2  # world: share of training tasks of two families
    tasks: int = 100_000  # world: training tasks in an epoch
    tests: int = 400  # world: test tasks, half of seen families, the rest of unseen parameters and pairs
    vote: str = "count"  # programs that give the same answer count one each, or by probability
    seconds: float = 1.0  # time of a program
    memory: int = 512  # MB that a program may take
    workers: int = 1  # programs at a time
    unsafe_exec: bool = False  # run programs on a machine that can not lock them in
    ensemble: str = ""  # submit: another submission, for the tasks that ours leaves open
    verbose: bool = False  # eval: show prompts, programs and verdicts


class Arc(Task):
    Options = Options
    pieces = r"\n *|[A-Za-z_]+ ?|[0-9]|(?://|==|!=|[^\sA-Za-z_0-9]) ?|\s"  # a cell is a token
    idle = "workers", "unsafe_exec", "ensemble", "verbose"
    n, temperature, max_new = 32, 1.0, 512

    def __init__(self, options=None, seed=0):
        super().__init__(options, seed)
        names = self.options.prompt_version.split(",")
        for name, value, known in (
            *(("prompt-version", name, PROMPTS) for name in names),
            ("grid", self.options.grid, GRIDS),
            ("vote", self.options.vote, ("count", "probability")),
        ):
            if value not in known:
                raise ValueError(f"--{name} {value}: unknown (known: {', '.join(known)})")
        self.versions, self.writing = [PROMPTS[name] for name in names], GRIDS[self.options.grid]
        self.box, self.splits = None, {}

    # -------------------------------------------------------------------------------------------- training
    def examples(self, split):
        """Real tasks, the sets train and eval; or tasks of the world, those to train on as numbers."""
        if split not in self.splits:
            make = self.real_tasks if self.options.data else self.world_tasks
            self.splits[split] = make(split)
        return self.splits[split]

    def world_tasks(self, split):
        """Numbers of tasks to train on; or tasks that are for evaluation only, task i by (seed, split, i)."""
        if split == "train":
            return [{"id": f"train-{i}", "number": i} for i in range(self.options.tasks)]
        usual, found = {"compositions": self.options.compositions}, []
        for i in range(64 if split == "valid" else self.options.tests):
            kind = "" if split == "valid" else CYCLE[i % len(CYCLE)]
            how = usual if split == "valid" else TESTS[kind]
            rng = np.random.default_rng([self.seed, 1 + (split == "valid"), i])
            found.append({"id": f"{split}-{i}", "split": kind, **world.draw(rng, **how)})
        return found

    def real_tasks(self, split):
        """The tasks of --data without those that --side leaves out, which are counted."""
        found = []
        if split == "valid":
            return found
        for key, task in arc_files.read_tasks(self.options.data, split).items():
            grids = [grid for pair in task["train"] + task["test"] for grid in pair.values()]
            if max(max(len(grid), len(grid[0])) for grid in grids) > self.options.side:
                self.drop(f"with a side longer than {self.options.side}")
            else:
                found.append({"id": key, "split": "", **task})
        return found

    def trained_on(self):
        """Names of the tasks that training sees: a result on one of them is no result."""
        return [example["id"] for example in self.examples("train")] if self.options.data else []

    def task_of(self, example):
        """The task of an example: its own, or the world's of this number."""
        if "train" in example:
            return example
        return {**example, **self.drawn(np.random.default_rng([self.seed, 9, example["number"]]))}

    def drawn(self, rng):
        return world.draw(rng, compositions=self.options.compositions)

    def items(self, example, rng):
        """Chats for one version of the prompt: of a world task drawn anew, or a frame of a real one.

        A program is taught from fewer pairs as well: they share their beginning, so that costs little, and
        what fewer pairs leave open is what samples should spread over."""
        version = self.versions[rng.integers(len(self.versions))]
        task = example if "train" in example else self.drawn(rng)
        if version.asks == "code" and "program" not in task:
            raise ValueError("--prompt-version: these tasks have no programs, take output-from-examples-v1")
        if "program" not in task:
            pairs = [pair for pair in task["train"] + task["test"] if "output" in pair]
            order, shown = rng.permutation(len(pairs)), min(len(task["train"]), len(pairs) - 1)
            task = {
                "train": [pairs[i] for i in order[:shown]],
                "test": [pairs[i] for i in order[shown:]][:1],
            }
            task = Frame.draw(task, rng, maps=self.options.maps).task(task)
        pairs = task["train"]
        shots = min(self.options.shots, len(pairs)) if version.asks == "code" else 1
        cuts = [{**task, "train": pairs[: len(pairs) - i]} for i in range(max(1, shots))]
        return [said(version, cut, self.writing) for cut in cuts]

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
        key = zlib.crc32(example["id"].encode())
        draws = [np.random.default_rng([self.seed, key, j]) for j in range(count)]
        return [Frame.draw(example, rng, j % VIEWS) if j else Frame() for j, rng in enumerate(draws)]

    def attempt(self, examples, agent):
        """n replies to each example (to each of its tests, where the prompt shows it) and what became of
        them: (place, record) of each example."""
        version = self.versions[0]
        if version.asks == "input" or version is PROMPTS["output-from-code-v0"]:
            raise ValueError("--prompt-version: the first must ask for programs or for the test's output")
        asked, prompts = [], []  # (example, frame, test), and the conversation
        for i, example in enumerate(examples):
            frames = self.frames(example, min(self.n, self.options.frames or self.n))
            tasks = [self.fitted(frame.task(example)) for frame in frames]
            for test in range(len(example["test"])) if version.test else (None,):
                questions = [version.question(task, self.writing, test) for task in tasks]
                for k in range(self.n):
                    asked.append((i, frames[k % len(frames)], test))
                    prompts.append(questions[k % len(frames)])
        control = {"begin": version.opening(self.writing)}
        if control["begin"]:
            control["until"] = ("```",)
        replies = [reply for reply, *_ in agent.reply(prompts, **control)]
        tries = [(examples[i], frame, reply.text, test) for (i, frame, test), reply in zip(asked, replies)]
        records = [self.record(example) for example in examples]
        for (i, frame, test), reply, found in zip(asked, replies, self.judge(tries)):
            records[i]["replies"].append(
                {"test": test, "logp": reply.logp, "tokens": len(reply.ids), "frame": vars(frame), **found}
            )
        return enumerate(records)

    def record(self, example):
        question = self.prompt(example)[-1]["content"] if self.options.verbose else ""
        about = {"id": example["id"], "split": example.get("split", ""), "question": question}
        if "program" in example:  # how many of n programs are right that are drawn without a look at the task
            rng = np.random.default_rng([self.seed, 5, zlib.crc32(example["id"].encode())])
            arrays = [[np.array(pair[side]) for side in pair] for pair in example["train"] + example["test"]]
            about["blind"] = sum(world.fits(world.blind(rng), arrays) for _ in range(self.n))
        return {**about, "train": example["train"], "test": example["test"], "replies": []}

    # -------------------------------------------------------------------------------------------- judging
    def sandbox(self):
        """The sandbox, started when it is first needed. Raises PermissionError where the machine is too
        weak."""
        if self.box is None:
            o = self.options
            names = {"np": np, "dsl": arc_dsl}
            self.box = Sandbox(o.seconds, o.memory << 20, o.workers, o.unsafe_exec, names)
            print(f"sandbox: level {self.box.level}", file=sys.stderr)
        return self.box

    def judge(self, tries):
        """What became of replies, each an (example, frame, text, test): dicts with "verdict" (accepted,
        wrong, memorised, unstable, none, or a kind of sandbox.Result), "message", "right" (shown pairs that
        the program gives), "source" and "answers": None, or a grid or None for each test of the example,
        brought back from the frame."""
        version, tasks, programs, found = self.versions[0], {}, {}, []
        if version.asks != "code":
            return [self.grid_of(*one) for one in tries]
        keys = [(example["id"], str(frame), version.program(text)) for example, frame, text, _ in tries]
        for key, (example, frame, _, _) in zip(keys, tries):
            if key[:2] not in tasks:
                tasks[key[:2]] = frame.task(example)
            programs[key] = key[-1], tasks[key[:2]]  # equal programs for a task are run once
        verdicts = dict(zip(programs, self.verify(list(programs.values()))))
        for key, (_, frame, _, _) in zip(keys, tries):
            answers = [frame.back(grid) if legal(grid) else None for grid in verdicts[key]["outputs"]]
            verdict = {name: value for name, value in verdicts[key].items() if name != "outputs"}
            found.append(verdict | {"answers": answers if any(answers) else None})
        return found

    def verify(self, programs):
        """The verdicts on programs, (source, task), as in judge, with the "outputs" for the tests: run beside
        others first and, those that give every shown output, twice in processes of their own. Only what they
        give there counts."""
        box, found, asked = self.sandbox(), [], {}
        shown = [[pair["output"] for pair in task["train"]] for _, task in programs]
        for _, task in programs:  # what jobs share is written for the sandbox once
            asked.setdefault(id(task), calls(task["train"]))
        jobs = [Job(source, asked[id(task)], arrays=True) for source, task in programs]
        for job, outputs, result in zip(jobs, shown, box.run(jobs)):
            right, kind = 0, result.kind
            if kind == "ok":
                values = list(map(listed, result.values))
                right = sum(map(same, values, outputs))
                kind = "wrong" if all(map(legal, values)) else "output"
                if right == len(outputs):
                    kind = "memorised" if memorised(job.source, outputs) else "accepted"
            verdict = {"verdict": kind, "message": result.message, "right": right, "source": job.source}
            found.append(verdict | {"outputs": []})
        fit = [i for i, verdict in enumerate(found) if verdict["verdict"] == "accepted"]
        chosen = [programs[i] for i in fit]
        jobs = [Job(source, calls(task["train"] + task["test"]), arrays=True) for source, task in chosen]
        for i, result in zip(fit, box.confirm(jobs)):
            if result.kind != "ok":
                found[i] |= {"verdict": result.kind, "message": result.message}
            elif not all(map(same, map(listed, result.values), shown[i])):
                found[i] |= {"verdict": "unstable", "message": "right beside other programs, wrong alone"}
            else:
                found[i]["outputs"] = list(map(listed, result.values[len(shown[i]) :]))
        return found

    def grid_of(self, example, frame, text, test):
        """Like judge, of a reply that gives the grid itself."""
        answers = [None] * len(example["test"])
        grid = self.writing.read(text.removeprefix(self.versions[0].lead))
        try:
            answers[test] = frame.back(grid) if grid else None
        except ValueError:
            pass
        verdict = "accepted" if answers[test] else "none"
        found = {"verdict": verdict, "message": "", "right": 0, "source": text}
        return found | {"answers": answers if answers[test] else None}

    def score(self, example, reply):
        """1 for a program that gives every shown and every hidden output; partial: the share of the shown."""
        return self.scored(example, self.judge([(self.task_of(example), Frame(), reply, 0)])[0])

    def scored(self, example, found):
        task = self.task_of(example)
        truth = [pair.get("output") for pair in task["test"]]
        right = found["answers"] is not None and found["answers"] == truth
        return {"score": float(right), "partial": found["right"] / len(task["train"]), **found}

    def play(self, examples, agent):
        """One program for each example, all of them judged together."""
        examples = [self.task_of(example) for example in examples]
        version, opening = self.versions[0], self.versions[0].opening(self.writing)
        prompts = [version.question(self.fitted(example), self.writing) for example in examples]
        replies = agent.reply(prompts, begin=opening, until=("```",) * bool(opening))
        tries = [(example, Frame(), reply.text, 0) for example, (reply, *_) in zip(examples, replies)]
        episodes = []
        for example, (reply, *_), found in zip(examples, replies, self.judge(tries)):
            result = self.scored(example, found)
            episodes.append(Episode(example, [{"reply": reply.text, **result}], [reply], result["score"]))
        return episodes

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, agent):
        """The figures of n replies to each example; none where programs cannot be run."""
        try:
            return self.summary([record for _, record in self.attempt(examples, agent)])
        except PermissionError as error:
            print(f"arc: not evaluated: {error}", file=sys.stderr)
            return self.summary([])

    def summary(self, records):
        """The figures of records whose answers are known: means over the tests of a task, then over tasks
        (arc_grids.scores); solved@k, the chance that of k replies one is right in every test of the task;
        precision, the share of answers that are right; and what became of the replies."""
        known = [record for record in records if all("output" in pair for pair in record["test"])]
        metrics, intervals, baselines, curve = {}, {}, {}, {}
        n = min((len(arc_files.attempts(record, 0)) for record in known), default=0)
        for split in sorted({record["split"] for record in known}):
            part = [record for record in known if record["split"] == split]
            for k in sorted({1, 8, 32, n} & {*range(n + 1)}, reverse=True):
                name, solved = f"solved@{k}{split}", mean(solved_at(record, k) for record in part)
                metrics[name], intervals[name] = solved, wilson(solved * len(part), len(part))
                if all("blind" in record for record in part):
                    baselines[name] = mean(pass_at(n, min(n, record["blind"]), k) for record in part)
        if known:
            for record in known:
                record["grids"] = self.grid_figures(record)
            names = known[0]["grids"][0]
            metrics |= {name: mean(mean(grid[name] for grid in r["grids"]) for r in known) for name in names}
            replies = [(record, reply) for record in known for reply in record["replies"]]
            right = [is_right(record, reply) for record, reply in replies if reply["answers"]]
            if right:
                metrics["precision"] = mean(right)
                intervals["precision"] = wilson(sum(right), len(right))
            verdicts = Counter(reply["verdict"] for _, reply in replies)
            metrics |= {f"verdict_{kind}": count / len(replies) for kind, count in verdicts.most_common()}
            sizes = {n} | {1 << i for i in range(n.bit_length())}
            curve = {k: mean(solved_at(record, k) for record in known) for k in sorted(sizes)}
        return {
            "n": len(known),
            "metrics": metrics,
            "intervals": intervals,
            "baselines": baselines,
            "curve": curve,
            "sandbox": self.box.level if self.box else "",
            "records": records,
        }

    def grid_figures(self, record):
        """The metrics of each test grid of a task."""
        found = []
        for t, pair in enumerate(record["test"]):
            grids, logps = zip(*arc_files.attempts(record, t))
            voted = vote(grids, 2, logps, self.options.vote == "probability")
            votes = {f"vote_{m}": float(pair["output"] in voted[:m]) for m in (1, 2)}
            found.append(scores(grids, pair["output"]) | votes)
        return found

    # -------------------------------------------------------------------------------------------- files
    def files(self, records):
        """What eval writes beside its report: predictions, what became of each reply, a submission."""
        return {
            "_predictions.json": arc_files.predictions(records),
            "_task_results.json": arc_files.task_results(records),
            "_submission.json": arc_files.submission(records, self.options.vote == "probability"),
        }

    def submit(self, path):
        """The submission of predictions or of another submission, checked against --data; --ensemble fills
        what it leaves open."""
        if not self.options.data:
            raise ValueError("--data: a submission is checked against its challenges, name their file")
        tasks = arc_files.read_tasks(self.options.data, "test")
        found = arc_files.as_submission(arc_files.loaded(path))
        arc_files.check_submission(found, tasks, path)
        if self.options.ensemble:
            other = arc_files.loaded(self.options.ensemble)
            arc_files.check_submission(other, tasks, self.options.ensemble)
            found = arc_files.combine(found, other)
        return found

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

    def interact(self, agent, read, show, seat, seed):
        """Show tasks, the model's programs and the voted answer (games.arc_terminal)."""
        from games import arc_terminal

        arc_terminal.show_tasks(self, agent, read, show, seed)

    def texts(self):
        """What a tokenizer for the training items should know."""
        rng = np.random.default_rng([self.seed, 4])
        examples = self.examples("train")
        return [
            message["content"]
            for example in examples[:2000]
            for item in self.items(example, rng)
            for message in item.messages
        ]


def said(version, task, writing):
    """The Chat that teaches a version of the prompt for a task, which has a program where that is asked."""
    if version.asks == "code":
        body = version.reply(task["program"], writing)
    elif version.asks == "input":
        *shown, last = task["train"]
        task, body = {"train": [{"input": pair["input"]} for pair in shown]}, last["input"]
        body = version.reply(body, writing)
    else:
        body = version.reply(task["test"][0]["output"], writing)
    question = version.question(task, writing, program=task.get("program", ""))
    return Chat([*question, {"role": "assistant", "content": body}], learn="last")


def mean(values):
    return float(np.mean(list(values)))


def calls(pairs):
    return [("task", [pair["input"]]) for pair in pairs]


def listed(value):
    """A grid whose rows, or which itself, are tuples as lists; all else as it is."""
    if type(value) not in (list, tuple):
        return value
    return [list(row) if type(row) is tuple else row for row in value]


def same(value, grid):
    return legal(value) and value == grid  # legal first: True == 1 == 1.0


def is_right(record, reply):
    """Whether a reply gives what it must: every test of its task, or the one it was asked about."""
    asked = range(len(record["test"])) if reply["test"] is None else (reply["test"],)
    return bool(reply["answers"]) and all(reply["answers"][t] == record["test"][t]["output"] for t in asked)


def solved_at(record, k):
    """The chance that k replies (to each test, where they differ by test) solve the task."""
    chance = 1.0
    for test in {reply["test"] for reply in record["replies"]}:
        part = [reply for reply in record["replies"] if reply["test"] == test]
        right = sum(is_right(record, reply) for reply in part)
        chance *= pass_at(len(part), right, k)
    return chance


def memorised(source, outputs):
    """Whether a program holds a shown output of four cells or more: as a list, as text, or because more than
    two fifths of its 20 or more tokens are digits."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    large = [grid for grid in outputs if len(grid) * len(grid[0]) > 3]
    flat = ["".join(str(cell) for row in grid for cell in row) for grid in large]
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple, ast.Constant)):
            try:
                found = ast.literal_eval(node)
            except (ValueError, TypeError, MemoryError, RecursionError):
                continue
            digits = re.sub(r"[^0-9]", "", str(found))
            if any(text in digits for text in flat):
                return True
    words = re.findall(r"[0-9]+|[^\W0-9]+|[^\s\w]", source)
    return len(words) >= 20 and sum(word.isdigit() for word in words) > 0.4 * len(words)
