"""The process that workers are forked from, torch imported: a new one is there in milliseconds.

Run as `python -m ionn_edge.forkserver FD SETTINGS`. It does nothing itself, so that it never
has threads to fork. On the control socket every record is a letter and a number:

    from the server   "f" 0 (with a file descriptor): fork a worker that serves this socket
                      "k" pid: kill that worker
    to the server     "r" 0: ready    "f" pid: forked    "x" pid: ended

It ends, and its workers with it, when the server closes the control socket or dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys

RECORD = struct.Struct("!cii")
_PR_SET_PDEATHSIG = 1


def record(letter: bytes, number: int = 0, status: int = 0) -> bytes:
    return RECORD.pack(letter, number, status)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    # Whatever the server was started with is none of the workers' business.
    os.closerange(3, control.fileno())
    os.closerange(control.fileno() + 1, _most_descriptors())
    from ionn_edge import worker

    settings = worker.Settings(**json.loads(sys.argv[2]))
    worker.warm_up()
    gc.collect()
    gc.freeze()
    waking, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    children: set[int] = set()
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
            if control in ready and not _obey(control, children, settings, (waking, wake)):
                break
    signal.set_wakeup_fd(-1)
    for child in children:
        os.kill(child, signal.SIGKILL)


def _most_descriptors() -> int:
    with contextlib.suppress(OSError):
        return 1 + max(map(int, os.listdir("/proc/self/fd")))
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)


def _reap(control: socket.socket, children: set[int]) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.discard(child)
            control.sendall(record(b"x", child, os.waitstatus_to_exitcode(status)))


def _obey(
    control: socket.socket,
    children: set[int],
    settings: object,
    inherited: tuple[socket.socket, ...],
) -> bool:
    data, descriptors, _, _ = socket.recv_fds(control, RECORD.size, 1)
    if len(data) < RECORD.size:
        return False
    letter, number, _ = RECORD.unpack(data)
    if letter == b"k" and number in children:
        os.kill(number, signal.SIGKILL)
    if letter == b"f" and descriptors:
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            for each in (control, *inherited):
                each.close()
            _become_worker(descriptors[0], settings)
        os.close(descriptors[0])
        children.add(pid)
        control.sendall(record(b"f", pid))
    return True


def _become_worker(descriptor: int, settings: object) -> None:
    from ionn_edge import worker

    assert isinstance(settings, worker.Settings)
    code = 1
    try:
        _isolate()
        with socket.socket(fileno=descriptor) as pipe:
            worker.serve(pipe, settings)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # Nothing of the forkserver's own (exit handlers, buffers) may run here.
        os._exit(code)


def _isolate() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Of all processes of the box, the one that runs a stranger's graph goes first.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")


if __name__ == "__main__":
    main()
