"""The models: one configurable Transformer that reads and writes Hugging Face checkpoints.

Read families.py first (what a checkpoint may look like) and attention.py (who sees whom), then the layers,
Transformer, load and save. cache.py holds the cache of keys and values.

Shapes, in every file: B batch, T query length, S key length, D model width, H query heads, K key/value heads,
E head width, V vocabulary, N examples, G group.
"""

import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.checkpoint import checkpoint

from attention import by_text, dense, ways
from families import FAMILIES, config_from_hf, inverse, names_of, rename, row_of, set_labels
from ranks import whole

BUFFERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids)$")  # of old checkpoints, computed here
SHARD_BYTES = 5_000_000_000  # the Hub's own limit for one file


# ------------------------------------------------------------------------------------------------ rotary
# positions
def llama3_scaling(frequencies, rope):
    """Llama 3.1's rule: long wavelengths slow down by `factor`, short ones stay, those between are
    blended."""
    wavelengths = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    blend = (rope["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    blend = blend.clamp(0, 1)
    return (1 - blend) * frequencies / rope["factor"] + blend * frequencies


def rotary(rope, head_dim, positions):
    """cos and sin, each (B, 1, T, E), of positions (B, T), the first half of sin negative as `rotate` wants
    it; angles in float32 whatever the model's dtype.

    Dynamic scaling raises the base of a row that is longer than the model was trained for, by its own length,
    so that a batch means what its rows mean alone; keys in a cache keep the base they were rotated with."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    base, kind = rope["rope_theta"], rope["rope_type"]
    if kind == "dynamic":
        longest = rope["max_position_embeddings"]
        excess = ((positions.amax(1) + 1) / longest).clamp(min=1) - 1  # (B,)
        base = base * (1 + rope["factor"] * excess) ** (head_dim / (head_dim - 2))
        base = base[:, None, None, None]
    frequencies = base**-exponents  # (E/2,) or (B, 1, 1, E/2)
    if kind == "linear":
        frequencies = frequencies / rope["factor"]
    elif kind == "llama3":
        frequencies = llama3_scaling(frequencies, rope)
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, E/2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x, cos, sin):
    """Rotate pairs (first half, second half) of the head width: x (B, heads, T, E); cos, sin of `rotary`."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


# ------------------------------------------------------------------------------------------------ layers
ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
}


def activation(name):
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


class RMSNorm(nn.Module):
    """x / rms(x) in float32, then scaled: by the weight after casting back, or by 1 + weight before it
    (unit)."""

    def __init__(self, dim, eps, unit=False):
        super().__init__()
        self.weight, self.eps, self.unit = nn.Parameter(torch.ones(dim)), eps, unit

    def forward(self, x):
        shape = self.weight.shape
        if self.unit:
            return F.rms_norm(x.float(), shape, 1 + self.weight.float(), self.eps).to(x.dtype)
        if x.dtype == torch.float32:
            return F.rms_norm(x, shape, self.weight, self.eps)
        return F.rms_norm(x.float(), shape, None, self.eps).to(x.dtype) * self.weight


def norm_of(config, dim=None, wanted=True):
    """The family's kind of norm, or nothing."""
    dim = dim or config.dim
    if not wanted:
        return nn.Identity()
    if config.norm == "layer":
        return nn.LayerNorm(dim, config.eps, bias=config.norm_bias)
    return RMSNorm(dim, config.eps, config.norm == "rms1")


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        D, H, K, E = config.dim, config.heads, config.kv_heads, config.head_dim
        self.q_proj = nn.Linear(D, H * E, bias=config.qkv_bias)
        self.k_proj = nn.Linear(D, K * E, bias=config.qkv_bias)
        self.v_proj = nn.Linear(D, K * E, bias=config.qkv_bias)
        self.o_proj = nn.Linear(H * E, D, bias=config.o_bias)
        self.q_norm, self.k_norm = (norm_of(config, E, config.qk_norm) for _ in range(2))
        self.head_dim, self.causal = E, config.causal
        self.scale, self.softcap = config.scale or E**-0.5, config.softcap
        self.widths = H * E, K * E, K * E

    def project(self, x):
        """q, k and v, (B, T, heads E), of x (B, T, D)."""
        if hasattr(self, "qkv_proj"):  # see cache.py
            return self.qkv_proj(x).split(self.widths, dim=-1)
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def forward(self, x, rope, way, cache=None, layer=0):
        B, T, _ = x.shape
        q, k, v = self.project(x)
        q = self.q_norm(q.view(B, T, -1, self.head_dim)).transpose(1, 2)  # (B, H, T, E)
        k = self.k_norm(k.view(B, T, -1, self.head_dim)).transpose(1, 2)  # (B, K, T, E)
        v = v.view(B, T, -1, self.head_dim).transpose(1, 2)
        dtype = v.dtype
        if rope is not None:
            q, k = rotate(q, *rope).to(dtype), rotate(k, *rope).to(dtype)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # (B, K, S, E)
        if q.device.type == "cpu":  # its bfloat16 kernel takes twice the time of float32
            q, k, v = q.float(), k.float(), v.float()
        attend, mask = way
        with torch.autocast(q.device.type, enabled=False):
            x = attend(q, k, v, mask, self.causal, self.scale, self.softcap)  # (B, H, T, E)
        return self.o_proj(x.to(dtype).transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        if config.gated:
            self.gate_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=config.mlp_bias)
        self.activation, self.gated = activation(config.activation), config.gated

    def forward(self, x):
        if not self.gated:
            return self.down_proj(self.activation(self.up_proj(x)))
        if hasattr(self, "gate_up_proj"):  # see cache.py
            gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(self.activation(gate) * up)


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.post, sandwich = config.norms == "post", config.norms == "sandwich"
        self.attn_norm = norm_of(config, wanted=layer > 0 or config.first_norm)
        self.attn, self.attn_out_norm = Attention(config), norm_of(config, wanted=sandwich)
        self.mlp_norm = norm_of(config)
        self.mlp, self.mlp_out_norm = MLP(config), norm_of(config, wanted=sandwich)

    def forward(self, x, rope, way, cache=None, layer=0):
        if self.post:
            x = self.attn_norm(x + self.attn(x, rope, way, cache, layer))
            return self.mlp_norm(x + self.mlp(x))
        x = x + self.attn_out_norm(self.attn(self.attn_norm(x), rope, way, cache, layer))
        return x + self.mlp_out_norm(self.mlp(self.mlp_norm(x)))

    def step(self, x, rope, way, cache, layer):
        """`forward` of a fused block with nothing but norms before, for one token a row, (B, D): the same
        operations without the modules around them, which take a fifth of the time of a small model."""
        attn, mlp, B = self.attn, self.mlp, len(x)
        qkv = attn.qkv_proj(self.attn_norm(x)).view(B, -1, 1, attn.head_dim)  # (B, H + 2 K, 1, E)
        q, k, v = qkv.split([width // attn.head_dim for width in attn.widths], dim=1)
        heads = q.shape[1]
        if rope is not None:
            turned = rotate(qkv[:, : -v.shape[1]], *rope)
            q, k = turned[:, :heads], turned[:, heads:]
        attend, mask = way
        k, v = cache.append(layer, k, v)
        y = attend(q, k, v, mask, True, attn.scale, attn.softcap).view(B, -1)
        x = x + attn.o_proj(y)
        gate, up = mlp.gate_up_proj(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + mlp.down_proj(mlp.activation(gate) * up)


class Classifier(nn.Module):
    """Scores of classes from a pooled hidden state: a linear layer, in some families with another before
    it."""

    def __init__(self, config):
        super().__init__()
        self.dense = (
            nn.Linear(config.dim, config.dim, bias=config.dense_bias) if config.dense else nn.Identity()
        )
        self.activation = activation(config.dense) if config.dense else nn.Identity()
        self.dense_norm = norm_of(config, wanted=config.dense_norm)
        self.out = nn.Linear(config.dim, config.labels, bias=config.classes_bias)

    def forward(self, x):
        return self.out(self.dense_norm(self.activation(self.dense(x))))


def pool(hidden, end, how):
    """One vector a row, (B, D), of hidden states (B, T, D): the first (cls), last or mean of the tokens that
    count, those whose `end` (B, T) is above 0; None counts all, on whichever side the padding is."""
    valid = torch.ones(hidden.shape[:2], device=hidden.device) if end is None else (end > 0).float()  # (B, T)
    if how == "mean":
        total = (hidden.float() * valid[:, :, None]).sum(1)
        return (total / valid.sum(1).clamp(min=1)[:, None]).to(hidden.dtype)
    slots = torch.arange(1, hidden.shape[1] + 1, device=hidden.device)
    slot = (valid / slots if how == "cls" else valid * slots).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), slot]


class Transformer(nn.Module):
    """A decoder or encoder. `forward` gives hidden states; `logits` or `classify` is its head, so that a loss
    can choose its positions between."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.recompute = False  # activations of each block are computed again in the backward pass
        self.simple = False  # fused, and `Block.step` knows all that its blocks do
        self.fresh = set()  # names of a classifier's weights that no file held
        self.embed = nn.Embedding(config.vocab, config.dim)
        if config.places:
            self.places = nn.Embedding(config.places, config.dim)
        if config.types:
            self.types = nn.Embedding(config.types, config.dim)
        self.embed_norm = norm_of(config, wanted=config.embed_norm)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = norm_of(config, wanted=config.final_norm)
        if config.labels is None:
            self.head = nn.Linear(config.dim, config.vocab, bias=False)
        elif config.labels:
            self.classifier = Classifier(config)
        if config.tied:
            self.head.weight = self.embed.weight

    @property
    def device(self):
        return self.embed.weight.device

    def forward(self, ids, positions=None, end=None, cache=None, mask=None, noise=None):
        """Hidden states after the last norm, (B, T, D).

        ids (B, T). positions (B, T): a token's place in its own text, by default 0, 1, 2 ... end (B, T): see
        `visible`; None is a plain row, in a decoder right for right-padded batches too. cache: a KVCache,
        read and extended, in which padding is what lies behind a row's text and needs no `end`. mask (B, 1,
        T, S) replaces the mask that these give. noise (B, T, D) is added to the embeddings (NEFTune)."""
        config, (B, T) = self.config, ids.shape
        if positions is None:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + T, device=ids.device).expand(B, T)
        keys, seen = positions, None  # (B, S)
        if cache is not None:
            keys, seen = cache.open(positions)
            mask, end = seen if mask is None else mask, None
        alone = mask is None and (cache is None or keys.shape[1] == T)
        shared = cache.shared if cache is not None and T == 1 else 0
        full, near = ways(config, positions, end, keys, mask, alone, shared)
        if cache is not None and cache.near:
            near = dense, cache.window
        x = self.embedded(ids, positions)  # (B, T, D)
        if noise is not None:
            x = x + noise
        rope, near_rope = self.ropes(positions, x.dtype)
        if full[0] is by_text:  # all tokens as one row, without the padding
            slots = end.flatten().nonzero()[:, 0]  # (N,)
            x = x.flatten(0, 1)[None, slots]  # (1, N, D)
            rope, near_rope = (
                r and [a.flatten(0, 2)[None, None, slots] for a in r] for r in (rope, near_rope)
            )
        if T == 1 and self.simple and cache is not None:
            x = x[:, 0]
            for layer, block in enumerate(self.layers):
                x = block.step(x, rope, full, cache, layer)
            return self.norm(x)[:, None]
        for layer, block in enumerate(self.layers):
            slides = bool(config.sliding) and config.sliding[layer]
            inputs = (x, near_rope if slides else rope, near if slides else full, cache, layer)
            again = self.recompute and torch.is_grad_enabled()
            x = checkpoint(block, *inputs, use_reentrant=False) if again else block(*inputs)
        x = self.norm(x)
        if full[0] is by_text:
            x = x.new_zeros(B * T, x.shape[2]).index_copy(0, slots, x[0]).view(B, T, -1)
        return x

    def embedded(self, ids, positions):
        config, x = self.config, self.embed(ids)
        if config.embed_scale:
            x = x * torch.tensor(config.dim**0.5, dtype=x.dtype)
        if config.types:
            x = x + self.types.weight[0]
        if config.places:
            if ids.shape[1] + config.place_offset > config.places:
                raise ValueError(
                    f"{ids.shape[1]} tokens, but the model reads {config.places - config.place_offset}"
                )
            x = x + self.places(positions + config.place_offset)
        return self.embed_norm(x)

    def ropes(self, positions, dtype):
        """(cos, sin) of full and of sliding layers, None where positions are learned."""
        config = self.config
        if config.rope is None:
            return None, None
        full, sliding = (
            rope and [angle.to(dtype) for angle in rotary(rope, config.head_dim, positions)]
            for rope in (config.rope, config.local_rope)
        )
        return full, sliding or full

    def logits(self, hidden):
        """Scores over the vocabulary, (..., V), of hidden states (..., D)."""
        cap, logits = self.config.logit_softcap, self.head(hidden)
        return cap * torch.tanh(logits / cap) if cap else logits

    def classify(self, hidden, end=None):
        """Scores of the classes, (B, labels), of hidden states (B, T, D), pooled as the checkpoint says."""
        return self.classifier(pool(hidden, end, self.config.pooling))

    def initialise(self, seed):
        """Fresh weights: matrices normal with std 1/sqrt(fan in), embeddings with 1/sqrt(D), norms one,
        biases zero.

        What a residual branch adds starts at zero (its output matrix), so that depth costs nothing at the
        start."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.dim() == 1:
                    weight.fill_(0.0 if name.endswith("bias") else 1.0)
                elif name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.zero_()
                else:
                    fresh = torch.empty(weight.shape).normal_(0, weight.shape[1] ** -0.5, generator=generator)
                    weight.copy_(fresh)
        return self


# ------------------------------------------------------------------------------------------------ loading
UNWANTED = ["[!0-9]*/*", "consolidated*"]  # other formats of the same weights; 1_Pooling/ is wanted
WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja"]  # of a Hub repository; never its code or pickles


def resolve(name, revision=None):
    """The local folder of a run, a folder or a Hub name: Path. Downloads what is needed of a Hub
    repository."""
    path, name = Path(name), str(name)
    if (path / "run.json").exists():
        if not (path / "model").exists():
            raise FileNotFoundError(f"{path}: this run has no checkpoint yet")
        return path / "model"
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FileNotFoundError(f"{name}: no such run or model folder (a Hub name has the form owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED)
        )
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: not a local folder, not in the Hub cache, and the Hub cannot be reached"
            + (" (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else "")
        ) from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"{name}: the Hub refused it: {error}") from error


def read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def inside(folder, name):
    """The path of a file named by another file, which must not lead out of its folder."""
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(f"{folder}: the index names {name!r}, which is not a plain file name in that folder")
    return folder / name


FROM_PICKLE = (
    "python -c \"import torch, safetensors.torch as s; w = torch.load('{0}', weights_only=True); "
    "s.save_file({{k: v.clone() for k, v in w.items()}}, '{1}', dict(format='pt'))\""
)


def weight_files(folder):
    """The safetensors files of a model folder, single or sharded."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        if "weight_map" not in read_json(index):
            raise ValueError(f"{index}: no weight_map")
        return [inside(folder, name) for name in sorted(set(read_json(index)["weight_map"].values()))]
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    pickles = [path for path in sorted(folder.glob("*")) if path.suffix in (".bin", ".pt", ".pth")]
    if pickles:
        raise FileNotFoundError(
            f"{folder}: only pickled weights, which can run code when read; convert them once with\n"
            + FROM_PICKLE.format(pickles[0], folder / "model.safetensors")
        )
    raise FileNotFoundError(f"{folder}: no model.safetensors or model.safetensors.index.json")


def load(name, dtype=None, device="cpu", revision=None, labels=None, seed=None):
    """A Transformer with the weights of a run, a model folder or a Hub name, strictly: every tensor is
    accounted for.

    dtype None keeps the file's. labels: None has the head that the file has, k a classifier of k classes, 0
    no head. A classifier that the file lacks is an error, or with a seed made anew. Raises FileNotFoundError
    or ValueError, naming the file and the first offending tensor."""
    folder = resolve(name, revision)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder}: no config.json, so this is not a model folder")
    hf = read_json(folder / "config.json")
    config = config_from_hf(hf, folder / "config.json")
    if labels is not None and labels != config.labels:
        set_labels(config, labels)
    try:
        with torch.device("meta"):
            model = Transformer(config)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    wanted, row = model.state_dict(), FAMILIES[hf["model_type"]]
    unasked = {"head", "classifier"} - {key.split(".")[0] for key in wanted}  # passed over
    state, unknown = {}, []
    for path, theirs, tensor in tensors_of(folder, row, device):
        for ours, part in unfused(rename(theirs, names_of(row)), tensor, wanted, row, config.kv_heads):
            if ours not in wanted:
                if ours.split(".")[0] not in unasked:
                    unknown.append(f"{theirs} ({path.name})")
                continue
            if part.shape != wanted[ours].shape:
                shapes = f"{tuple(part.shape)}, but config.json asks for {tuple(wanted[ours].shape)}"
                raise ValueError(f"{path}: {theirs} has shape {shapes}")
            state[ours] = part if dtype is None else part.to(dtype)
    if config.tied:
        both = {"head.weight", "embed.weight"} <= state.keys()
        if both and not torch.equal(state["head.weight"], state["embed.weight"]):
            raise ValueError(
                f"{folder}: config.json ties head and embedding, but the file holds two different ones"
            )
        state["head.weight"] = state.get("embed.weight")
    fresh = [key for key in wanted if key.startswith("classifier.") and key not in state]
    if seed is not None:
        state |= fresh_classifier(model, fresh, state, seed)
    missing = [rename(key, inverse(names_of(row))) for key in wanted if state.get(key) is None]
    for problem, keys in (("is missing", missing), ("is not part of this model", unknown)):
        if keys:
            raise ValueError(f"{folder}: {keys[0]} {problem} (and {len(keys) - 1} more tensors like it)")
    model.load_state_dict(state, strict=True, assign=True)
    model.fresh = set(fresh)
    if config.tied:
        model.head.weight = model.embed.weight
    return model.eval()


def tensors_of(folder, row, device):
    """(file, name, tensor) of a checkpoint's tensors one at a time; what is ignored left out, and names with
    the prefix that a bare model's lack."""
    prefix, ignored = row.get("prefix", "model") + ".", re.compile(row.get("ignored", "$^"))
    files, aliases, bare = weight_files(folder), row.get("aliases", []), True
    try:
        for path in files:  # the first may hold a head alone
            with safe_open(path, framework="pt") as file:
                bare = bare and not any(rename(key, aliases).startswith(prefix) for key in file.keys())
        for path in files:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for theirs in file.keys():
                    key = prefix * bare + rename(theirs, aliases)
                    if not (BUFFERS.search(key) or ignored.search(key)):
                        yield path, key, file.get_tensor(theirs)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: truncated, damaged or missing ({error}); download or copy it again"
        ) from error


def unfused(key, tensor, wanted, row, kv_heads):
    """(our name, tensor) of a tensor, one or several where the file stacks them by rows."""
    for fused, parts in row.get("fused", {}).items():
        if f".{fused}." in key:
            keys = [key.replace(fused, part) for part in parts]
            sizes = [len(wanted[key]) for key in keys if key in wanted]
            if len(sizes) == len(parts) and len(tensor) == sum(sizes):
                groups = kv_heads if row.get("interleaved") else 1
                split = tensor.unflatten(0, (groups, -1)).split([size // groups for size in sizes], dim=1)
                return [(key, part.flatten(0, 1)) for key, part in zip(keys, split)]
    return [(key, tensor)]


def fresh_classifier(model, keys, state, seed):
    """Weights for a classifier that a checkpoint lacks: matrices normal with std 1/sqrt(D), cut at two of
    them."""
    generator, fresh = torch.Generator().manual_seed(seed), {}
    for key in keys:
        shape = model.get_parameter(key).shape
        weight = torch.zeros(shape) if key.endswith("bias") else torch.ones(shape)
        if len(shape) == 2:
            std = shape[1] ** -0.5
            nn.init.trunc_normal_(weight, 0, std, -2 * std, 2 * std, generator=generator)
        fresh[key] = weight.to(state["embed.weight"])
    return fresh


# ------------------------------------------------------------------------------------------------ saving
def hf_state(model):
    """The weights under the family's own names, a tied head left out: dict of tensors on the CPU."""
    row, config = row_of(model.config), model.config
    state = {
        key: whole(value).detach().cpu()
        for key, value in model.state_dict().items()
        if not (config.tied and key == "head.weight")
    }
    for fused, parts in row.get("fused", {}).items():
        for key in [key for key in state if f".{parts[0]}." in key]:
            stacked = torch.cat([state.pop(key.replace(parts[0], part)) for part in parts])
            state[key.replace(parts[0], fused)] = stacked
    prefix = "" if config.labels != 0 else row.get("prefix", "model") + "."
    names = {key: rename(key, inverse(names_of(row))).removeprefix(prefix) for key in state}
    return {names[key]: value.contiguous() for key, value in state.items()}


def save(model, folder):
    """Write config.json and safetensors as transformers would, into an existing or new folder; sharded over 5
    GB. None as the folder only gathers the weights, for ranks that help the one that writes.

    Files take their names when all are written: a failure leaves what was there before."""
    state = hf_state(model)
    if folder is None:
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards, size = [{}], 0
    for key, tensor in state.items():
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][key] = tensor
        size += tensor.nbytes
    names, texts = ["model.safetensors"], {}
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        weight_map = {key: name for name, shard in zip(names, shards) for key in shard}
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        texts["model.safetensors.index.json"] = {"metadata": {"total_size": total}, "weight_map": weight_map}
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    old_dtype = ("torch_dtype", "dtype")
    texts["config.json"] = {k: v for k, v in model.config.hf.items() if k not in old_dtype} | {
        "torch_dtype": dtype
    }
    written = [*names, *texts]
    try:
        for name, shard in zip(names, shards):
            save_file(shard, folder / f"{name}.partial", metadata={"format": "pt"})
        for name, value in texts.items():
            (folder / f"{name}.partial").write_text(json.dumps(value, indent=2) + "\n")
    except BaseException:
        for name in written:
            (folder / f"{name}.partial").unlink(missing_ok=True)
        raise
    for old in (*folder.glob("model*.safetensors"), folder / "model.safetensors.index.json"):
        if old.name not in written:
            old.unlink(missing_ok=True)
    for name in written:
        os.replace(folder / f"{name}.partial", folder / name)


BESIDE = tuple(
    "tokenizer special_tokens generation_config vocab added_ chat_ modules sentence_ config_sentence_"
    " trained".split()
)


def copy_tokenizer(source, target):
    """Copy the files beside the weights that say how a model reads and stops, and the folders that
    modules.json names."""
    source, target = Path(source), Path(target)
    for path in sorted(source.iterdir()):
        if path.name.startswith(BESIDE) and path.suffix in (".json", ".jinja", ".txt"):
            shutil.copy(path, target / path.name)
    if (source / "modules.json").exists():
        for module in read_json(source / "modules.json"):
            if module["path"] and inside(source, module["path"]).is_dir():
                shutil.copytree(source / module["path"], target / module["path"], dirs_exist_ok=True)


# ------------------------------------------------------------------------------------------------ summary
def summary(folder):
    """What a model folder holds, in lines, by its config.json alone."""
    hf = read_json(folder / "config.json")
    config = config_from_hf(hf, folder / "config.json")
    with torch.device("meta"):
        model = Transformer(config)
    whole = sum(weight.numel() for weight in model.parameters())
    embedding = model.embed.weight.numel() * (2 if config.labels is None and not config.tied else 1)
    slides = sum(config.sliding)
    kinds = [f"{config.layers - slides} full"] if slides < config.layers else []
    if slides:
        kinds.append(
            f"{slides} sliding, {config.reach} tokens back" + ("" if config.causal else " and ahead")
        )
    heads = f"{config.heads} heads" + (
        f" on {config.kv_heads} keys" if config.heads > config.kv_heads else ""
    )
    rope = config.rope and ", ".join(f"{k} {v}" for k, v in config.rope.items())
    head = {None: "next token" + (", tied to the embedding" if config.tied else ""), 0: "none"}
    lines = {
        "family": hf["model_type"]
        + ("" if row_of(config) is FAMILIES[hf["model_type"]] else f", as {config.hf['model_type']}"),
        "parameters": f"{whole:,}, of them {embedding:,} in the vocabulary of {config.vocab:,}",
        "layers": f"{', '.join(kinds)}; {config.norms} {config.norm} norm",
        "width": f"{config.dim}, {heads} of {config.head_dim}, MLP {config.mlp_dim} {config.activation}",
        "positions": rope or f"{config.places - config.place_offset} learned",
        "head": head.get(config.labels, f"{config.labels} classes, {config.pooling} pooling"),
    }
    if config.causal:
        cache = 2 * config.layers * config.kv_heads * config.head_dim * 1000 * 2
        lines["cache"] = (
            f"{cache / 1e6:,.1f} MB per 1,000 tokens in bfloat16, {cache / 5e5:,.1f} MB in float32"
        )
    return [f"{name:<10} {text}" for name, text in lines.items()]


def main(argv=None):
    """python model.py FOLDER|RUN|HUB-NAME prints what it holds. Exit codes: 0 done, 1 failed, 2 wrong
    call."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1 or argv[0].startswith("-"):
        print("usage: python model.py FOLDER|RUN|HUB-NAME", file=sys.stderr)
        return 2
    try:
        print("\n".join(summary(resolve(argv[0]))))
    except (ValueError, OSError) as error:
        print(f"model.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
