"""Worker processes, seen from the event loop: how one is talked to, and ended.

Imports no torch. A `Worker` is one client's; where they come from is in `nursery`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import Protocol

from ionn_edge.pages import pages
from ionn_edge.workers import answers, jobs
from ionn_edge.workers.precedence import bring_forward, put_back
from ionn_edge.workers.read_ahead import ReadAhead
from ionn_edge.workers.watch import Allowance, allow_more, usage

# An answer's tensors of less are freed in no time.
LARGE_BYTES = 256 << 10
# Of an answer, so much is read without a turn for anybody else in between.
AT_ONCE_BYTES = 64 << 10


class EngineError(Exception):
    """No worker can be had."""


class WorkerGone(Exception):
    """The worker process ended; the text says why."""


class Parent(Protocol):
    """What a worker needs of where it comes from."""

    async def exit_reason(self, pid: int) -> str: ...
    def ended(self, worker: Worker) -> None: ...


class Worker:
    """One worker process. Jobs go out in order; `receive` gives its answers in order."""

    def __init__(self, parent: Parent, pipe: socket.socket, pid: int, allowance: Allowance) -> None:
        self.pid = pid
        # Whose precedence it has; None before its first work, and for the box's own.
        self.owner: str | None = None
        self.is_back = False
        self.allowance = allowance
        self._unanswered = 0
        self._asked: type[jobs.Job] | None = None
        self._was_busy = False
        self._parent = parent
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[memoryview] = deque()
        self._waiting = asyncio.Event()
        self._at_once_bytes = 0
        self._ahead = ReadAhead()
        self._sender = asyncio.create_task(self._send_all())

    def __repr__(self) -> str:
        return f"<Worker {self.pid}>"

    @property
    def alive(self) -> bool:
        """Whether its process has not closed its socket; asked before its first job."""
        try:
            return bool(self._pipe.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def work_for(self, device: str | None, weights_bytes: int) -> None:
        """For this paired device, with so much more memory: all weights may come by planes."""
        self.allowance.device = device
        self.allowance.weights_bytes = weights_bytes
        allow_more(self.pid, weights_bytes)

    def look(self, now: float) -> float:
        """See what it uses; processor seconds since the last look."""
        used = usage(self.pid)
        busy, self._was_busy = self._was_busy or self._unanswered > 0, self._unanswered > 0
        return 0.0 if used is None else self.allowance.look(used, busy, now)

    def stand(self, back: bool) -> None:
        """Behind all other processes, or where workers begin."""
        if back != self.is_back:
            self.is_back = back
            (put_back if back else bring_forward)(self.pid)

    def send(self, job: jobs.Job) -> None:
        """Queue a job; a worker that is gone shows in `receive`."""
        self._was_busy = True
        if not isinstance(job, jobs.Ready):
            self._unanswered += 1
            self._asked = type(job)
        at_once = not self._pieces
        pieces = [memoryview(piece) for piece in jobs.encode(job)]
        self._pieces.extend(piece.cast("B") for piece in pieces if piece.nbytes)
        if at_once:
            self._push()
        if self._pieces:
            self._waiting.set()

    def _push(self) -> None:
        """What the socket takes at once: to wake a task for it takes longer."""
        try:
            sent_bytes = self._pipe.sendmsg(self._pieces)
        except OSError:
            return  # Full, or gone: `_send_all` sees which.
        while self._pieces and sent_bytes >= self._pieces[0].nbytes:
            sent_bytes -= self._pieces.popleft().nbytes
        if sent_bytes:
            self._pieces[0] = self._pieces[0][sent_bytes:]

    async def receive(self) -> jobs.Job:
        """The next answer. Raises WorkerGone."""
        try:
            self._at_once_bytes = 0
            prefix = await self._exactly(jobs.LENGTH.size)
            self._at_once_bytes = AT_ONCE_BYTES
            header = await self._exactly(answers.header_bytes(prefix, self._asked))
            kind, plain, sizes = answers.decode_header(header)
            answer = answers.decode(kind, plain, [await self._exactly(size) for size in sizes])
            self._unanswered = max(0, self._unanswered - 1)
            return answer
        except OSError:
            raise WorkerGone(await self._parent.exit_reason(self.pid)) from None
        except jobs.BrokenPipe as error:
            raise WorkerGone(f"its worker talks nonsense: {error}") from None

    async def close(self) -> None:
        """End the process, whatever it does."""
        self._sender.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)
        self._parent.ended(self)
        self._pipe.close()

    async def _send_all(self) -> None:
        try:
            while True:
                while self._pieces:
                    # There until it is sent: meanwhile nothing is sent past it.
                    await self._loop.sock_sendall(self._pipe, self._pieces[0])
                    self._pieces.popleft()
                self._waiting.clear()
                await self._waiting.wait()
        except OSError:
            return

    async def _exactly(self, size: int) -> memoryview:
        view = pages(size).data if size >= LARGE_BYTES else memoryview(bytearray(size))
        position = self._ahead.give(view)
        while position < size:
            rest = view[position:]
            count = await self._some(self._ahead.place(rest))
            if not count:
                raise ConnectionError("the worker is gone")
            position += self._ahead.came(count, rest)
        return view

    async def _some(self, view: memoryview) -> int:
        if view.nbytes <= self._at_once_bytes:
            self._at_once_bytes -= view.nbytes
            with contextlib.suppress(BlockingIOError):
                return self._pipe.recv_into(view)
        return await self._loop.sock_recv_into(self._pipe, view)
