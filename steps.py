"""What all objectives share: who learns, what a step learns from, its examples and batches.

A Step is made of examples by an objective (objectives.py, rollouts.py); train.py takes its micro-batches and
sums their losses."""

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
    """What is trained, with which settings (recipes.Train), and what it is compared with."""

    model: Transformer
    tokenizer: Tokenizer | None  # for models that read chats or texts to classify
    cfg: object
    embedder: Embedder | None = None  # for models whose hidden states become vectors
    reference: Transformer | None = None  # the model before training; None is the model without its adapter
    bank: list = field(default_factory=list)  # the texts of all labels, with --bank


@dataclass
class Place:
    """Where a step is made: its number, counted from 0, and which of several ranks makes it."""

    number: int = 0
    rank: int = 0
    world: int = 1


@dataclass
class Step:
    """What one step learns from. Objectives whose loss must know more of the whole step have a kind of Step
    of their own; `before` fills in what is None in it."""

    rows: list  # data.Row, packed
    weight: float = 1.0  # what the sum of its losses is divided by
    left_out: int = 0  # samples that were too long
    report: dict = field(default_factory=dict)  # figures for the log
    samples: list = field(default_factory=list)  # some of what was sampled, as dicts


def draw(examples, cfg, chosen):
    """The examples to learn from, each with its own random stream: (example, rng) for each of `chosen`
    (index, epoch) (data.indices)."""
    return [(examples[index], np.random.default_rng([cfg.seed, epoch, index])) for index, epoch in chosen]


def items_of(task, drawn, kind):
    """What drawn examples teach: a list of items for each. ValueError where they are of another kind."""
    found = [task.items(example, rng) for example, rng in drawn]
    for item in (item for items in found for item in items):
        if not isinstance(item, kind):
            raise ValueError(
                f"this loss learns from {kind.__name__} items, and the task gives {type(item).__name__}"
            )
    return found


def flat_items(task, drawn, kind):
    return [item for items in items_of(task, drawn, kind) for item in items]


def batches_of(rows, learner, place=None):
    """A rank's micro-batches of a step's rows, on the model's device. In training, where there is a Place,
    what each draws (dropout) follows from (seed, step, micro-batch)."""
    cfg, device = learner.cfg, learner.model.device
    where = place or Place()
    groups = micro_batches(rows, cfg.micro_tokens)
    fillers = -len(groups) % where.world if cfg.shard else 0  # which compute in step and count nothing
    for number, group in enumerate(groups + groups[:1] * fillers):
        if number % where.world != where.rank:
            continue
        batch = collate(group, device)
        batch.number, batch.filler = number, number >= len(groups)
        if place:
            seed = np.random.SeedSequence([cfg.seed, place.number, number]).generate_state(1)[0]
            torch.manual_seed(int(seed))
        yield batch


# ------------------------------------------------------------------------------------------------ likelihoods
def token_logp(model, batch, temperature=1.0):
    """Log-probability of each learned token of a batch, (N,)."""
    hidden = model(batch.ids, batch.positions, batch.end)
    hidden = hidden.flatten(0, 1)[batch.source]  # (N, D)
    head = model.logits if temperature == 1 else lambda hidden: model.logits(hidden) / temperature
    return losses.token_logp(head, hidden, batch.target, model.config.vocab)


@torch.no_grad()
def before_training(learner, measure, batch, *more):
    """measure(model, batch, ...) under the model before training."""
    with without_lora(learner.model) if learner.reference is None else nullcontext():
        return measure(learner.reference or learner.model, batch, *more)
