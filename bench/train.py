"""Speed and memory of training, compared with transformers and peft: python bench/train.py --model DIR

Every side trains the same float32 model on the same chats, step by step, with the same optimizer:
  ours     train.py's step: small batches of chats of similar length, the head only for learned tokens
  padded   transformers + peft: a step's chats padded to the longest, -100 for tokens that are not learned
  packed   the same in one row (DataCollatorWithFlattening), where restarting positions separate the chats
  single   the same one chat at a time with accumulated gradients: no padding, no packing

A round runs each side once, in a process of its own: a forward pass without gradients, whose loss must be the
same on all sides, then --steps steps. Chats are made by seed; --data reads JSON lines with question and
answer instead. Token counts do not include padding.

The table has medians over the rounds. Speed and CPU are the side's wall and processor time divided by ours.
Memory and growth are ours as a share of the side's. Peak is the largest resident size of the process, growth
is the peak minus the size after loading.

% of matmul is the share of the speed at which this machine computes the float32 product (tokens, 576) x (576,
1536). It counts the same FLOPs for every side: for each token 6 N for trained blocks, 4 N for frozen ones and
6 N for an adapter; for each learned token as much for the head; for a chat of T tokens 6 T T (layers) (heads
x head width) for causal attention."""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tables import carry_out, step_of  # noqa: E402

import data  # noqa: E402
import lora  # noqa: E402
import model as models  # noqa: E402
import train  # noqa: E402
from families import config_from_hf  # noqa: E402
from files import read_json  # noqa: E402
from games.task import Chat  # noqa: E402
from objectives import OBJECTIVES  # noqa: E402
from optim import optimizers_of  # noqa: E402
from recipes import Train, parse  # noqa: E402
from steps import Learner, batches_of  # noqa: E402

MEASURED = ["seconds", "cpu", "peak", "growth"]
SIDES = ["ours", "padded", "packed", "single"]
WORDS = "the of and to in is you that it he was for on are with as his they be at one have this from".split()
MIB = 2**20


# ------------------------------------------------------------------------------------------------ chats
def made_chats(n, seed):
    """Conversations of one to three exchanges, log-normal in length: 40 to 900 tokens, median 150."""
    rng, chats = np.random.default_rng(seed), []
    for _ in range(n):
        length = int(np.clip(rng.lognormal(np.log(120), 0.9), 5, 850))  # the chat format adds about 40
        turns = 2 * int(rng.integers(1, 4))
        counts = rng.multinomial(length, rng.dirichlet([4.0] * turns))
        texts = [" ".join(rng.choice(WORDS, max(1, count))) for count in counts]
        roles = ["user", "assistant"] * (turns // 2)
        chats.append([{"role": role, "content": text} for role, text in zip(roles, texts)])
    return chats


def read_chats(path, n, seed):
    """n question and answer pairs from a JSON-lines file, chosen by seed."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(lines[i]) for i in np.random.default_rng(seed).permutation(len(lines))[:n]]
    keys = {"user": "question", "assistant": "answer"}
    return [[{"role": role, "content": row[key]} for role, key in keys.items()] for row in rows]


def steps_of(args):
    """The chats of every step: a list of lists."""
    n = args.steps * args.batch
    chats = read_chats(args.data, n, args.seed) if args.data else made_chats(n, args.seed)
    return [chats[start : start + args.batch] for start in range(0, n, args.batch)]


# ------------------------------------------------------------------------------------------------ sides
def ours(args, cfg, tokenizer):
    """(model, losses): losses(chats) yields the parts of a step's loss one by one."""
    model = models.load(args.model, torch.float32)
    if args.rank:
        lora.add_lora(model, args.rank)
    objective, learner = OBJECTIVES["sft"], Learner(model, tokenizer, cfg)

    def losses(chats):
        step = step_of(objective, learner, [[Chat(chat)] for chat in chats])
        for batch in batches_of(step.rows, learner):
            yield objective.loss(learner, batch, step)[0] / step.weight

    return model, losses


def theirs(args, cfg, tokenizer):
    """The same for transformers and peft."""
    import warnings

    import transformers
    from peft import LoraConfig, get_peft_model

    warnings.simplefilter("ignore", FutureWarning)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    if args.rank:
        targets = lora.TARGETS.split(",")
        settings = LoraConfig(
            r=args.rank, lora_alpha=2 * args.rank, target_modules=targets, task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, settings)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    padded = transformers.DataCollatorForSeq2Seq(their_tokenizer)
    flat = transformers.DataCollatorWithFlattening()

    def losses(chats):
        texts = []
        for chat in chats:
            ids, mask = tokenizer.render(chat)
            assert ids == their_tokenizer.apply_chat_template(chat)["input_ids"], "other ids"
            texts.append(
                {"input_ids": ids, "labels": [i if learned else -100 for i, learned in zip(ids, mask)]}
            )
        learned = sum(label != -100 for text in texts for label in text["labels"])
        for group in [[text] for text in texts] if args.side == "single" else [texts]:
            batch = (flat if args.side == "packed" else padded)(group)
            yield model(**batch, use_cache=False, num_items_in_batch=torch.tensor(learned)).loss

    return model, losses


def side(args):
    """Train one side in this process and print its numbers as JSON."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    cfg = parse(Train, ["--model", args.model, "--micro-tokens", str(args.micro_tokens)])
    train.set_sizes(cfg, torch.device("cpu"), OBJECTIVES["sft"])
    tokenizer, steps = data.load_tokenizer(args.model), steps_of(args)
    model, losses = (ours if args.side == "ours" else theirs)(args, cfg, tokenizer)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    loaded = pages * resource.getpagesize() / MIB
    with torch.no_grad():
        first = sum(float(loss) for loss in losses(steps[0]))
    trained = [weight for weight in model.train().parameters() if weight.requires_grad]
    ((optimizer, _),) = optimizers_of(model, cfg)
    clock, used = time.perf_counter(), time.process_time()
    for chats in steps:
        for loss in losses(chats):
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, cfg.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds, cpu = time.perf_counter() - clock, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    numbers = [seconds, cpu, peak, peak - loaded]
    print(json.dumps({"first": first} | dict(zip(MEASURED, numbers))))


# ------------------------------------------------------------------------------------------------ report
def matmul_speed(tokens, threads):
    """FLOP/s of a float32 product with the shape of SmolLM2-135M's MLP, the best of 20."""
    torch.set_num_threads(threads)
    a, b, best = torch.randn(tokens, 576), torch.randn(576, 1536), float("inf")
    for _ in range(20):
        clock = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - clock)
    return 2 * tokens * 576 * 1536 / best


def work(args, lengths, learned):
    """FLOPs of all steps, as the top of this file counts them."""
    config = config_from_hf(read_json(Path(args.model) / "config.json"))
    D, kv = config.dim, config.kv_heads * config.head_dim
    width = config.heads * config.head_dim
    shapes = [(D, width), (D, kv), (D, kv), (width, D), *[(D, config.mlp_dim)] * 3]
    blocks = config.layers * sum(a * b for a, b in shapes)
    adapter = config.layers * args.rank * sum(a + b for a, b in shapes)
    each = 4 if args.rank else 6
    attention = sum(6 * T * T * config.layers * width for T in lengths)
    return sum(lengths) * (each * blocks + 6 * adapter) + learned * each * D * config.vocab + attention


def compare(args):
    """Run all rounds and return the lines of the table."""
    tokenizer = data.load_tokenizer(args.model)
    samples = [tokenizer.render(chat) for chats in steps_of(args) for chat in chats]
    lengths, learned = [len(ids) for ids, _ in samples], sum(sum(mask) for _, mask in samples)
    found = {name: [] for name in args.sides.split(",")}
    for turn in range(args.rounds):
        for name in found if turn % 2 == 0 else reversed(found):
            call = [sys.executable, __file__, *sys.argv[1:], "--side", name]
            out = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name].append(json.loads(out.splitlines()[-1]))
            print(f"round {turn + 1} {name}: {found[name][-1]}", file=sys.stderr, flush=True)
        losses = [runs[-1]["first"] for runs in found.values()]
        assert max(losses) - min(losses) <= 1e-4 * min(losses), f"the sides' losses differ: {losses}"
    speed, flops = matmul_speed(2048, args.threads), work(args, lengths, learned)
    what = f"LoRA of rank {args.rank}" if args.rank else "all weights"
    lines = [
        f"{what}; {args.steps} steps of {args.batch} chats, {sum(lengths):,} tokens ({min(lengths)} to "
        f"{max(lengths)}, median {statistics.median(lengths):g}), {learned:,} learned; {args.rounds} rounds, "
        f"{args.threads} threads; matmul {speed / 1e9:.0f} GFLOP/s; loss {losses[0]:.5f}",
        "",
        "| | tokens/s | learned/s | % of matmul | speed | CPU | peak MiB | memory | growth MiB | growth |",
        "|---" * 10 + "|",
    ]
    for name, runs in found.items():
        seconds, _, peak, growth = (statistics.median(run[key] for run in runs) for key in MEASURED)
        pairs = list(zip(found["ours"], runs))
        wall, cpu, less, grown = (statistics.median(a[key] / b[key] for a, b in pairs) for key in MEASURED)
        cells = [sum(lengths) / seconds, learned / seconds, 100 * flops / seconds / speed]
        cells = [name, *(f"{cell:.1f}" for cell in cells), f"{1 / wall:.2f}", f"{1 / cpu:.2f}"]
        cells += [f"{peak:,.0f}", f"{less:.2f}", f"{growth:,.0f}", f"{grown:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a local folder of a chat model")
    parser.add_argument("--data", default="", help="JSON lines with question and answer")
    parser.add_argument("--sides", default=",".join(SIDES), help="sides to compare, including ours")
    parser.add_argument(
        "--rank", type=int, default=16, help="rank of LoRA on all linear layers; 0 trains all weights"
    )
    parser.add_argument("--batch", type=int, default=8, help="chats a step; 8 is transformers' own default")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--micro-tokens",
        type=int,
        default=Train.micro_tokens,
        help="micro-batch size of our side, as in train.py",
    )
    parser.add_argument("--seed", type=int, default=4, help="4 has as much padding as most seeds")
    parser.add_argument("--out", default="", help="also write the table to this file")
    parser.add_argument("--side", default="", choices=["", *SIDES], help=argparse.SUPPRESS)
    carry_out(parser.parse_args(), side, compare)


if __name__ == "__main__":
    main()
