"""Tokenizer, chat formats, masks, prefix sharing, packing and order."""

import json
import re
from dataclasses import replace

import pytest
import tokenizers
import torch
from conftest import SHAPES
from tokenizers import decoders, pre_tokenizers
from torch.testing import assert_close

import data
import losses
from data import (
    FORMATS,
    Row,
    Tokenizer,
    collate,
    indices,
    load_tokenizer,
    pack,
    printable,
    share_prefixes,
    train_tokenizer,
    trees,
)

families = pytest.mark.parametrize("family", SHAPES)
CONTROL = {
    "plain": ["<|begin|>", "<|assistant|>", "<|end|>"],
    "chatml": ["<|im_start|>", "<|im_end|>"],
    "smollm2": ["<|im_start|>", "<|im_end|>"],
    "qwen2.5": ["<|im_start|>", "<|im_end|>"],
    "qwen2": ["<|im_start|>", "<|im_end|>"],
    "qwen3": ["<think>", "</think>", "<|im_start|>", "<|im_end|>"],
    "internlm2": ["<s>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "llama2": ["<s>", "</s>"],
    "mistral": ["<s>", "[INST]", "[/INST]", "</s>"],
    "mistral-nemo": ["<s>", "[INST]", "[/INST]", "</s>"],
    "gemma": ["<bos>", "<start_of_turn>", "<end_of_turn>"],
    "phi3": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
    "deepseek-r1": ["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"],
}
CONTROL["llama3.1"] = CONTROL["llama3"]
END = {name: tokens[-1] for name, tokens in CONTROL.items()}
formats = pytest.mark.parametrize("name", CONTROL)
CHAT = [
    {"role": "system", "content": "Play fair."},
    {"role": "user", "content": "Is it alive?"},
    {"role": "assistant", "content": "Yes: it lives 🐙"},
    {"role": "user", "content": "Can it fly?\nAnswer."},
    {"role": "assistant", "content": "No"},
]
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
    return Tokenizer(byte_tokenizer(CONTROL[name], special), FORMATS[name])


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


# ------------------------------------------------------------------------------------------------ rendering
@formats
def test_a_conversation_is_written_as_the_format_says(name):
    tokenizer = chat_tokenizer(name)
    ids, mask = tokenizer.render(CHAT)
    assert spell(tokenizer, ids) == GOLDEN[name]
    assert len(ids) == len(mask)


@pytest.mark.parametrize(
    "name, start",
    [
        (
            "smollm2",
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
            "<|im_end|>\n<|im_start|>user\nIs it",
        ),
        (
            "qwen2.5",
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
            "<|im_end|>\n<|im_start|>user\nIs it",
        ),
        ("chatml", "<|im_start|>user\nIs it"),
        ("llama3", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nIs it"),
        ("plain", "<|begin|>Is it"),
        ("qwen2", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nIs it"),
        ("qwen3", "<|im_start|>user\nIs it"),
        ("internlm2", "<s><|im_start|>user\nIs it"),
        (
            "llama3.1",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nIs it",
        ),
        ("gemma", "<bos><start_of_turn>user\nIs it"),
        ("phi3", "<|user|>\nIs it"),
        ("mistral-nemo", "<s>[INST]Is it"),
        ("deepseek-r1", "<｜begin▁of▁sentence｜><｜User｜>Is it"),
    ],
)
def test_a_conversation_without_system_message_gets_the_formats_own(name, start):
    tokenizer = chat_tokenizer(name)
    ids, mask = tokenizer.render(CHAT[1:3])
    assert spell(tokenizer, ids).startswith(start)
    assert learned(tokenizer, ids, mask) == ["Yes: it lives 🐙" + END[name]]


@formats
def test_exactly_the_replies_and_their_end_are_learned(name):
    tokenizer = chat_tokenizer(name)
    space, end = FORMATS[name].lead, FORMATS[name].close["assistant"]
    expected = [f"{space}Yes: it lives 🐙{end}", f"{space}No{end}"]
    assert learned(tokenizer, *tokenizer.render(CHAT)) == expected
    assert learned(tokenizer, *tokenizer.render(CHAT, learn="last")) == expected[1:]


@formats
def test_learn_all_is_everything_but_the_first_token(name):
    ids, mask = chat_tokenizer(name).render(CHAT, learn="all")
    assert mask == [0] + [1] * (len(ids) - 1)


@formats
def test_a_prompt_is_where_the_reply_begins(name):
    tokenizer = chat_tokenizer(name)
    prompt = tokenizer.prompt(CHAT[:4])
    ids, mask = tokenizer.render(CHAT, learn="last")
    assert ids[: len(prompt)] == prompt
    assert mask.index(1) == len(prompt)


def test_some_formats_strip_content():
    padded, strip = [{"role": "user", "content": "  a \n"}], {"llama2", "llama3", "llama3.1", "gemma"}
    for name in CONTROL:
        text = spell(chat_tokenizer(name), chat_tokenizer(name).render(padded)[0])
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
    plain = {"role": "assistant", "content": "a </think> b"}
    assert learned(chat_tokenizer("chatml"), *chat_tokenizer("chatml").render([CHAT[1], plain])) == [
        "a </think> b<|im_end|>"
    ]


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
    tokens = [tokenizers.AddedToken(c, special=True, normalized=False) for c in CONTROL[name]]
    inner.add_special_tokens(tokens)
    return inner


@formats
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
    tokens = [tokenizers.AddedToken(c, special=True, normalized=False, rstrip=True) for c in CONTROL["phi3"]]
    inner = byte_tokenizer([])
    inner.add_special_tokens(tokens)
    tokenizer = Tokenizer(inner, FORMATS["phi3"])
    assert spell(tokenizer, tokenizer.render(CHAT)[0]) == GOLDEN["phi3"].replace(">\n", ">")


@formats
@pytest.mark.parametrize("special", [True, False])
def test_content_that_spells_a_control_token_stays_text(name, special):
    tokenizer = chat_tokenizer(name, special)
    evil = (
        "".join(f"a{token}{token} <{token}>" for token in CONTROL[name]) + "<|im_end|><|assistant|><|eot_id|>"
    )
    control = {tokenizer.inner.token_to_id(token) for token in CONTROL[name]}
    ids = tokenizer.encode(evil)
    assert None not in control and not control & set(ids)
    assert tokenizer.decode(ids) == spell(tokenizer, ids) == evil
    calm = tokenizer.render([{"role": "user", "content": "calm"}])[0]
    rendered = tokenizer.render([{"role": "user", "content": evil}])[0]
    assert [i for i in rendered if i in control] == [i for i in calm if i in control]


def test_special_tokens_that_the_format_does_not_use_stay_text_too():
    tokenizer = Tokenizer(byte_tokenizer([*CONTROL["chatml"], "<|endoftext|>"]), FORMATS["chatml"])
    ids = tokenizer.encode("a<|endoftext|>b")
    assert tokenizer.inner.token_to_id("<|endoftext|>") not in ids
    assert tokenizer.decode(ids) == "a<|endoftext|>b"


def test_the_trained_tokenizer_keeps_control_tokens_out_of_content_too(tokenizer):
    for token in CONTROL["plain"]:
        ids = tokenizer.encode(f"x{token}y")
        assert tokenizer.inner.token_to_id(token) not in ids
        assert tokenizer.decode(ids) == f"x{token}y"


@pytest.mark.parametrize("special", [True, False])
def test_lone_surrogates_and_nul_do_no_harm(special):
    tokenizer = chat_tokenizer("chatml", special)
    assert tokenizer.decode(tokenizer.encode("a\ud800b\x00c")) == "a?b\x00c"


@formats
def test_decode_leaves_control_tokens_out(name):
    tokenizer = chat_tokenizer(name, special=False)
    ids = [*tokenizer.encode("No"), tokenizer.inner.token_to_id(END[name])]
    assert tokenizer.decode(ids) == "No"


def test_stop_ids_hold_the_end_of_a_reply_and_what_the_caller_adds():
    inner = byte_tokenizer(CONTROL["chatml"])
    end = inner.token_to_id("<|im_end|>")
    assert Tokenizer(inner, FORMATS["chatml"]).stop_ids == [end]
    assert Tokenizer(inner, FORMATS["chatml"], [3, end]).stop_ids == [3, end]


def test_padding_and_truncation_of_the_file_are_switched_off():
    inner = byte_tokenizer(CONTROL["chatml"])
    inner.enable_padding(length=50)
    inner.enable_truncation(3)
    assert len(Tokenizer(inner, FORMATS["chatml"]).encode("abcdef")) == 6


def test_a_format_whose_tokens_are_absent_is_an_error_that_names_one():
    with pytest.raises(ValueError, match=r"no token <\|eot_id\|>"):
        Tokenizer(byte_tokenizer(CONTROL["llama3"][:-1]), FORMATS["llama3"])


# ------------------------------------------------------------------------------------------------ tokenizers
def test_training_is_deterministic(task):
    first, second = (train_tokenizer(task.texts(), 400).inner.to_str() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Is it alive?",
        "  two  spaces ",
        "é ß 漢字 🐙👩‍🚀",
        "\x00\x01\x7f\xa0\u2028",
        "a\r\n\n: b:c: ",
        "\\n <| |>",
    ],
)
def test_the_trained_tokenizer_gives_back_any_text(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_question_of_the_world_is_one_token(task):
    tokenizer = train_tokenizer(task.texts(), 1000)
    for question in task.world.questions:
        assert len(tokenizer.encode(question)) == 1, question
        assert len(tokenizer.encode(f"Zq: {question}")) == len(tokenizer.encode("Zq: ")) + 1, question


def test_the_trained_tokenizer_is_no_larger_than_asked(task):
    assert train_tokenizer(task.texts(), 300).size <= 300


def test_a_saved_tokenizer_loads_as_it_was(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.format is FORMATS["plain"]
    assert again.render(CHAT) == tokenizer.render(CHAT)
    assert (again.control, again.stop_ids, again.size) == (
        tokenizer.control,
        tokenizer.stop_ids,
        tokenizer.size,
    )


def test_the_saved_settings_name_begin_and_end(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (settings["bos_token"], settings["eos_token"]) == ("<|begin|>", "<|end|>")


def write(folder, name, template="", jinja=False, **settings):
    """A folder with a tokenizer of a format and this chat template."""
    byte_tokenizer(CONTROL[name]).save(str(folder / "tokenizer.json"))
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
    "plain": data.PLAIN_TEMPLATE,
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
@formats
def test_the_format_is_recognised_by_the_chat_template(tmp_path, name, jinja):
    write(tmp_path, name, TEMPLATES[name], jinja)
    assert load_tokenizer(tmp_path).format is FORMATS[name]


def test_a_named_format_goes_before_the_template(tmp_path):
    write(tmp_path, "chatml", TEMPLATES["smollm2"])
    assert load_tokenizer(tmp_path, "chatml").format is FORMATS["chatml"]


@pytest.mark.parametrize("eos", [5, [5, 6]])
def test_stop_ids_of_the_generation_config_count(tmp_path, eos):
    write(tmp_path, "chatml", TEMPLATES["chatml"])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    tokenizer = load_tokenizer(tmp_path)
    expected = {tokenizer.control["<|im_end|>"], *([eos] if eos == 5 else eos)}
    assert set(tokenizer.stop_ids) == expected


def test_a_template_of_no_known_format_is_an_error_that_lists_them(tmp_path):
    write(tmp_path, "mistral", "{{ '[INST] ' + message['content'] + ' [/INST]' }}")
    with pytest.raises(ValueError, match="plain.llama3.*smollm2.*chatml"):
        load_tokenizer(tmp_path)


def test_an_unknown_format_is_named(tmp_path):
    write(tmp_path, "chatml", TEMPLATES["chatml"])
    with pytest.raises(ValueError, match="'vicuna' is unknown"):
        load_tokenizer(tmp_path, "vicuna")


def test_a_folder_without_tokenizer_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_sentencepiece_tokenizer_is_told_how_to_become_a_json(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model.*(?s:.)*LlamaTokenizerFast"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(tmp_path)


def test_printable_escapes_control_characters_and_nothing_else():
    assert printable("a\x1b[2J\x07\r\x9b\u202eé🐙\nb") == "a\\x1b[2J\\x07\\r\\x9b\\u202eé🐙\nb"


def test_coloured_shows_learned_text_in_green_and_the_rest_dim():
    tokenizer = chat_tokenizer("plain")
    ids, mask = tokenizer.render(
        [{"role": "user", "content": "Q\x07"}, {"role": "assistant", "content": "No"}]
    )
    green, dim, off = "\x1b[32m", "\x1b[2m", "\x1b[0m"
    assert tokenizer.coloured(ids, mask) == f"{dim}<|begin|>Q\\x07<|assistant|>{off}{green}No<|end|>{off}"


# ------------------------------------------------------------------------------------------------ rows
BRANCHES = [  # masks differ, prefixes are shared, the last is a duplicate and the fourth begins the first
    ([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1]),
    ([1, 2, 3, 7, 8], [0, 0, 1, 0, 1]),
    ([1, 2, 9], [0, 0, 1]),
    ([1, 2, 3, 4], [0, 1, 0, 1]),
    ([11, 2, 3], [0, 1, 1]),
    ([1, 2, 3, 7, 8], [0, 0, 1, 0, 1]),
]
OTHERS = [([20, 21, 22, 23], [0, 0, 1, 1]), ([20, 24, 25], [0, 1, 1])]
PLAIN = [([30, 31, 32], [0, 1, 1])]


def batch_loss(model, rows):
    """The sft loss of rows, as training computes it: a float."""
    batch = collate(rows)
    with torch.no_grad():
        hidden = model(batch["ids"], batch["positions"], batch["end"]).flatten(0, 1)[batch["source"]]
        return losses.sft(losses.token_logp(model.logits, hidden, batch["target"], 300)).sum()


def plain_loss(model, samples):
    """The same from each sample alone, without rows: a float."""
    total = torch.zeros(())
    for ids, mask in samples:
        with torch.no_grad():
            logp = model.logits(model(torch.tensor([ids]))).log_softmax(-1)[0]
        total -= sum(logp[t - 1, ids[t]] for t in range(1, len(ids)) if mask[t])
    return total


def same(rows, samples):
    """Whether rows hold exactly the targets of samples."""
    targets = sorted(target for row in rows for target in row.target)
    return targets == sorted(ids[t] for ids, mask in samples for t in range(1, len(ids)) if mask[t])


@families
@pytest.mark.parametrize("samples", [BRANCHES, OTHERS, PLAIN], ids=["branches", "others", "plain"])
def test_the_loss_of_a_tree_is_the_sum_over_its_samples(tiny, family, samples):
    model = tiny(family)
    assert_close(batch_loss(model, [share_prefixes(samples)]), plain_loss(model, samples), atol=1e-4, rtol=0)


def test_a_tree_has_one_slot_for_each_distinct_prefix():
    prefixes = {tuple(ids[:n]) for ids, _ in BRANCHES for n in range(1, len(ids))}
    row = share_prefixes(BRANCHES)
    assert len(row.ids) == len(row.positions) == len(row.end) == len(prefixes) == 8
    assert len(row.target) == len(row.source) == sum(sum(mask) for _, mask in BRANCHES)


def test_the_order_of_samples_does_not_matter():
    row, turned = share_prefixes(BRANCHES), share_prefixes(BRANCHES[::-1])
    assert [BRANCHES[::-1][sample] for sample in turned.owner] == [BRANCHES[sample] for sample in row.owner]
    assert replace(turned, owner=row.owner) == row


@pytest.mark.parametrize("max_tokens", [1, 4, 5, 7, 8])
def test_trees_keep_all_targets_within_the_limit(tiny, max_tokens):
    rows, longest = trees(BRANCHES, max_tokens), max(len(ids) for ids, _ in BRANCHES) - 1
    assert (len(rows) == 1) == (max_tokens == 8)
    assert all(len(row.ids) <= max(max_tokens, longest) for row in rows)
    assert same(rows, BRANCHES)
    model = tiny()
    assert_close(batch_loss(model, rows), plain_loss(model, BRANCHES), atol=1e-4, rtol=0)


@pytest.mark.parametrize("max_tokens", [9, 12, 15, 100])
def test_packed_rows_lose_nothing_and_respect_the_limit(tiny, max_tokens):
    samples = [BRANCHES, OTHERS, PLAIN, OTHERS]
    rows = [share_prefixes(group) for group in samples]
    before = json.dumps([vars(row) for row in rows])
    packed = pack(rows, max_tokens)
    assert json.dumps([vars(row) for row in rows]) == before, "pack changed its input"
    assert all(len(row.ids) <= max_tokens for row in packed)
    assert sum(len(row.ids) for row in packed) == sum(len(row.ids) for row in rows)
    assert same(packed, sum(samples, []))
    model = tiny()
    assert_close(batch_loss(model, packed), batch_loss(model, rows), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "sizes, max_tokens, fullest",
    [
        ((3, 9, 6, 6), 9, [6, 9, 9]),
        ((3, 9, 6, 6), 15, [9, 15]),
        ((3, 9, 6, 6), 100, [24]),
        ((2, 3, 4, 5, 6), 10, [10, 10]),
    ],
)
def test_packing_takes_the_longest_first_and_the_tightest_place(sizes, max_tokens, fullest):
    rows = [Row([1] * n, [0] * n, [n] * n, [], []) for n in sizes]
    assert sorted(len(row.ids) for row in pack(rows, max_tokens)) == fullest


def test_a_row_beyond_the_limit_is_kept_alone():
    rows = [Row([1] * n, [0] * n, [n] * n, [], []) for n in (3, 9)]
    assert sorted(len(row.ids) for row in pack(rows, 5)) == [3, 9]


def test_plain_rows_need_no_end_and_others_do():
    plain = [share_prefixes(PLAIN), share_prefixes([BRANCHES[0]])]
    assert collate(plain)["end"] is None
    for row in (share_prefixes(OTHERS), pack(plain, 100)[0]):
        end = collate([row, plain[0]])["end"]
        assert end.tolist() == [row.end, plain[0].end + [0] * (len(row.ids) - len(plain[0].ids))]


@families
def test_plain_rows_without_end_equal_the_masked_path(tiny, family):
    model, rows = tiny(family), [share_prefixes(PLAIN), share_prefixes([BRANCHES[0]])]
    batch, masked = collate(rows), collate([*rows, share_prefixes(OTHERS)])
    assert batch["end"] is None and masked["end"] is not None
    with torch.no_grad():
        fast = model(batch["ids"], batch["positions"])
        slow = model(masked["ids"], masked["positions"], masked["end"])
    for b, row in enumerate(rows):
        assert_close(fast[b, : len(row.ids)], slow[b, : len(row.ids)], atol=2e-5, rtol=0)


def test_source_counts_slots_across_the_batch():
    batch = collate([share_prefixes(PLAIN), share_prefixes([BRANCHES[0]])])
    assert batch["ids"].tolist() == [[30, 31, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert batch["positions"].tolist() == [[0, 1, 0, 0, 0], [0, 1, 2, 3, 4]]
    assert batch["source"].tolist() == [0, 1, 5 + 2, 5 + 3, 5 + 4]
    assert batch["target"].tolist() == [31, 32, 4, 5, 6]


def test_rows_that_teach_nothing_make_a_batch_of_loss_zero(tiny):
    assert batch_loss(tiny(), [share_prefixes([([1, 2, 3], [0, 0, 0])])]) == 0


# ------------------------------------------------------------------------------------------------ order
@pytest.mark.parametrize("batch, n", [(4, 12), (5, 12), (7, 3), (1, 1)])
def test_each_epoch_visits_every_example_once(batch, n):
    places = [place for step in range(6 * n) for place in indices(3, step, batch, n)]
    for epoch in range(5):
        assert [e for _, e in places[epoch * n : (epoch + 1) * n]] == [epoch] * n
        assert sorted(i for i, _ in places[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_the_order_depends_on_seed_and_step_only():
    first = [indices(0, step, 5, 100) for step in range(60)]
    others = [indices(1, step, 5, 100) for step in range(60)]
    backwards = [indices(0, step, 5, 100) for step in reversed(range(60))]
    assert backwards[::-1] == first
    assert first != others
    assert [i for i, _ in sum(first[:20], [])] != [i for i, _ in sum(first[20:40], [])], "epochs repeat"


# ------------------------------------------------------------------------------------------------ encoders
def encoder_tokenizer(begin="<s>", between="</s></s>", end="</s>"):
    """A byte tokenizer that puts marks around one text and around a pair, as those of encoders do."""
    marks = sorted({*re.findall(r"<[^>]+>|\[[A-Z]+\]", begin + between + end)})
    inner = byte_tokenizer(marks)
    pair = f"{begin} $A {' '.join(re.findall('<[^>]+>|.[A-Z]+.', between))} $B {end}"
    ids = [(mark, inner.token_to_id(mark)) for mark in marks]
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=pair, special_tokens=ids
    )
    return inner


def parts(*texts, **more):
    return [{"role": "user", "content": text, **more} for text in texts]


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
    spelled = tokenizer.prompt(parts(f"a{end}b", "c"))  # what a text spells is text
    assert [i for i in spelled if i in tokenizer.control.values()] == inner.encode("a", "c").ids[:1] + [
        i for i in inner.encode("a", "c").ids[1:] if i in tokenizer.control.values()
    ]


def test_the_tokenizer_of_a_decoder_makes_no_encoder_format():
    assert data.encoder_format(byte_tokenizer(["<s>"])) is None


@formats
def test_what_one_role_says_in_parts_is_one_message_of_a_chat(name):
    tokenizer = chat_tokenizer(name)
    assert tokenizer.prompt(parts("one", "two", share=3)) == tokenizer.prompt(parts("one\n\ntwo"))


def test_fitted_shares_the_room_keeps_heads_and_tails_and_is_blind_to_order():
    """The level is the same for all parts, by their share; what a short part does not need goes to the
    others."""
    inner = encoder_tokenizer("[CLS]", "[SEP]", "[SEP]")
    tokenizer = Tokenizer(inner, data.encoder_format(inner))
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        sizes = torch.randint(0, 120, (3,), generator=rng).tolist()
        texts = ["".join(chr(97 + i % 26) for i in range(size)) for size in sizes]
        most = int(torch.randint(30, 200, (1,), generator=rng))
        ids, cut = tokenizer.fitted(parts(*texts), most)
        assert len(ids) <= most and cut == (sum(sizes) + 4 > most)
        mirrored, _ = tokenizer.fitted(parts(texts[0], texts[2], texts[1]), most)
        pieces = [re.split(r"\[SEP\]|\[CLS\]", spell(tokenizer, one))[1:4] for one in (ids, mirrored)]
        assert [pieces[1][i] for i in (0, 2, 1)] == pieces[0]
        for text, piece in zip(texts, pieces[0]):
            head, mark, tail = piece.partition(data.CUT)
            assert (text.startswith(head) and text.endswith(tail)) if mark else text.startswith(piece)
            assert not mark or len(tail) <= len(head)
    long, short = "a" * 300, "b" * 10
    ids, _ = tokenizer.fitted([*parts(long, share=1), *parts(long, share=2), *parts(short, share=2)], 114)
    first, second, third = re.split(r"\[SEP\]|\[CLS\]", spell(tokenizer, ids))[1:4]
    assert third == short and 2 * len(first) == pytest.approx(len(second), abs=8) and len(ids) > 100
    with pytest.raises(ValueError, match="--max-tokens 2: too few"):
        tokenizer.fitted(parts(long, long), 2)
