"""Text to vectors: models as encoders, in sentence-transformers' folder form.

A text becomes tokens, these hidden states, these one pooled vector, and that goes through dense layers and is
scaled to unit length where the folder says so. `embedder_of` reads a folder, `save_embedder` writes one that
sentence-transformers opens; modules other than these four are refused, their code is never run."""

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
from tqdm import tqdm

from attention import ALWAYS
from data import read_tokenizer
from files import optional_json, read_json, write_json
from lora import adapters, save_lora
from model import Transformer, pool, save
from weights import read_tensors, weight_files, write_tensors

MODULES = "Transformer Pooling( Dense)*( Normalize)?"  # what a folder may hold, in this order
POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}  # their names -> ours
OLD_POOLINGS = {  # how folders before version 6 say it, with a true
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")  # of a dense layer, in torch.nn
DOCUMENT = ("document", "passage", "corpus")  # names of the prompt of what is searched
TOKENIZER = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")  # its files
SETTINGS = "sentence_bert_config.json"  # of the Transformer, whatever its family; older names are read too
ONLY = dict(  # its settings that would change the result
    transformer_task="feature-extraction",
    modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    module_output_name="token_embeddings",
    processing_kwargs={},
    query_expansion={},
)


# ------------------------------------------------------------------------------------------------ embedder
@dataclass
class Embedder:
    """A model and all that turns its hidden states into vectors of `width` numbers."""

    model: Transformer
    tokenizer: tokenizers.Tokenizer
    folder: Path | None  # where the tokenizer's files lie, which saving copies; None writes it anew
    max_length: int  # tokens that are read of a text, those around it included
    pooling: str = "mean"
    include_prompt: bool = True  # whether a prompt's tokens are pooled as well
    dense: nn.ModuleList = field(default_factory=nn.ModuleList)  # in float32, as is all after the pooling
    normalise: bool = False
    truncate_dim: int | None = None  # only the first numbers count (Matryoshka); not scaled again
    lower: bool = False
    prompts: dict = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str | None = None  # what the vectors are made for: a note, kept for saving

    def __post_init__(self):
        inner = self.tokenizer
        inner.no_padding()  # some files pad every text to 128 tokens, and cut it there
        self.cut(self.max_length)
        inner.encode_special_tokens = True  # "[SEP]" inside a text is text
        added = inner.get_added_tokens_decoder().items()
        self.control = {token.content: i for i, token in added if token.special}

    def cut(self, length):
        """Read at most `length` tokens of a text from now on."""
        self.max_length = min(self.max_length, length)
        side = (self.tokenizer.truncation or {}).get("direction", "right")
        self.tokenizer.enable_truncation(self.max_length, direction=side)

    @property
    def width(self):
        width = self.dense[-1].linear.out_features if len(self.dense) else self.model.config.dim
        return min(width, self.truncate_dim or width)

    def prompt_of(self, kind):
        """The prompt that the folder has for a "query" or a "document", by whatever name, or none."""
        names = DOCUMENT if kind == "document" else (kind,)
        return next((self.prompts[name] for name in names if name in self.prompts), "")

    def tokens(self, texts, prompt=""):
        """(ids, skip) of each text, prompt and special tokens included; the first `skip` are not pooled."""
        for name in self.control:
            if name in prompt:
                raise ValueError(f"prompt {prompt!r} holds {name}, which would be read as plain text here")
        skip = 0
        if prompt and not self.include_prompt:
            (encoding,) = self.encodings([prompt])
            skip = len(encoding) - encoding.special_tokens_mask[-1]  # without the token that closes
        return [(encoding.ids, skip) for encoding in self.encodings([prompt + text for text in texts])]

    def encodings(self, texts):
        """Encodings that hold no special token but those around a text, whatever it spells."""
        inner = self.tokenizer
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encodings = inner.encode_batch(clean)
        control = set(self.control.values())
        for i, encoding in enumerate(encodings):
            content = [id for id, added in zip(encoding.ids, encoding.special_tokens_mask) if not added]
            if control.isdisjoint(content):
                continue  # otherwise an unknown word, or a name that is a word too
            text = inner.normalizer.normalize_str(clean[i]) if inner.normalizer else clean[i]
            names = [name for name in self.control if name in text]
            if names:  # cut each after its first character
                places = [f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names]
                parts = re.split("|".join(places), text)
                parts = [inner.encode(part, add_special_tokens=False) for part in parts]
                encodings[i] = inner.post_process(Encoding.merge(parts, growing_offsets=True))
        return encodings

    def fingerprint(self, texts, kind):
        """A name, of letters and digits, for the vectors of texts of a kind: a hash of the weights, the
        tokenizer, the settings and the texts, so that whatever changes a vector changes the name."""
        settings = [self.pooling, self.include_prompt, self.normalise, self.truncate_dim]
        settings += [self.prompt_of(kind), self.max_length, repr(self.model.config), repr(self.dense)]
        known = hashlib.sha256(json.dumps([*settings, self.tokenizer.to_str(), texts]).encode())
        for name, weight in [*self.model.state_dict().items(), *self.dense.state_dict().items()]:
            known.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            known.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
        return known.hexdigest()[:32]

    def vectors(self, ids, length, skip):
        """Vectors (B, width) of texts ids (B, T) of `length` (B,) tokens, the first `skip` (B,) not pooled,
        with gradients where they are wanted.

        A text without any token, and one of which only the prompt is left, is a vector of zeros before the
        dense layers."""
        slots, skip = torch.arange(ids.shape[1], device=ids.device), skip[:, None]
        valid = slots < length[:, None]  # (B, T)
        plain = self.model.config.causal or bool(valid.all())  # padding on the right is never seen
        hidden = self.model(ids, slots * valid, None if plain else valid * ALWAYS)  # (B, T, D)
        pooled = valid & (slots >= skip)
        x = pool(hidden.float(), pooled * ALWAYS, self.pooling) * pooled.any(1, keepdim=True)  # (B, D)
        for layer in self.dense:
            x = layer(x)
        return (F.normalize(x, dim=-1) if self.normalise else x)[:, : self.width]

    def embed(self, texts, prompt=None, batch_tokens=0, progress=False):
        """Vectors (N, width) of N texts, float32 on the CPU. prompt: what is put before each text, by default
        the folder's own.

        batch_tokens: of one batch, padding included; 0 is 1024 on a CPU, where small batches stay in its
        cache, and 8192 on a graphics card."""
        if isinstance(texts, str):
            raise ValueError("embed takes a list of texts, not one text")
        if prompt is None:
            prompt = self.prompts[self.default_prompt_name] if self.default_prompt_name else ""
        samples = self.tokens(texts, prompt)
        cpu = self.model.device.type == "cpu"
        batch_tokens = batch_tokens or (1024 if cpu else 8192)
        batches = []
        order = sorted(range(len(samples)), key=lambda i: -len(samples[i][0]))  # longest first
        while order:
            size = max(1, batch_tokens // max(1, len(samples[order[0]][0])))
            batches.append(order[:size])
            order = order[size:]
        vectors = torch.empty(len(samples), self.width)
        self.model.eval()
        many = cpu and sum(len(ids) for ids, _ in samples) > 2048  # fewer are not worth copying the weights
        with torch.no_grad(), use_onednn(self.model) if many else nullcontext():
            for batch in tqdm(batches, unit="batch", disable=None if progress else True):
                vectors[batch] = self.vectors(*padded([samples[i] for i in batch], self.model.device)).cpu()
        return vectors


@contextmanager
def use_onednn(model):
    """In a with block the float32 matrices of a model on a CPU are copies in the order of oneDNN; without
    gradients. 300 texts by a MiniLM take half of the time that they take by torch's own products."""
    linears = [layer for layer in model.modules() if type(layer) is nn.Linear]
    if not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
        linears = []
    onednn, plain = torch.ops.mkldnn, dict(attr="none", scalars=[], algorithm="")
    changed = [layer for layer in linears if layer.weight.dtype == torch.float32]
    for layer in changed:
        weight = onednn._reorder_linear_weight(layer.weight.detach())
        layer.forward = partial(onednn._linear_pointwise, W=weight, B=layer.bias, **plain)
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward


def padded(samples, device):
    """(ids, length, skip) tensors of a batch of (ids, skip)."""
    T = max(1, *(len(ids) for ids, _ in samples))
    ids = [ids + [0] * (T - len(ids)) for ids, _ in samples]
    sizes = [[len(ids), skip] for ids, skip in samples]
    return torch.tensor(ids, device=device), *torch.tensor(sizes, device=device).T


# ------------------------------------------------------------------------------------------------ loading
def embedder_of(folder, model, normalise=None):
    """The Embedder of a sentence-transformers folder around its model, loaded already. normalise overrides
    what the folder says.

    Without a modules.json an encoder's vector is the mean and a decoder's the last token, and a line is
    printed that says so."""
    modules = modules_of(folder)
    home = modules[0][1]
    notes = folder / "config_sentence_transformers.json"
    config = optional_json(notes)
    require(notes, config, dict(model_type="SentenceTransformer"))
    prompts = {key: text or "" for key, text in config.get("prompts", {}).items()}
    default = config.get("default_prompt_name")
    if default and default not in prompts:
        raise ValueError(f"{notes}: default_prompt_name {default!r} is not one of its prompts")
    pooling, dense, width = {}, nn.ModuleList(), model.config.dim
    for kind, path in modules[1:]:
        if kind == "Pooling":
            pooling = pooling_of(path / "config.json")
        elif kind == "Dense":
            dense.append(load_dense(path, width))
            width = dense[-1].linear.out_features
    if not pooling:
        pooling = {"pooling": "last" if model.config.causal else "mean"}
        print(f"{folder}: no modules.json says how its tokens are pooled; taking {pooling['pooling']}")
    path = next(iter(sorted(home.glob("sentence_*_config.json"))), home / SETTINGS)
    settings = optional_json(path)
    require(path, settings, ONLY)
    lower = bool(settings.get("do_lower_case"))
    return Embedder(
        model,
        tokenizer_of(home, model.config.vocab, lower),
        home,
        longest(home, settings, model.config),
        **pooling,
        dense=dense.to(model.device),
        normalise=modules[-1][0] == "Normalize" if normalise is None else normalise,
        truncate_dim=config.get("truncate_dim"),
        lower=lower,
        prompts=prompts,
        default_prompt_name=default,
        similarity=config.get("similarity_fn_name"),
    )


def longest(home, settings, config):
    """Tokens that are read of a text: what the settings say, else tokenizer and model, which has room for so
    many."""
    room = config.places - config.place_offset if config.places else ALWAYS
    own = optional_json(home / "tokenizer_config.json").get("model_max_length", ALWAYS)
    stored = settings.get("max_seq_length") or min(own, config.hf.get("max_position_embeddings", ALWAYS))
    return min(stored, room, ALWAYS)


def modules_of(folder):
    """(kind, folder) of each module; of a folder without modules.json the Transformer alone."""
    path, modules = folder / "modules.json", []
    if not path.exists():
        return [("Transformer", folder)]
    for module in read_json(path):
        package, _, kind = module["type"].rpartition(".")
        if not re.fullmatch(r"(\w[\w.-]*)?", module["path"]):
            raise ValueError(f"{path}: path {module['path']!r} is not the name of a folder beside it")
        ours = package.split(".")[0] == "sentence_transformers"
        modules.append((kind if ours else module["type"], folder / module["path"]))
    order = " ".join(kind for kind, _ in modules)
    if not re.fullmatch(MODULES, order):
        raise ValueError(f"{path}: modules {order!r} are not supported; supported are {MODULES}")
    return modules


def require(path, config, values):
    """Refuse settings that are there but are not what this file does."""
    for key, value in values.items():
        if config.get(key) not in (None, value):
            raise ValueError(f"{path}: {key} {config[key]!r} is not supported; supported is {value!r}")


def pooling_of(path):
    """How a Pooling's config.json says it, in either dialect: fields of an Embedder."""
    config = read_json(path)
    modes = config.get("pooling_mode") or [new for old, new in OLD_POOLINGS.items() if config.get(old)]
    modes = [modes] if isinstance(modes, str) else modes or ["mean"]
    if len(modes) > 1 or modes[0] not in POOLINGS:
        supported = " or ".join(POOLINGS)
        raise ValueError(f"{path}: pooling {' + '.join(modes)} is not supported; supported is {supported}")
    return {"pooling": POOLINGS[modes[0]], "include_prompt": config.get("include_prompt", True)}


def load_dense(folder, width):
    """A dense layer that takes vectors of `width`, in float32."""
    path = folder / "config.json"
    config = read_json(path)
    vector = "sentence_embedding"
    supported = dict(module_input_name=vector, module_output_name=vector, use_residual=False)
    require(path, config, supported | {"in_features": width})
    package, _, name = config.get("activation_function", "torch.nn.Tanh").rpartition(".")
    if not package.startswith("torch.nn") or name not in ACTIVATIONS:
        raise ValueError(f"{path}: activation {package}.{name} is not one of {', '.join(ACTIVATIONS)}")
    linear = nn.Linear(width, config["out_features"], bias=config.get("bias", True))
    layer = nn.Sequential(OrderedDict(linear=linear, activation=getattr(nn, name)()))
    try:
        layer.load_state_dict(read_tensors(weight_files(folder)[0]))
    except RuntimeError as error:
        raise ValueError(f"{folder}: the weights do not fit config.json ({error})") from error
    return layer


def tokenizer_of(folder, vocab, lower):
    """The tokenizer of a model folder, as it is but for lower case."""
    inner = read_tokenizer(folder, vocab)
    settings = optional_json(folder / "tokenizer_config.json")
    if settings.get("add_eos_token") and not inner.encode("a").special_tokens_mask[-1]:
        raise ValueError(
            f"{folder}/tokenizer.json: adds no end token, but tokenizer_config.json asks for one; save it "
            "with transformers"
        )
    if lower:
        rest = [inner.normalizer] if inner.normalizer else []
        inner.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
    return inner


# ------------------------------------------------------------------------------------------------ saving
def save_embedder(embedder, folder, base=("", None)):
    """Write a folder that sentence-transformers opens, 3 to 6, with the same vectors; of a model with an
    adapter the adapter alone, in PEFT's form, on the model that `base` names (name, revision). None as the
    folder as in model.save."""
    if adapters(embedder.model):
        save_lora(embedder.model, folder, *base)
    else:
        save(embedder.model, folder)
    if folder is None:
        return
    folder, source = Path(folder), embedder.folder
    if source is None:
        embedder.tokenizer.save(str(folder / "tokenizer.json"))
        pad = embedder.tokenizer.id_to_token(embedder.model.config.hf["pad_token_id"])
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad}
        write_json(folder / "tokenizer_config.json", config)
    elif folder.resolve() != source.resolve():
        for path in source.glob("*.*"):
            if path.name.startswith(TOKENIZER):
                shutil.copy(path, folder / path.name)
    kinds = ["Transformer", "Pooling"] + ["Dense"] * len(embedder.dense) + ["Normalize"] * embedder.normalise
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
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
