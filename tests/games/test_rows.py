"""Reading the user's rows: formats, slices, columns, folders, a stub of the Hub, the place in an error."""

import csv
import datetime
import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects

from games.rows import read_rows
from terminal import UsageError

ROWS = [{"n": i, "text": f"row {i}"} for i in range(10)]
KINDS = [f"a.{kind}{end}" for kind in ("jsonl", "json", "csv", "tsv") for end in ("", ".gz")] + ["a.parquet"]


def write(path, rows, group=4):
    """Write rows in the format of the file name; a .json file is one list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=group)
        return path
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps(row) + "\n" for row in rows)
        elif name.endswith(".json"):
            json.dump(rows, file)
        else:
            writer = csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writerows([list(rows[0]), *(row.values() for row in rows)])
    return path


def numbers(*args, **options):
    return [int(row["n"]) for _, row in read_rows(*args, **options)]


def put(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# ------------------------------------------------------------------------------------------------ formats
@pytest.mark.parametrize("name", KINDS)
def test_every_format_gives_the_rows_that_were_written_with_file_and_line(tmp_path, name):
    path = write(tmp_path / name, ROWS)
    places, rows = zip(*read_rows(str(path)))
    texts = [{key: str(value) for key, value in row.items()} for row in ROWS]  # CSV cells are text
    assert [*rows] == (texts if name.startswith(("a.csv", "a.tsv")) else ROWS)
    first = {"csv": "line 2", "tsv": "line 2", "jsonl": "line 1"}.get(name.split(".")[1], "row 1")
    assert places[0] == f"{path}, {first}"


@pytest.mark.parametrize(
    "name, text, rows",
    [
        (
            "a.jsonl",  # empty lines count as lines, not as rows
            '\ufeff{"a": [1, 2.5, null, {"b": true}]}\n\n  \n{"a": "ä"}',
            {1: {"a": [1, 2.5, None, {"b": True}]}, 4: {"a": "ä"}},
        ),
        ("a.json", '{"n": 1}\n{"n": 2}\n', {1: {"n": 1}, 2: {"n": 2}}),
        (
            "a.csv",  # a row may span lines; its first line is its place
            '\ufeffn,x\r\n1,"a\r\nb ""c"", d"\r\n\r\n2,\r\n3,"x\n\ny"\n4,z\n',
            {2: 'a\r\nb "c", d', 5: "", 6: "x\n\ny", 9: "z"},
        ),
        ("a.csv", f"n,x\n1,{'x' * 200_000}\n", {2: "x" * 200_000}),  # longer than Python allows by default
    ],
)
def test_rows_of_texts_keep_their_types_and_lines(tmp_path, name, text, rows):
    path = put(tmp_path / name, text)
    if name == "a.csv":
        rows = {line: {"n": str(i), "x": cell} for i, (line, cell) in enumerate(rows.items(), 1)}
    assert list(read_rows(path)) == [(f"{path}, line {line}", row) for line, row in rows.items()]


def test_parquet_keeps_its_types(tmp_path):
    rows = [{"list": [["a", "b"], []], "day": datetime.date(2024, 2, 29), "none": None, "x": {"y": 1}}]
    assert [row for _, row in read_rows(write(tmp_path / "a.parquet", rows))] == rows


@pytest.mark.parametrize("rows", ["", "3:", "4:", "2501:2503"])
def test_parquet_is_read_in_batches_and_its_rows_keep_their_numbers(tmp_path, rows):
    path = write(tmp_path / "a.parquet", [{"n": i} for i in range(2600)], group=2000)
    start, _, stop = rows.partition(":")
    expected = range(int(start or 0), int(stop or 2600))
    found = [(where, row["n"]) for where, row in read_rows(path, rows)]
    assert found == [(f"{path}, row {i + 1}", i) for i in expected]


def test_row_groups_outside_the_slice_are_not_read(tmp_path):
    """The bytes of the other groups are overwritten, so reading them would fail."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = write(tmp_path / "a.parquet", ROWS, group=3)
    groups = [parquet.ParquetFile(path).metadata.row_group(i) for i in range(4)]
    starts = [group.column(0).dictionary_page_offset or group.column(0).data_page_offset for group in groups]
    data = bytearray(path.read_bytes())
    data[starts[0] : starts[1]] = b"\xff" * (starts[1] - starts[0])
    data[starts[2] : starts[3]] = b"\xff" * (starts[3] - starts[2])
    path.write_bytes(data)
    assert numbers(path, "3:6") == [3, 4, 5]
    with pytest.raises(ValueError, match=r"a\.parquet, after row 6: not readable as Parquet"):
        numbers(path, "3:7")


def test_parquet_that_cannot_be_read_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    path = put(tmp_path / "a.parquet", "no Parquet")
    if importlib.util.find_spec("pyarrow"):
        with pytest.raises(ValueError, match=r"a\.parquet, after row 0: not readable as Parquet"):
            next(read_rows(path))
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"a\.parquet: .*pip install pyarrow"):
        next(read_rows(path))


# ------------------------------------------------------------------------------------------------ broken data
@pytest.mark.parametrize(
    "name, text, place, what",
    [
        ("a.jsonl", '{"n": 1}\n{"n": 2, "te\n', "line 2", "not valid JSON .*column 10"),
        ("a.jsonl", '{"n": 1}\n[1, 2]\n', "line 2", r"expected an object, found \[1, 2\]"),
        (
            "a.jsonl",
            b'{"n": 1}\n{"n": 2}\n{"n": "\xe4"}\n',
            "line 3",
            "not UTF-8 text .byte 8 .*as UTF-8",
        ),
        ("a.jsonl", '{"n": 1}\n{"n": ' + "[" * 100_000 + "\n", "line 2", "JSON"),
        ("a.jsonl", '{"n": 1}\n{"n": ' + "1" * 5000 + "}\n", "line 2", "JSON"),
        ("a.json", '[\n{"n": 1},\n{"n": 2\n]', "line 4", "not valid JSON"),
        ("a.json", b'[\n{"n": 1},\n{"n": "\xff"}]', "line 3", "not UTF-8"),
        ("a.csv", "n,text\n1,a\n2\n", "line 3", "1 cells, but the header has 2"),
        ("a.csv", 'n,text\n1,"a\nb"\n2,a,b\n', "line 4", "3 cells, but the header has 2"),
        ("a.csv", 'n,text\n1,a\n2,"a\n3,c\n', "line 3", "begins here .*quote"),
        ("a.csv", 'n,text\n1,a\n2,"a"b\n', "line 3", "begins here .*quote"),
        ("a.csv", b'n,text\n1,"a\n\xff"\n', "line 3", "not UTF-8"),
        ("a.csv", "n,text,n\n1,a,2\n", "line 1", "'n' stands twice"),
        ("a.tsv", "n\ttext\n1\ta\tb\n", "line 2", "3 cells, but the header has 2"),
        ("a.json", '[{"n": 1},\n\n 5]', "row 2", "expected an object, found 5"),
    ],
)
def test_broken_data_is_an_error_that_names_file_and_line(tmp_path, name, text, place, what):
    path = put(tmp_path / name, text)
    with pytest.raises(ValueError, match=what) as error:
        list(read_rows(path))
    assert str(error.value).startswith(f"{path}, {place}: ")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.json.gz"])
@pytest.mark.parametrize("harm", ["cut off", "block", "checksum", "no gzip"])
def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path, name, harm):
    plain = write(tmp_path / name.removesuffix(".gz"), ROWS * 50).read_bytes()
    data = bytearray(gzip.compress(plain))
    if harm == "block":
        data[10] = 0xFF  # the first byte after the header, now an unknown kind of block
    elif harm == "checksum":
        data[-5] ^= 1
    path = put(tmp_path / name, {"cut off": data[:-20], "no gzip": b"text"}.get(harm, data))
    with pytest.raises(ValueError, match="damaged or cut off.*download or copy it again") as error:
        list(read_rows(path))
    assert str(error.value).startswith(f"{path}, after line ")


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a.parquet.gz", "jsonl"])
def test_a_file_of_another_kind_is_an_error_that_lists_the_kinds(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: .*\.jsonl.*\.csv.*\.parquet"):
        next(read_rows(put(tmp_path / name, '{"n": 1}')))


@pytest.mark.parametrize(
    "source", ["nowhere", "nowhere.jsonl", "data/games.jsonl", "./nowhere", "~/nowhere", "/nowhere", "a/b/c"]
)
def test_what_is_neither_a_path_nor_a_name_of_the_hub_is_not_looked_for_there(monkeypatch, source):
    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    with pytest.raises(FileNotFoundError, match=f"{source}: no such file or folder .*owner/name"):
        next(read_rows(source))


# ------------------------------------------------------------------------------------------------ slices
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("rows", ["2:5", ":3", "7:", "0:100", ":", "9:10", ""])
def test_a_slice_is_half_open_and_counts_over_all_files(tmp_path, name, rows):
    for i, part in enumerate((ROWS[:4], ROWS[4:5], ROWS[5:])):
        write(tmp_path / "data" / f"{i}-{name}", part)
    start, _, stop = rows.partition(":")
    assert numbers(tmp_path / "data", rows) == list(range(10))[int(start or 0) : int(stop or 10)]
    with pytest.raises(UsageError, match="^--rows 10:20: selects nothing, .*data has 10 rows"):
        numbers(tmp_path / "data", "10:20")


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.jsonl", 'no JSON\n{"n": 1}\nno JSON\n'),
        ("a.csv", "n\n1,2,3,4,5\n1\n1,2,3\n"),
        ("a.json", '[5, {"n": 1}, 5]'),
    ],
)
def test_rows_outside_the_slice_are_not_parsed(tmp_path, name, text):
    path = put(tmp_path / name, text)
    put(tmp_path / name.replace("a", "b", 1), b"\xff\xff")
    assert numbers(tmp_path, "1:2") == [1]
    for rows in ("", "1:"):
        with pytest.raises(ValueError, match=str(path)):
            numbers(tmp_path, rows)


@pytest.mark.parametrize("rows", ["5", "a:b", "1:2:3", "-3:", "0:1e3", "1,000:", " 1:2", "5:5", "7:3", "0:0"])
def test_a_slice_that_is_none_is_an_error_of_the_flag(tmp_path, rows):
    with pytest.raises(UsageError, match=f"^--rows {rows}: "):
        numbers(write(tmp_path / "a.jsonl", ROWS), rows)


# ------------------------------------------------------------------------------------------------ columns
@pytest.mark.parametrize("name", KINDS)
def test_a_column_that_is_missing_is_named_with_those_there_and_the_nearest(tmp_path, name):
    path = write(tmp_path / name, [{"promt": "a", "n": 1}])
    assert len(list(read_rows(path, columns=("n", "promt")))) == 1
    with pytest.raises(ValueError, match="no column 'prompt' .there are: 'promt', 'n'.*mean 'pro") as error:
        next(read_rows(path, columns=("n", "prompt")))
    assert str(error.value).startswith(str(path))


def test_every_file_must_have_the_columns_in_its_first_row(tmp_path):
    write(tmp_path / "a.jsonl", [{"n": 1, "hint": "x"}, {"n": 2}])
    assert numbers(tmp_path, columns=("n", "hint")) == [1, 2]
    write(tmp_path / "b.jsonl", [{"m": 1}])
    with pytest.raises(ValueError, match=r"b\.jsonl, line 1: no column 'n'"):
        numbers(tmp_path, columns=("n",))


# ------------------------------------------------------------------------------------------------ folders
def folder_of(root, names):
    """Make files with one row each, which holds the index of the file in `names`. Returns the folder."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, json.dumps({"n": i}) if ".json" in name else f"n\n{i}\n" if ".csv" in name else "text")
    return root


@pytest.mark.parametrize(
    "names, split, expected",
    [
        (["b.jsonl", "a.jsonl", "README.md", ".a.jsonl", ".cache/c.jsonl"], "train", [1, 0]),
        (["train.jsonl", "test.jsonl", "other.jsonl"], "train", [0]),
        (["train.jsonl", "test.jsonl"], "test", [1]),
        (["train.jsonl", "validation.jsonl"], "valid", [1]),
        (["train.jsonl", "dev.jsonl"], "valid", [1]),
        (
            ["data/train-1-of-2.jsonl", "data/train-0-of-2.jsonl", "data/test-0.jsonl"],
            "train",
            [1, 0],
        ),
        (["gsm8k_train.jsonl", "gsm8k_test.jsonl"], "test", [1]),
        (["train/a.jsonl", "test/a.jsonl"], "test", [1]),
        (["train/dev.jsonl", "train/b.jsonl"], "train", [1]),
        (["train.csv", "test.csv", "sample_submission.csv", "notes.jsonl"], "train", [0]),
        (["rows.jsonl", "test.jsonl"], "train", [0]),
        (["latest.jsonl", "training_notes.jsonl"], "train", [1]),
        (["a.json", "dataset_infos.json", "dataset_info.json", "state.json"], "train", [0]),
        (["a.jsonl", "b.jsonl.gz.txt"], "train", [0]),
    ],
)
def test_a_folder_gives_the_files_of_the_split_sorted_by_name(tmp_path, names, split, expected):
    assert numbers(folder_of(tmp_path, names), split=split) == expected


@pytest.mark.parametrize(
    "part, expected",
    [
        ("main", [0]),
        ("main/", [0]),
        ("main/train.jsonl", [0]),
        ("main/test.jsonl", [1]),
        ("*/train.jsonl", [0, 3, 2]),
        ("main/*", [1, 0]),
    ],
)
def test_a_part_of_a_folder_can_be_named(tmp_path, part, expected):
    folder_of(tmp_path, ["main/train.jsonl", "main/test.jsonl", "other/train.jsonl", "mainly/train.jsonl"])
    assert numbers(f"{tmp_path}:{part}") == expected
    assert numbers(tmp_path / "main/test.jsonl", split="train") == [1]  # whatever its name says


@pytest.mark.parametrize(
    "names, split, part, what",
    [
        (["a.txt", "b.md"], "train", "", r"no .*\.jsonl.* of the split train; it has: a\.txt, b\.md$"),
        ([], "train", "", "it has: nothing"),
        ([f"{i:02}.txt" for i in range(14)], "train", "", r"00\.txt, .*09\.txt and 4 more$"),
        (["train.jsonl"], "test", "", r"split test; it has: train\.jsonl"),
        (["a.jsonl"], "valid", "", r"split valid; it has: a\.jsonl"),
        (["a.jsonl", "b.csv"], "train", "", r"several kinds .a\.jsonl, b\.csv"),
        (["en/train.jsonl", "fr/train.jsonl"], "train", "", "several folders .en, fr.*:FOLDER"),
        (["a.jsonl"], "train", ":b.jsonl", r"under b\.jsonl .*it has: a\.jsonl"),
    ],
)
def test_a_folder_that_leaves_it_open_what_to_read_is_an_error(tmp_path, names, split, part, what):
    with pytest.raises((ValueError, FileNotFoundError), match=what) as error:
        numbers(f"{folder_of(tmp_path, names)}{part}", split=split)
    assert str(error.value).startswith(f"{tmp_path}{part}: ")


@pytest.mark.parametrize("part", ["../secret.jsonl", "../*", "..", "/secret.jsonl", "link/secret.jsonl", "*"])
def test_no_name_leads_out_of_a_folder(tmp_path, part):
    folder_of(tmp_path, ["secret.jsonl", "data/README.md", "elsewhere/secret.jsonl"])
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="README.md"):
        numbers(f"{tmp_path / 'data'}:{part}")


# ------------------------------------------------------------------------------------------------ the Hub
@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with one data set, owner/set: its folder, the downloaded patterns, and whether it answers."""
    cache = tmp_path / "cache"
    hub = SimpleNamespace(root=tmp_path / "hub", cache=cache, calls=[], online=True)

    def names():
        return [path.relative_to(hub.root).as_posix() for path in hub.root.rglob("*") if path.is_file()]

    class HfApi:
        def list_repo_files(self, name, repo_type):
            assert (name, repo_type) == ("owner/set", "dataset")
            if not hub.online:
                raise OfflineModeIsEnabled
            return names()

    def snapshot_download(name, repo_type, allow_patterns):
        assert (name, repo_type) == ("owner/set", "dataset")
        hub.calls.append(allow_patterns)
        for file in filter_repo_objects(names(), allow_patterns=allow_patterns):
            (cache / file).parent.mkdir(parents=True, exist_ok=True)
            (cache / file).write_bytes((hub.root / file).read_bytes())
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return hub


SHARDS = [f"data/train-0000{i}-of-00003.jsonl" for i in range(3)]


def test_a_data_set_of_the_hub_gives_its_split_and_names_its_files(hub):
    folder_of(hub.root, [*SHARDS, "data/test-00000-of-00001.jsonl", "README.md", "set.py"])
    assert list(read_rows("owner/set")) == [(f"owner/set:{SHARDS[i]}, line 1", {"n": i}) for i in range(3)]
    assert numbers("owner/set", split="test") == [3]
    assert hub.calls == [[name] for name in [*SHARDS, "data/test-00000-of-00001.jsonl"]]  # and nothing else
    hub.calls.clear()
    assert numbers("owner/set", "0:2") == [0, 1]
    assert hub.calls == [[SHARDS[0]], [SHARDS[1]]]  # nothing after the slice


def test_a_file_of_a_data_set_can_be_named(hub):
    folder_of(hub.root, ["main/train.jsonl", "other/train.jsonl", "other/test[1].jsonl"])
    assert numbers("owner/set:other") == numbers("owner/set:other/train.jsonl") == [1]
    assert numbers("owner/set:other/test[1].jsonl") == [2]
    with pytest.raises(ValueError, match="owner/set: in several folders .main, other.*owner/set:FOLDER"):
        numbers("owner/set")


def test_a_listing_cannot_lead_out_of_its_folder(hub, monkeypatch):
    names = ["../../x.jsonl", "/x.jsonl", "a/../../x.jsonl", "README.md"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name, repo_type: names)
    for source in ("owner/set", *(f"owner/set:{name}" for name in names), "owner/set:*"):
        with pytest.raises(FileNotFoundError, match="owner/set.*: no .*it has: "):
            next(read_rows(source))


def test_pyarrow_is_asked_for_before_the_download(hub, monkeypatch):
    folder_of(hub.root, ["train.parquet"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="owner/set: .*pip install pyarrow"):
        next(read_rows("owner/set"))
    assert hub.calls == []


def test_a_folder_goes_before_a_data_set_of_its_name(hub, tmp_path, monkeypatch):
    folder_of(hub.root, ["a.jsonl"])
    folder_of(tmp_path, ["x", "owner/set/b.jsonl"])
    monkeypatch.chdir(tmp_path)
    assert numbers("owner/set") == [1] and hub.calls == []


@pytest.mark.parametrize("listed", [True, False])
def test_without_network_the_cache_is_read(hub, monkeypatch, listed):
    """With the listing of an earlier download, or else with the files that lie there."""
    folder_of(hub.root, [*SHARDS, "data/test-00000-of-00001.jsonl"])
    hub.online = False
    if listed:
        files = [SimpleNamespace(path=name) for name in SHARDS]
        monkeypatch.setattr(huggingface_hub, "get_cached_repo_tree", lambda name, repo_type: files)
    else:
        folder_of(hub.cache, SHARDS)
    assert numbers("owner/set") == [0, 1, 2]
    assert hub.calls[-3:] == [[name] for name in SHARDS] and len(hub.calls) == (3 if listed else 4)


def test_a_data_set_without_network_is_an_error_that_says_so():
    with pytest.raises(FileNotFoundError, match="someone/some-set: not a local .*Hub.*HF_HUB_OFFLINE is set"):
        next(read_rows("someone/some-set"))


@pytest.mark.parametrize(
    "error, what",
    [
        (LocalEntryNotFoundError("incomplete"), "not completely.* in the Hub cache, .*Hub cannot be reached"),
        (HfHubHTTPError("403", response=SimpleNamespace(headers={}, request=None)), "the Hub refused it"),
    ],
)
def test_a_download_that_fails_is_an_error_that_names_the_data_set(hub, monkeypatch, error, what):
    def snapshot_download(*args, **options):
        raise error

    folder_of(hub.root, SHARDS)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(FileNotFoundError, match=f"owner/set: .*{what}"):
        next(read_rows("owner/set"))


def test_neither_the_hub_nor_pyarrow_is_imported_before_it_is_needed(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    code = f"""import sys; from games.rows import read_rows; assert list(read_rows({str(path)!r}))
assert not {{'huggingface_hub', 'pyarrow', 'torch'}} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
