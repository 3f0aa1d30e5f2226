"""Recipes of ARC: small models from scratch, a model from the Hub, and the published system's."""

from games import SCRATCH

# Source: the notes and the training script of ironbar/arc24 at its last commit, for its three code models.
# They learned from 400 to 800 tasks, drawn from programs that are not published; here from the world's tasks.
SEED_ARC = dict(
    task="arc",
    model="Qwen/Qwen2.5-0.5B-Instruct",
    grid="full",  # shape and row numbers
    lora_rank=128,  # recorded for the second model only
    lora_alpha=64.0,
    lora_dropout=0.1,
    lora_targets="q_proj,k_proj,v_proj,o_proj",
    rslora=True,  # a stray comma switched on rslora and dora: the scale is alpha / sqrt(rank) = 5.7, not 0.5
    dora=True,
    batch=32,  # there one prompt a device, with accumulated gradients
    schedule="linear",
    warmup=0.05,
    clip=1.0,
    beta2=0.999,  # the default of transformers; their optimizer had 8-bit state, ours has 32-bit
    max_tokens=8192,
    max_new=1100,
    save_every=50,
)
SMALL = SCRATCH | dict(
    task="arc",
    batch=32,
    micro_tokens=2048,
    warmup=0.02,
    max_new=96,
    eval_n=240,
    save_every=500,
)

RECIPES = {
    "arc": SMALL  # ten minutes on two shared cores, with 400 evaluation tasks
    | dict(dim=128, layers=4, steps=400, max_tokens=512, eval_few=40),
    # For tasks that people made: the wide world, at most 90 minutes. More families and larger grids need a
    # larger model than `arc`: 2.1 million parameters. Attention costs the square of the length, so only one
    # task in eight is large.
    "arc-real": SMALL
    | dict(
        world="wide",
        compositions=0.3,
        dim=192,
        layers=4,
        heads=6,
        mlp_dim=576,
        steps=1200,
        max_minutes=85.0,  # the schedule ends with the time on slower machines
        max_tokens=2048,
        cells=1700,  # with row ends, markers and a program less than 2,048 tokens
        micro_tokens=4096,
        max_new=200,  # the longest program of a family has 169 tokens
        eval_few=24,
        eval_n=120,
        save_every=200,
    ),
    "arc-grpo": dict(  # with --init RUN; reward 1 for every shown output and the hidden one
        task="arc",
        loss="grpo",
        steps=40,
        batch=16,
        group=8,
        lr=1e-4,
        warmup=0.1,
        schedule="constant",
        scale_rewards=False,
        max_tokens=512,
        micro_tokens=2048,
        max_new=96,
        eval_few=100,
        eval_n=100,
        save_every=50,
    ),
    "arc-model": dict(
        task="arc",
        prompt_version="code-from-examples-v0",
        lr=2e-4,
        batch=4,
        max_tokens=1024,
        steps=200,
        max_new=200,
        eval_few=8,
        eval_n=40,
        eval_replies=8,
        save_every=100,
    ),
    "arc-seed-1": SEED_ARC | dict(prompt_version="code-from-examples-v0", lr=5e-5, steps=14_000),
    "arc-seed-2": SEED_ARC | dict(prompt_version="code-from-examples-v1", lr=1e-4, steps=7_000),
    "arc-seed-3": SEED_ARC  # four kinds of prompts at once
    | dict(
        prompt_version="code-from-examples-v2,output-from-examples-v1,output-from-code-v0,input-from-inputs-v0",
        lr=5e-5,
        steps=26_000,
    ),
}
