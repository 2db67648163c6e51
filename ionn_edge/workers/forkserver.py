"""The process that workers are forked from, torch imported: a new one is there in milliseconds.

Run as `python -m ionn_edge.workers.forkserver FD SETTINGS`. It does nothing itself, so that it
never has threads to fork. On the control socket every record is a letter and a number:

    from the server   "f" 0 (with a file descriptor): fork a worker that serves this socket
                      "k" pid: kill that worker
    to the server     "r" 0: ready    "f" pid: forked    "x" pid: ended
                      "t" pid: ended for the threads that it wanted (see threads)

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
from dataclasses import dataclass

from ionn_edge.settings import WorkerSettings
from ionn_edge.workers import precedence, sandbox
from ionn_edge.workers.threads import Threads
from wire import printable

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
    children = _Children(control, settings)
    with contextlib.suppress(ConnectionError):
        control.sendall(record(b"r"))
        while children.attend():
            pass
    children.end()


@dataclass(slots=True)
class _Child:
    """heard: what it last said, the end of a pipe. asks: for threads, once it has said how."""

    heard: int
    asks: socket.socket | Threads


class _Children:
    """The workers that were forked and have not ended."""

    def __init__(self, control: socket.socket, settings: WorkerSettings) -> None:
        self._control = control
        self._settings = settings
        self._known: dict[int, _Child] = {}
        self._waking, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        for each in (control, self._waking):
            self._selector.register(each, selectors.EVENT_READ)

    def attend(self) -> bool:
        """Wait for something to do, and do it. False where the server is gone."""
        ready = [(key.fileobj, key.data) for key, _ in self._selector.select()]
        for what, pid in ready:
            if what is self._waking:
                self._waking.recv(4096)
                self._reap()
            elif what is self._control:
                if not self._obey():
                    return False
            elif pid in self._known:
                self._hear(pid, self._known[pid])
        return True

    def end(self) -> None:
        signal.set_wakeup_fd(-1)
        for pid in self._known:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        for pid in list(self._known):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                child = self._known.pop(pid)
                self._forget(child.asks)
                _repeat(pid, child.heard)
                self._control.sendall(record(b"x", pid, os.waitstatus_to_exitcode(status)))

    def _hear(self, pid: int, child: _Child) -> None:
        """It asks for a thread, or says how it will."""
        asks = child.asks
        if isinstance(asks, Threads):
            if not asks.answer():
                self._selector.unregister(asks)
            if asks.excess:
                self._control.sendall(record(b"t", pid, asks.excess))
                os.kill(pid, signal.SIGKILL)
            return
        _, descriptors, _, _ = socket.recv_fds(asks, 1, 1)
        if not descriptors:
            self._selector.unregister(asks)
            return
        self._forget(asks)
        child.asks = Threads(pid, descriptors[0], self._settings.most_threads)
        self._selector.register(child.asks, selectors.EVENT_READ, pid)

    def _forget(self, asks: socket.socket | Threads) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(asks)
        asks.close()

    def _obey(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, RECORD.size, 1)
        if len(data) < RECORD.size:
            return False
        letter, number, _ = RECORD.unpack(data)
        if letter == b"k" and number in self._known:
            os.kill(number, signal.SIGKILL)
        if letter == b"f" and descriptors:
            self._fork(descriptors[0])
        return True

    def _fork(self, descriptor: int) -> None:
        heard, said = os.pipe()
        os.set_blocking(heard, False)
        # A worker that says too much is not stopped by that.
        os.set_blocking(said, False)
        ours, theirs = socket.socketpair()
        here = os.getpid()
        pid = os.fork()
        if not pid:
            _become_worker(descriptor, said, theirs, self._settings, here)
        os.close(descriptor)
        os.close(said)
        theirs.close()
        self._known[pid] = _Child(heard, ours)
        self._selector.register(ours, selectors.EVENT_READ, pid)
        self._control.sendall(record(b"f", pid))


def _most_descriptors() -> int:
    with contextlib.suppress(OSError):
        return 1 + max(map(int, os.listdir("/proc/self/fd")))
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)


def _repeat(child: int, heard: int) -> None:
    """What a worker said before it ended, as text that no terminal takes for more."""
    with contextlib.suppress(BlockingIOError):
        for line in os.read(heard, MOST_SAID_BYTES).decode("ascii", "replace").splitlines():
            print(f"worker {child}: {printable(line, '?')}", file=sys.stderr, flush=True)
    os.close(heard)


def _become_worker(
    descriptor: int, errors: int, asked: socket.socket, settings: WorkerSettings, parent: int
) -> None:
    from ionn_edge.workers import worker

    code = 1
    try:
        signal.set_wakeup_fd(-1)
        # The terminal is the operator's: who wrote to it could have it show anything.
        os.dup2(errors, 2)
        before = 2
        for kept in sorted((descriptor, asked.fileno())):
            os.closerange(before + 1, kept)
            before = kept
        os.closerange(before + 1, _most_descriptors())
        with socket.socket(fileno=descriptor) as pipe:
            _isolate(settings, asked, parent)
            worker.serve(pipe, settings)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # Nothing of the forkserver's own (exit handlers, buffers) may run here.
        os._exit(code)


def _isolate(settings: WorkerSettings, asked: socket.socket, parent: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Of all processes of the box, the one that runs a stranger's graph goes first.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    sandbox.enter(settings, asked, parent)


if __name__ == "__main__":
    main()
