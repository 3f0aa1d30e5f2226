"""Runs Python programs that a model wrote and brings home plain values.

    with Sandbox(seconds=1.0, names={"np": numpy}) as sandbox:
        results = sandbox.run([Job("def solve(x): return x + 1", [("solve", [1])])])  # fast: may discard
        results = sandbox.confirm(jobs)  # slow: may accept

The parent alone knows right answers. A worker of it is a *zygote* (child.py): a fresh interpreter,
with an environment of a few fixed entries, that imports the allowed modules, runs no program and forks
*children*. A child has a socket to the parent and three times /dev/null, takes a session of its own and gives
up, before it reads a program: memory, files, processes (rlimits), root, new privileges, then files, TCP and
signals (Landlock), then all system calls that a computation does not need (seccomp): lockdown.py. What worked
in a child of the first zygote, tried by its effect, must work in every child, or the run ends.

A child answers with a frame: the random number that came with the program, a length, JSON (plain.py). The
parent checks every part; who forges one has answered, no more. SIGKILL ends a late child's whole group.

`run` gives a child up to BATCH programs, each once its predecessor has answered. Only those that look
harmless share one (`tame` reads names and opcodes). When a program left a module changed or ran out of memory
its child takes no more; when a child dies or talks rubbish after its first program, the last gets a fresh
one. That keeps neighbours whole as a rule, not for certain: a program made to look harmless can answer for
those after it. So only `confirm` counts: a fresh child a program, then another with other seeds and hashes
and the calls reversed, and equal answers.

Levels: full; seccomp (no Landlock, or root kept); landlock, limits, timeouts: refused unless unsafe=True, for
files, sockets or processes are open (macOS: limits at best); none: nothing forks (Windows), always refused.

NOT covered: bugs of the kernel in the calls left (memory, clocks, random bytes); what processors leak;
programs that hold the answers as literals or are right for these inputs only; two runs that agree by luck
(clocks and random bytes are open); time is the wall clock's, so a busy machine finds more timeouts; a machine
that has less memory than `memory` times workers; below seccomp, processes that leave their group. Names that
the caller gives are trusted, and programs see what these import. A Sandbox serves one thread. In Python
True == 1 == 1.0: compare answers by repr."""

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

from games.sandbox.plain import ITEMS, OUTPUT, pack, unpack

BATCH = 256  # programs that may share a child
START = 60.0  # seconds until a process must be ready
RESTARTS = 5  # zygotes that may die in a run
FORKS = hasattr(os, "fork") and hasattr(socket, "send_fds")
NO_FORKS = "programs cannot be run on this system, where no process forks; Linux (or WSL) can run them"
CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
SAFE = "full", "seccomp"  # levels that need no unsafe=True
KINDS = {"ok", "syntax", "import", "error", "memory", "output"}  # what a child may say


@dataclass
class Job:
    """A program and what to ask of it. Calls must not depend on each other: `confirm` has them both ways."""

    source: str  # defines functions
    calls: list  # of (name, [arguments]): plain values, called in order in one fresh namespace
    arrays: bool = False  # lists of rows of integers, all of one length, arrive as numpy arrays


@dataclass
class Result:
    values: list | None  # one plain value a call
    kind: str  # ok syntax import error timeout memory output killed unstable
    message: str = ""  # last line of the traceback, escaped


class Lost(Exception):
    """A zygote has died or does not answer."""


class Worker:
    """A zygote, its child, and the job that the child has: `index`, its number for the caller, or None.
    config belongs to all workers of a Sandbox; the first to start fills in what its zygote says of the
    machine (Lock.probe)."""

    def __init__(self, config, seed):
        self.config = config
        self.seed = seed
        self.process = self.control = self.channel = None
        self.start()

    def start(self):
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
            raise RuntimeError("the sandbox's zygote did not start; its own words are above") from error

    def close(self):
        self.drop()
        if self.process:
            self.control.close()  # upon which the zygote ends its child and itself
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def fork(self):
        """A new child in place of the old one."""
        self.drop()
        self.served = 0
        self.buffer = b""
        self.ready = False
        self.channel, there = socket.socketpair()
        with there:
            try:
                socket.send_fds(self.control, [b"F"], [there.fileno()])
            except OSError as error:
                raise Lost from error

    def drop(self):
        if self.channel:
            self.channel.close()
        self.channel = self.index = None

    def kill(self):
        """End the child, whatever it does; returns its exit status, negative for a signal."""
        self.drop()
        try:
            self.control.sendall(b"K")
            return struct.unpack("<i", self.control.recv(4))[0]
        except (OSError, struct.error) as error:
            raise Lost from error

    def give(self, job, index, shared):
        """Send a job to the child, to a fresh one if it may not share or the present one is used up."""
        if self.calls is not job.calls:  # jobs of one run may share them
            self.text = json.dumps([(name, pack(arguments, 8 * ITEMS)) for name, arguments in job.calls])
            self.calls = job.calls
        data = json.dumps(dict(source=job.source, arrays=bool(job.arrays), shared=shared))
        data = f'{data[:-1]}, "calls": {self.text}}}'.encode()
        if self.channel is None or not shared or self.served >= BATCH:
            self.fork()
        self.index = index
        self.shared = shared
        self.nonce = secrets.token_bytes(16)
        self.served += 1
        self.deadline = time.monotonic() + (self.config["seconds"] if self.ready else START)
        self.channel.settimeout(START)
        with contextlib.suppress(OSError):  # what is wrong shows when the answer is read
            self.channel.sendall(self.nonce + struct.pack("<I", len(data)) + data)

    def take(self):
        """The result of the job if it is there, else None. Kind "alone" asks for a child of its own."""
        late = time.monotonic() > self.deadline
        self.channel.setblocking(False)
        try:
            data = self.channel.recv(1 << 16)
        except BlockingIOError:
            return self.end("timeout", f"no answer within {self.config['seconds']:g} s") if late else None
        except OSError:
            data = b""
        ended = not data
        if not self.ready:
            if ended:  # before it read the program
                raise Lost
            if data[:1] != b"R":
                raise RuntimeError("a child cannot lock itself down: " + escape(data[1:].decode("latin-1")))
            self.ready = True
            data = data[1:]
            self.deadline = time.monotonic() + self.config["seconds"]
        self.buffer += data
        whole = 20 + struct.unpack("<I", self.buffer[16:20])[0] if len(self.buffer) >= 20 else 20 + OUTPUT
        if not self.nonce.startswith(self.buffer[:16]) or not len(self.buffer) <= whole <= 20 + OUTPUT:
            return self.end("output", "not a frame of the sandbox", suspect=True)
        if len(self.buffer) < whole:
            return self.end("killed", "", suspect=True) if ended else None
        try:
            (kind, message, stop), values = json.loads(self.buffer[20:].decode())
            values = unpack(values) if kind == "ok" else None
            fits = kind != "ok" or (type(values) is list and len(values) == len(self.calls))
            known = kind in KINDS or (kind == "alone" and self.shared)
            if not (fits and known and type(message) is str and type(stop) is bool):
                raise ValueError("not what the sandbox writes")
        except (ValueError, TypeError, RecursionError):
            return self.end("output", "a frame that the sandbox did not write", suspect=True)
        self.buffer = b""
        if kind == "memory" or stop or not self.shared:
            return self.end(kind, message, values, suspect=kind == "memory")
        self.index = None
        return Result(values, kind, escape(message))

    def end(self, kind, message, values=None, suspect=False):
        """The result of a child's last job. One that earlier programs may have spoilt wants a fresh child."""
        again = suspect and self.served > 1
        status = self.kill() if kind in ("timeout", "killed", "output") else self.drop()
        if kind == "killed":
            message = f"signal {-status}" if status < 0 else f"exit status {status}"
        return Result(None, "alone") if again else Result(values, kind, escape(message))


def escape(message):
    return message[:200].encode("unicode_escape").decode()[:200]


class Sandbox(contextlib.AbstractContextManager):
    """Runs jobs in `workers` children at a time; a context manager. seconds: of a program by the wall clock;
    memory: bytes that a child may take beyond what it starts with; names: modules for every namespace.
    PermissionError where the machine closes too little and unsafe is False, or cannot fork."""

    def __init__(self, seconds=1.0, memory=512 << 20, workers=1, unsafe=False, names=None):
        if not FORKS:
            raise PermissionError(NO_FORKS)
        modules = {name: module.__name__ for name, module in (names or {}).items()}
        cpu = seconds * BATCH + 2
        self.config = dict(seconds=seconds, memory=memory, cpu=cpu, names=modules, machine=None)
        self.count = workers
        self.workers = {}
        self.pool(0)
        self.level, self.missing, _ = self.config["machine"]
        words = "; ".join([f"sandbox: level {self.level}", *self.missing])
        if self.level not in SAFE and not unsafe:
            self.close()
            raise PermissionError(f"{words}. A model's programs need a better guard, or unsafe=True")
        if self.missing:
            warnings.warn(words, stacklevel=2)

    def pool(self, seed):
        """The workers whose interpreters have this seed of hashes and random numbers."""
        if seed not in self.workers:
            self.workers[seed] = [Worker(self.config, seed) for _ in range(self.count)]
        return self.workers[seed]

    def run(self, jobs) -> list[Result]:
        """First tier: harmless looking programs share children. Wrong results are unlikely but possible."""
        return self.work(list(jobs), False, 0)

    def confirm(self, jobs) -> list[Result]:
        """Second tier: a fresh child a program, another for its second run, which has the calls in reversed
        order; "unstable" where the answers differ."""
        jobs = list(jobs)
        results = self.work(jobs, True, 0)
        fine = [index for index, result in enumerate(results) if result.kind == "ok"]
        backwards = [replace(jobs[index], calls=jobs[index].calls[::-1]) for index in fine]
        for index, second in zip(fine, self.work(backwards, True, 1)):
            values = second.values and second.values[::-1]
            if repr(values) != repr(results[index].values):  # tells True from 1, and nan is nan
                message = f"the second run: {second.kind} {second.message}"
                results[index] = Result(None, "unstable", message[:200])
        return results

    def work(self, jobs, alone, seed):
        results = [None] * len(jobs)
        losses = 0
        workers = self.pool(seed)
        waiting = deque((index, not alone) for index in range(len(jobs)))
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
                        losses += 1
                        if losses > RESTARTS:
                            raise RuntimeError(f"{losses} zygotes of the sandbox died in one run") from error
                        worker.start()
                        waiting.append((index, False))
                busy = [worker for worker in workers if worker.index is not None]
                if not busy and not waiting:
                    return results
                until = min((worker.deadline for worker in busy), default=0)  # of none: their zygotes died
                wait([worker.channel for worker in busy], max(0, until - time.monotonic()))
        finally:
            for worker in workers:
                try:
                    worker.kill()
                except Lost:
                    worker.start()

    def close(self):
        for worker in sum(self.workers.values(), []):
            worker.close()
        self.workers = {}

    def __exit__(self, *_):
        self.close()


@functools.cache
def level():
    """(name, what is missing) of this machine, found by locking a child down and trying."""
    if not FORKS:
        return "none", [NO_FORKS]
    with Sandbox(unsafe=True) as sandbox:
        return sandbox.level, sandbox.missing
