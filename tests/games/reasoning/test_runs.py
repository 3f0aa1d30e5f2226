"""Reasoning from the command line: training, evaluation, playing, reinforcement, adapters trained further."""

import io
import json
import math
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
    assert parse(Train, ["--task", "20q", "--loss", "grpo", "--init", "x"]).recipe == "20q-grpo"
    assert parse(Train, ["--task", "20q", "--loss", "dpo", "--init", "x"]).recipe == "20q-model"


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


def test_many_replies_need_a_temperature(folder, capsys):
    flags = ["--task", "reasoning", "--run", str(folder / "sft"), "--tests", "8", "--threads", "1"]
    assert infer.main(["eval", *flags, "--n", "4"]) == 2
    assert "all replies are the same" in capsys.readouterr().err


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
    pairs = tmp_path / "pairs.jsonl"
    made = [{"question": f"q {i}", "chosen": "yes", "rejected": "no way"} for i in range(40)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in made))
    dpo = [*SMALL[:2], *SMALL[12:], "--data", str(pairs), "--runs", str(tmp_path), "--loss", "dpo"]
    assert train.main([*dpo, "--init", str(tmp_path / "one"), "--lora-rank", "2", "--name", "dpo"]) == 0
    first_step = json.loads((tmp_path / "dpo/metrics.jsonl").read_text().splitlines()[0])
    assert first_step["loss"] == pytest.approx(
        math.log(2)
    )  # compared with the adapter as it was, not without
    capsys.readouterr()
    assert train.main([*more, "--init", str(tmp_path / "one"), "--lora-rank", "4", "--name", "three"]) == 1
    assert "is an adapter of rank 2" in capsys.readouterr().err
    assert train.main([*more, "--init", str(tmp_path / "one"), "--name", "four"]) == 0
    assert not (tmp_path / "four/model/adapter_config.json").exists()


def test_replies_ranked_by_reward_teach_preferences(folder, tmp_path, capsys):
    """collect makes the rows that --loss dpo learns from; the journal is gone when they are written."""
    flags = [
        "--task",
        "reasoning",
        "--run",
        str(folder / "sft"),
        "--problems",
        "40",
        "--max-new",
        "40",
        "--threads",
        "1",
    ]
    out = tmp_path / "pairs.jsonl"
    call = ["collect", *flags, "--n", "6", "--temperature", "1", "--out", str(out)]
    assert infer.main([*call, "--rewards", "format:1"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl"]
    assert f"{len(rows)} rows of 40 examples" in capsys.readouterr().out
    made = tmp_path / "made.jsonl"  # the model of two steps has no two scores: what it would have written
    made.write_text(
        "".join(
            json.dumps({"question": f"q {i}", "chosen": "yes", "rejected": "no"}) + "\n" for i in range(40)
        )
    )
    more = [*SMALL[:2], *SMALL[12:], "--data", str(made), "--runs", str(tmp_path / "runs")]
    assert train.main([*more, "--loss", "dpo", "--init", str(folder / "sft"), "--name", "dpo"]) == 0
    report = models.read_json(tmp_path / "runs/dpo/eval.json")
    assert report["n"] > 0 and "right" not in report["metrics"]  # there is no truth in such rows


def test_collected_pairs_are_the_best_and_the_worst():
    from games.reasoning.task import Reasoning

    replies = [{"text": text, "score": score} for text, score in (("a", 0.2), ("b", 1.0), ("c", 0.0))]
    record = {"question": "q", "replies": replies}
    assert Reasoning().collected(record) == [{"question": "q", "chosen": "b", "rejected": "c"}]
    assert Reasoning().collected({"question": "q", "replies": replies[:1] * 3}) == []


def test_rows_writes_what_training_would_see(tmp_path, capsys):
    source, out = tmp_path / "think.jsonl", tmp_path / "rows.jsonl"
    made = [
        {"prompt": f"p {i}", "response": f"<think>t {i}</think>a" if i % 3 else "no tags"} for i in range(30)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in made))
    call = ["rows", "--task", "reasoning", "--data", str(source), "--out", str(out)]
    assert infer.main([*call, "--rows", "0:20"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows and all(row["reasoning"].startswith("t ") and row["answer"] == "a" for row in rows)
    assert "dropped: 7 no pair of think tags" in capsys.readouterr().out
    assert infer.main(call) == 1 and infer.main(call[:-2]) == 2
