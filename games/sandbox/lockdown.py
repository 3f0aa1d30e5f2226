"""How a process gives up its rights for good, with the standard library and ctypes only: resource limits,
root, new privileges, Landlock, seccomp. Each step is a method of Lock; `probe` finds the steps that work on
this machine."""

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

# The system calls that a computation needs, by their numbers on x86-64 and on aarch64, which has no `time`.
SYSTEM_CALLS = """
    read              0  63, write             1  64, close             3  57, fstat             5  80,
    lseek             8  62, munmap           11 215, mremap           25 216, brk              12 214,
    madvise          28 233, rt_sigaction     13 134, rt_sigprocmask   14 135, rt_sigreturn     15 139,
    sigaltstack     131 132, pread64          17  67, futex           202  98, sched_yield      24 124,
    getpid           39 172, gettid          186 178, getuid          102 174, geteuid         107 175,
    getgid          104 176, getegid         108 177, clock_gettime   228 113, clock_getres    229 114,
    gettimeofday     96 169, getrandom       318 278, getrusage        98 165, set_robust_list 273  99,
    rseq            334 293, restart_syscall 219 128, exit             60  93, exit_group      231  94,
    time            201   -"""
PLAIN = [call.split() for call in SYSTEM_CALLS.split(",")]

# {machine: (audit architecture, plain calls, mmap and mprotect, which must not ask for executable memory)}
MACHINES = {
    "x86_64": (0xC000003E, [int(x86) for _, x86, _ in PLAIN], [9, 10]),
    "aarch64": (0xC00000B7, [int(arm) for _, _, arm in PLAIN if arm != "-"], [222, 226]),
}


def seccomp_filter():
    """The seccomp program of this machine: (a struct sock_fprog as bytes, the ctypes buffer with the program
    that it points to, which must be kept alive).

    An instruction is (operation, jump if true, jump if false, operand). A jump skips so many instructions.
    The program reads a struct seccomp_data: the number of the call at byte 0, the architecture at 4, the low
    half of the third argument at 32."""
    arch, plain, memory = MACHINES[platform.machine()]
    load = 0x20  # the word at this byte
    equal = 0x15
    above = 0x35  # or equal
    bits = 0x45  # whether any of these bits is set
    kill = 0x06, 0, 0, 0x80000000
    allow = 0x06, 0, 0, 0x7FFF0000
    refuse = 0x06, 0, 0, 0x00050000 | errno.EPERM

    # The numbers mean other calls on another architecture and in the x32 mode of x86-64 (bit 30): kill both.
    code = [(load, 0, 0, 4), (equal, 1, 0, arch), kill]
    code += [(load, 0, 0, 0), (above, 0, 1, 0x40000000), kill]
    for number in plain:
        code += [(equal, 0, 1, number), allow]
    for number in memory:
        # Refuse the third argument if it has PROT_EXEC, which is 4.
        code += [(equal, 0, 4, number), (load, 0, 0, 32), (bits, 0, 1, 4), refuse, allow]
    code += [refuse]
    body = b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
    body = ctypes.create_string_buffer(body, len(body))
    return struct.pack("<HxxxxxxQ", len(body) // 8, ctypes.addressof(body)), body


class Lock:
    """The steps by which a child gives up its rights. A step raises OSError where the system lacks it."""

    # step -> what stays open without it, in the order in which a child takes the steps
    LOST = {
        "limits": "no limits of memory, files and processes",
        "user": "programs keep the rights of root",
        "privileges": "children may outlive the zygote and be traced",
        "landlock": "files, TCP and signals not closed by Landlock",
        "seccomp": "system calls not filtered",
    }

    def __init__(self, memory, cpu):
        """memory: bytes that a child may take on top of the zygote's; cpu: seconds of processor time."""
        self.zygote = os.getpid()
        self.libc = ctypes.CDLL(None, use_errno=True)
        known = sys.platform == "linux" and platform.machine() in MACHINES and sys.maxsize > 1 << 32
        self.filter = seccomp_filter() if known else None
        self.limit = dict(AS=memory, CPU=int(cpu), FSIZE=0, NOFILE=8, NPROC=0, CORE=0)
        if sys.platform == "linux":
            # A child is a copy of this process, and its limit counts what it has inherited.
            with open("/proc/self/statm") as file:
                pages = int(file.read().split()[0])
            self.limit["AS"] += pages * resource.getpagesize()

    def call(self, name, *arguments):
        """Call a function of libc. Raises OSError if it fails."""
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "Linux only")
        result = getattr(self.libc, name)(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def limits(self):
        for name, limit in self.limit.items():
            number = getattr(resource, "RLIMIT_" + name)
            # The shell or the cluster may have set a lower hard limit, which only root can raise.
            hard = resource.getrlimit(number)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(number, (limit, limit))

    def user(self):
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    def privileges(self):
        # This step comes after `user`, since a change of user clears PR_SET_PDEATHSIG.
        # Options: 1 PR_SET_PDEATHSIG, 4 PR_SET_DUMPABLE, 38 PR_SET_NO_NEW_PRIVS.
        for option, value in (1, signal.SIGKILL), (4, 0), (38, 1):
            self.call("prctl", option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)
        if os.getppid() != self.zygote:  # it died before the first option was set
            os._exit(1)

    def landlock(self):
        # 444 is landlock_create_ruleset, which tells its version if the last argument is 1; 446 is
        # landlock_restrict_self. A ruleset that handles rights and has no rule forbids them all, but the
        # kernel refuses rights that it does not know.
        version = self.call("syscall", 444, None, ctypes.c_size_t(0), 1)
        files = (1 << [13, 14, 15, 15, 16][min(version, 5) - 1]) - 1
        # Files; TCP (3: bind and connect) from version 4; scopes (3: sockets and signals) from version 6.
        rights = [files, 3, 3][: 1 + (version > 3) + (version > 5)]
        attributes = struct.pack(f"<{len(rights)}Q", *rights)
        ruleset = self.call("syscall", 444, attributes, ctypes.c_size_t(len(attributes)), 0)
        self.call("syscall", 446, ruleset, 0)
        os.close(ruleset)

    def seccomp(self):
        if self.filter is None:
            raise OSError(errno.ENOSYS, "no filter for this system")
        # 22 is PR_SET_SECCOMP, 2 is SECCOMP_MODE_FILTER.
        self.call("prctl", 22, ctypes.c_ulong(2), self.filter[0], ctypes.c_ulong(0), ctypes.c_ulong(0))

    def failure(self, name):
        """Why a step fails on this machine, or None. Takes the step, then tries what it should forbid."""
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
        """Try all steps in a child: (level, a line for each missing step, names of the steps that work)."""
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            reasons = {name: self.failure(name) for name in self.LOST}
            os.write(send, json.dumps(reasons).encode())
            os._exit(0)
        os.close(send)
        with open(receive, "rb") as file:
            reasons = json.loads(file.read() or "null")
        reasons = reasons or dict.fromkeys(self.LOST, "the probe died")
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
