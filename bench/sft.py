"""An adapter on a user's rows, compared with TRL's SFTTrainer: python bench/sft.py --model DIR --data FILE

Rows with question and answer become prompts and completions; the last --held of those chosen by seed are held
out. Two sides train on the others, once each, in a process of its own:
  ours   python train.py --task chat with LoRA on all linear layers
  trl    SFTTrainer with peft: from the same first adapter, on the same ids in the same order, where only
         completions are learned, one row at a time with accumulated gradients, its fastest way on a CPU

Both use AdamW at a constant rate in float32. The table has the loss of a learned token in the first step, on
average over the steps 41 to 50 and over the last ten, and that of the held-out completions afterwards; the
seconds of a step (medians, without the first); and the peak of the process. Then come greedy replies to
held-out prompts by the model without an adapter and with each."""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tables import peak  # noqa: E402

import checkpoint  # noqa: E402
import data  # noqa: E402
import lora  # noqa: E402
import model as models  # noqa: E402
import sampler  # noqa: E402
import train  # noqa: E402
from files import write_json  # noqa: E402

SIDES = ["ours", "trl"]
RATE = 2e-4
NEW = 100  # tokens of a reply that is shown


# ------------------------------------------------------------------------------------------------ rows
def rows_of(args):
    """(rows to learn, rows held out) of prompt and completion."""
    lines = Path(args.data).read_text(encoding="utf-8").splitlines()
    chosen = np.random.default_rng(args.seed).permutation(len(lines))[: args.rows + args.held]
    rows = []
    for i in chosen:
        row = json.loads(lines[i])
        rows.append({"prompt": row["question"], "completion": row["answer"]})
    return rows[: args.rows], rows[args.rows :]


def render(tokenizer, row):
    """ids and mask of a row; the mask is 1 where a token is learned."""
    return tokenizer.render_reply([{"role": "user", "content": row["prompt"]}], row["completion"])


@torch.no_grad()
def loss_on(point, rows):
    """The mean loss of a learned token."""
    total = 0.0
    learned = 0
    for row in rows:
        ids, mask = render(point.tokenizer, row)
        hidden = point.model(torch.tensor([ids]))[0, :-1]  # (T - 1, D)
        chosen = torch.tensor(mask[1:]).bool()
        scores = point.model.logits(hidden[chosen])
        total += float(F.cross_entropy(scores, torch.tensor(ids[1:])[chosen], reduction="sum"))
        learned += int(chosen.sum())
    return total / learned


# ------------------------------------------------------------------------------------------------ sides
def ours(args, folder):
    """The folder of the adapter, and {"losses", "seconds"} of each step."""
    learned, held = rows_of(args)
    for name, rows in (("rows", learned), ("held", held[:20])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    flags = f"--task chat --model {args.model} --data {folder}/rows.jsonl --test-data {folder}/held.jsonl"
    flags += f" --runs {folder} --name run --lora-rank {args.rank} --batch {args.batch} --steps {args.steps}"
    flags += f" --lr {RATE} --schedule constant --warmup 0 --beta2 0.999 --weight-decay 0 --clip 1"
    flags += f" --dtype float32 --device cpu --threads {args.threads} --seed {args.seed} --max-tokens 2048"
    flags += " --eval-few 1 --eval-n 1 --max-new 8"
    assert train.main(flags.split()) == 0
    losses = []
    seconds = []
    for line in (folder / "run/metrics.jsonl").read_text().splitlines():
        step = json.loads(line)
        losses.append(step["loss"])
        seconds.append(step["tokens"] / step["tok/s"])
    return folder / "run", {"losses": losses, "seconds": seconds}


def trl(args, folder):
    """The same for TRL."""
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(args.threads)
    learned, _ = rows_of(args)
    tokenizer = data.load_tokenizer(args.model)
    examples = []
    for step in range(args.steps):
        for i, _ in data.indices(args.seed, step, args.batch, len(learned)):
            ids, mask = render(tokenizer, learned[i])
            examples.append({"input_ids": ids, "completion_mask": mask})
    first = lora.add_lora(models.load(args.model, torch.float32), args.rank, seed=args.seed)
    lora.save_lora(first, folder / "first", args.model)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder / "first", is_trainable=True)
    seconds = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            seconds.append(time.perf_counter() - self.began)

    config = SFTConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=args.batch,
        max_steps=args.steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.999,
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
        completion_only_loss=True,
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(examples),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        callbacks=[Clock()],
    )
    trainer.train()
    model.save_pretrained(folder / "adapter")
    losses = [float(log["loss"]) for log in trainer.state.log_history if "loss" in log]
    return folder / "adapter", {"losses": losses, "seconds": seconds}


def side(args):
    """Train one side in this process; its numbers go to its folder."""
    folder = Path(args.folder)
    adapter, found = {"ours": ours, "trl": trl}[args.side](args, folder)
    found["peak"] = peak()
    point = checkpoint.open(adapter, "own", dtype=torch.float32)
    found["held"] = loss_on(point, rows_of(args)[1])
    found["replies"] = replies(point, args)
    write_json(folder / "found.json", found)


def replies(point, args):
    """Greedy replies to the first held-out prompts."""
    prompts = []
    for row in rows_of(args)[1][: args.show]:
        prompts.append(point.tokenizer.prompt([{"role": "user", "content": row["prompt"]}]))
    grown = sampler.generate(point.model, prompts, NEW, point.tokenizer.stop_ids, temperature=0)
    return [point.tokenizer.decode(reply.ids) for reply in grown]


# ------------------------------------------------------------------------------------------------ report
def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a local folder of a chat model")
    parser.add_argument("--data", required=True, help="JSON lines with question and answer")
    parser.add_argument("--rows", type=int, default=1000, help="rows to learn")
    parser.add_argument("--held", type=int, default=200, help="rows held out")
    parser.add_argument("--steps", type=int, default=125)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--show", type=int, default=3, help="held-out prompts with replies")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--together", action="store_true", help="both sides at once, one core each")
    parser.add_argument("--side", default="", choices=["", *SIDES], help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps < 50:
        parser.error("--steps: at least 50, for the table's columns")
    if args.side:
        return side(args)

    with tempfile.TemporaryDirectory() as folder:
        found = {}
        running = []
        for name in SIDES:
            place = Path(folder) / name
            place.mkdir()
            call = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--folder", str(place)]
            running.append(subprocess.Popen(call, stdout=sys.stderr))
            if not args.together:
                running[-1].wait()
        for name, process in zip(SIDES, running):
            assert process.wait() == 0, name
            found[name] = json.loads((Path(folder) / name / "found.json").read_text())
    point = checkpoint.open(args.model, "own", dtype=torch.float32)
    _, held = rows_of(args)
    before = loss_on(point, held)
    print(
        f"{args.rows:,} rows, {args.steps} steps of {args.batch}; {args.held} held out, {before:.4f} before\n"
    )
    print("| | first step | steps 41 to 50 | last ten | held out | perplexity | s a step | peak MiB |")
    print("|---" * 8 + "|")
    for name, one in found.items():
        losses = one["losses"]
        cells = [losses[0], statistics.mean(losses[40:50]), statistics.mean(losses[-10:]), one["held"]]
        cells = [f"{cell:.5f}" for cell in cells]
        cells += [f"{math.exp(one['held']):.3f} (before {math.exp(before):.3f})"]
        cells += [f"{statistics.median(one['seconds'][1:]):.2f}", f"{one['peak']:,.0f}"]
        print("| " + " | ".join([name, *cells]) + " |")
    for i, reply in enumerate(replies(point, args)):
        print(f"\n{held[i]['prompt']}\n\nbefore: {reply}")
        for name, one in found.items():
            print(f"\n{name}: {one['replies'][i]}")


if __name__ == "__main__":
    main()
