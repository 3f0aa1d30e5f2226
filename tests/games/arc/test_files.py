"""ARC's files: tasks in every layout, faults named, predictions and submissions."""

import json
import re

import pytest

from games.arc import files as arc_files
from games.arc.task import Arc, Options
from tests.games.arc.help_arc import TASK, TWO, record

A, B = [[1]], [[2]]


def write(path, thing):
    path.write_text(json.dumps(thing))
    return str(path)


def no_truth(task):
    return {**task, "test": [{"input": pair["input"]} for pair in task["test"]]}


def test_tasks_are_read_in_every_layout(tmp_path):
    want = {"0a": TASK, "1b": TWO}
    sets = write(tmp_path / "sets.json", {"train": {"0a": TASK}, "eval": {"1b": TWO}})
    assert arc_files.read_tasks(sets, "train") == {"0a": TASK}
    assert arc_files.read_tasks(sets, "test") == arc_files.read_tasks(f"{sets}:eval", "train") == {"1b": TWO}
    name = write(tmp_path / "arc-agi_evaluation_challenges.json", {k: no_truth(v) for k, v in want.items()})
    assert arc_files.read_tasks(name, "test") == {k: no_truth(v) for k, v in want.items()}
    truth = {k: [pair["output"] for pair in v["test"]] for k, v in want.items()}
    write(tmp_path / "arc-agi_evaluation_solutions.json", truth)
    assert arc_files.read_tasks(name, "test") == want
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for key, task in want.items():
        write(folder / f"{key}.json", task)
    assert arc_files.read_tasks(folder, "test") == arc_files.read_tasks(tmp_path, "test") == want


def test_a_file_of_one_task_is_read_under_its_name(tmp_path):
    name = write(tmp_path / "00d62c1b.json", TWO)
    for source in (name, tmp_path):  # the only file of a folder too
        assert arc_files.read_tasks(source, "train") == arc_files.read_tasks(source, "test")
        assert arc_files.read_tasks(source, "test") == {"00d62c1b": TWO}
    with pytest.raises(ValueError, match="00d62c1b.json: train is .*expected a list of at least 1"):
        arc_files.read_tasks(write(tmp_path / "00d62c1b.json", {**TASK, "train": []}), "test")


def test_a_byte_order_mark_does_not_disturb(tmp_path):
    path = tmp_path / "0a.json"
    path.write_text(json.dumps(TASK), encoding="utf-8-sig")
    assert path.read_bytes()[:3] == b"\xef\xbb\xbf"
    assert arc_files.read_tasks(path, "test") == {"0a": TASK}


def test_an_output_of_null_is_not_known(tmp_path):
    tests = [TWO["test"][0], {**TWO["test"][1], "output": None}]
    open_task = {**TWO, "test": tests}
    name = write(tmp_path / "tasks.json", {"a": open_task})
    assert arc_files.read_tasks(name, "test") == {"a": {**TWO, "test": [tests[0], no_truth(TWO)["test"][1]]}}
    name = write(tmp_path / "arc_challenges.json", {"a": no_truth(TWO)})
    write(tmp_path / "arc_solutions.json", {"a": [pair["output"] for pair in tests]})
    assert arc_files.read_tasks(name, "test") == {"a": {**TWO, "test": [tests[0], no_truth(TWO)["test"][1]]}}
    shown = [{**pair, "output": None} for pair in TASK["train"]]  # nothing can be learned from such pairs
    with pytest.raises(ValueError, match="tasks.json, task a: train is .*None"):
        arc_files.read_tasks(write(tmp_path / "tasks.json", {"a": {**TASK, "train": shown}}), "test")


def test_whole_floats_are_integers_and_others_are_named(tmp_path):
    floats = json.loads(re.sub(r"(\d)(?=[,\]])", r"\1.0", json.dumps(TASK)))
    assert type(floats["test"][0]["output"][0][0]) is float
    found = arc_files.read_tasks(write(tmp_path / "tasks.json", {"a": floats}), "test")
    assert found == {"a": TASK} and json.dumps(found["a"]) == json.dumps(TASK)
    for cell, shown in ((1.5, "1.5"), (float("nan"), "nan")):
        floats["train"][1]["output"][2][1] = cell
        where = f"tasks.json, task a: train pair 2, output, row 3, column 2 is {shown}, expected"
        with pytest.raises(ValueError, match=where):
            arc_files.read_tasks(write(tmp_path / "tasks.json", {"a": floats}), "test")


@pytest.mark.parametrize(
    "thing, message",
    [
        ({"a": {"train": [], "test": TASK["test"]}}, "task a: train is .*expected a list of at least 1"),
        ({"a": {**TASK, "test": [{"input": [[1], [1, 2]]}]}}, "task a: test is .*expected .*rows of equal"),
        ({"a": {**TASK, "test": [5]}}, "task a: test is"),
        ({"a": {**TASK, "train": [*TASK["train"], {"input": [[1]]}]}}, "task a: train is"),
        ({"a": {**TASK, "train": [{"input": [[1]], "output": [[10]]}]}}, "task a: train is"),
        ([1], "expected an object"),
        ({"train": 5}, "task train: expected an object"),
        ({}, "no tasks"),
        ({"eval": {}}, "no tasks"),
        ({"train": {"a": TASK}}, "no set 'test'; it has train"),
        ({"a": {**TASK, "test": [{"input": [[1]] * 31}]}}, "task a: test is"),
    ],
)
def test_faults_of_files_are_named(tmp_path, thing, message):
    name = write(tmp_path / "tasks.json", thing)
    with pytest.raises(ValueError, match=f"tasks.json.*{message}"):
        arc_files.read_tasks(name, "test")


def test_files_that_are_missing_or_no_json_are_named(tmp_path):
    for name in ("nothing.json", "nothing.json:eval"):
        with pytest.raises(FileNotFoundError, match="nothing.json"):
            arc_files.read_tasks(str(tmp_path / name), "test")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="x.json, line 1: not valid JSON"):
        arc_files.read_tasks(tmp_path, "test")


def test_a_model_knows_the_tasks_it_was_trained_on(tmp_path):
    name = write(tmp_path / "tasks.json", {"train": {"a": TASK}, "eval": {"b": TASK, "c": TWO}})
    assert [example["id"] for example in Arc(Options(data=name)).examples("test")] == ["b", "c"]
    assert Arc(Options(data=name)).trained_on() == ["a"] and Arc().trained_on() == []


def test_submissions(tmp_path):
    """The two most frequent predictions, [] where there is no answer; checked and combined."""
    tasks = {"a": TASK, "b": TWO}
    name = write(tmp_path / "tasks.json", tasks)
    right = [[9, 0, 0, 1]]
    mine = {
        "a": [{"attempt_1": [], "attempt_2": right, "attempt_3": right, "attempt_4": A}],
        "b": [{"attempt_1": [], "attempt_2": []}, {"attempt_1": [[3], [4]], "attempt_2": []}],
    }
    theirs = {
        "a": [{"attempt_1": [[2]], "attempt_2": [[3]]}],
        "b": [{"attempt_1": [[5]], "attempt_2": []}, {"attempt_1": [[3], [4]], "attempt_2": [[6]]}],
    }
    predictions = write(tmp_path / "p.json", mine)
    alone = Arc(Options(data=name)).submit(predictions)
    assert alone["a"] == [{"attempt_1": right, "attempt_2": A}]
    assert alone["b"] == [{"attempt_1": [], "attempt_2": []}, {"attempt_1": [[3], [4]], "attempt_2": []}]
    assert Arc(Options(data=name)).submit(write(tmp_path / "s.json", alone)) == alone
    both = Arc(Options(data=name, ensemble=write(tmp_path / "t.json", theirs))).submit(predictions)
    assert both["a"] == alone["a"]  # ours answers twice
    assert both["b"] == [{"attempt_1": [[5]], "attempt_2": []}, {"attempt_1": [[3], [4]], "attempt_2": [[6]]}]


def test_a_submission_from_predictions_holds_the_answers_that_eval_counted(tmp_path):
    """Answers of search come first, by length; the vote breaks ties by log-probability or by a judge."""
    name = write(tmp_path / "tasks.json", {"x": TWO})
    C = [[7]]
    long = {"steps": [1, 2], "answers": [A, None], "tried": 1}
    short = {"steps": [1], "answers": [C, None], "tried": 9}
    for found in ([], [long], [long, short]):
        for order in (None, [[B, A, C], [C, B, A]]):
            run = record([A, B], [B, A], [None, C], None, [A, B], [B, C], truth=TWO["test"])
            run["replies"][1]["logp"] = run["replies"][5]["logp"] = -0.1
            run["search"] = {"found": found}
            if order:
                run["order"] = order
            predictions = write(tmp_path / "p.json", arc_files.predictions([run]))
            assert Arc(Options(data=name)).submit(predictions) == arc_files.submission([run])


def test_predictions_of_several_runs_vote_together(tmp_path):
    """An answer from two runs beats an answer from one; --ensemble only fills what is missing."""
    name = write(tmp_path / "tasks.json", {"a": TASK})
    runs = [
        write(tmp_path / f"{i}.json", {"a": [{"attempt_1": first, "attempt_2": second}]})
        for i, (first, second) in enumerate([(A, B), (B, []), ([], [])])
    ]
    assert Arc(Options(data=name)).submit(",".join(runs))["a"] == [{"attempt_1": B, "attempt_2": A}]
    ordered = Arc(Options(data=name, ensemble=",".join(runs[:2]))).submit(runs[2])
    assert ordered["a"] == [{"attempt_1": A, "attempt_2": B}]
    write(tmp_path / "1.json", {})
    with pytest.raises(ValueError, match="1.json.*: a is missing"):
        Arc(Options(data=name)).submit(",".join(runs))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("b"), "b is missing"),
        (lambda s: s.update(c=s["a"]), "not in the data, c among"),
        (lambda s: s["b"].pop(), "task b: must be a list of 2 tests"),
        (lambda s: s["b"].append("x") or s["b"].pop(0), "task: b is .*expected a list, each an object"),
        (lambda s: s["a"][0].update(attempt_2=[[11]]), "task: a is .*11.*expected a list"),
    ],
)
def test_wrong_predictions_are_refused(tmp_path, change, message):
    empty = {"attempt_1": [], "attempt_2": []}
    found = {"a": [dict(empty)], "b": [dict(empty), dict(empty)]}
    tasks = {"a": TASK, "b": TWO}
    assert arc_files.read_predictions(write(tmp_path / "s.json", found), tasks) == found
    change(found)
    with pytest.raises(ValueError, match=f"s.json.*{message}"):
        arc_files.read_predictions(write(tmp_path / "s.json", found), tasks)


def test_no_answers_make_a_whole_submission():
    """Missing answers once shared one dict, so that a later change showed up in all of them."""
    found = arc_files.submission([record(None, None), record(None)])
    tests = found["x"]
    assert tests == [{"attempt_1": [], "attempt_2": []}] * 2 and tests[0] is not tests[1]
    tests[0]["attempt_1"].append(1)
    assert tests[0]["attempt_2"] == tests[1]["attempt_1"] == []
    assert arc_files.predictions([record([A, None], None)])["x"] == [
        {"attempt_1": A, "attempt_2": []},
        {"attempt_1": [], "attempt_2": []},
    ]
    assert len(arc_files.task_results([record([A, None], None)])) == 4


def test_tasks_with_long_sides_are_counted(tmp_path):
    name = write(tmp_path / "tasks.json", {"train": {"a": TASK}, "eval": {"b": TASK, "c": TWO}})
    task = Arc(Options(data=name, side=3))
    for _ in range(2):  # counted once, however often they are asked for
        assert task.examples("test") == [] and task.dropped == {"with a side longer than 3": 2}
