"""The models: one configurable Transformer that reads and writes Hugging Face checkpoints.

Read families.py first (what a checkpoint may look like) and attention.py (who sees whom), then the layers,
Transformer, load and save. cache.py holds the cache of keys and values.

Shapes, in every file: B batch, T query length, S key length, D model width, H query heads, K key/value heads,
E head width, V vocabulary, N examples, G group.
"""

import re
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch.utils.checkpoint import checkpoint

from attention import ALWAYS, by_text, dense, rotary, rotate, ways
from families import FAMILIES, config_from_hf, describe, layout, rename, with_head
from files import read_json, remove, replacing, write_json
from ranks import whole
from terminal import UsageError, exit_code
from weights import INDEX, cut_rows, weight_files, write_tensors

BUFFERS = r"(^|\.)(rotary_emb\.inv_freq|position_ids)$"  # of old checkpoints, computed here
SHARD_BYTES = 5_000_000_000  # the Hub's own limit for one file


# ------------------------------------------------------------------------------------------------ layers
tanh_gelu = partial(F.gelu, approximate="tanh")
FUNCTIONS = {  # families.ACTIVATIONS
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
}


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


def norm_of(config, wanted=True, dim=None):
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
        self.q_norm, self.k_norm = (norm_of(config, config.qk_norm, E) for _ in range(2))
        self.head_dim, self.causal = E, config.causal
        self.scale, self.softcap = config.scale or E**-0.5, config.softcap
        self.widths = H * E, K * E, K * E

    def forward(self, x, rope, way, cache=None, layer=0):
        B, T, _ = x.shape
        if hasattr(self, "qkv_proj"):  # see fused.py
            q, k, v = self.qkv_proj(x).split(self.widths, dim=-1)
        else:
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
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
        self.activation, self.gated = FUNCTIONS[config.activation], config.gated

    def forward(self, x):
        if not self.gated:
            return self.down_proj(self.activation(self.up_proj(x)))
        if hasattr(self, "gate_up_proj"):  # see fused.py
            gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(self.activation(gate) * up)


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.post, sandwich = config.norms == "post", config.norms == "sandwich"
        self.attn_norm = norm_of(config, layer > 0 or config.first_norm)
        self.attn, self.attn_out_norm = Attention(config), norm_of(config, sandwich)
        self.mlp_norm = norm_of(config)
        self.mlp, self.mlp_out_norm = MLP(config), norm_of(config, sandwich)

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
        *heads, own = [width // attn.head_dim for width in attn.widths]
        q, k = rotate(qkv[:, :-own], *rope).split(heads, dim=1)
        v = qkv[:, -own:]
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
        dim = config.dim
        self.dense = nn.Linear(dim, dim, bias=config.dense_bias) if config.dense else nn.Identity()
        self.activation = FUNCTIONS[config.dense] if config.dense else nn.Identity()
        self.dense_norm = norm_of(config, config.dense_norm)
        self.out = nn.Linear(dim, config.labels, bias=config.classes_bias)

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
        self.recompute = False  # see recompute_activations
        self.fast_step = False  # see use_fast_step
        self.fresh = set()  # names of a classifier's weights that no file held
        self.embed = nn.Embedding(config.vocab, config.dim)
        if config.places:
            self.places = nn.Embedding(config.places, config.dim)
        if config.types:
            self.types = nn.Embedding(config.types, config.dim)
        self.embed_norm = norm_of(config, config.embed_norm)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = norm_of(config, config.norms != "post")
        if config.head == "lm":
            self.head = nn.Linear(config.dim, config.vocab, bias=False)
        elif config.head == "classes":
            self.classifier = Classifier(config)
        if config.tied:
            self.head.weight = self.embed.weight

    @property
    def device(self):
        return self.embed.weight.device

    def recompute_activations(self, on=True):
        """Compute each block again in the backward pass rather than keep its activations: less memory, a
        third more time."""
        self.recompute = on

    def use_fast_step(self, on):
        """Take Block.step for single tokens. For who fused the blocks and knows that it does all they do."""
        self.fast_step = on

    def forward(self, ids, positions=None, end=None, cache=None, mask=None):
        """Hidden states after the last norm, (B, T, D).

        ids (B, T). positions (B, T): a token's place in its own text, by default 0, 1, 2 ... end (B, T): see
        `visible`; None is a plain row, in a decoder right for right-padded batches too. cache: a KVCache,
        read and extended, in which padding is what lies behind a row's text and needs no `end`. mask (B, 1,
        T, S) replaces the mask that these give."""
        config = self.config
        B, T = ids.shape
        if positions is None:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + T, device=ids.device).expand(B, T)
        keys, shared = positions, 0  # keys (B, S)
        if cache is not None:
            keys, seen = cache.open(positions)
            mask, end = seen if mask is None else mask, None
            shared = cache.shared if T == 1 else 0
        full, near = ways(config, positions, end, keys, mask, shared)
        if cache is not None and cache.near:
            near = dense, cache.window
        x = self.embedded(ids, positions)  # (B, T, D)
        rope, near_rope = self.ropes(positions, x.dtype)
        if full[0] is by_text:  # all tokens as one row, without the padding
            slots = end.flatten().nonzero()[:, 0]  # (N,)
            x = x.flatten(0, 1)[None, slots]  # (1, N, D)
            lay = lambda angles: angles and [angle.flatten(0, 2)[None, None, slots] for angle in angles]
            rope, near_rope = lay(rope), lay(near_rope)
        if T == 1 and self.fast_step and cache is not None:
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
        config = self.config
        x = self.embed(ids)
        if config.embed_scale:
            x = x * torch.tensor(config.dim**0.5, dtype=x.dtype)
        if config.types:
            x = x + self.types.weight[0]
        if config.places:
            T, longest = ids.shape[1], config.places - config.place_offset
            if T > longest:
                raise ValueError(f"{T} tokens, but the model reads {longest}")
            x = x + self.places(positions + config.place_offset)
        return self.embed_norm(x)

    def ropes(self, positions, dtype):
        """(cos, sin) of full and of sliding layers, None where positions are learned."""
        config = self.config
        full = config.rope and rotary(config.rope, config.head_dim, positions, dtype)
        near = config.local_rope and rotary(config.local_rope, config.head_dim, positions, dtype)
        return full, near or full

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
                    std = weight.shape[1] ** -0.5
                    weight.copy_(torch.normal(0.0, std, weight.shape, generator=generator))
        return self


def class_logits(model, batch):
    """Scores of the classes, (B, classes), of a data.Batch of texts, a row each."""
    slots = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    end = (slots < batch.length[:, None]) * ALWAYS  # (B, T)
    return model.classify(model(batch.ids, batch.positions, end), end)


# ------------------------------------------------------------------------------------------------ loading
def load(folder, dtype=None, device="cpu", head="own", seed=None):
    """A Transformer with the weights of a model folder, strictly: every tensor is accounted for.

    dtype None keeps the file's. head: "own" is the one that the file has, "none" none, k a classifier of k
    classes; one that the file lacks is an error, or with a seed made anew. Raises FileNotFoundError or
    ValueError, naming the file and the first offending tensor."""
    folder = Path(folder)
    where = folder / "config.json"
    if not where.exists():
        raise FileNotFoundError(f"{folder}: no config.json, so this is not a model folder")
    hf = read_json(where)
    config = config_from_hf(hf, where)
    if head not in ("own", config.labels or config.head):
        config = with_head(config, head)
    with torch.device("meta"):
        model = Transformer(config)
    family, wanted = FAMILIES[hf["model_type"]], model.state_dict()
    ours = layout(wanted, family.file_name)
    unasked = {"head", "classifier"} - {key.split(".")[0] for key in wanted}  # passed over
    groups = config.kv_heads if family.interleaved else 1
    state, unknown = {}, []
    for path, theirs, tensor in tensors_of(folder, family, device):
        names = ours.get(theirs)
        if not names:
            if family.our_name(theirs).split(".")[0] not in unasked:
                unknown.append(f"{theirs} ({path.name})")
            continue
        tensor = tensor.to(dtype or tensor.dtype)
        parts = cut_rows(path, theirs, tensor, [wanted[name] for name in names], groups)
        state |= dict(zip(names, parts))
    embedding = state.get("embed.weight")
    if config.tied and embedding is not None:
        if not torch.equal(state.setdefault("head.weight", embedding), embedding):
            two = "but the file holds two different ones"
            raise ValueError(f"{folder}: config.json ties head and embedding, {two}")
    fresh = [key for key in wanted if key.startswith("classifier.") and key not in state]
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        for key in fresh:
            state[key] = fresh_weight(key, wanted[key].shape, generator).to(embedding)
    missing = [family.file_name(key) for key in wanted if key not in state]
    for problem, keys in (("is missing", missing), ("is not part of this model", unknown)):
        if keys:
            raise ValueError(f"{folder}: {keys[0]} {problem} (and {len(keys) - 1} more tensors like it)")
    model.load_state_dict(state, assign=True)
    if config.tied:
        model.head.weight = model.embed.weight
    model.fresh = set(fresh)
    return model.eval()


def tensors_of(folder, family, device):
    """(file, name, tensor) of a checkpoint's tensors one at a time; what is ignored left out, and names with
    the prefix that a bare model's lack."""
    files = weight_files(folder)
    bare = True
    try:
        for path in files:  # the first may hold a head alone
            with safe_open(path, framework="pt") as file:
                names = [rename(key, family.aliases) for key in file.keys()]
                bare &= not any(name.startswith(family.prefix) for name in names)
        for path in files:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for key in file.keys():
                    name = family.prefix * bare + rename(key, family.aliases)
                    if not re.search(f"{BUFFERS}|{family.ignored}", name):
                        yield path, name, file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: truncated, damaged or missing ({error}); download or copy it again"
        ) from error


def fresh_weight(key, shape, generator):
    """A weight that a checkpoint lacks of a classifier: a matrix is normal with std 1/sqrt(D), cut at two of
    them."""
    weight = torch.full(shape, 0.0 if key.endswith("bias") else 1.0)
    if weight.dim() == 2:
        std = weight.shape[1] ** -0.5
        nn.init.trunc_normal_(weight, 0, std, -2 * std, 2 * std, generator=generator)
    return weight


# ------------------------------------------------------------------------------------------------ saving
def save(model, folder):
    """Write config.json and safetensors as transformers would, into an existing or new folder; sharded over 5
    GB. None as the folder only gathers the weights, for ranks that help the one that writes.

    Files take their names when all are written: a failure leaves what was there before."""
    from huggingface_hub import split_torch_state_dict_into_shards  # which only this needs

    weights = {key: whole(value).detach().cpu() for key, value in model.state_dict().items()}
    if model.config.tied:
        del weights["head.weight"]
    state = {}  # by the family's own names
    for theirs, names in layout(weights, model.config.file_name).items():
        parts = [weights.pop(name) for name in names]
        state[theirs] = torch.cat(parts) if parts[1:] else parts[0]
    if folder is None:
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = split_torch_state_dict_into_shards(state, max_shard_size=SHARD_BYTES)
    files = {}
    for name, keys in shards.filename_to_tensors.items():
        files[name] = {key: state[key] for key in keys}
    if shards.is_sharded:
        files[INDEX] = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
    config = {key: value for key, value in model.config.hf.items() if key not in ("torch_dtype", "dtype")}
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    files["config.json"] = config | {"torch_dtype": dtype}
    with ExitStack() as stack:
        for name, content in files.items():
            path = stack.enter_context(replacing(folder / name))
            write = write_json if name.endswith(".json") else write_tensors
            write(path, content)
    for old in folder.glob("model*.safetensors*"):
        if old.name not in files:
            remove(old)


# ------------------------------------------------------------------------------------------------ the script
def main(argv):
    """python model.py FOLDER|RUN|HUB-NAME prints what it holds, by its config.json alone. Exit codes: 0 done,
    1 failed, 2 wrong call."""
    from runs import resolve

    def show():
        if len(argv) != 1 or argv[0].startswith("-"):
            raise UsageError("usage: python model.py FOLDER|RUN|HUB-NAME")
        path = resolve(argv[0]) / "config.json"
        hf = read_json(path)
        config = config_from_hf(hf, path)
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in Transformer(config).parameters())
        print("\n".join(describe(config, hf["model_type"], parameters)))

    return exit_code("model.py", show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
