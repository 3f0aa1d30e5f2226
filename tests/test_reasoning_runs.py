"""Reasoning from the command line: training, evaluation, playing, reinforcement, adapters trained further."""

import io
import json
import sys

import pytest

import infer
import lora
import model as models
import train
from recipes import Train, parse

SMALL = (
    "--task reasoning --dim 32 --layers 1 --heads 2 --kv-heads 2 --mlp-dim 32 --eval-n 4 --eval-few 2 "
    "--batch 4 --steps 2 --max-new 12 --tests 8 --problems 200 --threads 1 --dtype float32 --device cpu"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasoning")
    assert train.main([*SMALL, "--runs", str(folder), "--name", "sft"]) == 0
    return folder


def grpo(folder, out, *more):
    flags = "--loss grpo --batch 2 --group 3 --steps 2 --eval-n 4 --eval-few 2 --max-new 12 --tests 8".split()
    where = ["--init", str(folder / "sft"), "--runs", str(out), "--name", "grpo", "--threads", "1"]
    return train.main(["--task", "reasoning", *flags, *where, "--device", "cpu", *more])


def test_reinforcement_logs_every_part_of_the_reward(folder, tmp_path):
    """A model that ends its replies at once: the parts are there, of every row type that was played."""
    assert grpo(folder, tmp_path, "--rewards", "format:0.2,exact:1", "--no-mask-truncated") == 0
    rows = [json.loads(line) for line in (tmp_path / "grpo/metrics.jsonl").read_text().splitlines()]
    assert {"reward", "zero_spread", "length", "score/format", "score/format_std", "score/exact"} <= rows[
        0
    ].keys()
    games = [json.loads(line) for line in (tmp_path / "grpo/rollouts.jsonl").read_text().splitlines()]
    assert {"question", "turns", "reward", "step"} <= games[0].keys()
    assert "right" in models.read_json(tmp_path / "grpo/eval.json")["metrics"]


def test_the_loss_chooses_its_recipe():
    assert parse(Train, ["--task", "reasoning", "--loss", "grpo", "--init", "x"]).recipe == "reasoning-grpo"
    assert parse(Train, ["--task", "reasoning", "--init", "x"]).recipe == "reasoning-model"
    assert parse(Train, ["--task", "20q", "--loss", "grpo", "--init", "x"]).recipe == "20q-model"


def test_eval_goes_by_vote_and_writes(folder, tmp_path, capsys):
    flags = [
        "--task",
        "reasoning",
        "--run",
        str(folder / "sft"),
        "--tests",
        "8",
        "--max-new",
        "12",
        "--threads",
        "1",
    ]
    out = tmp_path / "e.json"
    assert (
        infer.main(["eval", *flags, "--n", "4", "--temperature", "1", "--limit", "8", "--out", str(out)]) == 0
    )
    metrics = models.read_json(out)["metrics"]
    assert {
        "right",
        "strict",
        "loose",
        "closed",
        "strict_closed",
        "pass@4",
        "vote",
        "tokens",
    } <= metrics.keys()


def test_asking(folder, monkeypatch, capsys):
    flags = ["play", "--task", "reasoning", "--run", str(folder / "sft"), "--tests", "8", "--max-new", "12"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 2 plus 3?\nWhat is 4 plus 4?\nquit\n"))
    assert infer.main([*flags, "--threads", "1"]) == 0
    assert "What is 4 plus 4?" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 2 plus 3?\n"))
    assert infer.main([*flags, "--threads", "1", "--n", "3", "--temperature", "1"]) == 0
    assert " of 3: " in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", None)
    assert infer.main([*flags, "--threads", "1"]) == 0


def test_an_adapter_is_trained_further(folder, tmp_path, capsys):
    """The second session goes on with the first one's adapter; another rank is refused, none merges it."""
    rows = tmp_path / "rows.jsonl"
    row = {"reasoning": "9 + 9 = 18.", "answer": "18", "kind": "number"}
    rows.write_text("".join(json.dumps({"question": f"What is {i}?", **row}) + "\n" for i in range(40)))
    more = [*SMALL[:2], *SMALL[12:], "--data", str(rows), "--runs", str(tmp_path)]
    first = [*more, "--model", str(folder / "sft"), "--lora-rank", "2", "--lr", "0.01", "--name", "one"]
    assert train.main(first) == 0
    again = [*more, "--init", str(tmp_path / "one"), "--lora-rank", "2", "--lr", "0.0", "--name", "two"]
    assert train.main(again) == 0
    tensors = [
        lora.adapter_tensors(tmp_path / name / "model/adapter_model.safetensors") for name in ("one", "two")
    ]
    assert tensors[0].keys() == tensors[1].keys()
    assert all((tensors[0][key] == tensors[1][key]).all() for key in tensors[0])
    assert any(tensor.abs().max() > 0 for key, tensor in tensors[0].items() if "lora_B" in key)
    capsys.readouterr()
    assert train.main([*more, "--init", str(tmp_path / "one"), "--lora-rank", "4", "--name", "three"]) == 1
    assert "is an adapter of rank 2" in capsys.readouterr().err
    assert train.main([*more, "--init", str(tmp_path / "one"), "--name", "four"]) == 0
    assert not (tmp_path / "four/model/adapter_config.json").exists()
