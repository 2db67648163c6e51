"""Connections before anybody knows whose they are: few, brief, small, and gone when others come.

Knows sockets, encryption and time; not what is asked, nor who may. What a connection says goes on
to an HTTP server. Until it is admitted it may be ended at any moment to make room for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import math
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import cast
from weakref import WeakValueDictionary

from ionn_edge.config import Config
from ionn_edge.doors.arrivals import WholeRecords
from ionn_edge.doors.between import Between
from ionn_edge.machine.turns import Turns

log = logging.getLogger("ionn_edge")
BACKLOG = 512
# A request of ours has a few hundred bytes, pairing a few thousand.
MOST_BYTES = 32 << 10
ACCEPT_PAUSE_S = 0.1
# Of this process's time, for encryption, request and greeting.
HANDSHAKE_S = 0.003
# Of this process's time, for a connection that says nothing.
ACCEPT_S = 0.00015
# While somebody is served: a few at once, and then of one address a twentieth of the time, of all
# a tenth.
AT_ONCE, RESTS_OF_ONE, RESTS_OF_ALL = 8, 19.0, 9.0
SHUTDOWN_TIMEOUT_S = 2.0
_TLS_HANDSHAKE = 0x16
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SPEAKS_TLS = "this edge is paired and speaks TLS only; pair with it first: ionn pair"
_SPEAKS_PLAIN = "this edge is unpaired and does not speak TLS; start it without --unpaired"


class Door:
    """Accepts connections and hands them to `http`, which makes a protocol for each.

    context: for the next connection; None speaks plainly. serving: whether somebody is kept waiting
        by what new connections cost.
    """

    def __init__(
        self,
        config: Config,
        http: Callable[[], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext | None] = lambda: None,
        serving: Callable[[], bool] = lambda: True,
    ) -> None:
        self.config = config
        self.context = context
        self.http = http
        # From the oldest to the latest.
        self.guests: dict[Guest, None] = {}
        self._serving = serving
        self._accepting = Turns(AT_ONCE * ACCEPT_S, RESTS_OF_ALL)
        spare_s = AT_ONCE * HANDSHAKE_S
        self._turns = Turns(spare_s, RESTS_OF_ONE), Turns(spare_s, RESTS_OF_ALL)
        self._line = asyncio.Lock()
        # Of each address, while somebody stands in it.
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def listen(self, listener: socket.socket) -> None:
        """Have the kernel keep connections, those that say nothing for as long as they may."""
        listener.setblocking(False)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            # Both TLS and HTTP have the client speak first: who does not costs no time here.
            patience_s = math.ceil(self.config.handshake_timeout_s)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, patience_s)
        listener.listen(BACKLOG)

    async def accept(self, listener: socket.socket) -> None:
        """Let connections in until cancelled, of a socket that listens."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                link, address = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("a connection was not accepted: %s", error.strerror)
                if error.errno in _EXHAUSTED:
                    self._end_oldest(list(self.guests))
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            self._let_in(link, _household(address[0]))
            # Where the next one is there already, accepting it would not wait for anything. Those
            # of a flood wait in the kernel meanwhile.
            alone = not self._serving()
            await asyncio.sleep(self._accepting.rest_s("", ACCEPT_S, loop.time(), alone=alone))

    def _let_in(self, link: socket.socket, household: str) -> None:
        config = self.config
        of_these = [guest for guest in self.guests if guest.household == household]
        if len(of_these) >= config.max_guests_per_address:
            self._end_oldest(of_these)
        elif len(self.guests) >= config.max_guests:
            crowded, _ = Counter(guest.household for guest in self.guests).most_common(1)[0]
            self._end_oldest([guest for guest in self.guests if guest.household == crowded])
        self.guests[Guest(self, link, household)] = None

    async def turn(self, household: str) -> None:
        """Until the next handshake of this address may begin: a flood of them has its turn only.

        Those of one address stand in line, and one of each address in another; who leaves costs
        nobody a turn.
        """
        loop = asyncio.get_running_loop()
        ours = self._lines.setdefault(household, asyncio.Lock())
        await ours.acquire()
        try:
            await self._line.acquire()
        except BaseException:
            ours.release()
            raise
        of_one, of_all = self._turns
        now, alone = loop.time(), not self._serving()
        loop.call_later(of_one.rest_s(household, HANDSHAKE_S, now, alone=alone), ours.release)
        loop.call_later(of_all.rest_s("", HANDSHAKE_S, now, alone=alone), self._line.release)

    def _end_oldest(self, guests: list[Guest]) -> None:
        if guests:
            guests[0].end()

    def close(self) -> None:
        """End those that are not admitted."""
        for guest in list(self.guests):
            guest.end()


class Guest(Between, asyncio.Protocol):
    """One connection until it is admitted: stands between its transport and its HTTP protocol."""

    def __init__(self, door: Door, link: socket.socket, household: str) -> None:
        self.household = household
        self._door = door
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._inner: asyncio.Protocol
        self._transport: asyncio.Transport | None = None
        self._bytes = 0
        self._timer = self._loop.call_later(door.config.handshake_timeout_s, self.end)
        self._handed_over = False
        self._opening = self._loop.create_task(self._open())
        # Not at its end: a task that is cancelled early has none.
        self._opening.add_done_callback(self._opened)

    @staticmethod
    def of(transport: asyncio.BaseTransport | None) -> Guest | None:
        """Who is at the other end, unless it is admitted or gone."""
        protocol = None if transport is None else transport.get_protocol()
        return protocol if isinstance(protocol, Guest) else None

    def admit(self) -> None:
        """It has said who it is: from now on its HTTP protocol has it alone."""
        assert self._transport is not None
        self._leave()
        self._transport.set_protocol(self._inner)

    def wait(self, seconds: float) -> None:
        """It may take so long from now."""
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.end)

    def stay(self, seconds: float) -> None:
        """The same, and it gives way to nobody. The caller sees to how many do."""
        self._door.guests.pop(self, None)
        self.wait(seconds)

    def end(self) -> None:
        """At once."""
        self._leave()
        if self._transport is None:
            self._opening.cancel()
        else:
            self._transport.abort()

    def _leave(self) -> None:
        self._timer.cancel()
        self._door.guests.pop(self, None)

    # Before there is a transport.

    async def _open(self) -> None:
        # Encryption has buffers of 256 KiB: who says nothing does not get them.
        context, timeout_s = self._door.context(), self._door.config.handshake_timeout_s
        try:
            encrypted = await self._first_byte() == _TLS_HANDSHAKE
            if encrypted != (context is not None):
                self._link.send(_refusal(_SPEAKS_TLS if context else _SPEAKS_PLAIN))
                return
            if context is not None:
                await self._door.turn(self.household)
            # From here on the socket is the loop's to close.
            self._handed_over = True
            if context is None:
                await self._loop.connect_accepted_socket(lambda: self, self._link)
            else:
                times_s = timeout_s, SHUTDOWN_TIMEOUT_S
                await WholeRecords.serve(self._link, self, context, *times_s)
        except OSError as error:
            log.debug("a connection from %s was given up: %s", self.household, error)

    def _opened(self, _: asyncio.Task[None]) -> None:
        if self._transport is None:
            self._leave()
        if not self._handed_over:
            self._hang_up()

    async def _first_byte(self) -> int:
        readable = asyncio.Event()
        self._loop.add_reader(self._link, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(self._link)
        first = self._link.recv(1, socket.MSG_PEEK)
        if not first:
            raise ConnectionResetError("it said nothing")
        return first[0]

    def _hang_up(self) -> None:
        # What is unread would make the kernel take back what was said.
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
            self._link.recv(MOST_BYTES)
        self._link.close()

    # Between the transport and the HTTP protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner = self._door.http()
        self.wait(self._door.config.request_timeout_s)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self.end()
        else:
            self._inner.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)


def _household(address: str) -> str:
    """Who shares what one address may: of version 6, a network of 64 bits is one customer's."""
    bare = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(bare, ipaddress.IPv4Address):
        return str(bare)
    # How a socket of version 6 tells of one of version 4.
    return str(bare.ipv4_mapped or ipaddress.ip_network((bare, 64), strict=False))


def _refusal(text: str) -> bytes:
    body = f"{text}\n".encode()
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
    )
