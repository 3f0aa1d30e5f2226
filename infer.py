"""Use a trained model: python infer.py VERB

The verbs are play (the default), eval, sample, serve, collect, submit, merge, and rows, which needs no model.
Without --run or --model the newest run is used. Each verb is one function below; run_call() opens what the
flags name and calls it."""

import argparse
import csv
import io
import os
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

import checkpoint
import lora
import plots
import ranks
import sampler
import ttt
from agents import Classifier, Encoder, Model, Teacher, open_endpoint
from cache import Session
from card import Origin
from files import (
    COUNT,
    FLAG,
    OBJECT,
    TEXT,
    locked,
    map_of,
    new_file,
    write_json,
    write_rows,
    write_text,
)
from games import task_class
from games.rows import conversation, read_rows
from games.task import (
    Collects,
    EvaluatesRecords,
    HasAgents,
    Interactive,
    LearnsAtTestTime,
    Mines,
    Players,
    SubmitsPredictions,
    SubmitsProgram,
    SubmitsRows,
    first,
    tests_for,
)
from journal import Journal
from ranks import device_of
from recipes import VERBS, Infer, agent_flags, check_infer, cosmetic, nearest, parse, take_from_run
from reports import dropped_line, table
from rerankers import reranker_of
from runs import read_values, resolve
from terminal import UsageError, duration, exit_code, person

CHUNK = 256  # replies between two writes of the journal: a kill loses at most these
SAMPLING = "temperature", "top_k", "top_p", "min_p"
OURS = {"row", "made_from", "settings", "replies", "input"}  # fields of a row of replies that we write
REPLIES = "sample", "serve"  # verbs in which a model replies, whatever it was trained for
GREEDY_COPIES = "--n needs --temperature: at temperature 0 all {} are the same"


@dataclass
class Call:
    """What a verb works with."""

    cfg: Infer
    task: object
    point: checkpoint.Checkpoint | None = None  # the model that the flags name; None where none is needed
    players: Players = None

    @property
    def folder(self) -> str:
        """The name of the model in reports and journals."""
        if not self.point:
            return self.cfg.model
        return str(self.point.folder.resolve())  # the link runs/latest may move before a call is resumed


# ------------------------------------------------------------------------------------------------ opening
def model_name(cfg: Infer) -> str:
    """The model of a call: --model, --run, or the newest run."""
    return cfg.model or cfg.run or str(Path(cfg.runs) / "latest")


def with_task(argv: list[str]) -> list[str]:
    """The arguments, with --task of the run they name if they have none of their own.

    The task must be known before parsing, because each game has its own flags."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, default in (("--task", ""), ("--model", ""), ("--run", ""), ("--runs", "runs")):
        early.add_argument(name, default=default, nargs="?")
    # a flag without its value is left to the real parser, which explains it
    named, _ = early.parse_known_args(argv)
    if named.task:
        return argv
    saved = read_values(named.model or named.run or Path(named.runs or "", "latest"))
    if saved:
        task_class(saved["task"])  # of a file of the user's this call does not name, it raises UsageError
    return [*argv, "--task", saved["task"]] if saved else argv


def open_named(cfg: Infer, task) -> checkpoint.Checkpoint:
    """Open the model of a call. The kind of model follows from the loss the run was trained with; for a plain
    model folder, from the game's default loss."""
    name = model_name(cfg)
    is_run = Path(name, "run.json").exists()
    if not cfg.model and not is_run and cfg.run:
        raise FileNotFoundError(f"{name}: not a run (it has no run.json); name a model folder with --model")
    if not cfg.model and not is_run:
        raise FileNotFoundError(
            f"{cfg.runs} holds no run yet; make one with: python train.py --task {cfg.task}"
        )
    loss = read_values(name).get("loss") or task.loss
    point = open_model(cfg, name, "sft" if cfg.verb in REPLIES else loss)
    classifies = cfg.verb not in (*REPLIES, "merge") and loss in ("classify", "davidson")
    if classifies and not point.model.config.labels:
        raise ValueError(
            f"{name}: has no classifier; train one: python train.py --task {cfg.task} --model {name}"
        )
    return point


def open_model(cfg: Infer, name: str, loss: str = "sft") -> checkpoint.Checkpoint:
    """Open a run, a folder or a Hub name, laid out for speed; a model trained with the contrastive loss comes
    with its embedder. Merging keeps the layout and dtype of the file. --revision, --lora and --format apply
    to the model of the call, not to its judge or reranker."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device = device_of(cfg.device)
    is_named = name == model_name(cfg)  # else a judge, reranker or rival
    flags = dict(lora=cfg.lora, revision=cfg.revision or None, format=cfg.format) if is_named else {}
    head = "none" if loss == "contrastive" and not flags.get("lora") else "own"
    if cfg.verb == "merge":
        point = checkpoint.open(name, head, device=device, tokenizer=False, **flags)
        lora.merge_lora(point.model)
        return point
    learns = bool(is_named and cfg.ttt_steps)  # then its adapter must stay apart from the weights
    point = checkpoint.open_to_play(name, head, cfg.dtype, device, cfg.quantize, learns, is_named, **flags)
    if learns:
        make_learnable(point.model)
    return point


def make_learnable(model):
    """Prepare for test-time training of the model's adapter, or of all weights if it has none."""
    if not lora.adapters(model):
        model.requires_grad_(True)
    if model.device.type == "cpu":
        model.float()  # whatever --dtype says


def agent_of(cfg: Infer, point: checkpoint.Checkpoint, task=None):
    """Make an agent of the model. With a task, --n, --temperature and --max-new default to the task's."""
    if point.embedder:
        return Encoder(point.embedder, Path(cfg.runs, "cache"))
    if point.model.config.labels:
        return Classifier(point.model, point.tokenizer, cfg.max_tokens)
    if task:
        # set in cfg, because attempts() records these settings in its journal
        for name in ("n", "temperature", "max_new"):
            if name not in cfg.origin:
                setattr(cfg, name, getattr(task.evaluation, name))
        if cfg.n > 1 and not (cfg.temperature or task.evaluation.varied):
            raise UsageError(GREEDY_COPIES.format("replies"))
    sampling = {name: getattr(cfg, name) for name in SAMPLING}
    return Model(point.model, point.tokenizer, cfg.max_new, **sampling, seed=cfg.seed)


class Opener:
    """Opens the agents that a game's flags name, each only once."""

    def __init__(self, cfg: Infer, task):
        self.cfg = cfg
        self.task = task
        self.opened = {}  # name -> agent

    def open_modelless(self, name: str, marks: dict):
        """Open an agent that needs no model here: one of the game's, or an OpenAI-compatible endpoint, URL or
        URL#MODEL (with the key in PARLOR_KEY). None for any other name. marks: see games.task.flag."""
        if isinstance(self.task, HasAgents):
            if agent := self.task.agent_named(name, lambda inner: self.open(inner, marks)):
                return agent
        if "://" not in name:  # a Teacher refuses all but http and https
            return None
        return open_endpoint(name, self.cfg.options, marks, self.max_new(marks))

    def max_new(self, marks: dict) -> int:
        """The longest reply of an agent, in tokens."""
        return marks.get("max_new") or self.task.evaluation.max_new

    def open(self, name: str, marks: dict):
        """Open an agent: one that needs no model, or a run or a model folder."""
        if agent := self.open_modelless(name, marks):
            return agent
        if name not in self.opened:
            kind = "classify" if marks["agent"] == "classify" else "sft"
            point = open_model(self.cfg, name, kind)
            if kind == "classify":
                self.opened[name] = reranker_of(point, self.cfg.max_tokens, marks["instruct"])
            elif point.model.config.labels:
                self.opened[name] = Classifier(point.model, point.tokenizer, self.cfg.max_tokens)
            else:
                self.opened[name] = Model(point.model, point.tokenizer, self.max_new(marks))
        return self.opened[name]

    def named(self) -> dict:
        """{flag: agent} for the flags that name agents other than the player."""
        agents = {}
        for flag, marks in agent_flags(self.cfg.options).items():
            name = getattr(self.cfg.options, flag)
            if name and name not in marks.get("words", ()):
                agents[flag] = self.open(name, marks)
        return agents


# ------------------------------------------------------------------------------------------------ outputs
def files_beside(cfg: Infer, task) -> dict[str, Path]:
    """{ending: path} of the files that the call writes beside --out."""
    endings = ()
    if cfg.verb == "eval" and isinstance(task, EvaluatesRecords):
        endings = task.files([])
    elif cfg.verb == "collect" and isinstance(task, Mines):
        endings = ["_pool.jsonl"]
    out = Path(cfg.out)
    return {ending: out.with_name(out.stem + ending) for ending in endings}


@contextmanager
def outputs_locked(cfg: Infer, task):
    """Keep the files that the call writes for this process, before anything is opened or computed.

    Raises UsageError if the verb needs --out, FileExistsError if a file exists (but replies to a file of
    prompts are continued), BlockingIOError if another process writes it."""
    continues = cfg.verb == "sample" and cfg.prompts
    if not cfg.out and (continues or cfg.verb in ("collect", "submit", "merge", "rows")):
        raise UsageError(f"{cfg.verb} needs --out FILE")
    paths = [cfg.out, *files_beside(cfg, task).values()] if cfg.out else []
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(locked(path))
            # a call that was killed at its end leaves files beside its journal
            if not continues and (path == cfg.out or not Path(f"{cfg.out}.part").exists()):
                new_file(path)
        yield


# ------------------------------------------------------------------------------------------------ verbs
def play(call: Call):
    """Play with a person, or with lines piped to standard input; without any input, play one scripted game.
    --out FILE keeps the game, for tasks that return what was played."""
    cfg = call.cfg
    task = call.task
    if not isinstance(task, Interactive):
        raise UsageError(f"play: --task {cfg.task} cannot be played in the terminal; try eval")
    seat = cfg.seat or task.seats[0]
    if seat not in task.seats:
        raise UsageError(f"--seat {seat}: must be {' or '.join(task.seats)}")
    read, show = person()
    seed = cfg.seed or int.from_bytes(os.urandom(4), "big")
    played = task.interact(call.players, read, show, seat, seed)
    if cfg.out and played:
        write_rows(cfg.out, played)
        print(f"written: {cfg.out}")


def evaluate(call: Call):
    """Score the model on the first --limit test examples and print the metrics. --out FILE keeps them, and
    the game may write further files next to it. A game with many replies resumes after a kill."""
    cfg = call.cfg
    task = call.task
    out = cfg.out
    began = time.time()
    examples = tests_for(task, cfg.limit, call.players.trained_on)
    if isinstance(task, EvaluatesRecords):
        players = call.players
        if cfg.ttt_steps:  # the report then states that the model learned from the shown pairs
            shown = {f"shown:{example['id']}" for example in examples}
            players = replace(players, trained_on=players.trained_on | shown)
        result = task.summary(attempts(call, examples), players)
    else:
        result = task.evaluate(examples, call.players)

    records = result.pop("records")
    print("\n".join(table(result, verbose=cfg.verbose, file=out)))
    print(f"in {duration(time.time() - began)}")
    if not out:
        return

    beside = files_beside(cfg, task)
    files = task.files(records) if beside else {}
    for ending, path in beside.items():
        write_json(path, files[ending])
        print(f"written: {path}")
    about = {"format": 1, "task": cfg.task, "seed": cfg.seed, "model": call.folder}
    write_json(out, {**about, **result, "records": records})
    print(f"written: {out}")
    Path(f"{out}.part").unlink(missing_ok=True)  # the journal of attempts()
    if result.get("curve"):
        plots.main([out])  # without matplotlib it prints how to install it


def collect(call: Call):
    """Write training rows for --data, made from replies to the first --limit training examples, to the new
    file --out; resumes after a kill. A game that learns vectors writes hard negatives instead, for all
    examples unless --limit is given, and the pool of all texts to a second file."""
    cfg = call.cfg
    task = call.task
    out = cfg.out
    if isinstance(task, Mines):
        return mine(call)
    examples = first(task.examples(task.collect_split), cfg.limit)
    records = attempts(call, examples)
    rows = []
    for record in records:
        rows += task.collected(record)
    write_rows(out, rows)
    for line in task.tally(records):
        print(line)
    if isinstance(call.players.player, Teacher):
        print(call.players.player.bill())
    for part in (f"{out}.part", f"{out}.replies.part"):  # the journals of attempts() and of an endpoint
        Path(part).unlink(missing_ok=True)
    print(f"written: {out}, {len(rows):,} rows of {len(records):,} examples")
    if task.dropped:
        print(f"dropped: {dropped_line(task.dropped)}")


def mine(call: Call):
    """Write hard negatives, or the model's ranking of the training examples, and the pool of all texts."""
    cfg = call.cfg
    task = call.task
    (pool,) = files_beside(cfg, task).values()
    if not read_values(model_name(cfg)):  # a plain model folder, no run
        print(
            "warning: this model was not trained for the game. Its hard negatives can do more harm than\n"
            "random ones: first train a round without them, then mine with that run."
        )
    # hard negatives come from all examples unless --limit is given: its default is that of evaluations
    rows, texts = task.mined(call.players, cfg.limit if "limit" in cfg.origin else 0)
    for path, content in ((cfg.out, rows), (pool, texts)):
        if content:
            write_rows(path, content)
            print(f"written: {path}, {len(content):,} rows")
    print(f"dropped: {dropped_line(task.dropped)}")


def journal_settings(call: Call, *names) -> dict:
    """What a journal's rows depend on: the model, and flags. With others it refuses to go on."""
    settings = {"model": call.folder}
    for name in ("lora", "revision", "format", "quantize", "dtype", "seed", *names):
        settings[name] = getattr(call.cfg, name)
    if call.point:  # what "auto" is differs between machines
        settings["dtype"] = str(call.point.model.embed.weight.dtype).removeprefix("torch.")
    return settings


def attempts(call: Call, examples: list) -> list:
    """The task's records of the examples. With --out FILE, FILE.part keeps the finished ones, so that a
    killed call can resume."""
    cfg = call.cfg
    task = call.task
    players = call.players

    names = ["n", *SAMPLING, "max_new"]
    if cfg.ttt_steps:
        names += ["ttt_steps", "ttt_rounds", "ttt_tasks", "ttt_batch"]
    settings = journal_settings(call, *names)
    ignored = cosmetic(cfg.options)
    for name, value in vars(cfg.options).items():
        if name not in ignored:
            settings[name] = value
    journal = Journal(f"{cfg.out}.part" if cfg.out else "", settings, {"record": OBJECT})

    def work(start, part, bar):
        for agent in (players.player, *players.named.values()):
            if hasattr(agent, "start_part"):  # an endpoint counts equal requests within a part
                agent.start_part(start)
        if cfg.ttt_steps:
            records = ttt.attempt(cfg, task, players, part)
        else:
            records = task.attempt(part, players)
        for place, record in records:
            yield place, {"record": record}
            for line in task.lines(record) if cfg.verbose else ():
                bar.write(line)

    # a part is a group of tasks that are learned from together, or as many as make CHUNK replies
    size = cfg.ttt_tasks if cfg.ttt_steps else max(1, CHUNK // cfg.n)
    journal.fill(examples, size, "task", work)
    return [journal.rows[i]["record"] for i in range(len(examples))]


def sample_rows(call: Call):
    """Reply --n times to every row of --prompts, one line of --out each. An existing --out is continued: its
    rows are not made again. Each reply has its own random stream, seeded by (seed, row, sample)."""
    cfg = call.cfg
    model = call.point.model
    tokenizer = call.point.tokenizer
    if cfg.n > 1 and not cfg.temperature:
        raise UsageError(GREEDY_COPIES.format("replies"))
    sampling = {name: getattr(cfg, name) for name in SAMPLING}
    journal = Journal(cfg.out, journal_settings(call, "n", *SAMPLING, "max_new"))
    rows = []  # (row, ids of its prompt)
    for where, row in read_rows(cfg.prompts):
        rows.append((row, tokenizer.prompt(conversation(where, row))))
    to_do = sum(i not in journal.rows for i in range(len(rows)))
    print(f"{len(journal.rows):,} rows done before, {to_do:,} to do")
    began = time.time()
    tokens = 0

    def work(start, part, bar):
        nonlocal tokens
        prompts = []
        seeds = []
        for i, (_, ids) in enumerate(part):
            prompts += [ids] * cfg.n
            seeds += [[cfg.seed, start + i, j] for j in range(cfg.n)]
        # each part has a session of its own, or its log-probabilities would depend on the part before it
        options = dict(seeds=seeds, session=Session(model), **sampling)
        replies = iter(sampler.generate(model, prompts, cfg.max_new, tokenizer.stop_ids, **options))
        for i, (row, _) in enumerate(part):
            shown = []
            for reply in islice(replies, cfg.n):
                tokens += len(reply.ids)
                text = tokenizer.decode(reply.ids)
                shown.append({"text": text, "logp": reply.logp, "finished": reply.finished})
            collisions = {name: row[name] for name in row if name in OURS}
            kept = {"input": collisions} if collisions else {}
            yield i, row | {"replies": shown} | kept
        bar.set_postfix_str(f"{tokens / (time.time() - began):,.0f} tok/s")

    journal.fill(rows, max(1, CHUNK // cfg.n), "row", work)
    spent = time.time() - began
    print(f"written: {cfg.out}; {tokens:,} tokens in {duration(spent)}, {tokens / spent:,.0f} tok/s")


def sample(call: Call):
    """Reply --n times to --prompt, or to every row of --prompts."""
    cfg = call.cfg
    if cfg.prompts:
        return sample_rows(call)
    if not cfg.prompt:
        raise UsageError("sample needs --prompt TEXT or --prompts FILE")
    conversation = [{"role": "user", "content": cfg.prompt}]
    for reply in call.players.player.reply([conversation], cfg.n)[0]:
        print(reply.text)


def merge(call: Call):
    """Write the model with its adapter merged, and its tokenizer and settings, to the new folder --out.

    The file merged.json in it lists the adapters, so that none is added twice."""
    cfg = call.cfg
    point = call.point
    name = resolve(cfg.lora or model_name(cfg))
    if not (name / "adapter_config.json").exists():
        raise ValueError(
            f"{name} is no adapter: there is nothing to merge (name an adapter for it with --lora)"
        )
    # an adapter in a run or folder of its own names its base
    base = resolve(model_name(cfg), cfg.revision or None) if cfg.lora else resolve(*lora.read_base(name))
    command = ["infer.py", "merge", "--model", model_name(cfg)]
    if cfg.lora:
        command += ["--lora", cfg.lora]
    checkpoint.save_merged(point, base, name, cfg.out, Origin(command))
    print(f"written: {cfg.out}")


def rows(call: Call):
    """Write the training examples, as the game reads them from --data, to the new file --out."""
    cfg = call.cfg
    task = call.task
    examples = task.examples("train")
    write_rows(cfg.out, examples)
    print(f"written: {cfg.out}, {len(examples):,} rows")
    print(f"dropped: {dropped_line(task.dropped)}")


def submit(call: Call):
    """Write a submission: from --predictions, a file that eval wrote; from the model's answers to the test
    rows of --data; or the model packed as a program that plays. The game checks it against its data."""
    cfg = call.cfg
    task = call.task
    if cfg.predictions:
        if not isinstance(task, SubmitsPredictions):
            raise UsageError("--predictions: this game needs a model instead, --run or --model")
        write_json(cfg.out, task.submit(cfg.predictions))
    elif isinstance(task, SubmitsProgram):
        package(call)
    elif isinstance(task, SubmitsRows):
        answers = task.submission(call.players)
        if not answers:
            raise ValueError("there are no test rows to make a submission for")
        text = io.StringIO()
        writer = csv.DictWriter(text, answers[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(answers)
        write_text(cfg.out, text.getvalue())
    else:
        raise UsageError("submit needs --predictions FILE, written by eval")
    print(f"written: {cfg.out}")


def package(call: Call):
    """Pack the model as a program that plays."""
    cfg = call.cfg
    agent = call.players.player
    name = resolve(cfg.lora or model_name(cfg))
    if (name / "adapter_config.json").exists():
        flags = f"--model {model_name(cfg)}" + (f" --lora {cfg.lora}" if cfg.lora else "")
        raise ValueError(
            f"{name} is an adapter: merge it first, python infer.py merge --task {cfg.task} {flags} "
            "--out FOLDER, and submit --model FOLDER"
        )
    settings = {"max_new": agent.max_new, "seed": agent.seed, **agent.sampling}
    call.task.package(cfg.out, call.point.folder, cfg.format, settings)


def serve(call: Call):
    """Answer OpenAI's clients at --host and --port until Ctrl-C or SIGTERM."""
    import serve as endpoint  # only here

    endpoint.serve(call.cfg, call.point, model_name(call.cfg))


RUN = dict(zip(VERBS, (play, evaluate, sample, collect, submit, merge, rows, serve)))


# ------------------------------------------------------------------------------------------------ a call
def stand_in(cfg: Infer):
    """(flag, marks) of the flag that names a player in place of the model, or None; see games.task.flag."""
    for flag, marks in agent_flags(cfg.options, cfg.verb).items():
        if getattr(cfg.options, flag):
            return flag, marks
    return None


def needs_model(cfg: Infer, task) -> bool:
    """Whether the verb needs a model."""
    if cfg.verb == "play":
        return not isinstance(task, Interactive) or task.needs_model()
    if cfg.verb == "submit":
        return not cfg.predictions and isinstance(task, (SubmitsProgram, SubmitsRows))
    return cfg.verb != "rows"


def replacement(cfg: Infer, opener: Opener, flag: str, marks: dict) -> Players | None:
    """The Players that a flag names in place of the model, or None if it names a run or a model folder."""
    value = getattr(cfg.options, flag)
    if not isinstance(value, str):  # a list of players
        names = [name for name in (cfg.model or cfg.run, *value) if name]
        rivals = {name: opener.open(name, marks) for name in names}
        return Players(named={**opener.named(), flag: rivals})
    settings = dict(temperature=cfg.temperature)
    if value.startswith("http"):  # replies cost money: keep them through a kill
        fields = {"text": TEXT, "finished": FLAG, "usage": map_of(COUNT)}
        settings["journal"] = Journal(f"{cfg.out}.replies.part", {}, fields)
    marks = {**marks, "settings": settings}
    if "max_new" in cfg.origin:
        marks["max_new"] = cfg.max_new
    agent = opener.open_modelless(value, marks)
    if isinstance(agent, Teacher) and cfg.n > 1 and not cfg.temperature:
        raise UsageError(GREEDY_COPIES.format("games"))
    return agent and Players(agent, n=cfg.n)


def open_call(cfg: Infer, task, instead) -> Call:
    """Open the agents that the flags name, and the model if the verb needs one. instead: see stand_in."""
    opener = Opener(cfg, task)
    players = replacement(cfg, opener, *instead) if instead else None
    if players or not needs_model(cfg, task):
        for name in () if opener.opened else ("lora", "revision", "format", "quantize"):
            if name in cfg.origin:
                raise UsageError(f"--{name}: no model is opened in this call; drop the flag")
        return Call(cfg, task, None, players or Players(n=cfg.n))
    point = open_named(cfg, task)
    if cfg.verb in ("merge", "serve"):
        return Call(cfg, task, point)
    # these verbs play as an evaluation does; the others take their flags as they stand
    evaluated = cfg.verb in ("play", "eval", "collect") or isinstance(task, SubmitsProgram)
    agent = agent_of(cfg, point, task if evaluated and cfg.verb != "sample" else None)
    named = {} if cfg.verb == "sample" else opener.named()
    return Call(cfg, task, point, Players(agent, named, cfg.n, trained_on=point.trained_on))


def share_rows(cfg: Infer, task, instead):
    """Prepare for the other ranks, which share the rows of a journal: the first one speaks."""
    shares = {"sample": cfg.prompts, "eval": isinstance(task, EvaluatesRecords)}
    shares["collect"] = not isinstance(task, Mines)
    if instead or not shares.get(cfg.verb):
        raise UsageError(f"torchrun: this call of {cfg.verb} has no rows to share; run it without torchrun")
    if not ranks.is_first():
        sys.stdout = open(os.devnull, "w")


def run_call(argv: list[str]):
    """Parse a call, open what it names, and run its verb."""
    cfg = parse(Infer, with_task(argv))
    if cfg.verb not in VERBS:
        raise UsageError(f"{cfg.verb}: unknown verb{nearest(cfg.verb, VERBS)} (known: {', '.join(VERBS)})")
    check_infer(cfg)
    instead = stand_in(cfg)
    if instead and isinstance(name := getattr(cfg.options, instead[0]), str):
        if cfg.model or cfg.run:
            raise UsageError(f"--{instead[0]}: takes the place of --run or --model; drop one of them")
        cfg.model = name  # it may be a run or a folder, which open_call then opens as the model
    # a run is played with the game's settings that it was trained with
    take_from_run(cfg, read_values(model_name(cfg)))
    task = task_class(cfg.task)(cfg.options, cfg.seed)
    if cfg.ttt_steps and not isinstance(task, LearnsAtTestTime):
        raise UsageError(f"--ttt-steps: --task {cfg.task} has nothing to learn from at test time")
    if cfg.verb == "collect" and not isinstance(task, (Collects, Mines)):
        raise UsageError(f"collect: --task {cfg.task} makes no training rows from replies")
    if ranks.count() > 1:  # all ranks refuse alike, before one waits for another
        share_rows(cfg, task, instead)
    ranks.join(device_of(cfg.device))
    with outputs_locked(cfg, task) if ranks.is_first() else nullcontext():
        RUN[cfg.verb](open_call(cfg, task, instead))


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 2 wrong call, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_code("infer.py", lambda: run_call(argv))


if __name__ == "__main__":
    ranks.leave(main())
