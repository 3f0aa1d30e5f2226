"""Our embedding folders open in sentence-transformers with the same vectors, and theirs here.

Those of a real checkpoint are compared where PARLOR_CHECKPOINTS names a folder that holds it."""

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import tiny_model

from embed import save_embedder
from model import save
from tests.embedders import PROMPTS, TEXTS, dense, modules, near, open_embedder, words, write

pytestmark = pytest.mark.peers
sentence_transformers = pytest.importorskip("sentence_transformers")
parts = pytest.importorskip("sentence_transformers.models")

NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
KINDS = {
    "mean": ("Transformer", "Pooling", "Normalize"),
    "cls": ("Transformer", "Pooling"),
    "lasttoken": ("Transformer", "Pooling", "Dense", "Normalize"),
}
SETTINGS = {"max_seq_length": 10, "do_lower_case": True}
ORDINARY = [*TEXTS, "Red GREEN", "unheard of", "a b c d e f g h " * 3]
REAL = [
    "",
    "\n\t",
    ".",
    "The cat sat on the mat.",
    "What is the capital of France?",
    "2 + 2 = 4, and 3.14159 is about pi (0.001 %)",
    "naïve café façade, Ångström, Dvořák",
    "Ελληνικά: ΟΔΥΣΣΕΥΣ και οδυσσεύς",
    "すべての人間は、生まれながらにして自由である",
    "人人生而自由,在尊严和权利上一律平等。",
    "모든 인간은 태어날 때부터 자유로우며",
    "يولد جميع الناس أحرارا متساوين",
    "कोई भी व्यक्ति",
    "İstanbul ıssız",
    "👩‍👩‍👧 emoji 🎉🎉 and ﬁ ligatures ½ ² ℡",
    "zero\u200bwidth \u00ad soft \ufeff marks \x00 and \x07 control",
    "https://example.org/a/b?c=d&e=%20f#g mailto:x@y.z",
    "def f(x):\n    return {'a': [x ** 2 for _ in range(10)]}",
    "$\\frac{a}{b}$ and \\(x^2\\)",
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 3,
    "x" * 101,
    "x" * 5000,
    "tab\tseparated\tvalues\r\nand windows lines\r\n",
    *[f"word {i} " * n for i, n in enumerate((1, 2, 5, 12, 40, 84, 85, 86, 126, 127, 128, 300, 2000))],
    "The quick brown fox jumps over the lazy dog. " * 60,
]


def peer(folder):
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def theirs(model, texts, **options):
    return torch.from_numpy(model.encode(texts, batch_size=7, show_progress_bar=False, **options))


def made(path, pooling, family="bert", include_prompt=True):
    """A folder whose vectors need all that its configuration says."""
    changes = {"use_bidirectional_attention": True} if family == "gemma3_text" else {}
    save(tiny_model(family, pad_token_id=0, **changes), path)  # [PAD]: some count positions by what is not it
    words("$A [SEP]" if family == "qwen3" else "[CLS] $A [SEP]").save(str(path / "tokenizer.json"))
    write(path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | NAMES)
    write(path / "modules.json", modules(*KINDS[pooling]))
    write(path / "1_Pooling/config.json", {"pooling_mode": pooling, "include_prompt": include_prompt})
    write(path / "config_sentence_transformers.json", PROMPTS)
    write(path / "sentence_bert_config.json", SETTINGS)
    if "Dense" in KINDS[pooling]:
        dense(path / "2_Dense", 7)
    return open_embedder(path)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "qwen3", "eurobert", "gemma3_text"])
@pytest.mark.parametrize("pooling", KINDS)
@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_folder_of_ours_gives_the_same_vectors_there(tmp_path, family, pooling, include_prompt):
    embedder = made(tmp_path / "made", pooling, family, include_prompt)
    save_embedder(embedder, tmp_path / "ours")
    model = peer(tmp_path / "ours")
    assert model.max_seq_length == 10 and model.prompts["query"] == "find : "
    near(embedder.embed(ORDINARY), theirs(model, ORDINARY))  # with the default prompt
    near(embedder.embed(ORDINARY, prompt=""), theirs(model, ORDINARY, prompt=""))
    near(embedder.embed(ORDINARY, prompt="A b "), theirs(model, ORDINARY, prompt="A b "))


@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize("pooling", KINDS)
def test_a_folder_of_theirs_gives_the_same_vectors_here(tmp_path, family, pooling):
    save_embedder(made(tmp_path / "made", pooling, family), tmp_path / "made")
    body = parts.Transformer(str(tmp_path / "made"), max_seq_length=10)
    pieces = [body, parts.Pooling(32, pooling_mode=pooling)]
    if pooling == "lasttoken":
        pieces.append(parts.Dense(32, 6, activation_function=torch.nn.GELU()))
    if pooling != "cls":
        pieces.append(parts.Normalize())
    model = sentence_transformers.SentenceTransformer(modules=pieces, device="cpu", truncate_dim=5)
    model.prompts, model.similarity_fn_name = {"query": "find : "}, "dot"
    model.save(str(tmp_path / "theirs"), create_model_card=False)
    embedder = open_embedder(tmp_path / "theirs")
    assert (embedder.max_length, embedder.width, embedder.similarity) == (10, 5, "dot")
    near(embedder.embed(ORDINARY), theirs(model, ORDINARY))
    prompt = embedder.prompts["query"]
    near(embedder.embed(ORDINARY, prompt), theirs(model, ORDINARY, prompt_name="query"))


@pytest.fixture(scope="module")
def checkpoint():
    path = Path(os.environ.get("PARLOR_CHECKPOINTS") or "nowhere") / "all-minilm-l6-v2"
    if not path.exists():
        pytest.skip("PARLOR_CHECKPOINTS names no folder that holds all-minilm-l6-v2")
    return path


def test_a_real_checkpoint_gives_the_same_vectors_read_and_saved(checkpoint, tmp_path):
    expected = theirs(peer(checkpoint), REAL)
    embedder = open_embedder(checkpoint)
    assert max(len(ids) for ids, _ in embedder.tokens(REAL)) == embedder.max_length == 256
    found = embedder.embed(REAL)
    print(f"\n{len(REAL)} texts, largest difference {(found - expected).abs().max():.1e}")
    near(found, expected)
    save_embedder(embedder, tmp_path / "ours")
    near(theirs(peer(tmp_path / "ours"), REAL), expected)
    near(open_embedder(tmp_path / "ours").embed(REAL), expected)
    assert json.loads((tmp_path / "ours/1_Pooling/config.json").read_text())["pooling_mode_mean_tokens"]


def test_a_real_checkpoint_saved_by_them_gives_the_same_vectors_here(checkpoint, tmp_path):
    model = peer(checkpoint)
    model.save(str(tmp_path / "theirs"), create_model_card=False)
    near(open_embedder(tmp_path / "theirs").embed(REAL), theirs(model, REAL))
