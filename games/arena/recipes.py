"""Recipes of the arena: small judges from scratch, a checkpoint, and what was published."""

from games import SCRATCH

ARENA = SCRATCH | dict(  # five minutes on one core
    task="arena",
    dim=64,
    layers=3,
    mlp_dim=128,
    vocab=1000,
    battles=32_000,  # each seen once: 4,000 of them ten times were learned by heart
    epochs=1.0,
    batch=32,
    max_tokens=512,
    micro_tokens=4096,
    warmup=0.04,
    weight_decay=0.01,
    eval_few=400,
    eval_n=0,
    save_every=500,
)
RECIPES = {
    "arena": ARENA,
    "arena-davidson": ARENA | dict(loss="davidson", micro_tokens=0),  # blind to the order by its form
    # Source: VasilisMpletsos/LLM_Preference_Arena_Kaggle at its last commit, modern_bert.py and its notebook.
    # Its schedule counted batches of 4 and moved once in 32, so the rate hardly fell; no clipping, one order.
    "arena-modernbert": dict(
        task="arena",
        model="answerdotai/ModernBERT-base",
        swap="none",
        lr=1e-4,
        schedule="constant",
        warmup=0.01,
        weight_decay=0.01,
        beta2=0.999,
        clip=0.0,
        batch=128,  # 4, accumulated 32 times
        epochs=6.0,  # of up to 100; its best, 47.6 % of 5 % of the rows, came after about six
        max_tokens=8192,
        dtype="bfloat16",
        eval_every=125,
        save_every=125,
    ),
    # Source: shyoulala/LMSYS_BlackPearl, the student of the first place, without its teachers (--data of soft
    # labels has p_a, p_b, p_tie).
    "arena-decoder": dict(
        task="arena",
        model="google/gemma-2-9b-it",
        lora_rank=64,
        lora_alpha=128.0,
        lora_dropout=0.05,
        lr=5e-5,
        schedule="cosine",
        warmup=0.06,  # 100 of about 1,800 steps
        batch=32,  # 64 rows, as both orders count
        epochs=2.0,
        max_tokens=1024,
        dtype="bfloat16",
        checkpointing=True,
        save_every=200,
    ),
    "arena-model": dict(  # a checkpoint: what practice settled on for noisy votes
        task="arena",
        lr=5e-5,
        batch=32,
        epochs=2.0,
        max_tokens=1024,
        schedule="cosine",
        warmup=0.08,
        weight_decay=0.01,
        eval_few=200,
        eval_n=0,
        save_every=200,
    ),
}
