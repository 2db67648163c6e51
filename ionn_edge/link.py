"""One client's connection: performs what its session asks for. Decides nothing.

Three things feed the session: messages from the socket, answers from the worker, and the box
(time, eviction, load, draining). Commands are performed at once, but for segments, which are
stored in their order beside (see writing).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp import web

from ionn_edge.box import Box
from ionn_edge.config import format_bytes
from ionn_edge.doors.devices import LOOPBACK, Device
from ionn_edge.machine import events
from ionn_edge.machine.quota import Quota
from ionn_edge.machine.session import Session
from ionn_edge.machine.turns import SMALL_S, TURN_S, cost_s
from ionn_edge.storage.admission import admit, count
from ionn_edge.storage.blobs import StorageError
from ionn_edge.storage.opening import NONSENSE, Refused, check_of, known_graph, worker_for
from ionn_edge.storage.store import NoRoom, WrongSize
from ionn_edge.storage.writing import Writer
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import Worker, WorkerGone
from wire import HEARD, Decoder, Encoder, RemoteProtocolError, Role
from wire.eager import Work, begun

log = logging.getLogger("ionn_edge")
CLOSE_TIMEOUT_S = 2.0


class Link:
    """A WebSocket and its session, for as long as the connection lasts."""

    def __init__(
        self,
        box: Box,
        socket: web.WebSocketResponse,
        transport: Any,
        address: str,
        device: Device = LOOPBACK,
        quota: Quota | None = None,
    ) -> None:
        self.device = device
        self._quota = quota
        self._ended = asyncio.Event()
        self._address = address
        self._secret = secrets.token_hex(16)
        self.session = Session(
            box.config,
            lambda version, now: box.welcome(version, device, self._secret, now),
            quota,
        )
        self._box = box
        self._writer = Writer(box, self, self._prepared)
        # Who this one carries weights for, and who does so for this one.
        self._first: Link | None = None
        self._lane: Link | None = None
        self._socket = socket
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._tasks: asyncio.TaskGroup
        self._cancellable: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._encoder = Encoder(box.config.limits)
        self._frames: deque[bytes | memoryview] = deque()
        # What remains to be done of a frame that the socket did not take at once.
        self._unsent: Work | None = None
        self._unsent_bytes = 0
        self._frames_waiting = asyncio.Event()
        self._frames_sent = asyncio.Event()
        self._closing = self._said_all = False
        self._worker: Worker | None = None
        self._listening: asyncio.Task[None] | None = None
        self._range: events.RunRange | None = None
        self._asked_at = 0.0
        self._graph = jobs.Check("", b"", "")
        self._weights_of: dict[bytes, list[int]] = {}

    async def serve(self) -> None:
        """Until the connection has ended, from whichever side."""
        box = self._box
        box.clients.add(self)
        if self._quota is not None:
            self._quota.sessions.add(self.session)
        log.info("%s came", self._address)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._start(self._watch_failure())
                self._start(self._writer.run())
                tasks.create_task(self._send_all())
                self._post(events.Connected(*box.room()))
                if box.draining:
                    self._post(events.Draining())
                await self._receive_all()
                self._close()
                self._part()
                for task in self._cancellable:
                    task.cancel()
        finally:
            log.info("%s left", self._address)
            self._part()
            box.left(self)
            self._ended.set()
            if self._quota is not None:
                self._quota.sessions.discard(self.session)
            if self._timer is not None:
                self._timer.cancel()
            if self._worker is not None:
                await self._worker.close()
            self._give_way()
            box.store.shelf(self.device.id).release(self)

    # A second connection, which carries weights for the first.

    @property
    def heard_at(self) -> float:
        """When the client last said something, on either connection."""
        lane = self._lane
        return max(self.session.heard_at, 0.0 if lane is None else lane.session.heard_at)

    @property
    def is_lane(self) -> bool:
        return self._first is not None

    @property
    def may_be_joined(self) -> bool:
        return self._lane is None and self.session.lend_intake() is not None

    def _join(self, secret: str) -> None:
        first = self._with_secret(secret)
        if first is None:
            self._post(events.LaneRefused("no connection was told of this lane"))
        elif first._lane is not None:
            self._post(events.LaneRefused("that connection has a lane already"))
        elif (intake := first.session.lend_intake()) is None:
            self._post(events.LaneRefused("that connection has no model to carry weights of"))
        else:
            self._first, first._lane = first, self
            self._post(events.LaneJoined(intake))
            log.info("%s carries weights for %s", self._address, first._address)

    def _with_secret(self, secret: str) -> Link | None:
        found = None
        for other in self._box.clients:
            # All are compared, each in constant time: how long it takes tells nothing.
            if (
                isinstance(other, Link)
                and hmac.compare_digest(other._secret.encode(), secret.encode())
                and other.device == self.device
            ):
                found = other
        return found

    def _part(self) -> None:
        """This connection ends: so does its lane, or its first has none any more."""
        self._end_lane()
        if self._first is not None and self._first._lane is self:
            self._first._lane = None

    def _end_lane(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane._post_from_outside(events.LaneOver())

    # What the box has to say. An exception here is this connection's, not the speaker's.

    def evicted(self, epoch: str) -> None:
        self._writer.clear()
        self._post_from_outside(events.ModelEvicted(epoch))

    def tell_load(self) -> None:
        self._post_from_outside(events.LoadReported(self._box.load(self.device)))

    async def revoke(self) -> None:
        """The device is unpaired: nothing is said any more, nor heard. Until all has ended."""
        self._transport.abort()
        await self._ended.wait()

    def drain(self) -> None:
        self._post_from_outside(events.Draining())

    def completed(self, digest: bytes) -> None:
        weights = self._weights_of.get(digest)
        if weights and self._worker is not None:
            self._worker.send(jobs.Ready(tuple(weights), "exact", 0))

    def _prepared(self, model: events.Model, digest: bytes, precision: str, number: int) -> None:
        """Planes of a blob that this client sends are complete. Nobody else is to use them."""
        weights = (i for i in self._weights_of.get(digest, ()) if model.weights[i][2] == "float32")
        ready = tuple(weights)
        if ready and self._worker is not None:
            self._worker.send(jobs.Ready(ready, precision, number))

    def _wake(self) -> None:
        self._timer = None
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
        self._flush()
        self._give_way()
        wake_at = self.session.wake_at
        # One that goes off too early does no harm, and most are put off before they do.
        if wake_at is not None and (self._timer is None or wake_at < self._wakes_at):
            if self._timer is not None:
                self._timer.cancel()
            self._wakes_at = wake_at
            self._timer = self._loop.call_later(max(wake_at - clock(), 0.0), self._wake)

    def _give_way(self) -> None:
        """Others of the device may run now what they waited for."""
        turns = () if self._quota is None else self._quota.next_to_run()
        for other in self._box.clients if turns else ():
            if isinstance(other, Link) and other is not self and other.session in turns:
                self._loop.call_soon(other._post_from_outside, events.TimePassed())

    def _perform(self, command: events.Command) -> None:
        match command:
            case events.Send(message):
                frames = self._encoder.encode(message)
                self._frames.extend(frames)
                self._unsent_bytes += sum(map(len, frames))
            case events.StoreSegment():
                carrier = self._first or self
                if carrier.session.model is not None:
                    carrier._writer.add(carrier.session.model, command, self._post)
            case events.JoinLane(lane):
                self._join(lane)
            case events.EndLane():
                self._end_lane()
            case events.CountHeld():
                self._start(self._count())
            case events.OpenModel(fingerprint, graph):
                self._writer.clear()
                self._graph = check_of(self._box, self.device.id, fingerprint, graph)
                self._start(self._open())
            case events.RunRange(query, start, stop, precision, reply_coding, tensors):
                self._range, self._asked_at = command, self._box.clock()
                assert self._worker is not None
                job = jobs.Run(query, start, stop, precision, reply_coding, tensors)
                self._worker.send(job)
            case events.StopWorker():
                self._stop_worker()
            case events.RestartWorker():
                self._start(self._restart())
            case events.ReportLoad():
                self._post(events.LoadReported(self._box.load(self.device)))
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
        config, decoder = self._box.config, Decoder(self._box.config.limits, HEARD[Role.EDGE])
        spent_s = 0.0
        async for frame in self._socket:
            # Not what others took meanwhile.
            began_s = time.thread_time()
            if frame.type is aiohttp.WSMsgType.PING:
                with contextlib.suppress(OSError, aiohttp.ClientError):
                    await self._socket.pong(frame.data)
            # The session is over, and perhaps the decoder: what still comes is not looked at.
            event = None if self.session.closed else _decoded(decoder, frame)
            if event is not None:
                self._post(event)
            size_bytes = len(frame.data) if isinstance(frame.data, bytes) else 0
            spent_s += cost_s(size_bytes, time.thread_time() - began_s)
            if spent_s >= TURN_S:
                rest_s = self._box.rest_s(self.device, spent_s)
                spent_s = 0.0
                await asyncio.sleep(rest_s)
            writer = (self._first or self)._writer
            while writer.full and not self._closing:
                await writer.stored()
            # Who does not read what is said is not listened to either.
            while self._unsent_bytes > config.max_unsent_bytes and not self._closing:
                self._frames_sent.clear()
                await self._frames_sent.wait()

    def _flush(self) -> None:
        """Send what waits: at once as far as the socket takes it, the rest by `_send_all`."""
        while self._frames and self._unsent is None and not self._said_all:
            frame = self._frames.popleft()
            # aiohttp's annotation is narrower than what it takes.
            sending = self._socket.send_bytes(frame)  # type: ignore[arg-type]
            self._unsent = begun(sending, (OSError, aiohttp.ClientError))
            if self._unsent is None:
                self._unsent_bytes -= len(frame)
            else:
                self._frames_waiting.set()
        self._frames_sent.set()

    async def _send_all(self) -> None:
        try:
            while self._unsent is not None or self._frames or not self._closing:
                self._flush()
                if self._unsent is not None:
                    await self._unsent
                    self._unsent, self._unsent_bytes = None, sum(map(len, self._frames))
                elif not self._closing:
                    self._frames_waiting.clear()
                    await self._frames_waiting.wait()
        except (OSError, aiohttp.ClientError):
            # The receiving side sees the end too.
            self._frames.clear()
        finally:
            self._said_all = True
            if self._unsent is not None:
                self._unsent.close()
            self._close()
            await self._socket.close()

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._frames_waiting.set()
            self._frames_sent.set()
            # A client that does not even read a goodbye is not waited for.
            self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    # The worker.

    async def _open(self) -> None:
        try:
            # One after the other: a check takes a processor, and others need one too.
            async with self._box.turn_to_check(self.device):
                worker, model = await self._offered_model()
            try:
                held = await admit(self._box, model, self)
            except BaseException:
                if worker is not None:
                    await worker.close()
                raise
        except Refused as refusal:
            if refusal.code == "unknown":
                self._post(events.ModelUnknown())
            else:
                self._post(events.ModelRefused(refusal.code, str(refusal)))
        except NoRoom as error:
            self._post(events.ModelRefused("memory", str(error)))
        except StorageError as error:
            self._post(events.ModelRefused("storage", str(error)))
        except WrongSize as error:
            self._post(events.ModelRefused("graph", str(error)))
        else:
            if worker is not None:
                self._use(worker, model)
            epoch = self._box.epoch(self.device.id)
            self._post(events.ModelOpened(model, epoch, held, worker is not None))
            if worker is None:
                self._start(self._restart())
            blobs = {digest: each for (digest, _, _), each in zip(model.weights, held, strict=True)}
            held_bytes = sum(each.whole_bytes for each in blobs.values())
            log.info(
                "%s offers model %s with %s of weights, %s of them here",
                *(self._address, model.fingerprint[:12]),
                *(format_bytes(model.total_bytes), format_bytes(held_bytes)),
            )

    async def _count(self) -> None:
        model = self.session.model
        await self._writer.idle()
        if model is not None and self.session.model is model:
            held = await count(self._box, model, self)
            self._post(events.HeldCounted(self._box.epoch(self.device.id), held))

    async def _offered_model(self) -> tuple[Worker | None, events.Model]:
        """What is offered, and a worker for it unless what is known of it does for now."""
        box, check = self._box, self._graph
        graphs = box.store.shelf(self.device.id).graphs
        if check.graph:
            worker, model = await worker_for(box, check)
            graphs.keep_beside(box.writers, model.fingerprint, check.graph)
        else:
            self._graph, known = await known_graph(box, self.device.id, check)
            if known is not None:
                return None, known
            try:
                worker, model = await worker_for(box, self._graph)
            except Refused as refusal:
                if refusal.code != "graph":
                    raise
                graphs.drop(check.fingerprint)
                raise Refused("unknown") from refusal
        graphs.learned(model)
        return worker, model

    async def _restart(self) -> None:
        model = self.session.model
        try:
            worker, checked = await worker_for(self._box, self._graph)
        except Refused as refusal:
            self._post(events.WorkerLost(str(refusal)))
            return
        # Evicted meanwhile, and perhaps offered again, which brings a worker of its own.
        if model is None or self.session.model is not model or self._worker is not None:
            await worker.close()
        elif checked != model:
            await worker.close()
            self._post(events.WorkerLost(NONSENSE))
        else:
            self._use(worker, model)
            self._post(events.WorkerRestarted())

    def _use(self, worker: Worker, model: events.Model) -> None:
        self._worker = worker
        worker.work_for(None if self.device is LOOPBACK else self.device.id, model.total_bytes)
        weights_of: dict[bytes, list[int]] = {}
        for index, (digest, _, _) in enumerate(model.weights):
            weights_of.setdefault(digest, []).append(index)
        self._weights_of = weights_of
        shelf = self._box.store.shelf(self.device.id)
        ready = tuple(i for i, (digest, _, _) in enumerate(model.weights) if shelf.is_whole(digest))
        if ready:
            worker.send(jobs.Ready(ready, "exact", 0))
        for part in shelf.owned(self):
            if part.precision is not None:
                self._prepared(model, part.digest, part.precision, part.number)
        self._listening = self._start(self._listen(worker, model))

    async def _listen(self, worker: Worker, model: events.Model) -> None:
        spent_s = 0.0
        try:
            while True:
                answer = await worker.receive()
                began_s = time.thread_time()
                if worker is self._worker:
                    self._answered(answer, model)
                # Small ones are in what questions count.
                spent_s += max(time.thread_time() - began_s - SMALL_S, 0.0)
                if spent_s >= TURN_S:
                    rest_s, spent_s = self._box.rest_s(self.device, spent_s), 0.0
                    await asyncio.sleep(rest_s)
        except WorkerGone as error:
            if worker is self._worker:
                self._worker = self._listening = None
                await worker.close()
                self._post(events.WorkerLost(str(error)))

    def _answered(self, answer: jobs.Job, model: events.Model) -> None:
        """Raises WorkerGone for what was not asked: it may be the client's own code by now."""
        asked, self._range = self._range, None
        match answer:
            case jobs.Ran(query, stop, precision, began_s, coding_s, compute_s, tensors) if (
                asked is not None and asked.query == query and asked.start < stop <= asked.stop
            ):
                # Others are told of the load: no more is believed of it than can be so.
                compute_s = min(compute_s, self._box.clock() - self._asked_at)
                self._box.ran(self.device, model.fingerprint, asked.start, stop, compute_s)
                self._post(
                    events.RangeRan(query, stop, precision, began_s, coding_s, compute_s, tensors)
                )
            case jobs.Failed(query, code, text) if asked is not None and asked.query == query:
                self._post(events.RangeFailed(query, code, text))
            case _:
                raise WorkerGone("its worker talks nonsense: an answer to nothing")

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
    if frame.type in (aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG):
        return None
    if frame.type is aiohttp.WSMsgType.ERROR:
        return events.Garbled(str(frame.data))
    if frame.type is not aiohttp.WSMsgType.BINARY:
        return events.Garbled(f"a {frame.type.name.lower()} frame; every frame here is binary")
    try:
        message = decoder.feed(frame.data)
    except RemoteProtocolError as error:
        return events.Garbled(str(error), error.code)
    return None if message is None else events.Received(message)
