"""What holds of every game from the command line, on one tiny run of each: what training writes, that
evaluations repeat and nothing is overwritten, resuming, kills, wrong calls, --data, playing, old runs."""

import dataclasses
import io
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from safetensors.torch import load_file

import agents
import checkpoint
import infer
import lora
import runs
import train
from files import read_json
from games import GAMES, task_class
from games.task import Collects, EvaluatesRecords, HasBank, LearnsAtTestTime, Mines
from tests.games.arc.help_arc import runs_programs

STEPS = 4
TESTS = 4  # examples of the evaluation after training; before it 2
TRAIN = (
    f"--dim 32 --layers 1 --heads 2 --mlp-dim 32 --vocab 400 --batch 2 --steps {STEPS} --save-every 2 "
    f"--eval-few 2 --eval-n {TESTS} --threads 1 --dtype float32 --device cpu"
).split()
INFER = "--threads 1 --dtype float32 --device cpu".split()
FLAGS = {  # of both scripts: the smallest worlds
    "20q": "--noise 0 --answers 8 --tries 2 --max-new 4",
    "arc": f"--tests {TESTS} --seconds 0.5 --max-new 4",
    "arena": f"--battles 20 --tests {TESTS}",
    "chat": f"--problems 40 --tests {TESTS} --max-new 4",
    "eedi": f"--questions 8 --tests {TESTS}",
    "reasoning": f"--problems 40 --tests {TESTS} --max-new 4",
}
TRAIN_OWN = {"20q": "--cells 2", "arc": "--eval-replies 2"}
INFER_OWN = {"arc": "--n 2"}
PAIR = {"input": [[1, 2]], "output": [[2, 1]]}
PROGRAM = {"source": "return grid[:, ::-1]", "verdict": "wrong", "right": 0, "views": [[PAIR, PAIR]]}
ROUND = ["Is it alive?", "yes", "oak"]
ROWS = {  # what --data takes, row i
    "20q": lambda i: {"keyword": f"thing {i}", "rounds": [ROUND] * 2},
    "arc": lambda i: {"id": f"task {i}", **PROGRAM},
    "arena": lambda i: {"prompt": f"p {i}", "response_a": "yes", "response_b": "no", "winner": "a"},
    "chat": lambda i: {"prompt": f"q {i}", "completion": "yes"},
    "eedi": lambda i: {"query": f"q {i}", "pos": [f"label {i % 3}"], "neg": ["another"]},
    "reasoning": lambda i: {"question": f"q {i}", "reasoning": "1 + 1 = 2.", "answer": "2"},
}
GONE = dict(  # flags of earlier versions
    kv_heads=4, neftune=0.0, beta1=0.9, clip_low=0.2, clip_high=0.2, pool=40, credit=2.0
)


@dataclass
class Played:
    """A game, and a run of it."""

    name: str
    folder: Path
    flags: list

    @property
    def kind(self):
        return task_class(self.name)

    def train(self, name, *more):
        own = TRAIN_OWN.get(self.name, "").split()
        call = ["--task", self.name, *TRAIN, *self.flags, *own, "--runs", str(self.folder.parent)]
        return train.main([*call, "--name", name, *more])

    def infer(self, verb, *more, run=None):
        """A call that names the run and never the task, which the run knows."""
        own = INFER_OWN.get(self.name, "").split()
        call = [verb, "--run", str(run or self.folder), "--runs", str(self.folder.parent)]
        return infer.main([*call, *INFER, *FLAGS[self.name].split(), *own, *more])

    def write_data(self, path, n=6):
        path.write_text("".join(json.dumps(ROWS[self.name](i)) + "\n" for i in range(n)))
        return path


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=runs_programs if name == "arc" else ()) for name in GAMES],
)
def game(request, tmp_path_factory, world_file):
    """Each game, trained once for all tests of it."""
    name = request.param
    flags = FLAGS[name].split() + (["--world", str(world_file)] if name == "20q" else [])
    played = Played(name, tmp_path_factory.mktemp(name) / "run", flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("games.arc.task.TASKS", 20)
        patch.setattr("infer.plots.main", lambda argv: 0)
        patch.setattr("games.twentyq.match.ROUNDS", 3)
        assert played.train("run") == 0
        yield played


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    """Nobody is at the keyboard."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def metrics_of(path):
    metrics = read_json(path)["metrics"]
    metrics.pop("valid_loss", None)
    return metrics


def without_floats(text):
    """The value of JSON text but for its floats, which depend on how a model is laid out."""
    return json.loads(text, parse_float=lambda number: 0.0)


def files_beside(game, out):
    """What eval writes beside its report: {ending: path}."""
    endings = game.kind().files([]) if issubclass(game.kind, EvaluatesRecords) else ()
    return {ending: out.with_name(out.stem + ending) for ending in endings}


# ------------------------------------------------------------------------------------------------ evaluations
def test_training_writes_its_evaluations_and_a_row_a_step(game):
    before, report = (read_json(game.folder / name) for name in ("before.json", "eval.json"))
    about = {name: report[name] for name in ("format", "task", "n", "seed")}
    assert about == {"format": 1, "task": game.name, "n": TESTS, "seed": 0}
    metrics = report["metrics"]
    assert before["n"] == 2 and [*before["metrics"]][0] == [*metrics][0] and "valid_loss" in metrics
    for value in [*metrics.values(), *report["baselines"].values()]:
        assert value is None or isinstance(value, (int, float))
    for name, interval in report["intervals"].items():
        assert name in metrics, name
        assert interval is None or interval[0] <= metrics[name] <= interval[1], name
    assert [row["step"] for row in lines_of(game.folder / "metrics.jsonl")] == [*range(1, STEPS + 1)]
    samples = lines_of(game.folder / "samples.jsonl")
    assert len(samples) >= TESTS and all(type(sample) is dict for sample in samples)


def test_eval_gives_the_figures_of_training_and_the_same_file_twice(game, tmp_path):
    for name in ("a.json", "b.json"):
        assert game.infer("eval", "--limit", str(TESTS), "--out", str(tmp_path / name)) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert metrics_of(tmp_path / "a.json") == pytest.approx(metrics_of(game.folder / "eval.json"), abs=1e-4)
    records = without_floats((tmp_path / "a.json").read_text())["records"]
    assert records == [*map(without_floats, (game.folder / "samples.jsonl").read_text().splitlines())]
    for ending, path in files_beside(game, tmp_path / "a.json").items():
        assert path.read_bytes() == (tmp_path / f"b{ending}").read_bytes()


@pytest.fixture(scope="module")
def adapter(game):
    """The folder of an adapter on the game's model."""
    point = checkpoint.open(game.folder, "none" if game.kind.loss == "contrastive" else "own")
    lora.add_lora(point.model, 2)
    point.save(game.folder.with_name("adapter"))
    return game.folder.with_name("adapter")


@pytest.mark.parametrize("verb", ["eval", "collect", "rows", "submit", "merge", "play"])
def test_what_exists_is_neither_overwritten_nor_touched(game, adapter, tmp_path, capsys, verb):
    out = tmp_path / "out.json"
    there = [out]
    if verb == "eval":
        there += files_beside(game, out).values()
    if (verb, game.name) in [("submit", "reasoning"), ("submit", "chat"), ("collect", "chat")]:
        pytest.skip("nothing to write")
    more = ["--predictions", str(tmp_path / "x")] if (verb, game.name) == ("submit", "arc") else []
    model = adapter if verb == "merge" else game.folder / "model"
    for path in there:
        path.write_text("mine")
        capsys.readouterr()
        call = [verb, "--task", game.name, "--model", str(model), "--runs", str(tmp_path), "--out", str(out)]
        assert infer.main([*call, *INFER, *FLAGS[game.name].split(), *more]) == 1
        assert str(path) in capsys.readouterr().err
        assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_text() == "mine"
        path.unlink()


# ------------------------------------------------------------------------------------------------ going on
def test_a_run_resumed_after_half_of_its_steps_is_one_that_was_not_interrupted(game, monkeypatch):
    """It is stopped a step after its checkpoint, and does that step again."""
    record = runs.Run.record

    def stops(self, name, row):
        record(self, name, row)
        if row.get("step") == STEPS // 2 + 1:
            raise KeyboardInterrupt

    half = game.folder.with_name("half")
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "record", stops)
        assert game.train("half") == 130
    assert train.main(["--resume", str(half)]) == 0
    tensors = [load_file(folder / "model/model.safetensors") for folder in (game.folder, half)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all((tensor == tensors[1][key]).all() for key, tensor in tensors[0].items())
    losses = [[row["loss"] for row in lines_of(folder / "metrics.jsonl")] for folder in (game.folder, half)]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
    for name in ("before.json", "eval.json"):
        assert read_json(half / name) == read_json(game.folder / name)


def test_a_call_that_was_killed_goes_on_to_the_same_bytes(game, tmp_path, monkeypatch, capsys):
    """eval of games that are evaluated by records, collect of others; a file that was begun with other
    settings is left as it is."""
    if not issubclass(game.kind, (EvaluatesRecords, Collects)):
        pytest.skip("no records")
    verb = "eval" if issubclass(game.kind, EvaluatesRecords) else "collect"
    monkeypatch.setattr(infer, "CHUNK", 2)
    whole, out, part = (tmp_path / name for name in ("whole.json", "out.json", "out.json.part"))
    call = verb, "--limit", str(TESTS), "--temperature", "1"
    reply, asked, kills = agents.Model.reply, [], False

    def count(self, conversations, *more, **control):
        if kills and part.exists():
            raise KeyboardInterrupt
        asked.extend(conversations)
        return reply(self, conversations, *more, **control)

    monkeypatch.setattr(agents.Model, "reply", count)
    assert game.infer(*call, "--out", str(whole)) == 0
    of_all, kills = len(asked), True
    assert game.infer(*call, "--out", str(out)) == 130
    begun, kills = part.read_bytes(), False
    assert 0 < len(begun.splitlines()) < TESTS and not out.exists()
    capsys.readouterr()
    assert game.infer(*call, "--out", str(out), "--seed", "9") == 1
    assert f"{part}: made with seed 0, now 9" in capsys.readouterr().err
    assert part.read_bytes() == begun and not out.exists()
    part.write_bytes(begun + b'{"row": 3, "rec')  # a line that the kill cut
    asked.clear()
    assert game.infer(*call, "--out", str(out)) == 0
    assert 0 < len(asked) < of_all  # what was done is not done again
    assert out.read_bytes() == whole.read_bytes() and len(whole.read_bytes()) > 100
    for ending, path in files_beside(game, out).items():
        assert path.read_bytes() == (tmp_path / f"whole{ending}").read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_a_run_that_an_older_version_saved_plays_evaluates_and_goes_on(game, tmp_path):
    """Flags that are gone stand in its run.json, the embedded world by its old place, and its state has no
    fields of later versions."""
    old = tmp_path / "old"
    shutil.copytree(game.folder, old, symlinks=True)
    record = read_json(old / "run.json")
    record["values"] |= GONE
    if game.name == "20q":
        record["values"] |= {"world": "/nowhere/games/worlds/twentyq.txt", "limit": 4}
    (old / "run.json").write_text(json.dumps(record))
    state = read_json(old / "model/state/state.json")
    for name in ("worse", "seconds", "scaler"):
        del state[name]
    (old / "model/state/state.json").write_text(json.dumps(state))
    assert game.infer("play", run=old) == 0
    limit = 1 if game.name == "20q" else TESTS
    assert game.infer("eval", "--limit", str(limit), "--out", str(tmp_path / "e.json"), run=old) == 0
    if game.name != "20q":  # whose model never saw that world
        assert metrics_of(tmp_path / "e.json") == pytest.approx(metrics_of(old / "eval.json"), abs=1e-4)
    assert train.main(["--resume", str(old), "--steps", str(STEPS + 1)]) == 0
    assert [row["step"] for row in lines_of(old / "metrics.jsonl")] == [*range(1, STEPS + 2)]


# ------------------------------------------------------------------------------------------------ wrong calls
def choices_and_shares(game):
    """(flag, a value that it does not take) of the game's flags."""
    for field in dataclasses.fields(game.kind.Options):
        flag = f"--{field.name.replace('_', '-')}"
        if get_args(field.type):
            yield flag, "nonsense"
        if field.metadata.get("share"):
            yield flag, "1.5"


def test_a_flag_that_is_unknown_or_has_a_wrong_value_is_a_wrong_call(game, capsys):
    for flag, value in [("--nonsense", "1"), *choices_and_shares(game)]:
        assert infer.main(["eval", "--task", game.name, flag, value]) == 2, flag
        assert flag in capsys.readouterr().err
        assert game.train("wrong", flag, value) == 2, flag
        assert flag in capsys.readouterr().err
    assert not game.folder.with_name("wrong").exists()


def test_what_a_game_or_a_verb_cannot_do_is_a_wrong_call_that_names_the_flag(game, capsys):
    calls = [([verb], "--out") for verb in ("submit", "rows", "merge")]
    calls.append((["collect"], "--out" if issubclass(game.kind, (Collects, Mines)) else "--task chat"))
    calls.append((["play", "--seat", "referee"], "--seat"))
    if game.kind.loss == "sft":
        calls.append((["eval", "--n", "4", "--temperature", "0"], "--n"))
    if not issubclass(game.kind, LearnsAtTestTime):
        calls.append((["eval", "--ttt-steps", "1"], "--ttt-steps"))
    for call, flag in calls:
        assert game.infer(*call) == 2, call
        assert flag in capsys.readouterr().err
    if not issubclass(game.kind, HasBank):
        assert game.train("wrong", "--bank") == 2
        assert "--bank" in capsys.readouterr().err and not game.folder.with_name("wrong").exists()


# ------------------------------------------------------------------------------------------------ --data
def test_data_that_is_missing_or_broken_ends_with_1_and_its_place(game, tmp_path, capsys):
    broken = game.write_data(tmp_path / "broken.jsonl", 2)
    broken.write_text(broken.read_text() + '{"id": \n')
    missing = tmp_path / "missing.jsonl"
    for path, place in ((broken, f"{broken}, line 3"), (missing, str(missing))):
        assert game.train("wrong", "--data", str(path)) == 1
        assert place in capsys.readouterr().err
        assert game.infer("rows", "--data", str(path), "--out", str(tmp_path / "rows.jsonl")) == 1
        assert place in capsys.readouterr().err
    assert not game.folder.with_name("wrong").exists() and not (tmp_path / "rows.jsonl").exists()


def test_rows_writes_what_training_would_see(game, tmp_path):
    data, out = game.write_data(tmp_path / "data.jsonl", 20), tmp_path / "rows.jsonl"
    assert game.infer("rows", "--data", str(data), "--out", str(out)) == 0
    examples = game.kind(game.kind.Options(data=str(data))).examples("train")
    assert lines_of(out) == json.loads(json.dumps(examples)) and len(examples) > 10


# ------------------------------------------------------------------------------------------------ play
@pytest.mark.parametrize("text", ["", "\n \n"])
def test_play_without_input_plays_one_scripted_game(game, monkeypatch, capsys, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert game.infer("play", "--seed", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and not any(line.startswith("> ") for line in lines)  # nobody is asked
