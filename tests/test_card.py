"""Model cards: metadata that the Hub's own loader reads, and texts of others that stay texts."""

import math

import pytest
from conftest import tiny_model
from huggingface_hub import ModelCard

import checkpoint
import infer
import lora
import train
from card import Origin, write_card
from files import read_json

RESULT = {
    "n": 40,
    "metrics": {"wins": 0.75, "none": None, "odd": math.nan},
    "intervals": {"wins": (0.6, 0.86), "none": None},
    "baselines": {},
}
NASTY = "a\n---\nlicense: mit\n# <script>`x`</script> \x1b[31m ![](http://x) \udc80"


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize(
    "head, pipeline, library",
    [
        ("lm", "text-generation", "transformers"),
        ("classes", "text-classification", "transformers"),
        ("none", "sentence-similarity", "sentence-transformers"),
    ],
)
def test_a_card_is_read_by_the_hubs_loader(tmp_path, head, pipeline, library, adapter):
    origin = Origin(["train.py", "--task", "20q"], "20q", 7, RESULT, ["wins  0.750 [0.600, 0.860]"])
    write_card(tmp_path, head, adapter, "owner/base.model-1", origin)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == pipeline
    assert card.data.library_name == ("peft" if adapter else library)
    assert card.data.base_model == "owner/base.model-1"
    assert card.data.license is None  # the user's choice
    assert "parlor" in card.data.tags and ("lora" in card.data.tags) == adapter
    wins, *_ = card.data.eval_results
    assert (wins.metric_type, wins.metric_value) == ("wins", 0.75)
    assert wins.metric_args == {"n": 40, "seed": 7, "interval_95": [0.6, 0.86]}
    assert "    python train.py --task 20q\n" in card.text and "    wins  0.750 [0.600, 0.860]\n" in card.text


@pytest.mark.parametrize("place", ["command", "task", "base", "table"])
def test_what_others_wrote_changes_neither_metadata_nor_markup(tmp_path, place):
    texts = {"command": "c", "task": "t", "base": "b", "table": "r"} | {place: NASTY}
    origin = Origin(["train.py", texts["command"]], texts["task"], 0, RESULT, [texts["table"]])
    write_card(tmp_path, "lm", False, texts["base"], origin)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license is None and card.data.base_model is None
    for line in card.text.split("\n"):
        assert "<script>" not in line or line.startswith("    ")
        assert line.isprintable()


def test_of_a_local_base_only_the_folders_name_is_shown(tmp_path, monkeypatch):
    for base in (tmp_path / "secret" / "bases" / "small", tmp_path / "secret" / "bases" / "step-7"):
        write_card(tmp_path, "lm", False, str(base))
        card = ModelCard.load(tmp_path / "README.md")
        assert card.data.base_model is None and "secret" not in card.content
        assert ("small" if base.name == "small" else "bases") in card.text
    (tmp_path / "runs" / "first").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    write_card(tmp_path, "lm", False, "runs/first")  # looks like a name of the Hub
    assert ModelCard.load(tmp_path / "README.md").data.base_model is None


def test_a_run_an_adapter_and_a_merged_model_have_cards(world_file, tmp_path):
    small = "--dim 32 --layers 1 --heads 2 --mlp-dim 32 --vocab 400 --eval-n 4 --eval-few 2 --batch 2".split()
    game = "--cells 2 --explore 0 --noise 0 --tries 1 --max-new 4 --steps 2 --device cpu --threads 1".split()
    flags = [*small, *game, "--world", str(world_file), "--runs", str(tmp_path), "--dtype", "float32"]
    assert train.main([*flags, "--name", "base", "--seed", "3"]) == 0
    point = checkpoint.open(tmp_path / "base")
    lora.add_lora(point.model, 2)
    point.save(tmp_path / "adapter")
    merged = tmp_path / "merged"
    assert infer.main(["merge", "--model", str(tmp_path / "adapter"), "--out", str(merged)]) == 0

    card = ModelCard.load(tmp_path / "base" / "model" / "README.md")
    report = read_json(tmp_path / "base" / "eval.json")
    assert card.data.library_name == "transformers" and card.data.base_model is None
    shown = {score.metric_type: score for score in card.data.eval_results}
    main = next(iter(report["metrics"]))
    assert shown[main].metric_value == report["metrics"][main]
    assert shown[main].metric_args["interval_95"] == report["intervals"].get(main)
    assert shown[main].metric_args["seed"] == 3 and "--name base --seed 3" in card.text
    card = ModelCard.load(tmp_path / "adapter" / "README.md")
    assert card.data.library_name == "peft" and "## Base model\n\n    base\n" in card.text
    card = ModelCard.load(merged / "README.md")
    assert card.data.library_name == "transformers" and card.data.base_model is None
    assert "python infer.py merge" in card.text


def test_an_adapter_names_its_base_on_the_hub(tokenizer, tmp_path):
    model = lora.add_lora(tiny_model(vocab_size=tokenizer.size), 2)
    point = checkpoint.Checkpoint(model, tokenizer, base=("owner/base", "main"))
    point.save(tmp_path)
    assert ModelCard.load(tmp_path / "README.md").data.base_model == "owner/base"
