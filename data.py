"""From messages to batches: tokenizer, rows that share prefixes, packing, and the order of examples.

`Tokenizer.render` makes the ids and the loss mask together, so they cannot drift apart. `share_prefixes` lays
out the samples of one example as a tree, so what they have in common is stored and computed once. `pack`
fills rows with such trees, and `collate` turns rows into a Batch. formats.py says how each format writes a
chat."""

import json
import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import compress, groupby
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, normalizers, pre_tokenizers, trainers

from files import LARGEST, read_settings, read_text, write_json, write_text
from formats import (
    FORMATS,
    KINDS,
    THOUGHT_MARKS,
    Format,
    encoder_format,
    merge_turns,
    read_format,
    shape_of,
)
from games.task import PHRASES
from terminal import DIM, GREEN, UsageError, paint

CUT = " ... "  # marks the place where a text was shortened
OFTEN = 4  # a text that a game names so often becomes one token of its tokenizer


# ------------------------------------------------------------------------------------------------ tokenizer
class Tokenizer:
    """A tokenizer.json and the chat format that goes with it."""

    def __init__(self, inner, format: Format, stop_ids=()):
        self.inner = inner  # a tokenizers.Tokenizer
        self.format = format
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # "<|im_end|>" inside a message is text
        self.space = stop_prepending(inner)  # when to put a space before text that follows a control token

        added = inner.get_added_tokens_decoder()
        self.control = control_tokens(inner, format)  # name -> id
        inner.add_special_tokens([added[token] for token in self.control.values() if token in added])
        longest_first = sorted(self.control, key=len, reverse=True)
        self.control_pattern = "|".join(map(re.escape, longest_first)) or "(?!)"  # without any, never matches
        special = {token for token, settings in added.items() if settings.special}
        self.hidden = special.union(self.control.values())  # left out of a reply's text
        self.hidden.difference_update(map(inner.token_to_id, THOUGHT_MARKS))
        # tokens that swallow the spaces after them
        self.strips_right = {token for token, settings in added.items() if settings.rstrip}

        self.begin, self.lead, after = format.around_reply()
        end = re.search(self.control_pattern, after)  # the control token that ends a reply
        if not end:
            raise format.error("ends a reply with no control token that the tokenizer has")
        self.end = end[0]
        self.stop_ids = sorted({self.control[self.end], *stop_ids})
        self.numbers_texts = format.parts and 1 in inner.encode("a", "a").type_ids

        # games use the same texts again and again
        self.encode = lru_cache(maxsize=100_000)(self._encode)
        self.shape_of = lru_cache(maxsize=100_000)(shape_of)
        self.plan = lru_cache(maxsize=10_000)(self._plan)

    @property
    def size(self) -> int:
        return self.inner.get_vocab_size()

    def _encode(self, text):
        """Ids of a message's content, as a tuple. It holds no control token, whatever the text spells."""
        return tuple(self.inner.encode(replace_surrogates(text), add_special_tokens=False).ids)

    def encode_after(self, token: int | None, text: str) -> tuple:
        """Ids of text that follows a control token (`token` is its id, -1 for any) or other text (None)."""
        if token in self.strips_right:
            text = text.lstrip()
        if not text:
            return ()
        has_space = self.space == "once" and text[0] == " "
        if self.space and token is not None and not has_space:
            text = " " + text
        return self.encode(text)

    def _plan(self, shapes, opened):
        """[(learned, control token or None, pieces, after), ...] of a conversation: see Format.layout, whose
        marks are cut at their control tokens. What lies between two of these is encoded as one text, as it
        would be in a whole conversation, but for the place where a reply begins. after: see encode_after."""
        return self.cut(self.format.layout(shapes, opened, self.control_pattern))

    def cut(self, parts):
        """The plan of parts, which are cut at their control tokens."""
        plan = []
        after = -1
        for part, learned in parts:
            for piece in re.split(f"({self.control_pattern})", part) if isinstance(part, str) else [part]:
                if piece in self.control:
                    after = self.control[piece]
                    plan.append((learned, after, [], None))
                elif plan and plan[-1][1] is None and plan[-1][0] == learned:
                    plan[-1][2].append(piece)
                elif piece != "":
                    plan.append((learned, None, [piece], after))
                    after = None
        return plan

    def render(self, messages: list, learn: str = "replies", opened=False) -> tuple:
        """Ids and loss mask of a conversation, two lists of equal length. learn: see games.task.Chat.
        opened: whether a reply is to come.

        Two rounds in the plain format, with one token for each byte:

            text       <|begin|>  H  i <|assistant|>  N  o <|end|>  S  o  ? <|assistant|>  O  k <|end|>
            ids              257 39 72           256 45 78     258 50 78 30           256 46 74     258
            replies            0  0  0             0  1  1       1  0  0  0             0  1  1       1
            last               0  0  0             0  0  0       0  0  0  0             0  1  1       1
            all                0  1  1             1  1  1       1  1  1  1             1  1  1       1

        A 1 means that the model learns to predict this token from those before it. So <|end|> counts, or a
        reply would never end; <|assistant|> does not, since the program writes it; and the first token never
        counts, since nothing comes before it.

        A chat joins successive messages of one role into one message; in an encoder's input each stays a part
        of its own. A single message of the role "text" is a text without turns: what the tokenizer itself
        puts before it, the text, in which control tokens count as such, and the token that ends a reply."""
        texts = []
        if messages[0]["role"] == "text":
            begin = "".join([token for token in self.inner.encode("").tokens if token in self.control])
            plan = self.cut([(begin + messages[0]["content"].removesuffix(self.end) + self.end, 2)])
        else:
            if not self.format.parts:
                messages = merge_turns(messages)
            shapes = []
            for message in messages:
                shape, hidden = self.shape_of(message["role"], message["content"])
                shapes.append(shape)
                texts += hidden
            plan = self.plan(tuple(shapes), opened)
        ids = []
        mask = []
        for learned, token, pieces, after in plan:
            if token is None:
                text = "".join([texts[piece] if isinstance(piece, int) else piece for piece in pieces])
                ids += self.encode_after(after, text)
            else:
                ids.append(token)
            counts = learned == 2 or (learned and learn == "replies")
            mask += [int(counts)] * (len(ids) - len(mask))
        if learn == "all":
            mask = [0] + [1] * (len(ids) - 1)
        return ids, mask

    def render_reply(self, messages: list, reply: str) -> tuple:
        """Ids and loss mask of a conversation and a reply to it; only the reply is learned."""
        return self.render([*messages, {"role": "assistant", "content": reply}], "last")

    def prompt(self, messages: list) -> list:
        """Ids up to where the assistant's reply begins, or all of a conversation that ends with a reply, and
        of an encoder's input."""
        ids, _ = self.render(messages, opened=messages[-1]["role"] != "assistant")
        return ids

    def fit_prompt(self, messages: list, max_tokens: int) -> tuple:
        """(ids, whether anything was cut): a prompt shortened to at most `max_tokens` tokens.

        The longest contents are cut first. Each may keep `level` tokens times its message's "share" (1 by
        default), with the highest level that fits. So room that a short content leaves goes to the others,
        and parts of equal length stay equal in whatever order they come. A content that is cut keeps its
        beginning (three quarters of what is left of it) and its end."""
        ids = self.prompt(messages)
        if len(ids) <= max_tokens:
            return ids, False
        texts = [replace_surrogates(message["content"]) for message in messages]
        spans = [self.inner.encode(text, add_special_tokens=False).offsets for text in texts]
        shares = [message.get("share", 1) for message in messages]
        frame = len(self.prompt([{**message, "content": ""} for message in messages]))
        mark_size = len(self.encode(CUT)) + 2  # 2 more, since tokens may come apart where a text is cut

        room = max_tokens - frame
        while room >= 0:
            level = largest_level([*map(len, spans)], shares, room, max_tokens)
            shortened = []
            for message, text, span, share in zip(messages, texts, spans, shares):
                if len(span) > level * share:
                    text = keep_ends(text, span, int(level * share) - mark_size)
                shortened.append({**message, "content": text})
            ids = self.prompt(shortened)
            if len(ids) <= max_tokens:
                return ids, True
            room -= len(ids) - max_tokens  # shortened texts may have more tokens than counted
        raise UsageError(
            f"--max-tokens {max_tokens}: too few even for the chat format around the texts ({frame})"
        )

    def fit_row(self, messages: list, max_tokens: int, label) -> tuple:
        """(Row of one text, whether anything was cut), see fit_prompt. Where the tokenizer numbers the texts
        of a pair, as BERT's does, the first part of an encoder's input has type 0 and the others type 1:

            [CLS] Is it red? [SEP] No, blue. [SEP]
              0   0  0  0  0   0   1 1  1  1   1"""
        ids, cut = self.fit_prompt(messages, max_tokens)
        row = text_row(ids, label)
        if self.numbers_texts:
            first = ids.index(self.control[self.end]) + 1
            row.types = [0] * first + [1] * (len(ids) - first)
        return row, cut

    def decode(self, ids) -> str:
        """The text of ids, without control tokens other than the marks of a thought."""
        shown = [token for token in ids if token not in self.hidden]
        return self.inner.decode(shown, skip_special_tokens=False).removeprefix(self.lead)

    def colour(self, ids: list, mask: list) -> str:
        """The ids as text for the terminal: learned tokens green, the others dim."""
        parts = []
        for learned, run in groupby(zip(ids, mask), key=lambda pair: pair[1]):
            text = self.inner.decode([token for token, _ in run], skip_special_tokens=False)
            parts.append(paint(text, GREEN if learned else DIM))
        return "".join(parts)

    def save(self, folder):
        """Write tokenizer.json, and tokenizer_config.json for other tools to read it by."""
        write_text(Path(folder) / "tokenizer.json", self.inner.to_str(pretty=True))
        begin = re.match(self.control_pattern, self.begin)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": begin[0] if begin else "",
            "eos_token": self.end,
            "pad_token": self.end,
        }
        if not self.format.parts:
            config["chat_template"] = self.format.template
        write_json(Path(folder) / "tokenizer_config.json", config)


def control_tokens(inner, format):
    """{name: id} of the control tokens that a format writes. Raises ValueError if the tokenizer lacks one
    that a format of ours needs; a checkpoint's own template may write plain text that looks alike."""
    names = {*format.control_names()}
    for settings in inner.get_added_tokens_decoder().values():
        if settings.special and settings.content in format.marks:
            names.add(settings.content)
    control = {}
    for name in sorted(names):
        token = inner.token_to_id(name)
        if token is not None:
            control[name] = token
        elif not (format.where or "think" in name or "INST" in name):  # those may be plain text
            raise ValueError(f"the tokenizer has no token {name}, which its chat format needs; try --format")
    return control


def replace_surrogates(text):
    """Text with "?" for each lone surrogate, which no tokenizer accepts."""
    return text.encode("utf-8", "replace").decode("utf-8")


def largest_level(sizes, shares, room, most):
    """The largest number of tokens per share, up to `most`, at which texts of these sizes fit into `room`."""
    low = 0.0
    high = float(most)
    for _ in range(40):  # bisection, to far below a token
        level = (low + high) / 2
        if sum(min(size, level * share) for size, share in zip(sizes, shares)) <= room:
            low = level
        else:
            high = level
    return low


def keep_ends(text, span, count):
    """Cut a text to its first and last tokens, `count` in all, three quarters of them at its beginning.

    span: (start, end) of each token in the text."""
    if count <= 0:
        return ""
    tail = count // 4
    head_end = span[count - tail - 1][1]
    return text[:head_end] + CUT + (text[span[-tail][0] :] if tail else "")


def stop_prepending(inner):
    """Switch off the space that sentencepiece-like tokenizers put before every text, and return when they did
    so: "always", "once" (only before a text that has none), or "" (never, or only at the very start).

    Tokenizer.encode_after puts the space back where a whole conversation has it: after control tokens."""
    space = ""
    for attribute, library, key in (
        ("normalizer", normalizers, "normalizers"),
        ("pre_tokenizer", pre_tokenizers, "pretokenizers"),
    ):
        component = getattr(inner, attribute)
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
        changed = library.Sequence([])
        changed.__setstate__(json.dumps({"type": "Sequence", key: kept}).encode())
        setattr(inner, attribute, changed)
    return space


FROM_SENTENCEPIECE = (
    "from transformers import LlamaTokenizerFast as T; T.from_pretrained('{0}').save_pretrained('{0}')"
)


def read_tokenizer(folder, vocab=None) -> tokenizers.Tokenizer:
    """The tokenizers.Tokenizer of a model folder. vocab: rows of the model's embedding; no token that a text
    can hold may have an id beyond them."""
    path = Path(folder) / "tokenizer.json"
    if not path.exists() and path.with_name("tokenizer.model").exists():
        raise FileNotFoundError(
            f"{folder}: only a sentencepiece tokenizer.model, no tokenizer.json; make one once with:\n"
            "pip install transformers sentencepiece protobuf\n"
            f'python -c "{FROM_SENTENCEPIECE.format(folder)}"'
        )
    text = read_text(path, 4 * LARGEST)
    try:
        inner = tokenizers.Tokenizer.from_str(text)
        around = inner.encode("a", "a").ids + inner.encode("a").ids  # with the tokens that it puts around
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the library raises bare Exceptions, and its panics are not even those
        raise ValueError(f"{path}: not a tokenizer ({error})") from error
    inner.encode_special_tokens = True
    unused = set()  # special tokens that no text can hold, as pictures have them
    for token, settings in inner.get_added_tokens_decoder().items():
        if vocab and token >= vocab and settings.special and token not in inner.encode(settings.content).ids:
            unused.add(token)
    check_room(path, {*inner.get_vocab().values()} - unused | {*around}, vocab)
    return inner


def check_room(path, ids, vocab):
    """Raise ValueError if one of the ids has no row in an embedding of `vocab` rows (None: any number)."""
    last = max(ids, default=0)
    if vocab and last >= vocab:
        raise ValueError(f"{path}: a token has id {last}, but the model has room for {vocab} tokens")


def load_tokenizer(folder, format="", vocab=None, base=None) -> Tokenizer:
    """The Tokenizer of a model folder, whose chat template is the format unless `format` names another.

    vocab: see read_tokenizer. base: the folder of an adapter's base, whose ends of a reply count too."""
    folder = Path(folder)
    inner = read_tokenizer(folder, vocab)
    stop_ids = []
    for place in {folder, Path(base or folder)}:
        for name in ("tokenizer_config.json", "generation_config.json", "config.json"):
            eos = read_settings(place / name, KINDS, default={}).get("eos_token_id")
            stop_ids += [eos] if isinstance(eos, int) else eos or []

    chosen = FORMATS.get(format) if format else read_format(folder) or encoder_format(inner)
    if not chosen:
        unknown = f"unknown chat format ({format})" if format else "no chat template"
        known = "|".join(FORMATS)
        raise ValueError(f"{folder}: {unknown}; name a format: --format {known}")
    tokenizer = Tokenizer(inner, chosen, [] if chosen.parts else stop_ids)
    check_room(folder / "tokenizer.json", tokenizer.control.values(), vocab)
    return tokenizer


def train_tokenizer(texts, vocab, pre_tokens=PHRASES) -> Tokenizer:
    """Learn a byte-level BPE of at most `vocab` tokens from texts, in the plain format. Deterministic.

    pre_tokens: a regular expression for the pieces of a text that merges never cross. By default a text is
    cut only at line ends and after ": ", so merges run across spaces: a phrase the game uses often becomes
    one token, and a whole question costs a from-scratch model a single step. A phrase that is there at least
    OFTEN times becomes one token even if the vocabulary is too small for its merges (add_phrases)."""
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
    if pre_tokens == PHRASES:
        phrases = [text for text, times in Counter(texts).items() if times >= OFTEN]
        inner = add_phrases(inner, phrases, vocab)
    return Tokenizer(inner, FORMATS["plain"])


def add_phrases(inner, phrases, vocab) -> tokenizers.Tokenizer:
    """The tokenizer with each phrase as a token of its own. Where the vocabulary is full, phrases take the
    place of the rarest merges.

    A phrase of several words needs a merge for each of its parts, and these merges are of little use to any
    other text. With `ignore_merges` a piece of text that is in the vocabulary needs no merges."""
    state = json.loads(inner.to_str())
    ids = state["model"]["vocab"]
    pieces = []
    for phrase in phrases:
        pieces += [piece for piece, _ in inner.pre_tokenizer.pre_tokenize_str(phrase)]
    pieces = list(dict.fromkeys(pieces))
    if ids.keys() >= set(pieces):
        return inner
    room = vocab - len(pieces)
    bytes_and_control = len(ids) - len({left + right for left, right in state["model"]["merges"]})
    if room < bytes_and_control:
        least = bytes_and_control + len(pieces)
        raise UsageError(
            f"--vocab {vocab}: too small, the game's phrases and single bytes are {least} tokens"
        )
    ids = {token: i for token, i in ids.items() if i < room}  # merges are in order of frequency
    merges = [pair for pair in state["model"]["merges"] if "".join(pair) in ids]
    for piece in pieces:
        ids.setdefault(piece, len(ids))
    state["model"] |= {"vocab": ids, "merges": merges, "ignore_merges": True}
    return tokenizers.Tokenizer.from_str(json.dumps(state))


# ------------------------------------------------------------------------------------------------ rows
empty = partial(field, default_factory=list)


@dataclass
class Row:
    """Trees of tokens laid end to end, in slots. share_prefixes has an example."""

    # the model's input, for each slot:
    ids: list = empty()
    positions: list = empty()  # in the sample, so slots of two branches may have the same
    end: list = empty()  # the first slot that no longer sees this one
    types: list = empty()  # which text of a pair it is in, see Tokenizer.fit_row; empty where all are 0
    # one entry for every learned token of every sample:
    source: list = empty()  # the slot whose logits predict it
    target: list = empty()  # the token
    owner: list = empty()  # the sample
    # one entry for every sample:
    labels: list = empty()  # what else is known of it: a class, an advantage, an index ...

    def __len__(self):
        return len(self.ids)

    def extend(self, other, start):
        """Append another row, whose slots are counted from `start` here."""
        self.owner += [sample + len(self.labels) for sample in other.owner]
        self.labels += other.labels
        self.ids += other.ids
        self.positions += other.positions
        self.end += [slot + start for slot in other.end]
        self.source += [slot + start for slot in other.source]
        self.target += other.target


def text_row(ids: list, label) -> Row:
    """A row of one text from which a model makes a single result, a class or a vector."""
    return Row(ids, [*range(len(ids))], [len(ids)] * len(ids), labels=[label])


def shared_length(a, b) -> int:
    """How many items two lists share from the start, by bisection: comparing slices is faster than a loop."""
    lengths = range(1, min(len(a), len(b)) + 1)
    return bisect_left(lengths, True, key=lambda n: a[:n] != b[:n])


def share_prefixes(samples: list, labels=None) -> Row:
    """One Row that holds the samples (ids, mask) as a tree, in depth-first order. labels: one a sample.

    The loss is exactly that of the samples one by one, but what they share is computed once. A sample's last
    token predicts nothing, so it is no input. Three samples, their learned tokens in brackets:

        sample 0    5   6   7  [8] [9]            slot        0   1   2   3   4
        sample 1    5   6   7  [2]                ids         5   6   3   7   8
        sample 2    5   6  [3] [4]                positions   0   1   2   2   3
                                                  end         5   5   3   5   5
        tree        5 - 6 -+- 3
                           |                      source      1   2   3   3   4
                           +- 7 --- 8             target      3   4   2   8   9
                                                  owner       2   2   1   0   0

    Slot i sees slot j when j <= i < end[j]. So the 3, whose branch ends at slot 3, is hidden from 7 and 8,
    while 5 and 6 are seen by all. Slot 3, the 7, predicts twice: 2 in sample 1 and 8 in sample 0."""
    tree = Row(labels=list(labels or [0.0] * len(samples)))
    path = []  # slots of the sample just laid out
    last = []  # its input ids
    # Sorted samples visit the tree depth first: each differs from the one before only in a suffix.
    for sample in sorted(range(len(samples)), key=lambda sample: samples[sample]):
        ids, mask = samples[sample]
        inputs = ids[:-1]
        shared = shared_length(last, inputs)
        first = len(tree.ids)
        for slot in path[shared:]:  # the branch that ends here
            tree.end[slot] = first
        tree.ids += inputs[shared:]
        tree.positions += range(shared, len(inputs))
        tree.end += [0] * (len(inputs) - shared)  # known when the branch ends
        path[shared:] = range(first, len(tree.ids))
        last = inputs
        for t in compress(range(1, len(ids)), mask[1:]):  # learned tokens
            tree.source.append(path[t - 1])
            tree.target.append(ids[t])
            tree.owner.append(sample)
    for slot in path:
        tree.end[slot] = len(tree.ids)
    return tree


def trees(samples: list, max_tokens: int, labels=None) -> list:
    """Rows of at most max_tokens for the samples of one example: one tree, or if that is too long, trees of
    the first and the second half of the samples."""
    row = share_prefixes(samples, labels)
    if len(row) <= max_tokens or len(samples) == 1:
        return [row]
    order = sorted(range(len(samples)), key=samples.__getitem__)  # so neighbours share most
    half = len(samples) // 2
    rows = []
    for part in (order[:half], order[half:]):
        part_labels = labels and [labels[i] for i in part]
        rows += trees([samples[i] for i in part], max_tokens, part_labels)
    return rows


def pack(rows: list, max_tokens: int) -> list:
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


def micro_batches(rows: list, micro_tokens: int) -> list:
    """Rows in groups of at most micro_tokens slots, padding included."""
    groups = []
    for row in sorted(rows, key=len, reverse=True):  # so the first row of a group is as wide as the group
        if groups and len(groups[-1][0]) * (len(groups[-1]) + 1) <= micro_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


@dataclass
class Batch:
    """Rows as tensors: B rows of T slots with S samples, of which N tokens are learned."""

    # collate fills these:
    ids: torch.Tensor  # (B, T)
    positions: torch.Tensor  # (B, T)
    types: torch.Tensor  # (B, T)
    end: torch.Tensor | None  # (B, T); None where every row is one plain text, which needs no mask
    source: torch.Tensor  # (N,): slots that predict, counted across the batch: row * T + slot
    target: torch.Tensor  # (N,): the token that each predicts
    owner: torch.Tensor  # (N,): the sample that each belongs to, counted across the batch
    labels: torch.Tensor  # (S,) or (S, labels): what else is known of each sample
    length: torch.Tensor  # (B,): slots in use
    # steps.batches_of fills these:
    number: int = 0  # which batch of its step
    filler: bool = False  # computed only so that all ranks make as many passes; it counts for nothing


def collate(rows: list, device="cpu") -> Batch:
    """Turn rows into a Batch, padded with zeros to the longest."""
    width = max(map(len, rows))
    joined = Row()  # of the lists that are not padded
    for i, row in enumerate(rows):
        joined.extend(row, i * width)
    tensor = partial(torch.tensor, dtype=torch.long, device=device)
    pad = lambda lists: tensor([values + [0] * (width - len(values)) for values in lists])
    plain = all(end == len(row) for row in rows for end in row.end)
    ids = pad(row.ids for row in rows)
    return Batch(
        ids=ids,
        positions=pad(row.positions for row in rows),
        types=pad(row.types for row in rows) if any(row.types for row in rows) else torch.zeros_like(ids),
        end=None if plain else pad(row.end for row in rows),
        source=tensor(joined.source),
        target=tensor(joined.target),
        owner=tensor(joined.owner),
        labels=torch.tensor(joined.labels, device=device),
        length=tensor([*map(len, rows)]),
    )


# ------------------------------------------------------------------------------------------------ order
@lru_cache(maxsize=2)  # a step at the end of an epoch needs two
def permutation(seed, epoch, n):
    return np.random.default_rng([seed, epoch]).permutation(n)


def indices(seed, step, batch, n) -> list:
    """The examples of a step (counted from 0), as (example index, epoch). Every epoch shuffles afresh."""
    drawn = []
    for count in range(step * batch, (step + 1) * batch):  # examples drawn before
        epoch, place = divmod(count, n)
        drawn.append((int(permutation(seed, epoch, n)[place]), epoch))
    return drawn
