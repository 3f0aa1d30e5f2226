"""Eedi's files: what is read, what is refused and where, queries, submissions."""

import csv
import json

import pytest

from games.eedi import files as eedi_files
from games.eedi.files import check_submission, query_of, read, seed_clean, submission

LABELS = ["Adds instead of multiplying", "Forgets to halve ", "Rounds\ndown", "Never used"]
ROWS = [  # question, construct, subject, right letter, labels of A to D
    (7, 3, 1, "B", ("2.0", "", "0.0", "")),
    (9, 4, 1, "A", ("", "1.0", "1.0", "0.0")),
]
HEAD = [*eedi_files.COLUMNS, *(f"Misconception{letter}Id" for letter in "ABCD")]


def cells(question, construct, subject, right, labels):
    names = [question, construct, f"construct {construct}", subject, f"subject {subject}", right]
    text = 'Find \\( 2 \\times 3 \\),\nthen "halve" it ![a square, side 3]()'
    return [*names, text, *(f"answer {letter}" for letter in "ABCD"), *labels]


def write(path, head, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.csv", HEAD, [cells(*row) for row in ROWS])
    write(tmp_path / "test.csv", HEAD[:-4], [cells(*row)[:-4] for row in ROWS])
    write(tmp_path / "misconception_mapping.csv", ["MisconceptionId", "MisconceptionName"], enumerate(LABELS))
    return tmp_path


def test_every_labelled_wrong_answer_is_an_example_in_order(folder):
    labels, examples = read(folder)
    assert labels == ["Adds instead of multiplying", "Forgets to halve", "Rounds\ndown", "Never used"]
    assert [(e["id"], e["label"]) for e in examples] == [
        ("7_A", 2),
        ("7_C", 0),
        ("9_B", 1),
        ("9_C", 1),
        ("9_D", 0),
    ]
    first = examples[0]
    assert first["text"].startswith("Find \\( 2") and "\n" in first["text"]
    assert (first["right"], first["wrong"]) == ("answer B", "answer A")
    assert (first["construct"], first["subject_id"]) == ("construct 3", 1)


def test_of_a_file_without_labels_every_wrong_answer_is_an_example(folder):
    _, examples = read(folder, split="test")
    assert [e["id"] for e in examples] == ["7_A", "7_C", "7_D", "9_B", "9_C", "9_D"]
    assert {e["label"] for e in examples} == {None}


@pytest.mark.parametrize(
    "place, value, message",
    [
        (5, "E", "line 2: CorrectAnswer 'E' is none of A, B, C, D"),
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


def test_a_missing_column_and_a_label_twice_are_errors(folder):
    write(folder / "train.csv", [*HEAD[:5], "Correct", *HEAD[6:]], [cells(*row) for row in ROWS])
    with pytest.raises(ValueError, match="no column 'CorrectAnswer'.*did you mean 'Correct'"):
        read(folder)
    names = [(0, "one"), (0, "two")]
    write(folder / "misconception_mapping.csv", ["MisconceptionId", "MisconceptionName"], names)
    with pytest.raises(ValueError, match="line 3: MisconceptionId 0 stands twice"):
        read(folder)


def test_rows_of_flagembedding_and_a_pool(tmp_path):
    path, pool = tmp_path / "mined.jsonl", tmp_path / "mined_pool.jsonl"
    rows = [
        {"query": "q1", "pos": ["b"], "neg": ["a", "c"], "pos_scores": [1.5], "neg_scores": [0.5, -1]},
        {"query": "q2", "pos": ["a", "d"], "neg": [], "id": "x", "split": "test", "candidates": ["d", "a"]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels, (first, second, third) = read(path)
    assert labels == ["b", "a", "c", "d"] and first["label"] == 0 and first["neg"] == [1, 2]
    assert first["scores"] == [1.5, 0.5, -1] and query_of(first, "s1") == "q1"
    assert (
        [second["id"], third["id"]] == ["x", "x+1"] and third["label"] == 3 and third["candidates"] == [3, 1]
    )
    pool.write_text('{"text": "z"}\n{"text": "a"}\n')  # beside the rows: taken without being named
    assert read(path)[0] == ["z", "a", "b", "c", "d"]
    for broken, message in [
        ({"query": "q", "pos": []}, 'a "pos" with one text'),
        ({"query": "q", "pos": "b"}, "'pos' must be a list of texts"),
        ({"query": "q", "pos": ["b"], "pos_scores": []}, "'pos_scores' must have a number for each"),
    ]:
        path.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=f"mined.jsonl, line 1.*{message}"):
            read(path)


def test_items_of_math_misconceptions(tmp_path):
    row = {
        "Question": "1/2 + 1/3?",
        "Incorrect Answer": "2/5",
        "Correct Answer": "5/6",
        "Misconception": "adds tops ",
    }
    path = tmp_path / "items.json"
    path.write_text(
        json.dumps([row | {"Topic": "Fractions", "Misconception ID": "M1", "Example Number": 2}, row])
    )
    labels, examples = read(path)
    assert labels == ["adds tops"] and [e["label"] for e in examples] == [0, 0]
    assert (
        query_of(examples[0], "full")
        == "Fractions. Fractions. 1/2 + 1/3? Right answer: 5/6 Wrong answer: 2/5"
    )


def test_queries_by_hand(folder):
    example = {
        "construct": "C",
        "subject": "S",
        "text": "What is ![12 tiles]() ?",
        "right": "4",
        "wrong": "8",
    }
    assert query_of(example, "s1") == "C ### What is 12 tiles ? ### 8"
    assert query_of(example, "s2") == "Category: C. Question: What is 12 tiles ? Given Answer: 8"
    assert query_of(example, "s3") == "S ### C ### What is 12 tiles ? ### 8"
    assert (
        query_of(example, "s4")
        == "Subject: S ### Construct: C ### Question: What is 12 tiles ? ### Student Answer: 8"
    )
    assert query_of(example, "topic") == "S. C."
    assert query_of(example, "s3", True) == "s ### c ### what is ![ tiles]() ? ###"
    assert seed_clean("A  12.5 @you '7 x..,, http://a") == "a . x.,"


def test_a_submission_is_checked(folder):
    _, examples = read(folder, split="test")
    ids = [10, 11, 12, 13]
    rows = submission(examples, [[1, 0, 3, 2]] * 6, ids)
    assert rows[0] == {"QuestionId_Answer": "7_A", "MisconceptionId": "11 10 13 12"}
    assert check_submission(rows, examples, ids) == rows
    bad = {**rows[1], "MisconceptionId": "11 11 10 13"}
    for wrong, message in [
        (rows[:-1], "row 6: 5 rows for 6 wrong answers"),
        ([rows[1], rows[0], *rows[2:]], "row 1"),
        ([rows[0], bad, *rows[2:]], "row 2: must have 4 different labels"),
        ([rows[0], {**rows[1], "MisconceptionId": "1 2 3 4"}, *rows[2:]], "row 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_submission(wrong, examples, ids)
