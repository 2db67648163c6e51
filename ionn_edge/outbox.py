"""What one connection has to say: to its socket at once, as far as that takes it."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any

import aiohttp
from aiohttp import web

from wire import Encoder, Limits, Message
from wire.eager import Work, begun
from wire.socket_options import set_option

CLOSE_TIMEOUT_S = 2.0
# Linux only.
TCP_CORK: int | None = getattr(socket, "TCP_CORK", None)


class Outbox:
    """Messages on their way, in their order. Those of a closed connection are dropped."""

    def __init__(self, socket: web.WebSocketResponse, transport: Any, limits: Limits) -> None:
        self.closing = False
        self.encoder = Encoder(limits)
        self._socket = socket
        self._transport = transport
        self._frames: deque[bytes | memoryview] = deque()
        # What remains to be done of a frame that the socket did not take at once.
        self._unsent: Work | None = None
        self._unsent_bytes = 0
        self._frames_waiting = asyncio.Event()
        self._frames_sent = asyncio.Event()
        self._said_all = False

    def add(self, message: Message) -> None:
        """To be sent with the next `flush`."""
        frames = self.encoder.encode(message)
        self._frames.extend(frames)
        self._unsent_bytes += sum(map(len, frames))

    def flush(self) -> None:
        """Send what waits: at once as far as the socket takes it, the rest by `run`."""
        several = len(self._frames) > 1
        if several:
            self._cork(True)
        while self._frames and self._unsent is None and not self._said_all:
            frame = self._frames.popleft()
            # aiohttp's annotation is narrower than what it takes.
            sending = self._socket.send_bytes(frame)  # type: ignore[arg-type]
            self._unsent = begun(sending, (OSError, aiohttp.ClientError))
            if self._unsent is None:
                self._unsent_bytes -= len(frame)
            else:
                self._frames_waiting.set()
        if several:
            self._cork(False)
        self._frames_sent.set()

    def _cork(self, corked: bool) -> None:
        """Let several frames leave in the same packets, and wake the client once."""
        link = self._transport.get_extra_info("socket")
        if link is not None and TCP_CORK is not None:
            set_option(link, socket.IPPROTO_TCP, TCP_CORK, corked)

    async def below(self, most_bytes: int) -> None:
        """Until no more than that waits, or nothing is sent any more."""
        while self._unsent_bytes > most_bytes and not self.closing:
            self._frames_sent.clear()
            await self._frames_sent.wait()

    async def run(self) -> None:
        """Until all is said that was there when the connection closed."""
        try:
            while self._unsent is not None or self._frames or not self.closing:
                self.flush()
                if self._unsent is not None:
                    await self._unsent
                    self._unsent, self._unsent_bytes = None, sum(map(len, self._frames))
                elif not self.closing:
                    self._frames_waiting.clear()
                    await self._frames_waiting.wait()
        except (OSError, aiohttp.ClientError):
            # The receiving side sees the end too.
            self._frames.clear()
        finally:
            self._said_all = True
            if self._unsent is not None:
                self._unsent.close()
            self.close()
            await self._socket.close()

    def close(self) -> None:
        """Say what is left, and then no more."""
        if not self.closing:
            self.closing = True
            self._frames_waiting.set()
            self._frames_sent.set()
            # A client that does not even read a goodbye is not waited for.
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abort)
