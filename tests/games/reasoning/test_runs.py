"""Reasoning from the command line: reinforcement, adapters trained further, preferences, rows."""

import json
import math
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

import infer
import train
from files import read_json
from recipes import Train, parse
from tests.endpoint import Endpoint

SMALL = ("--dim 32 --layers 1 --heads 2 --mlp-dim 32 --problems 200 --dtype float32 --device cpu").split()
SHORT = "--task reasoning --eval-n 4 --eval-few 2 --steps 2 --max-new 12 --tests 8 --threads 1".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasoning")
    assert train.main([*SHORT, *SMALL, "--batch", "4", "--runs", str(folder), "--name", "sft"]) == 0
    return folder


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_reinforcement_logs_every_part_of_the_reward(runs, tmp_path):
    flags = "--loss grpo --batch 2 --group 3 --rewards format:0.2,exact:1".split()
    where = ["--init", str(runs / "sft"), "--runs", str(tmp_path), "--name", "grpo"]
    assert train.main([*SHORT, *flags, *where]) == 0
    first = lines_of(tmp_path / "grpo/metrics.jsonl")[0]
    parts = {"score/format", "score/format_std", "score/exact"}
    assert {"reward", "zero_spread", "length"} | parts <= first.keys()
    assert {"question", "turns", "reward", "step"} <= lines_of(tmp_path / "grpo/rollouts.jsonl")[0].keys()
    assert "right" in read_json(tmp_path / "grpo/eval.json")["metrics"]


CODE = "def short(example, text):\n    return 1 / (1 + len(text))\n"


def test_a_run_with_a_reward_of_the_users_asks_for_its_file_again(runs, tmp_path, capsys):
    path = tmp_path / "own.py"
    path.write_text(CODE)
    rewards = ["--rewards", f"exact:1,{path}:short:0.5"]
    flags = "--loss grpo --batch 2 --group 3 --schedule constant".split()
    where = ["--init", str(runs / "sft"), "--runs", str(tmp_path), "--name", "own"]
    assert train.main([*SHORT, *flags, *rewards, *where]) == 0
    assert 0 < lines_of(tmp_path / "own/metrics.jsonl")[0]["score/short"] < 1
    path.write_text("raise SystemError('run without being asked')")
    assert train.main(["--resume", str(tmp_path / "own"), "--steps", "3"]) == 2
    assert f"name it again: --task reasoning --rewards exact:1,{path}:short:0.5" in capsys.readouterr().err
    assert train.main(["--resume", str(tmp_path / "own"), "--steps", "3", "--rewards", "exact:1"]) == 2
    path.write_text(CODE)
    task = ["--task", "reasoning"]
    assert train.main(["--resume", str(tmp_path / "own"), "--steps", "3", *task, *rewards]) == 0
    path.write_text("def short(example, text):\n    return text\n")
    assert train.main([*SHORT, *flags, *rewards, *where[:-1], "bad"]) == 1
    assert "--rewards short: must return a finite number" in capsys.readouterr().err


def test_a_judge_rewards_in_training_by_a_model_or_an_endpoint(runs, tmp_path, capsys):
    flags = "--loss grpo --batch 2 --group 3 --rewards format:0.2,judge:1".split()
    where = ["--init", str(runs / "sft"), "--runs", str(tmp_path), "--name"]
    with Endpoint() as endpoint:
        endpoint.talk = lambda messages: "no grade" if len(endpoint.seen) % 2 else f"{len(endpoint.seen) % 9}"
        assert train.main([*SHORT, *flags, *where, "url", "--judge", f"{endpoint.url}#m"]) == 0
        assert {body["model"] for _, _, body in endpoint.seen} == {"m"}
    first = lines_of(tmp_path / "url/metrics.jsonl")[0]
    assert 0 < first["unjudged"] < 1 and 0 < first["score/judge"] < 1
    assert train.main([*SHORT, *flags, *where, "run", "--judge", str(runs / "sft")]) == 0
    assert lines_of(tmp_path / "run/metrics.jsonl")[0]["unjudged"] == 1.0  # a model that gives no numbers
    reward = ["--task", "arena", "--loss", "bradley-terry", "--model", str((runs / "sft/model").resolve())]
    few = (
        "--battles 12 --tests 4 --steps 1 --eval-n 2 --eval-few 2 --batch 2 --device cpu --threads 1".split()
    )
    assert train.main([*reward, *few, "--runs", str(tmp_path), "--name", "reward"]) == 0
    assert train.main([*SHORT, *flags, *where, "rm", "--judge", str(tmp_path / "reward")]) == 0
    first = lines_of(tmp_path / "rm/metrics.jsonl")[0]
    assert "unjudged" not in first and first["score/judge"] == pytest.approx(0.5)  # a win is a loss
    call = ["eval", "--task", "reasoning", "--run", str(runs / "sft"), "--tests", "4", "--max-new", "8"]
    judged = tmp_path / "judged.json"
    assert (
        infer.main([*call, "--judge", str(tmp_path / "reward"), "--device", "cpu", "--out", str(judged)]) == 0
    )
    assert read_json(judged)["metrics"]["graded"] == 1.0
    assert train.main([*SHORT, *flags, *where, "none"]) == 2
    assert "needs both --rewards judge:1 and --judge" in capsys.readouterr().err


def test_the_loss_chooses_its_recipe():
    assert parse(Train, ["--task", "reasoning", "--loss", "grpo", "--init", "x"]).recipe == "reasoning-grpo"


def test_an_adapter_is_trained_further(runs, tmp_path, capsys):
    """The second session continues the first one's adapter. Another rank is refused; without one the adapter
    is merged."""
    row = {"reasoning": "9 + 9 = 18.", "answer": "18", "kind": "number"}
    data = write(tmp_path / "rows.jsonl", [{"question": f"What is {i}?", **row} for i in range(40)])

    def session(name, start, *flags, data=data):
        call = [*SHORT, "--batch", "4", "--dtype", "float32", "--device", "cpu", "--data", data]
        return train.main([*call, *start, *flags, "--runs", str(tmp_path), "--name", name])

    def adapter(name):
        return load_file(tmp_path / name / "model/adapter_model.safetensors")

    one = ["--init", str(tmp_path / "one")]
    assert session("one", ["--model", str(runs / "sft")], "--lora-rank", "2", "--lr", "0.01") == 0
    assert session("two", one, "--lora-rank", "2", "--lr", "0.0") == 0
    before, after = adapter("one"), adapter("two")
    assert before.keys() == after.keys()
    assert all((before[key] == after[key]).all() for key in before)
    assert any(tensor.abs().max() > 0 for key, tensor in before.items() if "lora_B" in key)
    pairs = [{"question": f"q {i}", "chosen": "yes", "rejected": "no way"} for i in range(40)]
    dpo = ["--lora-rank", "2", "--loss", "dpo"]
    assert session("dpo", one, *dpo, data=write(tmp_path / "pairs.jsonl", pairs)) == 0
    # the reference is the adapter as it was, not the model without it
    assert lines_of(tmp_path / "dpo/metrics.jsonl")[0]["loss"] == pytest.approx(math.log(2))
    report = read_json(tmp_path / "dpo/eval.json")
    assert report["n"] > 0 and "right" not in report["metrics"]  # such rows have no right answer
    capsys.readouterr()
    assert session("three", one, "--lora-rank", "4") == 1
    assert "is an adapter of rank 2" in capsys.readouterr().err
    assert session("four", one) == 0
    assert not (tmp_path / "four/model/adapter_config.json").exists()


def test_collect_makes_pairs_of_replies_ranked_by_reward(runs, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    flags = "--problems 40 --max-new 40 --threads 1 --n 6 --temperature 1 --rewards format:1".split()
    call = ["collect", "--task", "reasoning", "--run", str(runs / "sft"), *flags, "--out", str(out)]
    assert infer.main(call) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]
    assert f"{len(lines_of(out))} rows of 40 examples" in capsys.readouterr().out


def test_rows_writes_what_training_would_see(tmp_path, capsys):
    responses = [f"<think>t {i}</think>a" if i % 3 else "no tags" for i in range(30)]
    rows = [{"prompt": f"p {i}", "response": response} for i, response in enumerate(responses)]
    source = write(tmp_path / "think.jsonl", rows)
    out = tmp_path / "rows.jsonl"
    call = ["rows", "--task", "reasoning", "--data", source, "--rows", "0:20", "--out", str(out)]
    assert infer.main(call) == 0
    rows = lines_of(out)
    assert rows and all(row["reasoning"].startswith("t ") and row["answer"] == "a" for row in rows)
    assert "dropped: 7 no pair of think tags" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name, count", [("mbpp", 967), ("gsm8k_test", 1319)])
def test_a_whole_evaluation_of_real_rows_runs_to_its_report(runs, tmp_path, name, count):
    """PARLOR_DATA: a folder with reasoning/mbpp.jsonl and reasoning/gsm8k_test.jsonl, as published."""
    path = Path(os.environ.get("PARLOR_DATA", "nowhere"), "reasoning", f"{name}.jsonl")
    if not path.exists():
        pytest.skip(f"no {path}")
    data = ["--data", str(path), "--test-data", str(path), "--out", str(tmp_path / "eval.json")]
    flags = "--task reasoning --max-new 12 --threads 1 --limit 0".split()
    assert infer.main(["eval", *flags, "--run", str(runs / "sft"), *data]) == 0
    report = read_json(tmp_path / "eval.json")
    assert report["n"] == count and {"right", "strict", "tokens"} <= report["metrics"].keys()


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Give a set.", "code": "def f(x):\n    return {x}", "test_list": ["assert f(1) == {1}"]},
        {
            "prompt": "Add.",
            "code": "def f(x): return {(x,): 1j}",
            "test_list": ["assert f({1}) == {(1,): 1j}"],
        },
        {"problem": "Add.", "solution": "It is one half.", "answer": "\\frac{1}{2}"},
        {"question": "Add.", "answer": 18},
    ],
)
def test_rows_of_every_form_are_trained_evaluated_and_written(runs, tmp_path, row):
    text = next(name for name in ("text", "prompt", "problem", "question") if name in row)
    data = write(tmp_path / "rows.jsonl", [row | {text: f"{row[text]} {i}"} for i in range(40)])
    call = ["--task", "reasoning", "--data", data]
    out = tmp_path / "out.jsonl"
    assert infer.main(["rows", *call, "--out", str(out)]) == 0 and len(lines_of(out)) > 30
    flags = [
        "--threads",
        "1",
        "--max-new",
        "12",
        "--run",
        str(runs / "sft"),
        "--out",
        str(tmp_path / "eval.json"),
    ]
    assert infer.main(["eval", *call, *flags]) == 0
    assert read_json(tmp_path / "eval.json")["metrics"]["right"] == 0
    where = ["--init", str(runs / "sft"), "--runs", str(tmp_path), "--name", "more", "--batch", "4"]
    assert train.main([*SHORT, *call[2:], *where, "--max-tokens", "1000", "--device", "cpu"]) == 0
