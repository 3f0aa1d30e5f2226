"""Rerankers that are decoders: what is read as a tree is what is read one by one, and their prompts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from agents import Classifier
from data import Tokenizer
from formats import FORMATS
from rerankers import YesNo, reranker_of
from terminal import UsageError
from tests.chats import byte_tokenizer, parts, spell

QUERIES = ["3 - 5 = 8", "what is 2 + 2?"]
LABELS = ["adds", "adds the sign", "takes", "adds"]
PAIRS = [parts(query, label) for query in QUERIES for label in LABELS]


def reader(words=("no", "yes", "<think>", "</think>")):
    """A ChatML tokenizer of bytes and some words."""
    inner = byte_tokenizer(FORMATS["chatml"].control_names())
    inner.add_tokens([AddedToken(word, normalized=False) for word in words])
    return Tokenizer(inner, FORMATS["chatml"])


@torch.no_grad()
def behind(model, ids):
    """Logits or class scores behind the last of these ids."""
    head = model.classifier if model.config.labels else model.logits
    slots = torch.arange(len(ids))[None]
    return head(model(torch.tensor([ids]), slots))[0, -1].numpy()


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_yes_or_no_is_read_at_the_last_token_of_the_cards_prompt(tiny, family):
    tokenizer = reader()
    model = tiny(family)
    agent = YesNo(model, tokenizer, instruct="Find the error")
    chances = agent.classify(PAIRS)
    no, yes = (tokenizer.inner.token_to_id(word) for word in ("no", "yes"))
    for (query, label), pair in zip(PAIRS, chances):
        ids = agent.prompt(query, label)
        # the card of Qwen3-Reranker-0.6B: its prefix, its three lines, its suffix
        assert spell(tokenizer, ids) == (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
            'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
            "<|im_start|>user\n"
            f"<Instruct>: Find the error\n<Query>: {query['content']}\n<Document>: {label['content']}"
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
        logits = behind(model, ids)
        assert pair[1] == pytest.approx(1 / (1 + np.exp(float(logits[no] - logits[yes]))), abs=1e-5)


def test_a_decoder_with_one_class_gives_the_odds_of_yes_in_the_same_form(tiny):
    model = tiny("qwen3", architectures=["Qwen3ForSequenceClassification"], num_labels=1)
    agent = YesNo(model, reader(words=()))
    ids = [agent.prompt(*pair) for pair in PAIRS]
    assert not any("<think>" in spell(agent.tokenizer, one) for one in ids)  # no token of this tokenizer
    expected = [1 / (1 + np.exp(-float(behind(model, one)[0]))) for one in ids]
    np.testing.assert_allclose(agent.classify(PAIRS)[:, 1], expected, atol=1e-5)


def test_a_model_without_the_words_is_refused(tiny):
    with pytest.raises(UsageError, match="no single token 'no'"):
        YesNo(tiny(), reader(words=()))


def test_a_long_query_is_cut_and_the_document_is_not(tiny):
    agent = YesNo(tiny(), reader(), max_tokens=500)
    query, label = parts("x" * 500, "adds unlike terms")
    text = spell(agent.tokenizer, agent.prompt(query, label))
    assert len(agent.prompt(query, label)) <= 500 and "<Document>: adds unlike terms<|im_end|>" in text


@pytest.mark.parametrize(
    "family, head, n, kind",
    [("bert", "Bert", 1, Classifier), ("qwen3", "Qwen3", 2, Classifier), ("qwen3", "Qwen3", 1, YesNo)],
)
def test_a_classifier_is_a_reranker_with_one_class_or_two(tiny, family, head, n, kind):
    """Two classes: the chance of the second. One: the sigmoid of its score, of a decoder in Qwen3's form."""
    model = tiny(family, architectures=[f"{head}ForSequenceClassification"], num_labels=n)
    agent = reranker_of(SimpleNamespace(model=model, tokenizer=reader()), 400, "Find it")
    assert type(agent) is kind and agent.classify(PAIRS).shape == (8, 2)


def test_a_decoder_is_asked_and_an_encoder_without_a_classifier_is_refused(tiny):
    point = SimpleNamespace(model=tiny(), tokenizer=reader(), folder="f")
    assert type(reranker_of(point, 400, "")) is YesNo
    point.model = tiny("bert")
    with pytest.raises(ValueError, match="f: makes vectors"):
        reranker_of(point, 400, "")
