"""Text to vectors: tokens, pooling, prompts, dense layers, and folders read and written."""

import shutil

import pytest
import tokenizers
import torch
from conftest import tiny_model
from tokenizers import normalizers, pre_tokenizers, processors

from agents import Encoder
from embed import pad_batch, save_embedder
from model import save
from tests.embedders import CLS, PROMPTS, SEP, TEXTS, WORDS, dense, modules, near, open_embedder, words, write


def pieces(text):
    """A tokenizer that normalises characters and has its special tokens in the vocabulary as well."""
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁", -2.0)]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab + [(char, -5.0) for char in text], unk_id=3))
    inner.normalizer, inner.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    inner.add_special_tokens([name for name, _ in vocab[:4]])
    around = [("<s>", 0), ("</s>", 2)]
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=around)
    return inner


@pytest.fixture
def folder(tmp_path):
    """A function that writes a sentence-transformers folder and returns its path."""

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
    embedder = open_embedder(folder(family=family, pooling=pooling))
    alone = torch.cat([embedder.embed([text]) for text in TEXTS])
    assert alone.dtype == torch.float32 and alone.shape == (6, 32)
    for budget in (1, 10, 24, 1000):
        near(embedder.embed(TEXTS, batch_tokens=budget), alone)


@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3"])
def test_many_texts_give_what_each_gives_alone_and_leave_the_model_as_it_was(folder, family):
    """Above 2,048 tokens, copies of the weights are used."""
    embedder = open_embedder(folder(("Transformer", "Pooling", "Dense", "Normalize"), family=family))
    texts = [" ".join("abcdefgh"[(i + j) % 8] for j in range(1 + i % 40)) for i in range(120)]
    together = embedder.embed(texts)
    near(together, torch.cat([embedder.embed([text]) for text in texts]))
    assert not any("forward" in vars(module) for module in embedder.model.modules())
    embedder.vectors(*pad_batch(embedder.tokens(texts[:3]), "cpu"))[:, 0].sum().backward()
    assert embedder.model.layers[0].attn.q_proj.weight.grad.abs().max() > 0
    assert embedder.dense[0].linear.weight.grad.abs().max() > 0


def test_a_fingerprint_changes_with_all_that_changes_a_vector(folder):
    embedder, seen = open_embedder(folder()), set()

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
    embedder, calls = open_embedder(folder()), []
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


def test_no_texts_give_no_vectors_and_one_text_in_place_of_a_list_is_refused(folder):
    embedder = open_embedder(folder(("Transformer", "Pooling", "Dense")))
    assert embedder.embed([]).shape == (0, 5)
    with pytest.raises(ValueError, match="list of texts"):
        embedder.embed("a b")


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_a_text_without_any_token_is_a_vector_of_zeros(folder, pooling):
    embedder = open_embedder(folder(pooling=pooling, family="qwen3", inner=words("$A")))
    assert embedder.embed(["", "a"]).abs().amax(1)[0] == 0
    assert embedder.embed([""]).tolist() == [[0.0] * 32]


# ------------------------------------------------------------------------------------------------ tokens
def test_padding_and_truncation_of_the_file_are_reset(folder):
    inner = words()
    inner.enable_padding(length=16)
    inner.enable_truncation(4)
    embedder = open_embedder(folder(inner=inner))
    assert ids_of(embedder, "a b c d e f") == [CLS, 4, 5, 6, 7, 8, 9, SEP]


@pytest.mark.parametrize("count", [3, 4, 5])
def test_truncation_keeps_the_special_token_that_closes(folder, count):
    embedder = open_embedder(folder(settings={"max_seq_length": 6}))
    expected = [CLS, 4, 5, 6, 7, 8, 9][: 1 + min(count, 4)] + [SEP]
    assert ids_of(embedder, " ".join(WORDS[:count])) == expected


def test_the_length_is_that_of_the_settings_else_of_tokenizer_and_model(folder):
    path = folder()
    assert open_embedder(path).max_length == 256  # max_position_embeddings
    write(path / "tokenizer_config.json", {"model_max_length": 40})
    assert open_embedder(path).max_length == 40
    write(path / "sentence_roberta_config.json", {"max_seq_length": 50})  # as older folders name it
    assert open_embedder(path).max_length == 50


def test_a_length_beyond_the_learned_positions_is_cut(folder):
    """Folders whose first two positions are for padding state 514."""
    embedder = open_embedder(folder(family="xlm-roberta", settings={"max_seq_length": 256}))
    assert embedder.max_length == 254
    embedder.embed(["a " * 300])


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("text", ["a [SEP] b", "[CLS][SEP]", "[PAD]"])
def test_a_spelled_special_token_is_text(folder, text, lower):
    embedder = open_embedder(folder(settings={"do_lower_case": lower}))
    ids = ids_of(embedder, text)
    assert ids[0] == CLS and ids[-1] == SEP
    assert not {0, CLS, SEP} & set(ids[1:-1]) and len(ids) > 3


@pytest.mark.parametrize("text", ["a </s> a", "<s>", "a＜/s＞a", "</s></s>"])
def test_a_special_token_that_is_a_piece_as_well_cannot_be_spelled(folder, text):
    """Such tokenizers have "</s>" in their vocabulary, with the best score. The third text spells it in wide
    characters, which become plain ones."""
    embedder = open_embedder(folder(inner=pieces("as</>")))
    (encoding,) = embedder.encodings([text])
    assert [i for i in encoding.ids if i < 3] == [0, 2] and "s" in encoding.tokens
    assert "".join(encoding.tokens[1:-1]).replace("▁", "") == text.translate(
        {0xFF1C: "<", 0xFF1E: ">", 32: ""}
    )


def test_a_spelled_special_token_does_not_lengthen_a_text(folder):
    embedder = open_embedder(folder(inner=pieces("as</>"), settings={"max_seq_length": 7}))
    ids = ids_of(embedder, "a " * 9 + "</s>")
    assert len(ids) == 7 and ids[-1] == 2


def test_lower_case_is_honoured(folder):
    path = folder(settings={"do_lower_case": True})
    assert ids_of(open_embedder(path), "Red") == ids_of(open_embedder(path), "red")
    write(path / "sentence_bert_config.json", {"do_lower_case": False})
    assert ids_of(open_embedder(path), "Red") != ids_of(open_embedder(path), "red")


def test_a_tokenizers_own_setting_does_not_put_texts_into_lower_case(folder):
    """tokenizer_config.json speaks of the tokenizer that made tokenizer.json, which has a normaliser."""
    path = folder(settings={})
    write(path / "tokenizer_config.json", {"do_lower_case": True})
    assert ids_of(open_embedder(path), "Red") != ids_of(open_embedder(path), "red")
    assert not open_embedder(path).lower


def test_an_end_token_that_is_asked_for_but_not_added_is_an_error(folder):
    path = folder(inner=words("$A"))
    write(path / "tokenizer_config.json", {"add_eos_token": True})
    with pytest.raises(ValueError, match=r"tokenizer\.json: adds no end token"):
        open_embedder(path)


# ------------------------------------------------------------------------------------------------ pooling
@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize(
    "pooling, by_hand",
    [("cls", lambda h: h[0]), ("mean", lambda h: h.mean(0)), ("lasttoken", lambda h: h[-1])],
)
def test_pooling_by_hand(folder, family, pooling, by_hand):
    embedder = open_embedder(folder(pooling=pooling, family=family))
    found = embedder.embed(TEXTS)
    for vector, text in zip(found, TEXTS):
        near(vector, by_hand(hidden(embedder, ids_of(embedder, text))))


@pytest.mark.parametrize("new, old", [("cls", "cls_token"), ("mean", "mean_tokens"), ("lasttoken",) * 2])
def test_old_and_new_pooling_settings_mean_the_same(folder, new, old):
    path = folder(pooling=new)
    expected = open_embedder(path).embed(TEXTS)
    flags = {f"pooling_mode_{name}": name == old for name in ("cls_token", "mean_tokens", "lasttoken")}
    write(path / "1_Pooling/config.json", {"word_embedding_dimension": 32} | flags)
    assert torch.equal(open_embedder(path).embed(TEXTS), expected)


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
        open_embedder(path)


# ------------------------------------------------------------------------------------------------ prompts
def test_prompts_by_text_by_kind_and_by_default(folder):
    embedder = open_embedder(folder(config=PROMPTS))
    asked, plain = embedder.embed(["find : a"], prompt=""), embedder.embed(["a"], prompt="")
    assert torch.equal(embedder.embed(["a"]), asked)
    assert torch.equal(embedder.embed(["a"], prompt="find : "), asked)
    assert (asked - plain).abs().max() > 1e-2
    assert [embedder.prompt_of(kind) for kind in ("query", "document")] == ["find : ", ""]


def test_a_default_prompt_that_the_folder_lacks_is_named(folder):
    with pytest.raises(ValueError, match=r"config_sentence_transformers\.json: default_prompt_name 'query'"):
        open_embedder(folder(config={"default_prompt_name": "query", "prompts": {"document": ""}}))


def test_a_prompt_that_spells_a_special_token_is_refused(folder):
    """In sentence-transformers it would become that token."""
    with pytest.raises(ValueError, match=r"prompt '\[CLS\] a' holds \[CLS\]"):
        open_embedder(folder()).embed(["a"], prompt="[CLS] a")


def test_prompt_tokens_are_left_out_of_the_pooling_where_the_folder_says_so(folder):
    path = folder()
    write(path / "1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False})
    embedder = open_embedder(path)
    states = hidden(embedder, ids_of(embedder, "a b", prompt="find : "))
    assert len(states) == 6  # [CLS] find : a b [SEP]
    near(embedder.embed(["a b"], prompt="find : ")[0], states[3:].mean(0))
    near(embedder.embed(["a b"])[0], hidden(embedder, ids_of(embedder, "a b")).mean(0))


# ------------------------------------------------------------------------------------------------ after


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
    embedder = open_embedder(path)
    pooled = torch.stack([hidden(embedder, ids_of(embedder, text)).mean(0) for text in TEXTS])
    expected = function(pooled @ state["linear.weight"].T + state.get("linear.bias", 0))
    near(embedder.embed(TEXTS), torch.nn.functional.normalize(expected, dim=1))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(activation="my_code.Tanh"), r"activation my_code\.Tanh is not one of Identity, Tanh"),
        (dict(activation="torch.nn.LSTM"), r"activation torch\.nn\.LSTM is not"),
        (dict(in_features=31), "in_features is 31, expected 32"),
        (dict(use_residual=True), "use_residual is True"),
        (dict(module_input_name="token_embeddings"), "module_input_name is 'token_embeddings'"),
        (dict(out_features=8), "weights do not fit"),
    ],
)
def test_a_dense_layer_that_is_not_read_is_named(folder, changes, message):
    path = folder(("Transformer", "Pooling", "Dense"))
    dense(path / "2_Dense", 7, **changes)
    with pytest.raises(ValueError, match=f"2_Dense.*{message}"):
        open_embedder(path)


def test_only_the_first_numbers_count_where_the_folder_says_so(folder):
    path = folder(config={"truncate_dim": 8})
    whole = open_embedder(path)
    whole.truncate_dim = None
    assert torch.equal(open_embedder(path).embed(TEXTS), whole.embed(TEXTS)[:, :8])


# ------------------------------------------------------------------------------------------------ folders
LISTED = modules("Transformer", "Pooling")
ORDER = r"modules '{}' are not supported"
OUTSIDE = "path .* is not the name of a folder"


@pytest.mark.parametrize(
    "listed, message",
    [
        *(
            ([LISTED[0], LISTED[1] | {"path": where}], OUTSIDE)
            for where in ("..", "/tmp", "1_Pooling/..", "a\\b")
        ),
        *(
            (modules(*kinds.split()), ORDER.format(kinds))
            for kinds in (
                "Pooling",
                "Transformer",
                "Transformer Pooling LSTM",
                "Transformer Pooling Normalize Dense",
            )
        ),
        ([*LISTED, {"path": "", "type": "custom_st.Transformer"}], ORDER.format(".*custom_st.Transformer")),
    ],
)
def test_modules_outside_the_folder_unknown_or_in_another_order_are_refused(folder, listed, message):
    path = folder()
    write(path / "modules.json", listed)
    with pytest.raises(ValueError, match=rf"modules\.json: {message}"):
        open_embedder(path)


@pytest.mark.parametrize(
    "files, message",
    [
        (
            dict(settings={"transformer_task": "sequence-classification"}),
            "bert_config.json: transformer_task",
        ),
        (dict(settings={"modality_config": {"message": {"method": "forward"}}}), "modality_config"),
        (dict(settings={"processing_kwargs": {"text": {"max_length": 8}}}), "processing_kwargs"),
        (dict(config={"model_type": "SparseEncoder"}), "model_type is 'SparseEncoder'"),
    ],
)
def test_settings_that_would_change_the_vectors_are_named(folder, files, message):
    with pytest.raises(ValueError, match=f"{message}.*, expected "):
        open_embedder(folder(**files))


def test_names_of_newer_folders_and_a_transformer_in_its_own_are_read(folder, tmp_path):
    path = folder()
    expected = open_embedder(path).embed(TEXTS)
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
    embedder = open_embedder(moved)
    near(embedder.embed(TEXTS), torch.nn.functional.normalize(expected, dim=1))
    save_embedder(embedder, tmp_path / "again")
    near(open_embedder(tmp_path / "again").embed(TEXTS), embedder.embed(TEXTS), 0)


@pytest.mark.parametrize("family, pooling", [("bert", "mean"), ("qwen3", "last")])
def test_without_modules_a_line_says_how_the_tokens_are_pooled(folder, capsys, family, pooling):
    path = folder(kinds=(), family=family)
    embedder = open_embedder(path)
    assert embedder.pooling == pooling and not embedder.normalise
    assert f"taking {pooling}" in capsys.readouterr().out
    assert open_embedder(path, normalise=True).normalise


def test_saved_and_loaded_vectors_are_the_same(folder, tmp_path):
    config = PROMPTS | {"similarity_fn_name": "dot", "truncate_dim": 4}
    settings = {"max_seq_length": 9, "do_lower_case": True}
    path = folder(("Transformer", "Pooling", "Dense", "Normalize"), config=config, settings=settings)
    write(path / "1_Pooling/config.json", {"pooling_mode": "cls", "include_prompt": False})
    embedder = open_embedder(path)
    save_embedder(embedder, tmp_path / "saved")
    shutil.rmtree(path)
    again = open_embedder(tmp_path / "saved")
    texts = [*TEXTS, "Red " * 20, "[SEP]"]
    assert torch.equal(again.embed(texts), embedder.embed(texts))
    kept = "max_length pooling include_prompt normalise truncate_dim lower default_prompt_name similarity"
    assert [getattr(again, key) for key in kept.split()] == [9, "cls", False, True, 4, True, "query", "dot"]
    assert again.prompts == {"query": "find : ", "passage": ""}
    save_embedder(again, tmp_path / "saved")  # onto itself
    assert torch.equal(open_embedder(tmp_path / "saved").embed(texts), embedder.embed(texts))


def test_half_precision_is_close(folder):
    path = folder(("Transformer", "Pooling", "Dense", "Normalize"))
    rough = open_embedder(path, dtype=torch.bfloat16)
    assert rough.model.embed.weight.dtype == torch.bfloat16
    vectors = rough.embed(TEXTS)
    assert vectors.dtype == torch.float32
    near(vectors, open_embedder(path).embed(TEXTS), 0.05)


@pytest.mark.parametrize("file", ["1_Pooling/config.json", "tokenizer.json", "2_Dense/model.safetensors"])
def test_a_missing_file_is_named(folder, file):
    path = folder(("Transformer", "Pooling", "Dense"))
    (path / file).unlink()
    with pytest.raises(FileNotFoundError, match=file.replace("/model.", ".*model.")):
        open_embedder(path)
