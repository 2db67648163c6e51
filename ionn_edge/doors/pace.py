"""Reads an admitted connection in slices, and no faster than leaves the others their turn.

What comes is decrypted, unmasked and put together before anybody knows what it is; a loop that may
read as much as there is does so for a tenth of a second. Here nobody is read for longer than a
slice at a time, and how long the pause is afterwards, `rest` says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from ionn_edge.doors.arrivals import RECORD_S, Came
from ionn_edge.doors.between import Between
from ionn_edge.doors.frames import Pieces
from ionn_edge.machine.turns import SMALL_S, TURN_S
from wire.messages import Buffer

# What comes in smaller pieces counts when it is a message.
SMALL_BYTES = 16 << 10
# Before it comes here it is copied out of the kernel and decrypted, at 1 GB/s or more.
DECRYPTION_S_PER_BYTE = 1e-9


class Pace(Between, asyncio.Protocol):
    """Stands between a transport and its HTTP protocol, once a WebSocket is what they speak."""

    def __init__(
        self,
        transport: asyncio.Transport,
        pieces: Pieces,
        rest: Callable[[float], float],
        came: Came,
    ) -> None:
        inner = transport.get_protocol()
        assert isinstance(inner, asyncio.Protocol)
        self._inner: asyncio.Protocol = inner
        self._transport = transport
        self._pieces = pieces
        self._rest = rest
        self._came = came
        self._loop = asyncio.get_running_loop()
        self._spent_s = 0.0
        self._resting: asyncio.TimerHandle | None = None

    def attach(self) -> Pace:
        """From the next byte on, which is a frame's first."""
        self._transport.set_protocol(self)
        return self

    def data_received(self, data: bytes) -> None:
        began_s = time.thread_time()
        seen = self._pieces.feed(data)
        records = self._came(len(data), self._pieces.missing_bytes)
        if seen:
            self._inner.data_received(seen)
        if len(data) >= SMALL_BYTES:
            self._spent_s += time.thread_time() - began_s + len(data) * DECRYPTION_S_PER_BYTE
        self._spent_s += self._pieces.fragments * SMALL_S + records * RECORD_S
        self._pieces.fragments = 0
        if self._pieces.waiting or self._resting is not None:
            # Not resumed meanwhile, whoever asks for it.
            self._pause()
        if self._spent_s >= TURN_S and self._resting is None:
            rest_s, self._spent_s = self._rest(self._spent_s), 0.0
            self._pause()
            self._resting = self._loop.call_later(rest_s, self._rested)

    def claim(self, data: Buffer) -> Buffer:
        """See Pieces. One large frame at a time is kept; the next may come now."""
        claimed = self._pieces.claim(data)
        if claimed is not data and self._resting is None:
            self._resume()
        return claimed

    def _rested(self) -> None:
        self._resting = None
        self._resume()

    def _pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        # aiohttp pauses as well, while what came is not read: it resumes then.
        full = getattr(self._inner, "_reading_paused", False)
        if not full and not self._pieces.waiting and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._resting is not None:
            self._resting.cancel()
        super().connection_lost(exc)


class PacedSocket(web.WebSocketResponse):
    """aiohttp's, that gives large frames in place of their tickets. pace: once it is attached."""

    pace: Pace | None = None

    async def receive(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        message = await super().receive(timeout)
        if self.pace is None or message.type is not WSMsgType.BINARY:
            return message
        data = self.pace.claim(message.data)
        return message if data is message.data else WSMessage(message.type, data, message.extra)
