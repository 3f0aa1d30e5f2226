"""What is learned from each kind of training item: an objective lays items out as rows, and gives their loss.

Every loss is a sum over a batch; the step divides the whole by `weight`, known from its rows before the first
backward, so that cutting the work changes nothing."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch

import losses
from data import Row, pack, share_prefixes, trees
from games.task import Chat, Judged, Label, Pair
from lora import without_lora
from model import ALWAYS


@dataclass
class Objective:
    item: type  # the kind of item it learns from
    rows: Callable  # (items of one example, tokenizer, cfg) -> rows of at most --max-tokens, samples left out
    loss: Callable  # (model, batch, cfg, reference, z, noise) -> summed loss of a batch (data.collate)
    weight: Callable  # rows -> what the sum over a step is divided by
    packed: bool = True  # rows may share a longer one
    reference: bool = False  # compares with the model before training, which is the model without its adapter


def step_rows(objective, examples, tokenizer, cfg):
    """(rows, others, left out) of the items of a step's examples, a list of lists. `others` are for kto's
    z."""
    rows, left_out = [], 0
    for items in examples:
        for item in items:
            if not isinstance(item, objective.item):
                name = objective.item.__name__
                raise ValueError(
                    f"this loss learns from {name} items, and the task gives {type(item).__name__}"
                )
        made, dropped = objective.rows(items, tokenizer, cfg)
        rows, left_out = rows + made, left_out + dropped
    others = swapped(rows) if objective.item is Judged and len(rows) > 1 else []  # without others z is 0
    return (pack(rows, cfg.max_tokens) if objective.packed else rows), others, left_out


def shown(item, tokenizer, cfg):
    """An item as terminal text, what is learned in green."""
    if isinstance(item, Chat):
        return tokenizer.coloured(*tokenizer.render(item.messages, "all" if cfg.learn_all else item.learn))
    if isinstance(item, Label):
        ids = tokenizer.prompt(item.messages)
        return f"{tokenizer.coloured(ids, [0] * len(ids))} -> {item.target}"
    replies = [item.chosen, item.rejected] if isinstance(item, Pair) else [item.reply]
    return "\n".join(tokenizer.coloured(*replied(tokenizer, item.messages, reply)) for reply in replies)


# ------------------------------------------------------------------------------------------------ sft
def chat_rows(items, tokenizer, cfg):
    """The samples of one example as trees of what they share."""
    samples = [tokenizer.render(item.messages, "all" if cfg.learn_all else item.learn) for item in items]
    kept = [sample for sample in samples if len(sample[0]) <= cfg.max_tokens and any(sample[1][1:])]
    return (trees(kept, cfg.max_tokens) if kept else []), len(samples) - len(kept)


def token_logp(model, batch, noise=None):
    """Log-probability of each learned token of a batch, (N,)."""
    hidden = model(batch["ids"], batch["positions"], batch["end"], noise=noise)
    hidden = hidden.flatten(0, 1)[batch["source"]]  # (N, D)
    return losses.token_logp(model.logits, hidden, batch["target"], model.config.vocab)


def sft_loss(model, batch, cfg, reference=None, z=0.0, noise=None):
    return losses.sft(token_logp(model, batch, noise)).sum()


# ------------------------------------------------------------------------------------------------ classify
def label_rows(items, tokenizer, cfg):
    """One row a text; a text that is too long is left out."""
    rows = []
    for item in items:
        ids = tokenizer.prompt(item.messages)
        if len(ids) <= cfg.max_tokens:
            rows.append(Row(ids, [*range(len(ids))], [len(ids)] * len(ids), [], [], labels=[item.target]))
    return rows, len(items) - len(rows)


def classify_loss(model, batch, cfg, reference=None, z=0.0, noise=None):
    slots = torch.arange(batch["ids"].shape[1], device=batch["ids"].device)
    end = (slots < batch["length"][:, None]) * ALWAYS  # (B, T)
    logits = model.classify(model(batch["ids"], batch["positions"], end, noise=noise), end)
    return losses.classify(logits, batch["labels"]).sum()


# ------------------------------------------------------------------------------------------------ preference
def replied(tokenizer, messages, reply):
    return tokenizer.render([*messages, {"role": "assistant", "content": reply}], "last")


def whole_rows(groups, max_tokens):
    """A row for each (samples, labels) that must stay together, and how many did not fit."""
    rows = [share_prefixes(*group) for group in groups]
    kept = [row for row in rows if len(row.ids) <= max_tokens]
    return kept, len(rows) - len(kept)


def pair_rows(items, tokenizer, cfg):
    """A row a pair: the chosen and the rejected reply branch from one prompt."""
    pairs = [
        [replied(tokenizer, item.messages, reply) for reply in (item.chosen, item.rejected)] for item in items
    ]
    return whole_rows([(pair, [1.0, 0.0]) for pair in pairs], cfg.max_tokens)


def judged_rows(items, tokenizer, cfg):
    """A row a reply, its label 1 where it is good and 0 where not."""
    groups = [([replied(tokenizer, item.messages, item.reply)], [float(item.good)]) for item in items]
    return whole_rows(groups, cfg.max_tokens)


def swapped(rows):
    """Rows of one reply each, every reply put to the next row's prompt."""
    made = []
    for row, other in zip(rows[1:] + rows[:1], rows):
        prompt = row.ids[: row.source[0] + 1]
        mask = [0] * len(prompt) + [1] * len(other.target)
        made.append(share_prefixes([(prompt + other.target, mask)]))
    return made


def reply_logp(model, batch):
    """Summed log-probability of each sample's learned tokens, (samples,)."""
    logp = token_logp(model, batch)
    return logp.new_zeros(len(batch["labels"])).index_add(0, batch["owner"], logp)


@torch.no_grad()
def reference_logp(model, batch, reference):
    """The same under the model before training: `reference`, or the model without its adapter where that is
    None."""
    with without_lora(model) if reference is None else nullcontext():
        return reply_logp(reference or model, batch)


def dpo_loss(model, batch, cfg, reference=None, z=0.0, noise=None):
    ref = reference_logp(model, batch, reference).view(-1, 2)
    logp = reply_logp(model, batch).view(-1, 2)  # (pairs, 2)
    return losses.dpo(logp[:, 0], logp[:, 1], ref[:, 0], ref[:, 1], cfg.beta).sum()


def kto_loss(model, batch, cfg, reference=None, z=0.0, noise=None):
    ref = reference_logp(model, batch, reference)
    return losses.kto(reply_logp(model, batch), ref, batch["labels"] > 0, z, cfg.beta).sum()


@torch.no_grad()
def gain(model, batches, reference):
    """Sum of logp - ref over batches: for kto's z, of replies put to other prompts."""
    gains = [reply_logp(model, batch) - reference_logp(model, batch, reference) for batch in batches]
    return sum((part.sum() for part in gains), torch.zeros((), device=model.device))


def targets(rows):
    return sum(len(row.target) for row in rows)


def samples(rows):
    return sum(len(row.labels) for row in rows)


OBJECTIVES = {
    "sft": Objective(Chat, chat_rows, sft_loss, targets),
    "classify": Objective(Label, label_rows, classify_loss, samples, packed=False),
    "dpo": Objective(Pair, pair_rows, dpo_loss, lambda rows: samples(rows) // 2, reference=True),
    "kto": Objective(Judged, judged_rows, kto_loss, samples, reference=True),
}
