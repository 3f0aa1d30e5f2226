"""Every family against golden files (made by make_golden.py with transformers), and mistakes that those
files would reveal; then reading and writing of config.json and tensor names."""

import dataclasses
import functools
import json

import pytest
import torch
from make_golden import FOLDER, TWINS, tensors, weight, write
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import families
import model as models
from attention import ALWAYS
from cache import KVCache
from families import FAMILIES, config_from_hf
from model import Transformer, load, save
from weights import shapes_only

GOLDEN = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
CLOSE = dict(rtol=2e-5, atol=2e-5)
goldens = pytest.mark.parametrize("name", GOLDEN)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@functools.cache
def checkpoint(name):
    """The config.json and the tensors of a golden file."""
    return GOLDEN[name]["config"], tensors(GOLDEN[name])


@pytest.fixture(scope="session")
def opened(tmp_path_factory):
    """The model of a golden file, read from a folder."""

    @functools.cache
    def opened(name, **options):
        folder = tmp_path_factory.mktemp(name)
        write(folder, *checkpoint(name))
        return load(folder, **options)

    return opened


def outputs(model, rows, left=False, cached=False, types=None):
    """Logits (hidden states for a bare model) of a padded batch without its padding, as one vector."""
    T = max(map(len, rows))
    padding = [[0] * (T - len(row)) for row in rows]
    ids = torch.tensor([pad + row if left else row + pad for row, pad in zip(rows, padding)])
    real = [[1] * len(row) for row in rows]
    mask = torch.tensor([pad + row if left else row + pad for row, pad in zip(real, padding)])
    positions, end = (mask.cumsum(1) - 1).clamp(min=0), mask * ALWAYS
    if cached:
        cache = KVCache(model.config, len(rows), slots=T)
        columns = (torch.split(x, 1, dim=1) for x in (ids, positions, end))
        hidden = torch.cat([model(*column, cache) for column in zip(*columns)], dim=1)
    else:
        numbers = [pad + row if left else row + pad for row, pad in zip(types or real, padding)]
        hidden = model(ids, positions, end, types=torch.tensor(numbers) if types else None)
    if model.config.head == "classes":
        return model.classify(hidden, end).flatten()
    texts = hidden if model.config.head == "none" else model.logits(hidden)
    return texts[mask > 0].flatten()


def expected(name):
    return torch.tensor(sum(GOLDEN[name]["expected"], []))


# ------------------------------------------------------------------------------------------------ goldens
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@goldens
def test_a_padded_batch_gives_what_transformers_gives_for_each_row(opened, name, left):
    assert_close(
        outputs(opened(name), GOLDEN[name]["ids"], left, types=GOLDEN[name].get("types")),
        expected(name),
        **CLOSE,
    )


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@goldens
def test_one_token_at_a_time_gives_the_same(opened, name, left):
    model = opened(name)
    if not model.config.causal:
        return
    # the frequencies of these depend on the text's length
    if (model.config.rope or {}).get("rope_type") not in ("dynamic", "longrope"):
        assert_close(outputs(model, GOLDEN[name]["ids"], left, cached=True), expected(name), **CLOSE)


def test_newer_names_of_a_checkpoint_that_also_sees_mean_the_same(opened, tmp_path):
    config, state = checkpoint("gemma3")
    newer = {"language_model.model": "model.language_model", "language_model.lm_head": "lm_head"}
    newer |= {"vision_tower": "model.vision_tower", "multi_modal_projector": "model.multi_modal_projector"}
    renamed = {families.rename(key, newer): tensor for key, tensor in state.items()}
    assert not renamed.keys() & state.keys()
    write(tmp_path, config, renamed)
    assert_close(outputs(load(tmp_path), GOLDEN["gemma3"]["ids"]), expected("gemma3"), **CLOSE)


@pytest.mark.parametrize("outer, tied", [({}, False), (dict(tie_word_embeddings=True), True)])
def test_a_model_that_also_sees_is_tied_as_its_whole_says(outer, tied):
    text = checkpoint("mistral3")[0]["text_config"] | dict(tie_word_embeddings=False)
    assert config_from_hf(dict(model_type="mistral3", text_config=text) | outer).tied == tied


def test_the_golden_files_are_of_every_family_and_set_every_field(opened):
    assert {golden["config"]["model_type"] for golden in GOLDEN.values()} == set(FAMILIES)
    configs = [opened(name).config for name in GOLDEN]
    for field in dataclasses.fields(families.Config):
        assert any(getattr(config, field.name) != field.default for config in configs), field.name


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_classes_that_do_not_exclude_each_other_are_refused_by_name(kind):
    hf = checkpoint("bert_classes")[0] | {"problem_type": kind}
    with pytest.raises(ValueError, match=f"problem_type is '{kind}'"):
        families.config_from_hf(hf)
    hf |= {"id2label": {"0": "A"}}
    assert families.config_from_hf(hf).labels == 1  # a single one is a sigmoid in any case
    assert "problem_type" not in families.with_head(families.config_from_hf(hf), 3).hf


# ------------------------------------------------------------------------------------------------ saving
def saved_state(folder):
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


def bare(config, state):
    """The checkpoint of the model without its head."""
    prefix = FAMILIES[config["model_type"]].prefix
    if not any(key.startswith(prefix) for key in state):
        return {key: tensor for key, tensor in state.items() if "pooler" not in key}
    inner = [key for key in state if key.startswith(prefix) and "pooler" not in key]
    return {key.removeprefix(prefix): state[key] for key in inner}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []


@pytest.mark.parametrize("shard_bytes", [models.SHARD_BYTES, 20_000], ids=["single", "sharded"])
@goldens
def test_saving_writes_the_tensors_that_were_read(opened, tmp_path, monkeypatch, name, shard_bytes):
    """If a family equals another, with the names of that one; for a bare model, without the pooler."""
    monkeypatch.setattr(models, "SHARD_BYTES", shard_bytes)
    config, state = checkpoint(name)
    save(opened(name), tmp_path)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_bytes == 20_000)
    if opened(name).config.head == "none":
        state = bare(config, state)
    assert_same(saved_state(tmp_path), TWINS[name](config, state)[1] if name in TWINS else state)
    again = load(tmp_path)
    assert again.config == opened(name).config
    assert_same(again.state_dict(), opened(name).state_dict())


@goldens
def test_a_model_without_head_is_saved_without_prefix_and_read_again(opened, tmp_path, name):
    config, state = checkpoint(name)
    config, state = TWINS[name](config, state)[:2] if name in TWINS else (config, state)
    save(opened(name, head="none"), tmp_path)
    assert_same(saved_state(tmp_path), bare(config | {"model_type": config["model_type"]}, state))
    kind = json.loads((tmp_path / "config.json").read_text())["architectures"]
    assert kind == [FAMILIES[config["model_type"]].stem + "Model"]
    assert_same(load(tmp_path).state_dict(), opened(name, head="none").state_dict())
    assert opened(name, head="none").config.head == load(tmp_path).config.head == "none"


# ------------------------------------------------------------------------------------------------ heads
@pytest.mark.parametrize("name", ["llama", "gemma3", "phi3", "bert", "xlm-roberta", "eurobert", "modernbert"])
def test_a_missing_classifier_is_an_error_or_made_from_a_seed(opened, tmp_path, name):
    write(tmp_path, *checkpoint(name))
    with pytest.raises(ValueError, match=r"(score|classifier|dense).* is missing"):
        load(tmp_path, head=2)
    first, again, other = (load(tmp_path, head=2, seed=seed) for seed in (1, 1, 2))
    assert_same(first.state_dict(), again.state_dict())
    fresh, differs = first.classifier.out.weight, other.classifier.out.weight
    assert fresh.shape == (2, 32) and not torch.equal(fresh, differs)
    assert fresh.abs().max() <= 2 * 32**-0.5 and 0.5 < fresh.std() * 32**0.5 < 1.5
    body = {k: tensor for k, tensor in first.state_dict().items() if not k.startswith("classifier.")}
    assert_same(body, opened(name, head="none").state_dict())
    save(first, tmp_path / "with")
    assert_same(load(tmp_path / "with").state_dict(), first.state_dict())
    assert load(tmp_path / "with").config == first.config


@pytest.mark.parametrize("name", [name for name in GOLDEN if "id2label" in GOLDEN[name]["config"]])
def test_a_classifier_of_another_number_of_classes_is_an_error(opened, name):
    labels = len(GOLDEN[name]["config"]["id2label"])
    with pytest.raises(ValueError, match=rf"has shape \({labels}.*\), but the config asks for \(5"):
        opened(name, head=5, seed=0)


def test_the_masked_language_head_of_modernbert_starts_its_classifier(tmp_path):
    config, state = checkpoint("modernbert")
    config = config | dict(architectures=["ModernBertForMaskedLM"])
    head = {"head.dense.weight": [32, 32], "head.norm.weight": [32], "decoder.bias": [40]}
    state = {f"model.{key}": tensor for key, tensor in state.items()}
    write(tmp_path, config, state | {key: weight(key, shape) for key, shape in head.items()})
    with pytest.raises(ValueError, match=r"classifier\.weight is missing \(and 1 more"):
        load(tmp_path, head=3)
    model = load(tmp_path, head=3, seed=0)
    for ours, theirs in (("dense", "head.dense.weight"), ("dense_norm", "head.norm.weight")):
        assert torch.equal(getattr(model.classifier, ours).weight, weight(theirs, head[theirs]))
    assert load(tmp_path).config.head == "none"


# ------------------------------------------------------------------------------------------------ names
@pytest.mark.parametrize("name", [name for name in GOLDEN if "text_config" not in GOLDEN[name]["config"]])
def test_a_bare_models_file_reads_the_same(opened, tmp_path, name):
    config, state = checkpoint(name)
    write(tmp_path, config, bare(config, state))
    assert_same(load(tmp_path, head="none").state_dict(), opened(name, head="none").state_dict())


def test_a_head_in_a_first_file_of_its_own_is_read(opened, tmp_path):
    """The file was once taken for a bare model's, and so were the other files."""
    config, state = checkpoint("llama")
    save_file({"lm_head.weight": state["lm_head.weight"]}, tmp_path / "1.safetensors")
    write(tmp_path, config, {k: tensor for k, tensor in state.items() if k != "lm_head.weight"})
    names = {key: "model.safetensors" for key in state} | {"lm_head.weight": "1.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert_same(load(tmp_path).state_dict(), opened("llama").state_dict())


def test_one_file_beside_an_index_that_does_not_name_it_holds_the_weights(opened, tmp_path):
    config, state = checkpoint("llama")
    write(tmp_path, config, state)
    save_file({key: tensor + 1 for key, tensor in state.items()}, tmp_path / "1.safetensors")
    names = dict.fromkeys(state, "1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert_same(load(tmp_path).state_dict(), opened("llama").state_dict())


@pytest.mark.parametrize("name", ["bert_classes", "xlm-roberta", "llama"])
def test_what_is_computed_here_may_be_stored(opened, tmp_path, name):
    config, state = checkpoint(name)
    stem = {"bert_classes": "bert.embeddings.", "xlm-roberta": "embeddings."}.get(name)
    more = {"model.layers.0.self_attn.rotary_emb.cos_cached": torch.zeros(4)}
    if stem:
        more = {stem + key: torch.zeros(1, 9, dtype=int) for key in ("token_type_ids", "position_ids")}
    write(tmp_path, config, state | more)
    assert_same(load(tmp_path).state_dict(), opened(name).state_dict())


def test_a_tied_model_may_store_its_head_alone(opened, tmp_path):
    config, state = checkpoint("qwen2")
    state = {key.replace("model.embed_tokens", "lm_head"): tensor for key, tensor in state.items()}
    assert "lm_head.weight" in state
    write(tmp_path, config, state)
    model = load(tmp_path)
    assert_same(model.state_dict(), opened("qwen2").state_dict())
    assert model.head.weight is model.embed.weight


def test_weights_of_several_dtypes_get_that_of_the_embedding(opened, tmp_path):
    config, state = checkpoint("qwen3")
    halves = {key: tensor if "norm" in key else tensor.bfloat16() for key, tensor in state.items()}
    write(tmp_path, config, halves)
    model = load(tmp_path)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    model.logits(model(torch.tensor(GOLDEN["qwen3"]["ids"][:1])))
    write(tmp_path, config, state | {"lm_head.weight": state["lm_head.weight"].bfloat16()})
    assert {weight.dtype for weight in load(tmp_path).parameters()} == {torch.float32}


def test_old_names_of_bert_norms_are_read(opened, tmp_path):
    config, state = checkpoint("bert_classes")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {families.rename(key, old): tensor for key, tensor in state.items()}
    assert len(renamed.keys() - state.keys()) == 10
    write(tmp_path, config, renamed)
    assert_same(load(tmp_path).state_dict(), opened("bert_classes").state_dict())


@pytest.mark.parametrize(
    "name, stray",
    [
        ("bert", "embeddings.position_ids"),
        ("bert_classes", "bert.embeddings.position_ids"),
        ("bert_classes", "cls.predictions.transform.dense.weight"),
        ("xlm-roberta_classes", "roberta.pooler.dense.weight"),
        ("xlm-roberta_classes", "lm_head.dense.weight"),
        ("modernbert_cls", "decoder.bias"),
        ("llama", "model.layers.1.self_attn.rotary_emb.inv_freq"),
    ],
)
def test_tensors_that_are_no_part_of_a_model_here_are_passed_over(opened, tmp_path, name, stray):
    config, state = checkpoint(name)
    write(tmp_path, config, state | {stray: torch.ones(3)})
    assert_same(load(tmp_path).state_dict(), opened(name).state_dict())


@pytest.mark.parametrize(
    "name, key",
    [
        *((name, next(key for key in checkpoint(name)[1] if ".1." in key)) for name in GOLDEN),
        ("llama", "lm_head.bias"),
        ("llama_classes", "score.bias"),
        ("modernbert_mean", "head.dense.bias"),
    ],
)
def test_a_tensor_that_the_model_lacks_is_named(tmp_path, name, key):
    config, state = checkpoint(name)
    key = key.replace(".1.", ".7.")
    write(tmp_path, config, state | {key: torch.ones(3)})
    stray = key.replace("language_model.", "")
    with pytest.raises(ValueError, match=f"{stray} .*is not part of this model"):
        load(tmp_path)


# ------------------------------------------------------------------------------------------------ config.json
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)
LINEAR = {"rope_type": "linear", "factor": 8.0}
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 3}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}


def rotary(full, sliding=None):
    """How transformers 5 states a base, or a base and scaling, for full and sliding layers."""
    full, sliding = (rope if isinstance(rope, dict) else {"rope_theta": rope} for rope in (full, sliding))
    full, sliding = ({"rope_type": "default"} | rope for rope in (full, sliding))
    if sliding["rope_theta"] is None:
        return {"rope_parameters": full}
    return {"rope_parameters": {"full_attention": full, "sliding_attention": sliding}}


def kinds(letters):
    return {"layer_types": [{"f": "full_attention", "s": "sliding_attention"}[letter] for letter in letters]}


DIALECTS = [  # family, older keys, newer keys
    ("llama", dict(), rotary(1e4)),
    ("llama", dict(rope_theta=5e5, rope_scaling=LLAMA3), rotary(LLAMA3 | {"rope_theta": 5e5})),
    ("llama", dict(rope_scaling={"type": "linear", "factor": 8.0}), rotary(LINEAR | {"rope_theta": 1e4})),
    (
        "llama",
        dict(rope_scaling={"type": "dynamic", "factor": 8.0}),
        rotary(LINEAR | {"rope_type": "dynamic", "rope_theta": 1e4}),
    ),
    ("llama", dict(head_dim=8, num_key_value_heads=4), dict(head_dim=None, num_key_value_heads=None)),
    ("mistral", dict(sliding_window=None), dict(sliding_window=None) | kinds("ssssss")),
    ("mistral", dict(rope_theta=1e6), rotary(1e6) | dict(sliding_window=4096) | kinds("ssssss")),
    ("qwen2", dict(use_sliding_window=False, sliding_window=8, max_window_layers=3), kinds("ffffff")),
    (
        "qwen2",
        dict(use_sliding_window=True, sliding_window=8, max_window_layers=4),
        dict(use_sliding_window=True, sliding_window=8) | kinds("ffffss"),
    ),
    (
        "qwen3",
        dict(use_sliding_window=True, sliding_window=8, max_window_layers=0, rope_theta=1e6),
        rotary(1e6) | dict(use_sliding_window=True, sliding_window=8) | kinds("ssssss"),
    ),
    ("smollm3", dict(), dict(no_rope_layers=[1, 1, 1, 0, 1, 1]) | rotary(2e6) | kinds("ffffff")),
    ("smollm3", dict(no_rope_layer_interval=2), dict(no_rope_layers=[1, 0] * 3)),
    ("gemma", dict(hidden_act="gelu"), dict(hidden_activation="gelu_pytorch_tanh")),
    ("gemma2", dict(sliding_window=8), rotary(1e4) | dict(sliding_window=8) | kinds("sfsfsf")),
    ("gemma3_text", dict(), rotary(1e6, 1e4) | kinds("sssssf")),
    (
        "gemma3_text",
        dict(rope_theta=2e6, rope_local_base_freq=500.0, rope_scaling=LINEAR, sliding_window_pattern=2),
        rotary(LINEAR | {"rope_theta": 2e6}, 500.0) | kinds("sfsfsf"),
    ),
    ("olmo3", dict(), rotary(5e5, 5e5) | kinds("sssfss") | dict(sliding_window=4096)),
    ("olmo3", dict(rope_theta=1e4, rope_scaling=YARN), rotary(YARN | {"rope_theta": 1e4}, 1e4)),
    ("phi3", dict(sliding_window=8), rotary(1e4) | dict(sliding_window=8)),
    (
        "modernbert",
        dict(global_rope_theta=5e4, local_rope_theta=100.0, global_attn_every_n_layers=4),
        rotary(5e4, 100.0) | kinds("fsssfs"),
    ),
    ("modernbert", dict(norm_eps=1e-3), dict(norm_eps=1e-3, layer_norm_eps=1e-6)),
    ("gemma2", dict(hidden_act="gelu"), dict(hidden_activation="gelu_pytorch_tanh")),
    ("modernbert", dict(), rotary(160_000.0, 1e4) | kinds("fssfss")),
]


def geometry(family, vocab=300, dim=32, mlp=48, layers=6, heads=4, kv_heads=None, **more):
    """A config.json with little more than sizes."""
    hf = dict(model_type=family, vocab_size=vocab, hidden_size=dim, intermediate_size=mlp)
    hf |= dict(num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=64)
    return hf | ({"num_key_value_heads": kv_heads} if kv_heads else {}) | more


@pytest.mark.parametrize("family, older, newer", DIALECTS)
def test_older_and_newer_words_mean_the_same(family, older, newer):
    older, newer = (geometry(family, **{"num_key_value_heads": 2} | words) for words in (older, newer))
    assert config_from_hf(older) == config_from_hf(newer)


def test_a_file_that_states_little_has_the_familys_defaults():
    """Local layers of such a Gemma 3 file once got the global rotary base."""
    text = dict(
        model_type="gemma3_text",
        hidden_size=2560,
        intermediate_size=10_240,
        num_hidden_layers=34,
        rope_scaling=LINEAR,
        sliding_window=1024,
    )
    config = config_from_hf(dict(model_type="gemma3", text_config=text, vision_config={"hidden_size": 1152}))
    assert (config.vocab, config.dim, config.mlp_dim, config.layers) == (262_208, 2560, 10_240, 34)
    assert (config.heads, config.kv_heads, config.head_dim, config.scale) == (8, 4, 256, 256**-0.5)
    assert config.rope == LINEAR | {"rope_theta": 1e6}
    assert config.local_rope == {"rope_type": "default", "rope_theta": 1e4}
    assert config.sliding == tuple(i % 6 != 5 for i in range(34)) and config.reach == 1023
    assert (config.softcap, config.logit_softcap, config.tied, config.head) == (None, None, True, "lm")
    assert (config.embed_scale, config.activation, config.eps) == (2560**0.5, "gelu_pytorch_tanh", 1e-6)


PUBLISHED = {  # parameters; for encoders, without pooler and head
    "Llama-3.2-1B": (1_235_814_400, "llama", 128_256, 2048, 8192, 16, 32, 8, dict(tie_word_embeddings=True)),
    "Qwen2.5-0.5B": (494_032_768, "qwen2", 151_936, 896, 4864, 24, 14, 2, dict(tie_word_embeddings=True)),
    "Qwen3.5-0.8B": (  # by transformers' own class
        *(752_393_024, "qwen3_5_text", 248_320, 1024, 3584, 24, 8, 2),
        dict(tie_word_embeddings=True, linear_num_value_heads=16),
    ),
    "SmolLM3-3B": (3_075_098_624, "smollm3", 128_256, 2048, 11_008, 36, 16, 4, {}),
    "granite-3.1-2b": (
        *(2_533_531_648, "granite", 49_155, 2048, 8192, 40, 32, 8),
        dict(tie_word_embeddings=True, embedding_multiplier=12.0),
    ),
    "OLMo-2-1B": (1_484_916_736, "olmo2", 100_352, 2048, 8192, 16, 16, None, {}),
    "Qwen3-Embedding-0.6B": (
        *(595_776_512, "qwen3", 151_669, 1024, 3072, 28, 16, 8),
        dict(tie_word_embeddings=True),
    ),
    "Skywork-Reward-V2-Qwen3-0.6B": (  # the model and one row of scores
        *(596_050_944, "qwen3", 151_936, 1024, 3072, 28, 16, 8),
        dict(architectures=["Qwen3ForSequenceClassification"], num_labels=1),
    ),
    "gemma-2b": (2_506_172_416, "gemma", 256_000, 2048, 16_384, 18, 8, 1, {}),
    "gemma-2-2b": (2_614_341_888, "gemma2", 256_000, 2304, 9216, 26, 8, 4, {}),
    "gemma-3-270m": (268_098_176, "gemma3_text", 262_144, 640, 2048, 18, 4, 1, {}),
    "Phi-3-mini": (3_821_079_552, "phi3", 32_064, 3072, 8192, 32, 32, 32, {}),
    "Phi-4-mini": (
        *(3_836_021_760, "phi3", 200_064, 3072, 8192, 32, 24, 8),
        dict(partial_rotary_factor=0.75, tie_word_embeddings=True),
    ),
    "Ministral-3-3B": (
        *(3_429_006_336, "ministral3", 131_072, 3072, 9216, 26, 32, 8),
        dict(tie_word_embeddings=True, rope_parameters=YARN),
    ),
    "Mistral-7B": (7_241_732_096, "mistral", 32_000, 4096, 14_336, 32, 32, 8, {}),
    "internlm2_5-1_8b": (1_889_110_016, "internlm2", 92_544, 2048, 8192, 24, 16, 8, dict(bias=False)),
    "MiniLM-L6": (22_565_376, "bert", 30_522, 384, 1536, 6, 12, None, dict(max_position_embeddings=512)),
    "bge-m3": (
        *(566_705_152, "xlm-roberta", 250_002, 1024, 4096, 24, 16, None),
        dict(max_position_embeddings=8194, type_vocab_size=1),
    ),
    "Ettin-encoder-17m": (16_797_440, "modernbert", 50_368, 256, 384, 7, 4, None, {}),
    "gte-modernbert-base": (149_014_272, "modernbert", 50_368, 768, 1152, 22, 12, None, {}),
    "ModernBERT-base": (149_014_272, "modernbert", 50_368, 768, 1152, 22, 12, None, {}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_as_many_parameters_as_published(name):
    count, *sizes, more = PUBLISHED[name]
    with shapes_only():
        model = Transformer(config_from_hf(geometry(*sizes, **more)))
    assert sum(weight.numel() for weight in model.parameters()) == count


@pytest.mark.parametrize(
    "family, changes, message",
    [
        ("phi3", dict(rope_scaling={"type": "longrope"}), "rope_scaling: short_factor is missing"),
        ("phi3", dict(rope_scaling=YARN), "rope_scaling: rope_type is 'yarn'"),
        ("phi3", dict(rope_scaling=LONGROPE), "long_factor has 3 numbers, expected 4"),
        ("phi3", dict(partial_rotary_factor=0.9), "7 numbers .*of head_dim 8 cannot be rotated"),
        ("gemma3_text", rotary(1e6, {"rope_type": "su", "rope_theta": 1e4}), "sliding_attention: .*'su'"),
        ("llama", rotary({"rope_theta": 1e4, "partial_rotary_factor": 0.5}), "partial_rotary_factor is 0.5"),
        ("llama", dict(rope_scaling={"rope_type": "linear"}), "rope_scaling: factor is missing"),
        ("llama", dict(rope_scaling={"type": "yarn", "factor": 4.0}), "original_max.* is missing"),
        ("qwen3", dict(layer_types=["full_attention", "linear_attention"] * 3), "linear_attention"),
        ("qwen3", kinds("fff"), "layer_types names 3 of 6 layers"),
        ("bert", dict(is_decoder=True), "is_decoder is True, expected False"),
        ("bert", dict(position_embedding_type="relative_key"), "'relative_key', expected 'absolute'"),
        ("qwen3", dict(use_bidirectional_attention=True), "use_bidirectional_attention is True"),
        ("modernbert", dict(vocab_size=None), "vocab_size is missing"),
        ("qwen3_5_text", dict(linear_num_value_heads=3, linear_num_key_heads=2), "is not a multiple of"),
        ("qwen3_5_text", dict(layer_types=["full_attention"] * 5), "layer_types names 5 of 6 layers"),
        ("qwen3_5_text", kinds("sfffff"), "layer_types is .*'sliding_attention'"),
        ("qwen3_5_text", dict(hidden_act="gelu"), "hidden_act is 'gelu', expected 'silu'"),
        (
            "qwen3_5_text",
            dict(rope_scaling={"type": "dynamic", "factor": 2.0}),
            "rope_type|type is 'dynamic'",
        ),
        (
            "llama",
            dict(model_type="qwen3_5_moe"),
            "model_type is 'qwen3_5_moe', expected a family without experts",
        ),
        (
            "llama",
            dict(model_type="qwen3_next"),
            "model_type is 'qwen3_next', expected a family without experts",
        ),
        ("llama", dict(model_type="gpt2"), "'gpt2', expected 'llama' or 'mistral' or 'qwen2'"),
        ("llama", dict(num_key_value_heads=3), "4 heads are not a multiple of 3"),
        ("llama", dict(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
        ("llama", dict(quantization_config=4), "quantization_config is 4, expected an object"),
        ("llama", dict(residual_multiplier=0.22), "residual_multiplier is 0.22"),
        ("granitemoehybrid", dict(layer_types=["attention"] * 6), "num_local_experts is 8, expected 0"),
        ("granitemoehybrid", dict(num_local_experts=0), "layer_types is .'mamba'.*, expected a list"),
        ("granitemoehybrid", dict(num_local_experts=0, layer_types=["mamba"] * 6), "layer_types is "),
        ("ministral3", dict(), "rope_type is 'default', expected 'yarn'"),
        ("ministral3", dict(sliding_window=8), "sliding_window is 8, expected None"),
        ("mistral3", dict(text_config={"model_type": "mistral4"}), "model_type is 'mistral4'"),
        ("llama", rotary(YARN | {"llama_4_scaling_beta": 0.1}), "llama_4_scaling_beta is 0.1"),
        ("llama", dict(no_rope_layers=[1] * 6), "no_rope_layers is .*, expected None"),
        ("smollm3", dict(no_rope_layers=[1] * 5), "no_rope_layers names 5 of 6 layers"),
        ("smollm3", dict(use_sliding_window=True), "use_sliding_window is True, expected False"),
        ("smollm3", kinds("ffffss"), "layer_types is .*'sliding_attention'"),
        ("llama", dict(hidden_act="relu6"), "hidden_act is 'relu6', expected 'silu' or 'gelu'"),
    ],
)
def test_what_is_not_supported_is_named(family, changes, message):
    with pytest.raises(ValueError, match=f"^here: .*{message}"):
        config_from_hf(geometry(family, **changes), "here")
