"""Rows of the user's data, for every game: from a file, a folder or a Hub data set, one row at a time.

    for where, row in read_rows("battles.csv", rows="0:1000", columns=("prompt", "winner")): ...

`where` is the place of a row, such as "battles.csv, line 12", for the game's own error messages. Read
read_rows first, then how a source becomes files (find_files, choose_files, hub_files), then the formats."""

import csv
import difflib
import fnmatch
import glob
import gzip
import io
import itertools
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from files import LARGEST, TEXT, check_fields, regular
from terminal import UsageError

# word in a file's path -> split
SPLITS = dict(
    train="train",
    training="train",
    valid="valid",
    validation="valid",
    val="valid",
    dev="valid",
    test="test",
    testing="test",
    eval="test",
    evaluation="test",
)
NOT_DATA = re.compile(r"^/|(^|/)\.|(^|/)(dataset_infos?|state)\.json$")  # outside, hidden, or metadata
ROLES = {  # of other tools -> ours
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}
TOOLS = "tool", "function", "function_call", "observation", "ipython"  # roles
# fields of rows and messages that ask for what no chat here can do
# fields of rows and messages that ask for what no chat here can do
UNSUPPORTED = (
    *("tools", "functions", "tool_calls", "function_call", "reasoning_content", "thinking"),
    *("image", "images", "video", "videos", "audio", "audios"),
)
LARGEST_LIST = 1 << 29  # characters
BATCH = 1000  # Parquet rows that are in memory as Python objects at a time


def read_rows(source, rows: str = "", columns=(), split: str = "train") -> Iterator:
    """Yield (where, dict) for each row of `source`: a .jsonl, .json, .csv, .tsv (each also as .gz) or
    .parquet file, a folder of such files, or a Hub data set "owner/name". FOLDER:PART and owner/name:PART
    take one file, one subfolder, or the files that match a pattern. CSV cells are strings; JSON and Parquet
    values keep their types.

    rows: a slice a:b over all files, counted from 0, without b. Rows before it are not parsed (Parquet skips
    whole row groups); rows after it are not read, and their files not downloaded. columns: names that the
    header, or the first JSON row, must have. split: train, valid or test; it picks files by their names when
    the source is more than one file. Bad data raises ValueError or FileNotFoundError with file and line, a
    bad `rows` UsageError."""
    start, stop = slice_ends(rows)
    seen = 0
    for file_name, path in find_files(str(source), split):
        reader = READERS[ending(path.name)]
        unchecked = columns
        for where, row in reader(path, file_name, start - seen):
            if seen >= start:
                check_columns(where, unchecked, row)
                unchecked = ()  # the other rows of this file may have fewer columns
                yield where, row
            seen += 1
            if seen == stop:
                return
    if not seen:
        raise ValueError(f"{source}: holds no rows")
    if rows and seen <= start:
        raise UsageError(f"--rows {rows}: selects nothing, {source} has {seen:,} rows")


def slice_ends(rows):
    """The ends of a slice "a:b" as integers; the second is None if it is missing."""
    match = re.fullmatch(r"([0-9]*):([0-9]*)", rows or ":")
    if not match:
        raise UsageError(f"--rows {rows}: must be a slice such as 0:1000, :1000 or 1000:")
    start = int(match[1] or 0)
    stop = int(match[2]) if match[2] else None
    if stop is not None and stop <= start:
        raise UsageError(f"--rows {rows}: selects nothing, the first end must be below the second")
    return start, stop


def check_columns(where: str, columns, row: dict):
    """Raise ValueError if the row lacks a column, with the most similar name that it has."""
    for name in columns:
        if name not in row:
            close = difflib.get_close_matches(name, map(str, row), 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where}: no column {name!r} (there are: {', '.join(map(repr, row))}){hint}")


# ------------------------------------------------------------------------------------------------ chats
class Refused(ValueError):
    """A row that asks for more than we can do. what: the reason by which such rows are counted."""

    def __init__(self, where, what):
        super().__init__(f"{where}: rows {what} are not supported")
        self.what = what


def refuse(where, part):
    """Raise Refused if a row or a message has a field that asks for more than we can do."""
    for name in UNSUPPORTED:
        if part.get(name) not in (None, "", "[]", [], {}):
            raise Refused(where, f"with {name}")


def read_messages(where: str, row: dict, name: str) -> list:
    """The messages in a column of a row, after the "system" prompt of the row if it has one and they begin
    with the user's. A text is one message, the user's in "prompt", else the assistant's."""
    value = row[name]
    if type(value) is str and name in ("messages", "conversations"):  # a cell of a CSV file
        value = parse_json(value, where)
    if type(value) is str:
        value = [{"role": "user" if name == "prompt" else "assistant", "content": value}]
    if type(value) is not list or not value:
        raise ValueError(f"{where}: {name} must be a text or a list of messages that is not empty")
    messages = [read_message(f"{where}, message {number}", entry) for number, entry in enumerate(value, 1)]
    if row.get("system") and messages[0]["role"] == "user":
        messages.insert(0, read_message(where, {"role": "system", "content": row["system"]}))
    for number, message in enumerate(messages[1:], 2):
        if message["role"] == "system":
            raise Refused(f"{where}, message {number}", "with a system message that is not the first")
    return messages


def read_message(where, entry):
    """A message as {"role", "content"}. Its text may come in parts, [{"type": "text", "text": "Hi"}]."""
    check_fields(where, entry, {})
    refuse(where, entry)
    role = entry.get("role", entry.get("from"))
    if role in TOOLS:
        raise Refused(where, f"with tools (the role {role})")
    if type(role) is not str or role not in ROLES:
        raise ValueError(f"{where}: the role {role!r} is none of {', '.join(ROLES)}")
    content = entry.get("content", entry.get("value"))
    if type(content) is not list or not content:
        check_fields(where, {"content": content}, {"content": TEXT}, ["content"])
        content = [{"type": "text", "text": content}]
    texts = []
    for part in content:
        check_fields(where, part, {"type": TEXT}, ["type"])
        if part["type"] != "text":
            raise Refused(where, f"with parts of the type {part['type']}")
        texts.append(check_fields(where, part, {"text": TEXT}, ["text"])["text"])
    return {"role": ROLES[role], "content": "".join(texts)}


def conversation(where: str, row: dict) -> list:
    """The messages of a row with "messages", or with "prompt". Raises ValueError where they do not end with
    the user's."""
    name = next((name for name in ("messages", "prompt") if row.get(name) is not None), None)
    if not name:
        raise ValueError(f'{where}: a row needs "prompt" or "messages"')
    messages = read_messages(where, row, name)
    if messages[-1]["role"] != "user":
        raise ValueError(f"{where}: the last message is the {messages[-1]['role']}'s, expected the user's")
    return messages


# ------------------------------------------------------------------------------------------------ splits
def hold_out(rows: list, tests: list | None, key, dropped: Counter) -> dict:
    """{split: rows} of --data and --test-data. Without test rows (None) a twentieth of the prompts are for
    testing, chosen by key(row), what rows of one prompt have in common. No test prompt is trained on."""
    chosen = tests
    if tests is None:
        number = lambda row: zlib.crc32(key(row).encode()) % 20
        least = min(map(number, rows), default=0)  # 0, unless there are few rows
        chosen = [row for row in rows if number(row) == least]
    prompts = {*map(key, chosen)}
    train = [row for row in rows if key(row) not in prompts]
    if tests and len(train) < len(rows):
        dropped["with a prompt of the test rows"] = len(rows) - len(train)
    return {"train": train, "valid": chosen, "test": chosen}


# ------------------------------------------------------------------------------------------------ which files
def ending(name):
    """The key of READERS for a file name, or None if we cannot read such files."""
    suffixes = ["", "", *PurePosixPath(name.lower()).suffixes]
    suffix = suffixes[-1]
    # "a.csv.gz" is read as CSV. Parquet compresses inside, so a ".parquet.gz" is nothing that we know.
    if suffix == ".gz" and suffixes[-2] != ".parquet":
        suffix = suffixes[-2]
    return suffix if suffix in READERS else None


def names_in(folder):
    """The paths of all files in a folder, relative to it, with / between their parts."""
    return [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]


def find_files(source, split):
    """Yield (name for messages, Path) for each file of a source. Local files and folders come before Hub data
    sets of the same name."""
    path = Path(source)
    if path.exists() and not path.is_dir():
        regular(path)
        if not ending(path.name):
            raise ValueError(f"{source}: a file of rows must end in one of {', '.join(READERS)}")
        yield source, path
        return

    name = source
    part = ""
    if not path.is_dir():  # a folder's own name may have a colon
        name, _, part = source.partition(":")
    if Path(name).is_dir():
        for file in choose_files(names_in(name), source, part, split):
            yield str(Path(name, file)), Path(name, file)
    elif name.startswith((".", "/", "~")) or name.count("/") != 1 or ending(name):
        raise FileNotFoundError(f"{source}: no such file or folder (a Hub data set has the form owner/name)")
    else:
        yield from hub_files(name, source, part, split)


def split_of(name):
    """The split in a path such as data/train-00000-of-00002.parquet (the last one, if several), or None."""
    words = [word for word in re.findall("[a-z0-9]+", name.lower()) if word in SPLITS]
    return SPLITS[words[-1]] if words else None


def choose_files(names, source, part, split):
    """The sorted names of the files that hold a split. Files whose names have no split count as train. If
    `part` is a file or a pattern, all its matches are taken, whatever their split. A part is only compared
    with `names`, so it cannot lead out of the folder."""
    data = [name for name in sorted(names) if ending(name) and not NOT_DATA.search(name)]
    chosen = [name for name in data if name == part or fnmatch.fnmatchcase(name, part)]
    if not chosen:
        folder = part.rstrip("/") + "/" if part else ""
        below = [name for name in data if name.startswith(folder)]
        chosen = [name for name in below if split_of(name) == split]
        if not chosen and split == "train":
            chosen = [name for name in below if not split_of(name)]
        # Files of several folders are usually several data sets, such as languages: the user must say which.
        folders = sorted({PurePosixPath(name).parent.as_posix() for name in chosen})
        if len(folders) > 1:
            base = source.removesuffix(f":{part}")
            raise ValueError(f"{source}: in several folders ({', '.join(folders)}); take one: {base}:FOLDER")

    if not chosen:
        listed = ", ".join(sorted(names)[:10]) or "nothing"
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        under = f" under {part}" if part else ""
        missing = f"no {', '.join(READERS)} files{under} of the split {split}"
        raise FileNotFoundError(f"{source}: {missing}; it has: {listed}{more}")
    if len({ending(name) for name in chosen}) > 1:
        raise ValueError(f"{source}: files of several kinds ({', '.join(chosen[:10])}); name one")
    return chosen


def hub_files(name, source, part, split):
    """Like find_files, for the Hub data set `name`. A file is downloaded only when its turn comes."""
    from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, HTTPError, LocalEntryNotFoundError

    def fetch(patterns):
        """Download the files that match, or take them from the cache. Returns the data set's folder."""
        try:
            return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
        except LocalEntryNotFoundError as error:
            why = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
            missing = "not a local file or folder, not (or not completely) in the Hub cache"
            raise FileNotFoundError(f"{source}: {missing}, and the Hub cannot be reached{why}") from error
        except HTTPError as error:
            raise FileNotFoundError(f"{source}: the Hub refused it or broke off: {error}") from error

    try:
        names = HfApi().list_repo_files(name, repo_type="dataset")
    except (HTTPError, OSError):
        # The Hub is out of reach. Use the listing of an earlier download, or else the files that are in the
        # cache; if there are none, fetch raises the error that the user sees.
        try:
            names = [file.path for file in get_cached_repo_tree(name, repo_type="dataset")]
        except CachedRepoTreeNotFoundError:
            names = names_in(fetch([]))
    chosen = choose_files(names, source, part, split)
    if ending(chosen[0]) == ".parquet":
        import_pyarrow(source)  # a missing package should be reported before the download, not after it
    for file in chosen:
        yield f"{name}:{file}", fetch([glob.escape(file)]) / file


# ------------------------------------------------------------------------------------------------ formats
# A reader yields (where, row) for each row of a file. It counts the first `skip` rows without parsing them.
# file_name is the file's name in error messages: for the Hub it is not that of the path in the cache.
def lines(path, file_name) -> Iterator:
    """Yield (line number from 1, text) for each line of a text file, gzipped or not."""
    number = 0
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(regular(path), "rb") as file:
            while line := file.readline(LARGEST + 1):  # a small .gz file may hold a line of many gigabytes
                number += 1
                if len(line) > LARGEST:
                    raise ValueError(
                        f"{file_name}, line {number}: longer than {LARGEST >> 20} MB, which no row is"
                    )
                # Excel and others begin a file with a byte order mark, which utf-8-sig drops.
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text (byte {error.start + 1} of the line: {error.reason})"
        raise ValueError(f"{file_name}, line {number}: {what}; save it as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{file_name}, after line {number}: damaged or cut off ({error}); download or copy it again"
        ) from error


def parse_json(text, file_name, line: int = 1):
    """The value of a JSON text whose first line is number `line` of the file. Half of a surrogate pair, which
    UTF-8 cannot hold, becomes a "?"."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # it may escape such a half
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        return value
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file_name}, line {line + error.lineno - 1}: not valid JSON ({error.msg}, column {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, or lists nested 100,000 deep
        raise ValueError(f"{file_name}, line {line}: JSON too large or too deep ({error})") from error


def filled_lines(path, file_name):
    """`lines` without the empty ones, and without the white space around the text."""
    for number, text in lines(path, file_name):
        text = text.strip()
        if text:
            yield number, text


def json_rows(path, file_name, skip):
    """JSON lines. A .json file may also be one list of objects; it is read into memory as a whole."""
    rows = filled_lines(path, file_name)
    word = "line"
    _, start = next(filled_lines(path, file_name), (1, ""))
    if start.startswith("[") and ending(path.name) == ".json":
        text = io.StringIO()
        for _, line in lines(path, file_name):
            text.write(line)
            if text.tell() > LARGEST_LIST:  # it is read as a whole
                raise ValueError(f"{file_name}: a list over {LARGEST_LIST >> 20} MB; save it as JSON lines")
        rows = enumerate(parse_json(text.getvalue(), file_name), 1)
        word = "row"
    for i, (number, row) in enumerate(rows):
        where = f"{file_name}, {word} {number}"
        if i >= skip:
            row = row if word == "row" else parse_json(row, file_name, number)
            check_fields(where, row, {})
        yield where, row


def csv_rows(path, file_name, skip):
    """CSV with a header, or TSV if the name ends so. `where` names the first line of a row, which may have
    several."""
    csv.field_size_limit(LARGEST)  # by default Python refuses cells of more than 128 KB
    delimiter = "\t" if ending(path.name) == ".tsv" else ","
    header = None
    line = 1
    size = 0  # characters of a row so far
    seen = 0

    def texts():
        nonlocal size
        for _, text in lines(path, file_name):
            size += len(text)
            if size > LARGEST:  # a quote that is never closed goes on to the end of the file
                raise csv.Error(f"longer than {LARGEST >> 20} MB")
            yield text

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            where = f"{file_name}, line {line}"
            line = reader.line_num + 1  # where the next row begins
            size = 0
            if not cells:
                continue  # an empty line
            if header is None:
                header = cells
                ((name, count),) = Counter(header).most_common(1)
                if count > 1:
                    raise ValueError(f"{where}: the column {name!r} stands twice in the header")
                continue
            seen += 1
            if seen > skip and len(cells) != len(header):
                raise ValueError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
            yield where, dict(zip(header, cells))
    except csv.Error as error:
        what = f"the row that begins here is not CSV ({error})"
        raise ValueError(f"{file_name}, line {line}: {what}; double a quote inside a quoted cell") from error


def import_pyarrow(file_name):
    """The module pyarrow, or ValueError that says how to install it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"{file_name}: Parquet files need pyarrow: pip install pyarrow") from error
    return pyarrow


def parquet_rows(path, file_name, skip):
    """Parquet, BATCH rows at a time, since a row group may be larger than memory. Row groups that lie
    completely before the slice are not read."""
    pyarrow = import_pyarrow(file_name)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if number + size <= skip:
                    yield from itertools.repeat((file_name, None), size)
                    number += size
                    continue
                for batch in file.iter_batches(BATCH, row_groups=[group]):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{file_name}, row {number}", row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file_name}, after row {number}: not readable as Parquet ({error})") from error


READERS = {
    ".jsonl": json_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
