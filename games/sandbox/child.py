"""The sandbox's other interpreter: a zygote that forks children, and a child that runs programs.

games/sandbox/sandbox.py starts it and says how it works. Read `zygote` first, at the end, then `child` and
Runner."""

import builtins
import gc
import importlib
import json
import os
import random
import signal
import socket
import struct
import sys
import warnings
from opcode import opmap
from types import CodeType, ModuleType

import numpy as np

from games.sandbox.lockdown import Lock
from games.sandbox.plain import OUTPUT, as_arrays, pack, unpack

SOURCE = 1 << 16  # characters of a program
ALLOWED = """__future__ abc array bisect cmath collections copy dataclasses datetime decimal enum fractions
    functools heapq itertools json math numbers numpy operator queue random re statistics string textwrap
    types typing unicodedata warnings""".split()
# What those import at their first use, when files are closed.
PRELOAD = """_strptime collections.abc encodings.ascii encodings.idna encodings.latin_1 linecache numpy.fft
    numpy.linalg numpy.ma numpy.polynomial numpy.random numpy.typing traceback""".split()
WATCHED = "builtins collections copy functools heapq itertools math numpy operator random re string".split()

# By these names and opcodes a program may reach what others use.
DUNDERS = set("__name__ __module__ __qualname__ __doc__ __init__ __annotations__ __future__".split())
TRICKY = set(
    """ag_code ag_frame as_strided attrgetter breakpoint clear_traps CodeType compile coroutine cr_code
    cr_frame ctypes dataclass delattr eval evaluate_forward_ref exec f_back f_builtins f_code f_globals
    f_locals filterwarnings Formatter ForwardRef fromfile FunctionType get_field get_type_hints getattr
    getcontext gi_code gi_frame global_enum globals input LambdaType localcontext locals memmap memoryview
    methodcaller mro no_type_check open register resetwarnings resize set_bit_generator set_printoptions
    set_string_function setattr setbufsize setcontext seterr seterrcall setflags simplefilter singledispatch
    tb_frame tb_next tofile total_ordering traps update_wrapper vars wraps""".split()
)
TRICKY_CODES = {opmap[name] for name in ("STORE_ATTR", "DELETE_ATTR", "MATCH_CLASS")}


def tame(code, tricky):
    """Whether a program looks as if it changed its own namespace only, so that it may share a child."""
    for name in {part for dotted in code.co_names for part in dotted.split(".")}:
        if name in tricky or (name.startswith("_") and name.strip("_") and name not in DUNDERS):
            return False
    for constant in code.co_consts:
        if type(constant) is str and "__" in constant and constant not in DUNDERS:
            return False
        if type(constant) is CodeType and not tame(constant, tricky):
            return False
    return TRICKY_CODES.isdisjoint(code.co_code[::2])


class Runner:
    """What a child needs to run programs; made in the zygote."""

    def __init__(self, config):
        warnings.simplefilter("ignore")
        self.seed = config["seed"]
        for name in ALLOWED + PRELOAD:
            importlib.import_module(name)
        self.names = {name: importlib.import_module(module) for name, module in config["names"].items()}
        given = set(config["names"].values())
        allowed = given.union(ALLOWED)
        real = builtins.__import__

        def importer(name, globals=None, locals=None, fromlist=(), level=0):
            if level or not (name in allowed or name.split(".")[0] in allowed):
                raise ImportError(f"module {name} is not allowed")
            return real(name, globals, locals, fromlist, level)

        self.builtins = {**vars(builtins), "__import__": importer}
        holds = ModuleType, dict, list, set, np.ndarray
        modules = [vars(sys.modules[name]) for name in allowed.union(PRELOAD, ["builtins"])]
        inside = {name for module in modules for name, thing in module.items() if isinstance(thing, holds)}
        self.tricky = TRICKY | (inside - allowed - set(self.names) - {"abc", "fft", "linalg", "random"})
        watched = [sys.modules, *[vars(sys.modules[name]) for name in given.union(WATCHED)]]
        self.before = [(names, dict(names)) for names in watched]

    def run(self, job):
        """[kind, message, whether the child should stop] of a job, and the JSON of its values."""
        try:
            if len(job["source"]) > SOURCE:
                raise SyntaxError(f"more than {SOURCE} characters")
            code = compile(job["source"].removeprefix("\ufeff"), "<program>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            return ["syntax", last_line(error), not isinstance(error, SyntaxError)], "null"
        if job["shared"] and not tame(code, self.tricky):
            return ["alone", "", False], "null"
        random.seed(self.seed)
        np.random.seed(self.seed)
        space = {"__name__": "program", "__builtins__": dict(self.builtins), **self.names}
        kind = "ok"
        message = ""
        values = []
        writing = False
        try:
            exec(code, space)
            for name, arguments in job["calls"]:
                arguments = unpack(arguments)
                writing = False
                if name not in space:
                    raise NameError(f"the program defines no {name}")
                value = space[name](*(as_arrays(arguments) if job["arrays"] else arguments))
                writing = True
                values.append(pack(value))  # a copy, at once: it may change later
            text = json.dumps(values)  # ValueError for integers of thousands of digits
            if len(text) > OUTPUT - 4096:
                raise ValueError(f"values of {len(text)} bytes")
        except BaseException as error:
            kind = "output" if writing else "import" if isinstance(error, ImportError) else "error"
            kind = "memory" if isinstance(error, MemoryError) else kind
            message = last_line(error)
            text = "null"
        stop = job["shared"] and (kind == "memory" or any(now != then for now, then in self.before))
        return [kind, message, bool(stop)], text

    def serve(self, source, sink):
        """Answer jobs until the parent closes the channel."""
        while head := source.read(20):
            job = json.loads(source.read(struct.unpack("<I", head[16:])[0]))
            head_of_reply, text = self.run(job)
            reply = f"[{json.dumps(head_of_reply)}, {text}]".encode()
            sink.write(head[:16] + struct.pack("<I", len(reply)) + reply)
            sink.flush()


def last_line(error):
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return "an exception that cannot be printed"


def child(lock, steps, runner, channel):
    """What a forked child does, to its end: it gives up its rights and answers jobs."""
    exit, write = os._exit, os.write  # a program may replace them
    try:
        os.dup2(channel, 3)  # first, lest the channel be one of the next
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        os.setsid()
        with open(3, "rb", closefd=False) as source, open(3, "wb", closefd=False) as sink:
            for name in steps:
                getattr(lock, name)()
            write(3, b"R")
            runner.serve(source, sink)
    except BaseException as error:
        write(3, b"E" + ascii(error).encode())
    finally:
        exit(0)


def zygote(config, control):
    """Fork a child for each b"F" that comes with a socket, and end it for the next or for b"K"."""
    runner = Runner(config)
    lock = Lock(config["memory"], config["cpu"])
    machine = config["machine"] or lock.probe()
    control.sendall(json.dumps(machine).encode() + b"\n")
    gc.freeze()
    pid = status = 0
    while True:
        order, channels, _, _ = socket.recv_fds(control, 1, 1)
        if pid:
            for end in os.killpg, os.kill:
                try:
                    end(pid, signal.SIGKILL)
                except ProcessLookupError:  # of killpg, before the child's setsid
                    pass
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if not order:
            return
        pid = os.fork() if order == b"F" else 0
        if order == b"K":
            control.sendall(struct.pack("<i", status))
        elif pid == 0:
            child(lock, machine[2], runner, channels[0])
        else:
            os.close(channels[0])


if __name__ == "__main__":
    zygote(json.loads(sys.argv[1]), socket.socket(fileno=0))
