"""The models: one configurable Transformer that reads and writes Hugging Face checkpoints.

Read in order: Config and FAMILIES (what a checkpoint may look like), the layers, KVCache, Transformer, load
and save. A family differs from Llama by one row of FAMILIES; its name occurs nowhere else. Attention follows
one rule for padding, packing, shared prefixes and caching alike: query slot i sees key slot j when j <= i <
end[j].

Shapes, in every file: B batch, T query length, S key length, D model width, H query heads, K key/value heads,
E head width, V vocabulary, N examples, G group.
"""

import json
import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

ALWAYS = 1 << 30  # an `end` beyond every slot: the token stays visible
SHARD_BYTES = 5_000_000_000  # the Hub's own limit for one file


# ------------------------------------------------------------------------------------------------ configurati
@dataclass
class Config:
    """A checkpoint's shape in our words; `hf` keeps its config.json, which saving writes back."""

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int  # need not be dim / heads (qwen3)
    mlp_dim: int
    eps: float  # of every RMSNorm
    activation: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # RMSNorm of each query and key head before the rotation
    tied: bool = False  # the head is the embedding
    rope_theta: float = 10_000.0
    rope_scaling: dict = field(default_factory=lambda: {"rope_type": "default"})
    hf: dict = field(default_factory=dict, repr=False)


# A row states how a family differs from Llama: `defaults` stand under the file's values, `config` translates
# what is special, `rename` turns the file's names into ours, whole dotted components only, so that it inverts
# for saving.
LLAMA_NAMES = [
    ("model.embed_tokens", "embed"),
    ("model.layers", "layers"),
    ("model.norm", "norm"),
    ("lm_head", "head"),
    ("self_attn", "attn"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "mlp_norm"),
]
FAMILIES = {
    "llama": dict(rename=LLAMA_NAMES),
    "qwen2": dict(rename=LLAMA_NAMES, config=lambda hf: dict(qkv_bias=True)),
    "qwen3": dict(rename=LLAMA_NAMES, config=lambda hf: dict(qk_norm=True), defaults=dict(head_dim=128)),
}
IGNORED = ("rotary_emb.inv_freq",)  # buffers of old checkpoints, computed here


def config_from_hf(hf, where="config.json"):
    """Translate a config.json (a dict) to a Config, or raise ValueError naming what is not supported."""
    name = hf.get("model_type")
    if name not in FAMILIES:
        raise ValueError(
            f"{where}: model_type {name!r} is not supported; supported are {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    value = {**family.get("defaults", {}), **{k: v for k, v in hf.items() if v is not None}}
    missing = [
        k
        for k in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
        )
        if k not in value
    ]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing; every {name} config.json states them")
    if value.get("use_sliding_window"):
        raise ValueError(f"{where}: use_sliding_window is not supported yet")
    rope = rope_from_hf(value, where)
    heads = value["num_attention_heads"]
    bias = bool(value.get("attention_bias", False))
    common = dict(
        vocab=value["vocab_size"],
        dim=value["hidden_size"],
        layers=value["num_hidden_layers"],
        heads=heads,
        kv_heads=value.get("num_key_value_heads", heads),
        head_dim=value.get("head_dim", value["hidden_size"] // heads),
        mlp_dim=value["intermediate_size"],
        eps=value.get("rms_norm_eps", 1e-6),
        activation=value.get("hidden_act", "silu"),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bool(value.get("mlp_bias", False)),
        tied=bool(value.get("tie_word_embeddings", False)),
        rope_theta=float(rope.pop("rope_theta", 10_000.0)),
        rope_scaling=rope,
        hf=hf,
    )
    config = Config(**common | family.get("config", lambda hf: {})(value))
    if config.activation not in ACTIVATIONS:
        raise ValueError(f"{where}: hidden_act {config.activation!r} is not one of {', '.join(ACTIVATIONS)}")
    if config.heads % config.kv_heads:
        raise ValueError(
            f"{where}: {config.heads} heads are no multiple of {config.kv_heads} key/value heads"
        )
    return config


def rope_from_hf(value, where):
    """The rotary settings of either dialect: rope_theta + rope_scaling, or transformers 5's
    rope_parameters."""
    rope = dict(value.get("rope_parameters") or value.get("rope_scaling") or {})
    rope["rope_type"] = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    rope.setdefault("rope_theta", value.get("rope_theta", 10_000.0))
    if any(isinstance(setting, dict) for setting in rope.values()):
        raise ValueError(f"{where}: rope_parameters by layer type are not supported yet")
    if rope["rope_type"] not in ROPE_SCALINGS:
        known = ", ".join(ROPE_SCALINGS)
        raise ValueError(
            f"{where}: rope scaling {rope['rope_type']!r} is not supported; supported are {known}"
        )
    try:
        ROPE_SCALINGS[rope["rope_type"]](torch.ones(1), rope)
    except KeyError as error:
        raise ValueError(f"{where}: rope scaling {rope['rope_type']!r} without {error}") from error
    return rope


# ------------------------------------------------------------------------------------------------ rotary posi
def llama3_scaling(frequencies, rope):
    """Llama 3.1's rule: long wavelengths slow down by `factor`, short ones stay, those between are
    blended."""
    wavelengths = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    blend = (rope["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    blend = blend.clamp(0, 1)
    return (1 - blend) * frequencies / rope["factor"] + blend * frequencies


ROPE_SCALINGS = {
    "default": lambda frequencies, rope: frequencies,
    "linear": lambda frequencies, rope: frequencies / rope["factor"],
    "llama3": llama3_scaling,
}


def rotary(config, positions):
    """cos and sin, each (B, 1, T, E), of positions (B, T); angles in float32 whatever the model's dtype."""
    exponents = (
        torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device) / config.head_dim
    )
    frequencies = ROPE_SCALINGS[config.rope_scaling["rope_type"]](
        config.rope_theta**-exponents, config.rope_scaling
    )
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, E/2)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Rotate pairs (first half, second half) of the head width: x (B, heads, T, E)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


# ------------------------------------------------------------------------------------------------ layers
ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back, then scaled: Llama's order, which bf16 notices."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        if x.dtype == torch.float32:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        D, H, K, E = config.dim, config.heads, config.kv_heads, config.head_dim
        self.q_proj = nn.Linear(D, H * E, bias=config.qkv_bias)
        self.k_proj = nn.Linear(D, K * E, bias=config.qkv_bias)
        self.v_proj = nn.Linear(D, K * E, bias=config.qkv_bias)
        self.o_proj = nn.Linear(H * E, D, bias=config.o_bias)
        self.q_norm = RMSNorm(E, config.eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(E, config.eps) if config.qk_norm else nn.Identity()
        self.head_dim, self.grouped = E, H != K

    def forward(self, x, cos, sin, mask, cache=None, layer=0):
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # (B, H, T, E)
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # (B, K, T, E)
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)
        dtype = v.dtype
        q, k = rotate(q, cos, sin).to(dtype), rotate(k, cos, sin).to(dtype)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # (B, K, S, E)
        if q.device.type == "cpu":  # its bfloat16 kernel takes twice the time of float32
            q, k, v = q.float(), k.float(), v.float()
        elif mask is not None and self.grouped:  # no fast kernel takes both a mask and grouped heads
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        with torch.autocast(q.device.type, enabled=False):
            causal = mask is None and T > 1
            x = F.scaled_dot_product_attention(
                q, k, v, mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
            )
        return self.o_proj(x.to(dtype).transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=config.mlp_bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x):
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attn_norm, self.attn = RMSNorm(config.dim, config.eps), Attention(config)
        self.mlp_norm, self.mlp = RMSNorm(config.dim, config.eps), MLP(config)

    def forward(self, x, cos, sin, mask, cache=None, layer=0):
        x = x + self.attn(self.attn_norm(x), cos, sin, mask, cache, layer)
        return x + self.mlp(self.mlp_norm(x))


def visible(end, T):
    """The attention rule as a mask (B, 1, T, S): the last T of S slots ask, and slot i sees j when j <= i <
    end[j].

    `end` (B, S) is where a token stops being seen: ALWAYS in a plain row, the end of its document in a packed
    row, the end of its subtree where prompts share a prefix, 0 for padding. A slot that sees nothing sees
    itself, so that softmax stays finite."""
    S = end.shape[1]
    j = torch.arange(S, device=end.device)
    i = j[S - T :, None]
    return (((j <= i) & (i < end[:, None, :])) | (i == j))[:, None]


class KVCache:
    """Keys and values of the tokens seen so far, in slots shared by all rows; `end` says which of them still
    count.

    Rows are ragged: a row's padding holds slots whose `end` is 0. `positions` (B, S) is a token's place in
    its own row."""

    def __init__(self, config, rows, slots, device=None, dtype=None):
        shape = (rows, config.kv_heads, slots, config.head_dim)
        self.keys = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.positions = torch.zeros(rows, slots, dtype=torch.long, device=device)
        self.end = torch.zeros(rows, slots, dtype=torch.long, device=device)
        self.length = 0  # slots in use

    def open(self, positions, end):
        """Take new slots for tokens at `positions` with visibility `end`, both (B, T), and grow when they do
        not fit."""
        T, capacity = positions.shape[1], self.end.shape[1]
        if self.length + T > capacity:
            more = max(T, capacity)
            self.keys = [F.pad(k, (0, 0, 0, more)) for k in self.keys]
            self.values = [F.pad(v, (0, 0, 0, more)) for v in self.values]
            self.positions, self.end = F.pad(self.positions, (0, more)), F.pad(self.end, (0, more))
        new = slice(self.length, self.length + T)
        self.positions[:, new], self.end[:, new] = positions, end
        self.length += T

    def append(self, layer, k, v):
        """Store k and v (B, K, T, E) in the slots just opened; return all that is stored, (B, K, S, E)."""
        new = slice(self.length - k.shape[2], self.length)
        self.keys[layer][:, :, new], self.values[layer][:, :, new] = k, v
        return self.keys[layer][:, :, : self.length], self.values[layer][:, :, : self.length]

    def forget(self, keep):
        """Hide from each row what lies beyond its first `keep` tokens, (B,)."""
        self.end *= self.positions < keep[:, None]

    def select(self, rows, keep):
        """A new cache of `rows` (B,), each up to its first `keep` tokens (B,), without the slots that none
        needs."""
        positions, end = self.positions[rows, : self.length], self.end[rows, : self.length]
        live = (end > 0) & (positions < keep[:, None])
        S = int(live.sum(1).max())
        slots = torch.where(live, positions, ALWAYS).argsort(1)[:, :S]  # (B, S)
        new = KVCache.__new__(KVCache)
        spare = (0, 32)  # empty slots at the end, so that the next tokens need no copy
        new.positions, new.end = (
            F.pad(positions.gather(1, slots), spare),
            F.pad((end * live).gather(1, slots), spare),
        )
        new.length = S
        slots = F.pad(slots, spare)

        def gathered(x):
            return x[rows].gather(2, slots[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))

        new.keys, new.values = [gathered(k) for k in self.keys], [gathered(v) for v in self.values]
        return new


class Transformer(nn.Module):
    """A decoder. `forward` gives hidden states and `logits` the head, so that a loss can choose its positions
    between."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.eps)
        self.head = nn.Linear(config.dim, config.vocab, bias=False)
        if config.tied:
            self.head.weight = self.embed.weight

    @property
    def device(self):
        return self.embed.weight.device

    def forward(self, ids, positions=None, end=None, cache=None, mask=None, noise=None):
        """Hidden states after the last norm, (B, T, D).

        ids (B, T). positions (B, T): a token's place in its own text, by default 0, 1, 2 ... end (B, T): see
        `visible`; None is a plain causal row, right for right-padded batches too. cache: a KVCache, read and
        extended. mask (B, 1, T, S) replaces the mask that `end` gives. noise (B, T, D) is added to the
        embeddings (NEFTune)."""
        B, T = ids.shape
        if positions is None:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + T, device=ids.device).expand(B, T)
        if cache is not None:
            cache.open(positions, torch.full_like(ids, ALWAYS) if end is None else end)
            end = cache.end[:, : cache.length]
        if mask is None and end is not None:
            mask = visible(end, T)
        x = self.embed(ids)  # (B, T, D)
        if noise is not None:
            x = x + noise
        cos, sin = (angle.to(x.dtype) for angle in rotary(self.config, positions))
        for layer, block in enumerate(self.layers):
            x = block(x, cos, sin, mask, cache, layer)
        return self.norm(x)

    def logits(self, hidden):
        """Scores over the vocabulary, (..., V), of hidden states (..., D)."""
        return self.head(hidden)

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
UNWANTED = ["*/*", "consolidated*"]  # other formats of the same weights
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
    if Path(name).name != name:
        raise ValueError(f"{folder}: the index names {name!r}, which is not a plain file name in that folder")
    return folder / name


def weight_files(folder):
    """The safetensors files of a model folder, single or sharded."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        if "weight_map" not in read_json(index):
            raise ValueError(f"{index}: no weight_map")
        return [inside(folder, name) for name in sorted(set(read_json(index)["weight_map"].values()))]
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if list(folder.glob("*.bin")):
        raise FileNotFoundError(
            f"{folder}: only pickled .bin weights, which can run code when read; convert them to safetensors"
        )
    raise FileNotFoundError(f"{folder}: no model.safetensors or model.safetensors.index.json")


def rename(key, pairs):
    """Apply (old, new) pairs of whole dotted components to a tensor's name, in order."""
    dotted = f".{key}."
    for old, new in pairs:
        dotted = dotted.replace(f".{old}.", f".{new}.", 1)
    return dotted[1:-1]


def inverse(pairs):
    return [(new, old) for old, new in reversed(pairs)]


def load(name, dtype=None, device="cpu", revision=None):
    """A Transformer with the weights of a run, a model folder or a Hub name, strictly: every tensor is
    accounted for.

    dtype None keeps the file's. Raises FileNotFoundError or ValueError, naming the file and the first
    offending tensor."""
    folder = resolve(name, revision)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder}: no config.json, so this is not a model folder")
    config = config_from_hf(read_json(folder / "config.json"), folder / "config.json")
    with torch.device("meta"):
        model = Transformer(config)
    wanted = model.state_dict()
    pairs = FAMILIES[config.hf["model_type"]]["rename"]
    state, unknown = {}, []
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for theirs in file.keys():
                    ours = rename(theirs, pairs)
                    if theirs.endswith(IGNORED):
                        continue
                    if ours not in wanted:
                        unknown.append(f"{theirs} ({path.name})")
                        continue
                    tensor = file.get_tensor(theirs)
                    if tensor.shape != wanted[ours].shape:
                        shapes = (
                            f"{tuple(tensor.shape)}, but config.json asks for {tuple(wanted[ours].shape)}"
                        )
                        raise ValueError(f"{path}: {theirs} has shape {shapes}")
                    state[ours] = tensor if dtype is None else tensor.to(dtype)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path}: truncated, damaged or missing ({error}); download or copy it again"
            ) from error
    if config.tied:
        both = {"head.weight", "embed.weight"} <= state.keys()
        if both and not torch.equal(state["head.weight"], state["embed.weight"]):
            raise ValueError(
                f"{folder}: config.json ties head and embedding, but the file holds two different ones"
            )
        state["head.weight"] = state.get("embed.weight")
    missing = [rename(key, inverse(pairs)) for key in wanted if state.get(key) is None]
    for problem, keys in (("is missing", missing), ("is not part of this model", unknown)):
        if keys:
            raise ValueError(f"{folder}: {keys[0]} {problem} (and {len(keys) - 1} more tensors like it)")
    model.load_state_dict(state, strict=True, assign=True)
    if config.tied:
        model.head.weight = model.embed.weight
    return model.eval()


# ------------------------------------------------------------------------------------------------ saving
def hf_state(model):
    """The weights under the family's own names, a tied head left out: dict of tensors on the CPU."""
    pairs = inverse(FAMILIES[model.config.hf["model_type"]]["rename"])
    state = {k: v for k, v in model.state_dict().items() if not (model.config.tied and k == "head.weight")}
    return {rename(key, pairs): value.detach().cpu().contiguous() for key, value in state.items()}


def save(model, folder):
    """Write config.json and safetensors as transformers would, into an existing or new folder; sharded over 5
    GB."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards, size = [{}], 0
    for key, tensor in hf_state(model).items():
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][key] = tensor
        size += tensor.nbytes
    for old in (*folder.glob("model*.safetensors"), folder / "model.safetensors.index.json"):
        old.unlink(missing_ok=True)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        weight_map = {key: name for name, shard in zip(names, shards) for key in shard}
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    for name, shard in zip(names, shards):
        save_file(shard, folder / name, metadata={"format": "pt"})
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    hf = {k: v for k, v in model.config.hf.items() if k not in ("torch_dtype", "dtype")} | {
        "torch_dtype": dtype
    }
    (folder / "config.json").write_text(json.dumps(hf, indent=2) + "\n")


def copy_tokenizer(source, target):
    """Copy the files beside the weights that say how a model reads and stops."""
    for path in sorted(Path(source).glob("*.json*")) + sorted(Path(source).glob("*.jinja")):
        if path.name.startswith(
            ("tokenizer", "special_tokens", "generation_config", "vocab", "added_tok", "chat_")
        ):
            shutil.copy(path, Path(target) / path.name)
