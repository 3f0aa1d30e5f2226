"""Opening and saving checkpoints: names of runs, folders and the Hub; adapters; heads."""

import json
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest
import torch
from torch.testing import assert_close

import checkpoint
import model as models
from lora import adapters, add_lora, save_lora

IDS = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))


def open_model(name, **options):
    return checkpoint.open(name, tokenizer=False, **options)


def outputs(opened):
    model = opened.model if isinstance(opened, checkpoint.Checkpoint) else opened
    with torch.no_grad():
        return model.logits(model(IDS))


def adapted(model):
    """A model with an adapter that changes it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, layer in adapters(add_lora(model, rank=2)):
            layer.lora_B.normal_(0, 0.2, generator=generator)
    return model


@pytest.fixture
def saved(tiny, tmp_path):
    """A folder with a full model in base/ and an adapter for it in adapter/."""
    models.save(tiny(), tmp_path / "base")
    save_lora(adapted(tiny()), tmp_path / "adapter", tmp_path / "base")
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    """Folders by Hub name, and the calls made for them."""
    folders, calls = {}, []

    def snapshot_download(name, **options):
        calls.append((name, options))
        return str(folders[name])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return folders, calls


# ------------------------------------------------------------------------------------------------ names
def test_a_run_stands_for_its_checkpoint(tiny, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        open_model(str(tmp_path))
    models.save(tiny(), tmp_path / "model")
    opened = open_model(str(tmp_path))
    assert torch.equal(outputs(opened), outputs(tiny()))
    assert opened.folder == tmp_path / "model" and opened.base == (str(tmp_path / "model"), None)


@pytest.mark.parametrize(
    "name, message",
    [(Path("/nowhere"), "/nowhere: no such"), ("someone/not-here", "someone/not-here: .*Hub")],
)
def test_a_folder_or_a_name_of_the_hub_that_is_not_there_is_an_error(name, message):
    with pytest.raises(FileNotFoundError, match=message):
        open_model(name)


def test_neither_pickles_nor_code_are_fetched_from_the_hub(hub, saved):
    folders, calls = hub
    folders["owner/name"] = saved / "base"
    assert open_model("owner/name", revision="abc").base == ("owner/name", "abc")
    options = calls[0][1]
    assert options["revision"] == "abc"
    wanted = "config.json model-00001-of-00002.safetensors tokenizer.json chat_template.jinja".split()
    others = "pytorch_model.bin consolidated.00.pth training_args.pt optimizer.pkl modeling.py".split()
    matches = lambda file: any(Path(file).match(pattern) for pattern in options["allow_patterns"])
    assert [file for file in (*wanted, *others) if matches(file)] == wanted


# ------------------------------------------------------------------------------------------------ adapters
def test_an_adapter_is_put_on_its_base(saved, tiny):
    opened = open_model(str(saved / "adapter"))
    assert opened.base == (str(saved / "base"), None)
    assert torch.equal(outputs(opened), outputs(adapted(tiny())))
    assert opened.folder == saved / "base"  # unless the adapter has its own tokenizer, as below
    (saved / "adapter" / "tokenizer.json").write_text("{}")
    assert open_model(str(saved / "adapter")).folder == saved / "adapter"


def test_a_named_adapter_is_put_on_a_named_model(saved, tiny):
    models.save(tiny(seed=5), saved / "other")
    opened = open_model(str(saved / "other"), lora=str(saved / "adapter"))
    assert (str(opened.folder), *opened.base) == (str(saved / "other"), str(saved / "other"), None)
    assert torch.equal(outputs(opened), outputs(adapted(tiny(seed=5))))


def test_what_was_trained_on_is_that_of_the_folder_and_of_its_adapter(saved):
    (saved / "base" / "trained.json").write_text('["a"]')
    (saved / "adapter" / "trained.json").write_text('["b"]')
    assert open_model(str(saved / "base")).trained_on == {"a"}
    assert open_model(str(saved / "base"), lora=str(saved / "adapter")).trained_on == {"a", "b"}


def test_the_revision_of_an_adapter_is_not_asked_of_its_base(saved, hub):
    path = saved / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "owner/base"}))
    folders, calls = hub
    folders |= {"owner/adapter": saved / "adapter", "owner/base": saved / "base"}
    open_model("owner/adapter", revision="abc")
    asked = {(name, options["revision"]) for name, options in calls}
    assert asked == {("owner/adapter", "abc"), ("owner/base", None)}


def test_an_adapter_on_an_adapter_and_one_that_names_no_base_are_errors(saved):
    with pytest.raises(ValueError, match="is an adapter itself"):
        open_model(str(saved / "adapter"), lora=str(saved / "adapter"))
    path = saved / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(ValueError, match="names no base model"):
        open_model(str(saved / "adapter"))


# ------------------------------------------------------------------------------------------------ new ones
@dataclass
class Sizes:
    dim: int = 32
    layers: int = 2
    heads: int = 2
    mlp_dim: int = 48
    vocab: int = 300


TEXTS = ["a question", "an answer"] * 4
MESSAGES = [{"role": "user", "content": "a question"}]


@pytest.mark.parametrize("head", ["own", 3])
def test_what_is_made_from_scratch_is_saved_and_opened_again(tmp_path, head):
    made = checkpoint.from_scratch(Sizes(), TEXTS, r".+", head, seed=1)
    assert made.model.config.head == ("lm" if head == "own" else "classes")
    made.save(tmp_path / "first", trained_on={"b", "a"})
    again = checkpoint.open(tmp_path / "first")
    assert again.tokenizer.prompt(MESSAGES) == made.tokenizer.prompt(MESSAGES)
    assert again.model.config == made.model.config and again.trained_on == {"a", "b"}
    for key, weight in made.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[key])
    add_lora(again.model, rank=2)
    again.save(tmp_path / "second", trained_on={"c"})
    last = checkpoint.open(tmp_path / "second")
    assert last.base == (str(tmp_path / "first"), None) and adapters(last.model)
    assert last.folder == tmp_path / "second" and last.trained_on == {"a", "b", "c"}
    assert last.tokenizer.prompt(MESSAGES) == made.tokenizer.prompt(MESSAGES)


def test_an_embedder_from_scratch_gives_the_same_vectors_when_it_is_opened_again(tmp_path):
    made = checkpoint.from_scratch(Sizes(), TEXTS, r".+", "none", seed=1, max_tokens=20)
    made.save(tmp_path / "first")
    again = checkpoint.open(tmp_path / "first", "none")
    assert again.tokenizer is None and again.embedder.max_length == 20
    assert torch.equal(again.embedder.embed(TEXTS), made.embedder.embed(TEXTS))
    again.model.requires_grad_(False)
    adapted(again.model)
    again.save(tmp_path / "second")
    last = checkpoint.open(tmp_path / "second", "none")
    assert last.base == (str(tmp_path / "first"), None)
    assert_close(last.embedder.embed(TEXTS), again.embedder.embed(TEXTS))


def test_ranks_that_only_gather_write_nothing(tmp_path):
    made = checkpoint.from_scratch(Sizes(), TEXTS, r".+")
    made.save(None)
    checkpoint.from_scratch(Sizes(), TEXTS, r".+", "none").save(None)
    assert list(tmp_path.iterdir()) == []
