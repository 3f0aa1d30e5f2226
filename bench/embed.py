"""Embed texts, compared with sentence-transformers: python bench/embed.py --model DIR --what encode

Every side embeds the same texts of mixed length with the same float32 encoder, or trains it:
  encode      vectors of --n texts: Embedder.embed against encode(), which also sorts by length, in batches of
              16, 32 and 64 texts
  pairs       steps of --batch queries, each against the documents of all: train.py's contrastive step
              against MultipleNegativesRankingLoss; no dropout, the same AdamW and clipping
  negatives   the same with --negatives hard negatives for every query: their loss embeds all documents in one
              forward pass (merged, its default) or in one for each column (columns)

A round runs each side once, in a process of its own, after a warm-up; training warms up with one step.
Vectors may differ by 1e-5, the losses of all steps by 1e-4. Texts are words from the tokenizer, drawn by
seed, with log-normal lengths: a median of 40 tokens for queries and 16 for documents, and 5 to 250 for all.
--texts reads JSON lines with question and answer instead.

The table has medians over the rounds. Speed and CPU are the side's wall and processor time divided by ours.
Memory is ours as a share of the side's peak, the largest resident size of the process. Growth is that peak
minus the size after loading. % of matmul is the share of the speed at which this machine computes the float32
product (1024, 384) x (384, 1536). It counts the same FLOPs for every side: those of the tokens without
padding, three times that in training."""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tables import MEASURED, carry_out, step_of, table  # noqa: E402

import checkpoint  # noqa: E402
import train  # noqa: E402
from games.task import Contrast  # noqa: E402
from objectives import OBJECTIVES  # noqa: E402
from optim import optimizers_of  # noqa: E402
from recipes import Train, parse  # noqa: E402
from steps import Learner, batches_of  # noqa: E402

SIDES = {
    "encode": ["ours", "st-16", "st-32", "st-64"],
    "pairs": ["ours", "merged"],
    "negatives": ["ours", "merged", "columns"],
}
QUERY, DOCUMENT = (40, 0.7), (16, 0.6)  # median length in tokens, standard deviation of its logarithm
MIB = 2**20


# ------------------------------------------------------------------------------------------------ texts
def open_embedder(args, **options):
    return checkpoint.open(args.model, "none", **options).embedder


def made(args):
    """Return a function (median, deviation) -> a text of random length."""
    vocabulary = open_embedder(args).tokenizer.get_vocab()
    words = sorted(word for word in vocabulary if re.fullmatch("[a-z]{2,}", word))
    rng = np.random.default_rng(args.seed)

    def text(median, deviation):
        length = int(np.clip(rng.lognormal(np.log(median), deviation), 5, 250))
        return " ".join(rng.choice(words, length - 2))  # [CLS] and [SEP] are two more tokens

    return text


def rows_of(args, n):
    """n lists [query, document, its own hard negatives ...]. Texts made here never repeat."""
    k = args.negatives if args.what == "negatives" else 0
    if not args.texts:
        text = made(args)
        return [[text(*QUERY), *(text(*DOCUMENT) for _ in range(1 + k))] for _ in range(n)]
    lines = [json.loads(line) for line in Path(args.texts).read_text(encoding="utf-8").splitlines()]
    rng = np.random.default_rng(args.seed)
    chosen = [lines[i] for i in rng.permutation(len(lines))[:n]]
    others = [[lines[i]["answer"] for i in rng.integers(0, len(lines), k)] for _ in chosen]
    return [[line["question"], line["answer"], *more] for line, more in zip(chosen, others)]


def steps_of(args):
    """The rows of every step, beginning with the warm-up step."""
    rows = rows_of(args, (args.steps + 1) * args.batch)
    return [rows[start : start + args.batch] for start in range(0, len(rows), args.batch)]


def texts_of(args):
    """The texts to encode, alternating between queries and documents."""
    return [text for row in rows_of(args, (args.n + 1) // 2) for text in row][: args.n]


# ------------------------------------------------------------------------------------------------ sides
def peer(args):
    """The model of sentence-transformers, without dropout."""
    from sentence_transformers import SentenceTransformer

    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return SentenceTransformer(args.model, device="cpu", local_files_only=True, config_kwargs=off)


def encoder(args):
    """Return a side's function texts -> array of vectors (N, width)."""
    if args.side == "ours":
        embedder, options = open_embedder(args, dtype=torch.float32), {}
        if args.batch_tokens:
            options["batch_tokens"] = args.batch_tokens
        return lambda texts: embedder.embed(texts, **options).numpy()
    model, size = peer(args), int(args.side.removeprefix("st-"))
    return lambda texts: model.encode(texts, batch_size=size, show_progress_bar=False)


def ours(args, cfg):
    """(model, losses): losses(rows) yields the parts of a step's loss one by one, as train.py computes
    them."""
    embedder = open_embedder(args, dtype=torch.float32, normalise=True)
    embedder.cut(cfg.max_tokens)
    learner = Learner(embedder.model, None, cfg, embedder)
    objective = OBJECTIVES["contrastive"]

    def losses(rows):
        items = [[Contrast(query, positive, negatives, None)] for query, positive, *negatives in rows]
        step = step_of(objective, learner, items)
        batches = lambda rows: batches_of(rows, learner)
        objective.before(learner, step, batches, lambda tensor: None)
        for batch in batches(step.rows):
            yield objective.loss(learner, batch, step)[0] / step.weight

    return embedder.model, losses


def theirs(args, cfg):
    """The same for sentence-transformers."""
    from sentence_transformers.base.losses.merged_forward import column_merging_disabled
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = peer(args)
    loss = MultipleNegativesRankingLoss(model, scale=1 / cfg.tau)

    def losses(rows):
        columns = [model.preprocess(list(column)) for column in zip(*rows)]
        if args.side == "merged":
            yield loss(columns, None)
        else:
            with column_merging_disabled():
                yield loss(columns, None)

    return model, losses


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def side(args):
    """Run one side in this process and print its numbers as JSON."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    found = []
    if args.what == "encode":
        texts, encode = texts_of(args), encoder(args)
        loaded = resident()
        encode(texts[:32])
        clock, used = time.perf_counter(), time.process_time()
        vectors = encode(texts)
        seconds, cpu = time.perf_counter() - clock, time.process_time() - used
        np.save(args.keep, vectors)
    else:
        cfg = parse(Train, ["--model", args.model, "--lr", "2e-5", "--micro-tokens", str(args.micro_tokens)])
        train.set_sizes(cfg, torch.device("cpu"), OBJECTIVES["contrastive"])
        steps = steps_of(args)
        model, losses = (ours if args.side == "ours" else theirs)(args, cfg)
        loaded = resident()
        trained = list(model.train().parameters())
        ((optimizer, _),) = optimizers_of(model, cfg)
        for number, rows in enumerate(steps):
            if number == 1:
                clock, used = time.perf_counter(), time.process_time()
            found.append(0.0)
            for loss in losses(rows):
                loss.backward()
                found[-1] += loss.item()
            torch.nn.utils.clip_grad_norm_(trained, cfg.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds, cpu = time.perf_counter() - clock, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"losses": found} | dict(zip(MEASURED, [seconds, cpu, peak, peak - loaded]))))


# ------------------------------------------------------------------------------------------------ report
def matmul_speed(threads):
    """FLOP/s of a float32 product with the shape of MiniLM's MLP, the best of 50."""
    torch.set_num_threads(threads)
    a, b, best = torch.randn(1024, 384), torch.randn(384, 1536), float("inf")
    for _ in range(50):
        clock = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - clock)
    return 2 * 1024 * 384 * 1536 / best


def work(config, lengths):
    """FLOPs of a forward pass over texts of these lengths."""
    D, kv, gated = config.dim, config.kv_heads * config.head_dim, 1 + config.gated
    weights = 2 * D * D + 2 * D * kv + (1 + gated) * D * config.mlp_dim
    return config.layers * sum(2 * weights * T + 4 * T * T * D for T in lengths)


def run(args, name, folder):
    """Run one side in a process of its own; return its numbers, and its vectors if it encodes."""
    keep = Path(folder) / f"{name}.npy"
    call = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--keep", str(keep)]
    env = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}  # threads of the tokenizer
    out = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
    return json.loads(out.splitlines()[-1]) | {"vectors": np.load(keep) if keep.exists() else None}


def compare(args):
    """Run all rounds and return the lines of the table."""
    embedder = open_embedder(args)
    encodes = args.what == "encode"
    steps = [] if encodes else steps_of(args)[1:]
    texts = texts_of(args) if encodes else [text for rows in steps for row in rows for text in row]
    lengths = [len(ids) for ids, _ in embedder.tokens(texts)]
    sides = args.sides.split(",") if args.sides else SIDES[args.what]
    found, apart, matmul = {name: [] for name in sides}, dict.fromkeys(sides, 0.0), matmul_speed(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for name in found if turn % 2 == 0 else reversed(found):
                found[name].append(run(args, name, folder))
                shown = {key: round(found[name][-1][key], 3) for key in MEASURED}
                print(f"round {turn + 1} {name}: {shown}", file=sys.stderr, flush=True)
            matmul = max(matmul, matmul_speed(args.threads))
            what = "vectors" if encodes else "losses"
            for name, runs in found.items():
                gap = np.abs(np.array(runs[-1][what]) - np.array(found["ours"][-1][what])).max()
                apart[name] = max(apart[name], float(gap))
                assert gap < (1e-5 if encodes else 1e-4), f"{what} of {name} differ by {gap}"
    flops = work(embedder.model.config, lengths) * (1 if encodes else 3)
    kind = "encode" if encodes else f"{args.steps} steps of {args.batch} queries"
    kind += f" with {args.negatives} negatives each" if args.what == "negatives" else ""
    return table(kind, args, lengths, matmul, flops, found, apart)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a local sentence-transformers folder")
    parser.add_argument("--what", default="encode", choices=list(SIDES))
    parser.add_argument("--texts", default="", help="JSON lines with question and answer")
    parser.add_argument("--sides", default="", help="sides to compare, including ours; empty: all")
    parser.add_argument("--n", type=int, default=2000, help="texts to encode")
    parser.add_argument("--batch", type=int, default=32, help="queries a step")
    parser.add_argument("--negatives", type=int, default=7, help="hard negatives of a query")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--batch-tokens", type=int, default=0, help="batch size of our side, as in Embedder.embed"
    )
    parser.add_argument(
        "--micro-tokens",
        type=int,
        default=Train.micro_tokens,
        help="micro-batch size of our side, as in train.py",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="", help="also write the table to this file")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    parser.add_argument("--keep", default="", help=argparse.SUPPRESS)
    carry_out(parser.parse_args(), side, compare)


if __name__ == "__main__":
    main()
