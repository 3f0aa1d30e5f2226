"""What is learned from a step's examples: an objective lays them out as rows, and gives the loss of a batch.

Every loss is a sum over a batch; the step divides the whole by its weight, known before the first backward,
so that cutting the work changes nothing. The formulas are in losses.py."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

import losses
import ranks
from agents import Model, class_logits
from data import Tokenizer, collate, micro_batches, pack, share_prefixes, text_row, trees
from embed import Embedder
from games.task import Chat, Contrast, Duel, Judged, Label, Pair
from lora import without_lora
from model import Transformer


@dataclass
class Learner:
    """What is trained, with which settings (recipes.Train), and what it is compared with."""

    model: Transformer
    tokenizer: Tokenizer | Embedder  # an Embedder, of which it is the model, where texts become vectors
    cfg: object
    reference: Transformer | None = None  # the model before training; None is the model without its adapter
    bank: list = field(default_factory=list)  # the texts of all labels


@dataclass
class Step:
    """What one step learns from."""

    rows: list
    weight: float = 1.0  # what the sum of its losses is divided by
    left_out: int = 0  # samples that were too long
    plan: object = None  # what an objective must know of the whole step
    known: object = None  # what its `before` found out
    report: dict = field(default_factory=dict)  # figures for the log
    samples: list = field(default_factory=list)  # some of what was sampled, as dicts


@dataclass
class Objective:
    item: type | None  # the kind of item it learns from; None learns from games it plays itself
    unit: str  # of what is learned
    step: Callable  # (learner, items of each example) -> Step
    loss: Callable  # (learner, batch, step) -> summed values of a batch (data.collate), the loss first
    names: tuple = ("loss",)  # of these values
    before: Callable | None = None  # (learner, step, batches, reduce) -> step.known, before the first loss
    reference: Callable = lambda cfg: False  # whether it compares with the model before training
    noise: bool = False  # --neftune is possible
    whole: bool = False  # it needs what the model makes of all rows of a step (of_whole_step)


def step_of(objective, learner, examples):
    """The Step of the items of some examples, a list of lists."""
    for item in (item for items in examples for item in items):
        if not isinstance(item, objective.item):
            name = objective.item.__name__
            raise ValueError(f"this loss learns from {name} items, and the task gives {type(item).__name__}")
    return objective.step(learner, examples)


def items_of(task, examples, cfg, index, epoch):
    """What example `index` teaches in an epoch."""
    return task.items(examples[index], np.random.default_rng([cfg.seed, epoch, index]))


def neftune(batch, alpha, dim, device):
    """Uniform noise of alpha / sqrt(T D) for the embeddings, (B, T, D)."""
    B, T = batch["ids"].shape
    return (torch.rand(B, T, dim, device=device) * 2 - 1) * alpha / math.sqrt(T * dim)


def batches_of(rows, learner, number=None, rank=0, world=1):
    """This rank's micro-batches of a step's rows, on the model's device. In training, where the step has a
    number, what each draws (dropout, NEFTune) follows from (seed, step, micro-batch)."""
    cfg, device = learner.cfg, learner.model.device
    groups = micro_batches(rows, cfg.micro_tokens)
    fillers = -len(groups) % world if cfg.shard else 0  # which compute in step and count nothing
    for n, group in enumerate(groups + groups[:1] * fillers):
        if n % world != rank:
            continue
        batch = collate(group, device) | {"number": n, "filler": n >= len(groups)}
        if number is not None:
            torch.manual_seed(int(np.random.SeedSequence([cfg.seed, number, n]).generate_state(1)[0]))
            if cfg.neftune:
                batch["noise"] = neftune(batch, cfg.neftune, learner.model.config.dim, device)
        yield batch


def shown(item, tokenizer, cfg):
    """An item as terminal text, what is learned in green."""
    if isinstance(item, Contrast):
        parts = [("query", item.query), ("positive", item.positive)]
        parts += [("negative", text) for text in item.negatives]
        return "\n".join(f"{kind}: {text}" for kind, text in parts)
    if isinstance(item, Chat):
        return tokenizer.coloured(*tokenizer.render(item.messages, "all" if cfg.learn_all else item.learn))
    if isinstance(item, Duel):
        sides = [tokenizer.prompt(messages) for messages in (item.first, item.second)]
        return "\n".join(tokenizer.coloured(ids, [0] * len(ids)) for ids in sides) + f"\n-> {item.target}"
    if isinstance(item, Label):
        ids = tokenizer.prompt(item.messages)
        return f"{tokenizer.coloured(ids, [0] * len(ids))} -> {item.target}"
    replies = [item.chosen, item.rejected] if isinstance(item, Pair) else [item.reply]
    return "\n".join(tokenizer.coloured(*tokenizer.replied(item.messages, reply)) for reply in replies)


# ------------------------------------------------------------------------------------------------ sft
def chat_step(learner, examples):
    """The samples of each example as trees of what they share."""
    cfg, rows, left_out = learner.cfg, [], 0
    for items in examples:
        learn = ["all" if cfg.learn_all else item.learn for item in items]
        samples = [learner.tokenizer.render(item.messages, how) for item, how in zip(items, learn)]
        kept = [sample for sample in samples if len(sample[0]) <= cfg.max_tokens and any(sample[1][1:])]
        rows += trees(kept, cfg.max_tokens) if kept else []
        left_out += len(samples) - len(kept)
    weight = sum(len(row.target) for row in rows)
    return Step(pack(rows, cfg.row_tokens), weight, left_out)


def token_logp(model, batch, temperature=1.0):
    """Log-probability of each learned token of a batch, (N,)."""
    hidden = model(batch["ids"], batch["positions"], batch["end"], noise=batch.get("noise"))
    hidden = hidden.flatten(0, 1)[batch["source"]]  # (N, D)
    head = model.logits if temperature == 1 else lambda hidden: model.logits(hidden) / temperature
    return losses.token_logp(head, hidden, batch["target"], model.config.vocab)


def sft_loss(learner, batch, step):
    return [losses.sft(token_logp(learner.model, batch)).sum()]


# ------------------------------------------------------------------------------------------------ classify
def label_step(learner, examples):
    """One row a text, the parts of which are shortened where it is too long."""
    items = [item for items in examples for item in items]
    found = [learner.tokenizer.fitted(item.messages, learner.cfg.max_tokens) for item in items]
    rows = [text_row(ids, item.target) for (ids, _), item in zip(found, items)]
    return Step(rows, len(rows), report={"cut": sum(cut for _, cut in found) / max(1, len(rows))})


def classify_loss(learner, batch, step):
    labels, logits = batch["labels"], class_logits(learner.model, batch)
    right = logits.argmax(-1) == (labels if labels.dim() == 1 else labels.argmax(-1))
    return [losses.classify(logits, labels).sum(), right.sum()]


# ------------------------------------------------------------------------------------------------ preference
def whole_rows(groups, max_tokens):
    """A row for each (samples, labels) that must stay together, and how many did not fit."""
    rows = [share_prefixes(*group) for group in groups]
    kept = [row for row in rows if len(row.ids) <= max_tokens]
    return kept, len(rows) - len(kept)


def pair_step(learner, examples):
    """The chosen and the rejected reply of a pair branch from one prompt."""
    groups, size = [], learner.cfg.max_tokens
    for item in (item for items in examples for item in items):
        pair = [learner.tokenizer.replied(item.messages, text) for text in (item.chosen, item.rejected)]
        groups.append((pair, [1.0, 0.0]))
    rows, left_out = whole_rows(groups, size)
    return Step(pack(rows, learner.cfg.row_tokens), len(rows), left_out)


def judged_step(learner, examples):
    """A row a reply, its label 1 where it is good and 0 where not; the plan is every reply put to another's
    prompt."""
    groups, size = [], learner.cfg.max_tokens
    for item in (item for items in examples for item in items):
        groups.append(([learner.tokenizer.replied(item.messages, item.reply)], [float(item.good)]))
    rows, left_out = whole_rows(groups, size)
    others = swapped(rows) if len(rows) > 1 else []
    return Step(pack(rows, learner.cfg.row_tokens), len(rows), left_out, others)


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
def before_training(learner, of, batch, *more):
    """of(model, batch, ...) under the model before training."""
    with without_lora(learner.model) if learner.reference is None else nullcontext():
        return of(learner.reference or learner.model, batch, *more)


def dpo_loss(learner, batch, step):
    ref = before_training(learner, reply_logp, batch).view(-1, 2)
    logp = reply_logp(learner.model, batch).view(-1, 2)  # (pairs, 2)
    gain = (logp - ref).detach()
    loss = losses.dpo(logp[:, 0], logp[:, 1], ref[:, 0], ref[:, 1], learner.cfg.beta)
    # arXiv 2404.19733: or both replies may fall, and what nobody meant rise
    loss = loss - learner.cfg.nll * logp[:, 0]
    return [loss.sum(), (gain[:, 0] > gain[:, 1]).sum(), learner.cfg.beta * (gain[:, 0] - gain[:, 1]).sum()]


@torch.no_grad()
def kto_before(learner, step, batches, reduce):
    """z, the mean of logp - ref over replies put to other prompts; 0 where there are none."""
    z = torch.zeros((), device=learner.model.device)
    for batch in batches(step.plan):
        gain = reply_logp(learner.model, batch) - before_training(learner, reply_logp, batch)
        z += 0 if batch.get("filler") else gain.sum()
    reduce(z)
    return z / max(1, len(step.plan))


def kto_loss(learner, batch, step):
    ref, logp = before_training(learner, reply_logp, batch), reply_logp(learner.model, batch)
    return [losses.kto(logp, ref, batch["labels"] > 0, step.known, learner.cfg.beta).sum()]


# ------------------------------------------------------------------------------------------------ contrastive
def contrast_step(learner, examples):
    """One row for each different text; the plan says by their numbers which are queries, which candidates
    (with --bank every label of the task), which candidate is each query's own, and what label each has."""
    items, embedder = [item for items in examples for item in items], learner.tokenizer
    numbers, texts = {}, {"query": [], "document": []}
    bank = learner.bank if learner.cfg.bank else []

    def number(kind, text):
        if (kind, text) not in numbers:
            numbers[kind, text] = len(numbers)
            texts[kind].append(text)
        return numbers[kind, text]

    queries = [number("query", item.query) for item in items]
    positives = [number("document", bank[item.label_id] if bank else item.positive) for item in items]
    hard = [item.negatives if learner.cfg.distil or not bank else [] for item in items]  # else in the bank
    hard = [[number("document", text) for text in texts] for texts in hard]
    others = [number("document", text) for text in bank] + [n for texts in hard for n in texts]
    candidates = list(dict.fromkeys([*positives, *others]))
    label = {n: item.label_id for n, item in zip(positives, items) if not (bank or item.label_id is None)}
    place = {n: i for i, n in enumerate(candidates)}
    plan = {
        "query": queries,
        "candidate": candidates,
        "own": [place[n] for n in positives],
        "query_label": [label.get(n, ~n) for n in positives],
        "candidate_label": [label.get(n, ~n) for n in candidates],  # one of its own where none is known
    }
    if learner.cfg.distil:
        if any(item.scores is None for item in items):
            raise ValueError("--distil: these rows hold no scores of a teacher (infer.py collect --reranker)")
        size = max(len(item.scores) for item in items)
        plan["teacher"] = [item.scores + [-math.inf] * (size - len(item.scores)) for item in items]
        groups = [[n, *texts] for n, texts in zip(positives, hard)]
        plan["group"] = [[place[n] for n in g] + [place[g[0]]] * (size - len(g)) for g in groups]
    plan = {name: torch.tensor(value, device=learner.model.device) for name, value in plan.items()}
    rows = [None] * len(numbers)
    for kind, some in texts.items():
        for text, (ids, skip) in zip(some, embedder.tokens(some, embedder.prompt_of(kind)) if some else []):
            n = numbers[kind, text]
            rows[n] = text_row(ids, [n, skip])
    twins = (plan["query_label"][:, None] == plan["candidate_label"]).sum().item() - len(items)
    report = {"texts": len(rows), "masked": twins / max(1, len(items) * (len(candidates) - 1))}
    return Step(rows, len(items), plan=plan, report=report)


def vectors_of(learner, batch):
    return learner.tokenizer.vectors(batch["ids"], batch["length"], batch["labels"][:, 1])


def contrast(learner, vectors, plan):
    """[loss of each text, (texts,)] given the vectors of all texts of a step; only queries have one."""
    query, candidates = vectors[plan["query"]], vectors[plan["candidate"]]
    labels = plan["query_label"], plan["candidate_label"]
    loss = losses.contrastive(query, candidates, plan["own"], learner.cfg.tau, *labels)
    if "teacher" in plan:
        scores = torch.einsum("be,bge->bg", query, candidates[plan["group"]]) / learner.cfg.tau
        loss = loss + learner.cfg.distil * losses.distil(scores, plan["teacher"])
    return [loss.new_zeros(len(vectors)).index_add(0, plan["query"], loss)]


# ------------------------------------------------------------------------------------------------ duels
def duel_step(learner, examples):
    """Two rows an item, one for each of its sides; the plan is the item's target, as a distribution."""
    rows, targets, cut = [], [], 0
    for item in (item for items in examples for item in items):
        for messages in (item.first, item.second):
            ids, shortened = learner.tokenizer.fitted(messages, learner.cfg.max_tokens)
            rows.append(text_row(ids, [len(rows)]))
            cut += shortened
        targets.append(item.target if isinstance(item.target, list) else np.eye(3)[item.target].tolist())
    plan = torch.tensor(targets, device=learner.model.device)
    return Step(rows, len(targets), plan=plan, report={"cut": cut / max(1, len(rows))})


def duel(learner, scores, targets):
    """[loss, whether the verdict is right] of each side, (texts,), those of an item at its first side, given
    the scores (texts, 2) of all sides: worth and inclination to tie."""
    logits = losses.davidson(scores[::2], scores[1::2])
    values = losses.classify(logits, targets), (logits.argmax(-1) == targets.argmax(-1)).float()
    return [torch.stack([value, torch.zeros_like(value)], 1).flatten() for value in values]


# ------------------------------------------------------------------------------------------------ whole steps
def of_whole_step(outputs, width, total):
    """(before, loss) of an objective whose loss needs what the model makes of all rows of a step: outputs
    (learner, batch) of a batch, (B, width(learner)), where a row's first label is its number; and total
    (learner, outputs of all rows, step.plan), a list of values of each row (rows,), the loss first."""

    def before(learner, step, batches, reduce):
        """Every row's values, (rows, values), and the gradient of the loss at its outputs, (rows, width).

        This is the gradient cache of arXiv 2101.06983: with it any batch of the step can be learned from
        alone, on any rank, and the gradients are those of the whole. None where the step is one batch, which
        can be learned from at once."""
        ready = list(batches(step.rows))
        if len(ready) == 1 and len(ready[0]["ids"]) == len(step.rows):
            return None
        found = torch.zeros(len(step.rows), width(learner), device=learner.model.device)
        with torch.no_grad():
            for batch in batches(step.rows):
                made = outputs(learner, batch).float()
                found[batch["labels"][:, 0]] = 0 if batch.get("filler") else made
        reduce(found)
        with torch.enable_grad():
            values = total(learner, found.requires_grad_(), step.plan)
            (slope,) = torch.autograd.grad(values[0].sum(), found)
        return torch.stack(values, 1).detach(), slope

    def loss(learner, batch, step):
        made, number = outputs(learner, batch).float(), batch["labels"][:, 0]
        if step.known is None:
            return [value.sum() for value in total(learner, made[number.argsort()], step.plan)]
        shares, slope = (known[number] for known in step.known)
        surrogate = (made * slope).sum()  # has the gradient of the loss; the value is put right
        values = shares.sum(0)
        return [surrogate + (values[0] - surrogate).detach(), *values[1:]]

    return before, loss


contrast_before, contrastive_loss = of_whole_step(
    lambda *given: vectors_of(*given), lambda learner: learner.tokenizer.width, contrast
)
duel_before, duel_loss = of_whole_step(
    lambda learner, batch: class_logits(learner.model, batch), lambda learner: 2, duel
)


# ------------------------------------------------------------------------------------------------ reward
NORMALISE = ("token", "sequence", "constant")  # what the loss of games is divided by


def rollout_step(learner, task, examples, seed, rank=0, world=1):
    """Play every example --group times with sampled replies, each rank its share of the examples: every reply
    is learned from with its game's advantage over the others of its example.

    Examples whose games were all worth the same teach nothing and are left out, and so are replies cut at
    --max-new, unless --no-mask-truncated; both are counted in the report."""
    cfg, model = learner.cfg, learner.model
    agent = Model(model, learner.tokenizer, cfg.max_new, cfg.temperature, seed=seed)
    model.eval()
    games = task.rollout([example for example in examples[rank::world] for _ in range(cfg.group)], agent)
    model.train()
    groups = [None] * len(examples)
    for r, played in enumerate(ranks.gathered(games) if world > 1 else [games]):
        groups[r::world] = [played[i : i + cfg.group] for i in range(0, len(played), cfg.group)]
    rewards = torch.tensor([[float(game.reward) for game in group] for group in groups])  # (P, G)
    gains = losses.advantages(rewards, cfg.scale_rewards)  # (P, G)
    gains = [by_turn(group, gain, cfg.scale_rewards) for group, gain in zip(groups, gains)]  # of (G, J) each
    even = torch.tensor([not gain.any() for gain in gains])
    rows, count, tokens, left_out = [], 0, 0, 0
    for group, advantages, same in zip(groups, gains, even):
        samples, labels = [], []
        for game, values in zip(group, advantages.tolist()):
            for reply, advantage in zip(game.replies, values) if not same else []:
                if reply.ids and (reply.finished or not cfg.mask_truncated):
                    mask = [0] * len(reply.prompt) + [1] * len(reply.ids)
                    samples.append((reply.prompt + reply.ids, mask))
                    labels.append([advantage, 1 / len(reply.ids) if cfg.normalise == "sequence" else 1.0])
        short = [i for i, (ids, _) in enumerate(samples) if len(ids) <= cfg.max_tokens]
        left_out += len(samples) - len(short)
        if short:
            count, tokens = count + len(short), tokens + sum(sum(samples[i][1]) for i in short)
            rows += trees([samples[i] for i in short], cfg.max_tokens, [labels[i] for i in short])
    weight = {"token": tokens, "sequence": count, "constant": count * cfg.max_new}[cfg.normalise]
    replies = [reply for group in groups for game in group for reply in game.replies]
    report = {
        "reward": rewards.mean().item(),
        "reward_std": rewards.std(1).mean().item(),
        "zero_spread": even.float().mean().item(),
        "truncated": float(np.mean([not reply.finished for reply in replies])),
        "length": float(np.mean([len(reply.ids) for reply in replies])),
    }
    for name in groups[0][0].scores:
        values = [game.scores[name] for group in groups for game in group if game.scores[name] is not None]
        if values:  # not every part of a reward is for every example
            report |= {f"score/{name}": float(np.mean(values)), f"score/{name}_std": float(np.std(values))}
    shown = sorted(groups[0], key=lambda game: game.reward)[:: max(1, cfg.group - 1)]  # the worst, the best
    samples = [{**game.example, "turns": game.turns, "reward": game.reward} for game in shown]
    return Step(pack(rows, cfg.row_tokens), weight, left_out, report=report, samples=samples)


def by_turn(group, gains, scale):
    """The advantage of each reply of the games of one example, (G, J): its game's, gains (G,), or by the
    credits of the replies, where the game gives any."""
    J = max(len(game.replies) for game in group)
    if not group[0].credits:
        return torch.where(gains.abs() > 1e-6, gains, 0.0)[:, None].expand(-1, J)
    credits = [game.credits + [math.nan] * (J - len(game.credits)) for game in group]
    return losses.turn_advantages(torch.tensor(credits), scale)


def grpo_before(learner, step, batches, reduce):
    """Log-probabilities under which the replies were sampled, by batch; None where only one update is made of
    them, for which these are its own."""
    if learner.cfg.updates == 1:
        return None
    with torch.no_grad():
        found = [(b["number"], sampled_logp(learner.model, b, learner.cfg)) for b in batches(step.rows)]
    return dict(found)


def sampled_logp(model, batch, cfg):
    return token_logp(model, batch, cfg.temperature)


def grpo_loss(learner, batch, step):
    cfg = learner.cfg
    logp = sampled_logp(learner.model, batch, cfg)
    old = logp.detach() if step.known is None else step.known[batch["number"]]
    advantage, scale = batch["labels"][batch["owner"]].T
    gap = torch.zeros_like(logp)
    if cfg.kl:
        gap = losses.kl(logp, before_training(learner, sampled_logp, batch, cfg))
    loss = losses.grpo(logp, old, advantage, cfg.clip_low, cfg.clip_high) + cfg.kl * gap
    ratio = (logp.detach() - old).exp()
    clipped = (ratio < 1 - cfg.clip_low) | (ratio > 1 + cfg.clip_high)
    return [(scale * loss).sum(), (scale * gap).sum(), (scale * clipped).sum()]


OBJECTIVES = {
    "sft": Objective(Chat, "tokens", chat_step, sft_loss, noise=True),
    "classify": Objective(Label, "labels", label_step, classify_loss, ("loss", "accuracy"), noise=True),
    "contrastive": Objective(
        Contrast, "queries", contrast_step, contrastive_loss, before=contrast_before, whole=True
    ),
    "davidson": Objective(
        Duel, "duels", duel_step, duel_loss, ("loss", "accuracy"), before=duel_before, whole=True
    ),
    "dpo": Objective(
        Pair, "pairs", pair_step, dpo_loss, ("loss", "accuracy", "margin"), reference=lambda cfg: True
    ),
    "kto": Objective(Judged, "replies", judged_step, kto_loss, before=kto_before, reference=lambda cfg: True),
    "grpo": Objective(
        None,
        "sampled tokens",
        rollout_step,
        grpo_loss,
        ("loss", "kl", "clipped"),
        before=grpo_before,
        reference=lambda cfg: cfg.kl > 0,
    ),
}
