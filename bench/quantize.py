"""What --quantize costs in training: python bench/quantize.py --model DIR --data gsm8k_train.jsonl

Curves: LoRA of rank 16 on the same answers in the same order, with the base in float32, in bfloat16, and in
int8 and nf4 (which compute in bfloat16). Each side runs in a process of its own. The table has the loss per
learned token, as means of the steps of each quarter of the run, and on answers that were held out: before
training, after it, and after it with the adapter on the base's own weights, as infer.py and merge use it. A
step's time is the median over all steps.

Memory, with --shape: a model of that shape with random weights is written once in bfloat16 and opened by each
side, which takes two steps of LoRA on --tokens tokens with --checkpointing. Frozen is the size of the frozen
weights; load is the highest resident size of the process while it opens the file, beyond what it had before;
step is that of the steps. Pages of the file that stay mapped count."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from shapes import SFT, SHAPES, Trainer, frozen_bytes, random_model
from tables import step_of

import checkpoint
import lora
import model as models
from games.task import Chat
from optim import optimizers_of
from recipes import Train, parse
from steps import Learner, batches_of

SIDES = {  # name -> dtype, --quantize
    "float32": (torch.float32, ""),
    "bfloat16": (torch.bfloat16, ""),
    "int8": (torch.bfloat16, "int8"),
    "nf4": (torch.bfloat16, "nf4"),
}
MIB = 2**20


# ------------------------------------------------------------------------------------------------ curves
def chats_of(args, tokenizer):
    """Chats of the data with at most --tokens tokens, as many as are needed."""
    wanted = args.steps * args.batch + args.held
    chats = []
    for line in Path(args.data).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        chat = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        if len(tokenizer.render(chat)[0]) <= args.tokens:
            chats.append(chat)
        if len(chats) == wanted:
            return chats
    raise ValueError(f"{args.data}: only {len(chats)} answers of at most {args.tokens} tokens")


def loss_of(learner, step, compute):
    """The mean loss of a step's learned tokens."""
    with torch.no_grad(), torch.autocast("cpu", compute, enabled=compute != torch.float32):
        total = sum(float(SFT.loss(learner, batch, step)[0]) for batch in batches_of(step.rows, learner))
    return total / step.weight


def curve(args):
    """Train one side and print its numbers as JSON."""
    dtype, quantize = SIDES[args.side]
    point = checkpoint.open(args.model, dtype=dtype, quantize=quantize)
    model = lora.add_lora(point.model, 16)
    flags = ["--model", args.model, "--micro-tokens", "512", "--row-tokens", "1", "--lr", "5e-4"]
    cfg = parse(Train, flags)
    learner = Learner(model, point.tokenizer, cfg)
    chats = [[Chat(chat)] for chat in chats_of(args, point.tokenizer)]
    held = step_of(SFT, learner, chats[: args.held])
    before = loss_of(learner, held, dtype)
    ((optimizer, _),) = optimizers_of(model.train(), cfg)
    losses = []
    seconds = []
    for begin in range(args.held, len(chats), args.batch):
        clock = time.perf_counter()
        step = step_of(SFT, learner, chats[begin : begin + args.batch])
        total = 0.0
        for batch in batches_of(step.rows, learner):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = SFT.loss(learner, batch, step)[0] / step.weight
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_([w for w in model.parameters() if w.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
        seconds.append(time.perf_counter() - clock)
    after = loss_of(learner, held, dtype)
    with tempfile.TemporaryDirectory() as folder:
        lora.save_lora(model, folder, args.model)
        learner.model = lora.load_lora(models.load(args.model, torch.float32), folder)
        own = loss_of(learner, held, torch.float32)
    tokens = sum(len(row.ids) for row in held.rows) / len(held.rows)
    print(
        json.dumps(dict(losses=losses, seconds=seconds, before=before, after=after, own=own, tokens=tokens))
    )


def curves(args):
    """The table of all sides, as lines."""
    sides = {name: started(args, name) for name in args.sides.split(",")}
    base = statistics.median(sides["bfloat16"]["seconds"]) if "bfloat16" in sides else None
    lines = [
        f"LoRA of rank 16, {args.steps} steps of {args.batch} answers of at most {args.tokens} tokens; "
        f"{args.held} answers held out",
        "",
        "| base | steps, by quarters | held out, before | after | after, on the base's own weights | time |",
        "|---" * 6 + "|",
    ]
    for name, found in sides.items():
        losses = found["losses"]
        quarter = max(1, len(losses) // 4)
        means = [statistics.mean(losses[i : i + quarter]) for i in range(0, 4 * quarter, quarter)]
        cells = [name, " ".join(f"{mean:.3f}" for mean in means)]
        cells += [f"{found[key]:.4f}" for key in ("before", "after", "own")]
        cells += [f"{statistics.median(found['seconds']) / base:.2f}" if base else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


# ------------------------------------------------------------------------------------------------ memory
def resident(reset=False):
    """The highest resident size of this process since the last reset, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return peak


def memory(args):
    """Open the model and train two steps, and print the sizes as JSON."""
    dtype, quantize = SIDES[args.side]
    resident(reset=True)
    before = resident()
    clock = time.perf_counter()
    model = models.load(args.model, dtype, quantize=quantize)
    loaded = resident() - before
    opening = time.perf_counter() - clock
    trainer = Trainer(model, "cpu", dtype, row_tokens=args.tokens, rows=1)
    resident(reset=True)
    seconds = []
    for _ in range(2):
        clock = time.perf_counter()
        trainer.step()
        seconds.append(time.perf_counter() - clock)
    largest = max(weight.nbytes for weight in model.parameters())
    found = dict(frozen=frozen_bytes(model), load=loaded, step=resident() - before, largest=largest)
    print(json.dumps(found | dict(seconds=seconds[1], opening=opening)))


def sizes(args):
    """The table of all sides, as lines."""
    folder = Path(args.model or tempfile.mkdtemp())
    if not (folder / "config.json").exists():
        models.save(random_model(args.shape, torch.bfloat16), folder)
    args.model = str(folder)
    sides = {name: started(args, name) for name in args.sides.split(",")}
    base = sides.get("bfloat16")
    lines = [
        f"Shape {args.shape} {SHAPES[args.shape]}, random weights; a step of LoRA of rank 16 on "
        f"{args.tokens} tokens, --checkpointing, {args.threads} threads",
        "",
        "| base | frozen MiB | of bfloat16's | load MiB | less frozen | largest matrix | step MiB | time |",
        "|---" * 8 + "|",
    ]
    for name, found in sides.items():
        cells = [name, f"{found['frozen'] / MIB:,.0f}"]
        cells += [f"{found['frozen'] / base['frozen']:.3f}" if base else "-"]
        cells += [f"{found['load'] / MIB:,.0f}", f"{(found['load'] - found['frozen']) / MIB:,.0f}"]
        cells += [f"{found['largest'] / MIB:,.0f}", f"{found['step'] / MIB:,.0f}"]
        cells += [f"{found['seconds'] / base['seconds']:.2f}" if base else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def started(args, name):
    """The numbers of one side, from a process of its own."""
    call = [sys.executable, __file__, *sys.argv[1:], "--model", args.model, "--side", name]
    out = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", default="", help="a local folder of a chat model; with --shape, where to write"
    )
    parser.add_argument("--data", default="", help="JSON lines with question and answer")
    parser.add_argument("--shape", default="", choices=["", *SHAPES], help="measure memory on this shape")
    parser.add_argument("--sides", default=",".join(SIDES), help="sides to compare")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=2, help="answers in a step")
    parser.add_argument("--held", type=int, default=48, help="answers held out")
    parser.add_argument("--tokens", type=int, default=160, help="longest answer, or length of the step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="", help="also write the table to this file")
    parser.add_argument("--side", default="", choices=["", *SIDES], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.side:
        return memory(args) if args.shape else curve(args)
    lines = sizes(args) if args.shape else curves(args)
    print("\n".join(lines))
    if args.out:
        Path(args.out).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
