"""A game in a file of the user's: the code of docs/your-own-game.md, and what only a call may name."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

import games
import infer
import objectives
import steps
import train
from files import read_json, write_json
from recipes import Infer, Train, parse
from terminal import UsageError

PAGE = Path(games.__file__).parent.parent / "docs" / "your-own-game.md"
SMALL = (
    "--dim 16 --layers 1 --heads 2 --mlp-dim 16 --batch 4 --threads 1 --device cpu --dtype float32".split()
)
TOP = 6


def code_blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def game(tmp_path_factory):
    """The file of the page, and a run of it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "guess.py").write_text(code_blocks()[0])
    task = f"{folder}/guess.py:Guess"
    call = ["--task", task, *SMALL, "--top", str(TOP), "--steps", "3", "--runs", str(folder), "--name", "run"]
    assert train.main(call) == 0
    return folder, task


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Each test is a process of its own, which knows no file of the user's."""
    monkeypatch.setattr(games, "OWN", {})


def test_the_game_of_the_page_is_short():
    assert len([line for line in code_blocks()[0].splitlines() if line.strip()]) <= 60


def test_the_games_own_recipe_and_flags_are_read(game):
    settings = parse(Train, ["--task", game[1], "--top", "9"])
    assert settings.options.top == 9 and settings.recipe == "guess" and settings.max_new == 4
    assert parse(Train, ["--task", game[1], "--loss", "grpo"]).recipe == "guess-grpo"
    assert parse(Train, ["--task", game[1], "--recipe", "guess-grpo"]).loss == "grpo"


def test_a_flag_without_a_comment_is_a_flag_all_the_same(tmp_path):
    path = tmp_path / "game.py"
    path.write_text(code_blocks()[0].replace("  # the largest number", ""))
    assert parse(Infer, ["eval", "--task", f"{path}:Guess", "--top", "9"]).options.top == 9


def test_the_help_shows_the_games_flags(game, capsys):
    with pytest.raises(SystemExit):
        parse(Train, ["--task", game[1], "--help"])
    assert "--top" in capsys.readouterr().out


def test_the_game_is_trained_evaluated_sampled_played_and_rewarded(game, tmp_path, monkeypatch, capsys):
    folder, task = game
    report = read_json(folder / "run/eval.json")
    assert report["task"] == task and report["n"] == TOP and 0 <= report["metrics"]["score"] <= 1
    run = ["--task", task, "--run", str(folder / "run"), "--threads", "1"]
    out = tmp_path / "e.json"
    assert infer.main(["eval", *run, "--top", str(TOP), "--out", str(out)]) == 0
    assert read_json(out)["metrics"]["score"] == pytest.approx(report["metrics"]["score"], abs=1e-6)
    assert infer.main(["sample", *run, "--prompt", "A number from 1 to 6.", "--max-new", "3"]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("higher\nlower\nyes\nhigher\n"))
    assert infer.main(["play", *run]) == 0
    assert capsys.readouterr().out.count("> ") == 3  # yes ends the game
    more = ["--runs", str(tmp_path), "--name", "grpo", "--steps", "2", "--top", str(TOP), *SMALL[-8:]]
    assert train.main(["--task", task, "--loss", "grpo", "--init", str(folder / "run"), *more]) == 0
    rows = [json.loads(line) for line in (tmp_path / "grpo/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["reward"] <= 1 for row in rows) and len(rows) == 2


@pytest.mark.parametrize("verb", ["eval", "play", "sample", "merge", "rows"])
def test_a_run_never_leads_to_its_file(game, verb, capsys):
    call = [verb, "--run", str(game[0] / "run"), "--prompt", "x", "--out", str(game[0] / "no.json")]
    assert infer.main(call) == 2
    assert f"name it again: --task {game[1]}" in capsys.readouterr().err and not games.OWN


def test_resuming_asks_for_the_file_again(game, tmp_path, capsys):
    folder, task = game
    resume = ["--resume", str(folder / "run"), "--steps", "4"]
    assert train.main(resume) == 2
    assert f"name it again: --task {task}" in capsys.readouterr().err and not games.OWN
    marker = tmp_path / "ran"
    other = tmp_path / "other.py"
    other.write_text(f"open({str(marker)!r}, 'w')\n" + (folder / "guess.py").read_text())
    saved = read_json(folder / "run/run.json")
    forged = {**saved, "values": {**saved["values"], "task": f"{other}:Guess"}}
    write_json(folder / "run/run.json", forged)
    assert train.main(resume) == 2 and train.main([*resume, "--task", task]) == 2 and not marker.exists()
    assert infer.main(["eval", "--run", str(folder / "run")]) == 2 and not marker.exists()
    write_json(folder / "run/run.json", saved)
    assert train.main([*resume, "--task", task]) == 0


@pytest.mark.parametrize(
    "code, what",
    [
        (None, "no such file"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("x = 1", "has no class Game"),
        ("Game = 1", "has no class Game"),
        ("class Game: pass", "no class that inherits"),
        ("seed: int = 3  # the seed", "--task .*--seed"),
        ("top: tuple = ()  # a tuple", "top is no bool"),
        ("top: 'int' = 3  # a number", "top is no bool"),
    ],
)
def test_a_file_that_is_no_game_is_a_wrong_call(tmp_path, code, what):
    path = tmp_path / "game.py"
    if code and ":" in code and "class" not in code:
        options = "from dataclasses import dataclass\nfrom games.task import Task\n\n\nclass Game(Task):\n"
        code = f"{options}    @dataclass\n    class Options:\n        # the game\n        {code}\n"
    if code:
        path.write_text(code)
    for kind in (Train, Infer):
        with pytest.raises(UsageError, match=what):
            parse(kind, ["--task", f"{path}:Game"])


def test_the_loss_of_the_page_trains(game, tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "OBJECTIVES", table := dict(objectives.OBJECTIVES))
    monkeypatch.setattr(train, "OBJECTIVES", table)
    exec(code_blocks()[1], {**vars(objectives), **vars(steps), "OBJECTIVES": table})
    more = ["--runs", str(tmp_path), "--name", "smooth", "--steps", "2", "--top", str(TOP), *SMALL]
    assert train.main(["--task", game[1], "--loss", "smooth", *more]) == 0
