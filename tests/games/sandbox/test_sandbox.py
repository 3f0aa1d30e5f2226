"""The sandbox keeps its promises: no hostile program seems right, harms a neighbour or leaves a trace."""

import ast
import builtins
import importlib
import json
import os
import random
import re
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
from types import ModuleType

import numpy as np
import pytest
from hostile import HOSTILE, MARK, PIECES, REACH, SECRET

from games.arc import dsl
from games.sandbox import sandbox as module
from games.sandbox.plain import ITEMS, exact, pack, unpack
from games.sandbox.sandbox import Job, Sandbox, level

GRID = [[1, 2], [3, 4]]
EXPECTED = [[random.SystemRandom().getrandbits(60) for _ in range(2)] for _ in range(2)]  # no program knows
HONEST = """import copy, functools, itertools, math, random, textwrap
from collections import Counter
def solve(g):
    count = Counter(v for row in copy.deepcopy(g) for v in row)
    rows = [sorted(row, reverse=True) for row in np.rot90(g).tolist()]
    odd = math.gcd(random.randint(6, 6), 4)
    low = functools.reduce(min, itertools.chain(*g))
    text = textwrap.fill("a a", 2), bool(np.isinf(np.divide(1, 0)))
    return rows + [[len(g), sum(map(sum, g)), count.most_common(1)[0][1], odd, low, *text]]"""
RIGHT = [[4, 2], [3, 1], [2, 10, 1, 2, 1, "a\na", True]]
# Programs as people and models write them.
EVERYDAY = """
import copy
def task(grid):
    # the type of a cell is int
    out = copy.deepcopy(grid)
    return [row[::-1] for row in out]
===
def task(grid):
    if type(grid) == np.ndarray or type(grid[0]) is not list:
        grid = grid.tolist()
    return [[type(v).__name__ == "int" for v in row] for row in zip(*grid)]
===
def task(grid):
    out = grid.copy()
    out[grid == dsl.mode(grid)] = 3
    biggest = max(dsl.objects(out), key=lambda obj: obj.area)
    return dsl.move(out, biggest, 1, 0) if not biggest.is_line else biggest.image()
===
import dsl
from dsl import *
from dsl import objects as parts
def task(grid):
    return move(grid, dsl.objects(grid)[0], 1, 0) if parts(grid) else trim(grid)
===
from collections import deque, defaultdict, namedtuple
from typing import Dict, List, Optional, Set, Tuple
Cell = namedtuple("Cell", "row col")
COLORS = {0: "black", 1: "blue"}
def _neighbors(cell: Cell, height: int, width: int) -> List[Cell]:
    found = [Cell(cell.row + dr, cell.col + dc) for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    return [each for each in found if 0 <= each.row < height and 0 <= each.col < width]
def get_objects(grid):
    height, width = len(grid), len(grid[0])
    seen: Set[Cell] = set()
    parts = defaultdict(list)
    for start in (Cell(r, c) for r in range(height) for c in range(width)):
        queue = deque([start])
        while queue:
            cell = queue.popleft()
            if cell not in seen and grid[cell.row][cell.col] == grid[start.row][start.col]:
                seen.add(cell)
                parts[start].append(cell)
                queue.extend(_neighbors(cell, height, width))
    return parts
def transform(grid):
    mask = max(get_objects(grid).values(), key=len)
    top, left = min(mask)
    return [[len(mask), top, left]]
===
import numpy as np
def transform(grid):
    a = np.asarray(grid, dtype=np.int64)
    values, counts = np.unique(a, return_counts=True)
    rows, cols = np.nonzero(a != values[np.argmax(counts)])
    box = a[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
    tiled = np.pad(np.kron(box, np.ones((2, 2), dtype=int)), 1, constant_values=5)
    return np.where(tiled > 0, tiled, np.roll(np.rot90(tiled, 2), 1, axis=0)).astype(int).tolist()
===
import heapq, itertools, operator, random, re
from functools import lru_cache, reduce
class Grid:
    width = 3
    @staticmethod
    def rotate(grid):
        return [list(row)[::-1] for row in zip(*grid)]
def main(grid):
    @lru_cache(maxsize=None)
    def steps(n):
        return n if n < 2 else steps(n - 1) + steps(n - 2)
    try:
        key = "".join(str(v) for row in grid for v in row)
        number = int(re.sub("0+", lambda match: str(len(match.group(0))), key))
    except (ValueError, KeyError) as error:
        raise RuntimeError(f"no number: {error}") from error
    random.seed(number)
    pairs = sorted(itertools.product(range(3), repeat=2), key=operator.itemgetter(1))
    heap = [steps(n) for n in range(9)]
    heapq.heapify(heap)
    return Grid.rotate([[heapq.heappop(heap), reduce(operator.xor, sum(pairs, ())), random.choice([1, 2])]])
""".split("===")
# Names by which a program could change what its neighbours see.
TRICKY = """SimpleNamespace TextWrapper TypedDict ABCMeta EnumType FunctionType CodeType ag_frame as_strided
    attrgetter breakpoint cached_property catch_warnings clear_traps co_code compile cr_frame ctypes data
    dataclass default_factory delattr errstate eval exec f_back f_builtins f_globals f_locals filterwarnings
    flags fromfile frombuffer get_origin getattr getcontext gi_frame global_enum globals input lib load loads
    localcontext locals make_dataclass memmap memoryview methodcaller mro new_class nditer open partialmethod
    polynomial printoptions register resize set_bit_generator set_printoptions setattr setcontext seterr
    setflags setstate simplefilter singledispatch sys tb_frame testing tofile total_ordering type
    update_wrapper vars view wraps __annotate__ __builtins__ __class__ __dict__ __init__ __mro__ __prepare__
    __reduce_ex__ __set_name__ __subclasses__ _deepcopy_dispatch _default_encoder _getframe _inst""".split()
# A deadline that programs do not miss even on a busy machine. Its fraction marks the processes of these tests
# in the list of all processes.
SECONDS = 20 + os.getpid() / 1e9
SHORT = SECONDS - 19.7

if sys.platform != "linux" or level()[0] not in ("full", "seccomp"):
    pytest.skip(f"this machine gives {level()}", allow_module_level=True)

import trusting_child  # noqa: E402  these need Unix

from games.sandbox import lockdown  # noqa: E402
from games.sandbox.child import ALLOWED  # noqa: E402
from games.sandbox.harmless import HARMLESS  # noqa: E402


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
    ours = [
        "__init__",
        *(f"sandbox/{name}" for name in ("__init__", "child", "harmless", "lockdown", "plain")),
    ]
    ours = [f"{name}.py" for name in ours]
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


def test_sets_complex_numbers_and_dicts_of_collections_cross_both_ways(sandbox):
    source = """from collections import Counter, OrderedDict, defaultdict
def solve(*a): return [type(x).__name__ for x in a], a
def made():
    d = defaultdict(list)
    d["a"].append({1})
    return Counter("aab"), OrderedDict(b=1, a=2), d, {"abcdefgh"[i]: i for i in range(8)}, set("abcdefgh")
def order(): return {letter: 1 for letter in set("abcdefgh")}"""
    odd = {1, (2, "a")}, set(), frozenset([frozenset([1])]), 1 - 2.5j, {(1, 2): {3}}
    kinds = ["set", "set", "frozenset", "complex", "dict"]
    letters = {letter: i for i, letter in enumerate("abcdefgh")}
    made = {"a": 2, "b": 1}, {"a": 2, "b": 1}, {"a": [{1}]}, letters, set(letters)
    calls = [("solve", [*odd]), ("made", []), ("order", [])]
    want = [(kinds, odd), made, dict.fromkeys("abcdefgh", 1)]
    for result in sandbox.run([Job(source, calls)]) + sandbox.confirm([Job(source, calls)]):
        assert result.kind == "ok" and result.values == want
        assert [type(value) for value in result.values[1]] == [dict] * 4 + [set]


LIARS = """
class Equal:
    def __eq__(self, other): return True
    __hash__ = None
===
class Equal(set):
    def __eq__(self, other): return True
===
class Equal(complex):
    def __eq__(self, other): return True
===
from collections import Counter
class Equal(Counter):
    def __eq__(self, other): return True
===
class Equal(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
===
from enum import IntEnum
def Equal(): return IntEnum("Two", "a b").b
===
from collections import deque as Equal
===
def Equal():
    x = []
    x.append(x)
    return x
===
def Equal():
    x = 1
    for _ in range(40): x = frozenset([x])
    return x
===
def Equal(): return set(range(2000))
===
def Equal(): return {i * (2 ** 61 - 1) for i in range(2000)}
===
def Equal(): return {1: bytearray(b"a")}
===
def Equal(): return {b"a"}
===
def Equal(): return memoryview(b"a")
===
def Equal(): return {1}.__class__
"""


@pytest.mark.parametrize("liar", LIARS.split("==="))
def test_what_is_not_plain_never_comes_home(sandbox, liar):
    for inside in "Equal()", "[Equal()]", "(1, Equal())", "{1: Equal()}":
        (result,) = sandbox.run([solve(f"{liar}\ndef solve(): return {inside}")])
        assert (result.kind, result.values) == ("output", None), result


def test_counters_whose_methods_were_replaced(sandbox):
    """A program that gives Counter methods of its own changes nothing in what comes home."""
    source = """from collections import Counter
def solve():
    counter = Counter(a=1)
    for name in "items", "__len__", "__iter__", "__getitem__", "keys":
        setattr(Counter, name, lambda *a: 1 / 0)
    Counter.__eq__ = lambda a, b: True
    return counter"""
    assert sandbox.confirm([solve(source)])[0].values == [{"a": 1}]


def test_two_runs_are_compared_more_exactly_than_by_equality():
    values = (
        1,
        1.0,
        True,
        "1",
        None,
        [1],
        (1,),
        {1},
        frozenset([1]),
        {1: 1},
        {1: 1.0},
        {True: 1},
        0.0,
        -0.0,
        1 + 0j,
    )
    assert len({exact(value) for value in values}) == len(values)
    assert exact({3: [float("nan")], "a": {1, 2}}) == exact({"a": {2, 1}, 3: [float("nan")]})
    assert exact([[1, 2], [3]]) == exact([[1, 2], [3]]) != exact([[1, 2], [3.0]])


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
        "def solve(): return b'1'": ("output", "ValueError: not a plain value: bytes"),
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


def test_names_can_be_imported():
    """As a model writes it whose prompt names the library. What is inside it follows the rule for all."""
    program = "def solve(): return mode(np.array([[3, 3, 1]])) + {}.least(np.array([[3, 3, 1]]))"
    starts = ["import dsl", "import dsl as d", "from dsl import *", "from dsl import mode"]
    sources = [f"from dsl import mode\n{start}\n" + program.format("dsl") for start in starts]
    with Sandbox(names={"np": np, "dsl": dsl}, seconds=SECONDS) as sandbox:
        for tier in (sandbox.run, sandbox.confirm):
            results = tier([solve(source) for source in sources])
            assert [result.values for result in results] == [[4]] * len(sources), results
        wrong = [solve(f"import {name}\ndef solve(): return 1") for name in ("dsl.numpy", "os", "games")]
        assert [result.kind for result in sandbox.run(wrong)] == ["import"] * 3


def test_workers_share_the_work():
    with Sandbox(workers=2, seconds=SECONDS / 40) as sandbox:
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


@pytest.fixture
def take(monkeypatch):
    """A function that gives what a Worker makes of bytes of its child; nothing follows them if `ended`."""
    monkeypatch.setattr(module.Worker, "kill", lambda self: 0)
    monkeypatch.setattr(module.Worker, "drop", lambda self: 0)

    def take(data, nonce, served=1, shared=False, left=9, ended=True):
        worker = object.__new__(module.Worker)
        worker.config, worker.ready, worker.served, worker.shared = {"seconds": 0}, True, served, shared
        worker.calls, worker.index = [("solve", [])], 0
        worker.nonce, worker.buffer, worker.deadline = nonce, b"", time.monotonic() + left
        worker.channel, there = socket.socketpair()
        with worker.channel, there:
            there.sendall(data)
            if ended:
                there.shutdown(socket.SHUT_WR)
                return worker.take() or worker.take()
            return worker.take()

    return take


def frame(nonce, text):
    return nonce + struct.pack("<I", len(text)) + text.encode()


def test_bytes_do_not_move_a_deadline(take):
    """A program that goes on sending parts of an answer ends in time; a whole answer counts."""
    nonce = bytes(16)
    whole = frame(nonce, '[["ok","",false],[7]]')
    for size in range(len(whole)):
        assert take(whole[:size], nonce, left=9, ended=False) is None
        assert take(whole[:size], nonce, left=-1, ended=False).kind == "timeout"
    assert take(whole, nonce, left=-1, ended=False).values == [7]


def test_what_another_program_may_have_caused_is_tried_again(take):
    """After earlier programs in its child, whatever makes a child useless may be due to them."""
    nonce = bytes(16)
    ends = {"timeout": (b"", -1, False), "killed": (nonce, 9, True), "output": (b"rubbish", 9, True)}
    for kind in "ok", "error", "memory", "syntax", "import":
        ends[kind] = frame(nonce, f'[["{kind}","",true],[7]]'), 9, True
    for kind, (data, left, ended) in ends.items():
        assert take(data, nonce, 1, True, left, ended).kind == kind
        assert take(data, nonce, 2, True, left, ended).kind == "alone"
        assert take(data, nonce, 1, False, left, ended).kind == kind
    assert take(frame(nonce, '[["error","",false],null]'), nonce, 2, True).kind == "error"


def test_a_loop_left_behind_is_not_the_fault_of_a_neighbour():
    """A generator that loops when it is collected, which is while another program runs."""
    left = "".join(source for name, source, _ in HOSTILE if "a loop left behind" in name)
    busy = "def solve(n): return len([[] for _ in range(n)])"  # enough objects to start a collection
    with Sandbox(seconds=2 * SHORT) as sandbox:
        first, *others = sandbox.run([solve(left, GRID)] + [solve(busy, 5000)] * 3)
    assert first.values == [7] and [result.values for result in others] == [[5000]] * 3


def test_changed_modules_end_a_child(monkeypatch):
    """Programs that make their way into a shared child are found out where they change a module."""
    monkeypatch.setattr(module, "CHILD", trusting_child.__file__)
    lie = "lambda x: kept([[[5, 6]]] if x and type(x[0]) is list else x)"
    changes = ["json, 'dumps', LIE", "np, 'rot90'", "copy, 'deepcopy'", "functools, 'reduce'", "math, 'gcd'"]
    changes += ["itertools, 'chain'", "textwrap, 'fill'", "random, 'randint'", "json.encoder, 'float'"]
    start = f"{PIECES}import copy, functools, itertools, json, math, random, textwrap\nkept = json.dumps\n"
    start += "def solve(g): return 7\ncopy.copy(type('K', (), sets(%s))())"
    jobs = []
    for change in changes:
        jobs += [solve(start % change.replace("LIE", lie), GRID), solve(HONEST, GRID)]
    with Sandbox(seconds=SECONDS, names={"np": np}) as sandbox:
        results = sandbox.run(jobs)
    assert [result.values for result in results[1::2]] == [[RIGHT]] * len(changes)


def test_who_may_share_a_child():
    """Programs as people write them share a child; those that try to poison one run alone."""
    bench = (Path(module.__file__).parents[2] / "bench" / "sandbox.py").read_text()
    honest = [HONEST, *EVERYDAY, *ast.literal_eval(re.search(r"PROGRAMS = (\[.*?\n\])", bench, re.S)[1])]
    hostile = [source for name, source, _ in HOSTILE if "poison: " in name and "left behind" not in name]
    hostile += [f"def solve(g): return g.{name}" for name in TRICKY]
    hostile += [f"from numpy import {name} as array" for name in TRICKY]
    config = {"seed": 0, "names": {"np": "numpy", "dsl": "games.arc.dsl"}}
    script = """import json, sys
from games.sandbox.child import Runner
config, sources = json.load(sys.stdin)
runner = Runner(config)
print([runner.may_share(source, compile(source, "", "exec")) for source in sources])"""
    options = dict(cwd=Path(module.__file__).parents[2], capture_output=True, text=True, check=True)
    text = json.dumps([config, honest + hostile])
    found = subprocess.run([sys.executable, "-c", script], input=text, **options)
    found = dict(zip(honest + hostile, ast.literal_eval(found.stdout)))
    assert [source for source in honest if not found[source]] == []
    assert [source for source in hostile if found[source]] == []


@pytest.mark.filterwarnings("ignore")  # numpy has names that are no more
def test_harmless_names_lead_to_nothing_that_programs_share():
    """From all that a program starts with, they lead to no other module, to no class of classes, and to
    nothing that one program could change and another read."""
    names = HARMLESS - {"__annotations__", "types"}  # nobody reads the first; a ufunc's types are a new list
    start = [importlib.import_module(name) for name in ALLOWED]
    allowed = [importlib.import_module(name) for name in ("collections.abc", "numpy.linalg", "numpy.random")]
    allowed += [*start, importlib.import_module("numpy.typing")]
    todo = start + [vars(builtins)[name] for name in names.intersection(vars(builtins))]
    seen = {}
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, (int, float, complex, str, bytes)):
            continue
        seen[id(thing)] = thing
        assert not isinstance(thing, (dict, list, set, bytearray, np.ndarray)), thing
        assert not isinstance(thing, ModuleType) or thing in allowed, thing
        assert not isinstance(thing, type) or not issubclass(thing, type), thing
        for name in names:
            inside = getattr(thing, name, None)
            if getattr(inside, "__self__", None) is not thing:  # a bound method is made anew at each look
                todo.append(inside)
    assert len(seen) > 900


def test_rubbish_on_the_channel_is_never_an_answer(take):
    """Random bytes and valid frames with one change raise nothing and give no value."""
    draw = random.Random(0)
    inside = '[["ok","",false],[%s]]'
    values = ["[" * 99, "[" * 40 + "]" * 40, '"\\ud800"', "{}", "1,2", '{"x":[]}', '{"t":[],"d":[]}']
    values += [
        '{"c":[1,2]}',
        '{"c":[1.0]}',
        '{"c":[1.0,true]}',
        '{"s":[[]]}',
        '{"s":[1,true]}',
        '{"f":[{"s":[]}]}',
    ]
    values += [
        '{"s":{}}',
        '{"f":1}',
        '{"c":1}',
        '{"d":["ab"]}',
        '{"s":[' + ",".join(map(str, range(2000))) + "]}",
    ]
    values += ['{"t":1}', '{"d":[1]}', '{"d":[[[],1]]}', '{"d":[[1,1],[true,1]]}']
    texts = ["[]", "1", "null", '"a"', "[[1,2],[3]]", '[["ok","",false]]', '[["ok","",0],[1]]', "[" * 5000]
    texts += ['[["ok",1,false],[1]]', '[[[],"",false],[1]]', '[["fine","",false],[1]]']
    texts += ['[["alone","",false],null]', '[["ok","",false],{"t":[1]}]']
    texts += [inside % value for value in values]
    kinds = Counter()
    for turn in range(3000):
        nonce = draw.randbytes(16)
        if turn % 3:
            data = frame(nonce, texts[turn % len(texts)])
        else:
            data = nonce[: draw.randrange(17)] + draw.randbytes(draw.randrange(200))
        result = take(data, nonce)
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
