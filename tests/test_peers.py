"""Our folders open in transformers and PEFT with the same outputs, and theirs here."""

import json

import pytest
import torch
from conftest import ENCODERS, SHAPES, tiny_hf
from torch.testing import assert_close

from attention import ALWAYS
from data import PLAIN_TEMPLATE, load_tokenizer
from lora import adapters, add_lora, load_lora, open_model, save_lora
from model import load, save
from sampler import generate

pytestmark = pytest.mark.peers
transformers = pytest.importorskip("transformers")
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
    "parameters": dict(rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
    "tied": dict(tie_word_embeddings=True),
    "untied": dict(tie_word_embeddings=False),
    "wide heads": dict(head_dim=24),
    "gelu": dict(hidden_act="gelu_pytorch_tanh"),
    "biased": dict(attention_bias=True, mlp_bias=True),
}
families = pytest.mark.parametrize("family", SHAPES)
variants = pytest.mark.parametrize(
    "family, variant",
    [
        (family, variant)
        for family in SHAPES
        for variant in VARIANTS
        if not (family == "qwen2" and variant == "wide heads")  # it has no such setting
        and not (family != "llama" and variant == "biased")
        and not (
            family == "phi3" and variant in ("llama3", "linear", "parameters")
        )  # it knows long rope only
        and not (family == "gemma3_text" and variant == "parameters")  # nested there
    ]
    + [("qwen3", "attention biased"), ("gemma", "attention biased"), ("gemma2", "attention biased")],
)
VARIANTS["attention biased"] = dict(attention_bias=True)
IDS = torch.randint(300, (2, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def ours(model, ids=IDS):
    return model.logits(model(ids))


@torch.no_grad()
def theirs(model, ids=IDS):
    return model.eval()(input_ids=ids).logits


def near(actual, expected):
    assert_close(actual, expected, atol=2e-5, rtol=2e-5)


def open_there(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def new_there(family, variant="plain", seed=0):
    """A random model of theirs, its norms and biases away from one and zero."""
    hf = tiny_hf(family, **VARIANTS[variant])
    config = transformers.AutoConfig.for_model(hf.pop("model_type"), **hf)
    kind = transformers.AutoModel if family in ENCODERS else transformers.AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            fresh = torch.empty(weight.shape).normal_(0, 1, generator=generator)
            weight.copy_(0.3 + 0.5 * fresh if weight.dim() == 1 else fresh * 1.5 / weight.shape[1] ** 0.5)
    return model


@variants
def test_transformers_opens_what_we_save(tiny, tmp_path, family, variant):
    model = tiny(family, **VARIANTS[variant])
    save(model, tmp_path)
    near(theirs(open_there(tmp_path)), ours(model))


@variants
def test_we_open_what_transformers_saves(tmp_path, family, variant):
    model = new_there(family, variant)
    model.save_pretrained(tmp_path)
    near(ours(load(tmp_path)), theirs(model))


@families
def test_we_open_the_shards_that_transformers_saves(tmp_path, family):
    model = new_there(family)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    near(ours(load(tmp_path)), theirs(model))


@families
def test_what_transformers_saved_survives_our_saving(tmp_path, family):
    model = new_there(family)
    model.save_pretrained(tmp_path / "first")
    save(load(tmp_path / "first"), tmp_path / "second")
    near(theirs(open_there(tmp_path / "second")), theirs(model))


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


@families
def test_greedy_generation_is_the_same(tiny, tmp_path, family):
    model = tiny(family)
    save(model, tmp_path)
    peer = open_there(tmp_path).eval()
    peer.generation_config.eos_token_id = None
    text = peer.generate(IDS[:, :9], max_new_tokens=12, do_sample=False, pad_token_id=0)
    replies = generate(model, IDS[:, :9].tolist(), 12, [], temperature=0)
    assert [reply.ids for reply in replies] == text[:, 9:].tolist()


@families
def test_bfloat16_files_are_read_alike(tiny, tmp_path, family):
    save(tiny(family).to(torch.bfloat16), tmp_path)
    near(ours(load(tmp_path, dtype=torch.float32)), theirs(open_there(tmp_path)))
    here = load(tmp_path)
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert there.dtype == here.embed.weight.dtype == torch.bfloat16
    exact = ours(load(tmp_path, dtype=torch.float32))
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


# ------------------------------------------------------------------------------------------------ peft
SETTINGS = [{}, dict(dora=True), dict(alpha=3, targets="k_proj,o_proj,down_proj", rank_stabilised=True)]


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


@families
@pytest.mark.parametrize("settings", SETTINGS)
def test_peft_opens_the_adapter_that_we_save(tiny, tmp_path, peft, family, settings):
    save(tiny(family), tmp_path / "base")
    model = add_lora(tiny(family), rank=3, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, layer in adapters(model):
            layer.lora_B.normal_(0, 0.3, generator=generator)
    save_lora(model, tmp_path / "adapter", tmp_path / "base")
    peer = peft.PeftModel.from_pretrained(open_there(tmp_path / "base"), tmp_path / "adapter")
    assert (ours(model) - ours(tiny(family))).abs().max() > 0.1
    near(theirs(peer), ours(model))


@families
@pytest.mark.parametrize("settings", SETTINGS)
def test_we_open_the_adapter_that_peft_saves(tiny, tmp_path, peft, family, settings):
    save(tiny(family), tmp_path / "base")
    targets = settings.get("targets", "q_proj,v_proj,gate_proj")
    if family == "phi3":
        targets = "qkv_proj,o_proj,down_proj" if settings else "qkv_proj,gate_up_proj"
    config = peft.LoraConfig(
        r=3,
        lora_alpha=settings.get("alpha", 6),
        target_modules=targets.split(","),
        use_rslora=settings.get("rank_stabilised", False),
        use_dora=settings.get("dora", False),
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(0)
    peer = peft.get_peft_model(open_there(tmp_path / "base"), config)
    peer.save_pretrained(tmp_path / "adapter")
    model = load_lora(tiny(family), tmp_path / "adapter")
    assert (ours(model) - ours(tiny(family))).abs().max() > 0.01
    near(ours(model), theirs(peer))


@pytest.mark.parametrize("family", [*SHAPES, *ENCODERS])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_adapters_with_a_trained_head_go_both_ways(tiny, tmp_path, peft, family, dora):
    """PEFT saves a DoRA adapter of a classifier, we read it, write it, and PEFT reads that."""
    save(tiny(family, architectures=["Model"], pad_token_id=0), tmp_path / "bare")
    save(load(tmp_path / "bare", labels=3, seed=1), tmp_path / "base")
    classes = transformers.AutoModelForSequenceClassification

    def base():
        return classes.from_pretrained(tmp_path / "base", dtype=torch.float32, attn_implementation="eager")

    names = [n.rpartition(".")[2] for n, m in base().named_modules() if isinstance(m, torch.nn.Linear)]
    targets = sorted(
        {"q_proj", "down_proj", "qkv_proj", "query", "Wqkv", "Wo", "intermediate.dense"} & {*names}
    )
    targets += ["intermediate.dense"] if "query" in targets else []
    config = peft.LoraConfig(
        r=3,
        lora_alpha=4,
        target_modules=targets,
        use_dora=dora,
        use_rslora=dora,
        init_lora_weights=False,
        task_type="SEQ_CLS",
    )
    torch.manual_seed(0)
    peer = peft.get_peft_model(base(), config).eval()
    peer.base_model.model.config.pad_token_id = 0
    ids = IDS.clamp(min=3)
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            if "modules_to_save" in name or "magnitude" in name:
                weight.add_(torch.randn(weight.shape) * 0.3)
        expected = peer(input_ids=ids).logits
        peer.save_pretrained(tmp_path / "theirs")
        path = tmp_path / "theirs" / "adapter_config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")})
        )
        model, _, _ = open_model(str(tmp_path / "theirs"))
        near(model.classify(model(ids)), expected)
        save_lora(model, tmp_path / "ours", tmp_path / "base")
        again = peft.PeftModel.from_pretrained(base(), tmp_path / "ours").eval()
        near(again(input_ids=ids).logits, expected)


@pytest.mark.parametrize("family", ["qwen3", "phi3", *ENCODERS])
def test_adapters_of_headless_models_go_both_ways(tiny, tmp_path, peft, family):
    """As embedding models have them: names without the prefix that a model with a head has."""
    save(tiny(family), tmp_path / "whole")
    save(load(tmp_path / "whole", labels=0), tmp_path / "base")

    def base():
        return transformers.AutoModel.from_pretrained(tmp_path / "base", attn_implementation="eager")

    names = {n.rpartition(".")[2] for n, m in base().named_modules() if isinstance(m, torch.nn.Linear)}
    targets = sorted({"q_proj", "down_proj", "qkv_proj", "query", "Wqkv"} & names)
    config = peft.LoraConfig(
        r=3, target_modules=targets, init_lora_weights=False, task_type="FEATURE_EXTRACTION"
    )
    torch.manual_seed(0)
    peer = peft.get_peft_model(base(), config).eval()
    ids = IDS.clamp(min=3)
    with torch.no_grad():
        expected = peer(input_ids=ids).last_hidden_state
        peer.save_pretrained(tmp_path / "theirs")
        model, _, _ = open_model(str(tmp_path / "base"), lora=str(tmp_path / "theirs"))
        near(model(ids), expected)
        save_lora(model, tmp_path / "ours", tmp_path / "base")
        again = peft.PeftModel.from_pretrained(base(), tmp_path / "ours").eval()
        near(again(input_ids=ids).last_hidden_state, expected)
