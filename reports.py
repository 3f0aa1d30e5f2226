"""The report of a run before its first step (its data, its size, the usual mistakes; all that --dry-run
prints), and the table of an evaluation."""

import json
import time
from functools import partial

import numpy as np
import torch

import data
from games.task import Chat, Contrast, Duel, Label, Pair
from objectives import make_step
from ranks import autocast, memory_of
from recipes import values
from steps import Learner, Place, Step, batches_of, draw, items_of

TABLE_LINES = 25  # a table fits a screen
LINE = 150  # last characters of a prompt or a reply that stand below a table
GROUPS = {"groups", "bias"}  # an evaluation with one of these fields has notes about groups of its examples


# ------------------------------------------------------------------------------------------------ memory
def activations(forward) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the parameters."""
    sizes = {}  # by address, because several operations may keep the same tensor

    def keep(tensor):
        # A transposed parameter is a view of it: it takes no memory of its own.
        is_view_of_leaf = tensor._base is not None and tensor._base.is_leaf
        if not (isinstance(tensor, torch.nn.Parameter) or is_view_of_leaf):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(sizes.values())


def memory(objective, learner, step, device, compute) -> str:
    """A line about the memory that a step takes, with the activations of its largest batch."""
    model = learner.model.train()
    batches = partial(batches_of, learner=learner)
    with autocast(device, compute):
        if objective.before:
            objective.before(learner, step, batches, lambda tensor: None)
        batch = next(batches(step.rows))
        kept = activations(lambda: objective.loss(learner, batch, step))

    weights = 0
    gradients = 0
    for weight in model.parameters():
        weights += weight.nbytes
        if weight.requires_grad:
            gradients += weight.nbytes
    averages = 1 if learner.cfg.optimizer == "muon" else 2  # adamw also keeps one of the squared gradients
    parts = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": gradients * averages,
        "activations": kept,
    }
    megabytes = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in parts.items())
    total = sum(parts.values()) / 2**20
    return f"memory: about {total:,.0f} of {memory_of(device) / 2**20:,.0f} MB ({megabytes})"


# ------------------------------------------------------------------------------------------------ data
def survey(objective, learner, task, examples, seconds=3.0) -> str:
    """A line about the samples of the first epoch: their number, their length, and how many are too long.

    It covers all examples, or as many as `seconds` are enough for. Raises ValueError if almost no sample is
    left."""
    cfg = learner.cfg
    began = time.time()
    steps = []
    for chosen in data.indices(cfg.seed, 0, len(examples), len(examples)):
        steps.append(make_step(objective, learner, task, examples, [chosen], Place()))
        if time.time() - began > seconds:
            break

    rows = []
    too_long = 0
    kept = 0
    for step in steps:
        rows += step.rows
        too_long += step.left_out
        kept += step.weight
    if objective.item is Chat:  # the weights of its steps count tokens, not samples
        kept = sum(len(row.labels) for row in rows)
    dropped = {f"longer than --max-tokens {cfg.max_tokens}": too_long}
    check_enough(kept, dropped, "samples", cfg.keep)

    lengths = [len(row.ids) for row in rows]
    line = f"samples: {kept:,} kept; dropped: {too_long:,} too long"
    if learner.embedder:  # it cuts texts and drops none
        full = sum(length >= learner.embedder.max_length for length in lengths)
        line = f"texts: {len(lengths):,}; {full:,} fill --max-tokens or are cut"
    covered = "all" if len(steps) == len(examples) else f"{len(steps):,} of"
    mean = np.mean(lengths or [0])
    longest = max(lengths, default=0)
    return f"{line} (of {covered} {len(examples):,} examples); {mean:.0f} tokens a row, {longest} at most"


def check_enough(kept: int, dropped: dict, what: str, least: float):
    """Raise ValueError if less than the share `least` (--keep of train.py) of `what` is kept. dropped:
    {reason: count}, as in Task.dropped.

    A filter made for other data can drop nearly everything, and training would still run. A limit of 4,000
    characters once left 1,786 of 180,000 rows, and the model then learned these 400 times over."""
    total = kept + sum(dropped.values())
    if kept >= least * total:
        return
    reasons = sorted(dropped, key=dropped.get, reverse=True)
    reasons = "; ".join(f"{dropped[reason]:,} {reason}" for reason in reasons)
    raise ValueError(
        f"only {kept:,} of {total:,} {what} are left, a smaller share than --keep {least:g} (dropped: "
        f"{reasons}); correct the data or the setting that drops so much, or lower --keep"
    )


def dropped_line(dropped: dict) -> str:
    """The number of dropped rows for each reason."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()) or "none"


def item_text(item, learner) -> str:
    """An item as text for the terminal, with learned tokens in green."""
    tokenizer = learner.tokenizer

    def prompt_text(messages):
        ids = tokenizer.prompt(messages)
        return tokenizer.colour(ids, [0] * len(ids))  # no token of a prompt is learned

    if isinstance(item, Contrast):
        lines = [f"query: {item.query}", f"positive: {item.positive}"]
        lines += [f"negative: {text}" for text in item.negatives]
        return "\n".join(lines)
    if isinstance(item, Chat):
        learn = "all" if learner.cfg.learn_all else item.learn
        return tokenizer.colour(*tokenizer.render(item.messages, learn))
    if isinstance(item, Duel):
        return f"{prompt_text(item.first)}\n{prompt_text(item.second)}\n-> {item.target}"
    if isinstance(item, Label):
        return f"{prompt_text(item.messages)} -> {item.target}"

    # What is left has a reply: one, or a pair of a better and a worse one.
    replies = [item.chosen, item.rejected] if isinstance(item, Pair) else [item.reply]
    lines = []
    for reply in replies:
        ids, learn = tokenizer.render_reply(item.messages, reply)
        lines.append(tokenizer.colour(ids, learn))
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ the report
def describe(objective, learner: Learner, task, examples: list, step: Step, device, compute) -> list[str]:
    """The whole report before training, as lines. Raises ValueError if almost no sample fits."""
    cfg = learner.cfg
    chosen = []
    for name, value in values(cfg).items():
        if name in cfg.origin and value != "":
            chosen.append(f"{name}={value}")
    lines = [", ".join(chosen)]

    # The data: what is left of it, and how long its samples are.
    lines.append(f"examples: {len(examples):,} kept; dropped: {dropped_line(task.dropped)}")
    if objective.item:
        lines.append(survey(objective, learner, task, examples))

    # The size of the model and of the run.
    model = learner.model
    if model.fresh:
        fresh = ", ".join(sorted(model.fresh))
        lines.append(f"classifier: {fresh} made anew, because the checkpoint has none")
    total = sum(getattr(part, "uncounted", 0) for part in model.modules())  # see quantized.py
    trained = 0
    for weight in model.parameters():
        total += weight.numel()
        if weight.requires_grad:
            trained += weight.numel()
    lines.append(f"parameters: {trained:,} trained of {total:,}; vocabulary {model.config.vocab:,}")
    epochs = cfg.steps * cfg.batch / len(examples)
    lines.append(f"steps: {cfg.steps} of {cfg.batch} examples, {epochs:.2f} epochs")

    # The first step, made but not yet taken: mistakes in the data show here.
    slots = sum(len(row.ids) for row in step.rows)
    learned = f"{round(step.weight):,} {objective.unit} learned"
    lines.append(
        f"first step: {slots:,} tokens with shared prefixes, {learned}; {step.left_out} too long, dropped"
    )
    if step.report:
        lines.append("first step: " + figures(step.report))
    if not step.rows:
        lines.append("first step: nothing to learn: all games of each example earn the same, or were cut")
    for sample in step.samples[: cfg.show]:
        lines.append(f"first game: {json.dumps(sample, ensure_ascii=False)}")
    if objective.item:
        order = data.indices(cfg.seed, 0, cfg.batch, len(examples))
        first = draw(examples, cfg, order[:1])
        (items,) = items_of(task, first, objective.item)
        lines.append(f"first example: {len(items)} items")
        lines += [item_text(item, learner) for item in items[: cfg.show]]
    if step.rows:
        lines.append(memory(objective, learner, step, device, compute))
    return lines


def figures(report: dict) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in report.items() if value is not None)


def table(after: dict, before: dict | None = None, verbose=False, file="") -> list[str]:
    """An evaluation as lines: each metric with its 95 % interval, beside the same metric before training (if
    given) and the baseline.

    Unless verbose, the table has at most TABLE_LINES lines. Its last line says how many are left out, and
    which file holds all figures."""

    def cell(result, name):
        value = result["metrics"].get(name)
        interval = result["intervals"].get(name)
        text = "-" if value is None else f"{value:.3f}"
        if interval:
            low, high = interval
            return f"{text} [{low:.3f}, {high:.3f}]"
        return f"{text:21}"  # about as long as with an interval, so that values stand below each other

    def row(name):
        line = f"{name:{width}}"
        for result in results:
            line += f"{cell(result, name):>22}"
        baseline = after["baselines"].get(name)
        return line if baseline is None else f"{line}{baseline:>10.3f}"

    # The lines that there are, and those that fit.
    names = list(after["metrics"])
    notes = after.get("notes", [])
    total = len(names) + len(notes)
    if not verbose:
        room = TABLE_LINES - 3  # the titles, the counts and the line about the rest take one each
        if len(names) > room:
            # After the main metric come those whose size a reader can judge.
            main = names[0]
            known = lambda name: (name == main, name in after["intervals"], name in after["baselines"])
            names.sort(key=known, reverse=True)
        names = names[:room]
        notes = [] if GROUPS & after.keys() else notes[: room - len(names)]

    results = [result for result in (before, after) if result]
    width = max([27, *map(len, names)]) + 1
    titles = " " * 22
    counts = f"n = {after['n']}"
    if before:
        titles = f"{'before':>22}{'after':>22}"
        counts += f" after, {before['n']} before"
    lines = [" " * width + titles + f"{'baseline':>10}", *map(row, names), *notes]
    lines.append(f"{counts}; 95 % intervals")
    if left_out := total - len(names) - len(notes):
        place = f"; {file} holds all figures" if file else ""
        lines.append(f"lines left out: {left_out} (--verbose prints them{place})")
    for prompt, reply in after.get("replies", {}).items():
        said = {"prompt": prompt, "before": (before or {}).get("replies", {}).get(prompt), "after": reply}
        lines += [
            f"{name:>8}: {' '.join(text.split())[-LINE:]}" for name, text in said.items() if text is not None
        ]
    return lines
