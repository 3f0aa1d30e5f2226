"""A submission of 20 Questions in Kaggle's own environment, kaggle-environments 1.16.11."""

import contextlib
import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_model

import infer
import model as models
from games.twentyq.kaggle import as_question
from games.twentyq.prompts import correct

pytestmark = pytest.mark.peers
SPEC = importlib.util.find_spec("kaggle_environments")
RULES = SPEC and Path(SPEC.origin).parent / "envs" / "llm_20_questions"
if not (RULES and RULES.exists()):
    pytest.skip("kaggle-environments 1.16.11 is not installed", allow_module_level=True)
GAMES = Path(__file__).parent.parent / "bench" / "kaggle_games.py"


def test_fifty_games_in_all_seats_end_without_an_error(tokenizer, world_file, tmp_path):
    """With a random model, whose replies are as odd as they get: its answers are neither yes nor no."""
    models.save(tiny_model(vocab_size=400), tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    argv = (
        "submit --task 20q --device cpu --max-new 4 --tries 6 --model model --out submission.tar.gz".split()
    )
    with contextlib.chdir(tmp_path):
        assert infer.main([*argv, "--world", str(world_file)]) == 0
    argv = [sys.executable, "-I", str(GAMES), "submission.tar.gz", "--games", "50"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["games"] == 50 and found["statuses"] == ["DONE"]
    assert found["actions"] > 1000 and found["longest action, seconds"] < 60
    assert 0 < found["actions in which the model failed"] < found["actions"] / 2


def test_no_keyword_of_the_environment_is_ever_a_question():
    kinds = json.loads(runpy.run_path(str(RULES / "keywords.py"))["KEYWORDS_JSON"])
    words = [word for kind in kinds for word in kind["words"]]
    assert len(words) > 500
    for word in words:
        for text in (word["keyword"], *word["alts"]):
            assert correct(text, word["keyword"], *word["alts"])
            assert not correct(as_question(f"{text}?"), word["keyword"], *word["alts"])
