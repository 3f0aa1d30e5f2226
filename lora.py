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
from families import config_from_hf, inverse, names_of, rename, row_of
from ranks import whole

TARGETS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


class LoRALinear(nn.Module):
    """A frozen Linear and its low-rank update. Dropout falls on the update's input, as in the paper.

    With DoRA (arXiv 2402.09353) the sum's rows are scaled to learned lengths, `magnitude` (out,); their own
    lengths count as constants in the gradient (section 4.3)."""

    def __init__(self, base, rank, scale, dropout=0.0, dora=False):
        super().__init__()
        self.base, self.rank, self.scale, self.dropout, self.enabled = base, rank, scale, dropout, True
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
            lengths = (self.base.weight.float() + self.delta()).norm(dim=1)
        bias = 0 if self.base.bias is None else self.base.bias
        return (self.magnitude / lengths).to(y.dtype) * (y - bias + update) + bias

    def delta(self):
        """The update as a matrix (out, in), float32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())

    def merged(self):
        """The weight with its update, (out, in), float32."""
        weight = self.base.weight.float() + self.delta()
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
    parent, _, last = name.rpartition(".")
    layer = LoRALinear(model.get_submodule(name), *settings)
    setattr(model.get_submodule(parent), last, layer)
    return layer


def add_lora(model, rank, alpha=None, targets="", dropout=0.0, rank_stabilised=False, dora=False, seed=0):
    """Freeze the model, but for a classifier, and put an adapter on every Linear of a block whose last name
    is in `targets` (comma-separated; empty is all of a block).

    The update is scaled by alpha / rank, or alpha / sqrt(rank) if rank-stabilised (arXiv 2312.03732); alpha
    None is 2 * rank. Returns the model, which remembers what its adapter's file needs as `model.lora`."""
    if adapters(model):
        raise ValueError("the model has an adapter already; merge it before adding another")
    alpha = 2 * rank if alpha is None else alpha
    scale = alpha / rank**0.5 if rank_stabilised else alpha / rank
    last = {name: name.rpartition(".")[2] for name, _ in linears(model) if name.startswith("layers.")}
    names = targets.split(",") if targets else TARGETS.split(",")
    chosen = [name for name in last if last[name] in names]
    absent = [target for target in names if target not in last.values()]
    if targets and absent:
        raise ValueError(f"--lora-targets: no linear layer is called {absent[0]!r}")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in chosen:
        layer = adapt(model, name, rank, scale, dropout, dora)
        bound = layer.base.in_features**-0.5  # kaiming_uniform with a = sqrt(5), as in the reference code
        fresh = torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            layer.lora_A.copy_(fresh)
    for key, weight in model.named_parameters():
        if key.startswith("classifier."):
            weight.requires_grad_(True)
    model.lora = dict(dropout=dropout, rank_stabilised=rank_stabilised, dora=dora)
    return model


def merge_lora(model):
    """Add every update to its weight, in float32 and cast once, and put the plain layers back. Returns the
    model."""
    if not adapters(model):
        raise ValueError("the model has no adapter to merge")
    for name, layer in adapters(model):
        with torch.no_grad():
            layer.base.weight.copy_(layer.merged())
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
def peft_name(name, config):
    """A layer's name in transformers, where several of ours may be one."""
    row = row_of(config)
    for fused, parts in row.get("fused", {}).items():
        for part in parts:
            name = re.sub(rf"(^|\.){re.escape(part)}$", rf"\g<1>{fused}", name)
    prefix = row.get("prefix", "model") + "." if config.labels == 0 else ""
    return rename(name, inverse(names_of(row))).removeprefix(prefix)


def peft_modules(model):
    """Name in transformers -> our linear layers that it is."""
    modules = {}
    for name, _ in linears(model):
        modules.setdefault(peft_name(name, model.config), []).append(name)
    return modules


def save_lora(model, folder, base, revision=None):
    """Write adapter_config.json and adapter_model.safetensors as PEFT does; `base` names the model
    underneath. None as the folder as in model.save.

    Layers that transformers fuses are written as one of the summed rank, which is the same update. Parameters
    that are trained themselves, such as a classifier, are saved whole (PEFT's modules_to_save)."""
    settings, modules, adapted = model.lora, peft_modules(model), dict(adapters(model))
    state, ranks, alphas, saved = {}, {}, {}, set()
    for theirs, names in modules.items():
        parts = [model.get_submodule(name) for name in names]
        own = [part for part in parts if isinstance(part, LoRALinear)]
        if not own:
            continue
        if len({part.scale for part in own}) > 1:
            raise ValueError(f"{theirs}: the adapters of {', '.join(names)} must have one scale")
        ranks[theirs] = sum(part.rank for part in own)
        alphas[theirs] = round(own[0].scale * ranks[theirs] ** (0.5 if settings["rank_stabilised"] else 1), 9)
        key = f"base_model.model.{theirs}.lora_"
        state[f"{key}A.weight"] = torch.cat([whole(part.lora_A) for part in own])
        blocks = [
            whole(part.lora_B).cpu() if part in own else torch.zeros(part.out_features, 0) for part in parts
        ]
        state[f"{key}B.weight"] = torch.block_diag(*blocks)
        if settings["dora"]:
            rows = [part.magnitude if part in own else part.weight.float().norm(dim=1) for part in parts]
            lengths = [whole(length) for length in rows]
            state[f"{key}magnitude_vector"] = torch.cat(lengths)
    inner = {f"{name}.{side}" for name in adapted for side in ("lora_A", "lora_B", "magnitude")}
    for key, weight in model.named_parameters():
        if weight.requires_grad and key not in inner:
            theirs = peft_name(key, model.config)
            state[f"base_model.model.{theirs}"] = whole(weight)
            module = theirs.rpartition(".")[0]
            saved.add("classifier" if module.startswith("classifier.") else module)
    rank, alpha = (max(found.values(), key=list(found.values()).count) for found in (ranks, alphas))
    last = {theirs: theirs.rpartition(".")[2] for theirs in ranks}
    config = {
        "peft_type": "LORA",
        "task_type": {None: "CAUSAL_LM", 0: "FEATURE_EXTRACTION"}.get(model.config.labels, "SEQ_CLS"),
        "base_model_name_or_path": str(base),
        "revision": revision,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {last[theirs]: r for theirs, r in ranks.items() if r != rank},
        "alpha_pattern": {last[theirs]: a for theirs, a in alphas.items() if a != alpha},
        "lora_dropout": settings["dropout"],
        "use_rslora": settings["rank_stabilised"],
        "use_dora": settings["dora"],
        "target_modules": targets_of(modules, ranks),
        "modules_to_save": sorted(saved) or None,
        "bias": "none",
        "inference_mode": True,
    }
    if folder is None:
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().float().cpu().contiguous() for key, value in state.items()}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


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
    config = models.read_json(where)
    others = [k for k in ("layers_to_transform", "exclude_modules", "target_parameters") if config.get(k)]
    if config.get("peft_type") != "LORA" or others or config.get("bias", "none") != "none":
        raise ValueError(f"{where}: only LoRA is supported, and without {', '.join(others) or 'biases'}")
    if adapters(model):
        raise ValueError("the model has an adapter already; merge it before adding another")
    dora, root, dropout = (config.get(key, False) for key in ("use_dora", "use_rslora", "lora_dropout"))
    modules, prefix = peft_modules(model), row_of(model.config).get("prefix", "model") + "."
    update, whole = {}, {}
    for key, tensor in adapter_tensors(path).items():
        theirs, _, side = re.sub(r"\.lora_(A|B|magnitude_vector)(\.weight)?$", r":\1", key).partition(":")
        theirs = theirs if theirs in modules or not side else prefix + theirs
        if side and theirs not in modules:
            raise ValueError(f"{path}: {key} belongs to no layer of this model")
        update.setdefault(theirs, {})[side] = tensor
        if not side:
            whole[key] = update.pop(key)[""]
    sides = {"A", "B", "magnitude_vector"} if dora else {"A", "B"}
    for theirs in sorted({*update, *expected(config["target_modules"], modules)}):
        for side in sorted(sides ^ update.get(theirs, {}).keys()):
            what = "is missing" if side in sides else "has no place without use_dora"
            raise ValueError(f"{path}: {theirs}.lora_{side} {what}")
    model.requires_grad_(False)
    for theirs, found in update.items():
        names = modules[theirs]
        linear = [model.get_submodule(name) for name in names]
        rank = patterned(config.get("rank_pattern"), theirs, config["r"])
        alpha = patterned(config.get("alpha_pattern"), theirs, config["lora_alpha"])
        sizes = [layer.out_features for layer in linear]
        shapes = {"A": (rank, linear[0].in_features), "B": (sum(sizes), rank)}
        for side, tensor in found.items():
            shape = shapes.get(side, (sum(sizes),))
            if tensor.shape != shape:
                found_shape = f"{tuple(tensor.shape)}, expected {shape}"
                raise ValueError(f"{path}: {theirs}.lora_{side} has shape {found_shape}")
        rows = [found[side].split(sizes) for side in sorted(sides - {"A"})]
        for name, *own in zip(names, *rows):
            layer = adapt(model, name, rank, alpha / (rank**0.5 if root else rank), dropout, dora)
            with torch.no_grad():
                layer.lora_A.copy_(found["A"])
                for weight, tensor in zip((layer.lora_B, layer.magnitude), own):
                    weight.copy_(tensor)
    load_whole(model, whole, config.get("modules_to_save") or [], path)
    model.lora = dict(dropout=dropout, rank_stabilised=root, dora=dora)
    return model


def adapter_tensors(path):
    """The tensors of an adapter file by their names in transformers."""
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: truncated, damaged or missing ({error})") from error
    return {key.removeprefix("base_model.model."): tensor for key, tensor in state.items()}


def expected(targets, modules):
    """Which modules an adapter's target_modules (names, or a pattern) select."""
    if isinstance(targets, str):
        return [theirs for theirs in modules if re.fullmatch(targets, theirs)]
    return [theirs for theirs in modules if any(f".{theirs}".endswith(f".{target}") for target in targets)]


def patterned(pattern, name, default):
    """The value of the first key of `pattern`, a regular expression for the end of a name, that fits."""
    fits = (value for key, value in (pattern or {}).items() if re.fullmatch(rf"(.*\.)?({key})", name))
    return next(fits, default)


def load_whole(model, whole, promised, path):
    """Copy an adapter's whole tensors over the model's own, strictly: all of the modules that are `promised`
    are there, and a classifier that neither the adapter nor the base has is an error."""
    row, parameters = row_of(model.config), dict(model.named_parameters())
    for theirs, tensor in whole.items():
        ours = rename(theirs, names_of(row))
        if ours not in parameters:
            ours = rename(f"{row.get('prefix', 'model')}.{theirs}", names_of(row))
        if ours not in parameters or parameters[ours].shape != tensor.shape:
            own = tuple(parameters[ours].shape) if ours in parameters else "no such parameter"
            raise ValueError(f"{path}: {theirs} has shape {tuple(tensor.shape)}, this model {own}")
        with torch.no_grad():
            parameters[ours].copy_(tensor)
        parameters[ours].requires_grad_(True)
        model.fresh.discard(ours)
    for key in parameters:
        theirs = peft_name(key, model.config)
        if theirs not in whole and any(f".{module}." in f".{theirs}" for module in promised):
            raise ValueError(f"{path}: {theirs} is missing, which modules_to_save promises")
    if model.fresh:
        missing = peft_name(min(model.fresh), model.config)
        raise ValueError(f"{path}: {missing} is missing, and the base model has none either")


def open_model(name, lora="", dtype=None, device="cpu", revision=None, labels=None, seed=None):
    """(model, folder with its tokenizer, (name, revision) of its base): a run, a model or adapter folder, or
    a Hub name; `lora` names an adapter to put on a full model. labels and seed as in model.load, for a full
    model; under an adapter they are the adapter's."""
    folder = under = models.resolve(name, revision)
    base, adapter = (name, revision), models.resolve(lora) if lora else None
    if (folder / "adapter_config.json").exists():
        if adapter:
            raise ValueError(f"{name} is an adapter itself; --lora needs a full model under it")
        base, adapter = read_base(folder), folder
        under = models.resolve(*base)
    if adapter:
        opened = models.load(under, dtype, device, **head_of(adapter, under))
        load_lora(opened, adapter)
    else:
        opened = models.load(under, dtype, device, labels=labels, seed=seed)
    if Path(base[0]).exists():
        base = (str(under.resolve()), None)  # a link such as runs/latest may move
    return opened, folder if (folder / "tokenizer.json").exists() else under, base


def head_of(adapter, under):
    """labels and seed for models.load: the head that an adapter was made for."""
    task = models.read_json(adapter / "adapter_config.json").get("task_type")
    if task != "SEQ_CLS":
        return dict(labels=0) if task == "FEATURE_EXTRACTION" else {}
    config = config_from_hf(models.read_json(under / "config.json"), under / "config.json")
    path = adapter / "adapter_model.safetensors"
    for key, tensor in adapter_tensors(path).items():
        if rename(key, names_of(row_of(config))) == "classifier.out.weight":
            return dict(labels=len(tensor), seed=0)  # what is made anew is overwritten, or load_lora objects
    if not config.labels:
        missing = peft_name("classifier.out.weight", config)
        raise ValueError(f"{path}: {missing} is missing, and the base model has none either")
    return {}


def read_base(folder):
    """(name, revision) of the model under an adapter."""
    config = models.read_json(Path(folder) / "adapter_config.json")
    if not config.get("base_model_name_or_path"):
        raise ValueError(
            f"{folder}: adapter_config.json names no base model; give it with --model and --lora"
        )
    return config["base_model_name_or_path"], config.get("revision")
