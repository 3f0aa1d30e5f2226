"""Pictures of runs, and which game draws what."""

import json
import re
import sys
from pathlib import Path

import pytest

import plots


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    rows = [{"step": i + 1, "loss": 2 / (i + 1), "lr": 1e-3, "grad": 1.0, "tok/s": 50.0} for i in range(30)]
    rows.insert(10, {"step": 10, "eval": {"win_rate": 0.5, "rounds_to_win": None}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, rate in (("before", 0.0), ("eval", 0.9)):
        (folder / f"{name}.json").write_text(json.dumps({"metrics": {"win_rate": rate}}))
    return folder


def test_a_run_is_read_with_the_evaluations_at_its_ends(run):
    read = plots.read_run(run)
    assert len(read.steps) == 30
    assert [(row["step"], row["win_rate"]) for row in read.evaluations] == [(0, 0.0), (10, 0.5), (30, 0.9)]


def test_smoothing_by_hand():
    assert plots.smooth([1, 3, 5, 7], 2) == [1, 2, 4, 6] and plots.smooth([1, 3], 1) == [1, 3]


def test_a_picture_of_two_runs(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    assert plots.main([str(run), str(run), "--out", str(tmp_path / "runs.png")]) == 0
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")
    few, smoothed = [str(run), "--out", str(tmp_path / "few.png"), "--only"], []
    monkeypatch.setattr(plots, "smooth", lambda values, window: smoothed.append(len(values)) or values)
    assert plots.main([*few, "loss,win_rate"]) == 0 and smoothed == [30]
    assert (tmp_path / "few.png").stat().st_size < (tmp_path / "runs.png").stat().st_size
    assert plots.main([*few, "reward"]) == 2 and "--only reward: must be" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_named(run, tmp_path, monkeypatch, capsys):
    reports = {"eedi": [1], "arena": [1], "reasoning": [1], "other": []}
    paths = {task: str(tmp_path / f"{task}.json") for task in reports}
    for task, records in reports.items():
        Path(paths[task]).write_text(json.dumps({"task": task, "records": records}))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call, said in (
        ([paths["eedi"], paths["arena"]], "cannot be in one picture"),
        ([paths["reasoning"]], "--task reasoning"),
        ([paths["other"]], "other.json: "),
        ([str(tmp_path)], f"{tmp_path}/metrics.jsonl: no such file"),
        ([str(damaged)], "metrics.jsonl, line 2"),
        ([str(run)], "pip install matplotlib"),
    ):
        assert plots.main(call) == 1
        assert said in capsys.readouterr().err


def test_pictures_of_an_evaluation_of_arc(tmp_path):
    """What eval wrote: the curve and the lengths, and beside them the tasks."""
    path = tmp_path / "e.json"
    pair = {"input": [[1, 2]], "output": [[2, 1], [0, 0]]}
    replies = [{"test": None, "answers": None, "logp": -1.0, "tokens": 5}]
    replies += [{"test": None, "answers": [pair["output"], None], "logp": -1.0, "tokens": 9}]
    record = {"id": "a", "train": [pair], "test": [pair, {"input": [[3]]}], "replies": replies}
    path.write_text(json.dumps({"task": "arc", "curve": {"1": 0.5, "2": 1.0}, "records": [record]}))
    pytest.importorskip("matplotlib")
    assert plots.main([str(path)]) == 0
    for name in ("e.png", "e_tasks.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    (tmp_path / "f.json").write_text(path.read_text())  # two curves in one picture, and no tasks
    assert plots.main([str(tmp_path / "f.json"), str(path), "--out", str(tmp_path / "both.png")]) == 0
    assert (tmp_path / "both.png").exists() and not (tmp_path / "both_tasks.png").exists()


def test_pictures_of_eedi_before_and_after(tmp_path):
    pytest.importorskip("matplotlib")
    for name, rank in (("before", 30), ("after", 1)):
        records = [
            {"id": f"{q}_{x}", "subject": f"s{q % 2}", "text": f"q{q}", "query": "", "label": f"l{q % 3}"}
            | {"rank": rank, "similarity": 0.8, "hardest": 0.5}
            for q in range(4)
            for x in "AB"
        ]
        report = {"task": "eedi", "metrics": {"map@3": 0.5}, "records": records}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    files = [str(tmp_path / f"{name}.json") for name in ("before", "after")]
    assert plots.main([*files, "--out", str(tmp_path / "e.png")]) == 0
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_battles(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    rows = [
        {"prompt": f"p{i}", "response_a": "x" * i, "response_b": "y", "winner": ("a", "b", "tie")[i % 3]}
        | {"model_a": "m1", "model_b": "m2" if i % 2 else "m3"}
        for i in range(1, 20)
    ]
    path = tmp_path / "battles.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert plots.main([str(path)]) == 0
    shown = capsys.readouterr().out
    assert "19 battles" in shown and all(name in shown for name in ("m1", "m2", "m3"))
    for name in re.findall(r"written: (.+)", shown):
        assert Path(name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "battles.png").exists()
