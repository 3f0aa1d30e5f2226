"""Eedi from the command line: a retriever from scratch, its negatives, a reranker, distillation, files."""

import io
import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

import infer
import model as models
import train
from tests.games.eedi.test_files import HEAD, ROWS, cells, write
from tests.games.eedi.test_task import NAMES

SMALL = (
    "--task eedi --eval-few 20 --eval-n 40 --batch 4 --max-tokens 120 --threads 1 --dtype float32 "
    "--device cpu"
).split()
SHAPE = "--dim 32 --layers 1 --heads 2 --kv-heads 2 --mlp-dim 32 --questions 40 --tests 20 --steps 8".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eedi")
    assert train.main([*SMALL, *SHAPE, "--runs", str(folder), "--name", "first"]) == 0
    return folder


@pytest.fixture(scope="module")
def mined(runs):
    path = runs / "mined.jsonl"
    flags = "--questions 40 --tests 20 --negatives 5 --range 1-40 --device cpu".split()
    call = ["collect", "--task", "eedi", "--run", str(runs / "first"), "--out", str(path), *flags]
    assert infer.main([*call, "--runs", str(runs)]) == 0
    return path


def test_training_from_scratch_beats_chance_and_reports_both_kinds_of_labels(runs):
    metrics = models.read_json(runs / "first/eval.json")["metrics"]
    assert metrics["map@25"] > models.read_json(runs / "first/before.json")["metrics"]["map@25"]
    assert {
        "map@25/seen",
        "map@25/unseen",
        "recall@25",
        "topic only map@25",
        "tf-idf map@25",
    } <= metrics.keys()
    assert (runs / "first/model/modules.json").exists()  # sentence-transformers opens it


def test_eval_of_a_run_equals_its_own(runs, tmp_path, capsys):
    out = tmp_path / "e.json"
    call = ["eval", "--run", str(runs / "first"), "--tests", "20", "--limit", "40", "--runs", str(runs)]
    assert infer.main([*call, "--device", "cpu", "--out", str(out)]) == 0
    found, own = models.read_json(out)["metrics"], models.read_json(runs / "first/eval.json")["metrics"]
    for name, value in found.items():
        assert value == pytest.approx(own[name], abs=1e-6), name
    assert len(list((runs / "cache").glob("*.safetensors"))) == 1  # the labels' vectors


def test_a_retriever_is_trained_further_on_its_own_negatives(runs, mined):
    rows = [json.loads(line) for line in mined.read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "test"} and any(len(row["neg"]) == 5 for row in rows)
    flags = ["--data", str(mined), "--init", str(runs / "first"), "--group-size", "3", "--steps", "2"]
    assert train.main([*SMALL, *flags, "--no-bank", "--runs", str(runs), "--name", "second"]) == 0
    with_negatives = [json.loads(line) for line in (runs / "second/metrics.jsonl").read_text().splitlines()]
    assert with_negatives[0]["texts"] > 8  # four queries, their labels, and negatives


@pytest.fixture(scope="module")
def reranker(runs, mined):
    flags = ["--loss", "classify", "--data", str(mined), "--init", str(runs / "first"), "--steps", "3"]
    assert train.main([*SMALL, *flags, "--group-size", "4", "--runs", str(runs), "--name", "reranker"]) == 0
    return str(runs / "reranker")


def test_a_reranker_reads_the_first_candidates(runs, reranker, tmp_path, capsys):
    metrics = models.read_json(runs / "reranker/eval.json")["metrics"]
    assert "map@25" in metrics and "before reranking map@25" in metrics
    call = ["eval", "--run", str(runs / "first"), "--tests", "5", "--reranker", reranker, "--device", "cpu"]
    assert infer.main([*call, "--runs", str(runs)]) == 0
    assert "before reranking map@25" in capsys.readouterr().out
    assert infer.main([*call[:-3], str(runs / "first"), "--device", "cpu", "--runs", str(runs)]) == 1
    assert "no classifier" in capsys.readouterr().err


def test_its_scores_are_distilled(runs, reranker, tmp_path, capsys):
    out = tmp_path / "scored.jsonl"
    flags = "--questions 8 --tests 5 --negatives 3 --range 1-40 --device cpu".split()
    call = ["collect", "--run", str(runs / "first"), "--reranker", reranker, "--out", str(out), *flags]
    assert infer.main([*call, "--runs", str(runs)]) == 0
    flags = [
        "--data",
        str(out),
        "--init",
        str(runs / "first"),
        "--distil",
        "0.5",
        "--steps",
        "2",
        "--no-bank",
    ]
    assert train.main([*SMALL, *flags, "--runs", str(tmp_path), "--name", "a"]) == 0
    assert (
        train.main([*SMALL, *flags[:-1], "--data", str(runs / "mined.jsonl"), "--runs", str(tmp_path)]) == 2
    )
    assert "--distil: these rows hold no scores" in capsys.readouterr().err


def test_negatives_of_an_untrained_model_come_with_a_warning(runs, tmp_path, capsys):
    call = ["collect", "--task", "eedi", "--model", str((runs / "first/model").resolve()), "--limit", "4"]
    flags = "--questions 4 --tests 4 --device cpu".split()
    assert infer.main([*call, *flags, "--out", str(tmp_path / "n.jsonl"), "--runs", str(tmp_path)]) == 0
    assert "warning: this model was not trained" in capsys.readouterr().out


def test_a_submission_for_the_competitions_files(runs, tmp_path):
    write(tmp_path / "train.csv", HEAD, [cells(*row) for row in ROWS])
    write(tmp_path / "test.csv", HEAD[:-4], [cells(*row)[:-4] for row in ROWS])
    write(tmp_path / "misconception_mapping.csv", ["MisconceptionId", "MisconceptionName"], enumerate(NAMES))
    out = tmp_path / "submission.csv"
    call = ["submit", "--run", str(runs / "first"), "--data", str(tmp_path), "--out", str(out)]
    assert infer.main([*call, "--device", "cpu", "--runs", str(tmp_path)]) == 0
    head, *rows = out.read_text().splitlines()
    assert head == "QuestionId_Answer,MisconceptionId" and len(rows) == 6
    name, labels = rows[0].split(",")
    assert name == "7_A" and len({*labels.split(" ")}) == 25
    assert infer.main([*call, "--device", "cpu", "--runs", str(tmp_path)]) == 1  # not overwritten


def test_playing_without_a_terminal(runs, monkeypatch, capsys):
    call = ["play", "--run", str(runs / "first"), "--tests", "5", "--device", "cpu", "--runs", str(runs)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("2 x 3?\n6\n5\n"))
    assert infer.main(call) == 0
    assert " when " in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert infer.main(call) == 0
    assert "true:" in capsys.readouterr().out


def test_a_merged_retriever_keeps_its_pooling(runs, tmp_path):
    flags = ["--model", str((runs / "first/model").resolve()), "--lora-rank", "2", "--steps", "1"]
    flags += "--questions 8 --tests 4".split()
    assert train.main([*SMALL, *flags, "--runs", str(tmp_path), "--name", "lora"]) == 0
    out = tmp_path / "merged"
    assert (
        infer.main(["merge", "--run", str(tmp_path / "lora"), "--out", str(out), "--runs", str(tmp_path)])
        == 0
    )
    assert (out / "modules.json").exists() and (out / "1_Pooling/config.json").exists()
    call = ["eval", "--task", "eedi", "--model", str(out), "--tests", "4", "--runs", str(tmp_path)]
    assert infer.main([*call, "--device", "cpu"]) == 0


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """Negatives are those of both; the weights agree to rounding."""
    flags = [*SMALL, *SHAPE, "--steps", "4", "--micro-tokens", "400", "--optimizer", "adamw", "--name", "a"]
    assert train.main([*flags, "--runs", str(tmp_path / "one")]) == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        train.__file__,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run([*command, *flags, "--runs", str(tmp_path / "two")], env=environment, timeout=300)
    assert found.returncode == 0
    one, two = (load_file(tmp_path / name / "a/model/model.safetensors") for name in ("one", "two"))
    for key, weight in one.items():
        assert_close(two[key], weight, atol=1e-4, rtol=0)
