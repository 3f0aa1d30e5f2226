"""Eedi's files: reading, errors with their places, queries, submissions."""

import json

import pytest

from games.eedi.files import query_of, read, seed_clean, submission_rows
from tests.games.eedi.help_eedi import (
    EXPLAINED,
    EXPLAINED_HEAD,
    HEAD,
    ROWS,
    cells,
    explained_cells,
    write,
    write_explained,
    write_folder,
    write_lines,
)

LABELS = ["Adds instead of multiplying", "Forgets to halve ", "Rounds\ndown", "Never used"]


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path, LABELS)
    return tmp_path


def test_every_labelled_wrong_answer_is_an_example_in_order(folder):
    labels, examples = read(folder)
    assert labels == ["Adds instead of multiplying", "Forgets to halve", "Rounds\ndown", "Never used"]
    ids = ["7_A", "7_C", "9_B", "9_C", "9_D"]
    assert [(e["id"], e["label"]) for e in examples] == list(zip(ids, (2, 0, 1, 1, 0)))
    first = examples[0]
    assert first["text"].startswith("Find \\( 2") and "\n" in first["text"]
    assert (first["right"], first["wrong"]) == ("answer B", "answer A")
    assert (first["construct"], first["subject_id"]) == ("construct 3", 1)


def test_of_a_file_without_labels_every_wrong_answer_is_an_example(folder):
    _, examples = read(folder, split="test")
    assert [e["id"] for e in examples] == ["7_A", "7_C", "7_D", "9_B", "9_C", "9_D"]
    assert {e["label"] for e in examples} == {None}
    rows = submission_rows(examples, [[1, 0, 3, 2]] * 6, [10, 11, 12, 13])
    assert [row["QuestionId_Answer"] for row in rows] == [e["id"] for e in examples]
    assert rows[0]["MisconceptionId"] == "11 10 13 12"


@pytest.mark.parametrize(
    "place, value, message",
    [
        (5, "E", "line 2: CorrectAnswer 'E' is none of A, B, C, D"),
        (5, "AB", "line 2: CorrectAnswer 'AB' is none of A, B, C, D"),
        (11, "99", "line 2: MisconceptionAId 99 is not in misconception_mapping.csv"),
        (11, "2.5", "line 2: MisconceptionAId '2.5' is not a whole number"),
        (0, "seven", "line 2: QuestionId 'seven' is not a whole number"),
    ],
)
def test_a_wrong_cell_is_an_error_that_names_its_line(folder, place, value, message):
    rows = [cells(*row) for row in ROWS]
    rows[0][place] = value
    write(folder / "train.csv", HEAD, rows)
    with pytest.raises(ValueError, match=message):
        read(folder)


def test_a_missing_column_a_label_twice_and_a_missing_file_are_errors(folder):
    write(folder / "train.csv", [*HEAD[:5], "Correct", *HEAD[6:]], [cells(*row) for row in ROWS])
    with pytest.raises(ValueError, match="no column 'CorrectAnswer'.*did you mean 'Correct'"):
        read(folder)
    mapping = folder / "misconception_mapping.csv"
    write(mapping, ["MisconceptionId", "MisconceptionName"], [(0, "one"), (0, "two")])
    with pytest.raises(ValueError, match="line 3: MisconceptionId 0 stands twice"):
        read(folder)
    mapping.unlink()
    with pytest.raises(FileNotFoundError, match="no misconception_mapping.csv in this folder"):
        read(folder)


def test_the_successors_rows_have_an_explanation_and_a_category(tmp_path):
    write_explained(tmp_path)
    labels, examples = read(tmp_path)
    assert labels[:3] == ["True_Correct:NA", "False_Misconception:Adding_terms", "True_Neither:NA"]
    assert [example["label"] for example in examples] == [0, 1, 2, 3, 1, 0, 4]
    assert [example["id"] for example in examples] == [*"0123456"]
    query = (
        'What is "31",\nwhen doubled? Right answer: \\( 6 \\) Answer: \\( 5 \\) Explanation: I added, them'
    )
    assert query_of(examples[1], "full") == query_of(examples[1], "s4") == query
    assert "added" not in query_of(examples[1], "topic") and "Adding" not in query_of(examples[1], "full")
    assert examples[1]["question"] == examples[4]["question"] != examples[6]["question"]
    assert read(tmp_path / "train.csv") == (labels, examples)

    again, tests = read(tmp_path, split="test")  # the labels and the right answers come from train.csv
    assert again == labels and [example["id"] for example in tests] == ["900", "901", "902", "903"]
    assert tests[3]["right"] == "9" and {example["label"] for example in tests} == {None}
    assert query_of(tests[1], "full") == query
    rows = submission_rows(tests, [[1, 0, 3, 2, 4]] * 4, labels)
    best = "False_Misconception:Adding_terms True_Correct:NA False_Misconception:Whole_numbers_larger"
    assert rows[0] == {"row_id": "900", "Category:Misconception": best}


@pytest.mark.parametrize(
    "place, value, message",
    [
        (1, "x", "train.csv, line 2: QuestionId 'x' is not a whole number"),
        (5, "Maybe_Correct", "train.csv, line 2: Category is 'Maybe_Correct', expected .*True_Neither"),
        (6, "two words", "train.csv, line 2: the label 'True_Correct:two words' holds a space"),
    ],
)
def test_a_wrong_cell_of_the_successors_is_named(tmp_path, place, value, message):
    rows = [explained_cells(i, values) for i, values in enumerate(EXPLAINED)]
    rows[0][place] = value
    write(tmp_path / "train.csv", EXPLAINED_HEAD, rows)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)
    write(tmp_path / "train.csv", [*EXPLAINED_HEAD[:3], "Answer", *EXPLAINED_HEAD[4:]], rows)
    with pytest.raises(ValueError, match="no column 'MC_Answer'.*did you mean 'Answer'"):
        read(tmp_path)


def test_rows_of_flagembedding_and_a_pool(tmp_path):
    path, pool = tmp_path / "mined.jsonl", tmp_path / "mined_pool.jsonl"
    rows = [
        {"query": "q1", "pos": ["b"], "neg": ["a", "c"]},
        {"query": "q2", "pos": ["a", "d"], "neg": [], "id": "x", "split": "test", "candidates": ["d", "a"]},
    ]
    write_lines(path, rows)
    labels, (first, second, third) = read(path)
    assert labels == ["b", "a", "c", "d"] and first["label"] == 0 and first["neg"] == [1, 2]
    assert query_of(first, "s1") == "q1"
    assert (second["id"], third["id"]) == ("x", "x+1")
    assert third["label"] == 3 and third["candidates"] == [3, 1]
    # A pool next to the rows is found without --pool.
    write_lines(pool, [{"text": "z"}, {"MisconceptionName": "a"}])
    assert read(path)[0] == ["z", "a", "b", "c", "d"]
    write_lines(pool, [{"text": 3}])
    with pytest.raises(ValueError, match="mined_pool.jsonl, line 1: a row of --pool needs"):
        read(path)


@pytest.mark.parametrize(
    "row, message",
    [
        ({"pos": []}, "pos is .*expected a list of at least 1"),
        ({"pos": "b"}, "pos is 'b', expected a list"),
        ({"pos": ["b"], "pos_scores": [1.5]}, "scores of a teacher are not learned here"),
    ],
)
def test_a_broken_row_is_an_error_that_names_its_line(tmp_path, row, message):
    path = write_lines(tmp_path / "mined.jsonl", [{"query": "q"} | row])
    with pytest.raises(ValueError, match=f"mined.jsonl, line 1.*{message}"):
        read(path)


def test_items_of_math_misconceptions(tmp_path):
    row = {"Question": "1/2 + 1/3?", "Incorrect Answer": "2/5", "Correct Answer": "5/6"}
    row["Misconception"] = "adds tops "
    more = {"Topic": "Fractions", "Misconception ID": "M1", "Example Number": 2}
    path = tmp_path / "items.json"
    path.write_text(json.dumps([row | more, row]))
    labels, examples = read(path)
    assert labels == ["adds tops"] and [e["label"] for e in examples] == [0, 0]
    query = "Fractions. Fractions. 1/2 + 1/3? Right answer: 5/6 Wrong answer: 2/5"
    assert query_of(examples[0], "full") == query


@pytest.mark.parametrize(
    "form, query",
    {
        "s1": "C ### What is 12 tiles ? ### 8",
        "s2": "Category: C. Question: What is 12 tiles ? Given Answer: 8",
        "s3": "S ### C ### What is 12 tiles ? ### 8",
        "s4": "Subject: S ### Construct: C ### Question: What is 12 tiles ? ### Student Answer: 8",
        "topic": "S. C.",
    }.items(),
)
def test_queries_by_hand(form, query):
    example = dict(construct="C", subject="S", text="What is ![12 tiles]() ?", right="4", wrong="8")
    assert query_of(example, form) == query
    assert query_of(example, "s3", True) == "s ### c ### what is ![ tiles]() ? ###"


def test_the_published_clean_up_by_hand():
    assert seed_clean("A  12.5 @you '7 x..,, http://a") == "a . x.,"
