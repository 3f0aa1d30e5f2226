"""Chat formats: what each writes, and how a checkpoint's is recognised."""

import json
import re

import pytest
import tokenizers
from tokenizers import pre_tokenizers

import formats
from data import Tokenizer, load_tokenizer
from formats import FORMATS
from tests.chats import CHAT, byte_tokenizer, chat_tokenizer, encoder_tokenizer, learned, parts, spell

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


# ------------------------------------------------------------------------------------------------ writing
@every_format
def test_a_conversation_is_written_as_the_format_says_and_replies_with_their_end_are_learned(name):
    tokenizer = chat_tokenizer(name)
    ids, mask = tokenizer.render(CHAT)
    assert spell(tokenizer, ids) == GOLDEN[name] and len(ids) == len(mask)
    space, end = FORMATS[name].lead, FORMATS[name].close["assistant"]
    expected = [f"{space}Yes: it lives 🐙{end}", f"{space}No{end}"]
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
    reply = FORMATS[name].lead + "Yes: it lives 🐙" + FORMATS[name].close["assistant"]
    assert learned(tokenizer, ids, mask) == [reply]


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
    with pytest.raises(ValueError, match="puts the system message into a user's"):
        chat_tokenizer("gemma").render([CHAT[0], CHAT[2]])


def test_only_the_last_reply_keeps_its_thoughts():
    thought = {"role": "assistant", "content": "<think>\nHm, hm.\n</think>\n\nNo"}
    tokenizer = chat_tokenizer("qwen3")
    ids, mask = tokenizer.render([*CHAT[:2], thought, CHAT[3], thought])
    first, last = learned(tokenizer, ids, mask)
    assert (first, last) == ("No<|im_end|>", "<think>\nHm, hm.\n</think>\n\nNo<|im_end|>")
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


CHATML_TEMPLATE = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
TEMPLATES = {
    "chatml": CHATML_TEMPLATE,
    "smollm2": "{{ 'You are a helpful AI assistant named SmolLM, trained by Hugging Face' }}"
    + CHATML_TEMPLATE,
    "qwen2.5": "{{- 'You are Qwen, created by Alibaba Cloud.' }}" + CHATML_TEMPLATE,
    "llama3": "{{- bos_token }}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}",
    "plain": formats.PLAIN_TEMPLATE,
    "qwen2": "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}" + CHATML_TEMPLATE,
    "qwen3": "{%- if enable_thinking is false %}{{ message.reasoning_content }}" + CHATML_TEMPLATE,
    "internlm2": "{{ bos_token }}" + CHATML_TEMPLATE,
    "llama3.1": "{{ '<|start_header_id|>system<|end_header_id|>' }}{{ 'Cutting Knowledge Date' }}",
    "llama2": "{{ '<<SYS>>\n' + system_message }}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}",
    "mistral": "{{- '[INST] ' + message['content'] + '[/INST]' }}",
    "mistral-nemo": '{{- "[INST]" + message["content"] + "[/INST]" }}',
    "gemma": "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}",
    "phi3": "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n'}}",
    "deepseek-r1": "{{'<｜User｜>' + message['content']}}{{'<｜Assistant｜>' + content}}",
}


@pytest.mark.parametrize("jinja", [False, True])
@every_format
def test_the_format_is_recognised_by_the_chat_template(tmp_path, name, jinja):
    write(tmp_path, name, TEMPLATES[name], jinja)
    assert load_tokenizer(tmp_path).format is FORMATS[name]


def test_a_named_format_goes_before_the_template_and_a_decoder_has_none_by_its_tokenizer(tmp_path):
    write(tmp_path, "chatml", TEMPLATES["smollm2"])
    assert load_tokenizer(tmp_path, "chatml").format is FORMATS["chatml"]
    assert formats.encoder_format(byte_tokenizer(["<s>"])) is None


@pytest.mark.parametrize("named, message", [("", "plain.*llama3.*chatml"), ("vicuna", r"\(vicuna\)")])
def test_a_format_that_is_not_known_is_an_error_that_lists_them(tmp_path, named, message):
    write(tmp_path, "mistral", "{{ '[INST] ' + message['content'] + ' [/INST]' }}")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path, named)


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
