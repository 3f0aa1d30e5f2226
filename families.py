"""What a Hugging Face checkpoint may look like: Config, and the table of how each family differs from Llama.

`config_from_hf` turns a config.json of either dialect into a Config; model.py builds what a Config says and
knows no family. To add one, write a row of FAMILIES, then a shape in tests/conftest.py and a golden file."""

from dataclasses import dataclass, field


@dataclass
class Config:
    """A checkpoint's shape in our words; `hf` keeps its config.json, which saving writes back."""

    # sizes
    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int  # need not be dim / heads
    mlp_dim: int
    # embeddings
    embed_scale: bool = False  # times sqrt(dim), rounded to the weights' dtype
    embed_norm: bool = False
    places: int = 0  # learned positions, where there is no rotation
    place_offset: int = 0  # number of the first one
    types: int = 0  # token types, of which only the first is used
    # blocks
    eps: float = 1e-6  # of every norm
    norm: str = "rms"  # rms, rms1 (scaled by 1 + weight) or layer
    norm_bias: bool = False
    norms: str = "pre"  # where: pre, sandwich (on each branch's output as well) or post (on the sum)
    first_norm: bool = True  # before the first layer's attention
    final_norm: bool = True  # after the last layer
    activation: str = "silu"
    gated: bool = True  # act(gate(x)) * up(x) instead of act(up(x))
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    # attention
    causal: bool = True
    qk_norm: bool = False  # norm of each query and key head before the rotation
    scale: float | None = None  # of the scores; None is head_dim ** -0.5
    softcap: float | None = None  # scores become softcap * tanh(scores / softcap)
    sliding: tuple = ()  # for each layer whether it sees its neighbourhood only
    reach: int = 0  # a sliding layer sees tokens at most this many places away
    rope: dict | None = None  # rope_type, rope_theta and what the type needs; None does not rotate
    local_rope: dict | None = None  # the same for sliding layers, where it differs
    # head
    tied: bool = False  # the head is the embedding
    logit_softcap: float | None = None
    labels: int | None = None  # classes; 0 has no head at all; None a language model's head
    pooling: str = "last"  # what is classified: the last token, the first (cls) or the mean
    dense: str = ""  # activation of a layer between pooling and classes
    dense_bias: bool = False
    dense_norm: bool = False
    classes_bias: bool = False
    hf: dict = field(default_factory=dict, repr=False, compare=False)


# ------------------------------------------------------------------------------------------------ the table
# A row states how a family differs from Llama:
#   rename    the file's names -> ours, whole dotted components only, so that it inverts for saving; in order
#   aliases   other names of the same, put right before
#   ignored   names of tensors that are no part of the model here: a regular expression
#   prefix    what the names of all but the heads start with; files of a bare model lack it
#   fused     one tensor of the file -> ours, stacked by rows (or within each key/value head: interleaved)
#   defaults  what its config.json leaves out, as the family's own code has it
#   config    what is special, from the config.json with its defaults
#   sliding   whether layer i slides, where the file does not list layer_types
#   thetas    names of the rotary bases, where sliding layers have their own
#   becomes   config.json of a family of this table that the model equals, and is saved as
#   stem      of its class names in `architectures`
LLAMA_NAMES = [
    ("model.embed_tokens", "embed"),
    ("model.layers", "layers"),
    ("model.norm", "norm"),
    ("lm_head", "head"),
    ("score", "classifier.out"),
    ("self_attn", "attn"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "mlp_norm"),
]
GEMMA2_NAMES = LLAMA_NAMES[:-1] + [  # the same name is another norm here
    ("post_attention_layernorm", "attn_out_norm"),
    ("pre_feedforward_layernorm", "mlp_norm"),
    ("post_feedforward_layernorm", "mlp_out_norm"),
]
BERT_NAMES = [
    ("bert.embeddings.word_embeddings", "embed"),
    ("bert.embeddings.position_embeddings", "places"),
    ("bert.embeddings.token_type_embeddings", "types"),
    ("bert.embeddings.LayerNorm", "embed_norm"),
    ("bert.encoder.layer", "layers"),
    ("attention.self.query", "attn.q_proj"),
    ("attention.self.key", "attn.k_proj"),
    ("attention.self.value", "attn.v_proj"),
    ("attention.output.dense", "attn.o_proj"),
    ("attention.output.LayerNorm", "attn_norm"),
    ("intermediate.dense", "mlp.up_proj"),
    ("output.dense", "mlp.down_proj"),
    ("output.LayerNorm", "mlp_norm"),
    ("classifier", "classifier.out"),
    ("bert.pooler.dense", "classifier.dense"),
]
ROBERTA_NAMES = [(old.replace("bert.", "roberta."), new) for old, new in BERT_NAMES[:-2]] + [
    ("classifier.out_proj", "classifier.out"),
]
MODERNBERT_NAMES = [
    ("classifier", "classifier.out"),
    ("head.dense", "classifier.dense"),
    ("head.norm", "classifier.dense_norm"),
    ("model.embeddings.tok_embeddings", "embed"),
    ("model.embeddings.norm", "embed_norm"),
    ("model.layers", "layers"),
    ("model.final_norm", "norm"),
    ("attn.Wo", "attn.o_proj"),
    ("mlp.Wo", "mlp.down_proj"),
]
INTERNLM2_NAMES = [
    ("model.tok_embeddings", "embed"),
    ("model.layers", "layers"),
    ("model.norm", "norm"),
    ("output", "head"),
    ("attention", "attn"),
    ("wo", "o_proj"),
    ("feed_forward.w1", "mlp.gate_proj"),
    ("feed_forward.w3", "mlp.up_proj"),
    ("feed_forward.w2", "mlp.down_proj"),
    ("attention_norm", "attn_norm"),
    ("ffn_norm", "mlp_norm"),
]
OLD_NORMS = [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")]
QKV, GATE_UP = ("attn.q_proj", "attn.k_proj", "attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")


def gemma(hf):
    act = (
        "gelu_pytorch_tanh" if hf["hidden_act"] == "gelu" else hf["hidden_act"]
    )  # what the first files meant
    return dict(norm="rms1", embed_scale=True, activation=act)


def gemma2(hf):
    return dict(
        norm="rms1",
        norms="sandwich",
        embed_scale=True,
        activation=hf["hidden_activation"],
        scale=hf["query_pre_attn_scalar"] ** -0.5,
        softcap=hf.get("attn_logit_softcapping"),
        logit_softcap=hf.get("final_logit_softcapping"),
    )


def bert(hf):
    return dict(
        embed_norm=True,
        places=hf["max_position_embeddings"],
        types=hf["type_vocab_size"],
        eps=hf["layer_norm_eps"],
        norm="layer",
        norm_bias=True,
        norms="post",
        final_norm=False,
        gated=False,
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
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
        eps=hf["norm_eps"],
        norm="layer",
        norm_bias=hf["norm_bias"],
        first_norm=False,  # the embeddings are normalised already
        activation=hf["hidden_activation"],
        causal=False,
        pooling=hf["classifier_pooling"],
        dense=hf["classifier_activation"],
        dense_bias=hf["classifier_bias"],
        dense_norm=True,
        classes_bias=True,
    )


def internlm2(hf):
    same = {k: v for k, v in hf.items() if k not in ("auto_map", "bias", "attn_implementation")}
    bias = bool(hf.get("bias", True))  # on all of attention; the MLP has none
    return same | dict(model_type="llama", architectures=["LlamaForCausalLM"], attention_bias=bias)


def gemma3(hf):
    head = {"architectures": ["Gemma3ForCausalLM"]}
    own = {k: hf[k] for k in ("torch_dtype", "dtype", "eos_token_id", "bos_token_id") if k in hf}
    return head | own | hf.get("text_config", {}) | {"model_type": "gemma3_text"}


WINDOW_OPTION = dict(  # written into every config.json, switched on in few
    use_sliding_window=False, sliding_window=4096, max_window_layers=28
)
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
    tie_word_embeddings=True,
)
FAMILIES = {
    "llama": dict(stem="Llama"),
    "mistral": dict(
        stem="Mistral",
        sliding=lambda hf, i: True,
        defaults=dict(num_key_value_heads=8, sliding_window=4096),
    ),
    "qwen2": dict(
        stem="Qwen2",
        config=lambda hf: dict(qkv_bias=True),
        sliding=lambda hf, i: hf["use_sliding_window"] and i >= hf["max_window_layers"],
        defaults=WINDOW_OPTION,
    ),
    "qwen3": dict(
        stem="Qwen3",
        config=lambda hf: dict(qk_norm=True),
        sliding=lambda hf, i: hf["use_sliding_window"] and i >= hf["max_window_layers"],
        defaults=WINDOW_OPTION | dict(head_dim=128),
    ),
    "gemma": dict(
        stem="Gemma",
        config=gemma,
        defaults=dict(
            num_key_value_heads=16, head_dim=256, hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True
        ),
    ),
    "gemma2": dict(
        stem="Gemma2",
        rename=GEMMA2_NAMES,
        config=gemma2,
        sliding=lambda hf, i: i % 2 == 0,
        defaults=GEMMA2 | dict(final_logit_softcapping=30.0, attn_logit_softcapping=50.0),
    ),
    "gemma3_text": dict(
        stem="Gemma3Text",
        rename=GEMMA2_NAMES,
        config=lambda hf: gemma2(hf) | dict(qk_norm=True),
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
    "gemma3": dict(  # the text half of a checkpoint that also sees
        aliases=[
            ("model.language_model", "model"),
            ("language_model.model", "model"),
            ("language_model.lm_head", "lm_head"),
        ],
        rename=GEMMA2_NAMES,
        becomes=gemma3,
        ignored=r"^(model\.)?(vision_tower|multi_modal_projector)\.",
    ),
    "phi3": dict(
        stem="Phi3",
        fused={"attn.qkv_proj": QKV, "mlp.gate_up_proj": GATE_UP},
        sliding=lambda hf, i: True,
        defaults=dict(rms_norm_eps=1e-5),
    ),
    "internlm2": dict(rename=INTERNLM2_NAMES, fused={"attn.wqkv": QKV}, interleaved=True, becomes=internlm2),
    "bert": dict(
        stem="Bert",
        prefix="bert",
        aliases=OLD_NORMS,
        rename=BERT_NAMES,
        config=bert,
        ignored=r"^cls\.",
        defaults=BERT,
    ),
    "xlm-roberta": dict(
        stem="XLMRoberta",
        prefix="roberta",
        rename=ROBERTA_NAMES,
        ignored=r"^lm_head\.|^roberta\.pooler\.",
        config=lambda hf: bert(hf) | dict(place_offset=hf["pad_token_id"] + 1),
        defaults=BERT | dict(pad_token_id=1),
    ),
    "modernbert": dict(
        stem="ModernBert",
        rename=MODERNBERT_NAMES,
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
REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
UNSUPPORTED = {  # what would change the result without changing a tensor's name or shape
    "use_bidirectional_attention": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "partial_rotary_factor": 1.0,
    "position_embedding_type": "absolute",
    "no_rope_layers": None,
    "quantization_config": None,
}
ROPE_TYPES = {  # and what each needs
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


# ------------------------------------------------------------------------------------------------ names
def row_of(config):
    """The row by which a model is saved."""
    return FAMILIES[config.hf["model_type"]]


def names_of(row):
    return row.get("rename", LLAMA_NAMES)


def rename(key, pairs):
    """Apply (old, new) pairs of whole dotted components to a tensor's name, in order."""
    dotted = f".{key}."
    for old, new in pairs:
        dotted = dotted.replace(f".{old}.", f".{new}.", 1)
    return dotted[1:-1]


def inverse(pairs):
    return [(new, old) for old, new in reversed(pairs)]


# ------------------------------------------------------------------------------------------------ config.json
def config_from_hf(hf, where="config.json"):
    """Translate a config.json (a dict) to a Config, or raise ValueError naming what is not supported."""
    name = hf.get("model_type")
    if name not in FAMILIES:
        raise ValueError(
            f"{where}: model_type {name!r} is not supported; supported are {', '.join(FAMILIES)}"
        )
    row = FAMILIES[name]
    if "becomes" in row:
        hf = row["becomes"](hf)
        name, row = hf["model_type"], FAMILIES[hf["model_type"]]
    value = {k: v for k, v in {**row.get("defaults", {}), **hf}.items() if v is not None}
    missing = [key for key in REQUIRED if key not in value]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing; every {name} config.json states them")
    for key, only in UNSUPPORTED.items():
        if value.get(key, only) != only:
            raise ValueError(f"{where}: {key} {value[key]!r} is not supported")
    heads, bias = value["num_attention_heads"], bool(value.get("attention_bias", False))
    common = dict(
        vocab=value["vocab_size"],
        dim=value["hidden_size"],
        layers=value["num_hidden_layers"],
        heads=heads,
        kv_heads=value.get("num_key_value_heads", heads),
        head_dim=value.get("head_dim", value["hidden_size"] // heads),
        mlp_dim=value["intermediate_size"],
        eps=value.get("rms_norm_eps", 1e-6),
        activation=value.get("hidden_act", "silu"),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bool(value.get("mlp_bias", False)),
        tied=bool(value.get("tie_word_embeddings", False)),
        hf=hf,
    )
    special = row.get("config", lambda hf: {})(value)
    if "rope" not in special:
        theta, local_theta = row.get("thetas", ("rope_theta", None))
        special["rope"] = rope_from_hf(value, "full_attention", theta, where)
        if local_theta:
            value.setdefault(local_theta, special["rope"]["rope_theta"])
            special["local_rope"] = rope_from_hf(value, "sliding_attention", local_theta, where)
    config = Config(**common | windows(value, row, where) | special)
    config.labels = labels_of(hf, config)
    if config.labels is not None:
        config.tied = False
    if config.heads % config.kv_heads:
        raise ValueError(
            f"{where}: {config.heads} heads are no multiple of {config.kv_heads} key/value heads"
        )
    return config


def windows(value, row, where):
    """sliding and reach of a Config. A window of w tokens counts the token itself; of an encoder, both
    sides."""
    if "sliding" not in row:
        return {}
    layers, kinds = range(value["num_hidden_layers"]), value.get("layer_types")
    sliding = tuple(bool(row["sliding"](value, i)) for i in layers)
    if kinds:
        unknown = set(kinds) - {"full_attention", "sliding_attention"}
        if unknown or len(kinds) != len(layers):
            raise ValueError(f"{where}: layer_types {sorted(unknown) or len(kinds)} are not supported")
        sliding = tuple(kind == "sliding_attention" for kind in kinds)
    if "local_attention" in value:
        reach = value["local_attention"] // 2
    else:
        reach = value.get("sliding_window", 0) - 1
    return dict(sliding=sliding, reach=reach) if any(sliding) and reach >= 0 else {}


def rope_from_hf(value, kind, theta, where):
    """The rotary settings of one kind of layer, in either dialect: a base and rope_scaling at the top level,
    or transformers 5's rope_parameters, nested by kind where sliding layers have their own."""
    rope = value.get("rope_parameters") or value.get("rope_scaling") or {}
    if any(isinstance(setting, dict) for setting in rope.values()):
        rope = rope.get(kind) or {}
    elif kind == "sliding_attention":
        rope = {}
    rope = {k: v for k, v in rope.items() if v is not None}
    rope["rope_type"] = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    rope.setdefault("rope_theta", float(value.get(theta, 10_000.0)))
    name = rope["rope_type"]
    if name not in ROPE_TYPES:
        known = ", ".join(ROPE_TYPES)
        raise ValueError(f"{where}: rope scaling {name!r} is not supported; supported are {known}")
    if rope.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"{where}: partial_rotary_factor is not supported")
    if name == "dynamic":
        rope["max_position_embeddings"] = value.get("max_position_embeddings")
    for key in ROPE_TYPES[name]:
        if rope.get(key) is None:
            raise ValueError(f"{where}: rope scaling {name!r} without {key!r}")
    return rope if name != "default" else {"rope_type": name, "rope_theta": rope["rope_theta"]}


def set_labels(config, labels):
    """Give a Config another head: so many classes, or with 0 none."""
    stem, hf = (
        row_of(config)["stem"],
        {k: v for k, v in config.hf.items() if k not in ("id2label", "label2id")},
    )
    hf["architectures"] = [stem + ("ForSequenceClassification" if labels else "Model")]
    if labels:
        hf["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}
        hf["label2id"] = {f"LABEL_{i}": i for i in range(labels)}
    config.labels, config.tied, config.hf = labels, False, hf


def labels_of(hf, config):
    """Config.labels as `architectures` has it."""
    kind = (hf.get("architectures") or [""])[0]
    if kind.endswith("ForSequenceClassification"):
        return hf.get("num_labels") or len(hf.get("id2label") or "") or 2
    return None if config.causal and not kind.endswith("Model") else 0
