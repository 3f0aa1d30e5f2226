"""Chat formats: how a conversation is written as text, and which format a checkpoint uses.

A format is a chat template in jinja2's language: the checkpoint's own, or an entry of FORMATS. A template
never sees a content. It writes placeholders, and the text is cut at these, so what a message spells is never
a control token, and it is known where a reply begins and ends. data.Tokenizer turns the parts into ids and a
mask."""

import re
from functools import cached_property, lru_cache
from os.path import commonprefix

import templates
from files import COUNT, TEXT, Kind, either, list_of, map_of, read_settings, read_text

CONTROL = r"(?<!<)<[^<>\n]+>(?!>)|\[(?:/?INST|CLS|SEP)\]"  # how formats spell their control tokens
ROLES = ("system", "user", "assistant")
# Stands for the content of this number. A template that changes texts, to upper case say, changes it too.
PLACEHOLDER = 'Qz{}"<\n>zQ'
PLACES = PLACEHOLDER.format(r"(\d+)")
THOUGHT_MARKS = ("<think>", "</think>")

# A message as a format sees it, its *shape*, is (role, form). The form has a None for each text that stays
# hidden, beside what templates look at: white space at the ends, and the marks of a thought.
SYSTEM, USER, REPLY = [(role, (None,)) for role in ROLES]
THOUGHT = ("assistant", ("<think>", "\n", None, "\n", "</think>", "\n\n", None))
PROBES = [  # (shapes, whether a reply is to come)
    ((USER,), True),
    ((USER, REPLY), False),
    ((SYSTEM, USER), True),
    ((SYSTEM, USER, REPLY, USER, REPLY), False),
]
EARLIER_THOUGHT = ((USER, THOUGHT, USER), True)
LONG = ((USER, REPLY) * 50, False)


class Format:
    """A chat template, and what it writes around the contents of a conversation.

    tokens: the texts of bos_token, eos_token and the like. where: the template's file, "" for an entry of
    FORMATS. parts: whether messages are the parts of an encoder's input, which has no replies."""

    def __init__(self, template: str, tokens=None, where="", parts=False):
        self.template = template
        self.tokens = tokens or {}
        self.where = where
        self.parts = parts
        self.cut = lru_cache(maxsize=10_000)(self._cut)

    @cached_property
    def compiled(self):
        return templates.compile_template(self.template)

    def error(self, reason) -> ValueError:
        where = f"{self.where}: the chat template" if self.where else "this chat format"
        return ValueError(f"{where} {reason}; name another one: --format {'|'.join(FORMATS)}")

    def write(self, shapes: tuple, opened: bool) -> str:
        """The text of a conversation, with placeholders. opened: whether a reply is to come."""
        try:
            return templates.render(self.compiled, self.tokens, with_placeholders(shapes), opened)
        except ValueError as error:
            if [role for role, _ in shapes[:2]] != ["system", "user"]:
                raise self.error(f"cannot write this conversation ({error})") from None
        # Some refuse system messages. Then the first user's begins with it.
        (_, system), (_, user), *rest = shapes
        return self.write((("user", (*system, "\n\n", *user)), *rest), opened)

    def _cut(self, shapes, opened):
        """The text of a conversation as a tuple: what stands around the contents as str, and in turn with
        these the numbers of the contents. Raises ValueError if one is missing, other than an earlier thought
        and, where a reply is there already, what came before it (see `layout`)."""
        pieces = re.split(PLACES, self.write(shapes, opened))
        pieces[1::2] = map(int, pieces[1::2])
        expected = [*zip(shapes, numbers_of(shapes))]
        for (role, _), numbers in expected[-1:] if shapes[-1][0] == "assistant" else expected:
            if numbers and numbers[-1] not in pieces:
                raise self.error(f"leaves out or changes what the {role} says")
        return tuple(pieces)

    def layout(self, shapes: tuple, opened: bool, control: str) -> list:
        """[(part, learned), ...] of a conversation. A part is a mark (str) or the number of a content.
        learned: 1 in a reply, 2 in one that ends the conversation.

        control: a regular expression for control tokens; a reply ends with the first one after it."""
        if self.parts or shapes[-1][0] != "assistant":
            return self.with_replies(shapes, self.cut(shapes, opened), control)

        # What ends in a reply is the prompt that the model sees when it plays, and what it has to write then.
        *before, (_, form) = shapes
        before = tuple(before)
        *prompt, mark = self.cut(before, True)
        start = where_reply_starts(mark, form)
        pieces = self.cut(shapes, False)
        numbers = numbers_of(shapes)[-1]
        first, last = span(pieces, numbers)
        reply = list(pieces[first - 1 : last + 1])
        if {*numbers} <= {*reply} and reply[0].startswith(start):
            reply[0] = reply[0].removeprefix(start)
        else:  # the template drops the thought, or what the prompt ended in
            reply = continuation(start, form, iter(numbers))
        end = end_of_reply(pieces[last + 1], control)
        reply += [pieces[last + 1][:end]]
        parts = self.with_replies(before, [*prompt, start], control)
        return [*parts, *((part, 2) for part in reply), (pieces[last + 1][end:], 0)]

    def with_replies(self, shapes, pieces, control):
        """(part, 1 if it is in a reply, else 0) for pieces of `cut`."""
        learned = set()  # indices of pieces
        cuts = {}  # index of a mark -> (where it is cut, whether what comes before and after is learned)
        for i, (role, form) in enumerate(shapes):
            if role != "assistant" or self.parts:
                continue
            first, last = span(pieces, numbers_of(shapes)[i])
            learned.update(range(first, last + 1))
            start = where_reply_starts(self.cut(shapes[:i], True)[-1], form)
            cuts[first - 1] = (len(commonprefix([pieces[first - 1], start])), 0, 1)
            cuts[last + 1] = (end_of_reply(pieces[last + 1], control), 1, 0)
        parts = []
        for index, piece in enumerate(pieces):
            if index in cuts:
                at, before, after = cuts[index]
                parts += [(piece[:at], before), (piece[at:], after)]
            else:
                parts.append((piece, int(index in learned)))
        return parts

    def around_reply(self) -> tuple:
        """(begin, lead, after): what stands at the start of a conversation, at the start of a reply, and
        after it."""
        begin, _, end_of_prompt = self.cut((USER,), not self.parts)
        *_, mark, _, after = self.cut((USER, REPLY), False)
        return begin, mark.removeprefix(end_of_prompt), after

    @cached_property
    def marks(self) -> str:
        """All that the format writes around contents in a few conversations."""
        texts = [self.write(shapes, opened) for shapes, opened in PROBES[: 1 if self.parts else None]]
        # a thought's marks count where they are the format's
        thinks = not self.parts and ("<think>" in "".join(texts) or 1 not in self.cut(*EARLIER_THOUGHT))
        return re.sub(PLACES, " ", " ".join(texts)) + "<think></think>" * thinks

    def control_names(self) -> list:
        """The names of the control tokens that the format needs, sorted."""
        return sorted(set(re.findall(CONTROL, self.marks)))


def shape_of(role: str, content: str) -> tuple:
    """(shape, hidden texts) of a message.

    The assistant's "<think>\\nHm.\\n</think>\\n\\nNo" has the shape THOUGHT and the texts ["Hm.", "No"]."""
    form = []
    texts = []
    for index, piece in enumerate(re.split("(</?think>)", content) if role == "assistant" else [content]):
        text = piece.strip()
        if text and index % 2 == 0:  # the odd ones are marks, which only the assistant's messages have
            at = piece.index(text)
            form += [piece[:at], None, piece[at + len(text) :]]
            texts.append(text)
        else:
            form.append(piece)
    form = [piece for piece in form if piece != ""]
    # An empty text has a place too, but for the system's: templates ask whether there is one.
    if (role != "system" and not texts) or (form and form[-1] is not None and "</think>" in form[-2:]):
        form.append(None)
        texts.append("")
    return (role, tuple(form)), texts


def numbers_of(shapes):
    """For each message the numbers of its hidden texts, a range."""
    ranges = []
    count = 0
    for _, form in shapes:
        start = count
        count += form.count(None)
        ranges.append(range(start, count))
    return ranges


def with_placeholders(shapes):
    """The messages of these shapes."""
    messages = []
    for (role, form), numbers in zip(shapes, numbers_of(shapes)):
        number = iter(numbers)
        pieces = [PLACEHOLDER.format(next(number)) if piece is None else piece for piece in form]
        messages.append({"role": role, "content": "".join(pieces)})
    return messages


def span(pieces, numbers):
    """Indices of the first and the last piece that is one of the numbers."""
    found = [index for index, piece in enumerate(pieces) if piece in numbers]
    return found[0], found[-1]


def is_open(mark):
    """Whether a prompt that ends in this mark has begun a thought."""
    return "</think>" not in mark.rpartition("<think>")[2] and "<think>" in mark


def where_reply_starts(mark, form):
    """The part of the mark at the end of a prompt that stands before a reply of this form: one with a thought
    takes the place of an empty thought."""
    if "</think>" in form and not is_open(mark):
        return mark.partition("<think>")[0]
    return mark


def continuation(start, form, number):
    """The pieces of a reply that goes on from `start`, where a thought may have begun."""
    reply = [next(number) if piece is None else piece for piece in form]
    if not is_open(start):
        return reply
    if "</think>" not in form:
        return ["\n</think>\n\n", *reply]
    if "<think>" in form:
        reply = reply[reply.index("<think>") + 1 :]
        begun = start.rpartition("<think>")[2]  # a line end, mostly
        if reply[0] == begun:
            reply = reply[1:]
    return reply


def end_of_reply(mark, control):
    """How much of the mark after a reply belongs to it."""
    found = re.search(control, mark)
    return found.end() if found else 0


def merge_turns(messages: list) -> list:
    """The messages, with successive ones of one role joined into one. Raises ValueError for a role that has
    no place there."""
    merged = []
    for number, message in enumerate(messages, 1):
        role = message["role"]
        last = merged[-1] if merged else {"role": "system", "content": None}
        if role not in ROLES or (role == "system" and last["role"] != role):
            raise ValueError(
                f"message {number} has the role {role!r}: after a system message, which may only come first, "
                "a chat has the user's and the assistant's"
            )
        if merged and last["role"] == role:
            last["content"] += "\n\n" + message["content"]
        else:
            merged.append({"role": role, "content": message["content"]})
    return merged


# ------------------------------------------------------------------------------------------------ formats
CHATML = """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""
DEFAULT_SYSTEM = """\
{% if messages[0].role != 'system' %}
<|im_start|>system
{default}<|im_end|>
{% endif %}
"""
# The formats below it write the system message elsewhere.
APART = """\
{% set system = '' %}
{% if messages[0].role == 'system' %}
{% set system = messages[0].content %}
{% set messages = messages[1:] %}
{% endif %}
"""
LLAMA3 = """\
{% for message in messages %}
<|start_header_id|>{{ message.role }}<|end_header_id|>

{{ message.content | trim }}<|eot_id|>
{%- endfor %}
{% if add_generation_prompt %}
<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
MISTRAL = """\
<s>{% for message in messages %}
{% if message.role == 'user' %}
[INST]{lead}{{ system + '\n\n' if loop.last and system }}{{ message.content }}[/INST]
{%- else %}
{lead}{{ message.content }}</s>
{%- endif %}
{% endfor %}"""
# parlor's own, for models trained from scratch: two control tokens a round
PLAIN_TEMPLATE = (
    "{{ '<|begin|>' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% endif %}"
    "{{ m['content'] }}{% if m['role'] != 'user' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TEMPLATES = {
    "plain": PLAIN_TEMPLATE,
    "llama3.1": APART
    + """\
<|begin_of_text|><|start_header_id|>system<|end_header_id|>

Cutting Knowledge Date: December 2023
Today Date: 26 Jul 2024

{{ system | trim }}<|eot_id|>"""
    + LLAMA3,
    "llama3": "<|begin_of_text|>" + LLAMA3,
    "llama2": APART
    + """\
{% for message in messages %}
{% if message.role == 'user' %}
{% set start = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' if system and loop.first else '' %}
<s>[INST] {{ (start + message.content.strip()) | trim }} [/INST]
{%- else %}
 {{ message.content | trim }} </s>
{%- endif %}
{% endfor %}""",
    "mistral-nemo": APART + MISTRAL.replace("{lead}", ""),
    "mistral": APART + MISTRAL.replace("{lead}", " "),  # version 0.3; earlier ones write " [/INST]"
    "gemma": APART
    + """\
<bos>{% for message in messages %}
<start_of_turn>{{ 'model' if message.role == 'assistant' else 'user' }}
{{ ((system + '\n\n' if system and loop.first else '') + message.content.strip()) | trim }}<end_of_turn>
{% endfor %}
{% if add_generation_prompt %}
<start_of_turn>model
{% endif %}""",
    "phi3": """\
{% for message in messages %}
<|{{ message.role }}|>
{{ message.content }}<|end|>
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}""",
    "deepseek-r1": APART
    + """\
<｜begin▁of▁sentence｜>{{ system }}
{%- for message in messages %}
{% if message.role == 'user' %}
<｜User｜>{{ message.content }}
{%- else %}
<｜Assistant｜>{{ message.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}<｜Assistant｜>{% endif %}""",
    "smollm2": DEFAULT_SYSTEM.replace(
        "{default}", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    )
    + CHATML,
    "qwen3": """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{% set parts = message.content.split('</think>') %}
{% if message.role != 'assistant' %}
{{ message.content }}
{%- elif loop.last %}
<think>
{{ parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 }}
</think>

{{ parts[-1].lstrip('\n') }}
{%- else %}
{{ parts[-1].lstrip('\n') }}
{%- endif %}
<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
<think>

</think>

{% endif %}""",
    "qwen2.5": DEFAULT_SYSTEM.replace(
        "{default}", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    )
    + CHATML,
    "qwen2": DEFAULT_SYSTEM.replace("{default}", "You are a helpful assistant.") + CHATML,
    "internlm2": "<s>" + CHATML,
    "chatml": CHATML,
}
FORMATS = {name: Format(template) for name, template in TEMPLATES.items()}

# the input of an encoder
PARTS = """\
{{ begin }}{% for message in messages %}
{{ between if not loop.first }}{{ message.content }}{{ end }}
{%- endfor %}"""


# ------------------------------------------------------------------------------------------------ recognition
TOKENS = "bos_token eos_token unk_token pad_token sep_token cls_token".split()  # what a template may write
TOKEN = Kind("an object with a text as content", lambda x: type(x) is dict and type(x.get("content")) is str)
KINDS = {  # what tokenizer_config.json, generation_config.json and config.json may hold
    "chat_template": either(TEXT, list_of(map_of(TEXT))),
    "eos_token_id": either(COUNT, list_of(COUNT)),
    **dict.fromkeys(TOKENS, either(TEXT, TOKEN)),
}


def read_format(folder) -> Format | None:
    """The format of a model folder's chat template, None if it has no template. Raises ValueError for a
    template that fails or exceeds templates.py's limits."""
    file = folder / "tokenizer_config.json"
    settings = read_settings(folder / "special_tokens_map.json", KINDS, default={})
    settings = {**settings, **read_settings(file, KINDS, default={})}
    template = settings.get("chat_template")
    if isinstance(template, list):  # by name, of which transformers takes this one
        template = {one.get("name"): one.get("template") for one in template}.get("default")
    if (folder / "chat_template.jinja").exists():
        file = folder / "chat_template.jinja"
        template = read_text(file)
    if template is None:
        return None
    for form in FORMATS.values():  # models of ours, mostly
        if form.template == template:
            return form

    tokens = {}
    for name in TOKENS:
        if token := settings.get(name):
            tokens[name] = token["content"] if isinstance(token, dict) else token
    form = Format(template, tokens, file)
    try:
        templates.check(template, tokens, [(with_placeholders(shapes), opened) for shapes, opened in PROBES])
    except ValueError as error:
        raise form.error(f"cannot be used: {error}") from None
    return form


def encoder_format(inner) -> Format | None:
    """The Format of an encoder's input, read from what its tokenizer puts around a pair of texts.

    None where the tokenizer does not close a text with a control token, as those of decoders do not."""
    inner.no_padding()
    pair = inner.encode("a", "a")
    marks = ["", "", ""]  # before the first text, between the two, and after the second
    place = 0
    for token, text in zip(pair.tokens, pair.sequence_ids):  # text: 0 or 1, None for a mark
        if text is None:
            marks[place] += token
        else:
            place = text + 1
    begin, middle, end = marks
    # middle closes the first text, then may open the second
    if not (re.search(CONTROL, end) and middle.startswith(end)):
        return None
    tokens = dict(begin=begin, between=middle.removeprefix(end), end=end)
    return Format(PARTS, tokens, parts=True)
