"""Hostile and faulty programs for the sandbox: HOSTILE, a list of (name, source, kinds of result allowed).

Each program defines solve(grid); numpy is np. The kind "ok" allows any plain value except the expected one,
which no program knows. In WRITTEN a program begins with its name and kinds. `@` marks programs that use up
their time, `+` programs that start with every loaded module at hand (REACH), since a refused import is no
defence, `~` programs that try to change what the next program of their child sees, and start with names in
pieces (PIECES), since a name that is spelt out is easily found. MARK is in the name of every file that a
program tries to make, SECRET in the tests' environment."""

MARK, SECRET = "parlor-hostile", "PARLOR_SECRET"
REACH = """import warnings
sys = warnings.sys
M = sys.modules
os, imp = M["os"], M["builtins"].__import__
zygote, frame = 0, sys._getframe()
while frame:
    zygote = getattr(frame.f_locals.get("lock"), "zygote", zygote)
    frame = frame.f_back
"""
PIECES = """u = "_"
dunder = lambda name: u + u + name + u + u
seven = lambda *a, **k: 7
def sets(target, name, value=seven):
    return {dunder("reduce_ex"): lambda self, n: (lambda: target, (), (None, {name: value}))}
"""
ANY = "ok error import output killed memory timeout"


WRITTEN = r"""
=== @loop: timeout
def solve(g):
    while True: pass
=== @loop at import: timeout
while 1: pass
=== @loop that catches everything: timeout
def solve(g):
    while True:
        try:
            while True: pass
        except BaseException: pass
=== @loop in C: timeout memory
def solve(g): return sum(iter(int, 1))
=== @regular expression without end: timeout
import re
def solve(g): return bool(re.match("(a+)+$", "a" * 64 + "b"))
=== @power of powers: timeout memory
def solve(g): return 7 ** 7 ** 9 % 10
=== @growing pow in numpy: timeout memory error
def solve(g):
    a = np.ones((3000, 3000))
    while True: a = a @ a
=== @__repr__ without end: timeout
class E(Exception):
    def __str__(self):
        while True: pass
def solve(g): raise E()
=== @__del__ without end: timeout ok
class D:
    def __del__(self):
        while True: pass
def solve(g):
    d = D()
    del d
    return 1
=== @generator without end: timeout memory
def solve(g): return list(x for x in iter(int, 1))
=== + sleep: error timeout
def solve(g): M["time"].sleep(100); return 1
=== + select sleeps: error timeout
def solve(g): M["select"].select([], [], [], 100); return 1
=== @+ stops itself: any
def solve(g): os.kill(os.getpid(), 19); os.killpg(0, 19); return 1
=== @reads from the channel: timeout killed error ok output
import numpy as np
def solve(g): return len(np.fromfile(3, dtype=np.uint8, count=1000000))
=== imports what sleeps: import
import time
def solve(g): time.sleep(100)

=== @list of lists flood: memory timeout
def solve(g):
    a = []
    while True: a.append([0] * 10000)
=== big bytes: memory
def solve(g): return len(bytearray(1 << 34))
=== big numpy array: memory
def solve(g): return int(np.ones((1 << 16, 1 << 16)).sum())
=== @string doubled: memory timeout
def solve(g):
    s = "ab"
    while True: s += s
=== @dict flood: memory timeout
def solve(g): return len({i: [i] * 100 for i in range(1 << 30)})
=== @memory kept by an exception: any
class K(Exception): pass
def solve(g):
    k = K()
    k.keep = []
    try:
        while True: k.keep.append(bytearray(1 << 20))
    except MemoryError: raise k
=== recursion: error killed
def solve(g): return solve(g) + 1
=== @+ recursion without a limit: any
def solve(g):
    sys.setrecursionlimit(1 << 30)
    def f(n): return [f(n + 1)]
    return f(0)
=== @recursion in C: any
def solve(g):
    a = []
    for _ in range(1000000): a = [a]
    return repr(a) == 1
=== @deep destructor: any
def solve(g):
    a = None
    for _ in range(3000000): a = (a,)
    return 1
=== values too deep: output
def solve(g):
    a = 1
    for _ in range(200): a = [a]
    return a
=== values too many: output
def solve(g): return [0] * 10000000
=== values that share: output
def solve(g):
    a = [1]
    for _ in range(30): a = [a, a]
    return a
=== a long string: output
def solve(g): return "x" * (1 << 24)
=== a huge integer: output
def solve(g): return 1 << 1000000
=== a dict too long: output
def solve(g): return {i: i for i in range(100000)}
=== output flood: ok timeout
def solve(g):
    for _ in range(2000): print("x" * 10000)
    return 1
=== + error output flood: ok timeout error
def solve(g):
    for _ in range(1000): sys.stderr.write("x" * 10000); os.write(2, b"x" * 10000)
    return 1
=== warnings flood: ok timeout
import warnings
warnings.simplefilter("always")
def solve(g):
    for i in range(2000): warnings.warn("w" * 1000 + str(i))
    return 1

=== + fork: any
def solve(g):
    os.fork()
    return 1
=== + fork bomb: any
def solve(g):
    for _ in range(40):
        try: os.fork()
        except OSError: pass
    return 1
=== + vfork and exec: any
def solve(g): return M["subprocess"].run(["/bin/sh", "-c", "echo 1"], capture_output=True).returncode
=== + system: any
def solve(g): return os.system("touch /tmp/parlor-hostile-system")
=== + popen: any
def solve(g): return os.popen("id").read()
=== + posix_spawn: any
def solve(g): return os.posix_spawn("/bin/true", ["true"], {})
=== + exec: any
def solve(g): os.execv("/bin/true", ["true"])
=== + threads: any
def solve(g):
    import _thread
    return 1
def run():
    while True: pass
for _ in range(10): imp("_thread").start_new_thread(run, ())
=== + multiprocessing: any
def solve(g): return imp("multiprocessing").Pool(2).map(abs, [1])
=== + daemon: any
def solve(g):
    if os.fork() == 0:
        os.setsid()
        while True: pass
    return 1
=== + exit: any
def solve(g): os._exit(0)
=== + exit status that looks like a pass: any
def solve(g): os._exit(77)
=== sys.exit: error
def solve(g): raise SystemExit(0)
=== exit at import: error
raise SystemExit
=== quit: error
def solve(g): quit()
=== keyboard interrupt: error
def solve(g): raise KeyboardInterrupt
=== + atexit: any
imp("atexit").register(lambda: os.write(3, b"R" * 100))
def solve(g): return 1
=== + abort: any
def solve(g): os.abort()
=== + kill oneself: any
def solve(g): os.kill(os.getpid(), 9)
=== + kill the parent: any
def solve(g): os.kill(zygote, 9); return 1
=== + interrupts the grandparent: any
def solve(g):
    for pid in range(2, 40): os.kill(pid, 2)
    return 1
=== + kill everyone: any
def solve(g): os.kill(-1, 9); return 1
=== + kill the group: any
def solve(g): os.killpg(os.getpgid(zygote), 9); return 1
=== + alarm: any
def solve(g):
    s = M["signal"]
    s.signal(s.SIGALRM, lambda *a: None); s.alarm(1); s.setitimer(s.ITIMER_REAL, 0.001, 0.001)
    return 1
=== @+ ignores signals: any
s = M["signal"]
for n in range(1, 65):
    try: s.signal(n, s.SIG_IGN)
    except Exception: pass
def solve(g):
    while True: pass
=== + ptrace of the parent: any
def solve(g): return M["ctypes"].CDLL(None).ptrace(16, zygote, 0, 0)
=== + writes the parent's memory: any
def solve(g):
    c = M["ctypes"]
    return c.CDLL(None).process_vm_readv(zygote, 0, 0, 0, 0, 0)
=== + signals by queue and thread: any
def solve(g):
    c = M["ctypes"].CDLL(None)
    return [c.syscall(n, zygote, 9, 0) for n in (62, 129, 130, 234, 434, 200)]
=== + keeps its parent's pid: any
def solve(g): return [zygote > 1, os.stat(f"/proc/{zygote}/fd").st_size]
=== + priority: any
def solve(g): os.nice(-10); os.sched_setaffinity(0, {0}); return 1

=== + reads /etc/passwd: any
def solve(g): return open("/etc/passwd").read()
=== + reads by descriptor: any
def solve(g): return os.read(os.open("/etc/hostname", 0), 100).decode()
=== opens a file: error
def solve(g): return open("/etc/passwd").read()
=== numpy opens a file: error
def solve(g): return np.fromfile("/etc/passwd", dtype=np.uint8).tolist()
=== + own memory: any
def solve(g): return open("/proc/self/mem", "rb").read(10).hex()
=== + the zygote's memory: any
def solve(g): return open(f"/proc/{zygote}/mem", "rb").read(10).hex()
=== + the zygote's environment: any
def solve(g): return open(f"/proc/{zygote}/environ").read()
=== + own environment: any
def solve(g): return str(dict(os.environ))
=== + lists folders: any
def solve(g): return os.listdir("/proc") + os.listdir(".")
=== + writes files: any
def solve(g):
    for folder in ".", "/tmp", "/dev/shm", "/var/tmp", os.path.expanduser("~"):
        try: open(folder + "/parlor-hostile-file", "w").write("x")
        except OSError: pass
    return 1
=== + makes folders and links: any
def solve(g):
    for make in os.mkdir, os.mkfifo, lambda p: os.symlink("/etc", p), lambda p: os.link("/etc/passwd", p):
        try: make("/tmp/parlor-hostile-made")
        except OSError: pass
    return 1
=== + memory file: any
def solve(g): return os.memfd_create("x")
=== + shared memory: any
def solve(g):
    return imp("_posixshmem").shm_open("/parlor-hostile-shm", 66, 0o600)
=== + deletes and renames: any
def solve(g): os.rename("/tmp", "/tmp2"); os.remove("/etc/passwd"); return 1
=== + device: any
def solve(g): return open("/dev/mem", "rb").read(1).hex()
=== numpy saves: error
def solve(g): np.save("/tmp/parlor-hostile.npy", np.ones(3)); return 1
=== memmap: error import
def solve(g): return int(np.memmap("/tmp/parlor-hostile.map", mode="w+", shape=3)[0])
=== + changes folder and mask: any
def solve(g): os.chdir("/tmp"); os.umask(0); return os.getcwd()
=== + raises limits: any
def solve(g):
    r = M["resource"]
    r.setrlimit(r.RLIMIT_AS, (-1, -1)); r.prlimit(zygote, r.RLIMIT_NOFILE, (3, 3))
    return 1
=== + becomes root: any
def solve(g): os.setuid(0); return os.getuid()
=== + sockets: any
def solve(g):
    s = M["socket"]
    for kind in s.SOCK_STREAM, s.SOCK_DGRAM:
        c = s.socket(s.AF_INET, kind); c.connect(("127.0.0.1", 53)); c.send(b"x")
    return 1
=== + unix socket: any
def solve(g): M["socket"].socket(M["socket"].AF_UNIX).bind("/tmp/parlor-hostile-socket"); return 1
=== + socket of a descriptor: any
def solve(g): return M["socket"].socket(fileno=3).sendmsg([b"x"]) or 1
=== + url: any
def solve(g): return imp("urllib.request").request.urlopen("http://127.0.0.1/").read().decode()

=== + answers on every descriptor: any
for fd in range(3, 64):
    try: os.write(fd, b'\0' * 16 + b'\x1a\0\0\0[["ok", "", false], [[1]]]')
    except OSError: pass
def solve(g): return 1
=== + answers with its own number: any
frame = sys._getframe()
while frame:
    head = frame.f_locals.get("head")
    if isinstance(head, bytes):
        text = b'[["ok", "", false], [[["forged"]]]]'
        os.write(3, head[:16] + len(text).to_bytes(4, "little") + text)
    frame = frame.f_back
def solve(g): return 1
=== + answers twice: any
frame = sys._getframe()
while frame:
    head = frame.f_locals.get("head")
    if isinstance(head, bytes):
        text = b'[["ok", "", false], [[["forged"]]]]'
        os.write(3, (head[:16] + len(text).to_bytes(4, "little") + text) * 2)
    frame = frame.f_back
def solve(g): return 1
=== + deep and odd frames: any
frame = sys._getframe()
while frame:
    head = frame.f_locals.get("head")
    if isinstance(head, bytes):
        text = b'[["ok", "", false], [' + b"[" * 100000 + b"]" * 100000 + b"]]"
        os.write(3, head[:16] + len(text).to_bytes(4, "little") + text)
    frame = frame.f_back
def solve(g): return 1
=== + keys that collide: any
frame = sys._getframe()
while frame:
    head = frame.f_locals.get("head")
    if isinstance(head, bytes):
        keys = ", ".join("[%d, 0]" % (i * (2**61 - 1)) for i in range(9000))
        text = ('[["ok", "", false], [{"d": [' + keys + ']}]]').encode()
        os.write(3, head[:16] + len(text).to_bytes(4, "little") + text)
    frame = frame.f_back
def solve(g): return 1
=== + asks to be run again for ever: any
frame = sys._getframe()
while frame:
    head = frame.f_locals.get("head")
    if isinstance(head, bytes):
        text = b'[["alone", "", false], null]'
        os.write(3, head[:16] + len(text).to_bytes(4, "little") + text)
    frame = frame.f_back
def solve(g): return 1
=== + a length without end: any
def solve(g): os.write(3, b"\xff" * 24); return 1
=== @+ half a frame: any
def solve(g):
    os.write(3, b"\0" * 3)
    while True: pass
=== @+ floods the channel: any
def solve(g):
    while True: os.write(3, b"R" * 65536)
=== + closes all descriptors: any
def solve(g): os.closerange(0, 1000); return 1
=== + moves descriptors: any
def solve(g): os.dup2(3, 1); os.dup2(0, 3); print("R" * 100, flush=True); return 1
=== + raw pickles: any
def solve(g): os.write(3, b"cos\nsystem\n(S'touch /tmp/parlor-hostile-pickle'\ntR."); return 1
=== + prints to the channel: any
def solve(g): sys.stdout = os.fdopen(3, "w"); print('[["ok", "", false], [1]]'); sys.stdout.flush(); return 1

=== + objects of gc: any
def solve(g):
    found = [o for o in M["gc"].get_objects() if type(o) in (dict, list) and "expected" in o]
    return len(str(found)[:100])
=== + frames: any
def solve(g):
    frame, found = sys._getframe(), []
    while frame:
        found += [k for k in frame.f_locals if "expect" in k or "answer" in k]
        frame = frame.f_back
    return found
=== + inspect: any
def solve(g): return [str(f.filename) for f in imp("inspect").stack()]
=== subclasses: any
def solve(g):
    for c in ().__class__.__base__.__subclasses__():
        if c.__name__ == "_wrap_close":
            return c.__init__.__globals__["system"]("touch /tmp/parlor-hostile-sub")
=== traceback frames: any
def solve(g):
    try: raise ValueError
    except ValueError as e:
        f = e.__traceback__.tb_frame
        while f.f_back: f = f.f_back
        return str(f.f_globals["sys"].argv)
=== generator frames: any
def solve(g):
    x = (x.gi_frame.f_back.f_back for x in [None])
    return str(list(x))
=== format walks: any
def solve(g): return "{0.__globals__[__builtins__]}".format(solve)[:1000]
=== + executable memory: any
def solve(g):
    m = imp("mmap").mmap(-1, 4096, prot=7)
    return len(m)
=== + null pointer: any
def solve(g): return M["ctypes"].string_at(0)
=== + writes memory at random: any
def solve(g):
    M["ctypes"].memset(id(solve), 255, 1 << 16)
    return 1
=== + loads a library: any
def solve(g): return M["ctypes"].CDLL("libm.so.6").abs(1)
=== crash by bytecode: any
def f(): pass
f.__code__ = f.__code__.replace(co_code=b"\x53\x00" * 4, co_stacksize=0)
def solve(g): return f()
=== as_strided: any
from numpy.lib.stride_tricks import as_strided
def solve(g):
    as_strided(np.zeros(1), (1 << 20,), (8,))[:] = 7
    return 1
=== import of os: import
import os
def solve(g): return os.getcwd()
=== import by name: import
def solve(g): return __import__("subprocess").getoutput("id")
=== import of ctypes: import
from ctypes import CDLL
=== relative import: import
from . import sandbox
=== importlib: import
import importlib
=== import * of a stranger: import
from antigravity import *
=== import of nothing: import error
import no_such_module_anywhere

=== builtins replaced: any
import builtins
builtins.len = builtins.sum = builtins.range = lambda *a: 7
=== + builtins poisoned: any
b = M["builtins"]
b.len = b.sum = b.sorted = b.range = b.list = b.zip = lambda *a, **k: 7
def solve(g): return 7
=== own builtins poisoned: any
__builtins__["len"] = __builtins__["range"] = lambda *a: 7
def solve(g): return 7
=== json and struct patched: any
import json
json.dumps = lambda *a, **k: "[[1]]"
def solve(g): return object()
=== isinstance and type patched: any
import builtins
builtins.isinstance = lambda *a: True
builtins.type = lambda *a: list
def solve(g): return object()
=== + type patched: any
M["builtins"].type = lambda *a: int
M["builtins"].isinstance = lambda *a: True
def solve(g): return object()
=== numpy patched: any
np.rot90 = np.array = np.flipud = np.array_equal = lambda *a, **k: True
def solve(g): return True
=== numpy patched by setattr: any
setattr(np, "rot90", lambda *a: 7)
def solve(g): return 7
=== numpy patched by dict: any
vars(np)["rot90"] = np.__dict__["flipud"] = lambda *a: 7
def solve(g): return 7
=== numpy patched by a loop: any
for np.rot90 in [lambda *a: 7]: pass
def solve(g): return 7
=== numpy deleted: any
del np.rot90, np.flipud
def solve(g): return 7
=== a function's code replaced: any
import functools
functools.update_wrapper(np.rot90, lambda *a: 7, assigned=["_" * 2 + "code" + "_" * 2])
def solve(g): return 7
=== a class of the library decorated: any
from collections import Counter
from dataclasses import dataclass
dataclass(Counter)
def solve(g): return 7
=== a class of the library made to compare: any
import functools, random
class R(random.Random):
    def __lt__(self, other): return True
functools.total_ordering(R)
def solve(g): return 7
=== memory kept alive: any
def solve(g):
    a = np.zeros(10, int)
    b = a[:]
    a.resize(1 << 20, refcheck=False)
    b[:] = -1
    return 7
=== modules poisoned: any
import warnings
warnings.sys.modules["numpy"] = warnings.sys.modules["math"] = warnings
def solve(g): return 7
=== + modules emptied: any
M.clear()
def solve(g): return 7
=== + import hook: any
class Hook:
    def find_spec(self, *a): raise SystemExit
sys.meta_path.insert(0, Hook()); sys.path_hooks.clear(); sys.path[:] = []
del M["math"]
def solve(g): return 7
=== + import replaced: any
M["builtins"].__import__ = lambda *a, **k: 7
def solve(g): return 7
=== + trace functions: any
def trace(frame, event, arg):
    frame.f_locals.clear()
    return trace
sys.settrace(trace); sys.setprofile(trace)
def solve(g): return 7
=== + switch interval and limits: any
sys.setrecursionlimit(60); sys.set_int_max_str_digits(0); sys.setswitchinterval(100)
def solve(g): return 10 ** 100000
=== + hooks: any
sys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)
def solve(g): raise ValueError
=== error state: any
np.seterr(all="raise")
np.set_printoptions(threshold=1)
def solve(g): return 7
=== decimal context: any
import decimal
decimal.getcontext().prec = 1
def solve(g): return 7
=== random state: ok
import random
random.seed(5); np.random.seed(5)
def solve(g): return [random.random(), float(np.random.rand())]
=== + warnings to errors: any
warnings.simplefilter("error")
def solve(g): return 7
=== garbage collector off: import
import gc
gc.disable()
=== json decoder default: any
import json
json._default_decoder.decode = lambda s: 7
def solve(g): return 7
=== copy dispatch: any
import copy
copy._deepcopy_dispatch[list] = lambda *a: 7
def solve(g): return 7
=== copy dispatch by a pattern: any
import copy
match copy.deepcopy:
    case object(__globals__=names): names["_deepcopy_dispatch"][list] = lambda *a: 7
def solve(g): return 7
=== copy dispatch by a coroutine's code: any
import copy
async def f(x): return x.y
code = f(1).cr_code.replace(co_names=("_".join(["", "", "globals", "", ""]),))
try: type(f)(code, {})(copy.deepcopy).send(None)
except StopIteration as e: e.value["_deepcopy_dispatch"][list] = lambda *a: 7
def solve(g): return 7
=== deepcopy replaced: any
import copy
copy.deepcopy = lambda x: 7
def solve(g): return 7
=== + functions of the sandbox replaced: any
main = M["__main__"]
main.pack = main.unpack = lambda *a: [[1]]
main.Runner.run = lambda *a: (["ok", "", False], "[[1]]")
def solve(g): return 7

=== ~ json by a class of type(): any
import copy, json
kept = json.dumps
lie = lambda x: kept([[[5, 6]]] if x and type(x[0]) is list else x)
copy.copy(type("K", (), sets(json, "dumps", lie))())
def solve(g): return 7
=== ~ the encoder of json by a list of classes: any
import copy, json
kept = json.JSONEncoder.encode
lie = lambda self, x: kept(self, [[[5, 6]]] if x and type(x[0]) is list else x)
copy.deepcopy([type("K", (), sets(json.JSONEncoder, "encode", lie))()])
def solve(g): return 7
=== ~ numpy by types.new_class: any
import copy, types
copy.copy(types.new_class("K", (), {}, lambda space: space.update(sets(np, "rot90")))())
def solve(g): return 7
=== ~ copy by make_dataclass: any
import copy, dataclasses
copy.copy(dataclasses.make_dataclass("K", [], namespace=sets(copy, "deepcopy"))())
def solve(g): return 7
=== ~ copy by a field's default: any
import copy, dataclasses
copy.copy(dataclasses.make_dataclass("K", [("x", int, 0)], namespace=sets(copy, "deepcopy"))(1))
def solve(g): return 7
=== ~ functools by ABCMeta: any
import abc, copy, functools
copy.deepcopy(abc.ABCMeta("K", (), sets(functools, "reduce"))())
def solve(g): return 7
=== ~ random by a class of classes of its own: any
import copy, random
class M(type): pass
copy.copy(M("K", (), sets(random, "randint"))())
def solve(g): return 7
=== ~ random by the class of a class: any
import copy, random
copy.copy(type(type(1))("K", (), sets(random, "randint"))())
def solve(g): return 7
=== ~ random by a class of typing: any
import copy, random, typing
copy.copy(typing.get_origin(typing.Type[int])("K", (), sets(random, "randint"))())
def solve(g): return 7
=== ~ random by a generic alias: any
import copy, random
copy.copy(type[int]("K", (), sets(random, "randint"))())
def solve(g): return 7
=== ~ random by a wide type: any
import copy, random
copy.copy(ｔype("K", (), sets(random, "randint"))())
def solve(g): return 7
=== ~ random by map: any
import copy, random
copy.copy([*map(type, ["K"], [()], [sets(random, "randint")])][0]())
def solve(g): return 7
=== ~ random by what a comparison hides: any
import copy, random
kind = type(1) == int and type(") == ", (), sets(random, "randint"))
copy.copy(kind())
def solve(g): return 7
=== ~ itertools by a namespace with attributes: any
import copy, itertools, types
given = {name: lambda n, f=f: f(0, n) for name, f in sets(itertools, "chain").items()}
copy.deepcopy(types.SimpleNamespace(**given))
def solve(g): return 7
=== ~ a method of Counter: any
import collections, copy
copy.copy(type("K", (), sets(collections.Counter, "most_common"))())
def solve(g): return 7
=== ~ numpy by the dict of a copy: any
import copy
state = {dunder("reduce_ex"): lambda self, n: (lambda: np, (), {"rot90": seven})}
copy.copy(type("K", (), state)())
def solve(g): return 7
=== ~ dataclasses.asdict copies: any
import copy, dataclasses
kind = type("K", (), sets(copy, "deepcopy"))
dataclasses.asdict(dataclasses.make_dataclass("D", ["x"])(kind()))
def solve(g): return 7
=== ~ an array of objects copies: any
import copy, math
a = np.empty(1, object)
a[0] = type("K", (), sets(math, "gcd"))()
copy.deepcopy(a)
def solve(g): return 7
=== ~ numpy loads a pickle: any
data = b"cbuiltins\nsetattr\n(cimportlib\nimport_module\n(S'math'\ntRS'gcd'\ncbuiltins\nmax\ntR."
class File:
    at = [0]
    def read(self, n=-1):
        start = self.at[0]
        self.at[0] = len(data) if n < 0 else min(len(data), start + n)
        return data[start : self.at[0]]
    def readline(self): return self.read(data.index(b"\n", self.at[0]) + 1 - self.at[0])
    def seek(self, n, whence=0): self.at[0] = n if whence == 0 else self.at[0] + n
np.load(File(), allow_pickle=True)
def solve(g): return 7
=== ~ numpy's format reads a pickle: any
data = b"cbuiltins\nsetattr\n(cimportlib\nimport_module\n(S'math'\ntRS'gcd'\ncbuiltins\nmax\ntR."
head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
rest = [b"\x93NUMPY\x01\x00" + bytes([len(head), 0]) + head + data]
class File:
    def read(self, n=-1):
        start = rest[0][:n] if n >= 0 else rest[0]
        rest[0] = rest[0][len(start):]
        return start
    def readline(self): return self.read(rest[0].index(b"\n") + 1)
np.lib.format.read_array(File(), allow_pickle=True)
def solve(g): return 7
=== ~ wraps writes to a module: any
import functools
class K: rot90 = 7
functools.wraps(functools.cache(K))(np)
def solve(g): return 7
=== ~ a dict that all TextWrappers share: any
import textwrap
textwrap.TextWrapper.unicode_whitespace_trans.update({ord("a"): "b"})
def solve(g): return 7
=== ~ __set_name__ of an attribute: any
import copy, math
given = {dunder("set_name"): lambda self, owner, name: copy.copy(type("L", (), sets(math, name))())}
class K: gcd = type("N", (), given)()
def solve(g): return 7
=== ~ __init_subclass__: any
import copy, math
begin = classmethod(lambda cls, **k: copy.copy(type("L", (), sets(**k))()))
kind = type("K", (), {dunder("init_subclass"): begin})
class S(kind, target=math, name="gcd"): pass
def solve(g): return 7
=== ~ __prepare__ of a class of classes: any
import copy, math
class M(type):
    def __prepare__(name, bases): return sets(math, "gcd")
class K(metaclass=M): pass
copy.copy(K())
def solve(g): return 7
=== ~ a metaclass that is a function: any
import copy, math
class K(metaclass=lambda name, bases, space: type(name, bases, {**space, **sets(math, "gcd")})): pass
copy.copy(K())
def solve(g): return 7
=== ~ numpy's errors raise for good: any
def hold():
    with np.errstate(all="raise"): yield
keep = [hold()]
next(keep[0])
keep.append(keep)
def solve(g): return 7
=== ~ warnings raise for good: any
import copy, warnings
def hold():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
keep = [hold()]
next(keep[0])
keep.append(keep)
def solve(g): return 7
=== ~ memory left behind: ok memory
keep = [bytearray(480 << 20)]
keep.append(keep)
def solve(g): return 7
=== @~ a loop left behind: ok timeout
def loop():
    try: yield
    finally:
        while True: pass
keep = [loop() for _ in range(3)]
for each in keep: next(each)
keep.append(keep)
def solve(g): return 7
=== @+ drips half a frame: timeout error output
frame = sys._getframe()
while frame:
    head = frame.f_locals.get("head")
    if isinstance(head, bytes):
        os.write(3, head[:16] + (200000).to_bytes(4, "little"))
        while True:
            os.write(3, b" ")
            for _ in range(1000): pass
    frame = frame.f_back
def solve(g): return 1
=== @+ drips a number: timeout error
frame = sys._getframe()
while frame:
    head = frame.f_locals.get("head")
    if isinstance(head, bytes):
        for byte in head[:15]: os.write(3, bytes([byte]))
        while True: pass
    frame = frame.f_back
def solve(g): return 1

=== equal to everything: output
class A:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = None
def solve(g): return A()
=== list that lies: output
class L(list):
    def __eq__(self, other): return True
    def __len__(self): return 2
def solve(g): return L([[1, 2], [3, 4]])
=== integers that lie: output
class I(int):
    def __eq__(self, other): return True
    def __hash__(self): return 1
def solve(g): return [[I(1)]]
=== strings that lie: output
class S(str):
    def __eq__(self, other): return True
def solve(g): return S("a")
=== array that lies: output
class N(np.ndarray):
    def __eq__(self, other): return np.True_
    def all(self): return True
def solve(g): return np.zeros((2, 2), int).view(N)
=== class changed: output error
class A: pass
def solve(g):
    a = A()
    a.__class__ = type("list", (A,), {})
    return a
=== __class__ property: output
class A:
    __class__ = list
def solve(g): return A()
=== reduce: output
class R:
    def __reduce__(self): return eval, ("__import__('os').system('touch /tmp/parlor-hostile-reduce')",)
def solve(g): return R()
=== metaclass that lies: any
class T(type):
    def __eq__(self, other): return True
    def __hash__(self): return hash(list)
    def __instancecheck__(self, other): return True
class A(metaclass=T): pass
def solve(g): return A()
=== array interface: output
class A:
    def __array__(self, *a, **k): return np.ones(2)
    def __len__(self): return 1
    def __iter__(self): return iter([1])
def solve(g): return A()
=== masked array: output
def solve(g): return np.ma.array([[1, 2]], mask=[[True, False]])
=== matrix: output
def solve(g): return np.matrix([[1, 2], [3, 4]])
=== array of objects: output
class A:
    def __eq__(self, other): return True
def solve(g): return np.array([[A()]], dtype=object)
=== array of floats: output
def solve(g): return np.ones((2, 2))
=== array of booleans: output
def solve(g): return np.ones((2, 2)) > 0
=== array of strings: output
def solve(g): return np.array(["a"])
=== array without memory behind it: output
def solve(g): return np.broadcast_to(np.int64(1), (1 << 20, 1 << 20))
=== generator: output
def solve(g): return (row for row in g)
=== map: output
def solve(g): return map(list, g)
=== range: output
def solve(g): return range(3)
=== set: ok
def solve(g): return {1, 2}
=== set that equals everything: output
class S(set):
    def __eq__(self, other): return True
def solve(g): return S(g[0])
=== set of objects: output
class A:
    def __eq__(self, other): return True
    def __hash__(self): return 0
def solve(g): return {A()}
=== set too long: output
def solve(g): return set(range(2000))
=== set of keys that collide: output
def solve(g): return {i * (2**61 - 1) for i in range(2000)}
=== sets too deep: output
def solve(g):
    a = 1
    for _ in range(40): a = frozenset([a])
    return a
=== half a surrogate in a set: output
def solve(g): return {"\ud800"}
=== Counter with methods of its own: ok
from collections import Counter
def solve(g):
    counter = Counter(a=1)
    for name in "items", "__len__", "__iter__", "keys": setattr(Counter, name, lambda *a: 1 / 0)
    Counter.__eq__ = lambda a, b: True
    return counter
=== bytes: output
def solve(g): return b"abc"
=== complex: ok
def solve(g): return 1j
=== function: output
def solve(g): return solve
=== module: output
def solve(g): return np
=== namedtuple: output
from collections import namedtuple
def solve(g): return namedtuple("P", "x y")(1, 2)
=== defaultdict: ok
from collections import defaultdict
def solve(g): return defaultdict(int)
=== enum: output
from enum import IntEnum
def solve(g): return IntEnum("E", "A")(1)
=== fraction: output
from fractions import Fraction
def solve(g): return Fraction(1, 2)
=== cycle: output
def solve(g):
    a = [1]
    a.append(a)
    return a
=== cycle of dicts: output
def solve(g):
    a = {}
    a[1] = (a,)
    return a
=== half a surrogate: output
def solve(g): return "\ud800"
=== surrogate as a key: output
def solve(g): return {"\udfff": ["\ud800"]}
=== nan: ok
def solve(g): return [float("nan"), float("inf"), -0.0, True, 1, 1.0, None]
=== odd keys: ok
def solve(g): return {None: 1, True: 2, (1, "a"): [3], 2.5: (), "": {}}
=== keys that are equal to tags: ok
def solve(g): return [{"t": [1]}, {"d": [[1, 2]]}, {}, (), [], ((),), "\x00\x1b[2J"]
=== keys with hostile hashes: output ok
class K:
    def __hash__(self): return 1
    def __eq__(self, other): return True
def solve(g): return {K(): 1}
=== list that shrinks while it is read: output ok
a = [[1]] * 3
class L(list):
    def __len__(self):
        a.clear()
        return 1
def solve(g):
    a.append(L())
    return a
=== nothing: ok
def solve(g): pass
=== changes its argument: ok
def solve(g):
    g.clear()
    return g
=== numpy numbers: ok
def solve(g): return [np.int8(1), np.uint64(2**64 - 1), np.float32(0.5), np.bool_(True)]
=== asynchronous: output
async def solve(g): return g
=== asynchronous generator: output
async def solve(g): yield g
=== yields: output
def solve(g): yield from g

=== hostile __str__: error
class E(Exception):
    def __str__(self): raise SystemExit
    __repr__ = __str__
def solve(g): raise E
=== hostile name: error
class T(type):
    @property
    def __name__(self): raise KeyboardInterrupt
class E(Exception, metaclass=T): pass
def solve(g): raise E
=== message of megabytes: error
def solve(g): raise ValueError("x" * (1 << 24))
=== message with escapes: error
def solve(g): raise ValueError("\x1b[2J\r\n\u202e\x00 \ud800")
=== group of exceptions: error
def solve(g): raise BaseExceptionGroup("g", [SystemExit(1), KeyboardInterrupt()])
=== GeneratorExit: error
def solve(g): raise GeneratorExit
=== raises no exception: error
def solve(g): raise 1
=== exception that is its own cause: error
def solve(g):
    e = ValueError("a")
    e.__cause__ = e.__context__ = e
    raise e
=== fake MemoryError: memory
def solve(g): raise MemoryError("x")
=== wrong number of arguments: error
def solve(): return 1
=== no function: error
x = 1
=== function is no function: error
solve = 7
=== empty: error
=== comments only: error
# nothing
=== reads input: error
def solve(g): return input()
=== debugger: error import ok
def solve(g): breakpoint()
=== exec and eval: any
def solve(g): return eval(compile("__import__('os').getcwd()", "x", "eval"))
=== code in a string: any
exec("import os\nos.mkdir('/tmp/parlor-hostile-exec')")
=== full-width identifiers: any
def solve(g): return ｅｖａｌ("_＿import__('os')")
=== lambda: ok
solve = lambda g: [[0]]

=== unfinished: syntax
def solve(g): return [
=== prose: syntax
Here is the program: it rotates the grid.
=== fence: syntax
```python
def solve(g): return g
```
=== bad indent: syntax
def solve(g):
  a = 1
    return a
=== return outside: syntax
return 1
=== python 2: syntax
print "a"
=== nonlocal at the top: syntax
nonlocal x
=== unknown future: syntax
from __future__ import braces
=== coding cookie: ok error
# coding: utf-7
def solve(g): return 1 # +AAo-import os

=== different on every run: ok
import random
r = random.SystemRandom()
def solve(g): return r.getrandbits(128)
=== different by the clock: ok
from datetime import datetime
def solve(g): return datetime.now().isoformat()
=== different by hashes: ok
def solve(g): return [hash("a"), list({"a", "b", "c", "d", "e", "f", "g", "h"})]
=== different by address: ok
def solve(g): return id(object())
=== + different by process: any
def solve(g): return os.getpid()
=== different by numpy's entropy: ok
def solve(g): return float(np.random.default_rng().random())
=== different by the seed: ok
import random
def solve(g): return random.random()
=== + leaves a file for the second run: any
def solve(g):
    try: return open("/tmp/parlor-hostile-second").read()
    except OSError: open("/tmp/parlor-hostile-second", "w").write("7")
    return 1
=== + clocks: any
def solve(g): M["time"].clock_settime(0, 0); return 1
=== + host name: any
def solve(g): M["socket"].sethostname("hostile"); return 1
"""
GENERATED = [
    ("null byte", "def solve(g): return 1\0", {"syntax"}),
    ("only null bytes", "\0" * 100, {"syntax"}),
    ("half a surrogate in the source", "def solve(g): return '\ud800'", {"syntax"}),
    ("too long", "x = 1\n" * 100_000, {"syntax"}),
    ("much too long", "x = 1\n" * 3_000_000, {"syntax"}),
    ("long line", "x = [" + "1," * 20_000 + "]\ndef solve(g): return x[:3]", {"ok"}),
    ("parentheses", "(" * 30_000 + ")" * 30_000, {"syntax", "killed"}),
    ("nested brackets", "x = " + "[" * 150 + "]" * 150, {"syntax", "error"}),
    ("unary minus", "x = " + "-" * 60_000 + "1", {"syntax", "killed", "error"}),
    ("chain of operators", "x = " + "1 + " * 15_000 + "1", {"syntax", "killed", "error"}),
    ("chain of attributes", "x = a" + ".a" * 30_000, {"syntax", "killed", "error"}),
    ("nested blocks", "".join(" " * i + "if 1:\n" for i in range(120)) + " " * 120 + "x = 1", {"syntax"}),
    ("many arguments", "def solve(" + ",".join(f"a{i}" for i in range(9000)) + "): return 1", {"error"}),
    ("folding bomb", "x = ('a' * 4096) * 4096 * 4096\ndef solve(g): return 1", {"memory", "ok", "error"}),
    ("big literal", "x = 1" + "0" * 5000, {"syntax"}),
    ("byte order mark", "\ufeffdef solve(g): return 1", {"ok"}),
    ("carriage returns", "def solve(g):\r\n    return 1\r\n", {"ok"}),
    ("other line ends", "def solve(g):\r    return 1\r", {"ok"}),
    ("form feed and tabs", "\fdef solve(g):\n\treturn 1", {"ok"}),
    ("f-strings in f-strings", "x = " + "f'{" * 50 + "1" + "}'" * 50, {"syntax", "error"}),
    ("walrus and star", "def solve(g): return [*(y := g), *y][0][0]", {"ok"}),
]


def _programs():
    for block in WRITTEN.split("\n=== ")[1:]:
        head, _, source = block.partition("\n")
        name, kinds = head.split(": ")
        source = REACH + source if "+ " in name else source
        source = PIECES + source if "~ " in name else source
        kinds = ANY if kinds == "any" else kinds
        yield name.replace("+ ", "").replace("~ ", "poison: "), source.rstrip("\n") + "\n", set(kinds.split())


HOSTILE = [*_programs(), *GENERATED]
