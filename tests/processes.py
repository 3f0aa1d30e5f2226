"""Processes for tests: forks of this one, which start at once because all is imported already."""

import io
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import torch._dynamo  # noqa: F401, else each fork imports it, for a second, when it makes its first optimizer
from tqdm import tqdm


class Child:
    """A fork that runs call(*arguments). Its exit code is what the call returns; what it prints goes into
    the file `output`."""

    def __init__(self, output: Path, call, *arguments):
        self.output = Path(output)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self.live(call, arguments)

    def live(self, call, arguments):
        """The life of the fork, which never returns to the test."""
        code = 99
        try:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not survive a fork
            tqdm.set_lock(threading.RLock())  # all forks share the usual one, which a killed one never frees
            said = open(self.output, "w", encoding="utf-8", buffering=1)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout = sys.stderr = said
            sys.stdin = io.StringIO()
            threading.excepthook = threading.__excepthook__  # pytest's would keep the traceback to itself
            code = call(*arguments) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    @property
    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait(self) -> int:
        """The exit code; minus the number of the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill_after(self, seconds: float) -> int:
        """Kill it at that moment, unless it has ended by then. Returns the exit code."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def wait_for(path: Path, seconds=60.0):
    """Wait until a file exists, which another process makes."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"nobody made {path.name}"
        time.sleep(0.002)


def start_together(calls: list, folder: Path) -> list:
    """Children for (call, *arguments) each, which all begin at the same moment."""
    gate, opened = os.pipe()

    def begin(call, *arguments):
        os.close(opened)
        os.read(gate, 1)  # returns when the last copy of the other end is closed
        return call(*arguments)

    children = [Child(folder / f"said-{i}.txt", begin, *call) for i, call in enumerate(calls)]
    os.close(gate)
    os.close(opened)
    return children
