"""Every flag of train.py and infer.py, and the recipes: what is set where, with the source of each published
value.

A field is a flag, the comment behind it is its help. Values come from: field default < recipe < command line.
"""

import argparse
import dataclasses
import difflib
import inspect
import re
import sys
from dataclasses import dataclass

from games import GAMES, task_class


@dataclass
class Train:
    task: str = "20q"  # the game
    recipe: str = ""  # named settings; by default TASK-LOSS, TASK-model with --model or --init, or TASK
    # what is trained
    model: str = ""  # start from a model folder or Hub name; without it a small model is made from scratch
    revision: str = ""  # branch, tag or commit of a Hub name
    init: str = ""  # start from the model of an earlier run
    format: str = ""  # chat format, where the checkpoint's own is not recognised
    dim: int = 128  # from scratch: model width
    layers: int = 3  # from scratch: blocks
    heads: int = 4  # from scratch: query heads
    kv_heads: int = 4  # from scratch: key/value heads
    mlp_dim: int = 384  # from scratch: inner width of the MLP
    vocab: int = 8000  # from scratch: largest vocabulary of the tokenizer trained on the task's text
    lora_rank: int = 0  # train an adapter of this rank; 0 trains the weights themselves
    lora_alpha: float = 0.0  # scale of the adapter times its rank; 0 is twice the rank
    lora_targets: str = ""  # layers that get an adapter (q_proj,v_proj ...), by default all of a block
    lora_dropout: float = 0.0  # dropout on the adapter's input
    rslora: bool = False  # scale by alpha / sqrt(rank)
    dora: bool = False  # learn the length of each weight row as well (arXiv 2402.09353)
    train_only: str = ""  # train only parameters whose name this regular expression finds
    # how
    loss: str = ""  # objective, by default the task's
    learn_all: bool = False  # learn every token of a chat, prompts as well
    beta: float = 0.1  # dpo, kto: how closely the model before training is kept to
    nll: float = 0.0  # dpo: weight of the chosen reply's negative log-likelihood beside the preference
    tau: float = 0.05  # contrastive: temperature of the softmax over the candidates
    distil: float = 0.0  # contrastive: weight of the divergence from a teacher's scores, which the rows have
    bank: bool = False  # contrastive: every query against all labels of the task, not those of its step
    group: int = 8  # grpo: games of each example
    temperature: float = 1.0  # grpo: of the sampled replies
    scale_rewards: bool = True  # grpo: divide advantages by the group's standard deviation
    normalise: str = "token"  # grpo: loss per token, per reply (sequence), or per --max-new (constant)
    clip_low: float = 0.2  # grpo: how far a token's probability may fall, as a share
    clip_high: float = 0.2  # grpo: how far it may rise
    kl: float = 0.0  # grpo: weight of the divergence from the model before training
    updates: int = 1  # grpo: optimizer steps on the same games
    mask_truncated: bool = True  # grpo: do not learn from replies cut at --max-new
    steps: int = 0  # optimizer steps; 0 follows from --epochs
    epochs: float = 1.0  # passes over the examples, where --steps is 0
    max_minutes: float = 0.0  # end training in time, the learning rate at its end; 0 has no limit
    patience: int = 0  # end after so many evaluations in a row without a better score; 0 never
    batch: int = 16  # examples a step
    max_tokens: int = 512  # of a sample; longer ones are dropped and counted, texts to classify shortened
    row_tokens: int = 0  # pack samples into rows of so many slots; 0: --max-tokens on a GPU, none on a CPU
    micro_tokens: int = 0  # slots a forward pass; 0: 8192 on a GPU, 512 on a CPU, more for whole-step losses
    optimizer: str = "adamw"  # adamw, or muon for the blocks' matrices and adamw for the rest
    lr: float = 1e-4  # peak learning rate of adamw
    muon_lr: float = 0.02  # peak learning rate of muon
    schedule: str = "cosine"  # cosine, linear or constant, after the warm-up
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    final_lr: float = 0.0  # where the schedule ends, as a share of the peak
    beta1: float = 0.9  # adamw
    beta2: float = 0.95  # adamw
    weight_decay: float = 0.0  # of matrices
    clip: float = 1.0  # largest gradient norm; 0 never clips
    neftune: float = 0.0  # alpha of the noise on the embeddings (arXiv 2310.05914)
    # evaluation and saving
    limit: int = 0  # train on the first examples only; 0 takes all
    keep: float = 0.1  # refuse to train where less than this share of the rows or samples is usable
    eval_n: int = 400  # examples of the evaluation after training
    eval_replies: int = 0  # replies to each example in evaluations; 0: as many as the game asks for
    eval_every: int = 0  # evaluate every so many steps as well
    eval_few: int = 100  # examples of the evaluations before and during training
    save_every: int = 0  # checkpoint every so many steps; the last one always
    max_new: int = 24  # longest reply in evaluations, in tokens
    # where
    seed: int = 0  # of everything random
    device: str = "auto"  # auto, cuda, mps or cpu
    dtype: str = "auto"  # of matrix products: float32, bfloat16, float16, or auto: bfloat16 if native
    checkpointing: bool = False  # compute activations twice: less memory, a third more work
    shard: bool = False  # under torchrun: cut the model over the cards (FSDP2), which else all hold it
    threads: int = 0  # CPU threads; 0 leaves it to torch
    runs: str = "runs"  # folder of all runs
    name: str = ""  # of this run; by default task and time
    resume: str = ""  # go on with a run
    show: int = 1  # rendered samples to print before the first step
    dry_run: bool = False  # print what would be trained, and stop


@dataclass
class Infer:
    verb: str = "play"  # play, eval, sample, collect, merge, rows or submit
    task: str = "20q"  # the game
    run: str = ""  # a run; by default runs/latest where no --model is given
    model: str = ""  # a model folder or Hub name
    revision: str = ""  # branch, tag or commit of a Hub name
    lora: str = ""  # an adapter to put on it
    format: str = ""  # chat format, where the checkpoint's own is not recognised
    limit: int = 400  # examples to evaluate on, or to collect from; 0 takes all
    n: int = 1  # samples a prompt; eval and play: by default as many as the game asks for
    prompt: str = ""  # sample: what to say to the model
    prompts: str = ""  # sample: rows with a "prompt" or "messages" each: a file, a folder or a Hub data set
    predictions: str = ""  # submit: the predictions that eval wrote, where the game makes it from them
    temperature: float = 0.0  # 0 takes the likeliest token; eval and play: by default the game's
    top_k: int = 0  # sample among the k likeliest tokens; 0 among all
    top_p: float = 1.0  # sample among the fewest tokens that hold this share of the probability
    min_p: float = 0.0  # sample among tokens at least this share as likely as the likeliest
    max_new: int = 256  # longest reply, in tokens; eval and play: by default the game's
    max_tokens: int = 512  # of a text that is classified, longer ones are shortened; by default as trained
    ttt_steps: int = 0  # eval: train so many steps on what each task shows before it is answered
    ttt_rounds: int = 1  # ... so many times, where that takes own replies, --n of them over all rounds
    ttt_tasks: int = 1  # ... on so many tasks together, each group of them from the same start
    ttt_batch: int = 8  # ... examples a step
    ttt_lr: float = 1e-3  # ... peak learning rate of adamw
    seat: str = ""  # play: the model's, asker (you answer) or answerer; arena: model or person judges
    out: str = ""  # write the result to this new file
    seed: int = 0  # of everything random
    device: str = "auto"  # auto, cuda, mps or cpu
    dtype: str = "auto"  # of the weights: float32, bfloat16, float16; auto: the file's, float32 on a CPU
    threads: int = 0  # CPU threads; 0 leaves it to torch
    runs: str = "runs"  # folder of all runs


# ------------------------------------------------------------------------------------------------ recipes
# Sources: KindYAK/kaggle_20q, Training.ipynb, read at its last commit. All but the attention of layers 22-31,
# the embedding and the head is frozen: 1.47 of 8.03 billion parameters are trained.
SEED_20Q = dict(
    task="20q",
    model="meta-llama/Llama-3.1-8B-Instruct",
    train_only=r"layers\.(2[2-9]|3[01])\.attn\.|^embed|^head",  # Training.ipynb
    lr=1e-5,  # Training.ipynb, TrainingArguments
    schedule="linear",  # transformers' default, not overridden
    warmup=0.1,  # TrainingArguments
    batch=1,  # a game is about 40 samples; the seed took 25 samples a step, whatever their games
    steps=700,  # an epoch of its 17,476 snapshot samples in steps of 25; other sets came before it
    max_tokens=5000,  # max_seq_length
    clip=1.0,  # transformers' default
    beta2=0.999,  # transformers' default
    save_every=500,  # the seed saved after each epoch only
)
# Sources: ironbar/arc24 at its last commit, what its notes and training script say of the three code models
# (400 to 800 tasks drawn of its own programs, which are not published with it: here the world's).
SEED_ARC = dict(
    task="arc",
    model="Qwen/Qwen2.5-0.5B-Instruct",
    grid="full",  # shape and row numbers
    lora_rank=128,  # of the second; not recorded of the others
    lora_alpha=64.0,
    lora_dropout=0.1,
    lora_targets="q_proj,k_proj,v_proj,o_proj",
    rslora=True,  # both were switched on by a stray comma: the scale is alpha / sqrt(rank) = 5.7, not 0.5
    dora=True,
    batch=32,  # one prompt a device, accumulated
    schedule="linear",
    warmup=0.05,
    clip=1.0,
    beta2=0.999,  # transformers' default, of an optimizer with 8-bit state; ours has 32
    max_tokens=8192,
    max_new=1100,
    save_every=50,
)
# Sources: TheIllusionOfLife/tunix at its last commit: the notebooks' generators and docs. Its base model was
# trained on a TPU with every row padded to 2,048; all tokens were learned, the prompt's too.
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
    max_minutes=540.0,  # of one session
    max_tokens=2048,
    weight_decay=0.01,
    beta2=0.999,
    max_new=2048,
    save_every=500,
)
# Sources: HaowenGuan/Kaggle-MathLLM at its last commit, scripts and notebooks, and FlagEmbedding 1.2.11,
# which it ran. --data is Eedi's folder, then rows that collect made (--negatives 15, later 50).
SEED_EEDI = dict(
    task="eedi",
    model="BAAI/bge-large-en-v1.5",
    query="s3",
    clean="seed",  # which deletes every digit
    lr=1e-5,
    schedule="linear",  # transformers' default, as are no warm-up, no decay of weights and the clipping
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
SCRATCH = dict(
    optimizer="muon", lr=3e-3, muon_lr=0.02, schedule="linear"
)  # of the small models of the worlds
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
    "20q": SCRATCH
    | dict(  # about five minutes on two cores
        task="20q",
        layers=2,
        steps=1400,
        batch=16,
        max_tokens=192,  # about one game and its answers: attention costs the square
        micro_tokens=2048,  # the model is so small that larger batches still stay in a CPU's cache
        warmup=0.01,
        max_new=8,
        eval_few=50,
        save_every=500,
    ),
    "arc": SCRATCH
    | dict(  # ten minutes on two shared cores with 400 tasks to evaluate
        task="arc",
        dim=128,
        layers=4,
        steps=400,
        batch=32,
        max_tokens=512,
        micro_tokens=2048,
        warmup=0.02,
        max_new=96,
        eval_few=40,
        eval_n=240,
        save_every=500,
    ),
    "arc-refine": SCRATCH  # nine minutes on half a core, with --init RUN: the prompt `refine` beside `code`
    | dict(
        task="arc",
        prompt_version="code,refine",
        compositions=0.5,
        steps=140,
        batch=32,
        lr=1.5e-3,
        muon_lr=0.01,
        max_tokens=640,
        micro_tokens=2048,
        warmup=0.02,
        max_new=96,
        eval_few=1,
        eval_n=240,
        save_every=500,
    ),
    "arc-grpo": dict(  # with --init RUN; worth 1 is what gives every shown output and the hidden one
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
    "arc-seed-3": SEED_ARC  # several tasks at once
    | dict(
        prompt_version="code-from-examples-v2,output-from-examples-v1,output-from-code-v0,input-from-inputs-v0",
        lr=5e-5,
        steps=26_000,
    ),
    "reasoning": SCRATCH
    | dict(  # 700 steps took five minutes on one core
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
    "reasoning-model": dict(  # what practice has learnt since: replies alone, ten times the rate for LoRA
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
    "reasoning-grpo": dict(  # two minutes on one core, with --init RUN
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
    "reasoning-seed": SEED_REASONING | dict(name="reasoning-seed"),
    "reasoning-seed-continue": SEED_REASONING  # fresh rows, two epochs, from the adapter of the first
    | dict(model="", init="runs/reasoning-seed", rows="180000:280000", lr=5e-6, warmup=0.016, steps=6_250),
    "reasoning-seed-grpo": dict(  # its third phase: GSM8K and MBPP in one folder, no word about the tags
        task="reasoning",
        loss="grpo",
        model="google/gemma-2-2b-it",
        data="gsm8k-mbpp",
        rewards="format:1,exact:1,tests:1",  # ours: its own four paid for empty answers
        lora_rank=64,
        lora_alpha=64.0,
        lr=5e-6,
        warmup=100 / 1500,
        final_lr=0.2,
        weight_decay=0.1,
        batch=1,
        group=4,
        kl=0.08,
        temperature=0.9,  # and among the 50 likeliest tokens, which would not be the model that is trained
        steps=1500,
        max_minutes=540.0,
        max_tokens=656,
        max_new=400,
        save_every=100,
    ),
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
    "eedi-model": dict(  # ours: the published rates by size, exact softmax over all labels that training has
        task="eedi",
        bank=True,
        lr=5e-5,
        tau=0.03,
        batch=64,
        epochs=4.0,
        max_tokens=256,
        schedule="linear",
        warmup=0.1,
        weight_decay=0.01,
        eval_few=300,
        eval_n=0,
        save_every=100,
    ),
    "eedi-classify": dict(  # a reranker, with --model and --data of mined rows
        task="eedi",
        loss="classify",
        lr=5e-5,
        batch=8,
        epochs=1.0,
        max_tokens=384,
        schedule="linear",
        warmup=0.1,
        weight_decay=0.01,
        group_size=8,
        eval_few=100,
        eval_n=0,
        save_every=200,
    ),
    "eedi-seed-bge": SEED_EEDI,
    "eedi-bank": SEED_EEDI  # ours beside it: digits kept, the right answer told, all labels in the softmax
    | dict(
        query="full",
        clean="",
        bank=True,
        batch=64,
        warmup=0.1,
        weight_decay=0.01,
        split="construct",
        dtype="auto",
    ),
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
    "20q-seed-1": SEED_20Q | dict(name="20q-seed-1", weight_decay=0.2),
    "20q-seed-2": SEED_20Q  # the second stage goes on from the first and learns the prompts as well
    | dict(name="20q-seed-2", model="", init="runs/20q-seed-1", weight_decay=0.25, learn_all=True),
}


# ------------------------------------------------------------------------------------------------ command lin
class UsageError(Exception):
    """A wrong call: exit code 2."""


def refuse(message):
    raise UsageError(message)


def helps(kind):
    """Field name -> the comment behind it."""
    return dict(re.findall(r"^    (\w+): [^#\n]*# (.*)$", inspect.getsource(kind), re.M))


def nearest(word, known):
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def parse(kind, argv=None):
    """The settings of a call: an instance of kind with the game's own Options as `.options` and the origin of
    each value that is not the default as `.origin`. Raises UsageError."""
    argv = sys.argv[1:] if argv is None else list(argv)
    early = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False
    )  # these two decide which flags there are
    early.error = refuse
    early.add_argument("--task", default="")
    early.add_argument("--recipe", default="")
    first, _ = early.parse_known_args(argv)
    task, recipe = first.task, first.recipe
    if recipe and recipe not in RECIPES:
        raise UsageError(
            f"--recipe {recipe}: unknown{nearest(recipe, RECIPES)} (known: {', '.join(RECIPES)})"
        )
    task = task or RECIPES.get(recipe, {}).get("task", "20q")
    if task not in GAMES:
        raise UsageError(f"--task {task}: unknown{nearest(task, GAMES)} (known: {', '.join(GAMES)})")
    parser = argparse.ArgumentParser(
        description=f"Flags of the task {task} stand last.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=110, max_help_position=30),
    )
    parser.error = refuse
    kinds = (kind, task_class(task).Options)
    for each in kinds:
        text = helps(each)
        for field in dataclasses.fields(each):
            default = f" [{field.default}]" if field.default else ""
            settings = dict(help=(text[field.name] + default).replace("%", "%%"))
            if field.name == "verb":
                parser.add_argument("verb", nargs="?", default=field.default, **settings)
            elif field.type in (bool, "bool"):
                parser.add_argument(
                    f"--{field.name.replace('_', '-')}", action=argparse.BooleanOptionalAction, **settings
                )
            elif field.type in (list, "list"):
                parser.add_argument(
                    f"--{field.name.replace('_', '-')}", nargs="+", metavar="NAME", **settings
                )
            else:
                kind_of = {"int": int, "float": float, "str": str}.get(field.type, field.type)
                parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind_of, metavar="", **settings)
    given, rest = parser.parse_known_args(argv)
    if rest:
        flags = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(f"{rest[0]}: unknown{nearest(rest[0].split('=')[0], flags)}")
    given = vars(given)
    for name, value in given.items():
        if isinstance(value, (int, float)) and value < 0:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must not be negative")
    if kind is Train and not recipe:
        recipe = f"{task}-model" if given.get("model") or given.get("init") else task
        by_loss = f"{task}-{given.get('loss')}"
        recipe = by_loss if by_loss in RECIPES else recipe
    chosen = RECIPES.get(recipe, {}) if kind is Train else {}
    merged = {**chosen, **given, "task": task} | ({"recipe": recipe} if kind is Train else {})
    parts = [{f.name: merged[f.name] for f in dataclasses.fields(each) if f.name in merged} for each in kinds]
    settings = kind(**parts[0])
    settings.options = kinds[1](**parts[1])
    settings.origin = {name: "flag" if name in given else f"recipe {recipe}" for name in merged}
    return settings


def restore(kind, saved):
    """Settings from the flat dict that `values` made of them."""
    task = task_class(saved["task"])
    parts = [
        {f.name: saved[f.name] for f in dataclasses.fields(each) if f.name in saved}
        for each in (kind, task.Options)
    ]
    settings = kind(**parts[0])
    settings.options, settings.origin = task.Options(**parts[1]), dict.fromkeys(saved, "run")
    return settings


def values(settings):
    """Every setting as one flat dict, the game's own included."""
    return dataclasses.asdict(settings) | dataclasses.asdict(settings.options)
