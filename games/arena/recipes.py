"""Recipes of the arena: small judges from scratch, a judge from a checkpoint, and published judges."""

from games import SCRATCH

ARENA = SCRATCH | dict(  # takes five minutes on one core
    task="arena",
    dim=64,
    layers=3,
    mlp_dim=128,
    vocab=1000,
    battles=32_000,  # each is seen once; 4,000 battles, seen ten times, were learned by heart
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
# for a checkpoint: the settings that practice arrived at for noisy votes
MODEL = dict(
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
)
RECIPES = {
    "arena": ARENA,
    # reads each side by itself, so it cannot see the order
    "arena-davidson": ARENA | dict(loss="davidson", micro_tokens=0),
    # Source: VasilisMpletsos/LLM_Preference_Arena_Kaggle at its last commit, modern_bert.py and its notebook.
    # Its schedule was counted in batches of 4 but moved only once in 32 batches, so the learning rate hardly
    # fell. It clipped no gradients and trained on one order of the answers.
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
        # the original ran up to 100; its best accuracy, 47.6 % on 5 % of the rows, came after about six
        epochs=6.0,
        max_tokens=8192,
        dtype="bfloat16",
        eval_every=125,
        save_every=125,
    ),
    # Source: shyoulala/LMSYS_BlackPearl, the student of the first place, without its teachers. Their soft
    # labels would be columns p_a, p_b, p_tie of --data.
    "arena-decoder": dict(
        task="arena",
        model="google/gemma-2-9b-it",
        lora_rank=64,
        lora_alpha=128.0,
        lora_dropout=0.05,
        lr=5e-5,
        schedule="cosine",
        warmup=0.06,  # 100 of about 1,800 steps
        batch=32,  # 64 rows, as each battle comes in both orders
        epochs=2.0,
        max_tokens=1024,
        dtype="bfloat16",
        checkpointing=True,
        save_every=200,
    ),
    "arena-model": MODEL,
    # for the user's train.csv on a CPU, to be mixed with features (infer.py submit --mix)
    "arena-laptop": MODEL
    | dict(
        model="sentence-transformers/all-MiniLM-L6-v2",
        swap="random",
        max_tokens=256,
        max_minutes=25.0,
        dtype="float32",  # faster than bfloat16 on the CPUs measured
    ),
}
