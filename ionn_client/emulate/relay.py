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
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ionn_client.emulate.air import Direction
from ionn_client.emulate.connection import Connection, SocketAddress, reset_on_close, shallow
from ionn_client.emulate.link import LinkSpec, Shaper

MAX_CONNECTIONS = 256


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Payload bytes that arrived at the far side, each way, and connections: opened, open now."""

    up_bytes: int
    down_bytes: int
    connections: int
    open_connections: int


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
        self.connections: set[Connection] = set()
        self._target = address(target)
        self._listen = address(listen)
        self._opened = 0
        self._cut = False

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        delay_s = self.spec.rtt_s / 2
        queue_bytes = self.spec.queue_bytes
        self.up = Direction(self.loop, Shaper(self.spec.up_Bps, delay_s, queue_bytes))
        self.down = Direction(self.loop, Shaper(self.spec.down_Bps, delay_s, queue_bytes))
        self.target = await self._resolve(self._target)
        listen = await self._resolve(self._listen)
        self._listener = socket.socket(listen.family, socket.SOCK_STREAM)
        try:
            self._open_listener(listen.where)
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

    async def _resolve(self, where: tuple[str, int]) -> SocketAddress:
        found = await self.loop.getaddrinfo(*where, type=socket.SOCK_STREAM)
        return SocketAddress(family=found[0][0], where=found[0][4])

    def _open_listener(self, where: tuple[object, ...]) -> None:
        self._listener.setblocking(False)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shallow(self._listener, self.up.piece_bytes)
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
            reset_on_close(client)
            client.close()
            return
        self._opened += 1
        connection = Connection(
            self.loop, client, self.target, self.up, self.down, self.connections.discard
        )
        self.connections.add(connection)


def address(where: str | tuple[str, int]) -> tuple[str, int]:
    """Host and port from "host:port" (IPv6 in brackets); ValueError for anything else."""
    if not isinstance(where, str):
        return where
    host, colon, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ValueError(f"cannot read {where!r} as an address: write host:port")
    return host, int(port)
