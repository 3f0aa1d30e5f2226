"""Test-time training: before it answers, a model learns from what its test tasks show and from its replies to
them. It never learns from the output of a test (LearnsAtTestTime.lessons).

`attempt` takes the place of the task's own: sample, learn, sample again. After each group of tasks the model
is put back to where it was, so no group knows of another."""

from dataclasses import replace

import torch
from tqdm import tqdm

import data
from objectives import OBJECTIVES, make_step
from recipes import Infer, Train
from steps import Learner, Place, batches_of
from terminal import UsageError

LEARNING_RATE = 1e-3  # the highest, for AdamW


def attempt(cfg: Infer, task, players, examples: list):
    """Records of players.n replies to each example, as LearnsAtTestTime.attempt makes them, by a model that
    learns from all the examples together.

    A task whose lessons need no replies is learned from first. If the lessons are made of replies, the first
    part of the replies comes before. Raises UsageError if --n is too small to be divided so."""
    agent = players.player
    weights = trained_weights(agent.model)
    start = [weight.detach().clone() for weight in weights]
    learns_first = bool(task.lessons(examples, []))
    rounds = cfg.ttt_rounds + (not learns_first)
    if not 1 <= rounds <= players.n:
        raise UsageError(
            f"--ttt-rounds {cfg.ttt_rounds}: cannot divide --n {players.n} replies into {rounds} parts"
        )
    records = []
    try:
        for i in range(rounds):
            if i or learns_first:
                learn(cfg, task, agent, task.lessons(examples, records), i)
            n = players.n // rounds + (i < players.n % rounds)  # the first rounds take the remainder
            attempts = task.attempt(examples, replace(players, n=n), records)
            records = [record for _, record in attempts]
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, start):
                weight.copy_(value)
        agent.forget()  # what it read was computed with other weights
    return enumerate(records)


def trained_weights(model):
    return [weight for weight in model.parameters() if weight.requires_grad]


def learn(cfg, task, agent, examples, round_index):
    """Train the agent's model on examples for --ttt-steps steps, while the learning rate falls to 0."""
    model = agent.model.train()
    sft = OBJECTIVES["sft"]
    settings = Train(seed=cfg.seed, max_tokens=cfg.max_tokens, row_tokens=cfg.max_tokens, micro_tokens=8192)
    if model.device.type == "cpu":
        settings = replace(settings, row_tokens=1, micro_tokens=2048)
    learner = Learner(model, agent.tokenizer, settings)
    weights = trained_weights(model)
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    for n in tqdm(range(cfg.ttt_steps if examples else 0), unit="step", leave=False, disable=None):
        place = Place(round_index * cfg.ttt_steps + n)  # no two rounds draw alike
        chosen = data.indices(cfg.seed, place.number, cfg.ttt_batch, len(examples))
        step = make_step(sft, learner, task, examples, chosen, place)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - n / cfg.ttt_steps)
        for batch in batches_of(step.rows, learner, place):
            (sft.loss(learner, batch, step)[0] / max(1, step.weight)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    agent.forget()
