"""From messages to batches: tokenizer, chat formats, render, prefix sharing, packing, seeded order.

`Tokenizer.render` makes ids and loss mask together, so they cannot drift apart. `share_prefixes` lays the
samples of one example out as a tree: what they have in common is stored, and computed, once. `pack` fills
rows with such trees."""

import copy
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, normalizers, pre_tokenizers, trainers

from games.task import Task


# ------------------------------------------------------------------------------------------------ chats
@dataclass
class Format:
    """How a conversation is written. A message is open[role] + lead + content + close[role] + after; a reply
    is learned with its close, which also ends generation."""

    open: dict
    close: dict
    bos: str = ""
    lead: str = ""  # stands before every content and belongs to it
    after: str = ""
    strip: bool = False  # content is stripped before it is written
    system: str = ""  # written when the conversation brings no system message
    preamble: str = ""  # stands before every system message's content, and alone where there is none
    into: str = ""  # no system turn: its content becomes part of the "first" or "last" user message
    between: str | None = None  # of an encoder: messages are parts of one input, with this between them
    wrap: str = "{}\n\n"  # how it does
    thinks: bool = False  # replies may begin with <think>...</think>, which all but the last one lose
    no_thought: str = ""  # opens a last reply that has none
    sign: str = ""  # a regular expression that finds its checkpoints by their own chat template


ROLES = ("system", "user", "assistant")
CHATML = dict(
    open={role: f"<|im_start|>{role}\n" for role in ROLES},
    close=dict.fromkeys(ROLES, "<|im_end|>"),
    after="\n",
)
LLAMA3 = dict(
    bos="<|begin_of_text|>",
    open={role: f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ROLES},
    close=dict.fromkeys(ROLES, "<|eot_id|>"),
    strip=True,
)
MISTRAL = dict(
    bos="<s>", close={"user": "[/INST]", "assistant": "</s>"}, open={"user": "[INST]", "assistant": ""}
)
# The first format whose sign its own chat template has is taken.
FORMATS = {
    "plain": Format(  # parlor's own, for models trained from scratch: two control tokens a round
        bos="<|begin|>",
        open={"system": "", "user": "", "assistant": "<|assistant|>"},
        close={"system": "<|end|>", "user": "", "assistant": "<|end|>"},
        sign=r"<\|begin\|>",
    ),
    "llama3.1": Format(
        **LLAMA3,
        preamble="Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
        sign="Cutting Knowledge Date",
    ),
    "llama3": Format(**LLAMA3, sign=r"<\|start_header_id\|>"),
    "llama2": Format(
        open={"user": "<s>[INST]", "assistant": ""},
        close={"user": " [/INST]", "assistant": " </s>"},
        lead=" ",
        strip=True,
        into="first",
        wrap="<<SYS>>\n{}\n<</SYS>>\n\n",
        sign="<<SYS>>",
    ),
    "mistral-nemo": Format(**MISTRAL, into="last", sign=r"[\"']\[INST\][\"']"),
    "mistral": Format(  # 0.3; the first ones write " [/INST]" and are not recognised
        **MISTRAL, into="last", lead=" ", sign=r"^(?!.* \[/INST\]).*\[INST\]"
    ),
    "gemma": Format(
        bos="<bos>",
        open={"user": "<start_of_turn>user\n", "assistant": "<start_of_turn>model\n"},
        close=dict.fromkeys(ROLES, "<end_of_turn>"),
        after="\n",
        strip=True,
        into="first",
        sign="<start_of_turn>",
    ),
    "phi3": Format(
        open={role: f"<|{role}|>\n" for role in ROLES},
        close=dict.fromkeys(ROLES, "<|end|>"),
        after="\n",
        sign=r"<\|user\|>.*<\|end\|>",
    ),
    "deepseek-r1": Format(
        bos="<｜begin▁of▁sentence｜>",
        open={"system": "", "user": "<｜User｜>", "assistant": "<｜Assistant｜>"},
        close={"system": "", "user": "", "assistant": "<｜end▁of▁sentence｜>"},
        thinks=True,
        sign="<｜Assistant｜>",
    ),
    "smollm2": Format(
        **CHATML,
        system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        sign="named SmolLM",
    ),
    "qwen3": Format(
        **CHATML, thinks=True, no_thought="<think>\n\n</think>\n\n", sign="reasoning_content|enable_thinking"
    ),
    "qwen2.5": Format(
        **CHATML,
        system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        sign="You are Qwen",
    ),
    "qwen2": Format(**CHATML, system="You are a helpful assistant.", sign="You are a helpful assistant"),
    "internlm2": Format(**CHATML, bos="<s>", sign=r"bos_token.*<\|im_start\|>"),
    "chatml": Format(**CHATML, sign=r"<\|im_start\|>"),
}
PLAIN_TEMPLATE = (  # the plain format in the Hub's language, for those who open our folders with other tools
    "{{ '<|begin|>' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% endif %}"
    "{{ m['content'] }}{% if m['role'] != 'user' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# ------------------------------------------------------------------------------------------------ tokenizer
CONTROL = r"<[^<>\n]+>|\[(?:/?INST|CLS|SEP)\]"  # how control tokens are spelled in the marks above
CUT = " ... "  # stands where a text was shortened


class Tokenizer:
    """A tokenizer.json and the chat format that goes with it."""

    def __init__(self, inner, format, stop_ids=()):
        self.inner, self.format = inner, format
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # "<|im_end|>" inside a message is text
        self.space = no_prepending(inner)  # what stands before a text after a control token
        marks = {format.bos, format.no_thought, *format.open.values(), *format.close.values()}
        marks |= {"<think></think>"} if format.thinks else set()
        names = sorted({name for mark in marks for name in re.findall(CONTROL, mark)})
        self.control = {name: inner.token_to_id(name) for name in names}
        unknown = [name for name, token in self.control.items() if token is None]
        for name in unknown:
            if name[0] == "<" and "think" not in name:
                raise ValueError(
                    f"the tokenizer has no token {name}, which its chat format needs; try --format"
                )
            del self.control[name]  # it is plain text there
        added = inner.get_added_tokens_decoder()
        self.eaters = {
            i for i in self.control.values() if i in added and added[i].rstrip
        }  # of the next space
        self.stop_ids = sorted({self.control[re.findall(CONTROL, format.close["assistant"])[-1]], *stop_ids})
        self.encode = lru_cache(maxsize=100_000)(self._encode)
        self.turn = lru_cache(maxsize=100_000)(self._turn)

    @property
    def size(self):
        return self.inner.get_vocab_size()

    def _encode(self, text):
        """Ids of a message's content: a tuple that holds no control token, whatever the text spells."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become "?"
        ids = self.inner.encode(text, add_special_tokens=False).ids
        if not set(self.control.values()).isdisjoint(ids):  # a token the file does not mark as special
            between = "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in self.control)
            parts = re.split(between, text)
            ids = [i for part in parts for i in self.inner.encode(part, add_special_tokens=False).ids]
        return tuple(ids)

    def join(self, *parts, after=-1):
        """Ids of marks, in which control tokens count, and of contents, given as (content,), in which none
        does.

        What stands between two control tokens is encoded as one text, as it is when a whole conversation is.
        after: the id of the control token before, -1 for any, None where text stands before."""
        ids, text = [], ""

        def flush():
            nonlocal text
            text = text.lstrip() if after in self.eaters else text
            if text and after is not None and not (self.space == "once" and text[0] == " "):
                text = self.space and " " + text or text
            ids.extend(self.encode(text) if text else ())
            text = ""

        for part in parts:
            for piece in re.split(f"({CONTROL})", part) if isinstance(part, str) else part:
                if isinstance(part, str) and piece in self.control:
                    flush()
                    after = self.control[piece]
                    ids.append(after)
                else:
                    text += piece
        flush()
        return tuple(ids)

    def _turn(self, role, content, last=True):
        """(ids, start, stop) of one message; ids[start:stop] are what its author says, the close included."""
        form = self.format
        content = content.strip() if form.strip else content
        if role != "assistant":
            before = form.preamble if role == "system" else ""
            return (
                self.join(form.open[role], form.lead, (before + content,), form.close[role], form.after),
                0,
                0,
            )
        opening, parts = form.open[role], [form.lead, (content,)]
        thought, ended, answer = content.rpartition("</think>")
        if form.thinks and ended:
            parts = [(answer.lstrip("\n"),)]
            if last:
                thought = thought.rpartition("<think>")[2].strip("\n")
                parts = ["<think>\n", (thought,), "\n</think>\n\n", *parts]
        elif last:
            opening += form.no_thought
        head, close = self.join(opening), self.join(form.close[role])
        before = re.split(f"({CONTROL})", opening or form.close.get("user", ""))
        follows = not before[-1] and len(before) > 1 and before[-2] in self.control
        body = self.join(*parts, form.close[role], after=-1 if follows else None)
        tail = self.join(form.close[role], form.after)[len(close) :]
        return head + body + tail, len(head), len(head) + len(body)

    def render(self, messages, learn="replies", prompt=False):
        """Ids and loss mask (lists of equal length) of a conversation; learn as in games.task.Chat.

        prompt=True opens the assistant's next turn instead, for generation.
        """
        form, spans = self.format, []
        messages = self.with_system(messages)
        ids = list(self.join(form.bos))
        for i, message in enumerate(messages):
            last = i == len(messages) - 1
            ids += self.join(form.between) if form.between and i else ()
            turn, start, stop = self.turn(message["role"], message["content"], last)
            if message["role"] == "assistant" and (learn == "replies" or last):
                spans.append((len(ids) + start, len(ids) + stop))
            ids += turn
        if prompt:
            ids += self.join(form.open["assistant"] + form.no_thought)
        if learn == "all":
            spans = [(1, len(ids))]
        mask = [0] * len(ids)
        for start, stop in spans:
            mask[start:stop] = [1] * (stop - start)
        return ids, mask

    def replied(self, messages, reply):
        """Ids and loss mask of a reply, which alone is learned, to a conversation."""
        return self.render([*messages, {"role": "assistant", "content": reply}], "last")

    def with_system(self, messages):
        """The messages with a system message as the format has it."""
        form = self.format
        if messages[0]["role"] == "system":
            system, *rest = messages
        elif form.system or form.preamble:
            system, rest = {"role": "system", "content": form.system}, messages
        else:
            return messages
        if not form.into:
            return [system, *rest]
        users = [i for i, message in enumerate(rest) if message["role"] == "user"]
        if not users:
            raise ValueError("this chat format puts the system message into a user's, and there is none")
        place = users[0 if form.into == "first" else -1]
        content = rest[place]["content"].strip() if form.strip else rest[place]["content"]
        joined = {"role": "user", "content": form.wrap.format(system["content"]) + content}
        return [*rest[:place], joined, *rest[place + 1 :]]

    def prompt(self, messages):
        """Ids that end where the assistant's reply begins, or of an encoder's whole input. What one role says
        in several messages is one message of a chat, but a part each of an encoder's input."""
        if self.format.between is None:
            joined = messages[:1]
            for message in messages[1:]:
                if message["role"] == joined[-1]["role"]:
                    text = f"{joined[-1]['content']}\n\n{message['content']}"
                    joined = [*joined[:-1], {"role": message["role"], "content": text}]
                else:
                    joined = [*joined, message]
            messages = joined
        return self.render(messages, learn="last", prompt=True)[0]

    def fitted(self, messages, most):
        """(ids, whether anything was cut) of a prompt of at most `most` tokens.

        What is too much is taken from the longest contents, as many tokens of each "share" (1 where a message
        has none) being left, so that shares nobody needs go to the others and equal parts stay equal
        whatever their order; a shortened content keeps its first three quarters and its last quarter."""
        ids = self.prompt(messages)
        if len(ids) <= most:
            return ids, False
        texts = [message["content"].encode("utf-8", "replace").decode("utf-8") for message in messages]
        spans = [self.inner.encode(text, add_special_tokens=False).offsets for text in texts]
        shares = [message.get("share", 1) for message in messages]
        frame = len(self.prompt([{**message, "content": ""} for message in messages]))
        marks = len(self.encode(CUT)) + 2  # where a text is cut its tokens may come apart
        room = most - frame
        while room >= 0:
            low, high = 0.0, float(most)  # of a level, tokens a share: the largest that fits
            for _ in range(40):
                level = (low + high) / 2
                fits = sum(min(len(span), level * share) for span, share in zip(spans, shares)) <= room
                low, high = (level, high) if fits else (low, level)
            cut = []
            for message, text, span, share in zip(messages, texts, spans, shares):
                kept = int(low * share) - marks
                if len(span) > low * share:
                    head, tail = kept - kept // 4, kept // 4
                    text = text[: span[head - 1][1]] + CUT + (text[span[-tail][0] :] if tail else "")
                    text = text if kept > 0 else ""
                cut.append({**message, "content": text})
            ids = self.prompt(cut)
            if len(ids) <= most:
                return ids, True
            room -= len(ids) - most
        raise ValueError(f"--max-tokens {most}: too few even for what stands around the texts ({frame})")

    def decode(self, ids):
        """The text of ids, control tokens left out."""
        control = set(self.control.values())
        text = self.inner.decode([i for i in ids if i not in control], skip_special_tokens=True)
        return text.removeprefix(self.format.lead)

    def coloured(self, ids, mask):
        """Ids as terminal text, what is learned in green and the rest dim."""
        parts, start = [], 0
        for i in range(1, len(ids) + 1):
            if i == len(ids) or mask[i] != mask[start]:
                text = printable(self.inner.decode(ids[start:i], skip_special_tokens=False))
                parts.append(f"\x1b[{'32' if mask[start] else '2'}m{text}\x1b[0m")
                start = i
        return "".join(parts)

    def save(self, folder):
        """Write tokenizer.json and the tokenizer_config.json by which other tools read it."""
        self.inner.save(str(Path(folder) / "tokenizer.json"))
        names = {token: name for name, token in self.control.items()}
        end = names[self.control[self.format.close["assistant"]]]
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "pad_token": end}
        if self.format.bos:
            config["bos_token"] = self.format.bos
        if self.format is FORMATS["plain"]:
            config["chat_template"] = PLAIN_TEMPLATE
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


FROM_SENTENCEPIECE = (
    "from transformers import LlamaTokenizerFast as T; T.from_pretrained('{0}').save_pretrained('{0}')"
)


def no_prepending(inner):
    """Switch off the space that sentencepiece-like tokenizers put before every text, and say how they did:
    "" not at all or at the very start only, "always", or "once" where the text does not begin with one.

    Tokenizer.join puts it where it stands in a whole conversation: after control tokens."""
    space = ""
    for owner, kind, key in (
        ("normalizer", normalizers, "normalizers"),
        ("pre_tokenizer", pre_tokenizers, "pretokenizers"),
    ):
        step = getattr(inner, owner)
        state = json.loads(step.__getstate__()) if step else {}
        steps = state.get(key, [state])
        schemes = {one.get("prepend_scheme", "never") for one in steps}
        kept = [one for one in steps if one.get("type") != "Prepend"]
        if schemes == {"never"} and kept == steps:
            continue
        space = "always" if kept != steps else "once" if "always" in schemes else space
        kept = [one | {"prepend_scheme": "never"} if "prepend_scheme" in one else one for one in kept]
        changed = kind.Sequence([])
        changed.__setstate__(json.dumps({"type": "Sequence", key: kept}).encode())
        setattr(inner, owner, changed)
    return space


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
    settings, stops = {}, []
    for name in ("tokenizer_config.json", "generation_config.json", "config.json"):
        if (folder / name).exists():
            settings[name] = json.loads((folder / name).read_text(encoding="utf-8"))
            eos = settings[name].get("eos_token_id")
            stops += eos if isinstance(eos, list) else [eos] if isinstance(eos, int) else []
    template = str(settings.get("tokenizer_config.json", {}).get("chat_template") or "")
    if (folder / "chat_template.jinja").exists():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if not format:
        format = next((name for name, form in FORMATS.items() if re.search(form.sign, template, re.S)), "")
    if not format and (encoder := encoder_format(inner)):
        return Tokenizer(inner, encoder)
    if format not in FORMATS:
        what = f"{format!r} is unknown" if format else "its chat template is not one of ours"
        raise ValueError(f"{folder}: chat format: {what}; name one with --format {'|'.join(FORMATS)}")
    return Tokenizer(inner, FORMATS[format], stops)


def encoder_format(inner):
    """The Format of an encoder's input, by what the tokenizer itself puts around a pair of texts; None where
    it does not close them, as those of decoders."""
    inner.no_padding()
    pair = inner.encode("a", "a")
    parts = ["", "", ""]  # before, between and behind the two
    for place, (token, text) in enumerate(zip(pair.tokens, pair.sequence_ids)):
        if text is None:
            parts[(0 in pair.sequence_ids[:place]) + (1 in pair.sequence_ids[:place])] += token
    begin, middle, end = parts
    if not (end and middle.startswith(end)):
        return None
    between = middle.removeprefix(end)
    return Format(dict.fromkeys(ROLES, ""), dict.fromkeys(ROLES, end), begin, between=between)


def train_tokenizer(texts, vocab, pieces=Task.pieces):
    """A byte-level BPE of at most `vocab` tokens in the plain format, learned from texts. Deterministic.

    pieces: a regular expression for the parts of a text that no token goes beyond. By default text is cut at
    line ends and after ": " only, so that merges run across spaces: a phrase the game uses often becomes one
    token, and a whole question costs a from-scratch model a single step."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.normalizer = normalizers.Sequence([])
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pieces), behavior="isolated"),
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


def printable(text):
    """Text from a model, a file or a player with its control characters escaped, safe to send to a
    terminal."""
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)


# ------------------------------------------------------------------------------------------------ rows
@dataclass
class Row:
    """Token trees laid end to end. ids, positions and end are a model's input; `source` are the slots whose
    logits predict `target`, one entry for every learned token of every sample, and `owner` is the sample it
    belongs to. `labels` has what else is known of each sample."""

    ids: list
    positions: list
    end: list
    source: list
    target: list
    owner: list = field(default_factory=list)
    labels: list = field(default_factory=list)

    def extend(self, other):
        start = len(self.ids)
        self.owner += [sample + len(self.labels) for sample in other.owner]
        self.labels += other.labels
        self.ids += other.ids
        self.positions += other.positions
        self.end += [slot + start for slot in other.end]
        self.source += [slot + start for slot in other.source]
        self.target += other.target


def text_row(ids, label):
    """A row of one text of which a model makes one thing: a class or a vector."""
    return Row(ids, [*range(len(ids))], [len(ids)] * len(ids), [], [], labels=[label])


def common(a, b):
    """How many items two lists share from the start, by bisection: comparing slices is faster than a loop."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def share_prefixes(samples, labels=None):
    """One Row that holds the samples (ids, mask) as a tree, in depth-first order; labels one for each sample.

    Sorted samples visit the tree depth first, so each differs from the one before in a suffix. The loss is
    exactly that of the samples one by one; only the work on what they share is done once. A sample's last
    token predicts nothing and is no input."""
    row = Row([], [], [], [], [], labels=list(labels or [0.0] * len(samples)))
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
        for t in range(mask.index(1, 1) if 1 in mask[1:] else len(ids), len(ids)):
            if mask[t]:
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
    if len(row.ids) <= max_tokens or len(samples) == 1:
        return [row]
    order, half, rows = sorted(range(len(samples)), key=samples.__getitem__), len(samples) // 2, []
    for part in (order[:half], order[half:]):
        own = labels and [labels[i] for i in part]
        rows += trees([samples[i] for i in part], max_tokens, own)
    return rows


def pack(rows, max_tokens):
    """Join rows into fewer rows of at most max_tokens slots each: best fit, longest first."""
    packed = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        room = [r for r in packed if len(r.ids) + len(row.ids) <= max_tokens]
        if room:
            max(room, key=lambda r: len(r.ids)).extend(row)
        else:
            packed.append(copy.deepcopy(row))
    return packed


def micro_batches(rows, micro_tokens):
    """Rows in groups of at most micro_tokens slots, padding included."""
    groups = []
    for row in sorted(rows, key=lambda row: len(row.ids), reverse=True):  # a group's first row is its width
        if groups and len(groups[-1][0].ids) * (len(groups[-1]) + 1) <= micro_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def collate(rows, device="cpu"):
    """Tensors of rows: ids, positions, end (B, T); source, target, owner (N,), source counting slots and
    owner samples across the batch; labels, one for each sample; length (B,).

    `end` is None where every row is one plain text: the causal kernel then needs no mask.
    """
    T = max(len(row.ids) for row in rows)

    def tensor(field):
        padded = [getattr(row, field) + [0] * (T - len(row.ids)) for row in rows]
        return torch.tensor(padded, dtype=torch.long, device=device)

    def whole(numbers):
        return torch.tensor(list(numbers), dtype=torch.long, device=device)

    plain = all(end == len(row.ids) for row in rows for end in row.end)
    first = [0, *accumulate(len(row.labels) for row in rows)]  # each row's first sample
    return {
        "ids": tensor("ids"),
        "positions": tensor("positions"),
        "end": None if plain else tensor("end"),
        "source": whole(b * T + slot for b, row in enumerate(rows) for slot in row.source),
        "target": whole(token for row in rows for token in row.target),
        "owner": whole(sample + start for row, start in zip(rows, first) for sample in row.owner),
        "labels": torch.tensor([label for row in rows for label in row.labels], device=device),
        "length": whole(len(row.ids) for row in rows),
    }


# ------------------------------------------------------------------------------------------------ order
@lru_cache(maxsize=2)
def permutation(seed, epoch, n):
    return np.random.default_rng([seed, epoch]).permutation(n)


def indices(seed, step, batch, n):
    """The examples of a step (counted from 0): list of (example index, epoch). Every epoch is a fresh
    shuffle."""
    places = range(step * batch, (step + 1) * batch)
    return [(int(permutation(seed, place // n, n)[place % n]), place // n) for place in places]
