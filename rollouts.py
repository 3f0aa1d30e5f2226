"""Reinforcement learning: play games, learn from every reply with its game's advantage (GRPO, arXiv
2402.03300). The formulas are in losses.py."""

import math
from dataclasses import dataclass

import numpy as np
import torch

import losses
import ranks
from agents import Model
from data import pack, trees
from games.task import Rollouts
from steps import Step, before_training, token_logp

CLIP = 0.2  # how far a token's probability may fall or rise, as a share


@dataclass
class RolloutStep(Step):
    sampled: dict | None = None  # batch number -> log-probabilities under which its replies were sampled


def rollout_step(learner, task, drawn, place):
    """Play every example --group times with sampled replies: every reply is learned from with its game's
    advantage over the others of its example.

    Examples whose games were all worth the same teach nothing and are left out, and so are replies cut at
    --max-new, unless --no-mask-truncated; both are counted in the report."""
    cfg = learner.cfg
    groups = play_groups(learner, task, [example for example, _ in drawn], place)
    rewards = torch.tensor([[float(game.reward) for game in group] for group in groups])  # (P, G)
    gains = losses.advantages(rewards, cfg.scale_rewards)  # (P, G)
    gains = [reply_gains(group, gain, cfg.scale_rewards) for group, gain in zip(groups, gains)]
    even = [not gain.any() for gain in gains]
    rows, count, tokens, left_out = [], 0, 0, 0
    for group, gain, same in zip(groups, gains, even):
        if same:
            continue
        samples, labels = learned_replies(group, gain, cfg)
        short = [i for i, (ids, _) in enumerate(samples) if len(ids) <= cfg.max_tokens]
        left_out += len(samples) - len(short)
        if short:
            count += len(short)
            tokens += sum(sum(samples[i][1]) for i in short)
            rows += trees([samples[i] for i in short], cfg.max_tokens, [labels[i] for i in short])
    weight = {"token": tokens, "sequence": count, "constant": count * cfg.max_new}[cfg.normalise]
    worst_first = sorted(groups[0], key=lambda game: game.reward)
    shown = worst_first[:: max(1, cfg.group - 1)]  # the worst and the best
    samples = [{**game.example, "turns": game.turns, "reward": game.reward} for game in shown]
    report = rollout_report(groups, rewards, even)
    return RolloutStep(pack(rows, cfg.row_tokens), weight, left_out, report, samples)


def play_groups(learner, task, examples, place):
    """--group games about each example, each rank its share of the examples: lists of Episodes."""
    cfg, model = learner.cfg, learner.model
    seed = [cfg.seed, place.number]
    agent = Model(model, learner.tokenizer, cfg.max_new, cfg.temperature, seed=seed)
    play = task.rollout if isinstance(task, Rollouts) else task.play
    model.eval()
    games = play(
        [example for example in examples[place.rank :: place.world] for _ in range(cfg.group)], agent
    )
    model.train()
    groups = [None] * len(examples)
    for rank, played in enumerate(ranks.gathered(games) if place.world > 1 else [games]):
        groups[rank :: place.world] = [played[i : i + cfg.group] for i in range(0, len(played), cfg.group)]
    return groups


def reply_gains(group, gains, scale):
    """The advantage of each reply of the games of one example, (G, J): its game's, gains (G,), or by the
    credits of the replies, where the game gives any."""
    J = max(len(game.replies) for game in group)
    if not group[0].credits:
        return torch.where(gains.abs() > 1e-6, gains, 0.0)[:, None].expand(-1, J)
    credits = [game.credits + [math.nan] * (J - len(game.credits)) for game in group]
    return losses.turn_advantages(torch.tensor(credits), scale)


def learned_replies(group, gains, cfg):
    """(samples (ids, mask), labels [advantage, scale of its loss]) of the whole replies of one example."""
    samples, labels = [], []
    for game, values in zip(group, gains.tolist()):
        for reply, advantage in zip(game.replies, values):
            if reply.ids and (reply.finished or not cfg.mask_truncated):
                mask = [0] * len(reply.prompt) + [1] * len(reply.ids)
                samples.append((reply.prompt + reply.ids, mask))
                labels.append([advantage, 1 / len(reply.ids) if cfg.normalise == "sequence" else 1.0])
    return samples, labels


def rollout_report(groups, rewards, even):
    games = [game for group in groups for game in group]
    replies = [reply for game in games for reply in game.replies]
    report = {
        "reward": rewards.mean().item(),
        "reward_std": rewards.std(1).mean().item(),
        "zero_spread": torch.tensor(even).float().mean().item(),
        "truncated": float(np.mean([not reply.finished for reply in replies])),
        "length": float(np.mean([len(reply.ids) for reply in replies])),
    }
    for name in games[0].scores:
        values = [game.scores[name] for game in games if game.scores[name] is not None]
        if values:  # not every part of a reward is for every example
            report |= {f"score/{name}": float(np.mean(values)), f"score/{name}_std": float(np.std(values))}
    return report


def grpo_before(learner, step, batches, reduce):
    """Where only one update is made of the games, their log-probabilities are those of the loss itself."""
    if learner.cfg.updates > 1:
        with torch.no_grad():
            batches = list(batches(step.rows))
            step.sampled = {
                batch.number: sampled_logp(learner.model, batch, learner.cfg) for batch in batches
            }


def sampled_logp(model, batch, cfg):
    return token_logp(model, batch, cfg.temperature)


def grpo_loss(learner, batch, step):
    cfg = learner.cfg
    logp = sampled_logp(learner.model, batch, cfg)
    old = logp.detach() if step.sampled is None else step.sampled[batch.number]
    advantage, scale = batch.labels[batch.owner].T
    gap = torch.zeros_like(logp)
    if cfg.kl:
        gap = losses.kl(logp, before_training(learner, sampled_logp, batch, cfg))
    loss = losses.grpo(logp, old, advantage, CLIP, CLIP) + cfg.kl * gap
    ratio = (logp.detach() - old).exp()
    clipped = (ratio < 1 - CLIP) | (ratio > 1 + CLIP)
    return [(scale * loss).sum(), (scale * gap).sum(), (scale * clipped).sum()]
