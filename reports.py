"""What a run says before its first step: what people get wrong, in lines, and what --dry-run shows."""

import json
import time
from functools import partial

import numpy as np
import torch

import data
import runs
from embed import Embedder
from games.rows import enough
from games.task import Chat
from objectives import batches_of, items_of, shown, step_of
from recipes import values
from runs import autocast


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
            step.known = objective.before(learner, step, batches, lambda tensor: None)
        batch = next(batches(step.rows))
        kept = activations(lambda: objective.loss(learner, batch, step))
    parts = {
        "weights": sum(weight.nbytes for weight in model.parameters()),
        "gradients": sum(weight.nbytes for weight in trained),
        "optimizer": sum(weight.nbytes for weight in trained) * (1 if learner.cfg.optimizer == "muon" else 2),
        "activations": kept,
    }
    has = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else runs.memory_of_machine()
    text = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in parts.items())
    return f"memory: about {sum(parts.values()) / 2**20:,.0f} of {has / 2**20:,.0f} MB ({text})"


def survey(objective, learner, task, examples, seconds=3.0):
    """A line on the samples of the first epoch: how many, how long, how many too long; of all examples, or of
    those that `seconds` are enough for. Raises ValueError where almost nothing is left."""
    cfg, began, steps = learner.cfg, time.time(), []
    for index, _ in data.indices(cfg.seed, 0, len(examples), len(examples)):
        steps.append(step_of(objective, learner, [items_of(task, examples, cfg, index, 0)]))
        if time.time() - began > seconds:
            break
    rows, left_out = [row for step in steps for row in step.rows], sum(step.left_out for step in steps)
    sizes, kept = [len(row.ids) for row in rows], sum(step.weight for step in steps)
    if objective.item is Chat:  # whose weight is its tokens
        kept = sum(len(row.labels) for row in rows)
    enough(kept, {f"longer than --max-tokens {cfg.max_tokens}": left_out}, "samples", cfg.keep)
    line = f"samples: {kept:,} kept; dropped: {left_out:,} too long"
    if isinstance(learner.tokenizer, Embedder):
        full = sum(size >= learner.tokenizer.max_length for size in sizes)
        line = f"texts: {len(sizes):,}, of them {full:,} that fill --max-tokens or are cut"
    of = "all" if len(steps) == len(examples) else f"{len(steps):,} of"
    mean, most = np.mean(sizes or [0]), max(sizes, default=0)
    return f"{line} (of {of} {len(examples):,} examples); {mean:.0f} tokens a row, {most} at most"


def describe(objective, learner, task, examples, step, device, compute):
    """All of it, as lines. Raises ValueError where almost no sample fits."""
    cfg, model, tokenizer = learner.cfg, learner.model, learner.tokenizer
    weights = list(model.parameters())
    whole = sum(weight.numel() for weight in weights)
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    chosen = {name: value for name, value in values(cfg).items() if name in cfg.origin and value != ""}
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in task.dropped.items()) or "none"
    slots = sum(len(row.ids) for row in step.rows)
    learned = f"{round(step.weight):,} {objective.unit} learned"
    lines = [
        ", ".join(f"{name}={value}" for name, value in chosen.items()),
        f"examples: {len(examples):,} kept; dropped: {reasons}",
        survey(objective, learner, task, examples) if objective.item else "",
        f"classifier: {', '.join(sorted(model.fresh))} made anew, the checkpoint has none"
        if model.fresh
        else "",
        f"parameters: {trained:,} trained of {whole:,}; vocabulary {model.config.vocab:,}",
        f"steps: {cfg.steps} of {cfg.batch} examples, {cfg.steps * cfg.batch / len(examples):.2f} epochs",
        f"first step: {slots:,} tokens with prefixes shared, {learned}; {step.left_out} too long, dropped",
        "first step: " + figures(step.report) if step.report else "",
        ""
        if step.rows
        else "first step: nothing to learn from: games of an example are worth the same, or cut",
    ]
    for sample in step.samples[: cfg.show]:
        lines.append(f"first game: {data.printable(json.dumps(sample, ensure_ascii=False))}")
    if objective.item:
        items = items_of(task, examples, cfg, *data.indices(cfg.seed, 0, cfg.batch, len(examples))[0])
        lines.append(f"first example: {len(items)} items")
        lines += [shown(item, tokenizer, cfg) for item in items[: cfg.show]]
    if step.rows:
        lines.append(memory(objective, learner, step, device, compute))
    return [line for line in lines if line]


def figures(report):
    return ", ".join(f"{name} {value:.3f}" for name, value in report.items() if value is not None)
