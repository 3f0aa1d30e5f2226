"""Flags and recipes: what is set, by what, and what a wrong call says."""

import dataclasses
import re

import pytest
import torch

from games import GAMES, task_class
from model import Transformer, config_from_hf
from recipes import RECIPES, SEED_20Q, Infer, Train, UsageError, helps, parse, values

KINDS = [Train, Infer, *(task_class(name).Options for name in GAMES)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_help_comment(kind):
    text = helps(kind)
    assert [field.name for field in dataclasses.fields(kind) if not text.get(field.name)] == []


@pytest.mark.parametrize("kind", [Train, Infer])
def test_help_lists_every_flag_with_its_comment(kind, capsys):
    with pytest.raises(SystemExit) as left:
        parse(kind, ["--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for each in (kind, task_class("20q").Options):
        for name, text in helps(each).items():
            assert " ".join(text.split()) in shown
            assert name == "verb" or f"--{name.replace('_', '-')}" in shown


def test_no_flag_of_a_game_shadows_one_of_ours():
    for task in map(task_class, GAMES):
        own = {field.name for field in dataclasses.fields(task.Options)}
        for kind in (Train, Infer):
            assert not own & {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", RECIPES)
def test_every_key_of_a_recipe_is_a_setting_of_its_type(name):
    task = task_class(RECIPES[name]["task"])
    known = {
        field.name: type(field.default)
        for kind in (Train, task.Options)
        for field in dataclasses.fields(kind)
    }
    assert {key: type(value) for key, value in RECIPES[name].items()} == {
        key: known.get(key) for key in RECIPES[name]
    }


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_parses_to_its_own_values(name):
    settings = parse(Train, ["--recipe", name])
    assert values(settings) | RECIPES[name] | {"recipe": name} == values(settings)
    assert all(settings.origin[key] == f"recipe {name}" for key in RECIPES[name])


def test_a_flag_beats_the_recipe_and_the_recipe_the_default():
    plain = Train()
    assert plain.lr != RECIPES["20q"]["lr"] and plain.batch == RECIPES["20q"]["batch"]
    settings = parse(Train, ["--steps", "7", "--cells=3", "--no-greedy", "--dry-run"])
    assert settings.steps == 7 and settings.origin["steps"] == "flag"
    assert settings.lr == RECIPES["20q"]["lr"] and settings.origin["lr"] == "recipe 20q"
    assert settings.dim == plain.dim and "dim" not in settings.origin
    assert settings.options.cells == 3 and settings.origin["cells"] == "flag"
    assert settings.options.greedy is False and settings.dry_run is True


@pytest.mark.parametrize("flag", ["--model", "--init"])
def test_starting_from_a_model_takes_the_recipe_for_models(flag):
    settings = parse(Train, ["--task", "20q", flag, "somewhere"])
    assert settings.recipe == "20q-model" and settings.lr == RECIPES["20q-model"]["lr"]
    assert settings.optimizer == "adamw"


def test_a_named_recipe_stays_with_a_model():
    assert parse(Train, ["--recipe", "20q", "--model", "somewhere"]).recipe == "20q"


def test_without_a_flag_the_task_gives_the_recipe():
    assert parse(Train, []).recipe == "20q" and parse(Train, []).task == "20q"


def test_a_recipe_does_not_reach_infer():
    assert parse(Infer, []).max_new == Infer().max_new and parse(Infer, []).verb == "play"


@pytest.mark.parametrize("verb", ["play", "eval", "sample", "merge"])
def test_verbs_parse(verb):
    assert parse(Infer, [verb, "--seed", "3"]).verb == verb


@pytest.mark.parametrize(
    "kind, argv, said",
    [
        (Train, ["--stepz", "5"], r"--stepz.*--steps"),
        (Train, ["--worlds=x"], r"--worlds.*--world\b"),
        (Train, ["--recipe", "20q-sed-1"], r"20q-sed-1.*20q-seed-1"),
        (Train, ["--task", "20qs"], r"20qs.*20q\b"),
        (Train, ["--task=20qs"], r"20qs.*20q\b"),
        (Train, ["--steps", "many"], r"--steps.*many"),
        (Train, ["--lr", "fast"], r"--lr.*fast"),
        (Train, ["--cells", "1.5"], r"--cells.*1\.5"),
        (Train, ["--steps"], r"--steps.*expected one argument"),
        (Train, ["stray"], r"stray"),
        (Train, ["--step", "5"], r"--step\b.*--steps"),
        (Infer, ["eval", "--limt", "5"], r"--limt.*--limit"),
        (Infer, ["--seatt", "asker"], r"--seatt.*--seat\b"),
    ],
)
def test_a_wrong_call_is_a_usage_error_that_helps(kind, argv, said):
    with pytest.raises(UsageError) as error:
        parse(kind, argv)
    assert re.search(said, str(error.value)), str(error.value)


@pytest.mark.parametrize("argv", [["--task"], ["--recipe"]])
def test_a_flag_at_the_end_without_its_value_is_a_usage_error(argv):
    with pytest.raises(UsageError):
        parse(Train, argv)


# ------------------------------------------------------------------------------------------------ the seed
@pytest.mark.parametrize("name, decay, learn_all", [("20q-seed-1", 0.2, False), ("20q-seed-2", 0.25, True)])
def test_the_seed_recipes_hold_the_figures_of_the_seed(name, decay, learn_all):
    settings = parse(Train, ["--recipe", name])
    assert (settings.lr, settings.batch, settings.warmup) == (1e-5, 1, 0.1)
    assert (settings.weight_decay, settings.learn_all) == (decay, learn_all)
    assert (settings.schedule, settings.clip, settings.beta1, settings.beta2) == ("linear", 1.0, 0.9, 0.999)
    assert settings.optimizer == "adamw" and settings.lora_rank == 0


def test_the_seed_trained_the_attention_of_layers_22_to_31_the_embedding_and_the_head():
    hf = dict(model_type="llama", vocab_size=64, hidden_size=16, intermediate_size=16)
    hf |= dict(num_hidden_layers=32, num_attention_heads=4, num_key_value_heads=2)
    with torch.device("meta"):
        model = Transformer(config_from_hf(hf))
    names = [name for name, _ in model.named_parameters()]
    chosen = {name for name in names if re.search(SEED_20Q["train_only"], name)}
    expected = {f"layers.{i}.attn.{side}_proj.weight" for i in range(22, 32) for side in "qkvo"}
    assert chosen == expected | {"embed.weight", "head.weight"}
