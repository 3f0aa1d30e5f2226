"""The arena's files: both forms of battles, every fault's place, splits, swaps, submissions."""

import csv
import json

import numpy as np
import pytest

from games.arena.files import (
    COLUMNS,
    WINNERS,
    battle,
    check_submission,
    read_battles,
    split_of,
    submission_rows,
    swapped,
)
from games.arena.world import battles

ROW = {"id": "7", "model_a": "x", "model_b": "y", "prompt": ["p", "q"], "response_a": ["a", None]}
ROW |= {"response_b": ["b", "c"], "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
TURNS = [["p", "a", "b"], ["q", "", "c"]]
OWN = {"prompt": "p", "response_a": "a", "response_b": "b", "winner": "a"}


def kaggle(path, *rows):
    """A CSV of the competition's form."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return path


def own(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path, rows="", **options):
    dropped = []
    return [*read_battles(path, rows, dropped.append, **options)], dropped


# ------------------------------------------------------------------------------------------------ reading
def test_the_competitions_train_file(tmp_path):
    expected = {"id": "7", "turns": TURNS, "models": ["x", "y"], "target": 1, "source": None}
    assert read(kaggle(tmp_path / "train.csv", ROW)) == ([expected], [])
    found, _ = read(kaggle(tmp_path / "more.csv", ROW | {"model_a": "", "source": "s"}))
    assert found == [expected | {"models": None, "source": "s"}]


@pytest.mark.parametrize("first", ["p", None])
def test_the_competitions_test_file_has_neither_winners_nor_models(tmp_path, first):
    row = {k: v for k, v in ROW.items() if not k.startswith(("model", "winner"))}
    path = kaggle(tmp_path / "test.csv", row | {"prompt": [first, "q"]})
    (example,), _ = read(path, training=False)
    assert example["turns"] == [[first or "", "a", "b"], TURNS[1]]
    assert example["target"] is example["models"] is None
    with pytest.raises(ValueError, match="test.csv, line 2: nobody won; training needs"):
        read(path)


@pytest.mark.parametrize("word, target", [("a", 0), ("b", 1), ("tie", 2), ("both_bad", 2)])
def test_our_own_form(tmp_path, word, target):
    path = own(tmp_path / "a.jsonl", OWN | {"winner": word}, OWN | {"prompt": ["p"], "id": 3, "model_a": "x"})
    (first, second), _ = read(path)
    assert first["turns"] == second["turns"] == [["p", "a", "b"]]
    assert first["target"] == target
    assert (first["id"], second["id"], second["models"]) == (f"{path}, line 1", "3", None)


def test_text_that_looks_like_json_is_text_in_our_own_form(tmp_path):
    path = own(tmp_path / "a.jsonl", OWN | {"prompt": '["b", "a"]: sort this', "response_a": '["a", "b"]'})
    assert read(path)[0][0]["turns"] == [['["b", "a"]: sort this', '["a", "b"]', "b"]]


@pytest.mark.parametrize("row", [OWN, ROW])
def test_soft_labels_go_before_the_winner(tmp_path, row):
    soft = {"p_a": 0.2, "p_b": "0.3", "p_tie": 0.5004}
    example = battle(row | soft)
    np.testing.assert_allclose(example["target"], np.array([0.2, 0.3, 0.5004]) / 1.0004)
    assert isinstance(battle(row | dict.fromkeys(soft, ""))["target"], int)  # a row that has none


def test_lone_surrogates_are_replaced_and_pairs_and_markers_stay(tmp_path):
    path = kaggle(
        tmp_path / "a.csv", ROW | {"prompt": ["\ud83d x", "[SEP]"], "response_b": ["\ud83d\ude00", "c"]}
    )
    turns = read(path)[0][0]["turns"]
    assert turns == [["? x", "a", "\U0001f600"], ["[SEP]", "", "c"]]
    json.dumps(turns, ensure_ascii=False).encode()


def test_quotes_newlines_and_a_text_of_a_megabyte(tmp_path):
    texts = ['say "x",\n\\n', "y" * 1_000_000]
    (example,), _ = read(kaggle(tmp_path / "a.csv", ROW | {"prompt": texts}))
    assert [turn[0] for turn in example["turns"]] == texts


def test_battles_that_teach_nothing_are_counted_in_training_and_kept_elsewhere(tmp_path):
    empty, equal = (
        dict(zip(("response_a", "response_b"), pair)) for pair in (([None, " "],) * 2, (["a", "b"],) * 2)
    )
    one_empty = {"response_a": ["", ""]}  # who says nothing loses: that is worth learning
    path = kaggle(tmp_path / "a.csv", *(ROW | change for change in (empty, equal, one_empty, {})))
    found, dropped = read(path)
    assert len(found) == 2 and dropped == ["with two empty answers", "with two equal answers"]
    assert len(read(path, training=False)[0]) == 4


def test_rows_are_read_one_at_a_time(tmp_path):
    path = own(tmp_path / "a.jsonl", OWN, {"broken": 1})
    assert next(read_battles(path, "", None))["target"] == 0
    assert len(read(path, ":1")[0]) == 1


def test_the_rows_of_the_world_are_battles():
    for row in battles(0, 20):
        example = battle(row)
        assert example["id"] == row["id"] and example["models"] == [row["model_a"], row["model_b"]]
        assert row[WINNERS[example["target"]]] == 1
        assert [turn[0] for turn in example["turns"]] == json.loads(row["prompt"])


@pytest.mark.parametrize(
    "row, change, what",
    [
        (ROW, {"prompt": "p"}, "'prompt' must be a JSON array of turns .Expecting value"),
        (ROW, {"prompt": '{"a": 1}'}, "'prompt' must be a JSON array of turns"),
        (ROW, {"response_a": ["a", 3]}, "'response_a' must be a JSON array of turns"),
        (ROW, {"response_b": ["b"]}, "as many turns as each other, found 2 in prompt, .* 1 in response_b"),
        (ROW, {"prompt": [], "response_a": [], "response_b": []}, "found 0 in prompt"),
        (ROW, {"winner_tie": 1}, "must be shares that sum to 1"),
        (ROW, {"winner_model_b": 0}, "must be shares that sum to 1"),
        (ROW, {"winner_model_a": 0.5, "winner_model_b": 0.5}, "must be one 1 and two 0"),
        (ROW, {"winner_tie": ""}, "must be numbers"),
        (ROW, {"winner_tie": "x"}, "must be numbers"),
        (OWN, {"prompt": 3}, "'prompt' must be a text or a list of turns"),
        (OWN, {"response_a": None}, "'response_a' must be a text or a list of turns"),
        (OWN, {"winner": "c"}, "winner 'c' must be one of a, b, tie, both_bad"),
        (OWN, {"winner": ["a"]}, "winner .*must be one of"),
        (OWN, {"p_a": 0.5}, "p_a, p_b, p_tie must be numbers"),
        (OWN, {"p_a": 0.5, "p_b": 0.5, "p_tie": 0.5}, "p_tie must be shares that sum to 1"),
        (OWN, {"p_a": 1.5, "p_b": -0.5, "p_tie": 0}, "p_tie must be shares that sum to 1"),
        (OWN, {"p_a": float("nan"), "p_b": 0.5, "p_tie": 0.5}, "p_tie must be shares that sum to 1"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path, row, change, what):
    write, name = (own, "a.jsonl") if row is OWN else (kaggle, "a.csv")
    path = write(tmp_path / name, row, row | change)
    with pytest.raises(ValueError, match=f"^{path}, line {2 if row is OWN else 3}: .*{what}"):
        read(path)


# ------------------------------------------------------------------------------------------------ pure
def test_a_tenth_of_the_prompts_is_held_out_and_equal_ones_stay_together():
    found = [split_of(f"what is {i}?") for i in range(5000)]
    assert 0.085 < found.count("test") / 5000 < 0.115 and {*found} == {"train", "test"}
    for i in range(50):
        assert split_of(f"What is  {i}?\n") == found[i]


@pytest.mark.parametrize(
    "target, exchanged", [(0, 1), (1, 0), (2, 2), ([0.2, 0.3, 0.5], [0.3, 0.2, 0.5]), (None, None)]
)
@pytest.mark.parametrize("models", [["x", "y"], None])
def test_swapping_exchanges_the_sides_and_twice_changes_nothing(target, exchanged, models):
    example = {"id": "1", "turns": TURNS, "models": models, "target": target, "source": "s"}
    other = swapped(example)
    assert other["turns"] == [["p", "b", "a"], ["q", "c", ""]]
    assert other["models"] == (models and ["y", "x"])
    assert other["target"] == exchanged
    assert swapped(other) == example and example["turns"] == TURNS


# ------------------------------------------------------------------------------------------------ submissions
EXAMPLES = [{"id": "9"}, {"id": "4"}]
PROBS = np.array([[0.2, 0.3, 0.5], [1, 0, 0]], np.float32)


def test_a_submission_keeps_the_order_and_survives_its_file(tmp_path):
    rows = submission_rows(EXAMPLES, PROBS)
    assert [row["id"] for row in rows] == ["9", "4"] and [*rows[0]] == [*COLUMNS]
    np.testing.assert_allclose([[row[name] for name in WINNERS] for row in rows], PROBS)
    with kaggle(tmp_path / "submission.csv", *rows).open(newline="") as file:
        assert file.readline().strip() == "id,winner_model_a,winner_model_b,winner_tie"
        file.seek(0)
        assert len(check_submission([*csv.DictReader(file)], EXAMPLES)) == 2


@pytest.mark.parametrize(
    "i, change, what",
    [
        (1, {"id": "5"}, "row 2: id 5, but the battle there is 4"),
        (0, {"winner_tie": 0.6}, "row 1, id 9: not probabilities that sum to 1"),
        (0, {"winner_tie": "x"}, "row 1, id 9: not numbers"),
        (1, {"winner_tie": float("nan")}, "row 2, id 4: not probabilities"),
        (1, {"winner_model_a": 1.5, "winner_tie": -0.5}, "row 2, id 4: not probabilities"),
        (0, {"extra": 1}, "row 1: the header must be id,winner_model_a"),
    ],
)
def test_what_is_no_submission_is_said(i, change, what):
    rows = submission_rows(EXAMPLES, PROBS)
    rows[i] |= change
    with pytest.raises(ValueError, match=what):
        check_submission(rows, EXAMPLES)


def test_a_row_too_few_or_a_sum_that_is_off_is_no_submission():
    with pytest.raises(ValueError, match="1 rows for 2 battles"):
        check_submission(submission_rows(EXAMPLES, PROBS)[:1], EXAMPLES)
    with pytest.raises(ValueError, match="row 1, id 9"):
        submission_rows(EXAMPLES, PROBS * 2)
