"""Reading and writing files: completely or not at all, by one process at a time, and only where they belong.

Existing files are replaced in one way only, by `replacing`: the new file is written under a temporary name,
flushed to the disk, and renamed. A reader, or a kill, finds the old file or the new one, never a half.
`locked` keeps a second process from writing the same output. JSON that other people wrote is read by
`read_settings`, which checks the kind and the range of each field that is used."""

import json
import os
import reprlib
import shutil
import socket
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

LARGEST = 64 << 20  # bytes of a settings file, or of a line of a data file: more would only fill the memory


# ------------------------------------------------------------------------------------------------ writing
@contextmanager
def replacing(path: Path | str):
    """Yield a temporary Path for a file or a folder, which replaces `path` when the block ends.

    If the block raises, or the disk is full, the temporary one is removed and `path` stays as it was. An
    OSError names a file."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    remove(partial)
    try:
        yield partial
        flush(partial)
        if partial.is_dir():  # os.replace puts a folder over an empty one only
            remove(path)
        os.replace(partial, path)
    except BaseException as error:  # KeyboardInterrupt too
        remove(partial)
        if isinstance(error, OSError) and error.strerror and not error.filename:  # as of a full disk
            raise OSError(f"{path}: {error.strerror}") from error
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


def json_lines(rows) -> str:
    """Dicts as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_rows(path: Path | str, rows):
    write_text(path, json_lines(rows))


def append(path: Path | str, text: str, to_disk=False):
    """Add text to the end of a file. to_disk: return only when the disk has it."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
            if to_disk:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:  # of a full disk, for example, which does not name the file
        raise OSError(f"{path}: {error.strerror}") from error


def link(name: Path | str, target: str):
    """Make a symbolic link, or point an existing one elsewhere, in one atomic step."""
    partial = Path(f"{name}.partial")
    folder = os.open(Path(name).parent, os.O_RDONLY)
    try:
        with suppress(ImportError, OSError):  # where the system has no such locks, nothing is waited for
            import fcntl

            fcntl.flock(folder, fcntl.LOCK_EX)  # until it is closed: other runs move `latest` as well
        partial.unlink(missing_ok=True)  # left behind by a kill
        partial.symlink_to(target)
        os.replace(partial, name)
        os.fsync(folder)  # the folder is what has changed
    finally:
        os.close(folder)


# ------------------------------------------------------------------------------------------------ locks
@contextmanager
def locked(path: Path | str):
    """Keep other processes from writing an output, a file or a folder, inside the with block.

    The lock is the system's own (flock) on the file PATH.lock, so it ends with its process, however that
    ends. Raises BlockingIOError, which names the process that has the lock. Where the system has no such
    locks (Windows, some network disks), there is no protection."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    name = Path(f"{os.path.realpath(path)}.lock")  # a link and its file have one lock
    name.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(name, "a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read(200) or "another process"
            file.close()
            raise BlockingIOError(
                f"{path}: {owner} is writing it; wait for its end or choose another name"
            ) from error
        except OSError:  # a disk without locks
            pass
        # Its owner deletes the file at the end. If that was between our two steps, take the next one.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), name.stat()):
                break
        file.close()
    try:
        with suppress(OSError):  # the name is only for messages, and the disk may be full
            file.truncate(0)  # a killed process has left its name there
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
    finally:
        name.unlink(missing_ok=True)
        file.close()


def new_file(path: Path | str) -> Path:
    """The path of a file or folder to be written. Raises FileExistsError if there is one."""
    path = Path(path)
    if os.path.lexists(path):  # a dangling link, too
        raise FileExistsError(f"{path} exists and is not overwritten; move it or take another --out")
    return path


# ------------------------------------------------------------------------------------------------ reading
def regular(path: Path | str) -> Path:
    """The path of a file to be read. Raises FileNotFoundError, or ValueError for a folder, and for a pipe or
    a device, from which reading might never end."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"{path}: {kind}, where a file is expected")
    return path


def read_text(path: Path | str, most=LARGEST) -> str:
    """The text of a file of at most so many bytes. Raises ValueError or FileNotFoundError that names it."""
    if regular(path).stat().st_size > most:
        raise ValueError(f"{path}: more than {most >> 20} MB, which no such file has")
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from error


def complete_lines(path: Path | str) -> tuple[list[str], bytes]:
    """The lines of a file of ours, and the rest after the last line end, which a kill has cut short. Raises
    ValueError that names the file, and the line that is not UTF-8."""
    *lines, rest = regular(path).read_bytes().split(b"\n")
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 ({error})") from error
    return texts, rest


def read_json(path: Path | str, kind: "Kind | None" = None, default=None):
    """The value in a JSON file. default: the value without a file. kind: what the value must be, in a file of
    at most LARGEST bytes. Raises ValueError or FileNotFoundError that names the file."""
    if default is not None and not os.path.lexists(path):
        return default
    text = read_text(path, LARGEST if kind else 1 << 40)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or nested too deeply
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if kind and not kind.fits(value):
        raise ValueError(f"{path}: holds {reprlib.repr(value)}, expected {kind.name}")
    return value


class Kind(NamedTuple):
    """What a field of a JSON file may hold."""

    name: str  # for messages
    fits: Callable  # value -> bool


def whole(low: int, high: int) -> Kind:
    """A whole number in a range, ends included."""
    return Kind(f"a whole number from {low:,} to {high:,}", lambda x: type(x) is int and low <= x <= high)


def number(low: float, high: float) -> Kind:
    """A finite number in a range, ends included."""
    fits = lambda x: type(x) in (int, float) and low <= x <= high  # false for nan
    return Kind(f"a number from {low:,g} to {high:,g}", fits)


def list_of(kind: Kind, least=0) -> Kind:
    """A list of at least so many values of a kind."""
    fits = lambda x: type(x) in (list, tuple) and len(x) >= least and all(map(kind.fits, x))
    return Kind("a list" + f" of at least {least}" * (least > 0) + f", each {kind.name}", fits)


def map_of(kind: Kind) -> Kind:
    """An object whose values are all of a kind."""
    fits = lambda x: type(x) is dict and all(map(kind.fits, x.values()))
    return Kind(f"an object, each value {kind.name}", fits)


def either(*kinds: Kind) -> Kind:
    """A value of any of the kinds."""
    return Kind(" or ".join(kind.name for kind in kinds), lambda x: any(kind.fits(x) for kind in kinds))


def one_of(*values) -> Kind:
    """One of these values."""
    return Kind(" or ".join(map(repr, values)), lambda x: x in values)


def by_key(rows: dict[Kind, str]) -> dict[str, Kind]:
    """Key -> kind, for check_fields, of a table of kind -> the keys that it is for."""
    return {key: kind for kind, keys in rows.items() for key in keys.split()}


FLAG = Kind("true or false", lambda x: type(x) is bool)
TEXT = Kind("a text", lambda x: type(x) is str)
OBJECT = Kind("an object", lambda x: type(x) is dict)
NUMBER = Kind("a number or null", lambda x: x is None or isinstance(x, (int, float)))  # of our own figures
COUNT = whole(0, 1 << 53)  # the largest range that every JSON program keeps exact


def check_fields(where, value, fields: dict[str, Kind], required=()) -> dict:
    """The same value, an object, if each of these fields that it has is null or of its kind. Raises
    ValueError that names the field, what it holds, and what is expected. required: fields it must have."""
    if type(value) is not dict:
        raise ValueError(f"{where}: expected an object, found {reprlib.repr(value)}")
    for key in required:
        if value.get(key) is None:
            raise ValueError(f"{where}: {key} is missing; expected {fields[key].name}")
    for key, kind in fields.items():
        if value.get(key) is not None and not kind.fits(value[key]):
            raise ValueError(f"{where}: {key} is {reprlib.repr(value[key])}, expected {kind.name}")
    return value


def read_settings(path: Path | str, fields: dict[str, Kind], required=(), default=None) -> dict:
    """The object in a JSON file that somebody else may have written; see check_fields and read_json."""
    return check_fields(path, read_json(path, OBJECT, default), fields, required)


def inside(folder: Path, name: str) -> Path:
    """The path of a file that an index names. Only a plain file name is accepted, which cannot lead out of
    the folder."""
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(f"{folder}: the index names {name!r}, which is not a plain file name in that folder")
    return folder / name
