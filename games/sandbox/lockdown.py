"""How a process gives up its rights for good, by the standard library and ctypes: rlimits, root, new
privileges, Landlock, seccomp. Each step is a method of Lock; `probe` finds those that this machine has."""

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import sys

NOBODY = 65534

# The architecture and the system calls of a computation: read write close fstat lseek munmap mremap brk
# madvise rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack pread64 futex sched_yield getpid gettid getuid
# geteuid getgid getegid clock_gettime clock_getres gettimeofday getrandom getrusage set_robust_list rseq
# restart_syscall exit exit_group (x86-64: time); mmap and mprotect, which must not ask for executable memory.
MACHINES = {
    "x86_64": (
        0xC000003E,
        [0, 1, 3, 5, 8, 11, 25, 12, 28, 13, 14, 15, 131, 17, 202, 24, 39, 186, 102, 107, 104, 108, 228, 229]
        + [96, 318, 98, 273, 334, 219, 60, 231, 201],
        [9, 10],
    ),
    "aarch64": (
        0xC00000B7,
        [63, 64, 57, 80, 62, 215, 216, 214, 233, 134, 135, 139, 132, 67, 98, 124, 172, 178, 174, 175, 176]
        + [177, 113, 114, 169, 278, 165, 99, 293, 128, 93, 94],
        [222, 226],
    ),
}


def seccomp_filter():
    """The seccomp program of this machine: ctypes buffers, a sock_fprog and what it points to."""
    arch, plain, memory = MACHINES[platform.machine()]
    load, equal, above, bits, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, allow, refuse = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
    code = [(load, 0, 0, 4), (equal, 1, 0, arch), (answer, 0, 0, kill), (load, 0, 0, 0)]
    code += [(above, 0, 1, 0x40000000), (answer, 0, 0, kill)]  # x32's calls
    for number in plain:
        code += [(equal, 0, 1, number), (answer, 0, 0, allow)]
    for number in memory:
        code += [(equal, 0, 4, number), (load, 0, 0, 32), (bits, 0, 1, 4)]  # the third argument has PROT_EXEC
        code += [(answer, 0, 0, refuse), (answer, 0, 0, allow)]
    body = b"".join(struct.pack("<HBBI", *line) for line in [*code, (answer, 0, 0, refuse)])
    body = ctypes.create_string_buffer(body, len(body))
    return struct.pack("<HxxxxxxQ", len(body) // 8, ctypes.addressof(body)), body


class Lock:
    """The steps by which a child gives up its rights. A step raises OSError where the system lacks it."""

    LOST = {
        "limits": "no limits of memory, files and processes",
        "user": "programs keep the rights of root",
        "privileges": "children may outlive the zygote and be traced",
        "landlock": "files, TCP and signals not closed by Landlock",
        "seccomp": "system calls not filtered",
    }

    def __init__(self, memory, cpu):
        self.zygote = os.getpid()
        self.libc = ctypes.CDLL(None, use_errno=True)
        known = sys.platform == "linux" and platform.machine() in MACHINES and sys.maxsize > 1 << 32
        self.filter = seccomp_filter() if known else None
        self.limit = dict(AS=memory, CPU=int(cpu), FSIZE=0, NOFILE=8, NPROC=0, CORE=0)
        if sys.platform == "linux":
            with open("/proc/self/statm") as file:
                self.limit["AS"] += int(file.read().split()[0]) * resource.getpagesize()

    def call(self, name, *arguments):
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "Linux only")
        result = getattr(self.libc, name)(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def limits(self):
        for name, limit in self.limit.items():
            number = getattr(resource, "RLIMIT_" + name)
            hard = resource.getrlimit(number)[1]  # of the caller's shell or cluster: only root may raise it
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(number, (limit, limit))

    def user(self):
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    def privileges(self):  # after `user`, which would undo the first
        for option, value in (1, signal.SIGKILL), (4, 0), (38, 1):  # PDEATHSIG, DUMPABLE, NO_NEW_PRIVS
            self.call("prctl", option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)
        if os.getppid() != self.zygote:
            os._exit(1)

    def landlock(self):
        version = self.call("syscall", 444, None, ctypes.c_size_t(0), 1)
        files = (1 << [13, 14, 15, 15, 16][min(version, 5) - 1]) - 1  # the rights that this kernel knows
        rights = [files, 3, 3][: 1 + (version > 3) + (version > 5)]  # files, TCP, scopes
        rules = struct.pack(f"<{len(rights)}Q", *rights)
        rules = self.call("syscall", 444, rules, ctypes.c_size_t(len(rules)), 0)
        self.call("syscall", 446, rules, 0)
        os.close(rules)

    def seccomp(self):
        if self.filter is None:
            raise OSError(errno.ENOSYS, "no filter for this system")
        self.call("prctl", 22, ctypes.c_ulong(2), self.filter[0], ctypes.c_ulong(0), ctypes.c_ulong(0))

    def failure(self, name):
        """Why a step fails on this machine, or None: it is tried, by its effect if it has one."""
        try:
            getattr(self, name)()
        except (OSError, ValueError) as error:
            return str(error)
        try:
            if name == "limits":
                mmap.mmap(-1, self.limit["AS"])
            elif name == "landlock":
                os.listdir("/")
            elif name == "seccomp":
                socket.socket()
            else:
                return None
        except OSError:
            return None
        return "no effect"

    def probe(self):
        """(level, what is missing, a line each, the names of the steps that work), found in a child."""
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            reasons = {name: self.failure(name) for name in self.LOST}
            os.write(send, json.dumps(reasons).encode())
            os._exit(0)
        os.close(send)
        with open(receive, "rb") as file:
            reasons = json.loads(file.read() or "null") or dict.fromkeys(self.LOST, "the probe died")
        os.waitpid(child, 0)
        steps = [name for name in self.LOST if reasons[name] is None]
        missing = [f"{self.LOST[name]} ({why})" for name, why in reasons.items() if why is not None]
        if {"limits", "privileges", "seccomp"} <= {*steps}:
            level = "seccomp" if missing else "full"
        elif "limits" not in steps:
            level = "timeouts"
        else:
            level = "landlock" if "landlock" in steps else "limits"
        return level, missing, steps
