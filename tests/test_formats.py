"""Chat formats: what each writes, and how a checkpoint's is recognised."""

import json
import random
import re

import pytest
import tokenizers
from tokenizers import pre_tokenizers

import formats
import templates
from data import Tokenizer, load_tokenizer
from formats import CHATML, FORMATS
from games.rows import conversation
from tests.chats import (
    CHAT,
    byte_tokenizer,
    chat_tokenizer,
    encoder_tokenizer,
    learned,
    parts,
    spell,
)

every_format = pytest.mark.parametrize("name", FORMATS)
GOLDEN = {
    "plain": "<|begin|>Play fair.<|end|>Is it alive?<|assistant|>Yes: it lives 🐙<|end|>"
    "Can it fly?\nAnswer.<|assistant|>No<|end|>",
    "chatml": "<|im_start|>system\nPlay fair.<|im_end|>\n"
    "<|im_start|>user\nIs it alive?<|im_end|>\n"
    "<|im_start|>assistant\nYes: it lives 🐙<|im_end|>\n"
    "<|im_start|>user\nCan it fly?\nAnswer.<|im_end|>\n"
    "<|im_start|>assistant\nNo<|im_end|>\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nPlay fair.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nIs it alive?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nYes: it lives 🐙<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nCan it fly?\nAnswer.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nNo<|eot_id|>",
}
GOLDEN |= {
    "smollm2": GOLDEN["chatml"],
    "qwen2": GOLDEN["chatml"],
    "qwen2.5": GOLDEN["chatml"],
    "qwen3": "<think>\n\n</think>\n\nNo".join(GOLDEN["chatml"].rsplit("No", 1)),
    "internlm2": "<s>" + GOLDEN["chatml"],
    "llama3.1": GOLDEN["llama3"].replace(
        "Play fair.", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nPlay fair."
    ),
    "llama2": "<s>[INST] <<SYS>>\nPlay fair.\n<</SYS>>\n\nIs it alive? [/INST] Yes: it lives 🐙 </s>"
    "<s>[INST] Can it fly?\nAnswer. [/INST] No </s>",
    "mistral": "<s>[INST] Is it alive?[/INST] Yes: it lives 🐙</s>"
    "[INST] Play fair.\n\nCan it fly?\nAnswer.[/INST] No</s>",
    "mistral-nemo": "<s>[INST]Is it alive?[/INST]Yes: it lives 🐙</s>"
    "[INST]Play fair.\n\nCan it fly?\nAnswer.[/INST]No</s>",
    "gemma": "<bos><start_of_turn>user\nPlay fair.\n\nIs it alive?<end_of_turn>\n"
    "<start_of_turn>model\nYes: it lives 🐙<end_of_turn>\n"
    "<start_of_turn>user\nCan it fly?\nAnswer.<end_of_turn>\n"
    "<start_of_turn>model\nNo<end_of_turn>\n",
    "phi3": "<|system|>\nPlay fair.<|end|>\n<|user|>\nIs it alive?<|end|>\n"
    "<|assistant|>\nYes: it lives 🐙<|end|>\n<|user|>\nCan it fly?\nAnswer.<|end|>\n"
    "<|assistant|>\nNo<|end|>\n",
    "deepseek-r1": "<｜begin▁of▁sentence｜>Play fair.<｜User｜>Is it alive?"
    "<｜Assistant｜>Yes: it lives 🐙<｜end▁of▁sentence｜>"
    "<｜User｜>Can it fly?\nAnswer.<｜Assistant｜>No<｜end▁of▁sentence｜>",
}

LEAD = dict.fromkeys(FORMATS, "") | {"llama2": " ", "mistral": " "}  # learned before a reply
END = dict.fromkeys(FORMATS, "<|im_end|>") | {  # and after it
    "plain": "<|end|>",
    "llama3": "<|eot_id|>",
    "llama3.1": "<|eot_id|>",
    "llama2": " </s>",
    "mistral": "</s>",
    "mistral-nemo": "</s>",
    "gemma": "<end_of_turn>",
    "phi3": "<|end|>",
    "deepseek-r1": "<｜end▁of▁sentence｜>",
}


# ------------------------------------------------------------------------------------------------ writing
@every_format
def test_a_conversation_is_written_as_the_format_says_and_replies_with_their_end_are_learned(name):
    tokenizer = chat_tokenizer(name)
    ids, mask = tokenizer.render(CHAT)
    assert spell(tokenizer, ids) == GOLDEN[name] and len(ids) == len(mask)
    expected = [LEAD[name] + text + END[name] for text in ("Yes: it lives 🐙", "No")]
    assert learned(tokenizer, ids, mask) == expected
    assert learned(tokenizer, *tokenizer.render(CHAT, learn="last")) == expected[1:]


STARTS = {  # what stands before the first user's text where there is no system message
    "plain": "<|begin|>",
    "chatml": "<|im_start|>user\n",
    "smollm2": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n",
    "qwen2.5": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n<|im_start|>user\n",
    "qwen2": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
    "qwen3": "<|im_start|>user\n",
    "internlm2": "<s><|im_start|>user\n",
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
    "llama3.1": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "llama2": "<s>[INST] ",
    "mistral": "<s>[INST] ",
    "mistral-nemo": "<s>[INST]",
    "gemma": "<bos><start_of_turn>user\n",
    "phi3": "<|user|>\n",
    "deepseek-r1": "<｜begin▁of▁sentence｜><｜User｜>",
}


@every_format
def test_a_conversation_without_system_message_gets_the_formats_own(name):
    tokenizer = chat_tokenizer(name)
    ids, mask = tokenizer.render(CHAT[1:3])
    assert spell(tokenizer, ids).startswith(STARTS[name] + "Is it")
    assert learned(tokenizer, ids, mask) == [LEAD[name] + "Yes: it lives 🐙" + END[name]]


@every_format
def test_a_prompt_is_where_the_reply_begins(name):
    tokenizer = chat_tokenizer(name)
    prompt = tokenizer.prompt(CHAT[:4])
    ids, mask = tokenizer.render(CHAT, learn="last")
    assert ids[: len(prompt)] == prompt
    assert mask.index(1) == len(prompt)
    assert tokenizer.render(CHAT, learn="all") == (ids, [0] + [1] * (len(ids) - 1))


def test_some_formats_strip_content():
    padded, strip = [{"role": "user", "content": "  a \n"}], {"llama2", "llama3", "llama3.1", "gemma"}
    for name in FORMATS:
        tokenizer = chat_tokenizer(name)
        text = spell(tokenizer, tokenizer.render(padded)[0])
        assert ("  a \n" in text) == (name not in strip) and "a" in text


def test_a_system_message_without_a_user_to_carry_it_is_an_error():
    with pytest.raises(ValueError, match="leaves out or changes what the system says.*--format"):
        chat_tokenizer("gemma").render([CHAT[0], CHAT[2]])


@pytest.mark.parametrize("name, gap", [("qwen3", ""), ("deepseek-r1", "\n\n")])
def test_only_the_last_reply_keeps_its_thoughts(name, gap):
    thought = {"role": "assistant", "content": "<think>\nHm, hm.\n</think>\n\nNo"}
    tokenizer = chat_tokenizer(name)
    end = END[name]
    ids, mask = tokenizer.render([*CHAT[:2], thought, CHAT[3], thought])
    first, last = learned(tokenizer, ids, mask)
    assert (first, last) == (f"{gap}No{end}", f"<think>\nHm, hm.\n</think>\n\nNo{end}")
    assert tokenizer.decode([i for i, m in zip(ids, mask) if m]).endswith(thought["content"])
    plain, chatml = {"role": "assistant", "content": "a </think> b"}, chat_tokenizer("chatml")
    assert learned(chatml, *chatml.render([CHAT[1], plain])) == ["a </think> b<|im_end|>"]


def merging_tokenizer(name, style):
    """A BPE with merges, trained on the golden texts, that treats spaces as a family of tokenizers does."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    if style == "byte level":
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif style == "prepend":
        steps = [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
        inner.normalizer = tokenizers.normalizers.Sequence(steps)
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=style)
    pieces = [word for text in GOLDEN.values() for word in re.findall(r" ?[^\s<>\[\]]+", text)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"], initial_alphabet=list("▁\n"), show_progress=False
    )
    inner.train_from_iterator(pieces, trainer)
    tokens = [tokenizers.AddedToken(c, special=True, normalized=False) for c in FORMATS[name].control_names()]
    inner.add_special_tokens(tokens)
    return inner


@every_format
@pytest.mark.parametrize("style", ["byte level", "prepend", "first", "always"])
def test_ids_are_those_of_the_whole_text(name, style):
    """Control tokens cut a text; what lies between is encoded in one piece, with the space that its tokenizer
    puts there. A merge across the place where a reply begins is the one exception, and none is here."""
    expected = merging_tokenizer(name, style).encode(GOLDEN[name], add_special_tokens=False)
    tokenizer = Tokenizer(merging_tokenizer(name, style), FORMATS[name])
    ids, mask = tokenizer.render(CHAT)
    assert [tokenizer.inner.id_to_token(i) for i in ids] == expected.tokens
    assert tokenizer.prompt(CHAT[:4]) == ids[: mask.index(1, mask.index(0, mask.index(1)))]


def test_a_control_token_that_takes_the_next_space_does_so():
    """Phi-3's <|user|> swallows the line end after it."""
    inner, names = byte_tokenizer([]), FORMATS["phi3"].control_names()
    inner.add_special_tokens(
        [tokenizers.AddedToken(c, special=True, normalized=False, rstrip=True) for c in names]
    )
    tokenizer = Tokenizer(inner, FORMATS["phi3"])
    assert spell(tokenizer, tokenizer.render(CHAT)[0]) == GOLDEN["phi3"].replace(">\n", ">")


def test_a_format_whose_tokens_are_absent_is_an_error_that_names_one():
    inner = byte_tokenizer(["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"])
    with pytest.raises(ValueError, match=r"no token <\|eot_id\|>"):
        Tokenizer(inner, FORMATS["llama3"])


@every_format
def test_what_one_role_says_in_parts_is_one_message_of_a_chat(name):
    tokenizer = chat_tokenizer(name)
    assert tokenizer.prompt(parts("one", "two", share=3)) == tokenizer.prompt(parts("one\n\ntwo"))


# ------------------------------------------------------------------------------------------------ recognition
def write(folder, name, template="", jinja=False, **settings):
    """A folder with a tokenizer of a format and this chat template."""
    byte_tokenizer(FORMATS[name].control_names()).save(str(folder / "tokenizer.json"))
    if jinja:
        (folder / "chat_template.jinja").write_text(template)
    else:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


SMOLLM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
OTHER_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OWN_SYSTEM = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n#<|im_end|>\n{% endif %}"
APART = (  # s is the system message's text, rest the other messages
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{{ bos_token }}{% for m in rest %}"
)
LAST = "{% endfor %}{% if add_generation_prompt %}"
HEADER = "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
HEADER += LAST + "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
TODAY = (
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: {{ strftime_now('%d %b %Y') }}\n\n{{ s | trim }}<|eot_id|>"
)
INST = APART + (
    "{% if m['role'] == 'user' %}[INST]@{{ s + '\n\n' if loop.last and s }}{{ m['content'] }}[/INST]"
    "{% else %}@{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
THINKER = (  # {0} is what the prompt ends in
    "{% for m in messages %}{% set c = m['content'] %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n"
    "{{ c.split('</think>')[0].split('<think>')[-1].strip('\n') if '</think>' in c }}"
    "\n</think>\n\n{% endif %}"
    "{{ c.split('</think>')[-1].lstrip('\n') if m['role'] == 'assistant' else c }}<|im_end|>\n"
    + LAST
    + "<|im_start|>assistant\n{0}{% endif %}"
)
NO_THOUGHT = "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
TEMPLATES = {
    "plain": formats.PLAIN_TEMPLATE,
    "chatml": OTHER_CHATML,
    "internlm2": "{{ bos_token }}" + OTHER_CHATML,
    "smollm2": OWN_SYSTEM.replace("#", "You are a helpful AI assistant named SmolLM, trained by Hugging Face")
    + CHATML,
    "qwen2.5": OWN_SYSTEM.replace("#", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
    + CHATML,
    "qwen2": OWN_SYSTEM.replace("#", "You are a helpful assistant.") + CHATML,
    "qwen3": THINKER.replace("{0}", NO_THOUGHT),
    "llama3": "{{ bos_token }}{% for m in messages %}" + HEADER,
    "llama3.1": APART.replace("{% for", TODAY + "{% for") + HEADER,
    "llama2": APART.replace("{{ bos_token }}", "") + "{% if m['role'] == 'user' %}{{ bos_token }}[INST] "
    "{{ '<<SYS>>\n' + s + '\n<</SYS>>\n\n' if loop.first and s }}"
    "{{ m['content'] | trim }} [/INST]{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}"
    "{% endfor %}",
    "mistral": INST.replace("@", " "),
    "mistral-nemo": INST.replace("@", ""),
    "gemma": APART + "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ ((s + '\n\n' if loop.first and s else '') + m['content'] | trim) | trim }}<end_of_turn>\n"
    + LAST
    + "<start_of_turn>model\n{% endif %}",
    "phi3": "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n"
    + LAST
    + "<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
    "deepseek-r1": APART.replace("{% for", "{{ s }}{% for")
    + "{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}{% else %}<｜Assistant｜>"
    "{{ m['content'].split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}"
    + LAST
    + "<｜Assistant｜>{% endif %}",
}


@every_format
def test_a_template_of_others_gives_what_the_format_of_its_name_gives(tmp_path, name):
    own = chat_tokenizer(name)
    bos = own.begin[: own.begin.index(">") + 1] if own.begin[0] == "<" else "<s>"
    in_a_file_of_its_own = name in ("llama3", "qwen3", "phi3")
    write(tmp_path, name, TEMPLATES[name], in_a_file_of_its_own, bos_token=bos, eos_token={"content": "</s>"})
    tokenizer = load_tokenizer(tmp_path)
    for learn in ("replies", "last"):
        ids, mask = own.render(CHAT, learn)
        theirs, learned_there = tokenizer.render(CHAT, learn)
        # a template may write more after the last reply, which is not learned
        assert (theirs[: len(ids)], learned_there[: len(ids)]) == (ids, mask)
        assert not any(learned_there[len(ids) :])
    for chat in (CHAT[:4], CHAT[:2], CHAT[1:2], CHAT[1:4]):
        assert tokenizer.prompt(chat) == own.prompt(chat)
    assert (tokenizer.end, tokenizer.lead, tokenizer.control) == (own.end, own.lead, own.control)


def test_a_named_format_goes_before_the_template_and_a_decoder_has_none_by_its_tokenizer(tmp_path):
    write(tmp_path, "chatml", "{{ 1 / 0 }}")
    assert load_tokenizer(tmp_path, "chatml").format is FORMATS["chatml"]
    assert formats.encoder_format(byte_tokenizer(["<s>"])) is None


SEP = "{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_sep|>{{ m['content'] }}<|im_end|>" + LAST
SEP += "<|im_start|>assistant<|im_sep|>{% endif %}"
ZEPHYR = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}{{ eos_token }}\n" + LAST
ZEPHYR += "<|assistant|>\n{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + SEP
BRACKETS = (
    "{% for m in messages %}〈{{ m['role'] }}〉{% generation %}{{ m['content'] }}{% endgeneration %}<|end|>"
)
BRACKETS += LAST + "〈assistant〉{% endif %}"
# template -> the prompt of CHAT[:4]
READ = {
    SEP: "<|im_start|>system<|im_sep|>Play fair.<|im_end|><|im_start|>user<|im_sep|>Is it alive?<|im_end|>"
    "<|im_start|>assistant<|im_sep|>Yes: it lives 🐙<|im_end|><|im_start|>user<|im_sep|>Can it fly?\nAnswer."
    "<|im_end|><|im_start|>assistant<|im_sep|>",
    NO_SYSTEM: "<|im_start|>user<|im_sep|>Play fair.\n\nIs it alive?<|im_end|>"
    "<|im_start|>assistant<|im_sep|>Yes: it lives 🐙<|im_end|><|im_start|>user<|im_sep|>Can it fly?\nAnswer."
    "<|im_end|><|im_start|>assistant<|im_sep|>",
    ZEPHYR: "<|system|>\nPlay fair.</s>\n<|user|>\nIs it alive?</s>\n<|assistant|>\nYes: it lives 🐙</s>\n"
    "<|user|>\nCan it fly?\nAnswer.</s>\n<|assistant|>\n",
    BRACKETS: "〈system〉Play fair.<|end|>〈user〉Is it alive?<|end|>〈assistant〉Yes: it lives 🐙<|end|>"
    "〈user〉Can it fly?\nAnswer.<|end|>〈assistant〉",
    CHATML.replace("{% for", "{% if messages | length > 3 %}Long.\n{% endif %}{% for"): "Long.\n"
    + GOLDEN["chatml"].replace("No<|im_end|>\n", ""),
    THINKER.replace("{0}", "<think>\n"): GOLDEN["chatml"].replace("No<|im_end|>\n", "<think>\n"),
}


@pytest.mark.parametrize("template", READ)
def test_the_marks_of_other_formats_are_read_off_their_template(tmp_path, template):
    control = (
        "<|im_start|> <|im_end|> <|im_sep|> <|system|> <|user|> <|assistant|> <|end|> </s> <think> </think>"
    )
    control = [*control.split(), "〈system〉", "〈user〉", "〈assistant〉"]
    byte_tokenizer(control).save(str(tmp_path / "tokenizer.json"))
    settings = {"chat_template": template, "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    prompt = tokenizer.prompt(CHAT[:4])
    assert spell(tokenizer, prompt) == READ[template]
    assert set(tokenizer.inner.token_to_id(mark) for mark in control if mark in READ[template]) <= {*prompt}
    ids, mask = tokenizer.render_reply(CHAT[:4], "No")
    assert ids[: len(prompt)] == prompt and mask.index(1) == len(prompt)


def test_a_reply_goes_on_with_the_thought_that_its_prompt_begins(tmp_path):
    write(tmp_path, "qwen3", THINKER.replace("{0}", "<think>\n"))
    tokenizer = load_tokenizer(tmp_path)
    thought = "<think>\nHm.\n</think>\n\nNo"
    ids, mask = tokenizer.render_reply(CHAT[:2], thought)
    assert learned(tokenizer, ids, mask) == ["Hm.\n</think>\n\nNo<|im_end|>"]
    assert spell(tokenizer, tokenizer.prompt(CHAT[:2])).endswith("<|im_start|>assistant\n<think>\n")
    reply = tokenizer.decode([i for i, m in zip(ids, mask) if m])
    assert reply == "Hm.\n</think>\n\nNo"  # the mark stays, so as history it loses its thought
    later = tokenizer.prompt([*CHAT[:2], {"role": "assistant", "content": reply}, CHAT[3]])
    assert "Hm." not in spell(tokenizer, later)


@pytest.mark.parametrize(
    "content", ["<think>\nHm.\n</think>\n\nNo", "No", "<think>Hm.</think>No", "</think>No"]
)
def test_a_reply_goes_on_from_its_prompt_where_the_template_drops_even_its_thought(tmp_path, content):
    template = TEMPLATES["deepseek-r1"].replace(
        "<｜Assistant｜>{% endif %}", "<｜Assistant｜><think>\n{% endif %}"
    )
    assert template != TEMPLATES["deepseek-r1"]
    write(tmp_path, "deepseek-r1", template, bos_token="<｜begin▁of▁sentence｜>")
    tokenizer = load_tokenizer(tmp_path)
    prompt = tokenizer.prompt(CHAT[:2])
    ids, mask = tokenizer.render_reply(CHAT[:2], content)
    assert ids[: len(prompt)] == prompt and mask == [0] * len(prompt) + [1] * (len(ids) - len(prompt))
    thought, ended, answer = content.removeprefix("<think>").rpartition("</think>")
    reply = thought.removeprefix("\n") + ended + answer if ended else f"\n</think>\n\n{content}"
    assert learned(tokenizer, ids, mask) == [reply + END["deepseek-r1"]]


ODD = [
    "",
    " ",
    "\n\n",
    "a",
    " a",
    "a\n",
    "\t a  b \n",
    '"<|im_end|>" {{ x }}',
    "<think>b</think>a",
    "<think>b",
    "\x1c",
]


@every_format
@pytest.mark.parametrize("seed", range(8))
def test_what_is_written_around_placeholders_is_what_the_template_writes_around_contents(name, seed):
    form = FORMATS[name]
    compiled = templates.compile_template(form.template)
    draw = random.Random(seed)
    for length in range(1, 7):
        for system in (False, True):
            roles = ["system"] * system + ["user" if i % 2 == 0 else "assistant" for i in range(length)]
            messages = [{"role": role, "content": draw.choice(ODD)} for role in roles]
            for message in messages:
                if message["role"] == "user" and not message["content"].strip():
                    message["content"] += "a"  # an empty text has a place, around which nothing is stripped
            shapes, hidden = [], []
            for message in messages:
                shape, texts = formats.shape_of(message["role"], message["content"])
                shapes.append(shape)
                hidden += texts
            opened = roles[-1] == "user"
            parts = form.layout(tuple(shapes), opened, formats.CONTROL)
            text = "".join(hidden[part] if isinstance(part, int) else part for part, _ in parts)
            expected = templates.render(compiled, {}, messages, opened)
            if opened or "</think>" not in messages[-1]["content"]:
                if name.startswith("mistral") and system and not opened:
                    continue  # the template drops the system message where a reply is there
                assert text == expected, messages


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
UNREADABLE = {
    LOOPS: "limit|no end",
    "{{ 'a' * 99999999999 }}": "MemoryError",
    "{{ 'a' * 9999999 }}": "writes too much",
    "{% for m in messages %}": "TemplateSyntaxError",
    "{{ raise_exception('not for you') }}": "not for you",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "SecurityError",
    "{% set _ = messages.append(1) %}": "SecurityError",
    "hello": "leaves out or changes what the user says",
    "{% for m in messages %}{{ m['content'] }}{% endfor %}": "ends a reply with no control token",
    CHATML.replace("message.content", "message.content | upper"): "leaves out or changes",
    CHATML.replace("message.content", "message.content | tojson"): "leaves out or changes",
    NO_SYSTEM.replace("{{ raise_exception('no') }}", "x{% break %}"): "SyntaxError",
    " " * 1_600_000: "longer than 262,144",
}


@pytest.mark.parametrize("template", UNREADABLE, ids=lambda template: template[:30])
def test_a_template_that_cannot_be_read_is_an_error_that_says_why_and_names_the_flag(
    tmp_path, template, monkeypatch
):
    monkeypatch.setattr("templates.SECONDS", 1)
    write(tmp_path, "chatml", template)
    with pytest.raises(
        ValueError, match=rf"tokenizer_config\.json: .*({UNREADABLE[template]})[\s\S]*--format"
    ):
        load_tokenizer(tmp_path)


def test_a_template_that_drops_the_system_message_serves_other_conversations(tmp_path):
    write(tmp_path, "chatml", CHATML.replace("in messages", "in messages if message.role != 'system'"))
    tokenizer = load_tokenizer(tmp_path)
    assert (
        spell(tokenizer, tokenizer.render(CHAT[1:])[0]) == GOLDEN["chatml"].partition("fair.<|im_end|>\n")[2]
    )
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: .* what the system says.*--format"):
        tokenizer.prompt(CHAT[:2])


def test_a_folder_without_a_template_needs_a_known_name(tmp_path):
    write(tmp_path, "chatml", [{"name": "tool_use", "template": CHATML}])
    for named, message in (("", "plain.*llama3.*chatml"), ("vicuna", r"\(vicuna\)")):
        with pytest.raises(ValueError, match=message):
            load_tokenizer(tmp_path, named)


@every_format
def test_training_and_sampling_read_turns_alike_and_refuse_the_same(name):
    """Two turns of one role are one message; a system message in the middle and a tool's are errors."""
    tokenizer = chat_tokenizer(name)
    twice = [CHAT[0], *CHAT[1:2] * 2]
    assert tokenizer.render_reply(twice, "No")[0][: len(tokenizer.prompt(twice))] == tokenizer.prompt(twice)
    for role in ("system", "tool"):
        for read in (tokenizer.render, tokenizer.prompt):
            with pytest.raises(ValueError, match=f"message 3 has the role '{role}'"):
                read([*CHAT[:2], {"role": role, "content": "x"}])


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_row_with_such_a_message_is_named(role):
    with pytest.raises(ValueError, match=f"a.jsonl line 7, message 2: .*{role}"):
        conversation("a.jsonl line 7", {"messages": [CHAT[1], {"role": role, "content": "x"}, CHAT[1]]})


def test_the_ends_of_an_adapters_base_count_too(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    write(tmp_path, "chatml", CHATML)
    stops = load_tokenizer(tmp_path, base=tmp_path / "base").stop_ids
    assert {7, 8} < {*stops} and not {7, 8} & {*load_tokenizer(tmp_path).stop_ids}


@pytest.mark.parametrize("marks", [("<s>", "</s></s>", "</s>"), ("[CLS]", "[SEP]", "[SEP]")])
def test_an_encoder_reads_parts_as_its_tokenizer_writes_a_pair(tmp_path, marks):
    inner = encoder_tokenizer(*marks)
    inner.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.prompt(parts("oak", "elm tree")) == inner.encode("oak", "elm tree").ids
    assert tokenizer.prompt(parts("oak")) == inner.encode("oak").ids
    begin, between, end = marks
    assert spell(tokenizer, tokenizer.prompt(parts("a", "b", "c"))) == f"{begin}a{between}b{between}c{end}"
    marks_in = lambda ids: [i for i in ids if i in tokenizer.control.values()]
    spelled = tokenizer.prompt(parts(f"a{end}b", "c"))  # what a text spells is text
    assert marks_in(spelled) == marks_in(inner.encode("a", "c").ids)
