"""The arena from the command line: both kinds of judges from scratch, soft labels, submissions."""

import csv
import json

import pytest

import infer
import train
from files import read_json
from games.arena.files import TEXTS, WINNERS
from tests.games.arena.help_arena import write_rows

SMALL = (
    "--task arena --dim 32 --layers 1 --heads 2 --mlp-dim 32 --eval-few 8 --eval-n 0 --batch 4 "
    "--battles 40 --tests 20 --threads 1 --dtype float32 --device cpu --epochs 1"
).split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arena")
    for loss in ("classify", "davidson"):
        assert train.main([*SMALL, "--loss", loss, "--runs", str(folder), "--name", loss]) == 0
    return folder


def call(verb, run, *more):
    return infer.main([verb, "--run", str(run), "--device", "cpu", "--tests", "20", "--battles", "40", *more])


def test_both_kinds_of_judges_report_the_same_figures(runs, tmp_path):
    whole, sides = (read_json(runs / f"{loss}/eval.json") for loss in ("classify", "davidson"))
    assert whole["metrics"].keys() == sides["metrics"].keys() and "share of the way" in whole["metrics"]
    assert sides["metrics"]["flips"] == 0 and sides["metrics"]["asymmetry"] < 1e-6
    rows = [json.loads(line) for line in (runs / "classify/metrics.jsonl").read_text().splitlines()]
    assert "accuracy" in rows[0] and rows[0]["cut"] == 0
    lines = (runs / "classify/log.txt").read_text().splitlines()
    (epoch,) = [line for line in lines if line.startswith("epoch ")]
    mean = sum(row["accuracy"] for row in rows) / len(rows)
    assert epoch.startswith("epoch 1, in training: loss ") and epoch.endswith(f"accuracy {mean:.3f}")


def test_a_reward_model_is_trained_and_judges_as_it_is(runs, tmp_path, capsys):
    flags = ["--loss", "bradley-terry", "--runs", str(tmp_path), "--name"]
    assert train.main([*SMALL, *flags, "scratch"]) == 0
    metrics = read_json(tmp_path / "scratch/eval.json")["metrics"]
    assert metrics["flips"] == metrics["asymmetry"] == 0 and metrics["accuracy"] > 0
    rows = [json.loads(line) for line in (tmp_path / "scratch/metrics.jsonl").read_text().splitlines()]
    assert 0 <= rows[0]["accuracy"] <= 1 and 0 < rows[0]["learned"] <= 4
    model = str((tmp_path / "scratch/model").resolve())
    call = [
        "eval",
        "--task",
        "arena",
        "--model",
        model,
        "--tests",
        "20",
        "--battles",
        "40",
        "--device",
        "cpu",
    ]
    out = tmp_path / "eval.json"
    assert infer.main([*call, "--out", str(out)]) == 0
    found = read_json(out)["metrics"]
    assert found["log_loss"] == pytest.approx(metrics["log_loss"], abs=1e-5)


def test_soft_labels_of_one_model_train_another(runs, tmp_path):
    out = tmp_path / "soft.jsonl"
    assert call("collect", runs / "davidson", "--out", str(out)) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 40 and all(abs(row["p_a"] + row["p_b"] + row["p_tie"] - 1) < 1e-4 for row in rows)
    for loss in ("classify", "davidson"):
        flags = ["--data", str(out), "--loss", loss, "--runs", str(tmp_path), "--name", loss]
        assert train.main([*SMALL, *flags]) == 0


def test_a_submission_is_a_csv_of_chances(runs, tmp_path):
    rows = [{"id": i, "prompt": ["p"], "response_a": ["good " * i], "response_b": ["bad"]} for i in range(5)]
    out = tmp_path / "submission.csv"
    data = write_rows(tmp_path / "test.csv", rows)
    assert call("submit", runs / "classify", "--data", data, "--out", str(out)) == 0
    with open(out, newline="") as file:
        found = list(csv.DictReader(file))
    assert [row.pop("id") for row in found] == [*"01234"]
    assert all(sum(map(float, row.values())) == pytest.approx(1, abs=1e-6) for row in found)


def test_a_model_without_a_classifier_is_an_error(tmp_path, capsys):
    flags = "--task reasoning --dim 32 --layers 1 --heads 2 --mlp-dim 32 --steps 1".split()
    more = "--problems 50 --tests 2 --eval-n 1 --eval-few 1 --max-new 2 --device cpu --threads 1".split()
    assert train.main([*flags, *more, "--runs", str(tmp_path), "--name", "a"]) == 0
    model = str((tmp_path / "a/model").resolve())
    assert infer.main(["eval", "--task", "arena", "--model", model, "--tests", "2", "--battles", "2"]) == 1
    assert "has no classifier; train one" in capsys.readouterr().err


def test_features_judge_in_place_of_a_model(tmp_path):
    """They are fitted to train.csv and submit for test.csv; an evaluation has them as its control too, and
    both can be mixed."""
    rows = []
    for i in range(300):
        words = "so " * (i % 7 + 1), "so " * (i % 5 + 1)
        row = {"id": i, "prompt": [f"p{i}"], "response_a": [words[0]], "response_b": [words[1]]}
        winner = 2 if words[0] == words[1] else int(len(words[1]) > len(words[0]))
        rows.append(row | {name: int(k == winner) for k, name in enumerate(WINNERS)})
    write_rows(tmp_path / "train.csv", rows)
    write_rows(tmp_path / "test.csv", [{name: row[name] for name in ("id", *TEXTS)} for row in rows[:20]])
    flags = ["--task", "arena", "--judge", "features", "--data"]
    assert infer.main(["submit", *flags, str(tmp_path), "--out", str(tmp_path / "s.csv")]) == 0
    with open(tmp_path / "s.csv", newline="") as file:
        found = [*csv.DictReader(file)]
    assert len(found) == 20
    assert float(found[6]["winner_model_a"]) > 0.8  # seven words against two
    assert infer.main(["eval", *flags, str(tmp_path), "--limit", "0", "--out", str(tmp_path / "e.json")]) == 0
    metrics = read_json(tmp_path / "e.json")["metrics"]
    assert metrics["log_loss"] == metrics["log_loss, features"] < 0.7
    assert metrics["log_loss, mixed with features"] < 0.9
    mixed = ["submit", *flags, str(tmp_path), "--mix", "--out", str(tmp_path / "m.csv")]
    assert infer.main(mixed) == 0 and (tmp_path / "m.csv").read_text() != (tmp_path / "s.csv").read_text()
    assert infer.main(["submit", *flags, str(tmp_path / "test.csv"), "--out", str(tmp_path / "t.csv")]) == 1
