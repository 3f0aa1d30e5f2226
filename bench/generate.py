"""Speed and memory of generation against transformers and llama.cpp: python bench/generate.py --model DIR

Cases, with prompts of random ids by seed and replies of a given length:
  stream    one prompt of 32 tokens, 128 new, greedy
  streams   16 of them, 64 new
  samples   64 samples at temperature 1 of one prompt of 512 tokens, 64 new
  ragged    256 prompts of 16 to 512 tokens, 8 to 128 new, greedy
  games     64 conversations of 20 turns in lock step from one opening of 100 tokens: each turn generates 4 to
            12 tokens, greedy, and the game then adds 8

Sides:
  ours         sampler.generate with a session and a fused model, as in infer.py
  generate     transformers' generate: prompts sorted by length, batches of 64, padded on the left; samples
               by num_return_sequences
  continuous   transformers' continuous batching, which shares prefixes
  cached       transformers' generate, one game after another, each with its own cache (games only)
  llama-KIND   llama.cpp through llama-cpp-python (llama_side.py); KIND is the format of the GGUF weights,
               f32, bf16, f16 or q8_0; keys and values are f16

A round runs each side once in a process of its own, after 4 tokens of warm-up. All but llama.cpp compute in
float32. Equal is the number of greedy replies that match ours in every token; near-ties may differ.

The table has medians over the rounds. Tokens/s counts new tokens by the wall clock. Speed is the side's time
divided by ours. Peak is the largest resident size of the process. The bound is the longer of two times
measured in the same round. The first is for reading the float32 weights once a step (of at most 64 rows), at
the speed of a sum over as many bytes. The second is for all matrix products, including those of the prompt
tokens that must be read, at the speed of a large product."""

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
import model as models  # noqa: E402
import sampler  # noqa: E402
from cache import Session  # noqa: E402
from families import config_from_hf  # noqa: E402
from files import read_json  # noqa: E402
from fused import fuse  # noqa: E402

CASES = ["stream", "streams", "samples", "ragged", "games"]
SIDES = ["ours", "generate", "continuous", "cached", "llama-f32", "llama-bf16", "llama-q8_0"]
BATCH = 64


# ------------------------------------------------------------------------------------------------ cases
def played(call, case, seed, scale=1.0):
    """Run a case with call(prompts, lengths, temperature) -> lists of new ids. Return all replies, and the
    number of prompt tokens that must be read, for the bound."""
    rng = np.random.default_rng(seed)

    def words(n):
        return rng.integers(300, 40000, size=n).tolist()

    if case == "games":
        games, turns = round(64 * scale), 20
        texts, replies, read = [words(100)] * games, [], 100
        for _ in range(turns):
            lengths = rng.integers(4, 13, size=games).tolist()
            replies += call(texts, lengths, 0.0)
            added = [words(8) for _ in texts]
            texts = [a + b + c for a, b, c in zip(texts, replies[-games:], added)]
        return replies, read + 8 * games * (turns - 1)
    if case == "samples":
        n = round(64 * scale)
        return call([words(512)] * n, [64] * n, 1.0), 512
    n = {"stream": 1, "streams": 16, "ragged": round(256 * scale)}[case]
    low, high, new = {"stream": (32, 32, (128, 128)), "streams": (32, 32, (64, 64))}.get(
        case, (16, 512, (8, 128))
    )
    prompts = [words(int(rng.integers(low, high + 1))) for _ in range(n)]
    lengths = rng.integers(new[0], new[1] + 1, size=n).tolist()
    return call(prompts, lengths, 0.0), sum(map(len, prompts))


# ------------------------------------------------------------------------------------------------ sides
def ours(args):
    model = fuse(models.load(args.model, torch.float32))
    session = Session(model)

    def call(prompts, lengths, temperature):
        replies = sampler.generate(
            model, prompts, lengths, [], temperature=temperature, session=session, batch=BATCH
        )
        return [reply.ids for reply in replies]

    return call


def theirs(args):
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)

    class Lengths(transformers.StoppingCriteria):
        """Ends each row at its own length."""

        def __init__(self, ends):
            self.ends = torch.tensor(ends)

        def __call__(self, ids, scores, **_):
            return self.ends <= ids.shape[1]

    def settings(lengths, temperature):
        return transformers.GenerationConfig(
            max_new_tokens=max(lengths), do_sample=temperature > 0, temperature=temperature or None,
            top_k=0, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip

    def batch(prompts, lengths, temperature, cache=None):
        width, same = max(map(len, prompts)), all(prompt == prompts[0] for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        config = settings(lengths, temperature)
        if same and temperature:
            ids, mask, config.num_return_sequences = ids[:1], mask[:1], len(prompts)
        config.eos_token_id = 0  # generate pads finished rows; Lengths below says when a row is finished
        config.suppress_tokens = [0]
        out = model.generate(
            ids, attention_mask=mask, generation_config=config, past_key_values=cache,
            stopping_criteria=transformers.StoppingCriteriaList([Lengths([width + n for n in lengths])]),
        )  # fmt: skip
        return [row[width : width + n].tolist() for row, n in zip(out, lengths)]

    def generate(prompts, lengths, temperature):
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        replies = [None] * len(prompts)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            found = batch([prompts[i] for i in part], [lengths[i] for i in part], temperature)
            for i, reply in zip(part, found):
                replies[i] = reply
        return replies

    caches = {}

    def cached(prompts, lengths, temperature):
        return [
            batch([prompt], [n], temperature, caches.setdefault(i, transformers.DynamicCache()))[0]
            for i, (prompt, n) in enumerate(zip(prompts, lengths))
        ]

    def continuous(prompts, lengths, temperature):
        same = temperature > 0 and all(prompt == prompts[0] for prompt in prompts)
        config = settings(lengths, temperature)
        config.num_return_sequences = len(prompts) if same else 1
        config.eos_token_id = -1
        if same:  # an engine has one fixed number of samples
            model.destroy_cached_continuous_batching_manager()
        engine = transformers.ContinuousBatchingConfig(
            page_size=32, num_blocks=1536, max_batch_tokens=2048,
            max_requests_per_batch=BATCH, use_cuda_graph=False, seed=0,
        )  # fmt: skip
        found = {}
        with model.continuous_batching_context_manager(
            generation_config=config, continuous_batching_config=engine, persistent_manager=True, warmup=False
        ) as manager:
            for i in [0] if same else range(len(prompts)):
                manager.add_request(prompts[i], request_id=str(i), max_new_tokens=lengths[i])
            while len(found) < len(prompts):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    assert result.error is None, result.error
                    found[result.request_id] = result.generated_tokens
        return list(found.values()) if same else [found[str(i)] for i in range(len(prompts))]

    return {"generate": generate, "cached": cached, "continuous": continuous}[args.side]


def llama(args):
    sys.path.insert(0, str(Path(__file__).parent))
    from llama_side import Llama, to_gguf

    kind = args.side.removeprefix("llama-")
    path = Path(args.gguf) / f"{Path(args.model).name}-{kind}.gguf"
    if not path.exists():
        to_gguf(args.model, path, kind)
    return Llama(str(path), args.threads, BATCH, 768).call


def side(args):
    """Run the cases of one side in this process; print its numbers as JSON, a line for each case."""
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    make = ours if args.side == "ours" else llama if args.side.startswith("llama") else theirs
    call = make(args)
    call([list(range(300, 332))], [4], 0.0)
    for case in args.cases.split(","):
        clock, used = time.perf_counter(), time.process_time()
        replies, read = played(call, case, args.seed, args.scale)
        seconds, cpu = time.perf_counter() - clock, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        new = sum(map(len, replies))
        numbers = {"seconds": seconds, "cpu": cpu, "peak": peak, "new": new, "read": read}
        print(json.dumps({"case": case, **numbers, "replies": replies}), flush=True)


# ------------------------------------------------------------------------------------------------ report
def speeds(bytes_read, threads):
    """(bytes/s of a sum over as many bytes as the weights, FLOP/s of the float32 product (2048, 576) x (576,
    1536)), each the best of 10."""
    torch.set_num_threads(threads)
    weights, a, b = torch.zeros(bytes_read // 4), torch.randn(2048, 576), torch.randn(576, 1536)

    def best(f):
        times = []
        for _ in range(10):
            clock = time.perf_counter()
            f()
            times.append(time.perf_counter() - clock)
        return min(times)

    return bytes_read / best(weights.sum), 2 * 2048 * 576 * 1536 / best(lambda: a @ b)


STEPS = {"stream": 128, "streams": 64, "samples": 64}  # steps of these cases; other cases take new / BATCH


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a local folder of a chat model")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--sides", default="ours,generate,continuous,cached", help=", ".join(SIDES))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the prompts in the large cases")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gguf", default="/tmp", help="folder for the GGUF files")
    parser.add_argument("--out", default="", help="also write the table to this file")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return side(args)
    config = config_from_hf(read_json(Path(args.model) / "config.json"))
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in models.Transformer(config).parameters())
    found, bounds = {}, {}
    for turn in range(args.rounds):
        bandwidth, flops = speeds(4 * weights, args.threads)
        for name in args.sides.split(",") if turn % 2 == 0 else reversed(args.sides.split(",")):
            for case in args.cases.split(","):
                if name == "cached" and case != "games":
                    continue
                call = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--cases", case]
                out = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
                row = json.loads(out.splitlines()[-1])
                print(f"round {turn + 1} {name} {case}: {row['seconds']:.1f} s", file=sys.stderr, flush=True)
                found.setdefault((case, name), []).append(row)
                steps = STEPS.get(case, row["new"] / BATCH)
                reading, computing = (
                    steps * 4 * weights / bandwidth,
                    2 * weights * (row["new"] + row["read"]) / flops,
                )
                bounds.setdefault(case, []).append(max(reading, computing))
    lines = [
        f"{args.rounds} rounds, {args.threads} threads, sum {bandwidth / 1e9:.1f} GB/s, matmul "
        f"{flops / 1e9:.0f} GFLOP/s, scale {args.scale:g}",
        "",
        "| | | new tokens | tokens/s | speed | % of bound | equal | peak MiB |",
        "|---" * 8 + "|",
    ]
    for (case, name), rows in found.items():
        mine = found.get((case, "ours"), rows)
        seconds, peak = (statistics.median(row[key] for row in rows) for key in ("seconds", "peak"))
        ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(mine, rows))
        equal = same(mine[0]["replies"], rows[0]["replies"]) if case != "samples" else ""
        share = 100 * statistics.median(bounds[case]) / seconds
        lines.append(
            f"| {case} | {name} | {rows[0]['new']:,} | {rows[0]['new'] / seconds:.1f} | {ratio:.2f} | "
            f"{share:.0f} | {equal} | {peak:,.0f} |"
        )
    print("\n".join(lines))
    if args.out:
        Path(args.out).write_text("\n".join(lines) + "\n", encoding="utf-8")


def same(ours, theirs):
    """How many replies are equal, such as 15/16."""
    return f"{sum(a == b for a, b in zip(ours, theirs))}/{len(ours)}"


if __name__ == "__main__":
    main()
