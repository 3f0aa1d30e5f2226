"""Recipes of 20 Questions: a small model of our own, reinforcement learning from its games, a model from the
Hub, and a published solution."""

from games import SCRATCH

# Source: Training.ipynb at the last commit of KindYAK/kaggle_20q, called "the seed" below. Only the attention
# of layers 22-31, the embedding and the head are trained: 1.47 of 8.03 billion parameters.
SEED_20Q = dict(
    task="20q",
    model="meta-llama/Llama-3.1-8B-Instruct",
    train_only=r"layers\.(2[2-9]|3[01])\.attn\.|^embed|^head",  # Training.ipynb
    lr=1e-5,  # Training.ipynb, TrainingArguments
    schedule="linear",  # transformers' default, not overridden
    warmup=0.1,  # TrainingArguments
    batch=1,  # a game is about 40 samples; a step of the seed has 25 samples from any games
    steps=700,  # one epoch of its 17,476 snapshot samples, 25 a step; it trained on other sets before
    max_tokens=5000,  # max_seq_length
    clip=1.0,  # transformers' default
    beta2=0.999,  # transformers' default
    save_every=500,  # the seed saved only after each epoch
)
RECIPES = {
    "20q": SCRATCH
    | dict(  # about five minutes on two cores
        task="20q",
        layers=2,
        lr=0.02,  # of the embedding: 89 % wins after 600 steps with 10 % flips, but 79 % at 3e-3
        steps=1200,
        batch=16,
        max_tokens=192,  # about one game and its answers: the cost of attention grows with the square
        micro_tokens=2048,  # the model is so small that larger batches still fit into a CPU's cache
        warmup=0.01,
        max_new=8,
        eval_few=50,
        save_every=500,
    ),
    "20q-kaggle": SCRATCH
    | dict(  # 3.7 million parameters on the large world
        task="20q",
        world="games/twentyq/kaggle.txt",
        dim=256,
        mlp_dim=768,
        vocab=4500,  # 3,847 phrases, 259 bytes and control tokens, and a few merges for other texts
        lr=0.02,
        steps=1950,  # 46,800 games: an hour of one core
        max_minutes=85.0,  # a slower machine ends the schedule then
        batch=24,
        max_tokens=320,  # a whole game: cut in two, its beginning would be computed twice
        micro_tokens=4096,
        warmup=0.01,
        max_new=8,
        pool=60,  # the table wins 99 % with 60 questions and 97 % with 40
        flips=0.2,
        unsure=0.05,
        dtype="float32",  # one model in every place; some processors multiply bfloat16 slower than float32
        eval_few=50,
        save_every=500,
    ),
    "20q-grpo": dict(  # with --init RUN
        task="20q",
        loss="grpo",
        steps=100,
        batch=16,
        group=8,
        lr=1e-4,
        warmup=0.1,
        schedule="linear",
        max_tokens=256,
        micro_tokens=2048,
        max_new=8,
        flips=0.2,
        eval_few=50,
        save_every=50,
    ),
    "20q-model": dict(task="20q", lr=2e-4, batch=4, max_tokens=1024, steps=200, max_new=24, save_every=100),
    # 8 billion parameters on a card of 16 GB; not run. By its shapes: 7.0 GB for the blocks in int8 (3.6 in
    # nf4, 14.0 in bfloat16), 2.1 for embedding and head, 0.7 for the adapter with its gradients and averages,
    # 0.4 for what the blocks pass on, about 1.5 inside a block and for the logits: 11.7 GB in all.
    "20q-lora": dict(
        task="20q",
        model="meta-llama/Llama-3.1-8B-Instruct",
        world="games/twentyq/kaggle.txt",
        dtype="bfloat16",
        quantize="int8",
        lora_rank=16,
        lr=2e-4,
        batch=8,  # games, each of about 60 samples
        steps=600,
        max_tokens=1536,
        micro_tokens=1536,  # one game at a time: the activations of more do not fit
        checkpointing=True,
        flips=0.1,
        unsure=0.0,
        explore=0.0,  # the teacher's own questions: fewer of them to learn
        cells=12,  # with 2 the model learned to answer no to everything
        tries=4,
        max_new=16,
        eval_n=100,
        save_every=100,
    ),
    "20q-seed-1": SEED_20Q | dict(name="20q-seed-1", weight_decay=0.2),
    "20q-seed-2": SEED_20Q  # the second stage continues the first, and learns the prompts too
    | dict(name="20q-seed-2", model="", init="runs/20q-seed-1", weight_decay=0.25, learn_all=True),
}
