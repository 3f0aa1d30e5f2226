"""Test-time training: a model that learns from what its test tasks show, and from its own replies to them,
before it answers. No output of a test is learned from (LearnsAtTestTime.lessons).

`attempt` takes the place of a task's own: sample, learn, sample again. The model is put back to where it was
after each group of tasks, so that no group knows of another."""

from dataclasses import replace

import torch
from tqdm import tqdm

import data
from objectives import OBJECTIVES, make_step
from recipes import Train
from steps import Learner, Place, batches_of
from terminal import UsageError

LEARNING_RATE = 1e-3  # peak, of adamw


def attempt(cfg, task, players, examples):
    """Records of players.n replies to each example, as of LearnsAtTestTime.attempt, of a model that learns
    from the examples together.

    A task whose lessons need no replies is learned from first; of one that learns from replies the first
    share of them comes before. cfg: recipes.Infer. Raises UsageError where --n is too small to
    share."""
    agent = players.player
    trained = [weight for weight in agent.model.parameters() if weight.requires_grad]
    start = [weight.detach().clone() for weight in trained]
    early = bool(task.lessons(examples, []))
    rounds = cfg.ttt_rounds + (not early)
    if not 1 <= rounds <= players.n:
        raise UsageError(f"--ttt-rounds {cfg.ttt_rounds}: takes {rounds} shares of --n {players.n} replies")
    records = []
    try:
        for number in range(rounds):
            if number or early:
                learn(cfg, task, agent, task.lessons(examples, records), number)
            share = players.n // rounds + (number < players.n % rounds)
            again = task.attempt(examples, replace(players, n=share, total=players.n), records)
            records = [record for _, record in again]
    finally:
        put_back(trained, start)
        agent.forget()  # what it keeps was made by other weights
    return enumerate(records)


def learn(cfg, task, agent, examples, number):
    """Train the agent's model on examples for --ttt-steps steps, the rate falling to 0."""
    model, sft = agent.model.train(), OBJECTIVES["sft"]
    row_tokens, micro_tokens = (1, 2048) if model.device.type == "cpu" else (cfg.max_tokens, 8192)
    settings = Train(
        seed=cfg.seed, max_tokens=cfg.max_tokens, row_tokens=row_tokens, micro_tokens=micro_tokens
    )
    learner = Learner(model, agent.tokenizer, settings)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    for n in tqdm(range(cfg.ttt_steps if examples else 0), unit="step", leave=False, disable=None):
        place = Place(number * cfg.ttt_steps + n)  # no two rounds draw alike
        chosen = data.indices(cfg.seed, place.number, cfg.ttt_batch, len(examples))
        step = make_step(sft, learner, task, examples, chosen, place)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - n / cfg.ttt_steps)
        for batch in batches_of(step.rows, learner, place):
            (sft.loss(learner, batch, step)[0] / max(1, step.weight)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    agent.forget()


@torch.no_grad()
def put_back(weights, values):
    for weight, value in zip(weights, values):
        weight.copy_(value)
