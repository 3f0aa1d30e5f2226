"""Speed and memory of generation against transformers and llama.cpp: python bench/generate.py --model DIR

Cases, with prompts of random ids by seed and replies of a given length:
  stream    one prompt of 32 tokens, 128 new, greedy
  streams   16 of them, 64 new
  samples   64 samples at temperature 1 of one prompt of 512 tokens, 64 new
  ragged    256 prompts of 16 to 512 tokens, 8 to 128 new, greedy
  games     64 conversations of 20 turns in lock step from one opening of 100 tokens: each turn generates 4 to
            12 tokens, greedy, and the game then adds 8
  chats     the first 8 conversations in --prompts (rows with "prompt" or "messages"), one after another, 128
            new, greedy

Sides:
  ours         sampler.generate with a session and a fused model, as in infer.py, but without drafts
  ours-bf16    the same in bfloat16; ours-int8 with --quantize int8
  ours+lookup  with drafts, as in infer.py; likewise ours-bf16+lookup and ours-int8+lookup
  generate     transformers' generate: prompts sorted by length, batches of 64, padded on the left; samples
               by num_return_sequences. generate-bf16 computes in bfloat16
  continuous   transformers' continuous batching, which shares prefixes
  cached       transformers' generate, one game after another, each with its own cache (games only)
  llama-KIND   llama.cpp through llama-cpp-python (llama_side.py); KIND is the format of the GGUF weights,
               f32, bf16, f16 or q8_0; keys and values are f16

A round runs each side once in a process of its own, after 4 tokens of warm-up. Where nothing else is said
the weights are float32. Equal is the number of greedy replies that match the first side's in every token;
near-ties may differ.

With --cost FILE (rows with "question" and "answer") it prints instead what bfloat16 and int8 cost: the loss
per token of the answers, all of them in one pass a text, against float32's with a 95 % interval over the
texts; the divergence KL(float32 || it), in nats a token; and of how many tokens of float32's greedy replies
to the questions they choose the same, with float32's tokens before them. --tokens is how many of each.

The table has medians over the rounds. Tokens/s counts new tokens by the wall clock. Speed is the side's time
divided by the first side's. Peak is the largest resident size of the process. The bound is the longer of two
times measured in the same round. The first is for reading the float32 weights once a step (of at most 64
rows), at the speed of a sum over as many bytes. The second is for all matrix products, including those of the
prompt tokens that must be read, at the speed of a large product."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tables import peak  # noqa: E402

import checkpoint  # noqa: E402
import model as models  # noqa: E402
import sampler  # noqa: E402
from cache import Session  # noqa: E402
from families import config_from_hf  # noqa: E402
from files import read_json  # noqa: E402
from games.rows import conversation, read_rows  # noqa: E402

CASES = ["stream", "streams", "samples", "ragged", "games"]  # and chats, which needs a file
SIDES = "ours[-bf16|-int8][+lookup], generate[-bf16], continuous, cached, llama-f32, llama-bf16, llama-q8_0"
BATCH = 64


# ------------------------------------------------------------------------------------------------ cases
def chats(args):
    """The ids of the first conversations in --prompts."""
    tokenizer = checkpoint.open(args.model).tokenizer
    rows = [conversation(where, row) for where, row in read_rows(args.prompts)]
    return [tokenizer.prompt(messages) for messages in rows[:8]]


def played(call, case, seed, scale=1.0, texts=()):
    """Run a case with call(prompts, lengths, temperature) -> lists of new ids. Return all replies, and the
    number of prompt tokens that must be read, for the bound. texts: the prompts of the case chats."""
    if case == "chats":
        replies = [call([text], [128], 0.0)[0] for text in texts]
        return replies, sum(map(len, texts))
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
def open_ours(folder, kind):
    """The Checkpoint of a folder as infer.py plays it, in float32, bf16 or int8."""
    dtype = "float32" if kind == "float32" else "bfloat16"
    quantize = "int8" if kind == "int8" else ""
    return checkpoint.open_to_play(folder, "own", dtype, torch.device("cpu"), quantize)


def ours(args):
    kind, _, lookup = args.side.removeprefix("ours").removeprefix("-").partition("+")
    model = open_ours(args.model, kind or "float32").model
    session = Session(model)
    if not lookup:
        sampler.PAYS = sampler.DRAFT + 1  # more than a draft can hold

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
    side, _, half = args.side.partition("-")
    dtype = torch.bfloat16 if half else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)

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

    return {"generate": generate, "cached": cached, "continuous": continuous}[side]


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
    make = ours if args.side.startswith("ours") else llama if args.side.startswith("llama") else theirs
    call = make(args)
    call([list(range(300, 332))], [4], 0.0)
    texts = chats(args) if args.prompts else ()
    for case in args.cases.split(","):
        clock, used = time.perf_counter(), time.process_time()
        replies, read = played(call, case, args.seed, args.scale, texts)
        seconds, cpu = time.perf_counter() - clock, time.process_time() - used
        new = sum(map(len, replies))
        numbers = {"seconds": seconds, "cpu": cpu, "peak": peak(), "new": new, "read": read}
        print(json.dumps({"case": case, **numbers, "replies": replies}), flush=True)


# ------------------------------------------------------------------------------------------------ cost
@torch.no_grad()
def cost(args):
    """Print what bfloat16 and int8 cost, as a table."""
    rows = [row for _, row in read_rows(args.cost)]
    kinds = ["float32", "bf16", "int8"]
    models = {kind: open_ours(args.model, kind) for kind in kinds}
    tokenizer = models["float32"].tokenizer

    def chosen(kind, ids, mask):
        """Scores (N, V) and tokens (N,) where the mask is set."""
        model = models[kind].model
        targets = torch.tensor(mask[1:]).bool()
        hidden = model(torch.tensor([ids]))[0, :-1]
        return model.logits(hidden[targets]).float(), torch.tensor(ids)[1:][targets]

    losses, learned = {kind: [] for kind in kinds}, 0  # of each text
    divergence = dict.fromkeys(kinds, 0.0)
    same, grown = dict.fromkeys(kinds, 0), 0
    for row in rows:
        asked = [{"role": "user", "content": row["question"]}]
        if learned < args.tokens:
            ids, mask = tokenizer.render_reply(asked, row["answer"])
            learned += sum(mask)
            for kind in kinds:
                scores, tokens = chosen(kind, ids, mask)
                logps = scores.log_softmax(-1)
                if kind == "float32":  # the first
                    exact = logps
                losses[kind].append(float(F.nll_loss(logps, tokens, reduction="sum")))
                divergence[kind] += float((exact.exp() * (exact - logps)).sum())
        if grown < min(args.tokens, 2000):
            prompt = tokenizer.prompt(asked)
            (reply,) = sampler.generate(
                models["float32"].model, [prompt], 128, tokenizer.stop_ids, temperature=0
            )
            grown += len(reply.ids)
            for kind in kinds:
                mask = [0] * len(prompt) + [1] * len(reply.ids)
                scores, tokens = chosen(kind, prompt + reply.ids, mask)
                same[kind] += int((scores.argmax(-1) == tokens).sum())
    print(f"{learned:,} tokens of answers, {grown:,} greedy tokens\n")
    print("| | loss per token | against float32 | divergence | greedy tokens equal |\n|---|---|---|---|---|")
    first = np.array(losses["float32"])
    for kind in kinds:
        loss = np.array(losses[kind])
        more = 100 * (loss - first) / first.sum()  # what each text adds, in percent
        off = 1.96 * more.std() * len(more) ** 0.5
        change = f"{more.sum():+.2f} % [{more.sum() - off:+.2f}, {more.sum() + off:+.2f}]"
        each = f"{loss.sum() / learned:.4f} | {change} | {divergence[kind] / learned:.4f}"
        print(f"| {kind} | {each} | {100 * same[kind] / grown:.1f} % |")


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
    parser.add_argument("--sides", default="ours,generate,continuous,cached", help=SIDES)
    parser.add_argument("--prompts", default="", help="conversations for the case chats")
    parser.add_argument("--cost", default="", help="print what bfloat16 and int8 cost on this file")
    parser.add_argument("--tokens", type=int, default=10_000, help="how many --cost takes")
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
    if args.cost:
        torch.set_num_threads(args.threads)
        return cost(args)
    first = args.sides.split(",")[0]
    config = config_from_hf(read_json(Path(args.model) / "config.json"))
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in models.Transformer(config).parameters())
    found, bounds = {}, {}
    for turn in range(args.rounds):
        bandwidth, flops = speeds(4 * weights, args.threads)
        for name in args.sides.split(",") if turn % 2 == 0 else reversed(args.sides.split(",")):
            for case in args.cases.split(","):
                if name.startswith("cached") and case != "games":
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
        mine = found.get((case, first), rows)
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
