"""Tiny embedding models for tests: their tokenizers, the files of their folders, and texts."""

import json

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers, processors
from torch.testing import assert_close

import checkpoint

WORDS = "a b c d e f g h red green blue find : ( [ ] SEP".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = ["a b c", "red", "", "green blue a b c d e f g h", "c b a", "h g f e d c"]
CLS, SEP = 2, 3
PROMPTS = {"prompts": {"query": "find : ", "passage": None}, "default_prompt_name": "query"}


def open_embedder(path, **options):
    return checkpoint.open(path, "none", **options).embedder


def near(actual, expected, tolerance=1e-5):
    assert_close(actual, expected, atol=tolerance, rtol=0)


def words(around="[CLS] $A [SEP]"):
    """A tokenizer of single words, which puts special tokens around a text."""
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(SPECIAL)
    named = [(name, i) for i, name in enumerate(SPECIAL) if name in around]
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=named)
    return inner


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def modules(*kinds, package="sentence_transformers.models"):
    return [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"{package}.{kind}"}
        for i, kind in enumerate(kinds)
    ]


def dense(folder, out, activation="torch.nn.modules.activation.Tanh", bias=True, **more):
    """Write a random dense layer; its state."""
    generator = torch.Generator().manual_seed(5)
    state = {"linear.weight": torch.randn(out, 32, generator=generator) / 6}
    if bias:
        state["linear.bias"] = torch.randn(out, generator=generator)
    settings = {"in_features": 32, "out_features": out, "bias": bias, "activation_function": activation}
    write(folder / "config.json", settings | more)
    save_file(state, folder / "model.safetensors")
    return state
