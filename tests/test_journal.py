"""Journals: which work goes on with one, what it adds, and what is left alone."""

import json
import os

import pytest

import infer
from journal import Journal

SETTINGS = {"model": "a", "seed": 0, "temperature": 1.5}
ROW = {"row": 0, "text": "x", "settings": SETTINGS}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="UTF-8").splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="UTF-8")
    return path


def fill(path, inputs, size=2, stop=None, settings=SETTINGS):
    """Square each input; the work is killed before the part that begins with `stop`. Returns the parts that
    were computed."""
    parts = []

    def work(start, part, bar):
        if start == stop:
            raise InterruptedError
        parts.append(start)
        for place, value in enumerate(part):
            yield place, {"square": value["x"] ** 2, "with": [other["x"] for other in part]}

    journal = Journal(path, settings)
    try:
        journal.fill(inputs, size, "row", work)
    except InterruptedError:
        pass
    return parts


INPUTS = [{"x": x, "note": "ü"} for x in range(5)]


# ------------------------------------------------------------------------------------------------ the class
@pytest.mark.parametrize("stop", [0, 2, 4])
def test_work_that_was_killed_goes_on_to_the_same_bytes(tmp_path, stop):
    assert fill(tmp_path / "whole.jsonl", INPUTS) == [0, 2, 4]
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "killed.jsonl"
    assert fill(path, INPUTS, stop=stop) == [start for start in (0, 2, 4) if start < stop]
    assert fill(path, INPUTS) == [start for start in (0, 2, 4) if start >= stop]
    assert path.read_bytes() == whole
    assert fill(path, INPUTS) == [] and path.read_bytes() == whole
    assert [row["row"] for row in lines(path)] == list(range(5))


def test_it_goes_on_wherever_its_last_line_was_cut(tmp_path):
    """The rest of a part is computed with the whole part, but the rows that are there stay as they are."""
    fill(tmp_path / "whole.jsonl", INPUTS)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "cut.jsonl"
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        fill(path, INPUTS)
        assert path.read_bytes() == whole


OTHERS = {
    "a changed input": [*INPUTS[:1], {"x": 7, "note": "ü"}, *INPUTS[2:]],
    "a changed field that the work ignores": [*INPUTS[:4], {"x": 4, "note": "u"}],
    "another order": INPUTS[::-1],
    "two swapped": [INPUTS[1], INPUTS[0], *INPUTS[2:]],
    "one at the front": [{"x": 9, "note": ""}, *INPUTS],
    "one in between": [*INPUTS[:3], {"x": 9, "note": ""}, *INPUTS[3:]],
    "the first left out": INPUTS[1:],
    "the last left out": INPUTS[:4],
    "none": [],
    "another type": [{"x": float(x), "note": "ü"} for x in range(5)],
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_journal_belongs_to_its_inputs(tmp_path, what):
    path = tmp_path / "rows.jsonl"
    fill(path, INPUTS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"^{path}: row "):
        fill(path, OTHERS[what])
    assert path.read_bytes() == before


def test_inputs_that_were_added_at_the_end_are_done_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    fill(path, INPUTS[:4])
    before = path.read_bytes()
    assert fill(path, INPUTS) == [4]
    assert path.read_bytes().startswith(before) and [row["square"] for row in lines(path)] == [0, 1, 4, 9, 16]


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"model": "b"}, {"temperature": 1}, {"new": 1}, {"seed": "0"}]
)
def test_a_journal_belongs_to_its_settings(tmp_path, changed):
    path = tmp_path / "rows.jsonl"
    fill(path, INPUTS, stop=2)
    before = path.read_bytes()
    name = next(iter(changed))
    with pytest.raises(ValueError, match=f"^{path}: made with {name} "):
        fill(path, INPUTS, settings={**SETTINGS, **changed})
    assert path.read_bytes() == before


NO_JOURNALS = {
    "a text": b"hello\n",
    "other rows": b'{"prompt": "a"}\n{"prompt": "b"}\n',
    "a list": b'[{"row": 0}]\n',
    "rows after others": b'{"row": 0}\n{"prompt": "b"}\n',
    "an empty line": b'{"row": 0}\n\n',
    "bytes": bytes(range(256)),
    "one long line": b"x" * 100_000,
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("what", NO_JOURNALS)
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, what):
    path = tmp_path / "precious"
    path.write_bytes(NO_JOURNALS[what])
    with pytest.raises(ValueError, match=f"^{path}(: not a journal|, line 1: not UTF-8)"):
        Journal(path, SETTINGS)
    assert path.read_bytes() == NO_JOURNALS[what]


@pytest.mark.parametrize(
    "line, said",
    [
        (b'{"row": null}', "row is missing"),
        (b'{"row": -1}', "row is -1"),
        (b'{"row": true}', "row is True"),
        (b'{"row": 1.0}', "row is 1.0"),
        (b'{"row": [0]}', "row is"),
        (b'{"row": {}}', "row is"),
        (b'{"row": NaN}', "row is nan"),
        (b'{"row": 0, "settings": []}', "settings"),
        (b'{"row": 0, "settings": "model"}', "settings"),
        (b'{"row": 0, "settings": 5}', "settings"),
        (b'{"row": 0, "settings": {"model": "a"', "JSON"),
        (b'{"row": 0}}', "JSON"),
        (b'{"row": ' + b"[" * 100_000, "JSON"),
        (b'{"row": ' + b"7" * 5000 + b"}", "JSON"),
        (b'{"row": 0, "text": "\xff"}', "UTF-8"),
        (b'{"row": 0, "text": "\x00"}', "JSON"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_changed(tmp_path, line, said):
    path = tmp_path / "rows.jsonl"
    content = json.dumps(ROW).encode() + b"\n" + line + b'\n{"row": 5'
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        Journal(path, SETTINGS)
    assert str(error.value).startswith(f"{path}, line 2: ") and said in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 300 and path.read_bytes() == content


@pytest.mark.parametrize("settings", [None, {}, {"model": "a"}, {"model": ["a"], "seed": 0}])
def test_rows_without_our_settings_are_not_gone_on_with(tmp_path, settings):
    path = write(tmp_path / "rows.jsonl", [{"row": 0, "settings": settings}])
    with pytest.raises(ValueError, match=f"^{path}: made with "):
        Journal(path, SETTINGS)


def test_a_journal_writes_nothing_before_it_has_to(tmp_path):
    Journal(tmp_path / "deep" / "rows.jsonl", SETTINGS)
    assert os.listdir(tmp_path) == []
    journal = Journal("", SETTINGS)
    journal.fill([{"x": 1}], 1, "row", lambda start, part, bar: [(0, {"y": 1})])
    assert journal.rows[0]["y"] == 1 and os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------ sample
PROMPTS = [{"prompt": "oak", "id": 1}, {"prompt": "elm", "id": 2}, {"prompt": "oak", "id": 3}]


@pytest.fixture
def asked(base, tmp_path):
    """asked(rows, *flags) replies to rows of prompts and gives the exit code; asked.out is the file."""
    out = tmp_path / "out.jsonl"

    def ask(rows, *more):
        prompts = write(tmp_path / "prompts.jsonl", rows)
        flags = ["--model", str(base), "--max-new", "4", "--threads", "1", "--device", "cpu"]
        return infer.main(["sample", *flags, "--prompts", str(prompts), "--out", str(out), *more])

    ask.out = out
    return ask


def test_rows_keep_their_own_fields_whatever_these_are_called(asked):
    """Ours are the number, the replies, the settings, and what the row was made from."""
    own = {"row": 5, "replies": ["mine"], "settings": {"a": 1}, "input": "mine", "made_from": None, "x": 0}
    rows = [{"prompt": "oak", **own}, {"prompt": "elm"}, {"row": 0, "prompt": "elm"}]
    assert asked(rows) == 0
    found = lines(asked.out)
    assert [row["row"] for row in found] == [0, 1, 2] and [row["prompt"] for row in found] == [
        "oak",
        "elm",
        "elm",
    ]
    del own["x"]
    assert found[0]["input"] == own and found[0]["x"] == 0
    assert "input" not in found[1] and found[2]["input"] == {"row": 0}
    for row in found:
        assert row["settings"]["n"] == 1 and type(row["replies"][0]["logp"]) is float
    before = asked.out.read_bytes()
    assert asked(rows) == 0 and asked.out.read_bytes() == before


def test_what_sample_wrote_may_be_its_prompts(asked, tmp_path):
    assert asked(PROMPTS) == 0
    first = lines(asked.out)
    asked.out.unlink()
    assert asked(first) == 0
    assert [row["input"]["replies"] for row in lines(asked.out)] == [row["replies"] for row in first]
    assert [row["id"] for row in lines(asked.out)] == [1, 2, 3]


def test_a_second_call_adds_nothing(asked, capsys):
    assert asked(PROMPTS) == 0
    before = asked.out.read_bytes()
    capsys.readouterr()
    assert asked(PROMPTS) == 0 and asked.out.read_bytes() == before
    assert "3 rows done before, 0 to do" in capsys.readouterr().out


CHANGED = {
    "a prompt": [PROMPTS[0], {"prompt": "ash", "id": 2}, PROMPTS[2]],
    "another field": [PROMPTS[0], {"prompt": "elm", "id": 7}, PROMPTS[2]],
    "a new field": [PROMPTS[0], {**PROMPTS[1], "more": None}, PROMPTS[2]],
    "the order": [PROMPTS[0], PROMPTS[2], PROMPTS[1]],
    "fewer rows": PROMPTS[:2],
    "another file": [{"prompt": "stone"}] * 5,
    "messages": [{"messages": [{"role": "user", "content": "oak"}], "id": 1}, *PROMPTS[1:]],
}


@pytest.mark.parametrize("what", CHANGED)
def test_replies_to_other_prompts_are_not_taken_for_replies_to_these(asked, capsys, what):
    assert asked(PROMPTS) == 0
    before = asked.out.read_bytes()
    assert asked(CHANGED[what]) == 1
    said = capsys.readouterr().err
    assert str(asked.out) in said and "row" in said and "Traceback" not in said
    assert asked.out.read_bytes() == before


def test_prompts_added_at_the_end_are_replied_to_as_well(asked):
    assert asked(PROMPTS[:2]) == 0
    before = asked.out.read_bytes()
    assert asked(PROMPTS) == 0
    assert asked.out.read_bytes().startswith(before) and [row["id"] for row in lines(asked.out)] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["fifo", "folder", "/dev/null", "/dev/full"])
def test_an_out_that_is_no_file_is_refused_and_not_opened(asked, capsys, kind):
    """Opening a fifo would wait for ever."""
    if kind == "fifo":
        os.mkfifo(asked.out)
    elif kind == "folder":
        asked.out.mkdir()
    else:
        asked.out.symlink_to(kind)
    assert asked(PROMPTS) == 1
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and str(asked.out) in said and ("folder" in said or "pipe or a device" in said)
    )
    assert sorted(os.listdir(asked.out.parent)) == ["out.jsonl", "prompts.jsonl"]


@pytest.mark.parametrize(
    "changed", [["--seed", "1"], ["--max-new", "5"], ["--temperature", "1"], ["--n", "2"]]
)
def test_other_flags_are_refused_by_name(asked, capsys, changed):
    assert asked(PROMPTS) == 0
    before = asked.out.read_bytes()
    more = ["--temperature", "1"] if changed[0] == "--n" else []
    assert asked(PROMPTS, *changed, *more) == 1
    assert asked.out.read_bytes() == before and "made with" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ collect
COLLECT = "--task reasoning --problems 3 --n 2 --temperature 1 --max-new 4 --rewards format:1 --threads 1"


@pytest.fixture
def collected(base, tmp_path):
    """collected(*flags) collects and gives the exit code; collected.part is its journal after a kill."""
    out = tmp_path / "pairs.jsonl"

    def collect(*more):
        flags = [*COLLECT.split(), "--model", str(base), "--device", "cpu", "--out", str(out)]
        return infer.main(["collect", *flags, *more])

    collect.out = out
    collect.part = out.with_name("pairs.jsonl.part")
    return collect


def stop_before_writing(monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(infer, "write_rows", stopped)


def test_records_that_are_kept_belong_to_their_examples_and_flags(collected, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        stop_before_writing(patched)
        assert collected() == 130
    before = collected.part.read_bytes()
    for more in (["--seed", "1"], ["--problems", "2"], ["--level", "2"], ["--rewards", "exact:1"]):
        assert collected(*more) == 1 and str(collected.part) in capsys.readouterr().err
        assert collected.part.read_bytes() == before and not collected.out.exists()
    assert collected() == 0 and os.listdir(collected.out.parent) == ["pairs.jsonl"]


@pytest.mark.parametrize(
    "change", [{"record": None}, {"record": 5}, {"record": []}, {"record": "x"}, "missing"]
)
def test_a_record_of_a_wrong_kind_is_an_error_with_its_file_and_line(collected, monkeypatch, capsys, change):
    with monkeypatch.context() as patched:
        stop_before_writing(patched)
        assert collected() == 130
    first, second, third = lines(collected.part)
    if change == "missing":
        del second["record"]
    else:
        second |= change
    write(collected.part, [first, second, third])
    capsys.readouterr()
    assert collected() == 1
    said = capsys.readouterr().err
    assert f"{collected.part}, line 2: record" in said and "Traceback" not in said


@pytest.mark.parametrize(
    "change",
    [{"text": 5}, {"text": None}, {"finished": "yes"}, {"usage": []}, {"usage": {"prompt_tokens": "3"}}]
    + [{"usage": {"prompt_tokens": -3}}, {"usage": None}],
)
def test_replies_of_an_endpoint_of_a_wrong_kind_are_an_error_with_file_and_line(
    world_file, tmp_path, capsys, change
):
    reply = {"row": "a", "text": "x", "finished": True, "usage": {}, "settings": {}}
    path = write(tmp_path / "games.jsonl.replies.part", [reply, {**reply, **change}])
    flags = ["--world", str(world_file), "--strategy", "cheap", "--teacher", "http://127.0.0.1:9/v1"]
    assert infer.main(["collect", *flags, "--out", str(tmp_path / "games.jsonl")]) == 1
    said = capsys.readouterr().err
    assert f"{path}, line 2: {next(iter(change))}" in said and said.count("\n") == 1


def test_work_that_cannot_begin_leaves_no_file(tmp_path):
    def work(start, part, bar):
        raise ValueError("wrong flags")
        yield

    with pytest.raises(ValueError, match="wrong flags"):
        Journal(tmp_path / "rows.jsonl", SETTINGS).fill(INPUTS, 2, "row", work)
    assert os.listdir(tmp_path) == []
