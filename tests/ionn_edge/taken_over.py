"""A forkserver whose workers do what a test tells them: as if a graph had taken them over.

`python -m tests.ionn_edge.taken_over FD SETTINGS`. A worker is shut in as any other is, and
checks its graph as any other does. Then a Run whose precision is none is Python to execute, which
leaves its `result`; a query that begins with BOMB eats memory until it cannot.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import resource
import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path

import torch

from ionn_edge.workers import forkserver, jobs, threads, worker
from ionn_edge.workers.precedence import behind_all
from ionn_edge.workers.syscalls import number_of, this_machine
from layergraph import tensor_from_buffer
from wire.messages import PRECISIONS

BOMB = 666.0
libc = ctypes.CDLL(None, use_errno=True)
machine = this_machine()
assert machine is not None


def call(name: str | int, *arguments: object) -> int:
    """The bare system call: code that took a worker over need not go through a library."""
    number = name if isinstance(name, int) else number_of(name, machine)
    if number is None:
        raise OSError(errno.ENOSYS, "not on this machine")
    rest = [*arguments, *[0] * (6 - len(arguments))]
    plain = [ctypes.c_long(each) if isinstance(each, int) else each for each in rest]
    result = int(libc.syscall(ctypes.c_long(number), *plain))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def eat() -> None:
    """Take memory, touch it, and keep what there is when there is no more."""
    held = []
    try:
        while True:
            held.append(b"x" * (1 << 20))
    except MemoryError:
        time.sleep(60)


KNOWN = {
    each.__name__: each
    for each in (ctypes, fcntl, itertools, mmap, os, resource, signal, socket, threading, time)
} | {"torch": torch, "Path": Path, "call": call, "eat": eat, "libc": libc} | {
    "partial": partial, "behind_all": behind_all,
}  # fmt: skip
honest = worker._Worker._run


def run(self: worker._Worker, job: jobs.Run) -> jobs.Job:
    if job.precision not in PRECISIONS:
        return jobs.Failed(job.query, "execution", outcome(job.precision))
    first = job.tensors[0]
    tensor = tensor_from_buffer(first.dtype, first.shape, first.order, first.data)
    if tensor.flatten()[0] == BOMB:
        eat()
    return honest(self, job)


def outcome(code: str) -> str:
    names = dict(KNOWN)
    try:
        exec(code, names)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"result {names['result']!r}"


if __name__ == "__main__":
    # On a busy machine a worker does not start so many that it would ever be too many.
    threads.STARTS_PER_S = 1
    worker._Worker._run = run  # type: ignore[method-assign]
    forkserver.main()
