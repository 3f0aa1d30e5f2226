"""Classify long texts, compared with transformers: python bench/classify.py --what infer

Every side scores the same texts of mixed length, or learns from them, with the same float32 ModernBERT of
base size and three classes; its weights are random and made once by seed:
  infer   scores of --n texts: agents.Classifier
  train   a step of AdamW on --n texts: train.py's classify step
ModernBertForSequenceClassification runs with sdpa, dynamic padding and the batch size in the side's name. Its
texts are sorted by length (sorted: what its Trainer's group_by_length does to these texts, and the best
choice for inference) or in given order (plain: Trainer's default). In training the gradients of batches are
summed.

A round runs each side once, in a process of its own, after a warm-up on two short texts. Logits may differ by
1e-4, loss and gradient norm by a relative 1e-3. Token ids are random, and so is the order of the lengths. The
lengths are quantiles of a log-normal distribution, so a few texts are as skewed as many; but with fewer than
64 texts even sorted batches of 8 have more padding than those of a data set.

The table has medians over the rounds. Speed and CPU are the side's wall and processor time divided by ours.
Memory is ours as a share of the side's peak: the largest resident size of the process, or on a GPU torch's
allocations. Growth is that peak minus the size after loading. % of matmul is the share of the speed at which
this machine computes the float32 product (512, 768) x (768, 2304). It counts the same FLOPs for every side:
those of the tokens without padding, in sliding layers of the keys they see, and three times that in
training."""

import argparse
import json
import resource
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
from tables import MEASURED, carry_out, step_of, table  # noqa: E402

import model  # noqa: E402
import train  # noqa: E402
from agents import Classifier  # noqa: E402
from families import config_from_hf  # noqa: E402
from files import read_json  # noqa: E402
from games.task import Label  # noqa: E402
from objectives import OBJECTIVES  # noqa: E402
from optim import optimizers_of  # noqa: E402
from recipes import Train, parse  # noqa: E402
from steps import Learner, Place, batches_of  # noqa: E402

SIDES = {"infer": ["ours", "sorted-8", "plain-8"], "train": ["ours", "sorted-8", "plain-8"]}
SHORTEST, LONGEST = 64, 2048
PAD, LABELS = 50283, 3
MIB = 2**20


# ------------------------------------------------------------------------------------------------ texts
def texts_of(args):
    """(ids of each text, class of each text): lists."""
    rng = np.random.default_rng(args.seed)
    normal = statistics.NormalDist(np.log(args.median), args.deviation)
    lengths = [int(np.exp(normal.inv_cdf((i + 0.5) / args.n))) for i in range(args.n)]
    lengths = rng.permutation(np.clip(lengths, SHORTEST, LONGEST))
    return [rng.integers(0, 50000, n).tolist() for n in lengths], rng.integers(0, LABELS, args.n).tolist()


def make(args, folder):
    """Write the model that all sides load."""
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    torch.manual_seed(args.seed)
    config = ModernBertConfig(
        num_hidden_layers=args.layers, num_labels=LABELS, classifier_pooling="mean", pad_token_id=PAD
    )
    ModernBertForSequenceClassification(config).save_pretrained(folder)


# ------------------------------------------------------------------------------------------------ sides
def settings(args):
    flags = {"--optimizer": "adamw", "--lr": "2e-5", "--max-tokens": str(LONGEST)}
    flags["--micro-tokens"] = str(args.micro_tokens)
    return parse(Train, [part for flag in flags.items() for part in flag])


class Ids:
    """Takes the place of our tokenizer: a conversation already is a list of ids."""

    def fitted(self, ids, max_tokens):
        assert len(ids) <= max_tokens
        return ids, False


class Ours:
    def __init__(self, args):
        self.cfg, self.batches, device = settings(args), {}, torch.device(args.device)
        if args.batch_tokens:
            self.batches["batch_tokens"] = args.batch_tokens
        self.objective = OBJECTIVES["classify"]
        train.set_sizes(self.cfg, device, self.objective)
        self.model = model.load(args.folder, torch.float32, device)
        self.learner = Learner(self.model, Ids(), self.cfg)

    def logits(self, ids):
        """The logits of each text, (N, 3)."""
        return Classifier(self.model, Ids(), LONGEST, **self.batches).scores(ids)

    def losses(self, ids, labels):
        """Yield the parts of a step's loss one by one, as train.py computes them."""
        items = [[Label(*pair)] for pair in zip(ids, labels)]
        step = step_of(self.objective, self.learner, items)
        for batch in batches_of(step.rows, self.learner, Place()):
            yield self.objective.loss(self.learner, batch, step)[0] / step.weight


class Theirs:
    def __init__(self, args):
        from transformers import ModernBertForSequenceClassification

        order, size = args.side.split("-")
        self.sorted, self.size, self.cfg = order == "sorted", int(size), settings(args)
        self.model = ModernBertForSequenceClassification.from_pretrained(
            args.folder, dtype=torch.float32, attn_implementation="sdpa"
        ).to(args.device)

    def batches(self, ids):
        """Yield (indices of its texts, inputs of the model) for each batch."""
        order = list(range(len(ids)))
        if self.sorted:
            order.sort(key=lambda i: -len(ids[i]))
        for start in range(0, len(order), self.size):
            chosen = order[start : start + self.size]
            T = max(len(ids[i]) for i in chosen)
            padded = [ids[i] + [PAD] * (T - len(ids[i])) for i in chosen]
            mask = [[1] * len(ids[i]) + [0] * (T - len(ids[i])) for i in chosen]
            inputs = {"input_ids": padded, "attention_mask": mask}
            yield chosen, {k: torch.tensor(v, device=self.model.device) for k, v in inputs.items()}

    @torch.inference_mode()
    def logits(self, ids):
        found = torch.empty(len(ids), LABELS)
        for chosen, inputs in self.batches(ids):
            found[chosen] = self.model(**inputs).logits.cpu()
        return found

    def losses(self, ids, labels):
        labels = torch.tensor(labels, device=self.model.device)
        for chosen, inputs in self.batches(ids):
            yield F.cross_entropy(self.model(**inputs).logits, labels[chosen], reduction="sum") / len(ids)


def resident(device):
    if device == "cuda":
        return torch.cuda.memory_allocated() / MIB
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def peak(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    status = Path("/proc/self/status").read_text()  # ru_maxrss would include the parent, which made the model
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def clocks(device):
    if device == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def learn(which, optimizer, ids, labels):
    """Take one step; return its loss and gradient norm."""
    total = 0.0
    for loss in which.losses(ids, labels):
        loss.backward()
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(which.model.parameters(), which.cfg.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return [float(total), float(norm)]


def side(args):
    """Run one side in this process and print its numbers as JSON."""
    torch.set_num_threads(args.threads)
    ids, labels = texts_of(args)
    short = sorted(ids, key=len)[:2]
    which = (Ours if args.side == "ours" else Theirs)(args)
    loaded = resident(args.device)
    if args.what == "infer":
        which.model.eval()
        which.logits(short)
        start = clocks(args.device)
        found = which.logits(ids).tolist()
    else:
        which.model.train()
        ((optimizer, _),) = optimizers_of(which.model, which.cfg)
        learn(which, optimizer, short, labels[:2])
        start = clocks(args.device)
        found = learn(which, optimizer, ids, labels)
    seconds, cpu = (clocks(args.device) - start).tolist()
    most = peak(args.device)
    print(json.dumps({"found": found} | dict(zip(MEASURED, [seconds, cpu, most, most - loaded]))))


# ------------------------------------------------------------------------------------------------ report
def matmul_speed(args):
    """FLOP/s of a float32 product with the shape of the projections, the best of 50."""
    torch.set_num_threads(args.threads)
    a, b = torch.randn(512, 768, device=args.device), torch.randn(768, 2304, device=args.device)
    best = float("inf")
    for _ in range(50):
        start = clocks(args.device)[0]
        a @ b
        best = min(best, clocks(args.device)[0] - start)
    return 2 * 512 * 768 * 2304 / best


def work(config, lengths):
    """FLOPs of a forward pass over texts of these lengths."""
    D, reach = config.dim, config.reach
    weights = 4 * D * D + 3 * D * config.mlp_dim
    near = {T: sum(min(T, i + reach + 1) - max(0, i - reach) for i in range(T)) for T in set(lengths)}
    full, slides = sum(T * T for T in lengths), sum(near[T] for T in lengths)
    scores = sum(slides if sliding else full for sliding in config.sliding)
    return 2 * config.layers * weights * sum(lengths) + 4 * D * scores


def run(args, name, folder):
    """Run one side in a process of its own and return its numbers."""
    call = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--folder", folder]
    out = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.splitlines()[-1])


def compare(args):
    """Run all rounds and return the lines of the table."""
    lengths, trains = [len(text) for text in texts_of(args)[0]], args.what == "train"
    sides = args.sides.split(",") if args.sides else SIDES[args.what]
    found, apart, matmul = {name: [] for name in sides}, dict.fromkeys(sides, 0.0), matmul_speed(args)
    with tempfile.TemporaryDirectory() as folder:
        make(args, folder)
        config = config_from_hf(read_json(Path(folder, "config.json")), folder)
        for turn in range(args.rounds):
            for name in found if turn % 2 == 0 else reversed(found):
                found[name].append(run(args, name, folder))
                shown = {key: round(found[name][-1][key], 2) for key in MEASURED}
                print(f"round {turn + 1} {name}: {shown}", file=sys.stderr, flush=True)
            matmul = max(matmul, matmul_speed(args))
            ours = np.array(found["ours"][-1]["found"])
            for name, runs in found.items():
                gap = np.abs(np.array(runs[-1]["found"]) - ours) / (np.abs(ours) if trains else 1)
                apart[name] = max(apart[name], float(gap.max()))
                assert gap.max() < (1e-3 if trains else 1e-4), f"{name} differs by {gap.max()}"
    flops, ours = work(config, lengths) * (3 if trains else 1), found["ours"][0]["found"]
    what = f"scores of {np.min(ours):.2f} to {np.max(ours):.2f}"
    if trains:
        what = "a step (loss {:.5f}, gradient {:.4f})".format(*ours)
    return table(f"{args.layers} layers, {what}", args, lengths, matmul, flops, found, apart)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--what", default="infer", choices=list(SIDES))
    parser.add_argument("--sides", default="", help="sides to compare, including ours; empty: all")
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--n", type=int, default=64, help="texts")
    parser.add_argument("--median", type=float, default=350, help="median length of the texts in tokens")
    parser.add_argument(
        "--deviation", type=float, default=0.8, help="standard deviation of the logarithm of the length"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--batch-tokens", type=int, default=0, help="batch size of our side, as in agents.Classifier"
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
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    carry_out(parser.parse_args(), side, compare)


if __name__ == "__main__":
    main()
