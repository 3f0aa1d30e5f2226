"""Recipes of chat: a small talker from scratch, and checkpoints under each loss."""

from games import SCRATCH

# the learning rates are for all weights; an adapter (--lora-rank) takes about ten times as much
MODEL = dict(task="chat", lr=2e-5, max_tokens=1024, warmup=0.03, max_new=200, eval_few=200, eval_n=200)
RECIPES = {
    "chat": SCRATCH
    | dict(
        task="chat",
        steps=1400,  # five minutes on one core; 2,500 have 76 instead of 66 % of the replies right
        batch=64,
        max_tokens=192,
        micro_tokens=2048,
        warmup=0.02,
        max_new=32,
        save_every=500,
    ),
    "chat-model": MODEL,
}
for name in ("dpo", "simpo", "kto", "grpo"):
    RECIPES[f"chat-{name}"] = MODEL | dict(loss=name, lr=1e-6, warmup=0.1)
