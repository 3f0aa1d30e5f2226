"""Chat formats: how a conversation is written, and which format a checkpoint uses.

A format is a row of FORMATS; to add one, add a row. data.Tokenizer turns it into ids and loss mask."""

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from files import optional_json

CONTROL = r"<[^<>\n]+>|\[(?:/?INST|CLS|SEP)\]"  # how control tokens are spelled in the marks of a format


@dataclass
class Format:
    """How a conversation is written. A message is open[role] + lead + content + close[role] + after; a reply
    is learned with its close, which also ends generation."""

    open: dict
    close: dict
    bos: str = ""
    lead: str = ""  # before every content, as part of it
    after: str = ""
    strip: bool = False  # content is stripped before it is written
    system: str = ""  # the system message of a conversation that brings none
    preamble: str = ""  # before every system message's content, and alone where there is none
    into: str = ""  # no system turn: its content becomes part of the "first" or "last" user message,
    wrap: str = "{}\n\n"  # and stands before that message in this form
    between: str | None = None  # encoders: messages are parts of one input, with this between them
    thinks: bool = False  # replies may begin with <think>...</think>, which only the last one keeps
    no_thought: str = ""  # opens a last reply that has no thought
    sign: str = ""  # regular expression: found in the chat templates of checkpoints with this format

    def control_names(self):
        """The control tokens that the format needs, sorted."""
        thought = "<think></think>" if self.thinks else ""
        marks = [self.bos, thought, *self.open.values(), *self.close.values()]
        return sorted(set(re.findall(CONTROL, " ".join(marks))))

    def with_system(self, messages):
        """The messages with a system message as the format has it."""
        if messages[0]["role"] != "system" and (self.system or self.preamble):
            messages = [{"role": "system", "content": self.system}, *messages]
        if messages[0]["role"] != "system" or not self.into:
            return messages
        system, *rest = messages
        users = [i for i, message in enumerate(rest) if message["role"] == "user"]
        if not users:
            raise ValueError("this chat format puts the system message into a user's, and there is none")
        place = users[0 if self.into == "first" else -1]
        content = rest[place]["content"].strip() if self.strip else rest[place]["content"]
        joined = {"role": "user", "content": self.wrap.format(system["content"]) + content}
        return [*rest[:place], joined, *rest[place + 1 :]]

    def reply_parts(self, content, last):
        """(opening, parts) of an assistant's message: marks as str, what it says as (content,)."""
        opening = self.open["assistant"]
        thought, ended, answer = content.rpartition("</think>")
        if not (self.thinks and ended):
            return opening + (self.no_thought if last else ""), [self.lead, (content,)]
        answer = answer.lstrip("\n")
        if not last:
            return opening, [(answer,)]
        thought = thought.rpartition("<think>")[2].strip("\n")
        return opening, ["<think>\n", (thought,), "\n</think>\n\n", (answer,)]


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
# Recognition takes the first format whose sign is in a checkpoint's chat template, so the order matters.
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
    "mistral": Format(  # version 0.3; earlier ones write " [/INST]" and are not recognised
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
# The plain format as a chat template, for other tools that open our folders.
PLAIN_TEMPLATE = (
    "{{ '<|begin|>' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% endif %}"
    "{{ m['content'] }}{% if m['role'] != 'user' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def merge_turns(messages):
    """The messages, with those in a row of one role as one message."""
    merged = []
    for role, turns in groupby(messages, key=itemgetter("role")):
        content = "\n\n".join(turn["content"] for turn in turns)
        merged.append({"role": role, "content": content})
    return merged


# ------------------------------------------------------------------------------------------------ recognition
def recognize_format(folder):
    """The name of the format that a model folder's chat template writes, "" where it is none of FORMATS."""
    file = folder / "chat_template.jinja"
    if file.exists():
        template = file.read_text(encoding="utf-8")
    else:
        template = str(optional_json(folder / "tokenizer_config.json").get("chat_template", ""))
    for name, form in FORMATS.items():
        if re.search(form.sign, template, re.DOTALL):
            return name
    return ""


def encoder_format(inner):
    """The Format of an encoder's input: what its tokenizer puts around a pair of texts. None for tokenizers
    that do not close the texts, as those of decoders."""
    inner.no_padding()
    pair = inner.encode("a", "a")
    marks = ["", "", ""]  # before the first text, between the two, and after the second
    place = 0
    for token, text in zip(pair.tokens, pair.sequence_ids):
        if text is None:
            marks[place] += token
        else:
            place = text + 1
    begin, middle, end = marks
    if not (end and middle.startswith(end)):
        return None
    return Format(
        open=dict.fromkeys(ROLES, ""),
        close=dict.fromkeys(ROLES, end),
        bos=begin,
        between=middle.removeprefix(end),
    )
