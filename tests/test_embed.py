"""Text to vectors: tokens, pooling, prompts, dense layers, and folders read and written."""

import json
import shutil

import pytest
import tokenizers
import torch
from conftest import tiny_model
from safetensors.torch import save_file
from tokenizers import normalizers, pre_tokenizers, processors
from torch.testing import assert_close

from agents import Encoder
from embed import laid_out, load_embedder, padded, save_embedder
from model import save

WORDS = "a b c d e f g h red green blue find : ( [ ] SEP".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = ["a b c", "red", "", "green blue a b c d e f g h", "c b a", "h g f e d c"]
CLS, SEP = 2, 3


def near(actual, expected, tolerance=1e-5):
    assert_close(actual, expected, atol=tolerance, rtol=0)


def words(around="[CLS] $A [SEP]"):
    """A tokenizer of single words, which puts special tokens around a text."""
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(SPECIAL)
    named = [(name, i) for i, name in enumerate(SPECIAL) if name in around]
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=named)
    return inner


def pieces(text):
    """A tokenizer whose special tokens are pieces of its vocabulary as well, and which unifies characters."""
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁", -2.0)]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab + [(char, -5.0) for char in text], unk_id=3))
    inner.normalizer, inner.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    inner.add_special_tokens([name for name, _ in vocab[:4]])
    around = [("<s>", 0), ("</s>", 2)]
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=around)
    return inner


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def modules(*kinds, package="sentence_transformers.models"):
    return [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"{package}.{kind}"}
        for i, kind in enumerate(kinds)
    ]


def dense(folder, out, activation="torch.nn.modules.activation.Tanh", bias=True, **more):
    """Write a random dense layer; its state."""
    generator = torch.Generator().manual_seed(5)
    state = {"linear.weight": torch.randn(out, 32, generator=generator) / 6}
    if bias:
        state["linear.bias"] = torch.randn(out, generator=generator)
    settings = {"in_features": 32, "out_features": out, "bias": bias, "activation_function": activation}
    write(folder / "config.json", settings | more)
    save_file(state, folder / "model.safetensors")
    return state


@pytest.fixture
def folder(tmp_path):
    """A function that writes a sentence-transformers folder and gives its path."""

    def make(
        kinds=("Transformer", "Pooling"),
        pooling="mean",
        family="bert",
        inner=None,
        config=None,
        settings=None,
    ):
        path = tmp_path / "made"
        save(tiny_model(family), path)
        (inner or words()).save(str(path / "tokenizer.json"))
        if kinds:
            write(path / "modules.json", modules(*kinds))
            write(path / "1_Pooling/config.json", {"pooling_mode": pooling, "embedding_dimension": 32})
        if "Dense" in kinds:
            dense(path / "2_Dense", 5)
        if config:
            write(path / "config_sentence_transformers.json", config)
        if settings:
            write(path / "sentence_bert_config.json", settings)
        return path

    return make


@torch.no_grad()
def hidden(embedder, ids):
    return embedder.model(torch.tensor([ids]))[0]  # (T, D)


def ids_of(embedder, text, prompt=""):
    return embedder.tokens([text], prompt)[0][0]


# ------------------------------------------------------------------------------------------------ batches
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "qwen3"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_a_batch_gives_what_its_texts_give_alone_in_their_order(folder, family, pooling):
    embedder = load_embedder(folder(family=family, pooling=pooling))
    alone = torch.cat([embedder.embed([text]) for text in TEXTS])
    assert alone.dtype == torch.float32 and alone.shape == (6, 32)
    for budget in (1, 10, 24, 1000):
        near(embedder.embed(TEXTS, batch_tokens=budget), alone)


def test_batches_keep_to_their_budget_with_padding_counted(folder, monkeypatch):
    embedder, shapes = load_embedder(folder()), []
    forward = embedder.model.forward
    monkeypatch.setattr(
        embedder.model, "forward", lambda ids, *a: shapes.append(ids.shape) or forward(ids, *a)
    )
    embedder.embed(TEXTS, batch_tokens=20)
    assert shapes[0] == (1, 12) and sum(B for B, _ in shapes) == 6
    assert all(B * T <= 20 for B, T in shapes)


@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3"])
def test_many_texts_under_weights_laid_out_anew_give_what_each_gives_alone(folder, family, monkeypatch):
    """More than 2,048 tokens are worth copying the weights for; afterwards the model is as it was."""
    embedder = load_embedder(folder(family=family))
    texts = [" ".join("abcdefgh"[(i + j) % 8] for j in range(1 + i % 40)) for i in range(120)]
    entered = []
    monkeypatch.setattr("embed.laid_out", lambda model, real=laid_out: entered.append(1) or real(model))
    together = embedder.embed(texts)
    alone = torch.cat([embedder.embed([text]) for text in texts])
    assert len(entered) == 1
    near(together, alone)
    assert not any("forward" in vars(module) for module in embedder.model.modules())
    embedder.vectors(*padded(embedder.tokens(texts[:3]), "cpu")).sum().backward()
    assert embedder.model.layers[0].attn.q_proj.weight.grad.abs().max() > 0


def test_a_fingerprint_changes_with_all_that_changes_a_vector(folder):
    embedder, seen = load_embedder(folder()), set()

    def new(*texts, kind="document"):
        seen.add(embedder.fingerprint(list(texts), kind))
        return len(seen)

    assert new("a", "b") == new("a", "b") == 1
    assert new("b", "a") == 2 and new("ab") == 3
    embedder.prompts["query"] = "find: "
    assert new("a", "b", kind="query") == 4
    embedder.normalise = not embedder.normalise
    assert new("a", "b") == 5
    embedder.cut(4)
    assert new("a", "b") == 6
    with torch.no_grad():
        embedder.model.layers[0].attn.q_proj.weight[0, 0] += 1e-3
    assert new("a", "b") == 7
    embedder.model.config.eps = 0.5
    assert new("a", "b") == 8


def test_vectors_of_documents_are_kept_on_disk_and_never_stale(folder, tmp_path, monkeypatch):
    embedder, calls = load_embedder(folder()), []
    embed = embedder.embed
    monkeypatch.setattr(embedder, "embed", lambda *a, **k: calls.append(a) or embed(*a, **k))
    agent = Encoder(embedder, tmp_path / "cache")
    first, again = agent.embed(TEXTS), agent.embed(TEXTS)
    assert len(calls) == 1 and (first == again).all()
    agent.embed(TEXTS, "query")
    agent.embed(TEXTS, "query")
    assert len(calls) == 3  # queries are not kept
    with torch.no_grad():
        embedder.model.embed.weight += 0.1
    assert (agent.embed(TEXTS) != first).any() and len(calls) == 4
    assert all(path.suffix == ".safetensors" for path in (tmp_path / "cache").iterdir())


def test_no_texts_give_no_vectors(folder):
    assert load_embedder(folder(("Transformer", "Pooling", "Dense"))).embed([]).shape == (0, 5)


def test_one_text_in_place_of_a_list_is_refused(folder):
    with pytest.raises(ValueError, match="list of texts"):
        load_embedder(folder()).embed("a b")


def test_vectors_can_be_trained(folder):
    embedder = load_embedder(folder(("Transformer", "Pooling", "Dense", "Normalize")))
    embedder.vectors(*padded(embedder.tokens(["a b", "c"]), "cpu"))[:, 0].sum().backward()
    assert embedder.model.embed.weight.grad.abs().max() > 0
    assert embedder.dense[0].linear.weight.grad.abs().max() > 0


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_a_text_without_any_token_is_a_vector_of_zeros(folder, pooling):
    embedder = load_embedder(folder(pooling=pooling, family="qwen3", inner=words("$A")))
    assert embedder.embed(["", "a"]).abs().amax(1)[0] == 0
    assert embedder.embed([""]).tolist() == [[0.0] * 32]


# ------------------------------------------------------------------------------------------------ tokens
def test_padding_and_truncation_of_the_file_are_reset(folder):
    inner = words()
    inner.enable_padding(length=16)
    inner.enable_truncation(4)
    embedder = load_embedder(folder(inner=inner))
    assert ids_of(embedder, "a b c d e f") == [CLS, 4, 5, 6, 7, 8, 9, SEP]


@pytest.mark.parametrize("count", [3, 4, 5])
def test_truncation_keeps_the_special_token_that_closes(folder, count):
    embedder = load_embedder(folder(settings={"max_seq_length": 6}))
    expected = [CLS, 4, 5, 6, 7, 8, 9][: 1 + min(count, 4)] + [SEP]
    assert ids_of(embedder, " ".join(WORDS[:count])) == expected


def test_the_length_is_that_of_the_settings_else_of_tokenizer_and_model(folder):
    path = folder()
    assert load_embedder(path).max_length == 256  # max_position_embeddings
    write(path / "tokenizer_config.json", {"model_max_length": 40})
    assert load_embedder(path).max_length == 40
    write(path / "sentence_roberta_config.json", {"max_seq_length": 50})  # as older folders name it
    assert load_embedder(path).max_length == 50
    assert load_embedder(path, max_length=9).max_length == 9


def test_a_length_beyond_the_learned_positions_is_cut(folder):
    """Stored as 514 in folders whose first two positions are padding's."""
    embedder = load_embedder(folder(family="xlm-roberta", settings={"max_seq_length": 256}))
    assert embedder.max_length == 254
    embedder.embed(["a " * 300])


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("text", ["a [SEP] b", "[CLS][SEP]", "[PAD]"])
def test_a_spelled_special_token_is_text(folder, text, lower):
    embedder = load_embedder(folder(settings={"do_lower_case": lower}))
    ids = ids_of(embedder, text)
    assert ids[0] == CLS and ids[-1] == SEP
    assert not {0, CLS, SEP} & set(ids[1:-1]) and len(ids) > 3


@pytest.mark.parametrize("text", ["a </s> a", "<s>", "a＜/s＞a", "</s></s>"])
def test_a_special_token_that_is_a_piece_as_well_cannot_be_spelled(folder, text):
    """The vocabulary of such tokenizers holds "</s>" as a piece of the best score; the third spells it in
    wide characters, which become plain ones."""
    embedder = load_embedder(folder(inner=pieces("as</>")))
    (encoding,) = embedder.encodings([text])
    assert [i for i in encoding.ids if i < 3] == [0, 2] and "s" in encoding.tokens
    assert "".join(encoding.tokens[1:-1]).replace("▁", "") == text.translate(
        {0xFF1C: "<", 0xFF1E: ">", 32: ""}
    )


def test_a_spelled_special_token_does_not_lengthen_a_text(folder):
    embedder = load_embedder(folder(inner=pieces("as</>"), settings={"max_seq_length": 7}))
    ids = ids_of(embedder, "a " * 9 + "</s>")
    assert len(ids) == 7 and ids[-1] == 2


def test_lower_case_is_honoured(folder):
    path = folder(settings={"do_lower_case": True})
    assert ids_of(load_embedder(path), "Red") == ids_of(load_embedder(path), "red")
    write(path / "sentence_bert_config.json", {"do_lower_case": False})
    assert ids_of(load_embedder(path), "Red") != ids_of(load_embedder(path), "red")


def test_an_end_token_that_is_asked_for_but_not_added_is_an_error(folder):
    path = folder(inner=words("$A"))
    write(path / "tokenizer_config.json", {"add_eos_token": True})
    with pytest.raises(ValueError, match=r"tokenizer\.json: adds no end token"):
        load_embedder(path)


# ------------------------------------------------------------------------------------------------ pooling
@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize(
    "pooling, by_hand",
    [("cls", lambda h: h[0]), ("mean", lambda h: h.mean(0)), ("lasttoken", lambda h: h[-1])],
)
def test_pooling_by_hand(folder, family, pooling, by_hand):
    embedder = load_embedder(folder(pooling=pooling, family=family))
    found = embedder.embed(TEXTS)
    for vector, text in zip(found, TEXTS):
        near(vector, by_hand(hidden(embedder, ids_of(embedder, text))))


@pytest.mark.parametrize(
    "old, new",
    [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ],
)
def test_old_and_new_pooling_settings_mean_the_same(folder, old, new):
    path = folder(pooling=new)
    expected = load_embedder(path).embed(TEXTS)
    flags = dict.fromkeys(
        ["pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_lasttoken"], False
    )
    write(path / "1_Pooling/config.json", {"word_embedding_dimension": 32} | flags | {old: True})
    assert torch.equal(load_embedder(path).embed(TEXTS), expected)


@pytest.mark.parametrize(
    "config, named",
    [
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, r"cls \+ mean"),
    ],
)
def test_another_pooling_is_named(folder, config, named):
    path = folder()
    write(path / "1_Pooling/config.json", config)
    with pytest.raises(ValueError, match=rf"config\.json: pooling {named} is not supported; .*lasttoken"):
        load_embedder(path)


# ------------------------------------------------------------------------------------------------ prompts
PROMPTS = {"prompts": {"query": "find : ", "passage": None}, "default_prompt_name": "query"}


def test_prompts_by_name_by_text_and_by_default(folder):
    embedder = load_embedder(folder(config=PROMPTS))
    asked, plain = embedder.embed(["find : a"], prompt=""), embedder.embed(["a"], prompt="")
    assert torch.equal(embedder.embed(["a"]), asked)
    assert torch.equal(embedder.embed(["a"], prompt_name="query"), asked)
    assert torch.equal(embedder.embed(["a"], prompt="find : "), asked)
    assert torch.equal(embedder.embed(["a"], prompt_name="passage"), plain)
    assert (asked - plain).abs().max() > 1e-2
    with pytest.raises(ValueError, match="'document' is not one of query, passage"):
        embedder.embed(["a"], prompt_name="document")
    with pytest.raises(ValueError, match="not both"):
        embedder.embed(["a"], prompt="find : ", prompt_name="query")


def test_a_prompt_that_spells_a_special_token_is_refused(folder):
    """Elsewhere it would be one."""
    with pytest.raises(ValueError, match=r"prompt '\[CLS\] a' holds \[CLS\]"):
        load_embedder(folder()).embed(["a"], prompt="[CLS] a")


def test_prompt_tokens_are_left_out_of_the_pooling_where_the_folder_says_so(folder):
    path = folder()
    write(path / "1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False})
    embedder = load_embedder(path)
    states = hidden(embedder, ids_of(embedder, "a b", prompt="find : "))
    assert len(states) == 6  # [CLS] find : a b [SEP]
    near(embedder.embed(["a b"], prompt="find : ")[0], states[3:].mean(0))
    near(embedder.embed(["a b"])[0], hidden(embedder, ids_of(embedder, "a b")).mean(0))


# ------------------------------------------------------------------------------------------------ after
def test_normalised_vectors_have_unit_length(folder):
    path = folder(("Transformer", "Pooling", "Normalize"))
    plain, unit = load_embedder(path, normalise=False).embed(TEXTS), load_embedder(path).embed(TEXTS)
    near(unit.norm(dim=1), torch.ones(6))
    near(unit, plain / plain.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(
    "name, bias, function",
    [
        ("torch.nn.modules.activation.Tanh", True, torch.tanh),
        ("torch.nn.modules.linear.Identity", False, lambda x: x),
        ("torch.nn.modules.activation.GELU", True, torch.nn.functional.gelu),
    ],
)
def test_a_dense_layer_by_hand(folder, name, bias, function):
    path = folder(("Transformer", "Pooling", "Dense", "Normalize"))
    state = dense(path / "2_Dense", 7, name, bias)
    embedder = load_embedder(path)
    pooled = torch.stack([hidden(embedder, ids_of(embedder, text)).mean(0) for text in TEXTS])
    expected = function(pooled @ state["linear.weight"].T + state.get("linear.bias", 0))
    near(embedder.embed(TEXTS), torch.nn.functional.normalize(expected, dim=1))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(activation="my_code.Tanh"), r"activation my_code\.Tanh is not one of Identity, Tanh"),
        (dict(activation="torch.nn.LSTM"), r"activation torch\.nn\.LSTM is not"),
        (dict(in_features=31), "in_features 31 is not supported; supported is 32"),
        (dict(use_residual=True), "use_residual True is not"),
        (dict(module_input_name="token_embeddings"), "module_input_name 'token_embeddings' is not"),
        (dict(out_features=8), "weights do not fit"),
    ],
)
def test_a_dense_layer_that_is_not_read_is_named(folder, changes, message):
    path = folder(("Transformer", "Pooling", "Dense"))
    dense(path / "2_Dense", 7, **changes)
    with pytest.raises(ValueError, match=f"2_Dense.*{message}"):
        load_embedder(path)


def test_only_the_first_numbers_count_where_the_folder_says_so(folder):
    path = folder(config={"truncate_dim": 8})
    whole = load_embedder(path)
    whole.truncate_dim = None
    assert torch.equal(load_embedder(path).embed(TEXTS), whole.embed(TEXTS)[:, :8])


# ------------------------------------------------------------------------------------------------ folders
@pytest.mark.parametrize("where", ["..", "../made/1_Pooling", "/tmp", "1_Pooling/..", ".", "a\\b"])
def test_a_module_cannot_lie_outside_its_folder(folder, where):
    path = folder()
    listed = modules("Transformer", "Pooling")
    listed[1]["path"] = where
    write(path / "modules.json", listed)
    with pytest.raises(ValueError, match=r"modules\.json: path .* is not the name of a folder"):
        load_embedder(path)


@pytest.mark.parametrize(
    "type",
    [
        "sentence_transformers.models.LSTM",
        "custom_st.Transformer",
        "sentence_transformers.models.WordWeights",
    ],
)
def test_an_unknown_module_is_named(folder, type):
    path = folder()
    write(path / "modules.json", [*modules("Transformer", "Pooling"), {"idx": 2, "path": "", "type": type}])
    name = type.removeprefix("sentence_transformers.models.")
    with pytest.raises(ValueError, match=rf"modules\.json: modules '.*{name}' are not supported"):
        load_embedder(path)


@pytest.mark.parametrize(
    "kinds", [["Pooling"], ["Transformer"], ["Transformer", "Pooling", "Normalize", "Dense"]]
)
def test_modules_in_another_order_are_an_error(folder, kinds):
    path = folder()
    write(path / "modules.json", modules(*kinds))
    with pytest.raises(ValueError, match=rf"modules\.json: modules '{' '.join(kinds)}' are not supported"):
        load_embedder(path)


@pytest.mark.parametrize(
    "settings, key",
    [
        ({"transformer_task": "sequence-classification"}, "transformer_task"),
        ({"modality_config": {"message": {"method": "forward"}}}, "modality_config"),
        ({"processing_kwargs": {"text": {"max_length": 8}}}, "processing_kwargs"),
    ],
)
def test_settings_that_would_change_the_vectors_are_named(folder, settings, key):
    with pytest.raises(ValueError, match=rf"sentence_bert_config\.json: {key} .* is not supported"):
        load_embedder(folder(settings=settings))


def test_a_folder_of_another_kind_of_model_is_refused(folder):
    with pytest.raises(ValueError, match="model_type 'SparseEncoder' is not supported"):
        load_embedder(folder(config={"model_type": "SparseEncoder"}))


def test_names_of_newer_folders_and_a_transformer_in_its_own_are_read(folder, tmp_path):
    path = folder()
    expected = load_embedder(path).embed(TEXTS)
    moved = tmp_path / "moved"
    shutil.copytree(path, moved / "0_Transformer")
    shutil.move(moved / "0_Transformer/1_Pooling", moved)
    base = "sentence_transformers.base.modules"
    new = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    listed = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{base}.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": new},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{base}.normalize.Normalize"},
    ]
    write(moved / "modules.json", listed)
    embedder = load_embedder(moved)
    near(embedder.embed(TEXTS), torch.nn.functional.normalize(expected, dim=1))
    save_embedder(embedder, tmp_path / "again")
    near(load_embedder(tmp_path / "again").embed(TEXTS), embedder.embed(TEXTS), 0)


@pytest.mark.parametrize("family, pooling", [("bert", "mean"), ("qwen3", "last")])
def test_without_modules_a_line_says_how_the_tokens_are_pooled(folder, capsys, family, pooling):
    path = folder(kinds=(), family=family)
    embedder = load_embedder(path)
    assert embedder.pooling == pooling and not embedder.normalise
    assert f"taking {pooling}" in capsys.readouterr().out
    assert load_embedder(path, pooling="cls", normalise=True).pooling == "cls"
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="'max' is not one of cls, mean, last"):
        load_embedder(path, pooling="max")


def test_saved_and_loaded_vectors_are_the_same(folder, tmp_path):
    config = PROMPTS | {"similarity_fn_name": "dot", "truncate_dim": 4}
    settings = {"max_seq_length": 9, "do_lower_case": True}
    path = folder(("Transformer", "Pooling", "Dense", "Normalize"), config=config, settings=settings)
    write(path / "1_Pooling/config.json", {"pooling_mode": "cls", "include_prompt": False})
    embedder = load_embedder(path)
    save_embedder(embedder, tmp_path / "saved")
    shutil.rmtree(path)
    again = load_embedder(tmp_path / "saved")
    texts = [*TEXTS, "Red " * 20, "[SEP]"]
    assert torch.equal(again.embed(texts), embedder.embed(texts))
    kept = "max_length pooling include_prompt normalise truncate_dim lower default_prompt_name similarity"
    assert [getattr(again, key) for key in kept.split()] == [9, "cls", False, True, 4, True, "query", "dot"]
    assert again.prompts == {"query": "find : ", "passage": ""}
    save_embedder(again, tmp_path / "saved")  # onto itself
    assert torch.equal(load_embedder(tmp_path / "saved").embed(texts), embedder.embed(texts))


def test_a_decoder_reads_its_last_token(folder):
    inner = words("$A [SEP]")
    path = folder(("Transformer", "Pooling", "Normalize"), "lasttoken", "qwen3", inner)
    embedder = load_embedder(path)
    for vector, text in zip(embedder.embed(TEXTS), TEXTS):
        ids = ids_of(embedder, text)
        assert ids[-1] == SEP and ids[0] != CLS
        near(vector, torch.nn.functional.normalize(hidden(embedder, ids)[-1], dim=0))


def test_half_precision_is_close(folder):
    path = folder(("Transformer", "Pooling", "Dense", "Normalize"))
    rough = load_embedder(path, dtype=torch.bfloat16)
    assert rough.model.embed.weight.dtype == torch.bfloat16
    vectors = rough.embed(TEXTS)
    assert vectors.dtype == torch.float32
    near(vectors, load_embedder(path).embed(TEXTS), 0.05)


@pytest.mark.parametrize("file", ["1_Pooling/config.json", "tokenizer.json", "2_Dense/model.safetensors"])
def test_a_missing_file_is_named(folder, file):
    path = folder(("Transformer", "Pooling", "Dense"))
    (path / file).unlink()
    with pytest.raises(FileNotFoundError, match=file.replace("/model.", ".*model.")):
        load_embedder(path)
