"""What a Hugging Face checkpoint may look like: Config, and a table of how each family differs from Llama.

`config_from_hf` turns a config.json, of either dialect, into a Config; model.py builds whatever a Config says
and knows no family. To add a family, write a row of FAMILIES, a shape in tests/conftest.py and a golden file.

The two dialects are the older config.json files and those that transformers 5 writes (rope_parameters,
layer_types). In the code `hf` is such a config.json as a dict, `theirs` a name in the file and `ours` the
name here."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from files import (
    COUNT,
    FLAG,
    OBJECT,
    TEXT,
    Kind,
    by_key,
    check_fields,
    list_of,
    number,
    one_of,
    read_settings,
    whole,
)
from rotary import LENGTH, POSITIVE, rope_from_hf

ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "tanh")  # defined in layers.py
# stored by old checkpoints, computed by model.py
BUFFERS = r"(^|\.)(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|token_type_ids)$"


@dataclass
class Config:
    """The shape of a checkpoint in our terms. `hf` keeps the config.json it came from, for saving."""

    # sizes
    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int  # need not be dim / heads
    mlp_dim: int
    # embeddings
    embed_scale: float = 1.0  # factor of the embeddings, rounded to the weights' dtype
    embed_norm: bool = False
    places: int = 0  # number of learned positions, in models without rotation
    place_offset: int = 0  # index of the first one that a text uses
    types: int = 0  # number of token types: the texts of a pair have different ones
    # blocks
    eps: float = 1e-6  # shared by all norms
    norm: str = "rms"  # rms, rms0 or rms1 (scaled by 0 or 1 + weight in float32), or layer
    norm_bias: bool = False
    norms: str = "pre"  # pre, out (on each branch's output), sandwich (both) or post (on the sum alone)
    first_norm: bool = True  # whether the first layer's attention has a norm before it
    residual_scale: float = 1.0  # factor of what attention and MLP add to the residual stream
    activation: str = "silu"
    gated: bool = True  # act(gate(x)) * up(x) instead of act(up(x))
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    # attention
    causal: bool = True
    qk_norm: str = ""  # normalise queries and keys before the rotation: each "head" or the "full" width
    scale: float | None = None  # factor of the scores; None is head_dim ** -0.5
    softcap: float | None = None  # scores become softcap * tanh(scores / softcap)
    sliding: tuple = ()  # one bool per layer: does it see only its neighbourhood?
    reach: int = 0  # a sliding layer sees tokens at most this many positions away
    rope: dict | None = None  # rope_type, rope_theta and the type's own settings; None: no rotation
    local_rope: dict | None = None  # the same for sliding layers, where it differs
    unrotated: tuple = ()  # one bool per layer: does it leave queries and keys unrotated?
    output_gate: bool = False  # multiply what attention reads by a sigmoid; q_proj makes both
    # layers with a state in place of attention, see deltanet.py
    recurrent: tuple = ()  # which layers these are
    delta: tuple = ()  # heads of values, heads of keys, width of keys, of values, tokens of the convolution
    # head
    tied: bool = False  # head and embedding share one matrix
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    head: str = "lm"  # lm (next token), classes or none
    labels: int = 0  # number of classes
    pooling: str = "last"  # what the classifier sees: the last token, the first (cls), the mean or all (late)
    dense: str = ""  # activation of the layer between pooling and class scores; empty: no such layer
    dense_bias: bool = False
    dense_norm: bool = False
    classes_bias: bool = False
    hf: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def family(self) -> "Family":
        """The family that the model is saved as."""
        return FAMILIES[self.hf["model_type"]]

    def file_name(self, ours: str) -> str:
        """Our name of a layer or tensor -> its name in saved files, which has no prefix without a head."""
        name = self.family.file_name(ours)
        return name.removeprefix(self.family.prefix) if self.head == "none" else name


# ------------------------------------------------------------------------------------------------ the table
# Name in the file -> our name: model.layers.0.self_attn.q_proj -> layers.0.attn.q_proj. Each line replaces
# whole dotted components, in this order, so that renaming can be inverted for saving.
LLAMA_NAMES = {
    "model.embed_tokens": "embed",
    "model.layers": "layers",
    "model.norm": "norm",
    "lm_head": "head",
    "score": "classifier.out",
    "self_attn": "attn",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "mlp_norm",
}
GEMMA2_NAMES = LLAMA_NAMES | {
    "post_attention_layernorm": "attn_out_norm",  # the name that Llama gives to mlp_norm
    "pre_feedforward_layernorm": "mlp_norm",
    "post_feedforward_layernorm": "mlp_out_norm",
}
OLMO2_NAMES = LLAMA_NAMES | {
    "post_attention_layernorm": "attn_out_norm",
    "post_feedforward_layernorm": "mlp_out_norm",
}
HYBRID_NAMES = LLAMA_NAMES | {"shared_mlp.output_linear": "mlp.down_proj"}
BERT_NAMES = {
    "bert.embeddings.word_embeddings": "embed",
    "bert.embeddings.position_embeddings": "places",
    "bert.embeddings.token_type_embeddings": "types",
    "bert.embeddings.LayerNorm": "embed_norm",
    "bert.encoder.layer": "layers",
    "attention.self.query": "attn.q_proj",
    "attention.self.key": "attn.k_proj",
    "attention.self.value": "attn.v_proj",
    "attention.output.dense": "attn.o_proj",
    "attention.output.LayerNorm": "attn_norm",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "output.LayerNorm": "mlp_norm",
}
ROBERTA_NAMES = {old.replace("bert.", "roberta."): new for old, new in BERT_NAMES.items()}
ROBERTA_NAMES["classifier.out_proj"] = "classifier.out"
BERT_NAMES |= {"classifier": "classifier.out", "bert.pooler.dense": "classifier.dense"}
EUROBERT_NAMES = {"classifier": "classifier.out", "dense": "classifier.dense"} | LLAMA_NAMES
del EUROBERT_NAMES["score"]
MODERNBERT_NAMES = {
    "classifier": "classifier.out",
    "head.dense": "classifier.dense",
    "head.norm": "classifier.dense_norm",
    "model.embeddings.tok_embeddings": "embed",
    "model.embeddings.norm": "embed_norm",
    "model.layers": "layers",
    "model.final_norm": "norm",
    "attn.Wo": "attn.o_proj",
    "mlp.Wo": "mlp.down_proj",
}
QWEN3_5_NAMES = {"linear_attn.norm": "linear_attn.gated_norm"} | LLAMA_NAMES
for name in "in_proj_qkv in_proj_z in_proj_b in_proj_a conv1d A_log dt_bias gated_norm out_proj".split():
    QWEN3_5_NAMES[f"linear_attn.{name}"] = f"attn.{name}"
INTERNLM2_NAMES = {
    "model.tok_embeddings": "embed",
    "model.layers": "layers",
    "model.norm": "norm",
    "output": "head",
    "attention": "attn",
    "wo": "o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "attn_norm",
    "ffn_norm": "mlp_norm",
}
OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
QKV = ("attn.q_proj", "attn.k_proj", "attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")


@dataclass
class Family:
    """How a family differs from Llama."""

    stem: str = ""  # beginning of the class names in `architectures`
    names: dict = field(default_factory=LLAMA_NAMES.copy)
    aliases: dict = field(default_factory=dict)  # other spellings in files -> the usual name in files
    ignored: str = "$^"  # regex of tensor names that are not part of the model here
    prefix: str = "model."  # begins every name but the heads'; files of a bare model lack it
    fused: dict = field(default_factory=dict)  # one tensor in the file -> ours, stacked by rows
    interleaved: bool = False  # whether they are stacked within each key/value head
    defaults: dict = field(default_factory=dict)  # for keys that its config.json leaves out, by its own code
    config: Callable = lambda hf: {}  # config.json with defaults -> Config fields special to the family
    sliding: Callable | None = None  # (hf, i) -> whether layer i slides; layer_types overrides it
    thetas: tuple = ("rope_theta", None)  # keys of the rotary base, for full and for sliding layers
    modules: dict = field(default_factory=dict)  # usual name in files -> name in transformers' model
    kinds: dict = field(default_factory=dict)  # of keys that may hold other values than in KINDS below
    becomes: Callable | None = None  # config.json -> that of an equal family, which it is saved as

    def our_name(self, theirs: str) -> str:
        return rename(theirs, self.names)

    def usual_names(self, keys) -> dict[str, str]:
        """Name in a file -> its usual name, for all tensors but the ignored ones. Names from a bare model's
        file get the prefix that they lack."""
        names = {key: rename(key, self.aliases) for key in keys}
        if not any(name.startswith(self.prefix) for name in names.values()):
            for key, name in names.items():
                if not self.our_name(name).startswith(("head.", "classifier.")):
                    names[key] = rename(self.prefix + name, self.aliases)
        ignored = f"{BUFFERS}|{self.ignored}"
        return {key: name for key, name in names.items() if not re.search(ignored, name)}

    def file_name(self, ours: str) -> str:
        """Our name of a layer or tensor -> its name in the family's files. Parts of a fused tensor share one
        name."""
        for fused, parts in self.fused.items():
            for part in parts:
                ours = rename(ours, {part: fused})
        return rename(ours, {new: old for old, new in reversed(self.names.items())})


def group_by_file_name(names, file_name: Callable) -> dict[str, list[str]]:
    """Name in the file -> our names of what it holds, several where the file has them fused."""
    groups = {}
    for name in names:
        groups.setdefault(file_name(name), []).append(name)
    return groups


def rename(key: str, names: dict) -> str:
    """Replace whole dotted components of a name, old -> new, in order."""
    dotted = f".{key}."
    for old, new in names.items():
        dotted = dotted.replace(f".{old}.", f".{new}.", 1)
    return dotted[1:-1]


# What is special to a family: a function of its config.json gives fields of Config.
def gemma(hf):
    activation = hf["hidden_act"]
    if activation == "gelu":  # the first files say gelu where they mean its tanh form
        activation = "gelu_pytorch_tanh"
    return dict(norm="rms1", embed_scale=hf["hidden_size"] ** 0.5, activation=activation)


def gemma2(hf):
    return dict(
        norm="rms1",
        norms="sandwich",
        embed_scale=hf["hidden_size"] ** 0.5,
        scale=hf["query_pre_attn_scalar"] ** -0.5,
    )


def gemma3_text(hf):
    return gemma2(hf) | dict(qk_norm="head", causal=not hf.get("use_bidirectional_attention"))


def qwen3_5_text(hf):
    interval = hf["full_attention_interval"]
    default = ["linear_attention"] * (interval - 1) + ["full_attention"]
    kinds = hf.get("layer_types") or [default[i % interval] for i in range(hf["num_hidden_layers"])]
    return dict(
        norm="rms1",
        qk_norm="head",
        output_gate=True,
        recurrent=tuple(i for i, kind in enumerate(kinds) if kind == "linear_attention"),
        delta=tuple(hf[key] for key in DELTA),
    )


def bert(hf):
    return dict(
        embed_norm=True,
        places=hf["max_position_embeddings"],
        norm="layer",
        norm_bias=True,
        norms="post",
        gated=False,
        causal=False,
        rope=None,
        pooling="cls",
        dense="tanh",
        dense_bias=True,
        classes_bias=True,
    )


def modernbert(hf):
    return dict(
        embed_norm=True,
        norm="layer",
        first_norm=False,  # embed_norm has normalised its input
        causal=False,
        dense_norm=True,
        classes_bias=True,
    )


def eurobert(hf):
    pooling = hf["classifier_pooling"]
    return dict(
        causal=False,
        pooling="cls" if pooling == "bos" else pooling,
        dense="gelu",
        dense_bias=True,
        classes_bias=True,
    )


def internlm2(hf):
    """Its config.json as one of the Llama family."""
    same = {key: value for key, value in hf.items() if key not in ("auto_map", "bias", "attn_implementation")}
    bias = bool(hf.get("bias", True))  # on all of attention; the MLP has none
    return same | dict(model_type="llama", architectures=["LlamaForCausalLM"], attention_bias=bias)


def smollm3(hf):
    rotated = hf.get("no_rope_layers")  # despite its name it has 1 for a layer that rotates
    if rotated is None:
        rotated = [(i + 1) % hf["no_rope_layer_interval"] for i in range(hf["num_hidden_layers"])]
    return dict(unrotated=tuple(not turns for turns in rotated))


def granite(hf):
    return dict(
        embed_scale=hf["embedding_multiplier"],
        residual_scale=hf["residual_multiplier"],
        scale=hf["attention_multiplier"],
        logit_scale=1 / hf["logits_scaling"],
    )


def granitemoehybrid(hf):
    fields = granite(hf) | dict(mlp_dim=hf["shared_intermediate_size"])
    if hf.get("position_embedding_type") != "rope":
        fields["rope"] = None
    return fields


OUTER = (
    "torch_dtype dtype eos_token_id bos_token_id num_labels id2label label2id problem_type "
    "quantization_config"
).split()


def text_half(hf, family, kinds):
    """The config.json of the text half of a model that also sees, which says most in text_config. kinds: its
    architectures with a head for the next token and with a classifier."""
    classifies = "ForSequenceClassification" in str(hf.get("architectures"))
    outer = {key: hf[key] for key in OUTER if key in hf}
    inner = hf.get("text_config") or {}
    fixed = {"model_type": family}
    if "tie_word_embeddings" in hf:  # of the whole model, whatever its half says
        fixed["tie_word_embeddings"] = hf["tie_word_embeddings"]
    return {"architectures": [kinds[classifies]]} | outer | inner | fixed


def gemma3(hf):
    return text_half(hf, "gemma3_text", ["Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"])


def qwen3_5(hf):
    return text_half(hf, "qwen3_5_text", ["Qwen3_5ForCausalLM", "Qwen3_5TextForSequenceClassification"])


def mistral3(hf):
    family = (hf.get("text_config") or {}).get("model_type") or "mistral"
    stem = "Ministral3" if family == "ministral3" else "Mistral"
    return text_half(hf, family, [f"{stem}ForCausalLM", f"{stem}ForSequenceClassification"])


def qwen_slides(hf, i):
    return hf["use_sliding_window"] and i >= hf["max_window_layers"]


# every config.json of the family states a window, few switch it on
QWEN = dict(use_sliding_window=False, sliding_window=4096, max_window_layers=28)
SEEING = dict(  # how files name the text half of a model that also sees
    aliases={
        "model.language_model": "model",
        "language_model.model": "model",
        "language_model.lm_head": "lm_head",
    },
    modules={name: f"language_model.{name}" for name in ("embed_tokens", "layers", "norm")},
    ignored=r"^(model\.)?(vision_tower|multi_modal_projector|visual)\.|^mtp\.",
)
DELTA = dict(  # key of config.json -> its default
    linear_num_value_heads=32,
    linear_num_key_heads=16,
    linear_key_head_dim=128,
    linear_value_head_dim=128,
    linear_conv_kernel_dim=4,
)
MULTIPLIERS = "embedding_multiplier residual_multiplier attention_multiplier logits_scaling"
GEMMA2 = dict(
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=256,
    hidden_activation="gelu_pytorch_tanh",
    tie_word_embeddings=True,
    query_pre_attn_scalar=256,
    sliding_window=4096,
)
BERT = dict(
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    max_position_embeddings=512,
    type_vocab_size=2,
    attention_bias=True,
    mlp_bias=True,
    tie_word_embeddings=True,
)
FAMILIES = {
    "llama": Family(stem="Llama"),
    "mistral": Family(
        stem="Mistral",
        sliding=lambda hf, i: True,
        defaults=dict(num_key_value_heads=8, sliding_window=4096),
    ),
    "qwen2": Family(stem="Qwen2", config=lambda hf: dict(qkv_bias=True), sliding=qwen_slides, defaults=QWEN),
    "qwen3": Family(
        stem="Qwen3",
        config=lambda hf: dict(qk_norm="head"),
        sliding=qwen_slides,
        defaults=QWEN | dict(head_dim=128),
    ),
    "qwen3_5_text": Family(
        stem="Qwen3_5Text",
        names=QWEN3_5_NAMES,
        ignored=r"^mtp\.",  # layers that guess further tokens
        config=qwen3_5_text,
        kinds=by_key(
            {
                one_of("default", "yarn"): "rope_type type",
                number(0, 1): "partial_rotary_factor",
                list_of(one_of("linear_attention", "full_attention")): "layer_types",
                one_of("silu"): "hidden_act",
            }
        ),
        defaults=dict(
            num_key_value_heads=4,
            head_dim=256,
            partial_rotary_factor=0.25,
            full_attention_interval=4,
        )
        | DELTA,
    ),
    "qwen3_5": Family(names=QWEN3_5_NAMES, becomes=qwen3_5, **SEEING),
    "smollm3": Family(
        stem="SmolLM3",
        config=smollm3,
        kinds=by_key(
            {
                list_of(one_of(0, 1)): "no_rope_layers",
                one_of(False): "use_sliding_window",
                list_of(one_of("full_attention")): "layer_types",
            }
        ),
        defaults=dict(
            num_key_value_heads=4, rope_theta=2e6, no_rope_layer_interval=4, tie_word_embeddings=True
        ),
    ),
    "granite": Family(
        stem="Granite",
        config=granite,
        kinds=by_key({POSITIVE: MULTIPLIERS}),
        defaults=dict.fromkeys(MULTIPLIERS.split(), 1.0),
    ),
    "olmo2": Family(
        stem="Olmo2",
        names=OLMO2_NAMES,
        config=lambda hf: dict(norm="rms0", norms="out", qk_norm="full"),
        defaults=dict(rms_norm_eps=1e-5),
    ),
    "olmo3": Family(
        stem="Olmo3",
        names=OLMO2_NAMES,
        config=lambda hf: dict(norm="rms0", norms="out", qk_norm="full"),
        sliding=lambda hf, i: (i + 1) % 4 > 0,
        thetas=("rope_theta", "rope_theta"),
        defaults=dict(rms_norm_eps=1e-5, rope_theta=500_000.0, sliding_window=4096),
    ),
    "granitemoehybrid": Family(  # without experts and Mamba
        stem="GraniteMoeHybrid",
        names=HYBRID_NAMES,
        fused={"shared_mlp.input_linear": GATE_UP},
        config=granitemoehybrid,
        kinds=by_key(
            {
                POSITIVE: MULTIPLIERS,
                one_of(0): "num_local_experts",
                list_of(one_of("attention", "full_attention")): "layer_types",
                one_of("rope", "nope"): "position_embedding_type",
            }
        ),
        defaults=dict.fromkeys(MULTIPLIERS.split(), 1.0)
        | dict(num_local_experts=8, layer_types=["mamba"], shared_intermediate_size=1024),
    ),
    "gemma": Family(
        stem="Gemma",
        config=gemma,
        defaults=dict(
            num_key_value_heads=16, head_dim=256, hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True
        ),
    ),
    "gemma2": Family(
        stem="Gemma2",
        names=GEMMA2_NAMES,
        config=gemma2,
        sliding=lambda hf, i: i % 2 == 0,
        defaults=GEMMA2 | dict(final_logit_softcapping=30.0, attn_logit_softcapping=50.0),
    ),
    "gemma3_text": Family(
        stem="Gemma3Text",
        names=GEMMA2_NAMES,
        config=gemma3_text,
        kinds=by_key({FLAG: "use_bidirectional_attention"}),
        sliding=lambda hf, i: (i + 1) % hf["sliding_window_pattern"] > 0,
        thetas=("rope_theta", "rope_local_base_freq"),
        defaults=GEMMA2
        | dict(
            vocab_size=262_208,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            rope_theta=1e6,
            rope_local_base_freq=1e4,
            sliding_window_pattern=6,
        ),
    ),
    "gemma3": Family(names=GEMMA2_NAMES, becomes=gemma3, **SEEING),
    "ministral3": Family(
        stem="Ministral3",
        kinds=by_key(
            {
                one_of("yarn"): "rope_type type",
                POSITIVE: "llama_4_scaling_beta",
                one_of(None): "sliding_window layer_types",
            }
        ),
        defaults=dict(num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-5),
    ),
    "mistral3": Family(becomes=mistral3, **SEEING),
    "phi3": Family(
        stem="Phi3",
        fused={"attn.qkv_proj": QKV, "mlp.gate_up_proj": GATE_UP},
        sliding=lambda hf, i: True,
        kinds=by_key(
            {number(0, 1): "partial_rotary_factor", one_of("default", "longrope"): "rope_type type"}
        ),
        defaults=dict(rms_norm_eps=1e-5, original_max_position_embeddings=4096),
    ),
    "internlm2": Family(names=INTERNLM2_NAMES, fused={"attn.wqkv": QKV}, interleaved=True, becomes=internlm2),
    "bert": Family(
        stem="Bert",
        prefix="bert.",
        aliases=OLD_NORMS,
        names=BERT_NAMES,
        config=bert,
        ignored=r"^cls\.",
        defaults=BERT,
    ),
    "xlm-roberta": Family(
        stem="XLMRoberta",
        prefix="roberta.",
        names=ROBERTA_NAMES,
        ignored=r"^lm_head\.|^roberta\.pooler\.",
        config=lambda hf: bert(hf) | dict(place_offset=hf["pad_token_id"] + 1),
        defaults=BERT | dict(pad_token_id=1),
    ),
    "eurobert": Family(
        stem="EuroBert",
        names=EUROBERT_NAMES,
        config=eurobert,
        kinds=by_key({one_of("bos", "mean", "late"): "classifier_pooling", one_of("late"): "clf_pooling"}),
        defaults=dict(rms_norm_eps=1e-5, classifier_pooling="late"),
    ),
    "modernbert": Family(
        stem="ModernBert",
        names=MODERNBERT_NAMES,
        ignored=r"^decoder\.",
        config=modernbert,
        fused={"attn.Wqkv": QKV, "mlp.Wi": GATE_UP},
        sliding=lambda hf, i: i % hf["global_attn_every_n_layers"] > 0,
        thetas=("global_rope_theta", "local_rope_theta"),
        defaults=dict(
            norm_eps=1e-5,
            norm_bias=False,
            hidden_activation="gelu",
            local_attention=128,
            global_attn_every_n_layers=3,
            global_rope_theta=160_000.0,
            local_rope_theta=10_000.0,
            classifier_pooling="cls",
            classifier_activation="gelu",
            classifier_bias=False,
            tie_word_embeddings=True,
        ),
    ),
}
EXPERTS = "mixtral qwen3_moe qwen3_next qwen3_5_moe qwen3_5_moe_text gpt_oss".split()
DENSE = Kind("a family without experts", lambda x: x not in EXPERTS)
REQUIRED = {  # key of config.json -> field of Config
    "vocab_size": "vocab",
    "hidden_size": "dim",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_dim",
}
OPTIONAL = {
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "layer_norm_eps": "eps",
    "norm_eps": "eps",  # overrides the line above where a file has both
    "rms_norm_eps": "eps",
    "hidden_act": "activation",
    "hidden_activation": "activation",
    "mlp_bias": "mlp_bias",
    "tie_word_embeddings": "tied",
    "type_vocab_size": "types",
    "attn_logit_softcapping": "softcap",
    "final_logit_softcapping": "logit_softcap",
    "norm_bias": "norm_bias",
    "classifier_pooling": "pooling",
    "classifier_activation": "dense",
    "classifier_bias": "dense_bias",
}
# What the keys may hold. The ranges are wide: they only keep the size of a tensor below what torch can count.
SIZE = whole(1, 1 << 20)
KINDS = by_key(
    {
        one_of(*FAMILIES): "model_type",
        SIZE: "hidden_size intermediate_size num_attention_heads num_key_value_heads head_dim "
        "type_vocab_size num_labels sliding_window_pattern global_attn_every_n_layers no_rope_layer_interval "
        "shared_intermediate_size full_attention_interval",
        whole(1, 1 << 13): f"num_hidden_layers {' '.join(DELTA)}",
        whole(-1, 1 << 31): "pad_token_id",
        LENGTH: "vocab_size max_position_embeddings original_max_position_embeddings",
        COUNT: "sliding_window local_attention max_window_layers",
        number(0, 1): "layer_norm_eps norm_eps rms_norm_eps",
        POSITIVE: "attn_logit_softcapping final_logit_softcapping query_pre_attn_scalar rope_theta "
        "rope_local_base_freq global_rope_theta local_rope_theta",
        FLAG: "attention_bias bias mlp_bias norm_bias classifier_bias tie_word_embeddings use_sliding_window",
        one_of(*ACTIVATIONS): "hidden_act hidden_activation classifier_activation",
        one_of("cls", "mean"): "classifier_pooling",
        list_of(one_of("full_attention", "sliding_attention")): "layer_types",
        list_of(TEXT): "architectures",
        OBJECT: "text_config id2label rope_scaling rope_parameters quantization_config",
        # Other values would change the result but no tensor's name or shape, so that loading the weights
        # would not notice.
        one_of(False): "use_bidirectional_attention is_decoder add_cross_attention",
        one_of("absolute"): "position_embedding_type",
        number(1, 1): f"partial_rotary_factor {MULTIPLIERS}",
        one_of(None): "no_rope_layers",
    }
)


# ------------------------------------------------------------------------------------------------ config.json
def read_config(folder: Path) -> tuple[Config, str]:
    """The Config of a model folder, and the name of the family in its file. Raises FileNotFoundError, or
    ValueError that names what is wrong or not supported."""
    path = folder / "config.json"
    hf = read_settings(path, {})
    return config_from_hf(hf, path), hf["model_type"]


def config_from_hf(hf: dict, where="config.json") -> Config:
    """Translate a config.json to a Config. Raises ValueError that names what is wrong or not supported.

    where: the file's name, for messages."""
    for kind in (DENSE, KINDS["model_type"]):
        check_fields(where, hf, {"model_type": kind}, ["model_type"])
    family = FAMILIES[hf["model_type"]]
    kinds = KINDS | family.kinds
    check_fields(where, hf, kinds)
    if family.becomes:
        return config_from_hf(family.becomes(hf), where)
    settings = {key: value for key, value in {**family.defaults, **hf}.items() if value is not None}
    if "original_max_position_embeddings" not in family.defaults:
        settings.pop("original_max_position_embeddings", None)  # others have it in their rotary settings
    heads = settings.get("num_attention_heads", 1)
    settings.setdefault("num_key_value_heads", heads)
    settings.setdefault("head_dim", settings.get("hidden_size", 1) // heads)
    check_fields(where, settings, kinds, REQUIRED)
    try:
        special = windows(settings, family) | family.config(settings)
    except KeyError as error:
        raise ValueError(f"{where}: {error} is null, but this family needs it") from error
    if "rope" not in special:
        theta, local_theta = family.thetas
        special["rope"] = rope_from_hf(settings, "full_attention", theta, family.kinds, where)
        if local_theta:
            settings.setdefault(local_theta, special["rope"]["rope_theta"])
            sliding = rope_from_hf(settings, "sliding_attention", local_theta, family.kinds, where)
            special["local_rope"] = sliding
    common = {}
    for theirs, ours in (REQUIRED | OPTIONAL).items():
        if theirs in settings:
            common[ours] = settings[theirs]
    bias = settings.get("attention_bias", False)
    common |= dict(qkv_bias=bias, o_bias=bias, hf=hf)
    config = Config(**common | special)

    architecture = (hf.get("architectures") or [""])[0]
    if architecture.endswith("ForSequenceClassification"):
        config.head = "classes"
        config.labels = hf.get("num_labels") or len(hf.get("id2label") or "") or 2
        if config.labels > 1:  # the classes exclude each other
            check_fields(where, hf, {"problem_type": one_of("single_label_classification")})
    elif architecture.endswith("Model") or not config.causal:
        config.head = "none"
    config.tied = config.tied and config.head == "lm"
    for key in ("no_rope_layers", "layer_types"):
        named = len(settings.get(key) or range(config.layers))
        if named != config.layers:
            raise ValueError(f"{where}: {key} names {named} of {config.layers} layers")
    if heads % config.kv_heads:
        raise ValueError(f"{where}: {heads} heads are not a multiple of {config.kv_heads} key/value heads")
    if config.recurrent and config.delta[0] % config.delta[1]:
        raise ValueError(f"{where}: linear_num_value_heads is not a multiple of linear_num_key_heads")
    return config


def windows(settings, family):
    """The Config fields sliding and reach, {} where no layer slides.

    A decoder's window of w tokens includes the token itself, so it reaches w - 1 back; that of a model that
    sees both ways covers both sides and reaches w / 2."""
    if not family.sliding:
        return {}
    kinds = settings.get("layer_types")
    if kinds:
        sliding = tuple(kind == "sliding_attention" for kind in kinds)
    else:
        sliding = tuple(family.sliding(settings, i) for i in range(settings["num_hidden_layers"]))
    reach = settings.get("sliding_window", 0) - 1
    if settings.get("use_bidirectional_attention"):
        reach = settings.get("sliding_window", -1) // 2
    if "local_attention" in settings:
        reach = settings["local_attention"] // 2
    return dict(sliding=sliding, reach=reach) if any(sliding) and reach >= 0 else {}


# ------------------------------------------------------------------------------------------------ changes
def with_head(config: Config, head: str | int) -> Config:
    """The Config of the same model with another head: "none", or k for k classes."""
    hf = dict(config.hf)
    for key in ("num_labels", "id2label", "label2id", "problem_type"):
        hf.pop(key, None)
    if head == "none":
        hf["architectures"] = [config.family.stem + "Model"]
    else:
        hf["architectures"] = [config.family.stem + "ForSequenceClassification"]
        hf["id2label"] = {str(i): f"LABEL_{i}" for i in range(head)}
        hf["label2id"] = {f"LABEL_{i}": i for i in range(head)}
    return config_from_hf(hf)


def small_config(kind: str, sizes, vocab: int, begin: int, end: int) -> dict:
    """The config.json of a new "decoder" or "encoder". sizes has dim, layers, heads and mlp_dim; begin and
    end are the ids of the tokens around a text."""
    common = {
        "vocab_size": vocab,
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.mlp_dim,
        "max_position_embeddings": 4096,
        "attention_bias": False,
        "bos_token_id": begin,
        "eos_token_id": end,
    }
    decoder = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "num_key_value_heads": sizes.heads,
        "head_dim": sizes.dim // sizes.heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    }
    encoder = {
        "model_type": "modernbert",
        "architectures": ["ModernBertModel"],
        "norm_eps": 1e-6,
        "global_rope_theta": 10_000.0,
        "global_attn_every_n_layers": 1,
        "hidden_activation": "gelu",
        "classifier_pooling": "mean",
        "pad_token_id": end,
        "sep_token_id": end,
        "cls_token_id": begin,
    }
    return common | {"decoder": decoder, "encoder": encoder}[kind]
