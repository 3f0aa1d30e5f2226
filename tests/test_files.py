"""files.py: other people's JSON, what is no file, full disks, links, and one process at a time."""

import errno
import json
import math
import os
import signal
import threading
from functools import partial

import pytest

import files
from files import (
    COUNT,
    FLAG,
    NUMBER,
    OBJECT,
    TEXT,
    append,
    check_fields,
    either,
    inside,
    link,
    list_of,
    locked,
    map_of,
    new_file,
    number,
    one_of,
    read_json,
    read_settings,
    read_text,
    regular,
    replacing,
    whole,
    write_json,
    write_rows,
)
from tests.processes import Child, start_together, wait_for

NAN = math.nan
INF = math.inf


# ------------------------------------------------------------------------------------------------ kinds
@pytest.mark.parametrize(
    "kind, fitting, others",
    [
        (whole(1, 8), [1, 8], [0, 9, -1, 1.0, True, "1", None, [1], {}, NAN, 10**30]),
        (number(0, 1), [0, 1, 0.5, 1.0], [-0.1, 1.1, True, False, "0.5", None, [], NAN, INF, -INF, 10**30]),
        (number(0, 1e10), [0, 1e10], [NAN, INF, 10**400]),
        (FLAG, [True, False], [0, 1, "true", None, [], "false"]),
        (TEXT, ["", "a"], [0, None, ["a"], {}, True]),
        (OBJECT, [{}, {"a": 1}], [[], None, "{}", 1]),
        (COUNT, [0, 2**53], [-1, 2**53 + 1, 1.0, True, "1", NAN]),
        (NUMBER, [None, 1, 1.5], ["1", [], {}]),
        (list_of(TEXT), [[], ["a", "b"]], ["ab", {"a": 1}, ["a", 1], None, [None]]),
        (list_of(COUNT, 1), [[0]], [[], [-1], [[0]], 0]),
        (map_of(COUNT), [{}, {"a": 1}], [{"a": -1}, {"a": None}, [], None, {"a": [1]}]),
        (map_of(list_of(TEXT)), [{"a": ["b"]}], [{"a": "b"}, {"a": [1]}]),
        (either(TEXT, COUNT), ["a", 3], [-3, 1.5, None, [], True]),
        (one_of("system", "user"), ["user"], ["User", None, 1, [], {}, ["user"]]),
    ],
)
def test_a_kind_fits_its_values_and_no_others(kind, fitting, others):
    assert all(kind.fits(value) for value in fitting)
    assert [value for value in others if kind.fits(value)] == []


FIELDS = {"width": whole(1, 64), "eps": number(0, 1), "name": TEXT, "on": FLAG, "sizes": list_of(COUNT)}


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"width": "32"}', ["width", "'32'", "whole number from 1 to 64"]),
        ('{"width": 0}', ["width", "0", "from 1 to 64"]),
        ('{"width": -4}', ["width", "-4"]),
        ('{"width": 1e3}', ["width", "1000.0"]),
        ('{"width": true}', ["width", "True"]),
        ('{"width": [32]}', ["width", "[32]"]),
        ('{"width": 32, "eps": NaN}', ["eps", "nan", "number from 0 to 1"]),
        ('{"width": 32, "eps": Infinity}', ["eps", "inf"]),
        ('{"width": 32, "eps": 1e999}', ["eps", "inf"]),
        ('{"width": 32, "eps": true}', ["eps", "True"]),
        ('{"width": 32, "name": 5}', ["name", "5", "text"]),
        ('{"width": 32, "on": 1}', ["on", "true or false"]),
        ('{"width": 32, "sizes": {"0": 1}}', ["sizes", "list"]),
        ('{"width": 32, "sizes": [1, null]}', ["sizes", "None"]),
        ("{}", ["width", "missing", "whole number"]),
        ('{"width": null}', ["width", "missing"]),
        ("[]", ["[]", "object"]),
        ("null", ["None", "object"]),
        ('"width"', ["'width'", "object"]),
        ("7", ["7", "object"]),
        ("", ["JSON"]),
        ('{"width": 32', ["JSON"]),
        ('{"width": 32}}', ["JSON"]),
        ('{"a":' * 100_000, ["JSON"]),
        ('{"width": ' + "7" * 5000 + "}", ["JSON"]),
        ('{"width": "' + "x" * 5000 + '"}', ["width", "xxx...xxx"]),
    ],
)
def test_settings_of_a_wrong_kind_are_one_short_error_with_file_and_key(tmp_path, text, said):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_settings(path, FIELDS, ["width"])
    message = str(error.value)
    assert message.startswith(f"{path}: ") and len(message) < len(str(path)) + 300
    assert all(part.lower() in message.lower() for part in said)


def test_a_field_may_be_missing_or_null_unless_it_is_required(tmp_path):
    path = tmp_path / "config.json"
    for value in ({"width": 3}, {"width": 3, "eps": None, "name": None}, {"width": 3, "unknown": [None]}):
        path.write_text(json.dumps(value))
        assert read_settings(path, FIELDS, ["width"]) == value
    assert check_fields("here", {}, FIELDS) == {}
    with pytest.raises(ValueError, match="^line 3: name is 5"):
        check_fields("line 3", {"name": 5}, FIELDS)


def test_a_file_of_bytes_that_are_no_text_is_named(tmp_path):
    path = tmp_path / "config.json"
    for content in (b'{"a": "\xff"}', '{"a": 1}'.encode("utf-16"), b"\x80\x00"):
        path.write_bytes(content)
        for read in (read_text, read_json):
            with pytest.raises(ValueError, match=f"^{path}: not UTF-8"):
                read(path)


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path):
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"width": 3}')
    assert read_settings(tmp_path / "config.json", FIELDS) == {"width": 3}


def test_a_file_larger_than_settings_ever_are_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_text('{"width": 3}')
    monkeypatch.setattr(files, "LARGEST", len(path.read_bytes()))
    assert read_settings(path, FIELDS) == {"width": 3}
    path.write_text('{"width": 3} ')
    monkeypatch.setattr(files.Path, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=f"^{path}: more than"):
        read_settings(path, FIELDS)


def test_a_default_stands_for_a_missing_file_and_for_no_other(tmp_path):
    path = tmp_path / "x.json"
    assert read_json(path, default={}) == read_settings(path, FIELDS, default={}) == {}
    path.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=f"^{path}: no such file"):
        read_json(path, default={})
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"^{path}: no such file"):
        read_settings(path, FIELDS)


# ------------------------------------------------------------------------------------------------ no files
@pytest.fixture(params=["folder", "fifo", "/dev/zero", "/dev/null", "/dev/full", "link to a fifo"])
def no_file(request, tmp_path):
    path = tmp_path / "x.json"
    if request.param == "folder":
        path.mkdir()
    elif request.param.startswith("/dev"):
        path.symlink_to(request.param)
    elif request.param == "fifo":
        os.mkfifo(path)
    else:
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to("fifo")
    return path


@pytest.mark.parametrize("read", [regular, read_text, read_json, lambda path: read_json(path, OBJECT, {})])
def test_what_is_no_file_is_refused_and_not_opened(no_file, read):
    """Opening a fifo would wait for ever, and /dev/zero never ends."""
    with pytest.raises(ValueError, match=f"^{no_file}: .*(folder|pipe or a device)"):
        read(no_file)


def test_a_missing_file_is_called_missing(tmp_path):
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("nothing", "dangling", "no/such/folder"):
        for read in (regular, read_text, read_json):
            with pytest.raises(FileNotFoundError, match=f"^{tmp_path / name}: no such file"):
                read(tmp_path / name)


def test_a_new_file_takes_the_place_of_nothing(tmp_path, no_file):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (no_file, tmp_path / "file", tmp_path / "dangling"):
        with pytest.raises(FileExistsError, match=f"^{path} exists"):
            new_file(path)
    assert new_file(tmp_path / "new") == tmp_path / "new"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "", "..", "a/", "./a"])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="index names"):
        inside(tmp_path, name)


# ------------------------------------------------------------------------------------------------ full disks
def without_space(monkeypatch, name="write_text"):
    """Until the patch is undone, writing a text finds no room. As on a full disk the error names no file."""

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Path, name, full)


@pytest.mark.parametrize("name", ["write_text", "fsync"])
def test_on_a_full_disk_the_old_file_stays_and_the_error_names_it(tmp_path, monkeypatch, name):
    path = tmp_path / "eval.json"
    write_json(path, {"a": 1})
    with monkeypatch.context() as patched:
        if name == "fsync":
            patched.setattr(os, name, lambda file: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
        else:
            without_space(patched)
        for write in (write_json, write_rows):
            with pytest.raises(OSError, match=f"^{path}: No space left"):
                write(path, [{"b": 2}])
    assert read_json(path) == {"a": 1} and os.listdir(tmp_path) == ["eval.json"]


def limited(path, size, write):
    """What `write` raises in a process whose files may not grow beyond so many bytes."""
    import resource

    def child():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            write()
        except OSError as error:
            path.with_name("error").write_text(f"{type(error).__name__} {error}"[:size])
            return 1

    assert Child(path.with_name("said"), child).wait() == 1
    return path.with_name("error").read_text()


def test_a_file_that_may_grow_no_more_is_named_and_its_old_content_stays(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"row": 0}])
    assert f"OSError {path}: File too large" in limited(
        path, 4000, lambda: write_rows(path, [{"text": "x" * 9000}])
    )
    assert path.read_text() == '{"row": 0}\n' and not list(tmp_path.glob("*.partial"))
    for to_disk in (False, True):
        said = limited(path, 4000, partial(append, path, "x" * 9000, to_disk))
        assert f"OSError {path}: File too large" in said
        assert path.read_text().startswith('{"row": 0}\nx')
        path.write_text('{"row": 0}\n')


def test_a_folder_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    path = tmp_path / "merged"

    def write():
        with replacing(path) as partly:
            partly.mkdir()
            (partly / "config.json").write_text("{}")
            (partly / "weights").write_bytes(bytes(9000))

    assert f"OSError {path}: File too large" in limited(path, 4000, write)
    assert not path.exists() and not list(tmp_path.glob("*.partial"))


def test_appending_to_what_cannot_be_appended_to_names_it(tmp_path):
    for path in (tmp_path, tmp_path / "no" / "folder", "/dev/full"):
        with pytest.raises(OSError, match=f"^{path}: "):
            append(path, "x\n", to_disk=True)


def test_an_interrupt_leaves_the_old_file_too(tmp_path):
    write_json(tmp_path / "x.json", 1)
    for raised in (KeyboardInterrupt, MemoryError, ValueError):
        with pytest.raises(raised):
            with replacing(tmp_path / "x.json") as partly:
                partly.write_text("half")
                raise raised
        assert read_json(tmp_path / "x.json") == 1 and os.listdir(tmp_path) == ["x.json"]


# ------------------------------------------------------------------------------------------------ links
def test_a_link_that_many_move_at_once_always_leads_somewhere(tmp_path):
    """As runs/latest, which every run moves when it saves."""
    path = tmp_path / "latest"
    for name in "abcd":
        (tmp_path / name).mkdir()
    link(path, "a")

    def move(target):
        def move_in_thread():
            for _ in range(100):
                link(path, target)

        threads = [threading.Thread(target=move_in_thread) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def look():
        seen = set()
        while not stop.exists():
            assert path.is_dir()
            seen.add(os.readlink(path))
        assert seen <= {*"abcd"} and len(seen) > 1

    stop = tmp_path / "stop"
    *movers, looker = start_together([*((move, name) for name in "abcd"), (look,)], tmp_path)
    ended = [(child.wait(), child.said) for child in movers]  # a thread that fails prints why
    stop.touch()
    assert ended == [(0, "")] * 4 and (looker.wait(), looker.said) == (0, "")
    assert not list(tmp_path.glob("*.partial"))


# ------------------------------------------------------------------------------------------------ locks
def hold(path, started, seconds=60.0):
    """Hold a lock for so long, once the file `started` exists."""
    with locked(path):
        started.touch()
        threading.Event().wait(seconds)


@pytest.fixture
def owner(tmp_path):
    """(path, the child that holds its lock)."""
    path = tmp_path / "deep" / "out.json"
    child = Child(tmp_path / "said", hold, path, tmp_path / "started")
    wait_for(tmp_path / "started")
    yield path, child
    if child.pid:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()


def test_a_second_process_is_refused_at_once_and_told_who_has_the_lock(owner):
    path, child = owner
    for _ in range(3):
        with pytest.raises(BlockingIOError, match=f"^{path}: .*{child.pid}"):
            with locked(path):
                pytest.fail("both have it")
    assert path.with_name("out.json.lock").exists()
    with locked(path.with_name("other.json")):
        pass


def test_a_lock_ends_with_its_process_however_that_ends(owner):
    path, child = owner
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.pid = 0
    lock = path.with_name("out.json.lock")
    assert lock.exists()  # as a kill leaves it: with the name of a process that is no more
    with locked(path):
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} ") as error:
            with locked(path):
                pass
        assert error.value.args[0].count("process") == 1
    assert os.listdir(path.parent) == []


def test_a_lock_ends_at_an_exception_and_leaves_no_file(tmp_path):
    path = tmp_path / "out.json"
    for raised in (ValueError, KeyboardInterrupt, BlockingIOError):
        with pytest.raises(raised):
            with locked(path):
                raise raised
        assert os.listdir(tmp_path) == []
    with locked(path), locked(tmp_path / "out.jsonl"):
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == []


def test_whatever_stands_in_a_stale_lock_is_only_words(tmp_path):
    path = tmp_path / "out.json"
    for content in (b"", b"\xff\xfe\x00", b"process 1 on nowhere\n" * 100_000):
        path.with_name("out.json.lock").write_bytes(content)
        with locked(path):
            with pytest.raises(BlockingIOError, match=f"process {os.getpid()} "):
                with locked(path):
                    pass
        assert os.listdir(tmp_path) == []


def test_two_names_of_one_file_have_one_lock(tmp_path):
    """sample goes on with an existing --out, which may be a link."""
    (tmp_path / "out.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    (tmp_path / "folder").symlink_to(tmp_path)
    with locked(tmp_path / "out.jsonl"):
        for name in ("link.jsonl", "folder/out.jsonl", "folder/folder/out.jsonl"):
            with pytest.raises(BlockingIOError):
                with locked(tmp_path / name):
                    pass


def test_a_lock_that_cannot_be_made_names_its_file(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "out.json.lock").mkdir()
    for path in (tmp_path / "file" / "out.json", tmp_path / "out.json"):
        with pytest.raises(OSError, match=f"{tmp_path}"):
            with locked(path):
                pass
    os.mkfifo(tmp_path / "fifo.lock")
    with pytest.raises(OSError):
        with locked(tmp_path / "fifo"):
            pass


def test_a_lock_is_never_held_by_two(tmp_path):
    """Its file comes and goes all the time, and others open it between the two."""
    path = tmp_path / "out.json"
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count():
        done = 0
        while done < 60:
            try:
                with locked(path):
                    before = int(counter.read_text())
                    counter.write_text(str(before + 1))
                    done += 1
            except BlockingIOError:
                pass

    children = start_together([(count,)] * 4, tmp_path)
    assert [(child.wait(), child.said) for child in children] == [(0, "")] * 4
    assert counter.read_text() == "240"
    assert not path.with_name("out.json.lock").exists()


def test_a_lock_whose_file_its_owner_deletes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Between our opening it and our locking it; and once more while we look whether it is still there."""
    import fcntl

    path = tmp_path / "out.json"
    file = path.with_name("out.json.lock")
    flock = fcntl.flock
    deleted = []

    def late(opened, how):
        flock(opened, how)
        if len(deleted) < 3:
            deleted.append(file.read_text())
            file.unlink()
            if len(deleted) == 2:  # another process has made its own
                file.write_text("process 1")

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path):
        assert len(deleted) == 3 and file.read_text().startswith(f"process {os.getpid()} ")
        monkeypatch.undo()
        with pytest.raises(BlockingIOError):
            with locked(path):
                pass
    assert not file.exists()


def test_a_disk_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path / "out.json"):
        write_json(tmp_path / "out.json", 1)
    assert os.listdir(tmp_path) == ["out.json"]
