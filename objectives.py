"""What a step learns: an objective lays out the items of a step's examples as rows, and computes the loss of
a batch of these.

Each objective is an entry of OBJECTIVES, at the end: the kind of item it learns from, a function that makes a
Step of some examples, and one that computes the loss of a batch. The objective of games is in rollouts.py,
what all objectives share in steps.py, the formulas in losses.py. Every loss is a sum over a batch; train.py
divides the total by the step's weight, which is known before the first backward pass, so how the work is cut
changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

import data
import losses
from data import Batch, pack, share_prefixes, text_row, trees
from games.task import Chat, Contrast, Duel, Judged, Label, Pair, Ranked
from model import class_logits
from rollouts import distil_loss, grpo_before, grpo_loss, rollout_step
from steps import Learner, Place, Step, before_training, draw, flat_items, items_of, token_logp

# what --beta 0 stands for, as in the papers
BETA = 0.1
SIMPO_BETA = 2.0


@dataclass
class Objective:
    item: type | None  # the kind of item it learns from; None: from games that the model plays itself
    unit: str  # what a step's weight counts
    step: Callable  # (learner, task, drawn examples, Place) -> Step
    loss: Callable  # (learner, Batch, Step) -> sums over the batch, the loss first
    names: tuple = ("loss",)  # of these sums
    before: Callable | None = None  # (learner, step, batches, reduce): fill in the Step before its first loss
    reference: Callable = lambda cfg: False  # whether it compares with the model before training
    whole_step: bool = False  # whether the loss needs the outputs for all rows of a step (WholeStep)


# ------------------------------------------------------------------------------------------------ sft
def render(learner: Learner, item: Chat) -> tuple:
    """Ids and loss mask of a Chat. One that is too long is shortened, if it brings a function for that."""
    tokenizer = learner.tokenizer
    limit = learner.cfg.max_tokens

    def encode(chat):
        learn = "all" if learner.cfg.learn_all else chat.learn
        return tokenizer.render(chat.messages, learn)

    def fits(chat):
        ids, _ = encode(chat)
        return len(ids) <= limit

    ids, mask = encode(item)
    if len(ids) > limit and item.shorten:
        ids, mask = encode(item.shorten(fits))
    return ids, mask


def chat_step(learner: Learner, task, drawn: list, place: Place) -> Step:
    """The samples of each example as trees that share their prefixes."""
    cfg = learner.cfg
    rows = []
    left_out = 0
    for items in items_of(task, drawn, Chat):
        samples = []
        for item in items:
            ids, mask = render(learner, item)
            # Nothing predicts the first token, so a sample needs a learned token after it.
            if len(ids) <= cfg.max_tokens and any(mask[1:]):
                samples.append((ids, mask))
            else:
                left_out += 1
        if samples:
            rows += trees(samples, cfg.max_tokens)

    weight = sum(len(row.target) for row in rows)
    return Step(pack(rows, cfg.row_tokens), weight, left_out)


def sft_loss(learner: Learner, batch: Batch, step: Step) -> list:
    return [losses.sft(token_logp(learner.model, batch)).sum()]


# ------------------------------------------------------------------------------------------------ classify
def label_step(learner: Learner, task, drawn: list, place: Place) -> Step:
    """One row for each text; a text that is too long is shortened."""
    rows = []
    cut = 0
    for item in flat_items(task, drawn, Label):
        row, shortened = learner.tokenizer.fit_row(item.messages, learner.cfg.max_tokens, item.target)
        rows.append(row)
        cut += shortened
    return Step(rows, len(rows), report={"cut": cut / max(1, len(rows))})


def classify_loss(learner: Learner, batch: Batch, step: Step) -> list:
    logits = class_logits(learner.model, batch)  # (B, classes)
    labels = batch.labels  # (B,) classes, or (B, classes) probabilities
    best = labels if labels.dim() == 1 else labels.argmax(-1)  # (B,)
    right = logits.argmax(-1) == best
    return [losses.classify(logits, labels).sum(), right.sum()]


# ------------------------------------------------------------------------------------------------ preference
@dataclass
class JudgedStep(Step):
    others: list = field(default_factory=list)  # rows of every reply after the prompt of another reply
    z: torch.Tensor | None = None  # the mean of logp - ref over these (kto_before)


def trees_that_fit(groups, max_tokens):
    """A row for each (samples, labels) that must stay together, and how many rows were too long."""
    rows = []
    for samples, labels in groups:
        row = share_prefixes(samples, labels)
        if len(row) <= max_tokens:
            rows.append(row)
    return rows, len(groups) - len(rows)


def pair_step(learner: Learner, task, drawn: list, place: Place) -> Step:
    """The chosen and the rejected reply of a pair branch from one prompt."""
    cfg = learner.cfg
    render_reply = learner.tokenizer.render_reply
    groups = []
    for item in flat_items(task, drawn, Pair):
        chosen = render_reply(item.messages, item.chosen)
        rejected = render_reply(item.messages, item.rejected)
        groups.append(([chosen, rejected], [1.0, 0.0]))
    rows, left_out = trees_that_fit(groups, cfg.max_tokens)
    return Step(pack(rows, cfg.row_tokens), len(rows), left_out)


def judged_step(learner: Learner, task, drawn: list, place: Place) -> Step:
    """A row for each reply, with label 1 if it is good, else 0."""
    cfg = learner.cfg
    groups = []
    for item in flat_items(task, drawn, Judged):
        sample = learner.tokenizer.render_reply(item.messages, item.reply)
        groups.append(([sample], [float(item.good)]))
    rows, left_out = trees_that_fit(groups, cfg.max_tokens)
    others = []
    if len(rows) > 1:  # a single row has no other prompt
        others = swap_replies(rows)
    return JudgedStep(pack(rows, cfg.row_tokens), len(rows), left_out, others=others)


def swap_replies(rows):
    """Rows of one reply each, where every reply follows the prompt of the next row."""
    swapped = []
    next_rows = rows[1:] + rows[:1]
    for row, other in zip(next_rows, rows):
        prompt = row.ids[: row.source[0] + 1]
        mask = [0] * len(prompt) + [1] * len(other.target)
        swapped.append(share_prefixes([(prompt + other.target, mask)]))
    return swapped


def reply_logp(model, batch: Batch) -> torch.Tensor:
    """Summed log-probability of the learned tokens of each sample, (S,)."""
    logp = token_logp(model, batch)  # (N,)
    zeros = logp.new_zeros(len(batch.labels))  # (S,)
    return zeros.index_add(0, batch.owner, logp)


def simpo_loss(learner: Learner, batch: Batch, step: Step) -> list:
    cfg = learner.cfg
    logp = token_logp(learner.model, batch)  # (N,)
    zeros = logp.new_zeros(len(batch.labels))  # (S,)
    totals = zeros.index_add(0, batch.owner, logp)
    lengths = zeros.index_add(0, batch.owner, torch.ones_like(logp))
    means = (totals / lengths).view(-1, 2)  # (pairs, 2): chosen, rejected
    loss = losses.simpo(means[:, 0], means[:, 1], cfg.beta or SIMPO_BETA, cfg.lead)
    gap = (means[:, 0] - means[:, 1]).detach()
    return [loss.sum(), (gap > 0).sum(), gap.sum()]


def dpo_loss(learner: Learner, batch: Batch, step: Step) -> list:
    beta = learner.cfg.beta or BETA
    ref = before_training(learner, reply_logp, batch).view(-1, 2)
    logp = reply_logp(learner.model, batch).view(-1, 2)  # (pairs, 2): chosen, rejected

    loss = losses.dpo(logp[:, 0], logp[:, 1], ref[:, 0], ref[:, 1], beta)
    # arXiv 2404.19733: else both replies may become less likely, and unwanted ones more
    loss = loss - learner.cfg.nll * logp[:, 0]

    gain = (logp - ref).detach()  # (pairs, 2)
    right = gain[:, 0] > gain[:, 1]
    margin = gain[:, 0] - gain[:, 1]
    return [loss.sum(), right.sum(), beta * margin.sum()]


@torch.no_grad()
def kto_before(learner, step, batches, reduce):
    """Fill in step.z, which is 0 where there are no other prompts."""
    z = torch.zeros((), device=learner.model.device)
    for batch in batches(step.others):
        logp = reply_logp(learner.model, batch)  # (S,)
        ref = before_training(learner, reply_logp, batch)
        # A filler repeats another batch: the ranks need its passes, but it must not count twice.
        if not batch.filler:
            z += (logp - ref).sum()
    reduce(z)
    step.z = z / max(1, len(step.others))


def kto_loss(learner: Learner, batch: Batch, step: Step) -> list:
    ref = before_training(learner, reply_logp, batch)
    logp = reply_logp(learner.model, batch)
    return [losses.kto(logp, ref, batch.labels > 0, step.z, learner.cfg.beta or BETA).sum()]


# ------------------------------------------------------------------------------------------------ whole steps
@dataclass
class WholeStep(Step):
    """A step whose loss needs the model's outputs for all its rows. The first label of a row is its index."""

    values: torch.Tensor | None = None  # (rows, values): each row's part of the step's sums (see `before`)
    slope: torch.Tensor | None = None  # (rows, width): the gradient of the loss at each row's output


def whole_step_functions(outputs: Callable, width: Callable, total: Callable) -> tuple:
    """(before, loss) of an objective over whole steps.

    outputs(learner, batch) are the model's outputs (B, width(learner)); total(learner, outputs of all rows,
    step) is a list of values for each row (rows,), the loss first."""

    def before(learner, step, batches, reduce):
        """The gradient cache of arXiv 2101.06983: all outputs first, without gradients; then the gradient of
        the loss at the outputs, as if they were parameters. These slopes are all that a batch needs to know
        of the others. So each is learned from alone, on any rank, and the gradients add up to the step's.

        A model of one weight w = 2 with outputs o = w x, for x = 1, 3, 2, and the loss o0 o1 o2, which no
        batch can compute alone. The batches are rows 0 and 1, and row 2:

            1. outputs            o = 2, 6 | 4          loss 48
            2. slopes d loss/d o  s = 24, 8 | 12
            3. batch 0            learns from s0 o0 + s1 o1, with the gradient 24 * 1 + 8 * 3 = 48 for w
               batch 1            learns from s2 o2,         with the gradient 12 * 2 = 24
               sum                72, as of the loss itself, 6 w^3: its gradient is 18 w^2

        A step of a single batch is learned from directly, and `slope` stays None."""
        ready = list(batches(step.rows))
        if len(ready) == 1 and len(ready[0].ids) == len(step.rows):
            return

        everything = torch.zeros(len(step.rows), width(learner), device=learner.model.device)
        with torch.no_grad():
            for batch in batches(step.rows):
                made = outputs(learner, batch).float()
                if not batch.filler:  # which another rank fills in: `reduce` adds the ranks up
                    everything[batch.labels[:, 0]] = made
        reduce(everything)

        with torch.enable_grad():
            values = total(learner, everything.requires_grad_(), step)
            (step.slope,) = torch.autograd.grad(values[0].sum(), everything)
        step.values = torch.stack(values, 1).detach()

    def loss(learner, batch, step):
        made = outputs(learner, batch).float()  # (B, width)
        index = batch.labels[:, 0]  # (B,)
        if step.slope is None:
            in_order = made[index.argsort()]  # as the step's indices count them
            return [value.sum() for value in total(learner, in_order, step)]

        surrogate = (made * step.slope[index]).sum()  # has the gradient of the loss, but not its value
        values = step.values[index].sum(0)
        return [surrogate + (values[0] - surrogate).detach(), *values[1:]]

    return before, loss


# ------------------------------------------------------------------------------------------------ contrastive
@dataclass
class ContrastStep(WholeStep):
    """Q queries and C candidates, as indices of their rows."""

    query: torch.Tensor | None = None  # (Q,) rows of the queries
    candidate: torch.Tensor | None = None  # (C,) rows of the candidates
    positive: torch.Tensor | None = None  # (Q,) which candidate is each query's positive
    query_label: torch.Tensor | None = None  # (Q,)
    candidate_label: torch.Tensor | None = None  # (C,) where none is known, a number that no other has


class Texts:
    """The distinct texts of a step, numbered in the order in which they come."""

    def __init__(self):
        self.indices = {}  # (kind, text) -> index

    def index(self, kind, text):
        return self.indices.setdefault((kind, text), len(self.indices))

    def rows(self, embedder):
        """One row for each text, with labels (its index, how many tokens are not pooled)."""
        rows = [None] * len(self.indices)
        for kind in ("query", "document"):
            texts = [text for text_kind, text in self.indices if text_kind == kind]
            if not texts:
                continue
            tokens = embedder.tokens(texts, embedder.prompt_of(kind))
            for text, (ids, skip) in zip(texts, tokens):
                index = self.indices[kind, text]
                rows[index] = text_row(ids, [index, skip])
        return rows


def contrast_step(learner: Learner, task, drawn: list, place: Place) -> Step:
    """One row for each distinct text. With --bank every label of the task is a candidate."""
    items = flat_items(task, drawn, Contrast)
    bank = learner.bank

    # Texts are numbered, and so become rows, in this order: queries, positives, negatives, the bank.
    texts = Texts()
    query = [texts.index("query", item.query) for item in items]
    positive = []
    for item in items:
        text = bank[item.label_id] if bank else item.positive
        positive.append(texts.index("document", text))
    others = []
    for item in items:
        for text in () if bank else item.negatives:  # the bank has them
            others.append(texts.index("document", text))
    for text in bank:
        others.append(texts.index("document", text))
    candidates = list(dict.fromkeys(positive + others))  # each once
    place_of = {index: i for i, index in enumerate(candidates)}

    labels = {}
    for index, item in zip(positive, items):
        if not (bank or item.label_id is None):
            labels[index] = item.label_id
    label = lambda index: labels.get(index, ~index)  # negative, so unlike any label

    rows = texts.rows(learner.embedder)
    tensor = partial(torch.tensor, device=learner.model.device)
    step = ContrastStep(
        rows,
        len(items),
        query=tensor(query),
        candidate=tensor(candidates),
        positive=tensor([place_of[index] for index in positive]),
        query_label=tensor([*map(label, positive)]),
        candidate_label=tensor([*map(label, candidates)]),
    )

    # Candidates with a query's own label, beside its positive: the loss masks them.
    twins = (step.query_label[:, None] == step.candidate_label).sum().item() - len(items)
    comparisons = len(items) * (len(candidates) - 1)
    step.report = {"texts": len(rows), "masked": twins / max(1, comparisons)}
    return step


def text_vectors(learner, batch):
    return learner.embedder.vectors(batch.ids, batch.length, batch.labels[:, 1])


def contrast(learner, vectors, step):
    """[loss of each text, (texts,)] from the vectors of all texts of a step; only queries have a loss."""
    query = vectors[step.query]  # (Q, E)
    candidates = vectors[step.candidate]  # (C, E)
    loss = losses.contrastive(
        query, candidates, step.positive, learner.cfg.tau, step.query_label, step.candidate_label
    )
    zeros = loss.new_zeros(len(vectors))  # (texts,)
    return [zeros.index_add(0, step.query, loss)]


contrast_before, contrastive_loss = whole_step_functions(
    text_vectors, lambda learner: learner.embedder.width, contrast
)


# ------------------------------------------------------------------------------------------------ duels
@dataclass
class DuelStep(WholeStep):
    targets: torch.Tensor | None = None  # (duels, 3): first is better, second is better, neither; sums to 1


def duel_step(learner: Learner, task, drawn: list, place: Place) -> Step:
    """Two rows for each item, one a side."""
    rows = []
    targets = []
    cut = 0
    for item in flat_items(task, drawn, Duel):
        for messages in (item.first, item.second):
            row, shortened = learner.tokenizer.fit_row(messages, learner.cfg.max_tokens, [len(rows)])
            rows.append(row)
            cut += shortened

        target = item.target  # three probabilities, or the index of the outcome
        if not isinstance(target, list):
            target = np.eye(3)[target].tolist()
        targets.append(target)

    targets = torch.tensor(targets, device=learner.model.device)
    return DuelStep(rows, len(targets), report={"cut": cut / max(1, len(rows))}, targets=targets)


def duel(learner, scores, step):
    """[loss, whether the verdict is right] of each side, (texts,), from the scores (texts, 2) of all sides:
    worth and inclination to tie."""
    logits = losses.davidson(scores[::2], scores[1::2])  # (duels, 3)
    loss = losses.classify(logits, step.targets)  # (duels,)
    return by_side(loss, logits.argmax(-1) == step.targets.argmax(-1))


def ranking(learner, scores, step):
    """[loss, whether the better chat has the higher score] of each side, (texts,), from the scores (texts, 1)
    of all sides."""
    better = scores[::2, 0]  # (pairs,)
    worse = scores[1::2, 0]
    return by_side(losses.bradley_terry(better, worse), better > worse)


def by_side(loss, right):
    """[loss, right] of each side, (texts,), from those of each item: the values of an item stand at its first
    side, its second has zeros."""
    columns = []
    for values in (loss, right.float()):
        sides = torch.stack([values, torch.zeros_like(values)], 1)  # (items, 2)
        columns.append(sides.flatten())
    return columns


duel_before, duel_loss = whole_step_functions(
    lambda learner, batch: class_logits(learner.model, batch), lambda learner: 2, duel
)
ranking_before, ranking_loss = whole_step_functions(
    lambda learner, batch: class_logits(learner.model, batch), lambda learner: 1, ranking
)


# ------------------------------------------------------------------------------------------------ the table
# fmt: off
OBJECTIVES = {
    "sft": Objective(Chat, "tokens", chat_step, sft_loss),
    "classify": Objective(Label, "labels", label_step, classify_loss, ("loss", "accuracy")),
    "contrastive": Objective(Contrast, "queries", contrast_step, contrastive_loss,
                             before=contrast_before, whole_step=True),
    "davidson": Objective(Duel, "duels", duel_step, duel_loss, ("loss", "accuracy"),
                          before=duel_before, whole_step=True),
    "bradley-terry": Objective(Ranked, "pairs", duel_step, ranking_loss, ("loss", "accuracy"),
                               before=ranking_before, whole_step=True),
    "dpo": Objective(Pair, "pairs", pair_step, dpo_loss, ("loss", "accuracy", "margin"),
                     reference=lambda cfg: True),
    "kto": Objective(Judged, "replies", judged_step, kto_loss,
                     before=kto_before, reference=lambda cfg: True),
    "simpo": Objective(Pair, "pairs", pair_step, simpo_loss, ("loss", "accuracy", "gap")),
    "grpo": Objective(None, "sampled tokens", rollout_step, grpo_loss, ("loss", "kl", "clipped"),
                      before=grpo_before, reference=lambda cfg: cfg.kl > 0),
    "distil": Objective(None, "sampled tokens", rollout_step, distil_loss, reference=lambda cfg: True),
}
# fmt: on


def make_step(objective: Objective, learner: Learner, task, examples, chosen, place: Place) -> Step:
    """The Step of the chosen examples, given as a list of (index, epoch)."""
    return objective.step(learner, task, draw(examples, learner.cfg, chosen), place)


def step_at(objective: Objective, learner: Learner, task, examples, place: Place) -> Step:
    """The Step that training makes at a place, that is, of a given number and on a given rank."""
    cfg = learner.cfg
    chosen = data.indices(cfg.seed, place.number, cfg.batch, len(examples))
    return make_step(objective, learner, task, examples, chosen, place)
