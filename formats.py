"""Chat formats: how a conversation is written as text, and which format a checkpoint uses.

Each format is an entry of FORMATS; to add one, add an entry. data.Tokenizer turns it into ids and a mask."""

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from files import COUNT, TEXT, either, list_of, map_of, read_settings, read_text

CONTROL = r"<[^<>\n]+>|\[(?:/?INST|CLS|SEP)\]"  # how a format spells its control tokens


@dataclass
class Format:
    """How a conversation is written: each message as open[role] + lead + content + close[role] + after.

    A reply is learned together with its close, which also ends generation."""

    open: dict
    close: dict
    bos: str = ""  # before the first message
    lead: str = ""  # before every content, as part of it
    after: str = ""
    strip: bool = False  # whether contents lose the white space around them
    system: str = ""  # the system message of a conversation that has none
    preamble: str = ""  # before the content of every system message, and alone where there is none

    # formats without a system turn put its content into a user message:
    into: str = ""  # the "first" or the "last" one
    wrap: str = "{}\n\n"  # in this form, before the user's own content

    between: str | None = None  # for encoders: the messages are parts of one input, with this between them
    thinks: bool = False  # replies may begin with <think>...</think>, which only the last one keeps
    no_thought: str = ""  # opens a last reply that has no thought
    sign: str = ""  # regular expression that matches the chat templates of checkpoints with this format

    def control_names(self) -> list:
        """The names of the control tokens that the format needs, sorted."""
        thought = "<think></think>" if self.thinks else ""
        marks = [self.bos, thought, *self.open.values(), *self.close.values()]
        return sorted(set(re.findall(CONTROL, " ".join(marks))))

    def with_system(self, messages: list) -> list:
        """The messages, with the format's default system message if they have none, and the system message
        moved into a user's where the format has no system turn."""
        if messages[0]["role"] != "system" and (self.system or self.preamble):
            messages = [{"role": "system", "content": self.system}, *messages]
        if messages[0]["role"] != "system" or not self.into:
            return messages

        system, *rest = messages
        users = [i for i, message in enumerate(rest) if message["role"] == "user"]
        if not users:
            raise ValueError("this chat format puts the system message into a user's, but there is none")
        place = users[0 if self.into == "first" else -1]
        content = rest[place]["content"]
        if self.strip:
            content = content.strip()
        rest[place] = {"role": "user", "content": self.wrap.format(system["content"]) + content}
        return rest

    def reply_parts(self, content: str, last: bool) -> tuple:
        """(opening, parts) of an assistant's message: marks as str, contents as (content,).

        A thought stays in the last message only, since the templates drop it from earlier ones."""
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
# recognize_format takes the first entry whose sign matches the chat template, so the order matters.
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
        sign=r"^(?=.*<\|user\|>).*<\|end\|>",
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
    "internlm2": Format(**CHATML, bos="<s>", sign=r"^(?=.*bos_token).*<\|im_start\|>"),
    "chatml": Format(**CHATML, sign=r"<\|im_start\|>"),
}
# The plain format as a chat template, for other tools that open a folder saved here.
PLAIN_TEMPLATE = (
    "{{ '<|begin|>' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% endif %}"
    "{{ m['content'] }}{% if m['role'] != 'user' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def merge_turns(messages: list) -> list:
    """The messages, with successive ones of one role joined into one."""
    merged = []
    for role, turns in groupby(messages, key=itemgetter("role")):
        content = "\n\n".join(turn["content"] for turn in turns)
        merged.append({"role": role, "content": content})
    return merged


# ------------------------------------------------------------------------------------------------ recognition
KINDS = {  # what tokenizer_config.json, generation_config.json and config.json may hold
    "chat_template": either(TEXT, list_of(map_of(TEXT))),
    "eos_token_id": either(COUNT, list_of(COUNT)),
}


def recognize_format(folder) -> str:
    """The name of the format that a model folder's chat template writes, "" if it is none of FORMATS."""
    file = folder / "chat_template.jinja"
    if file.exists():
        template = read_text(file)
    else:
        settings = read_settings(folder / "tokenizer_config.json", KINDS, default={})
        template = str(settings.get("chat_template") or "")
    for name, form in FORMATS.items():
        if re.search(form.sign, template, re.DOTALL):
            return name
    return ""


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
    return Format(
        open=dict.fromkeys(ROLES, ""),
        close=dict.fromkeys(ROLES, end),
        bos=begin,
        between=middle.removeprefix(end),
    )
