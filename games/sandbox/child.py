"""The sandbox's other interpreter: a zygote that forks children, and a child that runs programs.

games/sandbox/sandbox.py starts it and explains the whole. Read `zygote` first, at the end of the file, then
`child`, then Runner."""

import builtins
import gc
import importlib
import json
import os
import random
import re
import signal
import socket
import struct
import sys
import warnings
from opcode import opmap
from types import CodeType, FunctionType, ModuleType

import numpy as np

from games.sandbox.harmless import HARMLESS
from games.sandbox.lockdown import Lock
from games.sandbox.plain import OUTPUT, as_arrays, pack, unpack

SOURCE = 1 << 16  # longest program in characters
# The modules that a program may import.
ALLOWED = """__future__ abc array bisect cmath collections copy dataclasses datetime decimal enum fractions
    functools heapq itertools json math numbers numpy operator queue random re statistics string sys textwrap
    types typing unicodedata warnings""".split()
# These are imported by the modules above at their first use, when a child can no longer open files.
PRELOAD = """_strptime collections.abc encodings.ascii encodings.idna encodings.latin_1 linecache numpy.fft
    numpy.linalg numpy.ma numpy.polynomial numpy.random numpy.typing traceback""".split()
# A child takes no more programs once an attribute of a module has changed: of a module that programs may
# import, or of these, which the child itself uses.
WATCHED = ["builtins", "json.encoder", "games.sandbox.plain", __name__]

TRICKY_CODES = {opmap[name] for name in ("STORE_ATTR", "DELETE_ATTR", "MATCH_CLASS")}
# `type` is harmless in comparisons of types only. Called with a dict, it makes a class whose methods have
# names made at run time, and `copy` does what such methods say.
TYPE = re.compile(r"\btype\([\w\[\]. :+-]*\)(\.__name__\b| (==|!=|is|in|not in) )")


def library_names():
    """The names of attributes of all modules, classes and objects of libraries: the keys of all dicts, and
    the names in the code of all functions, which set the attributes of objects. The few attributes that C
    code makes up when asked are missing, such as `traps` of a decimal context; no harmless name gives one."""
    names = set()
    for thing in gc.get_objects():
        if type(thing) is dict:
            names.update(thing)  # keys that are no strings do no harm
        elif type(thing) is FunctionType:
            names.update(thing.__code__.co_names)
    return names


def tame(code, tricky):
    """Whether a program seems to change nothing but its own namespace. code: the compiled program; tricky:
    names that it may not have."""
    for name in ".".join(code.co_names).split("."):  # `import a.b` has the name "a.b"
        if name in tricky or ("__" in name and name not in HARMLESS):
            return False
    for constant in code.co_consts:
        # A string such as "__class__" may become a name at run time.
        if type(constant) is str and "__" in constant and constant not in HARMLESS:
            return False
        if type(constant) is CodeType and not tame(constant, tricky):
            return False
    return TRICKY_CODES.isdisjoint(code.co_code[::2])  # every other byte is an opcode


class Runner:
    """What a child needs to run programs. The zygote makes it, so that every child inherits it. tricky: names
    of libraries that are not HARMLESS; a program that has one does not share its child."""

    def __init__(self, config):
        warnings.simplefilter("ignore")
        self.seed = config["seed"]
        for name in ALLOWED + PRELOAD:
            importlib.import_module(name)
        self.tricky = library_names() - HARMLESS - set(config["names"])
        self.names = {name: importlib.import_module(module) for name, module in config["names"].items()}
        given = set(config["names"].values())
        allowed = given.union(ALLOWED)
        original_import = builtins.__import__

        def checked_import(name, globals=None, locals=None, fromlist=(), level=0):
            if name in self.names and not level:  # what is there without an import may also be imported
                return self.names[name]
            if level or not (name in allowed or name.split(".")[0] in allowed):
                raise ImportError(f"module {name} is not allowed")
            return original_import(name, globals, locals, fromlist, level)

        self.builtins = {**vars(builtins), "__import__": checked_import}

        # Names of the caller's modules are free, unless a library or something changeable has them, too.
        changeable = ModuleType, dict, list, set, np.ndarray
        for module in given.difference(ALLOWED):
            for name, thing in vars(sys.modules[module]).items():
                if isinstance(thing, changeable) and getattr(thing, "__name__", "") not in allowed:
                    self.tricky.add(name)
        watched = [vars(sys.modules[module]) for module in allowed.union(WATCHED)]
        self.before = [(names, [*names.values()]) for names in (sys.modules, *watched)]

    def may_share(self, source, code):
        """Whether a program, as text and as code, may share a child."""
        if tame(code, self.tricky):
            return True
        # Only in ASCII the text shows names as they are.
        compares = source.isascii() and not re.search(r"\btype\b", TYPE.sub("", source))
        return compares and tame(code, self.tricky - {"type"})

    def run(self, job):
        """Run a job: ([kind, message, whether the child should stop], its values as JSON)."""
        try:
            if len(job["source"]) > SOURCE:
                raise SyntaxError(f"more than {SOURCE} characters")
            code = compile(job["source"].removeprefix("\ufeff"), "<program>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            # A SyntaxError leaves the interpreter as it was; after the others the child should stop.
            return ["syntax", last_line(error), not isinstance(error, SyntaxError)], "null"
        if job["shared"] and not self.may_share(job["source"], code):
            return ["alone", "", False], "null"

        random.seed(self.seed)
        np.random.seed(self.seed)
        space = {"__name__": "program", "__builtins__": dict(self.builtins), **self.names}
        kind = "ok"
        message = ""
        values = []
        writing = False  # says in whose code an exception came up: ours that packs values, or the program's
        try:
            exec(code, space)
            for name, arguments in job["calls"]:
                arguments = unpack(arguments)
                writing = False
                if name not in space:
                    raise NameError(f"the program defines no {name}")
                value = space[name](*(as_arrays(arguments) if job["arrays"] else arguments))
                writing = True
                values.append(pack(value))  # a copy made now, for later calls may change the value
            text = json.dumps(values)  # ValueError for integers of thousands of digits
            if len(text) > OUTPUT - 4096:
                raise ValueError(f"values of {len(text)} bytes")
        except BaseException as error:  # SystemExit and KeyboardInterrupt are the program's, too
            kind = "error"
            if isinstance(error, MemoryError):
                kind = "memory"
            elif writing:
                kind = "output"
            elif isinstance(error, ImportError):
                kind = "import"
            message = last_line(error)
            text = "null"
        changed = job["shared"] and any([*now.values()] != before for now, before in self.before)
        return [kind, message, changed or kind == "memory"], text

    def serve(self, source, sink):
        """Answer jobs until the parent closes the channel. A frame, in either direction, is the parent's
        random number (16 bytes), the length of the JSON (4 bytes), and the JSON."""
        while head := source.read(20):
            nonce = head[:16]
            job = json.loads(source.read(struct.unpack("<I", head[16:])[0]))
            outcome, text = self.run(job)
            reply = f"[{json.dumps(outcome)}, {text}]".encode()
            sink.write(nonce + struct.pack("<I", len(reply)) + reply)
            sink.flush()


def last_line(error):
    """The last line of an exception's traceback; its __str__ may be the program's and may fail."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return "an exception that cannot be printed"


def child(lock, steps, runner, channel):
    """The life of a forked child: it gives up its rights and answers jobs. It writes b"R" when it is ready,
    or b"E" and the error when it fails. steps: names of methods of the lock."""
    exit = os._exit  # a program may replace os._exit and os.write
    write = os.write
    try:
        os.dup2(channel, 3)  # before 0 to 2 are replaced, since the channel may be one of them
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
    """Obey the parent's orders: b"F", which comes with a socket, forks a child in place of the present one;
    b"K" kills the child and sends its exit status back; end of file kills it and ends the zygote."""
    runner = Runner(config)
    lock = Lock(config["memory"], config["cpu"])
    machine = config["machine"] or lock.probe()
    control.sendall(json.dumps(machine).encode() + b"\n")
    gc.freeze()  # the collector of a child need not visit, and so copy, what it has inherited
    pid = 0  # the child; 0 means none
    status = 0  # the exit status of the last child
    while True:
        order, channels, _, _ = socket.recv_fds(control, 1, 1)
        if pid:
            for kill in os.killpg, os.kill:
                try:
                    kill(pid, signal.SIGKILL)
                except ProcessLookupError:  # killpg fails while the child has not yet called setsid
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
