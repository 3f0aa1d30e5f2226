"""The arena's files: both forms of battles, where faults are reported, splits, swaps, submissions."""

import json
from collections import Counter

import numpy as np
import pytest

from games.arena.files import WINNERS, parse_battle, read_battles, split_of, submission_rows, swap_answers
from games.arena.world import battles
from tests.games.arena.help_arena import write_rows

ROW = {"id": "7", "model_a": "x", "model_b": "y", "prompt": ["p", "q"], "response_a": ["a", None]}
ROW |= {"response_b": ["b", "c"], "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
TURNS = [["p", "a", "b"], ["q", "", "c"]]
OWN = {"prompt": "p", "response_a": "a", "response_b": "b", "winner": "a"}


def read(path, *rows, **options):
    """Write rows to a file and read them back: (battles, Counter of the dropped ones)."""
    dropped = Counter()
    return [*read_battles(write_rows(path, rows), "", dropped, **options)], dropped


# ------------------------------------------------------------------------------------------------ reading
def test_the_competitions_train_file(tmp_path):
    expected = {"id": "7", "turns": TURNS, "models": ["x", "y"], "target": 1, "source": None}
    assert read(tmp_path / "train.csv", ROW) == ([expected], {})
    found, _ = read(tmp_path / "more.csv", ROW | {"model_a": "", "source": "s"})
    assert found == [expected | {"models": None, "source": "s"}]


@pytest.mark.parametrize("first", ["p", None])
def test_the_competitions_test_file_has_neither_winners_nor_models(tmp_path, first):
    row = {k: v for k, v in ROW.items() if not k.startswith(("model", "winner"))} | {"prompt": [first, "q"]}
    (example,), _ = read(tmp_path / "test.csv", row, training=False)
    assert example["turns"] == [[first or "", "a", "b"], TURNS[1]]
    assert example["target"] is example["models"] is None
    with pytest.raises(ValueError, match="test.csv, line 2: no winner; training needs"):
        read(tmp_path / "test.csv", row)


@pytest.mark.parametrize("word, target", [("a", 0), ("b", 1), ("tie", 2), ("both_bad", 2)])
def test_our_own_form(tmp_path, word, target):
    path = tmp_path / "a.jsonl"
    (first, second), _ = read(path, OWN | {"winner": word}, OWN | {"prompt": ["p"], "id": 3, "model_a": "x"})
    assert first["turns"] == second["turns"] == [["p", "a", "b"]]
    assert first["target"] == target
    assert (first["id"], second["id"], second["models"]) == (f"{path}, line 1", "3", None)


def test_texts_are_taken_as_they_are(tmp_path):
    """In our own form a text that looks like JSON stays text; only half of a surrogate pair is replaced."""
    row = OWN | {"prompt": '["b", "a"]: sort this', "response_a": '["a", "b"]'}
    assert read(tmp_path / "a.jsonl", row)[0][0]["turns"] == [['["b", "a"]: sort this', '["a", "b"]', "b"]]
    row = ROW | {"prompt": ["\ud83d x", "[SEP]"], "response_b": ["\ud83d\ude00", "c"]}
    turns = read(tmp_path / "a.csv", row)[0][0]["turns"]
    assert turns == [["? x", "a", "\U0001f600"], ["[SEP]", "", "c"]]


WSDM = {"id": "x1", "prompt": "p", "response_a": "a", "response_b": "b"}


def test_the_successors_files(tmp_path):
    """WSDM's: plain texts, the winner by its column, a language, and no ties."""
    seen = {"winner": "model_b", "model_a": "x", "model_b": "y", "language": "German"}
    asked = WSDM | {"prompt": '["hi"]', "response_a": "[ 1 ]", "response_b": "no"}
    expected = {"id": "x1", "turns": [["p", "a", "b"]], "models": ["x", "y"], "target": 1, "source": "German"}
    found, _ = read(tmp_path / "train.csv", WSDM | seen, asked | seen | {"winner": "model_a"})
    assert found[0] == expected
    assert found[1] == expected | {"turns": [['["hi"]', "[ 1 ]", "no"]], "target": 0}
    assert read(tmp_path / "more.csv", WSDM | seen | {"source": "s"})[0][0]["source"] == "s"


@pytest.mark.parametrize("prompt", ['["a"], what is this?', '[ "hi" ]', '["hi"]'])
def test_the_form_of_a_file_is_told_by_all_of_it(tmp_path, prompt):
    """A prompt that looks like an array is a text in a file of texts, wherever it stands, and an array in a
    file of arrays."""
    rows = [WSDM | {"prompt": prompt}, WSDM | {"response_a": '["x"]', "response_b": "[]"}]
    for order in (rows, rows[::-1]):
        found, _ = read(tmp_path / "test.csv", *order, training=False)
        turns = {example["turns"][0][0]: example["turns"][0][1:] for example in found}
        assert turns == {prompt: ["a", "b"], "p": ['["x"]', "[]"]}
    lists = {"response_a": '[ "x" ]', "response_b": ["y"]}
    if prompt.endswith("]"):
        (example,), _ = read(tmp_path / "lists.csv", WSDM | lists | {"prompt": prompt}, training=False)
        assert example["turns"] == [["hi", "x", "y"]]


@pytest.mark.parametrize("row", [OWN, ROW])
def test_soft_labels_go_before_the_winner(row):
    soft = {"p_a": 0.2, "p_b": "0.3", "p_tie": 0.5004}
    np.testing.assert_allclose(parse_battle(row | soft)["target"], np.array([0.2, 0.3, 0.5004]) / 1.0004)
    assert isinstance(parse_battle(row | dict.fromkeys(soft, ""))["target"], int)  # a row that has none


def test_battles_that_teach_nothing_are_counted_in_training_and_kept_elsewhere(tmp_path):
    empty = {"response_a": [None, " "], "response_b": [None, " "]}
    equal = {"response_a": ["a", "b"], "response_b": ["a", "b"]}
    one_empty = {"response_a": ["", ""]}  # an answer that says nothing loses, which is worth learning
    rows = [ROW | change for change in (empty, equal, one_empty, {})]
    found, dropped = read(tmp_path / "a.csv", *rows)
    assert len(found) == 2 and dropped == {"with two empty answers": 1, "with two equal answers": 1}
    assert len(read(tmp_path / "a.csv", *rows, training=False)[0]) == 4


def test_the_rows_of_the_world_are_battles():
    for row in battles(0, 20):
        example = parse_battle(row)
        assert example["id"] == row["id"] and example["models"] == [row["model_a"], row["model_b"]]
        assert row[WINNERS[example["target"]]] == 1
        assert [turn[0] for turn in example["turns"]] == json.loads(row["prompt"])


@pytest.mark.parametrize(
    "row, change, what",
    [
        (ROW, {"prompt": "p"}, "prompt.*not valid JSON .Expecting value"),
        (ROW, {"prompt": '{"a": 1}'}, "'prompt' must be a JSON array of turns"),
        (ROW, {"response_a": ["a", 3]}, "'response_a' must be a JSON array of turns"),
        (ROW, {"response_b": ["b"]}, r"the same number of turns, found \[2, 2, 1\]"),
        (ROW, {"prompt": [], "response_a": [], "response_b": []}, r"found \[0, 0, 0\]"),
        (ROW, {"winner_tie": 1}, "must be shares that sum to 1"),
        (ROW, {"winner_model_a": 0.5, "winner_model_b": 0.5}, "must be one 1 and two 0"),
        (ROW, {"winner_tie": ""}, "must be numbers"),
        (OWN, {"prompt": 3}, "'prompt' must be a text or a list of turns"),
        (OWN, {"response_a": None}, "'response_a' must be a text or a list of turns"),
        (OWN, {"winner": "c"}, "winner is 'c', expected .*'a' or 'b' or 'tie' or 'both_bad'"),
        (OWN, {"model_b": 3}, "model_b is 3, expected a text"),
        (OWN, {"model_a": ["x"]}, "model_a is .*expected a text"),
        (OWN, {"winner": ["a"]}, "winner is .*expected"),
        (OWN, {"p_a": 0.5}, "p_a, p_b, p_tie must be numbers"),
        (OWN, {"p_a": 1.5, "p_b": -0.5, "p_tie": 0}, "p_tie must be shares that sum to 1"),
        (OWN, {"p_a": float("nan"), "p_b": 0.5, "p_tie": 0.5}, "p_tie must be shares that sum to 1"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path, row, change, what):
    path = tmp_path / ("a.jsonl" if row is OWN else "a.csv")
    with pytest.raises(ValueError, match=f"^{path}, line {2 if row is OWN else 3}: .*{what}"):
        read(path, row, row | change)


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
    other = swap_answers(example)
    assert other["turns"] == [["p", "b", "a"], ["q", "c", ""]]
    assert other["models"] == (models and ["y", "x"])
    assert other["target"] == exchanged
    assert swap_answers(other) == example and example["turns"] == TURNS


@pytest.mark.parametrize("probs", [[0.2, 0.3, 0.6], [0.5, 0.5, np.nan], [1.5, 0.0, -0.5]])
def test_what_is_no_distribution_is_no_submission(probs):
    with pytest.raises(ValueError, match="row 2, id 4: not probabilities that sum to 1"):
        submission_rows([{"id": "9"}, {"id": "4"}], np.array([[0.2, 0.3, 0.5], probs]))
