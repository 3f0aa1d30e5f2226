"""Reading and writing files: completely or not at all, and only where they belong.

Existing files are replaced in one way only, by `replacing`: the new file is written under a temporary name,
flushed to the disk, and renamed. A reader, or a kill, finds the old file or the new one, never a half."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path | str):
    """Yield a temporary Path for a file or a folder, which replaces `path` when the block ends.

    If the block raises, or the disk is full, the temporary one is removed and `path` stays as it was."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    remove(partial)
    try:
        yield partial
        flush(partial)
        if partial.is_dir():  # os.replace puts a folder over an empty one only
            remove(path)
        os.replace(partial, path)
    except BaseException:  # KeyboardInterrupt too
        remove(partial)
        raise


def remove(path: Path | str):
    """Delete a file, a link or a folder, if it exists."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():  # the folder behind a link stays
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path):
    """Force a file, or every file of a folder, onto the disk. Without it a power cut after the rename could
    leave an empty file under the final name."""
    paths = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def write_text(path: Path | str, text: str):
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value):
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_rows(path: Path | str, rows):
    """Write dicts as JSON lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path | str):
    """The value in a JSON file. Raises ValueError that names the file if it is not valid."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def optional_json(path: Path | str):
    """The value in a JSON file, or {} if there is no such file."""
    return read_json(path) if Path(path).exists() else {}


def new_file(name: str) -> str:
    """The same name, for a file to be written, after making its folder. Raises FileExistsError if it
    exists."""
    if name and Path(name).exists():  # "" means no file
        raise FileExistsError(f"{name} exists and is not overwritten; move it or take another --out")
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    return name


def inside(folder: Path, name: str) -> Path:
    """The path of a file that an index names. Only a plain file name is accepted, which cannot lead out of
    the folder."""
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(f"{folder}: the index names {name!r}, which is not a plain file name in that folder")
    return folder / name


def link(name: Path | str, target: str):
    """Make a symbolic link, or point an existing one elsewhere, in one atomic step."""
    partial = Path(f"{name}.partial")
    partial.unlink(missing_ok=True)  # left behind by a kill
    partial.symlink_to(target)
    os.replace(partial, name)
    folder = os.open(Path(name).parent, os.O_RDONLY)  # the folder is what has changed, so flush that
    os.fsync(folder)
    os.close(folder)
