"""Low-rank adapters (arXiv 2106.09685): add, switch off, merge, and read and write them in PEFT's own format.

An adapted layer computes base(x) + scale * B(A(x)) with A (rank, in) and B (out, rank); B starts at zero, so
a fresh adapter changes nothing. Merging is a function, never a mode: train() and eval() change dropout and
nothing else."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import model as models
from families import inverse, names_of, rename, row_of

TARGETS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
PEFT_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


class LoRALinear(nn.Module):
    """A frozen Linear and its low-rank update. Dropout falls on the update's input, as in the paper."""

    def __init__(self, base, rank, scale, dropout=0.0):
        super().__init__()
        self.base, self.rank, self.scale, self.dropout, self.enabled = base, rank, scale, dropout, True
        where = dict(device=base.weight.device, dtype=torch.float32)  # bf16 would round small steps away
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **where))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **where))

    def forward(self, x):
        y = self.base(x)
        if not self.enabled:
            return y
        x = F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        return y + (self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)).to(y.dtype)

    def delta(self):
        """The update as a matrix (out, in), float32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())


def adapters(model):
    """(name, LoRALinear) of every adapted layer."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoRALinear)]


def add_lora(model, rank, alpha=None, targets=TARGETS, dropout=0.0, rank_stabilised=False, seed=0):
    """Freeze the model and put an adapter on every Linear whose last name is in `targets` (comma-separated).

    The update is scaled by alpha / rank, or alpha / sqrt(rank) if rank-stabilised (arXiv 2312.03732); alpha
    None is 2 * rank. Returns the model, which remembers its settings as `model.lora`."""
    if adapters(model):
        raise ValueError("the model has an adapter already; merge it before adding another")
    alpha = 2 * rank if alpha is None else alpha
    scale = alpha / rank**0.5 if rank_stabilised else alpha / rank
    names = targets.split(",")
    chosen = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in names
    ]
    absent = [target for target in names if not any(name.rpartition(".")[2] == target for name in chosen)]
    if absent:
        raise ValueError(f"--lora-targets: no linear layer is called {absent[0]!r}")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in chosen:
        parent, _, last = name.rpartition(".")
        layer = LoRALinear(getattr(model.get_submodule(parent), last), rank, scale, dropout)
        bound = layer.base.in_features**-0.5  # kaiming_uniform with a = sqrt(5), as in the reference code
        fresh = torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            layer.lora_A.copy_(fresh)
        setattr(model.get_submodule(parent), last, layer)
    model.lora = dict(
        rank=rank, alpha=alpha, targets=targets, dropout=dropout, rank_stabilised=rank_stabilised
    )
    return model


def merge_lora(model):
    """Add every update to its weight, in float32 and cast once, and put the plain layers back. Returns the
    model."""
    if not adapters(model):
        raise ValueError("the model has no adapter to merge")
    for name, layer in adapters(model):
        with torch.no_grad():
            layer.base.weight.copy_(layer.base.weight.float() + layer.delta())
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.base)
    del model.lora
    return model.requires_grad_(True)


@contextmanager
def without_lora(model):
    """The frozen base inside the block: the reference policy of DPO, KTO and GRPO costs no second copy."""
    layers = [layer for _, layer in adapters(model)]
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = False
    try:
        yield model
    finally:
        for layer, enabled in zip(layers, before):
            layer.enabled = enabled


# ------------------------------------------------------------------------------------------------ PEFT's form
def save_lora(model, folder, base, revision=None):
    """Write adapter_config.json and adapter_model.safetensors as PEFT does; `base` names the model
    underneath."""
    pairs = inverse(names_of(row_of(model.config)))
    state = {}
    for name, layer in adapters(model):
        key = f"base_model.model.{rename(name, pairs)}"
        state[f"{key}.lora_A.weight"] = layer.lora_A.detach().cpu().contiguous()
        state[f"{key}.lora_B.weight"] = layer.lora_B.detach().cpu().contiguous()
    settings = model.lora
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "revision": revision,
        "r": settings["rank"],
        "lora_alpha": settings["alpha"],
        "lora_dropout": settings["dropout"],
        "use_rslora": settings["rank_stabilised"],
        "target_modules": settings["targets"].split(","),
        "bias": "none",
        "inference_mode": True,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_lora(model, folder):
    """Put a PEFT LoRA adapter on a model, strictly: every tensor fits and none is missing. Returns the
    model."""
    folder = Path(folder)
    config = models.read_json(folder / "adapter_config.json")
    odd = {
        k: config[k]
        for k in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")
        if config.get(k)
    }
    if config.get("peft_type") != "LORA" or odd or config.get("bias", "none") != "none":
        raise ValueError(
            f"{folder / 'adapter_config.json'}: only plain LoRA is supported, not {odd or config}"
        )
    path = folder / "adapter_model.safetensors"
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: truncated, damaged or missing ({error})") from error
    pairs = names_of(row_of(model.config))
    targets = config["target_modules"]
    if isinstance(targets, str):
        raise ValueError(
            f"{folder / 'adapter_config.json'}: target_modules is a pattern; list the layer names instead"
        )
    add_lora(
        model,
        config["r"],
        config["lora_alpha"],
        ",".join(sorted(targets)),
        config.get("lora_dropout", 0.0),
        config.get("use_rslora", False),
    )
    layers = dict(adapters(model))
    left = {(name, side) for name in layers for side in "AB"}
    for key, tensor in state.items():
        match = PEFT_KEY.fullmatch(key)
        name, side = (rename(match[1], pairs), match[2]) if match else (key, "")
        if (name, side) not in left:
            raise ValueError(f"{path}: {key} belongs to no adapted layer of this model")
        weight = getattr(layers[name], f"lora_{side}")
        if weight.shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(weight.shape)}"
            raise ValueError(f"{path}: {key} has shape {shapes}")
        left.remove((name, side))
        with torch.no_grad():
            weight.copy_(tensor)
    if left:
        name, side = min(left)
        raise ValueError(f"{path}: lora_{side} of {name} is missing (and {len(left) - 1} more like it)")
    return model


def open_model(name, lora="", dtype=None, device="cpu", revision=None):
    """(model, folder with its tokenizer, (name, revision) of its base): a run, a model or adapter folder, or
    a Hub name; `lora` names an adapter to put on a full model."""
    folder = under = models.resolve(name, revision)
    base, adapter = (name, revision), models.resolve(lora) if lora else None
    if (folder / "adapter_config.json").exists():
        if adapter:
            raise ValueError(f"{name} is an adapter itself; --lora needs a full model under it")
        base, adapter = read_base(folder), folder
        under = models.resolve(*base)
    opened = models.load(under, dtype, device)
    if adapter:
        load_lora(opened, adapter)
    if Path(base[0]).exists():
        base = (str(under.resolve()), None)  # a link such as runs/latest may move
    return opened, folder if (folder / "tokenizer.json").exists() else under, base


def read_base(folder):
    """(name, revision) of the model under an adapter."""
    config = models.read_json(Path(folder) / "adapter_config.json")
    if not config.get("base_model_name_or_path"):
        raise ValueError(
            f"{folder}: adapter_config.json names no base model; give it with --model and --lora"
        )
    return config["base_model_name_or_path"], config.get("revision")
