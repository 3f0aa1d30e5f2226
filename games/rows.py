"""Rows of the user's data, for every game: a file, a folder or a Hub data set, read one row at a time.

    for where, row in read_rows("battles.csv", rows="0:1000", columns=("prompt", "winner")): ...

`where` is the place of a row, such as "battles.csv, line 12", for what a game has to say about it. Read
read_rows first, then which files a name stands for (find_files, choose_files, hub_files), then the
formats."""

import csv
import difflib
import fnmatch
import glob
import gzip
import itertools
import json
import os
import re
import zlib
from pathlib import Path, PurePosixPath

from terminal import UsageError

SPLITS = {word: "train" for word in ("train", "training")}
SPLITS |= {word: "valid" for word in ("valid", "validation", "val", "dev")}
SPLITS |= {word: "test" for word in ("test", "testing", "eval", "evaluation")}
NOT_DATA = re.compile(r"^/|(^|/)\.|(^|/)(dataset_infos?|state)\.json$")  # hidden, outside, about the data
BATCH = 1000  # Parquet rows in memory as Python objects


def read_rows(source, rows="", columns=(), split="train"):
    """Yield (where, dict) of each row of `source`: a .jsonl, .json, .csv, .tsv (all also .gz) or .parquet
    file, a folder of such files, or a Hub data set, owner/name; FOLDER:PART and owner/name:PART take a file,
    a folder or a pattern of it. CSV cells are strings; JSON and Parquet keep their types.

    rows: a slice a:b over all files, counted from 0, without b; what is before it is not parsed (Parquet: by
    row groups), what is behind it not read (nor downloaded). columns: what the header, or the first row of
    JSON, must have. split: train, valid or test, picked by file name where the source is no single file.
    Every fault of the data is a ValueError or FileNotFoundError with file and line, one in `rows` a
    UsageError."""
    start, stop = slice_ends(rows)
    seen = 0
    for shown, path in find_files(str(source), split):
        unchecked = columns
        for where, row in READERS[ending(path.name)](path, shown, start - seen):
            if seen >= start:
                check_columns(where, unchecked, row)
                unchecked = ()
                yield where, row
            seen += 1
            if seen == stop:
                return
    if rows and seen <= start:
        raise UsageError(f"--rows {rows}: selects nothing, {source} has {seen:,} rows")


def slice_ends(rows):
    """The two ends of a slice written a:b; the second is None where it is absent."""
    match = re.fullmatch(r"([0-9]*):([0-9]*)", rows or ":")
    if not match:
        raise UsageError(f"--rows {rows}: must be a slice such as 0:1000, :1000 or 1000:")
    start = int(match[1] or 0)
    stop = int(match[2]) if match[2] else None
    if stop is not None and stop <= start:
        raise UsageError(f"--rows {rows}: selects nothing, the first end must be below the second")
    return start, stop


def check_columns(where, columns, row):
    for name in columns:
        if name not in row:
            close = difflib.get_close_matches(name, map(str, row), 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where}: no column {name!r} (there are: {', '.join(map(repr, row))}){hint}")


# ------------------------------------------------------------------------------------------------ which files
def ending(name):
    """The ending that says how a file is read, a key of READERS, or None."""
    *_, first, last = ["", "", *PurePosixPath(name.lower()).suffixes]
    zipped = last == ".gz" and first != ".parquet"  # which is compressed inside
    found = first if zipped else last
    return found if found in READERS else None


def names_in(folder):
    return [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]


def find_files(source, split):
    """Yield (how to name it, Path) of each file that a source stands for; a folder on this machine first."""
    path = Path(source)
    if path.is_file():
        if not ending(path.name):
            raise ValueError(f"{source}: not a file of rows, which ends in one of {', '.join(READERS)}")
        yield source, path
        return
    name, _, part = (source, "", "") if path.is_dir() else source.partition(":")
    if Path(name).is_dir():
        for file in choose_files(names_in(name), source, part, split):
            yield str(Path(name, file)), Path(name, file)
    elif name.startswith((".", "/", "~")) or name.count("/") != 1 or ending(name):
        raise FileNotFoundError(f"{source}: no such file or folder (a Hub data set has the form owner/name)")
    else:
        yield from hub_files(name, source, part, split)


def split_of(name):
    """The split that a path such as data/train-00000-of-00002.parquet names, or None."""
    words = [word for word in re.findall("[a-z0-9]+", name.lower()) if word in SPLITS]
    return SPLITS[words[-1]] if words else None


def choose_files(names, source, part, split):
    """Those of a folder's files that hold the split, sorted; files that name no split are train. A part that
    is a file or a pattern is taken as it is. Only files of the folder can match, so no name leads out."""
    data = [name for name in sorted(names) if ending(name) and not NOT_DATA.search(name)]
    chosen = [name for name in data if name == part or fnmatch.fnmatchcase(name, part)]
    if not chosen:
        inside = [name for name in data if not part or name.startswith(part.rstrip("/") + "/")]
        chosen = [name for name in inside if split_of(name) == split]
        if not chosen and split == "train":
            chosen = [name for name in inside if not split_of(name)]
        folders = sorted({PurePosixPath(name).parent.as_posix() for name in chosen})
        if len(folders) > 1:
            base = source.removesuffix(f":{part}")
            raise ValueError(f"{source}: in several folders ({', '.join(folders)}); take one: {base}:FOLDER")
    if not chosen:
        there = ", ".join(sorted(names)[:10]) or "nothing"
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        under = f" under {part}" if part else ""
        what = f"no {', '.join(READERS)} files{under} of the split {split}"
        raise FileNotFoundError(f"{source}: {what}; it has: {there}{more}")
    if len({ending(name) for name in chosen}) > 1:
        raise ValueError(f"{source}: files of several kinds ({', '.join(chosen[:10])}); name one")
    return chosen


def hub_files(name, source, part, split):
    """Like find_files, for a Hub data set: each file is downloaded when its turn comes."""
    from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, HTTPError, LocalEntryNotFoundError

    def fetch(patterns):
        try:
            return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
        except LocalEntryNotFoundError as error:
            why = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
            where = "not a local file or folder, not (or not whole) in the Hub cache"
            raise FileNotFoundError(f"{source}: {where}, and the Hub cannot be reached{why}") from error
        except HTTPError as error:
            raise FileNotFoundError(f"{source}: the Hub refused it or broke off: {error}") from error

    try:
        names = HfApi().list_repo_files(name, repo_type="dataset")
    except (HTTPError, OSError):  # out of reach: what an earlier download knows, or fetch says why not
        try:
            names = [file.path for file in get_cached_repo_tree(name, repo_type="dataset")]
        except CachedRepoTreeNotFoundError:
            names = names_in(fetch([]))  # what is there
    chosen = choose_files(names, source, part, split)
    if ending(chosen[0]) == ".parquet":
        pyarrow_for(source)  # say so before the download
    for file in chosen:
        yield f"{name}:{file}", fetch([glob.escape(file)]) / file


# ------------------------------------------------------------------------------------------------ formats
# A reader yields (where, row) of each row of a file; the first `skip` are only counted, not parsed.
def lines(path, shown):
    """Yield (line number, text) of a text file, gzipped or not."""
    number = 0
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text (byte {error.start + 1} of the line: {error.reason})"
        raise ValueError(f"{shown}, line {number}: {what}; save it as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = f"damaged or cut off ({error}); download or copy it again"
        raise ValueError(f"{shown}, after line {number}: {what}") from error


def parsed(text, shown, line=1):
    """The value of JSON text that begins in this line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{shown}, line {line + error.lineno - 1}"
        raise ValueError(f"{where}: not valid JSON ({error.msg}, column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, lists in lists in lists
        raise ValueError(f"{shown}, line {line}: JSON beyond all bounds ({error})") from error


def json_rows(path, shown, skip):
    """JSON lines; a .json file may also be one list of objects, which is read as a whole."""

    def filled():
        return ((number, text.strip()) for number, text in lines(path, shown) if text.strip())

    rows, word = filled(), "line"
    whole = ending(path.name) == ".json" and next(filled(), (1, ""))[1].startswith("[")
    if whole:
        text = "".join(text for _, text in lines(path, shown))
        rows, word = enumerate(parsed(text, shown), 1), "row"
    for i, (number, row) in enumerate(rows):
        where = f"{shown}, {word} {number}"
        if i >= skip:
            row = row if whole else parsed(row, shown, number)
            if not isinstance(row, dict):
                raise ValueError(f"{where}: expected an object, found {type(row).__name__}")
        yield where, row


def csv_rows(path, shown, skip):
    """CSV, or TSV by its ending, with a header; the line of a row is the one in which it begins."""
    csv.field_size_limit(2**31 - 1)  # Python's own limit is 128 KB a cell
    delimiter = "\t" if ending(path.name) == ".tsv" else ","
    reader = csv.reader((text for _, text in lines(path, shown)), delimiter=delimiter, strict=True)
    header, line, seen = None, 1, 0
    try:
        for cells in reader:
            where = f"{shown}, line {line}"
            line = reader.line_num + 1
            if cells and header is None:
                header = cells
                for name in header:
                    if header.count(name) > 1:
                        raise ValueError(f"{where}: the column {name!r} stands twice in the header")
            elif cells:  # not an empty line
                seen += 1
                if seen > skip and len(cells) != len(header):
                    raise ValueError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
                yield where, dict(zip(header, cells))
    except csv.Error as error:
        what = f"the row that begins here is not CSV ({error})"
        raise ValueError(f"{shown}, line {line}: {what}; a quote inside a quoted cell is doubled") from error


def pyarrow_for(shown):
    """The module pyarrow, for a file of this name."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"{shown}: Parquet files need pyarrow: pip install pyarrow") from error
    return pyarrow


def parquet_rows(path, shown, skip):
    """Parquet, some rows at a time, however large a row group is; groups before the first row wanted are not
    read."""
    pyarrow = pyarrow_for(shown)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if number + size <= skip:
                    yield from itertools.repeat((shown, None), size)
                    number += size
                    continue
                for batch in file.iter_batches(BATCH, row_groups=[group]):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{shown}, row {number}", row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown}, after row {number}: not readable as Parquet ({error})") from error


READERS = {
    ".jsonl": json_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
