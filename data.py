"""From messages to batches: tokenizer, rows that share prefixes, packing, and the order of examples.

`Tokenizer.render` makes ids and loss mask together, so they cannot drift apart. `share_prefixes` lays the
samples of one example out as a tree: what they have in common is stored, and computed, once. `pack` fills
rows with such trees, and `collate` makes a Batch of rows. How each format writes a chat is in formats.py."""

import json
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import compress, groupby
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, normalizers, pre_tokenizers, trainers

from files import optional_json, write_json
from formats import CONTROL, FORMATS, PLAIN_TEMPLATE, encoder_format, merge_turns, recognize_format
from games.task import PHRASES
from terminal import DIM, GREEN, UsageError, painted

CUT = " ... "  # stands where a text was shortened


# ------------------------------------------------------------------------------------------------ tokenizer
class Tokenizer:
    """A tokenizer.json and the chat format that goes with it."""

    def __init__(self, inner, format, stop_ids=()):
        self.inner, self.format = inner, format
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # "<|im_end|>" inside a message is text
        self.space = stop_prepending(inner)  # what stands before a text after a control token
        self.control = {}  # name -> id of the control tokens that the format uses
        for name in format.control_names():
            token = inner.token_to_id(name)
            if token is not None:
                self.control[name] = token
            elif name[0] == "<" and "think" not in name:  # others are plain text where they are no tokens
                raise ValueError(
                    f"the tokenizer has no token {name}, which its chat format needs; try --format"
                )
        added = inner.get_added_tokens_decoder()
        inner.add_special_tokens([added[token] for token in self.control.values() if token in added])
        self.eaters = {token for token, how in added.items() if how.rstrip}  # they take the space behind them
        self.end = re.findall(CONTROL, format.close["assistant"])[-1]  # the control token that ends a reply
        self.stop_ids = sorted({self.control[self.end], *stop_ids})
        self.encode = lru_cache(maxsize=100_000)(self._encode)
        self.turn = lru_cache(maxsize=100_000)(self._turn)

    @property
    def size(self):
        return self.inner.get_vocab_size()

    def _encode(self, text):
        """Ids of a message's content: a tuple that holds no control token, whatever the text spells."""
        return tuple(self.inner.encode(replace_surrogates(text), add_special_tokens=False).ids)

    def encode_after(self, token, text):
        """Ids of text that stands behind a control token (its id, -1 for any) or behind other text (None)."""
        if token in self.eaters:
            text = text.lstrip()
        if not text:
            return ()
        has_space = self.space == "once" and text[0] == " "
        if self.space and token is not None and not has_space:
            text = " " + text
        return self.encode(text)

    def join(self, *parts, after=-1):
        """Ids of marks, in which control tokens count, and of contents, given as (content,), in which none
        does.

        What stands between two control tokens is encoded as one text, as it is when a whole conversation is.
        after: the id of the control token before, -1 for any, None where text stands before."""
        ids, text = [], ""
        for part in parts:
            is_mark = isinstance(part, str)
            for piece in re.split(f"({CONTROL})", part) if is_mark else part:
                if is_mark and piece in self.control:
                    ids += self.encode_after(after, text)
                    after, text = self.control[piece], ""
                    ids.append(after)
                else:
                    text += piece
        return (*ids, *self.encode_after(after, text))

    def _turn(self, role, content, last=True):
        """(ids, loss mask) of one message, as tuples: what an assistant says is learned, and its close.
        last: whether the message is the last one."""
        form = self.format
        content = content.strip() if form.strip else content
        if role != "assistant":
            before = form.preamble if role == "system" else ""
            ids = self.join(form.open[role], form.lead, (before + content,), form.close[role], form.after)
            return ids, (0,) * len(ids)
        opening, parts = form.reply_parts(content, last)
        mark = opening or form.close.get("user", "")  # what stands before the reply
        follows_control = mark.endswith(tuple(self.control))
        head = self.join(opening)
        body = self.join(*parts, form.close[role], after=-1 if follows_control else None)
        tail = self.join(form.after, after=self.control[self.end])
        return head + body + tail, (0,) * len(head) + (1,) * len(body) + (0,) * len(tail)

    def render(self, messages, learn="replies"):
        """Ids and loss mask (lists of equal length) of a conversation; learn as in games.task.Chat."""
        form = self.format
        messages = form.with_system(messages)
        ids = list(self.join(form.bos))
        mask = [0] * len(ids)
        for i, message in enumerate(messages):
            last = i == len(messages) - 1
            if form.between and i:
                ids += self.join(form.between)
            mask += [0] * (len(ids) - len(mask))
            turn, learned = self.turn(message["role"], message["content"], last)
            ids += turn
            if learn == "replies" or last:
                mask += learned
        mask += [0] * (len(ids) - len(mask))
        if learn == "all":
            mask = [0] + [1] * (len(ids) - 1)
        return ids, mask

    def replied(self, messages, reply):
        """Ids and loss mask of a reply, which alone is learned, to a conversation."""
        return self.render([*messages, {"role": "assistant", "content": reply}], "last")

    def prompt(self, messages):
        """Ids that end where the assistant's reply begins, or of an encoder's whole input. What one role says
        in several messages is one message of a chat, but a part each of an encoder's input."""
        form = self.format
        if form.between is None:
            messages = merge_turns(messages)
        ids, _ = self.render(messages)
        return [*ids, *self.join(form.open["assistant"] + form.no_thought)]

    def fitted(self, messages, most):
        """(ids, whether anything was cut) of a prompt of at most `most` tokens.

        What is too much is taken from the longest contents, as many tokens of each "share" (1 where a message
        has none) being left, so that shares nobody needs go to the others and equal parts stay equal
        whatever their order; a shortened content keeps its first three quarters and its last quarter."""
        ids = self.prompt(messages)
        if len(ids) <= most:
            return ids, False
        texts = [replace_surrogates(message["content"]) for message in messages]
        spans = [self.inner.encode(text, add_special_tokens=False).offsets for text in texts]
        shares = [message.get("share", 1) for message in messages]
        frame = len(self.prompt([{**message, "content": ""} for message in messages]))
        marks = len(self.encode(CUT)) + 2  # where a text is cut its tokens may come apart
        room = most - frame
        while room >= 0:
            level = largest_level([*map(len, spans)], shares, room, most)
            cut = []
            for message, text, span, share in zip(messages, texts, spans, shares):
                if len(span) > level * share:
                    text = keep_ends(text, span, int(level * share) - marks)
                cut.append({**message, "content": text})
            ids = self.prompt(cut)
            if len(ids) <= most:
                return ids, True
            room -= len(ids) - most
        raise UsageError(f"--max-tokens {most}: too few even for what stands around the texts ({frame})")

    def decode(self, ids):
        """The text of ids, control tokens left out."""
        control = self.control.values()
        text = self.inner.decode([token for token in ids if token not in control], skip_special_tokens=True)
        return text.removeprefix(self.format.lead)

    def coloured(self, ids, mask):
        """Ids as terminal text, what is learned in green and the rest dim."""
        parts = []
        for learned, run in groupby(zip(ids, mask), key=lambda pair: pair[1]):
            text = self.inner.decode([token for token, _ in run], skip_special_tokens=False)
            parts.append(painted(text, GREEN if learned else DIM))
        return "".join(parts)

    def save(self, folder):
        """Write tokenizer.json and the tokenizer_config.json by which other tools read it."""
        self.inner.save(str(Path(folder) / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.format.bos,
            "eos_token": self.end,
            "pad_token": self.end,
        }
        if self.format is FORMATS["plain"]:
            config["chat_template"] = PLAIN_TEMPLATE
        write_json(Path(folder) / "tokenizer_config.json", config)


def replace_surrogates(text):
    """Text with "?" for lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def largest_level(sizes, shares, room, most):
    """The largest number of tokens for each share with which texts of these sizes fit into room, by bisection
    up to `most`."""
    low, high = 0.0, float(most)
    for _ in range(40):
        level = (low + high) / 2
        if sum(min(size, level * share) for size, share in zip(sizes, shares)) <= room:
            low = level
        else:
            high = level
    return low


def keep_ends(text, span, kept):
    """The first three quarters and the last quarter of `kept` tokens of a text; span: where each token is."""
    if kept <= 0:
        return ""
    tail = kept // 4
    head_end = span[kept - tail - 1][1]
    return text[:head_end] + CUT + (text[span[-tail][0] :] if tail else "")


def stop_prepending(inner):
    """Switch off the space that sentencepiece-like tokenizers put before every text, and say how they did:
    "" not at all or at the very start only, "always", or "once" where the text does not begin with one.

    Tokenizer.encode_after puts it where it stands in a whole conversation: behind control tokens."""
    space = ""
    for owner, kind, key in (
        ("normalizer", normalizers, "normalizers"),
        ("pre_tokenizer", pre_tokenizers, "pretokenizers"),
    ):
        component = getattr(inner, owner)
        if component is None:
            continue
        state = json.loads(component.__getstate__())
        steps = state.get(key, [state])
        kept = [step for step in steps if step["type"] != "Prepend"]
        if len(kept) < len(steps):
            space = "always"
        for step in kept:
            if step.get("prepend_scheme") == "always":
                space = "once"
            if "prepend_scheme" in step:
                step["prepend_scheme"] = "never"
        changed = kind.Sequence([])
        changed.__setstate__(json.dumps({"type": "Sequence", key: kept}).encode())
        setattr(inner, owner, changed)
    return space


FROM_SENTENCEPIECE = (
    "from transformers import LlamaTokenizerFast as T; T.from_pretrained('{0}').save_pretrained('{0}')"
)


def read_tokenizer(folder, vocab=None):
    """The tokenizers.Tokenizer of a model folder. vocab: the size of the model's embedding, which must hold
    every token."""
    path = Path(folder) / "tokenizer.json"
    if not path.exists() and path.with_name("tokenizer.model").exists():
        raise FileNotFoundError(
            f"{folder}: only a sentencepiece tokenizer.model, no tokenizer.json; make one once with:\n"
            "pip install transformers sentencepiece protobuf\n"
            f'python -c "{FROM_SENTENCEPIECE.format(folder)}"'
        )
    if not path.exists():
        raise FileNotFoundError(f"{folder}: no tokenizer.json (save one with transformers' fast tokenizer)")
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"{path}: not a tokenizer ({error})") from error
    if vocab and inner.get_vocab_size() > vocab:
        raise ValueError(f"{path}: {inner.get_vocab_size()} tokens, but the model has room for {vocab}")
    return inner


def load_tokenizer(folder, format="", vocab=None):
    """The Tokenizer of a model folder; its chat format is recognised by the chat template unless named.

    vocab as in read_tokenizer."""
    folder = Path(folder)
    inner = read_tokenizer(folder, vocab)
    stop_ids = []
    for name in ("tokenizer_config.json", "generation_config.json", "config.json"):
        eos = optional_json(folder / name).get("eos_token_id")
        if isinstance(eos, int):
            stop_ids.append(eos)
        elif isinstance(eos, list):
            stop_ids += eos
    format = format or recognize_format(folder)
    if not format and (encoder := encoder_format(inner)):
        return Tokenizer(inner, encoder)
    if format not in FORMATS:
        own = format or "that of its chat template"
        raise ValueError(f"{folder}: no chat format of ours ({own}); name one: --format {'|'.join(FORMATS)}")
    return Tokenizer(inner, FORMATS[format], stop_ids)


def train_tokenizer(texts, vocab, pre_tokens=PHRASES):
    """A byte-level BPE of at most `vocab` tokens in the plain format, learned from texts. Deterministic.

    pre_tokens: a regular expression for the pieces of a text that merges never cross. By default text is cut
    at line ends and after ": " only, so that merges run across spaces: a phrase the game uses often becomes
    one token, and a whole question costs a from-scratch model a single step."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.normalizer = normalizers.Sequence([])
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pre_tokens), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=["<|begin|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner, FORMATS["plain"])


# ------------------------------------------------------------------------------------------------ rows
empty = partial(field, default_factory=list)


@dataclass
class Row:
    """Token trees laid end to end. ids, positions and end are a model's input; `source` are the slots whose
    logits predict `target`, one entry for every learned token of every sample, and `owner` is the sample it
    belongs to. `labels` has what else is known of each sample."""

    ids: list = empty()
    positions: list = empty()
    end: list = empty()
    source: list = empty()
    target: list = empty()
    owner: list = empty()
    labels: list = empty()

    def __len__(self):
        return len(self.ids)

    def extend(self, other, start):
        """Take on another row, whose slots are from now on counted from `start`."""
        self.owner += [sample + len(self.labels) for sample in other.owner]
        self.labels += other.labels
        self.ids += other.ids
        self.positions += other.positions
        self.end += [slot + start for slot in other.end]
        self.source += [slot + start for slot in other.source]
        self.target += other.target


def text_row(ids, label):
    """A row of one text of which a model makes one thing: a class or a vector."""
    return Row(ids, [*range(len(ids))], [len(ids)] * len(ids), labels=[label])


def common(a, b):
    """How many items two lists share from the start, by bisection: comparing slices is faster than a loop."""
    lengths = range(1, min(len(a), len(b)) + 1)
    return bisect_left(lengths, True, key=lambda n: a[:n] != b[:n])


def share_prefixes(samples, labels=None):
    """One Row that holds the samples (ids, mask) as a tree, in depth-first order; labels one for each sample.

    Sorted samples visit the tree depth first, so each differs from the one before in a suffix. The loss is
    exactly that of the samples one by one; only the work on what they share is done once. A sample's last
    token predicts nothing and is no input."""
    row = Row(labels=list(labels or [0.0] * len(samples)))
    path, last = [], []  # slots and input ids of the sample just laid out
    for sample in sorted(range(len(samples)), key=lambda sample: samples[sample]):
        ids, mask = samples[sample]
        inputs = ids[:-1]
        shared, first = common(last, inputs), len(row.ids)
        for slot in path[shared:]:
            row.end[slot] = first
        row.ids += inputs[shared:]
        row.positions += range(shared, len(inputs))
        row.end += [0] * (len(inputs) - shared)
        path[shared:] = range(first, len(row.ids))
        last = inputs
        for t in compress(range(1, len(ids)), mask[1:]):  # learned tokens
            row.source.append(path[t - 1])
            row.target.append(ids[t])
            row.owner.append(sample)
    for slot in path:
        row.end[slot] = len(row.ids)
    return row


def trees(samples, max_tokens, labels=None):
    """Rows of at most max_tokens for the samples of one example: one tree where it fits, else halves of the
    samples."""
    row = share_prefixes(samples, labels)
    if len(row) <= max_tokens or len(samples) == 1:
        return [row]
    order = sorted(range(len(samples)), key=samples.__getitem__)
    half = len(samples) // 2
    rows = []
    for part in (order[:half], order[half:]):
        own = labels and [labels[i] for i in part]
        rows += trees([samples[i] for i in part], max_tokens, own)
    return rows


def pack(rows, max_tokens):
    """Join rows into fewer rows of at most max_tokens slots each: best fit, longest first."""
    packed = []
    for row in sorted(rows, key=len, reverse=True):
        room = [other for other in packed if len(other) + len(row) <= max_tokens]
        if not room:
            room = [Row()]
            packed += room
        fullest = max(room, key=len)
        fullest.extend(row, len(fullest))
    return packed


def micro_batches(rows, micro_tokens):
    """Rows in groups of at most micro_tokens slots, padding included."""
    groups = []
    for row in sorted(rows, key=len, reverse=True):  # the first row of a group is its width
        if groups and len(groups[-1][0]) * (len(groups[-1]) + 1) <= micro_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


@dataclass
class Batch:
    """Rows as tensors: B rows of T slots, of which N predict a learned token, and S samples."""

    # collate fills these:
    ids: torch.Tensor  # (B, T)
    positions: torch.Tensor  # (B, T)
    end: torch.Tensor | None  # (B, T); None where every row is one plain text, which needs no mask
    source: torch.Tensor  # (N,): slots that predict, counted across the batch: row * T + slot
    target: torch.Tensor  # (N,): the token that each predicts
    owner: torch.Tensor  # (N,): the sample that each belongs to, counted across the batch
    labels: torch.Tensor  # (S,) or (S, labels): what else is known of each sample
    length: torch.Tensor  # (B,): slots in use
    # objectives.py fills these:
    number: int = 0  # which batch of its step
    filler: bool = False  # computed only so that all ranks make as many passes; it counts for nothing


def collate(rows, device="cpu"):
    """The Batch of some rows."""
    width = max(map(len, rows))
    joined = Row()
    for number, row in enumerate(rows):
        joined.extend(row, number * width)
    tensor = partial(torch.tensor, dtype=torch.long, device=device)
    pad = lambda lists: tensor([numbers + [0] * (width - len(numbers)) for numbers in lists])
    plain = all(end == len(row) for row in rows for end in row.end)
    return Batch(
        ids=pad(row.ids for row in rows),
        positions=pad(row.positions for row in rows),
        end=None if plain else pad(row.end for row in rows),
        source=tensor(joined.source),
        target=tensor(joined.target),
        owner=tensor(joined.owner),
        labels=torch.tensor(joined.labels, device=device),
        length=tensor([*map(len, rows)]),
    )


# ------------------------------------------------------------------------------------------------ order
@lru_cache(maxsize=2)
def permutation(seed, epoch, n):
    return np.random.default_rng([seed, epoch]).permutation(n)


def indices(seed, step, batch, n):
    """The examples of a step (counted from 0): list of (example index, epoch). Every epoch is a fresh
    shuffle."""
    places = [divmod(place, n) for place in range(step * batch, (step + 1) * batch)]
    return [(int(permutation(seed, epoch, n)[at]), epoch) for epoch, at in places]
