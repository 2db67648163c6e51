"""The simulated network: each client's two ways to the edge, and the connections over them.

What is real: the bytes, which are the wire's own frames, copied as sockets copy them. What is
modelled: TCP keeps a connection's bytes in order, and delivers them or ends it. A connection may
break after any byte of its stream; since WebSockets hand over whole frames, that is after the
frames that were complete by then, and messages may consist of several. All connections of a
client share its link's rate, so that the second one's messages come earlier or later than the
first one's.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.simulation.loop import VirtualLoop

FRAMING_BYTES = 6
# What a socket takes before who writes has to wait.
BUFFER_BYTES = 64 << 10
CLOSE_TIMEOUT_S = 0.5
APART_S = 1e-9


@dataclass(slots=True)
class Frame:
    """What an aiohttp socket yields."""

    type: aiohttp.WSMsgType
    data: bytes | str


@dataclass(slots=True)
class Way:
    """One direction between a client and the edge, and all that waits in its queue."""

    rate_Bps: float
    delay_s: float
    jitter_s: float
    free_at: float = 0.0
    stalled_until: float = 0.0

    def begins(self, now: float) -> float:
        return max(now, self.free_at, self.stalled_until)

    def waits_s(self, now: float) -> float:
        return max(self.free_at - now, 0.0)


@dataclass(slots=True)
class Tamper:
    """What becomes of each frame on its way, and what is kept back of those before."""

    change: Callable[[bytes], list[bytes]]
    kept: list[bytes] = field(default_factory=list)


class Socket:
    """One end of a connection, with the methods of aiohttp's WebSockets that the programs use."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, way: Way) -> None:
        self.peer: Socket
        self.closed = False
        # Bytes of the stream after which the connection breaks.
        self.cut_at: int | None = None
        # What is written is never delivered, and nobody is told.
        self.deaf = False
        # Whether what came over it is not what was said: promises do not hold then.
        self.tampered = False
        self.tamper: Tamper | None = None
        self._loop = loop
        self._rng = rng
        self._way = way
        self._inbox: deque[Frame] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False
        self._flying: deque[tuple[float, asyncio.TimerHandle]] = deque()
        self._last_arrival = 0.0
        self.sent_bytes = 0

    # What the programs use.

    def get_extra_info(self, _: str, default: Any = None) -> Any:
        return default

    async def send_bytes(self, frame: bytes | memoryview) -> None:
        if self.closed or self._ended:
            raise ConnectionResetError("Cannot write to closing transport")
        data = bytes(frame)
        for piece in self.tamper.change(data) if self.tamper is not None else (data,):
            self._transmit(piece)
        waits_s = self._way.waits_s(self._loop.time()) - BUFFER_BYTES / self._way.rate_Bps
        if waits_s > 0:
            await asyncio.sleep(waits_s)

    def __aiter__(self) -> Socket:
        return self

    async def __anext__(self) -> Frame:
        while not self._inbox:
            if self._ended or self.closed:
                raise StopAsyncIteration
            self._waiting = self._loop.create_future()
            await self._waiting
        return self._inbox.popleft()

    async def close(self) -> bool:
        if self.closed:
            return False
        self._finish()
        self._after_flight(self.peer.hear_end)
        # For the other side's goodbye, which a silent network never brings.
        wait_s = 2 * self._way.delay_s if not self.deaf and not self.peer.deaf else CLOSE_TIMEOUT_S
        await asyncio.sleep(min(wait_s, CLOSE_TIMEOUT_S))
        return True

    def abort(self) -> None:
        """What has not left is dropped."""
        if self.closed:
            return
        self._finish()
        now = self._loop.time()
        for begins, handle in self._flying:
            if begins > now:
                handle.cancel()
        self._last_arrival = min(self._last_arrival, now + self._way.delay_s)
        self._after_flight(lambda: self.peer.hear_end(error=True))

    # What the network does.

    def spoil(self, tamper: Tamper | None) -> None:
        """What is written goes through this from now on. What another kept back is late, not
        lost: no network loses part of a stream."""
        kept = self.tamper.kept if self.tamper is not None else []
        self.tamper = tamper
        if tamper is not None:
            self.tampered = self.peer.tampered = True
        if not (self.closed or self._ended):
            for piece in kept:
                self._transmit(piece)

    def vanish(self, *, silently: bool) -> None:
        """The process is gone: its machine says so for it, or is gone too."""
        self._finish()
        for begins, handle in self._flying:
            if begins > self._loop.time():
                handle.cancel()
        if silently:
            self.deaf = self.peer.deaf = True
        else:
            self._loop.call_later(self._way.delay_s, self.peer.hear_end, True)

    def break_off(self, after_s: float = 0.0) -> None:
        """A reset, which each side learns of by itself, and what is under way is lost."""
        for end in (self, self.peer):
            end.deaf = True
            for _, handle in end._flying:
                handle.cancel()
            self._loop.call_later(after_s + self._rng.random() * 0.05, end.hear_end, True)

    def hear_end(self, error: bool = False) -> None:
        if self._ended or self.closed:
            return
        self._ended = True
        if error and self._rng.random() < 0.3:
            self._inbox.append(Frame(aiohttp.WSMsgType.ERROR, "connection reset"))
        self._wake()

    def hear(self, data: bytes) -> None:
        if not (self._ended or self.closed):
            self._inbox.append(Frame(aiohttp.WSMsgType.BINARY, data))
            self._wake()

    def _transmit(self, data: bytes) -> None:
        way, now = self._way, self._loop.time()
        size = len(data) + FRAMING_BYTES
        begins = way.begins(now)
        way.free_at = begins + size / way.rate_Bps
        jitter_s = self._rng.random() * way.jitter_s
        arrives = way.free_at + way.delay_s + jitter_s
        # Timers of the same moment go off in any order.
        self._last_arrival = max(self._last_arrival + APART_S, arrives)
        self.sent_bytes += size
        if self.deaf:
            return
        if self.cut_at is not None and self.sent_bytes > self.cut_at:
            if self.sent_bytes - size <= self.cut_at:
                self.break_off_at(self._last_arrival)
            return
        handle = self._loop.call_at(self._last_arrival, self._arrive, data)
        self._flying.append((begins, handle))

    def break_off_at(self, when: float) -> None:
        self._loop.call_at(when, self.break_off)

    def _arrive(self, data: bytes) -> None:
        self._flying.popleft()
        # Those under way when the network went silent are lost too.
        if not self.deaf:
            self.peer.hear(data)

    def _after_flight(self, act: Callable[[], None]) -> None:
        if not self.deaf:
            way, now = self._way, self._loop.time()
            self._loop.call_at(max(self._last_arrival, now + way.delay_s), act)

    def _finish(self) -> None:
        self.closed = True
        self._inbox.clear()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def connected(loop: VirtualLoop, rng: random.Random, up: Way, down: Way) -> tuple[Socket, Socket]:
    """(the client's end, the edge's end) of a new connection."""
    client, edge = Socket(loop, rng, up), Socket(loop, rng, down)
    client.peer, edge.peer = edge, client
    return client, edge
