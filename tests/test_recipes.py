"""Flags and recipes: what is set, by what, and what a wrong call says."""

import dataclasses
import re

import pytest

from families import config_from_hf
from games import GAMES, recipes_of, task_class
from games.twentyq.recipes import SEED_20Q
from model import Transformer
from recipes import VERBS, Infer, Train, groups_of, parse, restore, values
from terminal import UsageError
from weights import shapes_only

KINDS = [Train, Infer, *(task_class(name).Options for name in GAMES)]
RECIPES = {name: recipe for game in GAMES for name, recipe in recipes_of(game).items()}
LOSSES = {"dpo", "simpo", "kto", "contrastive", "grpo", "distil"}


def helps(kind):
    return {name: text for _, _, fields in groups_of(kind) for name, text in fields.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_help_comment_under_a_heading(kind):
    assert {field.name for field in dataclasses.fields(kind)} == set(helps(kind))
    for heading, verbs, _ in groups_of(kind):
        assert heading and set(verbs) <= {"train", *VERBS, *LOSSES}, heading


@pytest.mark.parametrize("call", ["--max-new 0", "--min-p 2", "--top-p 1.5", "--min-p -1", "--top-k -1"])
def test_a_flag_of_sampling_out_of_its_range_is_refused_by_name(call):
    flag, value = call.split()
    with pytest.raises(UsageError, match=flag):
        parse(Infer, ["sample", "--task", "20q", f"{flag}={value}"])
    if flag == "--max-new":
        with pytest.raises(UsageError, match=flag):
            parse(Train, ["--task", "20q", f"{flag}={value}"])


def help_of(kind, capsys, *argv):
    with pytest.raises(SystemExit) as left:
        parse(kind, [*argv, "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("verb", ["train", *VERBS])
def test_help_shows_the_flags_that_the_verb_uses_and_no_others(game, verb, capsys):
    kind = Train if verb == "train" else Infer
    shown = help_of(kind, capsys, "--task", game, *([] if kind is Train else [verb]))
    assert not re.search(r"\[/\w", shown)  # no absolute path in a default
    flags = re.findall(r"^  --(?:\[no-\])?(\S+) ", shown, re.M)
    for each in (kind, task_class(game).Options):
        for _, verbs, fields in groups_of(each):
            used = not verbs or verb in verbs or (kind is Train and task_class(game).loss in verbs)
            for name in fields:
                assert (name.replace("_", "-") in flags) == (used and name != "verb"), name


def test_the_help_of_training_fits_two_screens(capsys):
    for game in GAMES:
        assert len(help_of(Train, capsys, "--task", game).splitlines()) <= 90


def test_the_help_of_a_loss_shows_its_own_flags(capsys):
    assert "--group" not in help_of(Train, capsys) and "--group" in help_of(Train, capsys, "--loss", "grpo")


def test_no_flag_of_a_game_shadows_one_of_ours():
    for task in map(task_class, GAMES):
        own = {field.name for field in dataclasses.fields(task.Options)}
        for kind in (Train, Infer):
            assert not own & {field.name for field in dataclasses.fields(kind)}


def test_a_value_that_is_none_of_its_choices_is_a_wrong_call():
    for argv in (["--optimizer", "sgd"], ["--schedule", "cosin"], ["--flips", "1.5"], ["--lr", "-1"]):
        with pytest.raises(UsageError, match=argv[0]):
            parse(Train, argv)


def test_a_run_that_was_saved_with_flags_of_before_is_restored_without_them():
    saved = values(parse(Train, ["--steps", "3"])) | {"kv_heads": 4, "neftune": 0.0, "pool": 40}
    assert restore(Train, saved).steps == 3


def test_every_recipe_begins_with_the_name_of_its_game():
    assert [
        name for game in GAMES for name in recipes_of(game) if not f"{name}-".startswith(f"{game}-")
    ] == []


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
    assert (settings.schedule, settings.clip, settings.beta2) == ("linear", 1.0, 0.999)
    assert settings.optimizer == "adamw" and settings.lora_rank == 0


def test_the_seed_trained_the_attention_of_layers_22_to_31_the_embedding_and_the_head():
    hf = dict(model_type="llama", vocab_size=64, hidden_size=16, intermediate_size=16)
    hf |= dict(num_hidden_layers=32, num_attention_heads=4, num_key_value_heads=2)
    with shapes_only():
        model = Transformer(config_from_hf(hf))
    names = [name for name, _ in model.named_parameters()]
    chosen = {name for name in names if re.search(SEED_20Q["train_only"], name)}
    expected = {f"layers.{i}.attn.{side}_proj.weight" for i in range(22, 32) for side in "qkvo"}
    assert chosen == expected | {"embed.weight", "head.weight"}
