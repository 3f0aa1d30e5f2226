"""Recipes of reasoning: a small model from scratch, a model of the Hub, and the published settings."""

from games import SCRATCH

# Source: TheIllusionOfLife/tunix at its last commit, the generators of its notebooks and its docs. It trained
# on a TPU with every row padded to 2,048 tokens, and it learned all tokens, also those of the prompt.
SEED_REASONING = dict(
    task="reasoning",
    model="google/gemma-2-2b-it",
    data="glaiveai/reasoning-v1-20m",
    rows="0:180000",
    system="tags",
    on_bad_row="salvage",
    overlong="truncate",
    learn_all=True,
    lora_rank=64,
    lora_alpha=64.0,
    lr=2e-5,
    schedule="cosine",
    warmup=200 / 22_500,
    final_lr=0.05,
    batch=32,
    steps=22_500,  # four epochs
    max_minutes=540.0,  # one session
    max_tokens=2048,
    weight_decay=0.01,
    beta2=0.999,
    max_new=2048,
    save_every=500,
)
RECIPES = {
    # 700 steps took five minutes on one core
    "reasoning": SCRATCH
    | dict(
        task="reasoning",
        layers=3,
        steps=800,
        batch=64,
        max_tokens=192,
        micro_tokens=2048,
        warmup=0.02,
        max_new=96,
        eval_few=100,
        save_every=300,
    ),
    # what practice has learnt since: train on replies only, and with LoRA at ten times the learning rate
    "reasoning-model": dict(
        task="reasoning",
        system="tags",
        lr=2e-4,
        batch=16,
        max_tokens=1024,
        steps=200,
        max_new=512,
        eval_few=20,
        eval_n=200,
        save_every=100,
    ),
    # takes two minutes on one core, with --init RUN
    "reasoning-grpo": dict(
        task="reasoning",
        loss="grpo",
        steps=100,
        batch=16,
        group=8,
        lr=1e-4,
        warmup=0.1,
        schedule="constant",
        scale_rewards=False,
        max_tokens=192,
        max_new=96,
        eval_few=400,
        save_every=50,
    ),
    # takes a minute on one core, with --init RUN --expert RUN; the expert's opinion of every token is so much
    # that 60 steps with one reply to each of 32 problems are enough
    "reasoning-distil": dict(
        task="reasoning",
        loss="distil",
        steps=60,
        batch=32,
        group=1,
        lr=5e-4,
        schedule="linear",
        max_tokens=192,
        micro_tokens=2048,
        max_new=96,
        eval_few=100,
    ),
    "reasoning-seed": SEED_REASONING | dict(name="reasoning-seed"),
    # two epochs on fresh rows, starting from the adapter of reasoning-seed
    "reasoning-seed-continue": SEED_REASONING
    | dict(model="", init="runs/reasoning-seed", rows="180000:280000", lr=5e-6, warmup=0.016, steps=6_250),
    # the third phase of the original: GSM8K and MBPP in one folder; no system prompt explains the tags
    "reasoning-seed-grpo": dict(
        task="reasoning",
        loss="grpo",
        model="google/gemma-2-2b-it",
        data="gsm8k-mbpp",
        rewards="format:1,exact:1,tests:1",  # ours: the original four rewards paid for empty answers
        lora_rank=64,
        lora_alpha=64.0,
        lr=5e-6,
        warmup=100 / 1500,
        final_lr=0.2,
        weight_decay=0.1,
        batch=1,
        group=4,
        kl=0.08,
        # the original also sampled among the 50 likeliest tokens only, which is not the model that is trained
        temperature=0.9,
        steps=1500,
        max_minutes=540.0,
        max_tokens=656,
        max_new=400,
        save_every=100,
    ),
}
