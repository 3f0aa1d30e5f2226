"""Two processes on one output: the second is refused at once, and the result is that of the first alone. And
calls that are wrong leave no file."""

import errno
import json
import os
import resource
from contextlib import ExitStack
from pathlib import Path

import pytest

import checkpoint
import infer
import lora
import runs
import train
from files import locked, write_json, write_rows
from games.twentyq import match
from tests.facts import SMALL
from tests.processes import Child, start_together, wait_for

pytestmark = pytest.mark.slow

PLAIN = "--threads 1 --device cpu --max-new 4".split()
GRIDS = "--task arc --data TASKS --prompt-version output-from-examples-v1 --n 2".split()
TURN = {
    "train": [{"input": [[1, 2]], "output": [[2, 1]]}] * 2,
    "test": [{"input": [[3, 4]], "output": [[4, 3]]}],
}


@pytest.fixture(scope="module", autouse=True)
def short_games():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match, "ROUNDS", 3)
        yield


@pytest.fixture(scope="module")
def given(base, world_file, tmp_path_factory):
    """The words of the calls below that stand for files."""
    folder = tmp_path_factory.mktemp("given")
    write_rows(folder / "prompts.jsonl", [{"prompt": word} for word in ("oak", "elm", "stone", "red apple")])
    write_rows(folder / "traces.jsonl", [{"prompt": "p", "response": "<think>t</think>a"}] * 3)
    (folder / "broken.jsonl").write_text('{"prompt": "oak"}\n{"prompt": 5}\n')
    (folder / "empty.jsonl").touch()
    write_json(folder / "tasks.json", {"eval": {"eval0": TURN}})
    attempts = [{"attempt_1": [[4, 3]], "attempt_2": [[0, 0]]}]
    write_json(folder / "attempts.json", {"eval0": attempts})
    lora.save_lora(lora.add_lora(checkpoint.open(str(base)).model, rank=2), folder / "adapter", str(base))
    words = {name.stem.upper(): str(name) for name in folder.iterdir()}
    return {"MODEL": str(base), "WORLD": str(world_file), "FOLDER": str(folder), **words}


@pytest.fixture
def typed(given):
    """typed(text) gives the arguments of a call in which some words stand for files."""
    return lambda text: [given.get(word, word) for word in text.split()]


# One call for each kind of output.
CALLS = {
    "sample": "sample --model MODEL --prompts PROMPTS --n 3 --temperature 1",
    "eval": "eval --model MODEL --world WORLD --limit 2 --noise 0 --no-greedy --answers 20",
    "eval, records": "eval --task reasoning --model MODEL --tests 4",
    "eval, more files": f"eval {' '.join(GRIDS)} --model MODEL",
    "collect": "collect --task reasoning --model MODEL --problems 4 --n 2 --temperature 1 --rewards format:1",
    "collect, table": "collect --world WORLD --teacher table --strategy play --noise 0.3 --n 2",
    "merge": "merge --model ADAPTER",
    "rows": "rows --task reasoning --data TRACES",
    "submit": "submit --task arc --data TASKS --predictions ATTEMPTS",
    "submit, program": "submit --world WORLD --model MODEL",
    "play": "play --world WORLD --model MODEL --seed 3",
}
# calls that are refused before any model is opened, so these need not be the right ones
OTHERS = {
    "collect, endpoint": "collect --world WORLD --teacher http://127.0.0.1:9/v1 --strategy cheap",
    "collect, negatives": "collect --task eedi --questions 4 --tests 4 --model MODEL",
    "submit, rows": "submit --task arena --battles 4 --tests 4 --model MODEL",
    "eval, learning": f"eval {' '.join(GRIDS)} --model MODEL --ttt-steps 1",
}


def call_of(typed, name, out):
    return [*typed({**CALLS, **OTHERS}[name]), *PLAIN, "--out", str(out)]


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


def contents(folder):
    """{name: bytes} of all files in a folder."""
    return {
        name: Path(folder, name).read_bytes() for name in files_in(folder) if Path(folder, name).is_file()
    }


@pytest.fixture
def no_model(monkeypatch):
    """A test in which opening a model is a failure."""
    monkeypatch.setattr(checkpoint, "open", lambda *arguments, **named: pytest.fail("a model was opened"))


# ------------------------------------------------------------------------------------------------ outputs
@pytest.mark.parametrize("name", [*CALLS, *OTHERS])
def test_an_output_that_another_process_writes_is_refused_before_a_model_is_opened(
    typed, tmp_path, no_model, capsys, name
):
    out = tmp_path / "deep" / "out.jsonl"
    with locked(out):
        assert infer.main(call_of(typed, name, out)) == 1
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and str(out) in said.err and f"process {os.getpid()} " in said.err
        assert files_in(tmp_path) == ["deep", "deep/out.jsonl.lock"]
    assert files_in(tmp_path) == ["deep"]


@pytest.mark.parametrize(
    "name, ending", [("eval, more files", "_predictions.json"), ("collect, negatives", "_pool.jsonl")]
)
def test_so_is_a_file_that_is_written_beside_it(typed, tmp_path, no_model, capsys, name, ending):
    """Two reports, e.json and e.jsonl, have the same file of predictions."""
    beside = tmp_path / f"out{ending}"
    with locked(beside):
        assert infer.main(call_of(typed, name, tmp_path / "out.jsonl")) == 1
        assert str(beside) in capsys.readouterr().err
    beside.write_text("precious")
    assert infer.main(call_of(typed, name, tmp_path / "out.jsonl")) == 1
    assert str(beside) in capsys.readouterr().err and contents(tmp_path) == {beside.name: b"precious"}


@pytest.mark.parametrize("name", [name for name in [*CALLS, *OTHERS] if name != "sample"])
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_an_output_that_exists_is_refused_and_stays(typed, tmp_path, no_model, capsys, name, kind):
    out = tmp_path / "out.json"
    if kind == "file":
        out.write_text("precious")
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to("nowhere")
    for more in ([], ["--prompts", "x.jsonl"]):  # a flag of sample, which alone goes on with what exists
        assert infer.main([*call_of(typed, name, out), *more]) in (1, 2)
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and str(out) in said
        assert os.listdir(tmp_path) == ["out.json"]
    assert kind != "file" or out.read_text() == "precious"


@pytest.mark.parametrize("name", CALLS)
def test_a_full_disk_ends_a_call_with_one_line_and_no_half_output(typed, tmp_path, monkeypatch, capsys, name):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdin", open(os.devnull))
    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "out" / "out.json"
    assert infer.main(call_of(typed, name, out)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{out}" in said and "No space left" in said
    left = {"out.json"} if name == "sample" else {"out.json.part"}  # a journal keeps its rows
    assert {*files_in(tmp_path / "out")} <= left
    monkeypatch.undo()
    monkeypatch.setattr("sys.stdin", open(os.devnull))
    assert infer.main(call_of(typed, name, out)) == 0 and not {*files_in(tmp_path / "out")} & {
        "out.json.part"
    }


@pytest.mark.parametrize("name", ["merge", "submit, program"])
def test_so_does_a_limit_that_large_files_run_into(typed, tmp_path, name):
    """The library that writes weights has an exception of its own for it."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return infer.main(call_of(typed, name, tmp_path / "out" / "out"))

    child = Child(tmp_path / "said", limited)
    assert child.wait() == 1, child.said
    assert child.said.count("\n") == 1 and str(tmp_path / "out") in child.said
    assert files_in(tmp_path / "out") == []


# ------------------------------------------------------------------------------------------------ wrong calls
@pytest.mark.parametrize(
    "call",
    [
        "collect --world WORLD --teacher table --strategy nonsense",
        "collect --world WORLD --teacher table --strategy simulate",
        "collect --world WORLD --teacher table --strategy cheap --nonsense 3",
        "collect --world WORLD --teacher table --strategy cheap --n 0",
        "collect --world WORLD --teacher table --strategy cheap --limit -1",
        "collect --world WORLD --teacher table --strategy cheap --model MODEL",
        "collect --world WORLD --strategy cheap --model MODEL",
        "collect --world nowhere.txt --teacher table --strategy cheap",
        "collect --world WORLD --teacher ./nowhere --strategy cheap",
        "collect --world WORLD --teacher http://user:secret@127.0.0.1:9/v1 --strategy cheap",
        "collect --world WORLD --teacher http://127.0.0.1:9/v1 --strategy play",
        "collect --world WORLD --teacher http://127.0.0.1:9/v1 --strategy cheap --price 1",
        "collect --world WORLD --teacher http://127.0.0.1:9/v1 --strategy cheap --n 2",
        "collect --world WORLD --teacher http:// --strategy cheap",
        "collect --task reasoning --model MODEL --data nowhere.jsonl",
        "collect --task reasoning --model MODEL --data EMPTY",
        "collect --task reasoning --model MODEL --rewards nonsense:1",
        "collect --task reasoning --model MODEL --n 2",
        "collect --task reasoning --model ./nowhere",
        "collect --task reasoning --run FOLDER",
        "collect --task reasoning --model MODEL --top-p -1",
        "collect --task reasoning --model MODEL --device nonsense",
        "collect --task eedi --model MODEL --questions 4 --tests 4 --range 9-1",
        "collect --task arc --model MODEL --prompt-version verify",
        "collect --task arc --model MODEL --prompt-version nonsense",
        "collect --task arc --model MODEL --ties nonsense --n 2 --temperature 1",
        "collect --task arc --model MODEL --data nowhere.json",
        "eval --world WORLD --model ./nowhere",
        "eval --world WORLD --model MODEL --noise 7",
        "eval --world WORLD --model MODEL --ttt-steps 3",
        "eval --world WORLD --model MODEL --answerer ./nowhere",
        "eval --task reasoning --model MODEL --data EMPTY",
        "eval --task arc --model MODEL --prompt-version verify",
        "eval --task arc --model MODEL --ties nonsense --n 2 --temperature 1",
        "eval --task arena --model MODEL --battles 4 --tests 4",
        "sample --model MODEL --prompts nowhere.jsonl",
        "sample --model MODEL --prompts EMPTY",
        "sample --model MODEL --prompts BROKEN",
        "sample --model MODEL --prompts FOLDER:nothing",
        "sample --model MODEL --prompts PROMPTS --n 2",
        "sample --model MODEL --prompts PROMPTS --dtype half",
        "sample --model MODEL --prompts PROMPTS --format nonsense",
        "sample --model MODEL --prompts PROMPTS --lora ./nowhere",
        "sample --model ./nowhere --prompts PROMPTS",
        "merge --model MODEL",
        "merge --model ./nowhere",
        "merge --model ADAPTER --lora ADAPTER",
        "submit --task arc --data TASKS",
        "submit --task arc --data TASKS --predictions nowhere.json",
        "submit --task arc --data nowhere.json --predictions ATTEMPTS",
        "submit --task arc --predictions ATTEMPTS",
        "submit --task arc --data TASKS --predictions TRACES",
        "submit --task arena --model MODEL --battles 4 --tests 4",
        "submit --world WORLD --model ADAPTER",
        "submit --world WORLD --model MODEL --belief nowhere.txt --guesses belief",
        "rows --task reasoning --data nowhere.jsonl",
        "rows --task reasoning --data EMPTY",
        "rows --task reasoning --data TRACES --rows 7:",
        "play --world WORLD --model MODEL --seat nonsense",
        "play --world WORLD --model ./nowhere",
        "nonsense --model MODEL",
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_no_file(typed, tmp_path, monkeypatch, capsys, call):
    monkeypatch.setattr("sys.stdin", open(os.devnull))
    out = tmp_path / "out" / "file.jsonl"
    verb, *rest = typed(call)
    assert infer.main([verb, *PLAIN, *rest, "--out", str(out)]) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("infer.py: ") and said.count("\n") == 1 and "secret" not in said
    assert files_in(tmp_path) in ([], ["out"])


@pytest.mark.parametrize("verb", ["collect", "submit", "merge", "rows", "sample"])
def test_verbs_that_write_need_to_know_where(typed, tmp_path, monkeypatch, no_model, capsys, verb):
    monkeypatch.chdir(tmp_path)
    assert infer.main([verb, *typed("--world WORLD --model MODEL --prompts PROMPTS")]) == 2
    assert "--out" in capsys.readouterr().err and files_in(tmp_path) == []


# ------------------------------------------------------------------------------------------------ runs
@pytest.fixture
def steps(world_file, tmp_path):
    """steps(n, *flags) gives the arguments of a training of n steps under tmp_path/runs."""
    flags = [*SMALL, "--world", str(world_file), "--cells", "2", "--explore", "0", "--answers", "20"]
    return lambda n, *more: [*flags, "--runs", str(tmp_path / "runs"), "--steps", str(n), *map(str, more)]


def figures_of(folder):
    """What a training left, without times: (weights, optimizer, losses, evaluation)."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = sorted((folder / "model").glob("**/*.safetensors"))
    assert len(files) == 2
    return (
        [path.read_bytes() for path in files],
        [(row["step"], row["loss"], row["grad"]) for row in rows if "loss" in row],
        (folder / "eval.json").read_bytes(),
        len((folder / "samples.jsonl").read_text().splitlines()),
    )


def gated(owner, name, folder):
    """Let the first call of a function make the file `inside`, and wait for the file `go`."""
    function = getattr(owner, name)

    def wait_and_call(*arguments, **named):
        (folder / "inside").touch()
        wait_for(folder / "go")
        return function(*arguments, **named)

    setattr(owner, name, wait_and_call)


def test_a_run_that_another_process_trains_is_not_resumed(steps, tmp_path, no_model, capsys):
    folder = runs.Run.new(tmp_path / "runs", "20q", "a").folder
    write_json(folder / "run.json", {"values": {"task": "20q"}})
    (tmp_path / "latest").symlink_to(folder)
    with locked(folder):
        for name in (folder, tmp_path / "latest", f"{folder}/"):
            assert train.main(["--resume", str(name)]) == 1
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and str(folder) in said and f"process {os.getpid()} " in said
    assert files_in(tmp_path) == ["latest", "runs", "runs/a", "runs/a/run.json"]


def test_a_name_that_another_process_trains_under_is_refused(steps, tmp_path, capsys):
    with locked(tmp_path / "runs" / "a"):
        assert train.main(steps(1, "--name", "a")) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and str(tmp_path / "runs" / "a") in said and f"{os.getpid()}" in said
    assert files_in(tmp_path) == ["runs"]


@pytest.mark.parametrize("name", ["../x", "a/b", "latest", ".", "..", "TMP/x"])
def test_a_name_that_is_no_plain_folder_name_locks_nothing(steps, tmp_path, capsys, name):
    name = name.replace("TMP", str(tmp_path))
    assert train.main(steps(1, "--name", name)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"--name {name}" in said and files_in(tmp_path) == []


@pytest.mark.parametrize("more", ["--world nowhere.txt", "--stepz 3", "--model ./nowhere", "--dtype half"])
def test_a_wrong_training_leaves_no_file(steps, tmp_path, capsys, more):
    assert train.main(steps(1, "--name", "a", *more.split())) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1 and files_in(tmp_path) in ([], ["runs"])


def test_runs_without_a_name_of_the_same_minute_are_side_by_side(tmp_path, monkeypatch):
    """And none keeps the lock of another: a run that is done may be resumed while the next one trains."""
    monkeypatch.setattr(runs.time, "strftime", lambda form: "1121-1402")
    first = tmp_path / "20q-1121-1402"
    with locked(first), ExitStack() as locks:  # another process is about to make it
        assert runs.Run.new(tmp_path, "20q", locks=locks).folder.name == "20q-1121-1402-2"
    first.mkdir()
    (first / "eval.json").touch()
    with ExitStack() as locks:
        folder = runs.Run.new(tmp_path, "20q", locks=locks).folder
        assert folder.name == "20q-1121-1402-3"
        with locked(first), pytest.raises(BlockingIOError):
            with locked(folder):
                pass
    assert not list(tmp_path.glob("*.lock"))


# ------------------------------------------------------------------------------------------------ at once
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_the_result_of_two_calls_at_once_is_that_of_one(typed, tmp_path, capsys, name):
    """The second comes while the first one works."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    child = Child(tmp_path / "said", infer.main, call_of(typed, name, alone / "out.json"))
    assert child.wait() == 0, child.said
    call = call_of(typed, name, both / "out.json")

    def work():
        gated(infer, "open_call", tmp_path)
        return infer.main(call)

    child = Child(tmp_path / "said", work)
    wait_for(tmp_path / "inside")
    for _ in range(2):
        assert infer.main(call) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and str(both / "out.json") in said and f"process {child.pid} " in said
    (tmp_path / "go").touch()
    assert child.wait() == 0, child.said
    assert contents(both) == contents(alone) != {}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_of_two_calls_that_start_together_one_does_the_work(typed, tmp_path, name):
    alone = tmp_path / "alone"
    child = Child(tmp_path / "said", infer.main, call_of(typed, name, alone / "out.json"))
    assert child.wait() == 0, child.said
    for repeat in range(5):
        both = tmp_path / f"both-{repeat}"
        call = call_of(typed, name, both / "out.json")
        children = start_together([(infer.main, call)] * 2, tmp_path)
        codes = [child.wait() for child in children]
        said = [child.said for child in children]
        if codes == [0, 0] and name == "sample":  # one came when the other was done
            assert any(" 0 to do" in text for text in said)
        else:
            assert sorted(codes) == [0, 1], said
            (refusal,) = said[codes.index(1)].splitlines()
            assert str(both / "out.json") in refusal
        assert contents(both) == contents(alone) != {}


@pytest.mark.slow
def test_a_run_is_not_resumed_while_it_is_trained_but_may_be_played(steps, tmp_path, capsys):
    assert train.main(steps(4, "--name", "alone", "--save-every", 1)) == 0
    folder = tmp_path / "runs" / "both"

    def work():
        gated(runs.Run, "mark_best", tmp_path)  # after the checkpoint of a step
        return train.main(steps(4, "--name", "both", "--save-every", 1, "--eval-every", 2))

    child = Child(tmp_path / "said", work)
    wait_for(tmp_path / "inside")
    capsys.readouterr()
    for call in (
        ["--resume", str(folder)],
        ["--resume", str(folder), "--steps", "9"],
        steps(4, "--name", "both"),
    ):
        assert train.main(call) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and str(folder) in said and f"process {child.pid} " in said
    played = ["sample", "--run", str(folder), "--prompt", "oak", "--max-new", "2", "--device", "cpu"]
    assert infer.main(played) == 0
    (tmp_path / "go").touch()
    assert child.wait() == 0, child.said
    assert figures_of(folder)[0] == figures_of(tmp_path / "runs" / "alone")[0]
    assert not list((tmp_path / "runs").glob("**/*.lock")) + list((tmp_path / "runs").glob("**/*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["name", "resume"])
def test_of_two_trainings_that_start_together_one_trains(steps, tmp_path, how):
    """The second is refused, or comes when the run is done and finds nothing to do."""
    assert train.main(steps(4, "--name", "alone", "--schedule", "constant")) == 0
    alone = figures_of(tmp_path / "runs" / "alone")
    for repeat in range(5):
        name = f"both-{repeat}"
        folder = tmp_path / "runs" / name
        call = steps(4, "--name", name, "--schedule", "constant")
        if how == "resume":
            assert train.main(steps(2, "--name", name, "--schedule", "constant")) == 0
            call = ["--resume", str(folder), "--steps", "4"]
        children = start_together([(train.main, call)] * 2, tmp_path)
        codes = [child.wait() for child in children]
        said = [child.said for child in children]
        assert sorted(codes) == [0, 1], said
        (refusal,) = [line for line in said[codes.index(1)].splitlines() if line.startswith("train.py")]
        assert str(folder) in refusal
        assert figures_of(folder) == alone
    left = list((tmp_path / "runs").glob("**/*.lock")) + list((tmp_path / "runs").glob("**/*.partial"))
    assert left == []
