"""Makes tests/golden/*.json, what transformers computes for tiny models of every family. `python
tests/make_golden.py` makes all again, `... llama bert` these two; only this needs transformers.

Weights are not stored. `weight` makes them from their names, here and in the tests alike."""

import copy
import json
import math
import sys
import tempfile
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent / "golden"


def weight(name, shape):
    """A tensor that depends on its name and shape only: a sine whose frequency rises from entry to entry, at
    a scale at which mistakes show (no small branch, norms and biases away from one and zero)."""
    seed, index = zlib.crc32(name.encode()), torch.arange(math.prod(shape), dtype=torch.float64)
    wave = 2**0.5 * torch.sin(seed % 1009 + (0.1 + seed % 9973 / 9973) * index**2).float()
    if len(shape) == 1:
        return 0.3 + 0.5 * wave
    return wave.view(shape) * (1 if "embed" in name else 1.5 / shape[1] ** 0.5)


def tensors(golden):
    """The checkpoint of a golden file under its own names."""
    return {key: weight(key, shape) for key, shape in golden["shapes"].items()}


def write(folder, config, state):
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "config.json").write_text(json.dumps(config))
    save_file(state, Path(folder) / "model.safetensors", metadata={"format": "pt"})


# ------------------------------------------------------------------------------------------------ cases
DECODER = dict(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=0.01,
    pad_token_id=0,
)
ENCODER = {key: DECODER[key] for key in DECODER if not key.startswith(("num_key", "rms"))}
GEMMA2 = DECODER | dict(
    head_dim=16,
    num_hidden_layers=3,
    sliding_window=5,
    query_pre_attn_scalar=24,
    hidden_activation="gelu_pytorch_tanh",
)
GEMMA3 = GEMMA2 | dict(
    sliding_window_pattern=3,
    rope_theta=5000.0,
    rope_local_base_freq=100.0,
    rope_scaling={"rope_type": "linear", "factor": 8.0},
)
BERT = ENCODER | dict(layer_norm_eps=0.01, type_vocab_size=2)
ROBERTA = ENCODER | dict(layer_norm_eps=0.01, type_vocab_size=1, pad_token_id=1)
MODERNBERT = ENCODER | dict(
    num_hidden_layers=4,
    norm_eps=0.01,
    local_attention=6,
    global_attn_every_n_layers=3,
    global_rope_theta=1000.0,
    local_rope_theta=100.0,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=128,
)
GRANITE = dict(
    embedding_multiplier=3.0, residual_multiplier=0.3, attention_multiplier=0.2, logits_scaling=5.0
)
YARN = dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=16)
LONGROPE = dict(
    type="longrope",
    short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    long_factor=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
)
LONGROPE4 = {key: value[:4] if type(value) is list else value for key, value in LONGROPE.items()}
MSCALES = dict(beta_fast=4.0, beta_slow=0.5, mscale=1.5, mscale_all_dim=0.7)
MINISTRAL3 = DECODER | dict(
    head_dim=16,
    rope_parameters=YARN | dict(rope_theta=1e6, original_max_position_embeddings=4, llama_4_scaling_beta=0.3),
)
HYBRID = (
    DECODER
    | GRANITE
    | dict(
        shared_intermediate_size=40,
        num_local_experts=0,
        layer_types=["full_attention"] * 2,
        position_embedding_type="nope",
        mamba_n_heads=4,
    )
)
QWEN3_5 = DECODER | dict(
    model_type="qwen3_5_text",
    rms_norm_eps=0.1,  # less would scale up a state's answers that are nearly zero, rounding errors too
    num_hidden_layers=4,
    num_key_value_heads=1,
    head_dim=16,
    linear_num_value_heads=4,
    linear_num_key_heads=2,
    linear_key_head_dim=8,
    linear_value_head_dim=6,
    linear_conv_kernel_dim=3,
    rope_parameters=dict(rope_type="default", rope_theta=1000.0, partial_rotary_factor=0.5),
)
SMALL_EYE = dict(
    depth=1,
    hidden_size=8,
    intermediate_size=8,
    num_heads=2,
    out_hidden_size=32,
    patch_size=2,
    num_position_embeddings=4,
)
LABELS = {"id2label": {"0": "A", "1": "B", "2": "C"}, "label2id": {"A": 0, "B": 1, "C": 2}}
AUTO = {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"}
CASES = {  # name: class, config.json
    "llama": ("LlamaForCausalLM", DECODER),
    "llama_llama3": ("LlamaForCausalLM", DECODER | dict(rope_scaling=LLAMA3, rope_theta=5000.0)),
    "llama_linear": ("LlamaForCausalLM", DECODER | dict(rope_scaling={"type": "linear", "factor": 3.0})),
    "llama_yarn": ("LlamaForCausalLM", DECODER | dict(rope_scaling=YARN)),
    "llama_yarn2": (
        "LlamaForCausalLM",
        DECODER | dict(head_dim=16, rope_scaling=YARN | dict(attention_factor=1.3, truncate=False)),
    ),
    "llama_yarn3": ("LlamaForCausalLM", DECODER | dict(head_dim=16, rope_scaling=YARN | MSCALES)),
    "llama_dynamic": (
        "LlamaForCausalLM",
        DECODER | dict(rope_scaling={"type": "dynamic", "factor": 2.0}, max_position_embeddings=8),
    ),
    "llama_biases": ("LlamaForCausalLM", DECODER | dict(attention_bias=True, mlp_bias=True)),
    "llama_classes": ("LlamaForSequenceClassification", DECODER | LABELS),
    "mistral": ("MistralForCausalLM", DECODER | dict(sliding_window=5, rope_theta=1000.0)),
    "qwen2": ("Qwen2ForCausalLM", DECODER | dict(tie_word_embeddings=True)),
    "qwen2_window": (
        "Qwen2ForCausalLM",
        DECODER | dict(use_sliding_window=True, max_window_layers=1, sliding_window=5),
    ),
    "qwen3": ("Qwen3ForCausalLM", DECODER | dict(head_dim=16, rope_theta=1000.0)),
    "gemma": ("GemmaForCausalLM", DECODER | dict(num_key_value_heads=1, head_dim=16, hidden_act="gelu")),
    "gemma2": (
        "Gemma2ForCausalLM",
        GEMMA2 | dict(attn_logit_softcapping=3.0, final_logit_softcapping=5.0),
    ),
    "gemma2_classes": ("Gemma2ForSequenceClassification", GEMMA2 | LABELS),
    "gemma3_text_both": (
        "Gemma3TextModel",
        GEMMA3 | dict(model_type="gemma3_text", use_bidirectional_attention=True),
    ),
    "gemma3_text": ("Gemma3ForCausalLM", GEMMA3 | dict(model_type="gemma3_text")),
    "gemma3": ("Gemma3ForConditionalGeneration", dict(text_config=GEMMA3 | {"model_type": "gemma3_text"})),
    "phi3": ("Phi3ForCausalLM", DECODER | dict(sliding_window=5)),
    "phi3_partial": (
        "Phi3ForCausalLM",
        DECODER | dict(hidden_size=64, partial_rotary_factor=0.75, rope_theta=1000.0),
    ),
    "phi3_longrope": (  # of three rows one is longer than the original context
        "Phi3ForCausalLM",
        DECODER
        | dict(
            hidden_size=64,
            partial_rotary_factor=0.75,
            rope_scaling=LONGROPE,
            original_max_position_embeddings=10,
        ),
    ),
    "llama_longrope": (
        "LlamaForCausalLM",
        DECODER | dict(rope_scaling=LONGROPE4 | dict(factor=3.0, original_max_position_embeddings=9)),
    ),
    "qwen3_5_text": ("Qwen3_5ForCausalLM", QWEN3_5),
    "qwen3_5_text_yarn": (
        "Qwen3_5ForCausalLM",
        QWEN3_5
        | dict(
            tie_word_embeddings=True,
            layer_types=["full_attention", "linear_attention", "full_attention"],
            num_hidden_layers=3,
            rope_parameters=YARN | dict(rope_theta=1000.0, partial_rotary_factor=0.5),
        ),
    ),
    "qwen3_5_text_classes": ("Qwen3_5TextForSequenceClassification", QWEN3_5 | LABELS),
    "qwen3_5": (
        "Qwen3_5ForConditionalGeneration",
        dict(model_type="qwen3_5", text_config=QWEN3_5, vision_config=SMALL_EYE),
    ),
    "smollm3": ("SmolLM3ForCausalLM", DECODER | dict(num_hidden_layers=3, no_rope_layers=[1, 0, 1])),
    "granite": ("GraniteForCausalLM", DECODER | GRANITE),
    "olmo2": ("Olmo2ForCausalLM", DECODER | dict(rope_theta=1000.0)),
    "olmo3": (
        "Olmo3ForCausalLM",
        DECODER | dict(num_hidden_layers=4, sliding_window=5, rope_theta=500_000.0, rope_scaling=YARN),
    ),
    "ministral3": ("Ministral3ForCausalLM", MINISTRAL3),
    "mistral3": (
        "Mistral3ForConditionalGeneration",
        dict(text_config=MINISTRAL3 | {"model_type": "ministral3"}),
    ),
    "granitemoehybrid": ("GraniteMoeHybridForCausalLM", HYBRID),
    "granitemoehybrid_rope": (
        "GraniteMoeHybridForCausalLM",
        HYBRID | dict(position_embedding_type="rope", layer_types=["attention"] * 2),
    ),
    "internlm2": ("InternLM2ForCausalLM", DECODER | dict(bias=False, rope_theta=1000.0, auto_map=AUTO)),
    "bert": ("BertModel", BERT),
    "bert_classes": ("BertForSequenceClassification", BERT | LABELS),
    "bert_pair": ("BertForSequenceClassification", BERT | dict(id2label={"0": "A"}, label2id={"A": 0})),
    "xlm-roberta": ("XLMRobertaModel", ROBERTA),
    "xlm-roberta_classes": ("XLMRobertaForSequenceClassification", ROBERTA | LABELS),
    "eurobert": ("EuroBertModel", DECODER | dict(rope_theta=1000.0)),
    "eurobert_classes": ("EuroBertForSequenceClassification", DECODER | LABELS),
    "eurobert_bos": ("EuroBertForSequenceClassification", DECODER | LABELS | dict(classifier_pooling="bos")),
    "modernbert": ("ModernBertModel", MODERNBERT),
    "modernbert_cls": (
        "ModernBertForSequenceClassification",
        MODERNBERT | LABELS | dict(classifier_bias=True, norm_bias=True, mlp_bias=True, attention_bias=True),
    ),
    "modernbert_mean": (
        "ModernBertForSequenceClassification",
        MODERNBERT | LABELS | dict(classifier_pooling="mean", classifier_activation="silu"),
    ),
}


# ------------------------------------------------------------------------------------------------ theirs
def shapes_there(config, kind):
    """Names and shapes of the checkpoint that transformers saves."""
    import transformers

    config = transformers.AutoConfig.for_model(**config)
    with tempfile.TemporaryDirectory() as folder:
        getattr(transformers, kind)(config).save_pretrained(folder)
        return {k: list(v.shape) for k, v in load_file(f"{folder}/model.safetensors").items()}


def outputs_there(config, state, kind, rows, types):
    """Logits (hidden states of a bare model) of each row alone, without padding. types: of a row's
    tokens, where they are not all 0."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        write(folder, config, state)
        model, report = getattr(transformers, kind).from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    assert not any(report.values()), report
    with torch.no_grad():  # each with a model of its own: dynamic scaling remembers longer rows
        outputs = []
        for i, row in enumerate(rows):
            more = {"token_type_ids": torch.tensor([types[i]])} if types else {}
            outputs.append(copy.deepcopy(model).eval()(torch.tensor([row]), **more))
    return [output.logits if "For" in kind else output.last_hidden_state for output in outputs]


HALVES = {
    "gemma3_text": "Gemma3ForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
}


def twin_of_both(config, state):
    """The text half alone, of a checkpoint that also sees."""
    text = {}
    for key, tensor in state.items():
        if "language_model." in key or key == "lm_head.weight":
            text[key.replace("language_model.", "")] = tensor
    return config["text_config"], text, HALVES[config["text_config"]["model_type"]]


def shapes_of_both(config):
    shapes = shapes_there(config["text_config"], HALVES[config["text_config"]["model_type"]])
    seeing = {"vision_tower.vision_model.post_layernorm.bias": [6]}
    seeing["multi_modal_projector.mm_soft_emb_norm.weight"] = [6]
    return {f"language_model.{key}": shape for key, shape in shapes.items()} | seeing


def shapes_of_qwen3_5(config):
    """What transformers saves, and a layer that guesses further tokens, as published files have it."""
    shapes = shapes_there(config, config["architectures"][0])
    assert "model.visual.merger.norm.weight" in shapes
    return shapes | {"mtp.layers.0.mlp.up_proj.weight": [48, 32], "mtp.norm.weight": [32]}


INTERNLM2_NAMES = {  # within a layer
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def twin_of_internlm2(config, state):
    """The Llama that it equals. For each key/value head its rows are the queries that share it, the key and
    the value."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width, twin = config["hidden_size"] // heads, {}
    for key, tensor in state.items():
        if key.endswith("wqkv.weight"):
            parts, rows = {"q": [], "k": [], "v": []}, iter(tensor.split(width))
            for _ in range(groups):
                for part in "q" * (heads // groups) + "kv":
                    parts[part].append(next(rows))
            stem = key.replace("attention.wqkv.weight", "self_attn.")
            twin |= {f"{stem}{part}_proj.weight": torch.cat(found) for part, found in parts.items()}
        else:
            for old, new in INTERNLM2_NAMES.items():
                key = key.replace(f".{old}.", f".{new}.")
            key = key.replace("tok_embeddings", "embed_tokens").replace("output.weight", "lm_head.weight")
            twin[key] = tensor
    return config | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, twin, "LlamaForCausalLM"


def shapes_of_internlm2(config):
    dim, mlp, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    layer = {
        "attention.wqkv": [(heads + 2 * groups) * dim // heads, dim],
        "attention.wo": [dim, dim],
        "feed_forward.w1": [mlp, dim],
        "feed_forward.w3": [mlp, dim],
        "feed_forward.w2": [dim, mlp],
        "attention_norm": [dim],
        "ffn_norm": [dim],
    }
    shapes = {"model.tok_embeddings.weight": [vocab, dim]}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes | {"model.norm.weight": [dim], "output.weight": [vocab, dim]}


SHAPES = {
    "gemma3": shapes_of_both,
    "mistral3": shapes_of_both,
    "qwen3_5": shapes_of_qwen3_5,
    "internlm2": shapes_of_internlm2,
}
TWINS = {
    "gemma3": twin_of_both,
    "mistral3": twin_of_both,
    "qwen3_5": twin_of_both,
    "internlm2": twin_of_internlm2,
}


def make(name):
    kind, config = CASES[name]
    config = {"model_type": name.split("_")[0], "architectures": [kind]} | config
    family = config["model_type"]
    shapes = SHAPES[family](config) if family in SHAPES else shapes_there(config, kind)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    rows = [torch.randint(5, 40, (length,), generator=generator).tolist() for length in (14, 9, 1)]
    golden = dict(config=config, ids=rows, shapes=shapes)
    if name.endswith("pair"):
        golden["types"] = [[0] * (len(row) // 2) + [1] * (len(row) - len(row) // 2) for row in rows]
    twin = TWINS.get(family, lambda config, state: (config, state, kind))
    outputs = outputs_there(*twin(config, tensors(golden)), rows, golden.get("types"))
    golden["expected"] = [[round(x, 6) for x in output.flatten().tolist()] for output in outputs]
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    (FOLDER / f"{name}.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or CASES:
        make(name)
        print(f"{name}: {(FOLDER / f'{name}.json').stat().st_size:,} bytes")
