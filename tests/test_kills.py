"""Kills: long work that is killed goes on with the same command, to the bytes of a call that nobody killed.

Every call is a fork of this process. It is killed at random moments, which follow from a seed, or before each
of its writes in turn."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import infer
import journal
import runs
import train
from files import write_json, write_rows
from games.twentyq import match
from tests.endpoint import Endpoint
from tests.facts import SMALL
from tests.processes import Child

pytestmark = pytest.mark.slow

PLAIN = "--threads 1 --device cpu".split()
TURN = {
    "train": [{"input": [[1, 2]], "output": [[2, 1]]}] * 2,
    "test": [{"input": [[3, 4]], "output": [[4, 3]]}],
}


def contents(folder):
    """{name: bytes} of all files in a folder."""
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def results(folder):
    """The contents without the lock, and the journals, that a kill leaves after the work is done."""
    return {name: text for name, text in contents(folder).items() if not name.endswith((".lock", ".part"))}


@pytest.fixture(scope="module", autouse=True)
def small():
    """A kill loses the part of the work that is under way: here a few replies. Games are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "CHUNK", 6)
        patch.setattr(match, "ROUNDS", 3)
        yield


class Teller(Endpoint):
    """An endpoint that writes a whole game of 20 Questions for the strategy snapshot, always the same."""

    def talk(self, messages):
        keyword = messages[1]["content"].split("\n")[0]
        sure = "yes" if len(keyword) % 2 else "no"
        return f"Question: Is it alive? Answer: {sure}\nQuestion: Can it fly? Answer: no"


@pytest.fixture(scope="module")
def endpoint():
    with Teller() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def typed(base, world_file, endpoint, tmp_path_factory):
    """typed(text) gives the arguments of a call in which some words stand for files."""
    folder = tmp_path_factory.mktemp("given")
    prompts = [{"prompt": f"{word} {i}", "id": i} for i in range(6) for word in ("oak", "a red apple")]
    for size in (3, 12):
        write_rows(folder / f"prompts-{size}.jsonl", prompts[:size])
    write_json(folder / "tasks.json", {"eval": {f"eval{i}": TURN for i in range(8)}})
    words = {
        "MODEL": base,
        "WORLD": world_file,
        "PROMPTS-3": folder / "prompts-3.jsonl",
        "PROMPTS-12": folder / "prompts-12.jsonl",
        "TASKS": folder / "tasks.json",
        "URL": f"{endpoint.url}#teller",
    }
    return lambda text: [*(str(words.get(word, word)) for word in text.split()), *PLAIN]


CALLS = {
    "sample": "sample --model MODEL --prompts PROMPTS-SIZE --n 2 --temperature 1 --max-new 12",
    "eval": "eval --task reasoning --model MODEL --tests SIZE --n 2 --temperature 1 --max-new 12",
    "eval, more files": "eval --task arc --model MODEL --data TASKS --prompt-version output-from-examples-v1 "
    "--n 3 --max-new 8 --limit SIZE",
    "collect": "collect --world WORLD --model MODEL --n 4 --temperature 1 --noise 0,0.5 --max-new 3 "
    "--tries 1 --limit SIZE",
    "collect, table": "collect --world WORLD --teacher table --strategy play --noise 0.3 --n 4 --limit SIZE",
    "collect, endpoint": "collect --world WORLD --teacher URL --strategy snapshot --n 3 --temperature 1 "
    "--workers 2 --limit SIZE",
}


@pytest.fixture(params=CALLS)
def call(request, typed, tmp_path):
    """call(size, folder) gives the arguments of one of these calls, which writes into the folder, and the
    contents that the folder has when nobody kills it, and the seconds that it takes."""

    def make(size, folder):
        argv = typed(CALLS[request.param].replace("SIZE", str(size)))
        began = time.monotonic()
        child = Child(tmp_path / "said", infer.main, [*argv, "--out", str(tmp_path / "alone" / "out.jsonl")])
        assert child.wait() == 0, child.said
        alone = contents(tmp_path / "alone")
        assert alone["out.jsonl"]
        return [*argv, "--out", str(folder / "out.jsonl")], alone, time.monotonic() - began

    return make


def end(argv, folder, said):
    """Make a call that nobody kills."""
    had_result = (folder / "out.jsonl").exists()
    child = Child(said, infer.main, argv)
    code = child.wait()
    # killed when its work was done, so there is nothing to go on with
    assert code == 0 or code == 1 and had_result and "out.jsonl exists" in child.said, child.said


# ------------------------------------------------------------------------------------------------ at random
@pytest.mark.slow
def test_a_call_that_is_killed_again_and_again_ends_with_the_same_bytes(call, tmp_path):
    folder = tmp_path / "killed"
    argv, alone, seconds = call(12, folder)
    rng = np.random.default_rng(len(argv))
    kills = 0
    while kills < 6:
        had_result = (folder / "out.jsonl").exists()
        child = Child(tmp_path / "said", infer.main, argv)
        code = child.kill_after(rng.uniform(0, seconds))
        kills += code == -signal.SIGKILL
        if code != -signal.SIGKILL:  # it was faster
            assert code == 0 or code == 1 and had_result and "out.jsonl exists" in child.said, child.said
            assert results(folder) == alone
            shutil.rmtree(folder)
    end(argv, folder, tmp_path / "said")
    assert results(folder) == alone


# ------------------------------------------------------------------------------------------------ every write
def die_before(write: int):
    """Let this process kill itself before its so many-th change of the disk."""
    changes = 0

    def counted(function):
        def change(*arguments, **named):
            nonlocal changes
            if function is not unlink or os.path.lexists(arguments[0]):
                if changes == write:
                    os.kill(os.getpid(), signal.SIGKILL)
                changes += 1
            return function(*arguments, **named)

        return change

    unlink = Path.unlink
    for owner, name in (
        (os, "replace"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (Path, "symlink_to"),
        (shutil, "rmtree"),
        (journal, "append"),
        (runs.Run, "record"),
    ):
        setattr(owner, name, counted(getattr(owner, name)))


def killed_before(write: int, said: Path, call, argv) -> bool:
    """Make a call, killed before a write. Returns whether it was; otherwise it has ended."""

    def run():
        die_before(write)
        return call(argv)

    child = Child(said, run)
    code = child.wait()
    assert code in (0, -signal.SIGKILL), child.said
    return code != 0


@pytest.mark.slow
def test_a_call_may_be_killed_before_any_of_its_writes(call, tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "CHUNK", 4)
    folder = tmp_path / "killed"
    argv, alone, _ = call(3, folder)
    for write in range(100):
        if not killed_before(write, tmp_path / "said", infer.main, argv):
            break
        end(argv, folder, tmp_path / "said")
        assert results(folder) == alone, write
        shutil.rmtree(folder)
    assert 4 < write < 99


# ------------------------------------------------------------------------------------------------ trainings
@pytest.fixture
def steps(world_file, tmp_path):
    """steps(n, *flags) gives the arguments of a training of n steps under tmp_path/runs."""
    flags = [*SMALL, "--world", str(world_file), "--cells", "2", "--explore", "0", "--answers", "20"]
    return lambda n, *more: [*flags, "--runs", str(tmp_path / "runs"), "--steps", str(n), *more]


def result_of(folder):
    """What a training left, without times."""
    tensors = {}
    for path in sorted((folder / "model").rglob("*.safetensors")):
        tensors |= {f"{path.name} {key}": tensor.numpy().tobytes() for key, tensor in load_file(path).items()}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "names": sorted(path.name for path in folder.iterdir()),
        "tensors": tensors,
        "rows": [{key: row[key] for key in ("step", "loss", "lr", "grad")} for row in rows],
        "before": (folder / "before.json").read_text(),
        "eval": (folder / "eval.json").read_text(),
        "samples": (folder / "samples.jsonl").read_text(),
    }


def call_for(folder, argv):
    """The arguments that go on with a run: those that began it until it has a checkpoint, then --resume."""
    return ["--resume", str(folder)] if (folder / "model").exists() else [*argv, "--name", folder.name]


@pytest.mark.slow
@pytest.mark.parametrize("more, seed", [("--save-every 3", 0), ("--save-every 1 --optimizer muon", 1)])
def test_a_training_that_is_killed_again_and_again_ends_as_if_it_was_not(steps, tmp_path, more, seed):
    argv = steps(12, *more.split())
    began = time.monotonic()
    child = Child(tmp_path / "said", train.main, [*argv, "--name", "alone"])
    assert child.wait() == 0, child.said
    seconds = time.monotonic() - began
    alone = result_of(tmp_path / "runs" / "alone")
    rng = np.random.default_rng(seed)
    folder = tmp_path / "runs" / "killed"
    killed = {"begun": 0, "resumed": 0}
    while sum(killed.values()) < 8 or not all(killed.values()):
        call = call_for(folder, argv)
        child = Child(tmp_path / "said", train.main, call)
        code = child.kill_after(rng.uniform(0, seconds))
        assert code in (0, -signal.SIGKILL), child.said
        if code == 0:
            assert result_of(folder) == alone
            shutil.rmtree(folder)
        else:
            killed["resumed" if call[0] == "--resume" else "begun"] += 1
    child = Child(tmp_path / "said", train.main, call_for(folder, argv))
    assert child.wait() == 0, child.said
    assert result_of(folder) == alone and len(alone["rows"]) == 12 and len(alone["tensors"]) > 20
    assert not list((tmp_path / "runs").rglob("*.partial")) + list((tmp_path / "runs").rglob("*.lock"))


@pytest.mark.slow
def test_a_training_may_be_killed_before_any_of_its_writes(steps, tmp_path):
    argv = steps(2, "--save-every", "1")
    assert train.main([*argv, "--name", "alone"]) == 0
    alone = result_of(tmp_path / "runs" / "alone")
    begun = 0
    for write in range(200):
        folder = tmp_path / "runs" / f"killed-{write}"
        call = [*argv, "--name", folder.name]
        if not killed_before(write, tmp_path / "said", train.main, call):
            break
        begun += not (folder / "model").exists()
        child = Child(tmp_path / "said", train.main, call_for(folder, argv))
        assert child.wait() == 0, (write, child.said)
        assert result_of(folder) == alone, write
        shutil.rmtree(folder)
    assert 10 < begun < write < 199
    assert not list((tmp_path / "runs").rglob("*.partial")) + list((tmp_path / "runs").rglob("*.lock"))


@pytest.fixture
def dead(steps, tmp_path):
    """dead(place) gives the folder of a run `a`, of two steps, killed at some place before its first
    checkpoint."""

    def killed(place):
        def die(*arguments, **named):
            os.kill(os.getpid(), signal.SIGKILL)

        def run():
            owner, name = {
                "folder made": (runs.Run, "log"),
                "settings": (runs, "write_json"),
                "evaluation": (train, "evaluate"),
                "first step": (runs.Run, "record"),
                "weights": (runs, "save_file"),
                "link": (runs, "link"),
            }[place]
            setattr(owner, name, die)
            return train.main(steps(2, "--name", "a"))

        child = Child(tmp_path / "said", run)
        assert child.wait() == -signal.SIGKILL, child.said
        return tmp_path / "runs" / "a"

    return killed


@pytest.mark.parametrize("place", ["folder made", "settings", "evaluation", "first step", "weights", "link"])
def test_a_run_without_a_checkpoint_is_begun_again_by_the_same_call(steps, dead, tmp_path, capsys, place):
    folder = dead(place)
    assert folder.exists() and not (folder / "model").exists()
    if (folder / "run.json").exists():  # from then on it is known which call it was
        before = contents(folder)
        for other in (steps(3, "--name", "a"), steps(2, "--name", "a", "--seed", "1")):
            assert train.main(other) == 1
            assert str(folder) in capsys.readouterr().err and contents(folder) == before
        for resumed in ([], ["--steps", "3"]):
            assert train.main(["--resume", str(folder), *resumed]) == 1
            said = capsys.readouterr().err
            assert str(folder) in said and said.count("\n") == 1 and contents(folder) == before
    assert train.main(steps(2, "--name", "a")) == 0
    assert [row["step"] for row in result_of(folder)["rows"]] == [1, 2]
    log = (folder / "log.txt").read_text()
    assert log.count("step 1/2") == log.count("run folder") == 1
    assert train.main(steps(2, "--name", "a")) == 1  # it has a checkpoint now
    assert "--resume" in capsys.readouterr().err


def test_a_folder_that_holds_anything_else_is_not_cleared(steps, dead, tmp_path, capsys):
    folder = dead("first step")
    for name in ("notes.txt", "eval.json", "model.safetensors", ".hidden"):
        (folder / name).write_text("precious")
        before = contents(folder)
        assert train.main(steps(2, "--name", "a")) == 1
        assert str(folder) in capsys.readouterr().err and contents(folder) == before
        (folder / name).unlink()
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "notes.txt").touch()
    (tmp_path / "runs" / "c").touch()
    for name in "bc":
        assert train.main(steps(2, "--name", name)) == 1
        assert str(tmp_path / "runs" / name) in capsys.readouterr().err
    assert (tmp_path / "runs" / "b" / "notes.txt").exists() and (tmp_path / "runs" / "c").is_file()
