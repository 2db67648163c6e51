"""A WebSocket to an edge: messages in and out, in order, until it ends. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum
from typing import cast

import aiohttp

from ionn_client.boxes.access import Access
from ionn_client.boxes.large_frames import LARGE_BYTES, LargeFrames
from ionn_client.machine.flood import Unasked
from wire import DEFAULT_LIMITS, Decoder, Encoder, Limits, RemoteProtocolError, messages
from wire.eager import Work, begun
from wire.socket_options import set_option

PATH = "/ionn"
CONNECT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 0.5
UNANSWERED = (messages.Pong, messages.Cancel, messages.Bye)
# Linux only.
TCP_CORK: int | None = getattr(socket, "TCP_CORK", None)
SO_PRIORITY: int | None = getattr(socket, "SO_PRIORITY", None)
TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


class Priority(Enum):
    """What queues are told: SO_PRIORITY for this machine's, the type of service for others.

    No privileges are needed up to priority 6, which is the kernel's TC_PRIO_INTERACTIVE; 2 is its
    TC_PRIO_BULK. Service class CS4 is real-time interactive (RFC 4594), and goes into the video
    queue of a Wi-Fi station (RFC 8325, section 4.1).
    """

    QUERIES = (6, 0x80)
    USUAL = (0, 0)
    WEIGHTS = (2, 0)


class Connection:
    """Frames wait here to go out; `converse` sends and receives until the connection ends."""

    def __init__(
        self, opened: aiohttp.ClientWebSocketResponse, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._socket = opened
        self._large = LargeFrames.of(opened)
        self._limits = limits
        self._link: socket.socket | None = opened.get_extra_info("socket")
        self.ended = asyncio.Event()
        self._encoder = Encoder(DEFAULT_LIMITS)
        # Header and payload apart, for one frame: a second one costs both sides more.
        self._chunk_encoder = Encoder(DEFAULT_LIMITS, inline_bytes=0)
        # Each as the pieces that it is put together from.
        self._frames: deque[tuple[bytes | memoryview, ...]] = deque()
        # What remains to be done of a frame that the socket did not take at once.
        self._unsent: Work | None = None
        self._waiting = asyncio.Event()
        self._closing = False
        self._unasked = Unasked()
        self._tasks: tuple[asyncio.Task[str], ...] = ()

    @classmethod
    async def open(
        cls, http: aiohttp.ClientSession, access: Access, limits: Limits = DEFAULT_LIMITS
    ) -> Connection:
        """limits: of what the edge may say. Raises PairingError where no other attempt will do,
        else ConnectionError; their texts are for a person."""
        access.check_usable()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                opened = await http.ws_connect(
                    access.url(PATH),
                    headers=access.headers,
                    ssl=access.tls,
                    compress=0,
                    # Pings are counted: a flood of them is a flood.
                    autoping=False,
                    heartbeat=None,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                    max_msg_size=limits.max_frame_bytes,
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            told = await access.explained(error)
            raise told or ConnectionError(cause(error)) from error
        await access.settle(known=True)
        return cls(opened, limits)

    def prefer(self, priority: Priority) -> None:
        """Tell queues how urgent this connection's packets are, as far as the platform can."""
        link, (number, service) = self._link, priority.value
        if link is None or SO_PRIORITY is None:
            return
        six = link.family == socket.AF_INET6
        level, name = (
            (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if six else (socket.IPPROTO_IP, socket.IP_TOS)
        )
        # In this order: the service sets a priority too.
        if set_option(link, level, name, service):
            set_option(link, socket.SOL_SOCKET, SO_PRIORITY, number)

    def give_up_after(self, silence_s: float) -> None:
        """Have the kernel end the connection once nobody acknowledges its bytes for so long
        (RFC 5482), as far as the platform can; TCP itself tries for a quarter of an hour."""
        if self._link is not None and TCP_USER_TIMEOUT is not None:
            milliseconds = min(max(round(1000 * silence_s), 1), 1 << 30)
            set_option(self._link, socket.IPPROTO_TCP, TCP_USER_TIMEOUT, milliseconds)

    async def converse(
        self, connected: Callable[[], None], heard: Callable[[messages.Message], bool]
    ) -> str:
        """Until the connection ends, or `heard` says that nobody listens; why that was."""
        receiving = asyncio.create_task(self._receive_all(connected, heard))
        sending = asyncio.create_task(self._send_all())
        self._tasks = (receiving, sending)
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                receiving.cancel()
                sending.cancel()
                ended = await asyncio.gather(receiving, sending, return_exceptions=True)
            finally:
                # Nothing is sent any more: nobody would wait for it.
                self._tasks = ()
                if self._unsent is not None:
                    self._unsent.close()
                await hung_up(self._socket, CLOSE_TIMEOUT_S if self._closing else 0.0)
                self.ended.set()
        return _reason(ended)

    def send(self, message: messages.Message) -> None:
        """`flush` follows. Raises LocalProtocolError for what cannot be sent."""
        if isinstance(message, messages.Chunk):
            self._frames.append(tuple(self._chunk_encoder.encode(message)))
        else:
            self._frames.extend((frame,) for frame in self._encoder.encode(message))
        if not isinstance(message, UNANSWERED):
            self._unasked.asked()

    def flush(self) -> None:
        """Send what waits: at once as far as the socket takes it, the rest by `converse`."""
        if not self._frames or self._unsent is not None or not self._tasks:
            return
        several = len(self._frames) > 1
        if several:
            self._cork(True)
        while self._frames and self._unsent is None:
            sending = self._sending(*self._frames.popleft())
            self._unsent = begun(sending, (aiohttp.ClientError, OSError))
            if self._unsent is not None:
                self._waiting.set()
        if several:
            self._cork(False)

    def _sending(self, *pieces: bytes | memoryview) -> Work:
        *head, payload = pieces
        if self._large is not None and len(payload) > LARGE_BYTES:
            return self._large.send(b"".join(head), payload)
        # Any buffer will do; aiohttp's annotation knows only bytes.
        return self._socket.send_bytes(b"".join(pieces) if head else cast(bytes, payload))

    def close(self) -> None:
        """End once everything is sent."""
        self._closing = True
        self._waiting.set()

    def abort(self) -> None:
        """End now, and drop what waits."""
        self._frames.clear()
        for task in self._tasks:
            task.cancel()

    async def _receive_all(
        self, connected: Callable[[], None], heard: Callable[[messages.Message], bool]
    ) -> str:
        connected()
        decoder, clock, size_bytes = Decoder(self._limits), asyncio.get_running_loop().time, 0
        async for frame in self._socket:
            message = None
            if frame.type is aiohttp.WSMsgType.PING:
                await self._pong(frame.data)
            elif frame.type is aiohttp.WSMsgType.BINARY:
                try:
                    message = decoder.feed(frame.data)
                except RemoteProtocolError as error:
                    return f"the edge broke the protocol: {error}"
                size_bytes += len(frame.data)
                if message is None:
                    continue
            elif frame.type is not aiohttp.WSMsgType.PONG:
                return f"the edge sent a {frame.type.name.lower()} frame"
            if self._unasked.flooded(size_bytes, clock()):
                return "the edge floods this device with what nobody asked for"
            size_bytes = 0
            if message is not None and not heard(message):
                return "closed"
        return "the connection ended"

    async def _pong(self, data: bytes) -> None:
        # Closed already, maybe, which the next frame will tell.
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await self._socket.pong(data)

    def _cork(self, corked: bool) -> None:
        """Let several frames leave in the same packets, and wake nobody for a header alone."""
        if self._link is not None and TCP_CORK is not None:
            set_option(self._link, socket.IPPROTO_TCP, TCP_CORK, corked)

    async def _send_all(self) -> str:
        try:
            while True:
                self.flush()
                if (unsent := self._unsent) is not None:
                    await unsent
                    self._unsent = None
                elif self._closing:
                    return "closed"
                else:
                    self._waiting.clear()
                    await self._waiting.wait()
        except (aiohttp.ClientError, OSError) as error:
            return f"the connection broke: {cause(error)}"


async def hung_up(
    opened: aiohttp.ClientWebSocketResponse, patience_s: float = CLOSE_TIMEOUT_S
) -> None:
    """Say goodbye, and hear the other side's for so long in all: aiohttp begins to wait anew with
    whatever is said instead."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            await opened.close()


def _reason(ended: Sequence[str | BaseException]) -> str:
    """Why a connection ended, from what its two tasks came to; a bug in them is raised."""
    for outcome in ended:
        if isinstance(outcome, str):
            return outcome
        if not isinstance(outcome, asyncio.CancelledError):
            raise outcome
    return "closed"


@contextlib.asynccontextmanager
async def conversing(access: Access) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A socket for a few questions, beside a session's connection. Raises what aiohttp raises."""
    async with (
        access.http() as http,
        http.ws_connect(
            access.url(PATH),
            headers=access.headers,
            ssl=access.tls,
            compress=0,
            max_msg_size=DEFAULT_LIMITS.max_frame_bytes,
        ) as opened,
    ):
        yield opened


def cause(error: BaseException, patience_s: float = CONNECT_TIMEOUT_S) -> str:
    """Why a connection failed, in a few words for a person."""
    if isinstance(error, TimeoutError):
        return f"no answer within {patience_s:.0f} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and error.strerror:
        # asyncio's own text has the address as Python writes it.
        refused = error.strerror.startswith("Connect call failed")
        said = os.strerror(error.errno) if refused and error.errno else error.strerror
        # It comes amid a line.
        return said[:1].lower() + said[1:]
    return str(error) or type(error).__name__
