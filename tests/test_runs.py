"""Run folders: numbering, atomic checkpoints, links, optimizer states."""

import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

import files
import model as models
import runs
import weights
from files import link, write_json
from optim import Muon
from runs import Run, pack_state, unpack_state
from terminal import duration


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(6, 4), (4, 6), (4,)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def optimizers_over(weights):
    """Muon over the matrices and AdamW over the vector, as in training."""
    muon = Muon(weights[:2], lr=0.02, weight_decay=0.1)
    return [muon, torch.optim.AdamW([{"params": weights[2:], "weight_decay": 0.1}], lr=0.01)]


def update(weights, optimizers, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)
    for optimizer in optimizers:
        optimizer.step()


def writer(value):
    """A write_model for a model whose only weight is `value`."""

    def write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"w": torch.full((3,), float(value))}, folder / "model.safetensors")

    return write


def stored(run):
    """(weight, step) of the newest checkpoint, read from the disk."""
    weight = load_file(run.folder / "model" / "model.safetensors")["w"]
    return float(weight[0]), run.load_state([])["step"]


@pytest.fixture
def run(tmp_path):
    return Run.new(tmp_path / "runs", "20q", "test")


# ------------------------------------------------------------------------------------------------ folders
def test_new_folders_are_named_by_task_and_time_and_numbered(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.time, "strftime", lambda form: "1121-1402")
    names = [Run.new(tmp_path, "20q").folder.name for _ in range(3)]
    assert names == ["20q-1121-1402", "20q-1121-1402-2", "20q-1121-1402-3"]


def test_an_existing_name_is_refused_and_the_way_on_is_named(tmp_path, run):
    with pytest.raises(FileExistsError, match=f"--resume {run.folder}"):
        Run.new(run.folder.parent, "20q", "test")


@pytest.mark.parametrize("name", ["a/b", "../x", "latest", "/tmp/x", "."])
def test_a_name_that_is_no_plain_folder_name_is_refused(tmp_path, name):
    with pytest.raises((ValueError, FileExistsError)):
        Run.new(tmp_path / "runs", "20q", name)
    assert not any(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_of_runs_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(NotADirectoryError, match="runs"):
        Run.new(tmp_path / "runs", "20q")


def test_rows_and_lines_are_appended_and_lines_are_printed_too(run, capsys):
    run.print("one")
    run.log("two ü")
    assert capsys.readouterr().out == "one\n"
    assert (run.folder / "log.txt").read_text(encoding="utf-8") == "one\ntwo ü\n"
    rows = [{"step": 1}, {"step": 2, "word": "ü"}]
    for row in rows:
        run.record("metrics", row)
    text = (run.folder / "metrics.jsonl").read_text("utf-8")
    assert [json.loads(line) for line in text.splitlines()] == rows


# ------------------------------------------------------------------------------------------------ checkpoints
def test_save_moves_the_links_model_and_latest_by_which_the_run_is_found_wherever_it_is(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        run.load_state([])
    run.save(1, writer(1), [], {})
    run.save(2, writer(2), [], {})
    assert os.readlink(run.folder / "model") == "step-2" and stored(run) == (2, 2)
    assert os.readlink(run.folder.parent / "latest") == "test"
    moved = run.folder.parent.rename(tmp_path / "elsewhere")
    Run(moved / "latest").save(3, writer(3), [], {})
    assert stored(Run(moved / "latest")) == stored(Run(moved / "test")) == (3, 3)


def test_only_linked_checkpoints_are_kept(run):
    run.save(1, writer(1), [], {"best": 0.5})
    run.mark_best()
    for step in (2, 3):
        run.save(step, writer(step), [], {"best": 0.5})
    assert sorted(path.name for path in run.folder.glob("step-*")) == ["step-1", "step-3"]
    assert (os.readlink(run.folder / "best"), os.readlink(run.folder / "model")) == ("step-1", "step-3")
    run.mark_best()
    assert [path.name for path in run.folder.glob("step-*")] == ["step-3"]


def test_a_step_has_one_checkpoint_and_saving_it_again_changes_nothing(run):
    run.save(4, writer(1), [], {"best": 0.25})
    run.save(4, writer(2), [], {"best": 0.75})
    assert run.load_state([]) == {"step": 4, "best": 0.25} and stored(run) == (1, 4)


@pytest.mark.parametrize("stage", ["weights", "optimizer", "state", "flush", "rename", "link"])
def test_a_save_that_fails_leaves_the_last_checkpoint(run, monkeypatch, stage):
    run.save(1, writer(1), optimizers_over(parameters()), {})
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*args, **kwargs):
        raise full

    def half(folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise full

    def refuse(source, target, replace=os.replace):
        fails() if os.path.basename(source).startswith("step-") else replace(source, target)

    with monkeypatch.context() as patched:
        if stage == "optimizer":
            patched.setattr(runs, "save_file", fails)
        if stage == "state":
            patched.setattr(runs, "write_json", fails)
        if stage == "flush":
            patched.setattr(runs.os, "fsync", fails)
        if stage == "rename":
            patched.setattr(runs.os, "replace", refuse)
        if stage == "link":
            patched.setattr(files.Path, "symlink_to", fails)
        with pytest.raises(OSError) as error:
            run.save(2, half if stage == "weights" else writer(2), optimizers_over(parameters()), {})
    message = str(error.value)
    assert "saving step 2 failed" in message and "No space left" in message
    assert "step-1 is complete" in message and f"--resume {run.folder}" in message
    assert stored(run) == (1, 1)
    assert list(run.folder.rglob("*.partial")) == []
    run.save(3, writer(3), [], {})
    assert stored(run) == (3, 3) and [path.name for path in run.folder.glob("step-*")] == ["step-3"]


def test_a_failed_save_of_a_real_model_leaves_one_that_opens(run, monkeypatch, tiny):
    first, second = tiny(seed=1), tiny(seed=2)
    run.save(1, lambda folder: models.save(first, folder), [], {})

    def fails(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(weights, "save_file", fails)
        with pytest.raises(OSError, match="step-1"):
            run.save(2, lambda folder: models.save(second, folder), [], {})
    again = models.load(run.folder / "model")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no checkpoint was saved before it"):
        patched.setattr(weights, "save_file", fails)
        fresh = Run.new(run.folder.parent, "20q", "fresh")
        fresh.save(1, lambda folder: models.save(first, folder), [], {})
    assert not (fresh.folder / "model").exists()


def test_remains_of_a_killed_save_do_not_disturb_the_next(run):
    run.save(1, writer(1), [], {})
    for name in ("step-2.partial", "step-7.partial", "step-2"):
        (run.folder / name).mkdir()
        (run.folder / name / "model.safetensors").write_bytes(b"half")
    (run.folder / "model.partial").symlink_to("step-2")
    assert stored(run) == (1, 1)
    run.save(2, writer(2), [], {})
    assert stored(run) == (2, 2) and [path.name for path in run.folder.glob("step-*")] == ["step-2"]


# ------------------------------------------------------------------------------------------ optimizer states
def test_a_packed_state_put_back_goes_on_exactly(tmp_path):
    weights = parameters()
    optimizers = optimizers_over(weights)
    for seed in range(3):
        update(weights, optimizers, seed)
    tensors, scalars = pack_state(optimizers)
    save_file(tensors, tmp_path / "optimizer.safetensors")
    (tmp_path / "scalars.json").write_text(json.dumps(scalars))
    copies = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    fresh = optimizers_over(copies)
    unpack_state(fresh, load_file(tmp_path / "optimizer.safetensors"), json.loads(json.dumps(scalars)))
    for one, other in zip(optimizers, fresh):
        a, b = one.state_dict()["state"], other.state_dict()["state"]
        assert a.keys() == b.keys() and a
        for p in a:
            assert a[p].keys() == b[p].keys()
            assert all(torch.equal(torch.as_tensor(a[p][k]), torch.as_tensor(b[p][k])) for k in a[p])
    for seed in (3, 4):
        update(weights, optimizers, seed)
        update(copies, fresh, seed)
    assert all(torch.equal(a, b) for a, b in zip(weights, copies))
    fresh = optimizers_over(copies)  # a check of this test: without the state, the next step differs
    update(weights, optimizers, 5)
    update(copies, fresh, 5)
    assert not any(torch.equal(a, b) for a, b in zip(weights, copies))
    some, alone = parameters(), optimizers_over(parameters())
    optimizers = optimizers_over(some)
    some[0].grad = torch.ones_like(some[0])
    optimizers[0].step()  # the others never had a gradient
    tensors, scalars = pack_state(optimizers)
    assert {name.rsplit(".", 1)[0] for name in {**tensors, **scalars}} == {"0.0"}
    unpack_state(alone, tensors, scalars)


# ------------------------------------------------------------------------------------------ small things
@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0s"), (52.9, "52s"), (99, "99s"), (100, "1m"), (2280, "38m"), (5999, "99m")]
    + [(6000, "1h40m"), (7500, "2h05m"), (90_000, "25h00m")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("stage", ["encode", "flush", "rename"])
def test_write_json_never_leaves_a_half_file(tmp_path, monkeypatch, stage):
    write_json(tmp_path / "x.json", {"a": 1})

    def fails(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if stage != "encode":
            patched.setattr(runs.os, {"flush": "fsync", "rename": "replace"}[stage], fails)
        with pytest.raises((OSError, TypeError)):
            write_json(tmp_path / "x.json", {"a": 2, "b": object() if stage == "encode" else 3})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_link_moves_in_one_step_whatever_an_earlier_one_left_behind(tmp_path, monkeypatch):
    link(tmp_path / "a", "one")
    (tmp_path / "a.partial").symlink_to("left behind")
    unlink = files.Path.unlink
    monkeypatch.setattr(files.Path, "unlink", lambda path, **more: path.name == "a" or unlink(path, **more))
    link(tmp_path / "a", "two")
    assert os.readlink(tmp_path / "a") == "two" and len(list(tmp_path.iterdir())) == 1
