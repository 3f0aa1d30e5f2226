"""Low-rank adapters (arXiv 2106.09685): add, switch off, merge, and read and write them in PEFT's own format.

An adapted layer computes base(x) + scale * B(A(x)) with A (rank, in) and B (out, rank); B starts at zero, so
a fresh adapter changes nothing. Merging is a function, never a mode: train() and eval() change dropout and
nothing else."""

import re
from contextlib import contextmanager
from pathlib import Path
from statistics import mode

import torch
import torch.nn as nn
import torch.nn.functional as F

from families import config_from_hf, layout
from files import read_json, write_json
from ranks import whole
from terminal import UsageError
from weights import cut_rows, read_tensors, write_tensors

TASKS = {"lm": "CAUSAL_LM", "none": "FEATURE_EXTRACTION", "classes": "SEQ_CLS"}  # head -> PEFT's task_type
TARGETS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


class LoRALinear(nn.Module):
    """A frozen Linear and its low-rank update, scaled by alpha / rank, or alpha / sqrt(rank) if it is
    rank-stabilised (arXiv 2312.03732). Dropout falls on the update's input, as in the paper.

    With DoRA (arXiv 2402.09353) the sum's rows are scaled to learned lengths, `magnitude` (out,); their own
    lengths count as constants in the gradient (section 4.3)."""

    def __init__(self, base, rank, alpha, dropout=0.0, rank_stabilised=False, dora=False):
        super().__init__()
        self.base, self.rank, self.dropout, self.enabled = base, rank, dropout, True
        self.root = 0.5 if rank_stabilised else 1  # the power of the rank that alpha is divided by
        self.scale = alpha / rank**self.root
        where = dict(device=base.weight.device, dtype=torch.float32)  # bf16 would round small steps away
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **where))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **where))
        self.magnitude = nn.Parameter(base.weight.detach().float().norm(dim=1)) if dora else None

    def forward(self, x):
        y = self.base(x)
        if not self.enabled:
            return y
        x = F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        inner = F.linear(x, self.lora_A)
        if self.magnitude is None and inner.dtype == y.dtype:
            rows = torch.addmm(y.flatten(0, -2), inner.flatten(0, -2), self.lora_B.T, alpha=self.scale)
            return rows.view_as(y)
        update = (self.scale * F.linear(inner, self.lora_B)).to(y.dtype)
        if self.magnitude is None:
            return y + update
        with torch.no_grad():
            lengths = self.summed().norm(dim=1)
        bias = 0 if self.base.bias is None else self.base.bias
        return (self.magnitude / lengths).to(y.dtype) * (y - bias + update) + bias

    def summed(self):
        """The weight and its low-rank update, (out, in), float32."""
        return self.base.weight.float() + self.scale * (self.lora_B.float() @ self.lora_A.float())

    def merged(self):
        """The weight that does what this layer does, (out, in), float32."""
        weight = self.summed()
        if self.magnitude is None:
            return weight
        return weight * (self.magnitude / weight.norm(dim=1))[:, None]


def adapters(model):
    """(name, LoRALinear) of every adapted layer."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoRALinear)]


def linears(model):
    """(name, Linear) of every linear layer, the one under an adapter by the adapter's name."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return [(name.removesuffix(".base"), layer) for name, layer in layers]


def adapt(model, name, *settings):
    """Put a LoRALinear on the layer of that name and return it."""
    layer = LoRALinear(model.get_submodule(name), *settings)
    model.set_submodule(name, layer)
    return layer


def add_lora(model, rank, alpha=None, targets="", dropout=0.0, rank_stabilised=False, dora=False, seed=0):
    """Freeze the model, but for a classifier, and put an adapter on every Linear of a block whose last name
    is in `targets` (comma-separated; empty is all of a block). alpha None is 2 * rank. Returns the model."""
    if adapters(model):
        raise ValueError("the model has an adapter already; merge it before adding another")
    alpha = 2 * rank if alpha is None else alpha
    last = {name: name.rpartition(".")[2] for name, _ in linears(model) if name.startswith("layers.")}
    wanted = (targets or TARGETS).split(",")
    absent = [target for target in wanted if target not in last.values()]
    if targets and absent:
        raise UsageError(f"--lora-targets: no linear layer is called {absent[0]!r}")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, kind in last.items():
        if kind not in wanted:
            continue
        layer = adapt(model, name, rank, alpha, dropout, rank_stabilised, dora)
        bound = layer.base.in_features**-0.5  # kaiming_uniform with a = sqrt(5), as in the reference code
        fresh = torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            layer.lora_A.copy_(fresh)
    if model.config.head == "classes":
        model.classifier.requires_grad_(True)
    return model


def merge_lora(model):
    """Add every update to its weight, in float32 and cast once, and put the plain layers back. Returns the
    model."""
    for name, layer in adapters(model):
        with torch.no_grad():
            layer.base.weight.copy_(layer.merged())
        model.set_submodule(name, layer.base)
    return model.requires_grad_(True)


@contextmanager
def without_lora(model):
    """The frozen base inside the block: the reference policy of DPO, KTO and GRPO costs no second copy."""
    layers = [layer for _, layer in adapters(model)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True


# ------------------------------------------------------------------------------------------------ PEFT's form
def peft_modules(model):
    """Name in transformers -> our linear layers that it is."""
    return layout([name for name, _ in linears(model)], model.config.file_name)


def peft_name(name, config):
    """The name in PEFT's files of a parameter of ours."""
    name = re.sub(r"\.(lora_[AB])$", r".\1.weight", config.file_name(name))
    return name.replace(".magnitude", ".lora_magnitude_vector")


def adapter_state(model):
    """(tensors, ranks, alphas) of a model's adapter, all by PEFT's names.

    Layers that transformers fuses become one of the summed rank, which is the same update."""
    tensors, ranks, alphas = {}, {}, {}
    for theirs, names in peft_modules(model).items():
        parts = [model.get_submodule(name) for name in names]
        adapted = [part for part in parts if isinstance(part, LoRALinear)]
        if not adapted:
            continue
        first = adapted[0]  # in scale and kind the others are like it
        ranks[theirs] = sum(part.rank for part in adapted)
        alphas[theirs] = round(first.scale * ranks[theirs] ** first.root, 9)
        blocks, lengths = [], []
        for part in parts:
            if part in adapted:
                blocks.append(whole(part.lora_B).cpu())
            else:
                blocks.append(torch.zeros(part.out_features, 0))
            if first.magnitude is not None:
                rows = part.magnitude if part in adapted else part.weight.float().norm(dim=1)
                lengths.append(whole(rows))
        key = f"base_model.model.{theirs}.lora_"
        tensors[f"{key}A.weight"] = torch.cat([whole(part.lora_A) for part in adapted])
        tensors[f"{key}B.weight"] = torch.block_diag(*blocks)
        if lengths:
            tensors[f"{key}magnitude_vector"] = torch.cat(lengths)
    return tensors, ranks, alphas


def save_lora(model, folder, base, revision=None):
    """Write adapter_config.json and adapter_model.safetensors as PEFT does; `base` names the model
    underneath. None as the folder as in model.save. Parameters that are trained themselves, such as a
    classifier, are saved whole (PEFT's modules_to_save)."""
    state, ranks, alphas = adapter_state(model)
    saved = set()
    for key, weight in model.named_parameters():
        if weight.requires_grad and not key.endswith(("lora_A", "lora_B", "magnitude")):
            theirs = model.config.file_name(key)
            state[f"base_model.model.{theirs}"] = whole(weight)
            module = theirs.rpartition(".")[0]
            saved.add("classifier" if module.startswith("classifier.") else module)
    if folder is None:
        return
    layer = adapters(model)[0][1]
    rank, alpha = mode(ranks.values()), mode(alphas.values())
    config = {
        "peft_type": "LORA",
        "task_type": TASKS[model.config.head],
        "base_model_name_or_path": str(base),
        "revision": revision,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {theirs.rpartition(".")[2]: r for theirs, r in ranks.items() if r != rank},
        "alpha_pattern": {theirs.rpartition(".")[2]: a for theirs, a in alphas.items() if a != alpha},
        "lora_dropout": layer.dropout,
        "use_rslora": layer.root == 0.5,
        "use_dora": layer.magnitude is not None,
        "target_modules": targets_of(peft_modules(model), ranks),
        "modules_to_save": sorted(saved) or None,
        "bias": "none",
        "inference_mode": True,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.float() for key, value in state.items()}
    write_tensors(folder / "adapter_model.safetensors", state)
    write_json(folder / "adapter_config.json", config)


def targets_of(modules, chosen):
    """The names by which PEFT finds the chosen modules: their last components, where these select no
    other."""
    short = sorted({theirs.rpartition(".")[2] for theirs in chosen})
    there = [*modules, "pooler.dense"]  # it has this one even where we have no classifier
    return short if sorted(expected(short, there)) == sorted(chosen) else sorted(chosen)


def load_lora(model, folder):
    """Put a PEFT LoRA adapter on a model, strictly: every tensor fits and none is missing. Returns the
    model."""
    folder = Path(folder)
    where, path = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    config = read_json(where)
    others = [k for k in ("layers_to_transform", "exclude_modules", "target_parameters") if config.get(k)]
    if config.get("peft_type") != "LORA" or others or config.get("bias", "none") != "none":
        raise ValueError(f"{where}: only LoRA is supported, and without {', '.join(others) or 'biases'}")
    model.requires_grad_(False)
    modules = peft_modules(model)
    kind = [config.get(key, False) for key in ("lora_dropout", "use_rslora", "use_dora")]
    for theirs in expected(config["target_modules"], modules):
        rank = patterned(config.get("rank_pattern"), theirs, config["r"])
        alpha = patterned(config.get("alpha_pattern"), theirs, config["lora_alpha"])
        for name in modules[theirs]:
            adapt(model, name, rank, alpha, *kind)
    parameters, prefix = dict(model.named_parameters()), model.config.family.prefix
    wanted = layout(parameters, lambda name: peft_name(name, model.config))
    promised = [".lora_", *(f".{module}." for module in config.get("modules_to_save") or [])]
    missing = {key for key in wanted if any(part in f".{key}" for part in promised)}
    for key, tensor in adapter_tensors(path).items():
        key = key if key in wanted else prefix + key
        if key not in wanted:
            raise ValueError(f"{path}: {key} is not part of this model")
        load_tensor(path, key, tensor, [parameters[name] for name in wanted[key]])
        model.fresh.difference_update(wanted[key])
        missing.discard(key)
    missing.update(peft_name(name, model.config) for name in model.fresh)
    if missing:
        raise ValueError(f"{path}: {min(missing)} is missing")
    return model


def load_tensor(path, key, tensor, weights):
    """Copy a tensor of an adapter's file into our weights: several where the file has their layers fused,
    which share an A and have the rows of all else one behind the other."""
    if key.endswith("lora_A.weight"):
        parts = cut_rows(path, key, tensor, weights[:1]) * len(weights)
    else:
        parts = cut_rows(path, key, tensor, weights)
    for weight, part in zip(weights, parts):
        with torch.no_grad():
            weight.copy_(part)
        weight.requires_grad_(True)


def adapter_tensors(path):
    """The tensors of an adapter file by their names in transformers."""
    return {key.removeprefix("base_model.model."): tensor for key, tensor in read_tensors(path).items()}


def expected(targets, modules):
    """Which modules an adapter's target_modules (names, or a pattern) select."""
    if isinstance(targets, str):
        return [theirs for theirs in modules if re.fullmatch(targets, theirs)]
    return [theirs for theirs in modules if any(f".{theirs}".endswith(f".{target}") for target in targets)]


def patterned(pattern, name, default):
    """The value of the first key of `pattern`, a regular expression for the end of a name, that fits."""
    fits = (value for key, value in (pattern or {}).items() if re.fullmatch(rf"(.*\.)?({key})", name))
    return next(fits, default)


def head_of(adapter, under):
    """The head that an adapter was made for, as model.load takes it, on the model in the folder `under`. What
    of it has to be made up, its size included, load_lora overwrites or refuses."""
    task = read_json(adapter / "adapter_config.json").get("task_type")
    if task != TASKS["classes"]:
        return "none" if task == TASKS["none"] else "own"
    config = config_from_hf(read_json(under / "config.json"), under / "config.json")
    for key, tensor in adapter_tensors(adapter / "adapter_model.safetensors").items():
        if config.family.our_name(key).startswith("classifier.out."):
            return len(tensor)
    return config.labels or 1


def read_base(folder):
    """(name, revision) of the model under an adapter."""
    config = read_json(Path(folder) / "adapter_config.json")
    if not config.get("base_model_name_or_path"):
        raise ValueError(
            f"{folder}: adapter_config.json names no base model; give it with --model and --lora"
        )
    return config["base_model_name_or_path"], config.get("revision")
