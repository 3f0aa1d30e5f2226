"""ARC from the command line: a small run, its evaluation and what it writes, kills, leaks, weak machines."""

import json
import sys

import pytest

import games.arc.task
import infer
import model as models
import train
from games.sandbox.sandbox import level
from tests.games.arc.test_task import Says

SMALL = (
    "--task arc --dim 32 --layers 1 --heads 2 --kv-heads 2 --mlp-dim 32 --eval-n 4 --eval-few 1 --batch 2 "
    "--steps 2 --eval-replies 2 --max-new 8 --tests 6 --tasks 20 --threads 1 --dtype float32 --device cpu "
    "--seconds 0.5"
).split()
TURN = {
    "train": [{"input": [[1, 2]], "output": [[2, 1]]}] * 2,
    "test": [{"input": [[3, 4]], "output": [[4, 3]]}],
}

pytestmark = pytest.mark.skipif(level()[0] not in ("full", "seccomp"), reason=f"sandbox: {level()}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs: `world`, on the world, and `real`, on the set train of tasks.json."""
    folder = tmp_path_factory.mktemp("arc")
    sets = {part: {f"{part}{i}": TURN for i in range(4)} for part in ("train", "eval")}
    (folder / "tasks.json").write_text(json.dumps(sets))
    assert train.main([*SMALL, "--runs", str(folder), "--name", "world"]) == 0
    real = ["--data", str(folder / "tasks.json"), "--prompt-version", "output-from-examples-v1"]
    assert train.main([*SMALL, *real, "--runs", str(folder), "--name", "real"]) == 0
    return folder


@pytest.fixture
def flags(folder):
    return (
        f"--task arc --run {folder}/world --n 3 --max-new 8 --tests 6 --threads 1 --device cpu "
        "--seconds 0.5 --seed 5"
    ).split()


def test_training_says_what_is_solved(folder):
    report = models.read_json(folder / "world/eval.json")
    assert report["n"] == 4 and report["curve"].keys() == {"1", "2"}
    names = {"solved@2", "solved@1", "solved@2/parameters", "solved@2/compositions", "unanswered", "accuracy"}
    assert names <= report["metrics"].keys() and "solved@2" in report["baselines"]
    verdicts = [value for name, value in report["metrics"].items() if name.startswith("verdict_")]
    assert sum(verdicts) == pytest.approx(1)
    rows = [json.loads(line) for line in (folder / "world/samples.jsonl").read_text().splitlines()]
    assert [len(row["replies"]) for row in rows] == [2] * 4


def test_eval_goes_on_after_a_kill(flags, tmp_path, monkeypatch, capsys):
    """What is written is what a run that was never killed writes; no task is done twice."""
    monkeypatch.setattr(infer, "CHUNK", 6)  # two tasks at a time
    whole, out = tmp_path / "whole.json", tmp_path / "part.json"
    assert infer.main(["eval", *flags, "--out", str(whole)]) == 0
    attempt, done = games.arc.task.Arc.attempt, []

    def dies(self, examples, agent):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.extend(example["id"] for example in examples)
        return attempt(self, examples, agent)

    monkeypatch.setattr(games.arc.task.Arc, "attempt", dies)
    assert infer.main(["eval", *flags, "--out", str(out)]) == 130
    journal = tmp_path / "part.json.part"
    assert len(journal.read_bytes().splitlines()) == 4 and not out.exists()
    with open(journal, "ab") as file:
        file.write(b'{"row": 5, "rec')  # the line that the kill cut
    capsys.readouterr()
    assert infer.main(["eval", *flags, "--out", str(out), "--temperature", "0.5"]) == 1
    assert "made with temperature 1.0, now 0.5" in capsys.readouterr().err
    done[:] = done[:3]
    assert infer.main(["eval", *flags, "--out", str(out)]) == 0
    assert done[3:] == ["test-4", "test-5"] and not journal.exists()
    for ending in (".json", "_predictions.json", "_submission.json", "_task_results.json"):
        first, second = (models.read_json(tmp_path / f"{name}{ending}") for name in ("whole", "part"))
        assert first == second
    for kept in (out, tmp_path / "part_submission.json"):  # nothing is overwritten
        assert infer.main(["eval", *flags, "--out", str(out)]) == 1
        assert f"{kept} exists" in capsys.readouterr().err
        out.unlink(missing_ok=True)
        (tmp_path / "part_predictions.json").unlink(missing_ok=True)
        (tmp_path / "part_task_results.json").unlink(missing_ok=True)


def test_verbose_shows_prompts_programs_and_verdicts(flags, capsys):
    assert infer.main(["eval", *flags, "--limit", "1", "--verbose"]) == 0
    shown = capsys.readouterr().out
    assert (
        "task test-0:" in shown and "times " in shown and "def task(grid):" in shown and "solved@3" in shown
    )


def test_play_without_anybody_shows_one_task(flags, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert infer.main(["play", *flags]) == 0
    shown = capsys.readouterr().out
    assert shown.count("task test-") == 1 and "\x1b[48;5;" in shown and "answer" in shown


def test_a_run_knows_its_task(flags, capsys):
    """Without --task a run of ARC is not played as 20 Questions."""
    assert infer.main(["eval", *flags[2:], "--limit", "2"]) == 0
    assert "solved@3" in capsys.readouterr().out


def test_submit(folder, flags, tmp_path, capsys):
    data = ["--data", str(folder / "tasks.json")]
    real = [
        "--task",
        "arc",
        "--run",
        str(folder / "real"),
        *data,
        "--n",
        "2",
        "--max-new",
        "40",
        "--threads",
        "1",
    ]
    out, predicted = tmp_path / "s.json", str(tmp_path / "e_predictions.json")
    assert infer.main(["eval", *real, "--out", str(tmp_path / "e.json")]) == 0
    call = ["submit", "--task", "arc", *data, "--predictions", predicted, "--out", str(out)]
    assert infer.main(call) == 0
    assert models.read_json(out).keys() == {f"eval{i}" for i in range(4)}
    assert infer.main(call) == 1 and "not overwritten" in capsys.readouterr().err
    assert infer.main(call[:-2]) == 2
    assert infer.main(["submit", "--task", "20q", *call[5:]]) == 2
    wrong = tmp_path / "w.json"
    wrong.write_text('{"eval0": []}')
    assert infer.main([*call[:-3], str(wrong), "--out", str(tmp_path / "t.json")]) == 1
    assert "3 tasks are missing" in capsys.readouterr().err and not (tmp_path / "t.json").exists()


def test_no_result_on_tasks_that_were_trained_on(folder, tmp_path, capsys):
    """AGI-2's training set holds nearly all of AGI-1's evaluation set."""
    assert models.read_json(folder / "real/model/trained.json") == [f"train{i}" for i in range(4)]
    call = ["--task", "arc", "--data", f"{folder}/tasks.json:train", "--n", "1", "--max-new", "4"]
    assert infer.main(["eval", "--run", str(folder / "real"), *call]) == 1
    assert "4 of 4 examples are among those that the model was trained on" in capsys.readouterr().err
    more = [
        "--runs",
        str(tmp_path),
        "--name",
        "more",
        "--init",
        str(folder / "real"),
        "--prompt-version",
        "code",
    ]
    assert train.main([*SMALL, *more]) == 0  # a model trained further has still seen them
    assert infer.main(["eval", "--run", str(tmp_path / "more"), *call]) == 1
    capsys.readouterr()
    assert (
        train.main(
            [*SMALL, *call[2:4], "--runs", str(tmp_path), "--prompt-version", "output-from-examples-v1"]
        )
        == 1
    )
    assert "trained on" in capsys.readouterr().err
    assert not (folder / "world/model/trained.json").exists()


def test_training_finishes_where_programs_cannot_be_run(tmp_path, monkeypatch, capsys):
    def weak(*_):
        raise PermissionError("sandbox: level limits; system calls not filtered")

    monkeypatch.setattr(games.arc.task, "Sandbox", weak)
    assert train.main([*SMALL, "--eval-every", "1", "--runs", str(tmp_path), "--name", "weak"]) == 0
    assert "arc: not evaluated: sandbox: level limits" in capsys.readouterr().err
    report = models.read_json(tmp_path / "weak/eval.json")
    assert report["n"] == 0 and "solved@2" not in report["metrics"]
    flags = ["--task", "arc", "--run", str(tmp_path / "weak"), "--limit", "2"]
    assert infer.main(["eval", *flags]) == 1 and "level limits" in capsys.readouterr().err


def test_from_own_programs_to_a_report_that_says_so(folder, flags, tmp_path, monkeypatch, capsys):
    """collect on test tasks -> train -> eval of the same tasks, which is allowed: no output of a test was
    seen. Duplicates are counted; a second call does not overwrite."""
    out, call = tmp_path / "programs.jsonl", ["collect", *flags, "--collect-from", "test", "--limit", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(infer, "agent_of", lambda *_: Says("return grid[::-1]", "return gird", "return grid.T"))
        assert infer.main([*call, "--out", str(out)]) == 0
        assert "4 rows of 2 examples" in capsys.readouterr().out
        assert infer.main([*call, "--out", str(out)]) == 1
        assert "not overwritten" in capsys.readouterr().err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["id"] for row in rows} == {"test-0", "test-1"} and "test" not in rows[0]
    more = ["--init", str(folder / "world"), "--recipe", "arc", "--prompt-version", "code,refine"]
    more += ["--data", str(out), "--runs", str(tmp_path), "--name", "own"]
    assert train.main([*SMALL, *more]) == 0
    assert models.read_json(tmp_path / "own/model/trained.json") == ["shown:test-0", "shown:test-1"]
    flags[3] = str(tmp_path / "own")
    capsys.readouterr()
    assert infer.main(["eval", *flags, "--out", str(tmp_path / "e.json")]) == 0
    assert "test-time training: of 2 tasks" in capsys.readouterr().out
    assert "of 2 tasks" in models.read_json(tmp_path / "e.json")["notes"][0]


def test_test_time_training_by_command(flags, tmp_path, capsys):
    """It is kept to the settings that the journal names, and games without lessons refuse it."""
    more = ["--limit", "2", "--ttt-steps", "1", "--ttt-tasks", "2", "--out", str(tmp_path / "e.json")]
    assert infer.main(["eval", *flags, *more]) == 0
    assert "test-time training: of 2 tasks" in capsys.readouterr().out
    report = models.read_json(tmp_path / "e.json")
    assert [len(record["replies"]) for record in report["records"]] == [3, 3]


def test_reward_is_the_verdict(folder, tmp_path):
    """GRPO on the world: right on every shown pair and on the test, which the prompt does not show."""
    more = ["--loss", "grpo", "--init", str(folder / "world"), "--recipe", "arc", "--group", "2"]
    assert train.main([*SMALL, *more, "--steps", "1", "--runs", str(tmp_path), "--name", "grpo"]) == 0
    (row,) = map(json.loads, (tmp_path / "grpo/metrics.jsonl").read_text().splitlines())
    assert row["reward"] == 0 and "score/right" in row and row["zero_spread"] == 1
    rollouts = (tmp_path / "grpo/rollouts.jsonl").read_text().splitlines()
    assert "verdict" in json.loads(rollouts[0])["turns"][0]
