"""The sandbox keeps its promises: no hostile program seems right, harms a neighbour or leaves a trace."""

import importlib
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hostile import HOSTILE, MARK, REACH, SECRET

from games.sandbox import sandbox as module
from games.sandbox.plain import ITEMS, pack, unpack
from games.sandbox.sandbox import Job, Sandbox, level

GRID = [[1, 2], [3, 4]]
EXPECTED = [[random.SystemRandom().getrandbits(60) for _ in range(2)] for _ in range(2)]  # no program knows
HONEST = """import copy, math, random
from collections import Counter
def solve(g):
    count = Counter(v for row in copy.deepcopy(g) for v in row)
    rows = [sorted(row, reverse=True) for row in np.rot90(g).tolist()]
    odd = math.gcd(random.randint(6, 6), 4)
    return rows + [[len(g), sum(map(sum, g)), count.most_common(1)[0][1], odd]]"""
RIGHT = [[4, 2], [3, 1], [2, 10, 1, 2]]
# A deadline that programs do not miss even on a busy machine. Its fraction marks the processes of these tests
# in the list of all processes.
SECONDS = 20 + os.getpid() / 1e9
SHORT = SECONDS - 19.7

if sys.platform != "linux" or level()[0] not in ("full", "seccomp"):
    pytest.skip(f"this machine gives {level()}", allow_module_level=True)

from games.sandbox import lockdown  # noqa: E402  needs Unix


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(seconds=SECONDS, names={"np": np}) as sandbox:
        yield sandbox


def solve(source, *arguments, **options):
    return Job(source, [("solve", list(arguments))], **options)


def processes(seconds):
    """The ids of all processes of a sandbox with this deadline."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if str(seconds).encode() in words and b"child.py" in words:
            found.append(int(folder.name))
    return found


def traces():
    folders = [Path(name).expanduser() for name in ("/", ".", "/tmp", "/dev/shm", "/var/tmp", "~")]
    return [found for folder in folders if folder.is_dir() for found in folder.glob(f"*{MARK}*")]


def state():
    umask = os.umask(0)
    os.umask(umask)
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    limits = [resource.getrlimit(number) for number in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE)]
    return umask, os.getcwd(), handlers, limits, dict(os.environ), len(os.listdir("/proc/self/fd"))


def attack(sandbox, programs, tier, monkeypatch, neighbours=True):
    """Run programs, with an honest one after each, and fail on any trace. Returns the results by name."""
    monkeypatch.setenv(SECRET, "a secret of the environment")
    sandbox.confirm([solve(HONEST, GRID)])
    before = state()
    honest = [solve(HONEST, GRID)] * neighbours
    results = getattr(sandbox, tier)([job for _, code, _ in programs for job in [solve(code, GRID), *honest]])
    assert state() == before and traces() == []
    assert len(processes(sandbox.config["seconds"])) <= 2 * sandbox.count  # zygotes, of both seeds; no child
    hostile, honest = results[:: 1 + neighbours], results[1::2] if neighbours else []
    for (name, _, _), result in zip(programs, honest):
        assert result.values == [RIGHT], f"a neighbour of {name}: {result}"
    for (name, _, kinds), result in zip(programs, hostile):
        assert result.kind in kinds or (result.kind == "unstable" and "ok" in kinds), (name, result)
        assert (result.values is None) == (result.kind != "ok") and result.values != [EXPECTED]
        assert len(result.message) <= 200 and result.message.isprintable() and result.message.isascii()
        assert "a secret" not in repr(result)
        unpack(pack(result.values, 8 * ITEMS))  # a plain value
    return {name: result for (name, _, _), result in zip(programs, hostile)}


def test_level():
    name, missing = level()
    assert name == "full" and missing == [] or name == "seccomp" and missing


def test_corpus_first_tier(sandbox, monkeypatch):
    assert len(HOSTILE) == len({name for name, _, _ in HOSTILE}) >= 90
    quick = [program for program in HOSTILE if "@" not in program[0]]
    attack(sandbox, quick, "run", monkeypatch)


def test_corpus_second_tier(sandbox, monkeypatch):
    """Only with programs that may give a value, since others never run a second time."""
    able = [program for program in HOSTILE if "ok" in program[2] and "@" not in program[0]]
    able = able[::4] + [program for program in able if "different" in program[0]]
    results = attack(sandbox, able, "confirm", monkeypatch)
    assert {result.kind for name, result in results.items() if name.startswith("different")} == {"unstable"}


def test_corpus_out_of_time(monkeypatch):
    """Some of the programs that use up their time, without neighbours, which a busy machine might delay."""
    long = [program for program in HOSTILE if "@" in program[0]]
    with Sandbox(seconds=SHORT, names={"np": np}) as sandbox:
        attack(sandbox, long[::5], "run", monkeypatch, neighbours=False)


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["run", "confirm"])
def test_corpus_with_time(tier, monkeypatch):
    with Sandbox(seconds=SECONDS / 10, names={"np": np}) as sandbox:
        attack(sandbox, HOSTILE, tier, monkeypatch)


def test_programs_see_no_game():
    """Games hold programs that solve their tasks, and the parent has imported all games. A program that looks
    everywhere finds only the modules that run it and those that the caller names."""
    folder = Path(module.__file__).parents[1]
    for path in sorted(path for path in folder.rglob("*.py") if path.stem != "__init__"):
        importlib.import_module(".".join(path.relative_to(folder.parent).with_suffix("").parts))
    source = f"""{REACH}
def solve():
    files = [getattr(found, "__file__", None) or "" for found in M.values()]
    here = os.path.dirname(os.path.dirname(M["__main__"].__file__))
    todo, seen = [object], set()
    while todo:
        fresh = set(type.__subclasses__(todo.pop())) - seen
        seen |= fresh
        todo += fresh
    owners = {{str(found.__module__) for found in seen}}
    names = sorted(os.path.relpath(file, here) for file in files if file.startswith(here + os.sep))
    return [zygote, names, sorted(owner for owner in owners if owner.startswith("games"))]
"""
    ours = ["__init__.py", *(f"sandbox/{name}.py" for name in ("__init__", "child", "lockdown", "plain"))]
    for names, more in ({}, []), ({"task": importlib.import_module("games.task")}, ["task"]):
        with Sandbox(seconds=SECONDS, names=names) as sandbox:
            [[zygote, files, owners]] = sandbox.run([solve(source)])[0].values
            assert zygote == sandbox.pool(0)[0].process.pid
        assert files == sorted(ours + [f"{name}.py" for name in more])
        assert owners == ["games.sandbox.lockdown", *[f"games.{name}" for name in more]]


def test_values_come_home_exactly(sandbox):
    source = """def solve(a):
    return a, (), {(1, "é"): [None], None: -0.0, True: {}}, float("-inf"), 2**4000, "\\n\\0"
def numbers():
    return [np.arange(4).reshape(2, 2), np.uint8(7), np.float64(0.5), np.bool_(1), np.zeros((0, 3), int)]
def again(): return x
x = []
def change():
    x.append(1)
    return x"""
    calls = [("solve", [[{"t": (1, "d")}]]), ("numbers", []), ("change", []), ("change", []), ("again", [])]
    odd = {(1, "é"): [None], None: -0.0, True: {}}
    first = [{"t": (1, "d")}], (), odd, float("-inf"), 2**4000, "\n\0"
    want = [first, [[[0, 1], [2, 3]], 7, 0.5, True, []], [1], [1, 1], [1, 1]]
    results = sandbox.run([Job(source, calls)]) + sandbox.confirm([Job(source, calls[:2])])
    assert [result.kind for result in results] == ["ok", "ok"]
    assert repr([result.values for result in results]) == repr([want, want[:2]])


def test_calls_that_depend_on_each_other_are_unstable(sandbox):
    """A program that counts its calls could tell the known pairs from those that it is tested on."""
    counts = "calls = []\ndef solve(n):\n    calls.append(n)\n    return len(calls)"
    fair = "def solve(n): return n + 1"
    jobs = [Job(source, [("solve", [n]) for n in range(3)]) for source in (counts, fair)]
    assert [result.values for result in sandbox.run(jobs)] == [[1, 2, 3]] * 2
    first, second = sandbox.confirm(jobs)
    assert (first.kind, first.values, second.values) == ("unstable", None, [1, 2, 3])


def test_arguments(sandbox):
    """Each call gets its own copy of the arguments, as arrays if the job says so."""
    source = "def solve(g, n):\n    t = str(type(g).__name__)\n    g[0][0] = n\n    return [t, g]"
    job = Job(source, [("solve", [GRID, 7]), ("solve", [GRID, 8])])
    assert sandbox.run([job])[0].values == [["list", [[7, 2], [3, 4]]], ["list", [[8, 2], [3, 4]]]]
    job.arrays, job.source = True, job.source.replace("[t, g]", "[t, g.tolist()]")
    assert sandbox.run([job])[0].values[1] == ["ndarray", [[8, 2], [3, 4]]]
    source = "def solve(*a): return [type(x).__name__ for x in a] + [type(a[0][0]).__name__]"
    odd = [GRID, GRID], [[1], [2, 3]], [[True]], [[2**70]], [], [[]], [1, 2], {"a": GRID}
    want = ["list"] * 7 + ["dict", "ndarray"]
    assert sandbox.run([solve(source, *odd, arrays=True)])[0].values == [want]
    with pytest.raises(ValueError, match="plain value: object"):
        sandbox.run([solve(source, object())])


def test_messages_name_the_cause(sandbox):
    kinds = {
        "def solve(): return 1 / 0": ("error", "ZeroDivisionError: division by zero"),
        "import os": ("import", "ImportError: module os is not allowed"),
        "def solve(:": ("syntax", "SyntaxError: invalid syntax (<program>, line 1)"),
        "def solve(): return {1}": ("output", "ValueError: not a plain value: set"),
        "def solve(): return [0] * (1 << 40)": ("memory", "MemoryError: "),
        "def solve(): return ().__class__.__base__.__subclasses__()[-1](": ("syntax", "'(' was never closed"),
        "import warnings\nwarnings.sys.modules['os']._exit(3)": ("killed", "exit status 3"),
    }
    results = sandbox.run([solve(source) for source in kinds])
    with Sandbox(seconds=SHORT) as short:
        results += short.run([solve("while 1: pass")])
    for (kind, message), result in zip([*kinds.values(), ("timeout", "no answer within 0.3")], results):
        assert (result.kind, result.values) == (kind, None) and message in result.message


def test_fresh_namespace_and_seed(sandbox):
    """A program leaves nothing to the next one, and its random numbers do not depend on its neighbours."""
    source = "import random\nseen = globals().get('seen', 0) + 1\ndef solve(): return [seen, random.random()]"
    plain = source.replace("globals().get('seen', 0)", "0")
    results = sandbox.run([solve(source), solve(plain), solve(plain), solve(source)])
    assert len({repr(result.values) for result in results}) == 1 and results[0].values[0][0] == 1


def test_names():
    with Sandbox(names={"np": np, "js": json}) as sandbox:
        source = "import numpy.linalg\ndef solve(): return [js.loads('2'), int(np.int64(3))]"
        assert sandbox.run([solve(source)])[0].values == [[2, 3]]


def test_workers_share_the_work():
    with Sandbox(workers=2, seconds=SECONDS / 20) as sandbox:
        jobs = [solve("def solve(n): return n * n" if n % 30 else "while 1: pass", n) for n in range(60)]
        results = sandbox.run(jobs)
        assert [r.values for r in results] == [[n * n] if n % 30 else None for n in range(60)]
        assert {r.kind for r in results[::30]} == {"timeout"}


def test_killed_zygote_costs_no_job(sandbox):
    stop = threading.Timer(0.1, lambda: sandbox.pool(0)[0].process.kill())
    stop.start()
    results = sandbox.run([solve("def solve(n): return sum(range(n))", n) for n in range(1500)])
    stop.join()
    assert [result.values for result in results] == [[sum(range(n))] for n in range(1500)]


def test_nothing_outlives_the_parent():
    """When a parent is killed in the middle of a run, its zygote and the busy child end, too."""
    seconds = SECONDS + 10
    source = f"""from games.sandbox.sandbox import Job, Sandbox
with Sandbox(seconds={seconds}) as sandbox:
    sandbox.run([Job('while 1: pass', [])])"""
    parent = subprocess.Popen([sys.executable, "-c", source], cwd=Path(module.__file__).parents[2])
    until = time.monotonic() + 60
    while len(found := processes(seconds)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(found) == 2  # counted once only, since a child may have been replaced by now
    parent.kill()
    parent.wait()
    while processes(seconds) and time.monotonic() < until:
        time.sleep(0.02)
    assert processes(seconds) == []


def test_closing_leaves_no_process():
    seconds = SECONDS + 20
    with Sandbox(seconds=seconds) as sandbox:
        assert sandbox.run([solve("def solve(): return 1")])[0].values == [1]
        assert len(processes(seconds)) == 1  # no child, not even a zombie
    assert processes(seconds) == []


def test_weak_machines_are_refused(monkeypatch):
    def start(worker):
        worker.config["machine"] = "limits", ["system calls not filtered (Linux only)"], ["limits"]

    monkeypatch.setattr(module.Worker, "start", start)
    with pytest.raises(PermissionError, match="limits; system calls not filtered .*unsafe=True"):
        Sandbox()
    with pytest.warns(UserWarning, match="limits; system calls"):
        assert Sandbox(unsafe=True).level == "limits"


def test_systems_that_do_not_fork_are_refused():
    source = """import os, socket, sys
del os.fork, socket.send_fds
sys.modules["resource"] = None
from games.sandbox.sandbox import Sandbox, level
print(level())
Sandbox(unsafe=True)"""
    options = dict(cwd=Path(module.__file__).parents[2], capture_output=True, text=True)
    found = subprocess.run([sys.executable, "-c", source], **options)
    assert found.stdout == f"{('none', [module.NO_FORKS])}\n" and "Linux (or WSL)" in module.NO_FORKS
    assert found.stderr.endswith(f"PermissionError: {module.NO_FORKS}\n")


def test_a_lock_that_fails_later_ends_the_run():
    """A step that worked at the start is never left out, not even after the death of a zygote."""
    with Sandbox(seconds=SECONDS) as sandbox:
        sandbox.config["machine"][2].append("landlock")  # seccomp, the step before, refuses it
        sandbox.pool(0)[0].process.kill()
        with pytest.raises(RuntimeError, match="cannot lock itself down: .*not permitted"):
            sandbox.run([solve("def solve(): return 1")])


def test_limits_obey_those_of_the_shell(monkeypatch):
    """Only root may raise a hard limit of the shell. This once made all limits count as missing."""
    resource, limits = lockdown.resource, {}
    hard = lambda number: (0, 7 if number == resource.RLIMIT_CPU else resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", hard)
    monkeypatch.setattr(resource, "setrlimit", lambda number, pair: limits.update({number: pair}))
    lock = lockdown.Lock(1 << 20, 100)
    lock.limits()
    assert limits[resource.RLIMIT_CPU] == (7, 7) and limits[resource.RLIMIT_AS] == (lock.limit["AS"],) * 2


def test_rubbish_on_the_channel_is_never_an_answer(monkeypatch):
    """Random bytes and valid frames with one change raise nothing and give no value."""
    draw = random.Random(0)
    monkeypatch.setattr(module.Worker, "kill", lambda self: 0)
    monkeypatch.setattr(module.Worker, "drop", lambda self: 0)
    inside = '[["ok","",false],[%s]]'
    values = ["[" * 99, "[" * 40 + "]" * 40, '"\\ud800"', "{}", "1,2", '{"x":[]}', '{"t":[],"d":[]}']
    values += ['{"t":1}', '{"d":[1]}', '{"d":[[[],1]]}', '{"d":[[1,1],[true,1]]}']
    texts = ["[]", "1", "null", '"a"', "[[1,2],[3]]", '[["ok","",false]]', '[["ok","",0],[1]]', "[" * 5000]
    texts += ['[["ok",1,false],[1]]', '[[[],"",false],[1]]', '[["fine","",false],[1]]']
    texts += ['[["alone","",false],null]', '[["ok","",false],{"t":[1]}]']
    texts += [inside % value for value in values]
    kinds = Counter()
    for turn in range(3000):
        worker = object.__new__(module.Worker)
        worker.config, worker.ready, worker.served, worker.shared = {"seconds": 0}, True, 1, False
        worker.calls = [("solve", [])]
        worker.nonce, worker.buffer, worker.deadline = draw.randbytes(16), b"", time.monotonic() + 9
        worker.channel, there = socket.socketpair()
        if turn % 3:
            body = texts[turn % len(texts)].encode()
            data = worker.nonce + struct.pack("<I", len(body)) + body
        else:
            data = worker.nonce[: draw.randrange(17)] + draw.randbytes(draw.randrange(200))
        with worker.channel, there:
            there.sendall(data)
            there.shutdown(socket.SHUT_WR)
            result = worker.take() or worker.take()
        assert result.values is None
        kinds[result.kind] += 1
    assert set(kinds) == {"output", "killed"}


def verdict(program, arch, number, third):
    """The verdict of a seccomp program on a system call."""
    words, at, data = 0, 0, {0: number, 4: arch, 32: third}
    lines = [struct.unpack("<HBBI", program[i : i + 8]) for i in range(0, len(program), 8)]
    while True:
        code, yes, no, k = lines[at]
        at += 1
        if code == 0x20:
            words = data[k]
        elif code == 0x06:
            return {0x80000000: "kill", 0x7FFF0000: "allow", 0x00050001: "refuse"}[k]
        else:
            at += yes if {0x15: words == k, 0x35: words >= k, 0x45: words & k}[code] else no


@pytest.mark.parametrize("machine", lockdown.MACHINES)
def test_filter(machine, monkeypatch):
    monkeypatch.setattr(lockdown.platform, "machine", lambda: machine)
    program = lockdown.seccomp_filter()[1].raw
    arch, plain, memory = lockdown.MACHINES[machine]
    here = lambda number, third=0: verdict(program, arch, number, third)
    allowed = [number for number in range(1024) if here(number) == "allow"]
    assert sorted(allowed) == sorted({*plain, *memory})
    assert {here(number, 3) for number in memory} == {"allow"}
    assert {here(number, third) for number in memory for third in (4, 5, 7)} == {"refuse"}
    forbidden = {
        "x86_64": dict(open=2, socket=41, clone=56, execve=59, kill=62, ptrace=101, prctl=157, openat=257),
        "aarch64": dict(openat=56, socket=198, clone=220, execve=221, kill=129, ptrace=117, prctl=167),
    }
    assert {here(number) for number in forbidden[machine].values()} == {"refuse"}
    assert verdict(program, 0x40000003, 1, 0) == "kill" and here(0x40000001) == "kill"


@pytest.mark.slow
def test_many_programs_leave_nothing():
    """After 100,000 programs, memory, descriptors and processes are as after the first two thousand."""
    bodies = ["return n + 1", "return [n] * 900", "return {n: str(n)}", "return 1 / 0"]
    bodies += ["(", "import os", "return np"]
    sources = ["def solve(n): " + body for body in bodies]

    def size(pid):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()

    with Sandbox(seconds=SECONDS + 30) as sandbox:
        zygote, seen = sandbox.pool(0)[0].process.pid, []
        for turn in range(100):
            results = sandbox.run([solve(sources[n % len(sources)], n) for n in range(1000)])
            assert Counter(r.kind for r in results)["ok"] == 429 and results[7].values == [8]
            if turn in (1, 99):
                files = [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), zygote)]
                seen.append((files, len(processes(SECONDS + 30)), size(os.getpid()), size(zygote)))
    (files, count, *before), (files_after, count_after, *after) = seen
    assert files == files_after and count == count_after == 1
    assert all(b - a < 8 << 20 for a, b in zip(before, after)), seen
