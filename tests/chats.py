"""Byte-level tokenizers of every chat format, a conversation, and what is read from ids and masks."""

import re

import tokenizers
from tokenizers import decoders, pre_tokenizers

from data import Tokenizer
from formats import FORMATS

CHAT = [
    {"role": "system", "content": "Play fair."},
    {"role": "user", "content": "Is it alive?"},
    {"role": "assistant", "content": "Yes: it lives 🐙"},
    {"role": "user", "content": "Can it fly?\nAnswer."},
    {"role": "assistant", "content": "No"},
]


def byte_tokenizer(control, special=True):
    """A byte-level tokenizer without merges, and control tokens, flagged special or not: a
    tokenizers.Tokenizer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_tokens([tokenizers.AddedToken(name, special=special, normalized=False) for name in control])
    return inner


def chat_tokenizer(name, special=True):
    return Tokenizer(byte_tokenizer(FORMATS[name].control_names(), special), FORMATS[name])


def encoder_tokenizer(begin="<s>", between="</s></s>", end="</s>", second="$B"):
    """A byte tokenizer that puts marks around one text and around a pair, as those of encoders do. second:
    the second text; \"$B:1\" has type 1."""
    marks = sorted({*re.findall(r"<[^>]+>|\[[A-Z]+\]", begin + between + end)})
    inner = byte_tokenizer(marks)
    pair = f"{begin} $A {' '.join(re.findall('<[^>]+>|.[A-Z]+.', between))} {second} {end}{second[2:]}"
    ids = [(mark, inner.token_to_id(mark)) for mark in marks]
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=pair, special_tokens=ids
    )
    return inner


def spell(tokenizer, ids):
    """The text of ids, control tokens written out."""
    return tokenizer.inner.decode(list(ids), skip_special_tokens=False)


def learned(tokenizer, ids, mask):
    """The texts of the runs of learned tokens: list of str."""
    runs, run = [], []
    for token, wanted in [*zip(ids, mask), (None, 0)]:
        if wanted:
            run.append(token)
        elif run:
            runs.append(spell(tokenizer, run))
            run = []
    return runs


def parts(*texts, **more):
    return [{"role": "user", "content": text, **more} for text in texts]
