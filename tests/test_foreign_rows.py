"""Data files of other people: whatever they hold, they are read or end in an error that names file and place.

READERS has one row of every form that a game reads. Each of its values is replaced by values of other kinds:
the row is then read, dropped by a reason, or a ValueError, and what was read can be written as JSON. WRONG
lists what must be an error. The rest is about files: empty, cut off, too large, no files at all."""

import copy
import gzip
import json
import os
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from files import json_lines
from games import rows
from games.arc import files as arc_files
from games.arc.task import Arc
from games.arc.task import Options as ArcOptions
from games.arena.files import read_battles
from games.eedi import files as eedi_files
from games.reasoning.task import Options as ReasoningOptions
from games.reasoning.task import Reasoning
from games.reasoning.traces import read_traces
from games.rows import conversation, read_rows
from games.task import Chat, Pair
from games.twentyq import kaggle, terminal
from games.twentyq.contest.alpha import read_words
from games.twentyq.figures import answer_accuracy
from games.twentyq.task import Options, TwentyQuestions
from games.twentyq.world import read_keywords, world_of
from pictures import pyplot
from terminal import UsageError

pytestmark = [
    pytest.mark.slow,  # half a minute: every field of every kind of row
    pytest.mark.usefixtures("at_most_20_seconds"),
]

NAN, INFINITY, HUGE = float("nan"), float("inf"), 10**400
ODD = [
    *(None, 5, -1, 0, 2.5, NAN, INFINITY, HUGE, True, False),
    *("", "x", "\x1b[2J", "\0", "\ud800", "a\nb", "\u0663", "y" * 5000),
    *([], [None], ["x"], [[]], [[1]], ["\ud800"], {}, {"a": 1}, {"\ud800": 1}),
]
NO_TEXT = [5, -1, 2.5, NAN, True, [], ["x"], {}, {"a": 1}]
NO_TEXTS = [5, True, "x", {}, [5], [None], [["x"]]]
NO_FLAG = [5, 1, "true", [], {}, NAN]
NO_LIST = [5, True, "x", {}, {"a": 1}]
GONE = object()  # the field is missing
TINY = """[questions]
alive Is it alive?
flies Can it fly?
[keywords]
oak : alive
eagle : alive flies
kite : flies
"""
PAIR = {"input": [[1, 2]], "output": [[2, 1]]}
TASK = {"train": [PAIR, PAIR], "test": [PAIR]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "world.txt"
    path.write_text(TINY)
    return str(path)


# ------------------------------------------------------------------------------------------------ readers
# Each calls a reader on a path and returns what it read, with all lessons of it. `tiny` is a small world.
def lessons(task, examples):
    rng = np.random.default_rng(0)
    return [vars(item) for example in examples for item in task.items(example, rng)]


def read_games(path, tiny, kind=Chat):
    task = TwentyQuestions(Options(world=tiny, data=path, lost=True), kind=kind)
    return task.games, lessons(task, task.games)


def replay(path, tiny):
    shown = []
    terminal.replay(TwentyQuestions(Options(world=tiny)), read_rows(path), None, shown.append)
    return shown


def read_world(path, tiny):
    world = world_of(path)
    TwentyQuestions(Options(world=path)).teacher.after([(world.questions[0], "yes")])
    return [sorted(world.kinds.items()), world.questions, world.chance.tolist()]


def read_eedi(path, tiny):
    labels, examples = eedi_files.read(path)
    return labels, examples, [eedi_files.query_of(example, "full") for example in examples]


def read_reasoning(path, tiny):
    task = Reasoning(ReasoningOptions(data=path, unsafe_exec=True))
    return [task.examples("train"), lessons(task, task.examples("train")), task.dropped]


def read_programs(path, tiny):
    """What the programs of a file teach to write, and what their outputs teach."""
    read = []
    for version in ("code", "output-from-examples-v1"):
        task = Arc(ArcOptions(data=path, prompt_version=version))
        try:
            read.append(lessons(task, task.examples("train")))
        except UsageError as error:  # from a single pair nobody learns to give the output for a test
            assert "no version learns from a row" in str(error)
    return read, task.trained_on()


def read_grids(path, tiny):
    task = Arc(ArcOptions(data=path, prompt_version="output-from-examples-v1"))
    return lessons(task, task.examples("train"))


# name -> (row i, reader)
READERS = {
    "20q": (
        lambda i: {
            "keyword": ("oak", "eagle")[i % 2],
            "rounds": [["Is it alive?", "yes", "oak"], ["Can it fly?", "no", "kite"]],
            **{
                "won": True,
                "cut": False,
                "strategy": "play",
                "flipped": [False, True],
                "wandered": [False] * 2,
            },
        },
        read_games,
    ),
    "20q-replay": (lambda i: {"keyword": "oak", "rounds": [["Is it alive?", "yes"]], "won": True}, replay),
    "20q-comparisons": (
        lambda i: {
            "keyword": "oak",
            "turns": [["Is it alive?", "yes"]],
            **{"asks": "question", "chosen": "Can it fly?", "rejected": "no"},
        },
        lambda path, tiny: read_games(path, tiny, Pair),
    ),
    "20q-world": (
        lambda i: {
            "keyword": f"word {i}",
            "answers": {"Is it?": [1, 0], f"Is it {i}?": [0.5, 3]},
            "category": "c",
        },
        read_world,
    ),
    "20q-keywords": (
        lambda i: {
            "keyword": "oak",
            "alts": ["a", "b"],
            "alternates": "c, d",
            "category": "c",
            "difficulty": "d",
        },
        lambda path, tiny: read_keywords(path),
    ),
    "20q-categories": (
        lambda i: {"category": "place", "words": [{"keyword": "oak", "alts": ["x"]}, {"keyword": "elm"}]},
        lambda path, tiny: read_keywords(path),
    ),
    "arena": (
        lambda i: {
            **{"id": i, "prompt": f"p {i}", "response_a": ["yes"], "response_b": "no", "winner": "a"},
            **{"model_a": "m", "model_b": "n", "source": "s"},
        },
        lambda path, tiny: list(read_battles(path, "", Counter())),
    ),
    "arena-shares": (
        lambda i: {"prompt": "p", "response_a": "a", "response_b": "b", "p_a": 0.2, "p_b": 0.3, "p_tie": 0.5},
        lambda path, tiny: list(read_battles(path, "", Counter())),
    ),
    "arena-kaggle": (
        lambda i: {
            **{"id": i, "prompt": '["p", null]', "response_a": '["a", "b"]', "response_b": '["c", "d"]'},
            **{"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
        },
        lambda path, tiny: list(read_battles(path, "", Counter())),
    ),
    "eedi": (
        lambda i: {
            **{"query": f"q {i}", "pos": ["a", "b"], "neg": ["c"], "candidates": ["c", "a"], "id": i},
            **{"split": "train", "subject": "s"},
        },
        read_eedi,
    ),
    "eedi-items": (
        lambda i: {
            **{"Question": "1/2 + 1/3?", "Incorrect Answer": "2/5", "Correct Answer": "5/6"},
            **{"Misconception": "adds", "Topic": "t", "Misconception ID": "M1", "Example Number": i},
        },
        read_eedi,
    ),
    "reasoning": (
        lambda i: {"question": f"q {i}", "reasoning": "1 + 1 = 2.", "answer": "2", "kind": "number"},
        read_reasoning,
    ),
    "reasoning-think": (
        lambda i: {"prompt": f"q {i}", "response": "<think>a</think>b"},
        read_reasoning,
    ),
    "reasoning-code": (
        lambda i: {
            **{"text": f"Add {i}.", "code": "def f(x): return x", "test_setup_code": ""},
            "test_list": ["assert f(1) == 2", "assert f((1,)) == {(1, 2): 3}"],
        },
        read_reasoning,
    ),
    "reasoning-judged": (
        lambda i: {"question": f"q {i}", "reply": "a", "good": True},
        lambda path, tiny: list(read_traces(path, "", Counter())),
    ),
    "arc-programs": (
        lambda i: {
            **{"id": f"t{i // 2}", "source": f"return grid  # {i}", "verdict": "wrong", "right": 1},
            "views": [[PAIR, PAIR], None, [PAIR, {"input": [[1, 2]], "output": [[i]]}]],
        },
        read_programs,
    ),
    "arc-wrong": (lambda i: {"id": f"t{i}", "task": TASK, "wrong": [[[3, 3]], [[4]]]}, read_grids),
    "prompts": (
        lambda i: {"messages": [{"role": "user", "content": "a"}], "more": [1]},
        lambda path, tiny: [conversation(where, row) for where, row in read_rows(path)],
    ),
}
# reader -> {place of a field in the row: values that are an error}
WRONG = {
    "20q": {
        "keyword": [None, GONE, *NO_TEXT],
        "rounds": [
            None,
            GONE,
            *NO_LIST,
            [None],
            [[]],
            [["Is it?"]],
            [["Is it?", True]],
            [["Is it?", "yes", 5]],
        ],
        "won": NO_FLAG,
        "cut": NO_FLAG,
        "strategy": NO_TEXT,
        "flipped": [*NO_LIST, [True], [1, 0], [None, None]],
        "wandered": [*NO_LIST, [1]],
    },
    "20q-replay": {"rounds": [None, GONE, *NO_LIST, [["Is it alive?", "perhaps"]]]},
    "20q-comparisons": {
        **dict.fromkeys(("keyword", "chosen", "rejected"), [None, *NO_TEXT]),
        "asks": [None, GONE, "answer", ["question"], 5],
        "turns": [None, GONE, *NO_LIST, [["Is it?"]], [[1, 2]]],
    },
    "20q-world": {
        "keyword": [None, GONE, *NO_TEXT],
        "answers": [None, GONE, 5, "x", [], [1]],
        "answers.Is it?": [
            None,
            5,
            [],
            [1],
            [0, 0],
            [-1, 2],
            [NAN, 1],
            [1, NAN],
            [INFINITY, 1],
            [HUGE, 0.5],
            ["a", 1],
        ],
    },
    "20q-keywords": {
        "keyword": [None, GONE, "", "?!", *NO_TEXT],
        "alts": [5, True, {"a": 1}, [5], [None], [["x"]]],
        "alternates": [5, True, {"a": 1}, [5], [None], [["x"]]],
    },
    "20q-categories": {
        "words": [5, True, "x", {"a": 1}, [5], [None], [[]], [{}]],
        "words.0.keyword": [None, "", *NO_TEXT],
        "words.1.alts": [5, [None]],
    },
    "arena": {
        **dict.fromkeys(("prompt", "response_a", "response_b"), [5, True, {}, [], [5], [["x"]], ["a", "b"]]),
        "winner": [None, GONE, "", "c", 5, ["a"], {}],
        **dict.fromkeys(("model_a", "model_b", "source"), NO_TEXT),
    },
    "arena-shares": dict.fromkeys(
        ("p_a", "p_b", "p_tie"), [None, "", "x", 5, -1, NAN, INFINITY, HUGE, [], {}]
    ),
    "arena-kaggle": {
        **dict.fromkeys(
            ("prompt", "response_a"), [5, "x", "{}", "[", "[1]", '["a"]', "[" * 100_000, "[" + "1" * 5000]
        ),
        **dict.fromkeys(("winner_model_a", "winner_tie"), [None, "x", 5, 0.5, NAN, HUGE, []]),
    },
    "eedi": {
        "query": [None, *NO_TEXT],
        "pos": [None, GONE, [], *NO_TEXTS],
        "neg": NO_TEXTS,
        "candidates": NO_TEXTS,
        "split": ["valid", "", 5, [], {}],
        "subject": NO_TEXT,
    },
    "eedi-items": dict.fromkeys(("Question", "Incorrect Answer", "Misconception"), [None, GONE, *NO_TEXT])
    | {"Topic": NO_TEXT},
    "reasoning": {
        **dict.fromkeys(("question", "reasoning"), [None, *NO_TEXT]),
        "answer": [None, *(value for value in NO_TEXT if type(value) not in (int, float))],
        "kind": ["code", 5, [], {}],
    },
    "reasoning-code": {"text": [None, *NO_TEXT], "test_list": [None, 5, "x", {}]},
    "reasoning-judged": {"good": [None, *NO_FLAG], "reply": [None, *NO_TEXT]},
    "arc-programs": {
        "id": [None, *NO_TEXT],
        "source": [None, *NO_TEXT],
        "right": [None, GONE, -1, 0.5, "1", True, [], NAN],
        "views": [None, GONE, *NO_LIST, [], [[]], [5], [[PAIR], "x"]],
        "views.0.0": [None, 5, [], {}, {"input": [[1]]}, {**PAIR, "more": [[1]]}],
        "views.0.0.output": [None, GONE, [], [[]], [[10]], [[True]], [[1], [1, 2]], "x"],
    },
    "arc-wrong": {
        "task": [None, GONE, 5, [], {}, {"train": [PAIR]}, {"train": [], "test": [PAIR]}],
        "task.test.0.output": [None, GONE, [], 5],
        "wrong": [None, GONE, [], 5, {}, [[]], [[[10]]]],
    },
    "prompts": {
        "messages": [None, GONE, [], *NO_LIST, [None], [[]]],
        "messages.0.content": [None, GONE, *NO_TEXT],
        "messages.0.role": [None, GONE, "tool", "", "assistant", 5, []],
    },
}


def put(row, at, value):
    """A copy of the row with another value at a place, keys with dots between them."""
    row = copy.deepcopy(row)
    *path, last = [int(key) if key.isdigit() else key for key in at.split(".")]
    inside = row
    for key in path:
        inside = inside[key]
    if value is GONE:
        del inside[last]
    else:
        inside[last] = value
    return row


def places_of(value, prefix=""):
    """Every place in a value, as `put` takes it; of a list only the first item and those in it."""
    inside = value if isinstance(value, dict) else {}
    if isinstance(value, list) and value:
        inside = {0: value[0]}
    for key, item in inside.items():
        yield f"{prefix}{key}"
        yield from places_of(item, f"{prefix}{key}.")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def with_second(name, row):
    """The four good rows of a reader, with this one as the second."""
    good = READERS[name][0]
    return [good(0), row, good(2), good(3)]


# ------------------------------------------------------------------------------------------------ values
@pytest.mark.parametrize("name", READERS)
def test_whatever_a_row_holds_it_is_read_or_an_error_that_names_its_line(tmp_path, tiny, name):
    good, read = READERS[name]
    path = tmp_path / "rows.jsonl"
    assert read(write(path, with_second(name, good(1))), tiny)
    outcomes = Counter()
    for at in places_of(good(1)):
        for value in [*ODD, GONE]:
            write(path, with_second(name, put(good(1), at, value)))
            try:
                json_lines([read(str(path), tiny)]).encode()
                outcomes["read"] += 1
            except ValueError as error:
                assert str(error).startswith(f"{path}, line "), (at, value, error)
                outcomes["refused"] += 1
    assert len(outcomes) == 2


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_a_wrong_kind_is_an_error_that_names_its_line(tmp_path, tiny, name):
    good, read = READERS[name]
    path = tmp_path / "rows.jsonl"
    for at, values in WRONG[name].items():
        for value in values:
            write(path, with_second(name, put(good(1), at, value)))
            try:
                read(str(path), tiny)
                said = "no error"
            except ValueError as error:
                said = str(error)
            assert said.startswith(f"{path}, line 2"), (at, value, said)


def test_code_whose_tests_cannot_be_run_is_dropped_by_its_reason(tmp_path):
    row = READERS["reasoning-code"][0](0)
    for value in [*ODD, "assert f(b'') == 1", "assert f(x) == 1"]:
        changed = [put(row, "test_list.0", value)]
        changed += [row | {"test_setup_code": value}] if value else []
        dropped = Counter()
        assert list(read_traces(write(tmp_path / "a.jsonl", changed), "", dropped)) == []
        assert dropped == {"tests that are not calls of a function with plain values": len(changed)}, value


@pytest.mark.parametrize("cell", ["", "x", "-", "1.5", "nan", "inf", "1" * 5000, "\u0663", "1e3", "[]"])
@pytest.mark.parametrize("column", ["QuestionId", "MisconceptionAId"])
def test_a_cell_that_is_no_whole_number_is_an_error_that_names_its_line(tmp_path, column, cell):
    columns = eedi_files.COLUMNS + eedi_files.LABEL_COLUMNS
    row = dict.fromkeys(columns, "0") | {"CorrectAnswer": "B", column: cell}
    (tmp_path / "misconception_mapping.csv").write_text("MisconceptionId,MisconceptionName\n0,a\n")
    (tmp_path / "train.csv").write_text(f"{','.join(columns)}\n{','.join(row.values())}\n")
    if (column, cell) == ("MisconceptionAId", ""):  # an answer without a label
        assert len(eedi_files.read(tmp_path)[1]) == 2
        return
    with pytest.raises(ValueError, match=f"train.csv, line 2: {column}"):
        eedi_files.read(tmp_path)


def test_half_a_character_becomes_a_question_mark_where_rows_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        r'{"a": "\ud83d", "\uD83D": ["\udc00x", "\ud83d\ude00", "\\ud83d"], "n": 1e400}'
    )
    ((_, row),) = read_rows(tmp_path / "a.jsonl")
    assert row == {"a": "?", "?": ["?x", "\U0001f600", "\\ud83d"], "n": INFINITY}
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps({"\ud800": TASK}))
    assert [*arc_files.read_tasks(tasks, "test")] == ["?"]


def test_whatever_a_file_of_tasks_or_predictions_holds_the_error_names_it(tmp_path):
    tasks = {"t1": TASK, "t2": TASK}
    predicted = {key: [{"attempt_1": [[1]], "attempt_2": []}] for key in tasks}
    path = tmp_path / "a.json"
    for good, read in (
        (tasks, lambda: arc_files.read_tasks(path, "test")),
        (predicted, lambda: arc_files.read_predictions(path, tasks)),
    ):
        for at in places_of(good):
            for value in ODD:
                path.write_text(json.dumps(put(good, at, value)))
                try:
                    read()
                except ValueError as error:
                    assert str(error).startswith(str(path)), (at, value)


def test_rows_of_one_task_and_different_kinds_teach_beside_each_other(tmp_path):
    """Wrong grids, a program that ran on fewer views, and one for a task of the same name."""
    program = READERS["arc-programs"][0]
    few = program(1) | {"id": "t0", "views": [[PAIR, PAIR]]}
    other = program(2) | {"id": "t0", "views": [[PAIR, PAIR, PAIR]] * 3}
    path = write(tmp_path / "a.jsonl", [program(0), few, other, {"id": "t0", "task": TASK, "wrong": [[[3]]]}])
    for version in (
        "output-from-examples-v1",
        "code,output-from-examples-v1",
        "refine,output-from-examples-v1",
    ):
        task = Arc(ArcOptions(data=path, prompt_version=version))
        for seed in range(20):
            rng = np.random.default_rng(seed)
            assert all(task.items(example, rng) for example in task.examples("train"))


@pytest.mark.parametrize(
    "text", ["[keywords]\noak\nelm\n", "[questions]\nbig Is it big?\n[keywords]\noak : big\n"]
)
def test_a_world_in_which_little_can_be_asked(tmp_path, text):
    (tmp_path / "w.txt").write_text(text)
    task = TwentyQuestions(Options(world=str(tmp_path / "w.txt")))
    agent = SimpleNamespace(choose=lambda prompts, choices: [[0.0, -1.0]] * len(prompts))
    assert answer_accuracy(task.world, agent, 10, 0) == ({}, {})
    if not task.world.questions:
        with pytest.raises(ValueError, match="w.txt"):
            lessons(task, task.examples("train"))


# ------------------------------------------------------------------------------------------------ files
FLAGS = {  # flag -> (name of a file, reader)
    "--data of 20q": ("a.jsonl", read_games),
    "--data of arc": ("a.json", lambda path, tiny: arc_files.read_tasks(path, "test")),
    "--data of arc, rows": ("a.jsonl", read_programs),
    "--data of arena": ("a.csv", READERS["arena"][1]),
    "--data of eedi": ("a.jsonl.gz", read_eedi),
    "--data of reasoning": ("a.json", READERS["reasoning-judged"][1]),
    "--predictions": ("a.json", lambda path, tiny: arc_files.read_predictions(path, {"t": TASK})),
    "--pool": ("a.jsonl", lambda path, tiny: eedi_files.read_pool("other.jsonl", path)),
    "--world": ("a.txt", lambda path, tiny: world_of(path)),
    "--world, recorded answers": ("a.jsonl", lambda path, tiny: world_of(path)),
    "--keywords": ("a.txt", lambda path, tiny: read_keywords(path)),
    "--keywords, rows": ("a.csv", lambda path, tiny: read_keywords(path)),
    "--alpha-words": ("a.txt", lambda path, tiny: read_words(path)),
    "--prompts": ("a.tsv", READERS["prompts"][1]),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_no_file_or_an_empty_one_is_an_error_at_once_that_names_it(tmp_path, tiny, flag):
    name, read = FLAGS[flag]
    pack = gzip.compress if name.endswith(".gz") else bytes
    paths = {what: tmp_path / f"{what}-{name}" for what in ("pipe", "folder", "device", "loop", "missing")}
    os.mkfifo(paths["pipe"])
    paths["folder"].mkdir()
    paths["device"].symlink_to("/dev/zero")
    paths["loop"].symlink_to(paths["loop"])
    bare = {"empty": b"", "blank": b"\n \r\n\n", "mark": b"\xef\xbb\xbf", "marked": b"\xef\xbb\xbf\n"}
    if "csv" in name or "tsv" in name:
        bare["header"] = b"prompt,response_a,response_b,winner\n".replace(
            b",", b"," if "csv" in name else b"\t"
        )
    for what, content in bare.items():
        paths[what] = tmp_path / f"{what}-{name}"
        paths[what].write_bytes(pack(content))
    for what, path in paths.items():
        with pytest.raises((ValueError, OSError)) as caught:
            read(str(path), tiny)
        said = str(caught.value)
        assert str(path) in said, what
        assert "damaged" not in said and (what != "missing" or "no such file" in said)


def test_a_cut_file_and_one_of_another_kind_say_so(tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 100)
    for name, content, said in (
        ("cut.jsonl.gz", whole[:-9], "damaged or cut off"),
        ("half.jsonl.gz", whole[:5], "damaged or cut off"),
        ("plain.jsonl.gz", b'{"a": 1}\n', "damaged or cut off"),
        ("cut.jsonl", b'{"a": 1}\n{"a": ', "line 2: not valid JSON"),
        ("cut.json", b'[{"a": 1},\n{"a": ', "line 2: not valid JSON"),
        ("cut.csv", b'a,b\n1,"2', "line 2: .*not CSV"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.*{said}"):
            list(read_rows(tmp_path / name))


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.jsonl.gz", b'{"a": 1}\n' + b" " * 5000),
        ("a.jsonl.gz", b'{"a": 1}\n' + b"0" * 5000),
        ("a.csv.gz", b'a,b\n1,"' + b"x" * 5000),
        ("a.csv.gz", b'a,b\n1,"' + b"x\n" * 5000),  # one cell that never ends
        ("a.tsv.gz", b'a\tb\n1\t"' + b'x\n"\t"' * 5000),  # one row that never ends
        ("a.json.gz", b"[" + b"0," * 5000),
        ("a.json.gz", b"[\n" + b'{"a": 1},\n' * 500 + b'{"a": 1}]'),
    ],
)
def test_a_line_a_row_or_a_list_without_end_is_an_error_before_it_fills_the_memory(
    tmp_path, monkeypatch, name, content
):
    monkeypatch.setattr(rows, "LARGEST", 1000)
    monkeypatch.setattr(rows, "LARGEST_LIST", 2000)
    read = []
    opened = gzip.open

    def spy(*arguments):
        file = opened(*arguments)
        readline = file.readline
        file.readline = lambda size: read.append(readline(size)) or read[-1]
        return file

    monkeypatch.setattr(gzip, "open", spy)
    (tmp_path / name).write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=name):
        list(read_rows(tmp_path / name))
    assert sum(map(len, read)) < 5000


def test_a_header_of_many_columns_is_compared_with_itself_in_time(tmp_path):
    names = [f"c{i}" for i in range(100_000)]
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n")
    ((_, row),) = read_rows(tmp_path / "a.csv")
    assert [*row] == names


@pytest.mark.parametrize("flag", ["alpha_words", "belief", "world"])
def test_a_pipe_is_not_packed(tmp_path, flag):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match="pipe.txt"):
        kaggle.pack(tmp_path / "out.tar.gz", tmp_path, Options(**{flag: str(tmp_path / "pipe.txt")}), "", {})
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.txt"]


# ------------------------------------------------------------------------------------------------ pictures
REPLY = {"test": None, "answers": [[[2, 1]]], "logp": -1.0, "tokens": 9}
ARC = {"task": "arc", "n": 1, "curve": {"1": 0.5}, "records": [{"id": "a", **TASK, "replies": [REPLY]}]}
TOURNAMENT = {
    "task": "20q",
    "n": 4,
    "records": [{}],
    "tournament": [
        {"agent": "a", "n": 2, **dict.fromkeys(("rating", "guesser", "answerer"), [1.0, 0.5, 1.5])}
    ],
}
UNDRAWN = {  # what is no picture -> where
    "arc": (
        ARC,
        {
            "task": [5, "other", [], {}],
            "n": ["x", -1, 0.5, [], HUGE],
            "curve": [None, GONE, 5, "x", [1], {"x": 1}],
            "curve.1": ["x", [], {}],
            "records": [None, GONE, [], 5, {}, [5], [{}]],
            "records.0.replies": [None, GONE, 5, [5], [{}]],
            "records.0.replies.0.tokens": [None, GONE, "x", [], {}],
            "records.0.train.0.input": [5, "x", [[1], [1, 2]], [["a"]]],
            "records.0.test.0": [None, 5, [], {}],
        },
    ),
    "tournament": (
        TOURNAMENT,
        {
            "tournament": [None, 5, [5], [{}]],
            "tournament.0.rating": [None, GONE, 5, [], ["x", 1, 2], [HUGE, 1, 2], [[1], 1, 2]],
            "tournament.0.n": ["x", [], None],
        },
    ),
}


@pytest.fixture
def plots(monkeypatch):
    """plots.main, without the time that a file takes."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    import plots

    monkeypatch.setattr(figure, "savefig", lambda figure, out, dpi: out.write_bytes(b""))
    monkeypatch.setattr(figure, "tight_layout", lambda figure: None)
    yield plots.main
    pyplot().close("all")


@pytest.mark.parametrize("name, at", [(name, at) for name, (_, wrong) in UNDRAWN.items() for at in wrong])
def test_a_report_with_a_value_of_a_wrong_kind_is_one_line_that_names_it(tmp_path, plots, capsys, name, at):
    report, wrong = UNDRAWN[name]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    assert plots([str(path)]) == 0
    for value in wrong[at]:
        path.write_text(json.dumps(put(report, at, value)))
        capsys.readouterr()
        assert plots([str(path)]) == 1, value
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("plots.py")]
        assert len(lines) == 1 and str(path) in lines[0], value


def test_a_run_with_a_value_that_cannot_be_drawn_is_named(tmp_path, plots, capsys):
    report = {"metrics": {"score": 0.5}, "intervals": {"score": [0.1, 0.9]}, "baselines": {}}
    groups = {"kind": {"a": {"n": 30, "score": 0.5, "interval": [0.1, 0.9]}}}
    files = {
        "metrics.jsonl": [{"step": 1, "loss": HUGE}, {"step": "1"}, {"step": 1, "eval": 5}, {"loss": 1.0}],
        "eval.json": [
            report | {"metrics": {"score": HUGE}},
            report | {"metrics": None},
            report | {"groups": 5},
        ]
        + [report | {"groups": put(groups, "kind.a.n", value)} for value in (None, "x", [])],
    }
    for name, contents in files.items():
        for content in contents:
            write(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}])
            (tmp_path / "eval.json").write_text(json.dumps(report | {"groups": groups}))
            (tmp_path / name).write_text(json.dumps(content) + "\n")
            assert plots([str(tmp_path), "--out", str(tmp_path / "runs.png")]) == 1, content
            assert str(tmp_path) in capsys.readouterr().err


def test_a_picture_replaces_no_pipe_or_device_and_needs_files(tmp_path, plots, capsys):
    report = tmp_path / "report.json"
    report.write_text(json.dumps(TOURNAMENT))
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.json")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "null.png").symlink_to(os.devnull)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for call, named in (
        ([report, "--out", tmp_path / "pipe.png"], "pipe.png"),
        ([report, "--out", tmp_path / "null.png"], "null.png"),
        ([report, "--out", tmp_path], tmp_path.name),
        ([report, "--out", report / "a.png"], "a.png"),
        ([tmp_path / "pipe.json"], "pipe.json"),
        ([tmp_path / "pipe.csv"], "pipe.csv"),
        ([tmp_path / "loop"], "loop"),
        ([tmp_path / "nothing"], "nothing"),
        ([tmp_path / "nothing.csv"], "nothing.csv"),
    ):
        assert plots([*map(str, call)]) == 1
        assert named in capsys.readouterr().err
    assert not os.path.isfile(tmp_path / "pipe.png") and os.path.islink(tmp_path / "null.png")
