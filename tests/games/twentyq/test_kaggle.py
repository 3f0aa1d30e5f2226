"""The Kaggle submission of 20 Questions: what it packs, and a client with something safe to say in time."""

import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time

import pytest
from conftest import tiny_model

import infer
import lora
import model as models
from games.twentyq import kaggle
from games.twentyq.kaggle import RESCUE, Client, as_question, time_limit
from games.twentyq.prompts import answer_prompt, ask_prompt, correct, guess_prompt
from games.twentyq.task import Options, TwentyQuestions
from games.twentyq.world import WORLD, World
from tests.games.twentyq.help_twentyq import Ranked

GAME = {"remainingOverageTime": 300, "step": 0, "role": "guesser", "keyword": "", "category": ""}
ASK = GAME | {"turnType": "ask", "questions": [], "answers": [], "guesses": []}
LATER = ASK | {"questions": ["Is it alive?"], "answers": ["no"], "guesses": ["stone"]}
GUESS = LATER | {"turnType": "guess", "guesses": []}
ANSWER = LATER | {"turnType": "answer", "role": "answerer", "keyword": "eagle", "answers": []}
SEATS = [ASK, LATER, GUESS, ANSWER]
NO_OBSERVATIONS = [None, {}, [], "ask", 7, {"turnType": "ask"}, {"turnType": "answer"}]
NO_TIMES = ["soon", None, math.nan]
GARBAGE = [
    *NO_OBSERVATIONS,
    *(ASK | {"remainingOverageTime": time} for time in NO_TIMES),
    LATER | {"turnType": "dance"},
    LATER | {"turnType": ["ask"]},
    LATER | {"questions": None},
    LATER | {"questions": [7, None], "answers": [{}, []]},
    GUESS | {"answers": []},
    GUESS | {"guesses": [None]},
    ANSWER | {"questions": []},
    ANSWER | {"keyword": None},
    ANSWER | {"questions": [{"a": 1}]},
    ANSWER | {"remainingOverageTime": math.inf},
]


@pytest.fixture
def client(world_file):
    """client(agent, flags): a Client in the tiny world; its model is an agent, or what loads one."""

    def make(agent, **flags):
        load = agent if callable(agent) else lambda: agent
        return Client(load, TwentyQuestions(Options(world=str(world_file), **flags)))

    return make


def acceptable(observation, action):
    """Whether the environment takes an action where it asked for one."""
    if isinstance(observation, dict) and observation.get("turnType") == "answer":
        return action in ("yes", "no")
    return isinstance(action, str) and action.strip() != ""


# ------------------------------------------------------------------------------------------- questions
@pytest.mark.parametrize(
    "text",  # "Can the opener?" is "canopener" when the environment has normalised it
    ["bike path", "Bike path?", "a bike path.", "can opener", "Can the opener?", "Will-o'-the-wisp?"]
    + ["do it yourself kit", "May I?", "island", "?"],
)
def test_what_could_be_a_bare_keyword_becomes_a_sentence(text):
    asked = as_question(text)
    assert asked == f"Is it {text.rstrip('?.')}?" == as_question(asked)


@pytest.mark.parametrize(
    "text",
    ["", "is a thing", "Can water ruin it?", "Is it a bike path?", "Does it have legs", "do you eat it?"]
    + ["Do most people own one?", "Is it Agent Alpha?", RESCUE]
    + ['Does the keyword (in lowercase) precede "opener" in alphabetical order?'],
)
def test_what_asks_in_a_sentence_stays(text):
    assert as_question(text) == text


def test_no_keyword_of_the_world_is_ever_a_question_and_its_questions_stay():
    world = World()
    for word in (*world.keywords, *(other for words in world.alternates.values() for other in words)):
        for text in (word, f"{word}?", f"The {word}", word.upper() + "s"):
            assert not correct(as_question(text), word)
    assert [question for question in world.questions if as_question(question) != question] == []


def test_questions_are_rewritten_before_repeats_are_looked_for(client):
    play = client(Ranked("oak", "I think.\nOak?", "Is it big?"))
    observation = ASK | {"questions": ["Is it oak?"], "answers": ["no"]}
    assert play.act(observation) == "Is it big?"
    assert play.act(ASK) == "Is it oak?"


# ------------------------------------------------------------------------------------------- the client
def test_what_the_model_says_is_said(client):
    play = client(Ranked("stone", "spoon", "plane"))
    assert play.act(GUESS) == "stone"
    assert play.act(GUESS | {"guesses": ["Stone", "spoon"]}) == "plane"
    assert client(Ranked("Yes, it is.")).act(ANSWER) == "yes"
    assert client(Ranked("No.")).act(ANSWER) == "no"
    assert client(Ranked("Perhaps.")).act(ANSWER) == "yes"  # the table's; "perhaps" would forfeit the game
    assert client(Ranked("Perhaps.")).act(ANSWER | {"keyword": "a cloud"}) == "no"


def test_the_model_reads_a_keyword_as_its_world_spells_it(client):
    """The environment has "Bike path", and a small model has learned no other spelling than its own."""
    model = Ranked("yes")
    play = client(model)
    for given, read in (("Eagle", "eagle"), ("EAGLE!", "eagle"), ("Unheard-of", "Unheard-of")):
        play.act(ANSWER | {"keyword": given})
        assert model.heard[-1] == answer_prompt(read, "Is it alive?")


def fails(*given, **named):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, SystemExit])
def test_where_the_model_fails_the_table_player_speaks(client, capsys, error):
    def breaks(*given, **named):
        raise error("broken")

    broken = Ranked()
    broken.reply = breaks
    turns = [("Is it alive?", "no")]
    prompts = [ask_prompt([]), ask_prompt(turns), guess_prompt(turns), answer_prompt("eagle", "Is it alive?")]
    for play in (client(broken), client(breaks), client(Ranked("")), client(Ranked())):
        table = [reply.text for reply, *_ in play.game.table_player().reply(prompts)]
        assert [play.act(observation) for observation in SEATS] == table
    assert "broken" in capsys.readouterr().err


def test_a_model_that_could_not_be_loaded_is_tried_again(client):
    tries = iter([fails, lambda: Ranked("plane")])
    play = client(lambda: next(tries)())
    assert play.act(GUESS) != "plane" and play.act(GUESS) == "plane" and play.act(GUESS) == "plane"


def test_a_late_model_is_not_waited_for_and_gets_no_more_to_do_until_it_is_done(client, monkeypatch):
    gate, begun = threading.Event(), []

    class Slow(Ranked):
        def reply(self, conversations, n=1):
            begun.append(conversations)
            gate.wait(10)
            return super().reply(conversations, n)

    play, hurry = client(Slow("plane")), GUESS | {"remainingOverageTime": 0}
    monkeypatch.setattr(kaggle, "ACT", 0.05)
    began = time.monotonic()
    said = [play.act(hurry) for _ in range(3)]
    assert "plane" not in said and len(set(said)) == 1 and len(begun) == 1
    assert time.monotonic() - began < 5
    gate.set()
    monkeypatch.setattr(kaggle, "ACT", 5)
    assert play.act(hurry) == "plane" and len(begun) == 2


@pytest.mark.parametrize("observation", GARBAGE)
def test_garbage_is_answered(client, observation):
    for agent in (Ranked("Is it big?", "oak"), fails):
        assert acceptable(observation, client(agent).act(observation))


def test_a_client_has_the_aids_that_the_flags_name(client):
    for k, asked in ((0, "Can it sing?"), (2, "Is it alive?")):
        assert client(Ranked("Can it sing?", "Is it alive?"), candidates=k).act(ASK) == asked


def test_time_is_kept_however_late_the_model_is():
    bank = 300.0
    for _ in range(60):
        seconds = time_limit(ASK | {"remainingOverageTime": bank})
        assert 40 <= seconds < 60 + bank
        bank -= max(0.0, seconds - 60)
    assert bank > 60
    assert time_limit(ASK) > 120  # to load a model
    assert time_limit(ASK | {"remainingOverageTime": 0}) < 60


# ------------------------------------------------------------------------------------------- packing
@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A random model, and beside it what has no place in a submission."""
    path = tmp_path_factory.mktemp("model")
    models.save(tiny_model(vocab_size=400), path)
    tokenizer.save(path)
    for name in ("README.md", "pytorch_model.bin", "model-old.safetensors", "state/optimizer.safetensors"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("not needed")
    return path


@pytest.fixture(scope="module")
def flags(world_file):
    argv = "submit --task 20q --device cpu --max-new 6 --tries 4 --candidates 3 --protocol half".split()
    return [*argv, "--world", str(world_file)]


@pytest.fixture(scope="module")
def submission(flags, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "submission.tar.gz"
    assert infer.main([*flags, "--model", str(folder), "--out", str(out)]) == 0
    return out


def names_in(submission):
    with tarfile.open(submission) as tar:
        return set(tar.getnames())


def test_it_holds_our_modules_the_weights_the_world_and_plain_files_only(submission, folder, world_file):
    with tarfile.open(submission) as tar:
        entries = {entry.name: entry for entry in tar}
        assert all(entry.isfile() and entry.mode == 0o644 for entry in entries.values())
        weights = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
        assert {name for name in entries if not name.endswith(".py")} == {
            "given/world.txt",
            "games/twentyq/world.txt",
            *(f"weights/{name}" for name in weights),
        }
        for name in weights:
            assert tar.extractfile(f"weights/{name}").read() == (folder / name).read_bytes()
        assert tar.extractfile("given/world.txt").read() == world_file.read_bytes()
    assert not [name for name in entries if name.startswith(("tests", "bench", "games/arc", "games/sandbox"))]


@pytest.mark.parametrize("world", ["", str(WORLD), "/elsewhere/games/worlds/twentyq.txt"])
def test_the_world_that_is_packed_anyway_is_not_given_again(flags, folder, tmp_path, world):
    out = tmp_path / "submission.tar.gz"
    assert infer.main([*flags[:-1], world, "--model", str(folder), "--out", str(out)]) == 0
    assert not [name for name in names_in(out) if name.startswith("given")]


def test_the_same_model_makes_the_same_bytes_on_another_day(submission, flags, folder, tmp_path, monkeypatch):
    again = tmp_path / "copy"
    shutil.copytree(folder, again, copy_function=shutil.copy)
    os.utime(again / "config.json", (1, 1))
    (again / "config.json").chmod(0o600)
    monkeypatch.setattr(time, "time", lambda: 5e8)
    out = tmp_path / "new" / "other.tar.gz"
    assert infer.main([*flags, "--model", str(again), "--out", str(out)]) == 0
    assert out.read_bytes() == submission.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["other.tar.gz"]


def test_all_shards_of_a_large_model_are_packed(flags, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "SHARD_BYTES", 30_000)
    models.save(tiny_model(vocab_size=400), tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    out = tmp_path / "submission.tar.gz"
    assert infer.main([*flags, "--model", str(tmp_path / "model"), "--out", str(out)]) == 0
    shards = {f"weights/{path.name}" for path in (tmp_path / "model").glob("model*")}
    assert len(shards) > 3 and shards <= names_in(out)


def test_an_adapter_is_refused_with_the_command_that_merges_it(flags, folder, tokenizer, tmp_path, capsys):
    model = lora.add_lora(models.load(folder), rank=2)
    lora.save_lora(model, tmp_path / "adapter", folder)
    base, adapter, merged = str(folder), str(tmp_path / "adapter"), str(tmp_path / "merged")
    for named in (["--model", adapter], ["--model", base, "--lora", adapter]):
        out = tmp_path / "submission.tar.gz"
        assert infer.main([*flags, *named, "--out", str(out)]) == 1 and not out.exists()
        command = f"merge --task 20q {' '.join(named)} --out"
        assert command in capsys.readouterr().err
        assert infer.main([*command.split(), merged]) == 0
        assert infer.main([*flags, "--model", merged, "--out", str(out)]) == 0
        shutil.rmtree(merged)
        out.unlink()


FRESH = """
import contextlib, io, json, sys

def opened(path):
    # as kaggle_environments does
    sys.path.append(path)
    space = {}
    exec(compile(open(path + "/main.py").read(), path + "/main.py", "exec"), space)
    sys.path.pop()
    return [value for value in space.values() if callable(value)][-1]

observations, rows = json.load(sys.stdin), []
for folder in sys.argv[1:]:
    play, errors = opened(folder), io.StringIO()
    with contextlib.redirect_stderr(errors):
        actions = [play(observation, {}) for observation in observations]
    rows.append([actions, errors.getvalue()])
files = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
print(json.dumps([rows, files]))
"""


def test_it_plays_in_a_fresh_process_from_its_own_folder_with_all_that_it_packs(submission, tmp_path):
    """The second folder lacks its weights: there the table player speaks."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for path in (whole, broken):
        with tarfile.open(submission) as tar:
            tar.extractall(path, filter="data")
    (broken / "weights" / "model.safetensors").unlink()
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    argv = [sys.executable, "-I", "-B", "-c", FRESH, str(whole), str(broken)]
    observations = json.dumps([*SEATS, *GARBAGE])
    done = subprocess.run(argv, input=observations, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    (rows, files), asked = json.loads(done.stdout), [*SEATS, *GARBAGE]
    for actions, _ in rows:
        assert all(acceptable(observation, action) for observation, action in zip(asked, actions))
    (by_model, _), (by_table, errors) = rows
    assert by_model[:3] != by_table[:3] and "model.safetensors" in errors
    assert by_table[0] in World(whole / "given" / "world.txt").questions
    root = os.path.dirname(infer.__file__)
    assert not [file for file in files if file.startswith(root + os.sep) and "site-packages" not in file]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before  # it writes nothing


def test_its_main_says_how_it_plays_and_from_which_files(flags, folder, tmp_path):
    world, out = tmp_path / "world.answers.jsonl", tmp_path / "submission.tar.gz"
    world.write_text('{"keyword": "oak", "answers": {"Is it alive?": [3, 0]}}\n')
    more = f"--temperature 0.5 --top-p 0.75 --seed 3 --tries 5 --guesses both --format plain --belief {world}"
    more += " --alpha-control --pool 7"
    assert infer.main([*flags, *more.split(), "--model", str(folder), "--out", str(out)]) == 0
    with tarfile.open(out) as tar:
        main = tar.extractfile("main.py").read().decode()
        assert tar.extractfile("given/belief.answers.jsonl").read() == world.read_bytes()
    said = ["'temperature': 0.5", "'top_p': 0.75", "'seed': [3]", "'max_new': 6", "'tries': 5", "'plain'"]
    said += ["'candidates': 3", "'guesses': 'both'", "'belief': 'given/belief.answers.jsonl'"]
    said += ["'alpha_control': True", "'pool': 7"]
    assert [text for text in said if text not in main] == []


def test_a_missing_belief_is_named_before_anything_is_written(flags, folder, tmp_path, capsys):
    argv = [*flags, "--model", str(folder), "--out", str(tmp_path / "submission.tar.gz")]
    assert infer.main([*argv, "--belief", "nowhere.txt"]) == 1 and "nowhere.txt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
