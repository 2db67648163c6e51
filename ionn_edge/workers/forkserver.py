"""The process that workers are forked from, torch imported: a new one is there in milliseconds.

Run as `python -m ionn_edge.workers.forkserver FD SETTINGS`. It does nothing itself, so that it
never has threads to fork. On the control socket every record is a letter and a number:

    from the server   "f" 0 (with a file descriptor): fork a worker that serves this socket
                      "k" pid: kill that worker
    to the server     "r" 0: ready    "f" pid: forked    "x" pid: ended

It ends, and its workers with it, when the server closes the control socket or dies.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys

from ionn_edge.settings import WorkerSettings
from ionn_edge.workers import precedence, sandbox

RECORD = struct.Struct("!cii")
# Of what a worker says before it ends: a traceback, not a flood.
MOST_SAID_BYTES = 4096


def record(letter: bytes, number: int = 0, status: int = 0) -> bytes:
    return RECORD.pack(letter, number, status)


def main() -> None:
    precedence.stand_behind()
    control = socket.socket(fileno=int(sys.argv[1]))
    # Whatever the server was started with is none of the workers' business.
    os.closerange(3, control.fileno())
    os.closerange(control.fileno() + 1, _most_descriptors())
    from ionn_edge.workers import worker

    settings = WorkerSettings(**json.loads(sys.argv[2]))
    worker.warm_up()
    gc.collect()
    gc.freeze()
    waking, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    # Of each worker what it last said: the end of a pipe.
    children: dict[int, int] = {}
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(waking, selectors.EVENT_READ)
    with contextlib.suppress(ConnectionError):
        control.sendall(record(b"r"))
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if waking in ready:
                waking.recv(4096)
                _reap(control, children)
            if control in ready and not _obey(control, children, settings):
                break
    signal.set_wakeup_fd(-1)
    for child in children:
        os.kill(child, signal.SIGKILL)


def _most_descriptors() -> int:
    with contextlib.suppress(OSError):
        return 1 + max(map(int, os.listdir("/proc/self/fd")))
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)


def _reap(control: socket.socket, children: dict[int, int]) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            _repeat(child, children.pop(child))
            control.sendall(record(b"x", child, os.waitstatus_to_exitcode(status)))


def _repeat(child: int, heard: int) -> None:
    """What a worker said before it ended, as text that no terminal takes for more."""
    with contextlib.suppress(BlockingIOError):
        for line in os.read(heard, MOST_SAID_BYTES).decode("ascii", "replace").splitlines():
            readable = "".join(each if each.isprintable() else "?" for each in line)
            print(f"worker {child}: {readable}", file=sys.stderr, flush=True)
    os.close(heard)


def _obey(control: socket.socket, children: dict[int, int], settings: WorkerSettings) -> bool:
    data, descriptors, _, _ = socket.recv_fds(control, RECORD.size, 1)
    if len(data) < RECORD.size:
        return False
    letter, number, _ = RECORD.unpack(data)
    if letter == b"k" and number in children:
        os.kill(number, signal.SIGKILL)
    if letter == b"f" and descriptors:
        heard, said = os.pipe()
        os.set_blocking(heard, False)
        # A worker that says too much is not stopped by that.
        os.set_blocking(said, False)
        pid = os.fork()
        if not pid:
            _become_worker(descriptors[0], said, settings)
        os.close(descriptors[0])
        os.close(said)
        children[pid] = heard
        control.sendall(record(b"f", pid))
    return True


def _become_worker(descriptor: int, errors: int, settings: WorkerSettings) -> None:
    from ionn_edge.workers import worker

    code = 1
    try:
        signal.set_wakeup_fd(-1)
        # The terminal is the operator's: who wrote to it could have it show anything.
        os.dup2(errors, 2)
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, _most_descriptors())
        with socket.socket(fileno=descriptor) as pipe:
            _isolate(settings)
            worker.serve(pipe, settings)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # Nothing of the forkserver's own (exit handlers, buffers) may run here.
        os._exit(code)


def _isolate(settings: WorkerSettings) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Of all processes of the box, the one that runs a stranger's graph goes first.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    sandbox.enter(settings)


if __name__ == "__main__":
    main()
