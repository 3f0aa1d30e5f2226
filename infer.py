"""Everything done with a trained model, and what goes with it: python infer.py VERB

The verbs are play, eval, sample, collect, submit, merge and, without a model, rows. Without one it plays,
with the newest run. Each verb is one function below; main() opens what the call names and calls it."""

import argparse
import csv
import hashlib
import io
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

import checkpoint
import lora
import plots
import sampler
import ttt
from agents import Classifier, Encoder, Journal, Model, Teacher
from cache import Session
from embed import save_embedder
from files import new_file, optional_json, replacing, write_json, write_rows, write_text
from fused import fuse
from games import task_class
from games.rows import read_rows
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
from model import save
from ranks import device_of, dtype_of
from recipes import VERBS, Infer, agent_flags, cosmetic, nearest, parse, take_from_run
from reports import dropped_line, table
from runs import read_values, resolve
from terminal import UsageError, duration, exit_code, person, printable

CHUNK = 256  # replies between two writes
SAMPLING = "temperature", "top_k", "top_p", "min_p"
GREEDY_COPIES = "--n without --temperature: at temperature 0 all {} are the same"


@dataclass
class Call:
    """What a verb works with: the settings, the game, the model that the call names and who plays."""

    cfg: Infer
    task: object
    point: checkpoint.Checkpoint | None = None
    players: Players = None

    @property
    def folder(self):
        return str(self.point.folder) if self.point else self.cfg.model


# ------------------------------------------------------------------------------------------------ opening
def model_name(cfg):
    """What a call names: --model, --run, or the newest run."""
    return cfg.model or cfg.run or str(Path(cfg.runs) / "latest")


def with_task(argv):
    """The arguments with the task of the run that they name, where they name no task."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, default in (("--task", ""), ("--model", ""), ("--run", ""), ("--runs", "runs")):
        early.add_argument(name, default=default, nargs="?")
    named, _ = early.parse_known_args(argv)
    saved = {} if named.task else read_values(named.model or named.run or Path(named.runs or "", "latest"))
    return [*argv, "--task", saved["task"]] if saved else argv


def open_named(cfg, task):
    """The Checkpoint that a call names. The kind of model follows from the loss that the run was trained
    with; for a plain model folder, from the game's default loss."""
    name = model_name(cfg)
    is_run = Path(name, "run.json").exists()
    if not cfg.model and not is_run and cfg.run:
        raise FileNotFoundError(f"{name}: not a run (it has no run.json); a model folder goes with --model")
    if not cfg.model and not is_run:
        raise FileNotFoundError(
            f"{cfg.runs} holds no run yet; make one with: python train.py --task {cfg.task}"
        )
    loss = read_values(name).get("loss") or task.loss
    point = open_model(cfg, name, "sft" if cfg.verb == "sample" else loss)
    classifies = cfg.verb not in ("sample", "merge") and loss in ("classify", "davidson")
    if classifies and not point.model.config.labels:
        raise ValueError(
            f"{name}: holds no classifier; train one: python train.py --task {cfg.task} --model {name}"
        )
    return point


def open_model(cfg, name, loss="sft"):
    """The Checkpoint of a run, a folder or a Hub name, laid out for speed; of one trained to give vectors
    with its embedder. Merging keeps layout and dtype of the file. --revision, --lora and --format are about
    the model that the call names, not about its judge or reranker."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device, merges = device_of(cfg.device), cfg.verb == "merge"
    dtype = None  # the file's
    if not merges and cfg.dtype != "auto":
        dtype = dtype_of(cfg.dtype, device)
    elif not merges and device.type == "cpu":
        dtype = torch.float32
    is_named = name == model_name(cfg)
    own = dict(lora=cfg.lora, revision=cfg.revision or None, format=cfg.format) if is_named else {}
    head = "none" if loss == "contrastive" and not own.get("lora") else "own"
    point = checkpoint.open(name, head, dtype=dtype, device=device, tokenizer=not merges, **own)
    if is_named and cfg.ttt_steps:
        make_learnable(point.model)
        return point
    if lora.adapters(point.model):
        lora.merge_lora(point.model)  # one matrix product a layer instead of three
    if point.model.config.head == "lm" and not merges:
        fuse(point.model)
    return point


def make_learnable(model):
    """Prepare test-time training: the model's adapter goes on learning, without one all of it does."""
    if not lora.adapters(model):
        model.requires_grad_(True)
    if model.device.type == "cpu":
        model.float()


def agent_of(cfg, point, task=None):
    """The model as an agent; where no flag says how replies are drawn and how long, as the task evaluates."""
    if point.embedder:
        return Encoder(point.embedder, Path(cfg.runs, "cache"))
    if point.model.config.labels:
        return Classifier(point.model, point.tokenizer, cfg.max_tokens)
    if task:
        for name in ("n", "temperature", "max_new"):
            if name not in cfg.origin:
                setattr(cfg, name, getattr(task.evaluation, name))
        if cfg.n > 1 and not (cfg.temperature or task.evaluation.varied):
            raise UsageError(GREEDY_COPIES.format("replies"))
    sampling = {name: getattr(cfg, name) for name in SAMPLING}
    return Model(point.model, point.tokenizer, cfg.max_new, **sampling, seed=cfg.seed)


class Opener:
    """Opens the agents that a game's flags name, each once."""

    def __init__(self, cfg, task):
        self.cfg, self.task, self.opened = cfg, task, {}

    def own(self, name, marks):
        """The agent of a name that needs no model here: one of the game's own, or an OpenAI-compatible
        endpoint, URL or URL#MODEL (the key is in PARLOR_KEY); else None."""
        if isinstance(self.task, HasAgents):
            if agent := self.task.agent_named(name, lambda inner: self.open(inner, marks)):
                return agent
        if not name.startswith(("http://", "https://")):
            return None
        url, _, model = name.partition("#")
        flags = marks.get("endpoint", {})
        settings = {kind: getattr(self.cfg.options, flag) for kind, flag in flags.items()}
        model = settings.pop("model", "") or model
        key = os.environ.get("PARLOR_KEY", "")
        return Teacher(url, model, key, self.max_new(marks), **settings, **marks.get("settings", {}))

    def max_new(self, marks):
        return marks.get("max_new") or self.task.evaluation.max_new

    def open(self, name, marks):
        """The agent of a name: one of its own, or a run or a model folder."""
        if agent := self.own(name, marks):
            return agent
        if name not in self.opened:
            kind = "classify" if marks["agent"] == "classify" else "sft"
            point = open_model(self.cfg, name, kind)
            if kind == "sft":
                self.opened[name] = Model(point.model, point.tokenizer, self.max_new(marks))
            elif point.model.config.labels:
                self.opened[name] = Classifier(point.model, point.tokenizer, self.cfg.max_tokens)
            else:
                raise ValueError(f"{name}: no classifier; a reranker is trained with --loss classify")
        return self.opened[name]

    def named(self):
        """{flag: agent} of the flags that name agents beside the one at play."""
        found = {}
        for flag, marks in agent_flags(self.cfg.options).items():
            name = getattr(self.cfg.options, flag)
            if name and name not in marks.get("words", ()):
                found[flag] = self.open(name, marks)
        return found


# ------------------------------------------------------------------------------------------------ verbs
def play(call):
    """Play with a person; from standard input where that is no terminal; one scripted game where there is no
    input. --out FILE keeps the game, where the task says what was played."""
    cfg, task = call.cfg, call.task
    if not isinstance(task, Interactive):
        raise UsageError(f"play: --task {cfg.task} cannot be played in the terminal")
    out = new_file(cfg.out)
    seat = cfg.seat or task.seats[0]
    if seat not in task.seats:
        raise UsageError(f"--seat {seat}: must be {' or '.join(task.seats)}")
    read, show = person()
    seed = cfg.seed or int.from_bytes(os.urandom(4), "big")
    played = task.interact(call.players, read, show, seat, seed)
    if out and played:
        write_rows(out, played)
        print(f"written: {out}")


def evaluate(call):
    """Score the model on the first --limit test examples and print the metrics; --out FILE keeps them, with
    what else the game writes beside it. A game of many replies goes on after a kill."""
    cfg, task = call.cfg, call.task
    out, began = new_file(cfg.out), time.time()
    goes_on = isinstance(task, EvaluatesRecords)
    beside = {}
    if out and goes_on:
        beside = {ending: Path(out).with_name(Path(out).stem + ending) for ending in task.files([])}
    for path in beside.values():
        new_file(path)
    examples = tests_for(task, cfg.limit, call.players.trained_on)
    if goes_on:
        players = call.players
        if cfg.ttt_steps:  # which the report says
            shown = {f"shown:{example['id']}" for example in examples}
            players = replace(players, trained_on=players.trained_on | shown)
        result = task.summary(attempts(call, examples), players)
    else:
        result = task.evaluate(examples, call.players)
    records = result.pop("records")
    print("\n".join(table(result)))
    print(f"in {duration(time.time() - began)}")
    if not out:
        return
    files = task.files(records) if beside else {}
    for ending, path in beside.items():
        write_json(path, files[ending])
        print(f"written: {path}")
    about = {"format": 1, "task": cfg.task, "seed": cfg.seed, "model": call.folder}
    write_json(out, {**about, **result, "records": records})
    print(f"written: {out}")
    Path(f"{out}.part").unlink(missing_ok=True)
    if result.get("curve"):
        plots.main([out])  # which says what to install where it cannot draw


def collect(call):
    """Write what replies to the first --limit training examples teach to the new file --out, as rows for
    --data; it goes on after a kill. Of a game of vectors hard negatives, for all examples where no --limit is
    given, and beside them the pool of all texts."""
    cfg, task = call.cfg, call.task
    if not (cfg.out and isinstance(task, (Collects, Mines))):
        raise UsageError("collect needs --out FILE, and a game whose replies teach something")
    out = new_file(cfg.out)
    if isinstance(task, Mines):
        return mine(call, out)
    examples = first(task.examples(task.collect_split), cfg.limit)
    records = attempts(call, examples)
    rows = [row for record in records for row in task.collected(record)]
    write_rows(out, rows)
    for line in task.tally(records):
        print(line)
    if isinstance(call.players.player, Teacher):
        print(call.players.player.bill())
    for part in (f"{out}.part", f"{out}.replies.part"):
        Path(part).unlink(missing_ok=True)
    print(f"written: {out}, {len(rows):,} rows of {len(records):,} examples")
    if task.dropped:
        print(f"dropped: {dropped_line(task.dropped)}")


def mine(call, out):
    """Write hard negatives, or what the model says of the training examples, and the pool of all texts."""
    cfg, task = call.cfg, call.task
    pool = new_file(str(Path(out).with_name(f"{Path(out).stem}_pool.jsonl")))
    if not read_values(model_name(cfg)):
        print(
            "warning: this model was not trained for the game. Its hard negatives can hurt more than\n"
            "random ones: train one round without them first, then mine with that run."
        )
    rows, texts = task.mined(call.players, cfg.limit if "limit" in cfg.origin else 0)
    for path, some in ((out, rows), (pool, texts)):
        if some:
            write_rows(path, some)
            print(f"written: {path}, {len(some):,} rows")
    print(f"dropped: {dropped_line(task.dropped)}")


def fill(journal, items, size, unit, work):
    """Make the row of every item that the journal lacks, `size` items at a time: work(start, part, bar)
    yields (place in the part, row).

    Replies follow from seed, part and prompt, not from what was done before a kill: so a part that was not
    finished is done again as a whole, and the rows that are there already are left as they are."""
    with tqdm(total=len(items), initial=len(journal.rows), unit=unit, disable=None) as bar:
        for start in range(0, len(items), size):
            part = items[start : start + size]
            if all(start + place in journal.rows for place in range(len(part))):
                continue
            for place, row in work(start, part, bar):
                if start + place not in journal.rows:
                    journal.add([{"row": start + place, **row}])
                    bar.update(1)


def attempts(call, examples):
    """The task's records of its examples, some at a time; with --out FILE they are kept in FILE.part until
    all are there, so that a killed call goes on."""
    cfg, task, players = call.cfg, call.task, call.players
    names = ("seed", "n", *SAMPLING, "max_new")
    if cfg.ttt_steps:
        names += ("ttt_steps", "ttt_rounds", "ttt_tasks", "ttt_batch")
    idle = cosmetic(cfg.options)
    own = {name: value for name, value in vars(cfg.options).items() if name not in idle}
    settings = {"model": call.folder, **{name: getattr(cfg, name) for name in names}, **own}
    journal = Journal(f"{cfg.out}.part" if cfg.out else "", settings)

    def work(start, part, bar):
        if hasattr(players.player, "start_part"):
            players.player.start_part(start)
        found = ttt.attempt(cfg, task, players, part) if cfg.ttt_steps else task.attempt(part, players)
        for place, record in found:
            yield place, {"record": record}
            for line in task.lines(record):
                bar.write(printable(line))

    fill(journal, examples, cfg.ttt_tasks if cfg.ttt_steps else max(1, CHUNK // cfg.n), "task", work)
    return [journal.rows[i]["record"] for i in range(len(examples))]


def sample_rows(call):
    """Reply --n times to every row of --prompts, a line of --out each. An --out that exists is gone on with:
    its rows are not made again. Each reply has its own random stream, seeded by (seed, row, sample)."""
    cfg, model, tokenizer = call.cfg, call.point.model, call.point.tokenizer
    if not cfg.out:
        raise UsageError("sample --prompts needs --out FILE")
    if cfg.n > 1 and not cfg.temperature:
        raise UsageError(GREEDY_COPIES.format("replies"))
    sampling = {name: getattr(cfg, name) for name in SAMPLING}
    about = {"model": call.folder, "n": cfg.n, "seed": cfg.seed, **sampling, "max_new": cfg.max_new}
    journal = Journal(cfg.out, about)
    rows = []
    for where, row in read_rows(cfg.prompts):
        if not (isinstance(row.get("prompt"), str) or isinstance(row.get("messages"), list)):
            raise ValueError(f'{where}: a row needs a "prompt", text, or "messages", a list')
        messages = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
        rows.append((row, tokenizer.prompt(messages)))
    to_do = sum(number not in journal.rows for number in range(len(rows)))
    print(f"{len(journal.rows):,} rows done before, {to_do:,} to do")
    session, began, tokens = Session(model), time.time(), 0

    def work(start, part, bar):
        nonlocal tokens
        prompts = [ids for _, ids in part for _ in range(cfg.n)]
        seeds = [[cfg.seed, start + i, j] for i in range(len(part)) for j in range(cfg.n)]
        settings = dict(seeds=seeds, session=session, **sampling)
        replies = sampler.generate(model, prompts, cfg.max_new, tokenizer.stop_ids, **settings)
        tokens += sum(len(reply.ids) for reply in replies)
        for i, (row, _) in enumerate(part):
            own = replies[i * cfg.n : (i + 1) * cfg.n]
            made = [{"text": tokenizer.decode(r.ids), "logp": r.logp, "finished": r.finished} for r in own]
            yield i, {**row, "replies": made}
        bar.set_postfix_str(f"{tokens / (time.time() - began):,.0f} tok/s")

    fill(journal, rows, max(1, CHUNK // cfg.n), "row", work)
    spent = time.time() - began
    print(f"written: {cfg.out}; {tokens:,} tokens in {duration(spent)}, {tokens / spent:,.0f} tok/s")


def sample(call):
    """Reply to --prompt, --n times, or to every row of --prompts."""
    cfg = call.cfg
    if cfg.prompts:
        return sample_rows(call)
    if not cfg.prompt:
        raise UsageError("sample needs --prompt TEXT or --prompts FILE")
    conversation = [{"role": "user", "content": cfg.prompt}]
    for reply in call.players.player.reply([conversation], cfg.n)[0]:
        print(printable(reply.text))


def merge(call):
    """Write the model with its adapter merged, tokenizer and settings beside it, to the new folder --out.

    merged.json there says what went in, so that the same adapter is not added twice."""
    cfg, point = call.cfg, call.point
    if not cfg.out:
        raise UsageError("merge needs --out FOLDER")
    name = resolve(cfg.lora or model_name(cfg))
    if not (name / "adapter_config.json").exists():
        raise ValueError(
            f"{name} is no adapter: there is nothing to merge (an adapter for it goes with --lora)"
        )
    adapter = hashlib.sha256((name / "adapter_model.safetensors").read_bytes()).hexdigest()
    base = resolve(*((model_name(cfg), cfg.revision or None) if cfg.lora else lora.read_base(name)))
    before = optional_json(base / "merged.json") or []
    if adapter in [entry["sha256"] for entry in before]:
        raise ValueError(f"{base}: the adapter {name} is merged into it already (merged.json)")
    with replacing(new_file(cfg.out)) as partial:
        if point.embedder:
            save_embedder(point.embedder, partial)
        else:
            save(point.model, partial)
        for source in (base, point.folder):
            checkpoint.copy_tokenizer(source, partial)
        write_json(partial / "merged.json", [*before, {"adapter": str(name), "sha256": adapter}])
    print(f"written: {cfg.out}")


def rows(call):
    """Write the rows of --data that training would see, as the game reads them, to the new file --out."""
    cfg, task = call.cfg, call.task
    if not cfg.out:
        raise UsageError("rows needs --out FILE")
    found = task.examples("train")
    write_rows(new_file(cfg.out), found)
    print(f"written: {cfg.out}, {len(found):,} rows")
    print(f"dropped: {dropped_line(task.dropped)}")


def submit(call):
    """Write the submission that --predictions (what eval wrote) make, or that the model makes for the test
    rows of --data, checked against the task's data; or the model as a program that plays."""
    cfg, task = call.cfg, call.task
    if not cfg.out:
        raise UsageError("submit needs --out FILE")
    if cfg.predictions:
        if not isinstance(task, SubmitsPredictions):
            raise UsageError("--predictions: this game makes its submissions from a model, --run or --model")
        write_json(new_file(cfg.out), task.submit(cfg.predictions))
    elif isinstance(task, SubmitsProgram):
        package(call)
    elif isinstance(task, SubmitsRows):
        out, text = new_file(cfg.out), io.StringIO()
        found = task.submission(call.players)
        if not found:
            raise ValueError("there are no test rows to make a submission for")
        writer = csv.DictWriter(text, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        write_text(out, text.getvalue())
    else:
        raise UsageError("submit needs --predictions FILE, which eval wrote")
    print(f"written: {cfg.out}")


def package(call):
    """Write the model as a program that plays."""
    cfg, agent = call.cfg, call.players.player
    name = resolve(cfg.lora or model_name(cfg))
    if (name / "adapter_config.json").exists():
        flags = f"--model {model_name(cfg)}" + (f" --lora {cfg.lora}" if cfg.lora else "")
        raise ValueError(
            f"{name} is an adapter: merge it first, python infer.py merge --task {cfg.task} {flags} "
            "--out FOLDER, and submit --model FOLDER"
        )
    settings = {"max_new": agent.max_new, "seed": agent.seed, **agent.sampling}
    call.task.package(new_file(cfg.out), call.point.folder, cfg.format, settings)


RUN = dict(zip(VERBS, (play, evaluate, sample, collect, submit, merge, rows)))


# ------------------------------------------------------------------------------------------------ a call
def stand_in(cfg):
    """(flag, marks) of the flag of this call that names who plays instead of a model, or None; see
    games.task.flag."""
    for flag, marks in agent_flags(cfg.options, cfg.verb).items():
        if getattr(cfg.options, flag):
            return flag, marks
    return None


def needs_model(cfg, task):
    """Whether a call needs the model that it names."""
    if cfg.verb == "play":
        return not isinstance(task, Interactive) or task.needs_model()
    if cfg.verb == "submit":
        return not cfg.predictions and isinstance(task, (SubmitsProgram, SubmitsRows))
    return cfg.verb != "rows"


def replacement(cfg, task, opener, flag, marks):
    """The Players that a flag names instead of a model, or None where it names a run or a model folder."""
    value = getattr(cfg.options, flag)
    if not isinstance(value, str):
        names = [name for name in (cfg.model or cfg.run, *value) if name]
        rivals = {name: opener.open(name, marks) for name in names}
        return Players(named={**opener.named(), flag: rivals})
    settings = dict(temperature=cfg.temperature)
    if value.startswith("http"):  # whose replies are paid for
        settings["kept"] = Journal(f"{cfg.out}.replies.part", {})
    longest = {"max_new": cfg.max_new} if "max_new" in cfg.origin else {}
    agent = opener.own(value, {**marks, **longest, "settings": settings})
    if isinstance(agent, Teacher) and cfg.n > 1 and not cfg.temperature:
        raise UsageError(GREEDY_COPIES.format("games"))
    return agent and Players(agent, n=cfg.n)


def open_call(cfg, task, instead):
    """The Call of a verb: with the agents that its flags name, and the model where one is needed."""
    opener = Opener(cfg, task)
    players = replacement(cfg, task, opener, *instead) if instead else None
    if players or not needs_model(cfg, task):
        return Call(cfg, task, None, players or Players(n=cfg.n))
    point = open_named(cfg, task)
    if cfg.verb == "merge":
        return Call(cfg, task, point)
    evaluated = cfg.verb in ("play", "eval", "collect") or isinstance(task, SubmitsProgram)
    agent = agent_of(cfg, point, task if evaluated and cfg.verb != "sample" else None)
    named = {} if cfg.verb == "sample" else opener.named()
    return Call(cfg, task, point, Players(agent, named, cfg.n, trained_on=point.trained_on))


def run_call(argv):
    cfg = parse(Infer, with_task(argv))
    if cfg.verb not in VERBS:
        raise UsageError(f"{cfg.verb}: unknown{nearest(cfg.verb, VERBS)} (known: {', '.join(VERBS)})")
    if cfg.n < 1:
        raise UsageError("--n must be at least 1")
    instead = stand_in(cfg)
    if instead and isinstance(name := getattr(cfg.options, instead[0]), str):
        if cfg.model or cfg.run:
            raise UsageError(f"--{instead[0]}: plays instead of a --run or --model, take one of them")
        cfg.model = name
    take_from_run(cfg, read_values(model_name(cfg)))
    task = task_class(cfg.task)(cfg.options, cfg.seed)
    if cfg.ttt_steps and not isinstance(task, LearnsAtTestTime):
        raise UsageError(f"--ttt-steps: --task {cfg.task} has no lessons for test-time training")
    RUN[cfg.verb](open_call(cfg, task, instead))


def main(argv=None):
    """Exit codes: 0 done, 1 failed, 2 wrong call, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    return exit_code("infer.py", lambda: run_call(argv))


if __name__ == "__main__":
    sys.exit(main())
