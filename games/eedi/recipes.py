"""Recipes of Eedi: a small encoder from scratch, checkpoints, a reranker, and what was published."""

from games import SCRATCH

# Sources: HaowenGuan/Kaggle-MathLLM at its last commit, scripts and notebooks, and FlagEmbedding 1.2.11,
# which it ran. --data is Eedi's folder, then rows that collect made (--negatives 15, later 50).
SEED_EEDI = dict(
    task="eedi",
    model="BAAI/bge-large-en-v1.5",
    query="s3",
    clean="seed",  # which deletes every digit
    lr=1e-5,
    schedule="linear",  # transformers' default, as are no warm-up, no weight decay and the clipping
    warmup=0.0,
    clip=1.0,
    beta2=0.999,
    tau=0.03,
    batch=16,  # 8 on each of two cards
    epochs=3.0,
    max_tokens=256,  # of queries; 64 of labels, which hardly any reaches
    group_size=8,  # FlagEmbedding's default: 7 of the 15 or 50 negatives in a step
    dtype="float16",
    eval_few=1000,
    eval_n=0,
    save_every=250,
)
# What checkpoints have in common, and ours beside the published recipe
CHECKPOINT = dict(task="eedi", lr=5e-5, schedule="linear", warmup=0.1, weight_decay=0.01, eval_n=0)
RECIPES = {
    "eedi": SCRATCH
    | dict(  # four to five minutes on one core
        task="eedi",
        dim=128,
        layers=2,
        mlp_dim=256,
        vocab=1200,
        bank=True,
        steps=900,
        batch=32,  # questions, of three wrong answers each
        max_tokens=160,
        warmup=0.02,
        eval_few=300,
        eval_n=0,
        save_every=300,
    ),
    "eedi-model": CHECKPOINT
    | dict(  # ours: the published rates by size, exact softmax over all labels that training has
        bank=True,
        tau=0.03,
        batch=64,
        epochs=4.0,
        max_tokens=256,
        eval_few=300,
        save_every=100,
    ),
    "eedi-classify": CHECKPOINT
    | dict(  # a reranker, with --model and --data of mined rows
        loss="classify",
        batch=8,
        epochs=1.0,
        max_tokens=384,
        group_size=8,
        eval_few=100,
        save_every=200,
    ),
    "eedi-seed-bge": SEED_EEDI,
    "eedi-bank": SEED_EEDI
    | dict(  # ours beside it: digits kept, the right answer told, all labels in the softmax
        query="full",
        clean="",
        bank=True,
        batch=64,
        warmup=0.1,
        weight_decay=0.01,
        split="construct",
        dtype="auto",
    ),
}
