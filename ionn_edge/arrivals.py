"""Lets a process sleep until the rest of a WebSocket frame is there.

A frame that comes over a slow link comes packet by packet, and each would wake this process to
append it to the others. The kernel can wait instead (SO_RCVLOWAT), but must be told for how much:
hence this looks at the frames' lengths, and at nothing else, on their way to aiohttp.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

# What is left of a frame is not worth waiting for.
LEAST_BYTES = 3_000
# Copied meanwhile rather than at the end; also, the kernel must have room for it.
MOST_BYTES = 64 << 10
LONGEST_HEADER_BYTES = 14


class WholeFrames(asyncio.Protocol):
    """Stands between a transport and its protocol, which it hands everything on to."""

    def __init__(self, inner: asyncio.Protocol, link: socket.socket) -> None:
        self._inner = inner
        self._link = link
        self._missing_bytes = 0
        self._header = b""
        self._least_bytes = 1

    @classmethod
    def attach(cls, transport: asyncio.Transport) -> None:
        """From the next byte on, which is a frame's first; not to an encrypted connection."""
        link = transport.get_extra_info("socket")
        if link is None or transport.get_extra_info("ssl_object") is not None:
            return
        transport.set_protocol(cls(cast(asyncio.Protocol, transport.get_protocol()), link))

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)
        self._follow(data)
        missing = self._missing_bytes
        least = min(missing, MOST_BYTES) if missing > LEAST_BYTES else 1
        if least != self._least_bytes:
            self._least_bytes = least
            try:
                self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            except OSError:
                return  # Closed by what it was told.

    def _follow(self, data: bytes) -> None:
        """Count what is missing of the frame that `data` ends in."""
        at, size = self._missing_bytes, len(data)
        while at < size:
            header = self._header + data[at : at + LONGEST_HEADER_BYTES]
            length = _frame_bytes(header)
            if length is None:
                self._header = header
                at = size
                break
            at += length - len(self._header)
            self._header = b""
        self._missing_bytes = at - size

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _frame_bytes(header: bytes) -> int | None:
    """Length of the frame that begins so (RFC 6455, section 5.2), None if that is to come."""
    if len(header) < 2:
        return None
    mask_bytes, size = (header[1] >> 7) * 4, header[1] & 0x7F
    if size < 126:
        return 2 + mask_bytes + size
    end = 4 if size == 126 else 10
    if len(header) < end:
        return None
    return end + mask_bytes + int.from_bytes(header[2:end], "big")
