"""GRPO, compared with TRL's GRPOTrainer: python bench/grpo.py --model DIR --data gsm8k.jsonl

Both sides take the same steps on the same float32 model and train all its weights. A step has --prompts
questions, --group replies to each, sampled at temperature 1 with at most --max-new tokens, a reward that
needs no answer (the share of the letter e), advantages divided by the group's standard deviation, token-mean
loss, no reference model, and one update of AdamW. TRL generates with transformers and trains in batches of
--micro replies with accumulated gradients; ours is the loop of train.py. The sides sample different replies,
so the table shows their tokens too.

A round runs each side once in a process of its own: one warm-up step, then --steps. The table has medians
over the rounds. Speed is the side's time for a step divided by ours. Peak is the largest resident size of the
process."""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

SIDES = ["ours", "trl"]
INSTRUCTION = "Answer in a few words: "


def reward_of(text):
    return text.count("e") / max(1, len(text))


def questions(args):
    lines = Path(args.data).read_text(encoding="utf-8").splitlines()
    return [INSTRUCTION + json.loads(line)["question"] for line in lines[: args.prompts * (args.steps + 1)]]


def ours(args):
    """(seconds, sampled tokens) of each step after the first."""
    import train
    from games import GAMES
    from games.task import Episode, Rollouts, Task

    class Letters(Rollouts, Task):
        def examples(self, split):
            return [{"question": text} for text in questions(args)] if split == "train" else []

        def rollout(self, examples, player):
            asked = [[{"role": "user", "content": example["question"]}] for example in examples]
            replies = [reply for reply, *_ in player.reply(asked)]
            return [Episode(e, [], [r], reward_of(r.text)) for e, r in zip(examples, replies)]

        def evaluate(self, examples, players):
            return {"n": 0, "metrics": {"none": 0.0}, "intervals": {}, "baselines": {}, "records": []}

    GAMES["letters"] = Letters
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--task letters --loss grpo --model {args.model} --runs {folder} --name bench --lr 1e-6"
        flags += f" --steps {args.steps + 1} --batch {args.prompts} --group {args.group} --warmup 0"
        flags += f" --max-new {args.max_new} --no-mask-truncated --schedule constant --beta2 0.999"
        flags += (
            f" --max-tokens 1024 --threads {args.threads} --dtype float32 --device cpu --seed {args.seed}"
        )
        assert train.main(flags.split()) == 0
        rows = (Path(folder) / "bench/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(row) for row in rows][1:]
    return [(row["tokens"] / row["tok/s"], row["length"] * args.prompts * args.group) for row in rows]


def trl(args):
    """The same for TRL."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(args.threads)
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in questions(args)]
    whole, steps, lengths = args.prompts * args.group, [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            steps.append(time.perf_counter() - self.began)

    def reward(completions, completion_ids, **_):
        lengths.extend(len(ids) for ids in completion_ids)
        return [reward_of(completion[0]["content"]) for completion in completions]

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=args.micro,
            gradient_accumulation_steps=whole // args.micro,
            num_generations=args.group,
            max_completion_length=args.max_new,
            max_steps=args.steps + 1,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            temperature=1.0,
            beta=0.0,
            save_strategy="no",
            report_to="none",
            seed=args.seed,
        )
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
        trainer = GRPOTrainer(
            model=model,
            args=config,
            reward_funcs=reward,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(args.model),
            callbacks=[Clock()],
        )
        trainer.train()
    tokens = [sum(lengths[i : i + whole]) for i in range(0, len(lengths), whole)]
    return list(zip(steps, tokens))[1:]


def side(args):
    steps = {"ours": ours, "trl": trl}[args.side](args)
    seconds, tokens = (statistics.mean(step[i] for step in steps) for i in (0, 1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "tokens": tokens, "peak": peak}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a local folder of a chat model")
    parser.add_argument("--data", required=True, help="JSON lines, each with a question")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-new", type=int, default=64)
    parser.add_argument("--micro", type=int, default=8, help="replies in a training batch of TRL")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", default="", choices=["", *SIDES], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return side(args)
    found = {name: [] for name in args.sides.split(",")}
    for turn in range(args.rounds):
        for name in found if turn % 2 == 0 else reversed(found):
            call = [sys.executable, __file__, *sys.argv[1:], "--side", name]
            out = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name].append(json.loads(out.splitlines()[-1]))
            print(f"round {turn + 1} {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    print(
        f"{args.prompts} prompts of {args.group} replies, {args.max_new} tokens at most, {args.steps} steps"
    )
    print("| | steps an hour | replies/s | sampled tokens a step | speed | peak MiB |")
    print("|---" * 6 + "|")
    for name, rounds in found.items():
        seconds, tokens, peak = (
            statistics.median(one[key] for one in rounds) for key in ("seconds", "tokens", "peak")
        )
        speed = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(found["ours"], rounds))
        rate = args.prompts * args.group / seconds
        print(
            f"| {name} | {3600 / seconds:.1f} | {rate:.2f} | {tokens:,.0f} | {1 / speed:.2f} | {peak:,.0f} |"
        )


if __name__ == "__main__":
    main()
