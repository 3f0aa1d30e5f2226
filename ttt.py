"""Test-time training: a model that learns from what its test tasks show, and from its own replies to them,
before it answers. No output of a test is learned from (Task.lessons).

`attempt` takes the place of a task's own: sample, learn, sample again. The model is put back to where it was
after each group of tasks, so that no group knows of another."""

import torch
from tqdm import tqdm

import data
import sampler
from objectives import OBJECTIVES, Learner, batches_of, items_of, step_of
from recipes import Train


def attempt(cfg, task, agent, examples):
    """Records of --n replies to each example, as of Task.attempt, of a model that learns from them together.

    A task whose lessons need no replies is learned from first; of one that learns from replies the first
    share of them comes before. cfg: recipes.Infer. Raises ValueError where --n is too small to share."""
    trained = [weight for weight in agent.model.parameters() if weight.requires_grad]
    start = [weight.detach().clone() for weight in trained]
    early = bool(task.lessons(examples, []))
    rounds, records = cfg.ttt_rounds + (not early), []
    if not 1 <= rounds <= task.n:
        raise ValueError(f"--ttt-rounds {cfg.ttt_rounds}: takes {rounds} shares of --n {task.n} replies")
    try:
        for number in range(rounds):
            if number or early:
                learn(cfg, task, agent, task.lessons(examples, records), number)
            share = task.n // rounds + (number < task.n % rounds)
            records = [record for _, record in task.attempt(examples, agent, records, share)]
    finally:
        restore(trained, start)
        agent.session = sampler.Session(agent.model)  # what it keeps was made by other weights
    return enumerate(records)


def learn(cfg, task, agent, examples, number):
    """Train the agent's model on examples for --ttt-steps steps, the rate falling to 0."""
    model, sft = agent.model.train(), OBJECTIVES["sft"]
    sizes = (1, 2048) if model.device.type == "cpu" else (cfg.max_tokens, 8192)
    settings = Train(seed=cfg.seed, max_tokens=cfg.max_tokens, row_tokens=sizes[0], micro_tokens=sizes[1])
    learner = Learner(model, agent.tokenizer, settings)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=cfg.ttt_lr, betas=(0.9, 0.95), weight_decay=0.0)
    for n in tqdm(range(cfg.ttt_steps if examples else 0), unit="step", leave=False, disable=None):
        place = number * cfg.ttt_steps + n  # no two rounds draw alike
        chosen = data.indices(cfg.seed, place, cfg.ttt_batch, len(examples))
        step = step_of(sft, learner, [items_of(task, examples, settings, *one) for one in chosen])
        for group in optimizer.param_groups:
            group["lr"] = cfg.ttt_lr * (1 - n / cfg.ttt_steps)
        for batch in batches_of(step.rows, learner, place):
            (sft.loss(learner, batch, step)[0] / max(1, step.weight)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    agent.session = sampler.Session(model)


@torch.no_grad()
def restore(weights, values):
    for weight, value in zip(weights, values):
        weight.copy_(value)
