"""What all objectives share: the learner, and the data of a step from its examples to its micro-batches.

An objective makes a Step from examples (objectives.py, rollouts.py); train.py computes the losses of its
micro-batches and sums them."""

from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

import losses
from data import Tokenizer, collate, micro_batches
from embed import Embedder
from lora import without_lora
from model import Transformer


@dataclass
class Learner:
    """The model in training, with its settings and everything that a loss compares it with."""

    model: Transformer
    tokenizer: Tokenizer | None  # of a model that reads chats or classifies texts
    cfg: object  # recipes.Train
    embedder: Embedder | None = None  # of a model whose hidden states become vectors
    # the model before training, or the expert; None: the model without its adapter
    reference: Transformer | None = None
    bank: list = field(default_factory=list)  # the texts of all labels, with --bank
    judge: object = None  # the agent that grades games (games.task.HasJudge)


@dataclass
class Place:
    """Which step this is, and which rank computes it."""

    number: int = 0  # of the step, counted from 0
    rank: int = 0
    world: int = 1  # number of ranks


@dataclass
class Step:
    """The data of one step. An objective whose loss depends on the whole step has its own kind of Step, with
    fields that are None until the objective's `before` computes them."""

    rows: list  # packed rows (data.Row)
    weight: float = 1.0  # divides the sum of the losses
    left_out: int = 0  # number of samples that were too long
    report: dict = field(default_factory=dict)  # figures for the log
    samples: list = field(default_factory=list)  # a few sampled games for rollouts.jsonl, as dicts


def draw(examples: list, cfg, chosen: list) -> list[tuple]:
    """The chosen examples, each with its own random stream: (example, rng) for each (index, epoch) of
    `chosen` (data.indices)."""
    # The stream does not depend on the step or the batch, so --batch leaves the augmentation as it is.
    return [(examples[index], np.random.default_rng([cfg.seed, epoch, index])) for index, epoch in chosen]


def items_of(task, drawn: list, kind: type) -> list[list]:
    """The items of drawn examples, a list for each. Raises ValueError if an item is of another kind."""
    items_by_example = []
    for example, rng in drawn:
        items = task.items(example, rng)
        items_by_example.append(items)
        for item in items:
            if not isinstance(item, kind):
                raise ValueError(
                    f"this loss learns from {kind.__name__} items, and the task gives {type(item).__name__}"
                )
    return items_by_example


def flat_items(task, drawn: list, kind: type) -> list:
    return [item for items in items_of(task, drawn, kind) for item in items]


def batches_of(rows: list, learner: Learner, place: Place | None = None):
    """Yield this rank's micro-batches of a step's rows, on the model's device.

    Training passes a Place: then dropout in a micro-batch follows from (seed, step, micro-batch)."""
    cfg = learner.cfg
    where = place or Place()
    groups = micro_batches(rows, cfg.micro_tokens)
    # Under --shard the ranks exchange weights in every forward pass, so each needs as many batches as the
    # others. A filler takes part in that, and its loss counts as zero.
    fillers = -len(groups) % where.world if cfg.shard else 0
    for number, group in enumerate(groups + groups[:1] * fillers):
        if number % where.world != where.rank:
            continue
        batch = collate(group, learner.model.device)
        batch.number = number
        batch.filler = number >= len(groups)
        if place:
            seed = np.random.SeedSequence([cfg.seed, place.number, number]).generate_state(1)[0]
            reseed(learner.model.device, int(seed))
        yield batch


def reseed(device, seed: int):
    """Seed the generator that dropout on a device draws from. torch.manual_seed seeds those of all kinds of
    devices, which takes it a stack trace for each kind that is not in use: milliseconds."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


# ------------------------------------------------------------------------------------------------ likelihoods
def hidden_states(model: Transformer, batch) -> torch.Tensor:
    """Hidden states (N, D) from which each learned token of a batch is predicted. Only these need logits,
    which are V wide."""
    hidden = model(batch.ids, batch.positions, batch.end)  # (B, T, D)
    return hidden.flatten(0, 1)[batch.source]


def token_logp(model: Transformer, batch, temperature=1.0) -> torch.Tensor:
    """Log-probability (N,) of each learned token of a batch."""
    hidden = hidden_states(model, batch)  # (N, D)
    head = model.logits if temperature == 1 else lambda hidden: model.logits(hidden) / temperature
    return losses.token_logp(head, hidden, batch.target, model.config.vocab)


@torch.no_grad()
def before_training(learner: Learner, measure, batch, *more):
    """measure(model, batch, *more) with the model as it was before training."""
    # With an adapter no second copy is needed: switched off, it leaves the model that training began with.
    with without_lora(learner.model) if learner.reference is None else nullcontext():
        return measure(learner.reference or learner.model, batch, *more)
