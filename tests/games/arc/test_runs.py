"""ARC from the command line: a small run and its report, submissions, leaks, weak machines."""

import json

import pytest

import infer
import train
from files import read_json
from games.arc.search import Search
from tests.games.arc.help_arc import Says, runs_programs

SMALL = (
    "--task arc --dim 32 --layers 1 --heads 2 --mlp-dim 32 --eval-n 4 --eval-few 1 --batch 2 "
    "--steps 2 --eval-replies 2 --max-new 8 --tests 6 --threads 1 --dtype float32 --device cpu --seconds 0.5"
).split()
TURN = {
    "train": [{"input": [[1, 2]], "output": [[2, 1]]}] * 2,
    "test": [{"input": [[3, 4]], "output": [[4, 3]]}],
}
pytestmark = runs_programs


@pytest.fixture(autouse=True, scope="module")
def small_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("games.arc.plots.MAX_TASKS", 1)
        yield


def trained(folder, name, *more):
    return train.main([*SMALL, *more, "--runs", str(folder), "--name", name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs: `world`, on the world, and `real`, on the set train of tasks.json."""
    folder = tmp_path_factory.mktemp("arc")
    sets = {part: {f"{part}{i}": TURN for i in range(4)} for part in ("train", "eval")}
    (folder / "tasks.json").write_text(json.dumps(sets))
    assert trained(folder, "world") == 0
    real = "--data", str(folder / "tasks.json"), "--prompt-version", "output-from-examples-v1"
    assert trained(folder, "real", *real) == 0
    return folder


@pytest.fixture
def flags(folder):
    return (
        f"--task arc --run {folder}/world --n 3 --max-new 8 --tests 6 --threads 1 --device cpu "
        "--seconds 0.5 --seed 5"
    ).split()


def test_training_says_what_is_solved(folder):
    report = read_json(folder / "world/eval.json")
    assert report["n"] == 4 and report["curve"].keys() == {"1", "2"}
    names = {"solved@2", "solved@1", "solved@2/parameters", "solved@2/compositions", "unanswered", "accuracy"}
    assert names <= report["metrics"].keys() and "solved@2" in report["baselines"]
    verdicts = [value for name, value in report["metrics"].items() if name.startswith("verdict_")]
    assert sum(verdicts) == pytest.approx(1)
    rows = [json.loads(line) for line in (folder / "world/samples.jsonl").read_text().splitlines()]
    assert [len(row["replies"]) for row in rows] == [2] * 4


def test_verbose_shows_prompts_programs_and_verdicts(flags, capsys):
    assert infer.main(["eval", *flags, "--limit", "1", "--verbose"]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("task test-0:", "times ", "def task(grid):", "solved@3"))


def test_submit(folder, tmp_path):
    data = "--data", str(folder / "tasks.json")
    real = f"--task arc --run {folder}/real --n 2 --max-new 40 --threads 1".split()
    out, predicted = tmp_path / "s.json", str(tmp_path / "e_predictions.json")
    assert infer.main(["eval", *real, *data, "--out", str(tmp_path / "e.json")]) == 0
    assert infer.main(["submit", "--task", "arc", *data, "--predictions", predicted, "--out", str(out)]) == 0
    assert read_json(out).keys() == {f"eval{i}" for i in range(4)}


def test_no_result_on_tasks_that_were_trained_on(folder, tmp_path, capsys):
    """AGI-2's training set holds nearly all of AGI-1's evaluation set."""
    assert read_json(folder / "real/model/trained.json") == [f"train{i}" for i in range(4)]
    data = "--data", f"{folder}/tasks.json:train"
    call = ["--task", "arc", *data, "--n", "1", "--max-new", "4"]
    assert infer.main(["eval", "--run", str(folder / "real"), *call]) == 1
    assert "4 of 4 examples are among those that the model was trained on" in capsys.readouterr().err
    more = "--init", str(folder / "real"), "--prompt-version", "code"
    assert trained(tmp_path, "more", *more) == 0  # a model trained further has still seen them
    assert infer.main(["eval", "--run", str(tmp_path / "more"), *call]) == 1
    capsys.readouterr()
    assert trained(tmp_path, "same", *data, "--prompt-version", "output-from-examples-v1") == 1
    assert "trained on" in capsys.readouterr().err
    assert not (folder / "world/model/trained.json").exists()


def test_training_finishes_where_programs_cannot_be_run(tmp_path, monkeypatch, capsys):
    def weak(*_):
        raise PermissionError("sandbox: level limits; system calls not filtered")

    monkeypatch.setattr("games.arc.judging.Sandbox", weak)
    assert trained(tmp_path, "weak", "--eval-every", "1") == 0
    assert "arc: not evaluated: sandbox: level limits" in capsys.readouterr().err
    report = read_json(tmp_path / "weak/eval.json")
    assert report["n"] == 0 and "solved@2" not in report["metrics"]
    flags = ["--task", "arc", "--run", str(tmp_path / "weak"), "--limit", "2", "--n", "1", "--max-new", "8"]
    assert infer.main(["eval", *flags]) == 1 and "level limits" in capsys.readouterr().err


def test_from_own_programs_to_a_report_that_says_so(folder, flags, tmp_path, monkeypatch, capsys):
    """collect on test tasks -> train -> eval of the same tasks, which is allowed: no output of a test was
    seen."""
    out, says = tmp_path / "programs.jsonl", Says("return grid[::-1]", "return gird", "return grid.T")
    with monkeypatch.context() as patch:
        patch.setattr("agents.Model.reply", lambda self, *more, **control: says.reply(*more, **control))
        call = ["collect", *flags, "--collect-from", "test", "--limit", "2"]
        assert infer.main([*call, "--out", str(out)]) == 0
    assert "4 rows of 2 examples" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["id"] for row in rows} == {"test-0", "test-1"} and "test" not in rows[0]
    more = ["--init", str(folder / "world"), "--recipe", "arc", "--prompt-version", "code,refine"]
    assert trained(tmp_path, "own", *more, "--data", str(out)) == 0
    assert read_json(tmp_path / "own/model/trained.json") == ["shown:test-0", "shown:test-1"]
    flags[3] = str(tmp_path / "own")
    capsys.readouterr()
    assert infer.main(["eval", *flags, "--out", str(tmp_path / "e.json")]) == 0
    assert "test-time training: the model learned from what 2 tasks show" in capsys.readouterr().out
    assert "what 2 tasks show" in read_json(tmp_path / "e.json")["notes"][0]


def test_an_evaluation_with_search_goes_on_after_a_kill(flags, tmp_path, monkeypatch, capsys):
    """With the same flags it gives the same records; with another budget it is refused."""
    call = ["eval", *flags, "--search-seconds", "60"]
    search = Search.run
    runs = []

    def killed(self, *more):
        runs.append(self)
        if len(runs) == 4:
            raise KeyboardInterrupt
        search(self, *more)

    def records(name, programs):
        code = infer.main([*call, "--search", programs, "--out", str(tmp_path / name)])
        if code:
            return code
        rows = read_json(tmp_path / name)["records"]
        assert {row["search"].pop("seconds") > 0 for row in rows} == {True}
        return rows

    with monkeypatch.context() as patch:
        patch.setattr("infer.CHUNK", 6)  # two tasks of three replies
        patch.setattr(Search, "run", killed)
        assert records("e.json", "300") == 130
        patch.setattr(Search, "run", search)
        assert records("e.json", "200") == 1 and "made with search 300, now 200" in capsys.readouterr().err
        rows = records("e.json", "300")
        assert rows == records("whole.json", "300")
    assert len(rows) == 6
    assert max(row["search"]["tried"] for row in rows) <= 300


@pytest.mark.parametrize(
    "way", ["--ttt-steps 1 --ttt-tasks 2", "--prompt-version output --ties verify --judge RUN"]
)
def test_test_time_training_and_a_judge_by_command(folder, flags, tmp_path, capsys, way):
    more = way.replace("RUN", str(folder / "world")).split()
    assert infer.main(["eval", *flags, *more, "--limit", "2", "--out", str(tmp_path / "e.json")]) == 0
    learned = "test-time training: the model learned from what 2 tasks show" in capsys.readouterr().out
    records = read_json(tmp_path / "e.json")["records"]
    assert [len(record["replies"]) for record in records] == [3, 3]
    assert all(("order" in record) == (not learned) == ("--ties" in way) for record in records)


def test_reward_is_the_verdict(folder, tmp_path):
    """GRPO on the world: right on every shown pair and on the test, which the prompt does not show."""
    more = ["--loss", "grpo", "--init", str(folder / "world"), "--recipe", "arc", "--group", "2"]
    assert trained(tmp_path, "grpo", *more, "--steps", "1") == 0
    (row,) = map(json.loads, (tmp_path / "grpo/metrics.jsonl").read_text().splitlines())
    assert row["reward"] == 0 and "score/right" in row and row["zero_spread"] == 1
    rollouts = (tmp_path / "grpo/rollouts.jsonl").read_text().splitlines()
    assert "verdict" in json.loads(rollouts[0])["turns"][0]
