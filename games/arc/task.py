"""ARC by programs: a model sees a task's example pairs and writes a Python function for them. Programs that
give every shown output in the sandbox answer the test and vote; where none does there is no answer.

Read examples and items for what is learned, attempt for what is asked, judge for what counts, summary for the
figures. Around it: arc_prompts (the words), arc_grids (text, frames, votes, scores), arc_files (tasks in,
submissions out), arc_search (learning from own programs, refining them, judging answers), sandbox (runs
programs), worlds/arc (tasks without end, each with its program)."""

import sys
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from games.arc import dsl as arc_dsl
from games.arc import files as arc_files
from games.arc import hindsight as arc_search
from games.arc import world
from games.arc.grids import GRIDS, VIEWS, Frame, legal, scores, vote
from games.arc.prompts import PROMPTS, WORDS, said
from games.sandbox.sandbox import Job, Sandbox
from games.task import Episode, Task, pass_at, wilson

TESTS = {  # of the world: tasks of seen families, and two kinds that training never shows
    "": {},
    "/parameters": {"held_out": True},
    "/compositions": {"held_out": True, "compositions": 1.0},
}
CYCLE = "", "/parameters", "", "/compositions"  # so any beginning of the test tasks has a share of each


@dataclass
class Options:
    data: str = ""  # real tasks: a challenges file, FILE:SET, a folder; or A.jsonl,B.jsonl that collect wrote
    prompt_version: str = "code"  # names in games/arc/prompts.py; of several, an item has any
    grid: str = "digits"  # how grids are written: digits, spaced, fenced, numbers, shape, full, letters
    frames: int = 1  # evaluation: views of a task, a prompt each, over which --n replies are spread; 0: --n
    maps: float = 0.0  # training on real tasks: share of frames that pad, enlarge or mirror one side
    side: int = 30  # real tasks: leave out those with a longer side of a grid
    cells: int = 0  # leave out a prompt's last pairs until it has at most so many cells; 0 keeps all
    shots: int = 3  # programs: lessons a task gives, from all its pairs, all but one, all but two ...
    compositions: float = 0.2  # world: share of training tasks of two families
    rest: float = 0.0  # world: share of these taught as what is left after the first step (for --refine)
    tasks: int = 100_000  # world: training tasks in an epoch
    tests: int = 400  # world: test tasks, half of seen families, the rest of unseen parameters and pairs
    only: str = ""  # world: test tasks of this kind alone, parameters or compositions
    views: int = 4  # collect: the shown inputs as they are and in so many other views, to run programs on
    collect_from: str = "train"  # collect: train, or test: of these what is shown, never a test's output
    best: int = 25  # learning from programs that collect wrote: of each task so many of the best ...
    worst: int = 25  # ... and of the worst by shown pairs that they give
    refine: int = 0  # evaluation: of the --n replies, so many improve on the most promising programs
    refine_prompt: str = "code"  # its version: code writes what is missing, refine the whole program anew
    ties: str = ""  # ties of the vote go to the answer that this version prefers: verify, select, ...
    judge: str = ""  # the run or model that is asked, by default the one that answers
    vote: str = "count"  # programs that give the same answer count one each, or by probability
    seconds: float = 1.0  # time of a program
    memory: int = 512  # MB that a program may take
    workers: int = 1  # programs at a time
    unsafe_exec: bool = False  # run programs on a machine that can not lock them in
    ensemble: str = ""  # submit: predictions or submissions A,B ... for what ours leaves open, in this order
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
            ("only", self.options.only, ("", *(kind[1:] for kind in TESTS))),
            ("collect-from", self.options.collect_from, ("train", "test")),
            ("refine-prompt", self.options.refine_prompt, [x for x in PROMPTS if PROMPTS[x].asks == "code"]),
            ("ties", self.options.ties, ["", *(x for x in PROMPTS if PROMPTS[x].asks in WORDS)]),
        ):
            if value not in known:
                raise ValueError(f"--{name} {value}: unknown (known: {', '.join(known)})")
        if "://" in self.options.judge:
            raise ValueError("--judge: must be a run or a model, whose probabilities are compared")
        self.versions, self.writing = [PROMPTS[name] for name in names], GRIDS[self.options.grid]
        self.box, self.splits, self.collects = None, {}, self.options.collect_from
        self.got = {}  # (id of an example, frame, program) -> outputs for the shown pairs, None if not grids
        self.learned = self.options.data.endswith(".jsonl")  # --data is what collect wrote

    # -------------------------------------------------------------------------------------------- training
    def examples(self, split):
        """Real tasks, the sets train and eval; tasks of the world, those to train on as numbers; or, to train
        on, what collect wrote."""
        if split not in self.splits:
            make = self.real_tasks if self.options.data and not self.learned else self.world_tasks
            if self.learned and split == "train":
                make = self.collected_tasks
            self.splits[split] = make(split)
        return self.splits[split]

    def collected_tasks(self, split):
        paths, o = self.options.data.split(","), self.options
        return arc_search.read(self, paths, o.best, o.worst)

    def world_tasks(self, split):
        """Numbers of tasks to train on; or tasks that are for evaluation only, task i by (seed, split, i)."""
        if split == "train":
            return [{"id": f"train-{i}", "number": i} for i in range(self.options.tasks)]
        usual, found = {"compositions": self.options.compositions}, []
        for i in range(64 if split == "valid" else self.options.tests):
            kind = "" if split == "valid" else CYCLE[i % len(CYCLE)]
            if split == "test" and self.options.only not in ("", kind[1:]):
                continue
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
            return arc_search.items(self, example, rng)
        version = self.versions[rng.integers(len(self.versions))]
        task = example if "train" in example else self.drawn(rng)
        if self.options.rest and "+" in task.get("family", "") and rng.random() < self.options.rest:
            task = world.rest(task)
        rival = world.mistaken(task, rng) if version.needs_rival and "program" in task else None
        if (version.asks == "code" or version.needs_rival) and "program" not in task:
            raise ValueError("--prompt-version: these tasks have no programs, take output-from-examples-v1")
        if "program" not in task:
            pairs = [pair for pair in task["train"] + task["test"] if "output" in pair]
            order, shown = rng.permutation(len(pairs)), min(len(task["train"]), len(pairs) - 1)
            task = {
                "train": [pairs[i] for i in order[:shown]],
                "test": [pairs[i] for i in order[shown:]][:1],
            }
            task = Frame.draw(task, rng, maps=self.options.maps).task(task)
        return self.taught(version, task, rival, rng)

    def taught(self, version, task, rival, rng):
        """The Chats for a version of the prompt. A program is taught from fewer pairs as well: they share
        their beginning, so that costs little, and what fewer pairs leave open is what samples should spread
        over."""
        pairs = task["train"]
        shots = min(self.options.shots, len(pairs)) if version.asks == "code" else 1
        cuts = [{**task, "train": pairs[: len(pairs) - i]} for i in range(max(1, shots))]
        return [said(version, cut, self.writing, rival, rng) for cut in cuts]

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

    def attempt(self, examples, agent, records=None, n=None):
        """n replies to each example (to each of its tests, where the prompt shows it) and what became of
        them: (place, record) of each example. With records there are, n more replies into these."""
        version, n = self.versions[0], n or self.n
        refined = self.options.refine * n // self.n
        if (
            version.asks not in ("code", "output")
            or version.refines
            or version is PROMPTS["output-from-code-v0"]
        ):
            raise ValueError("--prompt-version: the first must ask for programs or for the test's output")
        if refined and (version.asks != "code" or refined >= n):
            raise ValueError(f"--refine {refined}: needs programs, and a larger --n than {n}")
        examples, asked = [self.task_of(example) for example in examples], []
        if not records:
            records = [self.record(example) for example in examples]
            self.got.clear()
        n -= refined
        for i, example in enumerate(examples):
            frames = self.frames(example, min(n, self.options.frames or n))
            tasks = [self.fitted(frame.task(example)) for frame in frames]
            for test in range(len(example["test"])) if version.test else (None,):
                questions = [version.question(task, self.writing, test) for task in tasks]
                asked += [
                    (i, frames[k % len(frames)], test, questions[k % len(frames)], "") for k in range(n)
                ]
        self.ask(version, examples, records, asked, agent)
        if refined:
            arc_search.refine(self, examples, records, agent, refined)
        if self.options.ties:
            arc_search.prefer(self, examples, records, agent)
        return enumerate(records)

    def ask(self, version, examples, records, asked, agent):
        """One reply to each of `asked`, (number of the example, frame, test, messages, a program that the
        reply goes behind or ""), into its record."""
        control = {"begin": version.opening(self.writing)}
        if control["begin"]:
            control["until"] = ("```",)
        replies = [reply for reply, *_ in agent.reply([question for *_, question, _ in asked], **control)]
        tries = []
        for (i, frame, test, _, first), reply in zip(asked, replies):
            whole = first and arc_search.chained(first, version.program(reply.text))
            text = version.reply(whole, self.writing) if first else reply.text
            tries.append((examples[i], frame, text, test))
        for (i, frame, test, *_), reply, found in zip(asked, replies, self.judge(tries, version)):
            records[i]["replies"].append(
                {"test": test, "logp": reply.logp, "tokens": len(reply.ids), "frame": vars(frame), **found}
            )

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

    def judge(self, tries, version=None):
        """What became of replies, each an (example, frame, text, test): dicts with "verdict" (accepted,
        wrong, memorised, unstable, none, or a kind of sandbox.Result), "message", "right" (shown pairs that
        the program gives), "source" and "answers": None, or a grid or None for each test of the example,
        brought back from the frame. What a program got for the shown pairs is kept in self.got."""
        version, tasks, programs, found = version or self.versions[0], {}, {}, []
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
            verdict = {k: value for k, value in verdicts[key].items() if k not in ("outputs", "got")}
            self.got[key] = verdicts[key]["got"]
            found.append(verdict | {"answers": answers if any(answers) else None})
        return found

    def outputs(self, programs):
        """What programs, (source, task), do with the shown inputs, run beside others: a list of (kind of
        sandbox.Result, message, the outputs if they are grids)."""
        asked, found = {}, []
        for _, task in programs:  # what jobs share is written for the sandbox once
            asked.setdefault(id(task["train"]), calls(task["train"]))
        jobs = [Job(source, asked[id(task["train"])], arrays=True) for source, task in programs]
        for result in self.sandbox().run(jobs):
            grids = list(map(listed, result.values)) if result.kind == "ok" else None
            fine = grids is not None and all(map(legal, grids))
            kind = "output" if result.kind == "ok" and not fine else result.kind
            found.append((kind, result.message, grids if fine else None))
        return found

    def verify(self, programs):
        """The verdicts on programs, (source, task), as in judge, with what they "got" for the shown pairs, if
        these are grids, and the "outputs" for the tests. They are run beside others first and, those that
        give every shown output, twice in processes of their own: only what they give there counts."""
        found = []
        shown = [[pair["output"] for pair in task["train"]] for _, task in programs]
        for (source, _), outputs, (kind, message, got) in zip(programs, shown, self.outputs(programs)):
            right = sum(map(same, got, outputs)) if got else 0
            if kind == "ok":
                kind = "wrong"
                if right == len(outputs):
                    kind = "memorised" if arc_search.memorised(source, outputs) else "accepted"
            verdict = {"verdict": kind, "message": message, "right": right, "source": source}
            found.append(verdict | {"got": got, "outputs": []})
        fit = [i for i, verdict in enumerate(found) if verdict["verdict"] == "accepted"]
        chosen = [programs[i] for i in fit]
        jobs = [Job(source, calls(task["train"] + task["test"]), arrays=True) for source, task in chosen]
        for i, result in zip(fit, self.sandbox().confirm(jobs)):
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
        judged = self.judge(tries)
        self.got.clear()  # of games by the thousand
        for example, (reply, *_), found in zip(examples, replies, judged):
            result = self.scored(example, found)
            parts = {"right": result["score"], "shown": result["partial"]}
            parts["memorised"] = float(result["verdict"] == "memorised")
            turn = {"reply": reply.text, **result}
            episodes.append(Episode(example, [turn], [reply], result["score"], parts))
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
        shown = sum(f"shown:{record['id']}" in self.seen for record in records)
        notes = [
            f"test-time training: of {shown} tasks the model learned from what they show, no output of a test"
        ]
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
            "notes": notes if shown else [],
            "sandbox": self.box.level if self.box else "",
            "records": records,
        }

    def grid_figures(self, record):
        """The metrics of each test grid of a task."""
        found = []
        for t, pair in enumerate(record["test"]):
            grids, logps = zip(*arc_files.attempts(record, t))
            ranks = {"vote": vote(grids, 2, logps, self.options.vote == "probability")}
            if "order" in record:  # ties of the vote by it, and it alone
                order = record["order"][t]
                ranks |= {
                    "untied": vote(grids, 2, logps, self.options.vote == "probability", order),
                    "judge": order,
                }
            votes = {
                f"{name}_{m}": float(pair["output"] in rank[:m])
                for name, rank in ranks.items()
                for m in (1, 2)
            }
            found.append(scores(grids, pair["output"]) | votes)
        return found

    def answers(self, record, test):
        """The different answers to a test."""
        return arc_files.distinct([grid for grid, _ in arc_files.attempts(record, test)])

    # -------------------------------------------------------------------------------------------- files
    def collected(self, record):
        return arc_search.collected(self, record)

    def lessons(self, examples, records):
        return arc_search.lessons(self, examples, records)

    def files(self, records):
        """What eval writes beside its report: predictions, what became of each reply, a submission."""
        return {
            "_predictions.json": arc_files.predictions(records),
            "_task_results.json": arc_files.task_results(records),
            "_submission.json": arc_files.submission(records, self.options.vote == "probability"),
        }

    def submit(self, path):
        """The submission of predictions or of another submission, checked against --data. The attempts of
        several files A,B ... vote together, as those of one run; --ensemble fills what they leave open."""
        if not self.options.data:
            raise ValueError("--data: a submission is checked against its challenges, name their file")
        tasks = arc_files.read_tasks(self.options.data, "test")
        found = arc_files.pooled(path.split(","), tasks)
        for other in self.options.ensemble.split(",") if self.options.ensemble else ():
            found = arc_files.combine(found, arc_files.pooled([other], tasks))
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
        """Show tasks, the model's programs and the voted answer (games.arc.terminal)."""
        from games.arc import terminal as arc_terminal

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
