"""What a run says before its first step (what people get wrong, and what --dry-run shows), and the table of
its figures."""

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
from steps import Place, batches_of, draw, items_of
from terminal import printable


def activations(run):
    """Bytes that a forward pass, run(), keeps for its backward pass, the parameters left out."""
    kept = {}

    def keep(tensor):
        if not (isinstance(tensor, torch.nn.Parameter) or tensor._base is not None and tensor._base.is_leaf):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(kept.values())


def memory(objective, learner, step, device, compute):
    """A line on what a step takes: weights, gradients, optimizer state, activations of its largest batch."""
    model, batches = learner.model.train(), partial(batches_of, learner=learner)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    with autocast(device, compute):
        if objective.before:
            objective.before(learner, step, batches, lambda tensor: None)
        batch = next(batches(step.rows))
        kept = activations(lambda: objective.loss(learner, batch, step))
    parts = {
        "weights": sum(weight.nbytes for weight in model.parameters()),
        "gradients": sum(weight.nbytes for weight in trained),
        "optimizer": sum(weight.nbytes for weight in trained) * (1 if learner.cfg.optimizer == "muon" else 2),
        "activations": kept,
    }
    has = memory_of(device)
    text = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in parts.items())
    return f"memory: about {sum(parts.values()) / 2**20:,.0f} of {has / 2**20:,.0f} MB ({text})"


def survey(objective, learner, task, examples, seconds=3.0):
    """A line on the samples of the first epoch: how many, how long, how many too long; of all examples, or of
    those that `seconds` are enough for. Raises ValueError where almost nothing is left."""
    cfg, began, steps = learner.cfg, time.time(), []
    for chosen in data.indices(cfg.seed, 0, len(examples), len(examples)):
        steps.append(make_step(objective, learner, task, examples, [chosen], Place()))
        if time.time() - began > seconds:
            break
    rows = [row for step in steps for row in step.rows]
    left_out = sum(step.left_out for step in steps)
    kept = sum(step.weight for step in steps)
    if objective.item is Chat:  # whose weight is its tokens
        kept = sum(len(row.labels) for row in rows)
    check_enough(kept, {f"longer than --max-tokens {cfg.max_tokens}": left_out}, "samples", cfg.keep)
    sizes = [len(row.ids) for row in rows]
    line = f"samples: {kept:,} kept; dropped: {left_out:,} too long"
    if learner.embedder:
        full = sum(size >= learner.embedder.max_length for size in sizes)
        line = f"texts: {len(sizes):,}, of them {full:,} that fill --max-tokens or are cut"
    of = "all" if len(steps) == len(examples) else f"{len(steps):,} of"
    mean, most = np.mean(sizes or [0]), max(sizes, default=0)
    return f"{line} (of {of} {len(examples):,} examples); {mean:.0f} tokens a row, {most} at most"


def check_enough(kept, dropped, what, least):
    """Raise ValueError where less than the share `least` (train.py's --keep) of `what` is kept; dropped:
    reason -> count, as Task.dropped.

    A filter that fits other data than yours can throw nearly everything away and training would still run: a
    limit of 4,000 characters once left 1,786 of 180,000 rows, which were then learned 400 times over."""
    total = kept + sum(dropped.values())
    if kept >= least * total:
        return
    reasons = sorted(dropped, key=lambda reason: -dropped[reason])
    reasons = "; ".join(f"{dropped[reason]:,} {reason}" for reason in reasons)
    raise ValueError(
        f"only {kept:,} of {total:,} {what} are left, a smaller share than --keep {least:g} (dropped: "
        f"{reasons}); mend the data or what drops it, or lower --keep"
    )


def dropped_line(dropped):
    """Rows left out, by reason."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()) or "none"


def item_text(item, learner):
    """An item as terminal text, what is learned in green."""
    tokenizer = learner.tokenizer
    if isinstance(item, Contrast):
        parts = [("query", item.query), ("positive", item.positive)]
        parts += [("negative", text) for text in item.negatives]
        return "\n".join(f"{kind}: {text}" for kind, text in parts)
    if isinstance(item, Chat):
        learn = "all" if learner.cfg.learn_all else item.learn
        return tokenizer.coloured(*tokenizer.render(item.messages, learn))
    if isinstance(item, Duel):
        sides = [tokenizer.prompt(messages) for messages in (item.first, item.second)]
        return "\n".join(tokenizer.coloured(ids, [0] * len(ids)) for ids in sides) + f"\n-> {item.target}"
    if isinstance(item, Label):
        ids = tokenizer.prompt(item.messages)
        return f"{tokenizer.coloured(ids, [0] * len(ids))} -> {item.target}"
    replies = [item.chosen, item.rejected] if isinstance(item, Pair) else [item.reply]
    return "\n".join(tokenizer.coloured(*tokenizer.replied(item.messages, reply)) for reply in replies)


def describe(objective, learner, task, examples, step, device, compute):
    """All of it, as lines. Raises ValueError where almost no sample fits."""
    cfg, model = learner.cfg, learner.model
    weights = list(model.parameters())
    whole = sum(weight.numel() for weight in weights)
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    chosen = {name: value for name, value in values(cfg).items() if name in cfg.origin and value != ""}
    slots = sum(len(row.ids) for row in step.rows)
    learned = f"{round(step.weight):,} {objective.unit} learned"
    lines = [", ".join(f"{name}={value}" for name, value in chosen.items())]
    lines.append(f"examples: {len(examples):,} kept; dropped: {dropped_line(task.dropped)}")
    if objective.item:
        lines.append(survey(objective, learner, task, examples))
    if model.fresh:
        fresh = ", ".join(sorted(model.fresh))
        lines.append(f"classifier: {fresh} made anew, the checkpoint has none")
    lines += [
        f"parameters: {trained:,} trained of {whole:,}; vocabulary {model.config.vocab:,}",
        f"steps: {cfg.steps} of {cfg.batch} examples, {cfg.steps * cfg.batch / len(examples):.2f} epochs",
        f"first step: {slots:,} tokens with prefixes shared, {learned}; {step.left_out} too long, dropped",
    ]
    if step.report:
        lines.append("first step: " + figures(step.report))
    if not step.rows:
        lines.append("first step: nothing to learn from: games of an example are worth the same, or cut")
    for sample in step.samples[: cfg.show]:
        lines.append(f"first game: {printable(json.dumps(sample, ensure_ascii=False))}")
    if objective.item:
        first = draw(examples, cfg, data.indices(cfg.seed, 0, cfg.batch, len(examples))[:1])
        (items,) = items_of(task, first, objective.item)
        lines.append(f"first example: {len(items)} items")
        lines += [item_text(item, learner) for item in items[: cfg.show]]
    if step.rows:
        lines.append(memory(objective, learner, step, device, compute))
    return lines


def figures(report):
    return ", ".join(f"{name} {value:.3f}" for name, value in report.items() if value is not None)


def table(after, before=None):
    """Lines that set an evaluation beside the one before training, if given, and its baseline."""

    def cell(result, name):
        value, interval = result["metrics"].get(name), result["intervals"].get(name)
        text = "-" if value is None else f"{value:.3f}"
        return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{text:21}"

    results = [result for result in (before, after) if result]
    width = max([28, *(len(name) + 1 for name in after["metrics"])])
    titles = f"{'before':>22}{'after':>22}" if before else " " * 22
    lines = [" " * width + titles + f"{'baseline':>10}"]
    for name in after["metrics"]:
        columns = "".join(f"{cell(result, name):>22}" for result in results)
        base = after["baselines"].get(name)
        lines.append(f"{name:{width}}" + columns + ("" if base is None else f"{base:>10.3f}"))
    counts = f"n = {after['n']}" + (f" after, {before['n']} before" if before else "")
    return [*lines, *after.get("notes", []), f"{counts}; 95 % intervals"]
