"""What train.py --resume reads from a run's folder: a file of a wrong kind ends the call with one line that
names it, and changes nothing."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from files import read_json, write_json
from games.twentyq import match
from tests.facts import SMALL

pytestmark = pytest.mark.slow

DEEP = "[" * 100_000
NAN = float("nan")
INF = float("inf")


@pytest.fixture(scope="module")
def finished(world_file, tmp_path_factory):
    """{dtype: folder} of runs of two steps, with eval.json and rollouts.jsonl."""
    folder = tmp_path_factory.mktemp("finished")
    flags = [*SMALL, "--world", str(world_file), "--cells", "2", "--explore", "0", "--answers", "20"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match, "ROUNDS", 3)
        for dtype in ("float32", "float16"):
            more = ["--runs", str(folder), "--name", dtype, "--steps", "2", "--dtype", dtype, "--seed", "3"]
            assert train.main([*flags, *more]) == 0
    return folder


@pytest.fixture(autouse=True)
def short_games(monkeypatch):
    monkeypatch.setattr(match, "ROUNDS", 3)


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run under float32."""
    return shutil.copytree(finished / "float32", tmp_path / "run", symlinks=True)


@pytest.fixture
def half(finished, tmp_path):
    """A copy of the run under float16, which has a scaler."""
    return shutil.copytree(finished / "float16", tmp_path / "half", symlinks=True)


def contents(folder):
    """{name: bytes} of the files that a refused call leaves as they are."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: content for name, content in found.items() if name not in ("log.txt", "run.json")}


def refused(folder, capsys, *said, more=("--steps", "3")):
    """Assert that resuming is refused in one line with these words, and that nothing is changed."""
    before = contents(folder)
    capsys.readouterr()
    code = train.main(["--resume", str(folder), *more])
    error = capsys.readouterr().err
    assert code in (1, 2) and error.startswith("train.py: ") and error.count("\n") == 1, error
    assert all(word in error for word in said), error
    assert len(error) < 600 + len(str(folder))
    assert contents(folder) == before


def change(path, key, value):
    """Set or, with ..., delete a key of a JSON file."""
    content = read_json(path)
    if value is ...:
        del content[key]
    else:
        content[key] = value
    write_json(path, content)


NO_FILES = ["missing", "folder", "fifo", "dangling link", "device"]
NO_JSON = ["", "{", "[]", "null", "7", '"text"', DEEP, b"\xff\xfe{}", "NaN", '{"step": ' + "7" * 5000 + "}"]


def replace(path, kind):
    """Put something that is no file in place of one."""
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


# ------------------------------------------------------------------------------------------------ all files
def test_a_run_that_is_whole_is_resumed(run, half):
    """Or the tests below would hold of anything."""
    for folder in (run, half):
        assert train.main(["--resume", str(folder), "--steps", "3"]) == 0
        assert os.readlink(folder / "model") == "step-3"


JSON_FILES = ["run.json", "before.json", "model/state/state.json"]


@pytest.mark.parametrize("content", NO_JSON, ids=range(len(NO_JSON)))
@pytest.mark.parametrize("name", JSON_FILES)
def test_what_is_no_json_object_is_named(run, capsys, name, content):
    write(run / name, content)
    refused(run, capsys, name.split("/")[-1])


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", [*JSON_FILES, "model/state/optimizer.safetensors", "metrics.jsonl"])
def test_what_is_no_file_is_named_and_not_opened(run, capsys, name, kind):
    """Opening a fifo would wait for ever, and /dev/zero never ends."""
    if (name, kind) == ("metrics.jsonl", "missing"):
        return  # nothing is wrong with that: it is written anew
    replace(run / name, kind)
    refused(run, capsys, name.split("/")[-1])


@pytest.mark.parametrize("what", ["model", "model/state", "a link to nothing"])
def test_a_checkpoint_that_is_gone_is_named(run, capsys, what):
    if what == "a link to nothing":
        shutil.rmtree(run / "step-2")
    elif what == "model":
        (run / what).unlink()
    else:
        shutil.rmtree(run / what)
    refused(run, capsys, str(run), "checkpoint")


# ------------------------------------------------------------------------------------------------ state.json
STATES = [
    *(("step", value) for value in (..., None, "2", -1, 2.5, True, [2], {}, 10**30, NAN, INF)),
    *(("best", value) for value in ("0.5", [], True, NAN, {})),
    *(("worse", value) for value in (-1, "0", 1.5, True, [])),
    *(("seconds", value) for value in ("1", -1, NAN, INF, 1e300, True, [], 10**400)),
    *(("scalars", value) for value in (..., None, [], 5, "x")),
    ("scalars", {"nonsense": 1}),
    ("scalars", {"a.b.c": 1}),
    ("scalars", {"0.999.step": 1}),
    ("scalars", {"0.-1.step": 1}),
    *(("scalars", {"0.0.step": value}) for value in ("x", None, [], {}, True)),
    *(("tensors", value) for value in (5, "x", {}, [1], [None], [["x"]], [], ["0.0.step"], ["x"])),
]


@pytest.mark.parametrize("key, value", STATES)
def test_a_state_of_a_wrong_kind_is_named(run, capsys, key, value):
    change(run / "model/state/state.json", key, value)
    refused(run, capsys, "" if key in ("scalars", "tensors") else key)


SCALERS = [
    {},
    [],
    5,
    "x",
    {"scale": 2.0},
    {"scale": "2"},
    {"scale": NAN},
    {"scale": -1},
    {"scale": None},
]
SCALERS += [
    {"scale": 0},
    {"scale": INF},
    {"scale": 10**400},
    {"_growth_tracker": 0.5},
]


@pytest.mark.parametrize("value", SCALERS, ids=str)
def test_a_scaler_of_a_wrong_kind_is_named(half, capsys, value):
    """Without it, training under float16 would go on with another scale than before."""
    path = half / "model/state/state.json"
    if type(value) is dict and value and value != {"scale": 2.0}:
        value = read_json(path)["scaler"] | value
    change(path, "scaler", value)
    refused(half, capsys, "state.json", "scale")


# ------------------------------------------------------------------------------------------------ optimizers
def first_moment(tensors):
    return next(name for name in sorted(tensors) if name.endswith("exp_avg"))


@pytest.mark.parametrize("listed", [True, False], ids=["", "an older run"])
@pytest.mark.parametrize(
    "what",
    ["missing", "extra", "of another optimizer", "of another shape", "without a name", "unknown", "integers"],
)
def test_an_optimizer_state_with_a_tensor_that_is_not_its_own_is_named(run, capsys, what, listed):
    """Before, a missing one went unnoticed: that weight began anew."""
    path = run / "model/state/optimizer.safetensors"
    tensors = load_file(path)
    name = first_moment(tensors)
    if what == "missing":
        del tensors[name]
    elif what == "of another shape":
        tensors[name] = torch.zeros(*tensors[name].shape, 2)
    elif what == "integers":
        tensors[name] = torch.zeros(tensors[name].shape, dtype=torch.int32)
    else:
        new = {"extra": "0.999.exp_avg", "of another optimizer": "7.0.exp_avg", "without a name": "x"}
        tensors[new.get(what, "0.0.nonsense")] = torch.zeros(2)
    save_file(tensors, path)
    if not listed and what == "of another optimizer":
        return  # then nobody can know
    if not listed:
        change(run / "model/state/state.json", "tensors", ...)
    refused(run, capsys, str(path))


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_damaged_optimizer_state_is_named(run, capsys, size):
    path = run / "model/state/optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(run, capsys, str(path))


# ------------------------------------------------------------------------------------------------ run.json
@pytest.mark.parametrize(
    "value", [..., None, [], 5, "x", {}, {"task": None}, {"task": 5}, {"task": "nonsense"}]
)
def test_values_of_a_wrong_kind_are_named(run, capsys, value):
    change(run / "run.json", "values", value)
    refused(run, capsys, "nonsense" if value == {"task": "nonsense"} else "run.json")


@pytest.mark.slow
def test_no_value_in_a_run_json_leads_to_a_traceback(run, capsys):
    """Every flag in turn with values of every kind: refused in a line that names it, or as good as before."""
    path = run / "run.json"
    content = read_json(path)
    codes = []
    for key in content["values"]:
        for value in ("nonsense", -1, 0.5, [1], {}, NAN):
            write_json(path, content | {"values": content["values"] | {key: value}})
            capsys.readouterr()
            code = train.main(["--resume", str(run), "--dry-run"])
            said = capsys.readouterr().err
            assert code in (0, 1, 2), (key, value)
            if code:
                assert said.count("\n") == 1 and said.startswith("train.py: "), (key, value, said)
            codes.append(code)
    assert len(codes) > 300 and {*codes} == {0, 1, 2}


# ------------------------------------------------------------------------------------------------ rows
ROWS = [
    "[]",
    "7",
    "null",
    "{}",
    '{"step": null}',
    '{"step": "1"}',
    '{"step": -1}',
    '{"step": 1.5}',
    "{",
    "",
    DEEP,
]
ROWS += ['{"step": true}', '{"step": 1}}', '{"step": 1} {"step": 2}', b'{"step": 1, "x": "\xff"}', "\x00"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts.jsonl"])
@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_a_row_of_a_wrong_kind_is_named_with_its_line(run, capsys, name, row):
    row = row if isinstance(row, bytes) else row.encode()
    (run / name).write_bytes(b'{"step": 1}\n' + row + b'\n{"step": 2}\n')
    refused(run, capsys, f"{run / name}, line 2")


def test_a_row_that_a_kill_cut_is_dropped(run):
    path = run / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 3, "lo')
    (run / "rollouts.jsonl").write_text('{"step": 1, "text": "\\u00fc"}\n{"step": 3}\n{"st')
    assert train.main(["--resume", str(run), "--steps", "3"]) == 0
    assert path.read_text().startswith(whole)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
    assert [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()] == [
        {"step": 1, "text": "ü"}
    ]


# ------------------------------------------------------------------------------------------------ before.json
REPORTS = [
    *(("n", value) for value in (..., None, "2", -1, 1.5, [])),
    *(("metrics", value) for value in (..., None, [], 5, {"a": "x"}, {"a": []}, {"a": {}})),
    *(("intervals", value) for value in (..., None, [], {"win_rate@0": 5}, {"win_rate@0": ["a", "b"]})),
    *(("baselines", value) for value in ([], {"a": "x"})),
]


@pytest.mark.parametrize("key, value", REPORTS)
def test_a_report_of_a_wrong_kind_is_named_before_training_goes_on(run, capsys, key, value):
    change(run / "before.json", key, value)
    refused(run, capsys, str(run / "before.json"), key)
