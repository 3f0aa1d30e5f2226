"""Model folders of other people: whatever their files hold, they load or end in an error that names the file.

Each table lists bad values by key. The error is a ValueError, or a FileNotFoundError for a file that is not
there, and its message names the file and the key. A pipe, a device or a folder in place of a file is an error
at once, and no size takes memory or time that the files do not fill."""

import contextlib
import json
import os
import re
import resource
import time
from functools import partial
from pathlib import Path

import pytest
import tokenizers
import torch
from conftest import ENCODERS, SHAPES, tiny_hf, tiny_model
from safetensors.torch import load_file, save_file

import checkpoint
import dequantize
import embed
import families
import formats
import lora
import model as models
import rotary
from families import config_from_hf
from formats import FORMATS
from tests.chats import byte_tokenizer
from tests.embedders import dense, modules, open_embedder, words, write
from weights import shapes_only, write_tensors

pytestmark = pytest.mark.usefixtures("at_most_20_seconds")

NAN, INFINITY, HUGE = float("nan"), float("inf"), 10**400
NO_SIZE = ["32", 0, -1, 1.5, 32.0, True, [], [32], {}, 2**31 + 1, HUGE, INFINITY, NAN]
NO_NUMBER = ["1", -1.0, True, [], [0.5], {}, NAN, INFINITY, -INFINITY, HUGE]
NO_POSITIVE = [*NO_NUMBER, 0, 0.0]
NO_FLAG = [1, 0, "true", [], {}, NAN]
NO_TEXT = [1, True, ["a"], {"a": "b"}, NAN]
NO_OBJECT = [1, True, "{}", [], NAN]
NO_TEXTS = [1, True, "a", {}, [1], [None], [["a"]]]


def refused(call, *named):
    """Call a function that must end in a ValueError or a FileNotFoundError which names these words."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        call()
    assert type(caught.value) in (ValueError, FileNotFoundError)
    assert len(str(caught.value)) < 1000
    for word in named:
        assert word in str(caught.value)
    return str(caught.value)


def rows(tables):
    """(name, key, values) of tables of bad values by key, by name."""
    return [(name, key, values) for name, table in tables.items() for key, values in table.items()]


def set_key(path, key, value):
    write(path, json.loads(path.read_text()) | {key: value})


# ------------------------------------------------------------------------------------------------ config.json
CONFIG = {  # family -> key -> values
    "llama": {
        "model_type": [None, 1, True, [], ["llama"], {}, "", "gpt2"],
        **dict.fromkeys(["vocab_size", "hidden_size", "intermediate_size"], [*NO_SIZE, None]),
        "num_hidden_layers": [*NO_SIZE, None, 100_000],
        "num_attention_heads": [*NO_SIZE, None],
        "num_key_value_heads": NO_SIZE,
        "head_dim": [*NO_SIZE, 5],
        "max_position_embeddings": NO_SIZE,
        "rms_norm_eps": [*NO_NUMBER, 2],
        "rope_theta": NO_POSITIVE,
        "hidden_act": [*NO_TEXT, "relu6", ""],
        **dict.fromkeys(["attention_bias", "mlp_bias", "tie_word_embeddings"], NO_FLAG),
        "architectures": NO_TEXTS,
        "rope_scaling": NO_OBJECT,
        "rope_parameters": NO_OBJECT,
        "quantization_config": [1, "int8", []],
        "partial_rotary_factor": [0.5, "1", True, [], NAN],
        "pad_token_id": ["0", -2, 1.5, True, [], HUGE],
    },
    "mistral": {"sliding_window": ["4", -1, 1.5, True, [], {}, HUGE, NAN]},
    "qwen3": {
        "use_sliding_window": NO_FLAG,
        "max_window_layers": ["4", -1, 1.5, True, [], HUGE],
        "layer_types": [
            1,
            "full_attention",
            {},
            [1],
            [None],
            [[]],
            ["linear_attention"] * 2,
            ["full_attention"],
        ],
    },
    "smollm3": {
        "no_rope_layers": [1, "11", [1], [1, 2], [None, 1], [1, 1, 1]],
        "no_rope_layer_interval": [*NO_SIZE, None],
        "use_sliding_window": [True, 1, "true", []],
        "layer_types": [["sliding_attention"] * 2],
    },
    "granite": dict.fromkeys(families.MULTIPLIERS.split(), [*NO_POSITIVE, None]),
    "phi3": {
        "partial_rotary_factor": [-0.5, 0, 0.1, 1.5, "1", True, [], NAN],
        "original_max_position_embeddings": NO_SIZE,
    },
    "granitemoehybrid": {
        "shared_intermediate_size": NO_SIZE,
        "num_local_experts": [1, "0"],
        "position_embedding_type": ["absolute", 1],
        "layer_types": [["mamba", "attention"], "attention"],
    },
    "gemma": {"hidden_act": [None]},
    "gemma2": {
        "query_pre_attn_scalar": [*NO_POSITIVE, None],
        "attn_logit_softcapping": NO_POSITIVE,
        "final_logit_softcapping": NO_POSITIVE,
    },
    "gemma3_text": {"sliding_window_pattern": [*NO_SIZE, None], "rope_local_base_freq": NO_POSITIVE},
    "bert": {
        "layer_norm_eps": NO_NUMBER,
        "type_vocab_size": NO_SIZE,
        "max_position_embeddings": [None],
        "head_dim": [0],
        "position_embedding_type": [1, [], "relative_key"],
        "is_decoder": [True, "no", []],
        "id2label": NO_OBJECT,
        "num_labels": NO_SIZE,
    },
    "xlm-roberta": {"pad_token_id": [None, "1", -2, True, []]},
    "eurobert": {"classifier_pooling": [*NO_TEXT, None, "cls"], "clf_pooling": ["mean"]},
    "modernbert": {
        "norm_eps": NO_NUMBER,
        **dict.fromkeys(["norm_bias", "classifier_bias"], NO_FLAG),
        "global_attn_every_n_layers": [*NO_SIZE, None],
        "local_attention": ["4", -1, 1.5, True, [], HUGE],
        **dict.fromkeys(["global_rope_theta", "local_rope_theta"], NO_POSITIVE),
        "classifier_pooling": [*NO_TEXT, "max"],
        "classifier_activation": [*NO_TEXT, "swish"],
        "hidden_activation": [*NO_TEXT, "relu6"],
    },
}


@pytest.mark.parametrize("family, key, values", rows(CONFIG))
def test_a_field_of_a_config_that_is_of_the_wrong_kind_or_range_is_named(family, key, values):
    for value in values:
        hf = tiny_hf(family, **{key: value})
        refused(partial(config_from_hf, hf, "here/config.json"), "here/config.json", key)


LLAMA3 = {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
ROPES = {
    "rope_type": [1, True, [], ["linear"], {"a": 1}, "su"],
    "type": [1, True, [], "proportional"],
    "factor": [*NO_POSITIVE, None],
    "rope_theta": NO_POSITIVE,
    "low_freq_factor": [*NO_POSITIVE, None, 4, 5],
    "high_freq_factor": [*NO_POSITIVE, None, 1],
    "original_max_position_embeddings": [*NO_SIZE, None],
    "partial_rotary_factor": [0.5, "1", True, NAN],
    **dict.fromkeys(["attention_factor", "beta_fast", "beta_slow"], NO_POSITIVE),
    **dict.fromkeys(["mscale", "mscale_all_dim"], NO_NUMBER),
    "truncate": NO_FLAG,
    **dict.fromkeys(["short_factor", "long_factor"], [1, "x", {}, [0], ["1"], [True], [NAN]]),
}
DIALECTS = ["rope_scaling", "rope_parameters", "full_attention", "sliding_attention"]


@pytest.mark.parametrize("key", ROPES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_field_of_a_rotary_scaling_that_is_of_the_wrong_kind_or_range_is_named(dialect, key):
    for value in ROPES[key]:
        rope = {"rope_type": "llama3", "factor": 8.0, **LLAMA3, key: value}
        hf = tiny_hf("llama", **{dialect: rope})
        if dialect.endswith("attention"):
            good = {"rope_type": "default", "rope_theta": 1e4}
            both = {"full_attention": good, "sliding_attention": good}
            hf = tiny_hf("gemma3_text", rope_parameters=both | {dialect: rope})
        call = partial(config_from_hf, hf, "here/config.json")
        refused(call, "here/config.json", dialect, key.split("_")[0])


@pytest.mark.parametrize(
    "family, changes, named",
    [
        ("llama", dict(num_attention_heads=64), "head_dim"),  # more heads than numbers to share
        ("bert", dict(num_attention_heads=64), "head_dim"),
        ("llama", dict(hidden_size=36), "head_dim"),  # 9 numbers per head cannot be rotated in pairs
        ("llama", dict(head_dim=2, rope_scaling={"type": "dynamic", "factor": 2.0}), "head_dim"),
        ("llama", dict(rope_scaling=YARN | {"original_max_position_embeddings": 1}), "original_max"),
        ("llama", dict(rope_scaling=YARN, rope_theta=1), "rope_theta"),
        (
            "llama",
            dict(max_position_embeddings=None, rope_scaling={"type": "dynamic", "factor": 2.0}),
            "max_pos",
        ),
        (
            "gemma3_text",
            dict(rope_parameters={"full_attention": 5, "sliding_attention": {}}),
            "full_attention",
        ),
        (
            "gemma3_text",
            dict(rope_parameters={"full_attention": [], "sliding_attention": 5}),
            "rope_parameters",
        ),
    ],
)
def test_fields_that_do_not_fit_each_other_are_named(family, changes, named):
    refused(lambda: config_from_hf(tiny_hf(family, **changes), "here/config.json"), "here/config.json", named)


@pytest.mark.parametrize("value", [None, 1, True, "x", [], [1]])
def test_a_config_that_is_no_object_is_an_error(value):
    refused(lambda: config_from_hf(value, "here/config.json"), "here/config.json")
    if value is not None:
        refused(
            lambda: config_from_hf({"model_type": "gemma3", "text_config": value}, "here/config.json"),
            "text_config",
        )


def test_the_text_half_of_a_config_is_checked_as_a_whole_one_is():
    text = tiny_hf("gemma3_text")
    outer = {"model_type": "gemma3", "text_config": text}
    config_from_hf(outer)
    bad = {"hidden_size": "32", "sliding_window_pattern": 0, "quantization_config": "fp8"}
    for key, value in bad.items():
        refused(partial(config_from_hf, outer | {"text_config": text | {key: value}}), "config.json", key)
    refused(partial(config_from_hf, outer | {"quantization_config": "fp8"}), "quantization_config")
    refused(partial(config_from_hf, tiny_hf(model_type="internlm2", bias="yes")), "bias")


ODD = [None, True, 0, -1, 3, 2**20, 2**64, HUGE, INFINITY, NAN, 0.5, "", "32", [], [None], {}, {"a": 1}, [[]]]
ODD += [{"rope_type": "dynamic"}, {"full_attention": 5, "a": {}}, ["full_attention"] * 2]


@pytest.mark.parametrize("family", [*SHAPES, *ENCODERS])
def test_any_value_under_any_key_gives_a_model_or_an_error_that_names_the_file(family):
    kept = 0
    for key in families.KINDS:
        for value in ODD:
            hf = tiny_hf(family) | {key: value}
            try:
                config = config_from_hf(hf, "here/config.json")
            except ValueError as error:
                assert "here/config.json" in str(error)
                continue
            kept += 1
            if value == 2**20:  # a size that torch can count
                config.layers = min(config.layers, 2)
                with shapes_only():
                    models.Transformer(config)
    assert kept > 100


READERS = {  # the names of what was read from a file
    families: ("hf", "settings"),
    rotary: ("given", "rope"),
    lora: ("config",),
    embed: ("config", "settings", "module"),
    dequantize: ("settings", "state"),
}
WRITTEN = {"in_features", "label2id"}  # by load_dense's own kind; only written


@pytest.mark.parametrize("module", READERS, ids=lambda module: module.__name__)
def test_every_key_that_is_read_from_a_file_has_a_kind(module):
    """So that nobody reads a new one without saying what it may hold."""
    owners = "|".join(READERS[module])
    source = Path(module.__file__).read_text()
    read = {*re.findall(rf'\b(?:{owners})(?:\.get\(|\[)"(\w+)"', source)}
    assert len(read) > 3 and read - {*module.KINDS} <= WRITTEN


PUBLISHED = [  # odd values that published files do have
    ("llama", dict(pad_token_id=-1)),
    ("llama", dict(max_position_embeddings=10_485_760, rope_theta=3_580_165_449.0)),
    ("llama", dict(rope_theta=10_000, rms_norm_eps=1e-05, head_dim=None, attention_bias=None)),
    ("llama", dict(id2label={"0": 0}, num_labels=1, architectures=["LlamaForSequenceClassification"])),
    ("llama", dict(hidden_size=8, num_key_value_heads=4)),  # a head of 2 numbers, in tiny models for tests
    ("llama", dict(vocab_size=1_048_576, intermediate_size=131_072, num_hidden_layers=126)),
    ("llama", dict(partial_rotary_factor=1, quantization_config=None, rope_scaling=None)),
    ("mistral", dict(sliding_window=None)),
    ("qwen2", dict(sliding_window=131_072, max_window_layers=28, use_sliding_window=False)),
    ("gemma", dict(hidden_activation=None)),
    ("gemma2", dict(query_pre_attn_scalar=224, attn_logit_softcapping=None, cache_implementation="hybrid")),
    ("bert", dict(layer_norm_eps=1e-12, position_embedding_type="absolute", is_decoder=False)),
    ("modernbert", dict(layer_norm_eps=1e-05, classifier_pooling="mean")),
    ("eurobert", dict(clf_pooling="late", rope_scaling=None, rope_theta=250_000, head_dim=8)),
    (
        "smollm3",
        dict(
            no_rope_layers=[1, 0],
            use_sliding_window=False,
            sliding_window=None,
            max_window_layers=28,
            layer_types=["full_attention"] * 2,
        ),
    ),
    (
        "granitemoehybrid",
        dict(
            position_embedding_type="rope",
            layer_types=["attention"] * 2,
            rope_scaling=None,
            mamba_d_head="auto",
            time_step_limit=[0.0, {"__float__": "Infinity"}],
        ),
    ),
    (
        "gemma3_text",
        dict(
            use_bidirectional_attention=True,
            _sliding_window_pattern=6,
            layer_types=["sliding_attention", "full_attention"],
        ),
    ),
    ("olmo3", dict(rope_scaling=YARN | dict(attention_factor=1.2079, beta_fast=32.0, beta_slow=1.0))),
    (
        "ministral3",
        dict(
            sliding_window=None,
            rope_parameters=YARN
            | dict(
                type="yarn",
                max_position_embeddings=262_144,
                llama_4_scaling_beta=0.1,
                mscale=1.0,
                mscale_all_dim=1.0,
                rope_theta=1e8,
            ),
        ),
    ),
    (
        "phi3",
        dict(
            sliding_window=262_144,
            embd_pdrop=0.0,
            rope_scaling={"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [1, 2.5]},
        ),
    ),
]


@pytest.mark.parametrize("family, changes", PUBLISHED)
def test_what_published_files_hold_is_no_error(family, changes):
    config_from_hf(tiny_hf(family, **changes))


# ------------------------------------------------------------------------------------------------ folders
MESSAGES = [{"role": "user", "content": "hi"}]


def open_chat(folder):
    return checkpoint.open(folder).tokenizer.prompt(MESSAGES)


def open_model(folder):
    return checkpoint.open(folder, tokenizer=False).model


def open_vectors(folder):
    return open_embedder(folder).embed(["a b c", "red"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four folders to copy: a chat model, one in shards, an adapter, and an embedder."""
    root = tmp_path_factory.mktemp("made")
    models.save(tiny_model(), root / "chat")
    byte_tokenizer(FORMATS["chatml"].control_names()).save(str(root / "chat/tokenizer.json"))
    write(root / "chat/tokenizer_config.json", {"chat_template": formats.CHATML, "eos_token_id": 3})
    write(root / "chat/generation_config.json", {"eos_token_id": [3, 4]})
    write(root / "chat/trained.json", ["a", 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "SHARD_BYTES", 10_000)
        models.save(tiny_model(), root / "shards")
    lora.save_lora(lora.add_lora(tiny_model(), rank=2), root / "adapter", root / "chat")
    models.save(tiny_model("bert"), root / "vectors")
    words().save(str(root / "vectors/tokenizer.json"))
    write(root / "vectors/modules.json", modules("Transformer", "Pooling", "Dense", "Normalize"))
    write(root / "vectors/1_Pooling/config.json", {"pooling_mode": "mean"})
    write(root / "vectors/config_sentence_transformers.json", {"prompts": {"query": "find : "}})
    write(root / "vectors/sentence_bert_config.json", {"max_seq_length": 50})
    write(root / "vectors/tokenizer_config.json", {})
    dense(root / "vectors/2_Dense", 5)
    return root


@pytest.fixture
def folders(made, tmp_path):
    """A copy of those folders."""
    for path in made.rglob("*"):
        target = tmp_path / path.relative_to(made)
        if path.is_dir():
            target.mkdir()
        else:
            target.write_bytes(path.read_bytes())
    config = tmp_path / "adapter/adapter_config.json"
    set_key(config, "base_model_name_or_path", str(tmp_path / "chat"))
    return tmp_path


OPEN = {"chat": open_chat, "shards": open_model, "adapter": open_model, "vectors": open_vectors}
JSON_FILES = [
    "chat/config.json",
    "chat/tokenizer.json",
    "chat/tokenizer_config.json",
    "chat/generation_config.json",
    "chat/trained.json",
    "shards/model.safetensors.index.json",
    "adapter/adapter_config.json",
    "adapter/trained.json",
    "vectors/config.json",
    "vectors/tokenizer.json",
    "vectors/tokenizer_config.json",
    "vectors/modules.json",
    "vectors/1_Pooling/config.json",
    "vectors/2_Dense/config.json",
    "vectors/config_sentence_transformers.json",
    "vectors/sentence_bert_config.json",
]
OTHER_FILES = [
    "chat/model.safetensors",
    "chat/chat_template.jinja",
    "shards/model-00002-of-00012.safetensors",
    "adapter/adapter_model.safetensors",
    "vectors/model.safetensors",
    "vectors/2_Dense/model.safetensors",
]


def open_one(root, file):
    folder = file.split("/")[0]
    return OPEN[folder](root / folder)


def test_the_folders_open_as_they_are(folders):
    for name, call in OPEN.items():
        call(folders / name)
    assert {path.name for path in (folders / "shards").iterdir()} > {Path(OTHER_FILES[2]).name}


NOT_JSON = [
    *(b"", b"{", b"nul", b'{"a": "\xff\xfe"}'),  # the last is not UTF-8
    *(b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000),
    *(b"1.5", b"null", b"true", b'"x"', b"[[1]]", b"[null]"),
]


@pytest.mark.parametrize("file", JSON_FILES)
def test_a_file_without_the_json_that_belongs_there_is_named(folders, file):
    for content in NOT_JSON:
        (folders / file).write_bytes(content)
        refused(lambda: open_one(folders, file), Path(file).name)


@pytest.mark.parametrize("file", [*JSON_FILES, *OTHER_FILES])
def test_what_is_no_file_or_has_no_end_is_named_at_once(folders, file):
    path = folders / file
    path.unlink(missing_ok=True)
    path.mkdir()
    refused(lambda: open_one(folders, file), path.name)
    path.rmdir()
    os.mkfifo(path)
    refused(lambda: open_one(folders, file), path.name)
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(lambda: open_one(folders, file), path.name)
    path.unlink()
    with open(path, "wb") as sparse:
        sparse.truncate(300 << 20)
    refused(lambda: open_one(folders, file), path.name)


@pytest.mark.parametrize(
    "file",
    [
        "chat/model.safetensors",
        OTHER_FILES[2],
        OTHER_FILES[3],
        OTHER_FILES[5],
        "chat/tokenizer.json",
        "chat/config.json",
    ],
)
def test_a_missing_file_is_not_called_damaged_and_a_damaged_one_is_not_called_missing(folders, file):
    path = folders / file
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name) as caught:
        open_one(folders, file)
    assert "damaged" not in str(caught.value)
    path.write_bytes(b"\0" * 5)
    assert "no such" not in refused(lambda: open_one(folders, file), path.name)


# ------------------------------------------------------------------------------------------------ sizes
def test_one_tensor_of_a_far_layer_does_not_stand_for_those_before(folders):
    path = folders / "chat/model.safetensors"
    save_file(load_file(path) | {"model.layers.7999.mlp.up_proj.weight": torch.zeros(48, 32)}, path)
    set_key(folders / "chat/config.json", "num_hidden_layers", 8000)
    began = time.process_time()
    refused(lambda: open_model(folders / "chat"), "num_hidden_layers", "8000", "3")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "changes",
    [
        dict(num_hidden_layers=100_000),
        dict(num_hidden_layers=8000),
        dict(num_hidden_layers=3),
        dict(hidden_size=4_000_000_000),
        dict(hidden_size=2**20),
        dict(intermediate_size=2**20, vocab_size=2**24),
        dict(num_attention_heads=2**20, head_dim=2**20, num_key_value_heads=2**20),
    ],
    ids=str,
)
def test_sizes_that_the_files_do_not_fill_are_refused_before_anything_is_built(folders, changes):
    for key, value in changes.items():
        set_key(folders / "chat/config.json", key, value)
    began = time.process_time()
    message = refused(lambda: open_model(folders / "chat"), "chat")
    assert time.process_time() - began < 1
    assert "num_hidden_layers" in message or "hidden_size" in message or "shape" in message


def test_a_summary_counts_the_parameters_of_any_size_at_once(folders, capsys):
    path = folders / "chat/config.json"
    for layers in (1, 2, 3):
        set_key(path, "num_hidden_layers", layers)
        with shapes_only():
            model = models.Transformer(config_from_hf(json.loads(path.read_text())))
        count = sum(weight.numel() for weight in model.parameters())
        assert models.main([str(path.parent)]) == 0
        assert f"{count:,}" in capsys.readouterr().out
    sizes = dict(num_hidden_layers=8000, hidden_size=2**20, intermediate_size=2**20, vocab_size=2**24)
    path.write_text(json.dumps(tiny_hf(**sizes, head_dim=2**18)))
    began = time.process_time()
    assert models.main([str(path.parent)]) == 0
    assert time.process_time() - began < 2


@pytest.mark.parametrize("family", ["modernbert", "gemma3_text"])
def test_layers_that_differ_are_counted_too(tmp_path, capsys, family):
    """The first layer of a ModernBERT has no norm before its attention."""
    hf = tiny_hf(family, num_hidden_layers=5)
    write(tmp_path / "config.json", hf)
    model = models.Transformer(config_from_hf(hf))
    assert models.main([str(tmp_path)]) == 0
    assert f"{sum(weight.numel() for weight in model.parameters()):,}" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ weights
@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        [],
        "x",
        {"a": 1},
        {"a": None},
        {"a": ["b"]},
        {"a": "../b"},
        {"a": "/etc/passwd"},
        {"a": ""},
        {"a": ".."},
    ],
    ids=repr,
)
def test_an_index_that_maps_to_no_file_of_the_folder_is_named(folders, value):
    set_key(folders / "shards/model.safetensors.index.json", "weight_map", value)
    refused(lambda: open_model(folders / "shards"), "shards")


def test_an_index_without_shards_needs_the_one_file(folders):
    for name in ("shards", "vectors/2_Dense"):
        write(folders / name / "model.safetensors.index.json", {"weight_map": {}})
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        open_model(folders / "shards")
    open_vectors(folders / "vectors")


INTEGERS = "int8 uint8 int16 int32 int64 bool complex64 float8_e4m3fn float8_e5m2".split()


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("wanted", [None, torch.float32], ids=["as it is", "float32"])
def test_weights_that_are_no_floats_are_named_with_their_dtype(folders, dtype, wanted):
    path = folders / "chat/model.safetensors"
    key = "model.layers.1.mlp.up_proj.weight"
    state = load_file(path)
    save_file(state | {key: state[key].to(getattr(torch, dtype))}, path)
    refused(lambda: models.load(folders / "chat", dtype=wanted), path.name, key, dtype)


def test_an_adapter_of_integers_is_named(folders):
    path = folders / "adapter/adapter_model.safetensors"
    state = load_file(path)
    key = min(state)
    save_file(state | {key: state[key].to(torch.int8)}, path)
    refused(lambda: open_model(folders / "adapter"), path.name, key.removeprefix("base_model.model."), "int8")


@contextlib.contextmanager
def small_disk(size):
    """No file can grow beyond this size inside the with block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_old_ones(folders, tiny):
    chat = checkpoint.open(folders / "chat")
    chat.folder = None  # so that the tokenizer is written and not copied
    vectors = checkpoint.open(folders / "vectors", "none")
    vectors.embedder.folder = None
    vectors.model.config.hf["pad_token_id"] = 0
    adapter = lora.add_lora(tiny(), rank=2)
    calls = {
        "chat": lambda: chat.save(folders / "chat"),
        "tokenizer.json": lambda: chat.tokenizer.save(folders / "chat"),
        "adapter": lambda: lora.save_lora(adapter, folders / "adapter", "x"),
        "vectors": lambda: vectors.save(folders / "vectors"),
        "new": lambda: write_tensors(folders / "new", {"a": torch.zeros(5000)}),
    }
    before = {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()}
    for name, call in calls.items():
        with pytest.raises(OSError, match=name), small_disk(1000):
            call()
    after = {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()}
    assert after == before


# ------------------------------------------------------------------------------------------------ tokenizers
TOKENIZERS = {
    "chat/tokenizer_config.json": {
        "chat_template": [1, True, {}, {"default": "x"}, [1], ["<|im_start|>"], [{"name": 1}], [[]]],
        "eos_token_id": ["3", -1, True, 1.5, {}, ["3"], [-1], [True], [None], [[3]], HUGE, INFINITY],
    },
    "chat/generation_config.json": {"eos_token_id": ["3", -1, True, 1.5, {}, [-1], [True], [None], NAN]},
    "chat/config.json": {"eos_token_id": ["3", -1, True, {}, [-1], [2.0]]},
    "vectors/tokenizer_config.json": {
        "model_max_length": ["512", -1, 0, True, [], NAN, INFINITY, HUGE],
        "add_eos_token": NO_FLAG,
    },
}


@pytest.mark.parametrize("file, key, values", rows(TOKENIZERS))
def test_a_field_of_a_tokenizers_files_that_is_of_the_wrong_kind_is_named(folders, file, key, values):
    for value in values:
        set_key(folders / file, key, value)
        refused(lambda: open_one(folders, file), Path(file).name, key)


def test_templates_by_name_no_limit_and_several_ends_are_read(folders):
    templates = [{"name": "default", "template": formats.CHATML}, {"name": "tool_use", "template": "x"}]
    set_key(folders / "chat/tokenizer_config.json", "chat_template", templates)
    set_key(folders / "chat/config.json", "eos_token_id", [5, 0])
    opened = checkpoint.open(folders / "chat").tokenizer
    assert opened.format is FORMATS["chatml"] and {0, 3, 4, 5} < {*opened.stop_ids}
    for limit in (10**30, 1e30, 1000000000000000019884624838656):
        set_key(folders / "vectors/tokenizer_config.json", "model_max_length", limit)
        open_vectors(folders / "vectors")


def change_tokenizer(path, change):
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))


def in_vocabulary(state):
    state["model"]["vocab"]["zz"] = 10**6


def in_added_tokens(state):
    state["added_tokens"][-1]["id"] = state["model"]["vocab"]["zz"] = 10**6
    state["added_tokens"][-1]["content"] = "zz"


def around_texts(state):
    state["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [10**6]


@pytest.mark.parametrize("change", [in_vocabulary, in_added_tokens, around_texts])
def test_a_token_id_beyond_the_embedding_is_refused_with_both_numbers(folders, change):
    """Few tokens are no guarantee: one of them may have any id."""
    change_tokenizer(folders / "vectors/tokenizer.json", change)
    refused(lambda: open_vectors(folders / "vectors"), "tokenizer.json", "1000000", "300")


def test_a_template_that_names_a_token_without_an_id_is_an_error(folders):
    """The library panics here."""
    change_tokenizer(
        folders / "vectors/tokenizer.json", lambda state: state["post_processor"]["special_tokens"].clear()
    )
    refused(lambda: open_vectors(folders / "vectors"), "tokenizer.json")


def test_a_text_closed_by_what_is_no_control_token_has_no_known_format(folders):
    inner = byte_tokenizer(["END"])
    mark = [("END", inner.token_to_id("END"))]
    around = tokenizers.processors.TemplateProcessing("$A END", "$A END $B END", mark)
    inner.post_processor = around
    inner.save(str(folders / "chat/tokenizer.json"))
    write(folders / "chat/tokenizer_config.json", {})
    refused(lambda: open_chat(folders / "chat"), "no chat template", "--format")


@pytest.mark.parametrize("piece", ["<|user|>", "bos_token", "[INST]", "<|im_start|>", " [/INST]", "<"])
def test_a_long_template_is_read_in_linear_time(folders, piece):
    (folders / "chat/chat_template.jinja").write_text(piece * 30_000)
    began = time.process_time()
    refused(lambda: open_chat(folders / "chat"), "chat_template.jinja", "--format")
    assert time.process_time() - began < 2


# ------------------------------------------------------------------------------------------------ adapters
ADAPTER = {
    "peft_type": [None, *NO_TEXT, "LOHA"],
    "task_type": NO_TEXT,
    "base_model_name_or_path": [None, "", *NO_TEXT],
    "revision": NO_TEXT,
    "r": [None, "8", 0, -1, 2.0, True, [], {}, 10**9, HUGE, NAN],
    "lora_alpha": [None, *NO_POSITIVE],
    "target_modules": [None, 1, True, {}, {"a": 1}, [1], [None], "(", "[", "a{99999999999}", "*", "(" * 5000],
    "rank_pattern": [
        1,
        [],
        "x",
        {"q_proj": "2"},
        {"q_proj": 0},
        {"q_proj": True},
        {"q_proj": None},
        {"(": 2},
    ],
    "alpha_pattern": [
        1,
        [],
        "x",
        {"q_proj": "2"},
        {"q_proj": NAN},
        {"q_proj": INFINITY},
        {"q_proj": True},
        {"(": 2},
    ],
    "modules_to_save": NO_TEXTS,
    "use_rslora": NO_FLAG,
    "use_dora": NO_FLAG,
    "lora_dropout": [*NO_NUMBER, 1.5],
    "bias": [*NO_TEXT, "all"],
    "layers_to_transform": ["0", [None], ["0"], -1, 0.5, {"a": 1}],
    "exclude_modules": [1, [1], {"a": 1}],
    "init_lora_weights": ["pissa", "olora", 2, ["gaussian"]],
    "target_parameters": [["a"], 1],
}


@pytest.mark.parametrize("key", ADAPTER)
def test_a_field_of_an_adapter_that_is_of_the_wrong_kind_or_range_is_named(folders, key):
    for value in ADAPTER[key]:
        set_key(folders / "adapter/adapter_config.json", key, value)
        refused(lambda: open_model(folders / "adapter"), "adapter_config.json", key.split("_")[0])


@pytest.mark.parametrize("key, value", [("r", 2**20), ("r", 3), ("rank_pattern", {"q_proj": 2**20})])
def test_a_rank_that_the_tensors_do_not_have_takes_no_memory(folders, key, value):
    """2**20 would be gigabytes."""
    set_key(folders / "adapter/adapter_config.json", key, value)
    refused(lambda: open_model(folders / "adapter"), "adapter_config.json", "rank")


@pytest.mark.parametrize("shape", [(), (2,), (2, 31), (3, 32), (2, 32, 1), (0, 32), (0,)], ids=str)
@pytest.mark.parametrize("side", ["lora_A", "lora_B"])
def test_a_tensor_of_an_adapter_of_another_shape_is_named(folders, shape, side):
    path = folders / "adapter/adapter_model.safetensors"
    state = load_file(path)
    key = next(key for key in sorted(state) if side in key)
    save_file(state | {key: torch.zeros(shape)}, path)
    refused(lambda: open_model(folders / "adapter"), "adapter", key.removeprefix("base_model.model."))


def test_an_adapter_that_adapts_nothing_is_an_error(folders):
    path = folders / "adapter/adapter_model.safetensors"
    save_file({}, path)
    for targets in ([], ["nothing"], "nothing"):
        set_key(folders / "adapter/adapter_config.json", "target_modules", targets)
        refused(lambda: open_model(folders / "adapter"), "adapter_config.json", "target_modules")


def test_a_classifier_of_an_adapter_without_rows_is_named(folders):
    path = folders / "adapter/adapter_model.safetensors"
    save_file(load_file(path) | {"base_model.model.score.weight": torch.zeros(())}, path)
    set_key(folders / "adapter/adapter_config.json", "task_type", "SEQ_CLS")
    refused(lambda: open_model(folders / "adapter"), "score.weight")


# ------------------------------------------------------------------------------------------------ embedders
VECTORS = {
    "1_Pooling/config.json": {
        "pooling_mode": [1, True, {}, [1], [None], "max", ["mean", "cls"]],
        "include_prompt": NO_FLAG,
        "pooling_mode_cls_token": NO_FLAG,
    },
    "2_Dense/config.json": {
        "in_features": ["32", 31, [], True],
        "out_features": [None, *NO_SIZE, 2**30, 6],
        "bias": [*NO_FLAG, False],
        "activation_function": [*NO_TEXT, "torch.nn.LSTM", "os.system"],
        "use_residual": [True, "no", []],
        "module_input_name": [*NO_TEXT, "token_embeddings"],
    },
    "config_sentence_transformers.json": {
        "model_type": [*NO_TEXT, "SparseEncoder"],
        "prompts": [1, True, "x", [], {"query": 1}, {"query": ["x"]}],
        "default_prompt_name": [*NO_TEXT, "nothing"],
        "truncate_dim": NO_SIZE,
        "similarity_fn_name": NO_TEXT,
    },
    "sentence_bert_config.json": {
        "max_seq_length": NO_SIZE,
        "do_lower_case": NO_FLAG,
        "transformer_task": [*NO_TEXT, "fill-mask"],
        "modality_config": [1, [], {"image": {}}],
        "processing_kwargs": [1, {"text": {}}],
    },
}


@pytest.mark.parametrize("file, key, values", rows(VECTORS))
def test_a_field_of_an_embedders_files_that_is_of_the_wrong_kind_is_named(folders, file, key, values):
    for value in values:
        set_key(folders / "vectors" / file, key, value)
        message = refused(lambda: open_vectors(folders / "vectors"), file.split("/")[0])
        # a bias or a size may also not fit the weights
        assert key.split("_")[0] in message or key in ("bias", "out_features")


@pytest.mark.parametrize(
    "module",
    [
        None,
        1,
        [],
        "x",
        {},
        {"type": "a"},
        {"path": ""},
        {"type": 1, "path": ""},
        {"type": "a", "path": 1},
        {"type": "a", "path": ["b"]},
    ],
    ids=repr,
)
def test_a_module_without_a_type_and_a_path_is_named(folders, module):
    path = folders / "vectors/modules.json"
    write(path, [*json.loads(path.read_text()), module])
    refused(lambda: open_vectors(folders / "vectors"), "modules.json")


@pytest.mark.parametrize("length", [1, 2])
def test_a_length_without_room_for_a_token_is_an_error(folders, length):
    """Two special tokens stand around every text. The library would not cut it at all then."""
    set_key(folders / "vectors/sentence_bert_config.json", "max_seq_length", length)
    refused(lambda: open_vectors(folders / "vectors"), "vectors", str(length))


def test_null_means_that_a_setting_is_absent(folders):
    expected = open_vectors(folders / "vectors")
    for file, table in VECTORS.items():
        for key in table:
            if key not in ("max_seq_length", "out_features", "pooling_mode"):
                set_key(folders / "vectors" / file, key, None)
    for key in ("model_max_length", "add_eos_token"):
        set_key(folders / "vectors/tokenizer_config.json", key, None)
    set_key(folders / "vectors/config.json", "pad_token_id", None)
    assert torch.equal(open_vectors(folders / "vectors"), expected)


def test_a_model_learned_from_a_folder_with_odd_modules_is_saved_with_its_files(folders, tmp_path):
    """Saving must not fail after hours of training because of a file that it only copies."""
    opened = checkpoint.open(folders / "vectors", head=3, seed=0, tokenizer=False)
    (folders / "vectors/modules.json").write_text("[5]")
    opened.save(tmp_path / "again", trained_on={"b", 2, 10, "a"})
    assert (tmp_path / "again/modules.json").read_text() == "[5]"
    assert (tmp_path / "again/1_Pooling/config.json").exists()
    assert set(json.loads((tmp_path / "again/trained.json").read_text())) == {"a", "b", 2, 10}
