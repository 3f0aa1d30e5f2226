"""What is learned from a step's examples: an objective lays them out as rows, and gives the loss of a batch.

An objective is a row of OBJECTIVES, at the end: which items it learns from, a function that makes a Step of
some examples, and one that gives the loss of a batch of its rows. That of games is in rollouts.py, what all
share in steps.py. Every loss is a sum over a batch; train.py
divides the whole by the step's weight, known before the first backward, so that cutting the work changes
nothing. The formulas are in losses.py."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

import data
import losses
from data import pack, share_prefixes, text_row, trees
from games.task import Chat, Contrast, Duel, Judged, Label, Pair
from model import class_logits
from rollouts import grpo_before, grpo_loss, rollout_step
from steps import Step, before_training, draw, flat_items, items_of, token_logp
from terminal import UsageError


@dataclass
class Objective:
    item: type | None  # the kind of item it learns from; None learns from games it plays itself
    unit: str  # of what is learned
    step: Callable  # (learner, task, drawn examples, Place) -> Step
    loss: Callable  # (learner, Batch, Step) -> the batch's sums, the loss first
    names: tuple = ("loss",)  # of these sums
    before: Callable | None = None  # (learner, step, batches, reduce): fill in the Step first
    reference: Callable = lambda cfg: False  # whether it compares with the model before training
    whole: bool = False  # it needs the model's outputs for all rows of a step (WholeStep)


# ------------------------------------------------------------------------------------------------ sft
def render(learner, item):
    """Ids and loss mask of a Chat; one that is too long is shortened, if it knows how."""
    tokenizer, most = learner.tokenizer, learner.cfg.max_tokens
    learn = lambda chat: "all" if learner.cfg.learn_all else chat.learn
    ids, mask = tokenizer.render(item.messages, learn(item))
    if len(ids) > most and item.shorten:
        item = item.shorten(lambda chat: len(tokenizer.render(chat.messages, chat.learn)[0]) <= most)
        ids, mask = tokenizer.render(item.messages, learn(item))
    return ids, mask


def chat_step(learner, task, drawn, place):
    """The samples of each example as trees that share their prefixes."""
    cfg = learner.cfg
    rows, left_out = [], 0
    for items in items_of(task, drawn, Chat):
        samples = [render(learner, item) for item in items]
        kept = [(ids, mask) for ids, mask in samples if len(ids) <= cfg.max_tokens and any(mask[1:])]
        rows += trees(kept, cfg.max_tokens) if kept else []
        left_out += len(samples) - len(kept)
    weight = sum(len(row.target) for row in rows)
    return Step(pack(rows, cfg.row_tokens), weight, left_out)


def sft_loss(learner, batch, step):
    return [losses.sft(token_logp(learner.model, batch)).sum()]


# ------------------------------------------------------------------------------------------------ classify
def label_step(learner, task, drawn, place):
    """One row a text, whose parts are shortened where it is too long."""
    items = flat_items(task, drawn, Label)
    rows, cut = [], 0
    for item in items:
        ids, shortened = learner.tokenizer.fitted(item.messages, learner.cfg.max_tokens)
        rows.append(text_row(ids, item.target))
        cut += shortened
    return Step(rows, len(rows), report={"cut": cut / max(1, len(rows))})


def classify_loss(learner, batch, step):
    labels, logits = batch.labels, class_logits(learner.model, batch)
    right = logits.argmax(-1) == (labels if labels.dim() == 1 else labels.argmax(-1))
    return [losses.classify(logits, labels).sum(), right.sum()]


# ------------------------------------------------------------------------------------------------ preference
@dataclass
class JudgedStep(Step):
    others: list = field(default_factory=list)  # rows of every reply put to another reply's prompt
    z: torch.Tensor | None = None  # the mean of logp - ref over these (kto_before)


def trees_that_fit(groups, most):
    """A row for each (samples, labels) that must stay together, and how many did not fit."""
    rows = [share_prefixes(*group) for group in groups]
    kept = [row for row in rows if len(row.ids) <= most]
    return kept, len(rows) - len(kept)


def pair_step(learner, task, drawn, place):
    """The chosen and the rejected reply of a pair branch from one prompt."""
    cfg, groups = learner.cfg, []
    for item in flat_items(task, drawn, Pair):
        samples = [learner.tokenizer.replied(item.messages, text) for text in (item.chosen, item.rejected)]
        groups.append((samples, [1.0, 0.0]))
    rows, left_out = trees_that_fit(groups, cfg.max_tokens)
    return Step(pack(rows, cfg.row_tokens), len(rows), left_out)


def judged_step(learner, task, drawn, place):
    """A row a reply, its label 1 where it is good and 0 where not."""
    cfg, groups = learner.cfg, []
    for item in flat_items(task, drawn, Judged):
        groups.append(([learner.tokenizer.replied(item.messages, item.reply)], [float(item.good)]))
    rows, left_out = trees_that_fit(groups, cfg.max_tokens)
    others = swap_replies(rows) if len(rows) > 1 else []
    return JudgedStep(pack(rows, cfg.row_tokens), len(rows), left_out, others=others)


def swap_replies(rows):
    """Rows of one reply each, every reply put to the next row's prompt."""
    swapped = []
    for row, other in zip(rows[1:] + rows[:1], rows):
        prompt = row.ids[: row.source[0] + 1]
        mask = [0] * len(prompt) + [1] * len(other.target)
        swapped.append(share_prefixes([(prompt + other.target, mask)]))
    return swapped


def reply_logp(model, batch):
    """Summed log-probability of each sample's learned tokens, (samples,)."""
    logp = token_logp(model, batch)
    return logp.new_zeros(len(batch.labels)).index_add(0, batch.owner, logp)


def dpo_loss(learner, batch, step):
    beta = learner.cfg.beta
    ref = before_training(learner, reply_logp, batch).view(-1, 2)
    logp = reply_logp(learner.model, batch).view(-1, 2)  # (pairs, 2)
    gain = (logp - ref).detach()
    loss = losses.dpo(logp[:, 0], logp[:, 1], ref[:, 0], ref[:, 1], beta)
    # arXiv 2404.19733: or both replies may fall, and what nobody meant rise
    loss = loss - learner.cfg.nll * logp[:, 0]
    return [loss.sum(), (gain[:, 0] > gain[:, 1]).sum(), beta * (gain[:, 0] - gain[:, 1]).sum()]


@torch.no_grad()
def kto_before(learner, step, batches, reduce):
    """z is 0 where there are no other prompts."""
    z = torch.zeros((), device=learner.model.device)
    for batch in batches(step.others):
        gain = reply_logp(learner.model, batch) - before_training(learner, reply_logp, batch)
        z += 0 if batch.filler else gain.sum()
    reduce(z)
    step.z = z / max(1, len(step.others))


def kto_loss(learner, batch, step):
    ref, logp = before_training(learner, reply_logp, batch), reply_logp(learner.model, batch)
    return [losses.kto(logp, ref, batch.labels > 0, step.z, learner.cfg.beta).sum()]


# ------------------------------------------------------------------------------------------------ whole steps
@dataclass
class WholeStep(Step):
    """A step whose loss needs what the model makes of all its rows. A row's first label is its number."""

    values: torch.Tensor | None = None  # (rows, values): each row's share of the step's sums (whole_before)
    slope: torch.Tensor | None = None  # (rows, width): the gradient of the loss at each row's output


def whole_step_functions(outputs, width, total):
    """(before, loss) of an objective over whole steps, from outputs(learner, batch), (B, width(learner)), and
    total(learner, outputs of all rows, step), a list of values of each row (rows,), the loss first."""

    def before(learner, step, batches, reduce):
        """The gradient cache of arXiv 2101.06983: compute all outputs without gradients, then the gradient of
        the loss at them, as if they were parameters. With these slopes any batch of the step can be learned
        from alone, on any rank, and the gradients are those of the whole:

            step of 3 rows, batches of 2 and 1      outputs  o1 o2 | o3        loss(o1, o2, o3)
            slopes s = d loss / d o                 batch 1 learns from s1 o1 + s2 o2, batch 2 from s3 o3

        A step that is one batch is learned from at once, and `slope` stays None."""
        ready = list(batches(step.rows))
        if len(ready) == 1 and len(ready[0].ids) == len(step.rows):
            return
        found = torch.zeros(len(step.rows), width(learner), device=learner.model.device)
        with torch.no_grad():
            for batch in batches(step.rows):
                made = outputs(learner, batch).float()
                found[batch.labels[:, 0]] = 0 if batch.filler else made
        reduce(found)
        with torch.enable_grad():
            values = total(learner, found.requires_grad_(), step)
            (step.slope,) = torch.autograd.grad(values[0].sum(), found)
        step.values = torch.stack(values, 1).detach()

    def loss(learner, batch, step):
        made, number = outputs(learner, batch).float(), batch.labels[:, 0]
        if step.slope is None:
            return [value.sum() for value in total(learner, made[number.argsort()], step)]
        surrogate = (made * step.slope[number]).sum()  # has the gradient of the loss; the value is put right
        values = step.values[number].sum(0)
        return [surrogate + (values[0] - surrogate).detach(), *values[1:]]

    return before, loss


# ------------------------------------------------------------------------------------------------ contrastive
@dataclass
class ContrastStep(WholeStep):
    """Queries and candidates by the numbers of their rows: tensors."""

    query: torch.Tensor | None = None  # (Q,) rows of the queries
    candidate: torch.Tensor | None = None  # (C,) rows of the candidates
    own: torch.Tensor | None = None  # (Q,) which candidate is each query's own
    query_label: torch.Tensor | None = None  # (Q,)
    candidate_label: torch.Tensor | None = None  # (C,) a number of its own where none is known
    teacher: torch.Tensor | None = None  # (Q, G) with --distil: a teacher's scores, -inf where fewer
    group: torch.Tensor | None = None  # (Q, G) the candidates that these scores are of


class Texts:
    """The different texts of a step, numbered as they come."""

    def __init__(self):
        self.numbers = {}

    def number(self, kind, text):
        return self.numbers.setdefault((kind, text), len(self.numbers))

    def rows(self, embedder):
        """One row for each text, its labels (its number, tokens that are not pooled)."""
        rows = [None] * len(self.numbers)
        for kind in ("query", "document"):
            texts = [text for of_kind, text in self.numbers if of_kind == kind]
            tokens = embedder.tokens(texts, embedder.prompt_of(kind)) if texts else []
            for text, (ids, skip) in zip(texts, tokens):
                number = self.numbers[kind, text]
                rows[number] = text_row(ids, [number, skip])
        return rows


def contrast_step(learner, task, drawn, place):
    """One row for each different text; with --bank every label of the task is a candidate."""
    items, cfg, bank = flat_items(task, drawn, Contrast), learner.cfg, learner.bank
    texts = Texts()
    query = [texts.number("query", item.query) for item in items]
    positive = [texts.number("document", bank[item.label_id] if bank else item.positive) for item in items]
    negatives = []
    for item in items:
        hard = item.negatives if cfg.distil or not bank else []  # else they are in the bank
        negatives.append([texts.number("document", text) for text in hard])
    in_bank = [texts.number("document", text) for text in bank]
    candidates = list(dict.fromkeys([*positive, *in_bank, *(n for own in negatives for n in own)]))
    labels = {n: item.label_id for n, item in zip(positive, items) if not (bank or item.label_id is None)}
    at = {n: i for i, n in enumerate(candidates)}
    rows = texts.rows(learner.embedder)
    tensor = partial(torch.tensor, device=learner.model.device)
    step = ContrastStep(
        rows,
        len(items),
        query=tensor(query),
        candidate=tensor(candidates),
        own=tensor([at[n] for n in positive]),
        query_label=tensor([labels.get(n, ~n) for n in positive]),
        candidate_label=tensor([labels.get(n, ~n) for n in candidates]),
    )
    if cfg.distil:
        step.teacher = tensor(teacher_scores(items))
        size = step.teacher.shape[1]
        groups = [[at[n], *(at[other] for other in own)] for n, own in zip(positive, negatives)]
        step.group = tensor([group + group[:1] * (size - len(group)) for group in groups])
    twins = (step.query_label[:, None] == step.candidate_label).sum().item() - len(items)
    step.report = {"texts": len(rows), "masked": twins / max(1, len(items) * (len(candidates) - 1))}
    return step


def teacher_scores(items):
    """The teacher's scores of each item's own texts, all of one length, -inf where fewer."""
    if any(item.scores is None for item in items):
        raise UsageError("--distil: these rows hold no scores of a teacher (infer.py collect --reranker)")
    size = max(len(item.scores) for item in items)
    return [item.scores + [-math.inf] * (size - len(item.scores)) for item in items]


def text_vectors(learner, batch):
    return learner.embedder.vectors(batch.ids, batch.length, batch.labels[:, 1])


def contrast(learner, vectors, step):
    """[loss of each text, (texts,)] given the vectors of all texts of a step; only queries have one."""
    query, candidates = vectors[step.query], vectors[step.candidate]
    labels = step.query_label, step.candidate_label
    loss = losses.contrastive(query, candidates, step.own, learner.cfg.tau, *labels)
    if step.teacher is not None:
        scores = torch.einsum("be,bge->bg", query, candidates[step.group]) / learner.cfg.tau
        loss = loss + learner.cfg.distil * losses.distil(scores, step.teacher)
    return [loss.new_zeros(len(vectors)).index_add(0, step.query, loss)]


contrast_before, contrastive_loss = whole_step_functions(
    text_vectors, lambda learner: learner.embedder.width, contrast
)


# ------------------------------------------------------------------------------------------------ duels
@dataclass
class DuelStep(WholeStep):
    targets: torch.Tensor | None = None  # (duels, 3): which side is better, or neither, as distributions


def duel_step(learner, task, drawn, place):
    """Two rows an item, one for each of its sides."""
    rows, targets, cut = [], [], 0
    for item in flat_items(task, drawn, Duel):
        for messages in (item.first, item.second):
            ids, shortened = learner.tokenizer.fitted(messages, learner.cfg.max_tokens)
            rows.append(text_row(ids, [len(rows)]))
            cut += shortened
        targets.append(item.target if isinstance(item.target, list) else np.eye(3)[item.target].tolist())
    targets = torch.tensor(targets, device=learner.model.device)
    return DuelStep(rows, len(targets), report={"cut": cut / max(1, len(rows))}, targets=targets)


def duel(learner, scores, step):
    """[loss, whether the verdict is right] of each side, (texts,), those of an item at its first side, given
    the scores (texts, 2) of all sides: worth and inclination to tie."""
    logits = losses.davidson(scores[::2], scores[1::2])
    values = losses.classify(logits, step.targets), (logits.argmax(-1) == step.targets.argmax(-1)).float()
    return [torch.stack([value, torch.zeros_like(value)], 1).flatten() for value in values]


duel_before, duel_loss = whole_step_functions(
    lambda learner, batch: class_logits(learner.model, batch), lambda learner: 2, duel
)


# ------------------------------------------------------------------------------------------------ the table
# fmt: off
OBJECTIVES = {
    "sft": Objective(Chat, "tokens", chat_step, sft_loss),
    "classify": Objective(Label, "labels", label_step, classify_loss, ("loss", "accuracy")),
    "contrastive": Objective(Contrast, "queries", contrast_step, contrastive_loss,
                             before=contrast_before, whole=True),
    "davidson": Objective(Duel, "duels", duel_step, duel_loss, ("loss", "accuracy"),
                          before=duel_before, whole=True),
    "dpo": Objective(Pair, "pairs", pair_step, dpo_loss, ("loss", "accuracy", "margin"),
                     reference=lambda cfg: True),
    "kto": Objective(Judged, "replies", judged_step, kto_loss,
                     before=kto_before, reference=lambda cfg: True),
    "grpo": Objective(None, "sampled tokens", rollout_step, grpo_loss, ("loss", "kl", "clipped"),
                      before=grpo_before, reference=lambda cfg: cfg.kl > 0),
}
# fmt: on


def make_step(objective, learner, task, examples, chosen, place):
    """The Step of the examples chosen, a list of (index, epoch)."""
    return objective.step(learner, task, draw(examples, learner.cfg, chosen), place)


def step_number(objective, learner, task, examples, place):
    """The Step that training makes at a place."""
    cfg = learner.cfg
    chosen = data.indices(cfg.seed, place.number, cfg.batch, len(examples))
    return make_step(objective, learner, task, examples, chosen, place)
