"""An emulated wireless link: a real TCP relay between client and edge that takes the link's time.

What it is: all connections share one queue and one rate per direction, as devices share a
radio; pieces leave in the order they came, are under way for half the round trip, and arrive
on a virtual clock: never early, late by as much as the event loop is (under 1 ms in the
process form). A full queue stops the reading, so TCP's flow control stops the sender.
Opening a connection costs one round trip; a close or a reset queues behind the data sent
before it.

What it is not: packets. Nothing is lost, headers cost nothing (`rate` is payload), and each side's
TCP sees a short local path: congestion control never limits the sender, the queue does.

Everything runs in callbacks of one event loop. Every queue here has a bound: per direction
`queue_bytes` plus what is under way, per connection one piece in hand, the kernel's small
buffers, and UNSENT_BYTES that the receiver did not take yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ionn_client.emulate.link import LinkSpec, Shaper, piece_bytes, stretched

MAX_CONNECTIONS = 256
UNSENT_BYTES = 65_536
# What the kernel holds per socket would be a second queue, invisible and unshaped. It doubles the
# number it is given; less than this stalls local TCP, which has segments of up to 64 KB.
SOCKET_BUFFER_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Payload bytes that arrived at the far side, each way, and connections: opened, open now."""

    up_bytes: int
    down_bytes: int
    connections: int
    open_connections: int


@dataclass(slots=True)
class _UnderWay:
    departure_s: float
    size: int
    arrive: Callable[[], None]


class _Direction:
    """One way through the air: the shaped queue and what is under way, of all connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop, shaper: Shaper) -> None:
        self.shaper = shaper
        self.piece_bytes = piece_bytes(shaper.rate_Bps, shaper.queue_bytes)
        self.carried_bytes = 0
        self.under_way: deque[_UnderWay] = deque()
        self.waiting: deque[_Flow] = deque()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def carry(self, size: int, arrive: Callable[[], None], now: float) -> None:
        """Takes what has room, or needs none (openings, closes and resets have no size)."""
        self.under_way.append(_UnderWay(self.shaper.push(size, now), size, arrive))
        if len(self.under_way) == 1:
            self._arm()

    def offer(self, flow: _Flow) -> None:
        """`flow` has a piece in hand: it goes now if there is room and nobody was first."""
        if self.waiting or flow.in_hand_since_s < self.shaper.room_s(len(flow.in_hand)):
            self.waiting.append(flow)
            self._arm()
        else:
            self._admit(flow, flow.in_hand_since_s)

    def set_rate(self, rate_Bps: float) -> None:
        now = time.monotonic()
        factor = self.shaper.set_rate(rate_Bps, now)
        for item in self.under_way:
            item.departure_s = stretched(item.departure_s, now, factor)
        self.piece_bytes = piece_bytes(rate_Bps, self.shaper.queue_bytes)
        self._arm()

    def clear(self) -> None:
        """Drops everything, at once."""
        self.under_way.clear()
        self.waiting.clear()
        self.shaper.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _admit(self, flow: _Flow, since_s: float) -> None:
        piece = flow.take()
        self.carry(len(piece), lambda: flow.deliver(piece), since_s)

    def _due(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self.under_way and self._arrival_s() <= now:
            item = self.under_way.popleft()
            self.carried_bytes += item.size
            item.arrive()
        while self.waiting:
            flow = self.waiting[0]
            # The piece was in hand when the room appeared: the clock counts from there,
            # so that a late timer does not cost the link any time.
            since_s = max(flow.in_hand_since_s, self.shaper.room_s(len(flow.in_hand)))
            if since_s > now and not flow.closed:
                break
            self.waiting.popleft()
            if not flow.closed:
                self._admit(flow, since_s)
        self._arm()

    def _arrival_s(self) -> float:
        return self.shaper.arrival_s(self.under_way[0].departure_s)

    def _arm(self) -> None:
        moments = [self._arrival_s()] if self.under_way else []
        if self.waiting:
            moments.append(self.shaper.room_s(len(self.waiting[0].in_hand)))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if moments:
            delay_s = max(0.0, min(moments) - time.monotonic())
            self._timer = self._loop.call_later(delay_s, self._due)


class _Flow:
    """One connection, one way: from `source` through `direction` to `sink`."""

    def __init__(
        self,
        connection: _Connection,
        direction: _Direction,
        source: socket.socket,
        sink: socket.socket,
    ) -> None:
        self.connection = connection
        self.direction = direction
        self.source = source
        self.sink = sink
        self.in_hand = b""
        self.in_hand_since_s = 0.0
        self.finished = False
        self.unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self._source_ended = False
        self._source_reset = False
        self._sink_ending = False

    @property
    def closed(self) -> bool:
        return self.connection.closed

    def start(self) -> None:
        self.connection.loop.add_reader(self.source, self._readable)

    def _readable(self) -> None:
        try:
            piece = self.source.recv(self.direction.piece_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.reset()
            return
        self.connection.loop.remove_reader(self.source)
        now = time.monotonic()
        if not piece:
            self._source_ended = True
            self.direction.carry(0, self._finish, now)
            return
        self.in_hand, self.in_hand_since_s = piece, now
        self.direction.offer(self)

    def take(self) -> bytes:
        piece, self.in_hand = self.in_hand, b""
        self._read_on()
        return piece

    def _read_on(self) -> None:
        if not (self.in_hand or self._source_ended or self.unsent_bytes > UNSENT_BYTES):
            self.connection.loop.add_reader(self.source, self._readable)

    def reset(self) -> None:
        """The source is gone: its reset goes the way that its data went."""
        if not self._source_reset:
            self._source_reset = self._source_ended = True
            self.connection.loop.remove_reader(self.source)
            self.direction.carry(0, self.connection.abort, time.monotonic())

    def deliver(self, piece: bytes) -> None:
        if self.closed:
            return
        self.unsent.append(memoryview(piece))
        self.unsent_bytes += len(piece)
        if len(self.unsent) == 1:
            self._flush()

    def _finish(self) -> None:
        self._sink_ending = True
        if not (self.closed or self.unsent):
            self._flush()

    def _flush(self) -> None:
        was_full = self.unsent_bytes > UNSENT_BYTES
        while self.unsent:
            try:
                sent = self.sink.send(self.unsent[0])
            except (BlockingIOError, InterruptedError):
                self.connection.loop.add_writer(self.sink, self._flush)
                break
            except OSError:
                self.connection.lost(self.sink)
                return
            self.unsent_bytes -= sent
            rest = self.unsent[0][sent:]
            if rest:
                self.unsent[0] = rest
            else:
                self.unsent.popleft()
        else:
            self.connection.loop.remove_writer(self.sink)
            if self._sink_ending:
                self._end()
                return
        if was_full and self.unsent_bytes <= UNSENT_BYTES:
            self._read_on()

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)
        self.finished = True
        self.connection.finish()


class _Connection:
    """A client's connection and the one made for it to the edge."""

    def __init__(self, link: LinkEmulator, client: socket.socket) -> None:
        self.link = link
        self.loop = link.loop
        self.client = client
        self.edge = socket.socket(link.target_family, socket.SOCK_STREAM)
        self.edge.setblocking(False)
        _shallow(self.edge)
        self.up = _Flow(self, link.up, client, self.edge)
        self.down = _Flow(self, link.down, self.edge, client)
        self.closed = False
        self.up.direction.carry(0, self._dial, time.monotonic())

    def _dial(self) -> None:
        if self.closed:
            return
        error = self.edge.connect_ex(self.link.target)
        if error == errno.EINPROGRESS:
            self.loop.add_writer(self.edge, self._dialling_ended)
        else:
            self._dialled(error)

    def _dialling_ended(self) -> None:
        self.loop.remove_writer(self.edge)
        self._dialled(self.edge.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _dialled(self, error: int) -> None:
        if error:
            self.down.reset()
        else:
            self.down.direction.carry(0, self._start, time.monotonic())

    def _start(self) -> None:
        if not self.closed:
            self.up.start()
            self.down.start()

    def lost(self, gone: socket.socket) -> None:
        """Writing to `gone` failed: the other side hears of it from the flow that `gone` feeds."""
        self.loop.remove_writer(gone)
        (self.up if gone is self.client else self.down).reset()

    def finish(self) -> None:
        if self.up.finished and self.down.finished:
            self._close()

    def abort(self) -> None:
        """Resets both sides."""
        if not self.closed:
            for side in (self.client, self.edge):
                _reset_on_close(side)
            self._close()

    def _close(self) -> None:
        self.closed = True
        for side in (self.client, self.edge):
            self.loop.remove_reader(side)
            self.loop.remove_writer(side)
            side.close()
        self.link.connections.discard(self)


class LinkEmulator:
    """A link that client and edge can be put on, in this process.

        async with LinkEmulator(spec, "127.0.0.1:7431") as link:
            connect to ("127.0.0.1", link.port) instead of the edge

    `target`: the edge's address, as "host:port" or a pair; `listen`: where clients connect, port 0
    for any. OSError if `listen` cannot be had or `target` is no address. The edge need not be
    there: a connection that it refuses is reset. In an event loop that is also busy with other
    things pieces are delivered late, never lost from the rate; measure with `LinkProcess`.
    """

    def __init__(
        self,
        spec: LinkSpec,
        target: str | tuple[str, int],
        listen: str | tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.spec = spec
        self.connections: set[_Connection] = set()
        self._target = address(target)
        self._listen = address(listen)
        self._opened = 0
        self._cut = False

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        delay_s = self.spec.rtt_s / 2
        queue_bytes = self.spec.queue_bytes
        self.up = _Direction(self.loop, Shaper(self.spec.up_Bps, delay_s, queue_bytes))
        self.down = _Direction(self.loop, Shaper(self.spec.down_Bps, delay_s, queue_bytes))
        found = await self.loop.getaddrinfo(*self._target, type=socket.SOCK_STREAM)
        self.target_family: int = found[0][0]
        self.target: tuple[object, ...] = found[0][4]
        found = await self.loop.getaddrinfo(*self._listen, type=socket.SOCK_STREAM)
        self._listener = socket.socket(found[0][0], socket.SOCK_STREAM)
        try:
            self._open_listener(found[0][4])
        except BaseException:
            self._listener.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut()
        self.loop.remove_reader(self._listener)
        self._listener.close()

    def _open_listener(self, where: tuple[object, ...]) -> None:
        self._listener.setblocking(False)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _shallow(self._listener)
        self._listener.bind(where)
        self._listener.listen(MAX_CONNECTIONS)
        self.host, self.port = self._listener.getsockname()[:2]
        self.loop.add_reader(self._listener, self._accept)

    @property
    def counters(self) -> LinkCounters:
        return LinkCounters(
            up_bytes=self.up.carried_bytes,
            down_bytes=self.down.carried_bytes,
            connections=self._opened,
            open_connections=len(self.connections),
        )

    async def set_rate(self, up_Bps: float | None = None, down_Bps: float | None = None) -> None:
        """Changes the rates from now on, also for what is queued; None leaves one as it is."""
        if up_Bps is not None:
            self.up.set_rate(up_Bps)
        if down_Bps is not None:
            self.down.set_rate(down_Bps)

    def cut(self) -> None:
        """Resets every connection now, with all that is queued and under way, and every new one."""
        self._cut = True
        self.up.clear()
        self.down.clear()
        for connection in tuple(self.connections):
            connection.abort()

    def restore(self) -> None:
        """Lets new connections through again."""
        self._cut = False

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # The client has left again.
        client.setblocking(False)
        if self._cut or len(self.connections) >= MAX_CONNECTIONS:
            _reset_on_close(client)
            client.close()
            return
        _shallow(client)
        self._opened += 1
        self.connections.add(_Connection(self, client))


def address(where: str | tuple[str, int]) -> tuple[str, int]:
    """Host and port from "host:port" (IPv6 in brackets); ValueError for anything else."""
    if not isinstance(where, str):
        return where
    host, colon, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ValueError(f"cannot read {where!r} as an address: write host:port")
    return host, int(port)


def _shallow(side: socket.socket) -> None:
    side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset_on_close(side: socket.socket) -> None:
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
