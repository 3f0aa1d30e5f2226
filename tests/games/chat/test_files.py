"""Rows of the user's: every form is read, and what cannot be used is counted or refused with its place."""

import csv
import json
from collections import Counter

import pytest

from games.chat.files import form_at, read_chats

USER = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello"}
OTHER = {"role": "assistant", "content": "What?"}
SYSTEM = {"role": "system", "content": "Be kind."}
CHAT = [USER, REPLY]
OTHER_TURNS = "with other turns than a prompt and a reply"
KIND = {"messages": [SYSTEM, *CHAT], "prompt": [SYSTEM, USER], "completion": "Hello"}
READ = {"messages": CHAT, "prompt": [USER], "completion": "Hello"}
PAIR = {"prompt": [USER], "chosen": "Hello", "rejected": "What?"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read_all(path, dropped, drop=False):
    _, form = form_at(str(path))
    return list(read_chats(str(path), "", "train", form, dropped, drop_refused=drop))


@pytest.fixture
def read(tmp_path):
    """Read rows that stand in a file of JSON lines. Returns the examples; the counts are in read.dropped."""

    def read(*rows, drop=False):
        read.dropped = Counter()
        path = write(tmp_path / "rows.jsonl", rows)
        return read_all(path, read.dropped, drop)

    return read


@pytest.mark.parametrize(
    "row, example",
    [
        ({"messages": CHAT}, READ),
        ({"messages": [SYSTEM, *CHAT]}, KIND),
        (
            {"messages": [{"role": "developer", "content": "Be kind."}, *CHAT]},
            KIND,
        ),
        (
            {"messages": CHAT, "system": "Be kind."},
            KIND,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, REPLY]},
            READ,
        ),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            READ,
        ),
        ({"conversations": CHAT}, READ),
        ({"prompt": "Hi", "completion": "Hello"}, {"prompt": [USER], "completion": "Hello"}),
        (
            {"prompt": [SYSTEM, USER], "completion": [REPLY]},
            {"prompt": [SYSTEM, USER], "completion": "Hello"},
        ),
        ({"prompt": "Hi", "completion": "Hello", "label": None}, {"prompt": [USER], "completion": "Hello"}),
        (
            {"prompt": "Hi", "completion": "Hello", "label": False},
            {"prompt": [USER], "completion": "Hello", "label": False},
        ),
        ({"text": "One two"}, {"text": "One two"}),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}, PAIR),
        ({"prompt": [USER], "chosen": [REPLY], "rejected": [OTHER]}, PAIR),
        ({"chosen": [USER, REPLY], "rejected": [USER, OTHER]}, PAIR),
        ({"prompt": "Hi", "chosen": [USER, REPLY], "rejected": [USER, OTHER]}, PAIR),
        ({"prompt": "Hi", "chosen": [USER, REPLY], "rejected": [USER, OTHER], "messages": CHAT}, PAIR),
        ({"prompt": "Hi"}, {"prompt": [USER]}),
    ],
)
def test_every_form_becomes_the_same_example_and_is_read_again(read, row, example):
    (found,) = read(row)
    assert found == example and not read.dropped
    assert read(found) == [found]  # as infer.py rows writes it


def test_a_shared_beginning_may_have_several_turns(read):
    shared = [SYSTEM, USER, REPLY, {"role": "user", "content": "And?"}]
    (found,) = read({"chosen": [*shared, REPLY], "rejected": [*shared, OTHER]})
    assert found == {"prompt": shared, "chosen": "Hello", "rejected": "What?"}


def test_other_columns_are_kept_for_rewards(read):
    (found,) = read({"prompt": "Hi", "answer": 4, "input": "x", "none": None})
    assert found == {"prompt": [USER], "answer": 4, "input": "x"}


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"messages": [USER]}, "without a prompt and a reply to it"),
        ({"messages": [REPLY, USER, REPLY]}, "without a prompt and a reply to it"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "with an empty text or reply"),
        ({"prompt": "Hi", "completion": ""}, "with an empty text or reply"),
        ({"prompt": "Hi", "completion": [REPLY, USER, REPLY]}, OTHER_TURNS),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"}, "with the same reply chosen and rejected"),
        (
            {"chosen": [USER, REPLY], "rejected": [SYSTEM, OTHER]},
            OTHER_TURNS,
        ),
        ({"text": "\n"}, "with an empty text or reply"),
    ],
)
def test_rows_that_teach_nothing_are_counted_by_reason(read, row, reason):
    assert read(row) == [] and read.dropped == {reason: 1}


@pytest.mark.parametrize(
    "row, what",
    [
        (
            {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
            "tool_calls",
        ),
        ({"messages": [USER, {"role": "tool", "content": "4"}, REPLY]}, "tools"),
        ({"messages": CHAT, "tools": [{"name": "f"}]}, "tools"),
        ({"conversations": [{"from": "observation", "value": "4"}, REPLY]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, REPLY]}, "image_url"),
        ({"prompt": "Hi", "completion": "Hello", "images": ["a.png"]}, "images"),
        ({"messages": [USER, REPLY, SYSTEM, USER, REPLY]}, "a system message that is not the first"),
        ({"messages": [USER, REPLY | {"reasoning_content": "Hm."}]}, "reasoning_content"),
        ({"prompt": CHAT, "completion": "More"}, "ends with the user's"),
    ],
)
def test_what_is_not_supported_is_refused_by_name_or_dropped_if_the_user_says_so(read, row, what):
    with pytest.raises(ValueError, match=f"rows.jsonl, line 1.*{what}.*--on-bad-row drop"):
        read(row)
    assert read(row, drop=True) == []
    assert [what in reason for reason in read.dropped] == [True]


@pytest.mark.parametrize(
    "row, what",
    [
        ({"question": "Hi", "answer": "Hello"}, "'question', 'answer' match none"),
        ({"messages": []}, "messages must be"),
        ({"messages": ["Hi"]}, "message 1: expected an object"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "message 1: the role 'wizard'"),
        ({"messages": [{"role": "user", "content": 3}]}, "message 1: content is 3"),
        ({"messages": [{"role": "user"}]}, "message 1: content is missing"),
        ({"prompt": "Hi", "completion": 4}, "completion must be a text"),
        ({"prompt": "Hi", "completion": "Hello", "label": "maybe"}, "label is 'maybe'"),
        ({"text": 3}, "text is 3"),
        ({"messages": "[{"}, "not valid JSON"),
    ],
)
def test_what_is_no_chat_is_an_error_with_its_place(read, row, what):
    with pytest.raises(ValueError, match=f"rows.jsonl, line 1.*{what}"):
        read(row, drop=True)


def test_forms_that_are_mixed_are_an_error_with_its_place(read):
    with pytest.raises(ValueError, match="line 2: prompt, completion, where rows before have messages"):
        read({"messages": CHAT}, {"prompt": "Hi", "completion": "Hello"})


def test_cells_of_a_csv_file_are_read_as_what_they_stand_for(tmp_path):
    for name, cells in (
        ("label", {"prompt": "Hi", "completion": "Hello", "label": "True"}),
        ("chat", {"messages": json.dumps(CHAT)}),
    ):
        path = tmp_path / f"{name}.csv"
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, cells)
            writer.writeheader()
            writer.writerow(cells)
        (found,) = read_all(path, Counter())
        assert found in (READ, {"prompt": [USER], "completion": "Hello", "label": True})


def test_parquet_is_read_as_json_is(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"messages": [CHAT, CHAT], "tools": [None, None]}), path)
    assert list(read_all(path, Counter())) == [READ] * 2
