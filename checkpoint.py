"""The one way to open a model, wherever it is, and the one way to save it.

`open` takes the name of a run, a folder or a Hub repository, with or without an adapter. `from_scratch` makes
a small new model and its tokenizer. Both return a Checkpoint; what its `save` writes, `open` reads."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import processors

import model as models
from card import Origin, write_card
from data import Tokenizer, load_tokenizer, train_tokenizer
from embed import TOKENIZER, Embedder, embedder_of, modules_of, save_embedder
from families import config_from_hf, small_config, with_head
from files import COUNT, OBJECT, TEXT, either, list_of, read_json, replacing, write_json
from formats import encoder_format
from fused import fuse
from lora import adapters, head_of_adapter, load_lora, merge_lora, read_base, save_lora
from model import Transformer
from ranks import dtype_for, dtype_of
from runs import resolve
from terminal import UsageError

# file names beginning so are saved again: they say how the model reads and when it stops
COPIED = (*TOKENIZER, "generation_config", "modules", "sentence_", "config_sentence_", "trained")
IDS = list_of(either(TEXT, COUNT))  # what trained.json holds


@dataclass
class Checkpoint:
    """A model with everything needed to use it and to save it."""

    model: Transformer
    tokenizer: Tokenizer | None = None  # None with an embedder, or if `open` was told not to load it
    embedder: Embedder | None = None  # makes vectors, for a model without a head
    folder: Path | None = None  # holds the tokenizer's files, which `save` copies; None for a new model
    base: tuple = ("", None)  # name and revision of the model, which a saved adapter refers to
    trained_on: frozenset = frozenset()  # ids of training examples, from trained.json

    def save(self, target: Path | str | None, trained_on=(), origin: Origin | None = None):
        """Write the weights, or the adapter alone, with the tokenizer's files, trained.json and a model card.
        With None as the target it only gathers the weights, for ranks that help the one that writes."""
        if self.embedder:
            save_embedder(self.embedder, target, self.base)
        elif adapters(self.model):
            save_lora(self.model, target, *self.base)
        else:
            models.save(self.model, target)
        if target is None:
            return
        self.write_card(target, origin)
        if self.embedder:
            return
        if self.folder:
            copy_tokenizer(self.folder, target)
        else:
            self.tokenizer.save(target)
        if ids := self.trained_on.union(trained_on):
            write_json(Path(target) / "trained.json", sorted(ids, key=str))

    def write_card(self, target: Path | str, origin: Origin | None):
        """Write the model card of a saved model; see card.write_card."""
        write_card(target, self.model.config.head, bool(adapters(self.model)), str(self.base[0]), origin)


def open(
    name: Path | str,
    head: str | int = "own",
    lora="",
    dtype=None,
    device="cpu",
    revision: str | None = None,
    format="",
    seed: int | None = None,
    tokenizer=True,
    normalise: bool | None = None,
    quantize="",
) -> Checkpoint:
    """Open a run, a model or adapter folder, or a Hub name.

    head: "own" is the head in the file, "none" no head, which gives an embedder, k a classifier of k classes.
        With an adapter, the head is the one that it was trained for.
    lora: an adapter to put on a full model.
    dtype: None keeps the file's.
    format: the chat format, where the folder does not state it.
    seed: makes a classifier that the file lacks.
    tokenizer: whether to load it.
    normalise: whether vectors have unit length; None follows the folder.
    quantize: see model.load."""
    folder = resolve(name, revision)
    # `home` holds the Transformer's own files: a sentence-transformers folder may keep them in a subfolder.
    # `full` holds the full model, which is the same unless home is an adapter.
    home = modules_of(folder)[0][1] if head == "none" else folder
    full = home
    base = (name if home == folder else home, revision)
    adapter = resolve(lora) if lora else None
    if (home / "adapter_config.json").exists():
        if adapter:
            raise ValueError(f"{name} is an adapter itself; --lora needs a full model under it")
        adapter = home
        base = read_base(home)
        full = resolve(*base)

    if adapter:
        head_under = head_of_adapter(adapter, full)
        # the seed is for a classifier that only the adapter has; load_lora overwrites it
        model = load_lora(models.load(full, dtype, device, head_under, 0, quantize), adapter)
    else:
        model = models.load(full, dtype, device, head, seed, quantize)
    if Path(base[0]).exists():
        base = (str(full.resolve()), None)  # a link such as runs/latest may move later
    if head != "none":
        folder = home if (home / "tokenizer.json").exists() else full  # an adapter may have its own tokenizer
    trained_on = set()
    for place in filter(None, (folder, adapter)):
        trained_on.update(read_json(place / "trained.json", IDS, default=[]))
    checkpoint = Checkpoint(model, folder=folder, base=base, trained_on=frozenset(trained_on))
    if head == "none":
        checkpoint.embedder = embedder_of(folder, model, normalise)
    elif tokenizer:
        checkpoint.tokenizer = load_tokenizer(folder, format, model.config.vocab, full)
    return checkpoint


def open_to_play(
    name, head, dtype: str, device, quantize="", learns=False, strict=False, **flags
) -> Checkpoint:
    """Open a checkpoint for inference: its adapter merged, and a model that writes laid out by fused.fuse.

    dtype: as --dtype names it; "auto" keeps the file's if the device multiplies it natively. quantize: see
    fused.fuse; other models than those that write stay as they are, or are refused if strict. learns: merge
    and lay out nothing."""
    wanted = None if dtype == "auto" else dtype_of(dtype, device)
    if quantize:  # a matrix on its way to 8 bits stays in the file until its turn
        checkpoint = open(name, head, **flags)
    else:
        checkpoint = open(name, head, dtype=wanted, device=device, **flags)
    model = checkpoint.model
    writes = model.config.head == "lm"
    if quantize and strict and not writes:
        raise UsageError(f"--quantize: only models that write text can be quantised, and {name} does not")
    if quantize and wanted == torch.float16 and device.type == "cpu":
        raise UsageError("--quantize: a CPU computes in bfloat16 then; drop --dtype float16")
    if not (quantize and writes):
        model.to(device, wanted or dtype_for(model.embed.weight.dtype, device))
    if learns:
        return checkpoint
    if adapters(model):
        merge_lora(model)  # one matrix product a layer instead of three
    if writes and quantize:
        half = torch.bfloat16 if device.type == "cpu" else dtype_for(torch.bfloat16, device)
        fuse(model, quantize, wanted or half, device)
    elif writes:
        fuse(model)
    return checkpoint


def save_merged(point: Checkpoint, base: Path, adapter: Path, target: Path | str, origin: Origin):
    """Write a model into which an adapter was merged, whole or not at all. base, adapter: their folders.

    merged.json lists the adapters in it. Raises ValueError if this one was already in the base."""
    before = read_json(base / "merged.json", list_of(OBJECT), default=[])
    digest = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    if digest in [entry.get("sha256") for entry in before]:
        raise ValueError(f"{base}: the adapter {adapter} is already merged into it (see its merged.json)")
    with replacing(target) as partial:
        if point.embedder:
            save_embedder(point.embedder, partial)
        else:
            models.save(point.model, partial)
        for source in (base, point.folder):
            copy_tokenizer(source, partial)
        point.write_card(partial, origin)
        write_json(partial / "merged.json", [*before, {"adapter": str(adapter), "sha256": digest}])


def from_scratch(
    sizes, texts, pre_tokens: str, head: str | int = "own", seed=0, max_tokens=512
) -> Checkpoint:
    """A small new model and a tokenizer trained on texts: a decoder for the head "own", otherwise an encoder.
    With "none" it is an embedder: a vector is the mean of the hidden states, scaled to unit length.

    sizes has dim, layers, heads, mlp_dim and vocab. pre_tokens: see data.train_tokenizer. max_tokens: the
    longest text that an embedder reads."""
    tokenizer = train_tokenizer(texts, sizes.vocab, pre_tokens)
    inner = tokenizer.inner
    begin = tokenizer.control["<|begin|>"]
    end = tokenizer.control["<|end|>"]
    kind = "decoder" if head == "own" else "encoder"
    config = config_from_hf(small_config(kind, sizes, tokenizer.size, begin, end))
    if kind == "encoder":
        config = with_head(config, head)
        # this is saved in tokenizer.json, so other programs put the same tokens around a text
        inner.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A <|end|>",
            pair="<|begin|> $A <|end|> $B <|end|>",
            special_tokens=[("<|begin|>", begin), ("<|end|>", end)],
        )
        tokenizer = Tokenizer(inner, encoder_format(inner))
    model = Transformer(config).initialise(seed)
    if head == "none":
        return Checkpoint(model, embedder=Embedder(model, inner, None, max_tokens, normalise=True))
    return Checkpoint(model, tokenizer)


def copy_tokenizer(source: Path | str, target: Path | str):
    """Copy the files named in COPIED, and the folders of modules, such as 1_Pooling."""
    source = Path(source)
    target = Path(target)
    for path in sorted(source.iterdir()):
        if path.name.startswith(COPIED) and path.suffix in (".json", ".jinja", ".txt"):
            shutil.copy(path, target / path.name)
        elif re.fullmatch(r"\d+_[A-Z]\w*", path.name) and path.is_dir():
            shutil.copytree(path, target / path.name, dirs_exist_ok=True)
