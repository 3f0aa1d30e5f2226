"""Our encoders, classifiers and what is saved as another family open in transformers with the same outputs,
and theirs here."""

import json

import pytest
import torch
from conftest import ENCODERS, SHAPES, tiny_hf
from make_golden import FOLDER, tensors, write
from safetensors.torch import load_file, save_file

from agents import Classifier
from attention import ALWAYS
from checkpoint import open
from families import FAMILIES
from model import load, save

pytestmark = pytest.mark.peers
transformers = pytest.importorskip("transformers")

from tests.chats import chat_tokenizer, encoder_tokenizer, parts  # noqa: E402
from tests.peers import NO_CLASSES, near, new_of_kind, new_there, open_there, ours, theirs  # noqa: E402

CLASSES = dict(id2label={"0": "A", "1": "B", "2": "C"}, label2id={"A": 0, "B": 1, "C": 2})
VARIANTS = {  # of classifiers
    **{family: {} for family in [*SHAPES, *ENCODERS] if family not in NO_CLASSES},
    "modernbert mean": dict(classifier_pooling="mean", classifier_bias=True, norm_bias=True),
    "modernbert biased": dict(attention_bias=True, mlp_bias=True, classifier_activation="silu"),
    "gemma3_text both": dict(use_bidirectional_attention=True),
    "eurobert mean": dict(classifier_pooling="mean", attention_bias=True, mlp_bias=True),
    "eurobert bos": dict(classifier_pooling="bos"),
    "xlm-roberta relu": dict(hidden_act="relu", layer_norm_eps=0.01),
}
encoders = pytest.mark.parametrize("family", ENCODERS)
MASKS = {"none": (0, 0), "right": (0, -5), "left": (5, 0)}  # padding of the first row
masks = pytest.mark.parametrize("padded", MASKS)
classifiers = pytest.mark.parametrize(
    "variant, padded",
    [
        (variant, padded)
        for variant in VARIANTS
        for padded in MASKS
        if padded != "left" or variant in [*SHAPES, "modernbert mean"]  # their first token may be padding
    ],
)


def batch(padded):
    """Two rows, 0 where padded: ids, mask, positions."""
    ids = torch.randint(5, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    start, stop = MASKS[padded]
    mask[0, :start], mask[0, 20 + stop :] = 0, 0
    return ids * mask, mask, (mask.cumsum(1) - 1).clamp(min=0)


def places(peer, positions):
    """position_ids, which XLM-RoBERTa counts from beyond the padding's."""
    return positions + (peer.config.pad_token_id + 1 if peer.config.model_type == "xlm-roberta" else 0)


@torch.no_grad()
def both(model, peer, padded):
    """What our model and theirs give for a batch: classes, or hidden states without the padding."""
    ids, mask, positions = batch(padded)
    there = peer.eval()(ids, attention_mask=mask, position_ids=places(peer, positions))
    hidden = model(ids, positions, mask * ALWAYS)
    if model.config.labels:
        return model.classify(hidden, mask * ALWAYS), there.logits
    return hidden[mask > 0], there.last_hidden_state[mask > 0]


def classifier_hf(variant):
    family = variant.split(" ")[0]
    kind = FAMILIES[family].stem + "ForSequenceClassification"
    return tiny_hf(family, architectures=[kind], **CLASSES, **{"pad_token_id": 0} | VARIANTS[variant])


def open_classifier(folder):
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return model


# ------------------------------------------------------------------------------------------------ encoders


@masks
@pytest.mark.parametrize("kind", ["Model", "ForMaskedLM"])
@encoders
def test_the_encoder_that_transformers_saves_we_open_and_save_again_for_it(tmp_path, family, kind, padded):
    peer = new_of_kind(FAMILIES[family].stem + kind, tiny_hf(family))
    peer.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs")
    near(*both(model, peer.base_model, padded))
    save(model, tmp_path / "ours")
    near(*both(model, transformers.AutoModel.from_pretrained(tmp_path / "ours"), padded))


@masks
def test_a_gemma_that_sees_both_ways_we_open_and_save_again_for_transformers(tmp_path, padded):
    hf = tiny_hf("gemma3_text", architectures=["Gemma3TextModel"], use_bidirectional_attention=True)
    peer = new_of_kind("Gemma3TextModel", hf)
    peer.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs")
    near(*both(model, peer, padded))
    save(model, tmp_path / "ours")
    near(*both(model, transformers.AutoModel.from_pretrained(tmp_path / "ours"), padded))


# ------------------------------------------------------------------------------------------------ classifiers


@classifiers
def test_the_classifier_that_transformers_saves_we_open_and_save_again_for_it(tmp_path, variant, padded):
    hf = classifier_hf(variant)
    peer = new_of_kind(hf["architectures"][0], hf)
    peer.save_pretrained(tmp_path / "first")
    model = load(tmp_path / "first")
    near(*both(model, peer, padded))
    save(model, tmp_path / "second")
    near(*both(model, open_classifier(tmp_path / "second"), padded))


@pytest.mark.parametrize("family", [family for family in [*SHAPES, *ENCODERS] if family not in NO_CLASSES])
def test_transformers_opens_a_model_that_we_gave_a_classifier(tiny, tmp_path, family):
    save(tiny(family, pad_token_id=0), tmp_path / "without")
    model = load(tmp_path / "without", head=4, seed=0)
    save(model, tmp_path / "with")
    near(*both(model, open_classifier(tmp_path / "with"), "right"))


@pytest.mark.parametrize("family", SHAPES)
def test_transformers_opens_a_decoder_that_we_left_without_a_head(tiny, tmp_path, family):
    save(tiny(family), tmp_path / "with")
    model = load(tmp_path / "with", head="none")
    save(model, tmp_path / "without")
    peer, report = transformers.AutoModel.from_pretrained(tmp_path / "without", output_loading_info=True)
    assert not any(report.values()), report
    near(*both(model, peer, "left"))


PAIRS = [
    ("Is it red?", "No, it is blue."),
    ("Red", "Is it blue or red?"),
    ("a", "b" * 9),
    ("b" * 40, "c" * 30),
]


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("family", ENCODERS)
def test_a_cross_encoder_gives_pairs_the_scores_that_transformers_gives(tmp_path, family, labels):
    """The tokenizer gives the second text type 1, which BERT reads and the others do not."""
    kind = FAMILIES[family].stem + "ForSequenceClassification"
    peer = new_of_kind(kind, tiny_hf(family, num_labels=labels, pad_token_id=0))
    peer.save_pretrained(tmp_path)
    inner = encoder_tokenizer("[CLS]", "[SEP]", "[SEP]", "$B:1")
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (family == "bert")
    read = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[SEP]",
        model_input_names=names,
    )
    read.save_pretrained(tmp_path)
    expected = []
    for first, second in PAIRS:
        with torch.no_grad():
            expected.append(peer(**read(first, second, return_tensors="pt")).logits[0])
    point = open(tmp_path)
    scores = Classifier(point.model, point.tokenizer).scores([parts(*pair) for pair in PAIRS])
    near(scores, torch.stack(expected))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_reward_model_gives_chats_the_scores_that_transformers_gives(tmp_path, family):
    tokenizer = chat_tokenizer("chatml")
    sizes = dict(num_labels=1, vocab_size=tokenizer.size, pad_token_id=0)
    kind = FAMILIES[family].stem + "ForSequenceClassification"
    peer = new_of_kind(kind, tiny_hf(family, **sizes))
    peer.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    turn = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    template = "{% for m in messages %}" + turn + "{% endfor %}"
    talks = []
    for question, answer in PAIRS:
        talks.append([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
    read = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.inner, chat_template=template)
    expected = []
    for talk in talks:
        text = read.apply_chat_template(talk, tokenize=False)
        ids = read(text, split_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected.append(peer(input_ids=ids).logits[0])
    point = open(tmp_path, format="chatml")
    near(Classifier(point.model, point.tokenizer).scores(talks), torch.stack(expected))


# ------------------------------------------------------------------------------------------------ others
TWIN = {
    "internlm2": "LlamaForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "mistral3": "Ministral3ForCausalLM",
}


@pytest.mark.parametrize("name", TWIN)
def test_a_family_that_equals_another_is_saved_as_that(tmp_path, name):
    golden = json.loads((FOLDER / f"{name}.json").read_text())
    write(tmp_path / "read", golden["config"], tensors(golden))
    save(load(tmp_path / "read"), tmp_path / "saved")
    peer = open_there(tmp_path / "saved")
    assert type(peer).__name__ == TWIN[name]
    for row, expected in zip(golden["ids"], golden["expected"]):
        near(theirs(peer, torch.tensor([row])).flatten(), torch.tensor(expected))


@pytest.mark.parametrize("kind", ["left-over index", "head alone"])
def test_odd_folders_hold_the_weights_that_transformers_reads_in_them(tmp_path, kind):
    new_there("qwen2").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    if kind == "left-over index":
        save_file({key: tensor + 1 for key, tensor in state.items()}, tmp_path / "1.safetensors")
        index = {"metadata": {}, "weight_map": dict.fromkeys(state, "1.safetensors")}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        state["lm_head.weight"] = state.pop("model.embed_tokens.weight")
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    near(ours(load(tmp_path)), theirs(open_there(tmp_path)))


@pytest.mark.parametrize("family, tied", [("ministral3", True), ("ministral3", False), ("mistral", False)])
def test_we_open_the_text_half_of_a_mistral_that_also_sees(tmp_path, family, tied):
    seeing = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    seeing |= dict(model_type="pixtral", image_size=28, patch_size=14, head_dim=8)
    hf = dict(model_type="mistral3", text_config=tiny_hf(family), vision_config=seeing)
    peer = new_of_kind("Mistral3ForConditionalGeneration", hf | dict(tie_word_embeddings=tied))
    peer.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs")
    ids = batch("none")[0]
    with torch.no_grad():
        near(model.logits(model(ids)), theirs(peer, ids))
    save(model, tmp_path / "ours")
    near(theirs(open_there(tmp_path / "ours"), ids), theirs(peer, ids))


@pytest.mark.parametrize("kind", ["ConditionalGeneration", "SequenceClassification"])
def test_we_open_the_text_half_of_a_model_that_also_sees(tmp_path, kind):
    seeing = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    seeing |= dict(image_size=28, patch_size=14)
    hf = dict(model_type="gemma3", text_config=tiny_hf("gemma3_text"), vision_config=seeing)
    hf["text_config"]["pad_token_id"] = 0
    peer = new_of_kind(f"Gemma3For{kind}", hf | CLASSES | dict(mm_tokens_per_image=4))
    peer.save_pretrained(tmp_path / "theirs")
    model, ids = load(tmp_path / "theirs"), batch("none")[0]
    head = model.classify if "Class" in kind else model.logits
    with torch.no_grad():
        near(head(model(ids)), theirs(peer, ids))
    save(model, tmp_path / "ours")
    auto = open_classifier if "Class" in kind else open_there
    near(theirs(auto(tmp_path / "ours"), ids), theirs(peer, ids))
