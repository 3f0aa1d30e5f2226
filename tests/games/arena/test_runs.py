"""The arena from the command line: both kinds of judges from scratch, soft labels, submissions, play."""

import csv
import io
import json
import sys

import pytest

import infer
import model as models
import train

SMALL = (
    "--task arena --dim 32 --layers 1 --heads 2 --kv-heads 2 --mlp-dim 32 --eval-few 8 --eval-n 0 --batch 4 "
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


def test_both_kinds_of_judges_report_the_same_figures(runs):
    whole, sides = (models.read_json(runs / f"{loss}/eval.json") for loss in ("classify", "davidson"))
    assert whole["metrics"].keys() == sides["metrics"].keys() and "share of the way" in whole["metrics"]
    assert sides["metrics"]["flips"] == 0 and sides["metrics"]["asymmetry"] < 1e-6
    rows = [json.loads(line) for line in (runs / "classify/metrics.jsonl").read_text().splitlines()]
    assert "accuracy" in rows[0] and rows[0]["cut"] == 0
    assert models.load(runs / "davidson/model").config.labels == 2
    lines = (runs / "classify/log.txt").read_text().splitlines()
    (epoch,) = [line for line in lines if line.startswith("epoch ")]
    mean = sum(row["accuracy"] for row in rows) / len(rows)
    assert epoch.startswith("epoch 1, in training: loss ") and epoch.endswith(f"accuracy {mean:.3f}")


@pytest.mark.parametrize("loss", ["classify", "davidson"])
def test_eval_of_a_run_equals_its_own(runs, tmp_path, loss):
    out = tmp_path / "e.json"
    assert call("eval", runs / loss, "--limit", "0", "--out", str(out)) == 0
    found, own = models.read_json(out), models.read_json(runs / f"{loss}/eval.json")
    for name, value in found["metrics"].items():
        assert value == pytest.approx(own["metrics"][name], abs=1e-5), name
    assert found["bias"]["verbosity"]["parts"] and found["reliability"]["top"]


def test_soft_labels_of_one_model_train_another(runs, tmp_path):
    out = tmp_path / "soft.jsonl"
    assert call("collect", runs / "davidson", "--out", str(out)) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 40 and all(abs(row["p_a"] + row["p_b"] + row["p_tie"] - 1) < 1e-4 for row in rows)
    for loss in ("classify", "davidson"):
        flags = ["--data", str(out), "--loss", loss, "--runs", str(tmp_path), "--name", loss]
        assert train.main([*SMALL, *flags]) == 0


def test_a_submission_and_what_it_is_made_of(runs, tmp_path):
    path, out = tmp_path / "test.csv", tmp_path / "submission.csv"
    with open(path, "w", newline="") as file:
        rows = [
            [i, '["p"]', json.dumps(["good " * i]), '["bad", "x"]' if i == 99 else '["bad"]']
            for i in range(5)
        ]
        csv.writer(file).writerows([["id", "prompt", "response_a", "response_b"], *rows])
    assert call("submit", runs / "classify", "--data", str(path), "--out", str(out)) == 0
    with open(out, newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["id"] for row in found] == [*"01234"] and [*found[0]][1:] == [
        f"winner_{n}" for n in ("model_a", "model_b", "tie")
    ]
    assert all(sum(float(row[name]) for name in [*row][1:]) == pytest.approx(1, abs=1e-6) for row in found)


def test_a_model_without_a_classifier_is_an_error(runs, tmp_path, capsys):
    flags = "--task reasoning --dim 32 --layers 1 --heads 2 --kv-heads 2 --mlp-dim 32 --steps 1".split()
    more = "--problems 50 --tests 2 --eval-n 1 --eval-few 1 --max-new 2 --device cpu --threads 1".split()
    assert train.main([*flags, *more, "--runs", str(tmp_path), "--name", "a"]) == 0
    model = str((tmp_path / "a/model").resolve())
    assert infer.main(["eval", "--task", "arena", "--model", model, "--tests", "2", "--battles", "2"]) == 1
    assert "holds no classifier; train one" in capsys.readouterr().err


def test_playing_without_a_terminal(runs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("tell me about the sea.\nwave needs salt.\nsorry.\n"))
    assert call("play", runs / "classify") == 0
    assert "A is better" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nt\nquit\n"))
    assert call("play", runs / "classify", "--seat", "person") == 0
    assert "agree on" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert call("play", runs / "davidson") == 0
    assert call("play", runs / "classify", "--seat", "asker") == 2
    assert "--seat asker: must be model or person" in capsys.readouterr().err
