"""Low-rank adapters (LoRA, arXiv 2106.09685): add, switch off, merge, save and load in PEFT's format.

An adapted layer computes base(x) + scale * B(A(x)) with A (rank, in) and B (out, rank). B starts at zero, so
a fresh adapter changes nothing. Merging is a function and not a mode: train() and eval() change dropout and
nothing else."""

import re
import reprlib
from contextlib import contextmanager
from pathlib import Path
from statistics import mode

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from families import FAMILIES, POSITIVE, SIZE, Family, group_by_file_name, read_config, rename
from files import (
    COUNT,
    FLAG,
    TEXT,
    Kind,
    by_key,
    either,
    list_of,
    map_of,
    number,
    one_of,
    read_settings,
    write_json,
)
from model import Transformer
from ranks import whole
from terminal import UsageError
from weights import cut_rows, read_tensors, write_tensors

TASKS = {"lm": "CAUSAL_LM", "none": "FEATURE_EXTRACTION", "classes": "SEQ_CLS"}  # head -> PEFT's task_type
# last names of the Linears of a block
TARGETS = (
    "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,"
    "in_proj_qkv,in_proj_z,in_proj_b,in_proj_a,out_proj"  # of a recurrent layer
)
INITS = (True, False, "gaussian", "orthogonal", "eva", "mica")  # that start A and B alone
INIT = Kind(
    f"one of {INITS}; others change the base too (PEFT turns such an adapter into a plain one with "
    "save_pretrained(..., path_initial_model_for_weight_conversion=...))",
    lambda x: x in INITS,
)
MERGE = "merge the adapter into its base with PEFT (merge_and_unload) and open that"
KINDS = by_key(  # what the keys of adapter_config.json may hold
    {
        one_of("LORA"): "peft_type",
        one_of(*TASKS.values()): "task_type",
        TEXT: "base_model_name_or_path revision",
        SIZE: "r",
        map_of(SIZE): "rank_pattern",
        POSITIVE: "lora_alpha",
        map_of(POSITIVE): "alpha_pattern",
        number(0, 1): "lora_dropout",
        FLAG: "use_rslora use_dora",
        INIT: "init_lora_weights",
        either(TEXT, list_of(TEXT)): "target_modules exclude_modules layers_pattern",
        either(COUNT, list_of(COUNT)): "layers_to_transform",
        list_of(TEXT): "modules_to_save",
        one_of("none"): "bias",
    }
)
# Keys that change nothing once the tensors are there: notes, how A and B began and were trained, and how
# weights are stored that are no Linears. Any other key must be null, false or empty.
HARMLESS = set(
    "auto_mapping peft_version inference_mode runtime_config loftq_config eva_config corda_config "
    "lora_ga_config ensure_weight_tying fan_in_fan_out megatron_core qalora_group_size".split()
)


class LoRALinear(nn.Module):
    """A frozen Linear plus its low-rank update, scaled by alpha / rank, or by alpha / sqrt(rank) if it is
    rank-stabilised (arXiv 2312.03732). Dropout applies to the update's input, as in the paper.

    With DoRA (arXiv 2402.09353) the rows of the summed weight are scaled to learned lengths, `magnitude`
    (out,); the lengths they had count as constants in the gradient (section 4.3)."""

    def __init__(self, base, rank, alpha, dropout=0.0, rank_stabilised=False, dora=False):
        super().__init__()
        self.base = base
        self.rank = rank
        self.dropout = dropout
        self.enabled = True  # see without_lora
        self.root = 0.5 if rank_stabilised else 1  # alpha is divided by rank to this power
        self.scale = alpha / rank**self.root
        # float32, because bfloat16 would round small steps away
        kind = dict(device=next(base.parameters()).device, dtype=torch.float32)
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **kind))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **kind))
        self.magnitude = nn.Parameter(base.weight.detach().float().norm(dim=1)) if dora else None

    def forward(self, x):
        y = self.base(x)  # (..., out)
        if not self.enabled:
            return y
        x = F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        inner = F.linear(x, self.lora_A)  # (..., rank)
        if self.magnitude is None and inner.dtype == y.dtype:  # product, scale and sum in one kernel
            flat = torch.addmm(y.flatten(0, -2), inner.flatten(0, -2), self.lora_B.T, alpha=self.scale)
            return flat.view_as(y)
        update = (self.scale * F.linear(inner, self.lora_B)).to(y.dtype)
        if self.magnitude is None:
            return y + update
        with torch.no_grad():
            lengths = self.summed_weight().norm(dim=1)  # (out,)
        bias = 0 if self.base.bias is None else self.base.bias  # no part of the weight, so not scaled
        return (self.magnitude / lengths).to(y.dtype) * (y - bias + update) + bias

    def summed_weight(self):
        """The frozen weight plus its low-rank update, (out, in), float32."""
        return self.base.weight.float() + self.scale * (self.lora_B.float() @ self.lora_A.float())

    def merged_weight(self):
        """The weight of a plain Linear that computes the same as this layer, (out, in), float32."""
        weight = self.summed_weight()
        if self.magnitude is None:
            return weight
        return weight * (self.magnitude / weight.norm(dim=1))[:, None]


def layers_of(model, kind):
    """(name, layer) of every layer of a class."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kind)]


def adapters(model: nn.Module) -> list[tuple[str, LoRALinear]]:
    """(name, layer) of every adapted layer."""
    return layers_of(model, LoRALinear)


def linears(model):
    """The name of every linear layer. The one inside an adapter goes by the adapter's name."""
    return [name.removesuffix(".base") for name, _ in layers_of(model, nn.Linear)]


def adapt(model, name, *settings):
    """Wrap the layer of this name in a LoRALinear, and return that."""
    layer = LoRALinear(model.get_submodule(name), *settings).train(model.training)
    model.set_submodule(name, layer)
    return layer


def last_part(name):
    """The last component of a dotted name."""
    return name.rpartition(".")[2]


def add_lora(
    model: Transformer,
    rank: int,
    alpha: float | None = None,
    targets="",
    dropout=0.0,
    rank_stabilised=False,
    dora=False,
    seed=0,
) -> Transformer:
    """Freeze the model, except for a classifier, and put adapters on the Linears of its blocks. Returns the
    model.

    targets: comma-separated last names of the layers to adapt; empty adapts every Linear of a block.
    alpha: None is 2 * rank."""
    if adapters(model):
        raise ValueError("the model has an adapter already; merge it before adding another")
    alpha = 2 * rank if alpha is None else alpha
    kinds = {name: last_part(name) for name in linears(model) if name.startswith("layers.")}
    wanted = (targets or TARGETS).split(",")
    absent = [target for target in wanted if target not in kinds.values()]
    if targets and absent:  # the default may name layers that a family lacks, such as gate_proj
        raise UsageError(f"--lora-targets: no linear layer is called {absent[0]!r}")

    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so every device starts the same
    for name, kind in kinds.items():
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


def merge_lora(model: Transformer) -> Transformer:
    """Add every update to its weight, in float32 with one cast at the end, and put the plain layers back.
    Returns the model."""
    for name, layer in adapters(model):
        if hasattr(layer.base, "codes"):
            raise ValueError("a base that was opened with quantize cannot take in an adapter")
        with torch.no_grad():
            layer.base.weight.copy_(layer.merged_weight())
        model.set_submodule(name, layer.base)
    return model.requires_grad_(True)


@contextmanager
def without_lora(model: Transformer):
    """Switch all adapters off inside the with block, which leaves the frozen base: the reference policy of
    DPO, KTO and GRPO then needs no second copy."""
    layers = [layer for _, layer in adapters(model)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True


# ------------------------------------------------------------------------------------------------ PEFT's form
# One layer of transformers may be several of ours: some families have q, k and v in one matrix.
def peft_modules(model):
    """Name in transformers -> names of our linear layers that it consists of."""
    return group_by_module(linears(model), model)


def group_by_module(names, model):
    """Name in the model of transformers that PEFT adapts -> our names of what it holds."""
    return group_by_file_name(names, lambda name: rename(model.config.file_name(name), model.origin.modules))


def tensor_name(name, config):
    """Our name of a parameter -> its name in a checkpoint, with PEFT's for the parts of an adapter."""
    # layers.0.attn.q_proj.lora_A -> model.layers.0.self_attn.q_proj.lora_A.weight
    name = re.sub(r"\.(lora_[AB])$", r".\1.weight", config.family.file_name(name))
    return name.replace(".magnitude", ".lora_magnitude_vector").replace("head.base.", "head.base_layer.")


def adapter_state(model):
    """(tensors, ranks, alphas) of a model's adapter, each keyed by PEFT's names.

    Where transformers fuses layers of ours, their adapters become one of the summed rank, with the same
    update. For q and k of rank 2 in one matrix, A is (4, in) and B is block-diagonal, (out_q + out_k, 4): the
    first half of A feeds q's rows, the second k's. A layer without an adapter adds rows of zeros. If they all
    have the same A, as those of a file with one layer do, it stays one A."""
    tensors = {}
    ranks = {}
    alphas = {}
    for theirs, names in peft_modules(model).items():
        parts = [model.get_submodule(name) for name in names]
        adapted = [part for part in parts if isinstance(part, LoRALinear)]
        if not adapted:
            continue
        first = adapted[0]  # the others have the same scale and kind
        downs = [whole(part.lora_A) for part in adapted]
        shared = adapted == parts and all(torch.equal(down, downs[0]) for down in downs)
        if shared:
            downs = downs[:1]
        ranks[theirs] = sum(map(len, downs))
        alphas[theirs] = round(first.scale * ranks[theirs] ** first.root, 9)  # keeps the scale at this rank
        blocks = []
        lengths = []
        for part in parts:
            if part in adapted:
                blocks.append(whole(part.lora_B).cpu())
            else:
                blocks.append(torch.zeros(part.out_features, 0))
            if first.magnitude is not None:
                length = part.magnitude if part in adapted else part.weight.float().norm(dim=1)
                lengths.append(whole(length))
        key = f"base_model.model.{theirs}.lora_"
        tensors[f"{key}A.weight"] = torch.cat(downs)
        tensors[f"{key}B.weight"] = torch.cat(blocks) if shared else torch.block_diag(*blocks)
        if names == ["head"]:  # PEFT saves what lies under it, too
            tensors[f"base_model.model.{theirs}.base_layer.weight"] = whole(first.base.weight)
        if lengths:
            tensors[f"{key}magnitude_vector"] = torch.cat(lengths)
    return tensors, ranks, alphas


def save_lora(model: Transformer, folder: Path | str | None, base, revision: str | None = None):
    """Write adapter_config.json and adapter_model.safetensors as PEFT does. `base` names the model
    underneath. With None as the folder it only gathers the weights, as model.save does.

    Trained parameters outside the adapter, such as a classifier, are saved whole (PEFT's modules_to_save)."""
    state, ranks, alphas = adapter_state(model)
    trained = {key: weight for key, weight in model.named_parameters() if weight.requires_grad}
    saved_modules = set()
    for theirs, keys in group_by_module(trained, model).items():
        if not theirs.endswith(("lora_A", "lora_B", "magnitude")):
            state[f"base_model.model.{theirs}"] = torch.cat([whole(trained[key]) for key in keys])
            module = theirs.rpartition(".")[0]
            saved_modules.add("classifier" if module.startswith("classifier.") else module)
    if folder is None:  # every rank has taken part in the gathering above
        return

    layer = adapters(model)[0][1]
    head = model.config.head
    rank = mode(ranks.values())  # of most layers; the patterns list the others, such as fused ones
    alpha = mode(alphas.values())
    config = {
        "peft_type": "LORA",
        # with a task PEFT expects its classifier in the file
        "task_type": TASKS[head] if head != "classes" or "classifier.out.weight" in trained else None,
        "base_model_name_or_path": str(base),
        "revision": revision,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": exceptions(ranks, rank),
        "alpha_pattern": exceptions(alphas, alpha),
        "lora_dropout": layer.dropout,
        "use_rslora": layer.root == 0.5,
        "use_dora": layer.magnitude is not None,
        "target_modules": target_modules(model, ranks),
        "modules_to_save": sorted(saved_modules) or None,
        "bias": "none",
        "inference_mode": True,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.float() for key, value in state.items()}
    write_tensors(folder / "adapter_model.safetensors", state)
    write_json(folder / "adapter_config.json", config)


def exceptions(values, usual):
    """PEFT's rank_pattern or alpha_pattern: name -> value, where it is not the usual one."""
    return {theirs: value for theirs, value in values.items() if value != usual}


def target_modules(model, adapted):
    """The names by which PEFT finds the adapted modules: their last components, or if those would select
    other modules too, such as those of a part that we leave out, their full names."""
    short = sorted({last_part(theirs) for theirs in adapted})
    # transformers has a pooler even where we have no classifier
    selected = select(short, [*peft_modules(model), "pooler.dense"])
    alone = not model.origin.modules and sorted(selected) == sorted(adapted)
    return short if alone else sorted(adapted)


def load_lora(model: Transformer, folder: Path | str) -> Transformer:
    """Put a PEFT LoRA adapter on a model. Loading is strict: every tensor must fit, none may be missing.
    Returns the model."""
    folder = Path(folder)
    path = folder / "adapter_model.safetensors"
    config = read_adapter_config(folder)
    saved = config.get("modules_to_save") or []
    held = adapter_tensors(path, model.origin)
    for key in held:
        if ".lora_embedding_" in key:
            raise ValueError(f"{path}: {key} adapts an embedding, which is not supported; {MERGE}")
    parts = {key: model.config.family.our_name(key).split(".")[0] for key in [*held, *saved]}
    if model.config.tied and {"head", "embed"}.intersection(parts.values()):
        untie(model)
    dropped = {"head", "classifier"}.difference(dict(model.named_children()))  # as in a checkpoint
    tensors = {key: tensor for key, tensor in held.items() if parts[key] not in dropped}
    model.requires_grad_(False)
    adapt_targets(model, tensors, config, folder / "adapter_config.json")

    parameters = dict(model.named_parameters())
    wanted = group_by_file_name(parameters, lambda name: tensor_name(name, model.config))
    # Missing at first is every tensor of an update and of a module that the config says was saved.
    promised = [".lora_", *(f".{module}." for module in saved)]
    missing = set()
    for key in wanted:
        if any(part in f".{key}" for part in promised):
            missing.add(key)
    for key, tensor in tensors.items():
        if key not in wanted:
            raise ValueError(f"{path}: {key} is not part of this model")
        load_tensor(path, key, tensor, [parameters[name] for name in wanted[key]])
        model.fresh.difference_update(wanted[key])
        missing.discard(key)
    # a classifier that was made up must not pass for a trained one
    missing.update(tensor_name(name, model.config) for name in model.fresh)
    if missing:
        raise ValueError(f"{path}: {min(missing)} is missing")
    return model


def untie(model):
    """Give the head a matrix of its own, so that an adapter can change it, or the embedding, alone."""
    model.config.tied = False
    model.config.hf = model.config.hf | {"tie_word_embeddings": False}
    model.head.weight = nn.Parameter(model.embed.weight.detach().clone())


def adapt_targets(model, tensors, config, where):
    """Put empty adapters on the layers that target_modules selects. With settings that narrow the selection,
    these are the layers that tensors are there for."""
    ranks = {tensor.shape[:1] for key, tensor in tensors.items() if ".lora_A." in key}
    held = {key.partition(".lora_")[0] for key in tensors}
    modules = peft_modules(model)
    narrowed = any(config.get(key) not in (None, []) for key in ("exclude_modules", "layers_to_transform"))
    settings = [config.get(key) or 0 for key in ("lora_dropout", "use_rslora", "use_dora")]
    try:
        for theirs in select(config["target_modules"], modules):
            if narrowed and model.config.family.file_name(modules[theirs][0]) not in held:
                continue
            rank = match_pattern(config.get("rank_pattern"), theirs, config["r"])
            alpha = match_pattern(config.get("alpha_pattern"), theirs, config["lora_alpha"])
            if (rank,) not in ranks:  # before that much memory is taken
                raise ValueError(f"{where}: r is {rank} for {theirs}, but no tensor has that rank")
            for name in modules[theirs]:
                adapt(model, name, rank, alpha, *settings)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{where}: target_modules, rank_pattern or alpha_pattern: no regular expression ({error})"
        ) from error
    if not adapters(model):
        raise ValueError(f"{where}: target_modules selects no layer of this model")


def load_tensor(path, key, tensor, weights):
    """Copy a tensor of an adapter's file into our weights, several if the file has their layers fused. Fused
    layers share A; every other tensor is cut by rows."""
    if key.endswith("lora_A.weight"):
        parts = cut_rows(path, key, tensor, weights[:1]) * len(weights)
    else:
        parts = cut_rows(path, key, tensor, weights)
    for weight, part in zip(weights, parts):
        with torch.no_grad():
            weight.copy_(part)
        weight.requires_grad_(".base_layer." not in key)


def adapter_tensors(path: Path, family: Family) -> dict[str, Tensor]:
    """The tensors of an adapter file, keyed by their usual names in the base's family."""
    tensors = {key.removeprefix("base_model.model."): tensor for key, tensor in read_tensors(path).items()}
    return {name: tensors[key] for key, name in family.usual_names(tensors).items()}


def select(targets, modules):
    """The modules that PEFT's target_modules select: a list of endings, or one regular expression."""
    if isinstance(targets, str):
        return [theirs for theirs in modules if re.fullmatch(targets, theirs)]
    endings = tuple(f".{target}" for target in targets)
    return [theirs for theirs in modules if f".{theirs}".endswith(endings)]


def match_pattern(patterns, name, default):
    """The value of the first key of `patterns`, a regular expression for the end of a name, that matches."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return value
    return default


def head_of_adapter(adapter: Path, base: Path) -> str | int:
    """The head that an adapter was trained for, as an argument of model.load for its base model.

    If that load has to make a classifier up, its size included, load_lora overwrites it or refuses it."""
    task = read_adapter_config(adapter).get("task_type")
    if task == TASKS["none"]:
        return "none"
    config, name = read_config(base)
    for key, tensor in adapter_tensors(adapter / "adapter_model.safetensors", FAMILIES[name]).items():
        if re.match(r"classifier\.out\.(weight|bias)", config.family.our_name(key)) and tensor.dim():
            return len(tensor)  # one row or one bias per class
    return (config.labels or 1) if task == TASKS["classes"] else "own"


def read_adapter_config(folder: Path | str) -> dict:
    """The adapter_config.json of a folder."""
    path = Path(folder) / "adapter_config.json"
    config = read_settings(path, KINDS, ["peft_type", "r", "lora_alpha", "target_modules"])
    for key, value in config.items():
        if value and key not in KINDS and key not in HARMLESS:
            raise ValueError(f"{path}: {key} is {reprlib.repr(value)}, which is not supported; {MERGE}")
    return config


def read_base(folder: Path | str) -> tuple[str, str | None]:
    """(name, revision) of the base model that an adapter names."""
    config = read_adapter_config(folder)
    if not config.get("base_model_name_or_path"):
        raise ValueError(
            f"{folder}: adapter_config.json names no base model; give it with --model and --lora"
        )
    return config["base_model_name_or_path"], config.get("revision")
