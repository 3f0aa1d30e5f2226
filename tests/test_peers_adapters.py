"""Adapters that PEFT writes mean the same here: unmerged, merged, saved again, and merged and saved."""

import dataclasses
import json
import os
import typing
import warnings
from pathlib import Path

import pytest
import torch
from conftest import tiny_hf
from safetensors.torch import load_file, save_file

import checkpoint
from lora import HARMLESS, INITS, KINDS, TASKS, adapters, merge_lora, save_lora
from model import load, save

pytestmark = pytest.mark.peers
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from tests.peers import IDS, near, new_of_kind, randomise  # noqa: E402

LETTERS = IDS.clamp(min=3)  # no padding
CAUSAL = transformers.AutoModelForCausalLM
CLASSES = transformers.AutoModelForSequenceClassification
SEEING = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
SEEING |= dict(image_size=28, patch_size=14)
QUESTIONS = ["What is the capital of France?", "def fibonacci(n):", "Once upon a time there was a fox who"]


def open_there(folder, kind=CAUSAL):
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def outputs_there(model, ids=LETTERS):
    output = model.eval()(input_ids=ids)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


@torch.no_grad()
def outputs_here(model, ids=LETTERS):
    hidden = model(ids)
    return {"none": lambda x: x, "lm": model.logits, "classes": model.classify}[model.config.head](hidden)


def adapter_there(folder, kind=CAUSAL, size=0.3, **settings):
    """A model of theirs with an adapter, both saved; whatever the adapter trains has random numbers."""
    torch.manual_seed(0)
    peer = open_there(folder / "base", kind)
    config = peft.LoraConfig(**dict(r=4, init_lora_weights=False) | settings)
    peer = peft.get_peft_model(peer, config)
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            if "modules_to_save" in name or "magnitude" in name:
                weight.add_(torch.randn(weight.shape) * size * weight.std())
            elif "lora_" in name and config.init_lora_weights:  # which makes A or B, or their product, zero
                weight.add_(torch.randn(weight.shape) * 0.2)
    peer.save_pretrained(folder / "theirs")
    return peer


def open_here(folder, name="theirs"):
    return checkpoint.open(folder / "base", lora=folder / name, tokenizer=False).model


def state_of(folder):
    return load_file(folder / "adapter_model.safetensors")


def settings_of(model):
    """The settings of every adapted layer of theirs, by its name."""
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    return {
        name: (layer.r, layer.scaling, str(layer.lora_dropout), layer.use_dora)
        for name, layer in layers.items()
    }


def check(folder, peer, kind=CAUSAL):
    """All four ways give what PEFT computes, which is not what the base does; loading and saving changes no
    tensor and no setting of a layer."""
    expected = outputs_there(peer)
    base = open_there(folder / "base", kind)
    assert (expected - outputs_there(base)).abs().max() > 0.1
    model = open_here(folder)
    near(outputs_here(model), expected)
    save_lora(model, folder / "ours", folder / "base")
    near(outputs_here(open_here(folder, "ours")), expected)
    again = peft.PeftModel.from_pretrained(base, folder / "ours")
    near(outputs_there(again), expected)
    assert settings_of(again) == settings_of(peer)
    ours = state_of(folder / "ours")
    theirs = state_of(folder / "theirs")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    near(outputs_here(merge_lora(model)), expected)
    save(model, folder / "merged")
    near(outputs_here(load(folder / "merged")), expected)
    near(outputs_there(open_there(folder / "merged", kind)), expected)
    return model


PATTERNS = dict(
    alpha_pattern={"layers.1.self_attn.v_proj": 32, "k_proj": 3, "layers.0.self_attn.o_proj": 1.5}
)
RANKS = dict(rank_pattern={"layers.1.self_attn.v_proj": 2, "k_proj": 3}, lora_alpha=5)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SETTINGS = {
    "head": dict(target_modules=["lm_head"]),
    "head and layers": dict(target_modules=["lm_head", "q_proj"], use_rslora=True),
    "embeddings": dict(target_modules=ATTENTION, modules_to_save=["embed_tokens"]),
    "embeddings of both": dict(target_modules=ATTENTION, modules_to_save=["embed_tokens", "lm_head"]),
    "tied": dict(target_modules=ATTENTION, modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "all-linear": dict(target_modules="all-linear", use_rslora=True),
    "alphas": dict(target_modules=ATTENTION, **PATTERNS),
    "ranks": dict(target_modules=ATTENTION, use_rslora=True, **RANKS),
    "both patterns": dict(target_modules=ATTENTION, **PATTERNS | RANKS),
    "some layers": dict(target_modules=ATTENTION, layers_to_transform=[1]),
    "layer 0": dict(target_modules=ATTENTION, layers_to_transform=0, layers_pattern="layers"),
    "without one": dict(target_modules=ATTENTION, exclude_modules=["layers.1.self_attn.v_proj"]),
    "without many": dict(target_modules=ATTENTION, exclude_modules=r".*layers\.0\..*"),
    "gaussian": dict(target_modules=ATTENTION, init_lora_weights="gaussian"),
    "orthogonal": dict(target_modules=ATTENTION, init_lora_weights="orthogonal"),
    "mica": dict(target_modules=ATTENTION, init_lora_weights="mica"),
    "norms": dict(target_modules=["q_proj"], modules_to_save=["norm", "input_layernorm"]),
    "head saved": dict(target_modules=ATTENTION, modules_to_save=["lm_head"]),
    "layer saved": dict(target_modules=["q_proj"], modules_to_save=["v_proj"], lora_dropout=0.25),
    "DoRA": dict(target_modules="all-linear", use_dora=True),
    "DoRA on the head": dict(target_modules=["lm_head", "v_proj"], use_dora=True, lora_alpha=3),
    "a regular expression": dict(target_modules=r".*\.1\..*(q|up)_proj"),
    "notes": dict(
        target_modules=ATTENTION,
        fan_in_fan_out=True,
        eva_config=peft.EvaConfig(),
        qalora_group_size=8,
        megatron_core="megatron",
    ),
}
TIED = {"head", "head and layers", "DoRA on the head", "head saved"}
TIED |= {"embeddings", "embeddings of both", "tied"}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", SETTINGS)
def test_what_peft_saves_means_the_same(tiny, tmp_path, name, tied):
    save(tiny("qwen2", tie_word_embeddings=tied), tmp_path / "base")
    peer = adapter_there(tmp_path, task_type="CAUSAL_LM", **SETTINGS[name])
    model = check(tmp_path, peer)
    assert model.config.tied == (tied and name not in TIED)


def test_a_saved_head_that_is_missing_is_named_though_the_base_has_none(tiny, tmp_path):
    save(tiny("qwen2"), tmp_path / "base")
    adapter_there(tmp_path, task_type="CAUSAL_LM", **SETTINGS["head saved"])
    state = state_of(tmp_path / "theirs")
    del state["base_model.model.lm_head.weight"]
    save_file(state, tmp_path / "theirs" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="lm_head.weight is missing"):
        open_here(tmp_path)


FUSED = {
    "one": dict(target_modules=["qkv_proj"], lora_alpha=3),
    "all": dict(target_modules="all-linear", use_rslora=True, rank_pattern={"gate_up_proj": 2}),
    "DoRA": dict(target_modules=["qkv_proj", "gate_up_proj"], use_dora=True),
    "saved": dict(target_modules=["o_proj"], modules_to_save=["qkv_proj"]),
}


@pytest.mark.parametrize("name", FUSED)
def test_a_layer_that_is_several_here_keeps_its_one_adapter(tiny, tmp_path, name):
    save(tiny("phi3", pad_token_id=0), tmp_path / "base")
    check(tmp_path, adapter_there(tmp_path, task_type="CAUSAL_LM", **FUSED[name]))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_embeddings_may_be_saved_beside_any_adapter(tiny, tmp_path, tied):
    """As PEFT does on request, and by itself after new tokens were added; the config does not say so."""
    save(tiny("qwen2", tie_word_embeddings=tied), tmp_path / "base")
    peer = adapter_there(tmp_path, target_modules=ATTENTION, task_type="CAUSAL_LM")
    peer.save_pretrained(tmp_path / "theirs", save_embedding_layers=True)
    assert any("embed_tokens" in key for key in state_of(tmp_path / "theirs"))
    check(tmp_path, peer)


@pytest.mark.parametrize("head", [CAUSAL, CLASSES, transformers.AutoModel], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "settings",
    [
        dict(target_modules=["q_proj", "down_proj"], alpha_pattern={"layers.1.self_attn.q_proj": 32}),
        dict(target_modules=r".*language_model.*\.(q_proj|up_proj)", modules_to_save=["embed_tokens"]),
    ],
    ids=["names", "regex"],
)
def test_adapters_for_a_model_that_also_sees(tmp_path, settings, head):
    """Names are those of Gemma3ForConditionalGeneration, of which PEFT also adapts the half that sees. Names
    from before transformers 4.52, and those of the text half alone, are read too."""
    hf = dict(model_type="gemma3", text_config=tiny_hf("gemma3_text"), vision_config=SEEING)
    hf |= dict(mm_tokens_per_image=4, num_labels=3)
    config = transformers.AutoConfig.for_model(**hf)
    config.pad_token_id = config.text_config.pad_token_id = 0
    randomise(head.from_config(config)).save_pretrained(tmp_path / "base")
    task = {CAUSAL: "CAUSAL_LM", CLASSES: "SEQ_CLS"}.get(head, "FEATURE_EXTRACTION")
    peer = adapter_there(tmp_path, head, task_type=task, **settings)
    model = open_here(tmp_path)
    expected = outputs_there(peer)
    near(outputs_here(model), expected)
    save_lora(model, tmp_path / "ours", tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns of names that it does not find
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")
        again = peft.PeftModel.from_pretrained(open_there(tmp_path / "base", head), tmp_path / "ours")
    near(outputs_there(again), expected)
    ours = state_of(tmp_path / "ours")
    theirs = state_of(tmp_path / "theirs")
    assert ours.keys() == {key for key in theirs if "vision_tower" not in key}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for old in ("model.", "language_model.model."):
        renamed = {}
        for key, tensor in ours.items():
            renamed[key.replace("model.language_model.", old)] = tensor
        save_file(renamed, tmp_path / "ours" / "adapter_model.safetensors")
        if head is CAUSAL:
            near(outputs_here(open_here(tmp_path, "ours")), expected)
    near(outputs_here(merge_lora(model)), expected)


@pytest.mark.parametrize("family", ["llama", "phi3", "bert", "xlm-roberta", "modernbert"])
def test_a_classifier_is_known_without_a_task(tiny, tmp_path, family):
    save(tiny(family, pad_token_id=0), tmp_path / "plain")
    save(load(tmp_path / "plain", head=3, seed=1), tmp_path / "base")
    saved = {"bert": ["classifier", "pooler"], "llama": ["score"], "phi3": ["score"]}.get(
        family, ["classifier"]
    )
    if family == "modernbert":
        saved = ["classifier", "head"]
    names = {"bert": ["query"], "xlm-roberta": ["query"], "modernbert": ["Wqkv"], "phi3": ["qkv_proj"]}
    targets = names.get(family, ["q_proj"])
    peer = adapter_there(tmp_path, CLASSES, target_modules=targets, modules_to_save=saved)
    assert json.loads((tmp_path / "theirs/adapter_config.json").read_text())["task_type"] is None
    check(tmp_path, peer, CLASSES)


@pytest.mark.parametrize("task", ["SEQ_CLS", None])
def test_a_classifier_of_the_base_may_have_an_update(tiny, tmp_path, task):
    save(tiny("llama", pad_token_id=0), tmp_path / "plain")
    save(load(tmp_path / "plain", head=3, seed=1), tmp_path / "base")
    targets = ["q_proj", "score"] if task is None else ["q_proj"]
    check(tmp_path, adapter_there(tmp_path, CLASSES, target_modules=targets, task_type=task), CLASSES)


def test_a_pooler_that_nobody_uses_is_passed_over(tiny, tmp_path):
    hf = tiny_hf("bert", architectures=["BertModel"])
    new_of_kind("BertModel", hf).save_pretrained(tmp_path / "base")
    kind = transformers.AutoModel
    peer = adapter_there(tmp_path, kind, target_modules=["dense"], task_type="FEATURE_EXTRACTION")
    near(outputs_here(open_here(tmp_path)), outputs_there(peer))


REFUSED = {  # field -> settings that PEFT writes
    "init_lora_weights": dict(init_lora_weights="pissa"),
    "alora_invocation_tokens": dict(alora_invocation_tokens=[200, 5]),
    "lora_bias": dict(lora_bias=True),
    "trainable_token_indices": dict(trainable_token_indices=[1, 2]),
    "layer_replication": dict(layer_replication=[[0, 2], [0, 2]]),
    "lora_embedding": dict(target_modules=["q_proj", "embed_tokens"]),
    "adapts an embedding": dict(target_modules=["q_proj", "lm_head"], ensure_weight_tying=True),
    "task_type": dict(task_type="TOKEN_CLS"),
    "bias": dict(bias="lora_only"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_changes_a_result_and_is_not_done_is_refused_by_name(tiny, tmp_path, name):
    save(tiny("llama", attention_bias=True, tie_word_embeddings=True), tmp_path / "base")
    adapter_there(tmp_path, **dict(target_modules=["q_proj"], task_type="CAUSAL_LM") | REFUSED[name])
    with pytest.raises(ValueError, match=name):
        open_here(tmp_path)


NOT_DONE = {  # field -> a value with which it would change the result
    "megatron_config": {"sequence_parallel": True},
    "trainable_token_indices": {"embed_tokens": [1]},
    "alora_invocation_tokens": [1],
    "use_qalora": True,
    "monteclora_config": {"num_samples": 8},
    "layer_replication": [[0, 2], [0, 2]],
    "lora_bias": True,
    "target_parameters": ["mlp.experts.down_proj"],
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 3},
    "kasa_config": {"beta": 1e-4},
    "velora_config": {"num_groups": 4},
}


def test_every_field_of_peft_is_done_harmless_or_refused(tiny, tmp_path):
    """A new version of PEFT with a new field, task or way to start fails here, until lora.py knows it."""
    fields = {field.name: field for field in dataclasses.fields(peft.LoraConfig)}
    assert fields.keys() == KINDS.keys() | HARMLESS | NOT_DONE.keys()
    tested = {key for settings in SETTINGS.values() for key in settings}
    rest = {"peft_type", "task_type", "base_model_name_or_path", "revision", "bias", "r"}
    assert tested >= KINDS.keys() - rest
    save(tiny(), tmp_path / "base")
    peer = adapter_there(tmp_path, target_modules=ATTENTION, task_type="CAUSAL_LM")
    expected = outputs_there(peer)
    path = tmp_path / "theirs" / "adapter_config.json"
    usual = json.loads(path.read_text())
    _, words = typing.get_args(typing.get_type_hints(peft.LoraConfig)["init_lora_weights"])
    inits = {*typing.get_args(words), "pissa_niter_4"}
    assert len(inits) > 8
    refused = [*NOT_DONE.items()]
    refused += [("init_lora_weights", init) for init in inits.difference(INITS)]
    refused += [("bias", value) for value in ("all", "lora_only")]
    refused += [("task_type", task.value) for task in set(peft.TaskType).difference(TASKS.values())]
    refused += [("peft_type", kind.value) for kind in set(peft.PeftType) - {peft.PeftType.LORA}]
    for key, value in refused:
        path.write_text(json.dumps(usual | {key: value}))
        with pytest.raises(ValueError, match=f"{key} is"):
            open_here(tmp_path)
    harmless = dict.fromkeys(HARMLESS, {"any": "value"}) | {"inference_mode": True, "loftq_config": {}}
    for change in (harmless, *({"init_lora_weights": init} for init in INITS)):
        path.write_text(json.dumps(usual | change))
        near(outputs_here(open_here(tmp_path)), expected)


def test_a_converted_pissa_is_a_plain_adapter_of_twice_the_rank(tiny, tmp_path):
    save(tiny(), tmp_path / "base")
    base = open_there(tmp_path / "base")
    torch.manual_seed(0)
    peer = peft.get_peft_model(
        base, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    )
    peer.peft_config["default"].init_lora_weights = True
    peer.save_pretrained(tmp_path / "start")
    peer.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn(weight.shape) * 0.2)
    start = str(tmp_path / "start")
    peer.save_pretrained(tmp_path / "theirs", path_initial_model_for_weight_conversion=start)
    near(outputs_here(open_here(tmp_path)), outputs_there(peer))


# ------------------------------------------------------------------------------------------------ SmolLM2
REAL = {
    "all-linear rsLoRA": dict(target_modules="all-linear", use_rslora=True),
    "DoRA": dict(target_modules="all-linear", use_dora=True),
    "lm_head": dict(target_modules=["q_proj", "lm_head"]),
    "embeddings": dict(target_modules=ATTENTION, modules_to_save=["embed_tokens"]),
    "patterns": dict(
        target_modules=ATTENTION,
        alpha_pattern={"layers.1.self_attn.v_proj": 32, "o_proj": 3},
        rank_pattern={r"layers\.\d\.self_attn\.q_proj": 16, "layers.29.self_attn.k_proj": 2},
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_adapters_of_a_published_model(tmp_path, name):
    """The largest differences of a logit from PEFT's are 1e-6 to 4e-6 of the largest logit, in float32 and
    after 30 layers. PEFT's own merged model differs as much from its unmerged one."""
    folder = Path(os.environ.get("PARLOR_CHECKPOINTS", "nowhere"), "smollm2-135m-instruct").resolve()
    if not folder.is_dir():
        pytest.skip("PARLOR_CHECKPOINTS names no folder with this checkpoint")
    (tmp_path / "base").symlink_to(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    peer = adapter_there(tmp_path, task_type="CAUSAL_LM", size=0.1, **REAL[name])
    with torch.no_grad():
        for key, weight in peer.named_parameters():
            if "lora_" in key and "magnitude" not in key:
                weight.mul_(0.2)  # an update of the size of a trained one
    peer.save_pretrained(tmp_path / "theirs")
    here = lambda name: checkpoint.open(
        tmp_path / "base", lora=tmp_path / name, dtype=torch.float32, tokenizer=False
    )
    model = here("theirs").model
    save_lora(model, tmp_path / "ours", tmp_path / "base")
    again = here("ours").model
    base = open_there(folder)
    texts = [torch.tensor([tokenizer(text).input_ids]) for text in QUESTIONS]
    expected = [outputs_there(peer, text) for text in texts]
    assert adapters(merged := merge_lora(here("ours").model)) == []
    save(merged, tmp_path / "merged")
    reopened = open_there(tmp_path / "merged")
    ways = {  # each computes logits of a text
        "effect": lambda text: outputs_there(base, text),
        "unmerged": lambda text: outputs_here(model, text),
        "saved again": lambda text: outputs_here(again, text),
        "merged": lambda text: outputs_here(merged, text),
        "merged and saved": lambda text: outputs_there(reopened, text),
        "merged by PEFT": lambda text: outputs_there(peer, text),
    }
    largest = {}
    for way, logits in ways.items():
        if way == "merged by PEFT":
            peer = peer.merge_and_unload()
        pairs = zip(texts, expected)
        largest[way] = max((logits(text) - right).abs().max().item() for text, right in pairs)
    logit = max(right.abs().max().item() for right in expected)
    print(f"{name}: logit {logit:.1f}, " + ", ".join(f"{way} {value:.1e}" for way, value in largest.items()))
    assert largest.pop("effect") > 0.005 * logit
    del largest["merged by PEFT"]  # where it changes the head of a tied model, the embedding changes too
    assert max(largest.values()) < 5e-6 * logit
