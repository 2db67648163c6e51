"""Reads an admitted connection in slices, and no faster than leaves the others their turn.

What comes is decrypted, unmasked and put together before anybody knows what it is; a loop that may
read as much as there is does so for a tenth of a second. Here nobody is read for longer than a
slice at a time, and how long the pause is afterwards, `rest` says. What is said goes out in slices
as well: encryption takes a millisecond per megabyte, and all at once that it is given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import ClientConnectionResetError, WSCloseCode, WSMessage, WSMsgType, web

from ionn_edge.doors.arrivals import RECORD_S, Came
from ionn_edge.doors.between import Between
from ionn_edge.doors.frames import Pieces
from ionn_edge.machine.turns import SMALL_S, TURN_S
from wire.messages import Buffer

# What comes in smaller pieces counts when it is a message.
SMALL_BYTES = 16 << 10
# Before it comes here it is copied out of the kernel and decrypted, at 1 GB/s or more.
DECRYPTION_S_PER_BYTE = 1e-9
# Of a frame that is sent, what is encrypted before others have their turn.
SLICE_BYTES = 256 << 10
# RFC 6455, section 5.2: the last of a binary message, unmasked, its length in 8 bytes.
_HEADER = b"\x82\x7f"


class Pace(Between, asyncio.BufferedProtocol):
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
        # Whether a frame has begun that has not ended: nothing else may be said meanwhile.
        self.within_frame = False
        self._writable = asyncio.Event()
        self._writable.set()

    def attach(self) -> Pace:
        """From the next byte on, which is a frame's first."""
        # uvloop reads on as it did for who was there when it began to.
        self._pause()
        self._transport.set_protocol(self)
        self._resume()
        return self

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._pieces.room()

    def buffer_updated(self, nbytes: int) -> None:
        began_s = time.thread_time()
        seen = self._pieces.came(nbytes)
        records = self._came(nbytes, self._pieces.missing_bytes)
        if seen:
            self._inner.data_received(seen)
        if nbytes >= SMALL_BYTES:
            self._spent_s += time.thread_time() - began_s + nbytes * DECRYPTION_S_PER_BYTE
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
        self._writable.set()
        super().connection_lost(exc)

    async def send(self, frame: Buffer) -> None:
        """A large frame, which counts with what is read. Raises ConnectionError once closed.

        Whoever gives up in between has to end the connection.
        """
        self.within_frame = True
        view = memoryview(frame).cast("B")
        self._write(_HEADER + view.nbytes.to_bytes(8, "big"))
        for start in range(0, view.nbytes, SLICE_BYTES):
            if start:
                await asyncio.sleep(0)
            await self._writable.wait()
            self._write(view[start : start + SLICE_BYTES])
        self.within_frame = False
        await self._writable.wait()

    def _write(self, data: Buffer) -> None:
        if self._transport.is_closing():
            raise ClientConnectionResetError("closed within a frame")
        began_s = time.thread_time()
        self._transport.write(data)
        # Whoever is read or answered next for this device waits for it.
        self._rest(time.thread_time() - began_s)

    def pause_writing(self) -> None:
        self._writable.clear()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._writable.set()
        super().resume_writing()

    def abort(self) -> None:
        """End the connection without a word."""
        self._transport.abort()


class PacedSocket(web.WebSocketResponse):
    """aiohttp's, that gives large frames in place of their tickets, and sends them in slices.

    pace: once it is attached.
    """

    pace: Pace | None = None
    _unanswered_ping: bytes | None = None

    async def receive(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        message = await super().receive(timeout)
        if self.pace is None or message.type is not WSMsgType.BINARY:
            return message
        data = self.pace.claim(message.data)
        return message if data is message.data else WSMessage(message.type, data, message.extra)

    async def send_bytes(self, data: Any, compress: int | None = None) -> None:
        if self.pace is None or self.closed or len(data) <= SLICE_BYTES:
            await super().send_bytes(data, compress)
            return
        await self.pace.send(data)
        ping, self._unanswered_ping = self._unanswered_ping, None
        if ping is not None:
            await super().pong(ping)

    async def pong(self, message: bytes = b"") -> None:
        if self.pace is not None and self.pace.within_frame:
            # Of several only the latest needs an answer (RFC 6455, section 5.5.3).
            self._unanswered_ping = message
        else:
            await super().pong(message)

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        if self.pace is not None and self.pace.within_frame:
            # A goodbye would be read as a part of the frame.
            self.pace.abort()
        return await super().close(code=code, message=message, drain=drain)
