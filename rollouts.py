"""Reinforcement learning: play games, and learn from every reply with the advantage of its game (GRPO, arXiv
2402.03300). The formulas are in losses.py."""

import math
from dataclasses import dataclass

import numpy as np
import torch

import losses
import ranks
from agents import Model, in_groups
from data import pack, trees
from games.task import Rollouts
from steps import Learner, Place, Step, before_training, hidden_states, token_logp

CLIP = 0.2  # how far a token's probability may fall or rise, as a share


@dataclass
class RolloutStep(Step):
    sampled: dict | None = None  # batch number -> log-probabilities under which its replies were sampled


def rollout_step(learner: Learner, task, drawn: list, place: Place) -> RolloutStep:
    """Play every example --group times with sampled replies, and learn from every reply with the advantage of
    its game over the others of its example.

    Examples whose games all had the same reward teach nothing and are left out. So are replies cut off at
    --max-new, unless --no-mask-truncated. The report counts both."""
    cfg = learner.cfg
    examples = [example for example, _ in drawn]
    groups = play_groups(learner, task, examples, place)

    rewards = []
    for group in groups:
        rewards.append([math.nan if game.reward is None else float(game.reward) for game in group])
    rewards = torch.tensor(rewards)  # (P, G)
    gains = losses.advantages(rewards, cfg.scale_rewards)  # (P, G)

    rows = []
    even = []  # for each group, whether it teaches nothing
    count = 0  # of replies
    tokens = 0
    left_out = 0
    for group, game_gains in zip(groups, gains):
        reply_gains = spread_gains(group, game_gains, cfg)
        even.append(not reply_gains.any())
        if even[-1]:
            continue

        samples, labels, too_long = learned_replies(group, reply_gains, cfg)
        left_out += too_long
        if not samples:
            continue
        count += len(samples)
        for _, mask in samples:
            tokens += sum(mask)
        rows += trees(samples, cfg.max_tokens, labels)

    weights = {
        "token": tokens,
        "sequence": count,
        "constant": count * cfg.max_new,
    }

    worst_first = sorted(groups[0], key=lambda game: game.reward or 0.0)
    shown = worst_first[:: max(1, cfg.group - 1)]  # the worst and the best
    samples = []
    for game in shown:
        samples.append({**game.example, "turns": game.turns, "reward": game.reward})

    report = rollout_report(groups, rewards, even)
    return RolloutStep(pack(rows, cfg.row_tokens), weights[cfg.normalise], left_out, report, samples)


def play_groups(learner, task, examples, place):
    """Play --group games about each example; each rank plays its part of the examples. Returns a list of
    Episodes for each example."""
    cfg = learner.cfg
    model = learner.model
    seed = [cfg.seed, place.number]
    agent = Model(model, learner.tokenizer, cfg.max_new, cfg.temperature, seed=seed)
    play = task.rollout if isinstance(task, Rollouts) else task.play
    repeated = []
    for example in examples[place.rank :: place.world]:
        repeated += [example] * cfg.group

    model.eval()  # no dropout while it plays
    games = play(repeated, agent)
    model.train()
    if learner.judge:
        task.grade(games, learner.judge)

    games_by_rank = [games]
    if place.world > 1:
        games_by_rank = ranks.gather(games)
    groups = [None] * len(examples)
    for rank, played in enumerate(games_by_rank):
        groups[rank :: place.world] = in_groups(played, cfg.group)
    return groups


def spread_gains(group, gains, cfg):
    """The advantage of each reply of the games of one example, (G, J): that of its game, from gains (G,), or
    computed from the credits of the replies if the game gives any. An expert judges tokens, not games, so
    with one every reply counts as 1."""
    J = max(len(game.replies) for game in group)
    if cfg.loss == "distil":
        return torch.ones(len(group), J)
    if not group[0].credits:
        # Rounding leaves tiny advantages in a group of equal rewards, which should teach nothing.
        gains = torch.where(gains.abs() > 1e-6, gains, 0.0)
        return gains[:, None].expand(-1, J)

    credits = []
    for game in group:
        padding = [math.nan] * (J - len(game.credits))
        credits.append(game.credits + padding)
    return losses.turn_advantages(torch.tensor(credits), cfg.scale_rewards)


def learned_replies(group, gains, cfg):
    """The complete replies of the games of one example: samples (ids, mask), labels [advantage, scale of its
    loss], and how many more were too long."""
    samples = []
    labels = []
    too_long = 0
    for game, values in zip(group, gains.tolist()):
        for reply, advantage in zip(game.replies, values):
            cut_off = cfg.mask_truncated and not reply.finished
            if cut_off or not reply.ids:
                continue
            ids = reply.prompt + reply.ids
            if len(ids) > cfg.max_tokens:
                too_long += 1
                continue

            mask = [0] * len(reply.prompt) + [1] * len(reply.ids)
            samples.append((ids, mask))
            scale = 1.0
            if cfg.normalise == "sequence":  # every reply weighs the same, however long
                scale = 1 / len(reply.ids)
            labels.append([advantage, scale])
    return samples, labels, too_long


def rollout_report(groups, rewards, even):
    games = []
    replies = []
    for group in groups:
        games += group
        for game in group:
            replies += game.replies

    report = {
        "reward": rewards.nanmean().nan_to_num().item(),
        "reward_std": losses.spread_of(rewards).mean().item(),
        "zero_spread": torch.tensor(even).float().mean().item(),
        "truncated": float(np.mean([not reply.finished for reply in replies])),
        "length": float(np.mean([len(reply.ids) for reply in replies])),
    }
    if rewards.isnan().any():
        report["unjudged"] = rewards.isnan().float().mean().item()
    for name in games[0].scores:
        # a part of the reward may not apply to every example
        values = [game.scores[name] for game in games if game.scores[name] is not None]
        if values:
            report[f"score/{name}"] = float(np.mean(values))
            report[f"score/{name}_std"] = float(np.std(values))
    return report


def grpo_before(learner, step, batches, reduce):
    """Fill in step.sampled if the games are used for several updates. With a single one, these are the
    log-probabilities that the loss computes itself."""
    if learner.cfg.updates <= 1:
        return
    step.sampled = {}
    with torch.no_grad():
        for batch in list(batches(step.rows)):
            step.sampled[batch.number] = sampled_logp(learner.model, batch, learner.cfg)


def sampled_logp(model, batch, cfg):
    return token_logp(model, batch, cfg.temperature)


def grpo_loss(learner, batch, step):
    """[loss, KL from the model before training, clipped tokens], each summed over the batch."""
    cfg = learner.cfg
    logp = sampled_logp(learner.model, batch, cfg)  # (N,), as all that follow
    old = logp.detach()
    if step.sampled is not None:
        old = step.sampled[batch.number]
    advantage, scale = batch.labels[batch.owner].T

    gap = torch.zeros_like(logp)
    if cfg.kl:
        ref = before_training(learner, sampled_logp, batch, cfg)
        gap = losses.kl(logp, ref)
    loss = losses.grpo(logp, old, advantage, CLIP, CLIP) + cfg.kl * gap

    ratio = (logp.detach() - old).exp()
    clipped = (ratio < 1 - CLIP) | (ratio > 1 + CLIP)
    return [(scale * loss).sum(), (scale * gap).sum(), (scale * clipped).sum()]


def distil_loss(learner, batch, step):
    """[divergence from the expert], summed over the batch."""
    student = learner.model
    expert = learner.reference
    hidden = hidden_states(student, batch)  # (N, D)
    expert_hidden = before_training(learner, hidden_states, batch)  # (N, D')
    vocab = min(student.config.vocab, expert.config.vocab)  # some checkpoints have spare rows
    gap = losses.distil(student.logits, expert.logits, hidden, expert_hidden, vocab)
    _, scale = batch.labels[batch.owner].T
    return [(scale * gap).sum()]
