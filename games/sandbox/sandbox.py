"""Runs Python programs that a model wrote and brings home plain values.

    with Sandbox(seconds=1.0, names={"np": numpy}) as sandbox:
        results = sandbox.run([Job("def solve(x): return x + 1", [("solve", [1])])])  # fast: enough to reject
        results = sandbox.confirm(jobs)  # slow: needed to accept, and to learn from

Only the parent knows the right answers. Each of its workers is a *zygote* (child.py): a fresh interpreter,
with an environment of a few fixed entries, that imports the allowed modules, runs no program itself, and
forks *children*. A child has a socket to the parent, three times /dev/null, and a session of its own. Before
it reads a program, it gives up its rights (lockdown.py): memory, files and processes by rlimits; root; new
privileges; files, TCP and signals by Landlock; and by seccomp all system calls that a computation does not
need. Each step is tried in a child of the first zygote, by its effect. A step that worked there must work in
every child, or the run ends.

A child answers with a frame: the random number that came with the program, a length, and JSON (plain.py). The
parent checks every part. A program that forges a frame has given an answer, no more. If a child is late,
SIGKILL ends its whole process group.

`run` gives a child up to BATCH programs, one after the other. Only programs that look harmless share a child:
they use no names of libraries but those in harmless.py, and set no attributes (`tame` reads names and
opcodes). A child takes no more programs after one that ran out of memory or left a module with a changed
attribute: a module that programs may import, or one that the child itself needs. If a child is late, dies,
sends rubbish, runs out of memory or has a changed module, and the last program was not its first, that
program gets a fresh child: what another one left behind may be the cause. In a sound child, an error, a
failed import and values that are not plain are final.

This protects the neighbours of a program as a rule, but not for certain. A program that is made to look
harmless, and changes a class or an object inside a module, can answer for those after it. So `run` only
rejects programs; what it gives is neither accepted nor learned from. For that there is `confirm`. It gives
each program a fresh child, then runs it in another, with other seeds and hashes and the calls in reverse, and
wants equal answers.

Levels: full; seccomp (without Landlock, or still root); landlock, limits and timeouts, which leave files,
sockets or processes open and are refused unless unsafe=True (macOS reaches limits at best); none, where
nothing forks (Windows), which is always refused.

NOT covered: right programs that `run` rejects because one before them in their child deceived `tame`; kernel
bugs in the system calls that are left (memory, clocks, random bytes); leaks of the processor; programs that
hold the answers as literals or are right for these inputs only; two runs that agree by luck (clocks and
random bytes are open); a machine with less memory than `memory` times workers; below seccomp, processes that
leave their group. Time is wall-clock time, so a busy machine finds more timeouts. The names that the caller
gives are trusted, and programs see what these modules import. A Sandbox serves one thread. In Python
True == 1 == 1.0, so check the types of answers where these should differ."""

import contextlib
import functools
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
import warnings
from collections import deque
from dataclasses import dataclass, replace
from multiprocessing.connection import wait

from games.sandbox.plain import ITEMS, OUTPUT, exact, pack, unpack

BATCH = 256  # programs that may share a child
START = 60.0  # a process must be ready after so many seconds
RESTARTS = 5  # a run fails when more zygotes than this have died
FORKS = hasattr(os, "fork") and hasattr(socket, "send_fds")
NO_FORKS = "programs cannot run on this system, which cannot fork processes; use Linux (or WSL)"
CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
SAFE = "full", "seccomp"  # levels that need no unsafe=True
KINDS = {"ok", "syntax", "import", "error", "memory", "output"}  # the kinds of result that a child may send


@dataclass
class Job:
    """A program and the calls of its functions. No call may depend on another, since `confirm` makes them in
    both orders."""

    source: str  # defines the functions
    calls: list  # (name, [arguments]) each, with plain values; made in order in one fresh namespace
    arrays: bool = False  # grids arrive as numpy arrays (plain.as_arrays)


@dataclass
class Result:
    """The outcome of a Job."""

    values: list | None  # one plain value for each call, if kind is "ok"
    kind: str  # ok syntax import error timeout memory output killed unstable
    message: str = ""  # last line of the traceback, escaped


class Lost(Exception):
    """A zygote has died or does not answer. Its worker starts another one."""


class Worker:
    """A zygote, its child, and the child's present job: `index`, the caller's number for it, or None. All
    workers of a Sandbox share one config; the first to start puts its zygote's findings about the machine
    (Lock.probe) into it."""

    def __init__(self, config, seed):
        self.config = config
        self.seed = seed
        self.process = None  # the zygote
        self.control = None  # the socket to the zygote
        self.channel = None  # the socket to the child
        self.start()

    def start(self):
        """Start a zygote, in place of an old one, and wait until it is ready."""
        self.close()
        env = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}
        env |= dict(
            OMP_NUM_THREADS="1",
            OPENBLAS_NUM_THREADS="1",
            MKL_NUM_THREADS="1",
            LC_ALL="C.UTF-8",
            PYTHONHASHSEED=str(self.seed),
            PYTHONDONTWRITEBYTECODE="1",
            PYTHONSAFEPATH="1",
            PYTHONPATH=os.pathsep.join(map(os.path.abspath, sys.path)),
        )
        command = [sys.executable, "-s", CHILD, json.dumps(self.config | {"seed": self.seed})]
        self.control, there = socket.socketpair()
        with there:
            self.process = subprocess.Popen(
                command, stdin=there, stdout=subprocess.DEVNULL, cwd="/", env=env, start_new_session=True
            )
        self.control.settimeout(START)
        try:
            self.config["machine"] = json.loads(self.control.makefile().readline())
        except (OSError, ValueError) as error:
            self.close()
            raise RuntimeError("the sandbox's zygote did not start; its own message is above") from error

    def close(self):
        """End the zygote and its child."""
        self.drop()
        if self.process:
            self.control.close()  # the zygote reads the end of its orders, kills its child and ends
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def fork(self):
        """Let the zygote kill the old child and fork a new one."""
        self.drop()
        self.served = 0  # programs so far
        self.buffer = b""  # what has arrived of the present answer
        self.ready = False
        self.channel, there = socket.socketpair()
        with there:
            try:
                socket.send_fds(self.control, [b"F"], [there.fileno()])
            except OSError as error:
                raise Lost from error

    def drop(self):
        """Hang up on the child, if there is one, which gives up its job."""
        if self.channel:
            self.channel.close()
        self.channel = self.index = None

    def kill(self):
        """Kill the child, whatever it does. Returns its exit status, negative for a signal."""
        self.drop()
        try:
            self.control.sendall(b"K")
            return struct.unpack("<i", self.control.recv(4))[0]
        except (OSError, struct.error) as error:
            raise Lost from error

    def give(self, job, index, shared):
        """Send a job to the child; to a fresh child if the job may not share or the child has had BATCH."""
        if self.calls is not job.calls:
            # The jobs of a run often share one list of calls, which is then packed only once.
            calls = [(name, pack(arguments, 8 * ITEMS)) for name, arguments in job.calls]
            self.calls_json = json.dumps(calls)
            self.calls = job.calls
        data = json.dumps(dict(source=job.source, arrays=bool(job.arrays), shared=shared))
        data = f'{data[:-1]}, "calls": {self.calls_json}}}'.encode()
        if self.channel is None or not shared or self.served >= BATCH:
            self.fork()
        self.index = index
        self.shared = shared
        self.nonce = secrets.token_bytes(16)
        self.served += 1
        # The clock of a program starts when its child is ready: `take` sets the deadline once more.
        limit = self.config["seconds"] if self.ready else START
        self.deadline = time.monotonic() + limit
        self.channel.settimeout(limit)
        with contextlib.suppress(OSError):  # `take` will see that the child is dead
            self.channel.sendall(self.nonce + struct.pack("<I", len(data)) + data)

    def take(self):
        """The result of the job, or None if it has not arrived yet. Kind "alone" asks for the job to be given
        again, to a child of its own."""
        self.channel.setblocking(False)
        try:
            data = self.channel.recv(1 << 16)
        except BlockingIOError:
            return self.wait()
        except OSError:
            data = b""
        ended = not data
        if not self.ready:
            if ended:  # before it read the program, so the program is not to blame
                raise Lost
            if data[:1] != b"R":
                raise RuntimeError("a child cannot lock itself down: " + escape(data[1:].decode("latin-1")))
            self.ready = True
            data = data[1:]
            self.deadline = time.monotonic() + self.config["seconds"]

        # A frame is the nonce (16 bytes), the length of the JSON (4 bytes) and the JSON.
        self.buffer += data
        size = 20 + OUTPUT
        if len(self.buffer) >= 20:
            size = 20 + struct.unpack("<I", self.buffer[16:20])[0]
        if not self.nonce.startswith(self.buffer[:16]) or not len(self.buffer) <= size <= 20 + OUTPUT:
            return self.end("output", "not a frame of the sandbox")
        if len(self.buffer) < size:
            return self.end("killed", "") if ended else self.wait()

        # The program may have written the frame itself, so every value is checked for its kind.
        try:
            (kind, message, stop), values = json.loads(self.buffer[20:].decode())
            values = unpack(values) if kind == "ok" else None
            fits = kind != "ok" or (type(values) is list and len(values) == len(self.calls))
            known = kind in KINDS or (kind == "alone" and self.shared)
            if not (fits and known and type(message) is str and type(stop) is bool):
                raise ValueError("not what the sandbox writes")
        except (ValueError, TypeError, RecursionError):
            return self.end("output", "a frame that the sandbox did not write")

        self.buffer = b""
        if stop or not self.shared:
            return self.end(kind, message, values)
        self.index = None
        return Result(values, kind, escape(message))

    def wait(self):
        """None, or the result that the job's time is over, whatever has arrived of an answer."""
        if time.monotonic() <= self.deadline:
            return None
        return self.end("timeout", f"no answer within {self.config['seconds']:g} s")

    def end(self, kind, message, values=None):
        """The result of a child's last job. If there were others before it, one of them may be to blame, so
        the job is given again, to a fresh child."""
        status = self.kill() if kind in ("timeout", "killed", "output") else self.drop()
        if kind == "killed":
            message = f"signal {-status}" if status < 0 else f"exit status {status}"
        return Result(None, "alone") if self.served > 1 else Result(values, kind, escape(message))


def escape(message):
    """At most 200 printable ASCII characters of a message, which a program may have written."""
    return message[:200].encode("unicode_escape").decode()[:200]


class Sandbox(contextlib.AbstractContextManager):
    """Runs jobs in `workers` children at a time; a context manager. seconds: wall-clock limit of a program;
    memory: bytes that a child may take beyond those it starts with; names: {name: module} that every program
    finds in its namespace and may import by that name. PermissionError if the machine cannot fork, or closes
    too little and unsafe is False."""

    def __init__(self, seconds=1.0, memory=512 << 20, workers=1, unsafe=False, names=None):
        if not FORKS:
            raise PermissionError(NO_FORKS)
        modules = {name: module.__name__ for name, module in (names or {}).items()}
        cpu = seconds * BATCH + 2  # processor seconds that a child's programs may take together
        self.config = dict(seconds=seconds, memory=memory, cpu=cpu, names=modules, machine=None)
        self.count = workers
        self.workers = {}  # seed -> Workers
        self.pool(0)
        self.level, self.missing, _ = self.config["machine"]
        report = "; ".join([f"sandbox: level {self.level}", *self.missing])
        if self.level not in SAFE and not unsafe:
            self.close()
            raise PermissionError(f"{report}. A model's programs need a better guard, or unsafe=True")
        if self.missing:
            warnings.warn(report, stacklevel=2)

    def pool(self, seed):
        """The workers whose interpreters have this seed for hashes and random numbers."""
        if seed not in self.workers:
            self.workers[seed] = [Worker(self.config, seed) for _ in range(self.count)]
        return self.workers[seed]

    def run(self, jobs) -> list[Result]:
        """First tier: programs that look harmless share children. Wrong results are unlikely but possible, so
        nothing that it gives is accepted or learned from."""
        return self.work(list(jobs), False, 0)

    def confirm(self, jobs) -> list[Result]:
        """Second tier: each program has a fresh child, and another for a second run with the calls in reverse
        order. The result is "unstable" if the answers differ."""
        jobs = list(jobs)
        results = self.work(jobs, True, 0)
        fine = [index for index, result in enumerate(results) if result.kind == "ok"]
        backwards = [replace(jobs[index], calls=jobs[index].calls[::-1]) for index in fine]
        for index, second in zip(fine, self.work(backwards, True, 1)):
            values = second.values and second.values[::-1]
            if exact(values) != exact(results[index].values):
                message = f"the second run: {second.kind} {second.message}"
                results[index] = Result(None, "unstable", message[:200])
        return results

    def work(self, jobs, alone, seed):
        """The results of jobs, in their order. alone: no job shares a child."""
        results = [None] * len(jobs)
        deaths = 0
        workers = self.pool(seed)
        waiting = deque((index, not alone) for index in range(len(jobs)))  # (index, whether it may share)
        try:
            for worker in workers:
                worker.calls = None
            while True:
                for worker in workers:
                    index = worker.index
                    try:
                        if index is not None:
                            result = worker.take()
                            if result and result.kind == "alone":
                                waiting.append((index, False))
                            elif result:
                                results[index] = result
                        if worker.index is None and waiting:
                            index, shared = waiting.popleft()
                            worker.give(jobs[index], index, shared)
                    except Lost as error:
                        deaths += 1
                        if deaths > RESTARTS:
                            raise RuntimeError(f"{deaths} zygotes of the sandbox died in one run") from error
                        worker.start()
                        waiting.append((index, False))
                busy = [worker for worker in workers if worker.index is not None]
                if not busy and not waiting:
                    return results
                # Sleep until a child writes or is late. Nobody is busy if all zygotes have just died.
                until = min((worker.deadline for worker in busy), default=0)
                wait([worker.channel for worker in busy], max(0, until - time.monotonic()))
        finally:
            # No child outlives a run, not even one that an exception interrupts.
            for worker in workers:
                try:
                    worker.kill()
                except Lost:
                    worker.start()

    def close(self):
        """End all processes."""
        for worker in sum(self.workers.values(), []):
            worker.close()
        self.workers = {}

    def __exit__(self, *_):
        self.close()


@functools.cache
def level():
    """(level, a line for each missing step) of this machine, from a child that locks itself down and tries
    what it should not be able to do."""
    if not FORKS:
        return "none", [NO_FORKS]
    with Sandbox(unsafe=True) as sandbox:
        return sandbox.level, sandbox.missing
