"""A game for tests: whether something holds of a keyword of a tiny world, as items of any kind."""

import json

import numpy as np
import torch

import checkpoint
from games.task import Chat, Classifies, Contrast, Duel, HasBank, Judged, Label, Pair, Ranked, Task
from games.twentyq.prompts import answer_prompt
from games.twentyq.task import TwentyQuestions
from objectives import OBJECTIVES
from recipes import Train, parse

SMALL = (
    "--dim 32 --layers 1 --heads 2 --mlp-dim 32 --vocab 400 --eval-n 2 --eval-few 2 --batch 4 --noise 0 "
    "--no-greedy --max-new 4 --threads 1 --dtype float32 --device cpu --optimizer adamw --lr 0.003 "
    "--no-mask-truncated"
).split()
KINDS = list(OBJECTIVES)


def reply(text):
    return {"role": "assistant", "content": text}


class Facts(HasBank, Classifies, TwentyQuestions):
    """Items for the loss that a fixture chooses, as `loss`."""

    labels = 2

    def items(self, example, rng):
        k, made = self.world.keyword_index[example["keyword"]], []
        for q in rng.choice(len(self.world.questions), 2, replace=False):
            question, other = (self.world.questions[i % len(self.world.questions)] for i in (q, q + 1))
            messages, true = answer_prompt(example["keyword"], question), bool(self.world.table[k, q])
            right, wrong = ("yes, it is so", "no") if true else ("no", "yes, it is so")
            made.append(
                {
                    "sft": Chat([*messages, reply(right)]),
                    "classify": Label(messages, int(true)),
                    "davidson": Duel(messages, answer_prompt(example["keyword"], other), 1 - int(true)),
                    "bradley-terry": Ranked([*messages, reply(right)], [*messages, reply(wrong)]),
                    "dpo": Pair(messages, right, wrong),
                    "simpo": Pair(messages, right, wrong),
                    "kto": Judged(messages, right if len(made) else wrong, bool(made)),
                    "contrastive": Contrast(f"{example['keyword']}: {question}", question, [other], int(q)),
                }[self.loss]
            )
        return made

    def bank(self):
        return self.world.questions

    def prompt(self, example):
        return answer_prompt(example["keyword"], self.world.questions[0])

    def score(self, example, reply):
        return {"score": float("a" in reply), "short": float(len(reply) < 8)}

    def rollout(self, examples, player):
        return Task.play(self, examples, player)

    def evaluate(self, examples, players):
        return dict(n=len(examples), metrics={"none": 0.0}, intervals={}, baselines={}, records=[])


def save_small_model(world_file, folder, seed=0):
    """A small decoder with random weights and a tokenizer, as a folder."""
    cfg = parse(Train, [*SMALL, "--world", str(world_file)])
    task = TwentyQuestions(cfg.options)
    point = checkpoint.from_scratch(cfg, task.texts(), task.pre_tokens, "own", cfg.seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in point.model.parameters():
            weight.add_(torch.empty(weight.shape).normal_(0, 0.1, generator=generator))
    point.save(folder)
    return folder


def rows_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Gives:
    """A task whose examples are the items that they teach."""

    def items(self, example, rng):
        return example


def rng():
    return np.random.default_rng(0)
