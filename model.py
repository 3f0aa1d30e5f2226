"""The models: one configurable Transformer that reads and writes Hugging Face checkpoints.

Read families.py first (what a checkpoint may look like), rotary.py (positions), attention.py (which token
sees which) and layers.py (norms, the MLP, the classifier), then this file from top to bottom: attention, the
block, Transformer, load, save. The cache of keys and values is in cache.py.

Shapes, in every file: B batch, T query length, S key length, D model width, H query heads, K key/value heads,
E head width, V vocabulary, N examples, G group.
"""

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attention import ALWAYS, by_text, dense, ways
from deltanet import GatedDeltaNet, rows_of
from families import FAMILIES, Config, group_by_file_name, read_config, with_head
from files import remove, replacing, write_json
from layers import MLP, Classifier, make_norm, pool
from ranks import whole
from rotary import at_slots, rotary, rotate
from terminal import UsageError, exit_code
from weights import (
    INDEX,
    cut_rows,
    fresh_weight,
    shapes_only,
    tensors_of,
    tie,
    write_tensors,
)

SHARD_BYTES = 5_000_000_000  # the Hub's own limit for one file


# ------------------------------------------------------------------------------------------------ layers
class Attention(nn.Module):
    """Self-attention with grouped heads: each of the K key/value heads serves H / K query heads."""

    def __init__(self, config):
        super().__init__()
        D = config.dim
        H = config.heads
        K = config.kv_heads
        E = config.head_dim
        linear = partial(nn.Linear, bias=config.qkv_bias)
        queries = H * E * (1 + config.output_gate)
        self.q_proj = linear(D, queries)
        self.k_proj = linear(D, K * E)
        self.v_proj = linear(D, K * E)
        self.o_proj = nn.Linear(H * E, D, bias=config.o_bias)
        self.full_norm = config.qk_norm == "full"
        self.q_norm = make_norm(config, config.qk_norm, H * E if self.full_norm else E)
        self.k_norm = make_norm(config, config.qk_norm, K * E if self.full_norm else E)
        self.head_dim = E
        self.causal = config.causal
        self.scale = config.scale or E**-0.5
        self.softcap = config.softcap
        self.gated = config.output_gate
        self.widths = queries, K * E, K * E

    def forward(self, x, rope, way, cache=None, layer=0):
        """(B, T, D) of x (B, T, D). rope: by rotary, or None for no rotation. way: the attention
        function and its mask, see attention.ways."""
        B, T, _ = x.shape
        if hasattr(self, "qkv_proj"):  # see fused.py
            q, k, v = self.qkv_proj(x).split(self.widths, dim=-1)
        else:
            q = self.q_proj(x)  # (B, T, H E)
            k = self.k_proj(x)  # (B, T, K E)
            v = self.v_proj(x)

        # one vector per head; the norms of q and k, where a family has them, are over E or over all heads
        by_head = (B, T, -1, self.head_dim)
        if self.gated:  # each head's query, then its gate
            q, gate = q.unflatten(2, (-1, 2, self.head_dim)).unbind(3)
        if self.full_norm:
            q = self.q_norm(q).view(by_head)
            k = self.k_norm(k).view(by_head)
        else:
            q = self.q_norm(q.reshape(by_head))
            k = self.k_norm(k.view(by_head))
        q = q.transpose(1, 2)  # (B, H, T, E)
        k = k.transpose(1, 2)  # (B, K, T, E)
        v = v.view(by_head).transpose(1, 2)  # (B, K, T, E)

        dtype = v.dtype
        if rope is not None:
            q = rotate(q, *rope[-2:]).to(dtype)
            k = rotate(k, *rope[:2]).to(dtype)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # (B, K, S, E)
        if q.device.type == "cpu":  # the CPU's bfloat16 kernel takes twice the time of float32
            q = q.float()
            k = k.float()
            v = v.float()

        attend, mask = way
        with torch.autocast(q.device.type, enabled=False):  # it would undo that cast
            x = attend(q, k, v, mask, self.causal, self.scale, self.softcap)  # (B, H, T, E)
        x = x.to(dtype).transpose(1, 2)  # (B, T, H, E)
        if self.gated:
            x = x * gate.sigmoid()
        return self.o_proj(x.reshape(B, T, -1))


class Block(nn.Module):
    """One layer: attention or what takes its place, then an MLP, each added to the residual stream, with the
    family's norms."""

    def __init__(self, config, layer):
        super().__init__()
        before = config.norms != "out"  # a norm before each branch
        after = config.norms in ("out", "sandwich")  # on its output
        self.post = config.norms == "post"
        self.residual_scale = config.residual_scale
        self.attn_norm = make_norm(config, before and (layer > 0 or config.first_norm))
        self.attn = GatedDeltaNet(config) if layer in config.recurrent else Attention(config)
        self.attn_out_norm = make_norm(config, after)
        self.mlp_norm = make_norm(config, before)
        self.mlp = MLP(config)
        self.mlp_out_norm = make_norm(config, after)

    def forward(self, x, rope, way, cache=None, layer=0):
        if self.post:
            x = self.attn_norm(x + self.attn(x, rope, way, cache, layer))
            return self.mlp_norm(x + self.mlp(x))

        update = self.attn(self.attn_norm(x), rope, way, cache, layer)
        x = torch.add(x, self.attn_out_norm(update), alpha=self.residual_scale)
        update = self.mlp(self.mlp_norm(x))
        return torch.add(x, self.mlp_out_norm(update), alpha=self.residual_scale)

    def step(self, x, rope, way, cache, layer):
        """`forward` for one token per row: (B, D) of x (B, D). The block must be fused and have no norms but
        the two before its branches.

        It does the same operations without the modules around them, which take a fifth of the time of a small
        model."""
        attn = self.attn
        mlp = self.mlp
        B = len(x)
        H, K, _ = [width // attn.head_dim for width in attn.widths]
        qkv = attn.qkv_proj(self.attn_norm(x)).view(B, -1, 1, attn.head_dim)  # (B, H + 2 K, 1, E)
        qk = rotate(qkv[:, :-K], *rope)  # one rotation for both
        q, k = qk.split([H, K], dim=1)
        v = qkv[:, -K:]  # (B, K, 1, E)
        k, v = cache.append(layer, k, v)  # (B, K, S, E)
        attend, mask = way
        y = attend(q, k, v, mask, True, attn.scale, attn.softcap).view(B, -1)  # (B, H E)
        x = torch.add(x, attn.o_proj(y), alpha=self.residual_scale)
        gate, up = mlp.gate_up_proj(self.mlp_norm(x)).chunk(2, dim=-1)
        update = mlp.down_proj(mlp.activation(gate) * up)
        return torch.add(x, update, alpha=self.residual_scale)


class Transformer(nn.Module):
    """A decoder or an encoder.

    `forward` returns hidden states; `logits` and `classify` apply the head. They are separate so that a loss
    can select the positions it needs before the head is applied: logits are V wide."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.recompute = False  # see recompute_activations
        self.fast_step = False  # see use_fast_step
        self.fresh = set()  # names of classifier weights that were in no file, so start at random
        self.origin = config.family  # the family of the files that it was loaded from
        self.embed = nn.Embedding(config.vocab, config.dim)
        if config.places:
            self.places = nn.Embedding(config.places, config.dim)
        if config.types:
            self.types = nn.Embedding(config.types, config.dim)
        self.embed_norm = make_norm(config, config.embed_norm)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = make_norm(config, config.norms != "post")
        if config.head == "lm":
            self.head = nn.Linear(config.dim, config.vocab, bias=False)
        elif config.head == "classes":
            self.classifier = Classifier(config)
        if config.tied:
            self.head.weight = self.embed.weight

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    def recompute_activations(self, on: bool = True):
        """Recompute each block in the backward pass instead of keeping its activations: less memory, a third
        more time."""
        self.recompute = on

    def use_fast_step(self, on: bool):
        """Use Block.step for single tokens. fused.py calls this, as it knows whether `step` covers all that
        the blocks do."""
        self.fast_step = on

    def forward(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        end: Tensor | None = None,
        cache=None,
        mask: Tensor | None = None,
        types: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the last norm, (B, T, D), of ids (B, T).

        positions (B, T): the place of each token in its own text; default 0, 1, 2 ...
        end (B, T): where a token stops being seen, see attention.visible. None means one text per row; a
            decoder then reads right-padded batches correctly too.
        cache: a KVCache, which is read and extended. With one, padding lies behind a row's text, and only
            recurrent layers need an `end`, here (B, 1): how many tokens of a row are no padding.
        mask (B, 1, T, S): replaces the mask that follows from `end` or the cache.
        types (B, T): the type of each token, where the model has several; default 0."""
        config = self.config
        B, T = ids.shape
        if positions is None:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + T, device=ids.device).expand(B, T)

        # who sees whom
        if config.recurrent:
            recurrent_way = rows_of(ids, end, mask, cache)
        keys = positions  # positions of the keys, (B, S)
        shared = 0
        if cache is not None:
            keys, cache_mask = cache.open(positions)
            if mask is None:
                mask = cache_mask
            if T == 1:
                shared = cache.shared
            end = None
        full_way, sliding_way = ways(config, positions, end, keys, mask, shared)
        if cache is not None and cache.near:
            sliding_way = dense, cache.window

        x = self.embed_tokens(ids, positions, types)  # (B, T, D)
        full_rope, sliding_rope = self.ropes(positions, x.dtype)
        by_texts = full_way[0] is by_text
        if by_texts:  # the batch becomes one row of its N tokens, so no work is spent on padding
            slots = end.flatten().nonzero()[:, 0]  # (N,)
            x = x.flatten(0, 1)[None, slots]  # (1, N, D)
            full_rope = at_slots(full_rope, slots)
            sliding_rope = at_slots(sliding_rope, slots)

        one_rotation = full_rope and len(full_rope) == 2  # the same for queries and keys
        if T == 1 and self.fast_step and one_rotation and cache is not None:
            x = x[:, 0]  # (B, D)
            for layer, block in enumerate(self.layers):
                x = block.step(x, full_rope, full_way, cache, layer)
            return self.norm(x)[:, None]

        recompute = self.recompute and torch.is_grad_enabled()
        for layer, block in enumerate(self.layers):
            rope = full_rope
            way = full_way
            if config.sliding and config.sliding[layer]:
                rope = sliding_rope
                way = sliding_way
            if config.unrotated and config.unrotated[layer]:
                rope = None
            if layer in config.recurrent:
                way = recurrent_way
            inputs = (x, rope, way, cache, layer)
            if recompute:
                x = checkpoint(block, *inputs, use_reentrant=False)
            else:
                x = block(*inputs)

        x = self.norm(x)
        if by_texts:  # back into rows; padding is zero
            padded = x.new_zeros(B * T, x.shape[2])
            x = padded.index_copy(0, slots, x[0]).view(B, T, -1)
        return x

    def embed_tokens(self, ids, positions, types=None):
        """The first block's input, (B, T, D), of ids, positions and types (B, T)."""
        config = self.config
        x = self.embed(ids)
        if config.embed_scale != 1:
            x = x * torch.tensor(config.embed_scale, dtype=x.dtype)
        if config.types > 1 and types is not None:
            x = x + self.types(types)
        elif config.types:
            x = x + self.types.weight[0]
        if config.places:
            T = ids.shape[1]
            longest = config.places - config.place_offset
            if T > longest:
                raise ValueError(f"a text has {T} tokens, but the model reads at most {longest}; shorten it")
            x = x + self.places(positions + config.place_offset)
        return self.embed_norm(x)

    def ropes(self, positions, dtype):
        """cos and sin by rotary.rotary, for full layers and for sliding ones; None where nothing is
        rotated."""
        config = self.config
        full = config.rope and rotary(config.rope, config.head_dim, positions, dtype)
        sliding = config.local_rope and rotary(config.local_rope, config.head_dim, positions, dtype)
        return full, sliding or full

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary, (..., V), of hidden states (..., D)."""
        if self.config.logit_scale != 1:
            hidden = hidden * self.config.logit_scale  # there are fewer of these than of logits
        logits = self.head(hidden)
        cap = self.config.logit_softcap
        if cap:  # keeps every score between -cap and cap
            logits = cap * torch.tanh(logits / cap)
        return logits

    def classify(self, hidden: Tensor, end: Tensor | None = None) -> Tensor:
        """Class scores, (B, labels), of hidden states (B, T, D), pooled as the checkpoint says."""
        if self.config.pooling == "late":  # the mean of every token's scores
            return pool(self.classifier(hidden), end, "mean")
        return self.classifier(pool(hidden, end, self.config.pooling))

    def initialise(self, seed: int) -> "Transformer":
        """Set fresh weights: matrices normal with std 1/sqrt(fan in), embeddings with 1/sqrt(D), norms one,
        biases zero. Returns the model.

        The output matrix of each residual branch is zero, so a block adds nothing at the start and depth does
        no harm."""
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


def class_logits(model: Transformer, batch) -> Tensor:
    """Class scores, (B, classes), of a data.Batch with one text per row."""
    slots = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    end = (slots < batch.length[:, None]) * ALWAYS  # (B, T)
    hidden = model(batch.ids, batch.positions, end, types=batch.types)  # (B, T, D)
    return model.classify(hidden, end)


# ------------------------------------------------------------------------------------------------ loading
def load(
    folder: Path | str,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    head: str | int = "own",
    seed: int | None = None,
    quantize="",
) -> Transformer:
    """Load a model folder as a Transformer. Loading is strict: every tensor must be accounted for.

    dtype: of all weights; None takes that of the embedding in the file.
    head: "own" is the head in the file, "none" no head, k a classifier of k classes.
    seed: makes a classifier that the file lacks; without a seed that is an error.
    quantize: holds the matrices of the blocks in "int8" or "nf4", see quantized.py.

    Raises FileNotFoundError or ValueError that names the file and the first tensor at fault."""
    folder = Path(folder)
    config, name = read_config(folder)
    if head not in ("own", config.labels or config.head):
        config = with_head(config, head)
    family = FAMILIES[name]
    tensors = tensors_of(folder, config, family, device)
    with shapes_only():
        model = Transformer(config)

    wanted = model.state_dict()
    names_in_file = group_by_file_name(wanted, family.file_name)
    dropped_heads = {"head", "classifier"} - {key.split(".")[0] for key in wanted}
    groups = config.kv_heads if family.interleaved else 1
    state = {}
    unknown = []
    for theirs, (path, read) in tensors.items():
        names = names_in_file.get(theirs)
        if not names:
            if family.our_name(theirs).split(".")[0] not in dropped_heads:
                unknown.append(f"{theirs} ({path.name})")
            continue
        shapes = [wanted[name] for name in names]
        for name, part in zip(names, cut_rows(path, theirs, read(), shapes, groups)):
            state[name] = part.to(dtype or state.get("embed.weight", part).dtype)
            if quantize:
                from quantized import hold  # nothing else here needs it

                hold(model, state, name, quantize)
            del part  # before the next one is read

    if config.tied:
        tie(state, folder)
    absent = [key for key in wanted if key not in state]
    fresh = [key for key in absent if key.startswith("classifier.") and seed is not None]
    missing = [family.file_name(key) for key in absent if key not in fresh]
    for problem, keys in (("is missing", missing), ("is not part of this model", unknown)):
        if keys:
            raise ValueError(f"{folder}: {keys[0]} {problem} (and {len(keys) - 1} more tensors like it)")
    generator = torch.Generator().manual_seed(seed or 0)
    for key in fresh:
        state[key] = fresh_weight(key, wanted[key].shape, generator)

    embedding = state["embed.weight"]  # its dtype is everybody's: some files keep their norms in float32
    state = {key: tensor.to(embedding) for key, tensor in state.items() if tensor is not None}
    model.load_state_dict(state, strict=not quantize, assign=True)
    if config.tied:  # assigning has cut the tie
        model.head.weight = model.embed.weight
    model.fresh = set(fresh)
    model.origin = family
    return model.eval()


# ------------------------------------------------------------------------------------------------ saving
def save(model: Transformer, folder: Path | str | None):
    """Write config.json and safetensors as transformers would, in shards above 5 GB, into a new or existing
    folder. With None as the folder it only gathers the weights, for ranks that help the one that writes.

    Files get their names once all are written, so a failure leaves the old ones as they were."""
    from huggingface_hub import split_torch_state_dict_into_shards  # nothing else here needs it

    weights = {}
    for key, value in model.state_dict().items():
        weights[key] = whole(value).detach().cpu()
    if model.config.tied:
        del weights["head.weight"]
    state = {}  # the same tensors under the family's names
    for theirs, names in group_by_file_name(weights, model.config.file_name).items():
        parts = [weights.pop(name) for name in names]  # popped, so fused copies do not pile up in memory
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
    config = dict(model.config.hf)
    for key in ("torch_dtype", "dtype", "quantization_config"):  # of the files that were loaded
        config.pop(key, None)
    config["torch_dtype"] = str(model.embed.weight.dtype).removeprefix("torch.")
    files["config.json"] = config

    with ExitStack() as stack:  # all files are renamed when the block ends
        for name, content in files.items():
            path = stack.enter_context(replacing(folder / name))
            write = write_json if name.endswith(".json") else write_tensors
            write(path, content)
    for old in folder.glob("model*.safetensors*"):
        if old.name not in files:
            remove(old)


# ------------------------------------------------------------------------------------------------ the script
def main(argv: list[str]) -> int:
    """python model.py FOLDER|RUN|HUB-NAME prints what a model is, from its config.json alone. Exit codes: 0
    done, 1 failed, 2 wrong call."""
    from runs import resolve
    from summary import describe

    def show():
        if len(argv) != 1 or argv[0].startswith("-"):
            raise UsageError("usage: python model.py FOLDER|RUN|HUB-NAME")
        config, name = read_config(resolve(argv[0]))
        count = lambda part: sum(weight.numel() for weight in part.parameters())
        kinds = [(layer > 0, layer in config.recurrent) for layer in range(config.layers)]
        with shapes_only():
            parameters = count(Transformer(replace(config, layers=0)))
            for kind in {*kinds}:  # layers of one kind are alike
                parameters += kinds.count(kind) * count(Block(config, kinds.index(kind)))
        for line in describe(config, name, parameters):
            print(line)

    return exit_code("model.py", show)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
