"""Lets a process sleep until the rest of a frame, or of an encrypted record, is there.

What comes over a slow link comes packet by packet, and each would wake this process to append it
to the others. The kernel can wait instead (SO_RCVLOWAT), but must be told for how much: hence
this looks at the lengths of WebSocket frames and of TLS records, and at nothing else, on their
way to who reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import cast

from ionn_edge.between import Between
from ionn_edge.frames import header_bytes, payload_bytes

# What is left of a frame is not worth waiting for.
LEAST_BYTES = 3_000
# Copied meanwhile rather than at the end; also, the kernel must have room for it.
MOST_BYTES = 64 << 10
LONGEST_HEADER_BYTES = 14
RECORD_HEADER_BYTES = 5
# A client says hello with less.
FIRST_BYTES = 4 << 10

# Length of what begins with these bytes, its header included; None if that is to come.
Measure = Callable[[bytes], int | None]


class Arrivals:
    """What is missing of the last frame or record, and who waits for it: the kernel."""

    def __init__(self, link: socket.socket, measure: Measure) -> None:
        self._link = link
        self._measure = measure
        self._missing_bytes = 0
        self._header = b""
        self._least_bytes = 1

    def follow(self, data: bytes | memoryview) -> bool:
        """Count what is missing of the frame that `data` ends in. Whether one has ended in it."""
        at, size = self._missing_bytes, len(data)
        ended = 0 < at <= size
        while at < size:
            header = self._header + bytes(data[at : at + LONGEST_HEADER_BYTES])
            length = self._measure(header)
            if length is None:
                self._header = header
                at = size
                break
            at += length - len(self._header)
            self._header = b""
            ended = ended or at <= size
        self._missing_bytes = at - size
        return ended

    def wait(self) -> None:
        """Be woken when the rest is there; once what came was handed on."""
        missing = self._missing_bytes
        least = min(missing, MOST_BYTES) if missing > LEAST_BYTES else 1
        if least != self._least_bytes:
            self._least_bytes = least
            # Closed by what it was told, maybe.
            with contextlib.suppress(OSError):
                self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)


class WholeFrames(Between, asyncio.Protocol):
    """Stands between a transport and its protocol, which it hands everything on to."""

    def __init__(self, inner: asyncio.Protocol, link: socket.socket) -> None:
        self._inner: asyncio.Protocol = inner
        self._arrivals = Arrivals(link, frame_bytes)

    @classmethod
    def attach(cls, transport: asyncio.Transport) -> None:
        """From the next byte on, which is a frame's first; not to an encrypted connection."""
        link = transport.get_extra_info("socket")
        if link is None or transport.get_extra_info("ssl_object") is not None:
            return
        transport.set_protocol(cls(cast(asyncio.Protocol, transport.get_protocol()), link))

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)
        self._arrivals.follow(data)
        self._arrivals.wait()


class WholeRecords(Between, asyncio.BufferedProtocol):
    """The same below the encryption: from the first byte on, which is a record's first."""

    def __init__(self, link: socket.socket) -> None:
        self._arrivals = Arrivals(link, record_bytes)
        # What comes before there is somebody to decrypt it.
        self._inner: asyncio.BufferedProtocol = _Kept()
        self._buffer = memoryview(b"")
        # At its start, and not handed on: nothing can be decrypted of a part of a record.
        self._kept_bytes = 0

    @classmethod
    async def serve(
        cls,
        link: socket.socket,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        handshake_timeout_s: float,
        shutdown_timeout_s: float,
    ) -> None:
        """As a loop's connect_accepted_socket does with ssl. Raises OSError."""
        loop = asyncio.get_running_loop()
        raw, below = await loop.connect_accepted_socket(lambda: cls(link), link)
        early = _Early()
        encrypting = asyncio.ensure_future(
            loop.start_tls(
                raw,
                early,
                context,
                server_side=True,
                ssl_handshake_timeout=handshake_timeout_s,
                ssl_shutdown_timeout=shutdown_timeout_s,
            )
        )
        try:
            # It puts its own protocol in our place before it waits for anything.
            await asyncio.sleep(0)
            below._stand_before(raw)
            transport = await encrypting
        finally:
            encrypting.cancel()
        if transport is None or early.lost:
            raise ConnectionResetError("it hung up at once")
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if early.data:
            protocol.data_received(early.data)

    def _stand_before(self, raw: asyncio.Transport) -> None:
        kept, self._inner = self._inner, cast(asyncio.BufferedProtocol, raw.get_protocol())
        assert isinstance(kept, _Kept)
        kept.buffer_updated(self._kept_bytes)
        self._kept_bytes = 0
        raw.set_protocol(self)
        # After it was told of its connection, and before anything else is read.
        asyncio.get_running_loop().call_soon(kept.hand_on, self._inner, raw)

    def get_buffer(self, sizehint: int) -> memoryview:
        if not self._kept_bytes:
            self._buffer = memoryview(self._inner.get_buffer(sizehint))
        return self._buffer[self._kept_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        start, end = self._kept_bytes, self._kept_bytes + nbytes
        ended = self._arrivals.follow(self._buffer[start:end])
        if ended or end == len(self._buffer):
            self._kept_bytes = 0
            self._inner.buffer_updated(end)
        else:
            self._kept_bytes = end
        self._arrivals.wait()


class _Kept(asyncio.BufferedProtocol):
    """Keeps what comes before a connection is decrypted."""

    def __init__(self) -> None:
        self._room = bytearray(FIRST_BYTES)
        self._data = b""

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._data += self._room[:nbytes]

    def hand_on(self, to: asyncio.BufferedProtocol, come_by: asyncio.Transport) -> None:
        # Who was hung up on, by its encryption too, takes nothing more.
        while self._data and not come_by.is_closing():
            room = memoryview(to.get_buffer(len(self._data)))
            size = min(len(room), len(self._data))
            room[:size] = self._data[:size]
            self._data = self._data[size:]
            to.buffer_updated(size)


class _Early(asyncio.Protocol):
    """Keeps what is said right behind the handshake until somebody is told of the connection."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.lost = True


def record_bytes(header: bytes) -> int | None:
    """Length of the TLS record that begins so (RFC 8446, section 5.1)."""
    if len(header) < RECORD_HEADER_BYTES:
        return None
    return RECORD_HEADER_BYTES + int.from_bytes(header[3:5], "big")


def frame_bytes(header: bytes) -> int | None:
    """Length of the WebSocket frame that begins so."""
    size = header_bytes(header)
    if size is None or len(header) < size:
        return None
    return size + payload_bytes(header)
