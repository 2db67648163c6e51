"""What a worker must not be able to do, tried by a worker itself when the edge starts.

Flags of the kernel say what should hold; containers, older kernels and other machines differ.
Every attempt is harmless where it succeeds: it asks for nothing, or undoes what it got.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

from ionn_edge.workers.syscalls import number_of, this_machine

# What the server puts there for the trial: a weight, and another device's.
OWN, OTHERS = "own", "others"
WEIGHT = "weight"
_REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOMEM}
_CLONE_THREAD_ALONE = 0x10000
_MAP_SHARED_ANONYMOUS, _MAP_STACK_THAT_GROWS, _MAP_UNRESERVED = 0x21, 0x122, 0x4022
_NOWHERE = 1
_HUGE = 1 << 44
_F_SETOWN, _AF_NETLINK = 8, 16

Attempt = Callable[[], object]


def attempted(directory: Path) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    """(whether its weight can be read, what held, what did not), in words for a person.

    `directory` has OWN, which this worker was restricted to, and OTHERS, each with a WEIGHT.
    """
    holds, fails = [], []
    for promise, attempts in _promises(directory).items():
        got_through = [name for name, attempt in attempts.items() if _succeeds(attempt)]
        if got_through:
            fails.append(f"{promise} ({', '.join(got_through)})")
        else:
            holds.append(promise)
    readable = not _refused(lambda: (directory / OWN / WEIGHT).read_bytes(), set())
    return readable, tuple(holds), tuple(fails)


def _succeeds(attempt: Attempt) -> bool:
    return not _refused(attempt, _REFUSALS)


def _refused(attempt: Attempt, because: set[int]) -> bool:
    """Whether it failed for such a reason; an empty set means any reason."""
    try:
        attempt()
    except OSError as error:
        return not because or error.errno in because
    return False


def _promises(directory: Path) -> dict[str, dict[str, Attempt]]:
    parent = os.getppid()
    return {
        "no network": {
            "internet": lambda: socket.socket(socket.AF_INET).close(),
            "internet 6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close(),
            "unix": lambda: socket.socket(socket.AF_UNIX).close(),
            "netlink": lambda: socket.socket(_AF_NETLINK, socket.SOCK_RAW).close(),
        },
        "no new processes": {
            "fork": _fork,
            "clone": lambda: _call("clone", _CLONE_THREAD_ALONE),
            "clone3": lambda: _call("clone3"),
            "exec": lambda: _call("execve"),
            "execveat": lambda: _call("execveat", -1),
        },
        "no files written": {
            "new": lambda: _create(directory / OWN / "new"),
            "present": lambda: _open(directory / OWN / WEIGHT, os.O_WRONLY),
            "memory": lambda: _call("memfd_create"),
        },
        "no files read but its weights": {
            "another device's": lambda: _open(directory / OTHERS / WEIGHT),
            "a program's": lambda: _open(Path(__file__)),
            "the server's environment": lambda: _open(Path(f"/proc/{parent}/environ")),
            "names": lambda: os.listdir(directory),
        },
        "no signals to others": {
            "kill": lambda: os.kill(parent, 0),
            "tgkill": lambda: _call("tgkill", parent, parent, 0),
            "owner": lambda: fcntl.fcntl(0, _F_SETOWN, parent),
            "descriptor": lambda: _call("pidfd_open", parent),
        },
        "no look into other processes": {
            "ptrace": lambda: _call("ptrace", -1, parent),
            "memory": lambda: _call("process_vm_readv", parent),
            "write": lambda: _call("process_vm_writev", parent),
        },
        "no other doors of the kernel": {
            "io_uring": lambda: _call("io_uring_setup", 1),
            "bpf": lambda: _call("bpf", -1),
            "userfaultfd": lambda: _call("userfaultfd", -1),
            "perf": lambda: _call("perf_event_open"),
            "keys": lambda: _call("keyctl", -1),
            "namespaces": lambda: _call("unshare"),
            "mount": lambda: _call("mount"),
        },
        "memory and limits of its own": {
            "huge": lambda: _map(_MAP_UNRESERVED, _HUGE),
            "shared": lambda: _map(_MAP_SHARED_ANONYMOUS),
            "growing": lambda: _map(_MAP_STACK_THAT_GROWS),
            "limits": lambda: _call("prlimit64", 0, 1, _NOWHERE),
        },
    }


def _call(name: str, *arguments: int) -> None:
    """The bare system call, other arguments 0."""
    machine = this_machine()
    number = None if machine is None else number_of(name, machine)
    if number is None:
        return  # Nothing filters calls here.
    libc = ctypes.CDLL(None, use_errno=True)
    rest = [*arguments, *[0] * (6 - len(arguments))]
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, rest)) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _map(flags: int, size: int = mmap.PAGESIZE) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(size), 3, flags, -1, ctypes.c_long(0))
    if address in (None, ctypes.c_void_p(-1).value):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))


def _fork() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def _create(path: Path) -> None:
    _open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        path.unlink()


def _open(path: Path, flags: int = os.O_RDONLY) -> None:
    os.close(os.open(path, flags))
