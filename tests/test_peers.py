"""Our folders open in transformers and PEFT with the same outputs, and theirs here."""

import json

import pytest
import torch
from conftest import ENCODERS, SHAPES

import checkpoint
import templates
from attention import ALWAYS
from data import load_tokenizer
from formats import PLAIN_TEMPLATE
from formats import TEMPLATES as FORMAT_TEMPLATES
from lora import save_lora
from model import load, save
from sampler import generate

pytestmark = pytest.mark.peers
transformers = pytest.importorskip("transformers")
chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")

from tests.peers import IDS, NO_CLASSES, near, new_there, open_there, ours, theirs  # noqa: E402

LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
VARIANTS = {
    "plain": {},
    "llama3": dict(rope_scaling=LLAMA3, rope_theta=500_000.0),
    "linear": dict(rope_scaling={"rope_type": "linear", "factor": 2.0}),
    "yarn": dict(
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        rope_theta=10_000.0,
    ),
    "longrope": dict(
        partial_rotary_factor=1.0,
        original_max_position_embeddings=32,
        rope_scaling={
            "rope_type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 2.0, 3.0, 4.0],
            "original_max_position_embeddings": 32,
        },
    ),
    "parameters": dict(rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
    "tied": dict(tie_word_embeddings=True),
    "untied": dict(tie_word_embeddings=False),
    "wide heads": dict(head_dim=24),
    "gelu": dict(hidden_act="gelu_pytorch_tanh"),
    "biased": dict(attention_bias=True, mlp_bias=True),
    "attention biased": dict(attention_bias=True),
}
UNKNOWN = {  # what a family has not
    "llama": ["attention biased"],
    "mistral": ["attention biased"],
    "qwen2": ["wide heads", "attention biased"],
    "phi3": ["llama3", "linear", "yarn", "parameters", "attention biased", "biased"],
    "gemma3_text": ["parameters", "attention biased"],
    "olmo3": ["parameters", "linear"],
    "ministral3": ["llama3", "linear", "yarn", "parameters", "attention biased"],
    "qwen3_5_text": ["llama3", "linear", "gelu"],
}
families = pytest.mark.parametrize("family", SHAPES)
variants = pytest.mark.parametrize(
    "family, variant",
    [
        (family, variant)
        for family in SHAPES
        for variant in VARIANTS
        if variant not in UNKNOWN.get(family, ())
        and (family in ("llama", "phi3") or variant not in ("biased", "longrope"))
    ],
)


@variants
def test_what_transformers_saves_we_open_and_save_again_for_it(tmp_path, family, variant):
    model = new_there(family, **VARIANTS[variant])
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    near(ours(load(tmp_path / "theirs")), theirs(model))
    save(load(tmp_path / "theirs"), tmp_path / "ours")
    near(theirs(open_there(tmp_path / "ours")), theirs(model))


@families
def test_left_padding_means_the_same(tiny, tmp_path, family):
    model, mask = tiny(family), torch.ones(2, 40, dtype=torch.long)
    mask[0, :13] = 0
    save(model, tmp_path)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        there = open_there(tmp_path).eval()(IDS, attention_mask=mask, position_ids=positions).logits
        here = model.logits(model(IDS, positions, mask * ALWAYS))
    near(here[0, 13:], there[0, 13:])
    near(here[1], there[1])


GROWN = dict(original_max_position_embeddings=14, rope_scaling=VARIANTS["longrope"]["rope_scaling"])
GROWN |= dict(partial_rotary_factor=1.0)  # a text that outgrows its original context


@pytest.mark.parametrize("family, changes", [*((family, {}) for family in SHAPES), ("phi3", GROWN)])
def test_greedy_generation_is_the_same(tiny, tmp_path, family, changes):
    model = tiny(family, **changes)
    save(model, tmp_path)
    peer = open_there(tmp_path).eval()
    peer.generation_config.eos_token_id = None
    text = peer.generate(IDS[:, :9], max_new_tokens=12, do_sample=False, pad_token_id=0)
    replies = generate(model, IDS[:, :9].tolist(), 12, [], temperature=0)
    assert [reply.ids for reply in replies] == text[:, 9:].tolist()


@families
def test_bfloat16_files_are_read_alike(tiny, tmp_path, family):
    save(tiny(family).to(torch.bfloat16), tmp_path)
    here = load(tmp_path)
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert there.dtype == here.embed.weight.dtype == torch.bfloat16
    exact = ours(load(tmp_path, dtype=torch.float32))
    near(exact, theirs(open_there(tmp_path)))
    rough, reference = (logits.float() - exact for logits in (ours(here), theirs(there)))
    assert rough.norm() < 1.5 * reference.norm()


def test_the_plain_template_renders_as_we_do(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [
        {"role": "system", "content": "Play fair."},
        {"role": "user", "content": "Is it alive?"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Can it fly?"},
    ]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"] == PLAIN_TEMPLATE
    rendered = peer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = load_tokenizer(tmp_path).prompt(messages)
    assert rendered == tokenizer.inner.decode(ids, skip_special_tokens=False)
    whole = peer.apply_chat_template(messages[:3], tokenize=False)
    assert whole == tokenizer.inner.decode(tokenizer.render(messages[:3])[0], skip_special_tokens=False)
    assert (peer.bos_token, peer.eos_token) == ("<|begin|>", "<|end|>")


TEMPLATES = [
    *FORMAT_TEMPLATES.values(),
    "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m | tojson }}\n{% endfor %}",
    "{{ bos_token }}{% for m in messages %}{% generation %}{{ m.content[::-1] }}{% endgeneration %}"
    "{% endfor %}",
    "  {%- set ns = namespace(n=0) %}\n  {% for m in messages if m['role'] == 'user' %}\n"
    "    {% set ns.n = ns.n + 1 %}\n{{ ns.n }}: {{ m.content | trim | upper }}\n  {% endfor %}\n",
    "{% if not date is defined %}{% set date = strftime_now('%d %b %Y') %}{% endif %}{{ date }}",
    "{{ messages | map(attribute='content') | join(' ') | replace('é', 'e') }}{{ range(3) | list }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("opened", [False, True])
def test_templates_are_rendered_as_transformers_does(template, opened, monkeypatch):
    class Clock(chat_template_utils.datetime):
        @classmethod
        def now(cls, tz=None):
            return templates.TODAY

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    contents = ("Play fair. ", " Is <b>it</b> é?\n", "<think>\nHm.\n</think>\n\nYes", "And 'now'?")
    chat = [
        {"role": role, "content": text}
        for role, text in zip(("system", "user", "assistant", "user"), contents)
    ]
    for messages in (chat, chat[1:], chat[1:2]):
        expected, _ = chat_template_utils.render_jinja_template(
            [messages],
            None,
            None,
            template,
            add_generation_prompt=opened,
            enable_thinking=False,
            bos_token="<s>",
        )
        compiled = templates.compile_template(template)
        assert templates.render(compiled, {"bos_token": "<s>"}, messages, opened) == expected[0]


# ------------------------------------------------------------------------------------------------ peft
TARGETS = {"q_proj", "gate_proj", "down_proj", "qkv_proj", "gate_up_proj", "query", "Wqkv", "Wo"}
TARGETS |= {"input_linear", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"}
KINDS = {  # head: class of theirs, task_type of PEFT
    "own": (transformers.AutoModelForCausalLM, "CAUSAL_LM"),
    "none": (transformers.AutoModel, "FEATURE_EXTRACTION"),
    3: (transformers.AutoModelForSequenceClassification, "SEQ_CLS"),
}


@torch.no_grad()
def outputs_here(model):
    hidden = model(LETTERS)
    return {"none": lambda x: x, "lm": model.logits, "classes": model.classify}[model.config.head](hidden)


@torch.no_grad()
def outputs_there(model):
    output = model.eval()(input_ids=LETTERS)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


LETTERS = IDS.clamp(min=3)  # no padding
HEADS = [(family, head) for family in SHAPES for head in KINDS if head != 3 or family not in NO_CLASSES]
HEADS += [(family, head) for family in ENCODERS for head in ("none", 3)]


@pytest.mark.parametrize("settings", [dict(), dict(use_dora=True), dict(use_rslora=True, lora_alpha=3)])
@pytest.mark.parametrize("family, head", HEADS)
def test_adapters_that_peft_saves_we_open_and_save_again_for_it(tiny, tmp_path, family, head, settings):
    """With a head of their own, without one as embedding models have them, and with a trained classifier."""
    peft = pytest.importorskip("peft")
    kind, task = KINDS[head]
    save(tiny(family, pad_token_id=0), tmp_path / "whole")
    save(load(tmp_path / "whole", head=head, seed=1), tmp_path / "base")
    base = lambda: kind.from_pretrained(tmp_path / "base", dtype=torch.float32, attn_implementation="eager")
    names = {n.rpartition(".")[2] for n, m in base().named_modules() if isinstance(m, torch.nn.Linear)}
    targets = [*TARGETS & names, *(["intermediate.dense"] if "query" in names else [])]
    config = peft.LoraConfig(r=3, target_modules=targets, init_lora_weights=False, task_type=task, **settings)
    torch.manual_seed(0)
    peer = peft.get_peft_model(base(), config)
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            if "modules_to_save" in name or "magnitude" in name:
                weight.add_(torch.randn(weight.shape) * 0.3)
    peer.save_pretrained(tmp_path / "theirs")
    model = checkpoint.open(tmp_path / "base", lora=tmp_path / "theirs", tokenizer=False).model
    near(outputs_here(model), outputs_there(peer))
    save_lora(model, tmp_path / "ours", tmp_path / "base")
    near(outputs_there(peft.PeftModel.from_pretrained(base(), tmp_path / "ours")), outputs_there(peer))
