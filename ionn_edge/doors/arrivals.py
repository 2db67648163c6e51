"""Lets a process sleep until the rest of a frame, or of an encrypted record, is there.

What comes over a slow link comes packet by packet, and each would wake this process to append it
to the others. The kernel can wait instead (SO_RCVLOWAT), but must be told for how much: hence
this looks at the lengths of TLS records, and at nothing else, on their way to who reads them, and
is told what a frame lacks whose beginning was read. It never waits for more than must come before
the frame is whole.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

from ionn_edge.doors.between import Between
from wire.socket_options import set_option

log = logging.getLogger("ionn_edge")
# What is left of a frame is not worth waiting for.
LEAST_BYTES = 3_000
# Copied meanwhile rather than at the end; also, the kernel must have room for it.
MOST_BYTES = 256 << 10
# Of more than that the last is read by itself: what is decrypted once a frame is whole is late.
LONG_BYTES, LAST_BYTES = 96 << 10, 32 << 10
RECORD_HEADER_BYTES = 5
# Of TLS 1.3 (RFC 8446, section 5.2): at most so much is in a record, and so much is around it. The
# suites that OpenSSL agrees to by default all have tags of 16 bytes.
RECORD_CONTENT_BYTES = 16 << 10
AROUND_BYTES = RECORD_HEADER_BYTES + 1 + 16
# Records that a stranger may have waiting to be decrypted, and how many are handed on at once of
# who speaks in frames: each takes about as long as 4 KiB do, whatever is in it, and all that are
# there are decrypted in one go. Of the least chunks that a client sends, 64 are 92 KB.
MOST_RECORDS, RECORDS_AT_ONCE, RECORD_S = 512, 64, 4e-6
# A client says hello with less.
FIRST_BYTES = 4 << 10

# Told of each piece that came how long it is, and how much its frame still lacks; says how many
# records it came in.
Came = Callable[[int, int], int]


class Waking:
    """When this process is woken to read a socket: the kernel sees to it (SO_RCVLOWAT)."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._least_bytes = 1

    def wait_for(self, missing_bytes: int) -> None:
        """Be woken when so much more is there, or most of it; once what came was handed on."""
        if missing_bytes > LONG_BYTES:
            missing_bytes -= LAST_BYTES
        least = min(missing_bytes, MOST_BYTES) if missing_bytes > LEAST_BYTES else 1
        if least != self._least_bytes:
            self._least_bytes = least
            set_option(self._link, socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)


class Records:
    """Where TLS records end, as far as they came (RFC 8446, section 5.1).

    content_bytes: what those can hold that have begun. waiting: how many have come whose content
    nobody was told of, as far as `follow` looked.
    """

    def __init__(self) -> None:
        self.missing_bytes = 0
        self.content_bytes = 0
        self.waiting = 0
        self._header = b""

    def follow(self, data: memoryview, most: int = MOST_RECORDS + 1) -> tuple[int, bool]:
        """Count what is missing of the record that `data` ends in. How much of it was looked at,
        which is all up to the last record of so many, and whether one has ended in that."""
        at, size = self.missing_bytes, len(data)
        ended = 0 < at <= size
        while at < size and self.waiting < most:
            header = self._header + bytes(data[at : at + RECORD_HEADER_BYTES - len(self._header)])
            if len(header) < RECORD_HEADER_BYTES:
                self._header = header
                at = size
                break
            length = RECORD_HEADER_BYTES + int.from_bytes(header[3:5], "big")
            self.content_bytes += length - AROUND_BYTES
            self.waiting += 1
            at += length - len(self._header)
            self._header = b""
            ended = ended or at <= size
        self.missing_bytes = max(at - size, 0)
        return min(at, size), ended

    def least_bytes_with(self, content_bytes: int) -> int:
        """How much must come at least before so much more content than has begun is there."""
        if content_bytes <= 0:
            return self.missing_bytes
        records = -(-content_bytes // RECORD_CONTENT_BYTES)
        return self.missing_bytes + content_bytes + records * AROUND_BYTES - len(self._header)


def frames_awaited(transport: asyncio.Transport) -> Came:
    """For who reads frames from here on: has the rest of each waited for."""
    encryption = transport.get_extra_info("ssl_object")
    if encryption is not None:
        below = _below.get(encryption)
        return _unawaited if below is None else below.await_frames()
    link = transport.get_extra_info("socket")
    if link is None:
        return _unawaited
    waking = Waking(link)

    def came(_came_bytes: int, missing_bytes: int) -> int:
        waking.wait_for(missing_bytes)
        return 0

    return came


def _unawaited(_came_bytes: int, _missing_bytes: int) -> int:
    return 0


class WholeRecords(Between, asyncio.BufferedProtocol):
    """The same below the encryption: from the first byte on, which is a record's first."""

    def __init__(self, link: socket.socket) -> None:
        self._waking = Waking(link)
        self._records = Records()
        # What the frame that is being read lacks.
        self._lacking_bytes = 0
        self._awaits_frames = False
        self._raw: asyncio.Transport | None = None
        self._encryption: ssl.SSLObject | None = None
        # What comes before there is somebody to decrypt it.
        self._inner: asyncio.BufferedProtocol = _Kept()
        self._buffer = memoryview(b"")
        # At its start, and not handed on: nothing can be decrypted of a part of a record.
        self._kept_bytes = 0
        # Records behind those that were handed on; nothing is read meanwhile.
        self._later = b""

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
        below._told_by(transport.get_extra_info("ssl_object"))
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if early.data:
            protocol.data_received(early.data)

    def _stand_before(self, raw: asyncio.Transport) -> None:
        self._raw = raw
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
        if self._later and self._raw is not None:
            # Encryption has room again and would read on.
            self._raw.pause_reading()
            start = self._kept_bytes
            self._later += bytes(self._buffer[start : start + nbytes])
        else:
            self._take(nbytes)

    def _take(self, nbytes: int) -> None:
        start, end = self._kept_bytes, self._kept_bytes + nbytes
        most = RECORDS_AT_ONCE if self._awaits_frames else MOST_RECORDS + 1
        followed, ended = self._records.follow(self._buffer[start:end], most)
        if self._records.waiting > MOST_RECORDS and self._raw is not None:
            # Decrypted they would keep all others waiting, and nobody who has something to say
            # says it a byte at a time.
            log.info("ended a connection that said next to nothing in %d records", MOST_RECORDS)
            self._raw.abort()
            return
        if start + followed < end:
            self._put_off(start + followed, end)
        elif ended or end == len(self._buffer):
            self._kept_bytes = 0
            self._inner.buffer_updated(end)
        else:
            self._kept_bytes = end
        if not self._later:
            self._waking.wait_for(self._least_bytes())

    def _put_off(self, until: int, end: int) -> None:
        """Hand on what is there until then; the rest once that was read."""
        assert self._raw is not None
        self._raw.pause_reading()
        self._later = bytes(self._buffer[until:end]) + self._later
        self._kept_bytes = 0
        if until:
            self._inner.buffer_updated(until)

    def _go_on(self) -> None:
        if self._raw is None or self._raw.is_closing():
            return
        later, self._later = self._later, b""
        room = self.get_buffer(len(later))
        size = min(len(room), len(later))
        room[:size] = later[:size]
        self._later = later[size:]
        self._take(size)
        if not self._later:
            self._raw.resume_reading()

    def _told_by(self, encryption: ssl.SSLObject) -> None:
        self._encryption = encryption
        _below[encryption] = self

    def connection_lost(self, exc: Exception | None) -> None:
        if self._encryption is not None:
            _below.pop(self._encryption, None)
        super().connection_lost(exc)

    def await_frames(self) -> Came:
        """See frames_awaited. Nothing may be under way that was not read."""
        self._awaits_frames = True
        self._records.content_bytes = self._records.waiting = 0
        return self._read

    def _read(self, came_bytes: int, missing_bytes: int) -> int:
        self._records.content_bytes -= came_bytes
        self._lacking_bytes = missing_bytes
        records, self._records.waiting = self._records.waiting, 0
        if self._later and records:
            asyncio.get_running_loop().call_soon(self._go_on)
        return records

    def _least_bytes(self) -> int:
        """Never more than must come before there is something to be read."""
        if not self._awaits_frames:
            return self._records.missing_bytes
        return self._records.least_bytes_with(self._lacking_bytes - self._records.content_bytes)


# Of open connections, by what decrypts them.
_below: dict[ssl.SSLObject, WholeRecords] = {}


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
