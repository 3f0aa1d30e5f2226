"""Text to vectors: models as encoders, in the folder format of sentence-transformers.

A text becomes tokens, tokens hidden states, hidden states one pooled vector. Where the folder says so, the
vector then goes through dense layers and is scaled to unit length. `embedder_of` reads a folder and
`save_embedder` writes one for sentence-transformers. Folders with other modules are refused: their code is
never run."""

import hashlib
import json
import re
import shutil
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tokenizers
import torch
import torch.nn as nn
import torch.nn.functional as F
from tokenizers import Encoding, normalizers
from torch import Tensor
from tqdm import tqdm

from attention import ALWAYS
from data import read_tokenizer
from files import (
    FLAG,
    OBJECT,
    TEXT,
    by_key,
    check_fields,
    either,
    list_of,
    map_of,
    number,
    one_of,
    read_json,
    read_settings,
    whole,
    write_json,
    write_text,
)
from layers import pool
from lora import adapters, save_lora
from model import Transformer, save
from weights import read_tensors, shapes_only, weight_files, write_tensors

MODULES = "Transformer Pooling( Dense)*( Normalize)?"  # regex of what a folder may hold, in this order
POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}  # name in the file -> ours
OLD_POOLINGS = {  # folders before version 6 set one of these keys to true -> the newer name
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")  # torch.nn classes for dense layers
DOCUMENT = ("document", "passage", "corpus")  # names that folders give to the prompt for documents
# beginnings of the names of a tokenizer's files
TOKENIZER = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")
SETTINGS = (
    "sentence_bert_config.json"  # the Transformer's settings, whatever its family; older names work too
)
KINDS = by_key(  # what the keys of a folder's files may hold; other values would change the vectors
    {
        TEXT: "type path default_prompt_name similarity_fn_name activation_function",
        FLAG: " ".join(OLD_POOLINGS) + " include_prompt do_lower_case add_eos_token bias",
        whole(1, ALWAYS): "truncate_dim max_seq_length out_features",
        number(1, 1e31): "model_max_length",  # 1e30 means no limit
        map_of(either(TEXT, one_of(None))): "prompts",
        either(TEXT, list_of(TEXT)): "pooling_mode",
        one_of("SentenceTransformer"): "model_type",
        one_of("feature-extraction"): "transformer_task",
        one_of({"text": {"method": "forward", "method_output_name": "last_hidden_state"}}): "modality_config",
        one_of("token_embeddings"): "module_output_name",
        one_of({}): "processing_kwargs query_expansion",
    }
)
VECTOR = one_of("sentence_embedding")
DENSE_KINDS = by_key({VECTOR: "module_input_name module_output_name", one_of(False): "use_residual"})


# ------------------------------------------------------------------------------------------------ embedder
@dataclass
class Embedder:
    """A model, and everything that turns its hidden states into vectors of `width` numbers."""

    model: Transformer
    tokenizer: tokenizers.Tokenizer
    folder: Path | None  # holds the tokenizer's files, which saving copies; None saves the tokenizer itself
    max_length: int  # longest text in tokens, special tokens included; the rest is cut off
    pooling: str = "mean"
    include_prompt: bool = True  # whether the tokens of a prompt are pooled as well
    dense: nn.ModuleList = field(default_factory=nn.ModuleList)  # in float32, like everything after pooling
    normalise: bool = False
    truncate_dim: int | None = None  # keep only the first numbers (Matryoshka), without scaling them again
    lower: bool = False  # whether texts are read in lower case
    prompts: dict = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str | None = None  # similarity that the vectors are made for: not used here, only saved again

    def __post_init__(self):
        inner = self.tokenizer
        inner.no_padding()  # some files pad every text to 128 tokens, and cut it there
        self.cut(self.max_length)
        inner.encode_special_tokens = True  # "[SEP]" inside a text is text
        added = inner.get_added_tokens_decoder().items()
        self.control = {token.content: i for i, token in added if token.special}

    def cut(self, length: int):
        """From now on, cut texts to at most `length` tokens."""
        self.max_length = min(self.max_length, length)
        frame = self.tokenizer.num_special_tokens_to_add(False)
        if self.max_length <= frame:
            raise ValueError(
                f"{self.folder}: {self.max_length} tokens are too few: {frame} stand around a text"
            )
        side = (self.tokenizer.truncation or {}).get("direction", "right")
        self.tokenizer.enable_truncation(self.max_length, direction=side)

    @property
    def width(self) -> int:
        width = self.dense[-1].linear.out_features if len(self.dense) else self.model.config.dim
        return min(width, self.truncate_dim or width)

    def prompt_of(self, kind: str) -> str:
        """The folder's prompt for a "query" or a "document", under any of its names; "" without one."""
        names = DOCUMENT if kind == "document" else (kind,)
        return next((self.prompts[name] for name in names if name in self.prompts), "")

    def tokens(self, texts: list[str], prompt="") -> list[tuple]:
        """(ids, skip) of each text, with the prompt and special tokens; the first `skip` are not pooled."""
        for name in self.control:
            if name in prompt:
                raise ValueError(f"prompt {prompt!r} holds {name}, which would be read as plain text here")
        skip = 0
        if prompt and not self.include_prompt:
            (encoding,) = self.encodings([prompt])
            skip = len(encoding) - encoding.special_tokens_mask[-1]  # the closing token is not the prompt's
        prompted = [prompt + text for text in texts]
        return [(encoding.ids, skip) for encoding in self.encodings(prompted)]

    def encodings(self, texts: list[str]) -> list[Encoding]:
        """Encode texts so that the only special tokens are those around each text, whatever it spells."""
        inner = self.tokenizer
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # no lone surrogates
        encodings = inner.encode_batch(clean)
        control = set(self.control.values())
        for i, encoding in enumerate(encodings):
            content = [id for id, special in zip(encoding.ids, encoding.special_tokens_mask) if not special]
            if control.isdisjoint(content):
                continue
            # Either the text has an unknown word, which is harmless, or it spells a special token that the
            # vocabulary holds as a plain word too. Then cut each such name after its first character and
            # encode the pieces: "a </s>" as "a <" and "/s>".
            text = inner.normalizer.normalize_str(clean[i]) if inner.normalizer else clean[i]
            names = [name for name in self.control if name in text]
            if names:
                cuts = "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names)
                pieces = [inner.encode(piece, add_special_tokens=False) for piece in re.split(cuts, text)]
                encodings[i] = inner.post_process(Encoding.merge(pieces, growing_offsets=True))
        return encodings

    def fingerprint(self, texts: list[str], kind: str) -> str:
        """A hash for the vectors of texts of a kind, in letters and digits. It covers the weights, tokenizer,
        settings and texts, so whatever changes a vector changes the hash."""
        settings = [self.pooling, self.include_prompt, self.normalise, self.truncate_dim]
        settings += [self.prompt_of(kind), self.max_length, repr(self.model.config), repr(self.dense)]
        digest = hashlib.sha256(json.dumps([*settings, self.tokenizer.to_str(), texts]).encode())
        for name, weight in [*self.model.state_dict().items(), *self.dense.state_dict().items()]:
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    def vectors(self, ids: Tensor, length: Tensor, skip: Tensor) -> Tensor:
        """Vectors (B, width) of texts, with gradients if they are enabled.

        ids (B, T) are padded on the right to T; length (B,) counts a text's tokens, of which the first `skip`
        (B,) are not pooled. A text with no token to pool is a vector of zeros before the dense layers."""
        slots = torch.arange(ids.shape[1], device=ids.device)
        valid = slots < length[:, None]  # (B, T)
        no_end = self.model.config.causal or bool(valid.all())  # a decoder never sees padding on the right
        hidden = self.model(ids, slots * valid, None if no_end else valid * ALWAYS)  # (B, T, D)
        pooled = valid & (slots >= skip[:, None])  # (B, T)
        x = pool(hidden.float(), pooled * ALWAYS, self.pooling) * pooled.any(1, keepdim=True)  # (B, D)
        for layer in self.dense:
            x = layer(x)
        return (F.normalize(x, dim=-1) if self.normalise else x)[:, : self.width]

    def embed(self, texts: list[str], prompt: str | None = None, batch_tokens=0, progress=False) -> Tensor:
        """Vectors (N, width) of N texts, float32 on the CPU.

        prompt: goes before each text; None takes the folder's default.
        batch_tokens: size of a batch, padding included. 0 is 1024 on a CPU, where small batches stay in its
            cache, and 8192 on a graphics card."""
        if isinstance(texts, str):
            raise ValueError("embed takes a list of texts, not one text")
        if prompt is None:
            prompt = self.prompts[self.default_prompt_name] if self.default_prompt_name else ""
        samples = self.tokens(texts, prompt)
        lengths = [len(ids) for ids, _ in samples]
        on_cpu = self.model.device.type == "cpu"
        batch_tokens = batch_tokens or (1024 if on_cpu else 8192)

        batches = []
        order = sorted(range(len(samples)), key=lambda i: -lengths[i])  # longest first: little padding
        while order:
            size = max(1, batch_tokens // max(1, lengths[order[0]]))
            batches.append(order[:size])
            order = order[size:]

        vectors = torch.empty(len(samples), self.width)
        self.model.eval()
        copy = on_cpu and sum(lengths) > 2048  # fewer tokens are not worth a copy of the weights
        with torch.no_grad(), use_onednn(self.model) if copy else nullcontext():
            # disable=None shows the bar on a terminal only
            for batch in tqdm(batches, unit="batch", disable=None if progress else True):
                inputs = pad_batch([samples[i] for i in batch], self.model.device)
                vectors[batch] = self.vectors(*inputs).cpu()
        return vectors


@contextmanager
def use_onednn(model: Transformer):
    """Inside the with block, the float32 Linears of a model on a CPU use copies of their weights in oneDNN's
    memory order. They have no gradients there. With MiniLM, 300 texts take half the time that torch's own
    products take."""
    linears = []
    if torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu"):
        for layer in model.modules():
            if type(layer) is nn.Linear and layer.weight.dtype == torch.float32:
                linears.append(layer)
    onednn = torch.ops.mkldnn
    no_activation = dict(attr="none", scalars=[], algorithm="")
    for layer in linears:
        weight = onednn._reorder_linear_weight(layer.weight.detach())
        # set on the instance, this hides the method of the class until it is deleted below
        layer.forward = partial(onednn._linear_pointwise, W=weight, B=layer.bias, **no_activation)
    try:
        yield
    finally:
        for layer in linears:
            del layer.forward


def pad_batch(samples: list[tuple], device) -> tuple:
    """ids (B, T), length (B,) and skip (B,) of B samples (ids, skip), padded with 0 on the right."""
    lengths = [len(ids) for ids, _ in samples]
    T = max(1, *lengths)
    padded = [ids + [0] * (T - len(ids)) for ids, _ in samples]
    skips = [skip for _, skip in samples]
    return tuple(torch.tensor(values, device=device) for values in (padded, lengths, skips))


# ------------------------------------------------------------------------------------------------ loading
def embedder_of(folder: Path, model: Transformer, normalise: bool | None = None) -> Embedder:
    """The Embedder of a sentence-transformers folder, around its model, which is already loaded. normalise
    overrides the folder.

    Without a modules.json an encoder pools the mean and a decoder the last token, and prints which."""
    modules = modules_of(folder)
    home = modules[0][1]  # the Transformer's folder
    notes = folder / "config_sentence_transformers.json"
    config = read_settings(notes, KINDS, default={})
    prompts = {key: text or "" for key, text in (config.get("prompts") or {}).items()}
    default = config.get("default_prompt_name")
    if default and default not in prompts:
        raise ValueError(f"{notes}: default_prompt_name {default!r} is not one of its prompts")

    pooling = {}
    dense = nn.ModuleList()
    width = model.config.dim
    for kind, path in modules[1:]:
        if kind == "Pooling":
            pooling = read_pooling(path / "config.json")
        elif kind == "Dense":
            dense.append(load_dense(path, width))
            width = dense[-1].linear.out_features
    if not pooling:
        pooling = {"pooling": "last" if model.config.causal else "mean"}
        print(f"{folder}: no modules.json says how to pool the tokens; taking {pooling['pooling']}")

    path = next(iter(sorted(home.glob("sentence_*_config.json"))), home / SETTINGS)
    settings = read_settings(path, KINDS, default={})
    of_tokenizer = read_settings(home / "tokenizer_config.json", KINDS, default={})
    lower = bool(settings.get("do_lower_case"))
    return Embedder(
        model,
        tokenizer_of(home, model.config.vocab, of_tokenizer.get("add_eos_token"), lower),
        home,
        max_length_of(settings, of_tokenizer, model.config),
        **pooling,
        dense=dense.to(model.device),
        normalise=modules[-1][0] == "Normalize" if normalise is None else normalise,
        truncate_dim=config.get("truncate_dim"),
        lower=lower,
        prompts=prompts,
        default_prompt_name=default,
        similarity=config.get("similarity_fn_name"),
    )


def max_length_of(settings, of_tokenizer, config):
    """The longest text in tokens: from the settings, otherwise from tokenizer and model. The model's learned
    positions limit it in any case."""
    room = config.places - config.place_offset if config.places else ALWAYS
    of_model = config.hf.get("max_position_embeddings") or ALWAYS
    longest = min(of_tokenizer.get("model_max_length") or ALWAYS, of_model)
    return int(min(settings.get("max_seq_length") or longest, room, ALWAYS))


def modules_of(folder: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of each module. A folder without modules.json is a Transformer alone."""
    path = folder / "modules.json"
    if not path.exists():
        return [("Transformer", folder)]
    modules = []
    for module in read_json(path, list_of(OBJECT)):
        check_fields(path, module, KINDS, ["type", "path"])
        package, _, kind = module["type"].rpartition(".")
        if not re.fullmatch(r"(\w[\w.-]*)?", module["path"]):
            raise ValueError(f"{path}: path {module['path']!r} is not the name of a folder beside it")
        known = package.split(".")[0] == "sentence_transformers"  # otherwise it is somebody's own code
        modules.append((kind if known else module["type"], folder / module["path"]))
    order = " ".join(kind for kind, _ in modules)
    if not re.fullmatch(MODULES, order):
        raise ValueError(f"{path}: modules {order!r} are not supported; supported are {MODULES}")
    return modules


def read_pooling(path):
    """The Embedder fields that a Pooling's config.json sets, old or new."""
    config = read_settings(path, KINDS)
    modes = config.get("pooling_mode") or [new for old, new in OLD_POOLINGS.items() if config.get(old)]
    modes = [modes] if isinstance(modes, str) else modes or ["mean"]
    # several poolings would mean several vectors, one behind the other
    if len(modes) > 1 or modes[0] not in POOLINGS:
        supported = " or ".join(POOLINGS)
        raise ValueError(f"{path}: pooling {' + '.join(modes)} is not supported; supported is {supported}")
    return {"pooling": POOLINGS[modes[0]], "include_prompt": config.get("include_prompt") is not False}


def load_dense(folder, width):
    """A dense layer for vectors of this width, in float32."""
    path = folder / "config.json"
    config = read_settings(path, KINDS | DENSE_KINDS | {"in_features": one_of(width)}, ["out_features"])
    package, _, name = (config.get("activation_function") or "torch.nn.Tanh").rpartition(".")
    if not package.startswith("torch.nn") or name not in ACTIVATIONS:
        raise ValueError(f"{path}: activation {package}.{name} is not one of {', '.join(ACTIVATIONS)}")
    state = read_tensors(weight_files(folder)[0])
    try:
        with shapes_only():
            linear = nn.Linear(width, config["out_features"], bias=config.get("bias") is not False)
        # the names are those of the file's tensors; `name` is in ACTIVATIONS, so getattr reaches nothing else
        layer = nn.Sequential(OrderedDict(linear=linear, activation=getattr(nn, name)()))
        layer.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{folder}: the weights do not fit config.json ({error})") from error
    return layer.float()


def tokenizer_of(folder, vocab, adds_end, lower):
    """The tokenizer of a model folder, with a step for lower case if `lower`. adds_end: whether it must end
    every text with a token."""
    inner = read_tokenizer(folder, vocab)
    if adds_end and inner.encode("a").special_tokens_mask[-1:] != [1]:
        raise ValueError(
            f"{folder}/tokenizer.json: adds no end token, but tokenizer_config.json asks for one; save it "
            "again with transformers"
        )
    if lower:
        after = [inner.normalizer] if inner.normalizer else []
        inner.normalizer = normalizers.Sequence([normalizers.Lowercase(), *after])
    return inner


# ------------------------------------------------------------------------------------------------ saving
def save_embedder(embedder: Embedder, folder: Path | str | None, base: tuple = ("", None)):
    """Write a folder that sentence-transformers, version 3 to 6, opens with the same vectors. With None as
    the folder it only gathers the weights, as model.save does.

    For a model with an adapter it writes the adapter alone, in PEFT's format, on top of the model that `base`
    (name, revision) names."""
    if adapters(embedder.model):
        save_lora(embedder.model, folder, *base)
    else:
        save(embedder.model, folder)
    if folder is None:
        return
    folder = Path(folder)
    source = embedder.folder
    if source is None:
        write_text(folder / "tokenizer.json", embedder.tokenizer.to_str(pretty=True))
        pad = embedder.tokenizer.id_to_token(embedder.model.config.hf["pad_token_id"])
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad}
        write_json(folder / "tokenizer_config.json", config)
    elif folder.resolve() != source.resolve():  # saved onto itself, it has its files already
        for path in source.glob("*.*"):
            if path.name.startswith(TOKENIZER):
                shutil.copy(path, folder / path.name)

    kinds = ["Transformer", "Pooling"] + ["Dense"] * len(embedder.dense) + ["Normalize"] * embedder.normalise
    modules = []
    for i, kind in enumerate(kinds):
        path = f"{i}_{kind}" if i else ""
        type_name = f"sentence_transformers.models.{kind}"
        modules.append({"idx": i, "name": str(i), "path": path, "type": type_name})
    pooling = {
        "word_embedding_dimension": embedder.model.config.dim,
        **{old: POOLINGS.get(new) == embedder.pooling for old, new in OLD_POOLINGS.items()},
        "include_prompt": embedder.include_prompt,
    }
    settings = {"max_seq_length": embedder.max_length, "do_lower_case": embedder.lower}
    config = {
        "model_type": "SentenceTransformer",
        "prompts": embedder.prompts,
        "default_prompt_name": embedder.default_prompt_name,
        "similarity_fn_name": embedder.similarity,
        "truncate_dim": embedder.truncate_dim,
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling/config.json", pooling)
    for i, layer in enumerate(embedder.dense):
        save_dense(layer, folder / f"{i + 2}_Dense")
    write_json(folder / SETTINGS, settings)
    write_json(folder / "config_sentence_transformers.json", config)
    write_json(folder / "modules.json", modules)


def save_dense(layer, folder):
    """Write a dense layer as sentence-transformers does."""
    linear, activation = layer
    folder.mkdir(exist_ok=True)
    config = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": f"{type(activation).__module__}.{type(activation).__name__}",
    }
    write_json(folder / "config.json", config)
    write_tensors(folder / "model.safetensors", layer.state_dict())
