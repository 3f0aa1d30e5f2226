"""One way to open a model, whatever it lies in, and one way to write it back.

`open` takes the name of a run, of a folder or of a Hub repository, with an adapter or without; `from_scratch`
makes a small new model and the tokenizer for it. Both give a Checkpoint, whose `save` writes what opens
again."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tokenizers import processors

import model as models
from data import Tokenizer, load_tokenizer, train_tokenizer
from embed import Embedder, embedder_of, modules_of, save_embedder
from families import config_from_hf, small_config, with_head
from files import inside, optional_json, read_json, write_json
from formats import encoder_format
from lora import adapters, head_of, load_lora, read_base, save_lora
from model import Transformer
from runs import resolve

BESIDE = (  # beginnings of the names of files that say how a model reads and stops
    "tokenizer",
    "special_tokens",
    "generation_config",
    "vocab",
    "added_",
    "chat_",
    "modules",
    "sentence_",
    "config_sentence_",
    "trained",
)


@dataclass
class Checkpoint:
    """A model, and all that it takes to use it and to write it back."""

    model: Transformer
    tokenizer: Tokenizer | None = None  # none with an embedder, or where `open` was told so
    embedder: Embedder | None = None  # of a model without a head: what makes vectors of its hidden states
    folder: Path | None = (
        None  # where the tokenizer's files lie, which saving copies; None: made from scratch
    )
    base: tuple = ("", None)  # name and revision of the model, which an adapter on it names
    trained_on: frozenset = frozenset()  # ids of examples, by trained.json

    def save(self, target, trained_on=()):
        """Write the weights, or the adapter alone, and what belongs beside them. None as the target only
        gathers the weights, for ranks that help the one that writes."""
        if self.embedder:
            return save_embedder(self.embedder, target, self.base)
        if adapters(self.model):
            save_lora(self.model, target, *self.base)
        else:
            models.save(self.model, target)
        if target is None:
            return
        if self.folder:
            copy_tokenizer(self.folder, target)
        else:
            self.tokenizer.save(target)
        if ids := self.trained_on.union(trained_on):
            write_json(Path(target) / "trained.json", sorted(ids))


def open(
    name,
    head="own",
    lora="",
    dtype=None,
    device="cpu",
    revision=None,
    format="",
    seed=None,
    tokenizer=True,
    normalise=None,
):
    """The Checkpoint of a run, a model or adapter folder, or a Hub name.

    head: "own" is the one that the file has, "none" none, which makes an embedder, k a classifier of k
    classes; under an adapter it is the adapter's. lora: an adapter to put on a full model. dtype None keeps
    the file's. format: the chat format, where the folder does not say it. seed: makes a classifier that the
    file lacks. normalise: whether vectors have unit length, whatever the folder says."""
    folder = resolve(name, revision)
    home = modules_of(folder)[0][1] if head == "none" else folder  # where the Transformer's own files lie
    base, under = (name if home == folder else home, revision), home
    adapter = resolve(lora) if lora else None
    if (home / "adapter_config.json").exists():
        if adapter:
            raise ValueError(f"{name} is an adapter itself; --lora needs a full model under it")
        adapter, base = home, read_base(home)
        under = resolve(*base)
    if adapter:
        model = load_lora(models.load(under, dtype, device, head_of(adapter, under), seed=0), adapter)
    else:
        model = models.load(under, dtype, device, head, seed)
    if Path(base[0]).exists():
        base = str(under.resolve()), None  # a link such as runs/latest may move
    if head != "none":
        folder = home if (home / "tokenizer.json").exists() else under
    places = [place / "trained.json" for place in (folder, adapter) if place]
    trained_on = frozenset().union(*(optional_json(place) for place in places))
    checkpoint = Checkpoint(model, folder=folder, base=base, trained_on=trained_on)
    if head == "none":
        checkpoint.embedder = embedder_of(folder, model, normalise)
    elif tokenizer:
        checkpoint.tokenizer = load_tokenizer(folder, format, model.config.vocab)
    return checkpoint


def from_scratch(sizes, texts, pre_tokens, head="own", seed=0, max_tokens=512):
    """A small new model and the tokenizer for it, learned from texts: a decoder, or with another head an
    encoder, whose vectors ("none") are the mean of its hidden states, of unit length.

    sizes has dim, layers, heads, mlp_dim and vocab. pre_tokens as in data.train_tokenizer; max_tokens is the
    longest text of an embedder."""
    tokenizer = train_tokenizer(texts, sizes.vocab, pre_tokens)
    inner, control = tokenizer.inner, tokenizer.control
    begin, end = control["<|begin|>"], control["<|end|>"]
    kind = "decoder" if head == "own" else "encoder"
    config = config_from_hf(small_config(kind, sizes, tokenizer.size, begin, end))
    if kind == "encoder":
        config = with_head(config, head)
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
