"""Shared by bench/quantize.py and bench/gpu.py: models of a shape with random weights, and steps on random
tokens."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import lora  # noqa: E402
from data import pack, share_prefixes  # noqa: E402
from families import config_from_hf  # noqa: E402
from model import Transformer  # noqa: E402
from objectives import OBJECTIVES  # noqa: E402
from optim import optimizers_of  # noqa: E402
from quantized import hold  # noqa: E402
from recipes import Train, parse  # noqa: E402
from steps import Learner, Step  # noqa: E402
from train import Machine, Trained, update  # noqa: E402
from weights import shapes_only  # noqa: E402

SFT = OBJECTIVES["sft"]
SHAPES = {  # width, layers, heads, keys, MLP, words, whether head and embedding share a matrix
    "tiny": (64, 2, 4, 2, 128, 320, False),
    "tinyllama": (2048, 22, 32, 4, 5632, 32_000, False),  # TinyLlama 1.1B
    "1b": (2048, 16, 32, 8, 8192, 128_256, True),  # Llama 3.2 1B
    "8b": (4096, 32, 32, 8, 14_336, 128_256, False),  # Llama 3.1 8B
}


def hf_of(shape):
    """The config.json of a shape, in the plainest family."""
    names = (
        "hidden_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size vocab_size"
    )
    sizes = dict(zip([*names.split(), "tie_word_embeddings"], SHAPES[shape]))
    return dict(model_type="llama", architectures=["LlamaForCausalLM"], rms_norm_eps=1e-5) | sizes


def random_model(shape, dtype, device="cpu", quantize=""):
    """A model of a shape on a device, made matrix by matrix as model.load makes it from a file."""
    with shapes_only():
        model = Transformer(config_from_hf(hf_of(shape)))
    state = {}
    for name, empty in model.state_dict().items():
        if name == "head.weight" and model.config.tied:
            state[name] = state["embed.weight"]
            continue
        weight = torch.empty(empty.shape, dtype=dtype, device=device)
        state[name] = weight.fill_(1.0) if weight.dim() == 1 else weight.normal_(0, 0.02)
        if quantize:
            hold(model, state, name, quantize)
    state = {name: weight for name, weight in state.items() if weight is not None}
    model.load_state_dict(state, strict=not quantize, assign=True)
    if model.config.tied:
        model.head.weight = model.embed.weight
    return model


def frozen_bytes(model):
    return sum(weight.nbytes for weight in model.parameters() if not weight.requires_grad)


class Trainer:
    """train.py's step on random tokens: an adapter of rank 16, or with rank 0 all weights."""

    def __init__(
        self, model, device, compute, rank=16, row_tokens=1024, rows=8, micro_tokens=0, checkpointing=True
    ):
        flags = ["--model", "none", "--lora-rank", str(rank), "--micro-tokens", str(micro_tokens or 8192)]
        cfg = parse(Train, flags)
        if rank:
            lora.add_lora(model, rank)
            model.to(device)
        else:
            model.float()
        model.recompute_activations(checkpointing)
        self.learner = Learner(model.train(), None, cfg)
        self.machine = Machine(torch.device(device), compute)
        optimizers, peaks = zip(*optimizers_of(model, cfg))
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        scaler = torch.amp.GradScaler(self.machine.device.type, enabled=compute == torch.float16)
        self.trained = Trained(weights, optimizers, peaks, scaler)
        self.size = (rows, row_tokens)
        self.number = 0

    def step(self):
        """One update. Returns the number of its tokens."""
        rows, tokens = self.size
        generator = torch.Generator().manual_seed(self.number)
        ids = torch.randint(3, self.learner.model.config.vocab, (rows, tokens), generator=generator).tolist()
        made = pack(
            [share_prefixes([(row, [0] * (tokens // 2) + [1] * (tokens - tokens // 2))]) for row in ids],
            tokens,
        )
        step = Step(made, sum(len(row.target) for row in made))
        self.trained.set_rate(1.0)
        update(SFT, self.learner, step, None, self.trained, self.machine, False)
        self.number += 1
        return rows * tokens
