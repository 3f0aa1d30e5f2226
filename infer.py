"""Everything done with a trained model, and what goes with it: python infer.py VERB

The verbs are play, eval, sample, collect, submit, merge and, without a model, rows. Without one it plays,
with the newest run. Each verb is one function below; main() gives it a model and a task."""

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

import data
import lora
import model as models
import plots
import runs
import sampler
import ttt
from agents import Classifier, Encoder, Model, Teacher
from cache import fuse
from embed import Embedder, load_embedder, save_embedder
from games import task_class
from games.rows import parsed, read_rows
from games.task import Task
from recipes import Infer, UsageError, nearest, parse


def named(cfg):
    """What a call names: --model, --run, or the newest run."""
    return cfg.model or cfg.run or str(Path(cfg.runs) / "latest")


def with_task(argv):
    """The arguments with the task of the run that they name, where they name no task."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag, default in (("--task", ""), ("--model", ""), ("--run", ""), ("--runs", "runs")):
        early.add_argument(flag, default=default, nargs="?")
    first, _ = early.parse_known_args(argv)
    path = Path(first.model or first.run or Path(first.runs or "", "latest")) / "run.json"
    known = not first.task and path.exists()
    return [*argv, "--task", models.read_json(path)["values"]["task"]] if known else argv


def as_trained(cfg):
    """Give a run's model the chat format, world and prompts it was trained with, where no flag says
    otherwise."""
    path = Path(named(cfg)) / "run.json"
    saved = models.read_json(path)["values"] if path.exists() else {}
    for name in ("format", "world", "prompt_version", "grid", "max_tokens", "query", "clean", "split"):
        for settings in (cfg, cfg.options):
            if hasattr(settings, name) and name in saved and name not in cfg.origin:
                setattr(settings, name, saved[name])


def named_model(cfg, task):
    """(model, tokenizer, folder) that a call names. What kind of model it is says the loss that a run was
    trained with; of a model folder the game's own."""
    name = named(cfg)
    run = Path(name, "run.json")
    if not cfg.model and not run.exists():
        if cfg.run:
            raise FileNotFoundError(
                f"{name}: not a run (it has no run.json); a model folder goes with --model"
            )
        raise FileNotFoundError(
            f"{cfg.runs} holds no run yet; make one with: python train.py --task {cfg.task}"
        )
    loss = (models.read_json(run)["values"]["loss"] if run.exists() else "") or task.loss
    found = opened(cfg, name, "sft" if cfg.verb == "sample" else loss)
    if (
        cfg.verb not in ("sample", "merge")
        and loss in ("classify", "davidson")
        and not found[0].config.labels
    ):
        raise ValueError(
            f"{name}: holds no classifier; train one: python train.py --task {cfg.task} --model {name}"
        )
    return found


def opened(cfg, name, loss="sft"):
    """(model, tokenizer, folder) of a run, a folder or a Hub name, laid out for speed; where its loss makes
    vectors the tokenizer is an Embedder. Merging keeps the layout and the file's dtype. --revision, --lora
    and --format are about the model that the call names, not about its judge or reranker."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device, merge = runs.device_of(cfg.device), cfg.verb == "merge"
    dtype = torch.float32 if device.type == "cpu" and not merge else None  # None keeps the file's
    if cfg.dtype != "auto" and not merge:
        dtype = runs.dtype_of(cfg.dtype, device)
    own = name == named(cfg)
    revision, adapter, format = (cfg.revision or None, cfg.lora, cfg.format) if own else (None, "", "")
    if loss == "contrastive" and not adapter:
        embedder = load_embedder(name, dtype, device, revision)
        model, tokenizer, folder = embedder.model, embedder, models.resolve(name, revision)
    else:
        model, folder, _ = lora.open_model(name, adapter, dtype, device, revision)
        tokenizer = None if merge else data.load_tokenizer(folder, format, model.config.vocab)
    if own and cfg.ttt_steps:
        return learnable(model), tokenizer, folder
    if lora.adapters(model):
        lora.merge_lora(model)  # one matrix product a layer instead of three
    speaks = model.config.labels is None
    return fuse(model) if speaks and not merge else model, tokenizer, folder


def learnable(model):
    """The model for test-time training: its adapter goes on learning, without one all of it does."""
    if not lora.adapters(model):
        model.requires_grad_(True)
    return model.float() if model.device.type == "cpu" else model


def agent_of(cfg, model, tokenizer, task=None):
    """The model as an agent; where no flag says how replies are drawn and how long, as the task evaluates."""
    if isinstance(tokenizer, Embedder):
        return Encoder(tokenizer, Path(cfg.runs, "cache"))
    if model.config.labels:
        return Classifier(model, tokenizer, cfg.max_tokens)
    if task:
        for name in ("n", "temperature", "max_new"):
            if name not in cfg.origin:
                setattr(cfg, name, getattr(task, name))
        task.n = cfg.n
        if cfg.n > 1 and not (cfg.temperature or task.varied):
            raise UsageError("--n without --temperature: at temperature 0 all replies are the same")
    sampling = {name: getattr(cfg, name) for name in ("temperature", "top_k", "top_p", "min_p", "seed")}
    return Model(model, tokenizer, cfg.max_new, **sampling)


def player(cfg, task, name, model="", max_new=0, **settings):
    """The agent that a flag names: one of the game's own (Task.players), one made of another, NAME+AGENT
    (Task.wrappers), an OpenAI-compatible endpoint and its model (or URL#MODEL; the key is in PARLOR_KEY;
    settings: its own), or a run or a model folder."""
    max_new = max_new or task.max_new
    if name in task.players:
        return task.players[name]()
    wrapper, plus, inner = name.partition("+")
    if plus and wrapper in task.wrappers:
        return task.wrappers[wrapper](player(cfg, task, inner, model, max_new))
    if name.startswith(("http://", "https://")):
        url, _, named_there = name.partition("#")
        return Teacher(url, model or named_there, os.environ.get("PARLOR_KEY", ""), max_new, **settings)
    agent = Model(*opened(cfg, name)[:2], max_new)
    task.players[name] = lambda: agent  # opened once, however many agents are made of it
    return agent


def helpers(cfg, task):
    """Give the task the agents that its flags name: those that play each other (--against, and the model
    itself), one that grades replies (--judge), answers (--answerer) or puts candidates in order
    (--reranker)."""
    if against := getattr(cfg.options, "against", ()):
        names = [name for name in (cfg.model or cfg.run, *against) if name]
        task.rivals = {name: player(cfg, task, name) for name in names}
    name = getattr(cfg.options, "judge", "")
    if name:
        task.grader = player(cfg, task, name, cfg.options.judge_model, 16)
    name = getattr(cfg.options, "answerer", "")
    if name not in ("", "self", "table"):
        task.answerer = player(cfg, task, name)
    name = getattr(cfg.options, "reranker", "")
    if name:
        model, tokenizer, _ = opened(cfg, name, "classify")
        if not model.config.labels:
            raise ValueError(f"{name}: no classifier; a reranker is trained with --loss classify")
        task.reranker = Classifier(model, tokenizer, cfg.max_tokens)


def new_file(name):
    if name and Path(name).exists():
        raise FileExistsError(f"{name} exists and is not overwritten; move it or take another --out")
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    return name


def play(cfg, task, model=None, tokenizer=None, folder=None):
    """Play with a person; from standard input where that is no terminal; one scripted game where there is no
    input. --out FILE keeps the game, where the task says what was played."""
    out = new_file(cfg.out)
    cfg.seat = cfg.seat or task.seats[0]
    if cfg.seat not in task.seats:
        raise UsageError(f"--seat {cfg.seat}: must be {' or '.join(task.seats)}")
    agent = agent_of(cfg, model, tokenizer, task) if model else None

    person = sys.stdin is not None and sys.stdin.isatty()
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # whatever the keyboard sends
    lines = sys.stdin if person else sys.stdin.readlines() if sys.stdin else []
    typed = iter(lines)

    def read():
        print("> ", end="", flush=True)
        line = next(typed, None)
        if not person:
            print(data.printable((line or "").rstrip("\n")))
        return line and line.rstrip("\n")

    if not person and not any(line.strip() for line in lines):
        read = None
    seed = cfg.seed or int.from_bytes(os.urandom(4), "big")

    def show(line, painted=False, dim=False, end="\n"):  # painted: in colours of the game's own making
        line = line if painted else data.printable(line)
        print(f"\x1b[2m{line}\x1b[0m" if dim else line, end=end, flush=True)

    played = task.interact(agent, read, show, cfg.seat, seed)
    if out and played:
        write_rows(out, played)
        print(f"written: {out}")


def evaluate(cfg, task, model, tokenizer, folder):
    """Score the model on the first --limit test examples and print the metrics; --out FILE keeps them, with
    what else the game writes beside it. A game of many replies goes on after a kill."""
    out, began = new_file(cfg.out), time.time()
    beside = {ending: Path(out).with_name(Path(out).stem + ending) for ending in task.files([]) if out}
    for path in beside.values():
        new_file(path)
    agent = agent_of(cfg, model, tokenizer, task) if model else None  # those of a tournament have names
    examples = task.examples("test")
    examples = task.unseen(examples[: cfg.limit] if cfg.limit else examples)
    if task.summary:
        result = task.summary(attempts(cfg, task, agent, examples, str(folder)))
    else:
        result = task.evaluate(examples, agent)
    records = result.pop("records")
    print("\n".join(runs.table(result)))
    print(f"in {runs.duration(time.time() - began)}")
    if out:
        report = {
            "format": 1,
            "task": cfg.task,
            "seed": cfg.seed,
            "model": str(folder or ""),
            **result,
            "records": records,
        }
        for ending, found in task.files(records).items():
            runs.write_json(beside[ending], found)
            print(f"written: {beside[ending]}")
        runs.write_json(out, report)
        print(f"written: {out}")
        Path(f"{out}.part").unlink(missing_ok=True)
        if result.get("curve"):
            plots.main([out])  # which says what to install where it cannot draw


def collect(cfg, task, model=None, tokenizer=None, folder=None):
    """Write what the replies of the model, or of the --teacher, to the first --limit training examples teach
    to the new file --out, as rows for --data; it goes on after a kill. Of a game of vectors hard negatives,
    for all examples where no --limit is given, and beside them the pool of all texts."""
    if not (cfg.out and (task.attempt or task.mined)):
        raise UsageError("collect needs --out FILE, and a game whose replies teach something")
    out, kept = new_file(cfg.out), None
    if model:
        agent = agent_of(cfg, model, tokenizer, task)
    else:
        folder, task.n, prices = cfg.model, cfg.n, prices_of(cfg.options.price)
        if cfg.n > 1 and not (cfg.temperature or cfg.model in task.players):
            raise UsageError("--n without --temperature: at temperature 0 all games are the same")
        kept = Journal(f"{out}.replies.part", {})
        settings = dict(temperature=cfg.temperature, workers=cfg.options.workers, kept=kept)
        longest = cfg.max_new if "max_new" in cfg.origin else 0
        agent = player(cfg, task, cfg.model, cfg.options.teacher_model, longest, **settings)
    if task.mined:
        pool = new_file(str(Path(out).with_name(f"{Path(out).stem}_pool.jsonl")))
        if not Path(named(cfg), "run.json").exists():
            print(
                "warning: this model was not trained for the game. Its hard negatives can hurt more than\n"
                "random ones: train one round without them first, then mine with that run."
            )
        found, texts = task.mined(agent, cfg.limit if "limit" in cfg.origin else 0)
        for path, some in ((out, found), (pool, texts)):
            if some:
                write_rows(path, some)
                print(f"written: {path}, {len(some):,} rows")
        return print_dropped(task)
    records = attempts(cfg, task, agent, task.examples(task.collects)[: cfg.limit or None], str(folder))
    found = [row for record in records for row in task.collected(record)]
    write_rows(out, found)
    for line in task.tally(records):
        print(line)
    if isinstance(agent, Teacher):
        print(bill(agent, prices))
    for part in (f"{out}.part", f"{out}.replies.part"):
        Path(part).unlink(missing_ok=True)
    print(f"written: {out}, {len(found):,} rows of {len(records):,} examples")
    if task.dropped:
        print_dropped(task)


def prices_of(text):
    """(prompt, reply) prices of a million tokens in --price, or None."""
    try:
        prices = [float(price) for price in text.split(",")] if text else None
    except ValueError:
        prices = ()
    if prices is not None and len(prices) != 2:
        raise UsageError(f"--price {text}: must be two numbers, of prompts and replies, such as 0.15,0.6")
    return prices


def bill(teacher, prices):
    """What the replies of an endpoint took, those of calls that were killed before included."""
    names = ("prompt_tokens", "completion_tokens")
    before, total = (
        [count[name] for name in names] for count in (teacher.before, teacher.before + teacher.tokens)
    )
    line = f"tokens: {total[0]:,} of prompts, {total[1]:,} of replies"
    if any(before):
        line += f" ({before[0]:,} and {before[1]:,} paid before)"
    if prices:
        line += f"; cost {sum(n * price for n, price in zip(total, prices)) / 1e6:.4g}"
    return line


def print_dropped(task):
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in task.dropped.items()) or "none"
    print(f"dropped: {reasons}")


def write_rows(path, rows):
    runs.replace_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def attempts(cfg, task, agent, examples, folder):
    """The task's records of its examples, some at a time; with --out FILE they are kept in FILE.part until
    all are there, so that a killed call goes on."""
    names = ("seed", "n", "temperature", "top_k", "top_p", "min_p", "max_new")
    names += ("ttt_steps", "ttt_rounds", "ttt_tasks", "ttt_batch", "ttt_lr") if cfg.ttt_steps else ()
    own = {name: value for name, value in vars(cfg.options).items() if name not in task.idle}
    settings = {"model": folder, **{name: getattr(cfg, name) for name in names}, **own}
    journal = Journal(f"{cfg.out}.part" if cfg.out else "", settings)
    if cfg.ttt_steps and task.lessons is None:
        raise UsageError(f"--ttt-steps: --task {cfg.task} has no lessons for test-time training")
    if cfg.ttt_steps:  # which the report says
        task.seen |= {f"shown:{example['id']}" for example in examples}
    size = cfg.ttt_tasks if cfg.ttt_steps else max(1, CHUNK // cfg.n)
    with tqdm(total=len(examples), initial=len(journal.rows), unit="task", disable=None) as bar:
        for start in range(0, len(examples), size):
            part = examples[start : start + size]
            if all(start + place in journal.rows for place in range(len(part))):
                continue
            # replies follow from seed, part and prompt, not from what was done before a kill: so a part that
            # was not finished is done again as a whole, and what is there already is left as it is
            agent.calls, agent.part = 0, start
            found = ttt.attempt(cfg, task, agent, part) if cfg.ttt_steps else task.attempt(part, agent)
            for place, record in found:
                if start + place not in journal.rows:
                    journal.add([{"row": start + place, "record": record}])
                    for line in task.lines(record):
                        bar.write(data.printable(line))
                    bar.update(1)
    return [journal.rows[i]["record"] for i in range(len(examples))]


class Journal:
    """Rows that a killed call goes on with: {"row": number, ..., "settings"}, a line each of a file. What a
    kill left of a line is cut off. Raises ValueError where the file was made with other settings. Without a
    path nothing is kept."""

    def __init__(self, path, settings):
        settings = json.loads(json.dumps(settings))  # as they will be read back
        self.path, self.settings, self.rows = path and Path(path), settings, {}
        if not path:
            return
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lines, end, rest = path.read_bytes().rpartition(b"\n")
        begins = b'{"row": '
        if (
            not all(line.startswith(begins) for line in lines.split(b"\n") if line)
            or rest[:8] != begins[: len(rest)]
        ):
            raise ValueError(f"{path}: not a file of ours; nothing was changed in it, take another --out")
        rows = [parsed(line, path, number) for number, line in enumerate(lines.split(b"\n"), 1) if line]
        for row in rows[:1]:
            other = [k for k, v in settings.items() if row.get("settings", {}).get(k) != v]
            if other:
                was, now = row.get("settings", {}).get(other[0]), settings[other[0]]
                raise ValueError(f"{path}: made with {other[0]} {was!r}, now {now!r}; take another --out")
        os.truncate(path, len(lines + end))
        self.rows = {row["row"]: row for row in rows}

    def add(self, rows):
        """Keep rows, at once and on the disk."""
        rows = [row | {"settings": self.settings} for row in rows]
        self.rows |= {row["row"]: row for row in rows}
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())


def sample_rows(cfg, model, tokenizer, folder):
    """Reply --n times to every row of --prompts, a line of --out each. An --out that exists is gone on with:
    its rows are not made again. A reply is drawn by (seed, row, sample)."""
    if not cfg.out:
        raise UsageError("sample --prompts needs --out FILE")
    if cfg.n > 1 and not cfg.temperature:
        raise UsageError("--n without --temperature: at temperature 0 all replies are the same")
    names = ("n", "seed", "temperature", "top_k", "top_p", "min_p", "max_new")
    settings = {"model": str(folder), **{name: getattr(cfg, name) for name in names}}
    journal = Journal(cfg.out, settings)
    done = set(journal.rows)
    sampling = {name: getattr(cfg, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    session, began, tokens, waiting = sampler.Session(model), time.time(), 0, []
    for number, (where, row) in enumerate(read_rows(cfg.prompts)):
        if not (isinstance(row.get("prompt"), str) or isinstance(row.get("messages"), list)):
            raise ValueError(f'{where}: a row needs a "prompt", text, or "messages", a list')
        if number not in done:
            messages = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
            waiting.append((number, row, tokenizer.prompt(messages)))
    print(f"{len(done):,} rows done before, {len(waiting):,} to do")
    size = max(1, CHUNK // cfg.n)
    bar = tqdm(total=len(waiting), unit="row", disable=None)
    for start in range(0, len(waiting), size):
        part, rows = waiting[start : start + size], []
        prompts = [ids for *_, ids in part for _ in range(cfg.n)]
        seeds = [[cfg.seed, number, j] for number, *_ in part for j in range(cfg.n)]
        stop = tokenizer.stop_ids
        replies = sampler.generate(
            model, prompts, cfg.max_new, stop, seeds=seeds, session=session, **sampling
        )
        for i, (number, row, _) in enumerate(part):
            own = replies[i * cfg.n : (i + 1) * cfg.n]
            made = [{"text": tokenizer.decode(r.ids), "logp": r.logp, "finished": r.finished} for r in own]
            rows.append({"row": number, **row, "replies": made})
        journal.add(rows)
        tokens += sum(len(reply.ids) for reply in replies)
        bar.update(len(part))
        bar.set_postfix_str(f"{tokens / (time.time() - began):,.0f} tok/s")
    bar.close()
    spent = time.time() - began
    print(f"written: {cfg.out}; {tokens:,} tokens in {runs.duration(spent)}, {tokens / spent:,.0f} tok/s")


def sample(cfg, task, model, tokenizer, folder):
    """Reply to --prompt, --n times, or to every row of --prompts."""
    if cfg.prompts:
        return sample_rows(cfg, model, tokenizer, folder)
    if not cfg.prompt:
        raise UsageError("sample needs --prompt TEXT or --prompts FILE")
    agent = agent_of(cfg, model, tokenizer)
    for reply in agent.reply([[{"role": "user", "content": cfg.prompt}]], cfg.n)[0]:
        print(data.printable(reply.text))


def merge(cfg, task, model, tokenizer, folder):
    """Write the model with its adapter merged, tokenizer and settings beside it, to the new folder --out.

    merged.json there says what went in, so that the same adapter is not added twice."""
    if not cfg.out:
        raise UsageError("merge needs --out FOLDER")
    name = models.resolve(cfg.lora or named(cfg))
    if not (name / "adapter_config.json").exists():
        raise ValueError(
            f"{name} is no adapter: there is nothing to merge (an adapter for it goes with --lora)"
        )
    adapter = hashlib.sha256((name / "adapter_model.safetensors").read_bytes()).hexdigest()
    under = (named(cfg), cfg.revision or None) if cfg.lora else lora.read_base(name)
    base = models.resolve(*under)
    before = models.read_json(base / "merged.json") if (base / "merged.json").exists() else []
    if adapter in [entry["sha256"] for entry in before]:
        raise ValueError(f"{base}: the adapter {name} is merged into it already (merged.json)")
    out = Path(new_file(cfg.out))
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if tokenizer:  # an Embedder
        save_embedder(tokenizer, partial)
    else:
        models.save(model, partial)
    for source in (base, folder):
        models.copy_tokenizer(source, partial)
    runs.write_json(partial / "merged.json", [*before, {"adapter": str(name), "sha256": adapter}])
    os.replace(partial, out)
    print(f"written: {out}")


def rows(cfg, task):
    """Write the rows of --data that training would see, as the game reads them, to the new file --out."""
    if not cfg.out:
        raise UsageError("rows needs --out FILE")
    found = task.examples("train")
    write_rows(new_file(cfg.out), found)
    print(f"written: {cfg.out}, {len(found):,} rows")
    print_dropped(task)


def submit(cfg, task, model=None, tokenizer=None, folder=None):
    """Write the submission that --predictions (what eval wrote) make, or that the model makes for the test
    rows of --data, checked against the task's data; or the model as a program that plays."""
    if not cfg.out:
        raise UsageError("submit needs --out FILE")
    if not (cfg.predictions or model):
        raise UsageError("submit needs --predictions FILE, which eval wrote")
    if cfg.predictions:
        found = task.submit(cfg.predictions)
        runs.write_json(new_file(cfg.out), found)
    elif task.package:
        name = models.resolve(cfg.lora or named(cfg))
        if (name / "adapter_config.json").exists():
            flags = f"--model {named(cfg)}" + (f" --lora {cfg.lora}" if cfg.lora else "")
            raise ValueError(
                f"{name} is an adapter: merge it first, python infer.py merge --task {cfg.task} {flags} "
                "--out FOLDER, and submit --model FOLDER"
            )
        agent = agent_of(cfg, model, tokenizer, task)
        settings = {"max_new": agent.max_new, "seed": agent.seed, **agent.sampling}
        task.package(new_file(cfg.out), folder, cfg.format, settings)
    else:
        out = new_file(cfg.out)
        found, text = task.submission(agent_of(cfg, model, tokenizer)), io.StringIO()
        if not found:
            raise ValueError("--data: there are no rows to make a submission for")
        writer = csv.DictWriter(text, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        runs.replace_text(out, text.getvalue())
    print(f"written: {cfg.out}")


VERBS = {"play": play, "eval": evaluate, "sample": sample, "collect": collect, "merge": merge}
VERBS |= {"rows": rows, "submit": submit}
CHUNK = 256  # replies between two writes


def main(argv=None):
    """Exit codes: 0 done, 1 failed, 2 wrong call, 130 interrupted."""
    try:
        cfg = parse(Infer, with_task(sys.argv[1:] if argv is None else list(argv)))
        if cfg.verb not in VERBS:
            raise UsageError(f"{cfg.verb}: unknown{nearest(cfg.verb, VERBS)} (known: {', '.join(VERBS)})")
        if cfg.n < 1:
            raise UsageError("--n must be at least 1")
        teacher = cfg.verb == "collect" and getattr(cfg.options, "teacher", "")
        if teacher and (cfg.model or cfg.run):
            raise UsageError("--teacher: plays instead of a --run or --model, take one of them")
        cfg.model = teacher or cfg.model
        as_trained(cfg)
        task = task_class(cfg.task)(cfg.options, cfg.seed)
        by_model = task.package or type(task).submission is not Task.submission
        elsewhere = teacher and (teacher in task.players or teacher.startswith(("http://", "https://")))
        alone = elsewhere or cfg.verb in ("rows", *task.alone)
        if alone or cfg.verb == "submit" and (cfg.predictions or not by_model):
            VERBS[cfg.verb](cfg, task)
        elif cfg.verb == "eval" and getattr(cfg.options, "against", ()):
            helpers(cfg, task)
            evaluate(cfg, task, None, None, None)
        else:
            model, tokenizer, folder = named_model(cfg, task)
            helpers(cfg, task)
            for name in (folder, cfg.lora):
                task.seen |= set(runs.trained_on(models.resolve(name)) if name else ())
            VERBS[cfg.verb](cfg, task, model, tokenizer, folder)
    except UsageError as error:
        print(f"infer.py: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"infer.py: {error}", file=sys.stderr)
        return 2 if str(error).startswith("--") else 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
