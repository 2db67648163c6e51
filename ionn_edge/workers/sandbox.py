"""What a worker gives up, for good: at its fork, and before it looks at a client's graph.

Knows nothing of jobs or models. Whoever takes a worker over, by a graph that finds a fault in
torch, has what is left: its own memory, files of its own weights to read, one socket to the
server. Each layer stands alone, so that one that a machine has not does not take the others
along; what holds in the end is tried out, not assumed (see escapes).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ionn_edge.settings import WorkerSettings
from ionn_edge.workers import seccomp
from ionn_edge.workers.syscalls import this_machine

if sys.platform == "linux":
    import landlockpy

MIB = 1 << 20
# Own memory has a limit that is watched, and this much more of a wall that the kernel holds.
WALL_SHARE = 1.25
# Address space that a thread may take: its stack, its heap of the C library, twice.
_THREAD_SPACE_BYTES = 160 * MIB
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_PR_SET_NAME, _PR_SET_SECCOMP, _PR_SET_VMA = 15, 22, 0x53564D41
_SIGKILL = 9
_ABI_OF_SCOPES = 6
_CAPABILITIES_3 = 0x20080522
# What pthread_create asks for (glibc's nptl/createthread.c), and what it may leave out.
_NEW_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x80000
_NEW_THREAD_OR_NOT = 0x100000 | 0x200000 | 0x400000 | 0x1000000
_MAP_TYPE, _MAP_PRIVATE, _MAP_GROWSDOWN, _MAP_HUGETLB = 0xF, 0x2, 0x100, 0x40000
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
_ENOTTY, _ENOSYS = 25, 38
# Itself, and SCHED_IDLE (linux/sched.h): no other process, and never forward.
_STEP_BACK = 0, 5
_WRITES = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PLAIN = (
    "read", "write", "close", "fstat", "poll", "lseek", "mprotect", "munmap", "brk",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "pread64", "readv", "writev", "select",
    "sched_yield", "mremap", "madvise", "nanosleep", "getpid", "getppid", "sendto", "recvfrom",
    "exit", "uname", "getcwd", "gettimeofday", "getrusage", "sysinfo", "getuid", "getgid",
    "geteuid", "getegid", "sigaltstack", "arch_prctl", "gettid", "futex", "sched_getaffinity",
    "restart_syscall", "clock_gettime", "clock_getres", "clock_nanosleep", "exit_group",
    "newfstatat", "getdents64", "pselect6", "ppoll", "set_robust_list", "getcpu", "getrandom",
    "membarrier", "rseq",
)  # fmt: skip
_LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
# What a graphics driver certainly does without. It asks for more than could be listed.
_NEVER = (
    "connect", "accept", "accept4", "bind", "listen", "socket", "socketpair", "fork", "vfork",
    "execve", "execveat", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
    "pidfd_send_signal", "pidfd_open", "pidfd_getfd", "ptrace", "process_vm_readv",
    "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "io_uring_setup",
    "io_uring_enter", "io_uring_register", "mount", "umount2", "move_mount", "mount_setattr",
    "open_tree", "fsopen", "fsmount", "chroot", "unshare", "setns", "personality", "swapon",
    "reboot", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
    "add_key", "request_key", "keyctl", "perf_event_open", "bpf", "userfaultfd",
    "open_by_handle_at", "migrate_pages", "move_pages", "setpriority", "sched_setparam",
    "sched_setscheduler", "sched_setattr", "ioprio_set", "mq_open", "memfd_secret",
)  # fmt: skip


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _landlock() -> int:
    """The version of Landlock here; 0 where it is not, or a container refuses it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return landlockpy.abi_version()
    return 0


def prepare() -> None:
    """What entering needs of the file system and of other processes, asked for beforehand."""
    _libc()
    _landlock()


def enter(settings: WorkerSettings, asked: socket.socket, parent: int) -> None:
    """At the fork: what no worker ever needs is out of reach from here on, and it ends with its
    parent. Raises RuntimeError where that is gone already.

    asked: to who decides about threads (see threads), who is sent what to listen on; closed here.
    """
    if sys.platform != "linux":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        asked.close()
        return
    if settings.device == "cuda":
        # No terminal, which the list of what is forbidden does not keep it from.
        os.setsid()
    _limit(settings)
    _drop_capabilities()
    libc = _libc()
    # Neither siblings nor, as itself, root can look into its memory from here on.
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # Before it could be told of that: nobody would end this one.
        raise RuntimeError("the process that forked this one is gone")
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with asked:
        if settings.device == "cpu":
            _ask_for_threads(asked)
    _filter(_never() if settings.device == "cuda" else _only())


def restrict_files(directories: Sequence[Path], device: str) -> None:
    """From here on nothing but files in these directories can be opened, and only to be read.

    Before there is a second thread, which would not be held. Raises OSError where a directory
    is not there.
    """
    least = _ABI_OF_SCOPES if device == "cuda" else 1
    if sys.platform != "linux" or _landlock() < least:
        return
    if threads := _threads() - 1:
        raise RuntimeError(f"{threads} threads would keep what this one gives up")
    # What a graphics driver opens is not known beforehand.
    rights = landlockpy.AccessFS.NONE if device == "cuda" else None
    scopes = landlockpy.Scope.SIGNAL | landlockpy.Scope.ABSTRACT_UNIX_SOCKET
    with landlockpy.Ruleset(handled_fs=rights, scoped=scopes) as rules:
        for directory in directories:
            rules.allow_path(directory, landlockpy.AccessFS.READ_FILE)
        rules.restrict(no_new_privs=False)
    _filter(_no_more_rules())


def _limit(settings: WorkerSettings) -> None:
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_MSGQUEUE):
        resource.setrlimit(limit, (0, 0))
    if settings.device == "cuda":
        # Its driver maps as much address space as there is memory of any kind.
        return
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    space, data = _sizes()
    wall = int(settings.memory_bytes * WALL_SHARE)
    _at_most(resource.RLIMIT_DATA, data + wall)
    # Page tables are nobody's memory: what they can grow to is a share of the address space.
    _at_most(resource.RLIMIT_AS, space + wall + settings.most_threads * _THREAD_SPACE_BYTES)


def _at_most(limit: int, size: int) -> None:
    # The worker cannot raise it; the server can, and need not be root for that.
    _, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def _sizes() -> tuple[int, int]:
    """Bytes of address space and of private memory."""
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[0]) * resource.getpagesize(), int(pages[5]) * resource.getpagesize()


def _threads() -> int:
    # The 20th field; the second, the program's name, may hold anything but a last bracket.
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[17])


def _drop_capabilities() -> None:
    """Root's are files of others, signals to others, and limits that do not count."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    _libc().capset(header, (ctypes.c_uint32 * 6)())


def _ask_for_threads(asked: socket.socket) -> None:
    machine = this_machine()
    if machine is None:
        return
    program = seccomp.Program(machine)
    program.on(("clone",), seccomp.ask())
    # Elsewhere threads are only counted, now and then (see watch).
    with contextlib.suppress(OSError):
        listener = seccomp.install_asking(program.otherwise_allow(), _libc(), machine)
        try:
            socket.send_fds(asked, [b"l"], [listener])
        finally:
            # Who has it decides.
            os.close(listener)


def _filter(program: bytes | None) -> None:
    if program is not None:
        try:
            seccomp.install(program, _libc())
        except OSError:
            return  # Whether it holds is tried out.


def _only() -> bytes | None:
    machine = this_machine()
    if machine is None:
        return None
    program = seccomp.Program(machine)
    program.on(_PLAIN, seccomp.allow())
    program.on(_LANDLOCK, seccomp.allow())
    program.on(("openat",), seccomp.allow_masked(2, _WRITES, 0))
    # Shared memory and stacks that grow are in no limit.
    private = _MAP_TYPE | _MAP_GROWSDOWN | _MAP_HUGETLB
    program.on(("mmap",), seccomp.allow_masked(3, private, _MAP_PRIVATE))
    program.on(
        ("fcntl",),
        # Not the one that has the kernel signal whom it names.
        seccomp.allow_values(
            1, (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC)
        ),
    )
    program.on(("prctl",), seccomp.allow_values(0, (_PR_SET_NAME, _PR_SET_VMA, _PR_SET_SECCOMP)))
    program.on(("ioctl",), seccomp.refuse(_ENOTTY))
    program.on(("prlimit64",), seccomp.allow_zero_pointer(2, also=0))
    program.on(("sched_setscheduler",), seccomp.allow_exact(_STEP_BACK))
    _processes(program)
    return program.otherwise_refuse()


def _never() -> bytes | None:
    machine = this_machine()
    if machine is None:
        return None
    program = seccomp.Program(machine)
    program.on(("sched_setscheduler",), seccomp.allow_exact(_STEP_BACK))
    program.on(_NEVER, seccomp.refuse())
    program.on(("prlimit64",), seccomp.allow_zero_pointer(2, also=0))
    _processes(program)
    return program.otherwise_allow()


def _processes(program: seccomp.Program) -> None:
    """Threads of its own, and signals to itself."""
    mask = ~_NEW_THREAD_OR_NOT & 0xFFFFFFFF
    program.on(("clone",), seccomp.allow_masked(0, mask, _NEW_THREAD))
    # Its flags lie in memory. A C library that finds it missing takes the other one.
    program.on(("clone3",), seccomp.refuse(_ENOSYS))
    program.on(("tgkill",), seccomp.allow_values(0, (os.getpid(),)))


def _no_more_rules() -> bytes | None:
    """Rules take memory that counts for nobody, and a worker has all that it will get."""
    machine = this_machine()
    if machine is None:
        return None
    program = seccomp.Program(machine)
    program.on(_LANDLOCK, seccomp.refuse())
    program.on(("prctl",), seccomp.allow_values(0, (_PR_SET_NAME, _PR_SET_VMA)))
    return program.otherwise_allow()
