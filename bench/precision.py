"""Rounding errors of bfloat16 and float16, compared with transformers: python bench/precision.py [FOLDER ...]

The reference is transformers in float32 on the same rounded weights. Measures random models of every family,
then the given folders. An error is the root mean square over all logits (for encoders: hidden states),
relative to that of the reference."""

import sys
import tempfile
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from conftest import ENCODERS, SHAPES  # noqa: E402

import model as models  # noqa: E402
from tests.peers import new_there  # noqa: E402

IDS = torch.randint(3, 300, (2, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def outputs(folder, dtype, theirs, encoder):
    if theirs:
        kind = transformers.AutoModel if encoder else transformers.AutoModelForCausalLM
        out = kind.from_pretrained(folder, dtype=dtype).eval()(input_ids=IDS)
        return (out.last_hidden_state if encoder else out.logits).float()
    model = models.load(folder, dtype=dtype)
    hidden = model(IDS)
    return (hidden if encoder else model.logits(hidden)).float()


def row(name, folder, encoder):
    cells = []
    for dtype in (torch.bfloat16, torch.float16):
        models.save(models.load(folder, dtype=dtype, head="none" if encoder else "own"), folder / "rounded")
        exact = outputs(folder / "rounded", torch.float32, True, encoder)
        ours, theirs = (outputs(folder / "rounded", dtype, side, encoder) - exact for side in (False, True))
        scale = exact.square().mean().sqrt()
        errors = [float(error.square().mean().sqrt() / scale) for error in (ours, theirs)]
        cells += [f"{errors[0]:.2e}", f"{errors[1]:.2e}", f"{errors[0] / errors[1]:.2f}"]
    print("| " + " | ".join([name, *cells]) + " |", flush=True)


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print("| | bf16 ours | transformers | ratio | fp16 ours | transformers | ratio |")
    print("|---" * 7 + "|")
    for family in [*SHAPES, *ENCODERS]:
        with tempfile.TemporaryDirectory() as folder:
            new_there(family).save_pretrained(folder)
            row(family, Path(folder), family in ENCODERS)
    for path in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            models.save(models.load(path), folder)
            row(path.name, Path(folder), not models.load(path).config.causal)


if __name__ == "__main__":
    main()
