"""One client's connection: performs what its session asks for. Decides nothing.

Three things feed the session: messages from the socket, answers from the worker, and the box
(time, eviction, load, draining). Commands are performed at once, but for chunks: the next
message is taken only when the chunk is on disk, which is what holds back a client that sends
faster than the disk takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp import web

from ionn_edge import events, jobs
from ionn_edge.blobs import Mismatch, Part, StorageError
from ionn_edge.box import Box
from ionn_edge.config import format_bytes
from ionn_edge.engine import EngineError, Worker, WorkerGone
from ionn_edge.session import Session
from ionn_edge.store import NoRoom, WrongSize
from wire import Decoder, Encoder, RemoteProtocolError

log = logging.getLogger("ionn_edge")
CLOSE_TIMEOUT_S = 2.0
# Smaller chunks are hashed and written in less time than another thread takes to be told.
INLINE_BYTES = 64 << 10


class _Refused(Exception):
    """The model is not taken; the arguments are an error's code and text."""


class Link:
    """A WebSocket and its session, for as long as the connection lasts."""

    def __init__(
        self, box: Box, socket: web.WebSocketResponse, transport: Any, address: str
    ) -> None:
        self._address = address
        self.session = Session(box.config, box.welcome)
        self._box = box
        self._socket = socket
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._tasks: asyncio.TaskGroup
        self._cancellable: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._encoder = Encoder(box.config.limits)
        self._frames: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0
        self._frames_waiting = asyncio.Event()
        self._frames_sent = asyncio.Event()
        self._closing = False
        self._chunks: deque[events.WriteChunk] = deque()
        self._worker: Worker | None = None
        self._listening: asyncio.Task[None] | None = None
        self._range: events.RunRange | None = None
        self._graph = jobs.Check("", b"", "")

    async def serve(self) -> None:
        """Until the connection has ended, from whichever side."""
        box = self._box
        box.clients.add(self)
        log.info("%s came", self._address)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._start(self._watch_failure())
                tasks.create_task(self._send_all())
                self._post(events.Connected(len(box.clients) <= box.config.max_clients))
                if box.draining:
                    self._post(events.Draining())
                await self._receive_all()
                self._close()
                for task in self._cancellable:
                    task.cancel()
        finally:
            log.info("%s left", self._address)
            box.left(self)
            if self._timer is not None:
                self._timer.cancel()
            if self._worker is not None:
                await self._worker.close()
            box.store.release(self)

    # What the box has to say. An exception here is this connection's, not the speaker's.

    def evicted(self, epoch: str) -> None:
        self._post_from_outside(events.ModelEvicted(epoch))

    def tell_load(self) -> None:
        self._post_from_outside(events.LoadReported(self._box.load()))

    def drain(self) -> None:
        self._post_from_outside(events.Draining())

    def completed(self, digest: bytes) -> None:
        model, worker = self.session.model, self._worker
        if model is not None and worker is not None:
            weights = (i for i, (each, _) in enumerate(model.weights) if each == digest)
            if ready := tuple(weights):
                worker.send(jobs.Ready(ready))

    def _wake(self) -> None:
        self._post_from_outside(events.TimePassed())

    def _post_from_outside(self, event: events.Event) -> None:
        try:
            self._post(event)
        except Exception as error:
            if not self._failure.done():
                self._failure.set_exception(error)

    async def _watch_failure(self) -> None:
        await self._failure

    # The session.

    def _post(self, event: events.Event) -> None:
        clock = self._box.clock
        for command in self.session.handle(event, clock()):
            self._perform(command)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self.session.wake_at
        if wake_at is not None:
            self._timer = self._loop.call_later(max(wake_at - clock(), 0.0), self._wake)

    def _perform(self, command: events.Command) -> None:
        match command:
            case events.Send(message):
                frames = self._encoder.encode(message)
                self._frames.extend(frames)
                self._unsent_bytes += sum(map(len, frames))
                self._frames_waiting.set()
            case events.WriteChunk():
                self._chunks.append(command)
            case events.OpenModel(fingerprint, graph):
                self._graph = jobs.Check(fingerprint, graph, str(self._box.store.directory))
                self._start(self._open())
            case events.RunRange(query, start, stop, tensors):
                self._range = command
                assert self._worker is not None
                self._worker.send(jobs.Run(query, start, stop, tensors))
            case events.StopWorker():
                self._stop_worker()
            case events.RestartWorker():
                self._start(self._restart())
            case events.ReportLoad():
                self._post(events.LoadReported(self._box.load()))
            case events.CloseConnection():
                self._close()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the connection."""
        task = self._tasks.create_task(work)
        self._cancellable.add(task)
        task.add_done_callback(self._cancellable.discard)
        return task

    # The socket.

    async def _receive_all(self) -> None:
        config, decoder = self._box.config, Decoder(self._box.config.limits)
        async for frame in self._socket:
            event = _decoded(decoder, frame)
            if event is not None:
                self._post(event)
            while self._chunks:
                await self._write(self._chunks.popleft())
            # Who does not read what is said is not listened to either.
            while self._unsent_bytes > config.max_unsent_bytes and not self._closing:
                self._frames_sent.clear()
                await self._frames_sent.wait()

    async def _send_all(self) -> None:
        try:
            while self._frames or not self._closing:
                while self._frames:
                    frame = self._frames.popleft()
                    # aiohttp's annotation is narrower than what it takes.
                    await self._socket.send_bytes(frame)  # type: ignore[arg-type]
                    self._unsent_bytes -= len(frame)
                    self._frames_sent.set()
                self._frames_waiting.clear()
                if not self._closing:
                    await self._frames_waiting.wait()
        except (OSError, aiohttp.ClientError):
            # The receiving side sees the end too.
            self._frames.clear()
        finally:
            self._close()
            await self._socket.close()

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._frames_waiting.set()
            self._frames_sent.set()
            # A client that does not even read a goodbye is not waited for.
            self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    # The store.

    async def _write(self, command: events.WriteChunk) -> None:
        model = self.session.model
        if model is None:
            return
        digest, total_bytes = model.weights[command.weight]
        store = self._box.store
        part = store.part(digest, self)
        try:
            if part is not None:
                await self._append(part, command)
                if part.full:
                    store.finish(part)
                    self._box.completed(digest)
        except StorageError as error:
            self._post(events.ChunkFailed("storage", str(error)))
            return
        except Mismatch as error:
            assert part is not None
            store.drop(part)
            self._box.forgot()
            self._post(events.ChunkFailed("digest", f"{error}; send it again from 0"))
            return
        complete = store.is_whole(digest)
        if part is None and not complete:
            text = "another connection that offers this model has taken over the upload"
            self._post(events.ChunkFailed("unexpected", text))
            return
        held_bytes = total_bytes if complete or part is None else part.held_bytes
        self._post(events.ChunkWritten(command.weight, held_bytes, complete, command.arrived_at))

    async def _append(self, part: Part, command: events.WriteChunk) -> None:
        store = self._box.store
        store.touch(self._graph.fingerprint)
        if part.held_bytes and memoryview(command.payload).nbytes <= INLINE_BYTES:
            part.write(command.payload)
        else:
            await self._loop.run_in_executor(self._box.writers, part.write, command.payload)

    # The worker.

    async def _open(self) -> None:
        try:
            worker, model = await self._new_worker()
            try:
                held_bytes = await self._box.admit(model, self)
            except BaseException:
                await worker.close()
                raise
        except _Refused as refusal:
            self._post(events.ModelRefused(*refusal.args))
        except NoRoom as error:
            self._post(events.ModelRefused("memory", str(error)))
        except StorageError as error:
            self._post(events.ModelRefused("storage", str(error)))
        except WrongSize as error:
            self._post(events.ModelRefused("graph", str(error)))
        else:
            self._use(worker, model)
            self._post(events.ModelOpened(model, self._box.epoch, held_bytes))
            held = sum(dict(zip(model.weights, held_bytes, strict=True)).values())
            log.info(
                "%s offers model %s with %s of weights, %s of them here",
                *(self._address, model.fingerprint[:12]),
                *(format_bytes(model.total_bytes), format_bytes(held)),
            )

    async def _restart(self) -> None:
        model = self.session.model
        try:
            worker, checked = await self._new_worker()
        except _Refused as refusal:
            self._post(events.WorkerLost(refusal.args[1]))
            return
        if model is None or checked != model or self.session.model is not model:
            await worker.close()
            return
        self._use(worker, model)
        self._post(events.WorkerRestarted())

    async def _new_worker(self) -> tuple[Worker, events.Model]:
        """A worker that knows the offered graph, and what it says about it."""
        try:
            worker = await self._box.nursery.fork()
        except EngineError as error:
            raise _Refused("overloaded", str(error)) from error
        timeout_s = self._box.config.range_timeout_s
        try:
            worker.send(self._graph)
            async with asyncio.timeout(timeout_s):
                answer = await worker.receive()
            match answer:
                case jobs.Checked(layers, weights):
                    return worker, events.Model(self._graph.fingerprint, layers, weights)
                case jobs.Refused(code, text):
                    raise _Refused(code, text)
            raise _Refused("graph", "the graph made its worker talk nonsense")
        except BaseException as error:
            await worker.close()
            # Not "graph", which is final: a box short of memory or time may check it later.
            if isinstance(error, WorkerGone):
                raise _Refused("overloaded", f"the graph cannot be checked: {error}") from error
            if isinstance(error, TimeoutError):
                text = f"checking the graph took more than {timeout_s:g} s"
                raise _Refused("overloaded", text) from error
            raise

    def _use(self, worker: Worker, model: events.Model) -> None:
        self._worker = worker
        is_whole = self._box.store.is_whole
        ready = tuple(i for i, (digest, _) in enumerate(model.weights) if is_whole(digest))
        if ready:
            worker.send(jobs.Ready(ready))
        self._listening = self._start(self._listen(worker, model))

    async def _listen(self, worker: Worker, model: events.Model) -> None:
        try:
            while True:
                answer = await worker.receive()
                if worker is self._worker:
                    self._answered(answer, model)
        except WorkerGone as error:
            if worker is self._worker:
                self._worker = self._listening = None
                await worker.close()
                self._post(events.WorkerLost(str(error)))

    def _answered(self, answer: jobs.Job, model: events.Model) -> None:
        match answer:
            case jobs.Ran(query, stop, began_s, compute_s, tensors):
                if self._range is not None and self._range.query == query:
                    self._box.ran(model.fingerprint, self._range.start, stop, compute_s)
                self._post(events.RangeRan(query, stop, began_s, compute_s, tensors))
            case jobs.Failed(query, code, text):
                self._post(events.RangeFailed(query, code, text))

    def _stop_worker(self) -> None:
        worker, listening = self._worker, self._listening
        self._worker = self._listening = None
        if worker is not None and listening is not None:
            self._tasks.create_task(_end(worker, listening))


async def _end(worker: Worker, listening: asyncio.Task[None]) -> None:
    # First nobody reads from the socket any more, then it is closed.
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await worker.close()


def _decoded(decoder: Decoder, frame: aiohttp.WSMessage) -> events.Event | None:
    if frame.type is aiohttp.WSMsgType.ERROR:
        return events.Garbled(str(frame.data))
    if frame.type is not aiohttp.WSMsgType.BINARY:
        return events.Garbled(f"a {frame.type.name.lower()} frame; every frame here is binary")
    try:
        message = decoder.feed(frame.data)
    except RemoteProtocolError as error:
        return events.Garbled(str(error), error.code)
    return None if message is None else events.Received(message)
