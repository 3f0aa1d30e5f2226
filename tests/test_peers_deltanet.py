"""Layers with a state against transformers: gradients, packed and ragged rows, beams, files that also see."""

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_hf
from torch.testing import assert_close

from data import collate, pack
from lora import add_lora, load_lora, merge_lora, save_lora
from model import load, save
from sampler import generate, n_best

pytestmark = pytest.mark.peers
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from tests.packed import rows_of, text, tree  # noqa: E402
from tests.peers import IDS, near, new_of_kind, new_there, open_there, ours, theirs  # noqa: E402

FAMILY = "qwen3_5_text"
EYE = dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=32, patch_size=2)
EYE |= dict(num_position_embeddings=4)
DEEP = dict(num_hidden_layers=4, layer_types=None, linear_conv_kernel_dim=4)


@pytest.fixture
def pair(tmp_path):
    """A model of theirs, and ours of the folder that it saves."""
    peer = new_there(FAMILY, **DEEP)
    peer.save_pretrained(tmp_path / "theirs")
    return peer, load(tmp_path / "theirs")


def test_logits_and_gradients_over_several_chunks(pair):
    peer, model = pair
    ids = torch.tensor([text(150, 1), text(150, 2)])
    found = {}
    for name, logits in (("theirs", peer(input_ids=ids).logits), ("ours", model.logits(model(ids)))):
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        found[name] = logits.detach()
    assert_close(found["ours"], found["theirs"], atol=5e-5, rtol=2e-5)
    gradients = {name: weight.grad for name, weight in peer.named_parameters()}
    whole = sum(x.square().sum() for x in gradients.values()).sqrt()
    for name, weight in model.named_parameters():
        other = gradients[model.config.file_name(name)]
        assert (weight.grad - other).norm() <= 1e-4 * other.norm() + 1e-6 * whole, name


@torch.no_grad()
def test_packed_trees_give_what_transformers_gives_for_each_text(pair):
    peer, model = pair
    groups = [tree(70, 9, 12, 4), [text(21, 5)], [text(14, 6)]]
    batch = collate(pack(rows_of(*groups), 400))
    assert len(batch.ids) == 1
    hidden = model(batch.ids, batch.positions, batch.end).flatten(0, 1)[batch.source]
    order = batch.labels[batch.owner].argsort(stable=True)
    texts = [ids for group in groups for ids in group]
    logits = model.logits(hidden)[order].split([len(ids) - 1 for ids in texts])
    for ids, mine in zip(texts, logits):
        assert_close(mine, theirs(peer, torch.tensor([ids[:-1]]))[0], atol=5e-5, rtol=2e-5)


def test_a_ragged_batch_and_beams_give_the_text_of_transformers(pair):
    peer, model = pair
    peer.eval().generation_config.eos_token_id = None
    prompts = [text(n, n) for n in (70, 3, 1, 12)]
    replies = generate(model, prompts, 12, [], temperature=0)
    for prompt, reply in zip(prompts, replies):
        alone = peer.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert reply.ids == alone[0, len(prompt) :].tolist()
    (group,) = n_best(model, prompts[:1], 4, 6, [])
    beams = peer.generate(
        torch.tensor(prompts[:1]),
        max_new_tokens=6,
        num_beams=4,
        num_return_sequences=4,
        do_sample=False,
        pad_token_id=0,
    )
    assert [reply.ids for reply in group] == beams[:, len(prompts[0]) :].tolist()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["ConditionalGeneration", "SequenceClassification"])
def test_we_open_the_text_half_of_a_model_that_also_sees(tmp_path, kind, tied):
    hf = dict(model_type="qwen3_5", text_config=tiny_hf(FAMILY), vision_config=EYE, num_labels=3)
    hf |= dict(tie_word_embeddings=tied, pad_token_id=0)
    peer = new_of_kind(f"Qwen3_5For{kind}", hf)
    peer.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs")
    classifies = "Class" in kind
    with torch.no_grad():
        mine = model.classify(model(IDS.clamp(min=3))) if classifies else ours(model)
        near(mine, theirs(peer, IDS.clamp(min=3) if classifies else IDS))
    save(model, tmp_path / "ours")
    auto = transformers.AutoModelForSequenceClassification if classifies else None
    again = auto.from_pretrained(tmp_path / "ours") if auto else open_there(tmp_path / "ours")
    near(theirs(again, IDS.clamp(min=3)), theirs(peer, IDS.clamp(min=3)))


def test_an_adapter_of_ours_for_a_model_that_also_sees(tmp_path):
    """With every matrix of a block, under the names of the whole model."""
    hf = dict(model_type="qwen3_5", text_config=tiny_hf(FAMILY), vision_config=EYE)
    new_of_kind("Qwen3_5ForConditionalGeneration", hf).save_pretrained(tmp_path / "base")
    model = add_lora(load(tmp_path / "base"), 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2, generator=generator)
    save_lora(model, tmp_path / "ours", tmp_path / "base")
    kind = transformers.Qwen3_5ForConditionalGeneration
    there = peft.PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "ours")
    near(theirs(there), ours(model))
    there.save_pretrained(tmp_path / "theirs")
    again = load_lora(load(tmp_path / "base"), tmp_path / "theirs")
    near(ours(again), ours(model))
    near(ours(merge_lora(again)), ours(model))
