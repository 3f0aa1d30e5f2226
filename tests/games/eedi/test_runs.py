"""Eedi from the command line: a retriever from scratch, its negatives, a reranker, distillation, files."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

import infer
import train
from files import read_json

SMALL = (
    "--task eedi --eval-few 20 --eval-n 40 --batch 4 --max-tokens 120 --threads 1 --dtype float32 "
    "--device cpu"
).split()
SHAPE = "--dim 32 --layers 1 --heads 2 --mlp-dim 32 --questions 40 --tests 20 --steps 8".split()


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def train_on(data, folder, name, *flags):
    """Train the retriever of a folder further on rows. Returns the exit code."""
    more = ["--data", str(data), "--init", str(folder / "first"), "--runs", str(folder), "--name", name]
    return train.main([*SMALL, *more, *flags])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eedi")
    assert train.main([*SMALL, *SHAPE, "--runs", str(folder), "--name", "first"]) == 0
    return folder


@pytest.fixture(scope="module")
def call(runs):
    """(verb, flags) -> the exit code of infer.py with the retriever on the CPU."""
    return lambda verb, *flags: infer.main(
        [verb, "--run", str(runs / "first"), "--device", "cpu", "--runs", str(runs), *map(str, flags)]
    )


@pytest.fixture(scope="module")
def mined(runs, call):
    flags = "--questions 40 --tests 20 --negatives 5 --range 1-40".split()
    assert call("collect", "--out", runs / "mined.jsonl", *flags) == 0
    return runs / "mined.jsonl"


@pytest.fixture(scope="module")
def reranker(runs, mined):
    flags = "--loss classify --steps 3 --group-size 4".split()
    assert train_on(mined, runs, "reranker", *flags) == 0
    return runs / "reranker"


def test_training_from_scratch_beats_chance_and_reports_both_kinds_of_labels(runs):
    metrics = read_json(runs / "first/eval.json")["metrics"]
    assert metrics["map@25"] > read_json(runs / "first/before.json")["metrics"]["map@25"]
    names = {"map@25/seen", "map@25/unseen", "recall@25", "topic only map@25", "tf-idf map@25"}
    assert names <= metrics.keys()
    assert (runs / "first/model/modules.json").exists()  # so sentence-transformers can open it


def test_a_retriever_is_trained_further_on_its_own_negatives(runs, mined):
    rows = rows_of(mined)
    assert {row["split"] for row in rows} == {"train", "test"} and any(len(row["neg"]) == 5 for row in rows)
    assert train_on(mined, runs, "second", "--no-bank", "--group-size", "3", "--steps", "2") == 0
    steps = rows_of(runs / "second/metrics.jsonl")
    assert steps[0]["texts"] > 8  # four queries, their labels, and negatives


def test_a_reranker_reads_the_first_candidates(runs, call, reranker, capsys):
    metrics = read_json(reranker / "eval.json")["metrics"]
    assert "map@25" in metrics and "before reranking map@25" in metrics
    assert call("eval", "--tests", 5, "--reranker", reranker) == 0
    assert "before reranking map@25" in capsys.readouterr().out
    assert list((runs / "cache").glob("*.safetensors"))  # the labels' vectors
    assert call("eval", "--tests", 5, "--reranker", runs / "first") == 1
    assert "makes vectors" in capsys.readouterr().err


def test_negatives_of_an_untrained_model_come_with_a_warning(runs, tmp_path, capsys):
    call = ["collect", "--task", "eedi", "--model", str((runs / "first/model").resolve()), "--limit", "4"]
    flags = "--questions 4 --tests 4 --device cpu".split()
    assert infer.main([*call, *flags, "--out", str(tmp_path / "n.jsonl"), "--runs", str(tmp_path)]) == 0
    assert "warning: this model was not trained" in capsys.readouterr().out


def test_a_merged_retriever_keeps_its_pooling(runs, tmp_path):
    flags = ["--model", str((runs / "first/model").resolve()), "--lora-rank", "2", "--steps", "1"]
    flags += ["--questions", "8", "--tests", "4", "--runs", str(tmp_path)]
    assert train.main([*SMALL, *flags, "--name", "lora"]) == 0
    out = tmp_path / "merged"
    assert infer.main(["merge", "--run", str(tmp_path / "lora"), "--out", str(out)]) == 0
    assert (out / "modules.json").exists() and (out / "1_Pooling/config.json").exists()
    flags = ["--tests", "4", "--runs", str(tmp_path), "--device", "cpu"]
    assert infer.main(["eval", "--task", "eedi", "--model", str(out), *flags]) == 0


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """The negatives come from both processes; the weights agree to rounding."""
    flags = [*SMALL, *SHAPE, "--steps", "4", "--micro-tokens", "400", "--optimizer", "adamw", "--name", "a"]
    assert train.main([*flags, "--runs", str(tmp_path / "one")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [train.__file__, *flags, "--runs", str(tmp_path / "two")]
    assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300).returncode == 0
    one, two = (load_file(tmp_path / name / "a/model/model.safetensors") for name in ("one", "two"))
    for key, weight in one.items():
        assert_close(two[key], weight, atol=1e-4, rtol=0)
