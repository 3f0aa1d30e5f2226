"""Reading and writing files: whole or not at all, and only where they belong.

`replacing` is the one way in which anything here is written over something that exists: under a temporary
name, flushed to the disk, and renamed. A reader, or a kill, finds the old file or the new one."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Yield a temporary Path for a file or a folder, which takes the place of `path` when the block ends.

    Where the block raises, or the disk is full, the temporary one is removed and `path` stays as it was."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    remove(partial)
    try:
        yield partial
        flush(partial)
        if partial.is_dir():  # os.replace takes the place of an empty folder only
            remove(path)
        os.replace(partial, path)
    except BaseException:
        remove(partial)
        raise


def remove(path):
    """Delete a file, a link or a folder, if it exists."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def flush(path):
    """Force a file, or every file of a folder, onto the disk."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in files:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())


def write_text(path, text):
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_rows(path, rows):
    """Write dicts as JSON lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path):
    """The value in a JSON file. Raises ValueError with the file's name where it is not valid."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, lists in lists in lists
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def optional_json(path):
    """The value in a JSON file, {} where there is no such file."""
    return read_json(path) if Path(path).exists() else {}


def new_file(name):
    """The name of a file that will be written; its folder is made. FileExistsError where it exists."""
    if name and Path(name).exists():
        raise FileExistsError(f"{name} exists and is not overwritten; move it or take another --out")
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    return name


def inside(folder, name):
    """The path of a file that another file names: a plain name, which cannot lead out of the folder."""
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(f"{folder}: the index names {name!r}, which is not a plain file name in that folder")
    return folder / name


def link(name, target):
    """Make a symbolic link, or point one elsewhere, in one atomic step."""
    partial = Path(f"{name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    os.replace(partial, name)
    folder = os.open(Path(name).parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
