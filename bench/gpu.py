"""Everything that waits for a graphics card, in one call of at most eight minutes: python bench/gpu.py

It runs the GPU tests, then measures on random weights of the shapes of Llama 3.2 1B and 3.1 8B:
  training     train.py's step on packed rows of random tokens, with --checkpointing: all weights, and LoRA of
               rank 16 on a base in bfloat16, int8 and nf4; tokens a second and the highest memory
  generation   one greedy stream, 64 samples of one prompt, a batch of prompts of different lengths; new
               tokens a second, and the same with transformers' generate if it is installed

A line of training has a process of its own, generation one for each shape and side. Each begins with a
warm-up that compiles what is compiled. A part that does not fit the card, fails, or has no time left gets a
line that says so. The page, in Markdown for bench/RESULTS.md, is printed and written to --out after every
part, so that nothing is lost.

--tiny measures small shapes on any device, also on a CPU, and shows only that the script works."""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from shapes import Trainer, frozen_bytes, hf_of, random_model

import sampler
from cache import Session
from fused import fuse

ROOT = Path(__file__).parent.parent
GIB = 2**30
TRAINING = {  # name -> shape, rank of the adapter, --quantize; the most telling first
    "8B, LoRA on nf4": ("8b", 16, "nf4"),
    "8B, LoRA on int8": ("8b", 16, "int8"),
    "8B, LoRA on bfloat16": ("8b", 16, ""),
    "1B, all weights": ("1b", 0, ""),
    "1B, LoRA on bfloat16": ("1b", 16, ""),
    "1B, LoRA on int8": ("1b", 16, "int8"),
    "1B, LoRA on nf4": ("1b", 16, "nf4"),
}
CASES = {  # name -> prompt lengths, new tokens, temperature
    "one stream": ([128], 128, 0.0),
    "64 samples of one prompt": ([512] * 64, 128, 1.0),
    "batch of 64": (list(range(16, 528, 8)), 128, 0.0),
}
SIDES = ["ours", "transformers"]
STEPS = 4  # timed, after two of warm-up


# ------------------------------------------------------------------------------------------------ one line
def compute_dtype(device):
    """bfloat16, or float16 on a card that has none (T4, V100)."""
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_memory(device):
    """GiB that tensors took at most."""
    return torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else None


def train_line(args, device):
    """Tokens a second and memory of training."""
    shape, rank, quantize = TRAINING[args.line]
    rows, tokens = (2, 32) if args.tiny else (8, 1024)
    dtype = compute_dtype(device)
    model = random_model("tiny" if args.tiny else shape, dtype if rank else torch.float32, device, quantize)
    loaded = peak_memory(device)
    trainer = Trainer(model, device, dtype, rank, row_tokens=tokens, rows=rows)
    seconds = []
    for number in range(2 + STEPS):
        wait(device)
        clock = time.perf_counter()
        trained = trainer.step()
        wait(device)
        if number >= 2:
            seconds.append(time.perf_counter() - clock)
    frozen = frozen_bytes(model) / GIB
    return dict(
        rate=trained / statistics.median(seconds), frozen=frozen, loaded=loaded, peak=peak_memory(device)
    )


def generate_lines(args, device):
    """{case: new tokens a second, and memory} of one side on one shape."""
    shape, side = args.line.split("/")
    dtype = compute_dtype(device)
    torch.manual_seed(0)
    play = (ours if side == "ours" else theirs)("tiny" if args.tiny else shape, dtype, device)
    found = {}
    for case, (lengths, new, temperature) in CASES.items():
        if args.tiny:
            lengths, new = [min(n, 24) for n in lengths[:4]], 8
        prompts = [torch.randint(3, 300, (n,)).tolist() for n in lengths]
        if temperature:
            prompts = [prompts[0]] * len(prompts)
        try:
            play(prompts, new, temperature)  # compiles kernels and records graphs
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            wait(device)
            clock = time.perf_counter()
            made = play(prompts, new, temperature)
            wait(device)
            found[case] = [cell(made / (time.perf_counter() - clock)), cell(peak_memory(device), 2)]
        except torch.OutOfMemoryError:
            found[case] = ["does not fit", ""]
    return found


def ours(shape, dtype, device):
    """play(prompts, new, temperature) generates `new` tokens for each and returns how many that were."""
    model = fuse(random_model(shape, dtype, device))

    def play(prompts, new, temperature):
        settings = dict(temperature=temperature, session=Session(model), batch=64)
        replies = sampler.generate(model, prompts, [new] * len(prompts), [], **settings)
        return sum(len(reply.ids) for reply in replies)

    return play


def theirs(shape, dtype, device):
    """The same with transformers: padded on the left, samples by num_return_sequences."""
    import transformers

    hf = hf_of(shape)
    config = transformers.AutoConfig.for_model(hf.pop("model_type"), **hf, max_position_embeddings=8192)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model.generation_config.eos_token_id = None

    def play(prompts, new, temperature):
        width = max(map(len, prompts))
        settings = transformers.GenerationConfig(
            max_new_tokens=new, do_sample=temperature > 0, top_k=0, eos_token_id=None, pad_token_id=0
        )
        if temperature:
            settings.num_return_sequences = len(prompts)
            prompts = prompts[:1]
        pad = lambda row, value: [0] * (width - len(row)) + [value or token for token in row]
        ids = torch.tensor([pad(row, 0) for row in prompts], device=device)
        mask = torch.tensor([pad(row, 1) for row in prompts], device=device).clamp(max=1)
        out = model.generate(ids, attention_mask=mask, generation_config=settings)
        return (out.shape[1] - width) * len(out)

    return play


# ------------------------------------------------------------------------------------------------ all lines
class Report:
    """The page so far, and the time that is left."""

    def __init__(self, args):
        self.args = args
        self.end = time.time() + 60 * args.minutes
        self.lines = []

    def add(self, *lines):
        self.lines += lines
        print("\n".join(lines), flush=True)
        if self.args.out:
            Path(self.args.out).write_text("\n".join(self.lines) + "\n", encoding="utf-8")

    def run(self, call, most):
        """(exit code, output) of a process, which may take so many seconds; None without time."""
        left = min(most, self.end - time.time())
        if left < 5:
            return None, "no time left"
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=left, cwd=ROOT)
        except subprocess.TimeoutExpired:
            return None, f"not done after {left:.0f} s"
        return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def measure(self, line, most):
        """The numbers of a line, or a text that says why there are none."""
        flags = ["--device", self.args.device, *(["--tiny"] if self.args.tiny else [])]
        code, output = self.run([sys.executable, __file__, *flags, "--line", line], most)
        if code == 0:
            return json.loads(output.splitlines()[-1])
        if "OutOfMemoryError" in output:
            return "does not fit"
        return output if code is None else next(iter(output.strip().splitlines()[-1:]), "failed")[:100]


def machine_of(device):
    """The machine in one line."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        name = f"{card.name}, {card.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}"
    return f"{name}; torch {torch.__version__}, Python {platform.python_version()}"


def cell(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def report(args, device):
    page = Report(args)
    page.add("## On a graphics card", "", "```", "python bench/gpu.py", "```", "")
    page.add(f"{machine_of(device)}. Random weights, {str(compute_dtype(device))[6:]}.", "")
    if not args.tiny:
        call = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
        _, output = page.run(call, 150)
        last = [text for text in output.strip().splitlines() if text.startswith(("FAILED", "ERROR"))]
        page.add("GPU tests: " + next(iter(output.strip().splitlines()[-1:]), "nothing said"), *last, "")

    rows = "2 rows of 32" if args.tiny else "8 rows of 1,024"
    page.add(f"Training, a step of {rows} tokens, recomputed activations; medians of {STEPS} steps:", "")
    page.add("| | tokens/s | frozen weights GiB | made GiB | highest GiB |", "|---" * 5 + "|")
    for line in TRAINING:
        found = page.measure(line, 60)
        if isinstance(found, str):
            page.add(f"| {line} | {found} | | | |")
        else:
            sizes = [cell(found[key], 2) for key in ("frozen", "loaded", "peak")]
            page.add(f"| {line} | {found['rate']:,.0f} | {' | '.join(sizes)} |")

    page.add("", "Generation, new tokens a second; transformers is `generate` with its defaults:", "")
    page.add("| | ours | GiB | transformers | GiB |", "|---" * 5 + "|")
    for shape in ("1b", "8b"):
        sides = [page.measure(f"{shape}/{side}", 75) for side in SIDES]
        for case in CASES:
            cells = []
            for found in sides:
                cells += [found, ""] if isinstance(found, str) else found[case]
            page.add(f"| {shape.upper()}, {case} | {' | '.join(cells)} |")
    page.add("")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="all parts together")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see whether the script works")
    parser.add_argument("--out", default="gpu.md", help="also write the page to this file")
    parser.add_argument("--line", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type != "cuda" and not args.tiny:
        parser.error("torch finds no CUDA device here; --tiny tries the script on a CPU")
    if not args.line:
        return report(args, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    print(json.dumps((train_line if args.line in TRAINING else generate_lines)(args, device)))


if __name__ == "__main__":
    main()
