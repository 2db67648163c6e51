"""Performs what the session machine asks for: sockets, clock, threads. Decides nothing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import aiohttp

from ionn_client import events
from ionn_client.config import EdgeAddress, Options
from ionn_client.errors import OffloadError
from ionn_client.local import LocalRunner
from ionn_client.query import Answer
from ionn_client.session import Session
from layergraph.execute import Live
from wire import DEFAULT_LIMITS, Decoder, Encoder, ProtocolError, RemoteProtocolError, messages
from wire.activations import decode_tensor, encode_tensor
from wire.segments import encode_segment

CONNECT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 0.5
# Linux only.
TCP_CORK: int | None = getattr(socket, "TCP_CORK", None)
LATE_S = 0.1


class Driver:
    """One session's I/O. `run` ends only when cancelled; `close` says goodbye first."""

    def __init__(
        self, session: Session, address: EdgeAddress, runner: LocalRunner, options: Options
    ) -> None:
        self.session = session
        self._address = address
        self._runner = runner
        self._trace = options.trace
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._next_query = 0
        self._tasks: asyncio.TaskGroup
        self._coder = ThreadPoolExecutor(1, "ionn-coder")
        # Of its own, so that no query waits for weights to be coded.
        self._tensor_coder = ThreadPoolExecutor(1, "ionn-tensors")
        self._connection: _Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._started = asyncio.Event()
        self._ended = False

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                asyncio.TaskGroup() as tasks,
            ):
                self._http, self._tasks = http, tasks
                self._post(events.Started())
                self._started.set()
                await asyncio.Event().wait()
        finally:
            self._end()

    async def started(self) -> None:
        await self._started.wait()

    async def ask(self, live: Live, deadline_s: float | None, precision: str) -> Answer:
        if self._ended:
            raise OffloadError("the session was closed")
        number, self._next_query = self._next_query, self._next_query + 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._answers[number] = future
        try:
            self._post(events.QueryAsked(number, live, deadline_s, precision))
            return await future
        except asyncio.CancelledError:
            self._post(events.QueryAbandoned(number))
            raise
        finally:
            self._answers.pop(number, None)

    async def changed(self) -> None:
        """Until the session's phase, upload or plan changes."""
        await self._changed.wait()

    async def close(self) -> None:
        """Say goodbye, as far as the edge listens; the caller then cancels `run`."""
        connection = self._connection
        self._post(events.Stopped())
        if connection is not None:
            try:
                await asyncio.wait_for(connection.ended.wait(), 2 * CLOSE_TIMEOUT_S)
            except TimeoutError:
                return  # A frozen edge; whoever cancels `run` ends the connection.

    def _end(self) -> None:
        self._ended = True
        for pool in (self._coder, self._tensor_coder):
            pool.shutdown(wait=False, cancel_futures=True)
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(OffloadError("the session was closed"))

    def _post(self, event: events.Event) -> None:
        now = self._loop.time()
        try:
            commands = self.session.handle(event, now)
        except Exception as error:
            commands = self.session.failed(error, now)
        for command in commands:
            self._perform(command)
        self._set_timer(self.session.wake_at)

    def _set_timer(self, wake_at: float | None) -> None:
        timer = self._timer
        if wake_at is None or (timer is not None and wake_at < timer.when()):
            if timer is not None:
                timer.cancel()
            self._timer = timer = None
        # A timer that is early finds out when it goes off: most times move on with each message.
        if wake_at is not None and timer is None:
            self._timer = self._loop.call_at(wake_at, self._wake, wake_at)

    def _wake(self, due_at: float) -> None:
        self._timer = None
        if self._loop.time() - due_at > LATE_S:
            # This program was busy elsewhere: what has arrived meanwhile is heard first.
            self._timer = self._loop.call_later(LATE_S / 2, self._wake, self._loop.time())
        else:
            self._post(events.TimePassed())

    def _perform(self, command: events.Command) -> None:
        match command:
            case events.SendMessage(message):
                self._send(message)
            case events.RunRange():
                self._tasks.create_task(self._run_range(command))
            case events.CodeSegment():
                self._tasks.create_task(self._code_segment(command))
            case events.EncodeTensors() | events.DecodeTensors():
                self._tasks.create_task(self._code_tensors(command))
            case events.FinishQuery(number, answer):
                self._settle(number, answer)
            case events.FailQuery(number, error):
                self._settle(number, error)
            case events.OpenConnection(delay_s):
                self._tasks.create_task(self._connect(delay_s))
            case events.CloseConnection():
                if (connection := self._forget_connection()) is not None:
                    connection.close()
            case events.AbortConnection():
                if (connection := self._forget_connection()) is not None:
                    connection.abort()
            case events.Record(kind, fields):
                self._record(kind, fields)

    def _settle(self, number: int, outcome: Answer | Exception) -> None:
        future = self._answers.get(number)
        if future is None or future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _record(self, kind: str, fields: dict[str, Any]) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._trace is not None:
            self._trace({"event": kind, "time_s": self._loop.time() - self._began, **fields})

    async def _run_range(self, command: events.RunRange) -> None:
        start, stop = command.start, command.stop
        try:
            ran = await self._runner.run(
                start, stop, command.live, lambda: command.query in self._answers
            )
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # The model itself fails on this input: the caller's to see, as without an edge.
            self._post(events.RangeFailed(command.query, error))
        else:
            if ran is not None:
                self._post(events.RangeRan(command.query, start, stop, *ran))

    async def _code_segment(self, command: events.CodeSegment) -> None:
        coded = await self._loop.run_in_executor(self._coder, _code_segment, command)
        self._post(coded)

    async def _code_tensors(self, command: events.EncodeTensors | events.DecodeTensors) -> None:
        self._post(await self._loop.run_in_executor(self._tensor_coder, _code_tensors, command))

    def _send(self, message: messages.Message) -> None:
        if self._connection is None:
            return
        try:
            self._connection.send(message)
        except ProtocolError as error:
            # Not sendable, which the session should have known: answer from here.
            connection = self._forget_connection()
            if connection is not None:
                connection.abort()
            lost = events.ConnectionLost(f"internal error: {error}")
            self._loop.call_soon(self._post, lost)

    def _forget_connection(self) -> _Connection | None:
        # Its task sees that it is no longer the current one, and ends quietly.
        connection, self._connection = self._connection, None
        return connection

    async def _connect(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                opened = await self._http.ws_connect(
                    self._address.http_url,
                    compress=0,
                    autoping=True,
                    heartbeat=None,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                    max_msg_size=DEFAULT_LIMITS.max_frame_bytes,
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._post(events.ConnectionLost(f"no edge at {self._address}: {cause(error)}"))
            return
        connection = self._connection = _Connection(opened)
        receiving = asyncio.create_task(self._converse(connection))
        sending = asyncio.create_task(connection.send_all())
        connection.tasks = (receiving, sending)
        try:
            await asyncio.wait(connection.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                receiving.cancel()
                sending.cancel()
                ended = await asyncio.gather(receiving, sending, return_exceptions=True)
            finally:
                await opened.close()
                connection.ended.set()
        if self._connection is connection:
            self._connection = None
            self._post(events.ConnectionLost(_reason(ended)))

    async def _converse(self, connection: _Connection) -> str:
        self._post(events.Connected())
        return await self._receive(connection)

    async def _receive(self, connection: _Connection) -> str:
        """Feed messages to the session until the connection ends; return why it did."""
        decoder = Decoder(DEFAULT_LIMITS)
        async for frame in connection.socket:
            if self._connection is not connection:
                return "closed"
            if frame.type is not aiohttp.WSMsgType.BINARY:
                return f"the edge sent a {frame.type.name.lower()} frame"
            try:
                message = decoder.feed(frame.data)
            except RemoteProtocolError as error:
                return f"the edge broke the protocol: {error}"
            if message is not None:
                self._post(events.MessageReceived(message))
        return "the connection ended"


class _Connection:
    """A WebSocket, and the frames waiting to go out over it in order."""

    def __init__(self, opened: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = opened
        self._link: socket.socket | None = opened.get_extra_info("socket")
        self.ended = asyncio.Event()
        self._encoder = Encoder(DEFAULT_LIMITS)
        self._frames: deque[bytes | memoryview] = deque()
        self._waiting = asyncio.Event()
        self._closing = False
        self.tasks: tuple[asyncio.Task[str], ...] = ()

    def send(self, message: messages.Message) -> None:
        self._frames.extend(self._encoder.encode(message))
        self._waiting.set()

    def close(self) -> None:
        """End once everything is sent."""
        self._closing = True
        self._waiting.set()

    def abort(self) -> None:
        """End now, and drop what waits."""
        self._frames.clear()
        for task in self.tasks:
            task.cancel()

    def _cork(self, corked: bool) -> None:
        """Let a message's frames leave in the same packets, and wake nobody for a header alone."""
        if self._link is not None and TCP_CORK is not None:
            self._link.setsockopt(socket.IPPROTO_TCP, TCP_CORK, corked)

    async def send_all(self) -> str:
        """Send frames as they come; return why that ended."""
        try:
            while True:
                self._cork(True)
                while self._frames:
                    # Any buffer will do; aiohttp's annotation knows only bytes.
                    await self.socket.send_bytes(cast(bytes, self._frames.popleft()))
                self._cork(False)
                if self._closing:
                    return "closed"
                self._waiting.clear()
                await self._waiting.wait()
        except (aiohttp.ClientError, OSError) as error:
            return f"the connection broke: {cause(error)}"


def _code_segment(command: events.CodeSegment) -> events.SegmentCoded:
    piece, began = command.piece, time.thread_time()
    payload = encode_segment(
        command.dtype, piece.plane, command.blob, piece.start, piece.count, "planes"
    )
    return events.SegmentCoded(piece, payload, time.thread_time() - began)


def _code_tensors(command: events.EncodeTensors | events.DecodeTensors) -> events.Event:
    began = time.perf_counter()
    if isinstance(command, events.EncodeTensors):
        tensors = tuple(encode_tensor(tensor, command.coding) for tensor in command.tensors)
        return events.TensorsEncoded(command.query, tensors, time.perf_counter() - began)
    try:
        tensors = tuple(map(decode_tensor, command.tensors))
    except RemoteProtocolError as error:
        return events.TensorsUndecodable(command.query, str(error))
    return events.TensorsDecoded(command.query, tensors, time.perf_counter() - began)


def _reason(ended: Sequence[str | BaseException]) -> str:
    """Why a connection ended, from what its two tasks came to; a bug in them is raised."""
    for outcome in ended:
        if isinstance(outcome, str):
            return outcome
        if not isinstance(outcome, asyncio.CancelledError):
            raise outcome
    return "closed"


def cause(error: BaseException) -> str:
    """Why a connection failed, in a few words for a person."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return str(error) or type(error).__name__
